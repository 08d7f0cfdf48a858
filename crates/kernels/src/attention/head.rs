//! One head of one sequence: the tiles of its scores, forward and backward.

use super::AttnShape;
use crate::Rows;
use crate::drop::{self, Mask};
use crate::gemm::{Strided, Target, product};
use crate::isa::{Isa, kernel};
use crate::math::{dot, exp_below, max, sum};

/// Queries handled together: their scores against all keys they see stay in the second-level cache.
pub(super) const QUERY_BLOCK: usize = 64;

/// A matrix that several tasks write, each its own rows and columns.
#[derive(Clone, Copy)]
pub(super) struct Shared {
    pointer: *mut f32,
    width: usize,
}

// SAFETY: the tasks that share it write disjoint elements (see where each is made).
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn new(values: &mut [f32], width: usize) -> Shared {
        Shared { pointer: values.as_mut_ptr(), width }
    }

    fn at(self, row: usize, column: usize) -> *mut f32 {
        self.pointer.wrapping_add(row * self.width + column)
    }

    /// The target of a product at (row, column): c = beta c + a b.
    fn target(self, row: usize, column: usize, beta: f32) -> Target {
        Target { alpha: 1.0, beta, c: self.at(row, column), row: self.width }
    }

    /// # Safety
    /// The values lie inside, and nothing else reads or writes them meanwhile.
    pub(super) unsafe fn values<'a>(self, row: usize, column: usize, count: usize) -> &'a mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.at(row, column), count) }
    }
}

/// The columns of a head from `row` on.
fn head_of(x: &[f32], width: usize, row: usize, column: usize) -> Strided {
    Strided::rows(&x[row * width + column..], width)
}

/// A product into a tile of its own, overwriting it.
fn into_tile(alpha: f32, tile: &mut [f32], width: usize) -> Target {
    Target { alpha, beta: 0.0, c: tile.as_mut_ptr(), row: width }
}

kernel!(
    /// row = e^(row - top); returns the top and the sum.
    pub(super) fn exponentials(row: &mut [f32]) -> (f32, f32) = exponentials_body
);

#[inline(always)]
fn exponentials_body<const FMA: bool>(row: &mut [f32]) -> (f32, f32) {
    let top = max(row);
    for x in row.iter_mut() {
        *x = exp_below::<FMA>(*x - top);
    }
    (top, sum(row))
}

kernel!(pub(super) fn multiply(a: f32, row: &mut [f32]) = multiply_body);

#[inline(always)]
fn multiply_body<const FMA: bool>(a: f32, row: &mut [f32]) {
    for x in row {
        *x *= a;
    }
}

kernel!(
    /// p = e^(p - lse) and d = scale p (d - sum p d): probabilities and the gradient of the scores, where no dropout
    /// stands between them; `along` is o . do, which is that mean but for its rounding.
    ///
    /// For o and do were added up in another order than each d, and where a query sees one key, or one alone counts, what
    /// that leaves is all there is: a gradient that ought to be zero would be noise, and AdamW makes steps of noise that are
    /// as long as any. So the mean of what is left is taken off too.
    fn score_gradient(lse: f32, scale: f32, along: f32, p: &mut [f32], d: &mut [f32]) = score_gradient_body
);

#[inline(always)]
fn score_gradient_body<const FMA: bool>(lse: f32, scale: f32, along: f32, p: &mut [f32], d: &mut [f32]) {
    for (d, p) in d.iter_mut().zip(p.iter_mut()) {
        *p = exp_below::<FMA>(*p - lse);
        *d -= along;
    }
    let rest = dot::<FMA>(p, d);
    for (d, p) in d.iter_mut().zip(&*p) {
        *d = scale * *p * (*d - rest);
    }
}

kernel!(fn inner_product(x: &[f32], y: &[f32]) -> f32 = dot);

