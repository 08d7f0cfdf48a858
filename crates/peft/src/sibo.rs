//! SIBO's settings: how much of h0, where, and in which form (method.md, section 1).

use crate::lambda::{self, Course, Lambda};
use crate::targets::suffix;
use crate::{Error, ModelShape, Module};
use serde_json::{Value, json};

/// The form in which this crate writes the `sibo` object; other numbers are refused.
pub const VERSION: u64 = 1;

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
    /// How much of h0. With a course, what the branches read now: a fresh adapter has its end.
    pub lambda: Lambda,
    /// How a run moves it, where it does.
    pub course: Option<Course>,
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
        Sibo {
            lambda: Lambda::Same(0.0),
            course: None,
            placement: Placement::Paper,
            h0: H0::Raw,
            skip: Skip::Original,
        }
    }
}

impl Sibo {
    /// The paper's form with one lambda.
    pub fn with_lambda(lambda: f32) -> Self {
        Sibo { lambda: Lambda::Same(lambda), ..Sibo::default() }
    }

    /// Whether lambda is and stays zero, that is, whether this is exactly the plain method.
    pub fn is_plain(&self) -> bool {
        let moves = self.course.as_ref().is_some_and(|c| c.start != 0.0 || !c.end.is_zero());
        self.lambda.is_zero() && !moves
    }

    /// Whether lambda is ever above zero at `layer`.
    pub fn acts_at(&self, layer: usize) -> bool {
        let moves = self.course.as_ref().is_some_and(|c| c.start != 0.0 || c.end.at(layer) != 0.0);
        self.lambda.at(layer) != 0.0 || moves
    }

    /// The same with one number where every layer has it.
    pub(crate) fn evened(&self) -> Self {
        match &self.lambda {
            Lambda::PerLayer(list) if list.windows(2).all(|two| two[0] == two[1]) && !list.is_empty() => {
                Sibo { lambda: Lambda::Same(list[0]), ..self.clone() }
            }
            _ => self.clone(),
        }
    }

    /// Lambda in words: `0.2`; `0.1, 0.3 by layer`; `0.2 (linear, from 0 to 0.4)`; `learned (from 0.2, one for each kind
    /// of site)`.
    pub fn lambda_in_words(&self) -> String {
        match &self.course {
            None => self.lambda.to_string(),
            Some(c) => format!("{} ({}, from {} to {})", self.lambda, c.shape.name(), c.start, c.end),
        }
    }

    /// The object as it stands in `adapter_config.json`.
    pub fn to_json(&self) -> Value {
        let placement = match &self.placement {
            Placement::Paper => json!("paper"),
            Placement::Reference => json!("reference"),
            Placement::List(list) => json!(list),
        };
        let h0 = if self.h0 == H0::Raw { "raw" } else { "rms" };
        let skip = if self.skip == Skip::Original { "original" } else { "mixed" };
        let mut object = json!({"version": VERSION, "placement": placement, "h0": h0, "skip": skip});
        if let Value::Object(object) = &mut object {
            lambda::write(&self.lambda, self.course.as_ref(), object);
        }
        object
    }

    /// Reads the object found in `place`.
    pub fn from_json(place: &str, value: &Value) -> Result<Self, Error> {
        let bad = |key: &str, reason: String| Error::key(place, &format!("sibo.{key}"), reason);
        let object = value.as_object().ok_or_else(|| Error::key(place, "sibo", "must be an object"))?;
        let keys = [&["version", "placement", "h0", "skip"][..], &lambda::KEYS].concat();
        if let Some(key) = object.keys().find(|k| !keys.contains(&k.as_str())) {
            return Err(bad(key, format!("not a key of the sibo object; its keys are {}", keys.join(", "))));
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
        let (lambda, course) = lambda::read(object).map_err(|(key, reason)| bad(key, reason))?;
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
        Ok(Sibo { lambda, course, placement, h0, skip })
    }

    /// Refuses what does not fit the model before anything is built.
    pub fn check(&self, shape: &ModelShape) -> Result<(), Error> {
        let layers = shape.layer_paths.len();
        match self.course.as_ref().map_or(&self.lambda, |c| &c.end) {
            Lambda::PerLayer(list) if list.len() != layers => Err(Error::Refused(format!(
                "`lambda` lists {} numbers, but the model has {layers} layers: give one number, or one for each layer",
                list.len()
            ))),
            _ => Ok(()),
        }
    }

    /// Whether SIBO enters the branch at `module`, by placement.
    pub fn enters(&self, module: &Module, shape: &ModelShape) -> bool {
        module.closed(shape.width).is_none()
            && match &self.placement {
                Placement::Paper => true,
                Placement::Reference => shape.reference.is_some_and(|r| r.lora == module.name()),
                Placement::List(_) => self.lists(&module.path),
            }
    }

    /// Refuses a placement list that names a module beside which SIBO cannot enter, target or not. It may name other models'
    /// modules too, as `target_modules` may.
    pub fn check_list(&self, shape: &ModelShape) -> Result<(), Error> {
        let closed = |module: &Module| module.closed(shape.width).filter(|_| self.lists(&module.path));
        match shape.modules.iter().find_map(|module| Some((module, closed(module)?))) {
            Some((module, why)) => Err(Error::Refused(format!(
                "`placement` names `{}`, which SIBO cannot enter: {why}. Leave it out of the list; as a target module it runs plain.",
                module.path
            ))),
            None => Ok(()),
        }
    }

    /// Whether a placement list names `path`.
    pub fn lists(&self, path: &str) -> bool {
        match &self.placement {
            Placement::List(list) => list.iter().any(|entry| suffix(entry, path)),
            _ => false,
        }
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
    use crate::lambda::{CourseShape, Learned, Per};

    #[test]
    fn the_object_survives_a_round_trip() {
        let sibo = Sibo {
            lambda: Lambda::PerLayer(vec![0.1, 0.35, 0.7]),
            course: None,
            placement: Placement::List(vec!["up_proj".into()]),
            h0: H0::Rms,
            skip: Skip::Mixed,
        };
        assert_eq!(Sibo::from_json("x", &sibo.to_json()).unwrap(), sibo);
        assert_eq!(Sibo::with_lambda(0.35).to_json()["lambda"], json!(0.35));
        let course =
            Course { shape: CourseShape::Cosine, start: 0.15, end: Lambda::PerLayer(vec![0.0, 0.4]) };
        let moving = Sibo { lambda: course.at(0.3), course: Some(course), ..sibo.clone() };
        assert_eq!(Sibo::from_json("x", &moving.to_json()).unwrap(), moving);
        let learned = Lambda::Learned(Learned { init: 0.35, per: Per::Module });
        let learned = Sibo { lambda: learned, ..sibo };
        assert_eq!(Sibo::from_json("x", &learned.to_json()).unwrap(), learned);
    }

    #[test]
    fn only_a_lambda_that_stays_zero_is_plain() {
        let of = |object: Value| Sibo::from_json("x", &object).unwrap();
        assert!(of(json!({"lambda": 0})).is_plain());
        assert!(of(json!({"lambda": 0, "lambda_schedule": "linear"})).is_plain());
        let falls = of(json!({"lambda": 0, "lambda_schedule": "linear", "lambda_start": 0.3}));
        assert!(!falls.is_plain() && falls.acts_at(1));
        // A checkpoint at the first step of a course from zero.
        let rises = of(json!({"lambda": 0, "lambda_schedule": "linear", "lambda_end": [0.0, 0.3]}));
        assert!(!rises.is_plain() && rises.acts_at(1) && !rises.acts_at(0));
        assert!(!of(json!({"lambda": "learned"})).is_plain());
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
