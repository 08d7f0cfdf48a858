//! `sibo methods`: what can be trained, and what SIBO can boost.

use crate::app::App;
use sibo_peft::config::METHODS;
use sibo_peft::{AdapterConfig, Method};
use sibo_report::{Column, Table, terminal};

const LONG_ABOUT: &str = "\
Lists the methods that [adapter] method in a recipe (or --method) can name.

SIBO can boost a method that reads an input: it mixes a share `lambda` of the token's first representation \
into what the method reads, at every site that `sibo inspect MODEL` marks. The baselines have no such input.";

/// List the methods and which of them SIBO can boost
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {}

pub(crate) fn run(app: &App) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for (name, about) in METHODS {
        let config = AdapterConfig::from_recipe("methods", &serde_json::json!({ "method": name }))?;
        rows.push((name, about, config.method.takes_sibo(), matches!(config.method, Method::Lora(_))));
    }
    if app.out.json() {
        let list: Vec<_> = rows
            .iter()
            .map(|(name, about, sibo, _)| serde_json::json!({"method": name, "about": about, "sibo": sibo}))
            .collect();
        app.out.result(serde_json::Value::from(list).to_string());
        return Ok(());
    }
    let mut table = Table::new("Methods")
        .column(Column::text("method"))
        .column(Column::text("SIBO"))
        .column(Column::text("what it trains"))
        .note("Default: lora. Python's PEFT opens plain LoRA folders; SIBO's are refused there, as they should be.");
    for (name, about, sibo, _) in rows {
        table.push(vec![name.into(), if sibo { "yes" } else { "no" }.into(), about.into()]);
    }
    app.out.result(terminal::table(&table, app.out.style()));
    Ok(())
}
