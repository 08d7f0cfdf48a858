//! Two tables that PEFT and transformers filled (`tests/reference/tables.py`): which modules a configuration means,
//! and the inverse frequencies of every rope variant at the head widths of real models.

use serde_json::{Value, json};
use sibo_kernels::rope::RopeStyle;
use sibo_model::{LoadOptions, Model, RopeScaling, RopeSpec};
use sibo_peft::branch::Function;
use sibo_peft::{Adapter, AdapterConfig, Module};
use sibo_tests::{data, relative_error};

/// The stored model with the module names of a class in the table, cut to its two layers.
fn model(class: &str) -> Model {
    let name = match class {
        "bert" => "bert-classifier",
        "roberta" => "roberta-regression",
        "bert-headless" => "bert-pooler",
        "llama" => "llama-gqa",
        other => other,
    };
    let options = LoadOptions { keep_layers: Some(2), ..LoadOptions::default() };
    Model::load(&data().join("models").join(name), &options).unwrap_or_else(|e| panic!("{class}: {e}")).model
}

/// The hits in alphabetical order, or the sentence of the refusal.
fn hits(class: &str, options: &Value) -> Result<Vec<String>, String> {
    let mut model = model(class);
    let task = match class {
        "bert" | "roberta" => json!("SEQ_CLS"),
        "bert-headless" => json!(null),
        _ => json!("CAUSAL_LM"),
    };
    let mut object = json!({"peft_type": "LORA", "r": 2, "task_type": task});
    for (key, value) in options.as_object().expect("options") {
        object[key] = value.clone();
    }
    let config = AdapterConfig::from_json("adapter_config.json", &object).map_err(|e| e.to_string())?;
    model.attach(&config, 1).map_err(|e| e.to_string())?;
    // Without SIBO every branch is plain.
    let mut hits = model.adapter().expect("just attached").plain.clone();
    hits.sort();
    Ok(hits)
}

