//! `sibo bench train`: training steps on all rows.

use super::Rounds;
use crate::app::App;
use crate::places::ModelArgs;
use crate::trial::{MethodArgs, Shape};
use serde_json::{Value, json};
use sibo_model::{Batch, Dropout, Labels, Model, PlanInput, Row, Streaming};
use sibo_train::memory::{MemoryPlan, read_bytes};
use sibo_train::optim::Optimiser;
use sibo_train::prepare::attach;
use sibo_train::trace::Input;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Time training steps: forward, backward and an AdamW update on all rows
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Token ids and labels, as `sibo trace` reads them
    #[arg(long, value_name = "FILE.json", required_unless_present = "shape")]
    ids: Option<PathBuf>,
    /// Arbitrary ids, all of them labelled, instead: so many rows of so many tokens
    #[arg(long, value_name = "ROWSxTOKENS", conflicts_with = "ids")]
    shape: Option<Shape>,
    #[command(flatten)]
    fresh: MethodArgs,
    /// Drop what training would drop: in the adapter, and in the base model as its config.json says
    #[arg(long)]
    dropout: bool,
    /// Keep only each layer's input and compute the layer again on the way back: less memory, more time
    #[arg(long)]
    recompute: bool,
    /// Cut the rows, by length, into so many micro-batches of about as many tokens: the same step in less memory
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    micro_batches: u16,
    /// Stay within so much memory (8GiB, 900MiB), by computing layers again, and if need be reading them again in every
    /// pass
    #[arg(long, value_name = "SIZE", value_parser = read_bytes)]
    memory: Option<u64>,
    #[command(flatten)]
    rounds: Rounds,
}

/// torch.optim.AdamW's defaults, with a usual rate for LoRA: the work of a step does not depend on them.
const LR: f64 = 3e-4;
const SEED: u64 = 7;

pub(super) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    let mut model = app.places.open(&args.model)?;
    if args.model.adapter.is_none() {
        attach(&mut model, &args.fresh.config(0.0)?, &args.model.model, SEED)?;
    }
    let input = input(&args, &model)?;
    let parts = cut(&model, input, usize::from(args.micro_batches))?;
    let count: usize = parts.iter().map(|(_, labels)| Model::count_labels(labels)).sum();
    let plan = plan(&model, &parts, &args)?;
    app.out.note(format!(
        "planned: {} MiB{}",
        plan.total() >> 20,
        plan.choice().map_or(String::new(), |c| format!(", {c}"))
    ));
    let start = Instant::now();
    model.read_base(plan.streamed)?;
    let reading = start.elapsed().as_secs_f64();
    let loss =
        parts.iter().map(|(batch, labels)| model.loss(batch, labels).loss_sum).sum::<f64>() / count as f64;
    let mut optimiser = Optimiser::adamw(0.9, 0.999, 1e-8, 0.01);
    let mut epoch = 0;
    let mut streamed = model.streaming();
    let done = args.rounds.measure(|| {
        epoch += 1;
        let dropout = args.dropout.then_some(Dropout { seed: SEED, epoch, base: true });
        streamed = model.streaming();
        step(&mut model, &parts, count, (dropout, plan.recomputed), &mut optimiser);
        model.check_base()
    })?;
    let (seconds, tokens) = (done.median(), parts.iter().map(|(batch, _)| batch.tokens()).sum::<usize>());
    let sentence = format!(
        "{seconds:.3} s a step, {:.0} tokens/s, loss {loss:.6} at the start",
        tokens as f64 / seconds
    );
    let streaming = streamed.zip(model.streaming()).map(|(before, after)| of_last_step(before, after));
    let more = json!({
        "loss": loss, "tokens": tokens, "planned_mib": plan.total() as f64 / 1_048_576.0, "plan": plan,
        "read_seconds": reading, "streaming": streaming,
    });
    done.show(app, more, sentence);
    Ok(())
}

