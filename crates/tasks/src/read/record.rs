//! Rows before they mean anything: cells by column name, with the place they came from.

use crate::spec::{Column, Format, Source};
use crate::{Error, Place};
use serde_json::{Map, Value};
use std::path::Path;
use std::rc::Rc;

/// One row of a file.
#[derive(Debug)]
pub(crate) struct Record {
    /// Where it stands.
    pub(crate) place: Place,
    cells: Cells,
    /// Columns that the file has and this program cannot read, for messages.
    unread: Option<Rc<str>>,
}

#[derive(Debug)]
enum Cells {
    Tsv { header: Rc<Vec<String>>, cells: Vec<String> },
    Json(Map<String, Value>),
}

impl Record {
    /// A row of named values; `unread` names the columns of its file that could not be read.
    pub(crate) fn new(place: Place, cells: Map<String, Value>, unread: Option<Rc<str>>) -> Self {
        Record { place, cells: Cells::Json(cells), unread }
    }

    /// The value under a column's name, entering nested objects at dots.
    pub(crate) fn named(&self, name: &str) -> Option<Value> {
        match &self.cells {
            Cells::Tsv { header, cells } => {
                let at = header.iter().position(|h| h == name)?;
                cells.get(at).map(|c| Value::from(c.as_str()))
            }
            Cells::Json(map) => map.get(name).cloned().or_else(|| {
                let (outer, inner) = name.split_once('.')?;
                map.get(outer)?.get(inner).cloned()
            }),
        }
    }

    /// The value of a column that stands alone.
    pub(crate) fn at(&self, column: &Column) -> Option<Value> {
        match (column, &self.cells) {
            (Column::Index(i), Cells::Tsv { cells, .. }) => cells.get(*i).map(|c| Value::from(c.as_str())),
            (Column::Name(name), _) => self.named(name),
            _ => None,
        }
    }

    /// Gives a JSON row one more column; other rows are left as they are.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        if let Cells::Json(map) = &mut self.cells {
            map.insert(name.to_owned(), Value::from(value));
        }
    }

    /// The row's columns for a message.
    pub(crate) fn shown(&self) -> String {
        match &self.cells {
            Cells::Tsv { header, cells } if header.is_empty() => format!("{} cells", cells.len()),
            Cells::Tsv { header, .. } => quoted(header.iter()),
            Cells::Json(map) => match &self.unread {
                Some(unread) => format!("{}; of a type that is not read: {unread}", quoted(map.keys())),
                None => quoted(map.keys()),
            },
        }
    }

    /// The keys of a JSON row; none for other rows.
    pub(crate) fn json(&self) -> Option<&Map<String, Value>> {
        match &self.cells {
            Cells::Json(map) => Some(map),
            Cells::Tsv { .. } => None,
        }
    }
}

fn quoted<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<String> = names.map(|n| format!("`{n}`")).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// How a file's rows are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    /// The format.
    pub(crate) format: Format,
    /// Whether a TSV's first line names its columns.
    pub(crate) header: bool,
    /// Whether a TSV's rows of a wrong width are dropped rather than refused.
    pub(crate) skips_broken: bool,
}

impl From<&Source> for Layout {
    fn from(source: &Source) -> Self {
        Layout { format: source.format, header: source.header, skips_broken: source.skips_broken }
    }
}

/// All rows of a file's text in the given layout.
pub(crate) fn records(path: &Path, text: &str, layout: impl Into<Layout>) -> Result<Vec<Record>, Error> {
    let layout = layout.into();
    let records = match layout.format {
        Format::GlueTsv => tsv(path, text, layout),
        Format::JsonLines => json_lines(path, text),
        Format::Json | Format::LlmAdapters => json_array(path, text),
        // Only a file whose name ends in .parquet is one, and it never comes here.
        Format::Parquet => Err(super::parquet::not_named(path)),
    }?;
    if records.is_empty() {
        return Err(Error::NoRows { path: path.to_owned() });
    }
    Ok(records)
}

fn tsv(path: &Path, text: &str, layout: Layout) -> Result<Vec<Record>, Error> {
    let header = layout.header;
    let mut lines = super::text::lines(text).peekable();
    let split = |line: &str| line.split('\t').map(String::from).collect::<Vec<_>>();
    let names =
        Rc::new(if header { lines.next().map(|(_, l)| split(l)).unwrap_or_default() } else { vec![] });
    // Without a header the first row sets the least width: sts-test.tsv has two cells more in some rows.
    let first = lines.peek().map(|(_, l)| l.split('\t').count()).unwrap_or_default();
    let expected = if header { names.len() } else { first };
    lines
        .filter(|(_, line)| !line.is_empty())
        .filter_map(|(number, line)| {
            let cells = split(line);
            let found = cells.len();
            if found < expected || (header && found > expected) {
                let error = Error::Cells { path: path.to_owned(), line: number, found, expected };
                return (!layout.skips_broken).then_some(Err(error));
            }
            let cells = Cells::Tsv { header: names.clone(), cells };
            Some(Ok(Record { place: Place::Line(number), cells, unread: None }))
        })
        .collect()
}

