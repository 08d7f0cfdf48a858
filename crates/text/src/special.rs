//! Special tokens and limits of a model folder: which token begins, ends, pads, and which ids stop generation.
//!
//! Read from `tokenizer_config.json`, then `special_tokens_map.json`; ids that only a model's
//! `generation_config.json` or `config.json` names are the last resort.

use std::path::Path;

use serde_json::Value;

use crate::TextError;

/// One special token: its text and its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecialToken {
    /// The text, such as `</s>`.
    pub text: String,
    /// The id in the tokenizer's vocabulary.
    pub id: u32,
}

/// The special tokens that a model folder names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begin of sequence.
    pub bos: Option<SpecialToken>,
    /// End of sequence.
    pub eos: Option<SpecialToken>,
    /// Padding. Often the same token as `eos`: never mask by this id.
    pub pad: Option<SpecialToken>,
    /// Unknown token.
    pub unk: Option<SpecialToken>,
    /// First token of an encoder's input.
    pub cls: Option<SpecialToken>,
    /// Separator of an encoder's input.
    pub sep: Option<SpecialToken>,
    /// The masked token of an encoder.
    pub mask: Option<SpecialToken>,
}

/// What the JSON files beside `tokenizer.json` say, as far as the tokenizer needs it.
#[derive(Debug, Default)]
pub(crate) struct FolderFacts {
    /// `tokenizer_config.json`, or null.
    pub(crate) config: Value,
    special_map: Value,
    generation: Value,
    model: Value,
}

/// Above this, `model_max_length` is transformers' way of saying "no limit" (it writes 1e30).
const NO_LIMIT: f64 = 1e9;

impl FolderFacts {
    /// Read the files; one that is absent counts as empty, one that is broken is an error.
    pub(crate) fn read(folder: &Path) -> Result<Self, TextError> {
        Ok(FolderFacts {
            config: read_json(&folder.join("tokenizer_config.json"))?,
            special_map: read_json(&folder.join("special_tokens_map.json"))?,
            generation: read_json(&folder.join("generation_config.json"))?,
            model: read_json(&folder.join("config.json"))?,
        })
    }

    /// The text of `bos_token` and its kin, a string or an object with `content`.
    fn named(&self, key: &str) -> Option<String> {
        [&self.config, &self.special_map]
            .into_iter()
            .find_map(|file| match &file[key] {
                Value::String(text) => Some(text.clone()),
                Value::Object(object) => object.get("content")?.as_str().map(str::to_owned),
                _ => None,
            })
            .filter(|text| !text.is_empty())
    }

    /// The limit in tokens, when the file names a real one.
    pub(crate) fn model_max_length(&self) -> Option<usize> {
        let limit = self.config["model_max_length"].as_f64()?;
        (1.0..NO_LIMIT).contains(&limit).then_some(limit as usize)
    }

    /// A flag of `tokenizer_config.json`, when it is there.
    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        self.config[key].as_bool()
    }

    /// Look each named token up with `id_of`. A named token that the vocabulary lacks is left out
    /// and gets a note.
    pub(crate) fn tokens(
        &self,
        id_of: impl Fn(&str) -> Option<u32>,
        text_of: impl Fn(u32) -> Option<String>,
        notes: &mut Vec<String>,
    ) -> SpecialTokens {
        let mut get = |kind: &str| {
            let text = self.named(&format!("{kind}_token"))?;
            let id = id_of(&text);
            if id.is_none() {
                notes.push(format!(
                    "tokenizer_config.json names {text:?} as {kind}_token, but tokenizer.json has no such token: it is ignored"
                ));
            }
            Some(SpecialToken { id: id?, text })
        };
        let mut found = SpecialTokens {
            bos: get("bos"),
            eos: get("eos"),
            pad: get("pad"),
            unk: get("unk"),
            cls: get("cls"),
            sep: get("sep"),
            mask: get("mask"),
        };
        let by_id = |key: &str| {
            let id = self.model_ids(key).into_iter().next()?;
            text_of(id).map(|text| SpecialToken { text, id })
        };
        found.bos = found.bos.or_else(|| by_id("bos_token_id"));
        found.eos = found.eos.or_else(|| by_id("eos_token_id"));
        found.pad = found.pad.or_else(|| by_id("pad_token_id"));
        found
    }

    /// Ids under a key of `generation_config.json`, else of `config.json`: one number or a list.
    pub(crate) fn model_ids(&self, key: &str) -> Vec<u32> {
        let value = match &self.generation[key] {
            Value::Null => &self.model[key],
            value => value,
        };
        let one = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
        match value {
            Value::Array(list) => list.iter().filter_map(one).collect(),
            value => one(value).into_iter().collect(),
        }
    }
}

/// A JSON file, or null where there is none.
pub(crate) fn read_json(path: &Path) -> Result<Value, TextError> {
    match std::fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|e| TextError::bad(path, format!("broken JSON: {e}")))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(e) => Err(TextError::io(path, e)),
    }
}
