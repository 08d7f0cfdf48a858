//! How the LLM-Adapters project writes a benchmark row into one instruction string, both ways.
//!
//! Its data is licensed ODC-By and its code Apache-2.0 (AGI-Edgerunners/LLM-Adapters); the strings themselves
//! stand in the task files, because scores compare only when every byte is the same.

use crate::template::{self, Piece};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The `[llm-adapters]` section: one form that both writes an instruction and takes it apart.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RowForm {
    /// The instruction, with the places `question`, `choices` and `words`, in this order.
    pub instruction: String,
    /// One choice: the places `n` (from 1) or `letter` (from A), then `choice`.
    pub choice: Option<String>,
    /// Stands between two choices.
    #[serde(default = "space")]
    pub between_choices: String,
    /// The label word of a choice: the place `n` or `letter`.
    pub word: Option<String>,
    /// As many words as answer reading looks for; a row whose instruction lists its words may have fewer.
    #[serde(default)]
    pub most_choices: usize,
    /// The label words where they are fixed, in class order.
    #[serde(default)]
    pub words: Vec<String>,
    /// What training teaches: the places `word`, `answer` or `solution`.
    pub response: String,
}

fn space() -> String {
    " ".into()
}

impl RowForm {
    /// What the types alone cannot promise; `labels` is the number of the task's fixed labels.
    pub(crate) fn check(&self, labels: usize) -> Result<(), String> {
        let pieces = template::pieces(&self.instruction).map_err(|p| format!("instruction {p}"))?;
        if pieces.iter().any(|p| matches!(p, Piece::Place { filter: Some(_), .. })) {
            return Err("instruction has a filter; then it could not be taken apart again".into());
        }
        let places: Vec<&str> = pieces.iter().filter_map(Piece::place).collect();
        let all = ["question", "choices", "words"];
        let order = places.iter().map(|p| all.iter().position(|a| a == p));
        if places.first() != Some(&"question") || !order.is_sorted_by(|a, b| a < b) {
            return Err("instruction must hold {question}, then {choices} and {words} if at all".into());
        }
        if places.contains(&"choices") && !(self.word.is_some() && self.choice.is_some()) {
            return Err("with {choices} needs `choice` and `word`".into());
        }
        if self.word.is_some() && self.most_choices < 2 {
            return Err("with `word` needs `most-choices`, 2 or more".into());
        }
        if !self.words.is_empty() && self.words.len() != labels {
            return Err(format!("words has {} entries for {labels} labels", self.words.len()));
        }
        template::pieces(&self.response).map(|_| ()).map_err(|p| format!("response {p}"))
    }

    /// The label words of a row with `choices` choices, in class order; none for a free answer.
    pub fn words(&self, choices: usize) -> Vec<String> {
        match &self.word {
            Some(word) => (0..choices).map(|i| numbered(word, i)).collect(),
            None => self.words.clone(),
        }
    }

    /// The words that answer reading looks for, whatever the row's own number of choices.
    pub fn words_to_read(&self) -> Vec<String> {
        self.words(self.most_choices)
    }

    /// The instruction of a row.
    pub fn write(&self, question: &str, choices: &[String]) -> String {
        let written = template::fill(&self.instruction, |place| match place {
            "question" => Some(Cow::from(question)),
            "choices" => Some(Cow::from(self.write_choices(choices))),
            "words" => Some(Cow::from(self.words(choices.len()).join("/"))),
            _ => None,
        });
        written.expect("check() lets only these places through")
    }

    pub(crate) fn write_choices(&self, choices: &[String]) -> String {
        let written: Vec<String> =
            choices.iter().enumerate().map(|(i, c)| self.before_choice(i) + c).collect();
        written.join(&self.between_choices)
    }

    /// What stands directly before the text of choice `i` (from 0).
    fn before_choice(&self, i: usize) -> String {
        numbered(self.choice.as_deref().unwrap_or_default(), i).replace("{choice}", "")
    }

    /// Question and choices of an instruction; the error says which part does not fit.
    ///
    /// Writing them back gives the same bytes. Where a choice's text itself looks like the next choice's
    /// beginning, the cut is at the last such place.
    pub fn read(&self, instruction: &str) -> Result<(String, Vec<String>), String> {
        let pieces = template::pieces(&self.instruction)?;
        let literal = |place: &str| literal_before(&pieces, place);
        let mut rest = instruction
            .strip_prefix(literal("question"))
            .ok_or_else(|| format!("it should begin with `{}`", literal("question")))?;
        if let Some(Piece::Literal(end)) = pieces.last() {
            rest = rest.strip_suffix(end.as_str()).ok_or_else(|| format!("it should end with `{end}`"))?;
        }
        let mut count = if self.words.is_empty() { self.most_choices } else { self.words.len() };
        if has(&pieces, "words") {
            let (before, words) = rest
                .rsplit_once(literal("words"))
                .ok_or_else(|| format!("it should hold `{}` near its end", literal("words")))?;
            count = words.split('/').count();
            if self.words(count).join("/") != words {
                return Err(format!("`{words}` are not its label words"));
            }
            rest = before;
        }
        if !has(&pieces, "choices") {
            return Ok((rest.to_owned(), Vec::new()));
        }
        self.cut_choices(rest, literal("choices"), count)
    }

