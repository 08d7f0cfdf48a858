//! Running cells: train, judge, look; each part is kept when it is done.

use super::ask::ask;
use super::record::Ran;
use super::sources::{self, Found, Sources};
use super::{Cell, LayerLook, Record};
use crate::checkpoint::{self, Claim};
use crate::events::{End, Event};
use crate::prepare::{self, Prepared};
use crate::probe::{self, ProbeRow, probe};
use crate::profile;
use crate::run::{Settings, train};
use crate::study::Place;
use crate::{Error, Outcome};
use serde::{Deserialize, Serialize};
use sibo_model::Model;
use sibo_peft::Adapter;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What a cell is at.
#[derive(Debug)]
pub enum Now<'a> {
    /// It trains.
    Training(&'a Event<'a>),
    /// It is judged: rows done and in all.
    Judging(&'a str, usize, usize),
    /// It is done: its record, and whether it was done before this call.
    Done(&'a Record, bool),
}

/// Is told what happens in which cell.
pub type Watch<'w> = &'w mut (dyn FnMut(Place<'_>, Now<'_>) + Send);

/// The file that says, when it is there, that a cell's adapter is the trained one, and how it came about.
pub const TRAINED: &str = "trained.json";

/// What training leaves beside the adapter.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Trained {
    losses: Vec<f64>,
    evaluations: Vec<(usize, Vec<(String, f64)>)>,
    holds_step: usize,
    seconds: f64,
    tokens_per_second: f64,
    peak_activations: u64,
    before: Vec<LayerLook>,
    #[serde(default)]
    looks: Vec<(usize, Vec<LayerLook>)>,
    #[serde(default)]
    branch_share: Option<f64>,
    /// As [`Record::sources`].
    #[serde(default, skip_serializing_if = "Sources::is_empty")]
    sources: Sources,
}

