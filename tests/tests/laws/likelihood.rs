//! The likelihood of labelled tokens, against log softmax of the scores written out.

use sibo_model::Labels;
use sibo_tests::measure::{Input, scores};
use sibo_tests::table::Case;

/// Log softmax in f64, and whether `target` is the first of the largest.
fn naive(row: &[f32], target: usize) -> (f64, bool) {
    let top = row.iter().fold(f32::NEG_INFINITY, |m, x| m.max(*x));
    let sum: f64 = row.iter().map(|x| f64::from(x - top).exp()).sum();
    (f64::from(row[target] - top) - sum.ln(), row.iter().position(|x| *x == top) == Some(target))
}

pub(super) fn is_the_log_softmax(case: &Case) -> Option<Vec<String>> {
    if !case.backbone.family.is_decoder() {
        return None;
    }
    let model = case.trained();
    let input = Input::new(&model, &[6, 1, 9, 3, 4], 40);
    let batch = input.batch(&model);
    let (all, vocab) = (scores(&model, &batch), model.arch().vocab);
    let Labels::Tokens(mut labels) = input.labels else { return Some(vec!["no token labels".into()]) };
    // Row 2 is what the model itself would say; row 4 only at its last token, row 3 at all but its last.
    let best = |row: usize, t: usize| -> i64 {
        let s = &all[row][(t - 1) * vocab..t * vocab];
        s.iter().enumerate().fold(0, |m, (i, x)| if *x > s[m] { i } else { m }) as i64
    };
    labels[2] = (0..9).map(|t| if t == 0 { -100 } else { best(2, t) }).collect();
    labels[4][3] = best(4, 3);
    labels[4][1] = (best(4, 1) + 1) % vocab as i64;
    labels[3] = vec![-100, best(3, 1), (best(3, 2) + 1) % vocab as i64];
    let mut wrong = Vec::new();
    for (row, found) in model.row_scores(&batch, &labels).into_iter().enumerate() {
        let places: Vec<usize> = (1..labels[row].len()).filter(|t| labels[row][*t] >= 0).collect();
        let each: Vec<(f64, bool)> = places
            .iter()
            .map(|t| naive(&all[row][(t - 1) * vocab..t * vocab], labels[row][*t] as usize))
            .collect();
        let sum: f64 = each.iter().map(|e| e.0).sum();
        let greedy = each.iter().all(|e| e.1);
        if found.tokens != places.len() || found.greedy != greedy {
            wrong.push(format!("row {row}: {found:?}, not {} tokens, greedy {greedy}", places.len()));
        }
        if (found.log_prob - sum).abs() > 1e-5 * sum.abs() {
            wrong.push(format!("row {row}: {} is not {sum}", found.log_prob));
        }
    }
    Some(wrong)
}
