//! What stands on the layers: a causal head with its loss in chunks, or a classification head.

use crate::layer::{Context, DropSite};
use crate::linear::{Grads, Linear, LinearSaved};
use sibo_kernels::activation::{self, Activation};
use sibo_kernels::elementwise::{scatter_rows_add, select_rows};
use sibo_kernels::{Rows, loss};
use sibo_peft::{Call, DropRows, Params};

/// Rows of logits that exist at a time: enough for a fast product, few enough to stay small.
pub(crate) const CHUNK: usize = 256;

/// A classification head: an inner linear with tanh where it has one (BERT's pooler, RoBERTa's dense),
/// dropout, and the last linear.
#[derive(Clone)]
pub(crate) struct ClassHead {
    pub(crate) inner: Linear,
    pub(crate) last: Linear,
    /// RoBERTa drops the inner linear's input too.
    pub(crate) drop_input: bool,
}

/// What the head of a model is.
#[derive(Clone)]
pub(crate) enum Head {
    /// Hidden states only, with a pooler where the folder has one.
    None(Option<Linear>),
    /// Scores over the vocabulary.
    Causal(Linear),
    /// Scores over classes.
    Classes(Box<ClassHead>),
}

/// The summed loss and what stood in the scores, where they were asked for.
pub(crate) struct HeadLoss {
    /// Sum of the losses of all labelled rows (f64).
    pub(crate) sum: f64,
    /// d / d rows of the layers' output (T, D), where it was wanted.
    pub(crate) drows: Option<Rows>,
}

/// Sum of cross-entropies of `rows` (n, D), those `at` of a pass, against `targets`, in chunks so that no (n, V) matrix
/// exists; where it learns, also the gradients times `scale`.
pub(crate) fn causal_loss(
    head: &Linear,
    call: &Call,
    params: &mut Params,
    (rows, at): (&Rows, &[usize]),
    targets: &[u32],
    scale: f32,
    learn: bool,
) -> HeadLoss {
    let mut drows = learn.then(|| Rows::scratch(rows.rows(), rows.width()));
    let mut sum = 0.0;
    let picked = call.drop.map(|source| source.pick(at));
    for start in (0..rows.rows()).step_by(CHUNK) {
        let range = start..(start + CHUNK).min(rows.rows());
        let chunk = rows.slice_rows(range.clone());
        let call = &of_rows(call.h0, picked.as_ref(), range.clone());
        let (mut logits, saved) = head.forward(call, params, &chunk);
        sum += loss::cross_entropy(&mut logits, &targets[range.clone()], scale, learn);
        if let Some(drows) = &mut drows {
            let mut d = Rows::scratch(chunk.rows(), chunk.width());
            let mut grads = Grads { params, dh0: None };
            head.backward(call, &mut grads, Some(&chunk), &saved, &logits, 0.0, Some(&mut d));
            let width = rows.width();
            drows.data_mut()[range.start * width..range.end * width].copy_from_slice(d.data());
        }
    }
    HeadLoss { sum, drows }
}

/// Intermediate values of a classification head.
pub(crate) struct ClassSaved {
    input: Rows,
    inner: LinearSaved,
    /// Before tanh.
    pre: Rows,
    /// tanh, dropped.
    hidden: Rows,
    last: LinearSaved,
}

impl ClassHead {
    /// Scores (n, C) of the first token of each row; `first` (n, D) are the layers' outputs there.
    pub(crate) fn forward(
        &self,
        cx: &Context,
        params: &Params,
        first: Rows,
        at: &[usize],
    ) -> (Rows, ClassSaved) {
        let mut input = first;
        if self.drop_input {
            self.drop(cx, at, DropSite::HeadInput, &mut input);
        }
        let picked = cx.call.drop.map(|source| source.pick(at));
        let call = of_rows(cx.call.h0, picked.as_ref(), 0..at.len());
        let (pre, inner) = self.inner.forward(&call, params, &input);
        let mut hidden = tanh(&pre);
        self.drop(cx, at, DropSite::HeadInner, &mut hidden);
        let (scores, last) = self.last.forward(&call, params, &hidden);
        (scores, ClassSaved { input, inner, pre, hidden, last })
    }

    /// d / d first (n, D), where it is wanted.
    pub(crate) fn backward(
        &self,
        cx: &Context,
        grads: &mut Grads,
        saved: &ClassSaved,
        at: &[usize],
        dscores: &Rows,
        wanted: bool,
    ) -> Option<Rows> {
        let deeper = wanted || self.inner.trains();
        let mut d = deeper.then(|| Rows::scratch(at.len(), saved.hidden.width()));
        let picked = cx.call.drop.map(|source| source.pick(at));
        let call = of_rows(cx.call.h0, picked.as_ref(), 0..at.len());
        self.last.backward(&call, grads, Some(&saved.hidden), &saved.last, dscores, 0.0, d.as_mut());
        let mut d = d?;
        self.drop(cx, at, DropSite::HeadInner, &mut d);
        activation::backward(Activation::Tanh, &saved.pre, &mut d);
        let mut dfirst = wanted.then(|| Rows::scratch(at.len(), saved.input.width()));
        self.inner.backward(&call, grads, Some(&saved.input), &saved.inner, &d, 0.0, dfirst.as_mut());
        dfirst.map(|mut dfirst| {
            if self.drop_input {
                self.drop(cx, at, DropSite::HeadInput, &mut dfirst);
            }
            dfirst
        })
    }

    fn drop(&self, cx: &Context, at: &[usize], site: DropSite, x: &mut Rows) {
        if let Some(mask) = cx.mask(cx.dropout.classifier, 0, site) {
            mask.pick(at).apply(x);
        }
    }
}

/// The call of a head's module, which reads some rows of a pass; no probe looks at a head.
fn of_rows<'a>(h0: &'a Rows, picked: Option<&'a DropRows>, range: std::ops::Range<usize>) -> Call<'a> {
    Call { h0, drop: picked.map(|rows| rows.source(range)), seen: None }
}

/// tanh of every entry.
pub(crate) fn tanh(pre: &Rows) -> Rows {
    let mut y = Rows::scratch(pre.rows(), pre.width());
    activation::forward(Activation::Tanh, pre, &mut y);
    y
}

/// The rows at `at`.
pub(crate) fn pick(x: &Rows, at: &[usize]) -> Rows {
    select_rows(x, at)
}

/// (T, width) with `d` at the rows `at` and zero elsewhere.
pub(crate) fn spread(d: &Rows, at: &[usize], tokens: usize) -> Rows {
    let mut out = Rows::zeros(tokens, d.width());
    scatter_rows_add(d, at, &mut out);
    out
}
