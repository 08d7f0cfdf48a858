//! The page and `results.json` of a study.

use super::{Derived, Finding, Study, samples, tables};
use crate::{app, machine};
use serde_json::{Value, json};
use sibo_report::{
    Axis, Block, Cell, Column, Confusion, Document, Estimate, HeatMap, Key, LineChart, Pair, PairedDots,
    Series, Table, Tone,
};
use sibo_tasks::metrics::Predictions;
use sibo_tasks::stats::Comparison;
use sibo_train::cells::{self, Question, Record};

/// Parts of a run over which a loss curve is averaged.
const SMOOTHING_PARTS: usize = 12;

/// Arms with a run that has numbers, in the order in which they first occur, each with its look.
fn arms(f: &Finding) -> Vec<(String, Tone)> {
    let mut names: Vec<&str> = Vec::new();
    whole(f).for_each(|r| {
        if !names.contains(&r.arm.as_str()) {
            names.push(&r.arm)
        }
    });
    let pair = f.pairs.first();
    let mut other = 0u8;
    let mut tone = |name: &str| match pair {
        Some(p) if p.a == name => Tone::Plain,
        Some(p) if p.b == name => Tone::Sibo,
        _ => {
            other += 1;
            Tone::Other(other - 1)
        }
    };
    names.iter().map(|n| (n.to_string(), tone(n))).collect()
}

/// The runs that have numbers.
fn whole(f: &Finding) -> impl Iterator<Item = &Record> {
    f.records.iter().filter(|r| r.diverged.is_none())
}

/// The whole page.
pub(super) fn document(study: &Study, f: &Finding, d: &Derived, samples: Option<Table>) -> Document {
    let mut page = Document::new(f.title.clone(), f.verdict.clone());
    page.made_by = app::made_by();
    f.facts.iter().for_each(|(label, value)| page.fact(label.clone(), value.clone()));
    if !f.first.is_empty() {
        page.section("What was tried", "").blocks = f.first.clone();
    }
    let section = page.section("Scores", tables::SCORES_NOTE);
    for question in &d.questions {
        section.push(tables::scores(&f.records, question, &d.text(question)).into());
    }
    if !d.comparisons.is_empty() {
        let section = page.section("Differences", tables::COMPARISONS_NOTE);
        for question in d.compared() {
            section.push(tables::comparisons(&d.comparisons, question, &d.text(question)).into());
        }
        for (question, comparison) in &d.comparisons {
            section.push(dots(f, question, comparison).into());
        }
    }
    let confused: Vec<Block> = d.questions.first().map(|q| confusions(study, f, q)).unwrap_or_default();
    if !confused.is_empty() {
        page.section(
            "Right and wrong answers",
            "Rows of all seeds, by their true class and by the answer.",
        )
        .blocks = confused;
    }
    if let Some(samples) = samples {
        page.section("Samples side by side", samples::NOTE).push(samples.into());
    }
    if !d.signs.is_empty() {
        page.section("Signs", "").push(Block::Notes(d.notes()));
    }
    if let Some(learned) = learned(f) {
        page.section(
            "What lambda became",
            "Learned lambdas after training, of what shares one; mean of the seeds.",
        )
        .push(learned.into());
    }
    if !f.refused.is_empty() {
        page.section("Not applicable", "").push(tables::refused(&f.refused).into());
    }
    smoothing(&mut page, f, d);
    page.section("Training", "").push(losses(f).into());
    again(&mut page, study, f);
    page
}

/// Most classes that are shown against each other.
const CLASSES: usize = 12;

