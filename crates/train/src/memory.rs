//! Memory before it is used: what a run will hold (planned by [`Model::plan`]), whether this machine has it, and what
//! is given up for a budget: time, never a bit of what is trained (what is measured of validation rows may differ in its last
//! digits, because fewer of them share a pass).

use crate::Error;
use crate::data::Dataset;
use crate::recipe::{OptimKind, Training};
use serde::Serialize;
use sibo_kernels::pool;
use sibo_model::{Model, PlanInput, Recompute, WINDOW};

/// Bytes that a run is expected to hold at its peak, and what it does for that.
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
    /// What it was asked to stay within.
    pub budget: Option<u64>,
    /// Layers of the model.
    pub layers: usize,
    /// Layers that are computed again on the way back.
    pub recomputed: usize,
    /// Layers that are read from their files whenever a pass comes by.
    pub streamed: usize,
}

impl MemoryPlan {
    /// The plan of training `model`, which need only be open, on `data`, within the budget of `training` where it has
    /// one; one that cannot be held is refused with what would fit.
    pub fn of(model: &Model, data: &Dataset, training: &Training) -> Result<Self, Error> {
        MemoryPlan::choose(model, largest_micro_batch(data, training), training.memory)
    }

    /// The same for a step of known size. Within a budget, what is not asked for is chosen in this order, and as little of
    /// it as fits: layers that are computed again, which costs up to half as much time again on any machine; and beside
    /// all of these, layers that are read again and again, which costs what the disk makes of it.
    pub fn choose(model: &Model, input: PlanInput, budget: Option<u64>) -> Result<Self, Error> {
        MemoryPlan::within(available(), held(), model, input, budget)
    }

    fn within(
        available: Option<u64>,
        held: Option<u64>,
        model: &Model,
        input: PlanInput,
        budget: Option<u64>,
    ) -> Result<Self, Error> {
        let layers = model.arch().layers;
        let limit = budget.into_iter().chain(available).min();
        let asked = input.recompute.count(layers);
        let input = PlanInput { streamed: model.streamed(), ..input };
        let planned = |input: &PlanInput| planned(model, held, input);
        let fits = |input: &PlanInput| limit.is_none_or(|most| planned(input).total() as u64 <= most);
        let again = (asked..=layers).map(|n| PlanInput { recompute: n.max(asked).into(), ..input });
        let all = PlanInput { recompute: Recompute::ALL, ..input };
        let streamed = (WINDOW + 1..=layers).map(|n| PlanInput { streamed: n, ..all });
        let chosen = match budget {
            None => Some(input).filter(fits),
            // What was read is read: it can only be computed with.
            Some(_) if !model.is_open() => again.into_iter().find(fits).or(Some(all)),
            Some(_) => again.chain(streamed).find(fits),
        };
        let Some(chosen) = chosen else {
            return Err(Error::Refused(refusal(model, held, &input, (budget, limit.unwrap_or(0)))));
        };
        let plan = planned(&chosen);
        Ok(MemoryPlan {
            base: plan.frozen as u64,
            trained: plan.trained as u64,
            activations: (plan.kept + plan.working) as u64,
            program: plan.rest as u64,
            tokens: input.tokens,
            available,
            budget,
            layers,
            recomputed: chosen.recompute.count(layers),
            streamed: chosen.streamed,
        })
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.base + self.trained + self.activations + self.program
    }

    /// Rows of a pass that only looks (validation, probes): as many as are `asked` for, or within a budget as many of the
    /// longest of these rows as fit where a training step does. Products of 32 rows or fewer have kernels of their
    /// own, and sums are grouped by pass, so a mean over rows may differ in its last digits.
    pub fn looked_at(&self, model: &Model, sets: &[&Dataset], asked: usize) -> usize {
        let longest = sets.iter().flat_map(|data| data.lengths()).max().unwrap_or(0);
        let Some(budget) = self.budget else { return asked };
        // What a step leaves of the budget is there too.
        let room = self.activations + budget.saturating_sub(self.total());
        let fits = |rows: &usize| pool::bound(model.forward_bytes(rows * longest)) as u64 <= room;
        (1..=asked).rev().find(fits).unwrap_or(1)
    }

