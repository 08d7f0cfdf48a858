//! `sibo eval`: what a model, with or without an adapter, scores on tasks.

use crate::app::App;
use crate::classes;
use crate::describe;
use crate::exit::{Interrupted, usage};
use crate::interrupt;
use crate::leaks::{self, Training};
use crate::places::ModelArgs;
use crate::progress::Meter;
use crate::speaker;
use serde_json::json;
use sibo_model::Model;
use sibo_report::{Cell, Column, Table, terminal};
use sibo_tasks::overlap::NGRAM;
use sibo_tasks::results::{self, RunResults, Sample, TaskResult};
use sibo_tasks::{Example, Protocol, Split, SplitName, Task, Wanted};
use sibo_text::{Template, Tokenizer};
use sibo_train::Recipe;
use sibo_train::evaluate::{Asked, By, EvalOptions, TaskEvaluation, evaluate};
use sibo_train::outputs::Outputs;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

const LONG_ABOUT: &str = "\
Measures a model on tasks, without or with an adapter:

    sibo eval --model smollm2-135m --tasks arc-easy --protocol lm-eval
    sibo eval --model smollm2-135m --adapter runs/gsm8k/adapter --tasks gsm8k,svamp --output results
    sibo eval --model minilm-l6 --adapter runs/rte/adapter --tasks rte

A classification head answers classification and regression. A language model is asked in one of three ways \
(--protocol), and numbers of two ways must never be compared: `clean` renders prompts as training did, \
`lm-eval` is lm-evaluation-harness's (likelihoods of choices, its answer filters), `llm-adapters` that \
project's (its prompts byte for byte, four beams).

Where the model would write its answer, --likelihood judges it without writing: `loglik_token` is the log-likelihood \
of the gold text for each of its tokens (in nats, the mean of the rows), `loglik` that of the whole text; once for \
the worked solution that the benchmark itself has (`reasoning`; where only another model's are at hand, of those \
that reach the gold answer: `others-reasoning`), once for the answer alone (`answer`). One pass over a row instead of \
one a token, and a number above the floor where a small model writes no right answer.

The test split is meant to be read once: choose settings, lambda included, with --split validation. Where a run or a \
study made the adapter, the rows that it held out of the task are those that are scored, and a class head reads rows up \
to the length that it was trained with.";

/// Measure a model on tasks
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Tasks, separated by commas: names (`sibo tasks` lists them) or paths of TOML files
    #[arg(long, value_name = "TASKS", value_delimiter = ',', required = true)]
    tasks: Vec<String>,
    /// How a language model is asked: clean, lm-eval, llm-adapters
    #[arg(long, value_name = "NAME", default_value = "clean", value_parser = protocol)]
    protocol: Protocol,
    /// Which rows: test, validation or train
    #[arg(long, value_name = "SPLIT", default_value = "test", value_parser = split)]
    split: SplitName,
    /// At most so many rows of each task, in a fixed seeded choice
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Worked rows of train before each prompt (with --protocol lm-eval)
    #[arg(long, alias = "num_fewshot", value_name = "N", default_value_t = 0)]
    num_fewshot: usize,
    /// Judge written answers by the log-likelihood of the gold answer, and of the worked solution where the benchmark
    /// has one, instead of letting the model write
    #[arg(long)]
    likelihood: bool,
    /// Rows at a time
    #[arg(long, alias = "batch_size", value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    /// Beams instead of the protocol's own number
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u16).range(1..=256))]
    num_beams: Option<u16>,
    /// New tokens instead of the protocol's own number
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// The template of instructions under `clean` [default: the one that lies with the adapter, else alpaca]
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// Mark tasks whose test or validation rows are among these training rows: a task or a file [default: what the run
    /// that made the adapter learned from]
    #[arg(long, value_name = "TASK|FILE")]
    trained_on: Option<String>,
    /// Longest row of a class head in tokens [default: that of the run that made the adapter, else 512]
    #[arg(long, alias = "cutoff_len", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cutoff_len: Option<u32>,
    /// A folder for the results, laid out as lm-evaluation-harness does
    #[arg(long, aliases = ["output_path", "output-path"], value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// With --output: also write every row as it was asked and answered
    #[arg(long, alias = "log_samples", requires = "output")]
    log_samples: bool,
}

