//! The innermost kernels: a tile of the result stays in registers while the contraction runs.
//!
//! Operands are packed (see `pack.rs`): `a` holds the rows of one tile, `b` a panel of `NR`
//! columns, contraction index outermost. Every result is `c = beta c + alpha a b`, each element
//! summed in the order of the contraction.

use crate::fetch::CACHE_LINE;

/// One tile of work.
pub(super) struct Tile {
    /// Steps of the contraction.
    pub(super) depth: usize,
    pub(super) a: *const f32,
    pub(super) b: *const f32,
    pub(super) alpha: f32,
    /// 0 means that `c` is not read.
    pub(super) beta: f32,
    pub(super) c: *mut f32,
    /// The distance between rows of `c`.
    pub(super) c_row: usize,
    /// What to fetch into the cache meanwhile.
    pub(super) ahead: Ahead,
    /// How many floats before its turn `b` is fetched, where few rows read it.
    pub(super) stream: usize,
}

/// Memory that will be read soon: `rows` stretches of `lines` cache lines, `distance` bytes apart. Packing the next
/// tile would otherwise wait for it, with the arithmetic idle.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    start: *const u8,
    rows: usize,
    distance: usize,
    lines: usize,
}

/// Up to so many rows reading the panels is the work, and they are fetched ahead.
const FEW: usize = 4;

impl Ahead {
    /// `rows` rows of `count` floats, `distance` floats apart.
    pub(crate) fn of(start: *const f32, rows: usize, distance: usize, count: usize) -> Ahead {
        let lines = (count * size_of::<f32>()).div_ceil(CACHE_LINE);
        Ahead { start: start.cast(), rows, distance: distance * size_of::<f32>(), lines }
    }

    /// The cache lines, in order.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn lines(self) -> impl Iterator<Item = *const u8> {
        (0..self.rows).flat_map(move |r| {
            let row = self.start.wrapping_add(r * self.distance);
            (0..self.lines).map(move |l| row.wrapping_add(l * CACHE_LINE))
        })
    }

    /// Part `i` of `parts`.
    pub(super) fn part(&self, i: usize, parts: usize) -> Ahead {
        let (from, to) = (self.rows * i / parts, self.rows * (i + 1) / parts);
        let start = self.start.wrapping_add(from * self.distance);
        Ahead { start, rows: to - from, ..*self }
    }
}

/// Floats between two rows of a packed tile of `a` whose rows are contiguous. Not a multiple of a
/// page, so that the rows of a tile do not fall into one cache set.
pub(crate) const A_STRIDE: usize = super::engine::DEPTH + 16;
/// Floats between two contraction steps of a packed tile of `a` whose columns are contiguous.
pub(super) const A_GROUP: usize = 16;

/// The order of a packed tile of `a`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Element (r, k) at r * `A_STRIDE` + k.
    Rows,
    /// Element (r, k) at k * `A_GROUP` + r.
    Columns,
}

/// An instruction set's kernel: up to `MR` rows of `NR` results at a time.
pub(super) trait Micro {
    const MR: usize;
    const NR: usize;
    /// Columns of one task, at most: what fits the second-level cache, whose panels the rows of a task share.
    const COLUMNS: usize = super::engine::COLUMNS;

    /// How many rows the kernel computes where `rows` (1 to `MR`) are wanted: there are few
    /// heights, and rows that the operand does not have are zeros.
    fn height(rows: usize) -> usize;

    /// # Safety
    /// The CPU has the instruction set; `height` is an answer of [`Micro::height`]; `a` and `b`
    /// hold `depth` packed steps of so many rows (in `order`) and `NR` columns; `c` is valid for
    /// these rows of `NR` at its stride.
    unsafe fn run(order: Order, height: usize, tile: &Tile);
}

/// Plain arithmetic, for a CPU without the vector sets below and for other architectures.
pub(super) struct Plain;

impl Micro for Plain {
    const MR: usize = 4;
    const NR: usize = 8;

    fn height(_rows: usize) -> usize {
        Self::MR
    }

    unsafe fn run(order: Order, _height: usize, tile: &Tile) {
        // SAFETY: the caller's promise.
        unsafe {
            match order {
                Order::Rows => plain::<A_STRIDE, 1>(tile),
                Order::Columns => plain::<1, A_GROUP>(tile),
            }
        }
    }
}

unsafe fn plain<const ROW: usize, const STEP: usize>(t: &Tile) {
    let mut acc = [[0.0f32; Plain::NR]; Plain::MR];
    for k in 0..t.depth {
        // SAFETY: `b` holds NR values for each step.
        let b = unsafe { &*t.b.add(k * Plain::NR).cast::<[f32; Plain::NR]>() };
        for (r, acc) in acc.iter_mut().enumerate() {
            // SAFETY: `a` holds MR rows for each step.
            let a = unsafe { *t.a.add(r * ROW + k * STEP) };
            for (acc, b) in acc.iter_mut().zip(b) {
                *acc += a * b;
            }
        }
    }
    for (r, acc) in acc.iter().enumerate() {
        for (j, acc) in acc.iter().enumerate() {
            // SAFETY: `c` is valid for this row and column.
            unsafe {
                let c = t.c.add(r * t.c_row + j);
                let old = if t.beta == 0.0 { 0.0 } else { t.beta * *c };
                *c = t.alpha * acc + old;
            }
        }
    }
}

