//! Where a run stands: what is due, what was restored, and how it ends.

use super::Run;
use crate::Error;
use crate::checkpoint::{self, Checkpoint};
use crate::events::{End, Event, Facts, Outcome};
use crate::memory::{self, MemoryPlan};

impl Run<'_> {
    /// Passes over the data done.
    pub(super) fn epoch(&self) -> f64 {
        self.step as f64 / self.feed.steps_per_epoch() as f64
    }

    pub(super) fn out_of_patience(&self) -> bool {
        self.settings.training.early_stopping_patience.is_some_and(|most| self.since_best >= most)
    }

    fn is_due(&self, every: Option<usize>) -> bool {
        let at = every.unwrap_or_else(|| self.feed.steps_per_epoch());
        self.step.is_multiple_of(at) || self.step == self.total
    }

    pub(super) fn evaluation_due(&self) -> bool {
        self.validation.is_some() && self.is_due(self.settings.training.eval_steps)
    }

    /// Before the first step, every so many, and after the last.
    pub(super) fn look_due(&self) -> bool {
        self.settings.probe_rows.len() >= 2
            && self.settings.training.probe_every.is_some_and(|every| self.is_due(Some(every)))
    }

    pub(super) fn checkpoint_due(&self) -> bool {
        let training = &self.settings.training;
        match training.save_steps {
            Some(every) => self.is_due(Some(every)) || self.out_of_patience(),
            None if self.validation.is_some() => self.evaluated_at == Some(self.step),
            None => self.is_due(training.eval_steps),
        }
    }

    /// Takes a checkpoint's values and place; returns what a person should know.
    pub(super) fn restore(&mut self, checkpoint: &Checkpoint) -> Result<Vec<String>, Error> {
        let state = checkpoint.state()?;
        state.check(&checkpoint.folder, &self.identity)?;
        let moments = checkpoint.restore(self.model)?;
        self.optimiser
            .restore(self.model.params(), moments)
            .map_err(|reason| Error::Refused(format!("{}: {reason}", checkpoint.folder.display())))?;
        self.step = state.step;
        self.guard.resumed(state.step);
        self.saved = Some(checkpoint.clone());
        self.best = state.best;
        self.since_best = state.since_best;
        self.evaluations = state.evaluations;
        self.looks = state.looks;
        self.losses = state.losses;
        self.step_seconds = state.seconds;
        self.check_best_is_there()?;
        let isa = sibo_kernels::isa::isa().name();
        let other = (state.isa != isa).then(|| {
            format!(
                "the checkpoint was computed with {}, this machine uses {isa}: the result will not be equal to the last bit",
                state.isa
            )
        });
        Ok(other.into_iter().collect())
    }

    fn check_best_is_there(&self) -> Result<(), Error> {
        let (Some(run_dir), Some(best)) = (&self.settings.run_dir, &self.best) else { return Ok(()) };
        let folder = run_dir.join(checkpoint::BEST);
        if self.settings.training.load_best_model_at_end && !folder.is_dir() {
            return Err(Error::Refused(format!(
                "{}: the best adapter so far (step {}) is not there any more, and load_best_model_at_end needs it; start the run again with --overwrite",
                folder.display(),
                best.step
            )));
        }
        Ok(())
    }

    pub(super) fn tell_facts(&mut self, memory: MemoryPlan, notes: Vec<String>) {
        let training = &self.settings.training;
        let adapter = self.model.adapter();
        let facts = Facts {
            rows: self.data.rows.len(),
            tokens: self.data.tokens(),
            labelled: self.data.labelled(),
            longest: self.data.longest(),
            validation_rows: self.validation.map_or(0, |v| v.data.rows.len()),
            total_steps: self.total,
            steps_per_epoch: self.feed.steps_per_epoch(),
            warmup_steps: self.schedule.warmup_steps,
            batch: training.batch(),
            micro_batch: training.per_device_train_batch_size,
            trained_tensors: self.model.params().len(),
            trained_numbers: self.model.params().numbers(),
            injected: adapter.map(|a| a.injected.clone()).unwrap_or_default(),
            plain: adapter.map(|a| a.plain.clone()).unwrap_or_default(),
            base_dropout: training.base_dropout && self.model.arch().dropout.any(),
            memory,
            resumed_at: (self.step > 0).then_some(self.step),
            notes: self.data.notes.iter().cloned().chain(notes).collect(),
        };
        self.observer.event(&Event::Started(&facts));
    }

    pub(super) fn interrupted(mut self) -> Result<Outcome, Error> {
        // The gradients of the step under way are dropped with it: it is computed again on resume.
        self.model.params_mut().zero_grads();
        self.turn_lambda(self.step.saturating_sub(1));
        if self.step > 0 && self.saved.as_ref().is_none_or(|c| c.step != self.step) {
            self.save()?;
        }
        let outcome = self.outcome(End::Interrupted, self.step);
        self.observer.event(&Event::Interrupted(&outcome));
        Ok(outcome)
    }

    pub(super) fn finish(mut self) -> Result<Outcome, Error> {
        if self.settings.run_dir.is_some() && self.saved.as_ref().is_none_or(|c| c.step != self.step) {
            self.save()?;
        }
        let end = if self.step < self.total { End::StoppedEarly } else { End::Completed };
        let holds = self.load_best()?;
        let outcome = self.outcome(end, holds);
        self.observer.event(&Event::Finished(&outcome));
        Ok(outcome)
    }

    /// Gives the model the best evaluated values, where the recipe says so; returns their step.
    fn load_best(&mut self) -> Result<usize, Error> {
        let wanted = self.settings.training.load_best_model_at_end;
        let Some(best) = self.best.as_ref().filter(|_| wanted).map(|b| b.step) else {
            return Ok(self.step);
        };
        if best == self.step {
            return Ok(self.step);
        }
        match (&self.settings.run_dir, &self.best_values) {
            (Some(run_dir), _) => checkpoint::load_adapter(self.model, &run_dir.join(checkpoint::BEST))?,
            (None, Some(values)) => {
                for (param, value) in self.model.params_mut().iter_mut().zip(values) {
                    param.value.clone_from(value);
                }
                self.turn_lambda(best.saturating_sub(1));
            }
            (None, None) => return Ok(self.step),
        }
        Ok(best)
    }

    fn outcome(&mut self, end: End, holds_step: usize) -> Outcome {
        Outcome {
            end,
            steps: self.step,
            total_steps: self.total,
            records: std::mem::take(&mut self.records),
            losses: std::mem::take(&mut self.losses),
            step_seconds: self.step_seconds,
            evaluations: std::mem::take(&mut self.evaluations),
            looks: std::mem::take(&mut self.looks),
            best: self.best.clone(),
            holds_step,
            seconds: self.began.elapsed().as_secs_f64(),
            peak_rss: memory::peak_rss(),
            peak_activations: sibo_kernels::pool::peak_bytes() as u64,
            checkpoint: self.saved.as_ref().map(|c| c.folder.clone()),
        }
    }
}
