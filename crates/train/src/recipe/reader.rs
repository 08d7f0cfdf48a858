//! A strict reader of one table of a recipe: each key is taken once, with its type; what is left is refused.

use crate::Error;
use serde_json::{Map, Value};
use sibo_peft::config::did_you_mean;

/// The table's remaining keys and how errors name them.
pub(super) struct Reader<'a> {
    place: &'a str,
    /// `""` at the top, `training.` inside.
    prefix: &'static str,
    rest: Map<String, Value>,
    known: &'static [&'static str],
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        place: &'a str,
        prefix: &'static str,
        table: &Value,
        known: &'static [&'static str],
    ) -> Result<Self, Error> {
        let name = prefix.trim_end_matches('.');
        let rest = table.as_object().cloned().ok_or_else(|| Error::key(place, name, "must be a table"))?;
        let reader = Reader { place, prefix, rest, known };
        // A misspelt key first: with it, whatever else is said would be about the wrong recipe.
        match reader.rest.keys().find(|k| !known.contains(&k.as_str())) {
            None => Ok(reader),
            Some(key) => {
                let hint = did_you_mean(key, known);
                let all = known.join(", ");
                Err(reader.error(key, format!("not a key here{hint} (the keys are {all})")))
            }
        }
    }

    pub(super) fn error(&self, key: &str, reason: impl Into<String>) -> Error {
        Error::key(self.place, &format!("{}{key}", self.prefix), reason)
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        debug_assert!(self.known.contains(&key), "{key} is not in the list of keys");
        self.rest.remove(key).filter(|v| !v.is_null())
    }

    fn typed<T>(
        &mut self,
        key: &str,
        what: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.take(key) else { return Ok(None) };
        read(&value).map(Some).ok_or_else(|| self.error(key, format!("{value} is not {what}")))
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, Error> {
        self.typed(key, "a text in quotes", |v| v.as_str().filter(|s| !s.is_empty()).map(String::from))
    }

    /// One text, or a list of one or more different ones.
    pub(super) fn texts(&mut self, key: &str) -> Result<Option<Vec<String>>, Error> {
        self.typed(key, "a text in quotes, or a list of different ones", |v| {
            let list = v.as_array().map_or(std::slice::from_ref(v), Vec::as_slice);
            let texts = list.iter().map(|t| t.as_str().filter(|s| !s.is_empty()).map(String::from));
            let texts: Vec<String> = texts.collect::<Option<_>>()?;
            let different: std::collections::BTreeSet<&String> = texts.iter().collect();
            (!texts.is_empty() && different.len() == texts.len()).then_some(texts)
        })
    }

    pub(super) fn flag(&mut self, key: &str, default: bool) -> Result<bool, Error> {
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    pub(super) fn seed(&mut self, key: &str) -> Result<Option<u64>, Error> {
        self.typed(key, "a whole number, 0 or above", Value::as_u64)
    }

    /// A whole number from `least` on.
    pub(super) fn count(&mut self, key: &str, least: u64) -> Result<Option<usize>, Error> {
        let what = format!("a whole number, {least} or above");
        self.typed(key, &what, |v| v.as_u64().filter(|n| (least..1 << 40).contains(n)).map(|n| n as usize))
    }

    /// A finite number that `fits`; `what` says which do.
    pub(super) fn number(
        &mut self,
        key: &str,
        what: &str,
        default: f64,
        fits: impl Fn(f64) -> bool,
    ) -> Result<f64, Error> {
        let found = self.typed(key, what, |v| v.as_f64().filter(|x| x.is_finite() && fits(*x)))?;
        Ok(found.unwrap_or(default))
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)], default: T) -> Result<T, Error> {
        let Some(value) = self.take(key) else { return Ok(default) };
        let found = value.as_str().and_then(|w| words.iter().find(|(name, _)| *name == w));
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
            let hint = value.as_str().map_or(String::new(), |w| did_you_mean(w, &names));
            self.error(key, format!("{value} is none of {}{hint}", names.join(", ")))
        })
    }
}
