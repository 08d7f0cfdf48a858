//! The metrics of a run as columns, read while the run goes on writing them.

use crate::ReportError;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Each number that records of a kind hold, over their `step`.
pub type Columns = BTreeMap<String, Vec<(f64, f64)>>;

/// Bytes read at a time.
const PIECE: usize = 1 << 20;
/// The last bytes that were read, by which a file is known again: a resumed run replaces its file by a shorter one.
const MARK: usize = 256;

/// What a file of JSON lines holds so far.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    most: u64,
    /// Bytes of whole lines that were taken, and how many lines they are.
    taken: u64,
    lines: usize,
    mark: Vec<u8>,
    broken: Option<(u64, usize, String)>,
    /// Of records with `"kind": "step"`.
    pub steps: Columns,
    /// Of records with `"kind": "evaluation"`.
    pub evaluations: Columns,
    /// Records with `"kind": "probe"`, whole: they hold a list for each measure, one value a layer.
    pub probes: Vec<Value>,
}

impl Metrics {
    /// Nothing read yet; a file of more than `most` bytes will be refused.
    pub fn new(path: &Path, most: u64) -> Self {
        Self {
            path: path.to_owned(),
            most,
            taken: 0,
            lines: 0,
            mark: Vec::new(),
            broken: None,
            steps: Columns::new(),
            evaluations: Columns::new(),
            probes: Vec::new(),
        }
    }

    /// Reads what is new; a last line without its end waits for the next time. Says whether anything was.
    ///
    /// # Errors
    /// The file cannot be read, is larger than allowed, or a line in it is no JSON object. What was read before the
    /// broken line stays.
    pub fn refresh(&mut self) -> Result<bool, ReportError> {
        let mut file = File::open(&self.path).map_err(ReportError::io("read", &self.path))?;
        let length = file.metadata().map_err(ReportError::io("read", &self.path))?.len();
        if length > self.most {
            let (path, most) = (self.path.display().to_string(), self.most);
            return Err(ReportError::TooLarge { path, bytes: length, most });
        }
        let mut changed = false;
        if !self.goes_on(&mut file, length)? {
            *self = Self::new(&self.path, self.most);
            changed = true;
        }
        if let Some((at, line, reason)) = &self.broken
            && *at == length
        {
            return Err(self.bad_line(*line, reason.clone()));
        }
        file.seek(SeekFrom::Start(self.taken)).map_err(ReportError::io("read", &self.path))?;
        let before = self.taken;
        self.take(&mut file, length)?;
        Ok(changed || self.taken > before)
    }

    /// Whether the file still begins with what was read.
    fn goes_on(&self, file: &mut File, length: u64) -> Result<bool, ReportError> {
        if length < self.taken {
            return Ok(false);
        }
        let mut now = vec![0; self.mark.len()];
        let read = file
            .seek(SeekFrom::Start(self.taken - self.mark.len() as u64))
            .and_then(|_| file.read_exact(&mut now));
        read.map_err(ReportError::io("read", &self.path))?;
        Ok(now == self.mark)
    }

    fn take(&mut self, file: &mut File, length: u64) -> Result<(), ReportError> {
        let mut rest: Vec<u8> = Vec::new();
        let mut file = file.take(length - self.taken);
        loop {
            let had = rest.len();
            rest.resize(had + PIECE, 0);
            let read = file.read(&mut rest[had..]).map_err(ReportError::io("read", &self.path))?;
            rest.truncate(had + read);
            let Some(end) = rest.iter().rposition(|b| *b == b'\n') else {
                if read == 0 {
                    return Ok(());
                }
                continue;
            };
            let whole: Vec<u8> = rest.drain(..=end).collect();
            for line in whole.split_inclusive(|b| *b == b'\n') {
                self.line(line).map_err(|reason| {
                    self.broken = Some((length, self.lines + 1, reason.clone()));
                    self.bad_line(self.lines + 1, reason)
                })?;
                self.taken += line.len() as u64;
                self.lines += 1;
                self.mark = line[line.len().saturating_sub(MARK)..].to_vec();
            }
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), String> {
        let text = String::from_utf8_lossy(line);
        if text.trim().is_empty() {
            return Ok(());
        }
        let value: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let Value::Object(record) = value else { return Err("not a JSON object".into()) };
        let columns = match record.get("kind").and_then(Value::as_str) {
            Some("step") => &mut self.steps,
            Some("evaluation") => &mut self.evaluations,
            Some("probe") => {
                self.probes.push(Value::Object(record));
                return Ok(());
            }
            _ => return Ok(()),
        };
        let Some(step) = record.get("step").and_then(Value::as_f64) else { return Ok(()) };
        for (name, value) in &record {
            if let (Some(value), true) = (value.as_f64(), name != "step") {
                columns.entry(name.clone()).or_default().push((step, value));
            }
        }
        Ok(())
    }

    fn bad_line(&self, line: usize, reason: String) -> ReportError {
        ReportError::BadLine { path: self.path.display().to_string(), line, reason }
    }
}

/// The last record of each kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Last {
    /// Of a step.
    pub step: Option<Map<String, Value>>,
    /// Of an evaluation.
    pub evaluation: Option<Map<String, Value>>,
}

