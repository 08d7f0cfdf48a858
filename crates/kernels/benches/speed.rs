//! How fast the kernels run: `cargo bench -p sibo-kernels [-- FILTER]`. Prints GFLOP/s of matrix
//! products and nanoseconds per element of the other operations, best of several runs, for 1 and 2
//! threads.

use sibo_kernels::activation::{self, Activation};
use sibo_kernels::attention::{self, AttnShape, Seq};
use sibo_kernels::frozen::{Bits, Compute, FrozenWeight, Store, encode};
use sibo_kernels::{Rows, drop, elementwise, gemm, layer_norm, loss, mix, optim, rms_norm, rope};
use std::time::Instant;

/// Seconds that this thread has had a CPU: on a busy machine the wall clock counts the others' work
/// too.
fn thread_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills in the structure it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Seconds of the fastest of the runs that fit into about 0.4 s: CPU time on one thread, wall clock
/// on more.
fn best(mut work: impl FnMut()) -> f64 {
    work();
    let (start, origin) = (Instant::now(), Instant::now());
    let alone = sibo_kernels::threads() == 1;
    let now = || if alone { thread_seconds() } else { origin.elapsed().as_secs_f64() };
    let mut best = f64::INFINITY;
    let mut runs = 0;
    while runs < 3 || (start.elapsed().as_secs_f64() < 0.4 && runs < 200) {
        let before = now();
        work();
        best = best.min(now() - before);
        runs += 1;
    }
    best
}

fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 % 1013) as f32 - 506.0) / 700.0).collect()
}

fn pools() -> Vec<rayon::ThreadPool> {
    [1, 2]
        .into_iter()
        .map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("threads can be started"))
        .collect()
}

fn on_both(pools: &[rayon::ThreadPool], work: impl Fn() + Sync) -> Vec<f64> {
    pools.iter().map(|p| p.install(|| best(&work))).collect()
}

/// Rows, in features and out features: SmolLM2-135M's projections, LoRA's, a part of the head,
/// decoding.
const SHAPES: [(usize, usize, usize); 11] = [
    (1024, 576, 1536),
    (1024, 1536, 576),
    (1024, 576, 576),
    (1024, 576, 192),
    (1024, 576, 32),
    (1024, 32, 576),
    (512, 576, 49152),
    (512, 576, 8192),
    (16, 576, 1536),
    (1, 576, 1536),
    (1, 576, 49152),
];

fn products(pools: &[rayon::ThreadPool]) {
    println!("f32 products, GFLOP/s on 1 / 2 threads (T x K x N)");
    for (t, k, n) in SHAPES {
        let w = values(n * k);
        let (x, dy) = (Rows::from_vec(values(t * k), k), Rows::from_vec(values(t * n), n));
        let flop = 2.0 * (t * k * n) as f64 / 1e9;
        let line = |name: &str, seconds: Vec<f64>| {
            print!("  {name} {:6.1} / {:6.1}", flop / seconds[0], flop / seconds[1]);
        };
        print!("{t:5} x {k:5} x {n:5}");
        line(
            "nt",
            on_both(pools, || {
                let mut y = Rows::scratch(t, n);
                gemm::nt(1.0, &x, &w, 0.0, &mut y);
            }),
        );
        line(
            "nn",
            on_both(pools, || {
                let mut dx = Rows::scratch(t, k);
                gemm::nn(1.0, &dy, &w, 0.0, &mut dx);
            }),
        );
        line(
            "tn",
            on_both(pools, || {
                let mut dw = Rows::scratch(n, k);
                gemm::tn(1.0, &dy, &x, 0.0, dw.data_mut());
            }),
        );
        println!();
    }
}

/// As in a step: every product has a weight and rows that no cache has seen lately.
fn cold_products(pools: &[rayon::ThreadPool]) {
    println!("f32 products with operands from memory, GFLOP/s on 1 / 2 threads (T x K x N)");
    for (t, k, n) in
        [(1024, 576, 1536), (1024, 1536, 576), (1024, 576, 192), (1024, 576, 32), (1024, 32, 576)]
    {
        let count = 96_000_000 / (t * (k + n) + n * k) + 1;
        let all = |rows: usize, width: usize| -> Vec<Rows> {
            (0..count).map(|_| Rows::from_vec(values(rows * width), width)).collect()
        };
        let (w, x, dy) = (all(n, k), all(t, k), all(t, n));
        let flop = 2.0 * (t * k * n * count) as f64 / 1e9;
        let (y, dx, dw) = (Cell::new(t, n), Cell::new(t, k), Cell::new(n, k));
        let nt =
            on_both(pools, || (0..count).for_each(|i| gemm::nt(1.0, &x[i], w[i].data(), 0.0, &mut y.get())));
        let nn = on_both(pools, || {
            (0..count).for_each(|i| gemm::nn(1.0, &dy[i], w[i].data(), 0.0, &mut dx.get()))
        });
        let tn = on_both(pools, || {
            (0..count).for_each(|i| gemm::tn(1.0, &dy[i], &x[i], 0.0, dw.get().data_mut()))
        });
        print!("{t:5} x {k:5} x {n:5}");
        for (name, s) in [("nt", nt), ("nn", nn), ("tn", tn)] {
            print!("  {name} {:6.1} / {:6.1}", flop / s[0], flop / s[1]);
        }
        println!();
    }
}

