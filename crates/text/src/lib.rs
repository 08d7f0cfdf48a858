//! Text in and out of a model, and names to folders.
//!
//! - [`Tokenizer`]: `tokenizer.json` and the files beside it; [`StreamDecoder`], [`StopText`] for text while it comes.
//! - [`Template`]: the one render path of training, evaluation and chat; [`encode_example`] and [`encode_prompt`].
//! - [`resolve`]: a name given by a person to a folder below `./models` or `./data`, a path, or a hub repository;
//!   [`hub`]: the hub's cache and downloads.
//!
//! This crate knows no tensors and no tasks, and prints nothing.

mod calendar;
mod chat;
mod error;
mod example;
pub mod hub;
mod instruction;
mod jinja;
pub mod resolve;
mod special;
mod stream;
mod template;
mod tokenizer;
mod vocab_txt;

pub use chat::{ChatTemplate, Message};
pub use error::TextError;
pub use example::{
    Cut, EncodeOptions, EncodeStats, IGNORE, TokenExample, encode_continuation, encode_example,
    encode_prompt, shorten_prompt,
};
pub use instruction::{BUILT_IN, InstructionTemplate, Purpose};
pub use special::{SpecialToken, SpecialTokens};
pub use stream::{StopText, StreamDecoder};
pub use template::{Rendered, Sample, Specials, Template};
pub use tokenizer::{Encoded, Tokenizer};
