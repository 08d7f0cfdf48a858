//! `docs/results.md`: what the studies below `runs/` found, and a verdict for each claim of the paper.
//!
//! `results RUNS DOCS` reads every `RUNS/<suite>/<task>-<method>/results.json` that is there. A verdict is a rule over
//! paired differences, written here before the runs: it is not worded by hand.

use serde_json::Value;
use sibo_report::{Block, Cell, Column, Document, Estimate, Table};
use sibo_tasks::{metrics, stats};
use std::collections::BTreeMap;
use std::path::Path;

/// The studies of encoders, and those of language models.
const SUITES: [(&str, &str); 2] = [("glue", "GLUE"), ("language", "Arithmetic and commonsense")];

/// Studies of plain against boosted that each suite plans: before they are done a verdict stays open.
const PLANNED: [(&str, usize); 2] = [("glue", 32), ("language", 3)];

/// What holds the baselines of a task.
const BASELINES: &str = "baselines";

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [runs, docs] = &args[..] else { anyhow::bail!("usage: results RUNS DOCS") };
    let mut page = Document::new(
        "Results",
        "What the studies of `runs/` found, and what that says of the paper's claims.",
    );
    let mut all = Vec::new();
    for (folder, title) in SUITES {
        let studies = Study::read_all(&Path::new(runs).join(folder))?;
        if !studies.is_empty() {
            suite(title, &studies, &mut page);
            all.push((folder, studies));
        }
    }
    verdicts(&all, &mut page);
    let text = sibo_report::markdown::render(&page);
    sibo_files::write(&Path::new(docs).join("results.md"), text.as_bytes())?;
    Ok(())
}

/// One study: a task and a method, plain and boosted; or a task and the baselines.
struct Study {
    task: String,
    method: String,
    value: Value,
}

/// The test's answer to "plain or boosted?".
struct Answer {
    metric: String,
    lambda: String,
    plain: f64,
    boosted: f64,
    difference: stats::Interval,
    verdict: String,
    rows: u64,
}

impl Study {
    fn read_all(folder: &Path) -> anyhow::Result<Vec<Study>> {
        let mut studies = Vec::new();
        let mut names: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().collect();
        names.sort_by_key(|e| e.file_name());
        for entry in names {
            let name = entry.file_name().to_string_lossy().into_owned();
            let file = entry.path().join("results.json");
            let (Some((task, method)), true) = (name.rsplit_once('-'), file.is_file()) else { continue };
            let value = sibo_files::json::read(&file)?;
            studies.push(Study { task: task.into(), method: method.into(), value });
        }
        Ok(studies)
    }

    /// Test scores of the first metric: (arm, mean, values by seed).
    fn scores(&self) -> Vec<(String, f64, Vec<f64>)> {
        let own = list(&self.value["scores"]).find(|s| s["question"]["split"] == "test");
        let arms = own.map(|s| list(&s["arms"])).into_iter().flatten();
        let read = |arm: &Value| {
            let seeds = list(&arm["by_seed"]).filter_map(|pair| pair[1].as_f64()).collect();
            Some((arm["arm"].as_str()?.to_string(), arm["mean"].as_f64()?, seeds))
        };
        arms.filter_map(read).collect()
    }

    fn answer(&self) -> Option<Answer> {
        let found = list(&self.value["comparisons"]).find(|c| c["question"]["split"] == "test")?;
        let (comparison, interval) = (&found["comparison"], &found["interval"]);
        let mean = |key: &str| {
            let values: Vec<f64> = list(&comparison[key]).filter_map(Value::as_f64).collect();
            values.iter().sum::<f64>() / values.len() as f64
        };
        let difference = stats::Interval {
            estimate: found["difference"].as_f64()?,
            low: interval["low"].as_f64()?,
            high: interval["high"].as_f64()?,
            level: stats::LEVEL,
        };
        let verdict = match (difference.holds_zero(), difference.estimate > 0.0) {
            (true, _) => "not told apart",
            (false, true) => "SIBO better",
            (false, false) => "plain better",
        };
        Some(Answer {
            metric: comparison["metric"].as_str().unwrap_or("score").into(),
            lambda: comparison["b"].as_str()?.trim_start_matches("lambda ").into(),
            plain: mean("a_by_seed"),
            boosted: mean("b_by_seed"),
            difference,
            verdict: verdict.into(),
            rows: comparison["rows"].as_u64().unwrap_or(0),
        })
    }

