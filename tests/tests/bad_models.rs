//! Bad input gets a sentence: folders of models. What was wrong, where, and what would be right.

use serde_json::{Value, json};
use sibo_model::{Batch, Labels, LoadOptions, Model, Row, greedy, read_eos};
use sibo_tests::data;
use sibo_tests::folders::Scratch;

const WEIGHTS: &str = "model.safetensors";

/// The refusal of a folder, which must hold all `parts`.
fn refused(folder: &Scratch, parts: &[&str]) -> String {
    let error = match Model::load(folder.path(), &LoadOptions::default()) {
        Ok(_) => panic!("loaded, though it should be refused with {parts:?}"),
        Err(e) => e.to_string(),
    };
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
    error
}

fn stored(name: &str) -> Model {
    let folder = data().join("models").join(name);
    Model::load(&folder, &LoadOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}")).model
}

#[test]
fn a_truncated_or_lying_file() {
    let whole = std::fs::read(data().join("models/gptj").join(WEIGHTS)).expect("a file");
    for cut in [0, 5, 8, 300, whole.len() - 1] {
        let folder = Scratch::model("gptj");
        folder.bytes(WEIGHTS, |b| b[..cut].to_vec());
        refused(&folder, &[WEIGHTS, "not a whole safetensors file", "Fetch or save it again"]);
    }
    for lie in [0u64, 1 << 62, whole.len() as u64] {
        let folder = Scratch::model("gptj");
        folder.bytes(WEIGHTS, |mut b| {
            b[..8].copy_from_slice(&lie.to_le_bytes());
            b
        });
        refused(&folder, &[WEIGHTS, "not a whole safetensors file"]);
    }
    let folder = Scratch::model("gptj");
    folder.bytes(WEIGHTS, |b| {
        // A tensor that claims another type of the same text length: its place no longer fits its shape.
        let text = b.iter().position(|c| *c == b'F').expect("a type");
        let mut lying = b.clone();
        lying[text..text + 3].copy_from_slice(b"F64");
        lying
    });
    refused(&folder, &["not a whole safetensors file", "shape"]);
    let folder = Scratch::model("gptj");
    folder.bytes(WEIGHTS, |b| String::from_utf8_lossy(&b[..8]).into_owned().into_bytes());
    refused(&folder, &["not a whole safetensors file"]);
}

#[test]
fn a_type_that_no_loader_reads() {
    let folder = Scratch::model("llama-linear");
    folder.bytes(WEIGHTS, |b| {
        let size = u64::from_le_bytes(b[..8].try_into().expect("8 bytes")) as usize;
        let header = String::from_utf8(b[8..8 + size].to_vec()).expect("text").replace("\"F32\"", "\"I32\"");
        [&b[..8], header.as_bytes(), &b[8 + size..]].concat()
    });
    refused(&folder, &["is stored as I32", "supported are F32, F16, BF16 and I8"]);
}

#[test]
fn shapes_that_do_not_fit_the_configuration() {
    let folder = Scratch::model("llama-gqa");
    folder.json("config.json", |c| {
        c["intermediate_size"] = json!(41);
        c["vocab_size"] = json!(70);
    });
    let error = refused(
        &folder,
        &[
            "another shape: model.embed_tokens.weight is [71, 24] in the file, config.json says [70, 24]",
            "another shape: model.layers.2.mlp.down_proj.weight is [24, 40] in the file, config.json says [24, 41]",
        ],
    );
    assert_eq!(error.matches("another shape").count(), 11, "{error}");
}

