//! Plots: the data of each, its picture, the same as a table, and the same in words.

mod bars;
mod confusion;
mod frame;
mod heatmap;
mod line;
mod paired;
mod scale;
mod series;

pub use bars::{Bar, BarChart, BarGroup};
pub use confusion::Confusion;
pub use heatmap::HeatMap;
pub use line::LineChart;
pub use paired::{Pair, PairedDots};
pub use scale::Scale;
pub use series::{Axis, Key, Point, Series};

use crate::escape::markup;
use crate::palette::{self, Scheme};
use crate::svg::{Anchor, Svg, coordinate, fit};
use crate::table::Table;

/// Width of a plot on a page, in pixels.
pub const WIDE: f64 = 720.0;
/// Width of a plot on a phone, in pixels; letters keep their size.
pub const NARROW: f64 = 356.0;

/// A picture: SVG elements that fill `width` times `height` pixels.
#[derive(Clone, Debug)]
pub struct Drawing {
    /// Pixels.
    pub width: f64,
    /// Pixels.
    pub height: f64,
    /// SVG elements, without the `svg` element around them.
    pub body: String,
}

/// What every plot can do.
pub trait Plot {
    /// Its heading.
    fn title(&self) -> &str;
    /// What to see in it, one sentence; may be empty.
    fn caption(&self) -> &str;
    /// The picture in words, for those who do not see it.
    fn description(&self) -> String;
    /// The numbers of the picture.
    fn table(&self) -> Table;
    /// The picture, `width` pixels wide.
    fn draw(&self, width: f64) -> Drawing;
}

/// A plot with its heading on a ground of its own, as it stands in a file.
pub(crate) struct Sheet {
    pub(crate) width: f64,
    pub(crate) height: f64,
    /// SVG elements.
    pub(crate) body: String,
}

impl Sheet {
    pub(crate) fn new(plot: &dyn Plot, width: f64) -> Self {
        const MARGIN: f64 = 16.0;
        let drawing = plot.draw(width);
        let mut heading = Svg::default();
        let mut top = MARGIN;
        if !plot.title().is_empty() {
            let title = fit(plot.title(), width, 15.0);
            heading.text((MARGIN, top + 14.0), Anchor::Start, "heading", &title);
            top += 34.0;
        }
        let (width, height) = (drawing.width + 2.0 * MARGIN, drawing.height + top + MARGIN);
        let mut ground = Svg::default();
        ground.rect((0.0, 0.0), (width, height), "ground");
        let body = format!(
            "{}{}<g transform=\"translate({MARGIN} {})\">{}</g>",
            ground.into_string(),
            heading.into_string(),
            coordinate(top),
            drawing.body
        );
        Self { width, height, body }
    }

    /// The style rules that it needs, in the colours of a scheme.
    pub(crate) fn rules(&self, scheme: Scheme) -> String {
        palette::resolved_rules(scheme, &self.body)
    }
}

/// The plot as an SVG file of its own: with its title, its description and its styles, in the
/// light or dark colours that the viewer prefers.
pub fn stand_alone(plot: &dyn Plot, width: f64) -> String {
    let sheet = Sheet::new(plot, width);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" width=\"{w}\" height=\"{h}\" \
         viewBox=\"0 0 {w} {h}\" role=\"img\">\n<title>{title}</title>\n<desc>{desc}</desc>\n\
         <style>{light}@media (prefers-color-scheme:dark){{{dark}}}</style>\n{body}\n</svg>\n",
        w = coordinate(sheet.width),
        h = coordinate(sheet.height),
        title = markup(plot.title()),
        desc = markup(&plot.description()),
        light = sheet.rules(Scheme::Light),
        dark = sheet.rules(Scheme::Dark),
        body = sheet.body,
    )
}

/// The plot as an `svg` element inside a page that holds the style rules.
pub(crate) fn inline(plot: &dyn Plot, width: f64, class: &str) -> String {
    let drawing = plot.draw(width);
    format!(
        "<svg class=\"plot {class}\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" \
         role=\"img\" aria-label=\"{label}\">{body}</svg>",
        w = coordinate(drawing.width),
        h = coordinate(drawing.height),
        label = markup(&plot.description()),
        body = drawing.body,
    )
}

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use super::line::tests::losses;
    use super::*;

    /// Fails where the elements of an SVG text do not close in order.
    pub(crate) fn assert_well_formed(svg: &str) {
        let mut open: Vec<&str> = Vec::new();
        for tag in svg.split('<').skip(1) {
            let (inside, _) = tag.split_once('>').expect("each tag ends");
            // Texts may say NaN; coordinates, which stand inside tags, may not.
            assert!(!inside.contains("NaN") && !inside.contains("inf"), "{inside}");
            if let Some(name) = inside.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "closing order in {svg:.300}");
            } else if !inside.ends_with('/') {
                open.push(inside.split(' ').next().expect("each tag has a name"));
            }
        }
        assert!(open.is_empty(), "left open: {open:?}");
    }

    /// Every name, title and heading of every plot replaced by a hostile one.
    fn hostile() -> Vec<Box<dyn Plot>> {
        let evil = || "</title></style><script>\"'&\u{1b}".to_owned();
        let mut line = losses();
        (line.title, line.x.title, line.y.title, line.band) = (evil(), evil(), evil(), Some(evil()));
        line.series.iter_mut().for_each(|s| s.key.name = evil());
        let mut map = heatmap::tests::sample();
        (map.title, map.column_title, map.value_title) = (evil(), evil(), evil());
        map.rows.iter_mut().chain(&mut map.columns).for_each(|name| *name = evil());
        let mut dots = paired::tests::sample();
        (dots.title, dots.first.name, dots.second.name) = (evil(), evil(), evil());
        dots.interval = evil();
        dots.pairs.iter_mut().for_each(|p| p.name = evil());
        let mut bars = bars::tests::sample();
        (bars.title, bars.axis.title, bars.axis.unit) = (evil(), evil(), Some(evil()));
        for group in &mut bars.groups {
            group.name = evil();
            group.bars.iter_mut().for_each(|b| b.name = evil());
        }
        let mut matrix = confusion::tests::sample();
        matrix.title = evil();
        matrix.classes.iter_mut().for_each(|c| *c = evil());
        vec![Box::new(line), Box::new(map), Box::new(dots), Box::new(bars), Box::new(matrix)]
    }

    #[test]
    fn no_name_can_leave_its_place() {
        for plot in hostile() {
            for width in [WIDE, NARROW] {
                let svg = stand_alone(plot.as_ref(), width);
                assert_well_formed(&svg);
                assert!(!svg.contains("<script") && !svg.contains('\u{1b}'), "{svg:.200}");
                assert_eq!(svg.matches("</style>").count(), 1);
                assert!(!inline(plot.as_ref(), width, "wide").contains("<script"));
            }
        }
    }

    #[test]
    fn a_stand_alone_file_carries_its_styles_and_words() {
        let chart = losses();
        let svg = stand_alone(&chart, 500.0);
        assert_well_formed(&svg);
        assert!(svg.contains("prefers-color-scheme:dark"));
        assert!(svg.contains("<title>Training &lt;loss&gt;</title>"));
        assert!(!svg.contains("var("));
    }
}
