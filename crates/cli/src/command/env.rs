//! `sibo env`: what a bug report needs.

use crate::app::{self, App};
use crate::machine;
use serde_json::{Map, Value, json};
use sibo_kernels::isa::{self, Isa};
use sibo_report::number;
use std::path::Path;

/// Show what a bug report needs: build, machine, folders, settings
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Settings that change what the program does. Secrets are told only as being there.
const VARIABLES: [&str; 9] = [
    "SIBO_MODELS",
    "SIBO_DATA",
    "SIBO_ISA",
    "RAYON_NUM_THREADS",
    "HF_HOME",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "HF_TOKEN",
    "NO_COLOR",
];

pub(crate) fn run(app: &App) -> anyhow::Result<()> {
    let facts = facts(app);
    if app.out.json() {
        app.out.result(Value::Object(facts).to_string());
        return Ok(());
    }
    for (name, value) in &facts {
        let value = value.as_str().map_or_else(|| value.to_string(), String::from);
        app.out.result(format!("{name:<20} {value}"));
    }
    Ok(())
}

fn facts(app: &App) -> Map<String, Value> {
    let available: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
    let roots = app.places.roots();
    let memory = machine::total_memory().map(number::bytes);
    let mut facts = Map::new();
    let mut put = |name: &str, value: Value| facts.insert(name.into(), value);
    put("sibo", json!(app::version()));
    put("system", json!(format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)));
    put("cpu", json!(machine::cpu_name().unwrap_or_else(|| "unknown".into())));
    let slower = match isa::passed_over().as_slice() {
        [] => String::new(),
        some => {
            let names: Vec<&str> = some.iter().map(|isa| isa.name()).collect();
            format!("; measured slower than f32: {}", names.join(", "))
        }
    };
    put("instruction_set", json!(format!("{} (this CPU has: {}{slower})", isa::isa(), available.join(", "))));
    put("threads", json!(sibo_kernels::threads().to_string()));
    put("memory", json!(memory.unwrap_or_else(|| "unknown".into())));
    put("models", json!(folder(&roots.models)));
    put("data", json!(folder(&roots.data)));
    for name in VARIABLES {
        if let Some(value) = std::env::var_os(name) {
            let shown =
                if name == "HF_TOKEN" { "(set)".into() } else { value.to_string_lossy().into_owned() };
            put(name, json!(shown));
        }
    }
    facts
}

fn folder(path: &Path) -> String {
    match std::fs::read_dir(path) {
        Ok(entries) => format!("{} ({} entries)", path.display(), entries.count()),
        Err(error) => format!("{} ({error})", path.display()),
    }
}
