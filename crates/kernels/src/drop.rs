//! Dropout whose masks are addressed, not drawn: whether an element is kept is a hash of where it
//! stands (seed, epoch, sample, layer, site, token, head, column). So micro-batching, packing,
//! threads and resuming change nothing, and the backward needs no stored mask.

use crate::Rows;
use crate::isa::{isa, kernel};
use crate::math::madd;
use crate::split::{for_row_blocks, length, same_shape};

/// What distinguishes the masks of one pass over the data from those of all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropKey {
    /// The seed of the run.
    pub seed: u64,
    /// The epoch: the same sample gets other masks the next time.
    pub epoch: u64,
}

/// A bijection of 64 bits in which every input bit reaches every output bit (two rounds of
/// xor-shift-multiply with odd constants taken from the fractions of square roots).
#[inline(always)]
fn mix64(mut h: u64) -> u64 {
    h = (h ^ (h >> 32)).wrapping_mul(0x6a09_e667_f3bc_c909);
    h = (h ^ (h >> 29)).wrapping_mul(0xbb67_ae85_84ca_a73b);
    h ^ (h >> 32)
}

#[inline(always)]
fn absorb(state: u64, value: u64) -> u64 {
    mix64(state.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ mix64(value ^ 0x3c6e_f372_fe94_f82b))
}

/// One key per row, (T): from the sample that the row belongs to, its token index there, the layer
/// and the site.
pub fn row_keys(key: DropKey, samples: &[u64], positions: &[u32], layer: u64, site: u64) -> Vec<u64> {
    length("positions", positions.len(), samples.len());
    let place = [key.seed, key.epoch, layer, site].into_iter().fold(0, absorb);
    samples.iter().zip(positions).map(|(s, p)| absorb(absorb(place, *s), u64::from(*p))).collect()
}

/// The two 32-bit halves from which the elements of one row and head are decided.
#[inline(always)]
fn head_key(key: u64, head: u32) -> (u32, u32) {
    let mixed = mix64(key ^ (u64::from(head) << 32 | 0x1f83_d9ab));
    (mixed as u32, (mixed >> 32) as u32)
}

