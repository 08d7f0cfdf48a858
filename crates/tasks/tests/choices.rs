//! The choice benchmarks in each of their layouts, and how lm-evaluation-harness asks them.

use sibo_tasks::answer::Reading;
use sibo_tasks::prompt::Choose;
use sibo_tasks::{Metric, Protocol, Split, SplitName, Target, Task, Text, Wanted};
use std::path::PathBuf;

fn load(task: &str, split: SplitName, wanted: Wanted) -> Split {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    Task::named(task).unwrap().load(&root, split, &wanted).unwrap()
}

fn test(task: &str) -> Split {
    load(task, SplitName::Test, Wanted::default())
}

fn choose(task: &str, split: &Split, row: usize) -> Choose {
    Task::named(task).unwrap().choose(&split.examples[row], Protocol::LmEval).unwrap()
}

fn golds(split: &Split) -> Vec<usize> {
    let gold = |target: &Target| match target {
        Target::Choice { gold, .. } => *gold,
        other => panic!("{other:?}"),
    };
    split.examples.iter().map(|e| gold(&e.target)).collect()
}

#[test]
fn a_blank_is_filled_in_the_context_and_the_rest_is_scored() {
    let rows = test("winogrande");
    assert!(rows.file.ends_with("winogrande/validation.jsonl"));
    assert_eq!(golds(&rows), [1, 0, 1, 0]);
    let asked = choose("winogrande", &rows, 0);
    let who = |name: &str| format!("Sarah was a much better surgeon than Maria so {name}");
    assert_eq!(asked.contexts, [who("Sarah"), who("Maria")]);
    assert_eq!(asked.continuations, [" always got the easier cases."; 2]);
    assert_eq!((asked.choices, asked.gold), (vec!["Sarah".to_owned(), "Maria".into()], 1));
    let task = Task::named("winogrande").unwrap();
    let shots = task.few_shot(&rows.examples[..1]).unwrap();
    assert_eq!(shots, who("Maria") + " always got the easier cases.\n\n");
    let mut row = rows.examples[0].clone();
    row.text = Text::Question { question: "No place here.".into(), passage: None, scored: None };
    let e = task.choose(&row, Protocol::LmEval).unwrap_err().to_string();
    assert!(e.ends_with("row 0 has no blank `_` in its question"), "{e}");
}

#[test]
fn hellaswag_is_cleaned_as_the_harness_does_and_says_when_it_was_stripped() {
    let wanted = Wanted { validation_rows: Some(1), ..Wanted::default() };
    let mut rows = load("hellaswag", SplitName::Train, wanted);
    rows.examples.extend(load("hellaswag", SplitName::Validation, wanted).examples);
    rows.examples.sort_by_key(|e| e.id);
    let asked = choose("hellaswag", &rows, 0);
    assert_eq!(asked.contexts[0], "Planting: How to plant a bulb. Choose the place. A bulb wants sun.");
    assert_eq!(asked.choices[1], " Sell the bulb.");
    assert_eq!(asked.continuations[2], " Dig a hole where the light falls.. Set it in.");
    assert_eq!(asked.gold, 2);
    assert_eq!(choose("hellaswag", &rows, 1).contexts[0], "Rowing: Two people sit in a boat. The elder one");
    let Text::Question { question, .. } = &rows.examples[1].text else { panic!() };
    assert_eq!(question, "Rowing: Two people sit in a boat. the Elder one");
    let stripped = test("hellaswag");
    assert_eq!(stripped.variant.as_deref(), Some("text stripped of markers"));
    assert_eq!(
        choose("hellaswag", &stripped, 0).contexts[0],
        "Roof shingle removal: A man is sitting on a roof. he"
    );
}

#[test]
fn letters_stand_before_the_choices_of_aqua() {
    let task = Task::named("aqua").unwrap();
    let rows = load("aqua", SplitName::Validation, Wanted::default());
    assert!(rows.file.ends_with("arithmetic/AQuA/dev.json"));
    let asked = choose("aqua", &rows, 1);
    assert!(
        asked.contexts[0].ends_with(
            "its length? Answer Choices: (A)100 m (B)150 m (C)200 m (D)250 m (E)300 m\nA: Among A through E, the answer is"
        ),
        "{}",
        asked.contexts[0]
    );
    assert_eq!((asked.continuations[3].as_str(), asked.gold), (" (D)250 m", 3));
    let rows = test("aqua");
    assert_eq!(golds(&rows)[0], 2);
    let asked = task.generate(&rows.examples[0], Protocol::LlmAdapters).unwrap();
    assert_eq!((asked.gold.as_str(), asked.words.len(), asked.beams), ("C", 5, 4));
    // "Because" holds no capital A to E but its first letter: the project's own reading takes it.
    let judged = asked.judge("Because it is 62 m, the answer is (C).");
    let right: Vec<(Reading, bool)> = judged.into_iter().map(|j| (j.reading, j.right)).collect();
    assert_eq!(right, [(Reading::FirstLetter, false), (Reading::AnswerIsLetter, true)]);
    let lesson = task.lesson(&rows.examples[0], Protocol::Clean).unwrap();
    assert_eq!(lesson.response, "The answer is (C).");
    let clean = task.generate(&rows.examples[0], Protocol::Clean).unwrap();
    assert!(clean.judge(&lesson.response).iter().all(|j| j.right));
}

