//! Bad input gets a sentence: adapters, their folders and their recipes.

use serde_json::{Value, json};
use sibo_model::{LoadOptions, Model};
use sibo_peft::{AdapterConfig, folder};
use sibo_tests::data;
use sibo_tests::folders::Scratch;
use std::path::PathBuf;

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";

fn model(name: &str) -> PathBuf {
    data().join("models").join(name)
}

fn refused(base: &str, adapter: &Scratch, parts: &[&str]) -> String {
    let error = match Model::load_with_adapter(&model(base), adapter.path(), LoadOptions::default()) {
        Ok(_) => panic!("{base}: loaded, though it should be refused with {parts:?}"),
        Err(e) => e.to_string(),
    };
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
    error
}

/// An adapter of our own on `base`, saved.
fn own(base: &str, config: Value) -> Scratch {
    let mut loaded = Model::load(&model(base), &LoadOptions::default()).expect("a stored model").model;
    let config = AdapterConfig::from_json(CONFIG, &config).expect("a configuration");
    loaded.attach(&config, 3).expect("fits");
    let place = tempfile::tempdir().expect("a temporary folder");
    let to = place.path().join("adapter");
    let config = &loaded.adapter().expect("attached").config;
    folder::save(config, loaded.params(), &to, loaded.fingerprint(), "A test's.\n").expect("saved");
    Scratch::copy_of(&to)
}

#[test]
fn an_adapter_for_another_base() {
    // Other shapes: both sides of every tensor are listed.
    let adapter = Scratch::adapter("llama-gqa-lora");
    let error = refused(
        "llama-tied",
        &adapter,
        &["does not fit this model", TENSORS, "another shape", "not a parameter here"],
    );
    assert!(error.contains("layers.2.") && error.lines().count() > 10, "{error}");
    // Other names.
    refused("bert-pooler", &adapter, &["target_modules", "matches no module of this BERT model", "query"]);
    refused(
        "gptj",
        &adapter,
        &["missing in the file: base_model.model.transformer.h.2.attn.v_proj.lora_B.weight"],
    );
    // The same shapes, other numbers: our own files carry a fingerprint of the base.
    let adapter = own("llama-gqa", json!({"peft_type": "LORA", "r": 2}));
    let other = Scratch::model("llama-gqa");
    other.tensors("model.safetensors", |t| {
        t.get_mut("model.embed_tokens.weight").expect("a table").1.reverse();
    });
    let options = LoadOptions::default();
    let error = match Model::load_with_adapter(other.path(), adapter.path(), options.clone()) {
        Ok(_) => panic!("another base was taken"),
        Err(e) => e.to_string(),
    };
    assert!(error.contains("trained on another base model") && error.contains("fingerprint"), "{error}");
    assert!(Model::load_with_adapter(&model("llama-gqa"), adapter.path(), options.clone()).is_ok());
    // The name of the base is a hint and decides nothing.
    adapter.json(CONFIG, |c| c["base_model_name_or_path"] = json!("somewhere/else"));
    assert!(Model::load_with_adapter(&model("llama-gqa"), adapter.path(), options).is_ok());
}

