//! The elements of a plot's drawing and the style rules that apply to them: as much of SVG and CSS as [`crate::svg`],
//! `plot.css` and the palette write, and no more.

use crate::svg::Anchor;

type Point = (f64, f64);

/// What is drawn.
#[derive(Debug, PartialEq)]
pub(super) enum Shape {
    /// Lines; a circle is one of many corners.
    Path { lines: Vec<Vec<Point>>, closed: bool, round: bool },
    /// One line of text on its base line.
    Text { at: Point, anchor: Anchor, text: String },
}

/// One element.
#[derive(Debug, PartialEq)]
pub(super) struct Item {
    pub(super) shape: Shape,
    pub(super) dash: Vec<f64>,
    /// How far the groups around it moved it.
    pub(super) moved: Point,
    name: &'static str,
    /// Its classes and those of the groups around it.
    classes: Vec<String>,
    around: Vec<String>,
}

/// Corners of a circle.
const CORNERS: usize = 24;

/// The elements in the order in which they are painted. Titles are words, not pictures.
pub(super) fn items(body: &str) -> Vec<Item> {
    let (mut found, mut groups): (Vec<Item>, Vec<(Vec<String>, Point)>) = (Vec::new(), Vec::new());
    let mut rest = body;
    while let Some((_, tag)) = rest.split_once('<') {
        let Some((inside, after)) = tag.split_once('>') else { break };
        rest = after;
        let element = Element::read(inside);
        match element.name {
            "/g" => drop(groups.pop()),
            "g" => groups.push((element.words("class"), element.moved())),
            "title" => rest = rest.split_once("</title>").map_or("", |r| r.1),
            _ => {
                let text = rest.split('<').next().unwrap_or_default();
                let Some((name, shape)) = element.shape(text) else { continue };
                found.push(Item {
                    shape,
                    name,
                    dash: element.numbers("stroke-dasharray"),
                    moved: groups.iter().fold((0.0, 0.0), |sum, g| (sum.0 + g.1.0, sum.1 + g.1.1)),
                    classes: element.words("class"),
                    around: groups.iter().flat_map(|g| g.0.clone()).collect(),
                });
            }
        }
    }
    found
}

/// A start tag.
struct Element<'t> {
    name: &'t str,
    attributes: Vec<(&'t str, &'t str)>,
}

impl<'t> Element<'t> {
    fn read(inside: &'t str) -> Self {
        let inside = inside.trim_end_matches('/');
        let (name, mut rest) = inside.split_once(' ').unwrap_or((inside, ""));
        let mut attributes = Vec::new();
        while let Some((key, after)) = rest.split_once("=\"") {
            let (value, next) = after.split_once('"').unwrap_or((after, ""));
            attributes.push((key.trim(), value));
            rest = next;
        }
        Self { name, attributes }
    }

    fn get(&self, key: &str) -> &'t str {
        self.attributes.iter().find(|(k, _)| *k == key).map_or("", |(_, value)| value)
    }

    fn number(&self, key: &str) -> f64 {
        self.get(key).parse().unwrap_or(0.0)
    }

    fn numbers(&self, key: &str) -> Vec<f64> {
        self.get(key).split([' ', ',']).filter_map(|n| n.parse().ok()).collect()
    }

    fn words(&self, key: &str) -> Vec<String> {
        self.get(key).split_whitespace().map(String::from).collect()
    }

    /// `translate(x y)`.
    fn moved(&self) -> Point {
        let inside = self.get("transform").strip_prefix("translate(").map(|t| t.trim_end_matches(')'));
        let numbers: Vec<f64> =
            inside.unwrap_or_default().split([' ', ',']).filter_map(|n| n.parse().ok()).collect();
        (numbers.first().copied().unwrap_or(0.0), numbers.get(1).copied().unwrap_or(0.0))
    }

    fn shape(&self, text: &str) -> Option<(&'static str, Shape)> {
        let path = |lines, closed, round| Shape::Path { lines, closed, round };
        Some(match self.name {
            "line" => {
                let ends = [("x1", "y1"), ("x2", "y2")].map(|(x, y)| (self.number(x), self.number(y)));
                ("line", path(vec![ends.to_vec()], false, false))
            }
            "rect" => {
                let (x, y) = (self.number("x"), self.number("y"));
                let (right, bottom) = (x + self.number("width"), y + self.number("height"));
                ("rect", path(vec![vec![(x, y), (right, y), (right, bottom), (x, bottom)]], true, false))
            }
            "circle" => {
                let (x, y, r) = (self.number("cx"), self.number("cy"), self.number("r"));
                let corner = |i: usize| {
                    let (sin, cos) = (std::f64::consts::TAU * i as f64 / CORNERS as f64).sin_cos();
                    (x + r * cos, y + r * sin)
                };
                ("circle", path(vec![(0..CORNERS).map(corner).collect()], true, true))
            }
            "path" => {
                let d = self.get("d");
                ("path", path(lines(d), d.ends_with('Z'), false))
            }
            "text" => {
                let anchor = match self.get("text-anchor") {
                    "middle" => Anchor::Middle,
                    "end" => Anchor::End,
                    _ => Anchor::Start,
                };
                ("text", Shape::Text { at: (self.number("x"), self.number("y")), anchor, text: plain(text) })
            }
            _ => return None,
        })
    }
}

