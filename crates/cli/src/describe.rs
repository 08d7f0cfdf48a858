//! Words about an adapter on a model, the same in every command.

use serde_json::{Value, json};
use sibo_model::Model;
use sibo_peft::Adapter;
use sibo_report::number;

/// Learned lambdas as they stand, a line; none where lambda is a number.
pub(crate) fn learned_lambdas(model: &Model) -> Option<String> {
    let learned = Adapter::learned_lambdas(model.params());
    let words: Vec<String> = learned.iter().map(|l| format!("{} {:.4}", l.of, l.lambda)).collect();
    (!words.is_empty()).then(|| format!("learned lambda: {}", words.join(", ")))
}

/// The same for programs.
pub(crate) fn learned_json(model: &Model) -> Value {
    let learned = Adapter::learned_lambdas(model.params());
    learned.iter().map(|l| json!({"of": l.of, "lambda": l.lambda})).collect()
}

/// Which sites of an adapter are injected and which are plain.
pub(crate) fn adapter_lines(model: &Model) -> Vec<String> {
    let Some(adapter) = model.adapter() else { return vec![] };
    let params = model.params();
    let mut lines = vec![format!(
        "{}: {} trained numbers in {} tensors",
        adapter.config.method.name(),
        number::fixed(params.numbers() as f64, 0),
        params.len()
    )];
    let layers = &model.shape().layer_paths;
    if adapter.config.sibo.is_plain() {
        lines.push("lambda 0: every site runs plain".into());
    } else {
        let lambda = adapter.config.sibo.lambda_in_words();
        lines.push(format!("SIBO with lambda {lambda} enters {}", by_kind(&adapter.injected, layers)));
        if !adapter.idle.is_empty() {
            let idle = by_kind(&adapter.idle, layers);
            lines.push(format!(
                "of these, {idle} change nothing: the first layer's attention reads h0 itself, so the mix is x at any lambda"
            ));
        }
        if !adapter.plain.is_empty() {
            lines.push(format!("these run plain: {}", by_kind(&adapter.plain, layers)));
        }
        lines.extend(learned_lambdas(model));
    }
    lines
}

/// A task's name as tables show it: rows of another text than the benchmark's are never called by its bare name,
/// where the test stands to the training rows is said, and a benchmark whose test rows were trained on is marked.
pub(crate) fn task_name(task: &str, config: &serde_json::Value) -> String {
    let variant = config["variant"].as_str();
    let leak = config["leak"].as_str().map(|_| "LEAKS");
    match [variant, config["distribution"].as_str(), leak]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .as_slice()
    {
        [] => task.to_owned(),
        remarks => format!("{task} ({})", remarks.join(", ")),
    }
}

/// `self_attn.q_proj x 3, mlp.up_proj x 3`
fn by_kind(paths: &[String], layers: &[String]) -> String {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for path in paths {
        let below = layers.iter().find_map(|l| path.strip_prefix(l.as_str())?.strip_prefix('.'));
        let name = below.unwrap_or(path).to_string();
        match counts.iter_mut().find(|(n, _)| *n == name) {
            Some((_, count)) => *count += 1,
            None => counts.push((name, 1)),
        }
    }
    let words: Vec<String> = counts.iter().map(|(name, n)| format!("{name} x {n}")).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_score_must_say_stands_with_the_task() {
        let name = |config| task_name("boolq", &config);
        assert_eq!(name(serde_json::json!({"variant": null})), "boolq");
        assert_eq!(name(serde_json::json!({"variant": "without passage"})), "boolq (without passage)");
        let all = serde_json::json!(
            {"variant": "without passage", "leak": "3 of 9 rows", "distribution": "in distribution"}
        );
        assert_eq!(name(all), "boolq (without passage, in distribution, LEAKS)");
    }

    #[test]
    fn paths_are_counted_by_their_place_in_the_layer() {
        let layers = ["model.layers.1".to_string(), "model.layers.11".to_string()];
        let paths =
            ["model.layers.1.mlp.up_proj", "model.layers.11.mlp.up_proj", "lm_head"].map(String::from);
        assert_eq!(by_kind(&paths, &layers), "mlp.up_proj x 2, lm_head x 1");
    }
}
