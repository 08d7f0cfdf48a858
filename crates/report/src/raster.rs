//! Plots as PNG files, for places that take no SVG.
//!
//! The plots are made of few kinds of SVG elements ([`crate::svg`]), and those alone are drawn: rectangles, lines,
//! polygons, circles, one line of text. [`read`] takes them and the style rules that apply, [`canvas`] fills and
//! strokes, [`text`] has the outlines of letters, [`png`] writes the file. A library that draws all of SVG would be
//! forty packages, most of it for what does not occur here.

mod canvas;
mod png;
mod read;
mod text;

use crate::palette::Scheme;
use crate::plot::{self, Plot};
use canvas::{Canvas, Rgba};
use read::{Item, Shape, Style};

/// Pixels of the picture for one of the plot's: sharp in print and on dense screens.
const SCALE: f64 = 2.0;

/// The plot as [`plot::stand_alone`] has it, in light colours, as the bytes of a PNG file.
pub(crate) fn render(plot: &dyn Plot, width: f64) -> Vec<u8> {
    let sheet = plot::Sheet::new(plot, width);
    let (w, h) = ((sheet.width * SCALE).ceil() as usize, (sheet.height * SCALE).ceil() as usize);
    let mut canvas = Canvas::new(w, h);
    let rules = read::rules(&sheet.rules(Scheme::Light));
    for item in read::items(&sheet.body) {
        draw(&mut canvas, &item, &rules.style(&item));
    }
    png::encode(w, h, &canvas.into_bytes())
}

fn draw(canvas: &mut Canvas, item: &Item, style: &Style) {
    let at = |(x, y): (f64, f64)| ((x + item.moved.0) * SCALE, (y + item.moved.1) * SCALE);
    let colour = |c: Option<[u8; 3]>| c.map(|rgb| Rgba { rgb, alpha: style.opacity });
    match &item.shape {
        Shape::Path { lines, closed, round } => {
            let lines: Vec<Vec<(f64, f64)>> =
                lines.iter().map(|line| line.iter().map(|p| at(*p)).collect()).collect();
            if let Some(fill) = colour(style.fill).filter(|_| *closed) {
                canvas.fill(&lines, fill);
            }
            if let Some(stroke) = colour(style.stroke) {
                let dash: Vec<f64> = item.dash.iter().map(|d| d * SCALE).collect();
                canvas.stroke(&lines, *closed, style.width * SCALE, &dash, *round || style.round, stroke);
            }
        }
        Shape::Text { at: place, anchor, text } => {
            let Some(fill) = colour(style.fill) else { return };
            let size = style.size * SCALE;
            let outlines = text::outlines(text, at(*place), *anchor, size, style.bold);
            canvas.fill(&outlines, fill);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::tests::losses;
    use crate::plot::{NARROW, WIDE};

    #[test]
    fn a_plot_becomes_a_png_of_its_size() {
        for width in [WIDE, NARROW] {
            let plot = losses();
            let bytes = render(&plot, width);
            let sheet = plot::Sheet::new(&plot, width);
            let (w, h, pixels) = png::tests::decode(&bytes);
            assert_eq!((w, h), ((2.0 * sheet.width).ceil() as usize, (2.0 * sheet.height).ceil() as usize));
            let ground = &pixels[..3];
            let other = pixels.chunks(3).filter(|p| *p != ground).count();
            // Lines, letters and marks, and not a blot.
            assert!(
                other > pixels.len() / 3 / 200 && other < pixels.len() / 3 / 4,
                "{other} of {}",
                pixels.len() / 3
            );
        }
    }
}
