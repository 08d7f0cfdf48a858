//! Measures of representations. They are read by people, never trained on: by nature they have no
//! backward.

use crate::Rows;

/// The mean cosine similarity over all pairs of distinct rows among `rows` (the tokens that count),
/// or `None` for fewer than two. With unit rows u it is (|sum u|^2 - n) / (n (n - 1)): O(n D), in
/// f64. A row of zeros has no direction; its cosine with every other row counts as 0.
pub fn mean_pairwise_cosine(x: &Rows, rows: &[usize]) -> Option<f64> {
    if rows.len() < 2 {
        return None;
    }
    let mut sum = vec![0.0f64; x.width()];
    let mut units = 0.0;
    for &t in rows {
        let row = x.row(t);
        let norm = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        if norm == 0.0 {
            continue;
        }
        units += 1.0;
        for (s, v) in sum.iter_mut().zip(row) {
            *s += f64::from(*v) / norm;
        }
    }
    let n = rows.len() as f64;
    let square: f64 = sum.iter().map(|s| s * s).sum();
    Some((square - units) / (n * (n - 1.0)))
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
}
