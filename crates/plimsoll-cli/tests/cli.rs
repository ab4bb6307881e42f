//! The program as a whole: its output, its files, and its exit codes.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use common::{
    Run, adapter, contents, copy_files, data, golden, json, json_lines, model, names, plain_search, plimsoll, run,
    search, search_arguments,
};
use serde_json::Value;

/// The files of a finished search with the verdict to trim.
const RESULTS: [&str; 5] = ["adapter", "report.html", "result.json", "scores.jsonl", "tokens.jsonl"];

/// A search of the trained adapter; by construction its best boundary is 2.
fn search_trained(out: &Path, more: &[&str]) -> Run {
    plain_search(&model(), &adapter("trained"), &data(), out, more)
}

fn succeeds(run: &Run) {
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}

fn fails(run: &Run, code: i32, words: &[&str]) {
    assert_eq!(run.code, Some(code), "{}", run.stderr);
    assert_eq!(run.stdout, "");
    assert!(run.stderr.starts_with("plimsoll: "), "{}", run.stderr);
    for word in words {
        assert!(run.stderr.contains(word), "{word}: {}", run.stderr);
    }
}

/// The number at a JSON pointer.
fn number(value: &Value, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number at {pointer}"))
}

/// The boundaries of a model with four layers, as LoRA strengths.
const BOUNDARIES: [&str; 5] = ["0", "1-3=0", "2-3=0", "3=0", "1"];

/// A sample's scores at a boundary.
fn at(row: &Value, k: usize) -> &Value {
    let place = row["gates"].as_array().unwrap().iter().position(|gates| *gates == BOUNDARIES[k]).unwrap();
    &row["variants"][place]
}

/// Mean NLL of every sample, in nats per answer token: `[sample][boundary]`.
fn mean_nll(scores: &[Value]) -> Vec<Vec<f64>> {
    let of_sample =
        |row: &Value| -> Vec<f64> { (0..5).map(|k| number(at(row, k), "/nll") / number(row, "/tokens")).collect() };
    scores.iter().map(of_sample).collect()
}

/// The rows of `selection` or of `holdout`.
fn part<'a>(scores: &'a [Value], part: &'a str) -> impl Iterator<Item = &'a Value> {
    scores.iter().filter(move |row| row["part"] == part)
}

// Generation and evaluation

/// Runs a subcommand on the tiny model with its trained adapter.
fn with_adapter(subcommand: &str, more: &[&str]) -> Run {
    let (model, adapter) = (model(), adapter("trained"));
    let paths = ["--model", model.to_str().unwrap(), "--adapter", adapter.to_str().unwrap()];
    run([subcommand].iter().chain(&paths).chain(more))
}

#[test]
fn generate_answers_prompts_of_the_command_line_and_of_a_file() {
    let one = with_adapter("generate", &["What floats on water?", "--max-tokens", "20", "--layers-kept", "2"]);
    succeeds(&one);
    assert_eq!((one.stdout.as_str(), one.stderr.as_str()), ("A boat floats, and so does\n", ""));

    let data = data();
    let file = ["--data", data.to_str().unwrap(), "--layers-kept", "base,2,full", "--max-tokens", "20"];
    let rows = with_adapter("generate", &[&file[..], &["--format", "json", "--batch", "5"]].concat());
    succeeds(&rows);
    let rows: Vec<Value> = rows.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let places: Vec<(u64, u64)> =
        rows.iter().map(|row| (row["line"].as_u64().unwrap(), row["layers_kept"].as_u64().unwrap())).collect();
    let expected: Vec<(u64, u64)> = (1..=24).flat_map(|line| [0, 2, 4].map(|kept| (line, kept))).collect();
    assert_eq!(places, expected);
    assert_eq!(rows[1]["text"], "A boat floats, and so does");
    assert_eq!(rows[1]["finish"], "length");

    let text = with_adapter("generate", &[&file[..], &["--quiet"]].concat());
    assert!(text.stdout.starts_with("── prompt 1, base\n"), "{}", text.stdout);
    assert!(text.stdout.contains("── prompt 1, 2 layers\nA boat floats, and so does …\n\n── prompt 1, full\n"));

    // --gates alone, and with --layers-kept. A strength of 0 is the base model.
    let prompt = ["What floats on water?", "--max-tokens", "20"];
    let off = with_adapter("generate", &[&prompt[..], &["--gates", "0"]].concat());
    assert_eq!(off.stdout, format!("{}\n", rows[0]["text"].as_str().unwrap()));
    let more =
        ["--layers-kept", "2", "--gates", "-0.5", "--gates", "2-3=0", "--gates", "1.q_proj=0", "--format", "json"];
    let several = with_adapter("generate", &[&prompt[..], &more].concat());
    let several: Vec<Value> = several.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let gates: Vec<&str> = several.iter().map(|row| row["gates"].as_str().unwrap()).collect();
    assert_eq!(gates, ["2-3=0", "-0.5", "1.q_proj=0"]);
}

#[test]
fn generate_chats_on_the_terminal() {
    let (model, adapter) = (model(), adapter("trained"));
    let mut command = plimsoll();
    command.arg("generate").arg("--model").arg(&model).arg("--adapter").arg(&adapter);
    command.args(["--interactive", "--max-tokens", "8", "--layers-kept", "2"]);
    let output = command.write_stdin("What floats on water?\n\nAnd?\n/new\nWhat floats on water?\n").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[2]), (3, "A boat flo", "A boat flo"), "{text}");
}

#[test]
fn a_chat_has_commands_and_refuses_others() {
    let (model, adapter) = (model(), adapter("trained"));
    let mut command = plimsoll();
    command.arg("generate").arg("--model").arg(&model).arg("--adapter").arg(&adapter);
    command.args(["--interactive", "--max-tokens", "8", "--layers-kept", "2"]);
    let typed = "/help\nWhat floats on water?\n/nwe\n/usr/bin?\n /new\n/new\nWhat floats on water?\n/exit\nAnd?\n";
    let output = command.write_stdin(typed).output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{err}");
    // A path and a line that starts with a space are turns; the other lines are not.
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[3]), (4, "A boat flo", "A boat flo"), "{out}");
    assert_eq!(err.matches("/quit").count(), 2, "{err}");
    assert!(err.starts_with("Commands:\n  /help ") && err.contains("unknown command /nwe\nCommands:\n"), "{err}");
}

