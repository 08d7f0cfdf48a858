//! Small models and made-up rows for this crate's tests: odd sizes, no zeros, several lengths.

use crate::data::{Dataset, Label, LabelledRow};
use crate::prepare;
use crate::recipe::Training;
use serde_json::{Value, json};
use sibo_model::{LoadOptions, Model, Row};
use sibo_peft::{AdapterConfig, init};
use std::path::{Path, PathBuf};

/// A model of the parity fixtures with an adapter from a recipe's table.
pub(crate) fn model(name: &str, adapter: Value) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/models").join(name);
    let mut model = Model::load(&folder, &LoadOptions::default()).unwrap().model;
    let config = AdapterConfig::from_recipe("test", &adapter).unwrap();
    prepare::attach(&mut model, &config, name, 5).unwrap();
    model
}

/// A model of so many layers, open, with an adapter.
pub(crate) fn open_model(adapter: Value, layers: usize) -> Model {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 256, "intermediate_size": 384,
        "num_hidden_layers": layers, "num_attention_heads": 4, "vocab_size": 96, "tie_word_embeddings": false,
    });
    sibo_model::write_random(&config, dir.path(), None, 3).unwrap();
    let mut model = Model::open(dir.path(), &LoadOptions::default()).unwrap().model;
    let config = AdapterConfig::from_recipe("test", &adapter).unwrap();
    prepare::attach(&mut model, &config, "random", 5).unwrap();
    model
}

/// SIBO-LoRA with dropout, for either family.
pub(crate) fn sibo_lora(targets: &[&str]) -> Value {
    json!({"method": "lora", "r": 5, "lora_alpha": 7, "lora_dropout": 0.15, "target_modules": targets,
           "sibo": {"lambda": 0.35}})
}

/// Numbers that look random and are the same everywhere.
pub(crate) fn number(seed: u64, below: u64) -> u64 {
    let z = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33) % below
}

fn ids(seed: u64, len: usize, vocab: u64) -> Vec<u32> {
    (0..len as u64).map(|i| (3 + number(seed * 97 + i, vocab - 3)) as u32).collect()
}

/// Rows of 3 to 13 tokens below `vocab`, about a third of them prompt.
pub(crate) fn token_rows(count: usize, vocab: u64) -> Dataset {
    let row = |i: u64| {
        let ids = ids(i, 3 + number(i, 11) as usize, vocab);
        let prompt = ids.len() / 3;
        let labels = ids.iter().enumerate().map(|(t, id)| if t < prompt { -100 } else { i64::from(*id) });
        LabelledRow {
            label: Label::Tokens(labels.collect()),
            row: Row { ids, types: vec![], sample: 10 + 3 * i },
        }
    };
    Dataset { rows: (0..count as u64).map(row).collect(), place: "made up".into(), ..Dataset::default() }
}

/// Rows of 4 to 14 tokens whose class (0 to `classes` - 1) is that of their second token.
pub(crate) fn class_rows(count: usize, vocab: u64, classes: u64) -> Dataset {
    let row = |i: u64| {
        let ids = ids(i + 1000, 4 + number(i, 11) as usize, vocab);
        let class = u64::from(ids[1]) % classes;
        let types = ids.iter().enumerate().map(|(t, _)| u32::from(t > 2)).collect();
        LabelledRow { label: Label::Class(class as u32), row: Row { ids, types, sample: 7 + 2 * i } }
    };
    Dataset { rows: (0..count as u64).map(row).collect(), place: "made up".into(), ..Dataset::default() }
}

/// Steps of 6 rows in micro-batches of 2, and a rate at which tiny models move.
pub(crate) fn training() -> Training {
    Training {
        learning_rate: 3e-2,
        per_device_train_batch_size: 2,
        gradient_accumulation_steps: 3,
        warmup_steps: Some(2),
        max_steps: Some(9),
        eval_steps: Some(2),
        save_total_limit: 2,
        ..Training::default()
    }
}

/// All trainable values, as bits.
pub(crate) fn bits(model: &Model) -> Vec<u32> {
    model.params().iter().flat_map(|p| p.value.iter().map(|v| v.to_bits())).collect()
}

/// A folder with a random model of that `kind` (`llama`, `bert`) and the tokenizer fixture that fits it.
pub(crate) fn folder(dir: &Path, kind: &str) -> PathBuf {
    folder_with(dir, kind, 1.0)
}

