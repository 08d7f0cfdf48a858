//! What a task file's types alone cannot promise: keys that contradict one another are named, with what would be right.

use super::{Column, Field, Format, HELD_OUT, Kind, PromptSpec, Protocol, Source, Spec};
use crate::metrics::Metric;
use crate::template::{self, Piece};
use crate::{Error, SplitName, suggest};

impl Spec {
    /// Refuses the first contradiction; `origin` names the file.
    pub(super) fn check(&self, origin: &str) -> Result<(), Error> {
        let bad = |key: &str, problem: &str| {
            Err(Error::SpecValue { origin: origin.into(), key: key.into(), problem: problem.into() })
        };
        if self.name.is_empty() || !self.name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        {
            return bad("name", "may hold letters, digits, `-`, `_` and `.` only: it becomes a file name");
        }
        if self.kind == Kind::Classification && self.labels.len() < 2 {
            return bad("labels", "needs two class names or more for a classification");
        }
        if self.range.is_some_and(|[low, high]| low >= high) {
            return bad("range", "needs its lower end first");
        }
        if self.metrics.is_empty() {
            return bad("metrics", "is empty; name one or more");
        }
        if self.source.is_empty() {
            return bad("source", "is empty; give one layout or more");
        }
        for metric in &self.metrics {
            if let Err(problem) = metric.suits(self.kind, self.labels.len()) {
                return bad("metrics", &problem);
            }
        }
        for source in &self.source {
            self.check_source(source).or_else(|(key, problem)| bad(&key, &problem))?;
        }
        self.check_splits().or_else(|(key, problem)| bad(&key, &problem))?;
        for (protocol, prompt) in &self.prompt {
            self.check_prompt(*protocol, prompt).or_else(|(key, problem)| bad(&key, &problem))?;
        }
        if let Some(form) = &self.llm_adapters {
            form.check(self.labels.len()).or_else(|problem| bad("llm-adapters", &problem))?;
        }
        Ok(())
    }

    fn check_source(&self, source: &Source) -> Result<(), (String, String)> {
        if source.format == Format::LlmAdapters {
            return match self.llm_adapters {
                Some(_) => Ok(()),
                None => {
                    Err(("source.format".into(), "`llm-adapters` needs the [llm-adapters] section".into()))
                }
            };
        }
        let label = |f: &Field| *f == Field::Label && source.labels_beside.is_some();
        let mut needed = match self.kind {
            Kind::Classification | Kind::Regression => vec![Field::TextA, Field::Label],
            Kind::MultipleChoice => vec![Field::Question, Field::Label],
            Kind::Generation => vec![Field::Question, Field::Answer],
        };
        if self.kind == Kind::MultipleChoice && self.labels.is_empty() {
            needed.push(Field::Choices);
        }
        match needed.iter().find(|f| !source.columns.contains_key(f) && !label(f)) {
            Some(field) => {
                let name = serde_json::to_string(field).unwrap_or_default();
                Err(("source.columns".into(), format!("lacks {name}, which this kind of task needs")))
            }
            None => check_patterns(source),
        }
    }

    fn check_splits(&self) -> Result<(), (String, String)> {
        for split in SplitName::ALL {
            let Some(file) = self.splits.file(split) else { continue };
            let key = format!("splits.{split}");
            if file == HELD_OUT {
                if split != SplitName::Validation || self.splits.train.is_none() {
                    return Err((key, "can be `held-out` for validation only, beside a train split".into()));
                }
            } else if !self.source.iter().any(|s| s.files.contains_key(file)) {
                return Err((key, format!("is `{file}`, which no source's `files` names")));
            }
        }
        Ok(())
    }

    fn check_prompt(&self, protocol: Protocol, prompt: &PromptSpec) -> Result<(), (String, String)> {
        let fail = |k: &str, problem: &str| Err((format!("prompt.{protocol}.{k}"), problem.to_owned()));
        prompt.check_places().or_else(|(key, problem)| fail(key, &problem))?;
        if protocol == Protocol::LmEval && prompt.context.is_none() == prompt.blank.is_none() {
            return fail("context", "or `blank` must be there, one of them");
        }
        if prompt.blank.is_some() && (protocol != Protocol::LmEval || self.kind != Kind::MultipleChoice) {
            return fail("blank", "belongs to `lm-eval` and tasks of multiple choice");
        }
        if protocol != Protocol::LmEval && prompt.context.is_some() {
            return fail("context", "belongs to `lm-eval`; here it is `instruction`");
        }
        if protocol != Protocol::LmEval && prompt.instruction.is_none() && self.llm_adapters.is_none() {
            return fail("instruction", "is missing, and there is no [llm-adapters] to take it from");
        }
        let choices = prompt.choices.as_ref().map_or(self.labels.len(), Vec::len);
        if !self.labels.is_empty() && choices != self.labels.len() {
            return fail("choices", &format!("needs {} texts, one a label", self.labels.len()));
        }
        if prompt.max_new_tokens.min(prompt.beams) == 0 {
            return fail("beams", "and `max-new-tokens` must be 1 or more");
        }
        let generated = self.kind.is_generated(protocol);
        if generated && prompt.reading.is_empty() {
            return fail("reading", "is missing; a response that nobody reads has no score");
        }
        let unfit = |m: &&Metric| match generated {
            true => **m != Metric::ExactMatch,
            false => matches!(m, Metric::ExactMatch | Metric::Pearson | Metric::Spearman),
        };
        let asked = if generated { "free responses" } else { "choices scored by likelihood" };
        match prompt.metrics.iter().find(unfit) {
            Some(metric) => fail("metrics", &format!("has `{}`, which {asked} lack", metric.name())),
            None => Ok(()),
        }
    }
}

impl PromptSpec {
    /// Refuses templates with places that no row fills; the error names the key.
    fn check_places(&self) -> Result<(), (&'static str, String)> {
        let contexts = self.context.iter().flat_map(|c| c.as_slice()).map(|text| ("context", text));
        let others = self.instruction.iter().map(|text| ("instruction", text));
        for (key, text) in contexts.chain(others).chain(self.response.iter().map(|text| ("response", text))) {
            let pieces = template::pieces(text).map_err(|problem| (key, problem))?;
            if let Some(place) = pieces.iter().filter_map(Piece::place).find(|p| !PLACES.contains(p)) {
                let hint = suggest::hint(place, PLACES);
                return Err((key, format!("has the place {{{place}}}{hint}; places: {}", PLACES.join(", "))));
            }
        }
        Ok(())
    }
}

/// The places that prompts may have.
const PLACES: [&str; 11] = [
    "text_a", "text_b", "question", "scored", "passage", "choices", "words", "word", "choice", "answer",
    "solution",
];

/// The regular expressions and the texts made of several columns.
fn check_patterns(source: &Source) -> Result<(), (String, String)> {
    let patterns = [
        ("solution-drops", &source.solution_drops),
        ("choice-drops", &source.choice_drops),
        ("choices-split", &source.choices_split),
    ];
    for (key, pattern) in patterns {
        if let Some(Err(e)) = pattern.as_deref().map(regex::Regex::new) {
            return Err((format!("source.{key}"), format!("is no regular expression: {e}")));
        }
    }
    for column in source.columns.values() {
        if let Column::Made { text } = column {
            template::pieces(text).map_err(|problem| ("source.columns".into(), problem))?;
        }
    }
    Ok(())
}
