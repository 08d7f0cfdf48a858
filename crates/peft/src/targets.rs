//! PEFT's rules for which modules a configuration means (`check_target_module_exists`,
//! `_maybe_include_all_linear_layers`, `get_pattern_key`, `ModulesToSaveWrapper` in PEFT 0.21).

use crate::{AdapterConfig, Error, Method, ModelShape, Module, ModuleKind, Placement};
use fancy_regex::Regex;

/// `target_modules` or `exclude_modules`.
#[derive(Debug, Clone, PartialEq)]
pub enum Targets {
    /// PEFT's choice for the family.
    Default,
    /// Full paths or suffixes after a dot.
    List(Vec<String>),
    /// A regular expression that must match the whole path.
    Pattern(String),
    /// Every linear but the output head.
    AllLinear,
}

/// Which layers are meant, beside the names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LayerChoice {
    /// `layers_to_transform`; empty means all.
    pub layers: Vec<usize>,
    /// `layers_pattern`; empty means any name before the number.
    pub patterns: Vec<String>,
}

/// A regular expression of a configuration, anchored as Python's `fullmatch` would.
pub fn whole(pattern: &str, key: &str, place: &str) -> Result<Regex, Error> {
    Regex::new(&format!("^(?:{pattern})$"))
        .map_err(|e| Error::key(place, key, format!("`{pattern}` is not a regular expression: {e}")))
}

