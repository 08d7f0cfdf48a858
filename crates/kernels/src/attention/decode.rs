//! Attention of a few new queries over kept keys and values: nothing is packed. The query heads that share a key/value
//! head run together, those of all new queries of a sequence, so that a key and a value are read once for all of them.

use super::head::{Shared, exponentials};
use super::kept::{BLOCK, HeadPart, Number, Numbers};
use super::{AttnShape, CachedSeq};
use crate::fetch::fetch;
use crate::isa::{Isa, kernel};
use crate::math::madd;
use crate::{Rows, work};

/// Up to this many new queries of a sequence run here; more of them pay for packing.
pub(super) const FEW_QUERIES: usize = 16;

/// Rows that are added up together: a row of what they weigh is read once for all of them.
const TOGETHER: usize = 4;
/// Columns of each of them whose sums stay in registers meanwhile, and how many where fewer are left.
const WIDE: usize = 64;
const LANES: usize = 16;

/// Rows that are weighed, and what will be read after them in the same order: it is fetched meanwhile.
#[derive(Clone, Copy)]
struct Reads<'a, N> {
    now: &'a [N],
    next: &'a [N],
}

/// How many rows are weighed, how many columns of each, and how far apart the rows lie.
#[derive(Clone, Copy)]
struct Size {
    count: usize,
    width: usize,
    row: usize,
}

kernel!(
    /// y += p x, for as many rows as y has: one begins every `y.1` values, and one of p every `p.1`.
    fn weigh_f32(p: (&[f32], usize), x: Reads<f32>, size: Size, y: (&mut [f32], usize)) = weigh
);

kernel!(
    /// The same, x in bf16.
    fn weigh_bf16(p: (&[f32], usize), x: Reads<u16>, size: Size, y: (&mut [f32], usize)) = weigh
);

#[inline(always)]
fn weigh<const FMA: bool>(
    (p, p_row): (&[f32], usize),
    x: Reads<impl Number>,
    size: Size,
    (y, y_row): (&mut [f32], usize),
) {
    for (p, y) in p.chunks(TOGETHER * p_row).zip(y.chunks_mut(TOGETHER * y_row)) {
        match y.len().div_ceil(y_row) {
            1 => weigh_rows::<FMA, 1>((p, p_row), x, size, (y, y_row)),
            2 => weigh_rows::<FMA, 2>((p, p_row), x, size, (y, y_row)),
            3 => weigh_rows::<FMA, 3>((p, p_row), x, size, (y, y_row)),
            _ => weigh_rows::<FMA, TOGETHER>((p, p_row), x, size, (y, y_row)),
        }
    }
}

/// The same for R rows: as many columns at a time as fit into registers.
#[inline(always)]
fn weigh_rows<const FMA: bool, const R: usize>(
    (p, p_row): (&[f32], usize),
    x: Reads<impl Number>,
    size: Size,
    (y, y_row): (&mut [f32], usize),
) {
    let p: [&[f32]; R] = std::array::from_fn(|r| &p[r * p_row..r * p_row + size.count]);
    let mut at = 0;
    while at + WIDE <= size.width {
        weigh_columns::<FMA, R, WIDE>(p, x, size.row, (&mut *y, y_row), at);
        at += WIDE;
    }
    while at + LANES <= size.width {
        weigh_columns::<FMA, R, LANES>(p, x, size.row, (&mut *y, y_row), at);
        at += LANES;
    }
    while at < size.width {
        weigh_columns::<FMA, R, 1>(p, x, size.row, (&mut *y, y_row), at);
        at += 1;
    }
}

