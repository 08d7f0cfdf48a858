//! Correlations of two lists of numbers.

/// Pearson's coefficient; 0 where one side does not vary (scikit-learn's GLUE scripts give NaN there).
pub(crate) fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let n = x.len() as f64;
    let (mx, my) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (a, b) in x.iter().zip(y) {
        xy += (a - mx) * (b - my);
        xx += (a - mx) * (a - mx);
        yy += (b - my) * (b - my);
    }
    if xx == 0.0 || yy == 0.0 { 0.0 } else { (xy / (xx.sqrt() * yy.sqrt())).clamp(-1.0, 1.0) }
}

/// Spearman's coefficient: Pearson's of the ranks, equal values sharing their mean rank.
pub(crate) fn spearman(x: &[f64], y: &[f64]) -> f64 {
    pearson(&ranks(x), &ranks(y))
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut out = vec![0.0; values.len()];
    let mut start = 0;
    for tie in order.chunk_by(|a, b| values[*a] == values[*b]) {
        // Ranks start + 1 to start + len have this mean.
        let rank = start as f64 + (tie.len() + 1) as f64 / 2.0;
        tie.iter().for_each(|i| out[*i] = rank);
        start += tie.len();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlations_are_scipys() {
        // scipy 1.17.1: pearsonr(x, y)[0], spearmanr(x, y)[0]
        let x = [2.5, 0.0, 4.75, 4.75, 1.2, 3.0, 5.0];
        let y = [2.1, 0.4, 3.9, 4.4, 2.1, -0.3, 4.4];
        assert!((pearson(&x, &y) - 0.758_635_329_986_886).abs() < 1e-12);
        assert!((spearman(&x, &y) - 0.743_150_541_460_293_6).abs() < 1e-12);
    }

    #[test]
    fn ties_share_their_mean_rank_and_flat_lists_give_zero() {
        assert_eq!(ranks(&[3.0, -0.0, 3.0, 0.0, 9.0]), [3.5, 1.5, 3.5, 1.5, 5.0]);
        assert_eq!(pearson(&[1.0, 2.0], &[7.0, 7.0]), 0.0);
    }
}
