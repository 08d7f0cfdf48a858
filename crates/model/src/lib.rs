//! What is frozen: one transformer layer with sites, the backbones as data, loading and generation.
//!
//! ```text
//!           post-norm (BERT, RoBERTa)      pre-norm (LLaMA)            parallel (GPT-J)
//!
//!           x ──> attention ──> + ──> norm   x ──> norm ──> attention   x ──> norm ──> attention ──┐
//!           └──────────────────^             └────────────────────> +          └────> FFN ────────> +
//!           x ──> FFN ──> + ──> norm         x ──> norm ──> FFN     │   └──────────────────────────^
//!           └────────────^                   └─────────────────> +
//! ```
//!
//! Letters: T packed rows (the tokens of all sequences end to end), D width, F inner width of the FFN,
//! V vocabulary, L layers. No padding token exists anywhere.

mod adapted;
mod arch;
mod attach;
mod attention;
mod backbone;
mod base;
mod batch;
mod beam;
mod cache;
mod config;
mod count;
mod embedding;
mod ffn;
mod fingerprint;
mod generate;
mod head;
mod layer;
mod layout;
mod linear;
mod load;
mod model;
mod norm;
mod on_sum;
mod plan;
mod quantise;
mod random;
mod rope;
mod sample;
mod score;
mod source;
mod stream;
mod weight;

pub use arch::{Arch, Block, HeadKind, NormKind, Positions};
pub use batch::{Batch, Labels, Row};
pub use beam::{BeamSettings, EarlyStopping, beam_search};
pub use config::{EosIds, read_eos};
pub use count::StepCount;
pub use generate::{Decoder, continue_rows, greedy};
pub use load::{LoadOptions, Loaded};
pub use model::{Dropout, Model, Recompute, StepOutput};
pub use plan::{MemoryPlan, PlanInput};
pub use quantise::{Quantised, QuantisedKind, quantise, usual_compute};
pub use random::{RandomModel, write_random};
pub use rope::{RopeScaling, RopeSpec};
pub use sample::{Sampler, SamplerSettings};
pub use score::RowScore;
pub use sibo_kernels::frozen::{Bits, Compute};
pub use stream::{Streaming, WINDOW};

/// What can be wrong with a model's folder, with a batch, or with what is asked of a model.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that cannot be read or written.
    #[error(transparent)]
    File(#[from] sibo_files::Error),
    /// An adapter that cannot be used.
    #[error(transparent)]
    Adapter(#[from] sibo_peft::Error),
    /// A key of `config.json` with a value that is not implemented.
    #[error("{place}: `{key}`: {reason}")]
    Key {
        /// The file.
        place: String,
        /// The key.
        key: String,
        /// What is wrong and what is supported.
        reason: String,
    },
    /// Tensors that are missing, unexpected, misshapen or not finite.
    #[error("{place}: the tensors do not fit config.json:\n{report}")]
    Tensors {
        /// The folder.
        place: String,
        /// One line for each.
        report: String,
    },
    /// Token rows that the model cannot take.
    #[error("row {row}: {reason}")]
    Row {
        /// 0-based row of the input.
        row: usize,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// Anything else that is refused, in a sentence.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    pub(crate) fn key(place: &str, key: &str, reason: impl Into<String>) -> Self {
        Error::Key { place: place.into(), key: key.into(), reason: reason.into() }
    }
}
