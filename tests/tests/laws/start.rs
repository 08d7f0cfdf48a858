//! How training starts.

use sibo_tests::measure::{Input, far_apart, gradients, names, scores};
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
