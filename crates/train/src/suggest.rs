//! A lambda from one forward pass, before anything is trained: the rule of `docs/lambda.md`.
//!
//! With S(lambda) the mean pairwise cosine of the tokens of x~ = (1 - lambda) x + lambda s h0, averaged over sequences,
//! layers and the sites where SIBO would enter, and S(h0) that of h0, the tokens that a branch reads are alike beyond
//! those of the first representation by E(lambda) = S(lambda) - S(h0). The rule takes the smallest lambda at which half
//! of that is gone, E(lambda) = E(0) / 2, and 0 (the plain method) where there is nothing to undo or no lambda up to
//! [`MOST`] undoes it.
//!
//! Reasons. SIBO's claim is that it counters over-smoothing, so what is measured of it decides. All else that lambda does
//! is a cost: the branch loses the share lambda of x. So the smallest lambda that does what it is for, and half of the
//! excess is the one mark that needs no constant of its own. Norms are in it: where |h0| is far below |x|, no lambda short
//! of 1 moves the cosines, and mixing would only shrink x.

use crate::Error;
use crate::probe::{ProbeRow, check, dot, pack};
use serde::Serialize;
use sibo_kernels::Rows;
use sibo_kernels::probe::mean_pairwise_cosine;
use sibo_model::Model;
use sibo_peft::branch::mixture;
use sibo_peft::{H0, Site};
use std::collections::BTreeMap;
use std::fmt;

/// The largest lambda of the paper's figures.
pub const MOST: f64 = 0.7;

/// Lambdas at which S is computed, from 0 to [`MOST`]; between them it is taken as straight.
const POINTS: usize = 15;

/// An excess below this is none: the mean cosine of a layer differs by as much between two samples of rows.
const LEAST_EXCESS: f64 = 0.05;

/// Sequences that are looked at; means over as many hardly move with more.
pub const SEQUENCES: usize = 32;

/// How alike the tokens that branches read become as lambda grows, at one kind of site over all layers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve {
    /// The kind of site ([`Site::kind`]).
    pub site: &'static str,
    /// Layers that have it.
    pub layers: usize,
    /// S(h0).
    pub initial: f64,
    /// Mean of |h0| / |x|.
    pub ratio: f64,
    /// S at lambdas from 0 to [`MOST`], with h0 as it is.
    pub raw: Vec<f64>,
    /// The same with h0 brought to the size of x.
    pub rms: Vec<f64>,
}

/// Why a lambda was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Half of the excess is gone.
    Halved,
    /// There is no excess.
    NothingToUndo,
    /// It is still there at [`MOST`].
    OutOfReach,
}

/// What the rule says of some sites.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Suggestion {
    /// The lambda, in hundredths.
    pub lambda: f64,
    /// S(0).
    pub before: f64,
    /// S(h0).
    pub initial: f64,
    /// Why.
    pub why: Why,
}

impl fmt::Display for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Suggestion { lambda, before, initial, why } = self;
        match why {
            Why::Halved => {
                let half = (before + initial) / 2.0;
                write!(
                    f,
                    "lambda {lambda:.2}: there the similarity has fallen from {before:.3} half of the way to h0's {initial:.3}, to {half:.3}"
                )
            }
            Why::NothingToUndo => {
                write!(
                    f,
                    "lambda 0: the tokens are hardly more alike ({before:.3}) than those of h0 ({initial:.3}), so there is nothing to undo"
                )
            }
            Why::OutOfReach => {
                write!(
                    f,
                    "lambda 0: no lambda up to {MOST} halves the excess of similarity ({before:.3} against h0's {initial:.3}); h0 is too small beside x, and mixing it in would only shrink x"
                )
            }
        }
    }
}

/// Sums of one kind of site.
#[derive(Default)]
struct Sums {
    seen: f64,
    layers: usize,
    initial: f64,
    ratio: f64,
    curves: [[f64; POINTS]; 2],
}

