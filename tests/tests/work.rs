//! Small fixed pieces of work through the counters, against the committed table `tests/data/work.tsv`: operations,
//! bytes of weights and of kept keys and values that products read, and bytes of rows that were taken from the pool. A
//! product, a pass over a weight or a copy more than before is red here, on any machine and however busy it is; less is
//! red too, so that the table stays true. f32 counts alike everywhere, bf16 by what multiplies it. CONTRIBUTING.md has
//! the command that writes it again, on purpose.
//!
//! One test in a binary of its own, because the counters are the process's.

use serde_json::{Value, json};
use sibo_kernels::isa::{Isa, with_isa};
use sibo_kernels::{pool, work};
use sibo_model::{Compute, LoadOptions, Model, greedy};
use sibo_peft::AdapterConfig;
use sibo_tests::data;
use sibo_tests::measure::Input;
use sibo_tests::table::disturb;
use sibo_train::evaluate::shared::{Tree, score};
use sibo_train::optim::Optimiser;
use std::collections::{BTreeMap, BTreeSet};

/// Set to anything, it writes the table.
const WRITE: &str = "SIBO_WRITE_WORK";
const HEAD: &str = "work\tnumbers\tf32 operations\tbf16 operations\tbytes read\tbytes taken from the pool";
/// More than 32 tokens in all, where branches change from f32 to rounded products, and a row of one token.
const LENGTHS: [usize; 4] = [29, 1, 13, 9];

/// A model with an adapter that has learned something.
fn model(name: &str, adapter: &Value, compute: Compute) -> Model {
    let options = LoadOptions { compute, ..LoadOptions::default() };
    let mut model = Model::load(&data().join("models").join(name), &options).expect("a stored model").model;
    let config = AdapterConfig::from_recipe("recipe", adapter).expect("a valid adapter");
    model.attach(&config, 3).expect("the adapter fits");
    disturb(&mut model);
    model
}

/// Forward, backward and an update.
fn step(model: &mut Model, recompute: bool) {
    let input = Input::new(model, &LENGTHS, 40);
    let batch = input.batch(model);
    model.params_mut().zero_grads();
    model.forward_backward(&batch, &input.labels, 1.0, None, recompute);
    Optimiser::adamw(0.9, 0.999, 1e-8, 0.01).step(model.params_mut(), 1e-3);
}

