//! Several tasks learned as one: how rows are shared out among them, and how a row of the mixture is known again.

use crate::Error;
use crate::data::Dataset;
use crate::recipe::{Recipe, Training};
use sibo_tasks::{Task, Wanted};

/// A row's place in its own file is below this power of two; the part of the mixture that it comes from stands above it.
const ROW_BITS: u32 = 40;

/// Part `part` of `total` rows that are shared out evenly among `parts`; the first get what does not divide.
pub fn share(total: usize, parts: usize, part: usize) -> usize {
    total / parts + usize::from(part < total % parts)
}

/// What a mixture is called, after its parts.
pub fn named<S: AsRef<str>>(parts: &[S]) -> String {
    parts.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" + ")
}

/// Refuses a mixture whose shares would leave a task without a row.
pub(crate) fn check(place: &str, tasks: &[String], training: &Training) -> Result<(), Error> {
    let counts =
        [("max_train_samples", training.max_train_samples), ("validation_rows", training.validation_rows)];
    let few = |count: Option<usize>| count.is_some_and(|n| n < tasks.len());
    match counts.into_iter().find(|(_, count)| tasks.len() > 1 && few(*count)) {
        None => Ok(()),
        Some((key, _)) => Err(Error::key(
            place,
            &format!("training.{key}"),
            format!("is shared out evenly, and {} tasks need a row each", tasks.len()),
        )),
    }
}

/// Refuses tasks that would learn the same rows twice: the same task under two names, or tasks with one train file.
pub(crate) fn different(tasks: &[Task]) -> Result<(), Error> {
    let files = |task: &Task| {
        let spec = task.spec();
        let name = spec.splits.train.as_deref().unwrap_or_default();
        spec.source.first().map(|source| source.files_of(name).to_vec()).unwrap_or_default()
    };
    for (at, task) in tasks.iter().enumerate() {
        let twin = tasks[..at].iter().find(|other| {
            other.name() == task.name()
                || (other.own_file() == task.own_file()
                    && files(other) == files(task)
                    && !files(task).is_empty())
        });
        if let Some(twin) = twin {
            let (twin, task) = (twin.name(), task.name());
            return Err(Error::Refused(format!(
                "a mixture of {twin} and {task} would learn the same rows twice; name one of them"
            )));
        }
    }
    Ok(())
}

impl Recipe {
    /// Which rows of one of its tasks a recipe takes: its share of `max_train_samples` and of `validation_rows`. Of any
    /// other task, all.
    pub fn wanted(&self, task: &str) -> Wanted {
        let (tasks, training) = (self.source.tasks(), &self.training);
        let part = tasks.iter().position(|own| own == task);
        let own = |total: Option<usize>| Some(share(total?, tasks.len(), part?));
        Wanted {
            limit: own(training.max_train_samples),
            validation_rows: own(training.validation_rows),
            ..Wanted::default()
        }
    }
}

/// The rows of all parts, taken in turn, so that the first few are of every part: token similarity is looked at on those.
/// Each keeps an id of its own, by which dropout draws its masks; the rows of the first part keep theirs.
pub fn join(parts: Vec<Dataset>) -> Dataset {
    if parts.len() < 2 {
        return parts.into_iter().next().unwrap_or_default();
    }
    let mut all = Dataset::default();
    let mut queues = Vec::new();
    for (part, data) in (0u64..).zip(parts) {
        let told = data.notes.into_iter().map(|note| format!("{}: {note}", data.place));
        all.notes.extend(told);
        all.parts.push(data.place);
        queues.push(data.rows.into_iter().map(move |mut row| {
            row.row.sample |= part << ROW_BITS;
            row
        }));
    }
    loop {
        let before = all.rows.len();
        all.rows.extend(queues.iter_mut().filter_map(Iterator::next));
        if all.rows.len() == before {
            break;
        }
    }
    all.place = named(&all.parts);
    all
}

impl Dataset {
    /// The row's number in its own file, and that file's or task's name.
    pub fn origin(&self, sample: u64) -> (u64, &str) {
        let part = self.parts.get((sample >> ROW_BITS) as usize);
        match part {
            Some(part) => (sample & ((1 << ROW_BITS) - 1), part),
            None => (sample, &self.place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Label, LabelledRow};
    use sibo_model::Row;

    fn data(place: &str, ids: &[u64]) -> Dataset {
        let row = |id: &u64| LabelledRow {
            row: Row { ids: vec![5, 6], types: vec![], sample: *id },
            label: Label::Tokens(vec![-100, 6]),
        };
        Dataset {
            rows: ids.iter().map(row).collect(),
            place: place.into(),
            notes: vec!["cut".into()],
            parts: vec![],
        }
    }

    #[test]
    fn shares_add_up() {
        let shares: Vec<usize> = (0..7).map(|part| share(1400 + 3, 7, part)).collect();
        assert_eq!(shares, [201, 201, 201, 200, 200, 200, 200]);
        assert_eq!((0..4).map(|part| share(2, 4, part)).collect::<Vec<_>>(), [1, 1, 0, 0]);
    }

    #[test]
    fn a_row_of_a_mixture_is_known_again() {
        let mixture = join(vec![data("piqa", &[3, 9]), data("siqa", &[3])]);
        let ids: Vec<u64> = mixture.rows.iter().map(|r| r.row.sample).collect();
        assert_eq!(ids.len(), 3);
        assert_ne!(ids[0], ids[1], "the same row number of two tasks is two rows");
        let origins: Vec<(u64, &str)> = ids.iter().map(|id| mixture.origin(*id)).collect();
        assert_eq!(origins, [(3, "piqa"), (3, "siqa"), (9, "piqa")]);
        assert_eq!(mixture.place, "piqa + siqa");
        assert_eq!(mixture.notes, ["piqa: cut", "siqa: cut"]);
    }

    #[test]
    fn one_part_stays_as_it_is() {
        let alone = join(vec![data("piqa", &[3, 9])]);
        assert_eq!((alone.origin(9), alone.notes[0].as_str()), ((9, "piqa"), "cut"));
        assert_eq!(alone.rows[1].row.sample, 9);
    }
}
