mod lambda;

use super::*;
use crate::checkpoint::Claim;
use crate::data::Label;
use crate::events::Silent;
use crate::testing::*;
use serde_json::json;
use sibo_tasks::Metric;
use std::path::Path;

fn settings(training: Training, run_dir: Option<&Path>) -> Settings {
    Settings { training, seed: 11, run_dir: run_dir.map(Path::to_path_buf), probe_rows: vec![], plan: None }
}

fn llama() -> Model {
    model("llama-gqa", sibo_lora(&["q_proj", "up_proj", "down_proj"]))
}

fn bert() -> Model {
    model("bert-classifier", sibo_lora(&["query", "value"]))
}

/// Trains to the end, or until `stop` steps are done.
fn go(
    model: &mut Model,
    data: &Dataset,
    validation: Option<&Validation<'_>>,
    settings: &Settings,
    resume: Option<&Checkpoint>,
    stop: Option<usize>,
) -> Result<Outcome, Error> {
    let flag = AtomicBool::new(stop == Some(0));
    let mut watch = |event: &Event<'_>| {
        if let Event::Step(record) = event
            && Some(record.step) == stop
        {
            flag.store(true, Ordering::Relaxed);
        }
    };
    train(model, data, validation, settings, resume, &mut watch, &flag)
}

/// A run that is interrupted after each of `stops` steps and resumed, each time in a new process's state, ends in
/// the same bits as one that never stopped.
fn resumed_equals_whole(make: fn() -> Model, data: &Dataset, held: &Validation<'_>, training: Training) {
    let whole_dir = tempfile::tempdir().unwrap();
    let mut whole = make();
    let expected =
        go(&mut whole, data, Some(held), &settings(training.clone(), Some(whole_dir.path())), None, None)
            .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(training, Some(dir.path()));
    let mut from = None;
    for stop in [1, 2, 5, 6] {
        let mut model = make();
        let out = go(&mut model, data, Some(held), &settings, from.as_ref(), Some(stop)).unwrap();
        assert_eq!((out.end, out.steps), (crate::End::Interrupted, stop));
        from = checkpoint::latest(dir.path()).unwrap();
        assert_eq!(from.as_ref().map(|c| c.step), Some(stop));
    }
    let mut resumed = make();
    let out = go(&mut resumed, data, Some(held), &settings, from.as_ref(), None).unwrap();
    assert_eq!(bits(&resumed), bits(&whole));
    assert_eq!((out.losses.len(), &out.losses), (out.steps, &expected.losses));
    assert!(out.step_seconds > out.records.iter().map(|r| r.seconds).sum::<f64>());
    assert_eq!((out.end, out.best, out.holds_step), (expected.end, expected.best, expected.holds_step));
    let values = |o: &[EvalRecord]| o.iter().map(|e| (e.step, e.scores.clone(), e.best)).collect::<Vec<_>>();
    assert_eq!(values(&out.evaluations), values(&expected.evaluations));
    let last = |dir: &Path| {
        std::fs::read(checkpoint::latest(dir).unwrap().unwrap().folder.join("optimiser.safetensors")).unwrap()
    };
    assert_eq!(last(dir.path()), last(whole_dir.path()));
}

