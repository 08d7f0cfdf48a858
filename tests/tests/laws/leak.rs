//! No token of one row changes anything of another, not by a bit.

use sibo_model::{Dropout, Labels};
use sibo_tests::measure::{Input, bits_differ, gradients, hidden, names, scores};
use sibo_tests::table::Case;

pub(super) fn nothing_leaks(case: &Case) -> Vec<String> {
    let mut model = case.trained();
    let input = Input::new(&model, &[6, 4, 9, 3], 40);
    // Row 1 gets other tokens of the same number.
    let changed = 1;
    let mut other = input.clone();
    other.rows[changed].ids.iter_mut().for_each(|id| *id = 3 + (*id + 5) % 40);
    let (before, after) = (input.batch(&model), other.batch(&model));
    let mut wrong = Vec::new();
    let (ha, hb) = (hidden(&model, &before), hidden(&model, &after));
    let (sa, sb) = (scores(&model, &before), scores(&model, &after));
    for row in 0..input.rows.len() {
        for (layer, (a, b)) in ha.iter().zip(&hb).enumerate() {
            let name = format!("layer {layer} of row {row}");
            let differ = bits_differ([(name.as_str(), &a[row][..], &b[row][..])]);
            match row == changed {
                true if differ.is_empty() => wrong.push(format!("{name} does not depend on the row")),
                true => {}
                false => wrong.extend(differ),
            }
        }
        if row != changed {
            let name = format!("scores of row {row}");
            wrong.extend(bits_differ([(name.as_str(), &sa[row][..], &sb[row][..])]));
        }
    }
    // Gradients through the labels of the other rows only.
    if let Labels::Tokens(labels) = &input.labels {
        let mut labels = labels.clone();
        labels[changed].fill(-100);
        let (mut a, mut b) = (input.clone(), other);
        a.labels = Labels::Tokens(labels.clone());
        b.labels = Labels::Tokens(labels);
        let dropout = Some(Dropout { seed: 2, epoch: 9, base: true });
        let (ga, gb) = (gradients(&mut model, &a, dropout, false), gradients(&mut model, &b, dropout, false));
        let names = names(&model);
        let pairs = names.iter().zip(ga.1.iter().zip(&gb.1)).map(|(n, (a, b))| (n.as_str(), &a[..], &b[..]));
        wrong.extend(bits_differ(pairs));
    }
    wrong
}
