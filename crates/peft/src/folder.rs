//! An adapter's folder: `adapter_config.json`, `adapter_model.safetensors`, `README.md`, as PEFT lays it out.
//! Loading consumes every key and fills every parameter, or lists both sides.

use crate::adapter::{KEY_PREFIX, THETA_PREFIX};
use crate::adapter_hub::{self, Hub};
use crate::config::Form;
use crate::targets::Targets;
use crate::{AdapterConfig, Error, Method, ModelShape, Params, Sibo};
use serde_json::{Value, json};
use sibo_files::TensorFile;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The two file names that PEFT uses.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The tensors' file.
pub const TENSORS_FILE: &str = "adapter_model.safetensors";
/// The model card, which changes no number.
pub const CARD_FILE: &str = "README.md";

/// A folder that has been read but not yet placed on a model.
#[derive(Debug)]
pub struct Folder {
    /// Where it lies.
    pub path: PathBuf,
    /// Its configuration.
    pub config: AdapterConfig,
    /// Shapes of its tensors by key, in this crate's spelling of the keys.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// The fingerprint of the base it was trained on, where it carries one.
    pub base_fingerprint: Option<Vec<f32>>,
    /// This crate's key to the file's own.
    keys: BTreeMap<String, String>,
    file: TensorFile,
    /// Where the folder is adapter-hub's.
    hub: Option<Hub>,
}

/// A frozen tensor of the base in an adapter's folder.
#[derive(Debug)]
pub struct BaseCopy {
    /// The base's name of it.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub values: Vec<f32>,
}

