//! A run from its recipe to an answer, and everything that can go wrong with its folder.

mod common;

use common::{Place, fails, succeeds};
use serde_json::Value;

/// A recipe for the tiny decoder: `extra` is added to its `[training]`.
fn recipe(place: &Place, output: &str, extra: &str) {
    place.write(
        "recipe.toml",
        format!(
            "model = \"llama-gqa\"\ndata = \"sums\"\noutput_dir = \"{output}\"\nseed = 5\n\n[adapter]\nr = 3\nlora_alpha = 5\n\
             target_modules = [\"q_proj\", \"v_proj\", \"down_proj\"]\nsibo = {{ lambda = 0.35 }}\n\n[training]\n\
             learning_rate = 0.01\nmax_steps = 6\nsave_steps = 2\neval_steps = 3\ncutoff_len = 40\n\
             per_device_train_batch_size = 3\ngradient_accumulation_steps = 1\ncompute = \"f32\"\n{extra}\n"
        ),
    );
}

fn place() -> Place {
    let place = Place::with("llama-gqa");
    place.instructions();
    place
}

fn bytes(place: &Place, file: &str) -> Vec<u8> {
    std::fs::read(place.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

const TENSORS: &str = "adapter/adapter_model.safetensors";

#[test]
fn a_decoder_is_trained_and_answers() {
    let place = place();
    recipe(&place, "runs/a", "");
    let text = succeeds(&mut place.sibo(&["train", "recipe.toml"]));
    assert!(text.contains("6 steps") && text.contains("adapter (step "), "{text}");
    let names = place.names("runs/a");
    for name in ["adapter", "best", "checkpoints", "metrics.jsonl", "recipe.toml", "tensorboard"] {
        assert!(names.iter().any(|n| n == name), "{name} is not in {names:?}");
    }
    assert_eq!(
        place.names("runs/a/adapter"),
        ["README.md", "adapter_config.json", "adapter_model.safetensors", "template.toml"]
    );
    let config: Value = serde_json::from_slice(&bytes(&place, "runs/a/adapter/adapter_config.json")).unwrap();
    assert_eq!(
        (&config["peft_type"], &config["sibo"]["lambda"]),
        (&Value::from("SIBO_LORA"), &Value::from(0.35))
    );
    let lines = String::from_utf8(bytes(&place, "runs/a/metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().filter(|l| l.contains("\"kind\":\"step\"")).count(), 6);
    assert_eq!(lines.lines().filter(|l| l.contains("\"kind\":\"evaluation\"")).count(), 2);

    let with = ["--model", "llama-gqa", "--adapter", "runs/a/adapter"];
    let mut generate =
        place.sibo(&["generate", "what is the sum of one and two ?", "--max-new-tokens", "4", "--json"]);
    let answers: Value = serde_json::from_str(&succeeds(generate.args(with))).unwrap();
    assert!(answers[0]["new_tokens"].as_u64().unwrap() <= 4 && answers[0]["text"].is_string(), "{answers}");
    let mut chat = place.sibo(&["chat", "--max-new-tokens", "3"]);
    chat.args(with).write_stdin("what is one and two ?\n/nonsense\n/quit\n");
    let out = chat.output().unwrap();
    assert!(out.status.success() && !out.stdout.is_empty());
    assert!(String::from_utf8_lossy(&out.stderr).contains("/nonsense: not known"));
    let inspected = succeeds(&mut place.sibo(&["inspect", "llama-gqa", "--adapter", "runs/a/adapter"]));
    assert!(inspected.contains("SIBO with lambda 0.35 enters self_attn.q_proj x"), "{inspected}");
    assert!(inspected.contains("these run plain: mlp.down_proj x"), "{inspected}");
}

#[test]
fn a_stopped_run_goes_on_to_the_same_bits() {
    let place = place();
    recipe(&place, "runs/whole", "");
    succeeds(&mut place.sibo(&["train", "recipe.toml", "--threads", "2"]));
    recipe(&place, "runs/cut", "");
    succeeds(&mut place.sibo(&["train", "recipe.toml"]));
    // What a kill after step 4 leaves: the later checkpoint and the result are not there yet.
    for gone in ["checkpoints/step-0000006", "adapter"] {
        std::fs::remove_dir_all(place.join(&format!("runs/cut/{gone}"))).unwrap();
    }
    succeeds(&mut place.sibo(&["train", "--resume", "--output-dir", "runs/cut", "--threads", "1"]));
    assert!(bytes(&place, &format!("runs/whole/{TENSORS}")) == bytes(&place, &format!("runs/cut/{TENSORS}")));
    let lines = String::from_utf8(bytes(&place, "runs/cut/metrics.jsonl")).unwrap();
    assert_eq!(
        lines.lines().filter(|l| l.contains("\"kind\":\"step\"")).count(),
        6,
        "each step once:\n{lines}"
    );
}

#[cfg(unix)]
#[test]
fn a_run_killed_before_its_first_checkpoint_goes_on() {
    let place = place();
    recipe(&place, "runs/whole", "");
    succeeds(&mut place.sibo(&["train", "recipe.toml"]));
    // What a kill in the first steps leaves: the recipe, and records of steps that are not kept.
    let begun = String::from_utf8(bytes(&place, "runs/whole/recipe.toml")).unwrap();
    std::fs::create_dir_all(place.join("runs/killed")).unwrap();
    place.write("runs/killed/recipe.toml", begun.replace("runs/whole", "runs/killed"));
    place.write("runs/killed/metrics.jsonl", "{\"kind\":\"step\",\"step\":1}\n{\"kind\":\"st");
    let mut resumed = place.sibo(&["train", "--resume", "--output-dir", "runs/killed"]);
    let told = String::from_utf8(resumed.output().unwrap().stderr).unwrap();
    assert!(told.contains("stopped before its first checkpoint"), "{told}");
    let tensors = |run: &str| bytes(&place, &format!("{run}/{TENSORS}"));
    assert_eq!(tensors("runs/whole"), tensors("runs/killed"));
}

#[test]
fn ctrl_c_saves_a_checkpoint_and_says_how_to_go_on() {
    let place = place();
    recipe(&place, "runs/long", "");
    let binary = place.sibo(&[]).get_program().to_owned();
    let child = std::process::Command::new(binary)
        .current_dir(place.path())
        .args(["train", "recipe.toml", "--max-steps", "100000", "--set", "training.save_steps=50000"])
        .args(["--set", "training.eval_steps=50000"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let metrics = place.join("runs/long/metrics.jsonl");
    let begun = std::time::Instant::now();
    while std::fs::metadata(&metrics).map_or(0, |m| m.len()) < 2000 {
        assert!(begun.elapsed().as_secs() < 120, "no step was done");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // Meanwhile the folder is taken.
    let beside = ["train", "--resume", "--output-dir", "runs/long"];
    fails(&mut place.sibo(&beside), 1, &["runs/long: another process is at work in this folder"]);
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(130), "{said}");
    assert!(
        said.contains("interrupted: after step")
            && said.contains("sibo train --resume --output-dir runs/long"),
        "{said}"
    );
    assert_eq!(place.names("runs/long/checkpoints").len(), 1);
    assert!(!place.join("runs/long/adapter").exists());
}

#[test]
fn an_encoder_is_trained_and_measured() {
    let place = Place::with("bert-pooler");
    place.rte();
    let train = [
        "train",
        "--model",
        "bert-pooler",
        "--task",
        "rte",
        "--lambda",
        "0.35",
        "--output-dir",
        "out",
        "--max-steps",
        "3",
    ];
    succeeds(place.sibo(&train).args(["--target-modules", "query,value", "--json"]));
    let eval = ["eval", "--model", "bert-pooler", "--adapter", "out/adapter", "--tasks", "rte"];
    let text = succeeds(&mut place.sibo(&eval));
    let row = text.lines().find(|line| line.starts_with("rte (in distribution"));
    assert!(row.is_some_and(|line| line.contains("class head  acc")), "{text}");
    succeeds(place.sibo(&eval).args(["--output", "results", "--log_samples", "--limit", "5"]));
    let names = place.names("results");
    assert!(names[0].starts_with("results_") && names[1].starts_with("samples_rte_"), "{names:?}");
    let results: Value = serde_json::from_slice(&bytes(&place, &format!("results/{}", names[0]))).unwrap();
    assert_eq!(results["n-samples"]["rte"]["effective"], 5);
    fails(
        &mut place.sibo(&["eval", "--model", "bert-pooler", "--tasks", "rte"]),
        1,
        &["needs a model with an answer", "name an adapter that has one"],
    );
}

/// A class head for RTE, trained for a step with these words beside, in `out/`.
fn rte_head(place: &Place, words: &[&str]) {
    let train =
        ["train", "--model", "bert-pooler", "--task", "rte", "--output-dir", "out", "--max-steps", "1"];
    succeeds(place.sibo(&train).args(["--target-modules", "query,value"]).args(words));
}

/// What `sibo eval` of an adapter on RTE gives, and what it tells on the way.
fn rte_score(place: &Place, adapter: &str, words: &[&str]) -> (Value, String) {
    let eval = ["eval", "--model", "bert-pooler", "--tasks", "rte", "--json", "--adapter", adapter];
    let out = place.sibo(&eval).args(words).output().unwrap();
    let told = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success(), "{told}");
    (serde_json::from_slice(&out.stdout).unwrap(), told)
}

fn copy(place: &Place, from: &str, to: &str) {
    for name in place.names(from) {
        place.write(&format!("{to}/{name}"), bytes(place, &format!("{from}/{name}")));
    }
}

#[test]
fn only_the_recipe_of_a_run_or_a_cell_tells_of_an_adapter() {
    let place = Place::with("bert-pooler");
    place.rte();
    rte_head(&place, &[]);
    copy(&place, "out/adapter", "other/adapter");
    place.write("other/recipe.toml", bytes(&place, "out/recipe.toml"));
    let where_it_stands =
        || rte_score(&place, "other/adapter", &[]).0["configs"]["rte"]["distribution"].clone();
    assert_eq!(where_it_stands(), Value::Null, "a recipe that only lies there");
    place.write("other/trained.json", "{}");
    assert_eq!(where_it_stands(), "in distribution", "a study's cell");
    let (of_run, _) = rte_score(&place, "out/adapter", &[]);
    assert_eq!(of_run["configs"]["rte"]["distribution"], "in distribution", "a run");
}

#[test]
fn validation_is_what_the_run_held_out() {
    let place = Place::with("bert-pooler");
    place.rte();
    rte_head(&place, &["--set", "training.validation_rows=7"]);
    let (own, told) = rte_score(&place, "out/adapter", &["--split", "validation"]);
    // Left to the task it would be a tenth of 33, and of those some were learned.
    assert_eq!(own["n-samples"]["rte"]["effective"], 7);
    assert!(told.contains("rte: validation is the 7 rows that the run of the adapter held out"), "{told}");
    assert_eq!(own["configs"]["rte"]["leak"], Value::Null);
    let (learned, _) = rte_score(&place, "out/adapter", &["--split", "train"]);
    assert_eq!(learned["n-samples"]["rte"]["effective"], 26);
    copy(&place, "out/adapter", "other/adapter");
    let (unknown, told) = rte_score(&place, "other/adapter", &["--split", "validation"]);
    assert_eq!(unknown["n-samples"]["rte"]["effective"], 3);
    assert!(!told.contains("held out (its"), "{told}");
    // Every row twice: what is held out has a twin that is learned.
    let rows = String::from_utf8(bytes(&place, "data/glue/RTE/train.tsv")).unwrap();
    let (_, body) = rows.split_once('\n').unwrap();
    place.write("data/glue/RTE/train.tsv", format!("{rows}{body}"));
    for words in [&["--split", "validation"][..], &["--split", "validation", "--trained-on", "rte"]] {
        let (leaky, _) = rte_score(&place, "out/adapter", words);
        let leak = leaky["configs"]["rte"]["leak"].as_str().unwrap_or_default().to_owned();
        assert!(leak.ends_with("of 7 validation rows are also training rows"), "{words:?}: {leak}");
    }
}

#[test]
fn a_class_head_reads_rows_up_to_the_length_of_its_training() {
    let place = Place::with("bert-pooler");
    place.rte();
    rte_head(&place, &["--set", "training.cutoff_len=9"]);
    let (own, told) = rte_score(&place, "out/adapter", &[]);
    let parts = ["rows are read up to 9 tokens", "--cutoff-len", "rte: 14 rows were shortened to 9 tokens"];
    assert!(parts.iter().all(|part| told.contains(part)), "{told}");
    assert_eq!(own["configs"]["rte"]["cutoff_len"], 9);
    let (asked, told) = rte_score(&place, "out/adapter", &["--cutoff-len", "11"]);
    assert_eq!(asked["configs"]["rte"]["cutoff_len"], 11);
    assert!(told.contains("rte: 14 rows were shortened to 11 tokens"), "{told}");
    copy(&place, "out/adapter", "other/adapter");
    let (moved, _) = rte_score(&place, "other/adapter", &[]);
    assert_eq!(moved["configs"]["rte"]["cutoff_len"], 9, "it went with the adapter");
    assert_eq!(moved["results"]["rte"], own["results"]["rte"]);
    std::fs::remove_file(place.join("other/adapter/head.json")).unwrap();
    let (unknown, told) = rte_score(&place, "other/adapter", &[]);
    assert_eq!(unknown["configs"]["rte"]["cutoff_len"], 512);
    assert!(told.contains("rows are read up to 512 tokens; --cutoff-len"), "{told}");
}

#[test]
fn a_folder_that_holds_a_run_is_not_touched() {
    let place = place();
    recipe(&place, "runs/a", "");
    succeeds(&mut place.sibo(&["train", "recipe.toml"]));
    let before = bytes(&place, &format!("runs/a/{TENSORS}"));
    fails(
        &mut place.sibo(&["train", "recipe.toml"]),
        1,
        &["runs/a: holds a run already", "--resume", "--overwrite"],
    );
    assert!(before == bytes(&place, &format!("runs/a/{TENSORS}")));
    succeeds(&mut place.sibo(&["train", "recipe.toml", "--overwrite", "--seed", "6"]));
    assert!(before != bytes(&place, &format!("runs/a/{TENSORS}")));
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let place = place();
    recipe(&place, "runs/a", "");
    succeeds(&mut place.sibo(&["train", "recipe.toml"]));
    fails(
        &mut place.sibo(&["train", "recipe.toml", "--resume", "--seed", "6"]),
        1,
        &["belongs to another run", "seed", "train into another output_dir"],
    );
    fails(
        &mut place.sibo(&["train", "recipe.toml", "--resume", "--output-dir", "runs/none"]),
        1,
        &["no checkpoint to resume from"],
    );
    fails(&mut place.sibo(&["train", "--resume"]), 2, &["--output-dir"]);
}

#[test]
fn an_output_folder_that_cannot_be_one() {
    let place = place();
    place.write("taken", "");
    recipe(&place, "taken/run", "");
    fails(&mut place.sibo(&["train", "recipe.toml"]), 1, &["taken", "cannot"]);
    fails(&mut place.sibo(&["train", "recipe.toml", "--output-dir", "/proc/run"]), 1, &["/proc", "cannot"]);
    let eval = ["eval", "--model", "llama-gqa", "--tasks", "rte", "--output", "taken/results"];
    fails(&mut place.sibo(&eval), 1, &["taken is a file"]);
    fails(&mut place.sibo(&["quickstart", "--output-dir", "taken/q"]), 1, &["taken is a file"]);
}

/// A disk that is full while a checkpoint is written: no file may grow beyond 8 KiB.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_loses_nothing() {
    let place = place();
    recipe(&place, "runs/full", "");
    succeeds(&mut place.sibo(&["train", "recipe.toml"]));
    let before = bytes(&place, &format!("runs/full/{TENSORS}"));
    let binary = place.sibo(&[]).get_program().to_string_lossy().into_owned();
    let mut command = assert_cmd::Command::new("sh");
    command.current_dir(place.path()).env("HF_HUB_OFFLINE", "1");
    command.args(["-c", &format!("trap '' XFSZ; ulimit -f 8; exec {binary} train recipe.toml --output-dir runs/other --set adapter.r=16")]);
    fails(&mut command, 1, &["cannot write", "File too large"]);
    let left: Vec<String> = place
        .names("runs/other")
        .into_iter()
        .filter(|n| n.starts_with("adapter") || n.starts_with("."))
        .collect();
    assert_eq!(left, Vec::<String>::new());
    assert!(before == bytes(&place, &format!("runs/full/{TENSORS}")));
}

#[test]
fn init_writes_a_recipe_that_is_one() {
    let place = place();
    succeeds(&mut place.sibo(&["init"]));
    fails(&mut place.sibo(&["init"]), 1, &["recipe.toml: there is a file already", "--overwrite"]);
    succeeds(&mut place.sibo(&["init", "--overwrite"]));
    let flags = [
        "train",
        "recipe.toml",
        "--model",
        "llama-gqa",
        "--rows",
        "sums",
        "--output-dir",
        "out",
        "--max-steps",
        "2",
    ];
    succeeds(place.sibo(&flags).args(["--set", "training.compute=f32"]));
    let printed = succeeds(&mut place.sibo(&["init", "-"]));
    assert_eq!(printed.into_bytes(), bytes(&place, "recipe.toml"));
}

#[test]
fn a_full_search_and_a_stop_string() {
    let place = place();
    let mut beams =
        place.sibo(&["generate", "--model", "llama-gqa", "what is one", "two and three", "--num-beams", "3"]);
    let text = succeeds(beams.args(["--max-new-tokens", "3"]));
    assert!(text.contains("> what is one") && text.contains("> two and three"), "{text}");
    let both = ["generate", "--model", "llama-gqa", "one", "--num-beams", "2", "--temperature", "0.7"];
    fails(&mut place.sibo(&both), 2, &["give --num-beams or --temperature"]);
    fails(&mut place.sibo(&["generate", "--model", "llama-gqa", "one", "--top-p", "1.5"]), 2, &["top_p 1.5"]);
    fails(
        &mut place.sibo(&["generate", "--model", "llama-gqa", "one", "--template", "alpac"]),
        1,
        &["alpaca"],
    );
    fails(place.sibo(&["generate", "--model", "llama-gqa"]).write_stdin(""), 1, &["no prompt"]);
    let invalid = place.write("prompts.txt", b"one\ntwo \xff\n");
    fails(
        place.sibo(&["generate", "--model", "llama-gqa", "--prompts"]).arg(invalid),
        1,
        &["prompts.txt, line 2", "UTF-8"],
    );
}
