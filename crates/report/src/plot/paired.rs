//! Paired dots: each seed without and with the change, and the mean of their differences.

use super::bars::whisker;
use super::frame::{Frame, legend};
use super::scale::{Mapping, Scale, extent};
use super::series::{Axis, Key};
use super::{Drawing, Plot};
use crate::number::{fixed, typographic};
use crate::svg::{Anchor, Svg, fit, text_width};
use crate::table::{Column, Estimate, Table};
use serde::{Deserialize, Serialize};

/// The two values of one seed (or task).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// What they have in common: `seed 1`.
    pub name: String,
    /// Value of the first method.
    #[serde(with = "crate::number::exact")]
    pub first: f64,
    /// Value of the second method.
    #[serde(with = "crate::number::exact")]
    pub second: f64,
}

/// Pairs of values with their differences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairedDots {
    /// Heading.
    pub title: String,
    /// What to see, one sentence.
    pub caption: String,
    /// What is measured.
    pub axis: Axis,
    /// The first method, for example plain LoRA.
    pub first: Key,
    /// The second method, for example SIBO-LoRA.
    pub second: Key,
    /// One row for each.
    pub pairs: Vec<Pair>,
    /// Mean of second minus first; its interval is drawn against zero.
    pub difference: Option<Estimate>,
    /// What the interval is: `95 % interval, t over 3 seeds`.
    pub interval: String,
}

const STEP: f64 = 30.0;

impl PairedDots {
    fn shown(&self, value: f64) -> String {
        typographic(&fixed(value, self.axis.digits))
    }

    fn signed(&self, value: f64) -> String {
        let text = self.shown(value);
        let positive = value > 0.0 && text.bytes().any(|b| b.is_ascii_digit() && b != b'0');
        if positive { format!("+{text}") } else { text }
    }

    /// `+0.009 [−0.004, +0.022]`
    fn difference_text(&self, difference: &Estimate) -> String {
        let value = self.signed(difference.value);
        match difference.interval {
            None => value,
            Some((low, high)) => format!("{value} [{}, {}]", self.signed(low), self.signed(high)),
        }
    }

    fn difference_title(&self) -> String {
        format!("{} \u{2212} {}", self.second.name, self.first.name)
    }

    fn draw_pair(&self, svg: &mut Svg, pair: &Pair, y: f64, frame: &Frame, x: &Mapping) {
        let name = fit(&pair.name, frame.left - 12.0, 12.0);
        svg.text((frame.left - 12.0, y + 4.0), Anchor::End, "key", &name);
        svg.line((frame.left, y), (frame.right, y), "grid");
        let places = (x.place(pair.first), x.place(pair.second));
        svg.group("hit", |svg| {
            svg.tip(&format!(
                "{}\n{}: {}\n{}: {}\ndifference: {}",
                pair.name,
                self.first.name,
                self.shown(pair.first),
                self.second.name,
                self.shown(pair.second),
                self.signed(pair.second - pair.first),
            ));
            let height = STEP * 0.9;
            svg.rect((0.0, y - height / 2.0), (frame.right, height), "catch");
            if let (Some(from), Some(to)) = places {
                svg.line((from, y), (to, y), "base-line");
            }
            if let Some(at) = places.0 {
                svg.marker((at, y), self.first.tone);
            }
            if let Some(at) = places.1 {
                svg.marker((at, y), self.second.tone);
            }
        });
    }

    /// The mean difference on its own axis around zero; returns where it ends.
    fn draw_difference(&self, svg: &mut Svg, difference: &Estimate, mut frame: Frame) -> f64 {
        let (low, high) = difference.interval.unwrap_or((difference.value, difference.value));
        let pairs = self.pairs.iter().map(|p| p.second - p.first);
        let values = pairs.chain([low, high, difference.value, 0.0]);
        let range = extent(values, Scale::Linear).unwrap_or((-1.0, 1.0));
        let wanted = (frame.width() / 85.0) as usize;
        let x = Mapping::new(Scale::Linear, range, (frame.left, frame.right), wanted, true, false);
        let text = format!("mean difference {}", self.difference_text(difference));
        svg.text((0.0, frame.top + 13.0), Anchor::Start, "strong", &text);
        frame.top += 24.0;
        let y = frame.top + 16.0;
        frame.bottom = y + 18.0;
        frame.x_grid(svg, &x);
        if let Some(zero) = x.place(0.0) {
            svg.line((zero, frame.top - 3.0), (zero, frame.bottom), "whisker");
        }
        svg.group("hit", |svg| {
            svg.tip(&format!("{}\n{text}\n{}", self.difference_title(), self.interval));
            svg.rect((frame.left, frame.top), (frame.width(), 34.0), "catch");
            for pair in &self.pairs {
                if let Some(at) = x.place(pair.second - pair.first) {
                    svg.line((at, y + 7.0), (at, y + 13.0), "base-line");
                }
            }
            if let (Some(from), Some(to)) = (x.place(low), x.place(high)) {
                whisker(svg, (from, to), y);
            }
            if let Some(at) = x.place(difference.value) {
                svg.marker((at, y), self.second.tone);
            }
        });
        frame.x_axis(svg, &x, &self.difference_title());
        frame.bottom + 42.0
    }
}

