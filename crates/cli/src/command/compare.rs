//! `sibo compare`: plain against SIBO, and baselines beside them.

use crate::app::App;
use crate::exit::usage;
use crate::study::{self, Arm, Finding, Study, StudyArgs};
use serde_json::{Map, Value, json};
use sibo_peft::Sibo;
use sibo_peft::config::METHODS;
use sibo_tasks::SplitName;
use sibo_train::cells::{Log, Pairing};
use sibo_train::recipe;

const LONG_ABOUT: &str = "\
Answers whether SIBO helps on your model and task: each method plain and with SIBO, with the same seeds, order of \
rows and initial weights, judged on the same test rows. Before the first run it says how small a difference so \
many rows and seeds can tell apart at all. Afterwards: means and spread over seeds, paired bootstrap over rows, \
paired t test over seeds with its effect size, McNemar's test, and a sentence.

    sibo compare recipe.toml --lambda 0.2
    sibo compare recipe.toml --lambda 0.2 --methods lora,pfeiffer,full --set-for full:learning_rate=5e-5
    sibo compare recipe.toml --lambda 0.2 --seeds 1,2,3,4,5 --also svamp

Every finished cell (one configuration with one seed) is a line of cells.jsonl in the study's folder and is never \
run again; whatever stopped the study, the same command goes on, a cell under way from its own checkpoint. Choose \
lambda by `sibo sweep`, on validation rows, not here.";

/// Compare plain methods with SIBO, and with baselines, over several seeds
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {
    #[command(flatten)]
    study: StudyArgs,
    /// SIBO's share of the first representation, or `learned` [default: the recipe's]
    #[arg(long, value_name = "LAMBDA", allow_hyphen_values = true)]
    lambda: Option<String>,
    /// Methods, separated by commas [default: the recipe's]; head, bitfit and full have no SIBO and are baselines
    #[arg(long, value_name = "METHODS", value_delimiter = ',')]
    methods: Vec<String>,
    /// Change one value of the recipe for one method only: full:learning_rate=5e-5; may be given several times
    #[arg(long, value_name = "METHOD:KEY=VALUE")]
    set_for: Vec<String>,
}

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    let study = Study::open("compare", &args.study, app)?;
    let own = study.recipe.adapter.method.name().to_string();
    let methods = if args.methods.is_empty() { vec![own] } else { args.methods.clone() };
    check_methods(&methods)?;
    let settings = settings(&args.set_for, &methods)?;
    let share = share(&args, &study, &methods)?;
    let (arms, pairs) = arms(&study, &methods, share.as_ref(), &settings)?;
    arms.iter().try_for_each(|arm| study.check_judged("--set-for", arm))?;
    let cells = study.cells(&arms.iter().collect::<Vec<_>>(), &study.judges(SplitName::Test)?)?;
    let mut log = Log::open(&study.folder)?;
    let facts = study.announce(&cells, &log, app)?;
    let records = study.run(&cells, &mut log, app)?;
    let derived = study::derive(&records, &pairs)?;
    let verdict = pairs.first().map(|p| study::sentence(&study, &derived, p) + ".").unwrap_or_default();
    let question = if share.is_some() { "Does SIBO help" } else { "Which baseline serves" };
    let finding = Finding {
        title: format!("{question} {} on {}?", study.recipe.model, study.task_names()),
        verdict,
        facts,
        records,
        pairs,
        refused: vec![],
        first: vec![],
        own: json!({"lambda": share.map(|share| share.keys["lambda"].clone()), "methods": methods}),
    };
    study::tell(&study, &finding, derived, app)
}