fn protocol(word: &str) -> Result<Protocol, String> {
    Protocol::ALL.into_iter().find(|p| p.name() == word).ok_or_else(|| {
        let names = Protocol::ALL.map(Protocol::name);
        format!("the protocols are {}", names.join(", "))
    })
}

/// A split by its name.
pub(super) fn split(word: &str) -> Result<SplitName, String> {
    SplitName::ALL
        .into_iter()
        .find(|s| s.to_string() == word)
        .ok_or_else(|| "the splits are train, validation, test".into())
}

/// A task with its rows, read before anything is computed.
struct Wants {
    task: Task,
    split: Split,
    shots: Vec<Example>,
    /// Where the test stands to the training rows, if these are known.
    distribution: Option<&'static str>,
    /// What the table says of rows that were trained on.
    leak: Option<String>,
}

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    if let Some(folder) = &args.output {
        crate::places::check_folder(folder)?;
    }
    let adapter = args.model.adapter.as_deref().map(|name| app.places.model(name)).transpose()?;
    let recipe = adapter.as_deref().and_then(|folder| leaks::recipe_of(folder, app));
    let recipe = recipe.as_ref();
    let read = |name: &String| read(name, recipe, &args, app);
    let mut wants = args.tasks.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
    let folder = app.places.model(&args.model.model)?;
    let tokenizer = Tokenizer::from_folder(&folder)?;
    let trained_on = mark_leaks(&mut wants, recipe, &args, app)?;
    let template = template(&tokenizer, adapter.as_deref(), args.template.as_deref())?;
    let model = app.places.load(&args.model)?;
    tokenizer.check_vocabulary(model.arch().vocab)?;
    let known = classes::of(&folder, adapter.as_deref())?;
    let cutoff = cutoff(&model, recipe, &known, &args, app);
    if model.classes().is_some() {
        wants.iter().filter_map(|want| other_classes(&known, &want.task)).for_each(|told| app.out.warn(told));
    }
    interrupt::listen();
    let (date, began) = (SystemTime::now(), Instant::now());
    let asked = Asked { model: &model, tokenizer: &tokenizer, template: &template };
    let done = ask_all(&wants, asked, cutoff, &args, app)?;
    let stopped = interrupt::asked();
    let (tasks, samples): (Vec<TaskResult>, Vec<(String, Vec<Sample>)>) =
        done.into_iter().map(|d| (d.result.clone(), (d.result.task, d.samples))).unzip();
    let results = RunResults {
        config: config(&args, trained_on, &model),
        date,
        seconds: began.elapsed().as_secs_f64(),
        model: match model.arch().damage() {
            None => args.model.model.clone(),
            Some(damage) => format!("{} ({damage})", args.model.model),
        },
        program: env!("CARGO_PKG_VERSION").into(),
        tasks,
    };
    show(&results, app);
    if stopped {
        return Err(
            Interrupted("the numbers above are of the rows until then; nothing was written".into()).into()
        );
    }
    if let Some(folder) = &args.output {
        let samples = if args.log_samples { samples } else { vec![] };
        let written = results::write(folder, &results, &samples)?;
        app.out.note(format!("results: {}", written.results.display()));
    }
    Ok(())
}

