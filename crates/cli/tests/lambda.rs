//! Lambda beyond a number: what a run says of it, what its adapter holds, and what is refused.

mod common;

use common::{Place, fails, succeeds};
use serde_json::{Value, json};

fn place() -> Place {
    let place = Place::with("llama-gqa");
    place.instructions();
    place.write(
        "recipe.toml",
        "model = \"llama-gqa\"\ndata = \"sums\"\noutput_dir = \"runs/a\"\nseed = 5\n\n[adapter]\nr = 3\nlora_alpha = 5\n\
         target_modules = [\"q_proj\", \"up_proj\", \"down_proj\"]\n\n[training]\nlearning_rate = 0.01\n\
         lambda_learning_rate = 0.1\nmax_steps = 5\neval_steps = 1\nlogging_steps = 1\ncutoff_len = 40\n\
         per_device_train_batch_size = 3\ngradient_accumulation_steps = 1\ncompute = \"f32\"\n",
    );
    place
}

fn sibo_object(place: &Place, folder: &str) -> Value {
    let text = std::fs::read(place.join(folder).join("adapter_config.json")).unwrap();
    serde_json::from_slice::<Value>(&text).unwrap()["sibo"].clone()
}

#[test]
fn a_schedule_is_told_and_its_lambda_kept() {
    let place = place();
    let mut train = place.sibo(&["train", "recipe.toml", "--lambda", "0.4", "--lambda-schedule", "linear"]);
    train.args(["--lambda-start", "0.2", "--set", "training.load_best_model_at_end=false"]);
    let out = train.output().unwrap();
    let (text, way) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{way}");
    assert!(text.contains("its lambda: 0.4 (linear, from 0.2 to 0.4)"), "{text}");
    for lambda in ["lambda 0.2000", "lambda 0.2500", "lambda 0.4000"] {
        assert!(way.contains(lambda), "{lambda} is not in {way}");
    }
    let object = sibo_object(&place, "runs/a/adapter");
    assert_eq!((&object["lambda"], &object["lambda_end"]), (&json!(0.4), &json!(0.4)));
    // A checkpoint of the way there holds the lambda of its step.
    let early = sibo_object(&place, "runs/a/checkpoints/step-0000003/adapter");
    assert_eq!((&early["lambda"], &early["lambda_end"]), (&json!(0.3), &json!(0.4)));
    let card = std::fs::read_to_string(place.join("runs/a/adapter/README.md")).unwrap();
    assert!(
        card.contains("- lambda: 0.4 (linear, from 0.2 to 0.4); these values go with the first"),
        "{card}"
    );
    let metrics = std::fs::read_to_string(place.join("runs/a/metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().filter(|l| l.contains("\"lambda\":")).count(), 5);
    let generate = ["generate", "what is the sum ?", "--model", "llama-gqa", "--adapter", "runs/a/adapter"];
    succeeds(place.sibo(&generate).args(["--max-new-tokens", "3"]));
}

