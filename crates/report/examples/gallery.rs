//! A report with every kind of block, from made-up numbers: `cargo run -p sibo-report --example
//! gallery -- FOLDER` writes it. The figures of a real run come from the commands of `sibo`.

use sibo_report::number::{bytes, duration};
use sibo_report::{
    Answer, Axis, Bar, BarChart, BarGroup, Block, Cell, Column, Confusion, Document, Estimate, HeatMap, Key,
    LineChart, Pair, PairedDots, Sample, Samples, Series, Table, Tone, terminal,
};
use std::path::PathBuf;

const PLAIN: &str = "LoRA";
const SIBO: &str = "SIBO-LoRA";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder: PathBuf = match std::env::args_os().nth(1) {
        Some(folder) => folder.into(),
        None => return Err("name the folder to write: gallery FOLDER".into()),
    };
    let document = document();
    let page = sibo_report::save(&document, &folder)?;
    sibo_report::save::save_parts(&document, &folder.join("parts"))?;
    print!("{}", terminal::render(&document, terminal::Style::default()));
    println!("\nWritten: {}", page.display());
    Ok(())
}

fn document() -> Document {
    let mut document = Document::new(
        "Quickstart: LoRA and SIBO-LoRA on QNLI with all-MiniLM-L6-v2",
        "No difference between LoRA and SIBO-LoRA can be told apart on these 500 rows.",
    );
    document.made_by = "the gallery example from made-up numbers".into();
    document.fact("Accuracy, mean of 3 seeds", "LoRA 0.805, SIBO-LoRA 0.814");
    document.fact("Paired difference", "+0.009, 95 % interval −0.011 to +0.029");
    document.fact("λ", "0.3, chosen on validation");
    document.fact("Data", "2,000 rows to train on, 500 to report on");
    document.fact("Time", duration(247.3));
    document.fact("Peak memory", bytes(412_876_800));
    results(&mut document);
    similarity(&mut document);
    training(&mut document);
    cost(&mut document);
    errors(&mut document);
    reproduce(&mut document);
    document
}

fn results(document: &mut Document) {
    let pairs = [("seed 1", 0.806, 0.812), ("seed 2", 0.800, 0.818), ("seed 3", 0.810, 0.812)];
    let pair = |(name, first, second): (&str, f64, f64)| Pair { name: name.into(), first, second };
    let dots = PairedDots {
        title: "Accuracy of each seed, plain and with SIBO".into(),
        caption: "All three seeds gain a little; three seeds are too few to exclude zero.".into(),
        axis: Axis::new("accuracy on 500 rows", 3),
        first: Key::new(PLAIN, Tone::Plain),
        second: Key::new(SIBO, Tone::Sibo),
        pairs: pairs.map(pair).to_vec(),
        difference: Some(Estimate::between(0.0087, -0.0112, 0.0286)),
        interval: "95 % interval, Student's t over 3 seeds".into(),
    };
    let mut table = Table::new("Metric of each method, with its 95 % interval")
        .column(Column::text("method"))
        .column(Column::number("accuracy", 3))
        .column(Column::number("F1", 3))
        .column(Column::number("trained parameters", 0))
        .note("Intervals are Wilson's over the 500 rows, for the mean of the three seeds.");
    table.push(vec!["majority class".into(), 0.506.into(), Cell::Missing, 0.0.into()]);
    table.push(vec![
        PLAIN.into(),
        Estimate::between(0.8053, 0.7684, 0.8376).into(),
        0.8021.into(),
        147_456.0.into(),
    ]);
    table.push_emphasised(vec![
        SIBO.into(),
        Estimate::between(0.8140, 0.7776, 0.8456).into(),
        0.8117.into(),
        147_456.0.into(),
    ]);
    let lead = "Both methods start from the same weights and see the same rows in the same order; \
                only what the branch reads differs.";
    document.section("Did it help?", lead).push(dots.into()).push(table.into());
}

