//! What is saved is what is loaded.

use sibo_model::{Compute, LoadOptions, Model};
use sibo_peft::folder;
use sibo_tests::measure::{Input, bits_differ, gradients, names, scores};
use sibo_tests::table::{Boost, Case};

/// In both arithmetics.
pub(super) fn save_load(case: &Case) -> Vec<String> {
    let mut wrong = save_load_in(case, Compute::F32);
    if case.boost == Boost::Sibo || !case.method.takes_sibo {
        wrong.extend(save_load_in(case, Compute::Bf16));
    }
    wrong
}

/// Loaded with another seed and without being told of a head: whatever the folder does not hold shows.
fn save_load_in(case: &Case, compute: Compute) -> Vec<String> {
    let mut model = case.trained_in(compute);
    let place = tempfile::tempdir().expect("a temporary folder");
    let folder = place.path().join("adapter");
    let before = model.adapter().expect("an adapter").config.clone();
    if let Err(e) = folder::save(&before, model.params(), &folder, model.fingerprint(), "A test's adapter.\n")
    {
        return vec![format!("saving: {e}")];
    }
    let options = LoadOptions { seed: 991, classes: None, ..case.options(compute) };
    let mut loaded = match Model::load_with_adapter(&case.folder(), &folder, options) {
        Ok(loaded) => loaded.model,
        Err(e) => return vec![format!("loading: {e}")],
    };
    if names(&loaded) != names(&model) {
        return vec![format!("parameters {:?} instead of {:?}", names(&loaded), names(&model))];
    }
    let after = &loaded.adapter().expect("an adapter").config;
    let mut wrong = Vec::new();
    if before.to_json() != after.to_json() {
        wrong.push(format!("the configuration {} came back as {}", before.to_json(), after.to_json()));
    }
    let injected = |m: &Model| m.adapter().map(|a| (a.injected.clone(), a.plain.clone()));
    if injected(&model) != injected(&loaded) {
        wrong.push("SIBO enters other sites".into());
    }
    let input = Input::usual(&model);
    let (a, b) = (scores(&model, &input.batch(&model)), scores(&loaded, &input.batch(&loaded)));
    wrong.extend(bits_differ(a.iter().zip(&b).map(|(a, b)| ("scores", &a[..], &b[..]))));
    let (a, b) = (gradients(&mut model, &input, None, false), gradients(&mut loaded, &input, None, false));
    let names = names(&model);
    wrong.extend(bits_differ(
        names.iter().zip(a.1.iter().zip(&b.1)).map(|(n, (a, b))| (n.as_str(), &a[..], &b[..])),
    ));
    for (a, b) in model.params().iter().zip(loaded.params().iter()) {
        wrong.extend(bits_differ([(a.name.as_str(), &a.value[..], &b.value[..])]));
        if (&a.shape, a.decay) != (&b.shape, b.decay) {
            wrong.push(format!("{}: another shape or decay", a.name));
        }
    }
    wrong
}
