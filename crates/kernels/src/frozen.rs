//! [`FrozenWeight`]: the only place that knows how the weight of a frozen linear layer is stored.

use crate::Rows;
use crate::gemm;
use half::{bf16, f16};

/// In which arithmetic a frozen layer multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compute {
    /// f32 throughout.
    F32,
    /// Operands rounded to bf16, products summed in f32.
    Bf16,
}

/// A weight as read from a file, row-major (out, in).
#[derive(Clone, Debug)]
pub enum Store {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// bfloat16.
    Bf16(Vec<bf16>),
    /// IEEE half precision.
    F16(Vec<f16>),
    /// 8-bit integers with one scale for each `block` columns of a row: scale (out, in / block, rounded up).
    I8 {
        /// The integers, (out, in).
        q: Vec<i8>,
        /// The scales.
        scale: Vec<f32>,
        /// The columns that share a scale.
        block: usize,
    },
}

impl Store {
    fn len(&self) -> usize {
        match self {
            Store::F32(v) => v.len(),
            Store::Bf16(v) => v.len(),
            Store::F16(v) => v.len(),
            Store::I8 { q, .. } => q.len(),
        }
    }

    fn widen(self, inp: usize) -> Vec<f32> {
        match self {
            Store::F32(v) => v,
            Store::Bf16(v) => v.into_iter().map(f32::from).collect(),
            Store::F16(v) => v.into_iter().map(f32::from).collect(),
            Store::I8 { q, scale, block } => {
                let per_row = inp.div_ceil(block);
                let mut wide = Vec::with_capacity(q.len());
                for (row, q) in q.chunks_exact(inp).enumerate() {
                    let scales = &scale[row * per_row..(row + 1) * per_row];
                    let values = q.iter().enumerate();
                    wide.extend(values.map(|(c, q)| f32::from(*q) * scales[c / block]));
                }
                wide
            }
        }
    }
}

/// The weight of a frozen linear layer, (out, in), converted once into the form its arithmetic wants.
pub struct FrozenWeight {
    out: usize,
    inp: usize,
    values: Vec<f32>,
}

impl FrozenWeight {
    /// Takes a weight of shape (out, in) as it was read.
    ///
    /// # Panics
    /// When the lengths do not fit the shape; the loader checks files before.
    pub fn new(out: usize, inp: usize, store: Store, compute: Compute) -> FrozenWeight {
        assert_eq!(store.len(), out * inp, "a ({out}, {inp}) weight has another length");
        if let Store::I8 { scale, block, .. } = &store {
            assert!(*block > 0, "a block of 0 columns");
            assert_eq!(scale.len(), out * inp.div_ceil(*block), "scales do not fit ({out}, {inp}) / {block}");
        }
        let _ = compute;
        FrozenWeight { out, inp, values: store.widen(inp) }
    }

    /// The number of out features, N.
    pub fn out_features(&self) -> usize {
        self.out
    }

    /// The number of in features, K.
    pub fn in_features(&self) -> usize {
        self.inp
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        self.values.len() * size_of::<f32>()
    }

    /// y = x W^T; x (T, K), y (T, N).
    pub fn forward(&self, x: &Rows, y: &mut Rows) {
        assert_eq!(x.width(), self.inp, "x is not as wide as the weight's input");
        assert_eq!(y.width(), self.out, "y is not as wide as the weight's output");
        gemm::nt(1.0, x, &self.values, 0.0, y);
    }

    /// dx = beta dx + dy W; dy (T, N), dx (T, K). The weight itself has no gradient.
    pub fn backward(&self, dy: &Rows, beta: f32, dx: &mut Rows) {
        assert_eq!(dx.width(), self.inp, "dx is not as wide as the weight's input");
        assert_eq!(dy.width(), self.out, "dy is not as wide as the weight's output");
        gemm::nn(1.0, dy, &self.values, beta, dx);
    }

