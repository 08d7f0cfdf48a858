//! `sibo bench model`: a folder with random weights in the shape of a large model.

use crate::app::App;
use crate::places;
use anyhow::ensure;
use serde_json::{Value, json};
use sibo_model::{Bits, write_random};
use sibo_report::number;
use std::path::{Path, PathBuf};

/// Write a model of a given shape with random weights, to measure with
///
/// The weights are written tensor by tensor into shards of 2 GiB, so that little memory is needed; a disk without the
/// room is refused first. Nothing can be learned from such a model, but it costs what a real one of its shape costs.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// llama-7b, gptj-6b, or a config.json
    #[arg(long, value_name = "SHAPE")]
    shape: String,
    /// Bits of a weight: 16 (BF16), or 8 or 4 as `sibo quantize` writes them
    #[arg(long, value_enum, default_value = "16")]
    bits: BitsArg,
    /// Seed of the weights
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The folder to write; it must not be there yet
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
}

/// `--bits`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum BitsArg {
    /// BF16
    #[value(name = "16")]
    Sixteen,
    /// Codes of 8 bits
    #[value(name = "8")]
    Eight,
    /// Codes of 4 bits
    #[value(name = "4")]
    Four,
}

pub(super) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    ensure!(!args.output.exists(), "{}: is there already; give another folder", args.output.display());
    places::check_folder(&args.output)?;
    let config = config(&args.shape)?;
    let bits = match args.bits {
        BitsArg::Sixteen => None,
        BitsArg::Eight => Some(Bits::Eight),
        BitsArg::Four => Some(Bits::Four),
    };
    let mut done = None;
    sibo_files::write_all_or_nothing::<sibo_model::Error>(&args.output, |part| {
        done = Some(write_random(&config, part, bits, args.seed)?);
        Ok(())
    })?;
    let Some(done) = done else { return Ok(()) };
    if app.out.json() {
        app.out.result(
            json!({ "output": args.output, "numbers": done.numbers, "bytes": done.bytes, "shards": done.shards })
                .to_string(),
        );
        return Ok(());
    }
    app.out.result(format!(
        "{}: {:.2} billion random weights, {} in {} files",
        args.output.display(),
        done.numbers as f64 / 1e9,
        number::bytes(done.bytes as u64),
        done.shards
    ));
    Ok(())
}

/// The configuration that a name stands for, or that a file holds.
fn config(shape: &str) -> anyhow::Result<Value> {
    Ok(match shape {
        "llama-7b" => json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
            "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 32000,
            "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "hidden_act": "silu", "initializer_range": 0.02,
            "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2,
        }),
        "gptj-6b" => json!({
            "architectures": ["GPTJForCausalLM"], "model_type": "gptj", "n_embd": 4096, "n_layer": 28, "n_head": 16,
            "n_positions": 2048, "rotary_dim": 64, "vocab_size": 50400, "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5, "initializer_range": 0.02, "tie_word_embeddings": false,
            "bos_token_id": 50256, "eos_token_id": 50256,
        }),
        other => {
            let path = Path::new(other);
            ensure!(
                path.is_file(),
                "--shape {other}: known are llama-7b, gptj-6b, and any config.json by its path"
            );
            sibo_files::json::read(path)?
        }
    })
}
