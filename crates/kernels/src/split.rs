//! How work is cut into tasks. Sizes are constants, never the number of threads: this is what makes
//! results the same for any number of them.

use crate::Rows;
use rayon::prelude::*;

/// Elements in one task of an elementwise operation: enough to pay for handing it over.
pub(crate) const GRAIN: usize = 16 * 1024;

/// Columns in one task of a sum over rows: of each row a KiB in turn, as a row's few lines alone would neither be fetched
/// ahead nor pay for the call.
const COLUMN_BLOCK: usize = 256;

/// Rows of `width` values in one task.
pub(crate) fn rows_per_task(width: usize) -> usize {
    (GRAIN / width.max(1)).max(1)
}

/// Asserts that two matrices have one shape.
#[track_caller]
pub(crate) fn same_shape(name_a: &str, a: &Rows, name_b: &str, b: &Rows) {
    assert!(
        a.rows() == b.rows() && a.width() == b.width(),
        "{name_a} is {} x {} but {name_b} is {} x {}",
        a.rows(),
        a.width(),
        b.rows(),
        b.width()
    );
}

/// Asserts the length of an operand.
#[track_caller]
pub(crate) fn length(name: &str, found: usize, expected: usize) {
    assert!(found == expected, "{name} has {found} values, not {expected}");
}

/// Calls `task(first element, block of y)` for blocks of [`GRAIN`] elements, in parallel when there
/// are several.
pub(crate) fn for_blocks(y: &mut [f32], task: impl Fn(usize, &mut [f32]) + Sync) {
    if y.len() <= GRAIN {
        task(0, y);
    } else {
        y.par_chunks_mut(GRAIN).enumerate().for_each(|(i, block)| task(i * GRAIN, block));
    }
}

/// Calls `task(first row, rows of y)` for blocks of about [`GRAIN`] elements.
pub(crate) fn for_row_blocks(y: &mut Rows, task: impl Fn(usize, &mut [f32]) + Sync) {
    let width = y.width();
    if width == 0 || y.rows() == 0 {
        return;
    }
    let rows = rows_per_task(width);
    if y.rows() <= rows {
        task(0, y.data_mut());
    } else {
        y.data_mut().par_chunks_mut(rows * width).enumerate().for_each(|(i, block)| task(i * rows, block));
    }
}

/// Calls `task(first column, columns)` for blocks of [`COLUMN_BLOCK`] values of a vector of column
/// sums.
pub(crate) fn for_columns(sums: &mut [f32], rows: usize, task: impl Fn(usize, &mut [f32]) + Sync) {
    if sums.len() * rows <= GRAIN {
        for (i, block) in sums.chunks_mut(COLUMN_BLOCK).enumerate() {
            task(i * COLUMN_BLOCK, block);
        }
    } else {
        sums.par_chunks_mut(COLUMN_BLOCK).enumerate().for_each(|(i, block)| task(i * COLUMN_BLOCK, block));
    }
}

/// As [`for_row_blocks`], with the part of `side` (`per_row` values for each row) that belongs to
/// the block.
pub(crate) fn for_row_blocks_with(
    y: &mut Rows,
    side: &mut [f32],
    per_row: usize,
    task: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) {
    let width = y.width();
    if width == 0 || y.rows() == 0 {
        return;
    }
    let rows = rows_per_task(width);
    if y.rows() <= rows {
        task(0, y.data_mut(), side);
    } else {
        y.data_mut()
            .par_chunks_mut(rows * width)
            .zip(side.par_chunks_mut(rows * per_row))
            .enumerate()
            .for_each(|(i, (block, side))| task(i * rows, block, side));
    }
}

/// As [`for_blocks`], for two results of one length.
pub(crate) fn for_block_pairs(
    y: &mut [f32],
    z: &mut [f32],
    task: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) {
    if y.len() <= GRAIN {
        task(0, y, z);
    } else {
        y.par_chunks_mut(GRAIN)
            .zip(z.par_chunks_mut(GRAIN))
            .enumerate()
            .for_each(|(i, (y, z))| task(i * GRAIN, y, z));
    }
}
