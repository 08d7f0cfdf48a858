//! `sibo generate`: text, or token ids, continued.

use crate::app::App;
use crate::exit::usage;
use crate::places::ModelArgs;
use sibo_model::{BeamSettings, EarlyStopping, Model, beam_search, greedy, read_eos};
use std::path::PathBuf;

/// Continue text, or token ids from a file
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Continue these token ids instead of text: {"input_ids": [[5, 9, 12], [7, 3]]}
    #[arg(long, value_name = "FILE.json", requires = "out")]
    ids: Option<PathBuf>,
    /// With --ids: the file for the new ids, {"sequences": [[...], [...]]}
    #[arg(long, value_name = "FILE.json", requires = "ids")]
    out: Option<PathBuf>,
    /// At most so many new tokens for each row
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_new_tokens: usize,
    /// Beams of the search; 1 takes the most likely token at each step
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    num_beams: u16,
}

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    match (&args.ids, &args.out) {
        (Some(ids), Some(out)) => continue_ids(&args, ids, out, app),
        _ => Err(usage("give --ids and --out")),
    }
}

/// The contract of design text trace.md: no tokenizer, no id is masked.
fn continue_ids(args: &Args, ids: &std::path::Path, out: &std::path::Path, app: &App) -> anyhow::Result<()> {
    let model = app.places.load(&args.model)?;
    let eos = read_eos(&app.places.model(&args.model.model)?)?;
    let input = sibo_train::trace::read(ids, &model)?;
    let prompts: Vec<Vec<u32>> = input.rows.into_iter().map(|row| row.ids).collect();
    let sequences = search(&model, &prompts, &eos, args)?;
    let text = serde_json::json!({ "sequences": sequences }).to_string();
    sibo_files::write(out, format!("{text}\n").as_bytes())?;
    app.out.note(format!("{}: {} rows continued", out.display(), prompts.len()));
    Ok(())
}

fn search(
    model: &Model,
    prompts: &[Vec<u32>],
    eos: &[u32],
    args: &Args,
) -> Result<Vec<Vec<u32>>, sibo_model::Error> {
    if args.num_beams == 1 {
        return greedy(model, prompts, args.max_new_tokens, eos);
    }
    let settings = BeamSettings {
        beams: args.num_beams.into(),
        max_new: args.max_new_tokens,
        length_penalty: 1.0,
        early_stopping: EarlyStopping::False,
        vocabulary: None,
    };
    beam_search(model, prompts, eos, &settings)
}
