//! Signs that SIBO fails or does nothing, in words. Every threshold stands here and nowhere else.

use crate::prepare::Prepared;
use crate::{Error, probe, profile};
use serde::{Deserialize, Serialize};
use std::fmt;

/// SIBO's training loss must fall by this share of what the plain method's falls by.
pub const LEAST_FALL: f64 = 0.7;

/// A loss that falls by less than this share of where it began has not learned.
pub const LEARNED: f64 = 0.05;

/// A difference in the last layer's token similarity below this is none.
pub const UNCHANGED: f64 = 0.005;

/// h0 that is smaller than this share of x hardly changes what a branch reads.
pub const NEGLIGIBLE: f64 = 0.1;

/// Branches whose output has come to vary by this share of what it joins do act.
pub const ACTS: f64 = 0.01;

/// Losses are compared between the first and the last of so many parts of a run.
const PARTS: usize = 5;

/// Something that a person who reads a gain (or none) should know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "sign", rename_all = "snake_case")]
pub enum Sign {
    /// Beside the plain method, the training loss stalls.
    LambdaTooHigh {
        /// By how much the plain method's loss fell.
        plain_fall: f64,
        /// By how much SIBO's did.
        sibo_fall: f64,
    },
    /// The loss hardly fell, with nothing to compare it with.
    Stalled {
        /// Where it began.
        first: f64,
        /// Where it ended.
        last: f64,
    },
    /// Tokens are as alike as without SIBO.
    LambdaTooLow {
        /// The difference in the last layer's similarity.
        change: f64,
    },
    /// |h0| is far below |x| where it is mixed in.
    H0Negligible {
        /// Mean |h0| / |x| over the sites.
        ratio: f64,
    },
    /// The branches act, and the loss does not fall.
    OnlyNoise {
        /// The share of what it joins by which a branch's output varied before training.
        before: f64,
        /// And after it.
        after: f64,
        /// Where the loss began.
        first: f64,
        /// Where it ended.
        last: f64,
    },
    /// lambda is above zero and no branch reads h0.
    NoSite,
    /// Runs whose loss or a gradient stopped being a number.
    Diverged {
        /// How many, of how many.
        runs: usize,
        /// All runs of the configuration.
        of: usize,
        /// What happened to the first.
        first: String,
    },
    /// The difference in score cannot be told from chance.
    WithinNoise {
        /// The difference.
        difference: f64,
        /// The ends of its interval.
        interval: (f64, f64),
    },
}

/// What a loss that should have fallen did.
fn fell(first: f64, last: f64) -> &'static str {
    if last > first { "rose" } else { "hardly fell" }
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sign::LambdaTooHigh { plain_fall, sibo_fall } => write!(
                f,
                "lambda may be too high: the training loss fell by {sibo_fall:.3}, the plain method's by {plain_fall:.3}; try a smaller lambda or more steps"
            ),
            Sign::Stalled { first, last } => write!(
                f,
                "the training loss {} ({first:.3} to {last:.3}); with lambda above 0 that can mean that lambda is too high: compare with lambda = 0",
                fell(*first, *last)
            ),
            Sign::LambdaTooLow { change } => write!(
                f,
                "lambda may be too low to act: the tokens of the last layer are as alike as without SIBO (mean cosine differs by {change:+.4})"
            ),
            Sign::H0Negligible { ratio } => write!(
                f,
                "h0 is negligible where it is mixed in: |h0| is {ratio:.3} of |x|, so lambda mostly rescales x; h0 = \"rms\" brings h0 to the size of x"
            ),
            Sign::OnlyNoise { before, after, first, last } => write!(
                f,
                "the branches may add only noise: the variance of what they add rose from {before:.3} to {after:.3} of that of what they join, and the training loss {} ({first:.3} to {last:.3}); try a lower learning rate, other sites, or lambda = 0",
                fell(*first, *last)
            ),
            Sign::NoSite => write!(
                f,
                "no site is injected: no trained branch reads a state as wide as h0 under this placement, so lambda changes nothing"
            ),
            Sign::Diverged { runs, of, first } if runs == of => write!(
                f,
                "{runs} of {of} runs diverged ({first}), so it has no score; try a lower learning rate"
            ),
            Sign::Diverged { runs, of, first } => write!(
                f,
                "{runs} of {of} runs diverged ({first}), and means and differences are of the others alone; try a lower learning rate"
            ),
            Sign::WithinNoise { difference, interval: (low, high) } => write!(
                f,
                "the difference is within noise: {difference:+.4}, and its interval {low:+.4} to {high:+.4} holds zero"
            ),
        }
    }
}

/// Means of the first and of the last part of a run's losses.
fn ends(losses: &[f64]) -> Option<(f64, f64)> {
    let part = (losses.len() / PARTS).max(1);
    let mean = |l: &[f64]| l.iter().sum::<f64>() / l.len() as f64;
    (losses.len() >= 2 * part).then(|| (mean(&losses[..part]), mean(&losses[losses.len() - part..])))
}

