//! Tiny models, quantised, against models of the values that their codes stand for.

use crate::{Batch, Bits, Compute, Labels, LoadOptions, Model, Row, quantise};
use serde_json::{Value, json};
use sibo_files::{Planned, TensorFile, Type, Values, write_planned};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn stored(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/models").join(model)
}

/// `model`, quantised, in a folder of its own.
fn coded(model: &str, bits: Bits, block: Option<usize>) -> (tempfile::TempDir, crate::Quantised) {
    let place = tempfile::tempdir().unwrap();
    let done = quantise(&stored(model), place.path(), bits, block).unwrap();
    (place, done)
}

/// What a coded tensor stands for, from its bytes.
fn decoded(q: &[i8], scale: &[f32], rows: usize, four: bool) -> (usize, Vec<f32>) {
    let codes: Vec<i32> = match four {
        false => q.iter().map(|q| i32::from(*q)).collect(),
        true => q
            .iter()
            .flat_map(|q| [(i32::from(*q) & 15) ^ 8, ((i32::from(*q) >> 4) & 15) ^ 8])
            .map(|u| u - 8)
            .collect(),
    };
    let (columns, scales) = (codes.len() / rows, scale.len() / rows);
    let value = |(i, code): (usize, &i32)| {
        *code as f32 * scale[i / columns * scales + i % columns / (columns / scales)]
    };
    (columns, codes.iter().enumerate().map(value).collect())
}

/// A folder of 32-bit floats with the values that the codes of `from` stand for.
fn widened(from: &Path) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let mut config: Value = sibo_files::json::read(&from.join("config.json")).unwrap();
    assert_eq!(config["quantization_config"]["quant_method"], "sibo");
    config.as_object_mut().unwrap().remove("quantization_config");
    std::fs::write(place.path().join("config.json"), config.to_string()).unwrap();
    let mut file = TensorFile::open(&from.join("model.safetensors")).unwrap();
    let layout: Value = serde_json::from_str(&file.strings()["sibo.quant"]).unwrap();
    let (mut planned, mut all) = (vec![], vec![]);
    for (name, mut shape) in file.shapes() {
        let tensor = file.read(&name).unwrap();
        let values = match &tensor.values {
            _ if name.ends_with(".scale") => continue,
            Values::I8(q) => {
                let scale = file.read(&format!("{name}.scale")).unwrap().into_f32();
                let bits = layout["except"].get(&name).unwrap_or(&layout)["bits"].as_u64();
                let (columns, values) = decoded(q, &scale, shape[0], bits == Some(4));
                shape[1] = columns;
                values
            }
            _ => tensor.into_f32(),
        };
        planned.push(Planned { name, kind: Type::F32, shape });
        all.push(values);
    }
    let path = place.path().join("model.safetensors");
    write_planned::<crate::Error>(&path, &planned, BTreeMap::new(), |i| Ok(Values::F32(all[i].clone())))
        .unwrap();
    place
}

/// The loss of a step and the gradients of a LoRA.
fn step(folder: &Path, compute: Compute) -> Vec<f64> {
    let options = LoadOptions { compute, ..LoadOptions::default() };
    let mut model = Model::load(folder, &options).unwrap().model;
    let lora = json!({"method": "lora", "r": 3, "target_modules": "all-linear"});
    model.attach(&sibo_peft::AdapterConfig::from_recipe("test", &lora).unwrap(), 3).unwrap();
    let row = |i: u64| Row {
        ids: (0..11).map(|j| 3 + (5 * i as u32 + j * j) % 55).collect(),
        types: vec![],
        sample: i,
    };
    let rows: Vec<Row> = (0..4).map(row).collect();
    let labels = match model.classes() {
        Some(_) => Labels::Classes(rows.iter().map(|r| r.ids[0] % 2).collect()),
        None => {
            Labels::Tokens(rows.iter().map(|r| r.ids.iter().map(|id| i64::from(*id)).collect()).collect())
        }
    };
    let batch = Batch::new(model.arch(), &rows).unwrap();
    let loss = model.forward_backward(&batch, &labels, 1.0, None, false).loss_sum;
    let grads = model.params().iter().flat_map(|p| &p.grad).map(|g| f64::from(*g));
    std::iter::once(loss).chain(grads).collect()
}

