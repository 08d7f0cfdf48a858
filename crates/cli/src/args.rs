//! The command line as a whole: the settings that every command shares, and the list of commands.

use crate::command::Command;
use crate::exit;
use clap::{CommandFactory, FromArgMatches, Parser};
use std::path::PathBuf;

const LONG_ABOUT: &str = "\
sibo fine-tunes transformers with parameter-efficient methods on the CPU you have: no GPU, no Python.

It reads and writes Hugging Face's files. It can boost LoRA and adapters by SIBO (arXiv 2402.11896), \
which mixes a share `lambda` of each token's first representation into what the method reads, and it \
measures whether that helped.

New here? `sibo quickstart` trains plain LoRA and SIBO-LoRA on a small model that comes with the \
program and shows the difference, if there is one. It needs no network and about five minutes.";

/// `sibo ...`
#[derive(Debug, Parser)]
#[command(name = "sibo", about = "Parameter-efficient fine-tuning with SIBO, on the CPU you have")]
#[command(long_about = LONG_ABOUT, after_long_help = exit::HELP, max_term_width = 100)]
#[command(arg_required_else_help = true, subcommand_required = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Settings that every command shares.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Shared by all commands")]
pub(crate) struct Global {
    /// Folder in which models are looked up by name [default: $SIBO_MODELS, else ./models]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(crate) models: Option<PathBuf>,
    /// Folder in which data sets are looked up by name [default: $SIBO_DATA, else ./data]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(crate) data: Option<PathBuf>,
    /// Threads to compute with; results do not depend on it [default: all cores]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Say nothing but the result and errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Print the result as JSON, for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Cli {
    /// Reads the process's arguments; on `--help` and on nonsense, clap prints and exits.
    pub(crate) fn read(version: String) -> Self {
        let command = Self::command().version(leak(version));
        match Self::from_arg_matches(&command.get_matches()) {
            Ok(cli) => cli,
            Err(error) => error.exit(),
        }
    }
}

/// clap wants text that lives as long as the process; this is called once.
fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_argument_and_command_has_a_help_text() {
        let mut command = Cli::command();
        command.build();
        let mut lacking = Vec::new();
        for sub in command.get_subcommands() {
            if sub.get_about().is_none() {
                lacking.push(sub.get_name().to_string());
            }
            let silent = sub.get_arguments().filter(|a| a.get_help().is_none());
            lacking.extend(silent.map(|a| format!("{} --{}", sub.get_name(), a.get_id())));
        }
        assert_eq!(lacking, Vec::<String>::new());
    }
}