    /// What was chosen for the budget, in words; none where there is none.
    pub fn choice(&self) -> Option<String> {
        self.budget?;
        let of = |n: usize| {
            if n == self.layers { "all layers".to_string() } else { format!("{n} of {} layers", self.layers) }
        };
        Some(match (self.recomputed, self.streamed) {
            (0, 0) => "everything fits: nothing is computed or read again".into(),
            (n, 0) => format!("{} are computed again on the way back", of(n)),
            (0, s) => format!("{} are read from the model's files in every pass", of(s)),
            (n, s) => format!(
                "{} are computed again on the way back, and {} are read from the model's files in every pass",
                of(n),
                of(s)
            ),
        })
    }
}

/// The model's plan, with what is known of this process.
fn planned(model: &Model, held: Option<u64>, input: &PlanInput) -> sibo_model::MemoryPlan {
    let mut plan = model.plan(input);
    // Rows of many lengths leave buffers idle, which the pool keeps up to its bound.
    plan.working = pool::bound(plan.kept + plan.working) - plan.kept;
    // Code, tokenizer and rows are there already, beside the weights: counted, not estimated.
    let values = model.params().numbers() * 4;
    if let Some(held) = held {
        plan.rest = plan.rest.max((held as usize).saturating_sub(model.frozen_here() + values));
    }
    plan
}

/// Why nothing fits, and what would.
fn refusal(
    model: &Model,
    held: Option<u64>,
    input: &PlanInput,
    (budget, limit): (Option<u64>, u64),
) -> String {
    let asked = planned(model, held, input);
    let mib = |bytes: usize| bytes >> 20;
    let Some(budget) = budget else {
        return asked.refusal(limit as usize, input).unwrap_or_else(|| "a step does not fit".into());
    };
    let least = PlanInput { recompute: Recompute::ALL, streamed: model.arch().layers, ..*input };
    let plan = planned(model, held, &least);
    let room = match limit < budget {
        true => format!("{} MiB are free, less than the budget", limit >> 20),
        false => {
            format!("the budget is {} MiB, and {} MiB would be enough", limit >> 20, mib(plan.total()) + 1)
        }
    };
    format!(
        "a step needs about {} MiB as it is asked for, and {} MiB with every layer computed again and read in its turn \
         (weights {}, what trains {}, activations {}, the program {}); {room}. {}",
        mib(asked.total()),
        mib(plan.total()),
        mib(plan.frozen),
        mib(plan.trained),
        mib(plan.kept + plan.working),
        mib(plan.rest),
        plan.remedy(limit as usize, &least)
    )
}

