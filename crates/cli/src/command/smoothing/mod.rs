//! `sibo smoothing`: how alike tokens become from layer to layer, and how much of h0 is left.

mod page;
mod subject;
mod suggest;

use crate::app::App;
use crate::exit::{Interrupted, usage};
use crate::interrupt;
use crate::places::{self, CutArgs, NumbersArgs};
use crate::progress::Meter;
use crate::rows;
use sibo_model::{LoadOptions, Model};
use sibo_report::{Tone, terminal};
use sibo_tasks::SplitName;
use sibo_text::Tokenizer;
use sibo_train::probe::ProbeRow;
use sibo_train::profile::{self, Profile};
use sibo_train::signs::{self, Sign};
use std::path::{Path, PathBuf};
use subject::{Seen, Subject};

const LONG_ABOUT: &str = "\
Measures over-smoothing: for every layer, how alike the tokens of a sequence are (mean cosine of all pairs, \
raw and after the common mean is taken off; effective rank), how large their states are, and how much of the \
first representation h0 is left in them (cosine with h0, and the least-squares coefficient of h_l on h0: the \
paper's \"at least a lambda portion\", measured). And for every kind of site, |h0| beside |x|: where h0 is far \
smaller, mixing it in hardly changes what a branch reads.

    sibo smoothing minilm-l6 --task qnli
    sibo smoothing smollm2-135m --adapter runs/plain/adapter --adapter runs/sibo/adapter --task gsm8k
    sibo smoothing runs/plain runs/sibo

    sibo smoothing minilm-l6 --task qnli --suggest-lambda

Folders of finished runs stand for their model and their adapters; what is looked at is then, unless told otherwise, the \
task that the first was trained on. Texts are rendered by the template of the first adapter and cut where its training \
cut them, unless told otherwise.

--suggest-lambda reads a lambda off one forward pass of the base over at most 32 sequences, without labels and without \
training: the smallest one at which the tokens of x~ = (1 - lambda) x + lambda h0 have lost half of their excess of \
similarity over h0, S(lambda) - S(h0) = (S(0) - S(h0)) / 2, with S the mean cosine of all pairs of tokens over \
sequences, layers and sites; 0 where the excess is below 0.05, or is not halved by any lambda up to 0.7. Reasons and \
what it predicts are in docs/lambda.md.

Special tokens are left out. Intervals (95 %) are over sequences; adapters are compared with the base on the \
same sequences. The folder gets report.html, results.json, every table as CSV, and every plot as SVG and PNG.";

/// Measure how alike tokens become from layer to layer, and how much of h0 is left
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {
    /// The base model: a name below --models, a folder, or a hub id; or folders of finished runs of one model
    #[arg(value_name = "MODEL|RUN", required = true)]
    what: Vec<String>,
    /// An adapter to look at beside the base; may be given several times
    #[arg(long, value_name = "ADAPTER")]
    adapter: Vec<String>,
    /// The task whose rows are looked at
    #[arg(long, value_name = "TASK", conflicts_with = "rows")]
    task: Option<String>,
    /// Which rows of the task: test, validation or train [default: test; with --suggest-lambda, which chooses, train]
    #[arg(long, value_name = "SPLIT", value_parser = super::eval::split)]
    split: Option<SplitName>,
    /// A file of rows to look at instead of a task
    #[arg(long, value_name = "FILE")]
    rows: Option<String>,
    /// At most so many rows, in a fixed seeded choice
    #[arg(long, value_name = "N", default_value_t = rows::LIMIT)]
    limit: usize,
    /// Longest row in tokens [default: that of the first adapter's training where it is known, else 256]
    #[arg(long, value_name = "N")]
    cutoff_len: Option<usize>,
    /// The template of instructions [default: the one that the first adapter was trained with, else alpaca]
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// Rows at a time
    #[arg(long, value_name = "N", default_value_t = rows::BATCH, value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    /// Only suggest a lambda, from one forward pass of the base
    #[arg(long, conflicts_with = "adapter")]
    suggest_lambda: bool,
    #[command(flatten)]
    cut: CutArgs,
    #[command(flatten)]
    numbers: NumbersArgs,
    /// The folder for the report
    #[arg(long, alias = "output", value_name = "FOLDER", default_value = "runs/smoothing")]
    output_dir: PathBuf,
}

/// A model that was looked at.
struct System {
    name: String,
    tone: Tone,
    profile: Profile,
    /// Kinds of site at which it mixes h0 in.
    injected: Vec<&'static str>,
}

