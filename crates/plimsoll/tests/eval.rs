//! Evaluations of a tiny model, compared with direct scoring and generation of the same samples.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use common::{adapter_folder, checkpoint, engine, golden};
use plimsoll::Existing;
use plimsoll::data::{self, Renderer, TemplateChoice, Turns, questions};
use plimsoll::engine::{CpuOptions, Generator as _, Request, Scorer as _};
use plimsoll::eval::{EvalOptions, EvalProgress, Evaluation};
use plimsoll::generate::{GenerateOptions, Prompt};
use plimsoll::lora::{LayersKept, Variant};
use plimsoll::metrics::Metric;
use plimsoll::model::{Dtype, Precision};
use plimsoll::report::{Form, Style, evaluation};
use plimsoll::result::{Better, EvalResult, Sampling};

const TASK: &str = r#"
name = "ship"
prompt = "{{ prompt }}"
references = ["{{ completion }}"]
max_tokens = 12
stop = ["."]

[[metrics]]
kind = "chrf"

[[metrics]]
name = "words"
kind = "squad-f1"
extract = { pattern = "([A-Za-z ]+)", take = "first" }

[[metrics]]
kind = "perplexity"
"#;

fn options(folder: &Path, task: &str) -> EvalOptions {
    let file = folder.join("task.toml");
    fs::write(&file, task).unwrap();
    EvalOptions {
        embedding_lora: None,
        model: golden().join("tiny-gqa-tied"),
        adapter: Some(adapter_folder("tiny-gqa-tied", "trained")),
        task: file.display().to_string(),
        data: golden().join("data/valid.jsonl"),
        shots: None,
        examples: None,
        layers_kept: vec![LayersKept::Base, LayersKept::Some(2), LayersKept::Full],
        gates: Vec::new(),
        template: TemplateChoice::Tokenizer,
        max_samples: None,
        max_tokens: None,
        sampling: Sampling::GREEDY,
        batch: 7,
        engine: CpuOptions { precision: Precision::new(Dtype::F32), ..CpuOptions::default() },
        out: None,
        log_samples: false,
        scratch: std::env::temp_dir(),
        existing: Existing::Refuse,
        command: "plimsoll eval".into(),
    }
}

fn evaluate(options: EvalOptions) -> EvalResult {
    let evaluation = Evaluation::open(options).unwrap();
    let answered = evaluation.run(&mut |_| ControlFlow::Continue(())).unwrap();
    evaluation.finish(&answered).unwrap()
}

/// A result without measured times.
fn timeless(mut result: EvalResult) -> serde_json::Value {
    result.efficiency = None;
    result.cost.seconds = 0.0;
    result.cost.resumed = 0;
    result.cost.tokens = 0;
    serde_json::to_value(result).unwrap()
}