/// What the step is planned to hold; it is refused before the layers are read.
fn plan(model: &Model, parts: &[(Batch, Labels)], args: &Args) -> anyhow::Result<MemoryPlan> {
    let input = PlanInput {
        tokens: parts.iter().map(|(batch, _)| batch.tokens()).max().unwrap_or(0),
        labelled: parts.iter().map(|(_, labels)| Model::count_labels(labels)).max().unwrap_or(0),
        recompute: args.recompute.into(),
        moments: 2,
        streamed: 0,
    };
    Ok(MemoryPlan::choose(model, input, args.memory)?)
}

/// What the reader of streamed layers did in the last step.
fn of_last_step(before: Streaming, after: Streaming) -> Value {
    let seconds = |of: fn(&Streaming) -> Duration| (of(&after) - of(&before)).as_secs_f64();
    json!({
        "layers": after.layers, "gbytes": (after.bytes - before.bytes) as f64 / 1e9,
        "reading_seconds": seconds(|s| s.reading), "packing_seconds": seconds(|s| s.packing),
        "waited_seconds": seconds(|s| s.waited),
    })
}

/// The rows of a step.
fn input(args: &Args, model: &Model) -> anyhow::Result<Input> {
    if let Some(shape) = args.shape {
        let (rows, labels) = shape.rows(model)?;
        return Ok(Input { rows, labels });
    }
    let path = args.ids.as_ref().expect("clap asks for either");
    let input = sibo_train::trace::read(path, model)?;
    anyhow::ensure!(input.labels != Labels::None, "{}: a training step needs labels", path.display());
    Ok(input)
}

/// Rows and their labels, short ones first, in so many parts of about as many tokens.
fn cut(model: &Model, input: Input, parts: usize) -> anyhow::Result<Vec<(Batch, Labels)>> {
    let part = |chosen: &Vec<usize>| {
        let rows: Vec<Row> = chosen.iter().map(|i| input.rows[*i].clone()).collect();
        let labels = match &input.labels {
            Labels::None => Labels::None,
            Labels::Tokens(all) => Labels::Tokens(chosen.iter().map(|i| all[*i].clone()).collect()),
            Labels::Classes(all) => Labels::Classes(chosen.iter().map(|i| all[*i]).collect()),
            Labels::Values(all) => Labels::Values(chosen.iter().map(|i| all[*i]).collect()),
        };
        Ok((Batch::new(model.arch(), &rows)?, labels))
    };
    let lengths: Vec<usize> = input.rows.iter().map(|row| row.ids.len()).collect();
    cut_by_tokens(&lengths, parts).iter().filter(|rows| !rows.is_empty()).map(part).collect()
}

/// Which rows each part has: sorted by length and laid end to end, a row is where its middle falls.
fn cut_by_tokens(lengths: &[usize], parts: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|i| lengths[*i]);
    let total = lengths.iter().sum::<usize>().max(1);
    let (mut cut, mut before) = (vec![vec![]; parts.max(1)], 0);
    for i in order {
        let part = (2 * before + lengths[i]) * parts / (2 * total);
        cut[part.min(parts.max(1) - 1)].push(i);
        before += lengths[i];
    }
    cut
}

/// One update, with what is dropped and whether layers are computed again.
fn step(
    model: &mut Model,
    parts: &[(Batch, Labels)],
    count: usize,
    (dropout, recompute): (Option<Dropout>, usize),
    optimiser: &mut Optimiser,
) {
    model.params_mut().zero_grads();
    for (batch, labels) in parts {
        model.forward_backward(batch, labels, 1.0 / count as f32, dropout, recompute);
    }
    optimiser.step(model.params_mut(), LR);
}

#[cfg(test)]
mod tests {
    use super::cut_by_tokens;

    #[test]
    fn parts_have_about_as_many_tokens_and_every_row_once() {
        let lengths = [72, 11, 31, 14, 45, 19, 32, 23, 53, 16];
        let cut = cut_by_tokens(&lengths, 3);
        let tokens = |rows: &Vec<usize>| rows.iter().map(|i| lengths[*i]).sum::<usize>();
        assert_eq!(cut.iter().map(tokens).collect::<Vec<_>>(), [114, 77, 125]);
        assert_eq!(cut.concat(), [1, 3, 9, 5, 7, 2, 6, 4, 8, 0]);
        assert_eq!(cut_by_tokens(&[5, 3], 4), [vec![1], vec![], vec![0], vec![]]);
    }
}
