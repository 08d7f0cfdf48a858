use super::*;

fn read(text: &str) -> Result<Recipe, Error> {
    Recipe::from_value("r.toml", &Recipe::parse_value("r.toml", text)?)
}

fn said(text: &str) -> String {
    read(text).expect_err("is refused").to_string()
}

const LEAST: &str = "model = \"m\"\ntask = \"qnli\"\noutput_dir = \"out\"\n";

#[test]
fn the_commented_default_is_the_default() {
    let recipe = read(&Recipe::commented_default()).unwrap();
    assert_eq!(recipe.training, Training::default());
    assert_eq!((recipe.seed, recipe.template.as_str()), (DEFAULT_SEED, DEFAULT_TEMPLATE));
    for key in KEYS.iter().chain(training::KEYS) {
        let text = Recipe::commented_default();
        let shown = [format!("\n{key} = "), format!("\n# {key} = "), format!("\n[{key}]")];
        assert!(shown.iter().any(|s| text.contains(s)), "{key} is not shown");
    }
    // What is commented out must be right too, but for one of two ways to name test rows.
    let all: String = Recipe::commented_default()
        .lines()
        .filter(|l| !["task", "protocol", "# test ="].iter().any(|start| l.starts_with(start)))
        .map(|l| l.strip_prefix("# ").filter(|l| l.contains(" = ")).unwrap_or(l).to_owned() + "\n")
        .collect();
    let recipe = read(&all).unwrap();
    assert_eq!(recipe.training.early_stopping_patience, Some(3));
}

#[test]
fn the_resolved_recipe_reads_back_as_itself() {
    let mut value = Recipe::parse_value("r", LEAST).unwrap();
    for assignment in [
        "learning_rate=0.00015",
        "training.warmup_ratio=0.07",
        "adapter.sibo.lambda=0.35",
        "adapter.r=5",
        "training.metric_for_best_model=acc",
        "adapter.target_modules=[\"query\", \"value\"]",
        "max_steps=-1",
        "seed=7",
    ] {
        set(&mut value, assignment).unwrap();
    }
    let recipe = Recipe::from_value("r", &value).unwrap();
    assert_eq!((recipe.training.learning_rate, recipe.training.max_steps, recipe.seed), (0.00015, None, 7));
    assert_eq!(recipe.adapter.sibo, sibo_peft::Sibo::with_lambda(0.35));
    assert!(recipe.training.greater_is_better());
    assert_eq!(read(&recipe.to_toml()).unwrap().to_value(), recipe.to_value());
}

#[test]
fn wrong_keys_and_types_are_named() {
    for (text, parts) in [
        ("modell = \"m\"", &["r.toml: `modell`", "did you mean `model`?"][..]),
        ("task = \"qnli\"", &["`model`: is missing"]),
        ("model = 3", &["`model`: 3 is not a text in quotes"]),
        ("model = \"m\"\noutput_dir = \"o\"", &["`data`: is missing", "`task`"]),
        (&format!("{LEAST}data = \"x\""), &["not both"]),
        (&format!("{LEAST}validation = \"x\""), &["`validation`", "belongs to `data`"]),
        (&format!("{LEAST}test = \"x\""), &["`test`", "belongs to `data`"]),
        (&format!("{LEAST}[training]\ntest_rows = 9"), &["`training.test_rows`", "test rows of its own"]),
        (&format!("{LEAST}protocol = \"cleen\""), &["`protocol`", "clean, lm-eval, llm-adapters"]),
        (
            &format!("{LEAST}[training]\nlearning_rat = 1"),
            &["`training.learning_rat`", "did you mean `learning_rate`?"],
        ),
        (
            &format!("{LEAST}[training]\nlearning_rate = \"fast\""),
            &["`training.learning_rate`: \"fast\" is not a number above 0"],
        ),
        (&format!("{LEAST}[training]\nlearning_rate = 0"), &["0 is not a number above 0"]),
        (
            &format!("{LEAST}[training]\neval_steps = 0"),
            &["`training.eval_steps`: 0 is not a whole number, 1 or above"],
        ),
        (&format!("{LEAST}[training]\noptim = \"adam\""), &["none of adamw, sgd", "did you mean `adamw`?"]),
        (&format!("{LEAST}[training]\ngroup_by_length = 1"), &["1 is not true or false"]),
        (&format!("{LEAST}training = 4"), &["`training`: must be a table"]),
        (&format!("{LEAST}[adapter.sibo]\nlambda = 1.0"), &["`sibo.lambda`", "0 <= lambda < 1"]),
        (
            &format!("{LEAST}[adapter]\nmethod = \"lore\""),
            &["`lore` is not a method", "did you mean `lora`?"],
        ),
        (
            &format!("{LEAST}[training]\nweight_decay = nan"),
            &["`training.weight_decay`: NaN is no finite number"],
        ),
        (
            &format!("{LEAST}[adapter.sibo]\nlambda = [0.1, inf]"),
            &["`adapter.sibo.lambda`: inf is no finite number"],
        ),
        (&format!("{LEAST}[training]\nnum_train_epochs = 1e30"), &["at most 1,000,000"]),
        ("model = ", &["r.toml: not a recipe", "line 1"]),
    ] {
        let said = said(text);
        assert!(parts.iter().all(|p| said.contains(p)), "{text}\n{said}");
    }
}

#[test]
fn values_that_are_set_are_read_as_toml() {
    let mut value = serde_json::json!({"seed": 1});
    for (assignment, pointer, expected) in [
        ("model=org/name", "/model", json!("org/name")),
        ("adapter.sibo.placement = [\"query\"]", "/adapter/sibo/placement", json!(["query"])),
        ("weight_decay=1e-2", "/training/weight_decay", json!(0.01)),
        ("output_dir=2024-05-01", "/output_dir", json!("2024-05-01")),
        ("data=a=b", "/data", json!("a=b")),
    ] {
        set(&mut value, assignment).unwrap();
        assert_eq!(value.pointer(pointer), Some(&expected), "{assignment}");
    }
    assert!(set(&mut value, "seed").unwrap_err().to_string().contains("has no `=`"));
    assert!(set(&mut value, "seed.x=1").unwrap_err().to_string().contains("no table"));
    assert!(set(&mut value, "=1").is_err());
    // As TOML, as JSON and as a flag's own number would write it.
    for number in ["nan", "-inf", "NaN", "infinity"] {
        let said = set(&mut value, &format!("learning_rate={number}")).unwrap_err().to_string();
        assert!(said.contains("`learning_rate`") && said.contains("no finite number"), "{said}");
    }
}

#[test]
fn steps_and_warm_up_follow_the_recipe() {
    let mut t = Training { gradient_accumulation_steps: 3, num_train_epochs: 1.5, ..Training::default() };
    // 50 rows in steps of 12: 5 steps a pass, 7.5 in all.
    assert_eq!((t.batch(), t.steps_per_epoch(50), t.total_steps(50)), (12, 5, 8));
    assert_eq!(t.schedule(70).warmup_steps, 7);
    assert_eq!(t.schedule(7000).warmup_steps, WARMUP_STEPS);
    t.warmup_ratio = Some(0.031);
    assert_eq!(t.schedule(70).warmup_steps, 3);
    t.warmup_steps = Some(0);
    assert_eq!(t.schedule(70).warmup_steps, 0);
    t.max_steps = Some(9);
    assert_eq!(t.total_steps(50), 9);
}