#[test]
fn values_equal_direct_scoring_and_generation() {
    let folder = tempfile::tempdir().unwrap();
    let result = evaluate(options(folder.path(), TASK));
    let (checkpoint, engine) = (checkpoint("tiny-gqa-tied"), engine("tiny-gqa-tied", "trained"));
    let tokenizer = checkpoint.tokenizer().unwrap();
    let renderer = Renderer::new(&tokenizer, &TemplateChoice::Tokenizer).unwrap();
    let path = golden().join("data/valid.jsonl");
    let variants: Vec<Variant> = [0, 2, 4].map(|k| Variant::bottom_k(4, k)).into();

    // Perplexity, by scoring the same file.
    let dataset = data::load(
        &path,
        &tokenizer,
        &data::DataOptions {
            template: TemplateChoice::Tokenizer,
            turns: Turns::Last,
            max_samples: None,
            seed: 0,
            max_length: 10_000,
            long: data::LongSamples::Skip,
        },
    )
    .unwrap();
    let request = Request { variants: variants.clone(), ..Request::default() };
    let scores = engine.score(&dataset.samples, &request, &mut |_| ControlFlow::Continue(())).unwrap();
    let tokens: usize = scores.iter().map(|sample| sample.tokens).sum();
    let perplexity = &result.metrics[2];
    assert_eq!((perplexity.name.as_str(), perplexity.better), ("perplexity", Better::Lower));
    for (variant, value) in perplexity.values.iter().enumerate() {
        let nll: f64 = scores.iter().map(|sample| sample.variants[variant].nll).sum();
        let expected = (nll / tokens as f64).exp();
        assert!((value.value - expected).abs() < 1e-12 * expected, "{value:?}, expected {expected}");
        assert!(value.low < value.value && value.value < value.high && value.samples == 24);
    }

    // The other metrics, by generating and measuring one sample after the other.
    let questions = questions(&path, &renderer, 10_000).unwrap();
    let lines: Vec<serde_json::Value> =
        fs::read_to_string(&path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let settings = GenerateOptions { sampling: Sampling::GREEDY, max_tokens: 12, stop: vec![".".into()], batch: 1 };
    for (index, metric) in
        [r#"{"kind": "chrf"}"#, r#"{"kind": "squad-f1", "extract": {"pattern": "([A-Za-z ]+)", "take": "first"}}"#]
            .into_iter()
            .enumerate()
    {
        let metric: Metric = serde_json::from_str(metric).unwrap();
        for (variant, value) in result.metrics[index].values.iter().enumerate() {
            let mut sums = vec![0.0; metric.width()];
            for (question, line) in questions.iter().zip(&lines) {
                let prompt = Prompt { tokens: question.tokens.clone(), variant, number: question.line as u64 };
                let answer =
                    engine.generate(&tokenizer, &variants, &[prompt], &settings, &mut |_| ControlFlow::Continue(()));
                let reference = line["completion"].as_str().unwrap().to_owned();
                let statistics = metric.statistics(answer.unwrap()[0].text.trim(), &[reference]);
                sums.iter_mut().zip(statistics).for_each(|(sum, number)| *sum += number);
            }
            let expected = metric.value(&sums, questions.len());
            assert!((value.value - expected).abs() < 1e-9, "{}: {value:?}, {expected}", result.metrics[index].name);
        }
    }

    // Every variant is compared with the base model and with the full adapter.
    for metric in &result.metrics {
        let pairs: Vec<(usize, usize)> = metric.comparisons.iter().map(|c| (c.layers_kept, c.against)).collect();
        assert_eq!(pairs, [(2, 0), (2, 4), (4, 0)]);
        let value = |k: usize| metric.values[[0, 2, 4].iter().position(|&kept| kept == k).unwrap()].value;
        for comparison in &metric.comparisons {
            let expected = value(comparison.layers_kept) - value(comparison.against);
            assert!((comparison.difference.difference - expected).abs() < 1e-9 * expected.abs().max(1.0));
            assert!(comparison.difference.p <= comparison.p_holm && comparison.p_holm <= 1.0);
        }
    }
    let efficiency = result.efficiency.unwrap();
    let names: Vec<&str> = efficiency.variants.iter().map(|variant| variant.name.as_str()).collect();
    assert_eq!(names, ["merged", "2 layers", "full"]);
    assert!(efficiency.variants[1].adapter_bytes < efficiency.variants[2].adapter_bytes);
    assert!(efficiency.variants.iter().all(|variant| variant.tokens_per_second.median > 0.0));
}

#[test]
fn an_interrupted_evaluation_continues() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let with_out = || EvalOptions { out: Some(out.clone()), log_samples: true, ..options(folder.path(), TASK) };
    let whole = timeless(evaluate(options(folder.path(), TASK)));

    let evaluation = Evaluation::open(with_out()).unwrap();
    let stopped = evaluation.run(&mut |progress| match progress {
        EvalProgress::Generating { answers, .. } if answers >= 20 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert!(matches!(stopped, Err(plimsoll::Error::Interrupted)));
    let journal = fs::read_to_string(out.join("journal.jsonl")).unwrap();
    assert!(journal.lines().count() > 20);
    // A crash can leave half a line.
    fs::write(out.join("journal.jsonl"), &journal[..journal.len() - 9]).unwrap();

    let evaluation = Evaluation::open(EvalOptions { batch: 3, ..with_out() }).unwrap();
    let answered = evaluation.run(&mut |_| ControlFlow::Continue(())).unwrap();
    let result = evaluation.finish(&answered).unwrap();
    assert!(result.cost.resumed >= 19, "{}", result.cost.resumed);
    assert_eq!(timeless(result), whole);
    let mut names: Vec<PathBuf> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert_eq!(names, [out.join("result.json"), out.join("samples.jsonl")]);
    let samples = fs::read_to_string(out.join("samples.jsonl")).unwrap();
    let samples: Vec<serde_json::Value> = samples.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(samples.len(), 24);
    assert_eq!(samples[1]["prompt"], "What is a keel for?");
    assert_eq!(samples[1]["answers"].as_array().unwrap().len(), 3);

    // Existing results are not replaced, and a journal of other samples is not used.
    assert!(Evaluation::open(with_out()).unwrap_err().to_string().contains("--force"));
    fs::remove_file(out.join("result.json")).unwrap();
    fs::write(out.join("journal.jsonl"), &journal).unwrap();
    let other = Evaluation::open(EvalOptions { max_samples: Some(5), ..with_out() }).unwrap();
    let refused = other.run(&mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(refused.contains("with other inputs"), "{refused}");
}

#[test]
fn more_variants_use_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let with = |layers_kept: Vec<LayersKept>| EvalOptions {
        out: Some(out.clone()),
        layers_kept,
        ..options(folder.path(), TASK)
    };
    let first = Evaluation::open(with(vec![LayersKept::Full])).unwrap();
    first.run(&mut |_| ControlFlow::Continue(())).unwrap();
    let all = evaluate(with(vec![LayersKept::Base, LayersKept::Some(2), LayersKept::Full]));
    assert_eq!(all.cost.resumed, 24);
    assert_eq!(timeless(all), timeless(evaluate(options(folder.path(), TASK))));
}

#[test]
fn variants_with_equally_many_layers_are_distinguished_by_their_strengths() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let gates = ["0.5", "0=0", "2-3=0", "3=0.25"].map(str::to_owned).to_vec();
    let options = || EvalOptions { gates: gates.clone(), max_samples: Some(6), ..options(folder.path(), TASK) };
    let result = evaluate(EvalOptions { out: Some(out.clone()), log_samples: true, ..options() });
    // The third equals a boundary.
    let names: Vec<&str> = result.variants.iter().map(|variant| variant.name.as_str()).collect();
    assert_eq!(names, ["base", "2 layers", "full", "0.5", "0=0", "3=0.25"]);
    let kept: Vec<usize> = result.variants.iter().map(|variant| variant.layers_kept).collect();
    assert_eq!(kept, [0, 2, 4, 4, 3, 4]);
    for metric in &result.metrics {
        let place = |gates: &str| result.variants.iter().position(|variant| variant.gates == gates).unwrap();
        let pairs: Vec<(&str, usize)> = metric.comparisons.iter().map(|c| (c.gates.as_str(), c.against)).collect();
        let others = ["0.5", "0=0", "3=0.25"].into_iter().flat_map(|gates| [(gates, 0), (gates, 4)]);
        assert_eq!(pairs, [("2-3=0", 0), ("2-3=0", 4), ("1", 0)].into_iter().chain(others).collect::<Vec<_>>());
        for comparison in &metric.comparisons {
            let against = place(if comparison.against == 0 { "0" } else { "1" });
            let expected = metric.values[place(&comparison.gates)].value - metric.values[against].value;
            assert!((comparison.difference.difference - expected).abs() < 1e-9 * expected.abs().max(1.0));
        }
    }
    // Each has the same score alone.
    let alone =
        evaluate(EvalOptions { layers_kept: vec![LayersKept::Full], gates: vec!["3=0.25".to_owned()], ..options() });
    for (all, alone) in result.metrics.iter().zip(&alone.metrics) {
        assert_eq!((all.values[2].value, all.values[5].value), (alone.values[0].value, alone.values[1].value));
    }
    let samples = fs::read_to_string(out.join("samples.jsonl")).unwrap();
    let sample: serde_json::Value = serde_json::from_str(samples.lines().next().unwrap()).unwrap();
    let logged: Vec<&str> =
        sample["answers"].as_array().unwrap().iter().map(|a| a["gates"].as_str().unwrap()).collect();
    assert_eq!(logged, ["0", "2-3=0", "1", "0.5", "0=0", "3=0.25"]);
    let text = evaluation(&result, Form::Text(Style::Plain));
    assert!(text.contains("LoRA strengths 3=0.25 compared with the full adapter: "), "{text}");
}

#[test]
fn examples_and_plain_prompts_change_the_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = |change: &dyn Fn(&mut EvalOptions)| {
        let mut options = options(folder.path(), TASK);
        change(&mut options);
        let evaluation = Evaluation::open(options)?;
        let answered = evaluation.run(&mut |_| ControlFlow::Continue(()))?;
        Ok::<f64, Box<dyn std::error::Error>>(evaluation.finish(&answered)?.data.prompt_tokens)
    };
    let plain = tokens(&|options| options.template = TemplateChoice::None).unwrap();
    let zero = tokens(&|_| {}).unwrap();
    let examples = |options: &mut EvalOptions, shots| {
        options.shots = Some(shots);
        let copy = folder.path().join("examples.jsonl");
        fs::copy(&options.data, &copy).unwrap();
        options.examples = Some(copy);
    };
    let two = tokens(&|options| examples(options, 2)).unwrap();
    assert!(plain < zero && zero < two, "{plain}, {zero}, {two}");
    let error = tokens(&|options| examples(options, 25)).unwrap_err().to_string();
    assert!(error.contains("expected at least 25 examples, found 24"), "{error}");
    let error = tokens(&|options| options.examples = Some(options.data.clone())).unwrap_err().to_string();
    assert!(error.contains("the samples themselves"), "{error}");
    let error = tokens(&|options| options.shots = Some(1)).unwrap_err().to_string();
    assert!(error.contains("task.toml") && error.contains("found 0"), "{error}");
}

#[test]
fn the_tables_are_the_snapshots() {
    let folder = tempfile::tempdir().unwrap();
    let mut result = evaluate(options(folder.path(), TASK));
    // Snapshots hold no measured times.
    for (index, variant) in result.efficiency.iter_mut().flat_map(|efficiency| &mut efficiency.variants).enumerate() {
        let speed = 500.0 - 10.0 * index as f64;
        variant.load_seconds = variant.load_seconds.map(|_| 0.0123);
        variant.tokens_per_second =
            plimsoll::result::Speed { median: speed, low: speed - 5.0, high: speed + 5.0, rounds: 5 };
    }
    if let Some(efficiency) = &mut result.efficiency {
        efficiency.threads = 2;
    }
    insta::assert_snapshot!("evaluation", evaluation(&result, Form::Text(Style::Plain)));
    insta::assert_snapshot!("evaluation_markdown", evaluation(&result, Form::Markdown));
    let note = |comparisons: usize| {
        let mut few = result.clone();
        few.metrics.truncate(1);
        few.metrics[0].comparisons.truncate(comparisons);
        evaluation(&few, Form::Markdown)
    };
    assert!(!note(0).contains("p-values") && note(1).contains("randomisation tests.") && !note(1).contains("Holm"));
    assert!(note(2).contains("adjusted for all 2 comparisons (Holm)"), "{}", note(2));
    let coloured = evaluation(&result, Form::Text(Style::Colour));
    assert!(coloured.contains("\u{1b}[1m"));
    assert!(evaluation(&result, Form::Text(Style::Plain)).lines().all(|line| line.chars().count() <= 100));
}

#[test]
fn the_base_model_alone_can_be_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let result = evaluate(EvalOptions { adapter: None, max_samples: Some(4), ..options(folder.path(), TASK) });
    assert_eq!(result.variants.len(), 1);
    assert!(result.metrics.iter().all(|metric| metric.comparisons.is_empty()));
    assert!(result.efficiency.is_none() && result.adapter.is_none());
    assert_eq!((result.data.samples, result.data.available), (4, 24));
}

