//! `state.json`: where a run stands, and by what it is known again.

use crate::data::Dataset;
use crate::events::{Best, EvalRecord, LookRecord};
use crate::run::Settings;
use crate::{Error, Validation};
use serde_json::{Value, json};
use sibo_model::Model;

/// The form of `state.json`; other numbers are refused.
const VERSION: u64 = 1;

/// Where a run stands.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// What the run is ([`identity`]).
    pub identity: Value,
    /// Steps done. The position in the data follows from it: each step's rows are a function of the seed.
    pub step: usize,
    /// The best evaluation so far.
    pub best: Option<Best>,
    /// Evaluations since then.
    pub since_best: usize,
    /// All evaluations so far.
    pub evaluations: Vec<EvalRecord>,
    /// All looks at the tokens so far.
    pub looks: Vec<LookRecord>,
    /// The loss of every step.
    pub losses: Vec<f64>,
    /// What all steps took.
    pub seconds: f64,
    /// The instruction set that computed it.
    pub isa: String,
}

/// Keys of `[training]` that change no bit of a result.
pub(crate) const FREE: [&str; 6] =
    ["threads", "memory", "logging_steps", "probe_every", "save_steps", "save_total_limit"];

/// What makes a run this run and no other: whatever changes a bit of its result. Where it lies, how often it
/// logs and saves, on how many threads and in how much memory it runs do not.
pub fn identity(
    model: &Model,
    data: &Dataset,
    validation: Option<&Validation<'_>>,
    settings: &Settings,
) -> Value {
    let mut training = settings.training.to_value();
    let mut adapter = model.adapter().map(|a| a.config.to_json()).unwrap_or_default();
    if let Some(table) = training.as_object_mut() {
        table.retain(|key, _| !FREE.contains(&key.as_str()));
    }
    if let Some(table) = adapter.as_object_mut() {
        // A hint, never a proof: the fingerprint judges.
        table.remove("base_model_name_or_path");
    }
    // Of a lambda on a course, where it stands follows from the step.
    if let Some(sibo) = adapter.pointer_mut("/sibo").and_then(Value::as_object_mut)
        && sibo.contains_key("lambda_schedule")
    {
        sibo.remove("lambda");
    }
    json!({
        "seed": settings.seed,
        "training": training,
        "adapter": adapter,
        "base": model.fingerprint(),
        "data": hash(data),
        "validation": validation.map(|v| hash(v.data)),
    })
}

fn hash(data: &Dataset) -> String {
    format!("{} rows, {:016x}", data.rows.len(), data.fingerprint())
}

impl State {
    /// Refuses a checkpoint of another run, with every difference.
    pub(crate) fn check(&self, folder: &std::path::Path, now: &Value) -> Result<(), Error> {
        let mut report = Vec::new();
        differences("", &self.identity, now, &mut report);
        if report.is_empty() {
            return Ok(());
        }
        Err(Error::OtherRun { folder: folder.into(), report: report.join("\n") })
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "version": VERSION,
            "program": env!("CARGO_PKG_VERSION"),
            "step": self.step,
            "best": self.best.as_ref().map(|b| json!({"step": b.step, "metric": b.metric, "value": b.value})),
            "evaluations_since_best": self.since_best,
            "evaluations": self.evaluations,
            "looks": self.looks,
            "losses": self.losses,
            "seconds": self.seconds,
            "randomness": {
                "order": "ChaCha8, keyed by seed and pass",
                "dropout": "hash of seed, pass, row, layer, site, token, column",
                "initial_values": "ChaCha12, keyed by seed and tensor",
            },
            "instruction_set": self.isa,
            "identity": self.identity,
        })
    }

    pub(super) fn from_json(place: &str, value: &Value) -> Result<Self, Error> {
        let bad = |key: &str| Error::key(place, key, "is missing or of another form than this build writes");
        match value["version"].as_u64() {
            Some(VERSION) => {}
            Some(other) => {
                let reason = format!("{other} is not supported; this build reads version {VERSION}");
                return Err(Error::key(place, "version", reason));
            }
            None => return Err(bad("version")),
        }
        let best = match &value["best"] {
            Value::Null => None,
            best => Some(read_best(best).ok_or_else(|| bad("best"))?),
        };
        let evaluations = value["evaluations"].as_array().ok_or_else(|| bad("evaluations"))?;
        let step = size(&value["step"]).ok_or_else(|| bad("step"))?;
        let losses: Vec<f64> = value["losses"]
            .as_array()
            .and_then(|all| all.iter().map(Value::as_f64).collect())
            .filter(|all: &Vec<f64>| all.len() == step)
            .ok_or_else(|| bad("losses"))?;
        Ok(State {
            identity: value["identity"].clone(),
            step,
            losses,
            seconds: value["seconds"].as_f64().ok_or_else(|| bad("seconds"))?,
            best,
            since_best: size(&value["evaluations_since_best"])
                .ok_or_else(|| bad("evaluations_since_best"))?,
            evaluations: evaluations
                .iter()
                .map(|e| read_evaluation(e).ok_or_else(|| bad("evaluations")))
                .collect::<Result<_, _>>()?,
            // Checkpoints of before there were looks have none.
            looks: match &value["looks"] {
                Value::Null => vec![],
                looks => serde_json::from_value(looks.clone()).map_err(|_| bad("looks"))?,
            },
            isa: value["instruction_set"].as_str().unwrap_or_default().into(),
        })
    }
}

fn size(value: &Value) -> Option<usize> {
    value.as_u64().map(|n| n as usize)
}

fn read_best(value: &Value) -> Option<Best> {
    Some(Best {
        step: size(&value["step"])?,
        metric: value["metric"].as_str()?.into(),
        value: value["value"].as_f64()?,
    })
}

fn read_evaluation(value: &Value) -> Option<EvalRecord> {
    let score = |pair: &Value| Some((pair[0].as_str()?.to_owned(), pair[1].as_f64().unwrap_or(f64::NAN)));
    Some(EvalRecord {
        step: size(&value["step"])?,
        epoch: value["epoch"].as_f64()?,
        scores: value["scores"].as_array()?.iter().map(score).collect::<Option<_>>()?,
        best: value["best"].as_bool()?,
        seconds: value["seconds"].as_f64()?,
    })
}

/// One line for each value that differs.
fn differences(path: &str, there: &Value, here: &Value, report: &mut Vec<String>) {
    match (there, here) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let value = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                differences(&inner, &value(a), &value(b), report);
            }
        }
        (a, b) if a == b => {}
        _ if path == "base" => {
            report.push("  the base model is another one (its fingerprint differs)".into())
        }
        (a, b) => report.push(format!("  {path}: {} there, {} here", shown(a), shown(b))),
    }
}

fn shown(value: &Value) -> String {
    if value.is_null() { "absent".into() } else { value.to_string() }
}
