//! Heat maps: one number for each pair of a row and a column.

use super::{Drawing, Plot};
use crate::number::{fixed, typographic};
use crate::palette::HEAT_STEPS;
use crate::svg::{Anchor, Svg, fit, text_width};
use crate::table::{Cell, Column, Table};
use serde::{Deserialize, Serialize};

/// A grid of values, for example token similarity by method and layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeatMap {
    /// Heading.
    pub title: String,
    /// What to see, one sentence.
    pub caption: String,
    /// What the columns are: `layer`.
    pub column_title: String,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// What the rows are: `model`.
    pub row_title: String,
    /// Names of the rows.
    pub rows: Vec<String>,
    /// What a value is, with its unit: `mean cosine similarity`.
    pub value_title: String,
    /// `values[row][column]`; NaN where there is none.
    #[serde(with = "crate::number::exact")]
    pub values: Vec<Vec<f64>>,
    /// Decimals.
    pub digits: usize,
    /// Values are differences: two colours meet at zero.
    pub diverging: bool,
}

const ROW: f64 = 32.0;

impl HeatMap {
    fn value(&self, r: usize, c: usize) -> Option<f64> {
        let value = self.values.get(r)?.get(c)?;
        value.is_finite().then_some(*value)
    }

    /// Lowest and highest value of the scale; around zero for differences.
    fn range(&self) -> (f64, f64) {
        let all = self.values.iter().flatten().copied().filter(|v| v.is_finite());
        let (low, high) =
            all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            return (0.0, 1.0);
        }
        if self.diverging {
            let reach = low.abs().max(high.abs()).max(f64::MIN_POSITIVE);
            return (-reach, reach);
        }
        if high > low { (low, high) } else { (low, low + 1.0) }
    }

    /// Class of the colour for `value`: `h0` to `h20`, or `d0` to `d20`.
    fn class(&self, value: f64) -> String {
        let (low, high) = self.range();
        let part = ((value - low) / (high - low)).clamp(0.0, 1.0);
        let step = (part * (HEAT_STEPS - 1) as f64).round() as usize;
        format!("{}{step}", if self.diverging { 'd' } else { 'h' })
    }

    /// The text of a value in a cell: in full, or without the zero before the point.
    fn cell_text(&self, value: f64, short: bool) -> String {
        let text = typographic(&fixed(value, self.digits));
        let fraction = text.replacen("0.", ".", 1);
        let below_one = text.starts_with("0.") || text.starts_with("\u{2212}0.");
        if short && below_one { fraction } else { text }
    }

    /// Whether the texts of all cells fit into `width`: numbers in some cells only would read as
    /// a choice of what matters.
    fn fits(&self, width: f64, short: bool) -> bool {
        let finite = self.values.iter().flatten().filter(|v| v.is_finite());
        let texts = finite.map(|v| text_width(&self.cell_text(*v, short), 11.0));
        texts.fold(0.0, f64::max) + 4.0 <= width
    }

    fn draw_cell(&self, svg: &mut Svg, (r, c): (usize, usize), at: (f64, f64), width: f64) {
        let Some(value) = self.value(r, c) else { return };
        let class = self.class(value);
        let text = typographic(&fixed(value, self.digits));
        let (row, column) = (&self.rows[r], &self.columns[c]);
        svg.group("hit", |svg| {
            svg.tip(&format!("{row}\n{} {column}\n{}: {text}", self.column_title, self.value_title));
            svg.rect(at, (width, ROW), &format!("cell-edge {class}"));
            let short = !self.fits(width, false);
            if self.fits(width, short) {
                let place = (at.0 + width / 2.0, at.1 + ROW / 2.0 + 4.0);
                let text = self.cell_text(value, short);
                svg.text(place, Anchor::Middle, &format!("tick on-{class}"), &text);
            }
        });
    }

    /// The scale of colours with its ends in words; returns its height.
    fn draw_scale(&self, svg: &mut Svg, (left, top): (f64, f64), width: f64) -> f64 {
        let (low, high) = self.range();
        let step = (width / HEAT_STEPS as f64).min(9.0);
        let shown = |value: f64| typographic(&fixed(value, self.digits));
        let from = left + text_width(&shown(low), 11.0) + 6.0;
        svg.text((left, top + 9.0), Anchor::Start, "tick", &shown(low));
        let letter = if self.diverging { 'd' } else { 'h' };
        for i in 0..HEAT_STEPS {
            let at = (from + step * i as f64, top);
            svg.rect(at, (step, 10.0), &format!("step {letter}{i}"));
        }
        let to = from + step * HEAT_STEPS as f64 + 6.0;
        svg.text((to, top + 9.0), Anchor::Start, "tick", &shown(high));
        18.0
    }
}

impl Plot for HeatMap {
    fn title(&self) -> &str {
        &self.title
    }

    fn caption(&self) -> &str {
        &self.caption
    }