#[test]
fn generate_refuses_bad_options() {
    for (more, words) in [
        (&["--top-p", "0.9", "Hi"][..], &["--top-p", "--temperature"][..]),
        (&["--temperature", "-1", "Hi"], &["temperature"]),
        (&["--layers-kept", "5", "Hi"], &["cannot keep 5 layers", "the model has 4"]),
        (&["--layers-kept", "some", "Hi"], &["expected a number of layers"]),
        (&["--gates", "0-9=1", "Hi"], &["layers 0 to 9", "expected layers from 0 to 3"]),
        (
            &["--gates", "0.qkv_proj=0", "Hi"],
            &["LoRA strengths `0.qkv_proj=0`: there is no LoRA on 0.qkv_proj", "q_proj, k_proj"],
        ),
        (&["--stop", "", "Hi"], &["empty stop"]),
        (&["--interactive", "--template", "none"], &["--interactive needs a chat template"]),
        (&["--data", "no-such-file"], &["no-such-file"]),
        (&[], &["PROMPT"]),
    ] {
        let run = with_adapter("generate", more);
        assert!([Some(2), Some(3)].contains(&run.code), "{more:?}: {}", run.stderr);
        assert_eq!(run.stdout, "", "{more:?}");
        for word in words {
            assert!(run.stderr.contains(word), "{more:?}: {word}: {}", run.stderr);
        }
    }
}

#[test]
fn eval_runs_a_task_file() {
    let folder = tempfile::tempdir().unwrap();
    let (task, out) = (folder.path().join("task.toml"), folder.path().join("out"));
    fs::write(
        &task,
        "name = \"ship\"\nprompt = \"{{ prompt }}\"\nreferences = [\"{{ completion }}\"]\nmax_tokens = 24\n\
         [[metrics]]\nkind = \"chrf\"\n[[metrics]]\nkind = \"perplexity\"\n",
    )
    .unwrap();
    let data = data();
    let more = ["--task", task.to_str().unwrap(), "--data", data.to_str().unwrap(), "--layers-kept", "base,2,full"];
    let more = [&more[..], &["--out", out.to_str().unwrap(), "--log-samples", "--max-samples", "12"]].concat();
    let table = with_adapter("eval", &more);
    succeeds(&table);
    assert!(table.stdout.starts_with("ship: 12 of 24 samples"), "{}", table.stdout);
    assert_eq!(names(&out), ["result.json", "samples.jsonl"]);
    let result = json(&out.join("result.json"));
    assert_eq!(result["schema"], 1);
    let chrf: Vec<f64> = (0..3).map(|k| number(&result, &format!("/metrics/0/values/{k}/value"))).collect();
    assert!(chrf[1] > chrf[2] && chrf[2] > chrf[0], "{chrf:?}");
    assert_eq!(json_lines(&out.join("samples.jsonl")).len(), 12);

    fails(&with_adapter("eval", &more), 2, &["holds results already", "--force"]);
    let again = with_adapter("eval", &[&more[..], &["--force", "--format", "json", "--quiet"]].concat());
    succeeds(&again);
    let again: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(again["metrics"], result["metrics"]);
}

#[test]
fn eval_refuses_bad_tasks_and_data() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let good = "name = \"t\"\nprompt = \"{{ a }}\"\nreferences = [\"{{ b }}\"]\n[[metrics]]\nkind = \"chrf\"\n";
    let (good, rows) = (file("good.toml", good), file("rows.jsonl", "{\"a\": \"x\", \"b\": \"y\"}\n"));
    for (task, data, words) in [
        ("no-such-task", &rows, &["gsm8k", "TOML"][..]),
        (&file("bad.toml", "name = 3"), &rows, &["bad.toml", "not a task"]),
        (
            &file(
                "regex.toml",
                "name = \"t\"\nprompt = \"\"\nreferences = [\"\"]\n[[metrics]]\nkind = \"chrf\"\n\
            extract = { pattern = \"(\", take = \"last\" }\n",
            ),
            &rows,
            &["regex.toml", "pattern"],
        ),
        (&good, &file("rows.txt", "x"), &["rows.txt", ".jsonl"]),
        (&good, &file("field.jsonl", "{\"a\": \"x\"}\n"), &["field.jsonl", "line 1", "reference"]),
        (&good, &file("other.jsonl", "{\"c\": \"x\", \"b\": \"y\"}\n"), &["line 1", "`prompt`"]),
        (&good, &file("broken.jsonl", "{\"a\"\n"), &["broken.jsonl", "line 1"]),
        (&good, &folder.path().display().to_string(), &["folder"]),
    ] {
        let run = with_adapter("eval", &["--task", task, "--data", data]);
        fails(&run, 3, words);
    }
    let run = with_adapter("eval", &["--task", &good, "--data", &rows, "--log-samples"]);
    assert_eq!(run.code, Some(2), "{}", run.stderr);
}

#[test]
fn a_search_can_choose_by_a_metric_of_answers() {
    let folder = tempfile::tempdir().unwrap();
    let (task, out) = (folder.path().join("ship.toml"), folder.path().join("out"));
    fs::write(
        &task,
        "name = \"ship\"\nprompt = \"-\"\nreferences = [\"-\"]\nmax_tokens = 40\n[[metrics]]\nkind = \"bleu\"\n\
         [[metrics]]\nname = \"f1\"\nkind = \"squad-f1\"\n",
    )
    .unwrap();
    let metric = format!("{}:f1", task.display());
    let one_se = ["--rule", "one-se", "--metric-candidates", "3", "--holdout", "0.5"];
    succeeds(&search_trained(&out, &[&["--metric", &metric][..], &one_se].concat()));
    assert_eq!(names(&out), RESULTS);
    let result = json(&out.join("result.json"));
    assert_eq!(result["metric"]["name"], "ship f1");
    assert_eq!(result["metric"]["choice_by_nll"]["layers_kept"], 2);
    // The best boundary is 2; the full adapter answers too.
    let kept: Vec<u64> =
        result["metric"]["variants"].as_array().unwrap().iter().map(|v| v["layers_kept"].as_u64().unwrap()).collect();
    assert_eq!(kept, [0, 2, 4]);
    assert!(result["metric"]["variants"][0]["selection"].is_null());
    let held_out = |index: usize| number(&result, &format!("/metric/variants/{index}/holdout/value"));
    assert!(held_out(1) > held_out(2) && held_out(2) > held_out(0));
    assert_eq!(result["choice"]["one_se"], 2);
    // Gains are in the metric.
    let gain = number(&result, "/choice/gain/mean");
    assert!((gain - (held_out(1) - held_out(2))).abs() < 1e-12, "{gain}");
    let report = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(report.contains("ship f1"), "the report does not name the metric");

    for (metric, words) in
        [(format!("{}:bleu", task.display()), &["f1", "mean over samples"][..]), ("nothing".to_owned(), &["gsm8k"])]
    {
        let run = search_trained(&folder.path().join("other"), &["--metric", &metric]);
        assert!([Some(2), Some(3)].contains(&run.code), "{}", run.stderr);
        for word in words {
            assert!(run.stderr.contains(word), "{word}: {}", run.stderr);
        }
    }
}

