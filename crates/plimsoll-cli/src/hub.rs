//! Models and adapters by the id of a repository: the Hugging Face Hub's cache first, then the Hub.
//!
//! `OWNER/NAME`, with `@REVISION` for another branch, tag or commit than `main`, and with `:FILE` for one GGUF file of
//! several. What lies in the cache complete is used without a word to anybody; what is missing is downloaded into it, in
//! the layout that Hugging Face's own libraries share, and an interrupted download goes on where it stopped. The library
//! knows nothing of this: it is handed a path.
//!
//! Environment, as `huggingface_hub` reads it: `HF_HUB_CACHE`, `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN` (or the file that
//! `hf auth login` writes), `HF_HUB_OFFLINE`.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use anyhow::Result;
use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use indicatif::ProgressBar;
use plimsoll::Error;

use crate::progress;

/// A repository with more files than this is refused: models have some dozens.
const MAX_FILES: usize = 10_000;
/// The largest index of weight files that is read, in bytes; those of the largest models have some hundred KiB.
const MAX_INDEX_BYTES: u64 = 16 << 20;
/// How often a broken connection is taken up again.
const RETRIES: usize = 3;

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const TOKENIZER: &str = "tokenizer.json";
/// Files that a model may have beside these.
const EXTRAS: &[&str] = &["tokenizer_config.json", "chat_template.jinja", "generation_config.json"];
const ADAPTER_CONFIG: &str = "adapter_config.json";
/// Of which an adapter has one.
const ADAPTER_WEIGHTS: &[&str] = &["adapter_model.safetensors", "adapters.safetensors"];

/// What a repository is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Adapter,
}

/// The folder or file of a base model: the argument itself where such a path exists, or where it is no id.
///
/// # Errors
/// A repository that is not there, not complete, or cannot be reached.
pub(crate) fn model(argument: &Path, quiet: bool) -> Result<PathBuf> {
    resolve(argument, Kind::Model, quiet)
}

/// The same for an adapter.
///
/// # Errors
/// As [`model`].
pub(crate) fn adapter(argument: &Path, quiet: bool) -> Result<PathBuf> {
    resolve(argument, Kind::Adapter, quiet)
}

fn resolve(argument: &Path, kind: Kind, quiet: bool) -> Result<PathBuf> {
    let id = argument.to_str().filter(|_| !argument.exists()).and_then(Id::parse);
    let Some(id) = id else { return Ok(argument.to_owned()) };
    let refuse = |reason: String| Error::Input { path: argument.to_owned(), problem: io::Error::other(reason).into() };
    let cache = Cache::new(cache_folder());
    if let Some(path) = cached(&cache, &id, kind) {
        return Ok(path);
    }
    if is_set("HF_HUB_OFFLINE") {
        let place = cache.path().display().to_string();
        return Err(refuse(format!(
            "no such path, and not complete in the cache ({place}); HF_HUB_OFFLINE is set: unset it to download"
        ))
        .into());
    }
    download(cache, &id, kind, quiet).map_err(|reason| refuse(reason).into())
}

/// An id, taken apart.
#[derive(Debug, PartialEq)]
struct Id {
    repository: String,
    revision: String,
    file: Option<String>,
}

impl Id {
    fn parse(text: &str) -> Option<Self> {
        let (text, file) = match text.split_once(':') {
            Some((text, file)) => (text, Some(file.to_owned())),
            None => (text, None),
        };
        let (repository, revision) = text.split_once('@').unwrap_or((text, "main"));
        let is_name = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        let (owner, name) = repository.split_once('/')?;
        let is_good = is_name(owner)
            && is_name(name)
            && !revision.is_empty()
            && is_inside(revision)
            && file.as_deref().is_none_or(is_inside);
        is_good.then(|| Self { repository: repository.to_owned(), revision: revision.to_owned(), file })
    }

    fn repo(&self) -> Repo {
        Repo::with_revision(self.repository.clone(), RepoType::Model, self.revision.clone())
    }
}

