//! Against what transformers did with the same folders (`tests/data/expected.json`).

use std::path::PathBuf;

use serde_json::Value;

use super::*;

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn expected() -> Value {
    let text = std::fs::read_to_string(data("expected.json")).expect("the fixture is committed");
    serde_json::from_str(&text).expect("the fixture is JSON")
}

fn load(name: &str) -> Tokenizer {
    Tokenizer::from_folder(&data(name)).expect("the fixture loads")
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("a list of ids")
}

const FOLDERS: [&str; 4] = ["bert", "roberta", "llama", "chatml"];

#[test]
fn single_texts_equal_transformers() {
    let expected = expected();
    for folder in FOLDERS {
        let tokenizer = load(folder);
        for case in expected[folder]["encode"].as_array().expect("cases") {
            let text = case["text"].as_str().expect("a text");
            let whole = tokenizer.encode(text, None).expect("encodes");
            assert_eq!(whole.ids, ids(&case["ids"]), "{folder}: {text:?}");
            assert_eq!(
                tokenizer.encode_bare(text).expect("encodes"),
                ids(&case["bare"]),
                "{folder}: {text:?}"
            );
            let cut = tokenizer.encode(text, Some(5)).expect("encodes");
            assert_eq!(cut.ids, ids(&case["cut5"]), "{folder}: {text:?}");
            assert_eq!(cut.dropped, whole.ids.len().saturating_sub(5), "{folder}: {text:?}");
            assert_eq!(tokenizer.decode(&whole.ids).expect("decodes"), case["decoded"], "{folder}: {text:?}");
        }
    }
}

#[test]
fn pairs_equal_transformers_at_every_limit() {
    let expected = expected();
    for folder in FOLDERS {
        let tokenizer = load(folder);
        for case in expected[folder]["pairs"].as_array().expect("cases") {
            let text = |key: &str| case[key].as_str().expect("a text").to_owned();
            let limit = case["limit"].as_u64().map(|n| n as usize);
            let got = tokenizer.encode_pair(&text("first"), &text("second"), limit).expect("encodes");
            assert_eq!(got.ids, ids(&case["ids"]), "{folder}: {case}");
            assert_eq!(got.type_ids, ids(&case["types"]), "{folder}: {case}");
        }
    }
}

#[test]
fn padding_and_truncation_of_the_file_are_cleared() {
    let long = "the crowd sings along and the man plays the guitar on the stage";
    assert!(load("bert").encode(long, None).expect("encodes").ids.len() > 7);
    assert_eq!(load("bert").encode("the", None).expect("encodes").ids.len(), 3);
}

#[test]
fn special_tokens_come_from_whichever_file_names_them() {
    let texts = |name: &str| {
        let special = load(name).special().clone();
        [special.bos, special.eos, special.pad, special.mask].map(|t| t.map(|t| (t.text, t.id)))
    };
    let token = |text: &str, id| Some((text.to_owned(), id));
    assert_eq!(texts("bert"), [None, None, token("[PAD]", 0), token("[MASK]", 4)]);
    assert_eq!(texts("roberta"), [token("<s>", 0), token("</s>", 2), token("<pad>", 1), token("<mask>", 4)]);
    assert_eq!(texts("llama"), [token("<s>", 1), token("</s>", 2), None, None]);
    assert_eq!(load("chatml").stop_ids(), [2, 0], "the tokenizer's EOS, then the model's");
    assert_eq!(load("llama").model_max_length(), None, "1e30 is no limit");
    assert_eq!(load("bert").model_max_length(), Some(512));
}

#[test]
fn a_prompt_gets_bos_once_and_never_eos() {
    let llama = load("llama");
    let once = llama.encode_prompt("Who?").expect("encodes");
    assert_eq!(once[0], 1);
    let written = llama.encode_prompt("<s>Who?").expect("encodes");
    assert_eq!(written.iter().filter(|&&id| id == 1).count(), 1);
    assert_eq!(
        load("roberta").encode_prompt("Who?").expect("encodes").last(),
        load("roberta").encode_bare("Who?").expect("encodes").last()
    );
    assert_eq!(load("chatml").prefix_ids(), [0u32; 0]);
}

#[test]
fn a_flag_that_contradicts_the_post_processor_is_told() {
    let folder = copy_of("llama");
    let path = folder.path().join("tokenizer_config.json");
    let text = std::fs::read_to_string(&path)
        .expect("a copy")
        .replace("\"add_eos_token\": false", "\"add_eos_token\": true");
    std::fs::write(&path, text).expect("writes");
    let notes = Tokenizer::from_folder(folder.path()).expect("loads").notes().to_vec();
    assert_eq!(notes.len(), 1);
    assert!(
        notes[0].contains("add_eos_token = true") && notes[0].contains("does not add \"</s>\""),
        "{}",
        notes[0]
    );
}

#[test]
fn a_tokenizer_for_another_vocabulary_is_refused_by_token_and_size() {
    let bert = load("bert");
    let size = bert.vocabulary_size();
    bert.check_vocabulary(size).expect("fits exactly");
    bert.check_vocabulary(size + 7).expect("a padded vocabulary is normal");
    let said = bert.check_vocabulary(size - 1).expect_err("one row is missing").to_string();
    assert!(said.starts_with("wrong tokenizer for the vocabulary: token"), "{said}");
    assert!(
        said.contains(&format!("has id {}", size - 1)) && said.contains(&format!("ids 0 to {}", size - 2)),
        "{said}"
    );
}

#[test]
fn a_limit_below_the_special_tokens_is_refused() {
    let said = load("bert").encode_pair("a", "b", Some(3)).expect_err("no room").to_string();
    assert!(said.contains("maximum length of 3") && said.contains("4 is the least"), "{said}");
}

#[test]
fn vocab_txt_alone_gives_the_same_ids() {
    let folder = copy_of("bert");
    std::fs::remove_file(folder.path().join("tokenizer.json")).expect("a copy");
    let (from_txt, from_json) = (Tokenizer::from_folder(folder.path()).expect("loads"), load("bert"));
    for text in ["The new constitution, herald!", "[MASK] plays the GUITAR — café", ""] {
        assert_eq!(
            from_txt.encode_pair(text, "same", Some(11)).expect("ok"),
            from_json.encode_pair(text, "same", Some(11)).expect("ok")
        );
    }
    assert_eq!(
        from_txt.decode(&[2, 112, 84, 132, 3]).expect("ok"),
        from_json.decode(&[2, 112, 84, 132, 3]).expect("ok")
    );
}

#[test]
fn a_folder_without_tokenizer_json_says_how_to_convert() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let said = |folder: &Path| Tokenizer::from_folder(folder).expect_err("nothing to read").to_string();
    assert!(said(folder.path()).contains("Copy tokenizer.json"));
    std::fs::write(folder.path().join("tokenizer.model"), "x").expect("writes");
    assert!(said(folder.path()).contains("tokenizer.model is there, which is not read here: python3 -c"));
    std::fs::write(folder.path().join("tokenizer.json"), "{\"version\": \"1.0\",").expect("writes");
    assert!(said(folder.path()).contains("tokenizer.json: "));
}

/// A folder of the fixtures, to be spoilt.
fn copy_of(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for entry in std::fs::read_dir(data(name)).expect("the fixture") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, folder.path().join(path.file_name().expect("a name"))).expect("copies");
    }
    folder
}