#[test]
fn missing_and_unexpected_tensors_are_listed_all_at_once() {
    let folder = Scratch::model("bert-pooler");
    folder.tensors(WEIGHTS, |t| {
        t.remove("encoder.layer.1.attention.self.key.bias");
        t.remove("embeddings.LayerNorm.weight");
        t.insert("encoder.layer.1.extra.weight".into(), (vec![2], vec![0.5, 0.25]));
        t.insert("decoder.weight".into(), (vec![1], vec![0.5]));
    });
    let error = refused(
        &folder,
        &[
            "missing: encoder.layer.1.attention.self.key.bias [24]",
            "missing: embeddings.LayerNorm.weight [24]",
            "unexpected: encoder.layer.1.extra.weight [2]",
            "unexpected: decoder.weight [1]",
        ],
    );
    assert_eq!(error.lines().count(), 5, "{error}");
    // One layer too few in the configuration: the file's last layer is unexpected, tensor by tensor.
    let folder = Scratch::model("gptj");
    folder.json("config.json", |c| c["n_layer"] = json!(2));
    let error = refused(
        &folder,
        &["unexpected: transformer.h.2.ln_1.weight", "unexpected: transformer.h.2.attn.q_proj"],
    );
    assert_eq!(error.matches("unexpected").count(), 10, "{error}");
}

#[test]
fn buffers_and_unused_heads_of_real_checkpoints_are_no_error() {
    let folder = Scratch::model("gptj");
    folder.tensors(WEIGHTS, |t| {
        t.insert("transformer.h.1.attn.bias".into(), (vec![1], vec![1.0]));
        t.insert("transformer.h.1.attn.masked_bias".into(), (vec![1], vec![-1e9]));
    });
    assert!(Model::load(folder.path(), &LoadOptions::default()).is_ok());
    let folder = Scratch::model("llama-tied");
    folder.tensors(WEIGHTS, |t| {
        let words = t["model.embed_tokens.weight"].clone();
        t.insert("lm_head.weight".into(), words);
        t.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), (vec![1], vec![1.0]));
    });
    assert!(Model::load(folder.path(), &LoadOptions::default()).is_ok());
    let folder = Scratch::model("bert-mlm");
    folder.tensors(WEIGHTS, |t| {
        t.insert("bert.embeddings.position_ids".into(), (vec![1, 2], vec![0.0, 1.0]));
        t.insert("cls.seq_relationship.bias".into(), (vec![2], vec![0.0, 1.0]));
    });
    assert!(Model::load(folder.path(), &LoadOptions::default()).is_ok());
}

#[test]
fn weights_that_are_not_finite_are_all_named() {
    let folder = Scratch::model("llama-tied");
    folder.tensors(WEIGHTS, |t| {
        t.get_mut("model.layers.1.self_attn.q_proj.weight").expect("a tensor").1[7] = f32::NAN;
        t.get_mut("model.norm.weight").expect("a tensor").1[3] = f32::INFINITY;
        t.get_mut("model.layers.0.mlp.down_proj.bias").expect("a tensor").1[0] = f32::NEG_INFINITY;
    });
    refused(
        &folder,
        &[
            "not finite: model.layers.1.self_attn.q_proj.weight holds NaN or infinity",
            "not finite: model.norm.weight",
            "not finite: model.layers.0.mlp.down_proj.bias",
        ],
    );
}

#[test]
fn a_folder_without_readable_weights() {
    let folder = Scratch::model("mistral");
    std::fs::rename(folder.file(WEIGHTS), folder.file("pytorch_model.bin")).expect("a rename");
    refused(&folder, &["only pytorch_model.bin is here", "can run code", "save_pretrained"]);
    std::fs::remove_file(folder.file("pytorch_model.bin")).expect("a removal");
    refused(&folder, &["no model.safetensors and no model.safetensors.index.json"]);
    let folder = Scratch::model("mistral");
    std::fs::remove_file(folder.file("config.json")).expect("a removal");
    refused(&folder, &["config.json", "cannot read"]);
}

