//! HTTP client for one hub: requests with the token, redirects, and downloads into the cache.
//!
//! The token belongs to the origin of the endpoint (scheme, host and port, RFC 6454). Redirects are followed here and
//! not by the HTTP crate, so that the token is sent to that origin only. After a redirect to another origin, such as a
//! CDN's, no later request of the chain carries the token, not even one back to the hub.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, thread};

use indicatif::ProgressBar;
use serde_json::Value;
use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, LOCATION, RANGE};
use ureq::http::{HeaderMap, Response, StatusCode, Uri};
use ureq::{Agent, Body};

use crate::progress::say;

/// Maximum number of redirects of one request.
const MAX_REDIRECTS: usize = 10;
/// Maximum size of the list of files, in bytes.
const MAX_LIST_BYTES: u64 = 16 << 20;
/// Number of retries of a failed download, and the delay before the first one; it doubles each time.
const RETRIES: u32 = 3;
const RETRY_DELAY: Duration = Duration::from_millis(300);
/// Timeout for a connection, and for each read.
const TIMEOUT: Duration = Duration::from_secs(60);

const COMMIT: &str = "X-Repo-Commit";
/// The hash of a file that is stored elsewhere, where it has another `ETag`.
const LINKED_ETAG: &str = "X-Linked-Etag";

/// Why a request failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The server answered with this status.
    Status(u16),
    /// Access is refused (401 or 403) after a redirect to another origin, where no token is sent.
    Elsewhere {
        /// The HTTP status.
        status: u16,
        /// The first origin other than the endpoint's.
        origin: String,
    },
    /// Any other reason, as text.
    Other(String),
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.to_string())
    }
}

type Result<T, E = Failure> = std::result::Result<T, E>;

/// An HTTP client for a hub's endpoint, with its token.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// The metadata of a file on the hub.
#[derive(Debug)]
pub(super) struct Metadata {
    /// The name of the file's content in the cache.
    pub(super) etag: String,
    /// The commit of the requested revision.
    pub(super) commit: String,
    /// The file's size, in bytes.
    pub(super) size: u64,
}

/// The response at the end of a chain of redirects.
struct Answer {
    response: Response<Body>,
    /// Headers of the last response from the endpoint's own origin.
    own: HeaderMap,
    /// The first other origin in the chain.
    left: Option<Origin>,
}

impl Client {
    /// A client for an endpoint. It does not connect yet.
    pub(super) fn new(endpoint: String, token: Option<String>) -> Self {
        let config = Agent::config_builder()
            .user_agent(concat!("plimsoll/", env!("CARGO_PKG_VERSION")))
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_connect(Some(TIMEOUT))
            .timeout_per_read(Some(TIMEOUT));
        Self { agent: config.build().into(), endpoint, token }
    }

    /// The hub's endpoint, such as `https://huggingface.co`.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Whether there is a token.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// The names of a repository's files.
    pub(super) fn files(&self, repository: &str, revision: &str) -> Result<Vec<String>> {
        let revision = revision.replace('/', "%2F");
        let url = format!("{}/api/models/{repository}/revision/{revision}", self.endpoint);
        let mut body = self.get(&url, None)?.response.into_body();
        let body = body.with_config().limit(MAX_LIST_BYTES).read_to_vec()?;
        let list: Value = serde_json::from_slice(&body)?;
        let siblings = list["siblings"].as_array();
        let siblings = siblings.ok_or_else(|| Failure::Other(format!("{url} has no list of files (siblings)")))?;
        Ok(siblings.iter().filter_map(|file| file["rfilename"].as_str().map(str::to_owned)).collect())
    }

    /// The URL of a file.
    pub(super) fn url(&self, repository: &str, revision: &str, name: &str) -> String {
        format!("{}/{repository}/resolve/{}/{name}", self.endpoint, revision.replace('/', "%2F"))
    }

