//! Rules about the repository's own files: what the documents say is true, and what the architecture promises
//! about the source holds. Each is a plain search over tracked files, so that it costs nothing to keep.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of a source file that need a reason, and that are too many.
const LONG: usize = 400;
const TOO_LONG: usize = 800;

/// The documents whose words are held against the code.
const DOCUMENTS: [&str; 4] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").into()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Paths of all files of the repository; without git (a downloaded archive), of all files that are no build output.
fn files() -> Vec<String> {
    let git = Command::new("git").current_dir(root()).args(["ls-files", "-z"]).output();
    let listed = git.ok().filter(|o| o.status.success() && !o.stdout.is_empty());
    let mut paths: Vec<String> = match listed {
        Some(output) => {
            let text = String::from_utf8(output.stdout).expect("paths are UTF-8");
            text.split('\0').filter(|p| !p.is_empty()).map(String::from).collect()
        }
        None => walk(&root(), ""),
    };
    paths.retain(|p| root().join(p).is_file());
    assert!(paths.len() > 100, "only {} files were found", paths.len());
    paths
}

fn walk(folder: &Path, below: &str) -> Vec<String> {
    const OUTPUTS: [&str; 4] = ["target", ".git", "models", "data"];
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of the repository").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        // Below runs/ only recipes belong to the repository, and they lie in runs/learning.
        let run = (below == "runs" && name != "learning") || path == "runs/learning/out";
        let output = (below.is_empty() && OUTPUTS.contains(&name.as_str())) || path == "bench/.env" || run;
        match entry.path().is_dir() {
            true if !output => found.extend(walk(&entry.path(), &path)),
            true => {}
            false => found.push(path),
        }
    }
    found
}

/// Rust files below `folder`, with their text.
fn sources(folder: &str) -> BTreeMap<String, String> {
    let wanted = |p: &String| p.starts_with(folder) && p.ends_with(".rs");
    files().into_iter().filter(wanted).map(|p| (p.clone(), read(&p))).collect()
}

/// Source that ships: no test module, no example, no benchmark.
fn shipped(folder: &str) -> BTreeMap<String, String> {
    let mut all = sources(folder);
    all.retain(|path, _| path.contains("/src/") && !path.contains("test"));
    for text in all.values_mut() {
        if let Some(at) = text.find("#[cfg(test)]\nmod ") {
            text.truncate(at);
        }
    }
    assert!(!all.is_empty(), "no source below {folder}");
    all
}

/// Lines of `texts` that `wrong` picks, as `path:line: text`; comments are not looked at.
fn lines_where(texts: &BTreeMap<String, String>, wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in texts {
        for (number, line) in text.lines().enumerate() {
            let code = line.trim_start();
            if !code.starts_with("//") && wrong(code) {
                found.push(format!("{path}:{}: {code}", number + 1));
            }
        }
    }
    found
}

#[track_caller]
fn assert_none(found: Vec<String>, rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

/// The text between `<!-- name -->` and `<!-- end of name -->`.
fn block<'a>(text: &'a str, name: &str) -> &'a str {
    let start = text.split_once(&format!("<!-- {name} -->")).unwrap_or_else(|| panic!("no `{name}` block")).1;
    start.split_once(&format!("<!-- end of {name} -->")).unwrap_or_else(|| panic!("`{name}` does not end")).0
}

/// What stands between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_readme_lists_every_folder() {
    let mut there = BTreeSet::new();
    for path in files() {
        let parts: Vec<&str> = path.split('/').collect();
        let deep = matches!(parts[0], "crates" | "assets" | "tests") && parts.len() > 2;
        match parts.len() {
            1 => continue,
            _ if deep => there.insert(format!("{}/{}/", parts[0], parts[1])),
            _ if matches!(parts[0], "crates" | "assets" | "tests") => continue,
            _ => there.insert(format!("{}/", parts[0])),
        };
    }
    let readme = read("README.md");
    let mut listed = BTreeSet::new();
    for line in block(&readme, "tree").lines().filter(|l| l.contains('/')) {
        let (folder, about) = line.trim().split_once("  ").unwrap_or((line.trim(), ""));
        assert!(about.trim().len() > 10, "the tree says nothing about `{folder}`");
        listed.insert(folder.to_string());
    }
    assert_eq!(listed, there, "left: README.md's tree; right: the folders");
}