/// `M` and `L` with points, `Z` at the end.
fn lines(d: &str) -> Vec<Vec<Point>> {
    let mut all: Vec<Vec<Point>> = Vec::new();
    for part in d.trim_end_matches('Z').split('M') {
        let points: Vec<Point> = part
            .split('L')
            .filter_map(|p| {
                let (x, y) = p.trim().split_once(' ')?;
                Some((x.parse().ok()?, y.parse().ok()?))
            })
            .collect();
        if !points.is_empty() {
            all.push(points);
        }
    }
    all
}

/// Text as it was before [`crate::escape::markup`].
fn plain(text: &str) -> String {
    let pairs = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// How an element looks.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Style {
    pub(super) fill: Option<[u8; 3]>,
    pub(super) stroke: Option<[u8; 3]>,
    pub(super) width: f64,
    pub(super) opacity: f64,
    pub(super) size: f64,
    pub(super) bold: bool,
    /// Ends of lines are round.
    pub(super) round: bool,
}

/// Style rules, the weaker before the stronger.
pub(super) struct Rules(Vec<Rule>);

struct Rule {
    /// From the outermost to the element's own: classes, or an element's name.
    parts: Vec<String>,
    declarations: Vec<(String, String)>,
}

/// Reads rules of the form `.a .b,text{key:value;...}`; those for a pointer that hovers are left out.
pub(super) fn rules(css: &str) -> Rules {
    let mut all = Vec::new();
    for rule in css.split('}') {
        let Some((selectors, body)) = rule.split_once('{') else { continue };
        let declarations: Vec<(String, String)> = body
            .split(';')
            .filter_map(|d| d.split_once(':'))
            .map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned()))
            .collect();
        for selector in selectors.split(',').filter(|s| !s.contains(':') && !s.contains(".held")) {
            let parts = selector.split_whitespace().map(String::from).collect();
            all.push(Rule { parts, declarations: declarations.clone() });
        }
    }
    // A stable order: of equally strong rules the later wins.
    all.sort_by_key(|rule: &Rule| {
        let classes = rule.parts.iter().filter(|p| p.starts_with('.')).count();
        (classes, rule.parts.len() - classes)
    });
    Rules(all)
}

impl Rules {
    pub(super) fn style(&self, item: &Item) -> Style {
        let mut style = Style {
            fill: Some([0, 0, 0]),
            stroke: None,
            width: 1.0,
            opacity: 1.0,
            size: 12.0,
            bold: false,
            round: false,
        };
        for rule in &self.0 {
            if rule.applies(item.name, &item.classes, &item.around) {
                rule.declarations.iter().for_each(|(key, value)| style.set(key, value));
            }
            // What makes a group invisible makes its content so.
            let hides = |(key, value): &(String, String)| key == "opacity" && value == "0";
            let hidden = rule.declarations.iter().any(hides)
                && item
                    .around
                    .iter()
                    .enumerate()
                    .any(|(i, class)| rule.applies("g", std::slice::from_ref(class), &item.around[..i]));
            if hidden {
                style.opacity = 0.0;
                return style;
            }
        }
        style
    }
}

