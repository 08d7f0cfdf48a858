//! What this machine can do at most, measured: multiplications in registers and reading from memory. A time is held
//! against these numbers, so they are taken on the same threads and in the same minute.

use crate::isa::{Isa, Vectors, isa, kernel};
use crate::pool::Lasting;
use rayon::prelude::*;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The ceilings of all threads together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// 10^9 multiplications and additions of f32 a second.
    pub f32_gflops: f64,
    /// The same of what bf16 compute multiplies: bf16, summed in f32, or f16; where the CPU has neither, f32.
    pub bf16_gflops: f64,
    /// 10^9 bytes read from memory a second.
    pub read_gbytes: f64,
}

/// The best of so many attempts counts.
const ATTEMPTS: usize = 5;
/// Rounds of all accumulators in one attempt, about a tenth of a second.
const ROUNDS: usize = 10_000_000;
/// Floats that are read: far more than any cache holds.
const FLOATS: usize = 64 << 20;

/// Measures for about two seconds.
pub fn measure() -> Peak {
    let isa = isa();
    let f32_gflops = arithmetic(isa, false);
    let bf16_gflops = if isa.prefers_bf16() { arithmetic(isa, true) } else { f32_gflops };
    Peak { f32_gflops, bf16_gflops, read_gbytes: reading(isa) }
}

/// Whether the pairs of bf16, or the f16, of an instruction set that this CPU has are multiplied faster than f32: AMD's
/// pairs do twice as much in the same time, some of Intel's half as much. Takes less than a millisecond; the two take
/// turns, and each counts by its shortest attempt, so that other work on the machine does not decide.
pub(crate) fn faster_than_f32(isa: Isa) -> bool {
    /// Rounds of 10 to 50 microseconds.
    const SHORT: usize = 2_000;
    let seconds_of_one = |narrow| {
        let start = Instant::now();
        let done = multiply_for(isa, narrow, SHORT);
        start.elapsed().as_secs_f64() / done as f64
    };
    let (mut plain, mut narrow) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..2 * ATTEMPTS {
        plain = plain.min(seconds_of_one(false));
        narrow = narrow.min(seconds_of_one(true));
    }
    narrow < plain
}

/// The shortest of the attempts, in seconds.
fn shortest(mut work: impl FnMut()) -> f64 {
    let attempt = |_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..ATTEMPTS).map(attempt).fold(f64::INFINITY, f64::min)
}

fn arithmetic(isa: Isa, narrow: bool) -> f64 {
    let flop = AtomicU64::new(0);
    let seconds = shortest(|| {
        flop.store(0, Ordering::Relaxed);
        rayon::broadcast(|_| {
            let done = multiply_for(isa, narrow, ROUNDS);
            flop.fetch_add(done, Ordering::Relaxed);
        });
    });
    flop.into_inner() as f64 / seconds / 1e9
}

/// Multiplies f32, or what the instruction set has for bf16 compute, in registers; returns the multiplications and additions
/// that this was.
fn multiply_for(isa: Isa, narrow: bool, rounds: usize) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: an `Isa` names only what this CPU has.
        unsafe {
            match (isa, narrow) {
                (Isa::Amx, true) => return crate::gemm::tiles::in_registers(rounds / 5),
                (Isa::Avx512Bf16, true) => return bf16(rounds),
                (Isa::Avx512Fp16, true) => return f16(rounds),
                _ => {}
            }
            match isa.vectors() {
                Vectors::Avx512 => return avx512(rounds),
                Vectors::Avx2 => return avx2(rounds),
                Vectors::Plain => {}
            }
        }
    }
    let _ = (isa, narrow);
    plain(rounds)
}

/// Eight sums of eight values: what a compiler puts into the vectors that every CPU of the target has.
fn plain(rounds: usize) -> u64 {
    let (a, b) = (black_box([0.999f32; 8]), black_box([1e-3f32; 8]));
    let mut sums = [[0.0f32; 8]; 8];
    for _ in 0..rounds {
        for sum in &mut sums {
            for ((sum, a), b) in sum.iter_mut().zip(&a).zip(&b) {
                *sum = *sum * a + b;
            }
        }
    }
    black_box(sums);
    2 * 64 * rounds as u64
}

