//! What a study says before its first run: how many cells, how small a difference they can tell apart, and test rows
//! that were trained on.

use super::Study;
use crate::app::App;
use crate::leaks::{self, Training};
use sibo_tasks::overlap::NGRAM;
use sibo_tasks::{Example, SplitName, Task, Wanted};
use sibo_train::cells::{self, Cell, Judge, Log};
use sibo_train::evaluate::By;
use sibo_train::own_rows::OwnRows;
use sibo_train::recipe::Source;
use std::collections::BTreeMap;

impl Study {
    /// Rows that judge, and the task that they belong to where there is one.
    fn rows(&self, judge: &Judge) -> anyhow::Result<(Option<Task>, Vec<Example>)> {
        if self.recipe.source.is_data_file(&judge.task) {
            let rows = OwnRows::read(&self.recipe, &self.places)?;
            return Ok((None, rows.split(judge.split, judge.limit)));
        }
        let wanted = Wanted { limit: judge.limit, ..self.recipe.wanted(&judge.task) };
        let task = Task::open(&judge.task)?;
        let rows = task.load(&self.places.root, judge.split, &wanted)?.examples;
        Ok((Some(task), rows))
    }

    /// Of the tasks that judge, what makes their rows here another benchmark than the one of the name: `without passage`.
    pub(crate) fn variants(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut found = BTreeMap::new();
        for judge in self.judges(SplitName::Test)? {
            if self.recipe.source.is_data_file(&judge.task) {
                continue;
            }
            let wanted = Wanted { limit: Some(1), ..self.recipe.wanted(&judge.task) };
            let task = Task::open(&judge.task)?;
            if let Some(variant) = task.load(&self.places.root, judge.split, &wanted)?.variant {
                found.insert(task.name().to_string(), variant);
            }
        }
        Ok(found)
    }

    /// Rows that a cell learns from.
    pub(crate) fn train_rows(&self) -> anyhow::Result<usize> {
        if let Source::File { .. } = self.recipe.source {
            return Ok(OwnRows::read(&self.recipe, &self.places)?.train.len());
        }
        let rows = self.recipe.source.tasks().iter().zip(&self.tasks).map(|(name, task)| {
            Ok(task.load(&self.places.root, SplitName::Train, &self.recipe.wanted(name))?.examples.len())
        });
        rows.sum()
    }

    /// Before the runs: how many, and the smallest difference that they can tell apart.
    pub(crate) fn announce(
        &self,
        cells: &[Cell],
        log: &Log,
        app: &App,
    ) -> anyhow::Result<Vec<(String, String)>> {
        let done = cells.iter().filter(|c| log.find(c).is_some()).count();
        let before = if done > 0 { format!(", of which {done} are done already") } else { String::new() };
        let each = seeds_each(self.args.seeds.len());
        app.out.note(format!("{} cells{before}; {each} each", cells.len()));
        let mut facts: Vec<(String, String)> =
            self.base.arch().damage().map(|damage| ("Model".into(), damage)).into_iter().collect();
        let judges = cells.first().map(|c| c.judges.as_slice()).unwrap_or_default();
        facts.extend(self.judged_by(judges, app)?);
        Ok(facts)
    }

    /// Of rows that judge: the smallest difference that they can tell apart, and test rows that are learned.
    pub(crate) fn judged_by(&self, judges: &[Judge], app: &App) -> anyhow::Result<Vec<(String, String)>> {
        let mut facts = Vec::new();
        // Tasks of which the same can be told share a line.
        let mut least: Vec<(Vec<&str>, String)> = Vec::new();
        for judge in judges {
            let Some(text) = self.detectable(judge)? else { continue };
            match least.iter_mut().find(|(_, own)| *own == text) {
                Some((tasks, _)) => tasks.push(&judge.task),
                None => least.push((vec![&judge.task], text)),
            }
        }
        let split = judges.first().map(|judge| judge.split.to_string()).unwrap_or_default();
        for (tasks, text) in least {
            let tasks = tasks.join(", ");
            app.out.note(format!("smallest difference that can be told apart on {tasks}, {split}: {text}"));
            facts.push((format!("Smallest difference that can be told apart, {tasks}, {split}"), text));
        }
        facts.extend(self.leaks(judges, app)?);
        Ok(facts)
    }

