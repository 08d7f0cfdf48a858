//! Axes and series: what line charts and their kin are made of.

use super::scale::Scale;
use crate::number;
use crate::palette::Tone;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::HashMap;

/// What an axis measures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// The quantity: `training loss`.
    pub title: String,
    /// Its unit: `nats per token`.
    pub unit: Option<String>,
    /// How values are spread.
    #[serde(default)]
    pub scale: Scale,
    /// Values that the axis shows even where no point needs it, for example 0.
    #[serde(with = "number::exact", default)]
    pub includes: Vec<f64>,
    /// Decimals of its values in tables and on hover.
    pub digits: usize,
}

impl Axis {
    /// A linear axis whose values are written with `digits` decimals.
    pub fn new(title: impl Into<String>, digits: usize) -> Self {
        Self { title: title.into(), unit: None, scale: Scale::Linear, includes: Vec::new(), digits }
    }

    /// The same axis with a unit.
    #[must_use]
    pub fn unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = Some(unit.into());
        self
    }

    /// The same axis, always showing `value`.
    #[must_use]
    pub fn including(mut self, value: f64) -> Self {
        self.includes.push(value);
        self
    }

    /// The same axis with equal lengths for equal ratios.
    #[must_use]
    pub fn log(mut self) -> Self {
        self.scale = Scale::Log;
        self
    }

    /// Title and unit in one line.
    pub fn heading(&self) -> String {
        match &self.unit {
            Some(unit) => format!("{} ({unit})", self.title),
            None => self.title.clone(),
        }
    }
}

/// Name and look of a series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// What the legend says.
    pub name: String,
    /// How it looks in every plot.
    pub tone: Tone,
}

impl Key {
    /// A key.
    pub fn new(name: impl Into<String>, tone: Tone) -> Self {
        Self { name: name.into(), tone }
    }
}

/// One point, with the range that the band covers there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Position along the x axis.
    pub x: f64,
    /// Value; a point that is not finite leaves a gap in the line.
    pub y: f64,
    /// Lower and upper edge of the band.
    pub range: Option<(f64, f64)>,
}

/// In a file: `[[x, y], range]` without names, as a chart has thousands of points.
impl Serialize for Point {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        number::exact::serialize(&((self.x, self.y), self.range), serializer)
    }
}

impl<'de> Deserialize<'de> for Point {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ((x, y), range) = number::exact::deserialize(deserializer)?;
        Ok(Self { x, y, range })
    }
}

impl From<(f64, f64)> for Point {
    fn from((x, y): (f64, f64)) -> Self {
        Self { x, y, range: None }
    }
}

/// Points in the order of x, joined by a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Name and look.
    pub key: Key,
    /// The points, x rising.
    pub points: Vec<Point>,
}

impl Series {
    /// A series through `points`.
    pub fn new<P: Into<Point>>(
        name: impl Into<String>,
        tone: Tone,
        points: impl IntoIterator<Item = P>,
    ) -> Self {
        let points = points.into_iter().map(Into::into).collect();
        Self { key: Key::new(name, tone), points }
    }

    /// The mean of several runs (seeds) with a band from their smallest to their largest value.
    ///
    /// Only positions that every run has are kept, so that the mean never jumps because a run
    /// ended early. A single run has no band.
    pub fn over_runs(name: impl Into<String>, tone: Tone, runs: &[Vec<(f64, f64)>]) -> Self {
        let mut points = Vec::new();
        let (first, others) = match runs.split_first() {
            Some(split) => split,
            None => return Self::new(name, tone, points),
        };
        let by_x = |run: &Vec<(f64, f64)>| -> HashMap<u64, f64> {
            run.iter().map(|(x, y)| (x.to_bits(), *y)).collect()
        };
        let others: Vec<_> = others.iter().map(by_x).collect();
        for &(x, y) in first {
            let at_x = others.iter().map(|run| run.get(&x.to_bits()).copied());
            let Some(mut values) = at_x.collect::<Option<Vec<f64>>>() else {
                continue;
            };
            values.push(y);
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let range = (values.len() > 1).then_some((low, high));
            points.push(Point { x, y: mean, range });
        }
        Self::new(name, tone, points)
    }

