//! Axes, grid and legend around a plot.

use super::scale::Mapping;
use super::series::Key;
use crate::number::typographic;
use crate::svg::{Anchor, Svg, fit, text_width};

/// The area inside the axes, in pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) left: f64,
    pub(crate) right: f64,
    pub(crate) top: f64,
    pub(crate) bottom: f64,
}

impl Frame {
    pub(crate) fn width(&self) -> f64 {
        self.right - self.left
    }

    /// Horizontal grid lines with the labels of the y axis.
    pub(crate) fn y_grid(&self, svg: &mut Svg, y: &Mapping) {
        for (value, label) in &y.ticks {
            let Some(at) = y.place(*value) else { continue };
            svg.line((self.left, at), (self.right, at), "grid");
            let place = (self.left - 7.0, at + 3.8);
            svg.text(place, Anchor::End, "tick", &typographic(label));
        }
    }

    /// The bottom line with ticks and labels of the x axis, and its heading below.
    pub(crate) fn x_axis(&self, svg: &mut Svg, x: &Mapping, heading: &str) {
        svg.line((self.left, self.bottom), (self.right, self.bottom), "base-line");
        for (value, label) in &x.ticks {
            let Some(at) = x.place(*value) else { continue };
            svg.line((at, self.bottom), (at, self.bottom + 4.0), "base-line");
            let place = (at, self.bottom + 17.0);
            svg.text(place, Anchor::Middle, "tick", &typographic(label));
        }
        let place = ((self.left + self.right) / 2.0, self.bottom + 35.0);
        svg.text(place, Anchor::Middle, "axis", &fit(heading, self.width() + 40.0, 11.5));
    }

    /// Vertical grid lines at the ticks of the x axis.
    pub(crate) fn x_grid(&self, svg: &mut Svg, x: &Mapping) {
        for (value, _) in &x.ticks {
            let Some(at) = x.place(*value) else { continue };
            svg.line((at, self.top), (at, self.bottom), "grid");
        }
    }
}

/// Width that the labels of `y` need left of the axis.
pub(crate) fn label_room(y: &Mapping) -> f64 {
    let widest = y.ticks.iter().map(|(_, label)| text_width(label, 11.0));
    widest.fold(12.0, f64::max) + 9.0
}

/// Writes the legend from `(x, y)` on, in lines of at most `width`; returns its height.
pub(crate) fn legend(svg: &mut Svg, keys: &[&Key], (x, y): (f64, f64), width: f64) -> f64 {
    const SAMPLE: f64 = 30.0;
    const LINE: f64 = 20.0;
    if keys.is_empty() {
        return 0.0;
    }
    let (mut at, mut line) = (x, y + 9.0);
    for key in keys {
        let name = fit(&key.name, width - SAMPLE - 6.0, 12.0);
        let needed = SAMPLE + 6.0 + text_width(&name, 12.0) + 18.0;
        if at > x && at + needed > x + width + 18.0 {
            (at, line) = (x, line + LINE);
        }
        svg.polyline(&[(at, line), (at + SAMPLE, line)], "line", key.tone);
        svg.marker((at + SAMPLE / 2.0, line), key.tone);
        svg.text((at + SAMPLE + 6.0, line + 4.2), Anchor::Start, "key", &name);
        at += needed;
    }
    line + 9.0 - y
}

/// Places of labels next to `wanted` places: in the same order, `apart` pixels or more from one
/// another, each as near to its wish as that allows, between `low` and `high` if they fit.
pub(crate) fn spread(wanted: &[f64], apart: f64, (low, high): (f64, f64)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    let mut places = wanted.to_vec();
    let mut floor = low;
    for &i in &order {
        places[i] = places[i].max(floor);
        floor = places[i] + apart;
    }
    let mut ceiling = high;
    for &i in order.iter().rev() {
        places[i] = places[i].min(ceiling);
        ceiling = places[i] - apart;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::palette::Tone;

    #[test]
    fn labels_are_pushed_apart_and_stay_inside() {
        let placed = spread(&[50.0, 48.0, 97.0], 14.0, (0.0, 100.0));
        assert_eq!(placed, [62.0, 48.0, 97.0]);
        let low = spread(&[99.0, 99.5], 14.0, (0.0, 100.0));
        assert_eq!(low, [86.0, 100.0]);
    }

    #[test]
    fn a_legend_breaks_into_lines() {
        let keys = [
            Key::new("LoRA, mean of three seeds", Tone::Plain),
            Key::new("SIBO-LoRA, mean of three seeds", Tone::Sibo),
        ];
        let keys: Vec<&Key> = keys.iter().collect();
        let height = |width| legend(&mut Svg::default(), &keys, (0.0, 0.0), width);
        assert_eq!(height(720.0), 18.0);
        assert_eq!(height(340.0), 38.0);
        assert_eq!(legend(&mut Svg::default(), &[], (0.0, 0.0), 100.0), 0.0);
    }
}