/// What each arm of the first pair (or the first two arms) answers to the rows of each class.
fn confusions(study: &Study, f: &Finding, question: &Question) -> Vec<Block> {
    let arms: Vec<String> = match f.pairs.first() {
        Some(pair) => vec![pair.a.clone(), pair.b.clone()],
        None => arms(f).into_iter().take(2).map(|arm| arm.0).collect(),
    };
    let names =
        study.tasks.iter().find(|task| task.name() == question.task).map(|task| task.labels()).unwrap_or(&[]);
    let one = |arm: &String| {
        let own = whole(f).filter(|r| r.arm == *arm).filter_map(|r| question.of(r));
        let pairs: Vec<(u32, u32)> = own
            .filter_map(|judged| match &judged.predictions {
                Predictions::Classes { gold, predicted } => {
                    Some(gold.iter().copied().zip(predicted.iter().copied()))
                }
                _ => None,
            })
            .flatten()
            .collect();
        let classes =
            pairs.iter().map(|(gold, said)| (*gold).max(*said) as usize + 1).max()?.max(names.len());
        let mut counts = vec![vec![0; classes]; classes];
        pairs.iter().for_each(|(gold, said)| counts[*gold as usize][*said as usize] += 1);
        let name = |class: usize| names.get(class).cloned().unwrap_or_else(|| format!("class {class}"));
        (classes <= CLASSES).then(|| Confusion {
            title: format!("{arm}: {}, {}", question.task, question.split),
            caption: String::new(),
            classes: (0..classes).map(name).collect(),
            counts,
        })
    };
    arms.iter().filter_map(one).map(Block::from).collect()
}

fn dots(f: &Finding, question: &Question, c: &Comparison) -> PairedDots {
    let tone = |name: &str| arms(f).into_iter().find(|(n, _)| n == name).map_or(Tone::Base, |a| a.1);
    let both =
        |seed: &u64| whole(f).filter(|r| r.seed == *seed && (r.arm == c.a || r.arm == c.b)).count() == 2;
    let seeds = f.records.iter().filter(|r| r.arm == c.a).map(|r| r.seed).filter(both);
    let pairs = seeds.zip(c.a_by_seed.iter().zip(&c.b_by_seed));
    let i = c.interval();
    PairedDots {
        title: format!("{}: {} and {}", question.text(), c.a, c.b),
        caption: String::new(),
        axis: Axis::new(format!("{} on {} rows", question.metric.name(), c.rows), 3),
        first: Key::new(c.a.clone(), tone(&c.a)),
        second: Key::new(c.b.clone(), tone(&c.b)),
        pairs: pairs
            .map(|(seed, (first, second))| Pair {
                name: format!("seed {seed}"),
                first: *first,
                second: *second,
            })
            .collect(),
        difference: Some(Estimate::between(c.difference(), i.low, i.high)),
        interval: "95 % interval: as far as other rows or other seeds could move it".into(),
    }
}

/// The page of a study that is not done: the scores, similarity and losses of the cells that are.
pub(crate) fn underway(records: Vec<Record>) -> anyhow::Result<Document> {
    let derived = super::derive(&records, &[])?;
    let verdict = match records.len() {
        1 => "One cell is done; the study is not.".to_string(),
        n => format!("{n} cells are done; the study is not."),
    };
    let finding = Finding {
        title: "A study under way".into(),
        verdict,
        facts: vec![],
        records,
        pairs: vec![],
        refused: vec![],
        first: vec![],
        own: Value::Null,
    };
    let mut page = Document::new(finding.title.clone(), finding.verdict.clone());
    let section = page.section("Scores", "Comparisons are made when every cell is done.");
    for question in &derived.questions {
        section.push(tables::scores(&finding.records, question, &question.text()).into());
    }
    smoothing(&mut page, &finding, &derived);
    page.section("Training", "").push(losses(&finding).into());
    Ok(page)
}

/// Token similarity by layer, and whether it goes with the score.
fn smoothing(page: &mut Document, f: &Finding, d: &Derived) {
    if f.records.iter().all(|r| r.after.is_empty()) {
        return;
    }
    let curve = |looks: &[cells::LayerLook]| -> Vec<(f64, f64)> {
        looks.iter().enumerate().map(|(l, look)| (l as f64, look.similarity)).collect()
    };
    let base = whole(f).next().map(|r| curve(&r.before)).unwrap_or_default();
    let mut series = vec![Series::new("before training", Tone::Base, base)];
    let mut rows: Vec<(String, Vec<f64>)> = Vec::new();
    for (arm, tone) in arms(f) {
        let runs: Vec<Vec<(f64, f64)>> = whole(f).filter(|r| r.arm == arm).map(|r| curve(&r.after)).collect();
        let one = Series::over_runs(arm.clone(), tone, &runs);
        rows.push((arm, one.points.iter().map(|p| p.y).collect()));
        series.push(one);
    }
    let section = page.section(
        "Over-smoothing",
        "How alike the tokens of a validation row are (mean cosine of all pairs), layer by layer.",
    );
    // More lines than looks would be told apart by nobody: a heat map shows them all.
    if rows.len() <= 6 {
        section.push(
            LineChart {
                title: "Token similarity by layer".into(),
                caption: String::new(),
                x: Axis::new("layer (0 is what enters the first)", 0),
                y: Axis::new("mean cosine between the tokens of a row", 3),
                series,
                band: Some("range of the seeds".into()),
            }
            .into(),
        );
    }
    section.push(
        HeatMap {
            title: "Token similarity, configuration by layer".into(),
            caption: "Mean of the seeds.".into(),
            column_title: "layer".into(),
            columns: (0..rows.first().map_or(0, |r| r.1.len())).map(|l| l.to_string()).collect(),
            row_title: "configuration".into(),
            rows: rows.iter().map(|r| r.0.clone()).collect(),
            value_title: "mean cosine".into(),
            values: rows.into_iter().map(|r| r.1).collect(),
            digits: 2,
            diverging: false,
        }
        .into(),
    );
    if f.records.iter().any(|r| !r.looks.is_empty()) {
        section.push(over_training(f).into());
    }
    if let Some(text) = correlation(&f.records, d) {
        section.push(Block::Paragraph(text));
    }
}

