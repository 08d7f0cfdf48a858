//! What `sibo trace` computes: logits, hidden states, loss, gradients and optimiser steps, under the
//! names that a comparison with Hugging Face expects.

use crate::optim::{Optimiser, clip};
use crate::schedule::{Schedule, ScheduleKind};
use serde_json::Value;
use sibo_kernels::Rows;
use sibo_model::{Batch, Error, HeadKind, Labels, Model, Row};
use std::path::Path;

/// Rows and labels of an `ids.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// The rows.
    pub rows: Vec<Row>,
    /// Their labels, as the model's head reads them.
    pub labels: Labels,
}

/// Optimiser steps over all rows as one batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Steps {
    /// How many.
    pub count: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Steps of warm-up.
    pub warmup: usize,
    /// Joint norm at which gradients are clipped.
    pub max_grad_norm: f64,
}

/// A named tensor of the result.
pub type Named = (String, Vec<usize>, Vec<f32>);

/// Reads `path` for a model with this head; errors name the row.
pub fn read(path: &Path, model: &Model) -> Result<Input, Error> {
    let place = path.display().to_string();
    let value = sibo_files::json::read(path)?;
    let wrong = |key: &str, reason: String| Error::Key { place: place.clone(), key: key.into(), reason };
    if let Some(key) = value.as_object().and_then(|o| o.keys().find(|k| !KEYS.contains(&k.as_str()))) {
        return Err(wrong(key, format!("not a key here; the keys are {}", KEYS.join(", "))));
    }
    let ids = token_rows(&value, "input_ids").map_err(|r| wrong("input_ids", r))?;
    let ids = ids.ok_or_else(|| wrong("input_ids", "is missing: a list of rows of token ids".into()))?;
    if ids.is_empty() {
        return Err(wrong("input_ids", "holds no row".into()));
    }
    let types = token_rows(&value, "token_type_ids").map_err(|r| wrong("token_type_ids", r))?;
    if let Some(types) = types.as_ref().filter(|t| t.len() != ids.len()) {
        return Err(wrong(
            "token_type_ids",
            format!("{} rows for {} rows of input_ids", types.len(), ids.len()),
        ));
    }
    let mut types = types.unwrap_or_default().into_iter();
    let rows: Vec<Row> = ids
        .into_iter()
        .enumerate()
        .map(|(i, ids)| Row { ids, types: types.next().unwrap_or_default(), sample: i as u64 })
        .collect();
    let labels = match value.get("labels") {
        None | Some(Value::Null) => Labels::None,
        Some(labels) => read_labels(labels, model).map_err(|r| wrong("labels", r))?,
    };
    labels.check(&rows, model.arch())?;
    Ok(Input { rows, labels })
}

const KEYS: [&str; 3] = ["input_ids", "labels", "token_type_ids"];

fn token_rows(value: &Value, key: &str) -> Result<Option<Vec<Vec<u32>>>, String> {
    let Some(list) = value.get(key).filter(|v| !v.is_null()) else { return Ok(None) };
    let rows = list.as_array().ok_or("must be a list of rows")?;
    let read_row = |(at, row): (usize, &Value)| -> Result<Vec<u32>, String> {
        let row = row.as_array().ok_or(format!("row {at} is not a list"))?;
        let id = |v: &Value| {
            v.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or(format!("row {at}: {v} is not a token id"))
        };
        row.iter().map(id).collect()
    };
    rows.iter().enumerate().map(read_row).collect::<Result<Vec<_>, _>>().map(Some)
}

fn read_labels(value: &Value, model: &Model) -> Result<Labels, String> {
    let list = value.as_array().ok_or("must be a list")?;
    match model.arch().head {
        HeadKind::None => Err("this folder has no head, so nothing can be compared with labels".into()),
        HeadKind::CausalLm => list
            .iter()
            .enumerate()
            .map(|(at, row)| {
                let row = row.as_array().ok_or(format!("row {at} is not a list of token labels"))?;
                row.iter().map(|v| v.as_i64().ok_or(format!("row {at}: {v} is not a label"))).collect()
            })
            .collect::<Result<_, String>>()
            .map(Labels::Tokens),
        HeadKind::Classes(1) => list
            .iter()
            .enumerate()
            .map(|(at, v)| v.as_f64().map(|x| x as f32).ok_or(format!("row {at}: {v} is not a number")))
            .collect::<Result<_, String>>()
            .map(Labels::Values),
        HeadKind::Classes(_) => list
            .iter()
            .enumerate()
            .map(|(at, v)| {
                let class = v.as_u64().and_then(|n| u32::try_from(n).ok());
                class.ok_or(format!("row {at}: {v} is not a class index"))
            })
            .collect::<Result<_, String>>()
            .map(Labels::Classes),
    }
}

