//! Ctrl-C: the first asks the command to end well, the second ends the process.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the person has asked the command to stop. The training loop reads the same flag.
pub(crate) static STOP: AtomicBool = AtomicBool::new(false);

/// From here on Ctrl-C sets [`STOP`]; a second one while it is set ends the process at once.
pub(crate) fn listen() {
    let heard = ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(crate::exit::INTERRUPTED));
        }
    });
    // Without a handler Ctrl-C ends the process, which loses the work since the last checkpoint and no more.
    drop(heard);
}

/// Whether Ctrl-C was pressed.
pub(crate) fn asked() -> bool {
    STOP.load(Ordering::SeqCst)
}

/// Whether Ctrl-C was pressed; forgets it, for a command that goes on.
pub(crate) fn take() -> bool {
    STOP.swap(false, Ordering::SeqCst)
}