/// Whether a name of a stranger's stays inside of the folder that it is joined to.
fn is_inside(name: &str) -> bool {
    let is_plain = |c: char| !c.is_control() && !matches!(c, '\\' | '?' | '#' | '%');
    !name.is_empty()
        && name.chars().all(is_plain)
        && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Where Hugging Face's libraries keep what they download.
fn cache_folder() -> PathBuf {
    set("HF_HUB_CACHE").map_or_else(|| home().join("hub"), PathBuf::from)
}

fn home() -> PathBuf {
    match set("HF_HOME") {
        Some(home) => home.into(),
        None => {
            let user = set("HOME").or_else(|| set("USERPROFILE")).unwrap_or_default();
            Path::new(&user).join(".cache/huggingface")
        }
    }
}

fn token() -> Option<String> {
    let text = set("HF_TOKEN").or_else(|| fs::read_to_string(home().join("token")).ok())?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn is_set(name: &str) -> bool {
    set(name).is_some_and(|value| matches!(value.to_ascii_uppercase().as_str(), "1" | "TRUE" | "YES" | "ON"))
}

/// What the cache has of it, where that is all that is needed.
fn cached(cache: &Cache, id: &Id, kind: Kind) -> Option<PathBuf> {
    let folder = cache.path().join(id.repo().folder_name());
    let commit = fs::read_to_string(folder.join("refs").join(&id.revision));
    // A commit has no name under refs.
    let commit = commit.map_or_else(|_| id.revision.clone(), |commit| commit.trim().to_owned());
    if !is_inside(&commit) {
        return None;
    }
    let snapshot = folder.join("snapshots").join(commit);
    if let Some(file) = &id.file {
        return Some(snapshot.join(file)).filter(|path| path.exists());
    }
    let has = |name: &str| snapshot.join(name).exists();
    let is_complete = match kind {
        Kind::Adapter => has(ADAPTER_CONFIG) && ADAPTER_WEIGHTS.iter().any(|name| has(name)),
        Kind::Model if has(CONFIG) => {
            let shards = if has(INDEX) { shards(&snapshot.join(INDEX)).ok()? } else { vec![WEIGHTS.to_owned()] };
            has(TOKENIZER) && shards.iter().all(|name| has(name))
        }
        Kind::Model => {
            let files = fs::read_dir(&snapshot).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
            let mut files = files.filter(|path| path.extension().is_some_and(|extension| extension == "gguf"));
            return files.next().filter(|_| files.next().is_none());
        }
    };
    is_complete.then_some(snapshot)
}

/// The files that an index of weights names.
fn shards(index: &Path) -> Result<Vec<String>, String> {
    let size = fs::metadata(index).map_err(|error| error.to_string())?.len();
    if size > MAX_INDEX_BYTES {
        return Err(format!("{INDEX} has {size} bytes: at most {MAX_INDEX_BYTES} are read"));
    }
    let text = fs::read_to_string(index).map_err(|error| error.to_string())?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| format!("{INDEX}: {error}"))?;
    let names = json["weight_map"].as_object().into_iter().flatten().filter_map(|(_, name)| name.as_str());
    let names: BTreeSet<String> = names.map(str::to_owned).collect();
    if names.len() > MAX_FILES || names.is_empty() || !names.iter().all(|name| is_inside(name)) {
        return Err(format!("{INDEX} does not name files of the repository"));
    }
    Ok(names.into_iter().collect())
}

/// Downloads what is missing; the reason is worded to follow the id.
fn download(cache: Cache, id: &Id, kind: Kind, quiet: bool) -> Result<PathBuf, String> {
    let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
    let endpoint = endpoint.trim_end_matches('/').to_owned();
    let hub = ApiBuilder::from_cache(cache.clone())
        .with_endpoint(endpoint.clone())
        .with_token(token())
        .with_retries(RETRIES)
        .with_user_agent("plimsoll", env!("CARGO_PKG_VERSION"))
        .build()
        .map_err(|error| error.to_string())?;
    let repository = hub.repo(id.repo());
    let fetching = Fetching { hub, repository, cache, id, endpoint, quiet };

    let opening = progress::spinner(format!("asking {} for {}", fetching.endpoint, id.repository), quiet);
    let info = fetching.repository.info().map_err(|error| fetching.reason(&error));
    opening.finish_and_clear();
    let files: BTreeSet<String> = info?.siblings.into_iter().map(|file| file.rfilename).collect();
    if files.len() > MAX_FILES {
        return Err(format!("has {} files: at most {MAX_FILES} are read", files.len()));
    }
    let has = |name: &str| files.contains(name);
    let missing = |name: &str| format!("{name} is not in the repository{}", meant(&files));

    if let Some(file) = &id.file {
        return if has(file) { fetching.get(file) } else { Err(missing(file)) };
    }
    if kind == Kind::Adapter {
        let weights = ADAPTER_WEIGHTS.iter().find(|name| has(name)).ok_or_else(|| missing(ADAPTER_WEIGHTS[0]))?;
        let config =
            if has(ADAPTER_CONFIG) { fetching.get(ADAPTER_CONFIG)? } else { return Err(missing(ADAPTER_CONFIG)) };
        fetching.get(weights)?;
        return folder_of(&config);
    }
    let ggufs: Vec<&String> = files.iter().filter(|name| name.ends_with(".gguf")).collect();
    if !has(CONFIG) || (!has(WEIGHTS) && !has(INDEX)) {
        return match ggufs.as_slice() {
            [file] => fetching.get(file),
            _ => Err(missing(if has(CONFIG) { WEIGHTS } else { CONFIG })),
        };
    }
    if !has(TOKENIZER) {
        return Err(missing(TOKENIZER));
    }
    let config = fetching.get(CONFIG)?;
    let small = std::iter::once(&TOKENIZER).chain(EXTRAS).filter(|name| has(name));
    small.into_iter().try_for_each(|name| fetching.get(name).map(drop))?;
    let shards = if has(INDEX) { shards(&fetching.get(INDEX)?)? } else { vec![WEIGHTS.to_owned()] };
    shards.iter().try_for_each(|name| fetching.get(name).map(drop))?;
    folder_of(&config)
}

fn folder_of(file: &Path) -> Result<PathBuf, String> {
    file.parent().map(Path::to_owned).ok_or_else(|| "the cache has no folder for it".to_owned())
}

/// What in a repository may have been meant.
fn meant(files: &BTreeSet<String>) -> String {
    let ggufs: Vec<&str> = files.iter().map(String::as_str).filter(|name| name.ends_with(".gguf")).collect();
    if ggufs.is_empty() {
        return String::new();
    }
    let some: Vec<&str> = ggufs.iter().take(5).copied().collect();
    let more = if ggufs.len() > some.len() { ", …" } else { "" };
    format!("; it has GGUF files: add one to the id, as OWNER/NAME:{} ({}{more})", some[0], some.join(", "))
}

/// A repository, and how its files are fetched.
struct Fetching<'a> {
    hub: Api,
    repository: ApiRepo,
    cache: Cache,
    id: &'a Id,
    endpoint: String,
    quiet: bool,
}

