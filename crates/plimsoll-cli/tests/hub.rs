//! Models and adapters by repository id, from a test hub on loopback.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use common::{Run, adapter, model, plimsoll};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Path prefixes under which a hub serves the same files.
const ELSEWHERE: [&str; 3] = ["/cdn", "/moved", "/back"];

/// The files and the behaviour of a test hub.
#[derive(Default)]
struct Content {
    /// By repository and then by name.
    files: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// The token that is required.
    token: Option<String>,
    /// Files whose first download stops in the middle.
    broken: Vec<String>,
    /// Redirects: the prefix of a path, and its replacement in the `Location`.
    redirects: Vec<(String, String)>,
    /// Requests in the order of their arrival.
    requests: Vec<Request>,
}

/// The parts of a request that the tests check.
#[derive(Debug, Default, PartialEq)]
struct Request {
    path: String,
    host: String,
    range: Option<String>,
    token: Option<String>,
}

/// A server with the part of the Hub's API that the program uses.
struct Hub {
    endpoint: String,
    content: Arc<Mutex<Content>>,
}

impl Hub {
    fn new(content: Content) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let content = Arc::new(Mutex::new(content));
        let served = Arc::clone(&content);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, served) = (stream.unwrap(), Arc::clone(&served));
                std::thread::spawn(move || {
                    let _ = answer(stream, &served);
                });
            }
        });
        Self { endpoint, content }
    }

    /// The tiny model and one of its adapters.
    fn with_model() -> Self {
        let read = |folder: &Path, names: &[&str]| {
            names.iter().map(|name| ((*name).to_owned(), fs::read(folder.join(name)).unwrap())).collect()
        };
        let names =
            ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
        let mut base: BTreeMap<String, Vec<u8>> = read(&model(), &names);
        // A file that is never requested.
        base.insert("pytorch_model.bin".into(), b"pickle".to_vec());
        let lora = read(&adapter("plain"), &["adapter_config.json", "adapter_model.safetensors"]);
        let files = BTreeMap::from([("tiny/base".to_owned(), base), ("tiny/lora".to_owned(), lora)]);
        Self::new(Content { files, ..Content::default() })
    }

    fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.content.lock().unwrap().requests)
    }

    fn change(&self, change: impl FnOnce(&mut Content)) {
        change(&mut self.content.lock().unwrap());
    }

    /// Runs the program with this hub, and with a cache in `home`.
    fn run(&self, home: &Path, arguments: &[&str], more: &[(&str, &str)]) -> Run {
        let mut command = plimsoll();
        command.env("HF_ENDPOINT", &self.endpoint).env("HF_HOME", home).envs(more.iter().copied()).args(arguments);
        let output = command.output().unwrap();
        Run {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn answer(mut stream: TcpStream, content: &Mutex<Content>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut request = Request { path, ..Request::default() };
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "host" => request.host = value.to_owned(),
                "range" => request.range = Some(value.to_owned()),
                "authorization" => request.token = Some(value.to_owned()),
                _ => {}
            }
        }
        let mut content = content.lock().unwrap();
        let is_known = content.token.as_ref().is_none_or(|wanted| request.token == Some(format!("Bearer {wanted}")));
        let (status, headers, body, whole) = if is_known {
            respond(&mut content, &request)
        } else {
            ("401 Unauthorized", String::new(), Vec::new(), true)
        };
        content.requests.push(request);
        drop(content);
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len())?;
        if !whole {
            stream.write_all(&body[..body.len() / 2])?;
            return stream.shutdown(std::net::Shutdown::Both);
        }
        stream.write_all(&body)?;
    }
}

