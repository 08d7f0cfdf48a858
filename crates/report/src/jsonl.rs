//! Metrics as JSON lines: one object per line, each with the system when its call returns.
//!
//! A killed run leaves at most its last line torn; reading passes over it and going on cuts it
//! off. Numbers that JSON lacks (NaN, infinity) are written as `null`.

use crate::ReportError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A file of JSON lines, open at its end.
#[derive(Debug)]
pub struct Writer {
    file: File,
    path: PathBuf,
}

impl Writer {
    /// Starts a file.
    ///
    /// # Errors
    /// There is a file already, or it cannot be written.
    pub fn create(path: &Path) -> Result<Self, ReportError> {
        let file = OpenOptions::new().append(true).create_new(true).open(path);
        let file = file.map_err(ReportError::io("create", path))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Goes on after the last whole line; starts the file if there is none.
    ///
    /// # Errors
    /// The file cannot be read or written, or a line before the last one is no JSON object.
    pub fn append(path: &Path) -> Result<Self, ReportError> {
        Self::keep_while(path, |_| true)
    }

    /// Goes on from a checkpoint: lines whose `step` is `step` or later are dropped (that part
    /// of the run is about to be written again), and so is a torn last line.
    ///
    /// # Errors
    /// The file cannot be read or written, or a line before the last one is no JSON object.
    pub fn resume_at(path: &Path, step: u64) -> Result<Self, ReportError> {
        let number = |line: &Value| line.get("step").and_then(Value::as_f64);
        Self::keep_while(path, |line| number(line).is_none_or(|s| s < step as f64))
    }

    fn keep_while(path: &Path, keep: impl Fn(&Value) -> bool) -> Result<Self, ReportError> {
        if !path.exists() {
            return Self::create(path);
        }
        let text = read_text(path)?;
        let mut kept = String::with_capacity(text.len());
        for line in whole_lines(path, &text)? {
            if keep(&line.value) {
                kept.push_str(line.text);
                kept.push('\n');
            }
        }
        if kept.as_bytes() != text.as_bytes() {
            replace(path, kept.as_bytes())?;
        }
        let file = OpenOptions::new().append(true).open(path);
        let file = file.map_err(ReportError::io("open", path))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Writes one record as a line.
    ///
    /// # Errors
    /// The record is not a JSON object, or the file cannot be written.
    pub fn write(&mut self, record: &impl Serialize) -> Result<(), ReportError> {
        let not = |reason: String| ReportError::NotAnObject { reason };
        let mut line = serde_json::to_string(record).map_err(|e| not(e.to_string()))?;
        if !line.starts_with('{') {
            return Err(not(line));
        }
        line.push('\n');
        let written = self.file.write_all(line.as_bytes());
        written.map_err(ReportError::io("write", &self.path))
    }

    /// The file that is written.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What a file of JSON lines held.
#[derive(Clone, Debug, PartialEq)]
pub struct Lines<T> {
    /// The records in their order.
    pub records: Vec<T>,
    /// A last line was cut short (the run was killed while writing it) and was passed over.
    pub torn: bool,
}

/// Reads all records of a file.
///
/// # Errors
/// The file cannot be read, or a line (other than a torn last one) is not a `T`.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Lines<T>, ReportError> {
    let text = read_text(path)?;
    let lines = whole_lines(path, &text)?;
    let torn = !text.is_empty() && !text.ends_with('\n') && {
        let last = text.lines().last().unwrap_or_default();
        lines.last().is_none_or(|line| line.text != last)
    };
    let record = |line: Line<'_>| {
        let number = line.number;
        serde_json::from_value(line.value).map_err(|e| bad_line(path, number, e.to_string()))
    };
    let records = lines.into_iter().map(record).collect::<Result<_, _>>()?;
    Ok(Lines { records, torn })
}

struct Line<'a> {
    /// Counted from 1.
    number: usize,
    text: &'a str,
    value: Value,
}

