//! `key=a,b,c` into values, and several of them into every combination.

use crate::Error;

/// A key of the recipe and the values that it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    /// The key, as `--set` takes it.
    pub key: String,
    /// The values, as `--set` takes them.
    pub values: Vec<String>,
}

impl Axis {
    /// Reads `training.learning_rate=1e-4,3e-4`, which was given by `flag`; commas within brackets or quotes part nothing.
    pub fn parse(flag: &str, text: &str) -> Result<Self, Error> {
        let wrong = |reason: &str| Error::key(flag, text, reason);
        let (key, list) =
            text.split_once('=').ok_or_else(|| wrong("has no `=`; write key=a,b, such as adapter.r=4,8"))?;
        let mut values = vec![String::new()];
        let (mut depth, mut quoted) = (0, false);
        for c in list.chars() {
            match c {
                '"' => quoted = !quoted,
                '[' | '{' if !quoted => depth += 1,
                ']' | '}' if !quoted => depth -= 1,
                _ => {}
            }
            match (c, depth == 0 && !quoted, values.last_mut()) {
                (',', true, _) => values.push(String::new()),
                (c, _, Some(last)) => last.push(c),
                _ => {}
            }
        }
        let values: Vec<String> = values.iter().map(|v| v.trim().to_string()).collect();
        if key.trim().is_empty() || values.iter().any(String::is_empty) {
            return Err(wrong("needs a key and one value or more, none of them empty"));
        }
        let mut seen = std::collections::BTreeSet::new();
        if let Some(twice) = values.iter().find(|v| !seen.insert(v.as_str())) {
            return Err(wrong(&format!("names the value {twice} twice")));
        }
        Ok(Axis { key: key.trim().into(), values })
    }

    /// The key's last part, for names.
    pub fn short(&self) -> &str {
        self.key.rsplit('.').next().unwrap_or(&self.key)
    }
}

/// Every combination: its name, and its assignments. The last axis varies fastest.
pub fn grid(axes: &[Axis]) -> Vec<(String, Vec<String>)> {
    let mut all: Vec<(Vec<String>, Vec<String>)> = vec![(vec![], vec![])];
    for axis in axes {
        let longer = |(names, sets): &(Vec<String>, Vec<String>)| {
            let one = |value: &String| {
                let name = name(axis.short(), value);
                let set = format!("{}={value}", axis.key);
                ([names.clone(), vec![name]].concat(), [sets.clone(), vec![set]].concat())
            };
            axis.values.iter().map(one).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(longer).collect();
    }
    all.into_iter().map(|(names, sets)| (names.join(", "), sets)).collect()
}

/// `lambda 0.4`; of a table its keys, as they would stand as axes of their own: `lambda 0.4, lambda_schedule linear`.
fn name(key: &str, value: &str) -> String {
    let Some(inner) = value.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
        return format!("{key} {value}");
    };
    // The same commas part a table's keys as an axis's values.
    let pairs = Axis::parse("", &format!("keys={inner}")).map(|axis| axis.values).unwrap_or_default();
    let words = |pair: &String| match pair.split_once('=') {
        Some((key, value)) => format!("{} {}", key.trim(), value.trim().trim_matches(['"', '\''])),
        None => pair.clone(),
    };
    pairs.iter().map(words).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_named_by_its_keys() {
        let text = r#"adapter.sibo={lambda=0},{lambda=[0.1,0.3],h0="rms"},{lambda = "learned", lambda_per = "layer"}"#;
        let names: Vec<String> =
            grid(&[Axis::parse("--set-grid", text).unwrap()]).into_iter().map(|g| g.0).collect();
        assert_eq!(names, ["lambda 0", "lambda [0.1,0.3], h0 rms", "lambda learned, lambda_per layer"]);
    }

    #[test]
    fn lists_are_parted_outside_brackets() {
        let axis =
            Axis::parse("--set-grid", "adapter.target_modules=[\"q_proj\",\"v_proj\"], all-linear").unwrap();
        assert_eq!((axis.short(), axis.values.len()), ("target_modules", 2));
        assert_eq!(axis.values, ["[\"q_proj\",\"v_proj\"]", "all-linear"]);
        let said = |text: &str| Axis::parse("--set-grid", text).unwrap_err().to_string();
        assert!(said("r").contains("has no `=`"));
        assert!(said("r=4,,8").contains("none of them empty"));
        assert!(said("r=4,8,4").contains("4 twice"));
    }

    #[test]
    fn every_combination_comes_once() {
        let axes = ["adapter.sibo.lambda=0,0.3", "adapter.r=4,8,16"]
            .map(|text| Axis::parse("--set-grid", text).unwrap());
        let all = grid(&axes);
        assert_eq!(all.len(), 6);
        assert_eq!(all[4].0, "lambda 0.3, r 8");
        assert_eq!(all[4].1, ["adapter.sibo.lambda=0.3", "adapter.r=8"]);
        assert_eq!(grid(&[]), [(String::new(), vec![])]);
    }
}