#[test]
fn looking_changes_no_bit_and_outlives_a_resume() {
    let (data, held) = (token_rows(25, 71), token_rows(7, 60));
    let look_at: Vec<ProbeRow> = held
        .rows
        .iter()
        .map(|r| ProbeRow { row: r.row.clone(), places: (0..r.row.ids.len()).collect() })
        .collect();
    let held = Validation { data: &held, metrics: vec![] };
    let (mut blind, mut seeing, mut resumed) = (llama(), llama(), llama());
    go(&mut blind, &data, Some(&held), &settings(training(), None), None, None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let looking = |run_dir: Option<&Path>| Settings {
        probe_rows: look_at.clone(),
        ..settings(Training { probe_every: Some(4), ..training() }, run_dir)
    };
    let whole = go(&mut seeing, &data, Some(&held), &looking(None), None, None).unwrap();
    assert_eq!(bits(&blind), bits(&seeing));
    let steps = |o: &Outcome| o.looks.iter().map(|l| l.step).collect::<Vec<_>>();
    assert_eq!(steps(&whole), [0, 4, 8, 9]);
    let now = probe::probe(&seeing, &look_at, 3).unwrap();
    assert!((whole.looks[3].layers[1].similarity - now[1].similarity.estimate).abs() < 1e-6);
    assert!(whole.looks[0].layers[2].x_norm != whole.looks[3].layers[2].x_norm);
    go(&mut resumed, &data, Some(&held), &looking(Some(dir.path())), None, Some(5)).unwrap();
    let from = checkpoint::latest(dir.path()).unwrap();
    let mut resumed = llama();
    let out = go(&mut resumed, &data, Some(&held), &looking(Some(dir.path())), from.as_ref(), None).unwrap();
    let layers = |o: &Outcome| o.looks.iter().map(|l| l.layers.clone()).collect::<Vec<_>>();
    assert_eq!((steps(&out), layers(&out)), (steps(&whole), layers(&whole)));
    assert_eq!(bits(&resumed), bits(&blind));
}

#[test]
fn a_resumed_decoder_ends_in_the_same_bits() {
    let (data, held) = (token_rows(25, 71), token_rows(7, 60));
    let held = Validation { data: &held, metrics: vec![] };
    resumed_equals_whole(llama, &data, &held, training());
}

#[test]
fn a_resumed_classifier_ends_in_the_same_bits() {
    let (data, held) = (class_rows(25, 67, 5), class_rows(9, 50, 5));
    let held = Validation { data: &held, metrics: vec![Metric::Acc, Metric::Mcc] };
    let training = Training {
        metric_for_best_model: "eval_acc".into(),
        group_by_length: true,
        gradient_checkpointing: true,
        ..training()
    };
    resumed_equals_whole(bert, &data, &held, training);
}

#[test]
fn a_killed_run_goes_on_from_its_last_whole_checkpoint() {
    let (data, held) = (token_rows(25, 71), token_rows(7, 60));
    let held = Validation { data: &held, metrics: vec![] };
    let (whole_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut whole, mut killed, mut resumed) = (llama(), llama(), llama());
    go(&mut whole, &data, Some(&held), &settings(training(), Some(whole_dir.path())), None, None).unwrap();
    let settings = settings(training(), Some(dir.path()));
    go(&mut killed, &data, Some(&held), &settings, None, Some(5)).unwrap();
    // A kill leaves no checkpoint of the step it fell in, and perhaps half of one.
    let last = checkpoint::latest(dir.path()).unwrap().unwrap();
    std::fs::rename(&last.folder, last.folder.with_file_name(".step-0000005.writing")).unwrap();
    let from = checkpoint::latest(dir.path()).unwrap();
    assert_eq!(from.as_ref().map(|c| c.step), Some(4));
    go(&mut resumed, &data, Some(&held), &settings, from.as_ref(), None).unwrap();
    assert_eq!(bits(&resumed), bits(&whole));
}

#[test]
fn accumulated_micro_batches_equal_one_batch() {
    // The gradients of the last step stay where they are.
    let gradient = |make: fn() -> Model, data: &Dataset, micro: usize, accumulation: usize| {
        let training = Training {
            per_device_train_batch_size: micro,
            gradient_accumulation_steps: accumulation,
            max_grad_norm: 0.0,
            max_steps: Some(1),
            ..training()
        };
        let mut model = make();
        let out = go(&mut model, data, None, &settings(training, None), None, None).unwrap();
        let gradient: Vec<f32> = model.params().iter().flat_map(|p| p.grad.clone()).collect();
        (gradient, out.records[0].loss)
    };
    for (make, data) in [(llama as fn() -> Model, token_rows(17, 71)), (bert, class_rows(17, 67, 5))] {
        let (whole, loss) = gradient(make, &data, 12, 1);
        let norm = |g: &mut dyn Iterator<Item = f32>| g.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let size = norm(&mut whole.iter().copied());
        for (micro, accumulation) in [(4, 3), (2, 6), (1, 12)] {
            let (parts, parts_loss) = gradient(make, &data, micro, accumulation);
            assert!((parts_loss - loss).abs() < 1e-6 * loss, "{parts_loss} {loss}");
            // The tokens are summed in another order, which moves single entries by a few roundings.
            let apart = norm(&mut whole.iter().zip(&parts).map(|(a, b)| a - b));
            assert!(apart < 1e-6 * size, "{micro} x {accumulation}: {apart} of {size}");
        }
    }
}

#[test]
fn the_mean_loss_is_over_the_labels_of_the_whole_step() {
    let data = token_rows(6, 71);
    let mut untrained = llama();
    let (mut sum, mut count) = (0.0, 0);
    for row in &data.rows {
        let Label::Tokens(labels) = &row.label else { panic!() };
        let batch = Batch::new(untrained.arch(), std::slice::from_ref(&row.row)).unwrap();
        sum += untrained.loss(&batch, &sibo_model::Labels::Tokens(vec![labels.clone()])).loss_sum;
        count += labels.iter().skip(1).filter(|l| **l != -100).count();
    }
    // B is zero at the start, so the adapter and its dropout change nothing yet.
    let training = Training { gradient_accumulation_steps: 3, max_steps: Some(1), ..training() };
    let out = go(&mut llama(), &data, None, &settings(training, None), None, None).unwrap();
    let expected = sum / count as f64;
    assert!((out.records[0].loss - expected).abs() < 1e-6, "{} {expected}", out.records[0].loss);
    assert_eq!(out.records[0].tokens, data.tokens());
}

#[test]
fn the_best_evaluation_is_what_the_model_ends_with() {
    let (data, held) = (token_rows(12, 71), token_rows(8, 71));
    let held = Validation { data: &held, metrics: vec![] };
    // A rate that soon does harm.
    let training = Training {
        learning_rate: 0.7,
        max_steps: Some(12),
        eval_on_start: true,
        eval_steps: Some(1),
        early_stopping_patience: Some(3),
        lr_scheduler_type: crate::schedule::ScheduleKind::Constant,
        ..training()
    };
    let dir = tempfile::tempdir().unwrap();
    let (mut on_disk, mut in_memory) = (llama(), llama());
    let out = go(&mut on_disk, &data, Some(&held), &settings(training.clone(), Some(dir.path())), None, None)
        .unwrap();
    let again = go(&mut in_memory, &data, Some(&held), &settings(training, None), None, None).unwrap();
    let best = out.best.clone().unwrap();
    assert_eq!(out.end, crate::End::StoppedEarly);
    assert_eq!((out.steps - best.step, out.holds_step), (3, best.step));
    assert!(best.step < out.steps && again.best == out.best);
    let losses: Vec<f64> = out.evaluations.iter().map(|e| e.score("loss").unwrap()).collect();
    assert_eq!(best.value, losses.iter().copied().fold(f64::INFINITY, f64::min));
    let now = crate::validate::mean_loss(&mut on_disk, held.data, 3).unwrap();
    assert!((now - best.value).abs() < 1e-5, "{now} {}", best.value);
    assert_eq!(bits(&on_disk), bits(&in_memory));
    assert_eq!(checkpoint::list(dir.path()).unwrap().len(), 2);
}

#[test]
fn training_learns() {
    let data = class_rows(60, 67, 5);
    let training = Training { max_steps: Some(80), learning_rate: 2e-2, base_dropout: false, ..training() };
    let out = go(&mut bert(), &data, None, &settings(training, None), None, None).unwrap();
    let mean = |r: &[StepRecord]| r.iter().map(|s| s.loss).sum::<f64>() / r.len() as f64;
    let (first, last) = (mean(&out.records[..8]), mean(&out.records[72..]));
    assert!(last < 0.8 * first, "{first} {last}");
    assert_eq!((out.steps, out.end), (80, crate::End::Completed));
    assert!(out.tokens_per_second() > 0.0);
}

#[test]
fn another_run_is_refused_with_its_differences() {
    let data = token_rows(14, 71);
    let dir = tempfile::tempdir().unwrap();
    let mine = settings(training(), Some(dir.path()));
    go(&mut llama(), &data, None, &mine, None, Some(3)).unwrap();
    let from = checkpoint::latest(dir.path()).unwrap();
    let said = |model: &mut Model, data: &Dataset, settings: &Settings| {
        go(model, data, None, settings, from.as_ref(), None).unwrap_err().to_string()
    };
    let other =
        Settings { seed: 12, training: Training { learning_rate: 1e-3, ..training() }, ..mine.clone() };
    let text = said(&mut llama(), &data, &other);
    assert!(text.contains("belongs to another run") && text.contains("seed: 11 there, 12 here"), "{text}");
    assert!(text.contains("training.learning_rate: 0.03 there, 0.001 here"), "{text}");
    let text = said(&mut model("llama-gqa", sibo_lora(&["q_proj"])), &data, &mine);
    assert!(text.contains("adapter.target_modules"), "{text}");
    let text = said(&mut llama(), &token_rows(13, 71), &mine);
    assert!(text.contains("  data: \"14 rows"), "{text}");
    let mut elsewhere = model("llama-tied", sibo_lora(&["q_proj", "up_proj", "down_proj"]));
    assert!(said(&mut elsewhere, &token_rows(14, 50), &mine).contains("the base model is another one"));
    // What changes no bit may differ.
    let free = Training { threads: Some(1), logging_steps: 3, save_total_limit: 5, ..training() };
    go(&mut llama(), &data, None, &Settings { training: free, ..mine }, from.as_ref(), Some(4)).unwrap();
}

#[test]
fn a_folder_that_holds_a_run_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    assert_eq!(checkpoint::claim(dir.path(), Claim::Fresh, "seed = 1\n").unwrap(), None);
    let said = |how| checkpoint::claim(dir.path(), how, "seed = 2\n").unwrap_err().to_string();
    assert!(
        said(Claim::Fresh).contains("holds a run already (recipe.toml)")
            && said(Claim::Fresh).contains("--resume")
    );
    assert!(said(Claim::Resume).contains("no checkpoint to resume from (looked in checkpoints/)"));
    // Stopped before its first checkpoint: the same recipe begins again, and leaves no line of the first try.
    std::fs::write(dir.path().join("metrics.jsonl"), "{}\n").unwrap();
    assert_eq!(checkpoint::claim(dir.path(), Claim::Resume, "seed = 1\n").unwrap(), None);
    assert!(!dir.path().join("metrics.jsonl").exists() && dir.path().join("recipe.toml").exists());
    go(&mut llama(), &token_rows(14, 71), None, &settings(training(), Some(dir.path())), None, Some(3))
        .unwrap();
    assert_eq!(checkpoint::claim(dir.path(), Claim::Resume, "").unwrap().map(|c| c.step), Some(3));
    checkpoint::claim(dir.path(), Claim::Overwrite, "seed = 2\n").unwrap();
    let mut left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["notes.txt", "recipe.toml"]);
}

