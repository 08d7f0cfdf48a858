//! Studies of a person's own file of rows.

use super::StudyArgs;
use crate::app::App;
use crate::exit::usage;
use serde_json::Value;
use sibo_train::own_rows;
use sibo_train::recipe::{self, Recipe, Source};

/// Refuses what only a task can be asked for. Rows are always judged by their likelihood, so asking for it is fine.
pub(super) fn check(args: &StudyArgs) -> anyhow::Result<()> {
    if args.limit_generated.is_none() || !args.also.is_empty() {
        return Ok(());
    }
    Err(usage(
        "--limit-generated needs a task, of the recipe or of --also: the rows of a data file are judged by the likelihood of what they teach",
    ))
}

/// The recipe with rows held out for its test, where it says nothing of one: as many as are usual for validation.
pub(super) fn with_test(place: &str, value: &mut Value, recipe: Recipe, app: &App) -> anyhow::Result<Recipe> {
    let Source::File { data, format, test: None, .. } = &recipe.source else { return Ok(recipe) };
    if recipe.training.test_rows.is_some() {
        return Ok(recipe);
    }
    let rows = sibo_tasks::read_instructions(&app.places.data(data)?, *format)?.len();
    // With one row there is nothing to compare.
    let test = own_rows::usual(rows).max(2);
    app.out.note(format!(
        "{test} of the {rows} rows of {data} are kept for the test (training.test_rows, or a file of their own: test)"
    ));
    recipe::set(value, &format!("training.test_rows={test}"))?;
    Ok(Recipe::from_value(place, value)?)
}
