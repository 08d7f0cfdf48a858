//! How fast the kernels run: `cargo bench -p sibo-kernels [-- FILTER]`. Prints GFLOP/s of matrix products and
//! nanoseconds per element of the other operations, best of several runs, for 1 and 2 threads.

use sibo_kernels::{Rows, gemm};
use std::time::Instant;

/// Seconds of the fastest of the runs that fit into about 0.4 s.
fn best(mut work: impl FnMut()) -> f64 {
    work();
    let start = Instant::now();
    let mut best = f64::INFINITY;
    let mut runs = 0;
    while runs < 3 || (start.elapsed().as_secs_f64() < 0.4 && runs < 200) {
        let one = Instant::now();
        work();
        best = best.min(one.elapsed().as_secs_f64());
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

fn products(pools: &[rayon::ThreadPool]) {
    println!("f32 products, GFLOP/s on 1 / 2 threads (T x K x N)");
    let shapes = [
        (1024, 576, 1536),
        (1024, 1536, 576),
        (1024, 576, 576),
        (1024, 576, 192),
        (1024, 576, 32),
        (1024, 32, 576),
        (512, 576, 49152),
        (16, 576, 1536),
        (1, 576, 1536),
        (1, 576, 49152),
    ];
    for (t, k, n) in shapes {
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

fn main() {
    let filter = std::env::args().skip(1).find(|a| !a.starts_with("--")).unwrap_or_default();
    let pools = pools();
    println!("instruction set: {}", sibo_kernels::isa::isa());
    if "products".contains(&filter) {
        products(&pools);
    }
}