#[test]
fn an_output_folder_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("taken");
    std::fs::write(&file, "x").unwrap();
    let said = checkpoint::claim(&file.join("run"), Claim::Fresh, "").unwrap_err().to_string();
    assert!(said.contains("taken/run: cannot create the folder"), "{said}");
    // Saving fails in the middle of a run: the sentence names the place, and what was there stays.
    let settings = settings(training(), Some(dir.path()));
    std::fs::write(dir.path().join(checkpoint::FOLDER), "in the way").unwrap();
    let said = go(&mut llama(), &token_rows(14, 71), None, &settings, None, None).unwrap_err().to_string();
    assert!(said.contains("checkpoints: cannot create the folder"), "{said}");
    assert!(file.exists());
}

#[test]
fn a_checkpoint_that_cannot_be_written_loses_nothing() {
    let (data, dir) = (token_rows(14, 71), tempfile::tempdir().unwrap());
    let settings = settings(training(), Some(dir.path()));
    // The place where the second checkpoint is put together is taken.
    let part = dir.path().join("checkpoints/.step-0000004.writing");
    std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    std::fs::write(&part, "in the way").unwrap();
    let mut first = llama();
    let said = go(&mut first, &data, None, &settings, None, None).unwrap_err().to_string();
    assert!(said.contains("step-0000004.writing: cannot create the folder"), "{said}");
    std::fs::remove_file(&part).unwrap();
    let from = checkpoint::latest(dir.path()).unwrap();
    assert_eq!(from.as_ref().map(|c| c.step), Some(2));
    let (mut resumed, mut whole) = (llama(), llama());
    go(&mut resumed, &data, None, &settings, from.as_ref(), None).unwrap();
    go(&mut whole, &data, None, &Settings { run_dir: None, ..settings }, None, None).unwrap();
    assert_eq!(bits(&resumed), bits(&whole));
}

