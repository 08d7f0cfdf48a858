//! `sibo sweep`: settings chosen on validation rows; the test rows are read once, by the best of each kind.

use crate::app::App;
use crate::exit::usage;
use crate::study::{self, Arm, Derived, Finding, SUGGESTED, Study, StudyArgs, Suggested, Suggester};
use serde_json::{Value, json};
use sibo_report::{Axis as PlotAxis, Block, LineChart, Point, Series, Tone};
use sibo_tasks::SplitName;
use sibo_train::cells::{self, Axis, Log, Pairing, Record};
use sibo_train::recipe::{self, Recipe};
use std::cmp::Ordering;
use std::path::PathBuf;

const LONG_ABOUT: &str = "\
Tries lambda over a grid (0 to 0.7 unless told otherwise), any other key of the recipe by --set-grid, or both; every \
combination with every seed. The choice is made on validation rows, by the mean over seeds. Then the test rows are \
read, once, by the best plain and the best boosted combination, of which the winner is one.

    sibo sweep recipe.toml
    sibo sweep recipe.toml --lambda 0,0.1,0.3 --set-grid learning_rate=3e-4,1e-3
    sibo sweep recipe.toml --set-grid adapter.r=4,8,16 --choose loss
    sibo sweep recipe.toml --halving
    sibo sweep recipe.toml --lambda 0,0.2,0.4,learned
    sibo sweep recipe.toml --lambda 0,0.2,suggested
    sibo sweep recipe.toml --lambda 0.2,0.4 --set-grid adapter.sibo.lambda_schedule=constant,linear
    sibo sweep recipe.toml --set-grid 'adapter.sibo={lambda=0},{lambda=0.4,lambda_start=0.1}'

A table as a value takes the place of the recipe's whole table.

`suggested` is the lambda that the rule of `sibo smoothing --suggest-lambda` reads off one forward pass of the base over \
rows of train, at the sites of the recipe's adapter; it is computed once and kept in suggested.json.

With --halving all combinations run a quarter of the steps, the better half of them one half, and the better half \
of those all: cheaper, and it can drop a combination that learns late. A sweep that was stopped goes on by the same \
command and repeats no finished cell.";

/// The grid of the paper's figures, with the plain method in it.
const LAMBDAS: &str = "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7";

/// The key that `--lambda` varies.
const LAMBDA: &str = "adapter.sibo.lambda";

/// Try lambda and other settings; choose on validation rows, read the test once
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {
    #[command(flatten)]
    study: StudyArgs,
    /// Values of lambda [default: 0 to 0.7 in steps of 0.1, or the recipe's own where --set-grid is given]
    #[arg(long, value_name = "LAMBDAS")]
    lambda: Option<String>,
    /// Values of another key of the recipe: learning_rate=3e-4,1e-3; may be given several times
    #[arg(long, value_name = "KEY=A,B,C")]
    set_grid: Vec<String>,
    /// By what the winner is chosen: `loss` (lower is better) or a metric of the task [default: its first metric; the loss
    /// for a mixture of tasks]
    #[arg(long, value_name = "NAME")]
    choose: Option<String>,
    /// Successive halving: a quarter of the steps for all, all steps for the best
    #[arg(long)]
    halving: bool,
}

/// What the winner is chosen by, on validation rows.
enum Choice {
    Loss,
    Metric(String),
}

impl Choice {
    fn name(&self) -> &str {
        match self {
            Choice::Loss => "loss",
            Choice::Metric(name) => name,
        }
    }

    /// A value of one run; more is better.
    fn of(&self, record: &Record) -> f64 {
        match self {
            Choice::Loss => record.validation_loss().map_or(f64::NEG_INFINITY, |l| -l),
            Choice::Metric(name) => {
                let judged = record.judged.iter().find(|j| j.metric.name() == name);
                judged.map_or(f64::NEG_INFINITY, |j| j.value)
            }
        }
    }

    /// A value as people know it.
    fn shown(&self, value: f64) -> f64 {
        if matches!(self, Choice::Loss) { -value } else { value }
    }

    /// The mean over the seeds of an arm.
    fn mean(&self, records: &[Record], arm: &str) -> f64 {
        let own: Vec<f64> = records.iter().filter(|r| r.arm == arm).map(|r| self.of(r)).collect();
        own.iter().sum::<f64>() / own.len().max(1) as f64
    }

