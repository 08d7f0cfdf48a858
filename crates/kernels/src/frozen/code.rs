//! From floats to 8 or 4 bits: one scale for each block of columns of a row, codes around zero.

use super::Store;
use rayon::prelude::*;

/// How many bits a code has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// Two codes a byte, -8 to 7.
    Four,
    /// -127 to 127.
    Eight,
}

/// A coded weight, and what the coding moved.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// [`Store::I8`] or [`Store::I4`].
    pub store: Store,
    /// Sum of the squared differences.
    pub error: f64,
    /// Sum of the squared values.
    pub norm: f64,
}

/// Codes `values`, (out, inp) row-major and finite, with one scale for each `block` columns.
///
/// # Panics
/// When `block` does not divide `inp`, or `inp` is odd with four bits.
pub fn encode(values: &[f32], inp: usize, bits: Bits, block: usize) -> Encoded {
    assert!(block > 0 && inp.is_multiple_of(block), "blocks of {block} in rows of {inp}");
    assert!(bits == Bits::Eight || inp.is_multiple_of(2), "two codes a byte in rows of {inp}");
    let mut q = vec![0i8; values.len()];
    let mut scale = vec![0.0; values.len() / block];
    // Rows at a time, so that a sum is the same for any number of threads.
    let rows = q.par_chunks_mut(inp.max(1)).zip(scale.par_chunks_mut((inp / block).max(1)));
    let sums: Vec<(f64, f64)> = rows
        .zip(values.par_chunks(inp.max(1)))
        .map(|((q, scale), row)| {
            let mut sums = (0.0, 0.0);
            for ((q, scale), values) in q.chunks_mut(block).zip(scale).zip(row.chunks(block)) {
                *scale = match bits {
                    Bits::Eight => eight(values, q),
                    Bits::Four => four(values, q),
                };
                for (v, q) in values.iter().zip(q) {
                    sums.0 += f64::from(v - f32::from(*q) * *scale).powi(2);
                    sums.1 += f64::from(*v).powi(2);
                }
            }
            sums
        })
        .collect();
    let store = match bits {
        Bits::Eight => Store::I8 { q, scale, block },
        Bits::Four => {
            let q = q.as_chunks::<2>().0.iter().map(|[a, b]| (*a as u8 & 15) | (*b as u8) << 4).collect();
            Store::I4 { q, scale, block }
        }
    };
    Encoded { store, error: sums.iter().map(|s| s.0).sum(), norm: sums.iter().map(|s| s.1).sum() }
}

/// The value with the largest magnitude.
fn extreme(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |m: f32, v| if v.abs() > m.abs() { *v } else { m })
}

/// The nearest code, ties to even: adding 1.5 * 2^23 leaves no bit for a fraction.
#[inline(always)]
fn nearest(x: f32, least: f32, most: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    ((x + ROUND) - ROUND).clamp(least, most)
}

/// The largest magnitude becomes 127.
fn eight(values: &[f32], q: &mut [i8]) -> f32 {
    let scale = extreme(values).abs() / 127.0;
    if !scale.is_normal() {
        q.fill(0);
        return 1.0;
    }
    for (q, v) in q.iter_mut().zip(values) {
        *q = nearest(v / scale, -127.0, 127.0) as i8;
    }
    scale
}

/// Sixteen levels are so few that it pays to look for the scale: the largest magnitude as 7 or as -8, or somewhat
/// clipped, whichever leaves the least error, and then the scale that fits its codes best. A squared error counts in
/// proportion to the magnitude that it befalls; what that gave and cost on a real model stands in docs/quantised.md.
fn four(values: &[f32], q: &mut [i8]) -> f32 {
    /// Shares of the largest magnitude that are tried.
    const STEPS: u8 = 13;
    let most = extreme(values);
    if !(most / 8.0).is_normal() {
        q.fill(0);
        return 1.0;
    }
    let (mut best, mut found) = (f32::INFINITY, 1.0);
    for step in 0..STEPS {
        let share = 1.0 - 0.03 * f32::from(step);
        for scale in [share * most / 7.0, share * most / -8.0] {
            let inverse = 1.0 / scale;
            let moved = |v: &f32| v.abs() * (v - scale * nearest(v * inverse, -8.0, 7.0)).powi(2);
            let error: f32 = values.iter().map(moved).sum();
            if error < best {
                (best, found) = (error, scale);
            }
        }
    }
    let (mut along, mut square) = (0.0f32, 0.0f32);
    for (q, v) in q.iter_mut().zip(values) {
        let code = nearest(v * (1.0 / found), -8.0, 7.0);
        *q = code as i8;
        along += v.abs() * code * v;
        square += v.abs() * code * code;
    }
    if square > 0.0 && (along / square).is_normal() { along / square } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    fn decoded(store: &Store, out: usize, inp: usize) -> Vec<f32> {
        let mut wide = vec![0.0; out * inp];
        wide.chunks_mut(inp).enumerate().for_each(|(i, row)| store.row(i, row));
        wide
    }

    #[test]
    fn eight_bits_are_within_half_a_step() {
        let (out, inp, block) = (5, 21, 7);
        let values = noise(out * inp, 1);
        let coded = encode(&values, inp, Bits::Eight, block);
        let wide = decoded(&coded.store, out, inp);
        for (group, wide) in values.chunks(block).zip(wide.chunks(block)) {
            let most = group.iter().fold(0f32, |m, v| m.max(v.abs()));
            for (v, w) in group.iter().zip(wide) {
                assert!((v - w).abs() <= 0.5001 * most / 127.0, "{v} became {w}, largest {most}");
            }
        }
        let error: f64 = values.iter().zip(&wide).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        assert!((coded.error - error).abs() < 1e-6 * error && error > 0.0);
    }

    #[test]
    fn four_bits_beat_the_plain_scale_where_weights_are_large() {
        let (out, inp, block) = (9, 64, 16);
        let mut values = noise(out * inp, 2);
        values.iter_mut().for_each(|v| *v = v.powi(3));
        let coded = encode(&values, inp, Bits::Four, block);
        let wide = decoded(&coded.store, out, inp);
        let cost = |v: f32, w: f32| f64::from(v.abs()) * f64::from(v - w).powi(2);
        let plain = |group: &[f32]| -> f64 {
            let scale = group.iter().fold(0f32, |m, v| m.max(v.abs())) / 7.0;
            group.iter().map(|v| cost(*v, scale * (v / scale).round())).sum()
        };
        let naive: f64 = values.chunks(block).map(plain).sum();
        let found: f64 = values.iter().zip(&wide).map(|(v, w)| cost(*v, *w)).sum();
        assert!(found < 0.9 * naive && found > 0.1 * naive, "{found} against {naive}");
        let error: f64 = values.iter().zip(&wide).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        assert!((coded.error - error).abs() < 1e-6 * error);
    }

    #[test]
    fn zeros_stay_zeros() {
        for bits in [Bits::Four, Bits::Eight] {
            let mut values = vec![0.0; 12];
            values[11] = -0.7;
            let coded = encode(&values, 6, bits, 3);
            let wide = decoded(&coded.store, 2, 6);
            assert_eq!(wide[..11], values[..11], "{bits:?}");
            assert!((wide[11] + 0.7).abs() < 1e-6, "{bits:?}: {}", wide[11]);
        }
    }
}
