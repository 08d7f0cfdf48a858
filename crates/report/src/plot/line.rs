//! Line charts: values over steps or layers, with bands.

use super::frame::{Frame, label_room, legend, spread};
use super::scale::{Mapping, extent};
use super::series::{Axis, Key, Point, Series};
use super::{Drawing, Plot};
use crate::number::{compact, fixed, typographic};
use crate::svg::{Anchor, Svg, fit, text_width};
use crate::table::{Cell, Column, Estimate, Table};
use serde::{Deserialize, Serialize};

/// Points drawn per line; a screen is not wider.
const MOST_POINTS: usize = 800;
/// Positions that answer to the pointer.
const MOST_STRIPS: usize = 160;
/// Rows of the table below the plot.
const MOST_ROWS: usize = 50;
/// Points up to which each gets its marker.
const MOST_MARKERS: usize = 32;

/// One or more series over a common x axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LineChart {
    /// Heading.
    pub title: String,
    /// What to see, one sentence.
    pub caption: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The lines; those after the first are drawn above it.
    pub series: Vec<Series>,
    /// What the bands show, where points have a range: `range of 3 seeds`.
    pub band: Option<String>,
}

/// The parts of a drawing that depend on its width.
struct Layout {
    frame: Frame,
    x: Mapping,
    y: Mapping,
    /// Names stand at the ends of the lines rather than in a legend.
    direct: bool,
}

impl LineChart {
    /// Every y value and band edge that the axis must show.
    fn y_values(&self) -> impl Iterator<Item = f64> + '_ {
        let points = self.series.iter().flat_map(|s| &s.points);
        points
            .flat_map(|p| [p.y, p.range.map_or(p.y, |r| r.0), p.range.map_or(p.y, |r| r.1)])
            .chain(self.y.includes.iter().copied())
    }

    fn x_values(&self) -> impl Iterator<Item = f64> + '_ {
        let points = self.series.iter().flat_map(|s| &s.points);
        points.map(|p| p.x).chain(self.x.includes.iter().copied())
    }

    /// All x positions of all series, rising.
    fn positions(&self) -> Vec<f64> {
        let points = self.series.iter().flat_map(|s| &s.points);
        let mut all: Vec<f64> = points.map(|p| p.x).filter(|x| x.is_finite()).collect();
        all.sort_by(f64::total_cmp);
        all.dedup();
        all
    }

    fn layout(&self, width: f64, top: f64) -> Layout {
        let height = if width > 500.0 { 280.0 } else { 220.0 };
        let names = self.series.iter().map(|s| text_width(&s.key.name, 12.0));
        let widest = names.fold(0.0, f64::max);
        let direct = width > 500.0 && self.series.len() <= 5 && widest < width * 0.24;
        let (top, bottom) = (top + 8.0, top + 8.0 + height);
        let y_range = extent(self.y_values(), self.y.scale).unwrap_or((f64::NAN, 0.0));
        let y = Mapping::new(self.y.scale, y_range, (bottom, top), 5, true, self.y.digits == 0);
        let left = label_room(&y);
        let right = width - if direct { widest + 14.0 } else { 12.0 };
        let x_range = extent(self.x_values(), self.x.scale).unwrap_or((f64::NAN, 0.0));
        let wanted = ((right - left) / 85.0) as usize;
        let x = Mapping::new(self.x.scale, x_range, (left, right), wanted, false, self.x.digits == 0);
        Layout { frame: Frame { left, right, top, bottom }, x, y, direct }
    }

    fn draw_series(&self, svg: &mut Svg, layout: &Layout) {
        for series in &self.series {
            let points = series.thinned(MOST_POINTS);
            for run in finite_runs(&points) {
                draw_band(svg, layout, run, series);
            }
        }
        for series in &self.series {
            let points = series.thinned(MOST_POINTS);
            let markers = series.points.len() <= MOST_MARKERS;
            for run in finite_runs(&points) {
                let placed: Vec<_> = run.iter().filter_map(|p| layout.place(p.x, p.y)).collect();
                svg.polyline(&placed, "line", series.key.tone);
                // A point between two gaps has no line: its marker shows it.
                if markers || placed.len() == 1 {
                    placed.iter().for_each(|at| svg.marker(*at, series.key.tone));
                }
            }
        }
    }

    /// Names at the ends of the lines.
    fn draw_names(&self, svg: &mut Svg, layout: &Layout) {
        let ends: Vec<(&Key, f64)> = self
            .series
            .iter()
            .filter_map(|series| {
                let last = series.points.iter().rev().find(|p| p.y.is_finite())?;
                Some((&series.key, layout.y.place(last.y)?))
            })
            .collect();
        let wanted: Vec<f64> = ends.iter().map(|end| end.1).collect();
        let places = spread(&wanted, 15.0, (layout.frame.top, layout.frame.bottom));
        for ((key, _), y) in ends.iter().zip(places) {
            let class = format!("strong f-{}", key.tone.name());
            svg.text((layout.frame.right + 9.0, y + 4.0), Anchor::Start, &class, &key.name);
        }
    }

    /// Upright strips that show a cross-hair and all values at their x.
    fn draw_strips(&self, svg: &mut Svg, layout: &Layout) {
        let all = self.positions();
        let every = all.len().div_ceil(MOST_STRIPS).max(1);
        let shown: Vec<(f64, f64)> =
            all.iter().step_by(every).filter_map(|x| Some((*x, layout.x.place(*x)?))).collect();
        let Frame { left, right, top, bottom } = layout.frame;
        for (i, (x, at)) in shown.iter().enumerate() {
            let from = if i == 0 { left } else { (shown[i - 1].1 + at) / 2.0 };
            let to = shown.get(i + 1).map_or(right, |next| (next.1 + at) / 2.0);
            svg.group("hit", |svg| {
                svg.tip(&self.values_at(*x));
                svg.rect((from, top), (to - from, bottom - top), "catch");
                svg.group("shown-on-hover", |svg| {
                    svg.line((*at, top), (*at, bottom), "cross");
                    for series in &self.series {
                        let point = series.points.iter().find(|p| p.x == *x);
                        if let Some(place) = point.and_then(|p| layout.place(p.x, p.y)) {
                            svg.marker(place, series.key.tone);
                        }
                    }
                });
            });
        }
    }

    /// The x and each series' value there, a line each.
    fn values_at(&self, x: f64) -> String {
        let mut text = format!("{} {}", self.x.title, typographic(&fixed(x, self.x.digits)));
        for series in &self.series {
            let Some(point) = series.points.iter().find(|p| p.x == x) else { continue };
            let value = typographic(&fixed(point.y, self.y.digits));
            text += &format!("\n{}: {value}", series.key.name);
            if let Some((low, high)) = point.range {
                let (low, high) = (fixed(low, self.y.digits), fixed(high, self.y.digits));
                text += &format!(" ({} to {})", typographic(&low), typographic(&high));
            }
        }
        text
    }
}

