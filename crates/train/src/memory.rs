//! Memory before it is used: what a run will hold, whether it fits, and what would make it fit.

use crate::Error;
use crate::data::Dataset;
use crate::recipe::{OptimKind, Training};
use serde::Serialize;
use sibo_model::{Arch, HeadKind, Model};

/// Bytes that a run is expected to hold at its peak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MemoryPlan {
    /// Frozen weights, as 32-bit floats.
    pub base: u64,
    /// Trainable values, their gradients and the optimiser's moments.
    pub trained: u64,
    /// Activations of the largest micro-batch, and the head's chunk of scores.
    pub activations: u64,
    /// Tokens of that micro-batch.
    pub tokens: usize,
    /// What the system can still give, beside what this process holds already.
    pub available: Option<u64>,
}

/// Rows of scores that the model's head holds at a time (`sibo_model`'s chunk).
const HEAD_CHUNK: u64 = 256;

/// Bytes of a number.
const WORD: u64 = 4;

/// Program, tokenizer, data and allocator: what every run holds beside its numbers.
const PROGRAM: u64 = 64 << 20;

impl MemoryPlan {
    /// The plan of training `model` on `data`.
    pub fn of(model: &Model, data: &Dataset, training: &Training) -> Self {
        let arch = model.arch();
        let tokens = largest_micro_batch(data, training.per_device_train_batch_size);
        let base: u64 = model.shape().tensors.iter().map(|(_, s)| s.iter().product::<usize>() as u64).sum();
        let numbers = model.params().numbers() as u64;
        let moments = if training.optim == OptimKind::AdamW { 2 } else { 1 };
        let kept = kept_per_token(arch) * tokens as u64;
        let inputs = (arch.width * tokens) as u64;
        let layers = arch.layers as u64;
        let tape = if training.gradient_checkpointing { layers * inputs + kept } else { layers * kept };
        let head = if arch.head == HeadKind::CausalLm { 2 * HEAD_CHUNK * arch.vocab as u64 } else { 0 };
        MemoryPlan {
            base: base * WORD,
            trained: numbers * WORD * (2 + moments),
            activations: (tape + working_per_token(arch) * tokens as u64 + head) * WORD,
            tokens,
            available: available(),
        }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.base + self.trained + self.activations + PROGRAM
    }

    /// Refuses a plan that the machine cannot hold, with what would make it fit.
    ///
    /// Weights and trainable values are resident when the plan is made, so activations and moments must find
    /// room.
    pub fn check(&self, training: &Training) -> Result<(), Error> {
        let needed = self.activations + self.trained / 2;
        match self.available {
            Some(available) if needed > available => Err(Error::Refused(format!(
                "the run needs about {} more memory ({} of activations for a micro-batch of {} tokens, {} of optimiser state), and {} are free. {}",
                mib(needed),
                mib(self.activations),
                self.tokens,
                mib(self.trained / 2),
                mib(available),
                advice(training)
            ))),
            _ => Ok(()),
        }
    }
}

fn advice(training: &Training) -> String {
    let mut ways = Vec::new();
    if training.per_device_train_batch_size > 1 {
        ways.push(format!(
            "set per_device_train_batch_size to 1 and gradient_accumulation_steps to {} (the same result)",
            training.batch()
        ));
    }
    if !training.gradient_checkpointing {
        ways.push("set gradient_checkpointing = true (the same result, more time)".into());
    }
    ways.push(format!("lower cutoff_len below {}", training.cutoff_len));
    format!("To make it fit: {}.", ways.join("; or "))
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// The tokens of the longest rows that could meet in one micro-batch.
fn largest_micro_batch(data: &Dataset, rows: usize) -> usize {
    let mut lengths = data.lengths();
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    lengths.iter().take(rows).sum()
}

/// Numbers that a layer keeps of a token for its backward pass: its input, queries, keys, values, the
/// attention's output and normalisers, the norms' inputs and the FFN's inner rows.
fn kept_per_token(arch: &Arch) -> u64 {
    let gates = if arch.names.gate.is_some() { 2 } else { 1 };
    let attention = 2 * arch.q_width() + 2 * arch.kv_width() + arch.heads;
    (3 * arch.width + attention + gates * arch.inner) as u64
}

/// Numbers that are alive while one layer works: the gradients of the FFN's inner rows and of the state.
fn working_per_token(arch: &Arch) -> u64 {
    (3 * arch.inner + 6 * arch.width + 2 * arch.q_width()) as u64
}

/// Most memory that this process has held, bytes (Linux).
pub fn peak_rss() -> Option<u64> {
    status_field("/proc/self/status", "VmHWM:")
}

/// Memory that the system can give without swapping, bytes (Linux).
pub fn available() -> Option<u64> {
    status_field("/proc/meminfo", "MemAvailable:")
}

fn status_field(file: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(field))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}
