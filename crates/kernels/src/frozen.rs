//! [`FrozenWeight`]: the only place that knows how the weight of a frozen linear layer is stored.

mod code;
mod coded;
#[cfg(target_arch = "x86_64")]
mod expand;
#[cfg(target_arch = "x86_64")]
mod f16;
mod few;
#[cfg(target_arch = "x86_64")]
mod integers;
mod pack;
mod panels;
mod product;
mod store;
#[cfg(target_arch = "x86_64")]
mod turn;
mod widened;

use crate::Rows;
use crate::pool::Lasting;
use crate::{gemm, work};
pub use code::{Bits, Encoded, encode};
use pack::By;
pub(crate) use pack::{round, round_to_bf16};
use panels::Panels;
use rayon::prelude::*;
pub use store::Store;

/// In which arithmetic layers multiply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compute {
    /// f32 throughout.
    #[default]
    F32,
    /// Operands (the weight, and rows on their way into the product) rounded to bf16, products
    /// summed in f32. A weight that is read in 8 or 4 bits stays in them.
    Bf16,
}

/// The weight of a frozen linear layer, (out, in), converted once into the form its arithmetic
/// wants. It has no gradient slot.
pub struct FrozenWeight {
    out: usize,
    inp: usize,
    values: Values,
}

enum Values {
    /// Row-major (out, in): products pack it on the way, rows and a few inner products read it as
    /// it is.
    F32(Lasting<f32>),
    Panels(Panels),
}

impl FrozenWeight {
    /// Takes a weight of shape (out, in) as it was read.
    ///
    /// # Panics
    /// When the lengths do not fit the shape; the loader checks files before.
    pub fn new(out: usize, inp: usize, store: Store, compute: Compute) -> FrozenWeight {
        FrozenWeight::by(By::All, out, inp, &store, compute)
    }

    /// The same on the calling thread alone, for one that reads ahead of others that compute.
    ///
    /// # Panics
    /// When the lengths do not fit the shape.
    pub fn new_alone(out: usize, inp: usize, store: &Store, compute: Compute) -> FrozenWeight {
        FrozenWeight::by(By::One, out, inp, store, compute)
    }

    fn by(by: By, out: usize, inp: usize, store: &Store, compute: Compute) -> FrozenWeight {
        store.check(out, inp);
        let values = match compute {
            Compute::F32 => {
                let mut values = Lasting::zeros(out * inp);
                store.rows_into(inp, &mut values, by);
                Values::F32(values)
            }
            Compute::Bf16 => Values::Panels(Panels::new(out, inp, store, by)),
        };
        FrozenWeight { out, inp, values }
    }

    /// Takes another weight of the same shape into the same memory, on the calling thread alone.
    ///
    /// # Panics
    /// When the lengths do not fit the shape.
    pub fn refill(&mut self, store: &Store) {
        store.check(self.out, self.inp);
        match &mut self.values {
            Values::F32(values) => store.rows_into(self.inp, values, By::One),
            Values::Panels(packed) => packed.refill(store, By::One),
        }
    }

    /// Bytes of memory that a weight of this shape takes: one that was read in so many bits with a scale for so many
    /// columns, or in floats.
    pub fn bytes_for(out: usize, inp: usize, coding: Option<(Bits, usize)>, compute: Compute) -> usize {
        match compute {
            Compute::F32 => out * inp * size_of::<f32>(),
            Compute::Bf16 => Panels::bytes_for(out, inp, coding),
        }
    }

    /// Floats of memory that a product with a frozen weight takes beside its operands and its result, where the other
    /// operand has so many rows and columns: those of the operand as bf16, where they are rounded all at once.
    pub fn set_aside(rows: usize, width: usize, compute: Compute) -> usize {
        if compute == Compute::Bf16 && product::rounds_first(rows) { rows * width.div_ceil(2) } else { 0 }
    }

    /// The number of out features, N.
    pub fn out_features(&self) -> usize {
        self.out
    }

    /// The number of in features, K.
    pub fn in_features(&self) -> usize {
        self.inp
    }

