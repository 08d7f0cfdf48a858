//! The one loop: batches, backward passes, updates, evaluations, checkpoints. Everything that can go wrong is
//! checked before the first step, and nothing is lost when it goes wrong later.

mod guard;
mod progress;

use crate::batches::Feed;
use crate::checkpoint::{self, Checkpoint, State};
use crate::data::Dataset;
use crate::events::{Best, EvalRecord, Event, LookRecord, Observer, Outcome, StepRecord};
use crate::memory::{self, MemoryPlan};
use crate::optim::{self, Optimiser};
use crate::probe::{self, LayerLook, ProbeRow};
use crate::recipe::Training;
use crate::schedule::Schedule;
use crate::validate::{Validation, measure};
use crate::{Error, card};
use serde_json::Value;
use sibo_kernels::pool;
use sibo_model::{Batch, Dropout, Model, Recompute};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What the loop needs beside model and data.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The recipe's `[training]` table.
    pub training: Training,
    /// Seed of order and dropout (initial values are drawn when the adapter is attached).
    pub seed: u64,
    /// The run's folder; without one nothing is written, and the best adapter is kept in memory.
    pub run_dir: Option<PathBuf>,
    /// What `probe_every` looks at ([`crate::Dataset`]'s own rows, see [`probe::rows`]); with fewer than two, nothing.
    pub probe_rows: Vec<ProbeRow>,
    /// The plan that was made before the base was read ([`crate::prepare::Prepared::plan`]); without one, it is made.
    pub plan: Option<MemoryPlan>,
}

/// Trains the adapter that is attached to `model`.
///
/// With a checkpoint the run goes on from it, to the same bits as a run that never stopped. When `interrupt`
/// becomes true, the step under way is dropped, a checkpoint of the steps done is written, and the run returns;
/// otherwise the model ends with its final values: those of the best evaluation where
/// `load_best_model_at_end` says so. Saving the result is the caller's part ([`checkpoint::save_adapter`]).
pub fn train(
    model: &mut Model,
    data: &Dataset,
    validation: Option<&Validation<'_>>,
    settings: &Settings,
    resume: Option<&Checkpoint>,
    observer: &mut dyn Observer,
    interrupt: &AtomicBool,
) -> Result<Outcome, Error> {
    let mut run = Run::start(model, data, validation, settings, resume, observer)?;
    while run.step < run.total && !run.out_of_patience() {
        if !run.take_step(interrupt)? {
            return run.interrupted();
        }
        if run.look_due() {
            run.look()?;
        }
        if run.evaluation_due() {
            run.evaluate()?;
        }
        if run.checkpoint_due() {
            run.save()?;
        }
    }
    run.finish()
}

/// A run under way.
struct Run<'a> {
    model: &'a mut Model,
    data: &'a Dataset,
    validation: Option<&'a Validation<'a>>,
    settings: &'a Settings,
    observer: &'a mut dyn Observer,
    feed: Feed<'a>,
    optimiser: Optimiser,
    schedule: Schedule,
    identity: Value,
    total: usize,
    /// Steps done.
    step: usize,
    evaluated_at: Option<usize>,
    saved: Option<Checkpoint>,
    best: Option<Best>,
    /// Values of the best adapter, where there is no folder to keep them in.
    best_values: Option<Vec<Vec<f32>>>,
    since_best: usize,
    records: Vec<StepRecord>,
    /// Of every step, those before a resume too.
    losses: Vec<f64>,
    step_seconds: f64,
    evaluations: Vec<EvalRecord>,
    looks: Vec<LookRecord>,
    guard: guard::Guard,
    /// Layers that are computed again on the way back.
    recompute: Recompute,
    /// Rows of a pass over validation or probe rows.
    eval_batch: usize,
    began: Instant,
}

/// What a step computed.
struct StepNumbers {
    loss: f64,
    lr: f64,
    lambda: Option<f64>,
    grad_norm: f64,
    tokens: usize,
}

