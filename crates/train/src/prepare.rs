//! From a recipe and the folders that its names led to, to everything that a run or an evaluation needs.

use crate::data::{self, Dataset, Limits};
use crate::memory::MemoryPlan;
use crate::outputs::{self, Outputs};
use crate::own_rows::{self, OwnRows};
use crate::probe::{self, ProbeRow};
use crate::recipe::{self, ComputeChoice, Recipe, Source, Training};
use crate::validate::Validation;
use crate::{Error, Outcome, card, checkpoint, mixture};
use sibo_model::{Compute, LoadOptions, Model, usual_compute};
use sibo_peft::{AdapterConfig, TaskType};
use sibo_tasks::spec::Kind;
use sibo_tasks::{Example, Metric, Protocol, SplitName, Task, Wanted};
use sibo_text::{Template, Tokenizer};
use std::path::{Path, PathBuf};

/// Where a recipe's names led.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The base model's folder.
    pub model: PathBuf,
    /// Below which the files of tasks lie.
    pub root: PathBuf,
    /// The data file, where the recipe names one.
    pub data: Option<PathBuf>,
    /// The file of validation rows, where the recipe names one.
    pub validation: Option<PathBuf>,
    /// The file of test rows, where the recipe names one.
    pub test: Option<PathBuf>,
}

impl Places {
    /// The data file.
    ///
    /// # Errors
    /// A recipe of tasks.
    pub fn data_file(&self) -> Result<&Path, Error> {
        let none = || Error::Refused("the recipe names a task, not a data file".into());
        self.data.as_deref().ok_or_else(none)
    }
}

/// Everything that a run needs; [`crate::train`] takes its parts.
pub struct Prepared {
    /// The base with a fresh adapter.
    pub model: Model,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// The run's template.
    pub template: Template,
    /// The tasks that the recipe names.
    pub tasks: Vec<Task>,
    /// How a language model is asked about a task.
    pub protocol: Option<Protocol>,
    /// Rows to learn from.
    pub train: Dataset,
    /// Rows to validate by.
    pub validation: Option<Dataset>,
    /// What is measured on them beside the loss.
    pub metrics: Vec<Metric>,
    /// The plan of its memory, which the run keeps to.
    pub plan: MemoryPlan,
    /// Rows of a pass over validation rows: the recipe's, or fewer within its budget of memory.
    pub eval_batch: usize,
    /// Sentences to show once: unknown keys of `config.json`, heads made new, notes of tokenizer and data.
    pub notes: Vec<String>,
}

impl Prepared {
    /// The rows to validate by, as the loop takes them.
    pub fn validation(&self) -> Option<Validation<'_>> {
        self.validation.as_ref().map(|data| Validation { data, metrics: self.metrics.clone() })
    }

    /// Writes the result of a run of `recipe` into its folder: the adapter, its card, and the template that its
    /// prompts need or what the outputs of its class head stand for. Returns the adapter's folder.
    pub fn save(&self, recipe: &Recipe, outcome: &Outcome) -> Result<PathBuf, Error> {
        let folder = recipe.output_dir.join(checkpoint::ADAPTER);
        checkpoint::save_adapter(&self.model, &folder, &card::text(&self.model, recipe, outcome, &[]))?;
        // A class head reads no prompt, and the other protocols ask without a template.
        let asks = self.model.is_causal() && matches!(self.protocol, None | Some(Protocol::Clean));
        if asks {
            let (name, text) = self.template.file();
            sibo_files::write(&folder.join(name), text.as_bytes())?;
        }
        if let (Some(_), [task]) = (self.model.classes(), self.tasks.as_slice())
            && let Some(outputs) = Outputs::of(task, recipe)
        {
            let text = format!("{:#}\n", outputs.to_json());
            sibo_files::write(&folder.join(outputs::FILE), text.as_bytes())?;
        }
        Ok(folder)
    }
}

/// What a recipe's choice of numbers means for a base model on this machine: `auto` is bf16 where the processor
/// multiplies it faster, and for weights in 8 or 4 bits, which f32 would widen.
pub fn compute(choice: ComputeChoice, base: &Path) -> Compute {
    match choice {
        ComputeChoice::Bf16 => Compute::Bf16,
        ComputeChoice::F32 => Compute::F32,
        ComputeChoice::Auto if sibo_kernels::isa::isa().prefers_bf16() => Compute::Bf16,
        ComputeChoice::Auto => usual_compute(base),
    }
}

