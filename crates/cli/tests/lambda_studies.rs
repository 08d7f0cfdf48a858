//! Studies of lambda beyond a number: schedules, learned, by layer, and the one that the rule suggests.

mod common;

use common::{Place, fails, succeeds};
use serde_json::Value;

/// The rule looks at the texts that training sees.
#[test]
fn the_suggested_lambda_is_of_the_recipe_s_texts() {
    let place = Place::with("llama-gqa");
    place.instructions();
    let sweep = |output: &str, words: &[&str]| {
        let recipe = "model = \"llama-gqa\"\ndata = \"sums\"\noutput_dir = \"o\"\n[training]\nmax_steps = 1\n\
                      validation_rows = 6\ntest_rows = 6\n";
        place.write("recipe.toml", recipe);
        let sweep =
            ["sweep", "recipe.toml", "--lambda", "0,suggested", "--seeds", "1", "--output-dir", output];
        succeeds(place.sibo(&sweep).args(words));
        let kept = std::fs::read(place.join(output).join("suggested.json")).unwrap();
        serde_json::from_slice::<Value>(&kept).unwrap()[0].clone()
    };
    let usual = sweep("usual", &[]);
    assert_eq!(usual["of"][7], serde_json::json!({"template": "auto", "cutoff_len": 256}));
    let own = sweep("own", &["--set", "template=plain", "--set", "training.cutoff_len=12"]);
    assert_eq!(own["of"][7], serde_json::json!({"template": "plain", "cutoff_len": 12}));
    assert_ne!(own["sentence"], usual["sentence"]);
}

/// A learned lambda is a combination like any other, and never taken for the plain method.
#[test]
fn a_sweep_takes_a_learned_lambda_and_a_schedule() {
    let place = Place::study();
    let common = ["--seeds", "1", "--choose", "loss"];
    succeeds(
        place.sibo(&["sweep", "recipe.toml", "--lambda", "0,learned", "--output-dir", "a"]).args(common),
    );
    let found = place.results("a");
    let arms: Vec<&str> =
        found["study"]["validation"].as_array().unwrap().iter().map(|a| a["arm"].as_str().unwrap()).collect();
    assert_eq!(arms, ["lambda 0", "lambda learned"]);
    // What it became stands with its cell alone, and on the page.
    let became = |cell: &Value| cell["learned_lambdas"].as_object().map(|all| all.len());
    let cells: Vec<_> = found["cells"].as_array().unwrap().iter().map(became).collect();
    assert!(cells[0].is_none() && cells[1].is_some_and(|n| n > 0), "{cells:?}");
    assert!(std::fs::read_to_string(place.join("a/report.html")).unwrap().contains("What lambda became"));
    // Both read the test: the best plain one and the best boosted one.
    let test = found["scores"].as_array().unwrap().iter().find(|s| s["question"]["split"] == "test").unwrap();
    assert_eq!(test["arms"].as_array().unwrap().len(), 2, "{test}");
    let grid = [
        "--lambda",
        "0.3",
        "--set-grid",
        "adapter.sibo.lambda_schedule=constant,linear",
        "--output-dir",
        "b",
    ];
    let text = succeeds(place.sibo(&["sweep", "recipe.toml"]).args(grid).args(common));
    assert!(text.contains("lambda_schedule linear, lambda 0.3"), "{text}");
    // The forms as tables, of which one is the plain method.
    let forms = "adapter.sibo={lambda=0},{lambda=0.3,lambda_schedule=\"linear\"}";
    let forms = ["sweep", "recipe.toml", "--set-grid", forms, "--output-dir", "c"];
    let text = succeeds(place.sibo(&forms).args(common));
    assert!(text.contains("lambda 0.3, lambda_schedule linear"), "{text}");
    assert_eq!(place.results("c")["comparisons"][0]["comparison"]["a"], "lambda 0");
    // Forms that differ by more than lambda are lines of their own, and what is no number is named.
    let forms_of_h0 = "adapter.sibo={lambda=0},{lambda=0.3},{lambda=0.3,h0=\"rms\"},{lambda=\"learned\"}";
    let more = ["sweep", "recipe.toml", "--set-grid", forms_of_h0, "--output-dir", "d"];
    succeeds(place.sibo(&more).args(common));
    let page = std::fs::read_to_string(place.join("d/report.html")).unwrap();
    assert!(page.contains("Not drawn, for lambda is no one number there: lambda learned."), "d/report.html");
    assert!(page.contains("h0 rms"), "the line of its own");
    let undone =
        place.sibo(&["sweep", "recipe.toml", "--lambda", "0,0.2", "--set-grid", forms_of_h0]).output();
    let undone = String::from_utf8(undone.unwrap().stderr).unwrap();
    assert!(undone.contains("`adapter.sibo.lambda` is within `adapter.sibo`"), "{undone}");
    // What another command found is not replaced; the sweep itself goes on there.
    let other = ["compare", "recipe.toml", "--lambda", "0.3", "--output-dir", "c"];
    fails(&mut place.sibo(&other), 2, &["c: holds the results of `sibo sweep`", "another folder"]);
    succeeds(place.sibo(&forms).args(common));
    fails(
        &mut place.sibo(&["report", "a", "--output-dir", "c"]),
        2,
        &["c: holds the results of `sibo sweep`"],
    );
    let report = || place.sibo(&["report", "a", "--output-dir", "c"]);
    place.write("c/results.json", "garbage");
    fails(&mut report(), 2, &["c: holds a results.json that cannot be read"]);
    std::fs::remove_file(place.join("c/results.json")).unwrap();
    fails(&mut report(), 2, &["c: holds a study"]);
}

