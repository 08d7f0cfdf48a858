//! Problems of several steps of deduction, made from a seed, with a depth: train on shallow ones, test on deeper.
//!
//! A problem holds two chains of rules of the same length, shuffled together. One begins at what is said of the person
//! asked about, the other at what is said of somebody else; the question names the end of one of them. So neither
//! the number of rules, nor their order, nor which words occur gives the answer away: only the steps do.

use crate::order::{self, Purpose};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::collections::HashSet;
use std::ops::RangeInclusive;

const NAMES: [&str; 16] = [
    "Ada", "Bela", "Cleo", "Dario", "Ema", "Farid", "Greta", "Hugo", "Ines", "Jana", "Kofi", "Lena", "Mira",
    "Nils", "Oto", "Pia",
];
const PROPERTIES: [&str; 44] = [
    "able", "alert", "brave", "brisk", "calm", "clever", "cold", "curious", "eager", "fair", "fast", "fond",
    "frank", "gentle", "glad", "grand", "happy", "honest", "humble", "idle", "keen", "kind", "late", "loud",
    "lucky", "merry", "mild", "neat", "noble", "patient", "plain", "polite", "proud", "quick", "quiet",
    "rich", "sharp", "shy", "silent", "stern", "strong", "tall", "warm", "wise",
];

/// The deepest problem that there are words for.
pub const DEEPEST: usize = PROPERTIES.len() / 2 - 1;

/// A problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Facts, rules and the question.
    pub question: String,
    /// `yes` or `no`.
    pub answer: &'static str,
    /// The steps, with the answer at their end.
    pub solution: String,
    /// Rules that must be followed one after another.
    pub depth: usize,
}

/// `count` different problems whose depths take turns over `depths` (1 to [`DEEPEST`]), half of them with the answer
/// yes; none of those in `taken`, which grows by them. `stream` tells files under one seed apart. Fewer come where the
/// words do not give as many.
pub fn problems(
    seed: u64,
    stream: u64,
    count: usize,
    depths: RangeInclusive<usize>,
    taken: &mut HashSet<String>,
) -> Vec<Problem> {
    // Streams of one seed must not be those of another.
    let mut rng = order::stream(Purpose::Deduction, seed);
    rng.set_stream(stream);
    let (low, span) = (*depths.start(), depths.end() + 1 - depths.start());
    let mut out = Vec::with_capacity(count);
    let mut failed = 0;
    while out.len() < count && failed < 1000 {
        let at = out.len();
        let problem = problem(&mut rng, low + at % span, (at / span).is_multiple_of(2));
        match taken.insert(problem.question.clone()) {
            true => {
                out.push(problem);
                failed = 0;
            }
            false => failed += 1,
        }
    }
    out
}

fn problem(rng: &mut ChaCha8Rng, depth: usize, yes: bool) -> Problem {
    let words = draw(rng, &PROPERTIES, 2 * (depth + 1));
    let (own, other) = words.split_at(depth + 1);
    let names = draw(rng, &NAMES, 2);
    let mut facts = [format!("{} is {}.", names[0], own[0]), format!("{} is {}.", names[1], other[0])];
    shuffle(rng, &mut facts);
    let rule = |pair: &[&str]| format!("Whoever is {} is {}.", pair[0], pair[1]);
    let mut rules: Vec<String> = own.windows(2).chain(other.windows(2)).map(rule).collect();
    shuffle(rng, &mut rules);
    let asked = if yes { own[depth] } else { other[depth] };
    let question = format!("{} {} Is {} {asked}?", facts.join(" "), rules.join(" "), names[0]);
    let steps: Vec<String> = own[1..].iter().map(|word| format!("so {} is {word}", names[0])).collect();
    let answer = if yes { "yes" } else { "no" };
    let end = if yes { String::new() } else { format!(" Nothing makes {} {asked}.", names[0]) };
    let solution = format!("{} is {}, {}.{end} The answer is {answer}.", names[0], own[0], steps.join(", "));
    Problem { question, answer, solution, depth }
}

