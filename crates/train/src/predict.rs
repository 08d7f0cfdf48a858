//! A class head on texts that have no label.

use crate::Error;
use crate::data::{Limits, class_row};
use sibo_model::{Batch, Model};
use sibo_tasks::{Example, Target, Text};
use sibo_text::Tokenizer;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a class head made of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// A probability for each class; of a head that gives a number, that number alone.
    pub values: Vec<f32>,
    /// Tokens that did not fit into the longest row.
    pub dropped: usize,
}

impl Prediction {
    /// The class with the greatest probability, from 0; the first of equals.
    pub fn class(&self) -> usize {
        crate::validate::greatest(&self.values) as usize
    }
}

/// Asks a class head about texts, `batch` rows at a time, each cut to `cutoff` tokens; told how many are done. Fewer come
/// back where `interrupt` was set.
///
/// # Errors
/// A model without a class head, and a row that cannot be read: named by its index from 0, in `place`.
pub fn predict(
    model: &Model,
    tokenizer: &Tokenizer,
    texts: &[Text],
    (cutoff, batch): (usize, usize),
    place: &str,
    progress: &mut dyn FnMut(usize),
    interrupt: &AtomicBool,
) -> Result<Vec<Prediction>, Error> {
    let arch = model.arch();
    if model.classes().is_none() {
        return Err(Error::Refused("a prediction needs a model with a class head".into()));
    }
    let limit = longest(model, cutoff);
    // All rows first, so that a bad one is named before the work.
    let row = |(i, text): (usize, &Text)| {
        let example = Example { id: i as u64, text: text.clone(), target: Target::InText };
        class_row(&example, tokenizer, arch, limit).map_err(|reason| Error::row(i as u64, place, reason))
    };
    let (rows, dropped): (Vec<_>, Vec<_>) =
        texts.iter().enumerate().map(row).collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    let mut done = Vec::with_capacity(rows.len());
    for chunk in rows.chunks(batch.max(1)) {
        if interrupt.load(Ordering::Relaxed) {
            break;
        }
        let scores = model.class_scores(&Batch::new(arch, chunk)?);
        for i in 0..scores.rows() {
            let dropped = dropped[done.len()];
            done.push(Prediction { values: probabilities(scores.row(i)), dropped });
        }
        progress(done.len());
    }
    Ok(done)
}

/// Tokens that are read of a row: `cutoff`, but never past the model's positions.
pub fn longest(model: &Model, cutoff: usize) -> usize {
    Limits { cutoff, train_on_inputs: false }.length(model.arch())
}

/// Softmax; a single output is a number of its own.
fn probabilities(scores: &[f32]) -> Vec<f32> {
    if let [value] = scores {
        return vec![*value];
    }
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let parts: Vec<f32> = scores.iter().map(|s| (s - most).exp()).collect();
    let sum: f32 = parts.iter().sum();
    parts.into_iter().map(|p| p / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_become_shares_and_a_lone_one_stays() {
        let shares = probabilities(&[1.5, -0.25, 0.75]);
        let direct: Vec<f32> = [1.5f32, -0.25, 0.75].iter().map(|s| s.exp()).collect();
        let sum: f32 = direct.iter().sum();
        for (share, part) in shares.iter().zip(&direct) {
            assert!((share - part / sum).abs() < 1e-6, "{shares:?}");
        }
        assert_eq!(probabilities(&[-2.5]), [-2.5]);
        assert_eq!(
            probabilities(&[1e4, 1e4 + 1.0]).iter().map(|p| p.is_finite()).collect::<Vec<_>>(),
            [true; 2]
        );
        assert_eq!(Prediction { values: shares, dropped: 0 }.class(), 0);
    }
}
