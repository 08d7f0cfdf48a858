//! Tells the program which commit it was built from, where the sources are a git checkout.

use std::process::Command;

fn main() {
    let commit = Command::new("git").args(["rev-parse", "--short=10", "HEAD"]).output();
    let commit = commit.ok().filter(|o| o.status.success()).and_then(|o| String::from_utf8(o.stdout).ok());
    println!("cargo:rustc-env=SIBO_COMMIT={}", commit.unwrap_or_default().trim());
    println!("cargo:rustc-env=SIBO_TARGET={}", std::env::var("TARGET").unwrap_or_default());
    // The log of HEAD changes with every commit, HEAD itself only with the branch.
    for file in ["../../.git/logs/HEAD", "../../.git/HEAD"] {
        if std::path::Path::new(file).exists() {
            println!("cargo:rerun-if-changed={file}");
        }
    }
}
