//! Scaled dot-product attention over packed sequences, tiled over blocks of queries: never an n x n matrix.
//!
//! Work is split over (sequence, key/value head). Within one, queries run block after block, so that the sums
//! into dk and dv have a fixed order.

use crate::Rows;
use crate::drop;
use crate::gemm::{Strided, product};
use crate::isa::{Isa, isa, kernel};
use crate::math::{dot, exp, max};
use crate::split::{length, same_shape};
use rayon::prelude::*;

/// Queries handled together: their scores against all keys they see stay in the second-level cache.
const QUERY_BLOCK: usize = 64;

/// What all sequences of a batch share.
#[derive(Clone, Copy, Debug)]
pub struct AttnShape {
    /// Query heads, H.
    pub heads: usize,
    /// Key/value heads, G; H is a multiple.
    pub kv_heads: usize,
    /// Head width, C.
    pub head_dim: usize,
    /// Whether a query sees only keys up to its own position.
    pub causal: bool,
    /// The factor on the scores, usually 1 / sqrt(C).
    pub scale: f32,
}

/// One sequence: `len` rows from row `start` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seq {
    /// The first row.
    pub start: usize,
    /// The number of rows.
    pub len: usize,
}

/// Dropout on the attention probabilities: kept ones are divided by 1 - p. The mask of (row, head, key position)
/// is [`drop::keep`] with the row's key, the query head and the key's position in its sequence as the column.
#[derive(Clone, Copy, Debug)]
pub struct AttnDrop<'a> {
    /// The probability of dropping.
    pub p: f32,
    /// One key per row (T), from [`drop::row_keys`].
    pub keys: &'a [u64],
}

/// A sequence whose keys and values were kept from earlier steps.
#[derive(Clone, Copy, Debug)]
pub struct CachedSeq<'a> {
    /// The first row of its queries.
    pub q_start: usize,
    /// The number of its queries: the last `q_len` of the `k_len` positions.
    pub q_len: usize,
    /// (k_len, G * C)
    pub k: &'a [f32],
    /// (k_len, G * C)
    pub v: &'a [f32],
    /// The number of positions.
    pub k_len: usize,
}

impl AttnShape {
    fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Query heads that share one key/value head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    #[track_caller]
    fn check(&self, q: &Rows) {
        assert!(
            self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads),
            "{} heads over {} key/value heads",
            self.heads,
            self.kv_heads
        );
        assert_eq!(q.width(), self.q_width(), "q is not heads * head_dim wide");
    }
}

/// A matrix that several tasks write, each its own rows and columns.
#[derive(Clone, Copy)]
struct Target {
    pointer: *mut f32,
    width: usize,
}

// SAFETY: the tasks that share a `Target` write disjoint elements (see where each is made).
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    fn new(values: &mut [f32], width: usize) -> Target {
        Target { pointer: values.as_mut_ptr(), width }
    }

    /// # Safety
    /// (row, column) lies inside, and no other task touches what is written through the answer.
    unsafe fn at(self, row: usize, column: usize) -> (*mut f32, usize) {
        // SAFETY: the caller's promise.
        let pointer = unsafe { self.pointer.add(row * self.width + column) };
        (pointer, self.width)
    }
}

/// A head's columns of a row-major matrix from `row` on.
fn head_of(x: &[f32], width: usize, row: usize, column: usize) -> Strided<*const f32> {
    Strided { pointer: x[row * width + column..].as_ptr(), row: width, column: 1 }
}

fn flip<P: Copy>(s: Strided<P>) -> Strided<P> {
    Strided { pointer: s.pointer, row: s.column, column: s.row }
}

fn tile(x: &[f32], width: usize) -> Strided<*const f32> {
    head_of(x, width, 0, 0)
}

kernel!(
    /// row = e^(row - top) over the visible part, then divided by the sum; returns log of the sum plus top.
    fn softmax_row(row: &mut [f32]) -> f32 = softmax_body
);

#[inline(always)]
fn softmax_body<const FMA: bool>(row: &mut [f32]) -> f32 {
    let top = max(row);
    for x in row.iter_mut() {
        *x = exp::<FMA>(*x - top);
    }
    let sum = crate::math::sum(row);
    let inverse = 1.0 / sum;
    for x in row.iter_mut() {
        *x *= inverse;
    }
    top + sum.ln()
}

kernel!(fn probabilities(lse: f32, row: &mut [f32]) = probabilities_body);

#[inline(always)]
fn probabilities_body<const FMA: bool>(lse: f32, row: &mut [f32]) {
    for x in row {
        *x = exp::<FMA>(*x - lse);
    }
}

kernel!(
    /// The gradient of the scores, into `dp`: scale p (dp - along).
    fn score_gradient(scale: f32, along: f32, p: &[f32], dp: &mut [f32]) = score_gradient_body
);