/// Logits, hidden states, pooled output, loss and, where asked, the gradient of every trained tensor.
pub fn forward(model: &mut Model, input: &Input, grads: bool) -> Result<Vec<Named>, Error> {
    if grads && (input.labels == Labels::None || model.params().is_empty()) {
        return Err(Error::Refused(
            "gradients need labels and an adapter: give both, or leave --grads out".into(),
        ));
    }
    let batch = Batch::new(model.arch(), &input.rows)?;
    let mut out = Vec::new();
    let mut last = None;
    let layers = model.arch().layers;
    model.hidden_states(&batch, |l, rows| {
        out.extend(split(&format!("hidden.{l}"), &batch, rows));
        if l == layers {
            last = Some(rows.copy());
        }
    });
    let last = last.expect("the last hidden state is always visited");
    match model.arch().head {
        HeadKind::None => {}
        HeadKind::CausalLm => {
            for row in 0..batch.rows() {
                let scores = model.token_scores(&last.slice_rows(batch.range(row)));
                let shape = vec![scores.rows(), scores.width()];
                out.push((format!("logits.{row}"), shape, scores.data().to_vec()));
            }
        }
        HeadKind::Classes(_) => {
            let scores = model.class_scores(&batch);
            out.extend(
                (0..batch.rows())
                    .map(|i| (format!("logits.{i}"), vec![scores.width()], scores.row(i).to_vec())),
            );
        }
    }
    if let Some(pooled) = model.pooled(&last, &batch) {
        out.extend(
            (0..batch.rows()).map(|i| (format!("pooled.{i}"), vec![pooled.width()], pooled.row(i).to_vec())),
        );
    }
    if input.labels == Labels::None {
        return Ok(out);
    }
    if !grads {
        let step = model.loss(&batch, &input.labels);
        out.push(("loss".into(), vec![1], vec![(step.loss_sum / step.count as f64) as f32]));
        return Ok(out);
    }
    let loss = mean_step(model, &batch, &input.labels);
    out.push(("loss".into(), vec![1], vec![loss]));
    out.extend(model.params().iter().map(|p| (format!("grad.{}", p.name), p.shape.clone(), p.grad.clone())));
    Ok(out)
}

/// The loss before each of `steps.count` updates, and every trained tensor after them.
pub fn optimise(model: &mut Model, input: &Input, steps: Steps) -> Result<Vec<Named>, Error> {
    if input.labels == Labels::None || model.params().is_empty() {
        return Err(Error::Refused("optimiser steps need labels and an adapter".into()));
    }
    let batch = Batch::new(model.arch(), &input.rows)?;
    let schedule =
        Schedule { kind: ScheduleKind::Linear, warmup_steps: steps.warmup, total_steps: steps.count };
    let mut optimiser = Optimiser::adamw(0.9, 0.999, 1e-8, steps.weight_decay);
    // The contract of this comparison spares names in `.bias` and thetas, nothing else; training also spares norms.
    model.params_mut().iter_mut().for_each(|p| p.decay = !p.name.ends_with(".bias") && !p.theta);
    let mut out = Vec::new();
    for k in 0..steps.count {
        let loss = mean_step(model, &batch, &input.labels);
        out.push((format!("step.loss.{k}"), vec![1], vec![loss]));
        clip(model.params_mut(), steps.max_grad_norm);
        optimiser.step(model.params_mut(), steps.lr * schedule.factor(k));
    }
    out.extend(
        model.params().iter().map(|p| (format!("param.{}", p.name), p.shape.clone(), p.value.clone())),
    );
    Ok(out)
}

/// Fresh gradients of the mean loss over all labels; returns that loss.
fn mean_step(model: &mut Model, batch: &Batch, labels: &Labels) -> f32 {
    model.params_mut().zero_grads();
    let count = Model::count_labels(labels);
    let step = model.forward_backward(batch, labels, 1.0 / count as f32, None, false);
    (step.loss_sum / count as f64) as f32
}

fn split(name: &str, batch: &Batch, rows: &Rows) -> Vec<Named> {
    (0..batch.rows())
        .map(|i| {
            let part = rows.slice_rows(batch.range(i));
            (format!("{name}.{i}"), vec![part.rows(), part.width()], part.data().to_vec())
        })
        .collect()
}
