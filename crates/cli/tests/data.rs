//! `sibo data`, `sibo tasks` and `sibo rescore` as a person calls them.

mod common;

use common::{Place, fails, succeeds};
use serde_json::{Value, json};

fn json_of(place: &Place, words: &[&str]) -> Value {
    serde_json::from_str(&succeeds(&mut place.sibo(&[words, &["--json"]].concat()))).expect("JSON")
}

/// Two test problems of AddSub, and a file of training rows that holds one of them in other spacing.
fn arithmetic() -> Place {
    let place = Place::with("llama-gqa");
    let row =
        |text: &str, answer: &str| json!({"instruction": text, "input": "", "output": "x", "answer": answer});
    let test = [
        row("There were 9 plums in the bowl . Ada ate 4 . How many are left ? ", "5"),
        row("What is 2 + 2 ?", "4"),
    ];
    place.write("data/llm-adapters/AddSub/test.json", json!(test).to_string());
    let train = [
        json!({"instruction": "There were 9 plums in the bowl. Ada ate 4. How many are left?", "input": "", "output": ""}),
    ];
    place.write("data/sums.json", json!(train).to_string());
    place
}

#[test]
fn a_leak_is_found_counted_and_shown() {
    let place = arithmetic();
    let text = succeeds(&mut place.sibo(&["data", "check", "--train", "sums"]));
    for part in ["addsub", "LEAKS", "addsub test row 0 reads as sums row 0: There were 9 plums"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    let rows = json_of(&place, &["data", "check", "--train", "sums"]);
    assert_eq!(
        (&rows[0]["normalised"], &rows[0]["test_rows"], &rows[0]["leaks"]),
        (&json!(1), &json!(2), &json!(true))
    );
    assert_eq!(rows[0]["rows"][0]["train"], 0);
    fails(&mut place.sibo(&["data", "check"]), 2, &["no test rows", "`sibo tasks` says what is here"]);
    fails(&mut place.sibo(&["data", "check", "--tasks", "addsub"]), 1, &["`addsub` has no train split"]);
    let column = ["data", "check", "--train", "sums", "--column", "text"];
    fails(&mut place.sibo(&column), 1, &["sums.json: row 1: no column `text`; the row has `instruction`"]);
}

#[test]
fn tasks_say_what_is_here_and_how_to_get_the_rest() {
    let place = arithmetic();
    let text = succeeds(&mut place.sibo(&["tasks"]));
    assert!(text.lines().any(|l| l.starts_with("addsub") && l.contains("- / - / 2")), "{text}");
    assert!(text.lines().any(|l| l.starts_with("hellaswag") && l.contains("not found")), "{text}");
    let text = succeeds(&mut place.sibo(&["tasks", "qqp", "addsub"]));
    for part in
        ["d(\"nyu-mll/glue\", \"qqp\", split=\"validation\").to_json(", "glue/QQP/train.tsv", "Hosseini"]
    {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(!text.contains("get-data qqp"), "QQP may not be passed on: {text}");
    assert_eq!(json_of(&place, &["tasks"]).as_array().map(Vec::len), Some(23));
}

#[test]
fn deduction_is_made_measured_marked_and_read_again() {
    let place = Place::with("llama-gqa");
    place.edit("models/llama-gqa/config.json", |c| c["max_position_embeddings"] = json!(512));
    let make =
        ["data", "generate", "deduction", "--train-rows", "9", "--test-rows", "6", "--train-depth", "2"];
    succeeds(&mut place.sibo(&make));
    let made = std::fs::read(place.join("data/deduction/deeper.jsonl")).unwrap();
    succeeds(&mut place.sibo(&make));
    assert_eq!(std::fs::read(place.join("data/deduction/deeper.jsonl")).unwrap(), made, "the same seed");
    let task = "data/deduction/deduction-deeper.toml";
    let eval = [
        "eval",
        "--model",
        "llama-gqa",
        "--tasks",
        task,
        "--protocol",
        "lm-eval",
        "--output",
        "out",
        "--log-samples",
    ];
    let clean = json_of(&place, &[&eval[..], &["--trained-on", "data/deduction/deduction.toml"]].concat());
    assert_eq!(clean["configs"]["deduction-deeper"]["leak"], Value::Null);
    assert_eq!(clean["configs"]["deduction-deeper"]["distribution"], "out of distribution");
    let again = json_of(&place, &["rescore", "out", "--task", task]);
    assert_eq!((&again[0]["saved"], &again[0]["changed"]), (&again[0]["now"], &json!(0)));
    assert_eq!(json_of(&place, &["rescore", "out"]), again, "the task's file is remembered");
    fails(&mut place.sibo(&["rescore", "data"]), 1, &["no results_<date>.json in it"]);
    // Trained on its own test, it is marked.
    let leaky = std::fs::read_to_string(place.join(task)).unwrap().replace("train.jsonl", "deeper.jsonl");
    place.write("data/deduction/leaky.toml", leaky);
    let text =
        succeeds(&mut place.sibo(&[&eval[..], &["--trained-on", "data/deduction/leaky.toml"]].concat()));
    assert!(text.contains("deduction-deeper (in distribution, LEAKS)"), "{text}");
    let depth = ["data", "generate", "deduction", "--test-depth", "9-40"];
    fails(&mut place.sibo(&depth), 2, &["depths are N or LOW-HIGH, from 1 to 21"]);
}
