//! What a quickstart says on the terminal and in `results.json`.

use super::{Finding, PLAIN, SIBO};
use crate::app::{self, App};
use crate::machine;
use serde_json::{Value, json};
use sibo_report::{Cell, Column, Estimate, Table, number, terminal};
use sibo_tasks::Metric;
use sibo_tasks::stats::{self, LEVEL};
use sibo_train::study::ArmRun;
use std::path::Path;

impl Finding {
    /// The runs of a system, by seed.
    pub(super) fn runs(&self, arm: usize) -> impl Iterator<Item = &ArmRun> {
        self.study.runs.iter().filter(move |run| run.arm == arm)
    }

    /// Accuracy of each seed.
    pub(super) fn accuracies(&self, arm: usize) -> Vec<f64> {
        let score = |run: &ArmRun| run.scores.iter().find(|(m, _)| *m == Metric::Acc).map(|(_, s)| s.value);
        self.runs(arm).filter_map(score).collect()
    }

    /// Mean accuracy; its interval reaches as far as other rows (Wilson) or other seeds (Student's t) could.
    pub(super) fn accuracy(&self, arm: usize) -> Estimate {
        let all = self.accuracies(arm);
        let mean = all.iter().sum::<f64>() / all.len().max(1) as f64;
        let rows = self.test.len();
        let right = (mean * rows as f64).round() as usize;
        let mut reach = (mean, mean);
        let by_rows = stats::share_interval(right.min(rows), rows, LEVEL).ok();
        let by_seeds = stats::mean_interval(&all, LEVEL).ok();
        for interval in [by_rows, by_seeds].into_iter().flatten() {
            reach = (reach.0.min(interval.low), reach.1.max(interval.high));
        }
        Estimate::between(mean, reach.0.max(0.0), reach.1.min(1.0))
    }

    /// Token similarity by layer: one list for each seed.
    pub(super) fn similarity(&self, arm: usize) -> Vec<Vec<f64>> {
        self.runs(arm).map(|run| run.probe.iter().map(|l| l.similarity.estimate).collect()).collect()
    }

    /// Token similarity of the base by layer.
    pub(super) fn base_similarity(&self) -> Vec<f64> {
        self.study.base_probe.iter().map(|l| l.similarity.estimate).collect()
    }

    /// Mean seconds of a run's training.
    pub(super) fn seconds_of(&self, arm: usize) -> f64 {
        let all: Vec<f64> = self.runs(arm).map(|run| run.outcome.seconds).collect();
        all.iter().sum::<f64>() / all.len().max(1) as f64
    }

    /// Most mebibytes of activations that a run of the system held at a time.
    pub(super) fn activations_of(&self, arm: usize) -> f64 {
        let of_arm = self.study.runs.iter().zip(&self.activations).filter(|(run, _)| run.arm == arm);
        of_arm.map(|(_, bytes)| *bytes as f64 / 1_048_576.0).fold(0.0, f64::max)
    }

    /// The sentence about the difference.
    pub(super) fn sentence(&self) -> String {
        let sentence = self.study.comparisons.first().map(ToString::to_string).unwrap_or_default();
        let mut letters = sentence.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
    }
}

/// Position by position, the mean of several lists of one length.
pub(super) fn mean_of(lists: &[Vec<f64>]) -> Vec<f64> {
    let Some(first) = lists.first() else { return vec![] };
    (0..first.len()).map(|i| lists.iter().map(|l| l[i]).sum::<f64>() / lists.len() as f64).collect()
}

/// Everything that was found, for programs.
pub(super) fn results(f: &Finding) -> Value {
    let arm = |arm: usize| {
        let runs: Vec<Value> = f
            .runs(arm)
            .map(|run| {
                json!({
                    "seed": run.seed, "accuracy": run.scores.first().map(|(_, s)| s.value),
                    "seconds": run.outcome.seconds, "steps": run.outcome.steps,
                    "tokens_per_second": run.outcome.tokens_per_second(),
                    "last_loss": run.outcome.records.last().map(|r| r.loss),
                    "losses": run.outcome.records.iter().map(|r| r.loss).collect::<Vec<_>>(),
                    "peak_memory_bytes": run.outcome.peak_rss,
                    "token_similarity": run.probe.iter().map(|l| l.similarity.estimate).collect::<Vec<_>>(),
                    "share_of_h0": run.probe.iter().map(|l| l.h0_share).collect::<Vec<_>>(),
                    "adapter": run.adapter.as_ref().map(|p| p.display().to_string()),
                    "trained_numbers": run.trained_numbers,
                })
            })
            .collect();
        let accuracy = f.accuracy(arm);
        json!({"name": f.plan.arms[arm].name, "accuracy": accuracy.value, "interval": accuracy.interval,
               "peak_activation_mib": f.activations_of(arm),
               "adapter": f.plan.arms[arm].adapter.to_json(), "runs": runs})
    };
    json!({
        "question": "does SIBO help?",
        "model": super::inputs::MODEL, "task": "qnli (a sample)", "train_rows": f.train_rows, "test_rows": f.test.len(),
        "seeds": f.plan.seeds, "lambda": f.lambda, "majority_class": f.majority,
        "systems": [arm(0), arm(1)],
        "comparison": f.study.comparisons.first(),
        "verdict": f.study.comparisons.first().map(|c| c.verdict()),
        "sentence": f.sentence(),
        "smallest_detectable_difference": f.study.smallest_detectable,
        "base_token_similarity": f.base_similarity(),
        "seconds": f.seconds, "peak_memory_bytes": machine::peak_memory(),
        "sibo": app::version(), "threads": sibo_kernels::threads(),
    })
}

