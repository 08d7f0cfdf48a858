//! `sibo init`: a recipe with a comment on every line.

use crate::app::App;
use sibo_train::recipe::Recipe;
use std::path::PathBuf;

/// Write a recipe with every setting and a comment on each
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file to write; `-` prints it
    #[arg(value_name = "RECIPE.toml", default_value = "recipe.toml")]
    file: PathBuf,
    /// Replace a file that is there already
    #[arg(long)]
    overwrite: bool,
}

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    let text = Recipe::commented_default();
    if args.file.as_os_str() == "-" {
        app.out.piece(&text);
        return Ok(());
    }
    anyhow::ensure!(
        args.overwrite || !args.file.exists(),
        "{}: there is a file already; give another name, or --overwrite",
        args.file.display()
    );
    sibo_files::write(&args.file, text.as_bytes())?;
    app.out.note(format!("{0}: edit it, then run `sibo train {0}`", args.file.display()));
    Ok(())
}
