//! `config.json`, read strictly: every key that changes a number is implemented, or refused by name
//! unless it has transformers' default.

use crate::arch::{Arch, HeadKind};
use crate::rope::{RopeScaling, RopeSpec};
use crate::{Error, backbone};
use serde_json::{Map, Value};
use sibo_kernels::activation::Activation;
use sibo_kernels::rope::RopeStyle;
use std::path::Path;

/// The base of rotary positions where nothing names one.
const THETA: f64 = 10_000.0;

/// Keys that describe a file, a task or a default of generation, and change no number of the model.
const NO_NUMBER: [&str; 34] = [
    "_name_or_path",
    "architectures",
    "attn_implementation",
    "_attn_implementation",
    "auto_map",
    "bos_token_id",
    "custom_pipelines",
    "dtype",
    "eos_token_id",
    "finetuning_task",
    "gradient_checkpointing",
    "id2label",
    "label2id",
    "model_type",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "return_dict",
    "sep_token_id",
    "decoder_start_token_id",
    "task_specific_params",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "use_cache",
    "use_bfloat16",
    "is_llama_config",
    "rope_interleaved",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
];

/// Takes keys out of `config.json` one by one.
pub(crate) struct ConfigReader {
    place: String,
    model_type: String,
    rest: Map<String, Value>,
    architecture: Option<String>,
}

/// A model's structure and what was not understood of its configuration.
pub(crate) struct ReadConfig {
    /// The structure.
    pub arch: Arch,
    /// Keys that nothing here knows; they are listed once.
    pub unknown: Vec<String>,
}

/// Reads `folder/config.json`.
pub(crate) fn read(folder: &Path) -> Result<ReadConfig, Error> {
    let path = folder.join("config.json");
    let value = sibo_files::json::read(&path)?;
    read_value(&path.display().to_string(), value)
}

/// Reads an object found in `place`.
pub(crate) fn read_value(place: &str, value: Value) -> Result<ReadConfig, Error> {
    let Value::Object(rest) = value else { return Err(Error::key(place, "(top)", "must be a JSON object")) };
    let Some(model_type) = rest.get("model_type").and_then(Value::as_str).map(String::from) else {
        let known = backbone::model_types().join(", ");
        return Err(Error::key(place, "model_type", format!("is missing; supported are {known}")));
    };
    let Some(backbone) = backbone::of(&model_type) else {
        let known = backbone::model_types().join(", ");
        return Err(Error::key(
            place,
            "model_type",
            format!("`{model_type}` is not supported; supported are {known}"),
        ));
    };
    let architecture =
        rest.get("architectures").and_then(|a| a.get(0)).and_then(Value::as_str).map(String::from);
    let mut reader = ConfigReader { place: place.into(), model_type, rest, architecture };
    if let Some(quantised) = reader.rest.remove("quantization_config").filter(|q| !q.is_null())
        && quantised.get("quant_method").and_then(Value::as_str) != Some(crate::layout::METHOD)
    {
        return Err(reader.error(
            "quantization_config",
            "weights quantised by another library are not read; use the original model (`sibo quantize` makes it small)",
        ));
    }
    let arch = (backbone.read)(&mut reader)?;
    let unknown = reader.leftovers();
    Ok(ReadConfig { arch, unknown })
}

impl ConfigReader {
    pub(crate) fn model_type(&self) -> &str {
        &self.model_type
    }

    pub(crate) fn error(&self, key: &str, reason: impl Into<String>) -> Error {
        Error::key(&self.place, key, reason)
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.rest.remove(key).filter(|v| !v.is_null())
    }

    pub(crate) fn typed<T>(
        &mut self,
        key: &str,
        what: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        match self.take(key) {
            None => Ok(None),
            Some(v) => read(&v).map(Some).ok_or_else(|| self.error(key, format!("{v} is not {what}"))),
        }
    }

    pub(crate) fn ignore(&mut self, key: &str) {
        self.rest.remove(key);
    }

    pub(crate) fn optional_size(&mut self, key: &str) -> Result<Option<usize>, Error> {
        self.typed(key, "a whole number from 1 to 2^31", |v| {
            v.as_u64().filter(|n| (1..1 << 31).contains(n)).map(|n| n as usize)
        })
    }