#[test]
fn a_coded_model_computes_what_its_widened_one_does() {
    for (model, block) in [
        ("llama-tied", Some(4)),
        ("llama-gqa", None),
        ("gptj", Some(2)),
        ("bert-classifier", Some(2)),
        ("qwen2", Some(2)),
    ] {
        for bits in [Bits::Eight, Bits::Four] {
            let (place, done) = coded(model, bits, block);
            let wide = widened(place.path());
            for compute in [Compute::F32, Compute::Bf16] {
                let (found, expected) = (step(place.path(), compute), step(wide.path(), compute));
                assert!(found == expected, "{model} in {bits:?}, blocks of {block:?}, {compute:?}");
                let original = step(&stored(model), compute);
                let moved = (found[0] - original[0]).abs() / original[0];
                assert!(found != original && moved < 0.05, "{model} in {bits:?}: loss moved by {moved}");
            }
            let kept = done.kinds.last().unwrap();
            assert_eq!((kept.bits, kept.before), (None, kept.after), "norms and biases stay");
            let coded = done.kinds.iter().filter(|k| k.bits.is_some());
            assert!(
                coded.clone().count() > 3 && coded.clone().all(|k| k.error() > 0.0 && k.worst >= k.error())
            );
        }
    }
}

#[test]
fn a_fingerprint_is_of_what_the_file_stores() {
    let of = |folder: &Path, compute| {
        let options = LoadOptions { compute, ..LoadOptions::default() };
        Model::load(folder, &options).unwrap().model.fingerprint().to_vec()
    };
    let (place, _) = coded("llama-tied", Bits::Eight, Some(4));
    let (whole, coded) = (stored("llama-tied"), place.path());
    for folder in [&*whole, coded] {
        // Products in 16 bits see other values, and a run resumed there is the same run.
        assert_eq!(of(folder, Compute::Bf16), of(folder, Compute::F32), "{}", folder.display());
    }
    let (whole, coded) = (of(&whole, Compute::F32), of(coded, Compute::F32));
    assert!(whole != coded && crate::fingerprint::same(&whole, &coded), "{whole:?} {coded:?}");
}

#[test]
fn a_tied_embedding_gets_eight_bits_and_another_one_is_kept() {
    let (place, done) = coded("llama-tied", Bits::Four, Some(4));
    let words = &done.kinds[0];
    assert_eq!((words.bits, words.numbers, words.after), (Some(Bits::Eight), 67 * 24, 67 * 24 + 67 * 6 * 4));
    let query = done.kinds.iter().find(|k| k.name == "self_attn.q_proj").unwrap();
    assert_eq!(query.bits, Some(Bits::Four));
    assert_eq!(query.after, query.numbers / 2 + query.numbers);
    let file = TensorFile::open(&place.path().join("model.safetensors")).unwrap();
    assert_eq!(file.shapes()["model.layers.0.mlp.down_proj.weight"], [24, 14]);
    assert_eq!(file.shapes()["model.layers.0.mlp.down_proj.weight.scale"], [24, 7]);
    let (place, _) = coded("llama-gqa", Bits::Four, Some(4));
    let file = TensorFile::open(&place.path().join("model.safetensors")).unwrap();
    assert_eq!(file.stored("model.embed_tokens.weight"), Some(Type::F32));
    assert_eq!(file.shapes()["lm_head.weight"], [71, 12]);
}

#[test]
fn what_cannot_be_coded_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let refused = |folder: &Path, block, parts: &[&str]| {
        let error = quantise(folder, place.path(), Bits::Four, block).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
        assert!(std::fs::read_dir(place.path()).unwrap().next().is_none(), "something was written");
    };
    refused(&stored("llama-gqa"), Some(64), &["blocks of 64", "24 columns", "q_proj", "largest", "is 4"]);
    let (once, _) = coded("gptj", Bits::Eight, None);
    refused(once.path(), None, &["quantised already", "original model"]);
}

#[test]
fn a_layout_that_does_not_fit_is_refused() {
    let (place, _) = coded("llama-tied", Bits::Four, Some(4));
    let path = place.path().join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    let size = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(whole[8..8 + size].to_vec()).unwrap();
    for (from, to, parts) in [
        (r#"{\"bits\":4"#, r#"{\"bits\":5"#, ["sibo.quant", "`bits` must be 4 or 8"]),
        (r#"\"block\":4,\"except\""#, r#"\"block\":0,\"except\""#, ["sibo.quant", "`block` must be"]),
        (
            r#"\"block\":4,\"except\""#,
            r#"\"block\":2,\"except\""#,
            ["scales, where sibo.quant", "are needed"],
        ),
        (
            r#"\"block\":4,\"except\""#,
            r#"\"block\":5,\"except\""#,
            ["scales, where sibo.quant", "must divide"],
        ),
    ] {
        assert!(header.contains(from), "{header}");
        let changed = [&whole[..8], header.replace(from, to).as_bytes(), &whole[8 + size..]].concat();
        std::fs::write(&path, changed).unwrap();
        let error = Model::load(place.path(), &LoadOptions::default()).err().unwrap().to_string();
        for part in parts {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    }
}
