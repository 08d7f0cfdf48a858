//! BERT (arXiv 1810.04805) and RoBERTa (arXiv 1907.11692): bidirectional, post-norm, learned positions,
//! erf GELU. They differ in how positions are counted and in the classification head.

use super::{Backbone, Names};
use crate::Error;
use crate::arch::{Arch, BaseDropout, Biases, Block, NormKind, Positions};
use crate::config::ConfigReader;

const BERT_NAMES: Names = Names {
    family: "BERT",
    prefix: "bert.",
    layers: "encoder.layer",
    attention: [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
    ],
    gate: None,
    ffn: ["intermediate.dense", "output.dense"],
    norms: &["attention.output.LayerNorm", "output.LayerNorm"],
    words: "embeddings.word_embeddings",
    positions: Some("embeddings.position_embeddings"),
    types: Some("embeddings.token_type_embeddings"),
    embedding_norm: Some("embeddings.LayerNorm"),
    final_norm: None,
    classifier: Some((None, "classifier")),
    default_targets: &["query", "value"],
    in_linear: &[],
    reference: None,
    ignored: &["embeddings.position_ids", "embeddings.token_type_ids", "cls.*", "lm_head.*", "pooler.*"],
};

static BERT_STATIC: Names = BERT_NAMES;
static ROBERTA_STATIC: Names = Names {
    family: "RoBERTa",
    prefix: "roberta.",
    classifier: Some((Some("classifier.dense"), "classifier.out_proj")),
    ..BERT_NAMES
};

/// BERT.
pub(crate) static BERT: Backbone = Backbone { model_types: &["bert"], read: |reader| read(reader, false) };

/// RoBERTa and the models of its form.
pub(crate) static ROBERTA: Backbone =
    Backbone { model_types: &["roberta", "xlm-roberta", "camembert"], read: |reader| read(reader, true) };

fn read(reader: &mut ConfigReader, roberta: bool) -> Result<Arch, Error> {
    let width = reader.size("hidden_size", 768)?;
    let heads = reader.size("num_attention_heads", 12)?;
    if width % heads != 0 {
        return Err(
            reader.error("num_attention_heads", format!("{heads} heads do not divide the width {width}"))
        );
    }
    reader.only("position_embedding_type", "absolute")?;
    reader.only_false("is_decoder")?;
    reader.only_false("add_cross_attention")?;
    reader.only_default("chunk_size_feed_forward", 0.0)?;
    // It ties the masked-LM head, which is not read.
    reader.ignore("tie_word_embeddings");
    let vocab = reader.size("vocab_size", if roberta { 50265 } else { 30522 })?;
    let padding = match roberta {
        false => reader.padding(vocab, Some(0))?,
        true => {
            let id = reader.token("pad_token_id", Some(1))?;
            let none = "there is none, and positions are counted from it; a token's id is needed (1 in published models)";
            Some(id.ok_or_else(|| reader.error("pad_token_id", none))?)
        }
    };
    let count = reader.size("max_position_embeddings", 512)?;
    let first = if roberta { padding.unwrap_or(1) as usize + 1 } else { 0 };
    let hidden = reader.probability("hidden_dropout_prob", 0.1)?;
    let attention = reader.probability("attention_probs_dropout_prob", 0.1)?;
    let classifier = reader.optional_probability("classifier_dropout")?.unwrap_or(hidden);
    Ok(Arch {
        names: if roberta { &ROBERTA_STATIC } else { &BERT_STATIC },
        width,
        layers: reader.size("num_hidden_layers", 12)?,
        cut_from: None,
        heads,
        kv_heads: heads,
        head_dim: width / heads,
        inner: reader.size("intermediate_size", 3072)?,
        vocab,
        types: reader.size("type_vocab_size", 2)?,
        norm: NormKind::Layer,
        eps: reader.not_negative("layer_norm_eps", 1e-12)? as f32,
        block: Block::PostNorm,
        positions: Positions::Learned { count, skip_padding: roberta.then_some(padding.unwrap_or(1)) },
        activation: reader.activation("hidden_act", "gelu")?,
        causal: false,
        biases: Biases { qkv: true, out: true, ffn: true, head: false },
        tied: false,
        untied: false,
        head: reader.encoder_head()?,
        pooler: false,
        dropout: BaseDropout { embedding: hidden, hidden, attention, classifier },
        padding,
        max_len: Some(count.saturating_sub(first)),
        window: None,
        init_sd: reader.number("initializer_range", 0.02)? as f32,
    })
}
