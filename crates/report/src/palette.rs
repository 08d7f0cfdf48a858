//! The one home of every colour: the light and the dark scheme, and what each series wears.
//!
//! Colours are told apart with any common colour blindness, and never alone: each tone has its
//! own dash pattern and marker too. The tests hold text to a contrast of 4.5 and lines to 3
//! against the page (WCAG 2.2, AA).

use serde::{Deserialize, Serialize};

/// Who a series belongs to. The same tone looks the same in every plot of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tone {
    /// The model before any training: grey, dotted, small circles.
    Base,
    /// The plain method: blue, dashed, open circles.
    Plain,
    /// The method with SIBO: orange, solid, diamonds.
    Sibo,
    /// Anything else; the number picks one of four further looks.
    Other(u8),
}

/// Shape drawn at the points of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marker {
    Dot,
    Ring,
    Diamond,
    Square,
    Triangle,
    Cross,
}

impl Tone {
    /// Every look there is.
    fn all() -> impl Iterator<Item = Self> {
        let named = [Self::Base, Self::Plain, Self::Sibo];
        named.into_iter().chain((0..4).map(Self::Other))
    }

    /// Name of the tone in class names and style variables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Plain => "plain",
            Self::Sibo => "sibo",
            Self::Other(n) => ["green", "violet", "olive", "pink"][usize::from(n % 4)],
        }
    }

    /// The `stroke-dasharray`, `None` for a solid line.
    pub(crate) fn dash(self) -> Option<&'static str> {
        match self {
            Self::Base => Some("1.5 3.5"),
            Self::Plain => Some("6 3.5"),
            Self::Sibo => None,
            Self::Other(n) => Some(["10 3", "8 3 1.5 3", "3 3", "12 3 3 3"][usize::from(n % 4)]),
        }
    }

    pub(crate) fn marker(self) -> Marker {
        use Marker::{Cross, Diamond, Dot, Ring, Square, Triangle};
        match self {
            Self::Base => Dot,
            Self::Plain => Ring,
            Self::Sibo => Diamond,
            Self::Other(n) => [Square, Triangle, Cross, Dot][usize::from(n % 4)],
        }
    }
}

/// Steps of a heat map's scale.
pub(crate) const HEAT_STEPS: usize = 21;

/// A colour as red, green and blue.
type Rgb = [u8; 3];

/// Colours of one scheme that are not computed: name, light, dark.
const COLOURS: [(&str, Rgb, Rgb); 15] = [
    ("page", [253, 252, 250], [20, 22, 26]),
    ("panel", [246, 244, 239], [28, 31, 36]),
    ("ink", [27, 28, 32], [232, 230, 225]),
    ("muted", [92, 94, 102], [163, 166, 174]),
    ("rule", [221, 217, 208], [52, 56, 64]),
    ("accent", [0, 95, 160], [112, 184, 240]),
    ("base", [104, 107, 115], [160, 163, 171]),
    ("plain", [0, 99, 166], [99, 179, 238]),
    ("sibo", [184, 74, 0], [242, 147, 85]),
    ("green", [0, 117, 88], [76, 195, 156]),
    ("violet", [130, 72, 155], [199, 155, 224]),
    ("olive", [112, 97, 0], [205, 187, 75]),
    ("pink", [172, 54, 116], [238, 143, 191]),
    ("good", [0, 117, 88], [76, 195, 156]),
    ("bad", [176, 40, 40], [245, 135, 125]),
];

/// Ends of the sequential scale: low and high.
const HEAT: [[Rgb; 2]; 2] = [[[233, 240, 247], [9, 56, 105]], [[29, 42, 57], [172, 215, 255]]];

/// Low end, middle and high end of the diverging scale.
const DIVERGING: [[Rgb; 3]; 2] =
    [[[150, 56, 0], [240, 238, 233], [8, 72, 130]], [[242, 147, 85], [44, 47, 54], [110, 186, 245]]];

/// The light or the dark colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Light,
    Dark,
}

impl Scheme {
    /// Every style variable of the scheme with its colour as `#rrggbb`.
    pub(crate) fn variables(self) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = COLOURS
            .iter()
            .map(|(name, light, dark)| {
                let colour = if self == Self::Light { light } else { dark };
                ((*name).to_owned(), hex(*colour))
            })
            .collect();
        for step in 0..HEAT_STEPS {
            for (prefix, colour) in [("h", self.heat(step)), ("d", self.diverging(step))] {
                all.push((format!("{prefix}{step}"), hex(colour)));
                all.push((format!("{prefix}{step}t"), hex(readable_on(colour))));
            }
        }
        all
    }

    fn heat(self, step: usize) -> Rgb {
        let [low, high] = HEAT[self as usize];
        mix(low, high, step as f64 / (HEAT_STEPS - 1) as f64)
    }

    fn diverging(self, step: usize) -> Rgb {
        let [low, middle, high] = DIVERGING[self as usize];
        let place = 2.0 * step as f64 / (HEAT_STEPS - 1) as f64 - 1.0;
        let end = if place < 0.0 { low } else { high };
        mix(middle, end, place.abs())
    }
}

