//! What the tests of the binary share: the command, and small folders of models and rows.

// Each test file uses a part of it.
#![allow(dead_code)]

use assert_cmd::Command;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The binary, without the settings of whoever runs the tests, and offline.
pub(crate) fn sibo() -> Command {
    let mut command = Command::cargo_bin("sibo").expect("the binary is built before its tests");
    for name in ["SIBO_MODELS", "SIBO_DATA", "SIBO_ISA", "HF_TOKEN", "HF_ENDPOINT", "RAYON_NUM_THREADS"] {
        command.env_remove(name);
    }
    command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", "/nonexistent");
    command
}

/// The repository's tiny models and cases.
pub(crate) fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data")
}

/// Runs and gives stdout; the exit status must be 0.
pub(crate) fn succeeds(command: &mut Command) -> String {
    let out = command.output().expect("the binary starts");
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{:?}: {error}", out.status);
    String::from_utf8(out.stdout).expect("UTF-8")
}

/// Runs and gives stderr; the exit status must be `code` and all `parts` must be said, without a panic.
pub(crate) fn fails(command: &mut Command, code: i32, parts: &[&str]) -> String {
    let out = command.output().expect("the binary starts");
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(code), "{error}");
    assert!(!error.contains("panicked"), "{error}");
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
    error
}

/// A folder with a tiny model, a tokenizer of words, and rows; gone when dropped.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

/// Words that the tokenizer knows; every other word is unknown to it.
const WORDS: [&str; 40] = [
    "what",
    "is",
    "the",
    "sum",
    "of",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "and",
    "answer",
    "a",
    "river",
    "bridge",
    "town",
    "was",
    "built",
    "in",
    "red",
    "green",
    "blue",
    "it",
    "has",
    "name",
    ".",
    ",",
    "?",
    ":",
    "Instruction",
    "Response",
    "Below",
    "task",
    "Answer",
    "Question",
];

impl Place {
    /// A place with the stored model `name` below `models/`.
    pub(crate) fn with(name: &str) -> Self {
        let place = Place { dir: tempfile::tempdir().expect("a temporary folder") };
        place.model(name, name);
        place
    }

    /// The tiny encoder, RTE with a few rows, and a recipe for studies that learns a little.
    pub(crate) fn study() -> Self {
        let place = Place::with("bert-pooler");
        place.rte();
        place.write(
            "recipe.toml",
            "model = \"bert-pooler\"\ntask = \"rte\"\noutput_dir = \"runs/study\"\nseed = 5\n\n[adapter]\nr = 3\nlora_alpha = 5\n\
             target_modules = [\"query\", \"value\"]\n\n[training]\nlearning_rate = 0.01\nmax_steps = 6\neval_steps = 3\n\
             cutoff_len = 40\nper_device_train_batch_size = 3\ngradient_accumulation_steps = 1\ncompute = \"f32\"\n",
        );
        place
    }

    /// What a study found.
    pub(crate) fn results(&self, folder: &str) -> Value {
        let bytes = std::fs::read(self.join(folder).join("results.json")).expect("results");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file, with the folders above it.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        std::fs::create_dir_all(path.parent().expect("below the place")).expect("a folder");
        std::fs::write(&path, content).expect("a file");
        path
    }