/// A task's rows; `recipe` made the adapter.
fn read(name: &str, recipe: Option<&Recipe>, args: &Args, app: &App) -> anyhow::Result<Wants> {
    let task = Task::open(name)?;
    let root = &app.places.roots().data;
    if args.num_fewshot > 0 && args.protocol != Protocol::LmEval {
        return Err(usage("--num-fewshot puts worked rows before a prompt under --protocol lm-eval only"));
    }
    // What the run held out of train is validation here too; other rows of train it has learned.
    let held_out = match args.split {
        SplitName::Test => None,
        _ => recipe.and_then(|recipe| leaks::wanted(recipe, &task)?.validation_rows),
    };
    let wanted = |limit| Wanted { limit, validation_rows: held_out, ..Wanted::default() };
    let mut split = task.load(root, args.split, &wanted(args.limit))?;
    split.notes.extend(held_out.map(|rows| {
        format!("validation is the {rows} rows that the run of the adapter held out (its training.validation_rows)")
    }));
    let shots = match args.num_fewshot {
        0 => vec![],
        n => task.load(root, SplitName::Train, &wanted(Some(n)))?.examples,
    };
    Ok(Wants { task, split, shots, distribution: None, leak: None })
}

/// Looks for the rows that are scored among the training rows that are named, or that the adapter's own recipe names;
/// gives their name.
fn mark_leaks(
    wants: &mut [Wants],
    recipe: Option<&Recipe>,
    args: &Args,
    app: &App,
) -> anyhow::Result<Option<String>> {
    let names = match (&args.trained_on, recipe) {
        (Some(name), _) => std::slice::from_ref(name),
        (None, Some(recipe)) => leaks::names(&recipe.source),
        (None, None) => return Ok(None),
    };
    let training = match args.split {
        SplitName::Test => Training::all(names, app),
        SplitName::Validation => Training::learned(names, recipe, app),
        SplitName::Train => return Ok(None),
    };
    let training = match training {
        Ok(training) => training,
        Err(error) if args.trained_on.is_some() => return Err(error),
        Err(reason) => {
            app.out.note(format!("not checked whether {} rows were trained on: {reason}", args.split));
            return Ok(None);
        }
    };
    let seen = training.seen(NGRAM);
    for Wants { task, split, distribution, leak, .. } in wants {
        *distribution = training.distribution(task);
        *leak = leaks::mark_of(&seen.overlap(&split.examples, Some(task)), args.split);
    }
    Ok(Some(training.name))
}

/// Longest row of a class head: as asked for, as the adapter was trained (another length is another input), or the usual one.
fn cutoff(model: &Model, recipe: Option<&Recipe>, known: &Outputs, args: &Args, app: &App) -> Option<usize> {
    model.classes()?;
    if let Some(asked) = args.cutoff_len {
        return Some(asked as usize);
    }
    let own = recipe.map(|recipe| recipe.training.cutoff_len).or(known.cutoff);
    match own {
        Some(own) => app.out.note(format!(
            "rows are read up to {own} tokens, as the adapter was trained (its training.cutoff_len); --cutoff-len takes another"
        )),
        None => {
            let usual = EvalOptions::default().cutoff;
            app.out.note(format!("rows are read up to {usual} tokens; --cutoff-len takes another length"));
        }
    }
    own.or(Some(EvalOptions::default().cutoff))
}

/// That a head learned other classes than a task has: its scores are of classes by their number.
fn other_classes(known: &Outputs, task: &Task) -> Option<String> {
    let (learned, asked) = (&known.labels, &task.spec().labels);
    if learned.is_empty() || learned == asked || learned.len() != asked.len() {
        return None;
    }
    let of = known.task.as_ref().map(|task| format!(" of {task}")).unwrap_or_default();
    let pairs: Vec<String> = learned.iter().zip(asked).map(|(a, b)| format!("{a} for {b}")).collect();
    Some(format!(
        "{}: this head learned other classes{of}; they are taken by their number: {}",
        task.name(),
        pairs.join(", ")
    ))
}

/// The template asked for; else the adapter's; else that of a recipe without one.
fn template(tokenizer: &Tokenizer, adapter: Option<&Path>, asked: Option<&str>) -> anyhow::Result<Template> {
    if let Some(template) = speaker::template_of_adapter(tokenizer, adapter).filter(|_| asked.is_none()) {
        let template = template?;
        // An adapter that learned bare text knows no marks; a task's question needs some.
        if !template.is_none() {
            return Ok(template);
        }
    }
    let least = json!({"model": "m", "task": "t", "output_dir": "o"});
    let default = sibo_train::Recipe::from_value("defaults", &least)?.template;
    Ok(Template::choose(asked.unwrap_or(&default), tokenizer, speaker::now())?)
}