fn frozen_products(pools: &[rayon::ThreadPool]) {
    println!("bf16 products with a frozen weight, GFLOP/s on 1 / 2 threads (T x K x N)");
    for (t, k, n) in SHAPES {
        let w = FrozenWeight::new(n, k, Store::F32(values(n * k)), Compute::Bf16);
        let (x, dy) = (Rows::from_vec(values(t * k), k), Rows::from_vec(values(t * n), n));
        let flop = 2.0 * (t * k * n) as f64 / 1e9;
        let forward = on_both(pools, || {
            let mut y = Rows::scratch(t, n);
            w.forward(&x, &mut y);
        });
        let backward = on_both(pools, || {
            let mut dx = Rows::scratch(t, k);
            w.backward(&dy, 0.0, &mut dx);
        });
        println!(
            "{t:5} x {k:5} x {n:5}  forward {:6.1} / {:6.1}  backward {:6.1} / {:6.1}",
            flop / forward[0],
            flop / forward[1],
            flop / backward[0],
            flop / backward[1]
        );
    }
}

/// The same weight in 16, 8 and 4 bits: decoding with one large enough that it comes from memory (the whole head), a
/// few rows, and a training batch.
fn coded_products(pools: &[rayon::ThreadPool]) {
    println!("products with a frozen weight in 16, 8 and 4 bits, microseconds on 1 / 2 threads (T x K x N)");
    for (t, k, n) in [(1, 576, 49152), (16, 576, 49152), (16, 576, 1536), (1024, 576, 1536)] {
        let (x, dy) = (Rows::from_vec(values(t * k), k), Rows::from_vec(values(t * n), n));
        for (name, bits) in [("16 bits", None), (" 8 bits", Some(Bits::Eight)), (" 4 bits", Some(Bits::Four))]
        {
            let w = values(n * k);
            let store = bits.map_or(Store::F32(w.clone()), |bits| encode(&w, k, bits, 64).store);
            let w = FrozenWeight::new(n, k, store, Compute::Bf16);
            let forward = on_both(pools, || w.forward(&x, &mut Rows::scratch(t, n)));
            let backward = on_both(pools, || w.backward(&dy, 0.0, &mut Rows::scratch(t, k)));
            let [f, b] = [forward, backward].map(|s| format!("{:8.0} / {:8.0}", s[0] * 1e6, s[1] * 1e6));
            println!("{t:5} x {k:5} x {n:5}  {name}  forward {f}  backward {b}");
        }
    }
}

/// Prints nanoseconds for each element of a (T, D) matrix.
fn line(pools: &[rayon::ThreadPool], name: &str, elements: usize, work: impl Fn() + Sync) {
    let seconds = on_both(pools, work);
    let each: Vec<String> = seconds.iter().map(|s| format!("{:7.3}", s * 1e9 / elements as f64)).collect();
    println!("{name:24} {}", each.join(" / "));
}

/// A matrix that the timed closures may overwrite, one at a time.
struct Cell(std::sync::Mutex<Rows>);

impl Cell {
    fn new(rows: usize, width: usize) -> Cell {
        Cell(std::sync::Mutex::new(Rows::from_vec(values(rows * width), width)))
    }

    fn get(&self) -> std::sync::MutexGuard<'_, Rows> {
        self.0.lock().expect("no timed closure panics")
    }
}

