//! The page of `runs/learning`: what its finished cells show, as `docs/learning.md` with its plots.
//!
//! `learning best OUT` prints the lambda with the lowest validation loss; `learning page OUT DOCS` writes the page.

use anyhow::Context;
use serde_json::Value;
use sibo_report::{Axis, Block, Column, Document, LineChart, Series, Table, Tone};
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
    scores(out, &mut document)?;
    std::fs::create_dir_all(docs.join("learning"))?;
    sibo_report::save::save_parts(&document, &docs.join("learning"))?;
    sibo_files::write(&docs.join("learning.md"), sibo_report::markdown::render(&document).as_bytes())?;
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
        .section("GSM8K", "100 steps of 16 rows of GSM8K's own train rows.")
        .push(chart.into())
        .push(table.into());
}

/// Every evaluation that is there: task by task, with its standard error.
fn scores(out: &Path, document: &mut Document) -> anyhow::Result<()> {
    let mut table = Table::new("Scores on test rows, read once")
        .column(Column::text("cell"))
        .column(Column::text("metric"))
        .column(Column::number("value", 4))
        .column(Column::number("standard error", 4));
    let mut any = false;
    for name in cells(out, "") {
        for path in results(&out.join(&name)) {
            let value = sibo_files::json::read(&path)?;
            for (_, metrics) in value["results"].as_object().into_iter().flatten() {
                for (key, number) in metrics.as_object().into_iter().flatten() {
                    let (Some(number), Some((metric, filter))) = (number.as_f64(), key.split_once(','))
                    else {
                        continue;
                    };
                    if metric.ends_with("_stderr") {
                        continue;
                    }
                    let error = metrics[format!("{metric}_stderr,{filter}")].as_f64();
                    table.push(vec![name.as_str().into(), metric.into(), number.into(), error.into()]);
                    any = true;
                }
            }
        }
    }
    if any {
        document.section("Test scores", "Cells are named task, method and seed.").push(Block::Table(table));
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
