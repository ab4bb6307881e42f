//! Trimmed adapters of every kind, read back, have the scores of the full adapter under the same variant. PEFT's and
//! mlx-lm's layouts are equivalent.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use plimsoll::data::Sample;
use plimsoll::engine::{Benchmark as _, CpuBenchmark, CpuEngine, CpuOptions, Request, Scorer as _};
use plimsoll::formats::Tensors;
use plimsoll::lora::Variant;
use plimsoll::lora::adapter::{
    Adapter, AdapterLayout, EmbeddingLora, Provenance, inspect, write_trimmed, write_trimmed_as,
};
use plimsoll::model::{Dtype, Model, Precision};
use serde_json::Value;

fn family(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families").join(name)
}

fn adapter(name: &str, kind: &str) -> PathBuf {
    family(name).join("adapters").join(kind)
}

/// NLL of a fixed sample under a variant.
fn nll(checkpoint: &Model, adapter: &Adapter, variant: Variant) -> f64 {
    let options = CpuOptions { precision: Precision::new(Dtype::F32), ..CpuOptions::default() };
    let engine = CpuEngine::load(checkpoint, &checkpoint.bind(Some(adapter)).unwrap(), options).unwrap();
    let tokens: Vec<u32> = (0..24).map(|i| i * 7 % 64).collect();
    let sample = Sample { line: 1, answer: (6..24).collect(), tokens };
    let request = Request { variants: vec![variant], ..Request::default() };
    engine.score(&[sample], &request, &mut |_| ControlFlow::Continue(())).unwrap()[0].variants[0].nll
}

fn config(folder: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.join("adapter_config.json")).unwrap()).unwrap()
}

#[test]
fn a_trimmed_adapter_of_every_kind_has_the_scores_of_its_variant() {
    for (name, kind, embedding_lora) in [
        ("llama2", "dora", None),
        ("phi3", "dora", None),
        ("phi3", "lora", None),
        ("gemma3-plain", "lora", None),
        ("llama2", "ends", Some(EmbeddingLora::Keep)),
        ("llama2", "ends", Some(EmbeddingLora::Drop)),
        ("qwen2", "ends", Some(EmbeddingLora::Keep)),
        ("llama2", "saved", None),
        ("gemma2-plain", "saved", None),
    ] {
        let checkpoint = Model::open(family(name)).unwrap();
        let layers = checkpoint.config().layers;
        let open = |path: &Path| Adapter::open(path).unwrap().with_embedding_lora(embedding_lora);
        let whole = open(&adapter(name, kind));
        let parent = tempfile::tempdir().unwrap();
        for kept in [1, layers - 1, layers] {
            let (variant, out) = (Variant::bottom_k(layers, kept), parent.path().join(kept.to_string()));
            let written = write_trimmed(&whole, &variant, &Provenance::default(), &out).unwrap();
            let again = open(&out);
            let what = format!("{name}, {kind}, {embedding_lora:?}, {kept} layers");
            assert_eq!(written.bytes, again.bytes(), "{what}");
            assert_eq!(whole.bytes_kept(&variant), again.bytes(), "{what}");
            assert_eq!(whole.table(layers).unwrap().bytes_kept(&variant), again.bytes(), "{what}");
            let (gated, loaded) =
                (nll(&checkpoint, &whole, variant), nll(&checkpoint, &again, Variant::uniform(layers, 1.0)));
            assert_eq!(gated, loaded, "{what}");
            assert_eq!(
                again.modules_on_embeddings().count(),
                if embedding_lora == Some(EmbeddingLora::Keep) { 2 } else { 0 },
                "{what}"
            );
            assert_eq!(again.saved().collect::<Vec<_>>(), whole.saved().collect::<Vec<_>>(), "{what}");
            assert_eq!(config(&out)["use_dora"], Value::Bool(kind == "dora"), "{what}");
        }
    }
}

/// LoRA on embeddings and weights trained in full stay in the base variant, but there is no adapter to load.
#[test]
fn the_base_variant_has_no_load_time_even_if_it_keeps_weights() {
    for (kind, embedding_lora) in [("ends", Some(EmbeddingLora::Keep)), ("saved", None)] {
        let model = Model::open(family("llama2")).unwrap();
        let adapter = Adapter::open(adapter("llama2", kind)).unwrap().with_embedding_lora(embedding_lora);
        let options = CpuOptions { precision: Precision::new(Dtype::F32), ..CpuOptions::default() };
        let engine = CpuEngine::load(&model, &model.bind(Some(&adapter)).unwrap(), options).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let benchmark = CpuBenchmark { engine: &engine, model: &model, adapter: &adapter, scratch: scratch.path() };
        let variants = [0, 2, 4].map(|kept| Variant::bottom_k(4, kept));
        let found = benchmark.efficiency(&variants, &[&[1, 2, 3]], &mut || ControlFlow::Continue(())).unwrap();
        let loads: Vec<_> = found.variants.iter().map(|variant| variant.load_seconds.is_some()).collect();
        assert_eq!(loads, [false, true, true], "{kind}");
    }
}

