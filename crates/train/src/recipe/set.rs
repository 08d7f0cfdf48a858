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
    let value = read(key, text.trim())?;
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
fn read(key: &str, text: &str) -> Result<Value, Error> {
    // Rust's flags write `NaN`, which TOML would take for a text.
    if let Ok(number) = text.parse::<f64>()
        && !number.is_finite()
    {
        return Err(not_finite("--set", key, number));
    }
    let table = toml::from_str::<toml::Table>(&format!("x = {text}")).ok();
    let single = table.filter(|table| table.len() == 1).and_then(|mut table| table.remove("x"));
    match single {
        // A date is a text here.
        None | Some(toml::Value::Datetime(_)) => Ok(Value::String(text.into())),
        Some(value) => finite("--set", key, &value),
    }
}

/// TOML as JSON, which has no `nan` and no `inf`: they would come as a key that is not given.
pub(super) fn finite(place: &str, key: &str, value: &toml::Value) -> Result<Value, Error> {
    let below = |name: &str| if key.is_empty() { name.to_string() } else { format!("{key}.{name}") };
    Ok(match value {
        toml::Value::Float(number) if !number.is_finite() => return Err(not_finite(place, key, *number)),
        toml::Value::Array(all) => {
            Value::Array(all.iter().map(|v| finite(place, key, v)).collect::<Result<_, _>>()?)
        }
        toml::Value::Table(table) => {
            let pair =
                |(name, v): (&String, &toml::Value)| Ok((name.clone(), finite(place, &below(name), v)?));
            Value::Object(table.iter().map(pair).collect::<Result<_, Error>>()?)
        }
        toml::Value::String(text) => Value::String(text.clone()),
        toml::Value::Integer(number) => Value::from(*number),
        toml::Value::Float(number) => Value::from(*number),
        toml::Value::Boolean(yes) => Value::Bool(*yes),
        toml::Value::Datetime(date) => Value::String(date.to_string()),
    })
}

fn not_finite(place: &str, key: &str, number: f64) -> Error {
    Error::key(place, key, format!("{number} is no finite number"))
}