#[test]
fn the_test_command_has_one_source() {
    let readme = read("README.md");
    let commands: Vec<&str> =
        block(&readme, "test command").lines().map(str::trim).filter(|l| l.starts_with("cargo ")).collect();
    let [command] = commands[..] else { panic!("README.md's test command is {commands:?}") };
    // .ci/run takes it out of the README, so it cannot name another.
    let ci = read(".ci/run");
    assert!(ci.contains("<!-- test command -->"), ".ci/run does not read the README's test command");
    let other = |l: &&str| {
        // A remark may stand after it.
        let l = l.split('#').next().unwrap_or(l).trim();
        l.starts_with("cargo test --workspace") && l != command
    };
    for document in DOCUMENTS {
        assert_eq!(read(document).lines().find(other), None, "{document}");
    }
    assert_eq!(ci.lines().find(other), None, ".ci/run");
    assert!(read("CONTRIBUTING.md").contains(command), "CONTRIBUTING.md does not name `{command}`");
}

#[test]
fn no_source_file_is_too_long() {
    let mut wrong = Vec::new();
    for (path, text) in sources("crates/").into_iter().chain(sources("tests/")) {
        let lines = text.lines().count();
        match lines {
            TOO_LONG.. => wrong.push(format!("{path}: {lines} lines")),
            // Seen with `-- --nocapture`.
            LONG.. => println!("{path}: {lines} lines are long; a reason in its head, or a split"),
            _ => {}
        }
    }
    assert_none(wrong, "files of 800 lines and more");
}

/// A mutation whose text has moved on is applied by no one, and what it proved is no longer proved.
#[test]
fn every_mutation_still_has_its_place() {
    let table: toml::Table = read("tests/mutations.toml").parse().expect("TOML");
    let list = table["mutation"].as_array().expect("a list of mutations");
    let text = |mutation: &toml::Value, key: &str| mutation[key].as_str().expect("text").to_owned();
    let moved = |m: &toml::Value| read(&text(m, "file")).matches(&text(m, "from")).count() != 1;
    let lost = list.iter().filter(|m| moved(m)).map(|m| text(m, "what")).collect();
    assert_none(lost, "the `from` of a mutation stands once in its file");
}

#[test]
fn nothing_is_left_unfinished() {
    let words = ["todo!", "unimplemented!", "dbg!"].map(|w| format!("{w}("));
    let mut texts = sources("crates/");
    texts.extend(sources("tests/"));
    let found = lines_where(&texts, |l| words.iter().any(|w| l.contains(w.as_str())));
    assert_none(found, "unfinished");
}

/// Whether `text` names a folder of somebody's machine: at the start, or after something that is no path.
fn machine_path(text: &str) -> bool {
    [concat!("/", "work/"), "/root/", "/home/", "/Users/", "/mnt/", "C:\\Users"].iter().any(|root| {
        text.match_indices(root).any(|(at, _)| {
            let before = text[..at].chars().next_back();
            before.is_none_or(|c| !(c.is_alphanumeric() || "._-/>}".contains(c)))
        })
    })
}

