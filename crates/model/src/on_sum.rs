//! An adapter on a residual sum: s' = s + f(r~), with s = x + y the sum behind a sub-layer.
//!
//! adapter-hub calls it `original_ln_before`. In a post-norm layer r = norm(s), with the same norm that then reads s';
//! where no norm follows the sum, r = s.

use crate::layer::Context;
use crate::linear::Grads;
use crate::norm::Norm;
use sibo_kernels::{Rows, elementwise};
use sibo_peft::{Branch, BranchSaved, Params};

/// What the backward pass needs; r is computed again.
pub(crate) struct SumSaved {
    /// s (T, D)
    sum: Rows,
    /// Of the norm; empty where there is none.
    stats: Vec<f32>,
    branch: BranchSaved,
}

/// s becomes s' (T, D), where there is such an adapter.
pub(crate) fn forward(
    branch: Option<&Branch>,
    norm: Option<&Norm>,
    cx: &Context,
    params: &Params,
    sum: &mut Rows,
) -> Option<SumSaved> {
    let branch = branch?;
    let before = sum.copy();
    let (read, stats) = match norm.map(|norm| norm.forward(params, &before)) {
        Some((read, stats)) => (Some(read), stats),
        None => (None, vec![]),
    };
    let saved = branch.forward(&cx.call, params, read.as_ref().unwrap_or(&before), sum);
    Some(SumSaved { sum: before, stats, branch: saved })
}

/// f(s) (T, D) by itself, with s = x + y, where there is such an adapter and no norm: in a parallel block the FFN's output
/// joins the sum later, and not at all what the adapter reads.
pub(crate) fn apart(
    branch: Option<&Branch>,
    cx: &Context,
    params: &Params,
    x: &Rows,
    y: &Rows,
) -> Option<(Rows, SumSaved)> {
    let branch = branch?;
    let mut sum = y.copy();
    elementwise::add(x, &mut sum);
    let mut given = Rows::zeros(sum.rows(), sum.width());
    let saved = branch.forward(&cx.call, params, &sum, &mut given);
    Some((given, SumSaved { sum, stats: vec![], branch: saved }))
}

/// The gradient of s' (T, D) becomes that of s; the norm's own weights get their second share where they train.
pub(crate) fn backward(
    branch: Option<&Branch>,
    norm: Option<&Norm>,
    cx: &Context,
    grads: &mut Grads,
    saved: Option<&SumSaved>,
    d: Rows,
) -> Rows {
    let (Some(branch), Some(saved)) = (branch, saved) else { return d };
    let call = &cx.call;
    let mut ds = d.copy();
    match norm {
        None => {
            let dh0 = grads.dh0.as_deref_mut();
            branch.backward(call, grads.params, &saved.sum, &saved.branch, &d, Some(&mut ds), dh0);
        }
        Some(norm) => {
            let (read, _) = norm.forward(grads.params, &saved.sum);
            let mut dread = Rows::zeros(d.rows(), d.width());
            let dh0 = grads.dh0.as_deref_mut();
            branch.backward(call, grads.params, &read, &saved.branch, &d, Some(&mut dread), dh0);
            elementwise::add(&norm.backward(grads.params, &saved.sum, &saved.stats, &dread), &mut ds);
        }
    }
    ds
}
