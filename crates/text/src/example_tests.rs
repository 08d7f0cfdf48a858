//! Token equality of training and generation, and what the cutoff takes.

use super::*;
use crate::{Message, Purpose, Sample, Template};

fn load(name: &str) -> Tokenizer {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    Tokenizer::from_folder(&folder).expect("the fixture loads")
}

fn pair(prompt: &str, completion: &str) -> Rendered {
    Rendered {
        prompt: prompt.into(),
        completion: completion.into(),
        answers: vec![],
        specials: Specials::PostProcessor,
        joint_tokens: false,
    }
}

fn options(cutoff: usize, cut: Cut) -> EncodeOptions {
    EncodeOptions { cutoff, train_on_inputs: false, add_eos: true, cut }
}

const LONG: usize = 10_000;

#[test]
fn training_begins_with_the_tokens_that_generation_sees() {
    let rows = [
        ("Add 17 and 25.", "", "42"),
        ("Who wrote", "this text?", " Nobody did"),
        ("é", "", "\n\nyes"),
        ("Do", "", "  two"),
    ];
    for folder in ["llama", "chatml", "roberta"] {
        let tokenizer = load(folder);
        let mut templates = vec!["alpaca", "plain", "question-answer"];
        if folder != "roberta" {
            templates.push("chat");
        }
        for name in templates {
            let template = Template::choose(name, &tokenizer, 0).expect("exists");
            for (instruction, input, output) in rows {
                let sample = |output: &str| Sample::Instruction {
                    instruction: instruction.into(),
                    input: input.into(),
                    output: output.into(),
                };
                let trained = template.render(&sample(output), Purpose::Training).expect("renders");
                let row = encode_example(&tokenizer, &trained, &options(LONG, Cut::Middle)).expect("encodes");
                let asked = template.render(&sample(""), Purpose::Evaluation).expect("renders");
                let prompt = encode_prompt(&tokenizer, &asked).expect("encodes");
                assert_eq!(row.input_ids[..row.prompt_len], prompt, "{folder} {name}");
                assert!(row.labels[..row.prompt_len].iter().all(|&l| l == IGNORE));
                let learned: Vec<u32> = row.labels[row.prompt_len..].iter().map(|&l| l as u32).collect();
                assert_eq!(learned, row.input_ids[row.prompt_len..]);
                assert!(row.ends_in_eos, "{folder} {name}");
                let eos = tokenizer.eos_id().expect("has one");
                assert_eq!(
                    row.input_ids[row.prompt_len..].iter().filter(|&&id| id == eos).count(),
                    1,
                    "{folder} {name}"
                );
                let text = tokenizer.decode(&row.input_ids[row.prompt_len..]).expect("decodes");
                assert_eq!(text.trim(), output.trim(), "{folder} {name}");
            }
        }
    }
}

#[test]
fn a_chat_row_is_what_transformers_tokenises_up_to_the_last_eos() {
    let tokenizer = load("chatml");
    let template = Template::choose("chat", &tokenizer, 0).expect("exists");
    let turns = vec![Message::new("user", "Add 17 and 25."), Message::new("assistant", "It is 42.")];
    let row = template.render(&Sample::Chat(turns), Purpose::Training).expect("renders");
    let row = encode_example(&tokenizer, &row, &options(LONG, Cut::Middle)).expect("encodes");
    let expected = std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/expected.json"),
    )
    .expect("the fixture");
    let expected: serde_json::Value = serde_json::from_str(&expected).expect("JSON");
    let cases = expected["chatml"]["chats"].as_array().expect("cases");
    let case =
        cases.iter().find(|c| c["template"] == "default" && c["chat"] == "answered").expect("recorded");
    let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).expect("ids");
    // The line break after the last <|im_end|> is never generated, so it is not trained.
    assert_eq!(row.input_ids, ids[..ids.len() - 1]);
}

