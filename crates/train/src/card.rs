//! The model card (`README.md`) of an adapter.

use crate::events::Outcome;
use crate::recipe::{Recipe, Source};
use sibo_model::Model;
use sibo_peft::Adapter;
use std::fmt::Write;

/// One measured number, as the card shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct CardScore {
    /// On what: `qnli, test, 5463 rows`.
    pub on: String,
    /// The metric.
    pub metric: String,
    /// Its value.
    pub value: f64,
    /// Its standard error, where there is one.
    pub stderr: Option<f64>,
}

/// The card of a trained adapter.
pub fn text(model: &Model, recipe: &Recipe, outcome: &Outcome, scores: &[CardScore]) -> String {
    let mut card = front_matter(recipe);
    let config = &recipe.adapter;
    let base = config.base_model.as_deref().unwrap_or(&recipe.model);
    // Writing into a String cannot fail.
    let mut line = |text: String| writeln!(card, "{text}").unwrap_or_default();
    line(format!("# {} adapter for {base}\n", title(recipe)));
    line(format!(
        "Trained with `sibo` {}: {} of {} steps, {} numbers in {} tensors.\n",
        env!("CARGO_PKG_VERSION"),
        outcome.steps,
        outcome.total_steps,
        model.params().numbers(),
        model.params().len()
    ));
    if let Some(damage) = model.arch().damage() {
        line(format!("Its base is {damage}. The adapter fits no other depth.\n"));
    }
    if let Some(adapter) = model.adapter().filter(|_| !config.sibo.is_plain()) {
        line(
            "SIBO (arXiv 2402.11896) mixes the initial representation into what each injected branch reads:"
                .into(),
        );
        line(
            "`x~ = (1 - lambda) x + lambda h0`. Python PEFT does not know it and refuses this folder;".into(),
        );
        line("load it with `sibo`.\n".into());
        line(format!("- settings: `{}`", adapter.config.sibo.to_json()));
        if adapter.config.sibo.course.is_some() {
            line(format!(
                "- lambda: {}; these values go with the first number",
                adapter.config.sibo.lambda_in_words()
            ));
        }
        for learned in Adapter::learned_lambdas(model.params()) {
            line(format!("- learned lambda, {}: {:.4}", learned.of, learned.lambda));
        }
        let idle = match adapter.idle.len() {
            0 => String::new(),
            n => format!(" ({n} of them read h0 itself, so that lambda changes nothing there)"),
        };
        line(format!(
            "- injected: {} branches{idle}; plain: {}\n",
            adapter.injected.len(),
            adapter.plain.len()
        ));
    }
    if let Some(best) = outcome.best.as_ref().filter(|b| b.step == outcome.holds_step) {
        line(format!(
            "Values of step {}, the best on validation: {} {:.4}.\n",
            best.step, best.metric, best.value
        ));
    }
    if !scores.is_empty() {
        line("| on | metric | value | standard error |\n|---|---|---|---|".into());
        for s in scores {
            let error = s.stderr.map_or("-".into(), |e| format!("{e:.4}"));
            line(format!("| {} | {} | {:.4} | {error} |", s.on, s.metric, s.value));
        }
        line(String::new());
    }
    line("## Recipe\n".into());
    line(format!("```toml\n{}```", recipe.to_toml()));
    card
}

fn title(recipe: &Recipe) -> String {
    let method = recipe.adapter.method.name();
    if recipe.adapter.sibo.is_plain() { method.into() } else { format!("SIBO-{method}") }
}

fn front_matter(recipe: &Recipe) -> String {
    let method = recipe.adapter.method.name();
    let plain = recipe.adapter.sibo.is_plain();
    let mut out = String::from("---\n");
    out += &format!("base_model: {}\n", recipe.adapter.base_model.as_deref().unwrap_or(&recipe.model));
    // Only what Python PEFT loads may claim to be for it.
    out += if plain && method == "lora" { "library_name: peft\n" } else { "library_name: sibo\n" };
    out += &format!("tags:\n- {method}\n");
    if !plain {
        out += "- sibo\n- arxiv:2402.11896\n";
    }
    if let Source::Tasks { tasks, .. } = &recipe.source {
        out += "datasets:\n";
        tasks.iter().for_each(|task| out += &format!("- {task}\n"));
    }
    out + "---\n\n"
}

/// The short card of an adapter inside a checkpoint.
pub fn checkpoint(step: usize) -> String {
    format!("The adapter after {step} steps of a `sibo` run; the run's folder holds its recipe.\n")
}
