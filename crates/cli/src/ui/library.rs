//! What lies below the folder, kept between requests and read again where it has changed.

use crate::exit::sentence;
use crate::record::METRICS;
use crate::runs::{self, Found, Kind, Run};
use crate::study;
use serde_json::Value;
use sibo_report::{Block, Document, Section, metrics, number};
use sibo_train::cells::{self, Log};
use sibo_train::checkpoint;
use sibo_train::recipe::{self, Recipe};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Largest file that is read whole: metrics of about 250,000 steps.
const MOST_BYTES: u64 = 64 << 20;
/// A list of folders is good for so long.
const FRESH: Duration = Duration::from_secs(1);
/// Runs kept open; more are forgotten and read again.
const MOST_OPEN: usize = 32;
/// A run whose last record is younger, and that has no result, is taken to be training.
pub(super) const ALIVE: Duration = Duration::from_secs(120);

/// The folder and what was read of it.
pub(super) struct Library {
    root: PathBuf,
    listed: Mutex<Option<(Instant, Listing)>>,
    rows: Mutex<HashMap<PathBuf, (Stamp, Row)>>,
    open: Mutex<HashMap<PathBuf, Shared>>,
    documents: Mutex<HashMap<PathBuf, (Stamp, Arc<Document>)>>,
}

type Shared = Arc<Mutex<Run>>;
/// When its newest record was written, and whether its result was there.
type Stamp = (Option<SystemTime>, bool);

/// Everything below the folder.
#[derive(Clone)]
pub(super) struct Listing {
    pub(super) rows: Arc<Vec<Row>>,
    /// Whether the whole folder was looked at.
    pub(super) complete: bool,
}

/// A run or study in the list.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) found: Found,
    /// `lora, lambda 0.2`, or a study's title.
    pub(super) what: String,
    /// Steps, loss and validation loss, where there are some.
    pub(super) steps: Option<f64>,
    pub(super) loss: Option<f64>,
    pub(super) validation: Option<f64>,
    pub(super) finished: bool,
    /// Why nothing more is known.
    pub(super) trouble: Option<String>,
}

/// What a page shows of some runs and studies.
pub(super) struct View {
    pub(super) document: Document,
    /// `finished` and the like, one word for each.
    pub(super) states: Vec<&'static str>,
}

impl Library {
    pub(super) fn new(root: PathBuf) -> Self {
        Library {
            root,
            listed: Mutex::default(),
            rows: Mutex::default(),
            open: Mutex::default(),
            documents: Mutex::default(),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Everything, the newest first.
    pub(super) fn list(&self) -> Listing {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, listing)) = listed.as_ref()
            && at.elapsed() < FRESH
        {
            return listing.clone();
        }
        let (found, complete) = runs::find(&self.root);
        let rows = Arc::new(found.into_iter().map(|found| self.row(found)).collect());
        let listing = Listing { rows, complete };
        *listed = Some((Instant::now(), listing.clone()));
        listing
    }