#[test]
fn a_bos_written_by_the_template_is_not_doubled() {
    let tokenizer = load("llama");
    for text in ["<s>Who?", "Who?"] {
        let row =
            encode_example(&tokenizer, &pair(text, " Nobody"), &options(LONG, Cut::Middle)).expect("encodes");
        assert_eq!(row.input_ids.iter().filter(|&&id| id == 1).count(), 1, "{text}");
    }
}

#[test]
fn the_prompt_gives_way_before_the_answer() {
    let tokenizer = load("llama");
    let rendered = pair("Below is an instruction that describes a task. Write a response:", " It is 42.");
    let whole = encode_example(&tokenizer, &rendered, &options(LONG, Cut::Middle)).expect("encodes");
    let answer = whole.input_ids[whole.prompt_len..].to_vec();
    let cutoff = whole.input_ids.len() - 5;
    for cut in [Cut::Middle, Cut::Left] {
        let row = encode_example(&tokenizer, &rendered, &options(cutoff, cut)).expect("encodes");
        assert_eq!(row.input_ids.len(), cutoff);
        assert_eq!(row.input_ids[row.prompt_len..], answer, "{cut:?}");
        assert_eq!((row.cut_prompt, row.cut_completion, row.ends_in_eos), (5, 0, true));
        assert_eq!(row.input_ids[0], 1, "{cut:?} keeps BOS");
        assert_eq!(
            row.input_ids[row.prompt_len - 3..row.prompt_len],
            whole.input_ids[whole.prompt_len - 3..whole.prompt_len]
        );
        let mut prompt = encode_prompt(&tokenizer, &rendered).expect("encodes");
        shorten_prompt(&tokenizer, &mut prompt, row.prompt_len, cut);
        assert_eq!(prompt, row.input_ids[..row.prompt_len], "generation cuts alike");
    }
    let right = encode_example(&tokenizer, &rendered, &options(cutoff, Cut::Right)).expect("encodes");
    assert_eq!(right.input_ids, whole.input_ids[..cutoff]);
    assert_eq!((right.cut_prompt, right.cut_completion, right.ends_in_eos), (0, 5, false));
}

#[test]
fn an_answer_longer_than_the_cutoff_keeps_a_quarter_for_the_prompt() {
    let tokenizer = load("llama");
    let rendered = pair(
        "What came into force after the new constitution?",
        " the second republic came into force on that day",
    );
    let row = encode_example(&tokenizer, &rendered, &options(13, Cut::Middle)).expect("encodes");
    assert_eq!((row.input_ids.len(), row.prompt_len, row.ends_in_eos), (13, 3, false));
    assert!(row.cut_completion > 0 && row.cut_prompt > 0);
    let mut stats = EncodeStats::default();
    stats.add(&row);
    assert_eq!((stats.learned, stats.longest, stats.without_eos), (10, 13, 1));
    let said = stats.warnings(13);
    assert!(
        said[0].starts_with("none of the 1 rows ends in EOS") && said[0].contains("cutoff of 13"),
        "{said:?}"
    );
    assert_eq!(said.len(), 3);
}

#[test]
fn every_token_is_learned_when_inputs_are_trained_and_in_running_text() {
    let tokenizer = load("llama");
    let all = EncodeOptions { train_on_inputs: true, ..options(LONG, Cut::Middle) };
    let row = encode_example(&tokenizer, &pair("Who?", " Nobody"), &all).expect("encodes");
    assert!(row.labels.iter().zip(&row.input_ids).all(|(&l, &id)| l == id as i32));
    let text = Template::choose("plain", &tokenizer, 0)
        .expect("built in")
        .render(&Sample::Text("the crowd sings".into()), Purpose::Training)
        .expect("renders");
    let row = encode_example(&tokenizer, &text, &options(LONG, Cut::Middle)).expect("encodes");
    // BOS is the prompt of running text: it is read, not predicted.
    assert_eq!((row.prompt_len, row.labels[0], row.input_ids[0]), (1, IGNORE, 1));
    assert!(row.labels[1..].iter().all(|&l| l != IGNORE));
}

