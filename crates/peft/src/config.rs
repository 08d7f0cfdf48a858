//! `adapter_config.json`, and the same keys in a recipe: read strictly, written as PEFT writes them.

pub(crate) mod adapter_hub;
mod bottleneck;
mod lora;
mod reader;

pub use bottleneck::{BottleneckConfig, Form};
pub use lora::{Bias, LoraConfig};
pub use reader::did_you_mean;

use crate::lora::LoraInit;
use crate::{Error, Sibo};
use reader::Reader;
use serde_json::{Value, json};

/// What the adapted model is for (PEFT's `task_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskType {
    /// A classifier or regressor over whole rows.
    SeqCls,
    /// A causal language model.
    CausalLm,
    /// Hidden states only.
    FeatureExtraction,
}

/// What is trained.
#[derive(Debug, Clone, PartialEq)]
pub enum Method {
    /// Low-rank branches.
    Lora(LoraConfig),
    /// Bottleneck adapters.
    Bottleneck(BottleneckConfig),
    /// The classification head alone.
    Head,
    /// Every bias (arXiv 2106.10199).
    BitFit,
    /// Every tensor.
    Full,
}

/// An adapter's whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConfig {
    /// The method and its settings.
    pub method: Method,
    /// What SIBO adds; its default is the plain method.
    pub sibo: Sibo,
    /// Modules trained and saved whole.
    pub modules_to_save: Vec<String>,
    /// What the model is for.
    pub task_type: Option<TaskType>,
    /// Where the base model came from: a hint, never a proof.
    pub base_model: Option<String>,
}

/// The names by which a recipe and the command line choose a method, each with one line of what it is.
pub const METHODS: [(&str, &str); 8] = [
    ("lora", "low-rank branches beside linears: y = W x + b + (alpha / r) B A x"),
    ("houlsby", "bottleneck adapters after attention and after the FFN"),
    ("pfeiffer", "bottleneck adapters after the FFN"),
    ("parallel", "bottleneck adapters beside the FFN"),
    ("in_linear", "LLM-Adapters' bottleneck adapters inside linears"),
    ("head", "the classification head alone (a baseline)"),
    ("bitfit", "every bias (a baseline)"),
    ("full", "every tensor (a baseline)"),
];

impl Method {
    /// The method's name in `METHODS`.
    pub fn name(&self) -> &'static str {
        match self {
            Method::Lora(_) => "lora",
            Method::Bottleneck(b) => b.form.name(),
            Method::Head => "head",
            Method::BitFit => "bitfit",
            Method::Full => "full",
        }
    }

    /// Whether the method has a branch with an input, and so a place for h0.
    pub fn takes_sibo(&self) -> bool {
        matches!(self, Method::Lora(_) | Method::Bottleneck(_))
    }

    fn peft_type(&self) -> &'static str {
        match self {
            Method::Lora(_) => "LORA",
            Method::Bottleneck(_) => "BOTTLENECK",
            Method::Head => "HEAD",
            Method::BitFit => "BITFIT",
            Method::Full => "FULL",
        }
    }
}

impl AdapterConfig {
    /// A configuration with nothing beside the method.
    pub fn plain(method: Method) -> Self {
        AdapterConfig {
            method,
            sibo: Sibo::default(),
            modules_to_save: vec![],
            task_type: None,
            base_model: None,
        }
    }

    /// Reads the object of an `adapter_config.json` found in `place`.
    pub fn from_json(place: &str, value: &Value) -> Result<Self, Error> {
        let mut reader = Reader::new(place, value)?;
        let Some(kind) = reader.text("peft_type")? else {
            return Err(Error::key(
                place,
                "peft_type",
                "is missing; LORA, SIBO_LORA, BOTTLENECK and SIBO_BOTTLENECK are supported",
            ));
        };
        let (boosted, plain_kind) = match kind.strip_prefix("SIBO_") {
            Some(rest) => (true, rest),
            None => (false, kind.as_str()),
        };
        let method = match plain_kind {
            "LORA" => Method::Lora(LoraConfig::read(&mut reader)?),
            "BOTTLENECK" => Method::Bottleneck(BottleneckConfig::read(&mut reader)?),
            "HEAD" if !boosted => Method::Head,
            "BITFIT" if !boosted => Method::BitFit,
            "FULL" if !boosted => Method::Full,
            _ => {
                return Err(Error::key(
                    place,
                    "peft_type",
                    format!(
                        "{kind} is not supported; supported are LORA, SIBO_LORA, BOTTLENECK, SIBO_BOTTLENECK, HEAD, BITFIT and FULL"
                    ),
                ));
            }
        };
        let sibo = match reader.take("sibo") {
            None | Some(Value::Null) if boosted => {
                return Err(Error::key(
                    place,
                    "sibo",
                    format!("is missing, and {kind} says that lambda matters"),
                ));
            }
            None | Some(Value::Null) => Sibo::default(),
            Some(object) => Sibo::from_json(place, &object)?,
        };
        if !boosted && !sibo.is_plain() {
            return Err(Error::key(
                place,
                "peft_type",
                format!(
                    "{kind} with lambda > 0 would run as the plain method in PEFT; it must be SIBO_{kind}"
                ),
            ));
        }
        let config = AdapterConfig {
            method,
            sibo,
            modules_to_save: reader.list("modules_to_save")?.unwrap_or_default(),
            task_type: read_task_type(&mut reader)?,
            base_model: reader.text("base_model_name_or_path")?,
        };
        reader.finish()?;
        Ok(config)
    }

