//! The commands, one file each: its arguments, and what is done with them.

use crate::app::App;

mod ablate;
mod bench;
mod chat;
mod compare;
mod completions;
mod data;
mod env;
mod eval;
mod export;
mod generate;
mod init;
mod inspect;
mod merge;
mod methods;
mod overhead;
mod predict;
mod quantize;
mod quickstart;
mod report;
mod rescore;
mod smoothing;
mod sweep;
mod tasks;
mod trace;
mod train;
mod ui;

/// What is to be done.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Quickstart(quickstart::Args),
    Init(init::Args),
    Train(Box<train::Args>),
    Eval(eval::Args),
    Rescore(rescore::Args),
    Predict(predict::Args),
    Generate(generate::Args),
    Chat(chat::Args),
    Merge(merge::Args),
    Export(export::Args),
    Quantize(quantize::Args),
    Methods(methods::Args),
    Tasks(tasks::Args),
    Data(data::Args),
    Inspect(inspect::Args),
    Smoothing(smoothing::Args),
    Compare(compare::Args),
    Sweep(sweep::Args),
    Ablate(ablate::Args),
    Report(report::Args),
    Ui(ui::Args),
    Trace(trace::Args),
    Bench(bench::Args),
    Overhead(overhead::Args),
    Env(env::Args),
    Completions(completions::Args),
}

impl Command {
    /// Whether a recipe says how many threads there are, so that they are started once it is read.
    pub(crate) fn reads_a_recipe(&self) -> bool {
        matches!(self, Command::Train(_) | Command::Compare(_) | Command::Sweep(_) | Command::Ablate(_))
    }
}

/// Calls the command.
pub(crate) fn run(command: Command, app: &App) -> anyhow::Result<()> {
    match command {
        Command::Quickstart(args) => quickstart::run(args, app),
        Command::Init(args) => init::run(args, app),
        Command::Train(args) => train::run(*args, app),
        Command::Eval(args) => eval::run(args, app),
        Command::Rescore(args) => rescore::run(args, app),
        Command::Predict(args) => predict::run(args, app),
        Command::Generate(args) => generate::run(args, app),
        Command::Chat(args) => chat::run(args, app),
        Command::Merge(args) => merge::run(args, app),
        Command::Export(args) => export::run(args, app),
        Command::Quantize(args) => quantize::run(args, app),
        Command::Methods(methods::Args {}) => methods::run(app),
        Command::Tasks(args) => tasks::run(args, app),
        Command::Data(args) => data::run(args, app),
        Command::Inspect(args) => inspect::run(args, app),
        Command::Smoothing(args) => smoothing::run(args, app),
        Command::Compare(args) => compare::run(args, app),
        Command::Sweep(args) => sweep::run(args, app),
        Command::Ablate(args) => ablate::run(args, app),
        Command::Report(args) => report::run(args, app),
        Command::Ui(args) => ui::run(args, app),
        Command::Trace(args) => trace::run(args, app),
        Command::Bench(args) => bench::run(args, app),
        Command::Overhead(args) => overhead::run(args, app),
        Command::Env(env::Args {}) => env::run(app),
        Command::Completions(args) => completions::run(args),
    }
}
