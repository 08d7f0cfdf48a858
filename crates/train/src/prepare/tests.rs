use super::*;
use crate::{Settings, card, checkpoint, testing, train};
use serde_json::{Value, json};
use std::sync::atomic::AtomicBool;

/// A recipe for a made model and a file beside it.
fn recipe(dir: &Path, rest: &Value) -> Recipe {
    let mut value = json!({"model": "made", "output_dir": dir.join("run").display().to_string(), "template": "plain",
        "adapter": {"method": "lora", "r": 3, "sibo": {"lambda": 0.35}},
        "training": {"max_steps": 3, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}});
    for (key, own) in rest.as_object().unwrap() {
        value[key] = own.clone();
    }
    Recipe::from_value("test", &value).unwrap()
}

fn instructions(path: &Path, count: usize) {
    let line = |i: usize| {
        json!({"instruction": format!("What is {i} + 1?"), "output": format!("It is {}.", i + 1)}).to_string()
    };
    std::fs::write(path, (0..count).map(|i| line(i) + "\n").collect::<String>()).unwrap();
}

#[test]
fn a_data_file_becomes_a_trained_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rows.jsonl");
    instructions(&file, 30);
    let places = Places {
        model: testing::folder(dir.path(), "llama"),
        root: dir.path().into(),
        data: Some(file.clone()),
        validation: None,
        test: None,
    };
    let recipe = recipe(dir.path(), &json!({"data": "rows.jsonl"}));
    let mut ready = prepare(&recipe, &places, 0).unwrap();
    let held = ready.validation.clone().unwrap();
    assert_eq!((ready.train.rows.len(), held.rows.len()), (27, 3));
    let ids = |d: &Dataset| d.rows.iter().map(|r| r.row.sample).collect::<Vec<_>>();
    assert!(ids(&held).iter().all(|id| !ids(&ready.train).contains(id)));
    assert_eq!(ready.model.adapter().unwrap().config.task_type, Some(TaskType::CausalLm));
    let settings = Settings {
        training: recipe.training.clone(),
        seed: recipe.seed,
        run_dir: Some(dir.path().join("run")),
        probe_rows: vec![],
        plan: Some(ready.plan),
    };
    let validation = Validation { data: &held, metrics: vec![] };
    let stop = AtomicBool::new(false);
    let out =
        train(&mut ready.model, &ready.train, Some(&validation), &settings, None, &mut crate::Silent, &stop)
            .unwrap();
    let scores =
        [card::CardScore { on: "made up".into(), metric: "acc".into(), value: 0.5, stderr: Some(0.125) }];
    let text = card::text(&ready.model, &recipe, &out, &scores);
    let folder = dir.path().join("run/adapter");
    checkpoint::save_adapter(&ready.model, &folder, &text).unwrap();
    let again = Model::load_with_adapter(&places.model, &folder, LoadOptions::default()).unwrap().model;
    assert_eq!(testing::bits(&again), testing::bits(&ready.model));
    for part in [
        "library_name: sibo",
        "3 of 3 steps",
        "| made up | acc | 0.5000 | 0.1250 |",
        "\"lambda\":0.35",
        "max_steps = 3",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn a_task_becomes_a_class_head_or_lessons() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir_all(data.join("glue/RTE")).unwrap();
    let rows: String = (0..20)
        .map(|i| format!("{i}\tthe dog is {i}\the is it\t{}\n", ["entailment", "not_entailment"][i % 2]))
        .collect();
    std::fs::write(data.join("glue/RTE/train.tsv"), format!("index\tsentence1\tsentence2\tlabel\n{rows}"))
        .unwrap();
    let at = |kind: &str| Places {
        model: testing::folder(dir.path(), kind),
        root: data.clone(),
        data: None,
        validation: None,
        test: None,
    };
    let ready = prepare(&recipe(dir.path(), &json!({"task": "rte"})), &at("bert"), 0).unwrap();
    assert_eq!((ready.model.classes(), ready.protocol), (Some(2), None));
    assert_eq!((ready.train.rows.len(), ready.validation.as_ref().map(|v| v.rows.len())), (18, Some(2)));
    assert_eq!(ready.metrics, [Metric::Acc]);
    assert!(ready.notes.iter().any(|n| n.contains("drawn from the seed: classifier")), "{:?}", ready.notes);
    let asked = recipe(dir.path(), &json!({"task": "rte", "protocol": "lm-eval"}));
    let ready = prepare(&asked, &at("llama"), 0).unwrap();
    assert_eq!((ready.protocol, ready.metrics.len()), (Some(Protocol::LmEval), 0));
    assert!(matches!(ready.train.rows[0].label, data::Label::Tokens(_)));
    let limited = recipe(
        dir.path(),
        &json!({"task": "rte", "training": {"max_train_samples": 5, "validation_rows": 4}}),
    );
    let ready = prepare(&limited, &at("bert"), 0).unwrap();
    assert_eq!((ready.train.rows.len(), ready.validation.map(|v| v.rows.len())), (5, Some(4)));
}

