//! What `sibo compare`, `sibo sweep` and `sibo ablate` share: a recipe into cells, cells into records, records into
//! tables, a page and `results.json`.

mod before;
mod own;
mod page;
mod same;
mod samples;
mod suggested;
mod tables;
mod watch;

pub(crate) use page::underway;
pub(crate) use suggested::{SUGGESTED, Suggested, Suggester};

use crate::app::App;
use crate::exit::{Interrupted, usage};
use crate::{interrupt, places, speaker};
use serde_json::{Value, json};
use sibo_model::Model;
use sibo_report::{Block, number, terminal};
use sibo_tasks::stats::{CompareOptions, Comparison, Verdict};
use sibo_tasks::{Metric, Protocol, SplitName, Task};
use sibo_train::cells::{self, Cell, Judge, Log, Pairing, Question, Record};
use sibo_train::evaluate::{self, By};
use sibo_train::mixture;
use sibo_train::prepare::{self, Places};
use sibo_train::recipe::{self, Recipe, Source};
use sibo_train::signs::Sign;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Flags that every study has.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StudyArgs {
    /// The recipe (TOML) that every cell starts from; it names a task, or a file of rows
    #[arg(value_name = "RECIPE.toml")]
    pub(crate) recipe: PathBuf,
    /// Change one value of the recipe: training.learning_rate=1e-4; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Seeds of initial values, order of rows and dropout; each configuration runs once with each
    #[arg(long, value_name = "SEEDS", value_delimiter = ',', default_value = "1,2,3")]
    pub(crate) seeds: Vec<u64>,
    /// At most so many rows of each split that judges, in a fixed seeded choice
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Judge written answers (gsm8k, svamp; every task under protocol clean) by the log-likelihood of the gold answer
    /// and of the worked solution too, and first: quick, and above the floor where a small model's writing is not
    #[arg(long)]
    pub(crate) likelihood: bool,
    /// At most so many rows of each split for answers that are written; 0 writes none (with --likelihood)
    #[arg(long, value_name = "N")]
    pub(crate) limit_generated: Option<usize>,
    /// More tasks to judge the test by, separated by commas: out of the training data's distribution
    #[arg(long, value_name = "TASKS", value_delimiter = ',')]
    pub(crate) also: Vec<String>,
    /// Cells at a time, each with its share of the threads: fewer where memory does not hold so many
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: u16,
    /// Look at those rows every so many steps of each training too
    #[arg(long, value_name = "N")]
    pub(crate) probe_every: Option<usize>,
    /// Validation rows whose tokens are looked at, layer by layer; 0 looks at none
    #[arg(long, value_name = "N", default_value_t = sibo_train::probe::ROWS)]
    pub(crate) probe_rows: usize,
    /// The study's folder [default: the recipe's output_dir]; a study that was stopped there goes on
    #[arg(long, alias = "output", value_name = "FOLDER")]
    pub(crate) output_dir: Option<PathBuf>,
}

/// A study before its first cell.
pub(crate) struct Study {
    /// The command that makes it.
    command: &'static str,
    pub(crate) folder: PathBuf,
    /// The recipe's table, changed by `--set`.
    pub(crate) value: Value,
    pub(crate) recipe: Recipe,
    /// The recipe's model without an adapter.
    pub(crate) base: Model,
    /// What is learned, and what cells are judged by first.
    pub(crate) tasks: Vec<Task>,
    args: StudyArgs,
    places: Places,
}

/// A configuration: its name and the recipe's table.
pub(crate) struct Arm {
    pub(crate) name: String,
    pub(crate) value: Value,
}

