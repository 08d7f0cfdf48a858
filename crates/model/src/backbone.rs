//! The backbones as data: one file each, joined here.

mod bert;
mod gptj;
mod llama;

use crate::Error;
use crate::arch::Arch;
use crate::config::ConfigReader;
use sibo_peft::shape::Reference;

/// Hugging Face's names for the parts of a family, below the prefix and the layer's path.
#[derive(Debug)]
pub struct Names {
    /// The family in words.
    pub family: &'static str,
    /// `bert.`, `roberta.`, `model.` or `transformer.`; absent in headless folders.
    pub prefix: &'static str,
    /// Path of the list of layers.
    pub layers: &'static str,
    /// Query, key, value and output projection.
    pub attention: [&'static str; 4],
    /// The FFN's gate, where there is one.
    pub gate: Option<&'static str>,
    /// The FFN's first and last linear.
    pub ffn: [&'static str; 2],
    /// The norms of a layer; one for parallel blocks.
    pub norms: &'static [&'static str],
    /// Word embedding.
    pub words: &'static str,
    /// Position embedding.
    pub positions: Option<&'static str>,
    /// Token type embedding.
    pub types: Option<&'static str>,
    /// Norm over the embeddings.
    pub embedding_norm: Option<&'static str>,
    /// Norm after the last layer.
    pub final_norm: Option<&'static str>,
    /// The classifier: its first linear (RoBERTa) and its last.
    pub classifier: Option<(Option<&'static str>, &'static str)>,
    /// PEFT's default `target_modules`.
    pub default_targets: &'static [&'static str],
    /// LLM-Adapters' linears and whether the adapter stands before them.
    pub in_linear: &'static [(&'static str, bool)],
    /// What the released SIBO code injects.
    pub reference: Option<Reference>,
    /// Tensors that may stand in a file and mean nothing here: `*` stands for anything.
    pub ignored: &'static [&'static str],
}

/// One family of `model_type`s.
pub(crate) struct Backbone {
    /// The `model_type`s that it reads.
    pub model_types: &'static [&'static str],
    /// From `config.json`.
    pub read: fn(&mut ConfigReader) -> Result<Arch, Error>,
}

const ALL: [&Backbone; 4] = [&bert::BERT, &bert::ROBERTA, &llama::LLAMA, &gptj::GPTJ];

/// The backbone that reads `model_type`.
pub(crate) fn of(model_type: &str) -> Option<&'static Backbone> {
    ALL.into_iter().find(|b| b.model_types.contains(&model_type))
}

/// Every `model_type` that can be loaded.
pub(crate) fn model_types() -> Vec<&'static str> {
    ALL.into_iter().flat_map(|b| b.model_types.iter().copied()).collect()
}

/// Whether `name` fits `pattern`, in which `*` stands for anything.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => {
            let Some(tail) = name.strip_prefix(start) else { return false };
            rest.is_empty() || (0..=tail.len()).any(|at| tail.is_char_boundary(at) && fits(rest, &tail[at..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert!(fits("h.*.attn.masked_bias", "h.12.attn.masked_bias"));
        assert!(!fits("h.*.attn.masked_bias", "h.12.attn.bias"));
        assert!(fits("cls.*", "cls.predictions.bias"));
        assert!(!fits("cls.*", "classifier.bias"));
        assert!(fits("*position_ids", "embeddings.position_ids"));
    }
}
