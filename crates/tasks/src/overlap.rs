//! Leaks: test rows whose text is also among the training rows.

use crate::Task;
use crate::example::{Example, Target, Text};
use serde::Serialize;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// How a test row is found again among the training rows; the first that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Likeness {
    /// The same characters.
    Exact,
    /// The same once case, punctuation and spacing are dropped.
    Normalised,
    /// A run of words in common.
    Ngram,
}

/// Words of a run that two rows must share; GPT-3's report on contamination took 13.
pub const NGRAM: usize = 13;

/// The share of a test that must be found whole among the training rows for the benchmark to be called leaking. Big
/// sets have a few rows twice by themselves, and a shared run of words may be a phrase or one text of a pair: such
/// rows are counted and shown, and judged by a person.
pub const LEAK_SHARE: f64 = 0.01;

/// A test row that training has seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Match {
    /// Its id.
    pub test: u64,
    /// The id of the first training row that is like it.
    pub train: u64,
    /// How alike they are.
    pub likeness: Likeness,
    /// The test row's text, for people.
    pub text: String,
}

/// All test rows that training has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// In test order.
    pub rows: Vec<Match>,
    /// Test rows looked at.
    pub test_rows: usize,
    /// Those of fewer words than a run has: they can only be found whole.
    pub too_short: usize,
}

impl Overlap {
    /// Rows found in this way.
    pub fn count(&self, likeness: Likeness) -> usize {
        self.rows.iter().filter(|m| m.likeness == likeness).count()
    }

    /// Test rows found whole.
    pub fn whole(&self) -> usize {
        self.rows.len() - self.count(Likeness::Ngram)
    }

    /// Share of the test rows found whole.
    pub fn share(&self) -> f64 {
        self.whole() as f64 / self.test_rows.max(1) as f64
    }

    /// Whether scores on this test say little about rows that are new.
    pub fn leaks(&self) -> bool {
        self.share() >= LEAK_SHARE
    }
}

/// The training rows, ready to be searched.
#[derive(Debug, Clone)]
pub struct Seen {
    exact: HashMap<String, u64>,
    normalised: HashMap<String, u64>,
    ngrams: HashMap<u64, u64>,
    n: usize,
}

impl Seen {
    /// Training rows, of `task` where they are a task's; runs of `n` words (1 or more) are remembered.
    pub fn of(parts: &[(&[Example], Option<&Task>)], n: usize) -> Seen {
        let mut seen =
            Seen { exact: HashMap::new(), normalised: HashMap::new(), ngrams: HashMap::new(), n: n.max(1) };
        for (row, task) in parts.iter().flat_map(|(rows, task)| rows.iter().map(move |row| (row, *task))) {
            for form in forms(row, task) {
                let bare = bare(&form);
                for run in runs(&bare, seen.n) {
                    seen.ngrams.entry(run).or_insert(row.id);
                }
                seen.normalised.entry(bare.replace(' ', "")).or_insert(row.id);
                seen.exact.entry(form).or_insert(row.id);
            }
        }
        seen
    }

    /// Finds the rows of a test, of a task or of a data file, that are among the training rows.
    pub fn overlap(&self, test: &[Example], task: Option<&Task>) -> Overlap {
        let mut out = Overlap { rows: vec![], test_rows: test.len(), too_short: 0 };
        for row in test {
            let forms = forms(row, task);
            let own = bare(&forms[0]);
            out.too_short += usize::from(own.split(' ').count() < self.n);
            let exact = forms.iter().find_map(|f| self.exact.get(f)).map(|id| (Likeness::Exact, *id));
            let same = || forms.iter().find_map(|f| self.normalised.get(&bare(f).replace(' ', "")));
            let found = exact.or_else(|| same().map(|id| (Likeness::Normalised, *id)));
            // A template's own words are no leak, so runs are those of the plain text only.
            let run = || runs(&own, self.n).find_map(|run| self.ngrams.get(&run));
            let found = found.or_else(|| run().map(|id| (Likeness::Ngram, *id)));
            if let Some((likeness, train)) = found {
                out.rows.push(Match { test: row.id, train, likeness, text: forms[0].clone() });
            }
        }
        out
    }
}

