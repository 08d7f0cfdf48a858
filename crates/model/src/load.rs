//! From a Hugging Face folder to a [`Model`]: every tensor is accounted for before one is read.

use crate::arch::{Arch, HeadKind, NormKind, Positions};
use crate::attention::Attention;
use crate::base::{Base, not_finite};
use crate::embedding::{Embedding, Table};
use crate::ffn::Ffn;
use crate::head::{ClassHead, Head};
use crate::layer::Layer;
use crate::linear::Linear;
use crate::model::RopeBase;
use crate::norm::Norm;
use crate::source::Source;
use crate::weight::{Away, Vector, Weight};
use crate::{Error, Model, backbone, config, fingerprint};
use sibo_kernels::frozen::{Compute, FrozenWeight, Store};
use sibo_kernels::rope::RopeTable;
use sibo_peft::{Params, init};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

/// Numbers with which a rotary table starts; it grows with the longest row.
const FIRST_POSITIONS: usize = 256;

/// How a model is loaded.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// In which numbers the frozen products are computed.
    pub compute: Compute,
    /// A classification head with so many outputs, where the folder has none; `None` takes the folder as it is.
    pub classes: Option<usize>,
    /// Seed of heads and poolers that the folder lacks.
    pub seed: u64,
    /// Keep only the first layers (and the final norm): a damaged model, for experiments on depth. All of them is the
    /// whole model; none, or more than there are, is refused.
    pub keep_layers: Option<usize>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions { compute: Compute::F32, classes: None, seed: 0, keep_layers: None }
    }
}

/// A model and what its folder left to say.
pub struct Loaded {
    /// The model.
    pub model: Model,
    /// Keys of `config.json` that nothing here knows.
    pub unknown_keys: Vec<String>,
}

/// All tensors of a model of this structure: Hugging Face name and shape.
pub(crate) fn expected(arch: &Arch, pooler: bool) -> Vec<(String, Vec<usize>)> {
    let names = arch.names;
    let prefix = arch.prefix();
    let (d, f) = (arch.width, arch.inner);
    let mut all: Vec<(String, Vec<usize>)> = Vec::new();
    let norm = |all: &mut Vec<(String, Vec<usize>)>, path: String| {
        all.push((format!("{path}.weight"), vec![d]));
        if arch.norm == NormKind::Layer {
            all.push((format!("{path}.bias"), vec![d]));
        }
    };
    let linear = |all: &mut Vec<(String, Vec<usize>)>, path: String, out: usize, inp: usize, bias: bool| {
        all.push((format!("{path}.weight"), vec![out, inp]));
        if bias {
            all.push((format!("{path}.bias"), vec![out]));
        }
    };
    all.push((format!("{prefix}{}.weight", names.words), vec![arch.vocab, d]));
    if let (Some(path), Positions::Learned { count, .. }) = (names.positions, &arch.positions) {
        all.push((format!("{prefix}{path}.weight"), vec![*count, d]));
    }
    if let Some(path) = names.types {
        all.push((format!("{prefix}{path}.weight"), vec![arch.types, d]));
    }
    if let Some(path) = names.embedding_norm {
        norm(&mut all, format!("{prefix}{path}"));
    }
    for layer in 0..arch.layers {
        let path = arch.layer_path(layer);
        let [q, k, v, o] = names.attention;
        linear(&mut all, format!("{path}.{q}"), arch.q_width(), d, arch.biases.qkv);
        linear(&mut all, format!("{path}.{k}"), arch.kv_width(), d, arch.biases.qkv);
        linear(&mut all, format!("{path}.{v}"), arch.kv_width(), d, arch.biases.qkv);
        linear(&mut all, format!("{path}.{o}"), d, arch.q_width(), arch.biases.out);
        if let Some(gate) = names.gate {
            linear(&mut all, format!("{path}.{gate}"), f, d, arch.biases.ffn);
        }
        linear(&mut all, format!("{path}.{}", names.ffn[0]), f, d, arch.biases.ffn);
        linear(&mut all, format!("{path}.{}", names.ffn[1]), d, f, arch.biases.ffn);
        for name in names.norms {
            norm(&mut all, format!("{path}.{name}"));
        }
    }
    if let Some(path) = names.final_norm {
        norm(&mut all, format!("{prefix}{path}"));
    }
    match (arch.head, names.classifier) {
        (HeadKind::CausalLm, _) => {
            if !arch.tied {
                all.push(("lm_head.weight".into(), vec![arch.vocab, d]));
            }
            if arch.biases.head {
                all.push(("lm_head.bias".into(), vec![arch.vocab]));
            }
        }
        (HeadKind::Classes(n), Some((inner, last))) => {
            linear(&mut all, inner.map_or(format!("{prefix}pooler.dense"), String::from), d, d, true);
            linear(&mut all, last.into(), n, d, true);
        }
        (HeadKind::None, _) if pooler => linear(&mut all, format!("{prefix}pooler.dense"), d, d, true),
        _ => {}
    }
    all
}

