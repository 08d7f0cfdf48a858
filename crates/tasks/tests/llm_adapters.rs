//! Questions and choices recovered from LLM-Adapters' strings give the same strings when written back.

use serde_json::Value;
use sibo_tasks::{Kind, Task};
use std::path::{Path, PathBuf};

/// Our names and the project's folders.
const FOLDERS: [(&str, &str); 14] = [
    ("addsub", "AddSub"),
    ("aqua", "AQuA"),
    ("arc-challenge", "ARC-Challenge"),
    ("arc-easy", "ARC-Easy"),
    ("boolq", "boolq"),
    ("gsm8k", "gsm8k"),
    ("hellaswag", "hellaswag"),
    ("multiarith", "MultiArith"),
    ("openbookqa", "openbookqa"),
    ("piqa", "piqa"),
    ("singleeq", "SingleEq"),
    ("siqa", "social_i_qa"),
    ("svamp", "SVAMP"),
    ("winogrande", "winogrande"),
];

/// Takes every row of every file of a task apart and writes it again; gives the number of rows.
fn round_trip(name: &str, folder: &Path) -> usize {
    let task = Task::named(name).unwrap();
    let form = task.spec().llm_adapters.as_ref().unwrap();
    let mut count = 0;
    for file in std::fs::read_dir(folder).into_iter().flatten() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let rows: Vec<Value> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for (i, row) in rows.iter().enumerate() {
            let place = format!("{} row {i}", path.display());
            let instruction = row["instruction"].as_str().unwrap();
            let (question, choices) = form.read(instruction).unwrap_or_else(|e| panic!("{place}: {e}"));
            assert_eq!(form.write(&question, &choices), instruction, "{place}");
            if task.spec().kind != Kind::MultipleChoice {
                continue;
            }
            let words = form.words(choices.len());
            let answer = row["answer"].as_str().unwrap();
            assert!(words.iter().any(|w| w == answer), "{place}: {answer} is none of {words:?}");
            // AQuA's outputs are worked solutions of a model.
            if name != "aqua" {
                assert_eq!(form.response.replace("{word}", answer), row["output"], "{place}");
            }
        }
        count += rows.len();
    }
    count
}

#[test]
fn rows_are_written_back_to_the_byte() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/llm-adapters");
    for (name, folder) in FOLDERS {
        assert!(round_trip(name, &root.join(folder)) >= 2, "{name}");
    }
    let with_form = sibo_tasks::names().filter(|n| Task::named(n).unwrap().spec().llm_adapters.is_some());
    assert_eq!(with_form.collect::<Vec<_>>(), FOLDERS.map(|(name, _)| name));
}

#[test]
#[ignore = "needs the benchmark files; too large to store here"]
fn all_rows_at_hand_are_written_back_to_the_byte() {
    let root = PathBuf::from(std::env::var_os("SIBO_DATA").expect("SIBO_DATA names the data folder"));
    for (name, folder) in FOLDERS {
        println!("{name}: {} rows written back", round_trip(name, &root.join("llm-adapters").join(folder)));
    }
}
