//! The one table of cases: method x backbone x {plain, SIBO}. A new method is one line of [`METHODS`], a
//! new backbone one line of [`BACKBONES`].

use crate::data;
use crate::measure::noise;
use serde_json::{Value, json};
use sibo_model::{Compute, LoadOptions, Model};
use sibo_peft::AdapterConfig;
use std::path::PathBuf;

/// What the cases must know of a family: the names of its modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// BERT.
    Bert,
    /// RoBERTa and XLM-RoBERTa.
    Roberta,
    /// LLaMA, Mistral, Qwen2.
    Llama,
    /// GPT-J.
    Gptj,
}

impl Family {
    /// Whether rows are continued token by token.
    pub fn is_decoder(self) -> bool {
        matches!(self, Family::Llama | Family::Gptj)
    }

    /// Query, key, value, attention output, the FFN's first linears, its last.
    fn linears(self) -> &'static [&'static str] {
        match self {
            Family::Bert | Family::Roberta => {
                &["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
            }
            Family::Llama => &["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
            Family::Gptj => &["q_proj", "k_proj", "v_proj", "out_proj", "fc_in", "fc_out"],
        }
    }

    fn embedding(self) -> &'static str {
        match self {
            Family::Bert | Family::Roberta => "word_embeddings",
            Family::Llama => "embed_tokens",
            Family::Gptj => "wte",
        }
    }

    fn down(self) -> &'static str {
        match self {
            Family::Bert | Family::Roberta => ".*layer\\.\\d+\\.output\\.dense",
            Family::Llama => ".*down_proj",
            Family::Gptj => ".*fc_out",
        }
    }

    /// Modules to train whole beside LoRA: a head, norms, a pooler, whatever the family has.
    fn saved(self) -> &'static [&'static str] {
        match self {
            Family::Bert => &["pooler", "embeddings.LayerNorm"],
            Family::Roberta => &["LayerNorm", "token_type_embeddings"],
            Family::Llama => &["lm_head", "norm"],
            Family::Gptj => &["wte", "lm_head", "ln_1"],
        }
    }
}

/// A stored model and how it is loaded.
#[derive(Debug, Clone, Copy)]
pub struct Backbone {
    /// Its folder in `tests/data/models`.
    pub name: &'static str,
    /// Its family.
    pub family: Family,
    /// Outputs of a new classification head, where the folder has none.
    pub classes: Option<usize>,
    /// Whether any linear has a bias, so that BitFit has something to train.
    pub biases: bool,
}

const fn encoder(name: &'static str, family: Family, classes: Option<usize>) -> Backbone {
    Backbone { name, family, classes, biases: true }
}

const fn decoder(name: &'static str, family: Family, biases: bool) -> Backbone {
    Backbone { name, family, classes: None, biases }
}

/// The backbones: each family, and within LLaMA's each thing that its data can ask for.
pub const BACKBONES: [Backbone; 11] = [
    encoder("bert-pooler", Family::Bert, Some(3)),
    encoder("bert-bare", Family::Bert, Some(4)),
    encoder("bert-classifier", Family::Bert, None),
    encoder("roberta-bare", Family::Roberta, Some(3)),
    encoder("roberta-regression", Family::Roberta, None),
    decoder("llama-gqa", Family::Llama, false),
    decoder("llama-tied", Family::Llama, true),
    decoder("llama-dynamic", Family::Llama, true),
    decoder("mistral", Family::Llama, false),
    decoder("qwen2", Family::Llama, true),
    decoder("gptj", Family::Gptj, true),
];

/// A method as a recipe would give it.
#[derive(Debug, Clone, Copy)]
pub struct Method {
    /// For messages.
    pub name: &'static str,
    /// The recipe's `[adapter]` table for a family.
    pub recipe: fn(Family) -> Value,
    /// Whether a fresh adapter leaves the model as it is.
    pub starts_as_base: bool,
    /// Whether SIBO can enter any of its branches.
    pub takes_sibo: bool,
}

const fn row(name: &'static str, starts_as_base: bool, recipe: fn(Family) -> Value) -> Method {
    Method { name, recipe, starts_as_base, takes_sibo: true }
}

const fn no_branch(name: &'static str, recipe: fn(Family) -> Value) -> Method {
    Method { name, recipe, starts_as_base: true, takes_sibo: false }
}