/// Opens a recipe's model, attaches its adapter, reads its rows, and then, where the memory plan holds, the model's
/// weights. `now` is for templates that print the date
/// (seconds since 1970).
pub fn prepare(recipe: &Recipe, places: &Places, now: i64) -> Result<Prepared, Error> {
    let training = &recipe.training;
    let mut notes = Vec::new();
    let (mut model, tasks) = base(recipe, places, &mut notes)?;
    let tokenizer = Tokenizer::from_folder(&places.model)?;
    tokenizer.check_vocabulary(model.arch().vocab)?;
    notes.extend(tokenizer.notes().iter().cloned());
    let own = if tasks.is_empty() { Some(OwnRows::read(recipe, places)?) } else { None };
    let template = own_rows::template(recipe, own.as_ref().map_or(&[], |rows| &rows.train), &tokenizer, now)?;
    if recipe.template == recipe::AUTO && own.is_some() {
        notes.push(format!(
            "template: {}, by what the rows are; `template` in the recipe takes another",
            template.name()
        ));
    }
    let protocol = tasks.first().and_then(|task| protocol(recipe, &model, task));
    let reader = Reader { model: &model, tokenizer: &tokenizer, template: &template, recipe };
    let (train, validation) = match &own {
        Some(rows) => reader.file(rows, places)?,
        None => reader.tasks(&tasks, protocol, &places.root)?,
    };
    let metrics = match (tasks.as_slice(), protocol) {
        ([task], None) => task.metrics(None),
        _ => vec![],
    };
    attach(&mut model, &recipe.adapter, &recipe.model, recipe.seed)?;
    notes.extend(sibo_peft::targets::passed_over(&recipe.adapter, &model.shape()));
    train.check(&model)?;
    let plan = MemoryPlan::of(&model, &train, training)?;
    notes.extend(plan.choice().map(|choice| {
        format!(
            "memory: about {} MiB of {} MiB: {choice}",
            plan.total() >> 20,
            plan.budget.unwrap_or(0) >> 20
        )
    }));
    let asked = training.per_device_eval_batch_size;
    let eval_batch = plan.looked_at(&model, &[&train, &validation], asked);
    if eval_batch < asked.min(validation.rows.len()) {
        notes.push(format!(
            "validation rows are looked at {eval_batch} at a time, not {asked}, for the budget; their numbers may differ in the last digits"
        ));
    }
    model.read_base(plan.streamed)?;
    Ok(Prepared {
        model,
        tokenizer,
        template,
        tasks,
        protocol,
        train,
        validation: Some(validation),
        metrics,
        plan,
        eval_batch,
        notes,
    })
}

impl Prepared {
    /// What `probe_every` looks at: the first validation rows, or training rows where there are none.
    pub fn probe_rows(&self, training: &Training) -> Vec<ProbeRow> {
        let data = self.validation.as_ref().unwrap_or(&self.train);
        let limit = if training.probe_every.is_some() { probe::ROWS } else { 0 };
        probe::rows(data, &self.tokenizer, limit)
    }
}

/// How `model` is asked about a task, one of a recipe's own or another one; a class head reads no words.
pub fn protocol(recipe: &Recipe, model: &Model, task: &Task) -> Option<Protocol> {
    let asked = match &recipe.source {
        Source::Tasks { protocol, .. } => protocol.unwrap_or(Protocol::Clean),
        Source::File { .. } => task.usual_protocol(),
    };
    model.is_causal().then_some(asked)
}

/// Opens a recipe's model without its adapter and without reading its layers, and opens its tasks; `notes` gets
/// sentences to show.
pub fn base(recipe: &Recipe, places: &Places, notes: &mut Vec<String>) -> Result<(Model, Vec<Task>), Error> {
    let tasks: Vec<Task> =
        recipe.source.tasks().iter().map(|task| Task::open(task)).collect::<Result<_, _>>()?;
    mixture::different(&tasks)?;
    let classes = match (&recipe.source, tasks.as_slice()) {
        (Source::Tasks { protocol: None, .. }, [task]) => class_outputs(task),
        _ => None,
    };
    let model = open(&places.model, recipe, classes, notes)?;
    check_kind(&model, &recipe.source, &tasks, &places.model)?;
    Ok((model, tasks))
}

/// Refuses rows that the model's kind cannot learn from, before they are read.
fn check_kind(model: &Model, source: &Source, tasks: &[Task], folder: &Path) -> Result<(), Error> {
    if model.is_causal() {
        return Ok(());
    }
    let what = match (source, tasks) {
        (Source::File { .. }, _) => "a file of instructions".to_string(),
        (Source::Tasks { protocol: Some(protocol), .. }, _) => format!("protocol `{protocol}`"),
        (_, [task]) if class_outputs(task).is_some() => return Ok(()),
        (_, [task]) => format!("task `{}`", task.name()),
        (_, several) => format!("a mixture of {} tasks", several.len()),
    };
    Err(Error::Refused(format!(
        "{what} needs a causal model (LLaMA, Mistral, Qwen2, GPT-J), and {} is none; encoders learn classification and regression tasks without a protocol",
        folder.display()
    )))
}

