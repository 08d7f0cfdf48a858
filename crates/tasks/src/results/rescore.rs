//! Reads saved answers again: another way to read them costs no generation.

use super::{NO_FILTER, Sample, TaskResult, TaskScore};
use crate::answer::{Reading, Tally};
use crate::metrics::choice::Picks;
use crate::metrics::{Bootstrap, Predictions};
use crate::{Error, Metric, Protocol, Task};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A task whose saved answers were read again.
#[derive(Debug, Clone, PartialEq)]
pub struct Rescored {
    /// Its numbers now.
    pub result: TaskResult,
    /// Its numbers as they were saved, under the same metric and filter; none where there was none.
    pub before: Vec<Option<f64>>,
    /// Its rows now.
    pub samples: Vec<Sample>,
    /// Rows that are right now and were wrong, or the other way round, of readings that were saved too.
    pub changed: usize,
}

/// How answers are to be read again.
#[derive(Debug, Clone, Default)]
pub struct Rereading {
    /// Tasks that are to be read by these files, rather than by the program's own or the one that was used.
    pub tasks: Vec<Task>,
    /// Readings instead of those of the task's file.
    pub readings: Vec<Reading>,
}

/// The results file in `folder` that was written last.
pub fn latest(folder: &Path) -> Result<PathBuf, Error> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::read(folder, e))?;
    let is_results = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("results_") && name.ends_with(".json")
    };
    // The date in the name sorts as time does.
    entries.flatten().map(|e| e.path()).filter(is_results).max().ok_or_else(|| {
        saved(folder, "no results_<date>.json in it; give a folder that `sibo eval --output` wrote".into())
    })
}

/// Reads the answers of every task beside the `results` file again.
pub fn rescore(results: &Path, rereading: &Rereading) -> Result<Vec<Rescored>, Error> {
    let bytes = std::fs::read(results).map_err(|e| Error::read(results, e))?;
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|e| saved(results, format!("not the JSON of a results file: {e}")))?;
    let tasks = value["results"].as_object().filter(|tasks| !tasks.is_empty());
    let tasks = tasks.ok_or_else(|| saved(results, "no task in its `results`".into()))?;
    tasks.keys().map(|name| one(results, &value, name, rereading)).collect()
}

fn one(results: &Path, value: &Value, name: &str, rereading: &Rereading) -> Result<Rescored, Error> {
    let config = &value["configs"][name];
    let given = rereading.tasks.iter().find(|t| t.name() == name);
    let task = match (given, config["task_file"].as_str().map(Path::new)) {
        (Some(task), _) => task.clone(),
        (None, Some(file)) if file.is_file() => Task::from_file(file)?,
        (None, _) => Task::named(name)?,
    };
    if config["judged_by"] == json!(super::BY_LIKELIHOOD) {
        let problem = format!(
            "`{name}` was judged by the likelihood of its gold texts; nothing was written that could be read again"
        );
        return Err(saved(results, problem));
    }
    let samples = read_samples(results, name)?;
    let protocol: Protocol = match config["protocol"].as_str().unwrap_or_default() {
        "class head" => {
            return Err(saved(
                results,
                format!(
                    "`{name}` was answered by a class head; nothing was written that could be read again"
                ),
            ));
        }
        protocol => protocol.parse()?,
    };
    let (samples, predictions, without_answer) = match task.is_generated(protocol) {
        true => written(&task, protocol, &samples, &rereading.readings)?,
        false => chosen(&task, protocol, &samples)?,
    };
    let scores = predictions.iter().map(|(metric, filter, predictions)| {
        let score = metric.score(predictions, &Bootstrap::default())?;
        Ok(TaskScore { metric: *metric, filter: filter.clone(), score })
    });
    let scores: Vec<TaskScore> = scores.collect::<Result<_, Error>>()?;
    let old = |s: &TaskScore| value["results"][name][format!("{},{}", s.metric.name(), s.filter)].as_f64();
    let count = |key: &str| value["n-samples"][name][key].as_u64().unwrap_or_default() as usize;
    let effective = predictions.first().map_or(0, |(_, _, p)| p.len());
    let mut config = config.clone();
    config["rescored_from"] = json!(results.file_name().unwrap_or_default().to_string_lossy());
    let before = scores.iter().map(old).collect();
    let changed = changed(results, name, &samples)?;
    let result = TaskResult {
        task: name.into(),
        version: task.spec().version,
        scores,
        original: count("original"),
        effective,
        shots: value["n-shot"][name].as_u64().unwrap_or_default() as usize,
        without_answer,
        config,
    };
    Ok(Rescored { result, before, samples, changed })
}