    /// What arms are ranked by: the mean, and of equals, which few rows make many, the validation loss.
    fn rank(&self, records: &[Record], arm: &str) -> [f64; 2] {
        // What is no number is the worst.
        let worst = |value: f64| if value.is_nan() { f64::NEG_INFINITY } else { value };
        match has_diverged(records, arm) {
            true => [f64::NEG_INFINITY; 2],
            false => [self.mean(records, arm), Choice::Loss.mean(records, arm)].map(worst),
        }
    }

    /// The best of these arms of which no run diverged; the first of those that are equal in both.
    fn best<'a>(&self, records: &[Record], arms: impl Iterator<Item = &'a Arm>) -> Option<&'a Arm> {
        let mut best: Option<(&Arm, [f64; 2])> = None;
        for arm in arms.filter(|arm| !has_diverged(records, &arm.name)) {
            let rank = self.rank(records, &arm.name);
            if best.is_none_or(|(_, b)| order(&rank, &b).is_gt()) {
                best = Some((arm, rank));
            }
        }
        best.map(|b| b.0)
    }
}

fn has_diverged(records: &[Record], arm: &str) -> bool {
    records.iter().any(|r| r.arm == arm && r.diverged.is_some())
}

fn order(a: &[f64; 2], b: &[f64; 2]) -> Ordering {
    a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1]))
}

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    let study = Study::open("sweep", &args.study, app)?;
    let choice = choice(&args, &study)?;
    let (mut arms, suggested) = arms(&args, &study, &choice, app)?;
    let mut log = Log::open(&study.folder)?;
    // The winner will be told by them: what they can tell is said before anything is trained.
    let mut facts = study.judged_by(&study.judges(SplitName::Test)?, app)?;
    let mut dropped = Vec::new();
    if args.halving {
        arms = halve(&study, arms, &choice, &mut log, &mut dropped, app)?;
    }
    let cells = study.cells(&arms.iter().collect::<Vec<_>>(), &study.judges(SplitName::Validation)?)?;
    facts.extend(study.announce(&cells, &log, app)?);
    facts.extend(suggested.iter().map(|s| ("Suggested lambda".to_string(), s.sentence.clone())));
    let records = study.run(&cells, &mut log, app)?;
    let winner = choice.best(&records, arms.iter()).ok_or_else(|| all_diverged(&records))?;
    let plain = choice.best(&records, arms.iter().filter(|a| is_plain(&a.value)));
    let boosted = choice.best(&records, arms.iter().filter(|a| !is_plain(&a.value)));
    app.out.note(format!("chosen by validation {}: {}; now the test rows, once", choice.name(), winner.name));
    // The winner and the best of the other kind: a sweep that plain wins still answers what SIBO does.
    let finalists: Vec<&Arm> = [plain, boosted].into_iter().flatten().collect();
    let last = study.cells(&finalists, &study.judges(SplitName::Test)?)?;
    let tested = study.run(&last, &mut log, app)?;
    let pairs: Vec<Pairing> =
        finalists.windows(2).map(|two| Pairing { a: two[0].name.clone(), b: two[1].name.clone() }).collect();
    let mut shown = study::derive(&tested, &pairs)?;
    let verdict = verdict(&study, &shown, &tested, &pairs, &winner.name, &choice);
    let validation = study::derive(&records, &plain_pairs(&arms))?.without_noise();
    shown.questions.extend(validation.questions);
    shown.signs = validation.signs;
    let mean = |a: &Arm| json!({"arm": a.name, "mean": choice.shown(choice.mean(&records, &a.name))});
    let file = keep(&study, winner)?;
    let own = json!({"winner": winner.name, "winner_recipe": WINNER, "chosen_by": choice.name(),
        "validation": arms.iter().map(mean).collect::<Vec<_>>(), "dropped_early": dropped, "suggested": suggested});
    let finding = Finding {
        title: format!("Sweep of {}: {} on {}", methods(&arms), study.recipe.model, study.task_names()),
        verdict,
        facts,
        first: charts(&args, &arms, &records, &choice),
        records: merged(records, tested),
        pairs,
        refused: vec![],
        own,
    };
    study::tell(&study, &finding, shown, app)?;
    app.out.note(format!("The winner as a recipe: sibo train {}", file.display()));
    Ok(())
}

