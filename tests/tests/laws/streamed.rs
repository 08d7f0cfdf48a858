//! A base whose layers are read in their turn computes the bits of one that is in memory, and so does a layer that is
//! computed again.

use sibo_model::{Compute, Dropout, Model, Recompute};
use sibo_peft::AdapterConfig;
use sibo_tests::measure::{Input, bits_differ, gradients};
use sibo_tests::table::{Boost, Case, disturb};
use sibo_train::optim::{Optimiser, clip};

const METHODS: [&str; 5] = ["lora-dropout", "lora-saved", "houlsby", "full", "bitfit"];

/// The case's model, open, with its adapter; then all but `streamed` layers are read.
fn opened(case: &Case, compute: Compute, streamed: usize) -> Model {
    let mut model = Model::open(&case.folder(), &case.options(compute)).expect("a stored model").model;
    let recipe = case.recipe(model.arch().layers);
    let config = AdapterConfig::from_recipe("recipe", &recipe).expect("a recipe of the table");
    model.attach(&config, 23).expect("a case that is not refused");
    model.read_base(streamed).expect("a stored model");
    disturb(&mut model);
    model
}

fn steps(model: &mut Model, input: &Input, recompute: Recompute) -> Vec<(String, Vec<f32>)> {
    let mut optimiser = Optimiser::adamw(0.9, 0.999, 1e-8, 0.05);
    for step in 0..3 {
        model.params_mut().zero_grads();
        let dropout = Some(Dropout { seed: 12, epoch: step, base: true });
        for part in [&[2, 0][..], &[1, 3]] {
            let part = input.select(part);
            let batch = part.batch(model);
            model.forward_backward(&batch, &part.labels, 0.1, dropout, recompute);
        }
        clip(model.params_mut(), 0.7);
        optimiser.step(model.params_mut(), 0.01);
    }
    model.params().iter().map(|p| (p.name.clone(), p.value.clone())).collect()
}

pub(super) fn streamed_is_resident(case: &Case) -> Option<Vec<String>> {
    if !METHODS.contains(&case.method.name) || case.boost == Boost::Mixed {
        return None;
    }
    let mut wrong = Vec::new();
    for compute in [Compute::F32, Compute::Bf16] {
        let mut whole = case.trained_in(compute);
        let layers = whole.arch().layers;
        let input = Input::usual(&whole);
        let dropout = Some(Dropout { seed: 3, epoch: 1, base: true });
        let (loss, grads) = gradients(&mut whole, &input, dropout, false);
        let plain = whole.loss(&input.batch(&whole), &input.labels).loss_sum;
        let trained = steps(&mut whole, &input, Recompute::default());
        for (streamed, again) in [(layers, 0), (1, 1), (layers, layers)] {
            let mut model = opened(case, compute, streamed);
            let what = format!("{compute:?}, {streamed} streamed, {again} again");
            let all_train = case.method.name == "full";
            if (model.streamed() == 0) != (all_train || streamed == 0) {
                wrong.push(format!("{what}: {} layers are streamed", model.streamed()));
            }
            let (found, found_grads) = gradients(&mut model, &input, dropout, again);
            if found.to_bits() != loss.to_bits() {
                wrong.push(format!("{what}: loss {found} against {loss}"));
            }
            let pairs = found_grads.iter().zip(&grads).map(|(a, b)| ("gradient", &a[..], &b[..]));
            wrong.extend(bits_differ(pairs).into_iter().map(|line| format!("{what}: {line}")));
            let found = model.loss(&input.batch(&model), &input.labels).loss_sum;
            if found.to_bits() != plain.to_bits() {
                wrong.push(format!("{what}: loss without dropout {found} against {plain}"));
            }
            let found = steps(&mut model, &input, again.into());
            let pairs = found.iter().zip(&trained).map(|(a, b)| (a.0.as_str(), &a.1[..], &b.1[..]));
            wrong.extend(bits_differ(pairs).into_iter().map(|line| format!("{what}: {line}")));
            if let Err(error) = model.check_base() {
                wrong.push(format!("{what}: {error}"));
            }
        }
    }
    Some(wrong)
}
