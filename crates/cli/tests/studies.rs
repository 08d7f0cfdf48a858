//! Studies on a tiny encoder: what they write, that nothing is done twice, and what they refuse.

mod common;

use common::{Place, fails, succeeds};
use serde_json::Value;

fn lines(place: &Place, folder: &str) -> usize {
    std::fs::read_to_string(place.join(&format!("{folder}/cells.jsonl"))).unwrap().lines().count()
}

#[test]
fn a_comparison_is_made_once() {
    let place = Place::study();
    let words =
        ["compare", "recipe.toml", "--lambda", "0.3", "--methods", "lora,pfeiffer,head", "--seeds", "1,2"];
    let out = place.sibo(&words).output().unwrap();
    let (text, way) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{way}");
    assert!(way.contains("10 cells; 2 seeds each"), "{way}");
    assert!(way.contains("smallest difference that can be told apart on rte, test"), "{way}");
    for part in ["SIBO-lora, lambda 0.3", "SIBO-pfeiffer, lambda 0.3", "head", "McNemar", "Report: "] {
        assert!(text.contains(part), "`{part}` is not in {text}");
    }
    assert_eq!(lines(&place, "runs/study"), 10);
    let found = place.results("runs/study");
    assert_eq!(found["comparisons"].as_array().unwrap().len(), 2);
    assert_eq!(found["scores"][0]["arms"].as_array().unwrap().len(), 5);
    let page = std::fs::read_to_string(place.join("runs/study/report.html")).unwrap();
    assert!(
        page.contains("Token similarity by layer") && page.contains("Does SIBO help bert-pooler on rte?")
    );
    assert!(place.names("runs/study/parts").iter().any(|n| n == "training-loss.svg"));

    let cells = std::fs::read(place.join("runs/study/cells.jsonl")).unwrap();
    let again = place.sibo(&words).output().unwrap();
    let way = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(way.contains("of which 10 are done already"), "{way}");
    assert!(!way.contains("cell 1 of"), "{way}");
    assert_eq!(String::from_utf8_lossy(&again.stdout), text);
    assert_eq!(std::fs::read(place.join("runs/study/cells.jsonl")).unwrap(), cells);
}

#[test]
fn a_mixture_of_tasks_is_judged_task_by_task() {
    let place = Place::with("llama-tied");
    place.rte();
    place.qnli();
    place.write(
        "recipe.toml",
        "model = \"llama-tied\"\ntask = [\"rte\", \"qnli\"]\nprotocol = \"lm-eval\"\noutput_dir = \"runs/mixed\"\n\n[adapter]\nr = 3\n\n\
         [training]\nmax_steps = 4\neval_steps = 2\nmax_train_samples = 13\nvalidation_rows = 5\ncutoff_len = 60\n\
         per_device_train_batch_size = 3\ngradient_accumulation_steps = 1\ncompute = \"f32\"\n",
    );
    let words = ["sweep", "recipe.toml", "--lambda", "0,0.3", "--seeds", "1,2"];
    let out = place.sibo(&words).output().unwrap();
    let (text, way) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{way}");
    assert!(way.contains("chosen by validation loss"), "{way}");
    for part in [
        "rte, validation: acc, 3 rows",
        "qnli, validation: acc, 2 rows",
        "rte, test: acc, 14 rows",
        "qnli, test: acc, 12 rows",
    ] {
        assert!(text.contains(part), "`{part}` is not in {text}");
    }
    assert!(!text.contains("out of distribution"), "{text}");
    assert!(text.contains("on the test rows of rte its mean acc"), "{text}");
    assert!(text.contains("Of the 2 tasks that were learned together, lambda 0.3 is better on "), "{text}");
    let cell = std::fs::read_to_string(place.join("runs/mixed/cells.jsonl")).unwrap();
    assert!(cell.contains("\"task\":[\"rte\",\"qnli\"]"), "the recipe of a cell names both");
    fails(place.sibo(&words).args(["--choose", "acc"]), 2, &["a mixture of tasks is chosen by its loss"]);

    // As one run, with flags: the card and the next step name both.
    let run = [
        "train",
        "--model",
        "llama-tied",
        "--task",
        "qnli,rte",
        "--protocol",
        "lm-eval",
        "--r",
        "3",
        "--max-steps",
        "2",
        "--output-dir",
        "runs/one",
        "--set",
        "cutoff_len=60",
    ];
    let out = place.sibo(&run).output().unwrap();
    let way = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{way}");
    assert!(way.contains("--tasks qnli,rte"), "{way}");
    let card = std::fs::read_to_string(place.join("runs/one/adapter/README.md")).unwrap();
    assert!(card.contains("datasets:\n- qnli\n- rte\n"), "{card}");
    let eval = [
        "eval",
        "--model",
        "llama-tied",
        "--adapter",
        "runs/one/adapter",
        "--tasks",
        "rte",
        "--protocol",
        "lm-eval",
    ];
    let text = succeeds(&mut place.sibo(&eval));
    assert!(text.contains("in distribution"), "{text}");
    fails(&mut place.sibo(&["smoothing", "runs/one"]), 2, &["Give --task TASK"]);
    succeeds(&mut place.sibo(&["smoothing", "runs/one", "--task", "rte"]));
}

