//! The `[training]` table: keys as in transformers' `TrainingArguments` where it has them.

use super::reader::Reader;
use crate::Error;
use crate::memory::read_bytes;
use crate::optim::Optimiser;
use crate::schedule::{Schedule, ScheduleKind};
use serde_json::{Value, json};

/// Which optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptimKind {
    /// Adam with decoupled weight decay.
    AdamW,
    /// Stochastic gradient descent.
    Sgd,
}

/// In which numbers the frozen products are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComputeChoice {
    /// bf16 where the processor multiplies it faster, and for a base in 8 or 4 bits; f32 elsewhere.
    Auto,
    /// f32 throughout.
    F32,
    /// bf16 operands, f32 sums.
    Bf16,
}

/// How a run trains.
#[derive(Debug, Clone, PartialEq)]
pub struct Training {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Peak learning rate of a learned lambda (of its theta), under the same schedule; by default 0.01.
    pub lambda_learning_rate: Option<f64>,
    /// Passes over the data.
    pub num_train_epochs: f64,
    /// Optimiser steps, instead of passes.
    pub max_steps: Option<usize>,
    /// Rows of a micro-batch.
    pub per_device_train_batch_size: usize,
    /// Micro-batches of an optimiser step.
    pub gradient_accumulation_steps: usize,
    /// Rows of a batch without a backward pass.
    pub per_device_eval_batch_size: usize,
    /// Shape of the learning rate after warm-up.
    pub lr_scheduler_type: ScheduleKind,
    /// Steps of warm-up; by default [`WARMUP_STEPS`], but no more than a tenth of the run.
    pub warmup_steps: Option<usize>,
    /// Share of all steps that is warm-up, where `warmup_steps` is not given.
    pub warmup_ratio: Option<f64>,
    /// Decoupled weight decay (biases and norm weights are spared).
    pub weight_decay: f64,
    /// Joint norm at which gradients are clipped; 0 clips nothing.
    pub max_grad_norm: f64,
    /// The optimiser.
    pub optim: OptimKind,
    /// AdamW's decay of the first moment.
    pub adam_beta1: f64,
    /// AdamW's decay of the second moment.
    pub adam_beta2: f64,
    /// AdamW's epsilon.
    pub adam_epsilon: f64,
    /// SGD's momentum.
    pub sgd_momentum: f64,
    /// Steps between two lines of the log.
    pub logging_steps: usize,
    /// Steps between two evaluations; by default one at the end of each pass.
    pub eval_steps: Option<usize>,
    /// Evaluate once before the first step.
    pub eval_on_start: bool,
    /// Steps between two looks at the tokens of validation rows, layer by layer; by default none.
    pub probe_every: Option<usize>,
    /// Steps between two checkpoints; by default one after each evaluation.
    pub save_steps: Option<usize>,
    /// Checkpoints kept (the best adapter is kept beside them).
    pub save_total_limit: usize,
    /// End with the best evaluated adapter rather than the last.
    pub load_best_model_at_end: bool,
    /// By what it is the best: `loss`, or a metric of the task.
    pub metric_for_best_model: String,
    /// Whether more is better; by default false for `loss` and true for metrics.
    pub greater_is_better: Option<bool>,
    /// Stop after so many evaluations without a better one.
    pub early_stopping_patience: Option<usize>,
    /// Learn the prompt's tokens too.
    pub train_on_inputs: bool,
    /// Longest row in tokens.
    pub cutoff_len: usize,
    /// Put rows of like length into one batch.
    pub group_by_length: bool,
    /// Compute each layer again on the way back, instead of keeping its activations.
    pub gradient_checkpointing: bool,
    /// The base model's own dropout, as its configuration says.
    pub base_dropout: bool,
    /// At most so many training rows, in a fixed seeded choice.
    pub max_train_samples: Option<usize>,
    /// Rows held out for validation; by default the task's own choice, or [`VALIDATION_ROWS`] of a file.
    pub validation_rows: Option<usize>,
    /// Rows of a data file that are not learned but kept for the end of a study; by default none.
    pub test_rows: Option<usize>,
    /// Numbers of the frozen products.
    pub compute: ComputeChoice,
    /// Threads; by default all cores.
    pub threads: Option<usize>,
    /// Bytes of memory to stay within, by computing or reading again; by default what the machine has free, or not at all.
    pub memory: Option<u64>,
}

