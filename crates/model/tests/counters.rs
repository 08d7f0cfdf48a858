//! What is counted for the whole process: operations, and bytes of rows. A binary of its own, so that no other test
//! computes meanwhile, and one test at a time.

use serde_json::{Value, json};
use sibo_kernels::{pool, work};
use sibo_model::{Batch, Compute, Labels, LoadOptions, Model, PlanInput, Row, StepCount};
use std::path::Path;
use std::sync::Mutex;

static COUNTERS: Mutex<()> = Mutex::new(());

/// The formula and what the kernels counted, f32 and bf16 apart.
fn both(name: &str, adapter: &Value, compute: Compute, recompute: bool) -> (StepCount, work::Work) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/models").join(name);
    let options = LoadOptions { compute, ..LoadOptions::default() };
    let mut model = Model::load(&folder, &options).unwrap().model;
    model.attach(&sibo_peft::AdapterConfig::from_recipe("test", adapter).unwrap(), 3).unwrap();
    let lengths = [5, 13, 1, 9];
    let rows: Vec<Row> = lengths
        .iter()
        .map(|n| Row { ids: (0..*n as u32).map(|i| 3 + i % 40).collect(), ..Row::default() })
        .collect();
    let labels = match model.classes() {
        Some(_) => Labels::Classes(vec![0, 1, 1, 0]),
        None => {
            Labels::Tokens(rows.iter().map(|r| r.ids.iter().map(|id| i64::from(*id)).collect()).collect())
        }
    };
    let batch = Batch::new(model.arch(), &rows).unwrap();
    let formula = model.count_step(&lengths, Model::count_labels(&labels), recompute).unwrap();
    let before = work::done();
    model.forward_backward(&batch, &labels, 1.0, None, recompute);
    (formula, work::done().since(before))
}

#[test]
fn the_formula_is_what_the_kernels_count() {
    let _alone = COUNTERS.lock().unwrap();
    let lora = |targets: &[&str]| json!({"method": "lora", "r": 5, "target_modules": targets});
    for (name, adapter) in [
        ("llama-gqa", lora(&["q_proj", "up_proj", "down_proj"])),
        (
            "llama-gqa",
            json!({"method": "lora", "r": 3, "target_modules": ["k_proj", "down_proj"], "sibo": {"lambda": 0.3}}),
        ),
        ("llama-tied", json!({"method": "houlsby", "bottleneck_size": 7})),
        ("llama-gqa", json!({"method": "in_linear", "bottleneck_size": 4})),
        ("gptj", lora(&["q_proj", "fc_in"])),
        ("gptj", json!({"method": "parallel", "bottleneck_size": 6})),
        ("bert-classifier", lora(&["query", "value"])),
        ("bert-classifier", json!({"method": "pfeiffer", "bottleneck_size": 7, "sibo": {"lambda": 0.3}})),
        ("bert-classifier", json!({"method": "full"})),
    ] {
        for recompute in [false, true] {
            let (formula, counted) = both(name, &adapter, Compute::F32, recompute);
            assert_eq!(formula.total(), counted.f32_flop, "{name} {adapter}, recompute {recompute}");
            assert!(formula.trained > 0 && formula.frozen + formula.attention > 0);
        }
    }
}

