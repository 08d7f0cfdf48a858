//! `sibo train`: a recipe into an adapter.

use crate::app::App;
use crate::exit::{Interrupted, usage};
use crate::interrupt;
use crate::record::Recorder;
use crate::{describe, speaker};
use serde_json::{Value, json};
use sibo_model::Model;
use sibo_peft::Sibo;
use sibo_report::number;
use sibo_tasks::Protocol;
use sibo_train::checkpoint::{self, Checkpoint, Claim};
use sibo_train::outputs;
use sibo_train::prepare::{self, Prepared};
use sibo_train::recipe::{self, Recipe, Source};
use sibo_train::signs::{self, Sign};
use sibo_train::{End, Outcome, Settings};
use std::path::{Path, PathBuf};

const LONG_ABOUT: &str = "\
Trains an adapter on a model. Everything that a run takes stands in one file, a recipe; `sibo init` writes \
one with a comment on every line. Flags and --set change single values, and without a file they are the recipe:

    sibo train recipe.toml
    sibo train recipe.toml --lambda 0 --output-dir runs/plain
    sibo train --model smollm2-135m --task gsm8k --lambda 0.2 --output-dir runs/gsm8k
    sibo train --model smollm2-135m --rows my-rows.jsonl --output-dir runs/mine --set training.max_steps=200

The run's folder holds the resolved recipe, checkpoints, metrics (metrics.jsonl, and TensorBoard's own files), \
the best adapter and the result in `adapter/`. Ctrl-C saves a checkpoint; however a run was stopped, \
`sibo train --resume --output-dir FOLDER` goes on, to the same bits as if it had never stopped.";

/// Train an adapter from a recipe, flags, or both
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {
    /// The recipe (TOML); with --resume, by default the one in the run's folder
    #[arg(value_name = "RECIPE.toml")]
    recipe: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
    /// Change one value of the recipe: training.learning_rate=1e-4, adapter.r=16; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Go on with the run in the output folder, from its last checkpoint
    #[arg(long, conflicts_with = "overwrite")]
    resume: bool,
    /// Remove the run that the output folder holds, and start anew
    #[arg(long)]
    overwrite: bool,
}

/// Flags for what most runs change; each is a key of the recipe.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Values of the recipe")]
struct Flags {
    /// The base model: a name below --models, a folder, or a hub id
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Only the model's first K layers, and its final norm: a damaged model, for experiments on depth
    #[arg(long, value_name = "K")]
    layers: Option<String>,
    /// A benchmark to train on (`sibo tasks` lists them); several, separated by commas, are learned as one
    #[arg(long, value_name = "TASK", conflicts_with = "rows")]
    task: Option<String>,
    /// How a language model is asked about a task: clean, lm-eval, llm-adapters
    #[arg(long, value_name = "NAME")]
    protocol: Option<String>,
    /// A file of rows to train on instead of a task: instructions, chats or texts
    #[arg(long, value_name = "FILE")]
    rows: Option<String>,
    /// The folder for the run
    #[arg(long, value_name = "FOLDER")]
    output_dir: Option<String>,
    /// What is trained; `sibo methods` lists them
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// SIBO's share of the first representation, 0 <= LAMBDA < 1, or `learned`; 0 is the plain method
    #[arg(long, value_name = "LAMBDA", allow_negative_numbers = true)]
    lambda: Option<String>,
    /// How lambda moves over the steps, from --lambda-start to --lambda: constant, linear, cosine
    #[arg(long, value_name = "NAME")]
    lambda_schedule: Option<String>,
    /// Lambda at the first step of a schedule [default: 0]
    #[arg(long, value_name = "LAMBDA", allow_negative_numbers = true)]
    lambda_start: Option<String>,
    /// LoRA's rank
    #[arg(long, value_name = "N")]
    r: Option<String>,
    /// LoRA's alpha: the branch is scaled by alpha / r
    #[arg(long, value_name = "F")]
    lora_alpha: Option<String>,
    /// Modules to target, separated by commas, or all-linear
    #[arg(long, value_name = "NAMES")]
    target_modules: Option<String>,
    /// Peak learning rate
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    learning_rate: Option<String>,
    /// Passes over the rows, whatever number of steps the recipe says
    #[arg(long, value_name = "F", allow_negative_numbers = true, conflicts_with = "max_steps")]
    num_train_epochs: Option<String>,
    /// Optimiser steps, instead of passes
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_steps: Option<String>,
    /// Look at the tokens of 40 validation rows every so many steps, layer by layer: how alike they are, how large,
    /// and how much of h0 is left; `sibo report` draws it over the run
    #[arg(long, value_name = "N")]
    probe_every: Option<String>,
    /// Keep only each layer's input and compute the layer again on the way back: less memory, more time
    #[arg(long)]
    recompute: bool,
    /// Stay within so much memory (8GiB, 900MiB), by computing layers again, and if need be reading them again in every
    /// pass: more time, the same bits
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Seed of initial values, order and dropout
    #[arg(long, value_name = "N")]
    seed: Option<String>,
}

