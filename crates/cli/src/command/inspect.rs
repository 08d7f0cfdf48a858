//! `sibo inspect`: what a model is made of, and where SIBO can enter.

use crate::app::App;
use crate::describe::{self, adapter_lines};
use crate::places::CutArgs;
use serde_json::{Value, json};
use sibo_model::{HeadKind, LoadOptions, Model};
use sibo_peft::{Module, ModuleKind, Site};
use sibo_report::{Cell, Column, Table, number, terminal};
use std::collections::BTreeMap;

const LONG_ABOUT: &str = "\
Reads a model's folder, checks every tensor, and lists the modules that a method can target: their names \
(for target_modules), how often they occur, their shapes, and whether SIBO can enter there. With an adapter, \
it says which of its sites are injected and which run plain.";

/// Show what a model is made of, and where SIBO can enter
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {
    /// A name below --models, a folder, or a hub id
    #[arg(value_name = "MODEL")]
    model: String,
    /// An adapter on it
    #[arg(long, value_name = "ADAPTER")]
    adapter: Option<String>,
    #[command(flatten)]
    cut: CutArgs,
}

/// Modules of one name: they differ by their layer only.
struct Group {
    name: String,
    count: usize,
    shapes: String,
    sibo: &'static str,
}

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    let folder = app.places.model(&args.model)?;
    let options = LoadOptions {
        compute: sibo_model::Compute::F32,
        keep_layers: args.cut.layers,
        ..LoadOptions::default()
    };
    let base = Model::load(&folder, &options)?;
    let adapted = match &args.adapter {
        None => None,
        Some(name) => Some(Model::load_with_adapter(&folder, &app.places.model(name)?, options)?.model),
    };
    let groups = groups(&base.model);
    if app.out.json() {
        app.out.result(as_json(&base.model, &groups, &base.unknown_keys, adapted.as_ref()).to_string());
        return Ok(());
    }
    for line in facts(&base.model) {
        app.out.result(line);
    }
    if !base.unknown_keys.is_empty() {
        app.out
            .result(format!("keys of config.json that sibo does not know: {}", base.unknown_keys.join(", ")));
    }
    app.out.result("");
    app.out.result(terminal::table(&table(&base.model, &groups), app.out.style()));
    if let Some(model) = &adapted {
        app.out.result("");
        for line in adapter_lines(model) {
            app.out.result(line);
        }
    }
    Ok(())
}

fn facts(model: &Model) -> Vec<String> {
    let (arch, shape) = (model.arch(), model.shape());
    let numbers: usize = shape.tensors.iter().map(|(_, s)| s.iter().product::<usize>()).sum();
    let head = match arch.head {
        HeadKind::None => "none (hidden states only)".to_string(),
        HeadKind::CausalLm => {
            let tie = match (arch.tied, arch.untied) {
                (true, _) => ", tied to the embedding",
                (_, true) => {
                    ", stored apart from the embedding and unlike it, whatever tie_word_embeddings says"
                }
                _ => "",
            };
            format!("causal language model{tie}")
        }
        HeadKind::Classes(1) => "one number".into(),
        HeadKind::Classes(n) => format!("{n} classes"),
    };
    let layers = arch.cut_from.map_or(arch.layers.to_string(), |all| format!("{} of {all}", arch.layers));
    let longest = model.max_len().map_or("no limit".into(), |n| format!("{n} tokens"));
    let d = arch.dropout;
    vec![
        format!(
            "{}: {} numbers in {} tensors",
            shape.family,
            number::fixed(numbers as f64, 0),
            shape.tensors.len()
        ),
        format!(
            "{layers} layers, width {}, inner width {}, {} heads of {} ({} for keys and values)",
            arch.width, arch.inner, arch.heads, arch.head_dim, arch.kv_heads
        ),
        format!("vocabulary {}, longest row {longest}, head: {head}", arch.vocab),
        match d.any() {
            false => "own dropout in training: none".into(),
            true => format!(
                "own dropout in training: embedding {}, hidden {}, attention {}, classifier {}",
                d.embedding, d.hidden, d.attention, d.classifier
            ),
        },
        format!("PEFT's default target_modules: {}", shape.default_targets.join(", ")),
    ]
}

/// The modules by name, in the model's order.
fn groups(model: &Model) -> Vec<Group> {
    let shape = model.shape();
    let mut order: Vec<String> = Vec::new();
    let mut by_name: BTreeMap<String, Vec<&Module>> = BTreeMap::new();
    for module in &shape.modules {
        let name = short_name(module, &shape.layer_paths);
        if !by_name.contains_key(&name) {
            order.push(name.clone());
        }
        by_name.entry(name).or_default().push(module);
    }
    order
        .into_iter()
        .map(|name| {
            let modules = &by_name[&name];
            let first = modules[0];
            let shapes = match first.kind {
                ModuleKind::Linear => format!("{} -> {}", first.inp, first.out),
                ModuleKind::Embedding => format!("{} x {}", first.inp, first.out),
            };
            Group { count: modules.len(), shapes, sibo: verdict(first, shape.width), name }
        })
        .collect()
}

/// The path below the layer: `self_attn.q_proj`; outside the layers the whole path.
fn short_name(module: &Module, layers: &[String]) -> String {
    let layer = module.layer.and_then(|l| layers.get(l));
    let rest = layer.and_then(|path| module.path.strip_prefix(path.as_str()));
    rest.map_or(module.path.as_str(), |r| r.trim_start_matches('.')).to_string()
}

/// Whether SIBO can enter, and if not, why.
fn verdict(module: &Module, width: usize) -> &'static str {
    match module.site {
        _ if module.injectable(width) => "yes",
        Site::Outside => "no: outside the layers",
        Site::FfnDown => "no: reads the FFN's inner state",
        _ => "no: reads another width than h0",
    }
}

fn table(model: &Model, groups: &[Group]) -> Table {
    let mut table = Table::new(format!("Modules ({} layers)", model.arch().layers))
        .column(Column::text("name"))
        .column(Column::number("times", 0))
        .column(Column::text("shape"))
        .column(Column::text("SIBO can enter"))
        .note("A target module that SIBO cannot enter runs plain, at any lambda.");
    for group in groups {
        let count = Cell::Number(group.count as f64);
        table.push(vec![group.name.as_str().into(), count, group.shapes.as_str().into(), group.sibo.into()]);
    }
    table
}

fn as_json(model: &Model, groups: &[Group], unknown: &[String], adapted: Option<&Model>) -> Value {
    let (arch, shape) = (model.arch(), model.shape());
    let modules: Vec<Value> = groups
        .iter()
        .map(|g| json!({"name": g.name, "count": g.count, "shape": g.shapes, "sibo": g.sibo == "yes", "why": g.sibo}))
        .collect();
    json!({
        "family": shape.family, "layers": arch.layers, "cut_from": arch.cut_from, "width": arch.width, "inner": arch.inner,
        "heads": arch.heads, "kv_heads": arch.kv_heads, "head_dim": arch.head_dim, "vocabulary": arch.vocab,
        "longest_row": model.max_len(), "classes": model.classes(), "causal": model.is_causal(),
        "modules": modules, "unknown_keys": unknown,
        "adapter": adapted.and_then(|m| m.adapter().map(|a| json!({
            "method": a.config.method.name(), "sibo": a.config.sibo.to_json(),
            "learned_lambdas": describe::learned_json(m), "injected": a.injected, "idle": a.idle, "plain": a.plain, "trained_numbers": m.params().numbers(),
        }))),
    })
}