/// The response: status, headers, body, and whether all of the body is sent.
fn respond(content: &mut Content, request: &Request) -> (&'static str, String, Vec<u8>, bool) {
    let nothing = ("404 Not Found", String::new(), Vec::new(), true);
    let redirect = |(from, to): &(String, String)| Some(to.clone() + request.path.strip_prefix(from.as_str())?);
    if let Some(location) = content.redirects.iter().find_map(redirect) {
        let location = if location.is_empty() { location } else { format!("Location: {location}\r\n") };
        // As the Hub does for a file in another storage. The hash depends on the file's name, which no redirect
        // changes.
        let name = request.path.rsplit('/').next().unwrap_or_default();
        let linked = format!("X-Linked-Etag: \"{name}\"\r\nX-Repo-Commit: {COMMIT}\r\n");
        return ("302 Found", location + &linked, Vec::new(), true);
    }
    let path = ELSEWHERE.iter().find_map(|prefix| request.path.strip_prefix(prefix)).unwrap_or(&request.path);
    if let Some(rest) = path.strip_prefix("/api/models/") {
        let Some((repository, _)) = rest.split_once("/revision/") else { return nothing };
        let Some(files) = content.files.get(repository) else { return nothing };
        let siblings: Vec<_> = files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
        let body = serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string();
        return ("200 OK", "Content-Type: application/json\r\n".into(), body.into_bytes(), true);
    }
    let Some((repository, rest)) = path[1..].split_once("/resolve/") else { return nothing };
    let Some((_, name)) = rest.split_once('/') else { return nothing };
    let Some(bytes) = content.files.get(repository).and_then(|files| files.get(name)) else { return nothing };
    let range = request.range.as_ref().and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let Some((from, to)) = range else { return nothing };
    let from: usize = from.parse().unwrap();
    let end = to.parse().map_or(bytes.len(), |to: usize| (to + 1).min(bytes.len()));
    let etag = if name == "escape.gguf" { "../../x".into() } else { format!("{:x}", bytes.len() * 31 + name.len()) };
    let headers = format!(
        "ETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\nContent-Range: bytes {from}-{}/{}\r\n",
        end.saturating_sub(1),
        bytes.len()
    );
    let body = bytes[from.min(end)..end].to_vec();
    let breaks = to.is_empty() && content.broken.iter().any(|broken| broken == name);
    content.broken.retain(|broken| !(breaks && broken == name));
    ("206 Partial Content", headers, body, !breaks)
}

fn snapshot(home: &Path, repository: &str) -> PathBuf {
    home.join("hub").join(format!("models--{}", repository.replace('/', "--"))).join("snapshots").join(COMMIT)
}

const GENERATE: [&str; 9] = [
    "generate",
    "--model",
    "tiny/base",
    "--adapter",
    "tiny/lora",
    "--max-tokens",
    "4",
    "--format=json",
    "Name a sail.",
];