impl Flags {
    /// As assignments to the recipe's keys.
    fn assignments(&self) -> Vec<String> {
        let list = |names: &str| json!(names.split(',').map(str::trim).collect::<Vec<_>>()).to_string();
        let targets = self.target_modules.as_ref().map(|names| match names.as_str() {
            "all-linear" => json!(names).to_string(),
            names => list(names),
        });
        let task = self.task.as_ref().map(|names| match names.contains(',') {
            true => list(names),
            false => json!(names).to_string(),
        });
        let text = |v: &Option<String>| v.as_ref().map(|v| json!(v).to_string());
        [
            ("model", text(&self.model)),
            ("num_hidden_layers", self.layers.clone()),
            ("task", task),
            ("protocol", text(&self.protocol)),
            ("data", text(&self.rows)),
            ("output_dir", text(&self.output_dir)),
            ("adapter.method", text(&self.method)),
            ("adapter.sibo.lambda", self.lambda.clone()),
            ("adapter.sibo.lambda_schedule", text(&self.lambda_schedule)),
            ("adapter.sibo.lambda_start", self.lambda_start.clone()),
            ("adapter.r", self.r.clone()),
            ("adapter.lora_alpha", self.lora_alpha.clone()),
            ("adapter.target_modules", targets),
            ("training.learning_rate", self.learning_rate.clone()),
            ("training.num_train_epochs", self.num_train_epochs.clone()),
            ("training.max_steps", self.max_steps.clone()),
            ("training.probe_every", self.probe_every.clone()),
            ("training.gradient_checkpointing", self.recompute.then(|| "true".to_string())),
            ("training.memory", text(&self.memory)),
            ("seed", self.seed.clone()),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", value?)))
        .collect()
    }
}

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    let recipe = read_recipe(&args)?;
    app.threads_of_recipe(recipe.training.threads)?;
    let run_dir = recipe.output_dir.clone();
    let claim = match (args.resume, args.overwrite) {
        (true, _) => Claim::Resume,
        (false, true) => Claim::Overwrite,
        (false, false) => Claim::Fresh,
    };
    let mut prepared = prepare(&recipe, app)?;
    // Two processes in one folder would take each other's files away.
    let held = run_dir.exists().then(|| sibo_files::hold(&run_dir)).transpose()?;
    let resume = checkpoint::claim(&run_dir, claim, &recipe.to_toml())?;
    let _held = held.map_or_else(|| sibo_files::hold(&run_dir), Ok)?;
    if args.resume && resume.is_none() {
        app.out.note("the run was stopped before its first checkpoint: it starts from its beginning");
    }
    for why in resume.iter().flat_map(|from| &from.passed_over) {
        app.out.note(format!("a later checkpoint cannot be read and is passed over: {why}"));
    }
    for line in prepared.notes.iter().cloned().chain(describe::adapter_lines(&prepared.model)) {
        app.out.note(line);
    }
    let batch = prepared.eval_batch;
    let before = signs::before_run(&prepared, batch)?;
    let outcome = train(&mut prepared, &recipe, resume.as_ref(), app)?;
    if outcome.end == End::Interrupted {
        return Err(stopped(&outcome, &run_dir).into());
    }
    let adapter = prepared.save(&recipe, &outcome)?;
    let signs = signs::of_run(&prepared, &outcome.losses, before, batch)?;
    show(&outcome, &prepared.model, &adapter, &recipe, &signs, app);
    Ok(())
}

