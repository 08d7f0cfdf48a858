//! Everything that goes over rows once: sums, activations, norms, rotations, dropout, SIBO's mix, the loss, the
//! optimiser. The matrices are larger than any cache, so that memory is the limit that is stated.

use crate::{Bench, Op, Target, values};
use sibo_kernels::activation::{self, Activation};
use sibo_kernels::{Rows, drop, elementwise, layer_norm, loss, mix, optim, rms_norm, rope};
use std::sync::Mutex;

/// Rows and width.
const T: usize = 16384;
const D: usize = 1024;
const N: usize = T * D;

pub(crate) fn measure(bench: &mut Bench) {
    // Each operand is a matrix of its own: what is read a second time would come from a cache.
    let [x, h, g] = [(); 3].map(|()| Rows::from_vec(values(N), D));
    let (y, z) = (Target::new(T, D), Target::new(T, D));
    sums(bench, &x, &y);
    activations(bench, [&x, &h, &g], &y, &z);
    norms(bench, &x, &h, &y);
    positions_and_masks(bench, &x, &h, &y);
    training(bench, &x, &y, &z);
}

/// An operation that passes over `passes` matrices.
fn op<'a>(name: &str, passes: usize, work: impl Fn() + Sync + 'a) -> Op<'a> {
    Op::new(name.into(), passes * N, work)
}

fn sums(bench: &mut Bench, x: &Rows, y: &Target) {
    let bias = values(D);
    let gradient = Mutex::new(values(D));
    let gradient = || gradient.lock().expect("no timed closure panics");
    bench.group(
        "sums",
        &[
            op("add", 3, || elementwise::add(x, &mut y.get())),
            op("scale", 2, || elementwise::scale(1.0001, &mut y.get())),
            op("bias", 2, || elementwise::add_bias(&bias, &mut y.get())),
            op("bias gradient", 1, || elementwise::bias_grad(x, &mut gradient())),
            op("sum of squares", 1, || {
                optim::sum_squares(x.data());
            }),
        ],
    );
}

fn activations(bench: &mut Bench, [x, h, g]: [&Rows; 3], y: &Target, z: &Target) {
    let silu = Activation::Silu;
    let mut ops = vec![];
    for kind in [Activation::GeluErf, Activation::GeluTanh, Activation::Silu, Activation::Relu] {
        ops.push(op(&format!("{kind:?}"), 2, move || activation::forward(kind, x, &mut y.get())));
        ops.push(op(&format!("{kind:?} gradient"), 3, move || activation::backward(kind, x, &mut y.get())));
    }
    ops.push(op("gated", 3, || activation::gated::forward(silu, x, h, &mut y.get())));
    ops.push(op("gated gradient", 5, || {
        activation::gated::backward(silu, x, h, g, &mut y.get(), &mut z.get());
    }));
    bench.group("activation", &ops);
}

fn norms(bench: &mut Bench, x: &Rows, dy: &Rows, y: &Target) {
    let weight = values(D);
    let stats = Mutex::new(vec![0.0; 2 * T]);
    let stats = || stats.lock().expect("no timed closure panics");
    let gradients = Mutex::new((values(D), values(D)));
    layer_norm::forward(x, &weight, &weight, 1e-5, &mut y.get(), &mut stats());
    let kept = stats().clone();
    bench.group(
        "norm",
        &[
            op("LayerNorm", 2, || {
                layer_norm::forward(x, &weight, &weight, 1e-5, &mut y.get(), &mut stats());
            }),
            op("LayerNorm gradient", 3, || layer_norm::backward(x, &weight, &kept, dy, &mut y.get(), None)),
            op("LayerNorm gradient, trained", 3, || {
                let (dw, db) = &mut *gradients.lock().expect("no timed closure panics");
                layer_norm::backward(x, &weight, &kept, dy, &mut y.get(), Some((dw, db)));
            }),
            op("RMSNorm", 2, || rms_norm::forward(x, &weight, 1e-5, &mut y.get(), &mut stats()[..T])),
            op("RMSNorm gradient", 3, || rms_norm::backward(x, &weight, &kept[..T], dy, &mut y.get(), None)),
        ],
    );
}

fn positions_and_masks(bench: &mut Bench, x: &Rows, h0: &Rows, y: &Target) {
    let frequencies: Vec<f32> = values(32).iter().map(|v| v.abs()).collect();
    let table = rope::RopeTable::new(&frequencies, 2048);
    let positions: Vec<u32> = (0..T as u32).map(|t| t % 2048).collect();
    let keys = drop::row_keys(drop::DropKey { seed: 1, epoch: 2 }, &vec![3; T], &positions, 4, 5);
    let mask = drop::Mask { p: 0.05, keys };
    let mut ops = vec![];
    for style in [rope::RopeStyle::Halves, rope::RopeStyle::Interleaved] {
        let (table, positions) = (&table, &positions);
        ops.push(op(&format!("rotation {style:?}"), 2, move || {
            rope::apply(style, table, positions, &mut y.get(), D / 64, 64);
        }));
    }
    ops.push(op("dropout", 2, || {
        mask.copy(x);
    }));
    for (name, scale) in [("mix raw", mix::H0Scale::Raw), ("mix rms", mix::H0Scale::Rms)] {
        ops.push(op(name, 3, move || mix::forward(0.3, scale, x, h0, &mut y.get())));
    }
    ops.push(op("mix raw with dropout", 3, || {
        mix::forward_dropped(0.3, mix::H0Scale::Raw, x, h0, &mask, &mut y.get());
    }));
    bench.group("rows", &ops);
}

fn training(bench: &mut Bench, x: &Rows, y: &Target, z: &Target) {
    let targets: Vec<u32> = (0..T).map(|t| (t * 13 % D) as u32).collect();
    let p = Target::new(T, D);
    z.get().data_mut().iter_mut().for_each(|v| *v = v.abs());
    bench.group(
        "training",
        &[
            op("cross entropy and its gradient", 2, || {
                loss::cross_entropy(&mut y.get(), &targets, 0.1, true);
            }),
            op("AdamW", 7, || {
                let (mut p, mut m, mut v) = (p.get(), y.get(), z.get());
                optim::adamw(
                    p.data_mut(),
                    x.data(),
                    m.data_mut(),
                    v.data_mut(),
                    1e-6,
                    0.9,
                    0.99,
                    1e-8,
                    0.01,
                    3,
                );
            }),
        ],
    );
}
