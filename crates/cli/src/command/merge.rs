//! `sibo merge`: a base model and what was trained on it, as one Hugging Face folder.

use crate::app::App;
use crate::{beside, places};
use anyhow::{bail, ensure};
use serde_json::{Value, json};
use sibo_model::{LoadOptions, Model};
use sibo_peft::branch::Function;
use sibo_peft::folder::Folder;
use sibo_peft::{Adapter, At, Method, TaskType};
use sibo_train::outputs;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const LONG_ABOUT: &str = "\
Adds a plain LoRA to its base model's weights (or puts trained tensors in their place) and writes the result as \
a model folder of its own, in 32-bit floats, that transformers, sibo and everything else opens.

A SIBO adapter with lambda above zero cannot be merged: what it adds to a layer depends on each token's first \
representation, so no change of a weight matrix equals it. Bottleneck adapters cannot either: they are not linear. \
Use such an adapter beside its base model, with --adapter.";

/// Merge a plain LoRA (lambda 0) into its base model
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {
    /// The base model: a name below --models, a folder, or a hub id
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// The adapter: a folder that PEFT or `sibo train` wrote, or a hub id
    #[arg(long, value_name = "ADAPTER")]
    adapter: String,
    /// The folder to write; it must not be there yet
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
}

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    ensure!(!args.output.exists(), "{}: is there already; give another folder", args.output.display());
    places::check_folder(&args.output)?;
    let base_folder = app.places.model(&args.model)?;
    let mut folder = Folder::open(&app.places.model(&args.adapter)?)?;
    check(&folder)?;
    let classes = folder.classes().filter(|_| folder.config.task_type == Some(TaskType::SeqCls));
    let options = LoadOptions { classes, ..LoadOptions::default() };
    let mut base = Model::load(&base_folder, &options)?.model;
    let mut adapter = Adapter::new(&folder.config, &base.shape(), options.seed, &|name| base.tensor(name))?;
    base.take_base_copies(folder.base_copies(&adapter.params)?, &folder.path)?;
    folder.fill(&mut adapter.params)?;
    let tensors = merged(&base, &adapter)?;
    let names = classes.map(|count| {
        Ok::<_, anyhow::Error>(crate::classes::of(&base_folder, Some(&folder.path))?.names(count))
    });
    let config = config(&base_folder, &base, &adapter, names.transpose()?.as_deref())?;
    let beside = beside::all(&folder.path)?;
    if let Some(parent) = args.output.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(|e| sibo_files::Error::io(parent, "create the folder", e))?;
    }
    sibo_files::write_all_or_nothing::<sibo_files::Error>(&args.output, |part| {
        let views =
            tensors.iter().map(|(name, shape, values)| (name.as_str(), shape.as_slice(), values.as_slice()));
        sibo_files::write_tensors(&part.join("model.safetensors"), views, BTreeMap::new())?;
        sibo_files::write(&part.join("config.json"), format!("{config:#}\n").as_bytes())?;
        copy_beside(&base_folder, part)?;
        // The merged model is asked as the adapter was taught, over what the base says of itself.
        for (name, text) in &beside {
            sibo_files::write(&part.join(name), text)?;
        }
        Ok(())
    })?;
    app.out.result(format!("{}: {} tensors, merged", args.output.display(), tensors.len()));
    Ok(())
}

/// Refuses what no weight matrix can hold.
fn check(folder: &Folder) -> anyhow::Result<()> {
    let (config, place) = (&folder.config, folder.path.display());
    if !config.sibo.is_plain() {
        bail!(
            "{place}: lambda is {}, and SIBO's share of a token's first representation cannot be merged into a weight. \
             Use the adapter beside its base model (--adapter), or train it with lambda 0",
            config.sibo.lambda_in_words()
        );
    }
    if let Method::Bottleneck(_) = &config.method {
        bail!(
            "{place}: a {} adapter is not linear, so it cannot be merged into a weight; use it beside its base model (--adapter)",
            config.method.name()
        );
    }
    Ok(())
}

type Tensor = (String, Vec<usize>, Vec<f32>);

