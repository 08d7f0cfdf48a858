//! Sums, scalings, biases and row selection. Each of these is linear, so its backward is another of
//! them: `add` is its own, `add_bias` goes with `bias_grad`, `select_rows` with `scatter_rows_add`.

use crate::Rows;
use crate::isa::{isa, kernel};
use crate::math::madd;
use crate::split::{for_blocks, for_columns, for_row_blocks, length, same_shape};

/// y = value, everywhere.
pub fn fill(value: f32, y: &mut Rows) {
    for_blocks(y.data_mut(), |_, y| y.fill(value));
}

/// y = x, for slices of one length, in parallel when they are long.
pub(crate) fn copy_slice(x: &[f32], y: &mut [f32]) {
    length("x", x.len(), y.len());
    for_blocks(y, |at, y| y.copy_from_slice(&x[at..at + y.len()]));
}

kernel!(fn axpy_block(a: f32, x: &[f32], y: &mut [f32]) = axpy_body);

#[inline(always)]
fn axpy_body<const FMA: bool>(a: f32, x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = madd::<FMA>(a, *x, *y);
    }
}

/// y += x; both (T, D).
pub fn add(x: &Rows, y: &mut Rows) {
    axpy(1.0, x, y);
}

/// y += a x; both (T, D).
pub fn axpy(a: f32, x: &Rows, y: &mut Rows) {
    same_shape("x", x, "y", y);
    axpy_slice(a, x.data(), y.data_mut());
}

kernel!(fn multiply_block(x: &[f32], y: &mut [f32]) = multiply_body);

#[inline(always)]
fn multiply_body<const FMA: bool>(x: &[f32], y: &mut [f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y *= x);
}

/// y *= x, element by element; both (T, D).
pub fn multiply(x: &Rows, y: &mut Rows) {
    same_shape("x", x, "y", y);
    let isa = isa();
    for_blocks(y.data_mut(), |at, y| multiply_block(isa, &x.data()[at..at + y.len()], y));
}

/// y += a x for slices of one length.
pub fn axpy_slice(a: f32, x: &[f32], y: &mut [f32]) {
    length("x", x.len(), y.len());
    let isa = isa();
    for_blocks(y, |at, y| axpy_block(isa, a, &x[at..at + y.len()], y));
}

/// x = a x; (T, D).
pub fn scale(a: f32, x: &mut Rows) {
    scale_slice(a, x.data_mut());
}

/// x = a x for a slice.
pub fn scale_slice(a: f32, x: &mut [f32]) {
    for_blocks(x, |_, x| {
        for x in x {
            *x *= a;
        }
    });
}

/// y += b on every row; b (D), y (T, D). Backward: [`bias_grad`].
pub fn add_bias(b: &[f32], y: &mut Rows) {
    length("b", b.len(), y.width());
    let isa = isa();
    for_row_blocks(y, |_, rows| {
        for row in rows.chunks_exact_mut(b.len()) {
            axpy_block(isa, 1.0, b, row);
        }
    });
}

/// db += the column sums of dy; dy (T, D), db (D). Rows are added in their order.
pub fn bias_grad(dy: &Rows, db: &mut [f32]) {
    length("db", db.len(), dy.width());
    let isa = isa();
    for_columns(db, dy.rows(), |at, db| {
        for t in 0..dy.rows() {
            axpy_block(isa, 1.0, &dy.row(t)[at..at + db.len()], db);
        }
    });
}

/// The rows `idx` of x, in that order; x (T, D) gives (idx.len(), D). Backward:
/// [`scatter_rows_add`].
pub fn select_rows(x: &Rows, idx: &[usize]) -> Rows {
    let mut y = Rows::scratch(idx.len(), x.width());
    for_row_blocks(&mut y, |first, rows| {
        for (i, row) in rows.chunks_exact_mut(x.width()).enumerate() {
            row.copy_from_slice(x.row(idx[first + i]));
        }
    });
    y
}

/// `x[idx[i]] += dy[i]`; dy (idx.len(), D), x (T, D). An index may come twice; order is that of
/// `idx`.
pub fn scatter_rows_add(dy: &Rows, idx: &[usize], x: &mut Rows) {
    length("idx", idx.len(), dy.rows());
    assert_eq!(dy.width(), x.width(), "dy and x differ in width");
    let isa = isa();
    for (i, &t) in idx.iter().enumerate() {
        axpy_block(isa, 1.0, dy.row(i), x.row_mut(t));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    #[test]
    fn all_equal_plain_loops() {
        for (t, d) in [(1, 1), (3, 37), (130, 301)] {
            let (x, y, b) = (noise_rows(t, d, 1), noise_rows(t, d, 2), noise(d, 3));
            let a = -0.7f32;
            let run = || {
                let mut out = [(); 5].map(|()| y.copy());
                add(&x, &mut out[0]);
                axpy(a, &x, &mut out[1]);
                scale(a, &mut out[2]);
                add_bias(&b, &mut out[3]);
                multiply(&x, &mut out[4]);
                let mut db = b.clone();
                bias_grad(&x, &mut db);
                [out[0].data(), out[1].data(), out[2].data(), out[3].data(), out[4].data(), &db].concat()
            };
            let pairs = || x.data().iter().zip(y.data()).map(|(x, y)| (f64::from(*x), f64::from(*y)));
            let a = f64::from(a);
            let mut expected: Vec<f64> = pairs().map(|(x, y)| x + y).collect();
            expected.extend(pairs().map(|(x, y)| a * x + y));
            expected.extend(pairs().map(|(_, y)| a * y));
            expected.extend(pairs().enumerate().map(|(i, (_, y))| y + f64::from(b[i % d])));
            expected.extend(pairs().map(|(x, y)| x * y));
            let mut db = wide(&b);
            for t in 0..t {
                (0..d).for_each(|c| db[c] += f64::from(x.row(t)[c]));
            }
            expected.extend(db);
            everywhere(run, |isa, out| assert_close(&format!("{isa} {t}x{d}"), out, &expected, 1e-6));
        }
    }

    #[test]
    fn rows_are_selected_and_added_back() {
        let x = noise_rows(7, 5, 4);
        let idx = [6, 0, 6, 3];
        let picked = select_rows(&x, &idx);
        for (i, t) in idx.into_iter().enumerate() {
            assert_eq!(picked.row(i), x.row(t));
        }
        let mut back = x.copy();
        scatter_rows_add(&picked, &idx, &mut back);
        for t in 0..7 {
            let times = idx.iter().filter(|i| **i == t).count() as f32;
            let expected: Vec<f32> = x.row(t).iter().map(|v| v + times * v).collect();
            assert_close("back", back.row(t), &expected, 1e-6);
        }
    }

    #[test]
    #[should_panic(expected = "x is 2 x 3 but y is 3 x 2")]
    fn shapes_are_named() {
        add(&Rows::zeros(2, 3), &mut Rows::zeros(3, 2));
    }
}