impl<'a> Run<'a> {
    fn start(
        model: &'a mut Model,
        data: &'a Dataset,
        validation: Option<&'a Validation<'a>>,
        settings: &'a Settings,
        resume: Option<&Checkpoint>,
        observer: &'a mut dyn Observer,
    ) -> Result<Self, Error> {
        let training = &settings.training;
        if model.params().is_empty() {
            return Err(Error::Refused("nothing trains: attach an adapter to the model first".into()));
        }
        data.check(model)?;
        if let Some(validation) = validation {
            validation.check(model, training.best_metric())?;
        }
        // The one that was made before the base was read, where there is one: a second would count what reading it held.
        let plan = settings.plan.map_or_else(|| MemoryPlan::of(model, data, training), Ok)?;
        let sets: Vec<&Dataset> = std::iter::once(data).chain(validation.map(|v| v.data)).collect();
        let eval_batch = plan.looked_at(model, &sets, training.per_device_eval_batch_size);
        let total = training.total_steps(data.rows.len());
        pool::reset_peak();
        let identity = checkpoint::identity(model, data, validation, settings);
        let mut run = Run {
            feed: Feed::new(data, training, settings.seed),
            optimiser: training.optimiser(),
            schedule: training.schedule(total),
            identity,
            total,
            step: 0,
            evaluated_at: None,
            saved: None,
            best: None,
            best_values: None,
            since_best: 0,
            records: vec![],
            losses: vec![],
            step_seconds: 0.0,
            evaluations: vec![],
            looks: vec![],
            guard: guard::Guard::default(),
            recompute: plan.recomputed.into(),
            eval_batch,
            began: Instant::now(),
            model,
            data,
            validation,
            settings,
            observer,
        };
        let notes = match resume {
            Some(checkpoint) => run.restore(checkpoint)?,
            None => vec![],
        };
        run.turn_lambda(run.step.saturating_sub(1));
        run.tell_facts(plan, notes);
        if run.step == 0 && run.look_due() {
            run.look()?;
        }
        if run.step == 0 && training.eval_on_start && validation.is_some() {
            run.evaluate()?;
        }
        Ok(run)
    }

    /// One optimiser step; false when the interruption came first.
    fn take_step(&mut self, interrupt: &AtomicBool) -> Result<bool, Error> {
        let began = Instant::now();
        self.turn_lambda(self.step);
        let training = self.training();
        let rows = self.feed.step(self.step);
        let dropout =
            Dropout { seed: self.settings.seed, epoch: rows.epoch as u64, base: training.base_dropout };
        // Every micro-batch is divided by the whole step's labels: k small ones equal one k times larger.
        let scale = 1.0 / rows.count as f32;
        let (mut loss_sum, mut tokens) = (0.0, 0);
        let lambda = self.model.adapter().and_then(|a| a.moving_lambda(self.model.params()));
        self.model.params_mut().zero_grads();
        for micro in &rows.micro {
            if interrupt.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let (micro_rows, labels) = self.data.gather(micro);
            let batch = Batch::new(self.model.arch(), &micro_rows)?;
            let out = self.model.forward_backward(&batch, &labels, scale, Some(dropout), self.recompute);
            self.model.check_base()?;
            if !out.loss_sum.is_finite() {
                return Err(self.diverged("the loss is not finite", micro));
            }
            loss_sum += out.loss_sum;
            tokens += batch.tokens();
        }
        let lr = training.learning_rate * self.schedule.factor(self.step);
        if let Some(name) = self.guard.vanished(self.model.params()) {
            let what = format!("the first update left `{name}` without any gradient");
            return Err(self.diverged(&what, &rows.micro.concat()));
        }
        self.guard.check(self.step + 1, self.model.params())?;
        let grad_norm = self.clip();
        if !grad_norm.is_finite() {
            return Err(self.diverged("the gradient is not finite", &rows.micro.concat()));
        }
        self.optimiser.step(self.model.params_mut(), lr);
        self.guard.updated(lr);
        self.step += 1;
        let loss = loss_sum / rows.count as f64;
        self.record(StepNumbers { loss, lr, lambda, grad_norm, tokens }, began.elapsed().as_secs_f64());
        Ok(true)
    }

    /// Gives the branches the lambda of a step, from 0, where the recipe moves it.
    fn turn_lambda(&mut self, step: usize) {
        let course = self.model.adapter().and_then(|a| a.config.sibo.course.clone());
        if let Some(course) = course {
            // The only step of a run is its last.
            let progress = if self.total > 1 { step as f64 / (self.total - 1) as f64 } else { 1.0 };
            self.model.set_lambda(course.at(progress));
        }
    }

