//! Bad input gets a sentence: which file, which row, which column, and what would be right.

use sibo_tasks::spec::Spec;
use sibo_tasks::{SplitName, Task, Wanted};
use std::fs;

const CHOICES: &str = r#"
name = "colours"
description = "d"
citation = "c"
licence = "CC0"
version = 2
kind = "multiple_choice"
metrics = ["acc"]
[splits]
test = "dev"
[[source]]
format = "json-lines"
files.dev = "dev.jsonl"
columns = { question = "thing", choices = ["a", "b"], label = "gold" }
label-base = 1
"#;

/// The message of loading the test split of `spec` with `data` in `file`.
fn fault(spec: &str, file: &str, data: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("task.toml");
    fs::write(&path, spec).unwrap();
    fs::write(folder.path().join(file), data).unwrap();
    let task = Task::open(path.to_str().unwrap()).unwrap();
    let loaded = task.load(folder.path(), SplitName::Test, &Wanted::default());
    let message = loaded.map(|split| format!("{:?}", split.examples)).unwrap_or_else(|e| e.to_string());
    message.replace(folder.path().to_str().unwrap(), "")
}

fn choices_fault(line: &str) -> String {
    let good = r#"{"thing": "sky", "a": "blue", "b": "red", "gold": 1}"#;
    fault(CHOICES, "dev.jsonl", format!("{good}\n{line}\n").as_bytes())
}

