//! The attention sub-layer: projections, rotary positions, attention over each row, output projection,
//! and the adapter after it.

use crate::cache::KvLayer;
use crate::layer::{Context, DropSite};
use crate::linear::{Grads, Linear, LinearSaved, series_backward, series_forward};
use sibo_kernels::attention;
use sibo_kernels::{Rows, elementwise, rope};
use sibo_peft::{Branch, BranchSaved, Params, Site};

/// Query, key, value and output projections.
#[derive(Clone)]
pub(crate) struct Attention {
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    pub(crate) output: Linear,
    pub(crate) adapter: Option<Branch>,
    pub(crate) layer: usize,
}

/// What the backward pass needs beside the sub-layer's input.
pub(crate) struct AttentionSaved {
    /// (T, H C) after rotation.
    q: Rows,
    /// (T, G C) after rotation.
    k: Rows,
    v: Rows,
    /// (T, H C)
    o: Rows,
    /// (T, H)
    lse: Vec<f32>,
    linears: [LinearSaved; 4],
    /// y (T, D) before the adapter.
    adapter: Option<(Rows, BranchSaved)>,
}

impl Attention {
    /// The sub-layer's output (T, D) from n (T, D). With a cache, the batch holds new tokens only and
    /// nothing is kept for a backward pass.
    pub(crate) fn forward(
        &self,
        cx: &Context,
        params: &Params,
        n: &Rows,
        cache: Option<&mut KvLayer>,
    ) -> (Rows, Option<AttentionSaved>) {
        let call = &cx.call;
        cx.show(Site::Query, n);
        let [(mut q, query), (mut k, key), (v, value)] =
            Linear::forward_all([&self.query, &self.key, &self.value], call, params, n);
        cx.rotate(&mut q, cx.arch.heads, false);
        cx.rotate(&mut k, cx.arch.kv_heads, false);
        let mut o = Rows::scratch(n.rows(), q.width());
        let shape = cx.arch.attention();
        if let Some(cache) = cache {
            let fresh = cache.is_empty();
            cache.extend(&shape, &cx.batch.seqs, &k, &v);
            if fresh {
                let mut lse = vec![0.0; n.rows() * cx.arch.heads];
                attention::forward(&shape, &cx.batch.seqs, &q, &k, &v, None, &mut o, &mut lse);
            } else {
                attention::cached(&shape, &cache.sequences(&cx.batch.seqs), &q, &mut o);
            }
            let (y, _) = self.output.forward(call, params, &o);
            return (self.adapter.as_ref().map(|b| series_forward(b, call, params, &y).0).unwrap_or(y), None);
        }
        let mut lse = vec![0.0; n.rows() * cx.arch.heads];
        let drop = cx.mask(cx.dropout.attention, self.layer, DropSite::Probabilities);
        attention::forward(&shape, &cx.batch.seqs, &q, &k, &v, drop.as_ref(), &mut o, &mut lse);
        cx.show(Site::AttnOut, &o);
        let (y, output) = self.output.forward(call, params, &o);
        cx.show(Site::Attention, &y);
        let (y, adapter) = match &self.adapter {
            None => (y, None),
            Some(branch) => {
                let (z, saved) = series_forward(branch, call, params, &y);
                (z, Some((y, saved)))
            }
        };
        (y, Some(AttentionSaved { q, k, v, o, lse, linears: [query, key, value, output], adapter }))
    }

    /// dn (T, D) from da (T, D), where it is wanted. n may be absent where it is not read.
    pub(crate) fn backward(
        &self,
        cx: &Context,
        grads: &mut Grads,
        n: Option<&Rows>,
        saved: &AttentionSaved,
        da: &Rows,
        wanted: bool,
    ) -> Option<Rows> {
        let call = &cx.call;
        let through_adapter = match (&self.adapter, &saved.adapter) {
            (Some(branch), Some((y, inner))) => Some(series_backward(branch, call, grads, y, inner, da)),
            _ => None,
        };
        let dy = through_adapter.as_ref().unwrap_or(da);
        let [query, key, value, output] = &saved.linears;
        let deeper = wanted || self.query.trains() || self.key.trains() || self.value.trains();
        let mut do_ = deeper.then(|| Rows::scratch(da.rows(), saved.o.width()));
        self.output.backward(call, grads, Some(&saved.o), output, dy, 0.0, do_.as_mut());
        let do_ = do_?;
        let mut dq = Rows::scratch(da.rows(), saved.q.width());
        let mut dk = Rows::scratch(da.rows(), saved.k.width());
        let mut dv = Rows::scratch(da.rows(), saved.v.width());
        let drop = cx.mask(cx.dropout.attention, self.layer, DropSite::Probabilities);
        attention::backward(
            &cx.arch.attention(),
            &cx.batch.seqs,
            &saved.q,
            &saved.k,
            &saved.v,
            &saved.o,
            &saved.lse,
            &do_,
            drop.as_ref(),
            &mut dq,
            &mut dk,
            &mut dv,
        );
        cx.rotate(&mut dq, cx.arch.heads, true);
        cx.rotate(&mut dk, cx.arch.kv_heads, true);
        let mut dn = wanted.then(|| Rows::scratch(da.rows(), self.query.inp));
        self.query.backward(call, grads, n, query, &dq, 0.0, dn.as_mut());
        self.key.backward(call, grads, n, key, &dk, 1.0, dn.as_mut());
        self.value.backward(call, grads, n, value, &dv, 1.0, dn.as_mut());
        dn
    }

    pub(crate) fn linears_mut(&mut self) -> [&mut Linear; 4] {
        [&mut self.query, &mut self.key, &mut self.value, &mut self.output]
    }

    pub(crate) fn linears(&self) -> [&Linear; 4] {
        [&self.query, &self.key, &self.value, &self.output]
    }

    /// Whether the backward pass reads n.
    pub(crate) fn reads_input(&self) -> bool {
        [&self.query, &self.key, &self.value].iter().any(|l| l.reads_input())
    }

    pub(crate) fn trains(&self) -> bool {
        self.adapter.is_some() || self.linears().iter().any(|l| l.trains())
    }
}

/// Rotates rows of one table, or each long row by frequencies of its own (`dynamic` scaling).
pub(crate) fn rotate(cx: &Context, x: &mut Rows, heads: usize, back: bool) {
    let Some(tables) = cx.rope else { return };
    let spec = tables.spec;
    let turn = if back { rope::apply_backward } else { rope::apply };
    if tables.own.is_empty() {
        turn(spec.style, &tables.shared, &cx.batch.positions, x, heads, spec.rotary_dim);
        return;
    }
    for (row, seq) in cx.batch.seqs.iter().enumerate() {
        let range = seq.start..seq.start + seq.len;
        let mut part = x.slice_rows(range.clone());
        let table = tables.own.get(&row).unwrap_or(&tables.shared);
        turn(spec.style, table, &cx.batch.positions[range.clone()], &mut part, heads, spec.rotary_dim);
        let width = x.width();
        x.data_mut()[range.start * width..range.end * width].copy_from_slice(part.data());
    }
}

/// a += b, for readers who want a name for the residual sum.
pub(crate) fn residual(x: &Rows, y: &mut Rows) {
    elementwise::add(x, y);
}
