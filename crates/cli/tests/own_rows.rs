//! Studies of a person's own file of rows: no task, no TOML beside it.

mod common;

use common::{Place, fails, succeeds};
use serde_json::{Value, json};

/// The tiny decoder, a file of instructions, and a recipe that learns a little from it.
fn place(training: &str) -> Place {
    let place = Place::with("llama-tied");
    let row = |i: usize| json!({"instruction": format!("add {i} to {}", 3 * i), "output": format!("it is {}", 4 * i)});
    place.write("mine.jsonl", (0..31).map(|i| row(i).to_string() + "\n").collect::<String>());
    place.write(
        "recipe.toml",
        format!(
            "model = \"llama-tied\"\ndata = \"mine.jsonl\"\ntemplate = \"plain\"\noutput_dir = \"runs/own\"\n\n[adapter]\nr = 3\n\n\
             [training]\nlearning_rate = 0.01\nmax_steps = 4\neval_steps = 2\nper_device_train_batch_size = 3\n\
             gradient_accumulation_steps = 1\ncompute = \"f32\"\n{training}"
        ),
    );
    place
}

fn results(place: &Place) -> Value {
    serde_json::from_slice(&std::fs::read(place.join("runs/own/results.json")).unwrap()).unwrap()
}

#[test]
fn a_sweep_chooses_on_held_out_rows_and_reads_others_once() {
    let place = place("validation_rows = 5\n");
    let words = ["sweep", "recipe.toml", "--lambda", "0,0.3", "--seeds", "1,2"];
    let out = place.sibo(&words).output().unwrap();
    let (text, way) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{way}");
    for part in [
        "3 of the 31 rows of mine.jsonl are kept for the test",
        "4 cells; 2 seeds each",
        "on mine.jsonl, validation",
    ] {
        assert!(way.contains(part), "`{part}` is not in {way}");
    }
    for part in [
        "mine.jsonl, validation: loglik_token (response), 5 rows",
        "mine.jsonl, test: loglik_token (response), 3 rows",
        "on the test rows its mean loglik_token is -",
        "lambda 0.3 - lambda 0 = ",
    ] {
        assert!(text.contains(part), "`{part}` is not in {text}");
    }
    let found = results(&place);
    assert_eq!(found["recipe"]["training"]["test_rows"], 3);
    // The winner's recipe is a run of its own, which learns no row that was reported on.
    let run = ["train", "runs/own/winner.toml", "--output-dir", "runs/again"];
    succeeds(&mut place.sibo(&run));
    let kept = std::fs::read_to_string(place.join("runs/again/recipe.toml")).unwrap();
    assert!(kept.contains("test_rows = 3"), "{kept}");
    let page = std::fs::read_to_string(place.join("runs/own/report.html")).unwrap();
    assert!(page.contains("llama-tied on mine.jsonl"));

    // The rule looks at the rows that are learned, and at no other.
    let by_rule =
        ["sweep", "recipe.toml", "--lambda", "0,suggested", "--seeds", "1", "--output-dir", "runs/rule"];
    let out = place.sibo(&by_rule).output().unwrap();
    let way = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && way.contains("mine.jsonl, train: 23 sequences"), "{way}");
}

/// What a cell says of a row is the loss that training reports, with its sign turned, where all rows are as long.
#[test]
fn the_likelihood_is_that_of_the_loss() {
    let place = place("validation_rows = 4\ntest_rows = 6\n");
    let words = ["sweep", "recipe.toml", "--lambda", "0,0.3", "--seeds", "1", "--limit", "2"];
    succeeds(&mut place.sibo(&words));
    let cells = std::fs::read_to_string(place.join("runs/own/cells.jsonl")).unwrap();
    let cells: Vec<Value> = cells.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(cells.iter().all(|c| c["judged"][0]["predictions"]["each"].as_array().unwrap().len() == 2));
    succeeds(
        place
            .sibo(&[
                "sweep",
                "recipe.toml",
                "--lambda",
                "0,0.3",
                "--seeds",
                "1",
                "--output-dir",
                "runs/whole",
            ])
            .arg("-q"),
    );
    let cells = std::fs::read_to_string(place.join("runs/whole/cells.jsonl")).unwrap();
    for line in cells.lines() {
        let cell: Value = serde_json::from_str(line).unwrap();
        if cell["judged"][0]["split"] != "validation" {
            continue;
        }
        let each = |at: usize| cell["judged"][at]["predictions"]["each"].as_array().unwrap().clone();
        let number = |v: &Value| v.as_f64().unwrap();
        let (per_token, whole) = (each(0), each(1));
        let sum: f64 = whole.iter().map(number).sum();
        let tokens: f64 = whole.iter().zip(&per_token).map(|(w, t)| number(w) / number(t)).sum();
        let held = cell["holds_step"].as_u64().unwrap();
        let evaluations = cell["evaluations"].as_array().unwrap();
        let own = evaluations.iter().find(|e| e[0].as_u64() == Some(held)).unwrap();
        let loss = number(&own[1][0][1]);
        assert!((sum / tokens + loss).abs() < 1e-6 && loss > 0.1, "{sum} over {tokens} is not minus {loss}");
    }
}