/// SIBO's training loss beside the plain method's, step by step.
pub fn too_high(plain: &[f64], sibo: &[f64]) -> Option<Sign> {
    let ((first, plain_last), (own_first, last)) = (ends(plain)?, ends(sibo)?);
    let (plain_fall, sibo_fall) = (first - plain_last, own_first - last);
    // From SIBO's own start where it is lower: a head start is no stall.
    let behind = sibo_fall < LEAST_FALL * plain_fall && last > plain_last;
    (plain_fall > LEARNED * first.abs() && behind).then_some(Sign::LambdaTooHigh { plain_fall, sibo_fall })
}

/// A boosted run on its own.
pub fn stalled(losses: &[f64]) -> Option<Sign> {
    let (first, last) = ends(losses)?;
    (first - last < LEARNED * first.abs()).then_some(Sign::Stalled { first, last })
}

/// The branches of a boosted run: the share of what it joins by which their output varies, before and after training
/// ([`profile::branch_share`]), and the losses between. A loss that did not fall because nothing acted is a stall.
pub fn only_noise((before, after): (f64, f64), losses: &[f64]) -> Option<Sign> {
    let (first, last) = ends(losses)?;
    let fell = first - last >= LEARNED * first.abs();
    (after - before >= ACTS && !fell).then_some(Sign::OnlyNoise { before, after, first, last })
}

/// Rows on which a run that stands alone is looked at; few are enough for sizes.
fn rows_of(prepared: &Prepared) -> Vec<probe::ProbeRow> {
    let data = prepared.validation.as_ref().unwrap_or(&prepared.train);
    probe::rows(data, &prepared.tokenizer, profile::SIZE_ROWS)
}

/// Before training: what [`of_run`] holds a boosted run's branches against.
pub fn before_run(prepared: &Prepared, batch: usize) -> Result<Option<f64>, Error> {
    let boosted = prepared.model.adapter().is_some_and(|a| !a.config.sibo.is_plain());
    let rows = if boosted { rows_of(prepared) } else { vec![] };
    if rows.len() < 2 { Ok(None) } else { profile::branch_share(&prepared.model, &rows, batch) }
}

/// What a person should know of a boosted run that stands alone: a stall or noise, and sizes of h0 on a few of its
/// rows; `before` is [`before_run`]'s.
pub fn of_run(
    prepared: &Prepared,
    losses: &[f64],
    before: Option<f64>,
    batch: usize,
) -> Result<Vec<Sign>, Error> {
    let model = &prepared.model;
    let Some(adapter) = model.adapter().filter(|a| !a.config.sibo.is_plain()) else { return Ok(vec![]) };
    let rows = rows_of(prepared);
    let shares = match rows.len() < 2 {
        true => None,
        false => before.zip(profile::branch_share(model, &rows, batch)?),
    };
    let noise = shares.and_then(|shares| only_noise(shares, losses));
    let ratio = if rows.len() < 2 { None } else { profile::injected_ratio(model, &rows, batch)? };
    // Noise is a stall of which more is known.
    let stall = noise.or_else(|| stalled(losses));
    let found = [no_site(true, adapter.injected.len()), stall, ratio.and_then(negligible)];
    Ok(found.into_iter().flatten().collect())
}

/// The last layer's mean similarity before training, and after it without and with SIBO, seed by seed: a lambda that moves
/// one seed up and another down does act. Where no training moved it, nothing can be said of lambda.
pub fn too_low(before: f64, pairs: &[(f64, f64)]) -> Option<Sign> {
    let mean = |of: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / pairs.len() as f64;
    let moved = mean(&|p| (p.0 - before).abs()).max(mean(&|p| (p.1 - before).abs())) >= UNCHANGED;
    let same = mean(&|p| (p.1 - p.0).abs()) < UNCHANGED;
    (moved && same).then(|| Sign::LambdaTooLow { change: mean(&|p| p.1 - p.0) })
}

/// The mean of |h0| / |x| where h0 is mixed in ([`crate::profile::injected_ratio`]).
pub fn negligible(ratio: f64) -> Option<Sign> {
    (ratio < NEGLIGIBLE).then_some(Sign::H0Negligible { ratio })
}

/// Injected branches of a run, and whether its lambda is above zero.
pub fn no_site(lambda_above_zero: bool, injected: usize) -> Option<Sign> {
    (lambda_above_zero && injected == 0).then_some(Sign::NoSite)
}

/// A difference with its interval.
pub fn within_noise(difference: f64, (low, high): (f64, f64)) -> Option<Sign> {
    (low <= 0.0 && high >= 0.0).then_some(Sign::WithinNoise { difference, interval: (low, high) })
}

#[cfg(test)]
mod tests;