impl Study {
    /// Reads and checks all that can be before anything is trained.
    pub(crate) fn open(command: &'static str, args: &StudyArgs, app: &App) -> anyhow::Result<Self> {
        let place = args.recipe.display().to_string();
        let mut value = Recipe::read_value(&args.recipe)?;
        if let Some(folder) = &args.output_dir {
            value["output_dir"] = json!(folder.display().to_string());
        }
        for assignment in &args.set {
            recipe::set(&mut value, assignment)?;
        }
        if let Some(every) = args.probe_every {
            recipe::set(&mut value, &format!("training.probe_every={every}"))?;
        }
        let mut recipe = Recipe::from_value(&place, &value)?;
        if matches!(recipe.source, Source::File { .. }) {
            own::check(args)?;
            recipe = own::with_test(&place, &mut value, recipe, app)?;
        }
        let mut seen = std::collections::BTreeSet::new();
        if let Some(twice) = args.seeds.iter().find(|s| !seen.insert(**s)) {
            return Err(usage(format!("--seeds names {twice} twice; a seed gives the same run each time")));
        }
        if args.limit_generated == Some(0) && !args.likelihood {
            return Err(usage(
                "--limit-generated 0 leaves nothing to judge written answers by; add --likelihood",
            ));
        }
        // No generated rows leave likelihoods to judge by.
        let alone = [
            ("--limit", args.limit.filter(|n| *n < 2)),
            ("--limit-generated", args.limit_generated.filter(|n| *n == 1)),
        ];
        if let Some((flag, Some(rows))) = alone.into_iter().find(|(_, rows)| rows.is_some()) {
            return Err(usage(format!(
                "{flag} {rows}: a study needs 2 rows or more to judge by; its intervals say what other rows could have given"
            )));
        }
        app.threads_of_recipe(recipe.training.threads)?;
        places::check_study(&recipe.output_dir, command)?;
        let places = app.places.of_recipe(&recipe)?;
        let mut notes = Vec::new();
        let (base, tasks) = prepare::base(&recipe, &places, &mut notes)?;
        notes.iter().for_each(|note| app.out.note(note));
        let study = Study {
            command,
            folder: recipe.output_dir.clone(),
            value,
            recipe,
            base,
            tasks,
            args: args.clone(),
            places,
        };
        // A sweep asks these once all else is trained.
        study.judges(SplitName::Test)?;
        Ok(study)
    }

    pub(crate) fn seeds(&self) -> &[u64] {
        &self.args.seeds
    }

    /// The names of its tasks, or of its data file, as titles show them.
    pub(crate) fn task_names(&self) -> String {
        match &self.recipe.source {
            Source::File { data, .. } => data.clone(),
            Source::Tasks { .. } => mixture::named(&self.tasks.iter().map(Task::name).collect::<Vec<_>>()),
        }
    }

    /// What a task measures when this study's model is asked.
    pub(crate) fn metrics(&self, task: &Task) -> Vec<Metric> {
        task.metrics(prepare::protocol(&self.recipe, &self.base, task))
    }

    /// By what a cell is judged: the recipe's own rows or tasks, and on test rows the tasks of `--also`; likelihoods of
    /// what is otherwise written come first.
    pub(crate) fn judges(&self, split: SplitName) -> anyhow::Result<Vec<Judge>> {
        let also = if split == SplitName::Test { self.args.also.as_slice() } else { &[] };
        let mut judges = Vec::new();
        if let Source::File { data, .. } = &self.recipe.source {
            judges.push(Judge { task: data.clone(), split, limit: self.args.limit, by: By::Likelihood });
        }
        for name in self.recipe.source.tasks().iter().chain(also) {
            let judge = |limit, by| Judge { task: name.clone(), split, limit, by };
            let all = self.args.limit;
            let task = Task::open(name)?;
            let protocol = prepare::protocol(&self.recipe, &self.base, &task);
            evaluate::check(&self.base, &task, protocol.unwrap_or(Protocol::Clean))?;
            if !self.is_written(&task) {
                judges.push(judge(all, By::Written));
                continue;
            }
            if self.args.likelihood {
                judges.push(judge(all, By::Likelihood));
            }
            match (self.args.limit_generated, all) {
                (Some(0), _) => {}
                (Some(most), Some(all)) => judges.push(judge(Some(most.min(all)), By::Written)),
                (most, all) => judges.push(judge(most.or(all), By::Written)),
            }
        }
        Ok(judges)
    }

    /// Whether this study's model writes its answers to a task.
    fn is_written(&self, task: &Task) -> bool {
        prepare::protocol(&self.recipe, &self.base, task).is_some_and(|p| task.is_generated(p))
    }