#[test]
fn a_mixture_that_cannot_be_is_refused() {
    let place = Place::study();
    place.qnli();
    let both = "task=[\"rte\",\"qnli\"]";
    let sweep = |more: &[&str]| {
        let mut command = place.sibo(&["sweep", "recipe.toml", "--lambda", "0"]);
        command.args(more);
        command
    };
    fails(&mut sweep(&["--set", both]), 1, &["a mixture of 2 tasks needs a causal model"]);
    let few = ["--set", both, "--set", "validation_rows=1"];
    fails(
        &mut sweep(&few),
        1,
        &["`training.validation_rows`", "shared out evenly", "2 tasks need a row each"],
    );
    fails(&mut sweep(&["--set", "task=[\"rte\",\"rte\"]"]), 1, &["`task`", "a list of different ones"]);
    let twice = ["--set", "task=[\"mnli\",\"mnli-mismatched\"]", "--set", "protocol=\"lm-eval\""];
    fails(&mut sweep(&twice), 1, &["mnli and mnli-mismatched would learn the same rows twice"]);
    fails(&mut sweep(&["--set", "task=[]"]), 1, &["`task`", "a list of different ones"]);
}

#[test]
fn baselines_are_compared_without_a_lambda() {
    let place = Place::study();
    let words = ["compare", "recipe.toml", "--methods", "head,bitfit", "--seeds", "1,2"];
    succeeds(&mut place.sibo(&words));
    let found = place.results("runs/study");
    assert_eq!(found["scores"][0]["arms"].as_array().unwrap().len(), 2);
    assert_eq!((&found["lambda"], found["comparisons"].as_array().unwrap().len()), (&Value::Null, 1));
    let page = std::fs::read_to_string(place.join("runs/study/report.html")).unwrap();
    assert!(page.contains("Which baseline serves bert-pooler on rte?"));
}

