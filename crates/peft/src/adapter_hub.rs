//! Folders of the Python package `adapters` (adapter-hub): `adapter_config.json`, `adapter.safetensors`, and perhaps a
//! head in `head_config.json` and `model_head.safetensors`. Its names of tensors, and a folder written for it.

mod write;

pub use write::{Target, save};

use crate::adapter::KEY_PREFIX;
use crate::config::{Form, adapter_hub as options};
use crate::folder::CONFIG_FILE;
use crate::{AdapterConfig, Error, Method, ModelShape, Module, ModuleKind, Site, TaskType};
use serde_json::{Value, json};
use sibo_files::TensorFile;
use std::collections::BTreeMap;
use std::path::Path;

/// The adapter's tensors.
pub const TENSORS_FILE: &str = "adapter.safetensors";
/// The head's tensors.
pub const HEAD_TENSORS_FILE: &str = "model_head.safetensors";
/// The head's form.
pub const HEAD_CONFIG_FILE: &str = "head_config.json";

/// The version whose files these are.
const VERSION: &str = "adapters.1.3.0";

/// Where adapters hang in a layer: (attention, FFN) in models with BERT's names, and in all others.
const HOLDERS: [(&str, &str); 2] =
    [("attention.output", "output"), ("attention_adapters", "output_adapters")];

/// Places of the two linears in its classification head of two layers: dropout, linear, tanh, dropout, linear.
const HEAD_LINEARS: [usize; 2] = [1, 4];

/// Whether this is the `adapter_config.json` of an adapter-hub folder.
pub(crate) fn is_config(value: &Value) -> bool {
    value.get("peft_type").is_none() && value.get("config").is_some() && value.get("hidden_size").is_some()
}

/// A head that lies with the adapter.
#[derive(Debug)]
enum Head {
    /// The model's own: its tensors have the model's names.
    Own,
    /// adapter-hub's of two linears with a tanh between them, under this path.
    Two(String),
}

/// What such a folder needs to find its tensors' places.
#[derive(Debug)]
pub(crate) struct Hub {
    form: Form,
    /// The adapter's name, which stands in every key.
    name: String,
    head: Option<Head>,
    /// The head's tensors.
    pub(crate) head_file: Option<TensorFile>,
}

impl Hub {
    /// Reads everything but the values.
    pub(crate) fn open(path: &Path, value: &Value) -> Result<(Self, AdapterConfig, TensorFile), Error> {
        let place = path.join(CONFIG_FILE).display().to_string();
        let file = open_tensors(path, TENSORS_FILE, "pytorch_adapter.bin")?;
        let name = value.get("name").and_then(Value::as_str).unwrap_or_default().to_string();
        let width = value.get("hidden_size").and_then(Value::as_u64).unwrap_or(0) as usize;
        let down: Vec<usize> = file
            .shapes()
            .iter()
            .filter(|(key, shape)| key.contains(".adapter_down.") && shape.len() == 2)
            .map(|(_, shape)| shape[0])
            .collect();
        let units = down.first().copied().unwrap_or(0);
        if down.iter().any(|u| *u != units) {
            let reason = "gives layers bottlenecks of different sizes; here they are all of one size";
            return Err(Error::key(&place, "config.reduction_factor", reason));
        }
        let config = value.get("config").unwrap_or(&Value::Null);
        if config.is_string() {
            let reason =
                "is only a name; load the adapter in `adapters` and save it again, which writes its options";
            return Err(Error::key(&place, "config", reason));
        }
        let bottleneck = options::read(&place, config, width, units.max(1))?;
        let form = bottleneck.form;
        let mut config = AdapterConfig::plain(Method::Bottleneck(bottleneck));
        config.base_model = value.get("model_name").and_then(Value::as_str).map(String::from);
        config.base_model = config.base_model.filter(|base| !base.is_empty());
        let mut hub = Hub { form, name, head: None, head_file: None };
        if path.join(HEAD_CONFIG_FILE).exists() {
            hub.open_head(path, &mut config)?;
        }
        Ok((hub, config, file))
    }

    fn open_head(&mut self, path: &Path, config: &mut AdapterConfig) -> Result<(), Error> {
        let place = path.join(HEAD_CONFIG_FILE);
        let value = sibo_files::json::read(&place)?;
        let file = open_tensors(path, HEAD_TENSORS_FILE, "pytorch_model_head.bin")?;
        let place = place.display().to_string();
        self.head = Some(match value.get("config").unwrap_or(&Value::Null) {
            Value::Null => {
                let mut modules: Vec<String> =
                    file.shapes().keys().filter_map(|k| Some(k.split_once('.')?.0.to_string())).collect();
                modules.dedup();
                let causal = modules.iter().any(|m| m == "lm_head");
                config.task_type = Some(if causal { TaskType::CausalLm } else { TaskType::SeqCls });
                config.modules_to_save = modules;
                Head::Own
            }
            head => {
                check_head(&place, head)?;
                config.task_type = Some(TaskType::SeqCls);
                let name = value.get("name").and_then(Value::as_str).unwrap_or(&self.name);
                Head::Two(format!("heads.{name}"))
            }
        });
        self.head_file = Some(file);
        Ok(())
    }

    /// The number of classes of the head.
    pub(crate) fn classes(&self) -> Option<usize> {
        let shapes = self.head_file.as_ref()?.shapes();
        let last = match self.head.as_ref()? {
            Head::Two(path) => format!("{path}.{}.weight", HEAD_LINEARS[1]),
            Head::Own => ["classifier.out_proj.weight", "classifier.weight"]
                .into_iter()
                .find(|key| shapes.contains_key(*key))?
                .to_string(),
        };
        shapes.get(&last).and_then(|shape| shape.first().copied())
    }

