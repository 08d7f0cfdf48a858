//! [`Rows`]: the one container of activations.

use crate::pool::{self, Block};
use std::fmt;
use std::ops::Range;

/// A row-major matrix of `f32`, `rows` x `width`, whose storage is recycled through
/// [`crate::pool`].
pub struct Rows {
    /// `None` only while dropping.
    block: Option<Block>,
    rows: usize,
    width: usize,
}

impl Rows {
    /// A matrix of zeros.
    pub fn zeros(rows: usize, width: usize) -> Rows {
        let (mut made, zero) = Self::take(rows, width);
        if !zero {
            crate::elementwise::fill(0.0, &mut made);
        }
        made
    }

    /// A matrix of unspecified contents (whatever the storage held before; never uninitialised
    /// memory), for results that are about to be overwritten.
    pub fn scratch(rows: usize, width: usize) -> Rows {
        Self::take(rows, width).0
    }

    fn take(rows: usize, width: usize) -> (Rows, bool) {
        let (block, zero) = pool::take(rows, width);
        let made = Rows { block: Some(block), rows, width };
        (made, zero)
    }

    /// The rows of `values`, each `width` long.
    ///
    /// # Panics
    /// When `values` is not a whole number of rows.
    pub fn from_slice(values: &[f32], width: usize) -> Rows {
        assert!(
            width > 0 && values.len().is_multiple_of(width),
            "{} values are no whole number of rows of width {width}",
            values.len()
        );
        let mut made = Self::scratch(values.len() / width, width);
        made.data_mut().copy_from_slice(values);
        made
    }

    /// As [`Rows::from_slice`], from a vector.
    pub fn from_vec(values: Vec<f32>, width: usize) -> Rows {
        Self::from_slice(&values, width)
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub fn width(&self) -> usize {
        self.width
    }

    fn block(&self) -> &Block {
        self.block.as_ref().expect("the block leaves only in `drop`")
    }

    /// All values, row after row.
    pub fn data(&self) -> &[f32] {
        // SAFETY: the block holds at least rows * width initialised floats, and `&self` guards it.
        unsafe { std::slice::from_raw_parts(self.block().pointer().as_ptr(), self.rows * self.width) }
    }

    /// All values, row after row, to write.
    pub fn data_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `data`, and `&mut self` is the only access.
        unsafe { std::slice::from_raw_parts_mut(self.block().pointer().as_ptr(), self.rows * self.width) }
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data()[i * self.width..(i + 1) * self.width]
    }

    /// Row `i`, to write.
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        let width = self.width;
        &mut self.data_mut()[i * width..(i + 1) * width]
    }

    /// A copy with storage of its own (explicit, because copies of activations should be visible in
    /// the code).
    pub fn copy(&self) -> Rows {
        self.slice_rows(0..self.rows)
    }

    /// A copy of the rows of `range`.
    pub fn slice_rows(&self, range: Range<usize>) -> Rows {
        let mut made = Self::scratch(range.len(), self.width);
        let source = &self.data()[range.start * self.width..range.end * self.width];
        crate::elementwise::copy_slice(source, made.data_mut());
        made
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            pool::put(block);
        }
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rows {} x {}", self.rows, self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_what_was_put_in() {
        let mut x = Rows::from_vec((0..12).map(|i| i as f32).collect(), 3);
        assert_eq!((x.rows(), x.width()), (4, 3));
        assert_eq!(x.row(2), [6.0, 7.0, 8.0]);
        x.row_mut(1)[2] = -1.5;
        assert_eq!(x.copy().data(), x.data());
        assert_eq!(x.slice_rows(1..3).data(), [3.0, 4.0, -1.5, 6.0, 7.0, 8.0]);
    }

    #[test]
    fn zeros_are_zero_in_recycled_storage() {
        for (rows, width) in [(3, 5), (700, 1000)] {
            let mut used = Rows::scratch(rows, width);
            used.data_mut().fill(7.0);
            drop(used);
            assert!(Rows::zeros(rows, width).data().iter().all(|v| *v == 0.0));
        }
    }

    #[test]
    fn empty_matrices_exist() {
        assert!(Rows::zeros(0, 5).data().is_empty());
        assert!(Rows::zeros(5, 0).copy().data().is_empty());
    }

    #[test]
    #[should_panic(expected = "7 values are no whole number of rows of width 2")]
    fn a_broken_row_is_refused() {
        Rows::from_slice(&[0.0; 7], 2);
    }
}
