//! A folder written for adapter-hub.

use super::{HEAD_CONFIG_FILE, HEAD_LINEARS, HEAD_TENSORS_FILE, HOLDERS, TENSORS_FILE, VERSION};
use super::{check_parallel, head_linears};
use crate::config::{Form, adapter_hub as options};
use crate::folder::{CARD_FILE, CONFIG_FILE};
use crate::{AdapterConfig, Error, Method, ModelShape, Module, Param, Params, adapter::KEY_PREFIX};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// What a folder for adapter-hub says about the model.
#[derive(Debug, Clone)]
pub struct Target<'a> {
    /// The adapter's name there.
    pub name: &'a str,
    /// `model_type` of the model's `config.json`.
    pub model_type: &'a str,
    /// The class that loads it, such as `BertAdapterModel`.
    pub model_class: &'a str,
    /// The base's fingerprint, by which this program knows it again.
    pub fingerprint: &'a [f32],
    /// A name for each class of the head, where the model has one.
    pub labels: &'a [String],
}

/// Writes an `adapter` with its values for adapter-hub into `folder`, whole or not at all. `tensor` gives the model's present values, for
/// its classification head. Refuses what is another function there.
pub fn save(
    adapter: &AdapterConfig,
    params: &Params,
    shape: &ModelShape,
    tensor: &dyn Fn(&str) -> Option<Vec<f32>>,
    target: &Target,
    folder: &Path,
    card: &str,
) -> Result<(), Error> {
    let Method::Bottleneck(bottleneck) = &adapter.method else {
        return Err(Error::Refused(format!(
            "a {} adapter has no form in adapter-hub's bottleneck format; houlsby, pfeiffer and parallel have one",
            adapter.method.name()
        )));
    };
    check_export(adapter, bottleneck.form, shape)?;
    let tensors = branch_tensors(params, shape, target.name)?;
    let config = folder_config(target, shape, options::write(bottleneck, shape.width), target.name);
    let head = head_linears(shape).map(|pair| head_tensors(pair, tensor, target.name));
    sibo_files::write_all_or_nothing(folder, |part| {
        let fingerprint = ("sibo.base".to_string(), json!(target.fingerprint).to_string());
        write_tensors(&part.join(TENSORS_FILE), &tensors, BTreeMap::from([fingerprint]))?;
        write_json(&part.join(CONFIG_FILE), &config)?;
        if let Some(head) = &head {
            write_tensors(&part.join(HEAD_TENSORS_FILE), head, BTreeMap::new())?;
            let config = folder_config(target, shape, head_config(target.labels), target.name);
            write_json(&part.join(HEAD_CONFIG_FILE), &config)?;
        }
        Ok(sibo_files::write(&part.join(CARD_FILE), card.as_bytes())?)
    })
}

fn check_export(adapter: &AdapterConfig, form: Form, shape: &ModelShape) -> Result<(), Error> {
    if !adapter.sibo.is_plain() {
        return Err(Error::Refused(
            "lambda is above zero, and adapter-hub knows no lambda: it would compute something else with the same tensors. \
             Only an adapter trained with lambda 0 can be written for it"
                .into(),
        ));
    }
    if form == Form::InLinear {
        return Err(Error::Refused(
            "in_linear adapters sit inside linears, where adapter-hub has none; houlsby, pfeiffer and parallel have a form there"
                .into(),
        ));
    }
    let other = adapter.modules_to_save.iter().find(|m| {
        let head = head_linears(shape).is_some_and(|pair| {
            pair.iter()
                .any(|l| l.path.split('.').any(|part| part == m.as_str()) || l.path.starts_with(m.as_str()))
        });
        !head
    });
    match other {
        Some(module) => Err(Error::Refused(format!(
            "`{module}` was trained with this adapter, and an adapter-hub folder holds an adapter and a classification head only"
        ))),
        None => check_parallel(form, shape),
    }
}

type Tensor = (String, Vec<usize>, Vec<f32>);

fn branch_tensors(params: &Params, shape: &ModelShape, name: &str) -> Result<Vec<Tensor>, Error> {
    let bert_names = shape.modules.iter().any(|m| m.path.ends_with(".attention.output.dense"));
    let (attention, ffn) = if bert_names { HOLDERS[0] } else { HOLDERS[1] };
    let key = |param: &Param| {
        let rest = param.name.strip_prefix(KEY_PREFIX)?;
        shape.layer_paths.iter().find_map(|layer| {
            let rest = rest.strip_prefix(layer.as_str())?.strip_prefix('.')?;
            let (place, leaf) = rest.split_once('.')?;
            let holder = if place == "attention_adapter" { attention } else { ffn };
            Some(format!("{layer}.{holder}.adapters.{name}.{leaf}"))
        })
    };
    let branch = |p: &&Param| p.name.contains(".adapter_down.") || p.name.contains(".adapter_up.");
    let tensors = params.iter().filter(branch).map(|p| {
        let key = key(p).ok_or_else(|| Error::Refused(format!("`{}` stands in no layer", p.name)))?;
        Ok((key, p.shape.clone(), p.value.clone()))
    });
    tensors.collect()
}

fn head_tensors(pair: [&Module; 2], tensor: &dyn Fn(&str) -> Option<Vec<f32>>, name: &str) -> Vec<Tensor> {
    let mut all = Vec::new();
    for (linear, place) in pair.into_iter().zip(HEAD_LINEARS) {
        for (leaf, shape) in [("bias", vec![linear.out]), ("weight", vec![linear.out, linear.inp])] {
            let values = tensor(&format!("{}.{leaf}", linear.path));
            all.extend(values.map(|values| (format!("heads.{name}.{place}.{leaf}"), shape, values)));
        }
    }
    all
}

fn folder_config(target: &Target, shape: &ModelShape, config: Value, name: &str) -> Value {
    json!({
        "config": config, "hidden_size": shape.width, "model_class": target.model_class, "model_name": "",
        "model_type": target.model_type, "name": name, "version": VERSION
    })
}

fn head_config(labels: &[String]) -> Value {
    let by_name: serde_json::Map<String, Value> =
        labels.iter().enumerate().map(|(c, name)| (name.clone(), json!(c))).collect();
    json!({
        "activation_function": "tanh", "bias": true, "dropout_prob": null, "head_type": "classification",
        "label2id": by_name, "layers": 2, "num_labels": labels.len(), "use_pooler": false
    })
}

fn write_tensors(
    path: &Path,
    tensors: &[Tensor],
    strings: BTreeMap<String, String>,
) -> Result<(), sibo_files::Error> {
    let views =
        tensors.iter().map(|(name, shape, values)| (name.as_str(), shape.as_slice(), values.as_slice()));
    sibo_files::write_tensors(path, views, strings)
}

fn write_json(path: &Path, value: &Value) -> Result<(), sibo_files::Error> {
    sibo_files::write(path, format!("{value:#}\n").as_bytes())
}