    /// The names of the numbers that a cell of `judges` has for the first of the study's own tasks, in order.
    pub(crate) fn measures(&self, judges: &[Judge]) -> Vec<&'static str> {
        let own = judges.iter().filter(|j| j.task == judges[0].task);
        let names = own.flat_map(|judge| match judge.by {
            By::Likelihood => vec![Metric::LoglikToken.name(), Metric::Loglik.name()],
            By::Written => self.metrics(&self.tasks[0]).iter().map(|m| m.name()).collect(),
        });
        names.collect()
    }

    /// Seed by seed, a cell of every arm; each is refused now if its model cannot take it.
    pub(crate) fn cells(&self, arms: &[&Arm], judges: &[Judge]) -> anyhow::Result<Vec<Cell>> {
        let mut all = Vec::new();
        for seed in &self.args.seeds {
            for arm in arms {
                let mut value = arm.value.clone();
                value["seed"] = json!(seed);
                let cell = Cell {
                    arm: arm.name.clone(),
                    recipe: Recipe::from_value(&arm.name, &value)?,
                    places: self.places.clone(),
                    judges: judges.to_vec(),
                    look_rows: self.args.probe_rows,
                };
                if seed == &self.args.seeds[0] {
                    cell.check(&self.base).map_err(|e| anyhow::anyhow!("{}: {e}", arm.name))?;
                }
                all.push(cell);
            }
        }
        Ok(all)
    }

    /// Runs what is not done yet. The records of `cells`, in order.
    pub(crate) fn run(&self, cells: &[Cell], log: &mut Log, app: &App) -> anyhow::Result<Vec<Record>> {
        interrupt::listen();
        let missing = cells.iter().filter(|c| log.find(c).is_none()).count();
        let room = cells::room(cells, log, self.args.jobs.into(), &self.base, speaker::now())?;
        room.reason.iter().for_each(|reason| app.out.note(reason));
        let mut watch = watch::Watch::new(app.out, missing);
        let complete = cells::run_all(
            cells,
            &self.folder,
            speaker::now(),
            log,
            &mut |place, now| watch.hear(place, now),
            &interrupt::STOP,
            room.jobs,
        );
        watch.finish();
        let records = if complete? { log.all(cells) } else { None };
        records.ok_or_else(|| {
            let done = cells.iter().filter(|c| log.find(c).is_some()).count();
            let text = format!(
                "{done} of {} cells are done and kept in {}; the same command goes on from there",
                cells.len(),
                self.folder.join(cells::FILE).display()
            );
            Interrupted(text).into()
        })
    }
}

/// What a study found.
pub(crate) struct Finding {
    pub(crate) title: String,
    /// The answer, one plain sentence.
    pub(crate) verdict: String,
    pub(crate) facts: Vec<(String, String)>,
    pub(crate) records: Vec<Record>,
    pub(crate) pairs: Vec<Pairing>,
    /// Variations that cannot be, and why.
    pub(crate) refused: Vec<(String, String)>,
    /// What is shown first.
    pub(crate) first: Vec<Block>,
    /// What only this kind of study has, for programs.
    pub(crate) own: Value,
}

/// Everything that follows from the records.
pub(crate) struct Derived {
    pub(crate) questions: Vec<Question>,
    pub(crate) comparisons: Vec<(Question, Comparison)>,
    /// Signs, each with the arm that it is about.
    pub(crate) signs: Vec<(String, Sign)>,
    /// What stands with a task's name in every table ([`Study::variants`]).
    variants: BTreeMap<String, String>,
}

impl Derived {
    /// Leaves out that a difference is within noise, where tables of many comparisons say it anyway.
    pub(crate) fn without_noise(mut self) -> Self {
        self.signs.retain(|(_, sign)| !matches!(sign, Sign::WithinNoise { .. }));
        self
    }

    /// The signs as sentences; arms with the same one share it.
    fn notes(&self) -> Vec<String> {
        let mut notes: Vec<(String, Vec<&str>)> = Vec::new();
        for (arm, sign) in &self.signs {
            let text = sign.to_string();
            match notes.iter_mut().find(|(own, _)| *own == text) {
                Some((_, arms)) => arms.push(arm),
                None => notes.push((text, vec![arm])),
            }
        }
        notes.into_iter().map(|(text, arms)| format!("{}: {text}.", arms.join("; "))).collect()
    }

    /// The question in words, with the form of the rows where it is not the benchmark's own.
    fn text(&self, question: &Question) -> String {
        match self.variants.get(&question.task) {
            Some(variant) => question.text_of(&format!("{} ({variant})", question.task)),
            None => question.text(),
        }
    }

    /// The questions with a comparison.
    fn compared(&self) -> impl Iterator<Item = &Question> {
        self.questions.iter().filter(|q| self.comparisons.iter().any(|(own, _)| own == *q))
    }
}

/// Every number that the first record has, and with it all that did not diverge.
pub(crate) fn questions(records: &[Record]) -> Vec<Question> {
    let first = records.iter().find(|r| r.diverged.is_none());
    first.map(|r| r.judged.iter().map(cells::question).collect()).unwrap_or_default()
}

