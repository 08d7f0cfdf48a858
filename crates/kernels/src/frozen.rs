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
        let mut h = fold(self.out as u64, self.inp as u64);
        for i in 0..self.out {
            self.row(i, &mut row);
            h = row.iter().fold(h, |h, v| fold(h, u64::from(v.to_bits())));
        }
        h
    }
}

/// One step of a 64-bit multiplicative hash (a large odd constant; the high bits are folded down).
fn fold(h: u64, value: u64) -> u64 {
    let h = (h ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h ^ (h >> 32)
}
