//! What a run tells, written down: `metrics.jsonl`, TensorBoard events, and lines and a bar for the person.

use crate::output::Output;
use crate::progress::Meter;
use serde_json::{Map, Value, json};
use sibo_report::jsonl::Writer;
use sibo_report::number;
use sibo_report::tensorboard::EventWriter;
use sibo_train::events::{EvalRecord, Event, Facts, LookRecord, Observer, StepRecord};
use sibo_train::probe::LayerLook;
use std::path::Path;

/// The file with one JSON object for each step and evaluation.
pub(crate) const METRICS: &str = "metrics.jsonl";
/// The kind of a line about the tokens of validation rows, layer by layer.
pub(crate) const PROBE: &str = "probe";
/// The folder that TensorBoard reads.
const TENSORBOARD: &str = "tensorboard";

/// Listens to a run and writes down what it hears.
pub(crate) struct Recorder {
    out: Output,
    files: Option<Files>,
    meter: Option<Meter>,
    /// Steps between two lines of the log.
    every: usize,
}

struct Files {
    metrics: Writer,
    events: EventWriter,
}

impl Recorder {
    /// Starts (or, after `resumed_at` steps, goes on with) the records in `run_dir`.
    pub(crate) fn new(
        run_dir: &Path,
        resumed_at: Option<usize>,
        every: usize,
        out: Output,
    ) -> anyhow::Result<Self> {
        let path = run_dir.join(METRICS);
        let mut events = EventWriter::in_folder(&run_dir.join(TENSORBOARD), wall_time())?;
        let metrics = match resumed_at {
            None => Writer::create(&path)?,
            Some(step) => {
                // Steps count from 1: the next line to be written is that of step + 1.
                let next = step as u64 + 1;
                events.resumed_at(next, wall_time())?;
                Writer::resume_at(&path, next)?
            }
        };
        Ok(Recorder { out, files: Some(Files { metrics, events }), meter: None, every })
    }

    /// A failure to write records is said once and does not end the run: checkpoints are what matters.
    fn write(&mut self, step: usize, record: Map<String, Value>) {
        let Some(files) = &mut self.files else { return };
        if let Err(error) = files.write(step as u64, record) {
            self.out.warn(format!("no more metrics are written: {error}"));
            self.files = None;
        }
    }

    fn started(&mut self, facts: &Facts) {
        for line in plan(facts) {
            self.out.note(line);
        }
        for note in &facts.notes {
            self.out.note(note);
        }
        let done = facts.resumed_at.unwrap_or(0);
        self.meter = Some(Meter::new(self.out, facts.total_steps as u64, done as u64));
    }

    fn step(&mut self, r: &StepRecord) {
        self.write(r.step, step_record(r));
        let Some(meter) = &mut self.meter else { return };
        meter.say(format!("step {}, loss {:.4}, {:.0} tokens/s", r.step, r.loss, r.tokens_per_second));
        meter.at(r.step as u64);
        if r.step.is_multiple_of(self.every) {
            let (loss, lr) = (r.loss, r.lr);
            let lambda = r.lambda.map_or(String::new(), |l| format!("  lambda {l:.4}"));
            meter.note(format!(
                "step {:>6}  epoch {:.2}  loss {loss:.4}  lr {lr:.2e}{lambda}  gradient {:.3}  {:.0} tokens/s",
                r.step, r.epoch, r.grad_norm, r.tokens_per_second
            ));
        }
    }

    fn evaluated(&mut self, r: &EvalRecord) {
        let mut record = Map::new();
        record.insert("kind".into(), json!("evaluation"));
        record.insert("step".into(), json!(r.step));
        record.insert("epoch".into(), json!(r.epoch));
        record.extend(r.scores.iter().map(|(name, value)| (format!("eval_{name}"), json!(value))));
        self.write(r.step, record);
        let scores: Vec<String> = r.scores.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
        let best = if r.best { "  (the best so far)" } else { "" };
        self.say(format!("step {:>6}  validation: {}{best}", r.step, scores.join(", ")));
    }

