//! The command `sibo`.
fn main() {}
