//! `sibo bench`: time, memory and counted work of a training step, of scoring and of generation.

use crate::app::App;
use serde_json::{Map, Value, json};
use sibo_kernels::work::{self, Work};
use std::time::Instant;

mod generate;
mod machine;
mod model;
mod score;
mod train;

const LONG_ABOUT: &str = "\
Times one kind of work on given token ids, for a comparison with other programs: once to warm up, then the rounds that \
count. Prints their median, the largest memory that the process has held, the operations and bytes that were counted \
meanwhile, and a loss by which the same work of another program is recognised. Only `model` writes: a folder of random \
weights in the shape of a large model, for steps on what is too large to fetch.";

/// Time training steps, scoring or generation on given token ids; measure this machine
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Train(train::Args),
    Score(score::Args),
    Generate(generate::Args),
    Machine(machine::Args),
    Model(model::Args),
}

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    match args.what {
        What::Train(args) => train::run(args, app),
        What::Score(args) => score::run(args, app),
        What::Generate(args) => generate::run(args, app),
        What::Machine(args) => machine::run(args, app),
        What::Model(args) => model::run(args, app),
    }
}

/// How often is measured.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Rounds {
    /// Rounds that count, after one that warms up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
}

/// What the rounds gave.
struct Measured {
    /// Of each round.
    seconds: Vec<f64>,
    /// Of one round.
    work: Work,
    peak_mib: Option<f64>,
    /// Of all threads, of one round.
    cpu_seconds: Option<f64>,
}

impl Rounds {
    fn measure<E>(self, mut round: impl FnMut() -> Result<(), E>) -> Result<Measured, E> {
        round()?;
        let (before, worked) = (work::done(), crate::machine::cpu_seconds());
        let mut seconds = Vec::new();
        for _ in 0..self.rounds {
            let start = Instant::now();
            round()?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        let all = work::done().since(before);
        let one = |total: u64| total / u64::from(self.rounds);
        let work = Work { f32_flop: one(all.f32_flop), bf16_flop: one(all.bf16_flop), bytes: one(all.bytes) };
        let peak_mib = crate::machine::peak_memory().map(|b| b as f64 / 1048576.0);
        let cpu_seconds = crate::machine::cpu_seconds()
            .zip(worked)
            .map(|(now, then)| (now - then) / f64::from(self.rounds));
        Ok(Measured { seconds, work, peak_mib, cpu_seconds })
    }
}

impl Measured {
    fn median(&self) -> f64 {
        median(&self.seconds)
    }

    /// Prints the result: `more` beside what all kinds of work have, or `sentence` for people.
    fn show(&self, app: &App, more: Value, sentence: String) {
        if app.out.json() {
            let mut line: Map<String, Value> = more.as_object().cloned().unwrap_or_default();
            let common = json!({
                "seconds": self.median(), "rounds": self.seconds, "peak_mib": self.peak_mib,
                "cpu_seconds": self.cpu_seconds,
                "f32_gflop": self.work.f32_flop as f64 / 1e9, "bf16_gflop": self.work.bf16_flop as f64 / 1e9,
                "gbytes": self.work.bytes as f64 / 1e9,
                "isa": sibo_kernels::isa::isa().name(), "threads": sibo_kernels::threads(),
            });
            line.extend(common.as_object().cloned().unwrap_or_default());
            app.out.result(Value::Object(line).to_string());
            return;
        }
        let flop = (self.work.f32_flop + self.work.bf16_flop) as f64 / 1e9;
        let peak = self.peak_mib.map_or("unknown".into(), |m| format!("{m:.0} MiB"));
        let (rounds, speed) = (self.seconds.len(), flop / self.median());
        app.out.result(format!(
            "{sentence} (median of {rounds}); {flop:.1} GFLOP, {speed:.0} GFLOP/s, {:.2} GB of operands; peak memory {peak}",
            self.work.bytes as f64 / 1e9
        ));
    }
}

fn median(rounds: &[f64]) -> f64 {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(&[3.0, 1.0, 2.5]), 2.5);
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), 3.0);
    }
}
