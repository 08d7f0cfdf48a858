//! x w^T for a few rows of x: no packing, because reading w once is most of the work. Inner
//! products of up to four rows of x with four rows of w, vectors along the contraction.

use super::pack::Strided;
use crate::isa::{Isa, Vectors};
use crate::{awake, work};

/// Floats of w in one task.
const TASK: usize = 64 * 1024;
/// Rows of w, and of x at most, in one group of inner products.
const GROUP: usize = 4;

/// y = beta y + alpha x w^T; x (rows, depth), w (columns, depth), y (rows, columns).
#[derive(Clone, Copy)]
pub(crate) struct FewRows {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) depth: usize,
    pub(crate) alpha: f32,
    pub(crate) x: Strided,
    pub(crate) w: Strided,
    pub(crate) beta: f32,
    pub(crate) y: *mut f32,
    /// The distance between rows of y.
    pub(crate) y_row: usize,
}

// SAFETY: tasks read x and w and write disjoint columns of y.
unsafe impl Send for FewRows {}
// SAFETY: as above.
unsafe impl Sync for FewRows {}

/// Inner products of the rows of x at `x` with four rows of w.
type Group<const X: usize> =
    unsafe fn(depth: usize, x: *const f32, x_row: usize, w: [*const f32; GROUP]) -> [[f32; GROUP]; X];

/// The kernels of one instruction set, for four, three, two and one rows of x.
struct Kernels {
    four: Group<4>,
    three: Group<3>,
    two: Group<2>,
    one: Group<1>,
}

impl Kernels {
    fn of(isa: Isa) -> Kernels {
        match isa.vectors() {
            Vectors::Plain => Kernels { four: plain, three: plain, two: plain, one: plain },
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx2 => Kernels { four: avx2, three: avx2, two: avx2, one: avx2 },
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512 => Kernels { four: avx512, three: avx512, two: avx512, one: avx512 },
            #[cfg(not(target_arch = "x86_64"))]
            _ => Kernels { four: plain, three: plain, two: plain, one: plain },
        }
    }
}

impl FewRows {
    /// # Safety
    /// The shapes describe memory valid for reading (x, w) and writing (y), and y overlaps neither
    /// x nor w.
    pub(crate) unsafe fn run(self, isa: Isa) {
        let kernels = Kernels::of(isa);
        let block = (TASK / self.depth.max(1)).max(1).next_multiple_of(GROUP);
        let task = |i: usize| {
            let end = ((i + 1) * block).min(self.columns);
            work::add_f32(self.rows * (end - i * block) * self.depth);
            for first in (i * block..end).step_by(GROUP) {
                // SAFETY: the caller's promise; columns first..first + 4 belong to this task.
                unsafe { self.columns(&kernels, first, GROUP.min(end - first)) };
            }
        };
        let tasks = self.columns.div_ceil(block);
        if tasks == 1 {
            task(0);
        } else {
            awake::share(tasks, task);
        }
    }

    unsafe fn columns(&self, kernels: &Kernels, first: usize, count: usize) {
        // A row that w does not have is replaced by its last one; the product is not stored.
        let w = std::array::from_fn(|j| self.w.pointer.wrapping_add((first + j.min(count - 1)) * self.w.row));
        let mut t = 0;
        while t < self.rows {
            let x = self.x.pointer.wrapping_add(t * self.x.row);
            // SAFETY: the caller's promise.
            unsafe {
                t += match self.rows - t {
                    1 => self.store(t, first, count, (kernels.one)(self.depth, x, self.x.row, w)),
                    2 => self.store(t, first, count, (kernels.two)(self.depth, x, self.x.row, w)),
                    3 => self.store(t, first, count, (kernels.three)(self.depth, x, self.x.row, w)),
                    _ => self.store(t, first, count, (kernels.four)(self.depth, x, self.x.row, w)),
                };
            }
        }
    }

    /// Stores the products of X rows and says how many they were.
    unsafe fn store<const X: usize>(
        &self,
        t: usize,
        first: usize,
        count: usize,
        products: [[f32; GROUP]; X],
    ) -> usize {
        for (r, products) in products.iter().enumerate() {
            for (j, product) in products[..count].iter().enumerate() {
                // SAFETY: the element lies inside y and belongs to this task.
                unsafe {
                    let y = self.y.add((t + r) * self.y_row + first + j);
                    let old = if self.beta == 0.0 { 0.0 } else { self.beta * *y };
                    *y = self.alpha * product + old;
                }
            }
        }
        X
    }
}

