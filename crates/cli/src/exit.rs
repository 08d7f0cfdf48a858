//! What a command's end means to the shell, and how a failure is told.

use std::fmt;
use std::process::ExitCode;

/// Something went wrong.
const FAILURE: u8 = 1;
/// The command was asked in a way that makes no sense (clap's own number for it).
const USAGE: u8 = 2;
/// Stopped by Ctrl-C; what was done is kept (128 + SIGINT).
pub(crate) const INTERRUPTED: u8 = 130;

/// The paragraph about exit codes in `--help`.
pub(crate) const HELP: &str = "\
Exit status:
  0    done
  1    it failed; the reason is on stderr, and no half-written output is left behind
  2    the command line makes no sense; nothing was started
  130  interrupted by Ctrl-C; a training run has saved a checkpoint and says how to go on";

/// A command line that cannot be followed.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

/// The person stopped the command; the text says what is kept and how to go on.
#[derive(Debug)]
pub(crate) struct Interrupted(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}
impl std::error::Error for Interrupted {}

/// A usage error with this text.
pub(crate) fn usage(text: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Usage(text.into()))
}

/// Tells the failure on stderr and gives the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
        eprintln!("interrupted: {interrupted}");
        return ExitCode::from(INTERRUPTED);
    }
    eprintln!("error: {}", sentence(error));
    ExitCode::from(if error.is::<Usage>() { USAGE } else { FAILURE })
}

/// The error and its causes; a cause whose words the sentence already holds is not said twice.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(|c| c.to_string()) {
        if !text.contains(&cause) {
            text.push_str("\n  because: ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn causes_are_told_once() {
        let io = || std::io::Error::other("no space left");
        let once = Err::<(), _>(io()).context("cannot save: no space left").unwrap_err();
        assert_eq!(sentence(&once), "cannot save: no space left");
        let twice = Err::<(), _>(io()).context("cannot save").unwrap_err();
        assert_eq!(sentence(&twice), "cannot save\n  because: no space left");
    }
}
