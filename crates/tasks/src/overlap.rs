//! Leaks: test rows whose text is also among the training rows.

use crate::example::{Example, Target};
use std::collections::HashMap;

/// Pairs of rows with the same text once case, punctuation and spacing are dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// (id in test, id of the first such row in train), in test order.
    pub rows: Vec<(u64, u64)>,
    /// Test rows looked at.
    pub test_rows: usize,
}

/// Finds the test rows that training has seen.
pub fn overlap(train: &[Example], test: &[Example]) -> Overlap {
    let mut seen: HashMap<String, u64> = HashMap::with_capacity(train.len());
    for example in train {
        seen.entry(key(example)).or_insert(example.id);
    }
    let rows = test.iter().filter_map(|e| Some((e.id, *seen.get(&key(e))?))).collect();
    Overlap { rows, test_rows: test.len() }
}

/// What must be equal: the text, and the choices with it, since "Which is a mixture?" alone is no problem yet.
fn key(example: &Example) -> String {
    match &example.target {
        Target::Choice { choices, .. } => bare(&format!("{} {}", example.all_text(), choices.join(" "))),
        _ => bare(&example.all_text()),
    }
}

/// Lower-case letters and digits, one space between words.
fn bare(text: &str) -> String {
    let kept: String = text.chars().filter(|c| c.is_alphanumeric() || c.is_whitespace()).collect();
    kept.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example::Text;

    #[test]
    fn case_punctuation_and_spacing_do_not_hide_a_leak() {
        let row = |id, text: &str| Example { id, text: Text::Single(text.into()), target: Target::Class(1) };
        let train = [row(4, "The cat  sat."), row(9, "the cat sat"), row(5, "A dog.")];
        let test = [row(0, "the CAT, sat!"), row(1, "a dog ran"), row(2, "a - dog")];
        assert_eq!(overlap(&train, &test), Overlap { rows: vec![(0, 4), (2, 5)], test_rows: 3 });
    }
}
