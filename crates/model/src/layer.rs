//! One transformer layer for all backbones: the wiring is a value of [`Block`].

use crate::arch::{Arch, BaseDropout, Block};
use crate::attention::{Attention, AttentionSaved, residual};
use crate::batch::Batch;
use crate::cache::KvLayer;
use crate::ffn::{Ffn, FfnSaved};
use crate::linear::Grads;
use crate::norm::Norm;
use crate::on_sum::{self, SumSaved};
use crate::rope::RopeSpec;
use sibo_kernels::drop::Mask;
use sibo_kernels::rope::RopeTable;
use sibo_kernels::{Rows, elementwise};
use sibo_peft::{Branch, Call, Params, Site};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// Rotations of a batch: one table, and those of rows that `dynamic` scaling gives their own.
pub(crate) struct RopeTables {
    pub(crate) spec: RopeSpec,
    pub(crate) shared: Arc<RopeTable>,
    pub(crate) own: HashMap<usize, RopeTable>,
}

/// What every layer sees of a call.
pub(crate) struct Context<'a> {
    pub(crate) arch: &'a Arch,
    pub(crate) batch: &'a Batch,
    pub(crate) rope: Option<&'a RopeTables>,
    pub(crate) call: Call<'a>,
    /// The base model's own dropout, zero unless it is on.
    pub(crate) dropout: BaseDropout,
    /// A backward pass follows.
    pub(crate) backward: bool,
    /// Sees what the sites of a layer read; only probes ask for it.
    pub(crate) tap: Option<&'a Tap<'a>>,
}

/// What is called with the rows that a branch at a site reads, or would read.
type Visit<'a> = &'a mut dyn FnMut(Site, &Rows);

/// A visitor that a shared context can carry.
pub(crate) struct Tap<'a>(RefCell<Visit<'a>>);

impl<'a> Tap<'a> {
    pub(crate) fn new(visit: Visit<'a>) -> Self {
        Tap(RefCell::new(visit))
    }
}

/// Addresses of the base model's own masks; part of the meaning of a seed, so never renumbered.
#[derive(Clone, Copy)]
pub(crate) enum DropSite {
    Embedding = 101,
    Attention = 102,
    Ffn = 103,
    Probabilities = 104,
    HeadInput = 105,
    HeadInner = 106,
}

impl Context<'_> {
    /// Shows the tap, where there is one, what `site` reads.
    pub(crate) fn show(&self, site: Site, rows: &Rows) {
        if let Some(tap) = self.tap {
            (tap.0.borrow_mut())(site, rows);
        }
    }

    pub(crate) fn rotate(&self, x: &mut Rows, heads: usize, back: bool) {
        crate::attention::rotate(self, x, heads, back);
    }

    /// The base model's own mask of `site`, where dropout is on.
    pub(crate) fn mask(&self, p: f32, layer: usize, site: DropSite) -> Option<Mask> {
        self.call.mask(p, layer, site as u64)
    }

    /// The base model's dropout on `x`; forward and backward are the same call.
    pub(crate) fn drop_rows(&self, p: f32, layer: usize, site: DropSite, x: &mut Rows) {
        if let Some(mask) = self.mask(p, layer, site) {
            mask.apply(x);
        }
    }
}

/// Norms, attention and FFN.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) number: usize,
    pub(crate) block: Block,
    pub(crate) attention: Attention,
    pub(crate) ffn: Ffn,
    pub(crate) norm1: Norm,
    /// Absent in parallel blocks.
    pub(crate) norm2: Option<Norm>,
    /// On the residual sum behind attention.
    pub(crate) on_attention: Option<Branch>,
    /// On the residual sum behind the FFN.
    pub(crate) on_ffn: Option<Branch>,
}

/// What one layer keeps for the backward pass; what is cheap (norms, activations) is computed again.
pub(crate) struct LayerSaved {
    attention: AttentionSaved,
    ffn: FfnSaved,
    /// Input of the first norm where it is not the layer's input: x + attention (post-norm).
    sum1: Option<Rows>,
    stats1: Vec<f32>,
    /// Input of the second norm.
    sum2: Option<Rows>,
    stats2: Vec<f32>,
    on_attention: Option<SumSaved>,
    on_ffn: Option<SumSaved>,
}

impl Layer {
    /// The layer's output (T, D) and what its backward pass needs.
    pub(crate) fn forward(
        &self,
        cx: &Context,
        params: &Params,
        x: &Rows,
        cache: Option<&mut KvLayer>,
    ) -> (Rows, Option<LayerSaved>) {
        match self.block {
            Block::PostNorm => self.post_norm(cx, params, x, cache),
            Block::PreNorm => self.pre_norm(cx, params, x, cache),
            Block::Parallel => self.parallel(cx, params, x, cache),
        }
    }

