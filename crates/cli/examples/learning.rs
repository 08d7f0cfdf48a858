//! The page of `runs/learning`: what its finished cells show, as `docs/learning.md` with its plots.
//!
//! `learning best OUT` prints the lambda with the lowest validation loss; `learning page OUT DOCS` writes the page.

use anyhow::Context;
use serde_json::Value;
use sibo_report::{Axis, Block, Cell, Column, Document, Estimate, LineChart, Series, Table, Tone};
use sibo_tasks::{SplitName, Target, Task, Wanted, stats};
use std::collections::BTreeMap;
use std::path::Path;

/// The lambdas among which `best` chooses, with seed 1.
const GRID: [&str; 3] = ["0.1", "0.2", "0.4"];

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["best", out] => println!("{}", best(Path::new(out))?),
        ["page", out, docs] => page(Path::new(out), Path::new(docs))?,
        _ => anyhow::bail!("usage: learning best OUT | learning page OUT DOCS"),
    }
    Ok(())
}

/// (step, validation loss).
type Curve = Vec<(f64, f64)>;

/// The curve of a cell; none where it has not run.
fn curve(cell: &Path) -> Curve {
    let Ok(lines) = sibo_report::jsonl::read::<Value>(&cell.join("metrics.jsonl")) else { return vec![] };
    let evaluations = lines.records.iter().filter(|r| r["kind"] == "evaluation");
    evaluations.filter_map(|r| Some((r["step"].as_f64()?, r["eval_loss"].as_f64()?))).collect()
}

fn lowest(points: &[(f64, f64)]) -> f64 {
    points.iter().map(|p| p.1).fold(f64::INFINITY, f64::min)
}

fn best(out: &Path) -> anyhow::Result<&'static str> {
    let loss = |l: &&str| lowest(&curve(&out.join(format!("gsm8k-{l}-1"))));
    let chosen = GRID.into_iter().min_by(|a, b| loss(a).total_cmp(&loss(b)));
    chosen.filter(|l| loss(l).is_finite()).context("no cell of the grid has run")
}

fn page(out: &Path, docs: &Path) -> anyhow::Result<()> {
    let mut document =
        Document::new("Learning seen on real data", "What the finished cells of `runs/learning` show.");
    gsm8k(out, &mut document);
    arc_easy(out, &mut document)?;
    encoders(out, &mut document)?;
    std::fs::create_dir_all(docs.join("learning"))?;
    sibo_report::save::save_parts(&document, &docs.join("learning"))?;
    // A Markdown page has the numbers of a plot; here the plot itself lies beside it.
    let plot = "![Validation loss on GSM8K, plain and SIBO](learning/validation-loss-on-gsm8k.svg)";
    let title = "**Validation loss on GSM8K: values**";
    let text = sibo_report::markdown::render(&document).replace(title, &format!("{plot}\n\n{title}"));
    sibo_files::write(&docs.join("learning.md"), text.as_bytes())?;
    Ok(())
}