    /// Mean over seeds of a number of the cells, by arm.
    fn by_arm(&self, key: &str) -> BTreeMap<String, f64> {
        let mut found: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for cell in list(&self.value["cells"]) {
            if let (Some(arm), Some(value)) = (cell["arm"].as_str(), cell[key].as_f64()) {
                found.entry(arm.into()).or_default().push(value);
            }
        }
        found.into_iter().map(|(arm, v)| (arm, v.iter().sum::<f64>() / v.len() as f64)).collect()
    }

    fn is_baseline(&self) -> bool {
        self.method == BASELINES
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn between(i: stats::Interval) -> Cell {
    Cell::Estimate(Estimate::between(i.estimate, i.low, i.high))
}

fn suite(title: &str, studies: &[Study], page: &mut Document) {
    let cells: usize = studies.iter().map(|s| list(&s.value["cells"]).count()).sum();
    let seconds: f64 =
        studies.iter().flat_map(|s| list(&s.value["cells"])).filter_map(|c| c["seconds"].as_f64()).sum();
    let text = format!(
        "{} studies, {cells} cells, {} of training. lambda is the best of the grid above zero by validation loss; the \
         interval is the wider of what other rows and other seeds could have given.",
        studies.len(),
        sibo_report::number::duration(seconds)
    );
    let mut blocks = vec![Block::Table(pairs(studies)), Block::Table(profile(studies))];
    blocks.extend(baselines(studies).map(Block::Table));
    let section = page.section(title, text);
    for block in blocks {
        section.push(block);
    }
}

/// Plain against boosted on the test rows.
fn pairs(studies: &[Study]) -> Table {
    let mut table = Table::new("Plain and SIBO on test rows, mean of the seeds")
        .column(Column::text("task"))
        .column(Column::text("method"))
        .column(Column::text("metric"))
        .column(Column::number("rows", 0))
        .column(Column::number("plain", 4))
        .column(Column::text("lambda"))
        .column(Column::number("SIBO", 4))
        .column(Column::number("SIBO - plain [95 %]", 4))
        .column(Column::text("verdict"))
        .column(Column::number("similarity, plain", 3))
        .column(Column::number("SIBO", 3));
    for study in studies.iter().filter(|s| !s.is_baseline()) {
        let Some(answer) = study.answer() else { continue };
        let similarity = study.by_arm("similarity");
        let of = |arm: &str| similarity.get(arm).copied();
        table.push(vec![
            study.task.as_str().into(),
            study.method.as_str().into(),
            answer.metric.as_str().into(),
            (answer.rows as f64).into(),
            answer.plain.into(),
            answer.lambda.as_str().into(),
            answer.boosted.into(),
            between(answer.difference),
            answer.verdict.as_str().into(),
            of("lambda 0").into(),
            of(&format!("lambda {}", answer.lambda)).into(),
        ]);
    }
    table
}

/// Validation loss over lambda, relative to lambda 0, mean over tasks.
fn profile(studies: &[Study]) -> Table {
    let mut losses: BTreeMap<&str, BTreeMap<String, Vec<f64>>> = BTreeMap::new();
    for study in studies.iter().filter(|s| !s.is_baseline()) {
        let own = study.by_arm("validation_loss");
        let Some(plain) = own.get("lambda 0") else { continue };
        for (arm, loss) in &own {
            let arm = arm.trim_start_matches("lambda ").to_string();
            losses
                .entry(&study.method)
                .or_default()
                .entry(arm)
                .or_default()
                .push(100.0 * (loss / plain - 1.0));
        }
    }
    let lambdas: std::collections::BTreeSet<String> =
        losses.values().flat_map(|m| m.keys().cloned()).collect();
    let mut table =
        Table::new("Validation loss over lambda: per cent above plain, mean of the tasks [95 % over tasks]")
            .column(Column::text("method"));
    for lambda in lambdas.iter().filter(|l| *l != "0") {
        table = table.column(Column::number(format!("lambda {lambda}"), 2));
    }
    for (method, own) in &losses {
        let cell = |lambda: &String| match own.get(lambda) {
            Some(values) => match stats::mean_interval(values, stats::LEVEL) {
                Ok(interval) => between(interval),
                Err(_) => values[0].into(),
            },
            None => Cell::Missing,
        };
        let numbers = lambdas.iter().filter(|l| *l != "0").map(cell);
        table.push(std::iter::once((*method).into()).chain(numbers).collect());
    }
    table
}

/// Baselines beside the adapters, plain and boosted.
fn baselines(studies: &[Study]) -> Option<Table> {
    let mut table =
        Table::new("Beside the baselines, test rows, mean of the seeds").column(Column::text("task"));
    let methods: Vec<&str> = ["head", "bitfit", "full"].to_vec();
    for method in &methods {
        table = table.column(Column::number(*method, 4));
    }
    table = table.column(Column::number("best plain adapter", 4)).column(Column::number("best with SIBO", 4));
    for base in studies.iter().filter(|s| s.is_baseline()) {
        let scores = base.scores();
        let of = |arm: &&str| scores.iter().find(|s| s.0.starts_with(*arm)).map(|s| s.1);
        let answers: Vec<Answer> =
            studies.iter().filter(|s| s.task == base.task).filter_map(Study::answer).collect();
        let best = |value: fn(&Answer) -> f64| answers.iter().map(value).reduce(f64::max);
        let mut row: Vec<Cell> = vec![base.task.as_str().into()];
        row.extend(methods.iter().map(|m| Cell::from(of(m))));
        row.extend([best(|a| a.plain).into(), best(|a| a.boosted).into()]);
        table.push(row);
    }
    (!table.rows.is_empty()).then_some(table)
}

/// The claims, each with the pooled number that decides it.
fn verdicts(all: &[(&str, Vec<Study>)], page: &mut Document) {
    let mut table = Table::new("The paper's claims")
        .column(Column::text("claim"))
        .column(Column::text("what was measured"))
        .column(Column::number("value [95 %]", 4))
        .column(Column::text("verdict"));
    for (folder, studies) in all {
        let own: Vec<&Study> = studies.iter().filter(|s| !s.is_baseline()).collect();
        let gains: Vec<f64> = own.iter().filter_map(|s| s.answer()).map(|a| a.difference.estimate).collect();
        let higher = ("SIBO scores higher than the plain method", "SIBO - plain, test metric");
        claim(&mut table, folder, higher, &gains, 1.0);
        let fall = |s: &&Study| {
            let (answer, similarity) = (s.answer()?, s.by_arm("similarity"));
            Some(similarity.get(&format!("lambda {}", answer.lambda))? - similarity.get("lambda 0")?)
        };
        let falls: Vec<f64> = own.iter().filter_map(fall).collect();
        let falling = ("over-smoothing falls", "similarity of the last layer, SIBO - plain");
        claim(&mut table, folder, falling, &falls, -1.0);
        let (changes, gains): (Vec<f64>, Vec<f64>) =
            own.iter().filter_map(|s| Some((fall(s)?, s.answer()?.difference.estimate))).unzip();
        if changes.len() >= 4 {
            let r = metrics::rank_correlation(&changes, &gains);
            table.push(vec![
                "less smoothing goes with a better score".into(),
                format!(
                    "{folder}: Spearman's correlation of the two differences; the unit is the study ({})",
                    changes.len()
                )
                .into(),
                r.into(),
                "described, not tested".into(),
            ]);
        }
    }
    if let Some(section) = (!table.rows.is_empty()).then(|| page.section("Verdicts", RULE)) {
        section.push(Block::Table(table));
    }
}

const RULE: &str = "The unit is the study (a task and a method); the interval is Student's over studies. Confirmed: the whole interval lies \
    on the claimed side of zero. Contradicted: it lies on the other side. Otherwise not decidable at this size, and the interval says \
    how large an effect may be hidden. A verdict stays open until all studies of its suite that are planned are done. Studies of one task share its rows, so the interval is narrower than that of independent tasks.";

fn claim(table: &mut Table, suite: &str, (claim, measured): (&str, &str), values: &[f64], side: f64) {
    let Ok(i) = stats::mean_interval(values, stats::LEVEL) else { return };
    let found = match (side * i.low > 0.0 && side * i.high > 0.0, i.holds_zero()) {
        (true, _) => "confirmed",
        (_, true) => "not decidable at this size",
        _ => "contradicted",
    };
    let (done, planned) =
        (values.len(), PLANNED.iter().find(|(name, _)| *name == suite).map_or(0, |(_, n)| *n));
    let verdict = match done < planned {
        true => format!("open, {done} of {planned} studies done; by those alone: {found}"),
        false => found.into(),
    };
    table.push(vec![claim.into(), format!("{suite}: {measured}").into(), between(i), verdict.into()]);
}