/// A folder whose every tensor is accounted for, and none read.
pub(crate) struct Opened {
    pub(crate) arch: Arch,
    unknown: Vec<String>,
    pub(crate) source: Source,
    /// The name of a tensor of the structure to its key in [`Source::found`].
    pub(crate) keys: BTreeMap<String, String>,
}

impl Opened {
    pub(crate) fn new(folder: &Path, options: &LoadOptions) -> Result<Opened, Error> {
        let config::ReadConfig { mut arch, unknown } = config::read(folder)?;
        let mut source = Source::open(folder)?;
        if let Some(keep) = options.keep_layers.filter(|k| *k == 0 || *k > arch.layers) {
            return Err(Error::Refused(format!(
                "{}: the first {keep} layers were asked for, and the model has {}; give 1 to {}",
                folder.display(),
                arch.layers,
                arch.layers
            )));
        }
        if let Some(keep) = options.keep_layers.filter(|k| *k < arch.layers) {
            let dropped: Vec<String> =
                (keep..arch.layers).map(|l| format!("{}.{l}.", arch.names.layers)).collect();
            source.found.retain(|key, _| !dropped.iter().any(|d| key.contains(d.as_str())));
            (arch.layers, arch.cut_from) = (keep, Some(arch.layers));
        }
        let headless = arch.head == HeadKind::None;
        if let Some(classes) = options.classes {
            if arch.names.classifier.is_none() {
                return Err(Error::Refused(format!(
                    "a classification head was asked for, and a {} model has none here; BERT and RoBERTa have",
                    arch.names.family
                )));
            }
            arch.head = HeadKind::Classes(classes);
        }
        let prefix = arch.names.prefix;
        let pooler = source.key_of(&format!("{prefix}pooler.dense.weight"), prefix).is_some();
        arch.pooler = pooler;
        fit_classes_to_file(&mut arch, &source, options);
        settle_tie(&mut arch, &mut source)?;
        let missing_ok = head_names(&arch, headless || options.classes.is_some());
        let keys = account(&arch, &source, pooler, &missing_ok)?;
        Ok(Opened { arch, unknown, source, keys })
    }
}

impl Model {
    /// Loads a Hugging Face folder.
    pub fn load(folder: &Path, options: &LoadOptions) -> Result<Loaded, Error> {
        let mut loaded = Model::open(folder, options)?;
        loaded.model.read_base(0)?;
        Ok(loaded)
    }

    /// Opens a Hugging Face folder without reading the matrices of its layers: adapters can be attached and memory can
    /// be planned, and [`Model::read_base`] is to come before the first pass.
    pub fn open(folder: &Path, options: &LoadOptions) -> Result<Loaded, Error> {
        let Opened { arch, unknown, source, keys } = Opened::new(folder, options)?;
        let mut builder = Builder { source, keys, options, report: vec![], made_new: vec![] };
        let mut model = builder.build(arch)?;
        let Builder { source, mut report, made_new, .. } = builder;
        let mut base = Base { source, compute: options.compute };
        if !report.is_empty() {
            // It is refused already: then at once for everything that is wrong with it.
            report.extend(model.look_through(&mut base)?);
            return Err(Error::Tensors { place: base.source.place, report: report.join("\n") });
        }
        model.made_new = made_new;
        model.base = Some(Arc::new(Mutex::new(base)));
        Ok(Loaded { model, unknown_keys: unknown })
    }
}