#[test]
fn a_metric_of_answers_finds_sufficient_layers_on_all_samples() {
    let folder = tempfile::tempdir().unwrap();
    let task = folder.path().join("ship.toml");
    let head = "name = \"ship\"\nprompt = \"-\"\nreferences = [\"-\"]\nmax_tokens = 40\n";
    fs::write(&task, format!("{head}[[metrics]]\nname = \"f1\"\nkind = \"squad-f1\"\n")).unwrap();
    let metric = format!("{}:f1", task.display());
    let search_by = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let by_metric = ["--metric", &metric];
        (search(&model(), &adapter("trained"), &data(), &out, &[&by_metric, more].concat()), out)
    };
    let mut answers = Vec::new();
    for strategy in ["exact", "sequential"] {
        let (run, out) = search_by(strategy, &["--search", strategy, "--margin", "40%"]);
        succeeds(&run);
        let result = json(&out.join("result.json"));
        assert_eq!(
            (&result["metric"]["decided"], &result["choice"]["validation"]["kind"]),
            (&true.into(), &"all".into())
        );
        let list = &result["sufficient"][0];
        assert_eq!(
            (&list["metric"], &list["samples"], &result["choice"]["gain"]["samples"]),
            (&"ship f1".into(), &24.into(), &24.into())
        );
        assert!(result["sufficient"][1].get("metric").is_none());
        // Answers only as far as the margin needs.
        let answered: Vec<u64> = result["metric"]["variants"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["layers_kept"].as_u64().unwrap())
            .collect();
        assert_eq!((answered[0], answered.last()), (0, Some(&4)));
        let row = list["rows"].as_array().unwrap().iter().find(|row| row["margin"]["share"] == 0.4).unwrap();
        let kept = row["layers_kept"].as_u64().unwrap();
        assert!(answered.contains(&kept.saturating_sub(1)) || kept == 1, "{answered:?} {row}");
        let value = |k: u64| {
            let row =
                result["metric"]["variants"].as_array().unwrap().iter().find(|row| row["layers_kept"] == k).unwrap();
            number(row, "/selection/value")
        };
        let gain = number(&result, "/choice/adapter_gain/mean");
        assert!((gain - (value(4) - value(0))).abs() < 1e-12);
        assert!(run.stdout.contains("bottom-k, ship f1") && run.stdout.contains("bottom-k, NLL"), "{}", run.stdout);
        answers.push((list.clone(), result["candidate"].clone(), result["choice"]["reason"].clone()));
    }
    assert_eq!(answers[0], answers[1]);
    for (more, words) in [
        (&["--holdout", "0.5"][..], "use --rule one-se with --holdout"),
        (&["--rule", "best"], "--metric chooses by --rule sufficient or one-se"),
        (&["--margin", "0.1nats"], "--margin: expected a share, or a loss in points with --metric"),
        (&["--metric-candidates", "3"], "--metric-candidates has no effect without --rule one-se"),
    ] {
        fails(&search_by("refused", more).0, 2, &[words]);
    }
}

// Help texts: the reference of the command line.

#[test]
fn help_texts() {
    for (name, arguments) in [
        ("help", &["--help"][..]),
        ("help_search", &["search", "--help"]),
        ("help_eval", &["eval", "--help"]),
        ("help_generate", &["generate", "--help"]),
        ("help_trim", &["trim", "--help"]),
        ("help_inspect", &["inspect", "--help"]),
        ("help_report", &["report", "--help"]),
    ] {
        let run = run(arguments);
        succeeds(&run);
        assert_eq!(run.stderr, "");
        insta::assert_snapshot!(name, run.stdout);
    }
}

#[test]
fn version() {
    assert_eq!(run(["--version"]).stdout, concat!("plimsoll ", env!("CARGO_PKG_VERSION"), "\n"));
}

// Search

#[test]
fn a_search_finds_the_boundary_and_writes_everything() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let run = search_trained(&out, &["--format", "json"]);
    succeeds(&run);
    assert_eq!(names(&out), RESULTS);
    assert_eq!(run.stdout, fs::read_to_string(out.join("result.json")).unwrap());

    let result = json(&out.join("result.json"));
    let choice = &result["choice"];
    assert_eq!((&choice["verdict"], &choice["reason"]), (&"trim".into(), &"better".into()));
    for rule in ["layers_kept", "best", "one_se", "curve"] {
        assert_eq!(choice[rule], 2, "{rule}");
    }
    assert_eq!(choice["bootstrap"].as_array().unwrap().iter().filter_map(Value::as_f64).sum::<f64>(), 1.0);
    assert!(number(choice, "/gain/low") > 0.05, "{}", choice["gain"]);
    assert_eq!(number(&result, "/adapter/bytes_kept") * 2.0, number(&result, "/adapter/bytes"));
}

#[test]
fn the_result_has_every_documented_key() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    succeeds(&search_trained(&out, &[]));
    let result = json(&out.join("result.json"));
    let has = |pointer: &str, keys: &[&str]| {
        let found = result.pointer(pointer).and_then(Value::as_object).unwrap_or_else(|| panic!("{pointer}"));
        for key in keys {
            assert!(found.get(*key).is_some_and(|value| !value.is_null()), "{pointer}/{key}");
        }
    };
    has("", &["schema", "tool", "command", "seed", "model", "adapter", "data", "variants", "lens", "choice"]);
    has("", &["rules", "warnings", "cost"]);
    has("/model", &["path", "sha256", "layers"]);
    has("/adapter", &["path", "sha256", "ranks", "modules", "layers", "bytes", "bytes_kept"]);
    has("/data", &["path", "sha256", "selection", "holdout", "skipped"]);
    has("/choice", &["verdict", "layers_kept", "best", "one_se", "curve", "bootstrap", "gain", "retained"]);
    has("/choice/gain", &["mean", "low", "high", "p"]);
    has("/cost", &["layer_passes", "layer_passes_naive", "seconds", "resumed", "threads"]);
    assert_eq!(result["schema"], 2);
    assert_eq!(result["variants"].as_array().unwrap().len(), 5);
    for k in 0..5 {
        has(&format!("/variants/{k}"), &["family", "layers_kept"]);
        assert_eq!(result["variants"][k]["family"], "bottom-k");
        assert_eq!(result["variants"][k]["layers_kept"], k);
        for part in ["selection", "holdout"] {
            has(&format!("/variants/{k}/{part}"), &["mean_nll", "se", "mean_probability", "token_accuracy"]);
        }
    }
    for variant in ["base", "full"] {
        assert_eq!(result["lens"][variant].as_array().unwrap().len(), 4);
        for layer in 0..4 {
            has(&format!("/lens/{variant}/{layer}"), &["probability", "low", "high", "top1", "rank"]);
        }
    }
}

