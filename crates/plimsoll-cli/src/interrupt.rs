//! Ctrl-C, and a request to terminate: the first one asks the work to stop at the next safe place, the second one stops
//! the program. In a chat the first one stops the answer and is forgotten once that has stopped; of two while a turn is
//! typed, the second one ends the chat.
//!
//! Ctrl-C, SIGTERM and SIGHUP are treated alike: the `ctrlc` crate does not say which one came. So SIGTERM ends a chat
//! that waits for a turn only the second time.

use std::io::IsTerminal as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::progress::{ask, say};

static ASKED: AtomicBool = AtomicBool::new(false);
static STAGE: AtomicU8 = AtomicU8::new(Stage::Working as u8);
static INSTALLED: OnceLock<()> = OnceLock::new();

/// What an interrupt comes into.
#[derive(Clone, Copy)]
pub(crate) enum Stage {
    /// Work that stops.
    Working,
    /// What is left is done in a moment, and does not stop any more.
    Scored,
    /// An answer in a chat.
    Answering,
    /// A chat that waits for what is typed.
    Typing,
}

impl Stage {
    const ALL: [Self; 4] = [Self::Working, Self::Scored, Self::Answering, Self::Typing];

    fn message(self) -> &'static str {
        match self {
            Self::Working => "stopping at the next safe place; a second interrupt ends it at once",
            Self::Scored => "scoring is done, writing the results; a second interrupt ends it at once",
            Self::Answering => "stopping the answer; a second interrupt before it has stopped ends the chat",
            Self::Typing => "a second interrupt ends the chat, as /quit does",
        }
    }
}

/// From now on Ctrl-C, and a request to terminate, are noted instead of ending the program.
pub(crate) fn install() {
    INSTALLED.get_or_init(|| {
        // Where no handler can be set, Ctrl-C ends the program as it always did: results are written atomically.
        let _ = ctrlc::set_handler(|| {
            // A terminal has echoed the keys on a line that the progress bar is drawn on.
            let feed = if std::io::stderr().is_terminal() { "\n" } else { "" };
            if ASKED.load(Ordering::Relaxed) {
                ask(feed);
                std::process::exit(130);
            }
            let stage = STAGE.load(Ordering::Relaxed);
            let stage = Stage::ALL.into_iter().find(|known| *known as u8 == stage).unwrap_or(Stage::Working);
            say(&format!("{feed}plimsoll: {}", stage.message()));
            if matches!(stage, Stage::Typing) {
                ask("> ");
            }
            // After the message, so that nothing that follows from it is written before.
            ASKED.store(true, Ordering::Relaxed);
        });
    });
}

/// What the next interrupt comes into.
pub(crate) fn enter(stage: Stage) {
    STAGE.store(stage as u8, Ordering::Relaxed);
}

/// Forgets the interrupts so far.
pub(crate) fn forget() {
    ASKED.store(false, Ordering::Relaxed);
}

/// Whether the user asked to stop.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
