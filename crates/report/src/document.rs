//! The document that a command fills and that every output is made from.

use crate::plot::{BarChart, Confusion, HeatMap, LineChart, PairedDots, Plot};
use crate::table::Table;
use crate::{ReportError, Tone};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Version of the layout of `report.json`.
pub const SCHEMA: u32 = 1;

/// A whole report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// Version of the layout; [`SCHEMA`] when written by this program.
    pub schema: u32,
    /// What was done: `Quickstart: LoRA and SIBO-LoRA on QNLI`.
    pub title: String,
    /// The answer, one plain sentence.
    pub verdict: String,
    /// Short facts in the order of their weight: label and value.
    pub facts: Vec<(String, String)>,
    /// The parts of the report.
    pub sections: Vec<Section>,
    /// Who made it and when: `sibo 0.1.0, 24 November 2026`.
    pub made_by: String,
}

/// A part of a report under one heading.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Section {
    /// Its heading.
    pub heading: String,
    /// What the section shows, before the details; may be empty. Text between backticks is code.
    pub lead: String,
    /// Its content.
    pub blocks: Vec<Block>,
}

/// One piece of a section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "data", rename_all = "snake_case")]
pub enum Block {
    /// Text; what stands between backticks is code.
    Paragraph(String),
    /// A table.
    Table(Table),
    /// Lines, with bands where their points have ranges.
    Lines(LineChart),
    /// A grid of coloured values.
    HeatMap(HeatMap),
    /// Each seed without and with the change.
    PairedDots(PairedDots),
    /// Amounts.
    Bars(BarChart),
    /// What each class was taken for.
    Confusion(Confusion),
    /// Examples with the answers of each model.
    Samples(Samples),
    /// A recipe, a command, a log.
    Code {
        /// `toml`, `json`, `text`.
        language: String,
        /// The text itself.
        text: String,
    },
    /// Short remarks, one each.
    Notes(Vec<String>),
}

impl Block {
    /// The block as a plot, where it is one.
    pub fn plot(&self) -> Option<&dyn Plot> {
        match self {
            Self::Lines(plot) => Some(plot),
            Self::HeatMap(plot) => Some(plot),
            Self::PairedDots(plot) => Some(plot),
            Self::Bars(plot) => Some(plot),
            Self::Confusion(plot) => Some(plot),
            _ => None,
        }
    }
}

/// Examples of a task with the answers of one or more models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Samples {
    /// What the examples are and how they were chosen.
    pub title: String,
    /// The examples.
    pub samples: Vec<Sample>,
}

/// One example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// What finds it again: `row 17`.
    pub name: String,
    /// What the model read.
    pub input: String,
    /// The right answer, where there is one.
    pub expected: Option<String>,
    /// What each model answered.
    pub answers: Vec<Answer>,
}

/// What one model answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Which model.
    pub name: String,
    /// Its look.
    pub tone: Tone,
    /// The answer.
    pub text: String,
    /// Whether it is right, where that is known.
    pub correct: Option<bool>,
}

impl Document {
    /// A document without facts and sections.
    pub fn new(title: impl Into<String>, verdict: impl Into<String>) -> Self {
        Self {
            schema: SCHEMA,
            title: title.into(),
            verdict: verdict.into(),
            facts: Vec::new(),
            sections: Vec::new(),
            made_by: String::new(),
        }
    }

    /// Adds a fact at the end.
    pub fn fact(&mut self, label: impl Into<String>, value: impl Into<String>) {
        self.facts.push((label.into(), value.into()));
    }

    /// Adds a section at the end and returns it for filling.
    pub fn section(&mut self, heading: impl Into<String>, lead: impl Into<String>) -> &mut Section {
        self.sections.push(Section::new(heading, lead));
        let last = self.sections.len() - 1;
        &mut self.sections[last]
    }

