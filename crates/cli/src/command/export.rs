//! `sibo export`: an adapter in the form that another program reads.

use crate::app::App;
use crate::exit::usage;
use crate::{beside, classes, places};
use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use sibo_model::{LoadOptions, Model};
use sibo_peft::adapter_hub::{self, Target};
use sibo_peft::folder::{self, Folder};
use sibo_peft::{AdapterConfig, Method};
use sibo_train::checkpoint;
use std::path::{Path, PathBuf};

const LONG_ABOUT: &str = "\
Writes an adapter as a folder that another program opens.

    sibo export runs/mine/adapter --as-plain-lora --output for-peft
    sibo export runs/mine/adapter --format adapter-hub --model bert-base --output for-adapter-hub
    sibo export from-adapter-hub --format sibo --model bert-base --output for-sibo

--as-plain-lora writes PEFT's own LoRA folder. PEFT knows no lambda, so a SIBO-LoRA loses it: the same matrices then \
read x instead of (1 - lambda) x + lambda h0, and the result is another function than the one that was trained. \
Measure it before you use it. A LoRA with lambda 0 loses nothing.

--format adapter-hub writes houlsby, pfeiffer and parallel adapters and their classification head for the Python \
package `adapters`; what would be another function there is refused. The other way round no command is needed: \
--adapter opens adapter-hub's folders (saved with use_safetensors=True) as they lie, and --format sibo makes one \
sibo's own.";

/// Write an adapter in another program's form
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {
    /// The adapter: a folder that PEFT, adapter-hub or `sibo train` wrote, or a hub id
    #[arg(value_name = "ADAPTER")]
    adapter: String,
    /// PEFT's LoRA folder; lambda is dropped, which changes what a boosted adapter computes
    #[arg(long, conflicts_with_all = ["format", "model"])]
    as_plain_lora: bool,
    /// The form to write; needs --model
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The base model: a name below --models, a folder, or a hub id
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// The folder to write; it must not be there yet
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
}

/// `--format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// The Python package `adapters` (adapter-hub)
    AdapterHub,
    /// This program's own folder, which for a plain LoRA is PEFT's
    Sibo,
}

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    if !args.as_plain_lora && args.format.is_none() {
        return Err(usage("say what to write: --as-plain-lora, --format adapter-hub or --format sibo"));
    }
    ensure!(!args.output.exists(), "{}: is there already; give another folder", args.output.display());
    places::check_folder(&args.output)?;
    let adapter = app.places.model(&args.adapter)?;
    let model = match (&args.format, &args.model) {
        (Some(_), None) => return Err(usage("--format needs the base model: give --model MODEL")),
        (Some(_), Some(model)) => Some(app.places.model(model)?),
        (None, _) => None,
    };
    // Everything is read before a folder is made.
    let opened = Folder::open(&adapter)?;
    let loaded = model.as_ref().map(|m| Model::load_with_adapter(m, &adapter, LoadOptions::default()));
    let loaded = loaded.transpose()?;
    if let Some(parent) = args.output.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(|e| sibo_files::Error::io(parent, "create the folder", e))?;
    }
    let beside = beside::all(&opened.path)?;
    match (args.format, model, loaded) {
        (Some(Format::AdapterHub), Some(folder), Some(loaded)) => {
            for_adapter_hub((&folder, &opened.path), &loaded.model, &args.output, app)
        }
        (Some(Format::Sibo), _, Some(loaded)) => {
            let card =
                format!("An adapter that was read from `{}` and written by `sibo export`.\n", args.adapter);
            checkpoint::save_adapter(&loaded.model, &args.output, &card)?;
            told(&args.output, "sibo", loaded.model.params().len(), app);
            Ok(())
        }
        _ => as_plain_lora(opened, &args.output, app),
    }?;
    for (name, text) in beside {
        sibo_files::write(&args.output.join(name), &text)?;
    }
    Ok(())
}

/// Result of the two exports that lose nothing.
fn told(output: &Path, format: &str, tensors: usize, app: &App) {
    let path = output.display();
    app.out.result(match app.out.json() {
        true => json!({"adapter": path.to_string(), "format": format, "tensors": tensors}).to_string(),
        false => format!("{path}: {tensors} tensors, in {format}'s form"),
    });
}