/// Validation loss over steps, plain and SIBO, all seeds.
fn gsm8k(out: &Path, document: &mut Document) {
    let mut runs: BTreeMap<String, Vec<(String, Curve)>> = BTreeMap::new();
    for name in cells(out, "gsm8k-") {
        let mut parts = name.splitn(3, '-').skip(1);
        if let (Some(lambda), Some(seed)) = (parts.next(), parts.next()) {
            let points = curve(&out.join(&name));
            runs.entry(lambda.into()).or_default().push((seed.into(), points));
        }
    }
    let mut table =
        Table::new("Validation loss on 120 held-out training rows of GSM8K, SmolLM2-135M, LoRA r 32")
            .column(Column::text("lambda"))
            .column(Column::text("seed"))
            .column(Column::number("before", 4))
            .column(Column::number("after 100 steps", 4))
            .column(Column::number("lowest", 4));
    let mut series = Vec::new();
    for (at, (lambda, seeds)) in runs.iter().enumerate() {
        for (seed, points) in seeds {
            let (Some(first), Some(last)) = (points.first(), points.last()) else { continue };
            table.push(vec![
                lambda.as_str().into(),
                seed.as_str().into(),
                first.1.into(),
                last.1.into(),
                lowest(points).into(),
            ]);
        }
        let curves: Vec<_> = seeds.iter().map(|s| s.1.clone()).collect();
        let (name, tone) = match lambda.as_str() {
            "0" => ("LoRA".to_string(), Tone::Plain),
            _ => (
                format!("SIBO-LoRA, lambda {lambda}"),
                if at == 1 { Tone::Sibo } else { Tone::Other(at as u8) },
            ),
        };
        series.push(Series::over_runs(&name, tone, &curves));
    }
    if series.is_empty() {
        return;
    }
    let chart = LineChart {
        title: "Validation loss on GSM8K".into(),
        caption: "SmolLM2-135M, 16 rows a step; mean of the seeds that have run.".into(),
        x: Axis::new("optimiser step", 0),
        y: Axis::new("validation loss", 3),
        series,
        band: Some("lowest and highest seed".into()),
    };
    document
        .section("GSM8K", format!("100 steps of 16 rows of GSM8K's own train rows. {}", paired(&runs)))
        .push(chart.into())
        .push(table.into());
}

/// Plain and SIBO at the lambda that has most seeds: the paired difference of their lowest validation losses.
fn paired(runs: &BTreeMap<String, Vec<(String, Curve)>>) -> String {
    let boosted = runs.iter().filter(|(lambda, _)| *lambda != "0").max_by_key(|(_, seeds)| seeds.len());
    let (Some(plain), Some((lambda, sibo))) = (runs.get("0"), boosted) else { return String::new() };
    let of = |seeds: &[(String, Curve)]| seeds.iter().map(|(_, points)| lowest(points)).collect::<Vec<_>>();
    let Ok(test) = stats::paired_t(&of(plain), &of(sibo), 0.95) else { return String::new() };
    let d = test.difference;
    let found = match (d.holds_zero(), d.estimate > 0.0) {
        (true, _) => "no difference can be told apart",
        (false, true) => "the plain method is better",
        (false, false) => "SIBO is better",
    };
    format!(
        "With lambda {lambda}, the lowest of its grid at seed 1, SIBO minus plain is {:+.4}, 95 % interval {:+.4} to {:+.4} over {} \
         seeds (paired t): {found}.",
        d.estimate,
        d.low,
        d.high,
        sibo.len()
    )
}

/// A metric of a cell: its value and its standard error over rows.
type Score = (f64, f64);

/// The scores of a cell's evaluation by metric; empty where it has not run.
fn scores(cell: &Path) -> anyhow::Result<BTreeMap<String, Score>> {
    let mut found = BTreeMap::new();
    for path in results(cell) {
        let value = sibo_files::json::read(&path)?;
        let metrics = value["results"].as_object().into_iter().flatten().filter_map(|(_, m)| m.as_object());
        for (metrics, key, number) in metrics.flat_map(|m| m.iter().map(move |(k, n)| (m, k, n))) {
            let Some((metric, filter)) = key.split_once(',') else { continue };
            let error = metrics.get(&format!("{metric}_stderr,{filter}")).and_then(Value::as_f64);
            if let (Some(number), Some(error)) = (number.as_f64(), error) {
                found.insert(metric.to_string(), (number, error));
            }
        }
    }
    Ok(found)
}

/// Standard errors of a normal 95 % interval.
const WIDE: f64 = 1.959_964;

fn between((value, error): Score) -> Cell {
    Cell::Estimate(Estimate::between(value, value - WIDE * error, value + WIDE * error))
}

