//! `lm-eval` is lm-evaluation-harness: the same requests to the byte, likelihoods and metrics as its own on the same
//! rows and model. `tests/reference/harness.py` handed it the rows.

use serde_json::Value;
use sibo_model::{LoadOptions, Model};
use sibo_tasks::{Protocol, SplitName, Task, Wanted};
use sibo_text::{Template, Tokenizer};
use sibo_train::evaluate::{Asked, EvalOptions, evaluate};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

const TOLERANCE: f64 = 1e-3;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/harness")
}

/// The stored tiny model with as many positions as the script gave it, beside the script's tokenizer.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/models/llama-gqa");
    std::fs::copy(stored.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(stored.join("config.json")).unwrap()).unwrap();
    config["max_position_embeddings"] = 1024.into();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixture().join(file), folder.path().join(file)).unwrap();
    }
    folder
}

#[test]
fn likelihoods_and_metrics_are_the_harness_s() {
    let folder = folder();
    let model = Model::load(folder.path(), &LoadOptions::default()).unwrap().model;
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    let template = Template::choose("plain", &tokenizer, 0).unwrap();
    let asked = Asked { model: &model, tokenizer: &tokenizer, template: &template };
    let expected = std::fs::read(fixture().join("expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    let options = EvalOptions { protocol: Protocol::LmEval, batch: 4, ..EvalOptions::default() };
    let mut compared = 0;
    for (name, expected) in expected.as_object().unwrap() {
        let task = Task::named(name).unwrap();
        let rows = task.load(&fixture().join("data"), SplitName::Test, &Wanted::default()).unwrap();
        let done = evaluate(asked, &task, &rows, &options, &mut |_, _| {}, &AtomicBool::new(false)).unwrap();
        for (row, sample) in done.samples.iter().enumerate() {
            let theirs: Vec<(String, String)> =
                serde_json::from_value(expected["arguments"][row].clone()).unwrap();
            assert_eq!(sample.arguments, theirs, "{name} row {row}");
            let theirs: Vec<f64> = serde_json::from_value(expected["likelihoods"][row].clone()).unwrap();
            let ours: Vec<f64> = sample.responses.iter().map(|r| r.parse().unwrap()).collect();
            let near = ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() < TOLERANCE);
            assert!(near && ours.len() == theirs.len(), "{name} row {row}: {ours:?} {theirs:?}");
            compared += ours.len();
        }
        for (metric, theirs) in expected["metrics"].as_object().unwrap() {
            let found = done.result.scores.iter().find(|s| s.metric.name() == metric);
            let ours = found.unwrap_or_else(|| panic!("{name} has no {metric}")).score.value;
            assert!((ours - theirs.as_f64().unwrap()).abs() < TOLERANCE, "{name} {metric}: {ours} {theirs}");
        }
    }
    assert!(compared > 250, "{compared}");
}
