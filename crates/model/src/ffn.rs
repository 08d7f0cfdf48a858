//! The feed-forward sub-layer: W_down (f(W_up x)) or W_down (f(W_gate x) * W_up x), and its adapters.

use crate::layer::Context;
use crate::linear::{Grads, Linear, LinearSaved, series_backward, series_forward};
use sibo_kernels::activation::{self, Activation, gated};
use sibo_kernels::{Rows, elementwise};
use sibo_peft::{Branch, BranchSaved, Params, Site};

/// The FFN's linears.
#[derive(Clone)]
pub(crate) struct Ffn {
    pub(crate) gate: Option<Linear>,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
    pub(crate) activation: Activation,
    /// In series after the sub-layer.
    pub(crate) adapter: Option<Branch>,
    /// Beside the sub-layer.
    pub(crate) parallel: Option<Branch>,
}

/// What the backward pass needs beside the sub-layer's input; f and the product are computed again.
pub(crate) struct FfnSaved {
    /// (T, F)
    gate: Option<(Rows, LinearSaved)>,
    /// (T, F); where [`Ffn::keeps_slope`] says so, f'(W_up x) in its place.
    up: Rows,
    up_saved: LinearSaved,
    down: LinearSaved,
    adapter: Option<(Rows, BranchSaved)>,
    parallel: Option<BranchSaved>,
}

impl Ffn {
    /// The sub-layer's output (T, D) from n (T, D).
    pub(crate) fn forward(&self, cx: &Context, params: &Params, n: &Rows) -> (Rows, FfnSaved) {
        let call = &cx.call;
        cx.show(Site::FfnUp, n);
        let (gate, (mut up, up_saved)) = match &self.gate {
            Some(gate) => {
                let [gate, up] = Linear::forward_all([gate, &self.up], call, params, n);
                (Some(gate), up)
            }
            None => (None, self.up.forward(call, params, n)),
        };
        let h = if cx.backward && self.keeps_slope() {
            let mut h = Rows::scratch(up.rows(), up.width());
            activation::forward_with_slope(self.activation, &mut up, &mut h);
            h
        } else {
            self.inner(gate.as_ref().map(|g| &g.0), &up)
        };
        let (mut y, down) = self.down.forward(call, params, &h);
        let parallel = self.parallel.as_ref().map(|branch| branch.forward(call, params, n, &mut y));
        cx.show(Site::Ffn, &y);
        let (y, adapter) = match &self.adapter {
            None => (y, None),
            Some(branch) => {
                let (z, saved) = series_forward(branch, call, params, &y);
                (z, Some((y, saved)))
            }
        };
        (y, FfnSaved { gate, up, up_saved, down, adapter, parallel })
    }

    /// dn (T, D) from df (T, D), where it is wanted. n may be absent where it is not read.
    pub(crate) fn backward(
        &self,
        cx: &Context,
        grads: &mut Grads,
        n: Option<&Rows>,
        saved: &FfnSaved,
        df: &Rows,
        wanted: bool,
    ) -> Option<Rows> {
        let call = &cx.call;
        let through_adapter = match (&self.adapter, &saved.adapter) {
            (Some(branch), Some((y, inner))) => Some(series_backward(branch, call, grads, y, inner, df)),
            _ => None,
        };
        let dy = through_adapter.as_ref().unwrap_or(df);
        let deeper = wanted || self.up.trains() || self.gate.as_ref().is_some_and(Linear::trains);
        let mut dh = deeper.then(|| Rows::scratch(df.rows(), self.down.inp));
        if deeper || self.down.trains() {
            let h = self.down.reads_input().then(|| self.inner(saved.gate.as_ref().map(|g| &g.0), &saved.up));
            self.down.backward(call, grads, h.as_ref(), &saved.down, dy, 0.0, dh.as_mut());
        }
        let mut dn = wanted.then(|| Rows::scratch(df.rows(), self.up.inp));
        if let Some(dh) = dh {
            self.backward_inner(cx, grads, n, saved, dh, dn.as_mut());
        }
        if let (Some(branch), Some(inner)) = (&self.parallel, &saved.parallel) {
            let n = n.expect("a branch beside the sub-layer reads its input");
            branch.backward(call, grads.params, n, inner, dy, dn.as_mut(), grads.dh0.as_deref_mut());
        }
        dn
    }

    fn backward_inner(
        &self,
        cx: &Context,
        grads: &mut Grads,
        n: Option<&Rows>,
        saved: &FfnSaved,
        mut dh: Rows,
        mut dn: Option<&mut Rows>,
    ) {
        let call = &cx.call;
        match (&self.gate, &saved.gate) {
            (Some(gate), Some((gate_out, gate_saved))) => {
                let mut dgate = Rows::scratch(dh.rows(), dh.width());
                let mut dup = Rows::scratch(dh.rows(), dh.width());
                gated::backward(self.activation, gate_out, &saved.up, &dh, &mut dgate, &mut dup);
                drop(dh);
                gate.backward(call, grads, n, gate_saved, &dgate, 0.0, dn.as_deref_mut());
                self.up.backward(call, grads, n, &saved.up_saved, &dup, 1.0, dn);
            }
            _ => {
                if self.keeps_slope() {
                    elementwise::multiply(&saved.up, &mut dh);
                } else {
                    activation::backward(self.activation, &saved.up, &mut dh);
                }
                self.up.backward(call, grads, n, &saved.up_saved, &dh, 0.0, dn);
            }
        }
    }

    /// Whether the slope of f is kept for the backward pass, which then needs neither W_up x nor f of it.
    fn keeps_slope(&self) -> bool {
        self.gate.is_none() && !self.down.reads_input()
    }

    /// Whether the backward pass reads n.
    pub(crate) fn reads_input(&self) -> bool {
        let gate = self.gate.as_ref().is_some_and(Linear::reads_input);
        gate || self.up.reads_input() || self.parallel.is_some()
    }

    fn inner(&self, gate: Option<&Rows>, up: &Rows) -> Rows {
        let mut h = Rows::scratch(up.rows(), up.width());
        match gate {
            Some(gate) => gated::forward(self.activation, gate, up, &mut h),
            None => activation::forward(self.activation, up, &mut h),
        }
        h
    }

    pub(crate) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.gate.as_mut().into_iter().chain([&mut self.up, &mut self.down])
    }

    pub(crate) fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.gate.as_ref().into_iter().chain([&self.up, &self.down])
    }

    pub(crate) fn trains(&self) -> bool {
        self.adapter.is_some() || self.parallel.is_some() || self.linears().any(Linear::trains)
    }
}