/// The last layer's similarity as training goes on.
fn over_training(f: &Finding) -> LineChart {
    let curve = |r: &Record| -> Vec<(f64, f64)> {
        let point = |(step, layers): &(usize, Vec<cells::LayerLook>)| {
            layers.last().map(|l| (*step as f64, l.similarity))
        };
        r.looks.iter().filter_map(point).collect()
    };
    let one = |(arm, tone): (String, Tone)| {
        let runs: Vec<Vec<(f64, f64)>> = whole(f).filter(|r| r.arm == arm).map(curve).collect();
        Series::over_runs(arm, tone, &runs)
    };
    LineChart {
        title: "Token similarity over training".into(),
        caption: "Mean of the seeds, the same validation rows each time.".into(),
        x: Axis::new("optimiser step", 0),
        y: Axis::new("mean cosine of a row's tokens, last layer", 3),
        series: arms(f).into_iter().map(one).collect(),
        band: Some("range of the seeds".into()),
    }
}

/// Learned lambdas by arm and by what shares one, over the seeds.
fn learned(f: &Finding) -> Option<Table> {
    let mut table = Table::new("Learned lambdas")
        .column(Column::text("configuration"))
        .column(Column::text("of"))
        .column(Column::number("lambda", 3))
        .column(Column::number("lowest", 3))
        .column(Column::number("highest", 3));
    for (arm, _) in arms(f) {
        let runs: Vec<&Record> = whole(f).filter(|r| r.arm == arm).collect();
        for (of, _) in runs.first().map_or(&[][..], |r| &r.learned) {
            let values: Vec<f64> =
                runs.iter().filter_map(|r| r.learned.iter().find(|l| l.0 == *of)).map(|l| l.1).collect();
            let (low, high) =
                values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            table.push(vec![arm.as_str().into(), of.as_str().into(), mean.into(), low.into(), high.into()]);
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

/// Rank correlation of the last layer's similarity with the first score, over runs.
fn correlation(records: &[Record], d: &Derived) -> Option<String> {
    let question = d.questions.first()?;
    let value = |r: &Record| {
        let judged = r.judged.iter().find(|j| cells::question(j) == *question)?;
        Some((r.similarity()?, judged.value))
    };
    let (similarity, score): (Vec<f64>, Vec<f64>) = records.iter().filter_map(value).unzip();
    if similarity.len() < 4 {
        return None;
    }
    let r = sibo_tasks::metrics::rank_correlation(&similarity, &score)?;
    Some(format!(
        "Spearman's correlation of the last layer's similarity with {}: {r:+.2}; the unit is the run ({} runs, of which those of one configuration are not independent).",
        question.text(),
        similarity.len()
    ))
}

fn losses(f: &Finding) -> LineChart {
    let steps = f.records.iter().map(|r| r.losses.len()).max().unwrap_or(0);
    let window = (steps / SMOOTHING_PARTS).max(1);
    let curve = |r: &Record| r.losses.iter().enumerate().map(|(i, l)| (i as f64 + 1.0, *l)).collect();
    let one = |(arm, tone): (String, Tone)| {
        let runs: Vec<Vec<(f64, f64)>> = whole(f).filter(|r| r.arm == arm).map(curve).collect();
        Series::over_runs(arm, tone, &runs).smoothed(window)
    };
    LineChart {
        title: "Training loss".into(),
        caption: format!("Mean of the seeds over the last {window} steps."),
        x: Axis::new("optimiser step", 0),
        y: Axis::new("loss", 3),
        series: arms(f).into_iter().map(one).collect(),
        band: Some("range of the seeds".into()),
    }
}

/// What went in, and where it ran.
fn again(page: &mut Document, study: &Study, f: &Finding) {
    let mut ran = Table::new("Where it ran").column(Column::text("what")).column(Column::text("value"));
    let cpu = machine::cpu_name().unwrap_or_else(|| "unknown".into());
    let seconds: f64 = f.records.iter().map(|r| r.seconds).sum();
    let facts = [
        ("cells", f.records.len().to_string()),
        ("training of all cells", sibo_report::number::duration(seconds)),
        ("instruction set, threads and version of sibo", ran_on(&f.records)),
        ("this page was made by", format!("sibo {}", app::version())),
        ("on", cpu),
    ];
    for (what, value) in facts {
        ran.push(vec![what.into(), Cell::Text(value)]);
    }
    page.section("Do it again", "Every cell is this recipe with the changes that its name tells, and its seed.")
        .push(Block::Code { language: "toml".into(), text: study.recipe.to_toml() })
        .push(ran.into())
        .push(Block::Notes(vec![
            "Same machine and instruction set: the same numbers, at any number of threads.".into(),
            "`cells.jsonl` beside this page holds every cell: its whole recipe, its losses, its answers row by row."
                .into(),
        ]));
}

/// What computed the cells, each kind once: another machine may make the page, or have done some of the cells.
fn ran_on(records: &[Record]) -> String {
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for record in records {
        let kind = match &record.ran {
            Some(ran) => format!("{}, {}, {}", ran.isa, ran.threads, ran.version),
            None => "not recorded".into(),
        };
        match kinds.iter_mut().find(|(own, _)| *own == kind) {
            Some((_, count)) => *count += 1,
            None => kinds.push((kind, 1)),
        }
    }
    match &kinds[..] {
        [(kind, _)] => kind.clone(),
        _ => kinds.iter().map(|(kind, n)| format!("{kind} ({n} cells)")).collect::<Vec<_>>().join("; "),
    }
}

/// Everything, for programs.
pub(super) fn results(study: &Study, f: &Finding, d: &Derived) -> Value {
    let scores = |q: &Question| json!({"question": q, "arms": cells::scores(&f.records, q)});
    let comparison = |(q, c): &(Question, Comparison)| {
        json!({"question": q, "comparison": c, "difference": c.difference(), "interval": c.interval(),
               "verdict": c.verdict(), "sentence": c.to_string()})
    };
    let cell = |r: &Record| {
        let mut cell = json!({"key": r.key, "training": r.training, "arm": r.arm, "seed": r.seed, "seconds": r.seconds,
               "trained_numbers": r.trained_numbers, "peak_activations": r.peak_activations, "h0_ratio": r.h0_ratio,
               "last_loss": r.losses.last(), "validation_loss": r.validation_loss(), "similarity": r.similarity()});
        if !r.learned.is_empty() {
            let pairs = r.learned.iter().map(|(of, lambda)| (of.clone(), json!(lambda)));
            cell["learned_lambdas"] = pairs.collect::<serde_json::Map<_, _>>().into();
        }
        if let Some(why) = &r.diverged {
            cell["diverged"] = json!(why);
        }
        cell
    };
    let mut all = json!({
        "title": f.title, "verdict": f.verdict, "recipe": study.recipe.to_value(), "seeds": study.seeds(),
        "facts": f.facts, "scores": d.questions.iter().map(scores).collect::<Vec<_>>(),
        "comparisons": d.comparisons.iter().map(comparison).collect::<Vec<_>>(),
        "signs": d.signs.iter().map(|(arm, s)| json!({"arm": arm, "sign": s, "sentence": s.to_string()})).collect::<Vec<_>>(),
        "not_applicable": f.refused, "study": f.own,
        "cells": f.records.iter().map(cell).collect::<Vec<_>>(),
        "ran_on": ran_on(&f.records), "sibo": app::version(),
    });
    if !d.variants.is_empty() {
        all["variants"] = json!(d.variants);
    }
    all
}
