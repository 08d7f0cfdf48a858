use super::*;
use crate::checkpoint;
use crate::events::Event;
use crate::testing;
use serde_json::json;
use sibo_tasks::stats::CompareOptions;
use std::sync::atomic::{AtomicBool, Ordering};

/// A tiny encoder, and a task of two classes beside it.
struct Place {
    dir: tempfile::TempDir,
}

const TASK: &str = r#"
name = "toy"
description = "Is it of a day?"
citation = "made up"
licence = "CC0"
version = 1
kind = "classification"
labels = ["no", "yes"]
metrics = ["acc"]

[splits]
train = "train"
validation = "held-out"
test = "dev"

[[source]]
format = "json-lines"
files.train = ["toy/train.jsonl"]
files.dev = ["toy/dev.jsonl"]
columns = { text_a = "text", label = "label" }
"#;

impl Place {
    fn new() -> Self {
        let place = Place { dir: tempfile::tempdir().unwrap() };
        testing::folder(place.dir.path(), "bert");
        std::fs::create_dir(place.dir.path().join("toy")).unwrap();
        std::fs::write(place.dir.path().join("toy.toml"), TASK).unwrap();
        let words = ["the", "day", "man", "new", "force", "guitar", "play", "herald"];
        let row = |i: u64| {
            let word = |n: u64| words[testing::number(i * 13 + n, 8) as usize];
            let text: Vec<&str> = (0..3 + i % 4).map(word).collect();
            let label = if text.contains(&"day") { "yes" } else { "no" };
            json!({"text": text.join(" "), "label": label}).to_string() + "\n"
        };
        for (name, rows) in [("train", 0..40), ("dev", 100..117)] {
            let text: String = rows.map(row).collect();
            std::fs::write(place.dir.path().join(format!("toy/{name}.jsonl")), text).unwrap();
        }
        place
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn recipe(&self, lambda: f64, seed: u64) -> Recipe {
        let value = json!({
            "model": "tiny", "task": self.folder("toy.toml").display().to_string(), "output_dir": "unused", "seed": seed,
            "adapter": {"method": "lora", "r": 3, "lora_alpha": 5, "target_modules": ["query", "value"],
                        "sibo": {"lambda": lambda}},
            "training": {"max_steps": 6, "eval_steps": 2, "per_device_train_batch_size": 4, "cutoff_len": 24,
                         "gradient_accumulation_steps": 1, "learning_rate": 1e-2, "compute": "f32", "warmup_steps": 1},
        });
        Recipe::from_value("test", &value).unwrap()
    }

    fn cell(&self, lambda: f64, seed: u64, split: SplitName) -> Cell {
        Cell {
            arm: format!("lambda {lambda}"),
            recipe: self.recipe(lambda, seed),
            places: Places {
                model: self.folder("bert"),
                root: self.dir.path().into(),
                data: None,
                validation: None,
                test: None,
            },
            judges: vec![Judge {
                task: self.folder("toy.toml").display().to_string(),
                split,
                limit: None,
                by: By::Written,
            }],
            look_rows: 4,
        }
    }

    fn cells(&self) -> Vec<Cell> {
        let one = |seed| [0.0, 0.4].map(|lambda| self.cell(lambda, seed, SplitName::Validation));
        [3, 8].into_iter().flat_map(one).collect()
    }
}

/// What must not depend on how often a study was stopped.
fn lasting(records: &[Record]) -> Vec<Record> {
    let still = |r: &Record| Record {
        seconds: 0.0,
        tokens_per_second: 0.0,
        peak_activations: 0,
        ran: None,
        ..r.clone()
    };
    records.iter().map(still).collect()
}

#[test]
fn a_study_killed_many_times_ends_with_the_same_table() {
    let place = Place::new();
    let cells = place.cells();
    let whole = place.folder("whole");
    let mut log = Log::open(&whole).unwrap();
    let never = AtomicBool::new(false);
    assert!(run_all(&cells, &whole, 0, &mut log, &mut |_, _| {}, &never, 1).unwrap());
    let expected = log.all(&cells).unwrap();
    assert_eq!(expected.iter().map(|r| r.losses.len()).collect::<Vec<_>>(), [6, 6, 6, 6]);
    assert_ne!(expected[0].losses[5], expected[1].losses[5]);
    for jobs in [1, 2] {
        let cut = place.folder(&format!("cut-{jobs}"));
        let kills = cut_to_pieces(&cells, &cut, jobs);
        assert!(kills >= 20, "{jobs} jobs: {kills} kills only");
        let log = Log::open(&cut).unwrap();
        let found = log.all(&cells).unwrap();
        assert_eq!(lasting(&found), lasting(&expected), "{jobs} jobs");
        let question = question(&found[0].judged[0]);
        assert_eq!(scores(&found, &question), scores(&expected, &question));
    }
}

/// Runs the study a step or two at a time until it is done; gives how often it was stopped.
fn cut_to_pieces(cells: &[Cell], folder: &Path, jobs: usize) -> usize {
    let mut kills = 0;
    loop {
        // Each turn is a process of its own: one step of each cell under way, and then it is stopped.
        let mut log = Log::open(folder).unwrap();
        let stop = AtomicBool::new(false);
        let mut watch = |_: Place_<'_>, now: Now<'_>| {
            if matches!(now, Now::Training(Event::Step(_))) {
                stop.store(true, Ordering::Relaxed);
            }
        };
        if run_all(cells, folder, 0, &mut log, &mut watch, &stop, jobs).unwrap() {
            return kills;
        }
        kills += 1;
        assert!(kills < 90, "it does not get on");
        // Now and then the last checkpoint is lost too, as by a kill before it was written.
        if kills % 3 == 0
            && let Some(cell) = cells.iter().find(|c| log.find(c).is_none())
            && let Some(last) = checkpoint::latest(&cell.run_dir(folder)).unwrap()
        {
            std::fs::remove_dir_all(last.folder).unwrap();
        }
    }
}

#[test]
fn several_cells_at_a_time_give_the_bits_of_one_after_the_other() {
    let place = Place::new();
    let cells = place.cells();
    let never = AtomicBool::new(false);
    let run = |name: &str, jobs: usize| {
        let folder = place.folder(name);
        let mut log = Log::open(&folder).unwrap();
        let under_way = std::sync::Mutex::new((std::collections::BTreeSet::new(), 0));
        let mut watch = |place: Place_<'_>, now: Now<'_>| {
            let mut all = under_way.lock().unwrap();
            match now {
                Now::Done(..) => all.0.remove(&place.run),
                _ => all.0.insert(place.run),
            };
            all.1 = all.1.max(all.0.len());
        };
        assert!(run_all(&cells, &folder, 0, &mut log, &mut watch, &never, jobs).unwrap());
        let most = under_way.lock().unwrap().1;
        (lasting(&log.all(&cells).unwrap()), most)
    };
    let ((alone, one), (beside, most)) = (run("one", 1), run("three", 3));
    assert_eq!(alone, beside);
    assert!(one == 1 && most > 1, "{one} and {most} cells at a time");
    // A failure is told once; cells that were under way are kept.
    let mut broken = cells.clone();
    broken[1].places.model = place.folder("nowhere");
    let folder = place.folder("broken");
    let mut log = Log::open(&folder).unwrap();
    let said = run_all(&broken, &folder, 0, &mut log, &mut |_, _| {}, &never, 2).unwrap_err().to_string();
    assert!(said.contains("nowhere"), "{said}");
    assert!(Log::open(&folder).unwrap().find(&broken[0]).is_some());
}

use crate::study::Place as Place_;

#[test]
fn what_is_done_is_not_done_again() {
    let place = Place::new();
    let folder = place.folder("study");
    let never = AtomicBool::new(false);
    let cell = place.cell(0.4, 3, SplitName::Validation);
    let mut log = Log::open(&folder).unwrap();
    run_all(std::slice::from_ref(&cell), &folder, 0, &mut log, &mut |_, _| {}, &never, 1).unwrap();
    // The same cell: nothing happens. Other judges: the adapter that is there is judged, nothing is trained.
    let test = place.cell(0.4, 3, SplitName::Test);
    assert_eq!((cell.training() == test.training(), cell.key() == test.key()), (true, false));
    let (mut trained, mut judged) = (0, 0);
    let mut watch = |_: Place_<'_>, now: Now<'_>| match now {
        Now::Training(_) => trained += 1,
        Now::Judging(..) => judged += 1,
        Now::Done(..) => {}
    };
    let mut log = Log::open(&folder).unwrap();
    run_all(&[cell.clone(), test.clone()], &folder, 0, &mut log, &mut watch, &never, 1).unwrap();
    assert_eq!(trained, 0);
    assert!(judged > 0);
    let (first, second) = (log.find(&cell).unwrap(), log.find(&test).unwrap());
    assert_eq!((first.judged[0].predictions.len(), second.judged[0].predictions.len()), (4, 17));
    assert_eq!(first.losses, second.losses);
    assert_eq!(first.after, second.after);
    assert!(first.injected > 0 && first.sites == ["attention input"] && first.h0_ratio.is_some());
    assert!(!cell.run_dir(&folder).join(checkpoint::FOLDER).exists());

    let held = sibo_files::hold(&folder).unwrap();
    let mut none = |_: Place_<'_>, _: Now<'_>| {};
    let said = run_all(&[cell], &folder, 0, &mut log, &mut none, &never, 1).unwrap_err().to_string();
    assert!(said.contains("another process is at work"), "{said}");
    drop(held);

    let path = folder.join(FILE);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{text}{{\"key\": 3}}\n")).unwrap();
    let said = Log::open(&folder).unwrap_err().to_string();
    assert!(said.contains("cells.jsonl, line 3"), "{said}");
}

#[test]
fn a_key_is_what_changes_a_number() {
    let place = Place::new();
    let cell = place.cell(0.4, 3, SplitName::Validation);
    let with = |change: &dyn Fn(&mut Cell)| {
        let mut other = cell.clone();
        change(&mut other);
        other.key()
    };
    let same = [
        with(&|c| c.arm = "another name".into()),
        with(&|c| c.recipe.output_dir = "elsewhere".into()),
        with(&|c| c.recipe.training.threads = Some(1)),
        with(&|c| c.recipe.training.save_steps = Some(1)),
    ];
    assert!(same.iter().all(|key| *key == cell.key()));
    let other = [
        with(&|c| c.recipe.seed = 4),
        with(&|c| c.recipe.training.learning_rate = 2e-2),
        with(&|c| c.judges[0].limit = Some(3)),
        place.cell(0.3, 3, SplitName::Validation).key(),
    ];
    assert!(other.iter().all(|key| *key != cell.key()));
    assert_eq!(
        canonical(&json!({"b": [1, {"d": 2, "c": 3}], "a": 4})),
        canonical(&json!({"a": 4, "b": [1, {"c": 3, "d": 2}]}))
    );
}

#[test]
fn a_key_on_disk_stays_the_key_of_its_cell() {
    // Written by the program of 25 November 2026: settings that came later leave it alone at their defaults.
    let recipe = json!({
        "model": "smollm2-135m", "task": "gsm8k", "protocol": "clean", "output_dir": "unused", "seed": 1,
        "adapter": {"method": "lora", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "up_proj"],
                    "sibo": {"lambda": 0.2}},
        "training": {"max_steps": 4, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2,
                     "validation_rows": 8, "max_train_samples": 40},
    });
    let judge = |task: &str, by| Judge { task: task.into(), split: SplitName::Test, limit: Some(4), by };
    let mut cell = Cell {
        arm: "SIBO-lora, lambda 0.2".into(),
        recipe: Recipe::from_value("stored", &recipe).unwrap(),
        places: Places { model: "m".into(), root: "d".into(), data: None, validation: None, test: None },
        judges: vec![judge("gsm8k", By::Written), judge("svamp", By::Written)],
        look_rows: 40,
    };
    assert_eq!((cell.training().as_str(), cell.key().as_str()), ("8475c23ced51eb99", "f819da82ef608f6a"));
    cell.judges.insert(0, judge("gsm8k", By::Likelihood));
    assert_ne!(cell.key(), "f819da82ef608f6a");
    assert_eq!(cell.training(), "8475c23ced51eb99");
}

