//! Dropout whose masks are addressed, not drawn: whether an element is kept is a hash of where it stands (seed,
//! epoch, sample, layer, site, token, head, column). So micro-batching, packing, threads and resuming change
//! nothing, and the backward needs no stored mask.

use crate::Rows;
use crate::isa::{isa, kernel};
use crate::split::{for_row_blocks, length};

/// What distinguishes the masks of one pass over the data from those of all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropKey {
    /// The seed of the run.
    pub seed: u64,
    /// The epoch: the same sample gets other masks the next time.
    pub epoch: u64,
}

/// A bijection of 64 bits in which every input bit reaches every output bit (two rounds of xor-shift-multiply
/// with odd constants taken from the fractions of square roots).
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

/// One key per row, (T): from the sample that the row belongs to, its token index there, the layer and the site.
pub fn row_keys(key: DropKey, samples: &[u64], positions: &[u32], layer: u64, site: u64) -> Vec<u64> {
    length("positions", positions.len(), samples.len());
    let place = [key.seed, key.epoch, layer, site].into_iter().fold(0, absorb);
    samples.iter().zip(positions).map(|(s, p)| absorb(absorb(place, *s), u64::from(*p))).collect()
}

/// The two 32-bit halves from which the elements of one row and head are decided.
#[inline(always)]
pub(crate) fn head_key(key: u64, head: u32) -> (u32, u32) {
    let mixed = mix64(key ^ (u64::from(head) << 32 | 0x1f83_d9ab));
    (mixed as u32, (mixed >> 32) as u32)
}

/// A number below 2^32 for a column of one row and head; two multiplications, because it runs per element.
#[inline(always)]
fn column_hash((low, high): (u32, u32), column: u32) -> u32 {
    let mut h = (column.wrapping_mul(0x9e37_79b1) ^ low).wrapping_add(high.rotate_left(11));
    h = (h ^ (h >> 15)).wrapping_mul(0x85eb_ca6b) ^ high;
    h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

/// Elements whose hash is below this are dropped.
#[inline(always)]
pub(crate) fn threshold(p: f32) -> u32 {
    (f64::from(p) * 4_294_967_296.0) as u32
}

/// Whether the element at `column` of the row with this key (in `head`; 0 outside attention) is kept under
/// dropout probability p. The definition that all fast paths follow.
pub fn keep(p: f32, key: u64, head: u32, column: u32) -> bool {
    column_hash(head_key(key, head), column) >= threshold(p)
}

#[track_caller]
pub(crate) fn assert_probability(p: f32) {
    assert!((0.0..1.0).contains(&p), "dropout probability {p} is not in [0, 1)");
}

kernel!(
    /// x[c] = x[c] * scale where kept, else 0, for the columns from 0 on.
    pub(crate) fn mask_row(limit: u32, scale: f32, key: (u32, u32), x: &mut [f32]) = mask_body
);

#[inline(always)]
fn mask_body<const FMA: bool>(limit: u32, scale: f32, key: (u32, u32), x: &mut [f32]) {
    for (c, x) in x.iter_mut().enumerate() {
        let kept = column_hash(key, c as u32) >= limit;
        *x = if kept { *x * scale } else { 0.0 };
    }
}

/// x[t, c] = x[t, c] / (1 - p) where kept, else 0; x (T, D), keys (T) from [`row_keys`].
/// Linear and diagonal: the backward is the same call on the gradient.
pub fn apply(p: f32, keys: &[u64], x: &mut Rows) {
    length("keys", keys.len(), x.rows());
    assert_probability(p);
    if p == 0.0 {
        return;
    }
    let (isa, width) = (isa(), x.width());
    for_row_blocks(x, |first, rows| {
        for (i, row) in rows.chunks_exact_mut(width).enumerate() {
            let key = head_key(keys[first + i], 0);
            mask_row(isa, threshold(p), 1.0 / (1.0 - p), key, row);
        }
    });
}
