//! A linear of the model and the branches joined to it: before, beside and after the frozen product.

use crate::weight::{Vector, Weight};
use sibo_kernels::frozen::forward_all;
use sibo_kernels::{Rows, elementwise};
use sibo_peft::{Branch, BranchSaved, Call, Params};

/// y = W (x + before(x~)) + b + beside(x~), then z = y + after(y~).
#[derive(Clone)]
pub(crate) struct Linear {
    pub(crate) path: String,
    pub(crate) inp: usize,
    pub(crate) out: usize,
    pub(crate) weight: Weight,
    pub(crate) bias: Option<Vector>,
    pub(crate) before: Option<Branch>,
    pub(crate) beside: Option<Branch>,
    pub(crate) after: Option<Branch>,
}

/// What the backward pass needs beside x.
#[derive(Default)]
pub(crate) struct LinearSaved {
    /// x + before(x~) (T, K), only with such a branch and a weight or branch that reads it.
    input: Option<Rows>,
    before: Option<BranchSaved>,
    beside: Option<BranchSaved>,
    /// y (T, N), only with a branch after.
    after: Option<(Rows, BranchSaved)>,
}

/// Where gradients go while the pass walks down: parameters, and h0 if anything below it trains.
pub(crate) struct Grads<'a> {
    pub(crate) params: &'a mut Params,
    pub(crate) dh0: Option<&'a mut Rows>,
}

impl Linear {
    pub(crate) fn new(path: String, inp: usize, out: usize, weight: Weight, bias: Option<Vector>) -> Self {
        Linear { path, inp, out, weight, bias, before: None, beside: None, after: None }
    }

    /// y (T, N) from x (T, K).
    pub(crate) fn forward(&self, call: &Call, params: &Params, x: &Rows) -> (Rows, LinearSaved) {
        let mut saved = LinearSaved::default();
        if let Some(branch) = &self.before {
            let mut input = x.copy();
            saved.before = Some(branch.forward(call, params, x, &mut input));
            saved.input = Some(input);
        }
        let mut y = Rows::scratch(x.rows(), self.out);
        self.weight.forward(params, saved.input.as_ref().unwrap_or(x), &mut y);
        self.finish(call, params, x, y, saved)
    }

    /// The same for several linears that read the same x: their frozen products are made together.
    pub(crate) fn forward_all<const N: usize>(
        linears: [&Linear; N],
        call: &Call,
        params: &Params,
        x: &Rows,
    ) -> [(Rows, LinearSaved); N] {
        let frozen = linears.map(|l| l.weight.frozen().filter(|_| l.before.is_none()));
        if frozen.iter().any(Option::is_none) {
            return linears.map(|l| l.forward(call, params, x));
        }
        let mut y = linears.map(|l| Rows::scratch(x.rows(), l.out));
        let mut of: Vec<_> = frozen.into_iter().flatten().zip(&mut y).collect();
        forward_all(x, 0.0, &mut of);
        let mut y = y.into_iter();
        linears.map(|l| {
            let y = y.next().expect("one for each linear");
            l.finish(call, params, x, y, LinearSaved::default())
        })
    }

    /// z (T, N) from y = W (x + before(x~)).
    fn finish(
        &self,
        call: &Call,
        params: &Params,
        x: &Rows,
        mut y: Rows,
        mut saved: LinearSaved,
    ) -> (Rows, LinearSaved) {
        if let Some(bias) = &self.bias {
            elementwise::add_bias(bias.values(params), &mut y);
        }
        if let Some(branch) = &self.beside {
            saved.beside = Some(branch.forward(call, params, x, &mut y));
        }
        if let Some(branch) = &self.after {
            let (z, branch_saved) = series_forward(branch, call, params, &y);
            saved.after = Some((y, branch_saved));
            return (z, saved);
        }
        (y, saved)
    }