    /// Reads a recipe's `[adapter]` table: the keys of `adapter_config.json`, with `method` (a name of
    /// [`METHODS`]) for `peft_type` and with `sibo` free to appear beside any method that takes it.
    pub fn from_recipe(place: &str, value: &Value) -> Result<Self, Error> {
        let mut object =
            value.as_object().cloned().ok_or_else(|| Error::key(place, "adapter", "must be a table"))?;
        let name = match object.get("method") {
            None => "lora".to_string(),
            Some(Value::String(name)) => name.clone(),
            Some(other) => return Err(Error::key(place, "method", format!("{other} is not a word"))),
        };
        let kind = match name.as_str() {
            "lora" => "LORA",
            "houlsby" | "pfeiffer" | "parallel" | "in_linear" => "BOTTLENECK",
            "head" => "HEAD",
            "bitfit" => "BITFIT",
            "full" => "FULL",
            other => {
                let names: Vec<&str> = METHODS.iter().map(|m| m.0).collect();
                let hint = did_you_mean(other, &names);
                return Err(Error::key(
                    place,
                    "method",
                    format!("`{other}` is not a method{hint}; methods are {}", names.join(", ")),
                ));
            }
        };
        if kind != "BOTTLENECK" {
            object.remove("method");
        }
        let boosted = match object.get("sibo") {
            None => false,
            Some(s) if s.get("lambda_end").is_some() => {
                let reason =
                    "is a key of adapters that a run wrote; in a recipe `lambda` is where a schedule ends";
                return Err(Error::key(place, "sibo.lambda_end", reason));
            }
            Some(s) => !Sibo::from_json(place, s)?.is_plain(),
        };
        if boosted && !matches!(kind, "LORA" | "BOTTLENECK") {
            return Err(Error::Refused(format!(
                "{place}: `{name}` has no branch that could read h0, so lambda > 0 has no meaning there; SIBO boosts lora, houlsby, pfeiffer, parallel and in_linear"
            )));
        }
        let kind = if boosted { format!("SIBO_{kind}") } else { kind.to_string() };
        object.insert("peft_type".into(), kind.into());
        let config = Self::from_json(place, &Value::Object(object))?;
        match &config.method {
            Method::Lora(LoraConfig { init: LoraInit::Theirs(name), .. }) => Err(Error::key(
                place,
                "init_lora_weights",
                format!("only PEFT draws {name} initial values; true, false and \"gaussian\" are drawn here"),
            )),
            _ => Ok(config),
        }
    }

    /// The object as it is saved: exactly PEFT's keys for a plain LoRA.
    pub fn to_json(&self) -> Value {
        let mut object = serde_json::Map::new();
        match &self.method {
            Method::Lora(lora) => lora.write(&mut object),
            Method::Bottleneck(bottleneck) => bottleneck.write(&mut object),
            Method::Head | Method::BitFit | Method::Full => {}
        }
        let plain = self.sibo.is_plain();
        let kind = self.method.peft_type();
        object.insert("peft_type".into(), if plain { kind.into() } else { format!("SIBO_{kind}").into() });
        if !plain {
            object.insert("sibo".into(), self.sibo.to_json());
        }
        let saved = if self.modules_to_save.is_empty() { Value::Null } else { json!(self.modules_to_save) };
        object.insert("modules_to_save".into(), saved);
        let task = self.task_type.map(|t| match t {
            TaskType::SeqCls => "SEQ_CLS",
            TaskType::CausalLm => "CAUSAL_LM",
            TaskType::FeatureExtraction => "FEATURE_EXTRACTION",
        });
        object.insert("task_type".into(), json!(task));
        object.insert("base_model_name_or_path".into(), json!(self.base_model));
        object.insert("inference_mode".into(), json!(true));
        Value::Object(object)
    }
}

fn read_task_type(reader: &mut Reader) -> Result<Option<TaskType>, Error> {
    Ok(match reader.text("task_type")?.as_deref() {
        None => None,
        Some("SEQ_CLS") => Some(TaskType::SeqCls),
        Some("CAUSAL_LM") => Some(TaskType::CausalLm),
        Some("FEATURE_EXTRACTION") => Some(TaskType::FeatureExtraction),
        Some(other) => {
            return Err(Error::key(
                reader.place(),
                "task_type",
                format!("{other} is not supported; SEQ_CLS, CAUSAL_LM and FEATURE_EXTRACTION are"),
            ));
        }
    })
}

#[cfg(test)]
mod tests;
