//! Lambda that moves: by a schedule over the steps, or because it is learned.

use super::*;
use sibo_peft::{Adapter, Lambda, folder::Folder};

const TARGETS: [&str; 3] = ["q_proj", "up_proj", "down_proj"];

fn with(sibo: serde_json::Value) -> Model {
    let mut recipe = sibo_lora(&TARGETS);
    recipe["sibo"] = sibo;
    model("llama-gqa", recipe)
}

fn rising() -> Model {
    with(json!({"lambda": 0.45, "lambda_schedule": "cosine", "lambda_start": 0.05}))
}

fn learned() -> Model {
    with(json!({"lambda": "learned", "lambda_init": 0.35}))
}

fn lambda_of(model: &Model) -> Lambda {
    model.adapter().unwrap().config.sibo.lambda.clone()
}

#[test]
fn a_run_with_a_schedule_resumes_to_the_same_bits() {
    let (data, held) = (token_rows(25, 71), token_rows(7, 60));
    let held = Validation { data: &held, metrics: vec![] };
    resumed_equals_whole(rising, &data, &held, training());
}

#[test]
fn a_run_that_learns_lambda_resumes_to_the_same_bits() {
    let (data, held) = (token_rows(25, 71), token_rows(7, 60));
    let held = Validation { data: &held, metrics: vec![] };
    resumed_equals_whole(learned, &data, &held, training());
}

#[test]
fn a_schedule_that_does_not_move_is_a_number() {
    let data = token_rows(25, 71);
    let run = |sibo: serde_json::Value| {
        let mut model = with(sibo);
        let out = go(&mut model, &data, None, &settings(training(), None), None, None).unwrap();
        let losses: Vec<u64> = out.records.iter().map(|r| r.loss.to_bits()).collect();
        (bits(&model), losses, out.records.last().and_then(|r| r.lambda))
    };
    let number = run(json!({"lambda": 0.35}));
    let constant = run(json!({"lambda": 0.35, "lambda_schedule": "constant"}));
    let level = run(json!({"lambda": 0.35, "lambda_schedule": "linear", "lambda_start": 0.35}));
    let moving = run(json!({"lambda": 0.35, "lambda_schedule": "linear", "lambda_start": 0.3}));
    assert_eq!((&number, number.2), (&constant, None));
    assert_eq!((&number.0, &number.1), (&level.0, &level.1));
    assert!(level.2.is_some_and(|l| (l - 0.35).abs() < 1e-7));
    assert_ne!(number.0, moving.0);
}

/// The first step takes the start, the last the end; an evaluation takes the lambda of the step before it.
#[test]
fn a_schedule_goes_from_its_start_to_its_end() {
    let (data, held) = (token_rows(25, 71), token_rows(7, 60));
    let held = Validation { data: &held, metrics: vec![] };
    let training = Training { eval_on_start: true, load_best_model_at_end: false, ..training() };
    let dir = tempfile::tempdir().unwrap();
    let mut model = with(json!({"lambda": 0.45, "lambda_schedule": "linear", "lambda_start": 0.05}));
    let out = go(&mut model, &data, Some(&held), &settings(training, Some(dir.path())), None, None).unwrap();
    let lambdas: Vec<f64> = out.records.iter().filter_map(|r| r.lambda).collect();
    let expected: Vec<f64> = (0..9).map(|k| 0.05 + 0.4 * f64::from(k) / 8.0).collect();
    assert_eq!(lambdas.len(), 9);
    assert!(lambdas.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-7), "{lambdas:?}");
    assert_eq!(lambda_of(&model), Lambda::Same(0.45));
    let last = out.evaluations.last().unwrap().score("loss").unwrap();
    let again = crate::validate::mean_loss(&mut model, held.data, 3).unwrap();
    assert!((last - again).abs() < 1e-5, "{last} {again}");
}

/// The best evaluation's values go with that step's lambda: in memory, on disk, and in the folder that is kept.
#[test]
fn the_best_values_keep_their_lambda() {
    let (data, held) = (token_rows(12, 71), token_rows(8, 71));
    let held = Validation { data: &held, metrics: vec![] };
    let training = Training {
        learning_rate: 0.7,
        max_steps: Some(12),
        eval_steps: Some(1),
        lr_scheduler_type: crate::schedule::ScheduleKind::Constant,
        ..training()
    };
    let dir = tempfile::tempdir().unwrap();
    let (mut on_disk, mut in_memory) = (rising(), rising());
    let on = settings(training.clone(), Some(dir.path()));
    let out = go(&mut on_disk, &data, Some(&held), &on, None, None).unwrap();
    go(&mut in_memory, &data, Some(&held), &settings(training, None), None, None).unwrap();
    let best = out.best.clone().unwrap();
    assert!(best.step < 12, "{best:?}");
    assert_eq!(bits(&on_disk), bits(&in_memory));
    let kept = Folder::open(&dir.path().join(checkpoint::BEST)).unwrap().config.sibo;
    let at_best = kept.course.clone().unwrap().at((best.step - 1) as f64 / 11.0);
    assert_eq!(kept.lambda, at_best);
    assert_eq!([lambda_of(&on_disk), lambda_of(&in_memory)], [at_best.clone(), at_best]);
    let again = crate::validate::mean_loss(&mut in_memory, held.data, 3).unwrap();
    assert!((best.value - again).abs() < 1e-5, "{} {again}", best.value);
}

/// A learned lambda moves at its own rate, and what is saved is what it has become.
#[test]
fn a_learned_lambda_moves_and_is_kept() {
    let data = token_rows(25, 71);
    let run = |rate: f64| {
        let mut model = learned();
        let training = Training { lambda_learning_rate: Some(rate), ..training() };
        go(&mut model, &data, None, &settings(training, None), None, None).unwrap();
        model
    };
    let (slow, fast) = (run(1e-4), run(0.1));
    let moved = |model: &Model| -> Vec<f32> {
        Adapter::learned_lambdas(model.params()).iter().map(|l| (l.lambda - 0.35).abs()).collect()
    };
    assert_eq!(moved(&fast).len(), 2, "attention input and FFN input");
    assert!(moved(&slow).iter().all(|m| *m < 3e-4), "{:?}", moved(&slow));
    assert!(moved(&fast).iter().any(|m| *m > 3e-3), "{:?}", moved(&fast));
    let dir = tempfile::tempdir().unwrap();
    checkpoint::save_adapter(&fast, &dir.path().join("a"), "A test's.\n").unwrap();
    let mut again = learned();
    checkpoint::load_adapter(&mut again, &dir.path().join("a")).unwrap();
    assert_eq!(Adapter::learned_lambdas(again.params()), Adapter::learned_lambdas(fast.params()));
}
