//! PEFT's `LoraConfig` (0.21): the keys that are implemented, those that change no number, the rest refused.

use super::reader::{MAX_INNER, Reader};
use crate::Error;
use crate::lora::LoraInit;
use crate::targets::{LayerChoice, Targets};
use serde_json::{Map, Value, json};

/// Which biases train beside LoRA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bias {
    /// None.
    None,
    /// All of the model's.
    All,
    /// Those of the targeted linears.
    LoraOnly,
}

/// LoRA's settings; the defaults are PEFT's.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// R.
    pub r: usize,
    /// alpha.
    pub alpha: f64,
    /// Dropout on what the branch reads.
    pub dropout: f32,
    /// Scale by alpha / sqrt(r).
    pub rslora: bool,
    /// Which modules.
    pub targets: Targets,
    /// Which not.
    pub exclude: Option<Targets>,
    /// In which layers.
    pub layers: LayerChoice,
    /// Ranks by module pattern; the first that matches counts, in the file's order.
    pub rank_pattern: Vec<(String, f64)>,
    /// Alphas by module pattern.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Biases.
    pub bias: Bias,
    /// Initial values.
    pub init: LoraInit,
}

impl Default for LoraConfig {
    fn default() -> Self {
        LoraConfig {
            r: 8,
            alpha: 8.0,
            dropout: 0.0,
            rslora: false,
            targets: Targets::Default,
            exclude: None,
            layers: LayerChoice::default(),
            rank_pattern: vec![],
            alpha_pattern: vec![],
            bias: Bias::None,
            init: LoraInit::Kaiming,
        }
    }
}

/// What PEFT refuses, for it would do nothing.
fn check_layers(config: &LoraConfig, place: &str) -> Result<(), Error> {
    let LayerChoice { layers, patterns } = &config.layers;
    if !layers.is_empty() && matches!(config.targets, Targets::Pattern(_) | Targets::AllLinear) {
        let reason =
            "goes with target_modules as a list of names only; write the layers into the regular expression";
        return Err(Error::key(place, "layers_to_transform", reason));
    }
    if !patterns.is_empty() && layers.is_empty() {
        let reason = "says where a layer's number stands, and does nothing without layers_to_transform";
        return Err(Error::key(place, "layers_pattern", reason));
    }
    Ok(())
}

impl LoraConfig {
    /// s for a module with this rank and alpha.
    pub fn scale(&self, rank: usize, alpha: f64) -> f32 {
        let r = rank as f64;
        (alpha / if self.rslora { r.sqrt() } else { r }) as f32
    }

    pub(super) fn read(reader: &mut Reader) -> Result<Self, Error> {
        let default = LoraConfig::default();
        let rank_pattern = reader.patterns("rank_pattern", "numbers above zero", |n| n > 0.0)?;
        let too_large = |r: f64| r > MAX_INNER as f64;
        if let Some((pattern, _)) = rank_pattern.iter().find(|(_, r)| r.fract() != 0.0 || too_large(*r)) {
            return Err(Error::key(
                reader.place(),
                "rank_pattern",
                format!("the rank of `{pattern}` must be a whole number, at most {MAX_INNER}"),
            ));
        }
        let config = LoraConfig {
            r: reader.inner_size("r")?.unwrap_or(default.r),
            alpha: reader.number("lora_alpha")?.unwrap_or(default.alpha),
            dropout: reader.probability("lora_dropout")?,
            rslora: reader.flag("use_rslora")?,
            targets: read_targets(reader, "target_modules")?.unwrap_or(Targets::Default),
            exclude: read_targets(reader, "exclude_modules")?,
            layers: LayerChoice {
                layers: reader.sizes("layers_to_transform")?,
                patterns: read_patterns(reader)?,
            },
            rank_pattern,
            alpha_pattern: reader.patterns("alpha_pattern", "numbers", |_| true)?,
            bias: read_bias(reader)?,
            init: read_init(reader)?,
        };
        check_layers(&config, reader.place())?;
        // `fan_in_fan_out` is for GPT-2's Conv1D (PEFT resets it on a linear); the others are read only
        // beside an initialisation or a variant that is refused by its own key.
        reader.ignore(&[
            "fan_in_fan_out",
            "megatron_core",
            "qalora_group_size",
            "loftq_config",
            "eva_config",
            "corda_config",
            "lora_ga_config",
            "runtime_config",
        ]);
        Ok(config)
    }