#[inline(always)]
fn score_gradient_body<const FMA: bool>(scale: f32, along: f32, p: &[f32], dp: &mut [f32]) {
    for (d, p) in dp.iter_mut().zip(p) {
        *d = scale * p * (*d - along);
    }
}

kernel!(fn inner_product(x: &[f32], y: &[f32]) -> f32 = dot);

/// Calls `task(first query, queries, keys)` for the query blocks of a sequence: `keys` is how many the last of
/// them sees, given that query i is position i + `offset`.
fn for_query_blocks(causal: bool, queries: usize, keys: usize, mut task: impl FnMut(usize, usize, usize)) {
    let offset = keys - queries;
    for first in (0..queries).step_by(QUERY_BLOCK) {
        let count = QUERY_BLOCK.min(queries - first);
        let seen = if causal { offset + first + count } else { keys };
        task(first, count, seen);
    }
}

/// How many keys query `i` sees.
fn visible(causal: bool, offset: usize, i: usize, keys: usize) -> usize {
    if causal { offset + i + 1 } else { keys }
}

/// One head of one sequence: where its operands stand.
#[derive(Clone, Copy)]
struct Head<'a> {
    isa: Isa,
    shape: &'a AttnShape,
    q: &'a Rows,
    q_start: usize,
    queries: usize,
    k: &'a [f32],
    v: &'a [f32],
    /// The first row of k and v.
    kv_start: usize,
    keys: usize,
    head: usize,
    drop: Option<&'a AttnDrop<'a>>,
}

impl Head<'_> {
    fn q_column(&self) -> usize {
        self.head * self.shape.head_dim
    }

    fn kv_column(&self) -> usize {
        self.head / self.shape.group() * self.shape.head_dim
    }

    /// scores (count, seen) = scale q k^T.
    fn scores(&self, first: usize, count: usize, seen: usize, scores: &mut [f32]) {
        let (c, kv_width) = (self.shape.head_dim, self.shape.kv_width());
        let q = head_of(self.q.data(), self.q.width(), self.q_start + first, self.q_column());
        let k = flip(head_of(self.k, kv_width, self.kv_start, self.kv_column()));
        // SAFETY: the head's columns and the sequence's rows were checked to lie inside q, k and the tile.
        unsafe {
            product(
                self.isa,
                (count, seen, c),
                self.shape.scale,
                q,
                k,
                0.0,
                (scores.as_mut_ptr(), seen),
                false,
            );
        }
    }

    /// Applies the dropout mask of query `i` to a row over its keys.
    fn mask(&self, i: usize, row: &mut [f32]) {
        if let Some(d) = self.drop {
            let key = drop::head_key(d.keys[self.q_start + i], self.head as u32);
            drop::mask_row(self.isa, drop::threshold(d.p), 1.0 / (1.0 - d.p), key, row);
        }
    }

    /// # Safety
    /// No other task touches this head's columns of these rows of `o`, nor these rows' `lse` of this head.
    unsafe fn forward(&self, o: Target, lse: Option<Target>) {
        let (c, causal) = (self.shape.head_dim, self.shape.causal);
        let offset = self.keys - self.queries;
        let mut scratch = Rows::scratch(QUERY_BLOCK.min(self.queries), self.keys);
        for_query_blocks(causal, self.queries, self.keys, |first, count, seen| {
            let scores = &mut scratch.data_mut()[..count * seen];
            self.scores(first, count, seen, scores);
            for (r, row) in scores.chunks_exact_mut(seen).enumerate() {
                let i = first + r;
                let (own, hidden) = row.split_at_mut(visible(causal, offset, i, self.keys));
                let log = softmax_row(self.isa, own);
                self.mask(i, own);
                hidden.fill(0.0);
                if let Some(lse) = lse {
                    // SAFETY: this (row, head) belongs to this call alone.
                    unsafe { *lse.at(self.q_start + i, self.head).0 = log };
                }
            }
            let v = head_of(self.v, self.shape.kv_width(), self.kv_start, self.kv_column());
            // SAFETY: as in `scores`; the written part of o belongs to this call alone.
            unsafe {
                let o = o.at(self.q_start + first, self.q_column());
                product(self.isa, (count, c, seen), 1.0, tile(scores, seen), v, 0.0, o, false);
            }
        });
    }
}

