//! Plain against SIBO: the same seeds, data order and initial weights; what each scored, whether the difference
//! is one, how alike the tokens became, and what it cost.

use crate::card;
use crate::checkpoint;
use crate::data::Dataset;
use crate::events::{End, Event, Outcome};
use crate::probe::{LayerProbe, ProbeRow, probe};
use crate::recipe::Training;
use crate::run::{Settings, train};
use crate::validate::Validation;
use crate::{Error, prepare};
use serde::Serialize;
use sibo_model::Model;
use sibo_peft::{AdapterConfig, init};
use sibo_tasks::Metric;
use sibo_tasks::metrics::{Predictions, Score};
use sibo_tasks::stats::{self, CompareOptions, Comparison};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// One of the systems that are compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Arm {
    /// Its name in tables, and of its folders.
    pub name: String,
    /// What it trains.
    pub adapter: AdapterConfig,
}

/// How systems are compared.
#[derive(Debug, Clone, PartialEq)]
pub struct StudyPlan {
    /// The systems; each is compared with the first.
    pub arms: Vec<Arm>,
    /// Runs of each.
    pub seeds: Vec<u64>,
    /// How each run trains.
    pub training: Training,
    /// What is compared.
    pub metrics: Vec<Metric>,
    /// The base model's name, for the adapters' files.
    pub base: String,
    /// Where adapters are written (`<out_dir>/<arm>-seed<seed>`); nowhere without it.
    pub out_dir: Option<PathBuf>,
    /// How intervals are made.
    pub options: CompareOptions,
}

/// What is learned from, and what it is judged by.
pub struct StudyData<'a> {
    /// Rows to learn from.
    pub train: &'a Dataset,
    /// Rows to choose the best step by.
    pub validation: Option<Validation<'a>>,
    /// The test: predictions of a trained model, on the same rows in the same order each time.
    pub judge: &'a dyn Fn(&mut Model) -> Result<Predictions, Error>,
    /// Rows of the test.
    pub test_rows: usize,
    /// Sequences whose tokens are looked at, two or more, or none.
    pub probe: &'a [ProbeRow],
}

/// A run of one system under one seed.
#[derive(Debug, Clone)]
pub struct ArmRun {
    /// Index of the system.
    pub arm: usize,
    /// The seed.
    pub seed: u64,
    /// Its curve, time and memory.
    pub outcome: Outcome,
    /// What it answered.
    pub predictions: Predictions,
    /// What that is worth, metric by metric.
    pub scores: Vec<(Metric, Score)>,
    /// How alike its tokens are, layer by layer.
    pub probe: Vec<LayerProbe>,
    /// Its adapter's folder.
    pub adapter: Option<PathBuf>,
    /// Trainable numbers.
    pub trained_numbers: usize,
}

/// What a study found.
#[derive(Debug, Clone)]
pub struct Study {
    /// The base's tokens, before anything is trained.
    pub base_probe: Vec<LayerProbe>,
    /// The smallest true difference in accuracy that rows and seeds can tell apart with 80 % power, at an accuracy
    /// of 0.8 (unknown before the first run).
    pub smallest_detectable: Option<f64>,
    /// All runs: seed by seed, system by system.
    pub runs: Vec<ArmRun>,
    /// Each further system against the first, metric by metric.
    pub comparisons: Vec<Comparison>,
    /// Whether the interruption flag ended it early; then there are no comparisons.
    pub interrupted: bool,
}

/// The accuracy that the smallest detectable difference is told for.
const EXPECTED_ACCURACY: f64 = 0.8;

/// The probability with which it would be found.
const POWER: f64 = 0.8;

/// Which run is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Place<'a> {
    /// The system.
    pub arm: &'a str,
    /// The seed.
    pub seed: u64,
    /// The run, from 1.
    pub run: usize,
    /// Runs in all.
    pub of: usize,
}

/// Is told what happens in which run.
pub type Watch<'w> = &'w mut dyn FnMut(Place<'_>, &Event<'_>);

