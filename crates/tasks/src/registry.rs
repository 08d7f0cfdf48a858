//! The embedded tasks. A new one is its file in `specs/` and its line here.

const EMBEDDED: [(&str, &str); 23] = [
    ("addsub", include_str!("../specs/addsub.toml")),
    ("aqua", include_str!("../specs/aqua.toml")),
    ("arc-challenge", include_str!("../specs/arc-challenge.toml")),
    ("arc-easy", include_str!("../specs/arc-easy.toml")),
    ("boolq", include_str!("../specs/boolq.toml")),
    ("cola", include_str!("../specs/cola.toml")),
    ("gsm8k", include_str!("../specs/gsm8k.toml")),
    ("hellaswag", include_str!("../specs/hellaswag.toml")),
    ("mnli", include_str!("../specs/mnli.toml")),
    ("mnli-mismatched", include_str!("../specs/mnli-mismatched.toml")),
    ("mrpc", include_str!("../specs/mrpc.toml")),
    ("multiarith", include_str!("../specs/multiarith.toml")),
    ("openbookqa", include_str!("../specs/openbookqa.toml")),
    ("piqa", include_str!("../specs/piqa.toml")),
    ("qnli", include_str!("../specs/qnli.toml")),
    ("qqp", include_str!("../specs/qqp.toml")),
    ("rte", include_str!("../specs/rte.toml")),
    ("singleeq", include_str!("../specs/singleeq.toml")),
    ("siqa", include_str!("../specs/siqa.toml")),
    ("sst2", include_str!("../specs/sst2.toml")),
    ("stsb", include_str!("../specs/stsb.toml")),
    ("svamp", include_str!("../specs/svamp.toml")),
    ("winogrande", include_str!("../specs/winogrande.toml")),
];

/// The names of the embedded tasks, in order.
pub fn names() -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().map(|(name, _)| *name)
}

/// The text of an embedded task's file.
pub(crate) fn embedded(name: &str) -> Option<&'static str> {
    EMBEDDED.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
}
