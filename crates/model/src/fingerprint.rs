//! A few numbers by which an adapter recognises its base. They survive 16-bit and 8-bit storage, and
//! differ by about one between two unrelated models.
//!
//! They are taken of the values that the file stores, not of those the products see: these are rounded where a machine
//! multiplies in 16 bits, and a checkpoint that was carried to another machine would not know its base again.

use sibo_kernels::frozen::Store;

/// How many numbers.
const LENGTH: usize = 8;
/// Rows of the embedding that are looked at.
const ROWS: usize = 64;
/// Rounding to 8 bits moves a number by about 0.01; two models differ by about 1.
const TOLERANCE: f32 = 0.2;

/// Signed sums over rows of the word embedding (rows, width), each divided by the norm of what it sums.
pub(crate) fn of(words: &Store, rows: usize, width: usize) -> Vec<f32> {
    let mut row = vec![0.0; width];
    let mut sums = [0.0f64; LENGTH];
    let mut squares = 0.0f64;
    for i in 0..ROWS.min(rows) {
        let at = i * rows / ROWS.min(rows);
        words.row(at, &mut row);
        for (c, value) in row.iter().enumerate() {
            // A splitmix step gives eight signs from one address.
            let mut z = ((at * width + c) as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            for (k, sum) in sums.iter_mut().enumerate() {
                *sum += f64::from(*value) * if (z >> (40 + k)) & 1 == 0 { 1.0 } else { -1.0 };
            }
            squares += f64::from(*value).powi(2);
        }
    }
    sums.iter().map(|s| (s / squares.sqrt().max(f64::MIN_POSITIVE)) as f32).collect()
}

/// The fingerprint of the first `layers` layers of a base: its own, and how many they are.
pub(crate) fn cut(mut whole: Vec<f32>, layers: usize) -> Vec<f32> {
    whole.push(layers as f32);
    whole
}

/// The layers of a base that was cut, by its fingerprint.
pub(crate) fn layers(fingerprint: &[f32]) -> Option<usize> {
    fingerprint.get(LENGTH).map(|layers| *layers as usize)
}

/// Whether two fingerprints are of the same base.
pub(crate) fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| (x - y).abs() <= TOLERANCE)
}
