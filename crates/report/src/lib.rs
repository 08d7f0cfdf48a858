//! Run records into tables, plots and one self-contained HTML page.
//!
//! A command fills a [`Document`]; this crate turns it into [`html`], [`markdown`], [`csv`],
//! plain text for a [`terminal`] and stand-alone SVG and PNG files ([`plot`], [`mod@save`]). A run also keeps its
//! metrics while it goes: one JSON object per line ([`jsonl`], read back as columns by [`metrics`]) and TensorBoard
//! events ([`tensorboard`]). The crate knows no tensors and no tasks, and it never prints.

pub mod csv;
pub mod document;
mod escape;
pub mod html;
pub mod jsonl;
pub mod markdown;
pub mod metrics;
pub mod number;
mod palette;
pub mod plot;
mod raster;
pub mod save;
mod svg;
pub mod table;
pub mod tensorboard;
pub mod terminal;

pub use document::{Answer, Block, Document, Sample, Samples, Section};
pub use palette::Tone;
pub use plot::{
    Axis, Bar, BarChart, BarGroup, Confusion, HeatMap, Key, LineChart, Pair, PairedDots, Plot, Point, Scale,
    Series,
};
pub use save::save;
pub use table::{Align, Cell, Column, Estimate, Table};

/// What can go wrong while records are read or written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The file system refused.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was tried, as a verb: "write", "read", "create".
        doing: &'static str,
        /// The file or folder.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A kept report is not one that this version reads.
    #[error("{path} is not a report of this program: {reason}")]
    NotAReport {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A kept report was written by a later version.
    #[error("{path} has report schema {found}; this program reads up to {}", document::SCHEMA)]
    LaterSchema {
        /// The file.
        path: String,
        /// The schema number in the file.
        found: u64,
    },
    /// A line in the middle of a metrics file is not what it should be.
    #[error("{path}, line {line}: {reason}")]
    BadLine {
        /// The file.
        path: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that is larger than is read here.
    #[error("{path} has {bytes} bytes; {most} bytes are the most that are read here")]
    TooLarge {
        /// The file.
        path: String,
        /// Its size.
        bytes: u64,
        /// The limit.
        most: u64,
    },
    /// A record that cannot be written as one JSON object.
    #[error("a metrics record must be a JSON object: {reason}")]
    NotAnObject {
        /// What it was.
        reason: String,
    },
    /// A TensorBoard file that holds something else than event records.
    #[error("{path} is no TensorBoard event file: {reason}; move it away to start a new one")]
    NotEvents {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl ReportError {
    fn io(doing: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { doing, path, source }
    }
}
