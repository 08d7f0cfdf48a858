//! Likelihoods of several continuations of one context: the context is computed once, and the continuations go on
//! from its cache, all of them in one pass.

use crate::Error;
use sibo_kernels::{Rows, loss};
use sibo_model::{Batch, Decoder, Model, Positions, RopeScaling, Row};

/// A context and its continuations, in tokens; none of them is empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Tree {
    /// What all continuations follow.
    pub context: Vec<u32>,
    /// What may follow.
    pub continuations: Vec<Vec<u32>>,
}

/// Whether a cache gives this model what a whole row gives: `dynamic` rope scaling changes earlier positions as a
/// row grows.
pub fn is_exact(model: &Model) -> bool {
    !matches!(&model.arch().positions, Positions::Rope(spec) if matches!(spec.scaling, RopeScaling::Dynamic { .. }))
}

/// Sums of token log-probabilities, continuation by continuation of each tree: one pass over all contexts, and one
/// over the continuations behind them.
pub fn score(model: &Model, trees: &[Tree]) -> Result<Vec<Vec<f64>>, Error> {
    check(model, trees)?;
    let mut decoder = Decoder::new(model, trees.len());
    let contexts: Vec<Vec<u32>> = trees.iter().map(|t| t.context.clone()).collect();
    let first = log_softmax(decoder.feed(&contexts));
    let start = |(tree, t): (usize, &Tree)| -> Vec<f64> {
        t.continuations.iter().map(|tokens| f64::from(first.row(tree)[tokens[0] as usize])).collect()
    };
    let mut sums: Vec<Vec<f64>> = trees.iter().enumerate().map(start).collect();
    let longer: Vec<(usize, usize)> = trees
        .iter()
        .enumerate()
        .flat_map(|(tree, t)| (0..t.continuations.len()).map(move |c| (tree, c)))
        .filter(|(tree, c)| trees[*tree].continuations[*c].len() > 1)
        .collect();
    if longer.is_empty() {
        return Ok(sums);
    }
    decoder.select(&longer.iter().map(|(tree, _)| *tree).collect::<Vec<_>>());
    let part = |from: usize, less: usize| -> Vec<Vec<u32>> {
        let tokens = longer.iter().map(|(tree, c)| &trees[*tree].continuations[*c]);
        tokens.map(|t| t[from..t.len() - less].to_vec()).collect()
    };
    let rest = decoder.feed_likelihoods(&part(0, 1), &part(1, 0));
    for ((tree, c), rest) in longer.into_iter().zip(rest) {
        sums[tree][c] += rest;
    }
    Ok(sums)
}

/// The cache takes rows as they are, so they are checked whole before.
fn check(model: &Model, trees: &[Tree]) -> Result<(), Error> {
    let whole = |t: &Tree| -> Vec<Row> {
        let row = |c: &Vec<u32>| Row { ids: [t.context.as_slice(), c].concat(), ..Row::default() };
        t.continuations.iter().map(row).collect()
    };
    Batch::new(model.arch(), &trees.iter().flat_map(whole).collect::<Vec<_>>())?;
    Ok(())
}

fn log_softmax(mut scores: Rows) -> Rows {
    loss::log_softmax(&mut scores);
    scores
}
