//! How training starts.

use sibo_kernels::Rows;
use sibo_tests::measure::{Input, far_apart, gradients, names, noise, scores};
use sibo_tests::relative_error;
use sibo_tests::table::{Boost, Case, disturb};

/// Whether the method adds to the model and leaves its own weights where they lie.
fn only_branches(case: &Case) -> bool {
    !matches!(case.method.name, "full" | "bitfit" | "head")
}

/// Equal numbers for branches, whose first output is zero; 1e-6 where base weights move into parameters,
/// which another product may multiply in another order.
pub(super) fn identity(case: &Case) -> Option<Vec<String>> {
    let mixed_skip =
        matches!(case.boost, Boost::Rms | Boost::Mixed) && case.method.name.starts_with("houlsby");
    if !case.method.starts_as_base || mixed_skip {
        return None;
    }
    let base = case.base();
    let mut fresh = case.fresh().expect("not refused");
    let input = Input::usual(&base);
    let want = scores(&base, &input.batch(&base));
    let got = scores(&fresh, &input.batch(&fresh));
    let tolerance = if only_branches(case) { 0.0 } else { 1e-6 };
    let mut wrong = far_apart(got.iter().zip(&want).map(|(a, b)| ("scores", &a[..], &b[..])), tolerance, 0.0);
    // The comparison can fail: the same adapter, disturbed, changes the scores.
    disturb(&mut fresh);
    if scores(&fresh, &input.batch(&fresh)) == want {
        wrong.push("the trained adapter changes nothing".into());
    }
    Some(wrong)
}

pub(super) fn first_gradients(case: &Case) -> Option<Vec<String>> {
    let mut model = case.fresh().expect("not refused");
    let input = Input::new(&model, &[6, 5, 9, 3], 40);
    let (_, grads) = gradients(&mut model, &input, None, false);
    let zero: Vec<bool> = model.params().iter().map(|p| p.zero_grad_at_start).collect();
    let lines = names(&model).into_iter().zip(&grads).zip(zero).filter_map(|((name, grad), zero)| {
        if grad.iter().any(|g| !g.is_finite()) {
            return Some(format!("{name}: a gradient is not finite"));
        }
        match grad.iter().all(|g| *g == 0.0) {
            all_zero if all_zero == zero => None,
            true => Some(format!("{name}: the gradient is zero everywhere")),
            false => Some(format!("{name}: the gradient should be zero before the first update")),
        }
    });
    Some(lines.collect())
}

/// Under full fine-tuning a tied head is the trained table, not the one it was loaded with.
#[test]
fn a_tied_head_follows_its_table() {
    for case in Case::all().into_iter().filter(|c| c.method.name == "full" && c.boost == Boost::Plain) {
        let model = case.trained();
        let arch = model.arch();
        if !arch.tied || !model.is_causal() {
            continue;
        }
        let table =
            model.params().find("base_model.model.model.embed_tokens.weight").expect("the table trains");
        assert!(model.params().find("base_model.model.lm_head.weight").is_none(), "{}", case.name());
        let hidden = Rows::from_vec(noise(2 * arch.width, 4), arch.width);
        let got = model.token_scores(&hidden);
        for t in 0..2 {
            let rows = model.params().value(table).chunks(arch.width);
            let want: Vec<f32> =
                rows.map(|w| w.iter().zip(hidden.row(t)).map(|(w, h)| w * h).sum()).collect();
            assert!(relative_error(got.row(t), &want, 0.0) < 1e-5, "{}", case.name());
        }
    }
}

/// transformers' Trainer decays neither biases nor the weights of norms; nor does a theta.
#[test]
fn what_decays() {
    let norms = ["norm.weight", "LayerNorm.weight", "layernorm.weight", "ln_1.weight", "ln_f.weight"];
    let boosts = [Boost::Plain, Boost::Learned];
    for case in Case::all().into_iter().filter(|c| boosts.contains(&c.boost) && c.refusal().is_none()) {
        let model = case.fresh().expect("not refused");
        for p in model.params().iter() {
            let spared = p.name.ends_with(".bias")
                || p.name.contains("sibo_theta")
                || norms.iter().any(|n| p.name.ends_with(n));
            assert_eq!(p.decay, !spared, "{}: {}", case.name(), p.name);
        }
    }
}
