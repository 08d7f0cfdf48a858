//! Golden cases of answer reading: the projects' own answers (`tests/reference/answers.py` asked them), and ours by hand.

use serde_json::Value;
use sibo_tasks::answer::{Judged, Reading};
use sibo_tasks::{Protocol, Task, names};

#[test]
fn every_case_is_read_as_its_project_reads_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/answers.json");
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(cases.len() > 140);
    for case in &cases {
        let reading: Reading = serde_json::from_value(case["reading"].clone()).unwrap();
        let words: Vec<String> = serde_json::from_value(case["words"].clone()).unwrap();
        let judged =
            reading.judge(case["response"].as_str().unwrap(), case["gold"].as_str().unwrap(), &words);
        assert_eq!(
            (judged.answer.as_deref(), Some(judged.right)),
            (case["answer"].as_str(), case["right"].as_bool()),
            "{case}"
        );
    }
    // Each reading is met both right and wrong, and without an answer where that can be.
    for reading in ["last-number", "strict-match", "flexible-extract", "first-letter", "label-word"] {
        let of = |key: &str, value: Value| cases.iter().any(|c| c["reading"] == reading && c[key] == value);
        assert!(
            of("right", true.into()) && of("right", false.into()) && of("answer", Value::Null),
            "{reading}"
        );
    }
}

#[test]
fn our_own_letters_are_read_where_they_stand_alone() {
    let answer = |reading: Reading, text: &str| reading.read(text, &[]);
    for (text, last, after_is) in [
        ("The answer is (C).", Some("C"), Some("C")),
        ("Because Dave ate it, it is D", Some("D"), None),
        ("answer is: D, not E", Some("E"), Some("D")),
        ("The Answer Is\nB", Some("B"), Some("B")),
        ("the answer is Every one; A.", Some("A"), None),
        ("the answer is A. No, the answer is B!", Some("B"), Some("B")),
        ("(b)", None, None),
        ("CAB", None, None),
        ("A5 and 5B", None, None),
        ("5 m/s", None, None),
        ("", None, None),
    ] {
        assert_eq!(answer(Reading::LastLetter, text).as_deref(), last, "{text}");
        assert_eq!(answer(Reading::AnswerIsLetter, text).as_deref(), after_is, "{text}");
    }
}

/// What each protocol that lets a model write makes of a right and of an empty response, for every task.
#[test]
fn every_protocol_of_every_task_reads_its_own_answer_and_no_answer() {
    let mut asked = 0;
    for name in names() {
        let task = Task::named(name).unwrap();
        for (protocol, prompt) in &task.spec().prompt {
            if !task.is_generated(*protocol) {
                continue;
            }
            let form = task.spec().llm_adapters.as_ref();
            let words = form.map(|f| f.words_to_read()).unwrap_or_default();
            let gold = words.last().cloned().unwrap_or_else(|| "12".into());
            for reading in &prompt.reading {
                let said = match (protocol, reading) {
                    (Protocol::LmEval, _) => format!("so it is 3.\n#### {gold}"),
                    (_, Reading::LabelWord) => format!("the correct answer is {gold}"),
                    (_, Reading::StrictMatch) => format!("#### {gold}"),
                    _ => format!("The answer is {gold}."),
                };
                let judged = reading.judge(&said, &gold, &words);
                assert!(judged.right, "{name} {protocol}: {judged:?}");
                let none = Judged { reading: *reading, answer: None, right: false };
                assert_eq!(reading.judge("", &gold, &words), none, "{name} {protocol}");
                asked += 1;
            }
        }
    }
    assert!(asked >= 35, "{asked}");
}
