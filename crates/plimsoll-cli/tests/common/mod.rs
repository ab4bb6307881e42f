//! Helpers of the CLI tests: the golden fixtures, and runs of the built binary.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;

/// The fixtures that `reference/make_fixtures.py` writes.
pub(crate) fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plimsoll/tests/fixtures/golden").canonicalize().unwrap()
}

pub(crate) fn model() -> PathBuf {
    golden().join("tiny-gqa-tied")
}

pub(crate) fn adapter(name: &str) -> PathBuf {
    model().join("adapters").join(name)
}

pub(crate) fn data() -> PathBuf {
    golden().join("data/valid.jsonl")
}

/// The result that the library's tests render.
pub(crate) fn result() -> PathBuf {
    golden().join("../result.json").canonicalize().unwrap()
}

/// The built program, in an environment that does not change its output.
pub(crate) fn plimsoll() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
    for variable in ["COLUMNS", "CLICOLOR_FORCE", "NO_COLOR", "TERM"] {
        command.env_remove(variable);
    }
    // No network either.
    for variable in ["HF_HOME", "HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]
    {
        command.env_remove(variable);
        command.env_remove(variable.to_lowercase());
    }
    command.env("HF_ENDPOINT", "http://127.0.0.1:9");
    command
}

/// Exit code and output of one run of the program.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn run<I: IntoIterator<Item: AsRef<OsStr>>>(arguments: I) -> Run {
    let output = plimsoll().args(arguments).output().unwrap();
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// `plimsoll search` on the four paths, with further arguments.
pub(crate) fn search(model: &Path, adapter: &Path, data: &Path, out: &Path, more: &[&str]) -> Run {
    run(search_arguments(model, adapter, data, out).iter().map(AsRef::as_ref).chain(more.iter().map(OsStr::new)))
}

/// `plimsoll search` of boundaries without controls and other strengths, with a third held out by default.
pub(crate) fn plain_search(model: &Path, adapter: &Path, data: &Path, out: &Path, more: &[&str]) -> Run {
    let mut plain = vec!["--no-controls", "--no-strength"];
    if !more.contains(&"--holdout") {
        plain.extend(["--holdout", "0.33"]);
    }
    search(model, adapter, data, out, &[&plain, more].concat())
}

pub(crate) fn search_arguments(model: &Path, adapter: &Path, data: &Path, out: &Path) -> Vec<PathBuf> {
    let flags = [("--model", model), ("--adapter", adapter), ("--data", data), ("--out", out)];
    let flags = flags.into_iter().flat_map(|(flag, path)| [PathBuf::from(flag), path.to_owned()]);
    [PathBuf::from("search")].into_iter().chain(flags).collect()
}

pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

pub(crate) fn json_lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The names in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The bytes of every file in a folder and its subfolders.
pub(crate) fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for name in names(folder) {
        let path = folder.join(name);
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

/// Copies the files of a folder, without its subfolders.
pub(crate) fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in names(from) {
        if from.join(&name).is_file() {
            fs::copy(from.join(&name), to.join(&name)).unwrap();
        }
    }
}