    pub(crate) fn size(&mut self, key: &str, default: usize) -> Result<usize, Error> {
        Ok(self.optional_size(key)?.unwrap_or(default))
    }

    /// A key whose null means something else than its absence.
    pub(crate) fn nullable_size(&mut self, key: &str, absent: Option<usize>) -> Result<Option<usize>, Error> {
        if self.rest.contains_key(key) { self.optional_size(key) } else { Ok(absent) }
    }

    pub(crate) fn number(&mut self, key: &str, default: f64) -> Result<f64, Error> {
        Ok(self.typed(key, "a number", Value::as_f64)?.unwrap_or(default))
    }

    /// A norm's epsilon, or the like: zero or more.
    pub(crate) fn not_negative(&mut self, key: &str, default: f64) -> Result<f64, Error> {
        let found = self.typed(key, "a number of zero or more", |v| v.as_f64().filter(|x| *x >= 0.0))?;
        Ok(found.unwrap_or(default))
    }

    pub(crate) fn optional_probability(&mut self, key: &str) -> Result<Option<f32>, Error> {
        // The range holds for the f32, since a number just below 1 rounds to it.
        self.typed(key, "a probability with 0 <= p < 1", |v| {
            v.as_f64().map(|p| p as f32).filter(|p| (0.0..1.0).contains(p))
        })
    }

    pub(crate) fn probability(&mut self, key: &str, default: f32) -> Result<f32, Error> {
        Ok(self.optional_probability(key)?.unwrap_or(default))
    }

    pub(crate) fn flag(&mut self, key: &str, default: bool) -> Result<bool, Error> {
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    pub(crate) fn token(&mut self, key: &str, default: Option<u32>) -> Result<Option<u32>, Error> {
        if !self.rest.contains_key(key) {
            return Ok(default);
        }
        // Some published configurations say -1 for "none".
        let id = self.typed(key, "a token id", |v| v.as_i64().filter(|id| *id <= i64::from(u32::MAX)))?;
        Ok(id.and_then(|id| u32::try_from(id).ok()))
    }

    /// The row of a table of `rows` that a padding token has: as for torch's `padding_idx`, -1 is the last one.
    pub(crate) fn padding(&mut self, rows: usize, absent: Option<u32>) -> Result<Option<u32>, Error> {
        let last = self.rest.get("pad_token_id").and_then(Value::as_i64) == Some(-1);
        let id = self.token("pad_token_id", absent)?;
        Ok(if last { u32::try_from(rows - 1).ok() } else { id })
    }

    /// Refuses any other word than `only`.
    pub(crate) fn only(&mut self, key: &str, only: &str) -> Result<(), Error> {
        match self.take(key) {
            None => Ok(()),
            Some(v) if v.as_str() == Some(only) => Ok(()),
            Some(v) => Err(self.error(key, format!("{v} is not implemented; \"{only}\" is"))),
        }
    }

    pub(crate) fn only_false(&mut self, key: &str) -> Result<(), Error> {
        if self.flag(key, false)? {
            Err(self.error(key, "true is not implemented; false is"))
        } else {
            Ok(())
        }
    }

    pub(crate) fn only_default(&mut self, key: &str, default: f64) -> Result<(), Error> {
        let value = self.number(key, default)?;
        if value == default {
            Ok(())
        } else {
            Err(self.error(key, format!("{value} is not implemented; {default} is")))
        }
    }

    /// Whether the list at `key` holds `word`.
    /// Whether a key says anything.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.rest.get(key).is_some_and(|v| !v.is_null())
    }

    pub(crate) fn mentions(&mut self, key: &str, word: &str) -> bool {
        self.take(key)
            .and_then(|v| v.as_array().map(|l| l.iter().any(|x| x.as_str() == Some(word))))
            .unwrap_or(false)
    }

    pub(crate) fn activation(&mut self, key: &str, default: &str) -> Result<Activation, Error> {
        let word = self.typed(key, "a word", |v| v.as_str().map(String::from))?.unwrap_or(default.into());
        Ok(match word.as_str() {
            "gelu" => Activation::GeluErf,
            "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "silu" | "swish" => Activation::Silu,
            "relu" => Activation::Relu,
            "tanh" => Activation::Tanh,
            other => {
                return Err(self.error(key, format!("`{other}` is not implemented; gelu, gelu_new, gelu_pytorch_tanh, silu, relu and tanh are")));
            }
        })
    }

