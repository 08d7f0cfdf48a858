//! Every dependency comes from crates.io under a licence that `deny.toml` allows, on every platform.
//!
//! Offline: `cargo metadata` reads the lock file and the crates that a build has fetched. Crates that only other
//! platforms need are there after `cargo fetch`; without them this machine's are looked at, unless
//! `SIBO_ALL_PLATFORMS` is set, as it is in `.ci/run`.

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").into()
}

/// A licence expression (SPDX 3.0, annex D), with the older `/` read as OR.
#[derive(Debug, Clone, PartialEq)]
enum Expression {
    /// A licence, or a licence with an exception.
    Licence(String),
    All(Vec<Expression>),
    Any(Vec<Expression>),
}

impl Expression {
    fn parse(text: &str) -> Result<Self, String> {
        let spaced = text.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut rest = words.as_slice();
        let expression = any(&mut rest).map_err(|why| format!("`{text}`: {why}"))?;
        if rest.is_empty() {
            Ok(expression)
        } else {
            Err(format!("`{text}`: `{}` is too much", rest.join(" ")))
        }
    }

    /// Licences that suffice, as many as are needed; nothing where some part is not allowed.
    fn satisfied_by<'a>(&'a self, allowed: &dyn Fn(&str) -> bool) -> Option<Vec<&'a str>> {
        match self {
            Expression::Licence(name) => allowed(name).then(|| vec![name.as_str()]),
            Expression::All(parts) => {
                let each: Option<Vec<Vec<&str>>> = parts.iter().map(|p| p.satisfied_by(allowed)).collect();
                each.map(|lists| lists.concat())
            }
            Expression::Any(parts) => parts.iter().find_map(|p| p.satisfied_by(allowed)),
        }
    }
}

/// One or more of `all`, between OR: the weakest of the operators.
fn any(rest: &mut &[&str]) -> Result<Expression, String> {
    chain(rest, "OR", all, Expression::Any)
}

fn all(rest: &mut &[&str]) -> Result<Expression, String> {
    chain(rest, "AND", one, Expression::All)
}

fn chain(
    rest: &mut &[&str],
    operator: &str,
    part: fn(&mut &[&str]) -> Result<Expression, String>,
    join: fn(Vec<Expression>) -> Expression,
) -> Result<Expression, String> {
    let mut parts = vec![part(rest)?];
    while rest.first().is_some_and(|word| word.eq_ignore_ascii_case(operator)) {
        *rest = &rest[1..];
        parts.push(part(rest)?);
    }
    Ok(if parts.len() == 1 { parts.remove(0) } else { join(parts) })
}

/// A licence, a licence WITH an exception, or a whole expression in parentheses.
fn one(rest: &mut &[&str]) -> Result<Expression, String> {
    let Some((first, tail)) = rest.split_first() else {
        return Err("a licence is missing at the end".into());
    };
    *rest = tail;
    if *first == "(" {
        let inside = any(rest)?;
        let Some((&")", tail)) = rest.split_first() else { return Err("`)` is missing".into()) };
        *rest = tail;
        return Ok(inside);
    }
    let operator = ["AND", "OR", "WITH", ")"].iter().any(|o| first.eq_ignore_ascii_case(o));
    if operator {
        return Err(format!("a licence is missing before `{first}`"));
    }
    match rest {
        [with, exception, tail @ ..] if with.eq_ignore_ascii_case("WITH") => {
            let name = format!("{first} WITH {exception}");
            *rest = tail;
            Ok(Expression::Licence(name))
        }
        _ => Ok(Expression::Licence(first.to_string())),
    }
}

/// `cargo metadata`: of all platforms where their crates are on this disk, else of this one.
fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let ask = |platform: &[&str]| {
        let mut command = Command::new(&cargo);
        command.current_dir(root()).args(["metadata", "--offline", "--locked", "--format-version", "1"]);
        command.args(platform).output().expect("cargo starts")
    };
    let mut answer = ask(&[]);
    if !answer.status.success() && std::env::var_os("SIBO_ALL_PLATFORMS").is_none() {
        let version = Command::new("rustc").arg("-vV").output().expect("rustc starts");
        let version = String::from_utf8(version.stdout).expect("rustc prints UTF-8");
        let host = version.lines().find_map(|l| l.strip_prefix("host: ")).expect("rustc names its host");
        answer = ask(&["--filter-platform", host]);
    }
    let complaint = String::from_utf8_lossy(&answer.stderr);
    assert!(
        answer.status.success(),
        "cargo metadata failed; `cargo fetch` once fetches all crates:\n{complaint}"
    );
    serde_json::from_slice(&answer.stdout).expect("cargo metadata prints JSON")
}

/// The allowed licences, each with the reason that stands after it.
fn allow_list(text: &str) -> Vec<(String, String)> {
    let list = text.lines().skip_while(|l| !l.starts_with("allow = [")).skip(1);
    let lines =
        list.map(str::trim).take_while(|l| *l != "]").filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines
        .map(|line| {
            let (entry, reason) = line.split_once('#').unwrap_or((line, ""));
            (entry.trim().trim_matches([',', '"', ' ']).to_string(), reason.trim().to_string())
        })
        .collect()
}

