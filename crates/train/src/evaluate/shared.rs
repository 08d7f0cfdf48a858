//! Likelihoods of several continuations of one context: the context is computed once, and the continuations go on
//! from its cache side by side.

use crate::Error;
use sibo_kernels::{Rows, loss};
use sibo_model::{Batch, Decoder, Model, Positions, RopeScaling, Row};

/// A context and its continuations, in tokens; none of them is empty.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tree {
    pub(super) context: Vec<u32>,
    pub(super) continuations: Vec<Vec<u32>>,
}

/// Whether a cache gives this model what a whole row gives: `dynamic` rope scaling changes earlier positions as a
/// row grows.
pub(super) fn is_exact(model: &Model) -> bool {
    !matches!(&model.arch().positions, Positions::Rope(spec) if matches!(spec.scaling, RopeScaling::Dynamic { .. }))
}

/// One continuation under way.
struct Branch {
    tree: usize,
    continuation: usize,
    /// Tokens scored.
    done: usize,
}

/// Sums of token log-probabilities, continuation by continuation of each tree.
pub(super) fn score(model: &Model, trees: &[Tree]) -> Result<Vec<Vec<f64>>, Error> {
    check(model, trees)?;
    let mut sums: Vec<Vec<f64>> = trees.iter().map(|t| vec![0.0; t.continuations.len()]).collect();
    let mut decoder = Decoder::new(model, trees.len());
    let contexts: Vec<Vec<u32>> = trees.iter().map(|t| t.context.clone()).collect();
    let mut scores = log_softmax(decoder.feed(&contexts));
    let mut branches = Vec::new();
    let mut from = Vec::new();
    for (tree, t) in trees.iter().enumerate() {
        for (continuation, tokens) in t.continuations.iter().enumerate() {
            sums[tree][continuation] += f64::from(scores.row(tree)[tokens[0] as usize]);
            if tokens.len() > 1 {
                branches.push(Branch { tree, continuation, done: 1 });
                from.push(tree);
            }
        }
    }
    while !branches.is_empty() {
        decoder.select(&from);
        let tokens = |b: &Branch| &trees[b.tree].continuations[b.continuation];
        let feed: Vec<Vec<u32>> = branches.iter().map(|b| vec![tokens(b)[b.done - 1]]).collect();
        scores = log_softmax(decoder.feed(&feed));
        from.clear();
        let mut left = Vec::new();
        for (at, mut branch) in branches.into_iter().enumerate() {
            let own = tokens(&branch);
            sums[branch.tree][branch.continuation] += f64::from(scores.row(at)[own[branch.done] as usize]);
            branch.done += 1;
            if branch.done < own.len() {
                from.push(at);
                left.push(branch);
            }
        }
        branches = left;
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
