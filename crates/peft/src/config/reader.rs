//! A strict reader of a JSON object: each key is taken once, and what is left over must not matter.

use crate::Error;
use serde_json::{Map, Value};

/// The largest rank and bottleneck: wider than any model's residual stream.
pub(super) const MAX_INNER: usize = 1 << 16;

/// Options of PEFT's LoRA that are another function and close to the name of one that is here.
const PEFT_ONLY: [&str; 5] = ["use_dora", "use_qalora", "use_bdlora", "lora_bias", "velora_config"];

/// The object's remaining keys and the place that errors name.
pub(super) struct Reader {
    place: String,
    rest: Map<String, Value>,
    asked: Vec<String>,
}

impl Reader {
    pub(super) fn new(place: &str, value: &Value) -> Result<Self, Error> {
        let rest =
            value.as_object().cloned().ok_or_else(|| Error::key(place, "(top)", "must be a JSON object"))?;
        Ok(Reader { place: place.into(), rest, asked: vec![] })
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.asked.push(key.into());
        self.rest.remove(key)
    }

    fn typed<T>(
        &mut self,
        key: &str,
        what: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        match self.take(key) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => {
                read(&v).map(Some).ok_or_else(|| Error::key(&self.place, key, format!("{v} is not {what}")))
            }
        }
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, Error> {
        self.typed(key, "a string", |v| v.as_str().map(String::from))
    }

    pub(super) fn size(&mut self, key: &str) -> Result<Option<usize>, Error> {
        self.typed(key, "a positive whole number", |v| {
            v.as_u64().filter(|n| *n > 0 && *n < 1 << 32).map(|n| n as usize)
        })
    }

    /// A rank or a bottleneck: a size of which a matrix is made before any file says whether it fits.
    pub(super) fn inner_size(&mut self, key: &str) -> Result<Option<usize>, Error> {
        let size = self.size(key)?;
        match size.filter(|n| *n > MAX_INNER) {
            Some(n) => {
                Err(Error::key(&self.place, key, format!("{n} is beyond any use; at most {MAX_INNER}")))
            }
            None => Ok(size),
        }
    }

    pub(super) fn number(&mut self, key: &str) -> Result<Option<f64>, Error> {
        self.typed(key, "a number", |v| v.as_f64().filter(|x| x.is_finite()))
    }

    pub(super) fn probability(&mut self, key: &str) -> Result<f32, Error> {
        // The range holds for the f32, since a number just below 1 rounds to it.
        let value = self.typed(key, "a probability with 0 <= p < 1", |v| {
            v.as_f64().map(|p| p as f32).filter(|p| (0.0..1.0).contains(p))
        })?;
        Ok(value.unwrap_or(0.0))
    }

    pub(super) fn flag(&mut self, key: &str) -> Result<bool, Error> {
        self.flag_or(key, false)
    }

    /// A flag that is on, or off, where it is not given.
    pub(super) fn flag_or(&mut self, key: &str, default: bool) -> Result<bool, Error> {
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    pub(super) fn list(&mut self, key: &str) -> Result<Option<Vec<String>>, Error> {
        self.typed(key, "a list of strings", |v| {
            v.as_array()?.iter().map(|x| x.as_str().map(String::from)).collect()
        })
    }

    /// Numbers as a list, where PEFT also allows a single one.
    pub(super) fn sizes(&mut self, key: &str) -> Result<Vec<usize>, Error> {
        let one = |v: &Value| v.as_u64().map(|n| n as usize);
        Ok(self
            .typed(key, "a whole number or a list of them", |v| match v {
                Value::Array(list) => list.iter().map(one).collect(),
                single => one(single).map(|n| vec![n]),
            })?
            .unwrap_or_default())
    }

    /// A map from a pattern to a number of this kind.
    pub(super) fn patterns(
        &mut self,
        key: &str,
        kind: &str,
        fits: fn(f64) -> bool,
    ) -> Result<Vec<(String, f64)>, Error> {
        let one = |(pattern, n): (&String, &Value)| {
            n.as_f64().filter(|n| n.is_finite() && fits(*n)).map(|n| (pattern.clone(), n))
        };
        let read = |v: &Value| v.as_object()?.iter().map(one).collect::<Option<Vec<_>>>();
        Ok(self.typed(key, &format!("a map from module patterns to {kind}"), read)?.unwrap_or_default())
    }

    /// Takes keys that change no number here, whatever they hold.
    pub(super) fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.take(key);
        }
    }

    /// What is left must be null, false or empty: anything else could change a number, and is named.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        self.ignore(&["inference_mode", "revision", "auto_mapping", "peft_version"]);
        for (key, value) in &self.rest {
            let empty = match value {
                Value::Null | Value::Bool(false) => true,
                Value::String(s) => s.is_empty(),
                Value::Array(a) => a.is_empty(),
                Value::Object(o) => o.is_empty(),
                _ => false,
            };
            if !empty {
                // A misspelling is what a hint is for, and an option that PEFT has is none.
                let known: &[&str] = match PEFT_ONLY.contains(&key.as_str()) {
                    true => &[],
                    false => &self.asked.iter().map(String::as_str).collect::<Vec<_>>(),
                };
                let hint = did_you_mean(key, known);
                return Err(Error::key(
                    &self.place,
                    key,
                    format!("{value} is not supported here (only null, false or empty is){hint}"),
                ));
            }
        }
        Ok(())
    }
}

/// `, did you mean \`x\`?` for the nearest of `known`, or nothing where none is near.
pub fn did_you_mean(word: &str, known: &[&str]) -> String {
    let near = known.iter().map(|k| (distance(word, k), k)).min().filter(|(d, k)| *d <= 1 + k.len() / 4);
    near.map(|(_, k)| format!(", did you mean `{k}`?")).unwrap_or_default()
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replace = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