/// Every method plain and, where it takes it, with SIBO; and what is held against what.
fn arms(
    study: &Study,
    methods: &[String],
    share: Option<&Share>,
    settings: &[Setting<'_>],
) -> anyhow::Result<(Vec<Arm>, Vec<Pairing>)> {
    let (mut arms, mut pairs) = (Vec::new(), Vec::new());
    for method in methods {
        arms.push(Arm { name: method.clone(), value: recipe_of(study, method, None, settings)? });
        if let Some(share) = share.filter(|_| takes_sibo(method)) {
            let name = format!("SIBO-{method}, lambda {}", share.words);
            pairs.push(Pairing { a: method.clone(), b: name.clone() });
            arms.push(Arm { name, value: recipe_of(study, method, Some(share), settings)? });
        }
    }
    let beside = beside_full(&pairs, methods);
    pairs.extend(beside);
    if pairs.is_empty() {
        pairs = methods[1..].iter().map(|m| Pairing { a: methods[0].clone(), b: m.clone() }).collect();
    }
    Ok((arms, pairs))
}

/// Where full fine-tuning is there, each boosted method beside it: the paper's claim about adapters.
fn beside_full(boosted: &[Pairing], methods: &[String]) -> Vec<Pairing> {
    let full = methods.iter().find(|m| *m == "full");
    let with = |full: &String| boosted.iter().map(|p| Pairing { a: full.clone(), b: p.b.clone() }).collect();
    full.map(with).unwrap_or_default()
}

/// What the boosted arms mix in: the recipe's keys that are about lambda, and lambda in words.
struct Share {
    keys: Map<String, Value>,
    words: String,
}

/// The recipe's lambda with all that belongs to it (a schedule, how a learned one starts), changed by `--lambda`; nothing
/// where no method takes one.
fn share(args: &Args, study: &Study, methods: &[String]) -> anyhow::Result<Option<Share>> {
    if !methods.iter().any(|method| takes_sibo(method)) {
        return match args.lambda {
            _ if methods.len() < 2 => {
                Err(usage("one baseline alone compares with nothing; name two methods or more"))
            }
            Some(_) => Err(usage(format!("--lambda: {} take no SIBO; leave it out", methods.join(", ")))),
            None => Ok(None),
        };
    }
    let own = study.value.pointer("/adapter/sibo").and_then(Value::as_object);
    let about = |(key, value): (&String, &Value)| {
        sibo_peft::lambda::KEYS.contains(&key.as_str()).then(|| (key.clone(), value.clone()))
    };
    let mut keys: Map<String, Value> = own.into_iter().flatten().filter_map(about).collect();
    if let Some(text) = &args.lambda {
        keys.insert("lambda".into(), text.parse().map_or_else(|_| json!(text), |number: f64| json!(number)));
    }
    let range = |lambda: &dyn std::fmt::Display| {
        usage(format!("lambda {lambda}: it must be above 0 and below 1, or `learned`; 0 is the plain method"))
    };
    match keys.get("lambda") {
        None => return Err(usage("--lambda is missing, and the recipe has none")),
        Some(Value::String(word)) if word != "learned" => return Err(range(word)),
        Some(Value::Number(n)) if n.as_f64().is_none_or(|n| !(0.0..1.0).contains(&n)) => {
            return Err(range(n));
        }
        Some(_) => {}
    }
    let sibo = Sibo::from_json("recipe", &Value::Object(keys.clone()))?;
    match sibo.is_plain() {
        true => Err(range(&sibo.lambda)),
        false => Ok(Some(Share { words: sibo.lambda_in_words(), keys })),
    }
}

fn check_methods(methods: &[String]) -> anyhow::Result<()> {
    methods.iter().try_for_each(|method| known(method))?;
    let mut seen = std::collections::BTreeSet::new();
    match methods.iter().find(|method| !seen.insert(*method)) {
        // Its runs would count as seeds that nobody ran.
        Some(twice) => Err(usage(format!("--methods names {twice} twice; name each method once"))),
        None => Ok(()),
    }
}

fn known(method: &str) -> anyhow::Result<()> {
    let names: Vec<&str> = METHODS.iter().map(|m| m.0).collect();
    if !names.contains(&method) {
        let hint = sibo_peft::config::did_you_mean(method, &names);
        return Err(usage(format!("--methods: `{method}` is none{hint}; methods are {}", names.join(", "))));
    }
    Ok(())
}

fn takes_sibo(method: &str) -> bool {
    !["head", "bitfit", "full"].contains(&method)
}

/// What `--set-for` changes: for which method, and the assignment.
type Setting<'a> = (&'a str, &'a str);

fn settings<'a>(set_for: &'a [String], methods: &[String]) -> anyhow::Result<Vec<Setting<'a>>> {
    let names: Vec<&str> = methods.iter().map(String::as_str).collect();
    let read = |text: &'a String| {
        let (name, assignment) = text.split_once(':').ok_or_else(|| {
            usage(format!("--set-for {text}: write METHOD:KEY=VALUE, such as full:learning_rate=5e-5"))
        })?;
        if !names.contains(&name) {
            let hint = sibo_peft::config::did_you_mean(name, &names);
            let all = names.join(", ");
            return Err(usage(format!(
                "--set-for {text}: `{name}` is not compared{hint}; methods here are {all}"
            )));
        }
        Ok((name, assignment))
    };
    set_for.iter().map(read).collect()
}

/// The recipe with this method: its own settings where it is the recipe's, defaults elsewhere.
fn recipe_of(
    study: &Study,
    method: &str,
    share: Option<&Share>,
    settings: &[Setting<'_>],
) -> anyhow::Result<Value> {
    let mut value = study.value.clone();
    let own = study.recipe.adapter.method.name();
    let saved = value.pointer("/adapter/modules_to_save").cloned();
    let mut adapter = match (method == own, value.get("adapter")) {
        (true, Some(table)) => table.clone(),
        _ => json!({}),
    };
    adapter["method"] = json!(method);
    if let Some(saved) = saved {
        adapter["modules_to_save"] = saved;
    }
    match share {
        None => {
            adapter.as_object_mut().map(|table| table.remove("sibo"));
        }
        Some(share) => {
            if !adapter["sibo"].is_object() {
                adapter["sibo"] = json!({});
            }
            share.keys.iter().for_each(|(key, value)| adapter["sibo"][key] = value.clone());
        }
    }
    value["adapter"] = adapter;
    let mut own = settings.iter().filter(|(name, _)| *name == method);
    own.try_for_each(|(_, assignment)| recipe::set(&mut value, assignment))?;
    Ok(value)
}