impl Layout {
    fn place(&self, x: f64, y: f64) -> Option<(f64, f64)> {
        Some((self.x.place(x)?, self.y.place(y)?))
    }
}

/// Stretches of points that have a value.
fn finite_runs(points: &[Point]) -> impl Iterator<Item = &[Point]> {
    points.split(|p| !(p.x.is_finite() && p.y.is_finite())).filter(|run| !run.is_empty())
}

fn draw_band(svg: &mut Svg, layout: &Layout, run: &[Point], series: &Series) {
    let edge = |pick: fn((f64, f64)) -> f64| {
        let points = run.iter().filter_map(move |p| Some((p.x, pick(p.range?))));
        points.filter_map(|(x, y)| layout.place(x, y)).collect::<Vec<_>>()
    };
    let mut outline = edge(|r| r.1);
    outline.extend(edge(|r| r.0).into_iter().rev());
    if outline.len() > 2 {
        svg.area(&outline, series.key.tone);
    }
}

impl Plot for LineChart {
    fn title(&self) -> &str {
        &self.title
    }

    fn caption(&self) -> &str {
        &self.caption
    }

    fn description(&self) -> String {
        let mut text = format!("Line chart: {} over {}.", self.y.heading(), self.x.heading());
        for series in &self.series {
            let mut finite = series.points.iter().filter(|p| p.y.is_finite());
            let Some(first) = finite.next() else {
                text += &format!(" {}: no values.", series.key.name);
                continue;
            };
            let last = finite.next_back().unwrap_or(first);
            let y = |p: &Point| fixed(p.y, self.y.digits);
            let x = |p: &Point| compact(p.x);
            text += &format!(
                " {}: from {} at {} to {} at {}.",
                series.key.name,
                y(first),
                x(first),
                y(last),
                x(last)
            );
        }
        text
    }

