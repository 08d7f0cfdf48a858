//! Rows of a table by token id, and the gradient of that.

use crate::Rows;
use crate::frozen::FrozenWeight;
use crate::isa::{isa, kernel};
use crate::split::{for_row_blocks, length};
use rayon::prelude::*;

kernel!(fn accumulate(x: &[f32], y: &mut [f32]) = accumulate_body);

#[inline(always)]
fn accumulate_body<const FMA: bool>(x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

#[track_caller]
fn assert_ids(ids: &[u32], table_rows: usize) {
    if let Some(t) = ids.iter().position(|id| *id as usize >= table_rows) {
        panic!("id {} of row {t} is outside the table of {table_rows} rows", ids[t]);
    }
}

/// out[t] = w[ids[t]], or += with `accumulate`; w (V, D), ids (T), out (T, D).
pub fn gather(w: &FrozenWeight, ids: &[u32], out: &mut Rows, accumulate: bool) {
    length("ids", ids.len(), out.rows());
    assert_eq!(w.in_features(), out.width(), "w and out differ in width");
    assert_ids(ids, w.out_features());
    let width = out.width();
    for_row_blocks(out, |first, rows| {
        let mut one = vec![0.0; width];
        for (i, row) in rows.chunks_exact_mut(width).enumerate() {
            let id = ids[first + i] as usize;
            if accumulate {
                w.row(id, &mut one);
                for (y, x) in row.iter_mut().zip(&one) {
                    *y += x;
                }
            } else {
                w.row(id, row);
            }
        }
    });
}

/// As [`gather`], from a trainable table w (V, width). Backward: [`scatter_add`].
pub fn gather_param(w: &[f32], width: usize, ids: &[u32], out: &mut Rows, accumulate: bool) {
    length("ids", ids.len(), out.rows());
    assert_eq!(width, out.width(), "w and out differ in width");
    assert_ids(ids, w.len() / width);
    for_row_blocks(out, |first, rows| {
        for (i, row) in rows.chunks_exact_mut(width).enumerate() {
            let id = ids[first + i] as usize;
            let source = &w[id * width..(id + 1) * width];
            if accumulate {
                for (y, x) in row.iter_mut().zip(source) {
                    *y += x;
                }
            } else {
                row.copy_from_slice(source);
            }
        }
    });
}

/// dw[ids[t]] += dout[t], for t in order; dout (T, D), ids (T), dw (V, D).
/// Each task owns a block of the table's rows and reads all ids, so the order never depends on the threads.
pub fn scatter_add(dout: &Rows, ids: &[u32], dw: &mut [f32]) {
    length("ids", ids.len(), dout.rows());
    let width = dout.width();
    assert_ids(ids, dw.len() / width);
    const TABLE_BLOCK: usize = 1024;
    let isa = isa();
    dw.par_chunks_mut(TABLE_BLOCK * width).enumerate().for_each(|(block, dw)| {
        let first = block * TABLE_BLOCK;
        let rows = dw.len() / width;
        for (t, id) in ids.iter().enumerate() {
            let id = *id as usize;
            if (first..first + rows).contains(&id) {
                let at = (id - first) * width;
                accumulate(isa, dout.row(t), &mut dw[at..at + width]);
            }
        }
    });
}