#[test]
fn nothing_is_decided_silently() {
    let checkpoint = Model::open(family("llama2")).unwrap();
    let whole = Adapter::open(adapter("llama2", "ends")).unwrap();
    let out = tempfile::tempdir().unwrap().path().join("out");
    let refusals = [
        checkpoint.bind(Some(&whole)).unwrap_err(),
        write_trimmed(&whole, &Variant::bottom_k(4, 2), &Provenance::default(), &out).unwrap_err(),
    ];
    for error in refusals {
        let message = error.to_string();
        let words = ["embed_tokens and lm_head", "--embedding-lora keep", "--embedding-lora drop"];
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
    // A DoRA adapter cannot be written with a strength other than 0 and 1.
    let dora = Adapter::open(adapter("llama2", "dora")).unwrap();
    let half = write_trimmed(&dora, &Variant::uniform(4, 0.5), &Provenance::default(), &out).unwrap_err().to_string();
    assert!(half.contains("DoRA") && half.contains("0.5"), "{half}");
    assert!(!out.exists());
    // Weights trained in full for another base model.
    let other = Model::open(family("gemma2-plain")).unwrap();
    let saved = Adapter::open(adapter("llama2", "saved")).unwrap();
    let message = other.bind(Some(&saved)).unwrap_err().to_string();
    assert!(message.contains("another base model"), "{message}");
}

#[test]
fn inspection_reports_dora_embedding_lora_and_saved_weights() {
    let of = |name: &str, kind: &str| inspect(&Adapter::open(adapter(name, kind)).unwrap()).unwrap();
    assert!(of("llama2", "dora").dora && !of("llama2", "lora").dora);
    assert_eq!(of("llama2", "ends").embedding_modules, ["embed_tokens", "lm_head"]);
    let saved = of("llama2", "saved").saved;
    assert!(
        saved.contains(&"lm_head.weight".to_owned()) && saved.contains(&"model.norm.weight".to_owned()),
        "{saved:?}"
    );
    assert_eq!(of("phi3", "lora").modules, ["o_proj", "down_proj", "qkv_proj", "gate_up_proj"]);
}

#[test]
fn mlx_and_peft_layouts_are_equivalent() {
    let checkpoint = Model::open(family("llama2")).unwrap();
    for kind in ["lora", "rslora", "dora"] {
        let (parent, variant) = (tempfile::tempdir().unwrap(), Variant::bottom_k(4, 3));
        let whole = Adapter::open(adapter("llama2", kind)).unwrap();
        let (mlx, peft) = (parent.path().join("mlx"), parent.path().join("peft"));
        write_trimmed_as(&whole, &variant, &Provenance::default(), AdapterLayout::Mlx, &mlx).unwrap();
        let written = config(&mlx);
        assert_eq!(written["fine_tune_type"], if kind == "dora" { "dora" } else { "lora" });
        assert_eq!(written["num_layers"], -1);
        let tensors = Tensors::open_file(&mlx.join("adapters.safetensors")).unwrap();
        let rank = usize::try_from(written["lora_parameters"]["rank"].as_u64().unwrap()).unwrap();
        assert_eq!(tensors.shape("model.layers.2.mlp.down_proj.lora_a"), Some(&[40, rank][..]));
        assert_eq!(tensors.shape("model.layers.2.mlp.down_proj.lora_b"), Some(&[rank, 24][..]));
        assert_eq!(tensors.shape("model.layers.3.mlp.down_proj.lora_a"), None);

        let again = Adapter::open(&mlx).unwrap();
        assert_eq!(again.layout(), AdapterLayout::Mlx);
        let full = Variant::uniform(4, 1.0);
        let (expected, found) = (nll(&checkpoint, &whole, variant), nll(&checkpoint, &again, full.clone()));
        // The scale is stored as a decimal number.
        assert!((expected - found).abs() < 1e-6 * expected.abs(), "{kind}: {found}, expected {expected}");

        write_trimmed_as(&again, &full, &Provenance::default(), AdapterLayout::Peft, &peft).unwrap();
        let original = Tensors::open_file(&adapter("llama2", kind).join("adapter_model.safetensors")).unwrap();
        let back = Tensors::open_file(&peft.join("adapter_model.safetensors")).unwrap();
        assert!(back.names().count() > 40);
        for name in back.names() {
            assert_eq!(back.bytes(name), original.bytes(name), "{name}");
        }
    }
    // mlx-lm's layout has no LoRA on embeddings.
    let out = tempfile::tempdir().unwrap().path().join("out");
    let lora = Adapter::open(adapter("llama2", "ends")).unwrap().with_embedding_lora(Some(EmbeddingLora::Keep));
    let refused = write_trimmed_as(&lora, &Variant::uniform(4, 1.0), &Provenance::default(), AdapterLayout::Mlx, &out);
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("mlx-lm") && !out.exists(), "{message}");
}

#[test]
fn fan_in_fan_out_is_switched_off_in_a_trimmed_adapter() {
    let parent = tempfile::tempdir().unwrap();
    let (copy, out) = (parent.path().join("copy"), parent.path().join("out"));
    fs::create_dir(&copy).unwrap();
    fs::copy(adapter("llama2", "lora").join("adapter_model.safetensors"), copy.join("adapter_model.safetensors"))
        .unwrap();
    let mut fields = config(&adapter("llama2", "lora"));
    fields["fan_in_fan_out"] = true.into();
    fs::write(copy.join("adapter_config.json"), fields.to_string()).unwrap();
    let whole = Adapter::open(&copy).unwrap();
    write_trimmed(&whole, &Variant::bottom_k(4, 2), &Provenance::default(), &out).unwrap();
    assert_eq!(config(&out)["fan_in_fan_out"], false);
}
