//! What the outputs of a class head stand for. A run keeps it beside its adapter, whose own files only number the classes.

use crate::recipe::{self, Recipe};
use crate::{Error, prepare};
use serde_json::{Map, Value, json};
use sibo_tasks::Task;
use std::path::Path;

/// The file beside an adapter.
pub const FILE: &str = "head.json";

/// adapter-hub's own file of a head, whose `label2id` says the same.
const HUB_FILE: &str = "head_config.json";

/// What a class head answers, and what it read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outputs {
    /// The task that it learned, where it is known.
    pub task: Option<String>,
    /// A name for each class; none for a head that gives a number.
    pub labels: Vec<String>,
    /// Texts of a row, where it is known: 1, or 2 for a pair.
    pub texts: Option<usize>,
    /// Longest row in tokens that it learned from, where it is known.
    pub cutoff: Option<usize>,
}

impl Outputs {
    /// Those of a head that learns `task`, row lengths as `recipe` says; none where the task asks for no class head.
    pub fn of(task: &Task, recipe: &Recipe) -> Option<Outputs> {
        let classes = prepare::class_outputs(task)?;
        let labels = task.spec().labels.clone();
        Some(Outputs {
            task: Some(task.name().into()),
            labels: if classes == labels.len() { labels } else { vec![] },
            texts: Some(task.texts()),
            cutoff: Some(recipe.training.cutoff_len),
        })
    }

    /// As [`FILE`] keeps it: the names as `config.json` of transformers has them.
    pub fn to_json(&self) -> Value {
        json!({"task": self.task, "id2label": id2label(&self.labels), "texts": self.texts, "cutoff_len": self.cutoff})
    }

    /// What is known of an adapter's head: by the file that a run left with it; else by the recipe of a run in whose folder
    /// it lies; else by adapter-hub's file.
    ///
    /// # Errors
    /// A file that is there and holds something else.
    pub fn of_adapter(folder: &Path) -> Result<Option<Outputs>, Error> {
        if let Some(outputs) = Outputs::in_folder(folder)? {
            return Ok(Some(outputs));
        }
        // A checkpoint's adapter lies two folders deeper.
        let parent = folder.parent();
        let step = parent.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("step-")));
        let run = step.and_then(|step| step.parent()?.parent()).or(parent);
        let recipe = run.and_then(|run| Recipe::read(&run.join(recipe::FILE)).ok());
        if let Some(recipe) = recipe
            && let [task] = recipe.source.tasks()
            && let Some(outputs) = Task::open(task).ok().and_then(|task| Outputs::of(&task, &recipe))
        {
            return Ok(Some(outputs));
        }
        let hub = folder.join(HUB_FILE);
        let head = if hub.is_file() { Some(sibo_files::json::read(&hub)?) } else { None };
        Ok(head.and_then(|head| {
            Some(Outputs { labels: by_number(head.get("label2id")?)?, ..Outputs::default() })
        }))
    }

    /// What the file in a folder says; none where there is none.
    fn in_folder(folder: &Path) -> Result<Option<Outputs>, Error> {
        let own = folder.join(FILE);
        if !own.is_file() {
            return Ok(None);
        }
        read(&sibo_files::json::read(&own)?).map(Some).ok_or_else(|| {
            let wanted = r#"{"task": "rte", "id2label": {"0": "entailment", "1": "not_entailment"}, "texts": 2, "cutoff_len": 128}"#;
            Error::Refused(format!(
                "{}: is no description of a class head; it wants {wanted}, each of them or null, no name twice, texts 1 or 2",
                own.display()
            ))
        })
    }

    /// What a model's folder says: the file of the adapter that was merged into it; else the names that its own `config.json`
    /// gives the classes, those that transformers makes up (`LABEL_0`) left out.
    ///
    /// # Errors
    /// A file of the adapter's that holds something else.
    pub fn of_model(folder: &Path) -> Result<Outputs, Error> {
        if let Some(outputs) = Outputs::in_folder(folder)? {
            return Ok(outputs);
        }
        let config = sibo_files::json::read(&folder.join("config.json")).ok();
        let named = config.and_then(|c| names(c.get("id2label")?));
        let labels =
            named.filter(|n| n.iter().enumerate().any(|(i, name)| *name != made_up(i))).unwrap_or_default();
        Ok(Outputs { labels, ..Outputs::default() })
    }

    /// A name for each of `count` classes: those that are known if they are as many, else made up as transformers does.
    pub fn names(&self, count: usize) -> Vec<String> {
        match self.labels.len() == count {
            true => self.labels.clone(),
            false => (0..count).map(made_up).collect(),
        }
    }
}

