//! `sibo bench train`: training steps on all rows as one batch.

use super::Rounds;
use crate::app::App;
use crate::places::ModelArgs;
use serde_json::json;
use sibo_model::{Batch, Dropout, Labels, Model};
use sibo_train::optim::Optimiser;
use std::convert::Infallible;
use std::path::PathBuf;

/// Time training steps: forward, backward and an AdamW update on all rows as one batch
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Token ids and labels, as `sibo trace` reads them
    #[arg(long, value_name = "FILE.json")]
    ids: PathBuf,
    /// Drop what training would drop: in the adapter, and in the base model as its config.json says
    #[arg(long)]
    dropout: bool,
    /// Keep only each layer's input and compute the layer again on the way back: less memory, more time
    #[arg(long)]
    recompute: bool,
    #[command(flatten)]
    rounds: Rounds,
}

/// torch.optim.AdamW's defaults, with a usual rate for LoRA: the work of a step does not depend on them.
const LR: f64 = 3e-4;
const SEED: u64 = 7;

pub(super) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    let mut model = app.places.load(&args.model)?;
    let input = sibo_train::trace::read(&args.ids, &model)?;
    if input.labels == Labels::None || model.params().is_empty() {
        anyhow::bail!("a training step needs an adapter (--adapter) and labels in {}", args.ids.display());
    }
    let batch = Batch::new(model.arch(), &input.rows)?;
    let start = model.loss(&batch, &input.labels);
    let loss = start.loss_sum / start.count as f64;
    let mut optimiser = Optimiser::adamw(0.9, 0.999, 1e-8, 0.01);
    let mut epoch = 0;
    let done = args.rounds.measure(|| {
        epoch += 1;
        let dropout = args.dropout.then_some(Dropout { seed: SEED, epoch, base: true });
        step(&mut model, &batch, &input.labels, (dropout, args.recompute), &mut optimiser);
        Ok::<(), Infallible>(())
    })?;
    let (seconds, tokens) = (done.median(), batch.tokens());
    let sentence = format!(
        "{seconds:.3} s a step, {:.0} tokens/s, loss {loss:.6} at the start",
        tokens as f64 / seconds
    );
    done.show(app, json!({ "loss": loss, "tokens": tokens }), sentence);
    Ok(())
}

/// One update, with what is dropped and whether layers are computed again.
fn step(
    model: &mut Model,
    batch: &Batch,
    labels: &Labels,
    (dropout, recompute): (Option<Dropout>, bool),
    optimiser: &mut Optimiser,
) {
    model.params_mut().zero_grads();
    let count = Model::count_labels(labels);
    model.forward_backward(batch, labels, 1.0 / count as f32, dropout, recompute);
    optimiser.step(model.params_mut(), LR);
}