/// The modules that `targets` means, in the model's order.
pub fn select<'m>(
    shape: &'m ModelShape,
    targets: &Targets,
    excluded: Option<&Targets>,
    saved: &[String],
    choice: &LayerChoice,
    place: &str,
) -> Result<Vec<&'m Module>, Error> {
    let wanted = Matcher::new(targets, shape, "target_modules", place)?;
    let unwanted = excluded.map(|t| Matcher::new(t, shape, "exclude_modules", place)).transpose()?;
    let saved = saved
        .iter()
        .map(|m| {
            Regex::new(&format!(r"^(?:(^|.*\.){m}($|\..*))"))
                .map_err(|e| Error::key(place, "modules_to_save", e.to_string()))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let numbers = choice
        .patterns
        .iter()
        .map(|p| {
            Regex::new(&format!(r"^(?:|.*?\.){p}\.(\d+)\."))
                .map_err(|e| Error::key(place, "layers_pattern", e.to_string()))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let any_number = Regex::new(r"^.*?\.[^.]*\.(\d+)\.").expect("a constant pattern");
    let mut found = Vec::new();
    for module in &shape.modules {
        let path = &module.path;
        let by_layer = !matches!(targets, Targets::Pattern(_)) && !choice.layers.is_empty();
        let is_excluded =
            unwanted.as_ref().is_some_and(|m| m.hits(module)) || saved.iter().any(|r| hit(r, path));
        if is_excluded || !wanted.hits(module) {
            continue;
        }
        // A full path in the list is meant as it stands; PEFT looks at the layer's number only for suffixes.
        let listed =
            matches!(targets, Targets::List(l) if l.contains(path)) || matches!(targets, Targets::AllLinear);
        if by_layer && !listed {
            let pattern_hit = if numbers.is_empty() {
                number(&any_number, path)
            } else {
                numbers.iter().find_map(|r| number(r, path))
            };
            if !pattern_hit.is_some_and(|n| choice.layers.contains(&n)) {
                continue;
            }
        }
        found.push(module);
    }
    if found.is_empty() {
        return Err(Error::key(place, "target_modules", nothing_found(shape, targets)));
    }
    Ok(found)
}

/// The tensors below modules that `modules_to_save` means: PEFT compares the end of a module's path.
pub fn saved_tensors<'m>(shape: &'m ModelShape, saved: &[String]) -> Vec<&'m (String, Vec<usize>)> {
    let below = |name: &str| {
        let mut ends = name.match_indices('.').map(|(at, _)| &name[..at]);
        ends.any(|module| saved.iter().any(|s| module.ends_with(s.as_str())))
    };
    shape.tensors.iter().chain(&shape.tied).filter(|(name, _)| below(name)).collect()
}

/// The value that a `rank_pattern` or `alpha_pattern` gives `path`, if one of its keys matches the path's end.
pub fn pattern_value<T: Copy>(
    patterns: &[(String, T)],
    path: &str,
    key: &str,
    place: &str,
) -> Result<Option<T>, Error> {
    for (pattern, value) in patterns {
        let regex = Regex::new(&format!(r"^(.*\.)?({pattern})$"))
            .map_err(|e| Error::key(place, key, format!("`{pattern}` is not a regular expression: {e}")))?;
        if hit(&regex, path) {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

/// What an adapter's configuration names and this model has not, a sentence each. PEFT takes a list of which one entry
/// fits, so a folder of its is no reason to speak; in a run that starts, it is a misspelling or another model's name.
pub fn passed_over(config: &AdapterConfig, shape: &ModelShape) -> Vec<String> {
    let mut named: Vec<(&str, &str)> = Vec::new();
    let none = |entry: &str| !shape.modules.iter().any(|m| suffix(entry, &m.path));
    if let Method::Lora(lora) = &config.method {
        if let Targets::List(list) = &lora.targets {
            named.extend(
                list.iter().filter(|entry| none(entry)).map(|entry| ("target_modules", entry.as_str())),
            );
        }
        for (key, patterns) in [("rank_pattern", &lora.rank_pattern), ("alpha_pattern", &lora.alpha_pattern)]
        {
            let idle = |pattern: &&(String, f64)| {
                let own = std::slice::from_ref(*pattern);
                !shape.modules.iter().any(|m| matches!(pattern_value(own, &m.path, key, ""), Ok(Some(_))))
            };
            named.extend(patterns.iter().filter(idle).map(|(pattern, _)| (key, pattern.as_str())));
        }
    }
    if let Placement::List(list) = &config.sibo.placement {
        let adapters = ["attention_adapter", "ffn_adapter"];
        let idle = list.iter().filter(|entry| none(entry) && !adapters.contains(&entry.as_str()));
        named.extend(idle.map(|entry| ("sibo.placement", entry.as_str())));
    }
    let saved = |module: &&String| saved_tensors(shape, std::slice::from_ref(*module)).is_empty();
    named.extend(
        config.modules_to_save.iter().filter(saved).map(|module| ("modules_to_save", module.as_str())),
    );
    let sentence = |(key, entry): (&str, &str)| {
        format!(
            "`{key}` names `{entry}`, which no module of this {} model is called: it is passed over",
            shape.family
        )
    };
    named.into_iter().map(sentence).collect()
}

/// Whether an entry of a list means the module at `path`: its whole path, or the end of it.
pub(crate) fn suffix(entry: &str, path: &str) -> bool {
    path == entry || path.ends_with(&format!(".{entry}"))
}

fn hit(regex: &Regex, text: &str) -> bool {
    regex.is_match(text).unwrap_or(false)
}

fn number(regex: &Regex, path: &str) -> Option<usize> {
    regex.captures(path).ok().flatten()?.get(1)?.as_str().parse().ok()
}

enum Matcher {
    Suffixes(Vec<String>),
    Pattern(Regex),
    AllBut(Option<String>),
}

impl Matcher {
    fn new(targets: &Targets, shape: &ModelShape, key: &str, place: &str) -> Result<Self, Error> {
        Ok(match targets {
            Targets::Default => {
                Matcher::Suffixes(shape.default_targets.iter().map(|s| s.to_string()).collect())
            }
            Targets::List(list) => Matcher::Suffixes(list.clone()),
            Targets::Pattern(pattern) => Matcher::Pattern(whole(pattern, key, place)?),
            Targets::AllLinear => Matcher::AllBut(shape.output_module.clone()),
        })
    }

    fn hits(&self, module: &Module) -> bool {
        let path = module.path.as_str();
        match self {
            Matcher::Suffixes(list) => list.iter().any(|entry| suffix(entry, path)),
            Matcher::Pattern(regex) => hit(regex, path),
            Matcher::AllBut(head) => {
                let in_head = head.as_deref().is_some_and(|h| path == h);
                module.kind == ModuleKind::Linear && !in_head
            }
        }
    }
}

fn nothing_found(shape: &ModelShape, targets: &Targets) -> String {
    let asked = match targets {
        Targets::Default => shape.default_targets.join(", "),
        Targets::List(list) => list.join(", "),
        Targets::Pattern(pattern) => format!("the expression `{pattern}`"),
        Targets::AllLinear => "all-linear".into(),
    };
    let mut names: Vec<&str> = Vec::new();
    for name in shape.modules.iter().map(Module::name) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    format!(
        "{asked} matches no module of this {} model; its modules end in {}",
        shape.family,
        names.join(", ")
    )
}
