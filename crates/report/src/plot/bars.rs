//! Bars: amounts such as time and memory, from zero, with their values written out.

use super::frame::Frame;
use super::scale::{Mapping, Scale, extent};
use super::series::Axis;
use super::{Drawing, Plot};
use crate::number::typographic;
use crate::palette::Tone;
use crate::svg::{Anchor, Svg, fit, text_width};
use crate::table::{Column, Estimate, Table};
use serde::{Deserialize, Serialize};

/// One bar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// Whose amount it is.
    pub name: String,
    /// How it looks in every plot.
    pub tone: Tone,
    /// The amount.
    pub amount: Estimate,
}

impl Bar {
    /// A bar.
    pub fn new(name: impl Into<String>, tone: Tone, amount: Estimate) -> Self {
        Self { name: name.into(), tone, amount }
    }
}

/// Bars that belong together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BarGroup {
    /// What they have in common; empty where the chart has one group only.
    pub name: String,
    /// The bars, top to bottom.
    pub bars: Vec<Bar>,
}

/// Horizontal bars on one axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BarChart {
    /// Heading.
    pub title: String,
    /// What to see, one sentence.
    pub caption: String,
    /// What is measured; always linear, always with zero.
    pub axis: Axis,
    /// The bars.
    pub groups: Vec<BarGroup>,
}

const BAR: f64 = 20.0;
const STEP: f64 = 27.0;
const GROUP_HEADING: f64 = 24.0;
const GROUP_GAP: f64 = 10.0;

impl BarChart {
    fn bars(&self) -> impl Iterator<Item = &Bar> {
        self.groups.iter().flat_map(|g| &g.bars)
    }

    fn shown(&self, amount: &Estimate) -> String {
        match &self.axis.unit {
            Some(unit) => format!("{} {unit}", typographic(&amount.text(self.axis.digits))),
            None => typographic(&amount.text(self.axis.digits)),
        }
    }

    fn mapping(&self, (left, right): (f64, f64)) -> Mapping {
        let ends = self.bars().flat_map(|b| {
            let (low, high) = b.amount.interval.unwrap_or((b.amount.value, b.amount.value));
            [b.amount.value, low, high]
        });
        let included = self.axis.includes.iter().copied();
        let values = ends.chain(included).chain(std::iter::once(0.0));
        let range = extent(values, Scale::Linear).unwrap_or((0.0, 1.0));
        let wanted = ((right - left) / 80.0).max(3.0) as usize;
        Mapping::new(Scale::Linear, range, (left, right), wanted, true, false)
    }

    fn draw_bar(&self, svg: &mut Svg, bar: &Bar, y: f64, left: f64, x: &Mapping) {
        let name = fit(&bar.name, left - 8.0, 12.0);
        svg.text((left - 8.0, y + BAR / 2.0 + 4.0), Anchor::End, "key", &name);
        let shown = self.shown(&bar.amount);
        let (Some(zero), Some(end)) = (x.place(0.0), x.place(bar.amount.value)) else {
            svg.text((left + 6.0, y + BAR / 2.0 + 4.0), Anchor::Start, "strong", &shown);
            return;
        };
        svg.group("hit", |svg| {
            svg.tip(&format!("{}: {shown}", bar.name));
            let class = format!("bar f-{}", bar.tone.name());
            svg.rect((zero.min(end), y), ((end - zero).abs(), BAR), &class);
            let mut text_at = end.max(zero);
            if let Some((low, high)) = bar.amount.interval {
                let (from, to) = (x.place(low).unwrap_or(end), x.place(high).unwrap_or(end));
                whisker_on_bar(svg, (from, to), y + BAR / 2.0);
                text_at = text_at.max(to);
            }
            let place = (text_at + 7.0, y + BAR / 2.0 + 4.0);
            svg.text(place, Anchor::Start, "strong", &shown);
        });
    }
}

/// An interval from `from` to `to`, on a ground that keeps it visible on a bar.
fn whisker_on_bar(svg: &mut Svg, (from, to): (f64, f64), y: f64) {
    svg.rect((from - 2.0, y - 5.5), (to - from + 4.0, 11.0), "ground");
    whisker(svg, (from, to), y);
}

/// An interval from `from` to `to`.
pub(crate) fn whisker(svg: &mut Svg, (from, to): (f64, f64), y: f64) {
    svg.line((from, y), (to, y), "whisker");
    svg.line((from, y - 4.0), (from, y + 4.0), "whisker");
    svg.line((to, y - 4.0), (to, y + 4.0), "whisker");
}