#[test]
fn the_result_names_its_inputs() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out dir");
    succeeds(&search_trained(&out, &["--seed", "7"]));
    let result = json(&out.join("result.json"));
    // Hashes of the files in the repository:
    //     cd tiny-gqa-tied && sha256sum config.json model.safetensors | sha256sum
    //     cd tiny-gqa-tied/adapters/trained && sha256sum * | sha256sum
    //     sha256sum data/valid.jsonl
    for (what, path, sha256) in [
        ("model", model(), "9d0a7c555f13366540b959392833fc7f24c545bc5c0cf4d8946d7ae62babae46"),
        ("adapter", adapter("trained"), "a9db2611f4b9e47b658d02c2e9efc03e1abfc250b83990a9099b3dec12698f84"),
        ("data", data(), "b88386a07d43a62808d049670a1efefc982c0ff1e270b6fe530e9373d92e0c10"),
    ] {
        assert_eq!(result[what]["sha256"], sha256, "{what}");
        assert_eq!(result[what]["path"], path.to_str().unwrap(), "{what}");
    }
    assert_eq!(result["seed"], 7);
    let command = result["command"].as_str().unwrap();
    assert!(command.starts_with("plimsoll search --model "), "{command}");
    assert!(command.contains(&format!("'{}'", out.display())), "the space is not quoted: {command}");
}

#[test]
fn means_are_those_of_the_scores() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    succeeds(&search_trained(&out, &[]));
    let (result, scores) = (json(&out.join("result.json")), json_lines(&out.join("scores.jsonl")));
    assert_eq!(scores.len(), 24);
    assert_eq!(scores.iter().map(|row| number(row, "/tokens")).sum::<f64>(), number(&result, "/data/answer_tokens"));
    for name in ["selection", "holdout"] {
        let rows: Vec<&Value> = part(&scores, name).collect();
        assert_eq!(rows.len() as f64, number(&result, &format!("/data/{name}")));
        for k in 0..5 {
            let check = |what: &str, of_sample: &dyn Fn(&Value, &Value) -> f64| {
                let values: Vec<f64> = rows.iter().map(|row| of_sample(row, at(row, k))).collect();
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                let found = number(&result, &format!("/variants/{k}/{name}/{what}"));
                assert!((found - mean).abs() < 1e-12, "{name}, k = {k}: {what} is {found}, expected {mean}");
                let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
                (squares / (values.len() - 1) as f64 / values.len() as f64).sqrt()
            };
            let se = check("mean_nll", &|row, variant| number(variant, "/nll") / number(row, "/tokens"));
            let found = number(&result, &format!("/variants/{k}/{name}/se"));
            assert!((found - se).abs() < 1e-12, "{name}, k = {k}: se is {found}, expected {se}");
            check("mean_probability", &|_, variant| number(variant, "/probability"));
            check("token_accuracy", &|row, variant| number(variant, "/correct") / number(row, "/tokens"));
        }
    }
}

/// The whole path from JSONL to scores, compared with PyTorch, transformers and PEFT.
#[test]
fn scores_are_those_of_peft() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    succeeds(&plain_search(&model(), &adapter("plain"), &data(), &out, &["--dtype", "f32"]));
    let golden = json(&model().join("valid.plain.golden.json"));
    let expected = golden["samples"].as_array().unwrap();
    let scores = json_lines(&out.join("scores.jsonl"));
    assert_eq!(scores.len(), expected.len());
    for row in &scores {
        let sample = &expected[row["line"].as_u64().unwrap() as usize - 1];
        assert_eq!(row["line"], sample["line"]);
        assert_eq!(number(row, "/tokens"), sample["answer"].as_array().unwrap().len() as f64);
        for k in 0..5 {
            let (found, wanted) = (at(row, k), &sample["variants"][k]);
            for what in ["/nll", "/probability"] {
                let (found, wanted) = (number(found, what), number(wanted, what));
                assert!((found - wanted).abs() <= 1e-4 * wanted, "line {}, k = {k}: {found}, {wanted}", row["line"]);
            }
            assert_eq!(found["correct"], wanted["correct"]);
        }
    }
}

/// Warnings that depend on the number of samples only are printed before scoring, and are in the result.
#[test]
fn too_few_samples_are_reported_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let few = folder.path().join("few.jsonl");
    let lines = |samples: usize| {
        let text = fs::read_to_string(data()).unwrap();
        let lines: Vec<&str> = text.lines().take(samples).collect();
        fs::write(&few, lines.join("\n")).unwrap();
    };
    let run = |name: &str, more: &[&str]| {
        let more = [&["--template", "none"], more].concat();
        let run = search(&model(), &adapter("trained"), &few, &folder.path().join(name), &more);
        succeeds(&run);
        (run.stderr, json(&folder.path().join(name).join("result.json")))
    };
    lines(12);
    let (stderr, result) = run("held-out", &["--holdout", "0.33"]);
    let lines: Vec<&str> = stderr.lines().collect();
    assert!(
        lines[0].starts_with("plimsoll: warning: Too few samples to show anything: 4 samples to judge by"),
        "{stderr}"
    );
    assert!(lines[0].contains("at least 7 (20 samples in all)") && lines[1].contains("scoring 12 samples"), "{stderr}");
    assert_eq!(result["warnings"][0]["kind"], "cannot-show");
    let (stderr, result) = run("raced", &["--search", "racing"]);
    assert!(
        stderr.starts_with("plimsoll: warning: Exact search instead of racing: a race on 8 selection samples"),
        "{stderr}"
    );
    assert!(result.get("race").is_none());
    assert_eq!(
        (&result["warnings"][0]["kind"], &result["choice"]["gain"]["samples"]),
        (&"not-raced".into(), &12.into())
    );
    assert_eq!(run("quiet", &["--holdout", "0.33", "--quiet"]).0, "");
}

/// A race scores less than an exact search. Its scores are the same, and so is its verdict.
#[test]
fn a_race_has_the_verdict_of_the_exact_search() {
    let folder = tempfile::tempdir().unwrap();
    let many = folder.path().join("many.jsonl");
    fs::write(&many, fs::read_to_string(data()).unwrap().repeat(4)).unwrap();
    let result = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        succeeds(&plain_search(&model(), &adapter("trained"), &many, &out, more));
        (json(&out.join("result.json")), json_lines(&out.join("scores.jsonl")))
    };
    let (exact, exact_scores) = result("exact", &["--search", "exact"]);
    let (raced, raced_scores) = result("raced", &["--search", "racing"]);
    for key in ["verdict", "reason", "layers_kept", "best", "one_se", "gain", "adapter_gain"] {
        assert_eq!(raced["choice"][key], exact["choice"][key], "{key}");
    }
    assert!(exact.get("race").is_none());
    let dropped = raced["race"]["dropped"].as_array().unwrap();
    assert!(dropped.iter().any(|dropped| dropped["layers_kept"] == 0), "{dropped:?}");
    assert!(raced["cost"]["layer_passes"].as_u64() < exact["cost"]["layer_passes"].as_u64());

    let mut scores = 0;
    for (raced, exact) in raced_scores.iter().zip(&exact_scores) {
        assert_eq!((&raced["line"], &raced["part"]), (&exact["line"], &exact["part"]));
        let gates = raced["gates"].as_array().unwrap();
        scores += gates.len();
        for (gates, variant) in gates.iter().zip(raced["variants"].as_array().unwrap()) {
            let k = BOUNDARIES.iter().position(|known| gates == known).unwrap();
            assert_eq!(variant, at(exact, k));
        }
    }
    assert!(scores < 5 * exact_scores.len(), "{scores} scores");
}

