//! What is trainable: the methods, one file each; SIBO, one wrapper around all of them; and the
//! folders in which PEFT and `sibo` keep them.
//!
//! A method is a *branch* f with trainable parameters, joined to a frozen operation of the model.
//! SIBO changes only what the branch reads: `x~ = (1 - lambda) x + lambda h0`
//! (arXiv 2402.11896, equation 3; see [`branch`]). Nothing here knows a backbone: a model describes
//! itself by a [`ModelShape`], and [`Adapter::new`] places branches on it.
//!
//! Letters: T rows, D width of the residual stream, N out and K in features, R rank, M bottleneck.

pub mod adapter;
pub mod adapter_hub;
pub mod bottleneck;
pub mod branch;
pub mod config;
pub mod folder;
pub mod init;
pub mod lambda;
pub mod lora;
pub mod params;
mod settled;
pub mod shape;
pub mod sibo;
pub mod targets;

pub use adapter::{Adapter, At, Placed};
pub use branch::{Branch, BranchSaved, Call, DropRows, DropSource, See, Seen};
pub use config::{AdapterConfig, Bias, Method, TaskType};
pub use lambda::{Course, Dial, Lambda};
pub use params::{Param, ParamId, Params};
pub use shape::{ModelShape, Module, ModuleKind, Site};
pub use sibo::{H0, Placement, Sibo, Skip};

/// What can be wrong with an adapter, its configuration or its files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that cannot be read or written.
    #[error(transparent)]
    File(#[from] sibo_files::Error),
    /// A key of a configuration that has a wrong value.
    #[error("{place}: `{key}`: {reason}")]
    Key {
        /// File or recipe.
        place: String,
        /// The key.
        key: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A combination that no one can train.
    #[error("{0}")]
    Refused(String),
    /// Tensors of a file and parameters of the model that do not fit each other.
    #[error("{place}: the adapter does not fit this model and configuration:\n{report}")]
    Mismatch {
        /// The file.
        place: String,
        /// One line for each tensor, both sides.
        report: String,
    },
}

impl Error {
    /// A configuration error at `key` of `place`.
    pub fn key(place: &str, key: &str, reason: impl Into<String>) -> Self {
        Error::Key { place: place.into(), key: key.into(), reason: reason.into() }
    }
}