/// Warm-up steps of LLM-Adapters' and SIBO's scripts.
pub const WARMUP_STEPS: usize = 100;

/// A few hundred AdamW steps of this move theta by about one, which takes lambda from 0.2 to between 0.1 and 0.4; at the
/// rate of the rest it would stay where it starts.
pub(super) const LAMBDA_LEARNING_RATE: f64 = 1e-2;

/// Validation rows of LLM-Adapters' and SIBO's scripts.
pub const VALIDATION_ROWS: usize = 120;

impl Default for Training {
    fn default() -> Self {
        Training {
            // LLM-Adapters and SIBO: rate, passes, batch 16 as 4 x 4, cutoff, best checkpoint of validation,
            // three checkpoints, a log line every 10 steps (method.md, section 2).
            learning_rate: 3e-4,
            num_train_epochs: 3.0,
            per_device_train_batch_size: 4,
            gradient_accumulation_steps: 4,
            cutoff_len: 256,
            load_best_model_at_end: true,
            save_total_limit: 3,
            logging_steps: 10,
            warmup_steps: None,
            warmup_ratio: None,
            // Those scripts learn the prompt too; a response is what a user wants taught, and what
            // evaluation reads, so here it is off.
            train_on_inputs: false,
            // transformers' TrainingArguments.
            max_steps: None,
            per_device_eval_batch_size: 8,
            lr_scheduler_type: ScheduleKind::Linear,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            optim: OptimKind::AdamW,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-8,
            eval_on_start: false,
            metric_for_best_model: "loss".into(),
            greater_is_better: None,
            group_by_length: false,
            gradient_checkpointing: false,
            // PyTorch's SGD.
            sgd_momentum: 0.0,
            // This crate's own: one evaluation a pass, one checkpoint an evaluation, no early stop.
            eval_steps: None,
            probe_every: None,
            save_steps: None,
            early_stopping_patience: None,
            lambda_learning_rate: None,
            // transformers' `train()` has the base model's dropout on, in frozen layers too.
            base_dropout: true,
            max_train_samples: None,
            validation_rows: None,
            test_rows: None,
            compute: ComputeChoice::Auto,
            threads: None,
            memory: None,
        }
    }
}

/// The keys of the table.
pub(super) const KEYS: &[&str] = &[
    "learning_rate",
    "lambda_learning_rate",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "per_device_eval_batch_size",
    "lr_scheduler_type",
    "warmup_steps",
    "warmup_ratio",
    "weight_decay",
    "max_grad_norm",
    "optim",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "sgd_momentum",
    "logging_steps",
    "eval_steps",
    "eval_on_start",
    "probe_every",
    "save_steps",
    "save_total_limit",
    "load_best_model_at_end",
    "metric_for_best_model",
    "greater_is_better",
    "early_stopping_patience",
    "train_on_inputs",
    "cutoff_len",
    "group_by_length",
    "gradient_checkpointing",
    "base_dropout",
    "max_train_samples",
    "validation_rows",
    "test_rows",
    "compute",
    "threads",
    "memory",
];

const SCHEDULES: [(&str, ScheduleKind); 3] = [
    ("linear", ScheduleKind::Linear),
    ("cosine", ScheduleKind::Cosine),
    ("constant", ScheduleKind::Constant),
];

/// transformers' names for the same optimisers are taken too.
const OPTIMISERS: [(&str, OptimKind); 5] = [
    ("adamw", OptimKind::AdamW),
    ("sgd", OptimKind::Sgd),
    ("adamw_torch", OptimKind::AdamW),
    ("adamw_torch_fused", OptimKind::AdamW),
    ("adamw_hf", OptimKind::AdamW),
];

const COMPUTES: [(&str, ComputeChoice); 3] =
    [("auto", ComputeChoice::Auto), ("f32", ComputeChoice::F32), ("bf16", ComputeChoice::Bf16)];

const ABOVE_ZERO: &str = "a number above 0";
const ZERO_OR_ABOVE: &str = "a number, 0 or above";
const BELOW_ONE: &str = "a number with 0 <= x < 1";