impl Folder {
    /// Reads and checks a folder of PEFT's form, or of adapter-hub's.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let config_path = path.join(CONFIG_FILE);
        let place = config_path.display().to_string();
        let value = sibo_files::json::read(&config_path)?;
        if adapter_hub::is_config(&value) {
            return Self::open_hub(path, &value);
        }
        let mut config = AdapterConfig::from_json(&place, &value)?;
        let tensors = path.join(TENSORS_FILE);
        if !tensors.exists() && path.join("adapter_model.bin").exists() {
            return Err(Error::Refused(format!(
                "{}: only adapter_model.bin is here, which can run code when it is read; save it again in PEFT with safe_serialization=True",
                path.display()
            )));
        }
        let file = TensorFile::open(&tensors)?;
        let strings = file.strings();
        check_sibo_metadata(&config, strings.get("sibo"), &place, &tensors)?;
        let keys = readable_keys(file.shapes().keys());
        let shapes =
            keys.iter().map(|(ours, theirs)| (ours.clone(), file.shapes()[theirs].clone())).collect();
        name_in_linear_targets(&mut config, &keys);
        let base_fingerprint = strings.get("sibo.base").and_then(|t| serde_json::from_str(t).ok());
        Ok(Folder { path: path.into(), config, shapes, base_fingerprint, keys, file, hub: None })
    }

    fn open_hub(path: &Path, value: &Value) -> Result<Self, Error> {
        let (hub, config, file) = Hub::open(path, value)?;
        let mut shapes = file.shapes();
        shapes.extend(hub.head_file.iter().flat_map(TensorFile::shapes));
        let keys = shapes.keys().map(|key| (key.clone(), key.clone())).collect();
        let base_fingerprint = file.strings().get("sibo.base").and_then(|t| serde_json::from_str(t).ok());
        Ok(Folder { path: path.into(), config, shapes, base_fingerprint, keys, file, hub: Some(hub) })
    }

    /// Gives the tensors of an adapter-hub folder the names that they have on this model; other folders have them.
    /// Refuses what is another function there. Comes before the configuration is placed.
    pub fn settle(&mut self, shape: &ModelShape) -> Result<(), Error> {
        let Some(hub) = &self.hub else { return Ok(()) };
        hub.check(shape)?;
        self.config.modules_to_save.extend(hub.modules_to_save(shape));
        let theirs: Vec<String> = self.keys.values().cloned().collect();
        let old: BTreeMap<String, Vec<usize>> =
            self.keys.iter().map(|(ours, theirs)| (theirs.clone(), self.shapes[ours].clone())).collect();
        self.keys = hub.keys(shape, &theirs);
        self.shapes = self.keys.iter().map(|(ours, theirs)| (ours.clone(), old[theirs].clone())).collect();
        Ok(())
    }

    /// The number of classes, where the folder holds a classification head.
    pub fn classes(&self) -> Option<usize> {
        if let Some(hub) = &self.hub {
            return hub.classes();
        }
        ["classifier.weight", "classifier.out_proj.weight", "score.weight"]
            .iter()
            .find_map(|name| self.shapes.get(&format!("{KEY_PREFIX}{name}")))
            .and_then(|shape| shape.first().copied())
    }

    /// Writes this LoRA into `folder` as PEFT's own, whole or not at all: the same tensors, and no lambda, so that
    /// every branch reads x. With lambda 0 that is the same function, with any other it is not.
    pub fn write_as_plain_lora(&mut self, folder: &Path, card: &str) -> Result<(), Error> {
        if !matches!(self.config.method, Method::Lora(_)) {
            return Err(Error::Refused(format!(
                "{}: a {} adapter is not a LoRA, and PEFT's LoRA folder can hold nothing else",
                self.path.display(),
                self.config.method.name()
            )));
        }
        let config = AdapterConfig { sibo: Sibo::default(), ..self.config.clone() };
        let mut tensors = Vec::new();
        for (ours, theirs) in self.keys.iter().filter(|(ours, _)| !ours.starts_with(THETA_PREFIX)) {
            tensors.push((ours.as_str(), &self.shapes[ours], self.file.read(theirs)?.into_f32()));
        }
        let strings = self.base_fingerprint.iter().map(|f| ("sibo.base".to_string(), json!(f).to_string()));
        let strings = strings.collect();
        sibo_files::write_all_or_nothing(folder, |part| {
            let views =
                tensors.iter().map(|(name, shape, values)| (*name, shape.as_slice(), values.as_slice()));
            sibo_files::write_tensors(&part.join(TENSORS_FILE), views, strings)?;
            write_config(&config, part)?;
            Ok(sibo_files::write(&part.join(CARD_FILE), card.as_bytes())?)
        })
    }

    /// Frozen tensors of the base that the folder holds beside its `params`: PEFT reads them over the base's.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn base_copies(&mut self, params: &Params) -> Result<Vec<BaseCopy>, Error> {
        let mut copies = Vec::new();
        for (ours, theirs) in &self.keys {
            let Some(name) = base_of(ours).filter(|_| params.find(ours).is_none()) else { continue };
            let values = self.file.read(theirs)?.into_f32();
            copies.push(BaseCopy { name, shape: self.shapes[ours].clone(), values });
        }
        Ok(copies)
    }

    /// Fills every parameter from the file; anything left over or missing on either side is one error.
    pub fn fill(&mut self, params: &mut Params) -> Result<(), Error> {
        let mut report = Vec::new();
        for param in params.iter() {
            match self.shapes.get(&param.name) {
                None => report.push(format!("  missing in the file: {} {:?}", param.name, param.shape)),
                Some(shape) if *shape != param.shape => report.push(format!(
                    "  another shape: {} is {shape:?} in the file, {:?} in the model",
                    param.name, param.shape
                )),
                Some(_) => {}
            }
        }
        let known: BTreeSet<&str> = params.iter().map(|p| p.name.as_str()).collect();
        for key in self.shapes.keys().filter(|k| !known.contains(k.as_str()) && base_of(k).is_none()) {
            report.push(format!("  not a parameter here: {key} {:?}", self.shapes[key]));
        }
        if !report.is_empty() {
            let place = self.file.path().display().to_string();
            return Err(Error::Mismatch { place, report: report.join("\n") });
        }
        for param in params.iter_mut() {
            let key = &self.keys[&param.name];
            let head = self.hub.as_mut().and_then(|hub| hub.head_file.as_mut());
            let file = head.filter(|head| head.shapes().contains_key(key)).unwrap_or(&mut self.file);
            param.value = file.read(key)?.into_f32();
            if let Some(at) = param.value.iter().position(|v| !v.is_finite()) {
                return Err(Error::Refused(format!(
                    "{}: `{}` holds {} at place {at}; a trained adapter has only finite numbers",
                    self.file.path().display(),
                    param.name,
                    param.value[at]
                )));
            }
        }
        Ok(())
    }
}