/// A lambda that is no number is named as it is, in comparisons and ablations too.
#[test]
fn studies_know_a_learned_lambda_and_a_schedule() {
    let place = Place::study();
    let common = ["--seeds", "1", "--set", "training.max_steps=2"];
    let arms = |folder: &str| {
        let found = place.results(folder);
        let arms = found["scores"][0]["arms"].as_array().unwrap().clone();
        let names: Vec<String> = arms.iter().map(|a| a["arm"].as_str().unwrap().to_string()).collect();
        (names, found)
    };
    let compare = ["compare", "recipe.toml", "--lambda", "learned", "--output-dir", "learned"];
    succeeds(place.sibo(&compare).args(common));
    let (names, found) = arms("learned");
    assert_eq!(names, ["lora", "SIBO-lora, lambda learned (from 0.2, one for each kind of site)"]);
    assert_eq!(found["study"]["lambda"], "learned");
    // The recipe's schedule goes to every method that takes SIBO.
    let own = std::fs::read_to_string(place.join("recipe.toml")).unwrap();
    let sibo = "[adapter.sibo]\nlambda = 0.4\nlambda_schedule = \"linear\"\n\n[training]";
    place.write("moving.toml", own.replace("[training]", sibo));
    let compare = ["compare", "moving.toml", "--methods", "lora,pfeiffer", "--output-dir", "moving"];
    succeeds(place.sibo(&compare).args(common));
    let (names, found) = arms("moving");
    let words = "0.4 (linear, from 0 to 0.4)";
    assert_eq!(names[1], format!("SIBO-lora, lambda {words}"));
    assert_eq!(names[3], format!("SIBO-pfeiffer, lambda {words}"));
    assert_eq!(found["study"]["lambda"], 0.4);
    let cells = std::fs::read_to_string(place.join("moving/cells.jsonl")).unwrap();
    assert_eq!(cells.lines().filter(|line| line.contains("\"lambda_schedule\":\"linear\"")).count(), 2);
    let ablate = ["ablate", "placement", "recipe.toml", "--lambda", "learned", "--output-dir", "placed"];
    let text = succeeds(place.sibo(&ablate).args(common));
    let title = place.results("placed")["title"].as_str().unwrap().to_string();
    assert!(title.ends_with("lambda learned (from 0.2, one for each kind of site)"), "{title}\n{text}");
    let cells = std::fs::read_to_string(place.join("placed/cells.jsonl")).unwrap();
    assert!(cells.contains("\"lambda\":\"learned\""));
}

/// The rule's number is computed once, stands in the cells' recipes and in the arm's name.
#[test]
fn a_sweep_tries_the_suggested_lambda() {
    let place = Place::study();
    let sweep = |list: &str| {
        let mut command = place.sibo(&["sweep", "recipe.toml", "--lambda", list, "--seeds", "1"]);
        command.args(["--output-dir", "s", "--set", "training.max_steps=2"]);
        command
    };
    succeeds(&mut sweep("0,0.65,suggested"));
    let smoothing =
        ["smoothing", "bert-pooler", "--task", "rte", "--split", "train", "--suggest-lambda", "--json"];
    let said: Value = serde_json::from_str(&succeeds(&mut place.sibo(&smoothing))).unwrap();
    let site =
        said["sites"].as_array().unwrap().iter().find(|s| s["curve"]["site"] == "attention input").unwrap();
    let lambda = site["suggestions"]["raw"]["lambda"].as_f64().unwrap();
    let found = place.results("s");
    let arms: Vec<&str> =
        found["study"]["validation"].as_array().unwrap().iter().map(|a| a["arm"].as_str().unwrap()).collect();
    let name = format!("lambda suggested ({lambda})");
    match lambda {
        0.0 => assert_eq!(arms, ["lambda 0.65", name.as_str()], "the same cells have one name"),
        _ => assert_eq!(arms, ["lambda 0", "lambda 0.65", name.as_str()]),
    }
    let page = std::fs::read_to_string(place.join("s/report.html")).unwrap();
    assert!(page.contains("Sweep of lora: bert-pooler on rte") && page.contains(&name));
    assert!(page.contains("Suggested lambda") && page.contains("rte, train: "));
    // Kept: another number in the file is taken, whatever the rule would say now.
    let kept = std::fs::read_to_string(place.join("s/suggested.json")).unwrap();
    let mut kept: Value = serde_json::from_str(&kept).unwrap();
    kept[0]["lambda"] = 0.65.into();
    place.write("s/suggested.json", kept.to_string());
    let out = sweep("0,0.65,suggested").output().unwrap();
    let way = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && way.contains("2 cells, of which 2 are done already"), "{way}");
    assert!(way.contains("lambda suggested (0.65): "), "{way}");
    place.write("s/suggested.json", "{}");
    fails(&mut sweep("0,suggested"), 1, &["suggested.json: not what a sweep wrote", "remove it"]);
}