impl Training {
    /// Reads the table found in `place`.
    pub(super) fn read(place: &str, table: &Value) -> Result<Self, Error> {
        let mut table = table.clone();
        // transformers writes "none" as -1 here.
        if let Some(object) = table.as_object_mut()
            && object.get("max_steps") == Some(&json!(-1))
        {
            object.remove("max_steps");
        }
        let mut r = Reader::new(place, "training.", &table, KEYS)?;
        let d = Training::default();
        let share = |x: f64| (0.0..1.0).contains(&x);
        let positive = |x: f64| x > 0.0;
        let training = Training {
            learning_rate: r.number("learning_rate", ABOVE_ZERO, d.learning_rate, positive)?,
            lambda_learning_rate: match r.number("lambda_learning_rate", ABOVE_ZERO, f64::NAN, positive)? {
                rate if rate.is_nan() => None,
                rate => Some(rate),
            },
            num_train_epochs: r.number(
                "num_train_epochs",
                "a number above 0, at most 1,000,000",
                d.num_train_epochs,
                |x| x > 0.0 && x <= 1e6,
            )?,
            max_steps: r.count("max_steps", 1)?,
            per_device_train_batch_size: r
                .count("per_device_train_batch_size", 1)?
                .unwrap_or(d.per_device_train_batch_size),
            gradient_accumulation_steps: r
                .count("gradient_accumulation_steps", 1)?
                .unwrap_or(d.gradient_accumulation_steps),
            per_device_eval_batch_size: r
                .count("per_device_eval_batch_size", 1)?
                .unwrap_or(d.per_device_eval_batch_size),
            lr_scheduler_type: r.word("lr_scheduler_type", &SCHEDULES, d.lr_scheduler_type)?,
            warmup_steps: r.count("warmup_steps", 0)?,
            warmup_ratio: match r.number("warmup_ratio", BELOW_ONE, f64::NAN, share)? {
                ratio if ratio.is_nan() => None,
                ratio => Some(ratio),
            },
            weight_decay: r.number("weight_decay", ZERO_OR_ABOVE, d.weight_decay, |x| x >= 0.0)?,
            max_grad_norm: r.number("max_grad_norm", ZERO_OR_ABOVE, d.max_grad_norm, |x| x >= 0.0)?,
            optim: r.word("optim", &OPTIMISERS, d.optim)?,
            adam_beta1: r.number("adam_beta1", BELOW_ONE, d.adam_beta1, share)?,
            adam_beta2: r.number("adam_beta2", BELOW_ONE, d.adam_beta2, share)?,
            adam_epsilon: r.number("adam_epsilon", ABOVE_ZERO, d.adam_epsilon, positive)?,
            sgd_momentum: r.number("sgd_momentum", BELOW_ONE, d.sgd_momentum, share)?,
            logging_steps: r.count("logging_steps", 1)?.unwrap_or(d.logging_steps),
            eval_steps: r.count("eval_steps", 1)?,
            eval_on_start: r.flag("eval_on_start", d.eval_on_start)?,
            probe_every: r.count("probe_every", 1)?,
            save_steps: r.count("save_steps", 1)?,
            save_total_limit: r.count("save_total_limit", 1)?.unwrap_or(d.save_total_limit),
            load_best_model_at_end: r.flag("load_best_model_at_end", d.load_best_model_at_end)?,
            metric_for_best_model: r.text("metric_for_best_model")?.unwrap_or(d.metric_for_best_model),
            greater_is_better: r
                .take("greater_is_better")
                .map(|v| v.as_bool().ok_or(v))
                .transpose()
                .map_err(|v| {
                    Error::key(place, "training.greater_is_better", format!("{v} is not true or false"))
                })?,
            early_stopping_patience: r.count("early_stopping_patience", 1)?,
            train_on_inputs: r.flag("train_on_inputs", d.train_on_inputs)?,
            cutoff_len: r.count("cutoff_len", 2)?.unwrap_or(d.cutoff_len),
            group_by_length: r.flag("group_by_length", d.group_by_length)?,
            gradient_checkpointing: r.flag("gradient_checkpointing", d.gradient_checkpointing)?,
            base_dropout: r.flag("base_dropout", d.base_dropout)?,
            max_train_samples: r.count("max_train_samples", 1)?,
            validation_rows: r.count("validation_rows", 1)?,
            test_rows: r.count("test_rows", 1)?,
            compute: r.word("compute", &COMPUTES, d.compute)?,
            threads: r.count("threads", 1)?,
            memory: match r.text("memory")? {
                Some(text) => Some(read_bytes(&text).map_err(|reason| r.error("memory", reason))?),
                None => None,
            },
        };
        Ok(training)
    }