impl Rule {
    fn applies(&self, name: &str, classes: &[String], around: &[String]) -> bool {
        let is = |part: &str, class: &str| part.strip_prefix('.').is_some_and(|p| p == class);
        let Some((own, outer)) = self.parts.split_last() else { return false };
        let mine = own == name || classes.iter().any(|class| is(own, class));
        // The drawing itself is a `.plot`.
        mine && outer.iter().all(|part| part == ".plot" || around.iter().any(|class| is(part, class)))
    }
}

impl Style {
    fn set(&mut self, key: &str, value: &str) {
        let pixels = |text: &str| text.trim_end_matches("px").parse::<f64>().ok();
        match key {
            "fill" => self.fill = colour(value),
            "stroke" => self.stroke = colour(value),
            "stroke-width" => self.width = pixels(value).unwrap_or(self.width),
            "opacity" => self.opacity = value.parse().unwrap_or(self.opacity),
            "font-size" => self.size = pixels(value).unwrap_or(self.size),
            "font" => self.size = value.split(' ').next().and_then(pixels).unwrap_or(self.size),
            "font-weight" => self.bold = value.parse::<u32>().is_ok_and(|weight| weight >= 600),
            "stroke-linecap" => self.round = value == "round",
            _ => {}
        }
    }
}

/// `#rrggbb`; `none` and `transparent` are no colour.
fn colour(text: &str) -> Option<[u8; 3]> {
    let digits = text.strip_prefix('#')?;
    let pair = |i: usize| u8::from_str_radix(digits.get(i..i + 2)?, 16).ok();
    Some([pair(0)?, pair(2)?, pair(4)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::palette::{Scheme, resolved_rules};

    #[test]
    fn elements_are_read_with_their_groups() {
        let body = "<rect x=\"1\" y=\"2\" width=\"3\" height=\"4\" class=\"ground\"/><g transform=\"translate(16 50)\">\
                    <g class=\"hit\"><title>words <b></title><path d=\"M1 2L3.5 -4M7 8L9 10Z\" class=\"line s-sibo\" \
                    stroke-dasharray=\"6 3.5\"/></g><text x=\"5\" y=\"6\" text-anchor=\"end\" class=\"tick\">a &lt; b</text></g>";
        let all = items(body);
        assert_eq!(all.len(), 3);
        assert_eq!((all[1].moved, all[1].dash.as_slice()), ((16.0, 50.0), [6.0, 3.5].as_slice()));
        let two = vec![vec![(1.0, 2.0), (3.5, -4.0)], vec![(7.0, 8.0), (9.0, 10.0)]];
        assert_eq!(all[1].shape, Shape::Path { lines: two, closed: true, round: false });
        assert_eq!(all[1].around, ["hit"]);
        let text = Shape::Text { at: (5.0, 6.0), anchor: Anchor::End, text: "a < b".into() };
        assert_eq!(all[2].shape, text);
    }

    #[test]
    fn the_plots_own_rules_apply() {
        let rules = rules(&resolved_rules(Scheme::Light, ""));
        let style = |body: &str| rules.style(items(body).first().unwrap());
        let tick = style("<text x=\"1\" y=\"1\" class=\"tick\">1</text>");
        assert_eq!((tick.size, tick.bold, tick.fill), (11.0, false, Some([92, 94, 102])));
        let name = style("<text x=\"1\" y=\"1\" class=\"strong f-sibo\">1</text>");
        assert_eq!((name.size, name.bold, name.fill), (12.0, true, Some([184, 74, 0])));
        let line = style("<path d=\"M1 1L2 2\" class=\"line s-plain\"/>");
        assert_eq!((line.fill, line.stroke, line.width, line.round), (None, Some([0, 99, 166]), 2.0, true));
        let band = style("<path d=\"M1 1L2 2Z\" class=\"band f-plain\"/>");
        assert_eq!((band.stroke, band.opacity), (None, 0.16));
        assert_eq!(style("<rect class=\"catch\"/>").fill, None);
        let hidden = "<g class=\"hit\"><g class=\"shown-on-hover\"><line x1=\"1\" class=\"cross\"/></g></g>";
        assert_eq!(style(hidden).opacity, 0.0);
        assert_eq!(style("<g class=\"hit\"><line x1=\"1\" class=\"cross\"/></g>").opacity, 1.0);
    }
}