    fn post_norm(
        &self,
        cx: &Context,
        params: &Params,
        x: &Rows,
        cache: Option<&mut KvLayer>,
    ) -> (Rows, Option<LayerSaved>) {
        let (mut sum1, attention) = self.attention.forward(cx, params, x, cache);
        cx.drop_rows(cx.dropout.hidden, self.number, DropSite::Attention, &mut sum1);
        residual(x, &mut sum1);
        let on_attention =
            on_sum::forward(self.on_attention.as_ref(), Some(&self.norm1), cx, params, &mut sum1);
        let (x1, stats1) = self.norm1.forward(params, &sum1);
        let (mut sum2, ffn) = self.ffn.forward(cx, params, &x1);
        cx.drop_rows(cx.dropout.hidden, self.number, DropSite::Ffn, &mut sum2);
        residual(&x1, &mut sum2);
        let on_ffn = on_sum::forward(self.on_ffn.as_ref(), self.norm2.as_ref(), cx, params, &mut sum2);
        let (out, stats2) = self.second_norm().forward(params, &sum2);
        let saved = attention.map(|attention| LayerSaved {
            attention,
            ffn,
            sum1: Some(sum1),
            stats1,
            sum2: Some(sum2),
            stats2,
            on_attention,
            on_ffn,
        });
        (out, saved)
    }

    fn pre_norm(
        &self,
        cx: &Context,
        params: &Params,
        x: &Rows,
        cache: Option<&mut KvLayer>,
    ) -> (Rows, Option<LayerSaved>) {
        let (n1, stats1) = self.norm1.forward(params, x);
        let (mut x1, attention) = self.attention.forward(cx, params, &n1, cache);
        drop(n1);
        cx.drop_rows(cx.dropout.hidden, self.number, DropSite::Attention, &mut x1);
        residual(x, &mut x1);
        let on_attention = on_sum::forward(self.on_attention.as_ref(), None, cx, params, &mut x1);
        let (n2, stats2) = self.second_norm().forward(params, &x1);
        let (mut out, ffn) = self.ffn.forward(cx, params, &n2);
        drop(n2);
        cx.drop_rows(cx.dropout.hidden, self.number, DropSite::Ffn, &mut out);
        residual(&x1, &mut out);
        let on_ffn = on_sum::forward(self.on_ffn.as_ref(), None, cx, params, &mut out);
        let saved = attention.map(|attention| LayerSaved {
            attention,
            ffn,
            sum1: None,
            stats1,
            sum2: Some(x1),
            stats2,
            on_attention,
            on_ffn,
        });
        (out, saved)
    }

    fn parallel(
        &self,
        cx: &Context,
        params: &Params,
        x: &Rows,
        cache: Option<&mut KvLayer>,
    ) -> (Rows, Option<LayerSaved>) {
        let (n1, stats1) = self.norm1.forward(params, x);
        let (mut out, attention) = self.attention.forward(cx, params, &n1, cache);
        cx.drop_rows(cx.dropout.hidden, self.number, DropSite::Attention, &mut out);
        let (mut f, ffn) = self.ffn.forward(cx, params, &n1);
        cx.drop_rows(cx.dropout.hidden, self.number, DropSite::Ffn, &mut f);
        let (given, on_attention) = on_sum::apart(self.on_attention.as_ref(), cx, params, x, &out).unzip();
        residual(&f, &mut out);
        residual(x, &mut out);
        if let Some(given) = given {
            residual(&given, &mut out);
        }
        let on_ffn = on_sum::forward(self.on_ffn.as_ref(), None, cx, params, &mut out);
        let saved = attention.map(|attention| LayerSaved {
            attention,
            ffn,
            sum1: None,
            stats1,
            sum2: None,
            stats2: vec![],
            on_attention,
            on_ffn,
        });
        (out, saved)
    }

    /// dx (T, D) from dout, where it is wanted. `x` is the layer's input.
    pub(crate) fn backward(
        &self,
        cx: &Context,
        grads: &mut Grads,
        x: &Rows,
        saved: &LayerSaved,
        dout: Rows,
        wanted: bool,
    ) -> Option<Rows> {
        match self.block {
            Block::PostNorm => self.post_norm_backward(cx, grads, x, saved, dout, wanted),
            Block::PreNorm => self.pre_norm_backward(cx, grads, x, saved, dout, wanted),
            Block::Parallel => self.parallel_backward(cx, grads, x, saved, dout, wanted),
        }
    }

    fn post_norm_backward(
        &self,
        cx: &Context,
        grads: &mut Grads,
        x: &Rows,
        saved: &LayerSaved,
        dout: Rows,
        wanted: bool,
    ) -> Option<Rows> {
        let (sum1, sum2) = (saved.sum1.as_ref().expect("post-norm"), saved.sum2.as_ref().expect("post-norm"));
        let norm2 = self.second_norm();
        let dsum2 = norm2.backward(grads.params, sum2, &saved.stats2, &dout);
        let dsum2 =
            on_sum::backward(self.on_ffn.as_ref(), Some(norm2), cx, grads, saved.on_ffn.as_ref(), dsum2);
        let below = wanted || self.attention_trains() || self.norm1.trains();
        let x1 = self.ffn.reads_input().then(|| self.norm1.forward(grads.params, sum1).0);
        let df = self.dropped(cx, &dsum2, DropSite::Ffn);
        let dx1 = self.ffn.backward(cx, grads, x1.as_ref(), &saved.ffn, df.as_ref().unwrap_or(&dsum2), below);
        let mut dx1 = dx1?;
        elementwise::add(&dsum2, &mut dx1);
        let dsum1 = self.norm1.backward(grads.params, sum1, &saved.stats1, &dx1);
        let on_attention = (self.on_attention.as_ref(), saved.on_attention.as_ref());
        let dsum1 = on_sum::backward(on_attention.0, Some(&self.norm1), cx, grads, on_attention.1, dsum1);
        if !(wanted || self.attention.trains()) {
            return None;
        }
        let da = self.dropped(cx, &dsum1, DropSite::Attention);
        let dn = self.attention.backward(
            cx,
            grads,
            Some(x),
            &saved.attention,
            da.as_ref().unwrap_or(&dsum1),
            wanted,
        );
        dn.map(|mut dx| {
            elementwise::add(&dsum1, &mut dx);
            dx
        })
    }