/// The file, or nothing, changed by flags and then by --set.
fn read_recipe(args: &Args) -> anyhow::Result<Recipe> {
    let file = match (&args.recipe, args.resume, &args.flags.output_dir) {
        (Some(file), _, _) => Some(file.clone()),
        (None, true, Some(folder)) => Some(Path::new(folder).join(recipe::FILE)),
        (None, true, None) => {
            return Err(usage("--resume needs the run: give --output-dir FOLDER, or the recipe"));
        }
        (None, false, _) => None,
    };
    let (place, mut value) = match &file {
        Some(file) => (file.display().to_string(), Recipe::read_value(file)?),
        None => ("command line".to_string(), json!({})),
    };
    // A flag replaces where the rows come from, whatever the file says.
    if let Some(object) = value.as_object_mut() {
        if args.flags.task.is_some() {
            object.retain(|key, _| !["data", "data_format", "validation"].contains(&key.as_str()));
        }
        if args.flags.rows.is_some() {
            object.retain(|key, _| !["task", "protocol"].contains(&key.as_str()));
        }
    }
    // A flag is the narrower word: `--set adapter={...} --lambda 0.2` keeps its lambda.
    for assignment in &args.set {
        recipe::set(&mut value, assignment)?;
    }
    // Steps stand instead of passes, so passes that are asked for would otherwise do nothing.
    if args.flags.num_train_epochs.is_some()
        && let Some(training) = value.get_mut("training").and_then(Value::as_object_mut)
    {
        training.remove("max_steps");
    }
    for assignment in &args.flags.assignments() {
        recipe::set(&mut value, assignment)?;
    }
    Ok(Recipe::from_value(&place, &value)?)
}

/// All that the recipe names, read and checked before the run's folder is touched.
fn prepare(recipe: &Recipe, app: &App) -> anyhow::Result<Prepared> {
    let prepared = prepare::prepare(recipe, &app.places.of_recipe(recipe)?, speaker::now())?;
    if let Some(validation) = &prepared.validation {
        validation.check(&prepared.model)?;
    }
    Ok(prepared)
}

fn train(
    prepared: &mut Prepared,
    recipe: &Recipe,
    resume: Option<&Checkpoint>,
    app: &App,
) -> anyhow::Result<Outcome> {
    let run_dir = &recipe.output_dir;
    let settings = Settings {
        training: recipe.training.clone(),
        seed: recipe.seed,
        run_dir: Some(run_dir.clone()),
        probe_rows: prepared.probe_rows(&recipe.training),
        plan: Some(prepared.plan),
    };
    let mut recorder =
        Recorder::new(run_dir, resume.map(|c| c.step), recipe.training.logging_steps, app.out)?;
    interrupt::listen();
    let Prepared { model, train, validation, metrics, .. } = prepared;
    let validation =
        validation.as_ref().map(|data| sibo_train::Validation { data, metrics: metrics.clone() });
    let stop = &interrupt::STOP;
    Ok(sibo_train::train(model, train, validation.as_ref(), &settings, resume, &mut recorder, stop)?)
}

/// What is kept of an interrupted run, and how to go on.
fn stopped(outcome: &Outcome, run_dir: &Path) -> Interrupted {
    let (done, total) = (outcome.steps, outcome.total_steps);
    Interrupted(match &outcome.checkpoint {
        Some(checkpoint) => format!(
            "after step {done} of {total}; the checkpoint is {}.\nTo go on: sibo train --resume --output-dir {}",
            checkpoint.display(),
            run_dir.display()
        ),
        None => format!(
            "before the first step was done.\nTo start again: sibo train --resume --output-dir {}",
            run_dir.display()
        ),
    })
}

