//! Embedding and head where the files say other than `config.json` or the base: what transformers and PEFT make of them.

use serde_json::json;
use sibo_files::TensorFile;
use sibo_model::{Batch, Labels, LoadOptions, Model, Row};
use sibo_peft::AdapterConfig;
use sibo_tests::data;
use sibo_tests::folders::{Scratch, Tensors};
use std::path::Path;

const FILE: &str = "model.safetensors";
const WORDS: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

fn loss(mut model: Model) -> f64 {
    let ids: Vec<u32> = (0..19).map(|i| i * 7 % 41).collect();
    let labels = Labels::Tokens(vec![ids.iter().map(|i| i64::from(*i)).collect()]);
    let batch = Batch::new(model.arch(), &[Row { ids, ..Row::default() }]).expect("a row");
    model.loss(&batch, &labels).loss_sum
}

fn loaded(folder: &Scratch) -> Model {
    Model::load(folder.path(), &LoadOptions::default()).expect("sound").model
}

/// The stored model whose head is its embedding, with its tensors changed.
fn tied(change: impl FnOnce(&mut Tensors)) -> Model {
    let folder = Scratch::model("llama-tied");
    folder.tensors(FILE, change);
    loaded(&folder)
}

fn turned(mut table: (Vec<usize>, Vec<f32>)) -> (Vec<usize>, Vec<f32>) {
    table.1.reverse();
    table
}

#[test]
fn a_stored_head_that_differs_is_a_head_of_its_own() {
    let differs = |t: &mut Tensors| drop(t.insert(HEAD.into(), turned(t[WORDS].clone())));
    let model = tied(differs);
    assert!(!model.arch().tied);
    let apart = Scratch::model("llama-tied");
    apart.tensors(FILE, differs);
    apart.json("config.json", |c| c["tie_word_embeddings"] = false.into());
    let (got, own) = (loss(model), loss(loaded(&apart)));
    assert_eq!(got, own);
    assert_ne!(got, loss(tied(|_| {})));
}

#[test]
fn a_stored_copy_and_a_head_stored_alone_are_the_embedding() {
    let want = loss(tied(|_| {}));
    let copy = tied(|t| drop(t.insert(HEAD.into(), t[WORDS].clone())));
    let alone = tied(|t| {
        let table = t.remove(WORDS).expect("the table");
        t.insert(HEAD.into(), table);
    });
    for model in [copy, alone] {
        assert!(model.arch().tied);
        assert_eq!(loss(model), want);
    }
}

fn with_adapter(base: &Path, adapter: &Scratch) -> Result<f64, String> {
    let loaded = Model::load_with_adapter(base, adapter.path(), LoadOptions::default());
    loaded.map(|l| loss(l.model)).map_err(|e| e.to_string())
}

/// Beside LoRA on an embedding or a head PEFT writes the frozen table, and reads it over the base's.
#[test]
fn tables_in_an_adapters_folder_are_taken() {
    const COPY: &str = "base_model.model.model.embed_tokens.base_layer.weight";
    let stored = data().join("models").join("llama-gqa");
    let adapter = Scratch::adapter("llama-gqa-lora-embedding");
    let before = with_adapter(&stored, &adapter).expect("sound");
    adapter.tensors("adapter_model.safetensors", |t| drop(t.insert(COPY.into(), turned(t[COPY].clone()))));
    let got = with_adapter(&stored, &adapter).expect("a table of the base's shape");
    let base = Scratch::model("llama-gqa");
    base.tensors(FILE, |t| drop(t.insert(WORDS.into(), turned(t[WORDS].clone()))));
    assert_eq!(got, with_adapter(base.path(), &adapter).expect("sound"));
    assert_ne!(got, before);
    // With `save_embedding_layers` it stands there by itself, beside any LoRA.
    let alone = Scratch::adapter("llama-gqa-lora");
    let plain = with_adapter(&stored, &alone).expect("sound");
    let table =
        TensorFile::open(&stored.join(FILE)).and_then(|mut f| f.read(WORDS)).expect("the base's table");
    let table = turned((table.shape.clone(), table.into_f32()));
    alone
        .tensors("adapter_model.safetensors", |t| drop(t.insert(format!("base_model.model.{WORDS}"), table)));
    let got = with_adapter(&stored, &alone).expect("a table of the base's shape");
    assert_eq!(got, with_adapter(base.path(), &Scratch::adapter("llama-gqa-lora")).expect("sound"));
    assert_ne!(got, plain);
    adapter.tensors("adapter_model.safetensors", |t| {
        let (shape, values) = t.get_mut(COPY).expect("the copy");
        shape[0] -= 1;
        values.truncate(shape[0] * shape[1]);
    });
    let refused = with_adapter(&stored, &adapter).expect_err("another shape");
    assert!(refused.contains(WORDS) && refused.contains("another shape"), "{refused}");
}

/// torch's `padding_idx` counts from the end: that row of a table that trains has no gradient.
#[test]
fn a_padding_token_of_minus_one_is_the_last() {
    let folder = Scratch::model("llama-tied");
    for (pad, trains) in [(json!(-1), false), (json!(null), true)] {
        folder.json("config.json", |c| c["pad_token_id"] = pad.clone());
        let mut model = loaded(&folder);
        let object = json!({"peft_type": "LORA", "r": 2, "modules_to_save": ["embed_tokens"]});
        let config = AdapterConfig::from_json("adapter_config.json", &object).expect("a configuration");
        model.attach(&config, 3).expect("fits");
        let last = model.arch().vocab as u32 - 1;
        let ids = vec![5, last, 7, last, 11];
        let labels = Labels::Tokens(vec![ids.iter().map(|i| i64::from(*i)).collect()]);
        let batch = Batch::new(model.arch(), &[Row { ids, ..Row::default() }]).expect("a row");
        model.forward_backward(&batch, &labels, 1.0, None, false);
        let table = model.params().find("base_model.model.model.embed_tokens.weight").expect("it trains");
        let width = model.arch().width;
        let rows: Vec<bool> =
            model.params().get(table).grad.chunks(width).map(|row| row.iter().any(|g| *g != 0.0)).collect();
        assert_eq!((rows[5], rows[last as usize]), (true, trains), "{pad}");
    }
}