/// `name: colour;` for each variable, for a style rule.
pub(crate) fn declarations(scheme: Scheme) -> String {
    let one = |(name, colour): (String, String)| format!("--{name}:{colour};");
    scheme.variables().into_iter().map(one).collect()
}

/// Style rules of all plots; colours by variable.
pub(crate) fn plot_rules() -> String {
    let mut css = include_str!("plot/plot.css").to_owned();
    for tone in Tone::all() {
        let name = tone.name();
        // Two classes outrank the rule for the plots' own text colour.
        css += &format!(".plot .s-{name}{{stroke:var(--{name})}}.plot .f-{name}{{fill:var(--{name})}}\n");
    }
    for step in 0..HEAT_STEPS {
        for prefix in ["h", "d"] {
            css += &format!(
                ".plot .{prefix}{step}{{fill:var(--{prefix}{step})}}\
                 .plot .on-{prefix}{step}{{fill:var(--{prefix}{step}t)}}\n"
            );
        }
    }
    css
}

/// Style rules that write names in the colour of their tone.
pub(crate) fn name_rules() -> String {
    let one = |tone: Tone| format!(".tone-{0}{{color:var(--{0})}}\n", tone.name());
    Tone::all().map(one).collect()
}

/// [`plot_rules`] that `body` needs, with the variables replaced by the scheme's colours: viewers of single SVG
/// files often know no variables.
pub(crate) fn resolved_rules(scheme: Scheme, body: &str) -> String {
    let is_step = |line: &str| {
        let class = line.strip_prefix(".plot .").and_then(|l| l.split_once('{'));
        class.map(|c| c.0.to_owned()).filter(|c| c[1..].bytes().all(|b| b.is_ascii_digit()))
    };
    let used = |line: &&str| is_step(line).is_none_or(|class| body.contains(&format!(" {class}\"")));
    let mut css: String = plot_rules().lines().filter(used).map(|l| format!("{l}\n")).collect();
    for (name, colour) in scheme.variables() {
        css = css.replace(&format!("var(--{name})"), &colour);
    }
    css
}

fn hex([r, g, b]: Rgb) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

fn mix(from: Rgb, to: Rgb, part: f64) -> Rgb {
    let one = |i: usize| f64::from(from[i]) + part * (f64::from(to[i]) - f64::from(from[i]));
    [one(0).round() as u8, one(1).round() as u8, one(2).round() as u8]
}

/// Black or white, whichever is read better on `colour`: one of the two always has 4.58.
fn readable_on(colour: Rgb) -> Rgb {
    let (dark, light) = ([0, 0, 0], [255, 255, 255]);
    if contrast(dark, colour) >= contrast(light, colour) { dark } else { light }
}

/// Relative luminance, WCAG 2.2.
fn luminance(colour: Rgb) -> f64 {
    let linear = colour.map(|channel| {
        let c = f64::from(channel) / 255.0;
        if c <= 0.040_45 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    });
    0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
}

/// Contrast ratio, WCAG 2.2: 1 to 21.
fn contrast(a: Rgb, b: Rgb) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn colour(name: &str, dark: bool) -> Rgb {
        let found = COLOURS.iter().find(|c| c.0 == name).unwrap();
        if dark { found.2 } else { found.1 }
    }

    #[test]
    fn contrast_of_black_and_white_is_21() {
        assert!((contrast([0, 0, 0], [255, 255, 255]) - 21.0).abs() < 1e-9);
    }

    #[test]
    fn all_text_reads_at_aa_on_page_and_panel() {
        for dark in [false, true] {
            for (name, ..) in COLOURS.iter().filter(|c| !["page", "panel", "rule"].contains(&c.0)) {
                for ground in ["page", "panel"] {
                    let ratio = contrast(colour(name, dark), colour(ground, dark));
                    assert!(ratio >= 4.5, "{name} on {ground}, dark {dark}: {ratio:.2}");
                }
            }
        }
    }

    #[test]
    fn numbers_in_heat_cells_read_at_aa() {
        for scheme in [Scheme::Light, Scheme::Dark] {
            for step in 0..HEAT_STEPS {
                for cell in [scheme.heat(step), scheme.diverging(step)] {
                    let ratio = contrast(readable_on(cell), cell);
                    assert!(ratio >= 4.5, "{scheme:?} step {step}: {ratio:.2}");
                }
            }
        }
    }

    #[test]
    fn tones_differ_in_more_than_colour() {
        let tones: Vec<Tone> = Tone::all().collect();
        for (i, a) in tones.iter().enumerate() {
            for b in &tones[..i] {
                assert_ne!(a.dash(), b.dash(), "{a:?} {b:?}");
                assert_ne!(a.name(), b.name());
            }
        }
    }

    #[test]
    fn stand_alone_rules_hold_no_variable() {
        for scheme in [Scheme::Light, Scheme::Dark] {
            assert!(!resolved_rules(scheme, "cell-edge h7\"").contains("var("), "{scheme:?}");
        }
        let rules = resolved_rules(Scheme::Light, "<rect class=\"cell-edge h7\"/>");
        assert!(rules.contains(".plot .h7{") && !rules.contains(".plot .h8{"));
        assert!(plot_rules().contains(".plot .s-sibo{stroke:var(--sibo)}"));
    }
}