    /// The smallest difference that a judge's rows can tell apart; of a metric of which nothing can be told beforehand,
    /// nothing.
    fn detectable(&self, judge: &Judge) -> anyhow::Result<Option<String>> {
        let rows = self.rows(judge)?.1.len();
        anyhow::ensure!(
            rows > 1,
            "{}: its {} split has one row, and a study needs two or more to judge by{}",
            judge.task,
            judge.split,
            self.how_to_judge_by_more(judge.split)
        );
        if judge.by == By::Likelihood {
            let smallest = cells::expect_of_likelihoods(rows)?;
            return Ok(Some(format!(
                "by the rows alone, about {smallest:.2} of the standard deviation that the differences of {rows} rows will have (found in 80 of 100 such studies); what the seeds differ by comes on top"
            )));
        }
        let metrics = self.metrics(&Task::open(&judge.task)?);
        let first = metrics.first().map_or("", |m| m.name());
        if !metrics.iter().any(|m| m.is_share()) {
            return Ok(Some(format!("of {first} nothing can be told beforehand")));
        }
        let beside = match metrics.first() {
            Some(metric) if !metric.is_share() => format!("; of {first} nothing can be told beforehand"),
            _ => String::new(),
        };
        let seeds = self.args.seeds.len();
        let smallest = cells::expect(rows, seeds)?;
        let each = seeds_each(seeds);
        if smallest >= 1.0 {
            return Ok(Some(format!(
                "none in accuracy: {rows} rows and {each} are too few for any (by chance alone, differences as large as 1 \
                 would be too common)"
            )));
        }
        Ok(Some(format!(
            "about {smallest:.3} in accuracy ({rows} rows, {each}; found in 80 of 100 such studies, at an accuracy of 0.8 and were the arms' answers independent: arms that answer most rows alike tell smaller ones apart){beside}"
        )))
    }

    /// Where more rows of a split would come from.
    fn how_to_judge_by_more(&self, split: SplitName) -> String {
        let (key, file) = match (&self.recipe.source, split) {
            (Source::File { test, .. }, SplitName::Test) => ("training.test_rows", test.as_ref()),
            (Source::File { validation, .. }, _) => ("training.validation_rows", validation.as_ref()),
            // A task's test is never held out.
            (Source::Tasks { .. }, SplitName::Test) => return String::new(),
            (Source::Tasks { .. }, _) => ("training.validation_rows", None),
        };
        match file {
            Some(file) => format!("; add rows to {file}"),
            None => format!(" (rows held out of train: {key})"),
        }
    }

    /// Test rows that are training rows, task by task.
    fn leaks(&self, judges: &[Judge], app: &App) -> anyhow::Result<Vec<(String, String)>> {
        let mut of_test: Vec<&Judge> = judges.iter().filter(|j| j.split == SplitName::Test).collect();
        of_test.dedup_by(|a, b| a.task == b.task);
        if of_test.is_empty() {
            return Ok(vec![]);
        }
        let seen = match &self.recipe.source {
            Source::Tasks { .. } => Training::of_recipe(&self.recipe, app)?,
            // Of the file itself: but for the rows that are held out.
            Source::File { data, .. } => {
                let OwnRows { train, validation, .. } = OwnRows::read(&self.recipe, &self.places)?;
                Training::of_rows(data, [train, validation].concat())
            }
        };
        let seen = seen.seen(NGRAM);
        let mut facts = Vec::new();
        for judge in of_test {
            let (task, rows) = self.rows(judge)?;
            if let Some(leak) = leaks::mark(&seen.overlap(&rows, task.as_ref())) {
                app.out.warn(format!("{}: {leak}; its score says little about new rows", judge.task));
                facts.push((format!("Leak, {}", judge.task), leak));
            }
        }
        Ok(facts)
    }
}

fn seeds_each(seeds: usize) -> String {
    if seeds == 1 { "1 seed".into() } else { format!("{seeds} seeds") }
}
