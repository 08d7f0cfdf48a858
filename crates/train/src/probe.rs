//! Over-smoothing, measured: how alike the tokens of a sequence are at each layer, and how much of the initial
//! representation is left there (method.md, section 4, points 1 and 6).

use crate::Error;
use crate::data::Dataset;
use serde::{Deserialize, Serialize};
use sibo_kernels::Rows;
use sibo_kernels::probe::mean_pairwise_cosine;
use sibo_model::{Batch, Model, Row};
use sibo_tasks::stats::{self, Interval, LEVEL};
use sibo_text::Tokenizer;

/// Rows that are looked at while a run trains, and by default in a study.
pub const ROWS: usize = 40;

/// One layer in a few numbers, as runs and studies keep it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LayerLook {
    /// Mean cosine of all pairs of tokens.
    pub similarity: f64,
    /// Mean norm of a state.
    pub x_norm: f64,
    /// Mean cosine with h0.
    pub h0_cosine: f64,
    /// Mean least-squares coefficient on h0.
    pub h0_share: f64,
}

impl From<&LayerProbe> for LayerLook {
    fn from(p: &LayerProbe) -> Self {
        LayerLook {
            similarity: p.similarity.estimate,
            x_norm: p.x_norm,
            h0_cosine: p.h0_cosine,
            h0_share: p.h0_share,
        }
    }
}

/// A sequence to look at.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeRow {
    /// Its tokens.
    pub row: Row,
    /// Places of the tokens that count: all but the special ones.
    pub places: Vec<usize>,
}

/// What one layer's hidden states look like.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerProbe {
    /// 0 is what enters the first layer (h0); L the output of the last, after the final norm where there is one.
    pub layer: usize,
    /// Mean cosine between all pairs of distinct tokens, averaged over sequences; the unit of the interval is
    /// the sequence.
    pub similarity: Interval,
    /// The same, sequence by sequence, in the order of the rows.
    pub by_sequence: Vec<f64>,
    /// Mean norm of a token's hidden state.
    pub x_norm: f64,
    /// Mean norm of a token's h0.
    pub h0_norm: f64,
    /// Mean cosine of a token's hidden state with its own h0.
    pub h0_cosine: f64,
    /// Mean least-squares coefficient c of h_l = c h0: how much of h0 is left.
    pub h0_share: f64,
}

/// The first `limit` rows of `data` that hold two tokens or more beside the special ones.
pub fn rows(data: &Dataset, tokenizer: &Tokenizer, limit: usize) -> Vec<ProbeRow> {
    let long = data.rows.iter().map(|r| counted(&r.row, tokenizer)).filter(|r| r.places.len() >= 2);
    long.take(limit).collect()
}

fn special_ids(tokenizer: &Tokenizer) -> Vec<u32> {
    let s = tokenizer.special();
    let named = [&s.bos, &s.eos, &s.pad, &s.cls, &s.sep, &s.mask];
    let named = named.into_iter().flatten().map(|t| t.id);
    named
        .chain(tokenizer.prefix_ids().iter().copied())
        .chain(tokenizer.suffix_ids().iter().copied())
        .collect()
}

/// Sums over the tokens of one layer.
#[derive(Default)]
struct Sums {
    by_sequence: Vec<f64>,
    tokens: usize,
    x_norm: f64,
    h0_norm: f64,
    h0_cosine: f64,
    h0_share: f64,
}

/// Looks at every layer of `model` on `rows`, two or more, `batch` at a time.
pub fn probe(model: &Model, rows: &[ProbeRow], batch: usize) -> Result<Vec<LayerProbe>, Error> {
    check(rows)?;
    let mut layers: Vec<Sums> = (0..=model.arch().layers).map(|_| Sums::default()).collect();
    walk(model, rows, batch, |layer, states, h0, tokens| layers[layer].take(states, h0, tokens))?;
    layers.into_iter().enumerate().map(|(layer, sums)| sums.finish(layer)).collect()
}

