//! Weights as they are read from files.

use super::pack::By;
use half::{bf16, f16};

/// A weight as read from a file, row-major (out, in).
#[derive(Clone, Debug, PartialEq)]
pub enum Store {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// bfloat16.
    Bf16(Vec<bf16>),
    /// IEEE half precision.
    F16(Vec<f16>),
    /// 8-bit integers with one scale for each `block` columns of a row: scale (out, in / block,
    /// rounded up).
    I8 {
        /// The integers, (out, in).
        q: Vec<i8>,
        /// The scales.
        scale: Vec<f32>,
        /// The columns that share a scale.
        block: usize,
    },
    /// 4-bit integers, -8 to 7, two a byte, with scales as above. `in` is even.
    I4 {
        /// (out, in / 2): the even column in the low half of a byte, both in two's complement.
        q: Vec<u8>,
        /// The scales.
        scale: Vec<f32>,
        /// The columns that share a scale.
        block: usize,
    },
}

/// The even and the odd column of a byte of two codes.
#[inline(always)]
fn halves(byte: u8) -> [i8; 2] {
    [(byte << 4) as i8 >> 4, byte as i8 >> 4]
}

impl Store {
    fn len(&self) -> usize {
        match self {
            Store::F32(v) => v.len(),
            Store::Bf16(v) => v.len(),
            Store::F16(v) => v.len(),
            Store::I8 { q, .. } => q.len(),
            Store::I4 { q, .. } => 2 * q.len(),
        }
    }

    /// Asserts that the lengths fit the shape.
    #[track_caller]
    pub(super) fn check(&self, out: usize, inp: usize) {
        let found = self.len();
        assert!(found == out * inp, "a ({out}, {inp}) weight has {found} values");
        assert!(
            !matches!(self, Store::I4 { .. }) || inp.is_multiple_of(2),
            "rows of {inp} with two codes a byte"
        );
        if let Store::I8 { scale, block, .. } | Store::I4 { scale, block, .. } = self {
            assert!(*block > 0, "a scale for each 0 columns");
            let expected = out * inp.div_ceil(*block);
            assert!(
                scale.len() == expected,
                "a ({out}, {inp}) weight in blocks of {block} has {} scales, not {expected}",
                scale.len()
            );
        }
    }

    /// Row `i`, widened (or dequantised) into `out` (inp).
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, i: usize, out: &mut [f32]) {
        let part = i * out.len()..(i + 1) * out.len();
        match self {
            Store::F32(v) => out.copy_from_slice(&v[part]),
            Store::Bf16(v) => out.iter_mut().zip(&v[part]).for_each(|(o, v)| *o = f32::from(*v)),
            Store::F16(v) => out.iter_mut().zip(&v[part]).for_each(|(o, v)| *o = f32::from(*v)),
            Store::I8 { q, scale, block } => {
                let scales = &scale[i * out.len().div_ceil(*block)..];
                let blocks = out.chunks_mut(*block).zip(q[part].chunks(*block));
                for ((out, q), scale) in blocks.zip(scales) {
                    out.iter_mut().zip(q).for_each(|(o, q)| *o = f32::from(*q) * scale);
                }
            }
            Store::I4 { q, scale, block } => {
                let scales = &scale[i * out.len().div_ceil(*block)..];
                for (c, pair) in out.chunks_mut(2).enumerate() {
                    let codes = halves(q[part.start / 2 + c]);
                    for (j, (o, code)) in pair.iter_mut().zip(codes).enumerate() {
                        *o = f32::from(code) * scales[(2 * c + j) / block];
                    }
                }
            }
        }
    }

    /// All of it, widened; `inp` is the length of a row.
    pub(super) fn rows_into(&self, inp: usize, wide: &mut [f32], by: By) {
        by.each(wide, inp, |i, row| {
            self.row(i, row);
            0
        });
    }

    /// All of it, widened; `inp` is the length of a row.
    pub fn into_f32(self, inp: usize) -> Vec<f32> {
        if let Store::F32(values) = self {
            return values;
        }
        let mut wide = vec![0.0; self.len()];
        self.rows_into(inp, &mut wide, By::All);
        wide
    }
}