#[test]
fn a_sweep_killed_twenty_times_ends_with_the_same_table() {
    let place = Place::study();
    let sweep = |folder: &str| {
        let words =
            ["sweep", "recipe.toml", "--lambda", "0,0.3", "--set-grid", "adapter.r=2,3", "--seeds", "1,2"];
        let mut command = place.sibo(&words);
        command.args(["--output-dir", folder, "--choose", "loss", "--quiet"]);
        command
    };
    succeeds(&mut sweep("whole"));
    let binary = sweep("cut").get_program().to_owned();
    let arguments: Vec<_> = sweep("cut").get_args().map(|a| a.to_owned()).collect();
    for kill in 0..20u64 {
        // One cell at a time and two by turns: the number of jobs is no part of a cell.
        let jobs = if kill % 2 == 0 { "1" } else { "2" };
        let mut child = std::process::Command::new(&binary)
            .current_dir(place.path())
            .args(&arguments)
            .args(["--jobs", jobs, "--threads", "2"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // Short at first, so that the kills fall into loading, training and judging alike.
        std::thread::sleep(std::time::Duration::from_millis(5 + 7 * kill));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    succeeds(sweep("cut").args(["--jobs", "2", "--threads", "2"]));
    let (whole, cut) = (place.results("whole"), place.results("cut"));
    for key in ["scores", "comparisons", "study", "verdict", "signs"] {
        assert_eq!(whole[key], cut[key], "{key}");
    }
    assert_eq!(lines(&place, "whole"), lines(&place, "cut"));
    let winner = std::fs::read_to_string(place.join("cut/winner.toml")).unwrap();
    assert!(winner.contains("output_dir = \"cut/winner\""), "{winner}");
    // The winner read the test rows, and beside it the best of the other kind.
    let winner = cut["study"]["winner"].as_str().unwrap();
    let test = cut["scores"].as_array().unwrap().iter().find(|s| s["question"]["split"] == "test").unwrap();
    let read: Vec<&str> =
        test["arms"].as_array().unwrap().iter().map(|a| a["arm"].as_str().unwrap()).collect();
    assert!(read.contains(&winner), "{winner} {read:?}");
    let boosted = read.iter().filter(|arm| arm.contains("lambda 0.3")).count();
    assert_eq!((boosted, read.len()), (1, 2), "one plain, one boosted: {read:?}");
    assert_eq!(cut["study"]["validation"].as_array().unwrap().len(), 4);
}

#[test]
fn halving_drops_half_of_the_combinations() {
    let place = Place::study();
    let mut sweep =
        place.sibo(&["sweep", "recipe.toml", "--lambda", "0,0.2,0.4,0.6", "--seeds", "1", "--halving"]);
    let text = succeeds(&mut sweep);
    assert!(text.contains("The winner by validation acc is lambda 0"), "{text}");
    let found = place.results("runs/study");
    assert_eq!(found["study"]["dropped_early"].as_array().unwrap().len(), 2);
    assert_eq!(found["study"]["validation"].as_array().unwrap().len(), 2);
}

#[test]
fn an_ablation_lists_what_cannot_be() {
    let place = Place::study();
    let mut ablate = place.sibo(&["ablate", "placement", "recipe.toml", "--lambda", "0.3", "--seeds", "1,2"]);
    let text = succeeds(ablate.args(NO_LORA));
    for part in [
        "houlsby, h0 after attention only",
        "pfeiffer, skip mixed",
        "adapter after attention only",
        "reference",
    ] {
        assert!(text.contains(part), "`{part}` is not in {text}");
    }
    let refused = place.results("runs/study")["not_applicable"].clone();
    assert_eq!(refused.as_array().unwrap().len(), 2);
}

/// A recipe's table that suits an adapter: LoRA's keys would be refused there.
const NO_LORA: [&str; 2] = ["--set", "adapter={method=\"pfeiffer\", reduction_factor=4, sibo={lambda=0.3}}"];

#[test]
fn smoothing_looks_at_a_base_and_its_adapters() {
    let place = Place::study();
    let train = ["train", "recipe.toml", "--lambda", "0.35", "--output-dir", "runs/sibo"];
    let words = place.sibo(&train).output().unwrap();
    assert!(words.status.success());
    let smoothing = ["smoothing", "bert-pooler", "--adapter", "runs/sibo/adapter", "--task", "rte"];
    let text = succeeds(place.sibo(&smoothing).args(["--output-dir", "look"]));
    for part in ["Token similarity by layer", "lora, lambda 0.35", "|h0| / |x|", "Tokens of a sequence"] {
        assert!(text.contains(part), "`{part}` is not in {text}");
    }
    let found = place.results("look");
    let systems = found["systems"].as_array().unwrap();
    assert_eq!((systems.len(), systems[0]["profile"]["sequences"].as_u64()), (2, Some(14)));
    assert_eq!(systems[1]["injected"][0], "attention input");
    assert!(place.names("look/parts").iter().any(|n| n.ends_with(".csv")));
    // In post-norm models the first layer's attention reads h0 itself.
    let inspected = succeeds(&mut place.sibo(&["inspect", "bert-pooler", "--adapter", "runs/sibo/adapter"]));
    let idle = "of these, attention.self.query x 1, attention.self.value x 1 change nothing";
    assert!(inspected.contains(idle), "{inspected}");
    let card = std::fs::read_to_string(place.join("runs/sibo/adapter/README.md")).unwrap();
    assert!(card.contains("branches (2 of them read h0 itself"), "{card}");
    let report = succeeds(&mut place.sibo(&["report", "runs/sibo", "look", "--output-dir", "page"]));
    assert!(report.contains("runs/sibo") && report.contains("look: Tokens of a sequence"), "{report}");
    let page = std::fs::read_to_string(place.join("page/report.html")).unwrap();
    assert!(page.contains("Validation loss") && page.contains("look: How alike tokens become"));
    fails(&mut place.sibo(&["report", "models"]), 2, &["neither a run", "nor a study"]);
    fails(&mut place.sibo(&["smoothing", "bert-pooler"]), 2, &["--task"]);
    // A run stands for its model, its adapter and its task.
    succeeds(&mut place.sibo(&["train", "recipe.toml", "--lambda", "0", "--output-dir", "runs/plain"]));
    let text = succeeds(&mut place.sibo(&["smoothing", "runs/plain", "runs/sibo", "--output-dir", "both"]));
    assert!(text.contains("lora, lambda 0 (runs/plain)"), "{text}");
    let both = place.results("both");
    assert_eq!(
        both["systems"][2]["profile"], found["systems"][1]["profile"],
        "the same rows, the same numbers"
    );
    assert_eq!(both["systems"][2]["name"], "lora, lambda 0.35 (runs/sibo)");
    let refused = |words: &[&str], code, parts: &[&str]| {
        fails(place.sibo(&["smoothing", "runs/plain"]).args(words), code, parts);
    };
    refused(&["bert-pooler"], 2, &["bert-pooler: no folder of a run", "folders of runs only"]);
    refused(&["--suggest-lambda"], 2, &["reads the base alone"]);
    place.write("runs/early/recipe.toml", std::fs::read(place.join("runs/plain/recipe.toml")).unwrap());
    refused(&["runs/early"], 1, &["runs/early: no adapter in it", "has not come to its end"]);
    let recipe = std::fs::read_to_string(place.join("runs/plain/recipe.toml")).unwrap();
    place.write("runs/early/recipe.toml", recipe.replace("bert-pooler", "roberta"));
    std::fs::create_dir(place.join("runs/early/adapter")).unwrap();
    refused(&["runs/early"], 2, &["runs/early: its model is roberta, that of runs/plain is bert-pooler"]);
    fails(
        &mut place.sibo(&["smoothing", "bert-pooler", "--task", "rte", "--limit", "1"]),
        2,
        &["--limit must be 2"],
    );
}

#[test]
fn smoothing_reads_texts_as_the_adapter_was_trained() {
    let place = Place::with("llama-gqa");
    place.instructions();
    let train =
        ["train", "--model", "llama-gqa", "--rows", "sums", "--output-dir", "run", "--max-steps", "1"];
    let own = ["--set", "template=plain", "--set", "training.cutoff_len=12"];
    succeeds(place.sibo(&train).args(own));
    let seen = |words: &[&str]| {
        succeeds(place.sibo(&["smoothing"]).args(words).args(["--rows", "sums", "--output-dir", "look"]));
        place.results("look")["rows"].clone()
    };
    let told = |template, cutoff| seen(&["llama-gqa", "--template", template, "--cutoff-len", cutoff]);
    let own = told("plain", "12");
    assert_eq!(seen(&["llama-gqa", "--adapter", "run/adapter"]), own);
    assert_eq!(seen(&["run"]), own);
    assert_ne!(told("alpaca", "12"), own);
    assert_ne!(told("plain", "256"), own);
    assert_eq!(seen(&["llama-gqa"]), told("alpaca", "256"), "nothing is known of training");
    let way = place.sibo(&["smoothing", "run", "--output-dir", "look"]).output().unwrap().stderr;
    let way = String::from_utf8(way).unwrap();
    assert!(way.contains("/template.toml, read up to 12 tokens"), "{way}");
    let asked = ["run", "--template", "alpaca", "--cutoff-len", "40"];
    assert_eq!(seen(&asked), told("alpaca", "40"));
}

#[test]
fn studies_that_make_no_sense_are_refused_before_anything_runs() {
    let place = Place::study();
    place.instructions();
    let compare = |words: &[&str]| {
        let mut command = place.sibo(&["compare", "recipe.toml"]);
        command.args(words);
        command
    };
    fails(&mut compare(&[]), 2, &["--lambda is missing"]);
    fails(&mut compare(&["--lambda", "1"]), 2, &["above 0 and below 1"]);
    fails(&mut compare(&["--lambda", "learnt"]), 2, &["lambda learnt", "or `learned`"]);
    fails(&mut compare(&["--lambda", "0"]), 2, &["0 is the plain method"]);
    let none = ["--lambda", "0.2", "--methods", "head,bitfit"];
    fails(&mut compare(&none), 2, &["head, bitfit take no SIBO", "leave it out"]);
    fails(
        &mut compare(&["--lambda", "0.2", "--limit", "1"]),
        2,
        &["--limit 1", "2 rows or more to judge by"],
    );
    fails(&mut compare(&["--lambda", "0.2", "--limit-generated", "1"]), 2, &["--limit-generated 1"]);
    let mut sweep = place.sibo(&["sweep", "recipe.toml", "--also", "stsb"]);
    fails(&mut sweep, 1, &["`stsb` needs a head with 1 output, and this model's has 2"]);
    let one_row = ["--set", "training.validation_rows=1"];
    let mut sweep = place.sibo(&["sweep", "recipe.toml"]);
    fails(sweep.args(one_row), 1, &["its validation split has one row", "training.validation_rows"]);
    fails(&mut compare(&["--lambda", "0.2", "--seeds", "1,1"]), 2, &["names 1 twice"]);
    fails(&mut compare(&["--lambda", "0.2", "--methods", "lorra"]), 2, &["did you mean `lora`?"]);
    fails(&mut compare(&["--lambda", "0.2", "--methods", "head"]), 2, &["two methods or more"]);
    fails(&mut compare(&["--lambda", "0.2", "--set-for", "lora"]), 2, &["METHOD:KEY=VALUE"]);
    fails(&mut compare(&["--lambda", "0.2", "--methods", "lora,lora"]), 2, &["names lora twice"]);
    let wrong = ["--lambda", "0.2", "--set", "adapter.target_modules=[\"quary\"]"];
    fails(&mut compare(&wrong), 1, &["quary"]);
    fails(&mut place.sibo(&["sweep", "recipe.toml", "--choose", "f1"]), 2, &["loss, acc"]);
    fails(&mut place.sibo(&["sweep", "recipe.toml", "--set-grid", "r"]), 1, &["write key=a,b"]);
    fails(&mut place.sibo(&["ablate", "placement", "recipe.toml"]), 2, &["a lambda above 0"]);
    let text = std::fs::read_to_string(place.join("recipe.toml")).unwrap();
    place.write("rows.toml", text.replace("task = \"rte\"", "data = \"sums\""));
    fails(&mut place.sibo(&["compare", "rows.toml", "--lambda", "0.2"]), 1, &["a file of instructions"]);
    assert!(!place.join("runs").exists());
}

#[test]
fn a_setting_for_a_method_that_is_not_compared_is_refused() {
    let place = Place::study();
    let compare = |setting: &str| {
        let mut command =
            place.sibo(&["compare", "recipe.toml", "--lambda", "0.2", "--methods", "lora,full"]);
        command.args(["--set-for", setting]);
        command
    };
    let parts = ["`ful` is not compared, did you mean `full`?", "methods here are lora, full"];
    fails(&mut compare("ful:learning_rate=5e-5"), 2, &parts);
    fails(&mut compare("head:learning_rate=5e-5"), 2, &["`head` is not compared"]);
    assert!(!place.join("runs").exists());
}

/// What judges is the same in all cells, however a key is written and by whatever flag it comes.
#[test]
fn a_study_that_would_judge_its_arms_differently_is_refused() {
    let place = Place::study();
    place.qnli();
    let sweep = |grid: &str, more: &[&str]| {
        let mut command = place.sibo(&["sweep", "recipe.toml", "--lambda", "0", "--set-grid", grid]);
        command.args(more);
        command
    };
    let differs = |key: &str| format!("--set-grid: `{key}` cannot differ within a study");
    fails(&mut sweep("seed=1,2", &[]), 2, &["--set-grid: `seed`", "give the seeds by --seeds"]);
    for (grid, key) in [
        ("task=rte,qnli", "task"),
        ("model=bert-pooler,bert", "model"),
        ("template=alpaca,plain", "template"),
        ("cutoff_len=40,60", "training.cutoff_len"),
        ("training.validation_rows=4,5", "training.validation_rows"),
        ("training={max_steps=2},{max_steps=3}", "training.cutoff_len"),
    ] {
        fails(&mut sweep(grid, &[]), 2, &[&differs(key), "--set"]);
    }
    let inputs = "train_on_inputs=true,false";
    let parts = [differs("training.train_on_inputs"), "losses of the same tokens".into()];
    fails(&mut sweep(inputs, &["--choose", "loss"]), 2, &[&parts[0], &parts[1]]);
    let mut compare = place.sibo(&["compare", "recipe.toml", "--lambda", "0.2", "--methods", "lora,full"]);
    compare.args(["--set-for", "full:cutoff_len=60"]);
    fails(&mut compare, 2, &["--set-for: `training.cutoff_len` cannot differ"]);
    assert!(!place.join("runs").exists());
    // Fewer rows to learn from are judged by the same ones.
    let fewer = ["--seeds", "1", "--set", "training.max_steps=2"];
    succeeds(&mut sweep("max_train_samples=8,12", &fewer));
    assert_eq!(place.results("runs/study")["study"]["validation"].as_array().unwrap().len(), 2);
}

/// A study is of one data set and of one model: what is finished is not told with what others would give.
#[test]
fn a_study_whose_rows_or_model_changed_does_not_go_on() {
    let place = Place::study();
    let words = ["compare", "recipe.toml", "--lambda", "0.3", "--set", "training.max_steps=2", "--seeds"];
    let compare = |seeds: &str| {
        let mut command = place.sibo(&words);
        command.arg(seeds);
        command
    };
    succeeds(&mut compare("1"));
    let refused = |file: &str| {
        let parts =
            [file, "not what it was when lora, seed 1, was run", "give another --output-dir", "cells.jsonl"];
        let before = std::fs::read(place.join("runs/study/cells.jsonl")).unwrap();
        fails(&mut compare("1,2"), 1, &parts);
        assert_eq!(std::fs::read(place.join("runs/study/cells.jsonl")).unwrap(), before);
    };
    let changed = |file: &str, change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let whole = std::fs::read(place.join(file)).unwrap();
        place.write(file, change(whole.clone()));
        refused(file);
        place.write(file, whole);
    };
    for split in ["train", "dev"] {
        changed(&format!("data/glue/RTE/{split}.tsv"), &|rows| {
            String::from_utf8(rows).unwrap().replacen("was built in", "was red in", 1).into_bytes()
        });
    }
    // The last bytes are weights.
    changed("models/bert-pooler/model.safetensors", &|mut bytes| {
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        bytes
    });
    // As it was, it goes on; and lines of before there were hashes are what they were.
    let cells = std::fs::read_to_string(place.join("runs/study/cells.jsonl")).unwrap();
    let old: String = cells
        .lines()
        .map(|line| {
            let mut cell: Value = serde_json::from_str(line).unwrap();
            assert!(cell.as_object_mut().unwrap().remove("sources").is_some());
            cell.to_string() + "\n"
        })
        .collect();
    place.write("runs/study/cells.jsonl", old);
    let out = compare("1,2").output().unwrap();
    let way = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && way.contains("4 cells, of which 2 are done already"), "{way}");
}