#[test]
fn shards() {
    const INDEX: &str = "model.safetensors.index.json";
    for outside in ["../elsewhere.safetensors", "/etc/passwd", "..\\x.safetensors", ".."] {
        let folder = Scratch::model("llama-v4-shards");
        folder.json(INDEX, |i| i["weight_map"]["model.norm.weight"] = json!(outside));
        refused(&folder, &[INDEX, "weight_map", "lies outside the folder"]);
    }
    let folder = Scratch::model("llama-v4-shards");
    folder.json(INDEX, |i| i["weight_map"]["model.norm.weight"] = json!("model-00003-of-00002.safetensors"));
    refused(&folder, &["model-00003-of-00002.safetensors"]);
    let folder = Scratch::model("llama-v4-shards");
    folder.json(INDEX, |i| *i = json!({"metadata": {}}));
    refused(&folder, &[INDEX, "weight_map"]);
    let folder = Scratch::model("llama-v4-shards");
    folder.json(INDEX, |i| i["weight_map"]["model.norm.weight"] = json!(7));
    refused(&folder, &[INDEX, "weight_map", "model.norm.weight"]);
    // A shard that half arrived.
    let folder = Scratch::model("llama-v4-shards");
    folder.bytes("model-00002-of-00002.safetensors", |b| b[..b.len() / 2].to_vec());
    refused(&folder, &["model-00002-of-00002.safetensors", "not a whole safetensors file"]);
}

#[test]
fn broken_json_names_the_line() {
    let folder = Scratch::model("gptj");
    folder.bytes("config.json", |_| b"{\n  \"model_type\": \"gptj\",\n  \"n_embd\": 24,,\n}".to_vec());
    refused(&folder, &["config.json", "line 3"]);
    let folder = Scratch::model("gptj");
    folder.bytes("config.json", |_| b"{\"model_type\": \"\xff\"}".to_vec());
    refused(&folder, &["config.json", "line 1"]);
    let folder = Scratch::model("gptj");
    folder.bytes("config.json", |_| b"[1, 2]".to_vec());
    refused(&folder, &["config.json", "must be a JSON object"]);
}