fn all_diverged(records: &[Record]) -> anyhow::Error {
    let first = records.iter().find_map(|r| Some((r, r.diverged.as_ref()?)));
    let first = first.map(|(r, why)| format!("; {}, seed {}: {why}", r.arm, r.seed)).unwrap_or_default();
    anyhow::anyhow!(
        "every combination has a run that diverged, so none can be chosen{first}. Try lower learning rates: --set-grid \
         learning_rate=A,B"
    )
}

/// The methods that were tried, each once.
fn methods(arms: &[Arm]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for arm in arms {
        let recipe = Recipe::from_value(&arm.name, &arm.value);
        let method = recipe.map_or("", |recipe| recipe.adapter.method.name());
        if !names.contains(&method) {
            names.push(method);
        }
    }
    names.join(", ")
}

/// The file, in the study's folder, that trains the winner.
const WINNER: &str = "winner.toml";

fn keep(study: &Study, winner: &Arm) -> anyhow::Result<PathBuf> {
    let mut value = winner.value.clone();
    value["output_dir"] = json!(study.folder.join("winner").display().to_string());
    let file = study.folder.join(WINNER);
    sibo_files::write(&file, Recipe::from_value(&winner.name, &value)?.to_toml().as_bytes())?;
    Ok(file)
}

/// The winner, what it scored on the test rows, and whether that differs from the best plain combination.
fn verdict(
    study: &Study,
    test: &Derived,
    tested: &[Record],
    pairs: &[Pairing],
    winner: &str,
    choice: &Choice,
) -> String {
    let question = test.questions.first();
    let scores = question.map(|q| cells::scores(tested, q)).unwrap_or_default();
    let value = scores.iter().find(|s| s.arm == winner).map_or(f64::NAN, |s| s.mean);
    let metric = question.map_or("score", |q| q.metric.name());
    let beside = match pairs.first() {
        Some(pair) => study::sentence(study, test, pair) + ".",
        None => "No other combination has read the test rows.".into(),
    };
    let by = choice.name();
    let on = match study.tasks.as_slice() {
        [] | [_] => String::new(),
        several => format!(" of {}", several[0].name()),
    };
    format!(
        "The winner by validation {by} is {winner}; on the test rows{on} its mean {metric} is {value:.4}. {beside}"
    )
}

/// Cells on validation rows, with the numbers of test rows added to those that read them.
fn merged(mut records: Vec<Record>, tested: Vec<Record>) -> Vec<Record> {
    for test in tested {
        if let Some(own) = records.iter_mut().find(|r| r.arm == test.arm && r.seed == test.seed) {
            own.judged.extend(test.judged);
        }
    }
    records
}

/// Every boosted combination beside the plain one that has all its other keys, for signs: what another learning rate does
/// is no sign of lambda's.
fn plain_pairs(arms: &[Arm]) -> Vec<Pairing> {
    let rest = |arm: &Arm| {
        let mut value = arm.value.clone();
        if let Some(adapter) = value.pointer_mut("/adapter").and_then(Value::as_object_mut) {
            adapter.remove("sibo");
        }
        value
    };
    let (plain, boosted): (Vec<&Arm>, Vec<&Arm>) = arms.iter().partition(|a| is_plain(&a.value));
    let pair = |b: &&Arm| {
        let twin = plain.iter().find(|a| rest(a) == rest(b))?;
        Some(Pairing { a: twin.name.clone(), b: b.name.clone() })
    };
    boosted.iter().filter_map(pair).collect()
}

fn is_plain(value: &Value) -> bool {
    // Judged as a run would: a learned lambda and a schedule from above zero are not the plain method.
    Recipe::from_value("sweep", value).is_ok_and(|recipe| recipe.adapter.sibo.is_plain())
}

fn choice(args: &Args, study: &Study) -> anyhow::Result<Choice> {
    let metrics = study.measures(&study.judges(SplitName::Validation)?);
    if study.tasks.len() > 1 {
        // No metric belongs to all of them.
        return match args.choose.as_deref() {
            None | Some("loss") => Ok(Choice::Loss),
            Some(name) => Err(usage(format!("--choose {name}: a mixture of tasks is chosen by its loss"))),
        };
    }
    match args.choose.as_deref() {
        Some("loss") => Ok(Choice::Loss),
        None => Ok(Choice::Metric(metrics.first().map(|m| m.to_string()).unwrap_or_default())),
        Some(name) if metrics.contains(&name) => Ok(Choice::Metric(name.into())),
        Some(name) => Err(usage(format!("--choose {name}: this task has loss, {}", metrics.join(", ")))),
    }
}

