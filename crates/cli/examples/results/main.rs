//! `docs/results.md`: what the studies below `runs/` found, and a verdict for each claim of the paper.
//!
//! `results RUNS DOCS` reads every `RUNS/<folder>/<what was learned>-<method>/results.json` that is there, and the timings in
//! `bench` beside `RUNS`.

mod beyond;
mod claims;
mod cost;
mod forms;
mod study;
mod tables;

use sibo_report::{Block, Document};
use std::path::Path;
use study::Study;

/// Studies that belong together: one model, one kind of number.
pub(crate) struct Suite {
    folder: &'static str,
    /// Studies whose folder starts with this belong to it.
    starts: &'static str,
    title: &'static str,
    /// How verdicts call it.
    pub(crate) name: &'static str,
    /// What its scores are.
    pub(crate) unit: &'static str,
    /// The metric that its verdicts go by, where its tests have several kinds of number.
    pub(crate) metric: Option<&'static str>,
    /// Whether it has tests that were not learned.
    pub(crate) has_far: bool,
    /// Studies of plain against boosted that are planned: before they are done its verdicts stay open. 0: no claim of the
    /// paper is judged by it.
    pub(crate) planned: usize,
    /// Tasks on which full fine-tuning is planned beside them.
    pub(crate) baselines: usize,
    note: &'static str,
}

/// All suites.
pub(crate) const SUITES: [Suite; 6] = [
    Suite {
        folder: "glue",
        starts: "",
        title: "GLUE",
        name: "GLUE",
        unit: "the task's first metric",
        metric: None,
        has_far: false,
        planned: 32,
        baselines: 8,
        note: "Test rows are official development rows at hand: of CoLA the first 522 of 1,043, of RTE the first 139 of 277, of QQP \
               1,000 out of a sample of 7,600, so no score is one of the whole set. The larger class has 53.2 % of RTE's rows, 68.4 % of MRPC's, \
               34.9 % of MNLI's; an mcc of 0 is that of one answer to all rows: beside these, CoLA and RTE were hardly learned. ",
    },
    Suite {
        folder: "language",
        starts: "gsm8k-",
        title: "Arithmetic",
        name: "arithmetic",
        unit: "log-likelihood a token of the gold answer",
        metric: Some("loglik_token"),
        has_far: true,
        planned: 2,
        baselines: 0,
        note: "A model of this size writes hardly a right answer, so the likelihood of the gold answer is compared, and of a \
               solution that another model wrote, on the rows where that came to the right answer (others-reasoning); what the untouched base gives stands in \
               `runs/language/README.md`. ",
    },
    Suite {
        folder: "language",
        starts: "commonsense-",
        title: "Commonsense",
        name: "commonsense",
        unit: "share of right choices",
        metric: None,
        has_far: true,
        planned: 2,
        baselines: 0,
        note: "",
    },
    Suite {
        folder: "deduction",
        starts: "deduction-",
        title: "Deduction",
        name: "deduction",
        unit: "share of right answers that the model wrote",
        metric: Some("exact_match"),
        has_far: true,
        planned: 2,
        baselines: 0,
        note: "Problems made from a seed, learned at one to three steps, tested at these depths and at four to six \
               (`runs/deduction/README.md`); a guess is right in half of them. Answers are written, greedily, and the worked \
               solution's likelihood is beside them; that of the answer alone, without its steps, is of what nothing was taught. ",
    },
    Suite {
        folder: "depth",
        starts: "commonsense-",
        title: "The same decoder cut short",
        name: "depth",
        unit: "share of right choices",
        metric: None,
        has_far: true,
        planned: 0,
        baselines: 0,
        note: "Method and number of layers are named together. A decoder without its last layers is a damaged model: these \
               studies say what lambda does at a depth, not what the model is worth. ",
    },
    Suite {
        folder: "depth",
        starts: "sst2-",
        title: "The same encoder cut short",
        name: "encoder depth",
        unit: "the task's first metric",
        metric: None,
        has_far: false,
        planned: 0,
        baselines: 0,
        note: "Beside them stands the whole encoder, six layers, under GLUE. ",
    },
];

/// What a reader of the verdicts may miss, and what it would take.
const NOT_RUN: [&str; 5] = [
    "The paper's sizes: its smallest encoders have 110 million parameters, its decoders 6 and 7 billion. A training step of a model of \
     LLaMA-7B's shape (a row of 256 tokens) took 12 s of processor time and 28 s in all, docs/large-models.md: a cell of 2,000 \
     rows and three passes would take 20 to 47 hours on two cores, a study of 18 cells two to five weeks. BERT-base and RoBERTa-base (a step of 32 rows is measured in docs/performance.md) would \
     take about ten times as long as MiniLM here: some 250 hours for all of GLUE.",
    "Whole test sets, and more than 2,000 training rows: what is taken is named above each table.",
    "lambda learned, on a schedule, or with a number for each layer, on a decoder, with adapters, and on the tasks that are not \
     named above.",
    "lambda above 0.6 on GLUE, above 0.3 on arithmetic, commonsense and deduction; several seeds of a written answer on arithmetic.",
    "The 8 hours that were planned were not kept: GLUE alone took more, on machines that did other work too. Seconds are of the clock, \
     with pauses, so they compare nothing; what SIBO costs stands in docs/performance.md.",
];

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [runs, docs] = &args[..] else { anyhow::bail!("usage: results RUNS DOCS") };
    let mut page = Document::new(
        "Results",
        "What the studies of `runs/` found, and what that says of the paper's claims.",
    );
    let mut all = Vec::new();
    for suite in &SUITES {
        let studies = Study::read_all(&Path::new(runs).join(suite.folder), suite.starts)?;
        if !studies.is_empty() {
            tables::suite(suite.title, suite.note, &studies, &mut page);
            all.push((suite, studies));
        }
    }
    forms::section(Path::new(runs), &mut page)?;
    beyond::sections(Path::new(runs), &mut page)?;
    let bench = Path::new(runs).parent().unwrap_or(Path::new("")).join("bench");
    claims::section(&all, &cost::read(&bench)?, &mut page);
    page.section("What was not run", "").push(Block::Notes(NOT_RUN.map(String::from).to_vec()));
    let text = sibo_report::markdown::render(&page);
    sibo_files::write(&Path::new(docs).join("results.md"), text.as_bytes())?;
    Ok(())
}
