//! `sibo merge`: the merged model gives what base and adapter give together.

mod common;

use common::{Place, fails, succeeds};
use sibo_files::TensorFile;
use std::collections::BTreeMap;

/// Every logit and hidden state of a model, by name.
fn traced(place: &Place, model: &[&str]) -> BTreeMap<String, Vec<f32>> {
    let out = place.join("out.safetensors");
    succeeds(place.sibo(&["trace", "--ids", "ids.json", "--out"]).arg(&out).args(model));
    let mut file = TensorFile::open(&out).unwrap();
    let names: Vec<String> = file.shapes().into_keys().collect();
    names.into_iter().map(|name| (name.clone(), file.read(&name).unwrap().into_f32())).collect()
}

fn merged_equals_adapted(model: &str, case: &str) {
    let place = Place::with(model);
    place.ids(case);
    let adapter = place.adapter(case);
    succeeds(&mut place.sibo(&["merge", "--model", model, "--adapter", &adapter, "--output", "deep/merged"]));
    let with = traced(&place, &["--model", model, "--adapter", &adapter]);
    let merged = traced(&place, &["--model", "deep/merged"]);
    let base = traced(&place, &["--model", model]);
    assert!(with.keys().eq(merged.keys()));
    let mut moved = 0f32;
    for (name, expected) in &with {
        let scale = expected.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
        let differ =
            |other: &[f32]| expected.iter().zip(other).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / scale;
        assert!(differ(&merged[name]) < 1e-5, "{case}: {name}: {}", differ(&merged[name]));
        moved = base.get(name).map_or(moved, |values| moved.max(differ(values)));
    }
    assert!(moved > 1e-2, "{case}: an adapter that changes nothing shows nothing");
    assert!(place.join("deep/merged/tokenizer.json").is_file());
}

#[test]
fn merged_and_adapted_models_agree() {
    merged_equals_adapted("llama-gqa", "llama-gqa-lora");
    merged_equals_adapted("llama-tied", "llama-tied-lora-patterns");
    merged_equals_adapted("gptj-full-rotary", "gptj-full-rotary-lora-bias-all");
    merged_equals_adapted("bert-pooler", "bert-pooler-lora-4");
    merged_equals_adapted("roberta-bare", "roberta-bare-lora-3");
}

/// Embedding and head are one table in the base; whichever was trained by itself is another table from then on.
#[test]
fn tables_that_part_are_merged_as_two() {
    const FILE: &str = "adapter_model.safetensors";
    let place = Place::with("llama-tied");
    let case = "llama-tied-lora-patterns";
    place.ids(case);
    let base = TensorFile::open(&place.join("models/llama-tied/model.safetensors")).unwrap();
    let shape = base.shapes()["model.embed_tokens.weight"].clone();
    let noise = |n: usize| (0..n).map(|i| ((i * 31 + 7) % 23) as f32 / 40.0 - 0.3).collect::<Vec<f32>>();
    for (module, tensors, key) in [
        ("embed_tokens", vec![("model.embed_tokens.weight", shape.clone())], "modules_to_save"),
        ("lm_head", vec![("lm_head.weight", shape.clone())], "modules_to_save"),
        (
            "lm_head",
            vec![("lm_head.lora_A.weight", vec![3, shape[1]]), ("lm_head.lora_B.weight", vec![shape[0], 3])],
            "target_modules",
        ),
    ] {
        let adapter = place.adapter(case);
        let mut file = TensorFile::open(&place.join("models").join(&adapter).join(FILE)).unwrap();
        let mut all: BTreeMap<String, (Vec<usize>, Vec<f32>)> = BTreeMap::new();
        for (name, shape) in file.shapes() {
            all.insert(name.clone(), (shape, file.read(&name).unwrap().into_f32()));
        }
        for (name, shape) in tensors {
            let values = noise(shape.iter().product());
            all.insert(format!("base_model.model.{name}"), (shape, values));
        }
        let views = all.iter().map(|(n, (s, v))| (n.as_str(), s.as_slice(), v.as_slice()));
        sibo_files::write_tensors(&place.join("models").join(&adapter).join(FILE), views, BTreeMap::new())
            .unwrap();
        let config = place.join("models").join(&adapter).join("adapter_config.json");
        let mut value = sibo_files::json::read(&config).unwrap();
        match value[key].as_array_mut() {
            Some(list) => list.push(module.into()),
            None => value[key] = serde_json::json!([module]),
        }
        value["r"] = 3.into();
        std::fs::write(&config, value.to_string()).unwrap();
        let output = format!("merged-{module}-{key}");
        succeeds(&mut place.sibo(&[
            "merge",
            "--model",
            "llama-tied",
            "--adapter",
            &adapter,
            "--output",
            &output,
        ]));
        let with = traced(&place, &["--model", "llama-tied", "--adapter", &adapter]);
        let merged = traced(&place, &["--model", &format!("./{output}")]);
        for (name, want) in &with {
            let scale = want.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
            let off = want.iter().zip(&merged[name]).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / scale;
            assert!(off < 1e-5, "{module} by {key}: {name} is off by {off}");
        }
    }
}

#[test]
fn what_no_weight_can_hold_is_refused() {
    let place = Place::with("llama-gqa");
    for (case, parts) in [
        ("llama-gqa-sibo-35", ["lambda is 0.35", "cannot be merged", "--adapter"]),
        ("llama-gqa-houlsby", ["a houlsby adapter is not linear", "cannot be merged", "--adapter"]),
        ("llama-gqa-lora-embedding", ["LoRA on an embedding", "embed_tokens", "--adapter"]),
    ] {
        let adapter = place.adapter(case);
        let merge = ["merge", "--model", "llama-gqa", "--adapter", &adapter, "--output", "merged"];
        fails(&mut place.sibo(&merge), 1, &parts);
        assert!(!place.join("merged").exists());
    }
    let adapter = place.adapter("llama-gqa-lora");
    let over = ["merge", "--model", "llama-gqa", "--adapter", &adapter, "--output", "models"];
    fails(&mut place.sibo(&over), 1, &["models: is there already"]);
}

/// What a run learned of bare pairs is asked without marks, by its adapter and once it is merged.
#[test]
fn a_merged_model_keeps_the_adapter_s_template() {
    let place = Place::with("llama-gqa");
    let row = |i: usize| format!("{{\"prompt\": \"the sum {i}\", \"completion\": \" the answer\"}}\n");
    place.write("data/pairs.jsonl", (0..12).map(row).collect::<String>());
    let train = ["train", "--model", "llama-gqa", "--rows", "pairs", "--lambda", "0", "--output-dir", "run"];
    succeeds(place.sibo(&train).args(["--max-steps", "2"]));
    succeeds(&mut place.sibo(&[
        "merge",
        "--model",
        "llama-gqa",
        "--adapter",
        "run/adapter",
        "--output",
        "merged",
    ]));
    let template = |folder: &str| std::fs::read_to_string(place.join(folder).join("template.toml")).unwrap();
    assert!(template("run/adapter").contains("without_input = \"{{ instruction }}\""));
    assert_eq!(template("merged"), template("run/adapter"));
}