#[test]
fn no_file_names_somebodys_machine_or_registry() {
    let this = "tests/tests/tidy.rs";
    let mut found = Vec::new();
    for path in files().into_iter().filter(|p| p != this) {
        let Ok(text) = std::fs::read_to_string(root().join(&path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            let index =
                line.contains("index-url") || line.contains("find-links") || line.contains("artifactory");
            let source = line.starts_with("source = \"")
                && line != "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
            if machine_path(line) || index || (path == "Cargo.lock" && source) {
                found.push(format!("{path}:{}: {}", number + 1, &line[..line.len().min(80)]));
            }
        }
    }
    assert_none(found, "names of a machine's folders or of a package registry");
    assert!(machine_path("see /home/me/x") && machine_path("\"/root/x\"") && !machine_path("target/home/x"));
}

#[test]
fn lambda_is_mixed_in_one_place() {
    let mut texts = shipped("crates/");
    texts.remove("crates/kernels/src/mix.rs").expect("crates/kernels/src/mix.rs mixes");
    let complement =
        |l: &str| ["1.0 - lambda", "1.0 - self.lambda", "1. - lambda"].iter().any(|w| l.contains(w));
    assert_none(lines_where(&texts, complement), "1 - lambda outside crates/kernels/src/mix.rs");
    let mixes = ["mix::forward", "mix::backward", "mix::theta_gradient("];
    let calls = lines_where(&texts, |l| mixes.iter().any(|w| l.contains(w)));
    let elsewhere = calls.iter().filter(|l| !l.starts_with("crates/peft/src/branch.rs")).cloned().collect();
    assert_none(elsewhere, "the mix is called outside crates/peft/src/branch.rs");
    assert!(!calls.is_empty());
}

#[test]
fn unsafe_code_stays_in_the_kernels() {
    let mut texts = shipped("crates/");
    texts.retain(|path, _| !path.starts_with("crates/kernels/"));
    let starts = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"];
    assert_none(
        lines_where(&texts, |l| starts.iter().any(|w| l.contains(w))),
        "unsafe outside crates/kernels",
    );
}

#[test]
fn libraries_never_print() {
    let mut texts = shipped("crates/");
    texts.retain(|path, _| !path.starts_with("crates/cli/"));
    let prints = |l: &str| l.contains("print!(") || l.contains("println!(");
    assert_none(lines_where(&texts, prints), "prints outside crates/cli");
}

/// What ARCHITECTURE.md says of the arrows is what the manifests say.
#[test]
fn the_arrows_are_as_drawn() {
    let text = read("ARCHITECTURE.md");
    let mut drawn = BTreeMap::new();
    for row in block(&text, "arrows").lines().filter(|l| l.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let needs: BTreeSet<String> = quoted(cells[2]).into_iter().map(String::from).collect();
        drawn.insert(cells[1].trim_matches('`').to_string(), needs);
    }
    let mut real = BTreeMap::new();
    for path in files().iter().filter(|p| p.starts_with("crates/") && p.ends_with("/Cargo.toml")) {
        let manifest = read(path);
        let needs = manifest.split("[dependencies]").nth(1).unwrap_or("").split("\n[").next().unwrap_or("");
        let needs = needs.lines().filter_map(|l| l.strip_prefix("sibo-")?.split(['.', ' ']).next());
        let name = path.split('/').nth(1).expect("crates/<name>/Cargo.toml").to_string();
        real.insert(name, needs.map(String::from).collect::<BTreeSet<_>>());
        assert!(manifest.contains("[lints]\nworkspace = true"), "{path} does not take the workspace's lints");
    }
    assert_eq!(drawn, real, "left: ARCHITECTURE.md; right: the manifests");
}

#[test]
fn backbones_and_methods_do_not_name_one_another() {
    let families = ["llama", "gptj", "roberta", "\"bert.", "q_proj", "fc_in"];
    let mut texts = shipped("crates/peft/");
    texts.extend(shipped("crates/kernels/"));
    // A message may say which families exist; code may not ask for one.
    let names = |l: &str| families.iter().any(|f| l.contains(f)) && !l.contains(' ');
    assert_none(lines_where(&texts, names), "a family's name in the methods or the kernels");
    let texts = shipped("crates/model/src/backbone/");
    let names = |l: &str| l.contains("Method::") || l.contains("AdapterConfig") || l.contains("Sibo");
    assert_none(lines_where(&texts, names), "a method's name in a backbone");
}

/// Relative links of the documents, and paths that they quote, lead somewhere.
#[test]
fn documents_name_files_that_exist() {
    let all = files();
    let tops: BTreeSet<&str> = all.iter().filter_map(|p| Some(p.split_once('/')?.0)).collect();
    let exists = |path: &str| {
        let path = path.trim_end_matches('/');
        all.iter().any(|p| p == path || p.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
    };
    // Of the folder of runs only its recipes are kept; the rest is what a command will write.
    let written = |path: &str| path.starts_with("runs/") && !path.starts_with("runs/learning");
    let mut wrong = Vec::new();
    for document in DOCUMENTS.into_iter().chain(["NOTICE"]) {
        let text = read(document);
        let links = text.split("](").skip(1).filter_map(|l| l.split(')').next());
        let links = links
            .filter(|l| !l.contains("://") && !l.starts_with('#'))
            .map(|l| l.split('#').next().unwrap_or(l));
        let is_path = |q: &&str| {
            let top = q.split('/').next().unwrap_or("");
            q.contains('/') && tops.contains(top) && !q.contains([' ', '<', '*', '{'])
        };
        for path in links.chain(quoted(&text).into_iter().filter(is_path)) {
            if !exists(path) && !written(path) {
                wrong.push(format!("{document}: {path}"));
            }
        }
    }
    assert_none(wrong, "documents name files that are not there");
}

/// The README's tables list what the program knows, no more and no less.
#[test]
fn the_readme_lists_what_exists() {
    let readme = read("README.md");
    let first_cells = |name: &str| -> BTreeSet<String> {
        let rows = block(&readme, name).lines().filter(|l| l.starts_with("| `"));
        rows.flat_map(|l| quoted(l.split('|').nth(1).unwrap_or(""))).map(String::from).collect()
    };
    let methods: BTreeSet<String> = sibo_peft::config::METHODS.iter().map(|m| m.0.to_string()).collect();
    assert_eq!(first_cells("methods"), methods, "left: README.md's methods");

    let specs = files()
        .into_iter()
        .filter_map(|p| Some(p.strip_prefix("crates/tasks/specs/")?.strip_suffix(".toml")?.to_string()));
    assert_eq!(first_cells("tasks"), specs.collect(), "left: README.md's tasks");

    let mut types = BTreeSet::new();
    for text in sources("crates/model/src/backbone/").values() {
        for list in text.split("model_types: &[").skip(1) {
            let list = list.split(']').next().unwrap_or("");
            types.extend(list.split(',').map(|t| t.trim().trim_matches('"').to_string()));
        }
    }
    assert_eq!(first_cells("models"), types, "left: README.md's models");

    let help = read("crates/cli/src/exit.rs");
    let help = help.split_once("Exit status:").expect("the exit codes stand in exit.rs").1;
    let help = help.split('"').next().unwrap_or("");
    let codes = help.lines().filter_map(|l| l.split_whitespace().next()).filter(|w| w.parse::<u8>().is_ok());
    let codes: BTreeSet<String> = codes.map(String::from).collect();
    assert_eq!(first_cells("exit codes"), codes, "left: README.md's exit codes");
}

/// The program's commands, as its source lists them.
fn commands() -> BTreeSet<String> {
    let text = read("crates/cli/src/command/mod.rs");
    let list = text.split_once("enum Command {").expect("the list of commands").1;
    let list = list.split('}').next().unwrap_or("");
    let variants =
        list.lines().filter_map(|l| l.trim().split_once('(')).filter(|(name, _)| !name.contains(' '));
    variants.map(|(name, _)| name.to_lowercase()).collect()
}

/// No document uses a command that the program does not have, and the README's table has them all.
#[test]
fn documents_name_the_commands_that_exist() {
    let commands = commands();
    let mut wrong = Vec::new();
    for document in DOCUMENTS {
        let text = read(document);
        let mut words: Vec<&str> = Vec::new();
        for start in ["cargo run --release -- ", "`sibo ", "\n    sibo ", "\nsibo "] {
            words.extend(text.split(start).skip(1).filter_map(|rest| rest.split([' ', '`', '\n']).next()));
        }
        let unknown = words.into_iter().filter(|w| !w.starts_with('-') && !commands.contains(*w));
        wrong.extend(unknown.map(|w| format!("{document}: sibo {w}")));
    }
    assert_none(wrong, "commands that do not exist");

    let readme = read("README.md");
    let rows = block(&readme, "commands").lines().filter(|l| l.starts_with("| `"));
    let listed = rows.flat_map(|l| quoted(l.split('|').nth(1).unwrap_or("")));
    let listed: BTreeSet<String> = listed.map(|c| c.trim_start_matches("sibo ").to_string()).collect();
    assert_eq!(listed, commands, "left: README.md's commands");
}