    /// A copy of a stored model, with a tokenizer.
    pub(crate) fn model(&self, stored: &str, name: &str) {
        let encoder = ["bert", "roberta"].iter().any(|family| stored.starts_with(family));
        for entry in std::fs::read_dir(data().join("models").join(stored)).expect("a stored model") {
            let entry = entry.expect("an entry");
            let bytes = std::fs::read(entry.path()).expect("a file");
            self.write(&format!("models/{name}/{}", entry.file_name().to_string_lossy()), bytes);
        }
        self.write(&format!("models/{name}/tokenizer.json"), tokenizer(encoder).to_string());
        let config =
            json!({"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "pad_token": "[PAD]"});
        let config = if encoder { config } else { json!({"eos_token": "</s>", "unk_token": "[UNK]"}) };
        self.write(&format!("models/{name}/tokenizer_config.json"), config.to_string());
    }

    /// Changes a JSON file.
    pub(crate) fn edit(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let text = std::fs::read(self.join(name)).expect("a file");
        let mut value = serde_json::from_slice(&text).expect("JSON");
        change(&mut value);
        self.write(name, value.to_string());
    }

    /// A stored case's adapter, below `models/`.
    pub(crate) fn adapter(&self, case: &str) -> String {
        for entry in std::fs::read_dir(data().join("cases").join(case).join("adapter")).expect("an adapter") {
            let entry = entry.expect("an entry");
            let bytes = std::fs::read(entry.path()).expect("a file");
            self.write(&format!("models/{case}/{}", entry.file_name().to_string_lossy()), bytes);
        }
        case.into()
    }

    /// A stored case's rows of token ids without their labels, as `ids.json` here.
    pub(crate) fn ids(&self, case: &str) {
        self.write(
            "ids.json",
            std::fs::read(data().join("cases").join(case).join("ids.json")).expect("a file"),
        );
        self.edit("ids.json", |ids| {
            ids.as_object_mut().expect("an object").remove("labels");
        });
    }

    /// RTE with a few rows: GLUE's own layout.
    pub(crate) fn rte(&self) {
        let row = |i: usize| {
            let label = if i.is_multiple_of(2) { "entailment" } else { "not_entailment" };
            let (a, b) = (WORDS[i % 23], WORDS[(i * 7 + 3) % 29]);
            format!("{i}\tthe {a} of the {b} was built in a town .\tthe {b} is {a}\t{label}\n")
        };
        let head = "index\tsentence1\tsentence2\tlabel\n";
        let rows = |n: usize| head.to_string() + &(0..n).map(row).collect::<String>();
        self.write("data/glue/RTE/train.tsv", rows(33));
        self.write("data/glue/RTE/dev.tsv", rows(14));
    }

    /// QNLI with a few rows.
    pub(crate) fn qnli(&self) {
        let row = |i: usize| {
            let label = if i.is_multiple_of(3) { "entailment" } else { "not_entailment" };
            let (a, b) = (WORDS[(i * 5 + 1) % 23], WORDS[i % 29]);
            format!("{i}\twhat is the {a} ?\tit was the {b} of a river .\t{label}\n")
        };
        let rows = |n: usize| {
            "index\tquestion\tsentence\tlabel\n".to_string() + &(0..n).map(row).collect::<String>()
        };
        self.write("data/glue/QNLI/train.tsv", rows(29));
        self.write("data/glue/QNLI/dev.tsv", rows(12));
    }

    /// Instructions with answers, as JSON lines.
    pub(crate) fn instructions(&self) {
        let row = |i: usize| {
            let (a, b) = (WORDS[5 + i % 9], WORDS[5 + (i * 3) % 8]);
            json!({"instruction": format!("what is the sum of {a} and {b} ?"), "output": format!("the answer is {}", WORDS[5 + (i * 5) % 10])})
        };
        self.write("data/sums.jsonl", (0..30).map(|i| format!("{}\n", row(i))).collect::<String>());
    }

    /// The binary, in this place, with its models and data.
    pub(crate) fn sibo(&self, words: &[&str]) -> Command {
        let mut command = sibo();
        command.current_dir(self.path()).args(words);
        command
    }

    /// The names of everything directly below a folder of this place.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.join(folder)).expect("a folder");
        let mut names: Vec<String> =
            entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// A tokenizer of whole words, for encoders with `[CLS]` and `[SEP]`.
fn tokenizer(encoder: bool) -> Value {
    let special =
        if encoder { ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] } else { ["[PAD]", "[UNK]", "</s>", "<s>"] };
    let vocabulary: serde_json::Map<String, Value> =
        special.iter().chain(&WORDS).enumerate().map(|(id, word)| (word.to_string(), json!(id))).collect();
    let added: Vec<Value> = special
        .iter()
        .enumerate()
        .map(|(id, word)| {
            json!({"id": id, "content": word, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    let token = |name: &str, segment: u32| json!({"SpecialToken": {"id": name, "type_id": segment}});
    let text = |name: &str, segment: u32| json!({"Sequence": {"id": name, "type_id": segment}});
    let processor = json!({
        "type": "TemplateProcessing",
        "single": [token("[CLS]", 0), text("A", 0), token("[SEP]", 0)],
        "pair": [token("[CLS]", 0), text("A", 0), token("[SEP]", 0), text("B", 1), token("[SEP]", 1)],
        "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                           "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}},
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": if encoder { processor } else { Value::Null },
        "decoder": null, "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    })
}
