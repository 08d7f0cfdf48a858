//! Products of f32 matrices: the forward `nt`, the input gradient `nn` and the weight gradient `tn`
//! of a linear layer whose weight w is stored (out, in).

mod engine;
#[cfg(target_arch = "x86_64")]
pub(crate) mod f16;
mod few;
#[cfg(target_arch = "x86_64")]
mod halves;
mod micro;
mod pack;
pub mod rounded;
#[cfg(target_arch = "x86_64")]
pub(crate) mod tiles;
mod transpose;

use crate::Rows;
use crate::isa::isa;
use crate::split::length;
use crate::work;
pub(crate) use engine::{DEPTH, Operands, Product, SMALL, Span, Target, panels_of_part};
pub(crate) use few::FewRows;
#[cfg(target_arch = "x86_64")]
pub(crate) use halves::Halves;
#[cfg(target_arch = "x86_64")]
pub(crate) use micro::dot_pairs;
pub(crate) use micro::{A_STRIDE, Ahead, Order};
pub(crate) use pack::{Strided, product};
#[cfg(target_arch = "x86_64")]
pub(crate) use transpose::pack_transposed;

/// Up to this many rows packing w costs more than it gains.
pub(crate) const FEW_ROWS: usize = 32;

/// y = beta y + alpha x w^T; x (T, K), w (N, K), y (T, N).
pub fn nt(alpha: f32, x: &Rows, w: &[f32], beta: f32, y: &mut Rows) {
    assert_eq!(x.rows(), y.rows(), "x and y differ in rows");
    length("w", w.len(), y.width() * x.width());
    let (rows, columns, depth) = (x.rows(), y.width(), x.width());
    work::add_bytes(size_of_val(w));
    let (x, w) = (Strided::rows(x.data(), depth), Strided::rows(w, depth));
    let c = y.data_mut().as_mut_ptr();
    // SAFETY: the lengths were checked above, and `y` is borrowed exclusively.
    unsafe {
        if rows <= FEW_ROWS && rows > 0 && columns > 0 {
            let few = FewRows { rows, columns, depth, alpha, x, w, beta, y: c, y_row: columns };
            few.run(isa());
        } else {
            let target = Target { alpha, beta, c, row: columns };
            product(isa(), (rows, columns, depth), x, w.flip(), target, true);
        }
    }
}

/// dx = beta dx + alpha dy w; dy (T, N), w (N, K), dx (T, K).
pub fn nn(alpha: f32, dy: &Rows, w: &[f32], beta: f32, dx: &mut Rows) {
    assert_eq!(dy.rows(), dx.rows(), "dy and dx differ in rows");
    length("w", w.len(), dy.width() * dx.width());
    let shape = (dy.rows(), dx.width(), dy.width());
    work::add_bytes(size_of_val(w));
    let (a, b) = (Strided::rows(dy.data(), shape.2), Strided::rows(w, shape.1));
    let target = Target { alpha, beta, c: dx.data_mut().as_mut_ptr(), row: shape.1 };
    // SAFETY: the lengths were checked above, and `dx` is borrowed exclusively.
    unsafe { product(isa(), shape, a, b, target, true) }
}