/// What the files say of a head that `config.json` ties to the embedding. As in transformers (5.24), a head that is
/// stored beside it and differs stays its own, and one that is stored alone is the embedding too.
fn settle_tie(arch: &mut Arch, source: &mut Source) -> Result<(), Error> {
    const HEAD: &str = "lm_head.weight";
    if !arch.tied || arch.head != HeadKind::CausalLm || !source.found.contains_key(HEAD) {
        return Ok(());
    }
    let words = format!("{}.weight", arch.words_path());
    match source.key_of(&words, arch.names.prefix) {
        Some(key) => {
            arch.untied = !source.same(&key, HEAD)?;
            arch.tied = !arch.untied;
        }
        None => {
            let head = source.found[HEAD].clone();
            source.found.insert(words, head);
        }
    }
    Ok(())
}

/// A saved classifier's rows say how many classes it has; `config.json` need not.
fn fit_classes_to_file(arch: &mut Arch, source: &Source, options: &LoadOptions) {
    if let (HeadKind::Classes(_), Some((_, last)), None) = (arch.head, arch.names.classifier, options.classes)
        && let Some((_, _, shape)) = source.found.get(&format!("{last}.weight"))
        && let Some(rows) = shape.first()
    {
        arch.head = HeadKind::Classes(*rows);
    }
}

/// Tensors that may be missing because they are drawn from the seed.
fn head_names(arch: &Arch, new_head: bool) -> Vec<String> {
    let HeadKind::Classes(_) = arch.head else { return vec![] };
    let Some((inner, last)) = arch.names.classifier else { return vec![] };
    let pooler = format!("{}pooler.dense", arch.names.prefix);
    let mut paths = vec![inner.map_or(pooler, String::from)];
    if new_head {
        paths.push(last.into());
    }
    paths.into_iter().flat_map(|p| [format!("{p}.weight"), format!("{p}.bias")]).collect()
}

/// Matches what the structure needs with what the files hold; all that does not fit is one error.
fn account(
    arch: &Arch,
    source: &Source,
    pooler: bool,
    missing_ok: &[String],
) -> Result<BTreeMap<String, String>, Error> {
    let prefix = arch.names.prefix;
    let mut keys = BTreeMap::new();
    let mut report = Vec::new();
    for (name, shape) in expected(arch, pooler) {
        match source.key_of(&name, prefix) {
            // A head of another size than the one asked for is replaced by a new one.
            Some(key) if source.found[&key].2 != shape && missing_ok.contains(&name) => {}
            Some(key) if source.found[&key].2 != shape => {
                report.push(format!(
                    "  another shape: {name} is {:?} in the file, config.json says {shape:?}",
                    source.found[&key].2
                ));
                keys.insert(name, key);
            }
            Some(key) => {
                keys.insert(name, key);
            }
            None if missing_ok.contains(&name) => {}
            None => report.push(format!("  missing: {name} {shape:?}")),
        }
    }
    let used: std::collections::BTreeSet<&String> = keys.values().collect();
    for (key, (_, _, shape)) in &source.found {
        let bare = key.strip_prefix(prefix).unwrap_or(key);
        let scale_of = key.strip_suffix(".scale").is_some_and(|k| used.contains(&k.to_string()));
        let ignored = arch.names.ignored.iter().any(|pattern| backbone::fits(pattern, bare));
        let head_of_class =
            missing_ok.contains(key) || (arch.head == HeadKind::None && bare.starts_with("classifier."));
        if !used.contains(key) && !scale_of && !ignored && !head_of_class {
            report.push(format!("  unexpected: {key} {shape:?}"));
        }
    }
    if report.is_empty() {
        return Ok(keys);
    }
    Err(Error::Tensors { place: source.place.clone(), report: report.join("\n") })
}

struct Builder<'a> {
    source: Source,
    keys: BTreeMap<String, String>,
    options: &'a LoadOptions,
    report: Vec<String>,
    made_new: Vec<String>,
}