pub(super) type Tell<'t> = &'t mut dyn FnMut(Now<'_>);

/// One cell, which may have diverged; none when the interruption came.
pub(super) fn run(
    cell: &Cell,
    sources: &[Found],
    folder: &Path,
    now: i64,
    tell: Tell<'_>,
    interrupt: &AtomicBool,
) -> Result<Option<Record>, Error> {
    let mut own = cell.clone();
    own.recipe.output_dir = cell.run_dir(folder);
    let mut prepared = prepare::prepare(&own.recipe, &own.places, now)?;
    let rows = look_rows(&own, &prepared);
    let began = Instant::now();
    let trained = match trained(&own, sources, &mut prepared, &rows, tell, interrupt) {
        Ok(Some(trained)) => trained,
        Ok(None) => return Ok(None),
        Err(Error::NotFinite { step, what, rows, .. }) => {
            let why = format!("at step {step} {what} on rows {rows}");
            let mut record = record(cell, &prepared.model, sources, Trained::default());
            record.seconds = began.elapsed().as_secs_f64();
            record.diverged = Some(why);
            return Ok(Some(record));
        }
        Err(error) => return Err(error),
    };
    let mut judged = Vec::new();
    for judge in &own.judges {
        if interrupt.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match ask(&own, judge, &prepared, tell, interrupt)? {
            Some(scores) => judged.extend(scores),
            None => return Ok(None),
        }
    }
    let batch = prepared.eval_batch;
    let model = &prepared.model;
    let h0_ratio = match rows.len() < 2 {
        true => None,
        false => profile::injected_ratio(model, &rows[..rows.len().min(profile::SIZE_ROWS)], batch)?,
    };
    let branch_share = trained.branch_share.zip(branch_share(&prepared, &rows)?);
    let after = look(model, &rows, batch)?;
    let record = record(cell, model, sources, trained);
    Ok(Some(Record { judged, h0_ratio, after, branch_share, ..record }))
}

/// What is known of a cell once it is trained, before it is judged and looked at.
fn record(cell: &Cell, model: &Model, sources: &[Found], trained: Trained) -> Record {
    Record {
        key: cell.key(),
        training: cell.training(),
        arm: cell.arm.clone(),
        seed: cell.recipe.seed,
        recipe: cell.identity(),
        judged: vec![],
        trained_numbers: model.params().numbers(),
        injected: model.adapter().map_or(0, |a| a.injected.len()),
        sites: profile::injected_sites(model).into_iter().map(String::from).collect(),
        h0_ratio: None,
        after: vec![],
        learned: Adapter::learned_lambdas(model.params())
            .into_iter()
            .map(|own| (own.of, f64::from(own.lambda)))
            .collect(),
        looks: trained.looks,
        branch_share: None,
        losses: trained.losses,
        evaluations: trained.evaluations,
        holds_step: trained.holds_step,
        seconds: trained.seconds,
        tokens_per_second: trained.tokens_per_second,
        peak_activations: trained.peak_activations,
        before: trained.before,
        sources: sources::kept(sources),
        ran: Some(Ran::here()),
        diverged: None,
    }
}

fn look_rows(cell: &Cell, prepared: &Prepared) -> Vec<ProbeRow> {
    let data = prepared.validation.as_ref().unwrap_or(&prepared.train);
    probe::rows(data, &prepared.tokenizer, cell.look_rows)
}

fn look(model: &Model, rows: &[ProbeRow], batch: usize) -> Result<Vec<LayerLook>, Error> {
    if rows.len() < 2 {
        return Ok(vec![]);
    }
    Ok(probe(model, rows, batch)?.iter().map(LayerLook::from).collect())
}

/// Trains, goes on training, or takes the adapter that is trained already; none when the interruption came.
fn trained(
    cell: &Cell,
    sources: &[Found],
    prepared: &mut Prepared,
    rows: &[ProbeRow],
    tell: Tell<'_>,
    interrupt: &AtomicBool,
) -> Result<Option<Trained>, Error> {
    let recipe = &cell.recipe;
    let run_dir = &recipe.output_dir;
    let mark = run_dir.join(TRAINED);
    if mark.is_file() {
        let trained: Trained = read(&mark)?;
        sources::check_trained(&trained.sources, sources, run_dir)?;
        checkpoint::load_adapter(&mut prepared.model, &run_dir.join(checkpoint::ADAPTER))?;
        return Ok(Some(trained));
    }
    let before = look(&prepared.model, rows, prepared.eval_batch)?;
    let branch_share = branch_share(prepared, rows)?;
    let resume = checkpoint::latest(run_dir)?;
    if resume.is_none() {
        checkpoint::claim(run_dir, Claim::Overwrite, &recipe.to_toml())?;
    }
    let settings = Settings {
        training: recipe.training.clone(),
        seed: recipe.seed,
        run_dir: Some(run_dir.clone()),
        probe_rows: rows.to_vec(),
        plan: Some(prepared.plan),
    };
    let Prepared { model, train: data, validation, metrics, .. } = &mut *prepared;
    let validation = validation.as_ref().map(|data| crate::Validation { data, metrics: metrics.clone() });
    let mut observer = |event: &Event<'_>| tell(Now::Training(event));
    let outcome =
        train(model, data, validation.as_ref(), &settings, resume.as_ref(), &mut observer, interrupt)?;
    if outcome.end == End::Interrupted {
        return Ok(None);
    }
    prepared.save(recipe, &outcome)?;
    let sources = sources::kept(sources);
    let done = Trained { branch_share, sources, ..finished(&outcome, before) };
    let text = serde_json::to_string(&done).map_err(|e| Error::Refused(e.to_string()))?;
    sibo_files::write(&mark, text.as_bytes())?;
    checkpoint::tidy(run_dir)?;
    Ok(Some(done))
}

fn finished(outcome: &Outcome, before: Vec<LayerLook>) -> Trained {
    Trained {
        seconds: outcome.step_seconds,
        losses: outcome.losses.clone(),
        evaluations: outcome.evaluations.iter().map(|e| (e.step, e.scores.clone())).collect(),
        holds_step: outcome.holds_step,
        tokens_per_second: outcome.tokens_per_second(),
        peak_activations: outcome.peak_activations,
        before,
        looks: outcome.looks.iter().map(|l| (l.step, l.layers.clone())).collect(),
        branch_share: None,
        sources: Sources::new(),
    }
}

/// On a few rows, how much of what they join the branches vary by.
fn branch_share(prepared: &Prepared, rows: &[ProbeRow]) -> Result<Option<f64>, Error> {
    let some = &rows[..rows.len().min(profile::SIZE_ROWS)];
    match some.len() < 2 {
        true => Ok(None),
        false => profile::branch_share(&prepared.model, some, prepared.eval_batch),
    }
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, Error> {
    let value = sibo_files::json::read(path)?;
    serde_json::from_value(value)
        .map_err(|e| Error::Syntax { place: path.display().to_string(), message: e.to_string() })
}