/// Comparisons and signs.
pub(crate) fn derive(records: &[Record], pairs: &[Pairing]) -> anyhow::Result<Derived> {
    let questions = questions(records);
    let comparisons = cells::verdicts(records, pairs, &questions, &CompareOptions::default())?;
    let mut signs = cells::diverged(records);
    for (at, Pairing { a, b }) in pairs.iter().enumerate() {
        // An arm is held against its plain method first; against a baseline, a loss or similarity says nothing.
        let first = pairs[..at].iter().all(|p| p.b != *b);
        let boosted = records.iter().any(|r| r.arm == *b && r.injected > 0);
        let own = comparisons.iter().find(|(_, c)| c.a == *a && c.b == *b).map(|(_, c)| c);
        if first && boosted {
            signs.extend(cells::signs_of(records, a, b, own).into_iter().map(|s| (b.clone(), s)));
        }
    }
    Ok(Derived { questions, comparisons, signs, variants: BTreeMap::new() })
}

/// The first question's comparison of a pair, as a sentence.
pub(crate) fn sentence(study: &Study, derived: &Derived, pair: &Pairing) -> String {
    let of = |name: &str| {
        let own = |(q, c): &&(Question, Comparison)| q.task == name && c.a == pair.a && c.b == pair.b;
        derived.comparisons.iter().find(own).map(|(_, c)| c)
    };
    match study.tasks.as_slice() {
        [] | [_] => match of(&study.task_names()) {
            Some(comparison) => capital(&comparison.to_string()),
            None => format!("No seed has a run of {} and one of {} that did not diverge", pair.a, pair.b),
        },
        several => over_tasks(several.iter().filter_map(|task| Some((task.name(), of(task.name())?))), pair),
    }
}

/// Of a mixture, which tasks tell a pair apart: no metric belongs to all of them.
fn over_tasks<'a>(found: impl Iterator<Item = (&'a str, &'a Comparison)>, pair: &Pairing) -> String {
    let mut on: [Vec<&str>; 3] = [vec![], vec![], vec![]];
    for (task, comparison) in found {
        let at = match comparison.verdict() {
            Verdict::NoDifference => 2,
            Verdict::Better { winner, .. } => usize::from(winner == pair.a),
        };
        on[at].push(task);
    }
    let all: usize = on.iter().map(Vec::len).sum();
    let names = |tasks: &[&str]| if tasks.is_empty() { "none".to_string() } else { tasks.join(", ") };
    format!(
        "Of the {all} tasks that were learned together, {} is better on {}, {} on {}; not told apart: {}",
        pair.b,
        names(&on[0]),
        pair.a,
        names(&on[1]),
        names(&on[2])
    )
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Writes the page and `results.json`, and says what was found.
pub(crate) fn tell(study: &Study, finding: &Finding, mut derived: Derived, app: &App) -> anyhow::Result<()> {
    derived.variants = study.variants()?;
    let derived = &derived;
    let samples = samples::table(study, finding, derived.questions.first())?;
    let document = page::document(study, finding, derived, samples);
    let html = sibo_report::save(&document, &study.folder)?;
    sibo_report::save::save_parts(&document, &study.folder.join("parts"))?;
    let mut results = page::results(study, finding, derived);
    places::write_results(&study.folder, study.command, &mut results)?;
    if app.out.json() {
        app.out.result(results.to_string());
        return Ok(());
    }
    let style = app.out.style();
    for question in &derived.questions {
        let table = tables::scores(&finding.records, question, &derived.text(question));
        app.out.result(terminal::table(&table, style));
        app.out.result("");
    }
    app.out.result(tables::SCORES_NOTE);
    app.out.result("");
    for question in derived.compared() {
        app.out.result(terminal::table(
            &tables::comparisons(&derived.comparisons, question, &derived.text(question)),
            style,
        ));
        app.out.result("");
    }
    if !derived.comparisons.is_empty() {
        app.out.result(tables::COMPARISONS_NOTE);
        app.out.result("");
    }
    // In full: a table would cut the reasons.
    finding.refused.iter().for_each(|(name, why)| app.out.result(format!("Not applicable: {name}: {why}")));
    app.out.result(&finding.verdict);
    for note in derived.notes() {
        app.out.result(format!("Note: {note}"));
    }
    let seconds: f64 = finding.records.iter().map(|r| r.seconds).sum();
    app.out.result(format!("Training of all cells took {}.", number::duration(seconds)));
    app.out.result(format!("Report: {}", html.display()));
    Ok(())
}
