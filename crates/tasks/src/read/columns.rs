//! From a row's cells to an [`Example`], as the task's spec maps them.

use super::record::{Record, kind, records};
use crate::answer;
use crate::example::{Example, Target, Text};
use crate::llm_adapters::RowForm;
use crate::spec::{Column, Field, Format, Kind, Source, Spec};
use crate::template;
use crate::{Error, Place};
use regex::Regex;
use serde_json::Value;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// All examples of a split's files, numbered through.
pub(crate) fn examples(spec: &Spec, source: &Source, files: &[PathBuf]) -> Result<Vec<Example>, Error> {
    let (mut all, mut rows) = (Vec::new(), 0);
    for path in files {
        all.extend(examples_of(spec, source, path, &mut rows)?);
    }
    Ok(all)
}

fn examples_of(spec: &Spec, source: &Source, path: &Path, rows: &mut u64) -> Result<Vec<Example>, Error> {
    let mut records = match super::parquet::is(path) {
        true => super::parquet::records(path)?,
        false => records(path, &super::text::read(path)?, source)?,
    };
    if let Some(ending) = &source.labels_beside {
        super::labels::join(path, ending, &mut records)?;
    }
    let first = *rows;
    *rows += records.len() as u64;
    // The task's check has tried these patterns.
    let pattern = |text: &Option<String>| text.as_deref().and_then(|pattern| Regex::new(pattern).ok());
    let reader = Reader {
        spec,
        source,
        path,
        drops: pattern(&source.solution_drops),
        choice_drops: pattern(&source.choice_drops),
        choices_split: pattern(&source.choices_split),
    };
    let read = |(i, record): (usize, &Record)| match (Row { reader: &reader, record }).read() {
        Ok((text, target)) => Some(Ok(Example { id: first + i as u64, text, target })),
        Err(Error::EmptyText { .. }) if source.skips_broken => None,
        Err(error) => Some(Err(error)),
    };
    records.iter().enumerate().filter_map(read).collect()
}

struct Reader<'a> {
    spec: &'a Spec,
    source: &'a Source,
    path: &'a Path,
    drops: Option<Regex>,
    choice_drops: Option<Regex>,
    choices_split: Option<Regex>,
}

struct Row<'a> {
    reader: &'a Reader<'a>,
    record: &'a Record,
}

