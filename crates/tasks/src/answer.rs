//! How an answer is read out of a response, and when it is right.

use regex::Regex;
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// One way to read a response. Each gives its own number; tables say which was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reading {
    /// LLM-Adapters, arithmetic: commas dropped, the last number; right within 1e-3.
    LastNumber,
    /// LLM-Adapters, AQuA: the first capital A to E, even inside a word.
    FirstLetter,
    /// The letter after the last "answer is".
    AnswerIsLetter,
    /// The last A to E that stands alone.
    LastLetter,
    /// LLM-Adapters, commonsense: the first of the label words.
    LabelWord,
    /// What stands between the last "answer is" that is followed by something and the end of its sentence or line, without
    /// quotes, brackets and emphasis around it, whatever its case.
    AnswerIs,
    /// lm-evaluation-harness, GSM8K: what follows the first `#### `.
    StrictMatch,
    /// lm-evaluation-harness, GSM8K: the last thing that looks like a number.
    FlexibleExtract,
}

/// What may stand around an answer in words: quotes, brackets, Markdown's emphasis.
const MARKS: [char; 9] = ['*', '_', '`', '"', '\'', '(', ')', '[', ']'];

/// How far a number may lie from the gold one (LLM-Adapters, `evaluate.py`).
const NUMBER_TOLERANCE: f64 = 1e-3;

/// A pattern written here, so that it cannot be wrong at run time.
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the patterns of this file are tested")
}

static NUMBER: LazyLock<Regex> = LazyLock::new(|| pattern(r"-?\d+\.?\d*"));
static LETTER: LazyLock<Regex> = LazyLock::new(|| pattern("[A-E]"));
static LONE_LETTER: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b[A-E]\b"));
static ANSWER_IS: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i:answer is)\s*:?\s*\(?([A-E])\b"));
static ANSWER_IS_TEXT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?i:\banswer is)\b[ \t]*:?[ \t]*([^\r\n]*?)[ \t]*(?:[.!?]['\x22)*]*(?:\s|$)|[\r\n]|$)")
});
static STRICT: LazyLock<Regex> = LazyLock::new(|| pattern(r"#### (-?[0-9.,]+)"));
static FLEXIBLE: LazyLock<Regex> = LazyLock::new(|| pattern(r"-?[$0-9.,]{2,}|-?[0-9]+"));

/// What one reading made of one response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// Which reading.
    pub reading: Reading,
    /// The answer as it stands in the response; none where there is none.
    pub answer: Option<String>,
    /// Whether it is the gold answer.
    pub right: bool,
}

impl Reading {
    /// All readings.
    pub const ALL: [Reading; 8] = [
        Reading::LastNumber,
        Reading::FirstLetter,
        Reading::AnswerIsLetter,
        Reading::LastLetter,
        Reading::LabelWord,
        Reading::AnswerIs,
        Reading::StrictMatch,
        Reading::FlexibleExtract,
    ];