fn ask_all(
    wants: &[Wants],
    asked: Asked<'_>,
    cutoff: Option<usize>,
    args: &Args,
    app: &App,
) -> anyhow::Result<Vec<TaskEvaluation>> {
    let mut meter = Meter::new(app.out, wants.iter().map(|w| w.split.examples.len() as u64).sum(), 0);
    let mut before = 0;
    let mut done = Vec::new();
    for Wants { task, split, shots, distribution, leak } in wants {
        for note in &split.notes {
            meter.note(format!("{}: {note}", task.name()));
        }
        let options = EvalOptions {
            protocol: args.protocol,
            by: if args.likelihood { By::Likelihood } else { By::Written },
            batch: args.batch_size.into(),
            shots: shots.clone(),
            beams: args.num_beams.map(usize::from),
            max_new_tokens: args.max_new_tokens,
            cutoff: cutoff.unwrap_or(EvalOptions::default().cutoff),
            ..EvalOptions::default()
        };
        meter.say(task.name());
        let mut progress = |rows: usize, _: usize| meter.at(before + rows as u64);
        let mut one = evaluate(asked, task, split, &options, &mut progress, &interrupt::STOP)?;
        one.result.config["leak"] = json!(leak);
        one.result.config["distribution"] = json!(distribution);
        if let Some(cutoff) = cutoff {
            one.result.config["cutoff_len"] = json!(cutoff);
            one.result.config["shortened"] = json!(one.notes);
            one.notes.iter().for_each(|note| meter.note(format!("{}: {note}", task.name())));
        }
        done.push(one);
        before += split.examples.len() as u64;
        if interrupt::asked() {
            break;
        }
    }
    meter.finish();
    Ok(done)
}

fn config(args: &Args, trained_on: Option<String>, model: &Model) -> serde_json::Value {
    let (damage, compute) = (model.arch().damage(), model.params().compute());
    json!({
        "trained_on": trained_on,
        "model": args.model.model, "layers": args.model.cut.layers, "damage": damage,
        "adapter": args.model.adapter, "protocol": args.protocol.name(),
        "likelihood": args.likelihood, "split": args.split.to_string(), "limit": args.limit, "num_fewshot": args.num_fewshot,
        "batch_size": args.batch_size, "compute": format!("{compute:?}").to_lowercase(),
    })
}

fn show(results: &RunResults, app: &App) {
    if app.out.json() {
        app.out.result(results.to_json().to_string());
        return;
    }
    let mut table = Table::new(results.model.clone())
        .column(Column::text("task"))
        .column(Column::text("asked as"))
        .column(Column::text("metric"))
        .column(Column::number("value", 4))
        .column(Column::number("standard error", 4))
        .column(Column::number("rows", 0));
    for task in &results.tasks {
        for score in &task.scores {
            let filter = if score.filter == results::NO_FILTER {
                String::new()
            } else {
                format!(", {}", score.filter)
            };
            let metric = format!("{}{filter}", score.metric.name());
            let how = task.config["protocol"].as_str().unwrap_or_default();
            table.push(vec![
                describe::task_name(&task.task, &task.config).into(),
                how.into(),
                metric.into(),
                Cell::Number(score.score.value),
                score.score.stderr.map_or(Cell::Missing, Cell::Number),
                Cell::Number(task.effective as f64),
            ]);
        }
    }
    app.out.result(terminal::table(&table, app.out.style()));
    for (task, leak) in results.tasks.iter().filter_map(|t| Some((t, t.config["leak"].as_str()?))) {
        app.out.warn(format!("{}: {leak}; its score says little about new rows", task.task));
    }
    for task in &results.tasks {
        for (filter, count) in task.without_answer.iter().filter(|(_, n)| *n > 0) {
            app.out.note(format!(
                "{}: {count} of {} responses held no answer ({filter})",
                task.task, task.effective
            ));
        }
    }
}
