//! The commented recipe of `sibo init`. A test holds it against the code's own defaults.

pub(super) const TEXT: &str = include_str!("default.toml");