fn for_adapter_hub(
    (base, own): (&Path, &Path),
    model: &Model,
    output: &Path,
    app: &App,
) -> anyhow::Result<()> {
    let adapter = &model.adapter().context("the model has no adapter")?.config;
    let config = sibo_files::json::read(&base.join("config.json"))?;
    let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let name = adapter_name(output);
    let model_class = hub_class(model_type)?;
    let labels = classes::of(base, Some(own))?.names(model.classes().unwrap_or(0));
    let fingerprint = model.fingerprint();
    let target = Target { name: &name, model_type, model_class, fingerprint, labels: &labels };
    let card = format!(
        "---\nlibrary_name: adapters\ntags:\n- {model_type}\n---\n\nA {} adapter, written by `sibo export` for adapter-hub:\n\n\
         ```python\nmodel = adapters.AutoAdapterModel.from_pretrained(base)\nmodel.load_adapter(folder, set_active=True, use_safetensors=True)\n```\n",
        adapter.method.name()
    );
    let (shape, tensor) = (model.shape(), |name: &str| model.tensor(name));
    adapter_hub::save(adapter, model.params(), &shape, &tensor, &target, output, &card)?;
    if let Some(dropout) = moved_dropout(adapter) {
        app.out.note(format!(
            "dropout {dropout} acts on what the adapter reads here, and there on what it gives: the same answers, but another \
             course of further training"
        ));
    }
    told(output, "adapter-hub", model.params().len(), app);
    app.out.note(format!("its name there is `{name}`"));
    Ok(())
}

/// The rate, where adapter-hub has dropout at another place.
fn moved_dropout(adapter: &AdapterConfig) -> Option<f32> {
    match &adapter.method {
        Method::Bottleneck(b) if b.dropout > 0.0 && !b.dropout_after_up => Some(b.dropout),
        _ => None,
    }
}

/// A module's name in Python: the folder's, without what a module's name cannot hold.
fn adapter_name(output: &Path) -> String {
    let name = output.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect()
}

/// adapter-hub's class for a model type.
fn hub_class(model_type: &str) -> anyhow::Result<&'static str> {
    Ok(match model_type {
        "bert" => "BertAdapterModel",
        "roberta" => "RobertaAdapterModel",
        "xlm-roberta" => "XLMRobertaAdapterModel",
        "llama" => "LlamaAdapterModel",
        "mistral" => "MistralAdapterModel",
        "gptj" => "GPTJAdapterModel",
        other => bail!(
            "adapter-hub has no class for {other} models; it has one for bert, roberta, xlm-roberta, llama, mistral and gptj"
        ),
    })
}

fn as_plain_lora(mut adapter: Folder, output: &Path, app: &App) -> anyhow::Result<()> {
    let lossy = !adapter.config.sibo.is_plain();
    let lambda = adapter.config.sibo.lambda_in_words();
    let card = if lossy { lossy_card(&adapter, &lambda) } else { own_card(&adapter) };
    adapter.write_as_plain_lora(output, &card)?;
    if lossy {
        app.out.warn(format!(
            "lambda {lambda} is dropped. Every injected branch now reads x where it was trained to read (1 - lambda) x + lambda h0, \
             so this folder computes something else than {}; measure it before you use it",
            adapter.path.display()
        ));
    }
    if app.out.json() {
        let value = json!({
            "adapter": output.display().to_string(), "peft_type": "LORA", "tensors": adapter.shapes.len(), "lossy": lossy,
            "dropped": lossy.then(|| adapter.config.sibo.to_json()),
        });
        app.out.result(value.to_string());
        return Ok(());
    }
    let what = if lossy { "PEFT's LoRA, without lambda (lossy)" } else { "PEFT's LoRA, nothing lost" };
    app.out.result(format!("{}: {} tensors, {what}", output.display(), adapter.shapes.len()));
    Ok(())
}

/// The card that lies with the adapter: a plain LoRA stays what it was.
fn own_card(adapter: &Folder) -> String {
    std::fs::read_to_string(adapter.path.join(folder::CARD_FILE)).unwrap_or_default()
}

/// Whoever finds this folder without its history must learn that it was trained as something else.
fn lossy_card(adapter: &Folder, lambda: &str) -> String {
    let base = adapter.config.base_model.as_deref();
    let front = base.map(|b| format!("base_model: {b}\n")).unwrap_or_default();
    format!(
        "---\n{front}library_name: peft\ntags:\n- lora\n---\n\n# LoRA adapter{}, without the SIBO it was trained with\n\n\
         It was trained with lambda {lambda} (SIBO, arXiv 2402.11896): each injected branch read\n\
         `(1 - lambda) x + lambda h0`. This folder has the same matrices and no lambda, so its branches\n\
         read `x` and its answers differ from those of the trained adapter. Measure it before you use it.\n\n\
         Dropped: `{}`\n",
        base.map(|b| format!(" for {b}")).unwrap_or_default(),
        adapter.config.sibo.to_json()
    )
}
