//! The arm `suggested`: the lambda of `sibo smoothing --suggest-lambda`, fixed in the recipe of its cells.

use super::{Arm, Study};
use crate::app::App;
use crate::{rows, speaker};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sibo_model::{LoadOptions, Model};
use sibo_tasks::SplitName;
use sibo_text::Tokenizer;
use sibo_train::own_rows::{self, OwnRows};
use sibo_train::prepare;
use sibo_train::recipe::{self, Recipe, Source};
use sibo_train::suggest::{self, Curve};
use std::path::PathBuf;

/// The word among a sweep's lambdas.
pub(crate) const SUGGESTED: &str = "suggested";

/// The file of a study that keeps what was suggested: a study that goes on takes the same number, whatever machine or
/// version it goes on with, because its cells are named by it.
const FILE: &str = "suggested.json";

/// Any lambda above zero: it makes the adapter enter the sites at which the rule then looks.
const ANY: f64 = 0.5;

/// What the rule said.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Suggested {
    /// What the number depends on: model, rows and adapter.
    of: Value,
    /// The number.
    pub(crate) lambda: f64,
    /// Why, and from what.
    pub(crate) sentence: String,
}

/// Suggestions for the combinations of a sweep, from one forward pass for all that learn from the same rows.
pub(crate) struct Suggester<'a> {
    study: &'a Study,
    file: PathBuf,
    kept: Vec<Suggested>,
    /// Of the layers and rows that the first says, and where they came from.
    curves: Vec<(Value, Vec<Curve>, String)>,
}

impl<'a> Suggester<'a> {
    /// With what the study's folder keeps.
    pub(crate) fn open(study: &'a Study) -> anyhow::Result<Self> {
        let file = study.folder.join(FILE);
        let kept = match std::fs::read_to_string(&file) {
            Ok(text) => serde_json::from_str(&text).map_err(|e| {
                anyhow::anyhow!(
                    "{}: not what a sweep wrote ({e}); remove it, and it is made again",
                    file.display()
                )
            })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => vec![],
            Err(e) => return Err(sibo_files::Error::io(&file, "read", e).into()),
        };
        Ok(Suggester { study, file, kept, curves: vec![] })
    }

    /// Puts the suggested number into an arm's recipe and name.
    pub(crate) fn fill(&mut self, arm: &mut Arm, app: &App) -> anyhow::Result<Suggested> {
        recipe::set(&mut arm.value, &format!("adapter.sibo.lambda={ANY}"))?;
        let recipe = Recipe::from_value(&arm.name, &arm.value)?;
        let training = &recipe.training;
        let mut of = json!([
            recipe.model,
            self.study.task_names(),
            recipe.num_hidden_layers,
            training.validation_rows,
            training.max_train_samples,
            recipe.adapter.to_json()
        ]);
        // What is as it always was stands in no key, so that files of before still tell their numbers.
        let read = (recipe.template.as_str(), training.cutoff_len);
        let read = (read != (rows::TEMPLATE, rows::CUTOFF))
            .then(|| json!({"template": read.0, "cutoff_len": read.1}));
        if let Some(of) = of.as_array_mut() {
            of.extend(training.test_rows.map(|rows| json!(rows)));
            of.extend(read);
        }
        let found = match self.kept.iter().find(|kept| kept.of == of) {
            Some(kept) => kept.clone(),
            None => {
                let made = self.suggest(&recipe, of, app)?;
                self.kept.push(made.clone());
                sibo_files::write(&self.file, format!("{:#}\n", json!(self.kept)).as_bytes())?;
                made
            }
        };
        recipe::set(&mut arm.value, &format!("adapter.sibo.lambda={}", found.lambda))?;
        arm.name = arm
            .name
            .replace(&format!("lambda {SUGGESTED}"), &format!("lambda {SUGGESTED} ({})", found.lambda));
        app.out.note(format!("{}: {}", arm.name, found.sentence));
        Ok(found)
    }

    fn suggest(&mut self, recipe: &Recipe, of: Value, app: &App) -> anyhow::Result<Suggested> {
        let mut model = self.study.base.clone();
        prepare::attach(&mut model, &recipe.adapter, &recipe.model, recipe.seed)?;
        let training = &recipe.training;
        let rows = json!([
            recipe.num_hidden_layers,
            training.validation_rows,
            training.max_train_samples,
            training.test_rows,
            recipe.template,
            training.cutoff_len
        ]);
        let at = match self.curves.iter().position(|made| made.0 == rows) {
            Some(at) => at,
            None => {
                let (curves, source) = curves(self.study, recipe, app)?;
                self.curves.push((rows, curves, source));
                self.curves.len() - 1
            }
        };
        let (_, curves, source) = &self.curves[at];
        let found = suggest::at_adapter(&model, curves).ok_or_else(|| {
            anyhow::anyhow!("lambda `{SUGGESTED}`: the adapter reads no state as wide as h0, so there is nothing to suggest from")
        })?;
        Ok(Suggested { of, lambda: found.lambda, sentence: format!("{found} ({source})") })
    }
}

/// One forward pass of the base, as `sibo smoothing --suggest-lambda --split train` makes it, over rows that this recipe
/// learns from, in its template and up to its length.
fn curves(study: &Study, recipe: &Recipe, app: &App) -> anyhow::Result<(Vec<Curve>, String)> {
    let options = LoadOptions { keep_layers: recipe.num_hidden_layers, ..LoadOptions::default() };
    let model = Model::load(&study.places.model, &options)?.model;
    let tokenizer = Tokenizer::from_folder(&study.places.model)?;
    let training = &recipe.training;
    let most = rows::Most {
        rows: training.max_train_samples.map_or(rows::LIMIT, |most| most.min(rows::LIMIT)),
        tokens: training.cutoff_len,
    };
    let own = match &recipe.source {
        Source::File { .. } => OwnRows::read(recipe, &study.places)?.train,
        Source::Tasks { .. } => vec![],
    };
    let template = own_rows::template(recipe, &own, &tokenizer, speaker::now())?;
    let from = match (study.tasks.as_slice(), &recipe.source) {
        (_, Source::File { data, .. }) => rows::From::Learned(own, data),
        ([task], _) => rows::From::Task(task, SplitName::Train, training.validation_rows),
        _ => anyhow::bail!(
            "lambda `{SUGGESTED}` is read off the rows of one task, and the recipe names a mixture; give numbers"
        ),
    };
    let (rows, source) = rows::read(&template, &from, most, &model, &tokenizer, app)?;
    let seen = rows.len().min(suggest::SEQUENCES);
    Ok((suggest::curves(&model, &rows, rows::BATCH.into())?, format!("{source}; {seen} of them looked at")))
}
