//! Continuing rows token by token with a key/value cache. h0 of a new token is its own embedding, so
//! SIBO with the cache is exact. Keys and values are kept in the numbers that the model computes in.

use crate::cache::{KvLayer, KvRow};
use crate::{Batch, Error, Model, Row};
use sibo_kernels::{Rows, loss};

/// Rows under way and their caches.
pub struct Decoder<'m> {
    model: &'m Model,
    layers: Vec<KvLayer>,
    /// Tokens of each row that are in the cache.
    past: Vec<usize>,
}

impl<'m> Decoder<'m> {
    /// `rows` empty rows.
    pub fn new(model: &'m Model, rows: usize) -> Self {
        let layer = KvLayer::new(rows, model.params.compute());
        Decoder { model, layers: vec![layer; model.layers.len()], past: vec![0; rows] }
    }

    /// Appends tokens to each row (one at least) and gives the scores (rows, V) of what comes next.
    pub fn feed(&mut self, tokens: &[Vec<u32>]) -> Rows {
        let (batch, out) = self.advance(tokens);
        self.model.last_scores(&batch, &out)
    }

    /// Appends tokens to each row (one at least) and gives the sum of the log-probabilities of `next[row]`, each
    /// of which is what follows the token at its place.
    pub fn feed_likelihoods(&mut self, tokens: &[Vec<u32>], next: &[Vec<u32>]) -> Vec<f64> {
        let (batch, out) = self.advance(tokens);
        let targets = next.concat();
        assert_eq!(targets.len(), batch.tokens(), "a target for each token");
        let at: Vec<usize> = (0..targets.len()).collect();
        let mut log_probs = Vec::with_capacity(targets.len());
        self.model.for_scores(&out, &at, |range, scores| {
            log_probs.extend(loss::log_probs(scores, &targets[range]));
        });
        let sum = |row| log_probs[batch.range(row)].iter().map(|p| f64::from(*p)).sum();
        (0..batch.rows()).map(sum).collect()
    }

    /// The batch of the new tokens and the layers' output for it.
    fn advance(&mut self, tokens: &[Vec<u32>]) -> (Batch, Rows) {
        assert_eq!(tokens.len(), self.past.len(), "tokens for each row");
        let rows: Vec<(Row, usize)> = tokens
            .iter()
            .zip(&self.past)
            .map(|(ids, past)| (Row { ids: ids.clone(), ..Row::default() }, *past))
            .collect();
        let batch = Batch::continuing(&self.model.arch, &rows);
        let out = self.model.run_cached(&batch, &mut self.layers);
        for (past, ids) in self.past.iter_mut().zip(tokens) {
            *past += ids.len();
        }
        (batch, out)
    }

    /// Makes row i what row `from[i]` was: drops rows, repeats them, reorders them.
    pub fn select(&mut self, from: &[usize]) {
        for layer in &mut self.layers {
            layer.rows = select(std::mem::take(&mut layer.rows), from);
        }
        self.past = from.iter().map(|i| self.past[*i]).collect();
    }

    /// How many rows are under way.
    pub fn rows(&self) -> usize {
        self.past.len()
    }
}

/// Moves what is used once and copies what is used again.
fn select(mut rows: Vec<KvRow>, from: &[usize]) -> Vec<KvRow> {
    let mut left = vec![0usize; rows.len()];
    from.iter().for_each(|i| left[*i] += 1);
    from.iter()
        .map(|i| {
            left[*i] -= 1;
            if left[*i] == 0 { std::mem::take(&mut rows[*i]) } else { rows[*i].clone() }
        })
        .collect()
}

/// The most likely token at each step, until an `eos` (kept) or `max_new` tokens. `choose` picks a token
/// for row i from its scores (V) and may stream it; [`greedy`] picks the best.
pub fn continue_rows(
    model: &Model,
    prompts: &[Vec<u32>],
    max_new: usize,
    eos: &[u32],
    choose: impl FnMut(usize, &mut [f32], &[u32]) -> Option<u32>,
) -> Result<Vec<Vec<u32>>, Error> {
    model.check_generation(prompts, max_new)?;
    Ok(model.awake(|| continued(model, prompts, max_new, eos, choose)))
}

fn continued(
    model: &Model,
    prompts: &[Vec<u32>],
    max_new: usize,
    eos: &[u32],
    mut choose: impl FnMut(usize, &mut [f32], &[u32]) -> Option<u32>,
) -> Vec<Vec<u32>> {
    let mut new: Vec<Vec<u32>> = vec![vec![]; prompts.len()];
    let mut running: Vec<usize> = (0..prompts.len()).collect();
    let mut decoder = Decoder::new(model, prompts.len());
    let mut feed: Vec<Vec<u32>> = prompts.to_vec();
    for step in 0..max_new {
        if running.is_empty() {
            break;
        }
        let mut scores = decoder.feed(&feed);
        let mut keep = Vec::new();
        for (at, row) in running.iter().enumerate() {
            let Some(token) = choose(*row, scores.row_mut(at), &new[*row]) else { continue };
            new[*row].push(token);
            if !eos.contains(&token) && step + 1 < max_new {
                keep.push(at);
            }
        }
        if keep.len() < running.len() {
            decoder.select(&keep);
            running = keep.iter().map(|at| running[*at]).collect();
        }
        feed = running.iter().map(|row| new[*row].last().copied().into_iter().collect()).collect();
    }
    new
}

/// Greedy continuation of each row: new tokens only, ending with an `eos` or after `max_new`.
pub fn greedy(
    model: &Model,
    prompts: &[Vec<u32>],
    max_new: usize,
    eos: &[u32],
) -> Result<Vec<Vec<u32>>, Error> {
    continue_rows(model, prompts, max_new, eos, |_, scores, _| {
        loss::argmax(&Rows::from_slice(scores, scores.len())).first().copied()
    })
}