    pub(super) fn write(&self, object: &mut Map<String, Value>) {
        let patterns = |list: &[(String, f64)]| -> Value {
            Value::Object(list.iter().map(|(k, v)| (k.clone(), whole_if_possible(*v))).collect())
        };
        let layers = if self.layers.layers.is_empty() { Value::Null } else { json!(self.layers.layers) };
        let layer_patterns =
            if self.layers.patterns.is_empty() { Value::Null } else { json!(self.layers.patterns) };
        let init = match self.init {
            LoraInit::Kaiming => json!(true),
            LoraInit::Gaussian => json!("gaussian"),
            LoraInit::Random => json!(false),
            LoraInit::Theirs(name) => json!(name),
        };
        let bias = match self.bias {
            Bias::None => "none",
            Bias::All => "all",
            Bias::LoraOnly => "lora_only",
        };
        let entries = [
            ("r", json!(self.r)),
            ("lora_alpha", whole_if_possible(self.alpha)),
            (
                "lora_dropout",
                json!(self.dropout.to_string().parse::<f64>().unwrap_or(f64::from(self.dropout))),
            ),
            ("use_rslora", json!(self.rslora)),
            ("target_modules", write_targets(&self.targets)),
            ("exclude_modules", self.exclude.as_ref().map_or(Value::Null, write_targets)),
            ("layers_to_transform", layers),
            ("layers_pattern", layer_patterns),
            ("rank_pattern", patterns(&self.rank_pattern)),
            ("alpha_pattern", patterns(&self.alpha_pattern)),
            ("bias", json!(bias)),
            ("init_lora_weights", init),
            ("fan_in_fan_out", json!(false)),
            ("use_dora", json!(false)),
        ];
        object.extend(entries.map(|(k, v)| (k.to_string(), v)));
    }
}

fn whole_if_possible(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

pub(super) fn read_targets(reader: &mut Reader, key: &str) -> Result<Option<Targets>, Error> {
    Ok(match reader.take(key) {
        None | Some(Value::Null) => None,
        Some(Value::String(s)) if s.eq_ignore_ascii_case("all-linear") => Some(Targets::AllLinear),
        Some(Value::String(s)) => Some(Targets::Pattern(s)),
        Some(Value::Array(list)) => {
            let names: Option<Vec<String>> = list.iter().map(|v| v.as_str().map(String::from)).collect();
            let names = names.ok_or_else(|| Error::key(reader.place(), key, "must hold module names"))?;
            (!names.is_empty() || key == "target_modules").then_some(Targets::List(names))
        }
        Some(v) => {
            return Err(Error::key(
                reader.place(),
                key,
                format!("{v} is neither a list of names nor a string"),
            ));
        }
    })
}

pub(super) fn write_targets(targets: &Targets) -> Value {
    match targets {
        Targets::Default => Value::Null,
        Targets::List(list) => json!(list),
        Targets::Pattern(pattern) => json!(pattern),
        Targets::AllLinear => json!("all-linear"),
    }
}

fn read_patterns(reader: &mut Reader) -> Result<Vec<String>, Error> {
    match reader.take("layers_pattern") {
        None | Some(Value::Null) => Ok(vec![]),
        Some(Value::String(s)) if s.is_empty() => Ok(vec![]),
        Some(Value::String(s)) => Ok(vec![s]),
        Some(Value::Array(list)) => list
            .iter()
            .map(|v| v.as_str().map(String::from))
            .collect::<Option<_>>()
            .ok_or_else(|| Error::key(reader.place(), "layers_pattern", "must hold strings")),
        Some(v) => Err(Error::key(reader.place(), "layers_pattern", format!("{v} is not a string"))),
    }
}

fn read_bias(reader: &mut Reader) -> Result<Bias, Error> {
    match reader.text("bias")?.as_deref() {
        None | Some("none") => Ok(Bias::None),
        Some("all") => Ok(Bias::All),
        Some("lora_only") => Ok(Bias::LoraOnly),
        Some(other) => {
            Err(Error::key(reader.place(), "bias", format!("`{other}` is none of none, all, lora_only")))
        }
    }
}

fn read_init(reader: &mut Reader) -> Result<LoraInit, Error> {
    let value = reader.take("init_lora_weights");
    let theirs = LoraInit::THEIRS.into_iter().find(|name| value.as_ref().is_some_and(|v| v == name));
    match value {
        None | Some(Value::Null | Value::Bool(true)) => Ok(LoraInit::Kaiming),
        Some(Value::Bool(false)) => Ok(LoraInit::Random),
        Some(Value::String(s)) if s == "gaussian" => Ok(LoraInit::Gaussian),
        Some(v) => theirs.map(LoraInit::Theirs).ok_or_else(|| {
            Error::key(
                reader.place(),
                "init_lora_weights",
                format!(
                    "{v} is not supported (it may change the frozen weights); true, false and \"gaussian\" are, and folders \
                     of PEFT's with \"orthogonal\" or \"eva\" are read"
                ),
            )
        }),
    }
}
