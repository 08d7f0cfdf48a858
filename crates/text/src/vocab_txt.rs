//! BERT's `vocab.txt` (a token per line), for folders that have no `tokenizer.json`.

use std::path::Path;

use serde_json::Value;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, Tokenizer, decoders::wordpiece::WordPiece as Decoder};

use crate::TextError;

/// The tokens that BERT's special handling needs, in the order of BERT's own files.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// Build the tokenizer that transformers builds from `vocab.txt` and `tokenizer_config.json`:
/// lower-casing unless `do_lower_case` is false, accents stripped with it unless `strip_accents` says otherwise.
pub(crate) fn load(path: &Path, config: &Value) -> Result<Tokenizer, TextError> {
    let bad = |why: String| TextError::bad(path, why);
    let bytes = std::fs::read(path).map_err(|e| TextError::io(path, e))?;
    let vocab = WordPiece::read_bytes(&bytes).map_err(|e| bad(e.to_string()))?;
    let model = WordPiece::builder()
        .vocab(vocab)
        .unk_token("[UNK]".to_owned())
        .build()
        .map_err(|e| bad(e.to_string()))?;
    let mut tokenizer = Tokenizer::new(model);
    for token in SPECIAL {
        if tokenizer.token_to_id(token).is_none() {
            return Err(bad(format!("a BERT vocabulary has a line {token}, this one has none")));
        }
    }
    let id = |token: &str| tokenizer.token_to_id(token).unwrap_or_default();
    let around = BertProcessing::new(("[SEP]".to_owned(), id("[SEP]")), ("[CLS]".to_owned(), id("[CLS]")));
    let normalizer = BertNormalizer::new(
        true,
        config["tokenize_chinese_chars"].as_bool().unwrap_or(true),
        config["strip_accents"].as_bool(),
        config["do_lower_case"].as_bool().unwrap_or(true),
    );
    tokenizer.with_normalizer(Some(normalizer)).map_err(|e| bad(e.to_string()))?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_post_processor(Some(around));
    tokenizer.with_decoder(Some(Decoder::default()));
    let special = SPECIAL.map(|token| AddedToken::from(token, true));
    tokenizer.add_special_tokens(special).map_err(|e| bad(e.to_string()))?;
    Ok(tokenizer)
}
