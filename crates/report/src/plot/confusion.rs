//! Confusion matrices: what each class was taken for.

use super::{Drawing, Plot};
use crate::number::fixed;
use crate::palette::HEAT_STEPS;
use crate::svg::{Anchor, Svg, fit, text_width};
use crate::table::{Cell, Column, Table};
use serde::{Deserialize, Serialize};

/// Counts of true class (row) against predicted class (column).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// Heading.
    pub title: String,
    /// What to see, one sentence.
    pub caption: String,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// `counts[truth][predicted]`; counts that are absent are zero.
    pub counts: Vec<Vec<u64>>,
}

impl Confusion {
    fn count(&self, truth: usize, predicted: usize) -> u64 {
        let row = self.counts.get(truth);
        row.and_then(|r| r.get(predicted)).copied().unwrap_or(0)
    }

    /// Share of the rows of class `truth` that were taken for `predicted`; `None` for a class
    /// without rows.
    fn share(&self, truth: usize, predicted: usize) -> Option<f64> {
        let all: u64 = (0..self.classes.len()).map(|p| self.count(truth, p)).sum();
        (all > 0).then(|| self.count(truth, predicted) as f64 / all as f64)
    }

    fn draw_cell(&self, svg: &mut Svg, (t, p): (usize, usize), at: (f64, f64), size: (f64, f64)) {
        let count = fixed(self.count(t, p) as f64, 0);
        let share = self.share(t, p);
        let step = (share.unwrap_or(0.0) * (HEAT_STEPS - 1) as f64).round() as usize;
        let percent = share.map_or_else(|| "no rows".to_owned(), percent);
        let (truth, predicted) = (&self.classes[t], &self.classes[p]);
        svg.group("hit", |svg| {
            svg.tip(&format!("true: {truth}\npredicted: {predicted}\n{count} rows, {percent} of its class"));
            svg.rect(at, size, &format!("cell-edge h{step}"));
            let (x, y) = (at.0 + size.0 / 2.0, at.1 + size.1 / 2.0);
            let class = format!("on-h{step}");
            if text_width(&count, 12.0) + 4.0 > size.0 {
                return;
            }
            if size.0 < 48.0 || size.1 < 40.0 {
                svg.text((x, y + 4.0), Anchor::Middle, &class, &count);
                return;
            }
            svg.text((x, y - 1.0), Anchor::Middle, &format!("strong {class}"), &count);
            svg.text((x, y + 14.0), Anchor::Middle, &format!("tick {class}"), &percent);
        });
    }
}

fn percent(share: f64) -> String {
    format!("{}\u{a0}%", fixed(100.0 * share, 1))
}

impl Plot for Confusion {
    fn title(&self) -> &str {
        &self.title
    }

    fn caption(&self) -> &str {
        &self.caption
    }

    fn description(&self) -> String {
        let mut text = "Confusion matrix, rows the true class, columns the predicted one.".to_owned();
        for (t, truth) in self.classes.iter().enumerate() {
            let all: u64 = (0..self.classes.len()).map(|p| self.count(t, p)).sum();
            text += &format!(" {truth}: {} of {all} right.", self.count(t, t));
        }
        text
    }

    fn table(&self) -> Table {
        let mut table = Table::new(format!("{}: counts", self.title)).column(Column::text("true class"));
        for class in &self.classes {
            table = table.column(Column::number(format!("predicted {class}"), 0));
        }
        table = table.column(Column::number("found", 1).unit("%"));
        for (t, truth) in self.classes.iter().enumerate() {
            let counts = (0..self.classes.len()).map(|p| Cell::from(self.count(t, p) as f64));
            let found = Cell::from(self.share(t, t).map(|s| 100.0 * s));
            let name = std::iter::once(Cell::from(truth.as_str()));
            table.push(name.chain(counts).chain([found]).collect());
        }
        table
    }

    fn draw(&self, width: f64) -> Drawing {
        let mut svg = Svg::default();
        let n = self.classes.len();
        let widest = self.classes.iter().map(|c| text_width(c, 12.0)).fold(0.0, f64::max);
        let left = (widest + 14.0).max(40.0).min(width * 0.34);
        let cell = ((width - left) / n.max(1) as f64).min(110.0);
        let size = (cell, cell.clamp(24.0, 56.0));
        let top = 42.0;
        svg.text((left, 12.0), Anchor::Start, "axis", "predicted class →");
        svg.text((0.0, top - 8.0), Anchor::Start, "axis", "true ↓");
        for (i, class) in self.classes.iter().enumerate() {
            let x = left + cell * (i as f64 + 0.5);
            svg.text((x, top - 8.0), Anchor::Middle, "key", &fit(class, cell - 4.0, 12.0));
            let y = top + size.1 * (i as f64 + 0.5) + 4.0;
            svg.text((left - 8.0, y), Anchor::End, "key", &fit(class, left - 10.0, 12.0));
            for p in 0..n {
                let at = (left + cell * p as f64, top + size.1 * i as f64);
                self.draw_cell(&mut svg, (i, p), at, size);
            }
        }
        let height = top + size.1 * n as f64 + 8.0;
        Drawing { width, height, body: svg.into_string() }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::tests::assert_well_formed;
    use super::*;

    pub(crate) fn sample() -> Confusion {
        Confusion {
            title: "Classes".into(),
            caption: String::new(),
            classes: vec!["entailment".into(), "not <b>".into(), "unseen".into()],
            counts: vec![vec![211, 37, 2], vec![48, 204]],
        }
    }

    #[test]
    fn shares_are_of_the_true_class() {
        let matrix = sample();
        assert_eq!(matrix.share(0, 0), Some(211.0 / 250.0));
        assert_eq!(matrix.share(2, 0), None);
        let table = matrix.table();
        assert_eq!((table.text(0, 4), table.text(2, 4)), ("84.4".into(), "–".into()));
    }

    #[test]
    fn every_cell_is_drawn_and_escaped() {
        let drawing = sample().draw(356.0);
        assert_well_formed(&drawing.body);
        assert_eq!(drawing.body.matches("class=\"hit\"").count(), 9);
        assert!(sample().description().contains("entailment: 211 of 250 right."));
    }
}
