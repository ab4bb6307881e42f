//! `plimsoll report`: one result in every format, and comparisons of several results.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Run, contents, json, result, run};
use serde_json::{Value, json};

/// `plimsoll report` on some paths, with further arguments.
fn report(paths: &[&Path], more: &[&str]) -> Run {
    let paths = paths.iter().map(|path| path.as_os_str());
    run([std::ffi::OsStr::new("report")].into_iter().chain(paths).chain(more.iter().map(std::ffi::OsStr::new)))
}

fn succeeds(run: &Run) -> &str {
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    &run.stdout
}

fn refuses(run: &Run, words: &[&str]) {
    assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{}", run.stderr);
    for word in words {
        assert!(run.stderr.contains(word), "{word}: {}", run.stderr);
    }
}

/// A folder with the example result, changed.
fn folder(parent: &Path, name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
    let mut value = json(&result());
    change(&mut value);
    let folder = parent.join(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("result.json"), value.to_string()).unwrap();
    folder
}

#[test]
fn a_result_is_rendered_in_every_format() {
    let parent = tempfile::tempdir().unwrap();
    let out = folder(parent.path(), "out", |_| {});
    let file = out.join("result.json");
    let table = report(&[&out], &[]);
    assert!(succeeds(&table).contains("Trim: keep LoRA in layers 0–19"), "{}", table.stdout);
    assert!(!table.stdout.contains('\u{1b}'));
    assert_eq!(report(&[&file], &["--format", "table"]).stdout, table.stdout);
    let markdown = report(&[&out], &["--format", "markdown"]);
    assert!(succeeds(&markdown).starts_with("### Trim: keep LoRA in layers 0–19 (20 of 30).\n"));
    assert!(succeeds(&report(&[&out], &["--format", "html"])).starts_with("<!DOCTYPE html>"));
    let printed: Value = serde_json::from_str(succeeds(&report(&[&out], &["--format", "json"]))).unwrap();
    assert_eq!(printed, json(&file));
    refuses(&report(&[&out], &["--sort", "gain"]), &["--sort has no effect on one result"]);
    refuses(&report(&[], &[]), &["<RESULT>"]);
}

#[test]
fn a_report_goes_into_a_file_and_replaces_none() {
    let parent = tempfile::tempdir().unwrap();
    let out = folder(parent.path(), "out", |_| {});
    let card = parent.path().join("cards/card.md");
    let write = |file: &Path, more: &[&str]| {
        report(&[&out], &[&["--format", "markdown", "--out", file.to_str().unwrap()], more].concat())
    };
    assert_eq!(succeeds(&write(&card, &[])), "");
    let written = fs::read_to_string(&card).unwrap();
    assert_eq!(written, report(&[&out], &["--format", "markdown"]).stdout);
    fs::write(&card, "mine").unwrap();
    refuses(&write(&card, &[]), &[card.to_str().unwrap(), "exists already", "--force"]);
    assert_eq!(fs::read_to_string(&card).unwrap(), "mine");
    succeeds(&write(&card, &["--force"]));
    assert_eq!(fs::read_to_string(&card).unwrap(), written);
    assert_eq!(common::names(card.parent().unwrap()), ["card.md"]);

    // A report does not replace its input.
    let before = contents(&out);
    let result = out.join("result.json");
    refuses(&write(&result, &["--force"]), &["is an input of the report"]);
    refuses(&write(&out, &["--force"]), &["is a folder"]);
    refuses(&report(&[&out], &["--force"]), &["--out"]);
    assert_eq!(contents(&out), before);
}

#[test]
fn several_results_are_compared() {
    let parent = tempfile::tempdir().unwrap();
    let runs = [("b", 0.01), ("c", 0.05), ("a", 0.03)];
    let runs = runs.map(|(name, gain)| {
        folder(parent.path(), name, |value| {
            value["choice"]["gain"]["mean"] = json!(gain);
            if name == "c" {
                value["data"]["sha256"] = json!("0123456789");
            }
        })
    });
    let runs = runs.each_ref().map(PathBuf::as_path);
    let order = |more: &[&str]| -> Vec<String> {
        let run = report(&runs, &[&["--format", "json"], more].concat());
        let compared: Value = serde_json::from_str(succeeds(&run)).unwrap();
        assert_eq!((&compared["schema"], &compared["same"]["data"]), (&json!(1), &json!(false)));
        let rows = compared["runs"].as_array().unwrap();
        rows.iter().map(|run| run["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(order(&[]), ["b", "c", "a"]);
    assert_eq!(order(&["--sort", "gain"]), ["c", "a", "b"]);
    assert_eq!(order(&["--sort", "name"]), ["a", "b", "c"]);
    let forms = [("table", "run  verdict"), ("markdown", "| run | verdict |"), ("html", "<!DOCTYPE html>")];
    for (form, start) in forms {
        let run = report(&runs, &["--format", form]);
        assert!(succeeds(&run).starts_with(start), "{}", run.stdout);
        assert!(run.stdout.replace('\n', " ").contains("The runs are on different data"), "{}", run.stdout);
    }
    let page = parent.path().join("page.html");
    succeeds(&report(&runs, &["--format", "html", "--out", page.to_str().unwrap()]));
    assert_eq!(fs::read_to_string(&page).unwrap(), report(&runs, &["--format", "html"]).stdout);
}

#[test]
fn schemas_are_those_that_are_published() {
    for (more, name) in [
        (&[][..], "result"),
        (&["result"][..], "result"),
        (&["tokens"], "tokens"),
        (&["scores"], "scores"),
        (&["comparison"], "comparison"),
    ] {
        let printed = report(&[], &[&["--schema"], more].concat());
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        let published = fs::read_to_string(docs.join(format!("{name}.schema.json"))).unwrap();
        assert!(succeeds(&printed) == published, "{more:?}");
    }
    refuses(&report(&[], &["--schema=html"]), &["'html'", "result, tokens, scores, comparison"]);
    refuses(&report(&[&result()], &["--schema"]), &["--schema"]);
}

/// Output is coloured on a terminal with colours, unless `NO_COLOR` is set.
#[cfg(target_os = "linux")]
#[test]
fn colour_is_for_terminals() {
    use std::process::{Command, Stdio};
    // `script` (util-linux) runs a command on a terminal.
    let on_a_terminal = |environment: &[(&str, &str)], more: &str| {
        let program = env!("CARGO_BIN_EXE_plimsoll");
        let mut command = Command::new("script");
        command.args(["-qec", &format!("'{program}' report '{}' {more}", result().display()), "/dev/null"]);
        command.env_remove("NO_COLOR").env("TERM", "xterm-256color").envs(environment.iter().copied());
        let output = command.stdin(Stdio::null()).output().expect("`script` of util-linux");
        String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n")
    };
    let coloured = on_a_terminal(&[], "");
    assert!(coloured.contains("\u{1b}[1;36m▶  20"), "{coloured}");
    let plain = report(&[&result()], &[]);
    assert_eq!(on_a_terminal(&[("NO_COLOR", "1")], ""), succeeds(&plain));
    assert_eq!(on_a_terminal(&[("TERM", "dumb")], ""), plain.stdout);
    // An empty value counts as not set.
    assert_eq!(on_a_terminal(&[("NO_COLOR", "")], ""), coloured);
    assert!(!on_a_terminal(&[], "--format markdown").contains('\u{1b}'));
}