#[test]
fn peft_options_that_are_not_implemented_are_refused_by_name() {
    for (key, value, parts) in [
        ("use_dora", json!(true), &["use_dora", "not supported"][..]),
        ("init_lora_weights", json!("pissa"), &["init_lora_weights", "pissa", "gaussian"]),
        ("bias", json!("some"), &["bias", "none, all, lora_only"]),
        ("peft_type", json!("IA3"), &["peft_type", "IA3 is not supported", "SIBO_LORA"]),
        ("peft_type", json!(null), &["peft_type", "is missing"]),
        ("trainable_token_indices", json!([3]), &["trainable_token_indices", "not supported"]),
        ("target_parameters", json!(["x"]), &["target_parameters", "not supported"]),
        ("lora_bias", json!(true), &["lora_bias", "not supported"]),
        ("layer_replication", json!([[0, 1]]), &["layer_replication", "not supported"]),
        ("rank_patern", json!({"q_proj": 3}), &["rank_patern", "did you mean `rank_pattern`?"]),
        ("r", json!(0), &["`r`", "positive whole number"]),
        ("r", json!(2.5), &["`r`", "positive whole number"]),
        ("r", json!("two"), &["`r`", "positive whole number"]),
        ("r", json!(400_000_000), &["`r`", "400000000"]),
        ("rank_pattern", json!({"q_proj": 400_000_000}), &["rank_pattern"]),
        ("rank_pattern", json!({"q_proj": 0}), &["rank_pattern"]),
        ("rank_pattern", json!({"q_(proj": 2}), &["rank_pattern", "not a regular expression"]),
        ("lora_alpha", json!("7"), &["lora_alpha", "is not a number"]),
        ("lora_dropout", json!(1.0), &["lora_dropout", "0 <= p < 1"]),
        ("lora_dropout", json!(0.999999999), &["lora_dropout", "0 <= p < 1"]),
        ("target_modules", json!(["nothing_proj"]), &["target_modules", "matches no module", "q_proj"]),
        ("target_modules", json!([1]), &["target_modules"]),
        ("target_modules", json!("(q_proj"), &["target_modules", "not a regular expression"]),
        ("modules_to_save", json!("lm_head"), &["modules_to_save", "list of strings"]),
        ("modules_to_save", json!(["(lm_head"]), &["modules_to_save"]),
        ("layers_to_transform", json!(["1"]), &["layers_to_transform"]),
        ("layers_pattern", json!("(h"), &["layers_pattern"]),
        ("task_type", json!("SEQ_2_SEQ_LM"), &["task_type", "CAUSAL_LM"]),
        ("task_type", json!("SEQ_CLS"), &["SEQ_CLS", "no classification head"]),
        ("sibo", json!({"lambda": 0.35}), &["peft_type", "must be SIBO_LORA"]),
    ] {
        let adapter = Scratch::adapter("llama-gqa-lora");
        adapter.json(CONFIG, |c| c[key] = value.clone());
        refused("llama-gqa", &adapter, parts);
    }
}

/// Names of no module here: PEFT takes a list of which one entry fits, and a run says what it passes over.
#[test]
fn names_that_mean_nothing_are_told() {
    let shape =
        Model::load(&model("llama-gqa"), &LoadOptions::default()).expect("a stored model").model.shape();
    let object = json!({
        "peft_type": "SIBO_LORA", "r": 2, "target_modules": ["q_proj", "v_porj"], "modules_to_save": ["norm", "foo"],
        "rank_pattern": {"q_proj": 3, "nope": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 3, "qproj": 4},
        "sibo": {"lambda": 0.3, "placement": ["q_proj", "fc_in"]},
    });
    let config = AdapterConfig::from_json(CONFIG, &object).expect("a configuration");
    let told = sibo_peft::targets::passed_over(&config, &shape);
    let named = [
        ("target_modules", "v_porj"),
        ("rank_pattern", "nope"),
        ("alpha_pattern", "qproj"),
        ("sibo.placement", "fc_in"),
        ("modules_to_save", "foo"),
    ];
    assert_eq!(told.len(), named.len(), "{told:?}");
    for (line, (key, entry)) in told.iter().zip(named) {
        assert!(line.starts_with(&format!("`{key}` names `{entry}`")), "{line}");
    }
}

