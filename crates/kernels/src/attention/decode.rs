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
    /// out (rows, `c`) += p v: row r of p starts at `r * p_row` and has `count` values, row j of v at `j * v_row`.
    fn weigh(p: &[f32], p_row: usize, count: usize, v: &[f32], v_row: usize, out: &mut [f32], c: usize) = weigh_body
);

#[inline(always)]
fn weigh_body<const FMA: bool>(
    p: &[f32],
    p_row: usize,
    count: usize,
    v: &[f32],
    v_row: usize,
    out: &mut [f32],
    c: usize,
) {
    let mut first = 0;
    for out in out.chunks_mut(4 * c) {
        let p = &p[first * p_row..];
        match out.len() / c {
            1 => weigh_rows::<FMA, 1>((p, p_row), count, (v, v_row), out, c),
            2 => weigh_rows::<FMA, 2>((p, p_row), count, (v, v_row), out, c),
            3 => weigh_rows::<FMA, 3>((p, p_row), count, (v, v_row), out, c),
            _ => weigh_rows::<FMA, 4>((p, p_row), count, (v, v_row), out, c),
        }
        first += 4;
    }
}

/// The same for R rows: a row of v is read once for all of them.
#[inline(always)]
fn weigh_rows<const FMA: bool, const R: usize>(
    (p, p_row): (&[f32], usize),
    count: usize,
    (v, v_row): (&[f32], usize),
    out: &mut [f32],
    c: usize,
) {
    /// Values of each row that stay in registers over all of p.
    const WIDE: usize = 64;
    let whole = c / WIDE * WIDE;
    let p: [&[f32]; R] = std::array::from_fn(|r| &p[r * p_row..r * p_row + count]);
    for at in (0..whole).step_by(WIDE) {
        let mut sums: [[f32; WIDE]; R] =
            std::array::from_fn(|r| *out[r * c + at..].first_chunk().expect("a row has whole parts"));
        for j in 0..count {
            let v: &[f32; WIDE] = v[j * v_row + at..].first_chunk().expect("a row has whole parts");
            for (sums, p) in sums.iter_mut().zip(p) {
                for (sum, v) in sums.iter_mut().zip(v) {
                    *sum = madd::<FMA>(p[j], *v, *sum);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            out[r * c + at..r * c + at + WIDE].copy_from_slice(sums);
        }
    }
    for (p, out) in p.iter().zip(out.chunks_exact_mut(c)) {
        for (p, row) in p.iter().zip(v.chunks(v_row)) {
            for (sum, v) in out[whole..].iter_mut().zip(&row[whole..]) {
                *sum = madd::<FMA>(*p, *v, *sum);
            }
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
    let mut sums = Vec::with_capacity(group);
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
        // SAFETY: the caller's promise.
        let out = unsafe { o.values(s.q_start + i, q_column, group * c) };
        out.fill(0.0);
        for row in scores.chunks_exact_mut(seen) {
            let (_, sum) = exponentials(isa, row);
            sums.push(sum);
        }
        for (at, count, (_, v)) in blocks(s, width, seen) {
            weigh(isa, &scores[at..], seen, count, &v[kv_column..], width, out, c);
        }
        for (out, sum) in out.chunks_exact_mut(c).zip(sums.drain(..)) {
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