    pub(crate) fn encoder_head(&mut self) -> Result<HeadKind, Error> {
        if self.take("pruned_heads").is_some_and(|v| v.as_object().is_none_or(|o| !o.is_empty())) {
            return Err(self.error("pruned_heads", "pruned heads are not implemented; an empty map is"));
        }
        let labels = self.classes();
        self.check_problem(labels)?;
        match self.architecture.clone().unwrap_or_default().as_str() {
            "" => Ok(HeadKind::None),
            a if a.ends_with("ForSequenceClassification") => Ok(HeadKind::Classes(labels)),
            a if a.ends_with("Model") || a.ends_with("ForMaskedLM") || a.ends_with("ForPreTraining") => Ok(HeadKind::None),
            other => Err(self.error(
                "architectures",
                format!("{other} is not supported; the bare model, ForMaskedLM (read as the bare model) and ForSequenceClassification are"),
            )),
        }
    }

    pub(crate) fn decoder_head(&mut self) -> Result<HeadKind, Error> {
        match self.architecture.clone().unwrap_or_default().as_str() {
            "" => Ok(HeadKind::CausalLm),
            a if a.ends_with("ForCausalLM") => Ok(HeadKind::CausalLm),
            a if a.ends_with("Model") => Ok(HeadKind::None),
            other => Err(self.error(
                "architectures",
                format!("{other} is not supported; ForCausalLM and the bare model are"),
            )),
        }
    }

    /// transformers keeps the number of classes as the length of `id2label`; two by default.
    fn classes(&self) -> usize {
        let listed = self.rest.get("id2label").and_then(Value::as_object).map(Map::len);
        let counted = self.rest.get("num_labels").and_then(Value::as_u64).map(|n| n as usize);
        listed.or(counted).unwrap_or(2)
    }

    fn check_problem(&mut self, labels: usize) -> Result<(), Error> {
        let reason = match (self.take("problem_type").as_ref().and_then(Value::as_str), labels) {
            (Some("multi_label_classification"), _) => {
                "multi_label_classification is not implemented; one label a row or one number is".into()
            }
            (Some("regression"), 2..) => {
                format!("regression of {labels} numbers is not implemented; of one (num_labels 1) it is")
            }
            (Some("single_label_classification"), 1) => {
                "single_label_classification of one label decides nothing; one number is a regression".into()
            }
            _ => return Ok(()),
        };
        Err(self.error("problem_type", reason))
    }

    /// The object about rotary positions, and its key. As transformers 5 reads both: the older word counts, and the newer
    /// one's rope_theta is not looked at.
    fn rope_object(&mut self, theta: Option<f64>) -> Result<Option<(&'static str, Value)>, Error> {
        let newer = self.take("rope_parameters");
        let older = self.take("rope_scaling").filter(|v| v.as_object().is_none_or(|o| !o.is_empty()));
        if let (Some(older), Some(newer)) = (&older, &newer) {
            let of = |v: &Value| v.get("rope_theta").and_then(Value::as_f64);
            let (own, lost) = (of(older).or(theta).unwrap_or(THETA), of(newer));
            if lost.is_some_and(|lost| lost != own) {
                let reason = format!(
                    "stands beside rope_parameters with another rope_theta ({own} here); write all of it into one of them"
                );
                return Err(self.error("rope_scaling", reason));
            }
        }
        let older = older.map(|object| ("rope_scaling", object));
        Ok(older.or(newer.map(|object| ("rope_parameters", object))))
    }

