//! JSON files with errors that name the file and the line.

use crate::Error;
use serde_json::Value;
use std::path::Path;

/// Reads `path` as JSON.
pub fn read(path: &Path) -> Result<Value, Error> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, "read", e))?;
    parse(path, &bytes)
}

/// Parses `bytes`, the contents of `path`.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(bytes).map_err(|e| Error::Json {
        path: path.display().to_string(),
        line: e.line(),
        column: e.column(),
        reason: e.to_string(),
    })
}