impl Fetching<'_> {
    /// A file's path in the cache, once it is there.
    fn get(&self, name: &str) -> Result<PathBuf, String> {
        if !is_inside(name) {
            return Err("names a file outside of itself".to_owned());
        }
        if let Some(path) = self.cache.repo(self.id.repo()).get(name) {
            return Ok(path);
        }
        let told = |error: &ApiError| format!("{name}: {}", self.reason(error));
        // What names files in the cache is a stranger's word, too.
        let metadata = self.hub.metadata(&self.repository.url(name)).map_err(|error| told(&error))?;
        if [metadata.etag(), metadata.commit_hash()].iter().any(|text| !is_inside(text) || text.contains('/')) {
            return Err(format!("{name}: {} answers with names that are none", self.endpoint));
        }
        let bar = progress::download(name, self.quiet);
        let path = self.repository.download_with_progress(name, Bar(bar.clone()));
        bar.finish_and_clear();
        let path = path.map_err(|error| told(&error))?;
        let found = fs::metadata(&path).map_err(|error| error.to_string())?.len();
        if found == metadata.size() as u64 {
            return Ok(path);
        }
        // Not to be taken for whole the next time.
        let _ = fs::remove_file(&path);
        Err(format!("{name}: {found} bytes came of {}: try again", metadata.size()))
    }

    /// What went wrong, and what to do.
    fn reason(&self, error: &ApiError) -> String {
        let endpoint = &self.endpoint;
        let text = innermost(error).to_string();
        let status = ["401", "403", "404"].into_iter().find(|status| text.contains(&format!("http status: {status}")));
        match status {
            Some("404") => format!("no such path, and no such repository, revision or file at {endpoint}"),
            Some(status) => format!(
                "{endpoint} refuses access ({status}): accept the model's terms there, and set HF_TOKEN to a token that may read \
                 it"
            ),
            None => format!("no such path, and downloading it from {endpoint} failed: {text}"),
        }
    }
}

fn innermost(error: &ApiError) -> &ApiError {
    match error {
        ApiError::TooManyRetries(inner) => innermost(inner),
        other => other,
    }
}

/// A bar that counts bytes.
struct Bar(ProgressBar);

impl Progress for Bar {
    fn init(&mut self, size: usize, _: &str) {
        self.0.set_length(size as u64);
        self.0.set_position(0);
    }

    fn update(&mut self, size: usize) {
        self.0.inc(size as u64);
    }

    fn finish(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_taken_apart_and_paths_are_left_alone() {
        let id = |repository: &str, revision: &str, file: Option<&str>| {
            let file = file.map(str::to_owned);
            Some(Id { repository: repository.into(), revision: revision.into(), file })
        };
        assert_eq!(Id::parse("a/b"), id("a/b", "main", None));
        assert_eq!(Id::parse("a/b-1.5@v2"), id("a/b-1.5", "v2", None));
        assert_eq!(Id::parse("a/b@v2:sub/x.gguf"), id("a/b", "v2", Some("sub/x.gguf")));
        for path in
            ["model.gguf", "./a/b", "/a/b", "a/b/c", "../b", "a/../b", "a/b@", "a/b:", "a/b:../x", "a/b:/x", "a/b@../x"]
        {
            assert_eq!(Id::parse(path), None, "{path}");
        }
    }

    #[test]
    fn names_that_lead_outside_are_known() {
        for name in ["", "../x", "a/../../x", "/x", "a\\b", "a\nb", "a?b"] {
            assert!(!is_inside(name), "{name:?}");
        }
        assert!(is_inside("sub/model-00001-of-00002.safetensors"));
    }
}