/// Every combination as a recipe, lambda varying fastest, and what was suggested for them.
fn arms(
    args: &Args,
    study: &Study,
    choice: &Choice,
    app: &App,
) -> anyhow::Result<(Vec<Arm>, Vec<Suggested>)> {
    let mut axes =
        args.set_grid.iter().map(|text| Axis::parse("--set-grid", text)).collect::<Result<Vec<_>, _>>()?;
    let lambdas = match (&args.lambda, axes.is_empty()) {
        (Some(list), _) => Some(list.as_str()),
        (None, true) => Some(LAMBDAS),
        (None, false) => None,
    };
    if let Some(list) = lambdas {
        axes.push(Axis::parse("--lambda", &format!("{LAMBDA}={list}"))?);
    }
    for axis in &axes {
        let within =
            |other: &&Axis| other.key.strip_prefix(&axis.key).is_some_and(|rest| rest.starts_with('.'));
        if let Some(other) = axes.iter().find(within) {
            return Err(usage(format!(
                "`{}` is within `{}`, so one would undo the other; put both into one --set-grid",
                other.key, axis.key
            )));
        }
    }
    let mut suggester = Suggester::open(study)?;
    let (mut named, mut by_rule, mut suggested) = (Vec::new(), Vec::new(), Vec::new());
    for (name, sets) in cells::grid(&axes) {
        let mut value = study.value.clone();
        sets.iter().try_for_each(|set| recipe::set(&mut value, set))?;
        let mut arm = Arm { name, value };
        study.check_judged("--set-grid", &arm)?;
        if matches!(choice, Choice::Loss) {
            study.check_loss("--set-grid", &arm)?;
        }
        let rule = arm.value.pointer("/adapter/sibo/lambda").and_then(Value::as_str) == Some(SUGGESTED);
        if rule {
            suggested.push(suggester.fill(&mut arm, app)?);
            by_rule.push(arm.value.clone());
        }
        named.push((arm, rule));
    }
    for (i, (arm, _)) in named.iter().enumerate().filter(|(_, (_, rule))| !rule) {
        if let Some((twin, _)) = named[..i].iter().find(|(own, rule)| !rule && own.value == arm.value) {
            return Err(usage(format!(
                "`{}` and `{}` are one combination; name it once",
                twin.name, arm.name
            )));
        }
    }
    // A number that is named too would be the same cells under two names.
    named.retain(|(arm, rule)| *rule || !by_rule.contains(&arm.value));
    Ok((named.into_iter().map(|(arm, _)| arm).collect(), suggested))
}

/// Rounds of fewer steps, after each of which the better half goes on.
fn halve(
    study: &Study,
    mut arms: Vec<Arm>,
    choice: &Choice,
    log: &mut Log,
    dropped: &mut Vec<String>,
    app: &App,
) -> anyhow::Result<Vec<Arm>> {
    let rows = study.train_rows()?;
    let total = study.recipe.training.total_steps(rows);
    for part in [4, 2] {
        if arms.len() < 3 {
            break;
        }
        let steps = total.div_ceil(part);
        let short: Vec<Arm> = arms
            .iter()
            .map(|arm| {
                let mut value = arm.value.clone();
                recipe::set(&mut value, &format!("training.max_steps={steps}"))?;
                Ok(Arm { name: format!("{} ({steps} steps)", arm.name), value })
            })
            .collect::<anyhow::Result<_>>()?;
        app.out.note(format!("{} combinations with {steps} of {total} steps", arms.len()));
        let cells = study.cells(&short.iter().collect::<Vec<_>>(), &study.judges(SplitName::Validation)?)?;
        let records = study.run(&cells, log, app)?;
        let mut ranked: Vec<([f64; 2], Arm)> =
            arms.into_iter().zip(&short).map(|(arm, s)| (choice.rank(&records, &s.name), arm)).collect();
        // Stable: of equals, those that stand first in the grid stay.
        ranked.sort_by(|a, b| order(&b.0, &a.0));
        let mut out = ranked.split_off(ranked.len().div_ceil(2));
        // Without one plain and one boosted combination at the end, nothing would be said of lambda.
        for plain in [true, false] {
            let is = |ranked: &([f64; 2], Arm)| is_plain(&ranked.1.value) == plain;
            if !ranked.iter().any(is)
                && let Some(at) = out.iter().position(is)
            {
                ranked.push(out.remove(at));
            }
        }
        dropped.extend(out.into_iter().map(|(rank, a)| match rank[0].is_finite() {
            true => format!("{} after {steps} steps, {:.4}", a.name, choice.shown(rank[0])),
            false => format!("{} after {steps} steps, diverged", a.name),
        }));
        arms = ranked.into_iter().map(|r| r.1).collect();
    }
    Ok(arms)
}