    fn description(&self) -> String {
        let mut text =
            format!("Heat map of {}: {} by {}.", self.value_title, self.row_title, self.column_title);
        for (r, row) in self.rows.iter().enumerate() {
            let mut values = (0..self.columns.len()).filter_map(|c| self.value(r, c));
            let Some(first) = values.next() else { continue };
            let last = values.next_back().unwrap_or(first);
            let (first, last) = (fixed(first, self.digits), fixed(last, self.digits));
            text += &format!(" {row}: from {first} to {last}.");
        }
        text
    }

    fn table(&self) -> Table {
        let mut table =
            Table::new(format!("{}: values", self.title)).column(Column::text(self.row_title.clone()));
        for column in &self.columns {
            let heading = format!("{} {column}", self.column_title);
            table = table.column(Column::number(heading, self.digits));
        }
        for (r, row) in self.rows.iter().enumerate() {
            let cells = (0..self.columns.len()).map(|c| Cell::from(self.value(r, c)));
            table.push(std::iter::once(Cell::from(row.as_str())).chain(cells).collect());
        }
        table
    }

    fn draw(&self, width: f64) -> Drawing {
        let mut svg = Svg::default();
        let heading = fit(&self.value_title, width, 11.5);
        svg.text((0.0, 11.0), Anchor::Start, "axis", &heading);
        let top = 24.0 + self.draw_scale(&mut svg, (0.0, 20.0), width * 0.6);
        let widest = self.rows.iter().map(|r| text_width(r, 12.0)).fold(0.0, f64::max);
        let left = (widest + 10.0).min(width * 0.34);
        let cell = (width - left) / self.columns.len().max(1) as f64;
        for (r, row) in self.rows.iter().enumerate() {
            let y = top + ROW * r as f64;
            let place = (left - 8.0, y + ROW / 2.0 + 4.0);
            svg.text(place, Anchor::End, "key", &fit(row, left - 8.0, 12.0));
            for c in 0..self.columns.len() {
                self.draw_cell(&mut svg, (r, c), (left + cell * c as f64, y), cell);
            }
        }
        let bottom = top + ROW * self.rows.len() as f64;
        let widest = self.columns.iter().map(|c| text_width(c, 11.0)).fold(1.0, f64::max);
        let every = ((widest + 6.0) / cell).ceil().max(1.0) as usize;
        for (c, column) in self.columns.iter().enumerate().step_by(every) {
            let at = left + cell * (c as f64 + 0.5);
            svg.text((at, bottom + 16.0), Anchor::Middle, "tick", &fit(column, cell * every as f64, 11.0));
        }
        let middle = (left + width) / 2.0;
        svg.text((middle, bottom + 34.0), Anchor::Middle, "axis", &self.column_title);
        Drawing { width, height: bottom + 42.0, body: svg.into_string() }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::tests::assert_well_formed;
    use super::*;

    pub(crate) fn sample() -> HeatMap {
        HeatMap {
            title: "Similarity".into(),
            caption: String::new(),
            column_title: "layer".into(),
            columns: vec!["0".into(), "1".into(), "2".into()],
            row_title: "model".into(),
            rows: vec!["base".into(), "<SIBO>".into()],
            value_title: "cosine".into(),
            values: vec![vec![0.31, 0.52, 0.81], vec![0.30, f64::NAN]],
            digits: 2,
            diverging: false,
        }
    }

    #[test]
    fn the_ends_of_the_scale_get_its_end_colours() {
        let map = sample();
        assert_eq!(map.class(0.30), "h0");
        assert_eq!(map.class(0.81), "h20");
        let mut difference = sample();
        difference.diverging = true;
        difference.values = vec![vec![-0.2, 0.0, 0.1]];
        assert_eq!(
            ["d0", "d10", "d15"],
            [-0.2, 0.0, 0.1].map(|v| difference.class(v)).each_ref().map(String::as_str)
        );
    }

    #[test]
    fn holes_stay_holes() {
        let map = sample();
        let drawing = map.draw(400.0);
        assert_well_formed(&drawing.body);
        assert_eq!(drawing.body.matches("class=\"hit\"").count(), 4);
        assert_eq!(map.table().text(1, 2), "–");
        assert_eq!(
            map.description(),
            "Heat map of cosine: model by layer. base: from 0.31 to 0.81. <SIBO>: from 0.30 to 0.30."
        );
    }

    #[test]
    fn narrow_cells_drop_the_zero_and_then_all_numbers() {
        let map = sample();
        assert_eq!(map.cell_text(-0.31, true), "\u{2212}.31");
        assert_eq!(map.cell_text(10.31, true), "10.31");
        let texts = |width: f64| map.draw(width).body.matches("tick on-h").count();
        assert_eq!([texts(400.0), texts(120.0), texts(60.0)], [4, 4, 0]);
        assert!(map.draw(120.0).body.contains(">.52</text>"));
    }

    #[test]
    fn an_empty_map_is_no_error() {
        let mut map = sample();
        map.values.clear();
        map.columns.clear();
        assert_well_formed(&map.draw(400.0).body);
    }
}