/// The same with token embeddings of `size` times the values, and a head of its own where that is not 1.
pub(crate) fn folder_with(dir: &Path, kind: &str, size: f32) -> PathBuf {
    let (tokenizer, vocab) = if kind == "bert" { ("bert", 211) } else { ("chatml", 331) };
    let out = dir.join(kind);
    std::fs::create_dir_all(&out).unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../text/tests/data").join(tokenizer);
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), out.join(entry.file_name())).unwrap();
    }
    let (mut config, mut shapes) = if kind == "bert" { bert(vocab) } else { llama(vocab) };
    if size != 1.0 {
        config["tie_word_embeddings"] = json!(false);
        shapes.push(("lm_head.weight".into(), vec![vocab, 12]));
    }
    std::fs::write(out.join("config.json"), config.to_string()).unwrap();
    let values: Vec<(String, Vec<usize>, Vec<f32>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let centre = if name.contains("norm") || name.contains("Norm") { 1.0 } else { 0.0 };
            let noise = init::normal(3, &name, shape.iter().product(), 0.15);
            let size = if name.contains("embed_tokens") { size } else { 1.0 };
            (name, shape, noise.into_iter().map(|v| size * v + centre).collect())
        })
        .collect();
    let tensors = values.iter().map(|(n, s, v)| (n.as_str(), s.as_slice(), v.as_slice()));
    sibo_files::write_tensors(&out.join("model.safetensors"), tensors, Default::default()).unwrap();
    out
}

type Shapes = Vec<(String, Vec<usize>)>;

fn llama(vocab: usize) -> (Value, Shapes) {
    let config = json!({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 12,
        "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 20, "num_hidden_layers": 2,
        "vocab_size": vocab, "max_position_embeddings": 160, "tie_word_embeddings": true, "rms_norm_eps": 1e-5});
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_string(), vec![vocab, 12]),
        ("model.norm.weight".to_string(), vec![12]),
    ];
    for l in 0..2 {
        for (name, shape) in [
            ("self_attn.q_proj", vec![12, 12]),
            ("self_attn.k_proj", vec![4, 12]),
            ("self_attn.v_proj", vec![4, 12]),
            ("self_attn.o_proj", vec![12, 12]),
            ("mlp.gate_proj", vec![20, 12]),
            ("mlp.up_proj", vec![20, 12]),
            ("mlp.down_proj", vec![12, 20]),
            ("input_layernorm", vec![12]),
            ("post_attention_layernorm", vec![12]),
        ] {
            shapes.push((format!("model.layers.{l}.{name}.weight"), shape));
        }
    }
    (config, shapes)
}

fn bert(vocab: usize) -> (Value, Shapes) {
    let config = json!({"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 12,
        "num_attention_heads": 3, "intermediate_size": 20, "num_hidden_layers": 2, "vocab_size": vocab,
        "max_position_embeddings": 64, "type_vocab_size": 2});
    let mut shapes = Shapes::new();
    let mut push = |name: String, sizes: &[&[usize]]| {
        for (part, size) in ["weight", "bias"].iter().zip(sizes) {
            shapes.push((format!("{name}.{part}"), size.to_vec()));
        }
    };
    push("embeddings.word_embeddings".into(), &[&[vocab, 12]]);
    push("embeddings.position_embeddings".into(), &[&[64, 12]]);
    push("embeddings.token_type_embeddings".into(), &[&[2, 12]]);
    push("embeddings.LayerNorm".into(), &[&[12], &[12]]);
    push("pooler.dense".into(), &[&[12, 12], &[12]]);
    for l in 0..2 {
        for (name, sizes) in [
            ("attention.self.query", [&[12, 12][..], &[12][..]]),
            ("attention.self.key", [&[12, 12], &[12]]),
            ("attention.self.value", [&[12, 12], &[12]]),
            ("attention.output.dense", [&[12, 12], &[12]]),
            ("attention.output.LayerNorm", [&[12], &[12]]),
            ("intermediate.dense", [&[20, 12], &[20]]),
            ("output.dense", [&[12, 20], &[12]]),
            ("output.LayerNorm", [&[12], &[12]]),
        ] {
            push(format!("encoder.layer.{l}.{name}"), &sizes);
        }
    }
    (config, shapes)
}