impl Plot for PairedDots {
    fn title(&self) -> &str {
        &self.title
    }

    fn caption(&self) -> &str {
        &self.caption
    }

    fn description(&self) -> String {
        let mut text = format!("{} of {} and {}.", self.axis.heading(), self.first.name, self.second.name);
        for pair in &self.pairs {
            let (first, second) = (self.shown(pair.first), self.shown(pair.second));
            text += &format!(" {}: {first} and {second}.", pair.name);
        }
        if let Some(difference) = &self.difference {
            let shown = self.difference_text(difference);
            text += &format!(" Mean difference {shown}, {}.", self.interval);
        }
        text
    }

    fn table(&self) -> Table {
        let digits = self.axis.digits;
        let mut table = Table::new(format!("{}: values", self.title))
            .column(Column::text(""))
            .column(Column::number(self.first.name.clone(), digits))
            .column(Column::number(self.second.name.clone(), digits))
            .column(Column::number("difference", digits));
        for pair in &self.pairs {
            let difference = pair.second - pair.first;
            table.push(vec![
                pair.name.as_str().into(),
                pair.first.into(),
                pair.second.into(),
                difference.into(),
            ]);
        }
        if let Some(difference) = self.difference {
            let none = || crate::table::Cell::Missing;
            table.push_emphasised(vec!["mean".into(), none(), none(), difference.into()]);
            table = table.note(format!("In brackets: {}.", self.interval));
        }
        table
    }

    fn draw(&self, width: f64) -> Drawing {
        let mut svg = Svg::default();
        let top = 8.0 + legend(&mut svg, &[&self.first, &self.second], (0.0, 0.0), width);
        let names = self.pairs.iter().map(|p| text_width(&p.name, 12.0));
        let left = (names.fold(20.0, f64::max) + 20.0).min(width * 0.36);
        let bottom = top + STEP * self.pairs.len() as f64 + 6.0;
        let frame = Frame { left, right: width - 14.0, top, bottom };
        let values = self.pairs.iter().flat_map(|p| [p.first, p.second]);
        let values = values.chain(self.axis.includes.iter().copied());
        let (low, high) = extent(values, Scale::Linear).unwrap_or((0.0, 1.0));
        // Some room at both ends: a dot on the edge reads like part of the axis.
        let room = 0.04 * (high - low);
        let wanted = (frame.width() / 85.0) as usize;
        let ends = (frame.left, frame.right);
        let x = Mapping::new(Scale::Linear, (low - room, high + room), ends, wanted, true, false);
        frame.x_grid(&mut svg, &x);
        for (i, pair) in self.pairs.iter().enumerate() {
            let y = top + STEP * (i as f64 + 0.5) + 3.0;
            self.draw_pair(&mut svg, pair, y, &frame, &x);
        }
        frame.x_axis(&mut svg, &x, &self.axis.heading());
        let mut height = bottom + 42.0;
        if let Some(difference) = &self.difference {
            let below = Frame { top: height + 14.0, ..frame };
            height = self.draw_difference(&mut svg, difference, below);
        }
        Drawing { width, height, body: svg.into_string() }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::tests::assert_well_formed;
    use super::*;
    use crate::palette::Tone;

    pub(crate) fn sample() -> PairedDots {
        let pair = |name: &str, first, second| Pair { name: name.into(), first, second };
        PairedDots {
            title: "Accuracy".into(),
            caption: String::new(),
            axis: Axis::new("accuracy", 3),
            first: Key::new("LoRA", Tone::Plain),
            second: Key::new("SIBO-LoRA", Tone::Sibo),
            pairs: vec![pair("seed 1", 0.812, 0.826), pair("seed <2>", 0.806, 0.802)],
            difference: Some(Estimate::between(0.005, -0.0004, 0.119)),
            interval: "95 % interval".into(),
        }
    }

    #[test]
    fn differences_carry_their_sign() {
        let dots = sample();
        assert_eq!(dots.difference_text(&dots.difference.unwrap()), "+0.005 [0.000, +0.119]");
        assert!(dots.description().ends_with("Mean difference +0.005 [0.000, +0.119], 95 % interval."));
        assert_eq!(dots.signed(-0.014), "\u{2212}0.014");
    }

    #[test]
    fn the_table_ends_with_the_mean() {
        let table = sample().table();
        assert_eq!(table.text(0, 3), "0.014");
        assert_eq!(table.text(1, 3), "-0.004");
        assert_eq!((table.text(2, 0), table.text(2, 3)), ("mean".into(), "0.005 [0.000, 0.119]".into()));
    }

    #[test]
    fn drawings_close_and_survive_a_diverged_seed() {
        let mut dots = sample();
        assert_well_formed(&dots.draw(356.0).body);
        dots.pairs[0].second = f64::NAN;
        assert_well_formed(&dots.draw(720.0).body);
    }
}
