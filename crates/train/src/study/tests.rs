use super::*;
use crate::events::Observer;
use crate::testing;
use crate::validate;
use serde_json::json;
use sibo_model::LoadOptions;
use std::sync::atomic::Ordering;

fn arm(name: &str, lambda: f64) -> Arm {
    let table = json!({"method": "lora", "r": 5, "lora_alpha": 7, "target_modules": ["query", "value"], "sibo": {"lambda": lambda}});
    Arm { name: name.into(), adapter: AdapterConfig::from_recipe("test", &table).unwrap() }
}

fn plan(arms: Vec<Arm>) -> StudyPlan {
    let training = Training { max_steps: Some(4), ..testing::training() };
    StudyPlan {
        arms,
        seeds: vec![4, 9],
        training,
        metrics: vec![Metric::Acc, Metric::Mcc],
        base: "tiny".into(),
        out_dir: None,
        options: CompareOptions::default(),
    }
}

fn base(dir: &std::path::Path) -> Model {
    let folder = testing::folder(dir, "bert");
    Model::load(&folder, &LoadOptions { classes: Some(3), ..LoadOptions::default() }).unwrap().model
}

#[test]
fn arms_meet_the_same_rows_and_start_from_the_same_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(dir.path());
    let (train, test) = (testing::class_rows(20, 200, 3), testing::class_rows(12, 90, 3));
    let look: Vec<ProbeRow> = test.rows[..4]
        .iter()
        .map(|r| ProbeRow { row: r.row.clone(), places: (0..r.row.ids.len()).collect() })
        .collect();
    let judge = |model: &mut Model| validate::predict(model, &test, 5);
    let data = StudyData { train: &train, validation: None, judge: &judge, test_rows: 12, probe: &look };
    let mut plan = plan(vec![arm("plain", 0.0), arm("twin", 0.0), arm("sibo", 0.35)]);
    plan.out_dir = Some(dir.path().join("out"));
    let mut places = vec![];
    let mut watch = |place: Place<'_>, event: &Event<'_>| {
        if let Event::Finished(_) = event {
            places.push((place.arm.to_owned(), place.seed, place.run, place.of));
        }
    };
    let study = compare(&base, &data, &plan, &mut watch, &AtomicBool::new(false)).unwrap();
    assert_eq!(places[..2], [("plain".into(), 4, 1, 6), ("twin".into(), 4, 2, 6)]);
    assert_eq!((places.len(), study.runs.len(), study.interrupted), (6, 6, false));
    let losses = |run: usize| study.runs[run].outcome.records.iter().map(|r| r.loss).collect::<Vec<_>>();
    // Two plain arms are one and the same to the bit; SIBO shares their first step, where B is zero.
    assert_eq!((losses(0), &study.runs[0].predictions), (losses(1), &study.runs[1].predictions));
    assert_eq!(losses(0)[0], losses(2)[0]);
    assert_ne!(losses(0)[3], losses(2)[3]);
    // Another seed draws another head.
    assert_ne!(losses(0)[0], losses(3)[0]);
    assert_eq!(study.comparisons.len(), 4);
    assert_eq!((study.comparisons[0].a.as_str(), study.comparisons[0].b.as_str()), ("plain", "twin"));
    assert_eq!(study.comparisons[0].difference(), 0.0);
    assert_eq!((study.base_probe.len(), study.runs[2].probe.len()), (3, 3));
    assert!(study.smallest_detectable.is_some_and(|d| d > 0.1));
    // The folder holds what was judged.
    let folder = study.runs[2].adapter.clone().unwrap();
    assert!(folder.ends_with("sibo-seed4"));
    let mut again = base.clone();
    prepare::attach(&mut again, &plan.arms[2].adapter, "tiny", 77).unwrap();
    checkpoint::load_adapter(&mut again, &folder).unwrap();
    assert_eq!(judge(&mut again).unwrap(), study.runs[2].predictions);
}

#[test]
fn an_interruption_leaves_the_runs_that_are_done() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(dir.path());
    let train = testing::class_rows(20, 200, 3);
    let judge = |model: &mut Model| validate::predict(model, &train, 5);
    let data = StudyData { train: &train, validation: None, judge: &judge, test_rows: 20, probe: &[] };
    let flag = AtomicBool::new(false);
    let mut watch = |place: Place<'_>, event: &Event<'_>| {
        if place.run == 2 && matches!(event, Event::Step(_)) {
            flag.store(true, Ordering::Relaxed);
        }
    };
    let plan = plan(vec![arm("plain", 0.0), arm("sibo", 0.35)]);
    let study = compare(&base, &data, &plan, &mut watch, &flag).unwrap();
    assert!(study.interrupted && study.runs.len() == 1 && study.comparisons.is_empty());
}

#[test]
fn a_comparison_needs_two_systems() {
    let dir = tempfile::tempdir().unwrap();
    let train = testing::class_rows(5, 200, 3);
    let judge = |model: &mut Model| validate::predict(model, &train, 5);
    let data = StudyData { train: &train, validation: None, judge: &judge, test_rows: 20, probe: &[] };
    let mut silent = crate::Silent;
    let mut watch = |_: Place<'_>, event: &Event<'_>| silent.event(event);
    let one = plan(vec![arm("plain", 0.0)]);
    let said = compare(&base(dir.path()), &data, &one, &mut watch, &AtomicBool::new(false)).unwrap_err();
    assert!(said.to_string().contains("here are 1, 2 and 2"), "{said}");
}