fn show(outcome: &Outcome, model: &Model, adapter: &Path, recipe: &Recipe, signs: &[Sign], app: &App) {
    let last = outcome.records.last().map(|r| r.loss);
    let best = outcome.best.as_ref();
    let sibo = model.adapter().map(|a| &a.config.sibo);
    if app.out.json() {
        let value = json!({
            "end": outcome.end, "steps": outcome.steps, "total_steps": outcome.total_steps,
            "seconds": outcome.seconds, "tokens_per_second": outcome.tokens_per_second(), "last_loss": last,
            "peak_memory_bytes": outcome.peak_rss, "adapter": adapter.display().to_string(), "holds_step": outcome.holds_step,
            "damage": model.arch().damage(), "sibo": sibo.filter(|s| !s.is_plain()).map(Sibo::to_json),
            "learned_lambdas": describe::learned_json(model),
            "signs": signs.iter().map(Sign::to_string).collect::<Vec<_>>(),
            "best": best.map(|b| json!({"step": b.step, "metric": b.metric, "value": b.value})),
        });
        app.out.result(value.to_string());
        return;
    }
    if let Some(damage) = model.arch().damage() {
        app.out.result(damage);
    }
    let early = if outcome.end == End::StoppedEarly { ", stopped early" } else { "" };
    let memory = outcome.peak_rss.map(|b| format!(", peak memory {}", number::bytes(b))).unwrap_or_default();
    let (all, own) = (outcome.steps, outcome.records.len());
    let resumed = if own < all { format!(" ({own} since the resume)") } else { String::new() };
    app.out.result(format!(
        "{all} steps{resumed}{early} in {}, {:.0} tokens/s{memory}",
        number::duration(outcome.seconds),
        outcome.tokens_per_second()
    ));
    if let Some(best) = best {
        app.out.result(format!("best validation {}: {:.4}, at step {}", best.metric, best.value, best.step));
    }
    app.out.result(format!("adapter (step {}): {}", outcome.holds_step, adapter.display()));
    if let Some(sibo) = sibo.filter(|s| s.course.is_some()) {
        app.out.result(format!("its lambda: {}", sibo.lambda_in_words()));
    }
    if let Some(line) = describe::learned_lambdas(model) {
        app.out.result(line);
    }
    signs.iter().for_each(|sign| app.out.note(format!("Note: {sign}.")));
    app.out.note(next_step(recipe, adapter));
    if adapter.join(outputs::FILE).is_file() {
        app.out.note(format!("To ask it of new texts: sibo predict {} TEXT", with(recipe, adapter)));
    }
}

/// The words that name what was trained.
fn with(recipe: &Recipe, adapter: &Path) -> String {
    let layers = recipe.num_hidden_layers.map(|k| format!(" --layers {k}")).unwrap_or_default();
    format!("--model {}{layers} --adapter {}", recipe.model, adapter.display())
}

/// A command that asks as training did: another protocol or depth would be another model's number.
fn next_step(recipe: &Recipe, adapter: &Path) -> String {
    let with = with(recipe, adapter);
    match &recipe.source {
        Source::Tasks { tasks, protocol } => {
            let other = protocol.filter(|p| *p != Protocol::Clean);
            let protocol = other.map(|p| format!(" --protocol {p}")).unwrap_or_default();
            format!("To measure it: sibo eval {with} --tasks {}{protocol}", tasks.join(","))
        }
        Source::File { .. } => format!("To talk with it: sibo chat {with}"),
    }
}

