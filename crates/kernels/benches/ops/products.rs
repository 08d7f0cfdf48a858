//! Products: of f32 matrices, with LoRA's thin factors, with frozen weights in 16, 8 and 4 bits.

use crate::{Bench, Op, Target, values};
use sibo_kernels::frozen::{Bits, Compute, FrozenWeight, Store, encode};
use sibo_kernels::{Rows, gemm};

/// Rows, in features and out features: SmolLM2-135M's projections and a part of its head,
const SHAPES: [(usize, usize, usize); 5] =
    [(1024, 576, 1536), (1024, 1536, 576), (1024, 576, 576), (1024, 576, 192), (512, 576, 8192)];
/// LoRA's two factors.
const THIN: [(usize, usize, usize); 2] = [(1024, 576, 32), (1024, 32, 576)];
/// Writing text: one row, a beam and a batch through a projection, which a cache holds, and through the whole head, which
/// none does.
const FEW: [(usize, usize, usize); 5] =
    [(1, 576, 1536), (4, 576, 1536), (16, 576, 1536), (1, 576, 49152), (16, 576, 49152)];

pub(crate) fn measure(bench: &mut Bench) {
    for shape in THIN {
        matrices(bench, shape);
    }
    for shape in SHAPES.into_iter().chain(FEW) {
        matrices(bench, shape);
        for bits in [None, Some(Bits::Eight), Some(Bits::Four)] {
            frozen(bench, shape, bits);
        }
    }
}

/// The name of a shape.
fn named(kind: &str, (t, k, n): (usize, usize, usize)) -> String {
    format!("{kind} {t}x{k}x{n}")
}

/// y = x W^T, dx = dy W and dW = dy^T x in f32.
fn matrices(bench: &mut Bench, shape: (usize, usize, usize)) {
    let (t, k, n) = shape;
    let w = Rows::from_vec(values(n * k), k);
    let (x, dy) = (Rows::from_vec(values(t * k), k), Rows::from_vec(values(t * n), n));
    let (y, dx, dw) = (Target::new(t, n), Target::new(t, k), Target::new(n, k));
    let moved = t * k + n * k + t * n;
    bench.group(
        "f32 product",
        &[
            Op::new(named("forward", shape), moved, || gemm::nt(1.0, &x, w.data(), 0.0, &mut y.get())),
            Op::new(named("input gradient", shape), moved, || {
                gemm::nn(1.0, &dy, w.data(), 0.0, &mut dx.get())
            }),
            Op::new(named("weight gradient", shape), moved, || {
                gemm::tn(1.0, &dy, &x, 0.0, dw.get().data_mut());
            }),
        ],
    );
}

/// y = x W^T and dx = dy W with a frozen weight under bf16 compute; its own bytes are counted as it is read.
fn frozen(bench: &mut Bench, shape: (usize, usize, usize), bits: Option<Bits>) {
    let (t, k, n) = shape;
    let store = match bits {
        None => Store::F32(values(n * k)),
        Some(bits) => encode(&values(n * k), k, bits, 64).store,
    };
    let w = FrozenWeight::new(n, k, store, Compute::Bf16);
    let (x, dy) = (Rows::from_vec(values(t * k), k), Rows::from_vec(values(t * n), n));
    let (y, dx) = (Target::new(t, n), Target::new(t, k));
    let name = match bits {
        None => "frozen bf16",
        Some(Bits::Eight) => "frozen 8 bits",
        Some(Bits::Four) => "frozen 4 bits",
    };
    bench.group(
        name,
        &[
            Op::new(named("forward", shape), t * (k + n), || w.forward(&x, &mut y.get())),
            Op::new(named("input gradient", shape), t * (k + n), || w.backward(&dy, 0.0, &mut dx.get())),
        ],
    );
}