    fn looked(&mut self, r: &LookRecord) {
        let mut record = Map::new();
        record.insert("kind".into(), json!(PROBE));
        record.insert("step".into(), json!(r.step));
        record.insert("epoch".into(), json!(r.epoch));
        record.insert("h0_norm".into(), json!(r.h0_norm));
        let mut put = |name: &str, of: fn(&LayerLook) -> f64| {
            record.insert(name.into(), json!(r.layers.iter().map(of).collect::<Vec<f64>>()));
        };
        put("similarity", |l| l.similarity);
        put("x_norm", |l| l.x_norm);
        put("h0_cosine", |l| l.h0_cosine);
        put("h0_share", |l| l.h0_share);
        self.write(r.step, record);
        if let Some(last) = r.layers.last() {
            self.say(format!(
                "step {:>6}  tokens of the last layer: mean cosine {:.3}, share of h0 {:.3}",
                r.step, last.similarity, last.h0_share
            ));
        }
    }

    fn say(&self, line: String) {
        match &self.meter {
            Some(meter) => meter.note(line),
            None => self.out.note(line),
        }
    }

    fn end(&mut self) {
        if let Some(meter) = self.meter.take() {
            meter.finish();
        }
    }
}

impl Observer for Recorder {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Started(facts) => self.started(facts),
            Event::Step(record) => self.step(record),
            Event::Evaluating(rows) => {
                if let Some(meter) = &mut self.meter {
                    meter.say(format!("validating on {rows} rows"));
                }
            }
            Event::Evaluated(record) => self.evaluated(record),
            Event::Looked(record) => self.looked(record),
            Event::Checkpoint { step, folder } => {
                self.say(format!("step {step:>6}  checkpoint {}", folder.display()));
            }
            Event::Finished(_) | Event::Interrupted(_) => self.end(),
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.end();
    }
}

impl Files {
    fn write(&mut self, step: u64, record: Map<String, Value>) -> Result<(), sibo_report::ReportError> {
        let probe = record.get("kind").is_some_and(|kind| kind == PROBE);
        let scalars: Vec<(String, f64)> = record
            .iter()
            .filter(|(name, _)| !["step", "epoch"].contains(&name.as_str()))
            .flat_map(|(name, value)| scalars(name, value, probe))
            .collect();
        self.metrics.write(&record)?;
        let scalars: Vec<(&str, f64)> = scalars.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        self.events.scalars(step, wall_time(), &scalars)
    }
}

/// One number, or one for each layer.
fn scalars(name: &str, value: &Value, probe: bool) -> Vec<(String, f64)> {
    match value {
        Value::Array(layers) => {
            let of = |(l, v): (usize, &Value)| Some((format!("{PROBE}_{name}/layer_{l:02}"), v.as_f64()?));
            layers.iter().enumerate().filter_map(of).collect()
        }
        one if probe => one.as_f64().map(|v| (format!("{PROBE}/{name}"), v)).into_iter().collect(),
        one => one.as_f64().map(|v| (scalar_name(name), v)).into_iter().collect(),
    }
}

/// TensorBoard groups by what stands before the slash.
fn scalar_name(name: &str) -> String {
    match name.strip_prefix("eval_") {
        Some(name) => format!("eval/{name}"),
        None => format!("train/{name}"),
    }
}

fn step_record(r: &StepRecord) -> Map<String, Value> {
    let mut record = Map::new();
    let mut put = |name: &str, value: Value| record.insert(name.into(), value);
    put("kind", json!("step"));
    put("step", json!(r.step));
    put("epoch", json!(r.epoch));
    put("loss", json!(r.loss));
    put("learning_rate", json!(r.lr));
    if let Some(lambda) = r.lambda {
        put("lambda", json!(lambda));
    }
    put("grad_norm", json!(r.grad_norm));
    put("tokens", json!(r.tokens));
    put("seconds", json!(r.seconds));
    put("tokens_per_second", json!(r.tokens_per_second));
    if let Some(bytes) = r.peak_rss {
        put("peak_memory_mib", json!(bytes as f64 / 1_048_576.0));
    }
    put("peak_activations_mib", json!(r.peak_activations as f64 / 1_048_576.0));
    record
}

