//! `sibo quantize`: a smaller folder that every other command opens.

mod common;

use common::{Place, fails, succeeds};
use serde_json::Value;
use sibo_files::TensorFile;
use std::collections::BTreeMap;

/// Every logit of a model, by name, under `--compute` or without it.
fn traced(place: &Place, model: &str, compute: Option<&str>) -> BTreeMap<String, Vec<f32>> {
    let out = place.join("out.safetensors");
    let mut sibo = place.sibo(&["trace", "--ids", "ids.json", "--model", model, "--out"]);
    sibo.arg(&out).args(compute.map(|word| format!("--compute={word}")));
    succeeds(&mut sibo);
    let mut file = TensorFile::open(&out).unwrap();
    let names: Vec<String> = file.shapes().into_keys().filter(|n| n.starts_with("logits")).collect();
    names.into_iter().map(|name| (name.clone(), file.read(&name).unwrap().into_f32())).collect()
}

/// The largest difference, as a share of the largest logit.
fn differ(a: &BTreeMap<String, Vec<f32>>, b: &BTreeMap<String, Vec<f32>>) -> f32 {
    assert!(a.keys().eq(b.keys()) && !a.is_empty());
    let pairs = || a.values().flatten().zip(b.values().flatten());
    let scale = pairs().fold(0f32, |m, (a, _)| m.max(a.abs()));
    pairs().fold(0f32, |m, (a, b)| m.max((a - b).abs())) / scale
}

#[test]
fn a_quantised_model_is_near_and_small() {
    let place = Place::with("llama-tied");
    place.ids("llama-tied-lora-patterns");
    place.write("models/llama-tied/SHA256SUMS", "of the old weights");
    let size = |model: &str| {
        std::fs::metadata(place.join(&format!("models/{model}/model.safetensors"))).unwrap().len()
    };
    let base = traced(&place, "llama-tied", Some("f32"));
    assert_eq!(traced(&place, "llama-tied", None), base, "floats are computed as floats");
    for (bits, near) in [("8", 0.05), ("4", 0.6)] {
        let (name, output) = (format!("small-{bits}"), format!("models/small-{bits}"));
        let words = ["quantize", "llama-tied", "--bits", bits, "--block", "4", "--output", &output];
        let text = succeeds(&mut place.sibo(&words));
        for part in [
            "embed_tokens (tied to the head)",
            "mlp.down_proj",
            "kept as they are",
            "one scale for 4 columns",
        ] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        assert_eq!(
            place.names(&output),
            [
                "config.json",
                "generation_config.json",
                "model.safetensors",
                "tokenizer.json",
                "tokenizer_config.json"
            ]
        );
        let [wide, narrow] = ["f32", "bf16"].map(|compute| traced(&place, &name, Some(compute)));
        for found in [&wide, &narrow] {
            let moved = differ(&base, found);
            assert!(moved > 1e-4 && moved < near, "{bits} bits: {moved}");
        }
        assert!(
            wide != narrow && traced(&place, &name, None) == narrow,
            "{bits} bits are not widened unasked"
        );
        assert!(size(&name) < size("llama-tied"), "{bits} bits");
    }
    let words = ["quantize", "llama-tied", "--bits", "4", "--block", "row", "--output", "rows", "--json"];
    let value: Value = serde_json::from_str(&succeeds(&mut place.sibo(&words))).unwrap();
    assert_eq!((&value["block"], &value["kinds"][1]["bits"]), (&"row".into(), &4.into()));
}

#[test]
fn what_cannot_be_quantised_is_refused_and_leaves_nothing() {
    let place = Place::with("llama-gqa");
    let quantize =
        |model: &str, words: &[&str]| place.sibo(&[&["quantize", model, "--output", "new"], words].concat());
    fails(
        &mut quantize("llama-gqa", &["--bits", "8"]),
        1,
        &["blocks of 64 do not divide the 24 columns", "is 4"],
    );
    fails(&mut quantize("llama-gqa", &["--bits", "5"]), 2, &["--bits", "8, 4"]);
    fails(&mut quantize("llama-gqa", &["--bits", "4", "--block", "0"]), 2, &["--block", "or `row`"]);
    assert_eq!(place.names(""), ["models"]);
    succeeds(&mut quantize("llama-gqa", &["--bits", "4", "--block", "2"]));
    fails(&mut quantize("llama-gqa", &["--bits", "4", "--block", "2"]), 1, &["new: is there already"]);
    let again = ["quantize", "new", "--bits", "8", "--block", "2", "--output", "twice"];
    fails(&mut place.sibo(&again), 1, &["is quantised already", "use the original model"]);
}