fn json_lines(path: &Path, text: &str) -> Result<Vec<Record>, Error> {
    super::text::lines(text)
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| {
            let value = serde_json::from_str(line).map_err(|e| json_error(path, &e, number))?;
            object(path, Place::Line(number), value)
        })
        .collect()
}

fn json_array(path: &Path, text: &str) -> Result<Vec<Record>, Error> {
    let value: Value = serde_json::from_str(text).map_err(|e| json_error(path, &e, e.line()))?;
    let Value::Array(rows) = value else {
        return Err(Error::Shape {
            path: path.to_owned(),
            place: Place::Line(1),
            expected: "a JSON array of rows".into(),
            found: kind(&value).into(),
        });
    };
    rows.into_iter().enumerate().map(|(i, row)| object(path, Place::Row(i + 1), row)).collect()
}

fn object(path: &Path, place: Place, value: Value) -> Result<Record, Error> {
    match value {
        Value::Object(map) => Ok(Record::new(place, map, None)),
        other => Err(Error::Shape {
            path: path.to_owned(),
            place,
            expected: "a JSON object with the row's columns".into(),
            found: kind(&other).into(),
        }),
    }
}

fn json_error(path: &Path, error: &serde_json::Error, line: usize) -> Error {
    let words = error.to_string();
    let reason = words.rsplit_once(" at line ").map_or(words.as_str(), |(reason, _)| reason);
    Error::Json { path: path.to_owned(), line, column: error.column(), reason: reason.into() }
}

/// The JSON type in words.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn rows(text: &str, format: Format, header: bool) -> Result<Vec<Record>, String> {
        let layout = Layout { format, header, skips_broken: false };
        records(Path::new("f"), text, layout).map_err(|e| e.to_string())
    }

    #[test]
    fn rows_known_to_be_broken_are_dropped_on_request_only() {
        let layout = Layout { format: Format::GlueTsv, header: true, skips_broken: true };
        let kept = records(Path::new("f"), "a\tb\n1\n2\t3\n4\t5\t6\n", layout).unwrap();
        assert_eq!(kept.iter().map(|r| r.place).collect::<Vec<_>>(), [Place::Line(3)]);
    }

    #[test]
    fn tsv_keeps_quotes_and_counts_cells() {
        let r = rows("a\tb\r\n\"x\t y \"\"\r\n\n1\t2", Format::GlueTsv, true).unwrap();
        assert_eq!(r.len(), 2);
        assert_eq!(r[0].named("b"), Some(Value::from(" y \"\"")));
        assert_eq!((r[1].place, r[1].at(&Column::Index(0))), (Place::Line(4), Some(Value::from("1"))));
        let e = rows("a\tb\n1\t2\t3\n", Format::GlueTsv, true).unwrap_err();
        assert!(e.contains("line 2: 3 tab-separated cells, expected 2"), "{e}");
        assert!(rows("a\tb\n", Format::GlueTsv, true).unwrap_err().contains("no rows"));
        assert_eq!(rows("1\t2\n1\t2\t3\n", Format::GlueTsv, false).unwrap().len(), 2);
    }

    #[test]
    fn json_faults_have_their_line() {
        let e = rows("{\"a\": 1}\n\n{\"a\": }\n", Format::JsonLines, true).unwrap_err();
        assert!(e.contains("broken JSON at line 3, column 7: expected value"), "{e}");
        let e = rows("[\n{\"a\": 1},\n{\"a\" 2}]", Format::Json, true).unwrap_err();
        assert!(e.contains("broken JSON at line 3, column 6"), "{e}");
        let e = rows("[{}, 3]", Format::Json, true).unwrap_err();
        assert!(e.contains("row 2: expected a JSON object with the row's columns, found a number"), "{e}");
        assert!(rows("{}", Format::Json, true).unwrap_err().contains("found an object"));
        assert!(rows("x", Format::Parquet, true).unwrap_err().contains("end in .parquet"));
    }

    #[test]
    fn dots_enter_objects() {
        let r = rows(r#"{"choices": {"text": ["a", "b"]}, "x.y": 3}"#, Format::JsonLines, true).unwrap();
        assert_eq!(r[0].named("choices.text"), Some(serde_json::json!(["a", "b"])));
        assert_eq!(r[0].named("x.y"), Some(Value::from(3)));
        assert_eq!(r[0].named("choices.label"), None);
    }
}
