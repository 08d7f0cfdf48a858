//! candle as a peer: `bench-candle KIND FOLDER ROWS.json --numbers f32|bf16 --rounds N --new N`
//!
//! KIND is `train` (one optimiser step of LoRA on all rows at once) or `generate` (so many new tokens from merged
//! weights, most likely first). One process; prints one JSON line {"seconds", "rounds", "loss", "peak_mib"} as
//! `peer.py` does. candle has no LoRA of its own, so the branch is written here, with its tensors and its autograd.

mod model;

use anyhow::{Context, Result, bail};
use candle_core::{D, DType, Device, Tensor};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use model::{Cache, Llama, Purpose};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

struct Args {
    kind: String,
    folder: String,
    rows: String,
    numbers: DType,
    rounds: usize,
    new: usize,
}

fn main() -> Result<()> {
    let args = read_args()?;
    let rows: Value = serde_json::from_str(&std::fs::read_to_string(&args.rows)?)?;
    let ids = lists(&rows["input_ids"])?;
    let (loss, mut seconds) = match args.kind.as_str() {
        "train" => train(&args, &ids, &lists(&rows["labels"])?)?,
        "generate" => generate(&args, &ids)?,
        other => bail!("{other} is neither train nor generate"),
    };
    let rounds = seconds.clone();
    seconds.sort_by(f64::total_cmp);
    let (low, high) = (seconds[(seconds.len() - 1) / 2], seconds[seconds.len() / 2]);
    let out = json!({"seconds": (low + high) / 2.0, "rounds": rounds, "loss": loss, "peak_mib": peak_mib()?});
    println!("{out}");
    Ok(())
}

fn read_args() -> Result<Args> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [kind, folder, rows, rest @ ..] = words.as_slice() else { bail!("KIND FOLDER ROWS.json [options]") };
    let option = |name: &str| rest.iter().position(|w| w == name).and_then(|at| rest.get(at + 1));
    let count = |name: &str| option(name).map_or(Ok(2), |n| n.parse::<usize>()).context("a number");
    let numbers = match option("--numbers").map(String::as_str) {
        None | Some("f32") => DType::F32,
        Some("bf16") => DType::BF16,
        Some(other) => bail!("{other} is neither f32 nor bf16"),
    };
    let (kind, folder, rows) = (kind.clone(), folder.clone(), rows.clone());
    Ok(Args { kind, folder, rows, numbers, rounds: count("--rounds")?, new: count("--new")? })
}

/// Rows of whole numbers.
fn lists(value: &Value) -> Result<Vec<Vec<i64>>> {
    let row = |row: &Value| row.as_array()?.iter().map(Value::as_i64).collect();
    value.as_array().and_then(|rows| rows.iter().map(row).collect()).context("rows of numbers")
}

/// Rows of one length as a tensor of ids.
fn tensor(rows: &[Vec<i64>]) -> Result<Tensor> {
    let length = rows[0].len();
    anyhow::ensure!(rows.iter().all(|row| row.len() == length), "rows of one length only");
    let all: Vec<u32> = rows.iter().flatten().map(|id| *id as u32).collect();
    Ok(Tensor::from_vec(all, (rows.len(), length), &Device::Cpu)?)
}

fn train(args: &Args, ids: &[Vec<i64>], labels: &[Vec<i64>]) -> Result<(f64, Vec<f64>)> {
    let model = Llama::load(Path::new(&args.folder), args.numbers, Purpose::Train)?;
    let (input, length) = (tensor(ids)?, ids[0].len());
    // The label at t is predicted from t - 1.
    let mut places: Vec<u32> = Vec::new();
    let mut targets: Vec<u32> = Vec::new();
    for (row, labels) in labels.iter().enumerate() {
        for (at, label) in labels.iter().enumerate().skip(1).filter(|(_, label)| **label >= 0) {
            places.push((row * length + at - 1) as u32);
            targets.push(*label as u32);
        }
    }
    let count = places.len();
    let places = Tensor::from_vec(places, count, &Device::Cpu)?;
    let targets = Tensor::from_vec(targets, count, &Device::Cpu)?;
    let loss_of = |dropout: bool| -> Result<Tensor> {
        let states = model.states(&input, None, dropout)?.flatten_to(1)?;
        let scores = model.scores(&states.index_select(&places, 0)?)?.to_dtype(DType::F32)?;
        Ok(candle_nn::loss::cross_entropy(&scores, &targets)?)
    };
    let loss = f64::from(loss_of(false)?.detach().to_scalar::<f32>()?);
    let params = ParamsAdamW { lr: 3e-4, weight_decay: 0.01, ..ParamsAdamW::default() };
    let mut optimiser = AdamW::new(model.trained.clone(), params)?;
    let seconds = measured(args.rounds, || Ok(optimiser.backward_step(&loss_of(true)?)?))?;
    Ok((loss, seconds))
}

fn generate(args: &Args, ids: &[Vec<i64>]) -> Result<(f64, Vec<f64>)> {
    let model = Llama::load(Path::new(&args.folder), args.numbers, Purpose::Generate)?;
    let prompt = tensor(ids)?;
    let seconds = measured(args.rounds, || {
        let mut cache = Cache::default();
        let mut next = prompt.clone();
        for _ in 0..args.new {
            let states = model.states(&next, Some(&mut cache), false)?;
            let last = states.narrow(1, states.dim(1)? - 1, 1)?.contiguous()?;
            next = model.scores(&last.flatten_to(1)?)?.argmax(D::Minus1)?.unsqueeze(1)?;
        }
        Ok(())
    })?;
    let states = model.states(&prompt, Some(&mut Cache::default()), false)?;
    let length = prompt.dim(1)?;
    let scores = model.scores(&states.narrow(1, 0, length - 1)?.contiguous()?.flatten_to(1)?)?;
    let targets = prompt.narrow(1, 1, length - 1)?.contiguous()?.flatten_all()?;
    let loss = candle_nn::loss::cross_entropy(&scores.to_dtype(DType::F32)?, &targets)?;
    Ok((f64::from(loss.to_scalar::<f32>()?), seconds))
}

/// Seconds of each round after one that warms up.
fn measured(rounds: usize, mut work: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    work()?;
    let mut seconds = Vec::new();
    for _ in 0..rounds {
        let began = Instant::now();
        work()?;
        seconds.push(began.elapsed().as_secs_f64());
    }
    Ok(seconds)
}

/// VmHWM of this process.
fn peak_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).context("VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}
