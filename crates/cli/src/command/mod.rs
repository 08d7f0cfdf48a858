//! The commands, one file each: its arguments, and what is done with them.

use crate::app::App;

mod bench;
mod generate;
mod trace;

/// What is to be done.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Generate(generate::Args),
    Trace(trace::Args),
    Bench(bench::Args),
}

/// Calls the command.
pub(crate) fn run(command: Command, app: &App) -> anyhow::Result<()> {
    match command {
        Command::Generate(args) => generate::run(args, app),
        Command::Trace(args) => trace::run(args, app),
        Command::Bench(args) => bench::run(args, app),
    }
}
