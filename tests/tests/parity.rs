//! Every stored case against PyTorch, transformers and PEFT (the versions are in each `case.json`).

use serde_json::Value;
use sibo_kernels::Rows;
use sibo_model::{BeamSettings, EarlyStopping, LoadOptions, beam_search, greedy, read_eos};
use sibo_tests::{Case, relative_error, tensors};
use sibo_train::trace::{self, Named, Steps};
use std::collections::BTreeMap;

/// f32 against f32, another order of summation: issue 1's bound.
const TOLERANCE: f32 = 1e-4;
/// Entries below this share of the largest of their kind are rounding noise.
const NOISE: f32 = 1e-3;

fn kind(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// One line for each tensor that is missing, unexpected or off.
fn differences(case: &str, got: &[Named], want: &BTreeMap<String, Vec<f32>>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut largest: BTreeMap<&str, f32> = BTreeMap::new();
    for (name, values) in want {
        let top = largest.entry(kind(name)).or_default();
        *top = values.iter().fold(*top, |m, v| m.max(v.abs()));
    }
    for (name, _, values) in got {
        match want.get(name) {
            None => lines.push(format!("{case}: unexpected {name}")),
            Some(w) if w.len() != values.len() => {
                lines.push(format!("{case}: {name} has {} entries, not {}", values.len(), w.len()))
            }
            Some(w) => {
                let error = relative_error(values, w, NOISE * largest[kind(name)]);
                if error > TOLERANCE {
                    lines.push(format!("{case}: {name} is off by {error:.2e}"));
                }
            }
        }
    }
    let names: Vec<&String> = got.iter().map(|t| &t.0).collect();
    lines.extend(want.keys().filter(|k| !names.contains(k)).map(|k| format!("{case}: missing {k}")));
    lines
}

fn run_trace(case: &Case, run: &Value) -> Vec<String> {
    let mut model = case.load(&LoadOptions::default()).model;
    let input =
        trace::read(&case.folder.join("ids.json"), &model).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let number = |v: &Value| v.as_f64().expect("a number");
    let got = match run["options"].get("optim") {
        Some(o) => {
            let steps = Steps {
                count: number(&o["optim_steps"]) as usize,
                lr: number(&o["lr"]),
                weight_decay: number(&o["weight_decay"]),
                warmup: number(&o["warmup_steps"]) as usize,
                max_grad_norm: number(&o["max_grad_norm"]),
            };
            trace::optimise(&mut model, &input, steps)
        }
        None => trace::forward(&mut model, &input, run["options"]["grads"] == Value::Bool(true)),
    };
    let got = got.unwrap_or_else(|e| panic!("{}: {e}", case.name));
    differences(&case.name, &got, &tensors(&case.folder.join(run["expected"].as_str().expect("a file"))))
}

fn run_generate(case: &Case, run: &Value) -> Vec<String> {
    let model = case.load(&LoadOptions::default()).model;
    let input =
        trace::read(&case.folder.join("ids.json"), &model).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let prompts: Vec<Vec<u32>> = input.rows.into_iter().map(|r| r.ids).collect();
    let eos = read_eos(&case.model()).expect("an end of sequence");
    let options = &run["options"];
    let max_new = options["max_new_tokens"].as_u64().expect("a number") as usize;
    let beams = options.get("num_beams").and_then(Value::as_u64).unwrap_or(1) as usize;
    let settings = BeamSettings {
        beams,
        max_new,
        length_penalty: 1.0,
        early_stopping: EarlyStopping::False,
        vocabulary: None,
    };
    let got = if beams == 1 {
        greedy(&model, &prompts, max_new, &eos)
    } else {
        beam_search(&model, &prompts, &eos, &settings)
    };
    let want =
        sibo_files::json::read(&case.folder.join(run["expected"].as_str().expect("a file"))).expect("JSON");
    let got = serde_json::json!(got.unwrap_or_else(|e| panic!("{}: {e}", case.name)));
    if got == want["sequences"] {
        vec![]
    } else {
        vec![format!("{}: beams {beams}: {got} is not {}", case.name, want["sequences"])]
    }
}

#[test]
fn stored_cases_match_hugging_face() {
    let mut lines = Vec::new();
    let mut runs = 0;
    for case in Case::all() {
        for run in case.spec["runs"].as_array().expect("runs") {
            runs += 1;
            lines.extend(match run["command"].as_str() {
                Some("trace") => run_trace(&case, run),
                Some("generate") => run_generate(&case, run),
                other => panic!("{}: no command {other:?}", case.name),
            });
        }
    }
    assert!(lines.is_empty(), "{} of {runs} runs' tensors differ:\n{}", lines.len(), lines.join("\n"));
    assert!(runs >= 142, "only {runs} runs are stored");
    // A comparison that cannot fail proves nothing.
    let rows = Rows::from_slice(&[1.0, 2.0], 2);
    let off = [("a".to_string(), vec![2], vec![1.0, 2.001])];
    assert_eq!(differences("x", &off, &BTreeMap::from([("a".into(), rows.data().to_vec())])).len(), 1);
}
