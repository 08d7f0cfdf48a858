//! Picking a choice by likelihood, as lm-evaluation-harness does for `multiple_choice`.

use crate::Error;

/// The choice that each reading of the log-likelihoods picks, from 0; ties go to the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picks {
    /// Likeliest as it stands: `acc`, `mcc`, `f1`.
    pub plain: usize,
    /// Likeliest per character of the choice: `acc_norm`.
    pub by_chars: usize,
    /// Likeliest per byte of the choice: `acc_bytes`.
    pub by_bytes: usize,
}

impl Picks {
    /// Picks by the sums of token log-likelihoods of the continuations, one a choice.
    ///
    /// The lengths are those of the choices alone, without the delimiter before them: the harness divides
    /// by Python's `len` of the choice, which counts characters, and keeps bytes for `acc_bytes`.
    pub fn of(log_likelihoods: &[f64], choices: &[String]) -> Result<Picks, Error> {
        let fail = |problem: String| Err(Error::numbers("choice likelihoods", problem));
        if log_likelihoods.len() != choices.len() || choices.is_empty() {
            return fail(format!("{} likelihoods for {} choices", log_likelihoods.len(), choices.len()));
        }
        if let Some(i) = log_likelihoods.iter().position(|l| l.is_nan()) {
            return fail(format!("the likelihood of choice {i} (from 0) is not a number"));
        }
        let over = |length: fn(&str) -> usize| {
            let lengths = choices.iter().map(|c| length(c) as f64);
            first_greatest(log_likelihoods.iter().zip(lengths).map(|(l, length)| l / length))
        };
        Ok(Picks {
            plain: first_greatest(log_likelihoods.iter().copied()),
            by_chars: over(|c| c.chars().count()),
            by_bytes: over(str::len),
        })
    }
}

fn first_greatest(values: impl Iterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (i, value) in values.enumerate() {
        if value > best.1 {
            best = (i, value);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_picks_differ_where_lengths_do() {
        let choices = ["ab", "abcdefgh", "éééééé"].map(String::from);
        // Per char: -1.5, -1.25, -1.3; per byte: -1.5, -1.25, -0.65.
        let picks = Picks::of(&[-3.0, -10.0, -7.8], &choices).unwrap();
        assert_eq!(picks, Picks { plain: 0, by_chars: 1, by_bytes: 2 });
    }

    #[test]
    fn ties_go_to_the_first_and_faults_are_named() {
        let choices = ["a", "b"].map(String::from);
        assert_eq!(Picks::of(&[-2.0, -2.0], &choices).unwrap().plain, 0);
        assert_eq!(Picks::of(&[f64::NEG_INFINITY; 2], &choices).unwrap().by_chars, 0);
        let e = Picks::of(&[-2.0, f64::NAN], &choices).unwrap_err().to_string();
        assert!(e.contains("choice 1 (from 0) is not a number"), "{e}");
        assert!(Picks::of(&[-2.0], &choices).is_err());
    }
}
