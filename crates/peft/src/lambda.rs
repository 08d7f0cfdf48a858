//! Lambda in the forms that it can have: a number, a number for each layer, a number that the run moves along a course,
//! or one that is learned.

use crate::{ParamId, Params};
use serde_json::{Map, Value, json};
use sibo_kernels::mix;
use std::fmt;

/// How much of h0 the branches read.
#[derive(Debug, Clone, PartialEq)]
pub enum Lambda {
    /// The same everywhere (the paper).
    Same(f32),
    /// One for each layer.
    PerLayer(Vec<f32>),
    /// Trained as sigmoid(theta).
    Learned(Learned),
}

/// A learned lambda.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Learned {
    /// Where it starts.
    pub init: f32,
    /// What shares a theta.
    pub per: Per,
}

impl Default for Learned {
    /// The paper's best for adapters, one theta for each kind of site.
    fn default() -> Self {
        Learned { init: 0.2, per: Per::Kind }
    }
}

/// What shares a theta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    /// All branches that read the same kind of state ([`crate::Site::kind`]).
    Kind,
    /// All branches of a layer.
    Layer,
    /// No two branches.
    Module,
}

/// The words of a recipe.
const PER: [(&str, Per); 3] = [("kind", Per::Kind), ("layer", Per::Layer), ("module", Per::Module)];

impl Per {
    /// Its word.
    pub fn name(self) -> &'static str {
        name(&PER, self)
    }
}

/// How lambda moves from its start to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CourseShape {
    /// By the same amount at every step.
    Linear,
    /// Along half a cosine: slowly at both ends.
    Cosine,
}

/// The words of a recipe for a course; `constant` is none.
const SHAPES: [(&str, CourseShape); 2] = [("linear", CourseShape::Linear), ("cosine", CourseShape::Cosine)];

impl CourseShape {
    /// Its word.
    pub fn name(self) -> &'static str {
        name(&SHAPES, self)
    }
}

/// Lambda over the optimiser steps of a run: `start` at the first, `end` at the last.
#[derive(Debug, Clone, PartialEq)]
pub struct Course {
    /// Its shape.
    pub shape: CourseShape,
    /// At the first step, in every layer.
    pub start: f32,
    /// At the last step; never [`Lambda::Learned`].
    pub end: Lambda,
}

impl Course {
    /// Lambda after the share `progress` of the way, 0 at the first step and 1 at the last: exactly the two ends there.
    pub fn at(&self, progress: f64) -> Lambda {
        let share = match self.shape {
            CourseShape::Linear => progress,
            CourseShape::Cosine => 0.5 - 0.5 * (std::f64::consts::PI * progress).cos(),
        };
        let start = f64::from(self.start);
        let toward = |end: f32| match progress {
            p if p <= 0.0 => self.start,
            p if p >= 1.0 => end,
            _ => (start + (f64::from(end) - start) * share) as f32,
        };
        match &self.end {
            Lambda::Same(end) => Lambda::Same(toward(*end)),
            Lambda::PerLayer(ends) => Lambda::PerLayer(ends.iter().map(|end| toward(*end)).collect()),
            Lambda::Learned(learned) => Lambda::Learned(*learned),
        }
    }
}

/// Where one branch's lambda comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Dial {
    /// SIBO does not enter: the plain method.
    Plain,
    /// A number; 0 is the plain method to the bit. A run with a course turns it.
    Fixed(f32),
    /// sigmoid of a trained number.
    Learned(ParamId),
}

impl Dial {
    /// Lambda now.
    pub fn value(self, params: &Params) -> f32 {
        match self {
            Dial::Plain => 0.0,
            Dial::Fixed(lambda) => lambda,
            Dial::Learned(theta) => mix::of_theta(params.value(theta)[0]),
        }
    }
}

impl Lambda {
    /// The number of `layer`, where lambda is a number.
    pub fn at(&self, layer: usize) -> f32 {
        match self {
            Lambda::Same(l) => *l,
            Lambda::PerLayer(list) => list.get(layer).copied().unwrap_or(0.0),
            Lambda::Learned(learned) => learned.init,
        }
    }

    /// Whether it is the number 0 everywhere.
    pub fn is_zero(&self) -> bool {
        match self {
            Lambda::Same(l) => *l == 0.0,
            Lambda::PerLayer(list) => list.iter().all(|l| *l == 0.0),
            Lambda::Learned(_) => false,
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Lambda::Same(l) => shortest(*l),
            Lambda::PerLayer(list) => list.iter().map(|l| shortest(*l)).collect(),
            Lambda::Learned(_) => json!(LEARNED),
        }
    }
}

