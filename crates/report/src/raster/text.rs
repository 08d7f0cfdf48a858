//! Letters as outlines, from a font that is part of the program: a picture looks the same on every machine.

use crate::svg::Anchor;
use ttf_parser::{Face, OutlineBuilder};

/// DejaVu Sans, cut to the letters of European languages and what plots write; see fonts/LICENSE and NOTICE.
const REGULAR: &[u8] = include_bytes!("../../fonts/plot-sans-regular.ttf");
const BOLD: &[u8] = include_bytes!("../../fonts/plot-sans-bold.ttf");

/// Pieces into which a curve is cut.
const PIECES: usize = 6;

/// Stands for letters that the font lacks.
const OTHER: char = '\u{fffd}';

type Point = (f64, f64);

/// The closed outlines of one line of text; `place` is on its base line.
pub(super) fn outlines(text: &str, place: Point, anchor: Anchor, size: f64, bold: bool) -> Vec<Vec<Point>> {
    let face = Face::parse(if bold { BOLD } else { REGULAR }, 0).expect("the program's own font");
    let scale = size / f64::from(face.units_per_em());
    let glyph = |c: char| face.glyph_index(c).or_else(|| face.glyph_index(OTHER)).unwrap_or_default();
    let advance = |c: char| f64::from(face.glyph_hor_advance(glyph(c)).unwrap_or(0)) * scale;
    let width: f64 = text.chars().map(advance).sum();
    let mut x = place.0
        - match anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => width / 2.0,
            Anchor::End => width,
        };
    let mut pen = Pen { lines: Vec::new(), x, y: place.1, scale };
    for c in text.chars() {
        pen.x = x;
        face.outline_glyph(glyph(c), &mut pen);
        x += advance(c);
    }
    pen.lines
}

/// Collects outlines as lines.
struct Pen {
    lines: Vec<Vec<Point>>,
    x: f64,
    y: f64,
    scale: f64,
}

impl Pen {
    fn place(&self, x: f32, y: f32) -> Point {
        (self.x + f64::from(x) * self.scale, self.y - f64::from(y) * self.scale)
    }

    fn add(&mut self, point: Point) {
        if let Some(line) = self.lines.last_mut() {
            line.push(point);
        }
    }

    fn last(&self) -> Point {
        self.lines.last().and_then(|line| line.last()).copied().unwrap_or_default()
    }
}

impl OutlineBuilder for Pen {
    fn move_to(&mut self, x: f32, y: f32) {
        self.lines.push(vec![self.place(x, y)]);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.add(self.place(x, y));
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let (a, b, c) = (self.last(), self.place(x1, y1), self.place(x, y));
        for i in 1..=PIECES {
            let t = i as f64 / PIECES as f64;
            let mix = |a: f64, b: f64, c: f64| a * (1.0 - t).powi(2) + 2.0 * b * t * (1.0 - t) + c * t * t;
            self.add((mix(a.0, b.0, c.0), mix(a.1, b.1, c.1)));
        }
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let (a, b, c, d) = (self.last(), self.place(x1, y1), self.place(x2, y2), self.place(x, y));
        for i in 1..=PIECES {
            let t = i as f64 / PIECES as f64;
            let s = 1.0 - t;
            let mix = |a: f64, b: f64, c: f64, d: f64| {
                a * s * s * s + 3.0 * s * t * (b * s + c * t) + d * t * t * t
            };
            self.add((mix(a.0, b.0, c.0, d.0), mix(a.1, b.1, c.1, d.1)));
        }
    }

    fn close(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(lines: &[Vec<Point>]) -> (f64, f64) {
        let xs = || lines.iter().flatten().map(|p| p.0);
        (xs().fold(f64::INFINITY, f64::min), xs().fold(f64::NEG_INFINITY, f64::max))
    }

    #[test]
    fn text_stands_where_it_is_anchored() {
        let at = |anchor| range(&outlines("loss 0.35", (100.0, 40.0), anchor, 12.0, false));
        let (start, middle, end) = (at(Anchor::Start), at(Anchor::Middle), at(Anchor::End));
        assert!(start.0 >= 100.0 && start.0 < 103.0 && end.1 <= 100.0 && end.1 > 97.0);
        assert!(((middle.0 + middle.1) / 2.0 - 100.0).abs() < 1.5, "{middle:?}");
        let bold = range(&outlines("loss 0.35", (100.0, 40.0), Anchor::Start, 12.0, true));
        assert!(bold.1 > start.1);
    }

    #[test]
    fn what_plots_write_is_in_the_font() {
        for bytes in [REGULAR, BOLD] {
            let face = Face::parse(bytes, 0).unwrap();
            for c in "AZaz09 λ−–…∞≤≥×·é±%[](),:;|/".chars() {
                assert!(face.glyph_index(c).is_some(), "{c}");
            }
        }
        assert!(!outlines("精", (0.0, 0.0), Anchor::Start, 12.0, false).is_empty());
    }
}