    /// dx (T, K) = beta dx + ..., where it is wanted; gradients of all that trains here. x may be absent where
    /// [`Linear::reads_input`] says that it is not read.
    pub(crate) fn backward(
        &self,
        call: &Call,
        grads: &mut Grads,
        x: Option<&Rows>,
        saved: &LinearSaved,
        dz: &Rows,
        beta: f32,
        mut dx: Option<&mut Rows>,
    ) {
        let through_after = match (&self.after, &saved.after) {
            (Some(branch), Some((y, inner))) => Some(series_backward(branch, call, grads, y, inner, dz)),
            _ => None,
        };
        let dy = through_after.as_ref().unwrap_or(dz);
        if let Some(id) = self.bias.as_ref().and_then(Vector::trained) {
            elementwise::bias_grad(dy, grads.params.grad_mut(id));
        }
        let input = || x.expect("whoever leaves the input out asked whether it is read");
        if self.weight.trains() {
            self.weight.gradient(grads.params, dy, saved.input.as_ref().unwrap_or_else(input));
        }
        if let (Some(branch), Some(inner)) = (&self.before, &saved.before) {
            // The branch feeds the frozen product, so its gradient is dy W.
            let mut dinput = Rows::scratch(dy.rows(), self.inp);
            self.weight.backward(grads.params, dy, 0.0, &mut dinput);
            if let Some(dx) = dx.as_deref_mut() {
                if beta == 0.0 {
                    elementwise::fill(0.0, dx);
                }
                elementwise::add(&dinput, dx);
            }
            branch.backward(
                call,
                grads.params,
                input(),
                inner,
                &dinput,
                dx.as_deref_mut(),
                grads.dh0.as_deref_mut(),
            );
        } else if let Some(dx) = dx.as_deref_mut() {
            self.weight.backward(grads.params, dy, beta, dx);
        }
        if let (Some(branch), Some(inner)) = (&self.beside, &saved.beside) {
            branch.backward(call, grads.params, input(), inner, dy, dx, grads.dh0.as_deref_mut());
        }
    }

    /// Whether the backward pass reads x: for a gradient of the weight, or by a branch.
    pub(crate) fn reads_input(&self) -> bool {
        self.before.is_some() || self.beside.is_some() || self.weight.trains()
    }

    /// Numbers that the branches keep for each row.
    pub(crate) fn kept_per_row(&self) -> usize {
        let before = self.before.as_ref().map_or(0, |b| b.kept_per_row() + self.inp);
        let after = self.after.as_ref().map_or(0, |b| b.kept_per_row() + self.out);
        before + after + self.beside.as_ref().map_or(0, Branch::kept_per_row)
    }

    /// Whether anything here has a gradient.
    pub(crate) fn trains(&self) -> bool {
        let branch = self.before.is_some() || self.beside.is_some() || self.after.is_some();
        branch || self.weight.trains() || self.bias.as_ref().is_some_and(|b| b.trained().is_some())
    }
}

/// z = skip(y) + f(y~), skip(y) being y or y~.
pub(crate) fn series_forward(branch: &Branch, call: &Call, params: &Params, y: &Rows) -> (Rows, BranchSaved) {
    let skip = if branch.mixed_skip { branch.mixed(call, params, y) } else { None };
    let mut z = skip.unwrap_or_else(|| y.copy());
    let saved = branch.forward(call, params, y, &mut z);
    (z, saved)
}

/// dy from dz.
pub(crate) fn series_backward(
    branch: &Branch,
    call: &Call,
    grads: &mut Grads,
    y: &Rows,
    saved: &BranchSaved,
    dz: &Rows,
) -> Rows {
    let mut dy = if branch.mixed_skip {
        let mut dy = Rows::zeros(y.rows(), y.width());
        branch.unmix(call, grads.params, y, dz, Some(&mut dy), grads.dh0.as_deref_mut());
        dy
    } else {
        dz.copy()
    };
    branch.backward(call, grads.params, y, saved, dz, Some(&mut dy), grads.dh0.as_deref_mut());
    dy
}
