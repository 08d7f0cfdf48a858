//! `sibo trace` and `sibo generate --ids`: everything is written, or nothing is.

mod common;

use common::{data, fails, sibo, succeeds};
use serde_json::Value;
use sibo_files::TensorFile;
use std::collections::BTreeMap;
use std::path::Path;

/// The command line of a stored case's run.
fn case(name: &str, command: &str, out: &Path) -> assert_cmd::Command {
    let folder = data().join("cases").join(name);
    let about: Value = serde_json::from_slice(&std::fs::read(folder.join("case.json")).unwrap()).unwrap();
    let mut line = sibo();
    line.arg(command).arg("--model").arg(data().join("models").join(about["model"].as_str().unwrap()));
    line.arg("--ids").arg(folder.join("ids.json")).arg("--out").arg(out);
    if about["adapter"] == true {
        line.arg("--adapter").arg(folder.join("adapter"));
    }
    line
}

fn read(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let mut file = TensorFile::open(path).unwrap();
    let names: Vec<String> = file.shapes().into_keys().collect();
    names
        .into_iter()
        .map(|name| {
            let tensor = file.read(&name).unwrap();
            (name, (tensor.shape.clone(), tensor.into_f32()))
        })
        .collect()
}

/// Same names and shapes; values within 1e-3 of the tensor's largest (tests/ holds them closer, in the library).
fn same(ours: &Path, expected: &Path) {
    let (ours, expected) = (read(ours), read(expected));
    assert_eq!(ours.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, (shape, values)) in &expected {
        let (our_shape, our_values) = &ours[name];
        assert_eq!(our_shape, shape, "{name}");
        let scale = values.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
        let worst = values.iter().zip(our_values).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst <= 1e-3 * scale, "{name}: {worst} of {scale}");
    }
}

#[test]
fn every_tensor_and_gradient_is_written() {
    let dir = tempfile::tempdir().unwrap();
    for name in
        ["llama-gqa-sibo-35", "bert-pooler-houlsby", "roberta-regression-lora", "gptj-in-linear-sibo-70"]
    {
        let out = dir.path().join("deep/below/out.safetensors");
        let text = succeeds(case(name, "trace", &out).arg("--grads"));
        assert_eq!(text, "", "the result is in the file, and nothing is on stdout");
        same(&out, &data().join("cases").join(name).join("expected.safetensors"));
    }
}

#[test]
fn optimiser_steps_are_written_instead() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.safetensors");
    let folder = data().join("cases/bert-pooler-lora-4");
    let words = "--optim-steps 5 --lr 0.013 --weight-decay 0.07 --warmup-steps 2 --max-grad-norm 0.6";
    succeeds(case("bert-pooler-lora-4", "trace", &out).args(words.split(' ')));
    same(&out, &folder.join("steps.safetensors"));
    // One of the four left out makes no sense.
    let error = fails(
        case("bert-pooler-lora-4", "trace", &out).args(&words.split(' ').collect::<Vec<_>>()[..8]),
        2,
        &["--max-grad-norm"],
    );
    assert!(error.contains("Usage"), "{error}");
    fails(case("bert-pooler-lora-4", "trace", &out).args(["--lr", "0.1"]), 2, &["--optim-steps"]);
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let outs = ["1", "2", "5"].map(|threads| {
        let out = dir.path().join(threads);
        succeeds(case("llama-gqa-sibo-35", "trace", &out).args(["--grads", "--threads", threads]));
        std::fs::read(out).unwrap()
    });
    assert!(outs[0] == outs[1] && outs[1] == outs[2]);
}

#[test]
fn ids_are_continued() {
    let dir = tempfile::tempdir().unwrap();
    for (name, beams, file) in
        [("llama-gqa-sibo-70-rms", "1", "greedy.json"), ("llama-gqa-sibo-35", "4", "beam4.json")]
    {
        let out = dir.path().join(file);
        let folder = data().join("cases").join(name);
        let about: Value = serde_json::from_slice(&std::fs::read(folder.join("case.json")).unwrap()).unwrap();
        let run = about["runs"].as_array().unwrap().iter().find(|r| r["expected"] == file).unwrap();
        let new = run["options"]["max_new_tokens"].to_string();
        succeeds(case(name, "generate", &out).args(["--max-new-tokens", &new, "--num-beams", beams]));
        let read = |path: &Path| {
            serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap()["sequences"].clone()
        };
        assert_eq!(read(&out), read(&folder.join(file)));
    }
}

#[test]
fn a_failure_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let (out, ids) = (dir.path().join("out.safetensors"), dir.path().join("ids.json"));
    let model = data().join("models/llama-gqa");
    for (content, parts) in [
        (r#"{"input_ids": [[5, 9], []]}"#, ["row 1", "holds no token"]),
        (r#"{"input_ids": [[5, 71]]}"#, ["row 0: token id 71 is out of range", "0 to 70"]),
        (r#"{"input_ids": [[5, -1]]}"#, ["row 0: -1 is not a token id", "input_ids"]),
        (r#"{"input_ids": [[5, 2]], "labels": [[5]]}"#, ["row 0", "1 labels for 2 tokens"]),
        (r#"{"input_ids": [[5, 2]], "labels": [[5, 99]]}"#, ["row 0", "label 99"]),
        (
            r#"{"input_ids": [[5, 2]], "labels": [[5, -100]]}"#,
            ["no token carries a label", "nothing to learn"],
        ),
        (r#"{"input_ids": [[5, 2]], "token_type_ids": [[0, 1]]}"#, ["row 0", "no token types"]),
        ("{\"input_ids\":\n [[5, 2}", ["ids.json", "line 2"]),
        (r#"{"inputs": [[5]]}"#, ["`inputs`", "input_ids, labels, token_type_ids"]),
        (r#"{"input_ids": []}"#, ["holds no row", "input_ids"]),
    ] {
        std::fs::write(&ids, content).unwrap();
        let mut command = sibo();
        command.arg("trace").arg("--model").arg(&model).arg("--ids").arg(&ids).arg("--out").arg(&out);
        fails(&mut command, 1, &parts);
    }
    std::fs::write(&ids, r#"{"input_ids": [[5, 2]], "labels": [[5, 2]]}"#).unwrap();
    let trace = || {
        let mut command = sibo();
        command.arg("trace").arg("--model").arg(&model).arg("--ids").arg(&ids).arg("--out").arg(&out);
        command
    };
    fails(trace().arg("--grads"), 1, &["gradients need labels and an adapter"]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only ids.json");
    let long: Vec<u32> = (0..600).map(|i| i % 61).collect();
    std::fs::write(&ids, serde_json::json!({"input_ids": [long]}).to_string()).unwrap();
    let bert = data().join("models/bert-bare");
    let mut command = sibo();
    command.arg("trace").arg("--model").arg(bert).arg("--ids").arg(&ids).arg("--out").arg(&out);
    fails(&mut command, 1, &["row 0", "600 tokens", "positions for 40: shorten it"]);
    assert!(!out.exists());
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("taken"), "").unwrap();
    let out = dir.path().join("taken/out.safetensors");
    fails(&mut case("llama-gqa-base", "trace", &out), 1, &["taken", "cannot create the folder"]);
    fails(
        &mut case("llama-gqa-base", "trace", Path::new("/proc/out.safetensors")),
        1,
        &["/proc: cannot write into the folder"],
    );
}