/// dw = beta dw + alpha dy^T x; dy (T, N), x (T, K), dw (N, K).
pub fn tn(alpha: f32, dy: &Rows, x: &Rows, beta: f32, dw: &mut [f32]) {
    assert_eq!(dy.rows(), x.rows(), "dy and x differ in rows");
    length("dw", dw.len(), dy.width() * x.width());
    let shape = (dy.width(), x.width(), dy.rows());
    let (a, b) = (Strided::rows(dy.data(), shape.0), Strided::rows(x.data(), shape.1));
    let target = Target { alpha, beta, c: dw.as_mut_ptr(), row: shape.1 };
    // SAFETY: the lengths were checked above, and `dw` is borrowed exclusively.
    unsafe { product(isa(), shape, a.flip(), b, target, true) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, everywhere, noise, noise_rows};

    /// c (m, n) = beta c + alpha sum_k a(i, k) b(k, j), in f64.
    fn naive(
        (m, n, k): (usize, usize, usize),
        alpha: f64,
        a: impl Fn(usize, usize) -> f32,
        b: impl Fn(usize, usize) -> f32,
        beta: f64,
        c: &[f32],
    ) -> Vec<f64> {
        let mut out = vec![0.0; m * n];
        for i in 0..m {
            for j in 0..n {
                let mut sum = 0.0;
                for l in 0..k {
                    sum += f64::from(a(i, l)) * f64::from(b(l, j));
                }
                let old = if beta == 0.0 { 0.0 } else { beta * f64::from(c[i * n + j]) };
                out[i * n + j] = old + alpha * sum;
            }
        }
        out
    }

    /// Rows, in and out features: one row, decoding sizes, sizes beside the tiles (14, 32), several
    /// blocks of columns (256) and of contraction (512), and wide enough to be cut into tasks.
    const SHAPES: [(usize, usize, usize); 14] = [
        (1, 1, 1),
        (1, 37, 65),
        (2, 129, 33),
        (3, 515, 70),
        (4, 64, 31),
        (5, 8, 3),
        (13, 31, 33),
        (15, 40, 47),
        (29, 530, 35),
        (31, 260, 517),
        (41, 530, 35),
        (57, 33, 301),
        (127, 96, 129),
        (230, 71, 66),
    ];

    #[test]
    fn nt_equals_the_naive_product() {
        for (t, k, n) in SHAPES {
            for (alpha, beta) in [(1.0, 0.0), (-0.7, 1.0), (0.3, -1.6)] {
                let (x, w) = (noise_rows(t, k, 1), noise(n * k, 2));
                let start = if beta == 0.0 { vec![f32::NAN; t * n] } else { noise(t * n, 3) };
                let expected = naive((t, n, k), alpha, |i, l| x.row(i)[l], |l, j| w[j * k + l], beta, &start);
                let run = || {
                    let mut y = Rows::from_slice(&start, n);
                    nt(alpha as f32, &x, &w, beta as f32, &mut y);
                    y.data().to_vec()
                };
                everywhere(run, |isa, y| {
                    assert_close(&format!("{isa} {t}x{k}x{n} y"), y, &expected, 3e-6);
                });
            }
        }
    }

    #[test]
    fn nn_equals_the_naive_product() {
        for (t, k, n) in SHAPES {
            for (alpha, beta) in [(1.0, 0.0), (-0.7, 1.0), (0.3, -1.6)] {
                let (dy, w) = (noise_rows(t, n, 4), noise(n * k, 5));
                let start = if beta == 0.0 { vec![f32::NAN; t * k] } else { noise(t * k, 6) };
                let expected =
                    naive((t, k, n), alpha, |i, l| dy.row(i)[l], |l, j| w[l * k + j], beta, &start);
                let run = || {
                    let mut dx = Rows::from_slice(&start, k);
                    nn(alpha as f32, &dy, &w, beta as f32, &mut dx);
                    dx.data().to_vec()
                };
                everywhere(run, |isa, dx| {
                    assert_close(&format!("{isa} {t}x{k}x{n} dx"), dx, &expected, 3e-6);
                });
            }
        }
    }

    #[test]
    fn tn_equals_the_naive_product() {
        for (t, k, n) in SHAPES {
            for (alpha, beta) in [(1.0, 0.0), (-0.7, 1.0), (0.3, -1.6)] {
                let (dy, x) = (noise_rows(t, n, 7), noise_rows(t, k, 8));
                let start = if beta == 0.0 { vec![f32::NAN; n * k] } else { noise(n * k, 9) };
                let expected = naive((n, k, t), alpha, |i, l| dy.row(l)[i], |l, j| x.row(l)[j], beta, &start);
                let run = || {
                    let mut dw = start.clone();
                    tn(alpha as f32, &dy, &x, beta as f32, &mut dw);
                    dw
                };
                everywhere(run, |isa, dw| {
                    assert_close(&format!("{isa} {t}x{k}x{n} dw"), dw, &expected, 3e-6);
                });
            }
        }
    }

    /// A row's product must not depend on the rows around it: a batch gives each row what it gives
    /// alone.
    #[test]
    fn a_row_in_a_batch_equals_the_row_in_another_batch() {
        let (k, n) = (530, 70);
        let (x, w) = (noise_rows(61, k, 10), noise(n * k, 11));
        let (mut all, mut some) = (Rows::scratch(61, n), Rows::scratch(39, n));
        nt(1.3, &x, &w, 0.0, &mut all);
        nt(1.3, &x.slice_rows(20..59), &w, 0.0, &mut some);
        assert!(
            all.slice_rows(20..59).data() == some.data(),
            "rows 20..59 differ from the same rows in a batch of their own"
        );
    }

    #[test]
    fn empty_sizes_leave_only_beta() {
        let x = Rows::scratch(3, 0);
        let mut y = Rows::from_vec(noise(6, 12), 2);
        let before = y.copy();
        nt(1.0, &x, &[], -2.0, &mut y);
        for (y, b) in y.data().iter().zip(before.data()) {
            assert_eq!(*y, -2.0 * b);
        }
        let (none, mut no_rows) = (Rows::scratch(0, 5), Rows::scratch(0, 2));
        nt(1.0, &none, &noise(10, 13), 0.0, &mut no_rows);
    }

    /// A column of so many inputs is more than a task of its own.
    #[test]
    fn few_rows_of_very_many_inputs() {
        let (t, k, n) = (3, 70_001, 5);
        let (x, w, start) = (noise_rows(t, k, 31), noise(n * k, 32), noise(t * n, 33));
        let expected = naive((t, n, k), 0.6, |i, l| x.row(i)[l], |l, j| w[j * k + l], -0.4, &start);
        let run = || {
            let mut y = Rows::from_slice(&start, n);
            nt(0.6, &x, &w, -0.4, &mut y);
            y.data().to_vec()
        };
        everywhere(run, |isa, found| assert_close(&format!("{isa}"), found, &expected, 3e-5));
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config {
            cases: 48,
            failure_persistence: None,
            ..Default::default()
        })]

        /// All three products at sizes that nobody chose, under every instruction set and on one and two threads.
        #[test]
        fn products_of_any_size((t, k, n) in (1usize..90, 1usize..90, 1usize..90), beta in -1.5f64..1.5) {
            let (x, dy, w) = (noise_rows(t, k, 21), noise_rows(t, n, 22), noise(n * k, 23));
            let starts = [noise(t * n, 24), noise(t * k, 25), noise(n * k, 26)];
            let alpha = 0.6;
            let expected = [
                naive((t, n, k), alpha, |i, l| x.row(i)[l], |l, j| w[j * k + l], beta, &starts[0]),
                naive((t, k, n), alpha, |i, l| dy.row(i)[l], |l, j| w[l * k + j], beta, &starts[1]),
                naive((n, k, t), alpha, |i, l| dy.row(l)[i], |l, j| x.row(l)[j], beta, &starts[2]),
            ]
            .concat();
            let run = || {
                let mut y = Rows::from_slice(&starts[0], n);
                let mut dx = Rows::from_slice(&starts[1], k);
                let mut dw = starts[2].clone();
                nt(alpha as f32, &x, &w, beta as f32, &mut y);
                nn(alpha as f32, &dy, &w, beta as f32, &mut dx);
                tn(alpha as f32, &dy, &x, beta as f32, &mut dw);
                [y.data(), dx.data(), &dw].concat()
            };
            everywhere(run, |isa, found| assert_close(&format!("{isa} {t}x{k}x{n}"), found, &expected, 3e-6));
        }
    }
}
