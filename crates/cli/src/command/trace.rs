//! `sibo trace`: every number of a forward and backward pass, for a comparison with Hugging Face.

use crate::app::App;
use crate::places::ModelArgs;
use sibo_train::trace::{self, Named, Steps};
use std::collections::BTreeMap;
use std::path::PathBuf;

const LONG_ABOUT: &str = "\
Writes every logit, hidden state, loss and gradient of a model on given token ids, so that you can compare \
them with Hugging Face's transformers + PEFT, number by number. Dropout is off, numbers are f32.

FILE.json holds {\"input_ids\": [[5, 9, 12], [7, 3]]}: rows of any lengths, without padding. Optional are \
\"labels\" (a causal model: one id or -100 for each token; a classifier: one class or number for each row) \
and \"token_type_ids\" (BERT).

The output is a safetensors file with logits.{i}, hidden.{l}.{i}, pooled.{i}, loss and, with --grads, \
grad.<parameter>. With --optim-steps it holds step.loss.{k} and param.<parameter> after N AdamW updates \
on all rows as one batch instead.";

/// Write every number of a forward and backward pass, to compare with Hugging Face
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Token ids and labels, as JSON
    #[arg(long, value_name = "FILE.json")]
    ids: PathBuf,
    /// The file to write
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    /// Also write the gradient of every trained tensor (needs labels and an adapter)
    #[arg(long)]
    grads: bool,
    /// Train so many steps and write the losses and the trained tensors instead
    #[arg(long, value_name = "N", requires_all = ["lr", "weight_decay", "warmup_steps", "max_grad_norm"])]
    optim_steps: Option<usize>,
    /// Peak learning rate of the steps
    #[arg(long, value_name = "F", requires = "optim_steps", value_parser = number)]
    lr: Option<f64>,
    /// Decoupled weight decay of the steps
    #[arg(long, value_name = "F", requires = "optim_steps", value_parser = number)]
    weight_decay: Option<f64>,
    /// Steps in which the learning rate rises from 0
    #[arg(long, value_name = "N", requires = "optim_steps")]
    warmup_steps: Option<usize>,
    /// Joint norm at which the gradients of a step are clipped
    #[arg(long, value_name = "F", requires = "optim_steps", value_parser = number)]
    max_grad_norm: Option<f64>,
}

impl Args {
    fn steps(&self) -> Option<Steps> {
        Some(Steps {
            count: self.optim_steps?,
            lr: self.lr?,
            weight_decay: self.weight_decay?,
            warmup: self.warmup_steps?,
            max_grad_norm: self.max_grad_norm?,
        })
    }
}

/// A finite number that is not below zero.
fn number(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n.is_finite() && n >= 0.0 => Ok(n),
        _ => Err("it must be a number, 0 or above".into()),
    }
}

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    let mut model = app.places.load(&args.model)?;
    let input = trace::read(&args.ids, &model)?;
    let tensors = match args.steps() {
        Some(steps) => trace::optimise(&mut model, &input, steps)?,
        None => trace::forward(&mut model, &input, args.grads)?,
    };
    write(&args.out, &tensors)?;
    app.out.note(format!("{}: {} tensors for {} rows", args.out.display(), tensors.len(), input.rows.len()));
    Ok(())
}

fn write(path: &std::path::Path, tensors: &[Named]) -> Result<(), sibo_files::Error> {
    let views =
        tensors.iter().map(|(name, shape, values)| (name.as_str(), shape.as_slice(), values.as_slice()));
    sibo_files::write_tensors(path, views, BTreeMap::new())
}
