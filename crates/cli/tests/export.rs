//! `sibo export`: what another program gets, and what it loses.

mod common;

use common::{Place, fails, succeeds};
use serde_json::{Value, json};
use sibo_files::TensorFile;
use std::collections::BTreeMap;
use std::path::Path;

/// Every logit and hidden state of a model with an adapter, by name.
fn traced(place: &Place, model: &str, adapter: &str) -> BTreeMap<String, Vec<f32>> {
    let out = place.join("out.safetensors");
    let trace = ["trace", "--model", model, "--adapter", adapter, "--ids", "ids.json", "--out"];
    succeeds(place.sibo(&trace).arg(&out));
    read(&out)
}

fn read(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let mut file = TensorFile::open(path).unwrap();
    let names: Vec<String> = file.shapes().into_keys().collect();
    names.into_iter().map(|name| (name.clone(), file.read(&name).unwrap().into_f32())).collect()
}

fn config(place: &Place, folder: &str) -> Value {
    serde_json::from_slice(&std::fs::read(place.join(folder).join("adapter_config.json")).unwrap()).unwrap()
}

#[test]
fn a_boosted_lora_loses_its_lambda_and_says_so() {
    let place = Place::with("llama-gqa");
    place.ids("llama-gqa-sibo-35");
    let boosted = place.adapter("llama-gqa-sibo-35");
    let mut export = place.sibo(&["export", &boosted, "--as-plain-lora", "--output", "deep/plain"]);
    let out = export.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{said}");
    for part in ["warning: lambda 0.35 is dropped", "computes something else", "measure it"] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    assert!(String::from_utf8_lossy(&out.stdout).contains("without lambda (lossy)"));
    let plain = config(&place, "deep/plain");
    assert_eq!((&plain["peft_type"], plain.get("sibo")), (&json!("LORA"), None));
    let card = std::fs::read_to_string(place.join("deep/plain/README.md")).unwrap();
    assert!(card.contains("trained with lambda 0.35") && card.contains("library_name: peft"), "{card}");
    let exported = traced(&place, "llama-gqa", "deep/plain");
    assert_ne!(exported, traced(&place, "llama-gqa", &boosted), "lambda 0.35 does something");
    // The same matrices.
    let tensors = |folder: &str| read(&place.join(folder).join("adapter_model.safetensors"));
    assert_eq!(tensors("deep/plain"), tensors("models/llama-gqa-sibo-35"));
}

#[test]
fn a_plain_lora_loses_nothing() {
    let place = Place::with("llama-gqa");
    place.ids("llama-gqa-lora");
    let adapter = place.adapter("llama-gqa-lora");
    place.write("models/llama-gqa-lora/README.md", "its own card\n");
    let mut export = place.sibo(&["export", &adapter, "--as-plain-lora", "--output", "plain", "--json"]);
    let said: Value = serde_json::from_str(&succeeds(&mut export)).unwrap();
    assert_eq!((&said["lossy"], &said["dropped"]), (&json!(false), &Value::Null));
    assert_eq!(std::fs::read_to_string(place.join("plain/README.md")).unwrap(), "its own card\n");
    assert_eq!(traced(&place, "llama-gqa", "plain"), traced(&place, "llama-gqa", &adapter));
}

#[test]
fn the_template_goes_with_the_adapter() {
    let place = Place::with("llama-gqa");
    let adapter = place.adapter("llama-gqa-lora");
    let read = |name: &str| std::fs::read_to_string(place.join(name)).unwrap_or_default();
    for name in ["template.toml", "chat_template.jinja"] {
        place.write(&format!("models/{adapter}/{name}"), format!("its own {name}"));
        let plain = format!("plain-{name}");
        succeeds(&mut place.sibo(&["export", &adapter, "--as-plain-lora", "--output", &plain]));
        assert_eq!(read(&format!("{plain}/{name}")), format!("its own {name}"));
        let sibo = format!("sibo-{name}");
        let words = ["export", &adapter, "--format", "sibo", "--model", "llama-gqa", "--output", &sibo];
        succeeds(&mut place.sibo(&words));
        assert_eq!(read(&format!("{sibo}/{name}")), format!("its own {name}"));
        std::fs::remove_file(place.join(&format!("models/{adapter}/{name}"))).unwrap();
    }
    assert!(!place.join("plain-chat_template.jinja/template.toml").exists(), "no template is made up");
}

#[test]
fn what_is_no_lora_is_refused_as_one() {
    let place = Place::with("llama-gqa");
    let adapter = place.adapter("llama-gqa-houlsby");
    let export = ["export", &adapter, "--as-plain-lora", "--output", "plain"];
    fails(&mut place.sibo(&export), 1, &["a houlsby adapter is not a LoRA"]);
    assert!(!place.join("plain").exists());
    fails(
        &mut place.sibo(&["export", &adapter, "--as-plain-lora", "--output", "models"]),
        1,
        &["models: is there already"],
    );
    fails(&mut place.sibo(&["export", &adapter, "--output", "plain"]), 2, &["--as-plain-lora"]);
}