#[test]
fn labels_may_lie_beside_their_rows() {
    let rows = test("siqa");
    assert!(rows.file.ends_with("commonsense/social_i_qa/dev.jsonl"));
    assert_eq!(golds(&rows), [0, 1]);
    let asked = choose("siqa", &rows, 1);
    assert_eq!(asked.contexts[2], "Q: Oto broke the cup. What will Oto do next?\nA:");
    assert_eq!(asked.continuations[1], " sweep the floor");
    let wanted = Wanted { validation_rows: Some(1), ..Wanted::default() };
    let train = load("siqa", SplitName::Train, wanted);
    assert!(train.file.ends_with("llm-adapters/social_i_qa/train.json"));
}

#[test]
fn one_column_can_hold_all_choices() {
    let rows = load("openbookqa", SplitName::Validation, Wanted::default());
    assert_eq!(golds(&rows), [1, 0]);
    let asked = choose("openbookqa", &rows, 0);
    assert_eq!(
        (asked.contexts[0].as_str(), asked.continuations[2].as_str()),
        ("Bees make", " steel (a kind)")
    );
    let test = test("openbookqa");
    assert_eq!(choose("openbookqa", &test, 1).contexts[0], "What melts?\n\nThink");
}

#[test]
fn two_solutions_keep_their_blanks() {
    let rows = test("piqa");
    let asked = choose("piqa", &rows, 0);
    assert_eq!(asked.contexts[0], "Question: How do I keep a door open?\nAnswer:");
    assert_eq!((asked.continuations[0].as_str(), asked.gold), (" Put a stone before it. ", 0));
    assert_eq!(Task::named("piqa").unwrap().metrics(Some(Protocol::LmEval)), [Metric::Acc, Metric::AccNorm]);
}

#[test]
fn pairs_of_glue_are_asked_as_the_harness_asks() {
    let rows = test("mnli");
    let asked = choose("mnli", &rows, 0);
    let context = "The harbour froze over.\nQuestion: Water froze. True, False or Neither?\nAnswer:";
    assert_eq!((asked.contexts[0].as_str(), asked.gold), (context, 0));
    assert_eq!(asked.continuations, [" True", " Neither", " False"]);
    assert_eq!(choose("mnli", &rows, 2).gold, 2);
    let mismatched = test("mnli-mismatched");
    assert!(mismatched.file.ends_with("glue/mnli/validation_mismatched.jsonl"));
    let classes: Vec<&Target> = mismatched.examples.iter().map(|e| &e.target).collect();
    assert_eq!(classes, [&Target::Class(2), &Target::Class(0), &Target::Class(1)]);
    // Row 2 lacks a question and row 3 is cut off, as rows of the official file are.
    let qqp = test("qqp");
    assert_eq!(qqp.examples.len(), 3);
    assert_eq!(qqp.examples[2].target, Target::Class(1));
    let context = "Question 1: How do I \"boil\" an egg?\nQuestion 2: How is an egg boiled?\nQuestion: Do both questions ask the same thing?\nAnswer:";
    assert_eq!(choose("qqp", &qqp, 0).contexts[0], context);
}

#[test]
fn arithmetic_rows_keep_the_blanks_around_their_questions() {
    for (task, question, gold) in [
        (
            "addsub",
            "Ben walked 1.25 miles on Monday and 2.5 miles on Friday . How many miles did he walk ? ",
            "3.75",
        ),
        (
            "multiarith",
            " Dan read 2 chapters of 11 pages and then 5 pages more. How many pages did he read? ",
            "27",
        ),
        ("singleeq", "Two ropes are 0.75 m and 0.5 m long. How long are they together ?", "1.25"),
    ] {
        let rows = test(task);
        let Text::Question { question: found, .. } = &rows.examples[1].text else { panic!() };
        assert_eq!(found, question);
        let asked = Task::named(task).unwrap().generate(&rows.examples[1], Protocol::LlmAdapters).unwrap();
        assert_eq!((asked.gold.as_str(), asked.max_new_tokens), (gold, 256));
        assert!(rows.notes.iter().any(|n| n.starts_with("2 rows of the official")), "{:?}", rows.notes);
    }
}
