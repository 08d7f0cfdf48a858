//! Attention of a few new queries over kept keys and values: nothing is packed, because every key is read once for
//! each query. The query heads that share a key/value head run together, so that it is read once for all of them.

use super::head::{Shared, exponentials, multiply};
use super::{AttnShape, CachedSeq};
use crate::gemm::{FewRows, Strided};
use crate::isa::{Isa, kernel};
use crate::math::madd;
use crate::{Rows, work};

/// Up to this many new queries of a sequence run here; more of them pay for packing.
pub(super) const FEW_QUERIES: usize = 16;

kernel!(
    /// out (C) += sum over j of `p[j]` times the C values of v at j * `stride`.
    fn weigh(p: &[f32], v: &[f32], stride: usize, out: &mut [f32]) = weigh_body
);

#[inline(always)]
fn weigh_body<const FMA: bool>(p: &[f32], v: &[f32], stride: usize, out: &mut [f32]) {
    /// Values that stay in registers over all of p.
    const WIDE: usize = 64;
    let (wide, rest) = out.as_chunks_mut::<WIDE>();
    let done = wide.len() * WIDE;
    for (part, out) in wide.iter_mut().enumerate() {
        let mut sums = *out;
        for (p, row) in p.iter().zip(v.chunks(stride)) {
            for (sum, v) in sums.iter_mut().zip(&row[part * WIDE..(part + 1) * WIDE]) {
                *sum = madd::<FMA>(*p, *v, *sum);
            }
        }
        *out = sums;
    }
    for (p, row) in p.iter().zip(v.chunks(stride)) {
        for (sum, v) in rest.iter_mut().zip(&row[done..]) {
            *sum = madd::<FMA>(*p, *v, *sum);
        }
    }
}

/// The heads of `s` that share key/value head `kv_head`.
///
/// # Safety
/// The sequence was checked against q and o, and no other task touches these heads' columns of its rows of o.
pub(super) unsafe fn group(isa: Isa, shape: &AttnShape, s: &CachedSeq, kv_head: usize, q: &Rows, o: Shared) {
    let (group, c, width) = (shape.group(), shape.head_dim, shape.kv_width());
    let mut tile = Rows::scratch(group, s.k_len);
    let (q_column, kv_column) = (kv_head * group * c, kv_head * c);
    for i in 0..s.q_len {
        let seen = if shape.causal { s.k_len - s.q_len + i + 1 } else { s.k_len };
        let x = Strided::rows(&q.row(s.q_start + i)[q_column..], c);
        let scores = &mut tile.data_mut()[..group * seen];
        for (at, count, (k, _)) in blocks(s, width, seen) {
            let few = FewRows {
                rows: group,
                columns: count,
                depth: c,
                alpha: shape.scale,
                x,
                w: Strided::rows(&k[kv_column..], width),
                beta: 0.0,
                y: scores[at..].as_mut_ptr(),
                y_row: seen,
            };
            // SAFETY: the block holds `count` rows of keys, and the tile `group` rows of `seen` scores, of which
            // these are columns `at..at + count`.
            unsafe { few.run(isa) };
        }
        for (r, row) in scores.chunks_exact_mut(seen).enumerate() {
            let (_, sum) = exponentials(isa, row);
            // SAFETY: the caller's promise.
            let out = unsafe { o.values(s.q_start + i, q_column + r * c, c) };
            out.fill(0.0);
            for (at, count, (_, v)) in blocks(s, width, seen) {
                weigh(isa, &row[at..at + count], &v[kv_column..], width, out);
            }
            multiply(isa, 1.0 / sum, out);
        }
        work::add_f32(group * seen * c);
    }
}

/// First position, number of positions and contents of each block that a query sees.
fn blocks<'a>(
    s: &'a CachedSeq,
    width: usize,
    seen: usize,
) -> impl Iterator<Item = (usize, usize, (&'a [f32], &'a [f32]))> {
    let mut at = 0;
    s.blocks.iter().filter_map(move |(k, v)| {
        let (first, count) = (at, (k.len() / width).min(seen - at));
        at += count;
        (count > 0).then_some((first, count, (*k, *v)))
    })
}
