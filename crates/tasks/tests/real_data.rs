//! The whole data, where it is at hand: `SIBO_DATA=<folder> cargo test -p sibo-tasks -- --ignored --nocapture`.

use sibo_tasks::prompt::Prompt;
use sibo_tasks::{Protocol, SplitName, Task, Text, Wanted, names, overlap};
use std::path::PathBuf;

fn root() -> PathBuf {
    std::env::var_os("SIBO_DATA").expect("SIBO_DATA names the data folder").into()
}

#[test]
#[ignore = "needs the benchmark files; too large to store here"]
fn every_split_at_hand_is_read_and_asked() {
    for name in names() {
        let task = Task::named(name).unwrap();
        for split in SplitName::ALL.into_iter().filter(|s| task.spec().splits.file(*s).is_some()) {
            let rows = task.load(&root(), split, &Wanted::default()).unwrap();
            for row in &rows.examples {
                for protocol in task.spec().prompt.keys() {
                    match task.is_generated(*protocol) {
                        true => drop(task.generate(row, *protocol).unwrap()),
                        false => drop(task.choose(row, *protocol).unwrap()),
                    }
                }
            }
            println!("{name} {split}: {} rows, {:?}", rows.examples.len(), rows.notes);
        }
        if task.spec().splits.train.is_some() {
            let load = |split| task.load(&root(), split, &Wanted::default()).unwrap().examples;
            let train: Vec<_> =
                load(SplitName::Train).into_iter().chain(load(SplitName::Validation)).collect();
            println!("{name}: {} test rows are in train", overlap(&train, &load(SplitName::Test)).rows.len());
        }
    }
}

/// Reading an instruction apart and writing it again gives the same bytes, and so does the training response.
#[test]
#[ignore = "needs the benchmark files; too large to store here"]
fn llm_adapters_rows_are_written_back_to_the_byte() {
    for (name, folder, files) in [
        ("arc-easy", "ARC-Easy", &["train", "test"][..]),
        ("boolq", "boolq", &["train", "test"]),
        ("gsm8k", "gsm8k", &["test"]),
        ("svamp", "SVAMP", &["test"]),
    ] {
        for file in files {
            let path = root().join("llm-adapters").join(folder).join(format!("{file}.json"));
            let raw: Vec<serde_json::Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            let spec =
                std::fs::read_to_string(format!("{}/specs/{name}.toml", env!("CARGO_MANIFEST_DIR"))).unwrap();
            // The test split of this copy is the file at hand.
            let spec = spec.replace(&format!("{folder}/test.json"), &format!("{folder}/{file}.json"));
            let copy = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
            std::fs::write(copy.path(), spec).unwrap();
            let task = Task::from_file(copy.path()).unwrap();
            let rows = task.load(&root(), SplitName::Test, &Wanted::default()).unwrap().examples;
            assert_eq!(rows.len(), raw.len());
            for (row, raw) in rows.iter().zip(&raw) {
                let Prompt::Instruction { instruction, .. } =
                    task.generate(row, Protocol::Clean).unwrap().prompt
                else {
                    panic!("clean prompts are instructions")
                };
                assert_eq!(instruction, raw["instruction"], "{name} {file} row {}", row.id);
                assert!(matches!(row.text, Text::Question { .. }));
                if name == "arc-easy" || name == "boolq" {
                    assert_eq!(task.lesson(row, Protocol::Clean).unwrap().response, raw["output"]);
                }
            }
            println!("{name} {file}: {} rows written back", rows.len());
        }
    }
}