    fn pre_norm_backward(
        &self,
        cx: &Context,
        grads: &mut Grads,
        x: &Rows,
        saved: &LayerSaved,
        dout: Rows,
        wanted: bool,
    ) -> Option<Rows> {
        let x1 = saved.sum2.as_ref().expect("pre-norm");
        let norm2 = self.second_norm();
        let dout = on_sum::backward(self.on_ffn.as_ref(), None, cx, grads, saved.on_ffn.as_ref(), dout);
        let below = wanted || self.attention_trains() || self.norm1.trains();
        let n2 = self.ffn.reads_input().then(|| norm2.forward(grads.params, x1).0);
        let df = self.dropped(cx, &dout, DropSite::Ffn);
        let into_norm2 = below || norm2.trains();
        let dn2 =
            self.ffn.backward(cx, grads, n2.as_ref(), &saved.ffn, df.as_ref().unwrap_or(&dout), into_norm2);
        drop(n2);
        let mut dx1 = norm2.backward(grads.params, x1, &saved.stats2, &dn2?);
        if !below {
            return None;
        }
        elementwise::add(&dout, &mut dx1);
        let on_attention = (self.on_attention.as_ref(), saved.on_attention.as_ref());
        let dx1 = on_sum::backward(on_attention.0, None, cx, grads, on_attention.1, dx1);
        let n1 = self.attention.reads_input().then(|| self.norm1.forward(grads.params, x).0);
        let da = self.dropped(cx, &dx1, DropSite::Attention);
        let into_norm1 = wanted || self.norm1.trains();
        let dn1 = self.attention.backward(
            cx,
            grads,
            n1.as_ref(),
            &saved.attention,
            da.as_ref().unwrap_or(&dx1),
            into_norm1,
        );
        let mut dx = self.norm1.backward(grads.params, x, &saved.stats1, &dn1?);
        elementwise::add(&dx1, &mut dx);
        wanted.then_some(dx)
    }

    fn parallel_backward(
        &self,
        cx: &Context,
        grads: &mut Grads,
        x: &Rows,
        saved: &LayerSaved,
        dout: Rows,
        wanted: bool,
    ) -> Option<Rows> {
        let into_norm = wanted || self.norm1.trains();
        let read = self.ffn.reads_input() || self.attention.reads_input();
        let n1 = read.then(|| self.norm1.forward(grads.params, x).0);
        let dout = on_sum::backward(self.on_ffn.as_ref(), None, cx, grads, saved.on_ffn.as_ref(), dout);
        let df = self.dropped(cx, &dout, DropSite::Ffn);
        let dn_ffn =
            self.ffn.backward(cx, grads, n1.as_ref(), &saved.ffn, df.as_ref().unwrap_or(&dout), into_norm);
        let on_attention = (self.on_attention.as_ref(), saved.on_attention.as_ref());
        let dout = on_sum::backward(on_attention.0, None, cx, grads, on_attention.1, dout);
        let da = self.dropped(cx, &dout, DropSite::Attention);
        let dn = self.attention.backward(
            cx,
            grads,
            n1.as_ref(),
            &saved.attention,
            da.as_ref().unwrap_or(&dout),
            into_norm,
        );
        let mut dn = dn?;
        elementwise::add(&dn_ffn?, &mut dn);
        let mut dx = self.norm1.backward(grads.params, x, &saved.stats1, &dn);
        elementwise::add(&dout, &mut dx);
        wanted.then_some(dx)
    }

    /// The gradient behind the base model's dropout, where it is on.
    fn dropped(&self, cx: &Context, d: &Rows, site: DropSite) -> Option<Rows> {
        cx.mask(cx.dropout.hidden, self.number, site).map(|mask| mask.copy(d))
    }

    fn second_norm(&self) -> &Norm {
        self.norm2.as_ref().expect("only parallel blocks have one norm")
    }

    fn attention_trains(&self) -> bool {
        self.attention.trains() || self.on_attention.is_some()
    }

    pub(crate) fn trains(&self) -> bool {
        self.attention_trains()
            || self.ffn.trains()
            || self.on_ffn.is_some()
            || self.norm1.trains()
            || self.norm2.as_ref().is_some_and(Norm::trains)
    }
}