/// Every line that holds a JSON object; a last line without its line break may be torn.
fn whole_lines<'a>(path: &Path, text: &'a str) -> Result<Vec<Line<'a>>, ReportError> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((i, line)) = lines.next() {
        let number = i + 1;
        if line.trim().is_empty() {
            continue;
        }
        let may_be_torn = lines.peek().is_none() && !text.ends_with('\n');
        match serde_json::from_str::<Value>(line) {
            Ok(value) if value.is_object() => found.push(Line { number, text: line, value }),
            _ if may_be_torn => {}
            Ok(_) => return Err(bad_line(path, number, "not a JSON object".to_owned())),
            Err(error) => return Err(bad_line(path, number, error.to_string())),
        }
    }
    Ok(found)
}

/// A torn line can end within a letter: what is no UTF-8 becomes a replacement character, and
/// the line is judged like any other.
fn read_text(path: &Path) -> Result<String, ReportError> {
    let bytes = std::fs::read(path).map_err(ReportError::io("read", path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Replaces the file as one step, so that a kill leaves the old or the new content.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    let written = File::create(&partial).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(ReportError::io("write", &partial))?;
    std::fs::rename(&partial, path).map_err(ReportError::io("write", path))
}

fn bad_line(path: &Path, line: usize, reason: String) -> ReportError {
    ReportError::BadLine { path: path.display().to_string(), line, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Step {
        step: u64,
        loss: Option<f64>,
    }

    fn steps(path: &Path) -> Vec<u64> {
        read::<Step>(path).unwrap().records.into_iter().map(|s| s.step).collect()
    }

    fn three_steps(path: &Path) {
        let mut writer = Writer::create(path).unwrap();
        for step in [10, 20, 30] {
            writer.write(&Step { step, loss: Some(0.5 + step as f64) }).unwrap();
        }
        writer.write(&Step { step: 40, loss: Some(f64::NAN) }).unwrap();
    }

    #[test]
    fn records_come_back_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        three_steps(&path);
        let lines = read::<Step>(&path).unwrap();
        assert!(!lines.torn);
        assert_eq!(lines.records[1], Step { step: 20, loss: Some(20.5) });
        assert_eq!(lines.records[3].loss, None);
        let again = Writer::create(&path).unwrap_err().to_string();
        assert!(again.starts_with("cannot create "), "{again}");
    }

    #[test]
    fn a_torn_last_line_is_passed_over_and_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        three_steps(&path);
        let mut bytes = std::fs::read(&path).unwrap();
        let whole = bytes.len();
        bytes.extend("{\"step\": 50, \"note\": \"é".as_bytes());
        for cut in [whole + 1, bytes.len() - 1, bytes.len()] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let lines = read::<Step>(&path).unwrap();
            assert!(lines.torn && lines.records.len() == 4, "cut at {cut}");
            let mut writer = Writer::append(&path).unwrap();
            writer.write(&Step { step: 60, loss: None }).unwrap();
            assert_eq!(steps(&path), [10, 20, 30, 40, 60]);
        }
    }

    #[test]
    fn a_last_line_that_lacks_only_its_break_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        std::fs::write(&path, "{\"step\": 7, \"loss\": 0.25}").unwrap();
        assert!(!read::<Step>(&path).unwrap().torn);
        Writer::append(&path).unwrap().write(&Step { step: 8, loss: None }).unwrap();
        assert_eq!(steps(&path), [7, 8]);
    }

    #[test]
    fn resuming_drops_what_will_be_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        three_steps(&path);
        Writer::resume_at(&path, 30).unwrap().write(&Step { step: 30, loss: None }).unwrap();
        assert_eq!(steps(&path), [10, 20, 30]);
    }

    #[test]
    fn a_broken_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        std::fs::write(&path, "{\"step\": 7}\n{\"step\": \n{\"step\": 9}\n").unwrap();
        let error = read::<Step>(&path).unwrap_err().to_string();
        assert!(error.contains("metrics.jsonl, line 2: "), "{error}");
        std::fs::write(&path, "{\"step\": 7}\n\n{\"step\": \"x\"}\n").unwrap();
        let error = read::<Step>(&path).unwrap_err().to_string();
        assert!(error.contains("line 3: ") && error.contains("expected u64"), "{error}");
    }

    #[test]
    fn only_objects_are_records() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let error = Writer::create(&path).unwrap().write(&[3, 4]).unwrap_err().to_string();
        assert_eq!(error, "a metrics record must be a JSON object: [3,4]");
    }
}
