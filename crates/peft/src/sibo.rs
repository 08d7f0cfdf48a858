//! SIBO's settings: how much of h0, where, and in which form (method.md, section 1).

use crate::{Error, ModelShape, Module, Site};
use serde_json::{Value, json};

/// The form in which this crate writes the `sibo` object; other numbers are refused.
pub const VERSION: u64 = 1;

/// Lambda: one number for all layers or one for each.
#[derive(Debug, Clone, PartialEq)]
pub enum Lambda {
    /// The same everywhere (the paper).
    Same(f32),
    /// One for each layer.
    PerLayer(Vec<f32>),
}

/// Which sites receive the injection.
#[derive(Debug, Clone, PartialEq)]
pub enum Placement {
    /// Every injectable site (the paper's words).
    Paper,
    /// What the released code injects.
    Reference,
    /// These Hugging Face suffixes.
    List(Vec<String>),
}

/// What stands for h0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum H0 {
    /// The embedding as it is (the paper).
    Raw,
    /// Each row rescaled to the root mean square of its x row.
    Rms,
}

/// What a series adapter's own skip connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// The unmixed input (the released code).
    Original,
    /// The mixed input (the paper's argument taken at its word).
    Mixed,
}

/// The `sibo` object of `adapter_config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sibo {
    /// How much of h0.
    pub lambda: Lambda,
    /// Where.
    pub placement: Placement,
    /// In which form.
    pub h0: H0,
    /// The series adapters' skip.
    pub skip: Skip,
}

impl Default for Sibo {
    /// The plain method.
    fn default() -> Self {
        Sibo { lambda: Lambda::Same(0.0), placement: Placement::Paper, h0: H0::Raw, skip: Skip::Original }
    }
}

impl Sibo {
    /// The paper's form with one lambda.
    pub fn with_lambda(lambda: f32) -> Self {
        Sibo { lambda: Lambda::Same(lambda), ..Sibo::default() }
    }

    /// Lambda at `layer`.
    pub fn lambda_at(&self, layer: usize) -> f32 {
        match &self.lambda {
            Lambda::Same(l) => *l,
            Lambda::PerLayer(list) => list.get(layer).copied().unwrap_or(0.0),
        }
    }

    /// Whether every lambda is zero, that is, whether this is exactly the plain method.
    pub fn is_plain(&self) -> bool {
        match &self.lambda {
            Lambda::Same(l) => *l == 0.0,
            Lambda::PerLayer(list) => list.iter().all(|l| *l == 0.0),
        }
    }

    /// The object as it stands in `adapter_config.json`.
    pub fn to_json(&self) -> Value {
        let lambda = match &self.lambda {
            Lambda::Same(l) => shortest(*l),
            Lambda::PerLayer(list) => list.iter().map(|l| shortest(*l)).collect(),
        };
        let placement = match &self.placement {
            Placement::Paper => json!("paper"),
            Placement::Reference => json!("reference"),
            Placement::List(list) => json!(list),
        };
        let h0 = if self.h0 == H0::Raw { "raw" } else { "rms" };
        let skip = if self.skip == Skip::Original { "original" } else { "mixed" };
        json!({"version": VERSION, "lambda": lambda, "placement": placement, "h0": h0, "skip": skip})
    }