/// A combination's lambda, where it is one number that stays, and its recipe without it.
fn beside_lambda(value: &Value) -> Option<(f64, Value)> {
    let lambda = value.pointer("/adapter/sibo/lambda").and_then(Value::as_f64)?;
    let mut rest = Recipe::from_value("sweep", value).ok()?.to_value();
    let sibo = rest.pointer_mut("/adapter/sibo").and_then(Value::as_object_mut);
    let moves = sibo.as_ref().is_some_and(|sibo| sibo.contains_key("lambda_schedule"));
    if let Some(sibo) = sibo {
        sibo.remove("lambda");
    }
    (!moves).then_some((lambda, rest))
}

/// A combination's name without its lambda.
fn unnumbered(name: &str) -> String {
    let number = |part: &str| part.strip_prefix("lambda ").is_some_and(|l| !l.starts_with(['[', 'l']));
    name.split(", ").filter(|part| !number(part)).collect::<Vec<_>>().join(", ")
}

/// The chosen value over lambda, a line for each combination of all else, with bands over seeds.
fn charts(args: &Args, arms: &[Arm], records: &[Record], choice: &Choice) -> Vec<Block> {
    let mut lines: Vec<(String, Vec<Point>)> = Vec::new();
    let mut keys: Vec<Value> = Vec::new();
    let mut undrawn: Vec<&str> = Vec::new();
    for arm in arms.iter().filter(|arm| !has_diverged(records, &arm.name)) {
        let Some((x, rest)) = beside_lambda(&arm.value) else {
            undrawn.push(&arm.name);
            continue;
        };
        let name = unnumbered(&arm.name);
        let sign = if matches!(choice, Choice::Loss) { -1.0 } else { 1.0 };
        let own: Vec<f64> =
            records.iter().filter(|r| r.arm == arm.name).map(|r| sign * choice.of(r)).collect();
        let (low, high) =
            own.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
        let y = own.iter().sum::<f64>() / own.len().max(1) as f64;
        let point = Point { x, y, range: (own.len() > 1).then_some((low, high)) };
        match keys.iter().position(|key| *key == rest) {
            Some(at) => {
                lines[at].1.push(point);
                // Of names that differ by what is at its default, the longer says more.
                if name.len() > lines[at].0.len() {
                    lines[at].0 = name;
                }
            }
            None => {
                keys.push(rest);
                lines.push((name, vec![point]));
            }
        }
    }
    for line in lines.iter_mut().filter(|line| line.0.is_empty()) {
        line.0 = "mean of the seeds".into();
    }
    lines.iter_mut().for_each(|l| l.1.sort_by(|a, b| a.x.total_cmp(&b.x)));
    if lines.iter().all(|l| l.1.len() < 2) {
        return vec![];
    }
    let looks = [Tone::Sibo, Tone::Plain].into_iter().chain((0..4).cycle().map(Tone::Other));
    let series = lines.into_iter().zip(looks).map(|((name, points), tone)| Series::new(name, tone, points));
    let left = match undrawn.is_empty() {
        true => String::new(),
        false => format!(" Not drawn, for lambda is no one number there: {}.", undrawn.join("; ")),
    };
    let halved = if args.halving { " Combinations that were dropped early are not shown." } else { "" };
    vec![
        LineChart {
            title: format!("Validation {} over lambda", choice.name()),
            caption: format!("lambda = 0 is the plain method.{halved}{left}"),
            x: PlotAxis::new("lambda", 2),
            y: PlotAxis::new(format!("validation {}", choice.name()), 4),
            series: series.collect(),
            band: Some("range of the seeds".into()),
        }
        .into(),
    ]
}