/// A number of bytes as people write it: `8GiB`, `1.5 GiB`, `900MiB`, `6GB`, or bytes.
pub fn read_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kib" | "k" => 1024.0,
        "mib" | "m" => 1_048_576.0,
        "gib" | "g" => 1_073_741_824.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        _ => f64::NAN,
    };
    let bytes = number.trim().parse::<f64>().unwrap_or(f64::NAN) * unit;
    match (1.0..1e15).contains(&bytes) {
        true => Ok(bytes as u64),
        false => Err(format!("`{text}` is no size of memory; write 8GiB, 900MiB or 6GB")),
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
        recompute: training.gradient_checkpointing.into(),
        streamed: 0,
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
        assert_eq!((input.tokens, input.labelled, input.moments), (18, 8, 1));
        assert_eq!(input.recompute, Recompute::default());
    }

    #[test]
    fn a_plan_that_does_not_fit_is_refused_with_what_would() {
        let model = crate::testing::model("llama-gqa", crate::testing::sibo_lora(&["q_proj"]));
        let data = crate::testing::token_rows(40, 60);
        let training = Training { per_device_train_batch_size: 32, ..Training::default() };
        let input = largest_micro_batch(&data, &training);
        let plan = |bytes| MemoryPlan::within(bytes, None, &model, input, None);
        let whole = plan(None).unwrap();
        assert!(plan(Some(whole.total())).is_ok());
        let said = plan(Some(whole.total() - whole.activations / 2)).unwrap_err().to_string();
        assert!(said.contains("What would fit") && said.contains("gradient_checkpointing"), "{said}");
    }

    /// From what is asked for down to the least: first layers are computed again, then, with all of them, layers are
    /// streamed, and then it is refused; every plan stays within its budget.
    #[test]
    fn a_budget_is_met_by_as_little_as_fits() {
        let config = crate::testing::sibo_lora(&["q_proj"]);
        let model = crate::testing::open_model(config, 12);
        let input = PlanInput {
            tokens: 2000,
            labelled: 2000,
            recompute: Recompute::default(),
            moments: 2,
            streamed: 0,
        };
        let choose = |budget: u64| MemoryPlan::within(None, None, &model, input, Some(budget));
        let whole = choose(1 << 40).unwrap();
        assert_eq!((whole.recomputed, whole.streamed), (0, 0));
        assert!(whole.choice().unwrap().contains("everything fits"));
        let mut before = (0, 0);
        let mut seen = Vec::new();
        let step = whole.total() / 400;
        let refused = (0..400).find_map(|i| match choose(whole.total() - i * step) {
            Ok(plan) => {
                assert!(plan.total() <= whole.total() - i * step);
                let now = (plan.recomputed, plan.streamed);
                assert!(now >= before && (now.1 == 0 || now.0 == 12), "{now:?} after {before:?}");
                before = now;
                seen.push(now);
                None
            }
            Err(error) => Some(error.to_string()),
        });
        assert!(seen.iter().any(|(n, s)| (1..12).contains(n) && *s == 0), "{seen:?}");
        assert!(seen.iter().any(|(n, s)| *n == 12 && *s > WINDOW), "{seen:?}");
        let refused = refused.unwrap();
        assert!(refused.contains("as it is asked for") && refused.contains("the budget is"), "{refused}");
    }

    /// A budget holds for validation too; without one, rows are looked at as they are asked for.
    #[test]
    fn a_look_holds_no_more_than_a_step_within_a_budget() {
        let model = crate::testing::open_model(crate::testing::sibo_lora(&["q_proj"]), 12);
        let row = |len: usize| LabelledRow {
            row: Row { ids: vec![1; len], ..Row::default() },
            label: Label::Tokens(vec![3; len]),
        };
        let of = |lengths: &[usize]| Dataset {
            rows: lengths.iter().map(|n| row(*n)).collect(),
            ..Dataset::default()
        };
        let (train, long) = (of(&[40, 31, 7]), of(&[5, 90]));
        let training = Training { per_device_train_batch_size: 2, ..Training::default() };
        let input = largest_micro_batch(&train, &training);
        let within = |budget| MemoryPlan::within(None, None, &model, input, budget).unwrap();
        assert_eq!(within(None).looked_at(&model, &[&train, &long], 200), 200);
        assert_eq!(within(Some(1 << 40)).looked_at(&model, &[&train, &long], 200), 200, "room enough");
        let plan = within(Some(within(None).total() + (1 << 20)));
        let rows = plan.looked_at(&model, &[&train, &long], 10_000);
        assert!((1..10_000).contains(&rows), "{rows}");
        let held = |rows: usize| pool::bound(model.forward_bytes(rows * 90)) as u64;
        let room = plan.activations + (1 << 20);
        assert!(held(rows) <= room && held(rows + 1) > room, "{rows}");
        assert_eq!(plan.looked_at(&model, &[&train, &of(&[100_000])], 200), 1, "one row is the least");
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(read_bytes("8GiB"), Ok(8 << 30));
        assert_eq!(read_bytes(" 1.5 gib"), Ok(3 << 29));
        assert_eq!(read_bytes("6GB"), Ok(6_000_000_000));
        assert_eq!(read_bytes("900M"), Ok(900 << 20));
        for wrong in ["", "GiB", "8 apples", "-1GiB", "0", "inf"] {
            assert!(read_bytes(wrong).unwrap_err().contains("8GiB"), "{wrong}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_system_tells() {
        assert!(peak_rss().is_some_and(|bytes| bytes > 1 << 20));
        assert!(available() > peak_rss());
    }
}