#[test]
fn settings_of_sibo_that_have_no_meaning() {
    for (sibo, parts) in [
        (json!(null), &["sibo", "is missing"][..]),
        (json!(0.35), &["sibo", "must be an object"]),
        (json!({"lambda": 1.0}), &["sibo.lambda", "0 <= lambda < 1"]),
        (json!({"lambda": -0.1}), &["sibo.lambda", "0 <= lambda < 1"]),
        (json!({"lambda": "0.3"}), &["sibo.lambda", "0 <= lambda < 1"]),
        (json!({"lambda": [0.3, 0.3]}), &["lists 2 numbers", "3 layers"]),
        (json!({"lambda": 0.3, "version": 2}), &["version", "reads version 1"]),
        (
            json!({"lambda": 0.3, "placement": ["down_proj"]}),
            &["placement", "down_proj", "FFN's inner state", "runs plain"],
        ),
        // 6 heads of 6 are not the width of 24.
        (
            json!({"lambda": 0.3, "placement": ["o_proj"]}),
            &["placement", "o_proj", "not read a state as wide as h0"],
        ),
        // Whether it is a target or not.
        (
            json!({"lambda": 0.3, "placement": ["q_proj", "lm_head"]}),
            &["placement", "lm_head", "outside the layers"],
        ),
        (json!({"lambda": 0.3, "placement": []}), &["sibo.placement"]),
        (json!({"lambda": 0.3, "h0": "layernorm"}), &["sibo.h0", "raw nor rms"]),
        (json!({"lambda": 0.3, "skip": "none"}), &["sibo.skip", "original nor mixed"]),
    ] {
        let adapter = Scratch::adapter("llama-gqa-lora");
        adapter.json(CONFIG, |c| {
            c["peft_type"] = json!("SIBO_LORA");
            c["sibo"] = sibo.clone();
        });
        refused("llama-gqa", &adapter, parts);
    }
    // A list may not name what lies outside the layers either, and `reference` has no encoder.
    let adapter =
        own("llama-gqa", json!({"peft_type": "LORA", "r": 2, "target_modules": ["q_proj", "lm_head"]}));
    let boosted = |sibo: Value| {
        adapter.json(CONFIG, |c| {
            c["peft_type"] = json!("SIBO_LORA");
            c["sibo"] = sibo;
        });
    };
    boosted(json!({"lambda": 0.3, "placement": ["q_proj", "lm_head"]}));
    refused("llama-gqa", &adapter, &["placement", "lm_head", "outside the layers"]);
    let adapter = own("bert-pooler", json!({"peft_type": "LORA", "r": 2}));
    adapter.json(CONFIG, |c| {
        c["peft_type"] = json!("SIBO_LORA");
        c["sibo"] = json!({"lambda": 0.3, "placement": "reference"});
    });
    refused("bert-pooler", &adapter, &["placement `reference` is refused", "no BERT model"]);
}

#[test]
fn two_files_that_contradict_each_other() {
    let adapter = Scratch::adapter("llama-gqa-sibo-35");
    adapter.json(CONFIG, |c| c["sibo"]["lambda"] = json!(0.3));
    refused("llama-gqa", &adapter, &[TENSORS, "0.35", "0.3", "another run"]);
    // The same number for every layer is no contradiction.
    adapter.json(CONFIG, |c| c["sibo"]["lambda"] = json!([0.35, 0.35, 0.35]));
    Model::load_with_adapter(&model("llama-gqa"), adapter.path(), LoadOptions::default())
        .expect("one lambda");
    adapter.json(CONFIG, |c| c["sibo"]["lambda"] = json!([0.35, 0.3, 0.35]));
    refused("llama-gqa", &adapter, &[TENSORS, "another run"]);
}

#[test]
fn tensors_that_do_not_fit() {
    let adapter = Scratch::adapter("llama-gqa-lora");
    adapter.tensors(TENSORS, |t| {
        t.remove("base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight");
        t.insert(
            "base_model.model.model.layers.7.self_attn.q_proj.lora_B.weight".into(),
            (vec![1, 1], vec![0.5]),
        );
        let narrow =
            t.get_mut("base_model.model.model.layers.0.mlp.up_proj.lora_A.weight").expect("a tensor");
        *narrow = (vec![2, 24], vec![0.5; 48]);
    });
    let error = refused(
        "llama-gqa",
        &adapter,
        &[
            "missing in the file: base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight [36, 3]",
            "not a parameter here: base_model.model.model.layers.7.self_attn.q_proj.lora_B.weight [1, 1]",
            "another shape: base_model.model.model.layers.0.mlp.up_proj.lora_A.weight is [2, 24] in the file, [3, 24]",
        ],
    );
    assert_eq!(error.lines().count(), 4, "{error}");
    let adapter = Scratch::adapter("llama-gqa-lora");
    adapter.tensors(TENSORS, |t| {
        t.get_mut("base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight").expect("a tensor").1[5] =
            f32::NAN;
    });
    refused("llama-gqa", &adapter, &[TENSORS, "q_proj.lora_B.weight", "NaN at place 5"]);
    let adapter = Scratch::adapter("llama-gqa-lora");
    adapter.bytes(TENSORS, |b| b[..b.len() - 9].to_vec());
    refused("llama-gqa", &adapter, &[TENSORS, "not a whole safetensors file"]);
    let adapter = Scratch::adapter("llama-gqa-lora");
    std::fs::rename(adapter.file(TENSORS), adapter.file("adapter_model.bin")).expect("a rename");
    refused("llama-gqa", &adapter, &["only adapter_model.bin", "safe_serialization=True"]);
    let adapter = Scratch::adapter("llama-gqa-lora");
    std::fs::remove_file(adapter.file(CONFIG)).expect("a removal");
    refused("llama-gqa", &adapter, &[CONFIG, "cannot read"]);
}

