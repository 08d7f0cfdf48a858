//! Measures of representations. They are read by people, never trained on: by nature they have no
//! backward.

mod eigen;

use crate::Rows;

/// The mean cosine similarity over all pairs of distinct rows among `rows` (the tokens that count),
/// or `None` for fewer than two. With unit rows u it is (|sum u|^2 - n) / (n (n - 1)): O(n D), in
/// f64. A row of zeros has no direction; its cosine with every other row counts as 0.
pub fn mean_pairwise_cosine(x: &Rows, rows: &[usize]) -> Option<f64> {
    pairwise(x, rows, |_| 0.0)
}

/// The same of the differences from `centre` (D), which takes out what all tokens share.
pub fn mean_pairwise_cosine_about(x: &Rows, rows: &[usize], centre: &[f64]) -> Option<f64> {
    assert_eq!(centre.len(), x.width(), "mean_pairwise_cosine_about: centre and x differ in width");
    pairwise(x, rows, |column| centre[column])
}

fn pairwise(x: &Rows, rows: &[usize], centre: impl Fn(usize) -> f64) -> Option<f64> {
    if rows.len() < 2 {
        return None;
    }
    let mut sum = vec![0.0f64; x.width()];
    let mut units = 0.0;
    for &t in rows {
        let row: Vec<f64> = x.row(t).iter().enumerate().map(|(c, v)| f64::from(*v) - centre(c)).collect();
        let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        if norm == 0.0 {
            continue;
        }
        units += 1.0;
        for (s, v) in sum.iter_mut().zip(row) {
            *s += v / norm;
        }
    }
    let n = rows.len() as f64;
    let square: f64 = sum.iter().map(|s| s * s).sum();
    Some((square - units) / (n * (n - 1.0)))
}

/// The effective rank of the matrix that the rows `rows` make: exp of the entropy of its singular values, taken as
/// shares of their sum (Roy and Vetterli, 2007). 1 where all rows are multiples of one, min(n, D) where the values
/// are equal; `None` for no row, or zeros only.
pub fn effective_rank(x: &Rows, rows: &[usize]) -> Option<f64> {
    let values = eigen::eigenvalues(gram(x, rows));
    let singular: Vec<f64> = values.into_iter().map(|v| v.max(0.0).sqrt()).collect();
    let sum: f64 = singular.iter().sum();
    if sum == 0.0 {
        return None;
    }
    let shares = singular.iter().map(|s| s / sum).filter(|p| *p > 0.0);
    Some((-shares.map(|p| p * p.ln()).sum::<f64>()).exp())
}

/// X X^T (n, n), or X^T X (D, D) where that is smaller: their eigenvalues beyond zeros are the same.
fn gram(x: &Rows, rows: &[usize]) -> eigen::Symmetric {
    let (n, width) = (rows.len(), x.width());
    let value = |t: usize, c: usize| f64::from(x.row(rows[t])[c]);
    if n <= width {
        eigen::Symmetric::from(n, |i, j| (0..width).map(|c| value(i, c) * value(j, c)).sum())
    } else {
        eigen::Symmetric::from(width, |i, j| (0..n).map(|t| value(t, i) * value(t, j)).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise_rows;

    #[test]
    fn equals_the_mean_over_all_pairs() {
        let mut x = noise_rows(9, 13, 1);
        x.row_mut(4).fill(0.0);
        let rows = [0, 2, 3, 4, 5, 8];
        let cosine = |a: &[f32], b: &[f32]| {
            let dot = |a: &[f32], b: &[f32]| {
                a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>()
            };
            let size = (dot(a, a) * dot(b, b)).sqrt();
            if size == 0.0 { 0.0 } else { dot(a, b) / size }
        };
        let (mut sum, mut pairs) = (0.0, 0.0);
        for i in rows {
            for j in rows {
                if i != j {
                    sum += cosine(x.row(i), x.row(j));
                    pairs += 1.0;
                }
            }
        }
        let found = mean_pairwise_cosine(&x, &rows).unwrap();
        assert!((found - sum / pairs).abs() < 1e-12, "{found} {}", sum / pairs);
    }

    #[test]
    fn one_token_has_no_pairs() {
        assert_eq!(mean_pairwise_cosine(&noise_rows(3, 4, 2), &[1]), None);
    }

    #[test]
    fn about_a_centre_is_of_the_differences() {
        let x = noise_rows(7, 5, 3);
        let centre: Vec<f64> = (0..5).map(|c| 0.3 - 0.1 * f64::from(c)).collect();
        let mut moved = x.copy();
        for t in 0..7 {
            moved.row_mut(t).iter_mut().zip(&centre).for_each(|(v, c)| *v -= *c as f32);
        }
        let rows = [0, 1, 4, 6];
        let found = mean_pairwise_cosine_about(&x, &rows, &centre).unwrap();
        assert!((found - mean_pairwise_cosine(&moved, &rows).unwrap()).abs() < 1e-6);
        assert!((found - mean_pairwise_cosine(&x, &rows).unwrap()).abs() > 1e-3);
    }

    #[test]
    fn the_effective_rank_is_numpys() {
        // numpy: s = svd(x[rows]); p = s / s.sum(); exp(-(p * log(p)).sum()), x[t, c] = sin(1 + t * 1.7 + c * c * 0.9)
        let of = |n: usize, width: usize| {
            let mut x = Rows::zeros(n, width);
            for t in 0..n {
                for (c, v) in x.row_mut(t).iter_mut().enumerate() {
                    *v = (1.0 + t as f64 * 1.7 + (c * c) as f64 * 0.9).sin() as f32;
                }
                x.row_mut(t)[t % width] += 0.5;
            }
            effective_rank(&x, &(0..n).collect::<Vec<_>>()).unwrap()
        };
        for (n, width, rank) in NUMPY {
            assert!((of(n, width) - rank).abs() < 1e-5, "{n} x {width}: {}", of(n, width));
        }
        let mut line = Rows::zeros(3, 4);
        for t in 0..3 {
            line.row_mut(t).copy_from_slice(&[0.5, -1.0, 2.0, 0.25].map(|v: f32| v * (t as f32 + 0.5)));
        }
        assert!((effective_rank(&line, &[0, 1, 2]).unwrap() - 1.0).abs() < 1e-6);
        assert_eq!(effective_rank(&Rows::zeros(2, 3), &[0, 1]), None);
    }
    /// Rows, width, effective rank.
    const NUMPY: [(usize, usize, f64); 3] =
        [(5, 9, 3.1172958779748865), (9, 5, 3.6777792299816854), (40, 24, 7.7792586813547535)];
}