#[test]
fn keys_that_change_a_number_are_implemented_or_refused_by_name() {
    for (model, key, value, parts) in [
        ("gptj", "model_type", json!("t5"), &["`t5` is not supported", "bert, roberta"][..]),
        ("gptj", "model_type", json!(null), &["model_type", "is missing"]),
        ("gptj", "n_embd", json!("24"), &["n_embd", "is not a whole number"]),
        ("gptj", "n_embd", json!(24.5), &["n_embd", "is not a whole number"]),
        ("gptj", "n_layer", json!(0), &["n_layer", "is not a whole number"]),
        ("gptj", "n_head", json!(5), &["n_head", "5 heads do not divide the width 24"]),
        ("gptj", "rotary_dim", json!(5), &["rotary_dim", "must be even"]),
        ("gptj", "rotary_dim", json!(10), &["rotary_dim", "at most the head's width, 8"]),
        (
            "gptj",
            "activation_function",
            json!("mish"),
            &["activation_function", "`mish` is not implemented", "silu"],
        ),
        ("gptj", "layer_norm_epsilon", json!(-1.0), &["layer_norm_epsilon", "-1.0"]),
        ("gptj", "attn_pdrop", json!(1.0), &["attn_pdrop", "0 <= p < 1"]),
        ("gptj", "attn_pdrop", json!(0.999999999), &["attn_pdrop", "0 <= p < 1"]),
        ("gptj", "tie_word_embeddings", json!("yes"), &["tie_word_embeddings", "true or false"]),
        ("gptj", "architectures", json!(["GPTJForQuestionAnswering"]), &["architectures", "ForCausalLM"]),
        ("gptj", "quantization_config", json!({"bits": 4}), &["quantization_config", "original model"]),
        ("llama-gqa", "num_key_value_heads", json!(4), &["num_key_value_heads", "do not divide 6"]),
        ("llama-gqa", "head_dim", json!(0), &["head_dim"]),
        (
            "llama-gqa",
            "rope_parameters",
            json!({"rope_type": "yarn", "factor": 2.0}),
            &["rope_parameters", "`yarn`", "llama3"],
        ),
        (
            "llama-gqa",
            "rope_parameters",
            json!({"rope_type": "linear"}),
            &["rope_parameters", "`factor` is missing"],
        ),
        (
            "llama-gqa",
            "rope_parameters",
            json!({"rope_type": "linear", "factor": 0}),
            &["rope_parameters", "`factor`", "above zero"],
        ),
        (
            "llama-gqa",
            "rope_parameters",
            json!({"rope_type": "dynamic", "factor": -2}),
            &["rope_parameters", "`factor`", "above zero"],
        ),
        ("llama-gqa", "rope_parameters", json!({"rope_theta": -3.0}), &["rope_theta", "above zero"]),
        ("llama-gqa", "rope_parameters", json!(7), &["rope_parameters", "object"]),
        (
            "llama-gqa",
            "rope_parameters",
            json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0}),
            &["rope_parameters", "high_freq_factor", "above"],
        ),
        // Its rope_parameters name 700.
        (
            "llama-gqa",
            "rope_scaling",
            json!({"rope_type": "linear", "factor": 2.0}),
            &["rope_scaling", "beside rope_parameters", "10000 here"],
        ),
        (
            "llama-gqa",
            "rope_scaling",
            json!({"rope_type": "yarn", "factor": 2.0, "rope_theta": 700.0}),
            &["rope_scaling", "`yarn`"],
        ),
        ("llama-gqa", "rope_parameters", json!({"rope_type": 3}), &["rope_parameters", "the type is 3"]),
        ("llama-gqa", "rms_norm_eps", json!("tiny"), &["rms_norm_eps", "is not a number"]),
        (
            "bert-pooler",
            "position_embedding_type",
            json!("relative_key"),
            &["position_embedding_type", "absolute"],
        ),
        ("bert-pooler", "is_decoder", json!(true), &["is_decoder", "false is"]),
        ("bert-pooler", "pruned_heads", json!({"0": [1]}), &["pruned_heads"]),
        ("bert-pooler", "problem_type", json!("multi_label_classification"), &["problem_type"]),
        (
            "bert-classifier",
            "problem_type",
            json!("regression"),
            &["problem_type", "regression of 5 numbers"],
        ),
        (
            "roberta-regression",
            "problem_type",
            json!("single_label_classification"),
            &["problem_type", "of one label"],
        ),
        ("roberta-bare", "pad_token_id", json!(-1), &["pad_token_id", "positions are counted from it"]),
        ("roberta-bare", "pad_token_id", json!(null), &["pad_token_id", "positions are counted from it"]),
        ("bert-pooler", "hidden_dropout_prob", json!(-0.1), &["hidden_dropout_prob", "0 <= p < 1"]),
        (
            "bert-pooler",
            "architectures",
            json!(["BertForTokenClassification"]),
            &["architectures", "ForSequenceClassification"],
        ),
    ] {
        let folder = Scratch::model(model);
        folder.json("config.json", |c| c[key] = value.clone());
        let parts: Vec<&str> = parts.iter().copied().chain(["config.json"]).collect();
        refused(&folder, &parts);
    }
}

#[test]
fn both_words_for_rotary_positions_are_read_as_transformers_does() {
    let spec = |newer: serde_json::Value, older: serde_json::Value| {
        let folder = Scratch::model("llama-gqa");
        folder.json("config.json", |c| {
            c["rope_parameters"] = newer;
            c["rope_scaling"] = older;
        });
        let model =
            Model::load(folder.path(), &LoadOptions::default()).unwrap_or_else(|e| panic!("{e}")).model;
        model.arch().positions.clone()
    };
    let plain = json!({"rope_type": "default", "rope_theta": 700.0});
    let linear = json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 700.0});
    let expected = spec(linear.clone(), json!(null));
    assert_eq!(spec(plain.clone(), linear), expected, "the older word counts");
    assert_eq!(spec(plain.clone(), json!({})), spec(plain.clone(), json!(null)), "an empty one says nothing");
    assert_ne!(spec(plain, json!(null)), expected);
}