#[test]
fn a_bound_on_memory_and_fewer_lens_samples_leave_the_choice() {
    let folder = tempfile::tempdir().unwrap();
    let result = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        succeeds(&search_trained(&out, more));
        json(&out.join("result.json"))
    };
    let (free, bound) =
        (result("free", &[]), result("bound", &["--threads", "1", "--memory", "3MiB", "--lens-samples", "5"]));
    assert_eq!(bound["choice"]["gain"], free["choice"]["gain"]);
    assert_eq!(bound["variants"], free["variants"]);
    assert_eq!((&free["lens"]["samples"], &bound["lens"]["samples"]), (&16.into(), &5.into()));
    let run = search_trained(&folder.path().join("tiny"), &["--memory", "1KiB"]);
    fails(&run, 2, &["MiB of memory", "expected at least"]);
    assert!(!folder.path().join("tiny").exists());
}

#[test]
fn the_same_seed_gives_the_same_result_and_another_splits_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    succeeds(&search_trained(&out("first"), &["--threads", "1"]));
    succeeds(&search_trained(&out("again"), &["--threads", "2"]));
    succeeds(&search_trained(&out("other"), &["--threads", "1", "--seed", "1"]));
    let result = |name: &str| {
        let mut result = json(&out(name).join("result.json"));
        // These depend on time, or on the command line.
        for what in ["command", "efficiency"] {
            result.as_object_mut().unwrap().remove(what);
        }
        for what in ["seconds", "threads"] {
            result["cost"].as_object_mut().unwrap().remove(what);
        }
        result
    };
    let scores = |name: &str| json_lines(&out(name).join("scores.jsonl"));
    assert_eq!(result("first"), result("again"));
    assert_eq!(scores("first"), scores("again"));
    let holdout = |name: &str| -> BTreeSet<u64> {
        part(&scores(name), "holdout").map(|row| row["line"].as_u64().unwrap()).collect()
    };
    assert_eq!(holdout("first").len(), 8);
    assert_ne!(holdout("first"), holdout("other"));
    assert_eq!(result("other")["seed"], 1);
}

#[test]
fn a_gguf_and_a_folder_of_one_model_give_the_same_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("folder"), folder.path().join("gguf"));
    succeeds(&search_trained(&one, &[]));
    let gguf = golden().join("tiny-gqa-tied.gguf");
    succeeds(&plain_search(&gguf, &adapter("trained"), &data(), &other, &[]));
    let choice = |out: &Path| json(&out.join("result.json"))["choice"].clone();
    for rule in ["verdict", "reason", "layers_kept", "best", "one_se", "curve", "bootstrap"] {
        assert_eq!(choice(&one)[rule], choice(&other)[rule], "{rule}");
    }
    let nll = |out: &Path| mean_nll(&json_lines(&out.join("scores.jsonl")));
    for (one, other) in nll(&one).concat().iter().zip(nll(&other).concat()) {
        assert!((one - other).abs() < 1e-6, "{one}, {other}");
    }
}

#[test]
fn the_trimmed_adapter_is_the_cut_that_was_scored() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    succeeds(&search_trained(&first, &[]));
    let trimmed = first.join("adapter");

    let inspected = run(["inspect", "--format", "json", "--adapter", trimmed.to_str().unwrap()]);
    succeeds(&inspected);
    let inspected: Value = serde_json::from_str(&inspected.stdout).unwrap();
    assert_eq!(inspected["layers"], serde_json::json!([0, 1]));

    succeeds(&plain_search(&model(), &trimmed, &data(), &second, &[]));
    let nll = |out: &Path| mean_nll(&json_lines(&out.join("scores.jsonl")));
    for (before, after) in nll(&first).iter().zip(nll(&second)) {
        // Layers without LoRA change nothing, so k = 2, 3 and 4 are the same model.
        for (k, cut) in [(0, 0), (1, 1), (2, 2), (3, 2), (4, 2)] {
            assert!((after[k] - before[cut]).abs() < 1e-9, "k = {k}: {}, expected {}", after[k], before[cut]);
        }
    }
}

#[test]
fn fail_if_kept_fails_where_nothing_is_trimmed() {
    let folder = tempfile::tempdir().unwrap();
    let plain = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let run = plain_search(&model(), &adapter("plain"), &data(), &out, more);
        assert_ne!(json(&out.join("result.json"))["choice"]["verdict"], "trim");
        assert_eq!(names(&out), ["report.html", "result.json", "scores.jsonl", "tokens.jsonl"]);
        assert!(!run.stdout.contains("\nAdapter:"), "{}", run.stdout);
        assert!(run.stderr.starts_with("plimsoll: scoring 24 samples, at most about "), "{}", run.stderr);
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
        run.code
    };
    assert_eq!(plain("without", &[]), Some(0));
    assert_eq!(plain("with", &["--fail-if-kept"]), Some(5));
    succeeds(&search_trained(&folder.path().join("trained"), &["--fail-if-kept"]));
}

#[test]
fn results_are_replaced_only_by_force() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    succeeds(&search_trained(&out, &[]));
    fs::write(out.join("notes.txt"), "the user's").unwrap();
    let before = contents(&out);

    fails(&search_trained(&out, &["--seed", "3"]), 2, &[out.to_str().unwrap(), "results already", "--force"]);
    assert_eq!(contents(&out), before);

    // This search does not trim: the old trimmed adapter must be removed.
    succeeds(&plain_search(&model(), &adapter("plain"), &data(), &out, &["--force"]));
    assert_eq!(names(&out), ["notes.txt", "report.html", "result.json", "scores.jsonl", "tokens.jsonl"]);
    assert_ne!(json(&out.join("result.json"))["choice"]["verdict"], "trim");
    succeeds(&search_trained(&out, &["--force"]));
    assert_eq!(json(&out.join("result.json"))["choice"]["verdict"], "trim");
    assert_eq!(fs::read_to_string(out.join("notes.txt")).unwrap(), "the user's");
}

#[test]
fn out_must_be_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    fs::write(&out, "a file").unwrap();
    fails(&search_trained(&out, &[]), 2, &[out.to_str().unwrap(), "not a folder"]);
    fails(&search_trained(&out, &["--force"]), 2, &["not a folder"]);
    assert_eq!(fs::read_to_string(&out).unwrap(), "a file");
}