/// What is about to happen, in a few lines.
fn plan(f: &Facts) -> Vec<String> {
    let whole = |n: usize| number::fixed(n as f64, 0);
    let mut lines = vec![
        format!(
            "{} rows, {} tokens ({} labelled), the longest {}; {} validation rows",
            whole(f.rows),
            whole(f.tokens),
            whole(f.labelled),
            f.longest,
            whole(f.validation_rows)
        ),
        format!(
            "{} steps of {} rows (micro-batches of {}), {} a pass, {} of warm-up",
            whole(f.total_steps),
            f.batch,
            f.micro_batch,
            whole(f.steps_per_epoch),
            f.warmup_steps
        ),
    ];
    let memory = &f.memory;
    let free = memory.available.map(|b| format!(", {} are free", number::bytes(b))).unwrap_or_default();
    let choice = memory.choice().map_or(String::new(), |c| format!("; {c}"));
    lines.push(format!(
        "memory: about {} (weights {}, trained {}, activations {} for {} tokens){free}{choice}",
        number::bytes(memory.total()),
        number::bytes(memory.base),
        number::bytes(memory.trained),
        number::bytes(memory.activations),
        memory.tokens
    ));
    if f.base_dropout {
        lines.push("the base model's own dropout is on (base_dropout = false switches it off)".into());
    }
    if let Some(step) = f.resumed_at {
        lines.push(format!("going on after step {step}"));
    }
    lines
}

/// Seconds since 1970.
fn wall_time() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0.0, |d| d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: usize, loss: f64) -> StepRecord {
        StepRecord {
            step,
            epoch: 0.25,
            loss,
            lr: 3e-4,
            lambda: None,
            grad_norm: 0.7,
            tokens: 90,
            seconds: 0.5,
            tokens_per_second: 180.0,
            peak_rss: Some(3 << 20),
            peak_activations: 2 << 20,
        }
    }

    #[test]
    fn a_resumed_run_writes_each_step_once() {
        let dir = tempfile::tempdir().unwrap();
        let out = Output::new(true, false);
        let mut first = Recorder::new(dir.path(), None, 10, out).unwrap();
        for step in 1..=4 {
            first.event(&Event::Step(&record(step, 2.5)));
        }
        drop(first);
        let mut second = Recorder::new(dir.path(), Some(2), 10, out).unwrap();
        second.event(&Event::Step(&record(3, 1.25)));
        let lines = sibo_report::jsonl::read::<Value>(&dir.path().join(METRICS)).unwrap().records;
        let losses: Vec<f64> = lines.iter().map(|l| l["loss"].as_f64().unwrap()).collect();
        assert_eq!(losses, [2.5, 2.5, 1.25]);
        assert_eq!(lines[2]["peak_memory_mib"], 3.0);
        let layer = LayerLook { similarity: 0.25, x_norm: 3.0, h0_cosine: 0.5, h0_share: 0.75 };
        let look = LookRecord { step: 3, epoch: 0.3, h0_norm: 1.5, layers: vec![layer; 2], seconds: 0.1 };
        second.event(&Event::Looked(&look));
        let lines = sibo_report::jsonl::read::<Value>(&dir.path().join(METRICS)).unwrap().records;
        assert_eq!((&lines[3]["kind"], &lines[3]["similarity"]), (&json!("probe"), &json!([0.25, 0.25])));
        assert_eq!(
            scalars("h0_share", &lines[3]["h0_share"], true)[1],
            ("probe_h0_share/layer_01".into(), 0.75)
        );
        assert!(dir.path().join(TENSORBOARD).read_dir().unwrap().count() == 1);
    }

    #[test]
    fn a_new_run_does_not_write_into_an_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let out = Output::new(true, false);
        drop(Recorder::new(dir.path(), None, 10, out).unwrap());
        assert!(Recorder::new(dir.path(), None, 10, out).is_err());
    }
}
