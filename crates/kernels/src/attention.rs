//! Scaled dot-product attention over packed sequences, tiled over blocks of queries: never an n x n
//! matrix.
//!
//! Work is split over (sequence, key/value head). Within one, queries run block after block, so
//! that the sums into dk and dv have a fixed order.

mod decode;
mod head;
mod kept;

use crate::drop::Mask;
use crate::isa::isa;
use crate::split::{length, same_shape};
use crate::{Rows, awake};
use head::{Gradients, Head, Shared};
pub use kept::{BLOCK, KvBlock};
use rayon::prelude::*;

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

/// A sequence whose keys and values were kept from earlier steps.
#[derive(Clone, Debug)]
pub struct CachedSeq<'a> {
    /// The first row of its queries.
    pub q_start: usize,
    /// The number of its queries: the last `q_len` of the `k_len` positions.
    pub q_len: usize,
    /// Keys and values in the order of the positions, all but the last block full: together k_len.
    pub blocks: Vec<&'a KvBlock>,
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

/// o = softmax(scale q k^T) v for every head of every sequence; lse (T, H) receives the logarithm
/// of each row's sum of exponentials, for [`backward`].
///
/// q, o (T, H * C); k, v (T, G * C). Rows that belong to no sequence are left as they are.
pub fn forward(
    shape: &AttnShape,
    seqs: &[Seq],
    q: &Rows,
    k: &Rows,
    v: &Rows,
    drop: Option<&Mask>,
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
    if let Some(mask) = drop {
        mask.check(q.rows());
    }
    let isa = isa();
    let o = Shared::new(o.data_mut(), q.width());
    let lse = Shared::new(lse, shape.heads);
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
        // SAFETY: sequences do not overlap, so each (sequence, head) has rows and columns of its
        // own.
        unsafe { head.forward(o, Some(lse)) };
    });
}

/// How many pairs of a query and a key of a sequence of `len` rows are multiplied for each head: with a causal mask, the
/// keys that the last query of each block sees.
pub fn computed_pairs(len: usize, causal: bool) -> usize {
    let seen = |first: usize| if causal { (first + head::QUERY_BLOCK).min(len) } else { len };
    (0..len).step_by(head::QUERY_BLOCK).map(|first| head::QUERY_BLOCK.min(len - first) * seen(first)).sum()
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

/// Attention of new queries over kept keys and values (no gradient: this is decoding). Query i of a
/// sequence stands at position k_len - q_len + i. q, o (T, H * C).
pub fn cached(shape: &AttnShape, seqs: &[CachedSeq], q: &Rows, o: &mut Rows) {
    shape.check(q);
    same_shape("q", q, "o", o);
    check_cached(shape, seqs, q.rows());
    let isa = isa();
    let o = Shared::new(o.data_mut(), q.width());
    let (few, many): (Vec<&CachedSeq>, Vec<&CachedSeq>) =
        seqs.iter().filter(|s| s.q_len > 0).partition(|s| s.q_len <= decode::FEW_QUERIES);
    let groups: Vec<(&CachedSeq, usize)> =
        few.into_iter().flat_map(|s| (0..shape.kv_heads).map(move |g| (s, g))).collect();
    // SAFETY: the sequences' query rows do not overlap (checked above), and each task has columns of its own.
    awake::share(groups.len(), |i| unsafe { decode::group(isa, shape, groups[i].0, groups[i].1, q, o) });
    for s in many {
        let (mut k, mut v) = (vec![], vec![]);
        s.blocks.iter().for_each(|b| b.unpack(&mut k, &mut v));
        (0..shape.heads).into_par_iter().for_each(|head| {
            let head = Head {
                isa,
                shape,
                q,
                q_start: s.q_start,
                queries: s.q_len,
                k: &k,
                v: &v,
                kv_start: 0,
                keys: s.k_len,
                head,
                drop: None,
            };
            // SAFETY: the sequences' query rows do not overlap (checked above).
            unsafe { head.forward(o, None) };
        });
    }
}

#[track_caller]
fn check_cached(shape: &AttnShape, seqs: &[CachedSeq], rows: usize) {
    let mut end = 0;
    for s in seqs {
        for (i, block) in s.blocks.iter().enumerate() {
            assert!(
                block.fits(shape) && block.is_like(s.blocks[0]),
                "a block of keys of other heads or numbers"
            );
            assert!(block.len() == BLOCK || i + 1 == s.blocks.len(), "a block before the last is not full");
            block.count_read();
        }
        length("k", s.blocks.iter().map(|b| b.len()).sum(), s.k_len);
        assert!(s.q_len <= s.k_len, "{} queries but {} positions", s.q_len, s.k_len);
        assert!(
            s.q_start >= end && s.q_start + s.q_len <= rows,
            "queries from row {} overlap those before or leave the {rows} rows",
            s.q_start,
        );
        end = s.q_start + s.q_len;
    }
}

/// The gradients of [`forward`], overwritten for the rows of all sequences: do_, dq (T, H * C); dk,
/// dv (T, G * C). q, k, v, o, lse, drop as they were there.
pub fn backward(
    shape: &AttnShape,
    seqs: &[Seq],
    q: &Rows,
    k: &Rows,
    v: &Rows,
    o: &Rows,
    lse: &[f32],
    do_: &Rows,
    drop: Option<&Mask>,
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
    if let Some(mask) = drop {
        mask.check(q.rows());
    }
    let isa = isa();
    let gradients = Gradients {
        o,
        lse,
        do_,
        dq: Shared::new(dq.data_mut(), q.width()),
        dk: Shared::new(dk.data_mut(), k.width()),
        dv: Shared::new(dv.data_mut(), k.width()),
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
            // SAFETY: each (sequence, key/value head) has rows and columns of its own in dq, dk and
            // dv, and the query heads that share it run here one after the other.
            unsafe { head.backward(&gradients, member == 0) };
        }
    });
}

#[cfg(test)]
mod tests;