#[test]
fn records_become_scores_comparisons_and_signs() {
    let place = Place::new();
    let folder = place.folder("study");
    let cells: Vec<Cell> = [3, 8]
        .into_iter()
        .flat_map(|seed| [0.0, 0.4].map(|lambda| place.cell(lambda, seed, SplitName::Test)))
        .collect();
    let mut log = Log::open(&folder).unwrap();
    run_all(&cells, &folder, 0, &mut log, &mut |_, _| {}, &AtomicBool::new(false), 1).unwrap();
    let mut records = log.all(&cells).unwrap();
    let questions = vec![question(&records[0].judged[0])];
    let all = scores(&records, &questions[0]);
    assert_eq!((all.len(), all[0].by_seed.len(), all[1].rows), (2, 2, 17));
    let mean = (records[1].judged[0].value + records[3].judged[0].value) / 2.0;
    assert!((all[1].mean - mean).abs() < 1e-12);
    let pairs = [Pairing { a: "lambda 0".into(), b: "lambda 0.4".into() }];
    let found = verdicts(&records, &pairs, &questions, &CompareOptions::default()).unwrap();
    assert!((found[0].1.difference() - (all[1].mean - all[0].mean)).abs() < 1e-12);
    assert_eq!(found[0].1.mcnemar.len(), 2);
    // Two seeds and 17 rows: what was found is told as noise where its interval holds zero, and only there.
    let signs = signs_of(&records, "lambda 0", "lambda 0.4", Some(&found[0].1));
    let noise = signs.iter().any(|s| matches!(s, crate::signs::Sign::WithinNoise { .. }));
    assert_eq!(noise, found[0].1.interval().holds_zero());
    assert!(noise, "{:?}", found[0].1);
    assert!(
        records.iter().all(|r| r.branch_share.is_some_and(|(before, after)| before == 0.0 && after > 0.0))
    );
    // A loss that stands still beside a plain one that falls.
    for record in &mut records {
        let steps = record.losses.len();
        let falls = record.injected == 0;
        record.losses = (0..steps).map(|i| if falls { 0.7 - 0.1 * i as f64 } else { 0.7 }).collect();
        record.after.iter_mut().for_each(|l| l.similarity = 0.4);
    }
    let signs = signs_of(&records, "lambda 0", "lambda 0.4", None);
    let text: Vec<String> = signs.iter().map(ToString::to_string).collect();
    assert!(text[0].starts_with("lambda may be too high"), "{text:?}");
    // One that stalls the training is not too low; one that changes nothing is.
    assert!(text.iter().all(|t| !t.starts_with("lambda may be too low to act")), "{text:?}");
    records.iter_mut().for_each(|record| record.losses = vec![0.7, 0.5, 0.3]);
    let text: Vec<String> =
        signs_of(&records, "lambda 0", "lambda 0.4", None).iter().map(ToString::to_string).collect();
    assert!(text.iter().any(|t| t.starts_with("lambda may be too low to act")), "{text:?}");
}

