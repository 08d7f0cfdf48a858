//! The structure of a model: twelve facts in which the backbones differ, read from `config.json`.

use crate::backbone::Names;
use crate::rope::RopeSpec;
use sibo_kernels::activation::Activation;
use sibo_kernels::attention::AttnShape;

/// Which normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// LayerNorm with weight and bias.
    Layer,
    /// RMSNorm with weight only.
    Rms,
}

/// How a layer is wired (drawing in the crate's documentation).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    /// Norm after each residual sum.
    PostNorm,
    /// Norm before each sub-layer.
    PreNorm,
    /// One norm before both sub-layers, which run side by side.
    Parallel,
}

/// Where positions enter.
#[derive(Debug, Clone, PartialEq)]
pub enum Positions {
    /// Learned rows, `count` of them. RoBERTa counts from its padding id + 1 and leaves padding tokens out.
    Learned {
        /// Rows of the table.
        count: usize,
        /// RoBERTa's padding id, where the model counts its way.
        skip_padding: Option<u32>,
    },
    /// Rotations of queries and keys.
    Rope(RopeSpec),
}

/// What stands on top of the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadKind {
    /// Nothing: hidden states only.
    None,
    /// Scores over the vocabulary.
    CausalLm,
    /// Scores over classes, or one number.
    Classes(usize),
}

/// A model's structure.
#[derive(Debug, Clone)]
pub struct Arch {
    /// Hugging Face's names for this family.
    pub names: &'static Names,
    /// D.
    pub width: usize,
    /// L.
    pub layers: usize,
    /// The layers of the whole model, where only its first L are kept.
    pub cut_from: Option<usize>,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// C, the width of a head.
    pub head_dim: usize,
    /// F.
    pub inner: usize,
    /// V, rows of the embedding.
    pub vocab: usize,
    /// Rows of the token type table, 0 where there is none.
    pub types: usize,
    /// Norm.
    pub norm: NormKind,
    /// The norms' epsilon.
    pub eps: f32,
    /// Wiring.
    pub block: Block,
    /// Positions.
    pub positions: Positions,
    /// The FFN's non-linearity; with a gate, that of the gate.
    pub activation: Activation,
    /// Whether the mask is causal.
    pub causal: bool,
    /// Which linears have a bias.
    pub biases: Biases,
    /// Whether the head shares the embedding.
    pub tied: bool,
    /// Whether `config.json` says so and the files hold a head of its own.
    pub untied: bool,
    /// The head.
    pub head: HeadKind,
    /// Whether the folder has a pooler (BERT, RoBERTa).
    pub pooler: bool,
    /// The base model's own dropout.
    pub dropout: BaseDropout,
    /// Rows of the embedding that training leaves alone (`padding_idx`).
    pub padding: Option<u32>,
    /// The longest row that the model can take at all, where there is such a limit.
    pub max_len: Option<usize>,
    /// The longest row before a sliding window would change the result.
    pub window: Option<usize>,
    /// Standard deviation of fresh heads (`initializer_range`).
    pub init_sd: f32,
}

/// Which linears of a layer carry a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Biases {
    /// Query, key, value.
    pub qkv: bool,
    /// Attention's output projection.
    pub out: bool,
    /// The FFN's linears.
    pub ffn: bool,
    /// The causal head.
    pub head: bool,
}

/// Dropout of the base model, on while training unless switched off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BaseDropout {
    /// After the embeddings.
    pub embedding: f32,
    /// On what a sub-layer adds to the residual stream.
    pub hidden: f32,
    /// On attention probabilities.
    pub attention: f32,
    /// Before a classification head.
    pub classifier: f32,
}

impl BaseDropout {
    /// Whether any of it is above zero.
    pub fn any(&self) -> bool {
        [self.embedding, self.hidden, self.attention, self.classifier].iter().any(|p| *p > 0.0)
    }
}

impl Arch {
    /// What attention needs to know.
    pub fn attention(&self) -> AttnShape {
        AttnShape {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            causal: self.causal,
            scale: 1.0 / (self.head_dim as f32).sqrt(),
        }
    }

    /// What a cut model must be called wherever its numbers are shown; nothing for a whole one.
    pub fn damage(&self) -> Option<String> {
        self.cut_from.map(|all| format!("a damaged model: the first {} of {all} layers", self.layers))
    }

    /// Width of the queries.
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of keys and of values.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// The prefix of the backbone's tensors: empty in a headless folder.
    pub fn prefix(&self) -> &'static str {
        if self.head == HeadKind::None { "" } else { self.names.prefix }
    }

    /// Path of the embedding of words, such as `model.embed_tokens`.
    pub fn words_path(&self) -> String {
        format!("{}{}", self.prefix(), self.names.words)
    }

    /// Path of layer `layer`, such as `model.layers.3`.
    pub fn layer_path(&self, layer: usize) -> String {
        format!("{}{}.{layer}", self.prefix(), self.names.layers)
    }
}
