//! `sibo bench generate`: a number of new tokens for each prompt, whatever they are.

use super::Rounds;
use crate::app::App;
use crate::places::ModelArgs;
use serde_json::json;
use sibo_model::{Batch, BeamSettings, EarlyStopping, Model, Row, beam_search, greedy};
use std::path::PathBuf;

/// Time generation: so many new tokens for each prompt, with no token that ends one early
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The prompts: {"input_ids": [[5, 9, 12], [7, 3]]}
    #[arg(long, value_name = "FILE.json")]
    ids: PathBuf,
    /// New tokens for each prompt
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    max_new_tokens: u16,
    /// Beams; 1 takes the most likely token at each step
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    num_beams: u16,
    #[command(flatten)]
    rounds: Rounds,
}

pub(super) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    let model = app.places.load(&args.model)?;
    let rows = sibo_train::trace::read(&args.ids, &model)?.rows;
    let prompts: Vec<Vec<u32>> = rows.iter().map(|row| row.ids.clone()).collect();
    let new = usize::from(args.max_new_tokens);
    let settings = BeamSettings {
        beams: usize::from(args.num_beams),
        max_new: new,
        length_penalty: 1.0,
        early_stopping: EarlyStopping::False,
        vocabulary: None,
    };
    let mut sequences = Vec::new();
    let done = args.rounds.measure(|| {
        sequences = match settings.beams {
            1 => greedy(&model, &prompts, new, &[])?,
            _ => beam_search(&model, &prompts, &[], &settings)?,
        };
        Ok::<(), sibo_model::Error>(())
    })?;
    let seconds = done.median();
    let speed = (prompts.len() * new) as f64 / seconds;
    let loss = prompt_loss(&model, &rows)?;
    let sentence = format!("{seconds:.3} s, {speed:.1} new tokens a second, loss of the prompts {loss:.6}");
    done.show(
        app,
        json!({ "loss": loss, "tokens": prompts.len() * new, "tokens_per_s": speed, "sequences": sequences }),
        sentence,
    );
    Ok(())
}

/// The mean loss of the prompts' own tokens: generation itself gives no number to compare.
fn prompt_loss(model: &Model, rows: &[Row]) -> anyhow::Result<f64> {
    let labels: Vec<Vec<i64>> =
        rows.iter().map(|row| row.ids.iter().map(|id| i64::from(*id)).collect()).collect();
    let scores = model.row_scores(&Batch::new(model.arch(), rows)?, &labels);
    let tokens: usize = scores.iter().map(|s| s.tokens).sum();
    Ok(-scores.iter().map(|s| s.log_prob).sum::<f64>() / tokens.max(1) as f64)
}
