//! A study as its `results.json` holds it, and what its test says.

use serde_json::Value;
use sibo_report::{Cell, Estimate};
use sibo_tasks::stats::{self, Interval};
use std::collections::BTreeMap;
use std::path::Path;

/// The arm without SIBO.
pub(crate) const PLAIN: &str = "lambda 0";

/// What holds the baselines of a task.
const BASELINES: &str = "baselines";

/// One study: rows and a method, plain and boosted; or a task and the baselines.
pub(crate) struct Study {
    /// What it learned, as its folder is called.
    pub(crate) learned: String,
    pub(crate) method: String,
    pub(crate) value: Value,
}

/// The test's answer to "plain or boosted?", on one task.
pub(crate) struct Answer {
    pub(crate) task: String,
    /// Whether the task is one that was learned.
    pub(crate) near: bool,
    pub(crate) metric: String,
    /// What was read of an answer: `answer`, `reasoning`; empty where nothing was.
    pub(crate) reading: String,
    /// The second arm; of a sweep, its lambda.
    pub(crate) lambda: String,
    pub(crate) plain: f64,
    pub(crate) boosted: f64,
    pub(crate) difference: Interval,
    pub(crate) rows: u64,
}

impl Answer {
    /// Which of the two is better, where rows and seeds tell them apart; `second` is what the second is called.
    pub(crate) fn verdict(&self, second: &str) -> String {
        // Resampled rows of which none differs give an interval of no width, which is no certainty.
        let alike = self.difference.low == self.difference.high && self.difference.estimate == 0.0;
        match (self.difference.holds_zero(), self.difference.estimate > 0.0) {
            (true, _) if alike => "not one row differs".into(),
            (true, _) => "not told apart".into(),
            (false, true) => format!("{second} better"),
            (false, false) => "plain better".into(),
        }
    }

    /// The boosted arm's whole name.
    pub(crate) fn boosted_arm(&self) -> String {
        format!("lambda {}", self.lambda)
    }
}

impl Study {
    /// Every finished study below a suite's folder whose name starts with `starts`, by name.
    pub(crate) fn read_all(folder: &Path, starts: &str) -> anyhow::Result<Vec<Study>> {
        let mut studies = Vec::new();
        let mut names: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().collect();
        names.sort_by_key(|e| e.file_name());
        for entry in names {
            let name = entry.file_name().to_string_lossy().into_owned();
            let file = entry.path().join("results.json");
            let (Some((learned, method)), true) = (name.split_once('-'), file.is_file()) else { continue };
            if !name.starts_with(starts) {
                continue;
            }
            let value = sibo_files::json::read(&file)?;
            studies.push(Study { learned: learned.into(), method: method.into(), value });
        }
        Ok(studies)
    }

    pub(crate) fn is_baseline(&self) -> bool {
        self.method == BASELINES
    }

    /// Seconds and number of its cells.
    pub(crate) fn cost(&self) -> (usize, f64) {
        let cells = || list(&self.value["cells"]);
        (cells().count(), cells().filter_map(|c| c["seconds"].as_f64()).sum())
    }

    /// Test scores of the first metric: (arm, mean).
    pub(crate) fn scores(&self) -> Vec<(String, f64)> {
        let own = list(&self.value["scores"]).find(|s| s["question"]["split"] == "test");
        let arms = own.map(|s| list(&s["arms"])).into_iter().flatten();
        arms.filter_map(|arm| Some((arm["arm"].as_str()?.to_string(), arm["mean"].as_f64()?))).collect()
    }

    /// Of each task that was tested and each reading of its answers, the first metric.
    pub(crate) fn answers(&self) -> Vec<Answer> {
        self.answers_on("test")
    }

    /// Of each task, reading and pair that a split judged, the first metric; of a study of baselines, which holds nothing
    /// against SIBO, none.
    pub(crate) fn answers_on(&self, split: &str) -> Vec<Answer> {
        if self.is_baseline() {
            return vec![];
        }
        let mut answers: Vec<Answer> = Vec::new();
        for found in list(&self.value["comparisons"]).filter(|c| c["question"]["split"] == split) {
            let new = |answer: &Answer| {
                answers.iter().all(|own| {
                    (&own.task, &own.lambda, &own.reading) != (&answer.task, &answer.lambda, &answer.reading)
                })
            };
            if let Some(answer) = self.answer(found).filter(new) {
                answers.push(answer);
            }
        }
        answers
    }

    fn answer(&self, found: &Value) -> Option<Answer> {
        let (comparison, interval) = (&found["comparison"], &found["interval"]);
        let mean = |key: &str| {
            let values: Vec<f64> = list(&comparison[key]).filter_map(Value::as_f64).collect();
            values.iter().sum::<f64>() / values.len() as f64
        };
        let task = found["question"]["task"].as_str()?;
        let own = &self.value["recipe"]["task"];
        Some(Answer {
            task: match self.value["variants"][task].as_str() {
                Some(variant) => format!("{task} ({variant})"),
                None => task.into(),
            },
            near: is_called(own, task) || list(own).any(|own| is_called(own, task)),
            reading: found["question"]["filter"].as_str().filter(|f| *f != "none").unwrap_or_default().into(),
            metric: comparison["metric"].as_str().unwrap_or("score").into(),
            lambda: comparison["b"].as_str()?.trim_start_matches("lambda ").into(),
            plain: mean("a_by_seed"),
            boosted: mean("b_by_seed"),
            difference: Interval {
                estimate: found["difference"].as_f64()?,
                low: interval["low"].as_f64()?,
                high: interval["high"].as_f64()?,
                level: stats::LEVEL,
            },
            rows: comparison["rows"].as_u64().unwrap_or(0),
        })
    }

    /// Mean over seeds of a number of the cells, by arm.
    pub(crate) fn by_arm(&self, key: &str) -> BTreeMap<String, f64> {
        let mut found: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for cell in list(&self.value["cells"]) {
            if let (Some(arm), Some(value)) = (cell["arm"].as_str(), cell[key].as_f64()) {
                found.entry(arm.into()).or_default().push(value);
            }
        }
        found.into_iter().map(|(arm, v)| (arm, v.iter().sum::<f64>() / v.len() as f64)).collect()
    }

    /// How much less alike the last layer's tokens are: SIBO - plain.
    pub(crate) fn fall(&self) -> Option<f64> {
        let (answers, similarity) = (self.answers(), self.by_arm("similarity"));
        Some(similarity.get(&answers.first()?.boosted_arm())? - similarity.get(PLAIN)?)
    }
}

/// Whether a recipe's task is the one of this name; it may be given as a file.
fn is_called(own: &Value, name: &str) -> bool {
    let own = own.as_str().map(Path::new);
    own.is_some_and(|own| own == Path::new(name) || own.file_stem().is_some_and(|stem| stem == name))
}

pub(crate) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// An interval as a table's cell.
pub(crate) fn between(i: Interval) -> Cell {
    Cell::Estimate(Estimate::between(i.estimate, i.low, i.high))
}