    /// The settings outlive the run, so they can be read while it changes.
    fn training(&self) -> &'a Training {
        &self.settings.training
    }

    fn clip(&mut self) -> f64 {
        match self.settings.training.max_grad_norm {
            0.0 => optim::grad_norm(self.model.params()),
            most => optim::clip(self.model.params_mut(), most),
        }
    }

    fn record(&mut self, step: StepNumbers, seconds: f64) {
        let StepNumbers { loss, lr, lambda, grad_norm, tokens } = step;
        let record = StepRecord {
            step: self.step,
            epoch: self.epoch(),
            loss,
            lr,
            lambda,
            grad_norm,
            tokens,
            seconds,
            tokens_per_second: tokens as f64 / seconds.max(f64::MIN_POSITIVE),
            peak_rss: memory::peak_rss(),
            peak_activations: pool::peak_bytes() as u64,
        };
        self.observer.event(&Event::Step(&record));
        self.losses.push(loss);
        self.step_seconds += seconds;
        self.records.push(record);
    }

    fn diverged(&self, what: &str, rows: &[usize]) -> Error {
        let id = |i: &usize| match self.data.origin(self.data.rows[*i].row.sample) {
            (id, place) if self.data.parts.len() > 1 => format!("{id} of {place}"),
            (id, _) => id.to_string(),
        };
        let ids: Vec<String> = rows.iter().map(id).collect();
        let checkpoint = match &self.saved {
            Some(c) => format!("the last good checkpoint is {} (step {})", c.folder.display(), c.step),
            None => "no checkpoint was written yet".into(),
        };
        Error::NotFinite { step: self.step + 1, what: what.into(), rows: ids.join(", "), checkpoint }
    }

    fn evaluate(&mut self) -> Result<(), Error> {
        let Some(validation) = self.validation else { return Ok(()) };
        let began = Instant::now();
        self.observer.event(&Event::Evaluating(validation.data.rows.len()));
        let training = self.training();
        let scores = measure(self.model, validation, self.eval_batch)?;
        self.model.check_base()?;
        let mut record =
            EvalRecord { step: self.step, epoch: self.epoch(), scores, best: false, seconds: 0.0 };
        let value = record.score(training.best_metric()).unwrap_or(f64::NAN);
        record.best = match &self.best {
            None => !value.is_nan(),
            Some(best) if training.greater_is_better() => value > best.value,
            Some(best) => value < best.value,
        };
        record.seconds = began.elapsed().as_secs_f64();
        self.evaluated_at = Some(self.step);
        if record.best {
            self.keep_best(value)?;
        } else {
            self.since_best += 1;
        }
        self.observer.event(&Event::Evaluated(&record));
        self.evaluations.push(record);
        Ok(())
    }

    /// Looks at the tokens: nothing of the run changes, and nothing random is drawn.
    fn look(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        let layers = probe::probe(self.model, &self.settings.probe_rows, self.eval_batch)?;
        let record = LookRecord {
            step: self.step,
            epoch: self.epoch(),
            h0_norm: layers.first().map_or(f64::NAN, |l| l.h0_norm),
            layers: layers.iter().map(LayerLook::from).collect(),
            seconds: began.elapsed().as_secs_f64(),
        };
        self.observer.event(&Event::Looked(&record));
        self.looks.push(record);
        Ok(())
    }

    fn keep_best(&mut self, value: f64) -> Result<(), Error> {
        let training = self.training();
        self.since_best = 0;
        self.best = Some(Best { step: self.step, metric: training.best_metric().into(), value });
        if !training.load_best_model_at_end {
            return Ok(());
        }
        match &self.settings.run_dir {
            Some(run_dir) => checkpoint::save_adapter(
                self.model,
                &run_dir.join(checkpoint::BEST),
                &card::checkpoint(self.step),
            ),
            None => {
                self.best_values = Some(self.model.params().iter().map(|p| p.value.clone()).collect());
                Ok(())
            }
        }
    }

    fn save(&mut self) -> Result<(), Error> {
        let Some(run_dir) = &self.settings.run_dir else { return Ok(()) };
        let state = State {
            identity: self.identity.clone(),
            step: self.step,
            best: self.best.clone(),
            since_best: self.since_best,
            evaluations: self.evaluations.clone(),
            looks: self.looks.clone(),
            losses: self.losses.clone(),
            seconds: self.step_seconds,
            isa: sibo_kernels::isa::isa().name().into(),
        };
        let keep = self.settings.training.save_total_limit;
        let saved = checkpoint::save(run_dir, self.model, self.optimiser.state(), &state, keep)?;
        self.observer.event(&Event::Checkpoint { step: self.step, folder: &saved.folder });
        self.saved = Some(saved);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
