//! From the process's start to a command's call, and from its result to an exit code.

use crate::args::Cli;
use crate::output::{self, Output};
use crate::places::Places;
use crate::{command, exit};
use std::process::ExitCode;

/// What every command gets.
pub(crate) struct App {
    /// Where names of models and data lead.
    pub(crate) places: Places,
    /// Where words go.
    pub(crate) out: Output,
    /// `--threads`.
    threads: Option<usize>,
}

/// The program.
pub(crate) fn main() -> ExitCode {
    // First of all: a wrong request in SIBO_ISA is a sentence, not a silent default.
    if let Err(reason) = sibo_kernels::isa::check() {
        return exit::report(&exit::usage(reason));
    }
    let cli = Cli::read(version());
    match run(cli).and_then(|()| output::all_written()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let out = Output::new(cli.global.quiet, cli.global.json);
    let app =
        App { places: Places::new(&cli.global, out), out, threads: cli.global.threads.map(usize::from) };
    match app.threads {
        Some(threads) => start_pool(threads)?,
        None if cli.command.reads_a_recipe() => {}
        None => start_pool(ALL_CORES)?,
    }
    command::run(cli.command, &app)
}

impl App {
    /// Takes a recipe's number of threads, where the command line gives none; commands that read a recipe call it
    /// before anything computes.
    pub(crate) fn threads_of_recipe(&self, threads: Option<usize>) -> anyhow::Result<()> {
        match self.threads {
            None => start_pool(threads.unwrap_or(ALL_CORES)),
            Some(_) => Ok(()),
        }
    }
}

/// A thread for each core, or as `RAYON_NUM_THREADS` says.
const ALL_CORES: usize = 0;

/// The one pool of threads. This thread is one of them: were it beside them, every operation would put it to sleep and
/// wake another, which costs more than a small operation itself.
fn start_pool(threads: usize) -> anyhow::Result<()> {
    let built = rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build_global();
    built.map_err(|e| anyhow::anyhow!("cannot start {threads} threads: {e}"))
}

/// `sibo 0.1.0, 2026-11-25`, for the foot of a report.
pub(crate) fn made_by() -> String {
    let day = sibo_tasks::results::iso_utc(std::time::SystemTime::now());
    format!("sibo {}, {}", env!("CARGO_PKG_VERSION"), day.split('T').next().unwrap_or_default())
}

/// `0.1.0 (3f2a81c, release, x86_64-unknown-linux-gnu, avx512)`
pub(crate) fn version() -> String {
    let commit = env!("SIBO_COMMIT");
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let isa = sibo_kernels::isa::isa();
    let parts = [commit, build, env!("SIBO_TARGET"), isa.name()];
    let parts: Vec<&str> = parts.into_iter().filter(|p| !p.is_empty()).collect();
    format!("{} ({})", env!("CARGO_PKG_VERSION"), parts.join(", "))
}
