//! How much room a disk has, for those who are about to write much.

use std::path::Path;

/// Bytes that this user can still write where `path` lies or will lie; `None` where the system does not tell.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let there = path.ancestors().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
    let there = there.into_iter().find(|p| p.exists())?;
    #[cfg(unix)]
    {
        let told = rustix::fs::statvfs(there).ok()?;
        Some(told.f_bavail.saturating_mul(told.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = there;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_folder_that_is_still_to_be_made_has_the_room_of_the_one_above() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), b"x").unwrap();
        for path in [dir.path().to_path_buf(), dir.path().join("a/b"), "not-made-yet".into()] {
            assert!(free_bytes(&path).is_some_and(|bytes| bytes > 0), "{}", path.display());
        }
    }
}
