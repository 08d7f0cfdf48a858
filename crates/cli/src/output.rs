//! Where words go: results to stdout, everything about the way there to stderr.

use sibo_report::terminal::Style;
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::OnceLock;

/// Columns of a result that no terminal shows.
const PIPED: usize = 240;

/// How the person wants to be spoken to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    quiet: bool,
    json: bool,
    style: Style,
}

impl Output {
    pub(crate) fn new(quiet: bool, json: bool) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        // What reads a pipe or a file has room for whole cells.
        let width = if terminal { terminal_width().unwrap_or(Style::default().width) } else { PIPED };
        Output { quiet, json, style: Style { width, colour: terminal && !no_colour } }
    }

    /// Whether the result is asked for as JSON.
    pub(crate) fn json(self) -> bool {
        self.json
    }

    /// Whether nothing but the result is wanted.
    pub(crate) fn quiet(self) -> bool {
        self.quiet
    }

    /// What the terminal can show.
    pub(crate) fn style(self) -> Style {
        self.style
    }

    /// A line of the result.
    pub(crate) fn result(self, text: impl AsRef<str>) {
        keep(writeln!(std::io::stdout(), "{}", text.as_ref().trim_end_matches('\n')));
    }

    /// A piece of the result that is still growing, shown at once.
    pub(crate) fn piece(self, text: &str) {
        let mut stdout = std::io::stdout();
        keep(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()));
    }

    /// A remark on the way.
    pub(crate) fn note(self, text: impl AsRef<str>) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr(), "{}", text.as_ref());
        }
    }

    /// Something that the person should know before they trust the result; said even when quiet.
    pub(crate) fn warn(self, text: impl AsRef<str>) {
        let _ = writeln!(std::io::stderr(), "warning: {}", text.as_ref());
    }
}

/// The first write of a result that failed.
static LOST: OnceLock<std::io::Error> = OnceLock::new();

/// A result that could not be written is told at the end; a reader that has gone away (`sibo tasks | head`) is no failure.
fn keep(written: std::io::Result<()>) {
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        // Only the first counts.
        let _ = LOST.set(error);
    }
}

/// Refuses to call a command done whose result did not reach stdout.
pub(crate) fn all_written() -> anyhow::Result<()> {
    keep(std::io::stdout().flush());
    match LOST.get() {
        Some(error) => anyhow::bail!("the result could not be written to stdout: {error}"),
        None => Ok(()),
    }
}

/// Columns of the terminal, where it tells; less than 40 is taken for a mistake.
fn terminal_width() -> Option<usize> {
    let (width, _) = terminal_size::terminal_size()?;
    (width.0 >= 40).then_some(usize::from(width.0))
}
