//! Models and adapters by repository id, from the Hugging Face Hub or its local cache.
//!
//! An id is `OWNER/NAME`, with `@REVISION` for another branch, tag or commit than `main`, and with `:FILE` for one of
//! several GGUF files. A complete copy in the cache is used without a request. Missing files are downloaded into the
//! cache, in the layout that Hugging Face's libraries share, and an interrupted download is continued. The library does
//! not know repositories: it gets a path.
//!
//! Environment variables, with the meaning that they have for `huggingface_hub`: `HF_HUB_CACHE`, `HF_HOME`,
//! `HF_ENDPOINT`, `HF_TOKEN` (or the file that `hf auth login` writes), `HF_HUB_OFFLINE`.

mod client;

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::{env, fs, io};

use anyhow::Result;
use plimsoll::Error;
use plimsoll::formats::files;

use self::client::{Client, Failure};
use crate::progress;

/// Maximum number of files of a repository; models have a few dozen.
const MAX_FILES: usize = 10_000;
/// Maximum size of an index of weight files, in bytes; those of the largest models have some hundred KiB.
const MAX_INDEX_BYTES: u64 = 16 << 20;

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const TOKENIZER: &str = "tokenizer.json";
/// Optional files of a model.
const EXTRAS: &[&str] = &["tokenizer_config.json", "chat_template.jinja", "generation_config.json"];
const ADAPTER_CONFIG: &str = "adapter_config.json";
/// The weights of an adapter: one of these.
const ADAPTER_WEIGHTS: &[&str] = &["adapter_model.safetensors", "adapters.safetensors"];

/// What a repository contains.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Adapter,
}

/// The path of a base model. Downloads a repository; an existing path, or an argument that is no id, is returned as it
/// is.
///
/// # Errors
/// A repository that does not exist, is incomplete, or cannot be reached.
pub(crate) fn model(argument: &Path, quiet: bool) -> Result<PathBuf> {
    resolve(argument, Kind::Model, quiet)
}

/// The path of an adapter, as [`model`] finds that of a base model.
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
    let folder = cache_folder().join(format!("models--{}", id.repository.replace('/', "--")));
    if let Some(path) = cached(&folder, &id, kind) {
        return Ok(path);
    }
    if is_set("HF_HUB_OFFLINE") {
        let place = cache_folder().display().to_string();
        return Err(refuse(format!(
            "no such path, and not complete in the cache ({place}); HF_HUB_OFFLINE is set: unset it to download"
        ))
        .into());
    }
    download(folder, &id, kind, quiet).map_err(|reason| refuse(reason).into())
}

/// A parsed repository id.
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
        let is_valid = is_name(owner)
            && is_name(name)
            && !revision.is_empty()
            && is_inside(revision)
            && file.as_deref().is_none_or(is_inside);
        is_valid.then(|| Self { repository: repository.to_owned(), revision: revision.to_owned(), file })
    }
}

