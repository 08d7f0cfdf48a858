//! Keys and values of earlier tokens. They lie in blocks that rows may share: a beam that splits copies no more than
//! the block that it goes on writing, and the choices of one question share all of its prompt.

use sibo_kernels::Rows;
use sibo_kernels::attention::{CachedSeq, Seq};
use std::sync::Arc;

/// Positions in a block.
const BLOCK: usize = 64;

/// Keys and values (some, G C) of up to [`BLOCK`] positions.
struct KvBlock {
    k: Vec<f32>,
    v: Vec<f32>,
}

impl KvBlock {
    fn new(width: usize) -> Self {
        KvBlock { k: Vec::with_capacity(BLOCK * width), v: Vec::with_capacity(BLOCK * width) }
    }
}

impl Clone for KvBlock {
    /// A copy with room for the whole block: it is made in order to go on.
    fn clone(&self) -> Self {
        let grown = |values: &Vec<f32>| {
            let mut copy = Vec::with_capacity(values.capacity());
            copy.extend_from_slice(values);
            copy
        };
        KvBlock { k: grown(&self.k), v: grown(&self.v) }
    }
}

/// Keys and values of one row.
#[derive(Clone, Default)]
pub(crate) struct KvRow {
    blocks: Vec<Arc<KvBlock>>,
    /// Positions in all blocks.
    len: usize,
}

impl KvRow {
    /// Appends keys and values (n, G C).
    fn extend(&mut self, mut k: &[f32], mut v: &[f32], width: usize) {
        self.len += k.len() / width;
        while !k.is_empty() {
            let room = BLOCK * width - self.blocks.last().map_or(BLOCK * width, |b| b.k.len());
            if room == 0 {
                self.blocks.push(Arc::new(KvBlock::new(width)));
                continue;
            }
            let count = room.min(k.len());
            let ((k_now, k_rest), (v_now, v_rest)) = (k.split_at(count), v.split_at(count));
            if let Some(last) = self.blocks.last_mut() {
                let last = Arc::make_mut(last);
                last.k.extend_from_slice(k_now);
                last.v.extend_from_slice(v_now);
            }
            (k, v) = (k_rest, v_rest);
        }
    }
}

/// Keys and values of one layer, for each row.
#[derive(Clone, Default)]
pub(crate) struct KvLayer {
    pub(crate) rows: Vec<KvRow>,
}

impl KvLayer {
    /// Whether no row has a token yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.iter().all(|row| row.len == 0)
    }

    /// Appends the new keys and values (T, G C) to each row's.
    pub(crate) fn extend(&mut self, seqs: &[Seq], k: &Rows, v: &Rows) {
        let width = k.width();
        for (seq, row) in seqs.iter().zip(&mut self.rows) {
            let range = seq.start * width..(seq.start + seq.len) * width;
            row.extend(&k.data()[range.clone()], &v.data()[range], width);
        }
    }

    /// What attention reads for the new queries of each row, which [`KvLayer::extend`] has seen.
    pub(crate) fn sequences(&self, seqs: &[Seq]) -> Vec<CachedSeq<'_>> {
        let rows = seqs.iter().zip(&self.rows);
        rows.map(|(seq, row)| {
            let blocks = row.blocks.iter().map(|b| (b.k.as_slice(), b.v.as_slice())).collect();
            CachedSeq { q_start: seq.start, q_len: seq.len, blocks, k_len: row.len }
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(row: &KvRow) -> Vec<f32> {
        row.blocks.iter().flat_map(|b| b.k.clone()).collect()
    }

    #[test]
    fn a_row_that_splits_shares_what_is_full_and_copies_what_grows() {
        let width = 3;
        let values: Vec<f32> = (0..width * (2 * BLOCK + 5)).map(|i| i as f32).collect();
        let mut row = KvRow::default();
        for part in values.chunks(width * 50) {
            row.extend(part, part, width);
        }
        assert_eq!((row.len, all(&row)), (2 * BLOCK + 5, values.clone()));
        let mut other = row.clone();
        other.extend(&[-1.0; 3], &[-2.0; 3], width);
        assert_eq!(all(&row), values, "the copy wrote into the original");
        assert_eq!(all(&other), [values, vec![-1.0; 3]].concat());
        let shared = row.blocks.iter().zip(&other.blocks).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert_eq!((shared, other.blocks.len()), (2, 3));
    }
}