/// o = softmax(scale q k^T) v for every head of every sequence; lse (T, H) receives the logarithm of each row's
/// sum of exponentials, for [`backward`].
///
/// q, o (T, H * C); k, v (T, G * C). Rows that belong to no sequence are left as they are.
pub fn forward(
    shape: &AttnShape,
    seqs: &[Seq],
    q: &Rows,
    k: &Rows,
    v: &Rows,
    drop: Option<&AttnDrop>,
    o: &mut Rows,
    lse: &mut [f32],
) {
    shape.check(q);
    same_shape("q", q, "o", o);
    same_shape("k", k, "v", v);
    assert_eq!(k.width(), shape.kv_width(), "k is not kv_heads * head_dim wide");
    assert_eq!(q.rows(), k.rows(), "q and k differ in rows");
    length("lse", lse.len(), q.rows() * shape.heads);
    check_sequences(seqs, q.rows());
    check_drop(drop, q.rows());
    let isa = isa();
    let o = Target::new(o.data_mut(), q.width());
    let lse = Target::new(lse, shape.heads);
    let tasks: Vec<(Seq, usize)> = tasks(seqs, shape.heads);
    tasks.into_par_iter().for_each(|(seq, head)| {
        let head = Head {
            isa,
            shape,
            q,
            q_start: seq.start,
            queries: seq.len,
            k: k.data(),
            v: v.data(),
            kv_start: seq.start,
            keys: seq.len,
            head,
            drop,
        };
        // SAFETY: sequences do not overlap, so each (sequence, head) has rows and columns of its own.
        unsafe { head.forward(o, Some(lse)) };
    });
}

fn tasks(seqs: &[Seq], heads: usize) -> Vec<(Seq, usize)> {
    let alive = seqs.iter().filter(|s| s.len > 0);
    alive.flat_map(|s| (0..heads).map(move |h| (*s, h))).collect()
}

#[track_caller]
fn check_sequences(seqs: &[Seq], rows: usize) {
    let mut end = 0;
    for s in seqs {
        assert!(
            s.start >= end && s.start + s.len <= rows,
            "sequence {s:?} overlaps the one before it or leaves the {rows} rows"
        );
        end = s.start + s.len;
    }
}

#[track_caller]
fn check_drop(drop: Option<&AttnDrop>, rows: usize) {
    if let Some(d) = drop {
        length("keys", d.keys.len(), rows);
        drop::assert_probability(d.p);
    }
}

/// Attention of new queries over kept keys and values (no gradient: this is decoding). Query i of a sequence
/// stands at position k_len - q_len + i. q, o (T, H * C).
pub fn cached(shape: &AttnShape, seqs: &[CachedSeq], q: &Rows, o: &mut Rows) {
    shape.check(q);
    same_shape("q", q, "o", o);
    let mut end = 0;
    for s in seqs {
        length("k", s.k.len(), s.k_len * shape.kv_width());
        length("v", s.v.len(), s.k_len * shape.kv_width());
        assert!(s.q_len <= s.k_len, "{} queries but {} positions", s.q_len, s.k_len);
        assert!(
            s.q_start >= end && s.q_start + s.q_len <= q.rows(),
            "queries from row {} overlap those before or leave the {} rows",
            s.q_start,
            q.rows()
        );
        end = s.q_start + s.q_len;
    }
    let isa = isa();
    let o = Target::new(o.data_mut(), q.width());
    let tasks: Vec<(&CachedSeq, usize)> =
        seqs.iter().filter(|s| s.q_len > 0).flat_map(|s| (0..shape.heads).map(move |h| (s, h))).collect();
    tasks.into_par_iter().for_each(|(s, head)| {
        let head = Head {
            isa,
            shape,
            q,
            q_start: s.q_start,
            queries: s.q_len,
            k: s.k,
            v: s.v,
            kv_start: 0,
            keys: s.k_len,
            head,
            drop: None,
        };
        // SAFETY: the sequences' query rows do not overlap (checked above).
        unsafe { head.forward(o, None) };
    });
}

/// The gradients of [`forward`], overwritten for the rows of all sequences: do_, dq (T, H * C); dk, dv (T, G * C).
/// q, k, v, o, lse, drop as they were there.
pub fn backward(
    shape: &AttnShape,
    seqs: &[Seq],
    q: &Rows,
    k: &Rows,
    v: &Rows,
    o: &Rows,
    lse: &[f32],
    do_: &Rows,
    drop: Option<&AttnDrop>,
    dq: &mut Rows,
    dk: &mut Rows,
    dv: &mut Rows,
) {
    shape.check(q);
    for (name, x) in [("o", o), ("do_", do_), ("dq", &*dq)] {
        same_shape("q", q, name, x);
    }
    for (name, x) in [("v", v), ("dk", &*dk), ("dv", &*dv)] {
        same_shape("k", k, name, x);
    }
    assert_eq!(k.width(), shape.kv_width(), "k is not kv_heads * head_dim wide");
    assert_eq!(q.rows(), k.rows(), "q and k differ in rows");
    length("lse", lse.len(), q.rows() * shape.heads);
    check_sequences(seqs, q.rows());
    check_drop(drop, q.rows());
    let isa = isa();
    let gradients = Gradients {
        o,
        lse,
        do_,
        dq: Target::new(dq.data_mut(), q.width()),
        dk: Target::new(dk.data_mut(), k.width()),
        dv: Target::new(dv.data_mut(), k.width()),
    };
    let tasks: Vec<(Seq, usize)> = tasks(seqs, shape.kv_heads);
    tasks.into_par_iter().for_each(|(seq, kv_head)| {
        for member in 0..shape.group() {
            let head = Head {
                isa,
                shape,
                q,
                q_start: seq.start,
                queries: seq.len,
                k: k.data(),
                v: v.data(),
                kv_start: seq.start,
                keys: seq.len,
                head: kv_head * shape.group() + member,
                drop,
            };
            // SAFETY: each (sequence, key/value head) has rows and columns of its own in dq, dk and dv, and the
            // query heads that share it run here one after the other.
            unsafe { head.backward(&gradients, member == 0) };
        }
    });
}