#[test]
fn a_learned_lambda_is_told_inspected_and_dropped_by_an_export() {
    let place = place();
    let text = succeeds(&mut place.sibo(&["train", "recipe.toml", "--lambda", "learned"]));
    assert!(text.contains("learned lambda: attention input 0."), "{text}");
    assert_eq!(sibo_object(&place, "runs/a/adapter")["lambda"], json!("learned"));
    let inspect = ["inspect", "llama-gqa", "--adapter", "runs/a/adapter"];
    let inspected = succeeds(&mut place.sibo(&inspect));
    let line = text.lines().find(|l| l.starts_with("learned lambda")).unwrap();
    assert!(inspected.contains(line), "{inspected}");
    let whole: Value = serde_json::from_str(&succeeds(place.sibo(&inspect).arg("--json"))).unwrap();
    assert_eq!(whole["adapter"]["learned_lambdas"].as_array().unwrap().len(), 2);
    fails(
        &mut place.sibo(&["merge", "--model", "llama-gqa", "--adapter", "runs/a/adapter", "--output", "m"]),
        1,
        &["lambda is learned (from 0.2, one for each kind of site)", "cannot be merged"],
    );
    let mut export = place.sibo(&["export", "runs/a/adapter", "--as-plain-lora", "--output", "plain"]);
    let said = String::from_utf8(export.output().unwrap().stderr).unwrap();
    assert!(said.contains("warning: lambda learned (from 0.2"), "{said}");
    let file = sibo_files::TensorFile::open(&place.join("plain/adapter_model.safetensors")).unwrap();
    assert!(file.shapes().keys().all(|k| k.contains("lora_")), "{:?}", file.shapes());
    succeeds(&mut place.sibo(&["inspect", "llama-gqa", "--adapter", "plain"]));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let place = place();
    let refused = |words: &[&str], parts: &[&str]| {
        fails(place.sibo(&["train", "recipe.toml"]).args(words), 1, parts);
        assert!(!place.join("runs").exists(), "{words:?}");
    };
    refused(
        &["--lambda", "learned", "--lambda-schedule", "cosine"],
        &["`sibo.lambda_schedule`", "choose one of the two"],
    );
    refused(&["--lambda", "0.2", "--lambda-start", "0.1"], &["`sibo.lambda_start`", "a lambda that moves"]);
    refused(
        &["--lambda", "0.2", "--lambda-schedule", "stairs"],
        &["`sibo.lambda_schedule`", "constant, linear, cosine"],
    );
    refused(
        &["--lambda", "0.2", "--lambda-schedule", "linear", "--set", "adapter.sibo.lambda_end=0.3"],
        &["`sibo.lambda_end`", "in a recipe `lambda` is where a schedule ends"],
    );
    refused(&["--lambda", "0.2", "--set", "adapter.sibo.lambda_init=0.1"], &["lambda = \"learned\""]);
    refused(
        &["--lambda", "learned", "--set", "adapter.sibo.lambda_init=1"],
        &["`sibo.lambda_init`", "0 < lambda < 1"],
    );
    refused(
        &[
            "--lambda",
            "learned",
            "--method",
            "bitfit",
            "--set",
            "adapter={method=\"bitfit\", sibo={lambda=\"learned\"}}",
        ],
        &["no branch that could read h0"],
    );
}

#[test]
fn a_cut_model_says_what_it_is_everywhere() {
    let place = place();
    let damage = "a damaged model: the first 2 of 3 layers";
    let out = place.sibo(&["train", "recipe.toml", "--layers", "2"]).output().unwrap();
    let (text, way) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && text.contains(damage) && way.contains(damage), "{text}{way}");
    let recipe = std::fs::read_to_string(place.join("runs/a/recipe.toml")).unwrap();
    assert!(recipe.contains("num_hidden_layers = 2"), "{recipe}");
    assert!(std::fs::read_to_string(place.join("runs/a/adapter/README.md")).unwrap().contains(damage));
    let generate = |cut: &[&str]| {
        let words = [
            "generate",
            "what ?",
            "--model",
            "llama-gqa",
            "--adapter",
            "runs/a/adapter",
            "--max-new-tokens",
            "2",
        ];
        let mut command = place.sibo(&words);
        command.args(cut);
        command
    };
    succeeds(&mut generate(&["--layers", "2"]));
    fails(&mut generate(&[]), 1, &["needs its first 2 layers (--layers 2)", "was put on the whole model"]);
    fails(&mut generate(&["--layers", "1"]), 1, &["put on its first 1 layers"]);
    fails(&mut generate(&["--layers", "4"]), 1, &["the first 4 layers were asked for, and the model has 3"]);
    fails(&mut generate(&["--layers", "0"]), 1, &["give 1 to 3"]);
    let inspected = succeeds(&mut place.sibo(&["inspect", "llama-gqa", "--layers", "2"]));
    assert!(inspected.contains("2 of 3 layers, width"), "{inspected}");
    // All layers are the whole model.
    let whole = place.sibo(&["inspect", "llama-gqa", "--layers", "3"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&whole.stderr).contains("damaged"));
}
