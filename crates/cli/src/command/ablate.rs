//! `sibo ablate placement`: what of SIBO's placement matters.

use crate::app::App;
use crate::exit::usage;
use crate::study::{self, Arm, Finding, Study, StudyArgs};
use serde_json::json;
use sibo_tasks::SplitName;
use sibo_train::cells::{self, Log, Pairing};
use sibo_train::recipe::{self, Recipe};

const LONG_ABOUT: &str = "\
Takes SIBO apart: h0 at attention sites, FFN sites or both; for series adapters, the adapter after attention, after \
the FFN or both; the skip original or mixed; h0 raw or brought to the size of x; the paper's placement or the \
released code's. Each is held against the plain method with the same seeds, order and initial weights. What a \
model or method cannot be told apart by is listed with the reason.

    sibo ablate placement recipe.toml --lambda 0.2

It judges by validation rows unless --split test is asked for: an ablation is looked at to choose. A study that \
was stopped goes on by the same command.";

/// Try where h0 enters, how it is scaled and what the skip carries
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct Args {
    /// What is varied
    #[arg(value_enum, value_name = "WHAT")]
    what: What,
    #[command(flatten)]
    study: StudyArgs,
    /// SIBO's share of the first representation, or `learned` [default: the recipe's]
    #[arg(long, value_name = "LAMBDA")]
    lambda: Option<String>,
    /// Which rows judge: validation or test
    #[arg(long, value_name = "SPLIT", default_value = "validation", value_parser = super::eval::split)]
    split: SplitName,
}

/// What is varied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Sites, adapters, skip, the scale of h0, the released code's placement
    Placement,
}

pub(crate) fn run(args: Args, app: &App) -> anyhow::Result<()> {
    let What::Placement = args.what;
    let mut study = Study::open("ablate", &args.study, app)?;
    if let Some(lambda) = &args.lambda {
        recipe::set(&mut study.value, &format!("adapter.sibo.lambda={lambda}"))?;
    }
    let own = Recipe::from_value(&args.study.recipe.display().to_string(), &study.value)?;
    if own.adapter.sibo.is_plain() {
        return Err(usage(
            "an ablation of SIBO needs a lambda above 0, or `learned`: --lambda, or the recipe's",
        ));
    }
    let words = own.adapter.sibo.lambda_in_words();
    let lambda = study.value.pointer("/adapter/sibo/lambda").cloned();
    let adapter = study.value.get("adapter").cloned().unwrap_or_else(|| json!({}));
    if !study.recipe.adapter.method.takes_sibo() {
        let method = study.recipe.adapter.method.name();
        return Err(usage(format!(
            "`{method}` has no branch that could read h0, so there is nothing to place"
        )));
    }
    let (mut arms, mut pairs, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for variation in cells::variations(&study.base, &adapter) {
        match variation.adapter {
            Ok(table) => {
                let mut value = study.value.clone();
                value["adapter"] = table;
                pairs.extend(variation.against.map(|a| Pairing { a, b: variation.name.clone() }));
                arms.push(Arm { name: variation.name, value });
            }
            Err(why) => refused.push((variation.name, why)),
        }
    }
    let cells = study.cells(&arms.iter().collect::<Vec<_>>(), &study.judges(args.split)?)?;
    let mut log = Log::open(&study.folder)?;
    let facts = study.announce(&cells, &log, app)?;
    let records = study.run(&cells, &mut log, app)?;
    let derived = study::derive(&records, &pairs)?.without_noise();
    // By the first number of a cell: others say the same of the same answers in another unit.
    let first = derived.comparisons.iter().filter(|(q, _)| derived.questions.first() == Some(q));
    let apart = first.clone().filter(|(_, c)| c.told_apart()).count();
    let verdict = format!(
        "{apart} of {} placements can be told apart from their plain method; with so many comparisons, about one in twenty would by chance.",
        first.count()
    );
    let finding = Finding {
        title: format!("Where h0 enters: {} on {}, lambda {words}", study.recipe.model, study.task_names()),
        verdict,
        facts,
        records,
        pairs,
        refused,
        first: vec![],
        own: json!({"lambda": lambda, "split": args.split.to_string()}),
    };
    study::tell(&study, &finding, derived, app)
}