    fn row(&self, found: Found) -> Row {
        let finished = found.kind == Kind::Study || found.folder.join(checkpoint::ADAPTER).is_dir();
        let stamp = (found.written, finished);
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, row)) = rows.get(&found.folder)
            && *then == stamp
        {
            return row.clone();
        }
        let row = self.read_row(found, finished);
        rows.insert(row.found.folder.clone(), (stamp, row.clone()));
        row
    }

    fn read_row(&self, found: Found, finished: bool) -> Row {
        let mut row = Row {
            found: found.clone(),
            what: String::new(),
            steps: None,
            loss: None,
            validation: None,
            finished,
            trouble: None,
        };
        let read = match found.kind {
            Kind::Run => read_run(&found.folder, &mut row),
            Kind::Part => {
                row.trouble = Some(half(&found.folder));
                Ok(())
            }
            Kind::Study | Kind::Cells => self.study(&found).map(|document| {
                row.what = document.title.clone();
            }),
        };
        if let Err(error) = read {
            row.trouble = Some(sentence(&error));
        }
        row
    }

    /// Of the names, those that lie below the folder; a name is looked up in the list and never made into a path.
    pub(super) fn named(&self, names: &[&str]) -> Result<Vec<Row>, String> {
        let listing = self.list();
        let one = |name: &&str| {
            let row = listing.rows.iter().find(|row| row.found.name == *name);
            row.cloned().ok_or_else(|| format!("no run or study is called \"{name}\" here"))
        };
        names.iter().map(one).collect()
    }

    /// The page of these, and whether anything is new since it was asked for with the same `seen`.
    pub(super) fn view(&self, rows: &[Row], seen: &mut Vec<String>) -> Option<View> {
        let (mut open, mut studies, mut troubles) = (Vec::new(), Vec::new(), Vec::new());
        let (mut marks, mut states) = (Vec::new(), Vec::new());
        for row in rows {
            let found = &row.found;
            let (mark, trouble) = match found.kind {
                Kind::Run => match self.run(found) {
                    Ok(run) => {
                        let (state, mark, trouble) = look(&run, found);
                        states.push(state);
                        open.push(run);
                        (mark, trouble)
                    }
                    Err(error) => (String::new(), Some(sentence(&error))),
                },
                Kind::Study | Kind::Cells => match self.study(found) {
                    Ok(document) => {
                        states.push(if found.kind == Kind::Study { "finished" } else { "under way" });
                        studies.push((found.name.clone(), document));
                        (format!("{:?}", stamp(&found.folder)), None)
                    }
                    Err(error) => (String::new(), Some(sentence(&error))),
                },
                Kind::Part => (String::new(), Some(half(&found.folder))),
            };
            marks.push(format!("{mark} {trouble:?}"));
            troubles.extend(trouble.map(|t| format!("`{}`: {t}", found.name)));
        }
        if *seen == marks {
            return None;
        }
        *seen = marks;
        Some(View { document: document(rows, &open, &studies, troubles), states })
    }

    fn run(&self, found: &Found) -> anyhow::Result<Shared> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = open.get(&found.folder) {
            return Ok(run.clone());
        }
        let run = Arc::new(Mutex::new(Run::open(found.name.clone(), &found.folder, MOST_BYTES)?));
        if open.len() >= MOST_OPEN {
            open.clear();
        }
        open.insert(found.folder.clone(), run.clone());
        Ok(run)
    }

    /// The document of a study, finished or under way.
    pub(super) fn study(&self, found: &Found) -> anyhow::Result<Arc<Document>> {
        let now = stamp(&found.folder);
        let mut documents = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, document)) = documents.get(&found.folder)
            && *then == now
        {
            return Ok(document.clone());
        }
        let file = if found.kind == Kind::Study { "report.json" } else { cells::FILE };
        check_size(&found.folder.join(file))?;
        let document = Arc::new(match found.kind {
            Kind::Study => Document::read(&found.folder.join(file))?,
            _ => study::underway(Log::open(&found.folder)?.into_records())?,
        });
        if documents.len() >= MOST_OPEN {
            documents.clear();
        }
        documents.insert(found.folder.clone(), (now, document.clone()));
        Ok(document)
    }
}

/// The page: the same as that of `sibo report`, with what could not be read, and the state of things as its verdict.
fn document(
    rows: &[Row],
    open: &[Shared],
    studies: &[(String, Arc<Document>)],
    troubles: Vec<String>,
) -> Document {
    let held: Vec<_> = open.iter().map(|run| run.lock().unwrap_or_else(PoisonError::into_inner)).collect();
    let all: Vec<&Run> = held.iter().map(|run| &**run).collect();
    // One study alone is its own page.
    if let ([], [(name, study)], []) = (all.as_slice(), studies, troubles.as_slice()) {
        return Document { title: format!("{name}: {}", study.title), ..study.as_ref().clone() };
    }
    let studies: Vec<(String, Document)> =
        studies.iter().map(|(n, d)| (n.clone(), d.as_ref().clone())).collect();
    let mut page = runs::document(&all, &studies);
    page.title = rows.iter().map(|row| row.found.name.as_str()).collect::<Vec<_>>().join(" and ");
    if !all.is_empty() {
        let states = all.iter().map(|run| {
            let row = rows.iter().find(|row| row.found.name == run.name);
            told(run, row.is_some_and(|row| alive(&row.found.folder)))
        });
        page.verdict = states.collect::<Vec<_>>().join(" ");
    }
    if let ([_], true) = (rows, page.sections.is_empty()) {
        page.verdict = "Nothing can be shown of it.".into();
    }
    if !troubles.is_empty() {
        let mut section = Section::new("What could not be read", "");
        section.push(Block::Notes(troubles));
        page.sections.insert(0, section);
    }
    page
}

