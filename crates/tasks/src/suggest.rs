//! "Did you mean": the nearest of the names that exist, where one is near.

/// ` (did you mean `x`?)` for the candidate nearest to `word`, or nothing when none is near.
pub(crate) fn hint<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    let near = candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(&word.to_lowercase(), &c.to_lowercase()), c))
        .filter(|(distance, c)| *distance <= 1 + c.len() / 4)
        .min();
    near.map(|(_, c)| format!(" (did you mean `{c}`?)")).unwrap_or_default()
}

/// The same for serde's "unknown field `a`, expected one of `b`, `c`" and its variants.
pub(crate) fn hint_from_serde(message: &str) -> String {
    let Some(start) = message.find("unknown ") else { return String::new() };
    let names: Vec<&str> = message[start..].split('`').skip(1).step_by(2).collect();
    match names.split_first() {
        Some((word, candidates)) => hint(word, candidates.iter().copied()),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_and_far_ones_are_not() {
        assert_eq!(hint("arc-esay", ["boolq", "arc-easy", "rte"]), " (did you mean `arc-easy`?)");
        assert_eq!(hint("translation", ["boolq", "arc-easy", "rte"]), "");
        let serde = "unknown field `metric`, expected one of `name`, `metrics`, `kind`";
        assert_eq!(hint_from_serde(serde), " (did you mean `metrics`?)");
        assert_eq!(hint_from_serde("invalid type: string"), "");
    }
}
