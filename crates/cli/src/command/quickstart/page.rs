//! The page of a quickstart.

use super::show::{accuracy_table, mean_of, similarity_table};
use super::{Finding, LAMBDA_SOURCE, PLAIN, SIBO, inputs};
use crate::{app, machine};
use sibo_report::{
    Answer, Axis, Block, Column, Document, Estimate, Key, LineChart, Pair, PairedDots, Sample, Samples,
    Series, Table, Tone, number,
};
use sibo_tasks::metrics::Predictions;
use sibo_tasks::{Example, Target, Task};

/// Steps over which a loss curve is averaged: single batches of 8 rows are noise.
const SMOOTHING: usize = 16;

/// Rows shown that the two methods answer differently.
const SHOWN: usize = 6;

/// The whole page.
pub(super) fn document(f: &Finding) -> Document {
    let title = format!("Quickstart: {PLAIN} and {SIBO} on QNLI with {}", inputs::MODEL);
    let mut page = Document::new(title, format!("{}.", f.sentence()));
    page.made_by = app::made_by();
    facts(&mut page, f);
    page.section(
        "Did it help?",
        "Both methods start from the same weights and see the same rows in the same order. What differs is \
         what the trained branch reads: LoRA its own input, SIBO-LoRA a mix of it with the token's first \
         representation.",
    )
    .push(dots(f).into())
    .push(accuracy_table(f).into());
    page.section(
        "Over-smoothing",
        "Tokens that become alike from layer to layer are what SIBO is meant to prevent.",
    )
    .push(similarity(f).into())
    .push(similarity_table(f).into());
    page.section("Training", "").push(losses(f).into());
    page.section("Where they differ", "").push(Block::Samples(samples(f)));
    again(&mut page, f);
    page
}

fn facts(page: &mut Document, f: &Finding) {
    let (plain, sibo) = (f.accuracy(0), f.accuracy(1));
    page.fact(
        format!("Accuracy, mean of {} seeds", f.plan.seeds.len()),
        format!("{PLAIN} {:.3}, {SIBO} {:.3}", plain.value, sibo.value),
    );
    if let Some(comparison) = f.study.comparisons.first() {
        let i = comparison.interval();
        page.fact(
            "Paired difference",
            format!("{:+.4}, 95 % interval {:+.4} to {:+.4}", comparison.difference(), i.low, i.high),
        );
    }
    if let Some(least) = f.study.smallest_detectable {
        page.fact("Smallest difference that so few rows could show", format!("about {least:.3}"));
    }
    page.fact("lambda", format!("{} ({LAMBDA_SOURCE})", f.lambda));
    page.fact("Rows", format!("{} to learn from, {} others to judge by", f.train_rows, f.test.len()));
    page.fact("Time", number::duration(f.seconds));
    if let Some(bytes) = machine::peak_memory() {
        page.fact("Peak memory", number::bytes(bytes));
    }
}

fn dots(f: &Finding) -> PairedDots {
    let pairs = f.accuracies(0).into_iter().zip(f.accuracies(1)).zip(&f.plan.seeds);
    let difference = f.study.comparisons.first().map(|c| {
        let i = c.interval();
        Estimate::between(c.difference(), i.low, i.high)
    });
    PairedDots {
        title: "Accuracy of each seed, plain and with SIBO".into(),
        caption: "A difference whose interval holds zero cannot be told from chance.".into(),
        axis: Axis::new(format!("accuracy on {} rows", f.test.len()), 3),
        first: Key::new(PLAIN, Tone::Plain),
        second: Key::new(SIBO, Tone::Sibo),
        pairs: pairs
            .map(|((first, second), seed)| Pair { name: format!("seed {seed}"), first, second })
            .collect(),
        difference,
        interval: "95 % interval: as far as other rows or other seeds could move it".into(),
    }
}

/// (layer, value) of a list by layer.
fn points(values: &[f64]) -> Vec<(f64, f64)> {
    values.iter().enumerate().map(|(layer, value)| (layer as f64, *value)).collect()
}

fn similarity(f: &Finding) -> LineChart {
    let seeds = |arm| f.similarity(arm).iter().map(|values| points(values)).collect::<Vec<_>>();
    LineChart {
        title: "Token similarity by layer".into(),
        caption: similarity_caption(f),
        x: Axis::new("layer (0 is what enters the first)", 0),
        y: Axis::new("mean cosine between the tokens of a row", 3),
        series: vec![
            Series::new("base", Tone::Base, points(&f.base_similarity())),
            Series::over_runs(PLAIN, Tone::Plain, &seeds(0)),
            Series::over_runs(SIBO, Tone::Sibo, &seeds(1)),
        ],
        band: Some("range of the seeds".into()),
    }
}