#[test]
fn placements_that_cannot_be_say_why() {
    let place = Place::new();
    let base =
        sibo_model::Model::load(&place.folder("bert"), &sibo_model::LoadOptions::default()).unwrap().model;
    let of = |adapter: serde_json::Value| variations(&base, &adapter);
    let lora = of(json!({"method": "lora", "r": 3, "sibo": {"lambda": 0.3},
                         "target_modules": ["query", "value", "intermediate.dense", "output.dense"]}));
    let find = |name: &str| lora.iter().find(|v| v.name.contains(name)).unwrap();
    let placement = |v: &Variation| v.adapter.clone().unwrap()["sibo"]["placement"].clone();
    assert_eq!(
        placement(find("attention sites")),
        json!(["attention.self.query", "attention.self.value", "attention.output.dense"])
    );
    assert_eq!(placement(find("FFN sites")), json!(["intermediate.dense"]));
    assert!(find("skip mixed").adapter.clone().unwrap_err().contains("no skip of its own"));
    assert!(find("reference").adapter.clone().unwrap_err().contains("released SIBO code has no"));
    let only = of(json!({"method": "lora", "r": 3, "sibo": {"lambda": 0.3}, "target_modules": ["query"]}));
    let ffn = only.iter().find(|v| v.name.contains("FFN sites")).unwrap();
    assert!(ffn.adapter.clone().unwrap_err().contains("trains no such site"));
    let series = of(json!({"method": "pfeiffer", "sibo": {"lambda": 0.3}}));
    let tried: Vec<&str> = series.iter().filter(|v| v.adapter.is_ok()).map(|v| v.name.as_str()).collect();
    for name in
        ["houlsby, h0 after attention only", "pfeiffer, skip mixed", "pfeiffer, plain", "pfeiffer, h0 rms"]
    {
        assert!(tried.contains(&name), "{name} is not in {tried:?}");
    }
}