/// Whether an untrusted name stays inside the folder that it is joined to.
fn is_inside(name: &str) -> bool {
    let is_plain = |c: char| !c.is_control() && !matches!(c, '\\' | '?' | '#' | '%');
    !name.is_empty()
        && name.chars().all(is_plain)
        && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

/// The cache folder of Hugging Face's libraries.
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

/// The value of an environment variable, if it is not empty.
fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether an environment variable is true.
fn is_set(name: &str) -> bool {
    set(name).is_some_and(|value| matches!(value.to_ascii_uppercase().as_str(), "1" | "TRUE" | "YES" | "ON"))
}

/// The folder of a revision's files in the cache.
fn snapshot(folder: &Path, id: &Id) -> Option<PathBuf> {
    let commit = fs::read_to_string(folder.join("refs").join(&id.revision));
    // A commit has no file in refs.
    let commit = commit.map_or_else(|_| id.revision.clone(), |commit| commit.trim().to_owned());
    is_inside(&commit).then(|| folder.join("snapshots").join(commit))
}

/// The path in the cache, if everything that is needed is there.
fn cached(folder: &Path, id: &Id, kind: Kind) -> Option<PathBuf> {
    let snapshot = snapshot(folder, id)?;
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

/// The weight files that an index lists.
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

/// Downloads what is missing. Returns the path. The text of an error continues a message that starts with the id.
fn download(folder: PathBuf, id: &Id, kind: Kind, quiet: bool) -> Result<PathBuf, String> {
    let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
    let client = Client::new(endpoint.trim_end_matches('/').to_owned(), token());
    let fetching = Fetching { client, folder, id, quiet };

    let opening = progress::spinner(format!("querying {} for {}", fetching.client.endpoint(), id.repository), quiet);
    let files = fetching.client.files(&id.repository, &id.revision).map_err(|failure| fetching.reason(&failure));
    opening.finish_and_clear();
    let files: BTreeSet<String> = files?.into_iter().collect();
    if files.len() > MAX_FILES {
        return Err(format!("has {} files: at most {MAX_FILES} are read", files.len()));
    }
    let has = |name: &str| files.contains(name);
    let missing = |name: &str| format!("{name} is not in the repository{}", suggestion(&files));

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

/// A suggestion for the user: the GGUF files of a repository.
fn suggestion(files: &BTreeSet<String>) -> String {
    let ggufs: Vec<&str> = files.iter().map(String::as_str).filter(|name| name.ends_with(".gguf")).collect();
    if ggufs.is_empty() {
        return String::new();
    }
    let some: Vec<&str> = ggufs.iter().take(5).copied().collect();
    let more = if ggufs.len() > some.len() { ", …" } else { "" };
    format!("; it has GGUF files: add one to the id, as OWNER/NAME:{} ({}{more})", some[0], some.join(", "))
}

/// A repository whose files are downloaded.
struct Fetching<'a> {
    client: Client,
    /// The repository's folder in the cache.
    folder: PathBuf,
    id: &'a Id,
    quiet: bool,
}

impl Fetching<'_> {
    /// The path of a file in the cache; downloads it first if it is not there.
    fn get(&self, name: &str) -> Result<PathBuf, String> {
        if !is_inside(name) {
            return Err("names a file outside of itself".to_owned());
        }
        let path = snapshot(&self.folder, self.id).map(|snapshot| snapshot.join(name)).filter(|path| path.exists());
        if let Some(path) = path {
            return Ok(path);
        }
        let Self { client, folder, id, .. } = self;
        let reason = |failure: Failure| format!("{name}: {}", self.reason(&failure));
        let url = client.url(&id.repository, &id.revision, name);
        let metadata = client.metadata(&url).map_err(reason)?;
        // These become file names in the cache, and they are untrusted.
        if [&metadata.etag, &metadata.commit].iter().any(|text| !is_inside(text) || text.contains('/')) {
            return Err(format!("{name}: {} sent an ETag or a commit that is not a file name", client.endpoint()));
        }
        let blob = folder.join("blobs").join(&metadata.etag);
        let bar = progress::download(name, self.quiet);
        let downloaded = client.download(&url, metadata.size, &blob, &bar);
        bar.finish_and_clear();
        downloaded.map_err(reason)?;
        let path = folder.join("snapshots").join(&metadata.commit).join(name);
        let linked = link(&blob, &path, name).and_then(|()| self.refer(&metadata.commit));
        linked.map_err(|error| format!("{name}: {}: {error}", path.display()))?;
        Ok(path)
    }

    /// Writes the commit of the revision to `refs`, unless the revision is a commit.
    fn refer(&self, commit: &str) -> io::Result<()> {
        if self.id.revision == commit {
            return Ok(());
        }
        let path = self.folder.join("refs").join(&self.id.revision);
        files::write_file(&path, commit.as_bytes()).map_err(io::Error::other)
    }

    /// The text of a failure: what went wrong, and what to do.
    fn reason(&self, failure: &Failure) -> String {
        let endpoint = self.client.endpoint();
        match failure {
            Failure::Status(404) => format!("no such path, and no such repository, revision or file at {endpoint}"),
            Failure::Status(status @ (401 | 403)) => format!(
                "{endpoint} refuses access ({status}): accept the model's terms there, and set HF_TOKEN to a token \
                 that may read it"
            ),
            Failure::Elsewhere { status, origin } => {
                let token = if self.client.has_token() { "" } else { ", and HF_TOKEN to a token that may read it" };
                format!(
                    "{endpoint} redirects to {origin}, where access is refused ({status}): a token is sent to \
                     {endpoint} only; if {origin} is the hub, set HF_ENDPOINT to it{token}"
                )
            }
            Failure::Status(status) => {
                format!("no such path, and downloading it from {endpoint} failed: http status: {status}")
            }
            Failure::Other(text) => format!("no such path, and downloading it from {endpoint} failed: {text}"),
        }
    }
}

/// Links a file of a snapshot, which may have folders in its name, to its content. Moves the content if links are
/// refused.
fn link(blob: &Path, path: &Path, name: &str) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    // Removes a link whose content is gone.
    let _ = fs::remove_file(path);
    // Up from the folders in the name, the commit's folder and `snapshots`.
    let up = Path::new(name).components().map(|_| Component::ParentDir).chain([Component::ParentDir]);
    let content = Path::new("blobs").join(blob.file_name().unwrap_or_default());
    let target: PathBuf = up.chain(content.components()).collect();
    #[cfg(unix)]
    let linked = std::os::unix::fs::symlink(target, path);
    #[cfg(windows)]
    let linked = std::os::windows::fs::symlink_file(target, path);
    #[cfg(not(any(unix, windows)))]
    let linked: io::Result<()> = Err(io::ErrorKind::Unsupported.into());
    linked.or_else(|_| if path.exists() { Ok(()) } else { fs::rename(blob, path) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_parsed_and_paths_are_not() {
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
    fn names_that_lead_outside_are_rejected() {
        for name in ["", "../x", "a/../../x", "/x", "a\\b", "a\nb", "a?b"] {
            assert!(!is_inside(name), "{name:?}");
        }
        assert!(is_inside("sub/model-00001-of-00002.safetensors"));
    }
}