#[test]
fn a_mixture_shares_its_rows_out() {
    let dir = tempfile::tempdir().unwrap();
    let glue = |name: &str, columns: &str, rows: usize| {
        let folder = dir.path().join("data/glue").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let row =
            |i| format!("{i}\tthe dog is {i}\tit is {name}\t{}\n", ["entailment", "not_entailment"][i % 2]);
        let rows: String = (0..rows).map(row).collect();
        std::fs::write(folder.join("train.tsv"), format!("index\t{columns}\tlabel\n{rows}")).unwrap();
    };
    glue("RTE", "sentence1\tsentence2", 20);
    glue("QNLI", "question\tsentence", 30);
    let places = Places {
        model: testing::folder(dir.path(), "llama"),
        root: dir.path().join("data"),
        data: None,
        validation: None,
        test: None,
    };
    let mixed = |more: Value| {
        let mut value = json!({"task": ["rte", "qnli"], "protocol": "lm-eval"});
        value["training"] = more;
        prepare(&recipe(dir.path(), &value), &places, 0).unwrap()
    };
    let counts = |ready: &Prepared| {
        let of = |data: &Dataset, place: &str| {
            data.rows.iter().filter(|r| data.origin(r.row.sample).1 == place).count()
        };
        let held = ready.validation.as_ref().unwrap();
        [of(&ready.train, "rte"), of(&ready.train, "qnli"), of(held, "rte"), of(held, "qnli")]
    };
    let ready = mixed(json!({"max_train_samples": 9, "validation_rows": 5}));
    assert_eq!(counts(&ready), [5, 4, 3, 2]);
    assert_eq!(ready.train.place, "rte + qnli");
    // Without a number all rows of all tasks are learned.
    let whole = mixed(json!({}));
    assert_eq!(counts(&whole), [18, 27, 2, 3]);
    // A task's share is what it would give alone.
    let alone = json!({"task": "rte", "protocol": "lm-eval", "training": {"max_train_samples": 5, "validation_rows": 3}});
    let alone = prepare(&recipe(dir.path(), &alone), &places, 0).unwrap();
    let of_rte: Vec<_> = ready.train.rows.iter().step_by(2).collect();
    assert_eq!(of_rte, alone.train.rows.iter().collect::<Vec<_>>());
    let mut ids: Vec<u64> = whole.train.rows.iter().map(|r| r.row.sample).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 45, "every row draws dropout masks of its own");
}

#[test]
fn what_does_not_go_together_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rows.jsonl");
    instructions(&file, 4);
    let places = |kind: &str| Places {
        model: testing::folder(dir.path(), kind),
        root: dir.path().into(),
        data: Some(file.clone()),
        validation: None,
        test: None,
    };
    let said = |rest: Value, places: &Places| {
        prepare(&recipe(dir.path(), &rest), places, 0).map(|_| ()).unwrap_err().to_string()
    };
    let text = said(json!({"data": "x", "training": {"validation_rows": 4}}), &places("llama"));
    assert!(text.contains("4 validation rows out of 4 leave none to learn from"), "{text}");
    let text = said(json!({"data": "x", "template": "alpace"}), &places("llama"));
    assert!(text.contains("Did you mean `alpaca`?"), "{text}");
    let text = said(json!({"data": "x"}), &places("bert"));
    assert!(text.contains("needs a causal model") && text.contains("bert"), "{text}");
    let text = said(json!({"task": "gsm8k"}), &places("bert"));
    assert!(text.contains("gsm8k") && text.contains("causal"), "{text}");
    // A tokenizer that knows more tokens than the model has rows.
    let wrong = places("llama");
    let bert = testing::folder(dir.path(), "bert");
    std::fs::copy(wrong.model.join("tokenizer.json"), bert.join("tokenizer.json")).unwrap();
    let text = said(json!({"task": "rte"}), &Places { model: bert, ..wrong });
    assert!(text.contains("wrong tokenizer for the vocabulary"), "{text}");
}