/// `{"0": "entailment", ...}`, as in transformers' `config.json`.
pub fn id2label(names: &[String]) -> Map<String, Value> {
    names.iter().enumerate().map(|(i, name)| (i.to_string(), json!(name))).collect()
}

/// `{"entailment": 0, ...}`.
pub fn label2id(names: &[String]) -> Map<String, Value> {
    names.iter().enumerate().map(|(i, name)| (name.clone(), json!(i))).collect()
}

fn made_up(class: usize) -> String {
    format!("LABEL_{class}")
}

/// None where a key holds what it cannot; a key that is null or left out is not known.
fn read(value: &Value) -> Option<Outputs> {
    value.as_object()?;
    let of = |key: &str| value.get(key).filter(|given| !given.is_null());
    let number = |key: &str, most: u64| match of(key) {
        None => Some(None),
        Some(given) => given.as_u64().filter(|n| (1..=most).contains(n)).map(|n| Some(n as usize)),
    };
    let task = match of("task") {
        None => None,
        Some(task) => Some(task.as_str()?.to_string()),
    };
    let labels = of("id2label").map_or(Some(vec![]), names)?;
    Some(Outputs { task, labels, texts: number("texts", 2)?, cutoff: number("cutoff_len", u64::MAX)? })
}

/// The names of `{"0": NAME, ...}`, in order.
fn names(map: &Value) -> Option<Vec<String>> {
    let map = map.as_object()?;
    let names: Option<Vec<String>> =
        (0..map.len()).map(|i| map.get(&i.to_string())?.as_str().map(String::from)).collect();
    let twice = |names: &[String]| names.iter().enumerate().any(|(i, name)| names[..i].contains(name));
    names.filter(|names| !twice(names))
}

/// The names of `{NAME: 0, ...}`, in order.
fn by_number(map: &Value) -> Option<Vec<String>> {
    let map = map.as_object()?;
    let of = |i: usize| map.iter().find(|(_, n)| n.as_u64() == Some(i as u64)).map(|(name, _)| name.clone());
    (0..map.len()).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let three = Outputs {
            task: Some("mnli".into()),
            labels: ["entailment", "neutral", "contradiction"].map(String::from).to_vec(),
            texts: Some(2),
            cutoff: Some(97),
        };
        for outputs in [three, Outputs::default(), Outputs { texts: Some(1), ..Outputs::default() }] {
            assert_eq!(read(&outputs.to_json()), Some(outputs));
        }
        for bad in [
            json!([]),
            json!({"task": 3}),
            json!({"id2label": {"1": "b"}}),
            json!({"texts": 3}),
            json!({"texts": 0}),
            json!({"id2label": {"0": "a", "1": "a"}}),
        ] {
            assert_eq!(read(&bad), None, "{bad}");
        }
    }

    #[test]
    fn names_are_the_known_ones_only_where_they_are_as_many() {
        let known = Outputs { labels: vec!["no".into(), "yes".into()], ..Outputs::default() };
        assert_eq!(known.names(2), ["no", "yes"]);
        assert_eq!(known.names(3), ["LABEL_0", "LABEL_1", "LABEL_2"]);
        assert_eq!(by_number(&json!({"b": 1, "a": 0})), Some(vec!["a".into(), "b".into()]));
        assert_eq!(by_number(&json!({"b": 1, "a": 1})), None);
    }
}
