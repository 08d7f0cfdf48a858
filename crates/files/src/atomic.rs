//! A file is there whole, or it is not there: temporary file, fsync, rename, fsync of the folder.

use crate::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes `bytes` to `path` so that a kill or a full disk leaves the old file or none, never a part.
/// The folder is made if it is missing.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write_by(path, |file| file.write_all(bytes))
}

/// As [`write()`], with contents that `fill` writes piece by piece, so that a large file needs no copy in memory.
pub fn write_by(path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<(), Error> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create the folder", e))?;
    let mut file = tempfile::Builder::new()
        .prefix(".writing-")
        .tempfile_in(folder)
        .map_err(|e| Error::io(folder, "write into the folder", e))?;
    let mut pieces = BufWriter::new(file.as_file_mut());
    fill(&mut pieces).and_then(|()| pieces.flush()).map_err(|e| Error::io(path, "write", e))?;
    drop(pieces);
    file.as_file().sync_all().map_err(|e| Error::io(path, "write to disk", e))?;
    set_usual_mode(file.as_file());
    file.persist(path).map_err(|e| Error::io(path, "put in place", e.error))?;
    sync_folder(folder);
    Ok(())
}

/// Fills a fresh folder beside `folder` by `fill`, then swaps it in with one rename; where the system cannot swap two
/// names, with two, and [`recover`] mends what a kill leaves between them.
///
/// Whatever stood at `folder` is gone afterwards; if `fill` fails, it is untouched.
/// `E` is the caller's own error.
pub fn write_all_or_nothing<E: From<Error>>(
    folder: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let part = sibling(folder, "writing");
    let old = sibling(folder, "old");
    let _ = fs::remove_dir_all(&part);
    fs::create_dir_all(&part).map_err(|e| Error::io(&part, "create the folder", e))?;
    if let Err(error) = fill(&part) {
        let _ = fs::remove_dir_all(&part);
        return Err(error);
    }
    sync_folder(&part);
    let replaced = folder.exists();
    let swapped = replaced && swap(&part, folder);
    if !swapped {
        if replaced {
            let _ = fs::remove_dir_all(&old);
            fs::rename(folder, &old).map_err(|e| Error::io(folder, "move the old folder away", e))?;
        }
        fs::rename(&part, folder).map_err(|e| Error::io(folder, "put in place", e))?;
    }
    if let Some(parent) = folder.parent() {
        sync_folder(parent);
    }
    if replaced {
        let _ = fs::remove_dir_all(if swapped { &part } else { &old });
    }
    Ok(())
}

/// Two folders change names at once; false where the system or the file system cannot.
fn swap(a: &Path, b: &Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).is_ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (a, b);
        false
    }
}

/// After a kill: a folder that [`write_all_or_nothing`] had moved away and not yet replaced stands in its place again.
pub fn recover(folder: &Path) -> Result<(), Error> {
    let old = sibling(folder, "old");
    if folder.exists() || !old.is_dir() {
        return Ok(());
    }
    fs::rename(&old, folder).map_err(|e| Error::io(folder, "put the old folder back", e))
}

fn sibling(folder: &Path, word: &str) -> PathBuf {
    let name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    folder.with_file_name(format!(".{name}.{word}"))
}

/// Makes a rename inside `folder` survive a power cut; a file system that cannot do it loses nothing else.
fn sync_folder(folder: &Path) {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if let Ok(handle) = File::open(folder) {
        let _ = handle.sync_all();
    }
}

/// Temporary files are private by default; a result should be readable as any other new file.
fn set_usual_mode(file: &File) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let _ = file.set_permissions(fs::Permissions::from_mode(0o644));
    }
    #[cfg(not(unix))]
    let _ = file;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_fill_leaves_the_old_folder() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("run");
        write_all_or_nothing::<Error>(&target, |p| write(&p.join("a.txt"), b"one")).unwrap();
        let failed = write_all_or_nothing::<Error>(&target, |p| {
            write(&p.join("a.txt"), b"two")?;
            Err(Error::Missing { path: "x".into(), name: "y".into() })
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(target.join("a.txt")).unwrap(), b"one");
        write_all_or_nothing::<Error>(&target, |p| write(&p.join("b.txt"), b"three")).unwrap();
        assert!(!target.join("a.txt").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_between_two_names_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("best");
        recover(&target).unwrap();
        assert!(!target.exists());
        write_all_or_nothing::<Error>(&target, |p| write(&p.join("a.txt"), b"one")).unwrap();
        fs::rename(&target, dir.path().join(".best.old")).unwrap();
        recover(&target).unwrap();
        assert_eq!(fs::read(target.join("a.txt")).unwrap(), b"one");
        recover(&target).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_unwritable_target_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), b"x").unwrap();
        let error = write(&dir.path().join("file/below.txt"), b"y").unwrap_err().to_string();
        assert!(error.contains("file: cannot create the folder"), "{error}");
    }
}
