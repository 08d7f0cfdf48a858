//! One tokenizer per model folder: `tokenizer.json` through the `tokenizers` crate, and the facts beside it.
//!
//! Padding and truncation stored in the file are cleared: rows are packed without padding here, and
//! a text is cut where its caller says. What is put around a text (BOS, EOS, `[CLS]`, `[SEP]`) is
//! what the file's own post-processor puts there, and nothing is put there twice.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tokenizers::utils::truncation::{TruncationParams, TruncationStrategy, truncate_encodings};
use tokenizers::{Encoding, PostProcessor, Token, TruncationDirection};

use crate::special::{FolderFacts, SpecialToken, SpecialTokens};
use crate::{TextError, vocab_txt};

/// A text or a pair of texts as the model's input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids, special tokens included; one per token.
    pub ids: Vec<u32>,
    /// Which sentence a token belongs to, as the post-processor says; one per token.
    pub type_ids: Vec<u32>,
    /// Tokens that the length limit cut away.
    pub dropped: usize,
}

/// A model's tokenizer with its special tokens.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    folder: PathBuf,
    special: SpecialTokens,
    stop_ids: Vec<u32>,
    model_max_length: Option<usize>,
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    notes: Vec<String>,
    fingerprint: String,
}

impl Tokenizer {
    /// Read the tokenizer of a model folder: `tokenizer.json`, or BERT's `vocab.txt`.
    ///
    /// # Errors
    /// No tokenizer in a form that can be read (with how to convert it), or a broken file.
    pub fn from_folder(folder: &Path) -> Result<Self, TextError> {
        let facts = FolderFacts::read(folder)?;
        let json = folder.join("tokenizer.json");
        let vocab = folder.join("vocab.txt");
        let (inner, source) = if json.is_file() {
            let bytes = std::fs::read(&json).map_err(|e| TextError::io(&json, e))?;
            let inner = tokenizers::Tokenizer::from_bytes(&bytes).map_err(|e| TextError::bad(&json, e))?;
            (inner, bytes)
        } else if vocab.is_file() {
            let inner = vocab_txt::load(&vocab, &facts.config)?;
            (inner, std::fs::read(&vocab).map_err(|e| TextError::io(&vocab, e))?)
        } else {
            return Err(TextError::NoTokenizer { folder: folder.to_owned(), hint: conversion_hint(folder) });
        };
        Self::build(inner, folder, &facts, &source)
    }

    fn build(
        mut inner: tokenizers::Tokenizer,
        folder: &Path,
        facts: &FolderFacts,
        source: &[u8],
    ) -> Result<Self, TextError> {
        inner.with_padding(None);
        inner.with_truncation(None).map_err(failed)?;
        let (prefix, suffix) = around(&inner)?;
        let mut notes = Vec::new();
        let special = facts.tokens(|t| inner.token_to_id(t), |id| inner.id_to_token(id), &mut notes);
        note_flag(facts, "add_bos_token", special.bos.as_ref(), &prefix, &mut notes);
        note_flag(facts, "add_eos_token", special.eos.as_ref(), &suffix, &mut notes);
        let mut stop_ids: Vec<u32> = special.eos.iter().map(|t| t.id).collect();
        for id in facts.model_ids("eos_token_id") {
            if !stop_ids.contains(&id) {
                stop_ids.push(id);
            }
        }
        Ok(Tokenizer {
            folder: folder.to_owned(),
            model_max_length: facts.model_max_length(),
            fingerprint: Sha256::digest(source).iter().map(|byte| format!("{byte:02x}")).collect(),
            inner,
            special,
            stop_ids,
            prefix,
            suffix,
            notes,
        })
    }

    /// Encode one text with the post-processor's special tokens, cut on the right to `limit` tokens.
    ///
    /// # Errors
    /// A limit that leaves no room beside the special tokens.
    pub fn encode(&self, text: &str, limit: Option<usize>) -> Result<Encoded, TextError> {
        self.encode_with_specials(self.plain(text)?, None, limit)
    }

    /// Encode two texts as one input; the longer one is cut first, as transformers' `longest_first` does.
    ///
    /// # Errors
    /// A limit that leaves no room beside the special tokens.
    pub fn encode_pair(&self, first: &str, second: &str, limit: Option<usize>) -> Result<Encoded, TextError> {
        let mut second = self.plain(second)?;
        // Without a post-processor nothing else says that these tokens are of the second text.
        second.set_type_ids(vec![1; second.len()]);
        self.encode_with_specials(self.plain(first)?, Some(second), limit)
    }

    /// Token ids of a text with no special token around it. Special tokens *written in* the text are recognised.
    ///
    /// # Errors
    /// The tokenizer's own failure, such as a missing unknown token.
    pub fn encode_bare(&self, text: &str) -> Result<Vec<u32>, TextError> {
        Ok(self.plain(text)?.get_ids().to_vec())
    }