#[test]
fn words_that_transformers_fills_in_are_filled_in() {
    let arch = |name: &str, keys: &[(&str, serde_json::Value)]| {
        let folder = Scratch::model(name);
        folder.json("config.json", |c| keys.iter().for_each(|(key, value)| c[*key] = value.clone()));
        Model::load(folder.path(), &LoadOptions::default())
            .unwrap_or_else(|e| panic!("{e}"))
            .model
            .arch()
            .clone()
    };
    // torch's padding_idx of -1 is the last row.
    let bert = arch("bert-bare", &[("pad_token_id", json!(-1))]);
    assert_eq!(bert.padding.map(|id| id as usize), Some(bert.vocab - 1));
    let window = |keys: &[(&str, serde_json::Value)]| {
        let usual =
            [("sliding_window", json!(4)), ("use_sliding_window", json!(true)), ("layer_types", json!(null))];
        arch("qwen2", &[&usual, keys].concat()).window
    };
    assert_eq!(window(&[("max_window_layers", json!(0))]), Some(4));
    assert_eq!(window(&[("max_window_layers", json!(9))]), None, "no layer is beyond the ninth");
    assert_eq!(window(&[("layer_types", json!(["full_attention", "full_attention"]))]), None);
    assert_eq!(window(&[("layer_types", json!(["full_attention", "sliding_attention"]))]), Some(4));
    let long = json!({"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 700.0,
        "original_max_position_embeddings": 64});
    let beside = |n: serde_json::Value| {
        arch("llama-gqa", &[("rope_parameters", long.clone()), ("original_max_position_embeddings", n)])
            .positions
    };
    assert_ne!(beside(json!(16)), beside(json!(null)), "the word beside the object goes first");
    assert_eq!(beside(json!(64)), beside(json!(null)));
}

#[test]
fn an_odd_head_cannot_turn() {
    // 6 heads of 3 have the shapes of 3 heads of 6.
    let folder = Scratch::model("llama-dynamic");
    folder.json("config.json", |c| {
        c["num_attention_heads"] = json!(6);
        c["num_key_value_heads"] = json!(2);
        c["head_dim"] = json!(3);
    });
    refused(&folder, &["head_dim", "even"]);
}