impl Plot for BarChart {
    fn title(&self) -> &str {
        &self.title
    }

    fn caption(&self) -> &str {
        &self.caption
    }

    fn description(&self) -> String {
        let mut text = format!("Bar chart: {}.", self.axis.heading());
        for group in &self.groups {
            for bar in &group.bars {
                let of = if group.name.is_empty() { "" } else { ", " };
                let shown = self.shown(&bar.amount);
                text += &format!(" {}{of}{}: {shown}.", group.name, bar.name);
            }
        }
        text
    }

    fn table(&self) -> Table {
        let mut table = Table::new(format!("{}: values", self.title))
            .column(Column::text("group"))
            .column(Column::text("bar"))
            .column(Column::number(self.axis.heading(), self.axis.digits));
        for group in &self.groups {
            for bar in &group.bars {
                let (group, name) = (group.name.as_str(), bar.name.as_str());
                table.push(vec![group.into(), name.into(), bar.amount.into()]);
            }
        }
        if self.groups.iter().all(|g| g.name.is_empty()) {
            table.columns.remove(0);
            table.rows.iter_mut().for_each(|row| drop(row.remove(0)));
        }
        table
    }

    fn draw(&self, width: f64) -> Drawing {
        let mut svg = Svg::default();
        let names = self.bars().map(|b| text_width(&b.name, 12.0));
        let left = (names.fold(0.0, f64::max) + 12.0).min(width * 0.36);
        let values = self.bars().map(|b| text_width(&self.shown(&b.amount), 12.5));
        let right = width - values.fold(0.0, f64::max).min(width * 0.4) - 12.0;
        let x = self.mapping((left, right));
        let mut y = 4.0;
        let mut bars = Svg::default();
        for (i, group) in self.groups.iter().enumerate() {
            if !group.name.is_empty() {
                let name = fit(&group.name, width, 12.0);
                bars.text((0.0, y + 14.0), Anchor::Start, "strong", &name);
                y += GROUP_HEADING;
            }
            for bar in &group.bars {
                self.draw_bar(&mut bars, bar, y, left, &x);
                y += STEP;
            }
            y += if i + 1 < self.groups.len() { GROUP_GAP } else { 0.0 };
        }
        let frame = Frame { left, right, top: 0.0, bottom: y };
        frame.x_grid(&mut svg, &x);
        frame.x_axis(&mut svg, &x, &self.axis.heading());
        let body = svg.into_string() + &bars.into_string();
        Drawing { width, height: y + 42.0, body }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::tests::assert_well_formed;
    use super::*;

    pub(crate) fn sample() -> BarChart {
        let bars = |plain: f64, sibo: f64| {
            vec![
                Bar::new("LoRA", Tone::Plain, Estimate::exact(plain)),
                Bar::new("SIBO-LoRA", Tone::Sibo, Estimate::between(sibo, sibo - 0.7, sibo + 1.3)),
            ]
        };
        BarChart {
            title: "Time".into(),
            caption: String::new(),
            axis: Axis::new("time of a run", 1).unit("s"),
            groups: vec![
                BarGroup { name: "training".into(), bars: bars(41.3, 44.9) },
                BarGroup { name: "evaluation".into(), bars: bars(3.7, f64::NAN) },
            ],
        }
    }

    #[test]
    fn bars_start_at_zero_and_say_their_values() {
        let chart = sample();
        let drawing = chart.draw(600.0);
        assert_well_formed(&drawing.body);
        assert_eq!(chart.mapping((0.0, 500.0)).place(0.0), Some(0.0));
        assert!(drawing.body.contains(">41.3 s</text>"));
        assert_eq!(
            chart.description(),
            "Bar chart: time of a run (s). training, LoRA: 41.3 s. \
             training, SIBO-LoRA: 44.9 [44.2, 46.2] s. evaluation, LoRA: 3.7 s. \
             evaluation, SIBO-LoRA: NaN [NaN, NaN] s."
        );
    }

    #[test]
    fn one_nameless_group_needs_no_column() {
        let mut chart = sample();
        chart.groups.truncate(1);
        chart.groups[0].name.clear();
        let table = chart.table();
        assert_eq!((table.width(), table.text(1, 0)), (2, "SIBO-LoRA".to_owned()));
    }
}
