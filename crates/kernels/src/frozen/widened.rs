//! Products of a few rows with panels of bf16 where the processor does not multiply pairs of bf16: each pair is widened in
//! registers for the rows of a group at once, so that a weight costs half the memory traffic of f32 and nothing is
//! copied on the way.
//!
//! An element is the same sum in the same order as in a product of many rows (`super::product`), where those are not f16:
//! even and odd in features in turn, cut at the same places.

use super::pack::PANEL;
use super::panels::Panels;
use crate::Rows;
use crate::fetch::{distance, fetch};
use crate::gemm::{DEPTH, Target};
use crate::isa::{Isa, Vectors};
use crate::work;
use std::ops::Range;

/// Pairs between two visits to the result.
const CUT: usize = DEPTH / 2;
/// Rows of a group, at most, by any kernel.
const GROUP: usize = 8;

/// The products of a group of rows with some pairs of a panel: `made[r][j]` is the sum over k of `words[k][j]` times
/// `x[r][k]`. Words are fetched `ahead` before their turn.
type Kernel = unsafe fn(words: &[[u32; PANEL]], x: &[&[[f32; 2]]], ahead: usize, made: &mut [[f32; PANEL]]);

/// y = beta y + x W^T for the out features of panels `panels`; x (T, whole pairs) holds what bf16 can.
///
/// # Safety
/// There is a row; `isa` is what the CPU has; the target (whose alpha is 1) has these out features, for as many rows as x, and nothing else
/// reads or writes them meanwhile.
pub(super) unsafe fn few_rows(isa: Isa, w: &Panels, panels: Range<usize>, x: &Rows, target: Target) {
    let (kernel, most) = kernel_of(isa);
    // As even as can be: sixteen rows by threes would leave one alone.
    let group = x.rows().div_ceil(x.rows().div_ceil(most));
    let ahead = distance() / size_of::<u32>();
    let mut made = [[0.0; PANEL]; GROUP];
    for p in panels {
        let (columns, words) = (w.facts().rows(p), w.panel(isa, p));
        work::add_f32(x.rows() * columns.len() * w.facts().inp);
        for (cut, words) in words.chunks(CUT).enumerate() {
            let beta = if cut == 0 { target.beta } else { 1.0 };
            let pairs = cut * CUT..cut * CUT + words.len();
            for first in (0..x.rows()).step_by(group) {
                let count = group.min(x.rows() - first);
                let mut rows = [&[][..]; GROUP];
                for (row, t) in rows.iter_mut().zip(first..first + count) {
                    *row = &x.row(t).as_chunks().0[pairs.clone()];
                }
                // SAFETY: the caller's promise; every row has as many pairs as there are words.
                unsafe {
                    kernel(words, &rows[..count], ahead, &mut made);
                    for (made, t) in made[..count].iter().zip(first..) {
                        Target { beta, ..target }.store(t, columns.clone(), made);
                    }
                }
            }
        }
    }
}

/// The kernel of an instruction set, and how many rows it takes at most.
fn kernel_of(isa: Isa) -> (Kernel, usize) {
    match isa.vectors() {
        Vectors::Plain => (plain, 1),
        #[cfg(target_arch = "x86_64")]
        Vectors::Avx2 => (vectors::avx2, vectors::AVX2_ROWS),
        #[cfg(target_arch = "x86_64")]
        Vectors::Avx512 => (vectors::avx512, vectors::AVX512_ROWS),
        #[cfg(not(target_arch = "x86_64"))]
        _ => (plain, 1),
    }
}

/// The kernel in plain arithmetic.
unsafe fn plain(words: &[[u32; PANEL]], x: &[&[[f32; 2]]], ahead: usize, made: &mut [[f32; PANEL]]) {
    for (x, made) in x.iter().zip(made) {
        let mut sums = [0.0f32; PANEL];
        for (words, x) in words.iter().zip(*x) {
            fetch::<_, PANEL>(words.as_slice(), ahead);
            for (sum, word) in sums.iter_mut().zip(words) {
                *sum += f32::from_bits(word << 16) * x[0];
                *sum += f32::from_bits(word & 0xffff_0000) * x[1];
            }
        }
        *made = sums;
    }
}

#[cfg(target_arch = "x86_64")]
mod vectors {
    use super::{PANEL, fetch};
    use std::arch::x86_64::*;

