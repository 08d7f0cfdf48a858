//! `--set key=value`: one value of a recipe, by its dotted key.

use super::{KEYS, training};
use crate::Error;
use serde_json::{Map, Value};

/// Sets `assignment` (`training.learning_rate=1e-4`) in a recipe's table. The value is read as TOML, and as
/// a text where it is none. A key of `[training]` may leave its table out.
pub fn set(recipe: &mut Value, assignment: &str) -> Result<(), Error> {
    const PLACE: &str = "--set";
    let Some((key, text)) = assignment.split_once('=') else {
        return Err(Error::key(PLACE, assignment, "has no `=`; write key=value, such as seed=7"));
    };
    let key = key.trim();
    if key.is_empty() || key.split('.').any(str::is_empty) {
        return Err(Error::key(PLACE, assignment, "names no key before the `=`"));
    }
    let value = read(text.trim());
    let mut parts: Vec<&str> = key.split('.').collect();
    if parts.len() == 1 && !KEYS.contains(&key) && training::KEYS.contains(&key) {
        parts.insert(0, "training");
    }
    let Some((last, tables)) = parts.split_last() else { return Ok(()) };
    let mut at = recipe;
    for table in tables {
        let here = at
            .as_object_mut()
            .ok_or_else(|| Error::key(PLACE, key, "lies inside something that is no table"))?;
        at = here.entry(*table).or_insert_with(|| Value::Object(Map::new()));
    }
    let here =
        at.as_object_mut().ok_or_else(|| Error::key(PLACE, key, "lies inside something that is no table"))?;
    here.insert((*last).into(), value);
    Ok(())
}

/// `7`, `1e-4`, `true`, `["q_proj"]`, `"text"`; anything else is a text without quotes.
fn read(text: &str) -> Value {
    let as_toml = toml::from_str::<Value>(&format!("x = {text}"));
    let single =
        as_toml.ok().and_then(|v| v.as_object().filter(|o| o.len() == 1).and_then(|o| o.get("x").cloned()));
    // A TOML date would come as an object of the parser's own.
    single
        .filter(|v| !v.as_object().is_some_and(|o| o.keys().any(|k| k.starts_with('$'))))
        .unwrap_or_else(|| Value::String(text.into()))
}
