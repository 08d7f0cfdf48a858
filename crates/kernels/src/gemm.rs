//! Products of f32 matrices: the forward `nt`, the input gradient `nn` and the weight gradient `tn` of a linear
//! layer whose weight w is stored (out, in).

use crate::Rows;
use crate::isa::{isa, kernel};
use crate::math::{dot, madd};
use crate::split::{GRAIN, length};
use rayon::prelude::*;

/// Up to this many rows the product is bound by reading w, and one pass over w is the best there is.
const FEW_ROWS: usize = 4;

/// A strided matrix operand: element (i, j) is at `pointer + i * row + j * column`.
#[derive(Clone, Copy)]
pub(crate) struct Strided<P> {
    pub(crate) pointer: P,
    pub(crate) row: usize,
    pub(crate) column: usize,
}

/// c = beta c + alpha a b, with a (m, k), b (k, n), c (m, n); beta 0 does not read c.
///
/// # Safety
/// Every element named by the shapes and strides lies in memory that is valid for reading (a, b) or writing (c),
/// and c overlaps neither a nor b.
pub(crate) unsafe fn product(
    (m, n, k): (usize, usize, usize),
    alpha: f32,
    a: Strided<*const f32>,
    b: Strided<*const f32>,
    beta: f32,
    c: Strided<*mut f32>,
    parallel: bool,
) {
    let parallelism = if parallel { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    // SAFETY: the caller's promise. `gemm` computes dst = alpha dst + beta lhs rhs, column-major by preference,
    // so the transposed product is asked for.
    unsafe {
        gemm::gemm(
            n,
            m,
            k,
            c.pointer,
            c.row as isize,
            c.column as isize,
            beta != 0.0,
            b.pointer,
            b.row as isize,
            b.column as isize,
            a.pointer,
            a.row as isize,
            a.column as isize,
            beta,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}

fn matrix(x: &[f32], width: usize) -> Strided<*const f32> {
    Strided { pointer: x.as_ptr(), row: width, column: 1 }
}

fn transposed(x: &[f32], width: usize) -> Strided<*const f32> {
    Strided { pointer: x.as_ptr(), row: 1, column: width }
}

fn matrix_mut(x: &mut [f32], width: usize) -> Strided<*mut f32> {
    Strided { pointer: x.as_mut_ptr(), row: width, column: 1 }
}

/// y = beta y + alpha x w^T; x (T, K), w (N, K), y (T, N).
pub fn nt(alpha: f32, x: &Rows, w: &[f32], beta: f32, y: &mut Rows) {
    assert_eq!(x.rows(), y.rows(), "x and y differ in rows");
    length("w", w.len(), y.width() * x.width());
    let shape = (x.rows(), y.width(), x.width());
    if x.rows() <= FEW_ROWS {
        few_rows(alpha, x, w, beta, y);
        return;
    }
    // SAFETY: the lengths were checked above, and `y` is borrowed exclusively.
    unsafe {
        let out = matrix_mut(y.data_mut(), shape.1);
        let (a, b) = (matrix(x.data(), shape.2), transposed(w, shape.2));
        product(shape, alpha, a, b, beta, out, true);
    }
}

/// dx = beta dx + alpha dy w; dy (T, N), w (N, K), dx (T, K).
pub fn nn(alpha: f32, dy: &Rows, w: &[f32], beta: f32, dx: &mut Rows) {
    assert_eq!(dy.rows(), dx.rows(), "dy and dx differ in rows");
    length("w", w.len(), dy.width() * dx.width());
    let shape = (dy.rows(), dx.width(), dy.width());
    // SAFETY: the lengths were checked above, and `dx` is borrowed exclusively.
    unsafe {
        let out = matrix_mut(dx.data_mut(), shape.1);
        let (a, b) = (matrix(dy.data(), shape.2), matrix(w, shape.1));
        product(shape, alpha, a, b, beta, out, true);
    }
}

/// dw = beta dw + alpha dy^T x; dy (T, N), x (T, K), dw (N, K).
pub fn tn(alpha: f32, dy: &Rows, x: &Rows, beta: f32, dw: &mut [f32]) {
    assert_eq!(dy.rows(), x.rows(), "dy and x differ in rows");
    length("dw", dw.len(), dy.width() * x.width());
    let shape = (dy.width(), x.width(), dy.rows());
    // SAFETY: the lengths were checked above, and `dw` is borrowed exclusively.
    unsafe {
        let out = matrix_mut(dw, shape.1);
        let (a, b) = (transposed(dy.data(), shape.0), matrix(x.data(), shape.1));
        product(shape, alpha, a, b, beta, out, true);
    }
}

kernel!(fn inner(x: &[f32], w: &[f32]) -> f32 = dot);

/// y = beta y + alpha x w^T by inner products, for a few rows of x: w is read once, in blocks of its rows.
fn few_rows(alpha: f32, x: &Rows, w: &[f32], beta: f32, y: &mut Rows) {
    let (isa, rows, n, k) = (isa(), x.rows(), y.width(), x.width());
    if rows == 0 || n == 0 {
        return;
    }
    let block = (GRAIN / k.max(1)).max(1);
    let parts: Vec<Vec<f32>> = (0..n.div_ceil(block))
        .into_par_iter()
        .map(|i| {
            let mut part = Vec::with_capacity(block * rows);
            for j in i * block..((i + 1) * block).min(n) {
                for t in 0..rows {
                    part.push(inner(isa, x.row(t), &w[j * k..(j + 1) * k]));
                }
            }
            part
        })
        .collect();
    for (j, products) in parts.iter().flat_map(|p| p.chunks_exact(rows)).enumerate() {
        for (t, product) in products.iter().enumerate() {
            let y = &mut y.row_mut(t)[j];
            let old = if beta == 0.0 { 0.0 } else { beta * *y };
            *y = madd::<false>(alpha, *product, old);
        }
    }
}