/// Runs every system under every seed on copies of `base` (frozen weights are shared) and compares them.
pub fn compare(
    base: &Model,
    data: &StudyData<'_>,
    plan: &StudyPlan,
    watch: Watch<'_>,
    interrupt: &AtomicBool,
) -> Result<Study, Error> {
    check(plan)?;
    let batch = plan.training.per_device_eval_batch_size;
    let look =
        |model: &Model| if data.probe.is_empty() { Ok(vec![]) } else { probe(model, data.probe, batch) };
    let mut study = Study {
        base_probe: look(base)?,
        smallest_detectable: smallest_detectable(data, plan)?,
        runs: vec![],
        comparisons: vec![],
        interrupted: false,
    };
    let of = plan.seeds.len() * plan.arms.len();
    for seed in &plan.seeds {
        for (arm, system) in plan.arms.iter().enumerate() {
            let place = Place { arm: &system.name, seed: *seed, run: study.runs.len() + 1, of };
            let Some((mut model, outcome)) = run(base, data, plan, system, place, watch, interrupt)? else {
                study.interrupted = true;
                return Ok(study);
            };
            let predictions = (data.judge)(&mut model)?;
            let score = |m: &Metric| Ok((*m, m.score(&predictions, &plan.options.bootstrap)?));
            let scores = plan.metrics.iter().map(score).collect::<Result<_, Error>>()?;
            let adapter = keep(&model, plan, system, *seed, &outcome)?;
            let probe = look(&model)?;
            let trained_numbers = model.params().numbers();
            study.runs.push(ArmRun {
                arm,
                seed: *seed,
                outcome,
                predictions,
                scores,
                probe,
                adapter,
                trained_numbers,
            });
        }
    }
    study.comparisons = comparisons(&study.runs, plan)?;
    Ok(study)
}

fn check(plan: &StudyPlan) -> Result<(), Error> {
    if plan.arms.len() < 2 || plan.seeds.is_empty() || plan.metrics.is_empty() {
        return Err(Error::Refused(format!(
            "a comparison needs two systems or more, one seed or more and a metric; here are {}, {} and {}",
            plan.arms.len(),
            plan.seeds.len(),
            plan.metrics.len()
        )));
    }
    Ok(())
}

/// One run; none when the interruption came.
fn run(
    base: &Model,
    data: &StudyData<'_>,
    plan: &StudyPlan,
    system: &Arm,
    place: Place<'_>,
    watch: Watch<'_>,
    interrupt: &AtomicBool,
) -> Result<Option<(Model, Outcome)>, Error> {
    let mut model = base.clone();
    prepare::attach(&mut model, &system.adapter, &plan.base, place.seed)?;
    redraw_heads(&mut model, place.seed);
    let settings = Settings {
        training: plan.training.clone(),
        seed: place.seed,
        run_dir: None,
        probe_rows: vec![],
        plan: None,
    };
    let mut observer = |event: &Event<'_>| watch(place, event);
    let outcome =
        train(&mut model, data.train, data.validation.as_ref(), &settings, None, &mut observer, interrupt)?;
    Ok((outcome.end != End::Interrupted).then_some((model, outcome)))
}

/// A head that the base's folder lacked was drawn once, when the base was loaded; each seed draws its own, the
/// same for every system.
fn redraw_heads(model: &mut Model, seed: u64) {
    let sd = model.arch().init_sd;
    let made: Vec<String> = model.made_new().to_vec();
    for path in made {
        let name = format!("{path}.weight");
        let ends = format!(".{name}");
        for param in model.params_mut().iter_mut().filter(|p| p.name.ends_with(&ends)) {
            param.value = init::normal(seed, &name, param.value.len(), sd);
        }
    }
}

fn keep(
    model: &Model,
    plan: &StudyPlan,
    system: &Arm,
    seed: u64,
    outcome: &Outcome,
) -> Result<Option<PathBuf>, Error> {
    let Some(out) = &plan.out_dir else { return Ok(None) };
    let folder = out.join(format!("{}-seed{seed}", system.name));
    checkpoint::save_adapter(model, &folder, &card::checkpoint(outcome.holds_step))?;
    Ok(Some(folder))
}

/// Before the first run: what the test's rows and the seeds can tell apart at all.
fn smallest_detectable(data: &StudyData<'_>, plan: &StudyPlan) -> Result<Option<f64>, Error> {
    if !plan.metrics.iter().any(|m| m.is_share()) {
        return Ok(None);
    }
    let rows = data.test_rows;
    let design = stats::Design::expecting(EXPECTED_ACCURACY, rows, plan.seeds.len());
    Ok(Some(stats::smallest_detectable(&design, plan.options.level, POWER)?))
}

fn comparisons(runs: &[ArmRun], plan: &StudyPlan) -> Result<Vec<Comparison>, Error> {
    let of = |arm: usize| -> Vec<Predictions> {
        runs.iter().filter(|r| r.arm == arm).map(|r| r.predictions.clone()).collect()
    };
    let first = of(0);
    let mut all = Vec::new();
    for (arm, system) in plan.arms.iter().enumerate().skip(1) {
        let other = of(arm);
        for metric in &plan.metrics {
            let (a, b) = ((plan.arms[0].name.as_str(), &first[..]), (system.name.as_str(), &other[..]));
            all.push(stats::compare(*metric, a, b, &plan.options)?);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
