//! Where an adapter meets a model: the model describes itself, and takes the branches and trained
//! tensors to their places.

use crate::arch::{Block, HeadKind, Positions};
use crate::attention::Attention;
use crate::ffn::Ffn;
use crate::head::Head;
use crate::linear::Linear;
use crate::load;
use crate::norm::Norm;
use crate::weight::{Vector, Weight};
use crate::{Error, Model};
use sibo_peft::{
    Adapter, AdapterConfig, At, Branch, Dial, Lambda, Method, ModelShape, Module, ModuleKind, ParamId,
    Params, Placed, Site,
};
use std::cell::RefCell;

/// A place in the model that holds a tensor.
pub(crate) enum Slot<'m> {
    /// With its (out, in).
    Matrix(&'m mut Weight, [usize; 2]),
    Vector(&'m mut Vector),
}

impl Model {
    /// What the methods need to know of this model.
    pub fn shape(&self) -> ModelShape {
        let names = self.arch.names;
        let class_head = match (&self.head, names.classifier) {
            (Head::Classes(_), Some((_, last))) => Some(last.split('.').next().unwrap_or(last).to_string()),
            _ => None,
        };
        let output_module = match &self.head {
            Head::Causal(lm) => Some(lm.path.clone()),
            _ => class_head.clone(),
        };
        let tied = if self.arch.tied && matches!(self.head, Head::Causal(_)) {
            vec![("lm_head.weight".to_string(), vec![self.arch.vocab, self.arch.width])]
        } else {
            vec![]
        };
        ModelShape {
            family: names.family,
            width: self.arch.width,
            norm_before_ffn: self.arch.block != Block::PostNorm,
            modules: self.modules(),
            layer_paths: (0..self.arch.layers).map(|l| self.arch.layer_path(l)).collect(),
            tensors: load::expected(&self.arch, matches!(&self.head, Head::None(Some(_)))),
            tied,
            default_targets: names.default_targets,
            in_linear: names.in_linear,
            reference: names.reference,
            output_module,
            class_head,
        }
    }

    /// Linear and embedding modules, as PEFT would find them.
    fn modules(&self) -> Vec<Module> {
        let linear = |l: &Linear, layer: Option<usize>, site: Site| Module {
            path: l.path.clone(),
            layer,
            site,
            kind: ModuleKind::Linear,
            inp: l.inp,
            out: l.out,
        };
        let mut modules: Vec<Module> = self
            .embedding
            .tables()
            .map(|t| Module {
                path: t.path.clone(),
                layer: None,
                site: Site::Outside,
                kind: ModuleKind::Embedding,
                inp: t.rows,
                out: self.arch.width,
            })
            .collect();
        for layer in &self.layers {
            let sites = [Site::Query, Site::Key, Site::Value, Site::AttnOut];
            modules.extend(
                layer
                    .attention
                    .linears()
                    .into_iter()
                    .zip(sites)
                    .map(|(l, s)| linear(l, Some(layer.number), s)),
            );
            modules.extend(layer.ffn.gate.iter().map(|l| linear(l, Some(layer.number), Site::FfnGate)));
            modules.push(linear(&layer.ffn.up, Some(layer.number), Site::FfnUp));
            modules.push(linear(&layer.ffn.down, Some(layer.number), Site::FfnDown));
        }
        match &self.head {
            Head::None(pooler) => modules.extend(pooler.iter().map(|l| linear(l, None, Site::Outside))),
            Head::Causal(l) => modules.push(linear(l, None, Site::Outside)),
            Head::Classes(h) => modules.extend([&h.inner, &h.last].map(|l| linear(l, None, Site::Outside))),
        }
        modules
    }

    /// Present values of a base tensor, by its Hugging Face name; none where there is no such tensor, or where it is
    /// still in a file that cannot be read any more.
    pub fn tensor(&self, name: &str) -> Option<Vec<f32>> {
        self.read_tensor(name).ok().flatten()
    }

    /// The same, with the reason.
    pub(crate) fn read_tensor(&self, name: &str) -> Result<Option<Vec<f32>>, Error> {
        let mut copy = self.clone_for_lookup();
        let Some((_, slot)) = copy.slots().into_iter().find(|(n, _)| n == name) else { return Ok(None) };
        Ok(Some(match slot {
            Slot::Matrix(Weight::Frozen(w), _) => w.to_f32(),
            Slot::Matrix(Weight::Away(away), [out, inp]) => self.away_values(away, out, inp)?,
            Slot::Matrix(Weight::Trained(id), _) => self.params.value(*id).to_vec(),
            Slot::Vector(v) => v.values(&self.params).to_vec(),
        }))
    }

    /// Frozen matrices are shared, so this copies vectors only.
    fn clone_for_lookup(&self) -> Model {
        Model { adapter: None, params: Params::new(self.params.compute()), ..self.clone() }
    }

    /// Places a fresh adapter; `seed` draws its initial values.
    ///
    /// A pooler that the folder lacked trains and is saved with every adapter: it is nowhere else.
    pub fn attach(&mut self, config: &AdapterConfig, seed: u64) -> Result<(), Error> {
        let mut config = config.clone();
        let new_pooler = self.made_new.iter().any(|path| path.ends_with("pooler.dense"));
        if new_pooler && !config.modules_to_save.iter().any(|m| m == "pooler") {
            config.modules_to_save.push("pooler".into());
        }
        let adapter = {
            let this = &*self;
            // What trains itself starts from the base's values, and is read for that where it is not here yet.
            let failed = RefCell::new(None);
            let values = |name: &str| match this.read_tensor(name) {
                Ok(values) => values,
                Err(error) => {
                    failed.replace(Some(error));
                    None
                }
            };
            let adapter = Adapter::new(&config, &this.shape(), seed, &values);
            match failed.into_inner() {
                Some(error) => return Err(error),
                None => adapter?,
            }
        };
        self.place(adapter);
        Ok(())
    }

    fn place(&mut self, mut adapter: Adapter) {
        let full = adapter.config.method == Method::Full;
        for Placed { at, branch } in std::mem::take(&mut adapter.placed) {
            match at {
                At::Beside(path) => self.linear_mut(&path).beside = Some(branch),
                At::Before(path) => self.linear_mut(&path).before = Some(branch),
                At::After(path) => self.linear_mut(&path).after = Some(branch),
                At::AfterAttention(layer) => self.layers[layer].attention.adapter = Some(branch),
                At::AfterFfn(layer) => self.layers[layer].ffn.adapter = Some(branch),
                At::OnAttentionSum(layer) => self.layers[layer].on_attention = Some(branch),
                At::OnFfnSum(layer) => self.layers[layer].on_ffn = Some(branch),
                At::BesideFfn(layer) => self.layers[layer].ffn.parallel = Some(branch),
            }
        }
        for (path, lora) in std::mem::take(&mut adapter.embeddings) {
            let table = self.embedding.tables_mut().find(|t| t.path == path);
            table.expect("the shape lists only tables that exist").lora = Some(lora);
        }
        let trained: Vec<(String, ParamId)> = adapter.trained.clone();
        let words = format!("{}.weight", self.embedding.words.path);
        let tied_too = full && self.arch.tied;
        for (name, slot) in self.slots() {
            let own = trained.iter().find(|(n, _)| *n == name);
            let shared = trained.iter().find(|(n, _)| tied_too && name == "lm_head.weight" && *n == words);
            if let Some((_, id)) = own.or(shared) {
                match slot {
                    Slot::Matrix(w, _) => *w = Weight::Trained(*id),
                    Slot::Vector(v) => *v = Vector::Trained(*id),
                }
            }
        }
        self.params = std::mem::take(&mut adapter.params).with_compute(self.params.compute());
        self.adapter = Some(adapter);
    }

    /// Turns lambda where it is a number, in every branch that SIBO enters: what a run with a course does between steps,
    /// and what its adapter carries from then on.
    pub fn set_lambda(&mut self, lambda: Lambda) {
        for branch in self.branches_mut() {
            if let Dial::Fixed(own) = &mut branch.lambda {
                *own = lambda.at(branch.layer);
            }
        }
        if let Some(adapter) = &mut self.adapter {
            adapter.config.sibo.lambda = lambda;
        }
    }

    fn branches_mut(&mut self) -> impl Iterator<Item = &mut Branch> {
        self.layers.iter_mut().flat_map(|layer| {
            let Attention { query, key, value, output, adapter, .. } = &mut layer.attention;
            let Ffn { gate, up, down, adapter: behind, parallel, .. } = &mut layer.ffn;
            let linears = [query, key, value, output, up, down].into_iter().chain(gate);
            let on_linears = linears.flat_map(|l| [&mut l.before, &mut l.beside, &mut l.after]);
            let own = [adapter, behind, parallel, &mut layer.on_attention, &mut layer.on_ffn];
            on_linears.chain(own).flatten()
        })
    }

    fn linear_mut(&mut self, path: &str) -> &mut Linear {
        self.linears_mut()
            .into_iter()
            .find(|l| l.path == path)
            .expect("the shape lists only linears that exist")
    }

    fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let mut all: Vec<&mut Linear> = Vec::new();
        for layer in &mut self.layers {
            all.extend(layer.linears_mut());
        }
        match &mut self.head {
            Head::None(pooler) => all.extend(pooler.iter_mut()),
            Head::Causal(l) => all.push(l),
            Head::Classes(h) => all.extend([&mut h.inner, &mut h.last]),
        }
        all
    }

    /// Every frozen matrix that is in memory; a tied one twice.
    pub(crate) fn frozen_weights(&self) -> Vec<&std::sync::Arc<sibo_kernels::frozen::FrozenWeight>> {
        let mut all: Vec<&Weight> = self.embedding.tables().map(|t| &t.weight).collect();
        for layer in &self.layers {
            all.extend(layer.linears().map(|l| &l.weight));
        }
        match &self.head {
            Head::None(pooler) => all.extend(pooler.iter().map(|l| &l.weight)),
            Head::Causal(l) => all.push(&l.weight),
            Head::Classes(h) => all.extend([&h.inner.weight, &h.last.weight]),
        }
        all.into_iter().filter_map(|w| if let Weight::Frozen(w) = w { Some(w) } else { None }).collect()
    }

    /// Every tensor's place, by its Hugging Face name.
    pub(crate) fn slots(&mut self) -> Vec<(String, Slot<'_>)> {
        let width = self.arch.width;
        let mut all: Vec<(String, Slot)> = Vec::new();
        let mut norms: Vec<&mut Norm> = Vec::new();
        let crate::embedding::Embedding { words, positions, types, norm } = &mut self.embedding;
        for table in [Some(words), positions.as_mut(), types.as_mut()].into_iter().flatten() {
            let shape = [table.rows, width];
            all.push((format!("{}.weight", table.path), Slot::Matrix(&mut table.weight, shape)));
        }
        norms.extend(norm.as_mut());
        let mut linears: Vec<&mut Linear> = Vec::new();
        for layer in &mut self.layers {
            let crate::layer::Layer { attention, ffn, norm1, norm2, .. } = layer;
            linears.extend(attention.linears_mut());
            linears.extend(ffn.linears_mut());
            norms.push(norm1);
            norms.extend(norm2.as_mut());
        }
        norms.extend(self.final_norm.as_mut());
        match &mut self.head {
            Head::None(pooler) => linears.extend(pooler.iter_mut()),
            Head::Causal(l) => linears.push(l),
            Head::Classes(h) => linears.extend([&mut h.inner, &mut h.last]),
        }
        for linear in linears {
            let shape = [linear.out, linear.inp];
            all.push((format!("{}.weight", linear.path), Slot::Matrix(&mut linear.weight, shape)));
            if let Some(bias) = &mut linear.bias {
                all.push((format!("{}.bias", linear.path), Slot::Vector(bias)));
            }
        }
        for norm in norms {
            all.push((format!("{}.weight", norm.path), Slot::Vector(&mut norm.weight)));
            if let Some(bias) = &mut norm.bias {
                all.push((format!("{}.bias", norm.path), Slot::Vector(bias)));
            }
        }
        all
    }

    /// Whether the model's positions are learned, for messages.
    pub fn has_learned_positions(&self) -> bool {
        matches!(self.arch.positions, Positions::Learned { .. }) && self.arch.head != HeadKind::CausalLm
    }
}
