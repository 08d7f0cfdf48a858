//! Result files as lm-evaluation-harness lays them out, so that its readers read ours.
//!
//! `results_<date>.json` holds every task's numbers under `"<metric>,<filter>"` with
//! `"<metric>_stderr,<filter>"` beside it; `samples_<task>_<date>.jsonl` holds one line a row and filter.

mod date;
pub mod rescore;

pub use date::iso_utc;

use crate::Error;
use crate::metrics::{Metric, Score};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The filter of numbers that no answer reading stands behind.
pub const NO_FILTER: &str = "none";

/// The value of `judged_by` in the configuration of a task of written answers that was judged without writing any.
pub const BY_LIKELIHOOD: &str = "likelihood";

/// One number of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskScore {
    /// What was measured.
    pub metric: Metric,
    /// [`NO_FILTER`], or the name of the answer reading.
    pub filter: String,
    /// The value and its error.
    pub score: Score,
}

/// All that is reported of one task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskResult {
    /// The task.
    pub task: String,
    /// Its file's version.
    pub version: u32,
    /// Its numbers.
    pub scores: Vec<TaskScore>,
    /// Rows in the split before a limit.
    pub original: usize,
    /// Rows evaluated.
    pub effective: usize,
    /// Worked rows before each prompt.
    pub shots: usize,
    /// Responses without an answer, by reading.
    pub without_answer: Vec<(String, usize)>,
    /// What a reader must know beside the numbers: protocol, files, notes; the caller's own object.
    pub config: Value,
}

/// A run's results.
#[derive(Debug, Clone, PartialEq)]
pub struct RunResults {
    /// Model, adapter, batch and the like; the caller's own object.
    pub config: Value,
    /// When the evaluation began.
    pub date: SystemTime,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The model's name.
    pub model: String,
    /// This program's version.
    pub program: String,
    /// The tasks.
    pub tasks: Vec<TaskResult>,
}

impl RunResults {
    /// The JSON value of the results file, without the sample hashes.
    pub fn to_json(&self) -> Value {
        let by_task = |value: &dyn Fn(&TaskResult) -> Value| -> Value {
            self.tasks.iter().map(|t| (t.task.clone(), value(t))).collect::<Map<String, Value>>().into()
        };
        let began = self.date.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        json!({
            "results": by_task(&task_numbers),
            "group_subtasks": by_task(&|_| json!([])),
            "configs": by_task(&|t| t.config.clone()),
            "versions": by_task(&|t| json!(t.version)),
            "n-shot": by_task(&|t| json!(t.shots)),
            "higher_is_better": by_task(&|t| {
                let names = t.scores.iter().map(|s| (s.metric.name().to_owned(), json!(true)));
                names.collect::<Map<String, Value>>().into()
            }),
            "n-samples": by_task(&|t| json!({"original": t.original, "effective": t.effective})),
            "config": self.config,
            "date": began,
            "model_name": self.model,
            "sibo_version": self.program,
            "total_evaluation_time_seconds": self.seconds.to_string(),
        })
    }
}

fn task_numbers(task: &TaskResult) -> Value {
    let mut out = Map::new();
    out.insert("alias".into(), json!(task.task));
    out.insert("sample_len".into(), json!(task.effective));
    for TaskScore { metric, filter, score } in &task.scores {
        out.insert(format!("{},{filter}", metric.name()), json!(score.value));
        // The harness writes "N/A" where there is no error to be had.
        out.insert(
            format!("{}_stderr,{filter}", metric.name()),
            score.stderr.map_or(json!("N/A"), |e| json!(e)),
        );
    }
    for (filter, count) in &task.without_answer {
        out.insert(format!("without_answer,{filter}"), json!(count));
    }
    out.into()
}

/// One row as it was asked and answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The row's index in its file.
    pub doc_id: u64,
    /// The row itself ([`crate::Example`] serialises into it).
    pub doc: Value,
    /// The right answer.
    pub target: String,
    /// What the model was asked: context and continuation of each choice, or prompt and settings.
    pub arguments: Vec<(String, String)>,
    /// What it gave: a log-likelihood of each choice, or the response.
    pub responses: Vec<String>,
    /// The same after answer reading.
    pub filtered: Vec<String>,
    /// [`NO_FILTER`], or the name of the answer reading.
    pub filter: String,
    /// The row's own values of the metrics.
    pub metrics: Vec<(Metric, f64)>,
}

#[derive(Serialize)]
struct Hashes {
    doc_hash: String,
    prompt_hash: String,
    target_hash: String,
}

impl Sample {
    fn hashes(&self) -> Hashes {
        Hashes {
            doc_hash: sha256(&self.doc.to_string()),
            prompt_hash: sha256(self.arguments.first().map_or("", |(prompt, _)| prompt)),
            target_hash: sha256(&self.target),
        }
    }

