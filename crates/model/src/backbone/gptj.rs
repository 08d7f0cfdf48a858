//! GPT-J (6B, EleutherAI): causal, one LayerNorm before attention and FFN side by side, rotary positions
//! over interleaved pairs of the first `rotary_dim` of each head, tanh GELU, a head with a bias.

use super::{Backbone, Names};
use crate::Error;
use crate::arch::{Arch, BaseDropout, Biases, Block, NormKind, Positions};
use crate::config::ConfigReader;
use crate::rope::{RopeScaling, RopeSpec};
use sibo_kernels::rope::RopeStyle;
use sibo_peft::shape::Reference;

static NAMES: Names = Names {
    family: "GPT-J",
    prefix: "transformer.",
    layers: "h",
    attention: ["attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.out_proj"],
    gate: None,
    ffn: ["mlp.fc_in", "mlp.fc_out"],
    norms: &["ln_1"],
    words: "wte",
    positions: None,
    types: None,
    embedding_norm: None,
    final_norm: Some("ln_f"),
    classifier: None,
    default_targets: &["q_proj", "v_proj"],
    in_linear: &[("fc_in", true), ("fc_out", false)],
    // The release mixes h0 into the whole MLP input, which is no branch: only its LoRA has a form here.
    reference: Some(Reference { lora: "fc_in", in_linear: &[] }),
    ignored: &["h.*.attn.bias", "h.*.attn.masked_bias", "h.*.attn.embed_positions", "lm_head.*"],
};

/// GPT-J.
pub(crate) static GPTJ: Backbone = Backbone { model_types: &["gptj"], read };

fn read(reader: &mut ConfigReader) -> Result<Arch, Error> {
    let width = reader.size("n_embd", 4096)?;
    let heads = reader.size("n_head", 16)?;
    if width % heads != 0 {
        return Err(reader.error("n_head", format!("{heads} heads do not divide the width {width}")));
    }
    let head_dim = width / heads;
    let rotary_dim = reader.nullable_size("rotary_dim", Some(64))?.unwrap_or(head_dim);
    if rotary_dim > head_dim || rotary_dim % 2 != 0 {
        return Err(reader.error(
            "rotary_dim",
            format!("{rotary_dim} must be even and at most the head's width, {head_dim}"),
        ));
    }
    let positions = reader.size("n_positions", 2048)?;
    let hidden = reader.probability("resid_pdrop", 0.0)?;
    Ok(Arch {
        names: &NAMES,
        width,
        layers: reader.size("n_layer", 28)?,
        cut_from: None,
        heads,
        kv_heads: heads,
        head_dim,
        inner: reader.optional_size("n_inner")?.unwrap_or(4 * width),
        vocab: reader.size("vocab_size", 50400)?,
        types: 0,
        norm: NormKind::Layer,
        eps: reader.not_negative("layer_norm_epsilon", 1e-5)? as f32,
        block: Block::Parallel,
        positions: Positions::Rope(RopeSpec {
            style: RopeStyle::Interleaved,
            rotary_dim,
            theta: 10_000.0,
            scaling: RopeScaling::None,
        }),
        activation: reader.activation("activation_function", "gelu_new")?,
        causal: true,
        biases: Biases { qkv: false, out: false, ffn: true, head: true },
        tied: reader.flag("tie_word_embeddings", false)?,
        untied: false,
        head: reader.decoder_head()?,
        pooler: false,
        dropout: BaseDropout {
            embedding: reader.probability("embd_pdrop", 0.0)?,
            hidden,
            attention: reader.probability("attn_pdrop", 0.0)?,
            classifier: 0.0,
        },
        padding: None,
        max_len: Some(positions),
        window: None,
        init_sd: reader.number("initializer_range", 0.02)? as f32,
    })
}