impl fmt::Display for Lambda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lambda::Same(lambda) => write!(f, "{lambda}"),
            Lambda::PerLayer(list) => {
                let list: Vec<String> = list.iter().map(f32::to_string).collect();
                write!(f, "{} by layer", list.join(", "))
            }
            Lambda::Learned(Learned { init, per }) => {
                let each = match per {
                    Per::Kind => "kind of site",
                    Per::Layer => "layer",
                    Per::Module => "module",
                };
                write!(f, "learned (from {init}, one for each {each})")
            }
        }
    }
}

/// The word for a learned lambda.
const LEARNED: &str = "learned";

/// The keys of the `sibo` object that are about lambda.
pub const KEYS: [&str; 6] =
    ["lambda", "lambda_init", "lambda_per", "lambda_schedule", "lambda_start", "lambda_end"];

/// Writes lambda and its course.
pub(crate) fn write(lambda: &Lambda, course: Option<&Course>, object: &mut Map<String, Value>) {
    object.insert("lambda".into(), lambda.to_json());
    if let Lambda::Learned(learned) = lambda {
        object.insert("lambda_init".into(), shortest(learned.init));
        object.insert("lambda_per".into(), json!(learned.per.name()));
    }
    if let Some(course) = course {
        object.insert("lambda_schedule".into(), json!(course.shape.name()));
        object.insert("lambda_start".into(), shortest(course.start));
        object.insert("lambda_end".into(), course.end.to_json());
    }
}

/// Reads lambda and its course; an error is the key and what is wrong with it.
///
/// A recipe's `lambda` is where a course ends. An adapter's folder holds the lambda that its values were trained or
/// evaluated with, and where the course was to end beside it, as `lambda_end`.
pub(crate) fn read(object: &Map<String, Value>) -> Result<(Lambda, Option<Course>), (&'static str, String)> {
    let get = |key: &str| object.get(key).filter(|v| !v.is_null());
    let lambda = get("lambda").unwrap_or(&Value::Null);
    if lambda.as_str() == Some(LEARNED) {
        return Ok((Lambda::Learned(read_learned(object)?), None));
    }
    for key in ["lambda_init", "lambda_per"] {
        if get(key).is_some() {
            return Err((key, "belongs to `lambda = \"learned\"`; here lambda is a number".into()));
        }
    }
    let lambda = read_numbers(lambda).map_err(|r| ("lambda", r))?;
    let shape = match get("lambda_schedule") {
        None => None,
        Some(v) if v.as_str() == Some("constant") => None,
        Some(v) => Some(
            word(&SHAPES, v)
                .ok_or_else(|| ("lambda_schedule", format!("{v} is none of constant, linear, cosine")))?,
        ),
    };
    let Some(shape) = shape else {
        for key in ["lambda_start", "lambda_end"] {
            if get(key).is_some() {
                let reason = "belongs to a lambda that moves: give `lambda_schedule = \"linear\"` or \"cosine\" with it";
                return Err((key, reason.into()));
            }
        }
        return Ok((lambda, None));
    };
    let start = match get("lambda_start") {
        None => 0.0,
        Some(v) => {
            number(v).ok_or_else(|| ("lambda_start", format!("{v} is not a number with 0 <= lambda < 1")))?
        }
    };
    let end = match get("lambda_end") {
        None => lambda.clone(),
        Some(v) => read_numbers(v).map_err(|r| ("lambda_end", r))?,
    };
    Ok((lambda, Some(Course { shape, start, end })))
}

fn read_learned(object: &Map<String, Value>) -> Result<Learned, (&'static str, String)> {
    let get = |key: &str| object.get(key).filter(|v| !v.is_null());
    for key in ["lambda_schedule", "lambda_start", "lambda_end"] {
        if get(key).is_some_and(|v| v.as_str() != Some("constant")) {
            let reason = "a learned lambda is moved by its gradient and a schedule sets it by the step: choose one of the two";
            return Err((key, reason.into()));
        }
    }
    let default = Learned::default();
    let init = match get("lambda_init") {
        None => default.init,
        Some(v) => number(v).filter(|l| *l > 0.0).ok_or_else(|| {
            (
                "lambda_init",
                format!("{v} is not a number with 0 < lambda < 1: sigmoid(theta) reaches neither end"),
            )
        })?,
    };
    let per = match get("lambda_per") {
        None => default.per,
        Some(v) => {
            word(&PER, v).ok_or_else(|| ("lambda_per", format!("{v} is none of kind, layer, module")))?
        }
    };
    Ok(Learned { init, per })
}