fn elementwise_operations(pools: &[rayon::ThreadPool]) {
    println!("nanoseconds an element on 1 / 2 threads, 1024 x 1536 (f32)");
    let (t, d) = (1024, 1536);
    let n = t * d;
    let (x, z, v) = (Cell::new(t, d), Rows::from_vec(values(n), d), values(d));
    let y = Cell::new(t, d);
    let w = Cell::new(t, d);
    let stats = std::sync::Mutex::new(vec![0.0; 2 * t]);
    line(pools, "add", n, || elementwise::add(&z, &mut y.get()));
    line(pools, "scale", n, || elementwise::scale(1.0001, &mut x.get()));
    line(pools, "add_bias", n, || elementwise::add_bias(&v, &mut y.get()));
    line(pools, "bias_grad", n, || elementwise::bias_grad(&z, w.get().row_mut(0)));
    for kind in [Activation::GeluErf, Activation::GeluTanh, Activation::Silu, Activation::Relu] {
        line(pools, &format!("{kind:?} forward"), n, || activation::forward(kind, &z, &mut y.get()));
        line(pools, &format!("{kind:?} backward"), n, || activation::backward(kind, &z, &mut y.get()));
    }
    let kind = Activation::Silu;
    line(pools, "gated forward", n, || activation::gated::forward(kind, &z, &z, &mut y.get()));
    line(pools, "gated backward", n, || {
        activation::gated::backward(kind, &z, &z, &z, &mut y.get(), &mut w.get());
    });
    let guard = || stats.lock().expect("no timed closure panics");
    line(pools, "layer_norm forward", n, || {
        layer_norm::forward(&z, &v, &v, 1e-5, &mut y.get(), &mut guard());
    });
    line(pools, "layer_norm backward", n, || {
        layer_norm::backward(&z, &v, &guard(), &z, &mut y.get(), None);
    });
    line(pools, "layer_norm dw, db", n, || {
        let (mut dw, mut db) = (v.clone(), v.clone());
        layer_norm::backward(&z, &v, &guard(), &z, &mut y.get(), Some((&mut dw, &mut db)));
    });
    line(pools, "rms_norm forward", n, || {
        rms_norm::forward(&z, &v, 1e-5, &mut y.get(), &mut guard()[..t]);
    });
    line(pools, "rms_norm backward", n, || {
        rms_norm::backward(&z, &v, &guard()[..t], &z, &mut y.get(), None);
    });
    let table = rope::RopeTable::new(&values(32).iter().map(|v| v.abs()).collect::<Vec<_>>(), t);
    let positions: Vec<u32> = (0..t as u32).collect();
    for style in [rope::RopeStyle::Halves, rope::RopeStyle::Interleaved] {
        line(pools, &format!("rope {style:?}"), n, || {
            rope::apply(style, &table, &positions, &mut y.get(), d / 64, 64);
        });
    }
    let keys = drop::row_keys(drop::DropKey { seed: 1, epoch: 2 }, &vec![3; t], &positions, 4, 5);
    let mask = drop::Mask { p: 1e-6, keys };
    line(pools, "dropout", n, || mask.apply(&mut y.get()));
    line(pools, "mix raw", n, || mix::forward(0.3, mix::H0Scale::Raw, &z, &z, &mut y.get()));
    line(pools, "mix rms", n, || mix::forward(0.3, mix::H0Scale::Rms, &z, &z, &mut y.get()));
    let targets: Vec<u32> = (0..t as u32).collect();
    line(pools, "cross entropy", n, || {
        elementwise::scale(0.5, &mut y.get());
        loss::cross_entropy(&mut y.get(), &targets, 0.1, true);
    });
    line(pools, "adamw", n, || {
        let (mut p, mut m, mut v) = (x.get(), y.get(), w.get());
        v.data_mut().iter_mut().for_each(|v| *v = v.abs());
        optim::adamw(p.data_mut(), z.data(), m.data_mut(), v.data_mut(), 1e-6, 0.9, 0.99, 1e-8, 0.01, 3);
    });
    line(pools, "sum_squares", n, || {
        optim::sum_squares(z.data());
    });
}

fn attention_operations(pools: &[rayon::ThreadPool]) {
    println!(
        "attention, GFLOP/s of the visible half on 1 / 2 threads (sequences x length, heads/kv heads x width)"
    );
    for (count, len, heads, kv_heads, c) in [(4, 256, 9, 3, 64), (1, 1024, 9, 3, 64), (32, 30, 12, 12, 64)] {
        let t = count * len;
        let shape = AttnShape { heads, kv_heads, head_dim: c, causal: true, scale: 0.125 };
        let seqs: Vec<Seq> = (0..count).map(|i| Seq { start: i * len, len }).collect();
        let q = Rows::from_vec(values(t * heads * c), heads * c);
        let k = Rows::from_vec(values(t * kv_heads * c), kv_heads * c);
        let (o, dq) = (Cell::new(t, heads * c), Cell::new(t, heads * c));
        let (dk, dv) = (Cell::new(t, kv_heads * c), Cell::new(t, kv_heads * c));
        let lse = std::sync::Mutex::new(vec![0.0; t * heads]);
        let flop = 2.0 * (count * heads * c * len * (len + 1)) as f64 / 1e9;
        let guard = || lse.lock().expect("no timed closure panics");
        let forward = on_both(pools, || {
            attention::forward(&shape, &seqs, &q, &k, &k, None, &mut o.get(), &mut guard());
        });
        let fixed = o.get().copy();
        let backward = on_both(pools, || {
            attention::backward(
                &shape,
                &seqs,
                &q,
                &k,
                &k,
                &fixed,
                &guard(),
                &q,
                None,
                &mut dq.get(),
                &mut dk.get(),
                &mut dv.get(),
            );
        });
        println!(
            "{count} x {len}, {heads}/{kv_heads} x {c}: forward {:.1} / {:.1}  backward {:.1} / {:.1}",
            flop / forward[0],
            flop / forward[1],
            2.5 * flop / backward[0],
            2.5 * flop / backward[1]
        );
    }
}

fn main() {
    let filter = std::env::args().skip(1).find(|a| !a.starts_with("--")).unwrap_or_default();
    let pools = pools();
    println!("instruction set: {}", sibo_kernels::isa::isa());
    if "products".contains(&filter) {
        products(&pools);
    }
    if "cold".contains(&filter) {
        cold_products(&pools);
    }
    if "frozen".contains(&filter) {
        frozen_products(&pools);
    }
    if "coded".contains(&filter) {
        coded_products(&pools);
    }
    if "elementwise".contains(&filter) {
        elementwise_operations(&pools);
    }
    if "attention".contains(&filter) {
        attention_operations(&pools);
    }
}