    /// Requests the first byte of a file, and reads the metadata from the headers.
    pub(super) fn metadata(&self, url: &str) -> Result<Metadata> {
        let Answer { response, own, left } = self.get(url, Some("bytes=0-0"))?;
        let header = |name: &str| own.get(name).and_then(|value| value.to_str().ok());
        let missing = |name: &str| Failure::Other(format!("the response of {url} has no header {name}"));
        let missing_own = |name: &str| match &left {
            None => missing(name),
            Some(origin) => Failure::Other(format!(
                "{url} redirects to {origin} without the header {name}: if {origin} is the hub, set HF_ENDPOINT to it"
            )),
        };
        let etag = header(LINKED_ETAG).or_else(|| header(ETAG.as_str())).ok_or_else(|| missing_own(ETAG.as_str()))?;
        let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
        let commit = header(COMMIT).ok_or_else(|| missing_own(COMMIT))?.to_owned();
        // A server without support for ranges sends the whole file.
        let headers = response.headers();
        let size = headers.get(CONTENT_RANGE).or_else(|| headers.get(CONTENT_LENGTH));
        let size = size.and_then(|size| size.to_str().ok()?.rsplit('/').next()?.parse().ok());
        Ok(Metadata { etag, commit, size: size.ok_or_else(|| missing(CONTENT_RANGE.as_str()))? })
    }

    /// Downloads a file of `size` bytes to `blob`. Continues an interrupted download from its `.part` file.
    pub(super) fn download(&self, url: &str, size: u64, blob: &Path, bar: &ProgressBar) -> Result<()> {
        if let Some(folder) = blob.parent() {
            fs::create_dir_all(folder)?;
        }
        // Held until the end of this function.
        let _lock = lock(&with_suffix(blob, ".lock"))?;
        if fs::metadata(blob).is_ok_and(|found| found.len() == size) {
            return Ok(());
        }
        let part = with_suffix(blob, ".part");
        let mut file = OpenOptions::new().append(true).create(true).open(&part)?;
        if file.metadata()?.len() > size {
            file.set_len(0)?;
        }
        bar.set_length(size);
        let mut failed = 0;
        while let Err(failure) = self.append(url, size, &mut file, bar) {
            if matches!(failure, Failure::Status(400..=499) | Failure::Elsewhere { .. }) || failed == RETRIES {
                return Err(failure);
            }
            thread::sleep(RETRY_DELAY * 2_u32.pow(failed));
            failed += 1;
        }
        Ok(fs::rename(&part, blob)?)
    }

    /// Downloads the missing end of a file of `size` bytes, and appends it.
    fn append(&self, url: &str, size: u64, file: &mut File, bar: &ProgressBar) -> Result<()> {
        let found = file.metadata()?.len();
        if found == size {
            return Ok(());
        }
        let response = self.get(url, Some(&format!("bytes={found}-")))?.response;
        let found = if response.status() == StatusCode::PARTIAL_CONTENT { found } else { 0 };
        file.set_len(found)?;
        bar.set_position(found);
        let body = response.into_body().into_reader().take(size - found);
        let found = found + io::copy(&mut bar.wrap_read(body), file)?;
        if found == size { Ok(()) } else { Err(Failure::Other(format!("received {found} of {size} bytes: try again"))) }
    }