type Scored = (Vec<Sample>, Vec<(Metric, String, Predictions)>, Vec<(String, usize)>);

/// Written answers: one record a row and reading.
fn written(task: &Task, protocol: Protocol, saved: &[Sample], readings: &[Reading]) -> Result<Scored, Error> {
    // Each row was saved once for each reading; its response is the same in all of them.
    let first = saved.first().map(|s| s.filter.clone()).unwrap_or_default();
    let mut samples = Vec::new();
    let mut all = Vec::new();
    for old in saved.iter().filter(|s| s.filter == first) {
        let response = old.responses.first().map(String::as_str).unwrap_or_default();
        for judged in task.judge(protocol, response, &old.target, readings)? {
            samples.push(Sample {
                filtered: vec![judged.answer.clone().unwrap_or_default()],
                filter: judged.reading.name().into(),
                metrics: vec![(Metric::ExactMatch, f64::from(u8::from(judged.right)))],
                ..old.clone()
            });
            all.push(judged);
        }
    }
    let mut used: Vec<Reading> = Vec::new();
    all.iter().for_each(|j| {
        if !used.contains(&j.reading) {
            used.push(j.reading)
        }
    });
    let tallies: Vec<Tally> = used.into_iter().map(|reading| Tally::of(reading, &all)).collect();
    let without = tallies.iter().map(|t| (t.reading.name().to_owned(), t.without_answer)).collect();
    let of = |t: Tally| (Metric::ExactMatch, t.reading.name().to_owned(), Predictions::Right(t.right));
    Ok((samples, tallies.into_iter().map(of).collect(), without))
}

/// Likelihoods of choices: which choice each metric picks.
fn chosen(task: &Task, protocol: Protocol, saved: &[Sample]) -> Result<Scored, Error> {
    let metrics = task.metrics(Some(protocol));
    let delimiter = task.spec().prompt.get(&protocol).map_or(" ", |p| p.delimiter.as_str());
    let (mut samples, mut picked) = (Vec::new(), Vec::new());
    for old in saved {
        let wrong =
            |what: &str| Error::numbers(format!("row {}", old.doc_id), format!("{what} in its saved sample"));
        let choice = |(_, text): &(String, String)| text.strip_prefix(delimiter).unwrap_or(text).to_owned();
        let choices: Vec<String> = old.arguments.iter().map(choice).collect();
        let likelihoods: Result<Vec<f64>, _> = old.responses.iter().map(|r| r.parse::<f64>()).collect();
        let picks = Picks::of(&likelihoods.map_err(|_| wrong("a likelihood is no number"))?, &choices)?;
        let gold: u32 = old.target.parse().map_err(|_| wrong("the target is no choice"))?;
        let right = |m: &Metric| f64::from(u8::from(m.pick(&picks) as u32 == gold));
        samples.push(Sample {
            filtered: vec![picks.plain.to_string()],
            metrics: metrics.iter().filter(|m| m.is_share()).map(|m| (*m, right(m))).collect(),
            ..old.clone()
        });
        picked.push((gold, picks));
    }
    let of = |metric: &Metric| {
        let gold = picked.iter().map(|(gold, _)| *gold).collect();
        let predicted = picked.iter().map(|(_, picks)| metric.pick(picks) as u32).collect();
        (*metric, NO_FILTER.to_owned(), Predictions::Classes { gold, predicted })
    };
    Ok((samples, metrics.iter().map(of).collect(), vec![]))
}