/// Outputs of the class head that a task asks for; none where it only suits a language model.
pub fn class_outputs(task: &Task) -> Option<usize> {
    match task.spec().kind {
        Kind::Classification => Some(task.spec().labels.len()),
        Kind::Regression => Some(1),
        Kind::MultipleChoice | Kind::Generation => None,
    }
}

/// Opens a base model; a class head of `classes` outputs is given to an encoder only.
fn open(
    folder: &Path,
    recipe: &Recipe,
    classes: Option<usize>,
    notes: &mut Vec<String>,
) -> Result<Model, Error> {
    let options = LoadOptions {
        compute: compute(recipe.training.compute, folder),
        seed: recipe.seed,
        classes,
        keep_layers: recipe.num_hidden_layers,
    };
    let loaded = match Model::open(folder, &options) {
        // A decoder has no class head; it is asked about the task in words.
        Err(sibo_model::Error::Refused(_)) if classes.is_some() => {
            Model::open(folder, &LoadOptions { classes: None, ..options })?
        }
        other => other?,
    };
    notes.extend(loaded.model.arch().damage());
    if !loaded.unknown_keys.is_empty() {
        notes.push(format!(
            "config.json has keys that nothing here knows: {}",
            loaded.unknown_keys.join(", ")
        ));
    }
    if !loaded.model.made_new().is_empty() {
        let made = loaded.model.made_new().join(", ");
        notes.push(format!("not in the model's folder and drawn from the seed: {made}"));
    }
    Ok(loaded.model)
}

/// Attaches a fresh adapter of the kind that the model's head asks for.
pub fn attach(model: &mut Model, config: &AdapterConfig, base: &str, seed: u64) -> Result<(), Error> {
    let mut config = config.clone();
    if config.task_type.is_none() {
        config.task_type = match (model.classes(), model.is_causal()) {
            (Some(_), _) => Some(TaskType::SeqCls),
            (None, true) => Some(TaskType::CausalLm),
            (None, false) => None,
        };
    }
    config.base_model.get_or_insert_with(|| base.to_owned());
    Ok(model.attach(&config, seed)?)
}

struct Reader<'a> {
    model: &'a Model,
    tokenizer: &'a Tokenizer,
    template: &'a Template,
    recipe: &'a Recipe,
}

impl Reader<'_> {
    fn limits(&self) -> Limits {
        Limits::of(&self.recipe.training)
    }

    fn tasks(
        &self,
        tasks: &[Task],
        protocol: Option<Protocol>,
        root: &Path,
    ) -> Result<(Dataset, Dataset), Error> {
        let named = self.recipe.source.tasks().iter().zip(tasks);
        let read = named.map(|(name, task)| self.task(task, &self.recipe.wanted(name), protocol, root));
        let (train, validation) = read.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        Ok((mixture::join(train), mixture::join(validation)))
    }

    /// A task's rows to learn from, `wanted.limit` at most, and to validate by.
    fn task(
        &self,
        task: &Task,
        wanted: &Wanted,
        protocol: Option<Protocol>,
        root: &Path,
    ) -> Result<(Dataset, Dataset), Error> {
        let train = task.load(root, SplitName::Train, wanted)?;
        let validation = task.load(root, SplitName::Validation, &Wanted { limit: None, ..*wanted })?;
        let read = |split: sibo_tasks::Split| -> Result<Dataset, Error> {
            let mut rows = task_rows(
                task,
                protocol,
                &split.examples,
                self.template,
                self.tokenizer,
                self.model,
                &self.limits(),
            )?;
            rows.notes.extend(split.notes);
            Ok(rows)
        };
        Ok((read(train)?, read(validation)?))
    }

    fn file(&self, rows: &OwnRows, places: &Places) -> Result<(Dataset, Dataset), Error> {
        let lessons = |rows: &[Example], file: &Path| {
            own_rows::lessons(rows, file, self.recipe, self.template, self.tokenizer, self.model)
        };
        let file = places.data_file()?;
        let held = places.validation.as_deref().unwrap_or(file);
        Ok((lessons(&rows.train, file)?, lessons(&rows.validation, held)?))
    }
}

/// Rows of a task for this model: classes for a class head, lessons for a language model.
pub fn task_rows(
    task: &Task,
    protocol: Option<Protocol>,
    examples: &[Example],
    template: &Template,
    tokenizer: &Tokenizer,
    model: &Model,
    limits: &Limits,
) -> Result<Dataset, Error> {
    match protocol {
        Some(protocol) => {
            data::for_lessons(task, examples, protocol, template, tokenizer, model.arch(), limits)
        }
        None => data::for_classes(task, examples, tokenizer, model.arch(), limits),
    }
}

#[cfg(test)]
mod tests;
