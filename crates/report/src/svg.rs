//! A writer for the few SVG elements that the plots need.

use crate::escape::markup;
use crate::palette::{Marker, Tone};

/// Where a text stands relative to its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

impl Anchor {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// A value of an attribute: numbers are written short, texts are escaped.
pub(crate) trait Attribute {
    fn write(&self) -> String;
}

impl Attribute for f64 {
    fn write(&self) -> String {
        coordinate(*self)
    }
}

impl Attribute for &str {
    fn write(&self) -> String {
        markup(self)
    }
}

impl Attribute for String {
    fn write(&self) -> String {
        markup(self)
    }
}

/// At most two decimals: a hundredth of a pixel is below sight.
pub(crate) fn coordinate(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Elements written so far.
#[derive(Debug, Default)]
pub(crate) struct Svg {
    out: String,
}

impl Svg {
    /// An element without content.
    pub(crate) fn leaf(&mut self, name: &str, attributes: &[(&str, &dyn Attribute)]) {
        self.start(name, attributes);
        self.out.push_str("/>");
    }

    fn start(&mut self, name: &str, attributes: &[(&str, &dyn Attribute)]) {
        self.out.push('<');
        self.out.push_str(name);
        for (key, value) in attributes {
            self.out.push_str(&format!(" {key}=\"{}\"", value.write()));
        }
    }

    /// A group of the class with what `fill` writes into it.
    pub(crate) fn group(&mut self, class: &str, fill: impl FnOnce(&mut Self)) {
        self.start("g", &[("class", &class)]);
        self.out.push('>');
        fill(self);
        self.out.push_str("</g>");
    }

    /// The words that a pointer over the group shows (without scripts, by the viewer itself).
    pub(crate) fn tip(&mut self, text: &str) {
        self.out.push_str(&format!("<title>{}</title>", markup(text)));
    }

    /// One line of text with its baseline at `y`.
    pub(crate) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, class: &str, text: &str) {
        self.start("text", &[("x", &x), ("y", &y), ("text-anchor", &anchor.name()), ("class", &class)]);
        self.out.push('>');
        self.out.push_str(&markup(text));
        self.out.push_str("</text>");
    }

    pub(crate) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        self.leaf("line", &[("x1", &x1), ("y1", &y1), ("x2", &x2), ("y2", &y2), ("class", &class)]);
    }

    pub(crate) fn rect(&mut self, (x, y): (f64, f64), (w, h): (f64, f64), class: &str) {
        let (w, h) = (w.max(0.0), h.max(0.0));
        self.leaf("rect", &[("x", &x), ("y", &y), ("width", &w), ("height", &h), ("class", &class)]);
    }

    /// A line through `points` in the look of `tone`.
    pub(crate) fn polyline(&mut self, points: &[(f64, f64)], class: &str, tone: Tone) {
        let class = format!("{class} s-{}", tone.name());
        let d = path(points);
        match tone.dash() {
            None => self.leaf("path", &[("d", &d), ("class", &class)]),
            Some(dash) => self.leaf("path", &[("d", &d), ("class", &class), ("stroke-dasharray", &dash)]),
        }
    }

    /// A filled area around `points` in the colour of `tone`.
    pub(crate) fn area(&mut self, points: &[(f64, f64)], tone: Tone) {
        let class = format!("band f-{}", tone.name());
        self.leaf("path", &[("d", &(path(points) + "Z")), ("class", &class)]);
    }