#[test]
fn a_cell_that_diverges_is_a_result_and_the_others_go_on() {
    let place = Place::new();
    let mut cells = place.cells();
    let far = |cell: &mut Cell| {
        cell.arm = "far".into();
        let mut value = cell.recipe.to_value();
        value["adapter"] = json!({"method": "pfeiffer", "bottleneck_size": 3});
        crate::recipe::set(&mut value, "training.learning_rate=1e30").unwrap();
        cell.recipe = Recipe::from_value("test", &value).unwrap();
    };
    far(&mut cells[1]);
    let folder = place.folder("study");
    let mut log = Log::open(&folder).unwrap();
    let never = AtomicBool::new(false);
    assert!(run_all(&cells, &folder, 0, &mut log, &mut |_, _| {}, &never, 1).unwrap());
    let found = log.all(&cells).unwrap();
    let why = found[1].diverged.as_deref().unwrap();
    assert!(why.starts_with("at step ") && why.contains(" on rows "), "{why}");
    assert!(found[1].judged.is_empty());
    assert!([0, 2, 3].iter().all(|i| found[*i].diverged.is_none() && found[*i].judged.len() == 1));
    let signs = diverged(&found);
    assert_eq!(signs.len(), 1);
    assert_eq!(signs[0].0, "far");
    assert!(signs[0].1.to_string().contains("1 of 1 runs diverged (seed 3: at step"), "{}", signs[0].1);
    // Kept, and not run again.
    let mut again = 0;
    let mut log = Log::open(&folder).unwrap();
    let mut watch =
        |_: crate::study::Place<'_>, now: Now<'_>| again += usize::from(!matches!(now, Now::Done(_, true)));
    assert!(run_all(&cells, &folder, 0, &mut log, &mut watch, &never, 1).unwrap());
    assert_eq!(again, 0);
}