/// What went in and what came out.
struct Finding {
    model: String,
    /// What was looked at, in words.
    source: String,
    systems: Vec<System>,
    signs: Vec<String>,
}

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    if args.limit < 2 {
        return Err(usage("--limit must be 2 or more: an interval over sequences needs two"));
    }
    if !args.suggest_lambda {
        places::check_results(&args.output_dir, MADE_BY)?;
    }
    let subject = Subject::of(&args, app)?;
    let folder = &subject.folder;
    let options = LoadOptions {
        compute: args.numbers.of(folder),
        keep_layers: subject.layers,
        ..LoadOptions::default()
    };
    let base = Model::load(folder, &options)?;
    app.places.tell_unknown(&base.unknown_keys);
    app.places.tell_damage(&base.model);
    let tokenizer = Tokenizer::from_folder(folder)?;
    tokenizer.check_vocabulary(base.model.arch().vocab)?;
    // A setting is never chosen on test rows.
    let usual = if args.suggest_lambda { SplitName::Train } else { SplitName::Test };
    let from = match &subject.seen {
        Seen::Task(task) => rows::From::Task(task, args.split.unwrap_or(usual), None),
        Seen::File(file) => rows::From::File(file),
    };
    let most = rows::Most { rows: args.limit, tokens: subject.cutoff(args.cutoff_len) };
    let template = subject.template(&tokenizer, args.template.as_deref())?;
    if !subject.adapters.is_empty() {
        let rendered = format!("rendered by the template {}, ", template.name());
        let rendered = if base.model.is_causal() { rendered } else { String::new() };
        app.out.note(format!("texts are {rendered}read up to {} tokens", most.tokens));
    }
    let (rows, source) = rows::read(&template, &from, most, &base.model, &tokenizer, app)?;
    if args.suggest_lambda {
        return suggest::tell(&base.model, &rows, &source, args.batch_size.into(), app);
    }
    interrupt::listen();
    let systems = look(base.model, folder, &subject.adapters, &rows, &options, args.batch_size.into(), app)?;
    let mut finding = Finding { model: subject.model.clone(), source, systems, signs: vec![] };
    finding.signs = finding.signs().iter().map(ToString::to_string).collect();
    tell(&finding, &args, app)
}

/// The base, and then each adapter on it.
fn look(
    base: Model,
    folder: &Path,
    adapters: &[(String, PathBuf)],
    rows: &[ProbeRow],
    options: &LoadOptions,
    batch: usize,
    app: &App,
) -> anyhow::Result<Vec<System>> {
    let each = 3 * rows.len();
    let mut meter = Meter::new(app.out, ((1 + adapters.len()) * each) as u64, 0);
    let mut systems: Vec<System> = Vec::new();
    let mut one = |model: &Model, name: String, tone: Tone| -> anyhow::Result<()> {
        meter.say(name.clone());
        let before = systems.len() * each;
        let mut progress = |done: usize| meter.at((before + done) as u64);
        let profile = profile::profile(model, rows, batch, &mut progress)?;
        systems.push(System { name, tone, profile, injected: profile::injected_sites(model) });
        Ok(())
    };
    one(&base, "base".into(), Tone::Base)?;
    drop(base);
    for (name, adapter) in adapters {
        if interrupt::asked() {
            return Err(Interrupted("nothing was written".into()).into());
        }
        let model = Model::load_with_adapter(folder, adapter, options.clone())?.model;
        let (name, tone) = label(name, &model, adapters);
        one(&model, name, tone)?;
    }
    meter.finish();
    Ok(systems)
}

/// `lora, lambda 0.2 (runs/sibo/adapter)`; the tone of the plain or of the boosted method for the first of each.
fn label(name: &str, model: &Model, all: &[(String, PathBuf)]) -> (String, Tone) {
    let Some(adapter) = model.adapter() else { return (name.into(), Tone::Base) };
    let config = &adapter.config;
    let at = all.iter().position(|(n, _)| n == name).unwrap_or(0);
    let tone = match (at < 2, config.sibo.is_plain()) {
        (true, true) => Tone::Plain,
        (true, false) => Tone::Sibo,
        (false, _) => Tone::Other((at - 2) as u8),
    };
    let method = config.method.name();
    (format!("{method}, lambda {} ({name})", config.sibo.lambda_in_words()), tone)
}

impl Finding {
    fn base(&self) -> &Profile {
        &self.systems[0].profile
    }

    /// What the measures warn of: sizes at the sites of boosted adapters, and similarity beside the first plain one.
    fn signs(&self) -> Vec<Sign> {
        let last = |p: &Profile| p.layers.last().map_or(f64::NAN, |l| l.similarity.mean.estimate);
        let plain = self.systems.iter().skip(1).find(|s| s.injected.is_empty());
        let mut found = Vec::new();
        for system in self.systems.iter().filter(|s| !s.injected.is_empty()) {
            let ratio = profile::mean_ratio(&system.profile.sites, &system.injected);
            found.extend(ratio.and_then(signs::negligible));
            let (base, with) = (last(self.base()), last(&system.profile));
            found.extend(plain.and_then(|p| signs::too_low(base, &[(last(&p.profile), with)])));
        }
        found
    }
}

/// How its results name this command.
const MADE_BY: &str = "smoothing";

fn tell(finding: &Finding, args: &Args, app: &App) -> anyhow::Result<()> {
    let document = page::document(finding);
    let html = sibo_report::save(&document, &args.output_dir)?;
    sibo_report::save::save_parts(&document, &args.output_dir.join("parts"))?;
    let mut results = page::results(finding);
    places::write_results(&args.output_dir, MADE_BY, &mut results)?;
    if app.out.json() {
        app.out.result(results.to_string());
        return Ok(());
    }
    let style = app.out.style();
    app.out.result(terminal::table(&page::similarity(finding), style));
    for system in &finding.systems {
        app.out.result("");
        app.out.result(terminal::table(&page::layers(system), style));
    }
    app.out.result("");
    app.out.result(terminal::table(&page::ratios(&finding.systems[0]), style));
    app.out.result(format!("\n{}", page::sentence(finding)));
    finding.signs.iter().for_each(|sign| app.out.result(format!("Note: {sign}.")));
    app.out.result(format!("Report: {}", html.display()));
    Ok(())
}
