//! A file's text, with a byte-order mark taken off.

use crate::Error;
use std::path::Path;

/// Reads `path` as UTF-8.
pub(crate) fn read(path: &Path) -> Result<String, Error> {
    let bytes = std::fs::read(path).map_err(|e| Error::read(path, e))?;
    let text =
        String::from_utf8(bytes).map_err(|e| not_utf8(path, e.as_bytes(), e.utf8_error().valid_up_to()))?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

fn not_utf8(path: &Path, bytes: &[u8], at: usize) -> Error {
    let before = &bytes[..at];
    let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    Error::Utf8 {
        path: path.to_owned(),
        line: 1 + before.iter().filter(|b| **b == b'\n').count(),
        byte: 1 + at - line_start,
        value: bytes[at],
    }
}

/// The lines of `text` with their 1-based numbers.
///
/// Only `\n` ends a line (with a `\r` before it dropped): benchmark texts hold other characters that some
/// readers take for line ends.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.split('\n').map(|l| l.strip_suffix('\r').unwrap_or(l)).enumerate().map(|(i, l)| (i + 1, l))
}
