//! `sibo data`, `sibo tasks` and `sibo rescore` as a person calls them.

mod common;

use common::{Place, fails, succeeds};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};

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
    for part in ["sibo tasks qqp --download --data ", "glue/QQP/train.tsv", "Hosseini"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(!text.contains("get-data qqp"), "QQP may not be passed on: {text}");
    assert_eq!(json_of(&place, &["tasks"]).as_array().map(Vec::len), Some(23));
}

/// A hub on loopback that has one data set on its parquet branch: (path, bytes). Its address.
fn hub(files: Vec<(&'static str, Vec<u8>)>) -> String {
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let first = lines.next().unwrap_or_default();
            lines.find(String::is_empty);
            let path = first.split(' ').nth(1).unwrap_or_default();
            let names: Vec<Value> = files.iter().map(|(name, _)| json!({"rfilename": name})).collect();
            let listing = json!({"sha": COMMIT, "siblings": names}).to_string().into_bytes();
            let file = path.strip_prefix(&format!("/datasets/nyu-mll/glue/resolve/{COMMIT}/"));
            let body = match (path, file) {
                ("/api/datasets/nyu-mll/glue/revision/refs%2Fconvert%2Fparquet", _) => Some(&listing),
                (_, Some(file)) => files.iter().find(|(name, _)| *name == file).map(|(_, bytes)| bytes),
                _ => None,
            };
            let (status, body) = body.map_or(("404 Not Found", &[][..]), |body| ("200 OK", body));
            let head = format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nETag: \"{}\"\r\nContent-Length: {}\r\n\r\n",
                path.len(),
                body.len()
            );
            let _ = stream.write_all(head.as_bytes());
            if first.starts_with("GET") {
                let _ = stream.write_all(body);
            }
        }
    });
    address
}

#[test]
fn rows_of_the_hub_are_fetched_where_a_task_looks_for_them() {
    let stored = |name: &str| {
        let folder = common::data().join("../../crates/tasks/tests/data/hub/rte");
        std::fs::read(folder.join(name)).unwrap()
    };
    let shards = ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"].map(stored);
    let [first, second] = shards;
    let address = hub(vec![
        ("rte/train/0000.parquet", first.clone()),
        ("rte/train/0001.parquet", second),
        ("rte/validation/0000.parquet", first),
        ("rte/test/0000.parquet", b"not asked for".to_vec()),
        ("mrpc/train/0000.parquet", b"nor this".to_vec()),
    ]);
    let place = Place::with("bert-pooler");
    let fetch = |name: &str| {
        let mut command = place.sibo(&["tasks", name, "--download"]);
        command.env("HF_ENDPOINT", &address).env("HF_HUB_OFFLINE", "0").env("HF_HOME", place.join("cache"));
        command
    };
    let before = succeeds(&mut place.sibo(&["tasks", "rte"]));
    assert!(before.contains("sibo tasks rte --download"), "{before}");
    let text = succeeds(&mut fetch("rte"));
    assert!(text.contains("rte/train/train (2 parquet files)") && !text.contains("not found"), "{text}");
    assert_eq!(place.names("data/glue/rte"), ["train", "validation"], "what no split needs stays there");
    let rows = json_of(&place, &["tasks", "rte"]);
    assert!(rows[0]["splits"]["test"]["rows"].as_u64() > Some(0), "{rows}");
    assert_eq!(succeeds(&mut fetch("rte")), text, "a second time there is nothing to fetch");
    // What cannot be had is a sentence, and leaves nothing behind.
    fails(&mut fetch("mrpc"), 1, &["nyu-mll/glue: the hub has no split validation of configuration mrpc"]);
    fails(&mut fetch("addsub"), 1, &["addsub: the hub has no data set that this task knows"]);
    let offline = place.sibo(&["tasks", "qnli", "--download"]).output().unwrap();
    assert!(String::from_utf8_lossy(&offline.stderr).contains("HF_HUB_OFFLINE"));
    fails(&mut place.sibo(&["tasks", "--download"]), 2, &["<TASK>"]);
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
    // Other rows do not take their place unasked.
    let other = [&make[..], &["--seed", "3"]].concat();
    fails(&mut place.sibo(&other), 2, &["train.jsonl", "holds something else", "--overwrite"]);
    assert_eq!(std::fs::read(place.join("data/deduction/deeper.jsonl")).unwrap(), made);
    succeeds(place.sibo(&other).arg("--overwrite"));
    assert_ne!(std::fs::read(place.join("data/deduction/deeper.jsonl")).unwrap(), made);
    succeeds(place.sibo(&make).arg("--overwrite"));
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
    // The same rows with the steps written out: what training would teach is what is judged by likelihood.
    let steps = [
        "eval",
        "--model",
        "llama-gqa",
        "--tasks",
        "data/deduction/deduction-steps-deeper.toml",
        "--likelihood",
    ];
    let steps = json_of(&place, &steps);
    let steps = &steps["results"]["deduction-steps-deeper"];
    assert!(steps["loglik_token,reasoning"].as_f64().is_some_and(|l| l < 0.0), "{steps}");
    let depth = ["data", "generate", "deduction", "--test-depth", "9-40"];
    fails(&mut place.sibo(&depth), 2, &["depths are N or LOW-HIGH, from 1 to 21"]);
}