/// Mean cosine similarity of the tokens at each layer.
fn layers() -> [(&'static str, Tone, [f64; 7]); 3] {
    [
        ("base", Tone::Base, [0.118, 0.247, 0.352, 0.418, 0.471, 0.536, 0.648]),
        (PLAIN, Tone::Plain, [0.118, 0.251, 0.367, 0.449, 0.522, 0.617, 0.791]),
        (SIBO, Tone::Sibo, [0.118, 0.243, 0.341, 0.402, 0.457, 0.528, 0.662]),
    ]
}

fn similarity(document: &mut Document) {
    let series = layers().map(|(name, tone, values)| {
        let points = values.iter().enumerate().map(|(l, v)| (l as f64, *v));
        Series::new(name, tone, points.collect::<Vec<_>>())
    });
    let lines = LineChart {
        title: "Token similarity by layer".into(),
        caption: "Plain LoRA makes tokens more alike towards the last layer; SIBO keeps them \
                  near the base model."
            .into(),
        x: Axis::new("layer (0 is the embedding)", 0),
        y: Axis::new("mean cosine similarity between tokens", 3).including(0.0),
        series: series.to_vec(),
        band: None,
    };
    let [base, plain, sibo] = layers();
    let change = |of: [f64; 7]| of.iter().zip(base.2).map(|(v, b)| v - b).collect();
    let map = HeatMap {
        title: "Change of token similarity against the base".into(),
        caption: "Orange is less alike than in the base model, blue more.".into(),
        column_title: "layer".into(),
        columns: (0..7).map(|l| l.to_string()).collect(),
        row_title: "method".into(),
        rows: vec![PLAIN.into(), SIBO.into()],
        value_title: "similarity minus that of the base".into(),
        values: vec![change(plain.2), change(sibo.2)],
        digits: 3,
        diverging: true,
    };
    let absolute = HeatMap {
        title: "Token similarity by layer, as a map".into(),
        caption: String::new(),
        rows: layers().map(|l| l.0.to_owned()).to_vec(),
        row_title: "model".into(),
        value_title: "mean cosine similarity between tokens".into(),
        values: layers().map(|l| l.2.to_vec()).to_vec(),
        digits: 2,
        diverging: false,
        ..map.clone()
    };
    let lead = "Over-smoothing shows as tokens that become alike from layer to layer.";
    let section = document.section("Over-smoothing", lead);
    section.push(lines.into()).push(absolute.into()).push(map.into());
}

/// A loss that falls from ln 2 with some noise; the same for the same arguments.
fn loss(step: u32, seed: u32, floor: f64) -> f64 {
    let wave = |k: f64| (f64::from(step) * k + f64::from(seed) * 1.7).sin();
    let noise = 0.05 * wave(2.399) + 0.04 * wave(5.111) + 0.02 * wave(0.37);
    floor + (0.693 - floor) * (-f64::from(step) / 38.0).exp() + noise * 0.8
}

fn training(document: &mut Document) {
    let runs = |floor: f64| -> Vec<Vec<(f64, f64)>> {
        let run = |seed| (1..=125).map(|s| (f64::from(s), loss(s, seed, floor))).collect();
        (1..=3).map(run).collect()
    };
    let chart = LineChart {
        title: "Training loss".into(),
        caption: "Mean of three seeds over the last 8 steps.".into(),
        x: Axis::new("optimiser step", 0),
        y: Axis::new("cross-entropy", 3).unit("nats per row"),
        series: vec![
            Series::over_runs(PLAIN, Tone::Plain, &runs(0.431)).smoothed(8),
            Series::over_runs(SIBO, Tone::Sibo, &runs(0.412)).smoothed(8),
        ],
        band: Some("range of the three seeds".into()),
    };
    let rates = (1..=125).map(|s| {
        let s = f64::from(s);
        (s, 2e-4 * if s < 12.0 { s / 12.0 } else { (126.0 - s) / 114.0 })
    });
    let rate = LineChart {
        title: "Learning rate".into(),
        caption: String::new(),
        x: Axis::new("optimiser step", 0),
        y: Axis::new("learning rate", 6).log(),
        series: vec![Series::new("all runs", Tone::Other(0), rates.collect::<Vec<_>>())],
        band: None,
    };
    document.section("Training", "").push(chart.into()).push(rate.into());
}

fn cost(document: &mut Document) {
    let group = |name: &str, plain, sibo| BarGroup {
        name: name.into(),
        bars: vec![Bar::new(PLAIN, Tone::Plain, plain), Bar::new(SIBO, Tone::Sibo, sibo)],
    };
    let time = BarChart {
        title: "Time of one run".into(),
        caption: "Mean and range of three seeds.".into(),
        axis: Axis::new("wall time", 1).unit("s"),
        groups: vec![
            group("training", Estimate::between(36.2, 35.1, 37.9), Estimate::between(37.0, 36.3, 38.2)),
            group("evaluation", Estimate::between(3.4, 3.3, 3.6), Estimate::between(3.5, 3.4, 3.6)),
        ],
    };
    let memory = BarChart {
        title: "Peak memory".into(),
        caption: String::new(),
        axis: Axis::new("largest resident size", 0).unit("MiB"),
        groups: vec![group("", Estimate::exact(391.0), Estimate::exact(394.0))],
    };
    document
        .section("Cost", "SIBO adds one mix of two rows for each site.")
        .push(time.into())
        .push(memory.into());
}

fn errors(document: &mut Document) {
    let matrix = Confusion {
        title: "SIBO-LoRA, seed 1: what each class was taken for".into(),
        caption: String::new(),
        classes: vec!["entailment".into(), "not entailment".into()],
        counts: vec![vec![211, 42], vec![52, 195]],
    };
    let answer = |name: &str, tone, text: &str, correct| Answer {
        name: name.into(),
        tone,
        text: text.into(),
        correct: Some(correct),
    };
    let sample = |name: &str, input: &str, expected: &str, plain: (&str, bool), sibo: (&str, bool)| Sample {
        name: name.into(),
        input: input.into(),
        expected: Some(expected.into()),
        answers: vec![answer(PLAIN, Tone::Plain, plain.0, plain.1), answer(SIBO, Tone::Sibo, sibo.0, sibo.1)],
    };
    let samples = Samples {
        title: "Rows that the two methods answer differently, the first two".into(),
        samples: vec![
            sample(
                "row 17",
                "When was the bridge opened?\nThe bridge, planned since 1871, was opened to \
                 carriages in the spring of 1883.",
                "entailment",
                ("not entailment (0.58)", false),
                ("entailment (0.63)", true),
            ),
            sample(
                "row 203",
                "How many rooms does the house have?\n<script>alert(\"text stays text\")</script> \
                 & the house stands on a hill.",
                "not entailment",
                ("not entailment (0.71)", true),
                ("entailment (0.52)", false),
            ),
        ],
    };
    document.section("What goes wrong", "").push(matrix.into()).push(samples.into());
}

fn reproduce(document: &mut Document) {
    let recipe = "model = \"all-MiniLM-L6-v2\"\ntask = \"qnli\"\nseeds = [1, 2, 3]\n\n\
                  [method]\npeft_type = \"SIBO_LORA\"\nr = 8\nlora_alpha = 16\n\
                  target_modules = [\"query\", \"value\"]\n\n[method.sibo]\nlambda = 0.3\n\
                  placement = \"paper\"\n";
    let mut environment =
        Table::new("Where it ran").column(Column::text("what")).column(Column::text("value"));
    for (what, value) in
        [("processor", "2 cores, AVX-512"), ("compute", "f32, 2 threads"), ("version", "0.1.0")]
    {
        environment.push(vec![what.into(), value.into()]);
    }
    document
        .section("Do it again", "The recipe below and `sibo train` give the same numbers.")
        .push(Block::Paragraph("Save it as `recipe.toml` beside the data.".into()))
        .push(Block::Code { language: "toml".into(), text: recipe.into() })
        .push(environment.into())
        .push(Block::Notes(vec![
            "Same machine and instruction set: the same bits, at any number of threads.".into(),
            "`lambda` was chosen on a tenth of the training rows, never on the reported ones.".into(),
        ]));
}
