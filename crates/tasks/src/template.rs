//! Templates: plain text with `{name}` or `{name|filter}` places; `{{` and `}}` write a brace.

use regex::Regex;
use std::borrow::Cow;
use std::sync::LazyLock;

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Text that stands as it is.
    Literal(String),
    /// A place to fill.
    Place {
        /// Its name.
        name: String,
        /// What is done to the text that fills it.
        filter: Option<Filter>,
    },
}

impl Piece {
    /// A place's name.
    pub(crate) fn place(&self) -> Option<&str> {
        match self {
            Piece::Place { name, .. } => Some(name),
            Piece::Literal(_) => None,
        }
    }
}

/// What lm-evaluation-harness does to a text before it stands in a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filter {
    /// No blanks around it, and a full stop at its end (MNLI's hypothesis).
    Stop,
    /// WikiHow's marks in brackets taken out (HellaSwag).
    Unmarked,
    /// The first letter large, all others small, as Python's `capitalize` (HellaSwag's second context).
    Capital,
}

impl Filter {
    const ALL: [(&str, Filter); 3] =
        [("stop", Filter::Stop), ("unmarked", Filter::Unmarked), ("capital", Filter::Capital)];

    fn named(name: &str) -> Result<Filter, String> {
        Filter::ALL.into_iter().find(|(n, _)| *n == name).map(|(_, filter)| filter).ok_or_else(|| {
            format!("has the filter `{name}`; there are {}", Filter::ALL.map(|(n, _)| n).join(", "))
        })
    }

    /// The text as the filter leaves it.
    fn apply(self, text: &str) -> String {
        match self {
            Filter::Stop => {
                let text = text.trim();
                if text.ends_with('.') { text.to_owned() } else { format!("{text}.") }
            }
            Filter::Unmarked => {
                MARKS.replace_all(&text.trim().replace(" [title]", ". "), "").replace("  ", " ")
            }
            Filter::Capital => {
                let mut chars = text.chars();
                let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
                first + &chars.as_str().to_lowercase()
            }
        }
    }
}

static MARKS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\[.*?\]").expect("the pattern is tested below"));

/// Cuts `template` into pieces; the error says which brace is wrong.
pub(crate) fn pieces(template: &str) -> Result<Vec<Piece>, String> {
    let mut out = Vec::new();
    let mut literal = String::new();
    let mut chars = template.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '{' if chars.next_if_eq(&'{').is_some() => literal.push('{'),
            '}' if chars.next_if_eq(&'}').is_some() => literal.push('}'),
            '{' => {
                let name: String = chars.by_ref().take_while(|c| *c != '}').collect();
                let closed = chars.peek().is_some() || template.ends_with('}');
                let (place, filter) = match name.split_once('|') {
                    Some((place, filter)) => (place, Some(Filter::named(filter)?)),
                    None => (&*name, None),
                };
                let plain = place.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                if !closed || place.is_empty() || !plain {
                    return Err(format!("has `{{{name}`, which is no place; write {{{{ for a plain brace"));
                }
                if !literal.is_empty() {
                    out.push(Piece::Literal(std::mem::take(&mut literal)));
                }
                out.push(Piece::Place { name: place.to_owned(), filter });
            }
            '}' => {
                return Err("has a closing brace without an opening one; write }} for a plain brace".into());
            }
            c => literal.push(c),
        }
    }
    if !literal.is_empty() {
        out.push(Piece::Literal(literal));
    }
    Ok(out)
}

/// Fills every place by `value`; the error is the name of a place without one.
pub(crate) fn fill<'a>(
    template: &str,
    value: impl Fn(&str) -> Option<Cow<'a, str>>,
) -> Result<String, String> {
    let mut out = String::new();
    for piece in pieces(template)? {
        match piece {
            Piece::Literal(text) => out.push_str(&text),
            Piece::Place { name, filter } => {
                let text = value(&name).ok_or(name)?;
                out.push_str(&filter.map_or(text.clone(), |f| Cow::from(f.apply(&text))));
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_and_values_are_not_templates() {
        let value = |name: &str| (name == "q").then(|| Cow::from("is {q} a brace? "));
        assert_eq!(fill("a {{x}} {q}\n", value).unwrap(), "a {x} is {q} a brace? \n");
        assert_eq!(fill("{q}{answer}", value).unwrap_err(), "answer");
    }

    /// Expected: what Python gives for `preprocess` of the harness's HellaSwag, MNLI's rule, `str.capitalize`.
    #[test]
    fn filters_are_the_harness_s() {
        let filled =
            |template: &str, text: &str| fill(template, |_| Some(Cow::from(text.to_owned()))).unwrap();
        let marked = " [header] How to sit [title] Find a chair.  [step] Look [substeps] round. ";
        assert_eq!(filled("{q|unmarked}", marked), " How to sit. Find a chair.  Look round.");
        assert_eq!(filled("({q|stop})", " It is so "), "(It is so.)");
        assert_eq!(filled("{q|stop}", "It is so. "), "It is so.");
        assert_eq!(filled("{q|capital}", "the Lady's \u{c9}mile"), "The lady's \u{e9}mile");
        assert_eq!(filled("{q|capital}", ""), "");
        assert!(pieces("{q|upper}").unwrap_err().contains("`upper`; there are stop, unmarked, capital"));
    }

    #[test]
    fn stray_braces_are_refused() {
        assert!(pieces("a } b").unwrap_err().contains("closing brace"));
        assert!(pieces("a {b c} d").unwrap_err().contains("no place"));
        assert!(pieces("a {open").unwrap_err().contains("no place"));
    }
}