    /// Reads the object found in `place`.
    pub fn from_json(place: &str, value: &Value) -> Result<Self, Error> {
        let bad = |key: &str, reason: String| Error::key(place, &format!("sibo.{key}"), reason);
        let object = value.as_object().ok_or_else(|| Error::key(place, "sibo", "must be an object"))?;
        const KEYS: [&str; 5] = ["version", "lambda", "placement", "h0", "skip"];
        if let Some(key) = object.keys().find(|k| !KEYS.contains(&k.as_str())) {
            return Err(bad(key, format!("not a key of the sibo object; its keys are {}", KEYS.join(", "))));
        }
        match object.get("version") {
            None => {}
            Some(v) if v.as_u64() == Some(VERSION) => {}
            Some(v) => {
                return Err(bad(
                    "version",
                    format!("{v} is not supported; this build reads version {VERSION}"),
                ));
            }
        }
        let word = |key: &str, default: &'static str| -> Result<String, Error> {
            match object.get(key) {
                None | Some(Value::Null) => Ok(default.into()),
                Some(Value::String(s)) => Ok(s.clone()),
                Some(v) => Err(bad(key, format!("{v} is not a word"))),
            }
        };
        let lambda =
            read_lambda(object.get("lambda").unwrap_or(&Value::Null)).map_err(|r| bad("lambda", r))?;
        let placement = read_placement(object.get("placement")).map_err(|r| bad("placement", r))?;
        let h0 = match word("h0", "raw")?.as_str() {
            "raw" => H0::Raw,
            "rms" => H0::Rms,
            other => return Err(bad("h0", format!("`{other}` is neither raw nor rms"))),
        };
        let skip = match word("skip", "original")?.as_str() {
            "original" => Skip::Original,
            "mixed" => Skip::Mixed,
            other => return Err(bad("skip", format!("`{other}` is neither original nor mixed"))),
        };
        Ok(Sibo { lambda, placement, h0, skip })
    }

    /// Refuses what does not fit the model before anything is built.
    pub fn check(&self, shape: &ModelShape) -> Result<(), Error> {
        let layers = shape.layer_paths.len();
        match &self.lambda {
            Lambda::PerLayer(list) if list.len() != layers => Err(Error::Refused(format!(
                "`lambda` lists {} numbers, but the model has {layers} layers: give one number, or one for each layer",
                list.len()
            ))),
            _ => Ok(()),
        }
    }

    /// Lambda of the branch at `module`, by placement; a list that names a site SIBO cannot enter is refused.
    pub fn lambda_for(&self, module: &Module, shape: &ModelShape) -> Result<f32, Error> {
        let Some(layer) = module.layer else {
            return self.refuse_listed(module, "it lies outside the layers");
        };
        if !module.injectable(shape.width) {
            let why = match module.site {
                Site::FfnDown => "its branch reads the FFN's inner state, not the token's state",
                _ => "its branch does not read a state as wide as h0",
            };
            return self.refuse_listed(module, why);
        }
        let chosen = match &self.placement {
            Placement::Paper => true,
            Placement::Reference => shape.reference.is_some_and(|r| r.lora == module.name()),
            Placement::List(_) => self.lists(&module.path),
        };
        Ok(if chosen { self.lambda_at(layer) } else { 0.0 })
    }

    /// Whether a placement list names `path`.
    pub fn lists(&self, path: &str) -> bool {
        match &self.placement {
            Placement::List(list) => list.iter().any(|s| path == s || path.ends_with(&format!(".{s}"))),
            _ => false,
        }
    }

    fn refuse_listed(&self, module: &Module, why: &str) -> Result<f32, Error> {
        if self.lists(&module.path) {
            return Err(Error::Refused(format!(
                "`placement` names `{}`, which SIBO cannot enter: {why}. Leave it out of the list; as a target module it runs plain.",
                module.path
            )));
        }
        Ok(0.0)
    }
}

/// An f32 as the shortest decimal that gives it back, so that 0.35 is written as 0.35.
fn shortest(value: f32) -> Value {
    json!(value.to_string().parse::<f64>().unwrap_or(f64::from(value)))
}

fn read_lambda(value: &Value) -> Result<Lambda, String> {
    const RANGE: &str = "must be a number with 0 <= lambda < 1, or a list of one such number for each layer";
    let one = |v: &Value| match v.as_f64() {
        Some(l) if (0.0..1.0).contains(&l) && (l as f32) < 1.0 => Ok(l as f32),
        _ => Err(format!("{v} is not allowed: it {RANGE}")),
    };
    match value {
        Value::Array(list) => Ok(Lambda::PerLayer(list.iter().map(one).collect::<Result<_, _>>()?)),
        other => one(other).map(Lambda::Same),
    }
}

fn read_placement(value: Option<&Value>) -> Result<Placement, String> {
    match value {
        None | Some(Value::Null) => Ok(Placement::Paper),
        Some(Value::String(s)) if s == "paper" => Ok(Placement::Paper),
        Some(Value::String(s)) if s == "reference" => Ok(Placement::Reference),
        Some(Value::Array(list)) if !list.is_empty() => list
            .iter()
            .map(|v| v.as_str().map(String::from).ok_or(format!("{v} is not a module suffix")))
            .collect::<Result<_, _>>()
            .map(Placement::List),
        Some(v) => Err(format!("{v} is none of `paper`, `reference`, or a list of module suffixes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_survives_a_round_trip() {
        let sibo = Sibo {
            lambda: Lambda::PerLayer(vec![0.1, 0.35, 0.7]),
            placement: Placement::List(vec!["up_proj".into()]),
            h0: H0::Rms,
            skip: Skip::Mixed,
        };
        assert_eq!(Sibo::from_json("x", &sibo.to_json()).unwrap(), sibo);
        assert_eq!(Sibo::with_lambda(0.35).to_json()["lambda"], json!(0.35));
    }

    #[test]
    fn values_out_of_range_get_a_sentence() {
        for (object, part) in [
            (json!({"lambda": 1.0}), "0 <= lambda < 1"),
            (json!({"lambda": -0.1}), "0 <= lambda < 1"),
            (json!({"lambda": [0.3, 2.0]}), "0 <= lambda < 1"),
            (json!({"lambda": 0.99999999999}), "0 <= lambda < 1"),
            (json!({"lambda": "much"}), "0 <= lambda < 1"),
            (json!({}), "0 <= lambda < 1"),
            (json!({"lambda": 0.3, "version": 2}), "version"),
            (json!({"lambda": 0.3, "placement": "all"}), "placement"),
            (json!({"lambda": 0.3, "h0": "norm"}), "raw nor rms"),
            (json!({"lambda": 0.3, "lamda": 0.2}), "not a key"),
        ] {
            let error = Sibo::from_json("adapter_config.json", &object).unwrap_err().to_string();
            assert!(error.contains(part) && error.starts_with("adapter_config.json"), "{object}: {error}");
        }
    }
}