/// Two questions with choices of one token and of several.
fn scored(model: &mut Model) {
    let words = |from: u32, count: u32| -> Vec<u32> { (from..from + count).collect() };
    let tree = |from: u32| Tree {
        context: words(from, 17),
        continuations: vec![words(from, 1), words(from + 4, 5), words(from + 9, 2)],
    };
    let sums = score(model, &[tree(3), tree(8)]).expect("rows that fit");
    assert_eq!(sums.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
}

/// Six tokens behind each of two prompts.
fn generated(model: &mut Model) {
    let new = greedy(model, &[vec![5, 9, 12, 7], vec![3, 8]], 6, &[]).expect("rows that fit");
    assert_eq!(new.iter().map(Vec::len).collect::<Vec<_>>(), [6, 6]);
}

type Task = (&'static str, fn(&mut Model));

/// The word for numbers that are counted alike: f32 everywhere, bf16 by what multiplies it.
fn class(compute: Compute, isa: Isa) -> &'static str {
    match (compute, isa) {
        (Compute::F32, _) => "f32",
        (Compute::Bf16, Isa::Amx) => "bf16 in tiles",
        (Compute::Bf16, Isa::Avx512Bf16) => "bf16 in pairs",
        (Compute::Bf16, Isa::Avx512Fp16) => "bf16 in f16",
        (Compute::Bf16, _) => "bf16 as f32",
    }
}

/// The counters of a task.
fn count(name: &str, adapter: &Value, compute: Compute, task: fn(&mut Model)) -> String {
    let mut model = model(name, adapter, compute);
    let (before, taken) = (work::done(), pool::taken_bytes());
    task(&mut model);
    let (done, taken) = (work::done().since(before), pool::taken_bytes() - taken);
    format!("{}\t{}\t{}\t{taken}", done.f32_flop, done.bf16_flop, done.bytes)
}

/// Work and class, and the counters.
type Lines = BTreeMap<(String, String), String>;

/// Every line that this instruction set gives.
fn lines(isa: Isa) -> Lines {
    let lora =
        |targets: &[&str]| json!({"method": "lora", "r": 3, "lora_alpha": 7, "target_modules": targets});
    let bottleneck = json!({"method": "houlsby", "bottleneck_size": 5});
    let train: Task = ("a step", |m| step(m, false));
    let again: Task = ("a step, layers computed again", |m| step(m, true));
    let rest: [Task; 2] = [("choices scored", scored), ("tokens generated", generated)];
    let cases: [(&str, &str, Value, Vec<Task>); 4] = [
        (
            "llama-gqa",
            "lora",
            lora(&["q_proj", "v_proj", "up_proj", "down_proj"]),
            [&[train, again], &rest[..]].concat(),
        ),
        ("llama-gqa", "houlsby", bottleneck.clone(), [&[train], &rest[..]].concat()),
        ("bert-classifier", "lora", lora(&["query", "value"]), vec![train, again]),
        ("bert-classifier", "houlsby", bottleneck, vec![train]),
    ];
    let mut lines = Lines::new();
    for (name, method, adapter, tasks) in cases {
        for sibo in [false, true] {
            let mut adapter = adapter.clone();
            if sibo {
                adapter["sibo"] = json!({"lambda": 0.3});
            }
            let word = if sibo { ", SIBO" } else { "" };
            for (what, task) in &tasks {
                for compute in [Compute::F32, Compute::Bf16] {
                    let counted = with_isa(isa, || count(name, &adapter, compute, *task));
                    let work = format!("{name}, {method}{word}: {what}");
                    lines.insert((work, class(compute, isa).into()), counted);
                }
            }
        }
    }
    lines
}

fn table(text: &str) -> Lines {
    let line = |line: &str| {
        let mut cells = line.splitn(3, '\t').map(String::from);
        Some(((cells.next()?, cells.next()?), cells.next()?))
    };
    text.lines().skip(1).filter_map(line).collect()
}

#[test]
fn the_counted_work_is_that_of_the_table() {
    let path = data().join("work.tsv");
    let read = || std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let counted: Vec<(Isa, Lines)> = Isa::available().into_iter().map(|isa| (isa, lines(isa))).collect();
    if std::env::var_os(WRITE).is_some() {
        // Classes that this machine cannot count keep their lines.
        let mut all = table(&read());
        counted.iter().for_each(|(_, lines)| all.extend(lines.clone()));
        let rows: Vec<String> =
            all.iter().map(|((work, class), counts)| format!("{work}\t{class}\t{counts}\n")).collect();
        std::fs::write(&path, format!("{HEAD}\n{}", rows.concat())).expect("the repository can be written");
    }
    let table = table(&read());
    let mut wrong = vec![];
    for (isa, lines) in &counted {
        for (key, now) in lines {
            match table.get(key) {
                Some(then) if then == now => {}
                then => wrong.push(format!("{isa}, {}, {}\n  now    {now}\n  table  {then:?}", key.0, key.1)),
            }
        }
    }
    let works: BTreeSet<&String> = table.keys().map(|(work, _)| work).collect();
    let kept: BTreeSet<&String> =
        counted.iter().flat_map(|(_, lines)| lines.keys()).map(|(work, _)| work).collect();
    assert_eq!(works, kept, "left: the works of the table");
    assert!(
        wrong.is_empty(),
        "the work is not that of tests/data/work.tsv ({HEAD}). If that is meant, set {WRITE}=1 once:\n{}",
        wrong.join("\n")
    );
}