    fn cut_choices(&self, text: &str, before: &str, count: usize) -> Result<(String, Vec<String>), String> {
        let mut rest = text;
        let mut choices = Vec::with_capacity(count);
        for i in (0..count).rev() {
            let between = if i == 0 { before } else { &self.between_choices };
            let mark = between.to_owned() + &self.before_choice(i);
            let (front, choice) =
                rest.rsplit_once(&mark).ok_or_else(|| format!("choice {} is missing: no `{mark}`", i + 1))?;
            choices.push(choice.to_owned());
            rest = front;
        }
        choices.reverse();
        Ok((rest.to_owned(), choices))
    }
}

/// The form of choice `i` (from 0) with its number or letter.
pub(crate) fn numbered(form: &str, i: usize) -> String {
    let letter = char::from(b'A' + (i % 26) as u8);
    form.replace("{n}", &(i + 1).to_string()).replace("{letter}", &letter.to_string())
}

fn has(pieces: &[Piece], place: &str) -> bool {
    pieces.iter().any(|p| p.place() == Some(place))
}

/// The literal text directly before a place; empty where another place or the start stands there.
fn literal_before<'a>(pieces: &'a [Piece], place: &str) -> &'a str {
    let at = pieces.iter().position(|p| p.place() == Some(place));
    match at.and_then(|i| pieces.get(i.checked_sub(1)?)) {
        Some(Piece::Literal(text)) => text,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices_form() -> RowForm {
        toml::from_str(
            r#"instruction = "Choose: {question}\n\n{choices}\n\nAnswer format: {words}"
               choice = "Answer{n}: {choice}"
               word = "answer{n}"
               most-choices = 5
               response = "the correct answer is {word}""#,
        )
        .unwrap()
    }

    #[test]
    fn reading_undoes_writing_even_when_texts_look_like_marks() {
        let form = choices_form();
        let choices = ["a ", "b Answer1: b\n\n", "c Answer format: answer1"].map(String::from).to_vec();
        let text = form.write("Is {it} so?\n\nAnswer7: x", &choices);
        assert_eq!(form.read(&text).unwrap(), ("Is {it} so?\n\nAnswer7: x".to_owned(), choices));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let form = choices_form();
        assert!(form.read("Pick: x").unwrap_err().contains("begin with `Choose: `"));
        let wrong = "Choose: q\n\nAnswer1: a Answer2: b\n\nAnswer format: answer1/answer3";
        assert!(form.read(wrong).unwrap_err().contains("answer1/answer3"));
        let short = "Choose: q\n\nAnswer1: a\n\nAnswer format: answer1/answer2";
        assert!(form.read(short).unwrap_err().contains("choice 2 is missing"));
    }

    #[test]
    fn letters_number_choices_whose_count_is_fixed() {
        let form: RowForm = toml::from_str(
            "instruction = \"{question} Choices: {choices}\"\nchoice = \"({letter}) {choice}\"\n\
             word = \"{letter}\"\nmost-choices = 3\nresponse = \"{word}\"",
        )
        .unwrap();
        form.check(0).unwrap();
        let choices = ["1 m", "(B) 2", "3 "].map(String::from).to_vec();
        let text = form.write("How far? ", &choices);
        assert_eq!(text, "How far?  Choices: (A) 1 m (B) (B) 2 (C) 3 ");
        assert_eq!(
            form.read("q Choices: (A) 1 (B) 2 (C) 3").unwrap(),
            ("q".into(), ["1", "2", "3"].map(String::from).to_vec())
        );
        assert_eq!(form.words_to_read(), ["A", "B", "C"]);
        assert!(form.read("q Choices: (A) 1 (B) 2").unwrap_err().contains("choice 3 is missing"));
    }

    #[test]
    fn fixed_words_need_no_choices_in_the_text() {
        let form: RowForm = toml::from_str(
            "instruction = \"True? {question}?\\n\\nEnd\"\nwords = [\"false\", \"true\"]\nresponse = \"{word}\"",
        )
        .unwrap();
        form.check(2).unwrap();
        assert!(form.check(3).unwrap_err().contains("2 entries for 3 labels"));
        assert_eq!(form.read("True? is it?\n\nEnd").unwrap(), ("is it".to_owned(), vec![]));
        assert_eq!(form.write("is it", &[]), "True? is it?\n\nEnd");
    }
}