/// The largest difference of any tensor, relative to its largest entry.
fn apart(a: &BTreeMap<String, Vec<f32>>, b: &BTreeMap<String, Vec<f32>>) -> f32 {
    assert!(a.keys().eq(b.keys()));
    let of = |(a, b): (&Vec<f32>, &Vec<f32>)| {
        let scale = a.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
        a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / scale
    };
    a.values().zip(b.values()).map(of).fold(0.0, f32::max)
}

#[test]
fn adapter_hub_and_back() {
    for (model, case) in [
        ("bert-pooler", "bert-pooler-houlsby"),
        ("roberta-bare", "roberta-bare-pfeiffer"),
        ("llama-gqa", "llama-gqa-houlsby"),
        ("gptj", "gptj-houlsby"),
        ("bert-pooler", "hub-bert-double-ln-before"),
    ] {
        let place = Place::with(model);
        place.ids(case);
        let adapter = place.adapter(case);
        let there =
            ["export", &adapter, "--format", "adapter-hub", "--model", model, "--output", "deep/my.hub"];
        let out = place.sibo(&there).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success() && said.contains("its name there is `my_hub`"), "{case}: {said}");
        let hub = config(&place, "deep/my.hub");
        assert_eq!((&hub["name"], &hub["config"]["original_ln_after"]), (&json!("my_hub"), &json!(true)));
        let back = ["export", "deep/my.hub", "--format", "sibo", "--model", model, "--output", "back"];
        succeeds(&mut place.sibo(&back));
        assert_eq!(config(&place, "back")["peft_type"], "BOTTLENECK");
        let [own, hub, back] = [adapter.as_str(), "deep/my.hub", "back"].map(|a| traced(&place, model, a));
        assert!(apart(&own, &hub) < 1e-6 && hub == back, "{case}: {}", apart(&own, &hub));
    }
}

#[test]
fn what_adapter_hub_would_compute_otherwise_is_refused() {
    for (model, case, parts) in [
        ("bert-pooler", "bert-pooler-pfeiffer-sibo-70", ["lambda is above zero", "knows no lambda"]),
        ("llama-gqa", "llama-gqa-in-linear", ["in_linear adapters sit inside linears", "have a form there"]),
        ("llama-gqa", "llama-gqa-parallel", ["par_bn reads the residual stream", "LLaMA"]),
        ("llama-gqa", "llama-gqa-lora", ["a lora adapter has no form", "houlsby"]),
        ("qwen2", "qwen2-lora", ["no class for qwen2 models", "bert"]),
    ] {
        let place = Place::with(model);
        let adapter = place.adapter(case);
        let export = ["export", &adapter, "--format", "adapter-hub", "--model", model, "--output", "hub"];
        fails(&mut place.sibo(&export), 1, &parts);
        assert!(!place.join("hub").exists());
    }
    let place = Place::with("llama-gqa");
    let adapter = place.adapter("llama-gqa-houlsby");
    let without = ["export", &adapter, "--format", "adapter-hub", "--output", "hub"];
    fails(&mut place.sibo(&without), 2, &["--model MODEL"]);
}

#[test]
fn adapter_hub_folders_that_cannot_be_read() {
    let place = Place::with("bert-pooler");
    let adapter = place.adapter("hub-bert-seq-bn");
    let file = "models/hub-bert-seq-bn/adapter_config.json";
    let with = ["inspect", "bert-pooler", "--adapter", &adapter];
    succeeds(&mut place.sibo(&with));
    for (key, value) in [("residual_before_ln", json!("post_add")), ("scaling", json!("learned"))] {
        place.adapter("hub-bert-seq-bn");
        place.edit(file, |c| c["config"][key] = value.clone());
        fails(&mut place.sibo(&with), 1, &[&format!("`config.{key}`"), "supported are seq_bn"]);
    }
    place.adapter("hub-bert-seq-bn");
    place.edit("models/hub-bert-seq-bn/head_config.json", |c| c["config"]["layers"] = json!(1));
    fails(&mut place.sibo(&with), 1, &["head_config.json", "`config.layers`", "without it"]);
    place.adapter("hub-bert-seq-bn");
    std::fs::remove_file(place.join("models/hub-bert-seq-bn/adapter.safetensors")).unwrap();
    place.write("models/hub-bert-seq-bn/pytorch_adapter.bin", "pickle");
    fails(&mut place.sibo(&with), 1, &["pytorch_adapter.bin", "use_safetensors=True"]);
}
