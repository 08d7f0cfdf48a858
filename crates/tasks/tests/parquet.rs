//! Data sets in the Hub's own form, in the places where a copy of its repository has them.

use sibo_tasks::spec::Spec;
use sibo_tasks::{SplitName, Target, Task, Text, Wanted};
use std::path::PathBuf;

fn data() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

#[test]
fn a_task_reads_shards_as_one_file() {
    let task = Task::named("rte").unwrap();
    let wanted = Wanted { validation_rows: Some(1), ..Wanted::default() };
    let load = |split| task.load(&data().join("hub"), split, &wanted).unwrap();
    let (train, validation) = (load(SplitName::Train), load(SplitName::Validation));
    assert!(train.file.ends_with("rte/train (2 parquet files)"), "{}", train.file.display());
    let mut rows: Vec<_> = train.examples.iter().chain(&validation.examples).collect();
    rows.sort_by_key(|e| e.id);
    assert_eq!(rows.iter().map(|e| e.id).collect::<Vec<_>>(), [0, 1, 2, 3, 4], "numbered through");
    let classes: Vec<&Target> = rows.iter().map(|e| &e.target).collect();
    assert_eq!(classes, [0, 1, 0, 1, 0].map(Target::Class).iter().collect::<Vec<_>>());
    assert_eq!(rows[3].text, Text::Pair("The lamp is lit.".into(), "Nobody lit it.".into()));
}

#[test]
fn nested_choices_are_entered() {
    let task = Task::named("arc-easy").unwrap();
    let rows = task.load(&data().join("hub"), SplitName::Test, &Wanted::default()).unwrap().examples;
    let golds: Vec<(usize, usize, &str)> = rows
        .iter()
        .map(|row| match &row.target {
            Target::Choice { choices, gold } => (choices.len(), *gold, choices[*gold].as_str()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(golds, [(3, 0, "iron"), (2, 1, "cork"), (4, 1, "sun")]);
}

#[test]
fn a_column_that_is_not_read_is_named_when_a_task_asks_for_it() {
    let spec =
        include_str!("../specs/arc-easy.toml").replace("question = \"question\"", "question = \"picture\"");
    assert!(Spec::parse(&spec, "x").is_ok());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.toml");
    std::fs::write(&path, spec).unwrap();
    let task = Task::from_file(&path).unwrap();
    let e = task.load(&data().join("hub"), SplitName::Test, &Wanted::default()).unwrap_err().to_string();
    assert!(e.contains("test-00000-of-00001.parquet: row 1: no column `picture`; the row has `id`,"), "{e}");
    assert!(e.contains("of a type that is not read: `picture` (bytes)"), "{e}");
}

#[test]
fn instructions_are_read_from_a_file_and_from_a_folder() {
    let file = data().join("parquet/alpaca.parquet");
    let rows = sibo_tasks::read_instructions(&file, None).unwrap();
    assert_eq!(
        rows[1].text,
        Text::Prompt { instruction: "Name a colour.".into(), input: "of the sky".into() }
    );
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    for shard in ["train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"] {
        std::fs::copy(&file, folder.path().join(format!("data/{shard}.parquet"))).unwrap();
    }
    let rows = sibo_tasks::read_instructions(folder.path(), None).unwrap();
    assert_eq!(rows.iter().map(|e| e.id).collect::<Vec<_>>(), [0, 1, 2, 3]);
    let e = sibo_tasks::read_column(&file, "question").unwrap_err().to_string();
    assert!(e.contains("alpaca.parquet: row 1: no column `question`"), "{e}");
}
