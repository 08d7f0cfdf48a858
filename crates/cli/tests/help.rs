//! What the binary says about itself.

mod common;

use common::{fails, sibo, succeeds};

const COMMANDS: &[&str] = &[
    "quickstart",
    "init",
    "train",
    "eval",
    "generate",
    "chat",
    "merge",
    "export",
    "quantize",
    "methods",
    "tasks",
    "inspect",
    "trace",
    "bench",
    "overhead",
    "env",
    "completions",
    "help",
];

#[test]
fn help_lists_every_command_and_the_exit_codes() {
    let text = succeeds(sibo().arg("--help"));
    for command in COMMANDS {
        assert!(text.contains(&format!("\n  {command} ")), "{command} is not in: {text}");
    }
    for line in ["Exit status:", "130  interrupted by Ctrl-C", "New here? `sibo quickstart`"] {
        assert!(text.contains(line), "{line} is not in: {text}");
    }
    assert!(!text.contains('\u{1b}'), "escape sequences in a pipe");
}

#[test]
fn every_command_has_a_long_help() {
    for command in COMMANDS.iter().filter(|c| **c != "help") {
        let text = succeeds(sibo().args([command, "--help"]));
        assert!(
            text.contains("Usage: sibo ") && text.contains("Shared by all commands"),
            "{command}: {text}"
        );
    }
}

#[test]
fn train_says_how_to_go_on() {
    let text = succeeds(sibo().args(["train", "--help"]));
    for part in [
        "sibo train --resume --output-dir FOLDER",
        "--overwrite",
        "--set <KEY=VALUE>",
        "--recompute",
        "0 <= LAMBDA < 1",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[test]
fn the_version_says_build_and_instruction_set() {
    let text = succeeds(sibo().arg("--version").env("SIBO_ISA", "scalar"));
    assert!(text.starts_with(&format!("sibo {} (", env!("CARGO_PKG_VERSION"))), "{text}");
    assert!(text.trim_end().ends_with(", scalar)"), "{text}");
}

#[test]
fn nonsense_is_a_usage_error_with_a_hint() {
    fails(sibo().arg("tran"), 2, &["similar subcommand", "'train'"]);
    fails(sibo().args(["trace", "--modle", "x"]), 2, &["--model"]);
    fails(sibo().arg("env").env("SIBO_ISA", "sse9"), 2, &["SIBO_ISA=sse9 names no instruction set", "avx2"]);
    fails(&mut sibo(), 2, &["Usage: sibo"]);
    fails(
        sibo().args(["eval", "--model", "m", "--tasks", "rte", "--protocol", "lmeval"]),
        2,
        &["clean, lm-eval, llm-adapters"],
    );
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = succeeds(sibo().args(["completions", shell]));
        assert!(script.contains("quickstart") && script.contains("log-samples"), "{shell}");
    }
}

#[test]
fn lists_are_for_people_and_for_programs() {
    let text = succeeds(sibo().arg("methods"));
    assert!(text.contains("lora") && text.contains("bitfit"), "{text}");
    let methods: serde_json::Value =
        serde_json::from_str(&succeeds(sibo().args(["methods", "--json"]))).unwrap();
    let boosted: Vec<&str> = methods
        .as_array()
        .unwrap()
        .iter()
        .filter(|m| m["sibo"] == true)
        .map(|m| m["method"].as_str().unwrap())
        .collect();
    assert_eq!(boosted, ["lora", "houlsby", "pfeiffer", "parallel", "in_linear"]);
    let env: serde_json::Value =
        serde_json::from_str(&succeeds(sibo().args(["env", "--json", "--threads", "3"]))).unwrap();
    assert_eq!(env["threads"], "3");
}

#[test]
fn a_secret_is_never_shown() {
    let text = succeeds(sibo().arg("env").env("HF_TOKEN", "hf_secret"));
    assert!(text.contains("(set)") && !text.contains("hf_secret"), "{text}");
}