    /// In which arithmetic it multiplies.
    pub fn compute(&self) -> Compute {
        match self.values {
            Values::F32(_) => Compute::F32,
            Values::Panels(_) => Compute::Bf16,
        }
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        match &self.values {
            Values::F32(values) => size_of_val(&values[..]),
            Values::Panels(packed) => packed.bytes(),
        }
    }

    /// y = x W^T; x (T, K), y (T, N).
    pub fn forward(&self, x: &Rows, y: &mut Rows) {
        self.forward_onto(x, 0.0, y);
    }

    /// y = beta y + x W^T; x (T, K), y (T, N).
    pub fn forward_onto(&self, x: &Rows, beta: f32, y: &mut Rows) {
        forward_all(x, beta, &mut [(self, y)]);
    }

    fn check(&self, x: &Rows, y: &Rows) {
        assert_eq!(x.width(), self.inp, "x is not as wide as the weight's input");
        assert_eq!(y.width(), self.out, "y is not as wide as the weight's output");
        assert_eq!(x.rows(), y.rows(), "x and y differ in rows");
    }

    /// dx = beta dx + dy W; dy (T, N), dx (T, K). The weight itself has no gradient.
    pub fn backward(&self, dy: &Rows, beta: f32, dx: &mut Rows) {
        assert_eq!(dx.width(), self.inp, "dx is not as wide as the weight's input");
        assert_eq!(dy.width(), self.out, "dy is not as wide as the weight's output");
        assert_eq!(dy.rows(), dx.rows(), "dy and dx differ in rows");
        match &self.values {
            Values::F32(values) => gemm::nn(1.0, dy, values, beta, dx),
            Values::Panels(packed) => {
                work::add_bytes(packed.bytes());
                product::backward(packed, dy, beta, dx);
            }
        }
    }

    /// Row `i` of W as the products see it, widened: out (K).
    pub fn row(&self, i: usize, out: &mut [f32]) {
        assert!(i < self.out, "row {i} of a weight with {} rows", self.out);
        match &self.values {
            Values::F32(values) => out.copy_from_slice(&values[i * self.inp..(i + 1) * self.inp]),
            Values::Panels(packed) => packed.row(i, out),
        }
    }

    /// All of W as the products see it, widened, (N, K).
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.values {
            Values::F32(values) => values.to_vec(),
            Values::Panels(packed) => {
                let mut wide = vec![0.0; self.out * self.inp];
                if self.inp > 0 {
                    let rows = wide.par_chunks_mut(self.inp).enumerate();
                    rows.for_each(|(i, row)| packed.row(i, row));
                }
                wide
            }
        }
    }

    /// Whether any value, as it was read, is infinite or not a number.
    pub fn has_non_finite(&self) -> bool {
        match &self.values {
            // On the calling thread alone, as `refill` is.
            Values::F32(values) => {
                values.chunks(1 << 12).any(|c| !c.iter().fold(true, |all, v| all & v.is_finite()))
            }
            Values::Panels(packed) => packed.facts().non_finite(),
        }
    }
}

