//! The CPU engine compared with PyTorch, transformers and PEFT; and its invariants.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../common/mod.rs"]
mod common;
mod model_families;
mod trimmed_kinds;

use std::ops::ControlFlow;
use std::path::Path;

use common::{GOLDEN, Golden, adapter_folder, bind, checkpoint, distance, engine, engine_of, golden, golden_tensors};
use plimsoll::data::{self, Sample};
use plimsoll::engine::{
    CpuEngine, CpuOptions, CpuProbe, Probe as _, Request, ScoreEvent, Scorer as _, Sequence, layer_passes,
};
use plimsoll::generate::{Decoder as _, Step};
use plimsoll::lora::adapter::{Adapter, BoundAdapter, LayerLora, Provenance, write_trimmed};
use plimsoll::lora::{LayerGates, Projection, Variant};
use plimsoll::model::{Config, Dtype, Isa, Model, Precision};
use plimsoll::result::SampleScores;
use proptest::prelude::*;

/// Relative tolerances. The golden values come from a model in double precision. PyTorch's own `f32` results differ
/// from them by up to 2e-5 in logits and 1.4e-6 in NLL, so these bounds are tight.
const HIDDEN: f32 = 2e-5;
const LOGITS: f32 = 5e-5;
const NLL: f64 = 1e-5;

/// Relative tolerance of NLL in `bf16`, which rounds every factor by up to 2⁻⁹ of it. The weights of these tiny models
/// are random, so that roundings cancel less than in a trained model: over a few layers they sum to about a percent.
const BF16: f64 = 2e-2;

