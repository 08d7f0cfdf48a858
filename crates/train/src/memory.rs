//! Memory before it is used: what a run will hold (planned by [`Model::plan`]), and whether this machine has it.

use crate::Error;
use crate::data::Dataset;
use crate::recipe::{OptimKind, Training};
use serde::Serialize;
use sibo_kernels::pool;
use sibo_model::{Model, PlanInput};

/// Bytes that a run is expected to hold at its peak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MemoryPlan {
    /// Frozen weights.
    pub base: u64,
    /// Trainable values, their gradients and the optimiser's moments.
    pub trained: u64,
    /// Activations of the largest micro-batch, and what is under way beside them.
    pub activations: u64,
    /// The program, the tokenizer and the rows.
    pub program: u64,
    /// Tokens of the largest micro-batch.
    pub tokens: usize,
    /// What this process holds already and what the system can still give, where it tells.
    pub available: Option<u64>,
}

impl MemoryPlan {
    /// The plan of training `model` on `data`; one that the machine cannot hold is refused with what would fit.
    pub fn of(model: &Model, data: &Dataset, training: &Training) -> Result<Self, Error> {
        MemoryPlan::within(available(), held(), model, data, training)
    }

    fn within(
        available: Option<u64>,
        held: Option<u64>,
        model: &Model,
        data: &Dataset,
        training: &Training,
    ) -> Result<Self, Error> {
        let input = largest_micro_batch(data, training);
        let mut plan = model.plan(&input);
        // Rows of many lengths leave buffers idle, which the pool keeps up to its bound.
        plan.working = pool::bound(plan.kept + plan.working) - plan.kept;
        // Code, tokenizer and rows are there already, beside the weights: counted, not estimated.
        let values = model.params().numbers() * 4;
        if let Some(held) = held {
            plan.rest = plan.rest.max((held as usize).saturating_sub(plan.frozen + values));
        }
        let refusal = available.and_then(|bytes| plan.refusal(bytes as usize, &input));
        match refusal {
            Some(sentence) => Err(Error::Refused(sentence)),
            None => Ok(MemoryPlan {
                base: plan.frozen as u64,
                trained: plan.trained as u64,
                activations: (plan.kept + plan.working) as u64,
                program: plan.rest as u64,
                tokens: input.tokens,
                available,
            }),
        }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.base + self.trained + self.activations + self.program
    }
}

/// The longest rows that could meet in one micro-batch.
fn largest_micro_batch(data: &Dataset, training: &Training) -> PlanInput {
    let most = |mut sizes: Vec<usize>| -> usize {
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes.iter().take(training.per_device_train_batch_size).sum()
    };
    PlanInput {
        tokens: most(data.lengths()),
        labelled: most(data.rows.iter().map(crate::data::LabelledRow::count).collect()),
        recompute: training.gradient_checkpointing,
        moments: if training.optim == OptimKind::AdamW { 2 } else { 1 },
    }
}

/// Most memory that this process has held, bytes (Linux).
pub fn peak_rss() -> Option<u64> {
    field("/proc/self/status", "VmHWM:")
}

/// What this process holds, bytes (Linux).
pub fn held() -> Option<u64> {
    field("/proc/self/status", "VmRSS:")
}

/// What this process holds and what the system can give it without swapping, bytes (Linux).
pub fn available() -> Option<u64> {
    Some(held()? + field("/proc/meminfo", "MemAvailable:")?)
}

fn field(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Label, LabelledRow};
    use sibo_model::Row;

    #[test]
    fn the_longest_rows_make_the_largest_micro_batch() {
        let row = |len: usize, labelled: usize| LabelledRow {
            row: Row { ids: vec![1; len], ..Row::default() },
            label: Label::Tokens((0..len).map(|i| if i < len - labelled { -100 } else { 3 }).collect()),
        };
        let rows = vec![row(5, 2), row(11, 1), row(7, 6), row(3, 1)];
        let data = Dataset { rows, ..Dataset::default() };
        let training =
            Training { per_device_train_batch_size: 2, optim: OptimKind::Sgd, ..Training::default() };
        let input = largest_micro_batch(&data, &training);
        assert_eq!((input.tokens, input.labelled, input.moments, input.recompute), (18, 8, 1, false));
    }

    #[test]
    fn a_plan_that_does_not_fit_is_refused_with_what_would() {
        let model = crate::testing::model("llama-gqa", crate::testing::sibo_lora(&["q_proj"]));
        let data = crate::testing::token_rows(40, 60);
        let training = Training { per_device_train_batch_size: 32, ..Training::default() };
        let plan = |bytes| MemoryPlan::within(bytes, None, &model, &data, &training);
        let whole = plan(None).unwrap();
        assert!(plan(Some(whole.total())).is_ok());
        let said = plan(Some(whole.total() - whole.activations / 2)).unwrap_err().to_string();
        assert!(said.contains("What would fit") && said.contains("gradient_checkpointing"), "{said}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_system_tells() {
        assert!(peak_rss().is_some_and(|bytes| bytes > 1 << 20));
        assert!(available() > peak_rss());
    }
}
