//! Keys and values of earlier tokens. They lie in blocks that rows may share: a beam that splits copies no more than
//! the block that it goes on writing, and the choices of one question share all of its prompt.

use sibo_kernels::Rows;
use sibo_kernels::attention::{AttnShape, CachedSeq, KvBlock, Seq};
use sibo_kernels::frozen::Compute;
use std::ops::Range;
use std::sync::Arc;

/// Keys and values of one row.
#[derive(Clone, Default)]
pub(crate) struct KvRow {
    /// All but the last are full.
    blocks: Vec<Arc<KvBlock>>,
    /// Positions in all blocks.
    len: usize,
}

impl KvRow {
    /// Appends these rows of keys and values (T, G C) to blocks, the new ones of which `block` makes.
    fn extend(&mut self, k: &Rows, v: &Rows, mut rows: Range<usize>, block: impl Fn() -> KvBlock) {
        self.len += rows.len();
        while !rows.is_empty() {
            rows.start += match self.blocks.last_mut() {
                // A block that another row shares is copied first.
                Some(last) if last.has_room() => Arc::make_mut(last).append(k, v, rows.clone()),
                _ => {
                    self.blocks.push(Arc::new(block()));
                    0
                }
            };
        }
    }
}

/// Keys and values of one layer, for each row.
#[derive(Clone)]
pub(crate) struct KvLayer {
    pub(crate) rows: Vec<KvRow>,
    /// What they are kept in.
    compute: Compute,
}

impl KvLayer {
    /// Rows without a token.
    pub(crate) fn new(rows: usize, compute: Compute) -> KvLayer {
        KvLayer { rows: vec![KvRow::default(); rows], compute }
    }

    /// Whether no row has a token yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.iter().all(|row| row.len == 0)
    }

    /// Appends the new keys and values (T, G C) to each row's.
    pub(crate) fn extend(&mut self, shape: &AttnShape, seqs: &[Seq], k: &Rows, v: &Rows) {
        let block = || KvBlock::new(shape.kv_heads, shape.head_dim, self.compute);
        for (seq, row) in seqs.iter().zip(&mut self.rows) {
            row.extend(k, v, seq.start..seq.start + seq.len, block);
        }
    }

    /// What attention reads for the new queries of each row, which [`KvLayer::extend`] has seen.
    pub(crate) fn sequences(&self, seqs: &[Seq]) -> Vec<CachedSeq<'_>> {
        let rows = seqs.iter().zip(&self.rows);
        rows.map(|(seq, row)| {
            let blocks = row.blocks.iter().map(Arc::as_ref).collect();
            CachedSeq { q_start: seq.start, q_len: seq.len, blocks, k_len: row.len }
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sibo_kernels::attention::{self, BLOCK};

    const SHAPE: AttnShape = AttnShape { heads: 3, kv_heads: 1, head_dim: 5, causal: true, scale: 0.7 };

    fn values(rows: usize, width: usize, seed: usize) -> Rows {
        let values: Vec<f32> =
            (0..rows * width).map(|i| ((i * 37 + seed * 11) % 29) as f32 / 9.0 - 1.4).collect();
        Rows::from_slice(&values, width)
    }

    /// What a query sees of a row: a sum over all of its keys and values.
    fn look(row: &KvRow) -> Vec<f32> {
        let layer = KvLayer { rows: vec![row.clone()], compute: Compute::F32 };
        let mut o = Rows::zeros(1, 15);
        attention::cached(&SHAPE, &layer.sequences(&[Seq { start: 0, len: 1 }]), &values(1, 15, 5), &mut o);
        o.data().to_vec()
    }

    fn extend(row: &mut KvRow, k: &Rows, rows: Range<usize>) {
        row.extend(k, k, rows, || KvBlock::new(1, 5, Compute::F32));
    }

    #[test]
    fn a_row_that_splits_shares_what_is_full_and_copies_what_grows() {
        let (len, k) = (2 * BLOCK + 5, values(2 * BLOCK + 7, 5, 1));
        let mut row = KvRow::default();
        for start in (0..len).step_by(50) {
            extend(&mut row, &k, start..(start + 50).min(len));
        }
        let before = look(&row);
        let mut other = row.clone();
        extend(&mut other, &k, len..len + 2);
        assert_eq!(look(&row), before, "the copy wrote into the original");
        let mut whole = KvRow::default();
        extend(&mut whole, &k, 0..len + 2);
        assert_eq!(look(&other), look(&whole));
        assert_ne!(look(&other), before);
        let shared = row.blocks.iter().zip(&other.blocks).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert_eq!((row.len, shared, other.blocks.len()), (len, 2, 3));
    }
}
