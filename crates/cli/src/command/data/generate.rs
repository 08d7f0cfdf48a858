//! `sibo data generate`: tasks made from a seed.

use crate::app::App;
use crate::exit::usage;
use serde_json::{Value, json};
use sibo_tasks::deduction::{Asked, DEEPEST, Problem, problems, task_file};
use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

const LONG_ABOUT: &str = "\
Writes a task whose rows are made from a seed: files of rows and the task's TOML files beside them.

`deduction`: facts about two people, rules in drawn order, and a yes or no question that takes as many steps as \
the depth says. It is trained on shallow problems; `deduction.toml` tests on others of the same depths, \
`deduction-deeper.toml` on deeper ones, which are out of distribution by construction:

    sibo data generate deduction
    sibo train recipe.toml --task data/deduction/deduction.toml
    sibo eval --model MODEL --adapter ADAPTER --protocol lm-eval \\
        --tasks data/deduction/deduction.toml,data/deduction/deduction-deeper.toml

`deduction-steps.toml` and `deduction-steps-deeper.toml` are the same rows with the steps written out before the \
answer: what a small language model can learn, where yes or no at once is beyond it.

The same seed and settings give the same bytes.";

/// Write a task whose rows are made from a seed
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(super) struct Args {
    /// What is made
    #[arg(value_enum)]
    what: What,
    /// The folder for rows and task files [default: deduction, below --data]
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Steps of the problems to train on, as N or LOW-HIGH
    #[arg(long, value_name = "DEPTHS", default_value = "1-3", value_parser = depths)]
    train_depth: RangeInclusive<usize>,
    /// Steps of the deeper problems
    #[arg(long, value_name = "DEPTHS", default_value = "4-6", value_parser = depths)]
    test_depth: RangeInclusive<usize>,
    /// Problems to train on
    #[arg(long, value_name = "N", default_value_t = 2000)]
    train_rows: usize,
    /// Problems in each of the two tests
    #[arg(long, value_name = "N", default_value_t = 500)]
    test_rows: usize,
    /// What the rows are drawn by
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Replace files that are there and hold something else
    #[arg(long)]
    overwrite: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum What {
    /// Deduction of several steps
    Deduction,
}

fn depths(word: &str) -> Result<RangeInclusive<usize>, String> {
    let (low, high) = word.split_once('-').unwrap_or((word, word));
    match (low.parse::<usize>(), high.parse::<usize>()) {
        (Ok(low), Ok(high)) if 1 <= low && low <= high && high <= DEEPEST => Ok(low..=high),
        _ => Err(format!("depths are N or LOW-HIGH, from 1 to {DEEPEST}")),
    }
}

pub(super) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    let What::Deduction = args.what;
    if args.train_rows.min(args.test_rows) == 0 {
        return Err(usage("--train-rows and --test-rows must be 1 or more"));
    }
    if args.test_depth.start() <= args.train_depth.end() {
        return Err(usage(format!(
            "--test-depth {} begins within --train-depth {}: the deeper problems must be out of the training's distribution",
            shown(&args.test_depth),
            shown(&args.train_depth)
        )));
    }
    let folder = args.folder.clone().unwrap_or_else(|| app.places.roots().data.join("deduction"));
    let mut taken = HashSet::new();
    let files = [
        ("train", args.train_rows, &args.train_depth),
        ("test", args.test_rows, &args.train_depth),
        ("deeper", args.test_rows, &args.test_depth),
    ];
    let mut made: Vec<(&str, Vec<Problem>)> = Vec::new();
    for (stream, (name, rows, depths)) in files.into_iter().enumerate() {
        let found = problems(args.seed, stream as u64, rows, depths.clone(), &mut taken);
        if found.len() < rows {
            let (had, depths) = (found.len(), shown(depths));
            return Err(usage(format!(
                "there are only {had} more problems of depth {depths}; ask for fewer"
            )));
        }
        made.push((name, found));
    }
    let mut files: Vec<(PathBuf, String)> = Vec::new();
    for (name, problems) in &made {
        let text = problems.iter().map(|p| json!(p).to_string() + "\n").collect();
        files.push((folder.join(format!("{name}.jsonl")), text));
    }
    for (form, asked) in [("deduction", Asked::Answer), ("deduction-steps", Asked::Steps)] {
        for (ending, test, depths) in
            [("", "test", &args.train_depth), ("-deeper", "deeper", &args.test_depth)]
        {
            let name = format!("{form}{ending}");
            files.push((folder.join(format!("{name}.toml")), task_file(asked, &name, test, &shown(depths))));
        }
    }
    // Adapters may have learned from the rows that are there.
    let other =
        |(path, text): &&(PathBuf, String)| std::fs::read(path).is_ok_and(|own| own != text.as_bytes());
    if let Some((path, _)) = files.iter().find(other).filter(|_| !args.overwrite) {
        return Err(usage(format!(
            "{}: is there and holds something else; give another folder, or --overwrite",
            path.display()
        )));
    }
    std::fs::create_dir_all(&folder).map_err(|e| sibo_files::Error::io(&folder, "make the folder", e))?;
    for (path, text) in &files {
        sibo_files::write(path, text.as_bytes())?;
    }
    tell(&folder, &made, app);
    Ok(())
}

fn shown(depths: &RangeInclusive<usize>) -> String {
    match depths.start() == depths.end() {
        true => depths.start().to_string(),
        false => format!("{} to {}", depths.start(), depths.end()),
    }
}

fn tell(folder: &Path, made: &[(&str, Vec<Problem>)], app: &App) {
    if app.out.json() {
        let rows: serde_json::Map<String, Value> =
            made.iter().map(|(name, problems)| (name.to_string(), json!(problems.len()))).collect();
        app.out.result(json!({"folder": folder.display().to_string(), "rows": rows}).to_string());
        return;
    }
    for (name, problems) in made {
        app.out.result(format!("{:<7} {} rows, such as: {}", name, problems.len(), problems[0].question));
    }
    let task = |name: &str| folder.join(name).display().to_string();
    app.out.note(format!("train on it: --task {}", task("deduction.toml")));
    app.out.note(format!("measure: --tasks {},{}", task("deduction.toml"), task("deduction-deeper.toml")));
    app.out.note("with the steps written out: deduction-steps.toml, deduction-steps-deeper.toml");
}