/// The saved records of a task beside its results file.
fn read_samples(results: &Path, task: &str) -> Result<Vec<Sample>, Error> {
    let name = results.file_name().unwrap_or_default().to_string_lossy();
    let date = name.trim_start_matches("results_").trim_end_matches(".json");
    let path = results.with_file_name(format!("samples_{task}_{date}.jsonl"));
    if !path.is_file() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Err(saved(
            results,
            format!("no {name} beside it; `sibo eval --log-samples` keeps the answers"),
        ));
    }
    let text = crate::read::text::read(&path)?;
    let lines = crate::read::text::lines(&text).filter(|(_, line)| !line.trim().is_empty());
    let samples: Vec<Sample> = lines
        .map(|(number, line)| {
            let value = serde_json::from_str(line).map_err(|e| e.to_string());
            let sample = value.and_then(|value: Value| Sample::from_json(&value));
            sample.map_err(|problem| saved(&path, format!("line {number}: {problem}")))
        })
        .collect::<Result<_, _>>()?;
    if samples.is_empty() {
        return Err(Error::NoRows { path });
    }
    Ok(samples)
}

/// Saved rows whose first value differs now.
fn changed(results: &Path, task: &str, now: &[Sample]) -> Result<usize, Error> {
    let before = read_samples(results, task)?;
    let other = |old: &&Sample| {
        let same = |new: &&Sample| new.doc_id == old.doc_id && new.filter == old.filter;
        now.iter().find(same).is_some_and(|new| new.metrics.first() != old.metrics.first())
    };
    Ok(before.iter().filter(other).count())
}

fn saved(path: &Path, problem: String) -> Error {
    Error::Saved { path: path.to_owned(), problem }
}