/// What happened in the last layer, in words.
fn similarity_caption(f: &Finding) -> String {
    let last = |values: Vec<f64>| values.last().copied().unwrap_or(f64::NAN);
    let (base, plain, sibo) =
        (last(f.base_similarity()), last(mean_of(&f.similarity(0))), last(mean_of(&f.similarity(1))));
    format!("In the last layer: base {base:.3}, {PLAIN} {plain:.3}, {SIBO} {sibo:.3}.")
}

fn losses(f: &Finding) -> LineChart {
    let runs = |arm: usize| -> Vec<Vec<(f64, f64)>> {
        f.runs(arm).map(|run| run.outcome.records.iter().map(|r| (r.step as f64, r.loss)).collect()).collect()
    };
    LineChart {
        title: "Training loss".into(),
        caption: format!("Mean of the seeds over the last {SMOOTHING} steps."),
        x: Axis::new("optimiser step", 0),
        y: Axis::new("cross-entropy", 3).unit("nats per row"),
        series: vec![
            Series::over_runs(PLAIN, Tone::Plain, &runs(0)).smoothed(SMOOTHING),
            Series::over_runs(SIBO, Tone::Sibo, &runs(1)).smoothed(SMOOTHING),
        ],
        band: Some("range of the seeds".into()),
    }
}

/// The first rows on which the first seeds' two models disagree.
fn samples(f: &Finding) -> Samples {
    let labels = Task::named("qnli").map(|task| task.spec().labels.clone()).unwrap_or_default();
    let name = |class: u32| labels.get(class as usize).cloned().unwrap_or_else(|| class.to_string());
    let predicted = |arm: usize| match f.runs(arm).next().map(|run| &run.predictions) {
        Some(Predictions::Classes { predicted, .. }) => predicted.clone(),
        _ => vec![],
    };
    let (plain, sibo) = (predicted(0), predicted(1));
    let differ = f.test.iter().zip(plain.iter().zip(&sibo)).filter(|(_, (a, b))| a != b);
    let sample = |(example, (a, b)): (&Example, (&u32, &u32))| {
        let Target::Class(gold) = example.target else { return None };
        let answer = |who: &str, tone, class: u32| Answer {
            name: who.into(),
            tone,
            text: name(class),
            correct: Some(class == gold),
        };
        Some(Sample {
            name: format!("row {}", example.id),
            input: example.all_text().into_owned(),
            expected: Some(name(gold)),
            answers: vec![answer(PLAIN, Tone::Plain, *a), answer(SIBO, Tone::Sibo, *b)],
        })
    };
    Samples {
        title: format!(
            "The first {SHOWN} rows that the two methods answer differently (seed {})",
            f.plan.seeds[0]
        ),
        samples: differ.filter_map(sample).take(SHOWN).collect(),
    }
}

/// How to go on, where it ran, what went in.
fn again(page: &mut Document, f: &Finding) {
    let folder =
        f.plan.out_dir.as_deref().and_then(|p| p.parent()).unwrap_or(std::path::Path::new(".")).display();
    let seed = f.plan.seeds[0];
    let commands = format!(
        "sibo quickstart --lambda 0.3\n\
         sibo inspect {folder}/model --adapter {folder}/adapters/{SIBO}-seed{seed}\n\
         sibo eval --model {folder}/model --adapter {folder}/adapters/{SIBO}-seed{seed} --tasks qnli --data {folder}/data\n\
         sibo init recipe.toml\n"
    );
    let training = serde_json::to_string_pretty(&f.plan.training.to_value()).unwrap_or_default();
    let mut ran = Table::new("Where it ran").column(Column::text("what")).column(Column::text("value"));
    let cpu = machine::cpu_name().unwrap_or_else(|| "unknown".into());
    let threads = sibo_kernels::threads().to_string();
    for (what, value) in [("sibo", app::version()), ("processor", cpu), ("threads", threads)] {
        ran.push(vec![what.into(), value.into()]);
    }
    page.section("Do it again", "")
        .push(Block::Code { language: "sh".into(), text: commands })
        .push(Block::Code { language: "json".into(), text: training })
        .push(ran.into())
        .push(Block::Notes(vec![
            "Same machine and instruction set: the same numbers, at any number of threads.".into(),
            "One small model, one task, a sample of its rows: this says nothing about other models and tasks.".into(),
            "Model: all-MiniLM-L6-v2 in 8 bits, Apache License 2.0 (sentence-transformers). Rows: a sample of QNLI, made from SQuAD, CC BY-SA 4.0. Details: `model/SOURCE.md`, `data/glue/QNLI/SOURCE.md`.".into(),
        ]));
}