#[test]
fn the_reason_for_a_failed_write_is_given_once() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "a file").unwrap();
    let (adapter, out) = (adapter("trained"), folder.path().join("file/out"));
    let arguments =
        ["trim".as_ref(), "--layers-kept".as_ref(), "1".as_ref(), "--adapter".as_ref(), adapter.as_os_str()];
    let run = run(arguments.into_iter().chain(["--out".as_ref(), out.as_os_str()]));
    fails(&run, 1, &["file", "cannot write"]);
    assert_eq!(run.stderr.matches("os error").count(), 1, "{}", run.stderr);
}

#[test]
fn output_that_is_not_for_a_terminal_has_no_escapes() {
    let folder = tempfile::tempdir().unwrap();
    let run = search_trained(&folder.path().join("table"), &[]);
    succeeds(&run);
    assert!(run.stdout.contains("Trim: keep LoRA in layers 0–1"), "{}", run.stdout);
    assert!(!run.stdout.contains('\x1b') && !run.stderr.contains('\x1b'), "{run:?}");
    for format in ["table", "json"] {
        let run = search_trained(&folder.path().join(format!("quiet {format}")), &["--quiet", "--format", format]);
        succeeds(&run);
        assert_eq!(run.stderr, "");
    }
    let run = plimsoll().args(["inspect", "--adapter"]).arg(adapter("trained")).output().unwrap();
    assert!(run.status.success() && !run.stdout.contains(&b'\x1b') && run.stderr.is_empty());
}

/// If stderr cannot be written, the program does not panic, and the exit code is the same.
#[cfg(target_os = "linux")]
#[test]
fn a_message_that_cannot_be_written_leaves_the_exit_code() {
    use std::process::Command;

    let folder = tempfile::tempdir().unwrap();
    let code = |arguments: &[std::path::PathBuf]| {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
        command.args(arguments).stdout(std::process::Stdio::null()).stderr(full).status().unwrap().code()
    };
    let good = search_arguments(&model(), &adapter("trained"), &data(), &folder.path().join("good"));
    assert_eq!(code(&good), Some(0));
    let bad = search_arguments(&model(), &folder.path().join("good"), &data(), &folder.path().join("bad"));
    assert_eq!(code(&bad), Some(3));
}

// Inspect

#[test]
fn mixed_settings_are_printed_with_their_modules() {
    let inspect = |name: &str| run(["inspect", "--adapter", adapter(name).to_str().unwrap()]).stdout;
    let (plain, patterns) = (inspect("plain"), inspect("patterns"));
    assert!(plain.contains("\nrank        4\nalpha       12\nscale       alpha/r = 3\n"), "{plain}");
    assert!(
        patterns.contains("\nrank        2 in q_proj (layers 0–1, 3)\n            3 in down_proj (layers 0–1)\n"),
        "{patterns}"
    );
}

#[test]
fn gates_of_modules_without_lora_are_refused() {
    let (folder, model, adapter, data) = (tempfile::tempdir().unwrap(), model(), adapter("layers"), data());
    let (model, adapter, data) = (model.to_str().unwrap(), adapter.to_str().unwrap(), data.to_str().unwrap());
    let (out, base) = (folder.path().join("out"), ["--model", model]);
    let out_argument = ["--out", out.to_str().unwrap()];
    // LoRA is on k_proj, v_proj and down_proj in the layers 0 and 2.
    for (gates, words) in [
        (
            "0=0.5,2.up_proj=0",
            "there is no LoRA on 2.up_proj: the adapter has LoRA there on k_proj, v_proj, down_proj only",
        ),
        ("1=0", "there is no LoRA in layer 1: the adapter has LoRA in layers 0, 2, on k_proj, v_proj, down_proj"),
    ] {
        for (subcommand, more) in [
            ("trim", &out_argument[..]),
            ("search", &[&base[..], &out_argument, &["--data", data]].concat()),
            ("eval", &[&base[..], &["--task", "gsm8k", "--data", data]].concat()),
            ("generate", &[&base[..], &["Hi"]].concat()),
        ] {
            fails(&run([&[subcommand, "--adapter", adapter, "--gates", gates], more].concat()), 2, &[words]);
            assert!(!out.exists(), "{subcommand}");
        }
    }
}

// Trim

#[test]
fn trim_writes_what_search_writes() {
    let folder = tempfile::tempdir().unwrap();
    let (out, searched) = (folder.path().join("trimmed"), folder.path().join("searched"));
    let trim = |layers_kept: &str, out: &Path| {
        let adapter = adapter("trained");
        let paths = ["--adapter", adapter.to_str().unwrap(), "--out", out.to_str().unwrap()];
        run(["trim", "--layers-kept", layers_kept].into_iter().chain(paths))
    };
    let run = trim("2", &out);
    succeeds(&run);
    assert!(
        run.stdout.contains("kept 2 of 4 layers with LoRA, 14 of 28 modules, 16.4 kB of 32.8 kB\n"),
        "{}",
        run.stdout
    );
    assert_eq!(run.stderr, "");
    succeeds(&search_trained(&searched, &[]));
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        let read = |folder: &Path| fs::read(folder.join(file)).unwrap();
        assert!(read(&out) == read(&searched.join("adapter")), "{file} differs from the search's");
    }

    let before = contents(&out);
    fails(&trim("1", &out), 2, &[out.to_str().unwrap(), "exists already"]);
    assert_eq!(contents(&out), before);

    let nothing = folder.path().join("nothing");
    fails(&trim("0", &nothing), 2, &["no LoRA is kept", "use the base model", "nothing is written"]);
    assert_eq!(names(folder.path()), ["searched", "trimmed"]);

    fails(&trim("base", &nothing), 2, &["no LoRA is kept", "use the base model", "nothing is written"]);
    fails(&trim("5", &nothing), 2, &["5 layers kept", "at most 4", "highest layer with LoRA", "is 3", "`full`"]);
    assert_eq!(names(folder.path()), ["searched", "trimmed"]);

    let run = trim("full", &folder.path().join("whole"));
    succeeds(&run);
    let nothing = "32.8 kB of 32.8 kB; nothing is dropped: the adapter has LoRA in layers 0–3 only\n";
    assert!(run.stdout.ends_with(nothing), "{}", run.stdout);
}

