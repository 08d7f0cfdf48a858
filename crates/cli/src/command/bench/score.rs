//! `sibo bench score`: likelihoods of choices, as `sibo eval` asks for them.

use super::Rounds;
use crate::app::App;
use crate::places::ModelArgs;
use anyhow::Context;
use serde_json::json;
use sibo_train::evaluate::shared::{Tree, score};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Time the likelihoods of several continuations of each of many contexts
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Contexts, each with its continuations: `{"questions": [[[5, 9], [[7], [8, 3]]]]}`
    #[arg(long, value_name = "FILE.json")]
    ids: PathBuf,
    /// Questions at a time, as `sibo eval --batch`
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    #[command(flatten)]
    rounds: Rounds,
}

/// A context and its continuations.
type Question = (Vec<u32>, Vec<Vec<u32>>);

pub(super) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    let trees = read(&args.ids)?;
    let model = app.places.load(&args.model)?;
    if !model.is_causal() {
        anyhow::bail!("scoring needs a language model, one with a causal head");
    }
    let mut sums = Vec::new();
    let done = args.rounds.measure(|| {
        sums.clear();
        for part in trees.chunks(usize::from(args.batch)) {
            sums.extend(score(&model, part)?);
        }
        Ok::<(), sibo_train::Error>(())
    })?;
    let tokens: usize = trees.iter().flat_map(|t| &t.continuations).map(Vec::len).sum();
    let loss = -sums.iter().flatten().sum::<f64>() / tokens as f64;
    let seconds = done.median();
    let sentence = format!(
        "{seconds:.3} s for {} questions, {:.1} a second, loss {loss:.6}",
        trees.len(),
        trees.len() as f64 / seconds
    );
    done.show(app, json!({ "loss": loss, "tokens": tokens, "log_likelihoods": sums }), sentence);
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Vec<Tree>> {
    let form = || format!("{}: not of the form {{\"questions\": [[[5, 9], [[7], [8, 3]]]]}}", path.display());
    let value = sibo_files::json::read(path)?;
    let mut read: BTreeMap<String, Vec<Question>> = serde_json::from_value(value).with_context(form)?;
    let questions = read.remove("questions").with_context(form)?;
    let trees: Vec<Tree> =
        questions.into_iter().map(|(context, continuations)| Tree { context, continuations }).collect();
    let empty = |t: &Tree| t.context.is_empty() || t.continuations.iter().any(Vec::is_empty);
    if trees.is_empty() || trees.iter().all(|t| t.continuations.is_empty()) {
        anyhow::bail!("{}: there is nothing to score", path.display());
    }
    if let Some(at) = trees.iter().position(empty) {
        anyhow::bail!("{}: question {at}: a context or a continuation holds no token", path.display());
    }
    Ok(trees)
}
