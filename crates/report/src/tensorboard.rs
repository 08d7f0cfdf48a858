//! TensorBoard event files with scalars, written as training goes.
//!
//! Values are kept as f32: that is what the format holds. The metrics in full precision are in
//! the JSON lines ([`crate::jsonl`]).

mod crc32c;
mod event;

use crate::ReportError;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// End of our files' names; TensorBoard asks only for `tfevents` in them.
const SUFFIX: &str = ".sibo";

/// An open event file; each event is with the system when its call returns.
#[derive(Debug)]
pub struct EventWriter {
    file: File,
    path: PathBuf,
}

impl EventWriter {
    /// Opens the event file of `folder`: goes on with the one that a stopped run left there, or
    /// starts one. `wall_time` is in seconds since 1970.
    ///
    /// # Errors
    /// The folder or file cannot be read or written, or the file is no event file.
    pub fn in_folder(folder: &Path, wall_time: f64) -> Result<Self, ReportError> {
        std::fs::create_dir_all(folder).map_err(ReportError::io("create", folder))?;
        let entries = std::fs::read_dir(folder).map_err(ReportError::io("read", folder))?;
        let ours = |path: &PathBuf| {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            name.starts_with("events.out.tfevents.") && name.ends_with(SUFFIX)
        };
        let newest = entries.flatten().map(|e| e.path()).filter(ours).max();
        let seconds = wall_time.max(0.0) as u64;
        let fresh = || folder.join(format!("events.out.tfevents.{seconds:010}{SUFFIX}"));
        Self::open(&newest.unwrap_or_else(fresh), wall_time)
    }

    /// Opens one file: starts it, or goes on after its last whole record. What a killed run left
    /// half written at the end is cut off.
    ///
    /// # Errors
    /// The file cannot be read or written, or it is no event file.
    pub fn open(path: &Path, wall_time: f64) -> Result<Self, ReportError> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path);
        let file = file.map_err(ReportError::io("open", path))?;
        let bytes = std::fs::read(path).map_err(ReportError::io("read", path))?;
        let mut whole = 0;
        while let Some(length) = event::whole_record(&bytes[whole..]) {
            whole += length;
        }
        let first = event::framed(&event::file_version(wall_time));
        // A file that ends within its first record is a start that was torn; anything else
        // without a whole record was not written by a run.
        if whole == 0 && bytes.len() >= first.len() {
            return Err(ReportError::NotEvents {
                path: path.display().to_string(),
                reason: "it does not begin with a whole record".to_owned(),
            });
        }
        let torn = file.set_len(whole as u64);
        torn.map_err(ReportError::io("cut the torn end of", path))?;
        let mut writer = Self { file, path: path.to_owned() };
        if whole == 0 {
            writer.write(&first)?;
        }
        Ok(writer)
    }

    /// The file that is written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says that training goes on from before `step`: viewers drop the events of that step and
    /// of later ones, which the run is about to write again.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn resumed_at(&mut self, step: u64, wall_time: f64) -> Result<(), ReportError> {
        self.write(&event::framed(&event::restart(wall_time, step)))
    }

    /// Writes the scalars of one step: names such as `train/loss` with their values.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn scalars(&mut self, step: u64, wall_time: f64, values: &[(&str, f64)]) -> Result<(), ReportError> {
        self.write(&event::framed(&event::scalars(wall_time, step, values)))
    }

    /// One call of the system for each record: a kill leaves at most one torn record, at the end.
    fn write(&mut self, record: &[u8]) -> Result<(), ReportError> {
        let written = self.file.write_all(record);
        written.map_err(ReportError::io("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by the Python package tensorboard 2.21.0 (`RecordWriter` over `Event` messages):
    /// the file version at 1700000000.5; step 300 at 1700000001.25 with `train/loss` 0.8317 and
    /// `lr` 3e-4; a session start at step 250 at 1700000002.0.
    const FROM_PYTHON: &str = "1800000000000000a37f4b220900002040fc54d9411a0d627261696e2e4576656e743a322b3531102c00000000000000f4aecc450900005040fc54d94110ac022a1e0a110a0a747261696e2f6c6f7373154bea543f0a090a026c721552499d39d1fcbf51100000000000000095fbfe180900008040fc54d94110fa013a02080120a41bdb";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn write_the_same(path: &Path) {
        let mut writer = EventWriter::open(path, 1_700_000_000.5).unwrap();
        let values = [("train/loss", 0.8317), ("lr", 3e-4)];
        writer.scalars(300, 1_700_000_001.25, &values).unwrap();
        writer.resumed_at(250, 1_700_000_002.0).unwrap();
    }

    #[test]
    fn the_bytes_are_those_of_tensorboard() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.out.tfevents.7");
        write_the_same(&path);
        assert_eq!(hex(&std::fs::read(&path).unwrap()), FROM_PYTHON);
    }

    #[test]
    fn a_torn_end_is_cut_and_the_file_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::in_folder(folder.path(), 5.0).unwrap();
        writer.scalars(1, 6.0, &[("a", 0.5)]).unwrap();
        let path = writer.path().to_owned();
        let whole = std::fs::read(&path).unwrap();
        for torn in [1, 11, 13, 30] {
            let record = event::framed(&event::scalars(7.0, 2, &[("a", 0.25)]));
            std::fs::write(&path, [&whole, &record[..torn]].concat()).unwrap();
            let mut writer = EventWriter::in_folder(folder.path(), 99.0).unwrap();
            assert_eq!(writer.path(), path, "goes on with the same file");
            writer.scalars(2, 7.0, &[("a", 0.25)]).unwrap();
            let expected = [whole.clone(), record].concat();
            assert_eq!(std::fs::read(&path).unwrap(), expected, "torn after {torn}");
        }
    }

    #[test]
    fn other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        let text = "a text that is longer than one record of a file version";
        std::fs::write(&path, text).unwrap();
        let error = EventWriter::open(&path, 1.0).unwrap_err().to_string();
        assert!(error.contains("is no TensorBoard event file"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}