/// Mean cosine of all pairs of a sequence's tokens, at each layer: one sequence, and so no interval.
pub fn of_sequence(model: &Model, row: &ProbeRow) -> Result<Vec<f64>, Error> {
    let mut by_layer = Vec::new();
    let rows = std::slice::from_ref(row);
    walk(model, rows, 1, |_, states, _, tokens| {
        by_layer.push(mean_pairwise_cosine(states, tokens).unwrap_or(f64::NAN));
    })?;
    Ok(by_layer)
}

/// A row of tokens with the places of those that are not special.
pub fn counted(row: &Row, tokenizer: &Tokenizer) -> ProbeRow {
    let special = special_ids(tokenizer);
    let places = row.ids.iter().enumerate().filter(|(_, id)| !special.contains(id));
    ProbeRow { row: row.clone(), places: places.map(|(at, _)| at).collect() }
}

/// Refuses fewer rows than an interval over sequences needs.
pub(crate) fn check(rows: &[ProbeRow]) -> Result<(), Error> {
    if rows.len() < 2 {
        return Err(Error::Refused(format!(
            "token similarity needs 2 rows or more with 2 or more ordinary tokens each; {} found",
            rows.len()
        )));
    }
    Ok(())
}

/// Shows every layer's states (T, D), h0 (T, D) and, of one sequence after the other, the tokens that count.
pub(crate) fn walk(
    model: &Model,
    rows: &[ProbeRow],
    batch: usize,
    mut see: impl FnMut(usize, &Rows, &Rows, &[usize]),
) -> Result<(), Error> {
    for chunk in rows.chunks(batch.max(1)) {
        let (packed, tokens) = pack(model, chunk)?;
        let mut h0: Option<Rows> = None;
        model.hidden_states(&packed, |layer, states| {
            let h0 = h0.get_or_insert_with(|| states.copy());
            tokens.iter().for_each(|tokens| see(layer, states, h0, tokens));
        });
    }
    Ok(())
}

/// Some sequences as a batch, and where the tokens of each that count lie in it.
pub(crate) fn pack(model: &Model, chunk: &[ProbeRow]) -> Result<(Batch, Vec<Vec<usize>>), Error> {
    let packed: Vec<Row> = chunk.iter().map(|r| r.row.clone()).collect();
    let packed = Batch::new(model.arch(), &packed)?;
    let tokens = chunk.iter().enumerate().map(|(i, row)| {
        let start = packed.range(i).start;
        row.places.iter().map(|p| start + p).collect()
    });
    let tokens = tokens.collect();
    Ok((packed, tokens))
}

impl Sums {
    fn take(&mut self, states: &Rows, h0: &Rows, tokens: &[usize]) {
        self.by_sequence.push(mean_pairwise_cosine(states, tokens).unwrap_or(f64::NAN));
        for &t in tokens {
            let (x, start) = (states.row(t), h0.row(t));
            let (xx, hh, xh) = (dot(x, x), dot(start, start), dot(x, start));
            self.tokens += 1;
            self.x_norm += xx.sqrt();
            self.h0_norm += hh.sqrt();
            self.h0_cosine += if xx * hh > 0.0 { xh / (xx * hh).sqrt() } else { 0.0 };
            self.h0_share += if hh > 0.0 { xh / hh } else { 0.0 };
        }
    }

    fn finish(self, layer: usize) -> Result<LayerProbe, Error> {
        let n = self.tokens.max(1) as f64;
        Ok(LayerProbe {
            layer,
            similarity: stats::mean_interval(&self.by_sequence, LEVEL)?,
            by_sequence: self.by_sequence,
            x_norm: self.x_norm / n,
            h0_norm: self.h0_norm / n,
            h0_cosine: self.h0_cosine / n,
            h0_share: self.h0_share / n,
        })
    }
}

pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

#[cfg(test)]
mod tests;
