//! `sibo report`: one page over finished runs and studies.

use crate::app::App;
use crate::exit::usage;
use crate::looks;
use crate::places;
use crate::record::METRICS;
use crate::runs::{self, Run};
use sibo_report::{Document, terminal};
use sibo_train::recipe;
use std::path::PathBuf;

const LONG_ABOUT: &str = "\
Makes one page of runs that `sibo train` left (their loss and validation curves, speed, memory, and how their \
recipes differ) and of studies that `compare`, `sweep`, `ablate`, `smoothing` or `quickstart` left. The page is one \
file that opens from disk; every table is there as Markdown and CSV, every plot as SVG and PNG.

    sibo report runs/plain runs/sibo
    sibo report runs/first --output-dir runs/first";

/// Make one page of finished runs and studies
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {
    /// Folders of runs or studies
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// The folder for the page
    #[arg(long, alias = "output", value_name = "FOLDER", default_value = "runs/report")]
    output_dir: PathBuf,
}

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    places::check_results(&args.output_dir, "report")?;
    let (mut all, mut studies) = (Vec::new(), Vec::new());
    for folder in &args.runs {
        let study = folder.join("report.json");
        if runs::is_run(folder) {
            let mut run = Run::open(folder.display().to_string(), folder, u64::MAX)?;
            run.refresh()?;
            all.push(run);
        } else if study.is_file() {
            studies.push((folder.display().to_string(), Document::read(&study)?));
        } else {
            return Err(usage(format!(
                "{}: neither a run of `sibo train` ({METRICS} and {}) nor a study's folder (report.json)",
                folder.display(),
                recipe::FILE
            )));
        }
    }
    let all: Vec<&Run> = all.iter().collect();
    let page = runs::document(&all, &studies);
    let html = sibo_report::save(&page, &args.output_dir)?;
    sibo_report::save::save_parts(&page, &args.output_dir.join("parts"))?;
    if app.out.json() {
        app.out.result(page.to_json());
        return Ok(());
    }
    if !all.is_empty() {
        app.out.result(terminal::table(&runs::table(&all), app.out.style()));
        let looks = runs::looks_of(&all);
        if !looks.is_empty() {
            app.out.result("");
            app.out.result(terminal::table(&looks::table(&looks), app.out.style()));
        }
    }
    for (name, study) in &studies {
        app.out.result(format!("{name}: {}", study.verdict));
    }
    app.out.result(format!("Report: {}", html.display()));
    Ok(())
}
