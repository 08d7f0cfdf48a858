//! A person's own file of rows, shared out: what is learned, what chooses, and what is read once at the end.

use crate::data::{self, Dataset, Limits};
use crate::prepare::Places;
use crate::recipe::{self, Recipe, Source, VALIDATION_ROWS};
use crate::{Error, batches};
use sibo_model::Model;
use sibo_tasks::{Example, SplitName, Text};
use sibo_text::{Template, Tokenizer};
use std::path::Path;

/// The rows of a recipe's `data`, each with the place of its file in messages.
#[derive(Debug, Clone)]
pub struct OwnRows {
    /// Learned from: what nothing below takes, and at most `training.max_train_samples`.
    pub train: Vec<Example>,
    /// Chosen by: the file `validation`, or rows held out.
    pub validation: Vec<Example>,
    /// Reported on: the file `test`, or `training.test_rows` rows held out; none where neither is given.
    pub test: Vec<Example>,
}

/// How many of a file's rows are held out where nobody says: a small file gives a tenth.
pub fn usual(rows: usize) -> usize {
    VALIDATION_ROWS.min(rows / 10).max(1)
}

impl OwnRows {
    /// Reads the files of `places` and holds rows out, by the fixed seed of all splits. Validation rows are taken first: a
    /// recipe has the same ones with a test and without.
    ///
    /// # Errors
    /// A recipe of tasks, a file that cannot be read, and counts that leave nothing to learn from.
    pub fn read(recipe: &Recipe, places: &Places) -> Result<OwnRows, Error> {
        let Source::File { format, .. } = &recipe.source else {
            return Err(Error::Refused("the recipe names a task, not a data file".into()));
        };
        let (training, file) = (&recipe.training, places.data_file()?);
        let read = |path: &Path| sibo_tasks::read_instructions(path, *format);
        let mut train = read(file)?;
        let validation = match &places.validation {
            Some(path) => read(path)?,
            None => {
                let count = training.validation_rows.unwrap_or(usual(train.len()));
                hold_out(&mut train, count, SplitName::Validation, file)?
            }
        };
        let test = match (&places.test, training.test_rows) {
            (Some(path), _) => read(path)?,
            (None, Some(count)) => hold_out(&mut train, count, SplitName::Test, file)?,
            (None, None) => vec![],
        };
        if let Some(limit) = training.max_train_samples.filter(|limit| *limit < train.len()) {
            train = choose(train, limit).0;
        }
        Ok(OwnRows { train, validation, test })
    }

    /// The rows of a split, at most so many in a fixed seeded choice.
    pub fn split(self, split: SplitName, limit: Option<usize>) -> Vec<Example> {
        let rows = match split {
            SplitName::Train => self.train,
            SplitName::Validation => self.validation,
            SplitName::Test => self.test,
        };
        match limit.filter(|limit| *limit < rows.len()) {
            Some(limit) => choose(rows, limit).0,
            None => rows,
        }
    }
}

/// The template that a recipe names. `auto` (and nothing named) goes by the rows: none for running text and for prompts
/// with completions, which stand as they are; the model's own for conversations, where it has one; else the usual one.
pub fn template(
    recipe: &Recipe,
    rows: &[Example],
    tokenizer: &Tokenizer,
    now: i64,
) -> Result<Template, sibo_text::TextError> {
    if recipe.template != recipe::AUTO {
        return Template::choose(&recipe.template, tokenizer, now);
    }
    let bare = |row: &Example| matches!(row.text, Text::Plain(_) | Text::Verbatim(_));
    if !rows.is_empty() && rows.iter().all(bare) {
        return Template::choose("none", tokenizer, now);
    }
    if rows.iter().any(|row| matches!(row.text, Text::Chat(_))) {
        match Template::choose("chat", tokenizer, now) {
            Err(sibo_text::TextError::NoChatTemplate { .. }) => {}
            chosen => return chosen,
        }
    }
    Template::choose(recipe::DEFAULT_TEMPLATE, tokenizer, now)
}

/// Rows as the model of a recipe learns them; `file` is where messages say that they are.
pub fn lessons(
    rows: &[Example],
    file: &Path,
    recipe: &Recipe,
    template: &Template,
    tokenizer: &Tokenizer,
    model: &Model,
) -> Result<Dataset, Error> {
    let limits = Limits::of(&recipe.training);
    data::for_instructions(rows, &file.display().to_string(), template, tokenizer, model.arch(), &limits)
}

/// Rows as they judge: by what they teach, whether or not prompts are learned too. A row of plain text has no prompt.
pub fn judged(
    rows: &[Example],
    file: &Path,
    recipe: &Recipe,
    template: &Template,
    tokenizer: &Tokenizer,
    model: &Model,
) -> Result<Dataset, Error> {
    let mut recipe = recipe.clone();
    recipe.training.train_on_inputs = false;
    lessons(rows, file, &recipe, template, tokenizer, model)
}

/// Takes `count` rows out of a file's rows.
fn hold_out(
    rows: &mut Vec<Example>,
    count: usize,
    split: SplitName,
    file: &Path,
) -> Result<Vec<Example>, Error> {
    if count >= rows.len() {
        return Err(Error::Refused(format!(
            "{}: {count} {split} rows out of {} leave none to learn from; set training.{split}_rows lower, or name a `{split}` file",
            file.display(),
            rows.len()
        )));
    }
    let (held, rest) = choose(std::mem::take(rows), count);
    *rows = rest;
    Ok(held)
}