#[test]
fn lists_tables_and_several_references_are_counted_by_rows() {
    let folder = tempfile::tempdir().unwrap();
    let open = |task: &str, data: &str, content: &str| {
        let data = folder.path().join(data);
        fs::write(&data, content).unwrap();
        let options = EvalOptions { data, max_tokens: Some(4), adapter: None, ..options(folder.path(), task) };
        Evaluation::open(options).map_err(|error| error.to_string())
    };
    let evaluate = |task: &str, data: &str, content: &str| {
        let evaluation = open(task, data, content).unwrap();
        let answered = evaluation.run(&mut |_| ControlFlow::Continue(())).unwrap();
        evaluation.finish(&answered).unwrap()
    };
    let counts = |result: &EvalResult| (result.data.samples, result.data.available);
    let warnings = |result: &EvalResult| result.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");

    let svamp = "name = \"svamp\"\nprompt = \"{{ Body }} {{ Question }}\"\nreferences = [\"{{ Answer }}\"]\n\
                 [[metrics]]\nkind = \"numeric\"\nextract = { pattern = '(18)|[\\s\\S]+' }\n\
                 [[metrics]]\nname = \"near\"\nkind = \"numeric\"\ntolerance = { absolute = 1 }\n\
                 extract = { pattern = 'no such text', fallback = \"$1,001.\" }\n";
    let row = |answer: &str| format!("{{\n \"Body\": \"B.\",\n \"Question\": \"Q?\",\n \"Answer\": {answer}\n}}");
    let list = |answers: [&str; 3]| format!("[\n{}\n]\n", answers.map(row).join(",\n"));
    let result = evaluate(svamp, "svamp.json", &list(["18.0", "1000", "\"1,002\""]));
    assert_eq!(counts(&result), (3, 3));
    assert_eq!(result.metrics[1].values[0].value, 2.0 / 3.0);
    assert_eq!(result.metrics[1].signature, "nrefs:1|relative:0.0|absolute:1.0|extract:first");
    let message = open(svamp, "svamp.json", &list(["1", "\"two\"", "3"])).unwrap_err();
    let expected = "row 2: metric `numeric`: expected a reference that is a number, found `two`";
    assert!(message.ends_with(expected), "{message}");
    let message = open(svamp, "svamp.json", &list(["1", "2", "3, \"Qestion\": null"]).replace("\"Body\"", "\"Boby\""));
    let expected = "row 1: template `prompt`: `Body` is undefined; the row has `Boby`, `Question`, `Answer`";
    let message = message.unwrap_err();
    assert!(message.ends_with(expected), "{message}");

    let webnlg = "name = \"webnlg\"\nprompt = \"{% for t in triples %}{{ t.s }} {{ t.o }};{% endfor %}\"\n\
                  references = [\"{{ lexs[0] }}\", \"{{ lexs[1] }}\", \"{{ lexes[2] }}\"]\n\
                  [data]\ngroup = \"id\"\n[[metrics]]\nkind = \"bleu\"\n";
    let row =
        |id: u32, lexs: &str| format!("{{\"id\": {id}, \"triples\": [{{\"s\": 1, \"o\": 2}}], \"lexs\": {lexs}}}\n");
    let rows = [row(1, "[\"a b\", \"c d\"]"), row(1, "[\"e f\"]"), "\n".into(), row(2, "[\"g h\"]")].concat();
    let result = evaluate(webnlg, "webnlg.jsonl", &rows);
    assert_eq!(counts(&result), (2, 2));
    assert!(result.metrics[0].signature.starts_with("nrefs:var"), "{}", result.metrics[0].signature);
    assert!(warnings(&result).contains("`references[2]` has no text in any sample"), "{}", warnings(&result));
    assert!(!warnings(&result).contains("references[1]"), "{}", warnings(&result));

    let table = "name = \"labels\"\nprompt = \"{{ text }}\"\nreferences = [\"{{ label }}\"]\n\
                 [[metrics]]\nkind = \"exact-match\"\nignore_case = true\n";
    let csv = "text, label\n\"good\nfilm\",pos\n\n\"bad \"\"film\"\"\n\nreally\",neg\nfine,";
    assert_eq!(counts(&evaluate(table, "labels.csv", &format!("{csv}pos\n"))), (3, 3));
    let message = open(table, "labels.csv", &format!("{csv}\n")).unwrap_err();
    let expected =
        "row 3 (line 8): expected a reference, found none: `references[0]` is empty; the row has `text`, `label`";
    assert!(message.ends_with(expected), "{message}");
}