#[test]
fn trim_takes_strengths_and_the_candidate_of_a_search() {
    let folder = tempfile::tempdir().unwrap();
    let trim = |name: &str, more: &[&str]| {
        let (adapter, out) = (adapter("trained"), folder.path().join(name));
        let paths = ["--adapter", adapter.to_str().unwrap(), "--out", out.to_str().unwrap()];
        run(["trim"].iter().chain(&paths).chain(more))
    };
    let written = |run: &Run| -> Value { serde_json::from_str(&run.stdout).unwrap() };
    let gates = trim("gates", &["--gates", "3=0,1.q_proj=0,2=-0.3", "--format", "json"]);
    succeeds(&gates);
    let gates = written(&gates);
    assert_eq!(gates["gates"], "2=-0.3,3=0,1.q_proj=0");
    assert_eq!(gates["layers_kept"], serde_json::json!([0, 1, 2]));
    assert_eq!(gates["strengths"].to_string(), "[-0.3]");
    assert_eq!((&gates["modules"], &gates["modules_dropped"]), (&20.into(), &8.into()));
    let table = trim("weaker", &["--gates", "0.5"]);
    assert!(
        table.stdout.ends_with(
            "kept 4 of 4 layers with LoRA, 28 of 28 modules, 32.8 kB of 32.8 kB; strength 0.5 folded \
                                    into lora_B\n"
        ),
        "{}",
        table.stdout
    );

    // The folder of a search, or its result.
    let searched = folder.path().join("searched");
    succeeds(&search_trained(&searched, &[]));
    let result = searched.join("result.json");
    let mut changed = json(&result);
    changed["candidate"] = serde_json::json!(
        {"family": "bottom-k", "label": "2 layers", "gates": "2-3=0", "layers_kept": 2, "bytes": 16384}
    );
    fs::write(&result, changed.to_string()).unwrap();
    for (name, path) in [("from folder", &searched), ("from file", &result)] {
        let run = trim(name, &["--from", path.to_str().unwrap(), "--format", "json"]);
        succeeds(&run);
        assert_eq!(written(&run)["gates"], "2-3=0");
        let read = |folder: &Path| fs::read(folder.join("adapter_model.safetensors")).unwrap();
        assert!(read(&folder.path().join(name)) == read(&searched.join("adapter")));
    }

    // The sufficient layers of a margin: a row of the result, or a share between the rows.
    let list = changed["sufficient"][0].clone();
    let shares = list["shares"].as_array().unwrap();
    let low =
        |kept: &Value| shares.iter().find(|share| share["layers_kept"] == *kept).unwrap()["retained"]["low"].as_f64();
    let half = list["rows"].as_array().unwrap().iter().find(|row| row["margin"]["share"] == 0.5).unwrap();
    let from = searched.to_str().unwrap();
    let run = trim("half", &["--from", from, "--margin", "50%", "--format", "json"]);
    succeeds(&run);
    assert_eq!(written(&run)["gates"], half["gates"]);
    let run = trim("less", &["--from", from, "--margin", "42.5%", "--family", "bottom-k", "--format", "json"]);
    succeeds(&run);
    let kept: Value = written(&run)["layers_kept"].as_array().unwrap().len().into();
    assert!(kept.as_u64() <= half["layers_kept"].as_u64() && low(&kept).unwrap() > 0.425, "{list}");
    changed["sufficient"][0]["shares"] = serde_json::json!([]);
    fs::write(&result, changed.to_string()).unwrap();
    for (margin, words) in
        [("1nats", "has no row for this margin"), ("42%", "no cut is shown to retain more than 42 %")]
    {
        fails(&trim("none", &["--from", from, "--margin", margin]), 3, &[words]);
    }
    let run = trim("none", &["--from", from, "--margin", "90%", "--family", "top-k"]);
    assert!(run.stderr.contains("has no sufficient layers of this family"), "{}", run.stderr);
}

// Interruption

#[cfg(unix)]
mod interrupted {
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    /// Enough samples that the search is not finished when it stops.
    const REPEATS: usize = 40;