    fn table(&self) -> Table {
        let mut table = Table::new(format!("{}: values", self.title))
            .column(Column::number(self.x.heading(), self.x.digits));
        for series in &self.series {
            table = table.column(Column::number(series.key.name.clone(), self.y.digits));
        }
        let all = self.positions();
        let every = all.len().div_ceil(MOST_ROWS).max(1);
        for (i, x) in all.iter().enumerate() {
            if i % every != 0 && i + 1 != all.len() {
                continue;
            }
            let estimate = |p: &Point| Estimate { value: p.y, interval: p.range };
            let at_x = |s: &Series| s.points.iter().find(|p| p.x == *x).map(estimate);
            let cells = self.series.iter().map(|s| Cell::from(at_x(s)));
            table.push(std::iter::once(Cell::from(*x)).chain(cells).collect());
        }
        let mut notes = Vec::new();
        if let Some(band) = &self.band {
            notes.push(format!("In brackets: {band}."));
        }
        if every > 1 {
            notes.push(format!("One in {every} of {} positions.", all.len()));
        }
        table.note = (!notes.is_empty()).then(|| notes.join(" "));
        table
    }

    fn draw(&self, width: f64) -> Drawing {
        let mut svg = Svg::default();
        let heading = fit(&self.y.heading(), width, 11.5);
        svg.text((0.0, 11.0), Anchor::Start, "axis", &heading);
        let mut top = 16.0;
        let mut layout = self.layout(width, top);
        if !layout.direct {
            let keys: Vec<&Key> = self.series.iter().map(|s| &s.key).collect();
            top += 6.0 + legend(&mut svg, &keys, (0.0, top + 6.0), width);
            layout = self.layout(width, top);
        }
        layout.frame.y_grid(&mut svg, &layout.y);
        layout.frame.x_axis(&mut svg, &layout.x, &self.x.heading());
        self.draw_series(&mut svg, &layout);
        if layout.direct {
            self.draw_names(&mut svg, &layout);
        }
        self.draw_strips(&mut svg, &layout);
        let mut height = layout.frame.bottom + 42.0;
        if let Some(band) = &self.band {
            let text = fit(&format!("Shaded: {band}."), width, 11.5);
            svg.text((width, height + 10.0), Anchor::End, "axis", &text);
            height += 18.0;
        }
        Drawing { width, height, body: svg.into_string() }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::tests::assert_well_formed;
    use super::*;
    use crate::palette::Tone;

    /// Two series: one with a band, one with a gap where the loss was not finite.
    pub(crate) fn losses() -> LineChart {
        let runs = [vec![(1.0, 0.9), (2.0, 0.6), (3.0, 0.5)], vec![(1.0, 0.8), (2.0, 0.7), (3.0, 0.4)]];
        LineChart {
            title: "Training <loss>".into(),
            caption: "Both fall.".into(),
            x: Axis::new("step", 0),
            y: Axis::new("loss", 3).unit("nats"),
            series: vec![
                Series::over_runs("LoRA", Tone::Plain, &runs),
                Series::new("SIBO", Tone::Sibo, [(1.0, 0.85), (2.0, f64::NAN), (3.0, -0.3)]),
            ],
            band: Some("range of 2 seeds".into()),
        }
    }

    #[test]
    fn the_words_say_the_ends() {
        assert_eq!(
            losses().description(),
            "Line chart: loss (nats) over step. LoRA: from 0.850 at 1 to 0.450 at 3. \
             SIBO: from 0.850 at 1 to -0.300 at 3."
        );
    }

    #[test]
    fn hover_shows_all_values_of_a_step() {
        assert_eq!(losses().values_at(3.0), "step 3\nLoRA: 0.450 (0.400 to 0.500)\nSIBO: \u{2212}0.300");
    }

    #[test]
    fn gaps_break_the_line_and_no_coordinate_is_nan() {
        let chart = losses();
        for width in [720.0, 356.0] {
            let drawing = chart.draw(width);
            assert_well_formed(&drawing.body);
            assert_eq!(drawing.body.matches("band f-plain").count(), 1);
            // Two stretches of one point each.
            assert_eq!(drawing.body.matches("line s-sibo").count(), 2 + usize::from(width < 500.0));
        }
    }

    #[test]
    fn nothing_to_draw_is_no_error() {
        let mut chart = losses();
        chart.series.iter_mut().for_each(|s| s.points.clear());
        assert_well_formed(&chart.draw(500.0).body);
        chart.series.clear();
        assert_well_formed(&chart.draw(500.0).body);
        assert!(chart.table().rows.is_empty());
    }

    #[test]
    fn long_series_give_a_short_table_that_says_so() {
        let mut chart = losses();
        assert_eq!(chart.table().text(2, 1), "0.450 [0.400, 0.500]");
        chart.band = None;
        chart.series = vec![Series::new("a", Tone::Base, (0..1_003).map(|i| (f64::from(i), 1.5)))];
        let table = chart.table();
        assert_eq!(table.text(table.rows.len() - 1, 0), "1002");
        assert!(table.rows.len() <= MOST_ROWS + 1);
        assert_eq!(table.note.as_deref(), Some("One in 21 of 1003 positions."));
    }
}