/// One head of one sequence: where its operands stand.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) isa: Isa,
    pub(super) shape: &'a AttnShape,
    pub(super) q: &'a Rows,
    /// The first row of the queries, and how many they are.
    pub(super) q_start: usize,
    pub(super) queries: usize,
    pub(super) k: &'a [f32],
    pub(super) v: &'a [f32],
    /// The first row of k and v, and how many they are; the queries are the last of these
    /// positions.
    pub(super) kv_start: usize,
    pub(super) keys: usize,
    pub(super) head: usize,
    pub(super) drop: Option<&'a Mask>,
}

/// What the backward reads and writes besides.
#[derive(Clone, Copy)]
pub(super) struct Gradients<'a> {
    pub(super) o: &'a Rows,
    pub(super) lse: &'a [f32],
    pub(super) do_: &'a Rows,
    pub(super) dq: Shared,
    pub(super) dk: Shared,
    pub(super) dv: Shared,
}

/// A block of queries of one head.
#[derive(Clone, Copy)]
struct Block {
    first: usize,
    count: usize,
    /// How many keys the last of them sees.
    seen: usize,
}

impl<'a> Head<'a> {
    fn q_column(&self) -> usize {
        self.head * self.shape.head_dim
    }

    fn kv_column(&self) -> usize {
        self.head / self.shape.group() * self.shape.head_dim
    }