/// The methods, with alpha unlike r and sizes unlike each other.
pub const METHODS: [Method; 21] = [
    row("lora", true, |_| json!({"method": "lora", "r": 3, "lora_alpha": 7})),
    row(
        "lora-all",
        true,
        |f| json!({"method": "lora", "r": 2, "lora_alpha": 5, "target_modules": f.linears()}),
    ),
    row(
        "lora-all-linear",
        true,
        |_| json!({"method": "lora", "r": 2, "lora_alpha": 5, "target_modules": "all-linear"}),
    ),
    row("lora-patterns", true, |f| {
        let [first, .., last] = f.linears() else { unreachable!("six linears at least") };
        json!({"method": "lora", "r": 3, "lora_alpha": 7, "use_rslora": true, "init_lora_weights": "gaussian",
               "target_modules": f.linears(), "rank_pattern": {*first: 5}, "alpha_pattern": {*last: 11},
               "layers_to_transform": [1]})
    }),
    row(
        "lora-random",
        false,
        |_| json!({"method": "lora", "r": 3, "lora_alpha": 7, "init_lora_weights": false}),
    ),
    row(
        "lora-embedding",
        true,
        |f| json!({"method": "lora", "r": 2, "lora_alpha": 5, "target_modules": [f.embedding(), f.linears()[2]]}),
    ),
    row(
        "lora-dropout",
        true,
        |f| json!({"method": "lora", "r": 2, "lora_alpha": 5, "lora_dropout": 0.4, "target_modules": f.linears()}),
    ),
    row(
        "lora-bias",
        true,
        |f| json!({"method": "lora", "r": 2, "lora_alpha": 5, "bias": "all", "target_modules": [f.linears()[0]]}),
    ),
    row(
        "lora-saved",
        true,
        |f| json!({"method": "lora", "r": 2, "lora_alpha": 5, "target_modules": [f.linears()[1]], "modules_to_save": f.saved()}),
    ),
    Method {
        takes_sibo: false,
        ..row(
            "lora-down",
            true,
            |f| json!({"method": "lora", "r": 2, "lora_alpha": 5, "target_modules": f.down()}),
        )
    },
    row(
        "houlsby",
        false,
        |_| json!({"method": "houlsby", "bottleneck_size": 3, "non_linearity": "tanh", "scaling": 1.7}),
    ),
    row(
        "houlsby-mam",
        true,
        |_| json!({"method": "houlsby", "bottleneck_size": 3, "non_linearity": "tanh", "init": "mam_adapter", "dropout": 0.3}),
    ),
    row("pfeiffer", false, |_| json!({"method": "pfeiffer", "reduction_factor": 8, "non_linearity": "gelu"})),
    row(
        "parallel",
        true,
        |_| json!({"method": "parallel", "bottleneck_size": 5, "non_linearity": "swish", "scaling": 0.6, "init": "mam_adapter"}),
    ),
    // adapter-hub's own forms: on the residual sum, dropout on what is given.
    row("pfeiffer-on-sum", false, |_| {
        json!({"method": "pfeiffer", "bottleneck_size": 3, "non_linearity": "swish", "scaling": 1.3, "original_ln_before": true,
               "dropout": 0.3, "dropout_after_up": true})
    }),
    row("houlsby-on-sum", true, |_| {
        json!({"method": "houlsby", "bottleneck_size": 3, "non_linearity": "tanh", "scaling": 1.3, "original_ln_before": true,
               "init": "mam_adapter"})
    }),
    row(
        "in_linear",
        false,
        |_| json!({"method": "in_linear", "bottleneck_size": 3, "non_linearity": "tanh"}),
    ),
    row("in_linear-all", false, |f| {
        json!({"method": "in_linear", "bottleneck_size": 3, "non_linearity": "tanh",
        "target_modules": if f == Family::Gptj { vec!["fc_in", "fc_out"] } else { vec!["gate_proj", "up_proj", "down_proj"] }})
    }),
    no_branch("head", |_| json!({"method": "head"})),
    no_branch("bitfit", |_| json!({"method": "bitfit"})),
    no_branch("full", |_| json!({"method": "full"})),
];

/// What SIBO adds to a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boost {
    /// Nothing.
    Plain,
    /// The paper's form.
    Sibo,
    /// One lambda for each layer (zero in the first), rescaled h0, series adapters' skip mixed.
    Rms,
    /// One lambda, raw h0, series adapters' skip mixed.
    Mixed,
    /// Lambda learned, a theta for each kind of site.
    Learned,
}

impl Boost {
    /// All five.
    pub const ALL: [Boost; 5] = [Boost::Plain, Boost::Sibo, Boost::Rms, Boost::Mixed, Boost::Learned];