#[test]
fn targets_are_those_that_peft_hits() {
    let table = sibo_files::json::read(&data().join("peft_targets.json")).expect("a table");
    let cases = table["cases"].as_array().expect("cases");
    let mut wrong = Vec::new();
    for case in cases {
        let class = case["model"].as_str().expect("a class");
        let got = hits(class, &case["options"]);
        let fits = match (&got, case["hits"].is_null()) {
            (Ok(found), false) => {
                let mut theirs: Vec<&str> =
                    case["hits"].as_array().expect("paths").iter().filter_map(Value::as_str).collect();
                theirs.sort_unstable();
                *found == theirs
            }
            // The sentence names the key and what the model has.
            (Err(why), true) => why.contains("target_modules") && why.contains("its modules end in"),
            _ => false,
        };
        if !fits {
            wrong.push(format!("{class} {}: {got:?}, PEFT {}", case["options"], case["hits"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.len() >= 52, "{}", cases.len());
}

fn spec(table: &Value) -> RopeSpec {
    let rope = &table["rope_parameters"];
    let number = |key: &str| rope[key].as_f64().unwrap_or_else(|| panic!("{key} in {rope}"));
    let longest = table["max_position_embeddings"].as_u64().expect("a length") as usize;
    let scaling = match rope["rope_type"].as_str() {
        Some("default") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear { factor: number("factor") },
        Some("dynamic") => RopeScaling::Dynamic { factor: number("factor"), original: longest },
        Some("llama3") => RopeScaling::Llama3 {
            factor: number("factor"),
            low: number("low_freq_factor"),
            high: number("high_freq_factor"),
            original: number("original_max_position_embeddings") as usize,
        },
        other => panic!("rope type {other:?}"),
    };
    let rotary_dim = table["head_dim"].as_u64().expect("a width") as usize;
    RopeSpec { style: RopeStyle::Halves, rotary_dim, theta: number("rope_theta"), scaling }
}

#[test]
fn inverse_frequencies_are_those_of_transformers() {
    let file = sibo_files::json::read(&data().join("rope.json")).expect("a table");
    let tables = file["tables"].as_array().expect("tables");
    let mut longer = 0;
    for table in tables {
        let spec = spec(table);
        let length = table["length"].as_u64().expect("a length") as usize;
        let got = spec.inverse_frequencies(length);
        let want: Vec<f32> = table["inv_freq"]
            .as_array()
            .expect("numbers")
            .iter()
            .map(|v| v.as_f64().expect("a number") as f32)
            .collect();
        assert_eq!(got.len(), want.len());
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            // Each entry on its own, since they span five orders of magnitude; powf is off by a few 2^-24, and the
            // exponent multiplies that by up to ln(theta).
            assert!(relative_error(&[*g], &[*w], 0.0) < 3e-6, "{table} entry {i}: {g} is not {w}");
        }
        assert_eq!(table["attention_scaling"], json!(1.0), "a factor on cos and sin is not implemented");
        longer += usize::from(spec.depends_on(length));
    }
    assert!(
        tables.len() >= 14 && longer >= 2,
        "{} tables, {longer} beyond the original length",
        tables.len()
    );
}

/// A fact about the site, not about a name or a width: FFN down stays plain where its width is the model's.
#[test]
fn sibo_enters_what_reads_the_token_s_state() {
    for class in ["bert", "llama", "gptj"] {
        let shape = model(class).shape();
        for module in &shape.modules {
            let wide = Module { inp: shape.width, ..module.clone() };
            let name = module.name();
            let down = module.path.ends_with("down_proj")
                || module.path.ends_with("fc_out")
                || module.path.ends_with(".output.dense") && !module.path.contains("attention");
            assert_eq!(wide.injectable(shape.width), module.layer.is_some() && !down, "{}", module.path);
            let narrow = Module { inp: shape.width + 1, ..module.clone() };
            assert!(!narrow.injectable(shape.width), "{name} reads {} columns", narrow.inp);
        }
        let mut square = shape.clone();
        square.modules.iter_mut().for_each(|m| m.inp = square.width);
        let target = if class == "bert" { "output.dense" } else { "down_proj" };
        let listed = json!({"peft_type": "SIBO_LORA", "r": 2, "target_modules": [target, "q_proj"],
            "sibo": {"lambda": 0.3, "placement": [target]}});
        let config = AdapterConfig::from_json("adapter_config.json", &listed).expect("a configuration");
        if class != "gptj" {
            let error = Adapter::new(&config, &square, 1, &|_| None).expect_err("refused").to_string();
            assert!(error.contains("FFN's inner state"), "{error}");
        }
    }
}

/// What a merge adds to W is s B A.
#[test]
fn the_delta_of_a_pair_is_its_product() {
    let model = model("llama");
    let object = json!({"peft_type": "LORA", "r": 3, "lora_alpha": 7, "target_modules": ["up_proj"], "init_lora_weights": false});
    let config = AdapterConfig::from_json("adapter_config.json", &object).expect("a configuration");
    let adapter = Adapter::new(&config, &model.shape(), 5, &|name| model.tensor(name)).expect("fits");
    let values: Vec<(&[usize], &[f32])> =
        adapter.params.iter().map(|p| (&p.shape[..], &p.value[..])).collect();
    for (pair, placed) in values.chunks(2).zip(&adapter.placed) {
        let [(a_shape, a), (b_shape, b)] = pair else { panic!("a pair") };
        let (rank, inp, out) = (a_shape[0], a_shape[1], b_shape[0]);
        let Function::Lora(lora) = &placed.branch.function else { panic!("a LoRA") };
        let delta = lora.delta(&adapter.params);
        let want: Vec<f32> = (0..out * inp)
            .map(|at| {
                let sum: f64 = (0..rank)
                    .map(|r| f64::from(b[at / inp * rank + r]) * f64::from(a[r * inp + at % inp]))
                    .sum();
                (7.0 / 3.0 * sum) as f32
            })
            .collect();
        assert!(relative_error(&delta, &want, 0.0) < 1e-6);
    }
}