/// A recipe's value, for tests of how flags change it.
#[cfg(test)]
fn assigned(flags: &Flags) -> serde_json::Value {
    let mut value = json!({});
    for assignment in flags.assignments() {
        recipe::set(&mut value, &assignment).unwrap();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &[&str]) -> Args {
        Only::parse_from(["train"].iter().chain(words)).args
    }

    #[test]
    fn flags_are_keys_of_the_recipe() {
        let args =
            args(&["--model", "7", "--lambda", "0.35", "--target-modules", "q_proj, v_proj", "--r", "4"]);
        assert_eq!(
            assigned(&args.flags),
            json!({"model": "7", "adapter": {"sibo": {"lambda": 0.35}, "r": 4, "target_modules": ["q_proj", "v_proj"]}})
        );
    }

    #[test]
    fn recompute_is_the_recipe_s_gradient_checkpointing() {
        let recompute = |words: &[&str]| {
            let words: Vec<&str> =
                ["--model", "m", "--rows", "r", "--output-dir", "o"].iter().chain(words).copied().collect();
            read_recipe(&args(&words)).unwrap().training.gradient_checkpointing
        };
        assert!(recompute(&["--recompute"]));
        assert!(!recompute(&[]));
    }

    #[test]
    fn a_flag_replaces_where_rows_come_from() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("r.toml");
        std::fs::write(
            &file,
            "model = \"m\"\ndata = \"rows.jsonl\"\nvalidation = \"v.jsonl\"\noutput_dir = \"o\"\n",
        )
        .unwrap();
        let recipe =
            read_recipe(&args(&[file.to_str().unwrap(), "--task", "rte", "--set", "seed=9"])).unwrap();
        assert_eq!(recipe.source, Source::Tasks { tasks: vec!["rte".into()], protocol: None });
        assert_eq!(recipe.seed, 9);
    }

    #[test]
    fn a_table_that_is_set_leaves_the_flags_their_say() {
        let words = ["--model", "m", "--rows", "r", "--output-dir", "o", "--lambda", "0.3"];
        let set = ["--set", "adapter={method=\"lora\",r=3}", "--set", "adapter.lora_alpha=5"];
        let recipe = read_recipe(&args(&[&words[..], &set].concat())).unwrap();
        assert_eq!(recipe.adapter.sibo.lambda.at(1), 0.3);
        let sibo_peft::Method::Lora(lora) = &recipe.adapter.method else { panic!("LoRA was set") };
        assert_eq!((lora.r, lora.alpha), (3, 5.0));
    }

    #[test]
    fn passes_that_are_asked_for_replace_the_recipe_s_steps() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("r.toml");
        std::fs::write(
            &file,
            "model = \"m\"\ntask = \"rte\"\noutput_dir = \"o\"\n[training]\nmax_steps = 7\n",
        )
        .unwrap();
        let length = |words: &[&str]| {
            let recipe = read_recipe(&args(&[&[file.to_str().unwrap()], words].concat())).unwrap();
            (recipe.training.max_steps, recipe.training.num_train_epochs)
        };
        assert_eq!(length(&["--num-train-epochs", "2.5"]), (None, 2.5));
        assert_eq!(length(&["--num-train-epochs", "2", "--set", "max_steps=9"]), (None, 2.0));
        assert_eq!(length(&["--max-steps", "8"]).0, Some(8));
        assert_eq!(length(&[]).0, Some(7));
        let both = ["train", "--num-train-epochs", "2", "--max-steps", "8"];
        let refused = Only::try_parse_from(both).err().expect("one of them").to_string();
        assert!(refused.contains("--num-train-epochs") && refused.contains("--max-steps"), "{refused}");
    }

    #[test]
    fn the_next_command_asks_as_training_did() {
        let next = |words: &[&str]| {
            let words = [&["--model", "m", "--output-dir", "o"], words].concat();
            next_step(&read_recipe(&args(&words)).unwrap(), Path::new("o/adapter"))
        };
        let asked = next(&["--task", "rte,qnli", "--protocol", "lm-eval", "--layers", "3"]);
        let words = "sibo eval --model m --layers 3 --adapter o/adapter --tasks rte,qnli --protocol lm-eval";
        assert_eq!(asked, format!("To measure it: {words}"));
        let usual = "To measure it: sibo eval --model m --adapter o/adapter --tasks rte";
        assert_eq!(next(&["--task", "rte"]), usual);
        assert_eq!(next(&["--task", "rte", "--protocol", "clean"]), usual);
        let talk = "To talk with it: sibo chat --model m --layers 2 --adapter o/adapter";
        assert_eq!(next(&["--rows", "r.jsonl", "--layers", "2"]), talk);
    }

    #[test]
    fn resume_alone_is_not_enough() {
        assert!(read_recipe(&args(&["--resume"])).unwrap_err().to_string().contains("--output-dir"));
    }
}