/// Columns `at..at + W`, whose sums stay in registers.
#[inline(always)]
fn weigh_columns<const FMA: bool, const R: usize, const W: usize>(
    p: [&[f32]; R],
    Reads { now, next }: Reads<impl Number>,
    row: usize,
    (y, y_row): (&mut [f32], usize),
    at: usize,
) {
    let mut sums: [[f32; W]; R] =
        std::array::from_fn(|r| *y[r * y_row + at..].first_chunk().expect("the columns lie inside the row"));
    for j in 0..p[0].len() {
        let x: &[_; W] = now[j * row + at..].first_chunk().expect("the columns lie inside the row");
        fetch::<_, W>(next, j * row + at);
        for (sums, p) in sums.iter_mut().zip(p) {
            for (sum, x) in sums.iter_mut().zip(x) {
                *sum = madd::<FMA>(p[j], x.to_f32(), *sum);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        y[r * y_row + at..][..W].copy_from_slice(sums);
    }
}

/// The heads of `s` that share key/value head `kv_head`.
///
/// # Safety
/// The sequence was checked against q and o, and no other task touches these heads' columns of its rows of o.
pub(super) unsafe fn group(isa: Isa, shape: &AttnShape, s: &CachedSeq, kv_head: usize, q: &Rows, o: Shared) {
    let parts: Vec<HeadPart> = s.blocks.iter().map(|block| block.head(kv_head)).collect();
    let (group, c) = (shape.group(), shape.head_dim);
    let (rows, column) = (s.q_len * group, kv_head * group * c);
    // The queries (rows, C), those of one position one after another; their sums later.
    let mut few = Rows::scratch(rows, c);
    for (i, to) in few.data_mut().chunks_exact_mut(group * c).enumerate() {
        for (to, x) in to.iter_mut().zip(&q.row(s.q_start + i)[column..]) {
            *to = shape.scale * x;
        }
    }
    let (weights, sums) = weights(isa, shape, s, &parts, &few);
    few.data_mut().fill(0.0);
    for (b, part) in parts.iter().enumerate() {
        let next = parts.get(b + 1).unwrap_or(part).values;
        let p = (&weights.data()[b * BLOCK..], weights.width());
        let size = Size { count: s.blocks[b].len(), width: c, row: c };
        part.values.weigh(next, isa, p, size, (few.data_mut(), c));
    }
    for (i, (from, sums)) in few.data().chunks_exact(group * c).zip(sums.chunks_exact(group)).enumerate() {
        // SAFETY: the caller's promise.
        let out = unsafe { o.values(s.q_start + i, column, group * c) };
        for ((out, from), sum) in out.chunks_exact_mut(c).zip(from.chunks_exact(c)).zip(sums) {
            for (out, x) in out.iter_mut().zip(from) {
                *out = x * (1.0 / sum);
            }
        }
    }
    work::add_f32(rows * s.k_len * c);
}

/// e^score of each of these queries (rows, C) for every position, zero for what it does not see, and each row's sum.
/// What stands beyond the last position means nothing.
fn weights(isa: Isa, shape: &AttnShape, s: &CachedSeq, parts: &[HeadPart], q: &Rows) -> (Rows, Vec<f32>) {
    let (group, c, row) = (shape.group(), shape.head_dim, parts.len() * BLOCK);
    let mut scores = Rows::scratch(q.rows(), row);
    scores.data_mut().fill(0.0);
    for (b, part) in parts.iter().enumerate() {
        // After the last keys come the first values.
        let next = parts.get(b + 1).map_or(parts[0].values, |next| next.keys);
        let y = (&mut scores.data_mut()[b * BLOCK..], row);
        let size = Size { count: c, width: s.blocks[b].len().next_multiple_of(LANES), row: BLOCK };
        part.keys.weigh(next, isa, (q.data(), c), size, y);
        work::add_f32(q.rows() * size.width * c);
    }
    let rows = scores.data_mut().chunks_exact_mut(row).enumerate();
    let sums = rows.map(|(r, scores)| {
        let seen = if shape.causal { s.k_len - s.q_len + r / group + 1 } else { s.k_len };
        let (own, hidden) = scores[..s.k_len].split_at_mut(seen);
        hidden.fill(0.0);
        exponentials(isa, own).1
    });
    let sums = sums.collect();
    (scores, sums)
}

impl Numbers<'_> {
    /// y += p x of these numbers' rows x, while `next` is fetched, which is read after them in the same order.
    fn weigh(self, next: Self, isa: Isa, p: (&[f32], usize), size: Size, y: (&mut [f32], usize)) {
        match (self, next) {
            (Numbers::F32(now), Numbers::F32(next)) => weigh_f32(isa, p, Reads { now, next }, size, y),
            (Numbers::Bf16(now), Numbers::Bf16(next)) => weigh_bf16(isa, p, Reads { now, next }, size, y),
            _ => unreachable!("the blocks of a sequence are of one kind"),
        }
    }
}