    fn object(self, layers: usize) -> Option<Value> {
        let rising: Vec<f64> = (0..layers).map(|l| 0.35 * l as f64 / (layers - 1).max(1) as f64).collect();
        match self {
            Boost::Plain => None,
            Boost::Sibo => Some(json!({"lambda": 0.35})),
            Boost::Rms => Some(json!({"lambda": rising, "h0": "rms", "skip": "mixed"})),
            Boost::Mixed => Some(json!({"lambda": 0.3, "skip": "mixed"})),
            Boost::Learned => Some(json!({"lambda": "learned", "lambda_init": 0.3})),
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What trains.
    pub method: Method,
    /// On which model.
    pub backbone: Backbone,
    /// With which SIBO settings.
    pub boost: Boost,
}

impl Case {
    /// The whole table.
    pub fn all() -> Vec<Case> {
        let mut all = Vec::new();
        for backbone in BACKBONES {
            for method in METHODS {
                all.extend(Boost::ALL.map(|boost| Case { method, backbone, boost }));
            }
        }
        all
    }

    /// For messages.
    pub fn name(&self) -> String {
        format!("{} / {} / {:?}", self.method.name, self.backbone.name, self.boost)
    }

    /// A part of the sentence with which this combination must be refused, if it must be.
    pub fn refusal(&self) -> Option<&'static str> {
        let Case { method, backbone, boost } = self;
        let boosted = *boost != Boost::Plain;
        match method.name {
            "head" | "bitfit" | "full" if boosted => Some("has no branch that could read h0"),
            "head" if backbone.family.is_decoder() => {
                Some("trains a classification head, and this model has none")
            }
            "bitfit" if !backbone.biases => Some("finds nothing to train"),
            "in_linear" | "in_linear-all" if !backbone.family.is_decoder() => {
                Some("takes houlsby, pfeiffer or parallel")
            }
            "pfeiffer-on-sum" | "houlsby-on-sum" if matches!(boost, Boost::Rms | Boost::Mixed) => {
                Some("skip `mixed` has no meaning with original_ln_before")
            }
            "lora-down" if boosted => Some("SIBO enters none of the branches"),
            _ => None,
        }
    }

    /// The model's folder.
    pub fn folder(&self) -> PathBuf {
        data().join("models").join(self.backbone.name)
    }

    /// How the model is loaded.
    pub fn options(&self, compute: Compute) -> LoadOptions {
        LoadOptions { compute, classes: self.backbone.classes, seed: 5, keep_layers: None }
    }

    /// The model without the adapter.
    pub fn base(&self) -> Model {
        Model::load(&self.folder(), &self.options(Compute::F32))
            .unwrap_or_else(|e| panic!("{}: {e}", self.name()))
            .model
    }

    /// The recipe's `[adapter]` table.
    pub fn recipe(&self, layers: usize) -> Value {
        let mut recipe = (self.method.recipe)(self.backbone.family);
        let task = if self.backbone.family.is_decoder() { "CAUSAL_LM" } else { "SEQ_CLS" };
        recipe["task_type"] = task.into();
        if let Some(sibo) = self.boost.object(layers) {
            recipe["sibo"] = sibo;
        }
        recipe
    }

    /// The model with a fresh adapter, or why it is refused.
    pub fn fresh(&self) -> Result<Model, String> {
        self.fresh_in(Compute::F32)
    }

    /// The same in the given arithmetic.
    pub fn fresh_in(&self, compute: Compute) -> Result<Model, String> {
        let mut model = Model::load(&self.folder(), &self.options(compute)).map_err(|e| e.to_string())?.model;
        let recipe = self.recipe(model.arch().layers);
        let config = AdapterConfig::from_recipe("recipe", &recipe).map_err(|e| e.to_string())?;
        model.attach(&config, 23).map_err(|e| e.to_string())?;
        Ok(model)
    }

    /// The model with an adapter that has learned something: no tensor is at its initial value or zero.
    pub fn trained(&self) -> Model {
        self.trained_in(Compute::F32)
    }

    /// The same in the given arithmetic.
    pub fn trained_in(&self, compute: Compute) -> Model {
        let mut model = self.fresh_in(compute).unwrap_or_else(|e| panic!("{}: {e}", self.name()));
        disturb(&mut model);
        model
    }
}

/// Moves every trained number by up to 0.15.
pub fn disturb(model: &mut Model) {
    for (at, param) in model.params_mut().iter_mut().enumerate() {
        let moves = noise(param.value.len(), 77 + at as u64);
        param.value.iter_mut().zip(moves).for_each(|(v, m)| *v += 0.15 * m);
    }
}