/// Writes the loop of one instruction set: enough sums that no multiplication waits for the one before.
#[cfg(target_arch = "x86_64")]
macro_rules! multiply_loop {
    ($name:ident, $features:literal, $sums:literal of $lanes:literal, $zero:ident, $set:ident, $fma:path) => {
        #[target_feature(enable = $features)]
        fn $name(rounds: usize) -> u64 {
            use std::arch::x86_64::*;
            let (a, b) = ($set(black_box(0.999)), $set(black_box(1e-3)));
            let mut sums = [$zero(); $sums];
            for _ in 0..rounds {
                for sum in &mut sums {
                    *sum = $fma(a, b, *sum);
                }
            }
            black_box(sums);
            $sums * $lanes * 2 * rounds as u64
        }
    };
}

#[cfg(target_arch = "x86_64")]
multiply_loop!(avx2, "avx2,fma", 12 of 8, _mm256_setzero_ps, _mm256_set1_ps, _mm256_fmadd_ps);

#[cfg(target_arch = "x86_64")]
multiply_loop!(avx512, "avx512f", 24 of 16, _mm512_setzero_ps, _mm512_set1_ps, _mm512_fmadd_ps);

#[cfg(target_arch = "x86_64")]
multiply_loop!(bf16, "avx512f,avx512bf16", 24 of 32, _mm512_setzero_ps, _mm512_set1_ps, crate::gemm::dot_pairs);

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512fp16")]
fn all_of_f16(value: f32) -> std::arch::x86_64::__m512h {
    use std::arch::x86_64::*;
    let bits = half::f16::from_f32(value).to_bits();
    _mm512_castsi512_ph(_mm512_set1_epi16(bits as i16))
}

#[cfg(target_arch = "x86_64")]
multiply_loop!(f16, "avx512f,avx512fp16", 24 of 32, _mm512_setzero_ph, all_of_f16, std::arch::x86_64::_mm512_fmadd_ph);

kernel!(fn total(x: &[f32], streams: usize) -> f32 = total_body);

/// All of x, from as many places at once as there are streams.
#[inline(always)]
fn total_body<const FMA: bool>(x: &[f32], streams: usize) -> f32 {
    const STEP: usize = 64;
    let mut sums = [0.0f32; STEP];
    let stream = x.len() / streams / STEP * STEP;
    for at in (0..stream).step_by(STEP) {
        for start in (0..streams).map(|s| s * stream + at) {
            for (sum, x) in sums.iter_mut().zip(&x[start..start + STEP]) {
                *sum += x;
            }
        }
    }
    crate::math::sum(&sums)
}

/// Streams of each thread that are tried: one alone leaves some machines waiting where an operation that reads two
/// matrices does not.
const STREAMS: [usize; 3] = [1, 3, 6];

fn reading(isa: Isa) -> f64 {
    let mut values = Lasting::<f32>::zeros(FLOATS);
    values.fill(1.0);
    let part = values.len() / rayon::current_num_threads() + 1;
    let seconds = STREAMS.map(|streams| {
        shortest(|| {
            black_box(values.par_chunks(part).map(|x| total(isa, x, streams)).sum::<f32>());
        })
    });
    size_of_val(&values[..]) as f64 / seconds.into_iter().fold(f64::INFINITY, f64::min) / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::everywhere;

    /// The short measurement of every start agrees with a long one, wherever the two rates are clearly apart.
    #[test]
    fn pairs_and_f16_are_taken_where_a_long_measurement_finds_them_faster() {
        for isa in [Isa::Avx512Bf16, Isa::Avx512Fp16].into_iter().filter(|isa| isa.is_available()) {
            let rate = |narrow| {
                let mut flop = 0;
                let seconds = shortest(|| flop = multiply_for(isa, narrow, 500_000));
                flop as f64 / seconds
            };
            let ratio = rate(true) / rate(false);
            if !(0.7..1.4).contains(&ratio) {
                assert_eq!(faster_than_f32(isa), ratio > 1.0, "{isa} is {ratio:.2} times as fast as f32");
            }
        }
    }

    #[test]
    fn each_instruction_set_says_what_it_did() {
        everywhere(
            || vec![multiply_for(isa(), false, 10) as f32, multiply_for(isa(), true, 10) as f32],
            |isa, done| {
                assert!(done.iter().all(|d| *d > 0.0 && *d % 32.0 == 0.0), "{isa} {done:?}");
                let twice = [Isa::Avx512Bf16, Isa::Avx512Fp16].contains(&isa);
                assert!(!twice || done[1] == 2.0 * done[0], "{isa}: twice the products");
                assert!(
                    isa != Isa::Amx || done[1] == 2.0 * 65_536.0,
                    "four tiles of 16 x 16 x 32 in each round"
                );
            },
        );
    }
}
