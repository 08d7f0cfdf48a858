use super::*;
use crate::testing;
use sibo_model::{LoadOptions, Model};
use sibo_text::Template;

struct Made {
    _dir: tempfile::TempDir,
    model: Model,
    tokenizer: Tokenizer,
    template: Template,
}

fn made(kind: &str, classes: Option<usize>) -> Made {
    let dir = tempfile::tempdir().unwrap();
    let folder = testing::folder(dir.path(), kind);
    let model = Model::load(&folder, &LoadOptions { classes, ..LoadOptions::default() }).unwrap().model;
    let tokenizer = Tokenizer::from_folder(&folder).unwrap();
    let template = Template::choose("plain", &tokenizer, 0).unwrap();
    Made { _dir: dir, model, tokenizer, template }
}

const LIMITS: Limits = Limits { cutoff: 40, train_on_inputs: false };

fn pair(id: u64, a: &str, b: &str, class: u32) -> Example {
    Example { id, text: Text::Pair(a.into(), b.into()), target: Target::Class(class) }
}

fn instruction(id: u64, instruction: &str, output: &str) -> Example {
    let text = Text::Prompt { instruction: instruction.into(), input: String::new() };
    Example { id, text, target: Target::Response(output.into()) }
}

#[test]
fn pairs_carry_types_and_are_cut_to_the_models_positions() {
    let m = made("bert", Some(2));
    let task = Task::named("qnli").unwrap();
    let rows = [pair(3, "where is it?", "it is in the box", 1), pair(8, &"who ".repeat(90), "he", 0)];
    let wide = Limits { cutoff: 500, ..LIMITS };
    let data = for_classes(&task, &rows, &m.tokenizer, m.model.arch(), &wide).unwrap();
    let first = &data.rows[0];
    assert_eq!((first.row.sample, &first.label), (3, &Label::Class(1)));
    assert_eq!(
        first.row.types.iter().filter(|t| **t == 1).count(),
        first.row.types.len() - first.row.types.iter().position(|t| *t == 1).unwrap()
    );
    // 64 positions, whatever the cutoff says.
    assert_eq!((data.longest(), data.notes.len()), (64, 1));
    assert!(data.notes[0].contains("1 rows were shortened to 64 tokens"), "{:?}", data.notes);
    data.check(&m.model).unwrap();
}

#[test]
fn rows_that_cannot_be_classified_are_named() {
    let m = made("bert", Some(2));
    let task = Task::named("qnli").unwrap();
    let said = |row: Example| {
        for_classes(&task, &[row], &m.tokenizer, m.model.arch(), &LIMITS).unwrap_err().to_string()
    };
    assert_eq!(
        said(pair(4, "who?", "he", 2)),
        "row 5 of qnli: class 2 is outside the 2 classes of the head, 0 to 1"
    );
    assert!(said(pair(6, "who?", " \t", 0)).starts_with("row 7 of qnli: holds an empty text"));
    assert!(said(instruction(9, "say", "yes")).contains("row 10 of qnli: is an instruction"));
}

#[test]
fn the_prompt_is_seen_and_the_answer_learned() {
    let m = made("llama", None);
    let rows = [instruction(2, "What is it?", "A box."), instruction(5, &"long ".repeat(60), "A box.")];
    let read = |limits: Limits| {
        for_instructions(&rows, "x.jsonl", &m.template, &m.tokenizer, m.model.arch(), &limits).unwrap()
    };
    let data = read(LIMITS);
    let Label::Tokens(labels) = &data.rows[0].label else { panic!() };
    let learned: Vec<u32> = labels.iter().filter(|l| **l != -100).map(|l| *l as u32).collect();
    assert_eq!(m.tokenizer.decode(&learned).unwrap().trim(), "A box.");
    assert_eq!(learned.last().copied(), m.tokenizer.eos_id());
    assert!(data.rows[0].row.ids.starts_with(&m.tokenizer.encode_bare("What is it?").unwrap()));
    assert_eq!(data.rows[0].count(), learned.len());
    // The second row is too long: its answer is whole, its prompt is not.
    let Label::Tokens(labels) = &data.rows[1].label else { panic!() };
    assert_eq!(labels.len(), 40);
    assert_eq!(labels.iter().filter(|l| **l != -100).count(), learned.len());
    assert!(data.notes.iter().any(|n| n.contains("1 prompts were shortened")), "{:?}", data.notes);
    let all = read(Limits { train_on_inputs: true, ..LIMITS });
    assert_eq!(all.rows[0].count(), all.rows[0].row.ids.len() - 1);
}

