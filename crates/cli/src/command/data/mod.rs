//! `sibo data`: what can be done with rows alone.

mod check;
mod generate;

use crate::app::App;

const LONG_ABOUT: &str = "\
Looks at data, or makes it, without a model.

    sibo data check                                    every task's test in its own train
    sibo data check --train math_10k.json              a file's rows in every test at hand
    sibo data check --train gsm8k --tasks svamp,aqua   one task's train in other tests
    sibo data generate deduction                       a task with a depth";

/// Find test rows among training rows; make rows from a seed
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Check(check::Args),
    Generate(generate::Args),
}

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    match args.what {
        What::Check(args) => check::run(args, app),
        What::Generate(args) => generate::run(args, app),
    }
}