/// What judges is what a row teaches: of the same values, a training that learned prompts too tells the same.
#[test]
fn prompts_that_are_learned_do_not_judge() {
    // So small a rate that both trainings leave the values as they were.
    let place = place("validation_rows = 5\ntest_rows = 6\n");
    let common = ["--lambda", "0.3", "--seeds", "1", "--set", "learning_rate=1e-30"];
    let scores = |inputs: &str| {
        let folder = format!("runs/{inputs}");
        let mut study = place.sibo(&["compare", "recipe.toml", "--output-dir", &folder]);
        succeeds(study.args(common).args(["--set", &format!("train_on_inputs={inputs}")]));
        let cells = std::fs::read_to_string(place.join(&format!("{folder}/cells.jsonl"))).unwrap();
        let cell: Value = serde_json::from_str(cells.lines().next().unwrap()).unwrap();
        (cell["judged"].clone(), cell["losses"].clone())
    };
    let ((with, learned_all), (without, learned_answers)) = (scores("true"), scores("false"));
    assert_ne!(learned_all, learned_answers);
    assert_eq!(with, without);
    assert_eq!(with[0]["filter"], "response");
}

/// One study is of one file of rows.
#[test]
fn a_study_of_rows_that_changed_does_not_go_on() {
    let place = place("validation_rows = 5\ntest_rows = 6\n");
    let study = |seeds: &str| place.sibo(&["compare", "recipe.toml", "--lambda", "0.3", "--seeds", seeds]);
    succeeds(&mut study("1"));
    let rows = std::fs::read_to_string(place.join("mine.jsonl")).unwrap();
    place.write("mine.jsonl", rows.replacen("it is 4", "it is not 4", 1));
    let parts = ["mine.jsonl: not what it was", "seed 1", "--output-dir"];
    fails(&mut study("1,2"), 1, &parts);
    // Without its lines, the adapters that are there are not taken for those of the new rows.
    std::fs::remove_file(place.join("runs/own/cells.jsonl")).unwrap();
    fails(
        &mut study("1"),
        1,
        &["mine.jsonl: not what it was when the adapter in runs/own/cells/", "remove that folder"],
    );
    std::fs::remove_dir_all(place.join("runs/own/cells")).unwrap();
    succeeds(&mut study("1,2"));
}

#[test]
fn plain_and_boosted_are_compared_on_files_of_their_own() {
    let place = place("");
    let rows = std::fs::read_to_string(place.join("mine.jsonl")).unwrap();
    let others: Vec<&str> = rows.lines().take(3).collect();
    // The last row of the test is one that is learned.
    place.write(
        "other.jsonl",
        format!(
            "{}\n{}\n",
            json!({"instruction": "what is told of eight apples and nine pears on a table", "output": "no"}),
            others[2]
        ),
    );
    let recipe = std::fs::read_to_string(place.join("recipe.toml")).unwrap();
    place.write("recipe.toml", format!("test = \"other.jsonl\"\n{recipe}"));
    let words = ["compare", "recipe.toml", "--lambda", "0.3", "--seeds", "1,2"];
    let out = place.sibo(&words).output().unwrap();
    let (text, way) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{way}");
    assert!(way.contains("mine.jsonl: 1 of 2 test rows are also training rows"), "{way}");
    assert!(!way.contains("are kept for the test"), "{way}");
    assert!(text.contains("mine.jsonl, test: loglik_token (response), 2 rows"), "{text}");
}

/// A benchmark beside: whether what was learned carries over, or took something away.
#[test]
fn a_study_of_rows_asks_tasks_too() {
    let place = place("validation_rows = 5\ntest_rows = 6\n");
    place.rte();
    let words = ["compare", "recipe.toml", "--lambda", "0.3", "--seeds", "1,2", "--also", "rte"];
    let out = place.sibo(&words).args(["--limit", "4"]).output().unwrap();
    let (text, way) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{way}");
    assert!(way.contains("on mine.jsonl, test") && way.contains("on rte, test"), "{way}");
    for part in [
        "mine.jsonl, test: loglik_token (response), 4 rows, asked as plain\n",
        "rte, test: acc, 4 rows, asked as lm-eval, out of distribution",
    ] {
        assert!(text.contains(part), "`{part}` is not in {text}");
    }
    // The rows of the task are sources of the cell, as those of the file are.
    let cells = std::fs::read_to_string(place.join("runs/own/cells.jsonl")).unwrap();
    let cell: Value = serde_json::from_str(cells.lines().next().unwrap()).unwrap();
    let sources: Vec<&String> = cell["sources"].as_object().unwrap().keys().collect();
    assert!(sources.iter().any(|s| s.contains("rte")) && sources.iter().any(|s| *s == "data"), "{sources:?}");
    fails(&mut place.sibo(&[&words[..6], &["--also", "rtee"]].concat()), 1, &["rtee"]);
}

#[test]
fn what_only_a_task_has_is_refused() {
    let place = place("");
    let study =
        |words: &[&str]| place.sibo(&[&["compare", "recipe.toml", "--lambda", "0.3"], words].concat());
    fails(&mut study(&["--limit-generated", "5"]), 2, &["--limit-generated needs a task", "likelihood"]);
    fails(
        &mut study(&["--set", "training.test_rows=30"]),
        1,
        &["leave none to learn from", "training.test_rows"],
    );
    let one = ["its test split has one row", "rows held out of train: training.test_rows"];
    fails(&mut study(&["--set", "training.test_rows=1"]), 1, &one);
    place.write("one.jsonl", "{\"instruction\": \"add one to two\", \"output\": \"three\"}\n");
    fails(&mut study(&["--set", "test=one.jsonl"]), 1, &["one row", "; add rows to one.jsonl"]);
    assert!(!place.join("runs/own/cells.jsonl").exists());
}