#[test]
fn training_and_evaluation_show_the_same_prompt() {
    let m = made("llama", None);
    let chat = Template::choose("chat", &m.tokenizer, 0).unwrap();
    let task = Task::named("arc-easy").unwrap();
    let example = Example {
        id: 1,
        text: Text::Question { question: "Which is it?".into(), passage: None, scored: None },
        target: Target::Choice { choices: ["a box", "a fox", "an ox"].map(String::from).to_vec(), gold: 1 },
    };
    for template in [&m.template, &chat] {
        let limits = Limits { cutoff: 400, ..LIMITS };
        let rows = [example.clone()];
        let data =
            for_lessons(&task, &rows, Protocol::Clean, template, &m.tokenizer, m.model.arch(), &limits)
                .unwrap();
        let request = task.generate(&example, Protocol::Clean).unwrap();
        let asked =
            sibo_text::encode_prompt(&m.tokenizer, &render_prompt(&request.prompt, template).unwrap())
                .unwrap();
        let Label::Tokens(labels) = &data.rows[0].label else { panic!() };
        let prompt = labels.iter().take_while(|l| **l == -100).count();
        assert_eq!(data.rows[0].row.ids[..prompt], asked, "{}", template.name());
    }
}

/// A conversation teaches all of its answers; a completion after a conversation, itself alone.
#[test]
fn a_given_answer_is_not_learned() {
    let m = made("llama", None);
    let chat = Template::choose("chat", &m.tokenizer, 0).unwrap();
    let message = |role, content: &str| sibo_tasks::Message { role, content: content.into() };
    use sibo_tasks::Role::{Assistant, User};
    let said = [
        message(User, "a fox"),
        message(Assistant, "a box"),
        message(User, "an ox"),
        message(Assistant, "a den"),
    ];
    let labels = |text: Vec<sibo_tasks::Message>, target| {
        let row = Example { id: 3, text: Text::Chat(text), target };
        let limits = Limits { cutoff: 400, ..LIMITS };
        let data = for_instructions(&[row], "x.jsonl", &chat, &m.tokenizer, m.model.arch(), &limits).unwrap();
        let Label::Tokens(labels) = data.rows[0].label.clone() else { panic!() };
        (data.rows[0].row.ids.clone(), labels)
    };
    let (ids, whole) = labels(said.to_vec(), Target::InText);
    let (same, alone) = labels(said[..3].to_vec(), Target::Response("a den".into()));
    assert_eq!(ids, same);
    let count = |labels: &[i64]| labels.iter().filter(|l| **l != -100).count();
    assert!(count(&whole) > count(&alone) && count(&alone) > 0);
    assert!(whole.iter().zip(&alone).all(|(whole, alone)| *alone == -100 || whole == alone));
}

#[test]
fn a_wrong_row_of_a_file_is_named() {
    let m = made("llama", None);
    let said = |row: Example, template: &Template| {
        for_instructions(&[row], "x.jsonl", template, &m.tokenizer, m.model.arch(), &LIMITS)
            .unwrap_err()
            .to_string()
    };
    let empty = said(instruction(12, "say", ""), &m.template);
    assert_eq!(empty, "row 13 of x.jsonl: the row has no answer to train on: its completion is empty");
    let message = |role, content: &str| sibo_tasks::Message { role, content: content.into() };
    use sibo_tasks::Role::{Assistant, User};
    let turns =
        vec![message(User, "a"), message(Assistant, "b"), message(User, "c"), message(Assistant, "d")];
    let talk = Example { id: 7, text: Text::Chat(turns), target: Target::InText };
    let alpaca = Template::choose("alpaca", &m.tokenizer, 0).unwrap();
    assert!(said(talk, &alpaca).starts_with("row 8 of x.jsonl: template alpaca cannot take this row"));
    assert!(said(pair(3, "a", "b", 0), &alpaca).starts_with("row 4 of x.jsonl: is no instruction"));
}

#[test]
fn a_data_set_is_known_by_every_token_and_label() {
    let base = testing::token_rows(5, 60);
    let mut other = base.clone();
    other.rows[3].row.ids[1] += 1;
    assert_ne!(base.fingerprint(), other.fingerprint());
    let mut other = base.clone();
    let Label::Tokens(labels) = &mut other.rows[4].label else { panic!() };
    *labels.last_mut().unwrap() = -100;
    assert_ne!(base.fingerprint(), other.fingerprint());
    assert_eq!(base.fingerprint(), testing::token_rows(5, 60).fingerprint());
}

/// The benchmarks' prompts and the template for rows of one's own are one project's texts, kept in two crates that
/// do not know each other.
#[test]
fn both_homes_of_the_llm_adapters_texts_are_equal() {
    use sibo_tasks::prompt::llm_adapters;
    let m = made("llama", None);
    let template = Template::choose("llm-adapters", &m.tokenizer, 0).unwrap();
    let rows =
        [("Which is odd, 3 or 4?", ""), ("Add.\n\tNow {{ so }}.", "1 2\n3  "), ("  a < b & c ", "é\u{a0}")];
    for (instruction, input) in rows {
        for (purpose, expected) in [
            (Purpose::Training, llm_adapters::training(instruction, input)),
            (Purpose::Evaluation, llm_adapters::evaluation(instruction, input)),
        ] {
            let row = Sample::Instruction {
                instruction: instruction.into(),
                input: input.into(),
                output: "7".into(),
            };
            let got = template.render(&row, purpose).unwrap();
            assert_eq!((got.prompt, got.joint_tokens), (expected, true), "{purpose:?}");
        }
    }
    assert_ne!(llm_adapters::training("a", ""), llm_adapters::evaluation("a", ""));
}
