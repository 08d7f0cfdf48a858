//! Every embedded task on a few rows of each layout, and the requests and lessons that come of them.

use sibo_tasks::answer::Reading;
use sibo_tasks::prompt::Prompt;
use sibo_tasks::{Metric, Protocol, Split, SplitName, Target, Task, Text, Wanted, names};
use std::path::PathBuf;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn load(task: &str, split: SplitName) -> Split {
    Task::named(task).unwrap().load(&root(), split, &Wanted::default()).unwrap()
}

#[test]
fn every_embedded_task_parses_and_carries_its_own_name() {
    assert_eq!(names().count(), 23);
    for name in names() {
        let task = Task::named(name).unwrap();
        assert_eq!(task.name(), name);
        assert!(task.spec().splits.test.is_some(), "{name}");
    }
}

#[test]
fn glue_tables_keep_quotes_and_lose_only_their_byte_order_mark() {
    let rte = load("rte", SplitName::Test);
    assert_eq!(
        rte.examples[1].text,
        Text::Pair("No train \"stopped\" here.".into(), "A train stopped here.".into())
    );
    let classes: Vec<&Target> = rte.examples.iter().map(|e| &e.target).collect();
    assert_eq!(classes, [&Target::Class(0), &Target::Class(1), &Target::Class(0)]);
    assert_eq!(rte.notes, ["3 rows of the official 277 of dev"]);
    let mrpc = load("mrpc", SplitName::Test);
    assert_eq!(
        mrpc.examples[0].text,
        Text::Pair("\" We won , \" she said .".into(), "She said they had won .".into())
    );
    assert_eq!(mrpc.examples[0].target, Target::Class(1));
    let cola = load("cola", SplitName::Test);
    assert_eq!(cola.examples[1].text, Text::Single("Gardener the the watered roses.".into()));
    assert_eq!(cola.examples[1].target, Target::Class(0));
    let stsb = load("stsb", SplitName::Test);
    assert_eq!(stsb.examples[0].target, Target::Value(4.75));
    assert_eq!(load("qnli", SplitName::Test).examples.len(), 3);
}

#[test]
fn hub_rows_count_labels_as_the_tables_do() {
    let task = Task::named("rte").unwrap();
    let wanted = Wanted { validation_rows: Some(1), ..Wanted::default() };
    let train = task.load(&root(), SplitName::Train, &wanted).unwrap();
    let validation = task.load(&root(), SplitName::Validation, &wanted).unwrap();
    assert!(train.file.ends_with("glue/rte/train.jsonl"));
    let mut rows: Vec<_> = train.examples.iter().chain(&validation.examples).collect();
    rows.sort_by_key(|e| e.id);
    assert_eq!((&rows[0].target, &rows[1].target), (&Target::Class(0), &Target::Class(1)));
    let arc = load("arc-easy", SplitName::Validation);
    let arc_train = load("arc-easy", SplitName::Train);
    let mut golds: Vec<_> =
        arc.examples.iter().chain(&arc_train.examples).map(|e| (e.id, &e.target)).collect();
    golds.sort_by_key(|(id, _)| *id);
    assert!(matches!(golds[0].1, Target::Choice { gold: 0, choices } if choices.len() == 3));
    assert!(matches!(golds[1].1, Target::Choice { gold: 1, choices } if choices[1] == "cork"));
}