/// A number below 2^32 for a column of one row and head; two multiplications, because it runs per
/// element.
#[inline(always)]
fn column_hash((low, high): (u32, u32), column: u32) -> u32 {
    let mut h = (column.wrapping_mul(0x9e37_79b1) ^ low).wrapping_add(high.rotate_left(11));
    h = (h ^ (h >> 15)).wrapping_mul(0x85eb_ca6b) ^ high;
    h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

/// Elements whose hash is below this are dropped.
#[inline(always)]
fn threshold(p: f32) -> u32 {
    (f64::from(p) * 4_294_967_296.0) as u32
}

/// Whether the element at `column` of the row with this key (in `head`; 0 outside attention) is
/// kept under dropout probability p. The definition that all fast paths follow.
pub fn keep(p: f32, key: u64, head: u32, column: u32) -> bool {
    column_hash(head_key(key, head), column) >= threshold(p)
}

/// What one row, and head, drops.
#[derive(Clone, Copy)]
pub(crate) struct RowMask {
    /// Elements whose hash is below it are dropped,
    limit: u32,
    /// and the others multiplied by this.
    scale: f32,
    key: (u32, u32),
}

impl RowMask {
    pub(crate) fn new(p: f32, key: u64, head: u32) -> RowMask {
        RowMask { limit: threshold(p), scale: 1.0 / (1.0 - p), key: head_key(key, head) }
    }

    #[inline(always)]
    pub(crate) fn apply(self, column: usize, x: f32) -> f32 {
        if column_hash(self.key, column as u32) >= self.limit { x * self.scale } else { 0.0 }
    }
}

kernel!(
    /// `x[c] = x[c] * scale` where kept, else 0, for the columns from 0 on.
    pub(crate) fn mask_row(mask: RowMask, x: &mut [f32]) = mask_body
);

#[inline(always)]
fn mask_body<const FMA: bool>(mask: RowMask, x: &mut [f32]) {
    for (c, x) in x.iter_mut().enumerate() {
        *x = mask.apply(c, *x);
    }
}

/// Dropout of T rows: kept elements are divided by 1 - p. It is linear and diagonal, so the backward is the same call on
/// the gradient. Of attention's probabilities each query head has a mask of its own, with the position of the key as the
/// column; elsewhere the head is 0.
#[derive(Clone, Debug)]
pub struct Mask {
    /// The probability of dropping.
    pub p: f32,
    /// One key per row (T), from [`row_keys`].
    pub keys: Vec<u64>,
}

impl Mask {
    #[track_caller]
    pub(crate) fn check(&self, rows: usize) {
        length("keys", self.keys.len(), rows);
        assert!((0.0..1.0).contains(&self.p), "dropout probability {} is not in [0, 1)", self.p);
    }

    pub(crate) fn of_row(&self, t: usize, head: usize) -> RowMask {
        RowMask::new(self.p, self.keys[t], head as u32)
    }

    /// The mask of the rows `at` alone.
    pub fn pick(&self, at: &[usize]) -> Mask {
        Mask { p: self.p, keys: at.iter().map(|t| self.keys[*t]).collect() }
    }

    /// `x[t, c] = x[t, c] / (1 - p)` where kept, else 0; x (T, D).
    pub fn apply(&self, x: &mut Rows) {
        self.check(x.rows());
        if self.p == 0.0 {
            return;
        }
        let (isa, width) = (isa(), x.width());
        for_row_blocks(x, |first, rows| {
            for (i, row) in rows.chunks_exact_mut(width).enumerate() {
                mask_row(isa, self.of_row(first + i, 0), row);
            }
        });
    }

    /// What [`Mask::apply`] makes of x, beside it, in one pass over memory.
    pub fn copy(&self, x: &Rows) -> Rows {
        let mut y = Rows::scratch(x.rows(), x.width());
        let isa = isa();
        self.each_row(x, &mut y, |mask, x, y| copy_row(isa, mask, x, y));
        y
    }

    /// y += a times what [`Mask::apply`] makes of x, in one pass over memory.
    pub fn add(&self, a: f32, x: &Rows, y: &mut Rows) {
        let isa = isa();
        self.each_row(x, y, |mask, x, y| add_row(isa, mask, a, x, y));
    }

    fn each_row(&self, x: &Rows, y: &mut Rows, row: impl Fn(RowMask, &[f32], &mut [f32]) + Sync) {
        same_shape("x", x, "y", y);
        self.check(x.rows());
        let width = x.width();
        for_row_blocks(y, |first, rows| {
            for (i, y) in rows.chunks_exact_mut(width).enumerate() {
                row(self.of_row(first + i, 0), x.row(first + i), y);
            }
        });
    }
}

kernel!(fn copy_row(mask: RowMask, x: &[f32], y: &mut [f32]) = copy_body);

#[inline(always)]
fn copy_body<const FMA: bool>(mask: RowMask, x: &[f32], y: &mut [f32]) {
    for (c, (y, x)) in y.iter_mut().zip(x).enumerate() {
        *y = mask.apply(c, *x);
    }
}

kernel!(fn add_row(mask: RowMask, a: f32, x: &[f32], y: &mut [f32]) = add_body);

#[inline(always)]
fn add_body<const FMA: bool>(mask: RowMask, a: f32, x: &[f32], y: &mut [f32]) {
    for (c, (y, x)) in y.iter_mut().zip(x).enumerate() {
        *y = madd::<FMA>(a, mask.apply(c, *x), *y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    const KEY: DropKey = DropKey { seed: 11, epoch: 3 };

    fn keys(t: usize, layer: u64, site: u64) -> Vec<u64> {
        let samples: Vec<u64> = (0..t as u64).map(|i| i / 50).collect();
        let positions: Vec<u32> = (0..t as u32).map(|i| i % 50).collect();
        row_keys(KEY, &samples, &positions, layer, site)
    }

    #[test]
    fn apply_follows_keep() {
        for (t, d) in [(1, 1), (3, 37), (60, 301)] {
            let (p, keys, x) = (0.3f32, keys(t, 2, 7), noise_rows(t, d, 1));
            let mask = Mask { p, keys: keys.clone() };
            let run = || {
                let mut y = x.copy();
                mask.apply(&mut y);
                y.data().to_vec()
            };
            let expected: Vec<f32> = (0..t * d)
                .map(|i| {
                    if keep(p, keys[i / d], 0, (i % d) as u32) {
                        x.data()[i] * (1.0 / (1.0 - p))
                    } else {
                        0.0
                    }
                })
                .collect();
            everywhere(run, |isa, y| assert!(y == expected, "{isa} {t}x{d}"));
            everywhere(
                || mask.copy(&x).data().to_vec(),
                |isa, y| assert!(y == expected, "{isa} {t}x{d}, a copy"),
            );
            let start = noise_rows(t, d, 2);
            for a in [1.0f32, 0.65] {
                let sum = |(s, e): (&f32, &f32)| f64::from(*s) + f64::from(a) * f64::from(*e);
                let sums: Vec<f64> = start.data().iter().zip(&expected).map(sum).collect();
                let run = || {
                    let mut y = start.copy();
                    mask.add(a, &x, &mut y);
                    y.data().to_vec()
                };
                everywhere(run, |isa, y| assert_close(&format!("{isa} {t}x{d}, {a} added"), y, &sums, 1e-7));
            }
        }
    }

    #[test]
    fn a_row_keeps_its_mask_wherever_it_is_packed() {
        let first = row_keys(KEY, &[4, 4, 9], &[0, 1, 0], 1, 2);
        let alone = row_keys(KEY, &[9], &[0], 1, 2);
        assert_eq!(first[2], alone[0]);
        let mut changed = vec![first[2]];
        for (seed, epoch, sample, position, layer, site) in [
            (12, 3, 9, 0, 1, 2),
            (11, 4, 9, 0, 1, 2),
            (11, 3, 8, 0, 1, 2),
            (11, 3, 9, 1, 1, 2),
            (11, 3, 9, 0, 2, 2),
            (11, 3, 9, 0, 1, 3),
            (11, 3, 9, 0, 2, 1),
        ] {
            changed.push(row_keys(DropKey { seed, epoch }, &[sample], &[position], layer, site)[0]);
        }
        changed.sort_unstable();
        changed.dedup();
        assert_eq!(changed.len(), 8, "a part of the address does not reach the key");
    }

    /// -1 or 1 for dropped or kept.
    fn signs(p: f32, keys: &[u64], head: u32, d: usize) -> Vec<f64> {
        let sign = |(key, c): (u64, u32)| if keep(p, key, head, c) { 1.0 } else { -1.0 };
        let places = keys.iter().flat_map(|k| (0..d as u32).map(move |c| (*k, c)));
        places.map(sign).collect()
    }

    /// The correlation of two sequences of signs around their common mean.
    fn correlation(a: &[f64], b: &[f64]) -> f64 {
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let (ma, mb) = (mean(a), mean(b));
        let covariance: f64 = a.iter().zip(b).map(|(a, b)| (a - ma) * (b - mb)).sum();
        let spread = |v: &[f64], m: f64| v.iter().map(|x| (x - m) * (x - m)).sum::<f64>();
        covariance / (spread(a, ma) * spread(b, mb)).sqrt()
    }

    /// 500 rows of 256: a correlation of independent signs has a standard deviation of 1 / sqrt(n)
    /// = 0.0028, and a rate one of sqrt(p (1 - p) / n); five of them is the bound.
    #[test]
    fn masks_have_the_rate_and_no_correlation() {
        let (t, d) = (500, 256);
        let bound = 5.0 / ((t * d) as f64).sqrt();
        for p in [0.05f32, 0.1, 0.5, 0.9] {
            let base = signs(p, &keys(t, 2, 7), 0, d);
            let dropped = base.iter().filter(|s| **s < 0.0).count() as f64 / base.len() as f64;
            let p64 = f64::from(p);
            let rate_bound = bound * (p64 * (1.0 - p64)).sqrt();
            assert!((dropped - p64).abs() < rate_bound, "p {p}: {dropped}");
            for (name, other) in [
                ("layer", signs(p, &keys(t, 3, 7), 0, d)),
                ("site", signs(p, &keys(t, 2, 8), 0, d)),
                ("head", signs(p, &keys(t, 2, 7), 1, d)),
            ] {
                let c = correlation(&base, &other);
                assert!(c.abs() < bound, "p {p}, next {name}: {c}");
            }
            for (name, lag) in
                [("column", 1), ("second column", 2), ("16th column", 16), ("row", d), ("sample", 50 * d)]
            {
                let c = correlation(&base[lag..], &base[..base.len() - lag]);
                assert!(c.abs() < bound, "p {p}, next {name}: {c}");
            }
        }
    }

    /// No column and no row is kept more often than chance allows (chi-square over columns and over
    /// rows: its mean is the count of cells, its standard deviation sqrt(2 cells)).
    #[test]
    fn columns_and_rows_are_even() {
        let (t, d, p) = (500, 256, 0.25f32);
        let signs = signs(p, &keys(t, 1, 1), 3, d);
        let chi_square = |cells: usize, size: usize, cell_of: &dyn Fn(usize) -> usize| {
            let mut dropped = vec![0.0; cells];
            for (i, s) in signs.iter().enumerate() {
                dropped[cell_of(i)] += f64::from(*s < 0.0);
            }
            let (mean, p) = (size as f64 * f64::from(p), f64::from(p));
            dropped.iter().map(|n| (n - mean) * (n - mean) / (mean * (1.0 - p))).sum::<f64>()
        };
        for (cells, value) in [(d, chi_square(d, t, &|i| i % d)), (t, chi_square(t, d, &|i| i / d))] {
            let deviation = (value - cells as f64) / (2.0 * cells as f64).sqrt();
            assert!(deviation.abs() < 5.0, "{cells} cells: chi-square {value}");
        }
    }

    #[test]
    fn zero_keeps_all() {
        let x = noise_rows(2, 9, 3);
        let mut y = x.copy();
        Mask { p: 0.0, keys: keys(2, 0, 0) }.apply(&mut y);
        assert_eq!(x.data(), y.data());
    }
}
