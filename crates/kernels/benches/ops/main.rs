//! How fast each operation is and how far from what this machine could do: `cargo bench -p sibo-kernels [-- FILTER]`.
//!
//! Criterion measures, on one thread and on two, prints its intervals and compares with its last run (`-- --save-baseline
//! NAME`, `-- --baseline NAME`). After it a table holds the fastest sample of each operation against its roofline: the
//! multiplications that were counted while it ran at the rate of this machine, or the bytes that it must read and write at
//! the rate at which this machine reads, whichever takes longer. Both rates are measured in the same run, on the same
//! threads. What is neither a product nor a transfer (exponentials, norms) counts as nothing, and a line that is
//! written is read first, so such operations end below 100 %.

mod attention;
mod elementwise;
mod products;

use criterion::{Criterion, SamplingMode};
use sibo_kernels::peak::{self, Peak};
use sibo_kernels::{Rows, work};
use std::cell::{Cell, OnceCell};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// One operation at one size.
pub(crate) struct Op<'a> {
    name: String,
    /// Bytes of rows that must move, beside those of weights that are counted while it runs.
    bytes: f64,
    work: Box<dyn Fn() + Sync + 'a>,
}

impl<'a> Op<'a> {
    /// An operation that reads and writes `floats` f32 of rows.
    pub(crate) fn new(name: String, floats: usize, work: impl Fn() + Sync + 'a) -> Op<'a> {
        Op { name, bytes: (4 * floats) as f64, work: Box::new(work) }
    }
}

/// Rows that timed closures overwrite, one at a time.
pub(crate) struct Target(Mutex<Rows>);

impl Target {
    pub(crate) fn new(rows: usize, width: usize) -> Target {
        Target(Mutex::new(Rows::from_vec(values(rows * width), width)))
    }

    pub(crate) fn get(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().expect("no timed closure panics")
    }
}

/// So many values between -0.73 and 0.72, none of them 0.
pub(crate) fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 % 1013) as f32 - 505.5) / 700.0).collect()
}

/// Measures operations on one pool and keeps the lines of the table.
pub(crate) struct Bench<'c> {
    criterion: &'c mut Criterion,
    pool: &'c rayon::ThreadPool,
    /// Of this pool, measured when the first operation has been.
    peak: &'c OnceCell<Peak>,
    lines: &'c mut Vec<[String; 6]>,
}

impl Bench<'_> {
    /// Measures some operations that belong together.
    pub(crate) fn group(&mut self, name: &str, ops: &[Op]) {
        let (pool, threads) = (self.pool, self.pool.current_num_threads());
        let mut group = self.criterion.benchmark_group(format!("{name}/{threads}"));
        group.sampling_mode(SamplingMode::Flat);
        for op in ops {
            let fastest = Cell::new(f64::INFINITY);
            group.bench_function(&op.name, |bencher| {
                bencher.iter_custom(|rounds| {
                    let seconds = pool.install(|| seconds(rounds, &op.work));
                    fastest.set(fastest.get().min(seconds / rounds as f64));
                    Duration::from_secs_f64(seconds)
                });
            });
            // Nothing was measured where the filter of the command line leaves the operation out.
            let fastest = fastest.get();
            if fastest.is_finite() {
                let peak = self.peak.get_or_init(|| pool.install(peak::measure));
                self.lines.push(pool.install(|| line(name, op, threads, fastest, peak)));
            }
        }
        group.finish();
    }
}

/// How long so many rounds take: CPU time on one thread, because on a busy machine the wall clock counts the others' work
/// too; the wall clock on more.
fn seconds(rounds: u64, work: &(dyn Fn() + Sync)) -> f64 {
    let origin = Instant::now();
    let alone = sibo_kernels::threads() == 1;
    let now = || if alone { thread_seconds() } else { origin.elapsed().as_secs_f64() };
    let start = now();
    (0..rounds).for_each(|_| work());
    // A clock of nanoseconds may say nothing for an empty operation, which Criterion refuses.
    (now() - start).max(1e-9)
}

/// Seconds that this thread has had a CPU.
fn thread_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills in the structure it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// The operation's line: what it is, threads, time, rates, the least time, the share of it.
fn line(group: &str, op: &Op, threads: usize, seconds: f64, peak: &Peak) -> [String; 6] {
    let start = work::done();
    (op.work)();
    let done = work::done().since(start);
    let (f32_gflop, bf16_gflop) = (done.f32_flop as f64 / 1e9, done.bf16_flop as f64 / 1e9);
    let gbytes = (op.bytes + done.bytes as f64) / 1e9;
    let arithmetic = f32_gflop / peak.f32_gflops + bf16_gflop / peak.bf16_gflops;
    let memory = gbytes / peak.read_gbytes;
    let least = arithmetic.max(memory);
    let limit = if arithmetic > memory { "arithmetic" } else { "memory" };
    [
        format!("{group}: {}", op.name),
        threads.to_string(),
        format!("{:.1} us", seconds * 1e6),
        format!("{:.0} GFLOP/s, {:.1} GB/s", (f32_gflop + bf16_gflop) / seconds, gbytes / seconds),
        format!("{:.1} us ({limit})", least * 1e6),
        format!("{:.0} %", 100.0 * least / seconds),
    ]
}

/// Columns as wide as their widest entry.
fn print_table(lines: &[[String; 6]]) {
    let head = ["operation", "threads", "time", "rates", "least time", "reached"].map(String::from);
    let all: Vec<&[String; 6]> = std::iter::once(&head).chain(lines).collect();
    let widths: [usize; 6] = std::array::from_fn(|c| all.iter().map(|line| line[c].len()).max().unwrap_or(0));
    for line in all {
        let cells: Vec<String> = line.iter().zip(widths).map(|(cell, w)| format!("{cell:<w$}")).collect();
        println!("{}", cells.join("  ").trim_end());
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300))
        .configure_from_args();
    let mut lines = vec![];
    let mut ceilings = String::new();
    for threads in [1, 2] {
        let pool =
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started");
        let peak = OnceCell::new();
        let mut bench = Bench { criterion: &mut criterion, pool: &pool, peak: &peak, lines: &mut lines };
        products::measure(&mut bench);
        elementwise::measure(&mut bench);
        attention::measure(&mut bench);
        if let Some(Peak { f32_gflops, bf16_gflops, read_gbytes }) = peak.get() {
            ceilings += &format!(
                "{threads} threads at most: {f32_gflops:.0} GFLOP/s in f32, {bf16_gflops:.0} in bf16, {read_gbytes:.1} GB/s\n"
            );
        }
    }
    criterion.final_summary();
    println!("\ninstruction set: {}\n{ceilings}", sibo_kernels::isa::isa());
    print_table(&lines);
}