/// The base's tensor of which `key` holds a copy: PEFT also writes a frozen layer that has LoRA on an embedding or an
/// output head beside it and, with `save_embedding_layers`, these tables by themselves.
fn base_of(key: &str) -> Option<String> {
    const TABLES: [&str; 4] = ["embed_tokens", "lm_head", "wte", "word_embeddings"];
    let name = key.strip_prefix(KEY_PREFIX)?;
    if name.contains(".base_layer.") {
        return Some(name.replace(".base_layer.", "."));
    }
    let module = name.strip_suffix(".weight")?.rsplit('.').next()?;
    TABLES.contains(&module).then(|| name.to_owned())
}

/// Writes an adapter into `folder`, whole or not at all: what it is, its values, the base's `fingerprint`, and the
/// model `card`.
pub fn save(
    config: &AdapterConfig,
    params: &Params,
    folder: &Path,
    fingerprint: &[f32],
    card: &str,
) -> Result<(), Error> {
    sibo_files::write_all_or_nothing(folder, |part| save_into(config, params, part, fingerprint, card))
}

/// Writes the three files into a folder that the caller makes appear whole.
pub fn save_into(
    config: &AdapterConfig,
    params: &Params,
    folder: &Path,
    fingerprint: &[f32],
    card: &str,
) -> Result<(), Error> {
    let tensors = params.iter().map(|p| (p.name.as_str(), p.shape.as_slice(), p.value.as_slice()));
    let mut strings = BTreeMap::from([("sibo.base".to_string(), json!(fingerprint).to_string())]);
    if !config.sibo.is_plain() {
        strings.insert("sibo".into(), config.sibo.to_json().to_string());
    }
    sibo_files::write_tensors(&folder.join(TENSORS_FILE), tensors, strings)?;
    write_config(config, folder)?;
    sibo_files::write(&folder.join(CARD_FILE), card.as_bytes())?;
    Ok(())
}

fn write_config(config: &AdapterConfig, folder: &Path) -> Result<(), sibo_files::Error> {
    let mut config = config.to_json();
    if let Value::Object(map) = &mut config {
        map.sort_keys();
    }
    let config = serde_json::to_string_pretty(&config).expect("a JSON value has a text");
    sibo_files::write(&folder.join(CONFIG_FILE), format!("{config}\n").as_bytes())
}

/// The same object may stand in the tensors' header; one that contradicts the configuration is refused.
fn check_sibo_metadata(
    config: &AdapterConfig,
    text: Option<&String>,
    place: &str,
    tensors: &Path,
) -> Result<(), Error> {
    let Some(text) = text else { return Ok(()) };
    let tensors = tensors.display().to_string();
    let value: Value = serde_json::from_str(text)
        .map_err(|e| Error::key(&tensors, "sibo", format!("the header's object is not JSON: {e}")))?;
    let there = crate::Sibo::from_json(&tensors, &value)?;
    let both_plain = there.is_plain() && config.sibo.is_plain();
    if both_plain || there.evened() == config.sibo.evened() {
        return Ok(());
    }
    Err(Error::key(
        &tensors,
        "sibo",
        format!(
            "the header says {}, {place} says {}; one of the two files belongs to another run",
            there.to_json(),
            config.sibo.to_json()
        ),
    ))
}

/// PEFT's own spelling of some keys carries the adapter's name; with `bias = "all"` it also writes the untrained
/// original of a module that was saved whole.
fn readable_keys<'a>(theirs: impl Iterator<Item = &'a String>) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    for key in theirs.filter(|k| !k.contains(".original_module.")) {
        let plain = key.replace(".default.", ".").replace(".modules_to_save.", ".");
        // A key that is already in plain spelling wins over its alias.
        if plain == *key || !keys.contains_key(&plain) {
            keys.insert(plain, key.clone());
        }
    }
    keys
}

/// trace.md's `in_linear` folders need not list their linears: the keys say where the adapters stand.
fn name_in_linear_targets(config: &mut AdapterConfig, keys: &BTreeMap<String, String>) {
    let Method::Bottleneck(bottleneck) = &mut config.method else { return };
    if bottleneck.form != Form::InLinear || bottleneck.targets != Targets::Default {
        return;
    }
    let paths: BTreeSet<String> = keys
        .keys()
        .filter_map(|k| k.strip_prefix(KEY_PREFIX)?.strip_suffix(".adapter_down.weight").map(String::from))
        .collect();
    if !paths.is_empty() {
        bottleneck.targets = Targets::List(paths.into_iter().collect());
    }
}
