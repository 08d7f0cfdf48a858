//! What the classes of a head are called, wherever it is asked or written.

use sibo_train::outputs::Outputs;
use std::path::Path;

/// What is known of the head of a model, or of the adapter on it; names that only the model's own file has are taken where the
/// adapter says nothing.
pub(crate) fn of(model: &Path, adapter: Option<&Path>) -> anyhow::Result<Outputs> {
    let own = adapter.map(Outputs::of_adapter).transpose()?.flatten();
    Ok(match own {
        Some(own) => own,
        None => Outputs::of_model(model)?,
    })
}
