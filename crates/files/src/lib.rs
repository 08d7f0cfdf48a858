//! Files: written whole or not at all, and `safetensors` read without trusting a byte of them.
//!
//! Everything that `sibo` keeps (adapters, checkpoints, reports, results) goes through
//! [`atomic`]; every tensor that it reads comes through [`tensors`].

pub mod atomic;
mod hold;
pub mod json;
mod space;
pub mod tensors;

pub use atomic::{recover, write, write_all_or_nothing, write_by};
pub use hold::{Held, hold};
pub use space::free_bytes;
pub use tensors::{
    Planned, Tensor, TensorFile, Type, Values, write_planned, write_tensors, write_tensors_to,
};

/// What can be wrong with a file; each variant says which file and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// The file or folder.
        path: String,
        /// What was tried, as a verb.
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A folder that another process works in.
    #[error(
        "{path}: another process is at work in this folder; wait until it has ended, or stop it, or give another folder"
    )]
    Held {
        /// The folder.
        path: String,
    },
    /// Not the JSON that was expected.
    #[error("{path}: not valid JSON at line {line}, column {column}: {reason}")]
    Json {
        /// The file.
        path: String,
        /// 1-based line.
        line: usize,
        /// 1-based column.
        column: usize,
        /// The parser's words.
        reason: String,
    },
    /// A safetensors file whose header cannot be believed.
    #[error("{path}: not a whole safetensors file: {reason}. Fetch or save it again.")]
    Header {
        /// The file.
        path: String,
        /// What does not hold.
        reason: String,
    },
    /// A tensor type that no loader here reads.
    #[error(
        "{path}: tensor `{name}` is stored as {dtype}; supported are F32, F16, BF16 and I8 with its `.scale`"
    )]
    Dtype {
        /// The file.
        path: String,
        /// The tensor.
        name: String,
        /// Its type as the file names it.
        dtype: String,
    },
    /// A tensor that should be there and is not.
    #[error("{path}: tensor `{name}` is missing")]
    Missing {
        /// The file.
        path: String,
        /// The tensor.
        name: String,
    },
}

impl Error {
    /// An I/O failure at `path` while trying to `action`.
    pub fn io(path: &std::path::Path, action: &'static str, source: std::io::Error) -> Self {
        Error::Io { path: path.display().to_string(), action, source }
    }
}