/// `count` rows in a fixed seeded choice, and the others, both in their old order.
fn choose(rows: Vec<Example>, count: usize) -> (Vec<Example>, Vec<Example>) {
    let order = batches::order(&vec![0; rows.len()], sibo_tasks::SPLIT_SEED, u64::MAX, 1, false);
    let mut chosen = vec![false; rows.len()];
    order.iter().take(count).for_each(|i| chosen[*i] = true);
    let (mut held, mut rest) = (Vec::new(), Vec::new());
    for (row, chosen) in rows.into_iter().zip(chosen) {
        if chosen { held.push(row) } else { rest.push(row) }
    }
    (held, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn shared(training: Value, files: &[(&str, usize)]) -> Result<OwnRows, Error> {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, count: usize| {
            let row = |i: usize| json!({"prompt": format!("{name} {i}"), "completion": " yes"}).to_string();
            let path = dir.path().join(name);
            std::fs::write(&path, (0..count).map(row).collect::<Vec<_>>().join("\n")).unwrap();
            path
        };
        let mut value = json!({"model": "m", "data": "data", "output_dir": "o", "training": training});
        let mut places = Places {
            model: "m".into(),
            root: "d".into(),
            data: Some(write("data", 23)),
            validation: None,
            test: None,
        };
        for (key, count) in files {
            value[*key] = json!(key);
            match *key {
                "test" => places.test = Some(write(key, *count)),
                _ => places.validation = Some(write(key, *count)),
            }
        }
        OwnRows::read(&Recipe::from_value("r", &value)?, &places)
    }

    /// By what the rows are, where the recipe names none.
    #[test]
    fn rows_choose_their_template() {
        let dir = tempfile::tempdir().unwrap();
        let tokenizer =
            |kind: &str| Tokenizer::from_folder(&crate::testing::folder(dir.path(), kind)).unwrap();
        let (talks, bare) = (tokenizer("llama"), tokenizer("bert"));
        let chosen = |named: Option<&str>, row: Value, tokenizer: &Tokenizer| {
            let file = dir.path().join("rows.jsonl");
            std::fs::write(&file, format!("{row}\n")).unwrap();
            let mut value = json!({"model": "m", "data": "d", "output_dir": "o"});
            if let Some(name) = named {
                value["template"] = json!(name);
            }
            let rows = sibo_tasks::read_instructions(&file, None).unwrap();
            let template = template(&Recipe::from_value("r", &value).unwrap(), &rows, tokenizer, 0).unwrap();
            (template.name().to_string(), template.is_none())
        };
        let pair = || json!({"prompt": "red ->", "completion": " 19"});
        let talk =
            || json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]});
        let text = json!({"text": "a day"});
        assert_eq!(chosen(None, pair(), &talks), ("none".into(), true));
        assert_eq!(chosen(None, text, &talks), ("none".into(), true));
        assert_eq!(chosen(Some("plain"), pair(), &talks), ("plain".into(), false));
        let (name, _) = chosen(None, talk(), &talks);
        assert!(!["alpaca", "none"].contains(&name.as_str()), "the model's own, not {name}");
        assert_eq!(chosen(None, talk(), &bare).0, "alpaca");
        let instruction = json!({"instruction": "add", "output": "3"});
        assert_eq!(chosen(None, instruction, &talks).0, "alpaca");
    }

    fn ids(rows: &[Example]) -> Vec<u64> {
        rows.iter().map(|row| row.id).collect()
    }

    #[test]
    fn no_row_is_in_two_splits_and_a_test_moves_no_validation_row() {
        let alone = shared(json!({"validation_rows": 4}), &[]).unwrap();
        assert_eq!((alone.train.len(), alone.validation.len(), alone.test.len()), (19, 4, 0));
        let tested =
            shared(json!({"validation_rows": 4, "test_rows": 7, "max_train_samples": 9}), &[]).unwrap();
        assert_eq!(ids(&tested.validation), ids(&alone.validation));
        assert_eq!((tested.train.len(), tested.test.len()), (9, 7));
        let mut all = [ids(&tested.train), ids(&tested.validation), ids(&tested.test)].concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 20);
        let few = tested.clone().split(SplitName::Test, Some(3));
        assert!(few.len() == 3 && few.iter().all(|row| tested.test.contains(row)));
        assert_eq!(tested.clone().split(SplitName::Test, Some(30)), tested.test);
    }

    #[test]
    fn files_of_their_own_leave_all_rows_to_learn() {
        let rows = shared(json!({}), &[("validation", 3), ("test", 5)]).unwrap();
        assert_eq!((rows.train.len(), rows.validation.len(), rows.test.len()), (23, 3, 5));
        assert_eq!(shared(json!({}), &[("test", 5)]).unwrap().validation.len(), 2);
    }

    #[test]
    fn counts_that_leave_nothing_are_refused_by_their_key() {
        let said = |training| shared(training, &[]).unwrap_err().to_string();
        assert!(said(json!({"validation_rows": 23})).contains("set training.validation_rows lower"));
        let text = said(json!({"test_rows": 21}));
        assert!(text.contains("21 test rows out of 21") && text.contains("name a `test` file"), "{text}");
        let text = shared(json!({"test_rows": 2}), &[("test", 5)]).unwrap_err().to_string();
        assert!(text.contains("training.test_rows") && text.contains("`test`"), "{text}");
    }
}
