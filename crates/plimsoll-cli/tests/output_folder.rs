//! Output folders of `search` that are not empty: no files of the user and no finished work are lost.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::fs;

use common::{adapter, contents, copy_files, data, json, json_lines, model, names, plain_search};

#[test]
fn the_adapter_that_is_searched_is_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let own = out.join("adapter");
    copy_files(&adapter("trained"), &own);
    let before = contents(&out);
    for (out, force) in [(&out, true), (&out, false), (&own, true), (&own.join("below"), true)] {
        let run = plain_search(&model(), &own, &data(), out, if force { &["--force"] } else { &[] });
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{}", run.stderr);
    }
    assert_eq!(contents(&out), before);
}

#[test]
fn a_folder_of_the_user_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    copy_files(&adapter("plain"), &out.join("adapter"));
    let before = contents(&out);
    let run = plain_search(&model(), &adapter("trained"), &data(), &out, &["--force"]);
    assert_eq!(run.code, Some(2), "{}", run.stderr);
    assert!(run.stderr.contains("was not written by plimsoll"), "{}", run.stderr);
    assert_eq!(contents(&out), before);
}

#[test]
fn scores_survive_results_that_could_not_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let (out, whole) = (folder.path().join("out"), folder.path().join("whole"));
    let trained = adapter("trained");
    // A folder named report.html makes the last step fail, as a full disk would.
    fs::create_dir_all(out.join("report.html")).unwrap();
    let failed = plain_search(&model(), &trained, &data(), &out, &["--force"]);
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    let journal = out.join("journal.jsonl");
    assert!(journal.exists() && !out.join("result.json").exists(), "{:?}", names(&out));
    fs::remove_dir(out.join("report.html")).unwrap();

    // Only the samples in damaged lines of the journal are scored again.
    let text = fs::read_to_string(&journal).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1 + 24);
    let damaged = lines.iter().enumerate().map(|(index, line)| match index {
        3 => line.replacen("\"tokens\":", "\"tokens\":9", 1),
        5 => line.replacen("\"nll\":", "\"nll\":1e999,\"x\":", 1),
        7 => line.replacen("\"probability\":", "\"probability\":-", 1),
        _ => (*line).to_owned(),
    });
    let mut damaged = damaged.collect::<Vec<_>>().join("\n").into_bytes();
    damaged.extend(b"\n\xff\xfe{\"part\"");
    fs::write(&journal, damaged).unwrap();

    let resumed = plain_search(&model(), &trained, &data(), &out, &[]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    assert_eq!(names(&out), ["adapter", "report.html", "result.json", "scores.jsonl", "tokens.jsonl"]);
    assert_eq!(json(&out.join("result.json"))["cost"]["resumed"], 24 - 3);
    plain_search(&model(), &trained, &data(), &whole, &[]);
    let line = |row: &serde_json::Value| (row["part"].clone(), row["line"].clone(), row["tokens"].clone());
    let rows = |out: &std::path::Path| json_lines(&out.join("scores.jsonl")).iter().map(line).collect::<Vec<_>>();
    assert_eq!(rows(&out), rows(&whole));
}

#[test]
fn a_forced_search_replaces_its_own_results() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let run = |adapter: &str, more: &[&str]| plain_search(&model(), &common::adapter(adapter), &data(), &out, more);
    assert_eq!(run("trained", &[]).code, Some(0));
    assert!(out.join("adapter").exists());
    let refused = run("plain", &[]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert_eq!(run("plain", &["--force"]).code, Some(0));
    let verdict = json(&out.join("result.json"))["choice"]["verdict"].clone();
    assert_eq!(out.join("adapter").exists(), verdict == "trim", "{verdict}");
}

#[test]
fn a_trimmed_adapter_is_not_trimmed_again() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    assert_eq!(plain_search(&model(), &adapter("trained"), &data(), &first, &[]).code, Some(0));
    let again = plain_search(&model(), &first.join("adapter"), &data(), &second, &["--fail-if-kept"]);
    assert_eq!(again.code, Some(5), "{}", again.stderr);
    let choice = json(&second.join("result.json"))["choice"].clone();
    assert_eq!((&choice["verdict"], &choice["reason"]), (&"keep-full".into(), &"all-needed".into()), "{choice}");
    assert!(!second.join("adapter").exists());
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written_is_refused_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "a file").unwrap();
    let dangling = folder.path().join("dangling");
    std::os::unix::fs::symlink("/nonexistent/folder", &dangling).unwrap();
    for out in [folder.path().join("file/out"), folder.path().join("file"), dangling.join("out")] {
        let run = plain_search(&model(), &adapter("trained"), &data(), &out, &[]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{}", run.stderr);
        assert!(run.stderr.contains("--out"), "{}", run.stderr);
    }
    assert_eq!(names(folder.path()), ["dangling", "file"]);
}
