//! Measuring while training: the mean loss of held-out rows, and a classifier's metrics on them.

use crate::Error;
use crate::data::{Dataset, Label};
use sibo_model::{Batch, Model};
use sibo_tasks::Metric;
use sibo_tasks::metrics::Predictions;

/// Rows to validate by, and what is measured on them beside the loss.
#[derive(Debug, Clone)]
pub struct Validation<'a> {
    /// The rows.
    pub data: &'a Dataset,
    /// A classifier's metrics; empty for a language model.
    pub metrics: Vec<Metric>,
}

impl Validation<'_> {
    /// Refuses rows that the model cannot take, and a choice of the best by what is not measured.
    pub(crate) fn check(&self, model: &Model, best_metric: &str) -> Result<(), Error> {
        self.data.check(model)?;
        let names: Vec<&str> = ["loss"].into_iter().chain(self.metrics.iter().map(|m| m.name())).collect();
        if names.contains(&best_metric) {
            return Ok(());
        }
        let hint = sibo_peft::config::did_you_mean(best_metric, &names);
        Err(Error::key(
            "recipe",
            "training.metric_for_best_model",
            format!("`{best_metric}` is not measured in this run{hint}; measured are {}", names.join(", ")),
        ))
    }
}

/// `loss`, then every metric, by name.
pub fn measure(
    model: &mut Model,
    validation: &Validation<'_>,
    batch: usize,
) -> Result<Vec<(String, f64)>, Error> {
    let loss = mean_loss(model, validation.data, batch)?;
    let mut scores = vec![("loss".to_string(), loss)];
    if !validation.metrics.is_empty() {
        let predictions = predict(model, validation.data, batch)?;
        let rows: Vec<usize> = (0..predictions.len()).collect();
        scores.extend(validation.metrics.iter().map(|m| (m.name().into(), m.value(&predictions, &rows))));
    }
    Ok(scores)
}

/// The mean loss over labelled tokens (or rows) of `data`, without dropout.
pub fn mean_loss(model: &mut Model, data: &Dataset, batch: usize) -> Result<f64, Error> {
    let (mut sum, mut count) = (0.0, 0);
    for at in chunks(data.rows.len(), batch) {
        let (rows, labels) = data.gather(&at);
        let packed = Batch::new(model.arch(), &rows)?;
        let out = model.loss(&packed, &labels);
        sum += out.loss_sum;
        count += out.count;
    }
    Ok(sum / count.max(1) as f64)
}

/// A classifier's predictions on `data`.
pub fn predict(model: &Model, data: &Dataset, batch: usize) -> Result<Predictions, Error> {
    Ok(judged(data, &class_scores(model, data, batch)?))
}

/// Labels beside what the scores of each row (rows of C) say.
pub(crate) fn judged(data: &Dataset, scores: &[Vec<f32>]) -> Predictions {
    if matches!(data.rows.first().map(|r| &r.label), Some(Label::Value(_))) {
        let gold =
            data.rows.iter().map(|r| if let Label::Value(v) = r.label { f64::from(v) } else { f64::NAN });
        let predicted = scores.iter().map(|s| f64::from(s.first().copied().unwrap_or(f32::NAN)));
        return Predictions::Values { gold: gold.collect(), predicted: predicted.collect() };
    }
    let gold = data.rows.iter().map(|r| if let Label::Class(c) = r.label { c } else { u32::MAX });
    Predictions::Classes { gold: gold.collect(), predicted: scores.iter().map(|s| greatest(s)).collect() }
}

/// Scores of every row (rows of C).
pub(crate) fn class_scores(model: &Model, data: &Dataset, batch: usize) -> Result<Vec<Vec<f32>>, Error> {
    if model.classes().is_none() {
        return Err(Error::Refused("class metrics need a model with a classification head".into()));
    }
    let mut all = Vec::with_capacity(data.rows.len());
    for at in chunks(data.rows.len(), batch) {
        let (rows, _) = data.gather(&at);
        let scores = model.class_scores(&Batch::new(model.arch(), &rows)?);
        all.extend((0..scores.rows()).map(|i| scores.row(i).to_vec()));
    }
    Ok(all)
}

/// The class with the greatest score; the first of equals.
pub(crate) fn greatest(scores: &[f32]) -> u32 {
    let mut best = 0;
    for (i, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = i;
        }
    }
    best as u32
}

fn chunks(rows: usize, batch: usize) -> impl Iterator<Item = Vec<usize>> {
    (0..rows).step_by(batch.max(1)).map(move |from| (from..(from + batch.max(1)).min(rows)).collect())
}