    /// Sends a request, and follows redirects.
    fn get(&self, url: &str, range: Option<&str>) -> Result<Answer> {
        let mut uri: Uri = url.parse()?;
        let home = Origin::of(&uri);
        let mut own = HeaderMap::new();
        let mut left = None;
        for _ in 0..=MAX_REDIRECTS {
            left = left.or_else(|| Origin::of(&uri).filter(|origin| home.as_ref() != Some(origin)));
            let is_home = left.is_none();
            let mut request = self.agent.get(&uri);
            if let Some(range) = range {
                request = request.header(RANGE, range);
            }
            if let Some(token) = self.token.as_ref().filter(|_| is_home) {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            let response = request.call()?;
            if is_home {
                own.clone_from(response.headers());
            }
            match response.status().as_u16() {
                200..=299 => return Ok(Answer { response, own, left }),
                301 | 302 | 303 | 307 | 308 => {
                    let next = redirect(&uri, response.headers());
                    uri = next.map_err(|what| Failure::Other(format!("the response of {url} is {what}")))?;
                }
                status => {
                    let left = left.filter(|_| matches!(status, 401 | 403));
                    let elsewhere = |origin: Origin| Failure::Elsewhere { status, origin: origin.to_string() };
                    return Err(left.map_or(Failure::Status(status), elsewhere));
                }
            }
        }
        Err(Failure::Other(format!("{url} leads to more than {MAX_REDIRECTS} redirects")))
    }
}

/// A path with a suffix.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Locks a file. Waits while another process has the lock, which is then downloading the same file.
fn lock(path: &Path) -> io::Result<File> {
    let file = File::create(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            say("plimsoll: another process is downloading the same file: waiting for it");
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    Ok(file)
}

/// An origin: scheme, host and port.
#[derive(Debug, PartialEq, Eq)]
struct Origin(String, String, u16);

impl Origin {
    /// The origin of an HTTP URL; `None` for any other.
    fn of(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let port = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        Some(Self(scheme, uri.host()?.to_ascii_lowercase(), uri.port_u16().unwrap_or(port)))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(scheme, host, port) = self;
        match (scheme.as_str(), port) {
            ("http", 80) | ("https", 443) => write!(f, "{scheme}://{host}"),
            _ => write!(f, "{scheme}://{host}:{port}"),
        }
    }
}

/// The target of a redirect, which may be relative to the request's URL (RFC 3986, section 5.2).
fn redirect(from: &Uri, headers: &HeaderMap) -> Result<Uri, &'static str> {
    let location = headers.get(LOCATION).and_then(|location| location.to_str().ok());
    let location = location.ok_or("a redirect without a Location")?;
    let scheme = from.scheme_str().unwrap_or("http");
    let authority = from.authority().map_or("", |authority| authority.as_str());
    let is_scheme = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    let text = if location.split_once("://").is_some_and(|(scheme, _)| is_scheme(scheme)) {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let (path, query) = location.find('?').map_or((location, ""), |at| location.split_at(at));
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        let path = if path.is_empty() { from.path().to_owned() } else { without_dots(&format!("{folder}/{path}")) };
        format!("{scheme}://{authority}{path}{query}")
    };
    let uri = text.parse().ok().filter(|uri| Origin::of(uri).is_some());
    uri.ok_or("a redirect to no HTTP address")
}

/// An absolute path without its segments `.` and `..`.
fn without_dots(path: &str) -> String {
    let mut kept = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin = |text: &str| Origin::of(&text.parse().unwrap());
        let hub = origin("https://huggingface.co/a/b");
        assert!(hub.is_some());
        for same in ["https://huggingface.co", "https://HuggingFace.co:443/x?y=z", "HTTPS://huggingface.co/"] {
            assert_eq!(origin(same), hub, "{same}");
        }
        for other in [
            "http://huggingface.co/a/b",
            "http://huggingface.co:443/a/b",
            "https://huggingface.co:8443/a/b",
            "https://huggingface.co.evil.example/a/b",
            "https://cdn.huggingface.co/a/b",
            "https://huggingface.co@evil.example/a/b",
            "https://huggingface.co:443@evil.example/a/b",
        ] {
            let found = origin(other);
            assert!(found.is_some() && found != hub, "{other}: {found:?}");
        }
        let text = |text: &str| origin(text).unwrap().to_string();
        assert_eq!(text("https://user:secret@HuggingFace.co:443/a?b"), "https://huggingface.co");
        assert_eq!(text("http://huggingface.co:443/"), "http://huggingface.co:443");
        assert_eq!(origin("ftp://huggingface.co/"), None);
        assert_eq!(origin("/a/b"), None);
    }

    #[test]
    fn locations_are_relative_to_where_they_come_from() {
        let from: Uri = "https://hub.example:8443/a/b?c=d".parse().unwrap();
        let read = |location: &str| {
            let headers = HeaderMap::from_iter([(LOCATION, location.parse().unwrap())]);
            redirect(&from, &headers).map(|uri| uri.to_string())
        };
        for (location, expected) in [
            ("http://other.example/x?y=z", "http://other.example/x?y=z"),
            ("//other.example/x", "https://other.example/x"),
            ("/x?y=http://other.example/", "https://hub.example:8443/x?y=http://other.example/"),
            ("x/y?z", "https://hub.example:8443/a/x/y?z"),
            ("../../.././x/./y?z=../w", "https://hub.example:8443/x/y?z=../w"),
            ("?z", "https://hub.example:8443/a/b?z"),
            // None of these is another host.
            ("/@other.example/x", "https://hub.example:8443/@other.example/x"),
            ("@other.example", "https://hub.example:8443/a/@other.example"),
        ] {
            assert_eq!(read(location), Ok(expected.to_owned()), "{location}");
        }
        for wrong in ["ftp://hub.example/x", "https://", "javascript://x", "http://hub example/", "file:///x"] {
            assert_eq!(read(wrong), Err("a redirect to no HTTP address"), "{wrong}");
        }
    }
}