#[test]
fn unknown_keys_are_listed_and_those_of_real_folders_are_known() {
    for entry in std::fs::read_dir(data().join("models")).expect("models") {
        let path = entry.expect("an entry").path();
        let loaded = Model::load(&path, &LoadOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        assert!(loaded.unknown_keys.is_empty(), "{}: {:?}", path.display(), loaded.unknown_keys);
    }
    let folder = Scratch::model("qwen2");
    folder.json("config.json", |c| {
        c["logit_softcapping"] = json!(30.0);
        c["use_surprise"] = json!(true);
        c["nothing"] = json!(null);
        c["off"] = json!(false);
        c["empty"] = json!([]);
    });
    let loaded = Model::load(folder.path(), &LoadOptions::default()).expect("loads");
    assert_eq!(loaded.unknown_keys, ["logit_softcapping", "use_surprise"]);
}

#[test]
fn rows_that_a_model_cannot_take() {
    let row = |ids: &[u32]| Row { ids: ids.to_vec(), ..Row::default() };
    let typed = |ids: &[u32], types: &[u32]| Row { types: types.to_vec(), ..row(ids) };
    for (model, rows, parts) in [
        ("gptj", vec![row(&[1]), row(&[78, 79])], &["row 1", "token id 79 is out of range", "0 to 78"][..]),
        ("gptj", vec![row(&[u32::MAX])], &["row 0", "out of range"]),
        ("gptj", vec![row(&[])], &["row 0", "holds no token"]),
        ("gptj", vec![row(&[5; 49])], &["row 0", "49 tokens", "positions for 48"]),
        ("bert-pooler", vec![row(&[5; 41])], &["41 tokens", "positions for 40"]),
        // RoBERTa counts from the padding id + 1.
        ("roberta-bare", vec![row(&[5; 32]), row(&[5; 33])], &["row 1", "33 tokens", "positions for 32"]),
        ("bert-pooler", vec![typed(&[5, 6], &[0])], &["2 tokens but 1 token types"]),
        ("bert-pooler", vec![typed(&[5, 6], &[0, 2])], &["token type 2 is out of range", "has 2"]),
        ("roberta-bare", vec![typed(&[5], &[1])], &["token type 1 is out of range"]),
        ("llama-gqa", vec![typed(&[5], &[1])], &["token type 1", "no token types"]),
    ] {
        let error = Batch::new(stored(model).arch(), &rows).expect_err(model).to_string();
        for part in parts {
            assert!(error.contains(part), "{model}: `{part}` is not in: {error}");
        }
    }
    let folder = Scratch::model("mistral");
    folder.json("config.json", |c| c["sliding_window"] = json!(6));
    let windowed = Model::load(folder.path(), &LoadOptions::default()).expect("loads").model;
    assert!(Batch::new(windowed.arch(), &[row(&[5; 6])]).is_ok());
    let error = Batch::new(windowed.arch(), &[row(&[5; 7])]).expect_err("too long").to_string();
    assert!(error.contains("sliding window of 6"), "{error}");
}

#[test]
fn labels_that_do_not_fit() {
    let rows = [Row { ids: vec![3, 4, 5], ..Row::default() }, Row { ids: vec![6], ..Row::default() }];
    for (model, labels, parts) in [
        ("gptj", Labels::Tokens(vec![vec![-100, 4, 5]]), &["1 labels for 2 rows"][..]),
        ("gptj", Labels::Tokens(vec![vec![-100, 4], vec![6]]), &["row 0", "2 labels for 3 tokens"]),
        ("gptj", Labels::Tokens(vec![vec![-100, 4, 79], vec![6]]), &["row 0", "label 79", "below 79"]),
        ("gptj", Labels::Tokens(vec![vec![-100, 4, -1], vec![6]]), &["label -1 is neither -100"]),
        ("gptj", Labels::Tokens(vec![vec![3, -100, -100], vec![6]]), &["no token carries a label"]),
        ("gptj", Labels::Classes(vec![0, 1]), &["class labels need a classification head"]),
        (
            "bert-classifier",
            Labels::Classes(vec![4, 5]),
            &["row 1", "label 5 is outside the 5 classes, 0 to 4"],
        ),
        (
            "bert-classifier",
            Labels::Values(vec![0.5, 1.0]),
            &["numbers as labels need a head with one output"],
        ),
        ("bert-classifier", Labels::Tokens(vec![vec![3, 4, 5], vec![6]]), &["token labels", "causal"]),
        ("roberta-regression", Labels::Values(vec![0.5, f32::NAN]), &["row 1", "NaN is not a finite number"]),
        ("roberta-regression", Labels::Classes(vec![0, 1]), &["row 1", "label 1 is outside"]),
    ] {
        let error = labels.check(&rows, stored(model).arch()).expect_err(model).to_string();
        for part in parts {
            assert!(error.contains(part), "{model} {labels:?}: `{part}` is not in: {error}");
        }
    }
}

#[test]
fn the_end_of_a_row_has_the_right_type() {
    let folder = Scratch::model("gptj-full-rotary");
    folder.json("generation_config.json", |c| c["eos_token_id"] = json!("</s>"));
    let error = read_eos(folder.path()).expect_err("a word").to_string();
    assert!(error.contains("generation_config.json") && error.contains("eos_token_id"), "{error}");
    folder.json("generation_config.json", |c| c["eos_token_id"] = json!([3, -1]));
    assert!(read_eos(folder.path()).is_err());
    folder.json("generation_config.json", |c| c["eos_token_id"] = Value::Null);
    assert_eq!(read_eos(folder.path()).expect("from config.json"), [55]);
}

#[test]
fn rows_that_a_model_cannot_continue() {
    for (model, prompts, new, parts) in [
        ("bert-pooler", vec![vec![5]], 1, &["BERT", "cannot generate"][..]),
        ("gptj", vec![vec![5; 3], vec![]], 1, &["row 1", "holds no token"]),
        ("gptj", vec![vec![5; 3], vec![80]], 1, &["row 1", "token id 80 is out of range"]),
        ("gptj", vec![vec![5; 3], vec![5; 40]], 10, &["row 1", "40 tokens and 10 new ones", "48 positions"]),
        ("gptj", vec![vec![5; 3]], usize::MAX, &["row 0", "48 positions"]),
        // An exact cache ends where the frequencies would change.
        ("llama-dynamic", vec![vec![5; 3]], 4, &["row 0", "6 tokens", "dynamic"]),
    ] {
        let error = greedy(&stored(model), &prompts, new, &[]).expect_err(model).to_string();
        for part in parts {
            assert!(error.contains(part), "{model}: `{part}` is not in: {error}");
        }
    }
    // The last new token is never read: it needs no position.
    assert_eq!(greedy(&stored("gptj"), &[vec![5; 40]], 9, &[]).expect("fits")[0].len(), 9);
    assert_eq!(greedy(&stored("llama-dynamic"), &[vec![5; 3]], 3, &[]).expect("fits")[0].len(), 3);
    assert_eq!(greedy(&stored("gptj"), &[vec![5]], 0, &[]).expect("fits")[0], Vec::<u32>::new());
}

#[test]
fn no_rows_are_no_error() {
    for name in ["bert-classifier", "gptj", "llama-gqa"] {
        let mut model = stored(name);
        let batch = Batch::new(model.arch(), &[]).expect("nothing to refuse");
        model.hidden_states(&batch, |_, rows| assert_eq!(rows.rows(), 0));
        assert_eq!(
            model
                .loss(
                    &batch,
                    &if model.is_causal() { Labels::Tokens(vec![]) } else { Labels::Classes(vec![]) }
                )
                .count,
            0
        );
    }
    assert!(greedy(&stored("gptj"), &[], 3, &[]).expect("nothing to refuse").is_empty());
}

/// Whatever stands in a key of config.json: a model or a sentence, and a model that loads computes.
#[test]
fn no_value_of_any_key_panics() {
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(1),
        json!(3),
        json!(1u64 << 31),
        json!(u64::MAX),
        json!(-0.5),
        json!(0.5),
        json!(1e300),
        json!(""),
        json!("gelu"),
        json!([]),
        json!([1, "x"]),
        json!({}),
        json!({"rope_type": "dynamic", "factor": 1e-300}),
        json!({"factor": "x"}),
    ];
    let mut loaded = 0;
    for name in ["bert-classifier", "roberta-regression", "llama-dynamic", "qwen2", "mistral", "gptj"] {
        let keys: Vec<String> = sibo_files::json::read(&data().join("models").join(name).join("config.json"))
            .expect("JSON")
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect();
        let folder = Scratch::model(name);
        let whole = std::fs::read(folder.file("config.json")).expect("a file");
        for key in keys {
            for value in &odd {
                folder.json("config.json", |c| c[&key] = value.clone());
                if let Ok(found) = Model::load(folder.path(), &LoadOptions::default()) {
                    loaded += 1;
                    let row = Row { ids: vec![3, 1, 4], ..Row::default() };
                    if let Ok(batch) = Batch::new(found.model.arch(), &[row]) {
                        found.model.hidden_states(&batch, |_, _| {});
                    }
                }
                folder.bytes("config.json", |_| whole.clone());
            }
        }
    }
    assert!(loaded > 300, "{loaded}");
}
