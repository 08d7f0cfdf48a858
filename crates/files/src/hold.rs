//! One process at a time in a folder.

use crate::Error;
use std::fs::{File, TryLockError};
use std::path::Path;

/// A folder that no other process can hold until this is dropped, or the process has ended in whatever way.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "open, it holds the lock")] Option<File>);

/// Holds `folder`, which exists. Where a system cannot lock folders nothing is held, and nothing refused.
///
/// # Errors
/// Another process holds it.
pub fn hold(folder: &Path) -> Result<Held, Error> {
    let Ok(file) = File::open(folder) else { return Ok(Held(None)) };
    match file.try_lock() {
        Ok(()) => Ok(Held(Some(file))),
        Err(TryLockError::WouldBlock) => Err(Error::Held { path: folder.display().to_string() }),
        Err(TryLockError::Error(_)) => Ok(Held(None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_held_by_one_until_it_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let first = hold(folder.path()).unwrap();
        let refused = hold(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("another process"), "{refused}");
        drop(first);
        hold(folder.path()).unwrap();
    }
}