#[test]
fn one_thread_trains_the_same_bits_as_three() {
    let data = class_rows(60, 67, 5);
    let trained = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut model = bert();
            let wide = Training { per_device_train_batch_size: 17, ..training() };
            go(&mut model, &data, None, &settings(wide, None), None, None).unwrap();
            bits(&model)
        })
    };
    assert_eq!(trained(1), trained(3));
}

#[test]
fn what_is_no_number_stops_the_run_and_is_named() {
    let data = token_rows(14, 71);
    let dir = tempfile::tempdir().unwrap();
    let wild = Training {
        learning_rate: 1e30,
        warmup_steps: Some(0),
        save_steps: Some(1),
        max_grad_norm: 0.0,
        ..training()
    };
    let said =
        go(&mut llama(), &data, None, &settings(wild, Some(dir.path())), None, None).unwrap_err().to_string();
    assert!(said.starts_with("step 2: the loss is not finite on rows "), "{said}");
    assert!(said.contains("step-0000001 (step 1)"), "{said}");
    let mut broken = llama();
    broken.params_mut().iter_mut().next().unwrap().value[0] = f32::INFINITY;
    let said = go(&mut broken, &data, None, &settings(training(), None), None, None).unwrap_err().to_string();
    assert!(
        said.starts_with("step 1: the loss is not finite on rows ") && said.contains("no checkpoint"),
        "{said}"
    );
}

