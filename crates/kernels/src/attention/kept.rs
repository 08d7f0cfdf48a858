//! Keys and values of earlier positions, in the order in which a few new queries read them: head by head, the keys of
//! a block with their positions innermost, the values with their columns innermost. Both products of attention are
//! then sums of rows of one kind, along which nothing has to be added up.

use super::AttnShape;
use crate::Rows;
use crate::frozen::{Compute, round_to_bf16};
use crate::split::same_shape;
use crate::work;
use std::ops::Range;

/// Positions in a block.
pub const BLOCK: usize = 64;

/// Keys and values of up to [`BLOCK`] positions: f32 where a model computes in f32, else bf16, half of what has to be
/// read for each token.
#[derive(Clone, Debug)]
pub struct KvBlock {
    /// Key/value heads, G.
    heads: usize,
    /// Width of each, C.
    head_dim: usize,
    len: usize,
    values: Values,
}

/// Keys (G, C, BLOCK), then values (G, BLOCK, C). Positions from `len` on are zeros.
#[derive(Clone, Debug)]
enum Values {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
}

/// One head's part of a block.
#[derive(Clone, Copy)]
pub(super) struct HeadPart<'a> {
    /// (C, BLOCK)
    pub(super) keys: Numbers<'a>,
    /// (BLOCK, C)
    pub(super) values: Numbers<'a>,
}

/// What is kept of a head.
#[derive(Clone, Copy)]
pub(super) enum Numbers<'a> {
    F32(&'a [f32]),
    Bf16(&'a [u16]),
}

/// A number as it is kept.
pub(super) trait Number: Copy {
    fn from_f32(x: f32) -> Self;
    fn to_f32(self) -> f32;
}

impl Number for f32 {
    #[inline(always)]
    fn from_f32(x: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

/// The upper half of an f32.
impl Number for u16 {
    #[inline(always)]
    fn from_f32(x: f32) -> u16 {
        round_to_bf16(x)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self) << 16)
    }
}

impl KvBlock {
    /// A block without a position, for `kv_heads` heads of `head_dim` columns.
    pub fn new(kv_heads: usize, head_dim: usize, compute: Compute) -> KvBlock {
        let count = 2 * kv_heads * head_dim * BLOCK;
        let values = match compute {
            Compute::F32 => Values::F32(vec![0.0; count]),
            Compute::Bf16 => Values::Bf16(vec![0; count]),
        };
        KvBlock { heads: kv_heads, head_dim, len: 0, values }
    }

    /// How many positions it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no position.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it can take another position.
    pub fn has_room(&self) -> bool {
        self.len < BLOCK
    }

    /// Appends as many of these rows of k and v (T, G C) as there is room for, and says how many.
    pub fn append(&mut self, k: &Rows, v: &Rows, rows: Range<usize>) -> usize {
        assert_eq!(k.width(), self.heads * self.head_dim, "k is not kv_heads * head_dim wide");
        same_shape("k", k, "v", v);
        let count = rows.len().min(BLOCK - self.len);
        for row in rows.take(count) {
            let (heads, at) = ((self.heads, self.head_dim), self.len);
            match &mut self.values {
                Values::F32(kept) => put(kept, heads, at, k.row(row), v.row(row)),
                Values::Bf16(kept) => put(kept, heads, at, k.row(row), v.row(row)),
            }
            self.len += 1;
        }
        count
    }

    pub(super) fn fits(&self, shape: &AttnShape) -> bool {
        (self.heads, self.head_dim) == (shape.kv_heads, shape.head_dim)
    }

    pub(super) fn head(&self, head: usize) -> HeadPart<'_> {
        let size = BLOCK * self.head_dim;
        let at = |side: usize| (side * self.heads + head) * size..(side * self.heads + head + 1) * size;
        match &self.values {
            Values::F32(kept) => {
                HeadPart { keys: Numbers::F32(&kept[at(0)]), values: Numbers::F32(&kept[at(1)]) }
            }
            Values::Bf16(kept) => {
                HeadPart { keys: Numbers::Bf16(&kept[at(0)]), values: Numbers::Bf16(&kept[at(1)]) }
            }
        }
    }

    /// Whether it keeps what `other` keeps: other positions of the same heads, in the same numbers.
    pub(super) fn is_like(&self, other: &KvBlock) -> bool {
        let kinds = [self, other].map(|b| std::mem::discriminant(&b.values));
        (self.heads, self.head_dim, kinds[0]) == (other.heads, other.head_dim, kinds[1])
    }

    /// Counts its positions as read.
    pub(super) fn count_read(&self) {
        let size = match &self.values {
            Values::F32(_) => size_of::<f32>(),
            Values::Bf16(_) => size_of::<u16>(),
        };
        work::add_bytes(2 * self.heads * self.head_dim * self.len * size);
    }

    /// Appends its keys and values (len, G C) to `k` and `v`, as they were given but for rounding.
    pub(super) fn unpack(&self, k: &mut Vec<f32>, v: &mut Vec<f32>) {
        for at in 0..self.len {
            for head in 0..self.heads {
                let HeadPart { keys, values } = self.head(head);
                keys.extend(k, (0..self.head_dim).map(|column| column * BLOCK + at));
                values.extend(v, at * self.head_dim..(at + 1) * self.head_dim);
            }
        }
    }
}

impl Numbers<'_> {
    /// Appends those at `places`, widened.
    fn extend(self, to: &mut Vec<f32>, places: impl Iterator<Item = usize>) {
        match self {
            Numbers::F32(from) => to.extend(places.map(|i| from[i])),
            Numbers::Bf16(from) => to.extend(places.map(|i| from[i].to_f32())),
        }
    }
}

/// Writes position `at` of all heads.
fn put<T: Number>(kept: &mut [T], (heads, c): (usize, usize), at: usize, k: &[f32], v: &[f32]) {
    let (keys, values) = kept.split_at_mut(heads * c * BLOCK);
    for (column, x) in keys.chunks_exact_mut(BLOCK).zip(k) {
        column[at] = T::from_f32(*x);
    }
    for (head, x) in values.chunks_exact_mut(BLOCK * c).zip(v.chunks_exact(c)) {
        for (to, x) in head[at * c..(at + 1) * c].iter_mut().zip(x) {
            *to = T::from_f32(*x);
        }
    }
}