    /// Writes the kernel of one instruction set: groups of so many rows, a panel in vectors of so many words.
    macro_rules! widened_kernel {
        ($name:ident, $group:ident, $most:ident = $last:literal, [$($rows:literal)*], $features:literal,
         $lanes:literal, $zero:ident, $set:ident, $load:ident, $store:ident, $fma:ident, $shift:ident, $and:ident,
         $ones:ident, $cast:ident) => {
            /// Rows of a group at most: their sums, a vector of words and one of x fill the registers.
            pub(super) const $most: usize = $last;

            /// As [`super::Kernel`].
            ///
            /// # Safety
            /// The CPU has the instruction set; there are up to the most rows, each with as many pairs as there are words.
            pub(super) unsafe fn $name(
                words: &[[u32; PANEL]], x: &[&[[f32; 2]]], ahead: usize, made: &mut [[f32; PANEL]],
            ) {
                // SAFETY: the caller's promise.
                unsafe {
                    match x.len() {
                        $($rows => $group::<$rows>(words, x, ahead, made),)*
                        _ => unreachable!("a group of up to {} rows", $most),
                    }
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn $group<const R: usize>(
                words: &[[u32; PANEL]], x: &[&[[f32; 2]]], ahead: usize, made: &mut [[f32; PANEL]],
            ) {
                const VECTORS: usize = PANEL / $lanes;
                let x: [*const f32; R] = std::array::from_fn(|r| x[r].as_ptr().cast());
                let mut sums = [[$zero(); VECTORS]; R];
                for (k, words) in words.iter().enumerate() {
                    fetch::<_, PANEL>(words.as_slice(), ahead);
                    for v in 0..VECTORS {
                        // SAFETY: a panel has 32 words for a pair, and each row has this pair.
                        unsafe {
                            let word = $load(words.as_ptr().add(v * $lanes).cast());
                            let even = $cast($shift::<16>(word));
                            let odd = $cast($and(word, $ones(0xffff_0000_u32 as i32)));
                            for (sums, x) in sums.iter_mut().zip(x) {
                                sums[v] = $fma(even, $set(*x.add(2 * k)), sums[v]);
                                sums[v] = $fma(odd, $set(*x.add(2 * k + 1)), sums[v]);
                            }
                        }
                    }
                }
                for (sums, made) in sums.iter().zip(made) {
                    for (v, sum) in sums.iter().enumerate() {
                        // SAFETY: a row of a panel has 32 results.
                        unsafe { $store(made.as_mut_ptr().add(v * $lanes), *sum) };
                    }
                }
            }
        };
    }

    widened_kernel!(
        avx2, avx2_group, AVX2_ROWS = 3, [1 2 3], "avx2,fma", 8, _mm256_setzero_ps, _mm256_set1_ps, _mm256_loadu_si256,
        _mm256_storeu_ps, _mm256_fmadd_ps, _mm256_slli_epi32, _mm256_and_si256, _mm256_set1_epi32, _mm256_castsi256_ps
    );

    widened_kernel!(
        avx512, avx512_group, AVX512_ROWS = 8, [1 2 3 4 5 6 7 8], "avx512f", 16, _mm512_setzero_ps, _mm512_set1_ps,
        _mm512_loadu_si512, _mm512_storeu_ps, _mm512_fmadd_ps, _mm512_slli_epi32, _mm512_and_si512, _mm512_set1_epi32,
        _mm512_castsi512_ps
    );
}

#[cfg(test)]
mod tests {
    use crate::Rows;
    use crate::frozen::{Compute, FrozenWeight, Store};
    use crate::isa::{Isa, with_isa};
    use crate::testing::*;

    /// However many rows go together, each has the bits that it has among many: over several cuts of the contraction, an
    /// odd number of in features, groups of every size, and onto what was there.
    #[test]
    fn rows_are_the_same_among_few_and_among_many() {
        for (inp, out) in [(1091, 75), (512, 32), (37, 130)] {
            let w = FrozenWeight::new(out, inp, Store::F32(noise(out * inp, 1)), Compute::Bf16);
            let (x, start) = (noise_rows(61, inp, 2), noise_rows(61, out, 3));
            for isa in Isa::available().into_iter().filter(|isa| *isa < Isa::Avx512Bf16) {
                with_isa(isa, || {
                    for beta in [0.0, 1.0, -0.7] {
                        let product = |rows: usize| {
                            let mut y = start.slice_rows(0..rows);
                            w.forward_onto(&x.slice_rows(0..rows), beta, &mut y);
                            y
                        };
                        let all: Rows = product(61);
                        for rows in (1..=17).chain([31, 32, 33]) {
                            let same = product(rows).data() == &all.data()[..rows * out];
                            assert!(same, "{isa}, {rows} rows of {inp} x {out}, beta {beta}");
                        }
                    }
                });
            }
        }
    }
}
