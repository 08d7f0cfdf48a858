//! Metrics of (gold, predicted) classes.

/// Share of equal pairs.
pub(crate) fn accuracy(pairs: impl Iterator<Item = (u32, u32)>) -> f64 {
    let (mut right, mut all) = (0usize, 0usize);
    for (gold, predicted) in pairs {
        right += usize::from(gold == predicted);
        all += 1;
    }
    right as f64 / all as f64
}

/// F1 of class 1: 2 tp / (2 tp + fp + fn), and 0 where that is 0 / 0, as scikit-learn has it.
pub(crate) fn f1(pairs: impl Iterator<Item = (u32, u32)>) -> f64 {
    let (mut both, mut either) = (0usize, 0usize);
    for (gold, predicted) in pairs {
        both += usize::from(gold == 1 && predicted == 1);
        either += usize::from(gold == 1) + usize::from(predicted == 1);
    }
    if either == 0 { 0.0 } else { 2.0 * both as f64 / either as f64 }
}

/// Matthews' coefficient in its form for any number of classes (Gorodkin 2004); 0 where one side has one class.
pub(crate) fn matthews(pairs: impl Iterator<Item = (u32, u32)>) -> f64 {
    let (mut gold_counts, mut predicted_counts) = (Vec::<f64>::new(), Vec::<f64>::new());
    let (mut right, mut all) = (0.0, 0.0);
    for (gold, predicted) in pairs {
        let classes = gold_counts.len().max(1 + gold.max(predicted) as usize);
        gold_counts.resize(classes, 0.0);
        predicted_counts.resize(classes, 0.0);
        gold_counts[gold as usize] += 1.0;
        predicted_counts[predicted as usize] += 1.0;
        right += f64::from(u8::from(gold == predicted));
        all += 1.0;
    }
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let shared = right * all - dot(&gold_counts, &predicted_counts);
    let spread = (all * all - dot(&gold_counts, &gold_counts))
        * (all * all - dot(&predicted_counts, &predicted_counts));
    if spread == 0.0 { 0.0 } else { shared / spread.sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    // scikit-learn 1.9.1: f1_score, matthews_corrcoef, accuracy_score on these lists.
    const GOLD: [u32; 11] = [1, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0];
    const PREDICTED: [u32; 11] = [1, 0, 0, 1, 1, 1, 0, 1, 1, 0, 0];

    fn pairs() -> impl Iterator<Item = (u32, u32)> {
        GOLD.into_iter().zip(PREDICTED)
    }

    #[test]
    fn two_classes_are_as_in_scikit_learn() {
        assert!((accuracy(pairs()) - 0.636_363_636_363_636_4).abs() < 1e-15);
        assert!((f1(pairs()) - 0.666_666_666_666_666_6).abs() < 1e-15);
        assert!((matthews(pairs()) - 0.266_666_666_666_666_66).abs() < 1e-15);
    }

    #[test]
    fn three_classes_are_as_in_scikit_learn() {
        let gold = [0, 1, 2, 2, 1, 0, 2, 1];
        let predicted = [0, 2, 2, 2, 1, 1, 2, 0];
        let mcc = matthews(gold.into_iter().zip(predicted));
        assert!((mcc - 0.439_155_032_826_839_93).abs() < 1e-12, "{mcc}");
    }

    #[test]
    fn one_sided_predictions_are_zero() {
        assert_eq!(matthews([(1, 1), (0, 1), (1, 1)].into_iter()), 0.0);
        assert_eq!(f1([(0, 0), (0, 0)].into_iter()), 0.0);
    }
}
