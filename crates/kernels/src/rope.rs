//! Rotary position embedding, in place: each pair of a head's first `rotary_dim` values turns by
//! position * inv_freq. The backward is the inverse rotation.

use crate::Rows;
use crate::isa::{isa, kernel};
use crate::split::{for_row_blocks, length};

/// Which values of a head form a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// i and i + rotary_dim / 2 (LLaMA).
    Halves,
    /// 2 i and 2 i + 1 (GPT-J).
    Interleaved,
}

/// cos and sin for every position and pair, computed in f32 as transformers does: the angle is the
/// f32 product of position and inverse frequency; both functions are multiplied by the attention
/// scaling.
#[derive(Clone, Debug)]
pub struct RopeTable {
    inv_freq: Vec<f32>,
    scaling: f32,
    /// (positions, pairs)
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    /// A table for positions below `positions_max`, with attention scaling 1; see
    /// [`RopeTable::with_scaling`]. Larger positions work too: [`RopeTable::grow`] adds them to the
    /// table, and [`apply`] computes what is missing.
    pub fn new(inv_freq: &[f32], positions_max: usize) -> RopeTable {
        Self::with_scaling(inv_freq, positions_max, 1.0)
    }

    /// As [`RopeTable::new`], with cos and sin multiplied by `scaling` (the `attention_factor` of
    /// `yarn`).
    pub fn with_scaling(inv_freq: &[f32], positions_max: usize, scaling: f32) -> RopeTable {
        let mut table = RopeTable { inv_freq: inv_freq.to_vec(), scaling, cos: Vec::new(), sin: Vec::new() };
        table.grow(positions_max);
        table
    }

    /// The number of pairs, half of the rotary dimension.
    pub fn pairs(&self) -> usize {
        self.inv_freq.len()
    }

    /// The number of positions in the table.
    pub fn positions(&self) -> usize {
        self.cos.len() / self.pairs().max(1)
    }

    /// Extends the table to all positions below `positions_max`.
    pub fn grow(&mut self, positions_max: usize) {
        for position in self.positions()..positions_max {
            for f in &self.inv_freq {
                let angle = position as f32 * f;
                self.cos.push(angle.cos() * self.scaling);
                self.sin.push(angle.sin() * self.scaling);
            }
        }
    }
}

kernel!(
    fn rotate_row(
        style: RopeStyle, cos: &[f32], sin: &[f32], sign: f32, head_dim: usize, row: &mut [f32],
    ) = rotate_body
);

#[inline(always)]
fn rotate_body<const FMA: bool>(
    style: RopeStyle,
    cos: &[f32],
    sin: &[f32],
    sign: f32,
    head_dim: usize,
    row: &mut [f32],
) {
    let pairs = cos.len();
    let sin = &sin[..pairs];
    for head in row.chunks_exact_mut(head_dim) {
        match style {
            RopeStyle::Halves => {
                let (low, high) = head[..2 * pairs].split_at_mut(pairs);
                for i in 0..pairs {
                    let (a, b, s) = (low[i], high[i], sign * sin[i]);
                    low[i] = a * cos[i] - b * s;
                    high[i] = b * cos[i] + a * s;
                }
            }
            RopeStyle::Interleaved => {
                for (i, pair) in head[..2 * pairs].chunks_exact_mut(2).enumerate() {
                    let (a, b, s) = (pair[0], pair[1], sign * sin[i]);
                    pair[0] = a * cos[i] - b * s;
                    pair[1] = b * cos[i] + a * s;
                }
            }
        }
    }
}

fn rotate(
    style: RopeStyle,
    table: &RopeTable,
    positions: &[u32],
    x: &mut Rows,
    heads: usize,
    rotary_dim: usize,
    sign: f32,
) {
    length("positions", positions.len(), x.rows());
    assert!(heads > 0 && x.width().is_multiple_of(heads), "x of width {} has no {heads} heads", x.width());
    let (width, head_dim, pairs) = (x.width(), x.width() / heads, table.pairs());
    assert!(
        rotary_dim == 2 * pairs && rotary_dim <= head_dim,
        "rotary_dim {rotary_dim} does not fit {pairs} frequencies and head width {head_dim}"
    );
    let isa = isa();
    for_row_blocks(x, |first, rows| {
        for (i, row) in rows.chunks_exact_mut(width).enumerate() {
            let position = positions[first + i] as usize;
            if position < table.positions() {
                let part = position * pairs..(position + 1) * pairs;
                let (cos, sin) = (&table.cos[part.clone()], &table.sin[part]);
                rotate_row(isa, style, cos, sin, sign, head_dim, row);
            } else {
                let angles = table.inv_freq.iter().map(|f| position as f32 * f);
                let (cos, sin): (Vec<f32>, Vec<f32>) =
                    angles.map(|a| (a.cos() * table.scaling, a.sin() * table.scaling)).unzip();
                rotate_row(isa, style, &cos, &sin, sign, head_dim, row);
            }
        }
    });
}