    /// The JSON value of the sample's line.
    pub fn to_json(&self) -> Value {
        let arguments: Map<String, Value> = self
            .arguments
            .iter()
            .enumerate()
            .map(|(i, (first, second))| (format!("gen_args_{i}"), json!({"arg_0": first, "arg_1": second})))
            .collect();
        let hashes = self.hashes();
        let mut line = json!({
            "doc_id": self.doc_id,
            "doc": self.doc,
            "target": self.target,
            "arguments": arguments,
            "resps": self.responses.iter().map(|r| json!([r])).collect::<Vec<_>>(),
            "filtered_resps": self.filtered,
            "filter": self.filter,
            "metrics": self.metrics.iter().map(|(m, _)| m.name()).collect::<Vec<_>>(),
            "doc_hash": hashes.doc_hash,
            "prompt_hash": hashes.prompt_hash,
            "target_hash": hashes.target_hash,
        });
        for (metric, value) in &self.metrics {
            line[metric.name()] = json!(value);
        }
        line
    }
}

/// In hexadecimal.
pub(crate) fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The files of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// `results_<date>.json`
    pub results: PathBuf,
    /// `samples_<task>_<date>.jsonl`, one a task with samples.
    pub samples: Vec<PathBuf>,
}

/// Writes a run's files into `folder`, each whole or not at all; the results file last, so that where it
/// stands its samples stand too.
pub fn write(folder: &Path, run: &RunResults, samples: &[(String, Vec<Sample>)]) -> Result<Written, Error> {
    // Colons are no file name characters on every system; the harness replaces them too.
    let date = iso_utc(run.date).replace(':', "-");
    let mut written = Vec::new();
    let mut task_hashes = Map::new();
    for (task, rows) in samples {
        let path = folder.join(format!("samples_{task}_{date}.jsonl"));
        let text: String = rows.iter().map(|row| row.to_json().to_string() + "\n").collect();
        sibo_files::write(&path, text.as_bytes())?;
        let all: String =
            rows.iter().map(Sample::hashes).map(|h| h.doc_hash + &h.prompt_hash + &h.target_hash).collect();
        task_hashes.insert(task.clone(), json!(sha256(&all)));
        written.push(path);
    }
    let mut value = run.to_json();
    value["task_hashes"] = task_hashes.into();
    let results = folder.join(format!("results_{date}.json"));
    sibo_files::write(&results, format!("{value:#}\n").as_bytes())?;
    Ok(Written { results, samples: written })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn run() -> RunResults {
        let score = |value, stderr| Score { value, stderr };
        RunResults {
            config: json!({"model": "tiny", "lambda": 0.35}),
            date: SystemTime::UNIX_EPOCH + Duration::from_micros(1_714_567_890_123_456),
            seconds: 3.5,
            model: "tiny".into(),
            program: "0.1.0".into(),
            tasks: vec![TaskResult {
                task: "gsm8k".into(),
                version: 3,
                scores: vec![
                    TaskScore {
                        metric: Metric::ExactMatch,
                        filter: "strict-match".into(),
                        score: score(0.25, Some(0.07)),
                    },
                    TaskScore { metric: Metric::Mcc, filter: NO_FILTER.into(), score: score(0.5, None) },
                ],
                original: 1319,
                effective: 40,
                shots: 5,
                without_answer: vec![("strict-match".into(), 7)],
                config: json!({"protocol": "lm-eval"}),
            }],
        }
    }

    #[test]
    fn numbers_lie_where_the_harness_puts_them() {
        let folder = tempfile::tempdir().unwrap();
        let sample = Sample {
            doc_id: 12,
            doc: json!({"question": "é?"}),
            target: "7".into(),
            arguments: vec![("Question: é?".into(), "{}".into())],
            responses: vec!["#### 7".into()],
            filtered: vec!["7".into()],
            filter: "strict-match".into(),
            metrics: vec![(Metric::ExactMatch, 1.0)],
        };
        let written = write(folder.path(), &run(), &[("gsm8k".into(), vec![sample])]).unwrap();
        let name = written.results.file_name().unwrap().to_str().unwrap();
        assert_eq!(name, "results_2024-05-01T12-51-30.123456.json");
        let value: Value = serde_json::from_slice(&std::fs::read(&written.results).unwrap()).unwrap();
        assert_eq!(value["results"]["gsm8k"]["exact_match,strict-match"], 0.25);
        assert_eq!(value["results"]["gsm8k"]["exact_match_stderr,strict-match"], 0.07);
        assert_eq!(value["results"]["gsm8k"]["mcc_stderr,none"], "N/A");
        assert_eq!(value["results"]["gsm8k"]["without_answer,strict-match"], 7);
        assert_eq!(value["n-samples"]["gsm8k"], json!({"original": 1319, "effective": 40}));
        assert_eq!(value["task_hashes"]["gsm8k"].as_str().unwrap().len(), 64);
        let line = std::fs::read_to_string(&written.samples[0]).unwrap();
        let line: Value = serde_json::from_str(line.trim_end()).unwrap();
        assert_eq!(line["arguments"]["gen_args_0"]["arg_0"], "Question: é?");
        assert_eq!((&line["resps"], &line["exact_match"]), (&json!([["#### 7"]]), &json!(1.0)));
        // sha256 of "7"
        assert!(
            line["target_hash"].as_str().unwrap().starts_with("7902699be42c8a8e46fbbb4501726517e86b22c5")
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("taken");
        std::fs::write(&file, "x").unwrap();
        assert!(write(&file, &run(), &[]).unwrap_err().to_string().contains("taken"));
    }
}