#[test]
fn what_cannot_be_trained_is_refused_before_the_first_step() {
    let said =
        |model: &mut Model, data: &Dataset, validation: Option<&Validation<'_>>, training: Training| {
            go(model, data, validation, &settings(training, None), None, None).unwrap_err().to_string()
        };
    let good = token_rows(5, 71);
    assert!(said(&mut llama(), &Dataset::default(), None, training()).contains("no row to learn from"));
    let mut high = good.clone();
    high.rows[2].row.ids[1] = 900;
    let text = said(&mut llama(), &high, None, training());
    assert!(text.starts_with("row 17 of made up: token id 900 is out of range"), "{text}");
    let mut long = class_rows(4, 60, 3);
    long.rows[1].row = sibo_model::Row { ids: vec![5; 60], sample: 13, ..Default::default() };
    let text = said(&mut bert(), &long, None, training());
    assert!(
        text.starts_with("row 14 of made up: it holds 60 tokens, and the model has positions for 40"),
        "{text}"
    );
    assert!(said(&mut llama(), &class_rows(4, 60, 3), None, training()).contains("row 8 of made up"));
    assert!(said(&mut bert(), &class_rows(9, 60, 9), None, training()).contains("outside the 5 classes"));
    let held = Validation { data: &good, metrics: vec![] };
    let wrong = Training { metric_for_best_model: "los".into(), ..training() };
    let text = said(&mut llama(), &good, Some(&held), wrong);
    assert!(text.contains("`los` is not measured") && text.contains("did you mean `loss`"), "{text}");
}

#[test]
fn facts_say_what_will_happen() {
    let mut seen = None;
    let mut watch = |event: &Event<'_>| {
        if let Event::Started(facts) = event {
            seen = Some((*facts).clone());
        }
    };
    let data = token_rows(25, 71);
    let settings = settings(training(), None);
    let go = AtomicBool::new(false);
    train(&mut llama(), &data, None, &settings, None, &mut watch, &go).unwrap();
    let facts = seen.unwrap();
    assert_eq!(
        (facts.rows, facts.batch, facts.steps_per_epoch, facts.total_steps, facts.warmup_steps),
        (25, 6, 5, 9, 2)
    );
    assert!(facts.injected.len() == 6 && facts.plain.len() == 3, "{facts:?}");
    assert!(facts.memory.total() > 0 && facts.resumed_at.is_none());
    let plain = json!({"method": "lora", "target_modules": ["q_proj"]});
    train(&mut model("llama-gqa", plain), &data, None, &settings, None, &mut Silent, &go).unwrap();
}