impl Row<'_> {
    fn read(&self) -> Result<(Text, Target), Error> {
        match (self.reader.source.format, &self.reader.spec.llm_adapters) {
            (Format::LlmAdapters, Some(form)) => self.llm_adapters(form),
            _ => Ok((self.text()?, self.target()?)),
        }
    }

    fn text(&self) -> Result<Text, Error> {
        match self.reader.spec.kind {
            Kind::Classification | Kind::Regression => {
                let a = self.field_text(Field::TextA)?;
                match self.column(Field::TextB) {
                    Some(_) => Ok(Text::Pair(a, self.field_text(Field::TextB)?)),
                    None => Ok(Text::Single(a)),
                }
            }
            Kind::MultipleChoice | Kind::Generation => Ok(Text::Question {
                question: self.field_text(Field::Question)?,
                passage: self.column(Field::Passage).map(|c| self.text_at(c)).transpose()?,
                scored: self.column(Field::Scored).map(|c| self.text_at(c)).transpose()?,
            }),
        }
    }

    fn target(&self) -> Result<Target, Error> {
        let spec = self.reader.spec;
        match spec.kind {
            Kind::Classification => Ok(Target::Class(self.class(&spec.labels)? as u32)),
            Kind::Regression => self.score().map(Target::Value),
            Kind::MultipleChoice => {
                let choices = self.choices()?;
                let gold = self.class(&choices)?;
                Ok(Target::Choice { choices, gold })
            }
            Kind::Generation => {
                let raw = self.field_text(Field::Answer)?;
                let gold = match &self.reader.source.answer_after {
                    Some(mark) => match raw.rsplit_once(mark.as_str()) {
                        Some((_, after)) => after.to_owned(),
                        None => {
                            let expected = format!("an answer after `{mark}`");
                            return Err(self.number(&self.shown(Field::Answer), &raw, &expected));
                        }
                    },
                    None => raw,
                };
                let solution = self.column(Field::Solution).map(|c| self.text_at(c)).transpose()?;
                self.answer(&self.shown(Field::Answer), &gold, solution)
            }
        }
    }

    /// A row of `{instruction, input, output, answer}`.
    fn llm_adapters(&self, form: &RowForm) -> Result<(Text, Target), Error> {
        let get = |name: &str| self.text_at(&Column::Name(name.into()));
        let instruction = get("instruction")?;
        let fail = |reason: String| Error::RowForm { path: self.path(), place: self.place(), reason };
        if self.record.named("input").is_some_and(|v| v.as_str().is_some_and(|s| !s.is_empty())) {
            return Err(fail("it has an `input`, which benchmark rows do not have".into()));
        }
        let (question, choices) = form.read(&instruction).map_err(fail)?;
        if question.trim().is_empty() {
            return Err(self.empty("instruction"));
        }
        let text = Text::Question { question, passage: None, scored: None };
        let answer = get("answer")?;
        if self.reader.spec.kind == Kind::Generation {
            let output = self.record.named("output").and_then(|v| v.as_str().map(String::from));
            return Ok((text, self.answer("answer", &answer, output.filter(|o| !o.trim().is_empty()))?));
        }
        let choices = if choices.is_empty() { self.reader.spec.labels.clone() } else { choices };
        let words = form.words(choices.len());
        match words.iter().position(|w| *w == answer) {
            Some(gold) => Ok((text, Target::Choice { choices, gold })),
            None => Err(self.label("answer", &answer, &words.join(", "))),
        }
    }

    fn choices(&self) -> Result<Vec<String>, Error> {
        let column = match self.column(Field::Choices) {
            None => return Ok(self.reader.spec.labels.clone()),
            Some(column) => column,
        };
        if let Column::Several(names) = column {
            return names.iter().map(|n| self.text_at(&Column::Name(n.clone()))).collect();
        }
        let value = self.value(column)?;
        let texts: Option<Vec<String>> = match (&value, &self.reader.choices_split) {
            (Value::Array(items), _) => items.iter().map(|v| v.as_str().map(String::from)).collect(),
            // What stands before the first mark is no choice.
            (Value::String(all), Some(mark)) => {
                Some(mark.split(all).skip(1).map(|choice| choice.trim().to_owned()).collect())
            }
            _ => return Err(self.shape(column, "an array of choices", &value)),
        };
        let drop = |text: String| match &self.reader.choice_drops {
            Some(pattern) => pattern.replace_all(&text, "").into_owned(),
            None => text,
        };
        match texts.map(|texts| texts.into_iter().map(drop).collect::<Vec<String>>()) {
            Some(texts) if texts.len() < 2 => Err(self.shape(column, "two choices or more", &value)),
            Some(texts) if texts.iter().any(|t| t.trim().is_empty()) => Err(self.empty(&column.shown())),
            Some(texts) => Ok(texts),
            None => Err(self.shape(column, "an array of strings", &value)),
        }
    }

    /// The class or choice that the label column names: by name, by number, or true / false.
    fn class(&self, names: &[String]) -> Result<usize, Error> {
        let beside = Column::Name(super::labels::COLUMN.into());
        let beside = self.reader.source.labels_beside.is_some().then_some(&beside);
        let column = beside.or(self.column(Field::Label)).ok_or_else(|| self.missing("label"))?;
        let value = self.value(column)?;
        let called = match self.column(Field::ChoiceLabels) {
            Some(labels) => self.value(labels)?.as_array().cloned().unwrap_or_default(),
            None => self.reader.source.choice_names.iter().map(|n| Value::from(n.as_str())).collect(),
        };
        let base = i64::from(self.reader.source.label_base);
        let named = &self.reader.spec.labels;
        // Where labels are called by numbers, a number is a name and no index: it would mean two things.
        let by_number = !named.iter().any(|l| l.parse::<i64>().is_ok());
        let index = |n: i64| by_number.then_some(n - base);
        let name = |text: &str| named.iter().position(|l| l == text).map(|i| i as i64);
        let number = match &value {
            Value::Bool(yes) if names.len() == 2 => Some(i64::from(*yes)),
            Value::Number(n) => name(&n.to_string()).or_else(|| index(n.as_i64()?)),
            Value::String(s) => {
                let at = called.iter().position(|c| c == &value).map(|i| i as i64);
                at.or_else(|| name(s)).or_else(|| index(s.trim().parse().ok()?))
            }
            _ => None,
        };
        let class = number.and_then(|n| usize::try_from(n).ok()).filter(|n| *n < names.len());
        class.ok_or_else(|| {
            let last = base + names.len() as i64 - 1;
            let mut allowed = format!("{base} to {last}");
            if !named.is_empty() && by_number {
                allowed = format!("{} (or {allowed})", named.join(", "));
            } else if !named.is_empty() {
                allowed = named.join(", ");
            } else if !called.is_empty() {
                let called: Vec<String> = called.iter().map(|c| c.to_string()).collect();
                allowed = called.join(", ");
            }
            if plain(&value) == "-1" {
                allowed += "; -1 marks a split whose labels are withheld";
            }
            self.label(&column.shown(), &plain(&value), &allowed)
        })
    }

    fn score(&self) -> Result<f32, Error> {
        let column = self.column(Field::Label).ok_or_else(|| self.missing("label"))?;
        let shown = plain(&self.value(column)?);
        let [low, high] = self.reader.spec.range.unwrap_or([f32::MIN, f32::MAX]);
        match shown.trim().parse::<f32>() {
            Ok(score) if (low..=high).contains(&score) => Ok(score),
            _ => Err(self.number(&column.shown(), &shown, &format!("a number from {low} to {high}"))),
        }
    }

    fn answer(&self, column: &str, raw: &str, solution: Option<String>) -> Result<Target, Error> {
        let readings: Vec<_> = self.reader.spec.prompt.values().flat_map(|p| p.reading.iter()).collect();
        let gold = answer::gold(raw, readings.iter().any(|r| r.is_numeric()))
            .ok_or_else(|| self.number(column, raw, "a number"))?;
        let solution = solution.map(|text| match &self.reader.drops {
            Some(pattern) => pattern.replace_all(&text, "").into_owned(),
            None => text,
        });
        Ok(Target::Answer { gold, solution })
    }

    fn field_text(&self, field: Field) -> Result<String, Error> {
        let column = self.column(field).ok_or_else(|| self.missing(&format!("{field:?}").to_lowercase()))?;
        self.text_at(column)
    }

    /// A text column, or several joined by a space; never empty.
    fn text_at(&self, column: &Column) -> Result<String, Error> {
        if let Column::Several(names) = column {
            let parts: Result<Vec<String>, Error> =
                names.iter().map(|n| self.text_at(&Column::Name(n.clone()))).collect();
            return Ok(parts?.join(" "));
        }
        if let Column::Made { text } = column {
            return self.made(text);
        }
        match self.value(column)? {
            Value::String(text) if text.trim().is_empty() => Err(self.empty(&column.shown())),
            Value::String(text) => Ok(text),
            Value::Number(n) => Ok(n.to_string()),
            other => Err(self.shape(column, "a string", &other)),
        }
    }

    /// A text made of columns; one of them may be empty, as a second half often is, but not all.
    fn made(&self, form: &str) -> Result<String, Error> {
        let text = template::fill(form, |place| match self.record.named(place)? {
            Value::String(text) => Some(Cow::from(text)),
            _ => None,
        });
        match text {
            Ok(text) if text.trim().is_empty() => Err(self.empty(form)),
            Ok(text) => Ok(text),
            Err(place) => Err(self.missing(&place)),
        }
    }

    fn column(&self, field: Field) -> Option<&Column> {
        self.reader.source.columns.get(&field)
    }

    fn shown(&self, field: Field) -> String {
        self.column(field).map(Column::shown).unwrap_or_default()
    }

    fn value(&self, column: &Column) -> Result<Value, Error> {
        self.record.at(column).ok_or_else(|| self.missing(&column.shown()))
    }

    fn path(&self) -> std::path::PathBuf {
        self.reader.path.to_owned()
    }

    fn place(&self) -> Place {
        self.record.place
    }

    fn missing(&self, column: &str) -> Error {
        let (column, has) = (column.to_owned(), self.record.shown());
        Error::MissingColumn { path: self.path(), place: self.place(), column, has }
    }

    fn empty(&self, column: &str) -> Error {
        Error::EmptyText { path: self.path(), place: self.place(), column: column.to_owned() }
    }

    fn shape(&self, column: &Column, expected: &str, found: &Value) -> Error {
        let expected = format!("{expected} in column `{}`", column.shown());
        Error::Shape { path: self.path(), place: self.place(), expected, found: kind(found).into() }
    }

    fn label(&self, column: &str, value: &str, allowed: &str) -> Error {
        Error::Label {
            path: self.path(),
            place: self.place(),
            column: column.to_owned(),
            value: value.to_owned(),
            allowed: allowed.to_owned(),
        }
    }

    fn number(&self, column: &str, value: &str, expected: &str) -> Error {
        Error::Number {
            path: self.path(),
            place: self.place(),
            column: column.to_owned(),
            value: value.to_owned(),
            expected: expected.to_owned(),
        }
    }
}

/// A value as a person would write it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