    /// Row `i` of W, widened: out (K).
    pub fn row(&self, i: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.values[i * self.inp..(i + 1) * self.inp]);
    }

    /// All of W, widened, (N, K).
    pub fn to_f32(&self) -> Vec<f32> {
        self.values.clone()
    }

    /// Whether any value is infinite or not a number.
    pub fn has_non_finite(&self) -> bool {
        !self.values.iter().all(|v| v.is_finite())
    }

    /// A hash of the shape and the widened values, for the fingerprint of a base model.
    pub fn hash64(&self) -> u64 {
        let mut row = vec![0.0; self.inp];
        let mut h = [self.out, self.inp].iter().fold(0, |h, n| fold(h, *n as u64));
        for i in 0..self.out {
            self.row(i, &mut row);
            h = row.iter().fold(h, |h, v| fold(h, u64::from(v.to_bits())));
        }
        h
    }
}

/// One step of a 64-bit multiplicative hash (a large odd constant; the high bits are folded down).
fn fold(h: u64, value: u64) -> u64 {
    let h = (h.rotate_left(23) ^ value ^ 0x3c6e_f372_fe94_f82b).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h ^ (h >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    #[test]
    fn stores_are_widened() {
        let (out, inp) = (3, 5);
        let bf: Vec<bf16> = noise(15, 1).iter().map(|v| bf16::from_f32(*v)).collect();
        let f: Vec<f16> = noise(15, 2).iter().map(|v| f16::from_f32(*v)).collect();
        let q: Vec<i8> = (0..15).map(|i| (i * 17 - 120) as i8).collect();
        let scale = noise(9, 3);
        let expected_q: Vec<f32> = (0..15).map(|i| f32::from(q[i]) * scale[i / 5 * 3 + i % 5 / 2]).collect();
        let wide_bf: Vec<f32> = bf.iter().map(|v| f32::from(*v)).collect();
        let wide_f: Vec<f32> = f.iter().map(|v| f32::from(*v)).collect();
        for (store, expected) in [
            (Store::Bf16(bf), wide_bf),
            (Store::F16(f), wide_f),
            (Store::I8 { q, scale, block: 2 }, expected_q),
        ] {
            let w = FrozenWeight::new(out, inp, store, Compute::F32);
            assert_eq!(w.to_f32(), expected);
            let mut row = vec![0.0; inp];
            w.row(1, &mut row);
            assert_eq!(row, expected[5..10]);
            assert_eq!((w.out_features(), w.in_features(), w.bytes()), (3, 5, 60));
        }
    }

    #[test]
    fn forward_and_backward_are_the_products() {
        let (t, out, inp) = (6, 33, 19);
        let values = noise(out * inp, 4);
        let w = FrozenWeight::new(out, inp, Store::F32(values.clone()), Compute::F32);
        let (x, dy, start) = (noise_rows(t, inp, 5), noise_rows(t, out, 6), noise_rows(t, inp, 7));
        let (mut y, mut dx) = (Rows::scratch(t, out), start.copy());
        w.forward(&x, &mut y);
        w.backward(&dy, -0.6, &mut dx);
        for i in 0..t {
            for o in 0..out {
                let sum: f64 =
                    (0..inp).map(|c| f64::from(x.row(i)[c]) * f64::from(values[o * inp + c])).sum();
                assert!((f64::from(y.row(i)[o]) - sum).abs() < 1e-5);
            }
            for c in 0..inp {
                let sum: f64 =
                    (0..out).map(|o| f64::from(dy.row(i)[o]) * f64::from(values[o * inp + c])).sum();
                assert!((f64::from(dx.row(i)[c]) - sum + 0.6 * f64::from(start.row(i)[c])).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn a_changed_value_changes_the_hash_and_a_nan_is_found() {
        let make = |values: &[f32]| FrozenWeight::new(3, 5, Store::F32(values.to_vec()), Compute::F32);
        let values = noise(15, 8);
        let base = make(&values);
        assert_eq!(base.hash64(), make(&values).hash64());
        assert!(!base.has_non_finite());
        for i in 0..15 {
            let mut other = values.clone();
            other[i] = f32::from_bits(other[i].to_bits() ^ 1);
            assert_ne!(base.hash64(), make(&other).hash64());
            other[i] = f32::NAN;
            assert!(make(&other).has_non_finite());
        }
        let turned = FrozenWeight::new(5, 3, Store::F32(values), Compute::F32);
        assert_ne!(base.hash64(), turned.hash64());
    }
}