    fn blocks(&self) -> impl Iterator<Item = Block> + use<'a> {
        let head = *self;
        (0..head.queries).step_by(QUERY_BLOCK).map(move |first| {
            let count = QUERY_BLOCK.min(head.queries - first);
            let seen = head.visible(first + count - 1);
            Block { first, count, seen }
        })
    }

    /// How many keys query `i` sees.
    fn visible(&self, i: usize) -> usize {
        if self.shape.causal { self.keys - self.queries + i + 1 } else { self.keys }
    }

    /// A tile of scores for the largest block.
    fn tile(&self) -> Rows {
        Rows::scratch(QUERY_BLOCK.min(self.queries), self.keys)
    }

    fn query_rows(&self, x: &Rows, b: Block) -> Strided {
        head_of(x.data(), x.width(), self.q_start + b.first, self.q_column())
    }

    fn key_rows(&self, x: &[f32]) -> Strided {
        head_of(x, self.shape.kv_width(), self.kv_start, self.kv_column())
    }

    /// scores (count, seen) = scale q k^T.
    fn scores(&self, b: Block, scores: &mut [f32]) {
        let (q, k) = (self.query_rows(self.q, b), self.key_rows(self.k).flip());
        let shape = (b.count, b.seen, self.shape.head_dim);
        let target = into_tile(self.shape.scale, scores, b.seen);
        // SAFETY: the head's columns and the sequence's rows were checked to lie inside q and k;
        // the tile has count * seen values.
        unsafe { product(self.isa, shape, q, k, target, false) }
    }

    /// Applies the dropout mask of query `i` to a row over its keys.
    fn mask(&self, i: usize, row: &mut [f32]) {
        if let Some(d) = self.drop {
            drop::mask_row(self.isa, d.of_row(self.q_start + i, self.head), row);
        }
    }

    /// # Safety
    /// No other task touches this head's columns of these rows of `o`, nor these rows' `lse` of
    /// this head.
    pub(super) unsafe fn forward(&self, o: Shared, lse: Option<Shared>) {
        let c = self.shape.head_dim;
        let mut tile = self.tile();
        for b in self.blocks() {
            let scores = &mut tile.data_mut()[..b.count * b.seen];
            self.scores(b, scores);
            let mut sums = [0.0f32; QUERY_BLOCK];
            for (r, row) in scores.chunks_exact_mut(b.seen).enumerate() {
                let i = b.first + r;
                let (own, hidden) = row.split_at_mut(self.visible(i));
                let (top, sum) = exponentials(self.isa, own);
                self.mask(i, own);
                hidden.fill(0.0);
                sums[r] = sum;
                if let Some(lse) = lse {
                    // SAFETY: this (row, head) belongs to this call alone.
                    unsafe { lse.values(self.q_start + i, self.head, 1)[0] = top + sum.ln() };
                }
            }
            let row = self.q_start + b.first;
            // SAFETY: operands were checked; the written part of o belongs to this call alone.
            unsafe {
                let (p, v) = (Strided::rows(scores, b.seen), self.key_rows(self.v));
                let target = o.target(row, self.q_column(), 0.0);
                product(self.isa, (b.count, c, b.seen), p, v, target, false);
                for (r, sum) in sums[..b.count].iter().enumerate() {
                    multiply(self.isa, 1.0 / sum, o.values(row + r, self.q_column(), c));
                }
            }
        }
    }

    /// dq of this head; dk and dv start from nothing when `first_of_group`, else add.
    ///
    /// # Safety
    /// No other task touches this head's columns of dq, nor its key/value head's of dk and dv, in
    /// these rows.
    pub(super) unsafe fn backward(&self, g: &Gradients, first_of_group: bool) {
        let (c, column) = (self.shape.head_dim, self.kv_column());
        let (mut p_tile, mut d_tile) = (self.tile(), self.tile());
        if first_of_group {
            for t in self.kv_start..self.kv_start + self.keys {
                // SAFETY: these columns of these rows are this task's.
                unsafe {
                    g.dk.values(t, column, c).fill(0.0);
                    g.dv.values(t, column, c).fill(0.0);
                }
            }
        }
        for b in self.blocks() {
            let p = &mut p_tile.data_mut()[..b.count * b.seen];
            let d = &mut d_tile.data_mut()[..b.count * b.seen];
            self.score_gradients(g, b, p, d);
            let (p, d) = (Strided::rows(p, b.seen), Strided::rows(d, b.seen));
            let (q, do_) = (self.query_rows(self.q, b), self.query_rows(g.do_, b));
            let (into_q, into_k) = ((b.count, c, b.seen), (b.seen, c, b.count));
            // SAFETY: all operands lie inside what was checked; the results belong to this task
            // alone.
            unsafe {
                let dq = g.dq.target(self.q_start + b.first, self.q_column(), 0.0);
                product(self.isa, into_q, d, self.key_rows(self.k), dq, false);
                let dk = g.dk.target(self.kv_start, column, 1.0);
                product(self.isa, into_k, d.flip(), q, dk, false);
                let dv = g.dv.target(self.kv_start, column, 1.0);
                product(self.isa, into_k, p.flip(), do_, dv, false);
            }
        }
    }

    /// p = the (dropped) probabilities of a block, d = the gradient of its raw scores q k^T.
    fn score_gradients(&self, g: &Gradients, b: Block, p: &mut [f32], d: &mut [f32]) {
        self.scores(b, p);
        let (do_, v) = (self.query_rows(g.do_, b), self.key_rows(self.v).flip());
        let shape = (b.count, b.seen, self.shape.head_dim);
        // SAFETY: all operands lie inside what was checked; the tile has count * seen values.
        unsafe { product(self.isa, shape, do_, v, into_tile(1.0, d, b.seen), false) };
        let part = self.q_column()..self.q_column() + self.shape.head_dim;
        let rows = p.chunks_exact_mut(b.seen).zip(d.chunks_exact_mut(b.seen));
        for (r, (p, d)) in rows.enumerate() {
            let i = b.first + r;
            let t = self.q_start + i;
            let (p, p_hidden) = p.split_at_mut(self.visible(i));
            let (d, d_hidden) = d.split_at_mut(self.visible(i));
            // With dropout too: o was made from the dropped probabilities.
            let along = inner_product(self.isa, &g.o.row(t)[part.clone()], &g.do_.row(t)[part.clone()]);
            let lse = g.lse[t * self.shape.heads + self.head];
            self.mask(i, d);
            score_gradient(self.isa, lse, self.shape.scale, along, p, d);
            self.mask(i, p);
            p_hidden.fill(0.0);
            d_hidden.fill(0.0);
        }
    }
}
