//! Ctrl-C, and a request to terminate: the first one asks the work to stop at the next safe place, the second one stops
//! the program.

use std::io::IsTerminal as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::progress::say;

static ASKED: AtomicBool = AtomicBool::new(false);
static SCORED: AtomicBool = AtomicBool::new(false);
static INSTALLED: OnceLock<()> = OnceLock::new();

/// From now on Ctrl-C, and a request to terminate, are noted instead of ending the program.
pub(crate) fn install() {
    INSTALLED.get_or_init(|| {
        // Where no handler can be set, Ctrl-C ends the program as it always did: results are written atomically.
        let _ = ctrlc::set_handler(|| {
            if ASKED.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
            let what = if SCORED.load(Ordering::Relaxed) {
                "scoring is done, writing the results"
            } else {
                "stopping at the next safe place"
            };
            // A terminal has echoed the keys on a line that the progress bar is drawn on.
            let feed = if std::io::stderr().is_terminal() { "\n" } else { "" };
            say(&format!("{feed}plimsoll: {what}; a second interrupt ends it at once"));
        });
    });
}

/// From now on nothing stops at an interrupt any more: what is left is done in a moment.
pub(crate) fn scored() {
    SCORED.store(true, Ordering::Relaxed);
}

/// Whether the user asked to stop.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
