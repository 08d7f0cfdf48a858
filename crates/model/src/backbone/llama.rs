//! LLaMA (arXiv 2302.13971), Mistral and Qwen2: causal, pre-norm with RMSNorm, rotary positions over
//! halves of each head, a gated FFN, grouped key/value heads. One layer, other data.

use super::{Backbone, Names};
use crate::Error;
use crate::arch::{Arch, BaseDropout, Biases, Block, NormKind, Positions};
use crate::config::ConfigReader;
use sibo_kernels::rope::RopeStyle;
use sibo_peft::shape::Reference;

static NAMES: Names = Names {
    family: "LLaMA",
    prefix: "model.",
    layers: "layers",
    attention: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"],
    gate: Some("mlp.gate_proj"),
    ffn: ["mlp.up_proj", "mlp.down_proj"],
    norms: &["input_layernorm", "post_attention_layernorm"],
    words: "embed_tokens",
    positions: None,
    types: None,
    embedding_norm: None,
    final_norm: Some("norm"),
    classifier: None,
    default_targets: &["q_proj", "v_proj"],
    in_linear: &[("gate_proj", true), ("up_proj", true), ("down_proj", false)],
    reference: Some(Reference { lora: "up_proj", in_linear: &["gate_proj", "up_proj"] }),
    ignored: &["*rotary_emb.inv_freq", "lm_head.*"],
};

/// LLaMA and the models of its form.
pub(crate) static LLAMA: Backbone = Backbone { model_types: &["llama", "mistral", "qwen2"], read };

fn read(reader: &mut ConfigReader) -> Result<Arch, Error> {
    let kind = reader.model_type().to_string();
    let (inner, kv_default, max_len) = match kind.as_str() {
        "mistral" => (14336, Some(8), 131_072),
        "qwen2" => (22016, Some(32), 32768),
        _ => (11008, None, 2048),
    };
    let width = reader.size("hidden_size", 4096)?;
    let heads = reader.size("num_attention_heads", 32)?;
    // null means as many as query heads; Mistral, which has no such rule, keeps its default.
    let kv_heads = match kind.as_str() {
        "mistral" => reader.optional_size("num_key_value_heads")?.or(kv_default),
        _ => reader.nullable_size("num_key_value_heads", kv_default)?,
    }
    .unwrap_or(heads);
    if heads % kv_heads != 0 {
        return Err(reader.error(
            "num_key_value_heads",
            format!("{kv_heads} key/value heads do not divide {heads} query heads"),
        ));
    }
    let head_dim = match reader.optional_size("head_dim")? {
        Some(head_dim) => head_dim,
        None if width % heads == 0 => width / heads,
        None => {
            return Err(reader.error(
                "num_attention_heads",
                format!("{heads} heads do not divide the width {width}, and there is no head_dim"),
            ));
        }
    };
    let max_positions = reader.size("max_position_embeddings", max_len)?;
    let rope = reader.rope(RopeStyle::Halves, head_dim, max_positions)?;
    let (attention_bias, mlp_bias) = match kind.as_str() {
        "llama" => (reader.flag("attention_bias", false)?, reader.flag("mlp_bias", false)?),
        _ => (false, false),
    };
    let vocab = reader.size("vocab_size", if kind == "qwen2" { 151_936 } else { 32000 })?;
    // More than one rank only splits the same products (a trace of the original training).
    reader.ignore("pretraining_tp");
    let layers = reader.size("num_hidden_layers", 32)?;
    Ok(Arch {
        names: &NAMES,
        width,
        layers,
        cut_from: None,
        heads,
        kv_heads,
        head_dim,
        inner: reader.size("intermediate_size", inner)?,
        vocab,
        types: 0,
        norm: NormKind::Rms,
        eps: reader.not_negative("rms_norm_eps", 1e-6)? as f32,
        block: Block::PreNorm,
        positions: Positions::Rope(rope),
        activation: reader.activation("hidden_act", "silu")?,
        causal: true,
        biases: Biases {
            qkv: attention_bias || kind == "qwen2",
            out: attention_bias,
            ffn: mlp_bias,
            head: false,
        },
        tied: reader.flag("tie_word_embeddings", false)?,
        untied: false,
        head: reader.decoder_head()?,
        pooler: false,
        dropout: BaseDropout {
            embedding: 0.0,
            hidden: 0.0,
            attention: reader.probability("attention_dropout", 0.0)?,
            classifier: 0.0,
        },
        padding: reader.padding(vocab, None)?,
        max_len: None,
        window: window(reader, &kind, layers)?,
        init_sd: reader.number("initializer_range", 0.02)? as f32,
    })
}

/// Mistral's window holds unless it is null; Qwen2's only where it is switched on and a layer uses it: one that
/// `layer_types` names, or, without that list, one from `max_window_layers` on.
fn window(reader: &mut ConfigReader, kind: &str, layers: usize) -> Result<Option<usize>, Error> {
    match kind {
        "mistral" => reader.nullable_size("sliding_window", Some(4096)),
        "qwen2" => {
            let window = reader.nullable_size("sliding_window", Some(4096))?;
            let on = reader.flag("use_sliding_window", false)?;
            let first = reader.typed("max_window_layers", "a whole number", |v| v.as_u64())?.unwrap_or(28);
            let listed = reader.has("layer_types");
            let sliding = reader.mentions("layer_types", "sliding_attention");
            Ok(window.filter(|_| if listed { sliding } else { on && first < layers as u64 }))
        }
        _ => Ok(None),
    }
}