    /// The series with each value (and band edge) replaced by the mean of the `window` values
    /// that end there; fewer at the start.
    #[must_use]
    pub fn smoothed(mut self, window: usize) -> Self {
        let before = self.points.clone();
        for (i, point) in self.points.iter_mut().enumerate() {
            let part = &before[(i + 1).saturating_sub(window.max(1))..=i];
            let mean = |value: fn(&Point) -> f64| part.iter().map(value).sum::<f64>() / part.len() as f64;
            point.y = mean(|p| p.y);
            if point.range.is_some() {
                point.range =
                    Some((mean(|p| p.range.map_or(p.y, |r| r.0)), mean(|p| p.range.map_or(p.y, |r| r.1))));
            }
        }
        self
    }

    /// At most about `most` points with the same outline: of each stretch, its first, lowest,
    /// highest and last point stay, so that no spike is lost.
    pub(crate) fn thinned(&self, most: usize) -> Vec<Point> {
        if self.points.len() <= most {
            return self.points.clone();
        }
        let stretch = (self.points.len() * 4).div_ceil(most).max(1);
        let mut kept = Vec::with_capacity(most + 4);
        for part in self.points.chunks(stretch) {
            let by_value = |a: &usize, b: &usize| part[*a].y.total_cmp(&part[*b].y);
            let finite = || (0..part.len()).filter(|i| part[*i].y.is_finite());
            let mut chosen = vec![0, part.len() - 1];
            chosen.extend(finite().min_by(by_value));
            chosen.extend(finite().max_by(by_value));
            chosen.extend((0..part.len()).find(|i| !part[*i].y.is_finite()));
            chosen.sort_unstable();
            chosen.dedup();
            kept.extend(chosen.into_iter().map(|i| part[i]));
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_give_mean_and_range_where_all_have_a_value() {
        let runs = [vec![(1.0, 0.9), (3.0, 0.5), (5.0, 0.4)], vec![(1.0, 0.7), (3.0, 0.8)]];
        let series = Series::over_runs("LoRA", Tone::Plain, &runs);
        assert_eq!(series.points.len(), 2);
        assert!((series.points[0].y - 0.8).abs() < 1e-12);
        assert_eq!(series.points[1].range, Some((0.5, 0.8)));
        assert_eq!(Series::over_runs("a", Tone::Base, &runs[..1]).points[2].range, None);
        assert!(Series::over_runs("a", Tone::Base, &[]).points.is_empty());
    }

    #[test]
    fn smoothing_looks_back_only() {
        let values = [(1.0, 8.0), (2.0, 4.0), (3.0, 3.0), (4.0, 5.0)];
        let series = Series::new("a", Tone::Sibo, values).smoothed(2);
        let smooth: Vec<f64> = series.points.iter().map(|p| p.y).collect();
        assert_eq!(smooth, [8.0, 6.0, 3.5, 4.0]);
    }

    #[test]
    fn thinning_keeps_the_ends_and_the_spike() {
        let wave = (0..10_001).map(|i| (f64::from(i), (f64::from(i) * 0.01).sin()));
        let mut series = Series::new("a", Tone::Base, wave);
        series.points[4_321].y = 97.0;
        let kept = series.thinned(400);
        assert!(kept.len() <= 404, "{}", kept.len());
        assert_eq!((kept[0].x, kept[kept.len() - 1].x), (0.0, 10_000.0));
        assert!(kept.iter().any(|p| p.y == 97.0));
        assert!(kept.windows(2).all(|w| w[0].x < w[1].x));
    }

    #[test]
    fn points_are_short_in_files_and_keep_a_diverged_value() {
        let point = Point { x: 3.0, y: f64::INFINITY, range: Some((0.25, 0.5)) };
        let text = serde_json::to_string(&point).unwrap();
        assert_eq!(text, r#"[[3.0,"∞"],[0.25,0.5]]"#);
        assert_eq!(serde_json::from_str::<Point>(&text).unwrap(), point);
    }
}
