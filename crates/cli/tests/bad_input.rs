//! Bad input gets a sentence that says what was wrong, where, and what would be right; never a panic.

mod common;

use common::{Place, fails};
use serde_json::json;

const WEIGHTS: &str = "models/llama-gqa/model.safetensors";

/// `inspect` reads a model's folder and nothing else.
fn refused(place: &Place, model: &str, parts: &[&str]) {
    fails(&mut place.sibo(&["inspect", model]), 1, parts);
}

#[test]
fn models_that_are_not_there() {
    let place = Place::with("llama-gqa");
    refused(
        &place,
        "llama-gqq",
        &["no model \"llama-gqq\"", "Did you mean `llama-gqa`?", "scripts/get-models"],
    );
    refused(&place, "models", &["without config.json"]);
    refused(&place, "org/name", &["HF_HUB_OFFLINE"]);
}

#[test]
fn weights_that_are_not_whole() {
    let place = Place::with("llama-gqa");
    let whole = std::fs::read(place.join(WEIGHTS)).unwrap();
    place.write(WEIGHTS, &whole[..whole.len() - 7]);
    refused(
        &place,
        "llama-gqa",
        &["model.safetensors: not a whole safetensors file", "Fetch or save it again"],
    );
    let mut lying = whole.clone();
    lying[..8].copy_from_slice(&(1u64 << 61).to_le_bytes());
    place.write(WEIGHTS, lying);
    refused(&place, "llama-gqa", &["its header claims"]);
    let mut broken = whole.clone();
    let end = broken.len();
    broken[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    place.write(WEIGHTS, broken);
    refused(&place, "llama-gqa", &["NaN"]);
}

#[test]
fn shapes_that_do_not_fit_the_configuration() {
    let place = Place::with("llama-gqa");
    place.edit("models/llama-gqa/config.json", |c| c["vocab_size"] = json!(72));
    refused(&place, "llama-gqa", &["the tensors do not fit config.json", "embed_tokens.weight", "71", "72"]);
    place.model("llama-gqa", "llama-gqa");
    place.edit("models/llama-gqa/config.json", |c| c["hidden_act"] = json!("mish"));
    refused(&place, "llama-gqa", &["config.json: `hidden_act`", "mish"]);
    place.write("models/llama-gqa/config.json", "{\n\"model_type\": \"llama\",\n}");
    refused(&place, "llama-gqa", &["config.json: not valid JSON at line 3"]);
}

#[test]
fn a_tokenizer_for_another_vocabulary() {
    let place = Place::with("llama-gqa");
    place.edit("models/llama-gqa/tokenizer.json", |t| t["model"]["vocab"]["zebra"] = json!(71));
    fails(&mut place.sibo(&["generate", "--model", "llama-gqa", "one"]), 1, &["zebra", "71"]);
    std::fs::remove_file(place.join("models/llama-gqa/tokenizer.json")).unwrap();
    fails(&mut place.sibo(&["generate", "--model", "llama-gqa", "one"]), 1, &["tokenizer.json"]);
    let encoder = Place::with("bert-pooler");
    fails(
        &mut encoder.sibo(&["generate", "--model", "bert-pooler", "one"]),
        1,
        &["no head that continues text", "llama"],
    );
}

#[test]
fn adapters_that_do_not_fit() {
    let place = Place::with("llama-gqa");
    place.model("llama-tied", "llama-tied");
    let adapter = place.adapter("llama-gqa-sibo-35");
    let config = "models/llama-gqa-sibo-35/adapter_config.json";
    fails(
        &mut place.sibo(&["inspect", "llama-tied", "--adapter", &adapter]),
        1,
        &["does not fit this model", "another shape"],
    );
    let with = ["inspect", "llama-gqa", "--adapter", &adapter];
    for (key, value, parts) in [
        ("use_dora", json!(true), ["`use_dora`", "not supported"]),
        ("init_lora_weights", json!("pissa"), ["`init_lora_weights`", "pissa"]),
        ("peft_type", json!("IA3"), ["`peft_type`", "LORA, SIBO_LORA"]),
        ("peft_type", json!("LORA"), ["`peft_type`", "must be SIBO_LORA"]),
        ("r", json!("many"), ["`r`", "many"]),
        ("sibo", json!({"lambda": 1.0}), ["sibo.lambda", "0 <= lambda < 1"]),
        ("sibo", json!({"lambda": -0.1}), ["sibo.lambda", "0 <= lambda < 1"]),
        ("sibo", json!({"lambda": 0.3, "version": 2}), ["sibo.version", "2"]),
    ] {
        place.adapter("llama-gqa-sibo-35");
        place.edit(config, |c| c[key] = value.clone());
        fails(&mut place.sibo(&with), 1, &parts);
    }
    place.adapter("llama-gqa-sibo-35");
    std::fs::remove_file(place.join("models/llama-gqa-sibo-35/adapter_model.safetensors")).unwrap();
    fails(&mut place.sibo(&with), 1, &["adapter_model.safetensors"]);
}

/// A run on the tiny decoder with a recipe of this text added.
fn train(place: &Place, top: &str, tables: &str) -> assert_cmd::Command {
    place.write("r.toml", format!("model = \"llama-gqa\"\noutput_dir = \"out\"\n{top}\n{tables}\n"));
    place.sibo(&["train", "r.toml"])
}

#[test]
fn recipes_that_are_wrong() {
    let place = Place::with("llama-gqa");
    place.instructions();
    let data = "data = \"sums\"";
    for (top, tables, parts) in [
        ("data = \"sums\"\nseed = \"x\"", "", ["r.toml: `seed`", "not a whole number"]),
        (data, "[training]\nlearning_rate = \"fast\"", ["`training.learning_rate`", "not a number above 0"]),
        (
            data,
            "[training]\nlerning_rate = 1e-3",
            ["`training.lerning_rate`", "did you mean `learning_rate`?"],
        ),
        (data, "[adapter]\nmethod = \"lorra\"", ["`method`", "did you mean `lora`?"]),
        (data, "[adapter]\nsibo = { lambda = 1.0 }", ["sibo.lambda", "0 <= lambda < 1"]),
        (
            data,
            "[adapter]\nmethod = \"bitfit\"\nsibo = { lambda = 0.3 }",
            ["no branch that could read h0", "SIBO boosts lora"],
        ),
        (
            data,
            "[adapter]\ntarget_modules = [\"down_proj\"]\nsibo = { lambda = 0.3 }",
            ["SIBO enters none", "Target query, key, value"],
        ),
        (
            data,
            "[adapter]\ntarget_modules = [\"q_proj\", \"down_proj\"]\nsibo = { lambda = 0.3, placement = [\"down_proj\"] }",
            ["`placement` names `model.layers.0.mlp.down_proj`", "SIBO cannot enter"],
        ),
        (data, "[adapter]\ntarget_modules = [\"qq_proj\"]", ["`target_modules`", "qq_proj"]),
        ("", "", ["`data`", "give `data` (a file) or `task`"]),
        ("data = \"sums\"\ntask = \"rte\"", "", ["`task`", "not both"]),
        ("task = \"rtee\"", "", ["rtee", "did you mean `rte`?"]),
        ("data = \"sums\"\nseed = ", "", ["r.toml", "line 4"]),
    ] {
        fails(&mut train(&place, top, tables), 1, &parts);
        assert!(!place.join("out").exists(), "{tables}");
    }
    fails(&mut place.sibo(&["train", "none.toml"]), 1, &["none.toml", "cannot read"]);
    train(&place, data, "");
    fails(&mut place.sibo(&["train", "r.toml", "--set", "seed"]), 1, &["has no `=`"]);
    fails(&mut place.sibo(&["train", "r.toml", "--lambda", "-0.5"]), 1, &["0 <= lambda < 1"]);
    fails(&mut place.sibo(&["train", "r.toml", "--max-steps", "-3"]), 1, &["`training.max_steps`"]);
    assert!(!place.join("out").exists());
}

#[test]
fn rows_that_cannot_be_read() {
    let place = Place::with("llama-gqa");
    let good = r#"{"instruction": "what is one ?", "output": "one"}"#;
    for (content, parts) in [
        (format!("{good}\n{{\"instruction\": \n").into_bytes(), ["rows.jsonl", "line 2"]),
        (format!("{good}\n{{\"instruction\": \"two\"}}\n").into_bytes(), ["line 2", "output"]),
        (
            [good.as_bytes(), b"\n{\"instruction\": \"\xff\", \"output\": \"x\"}\n"].concat(),
            ["line 2", "UTF-8"],
        ),
        (format!("{good}\n{{\"instruction\": \"two\", \"output\": \"\"}}\n").into_bytes(), ["2", "output"]),
        (b"".to_vec(), ["rows.jsonl", "row"]),
        (format!("{good}\n[1, 2]\n").into_bytes(), ["line 2", "object"]),
    ] {
        place.write("data/rows.jsonl", content);
        fails(&mut train(&place, "data = \"rows\"", ""), 1, &parts);
        assert!(!place.join("out").exists());
    }
    fails(&mut train(&place, "data = \"rowz\"", ""), 1, &["no data \"rowz\"", "./data has: rows.jsonl"]);
}

#[test]
fn a_row_of_one_token_has_nothing_to_predict() {
    let place = Place::with("llama-gqa");
    place.write("data/rows.jsonl", "{\"text\": \"one two three\"}\n{\"text\": \"four\"}\n");
    // Without an end of sequence the second row is a single token.
    for (file, key) in [
        ("tokenizer_config.json", "eos_token"),
        ("config.json", "eos_token_id"),
        ("generation_config.json", "eos_token_id"),
    ] {
        place.edit(&format!("models/llama-gqa/{file}"), |c| {
            c.as_object_mut().unwrap().remove(key);
        });
    }
    fails(
        &mut train(&place, "data = \"rows\"\nvalidation = \"rows\"", ""),
        1,
        &["row 2 of ", "rows.jsonl", "1 token", "two or more"],
    );
    assert!(!place.join("out").exists());
}

/// A user's own task: a TOML file, and rows as JSON lines.
#[test]
fn labels_outside_the_classes_of_ones_own_task() {
    let place = Place::with("bert-pooler");
    place.write(
        "rivers.toml",
        "name = \"rivers\"\ndescription = \"Is it a river?\"\ncitation = \"none\"\nlicence = \"CC0\"\nversion = 1\n\
         kind = \"classification\"\nlabels = [\"no\", \"yes\"]\nmetrics = [\"acc\"]\n\
         [splits]\ntrain = \"train\"\nvalidation = \"held-out\"\ntest = \"train\"\n\
         [[source]]\nformat = \"json-lines\"\nfiles.train = [\"rivers.jsonl\"]\n\
         columns = { text_a = \"text\", label = \"label\" }\n",
    );
    let good = r#"{"text": "a river", "label": 1}"#;
    for (label, parts) in [
        ("2", ["rivers.jsonl", "line 2", "2"]),
        ("-1", ["rivers.jsonl", "line 2", "-1"]),
        ("\"maybe\"", ["rivers.jsonl", "line 2", "maybe"]),
    ] {
        place.write("data/rivers.jsonl", format!("{good}\n{{\"text\": \"the town\", \"label\": {label}}}\n"));
        let train = ["train", "--model", "bert-pooler", "--task", "rivers.toml", "--output-dir", "out"];
        let error = fails(&mut place.sibo(&train), 1, &parts);
        assert!(error.contains("no, yes") || error.contains("`no`"), "the classes are not named: {error}");
        assert!(!place.join("out").exists());
    }
}

#[test]
fn task_files_that_are_wrong() {
    let place = Place::with("bert-pooler");
    place.rte();
    let head = "index\tsentence1\tsentence2\tlabel\n";
    let train = ["train", "--model", "bert-pooler", "--task", "rte", "--output-dir", "out"];
    for (content, parts) in [
        (
            format!("{head}0\tthe sum\tit is one\tperhaps\n1\ta\tb\tentailment\n"),
            ["train.tsv", "line 2", "perhaps"],
        ),
        (
            "index\tsentence1\tlabel\n0\tthe sum\tentailment\n".to_string(),
            ["train.tsv", "sentence2", "sentence1"],
        ),
        (format!("{head}0\tthe sum\tentailment\n"), ["train.tsv", "line 2", "cells"]),
        (format!("{head}0\t\tit is one\tentailment\n"), ["train.tsv", "line 2", "sentence1"]),
        (head.to_string(), ["train.tsv", "rows", "row"]),
    ] {
        place.write("data/glue/RTE/train.tsv", content);
        fails(&mut place.sibo(&train), 1, &parts);
        assert!(!place.join("out").exists());
    }
    fails(
        &mut place.sibo(&["train", "--model", "bert-pooler", "--task", "cola", "--output-dir", "out"]),
        1,
        &["cola", "data/glue/CoLA/train.tsv"],
    );
    let eval = ["eval", "--model", "bert-pooler", "--tasks", "rte,nope"];
    fails(&mut place.sibo(&eval), 1, &["nope", "rte"]);
}

#[test]
fn an_adapter_that_is_not_finite() {
    let place = Place::with("llama-gqa");
    let adapter = place.adapter("llama-gqa-lora");
    let file = "models/llama-gqa-lora/adapter_model.safetensors";
    let mut bytes = std::fs::read(place.join(file)).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    place.write(file, bytes);
    fails(
        &mut place.sibo(&["inspect", "llama-gqa", "--adapter", &adapter]),
        1,
        &["inf", "only finite numbers"],
    );
}

/// A result that is lost is no success; a reader that goes away is none of our business.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_behind_stdout_is_a_failure() {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut sibo = std::process::Command::new(env!("CARGO_BIN_EXE_sibo"));
    let child = sibo.arg("methods").stdout(full()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.contains("the result could not be written to stdout"), "{said}");
}

#[test]
fn what_compares_with_nothing_is_refused() {
    fails(common::sibo().args(["overhead", "m", "--lambda", "0"]), 2, &["above 0 and below 1"]);
    let place = Place::with("bert-pooler");
    let words = ["data", "generate", "deduction", "--train-depth", "1-3", "--test-depth", "2-5", "out"];
    fails(&mut place.sibo(&words), 2, &["--test-depth 2 to 5 begins within --train-depth 1 to 3"]);
}