    /// Token ids of the beginning of a text that a causal model goes on with: what the
    /// post-processor puts before a text (BOS, if anything), never what it puts after; and no second
    /// BOS where the text itself begins with one.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_bare`].
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let ids = self.encode_bare(text)?;
        if ids.starts_with(&self.prefix) {
            return Ok(ids);
        }
        Ok([self.prefix.as_slice(), &ids].concat())
    }

    fn plain(&self, text: &str) -> Result<Encoding, TextError> {
        self.inner.encode_fast(text, false).map_err(failed)
    }

    fn encode_with_specials(
        &self,
        mut first: Encoding,
        mut second: Option<Encoding>,
        limit: Option<usize>,
    ) -> Result<Encoded, TextError> {
        let special = self.inner.get_post_processor().map_or(0, |p| p.added_tokens(second.is_some()));
        let before = first.len() + second.as_ref().map_or(0, Encoding::len);
        if let Some(limit) = limit {
            if limit <= special {
                return Err(TextError::NoRoom { limit, special });
            }
            let params = TruncationParams {
                max_length: limit - special,
                strategy: TruncationStrategy::LongestFirst,
                stride: 0,
                direction: TruncationDirection::Right,
            };
            (first, second) = truncate_encodings(first, second, &params).map_err(failed)?;
        }
        let kept = first.len() + second.as_ref().map_or(0, Encoding::len);
        let whole = self.inner.post_process(first, second, true).map_err(failed)?;
        Ok(Encoded {
            ids: whole.get_ids().to_vec(),
            type_ids: whole.get_type_ids().to_vec(),
            dropped: before - kept,
        })
    }

    /// Text of token ids, special tokens left out.
    ///
    /// # Errors
    /// The decoder's own failure.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TextError> {
        self.inner.decode(ids, true).map_err(failed)
    }

    /// Text of token ids, special tokens written out.
    ///
    /// # Errors
    /// The decoder's own failure.
    pub fn decode_with_specials(&self, ids: &[u32]) -> Result<String, TextError> {
        self.inner.decode(ids, false).map_err(failed)
    }

    /// Check that the model has an embedding row for every id that this tokenizer can produce.
    /// Fewer tokens than rows is normal (vocabularies are padded).
    ///
    /// # Errors
    /// [`TextError::VocabularyTooSmall`] with the token of the largest id.
    pub fn check_vocabulary(&self, rows: usize) -> Result<(), TextError> {
        let largest = self.inner.get_vocab(true).into_iter().max_by_key(|(_, id)| *id);
        let around = self.prefix.iter().chain(&self.suffix).copied().max();
        let around = around.map(|id| (self.token(id).unwrap_or_else(|| "of the post-processor".into()), id));
        match largest.into_iter().chain(around).max_by_key(|(_, id)| *id) {
            Some((token, id)) if id as usize >= rows => {
                Err(TextError::VocabularyTooSmall { token, id, rows })
            }
            _ => Ok(()),
        }
    }

    /// The text of one token, as stored in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token, as stored in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Tokens in the vocabulary, added ones included.
    pub fn vocabulary_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The special tokens that the folder names.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// The id that ends a training row, if the model has one.
    pub fn eos_id(&self) -> Option<u32> {
        self.special.eos.as_ref().map(|token| token.id)
    }

    /// The padding id, if the model has one. Often equal to [`Tokenizer::eos_id`].
    pub fn pad_id(&self) -> Option<u32> {
        self.special.pad.as_ref().map(|token| token.id)
    }

    /// The ids at which generation stops: the tokenizer's EOS, then those of `generation_config.json`
    /// (or, without it, `config.json`).
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    /// `model_max_length` of `tokenizer_config.json`, where it is a real limit.
    pub fn model_max_length(&self) -> Option<usize> {
        self.model_max_length
    }

    /// Ids that the post-processor puts before a single text.
    pub fn prefix_ids(&self) -> &[u32] {
        &self.prefix
    }

    /// Ids that the post-processor puts after a single text.
    pub fn suffix_ids(&self) -> &[u32] {
        &self.suffix
    }

    /// Sentences worth telling a person once: contradictions between the folder's files.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// sha256 of the tokenizer's file, to tell whether two runs read text alike.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The folder that the tokenizer came from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn failed(error: tokenizers::Error) -> TextError {
    TextError::Tokenizer(error.to_string())
}

/// What the post-processor puts before and after one text, found by passing a marked token through it.
fn around(inner: &tokenizers::Tokenizer) -> Result<(Vec<u32>, Vec<u32>), TextError> {
    const MARK: u32 = u32::MAX;
    let marked = Encoding::from_tokens(vec![Token::new(MARK, "a".to_owned(), (0, 1))], 0);
    let whole = inner.post_process(marked, None, true).map_err(failed)?;
    let ids = whole.get_ids();
    let at = ids.iter().position(|&id| id == MARK).unwrap_or(ids.len());
    Ok((ids[..at].to_vec(), ids.get(at + 1..).unwrap_or_default().to_vec()))
}

/// transformers' slow tokenizers obey `add_bos_token`; here the post-processor decides, and a
/// contradiction is told.
fn note_flag(
    facts: &FolderFacts,
    key: &str,
    token: Option<&SpecialToken>,
    around: &[u32],
    notes: &mut Vec<String>,
) {
    let (Some(wanted), Some(token)) = (facts.flag(key), token) else { return };
    let added = around.contains(&token.id);
    if wanted != added {
        let does = if added { "adds" } else { "does not add" };
        notes.push(format!(
            "tokenizer_config.json says {key} = {wanted}, but the post-processor of tokenizer.json {does} {:?}: the post-processor is followed",
            token.text
        ));
    }
}

/// What lies in the folder instead of a tokenizer, and how to convert it.
fn conversion_hint(folder: &Path) -> String {
    let has = |name: &str| folder.join(name).is_file();
    let found = ["tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "merges.txt"]
        .into_iter()
        .find(|name| has(name));
    let convert = "python3 -c \"from transformers import AutoTokenizer as T; T.from_pretrained('FOLDER').save_pretrained('FOLDER')\" \
                   writes one (it needs the Python packages transformers and sentencepiece)";
    match found {
        Some(name) => format!("{name} is there, which is not read here: {convert}."),
        None => "Copy tokenizer.json and tokenizer_config.json from where the model came from.".to_owned(),
    }
}

#[cfg(test)]
#[path = "tokenizer_tests.rs"]
mod tests;