#[test]
fn arc_is_asked_as_each_protocol_asks() {
    let task = Task::named("arc-easy").unwrap();
    let rows = load("arc-easy", SplitName::Test).examples;
    let lengths: Vec<usize> = rows
        .iter()
        .map(|r| match &r.target {
            Target::Choice { choices, .. } => choices.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lengths, [4, 4, 3, 5]);
    let row = &rows[0];
    let question = "Which statement best explains why photosynthesis is the foundation of most food webs?";
    let choose = task.choose(row, Protocol::LmEval).unwrap();
    assert_eq!(choose.contexts[3], format!("Question: {question}\nAnswer:"));
    assert_eq!(choose.continuations[0], " Sunlight is the source of energy for nearly all ecosystems.");
    assert_eq!(choose.choices[0], choose.continuations[0][1..]);
    let taught = task.lesson(row, Protocol::LmEval).unwrap();
    assert_eq!(taught.response, choose.continuations[choose.gold]);
    let asked = task.generate(row, Protocol::LlmAdapters).unwrap();
    assert_eq!((asked.beams, asked.max_new_tokens, asked.words.len()), (4, 32, 5));
    assert_eq!(asked.gold, format!("answer{}", choose.gold + 1));
    let judged = asked.judge(&format!("the correct answer is {}", asked.gold));
    assert!(judged[0].right && judged[0].reading == Reading::LabelWord);
    let lesson = task.lesson(row, Protocol::LlmAdapters).unwrap();
    assert_eq!(lesson.response, format!("the correct answer is {}", asked.gold));
    assert_ne!(lesson.prompt, asked.prompt, "the project's two texts differ");
    let clean = task.generate(row, Protocol::Clean).unwrap();
    assert_eq!(clean.prompt, task.lesson(row, Protocol::Clean).unwrap().prompt);
    assert_eq!(task.metrics(Some(Protocol::LmEval)), [Metric::Acc, Metric::AccNorm]);
    assert_eq!(task.metrics(Some(Protocol::LlmAdapters)), [Metric::ExactMatch]);
}

#[test]
fn boolq_without_its_passage_says_so() {
    let task = Task::named("boolq").unwrap();
    let test = load("boolq", SplitName::Test);
    assert!(test.notes.contains(&"without passage".to_owned()), "{:?}", test.notes);
    assert_eq!(test.variant.as_deref(), Some("without passage"));
    let choose = task.choose(&test.examples[0], Protocol::LmEval).unwrap();
    assert_eq!(choose.contexts[0], "Question: does ethanol take more energy make that produces?\nAnswer:");
    assert_eq!((choose.continuations, choose.gold), (vec![" no".into(), " yes".into()], 0));
    let asked = task.generate(&test.examples[0], Protocol::LlmAdapters).unwrap();
    assert_eq!((asked.gold.as_str(), asked.words), ("false", vec!["false".to_owned(), "true".into()]));
    let Prompt::Verbatim(text) = asked.prompt else { panic!() };
    assert!(text.contains(
        "question: does ethanol take more energy make that produces?\n\nAnswer format: true/false\n"
    ));
    let full = load("boolq", SplitName::Train);
    assert!(full.notes.iter().all(|n| n != "without passage"));
    let context = task.choose(&full.examples[0], Protocol::LmEval).unwrap().contexts.remove(0);
    assert!(context.ends_with('?') || context.ends_with("?\nAnswer:"), "{context}");
    assert!(context.starts_with("By day") || context.starts_with("Stones sink."), "{context}");
}

#[test]
fn gsm8k_teaches_without_calculator_marks_and_reads_numbers() {
    let task = Task::named("gsm8k").unwrap();
    let train = load("gsm8k", SplitName::Train).examples;
    let row = train.iter().find(|e| e.id == 0).expect("row 0 is held out only under another seed");
    let lesson = task.lesson(row, Protocol::LmEval).unwrap();
    assert!(lesson.response.starts_with(" Natalia sold 48/2 = 24 clips in May."), "{}", lesson.response);
    assert!(lesson.response.ends_with("\n#### 72") && !lesson.response.contains("<<"));
    let asked = task.generate(row, Protocol::LmEval).unwrap();
    assert_eq!((asked.gold.as_str(), asked.readings.len()), ("72", 2));
    assert!(asked.judge(&lesson.response).iter().all(|j| j.right));
    let shots = task.few_shot(&train[..2]).unwrap();
    assert_eq!(shots.matches("Question: ").count(), 2);
    assert!(shots.ends_with("\n\n"));
    let test = load("gsm8k", SplitName::Test);
    assert!(test.file.ends_with("llm-adapters/gsm8k/test.json"));
    let asked = task.generate(&test.examples[0], Protocol::LlmAdapters).unwrap();
    assert_eq!(asked.gold, "576");
    assert!(asked.judge("#### 576.0")[0].right);
}

#[test]
fn svamp_has_a_test_split_only() {
    let task = Task::named("svamp").unwrap();
    let rows = load("svamp", SplitName::Test).examples;
    assert!(matches!(&rows[0].target, Target::Answer { gold, .. } if gold == "8"));
    let e = task.load(&root(), SplitName::Train, &Wanted::default()).unwrap_err().to_string();
    assert_eq!(e, "task `svamp` has no train split; it has test");
}

#[test]
fn held_out_rows_and_limits_are_the_same_every_time() {
    let task = Task::named("gsm8k").unwrap();
    let ids = |split, wanted: &Wanted| -> Vec<u64> {
        task.load(&root(), split, wanted).unwrap().examples.iter().map(|e| e.id).collect()
    };
    let wanted = Wanted { validation_rows: Some(5), ..Wanted::default() };
    let (train, validation) = (ids(SplitName::Train, &wanted), ids(SplitName::Validation, &wanted));
    assert_eq!((train.len(), validation.len()), (7, 5));
    assert!(validation.iter().all(|id| !train.contains(id)));
    assert_eq!(ids(SplitName::Validation, &wanted), validation);
    assert_ne!(ids(SplitName::Validation, &Wanted { seed: 1, ..wanted }), validation);
    let few = ids(SplitName::Train, &Wanted { limit: Some(3), ..wanted });
    assert!(few.len() == 3 && few.iter().all(|id| train.contains(id)));
    let split = task.load(&root(), SplitName::Train, &Wanted { limit: Some(3), ..wanted }).unwrap();
    assert_eq!((split.rows_in_split, split.rows_in_file), (7, 12));
    assert!(split.notes.contains(&"3 of 7 rows".to_owned()), "{:?}", split.notes);
    let too_many = Wanted { validation_rows: Some(12), ..Wanted::default() };
    let e = task.load(&root(), SplitName::Train, &too_many).unwrap_err().to_string();
    assert!(e.contains("12 validation rows out of 12 train rows"), "{e}");
    let none = Wanted { limit: Some(0), ..Wanted::default() };
    assert!(task.load(&root(), SplitName::Test, &none).unwrap_err().to_string().contains("leaves no row"));
}

#[test]
fn a_decoder_can_be_asked_a_glue_task_as_the_harness_asks() {
    let task = Task::named("rte").unwrap();
    let row = &load("rte", SplitName::Test).examples[0];
    let choose = task.choose(row, Protocol::LmEval).unwrap();
    let context =
        "The bakery on the corner opens at six.\nQuestion: A bakery opens early. True or False?\nAnswer:";
    assert_eq!((choose.contexts[1].as_str(), choose.gold), (context, 0));
    assert_eq!(choose.continuations, [" True", " False"]);
    let e = task.generate(row, Protocol::Clean).unwrap_err().to_string();
    assert_eq!(e, "task `rte`, protocol clean: the task has prompts for lm-eval only");
    let e = task.generate(row, Protocol::LmEval).unwrap_err().to_string();
    assert!(e.contains("scores choices by likelihood"), "{e}");
    let stsb = Task::named("stsb").unwrap();
    let row = &load("stsb", SplitName::Test).examples[0];
    let e = stsb.choose(row, Protocol::LmEval).unwrap_err().to_string();
    assert!(e.contains("no prompts for a language model"), "{e}");
}