/// The answer in short.
pub(super) fn tell(f: &Finding, results: &Value, page: &Path, app: &App) {
    if app.out.json() {
        app.out.result(results.to_string());
        return;
    }
    let style = app.out.style();
    app.out.result(terminal::table(&accuracy_table(f), style));
    app.out.result(format!("\n{}.", f.sentence()));
    app.out.result("");
    app.out.result(terminal::table(&similarity_table(f), style));
    let memory =
        machine::peak_memory().map(|b| format!(", peak memory {}", number::bytes(b))).unwrap_or_default();
    app.out.result(format!("\nAll of it took {}{memory}.", number::duration(f.seconds)));
    app.out.result(format!("Report: {}", page.display()));
}

/// Metric, cost and size of each system.
pub(super) fn accuracy_table(f: &Finding) -> Table {
    let seeds: Vec<String> = f.plan.seeds.iter().map(u64::to_string).collect();
    let mut table = Table::new(format!(
        "QNLI, accuracy on {} rows that no run has learned from",
        f.test.len()
    ))
    .column(Column::text("method"))
    .column(Column::number("accuracy [95 %]", 3))
    .column(Column::number(format!("seeds {}", seeds.join(", ")), 3))
    .column(Column::number("a run", 1).unit("s"))
    .column(Column::number("tokens/s", 0))
    .column(Column::number("MiB", 0))
    .column(Column::number("trained", 0))
    .note(
        "An interval reaches as far as other rows (Wilson) or other seeds (Student's t) could move the mean. \
         MiB: the most that a run's activations took.",
    );
    let none = || Cell::Missing;
    table.push(vec![
        "one class always".into(),
        Cell::Number(f.majority),
        none(),
        none(),
        none(),
        none(),
        Cell::Number(0.0),
    ]);
    for (arm, name) in [PLAIN, SIBO].into_iter().enumerate() {
        let by_seed: Vec<String> = f.accuracies(arm).iter().map(|a| format!("{a:.3}")).collect();
        let n = f.runs(arm).count().max(1) as f64;
        let speed = f.runs(arm).map(|run| run.outcome.tokens_per_second()).sum::<f64>() / n;
        let numbers = f.runs(arm).next().map_or(0, |run| run.trained_numbers);
        table.push(vec![
            label(f, name).into(),
            Cell::Estimate(f.accuracy(arm)),
            by_seed.join(" ").into(),
            Cell::Number(f.seconds_of(arm)),
            Cell::Number(speed),
            Cell::Number(f.activations_of(arm)),
            Cell::Number(numbers as f64),
        ]);
    }
    table
}

fn label(f: &Finding, name: &str) -> String {
    if name == SIBO { format!("{SIBO} {}", f.lambda) } else { name.into() }
}

/// How alike tokens are, layer by layer.
pub(super) fn similarity_table(f: &Finding) -> Table {
    let base = f.base_similarity();
    let mut table = Table::new("How alike the tokens of a row are (mean cosine), layer by layer")
        .column(Column::text("model"))
        .note("Layer 0 is what enters the first layer. More alike means smoother; mean of the seeds.");
    for layer in 0..base.len() {
        table = table.column(Column::number(layer.to_string(), 3));
    }
    for (name, values) in
        [("base", base), (PLAIN, mean_of(&f.similarity(0))), (SIBO, mean_of(&f.similarity(1)))]
    {
        let cells = values.into_iter().map(Cell::Number);
        table.push([Cell::from(name)].into_iter().chain(cells).collect());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_taken_place_by_place() {
        assert_eq!(mean_of(&[vec![1.0, 4.0], vec![2.0, 7.0]]), [1.5, 5.5]);
        assert!(mean_of(&[]).is_empty());
    }
}