/// One line for each dependency that the list does not cover; the licences that were needed go to `used`.
fn complaints(packages: &[Value], allowed: &[String], used: &mut BTreeSet<String>) -> Vec<String> {
    let mut lines = Vec::new();
    for package in packages {
        let name = format!("{} {}", text(&package["name"]), text(&package["version"]));
        let source = &package["source"];
        if !source.is_null()
            && !text(source).starts_with("registry+https://github.com/rust-lang/crates.io-index")
        {
            lines.push(format!("{name}: comes from {source}, not from crates.io"));
        }
        let Some(licence) = package["license"].as_str() else {
            lines.push(format!("{name}: states no licence expression"));
            continue;
        };
        match Expression::parse(licence) {
            Err(why) => lines.push(format!("{name}: {why}")),
            Ok(expression) => match expression.satisfied_by(&|l| allowed.iter().any(|a| a == l)) {
                Some(needed) => used.extend(needed.into_iter().map(String::from)),
                None => lines.push(format!("{name}: `{licence}` is not covered by deny.toml")),
            },
        }
    }
    lines
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

#[test]
fn every_dependency_has_an_allowed_licence() {
    let file = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml is in the repository");
    let list = allow_list(&file);
    assert!(list.len() > 3, "deny.toml's list was not understood: {list:?}");
    let allowed: Vec<String> = list.iter().map(|(licence, _)| licence.clone()).collect();
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let (ours, theirs): (Vec<_>, Vec<_>) = packages.iter().cloned().partition(|p| p["source"].is_null());
    assert!(theirs.len() > 50, "only {} dependencies were seen", theirs.len());

    let mut used = BTreeSet::new();
    let mut lines = complaints(&theirs, &allowed, &mut used);
    for package in &ours {
        if package["license"] != "MIT OR Apache-2.0" {
            lines.push(format!("{}: a crate of this workspace is MIT OR Apache-2.0", package["name"]));
        }
    }
    for (licence, reason) in &list {
        if reason.len() < 10 {
            lines.push(format!("deny.toml: no reason stands after {licence}"));
        }
        if !used.contains(licence) {
            lines.push(format!("deny.toml: no dependency needs {licence}"));
        }
    }
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}

#[test]
fn expressions_are_read_as_spdx_says() {
    let covered = |text: &str, allowed: &[&str]| {
        let expression = Expression::parse(text).unwrap();
        expression.satisfied_by(&|l| allowed.contains(&l)).is_some()
    };
    assert!(covered("Apache-2.0 AND ISC", &["ISC", "Apache-2.0"]));
    assert!(!covered("Apache-2.0 AND ISC", &["Apache-2.0"]));
    assert!(covered("MIT/Apache-2.0", &["Apache-2.0"]));
    // AND binds more closely than OR.
    assert!(covered("MIT OR GPL-3.0-only AND ISC", &["MIT"]));
    assert!(!covered("MIT OR GPL-3.0-only AND ISC", &["ISC"]));
    assert!(!covered("(MIT OR GPL-3.0-only) AND ISC", &["MIT"]));
    assert!(covered("(MIT OR Apache-2.0) AND Unicode-3.0", &["MIT", "Unicode-3.0"]));
    // An exception makes another licence of it.
    assert!(!covered("Apache-2.0 WITH LLVM-exception", &["Apache-2.0"]));
    assert!(covered("Apache-2.0 WITH LLVM-exception OR MIT", &["MIT"]));
    for broken in ["", "MIT OR", "AND MIT", "(MIT", "MIT)", "MIT Apache-2.0", "MIT WITH"] {
        assert!(Expression::parse(broken).is_err(), "{broken:?}");
    }
}

#[test]
fn what_is_not_allowed_is_named() {
    let package = |name: &str, licence: Value, source: &str| serde_json::json!({"name": name, "version": "1.2.3", "license": licence, "source": source});
    let index = "registry+https://github.com/rust-lang/crates.io-index";
    let packages = [
        package("copyleft", "GPL-3.0-only".into(), index),
        package("silent", Value::Null, index),
        package("elsewhere", "MIT".into(), "git+https://example.org/x"),
        package("good", "Zlib OR MIT".into(), index),
    ];
    let mut used = BTreeSet::new();
    let lines = complaints(&packages, &["MIT".to_string()], &mut used);
    assert_eq!(
        lines,
        [
            "copyleft 1.2.3: `GPL-3.0-only` is not covered by deny.toml",
            "silent 1.2.3: states no licence expression",
            "elsewhere 1.2.3: comes from \"git+https://example.org/x\", not from crates.io",
        ]
    );
    assert_eq!(used, BTreeSet::from(["MIT".to_string()]));
}
