//! `sibo bench`: seconds and memory of a training step, for a comparison with other programs.

use crate::app::App;
use crate::places::ModelArgs;
use sibo_model::{Batch, Labels, Model};
use sibo_train::optim::Optimiser;
use std::path::PathBuf;
use std::time::Instant;

const LONG_ABOUT: &str = "\
Times training steps: forward, backward and an AdamW update on all rows of FILE.json as one batch, after one \
step that warms up. Prints the median of the steps, the loss before the first update, and the largest memory \
that the process has held. Nothing is written.";

/// Time training steps on given token ids and labels
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Token ids and labels, as `sibo trace` reads them
    #[arg(long, value_name = "FILE.json")]
    ids: PathBuf,
    /// Steps that count
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    steps: u16,
    /// Keep only each layer's input and compute the layer again on the way back: less memory, more time
    #[arg(long)]
    recompute: bool,
}

/// torch.optim.AdamW's defaults, with a usual rate for LoRA: the work of a step does not depend on them.
const LR: f64 = 3e-4;

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    let mut model = app.places.load(&args.model)?;
    let input = sibo_train::trace::read(&args.ids, &model)?;
    if input.labels == Labels::None || model.params().is_empty() {
        anyhow::bail!("a training step needs an adapter (--adapter) and labels in {}", args.ids.display());
    }
    let batch = Batch::new(model.arch(), &input.rows)?;
    let mut optimiser = Optimiser::adamw(0.9, 0.999, 1e-8, 0.01);
    let first_loss = step(&mut model, &batch, &input.labels, args.recompute, &mut optimiser);
    let mut rounds = Vec::new();
    for _ in 0..args.steps {
        let start = Instant::now();
        step(&mut model, &batch, &input.labels, args.recompute, &mut optimiser);
        rounds.push(start.elapsed().as_secs_f64());
    }
    let seconds = median(&rounds);
    let peak_mib = crate::machine::peak_memory().map(|b| b as f64 / 1048576.0);
    if app.out.json() {
        let line = serde_json::json!({
            "seconds_per_step": seconds, "first_loss": first_loss, "peak_mib": peak_mib,
            "rounds": rounds, "tokens": batch.tokens(), "isa": sibo_kernels::isa::isa().name(),
            "threads": sibo_kernels::threads(),
        });
        app.out.result(line.to_string());
    } else {
        let speed = batch.tokens() as f64 / seconds;
        let peak = peak_mib.map_or("unknown".into(), |m| format!("{m:.0} MiB"));
        app.out.result(format!(
            "{seconds:.3} s a step (median of {}), {speed:.0} tokens/s, first loss {first_loss:.6}, peak memory {peak}",
            args.steps
        ));
    }
    Ok(())
}

/// One update; the mean loss before it.
fn step(
    model: &mut Model,
    batch: &Batch,
    labels: &Labels,
    recompute: bool,
    optimiser: &mut Optimiser,
) -> f64 {
    model.params_mut().zero_grads();
    let count = Model::count_labels(labels);
    let out = model.forward_backward(batch, labels, 1.0 / count as f32, None, recompute);
    optimiser.step(model.params_mut(), LR);
    out.loss_sum / count as f64
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