/// The tiny models of the parity tests, with rows long enough that activations outweigh the rest.
fn counted(model: &str, adapter: Value, recompute: usize, compute: Compute) -> [(usize, usize); 2] {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/models").join(model);
    let options = LoadOptions { compute, ..LoadOptions::default() };
    let mut model = Model::load(&folder, &options).unwrap().model;
    let config = sibo_peft::AdapterConfig::from_recipe("test", &adapter).unwrap();
    model.attach(&config, 3).unwrap();
    let rows: Vec<Row> = (0..300u64)
        .map(|i| Row { ids: (0..29).map(|j| 3 + (i as u32 + j) % 40).collect(), types: vec![], sample: i })
        .collect();
    let labels = match model.classes() {
        Some(_) => Labels::Classes(rows.iter().map(|r| r.ids[0] % 2).collect()),
        None => {
            Labels::Tokens(rows.iter().map(|r| r.ids.iter().map(|id| i64::from(*id)).collect()).collect())
        }
    };
    let batch = Batch::new(model.arch(), &rows).unwrap();
    let input = PlanInput {
        tokens: batch.tokens(),
        labelled: Model::count_labels(&labels),
        recompute: recompute.into(),
        moments: 2,
        streamed: 0,
    };
    let plan = model.plan(&input);
    let before = pool::live_bytes();
    pool::reset_peak();
    model.forward_backward(&batch, &labels, 1.0, None, recompute);
    let step = (plan.kept + plan.working, pool::peak_bytes() - before);
    pool::reset_peak();
    model.loss(&batch, &labels);
    [step, (model.forward_bytes(input.tokens), pool::peak_bytes() - before)]
}

#[test]
fn the_plan_is_what_is_allocated() {
    let _alone = COUNTERS.lock().unwrap();
    let lora = |targets: &[&str]| json!({"method": "lora", "r": 5, "target_modules": targets});
    for (model, adapter) in [
        ("llama-gqa", lora(&["q_proj", "up_proj", "down_proj"])),
        ("gptj", lora(&["q_proj", "fc_in"])),
        ("llama-tied", json!({"method": "houlsby", "bottleneck_size": 7})),
        ("bert-classifier", lora(&["query", "value"])),
        ("bert-classifier", json!({"method": "pfeiffer", "bottleneck_size": 7})),
    ] {
        for recompute in [0, 1, 9] {
            for compute in [Compute::F32, Compute::Bf16] {
                let [(planned, measured), (most, looked)] =
                    counted(model, adapter.clone(), recompute, compute);
                let share = looked as f64 / most as f64;
                assert!(
                    (0.8..=1.0).contains(&share),
                    "{model}, {compute:?}: a look holds {looked}, and {most} is what it may ({share:.2})"
                );
                let ratio = planned as f64 / measured as f64;
                assert!(
                    (0.9..1.1).contains(&ratio),
                    "{model}, {compute:?}, recompute {recompute}: planned {planned}, allocated {measured} ({ratio:.2})"
                );
            }
        }
    }
}

/// Steps over batches of other lengths, after one over the longest: memory that is touched once serves them all.
#[test]
fn a_step_touches_no_memory_that_the_one_before_has_not() {
    let _alone = COUNTERS.lock().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/models/llama-gqa");
    let mut model = Model::load(&folder, &LoadOptions::default()).unwrap().model;
    let adapter = json!({"method": "lora", "r": 5, "target_modules": ["q_proj", "up_proj", "down_proj"]});
    model.attach(&sibo_peft::AdapterConfig::from_recipe("test", &adapter).unwrap(), 3).unwrap();
    let mut step = |rows: u64, length: u32| {
        let row = |i: u64| Row {
            ids: (0..length).map(|j| 3 + (i as u32 + j) % 40).collect(),
            types: vec![],
            sample: i,
        };
        let rows: Vec<Row> = (0..rows).map(row).collect();
        let ids = rows.iter().map(|r| r.ids.iter().map(|id| i64::from(*id)).collect()).collect();
        let batch = Batch::new(model.arch(), &rows).unwrap();
        model.forward_backward(&batch, &Labels::Tokens(ids), 1.0, None, 0);
        pool::touched_bytes()
    };
    let longest = step(97, 31);
    let others =
        [(97, 31), (200, 7), (50, 13), (1, 29), (97, 31), (96, 30)].map(|(rows, length)| step(rows, length));
    assert!(others.iter().all(|touched| *touched == longest), "{longest}, then {others:?}");
    assert!(
        longest <= pool::bound(pool::peak_bytes()),
        "{longest} touched for {} in use",
        pool::peak_bytes()
    );
}
