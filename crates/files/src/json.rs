//! JSON files with errors that name the file and the line.

use crate::Error;
use serde_json::Value;
use std::path::Path;

/// Reads `path` as JSON.
pub fn read(path: &Path) -> Result<Value, Error> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, "read", e))?;
    parse(path, &bytes)
}

/// Parses `bytes`, the contents of `path`; the mark that some editors put before UTF-8 is passed over.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)).map_err(|e| Error::Json {
        path: path.display().to_string(),
        line: e.line(),
        column: e.column(),
        reason: e.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_of_utf8_is_passed_over() {
        let at = Path::new("config.json");
        assert_eq!(parse(at, b"\xef\xbb\xbf{\"a\": 2}").unwrap()["a"], 2);
        let wrong = parse(at, b"\xef\xbb\xbf{\n\"a\": }").unwrap_err().to_string();
        assert!(wrong.contains("config.json") && wrong.contains("line 2"), "{wrong}");
    }
}
