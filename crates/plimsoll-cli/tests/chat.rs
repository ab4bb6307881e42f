//! The chat on a terminal that `script` (util-linux) provides.

#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::io::{BufReader, Read, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use common::{adapter, copy_files, json, model};

const INTERRUPT: &str = "\x03";

/// A chat on a terminal, with a model whose context is long enough for answers to be interrupted.
struct Terminal {
    script: Child,
    typed: ChildStdin,
    seen: BufReader<ChildStdout>,
    _folder: tempfile::TempDir,
}

impl Terminal {
    fn open(template: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy_files(&model(), folder.path());
        let config = folder.path().join("config.json");
        let mut long = json(&config);
        long["max_position_embeddings"] = 32768.into();
        fs::write(&config, long.to_string()).unwrap();
        let file = folder.path().join("template.jinja");
        fs::write(&file, template).unwrap();
        let line = format!(
            "exec {} generate --model {} --template {} --interactive --max-tokens 30000 {more}",
            env!("CARGO_BIN_EXE_plimsoll"),
            folder.path().display(),
            file.display()
        );
        let mut script = Command::new("script");
        script.args(["--quiet", "--flush", "--return", "--command", &line, "/dev/null"]);
        let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (typed, seen) = (script.stdin.take().unwrap(), BufReader::new(script.stdout.take().unwrap()));
        Self { script, typed, seen, _folder: folder }
    }

    fn send(&mut self, text: &str) {
        self.typed.write_all(text.as_bytes()).unwrap();
    }

    /// Reads the output up to and including a text.
    fn until(&mut self, text: &str) -> String {
        let mut read = Vec::new();
        while !read.ends_with(text.as_bytes()) {
            let mut byte = [0];
            assert!(self.seen.read_exact(&mut byte).is_ok(), "no `{text}` in {}", String::from_utf8_lossy(&read));
            read.push(byte[0]);
        }
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Waits until an answer has begun, and interrupts it.
    fn interrupt_answer(&mut self) {
        self.seen.read_exact(&mut [0]).unwrap();
        self.send(INTERRUPT);
    }

    fn code(mut self) -> Option<i32> {
        self.script.wait().unwrap().code()
    }
}

#[test]
fn an_interrupt_stops_the_answer_and_not_the_chat() {
    let mut chat = Terminal::open("{% for m in messages %}{{ m.content }}{% endfor %}", "");
    assert!(chat.until("> ").contains("/help"));
    chat.send("Hello\n");
    chat.until("Hello\r\n");
    chat.interrupt_answer();
    chat.until("stopping the answer");
    chat.until("> ");
    // The chat accepts the next line, and a line after an interrupt while it waits.
    chat.send("/nothing\n");
    chat.until("unknown command /nothing");
    chat.until("> ");
    chat.send(INTERRUPT);
    chat.until("a second interrupt ends the chat");
    chat.until("> ");
    chat.send(INTERRUPT);
    assert_eq!(chat.code(), Some(130));
}

#[test]
fn an_interrupted_turn_leaves_all_variants_with_one_conversation() {
    // A template that reports how many turns it is given.
    let template = "{% if messages[-1].content == 'count' %}\
                    {{ raise_exception(messages | length ~ ' turns') }}{% endif %}\
                    {% for m in messages %}{{ m.content }}{% endfor %}";
    let more = format!("--adapter {} --layers-kept base,full", adapter("plain").display());
    let mut chat = Terminal::open(template, &more);
    chat.until("> ");
    chat.send("Hello\n");
    chat.until("── base\r\n");
    chat.interrupt_answer();
    let stopped = chat.until("\n> ");
    let dropped = "not all 2 variants finished an answer: the turn is dropped for all of them";
    assert!(stopped.contains(dropped) && !stopped.contains("── full"), "{stopped}");
    // The interrupt was for the answer only.
    chat.send(INTERRUPT);
    chat.until("a second interrupt ends the chat, as /quit does");
    chat.until("> ");
    chat.send("count\n");
    let counted = chat.until(" turns");
    assert!(counted.ends_with("1 turns"), "{counted}");
    assert_eq!(chat.code(), Some(2));
}
