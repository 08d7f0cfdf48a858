//! A run that was killed and goes on from its checkpoint computes the bits of the run that was not.

use serde_json::json;
use sibo_model::{Compute, Dropout, Model};
use sibo_tests::measure::{Input, bits_differ};
use sibo_tests::table::{Boost, Case};
use sibo_train::checkpoint::{self, State};
use sibo_train::optim::{Optimiser, clip};

const METHODS: [&str; 6] = ["lora-dropout", "lora-saved", "lora-embedding", "houlsby", "full", "bitfit"];
const BACKBONES: [&str; 4] = ["bert-bare", "roberta-regression", "llama-tied", "gptj"];

/// Steps `from..to` over two micro-batches each, with a new epoch's masks at every step.
fn steps(model: &mut Model, input: &Input, optimiser: &mut Optimiser, from: u64, to: u64) {
    for step in from..to {
        model.params_mut().zero_grads();
        let dropout = Some(Dropout { seed: 12, epoch: step, base: true });
        for part in [&[2, 0][..], &[1, 3]] {
            let part = input.select(part);
            let batch = part.batch(model);
            model.forward_backward(&batch, &part.labels, 0.1, dropout, step % 2 == 1);
        }
        clip(model.params_mut(), 0.7);
        optimiser.step(model.params_mut(), 0.01 / (1 + step) as f64);
    }
}

fn on<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads").install(work)
}

pub(super) fn resumed_is_uninterrupted(case: &Case) -> Option<Vec<String>> {
    let known = METHODS.contains(&case.method.name) && BACKBONES.contains(&case.backbone.name);
    if !known || case.boost == Boost::Mixed {
        return None;
    }
    let mut wrong = Vec::new();
    for compute in [Compute::F32, Compute::Bf16] {
        let mut whole = case.trained_in(compute);
        let mut killed = whole.clone();
        let input = Input::usual(&whole);
        let start = || Optimiser::adamw(0.9, 0.999, 1e-8, 0.05);
        let mut optimiser = start();
        on(2, || steps(&mut whole, &input, &mut optimiser, 0, 5));
        let place = tempfile::tempdir().expect("a temporary folder");
        let mut optimiser = start();
        on(1, || steps(&mut killed, &input, &mut optimiser, 0, 3));
        let state = State {
            identity: json!({}),
            step: 3,
            best: None,
            since_best: 0,
            evaluations: vec![],
            looks: vec![],
            losses: vec![0.1; 3],
            seconds: 0.2,
            isa: "any".into(),
        };
        let saved = checkpoint::save(place.path(), &killed, optimiser.state(), &state, 1);
        drop(killed);
        let saved = match saved {
            Ok(saved) => saved,
            Err(e) => return Some(vec![format!("saving: {e}")]),
        };
        // Another process: the model is loaded, the adapter attached, and all of it filled from the folder.
        let mut again = case.fresh_in(compute).expect("not refused");
        let mut optimiser = start();
        let memory = match saved.restore(&mut again) {
            Ok(memory) => memory,
            Err(e) => return Some(vec![format!("loading: {e}")]),
        };
        optimiser.restore(again.params(), memory).expect("the same parameters");
        on(1, || steps(&mut again, &input, &mut optimiser, 3, 5));
        for (a, b) in whole.params().iter().zip(again.params().iter()) {
            wrong.extend(bits_differ([(a.name.as_str(), &a.value[..], &b.value[..])]));
        }
    }
    Some(wrong)
}
