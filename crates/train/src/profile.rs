//! Over-smoothing in full, for `sibo smoothing`: every measure of every layer with its interval over sequences, and
//! the sizes of x and h0 where branches read them.

use crate::Error;
use crate::probe::{ProbeRow, check, dot, pack, walk};
use serde::Serialize;
use sibo_kernels::Rows;
use sibo_kernels::probe::{effective_rank, mean_pairwise_cosine, mean_pairwise_cosine_about};
use sibo_model::Model;
use sibo_peft::config::Form;
use sibo_peft::{Method, Site};
use sibo_tasks::stats::{self, Interval, LEVEL};
use std::collections::BTreeMap;

/// Rows on which sizes at sites are measured where only their mean is wanted: they hardly vary.
pub(crate) const SIZE_ROWS: usize = 8;

/// A measure: one value a sequence, and their mean with its interval. The unit of the interval is the sequence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measure {
    /// Mean and interval.
    pub mean: Interval,
    /// The values, in the order of the rows.
    pub by_sequence: Vec<f64>,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerProfile {
    /// 0 is what enters the first layer (h0); L the output of the last, after the final norm where there is one.
    pub layer: usize,
    /// Mean cosine of all pairs of distinct tokens.
    pub similarity: Measure,
    /// The same after the mean over all tokens of all sequences is taken off: what is alike beyond the direction
    /// that every token shares.
    pub centred: Measure,
    /// Effective rank of a sequence's tokens.
    pub effective_rank: Measure,
    /// Mean norm of a token's state.
    pub x_norm: Measure,
    /// Mean cosine of a token's state with its own h0.
    pub h0_cosine: Measure,
    /// Mean least-squares coefficient c of h_l = c h0.
    pub h0_share: Measure,
}

/// What branches read at one kind of site in one layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SiteProfile {
    /// The layer, from 0.
    pub layer: usize,
    /// The kind, in words ([`Site::kind`]).
    pub site: &'static str,
    /// Mean norm of x.
    pub x_norm: Measure,
    /// Mean norm of h0, the same at every site.
    pub h0_norm: Measure,
    /// Mean of |h0| / |x|.
    pub ratio: Measure,
}

/// All of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Profile {
    /// Layers 0 to L.
    pub layers: Vec<LayerProfile>,
    /// Sites as wide as h0, layer by layer.
    pub sites: Vec<SiteProfile>,
    /// Sequences looked at.
    pub sequences: usize,
    /// Their tokens that count.
    pub tokens: usize,
}

