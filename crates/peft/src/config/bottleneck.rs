//! The settings of bottleneck adapters (trace.md, "Bottleneck adapters").

use super::lora::{read_targets, write_targets};
use super::reader::Reader;
use crate::Error;
use crate::bottleneck::AdapterInit;
use crate::targets::Targets;
use serde_json::{Map, Value, json};
use sibo_kernels::activation::Activation;

/// Where the adapters stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In series after attention and after the FFN.
    Houlsby,
    /// In series after the FFN.
    Pfeiffer,
    /// Beside the FFN.
    Parallel,
    /// Inside linears.
    InLinear,
}

impl Form {
    /// The name in files and recipes.
    pub fn name(self) -> &'static str {
        match self {
            Form::Houlsby => "houlsby",
            Form::Pfeiffer => "pfeiffer",
            Form::Parallel => "parallel",
            Form::InLinear => "in_linear",
        }
    }
}

/// M, given directly or as a fraction of the width.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Size {
    /// `bottleneck_size`.
    Units(usize),
    /// `reduction_factor`.
    Fraction(f64),
}

/// A bottleneck adapter's settings.
#[derive(Debug, Clone, PartialEq)]
pub struct BottleneckConfig {
    /// Where.
    pub form: Form,
    /// How wide.
    pub size: Size,
    /// f.
    pub activation: Activation,
    /// s.
    pub scaling: f32,
    /// Initial values.
    pub init: AdapterInit,
    /// Dropout on what the branch reads,
    pub dropout: f32,
    /// or, as adapter-hub has it, on what the branch gives.
    pub dropout_after_up: bool,
    /// adapter-hub's option, for `houlsby` and `pfeiffer`: the adapter reads the residual sum behind its sub-layer, after
    /// the norm where one follows, and not the sub-layer's output; what it gives joins the sum.
    pub original_ln_before: bool,
    /// `in_linear` only: which linears; the family's own choice by default.
    pub targets: Targets,
}

/// adapter-hub's usual reduction, where neither size nor factor is given.
const DEFAULT_REDUCTION: f64 = 16.0;

/// A bottleneck may be wider than the model, but not without end.
const LEAST_REDUCTION: f64 = 0.01;

impl BottleneckConfig {
    /// A form with the defaults: reduction 16, tanh (the paper's), scaling 1, init `bert`, no dropout.
    pub fn new(form: Form) -> Self {
        BottleneckConfig {
            form,
            size: Size::Fraction(DEFAULT_REDUCTION),
            activation: Activation::Tanh,
            scaling: 1.0,
            init: AdapterInit::Bert,
            dropout: 0.0,
            dropout_after_up: false,
            original_ln_before: false,
            targets: Targets::Default,
        }
    }

    /// M for a model of this width.
    pub fn units(&self, width: usize) -> usize {
        match self.size {
            Size::Units(units) => units,
            Size::Fraction(factor) => ((width as f64 / factor) as usize).max(1),
        }
    }

    pub(super) fn read(reader: &mut Reader) -> Result<Self, Error> {
        let place = reader.place().to_string();
        let form = match reader.text("method")?.as_deref() {
            Some("houlsby") => Form::Houlsby,
            Some("pfeiffer") => Form::Pfeiffer,
            Some("parallel") => Form::Parallel,
            Some("in_linear") => Form::InLinear,
            other => {
                let found = other.map_or("is missing".into(), |o| format!("`{o}` is not a form"));
                return Err(Error::key(
                    &place,
                    "method",
                    format!("{found}; it is houlsby, pfeiffer, parallel or in_linear"),
                ));
            }
        };
        let mut config = BottleneckConfig::new(form);
        let units = reader.inner_size("bottleneck_size")?;
        let factor = reader.number("reduction_factor")?;
        config.size = match (units, factor) {
            (Some(_), Some(_)) => {
                return Err(Error::key(
                    &place,
                    "reduction_factor",
                    "give either bottleneck_size or reduction_factor, not both",
                ));
            }
            (Some(units), None) => Size::Units(units),
            (None, Some(factor)) if factor >= LEAST_REDUCTION => Size::Fraction(factor),
            (None, Some(_)) => {
                let reason = format!("must be at least {LEAST_REDUCTION}");
                return Err(Error::key(&place, "reduction_factor", reason));
            }
            (None, None) => config.size,
        };
        if let Some(word) = reader.text("non_linearity")? {
            config.activation = activation(&word).ok_or_else(|| {
                Error::key(
                    &place,
                    "non_linearity",
                    format!("`{word}` is not supported; tanh, relu, swish and gelu are"),
                )
            })?;
        }
        if let Some(scaling) = reader.number("scaling")? {
            config.scaling = scaling as f32;
        }
        config.init = match reader.text("init")?.as_deref() {
            None | Some("bert") => AdapterInit::Bert,
            Some("mam_adapter") => AdapterInit::MamAdapter,
            Some(other) => {
                return Err(Error::key(&place, "init", format!("`{other}` is neither bert nor mam_adapter")));
            }
        };
        config.dropout = reader.probability("dropout")?;
        config.dropout_after_up = reader.flag("dropout_after_up")?;
        config.original_ln_before = reader.flag("original_ln_before")?;
        if config.original_ln_before && !matches!(form, Form::Houlsby | Form::Pfeiffer) {
            return Err(Error::key(
                &place,
                "original_ln_before",
                format!("has no meaning for {}; it says what houlsby and pfeiffer read", form.name()),
            ));
        }
        if let Some(targets) = read_targets(reader, "target_modules")? {
            if form != Form::InLinear {
                return Err(Error::key(
                    &place,
                    "target_modules",
                    format!("has no meaning for {}, which sits at sub-layers", form.name()),
                ));
            }
            config.targets = targets;
        }
        Ok(config)
    }

    pub(super) fn write(&self, object: &mut Map<String, Value>) {
        let (size_key, size) = match self.size {
            Size::Units(units) => ("bottleneck_size", json!(units)),
            Size::Fraction(factor) => ("reduction_factor", json!(factor)),
        };
        let number = |x: f32| json!(x.to_string().parse::<f64>().unwrap_or(f64::from(x)));
        let init = if self.init == AdapterInit::Bert { "bert" } else { "mam_adapter" };
        let entries = [
            ("method", json!(self.form.name())),
            (size_key, size),
            ("non_linearity", json!(word(self.activation))),
            ("scaling", number(self.scaling)),
            ("init", json!(init)),
            ("dropout", number(self.dropout)),
        ];
        object.extend(entries.map(|(k, v)| (k.to_string(), v)));
        for (key, on) in
            [("dropout_after_up", self.dropout_after_up), ("original_ln_before", self.original_ln_before)]
        {
            if on {
                object.insert(key.into(), json!(true));
            }
        }
        if self.targets != Targets::Default {
            object.insert("target_modules".into(), write_targets(&self.targets));
        }
    }
}

/// The name of an adapter's activation; LLM-Adapters and adapter-hub have the same names.
pub(super) fn word(activation: Activation) -> &'static str {
    match activation {
        Activation::Relu => "relu",
        Activation::Silu => "swish",
        Activation::GeluErf | Activation::GeluTanh => "gelu",
        Activation::Tanh => "tanh",
    }
}

pub(super) fn activation(word: &str) -> Option<Activation> {
    Some(match word {
        "tanh" => Activation::Tanh,
        "relu" => Activation::Relu,
        "swish" | "silu" => Activation::Silu,
        "gelu" => Activation::GeluErf,
        _ => return None,
    })
}
