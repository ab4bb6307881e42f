//! Ctrl-C: the first one asks the work to stop at the next safe place, the second one stops the program.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);
static INSTALLED: OnceLock<()> = OnceLock::new();

/// From now on Ctrl-C, and a request to terminate, are noted instead of ending the program.
pub(crate) fn install() {
    INSTALLED.get_or_init(|| {
        // Where no handler can be set, Ctrl-C ends the program as it always did: results are written atomically.
        let _ = ctrlc::set_handler(|| {
            if ASKED.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
            eprintln!("\nplimsoll: stopping (press Ctrl-C again to stop at once)");
        });
    });
}

/// Whether the user asked to stop.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
