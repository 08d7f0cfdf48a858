//! Chat templates against what transformers' `apply_chat_template` gave, and the built-in texts.

use std::path::PathBuf;

use super::*;

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn load(name: &str) -> Tokenizer {
    Tokenizer::from_folder(&data(name)).expect("the fixture loads")
}

fn instruction(instruction: &str, input: &str, output: &str) -> Sample {
    Sample::Instruction { instruction: instruction.into(), input: input.into(), output: output.into() }
}

fn render(template: &str, folder: &str, sample: &Sample) -> Result<Rendered, TextError> {
    Template::choose(template, &load(folder), 0)?.render(sample, Purpose::Training)
}

#[test]
fn chat_templates_equal_transformers_in_text_and_tokens() {
    let text = std::fs::read_to_string(data("expected.json")).expect("the fixture");
    let expected: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let mut compared = 0;
    for folder in ["llama", "chatml"] {
        let tokenizer = load(folder);
        for case in expected[folder]["chats"].as_array().expect("cases") {
            let name = case["template"].as_str();
            let template = ChatTemplate::of_model(&tokenizer, name, 0).expect("compiles");
            let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).expect("messages");
            let tools = Some(&case["tools"]).filter(|tools| !tools.is_null());
            let ask = case["add_generation_prompt"].as_bool().expect("a flag");
            let got = template.render(&messages, tools, ask);
            if let Some(error) = case["error"].as_str() {
                assert!(got.expect_err("it raises").to_string().contains(error), "{case}");
                continue;
            }
            let got = got.expect("renders");
            assert_eq!(got, case["text"], "{folder}: {case}");
            let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).expect("ids");
            assert_eq!(tokenizer.encode_bare(&got).expect("encodes"), ids, "{folder}: {case}");
            compared += 1;
        }
    }
    assert_eq!(compared, 26, "all recorded cases were compared");
}

#[test]
fn alpaca_has_its_long_and_its_short_text() {
    let long = render("alpaca", "llama", &instruction("Add.", "17 and 25 {{ x }}", "42")).expect("renders");
    assert_eq!(
        long.prompt,
        "Below is an instruction that describes a task, paired with an input that provides further context. \
         Write a response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n\
         ### Input:\n17 and 25 {{ x }}\n\n### Response:\n"
    );
    assert_eq!(long.completion, "42");
    let short = render("alpaca", "llama", &instruction("Add <17> & 25.", " ", "42")).expect("renders");
    assert_eq!(
        short.prompt,
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n\
         ### Instruction:\nAdd <17> & 25.\n\n### Response:\n"
    );
}

#[test]
fn only_llm_adapters_renders_training_and_evaluation_apart() {
    let tokenizer = load("llama");
    for (name, _) in BUILT_IN {
        let template = Template::choose(name, &tokenizer, 0).expect("built in");
        for input in ["", "ctx"] {
            let sample = instruction("Do it.", input, "yes");
            let [train, eval] = [Purpose::Training, Purpose::Evaluation]
                .map(|p| template.render(&sample, p).expect("renders").prompt);
            assert_eq!(train == eval, name != "llm-adapters", "{name}");
        }
    }
    let sample = instruction("I", "", "o");
    let eval = Template::choose("llm-adapters", &tokenizer, 0)
        .expect("built in")
        .render(&sample, Purpose::Evaluation)
        .expect("renders");
    let tail = "the request. \n\n                ### Instruction:\n                I\n\n                ### Response:\n                ";
    assert!(eval.prompt.ends_with(tail), "{:?}", eval.prompt);
}

#[test]
fn a_chat_row_splits_where_the_answer_begins() {
    let row = render("chat", "llama", &instruction("Add.", "17, 25", "42")).expect("renders");
    assert_eq!(
        (row.prompt.as_str(), row.completion.as_str()),
        ("<s>[INST] Add.\n\n17, 25 [/INST]", " 42 </s>")
    );
    assert_eq!(row.specials, Specials::InText);
    let asked = render("chat", "llama", &instruction("Add.", "17, 25", "")).expect("renders");
    assert_eq!((asked.prompt, asked.completion), (row.prompt, String::new()));
}

#[test]
fn a_template_whose_prompt_is_no_beginning_is_refused() {
    let said = render("chat:tool_use", "chatml", &instruction("Add.", "", "42"))
        .expect_err("another prompt")
        .to_string();
    assert!(
        said.contains("template tool_use cannot take this row") && said.contains("different prompts"),
        "{said}"
    );
}

#[test]
fn a_conversation_in_an_instruction_template_is_refused_unless_it_is_one_question() {
    let one = vec![Message::new("user", "Q"), Message::new("assistant", "A")];
    assert_eq!(render("plain", "llama", &Sample::Chat(one.clone())).expect("renders").prompt, "Q\n");
    let many = [one.clone(), one].concat();
    let said = render("alpaca", "llama", &Sample::Chat(many)).expect_err("two questions").to_string();
    assert!(
        said.contains("[user, assistant, user, assistant]") && said.contains("template = \"chat\""),
        "{said}"
    );
}

#[test]
fn unknown_names_and_missing_templates_get_a_sentence() {
    let said =
        |name: &str, folder: &str| Template::choose(name, &load(folder), 0).expect_err("no such").to_string();
    assert!(said("alpacca", "llama").ends_with("Did you mean `alpaca`?"), "{}", said("alpacca", "llama"));
    assert!(said("chat", "bert").contains("the model has no chat template"));
    assert!(said("chat:rag", "chatml").contains("it has: default, tool_use"));
    assert!(said("/nowhere/t.toml", "llama").contains("t.toml: cannot be read"));
}

#[test]
fn files_of_ones_own_and_files_of_their_own() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(
        at("t.toml"),
        "with_input = \"{{ input }}>\"\nwithout_input = \">\"\ncompletion = \"{{ output }}\"\nbos = 1\n",
    )
    .expect("writes");
    let said =
        render(&at("t.toml"), "llama", &instruction("i", "x", "y")).expect_err("an unknown key").to_string();
    assert!(said.contains("unknown field `bos`"), "{said}");
    std::fs::write(at("bad.jinja"), "ok\n{% if %}").expect("writes");
    let said = render(&at("bad.jinja"), "llama", &instruction("i", "x", "y"))
        .expect_err("a syntax error")
        .to_string();
    assert!(said.contains("bad.jinja") && said.contains("(line 2)"), "{said}");
    std::fs::copy(data("chatml").join("tokenizer.json"), at("tokenizer.json")).expect("copies");
    std::fs::write(at("chat_template.jinja"), "{{ messages[0].content }}|").expect("writes");
    let tokenizer = Tokenizer::from_folder(folder.path()).expect("loads");
    let template = Template::choose("chat", &tokenizer, 0).expect("chat_template.jinja counts");
    let text = template.render(&instruction("hi", "", ""), Purpose::Evaluation).expect("renders").prompt;
    assert_eq!(text, "hi|");
    assert_eq!(template.file(), ("chat_template.jinja", "{{ messages[0].content }}|"));
}
