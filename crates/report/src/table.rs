//! Tables: the one form that the page, Markdown, CSV and the terminal all show.

use crate::number::{self, fixed};
use serde::{Deserialize, Serialize};

/// A value, with the interval that it is known to lie in where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The estimate itself.
    #[serde(with = "number::exact")]
    pub value: f64,
    /// Lower and upper end; what the interval is (95 %, range of seeds) is said by its column.
    #[serde(with = "number::exact")]
    pub interval: Option<(f64, f64)>,
}

impl Estimate {
    /// A value that comes without an interval.
    pub fn exact(value: f64) -> Self {
        Self { value, interval: None }
    }

    /// A value between `low` and `high`.
    pub fn between(value: f64, low: f64, high: f64) -> Self {
        Self { value, interval: Some((low, high)) }
    }

    /// `0.813 [0.790, 0.836]`, or the value alone.
    pub fn text(&self, digits: usize) -> String {
        let value = fixed(self.value, digits);
        match self.interval {
            None => value,
            Some((low, high)) => {
                format!("{value} [{}, {}]", fixed(low, digits), fixed(high, digits))
            }
        }
    }
}

/// One cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cell {
    /// Words.
    Text(String),
    /// A number; its column says with how many decimals it is shown.
    Number(#[serde(with = "number::exact")] f64),
    /// A number with its interval.
    Estimate(Estimate),
    /// There is no value here; shown as a dash.
    Missing,
}

impl Cell {
    /// The text for people, with `digits` decimals where it is a number.
    pub fn text(&self, digits: usize) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(value) => fixed(*value, digits),
            Self::Estimate(estimate) => estimate.text(digits),
            Self::Missing => "–".to_owned(),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<f64> for Cell {
    fn from(value: f64) -> Self {
        Self::Number(value)
    }
}

impl From<Estimate> for Cell {
    fn from(estimate: Estimate) -> Self {
        Self::Estimate(estimate)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Missing, Into::into)
    }
}

/// On which side the cells of a column line up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// The heading of a column and how its numbers are shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// The heading.
    pub title: String,
    /// Unit of the numbers, shown in the heading: `s`, `MiB`, `%`.
    pub unit: Option<String>,
    /// Decimals of the numbers.
    pub digits: usize,
    /// Side on which the cells line up.
    pub align: Align,
}

impl Column {
    /// A column of words.
    pub fn text(title: impl Into<String>) -> Self {
        Self { title: title.into(), unit: None, digits: 0, align: Align::Left }
    }

    /// A column of numbers with `digits` decimals.
    pub fn number(title: impl Into<String>, digits: usize) -> Self {
        Self { title: title.into(), unit: None, digits, align: Align::Right }
    }

    /// The same column with a unit in its heading.
    #[must_use]
    pub fn unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = Some(unit.into());
        self
    }

    /// Heading and unit in one line: `time (s)`.
    pub fn heading(&self) -> String {
        match &self.unit {
            Some(unit) => format!("{} ({unit})", self.title),
            None => self.title.clone(),
        }
    }
}

/// A table; the first column names its row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// One line that says what the table shows.
    pub caption: String,
    /// The columns, left to right.
    pub columns: Vec<Column>,
    /// The rows; cells that a row lacks are shown as missing.
    pub rows: Vec<Vec<Cell>>,
    /// Indices of rows that are set in bold.
    pub emphasised: Vec<usize>,
    /// A remark below the table: what an interval is, what was left out.
    pub note: Option<String>,
}

impl Table {
    /// An empty table.
    pub fn new(caption: impl Into<String>) -> Self {
        Self {
            caption: caption.into(),
            columns: Vec::new(),
            rows: Vec::new(),
            emphasised: Vec::new(),
            note: None,
        }
    }

    /// Adds a column on the right.
    #[must_use]
    pub fn column(mut self, column: Column) -> Self {
        self.columns.push(column);
        self
    }

    /// Adds a remark below the table.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// Adds a row at the end.
    pub fn push(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }

    /// Adds a row at the end, set in bold.
    pub fn push_emphasised(&mut self, row: Vec<Cell>) {
        self.emphasised.push(self.rows.len());
        self.rows.push(row);
    }

    /// Number of columns: those declared, or as many as the longest row fills.
    pub fn width(&self) -> usize {
        let longest = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        longest.max(self.columns.len())
    }

    /// Heading of column `c`; empty beyond the declared columns.
    pub fn heading(&self, c: usize) -> String {
        self.columns.get(c).map(Column::heading).unwrap_or_default()
    }

    /// Alignment of column `c`; left beyond the declared columns.
    pub fn align(&self, c: usize) -> Align {
        self.columns.get(c).map_or(Align::Left, |column| column.align)
    }

    /// Text of the cell in row `r`, column `c`.
    pub fn text(&self, r: usize, c: usize) -> String {
        let digits = self.columns.get(c).map_or(3, |column| column.digits);
        self.cell(r, c).text(digits)
    }

    /// The cell in row `r`, column `c`; missing beyond the end of its row.
    pub fn cell(&self, r: usize, c: usize) -> &Cell {
        self.rows.get(r).and_then(|row| row.get(c)).unwrap_or(&Cell::Missing)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two methods with units, an interval, a missing cell and a hostile name.
    pub(crate) fn sample() -> Table {
        let mut table = Table::new("Accuracy on 500 rows")
            .column(Column::text("method"))
            .column(Column::number("accuracy", 3))
            .column(Column::number("time", 1).unit("s"))
            .note("Intervals are 95 %.");
        table.push(vec!["LoRA <b>|x".into(), Estimate::between(0.8134, 0.7901, 0.8367).into()]);
        table.push_emphasised(vec!["SIBO-LoRA".into(), 0.8256.into(), 12_345.67.into()]);
        table
    }

    #[test]
    fn short_rows_are_filled_and_long_ones_are_kept() {
        let mut table = sample();
        assert_eq!(table.text(0, 1), "0.813 [0.790, 0.837]");
        assert_eq!(table.text(0, 2), "–");
        assert_eq!(table.text(1, 2), "12,345.7");
        assert_eq!(table.heading(2), "time (s)");
        table.push(vec!["a".into(), Cell::Missing, Cell::Missing, "extra".into()]);
        assert_eq!(table.width(), 4);
        assert_eq!(table.text(2, 3), "extra");
    }

    #[test]
    fn a_table_survives_json() {
        let mut table = sample();
        table.push(vec!["diverged".into(), f64::INFINITY.into()]);
        let text = serde_json::to_string(&table).unwrap();
        assert_eq!(serde_json::from_str::<Table>(&text).unwrap(), table);
    }
}