impl Builder<'_> {
    fn build(&mut self, arch: Arch) -> Result<Model, Error> {
        let names = arch.names;
        let prefix = arch.prefix();
        let words = arch.words_path();
        let stored = self.stored(&words)?;
        let mut fingerprint = fingerprint::of(&stored, arch.vocab, arch.width);
        let words = self.frozen(&words, arch.vocab, arch.width, stored);
        if arch.cut_from.is_some() {
            fingerprint = fingerprint::cut(fingerprint, arch.layers);
        }
        let table = |path: &str, rows: usize, weight: Weight, padding: Option<u32>| Table {
            path: format!("{prefix}{path}"),
            rows,
            weight,
            lora: None,
            padding,
        };
        let positions = match (names.positions, &arch.positions) {
            (Some(path), Positions::Learned { count, skip_padding }) => {
                let weight = Weight::Frozen(self.matrix(&format!("{prefix}{path}"), *count, arch.width)?);
                Some(table(path, *count, weight, *skip_padding))
            }
            _ => None,
        };
        let types = match names.types {
            Some(path) => {
                let weight =
                    Weight::Frozen(self.matrix(&format!("{prefix}{path}"), arch.types, arch.width)?);
                Some(table(path, arch.types, weight, None))
            }
            None => None,
        };
        let norm =
            names.embedding_norm.map(|path| self.norm(&arch, format!("{prefix}{path}"))).transpose()?;
        let embedding = Embedding {
            words: table(names.words, arch.vocab, Weight::Frozen(words.clone()), arch.padding),
            positions,
            types,
            norm,
        };
        let layers = (0..arch.layers).map(|l| self.layer(&arch, l)).collect::<Result<_, _>>()?;
        let final_norm =
            names.final_norm.map(|path| self.norm(&arch, format!("{prefix}{path}"))).transpose()?;
        let head = self.head(&arch, words)?;
        let rope = match &arch.positions {
            Positions::Rope(spec) => Some(RopeBase {
                spec: *spec,
                table: Arc::new(RwLock::new(Arc::new(RopeTable::new(
                    &spec.inverse_frequencies(0),
                    FIRST_POSITIONS,
                )))),
            }),
            Positions::Learned { .. } => None,
        };
        Ok(Model {
            arch,
            embedding,
            layers,
            final_norm,
            head,
            adapter: None,
            params: Params::new(self.options.compute),
            rope,
            fingerprint,
            made_new: vec![],
            base: None,
            stream: None,
        })
    }

    fn layer(&mut self, arch: &Arch, number: usize) -> Result<Layer, Error> {
        let path = arch.layer_path(number);
        let names = arch.names;
        let d = arch.width;
        let [q, k, v, o] = names.attention.map(|n| format!("{path}.{n}"));
        let attention = Attention {
            query: self.linear_later(q, arch.q_width(), d, arch.biases.qkv)?,
            key: self.linear_later(k, arch.kv_width(), d, arch.biases.qkv)?,
            value: self.linear_later(v, arch.kv_width(), d, arch.biases.qkv)?,
            output: self.linear_later(o, d, arch.q_width(), arch.biases.out)?,
            adapter: None,
            layer: number,
        };
        let gate = names
            .gate
            .map(|n| self.linear_later(format!("{path}.{n}"), arch.inner, d, arch.biases.ffn))
            .transpose()?;
        let ffn = Ffn {
            gate,
            up: self.linear_later(format!("{path}.{}", names.ffn[0]), arch.inner, d, arch.biases.ffn)?,
            down: self.linear_later(format!("{path}.{}", names.ffn[1]), d, arch.inner, arch.biases.ffn)?,
            activation: arch.activation,
            adapter: None,
            parallel: None,
        };
        let mut norms = Vec::new();
        for name in names.norms {
            norms.push(self.norm(arch, format!("{path}.{name}"))?);
        }
        let mut norms = norms.into_iter();
        let norm1 = norms.next().expect("every layer has a norm");
        Ok(Layer {
            number,
            block: arch.block,
            attention,
            ffn,
            norm1,
            norm2: norms.next(),
            on_attention: None,
            on_ffn: None,
        })
    }

    fn head(&mut self, arch: &Arch, words: Arc<FrozenWeight>) -> Result<Head, Error> {
        let d = arch.width;
        Ok(match (arch.head, arch.names.classifier) {
            (HeadKind::CausalLm, _) => {
                let weight = if arch.tied { words } else { self.matrix("lm_head", arch.vocab, d)? };
                let bias = if arch.biases.head {
                    Some(Vector::Frozen(self.vector("lm_head.bias", arch.vocab)?))
                } else {
                    None
                };
                Head::Causal(Linear::new("lm_head".into(), d, arch.vocab, Weight::Frozen(weight), bias))
            }
            (HeadKind::Classes(n), Some((inner, last))) => {
                let path = inner.map_or(format!("{}pooler.dense", arch.prefix()), String::from);
                let sd = arch.init_sd;
                Head::Classes(Box::new(ClassHead {
                    inner: self.linear_or_new(path, d, d, sd)?,
                    last: self.linear_or_new(last.into(), n, d, sd)?,
                    drop_input: inner.is_some(),
                }))
            }
            _ if arch.pooler => {
                Head::None(Some(self.linear(format!("{}pooler.dense", arch.prefix()), d, d, true)?))
            }
            _ => Head::None(None),
        })
    }

    fn linear(&mut self, path: String, out: usize, inp: usize, bias: bool) -> Result<Linear, Error> {
        let weight = Weight::Frozen(self.matrix(&path, out, inp)?);
        let bias = if bias { Some(Vector::Frozen(self.vector(&format!("{path}.bias"), out)?)) } else { None };
        Ok(Linear::new(path, inp, out, weight, bias))
    }

    /// A linear of a layer: its matrix is read by [`Model::read_base`].
    fn linear_later(&mut self, path: String, out: usize, inp: usize, bias: bool) -> Result<Linear, Error> {
        let key = self.keys[&format!("{path}.weight")].clone();
        let coding = self.source.coding_of(&key)?;
        let bytes = FrozenWeight::bytes_for(out, inp, coding, self.options.compute);
        let stored = self.source.bytes_of(&key);
        let weight = Weight::Away(Arc::new(Away { key, bytes, stored }));
        let bias = if bias { Some(Vector::Frozen(self.vector(&format!("{path}.bias"), out)?)) } else { None };
        Ok(Linear::new(path, inp, out, weight, bias))
    }

    /// A linear with a bias; one that the folder lacks is drawn from the seed as transformers draws it.
    fn linear_or_new(&mut self, path: String, out: usize, inp: usize, sd: f32) -> Result<Linear, Error> {
        if self.keys.contains_key(&format!("{path}.weight")) {
            return self.linear(path, out, inp, true);
        }
        let values = init::normal(self.options.seed, &format!("{path}.weight"), out * inp, sd);
        let weight = FrozenWeight::new(out, inp, Store::F32(values), Compute::F32);
        self.made_new.push(path.clone());
        Ok(Linear::new(
            path,
            inp,
            out,
            Weight::Frozen(Arc::new(weight)),
            Some(Vector::Frozen(vec![0.0; out])),
        ))
    }

    fn norm(&mut self, arch: &Arch, path: String) -> Result<Norm, Error> {
        let weight = Vector::Frozen(self.vector(&format!("{path}.weight"), arch.width)?);
        let bias = match arch.norm {
            NormKind::Layer => Some(Vector::Frozen(self.vector(&format!("{path}.bias"), arch.width)?)),
            NormKind::Rms => None,
        };
        Ok(Norm { path, kind: arch.norm, weight, bias, eps: arch.eps })
    }

    fn matrix(&mut self, path: &str, out: usize, inp: usize) -> Result<Arc<FrozenWeight>, Error> {
        let store = self.stored(path)?;
        Ok(self.frozen(path, out, inp, store))
    }

    /// A matrix as its file stores it.
    fn stored(&mut self, path: &str) -> Result<Store, Error> {
        self.source.read(&self.keys[&format!("{path}.weight")])
    }

    fn frozen(&mut self, path: &str, out: usize, inp: usize, store: Store) -> Arc<FrozenWeight> {
        let weight = FrozenWeight::new(out, inp, store, self.options.compute);
        if weight.has_non_finite() {
            self.report.push(not_finite(&format!("{path}.weight")));
        }
        Arc::new(weight)
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        let store = self.source.read(&self.keys[name])?;
        let values = FrozenWeight::new(1, len, store, Compute::F32).to_f32();
        if values.iter().any(|v| !v.is_finite()) {
            self.report.push(not_finite(name));
        }
        Ok(values)
    }
}
