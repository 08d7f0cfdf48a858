//! Rows and adapters for measurements: neither needs a file, and what they hold does not matter.

use clap::Args;
use serde_json::json;
use sibo_model::{Labels, Model, Row};
use sibo_peft::AdapterConfig;
use std::str::FromStr;

/// Rows of the same length: `4x128`
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shape {
    pub(crate) rows: usize,
    pub(crate) tokens: usize,
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rows, tokens) = text.split_once('x').ok_or("write ROWSxTOKENS, such as 4x128")?;
        let number = |word: &str| match word.trim().parse::<usize>() {
            Ok(n) if (1..=1 << 20).contains(&n) => Ok(n),
            _ => Err(format!("`{word}` is not a number from 1 to {}", 1 << 20)),
        };
        let shape = Shape { rows: number(rows)?, tokens: number(tokens)? };
        if shape.tokens < 2 {
            return Err("a row needs two tokens at least: the first predicts the second".into());
        }
        Ok(shape)
    }
}

impl Shape {
    /// Rows of arbitrary ids, all of them labelled.
    pub(crate) fn rows(self, model: &Model) -> anyhow::Result<(Vec<Row>, Labels)> {
        let vocabulary = model.arch().vocab;
        let id = |row: usize, t: usize| ((row * 7919 + t * 104_729 + 11) % vocabulary) as u32;
        let rows: Vec<Row> = (0..self.rows)
            .map(|r| Row {
                ids: (0..self.tokens).map(|t| id(r, t)).collect(),
                sample: r as u64,
                ..Row::default()
            })
            .collect();
        let labels = match (model.classes(), model.is_causal()) {
            (Some(1), _) => Labels::Values(vec![0.5; self.rows]),
            (Some(classes), _) => Labels::Classes((0..self.rows).map(|r| (r % classes) as u32).collect()),
            (None, true) => {
                Labels::Tokens(rows.iter().map(|r| r.ids.iter().map(|id| i64::from(*id)).collect()).collect())
            }
            (None, false) => {
                anyhow::bail!(
                    "a training step needs a head, and this folder has none: give a language model or a classifier"
                )
            }
        };
        labels.check(&rows, model.arch())?;
        Ok((rows, labels))
    }
}

/// A method and its keys.
#[derive(Debug, Clone, Args)]
pub(crate) struct MethodArgs {
    /// What is trained; `sibo methods` lists them
    #[arg(long, value_name = "METHOD", default_value = "lora")]
    pub(crate) method: String,
    /// Change one value of the method, as `[adapter]` in a recipe: r=32, bottleneck_size=64
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

impl MethodArgs {
    /// The adapter with this share of the first representation.
    pub(crate) fn config(&self, lambda: f32) -> anyhow::Result<AdapterConfig> {
        let mut recipe = json!({ "adapter": { "method": self.method } });
        for assignment in &self.set {
            sibo_train::recipe::set(&mut recipe, &format!("adapter.{assignment}"))?;
        }
        if lambda != 0.0 {
            sibo_train::recipe::set(&mut recipe, &format!("adapter.sibo.lambda={lambda}"))?;
        }
        Ok(AdapterConfig::from_recipe("--method and --set", &recipe["adapter"])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_and_wrong_ones_said() {
        assert_eq!("4x128".parse(), Ok(Shape { rows: 4, tokens: 128 }));
        assert!("4".parse::<Shape>().unwrap_err().contains("ROWSxTOKENS"));
        assert!("4xmany".parse::<Shape>().unwrap_err().contains("`many`"));
        assert!("4x1".parse::<Shape>().unwrap_err().contains("two tokens"));
    }
}