/// y = beta y + x W^T for several weights that read the same x (T, K), each with its y (T, N): as one after another, bit
/// for bit, but x is rounded once, and a few rows are one parallel operation.
pub fn forward_all(x: &Rows, beta: f32, of: &mut [(&FrozenWeight, &mut Rows)]) {
    let mut packed = Vec::with_capacity(of.len());
    for (w, y) in of {
        w.check(x, y);
        match &w.values {
            Values::F32(values) => gemm::nt(1.0, x, values, beta, y),
            Values::Panels(panels) => {
                work::add_bytes(panels.bytes());
                packed.push((panels, y.data_mut().as_mut_ptr()));
            }
        }
    }
    // f32 has nothing to round.
    if !packed.is_empty() {
        // SAFETY: every y is borrowed exclusively and has the shape of its product.
        unsafe { product::forward(x, beta, &packed) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::*;
    use half::{bf16, f16};

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

    /// Whatever the file holds, packing finds what is not finite, and packing again gives the bits of packing anew.
    #[test]
    fn a_weight_is_taken_again_into_the_same_memory_and_a_nan_is_found() {
        let (out, inp) = (75, 38);
        let stores = |seed: u64| {
            let v = noise(out * inp, seed);
            let coded = |bits, block| encode(&v, inp, bits, block).store;
            [
                Store::Bf16(v.iter().map(|v| bf16::from_f32(*v)).collect()),
                Store::F16(v.iter().map(|v| f16::from_f32(*v)).collect()),
                coded(Bits::Eight, 19),
                coded(Bits::Four, 2),
                coded(Bits::Four, 38),
                Store::F32(v.clone()),
            ]
        };
        for compute in [Compute::F32, Compute::Bf16] {
            for (first, second) in stores(1).into_iter().zip(stores(2)) {
                let fresh = FrozenWeight::new(out, inp, second.clone(), compute);
                let mut again = FrozenWeight::new(out, inp, first, compute);
                let coding = match &second {
                    Store::I8 { block, .. } => Some((Bits::Eight, *block)),
                    Store::I4 { block, .. } => Some((Bits::Four, *block)),
                    _ => None,
                };
                again.refill(&second);
                assert_eq!(again.to_f32(), fresh.to_f32());
                assert_eq!(again.bytes(), FrozenWeight::bytes_for(out, inp, coding, compute));
                assert!(!again.has_non_finite());
                let mut spoilt = second;
                match &mut spoilt {
                    Store::Bf16(v) => v[out * inp - 1] = bf16::NEG_INFINITY,
                    Store::F16(v) => v[7] = f16::NAN,
                    Store::F32(v) => v[100] = f32::INFINITY,
                    Store::I8 { scale, .. } | Store::I4 { scale, .. } => scale[5] = f32::NAN,
                }
                again.refill(&spoilt);
                assert!(again.has_non_finite(), "{compute:?} {coding:?}");
            }
        }
        let mut other = FrozenWeight::new(out, inp, stores(3)[0].clone(), Compute::Bf16);
        other.refill(&stores(4)[2]);
        assert_eq!(other.to_f32(), FrozenWeight::new(out, inp, stores(4)[2].clone(), Compute::Bf16).to_f32());
    }

    fn rounded(v: &[f32]) -> Vec<f64> {
        v.iter().map(|v| bf16::from_f32(*v).to_f64()).collect()
    }

    /// Under bf16 compute: products of operands rounded to bf16, at sizes beside the panels (32),
    /// pairs (2), cuts of the contraction (512 steps) and tasks.
    #[test]
    fn bf16_products_equal_the_naive_ones_of_rounded_operands() {
        for (t, inp, out) in
            [(1, 1, 1), (1, 37, 65), (3, 1090, 33), (17, 64, 1100), (45, 71, 66), (230, 97, 131)]
        {
            let values = noise(out * inp, 1);
            let w = FrozenWeight::new(out, inp, Store::F32(values.clone()), Compute::Bf16);
            let (x, dy, start) = (noise_rows(t, inp, 2), noise_rows(t, out, 3), noise_rows(t, inp, 4));
            let (rw, rx, rdy) = (rounded(&values), rounded(x.data()), rounded(dy.data()));
            let (mut y, mut dx) = (vec![0.0; t * out], vec![0.0; t * inp]);
            for i in 0..t {
                for c in 0..inp {
                    dx[i * inp + c] = -0.6 * f64::from(start.row(i)[c]);
                }
                for o in 0..out {
                    for c in 0..inp {
                        y[i * out + o] += rx[i * inp + c] * rw[o * inp + c];
                        dx[i * inp + c] += rdy[i * out + o] * rw[o * inp + c];
                    }
                }
            }
            let run = || {
                let (mut y, mut dx, mut dx_new) =
                    (Rows::scratch(t, out), start.copy(), Rows::scratch(t, inp));
                w.forward(&x, &mut y);
                w.backward(&dy, -0.6, &mut dx);
                dx_new.data_mut().fill(f32::NAN);
                w.backward(&dy, 0.0, &mut dx_new);
                assert!(dx_new.data().iter().all(|v| v.is_finite()));
                [y.data(), dx.data()].concat()
            };
            everywhere(run, |isa, found| {
                let (fast_y, fast_dx) = found.split_at(t * out);
                // In f16 the rows are rounded less and the sums more.
                let tolerance = if isa == Isa::Avx512Fp16 { 5e-3 } else { 5e-6 };
                assert_close(&format!("{isa} {t}x{inp}x{out} y"), fast_y, &y, tolerance);
                assert_close(&format!("{isa} {t}x{inp}x{out} dx"), fast_dx, &dx, tolerance);
            });
            assert_eq!(wide(&w.to_f32()), rw);
        }
    }

    /// Several weights that read the same rows give, each, what the naive product gives and the bits of a product of
    /// their own, in every form that a weight has, onto what was there.
    #[test]
    fn weights_that_share_their_input_give_what_each_gives_alone() {
        let inp = 70;
        for t in [1, 3, 4, 5, 17, 32, 33, 61] {
            let x = noise_rows(t, inp, 1);
            for compute in [Compute::F32, Compute::Bf16] {
                let shapes = [(67, None), (130, Some(Bits::Eight)), (33, Some(Bits::Four)), (600, None)];
                let weights: Vec<FrozenWeight> = (2..)
                    .zip(shapes)
                    .map(|(seed, (out, bits))| {
                        let values = noise(out * inp, seed);
                        let store =
                            bits.map_or(Store::F32(values.clone()), |b| encode(&values, inp, b, 14).store);
                        FrozenWeight::new(out, inp, store, compute)
                    })
                    .collect();
                let starts: Vec<Rows> =
                    (7..).zip(&weights).map(|(seed, w)| noise_rows(t, w.out, seed)).collect();
                for beta in [0.0, 1.0, -0.7] {
                    let together = || {
                        let mut y: Vec<Rows> = starts.iter().map(Rows::copy).collect();
                        let mut of: Vec<_> = weights.iter().zip(&mut y).collect();
                        forward_all(&x, beta, &mut of);
                        y.iter().flat_map(|y| y.data().to_vec()).collect::<Vec<f32>>()
                    };
                    let apart = || {
                        let one = |(w, start): (&FrozenWeight, &Rows)| {
                            let mut y = start.copy();
                            w.forward_onto(&x, beta, &mut y);
                            y.data().to_vec()
                        };
                        weights.iter().zip(&starts).flat_map(one).collect::<Vec<f32>>()
                    };
                    let mut expected = Vec::new();
                    for (w, start) in weights.iter().zip(&starts) {
                        let wide = w.to_f32();
                        let one = |v: f32| {
                            if compute == Compute::F32 { f64::from(v) } else { bf16::from_f32(v).to_f64() }
                        };
                        for i in 0..t {
                            for (o, row) in wide.chunks(inp).enumerate() {
                                let sum: f64 =
                                    row.iter().zip(x.row(i)).map(|(w, x)| f64::from(*w) * one(*x)).sum();
                                expected.push(sum + f64::from(beta) * f64::from(start.row(i)[o]));
                            }
                        }
                    }
                    everywhere(together, |isa, found| {
                        let what = format!("{isa} {compute:?}, {t} rows, beta {beta}");
                        // Codes may be multiplied as integers, which rounds less: see `coded`.
                        let tolerance = if compute == Compute::F32 { 5e-6 } else { 5e-3 };
                        assert_close(&what, found, &expected, tolerance);
                        let awake = crate::isa::with_isa(isa, || {
                            let pool =
                                rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("threads");
                            pool.install(|| {
                                crate::isa::with_isa(isa, || crate::awake::while_working(together))
                            })
                        });
                        assert!(found == awake, "{what}: other bits with threads awake");
                        let alone = crate::isa::with_isa(isa, apart);
                        let same = found.iter().zip(&alone).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(same, "{what}: other bits than alone");
                    });
                }
            }
        }
    }

    #[test]
    fn rounding_to_bf16_is_ieee() {
        for i in 0..=u16::MAX {
            for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let x = f32::from_bits(u32::from(i) << 16 | low);
                let (found, expected) = (pack::round_to_bf16(x), bf16::from_f32(x));
                assert!(
                    found == expected.to_bits() || x.is_nan() && bf16::from_bits(found).is_nan(),
                    "{x:e}"
                );
            }
        }
    }
}