    /// `rope_parameters` (transformers 5) or `rope_theta` with `rope_scaling` (4).
    pub(crate) fn rope(
        &mut self,
        style: RopeStyle,
        head_dim: usize,
        max_positions: usize,
    ) -> Result<RopeSpec, Error> {
        if !head_dim.is_multiple_of(2) {
            return Err(
                self.error("head_dim", format!("{head_dim} must be even: rotary positions turn pairs"))
            );
        }
        let theta = self.typed("rope_theta", "a number above zero", |v| v.as_f64().filter(|t| *t > 0.0))?;
        let beside = self.optional_size("original_max_position_embeddings")?;
        let Some((key, object)) = self.rope_object(theta)? else {
            return Ok(RopeSpec {
                style,
                rotary_dim: head_dim,
                theta: theta.unwrap_or(THETA),
                scaling: RopeScaling::None,
            });
        };
        if !object.is_object() {
            return Err(self.error(key, format!("{object} is not an object")));
        }
        let number = |name: &str| object.get(name).and_then(Value::as_f64);
        let need = |name: &str| match number(name) {
            Some(value) if value > 0.0 => Ok(value),
            Some(value) => Err(self.error(key, format!("`{name}` is {value}; it must be above zero"))),
            None => Err(self.error(key, format!("`{name}` is missing or not a number"))),
        };
        let theta = match object.get("rope_theta") {
            None | Some(Value::Null) => theta.unwrap_or(THETA),
            Some(_) => need("rope_theta")?,
        };
        if number("partial_rotary_factor").is_some_and(|f| f != 1.0) {
            return Err(self.error(key, "partial_rotary_factor is not implemented for this family; 1 is"));
        }
        // The word beside the object goes before the one in it, as for transformers.
        let within = number("original_max_position_embeddings").map(|n| n as usize);
        let original = beside.or(within).unwrap_or(max_positions);
        let named = |name: &str| object.get(name).filter(|v| !v.is_null());
        let kind = named("rope_type").or(named("type"));
        if let Some(other) = kind.filter(|kind| !kind.is_string()) {
            return Err(self.error(key, format!("the type is {other}, not a word")));
        }
        let scaling = match kind.and_then(Value::as_str).unwrap_or("default") {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: need("factor")? },
            "dynamic" => RopeScaling::Dynamic { factor: need("factor")?, original: max_positions },
            "llama3" => {
                let (low, high) = (need("low_freq_factor")?, need("high_freq_factor")?);
                if high <= low {
                    return Err(self.error(
                        key,
                        format!("`high_freq_factor` {high} must be above `low_freq_factor` {low}"),
                    ));
                }
                RopeScaling::Llama3 { factor: need("factor")?, low, high, original }
            }
            other => {
                return Err(self.error(
                    key,
                    format!("type `{other}` is not implemented; default, linear, dynamic and llama3 are"),
                ));
            }
        };
        Ok(RopeSpec { style, rotary_dim: head_dim, theta, scaling })
    }

    /// What remains and might matter: anything that is not null, false, empty or known to change no number.
    fn leftovers(&self) -> Vec<String> {
        let empty = |v: &Value| match v {
            Value::Null | Value::Bool(false) => true,
            Value::Array(a) => a.is_empty(),
            Value::Object(o) => o.is_empty(),
            Value::String(s) => s.is_empty(),
            _ => false,
        };
        self.rest
            .iter()
            .filter(|(key, value)| !NO_NUMBER.contains(&key.as_str()) && !empty(value))
            .map(|(key, _)| key.clone())
            .collect()
    }
}

/// Token ids that end a row.
pub type EosIds = Vec<u32>;

/// `eos_token_id` of `generation_config.json`, else of `config.json`: one id, a list, or none.
pub fn read_eos(folder: &Path) -> Result<EosIds, Error> {
    for file in ["generation_config.json", "config.json"] {
        let path = folder.join(file);
        if !path.exists() {
            continue;
        }
        let value = sibo_files::json::read(&path)?;
        let ids = |v: &Value| -> Option<Vec<u32>> {
            match v {
                Value::Array(list) => list.iter().map(|x| x.as_u64().map(|n| n as u32)).collect(),
                single => single.as_u64().map(|n| vec![n as u32]),
            }
        };
        match value.get("eos_token_id") {
            None | Some(Value::Null) => {}
            Some(v) => {
                let place = path.display().to_string();
                return ids(v).ok_or_else(|| {
                    Error::key(
                        &place,
                        "eos_token_id",
                        format!("{v} is neither a token id nor a list of them"),
                    )
                });
            }
        }
    }
    Ok(vec![])
}
