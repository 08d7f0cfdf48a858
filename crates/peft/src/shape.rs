//! How a model describes itself to the methods: its linear modules, where they sit, what they read.

/// A place in a transformer where a method can act. Each is passed once in every layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Site {
    /// The query projection.
    Query,
    /// The key projection.
    Key,
    /// The value projection.
    Value,
    /// The projection after attention.
    AttnOut,
    /// The FFN's first projection.
    FfnUp,
    /// The FFN's gate projection, where there is one.
    FfnGate,
    /// The FFN's last projection, back to the width of the residual stream.
    FfnDown,
    /// The attention sub-layer as a whole.
    Attention,
    /// The FFN sub-layer as a whole.
    Ffn,
    /// Outside the layers: embeddings, pooler, heads.
    Outside,
}

impl Site {
    /// A number for addressed randomness; part of the meaning of a seed, so never renumbered.
    pub fn salt(self) -> u64 {
        match self {
            Site::Query => 1,
            Site::Key => 2,
            Site::Value => 3,
            Site::AttnOut => 4,
            Site::FfnUp => 5,
            Site::FfnGate => 6,
            Site::FfnDown => 7,
            Site::Attention => 8,
            Site::Ffn => 9,
            Site::Outside => 10,
        }
    }

    /// The kind of state that a branch here reads, in words; sites that read the same state are one kind.
    pub fn kind(self) -> &'static str {
        match self {
            Site::Query | Site::Key | Site::Value => "attention input",
            Site::AttnOut => "attention heads",
            Site::Attention => "after attention",
            Site::FfnUp | Site::FfnGate => "FFN input",
            Site::FfnDown => "FFN inner",
            Site::Ffn => "after FFN",
            Site::Outside => "outside",
        }
    }
}

/// What a module multiplies with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModuleKind {
    /// `torch.nn.Linear`: weight (out, in).
    Linear,
    /// `torch.nn.Embedding`: weight (rows, width).
    Embedding,
}

/// One module of the model that PEFT could target.
#[derive(Debug, Clone)]
pub struct Module {
    /// Hugging Face's path, such as `model.layers.0.self_attn.q_proj`.
    pub path: String,
    /// The layer that it belongs to.
    pub layer: Option<usize>,
    /// Where in the layer.
    pub site: Site,
    /// Its kind.
    pub kind: ModuleKind,
    /// In features; rows of an embedding.
    pub inp: usize,
    /// Out features; width of an embedding.
    pub out: usize,
}

impl Module {
    /// The last part of the path.
    pub fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or(&self.path)
    }

    /// Whether SIBO can enter a branch beside this module.
    pub fn injectable(&self, width: usize) -> bool {
        self.closed(width).is_none()
    }

    /// Why SIBO cannot enter a branch beside this module, where it cannot: it must lie inside a layer and read the token's
    /// state, `width` wide. A fact about the site, never about the module's name (trace.md, "Injectable").
    pub fn closed(&self, width: usize) -> Option<&'static str> {
        match self.site {
            _ if self.layer.is_none() => Some("it lies outside the layers"),
            Site::FfnDown => Some("its branch reads the FFN's inner state, not the token's state"),
            Site::Query | Site::Key | Site::Value | Site::FfnUp | Site::FfnGate | Site::AttnOut
                if self.inp == width =>
            {
                None
            }
            _ => Some("its branch does not read a state as wide as h0"),
        }
    }
}

/// What the methods need to know of a model.
#[derive(Debug, Clone)]
pub struct ModelShape {
    /// The model's family in words, for messages.
    pub family: &'static str,
    /// D, the width of the residual stream.
    pub width: usize,
    /// Whether the FFN reads the residual stream through a norm, and not as it is (post-norm).
    pub norm_before_ffn: bool,
    /// Linear and embedding modules: the tables, the layers one after the other, the head.
    pub modules: Vec<Module>,
    /// Path of each layer, such as `transformer.h.2`.
    pub layer_paths: Vec<String>,
    /// All base tensors: name in the Hugging Face model, and shape.
    pub tensors: Vec<(String, Vec<usize>)>,
    /// Tensors that share another's values (a tied head): PEFT gives them their own when they are saved whole.
    pub tied: Vec<(String, Vec<usize>)>,
    /// PEFT's default `target_modules` for this family.
    pub default_targets: &'static [&'static str],
    /// Suffixes of the linears that carry LLM-Adapters' in-linear adapters, and whether the adapter
    /// stands before the frozen product; empty where that project has no such model.
    pub in_linear: &'static [(&'static str, bool)],
    /// What the released SIBO code injects: the LoRA module, and whether its in-linear adapter has a
    /// form that one branch can express.
    pub reference: Option<Reference>,
    /// The output head that `all-linear` leaves out.
    pub output_module: Option<String>,
    /// The classification head's module, trained and saved with every method.
    pub class_head: Option<String>,
}

/// The released SIBO code's choice for a family (method.md, "The paper's words and the released code differ").
#[derive(Debug, Clone, Copy)]
pub struct Reference {
    /// The module whose LoRA branch it injects.
    pub lora: &'static str,
    /// Suffixes of the linears whose in-linear adapter it injects; empty where its form is another.
    pub in_linear: &'static [&'static str],
}
