//! One visible loop: batches, optimiser, schedule, evaluation, checkpoints, probes, and an observer that
//! is told what happens. Libraries never print; the command line does.
//!
//! ```text
//! recipe.toml ──> recipe::Recipe ──> prepare::prepare ──> run::train ──> checkpoint::save_adapter
//!                                    model, rows           │ events::Observer is told
//!                                                          │ checkpoint::* keeps what a kill must not take
//!                                    evaluate::evaluate <──┘ evaluate, probe, study: what it was worth
//! ```

pub mod batches;
pub mod card;
pub mod cells;
pub mod checkpoint;
pub mod data;
mod error;
pub mod evaluate;
pub mod events;
pub mod memory;
pub mod mixture;
pub mod optim;
pub mod outputs;
pub mod own_rows;
pub mod predict;
pub mod prepare;
pub mod probe;
pub mod profile;
pub mod recipe;
pub mod run;
pub mod schedule;
pub mod signs;
pub mod study;
pub mod suggest;
#[cfg(test)]
mod testing;
pub mod trace;
pub mod validate;

pub use data::Dataset;
pub use error::Error;
pub use events::{End, Event, Observer, Outcome, Silent};
pub use recipe::Recipe;
pub use run::{Settings, train};
pub use validate::Validation;