#[test]
fn what_is_needed_is_downloaded_once() {
    let (hub, home) = (Hub::with_model(), tempfile::tempdir().unwrap());
    let first = hub.run(home.path(), &GENERATE, &[]);
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    assert!(first.stderr.contains("downloading model.safetensors"), "{}", first.stderr);
    let names = common::names(&snapshot(home.path(), "tiny/base"));
    assert!(!names.iter().any(|name| name.ends_with(".bin")), "{names:?}");
    assert_eq!(
        fs::read(snapshot(home.path(), "tiny/base").join("model.safetensors")).unwrap(),
        fs::read(model().join("model.safetensors")).unwrap()
    );
    assert!(!hub.requests().is_empty());

    // A complete cache is used without a request.
    let again = hub.run(home.path(), &GENERATE, &[]);
    assert_eq!((again.code, &again.stdout), (Some(0), &first.stdout), "{}", again.stderr);
    assert_eq!(hub.requests(), []);
    let offline = hub.run(home.path(), &GENERATE, &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!((offline.code, &offline.stdout), (Some(0), &first.stdout));

    // Local folders give the same output.
    let (base, lora) = (model(), adapter("plain"));
    let mut local = GENERATE;
    (local[2], local[4]) = (base.to_str().unwrap(), lora.to_str().unwrap());
    assert_eq!(common::run(local).stdout, first.stdout);

    // A file that is missing in a snapshot is downloaded.
    fs::remove_file(snapshot(home.path(), "tiny/base").join("model.safetensors")).unwrap();
    let completed = hub.run(home.path(), &GENERATE, &[]);
    assert_eq!((completed.code, &completed.stdout), (Some(0), &first.stdout), "{}", completed.stderr);
    assert!(hub.requests().iter().all(|request| !request.path.ends_with("config.json")));
}

#[test]
fn an_incomplete_download_is_continued() {
    let (hub, home) = (Hub::with_model(), tempfile::tempdir().unwrap());
    hub.change(|content| content.broken = vec!["adapter_model.safetensors".into()]);
    let run = hub.run(home.path(), &["inspect", "--adapter", "tiny/lora@main"], &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let size = fs::metadata(adapter("plain").join("adapter_model.safetensors")).unwrap().len();
    let starts: Vec<u64> = hub
        .requests()
        .iter()
        .filter(|request| request.path.ends_with("adapter_model.safetensors"))
        .filter_map(|request| request.range.as_ref()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
        .collect();
    assert_eq!(starts.len(), 2, "{starts:?}");
    assert!(starts[0] == 0 && starts[1] > 0 && starts[1] < size, "{starts:?} of {size}");
    assert_eq!(
        fs::read(snapshot(home.path(), "tiny/lora").join("adapter_model.safetensors")).unwrap(),
        fs::read(adapter("plain").join("adapter_model.safetensors")).unwrap()
    );
}

#[test]
fn leftover_files_in_the_cache_do_not_stop_a_download() {
    let (hub, home) = (Hub::with_model(), tempfile::tempdir().unwrap());
    let inspect = ["inspect", "--adapter", "tiny/lora"];
    let name = "adapter_model.safetensors";
    assert_eq!(hub.run(home.path(), &inspect, &[]).code, Some(0));
    let (link, whole) = (snapshot(home.path(), "tiny/lora").join(name), fs::read(adapter("plain").join(name)).unwrap());
    let blob = link.canonicalize().unwrap();
    // The content of a link is missing, and its .part file is longer than the whole content.
    fs::remove_file(&blob).unwrap();
    let mut part = blob.clone().into_os_string();
    part.push(".part");
    fs::write(&part, [&whole[..], b"more"].concat()).unwrap();
    let run = hub.run(home.path(), &inspect, &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(fs::read(&link).unwrap(), whole);
    assert!(!Path::new(&part).exists());
}

#[test]
fn a_token_is_sent_and_never_printed() {
    let (hub, home) = (Hub::with_model(), tempfile::tempdir().unwrap());
    hub.change(|content| content.token = Some("hf_secret".into()));
    let inspect = ["inspect", "--adapter", "tiny/lora"];
    let refused = hub.run(home.path(), &inspect, &[]);
    assert_eq!(refused.code, Some(3));
    assert!(["tiny/lora", "401", "HF_TOKEN"].iter().all(|word| refused.stderr.contains(word)), "{}", refused.stderr);
    let wrong = hub.run(home.path(), &inspect, &[("HF_TOKEN", "hf_wrong")]);
    assert!(wrong.code == Some(3) && !wrong.stderr.contains("hf_wrong"), "{}", wrong.stderr);
    // From the environment, or from the file that `hf auth login` writes.
    assert_eq!(hub.run(home.path(), &inspect, &[("HF_TOKEN", "hf_secret")]).code, Some(0));
    fs::remove_dir_all(home.path().join("hub")).unwrap();
    fs::write(home.path().join("token"), "hf_secret\n").unwrap();
    assert_eq!(hub.run(home.path(), &inspect, &[]).code, Some(0));
}

/// The redirects of a hub, maybe to a second hub: the prefix of a path, and its replacement.
type Redirects = fn(&Hub, &Hub) -> Vec<(&'static str, String)>;

/// Downloads an adapter with a token from a hub that redirects. Returns the requests of this hub and of a second one on
/// another port.
fn redirected(redirects: Redirects, token: Option<&str>) -> [Vec<Request>; 2] {
    let (hub, other, home) = (Hub::with_model(), Hub::with_model(), tempfile::tempdir().unwrap());
    let redirects = redirects(&hub, &other);
    for served in [&hub, &other] {
        served.change(|content| content.broken = vec!["adapter_model.safetensors".into()]);
    }
    hub.change(|content| {
        content.redirects = redirects.iter().map(|(from, to)| ((*from).to_owned(), to.clone())).collect();
        content.token = token.map(str::to_owned);
    });
    let run = hub.run(home.path(), &["inspect", "--adapter", "tiny/lora"], &[("HF_TOKEN", "hf_secret")]);
    assert_eq!(run.code, Some(0), "{redirects:?}: {}", run.stderr);
    let name = "adapter_model.safetensors";
    assert_eq!(
        fs::read(snapshot(home.path(), "tiny/lora").join(name)).unwrap(),
        fs::read(adapter("plain").join(name)).unwrap(),
        "{redirects:?}"
    );
    [hub.requests(), other.requests()]
}

/// The endpoint of a hub with another host name of the same machine.
fn renamed(hub: &Hub) -> String {
    hub.endpoint.replace("127.0.0.1", "localhost")
}

#[test]
fn a_token_goes_to_no_other_host_or_port() {
    const FILES: &str = "/tiny/lora/resolve/";
    let cases: [Redirects; 6] = [
        // Another host on the same port, the same host on another port, and both.
        |hub, _| vec![(FILES, format!("{}/cdn{FILES}", renamed(hub)))],
        |_, other| vec![(FILES, format!("{}{FILES}", other.endpoint))],
        |_, other| vec![(FILES, format!("{}{FILES}", renamed(other)))],
        // Without a scheme.
        |_, other| vec![(FILES, format!("{}{FILES}", other.endpoint.strip_prefix("http:").unwrap()))],
        // The list of files.
        |_, other| vec![("/api/", format!("{}/api/", other.endpoint))],
        // By way of another path of the hub, and back to the hub.
        |hub, other| {
            other.change(|other| other.redirects = vec![(FILES.into(), format!("{}/back{FILES}", hub.endpoint))]);
            vec![(FILES, format!("/moved{FILES}")), ("/moved", other.endpoint.clone())]
        },
    ];
    for (number, case) in cases.iter().enumerate() {
        let [hub, other] = redirected(*case, None);
        let (mut sent, mut left) = (0, 0);
        for request in hub.iter().chain(&other) {
            let is_own = hub.contains(request) && request.host.starts_with("127.0.0.1");
            let is_own = is_own && !request.path.starts_with("/back");
            assert_eq!(request.token.is_some(), is_own, "case {number}: {request:?}");
            *(if is_own { &mut sent } else { &mut left }) += 1;
        }
        assert!(sent > 0 && left > 0, "case {number}: {sent} requests with the token, {left} without");
    }
}

#[test]
fn a_token_stays_with_a_redirect_to_the_same_origin() {
    const FILES: &str = "/tiny/lora/resolve/";
    let cases: [Redirects; 4] = [
        |_, _| vec![(FILES, format!("/moved{FILES}"))],
        |hub, _| vec![(FILES, format!("{}/moved{FILES}", hub.endpoint))],
        // Relative to the path.
        |_, _| vec![("/tiny/lora/resolve/main/", "../../../../moved/tiny/lora/resolve/main/".to_owned())],
        |_, _| vec![("/api/models/", "/moved/api/models/".to_owned())],
    ];
    for (number, case) in cases.iter().enumerate() {
        let [hub, other] = redirected(*case, Some("hf_secret"));
        assert!(hub.iter().any(|request| request.path.starts_with("/moved")), "case {number}: {hub:?}");
        assert!(hub.iter().all(|request| request.token.is_some()), "case {number}: {hub:?}");
        assert_eq!(other, [], "case {number}");
    }
}

#[test]
fn bad_redirects_end() {
    let (hub, home) = (Hub::with_model(), tempfile::tempdir().unwrap());
    for (to, words) in [
        ("/tiny/lora/resolve/", "more than 10 redirects"),
        ("", "a redirect without a Location"),
        ("ftp://127.0.0.1/", "a redirect to no HTTP address"),
    ] {
        hub.change(|content| content.redirects = vec![("/tiny/lora/resolve/".into(), to.to_owned())]);
        if to.is_empty() {
            // All of the path is cut, so that nothing is left.
            let paths = ["adapter_config.json", "adapter_model.safetensors"];
            hub.change(|content| {
                content.redirects = paths.map(|name| (format!("/tiny/lora/resolve/main/{name}"), String::new())).into();
            });
        }
        let run = hub.run(home.path(), &["inspect", "--adapter", "tiny/lora"], &[]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""), "{to}: {}", run.stderr);
        assert!(run.stderr.contains(words), "{to}: {}", run.stderr);
        assert!(hub.requests().len() < 20, "{to}");
    }
}

#[test]
fn errors_say_what_to_do() {
    let (hub, home) = (Hub::with_model(), tempfile::tempdir().unwrap());
    hub.change(|content| {
        let outside = BTreeMap::from([
            ("adapter_config.json".to_owned(), b"{}".to_vec()),
            ("../adapter_model.safetensors".to_owned(), b"x".to_vec()),
        ]);
        content.files.insert("bad/outside".into(), outside);
        let gguf = ["a.Q4_0.gguf", "a.Q8_0.gguf"].map(|name| (name.to_owned(), b"x".to_vec()));
        content.files.insert("some/ggufs".into(), BTreeMap::from(gguf));
        let escape = BTreeMap::from([("escape.gguf".to_owned(), b"x".to_vec())]);
        content.files.insert("bad/etag".into(), escape);
        let index = br#"{"weight_map": {"w": "../../x.safetensors"}}"#.to_vec();
        let names = ["config.json", "tokenizer.json"].map(|name| (name.to_owned(), b"{}".to_vec()));
        let mut sharded = BTreeMap::from(names);
        sharded.insert("model.safetensors.index.json".into(), index);
        content.files.insert("bad/index".into(), sharded);
    });
    let inspect = |id: &str, more: &[(&str, &str)]| hub.run(home.path(), &["inspect", "--adapter", id], more);
    let generate = |id: &str| hub.run(home.path(), &["generate", "--model", id, "hi"], &[]);
    for (run, words) in [
        (inspect("no/such", &[]), &["no/such", "no such repository"][..]),
        (inspect("tiny/base", &[]), &["adapter_model.safetensors is not in the repository"]),
        (inspect("bad/outside", &[]), &["adapter_model.safetensors is not in the repository"]),
        (inspect("tiny/lora", &[("HF_HUB_OFFLINE", "true")]), &["HF_HUB_OFFLINE is set", "not complete in the cache"]),
        (
            inspect("tiny/lora", &[("HF_ENDPOINT", "http://127.0.0.1:9")]),
            &["downloading it from http://127.0.0.1:9 failed"],
        ),
        (generate("some/ggufs"), &["config.json is not in the repository", "OWNER/NAME:a.Q4_0.gguf"]),
        (generate("some/ggufs:b.gguf"), &["b.gguf is not in the repository"]),
        // The file is downloaded, but it is no model.
        (generate("some/ggufs:a.Q8_0.gguf"), &["a.Q8_0.gguf", "not a GGUF file"]),
        (generate("bad/etag"), &["escape.gguf", "sent an ETag or a commit that is not a file name"]),
        (generate("bad/index"), &["does not name files of the repository"]),
        // Not an id: the library reports the error of the path.
        (generate("./no/such"), &["./no/such", "No such file"]),
    ] {
        assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""), "{words:?}: {}", run.stderr);
        assert!(words.iter().all(|word| run.stderr.contains(word)), "{words:?}: {}", run.stderr);
    }
}

/// A server that redirects all paths to another origin, as from http to https.
fn forwarding(origin: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    // It ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let Some(first) = lines.next() else { continue };
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let location = format!("Location: {origin}{}", first.split(' ').nth(1).unwrap_or_default());
            let _ =
                write!(stream, "HTTP/1.1 301 Moved\r\n{location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    endpoint
}

#[test]
fn a_refusal_at_another_origin_names_that_origin() {
    let (hub, home) = (Hub::with_model(), tempfile::tempdir().unwrap());
    let endpoint = forwarding(hub.endpoint.clone());
    let inspect = |token: &str| {
        let more = [("HF_ENDPOINT", endpoint.as_str()), ("HF_TOKEN", token)];
        let run = hub.run(home.path(), &["inspect", "--adapter", "tiny/lora"], &more);
        assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""), "{}", run.stderr);
        run.stderr
    };
    // A public repository: the list of files is sent, but not the headers of a file.
    let (other, advice) = (&hub.endpoint, format!("if {} is the hub, set HF_ENDPOINT to it", hub.endpoint));
    let message = inspect("hf_secret");
    assert!(message.contains(&format!("redirects to {other} without the header etag: {advice}")), "{message}");
    hub.change(|content| content.token = Some("hf_secret".into()));
    let message = inspect("hf_secret");
    let refused =
        format!("{endpoint} redirects to {other}, where access is refused (401): a token is sent to {endpoint} only");
    assert!(message.ends_with(&format!("{refused}; {advice}\n")), "{message}");
    let message = inspect("");
    assert!(message.ends_with(&format!("{advice}, and HF_TOKEN to a token that may read it\n")), "{message}");
    assert!(hub.requests().iter().all(|request| request.token.is_none()));
    // With the settings that the messages advise.
    let run = hub.run(home.path(), &["inspect", "--adapter", "tiny/lora"], &[("HF_TOKEN", "hf_secret")]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}
