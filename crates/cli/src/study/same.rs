//! What is the same in all cells of a study: the rows that judge, and how they are asked.

use super::{Arm, Study};
use crate::exit::usage;
use sibo_train::recipe::Recipe;

/// Keys of a recipe that say what is judged, or what the places and the seeds of all cells are. `max_train_samples` is
/// none of them: rows are held out before it takes its part; nor is `train_on_inputs`: a row judges by its response alone.
const JUDGED: [&str; 12] = [
    "model",
    "data",
    "data_format",
    "validation",
    "test",
    "task",
    "protocol",
    "template",
    "seed",
    "training.cutoff_len",
    "training.validation_rows",
    "training.test_rows",
];

/// Keys that say of what the validation loss is a mean.
const LOSS: [&str; 1] = ["training.train_on_inputs"];

impl Study {
    /// Refuses an arm that `flag` made, where other rows would judge it than the recipe's, or the same asked otherwise.
    pub(crate) fn check_judged(&self, flag: &str, arm: &Arm) -> anyhow::Result<()> {
        self.check_same(flag, arm, &JUDGED, "cells of a study are compared by the same rows, asked alike")
    }

    /// Refuses an arm whose validation loss is the mean of something else than the recipe's.
    pub(crate) fn check_loss(&self, flag: &str, arm: &Arm) -> anyhow::Result<()> {
        self.check_same(flag, arm, &LOSS, "a choice by loss compares losses of the same tokens")
    }

    fn check_same(&self, flag: &str, arm: &Arm, keys: &[&str], why: &str) -> anyhow::Result<()> {
        // With defaults, so that it does not matter how values are written. Adapters say nothing of rows, and a lambda
        // that is still to be suggested is no number yet.
        let mut value = arm.value.clone();
        value.as_object_mut().map(|table| table.remove("adapter"));
        let theirs = Recipe::from_value(&arm.name, &value)?.to_value();
        let own = self.recipe.to_value();
        let at = |key: &&&str| format!("/{}", key.replace('.', "/"));
        match keys.iter().find(|key| theirs.pointer(&at(key)) != own.pointer(&at(key))) {
            None => Ok(()),
            Some(&"seed") => {
                Err(usage(format!("{flag}: `seed` is no setting of an arm; give the seeds by --seeds")))
            }
            Some(key) => Err(usage(format!(
                "{flag}: `{key}` cannot differ within a study: {why}. Set it for all cells by --set, or make a study of each value"
            ))),
        }
    }
}
