//! Interrupts: the first Ctrl-C asks the work to stop at the next safe point, the second one exits the program. In a
//! chat the first one stops the answer and is cleared when the answer has stopped. While the user types, the second one
//! ends the chat.
//!
//! Ctrl-C, SIGTERM and SIGHUP are handled alike, because the `ctrlc` crate does not report which signal arrived. So a
//! chat that waits for input ends at the second SIGTERM.

use std::io::IsTerminal as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::progress::{ask, say};

static ASKED: AtomicBool = AtomicBool::new(false);
static STAGE: AtomicU8 = AtomicU8::new(Stage::Working as u8);
static INSTALLED: OnceLock<()> = OnceLock::new();

/// What the program is doing when an interrupt arrives.
#[derive(Clone, Copy)]
pub(crate) enum Stage {
    /// Work that can stop.
    Working,
    /// Writing results, which takes a moment and is not stopped.
    Scored,
    /// Generating an answer in a chat.
    Answering,
    /// Waiting for input in a chat.
    Typing,
}

impl Stage {
    const ALL: [Self; 4] = [Self::Working, Self::Scored, Self::Answering, Self::Typing];

    fn message(self) -> &'static str {
        match self {
            Self::Working => "stopping at the next safe point; a second interrupt stops immediately",
            Self::Scored => "scoring is done, writing the results; a second interrupt stops immediately",
            Self::Answering => "stopping the answer; a second interrupt before it has stopped ends the chat",
            Self::Typing => "a second interrupt ends the chat, as /quit does",
        }
    }
}

/// Installs the signal handler: from now on the first interrupt sets a flag and does not end the program.
pub(crate) fn install() {
    INSTALLED.get_or_init(|| {
        // Without a handler, Ctrl-C ends the program. That is safe, because results are written atomically.
        let _ = ctrlc::set_handler(|| {
            // A terminal has echoed the keys on a line that the progress bar is drawn on.
            let line_feed = if std::io::stderr().is_terminal() { "\n" } else { "" };
            if ASKED.load(Ordering::Relaxed) {
                ask(line_feed);
                std::process::exit(130);
            }
            let stage = STAGE.load(Ordering::Relaxed);
            let stage = Stage::ALL.into_iter().find(|known| *known as u8 == stage).unwrap_or(Stage::Working);
            say(&format!("{line_feed}plimsoll: {}", stage.message()));
            if matches!(stage, Stage::Typing) {
                ask("> ");
            }
            // After the message, so that no reaction to the flag is printed before it.
            ASKED.store(true, Ordering::Relaxed);
        });
    });
}

/// Sets the stage, which decides the message of the next interrupt.
pub(crate) fn enter(stage: Stage) {
    STAGE.store(stage as u8, Ordering::Relaxed);
}

/// Clears the interrupts so far.
pub(crate) fn forget() {
    ASKED.store(false, Ordering::Relaxed);
}

/// Whether an interrupt has arrived since the last [`forget`].
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
