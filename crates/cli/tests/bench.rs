//! `sibo bench`: figures for programs, and a loss that other programs find too.

mod common;

use assert_cmd::Command;
use common::{data, fails, sibo, succeeds};
use serde_json::Value;
use sibo_files::TensorFile;
use std::path::Path;

fn bench(kind: &str, ids: &Path) -> Command {
    let mut command = sibo();
    command.args(["bench", kind, "--rounds", "3", "--threads", "2", "--json"]);
    command.arg("--model").arg(data().join("models/llama-gqa")).arg("--ids").arg(ids);
    command
}

fn line(command: &mut Command) -> Value {
    let text = succeeds(command);
    assert_eq!(text.trim_end().lines().count(), 1);
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["rounds"].as_array().unwrap().len(), 3);
    assert!(line["seconds"].as_f64().unwrap() > 0.0 && line["peak_mib"].as_f64().unwrap() > 1.0);
    assert!(line["f32_gflop"].as_f64().unwrap() > 0.0 && line["gbytes"].as_f64().unwrap() > 0.0);
    line
}

#[test]
fn a_training_step_starts_at_the_loss_of_the_reference() {
    let folder = data().join("cases/llama-gqa-lora");
    let mut command = bench("train", &folder.join("ids.json"));
    let found = line(command.arg("--adapter").arg(folder.join("adapter")))["loss"].as_f64().unwrap();
    let mut file = TensorFile::open(&folder.join("expected.safetensors")).unwrap();
    let loss = f64::from(file.read("loss").unwrap().into_f32()[0]);
    assert!((found - loss).abs() < 1e-4 * loss, "{found} {loss}");
    let unlabelled = tempfile::tempdir().unwrap();
    let ids = unlabelled.path().join("ids.json");
    std::fs::write(&ids, r#"{"input_ids": [[5, 9, 12]]}"#).unwrap();
    fails(&mut bench("train", &ids), 1, &["ids.json: a training step needs labels"]);
}

/// A model of random weights, coded, and a fresh adapter on it: what large shapes are measured with.
#[test]
fn a_model_of_random_weights_takes_steps() {
    let dir = tempfile::tempdir().unwrap();
    let shape = data().join("models/gptj/config.json");
    for bits in ["16", "8"] {
        let output = dir.path().join(bits);
        let mut command = sibo();
        command
            .args(["bench", "model", "--bits", bits, "--json", "--shape"])
            .arg(&shape)
            .arg("--output")
            .arg(&output);
        let written: Value = serde_json::from_str(&succeeds(&mut command)).unwrap();
        assert_eq!(written["shards"], 1);
        let mut command = sibo();
        command
            .args(["bench", "train", "--shape", "2x7", "--set", "r=3", "--rounds", "3", "--json", "--model"]);
        line(command.arg(&output));
        fails(
            sibo().args(["bench", "model", "--shape", "llama-7b", "--output"]).arg(&output),
            1,
            &["is there already"],
        );
    }
    let lost = dir.path().join("none");
    fails(
        sibo().args(["bench", "model", "--shape", "opt-6b", "--output"]).arg(&lost),
        1,
        &["llama-7b, gptj-6b"],
    );
    assert!(!lost.exists());
}

/// Scoring and generation see the same prompt, so they find the same loss of its last tokens.
#[test]
fn scoring_and_generation_give_figures() {
    let dir = tempfile::tempdir().unwrap();
    let (questions, prompts) = (dir.path().join("questions.json"), dir.path().join("prompts.json"));
    std::fs::write(&questions, r#"{"questions": [[[5], [[9, 12, 7], [30]]]]}"#).unwrap();
    std::fs::write(&prompts, r#"{"input_ids": [[5, 9, 12, 7], [5, 30]]}"#).unwrap();
    let scored = line(&mut bench("score", &questions));
    for beams in ["1", "3"] {
        let written = line(bench("generate", &prompts).args(["--max-new-tokens", "6", "--num-beams", beams]));
        let (a, b) = (scored["loss"].as_f64().unwrap(), written["loss"].as_f64().unwrap());
        assert!((a - b).abs() < 1e-5, "{a} {b}");
        let lengths: Vec<usize> =
            written["sequences"].as_array().unwrap().iter().map(|s| s.as_array().unwrap().len()).collect();
        assert_eq!(lengths, [6, 6]);
    }
    std::fs::write(&questions, r#"{"questions": [[[], [[9]]]]}"#).unwrap();
    fails(&mut bench("score", &questions), 1, &["questions.json: question 0", "holds no token"]);
}

/// Less memory, the same loss: layers are computed again, then streamed, and then it is refused.
#[test]
fn a_step_stays_within_a_budget_or_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.json");
    let shape = serde_json::json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 384, "intermediate_size": 768,
        "num_hidden_layers": 12, "num_attention_heads": 6, "vocab_size": 90, "tie_word_embeddings": false,
    });
    std::fs::write(&config, shape.to_string()).unwrap();
    let model = dir.path().join("model");
    succeeds(sibo().args(["bench", "model", "--shape"]).arg(&config).arg("--output").arg(&model));
    let train = |memory: Option<String>| {
        let mut command = sibo();
        command.args(["bench", "train", "--shape", "1x9", "--rounds", "3", "--json", "--model"]).arg(&model);
        command.args(memory.map(|m| format!("--memory={m}")));
        command
    };
    let whole = line(&mut train(None));
    assert!(whole["streaming"].is_null());
    let planned = whole["planned_mib"].as_f64().unwrap();
    let less = line(&mut train(Some(format!("{}MiB", planned as u64 - 30))));
    assert_eq!(whole["loss"], less["loss"]);
    assert_eq!(less["plan"]["recomputed"], 12);
    let streamed = less["plan"]["streamed"].as_u64().unwrap();
    assert!((3..=12).contains(&streamed) && less["streaming"]["layers"] == streamed, "{less}");
    assert!(less["streaming"]["gbytes"].as_f64().unwrap() > 0.0);
    fails(
        &mut train(Some("20MiB".into())),
        1,
        &["as it is asked for", "the budget is 20 MiB", "would be enough"],
    );
    fails(&mut train(Some("a lot".into())), 2, &["a lot", "8GiB"]);
}

#[test]
fn overhead_counts_what_the_formula_says_and_sibo_adds_no_product() {
    let dir = tempfile::tempdir().unwrap();
    let plot = dir.path().join("overhead.svg");
    let mut command = sibo();
    command.arg("overhead").arg(data().join("models/llama-gqa"));
    command
        .args(["--shapes", "2x7,3x20", "--rounds", "2", "--set", "r=3", "--dropout", "--json", "--plot"])
        .arg(&plot);
    let found: Value = serde_json::from_str(&succeeds(&mut command)).unwrap();
    let numbers = &found["trained_numbers"];
    assert!(numbers["plain"].as_u64().unwrap() > 0 && numbers["plain"] == numbers["sibo"]);
    for shape in found["shapes"].as_array().unwrap() {
        let total = &shape["formula"]["total"];
        assert!(*total == shape["plain"]["flop"] && *total == shape["sibo"]["flop"], "{shape}");
        let [ratio, low, high] =
            [&shape["time_ratio"], &shape["time_ratio_interval"][0], &shape["time_ratio_interval"][1]]
                .map(|v| v.as_f64().unwrap());
        assert!(0.0 < low && low <= ratio && ratio <= high, "{shape}");
    }
    assert!(std::fs::read_to_string(plot).unwrap().contains("tokens of a step"));
    let mut command = sibo();
    command.arg("overhead").arg(data().join("models/llama-gqa")).args(["--method", "full"]);
    fails(&mut command, 1, &["`full` has no branch"]);
}