#[test]
fn heads_that_a_model_cannot_have() {
    let adapter = Scratch::adapter("bert-pooler-lora-4");
    adapter.tensors(TENSORS, |t| t.retain(|n, _| !n.contains("classifier")));
    refused("bert-pooler", &adapter, &["SEQ_CLS", "no classification head", "modules_to_save"]);
    let adapter = Scratch::adapter("llama-gqa-lora");
    adapter.json(CONFIG, |c| c["task_type"] = json!("SEQ_CLS"));
    adapter.tensors(TENSORS, |t| {
        t.insert("base_model.model.score.weight".into(), (vec![2, 24], vec![0.5; 48]));
    });
    refused("llama-gqa", &adapter, &["classification head", "LLaMA", "BERT and RoBERTa have"]);
}

#[test]
fn bottleneck_settings() {
    for (key, value, parts) in [
        ("method", json!("compacter"), &["method", "`compacter` is not a form", "parallel"][..]),
        ("method", json!(null), &["method", "is missing"]),
        ("bottleneck_size", json!(0), &["bottleneck_size", "positive whole number"]),
        ("bottleneck_size", json!(400_000_000), &["bottleneck_size", "400000000"]),
        ("reduction_factor", json!(4), &["reduction_factor", "not both"]),
        ("non_linearity", json!("sine"), &["non_linearity", "tanh, relu, swish and gelu"]),
        ("init", json!("zeros"), &["init", "bert nor mam_adapter"]),
        ("scaling", json!("big"), &["scaling", "is not a number"]),
        ("dropout", json!(-0.5), &["dropout", "0 <= p < 1"]),
        ("target_modules", json!(["up_proj"]), &["target_modules", "has no meaning for houlsby"]),
        ("original_ln_after", json!(true), &["original_ln_after", "not supported"]),
    ] {
        let adapter = Scratch::adapter("llama-gqa-houlsby");
        adapter.json(CONFIG, |c| c[key] = value.clone());
        refused("llama-gqa", &adapter, parts);
    }
    let adapter = Scratch::adapter("llama-gqa-houlsby");
    adapter.json(CONFIG, |c| {
        c.as_object_mut().expect("an object").remove("bottleneck_size");
        c["reduction_factor"] = json!(1e-9);
    });
    refused("llama-gqa", &adapter, &["reduction_factor"]);
    refused("bert-pooler", &Scratch::adapter("llama-gqa-in-linear"), &["in_linear", "BERT", "houlsby"]);
}

/// Whatever stands in a key: an adapter or a sentence.
#[test]
fn no_value_of_any_key_panics() {
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(1),
        json!(70_000),
        json!(u64::MAX),
        json!(-0.5),
        json!(0.5),
        json!(1e300),
        json!(""),
        json!("all-linear"),
        json!("("),
        json!([]),
        json!([0]),
        json!(["q_proj"]),
        json!([null]),
        json!({}),
        json!({"q_proj": 1}),
        json!({"(": 1e300}),
    ];
    for (base, case) in [
        ("llama-gqa", "llama-gqa-sibo-35"),
        ("llama-gqa", "llama-gqa-in-linear"),
        ("bert-pooler", "bert-pooler-lora-4"),
    ] {
        let adapter = Scratch::adapter(case);
        let whole = std::fs::read(adapter.file(CONFIG)).expect("a file");
        let config = sibo_files::json::read(&adapter.file(CONFIG)).expect("JSON");
        for key in config.as_object().expect("an object").keys() {
            for value in &odd {
                adapter.json(CONFIG, |c| c[key] = value.clone());
                let _ = Model::load_with_adapter(&model(base), adapter.path(), LoadOptions::default());
                adapter.bytes(CONFIG, |_| whole.clone());
            }
        }
    }
}
