//! The embedded tasks. A new one is its file in `specs/` and its line here.

const EMBEDDED: [(&str, &str); 10] = [
    ("arc-easy", include_str!("../specs/arc-easy.toml")),
    ("boolq", include_str!("../specs/boolq.toml")),
    ("cola", include_str!("../specs/cola.toml")),
    ("gsm8k", include_str!("../specs/gsm8k.toml")),
    ("mrpc", include_str!("../specs/mrpc.toml")),
    ("qnli", include_str!("../specs/qnli.toml")),
    ("rte", include_str!("../specs/rte.toml")),
    ("sst2", include_str!("../specs/sst2.toml")),
    ("stsb", include_str!("../specs/stsb.toml")),
    ("svamp", include_str!("../specs/svamp.toml")),
];

/// The names of the embedded tasks, in order.
pub fn names() -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().map(|(name, _)| *name)
}

/// The text of an embedded task's file.
pub(crate) fn embedded(name: &str) -> Option<&'static str> {
    EMBEDDED.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
}