/// `count` different entries of a list, in drawn order.
fn draw<'a>(rng: &mut ChaCha8Rng, from: &[&'a str], count: usize) -> Vec<&'a str> {
    let mut all = from.to_vec();
    shuffle(rng, &mut all);
    all.truncate(count);
    all
}

fn shuffle<T>(rng: &mut ChaCha8Rng, list: &mut [T]) {
    for i in (1..list.len()).rev() {
        list.swap(i, order::below(rng, i + 1));
    }
}

/// What is asked of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Yes or no at once.
    Answer,
    /// The steps, and yes or no at their end.
    Steps,
}

/// The task file over `train.jsonl` and the file `test` beside it; `depths` says what the test holds.
pub fn task_file(asked: Asked, name: &str, test: &str, depths: &str) -> String {
    let form = match asked {
        Asked::Answer => include_str!("deduction.toml"),
        Asked::Steps => include_str!("deduction-steps.toml"),
    };
    form.replace("NAME", name).replace("TESTFILE", test).replace("DEPTHS", depths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Reading;
    use crate::spec::Spec;

    /// A reader of its own: follows the rules of a question until nothing new comes.
    fn solve(question: &str) -> (bool, usize) {
        let (body, asked) = question.rsplit_once(" Is ").unwrap();
        let (name, goal) = asked.trim_end_matches('?').split_once(' ').unwrap();
        let sentences: Vec<Vec<&str>> = body.split('.').map(|s| s.split_whitespace().collect()).collect();
        let mut known: Vec<&str> = vec![];
        known.extend(sentences.iter().filter(|s| s.len() == 3 && s[0] == name).map(|s| s[2]));
        let mut at = 0;
        while at < known.len() {
            let next = sentences.iter().filter(|s| s.len() == 5 && s[2] == known[at]).map(|s| s[4]);
            known.extend(next.collect::<Vec<_>>());
            at += 1;
        }
        (known.contains(&goal), known.len() - 1)
    }

    #[test]
    fn answers_are_what_the_rules_say_at_every_depth() {
        let made = problems(5, 0, 90, 2..=7, &mut HashSet::new());
        assert_eq!(made.len(), 90);
        for problem in &made {
            assert_eq!(solve(&problem.question), (problem.answer == "yes", problem.depth), "{problem:?}");
            let read = Reading::AnswerIs.judge(&problem.solution, problem.answer, &[]);
            assert!(read.right, "{problem:?}");
        }
        for depth in 2..=7 {
            let of = |answer| made.iter().filter(|p| p.depth == depth && p.answer == answer).count();
            assert!(of("yes").abs_diff(of("no")) <= 1 && of("yes") + of("no") == 15, "{depth}");
        }
        assert_eq!(problems(5, 0, 3, DEEPEST..=DEEPEST, &mut HashSet::new())[0].depth, 21);
    }

    #[test]
    fn a_seed_gives_the_same_and_no_file_repeats_another() {
        let of = |seed, stream| problems(seed, stream, 30, 1..=3, &mut HashSet::new());
        assert_eq!(of(3, 1), of(3, 1));
        assert_ne!(of(3, 1), of(3, 2));
        assert_ne!(of(3, 1), of(4, 1));
        let mut taken = HashSet::new();
        let (a, b) = (problems(3, 1, 30, 1..=3, &mut taken), problems(3, 1, 30, 1..=3, &mut taken));
        assert!(a.iter().all(|p| !b.contains(p)) && taken.len() == 60);
    }

    #[test]
    fn its_task_file_is_a_task() {
        for asked in [Asked::Answer, Asked::Steps] {
            let spec =
                Spec::parse(&task_file(asked, "deduction-deeper", "deeper", "4 to 6"), "made").unwrap();
            assert_eq!(
                (spec.name.as_str(), spec.splits.test.as_deref()),
                ("deduction-deeper", Some("deeper"))
            );
            assert!(spec.description.contains("4 to 6"), "{}", spec.description);
        }
    }
}