#[test]
fn llm_adapters_masks_by_the_count_of_the_prompt() {
    let tokenizer = load("llama");
    let template = Template::choose("llm-adapters", &tokenizer, 0).expect("built in");
    let sample = Sample::Instruction {
        instruction: "Add 17 and 25.".into(),
        input: String::new(),
        output: "the answer is 42".into(),
    };
    let rendered = template.render(&sample, Purpose::Training).expect("renders");
    let row = encode_example(&tokenizer, &rendered, &options(LONG, Cut::Right)).expect("encodes");
    let joint = tokenizer.encode_prompt(&(rendered.prompt.clone() + &rendered.completion)).expect("encodes");
    assert_eq!(row.input_ids[..row.input_ids.len() - 1], joint);
    assert_eq!(row.prompt_len, tokenizer.encode_prompt(&rendered.prompt).expect("encodes").len());
}

#[test]
fn rows_without_an_answer_or_with_one_token_are_refused() {
    let tokenizer = load("chatml");
    let said = encode_example(&tokenizer, &pair("Who?", ""), &options(LONG, Cut::Middle))
        .expect_err("no answer")
        .to_string();
    assert!(said.contains("no answer"), "{said}");
    let no_eos = EncodeOptions { add_eos: false, ..options(LONG, Cut::Middle) };
    let said = encode_example(&tokenizer, &pair("", "a"), &no_eos).expect_err("one token").to_string();
    assert!(said.contains("1 token(s)"), "{said}");
}

#[test]
fn a_continuation_takes_the_blanks_at_the_end_of_its_context() {
    let tokenizer = load("chatml");
    let (context, rest) = encode_continuation(&tokenizer, "Who wrote this? ", "Nobody").expect("encodes");
    assert_eq!(context, tokenizer.encode_bare("Who wrote this?").expect("encodes"));
    assert_eq!(tokenizer.decode(&rest).expect("decodes"), " Nobody");
}

/// Every answer of the assistant is learned with the token that ends it, as if each were the last; what asks for it is not.
#[test]
fn a_conversation_teaches_each_of_its_answers() {
    let tokenizer = load("chatml");
    let template = Template::choose("chat", &tokenizer, 0).expect("exists");
    let said = [
        "Add 17 and 25.",
        "It is 42.",
        "And twice that?",
        "84, or so I think.",
        "Thanks",
        "You are welcome.",
    ];
    let turns: Vec<Message> = said
        .iter()
        .enumerate()
        .map(|(i, text)| Message::new(if i % 2 == 0 { "user" } else { "assistant" }, text))
        .collect();
    let encoded = |turns: &[Message], cutoff: usize| {
        let row = template.render(&Sample::Chat(turns.to_vec()), Purpose::Training).expect("renders");
        encode_example(&tokenizer, &row, &options(cutoff, Cut::Middle)).expect("encodes")
    };
    let whole = encoded(&turns, LONG);
    let learned = |row: &TokenExample| -> Vec<u32> {
        row.labels.iter().filter(|l| **l != IGNORE).map(|l| *l as u32).collect()
    };
    let mut apart = Vec::new();
    for end in [2, 4, 6] {
        let row = encoded(&turns[..end], LONG);
        apart.extend_from_slice(&row.input_ids[row.prompt_len..]);
        assert_eq!(learned(&row), apart, "{end} turns");
    }
    assert_eq!(learned(&whole), apart);
    for (id, label) in whole.input_ids.iter().zip(&whole.labels) {
        assert!(*label == IGNORE || *label == *id as i32);
    }
    // What a cut leaves keeps its label.
    let cut = encoded(&turns, whole.input_ids.len() - 3);
    assert_eq!(cut.cut_prompt, 3);
    let from = (whole.prompt_len - 3) / 2;
    let kept = [&whole.labels[..from], &whole.labels[from + 3..]].concat();
    assert_eq!(cut.labels, kept);
}