    /// Modules beside the classification head that train and are saved whole, on this model.
    pub(crate) fn modules_to_save(&self, shape: &ModelShape) -> Vec<String> {
        match (&self.head, head_linears(shape)) {
            (Some(Head::Two(_)), Some(pair)) => {
                let mut modules: Vec<String> =
                    pair.iter().filter_map(|l| Some(l.path.rsplit_once('.')?.0.to_string())).collect();
                modules.dedup();
                modules
            }
            _ => vec![],
        }
    }

    /// This crate's key for each of the folder's, on this model. A key that has no place keeps its own name, so that
    /// filling the parameters reports it.
    pub(crate) fn keys(&self, shape: &ModelShape, theirs: &[String]) -> BTreeMap<String, String> {
        let ours = |key: &String| self.branch_key(shape, key).or_else(|| self.head_key(shape, key));
        theirs.iter().map(|key| (ours(key).unwrap_or_else(|| key.clone()), key.clone())).collect()
    }

    /// `encoder.layer.2.output.adapters.NAME.adapter_up.bias`, with or without the model's own prefix.
    fn branch_key(&self, shape: &ModelShape, key: &str) -> Option<String> {
        let (holder, rest) = key.split_once(".adapters.")?;
        let leaf = rest.strip_prefix(&self.name)?.strip_prefix('.')?;
        let ends = HOLDERS
            .iter()
            .flat_map(|(attention, ffn)| [(*attention, "attention_adapter"), (*ffn, "ffn_adapter")]);
        // `attention.output` also ends in `output`: what stands before must be the layer's number.
        let (layer, name) = ends
            .filter_map(|(end, name)| Some((holder.strip_suffix(end)?.strip_suffix('.')?, name)))
            .find_map(|(layer, name)| Some((layer.rsplit('.').next()?.parse::<usize>().ok()?, name)))?;
        Some(format!("{KEY_PREFIX}{}.{name}.{leaf}", shape.layer_paths.get(layer)?))
    }

    fn head_key(&self, shape: &ModelShape, key: &str) -> Option<String> {
        match self.head.as_ref()? {
            Head::Own => Some(format!("{KEY_PREFIX}{key}")),
            Head::Two(path) => {
                let (place, leaf) = key.strip_prefix(path)?.strip_prefix('.')?.split_once('.')?;
                let at = HEAD_LINEARS.iter().position(|p| place.parse() == Ok(*p))?;
                Some(format!("{KEY_PREFIX}{}.{leaf}", head_linears(shape)?[at].path))
            }
        }
    }

    /// Refuses what is another function on this model.
    pub(crate) fn check(&self, shape: &ModelShape) -> Result<(), Error> {
        check_parallel(self.form, shape)?;
        if matches!(self.head, Some(Head::Two(_))) && head_linears(shape).is_none() {
            return Err(Error::Refused(format!(
                "the head that lies with this adapter has two linears, and a {} model has no such head here; \
                 remove {HEAD_CONFIG_FILE} to load the adapter without it",
                shape.family
            )));
        }
        Ok(())
    }
}

fn open_tensors(path: &Path, name: &str, pickled: &str) -> Result<TensorFile, Error> {
    if !path.join(name).exists() && path.join(pickled).exists() {
        return Err(Error::Refused(format!(
            "{}: only {pickled} is here, which can run code when it is read; save it again in `adapters` with \
             save_adapter(folder, name, use_safetensors=True)",
            path.display()
        )));
    }
    Ok(TensorFile::open(&path.join(name))?)
}

fn check_head(place: &str, head: &Value) -> Result<(), Error> {
    let bad = |key: &str, value: &Value| {
        let reason = format!(
            "{value} is not supported here; a head is read where head_type is classification, layers 2, \
             activation_function tanh, use_pooler false and bias true. Remove {HEAD_CONFIG_FILE} to load the adapter without it"
        );
        Err(Error::key(place, &format!("config.{key}"), reason))
    };
    for (key, wanted) in [
        ("head_type", json!("classification")),
        ("layers", json!(2)),
        ("activation_function", json!("tanh")),
        ("use_pooler", json!(false)),
    ] {
        let value = head.get(key).unwrap_or(&Value::Null);
        if *value != wanted {
            return bad(key, value);
        }
    }
    match head.get("bias") {
        Some(value) if *value != json!(true) => bad("bias", value),
        _ => Ok(()),
    }
}

/// The two linears of a model's classification head: the one before the tanh, and the last.
fn head_linears(shape: &ModelShape) -> Option<[&Module; 2]> {
    shape.class_head.as_ref()?;
    let mut outside = shape
        .modules
        .iter()
        .filter(|m| m.kind == ModuleKind::Linear && m.site == Site::Outside && m.layer.is_none());
    match (outside.next(), outside.next(), outside.next()) {
        (Some(inner), Some(last), None) => Some([inner, last]),
        _ => None,
    }
}

/// adapter-hub's parallel adapter reads the residual stream, ours what the FFN reads: the same in post-norm models only.
fn check_parallel(form: Form, shape: &ModelShape) -> Result<(), Error> {
    if form == Form::Parallel && shape.norm_before_ffn {
        return Err(Error::Refused(format!(
            "adapter-hub's par_bn reads the residual stream before the FFN's norm in a {} model, and `parallel` here reads behind \
             that norm, which is another function; seq_bn and double_seq_bn are the same in both",
            shape.family
        )));
    }
    Ok(())
}