    /// The marker of `tone` at a point.
    pub(crate) fn marker(&mut self, (x, y): (f64, f64), tone: Tone) {
        let (stroke, fill) = (format!("s-{}", tone.name()), format!("f-{}", tone.name()));
        let full = format!("mark {stroke} {fill}");
        let hollow = format!("mark hollow {stroke}");
        let shape = |points: &[(f64, f64)]| {
            let moved: Vec<_> = points.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
            path(&moved) + "Z"
        };
        let diamond = shape(&[(0.0, -5.0), (5.0, 0.0), (0.0, 5.0), (-5.0, 0.0)]);
        let square = shape(&[(-3.5, -3.5), (3.5, -3.5), (3.5, 3.5), (-3.5, 3.5)]);
        let triangle = shape(&[(0.0, -4.5), (4.3, 3.2), (-4.3, 3.2)]);
        let cross = path(&[(x - 3.5, y - 3.5), (x + 3.5, y + 3.5)])
            + &path(&[(x - 3.5, y + 3.5), (x + 3.5, y - 3.5)]);
        match tone.marker() {
            Marker::Dot => self.circle((x, y), 3.0, &full),
            Marker::Ring => self.circle((x, y), 4.0, &hollow),
            Marker::Diamond => self.leaf("path", &[("d", &diamond), ("class", &full)]),
            Marker::Square => self.leaf("path", &[("d", &square), ("class", &full)]),
            Marker::Triangle => self.leaf("path", &[("d", &triangle), ("class", &full)]),
            Marker::Cross => self.leaf("path", &[("d", &cross), ("class", &hollow)]),
        }
    }

    fn circle(&mut self, (cx, cy): (f64, f64), r: f64, class: &str) {
        self.leaf("circle", &[("cx", &cx), ("cy", &cy), ("r", &r), ("class", &class)]);
    }

    /// What was written.
    pub(crate) fn into_string(self) -> String {
        self.out
    }
}

/// `M` and `L` commands through `points`; nothing for no points.
fn path(points: &[(f64, f64)]) -> String {
    let mut d = String::with_capacity(points.len() * 12);
    for (i, (x, y)) in points.iter().enumerate() {
        d.push(if i == 0 { 'M' } else { 'L' });
        d.push_str(&coordinate(*x));
        d.push(' ');
        d.push_str(&coordinate(*y));
    }
    d
}

/// Width of `text` in a sans-serif face of `size` pixels; an estimate, a little generous.
pub(crate) fn text_width(text: &str, size: f64) -> f64 {
    let units: f64 = text
        .chars()
        .map(|c| match c {
            'i' | 'l' | 'j' | '.' | ',' | ':' | ';' | '|' | '\'' | '!' | ' ' | 'I' => 0.32,
            'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '-' => 0.4,
            'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.92,
            c if c.is_uppercase() => 0.72,
            c => 0.63 * unicode_width::UnicodeWidthChar::width(c).unwrap_or(0) as f64,
        })
        .sum();
    units * size
}

/// `text` cut to `width` pixels, with an ellipsis where something was cut.
pub(crate) fn fit(text: &str, width: f64, size: f64) -> String {
    if text_width(text, size) <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for c in text.chars() {
        if text_width(&kept, size) + size * 1.5 > width {
            break;
        }
        kept.push(c);
    }
    kept.trim_end().to_owned() + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_and_text_are_escaped_and_short() {
        let mut svg = Svg::default();
        svg.group("a\"b", |svg| {
            svg.tip("x < y");
            svg.text((1.0 / 3.0, -0.001), Anchor::End, "tick", "<script>");
        });
        assert_eq!(
            svg.into_string(),
            "<g class=\"a&quot;b\"><title>x &lt; y</title>\
             <text x=\"0.33\" y=\"0\" text-anchor=\"end\" class=\"tick\">&lt;script&gt;</text></g>"
        );
    }

    #[test]
    fn a_line_wears_its_tone() {
        let mut svg = Svg::default();
        svg.polyline(&[(0.0, 1.5), (2.0, 3.25)], "line", Tone::Plain);
        assert_eq!(
            svg.into_string(),
            "<path d=\"M0 1.5L2 3.25\" class=\"line s-plain\" stroke-dasharray=\"6 3.5\"/>"
        );
    }

    #[test]
    fn long_text_is_cut_to_its_width() {
        let cut = fit("a rather long label of a class", 80.0, 12.0);
        assert!(cut.ends_with('…') && text_width(&cut, 12.0) <= 86.0, "{cut}");
        assert_eq!(fit("short", 80.0, 12.0), "short");
    }
}