/// The last records of a file of any size, from its last 64 KiB; lines there that are none are passed over.
///
/// # Errors
/// The file cannot be read.
pub fn last(path: &Path) -> Result<Last, ReportError> {
    const TAIL: u64 = 64 * 1024;
    let io = || ReportError::io("read", path);
    let mut file = File::open(path).map_err(io())?;
    let length = file.metadata().map_err(io())?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).map_err(io())?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).map_err(io())?;
    let mut found = Last::default();
    for line in String::from_utf8_lossy(&bytes).lines().rev() {
        let Ok(Value::Object(record)) = serde_json::from_str(line) else { continue };
        let place = match record.get("kind").and_then(Value::as_str) {
            Some("step") => &mut found.step,
            Some("evaluation") => &mut found.evaluation,
            _ => continue,
        };
        place.get_or_insert(record);
    }
    Ok(found)
}

/// A column, empty where there is none.
pub fn column<'c>(columns: &'c Columns, name: &str) -> &'c [(f64, f64)] {
    columns.get(name).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn step(n: usize, loss: f64) -> String {
        format!("{{\"kind\": \"step\", \"step\": {n}, \"loss\": {loss}, \"note\": \"x\"}}\n")
    }

    fn append(path: &Path, text: &str) {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn a_growing_file_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        append(&path, &(step(1, 2.5) + &step(2, 2.25)));
        let mut metrics = Metrics::new(&path, 1 << 20);
        assert!(metrics.refresh().unwrap());
        assert!(!metrics.refresh().unwrap());
        append(&path, &step(3, 1.75)[..20]);
        assert!(!metrics.refresh().unwrap());
        append(
            &path,
            &(step(3, 1.75)[20..].to_owned() + "{\"kind\":\"evaluation\",\"step\":3,\"eval_loss\":2.0}\n"),
        );
        assert!(metrics.refresh().unwrap());
        assert_eq!(column(&metrics.steps, "loss"), [(1.0, 2.5), (2.0, 2.25), (3.0, 1.75)]);
        assert_eq!(column(&metrics.evaluations, "eval_loss"), [(3.0, 2.0)]);
        assert_eq!(column(&metrics.steps, "note"), []);
    }

    #[test]
    fn a_resumed_run_replaces_what_it_writes_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        append(&path, &(1..=4).map(|n| step(n, 2.5)).collect::<String>());
        let mut metrics = Metrics::new(&path, 1 << 20);
        metrics.refresh().unwrap();
        // As long as before, and longer: only the content tells.
        std::fs::write(&path, (1..=4).map(|n| step(n, if n > 2 { 1.5 } else { 2.5 })).collect::<String>())
            .unwrap();
        append(&path, &step(5, 1.5));
        assert!(metrics.refresh().unwrap());
        let losses: Vec<f64> = column(&metrics.steps, "loss").iter().map(|p| p.1).collect();
        assert_eq!(losses, [2.5, 2.5, 1.5, 1.5, 1.5]);
        std::fs::write(&path, "").unwrap();
        assert!(metrics.refresh().unwrap() && metrics.steps.is_empty());
    }

    #[test]
    fn the_last_records_of_a_large_file_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        append(&path, &(1..=3000).map(|n| step(n, 1.0 / n as f64)).collect::<String>());
        append(&path, "{\"kind\":\"evaluation\",\"step\":3000,\"eval_loss\":2.0}\n{\"kind\": \"st");
        let last = last(&path).unwrap();
        assert_eq!(last.step.unwrap()["step"], 3000);
        assert_eq!(last.evaluation.unwrap()["eval_loss"], 2.0);
    }

    #[test]
    fn what_is_broken_or_huge_is_said_and_what_came_before_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        append(&path, &(step(1, 2.5) + "{\"kind\": \n" + &step(3, 1.0)));
        let mut metrics = Metrics::new(&path, 1 << 20);
        for _ in 0..2 {
            let error = metrics.refresh().unwrap_err().to_string();
            assert!(error.contains("metrics.jsonl, line 2: "), "{error}");
        }
        assert_eq!(column(&metrics.steps, "loss"), [(1.0, 2.5)]);
        let error = Metrics::new(&path, 100).refresh().unwrap_err().to_string();
        assert!(error.contains("has ") && error.contains("100 bytes"), "{error}");
    }
}