#[test]
fn rows_are_named_by_line_and_column() {
    let m = choices_fault(r#"{"thing": "sky", "a": "blue", "gold": 1}"#);
    assert_eq!(m, "/dev.jsonl: line 2: no column `b`; the row has `thing`, `a`, `gold`");
    let m = choices_fault(r#"{"thing": "sky", "a": "x", "b": "y", "gold": 3}"#);
    assert_eq!(m, "/dev.jsonl: line 2: column `gold`: label `3` is none of 1 to 2");
    let m = choices_fault(r#"{"thing": "sky", "a": "x", "b": "y", "gold": -1}"#);
    assert!(m.contains("label `-1` is none of 1 to 2; -1 marks a split whose labels are withheld"), "{m}");
    let m = choices_fault(r#"{"thing": " ", "a": "x", "b": "y", "gold": 2}"#);
    assert_eq!(m, "/dev.jsonl: line 2: column `thing` is empty; a row needs text");
    let m = choices_fault(r#"{"thing": ["sky"], "a": "x", "b": "y", "gold": 2}"#);
    assert_eq!(m, "/dev.jsonl: line 2: expected a string in column `thing`, found an array");
    let m = choices_fault(r#"{"thing": "sky", "a": "x" "b": "y", "gold": 2}"#);
    assert!(m.starts_with("/dev.jsonl: broken JSON at line 2, column "), "{m}");
    let m = choices_fault("[1]");
    assert!(m.contains("line 2: expected a JSON object"), "{m}");
}

#[test]
fn bytes_that_are_no_text_are_found() {
    let m = fault(CHOICES, "dev.jsonl", b"{}\n{\"thing\": \"\xff\"}\n");
    assert_eq!(m, "/dev.jsonl: line 2: not UTF-8 (byte 12 of the line is 0xff); save the file as UTF-8");
    assert_eq!(fault(CHOICES, "dev.jsonl", b""), "/dev.jsonl: no rows in it");
}

#[test]
fn tables_are_checked_too() {
    let head = CHOICES
        .replace("multiple_choice", "classification")
        .replace("[splits]", "labels = ['no', 'yes']\n[splits]");
    let tsv = head
        .replace("json-lines", "glue-tsv")
        .replace("dev.jsonl", "dev.tsv")
        .replace(r#"question = "thing", choices = ["a", "b"]"#, r#"text_a = "thing""#)
        .replace("label-base = 1", "");
    assert!(fault(&tsv, "dev.tsv", b"thing\tgold\nsky\tyes\n").contains("Class(1)"));
    assert!(fault(&tsv, "dev.tsv", b"thing\tgold\nsky\t0\n").contains("Class(0)"));
    let m = fault(&tsv, "dev.tsv", b"thing\tgold\nsky\tmaybe\n");
    assert_eq!(m, "/dev.tsv: line 2: column `gold`: label `maybe` is none of no, yes (or 0 to 1)");
    let m = fault(&tsv, "dev.tsv", b"thing\tlabel\nsky\tyes\n");
    assert!(m.contains("no column `gold`; the row has `thing`, `label`"), "{m}");
    let m = fault(&tsv, "dev.tsv", b"thing\tgold\nsky yes\n");
    assert!(m.contains("line 2: 1 tab-separated cells, expected 2"), "{m}");
    let score =
        tsv.replace("classification", "regression").replace("labels = ['no', 'yes']", "range = [0.0, 5.0]");
    let score = score.replace("[\"acc\"]", "[\"pearson\"]");
    let m = fault(&score, "dev.tsv", b"thing\tgold\nsky\t5.5\n");
    assert_eq!(m, "/dev.tsv: line 2: column `gold`: `5.5` is not a number from 0 to 5");
    assert!(fault(&score, "dev.tsv", b"thing\tgold\nsky\tNaN\n").contains("`NaN` is not a number"));
}

/// A number that is a label's name means that label, in JSON as in text.
#[test]
fn labels_called_by_numbers_are_names() {
    let head = CHOICES
        .replace("multiple_choice", "classification")
        .replace("[splits]", "labels = ['1', '2', '3']\n[splits]")
        .replace(r#"question = "thing", choices = ["a", "b"]"#, r#"text_a = "thing""#)
        .replace("label-base = 1", "");
    for (gold, class) in
        [("1", "Class(0)"), ("\"1\"", "Class(0)"), ("3", "Class(2)"), ("0", "label `0` is none of 1, 2, 3")]
    {
        let row = format!("{{\"thing\": \"sky\", \"gold\": {gold}}}\n");
        assert!(fault(&head, "dev.jsonl", row.as_bytes()).contains(class), "{gold}");
    }
}

#[test]
fn other_layouts_and_absent_files_are_explained() {
    let parquet = CHOICES.replace("json-lines", "parquet").replace("dev.jsonl", "dev.parquet");
    assert!(fault(&parquet, "dev.parquet", b"PAR1").starts_with("/dev.parquet: no parquet file"));
    let elsewhere = parquet.replace("dev.parquet", "dev.data");
    assert!(fault(&elsewhere, "dev.data", b"PAR1").contains("so its name must end in .parquet"));
    let m = fault(CHOICES, "other.jsonl", b"{}");
    assert!(m.starts_with("task `colours`: no data for its test split. Looked for:\n  /dev.jsonl\n"), "{m}");
    let e = Task::open("arc-esay").unwrap_err().to_string();
    assert!(
        e.starts_with("no task is called `arc-esay` (did you mean `arc-easy`?); there are addsub, aqua,"),
        "{e}"
    );
    assert!(Task::open("absent.toml").unwrap_err().to_string().starts_with("absent.toml: cannot read"));
}

#[test]
fn instructions_of_another_form_are_refused() {
    let svamp = include_str!("../specs/boolq.toml").replace("boolq/test.json", "b.json");
    let row = |instruction: &str, answer: &str| {
        let row =
            serde_json::json!([{"instruction": instruction, "input": "", "output": "o", "answer": answer}]);
        let spec = svamp.replace("llm-adapters/b.json", "b.json");
        fault(&spec, "b.json", row.to_string().as_bytes())
    };
    let m = row("Is it so?", "true");
    assert!(
        m.contains(
            "row 1: the instruction does not follow the task's llm-adapters template: it should begin"
        ),
        "{m}"
    );
    let good = "Please answer the following question with true or false, question: is it so?\n\nAnswer format: true/false";
    assert!(row(good, "true").contains("gold: 1"));
    assert!(row(good, "yes").contains("row 1: column `answer`: label `yes` is none of false, true"));
}

#[test]
fn answers_that_are_no_numbers_are_refused() {
    let spec = include_str!("../specs/svamp.toml").replace("llm-adapters/SVAMP/test.json", "s.json");
    let m =
        fault(&spec, "s.json", br#"[{"instruction": "q", "input": "", "output": "", "answer": "eight"}]"#);
    assert_eq!(m, "/s.json: row 1: column `answer`: `eight` is not a number");
    let spec = include_str!("../specs/gsm8k.toml").replace("arithmetic/gsm8k/test.jsonl", "g.jsonl");
    let m = fault(&spec, "g.jsonl", br#"{"question": "q", "answer": "so 7"}"#);
    assert_eq!(m, "/g.jsonl: line 1: column `answer`: `so 7` is not an answer after `####`");
}

#[test]
fn task_files_are_checked_before_any_data() {
    let message = |from: &str, to: &str| {
        assert!(CHOICES.contains(from), "{from}");
        Spec::parse(&CHOICES.replace(from, to), "t.toml").unwrap_err().to_string()
    };
    let m = message("licence", "license");
    assert!(m.contains("unknown field `license`") && m.ends_with("(did you mean `licence`?)"), "{m}");
    let m = message("label-base", "label-bass");
    assert!(m.contains("line 15") && m.ends_with("(did you mean `label-base`?)"), "{m}");
    assert!(message("[\"acc\"]", "[\"ac\"]").ends_with("(did you mean `acc`?)"));
    assert!(message("version = 2", "version = \"two\"").contains("invalid type"));
    assert!(
        message("[\"acc\"]", "[\"pearson\"]")
            .contains("`metrics` has `pearson`, which a multiple_choice task")
    );
    assert!(
        message("test = \"dev\"", "test = \"tset\"").contains("`splits.test` is `tset`, which no source's")
    );
    assert!(message("test = \"dev\"", "test = \"held-out\"").contains("for validation only"));
    assert!(message("choices = [\"a\", \"b\"], ", "").contains("`source.columns` lacks \"choices\""));
    assert!(message("\"colours\"", "\"a/b\"").contains("`name` may hold letters"));
    let prompt =
        |text: &str| Spec::parse(&format!("{CHOICES}[prompt.{text}"), "t.toml").unwrap_err().to_string();
    let m = prompt("lm-eval]\ncontext = \"{qestion}\"");
    assert!(m.contains("the place {qestion} (did you mean `question`?); places: text_a"), "{m}");
    assert!(prompt("clean]\nreading = [\"label-word\"]").contains("`prompt.clean.instruction` is missing"));
    assert!(prompt("clean]\ninstruction = \"{question}\"").contains("`prompt.clean.reading` is missing"));
    let m = prompt("lm-eval]\ncontext = \"{question}\"\nmetrics = [\"exact_match\"]");
    assert!(
        m.contains("`prompt.lm-eval.metrics` has `exact_match`, which choices scored by likelihood lack"),
        "{m}"
    );
    assert!(prompt("lm-eval]\ncontext = \"a } b\"").contains("closing brace"));
    assert!(prompt("lm_eval]\ncontext = \"a\"").ends_with("(did you mean `lm-eval`?)"));
}