fn name<T: PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, v)| *v == value).map_or("", |(word, _)| word)
}

fn word<T: Copy>(words: &[(&str, T)], value: &Value) -> Option<T> {
    words.iter().find(|(word, _)| value.as_str() == Some(word)).map(|(_, v)| *v)
}

/// An f32 as the shortest decimal that gives it back, so that 0.35 is written as 0.35.
fn shortest(value: f32) -> Value {
    json!(value.to_string().parse::<f64>().unwrap_or(f64::from(value)))
}

/// The range holds for the f32, since a number just below 1 rounds to it.
fn number(value: &Value) -> Option<f32> {
    value.as_f64().filter(|l| (0.0..1.0).contains(l) && (*l as f32) < 1.0).map(|l| l as f32)
}

fn read_numbers(value: &Value) -> Result<Lambda, String> {
    const RANGE: &str =
        "must be a number with 0 <= lambda < 1, a list of one such number for each layer, or \"learned\"";
    let one = |v: &Value| number(v).ok_or_else(|| format!("{v} is not allowed: it {RANGE}"));
    match value {
        Value::Array(list) => Ok(Lambda::PerLayer(list.iter().map(one).collect::<Result<_, _>>()?)),
        other => one(other).map(Lambda::Same),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(shape: CourseShape, start: f32, end: Lambda) -> Course {
        Course { shape, start, end }
    }

    #[test]
    fn a_course_meets_both_ends_and_is_half_way_between() {
        for shape in [CourseShape::Linear, CourseShape::Cosine] {
            let up = course(shape, 0.1, Lambda::PerLayer(vec![0.7, 0.0]));
            assert_eq!(up.at(0.0), Lambda::PerLayer(vec![0.1, 0.1]));
            assert_eq!(up.at(1.0), Lambda::PerLayer(vec![0.7, 0.0]));
            let half = up.at(0.5);
            assert!((half.at(0) - 0.4).abs() < 1e-6 && (half.at(1) - 0.05).abs() < 1e-6, "{half:?}");
            // Level to the bit where both ends are one number.
            let level = course(shape, 0.35, Lambda::Same(0.35));
            assert!((0..=7).all(|i| level.at(f64::from(i) / 7.0) == Lambda::Same(0.35)));
        }
        let quarter = |shape| course(shape, 0.0, Lambda::Same(0.4)).at(0.25).at(0);
        assert!((quarter(CourseShape::Linear) - 0.1).abs() < 1e-6);
        let cosine = 0.4 * (0.5 - 0.5 * std::f64::consts::FRAC_PI_4.cos());
        assert!((f64::from(quarter(CourseShape::Cosine)) - cosine).abs() < 1e-6);
    }

    #[test]
    fn what_makes_no_sense_together_is_named() {
        let said = |value: Value| {
            let (key, reason) = read(value.as_object().expect("an object")).expect_err("is refused");
            format!("{key}: {reason}")
        };
        for (object, part) in [
            (json!({"lambda": 0.3, "lambda_start": 0.1}), "lambda_start: belongs to a lambda that moves"),
            (
                json!({"lambda": 0.3, "lambda_schedule": "constant", "lambda_start": 0.1}),
                "lambda_start: belongs",
            ),
            (json!({"lambda": 0.3, "lambda_schedule": "steps"}), "none of constant, linear, cosine"),
            (json!({"lambda": 0.3, "lambda_schedule": "linear", "lambda_start": 1}), "0 <= lambda < 1"),
            (
                json!({"lambda": 0.3, "lambda_schedule": "linear", "lambda_end": 2}),
                "lambda_end: 2 is not allowed",
            ),
            (json!({"lambda": 0.3, "lambda_init": 0.1}), "lambda_init: belongs to `lambda = \"learned\"`"),
            (json!({"lambda": "learned", "lambda_schedule": "cosine"}), "choose one of the two"),
            (json!({"lambda": "learned", "lambda_init": 0.0}), "0 < lambda < 1"),
            (json!({"lambda": "learned", "lambda_per": "head"}), "none of kind, layer, module"),
            (json!({"lambda": "lerned"}), "or \"learned\""),
        ] {
            let text = said(object.clone());
            assert!(text.contains(part), "{object}: {text}");
        }
    }
}
