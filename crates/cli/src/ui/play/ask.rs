//! What the playground is asked: read from a form, every number within its bounds.

use crate::speaker::ChoiceArgs;
use sibo_serve::url::Fields;

/// Columns side by side.
const MOST_COLUMNS: usize = 8;
/// New tokens for each column.
pub(super) const MOST_TOKENS: usize = 1024;
/// Letters of a prompt or sentence.
const MOST_TEXT: usize = 20_000;

/// One column: which adapter, and which lambda where it is not the adapter's own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ColumnAsk {
    /// `None` is the base model.
    pub(super) adapter: Option<usize>,
    pub(super) lambda: Option<f32>,
}

/// A whole request.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) text: String,
    /// The second of a pair of sentences.
    pub(super) second: Option<String>,
    pub(super) columns: Vec<ColumnAsk>,
    pub(super) choice: ChoiceArgs,
}

impl Ask {
    /// Reads a form; `adapters` is how many there are.
    pub(super) fn read(fields: &Fields, adapters: usize) -> Result<Self, String> {
        let one = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let text = one("text").unwrap_or_default().replace("\r\n", "\n");
        let second = one("second").map(str::trim).filter(|t| !t.is_empty()).map(String::from);
        if text.trim().is_empty() {
            return Err("there is no text to read: type something first".into());
        }
        if text.chars().count() + second.as_ref().map_or(0, |t| t.chars().count()) > MOST_TEXT {
            return Err(format!("the text has more than {MOST_TEXT} letters"));
        }
        let columns = fields.iter().filter(|(n, _)| n == "column").map(|(_, v)| column(v, adapters));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        if columns.is_empty() || columns.len() > MOST_COLUMNS {
            return Err(format!("choose 1 to {MOST_COLUMNS} columns; {} are chosen", columns.len()));
        }
        let choice = ChoiceArgs {
            max_new_tokens: number(one("max_new_tokens"), "new tokens", 256, |n| {
                (1..=MOST_TOKENS).contains(n)
            })?,
            temperature: number(one("temperature"), "temperature", 0.0, |t: &f32| {
                t.is_finite() && *t >= 0.0
            })?,
            top_k: number(one("top_k"), "top-k", 0, |_| true)?,
            top_p: number(one("top_p"), "top-p", 1.0, |p: &f32| *p > 0.0 && *p <= 1.0)?,
            repetition_penalty: number(one("repetition_penalty"), "repetition penalty", 1.0, |p: &f32| {
                p.is_finite() && *p > 0.0
            })?,
            seed: number(one("seed"), "seed", 0, |_| true)?,
            stop: vec![],
            template: None,
        };
        Ok(Ask { text, second, columns, choice })
    }
}

/// `base`, `0` (the first adapter as it was trained), or `0:0.2` (with this lambda).
fn column(text: &str, adapters: usize) -> Result<ColumnAsk, String> {
    let (adapter, lambda) = text.split_once(':').map_or((text, None), |(a, l)| (a, Some(l)));
    if adapter == "base" {
        return Ok(ColumnAsk { adapter: None, lambda: None });
    }
    let adapter = adapter.parse().ok().filter(|n| *n < adapters);
    let adapter = adapter.ok_or_else(|| format!("\"{text}\" names no adapter of this playground"))?;
    let lambda = lambda.map(|lambda| match lambda.parse::<f32>() {
        Ok(l) if (0.0..1.0).contains(&l) => Ok(l),
        _ => Err(format!("lambda is \"{lambda}\"; it must be a number with 0 <= lambda < 1")),
    });
    Ok(ColumnAsk { adapter: Some(adapter), lambda: lambda.transpose()? })
}

fn number<T: std::str::FromStr>(
    text: Option<&str>,
    name: &str,
    default: T,
    good: impl Fn(&T) -> bool,
) -> Result<T, String> {
    match text.map(str::trim).filter(|t| !t.is_empty()) {
        None => Ok(default),
        Some(text) => match text.parse::<T>() {
            Ok(value) if good(&value) => Ok(value),
            _ => Err(format!("\"{text}\" cannot be the {name}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Ask, String> {
        Ask::read(&sibo_serve::url::fields(text).unwrap(), 2)
    }

    #[test]
    fn a_form_is_a_request() {
        let ask =
            read("text=a+river&column=base&column=1&column=0:0.35&temperature=0.7&seed=9&top_k=").unwrap();
        let expected = [(None, None), (Some(1), None), (Some(0), Some(0.35))];
        let expected = expected.map(|(adapter, lambda)| ColumnAsk { adapter, lambda });
        assert_eq!((ask.text.as_str(), ask.columns.as_slice()), ("a river", expected.as_slice()));
        assert_eq!((ask.choice.temperature, ask.choice.seed, ask.choice.top_k), (0.7, 9, 0));
        assert_eq!(ask.choice.max_new_tokens, 256);
    }

    #[test]
    fn nonsense_gets_a_sentence() {
        for (form, part) in [
            ("text=+&column=base", "no text"),
            ("text=a", "1 to 8 columns; 0"),
            ("text=a&column=2", "names no adapter"),
            ("text=a&column=0:1", "0 <= lambda < 1"),
            ("text=a&column=0:NaN", "0 <= lambda < 1"),
            ("text=a&column=base&top_p=0", "cannot be the top-p"),
            ("text=a&column=base&max_new_tokens=9999", "cannot be the new tokens"),
            ("text=a&column=base&temperature=inf", "cannot be the temperature"),
        ] {
            let said = read(form).unwrap_err();
            assert!(said.contains(part), "{form}: {said}");
        }
        let many = "column=base&".repeat(9);
        assert!(read(&format!("text=a&{many}")).unwrap_err().contains("9 are chosen"));
    }
}