/// Writes kernels of the given heights, highest first, by `$vectors` vectors from the intrinsics of
/// one instruction set.
#[cfg(target_arch = "x86_64")]
macro_rules! vector_kernel {
    ($(#[$doc:meta])* $name:ident, $function:ident, $features:literal,
     [$mr:literal $(, $lower:literal)*] x $vectors:literal of $lanes:literal,
     $zero:ident, $load:ident, $store:ident, $set:ident, $fma:ident, $mul:ident, $step:path) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl Micro for $name {
            const MR: usize = $mr;
            const NR: usize = $vectors * $lanes;

            fn height(rows: usize) -> usize {
                let mut height = $mr;
                $(if rows <= $lower { height = $lower; })*
                height
            }

            unsafe fn run(order: Order, height: usize, tile: &Tile) {
                // SAFETY: the caller's promise.
                unsafe {
                    match (order, height) {
                        $((Order::Rows, $lower) => $function::<$lower, A_STRIDE, 1>(tile),)*
                        $((Order::Columns, $lower) => $function::<$lower, 1, A_GROUP>(tile),)*
                        (Order::Rows, _) => $function::<$mr, A_STRIDE, 1>(tile),
                        (Order::Columns, _) => $function::<$mr, 1, A_GROUP>(tile),
                    }
                }
            }
        }

        #[target_feature(enable = $features)]
        unsafe fn $function<const HEIGHT: usize, const ROW: usize, const STEP: usize>(t: &Tile) {
            use std::arch::x86_64::*;
            let mut acc = [[$zero(); $vectors]; HEIGHT];
            let (mut a, mut b) = (t.a, t.b);
            let mut step = || {
                // SAFETY: `a` and `b` hold `depth` steps, and this is called `depth` times; the pointers stay
                // inside or one past the end.
                unsafe {
                    if HEIGHT <= FEW {
                        for v in 0..$vectors {
                            _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(t.stream + v * $lanes).cast());
                        }
                    }
                    let mut columns = [$zero(); $vectors];
                    for (v, column) in columns.iter_mut().enumerate() {
                        *column = $load(b.add(v * $lanes));
                    }
                    for (r, acc) in acc.iter_mut().enumerate() {
                        let value = $set(*a.add(r * ROW));
                        for (acc, column) in acc.iter_mut().zip(columns) {
                            *acc = $step(value, column, *acc);
                        }
                    }
                }
                a = a.wrapping_add(STEP);
                b = b.wrapping_add($vectors * $lanes);
            };
            let mut left = t.depth;
            for r in 0..t.ahead.rows {
                let row = t.ahead.start.wrapping_add(r * t.ahead.distance);
                let lines = t.ahead.lines.min(left);
                for l in 0..lines {
                    _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(l * CACHE_LINE).cast());
                    step();
                }
                left -= lines;
            }
            for _ in 0..left {
                step();
            }
            let (alpha, beta) = ($set(t.alpha), $set(t.beta));
            for (r, acc) in acc.iter().enumerate() {
                for (v, acc) in acc.iter().enumerate() {
                    // SAFETY: `c` is valid for this row and vector.
                    unsafe {
                        let c = t.c.add(r * t.c_row + v * $lanes);
                        if t.beta == 0.0 {
                            $store(c, $mul(alpha, *acc));
                        } else {
                            $store(c, $fma(alpha, *acc, $mul(beta, $load(c))));
                        }
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
vector_kernel!(
    /// 14 x 32 in 28 of the 32 registers of AVX-512.
    Avx512, avx512, "avx512f", [14, 8, 4, 1] x 2 of 16,
    _mm512_setzero_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_fmadd_ps,
    _mm512_mul_ps, _mm512_fmadd_ps
);

#[cfg(target_arch = "x86_64")]
vector_kernel!(
    /// 6 x 16 in 12 of the 16 registers of AVX2.
    Avx2, avx2, "avx2,fma", [6, 4, 2, 1] x 2 of 8,
    _mm256_setzero_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_fmadd_ps,
    _mm256_mul_ps, _mm256_fmadd_ps
);

/// acc + a0 b0 + a1 b1 for the two bf16 in each 32-bit lane.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) fn dot_pairs(
    a: std::arch::x86_64::__m512,
    b: std::arch::x86_64::__m512,
    acc: std::arch::x86_64::__m512,
) -> std::arch::x86_64::__m512 {
    use std::arch::x86_64::{__m512, __m512bh, _mm512_dpbf16_ps};
    // SAFETY: both are 512 bits of plain data.
    let (a, b) =
        unsafe { (std::mem::transmute::<__m512, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b)) };
    _mm512_dpbf16_ps(acc, a, b)
}

#[cfg(target_arch = "x86_64")]
vector_kernel!(
    /// 14 x 32 with two steps of the contraction at once: each 32-bit element of the operands is a
    /// pair of bf16.
    Avx512Pairs, avx512_pairs, "avx512f,avx512bf16", [14, 8, 4, 1] x 2 of 16,
    _mm512_setzero_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_fmadd_ps,
    _mm512_mul_ps, dot_pairs
);
