//! `sibo completions`: what a shell needs to complete commands and options.

use crate::args::Cli;
use clap::CommandFactory;
use clap_complete::Shell;

const LONG_ABOUT: &str = "\
Prints a script that completes sibo's commands and options in your shell. For bash:

    sibo completions bash > ~/.local/share/bash-completion/completions/sibo";

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sibo", &mut script);
    // A reader that has gone away is no failure.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), &script);
    Ok(())
}