impl Sample {
    /// The record of a line as [`Sample::to_json`] writes it; the error says what is missing.
    pub fn from_json(line: &Value) -> Result<Sample, String> {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let array = |key: &str| line[key].as_array().ok_or_else(|| format!("no array `{key}`"));
        let pairs = line["arguments"].as_object().ok_or("no object `arguments`")?;
        let metrics = array("metrics")?.iter().filter_map(|name| {
            let metric = Metric::named(name.as_str()?)?;
            Some((metric, line[metric.name()].as_f64()?))
        });
        Ok(Sample {
            doc_id: line["doc_id"].as_u64().ok_or("no number `doc_id`")?,
            doc: line["doc"].clone(),
            target: text(&line["target"]),
            arguments: pairs.values().map(|pair| (text(&pair["arg_0"]), text(&pair["arg_1"]))).collect(),
            responses: array("resps")?.iter().map(|r| text(&r[0])).collect(),
            filtered: array("filtered_resps")?.iter().map(text).collect(),
            filter: line["filter"].as_str().ok_or("no text `filter`")?.to_owned(),
            metrics: metrics.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{RunResults, write};
    use std::time::{Duration, SystemTime};

    fn sample(id: u64, filter: &str, response: &str, target: &str, right: f64) -> Sample {
        Sample {
            doc_id: id,
            doc: json!({"question": "q"}),
            target: target.into(),
            arguments: vec![("prompt".into(), "{}".into())],
            responses: vec![response.into()],
            filtered: vec!["?".into()],
            filter: filter.into(),
            metrics: vec![(Metric::ExactMatch, right)],
        }
    }

    fn folder(task: &str, protocol: &str, samples: Vec<Sample>) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let result = TaskResult {
            task: task.into(),
            version: 1,
            scores: vec![],
            original: 70,
            effective: 3,
            shots: 0,
            without_answer: vec![],
            config: json!({"protocol": protocol}),
        };
        let run = RunResults {
            config: json!({}),
            date: SystemTime::UNIX_EPOCH + Duration::from_secs(1_714_567_890),
            seconds: 1.0,
            model: "m".into(),
            program: "0".into(),
            tasks: vec![result],
        };
        write(folder.path(), &run, &[(task.to_owned(), samples)]).unwrap();
        folder
    }

    fn again(folder: &tempfile::TempDir, rereading: &Rereading) -> Result<Vec<Rescored>, Error> {
        rescore(&latest(folder.path())?, rereading)
    }

    #[test]
    fn saved_responses_are_read_by_the_rules_of_now_or_by_others() {
        let rows = vec![
            sample(3, "last-number", "It is 12. ### Response: 5", "12", 0.0),
            sample(5, "last-number", "#### 7 then 9", "7", 0.0),
            sample(8, "last-number", "none", "7", 0.0),
        ];
        let folder = folder("gsm8k", "llm-adapters", rows);
        let done = again(&folder, &Rereading::default()).unwrap().remove(0);
        // Row 3 is cut where the project cuts; the saved record was made without that rule.
        assert_eq!((done.result.scores[0].score.value, done.changed), (1.0 / 3.0, 1));
        assert_eq!((done.result.original, done.result.effective), (70, 3));
        assert_eq!(done.result.without_answer, [("last-number".to_owned(), 1)]);
        let other =
            Rereading { readings: vec![Reading::StrictMatch, Reading::LastNumber], ..Rereading::default() };
        let done = again(&folder, &other).unwrap().remove(0);
        let values: Vec<f64> = done.result.scores.iter().map(|s| s.score.value).collect();
        assert_eq!((values, done.samples.len()), (vec![1.0 / 3.0, 1.0 / 3.0], 6));
        assert_eq!(done.samples[2].filtered, ["7"]);
    }

    #[test]
    fn saved_likelihoods_are_picked_again() {
        let mut row = sample(4, NO_FILTER, "-3.0", "1", 0.0);
        row.arguments = vec![("c".into(), " ab".into()), ("c".into(), " abcdefgh".into())];
        row.responses = vec!["-3.0".into(), "-10.0".into()];
        row.metrics = vec![(Metric::Acc, 1.0), (Metric::AccNorm, 1.0)];
        let folder = folder("arc-easy", "lm-eval", vec![row]);
        let done = again(&folder, &Rereading::default()).unwrap().remove(0);
        let values: Vec<f64> = done.result.scores.iter().map(|s| s.score.value).collect();
        assert_eq!((values, done.changed), (vec![0.0, 1.0], 1));
    }

    #[test]
    fn what_cannot_be_read_again_gets_a_sentence() {
        let empty = tempfile::tempdir().unwrap();
        assert!(latest(empty.path()).unwrap_err().to_string().contains("no results_<date>.json in it"));
        let said = |f: &tempfile::TempDir| again(f, &Rereading::default()).unwrap_err().to_string();
        let head = folder("rte", "class head", vec![sample(0, NO_FILTER, "1", "1", 1.0)]);
        assert!(said(&head).contains("answered by a class head"), "{}", said(&head));
        let none = folder("gsm8k", "clean", vec![]);
        assert!(said(&none).contains("no rows in it"), "{}", said(&none));
        let file = std::fs::read_dir(none.path()).unwrap().map(|e| e.unwrap().path());
        let file = file.filter(|p| p.extension().is_some_and(|e| e == "jsonl")).collect::<Vec<_>>();
        std::fs::write(&file[0], "{\"doc_id\": 3}\n").unwrap();
        assert!(said(&none).contains("line 1: no object `arguments`"), "{}", said(&none));
        std::fs::remove_file(&file[0]).unwrap();
        assert!(said(&none).contains("`sibo eval --log-samples` keeps the answers"), "{}", said(&none));
    }
}