/// State, a mark that changes with what is shown, and what went wrong.
fn look(run: &Shared, found: &Found) -> (&'static str, String, Option<String>) {
    let mut run = run.lock().unwrap_or_else(PoisonError::into_inner);
    let trouble = run.refresh().err().map(|error| sentence(&error));
    let state = state(run.finished, alive(&found.folder));
    (state, format!("{state} {} {:?}", run.done(), run.last("loss")), trouble)
}

/// One word for how a run stands.
pub(super) fn state(finished: bool, alive: bool) -> &'static str {
    match (finished, alive) {
        (true, _) => "finished",
        (false, true) => "training",
        (false, false) => "stopped",
    }
}

fn told(run: &Run, alive: bool) -> String {
    let loss = run.last("loss").map(|l| format!(", loss {}", number::fixed(l, 4))).unwrap_or_default();
    let speed = run.last("tokens_per_second").map(|s| format!(", {} tokens/s", number::fixed(s, 0)));
    let (name, done) = (&run.name, number::fixed(run.done() as f64, 0));
    match state(run.finished, alive) {
        "finished" => format!("{name} is finished: {done} steps{loss}."),
        "training" => format!("{name} is training: step {done}{loss}{}.", speed.unwrap_or_default()),
        _ => format!("{name} was stopped after step {done}{loss}."),
    }
}

/// Whether the metrics were written to just now.
fn alive(folder: &Path) -> bool {
    let written = folder.join(METRICS).metadata().and_then(|m| m.modified());
    written.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < ALIVE))
}

fn stamp(folder: &Path) -> Stamp {
    let newest =
        ["report.json", cells::FILE].iter().filter_map(|f| folder.join(f).metadata().ok()?.modified().ok());
    (newest.max(), true)
}

fn read_run(folder: &Path, row: &mut Row) -> anyhow::Result<()> {
    let last = metrics::last(&folder.join(METRICS))?;
    let number = |record: &Option<serde_json::Map<String, Value>>, name: &str| {
        record.as_ref().and_then(|r| r.get(name)?.as_f64())
    };
    row.steps = number(&last.step, "step");
    row.loss = number(&last.step, "loss");
    row.validation = number(&last.evaluation, "eval_loss");
    let file = folder.join(recipe::FILE);
    check_size(&file)?;
    let recipe = Recipe::read(&file)?;
    let (method, sibo) = (recipe.adapter.method.name(), &recipe.adapter.sibo);
    row.what = match sibo.is_plain() {
        true => format!("{method} on {}", recipe.model),
        false => format!("{method}, lambda {}, on {}", sibo.lambda_in_words(), recipe.model),
    };
    Ok(())
}

fn check_size(path: &Path) -> anyhow::Result<()> {
    let bytes = std::fs::metadata(path).map_err(|e| sibo_files::Error::io(path, "read", e))?.len();
    anyhow::ensure!(
        bytes <= MOST_BYTES,
        "{} has {}; {} are the most that are read here",
        path.display(),
        number::bytes(bytes),
        number::bytes(MOST_BYTES)
    );
    Ok(())
}

/// What a folder lacks to be a run.
fn half(folder: &Path) -> String {
    match folder.join(recipe::FILE).is_file() {
        true => format!(
            "there is a recipe and no {METRICS}: no step is done yet, or the run was stopped before its first"
        ),
        false => format!("there is {METRICS} and no {}: what it was made by is not known", recipe::FILE),
    }
}