/// The likelihood score of all test rows, before and after.
fn arc_easy(out: &Path, document: &mut Document) -> anyhow::Result<()> {
    let (before, after) = (scores(&out.join("arc-easy-base"))?, scores(&out.join("arc-easy-0-test"))?);
    let mut table = Table::new("ARC-easy, likelihood of the choices on all 2,376 test rows, SmolLM2-135M")
        .column(Column::text("metric"))
        .column(Column::number("base [95 %]", 4))
        .column(Column::number("LoRA, one pass [95 %]", 4))
        .column(Column::number("gain in standard errors", 1))
        .note("The standard error of the gain is that of two independent sets of rows, which is too large for the same rows twice.");
    for (metric, after) in &after {
        let Some(before) = before.get(metric) else { continue };
        let gain = (after.0 - before.0) / before.1.hypot(after.1);
        table.push(vec![metric.as_str().into(), between(*before), between(*after), gain.into()]);
    }
    if !table.rows.is_empty() {
        document
            .section(
                "ARC-easy",
                "Trained on the task's own 2,251 train rows in lm-evaluation-harness's words.",
            )
            .push(Block::Table(table));
    }
    Ok(())
}

/// What always naming the most frequent class of the test rows scores.
fn majority(task: &str, metric: &str) -> anyhow::Result<f64> {
    if metric == "mcc" {
        return Ok(0.0);
    }
    let rows = Task::named(task)?.load(Path::new("data"), SplitName::Test, &Wanted::default())?.examples;
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    rows.iter().filter_map(|r| if let Target::Class(c) = r.target { Some(c) } else { None }).for_each(|c| {
        *counts.entry(c).or_default() += 1;
    });
    Ok(*counts.values().max().context("no classes")? as f64 / rows.len() as f64)
}

/// Encoders on GLUE's tasks: each method's mean over the seeds that have run, beside the majority class.
fn encoders(out: &Path, document: &mut Document) -> anyhow::Result<()> {
    let mut table = Table::new("GLUE's official development rows, read once by each run; all-MiniLM-L6-v2")
        .column(Column::text("task"))
        .column(Column::text("method"))
        .column(Column::text("metric"))
        .column(Column::number("mean [95 % over rows]", 3))
        .column(Column::text("seeds 1, 2, 3"))
        .column(Column::number("one class always", 3))
        .column(Column::text("above it"));
    for (task, metric) in [("qnli", "acc"), ("cola", "mcc"), ("rte", "acc")] {
        for method in ["lora", "pfeiffer", "full", "head"] {
            let mut seeds = Vec::new();
            for seed in 1..=3 {
                seeds.extend(scores(&out.join(format!("{task}-{method}-{seed}-test")))?.get(metric).copied());
            }
            if seeds.is_empty() {
                continue;
            }
            let mean = |of: fn(&Score) -> f64| seeds.iter().map(of).sum::<f64>() / seeds.len() as f64;
            let (value, error) = (mean(|s| s.0), mean(|s| s.1));
            let always = majority(task, metric)?;
            let above = if value - WIDE * error > always { "yes" } else { "not told apart" };
            let each: Vec<String> = seeds.iter().map(|s| format!("{:.3}", s.0)).collect();
            table.push(vec![
                task.into(),
                method.into(),
                metric.into(),
                between((value, error)),
                each.join(" ").into(),
                always.into(),
                above.into(),
            ]);
        }
    }
    if !table.rows.is_empty() {
        let text = "QNLI and RTE: 2,000 train rows; CoLA: all of them but the validation tenth; three passes. The same rows judge \
                    every seed, so the interval is of the rows; the seeds stand beside it.";
        document.section("Encoders", text).push(Block::Table(table));
    }
    Ok(())
}

fn cells(out: &Path, start: &str) -> Vec<String> {
    let entries = std::fs::read_dir(out).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|n| n.starts_with(start));
    names.sort();
    names
}

/// `results_*.json` below a cell, at any depth of two.
fn results(cell: &Path) -> Vec<std::path::PathBuf> {
    let list = |folder: &Path| -> Vec<std::path::PathBuf> {
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect()
    };
    let mut found: Vec<_> =
        list(cell).into_iter().flat_map(|p| if p.is_dir() { list(&p) } else { vec![p] }).collect();
    found.retain(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("results_")));
    found
}