    /// The name in task files, and the filter's name in result files.
    pub fn name(self) -> &'static str {
        match self {
            Reading::LastNumber => "last-number",
            Reading::FirstLetter => "first-letter",
            Reading::AnswerIsLetter => "answer-is-letter",
            Reading::LastLetter => "last-letter",
            Reading::LabelWord => "label-word",
            Reading::AnswerIs => "answer-is",
            Reading::StrictMatch => "strict-match",
            Reading::FlexibleExtract => "flexible-extract",
        }
    }

    /// Whether gold answers must be numbers.
    pub fn is_numeric(self) -> bool {
        matches!(self, Reading::LastNumber | Reading::StrictMatch | Reading::FlexibleExtract)
    }

    /// The answer in `response`; `words` are the label words of [`Reading::LabelWord`].
    pub fn read(self, response: &str, words: &[String]) -> Option<String> {
        let owned = |m: regex::Match<'_>| m.as_str().to_owned();
        match self {
            Reading::LastNumber => NUMBER.find_iter(&response.replace(',', "")).last().map(owned),
            Reading::FirstLetter => LETTER.find(response).map(owned),
            Reading::LastLetter => LONE_LETTER.find_iter(response).last().map(owned),
            Reading::AnswerIsLetter => {
                ANSWER_IS.captures_iter(response).last().and_then(|c| c.get(1)).map(owned)
            }
            Reading::LabelWord => first_word(response, words),
            Reading::AnswerIs => {
                let bare = |c: regex::Captures<'_>| {
                    c.get(1).map_or("", |m| m.as_str().trim_matches(MARKS).trim()).to_owned()
                };
                ANSWER_IS_TEXT.captures_iter(response).map(bare).filter(|answer| !answer.is_empty()).last()
            }
            Reading::StrictMatch => STRICT.captures(response).and_then(|c| c.get(1)).map(owned),
            Reading::FlexibleExtract => FLEXIBLE.find_iter(response).last().map(owned),
        }
    }

    /// Whether `answer`, as read, is the `gold` one.
    pub fn is_right(self, answer: &str, gold: &str) -> bool {
        match self {
            Reading::LastNumber => match (answer.parse::<f64>(), gold.parse::<f64>()) {
                (Ok(answer), Ok(gold)) => (answer - gold).abs() <= NUMBER_TOLERANCE,
                _ => false,
            },
            Reading::StrictMatch | Reading::FlexibleExtract => harness_form(answer) == harness_form(gold),
            Reading::AnswerIs => answer.to_lowercase() == gold.to_lowercase(),
            _ => answer == gold,
        }
    }

    /// Reads and judges at once.
    pub fn judge(self, response: &str, gold: &str, words: &[String]) -> Judged {
        let answer = self.read(response, words);
        let right = answer.as_deref().is_some_and(|a| self.is_right(a, gold));
        Judged { reading: self, answer, right }
    }
}

/// The word that begins first; of those that begin together, the first of the list.
fn first_word(response: &str, words: &[String]) -> Option<String> {
    let found = words.iter().filter_map(|w| response.find(w.as_str()).map(|at| (at, w)));
    found.min_by_key(|(at, _)| *at).map(|(_, word)| word.clone())
}

/// What lm-evaluation-harness's `exact_match` of GSM8K compares: no `,` and `$`, no full stop at the end.
fn harness_form(answer: &str) -> String {
    let plain = answer.replace([',', '$'], "");
    plain.strip_suffix('.').unwrap_or(&plain).to_lowercase()
}

/// A gold answer in the form that readings compare: trimmed; a number without commas, `$` and a `.0` end.
///
/// None if it should be a number and is not.
pub fn gold(raw: &str, numeric: bool) -> Option<String> {
    let trimmed = raw.trim();
    if !numeric {
        return (!trimmed.is_empty()).then(|| trimmed.to_owned());
    }
    let plain = trimmed.replace([',', '$'], "");
    let whole = plain.strip_suffix(".0").unwrap_or(&plain);
    whole.parse::<f64>().ok().filter(|n| n.is_finite()).map(|_| whole.to_owned())
}

/// One reading over all rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Which reading.
    pub reading: Reading,
    /// Right or not, by row.
    pub right: Vec<bool>,
    /// How many responses had no answer in them.
    pub without_answer: usize,
}