    /// Every table of the document that is a block of its own.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        let blocks = self.sections.iter().flat_map(|s| &s.blocks);
        blocks.filter_map(|block| match block {
            Block::Table(table) => Some(table),
            _ => None,
        })
    }

    /// Every plot of the document.
    pub fn plots(&self) -> impl Iterator<Item = &dyn Plot> {
        self.sections.iter().flat_map(|s| &s.blocks).filter_map(Block::plot)
    }

    /// The document as the text of `report.json`.
    pub fn to_json(&self) -> String {
        let text = serde_json::to_string(self);
        // Only a map with keys that are no strings, or a failing writer, could fail.
        text.expect("a document has string keys only and is written to memory") + "\n"
    }

    /// Reads a kept `report.json`.
    ///
    /// # Errors
    /// The file cannot be read, is no report, or was written by a later version.
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        let text = std::fs::read_to_string(path).map_err(ReportError::io("read", path))?;
        let shown = || path.display().to_string();
        let not = |e: serde_json::Error| ReportError::NotAReport { path: shown(), reason: e.to_string() };
        let value: serde_json::Value = serde_json::from_str(&text).map_err(not)?;
        let Some(found) = value.get("schema").and_then(serde_json::Value::as_u64) else {
            let reason = "it has no number under `schema`".to_owned();
            return Err(ReportError::NotAReport { path: shown(), reason });
        };
        if found > u64::from(SCHEMA) {
            return Err(ReportError::LaterSchema { path: shown(), found });
        }
        serde_json::from_value(value).map_err(not)
    }
}

impl Section {
    /// A section without content.
    pub fn new(heading: impl Into<String>, lead: impl Into<String>) -> Self {
        Self { heading: heading.into(), lead: lead.into(), blocks: Vec::new() }
    }

    /// Adds a block at the end.
    pub fn push(&mut self, block: Block) -> &mut Self {
        self.blocks.push(block);
        self
    }
}

macro_rules! block_from {
    ($($type:ty => $variant:ident),* $(,)?) => {$(
        impl From<$type> for Block {
            fn from(value: $type) -> Self {
                Self::$variant(value)
            }
        }
    )*};
}

block_from! {
    Table => Table,
    LineChart => Lines,
    HeatMap => HeatMap,
    PairedDots => PairedDots,
    BarChart => Bars,
    Confusion => Confusion,
    Samples => Samples,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One block of each textual kind, every text hostile.
    pub(crate) fn hostile() -> Document {
        let evil = "</script><script>alert('x')</script>\"&|*_`\u{1b}[31m\u{0}";
        let mut document = Document::new(evil, evil);
        document.made_by = evil.into();
        document.fact(evil, evil);
        let answer = Answer { name: evil.into(), tone: Tone::Sibo, text: evil.into(), correct: Some(false) };
        let sample = Sample {
            name: evil.into(),
            input: evil.into(),
            expected: Some(evil.into()),
            answers: vec![answer],
        };
        let mut table = Table::new(evil).column(crate::Column::text(evil)).note(evil);
        table.push(vec![evil.into(), evil.into()]);
        let matrix = Confusion {
            title: evil.into(),
            caption: evil.into(),
            classes: vec![evil.into()],
            counts: vec![vec![3]],
        };
        document
            .section(evil, evil)
            .push(Block::Paragraph(evil.into()))
            .push(table.into())
            .push(matrix.into())
            .push(Samples { title: evil.into(), samples: vec![sample] }.into())
            .push(Block::Code { language: evil.into(), text: evil.into() })
            .push(Block::Notes(vec![evil.into()]));
        document
    }

    #[test]
    fn a_document_survives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        let document = hostile();
        std::fs::write(&path, document.to_json()).unwrap();
        assert_eq!(Document::read(&path).unwrap(), document);
    }

    #[test]
    fn other_files_are_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        std::fs::write(&path, "{\"schema\": 7}").unwrap();
        let error = Document::read(&path).unwrap_err().to_string();
        assert!(error.ends_with("has report schema 7; this program reads up to 1"), "{error}");
        std::fs::write(&path, "[3]").unwrap();
        let error = Document::read(&path).unwrap_err().to_string();
        assert!(error.contains("is not a report of this program"), "{error}");
        let error = Document::read(&folder.path().join("none")).unwrap_err().to_string();
        assert!(error.starts_with("cannot read "), "{error}");
    }
}