    /// The table with every default filled in.
    pub fn to_value(&self) -> Value {
        fn name<T: PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
            words.iter().find(|(_, v)| *v == value).map_or("", |(name, _)| name)
        }
        let mut value = json!({
            "learning_rate": self.learning_rate,
            "lambda_learning_rate": self.lambda_learning_rate,
            "num_train_epochs": self.num_train_epochs,
            "max_steps": self.max_steps,
            "per_device_train_batch_size": self.per_device_train_batch_size,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            "per_device_eval_batch_size": self.per_device_eval_batch_size,
            "lr_scheduler_type": name(&SCHEDULES, self.lr_scheduler_type),
            "warmup_steps": self.warmup_steps,
            "warmup_ratio": self.warmup_ratio,
            "weight_decay": self.weight_decay,
            "max_grad_norm": self.max_grad_norm,
            "optim": name(&OPTIMISERS, self.optim),
            "adam_beta1": self.adam_beta1,
            "adam_beta2": self.adam_beta2,
            "adam_epsilon": self.adam_epsilon,
            "sgd_momentum": self.sgd_momentum,
            "logging_steps": self.logging_steps,
            "eval_steps": self.eval_steps,
            "eval_on_start": self.eval_on_start,
            "probe_every": self.probe_every,
            "save_steps": self.save_steps,
            "save_total_limit": self.save_total_limit,
            "load_best_model_at_end": self.load_best_model_at_end,
            "metric_for_best_model": self.metric_for_best_model,
            "greater_is_better": self.greater_is_better,
            "early_stopping_patience": self.early_stopping_patience,
            "train_on_inputs": self.train_on_inputs,
            "cutoff_len": self.cutoff_len,
            "group_by_length": self.group_by_length,
            "gradient_checkpointing": self.gradient_checkpointing,
            "base_dropout": self.base_dropout,
            "max_train_samples": self.max_train_samples,
            "validation_rows": self.validation_rows,
            "test_rows": self.test_rows,
            "compute": name(&COMPUTES, self.compute),
            "threads": self.threads,
            "memory": self.memory.map(|bytes| bytes.to_string()),
        });
        // TOML has no null: what is not given is absent.
        if let Some(object) = value.as_object_mut() {
            object.retain(|_, v| !v.is_null());
        }
        value
    }

    /// Rows of an optimiser step.
    pub fn batch(&self) -> usize {
        self.per_device_train_batch_size * self.gradient_accumulation_steps
    }

    /// Optimiser steps of a pass over `rows` rows; the last may be smaller.
    pub fn steps_per_epoch(&self, rows: usize) -> usize {
        rows.div_ceil(self.batch()).max(1)
    }

    /// Optimiser steps of the whole run.
    pub fn total_steps(&self, rows: usize) -> usize {
        let by_epochs = (self.num_train_epochs * self.steps_per_epoch(rows) as f64).ceil() as usize;
        self.max_steps.unwrap_or(by_epochs.max(1))
    }

    /// The learning rate's course over a run of `total` steps.
    pub fn schedule(&self, total: usize) -> Schedule {
        let warmup_steps = match (self.warmup_steps, self.warmup_ratio) {
            (Some(steps), _) => steps,
            // transformers rounds the ratio up.
            (None, Some(ratio)) => (ratio * total as f64).ceil() as usize,
            (None, None) => WARMUP_STEPS.min(total / 10),
        };
        Schedule { kind: self.lr_scheduler_type, warmup_steps, total_steps: total }
    }

    /// A fresh optimiser.
    pub fn optimiser(&self) -> Optimiser {
        let rule = match self.optim {
            OptimKind::AdamW => {
                Optimiser::adamw(self.adam_beta1, self.adam_beta2, self.adam_epsilon, self.weight_decay)
            }
            OptimKind::Sgd => Optimiser::sgd(self.sgd_momentum, self.weight_decay),
        };
        rule.with_theta_rate(self.lambda_learning_rate.unwrap_or(LAMBDA_LEARNING_RATE) / self.learning_rate)
    }

    /// Whether a greater value of the chosen metric is better.
    pub fn greater_is_better(&self) -> bool {
        self.greater_is_better.unwrap_or(self.best_metric() != "loss")
    }

    /// The metric's name without transformers' `eval_` before it.
    pub fn best_metric(&self) -> &str {
        let name = &self.metric_for_best_model;
        name.strip_prefix("eval_").unwrap_or(name)
    }
}
