//! What a run tells while it runs, and what it leaves. The library prints nothing: an [`Observer`] does.

use crate::memory::MemoryPlan;
use crate::probe::LayerLook;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Listens to a run. Any `FnMut(&Event)` is one.
pub trait Observer {
    /// Something happened.
    fn event(&mut self, event: &Event<'_>);
}

impl<F: FnMut(&Event<'_>)> Observer for F {
    fn event(&mut self, event: &Event<'_>) {
        self(event);
    }
}

/// An observer that looks away.
pub struct Silent;

impl Observer for Silent {
    fn event(&mut self, _: &Event<'_>) {}
}

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// Before the first step; everything is checked and nothing is trained.
    Started(&'a Facts),
    /// After each optimiser step.
    Step(&'a StepRecord),
    /// An evaluation begins: rows to look at.
    Evaluating(usize),
    /// After each evaluation.
    Evaluated(&'a EvalRecord),
    /// After each look at the tokens of validation rows.
    Looked(&'a LookRecord),
    /// A checkpoint has been written.
    Checkpoint {
        /// After this many steps.
        step: usize,
        /// Where.
        folder: &'a std::path::Path,
    },
    /// All steps are done, or early stopping ended them; the model holds its final values.
    Finished(&'a Outcome),
    /// The interruption flag ended the run between two steps; the checkpoint, if one is written, is whole.
    Interrupted(&'a Outcome),
}

/// What is known before the first step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Facts {
    /// Training rows.
    pub rows: usize,
    /// Their tokens.
    pub tokens: usize,
    /// Labelled tokens, or rows for a classifier.
    pub labelled: usize,
    /// Tokens of the longest row.
    pub longest: usize,
    /// Validation rows.
    pub validation_rows: usize,
    /// Optimiser steps of the run.
    pub total_steps: usize,
    /// Of a pass.
    pub steps_per_epoch: usize,
    /// Of warm-up.
    pub warmup_steps: usize,
    /// Rows of a step.
    pub batch: usize,
    /// Rows of a micro-batch.
    pub micro_batch: usize,
    /// Trainable tensors.
    pub trained_tensors: usize,
    /// Numbers in them.
    pub trained_numbers: usize,
    /// Paths of the branches that SIBO enters.
    pub injected: Vec<String>,
    /// Paths of the branches that run plain.
    pub plain: Vec<String>,
    /// Whether the base model's own dropout is on and above zero.
    pub base_dropout: bool,
    /// Memory, before it is used.
    pub memory: MemoryPlan,
    /// Steps that were done before, in a resumed run.
    pub resumed_at: Option<usize>,
    /// Sentences to show: of the data, of a checkpoint from another machine.
    pub notes: Vec<String>,
}

/// One optimiser step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepRecord {
    /// Steps done, from 1.
    pub step: usize,
    /// Passes over the data done, with fractions.
    pub epoch: f64,
    /// Mean loss over the step's labelled tokens or rows.
    pub loss: f64,
    /// The learning rate of the update.
    pub lr: f64,
    /// Mean lambda of the pass, where the run moves it by a schedule or learns it.
    pub lambda: Option<f64>,
    /// Joint norm of the gradients before clipping.
    pub grad_norm: f64,
    /// Tokens read.
    pub tokens: usize,
    /// Wall time of the step, seconds.
    pub seconds: f64,
    /// Tokens a second.
    pub tokens_per_second: f64,
    /// Most memory resident so far, bytes, where the system tells.
    pub peak_rss: Option<u64>,
    /// Most bytes of activations at one time so far (`sibo_kernels::pool` counts them).
    pub peak_activations: u64,
}

/// One evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EvalRecord {
    /// Steps done.
    pub step: usize,
    /// Passes over the data done, with fractions.
    pub epoch: f64,
    /// `loss`, then the metrics by name.
    pub scores: Vec<(String, f64)>,
    /// Whether it is the best so far.
    pub best: bool,
    /// Wall time, seconds.
    pub seconds: f64,
}

impl EvalRecord {
    /// The score of that name.
    pub fn score(&self, name: &str) -> Option<f64> {
        self.scores.iter().find(|(n, _)| n == name).map(|(_, value)| *value)
    }
}

/// The tokens of the same rows, layer by layer, at some step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LookRecord {
    /// Steps done.
    pub step: usize,
    /// Passes over the data done, with fractions.
    pub epoch: f64,
    /// Mean norm of a token's h0, what enters the first layer.
    pub h0_norm: f64,
    /// Layer 0 is h0, L the output of the last.
    pub layers: Vec<LayerLook>,
    /// Wall time, seconds.
    pub seconds: f64,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// All steps.
    Completed,
    /// Early stopping.
    StoppedEarly,
    /// The interruption flag.
    Interrupted,
}

/// The best evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Best {
    /// Steps done then.
    pub step: usize,
    /// By what it is the best.
    pub metric: String,
    /// Its value.
    pub value: f64,
}

/// What a run leaves.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Steps done, those before a resume counted.
    pub steps: usize,
    /// Steps planned.
    pub total_steps: usize,
    /// Every step of this process (not those before a resume).
    pub records: Vec<StepRecord>,
    /// The loss of every step, those before a resume counted.
    pub losses: Vec<f64>,
    /// What all steps took, those before a resume counted, seconds.
    pub step_seconds: f64,
    /// Every evaluation, those before a resume counted.
    pub evaluations: Vec<EvalRecord>,
    /// Every look at the tokens, those before a resume counted.
    pub looks: Vec<LookRecord>,
    /// The best evaluation; the model holds its values if `load_best_model_at_end` says so.
    pub best: Option<Best>,
    /// The step whose values the model holds.
    pub holds_step: usize,
    /// Wall time of this process's part, seconds.
    pub seconds: f64,
    /// Most memory resident, bytes, where the system tells.
    pub peak_rss: Option<u64>,
    /// Most bytes of activations at one time in this run (`sibo_kernels::pool` counts them).
    pub peak_activations: u64,
    /// The last checkpoint.
    pub checkpoint: Option<PathBuf>,
}

impl Outcome {
    /// Tokens a second over all steps of this process.
    pub fn tokens_per_second(&self) -> f64 {
        let seconds: f64 = self.records.iter().map(|r| r.seconds).sum();
        let tokens: usize = self.records.iter().map(|r| r.tokens).sum();
        if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 }
    }
}