/// Every tensor of the base with what was trained added to it or in its place.
fn merged(base: &Model, adapter: &Adapter) -> anyhow::Result<Vec<Tensor>> {
    let shape = base.shape();
    ensure!(
        adapter.embeddings.is_empty(),
        "LoRA on an embedding ({}) is not merged here; use the adapter beside its base model (--adapter)",
        adapter.embeddings.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>().join(", ")
    );
    let mut tensors = Vec::new();
    let own_head = shape.tied.iter().filter(|_| unties(base, adapter));
    for (name, sizes) in shape.tensors.iter().chain(own_head) {
        let trained = adapter.trained.iter().find(|(n, _)| n == name);
        let mut values = match trained {
            Some((_, id)) => adapter.params.value(*id).to_vec(),
            None => base.tensor(name).unwrap_or_default(),
        };
        let branches = adapter.placed.iter().filter(|p| is_beside(&p.at, name));
        for placed in branches {
            if let Function::Lora(lora) = &placed.branch.function {
                for (value, change) in values.iter_mut().zip(lora.delta(&adapter.params)) {
                    *value += change;
                }
            }
        }
        tensors.push((name.clone(), sizes.clone(), values));
    }
    Ok(tensors)
}

/// Whether embedding and head, which the base shares, are two tables once this is merged: one of them was trained by itself
/// or has a branch of its own. Full fine-tuning trains them as one.
fn unties(base: &Model, adapter: &Adapter) -> bool {
    let words = format!("{}.weight", base.arch().words_path());
    let tables = [words.as_str(), "lm_head.weight"];
    let trained = adapter.trained.iter().any(|(name, _)| tables.contains(&name.as_str()));
    let beside = adapter.placed.iter().any(|p| is_beside(&p.at, tables[1]));
    base.arch().tied && adapter.config.method != Method::Full && (trained || beside)
}

fn is_beside(at: &At, tensor: &str) -> bool {
    matches!(at, At::Beside(path) if tensor.strip_suffix(".weight") == Some(path))
}

/// The base's `config.json`, now of 32-bit floats, and with the head where the adapter brought one.
fn config(
    folder: &Path,
    base: &Model,
    adapter: &Adapter,
    classes: Option<&[String]>,
) -> anyhow::Result<Value> {
    let path = folder.join("config.json");
    let mut config = sibo_files::json::read(&path)?;
    let Some(object) = config.as_object_mut() else { bail!("{}: is not an object", path.display()) };
    for key in ["torch_dtype", "dtype"] {
        if object.contains_key(key) {
            object.insert(key.into(), json!("float32"));
        }
    }
    // Both tables are written; a reader that ties would lose one.
    if base.arch().untied || unties(base, adapter) {
        object.insert("tie_word_embeddings".into(), json!(false));
    }
    // The weights are floats again, whatever the base's were.
    object.remove("quantization_config");
    if let Some(classes) = classes {
        let architecture = match object.get("model_type").and_then(Value::as_str) {
            Some("bert") => "BertForSequenceClassification",
            Some("xlm-roberta") => "XLMRobertaForSequenceClassification",
            Some("camembert") => "CamembertForSequenceClassification",
            _ => "RobertaForSequenceClassification",
        };
        object.insert("architectures".into(), json!([architecture]));
        object.insert("id2label".into(), outputs::id2label(classes).into());
        object.insert("label2id".into(), outputs::label2id(classes).into());
        let regression = base.classes() == Some(1);
        let problem = if regression { "regression" } else { "single_label_classification" };
        object.insert("problem_type".into(), json!(problem));
    }
    Ok(config)
}

/// The tokenizer and whatever else lies beside the weights.
pub(super) fn copy_beside(from: &Path, to: &Path) -> Result<(), sibo_files::Error> {
    let entries = std::fs::read_dir(from).map_err(|e| sibo_files::Error::io(from, "read the folder", e))?;
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let weights = [".safetensors", ".bin", ".index.json", ".gguf", ".h5", ".msgpack"]
            .iter()
            .any(|end| name.ends_with(end));
        // Checksums of the old folder's files would be lies in the new one.
        let other = ["config.json", "SHA256SUMS"].contains(&name.as_str());
        if !path.is_file() || weights || other || name.starts_with('.') {
            continue;
        }
        let bytes = std::fs::read(&path).map_err(|e| sibo_files::Error::io(&path, "read", e))?;
        sibo_files::write(&to.join(&name), &bytes)?;
    }
    Ok(())
}
