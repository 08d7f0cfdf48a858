//! Measures of representations. They are read by people, never trained on: by nature they have no backward.

use crate::Rows;

/// The mean cosine similarity over all pairs of distinct rows among `rows` (the tokens that count), or `None` for
/// fewer than two. With unit rows u it is (|sum u|^2 - n) / (n (n - 1)): O(n D), in f64. A row of zeros has no
/// direction; its cosine with every other row counts as 0.
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