/// The kinds of site at which h0 is mixed in by the model's adapter, in words, each once.
pub fn injected_sites(model: &Model) -> Vec<&'static str> {
    let Some(adapter) = model.adapter() else { return vec![] };
    let modules = model.shape().modules;
    let parallel = matches!(&adapter.config.method, Method::Bottleneck(b) if b.form == Form::Parallel);
    let mut names = Vec::new();
    for path in &adapter.injected {
        let site = match modules.iter().find(|m| m.path == *path).map(|m| m.site) {
            // Adapters after a linear read what it gives: the sub-layer's output.
            Some(Site::FfnDown) => Site::Ffn,
            Some(site) => site,
            None if path.ends_with("attention_adapter") => Site::Attention,
            None if parallel => Site::FfnUp,
            None => Site::Ffn,
        };
        let name = site.kind();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Looks at every layer and site of `model` on `rows`, two or more, `batch` at a time. `progress` is told
/// sequences done out of three passes over all.
pub fn profile(
    model: &Model,
    rows: &[ProbeRow],
    batch: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Profile, Error> {
    check(rows)?;
    let centres = centres(model, rows, batch)?;
    progress(rows.len());
    let mut layers: Vec<LayerValues> = (0..=model.arch().layers).map(|_| LayerValues::default()).collect();
    for (i, chunk) in rows.chunks(batch.max(1)).enumerate() {
        walk(model, chunk, batch, |layer, states, h0, tokens| {
            layers[layer].take(states, h0, tokens, &centres[layer]);
        })?;
        progress(rows.len() + i * batch.max(1));
    }
    let layers: Result<_, Error> = layers.into_iter().enumerate().map(|(l, v)| v.finish(l)).collect();
    let sites = sites(model, rows, batch)?;
    progress(3 * rows.len());
    Ok(Profile {
        layers: layers?,
        sites,
        sequences: rows.len(),
        tokens: rows.iter().map(|r| r.places.len()).sum(),
    })
}

/// The mean state of each layer over all tokens of all rows.
fn centres(model: &Model, rows: &[ProbeRow], batch: usize) -> Result<Vec<Vec<f64>>, Error> {
    let mut sums = vec![vec![0.0; model.arch().width]; model.arch().layers + 1];
    walk(model, rows, batch, |layer, states, _, tokens| {
        for &t in tokens {
            sums[layer].iter_mut().zip(states.row(t)).for_each(|(s, v)| *s += f64::from(*v));
        }
    })?;
    let tokens: usize = rows.iter().map(|r| r.places.len()).sum();
    sums.iter_mut().flatten().for_each(|s| *s /= tokens as f64);
    Ok(sums)
}

/// Values of one layer, sequence by sequence.
#[derive(Default)]
struct LayerValues {
    similarity: Vec<f64>,
    centred: Vec<f64>,
    effective_rank: Vec<f64>,
    x_norm: Vec<f64>,
    h0_cosine: Vec<f64>,
    h0_share: Vec<f64>,
}

impl LayerValues {
    fn take(&mut self, states: &Rows, h0: &Rows, tokens: &[usize], centre: &[f64]) {
        let mean = |value: &dyn Fn(&[f32], &[f32]) -> f64| {
            tokens.iter().map(|t| value(states.row(*t), h0.row(*t))).sum::<f64>() / tokens.len() as f64
        };
        self.similarity.push(mean_pairwise_cosine(states, tokens).unwrap_or(f64::NAN));
        self.centred.push(mean_pairwise_cosine_about(states, tokens, centre).unwrap_or(f64::NAN));
        self.effective_rank.push(effective_rank(states, tokens).unwrap_or(0.0));
        self.x_norm.push(mean(&|x, _| norm(x)));
        self.h0_cosine.push(mean(&|x, start| over(dot(x, start), norm(x) * norm(start))));
        self.h0_share.push(mean(&|x, start| over(dot(x, start), dot(start, start))));
    }

    fn finish(self, layer: usize) -> Result<LayerProfile, Error> {
        Ok(LayerProfile {
            layer,
            similarity: measure(self.similarity)?,
            centred: measure(self.centred)?,
            effective_rank: measure(self.effective_rank)?,
            x_norm: measure(self.x_norm)?,
            h0_cosine: measure(self.h0_cosine)?,
            h0_share: measure(self.h0_share)?,
        })
    }
}

/// The mean of |h0| / |x| over the sites where the model's adapter mixes h0 in; none where it does so nowhere.
pub fn injected_ratio(model: &Model, rows: &[ProbeRow], batch: usize) -> Result<Option<f64>, Error> {
    let injected = injected_sites(model);
    if injected.is_empty() {
        return Ok(None);
    }
    check(rows)?;
    Ok(mean_ratio(&sites(model, rows, batch)?, &injected))
}

/// The mean of |h0| / |x| over these kinds of site.
pub fn mean_ratio(sites: &[SiteProfile], kinds: &[&str]) -> Option<f64> {
    let ratios: Vec<f64> =
        sites.iter().filter(|s| kinds.contains(&s.site)).map(|s| s.ratio.mean.estimate).collect();
    (!ratios.is_empty()).then(|| ratios.iter().sum::<f64>() / ratios.len() as f64)
}

/// The mean over the model's branches of the variance of what they add, as a share of the variance of what they add it
/// to: variance over the tokens that count, summed over columns. None without branches.
pub fn branch_share(model: &Model, rows: &[ProbeRow], batch: usize) -> Result<Option<f64>, Error> {
    check(rows)?;
    let mut sums: BTreeMap<(usize, Site), [Spread; 2]> = BTreeMap::new();
    for chunk in rows.chunks(batch.max(1)) {
        let (packed, tokens) = pack(model, chunk)?;
        let tokens: Vec<usize> = tokens.concat();
        model.branch_outputs(&packed, &mut |branch, added, to| {
            let [own, joined] = sums.entry((branch.layer, branch.site)).or_default();
            own.take(added, &tokens);
            joined.take(to, &tokens);
        });
    }
    let shares: Vec<f64> =
        sums.values().map(|[own, joined]| over(own.variance(), joined.variance())).collect();
    Ok((!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64))
}

/// Sums from which a variance follows.
#[derive(Default)]
struct Spread {
    tokens: usize,
    sums: Vec<f64>,
    squares: f64,
}

impl Spread {
    fn take(&mut self, rows: &Rows, tokens: &[usize]) {
        self.sums.resize(rows.width(), 0.0);
        for &t in tokens {
            self.sums.iter_mut().zip(rows.row(t)).for_each(|(s, v)| *s += f64::from(*v));
            self.squares += dot(rows.row(t), rows.row(t));
        }
        self.tokens += tokens.len();
    }

    fn variance(&self) -> f64 {
        let n = self.tokens.max(1) as f64;
        let of_means: f64 = self.sums.iter().map(|s| (s / n).powi(2)).sum();
        (self.squares / n - of_means).max(0.0)
    }
}

/// Norms where branches read. A site that is not as wide as h0 takes no h0, and is left out.
fn sites(model: &Model, rows: &[ProbeRow], batch: usize) -> Result<Vec<SiteProfile>, Error> {
    let mut values: BTreeMap<(usize, Site), [Vec<f64>; 3]> = BTreeMap::new();
    for chunk in rows.chunks(batch.max(1)) {
        let (packed, tokens) = pack(model, chunk)?;
        model.site_inputs(&packed, |layer, site, x, h0| {
            if x.width() != h0.width() {
                return;
            }
            let [xs, starts, ratios] = values.entry((layer, site)).or_default();
            for tokens in &tokens {
                let mean = |value: &dyn Fn(usize) -> f64| {
                    tokens.iter().map(|t| value(*t)).sum::<f64>() / tokens.len() as f64
                };
                xs.push(mean(&|t| norm(x.row(t))));
                starts.push(mean(&|t| norm(h0.row(t))));
                ratios.push(mean(&|t| over(norm(h0.row(t)), norm(x.row(t)))));
            }
        });
    }
    let site = |((layer, site), [xs, starts, ratios]): ((usize, Site), [Vec<f64>; 3])| {
        let (x_norm, h0_norm, ratio) = (measure(xs)?, measure(starts)?, measure(ratios)?);
        Ok(SiteProfile { layer, site: site.kind(), x_norm, h0_norm, ratio })
    };
    values.into_iter().map(site).collect()
}

fn measure(by_sequence: Vec<f64>) -> Result<Measure, Error> {
    Ok(Measure { mean: stats::mean_interval(&by_sequence, LEVEL)?, by_sequence })
}

fn norm(row: &[f32]) -> f64 {
    dot(row, row).sqrt()
}

/// a / b, and 0 where b is.
fn over(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

#[cfg(test)]
mod tests;