fn score(engine: &CpuEngine, samples: &[Sample], request: &Request) -> Vec<SampleScores> {
    engine.score(samples, request, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn sweep(layers: usize) -> Request {
    Request { variants: Variant::every_boundary(layers), lens: vec![0, layers], ..Request::default() }
}

/// A variant with a LoRA strength for each of the modules that are not fused.
fn gated(gates: &[[f32; 7]]) -> Variant {
    let of_layer = |gates: &[f32; 7]| LayerGates(std::array::from_fn(|index| gates.get(index).copied().unwrap_or(0.0)));
    Variant { gates: gates.iter().map(of_layer).collect() }
}

/// Reads all samples of a file with the default options of `search`.
fn load(checkpoint: &Model, path: &Path) -> data::TokenizedDataset {
    let options = data::DataOptions {
        template: data::TemplateChoice::Tokenizer,
        turns: data::Turns::Last,
        max_samples: None,
        seed: 0,
        max_length: checkpoint.config().context,
        long: data::LongSamples::Skip,
    };
    data::load(path, &checkpoint.tokenizer().unwrap(), &options).unwrap()
}

/// The results of PyTorch and PEFT for the samples of a data file.
fn expected_samples(path: &Path) -> Vec<common::Sequence> {
    let golden: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    serde_json::from_value(golden["samples"].clone()).unwrap()
}

fn assert_near(found: f64, expected: f64, relative: f64, what: &str) {
    assert!((found - expected).abs() <= relative * expected.abs().max(1e-3), "{what}: {found}, expected {expected}");
}

#[test]
fn hidden_states_and_logits_are_those_of_transformers_and_peft() {
    for (model, adapters) in GOLDEN {
        for &adapter in adapters {
            let (engine, golden) = (engine(model, adapter), Golden::read(model, adapter));
            for (file, kept) in [("base", 0), (adapter, golden.layers)] {
                let tensors = golden_tensors(model, file);
                for (index, sequence) in golden.sequences.iter().enumerate() {
                    let variant = Variant::bottom_k(golden.layers, kept);
                    let states = engine.hidden_states(&sequence.ids, &variant).unwrap();
                    let expected = tensors.read(&format!("hidden.{index}")).unwrap(); // (layers, tokens, hidden)
                    for (layer, (state, expected)) in states.iter().zip(expected.chunks(states[0].len())).enumerate() {
                        let distance = distance(state, expected);
                        assert!(distance < HIDDEN, "{model}/{adapter}, k = {kept}, layer {layer}: {distance}");
                    }
                    let logits = engine.logits(&sequence.ids, &variant).unwrap();
                    let distance = distance(&logits, &tensors.read(&format!("logits.{index}")).unwrap());
                    assert!(distance < LOGITS, "{model}/{adapter}, k = {kept}, logits: {distance}");
                }
            }
        }
    }
}

#[test]
fn scores_of_every_boundary_are_those_of_one_run_of_peft_each() {
    for (model, adapters) in GOLDEN {
        for &adapter in adapters {
            let (engine, golden) = (engine(model, adapter), Golden::read(model, adapter));
            let scores = score(&engine, &golden.samples(), &sweep(golden.layers));
            for (scores, sequence) in scores.iter().zip(&golden.sequences) {
                assert_eq!((scores.line, scores.tokens), (sequence.line, sequence.answer.len()));
                assert_eq!(scores.variants.len(), golden.layers + 1);
                for (k, (found, expected)) in scores.variants.iter().zip(&sequence.variants).enumerate() {
                    let what = format!("{model}/{adapter}, line {}, k = {k}", sequence.line);
                    assert_near(found.nll, expected.nll, NLL, &what);
                    assert_near(found.probability, expected.probability, NLL, &what);
                    assert_eq!(found.correct, expected.correct, "{what}");
                }
                assert_eq!(scores.lens.len(), 2);
                for (found, expected) in scores.lens.iter().zip(&sequence.lens) {
                    assert_eq!(found.probability.len(), golden.layers);
                    for layer in 0..golden.layers {
                        let what = format!("{model}/{adapter}, line {}, lens at layer {layer}", sequence.line);
                        assert_near(found.probability[layer], expected.probability[layer], NLL, &what);
                        assert_near(found.top1[layer], expected.top1[layer], 1e-12, &what);
                        // Two tokens whose logits are equal except for rounding may swap ranks.
                        let swap = 1.0 / sequence.answer.len() as f64;
                        assert!((found.rank[layer] - expected.rank[layer]).abs() <= swap, "{what}: rank");
                    }
                }
            }
        }
    }
}

#[test]
fn scores_with_any_strengths_are_those_of_peft_with_a_scaled_b() {
    for (model, adapters) in GOLDEN {
        for &adapter in adapters {
            let (engine, golden) = (engine(model, adapter), Golden::read(model, adapter));
            let request = Request { variants: vec![gated(&golden.gates)], ..Request::default() };
            for (scores, sequence) in score(&engine, &golden.samples(), &request).iter().zip(&golden.sequences) {
                let expected = sequence.gated.unwrap();
                let what = format!("{model}/{adapter}, line {}", sequence.line);
                assert_near(scores.variants[0].nll, expected.nll, NLL, &what);
                assert_eq!(scores.variants[0].correct, expected.correct, "{what}");
            }
        }
    }
}

#[test]
fn a_gguf_file_is_the_same_model_as_its_folder() {
    for (model, adapters) in GOLDEN {
        let from_gguf = Model::open(golden().join(format!("{model}.gguf"))).unwrap();
        let from_folder = checkpoint(model);
        assert_eq!(from_gguf.parameters(), from_folder.parameters());
        let sequence = &Golden::read(model, adapters[0]).sequences[3];
        let variant = Variant::bottom_k(from_folder.config().layers, 99);
        let states = |checkpoint: &Model| {
            let lora = bind(checkpoint, &adapter_folder(model, adapters[0]));
            engine_of(checkpoint, &lora).hidden_states(&sequence.ids, &variant).unwrap()
        };
        let (found, expected) = (states(&from_gguf), states(&from_folder));
        for (layer, (found, expected)) in found.iter().zip(&expected).enumerate() {
            // Weights are equal to the last bit. GGUF stores Llama-3 frequencies as divisors rounded to f32.
            let distance = distance(found, expected);
            assert!(distance < 1e-5, "{model}, layer {layer}: {distance}");
        }
    }
}

#[test]
fn configs_of_transformers_4_and_5_are_equal() {
    for (model, _) in GOLDEN {
        let read = |name: &str| std::fs::read_to_string(golden().join(model).join(name)).unwrap();
        assert_eq!(
            Config::from_json(&read("config.json")).unwrap(),
            Config::from_json(&read("config.v4.json")).unwrap()
        );
    }
}

#[test]
fn tokens_and_scores_of_a_data_file_are_those_of_transformers_and_peft() {
    let expected = expected_samples(&golden().join("tiny-gqa-tied/valid.plain.golden.json"));
    let checkpoint = checkpoint("tiny-gqa-tied");
    let path = golden().join("data/valid.jsonl");
    for path in [path.clone(), path.parent().unwrap().to_owned()] {
        let dataset = load(&checkpoint, &path);
        assert_eq!(dataset.samples, expected.iter().map(common::Sequence::sample).collect::<Vec<_>>());
        let lora = bind(&checkpoint, &adapter_folder("tiny-gqa-tied", "plain"));
        let scores = score(&engine_of(&checkpoint, &lora), &dataset.samples, &sweep(4));
        for (scores, expected) in scores.iter().zip(&expected) {
            for (found, expected) in scores.variants.iter().zip(&expected.variants) {
                assert_near(found.nll, expected.nll, NLL, "nll");
            }
        }
    }
}

#[test]
fn variants_scored_together_have_the_scores_of_separate_runs() {
    for (model, adapters) in GOLDEN {
        let (engine, golden) = (engine(model, adapters[0]), Golden::read(model, adapters[0]));
        let samples = golden.samples();
        let mut variants = Variant::every_boundary(golden.layers);
        variants.push(gated(&golden.gates));
        let together = score(
            &engine,
            &samples,
            &Request { variants: variants.clone(), lens: vec![0, golden.layers], ..Request::default() },
        );
        for (index, variant) in variants.into_iter().enumerate() {
            let alone =
                score(&engine, &samples, &Request { variants: vec![variant], lens: vec![0], ..Request::default() });
            for (alone, together) in alone.iter().zip(&together) {
                assert_eq!(alone.variants[0], together.variants[index]);
                if index == 0 || index == golden.layers {
                    let curve = &together.lens[usize::from(index > 0)];
                    assert_eq!(alone.lens[0], *curve);
                }
            }
        }
    }
}

#[test]
fn samples_scored_together_have_the_scores_of_separate_runs() {
    let (engine, golden) = (engine("tiny-gqa-tied", "plain"), Golden::read("tiny-gqa-tied", "plain"));
    // Enough samples for several batches and chunks.
    let samples: Vec<Sample> = golden.samples().into_iter().cycle().take(200).collect();
    let together = score(&engine, &samples, &sweep(4));
    for (sample, together) in samples.iter().zip(&together).take(8).chain(samples.iter().zip(&together).skip(192)) {
        assert_eq!(score(&engine, std::slice::from_ref(sample), &sweep(4)), std::slice::from_ref(together));
    }
}

#[test]
fn the_number_of_threads_does_not_change_scores() {
    let checkpoint = checkpoint("tiny-gqa-tied");
    let lora = bind(&checkpoint, &adapter_folder("tiny-gqa-tied", "plain"));
    let samples: Vec<Sample> = Golden::read("tiny-gqa-tied", "plain").samples().into_iter().cycle().take(60).collect();
    let with = |threads: usize| {
        let options = CpuOptions { threads: Some(threads.try_into().unwrap()), ..CpuOptions::default() };
        let engine = CpuEngine::load(&checkpoint, &lora, options).unwrap();
        score(&engine, &samples, &sweep(4))
    };
    let one = with(1);
    assert_eq!(one, with(2));
    assert_eq!(one, with(3));
}

#[test]
fn a_variant_without_lora_is_the_base_model() {
    for (model, adapters) in GOLDEN {
        let checkpoint = checkpoint(model);
        let layers = checkpoint.config().layers;
        let samples = Golden::read(model, adapters[0]).samples();
        let request = Request { variants: vec![Variant::bottom_k(layers, 0)], ..Request::default() };
        let without = score(&engine_of(&checkpoint, &vec![LayerLora::default(); layers].into()), &samples, &request);
        assert_eq!(score(&engine(model, adapters[0]), &samples, &request), without);
    }
}

#[test]
fn bottom_k_in_memory_is_the_trimmed_adapter_loaded() {
    for (model, adapters) in GOLDEN {
        let checkpoint = checkpoint(model);
        let layers = checkpoint.config().layers;
        let samples = Golden::read(model, adapters[0]).samples();
        for &adapter in adapters {
            let folder = adapter_folder(model, adapter);
            let adapter = Adapter::open(&folder).unwrap();
            let engine = engine_of(&checkpoint, &bind(&checkpoint, &folder));
            for k in adapter.layers()[0] + 1..=layers {
                let out = tempfile::tempdir().unwrap();
                let out = out.path().join("trimmed");
                write_trimmed(&adapter, &Variant::bottom_k(layers, k), &Provenance::default(), &out).unwrap();
                let saved = engine_of(&checkpoint, &bind(&checkpoint, &out));
                let request = |k| Request { variants: vec![Variant::bottom_k(layers, k)], ..Request::default() };
                assert_eq!(score(&saved, &samples, &request(layers)), score(&engine, &samples, &request(k)));
            }
        }
    }
}

#[test]
fn merged_weights_have_the_scores_of_the_unmerged_adapter() {
    let model = "tiny-gqa-tied";
    let checkpoint = checkpoint(model);
    let lora = bind(&checkpoint, &adapter_folder(model, "plain"));
    let merged = tempfile::tempdir().unwrap();
    std::fs::copy(golden().join(model).join("config.json"), merged.path().join("config.json")).unwrap();
    let tensors = plimsoll::formats::Tensors::open(&golden().join(model)).unwrap();
    let weights: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .names()
        .map(|name| {
            let mut values = tensors.read(name).unwrap();
            let path = name.strip_prefix("model.layers.").and_then(|rest| rest.strip_suffix(".weight"));
            let module = path
                .and_then(|path| path.split_once('.'))
                .and_then(|(layer, path)| lora[layer.parse::<usize>().unwrap()].get(Projection::from_path(path)?));
            if let Some(module) = module {
                let inputs = module.a.len() / module.rank;
                for (index, value) in values.iter_mut().enumerate() {
                    let (row, column) = (index / inputs, index % inputs);
                    let update: f32 =
                        (0..module.rank).map(|r| module.b[row * module.rank + r] * module.a[r * inputs + column]).sum();
                    *value += module.scale * update;
                }
            }
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            (name.to_owned(), tensors.shape(name).unwrap().to_vec(), bytes)
        })
        .collect();
    let views = weights.iter().map(|(name, shape, bytes)| {
        (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, &merged.path().join("model.safetensors")).unwrap();

    let merged = Model::open(merged.path()).unwrap();
    let request = Request { variants: vec![Variant::bottom_k(4, 4)], ..Request::default() };
    let samples = Golden::read(model, "plain").samples();
    let merged = score(&engine_of(&merged, &vec![LayerLora::default(); 4].into()), &samples, &request);
    for (merged, unmerged) in merged.iter().zip(&score(&engine_of(&checkpoint, &lora), &samples, &request)) {
        // Merging rounds each weight once more.
        assert_near(merged.variants[0].nll, unmerged.variants[0].nll, 1e-5, "nll");
    }
}

/// Samples that start with the same number of shared tokens.
fn with_shared_tokens(model: &str, adapter: &str, shared: usize) -> Vec<Sample> {
    let samples = Golden::read(model, adapter).samples();
    let prefix: Vec<u32> = samples[3].tokens.iter().copied().cycle().take(shared).collect();
    let prefixed = |sample: &Sample| Sample {
        line: sample.line,
        tokens: prefix.iter().chain(&sample.tokens).copied().collect(),
        answer: sample.answer.iter().map(|position| position + shared).collect(),
    };
    samples.iter().map(prefixed).collect()
}

#[test]
fn shared_leading_tokens_do_not_change_scores() {
    for (model, adapters) in GOLDEN {
        let checkpoint = checkpoint(model);
        let layers = checkpoint.config().layers;
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let lora = bind(&checkpoint, &adapter_folder(model, adapters[0]));
            let options = CpuOptions { precision: Precision::new(dtype), ..CpuOptions::default() };
            let engine = CpuEngine::load(&checkpoint, &lora, options).unwrap();
            for shared in [8, 31, 32, 45, 64] {
                let samples = with_shared_tokens(model, adapters[0], shared);
                let together = score(&engine, &samples, &sweep(layers));
                for (sample, together) in samples.iter().zip(&together) {
                    let alone = score(&engine, std::slice::from_ref(sample), &sweep(layers));
                    assert_eq!(alone, std::slice::from_ref(together), "{model}, {shared} tokens");
                }
                // Shared tokens are computed once, which is less work.
                let work = |samples: &[Sample]| engine.work(samples, &sweep(layers));
                let alone: u64 = samples.iter().map(|sample| work(std::slice::from_ref(sample))).sum();
                assert!(work(&samples) < alone);
            }
        }
    }
}

#[test]
fn a_memory_limit_does_not_change_scores() {
    let checkpoint = checkpoint("tiny-gqa-tied");
    let lora = bind(&checkpoint, &adapter_folder("tiny-gqa-tied", "plain"));
    let samples = with_shared_tokens("tiny-gqa-tied", "plain", 40);
    let with = |memory: Option<u64>| {
        let options = CpuOptions { memory, threads: 1.try_into().ok(), ..CpuOptions::default() };
        let engine = CpuEngine::load(&checkpoint, &lora, options).unwrap();
        engine.score(&samples, &sweep(4), &mut |_| ControlFlow::Continue(())).map_err(|error| error.to_string())
    };
    let unlimited = with(None).unwrap();
    let mut refused = 0;
    for kibibytes in (64..1024).step_by(32) {
        match with(Some(kibibytes << 10)) {
            Ok(limited) => assert_eq!(limited, unlimited, "{kibibytes} KiB"),
            Err(error) => {
                assert!(error.contains("expected at least"), "{error}");
                refused += 1;
            }
        }
    }
    assert!((1..30).contains(&refused), "{refused} of 30 refused");
}

#[test]
fn scores_of_every_instruction_set_are_those_of_pytorch() {
    for (model, adapters) in GOLDEN {
        let (checkpoint, golden) = (checkpoint(model), Golden::read(model, adapters[0]));
        let lora = bind(&checkpoint, &adapter_folder(model, adapters[0]));
        for isa in Isa::available() {
            for (dtype, tolerance) in [(Dtype::F32, NLL), (Dtype::Bf16, BF16)] {
                let options = CpuOptions { precision: Precision { isa, dtype }, ..CpuOptions::default() };
                let engine = CpuEngine::load(&checkpoint, &lora, options).unwrap();
                for (scores, sequence) in
                    score(&engine, &golden.samples(), &sweep(golden.layers)).iter().zip(&golden.sequences)
                {
                    for (k, (found, expected)) in scores.variants.iter().zip(&sequence.variants).enumerate() {
                        assert_near(found.nll, expected.nll, tolerance, &format!("{model}, {isa}, {dtype:?}, k = {k}"));
                    }
                }
            }
        }
    }
}

#[test]
fn logits_of_batched_decoding_are_those_of_whole_sequences() {
    for (model, adapters) in GOLDEN {
        let (engine, golden) = (engine(model, adapters[0]), Golden::read(model, adapters[0]));
        let variants = [
            gated(&golden.gates),
            Variant::bottom_k(golden.layers, 0),
            Variant::bottom_k(golden.layers, golden.layers),
        ];
        let longest = golden.sequences.iter().map(|sequence| sequence.ids.len()).max().unwrap();
        let mut decoding = engine.decoder(longest);
        // Each sequence under each variant, also with a forked prefix: (decoding state, tokens, expected logits).
        let mut active = Vec::new();
        for sequence in &golden.sequences {
            for variant in &variants {
                let whole = engine.logits(&sequence.ids, variant).unwrap(); // (tokens, vocabulary)
                let rows: Vec<Vec<f32>> = whole.chunks(whole.len() / sequence.ids.len()).map(<[f32]>::to_vec).collect();
                active.push((decoding.begin(variant).unwrap(), sequence.ids.clone(), rows.clone()));
                let (first, _) = sequence.ids.split_at(sequence.ids.len() / 3);
                if !first.is_empty() {
                    let mut prefix = decoding.begin(variant).unwrap();
                    let logits = decoding.forward(&mut [Step { sequence: &mut prefix, tokens: first }]);
                    assert_eq!(logits, rows[first.len() - 1]);
                    let prefix = decoding.share(prefix);
                    active.push((decoding.fork(&prefix), sequence.ids.clone(), rows));
                }
            }
        }
        for round in 0.. {
            // First more than half of each sequence, then single tokens, so that a batch has long and short steps.
            let steps = active.iter_mut().filter(|(sequence, ids, _)| sequence.len() < ids.len());
            let mut steps: Vec<(Step<'_, Sequence>, &[f32])> = steps
                .map(|(sequence, ids, rows)| {
                    let from = sequence.len();
                    let count = if round == 0 { (ids.len() - from) / 2 + 1 } else { 1 };
                    let count = count.min(ids.len() - from);
                    (Step { sequence, tokens: &ids[from..from + count] }, &rows[from + count - 1][..])
                })
                .collect();
            if steps.is_empty() {
                break;
            }
            let expected: Vec<f32> = steps.iter().flat_map(|(_, row)| row.iter().copied()).collect();
            let mut steps: Vec<Step<'_, Sequence>> =
                steps.iter_mut().map(|(step, _)| Step { sequence: step.sequence, tokens: step.tokens }).collect();
            assert!(decoding.forward(&mut steps) == expected, "{model}, round {round}");
        }
        // The memory of a finished sequence is used for others.
        for (sequence, ids, rows) in active {
            assert_eq!(sequence.len(), ids.len());
            decoding.end(sequence);
            let mut again = decoding.begin(&variants[1]).unwrap();
            let logits = decoding.forward(&mut [Step { sequence: &mut again, tokens: &ids }]);
            assert_eq!(logits.len(), rows[0].len());
            decoding.end(again);
        }
    }
}

#[test]
fn reported_work_adds_up_and_samples_are_in_order() {
    let (engine, golden) = (engine("tiny-gqa-tied", "plain"), Golden::read("tiny-gqa-tied", "plain"));
    let samples: Vec<Sample> = golden.samples().into_iter().cycle().take(150).collect();
    let request = sweep(4);
    let (mut work, mut seen) = (0, Vec::new());
    let scores = engine.score(&samples, &request, &mut |event| {
        match event {
            ScoreEvent::Work(done) => work += done,
            ScoreEvent::Scored(scores) => seen.extend_from_slice(scores),
        }
        ControlFlow::Continue(())
    });
    assert_eq!(work, engine.work(&samples, &request));
    assert_eq!(seen, scores.unwrap());
    assert_eq!(layer_passes(&request.variants, engine.adapted()), (4 + 4 * 5 / 2, 4 * 5));
}

#[test]
fn scoring_stops_if_the_caller_breaks() {
    let (engine, golden) = (engine("tiny-gqa-tied", "plain"), Golden::read("tiny-gqa-tied", "plain"));
    let mut events = 0;
    let stopped = engine.score(&golden.samples(), &sweep(4), &mut |_| {
        events += 1;
        if events == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(plimsoll::Error::Interrupted)));
    assert_eq!(events, 3);
}

/// LoRA strengths of a layer: the same for all modules, or one for each.
fn layer_of(gate: impl Strategy<Value = f32> + Clone) -> impl Strategy<Value = [f32; 7]> {
    prop_oneof![gate.clone().prop_map(|gate| [gate; 7]), proptest::array::uniform7(gate)]
}

/// Scores of the trimmed adapter after loading, and of the full adapter under the same variant.
fn trimmed_and_gated(adapter: &str, variant: &Variant) -> (Vec<SampleScores>, Vec<SampleScores>) {
    let (model, checkpoint) = ("tiny-gqa-tied", checkpoint("tiny-gqa-tied"));
    let (folder, out) = (adapter_folder(model, adapter), tempfile::tempdir().unwrap());
    let (samples, out) = (Golden::read(model, adapter).samples(), out.path().join("trimmed"));
    let opened = Adapter::open(&folder).unwrap();
    let lora = match write_trimmed(&opened, variant, &Provenance::default(), &out) {
        Ok(_) => bind(&checkpoint, &out),
        // Nothing is kept.
        Err(plimsoll::Error::Usage(_)) => vec![LayerLora::default(); 4].into(),
        Err(error) => panic!("{error}"),
    };
    let scores = |lora: &BoundAdapter, variant: Variant| {
        score(&engine_of(&checkpoint, lora), &samples, &Request { variants: vec![variant], ..Request::default() })
    };
    (scores(&lora, Variant::uniform(4, 1.0)), scores(&bind(&checkpoint, &folder), variant.clone()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn random_variants_scored_together_have_the_scores_of_separate_runs(
        gates in proptest::collection::vec(proptest::collection::vec(proptest::array::uniform7(0_u8..3), 4), 1..6)
    ) {
        let engine = engine("tiny-gqa-tied", "plain");
        let samples = Golden::read("tiny-gqa-tied", "plain").samples();
        let strengths = |gates: &[u8; 7]| gates.map(|gate| f32::from(gate) / 2.0);
        let variants: Vec<Variant> =
            gates.iter().map(|layers| gated(&layers.iter().map(strengths).collect::<Vec<_>>())).collect();
        let together = score(&engine, &samples, &Request { variants: variants.clone(), ..Request::default() });
        for (index, variant) in variants.into_iter().enumerate() {
            let alone = score(&engine, &samples, &Request { variants: vec![variant], ..Request::default() });
            for (alone, together) in alone.iter().zip(&together) {
                assert_eq!(alone.variants[0], together.variants[index]);
            }
        }
    }

    #[test]
    fn a_variant_in_memory_is_the_trimmed_adapter_loaded(
        gates in proptest::collection::vec(layer_of(prop_oneof![Just(0.0_f32), Just(1.0), Just(0.5), Just(-2.0)]), 4),
        adapter in prop::sample::select(vec!["plain", "rslora", "patterns", "layers"]),
    ) {
        // Multiplication by powers of two does not round: the results are equal to the last bit.
        let (saved, in_memory) = trimmed_and_gated(adapter, &gated(&gates));
        prop_assert_eq!(saved, in_memory);
    }

    #[test]
    fn any_strengths_in_memory_are_the_folded_adapter_loaded(
        gates in proptest::collection::vec(layer_of(prop_oneof![Just(0.0_f32), Just(1.0), -1.0_f32..1.0]), 4),
        adapter in prop::sample::select(vec!["plain", "layers"]),
    ) {
        let (saved, in_memory) = trimmed_and_gated(adapter, &gated(&gates));
        for (saved, in_memory) in saved.iter().zip(&in_memory) {
            // These adapters are `f32`: folding rounds a value of B by at most 2⁻²⁴ of it, like each product of the
            // forward pass. So scores of tokens differ as much as logits that are computed in another order.
            let [saved, in_memory] = [saved, in_memory].map(|scores| scores.variants[0].nll / scores.tokens as f64);
            prop_assert!((saved - in_memory).abs() < f64::from(LOGITS), "{saved}, {in_memory}");
        }
    }
}

#[test]
#[ignore = "needs models/SmolLM2-135M-Instruct.Q4_1.gguf: run examples/smollm2-gsm8k/fetch.py models first"]
fn scores_of_smollm2_on_gsm8k_are_those_of_peft() {
    let expected = expected_samples(&common::fixtures().join("smollm2_nll.json"));
    let example = common::workspace().join("examples/smollm2-gsm8k");
    let checkpoint = Model::open(common::smollm2()).unwrap();
    let dataset = load(&checkpoint, &example.join("valid.jsonl"));
    let samples = &dataset.samples[..expected.len()];
    assert_eq!(samples, expected.iter().map(common::Sequence::sample).collect::<Vec<_>>());
    let engine = engine_of(&checkpoint, &bind(&checkpoint, &example.join("adapter")));
    for (scores, expected) in score(&engine, samples, &sweep(30)).iter().zip(&expected) {
        assert_eq!(scores.variants.len(), 31);
        for (k, (found, expected)) in scores.variants.iter().zip(&expected.variants).enumerate() {
            // Both sides compute in f32, in different orders, through 30 layers.
            assert_near(found.nll, expected.nll, 1e-4, &format!("k = {k}"));
            assert_near(found.probability, expected.probability, 1e-4, &format!("k = {k}"));
            assert!(found.correct.abs_diff(expected.correct) <= 1, "k = {k}: {} correct", found.correct);
        }
        for (found, expected) in scores.lens.iter().zip(&expected.lens) {
            for layer in 0..30 {
                assert!((found.probability[layer] - expected.probability[layer]).abs() < 1e-4, "lens, layer {layer}");
            }
        }
    }
}

/// A case of `fixtures/energy.json`.
#[derive(serde::Deserialize)]
struct Energy {
    model: String,
    adapter: String,
    sequences: Vec<Vec<u32>>,
    energies: Vec<[f64; 7]>,
}

#[test]
fn energies_of_updates_are_those_of_peft() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("../fixtures/energy.json")).unwrap();
    let cases: Vec<Energy> = serde_json::from_value(golden["cases"].clone()).unwrap();
    assert!(
        cases.iter().any(|case| case.energies.iter().flatten().any(|energy| *energy == 0.0)),
        "no module without LoRA"
    );
    for Energy { model, adapter, sequences, energies } in cases {
        let checkpoint = checkpoint(&model);
        let lora = bind(&checkpoint, &adapter_folder(&model, &adapter));
        let engine = engine_of(&checkpoint, &lora);
        let sample = |(line, tokens): (usize, Vec<u32>)| Sample { line, answer: vec![tokens.len() - 1], tokens };
        let samples: Vec<Sample> = sequences.into_iter().enumerate().map(sample).collect();
        let mut work = 0;
        let mut observe = |done| {
            work += done;
            ControlFlow::Continue(())
        };
        let probe = CpuProbe { engine: &engine, lora: &lora };
        let found = probe.output_energy(&samples, &mut observe).unwrap();
        let expected: u64 =
            samples.iter().map(|sample| multiply_adds(checkpoint.config(), &lora, sample.tokens.len())).sum();
        assert_eq!((probe.energy_work(&samples), work), (expected, expected), "{model}, {adapter}");
        for (layer, (found, expected)) in found.iter().zip(&energies).enumerate() {
            for projection in Projection::ALL.into_iter().take(expected.len()) {
                // In single precision a norm has a relative error of about 1e-6, its square twice that.
                let what = format!("{model}, {adapter}, layer {layer}, {}", projection.name());
                assert_near(found[projection as usize], expected[projection as usize], 2e-5, &what);
            }
        }
    }
}

/// The multiply-adds of one sequence under the full adapter, in all layers without the head, counted from the shapes.
fn multiply_adds(config: &Config, lora: &[LayerLora], tokens: usize) -> u64 {
    let (queries, keys) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let shape = |projection: Projection| match projection {
        Projection::Q => (config.hidden, queries),
        Projection::K | Projection::V => (config.hidden, keys),
        Projection::O => (queries, config.hidden),
        Projection::Gate | Projection::Up => (config.hidden, config.intermediate),
        Projection::Down => (config.intermediate, config.hidden),
        other => panic!("{}: not a module of this model", other.name()),
    };
    let of_layer = |layer: &LayerLora| {
        let of_module = |&projection: &Projection| {
            let (inputs, outputs) = shape(projection);
            let rank = layer.get(projection).map_or(0, |lora| lora.rank);
            inputs * outputs + rank * (inputs + outputs)
        };
        let modules: usize = config.modules().iter().map(of_module).sum();
        // Each query is multiplied with the keys of all positions up to its own, and each weight with a value.
        let attended = tokens * (tokens + 1) / 2;
        (tokens * modules + attended * 2 * queries) as u64
    };
    lora.iter().map(of_layer).sum()
}

#[test]
fn the_nll_of_tokens_adds_up_to_that_of_the_answer() {
    let golden = Golden::read("tiny-gqa-tied", "plain");
    let engine = engine("tiny-gqa-tied", "plain");
    let samples = golden.samples();
    let request = Request { token_nll: true, ..sweep(golden.layers) };
    let with_tokens = score(&engine, &samples, &request);
    let without = score(&engine, &samples, &sweep(golden.layers));
    for ((with_tokens, without), sample) in with_tokens.iter().zip(&without).zip(&samples) {
        assert_eq!(with_tokens.variants, without.variants);
        assert!(without.token_nll.is_empty());
        assert_eq!(with_tokens.token_nll.len(), request.variants.len());
        for (tokens, score) in with_tokens.token_nll.iter().zip(&with_tokens.variants) {
            assert_eq!(tokens.len(), sample.answer.len());
            let sum: f64 = tokens.iter().map(|nll| f64::from(*nll)).sum();
            // Each NLL of a token is rounded to single precision.
            assert_near(sum, score.nll, 1e-6, "sum over tokens");
        }
    }
}