impl Tally {
    /// Gathers the judgements of one reading; those of others are skipped.
    pub fn of<'a>(reading: Reading, judged: impl IntoIterator<Item = &'a Judged>) -> Tally {
        let mut tally = Tally { reading, right: Vec::new(), without_answer: 0 };
        for one in judged.into_iter().filter(|j| j.reading == reading) {
            tally.right.push(one.right);
            tally.without_answer += usize::from(one.answer.is_none());
        }
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(reading: Reading, response: &str) -> Option<String> {
        let words = ["answer1", "answer2", "answer3"].map(String::from);
        reading.read(response, &words)
    }

    #[test]
    fn the_last_number_wins_with_commas_dropped() {
        let judge = |text: &str, gold: &str| Reading::LastNumber.judge(text, gold, &[]);
        assert!(judge("7 - 3 = 4. The answer is 1,234.", "1234").right);
        assert!(judge("It is -2.5004 degrees", "-2.5").right);
        assert!(!judge("It is 2.5021 degrees", "2.5").right);
        // As in that project: a minus sign that means "less" makes the number negative.
        assert_eq!(judge("5-3", "3").answer.as_deref(), Some("-3"));
        assert_eq!(judge("none", "3"), Judged { reading: Reading::LastNumber, answer: None, right: false });
    }

    #[test]
    fn an_answer_in_words_ends_with_its_sentence() {
        let judge = |text: &str, gold: &str| Reading::AnswerIs.judge(text, gold, &[]).right;
        // "noble" and "Nothing" hold a "no"; the last statement counts.
        assert!(judge("Ada is noble. Nothing makes Ada shy. The answer is no.", "no"));
        assert!(judge("The answer is no. Wait: the answer is: Yes!", "yes"));
        assert!(judge("So the Answer is 3.5 km\nQuestion: what else?", "3.5 km"));
        assert!(judge("the answer is the red one", "The red one"));
        assert!(!judge("The answer is not known.", "no"));
        assert!(judge("The answer is **no**.", "no") && judge("The answer is: \"Yes.\"", "yes"));
        // A response that was cut off, or went on, at the phrase has said it before.
        assert!(
            judge("The answer is no. The answer is", "no")
                && judge("The answer is no. So the answer is:\n\nyes", "no")
        );
        let none = |text: &str| Reading::AnswerIs.read(text, &[]);
        assert_eq!((none("Yes."), none("The answer is."), none("The answer isn't no.")), (None, None, None));
    }

    #[test]
    fn letters_are_read_three_ways() {
        let text = "Because A is false, the answer is: (C). Done, Everyone.";
        assert_eq!(read(Reading::FirstLetter, text).as_deref(), Some("B"));
        assert_eq!(read(Reading::AnswerIsLetter, text).as_deref(), Some("C"));
        assert_eq!(read(Reading::LastLetter, text).as_deref(), Some("C"));
        assert_eq!(
            read(Reading::AnswerIsLetter, "The Answer is D. No: the answer is Every").as_deref(),
            Some("D")
        );
        assert_eq!(read(Reading::LastLetter, "Dear Bob"), None);
    }

    #[test]
    fn the_first_label_word_wins() {
        assert_eq!(read(Reading::LabelWord, "not answer3, answer1").as_deref(), Some("answer3"));
        assert_eq!(read(Reading::LabelWord, "Answer1"), None);
    }

    #[test]
    fn gsm8k_is_read_as_the_harness_reads_it() {
        let text = "He pays $1,080.50 then 3.\n#### 1,080\n#### 7";
        assert_eq!(read(Reading::StrictMatch, text).as_deref(), Some("1,080"));
        assert!(Reading::StrictMatch.judge(text, "1080", &[]).right);
        assert_eq!(read(Reading::FlexibleExtract, text).as_deref(), Some("7"));
        assert!(Reading::FlexibleExtract.judge("so it is $1,080.", "1080", &[]).right);
        assert!(!Reading::FlexibleExtract.judge("so it is 1080.0", "1080", &[]).right);
        assert_eq!(read(Reading::StrictMatch, "#### x"), None);
        // The harness's pattern takes a lone pair of stops for a number; kept.
        assert_eq!(read(Reading::FlexibleExtract, "9 so...").as_deref(), Some("..."));
    }

    #[test]
    fn gold_answers_are_brought_to_one_form() {
        assert_eq!(gold(" 1,234.0", true).as_deref(), Some("1234"));
        assert_eq!(gold("0.75", true).as_deref(), Some("0.75"));
        assert_eq!(gold("nan", true), None);
        assert_eq!(gold("A", true), None);
        assert_eq!(gold(" A ", false).as_deref(), Some("A"));
    }

    #[test]
    fn responses_without_an_answer_are_counted() {
        let judged = ["12", "no", "3"].map(|t| Reading::LastNumber.judge(t, "12", &[]));
        let other = Reading::LabelWord.judge("x", "y", &[]);
        let tally = Tally::of(Reading::LastNumber, judged.iter().chain([&other]));
        assert_eq!((tally.right, tally.without_answer), (vec![true, false, false], 1));
    }
}
