//! Templates: plain text with `{name}` places; `{{` and `}}` write a brace.

use std::borrow::Cow;

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Text that stands as it is.
    Literal(String),
    /// The name of a place to fill.
    Place(String),
}

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
                if !closed || name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                {
                    return Err(format!("has `{{{name}`, which is no place; write {{{{ for a plain brace"));
                }
                if !literal.is_empty() {
                    out.push(Piece::Literal(std::mem::take(&mut literal)));
                }
                out.push(Piece::Place(name));
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
            Piece::Place(name) => out.push_str(&value(&name).ok_or(name)?),
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

    #[test]
    fn stray_braces_are_refused() {
        assert!(pieces("a } b").unwrap_err().contains("closing brace"));
        assert!(pieces("a {b c} d").unwrap_err().contains("no place"));
        assert!(pieces("a {open").unwrap_err().contains("no place"));
    }
}
