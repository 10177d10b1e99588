//! `siskin chat` as a user has it: on a terminal.
#![cfg(unix)]

#[path = "../../../tests/gguf/folder.rs"]
#[allow(dead_code, reason = "this test uses a part")]
mod folder;

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A chat on a terminal.
struct Chat {
    child: Child,
    terminal: File,
    output: Receiver<Vec<u8>>,
    /// What was printed since the last thing that was waited for.
    seen: String,
}

impl Chat {
    fn start(store: &Path, args: &[&str]) -> Chat {
        let pty = openpty(None, None).expect("a terminal");
        let slave = || pty.slave.try_clone().expect("a descriptor");
        let child = Command::new(env!("CARGO_BIN_EXE_siskin"))
            .arg("chat")
            .args(args)
            .env("SISKIN_HOME", store)
            .env("TERM", "xterm")
            .env_remove("SISKIN_CPU")
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .expect("the command starts");
        drop(pty.slave);
        let terminal = File::from(pty.master);
        let mut from = terminal.try_clone().expect("a descriptor");
        let (to, output) = channel();
        // Ends with the chat, which closes the terminal.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                if to.send(buffer[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        Chat { child, terminal, output, seen: String::new() }
    }

    fn send(&mut self, text: &str) {
        self.terminal.write_all(text.as_bytes()).expect("written");
    }

    /// Waits until `text` is printed, and returns what was printed before.
    fn wait_for(&mut self, text: &str) -> String {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(at) = self.seen.find(text) {
                let before = self.seen[..at].to_string();
                self.seen.drain(..at + text.len());
                return before;
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.seen += &String::from_utf8_lossy(&bytes),
                Err(error) => panic!("no {text:?} ({error}) in {:?}", self.seen),
            }
        }
    }

    /// Waits for some words of an answer, whatever they are.
    fn words(&mut self, n: usize) -> String {
        (0..n).map(|_| self.wait_for(" ")).collect()
    }

    /// Types a line when it is asked for.
    fn line(&mut self, text: &str) {
        // What is typed before is seen twice.
        self.wait_for("\x1b[?2004h");
        self.send(text);
        self.send("\r");
    }

    fn interrupt(&self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).expect("a process");
    }

    fn end(mut self) -> ExitStatus {
        self.child.wait().expect("an end")
    }
}

impl Drop for Chat {
    /// A test that failed leaves no program behind that goes on talking.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A model of two layers that talks nonsense.
fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/archs/llama.gguf")
}

fn tiny_chat(store: &Path) -> Chat {
    let model = tiny();
    let model = model.to_str().expect("UTF-8");
    Chat::start(store, &["-m", model, "--chat-template", "chatml", "-n", "3", "--seed", "1"])
}

#[test]
fn commands_do_what_their_help_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("models");
    let saved = folder.path().join("saved.json");
    let mut chat = tiny_chat(&store);
    chat.line("/help");
    chat.wait_for("/quit");
    chat.line("/system be kind");
    chat.wait_for("(a new conversation with this system message)");
    chat.line("hi");
    chat.line("one \\");
    chat.line("two");
    chat.line("/regen");
    chat.line(&format!("/save {}", saved.display()));
    chat.wait_for("(5 messages written)");
    let text = std::fs::read_to_string(&saved).expect("a file");
    let messages: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(messages[0], serde_json::json!({ "role": "system", "content": "be kind" }));
    assert_eq!(messages[3], serde_json::json!({ "role": "user", "content": "one \ntwo" }));
    chat.line("/undo");
    chat.wait_for("(taken back: one");
    chat.line("/clear");
    chat.wait_for("(a new conversation)");
    chat.line(&format!("/load {}", saved.display()));
    chat.wait_for("(5 messages read)");
    chat.line("/history");
    chat.wait_for("system: be kind");
    chat.wait_for("user: hi");
    chat.line("/stats");
    chat.wait_for("last answer: 3 tokens");
    chat.line("/load");
    chat.wait_for("/load needs the name of a file");
    chat.line("/nothing");
    chat.wait_for("no command /nothing");
    chat.wait_for("> ");
    chat.send("\x04");
    assert!(chat.end().success());

    // The lines are there the next time: up, and up again.
    assert!(store.join(".chat_history").is_file());
    let mut chat = tiny_chat(&store);
    chat.wait_for("> ");
    chat.send("\x1b[A\x1b[A");
    chat.wait_for("/load");
    chat.send("\x03");
    chat.line("/quit");
    assert!(chat.end().success());
}

#[test]
fn no_history_is_kept_where_none_is_wanted() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("models");
    let model = tiny();
    let model = model.to_str().expect("UTF-8");
    let args = ["-m", model, "--chat-template", "chatml", "-n", "3", "--no-history"];
    let mut chat = Chat::start(&store, &args);
    chat.line("a secret");
    chat.line("/quit");
    assert!(chat.end().success());
    assert!(!store.exists());
}

/// The default model, where it is to be had: the tiny one is done before it can be interrupted.
fn fetched() -> bool {
    let output = Command::new(env!("CARGO_BIN_EXE_siskin"))
        .args(["pull", "smollm2-135m"])
        .output()
        .expect("the command starts");
    if output.status.success() {
        return true;
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    assert!(!folder::required("smollm2-135m"), "the model cannot be fetched: {reason}");
    folder::say(&format!("SKIPPED: the model cannot be fetched: {reason}"));
    false
}

#[test]
fn ctrl_c_stops_the_answer_and_not_the_program() {
    if !fetched() {
        return;
    }
    let path = Command::new(env!("CARGO_BIN_EXE_siskin")).args(["pull", "smollm2-135m"]).output();
    let path = String::from_utf8(path.expect("starts").stdout).expect("UTF-8");
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("models");
    let mut chat = Chat::start(&store, &["-m", path.trim_end(), "--ignore-eos", "--seed", "1"]);
    chat.wait_for("> ");
    for _ in 0..2 {
        chat.send("Tell me a very long story.\r");
        chat.wait_for("story.");
        chat.words(8);
        chat.interrupt();
        chat.wait_for("(stopped)");
        chat.wait_for("> ");
    }
    // What is pressed while nothing is computed stops nothing later.
    chat.interrupt();
    // The signal is handled on a thread of its own, which may be late on a busy machine.
    std::thread::sleep(Duration::from_secs(1));
    chat.send("Hello again.\r");
    chat.wait_for("again.");
    let text = chat.words(20);
    assert!(!text.contains("(stopped)"), "{text}");
    chat.interrupt();
    chat.wait_for("> ");
    chat.send("\x04");
    assert!(chat.end().success());
}