#[derive(Clone, Copy)]
struct Gradients<'a> {
    o: &'a Rows,
    lse: &'a [f32],
    do_: &'a Rows,
    dq: Target,
    dk: Target,
    dv: Target,
}

impl Head<'_> {
    /// dq of this head; dk and dv start from nothing when `first_of_group`, else add.
    ///
    /// # Safety
    /// No other task touches this head's columns of dq, nor its key/value head's of dk and dv, in these rows.
    unsafe fn backward(&self, g: &Gradients, first_of_group: bool) {
        let (c, causal, keys) = (self.shape.head_dim, self.shape.causal, self.keys);
        let (q_width, kv_width) = (self.shape.q_width(), self.shape.kv_width());
        let (column, kv_column) = (self.q_column(), self.kv_column());
        let tile_rows = QUERY_BLOCK.min(self.queries);
        let mut p_tile = Rows::scratch(tile_rows, keys);
        let mut d_tile = Rows::scratch(tile_rows, keys);
        if first_of_group {
            for t in self.kv_start..self.kv_start + keys {
                for x in [g.dk, g.dv] {
                    // SAFETY: these columns of these rows are this task's.
                    unsafe { std::slice::from_raw_parts_mut(x.at(t, kv_column).0, c) }.fill(0.0);
                }
            }
        }
        for_query_blocks(causal, self.queries, keys, |first, count, seen| {
            let row = self.q_start + first;
            let p = &mut p_tile.data_mut()[..count * seen];
            let d = &mut d_tile.data_mut()[..count * seen];
            let k = head_of(self.k, kv_width, self.kv_start, kv_column);
            let v = head_of(self.v, kv_width, self.kv_start, kv_column);
            let q = head_of(self.q.data(), q_width, row, column);
            let do_ = head_of(g.do_.data(), q_width, row, column);
            self.scores(first, count, seen, p);
            // SAFETY: all operands lie inside what was checked; the results belong to this task alone.
            unsafe {
                product(self.isa, (count, seen, c), 1.0, do_, flip(v), 0.0, (d.as_mut_ptr(), seen), false);
            }
            for r in 0..count {
                let i = first + r;
                let own = visible(causal, 0, i, keys);
                let (p, p_hidden) = p[r * seen..(r + 1) * seen].split_at_mut(own);
                let (d, d_hidden) = d[r * seen..(r + 1) * seen].split_at_mut(own);
                self.score_row(g, i, p, d);
                p_hidden.fill(0.0);
                d_hidden.fill(0.0);
            }
            // SAFETY: as above.
            unsafe {
                let dk = g.dk.at(self.kv_start, kv_column);
                let dv = g.dv.at(self.kv_start, kv_column);
                product(self.isa, (count, c, seen), 1.0, tile(d, seen), k, 0.0, g.dq.at(row, column), false);
                product(self.isa, (seen, c, count), 1.0, flip(tile(d, seen)), q, 1.0, dk, false);
                product(self.isa, (seen, c, count), 1.0, flip(tile(p, seen)), do_, 1.0, dv, false);
            }
        });
    }

    /// Turns the scores `p` and the gradient `d` of the (dropped) probabilities of query `i` into the dropped
    /// probabilities and the gradient of the raw scores q k^T.
    fn score_row(&self, g: &Gradients, i: usize, p: &mut [f32], d: &mut [f32]) {
        let t = self.q_start + i;
        let part = self.q_column()..self.q_column() + self.shape.head_dim;
        probabilities(self.isa, g.lse[t * self.shape.heads + self.head], p);
        // sum_j p_j dp_j equals o . do, with dropout too: o was made from the dropped probabilities.
        let along = inner_product(self.isa, &g.o.row(t)[part.clone()], &g.do_.row(t)[part]);
        self.mask(i, d);
        score_gradient(self.isa, self.shape.scale, along, p, d);
        self.mask(i, p);
    }
}

#[cfg(test)]
mod tests;