/// The texts by which a row is known: the plain one first, and LLM-Adapters' instruction where the task has one.
///
/// Choices belong to a question, since "Which is a mixture?" alone is no problem yet. A passage does not: its
/// questions are what is asked.
fn forms(row: &Example, task: Option<&Task>) -> Vec<String> {
    let (plain, choices) = match (&row.text, &row.target) {
        (Text::Question { question, .. }, Target::Choice { choices, .. }) => (question.clone(), &choices[..]),
        (Text::Question { question, .. }, _) => (question.clone(), &[][..]),
        (Text::Prompt { instruction, input }, _) if input.is_empty() => (instruction.clone(), &[][..]),
        _ => (row.all_text().into_owned(), &[][..]),
    };
    // Fixed choices (yes, no) tell no question from another.
    let own = task.is_none_or(|t| t.spec().labels != choices);
    let first = match choices.is_empty() || !own {
        true => plain.clone(),
        false => format!("{plain} {}", choices.join(" ")),
    };
    let form = task.and_then(|t| t.spec().llm_adapters.as_ref());
    let written =
        form.filter(|_| matches!(row.text, Text::Question { .. })).map(|f| f.write(&plain, choices));
    let written = written.filter(|text| *text != first);
    std::iter::once(first).chain(written).collect()
}

/// Lower-case letters and digits, one space between words.
fn bare(text: &str) -> String {
    let kept: String = text.chars().filter(|c| c.is_alphanumeric() || c.is_whitespace()).collect();
    kept.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Hashes of the runs of `n` words of a bare text; none where it has fewer.
fn runs(bare: &str, n: usize) -> impl Iterator<Item = u64> {
    let words: Vec<&str> = bare.split(' ').collect();
    let hash = |run: &[&str]| {
        let mut hasher = DefaultHasher::new();
        run.hash(&mut hasher);
        hasher.finish()
    };
    words.windows(n).map(hash).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u64, text: &str) -> Example {
        Example { id, text: Text::Single(text.into()), target: Target::Class(1) }
    }

    fn found(overlap: &Overlap) -> Vec<(u64, u64, Likeness)> {
        overlap.rows.iter().map(|m| (m.test, m.train, m.likeness)).collect()
    }

    #[test]
    fn each_likeness_is_told_from_the_others() {
        let task = Task::named("sst2").unwrap();
        let train = [
            row(4, "The cat  sat."),
            row(9, "the cat sat"),
            row(5, "A dog ran over the old hill, and then."),
        ];
        let test = [
            row(0, "the CAT, sat!"),
            row(1, "a dog runs over"),
            row(2, "The cat  sat."),
            row(3, "Yesterday a dog ran over the OLD hill"),
            row(7, "cat sat"),
        ];
        let overlap = Seen::of(&[(&train, None)], 5).overlap(&test, Some(&task));
        let expected = [(0, 4, Likeness::Normalised), (2, 4, Likeness::Exact), (3, 5, Likeness::Ngram)];
        assert_eq!(found(&overlap), expected);
        assert_eq!((overlap.test_rows, overlap.too_short, overlap.count(Likeness::Exact)), (5, 4, 1));
        assert!(overlap.leaks() && overlap.whole() == 2);
        // A longer run is not shared any more.
        assert_eq!(found(&Seen::of(&[(&train, None)], 8).overlap(&test, Some(&task))), expected[..2]);
    }

    #[test]
    fn a_question_is_known_in_llm_adapters_words_too() {
        let task = Task::named("piqa").unwrap();
        let choice = |id, goal: &str, choices: [&str; 2]| Example {
            id,
            text: Text::Question { question: goal.into(), passage: None, scored: None },
            target: Target::Choice { choices: choices.map(String::from).to_vec(), gold: 0 },
        };
        let form = task.spec().llm_adapters.as_ref().unwrap();
        let written = form.write("dry boots", &["paper".into(), "water".into()]);
        let train = [Example {
            id: 3,
            text: Text::Prompt { instruction: written, input: String::new() },
            target: Target::Response("the correct answer is solution1".into()),
        }];
        let test = [choice(0, "dry boots", ["paper", "sand"]), choice(1, "dry boots", ["paper", "water"])];
        // The template alone has more than three words, and is no leak.
        let overlap = Seen::of(&[(&train, None)], 3).overlap(&test, Some(&task));
        assert_eq!(found(&overlap), [(1, 3, Likeness::Exact)]);
        assert!((overlap.share() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn a_passage_makes_no_other_question_and_few_rows_make_no_leak() {
        let task = Task::named("boolq").unwrap();
        let ask = |id, passage: Option<&str>| Example {
            id,
            text: Text::Question {
                question: format!("is {id} odd"),
                passage: passage.map(String::from),
                scored: None,
            },
            target: Target::Choice { choices: vec!["no".into(), "yes".into()], gold: 1 },
        };
        let test: Vec<Example> = (0..201).map(|id| ask(id, Some("Numbers."))).collect();
        let seen = Seen::of(&[(&[ask(7, None), ask(9, None)], Some(&task))], NGRAM);
        let overlap = seen.overlap(&test, Some(&task));
        assert_eq!(found(&overlap), [(7, 7, Likeness::Exact), (9, 9, Likeness::Exact)]);
        assert!(!overlap.leaks(), "2 of 201 rows");
    }
}