/// Rotates the first `rotary_dim` values of every head of x (T, heads * C) in place; positions (T).
pub fn apply(
    style: RopeStyle,
    table: &RopeTable,
    positions: &[u32],
    x: &mut Rows,
    heads: usize,
    rotary_dim: usize,
) {
    rotate(style, table, positions, x, heads, rotary_dim, 1.0);
}

/// The gradient of [`apply`], in place: the transposed rotation (with an attention scaling, times
/// that scaling).
pub fn apply_backward(
    style: RopeStyle,
    table: &RopeTable,
    positions: &[u32],
    dx: &mut Rows,
    heads: usize,
    rotary_dim: usize,
) {
    rotate(style, table, positions, dx, heads, rotary_dim, -1.0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    /// Each pair as a complex number times e^(i angle); `turn` -1 turns back.
    fn naive<F: Float>(
        style: RopeStyle,
        angles: impl Fn(usize, usize) -> f64,
        x: &[F],
        (heads, head_dim, rotary_dim): (usize, usize, usize),
        turn: f64,
    ) -> Vec<F> {
        let mut y = x.to_vec();
        for t in 0..x.len() / (heads * head_dim) {
            for h in 0..heads {
                let at = (t * heads + h) * head_dim;
                for pair in 0..rotary_dim / 2 {
                    let (i, j) = match style {
                        RopeStyle::Halves => (at + pair, at + pair + rotary_dim / 2),
                        RopeStyle::Interleaved => (at + 2 * pair, at + 2 * pair + 1),
                    };
                    let angle = turn * angles(t, pair);
                    let (cos, sin) = (F::of(angle.cos()), F::of(angle.sin()));
                    y[i] = x[i] * cos - x[j] * sin;
                    y[j] = x[i] * sin + x[j] * cos;
                }
            }
        }
        y
    }

    fn frequencies(pairs: usize) -> Vec<f32> {
        (0..pairs).map(|i| 1.3f32.powi(-(i as i32))).collect()
    }

    #[test]
    fn fast_equals_naive_and_turns_back() {
        for (t, heads, head_dim, rotary_dim) in
            [(1, 1, 2, 2), (5, 3, 10, 6), (101, 3, 64, 64), (40, 5, 24, 18)]
        {
            for style in [RopeStyle::Halves, RopeStyle::Interleaved] {
                let positions: Vec<u32> = (0..t).map(|i| (i * 37 % 90) as u32).collect();
                let freq = frequencies(rotary_dim / 2);
                // Some positions lie beyond the table.
                let table = RopeTable::new(&freq, 60);
                let x = noise_rows(t, heads * head_dim, 1);
                let angle = |t: usize, pair: usize| f64::from(positions[t] as f32 * freq[pair]);
                let sizes = (heads, head_dim, rotary_dim);
                let turned = naive(style, angle, &wide(x.data()), sizes, 1.0);
                let back = naive(style, angle, &wide(x.data()), sizes, -1.0);
                let run = || {
                    let (mut y, mut d) = (x.copy(), x.copy());
                    apply(style, &table, &positions, &mut y, heads, rotary_dim);
                    apply_backward(style, &table, &positions, &mut d, heads, rotary_dim);
                    [y.data(), d.data()].concat()
                };
                everywhere(run, |isa, out| {
                    let (y, d) = out.split_at(t * heads * head_dim);
                    assert_close(&format!("{isa} {style:?} {t} y"), y, &turned, 1e-6);
                    assert_close(&format!("{isa} {style:?} {t} dx"), d, &back, 1e-6);
                });
            }
        }
    }

    #[test]
    fn the_naive_backward_is_the_derivative() {
        let sizes = (2, 5, 4);
        let (x, dy) = (wide(&noise(20, 2)), wide(&noise(20, 3)));
        let angle = |t: usize, pair: usize| 0.9 * (t as f64 + 1.0) / (pair as f64 + 1.0);
        for style in [RopeStyle::Halves, RopeStyle::Interleaved] {
            let dx = naive(style, angle, &dy, sizes, -1.0);
            assert_gradient("dx", &x, &dx, |x| inner(&naive(style, angle, x, sizes, 1.0), &dy));
        }
    }

    #[test]
    fn scaling_multiplies_cos_and_sin() {
        let (plain, scaled) = (RopeTable::new(&[0.7], 4), RopeTable::with_scaling(&[0.7], 2, 1.25));
        let x = noise_rows(3, 4, 4);
        let (mut a, mut b) = (x.copy(), x.copy());
        apply(RopeStyle::Halves, &plain, &[1, 3, 9], &mut a, 2, 2);
        apply(RopeStyle::Halves, &scaled, &[1, 3, 9], &mut b, 2, 2);
        let expected: Vec<f32> = a.data().iter().map(|v| v * 1.25).collect();
        assert_close("scaled", b.data(), &expected, 1e-6);
    }
}