/// Eight partial sums, so that the compiler may use what vectors the target always has.
unsafe fn plain<const X: usize>(
    depth: usize,
    x: *const f32,
    x_row: usize,
    w: [*const f32; GROUP],
) -> [[f32; GROUP]; X] {
    std::array::from_fn(|r| {
        w.map(|w| {
            // SAFETY: both rows hold `depth` values.
            let (x, w) = unsafe {
                let x = std::slice::from_raw_parts(x.add(r * x_row), depth);
                (x, std::slice::from_raw_parts(w, depth))
            };
            crate::math::dot::<false>(x, w)
        })
    })
}

/// Writes the kernel of one instruction set from its intrinsics.
#[cfg(target_arch = "x86_64")]
macro_rules! group_kernel {
    ($function:ident, $features:literal, $lanes:literal, $zero:ident, $load:ident, $fma:ident, $sum:expr) => {
        #[target_feature(enable = $features)]
        unsafe fn $function<const X: usize>(
            depth: usize,
            x: *const f32,
            x_row: usize,
            w: [*const f32; GROUP],
        ) -> [[f32; GROUP]; X] {
            use std::arch::x86_64::*;
            let mut acc = [[$zero(); GROUP]; X];
            let whole = depth / $lanes * $lanes;
            let mut k = 0;
            while k < whole {
                // SAFETY: all rows hold `depth` values; fetching has no effect but in time. The rows of the next group
                // lie behind those of this one, and reading them is the work.
                let columns = w.map(|w| unsafe {
                    _mm_prefetch::<_MM_HINT_T0>(w.wrapping_add(k + GROUP * depth).cast());
                    $load(w.add(k))
                });
                for (r, acc) in acc.iter_mut().enumerate() {
                    // SAFETY: as above.
                    let row = unsafe { $load(x.add(r * x_row + k)) };
                    for (acc, column) in acc.iter_mut().zip(columns) {
                        *acc = $fma(row, column, *acc);
                    }
                }
                k += $lanes;
            }
            let mut sums = acc.map($sum);
            for k in whole..depth {
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (sum, w) in sums.iter_mut().zip(w) {
                        // SAFETY: as above.
                        unsafe { *sum = (*x.add(r * x_row + k)).mul_add(*w.add(k), *sum) };
                    }
                }
            }
            sums
        }
    };
}

/// The sums of four vectors: halves of pairs are added until each lane of 128 bits holds a part of every sum, and
/// the lanes last. One by one they would cost more than the products of a short row.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn sums_of_8(v: [std::arch::x86_64::__m256; GROUP]) -> [f32; GROUP] {
    use std::arch::x86_64::*;
    let all = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    let four = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps::<1>(all));
    let mut sums = [0.0; GROUP];
    // SAFETY: there is room for four floats.
    unsafe { _mm_storeu_ps(sums.as_mut_ptr(), four) };
    sums
}

/// The same for vectors of sixteen.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
fn sums_of_16(v: [std::arch::x86_64::__m512; GROUP]) -> [f32; GROUP] {
    use std::arch::x86_64::*;
    let pair = |a, b| _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    let (ab, cd) = (_mm512_castps_pd(pair(v[0], v[1])), _mm512_castps_pd(pair(v[2], v[3])));
    let low = _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd));
    let high = _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd));
    let all = _mm512_add_ps(low, high);
    let two = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps::<1>(all));
    let four = _mm_add_ps(_mm256_castps256_ps128(two), _mm256_extractf128_ps::<1>(two));
    let mut sums = [0.0; GROUP];
    // SAFETY: there is room for four floats.
    unsafe { _mm_storeu_ps(sums.as_mut_ptr(), four) };
    sums
}

#[cfg(target_arch = "x86_64")]
group_kernel!(avx2, "avx2,fma", 8, _mm256_setzero_ps, _mm256_loadu_ps, _mm256_fmadd_ps, |v| sums_of_8(v));

#[cfg(target_arch = "x86_64")]
group_kernel!(
    avx512,
    "avx512f,avx512dq,avx2,fma",
    16,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_fmadd_ps,
    |v| sums_of_16(v)
);