    /// Starts a search, and interrupts it when its journal has the first samples.
    fn interrupt(arguments: &[std::path::PathBuf], journal: &Path) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
        let child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        let rows = || fs::read_to_string(journal).map_or(0, |text| text.lines().count());
        while rows() < 2 {
            assert!(begun.elapsed() < Duration::from_secs(60), "no journal");
            std::thread::sleep(Duration::from_millis(1));
        }
        signal(&child);
        let output = child.wait_with_output().unwrap();
        Run {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn signal(child: &Child) {
        let status = Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    #[test]
    fn an_interrupted_search_is_continued() {
        is_continued("exact");
    }

    #[test]
    fn an_interrupted_race_is_continued() {
        is_continued("racing");
    }

    fn is_continued(strategy: &str) {
        let folder = tempfile::tempdir().unwrap();
        let (out, whole) = (folder.path().join("out"), folder.path().join("whole"));
        let many = folder.path().join("many.jsonl");
        fs::write(&many, fs::read_to_string(data()).unwrap().repeat(REPEATS)).unwrap();
        let journal = out.join("journal.jsonl");
        let trained = adapter("trained");
        let one_thread = ["--threads", "1", "--search", strategy];

        let mut arguments = search_arguments(&model(), &trained, &many, &out);
        arguments.extend(one_thread.map(Into::into));
        let run = interrupt(&arguments, &journal);
        assert_eq!((run.code, run.stdout.as_str()), (Some(130), ""), "{}", run.stderr);
        let lines: Vec<&str> = run.stderr.lines().collect();
        let [begun, stopping, _] = lines[..] else { panic!("{}", run.stderr) };
        assert!(begun.starts_with(&format!("plimsoll: scoring {} samples, at most", 24 * REPEATS)), "{begun}");
        assert!(stopping.starts_with("plimsoll: stopping") && !stopping.contains("Ctrl"), "{stopping}");
        assert!(run.stderr.contains("plimsoll: interrupted: run the same command again to continue"), "{}", run.stderr);
        assert_eq!(names(&out), ["journal.jsonl"]);
        let kept = fs::read_to_string(&journal).unwrap();
        assert!(kept.ends_with('\n'));

        // A search of other inputs does not touch it.
        for (adapter, more) in [(&trained, &["--seed", "1"][..]), (&adapter("plain"), &one_thread)] {
            let run = plain_search(&model(), adapter, &many, &out, more);
            fails(&run, 2, &[journal.to_str().unwrap(), "other inputs", "--force"]);
            assert_eq!(fs::read_to_string(&journal).unwrap(), kept);
        }

        // As after a crash: the last line is incomplete.
        fs::write(&journal, format!("{kept}{}", r#"{"part":"selection","li"#)).unwrap();
        succeeds(&plain_search(&model(), &trained, &many, &out, &one_thread));
        assert_eq!(names(&out), RESULTS);
        let resumed = json(&out.join("result.json"))["cost"]["resumed"].as_u64().unwrap();
        assert_eq!(resumed as usize, kept.lines().count() - 1);

        succeeds(&plain_search(&model(), &trained, &many, &whole, &one_thread));
        let scores = |out: &Path| fs::read(out.join("scores.jsonl")).unwrap();
        assert!(scores(&out) == scores(&whole), "the scores differ from those of an uninterrupted search");
        let choice = |out: &Path| json(&out.join("result.json"))["choice"].clone();
        assert_eq!(choice(&out), choice(&whole));
    }
}

#[test]
fn a_base_model_of_another_name_is_a_warning_before_the_work_and_in_the_result() {
    let folder = tempfile::tempdir().unwrap();
    let (base, tuned) = (folder.path().join("tiny-gqa"), folder.path().join("adapter"));
    copy_files(&model(), &base);
    copy_files(&adapter("trained"), &tuned);
    let named = |name: &str, out: &str| {
        let config = tuned.join("adapter_config.json");
        let mut fields = json(&config);
        fields["base_model_name_or_path"] = name.into();
        fs::write(config, fields.to_string()).unwrap();
        let run = plain_search(&base, &tuned, &data(), &folder.path().join(out), &["--quiet", "--max-samples", "8"]);
        succeeds(&run);
        (run, json(&folder.path().join(out).join("result.json")))
    };
    let (run, result) = named("somebody/Tiny-GQA-Instruct", "other");
    let warning = "the adapter names somebody/Tiny-GQA-Instruct as its base model, and this one is tiny-gqa";
    assert!(run.stderr.starts_with(&format!("plimsoll: warning: {warning}")), "{}", run.stderr);
    assert!(run.stdout.contains("Warning: The adapter names somebody/Tiny-GQA-Instruct"), "{}", run.stdout);
    let of_kind = |result: &Value, kind: &str| {
        result["warnings"].as_array().unwrap().iter().filter(|warning| warning["kind"] == kind).count()
    };
    assert_eq!((of_kind(&result, "other-base"), of_kind(&result, "controls-omitted")), (1, 1), "{result}");
    assert!(run.stdout.contains("not compared with controls (--no-controls)"), "{}", run.stdout);
    let (run, result) = named("somebody/Tiny-GQA", "same");
    assert!(run.stderr.is_empty() && of_kind(&result, "other-base") == 0, "{}", run.stderr);
    assert_eq!(result["model"]["stored_as"], "F32");
}

#[test]
fn long_samples_are_reported_before_the_work_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    let lengths: Vec<usize> = {
        assert_eq!(plain_search(&model(), &adapter("plain"), &data(), &out("all"), &[]).code, Some(0));
        let tokens = json_lines(&out("all").join("tokens.jsonl"));
        let scored = tokens.iter().map(|sample| sample["sequence"].as_array().unwrap().iter());
        scored.map(|sequence| sequence.filter(|token| token["scored"] == true).count()).collect()
    };
    assert_eq!(json(&out("all").join("result.json"))["data"]["endings"][0]["samples"], lengths.len());
    // The longest sample of the fixture has 52 tokens.
    let skipped = plain_search(&model(), &adapter("plain"), &data(), &out("skip"), &["--max-length", "48"]);
    assert_eq!(skipped.code, Some(0), "{}", skipped.stderr);
    let found = json(&out("skip").join("result.json"));
    let count = found["data"]["skipped"].as_u64().unwrap();
    assert!(count > 0 && found["data"]["cut"] == 0 && found["data"]["max_length"] == 48);
    assert_eq!(found["warnings"].as_array().unwrap().iter().filter(|w| w["kind"] == "skipped").count(), 1);
    assert!(skipped.stderr.contains("longer than 48 tokens: skipped"), "{}", skipped.stderr);
    let more = ["--max-length", "48", "--long-samples", "cut"];
    let cut = plain_search(&model(), &adapter("plain"), &data(), &out("cut"), &more);
    let found = json(&out("cut").join("result.json"));
    assert_eq!((&found["data"]["skipped"], &found["data"]["cut"]), (&0.into(), &count.into()));
    assert!(cut.stderr.contains("longer than 48 tokens: the end of the answer is cut"), "{}", cut.stderr);
    assert!(found["data"]["answer_tokens"].as_u64().unwrap() < lengths.iter().sum::<usize>() as u64);
}

#[test]
fn a_command_of_a_chat_with_more_words_is_refused() {
    let (model, adapter) = (model(), adapter("trained"));
    let mut command = plimsoll();
    command.arg("generate").arg("--model").arg(&model).arg("--adapter").arg(&adapter);
    command.args(["--interactive", "--max-tokens", "8", "--layers-kept", "2"]);
    let typed = "/quit smoking, how?\n/new topic\u{1b}[2J x\n /quit smoking, how?\n\
                 /new  \nWhat floats on water?\n/quit\nAnd?\n";
    let output = command.write_stdin(typed).output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((lines.len(), lines[1]), (2, "A boat flo"), "{out}");
    let advice = "to send the line as text, start it with a space";
    let expected = format!(
        "plimsoll: /quit: expected nothing after the command, found \"smoking, how?\"; {advice}\n\
         plimsoll: /new: expected nothing after the command, found \"topic\\u{{1b}}[2J x\"; {advice}\n"
    );
    assert_eq!(err, expected);
}

#[test]
fn a_search_with_a_numeric_metric_reads_the_answers_of_gsm8k() {
    let folder = tempfile::tempdir().unwrap();
    let (task, rows) = (folder.path().join("gsm.toml"), folder.path().join("gsm.jsonl"));
    let metric = "[[metrics]]\nkind = \"numeric\"\nextract = { pattern = '-?\\$?[0-9][0-9,.]*', take = \"last\" }\n";
    let references = "references = ['{{ answer | split(\"####\") | last }}']";
    fs::write(
        &task,
        format!("name = \"gsm\"\nprompt = \"{{{{ question }}}}\"\n{references}\nmax_tokens = 4\n{metric}"),
    )
    .unwrap();
    let write = |answer: &dyn Fn(usize) -> String| {
        let row = |index| {
            serde_json::json!({"prompt": format!("How many, {index}?"), "completion": answer(index)}).to_string()
        };
        fs::write(&rows, (0..24).map(|index| row(index) + "\n").collect::<String>()).unwrap();
    };
    let by_metric = |out: &str| {
        let metric = format!("{}:numeric", task.display());
        let more = ["--metric", &metric, "--rule", "one-se", "--metric-candidates", "1", "--holdout", "0.5"];
        plain_search(&model(), &adapter("trained"), &rows, &folder.path().join(out), &more)
    };
    write(&|index| format!("Natalia sold {index} + 2.\n#### {}", index + 2));
    succeeds(&by_metric("out"));
    assert_eq!(json(&folder.path().join("out/result.json"))["metric"]["name"], "gsm numeric");
    write(&|index| if index == 3 { "Natalia sold some.".to_owned() } else { "2".to_owned() });
    let words = "line 4: metric `numeric`: expected a reference that is a number, found `Natalia sold some.`";
    fails(&by_metric("other"), 3, &[words]);
}
