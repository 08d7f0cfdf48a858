//! Ctrl-C: the first asks the command to end well, the second ends the process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Whether the person has asked the command to stop. The training loop reads the same flag.
pub(crate) static STOP: AtomicBool = AtomicBool::new(false);

/// Within this time a second signal is the same press: a wrapper such as `timeout` sends it to the process and to
/// its group.
const SAME_PRESS: Duration = Duration::from_secs(1);

/// From here on Ctrl-C sets [`STOP`]; a later one while it is set ends the process at once.
pub(crate) fn listen() {
    let mut first: Option<Instant> = None;
    let heard = ctrlc::set_handler(move || {
        let again = STOP.swap(true, Ordering::SeqCst);
        match first.filter(|_| again) {
            None => first = Some(Instant::now()),
            Some(pressed) if pressed.elapsed() >= SAME_PRESS => {
                std::process::exit(i32::from(crate::exit::INTERRUPTED));
            }
            Some(_) => {}
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