/// S over lambda for every kind of site as wide as h0, from one forward pass over at most [`SEQUENCES`] of `rows`.
pub fn curves(model: &Model, rows: &[ProbeRow], batch: usize) -> Result<Vec<Curve>, Error> {
    check(rows)?;
    let mut sums: BTreeMap<&'static str, (Site, Sums)> = BTreeMap::new();
    let rows = &rows[..rows.len().min(SEQUENCES)];
    for (at, chunk) in rows.chunks(batch.max(1)).enumerate() {
        let (packed, tokens) = pack(model, chunk)?;
        model.site_inputs(&packed, |_, site, x, h0| {
            if x.width() == h0.width() {
                let (_, sums) = sums.entry(site.kind()).or_insert_with(|| (site, Sums::default()));
                sums.layers += usize::from(at == 0);
                sums.take(x, h0, &tokens);
            }
        });
    }
    let mut all: Vec<(Site, Curve)> =
        sums.into_iter().map(|(kind, (site, s))| (site, s.curve(kind))).collect();
    all.sort_by_key(|(site, _)| *site);
    Ok(all.into_iter().map(|(_, curve)| curve).collect())
}

impl Sums {
    fn take(&mut self, x: &Rows, h0: &Rows, tokens: &[Vec<usize>]) {
        let alike = |rows: &Rows, at: &[usize]| mean_pairwise_cosine(rows, at).unwrap_or(0.0);
        for (curve, form) in self.curves.iter_mut().zip([H0::Raw, H0::Rms]) {
            for (i, sum) in curve.iter_mut().enumerate() {
                let mixed = mixture(lambda_of(i) as f32, form, x, h0);
                *sum += tokens.iter().map(|at| alike(&mixed, at)).sum::<f64>();
            }
        }
        for at in tokens {
            let size = |rows: &Rows, t: usize| dot(rows.row(t), rows.row(t)).sqrt();
            let ratio = |t: &usize| size(h0, *t) / size(x, *t).max(f64::MIN_POSITIVE);
            self.seen += 1.0;
            self.initial += alike(h0, at);
            self.ratio += at.iter().map(ratio).sum::<f64>() / at.len() as f64;
        }
    }

    fn curve(self, site: &'static str) -> Curve {
        let mean = |sum: f64| sum / self.seen;
        let [raw, rms] = self.curves.map(|c| c.into_iter().map(mean).collect());
        Curve { site, layers: self.layers, initial: mean(self.initial), ratio: mean(self.ratio), raw, rms }
    }
}

fn lambda_of(point: usize) -> f64 {
    MOST * point as f64 / (POINTS - 1) as f64
}

/// The rule on all sites of these kinds together, each layer of each kind counting once; none for no kind.
pub fn choose(curves: &[&Curve], h0: H0) -> Option<Suggestion> {
    let layers: usize = curves.iter().map(|c| c.layers).sum();
    if layers == 0 {
        return None;
    }
    let mean = |value: &dyn Fn(&Curve) -> f64| {
        curves.iter().map(|c| value(c) * c.layers as f64).sum::<f64>() / layers as f64
    };
    let own = |c: &Curve, i: usize| if h0 == H0::Raw { c.raw[i] } else { c.rms[i] };
    let initial = mean(&|c| c.initial);
    let excess: Vec<f64> = (0..POINTS).map(|i| mean(&|c| own(c, i)) - initial).collect();
    let half = excess[0] / 2.0;
    let (lambda, why) = match (1..POINTS).find(|i| excess[*i] <= half) {
        _ if excess[0] < LEAST_EXCESS => (0.0, Why::NothingToUndo),
        None => (0.0, Why::OutOfReach),
        Some(i) => {
            let (above, below) = (excess[i - 1] - half, half - excess[i]);
            let part = above / (above + below);
            (lambda_of(i - 1) + part * (lambda_of(i) - lambda_of(i - 1)), Why::Halved)
        }
    };
    Some(Suggestion { lambda: (100.0 * lambda).round() / 100.0, before: excess[0] + initial, initial, why })
}

/// The rule where the adapter on `model` reads: at the kinds of site that it enters, with its own form of h0; none for an
/// adapter without such a site.
pub fn for_adapter(model: &Model, rows: &[ProbeRow], batch: usize) -> Result<Option<Suggestion>, Error> {
    Ok(at_adapter(model, &curves(model, rows, batch)?))
}

/// The same from curves that were computed before, of the base without the adapter.
pub fn at_adapter(model: &Model, curves: &[Curve]) -> Option<Suggestion> {
    let adapter = model.adapter()?;
    let kinds = crate::profile::injected_sites(model);
    let own: Vec<&Curve> = curves.iter().filter(|c| kinds.contains(&c.site)).collect();
    choose(&own, adapter.config.sibo.h0)
}

#[cfg(test)]
mod tests;
