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

/// `out[t] = w[ids[t]]`, or += with `accumulate`; w (V, D), ids (T), out (T, D).
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

/// `dw[ids[t]] += dout[t]`, for t in order; dout (T, D), ids (T), dw (V, D). Each task owns a block
/// of the table's rows and reads all ids, so the order never depends on the threads.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frozen::{Compute, Store};
    use crate::testing::*;

    #[test]
    fn gathers_and_scatters_equal_plain_loops() {
        // More table rows than one task owns, ids that repeat, in both halves.
        for (v, t, d) in [(3, 1, 1), (1500, 7, 5), (2100, 900, 33)] {
            let ids: Vec<u32> = (0..t).map(|i| (i * 617 % v.min(997) + v - v.min(997)) as u32).collect();
            let (w, start, dout) = (noise(v * d, 1), noise_rows(t, d, 2), noise_rows(t, d, 3));
            let frozen = FrozenWeight::new(v, d, Store::F32(w.clone()), Compute::F32);
            let run = || {
                let mut out = [(); 4].map(|()| start.copy());
                gather(&frozen, &ids, &mut out[0], false);
                gather(&frozen, &ids, &mut out[1], true);
                gather_param(&w, d, &ids, &mut out[2], false);
                gather_param(&w, d, &ids, &mut out[3], true);
                let mut dw = w.clone();
                scatter_add(&dout, &ids, &mut dw);
                [out[0].data(), out[1].data(), out[2].data(), out[3].data(), &dw].concat()
            };
            let mut plain = Vec::new();
            let mut dw = w.clone();
            for (i, id) in ids.iter().enumerate() {
                for c in 0..d {
                    plain.push(w[*id as usize * d + c]);
                    dw[*id as usize * d + c] += dout.row(i)[c];
                }
            }
            let added: Vec<f32> = plain.iter().zip(start.data()).map(|(p, s)| s + p).collect();
            let expected = [&plain[..], &added, &plain, &added, &dw].concat();
            everywhere(run, |isa, out| assert!(out == expected, "{isa} {v} {t} {d}"));
        }
    }

    #[test]
    #[should_panic(expected = "id 4 of row 1 is outside the table of 4 rows")]
    fn an_id_outside_is_named() {
        gather_param(&[0.0; 8], 2, &[3, 4], &mut Rows::zeros(2, 2), false);
    }
}
