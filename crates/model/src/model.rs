//! A model: embedding, layers, head and the adapter on them; forward passes, and the one backward pass.

mod look;

use crate::arch::{Arch, BaseDropout, HeadKind, Positions};
use crate::base::Base;
use crate::batch::{Batch, Labels};
use crate::cache::KvLayer;
use crate::embedding::{Embedding, EmbeddingContext, EmbeddingSaved};
use crate::head::{self, Head};
use crate::layer::{Context, Layer, LayerSaved, RopeTables};
use crate::linear::Grads;
use crate::norm::Norm;
use crate::stream::{Pass, Stream};
use sibo_kernels::awake;
use sibo_kernels::drop::DropKey;
use sibo_kernels::rope::RopeTable;
use sibo_kernels::{Rows, elementwise, loss};
use sibo_peft::{Adapter, Call, DropSource, Params};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// A loaded model and what is trained on it.
#[derive(Clone)]
pub struct Model {
    pub(crate) arch: Arch,
    pub(crate) embedding: Embedding,
    pub(crate) layers: Vec<Layer>,
    pub(crate) final_norm: Option<Norm>,
    pub(crate) head: Head,
    pub(crate) adapter: Option<Adapter>,
    pub(crate) params: Params,
    pub(crate) rope: Option<RopeBase>,
    pub(crate) fingerprint: Vec<f32>,
    pub(crate) made_new: Vec<String>,
    /// Where matrices of layers are read from, as long as some are still to be.
    pub(crate) base: Option<Arc<Mutex<Base>>>,
    /// The layers that are read in their turn.
    pub(crate) stream: Option<Arc<Stream>>,
}

/// The rotary table that all rows of usual length share.
#[derive(Clone)]
pub(crate) struct RopeBase {
    pub(crate) spec: crate::RopeSpec,
    /// As far as any batch has come; it grows by doubling.
    pub(crate) table: Arc<RwLock<Arc<RopeTable>>>,
}

/// Randomness of one training step; without it nothing is dropped.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    /// Seed of the run.
    pub seed: u64,
    /// Number of the pass over the data: the same row gets new masks in each.
    pub epoch: u64,
    /// Whether the base model's own dropout is on.
    pub base: bool,
}

/// What a pass over labelled rows gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepOutput {
    /// Sum of the losses.
    pub loss_sum: f64,
    /// Over how many labelled tokens (language models) or rows (classifiers).
    pub count: usize,
}

/// Layers, from the first on, that keep only their input on the way up and are computed again on the way back: less
/// memory, more time, the same bits. `true` is all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recompute(usize);

impl Recompute {
    /// All layers.
    pub const ALL: Recompute = Recompute(usize::MAX);

    /// Whether layer `l` is one.
    pub(crate) fn includes(self, l: usize) -> bool {
        l < self.0
    }

    /// How many of `layers` layers.
    pub fn count(self, layers: usize) -> usize {
        self.0.min(layers)
    }
}

impl From<bool> for Recompute {
    fn from(all: bool) -> Self {
        if all { Recompute::ALL } else { Recompute::default() }
    }
}

impl From<usize> for Recompute {
    fn from(layers: usize) -> Self {
        Recompute(layers)
    }
}

/// Activations of one layer: all of them, or only its input when the rest is computed again.
enum Kept {
    All(Box<LayerSaved>),
    InputOnly,
    Nothing,
}

/// What a forward pass that is to be taken back knows of the way back.
struct Run<'a> {
    pass: &'a Pass<'a>,
    /// The lowest layer that it passes.
    lowest: Option<usize>,
    recompute: Recompute,
}

/// The forward pass as the backward pass needs it.
struct Tape {
    embedding: EmbeddingSaved,
    /// Input of each layer from the lowest that trains on.
    inputs: Vec<Option<Rows>>,
    kept: Vec<Kept>,
}

impl Model {
    /// The structure.
    pub fn arch(&self) -> &Arch {
        &self.arch
    }

    /// The adapter's placement and configuration, where one is attached; its parameters are in [`Model::params`].
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
    }

    /// What trains.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// What trains, to change.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    /// Linears that the folder lacked (a head, a pooler) and that were drawn from the seed.
    pub fn made_new(&self) -> &[String] {
        &self.made_new
    }

    /// A few numbers by which an adapter recognises the base it was trained on.
    pub fn fingerprint(&self) -> &[f32] {
        &self.fingerprint
    }

    /// The number of labelled tokens or rows of these labels: the denominator of the mean loss.
    pub fn count_labels(labels: &Labels) -> usize {
        match labels {
            Labels::None => 0,
            Labels::Tokens(rows) => {
                rows.iter().map(|r| r.iter().skip(1).filter(|l| **l != -100).count()).sum()
            }
            Labels::Classes(rows) => rows.len(),
            Labels::Values(rows) => rows.len(),
        }
    }

    /// Sum of the losses without a backward pass and without dropout.
    pub fn loss(&mut self, batch: &Batch, labels: &Labels) -> StepOutput {
        let (h0, last) = self.run(batch, |_, _| {});
        let call = Call { h0: &h0, drop: None, seen: None };
        let cx = Context {
            arch: &self.arch,
            batch,
            rope: None,
            call,
            dropout: NO_DROPOUT,
            backward: false,
            tap: None,
        };
        let norm = self.final_norm.as_ref();
        let (sum, _) =
            loss_and_gradient(&self.head, norm, &mut self.params, &cx, &last, labels, 1.0, false, false);
        StepOutput { loss_sum: sum, count: Model::count_labels(labels) }
    }

    /// Forward and backward: gradients of `scale` times the summed loss are added to the parameters.
    pub fn forward_backward(
        &mut self,
        batch: &Batch,
        labels: &Labels,
        scale: f32,
        dropout: Option<Dropout>,
        recompute: impl Into<Recompute>,
    ) -> StepOutput {
        let tables = self.tables(batch);
        let source = dropout.map(|d| DropSource {
            key: DropKey { seed: d.seed, epoch: d.epoch },
            samples: &batch.samples,
            positions: &batch.places,
        });
        let base = dropout.filter(|d| d.base).map_or(NO_DROPOUT, |_| self.arch.dropout);
        let lowest = self.lowest_trained();
        let down = (lowest.unwrap_or(self.layers.len())..self.layers.len()).rev();
        let pass = Pass::new(&self.layers, self.stream.as_deref(), (0..self.layers.len()).chain(down));
        let run = Run { pass: &pass, lowest, recompute: recompute.into() };
        let (h0, last, tape) = self.forward_taped(batch, tables.as_ref(), source, base, &run);
        let call = Call { h0: &h0, drop: source, seen: None };
        let rope = tables.as_ref();
        let cx = Context { arch: &self.arch, batch, rope, call, dropout: base, backward: true, tap: None };
        let wanted = lowest.is_some();
        let norm = self.final_norm.as_ref();
        let (sum, dlast) =
            loss_and_gradient(&self.head, norm, &mut self.params, &cx, &last, labels, scale, true, wanted);
        drop(last);
        if let (Some(lowest), Some(dlast)) = (lowest, dlast) {
            backward_layers(&self.embedding, &pass, &mut self.params, &cx, tape, dlast, lowest);
        }
        StepOutput { loss_sum: sum, count: Model::count_labels(labels) }
    }

    /// Does `work`, many short operations one after another in which nothing trains, with the pool's threads awake; beside
    /// a thread that reads layers they are left alone, for it needs a core too.
    pub(crate) fn awake<R>(&self, work: impl FnOnce() -> R) -> R {
        self.params.settle();
        if self.stream.is_some() { work() } else { awake::while_working(work) }
    }

    /// Output of the layers (T, D), before a final norm; `tap(l, rows)` sees the input of layer l and, as
    /// l = L, the output of the last one. Returns h0 and that output.
    pub(crate) fn run(&self, batch: &Batch, mut tap: impl FnMut(usize, &Rows)) -> (Rows, Rows) {
        let tables = self.tables(batch);
        let embedding_cx = EmbeddingContext::new(batch, 0.0, None);
        let (h0, _) = self.embedding.forward(&embedding_cx, &self.params, self.arch.width);
        let cx = self.context(batch, tables.as_ref(), &h0, None);
        let mut x = h0.copy();
        let pass = Pass::up(&self.layers, self.stream.as_deref());
        for l in 0..pass.len() {
            tap(l, &x);
            let layer = pass.layer(l);
            x = layer.forward(&cx, &self.params, &x, None).0;
        }
        tap(self.layers.len(), &x);
        (h0, x)
    }

    /// The same for new tokens of rows whose earlier keys and values are in `cache`.
    pub(crate) fn run_cached(&self, batch: &Batch, cache: &mut [KvLayer]) -> Rows {
        let tables = self.tables(batch);
        let embedding_cx = EmbeddingContext::new(batch, 0.0, None);
        let (h0, _) = self.embedding.forward(&embedding_cx, &self.params, self.arch.width);
        let cx = self.context(batch, tables.as_ref(), &h0, None);
        let mut x = h0.copy();
        let pass = Pass::up(&self.layers, self.stream.as_deref());
        for (l, cache) in cache.iter_mut().enumerate() {
            let layer = pass.layer(l);
            x = layer.forward(&cx, &self.params, &x, Some(cache)).0;
        }
        x
    }

    /// The final norm, where there is one.
    pub(crate) fn normed(&self, rows: &Rows) -> Rows {
        match &self.final_norm {
            Some(norm) => norm.forward(&self.params, rows).0,
            None => rows.copy(),
        }
    }

    /// Scores of a classifier (rows, C).
    pub fn class_scores(&self, batch: &Batch) -> Rows {
        let Head::Classes(class_head) = &self.head else {
            panic!("class_scores on a model without a classification head")
        };
        let (h0, last) = self.run(batch, |_, _| {});
        let cx = self.context(batch, None, &h0, None);
        let at = first_tokens(batch);
        class_head.forward(&cx, &self.params, head::pick(&last, &at), &at).0
    }

    pub(crate) fn context<'a>(
        &'a self,
        batch: &'a Batch,
        rope: Option<&'a RopeTables>,
        h0: &'a Rows,
        drop: Option<DropSource<'a>>,
    ) -> Context<'a> {
        let call = Call { h0, drop, seen: None };
        Context { arch: &self.arch, batch, rope, call, dropout: NO_DROPOUT, backward: false, tap: None }
    }

    /// Rotary tables for a batch, with those of rows that `dynamic` scaling treats on their own.
    pub(crate) fn tables(&self, batch: &Batch) -> Option<RopeTables> {
        let RopeBase { spec, table } = self.rope.as_ref()?;
        let furthest = batch.positions.iter().max().map_or(1, |p| *p as usize + 1);
        let shared = grown(table, furthest);
        let mut own = HashMap::new();
        for (row, seq) in batch.seqs.iter().enumerate().filter(|(_, s)| spec.depends_on(s.len)) {
            own.insert(row, RopeTable::new(&spec.inverse_frequencies(seq.len), seq.len));
        }
        Some(RopeTables { spec: *spec, shared, own })
    }

    /// The lowest place that trains: `Some(0)` may be the embedding ([`Embedding::trains`]) or the first
    /// layer; `None` when only the head does.
    pub(crate) fn lowest_trained(&self) -> Option<usize> {
        if self.embedding.trains() {
            return Some(0);
        }
        let layer = self.layers.iter().position(Layer::trains);
        let norm = self.final_norm.as_ref().is_some_and(Norm::trains).then_some(self.layers.len());
        layer.or(norm)
    }

    fn forward_taped(
        &self,
        batch: &Batch,
        tables: Option<&RopeTables>,
        source: Option<DropSource>,
        base: BaseDropout,
        run: &Run,
    ) -> (Rows, Rows, Tape) {
        let embedding_cx = EmbeddingContext::new(batch, base.embedding, source);
        let (h0, embedding) = self.embedding.forward(&embedding_cx, &self.params, self.arch.width);
        let call = Call { h0: &h0, drop: source, seen: None };
        let cx =
            Context { arch: &self.arch, batch, rope: tables, call, dropout: base, backward: true, tap: None };
        let mut x = h0.copy();
        let mut inputs = Vec::new();
        let mut kept = Vec::new();
        for l in 0..run.pass.len() {
            let (y, saved) = run.pass.layer(l).forward(&cx, &self.params, &x, None);
            let needed = run.lowest.is_some_and(|lowest| l >= lowest);
            kept.push(match saved {
                Some(saved) if needed && !run.recompute.includes(l) => Kept::All(Box::new(saved)),
                _ if needed => Kept::InputOnly,
                _ => Kept::Nothing,
            });
            let x_in = std::mem::replace(&mut x, y);
            inputs.push(needed.then_some(x_in));
        }
        (h0, x, Tape { embedding, inputs, kept })
    }
}

/// A table with all positions below `furthest`, made longer for everyone where it is too short.
fn grown(table: &RwLock<Arc<RopeTable>>, furthest: usize) -> Arc<RopeTable> {
    // A table is replaced whole, so one that a panic left behind is sound.
    let now = table.read().unwrap_or_else(PoisonError::into_inner).clone();
    if now.positions() >= furthest {
        return now;
    }
    let mut longer = (*now).clone();
    longer.grow(furthest.next_power_of_two());
    let longer = Arc::new(longer);
    *table.write().unwrap_or_else(PoisonError::into_inner) = longer.clone();
    longer
}

/// Nothing is dropped.
pub(crate) const NO_DROPOUT: BaseDropout =
    BaseDropout { embedding: 0.0, hidden: 0.0, attention: 0.0, classifier: 0.0 };

/// Indices of the first token of each row.
pub(crate) fn first_tokens(batch: &Batch) -> Vec<usize> {
    batch.seqs.iter().map(|s| s.start).collect()
}

/// Packed rows t whose next token carries a label, and those labels; never across two rows.
pub(crate) fn labelled(batch: &Batch, labels: &[Vec<i64>]) -> (Vec<usize>, Vec<u32>) {
    let mut at = Vec::new();
    let mut targets = Vec::new();
    for (seq, labels) in batch.seqs.iter().zip(labels) {
        for (t, label) in labels.iter().enumerate().skip(1).filter(|(_, l)| **l >= 0) {
            at.push(seq.start + t - 1);
            targets.push(*label as u32);
        }
    }
    (at, targets)
}

/// The summed loss and, where wanted, `scale` times its gradient at the layers' output (T, D).
fn loss_and_gradient(
    model_head: &Head,
    final_norm: Option<&Norm>,
    params: &mut Params,
    cx: &Context,
    last: &Rows,
    labels: &Labels,
    scale: f32,
    learn: bool,
    wanted: bool,
) -> (f64, Option<Rows>) {
    match (model_head, labels) {
        (Head::Causal(lm_head), Labels::Tokens(labels)) => {
            let (at, targets) = labelled(cx.batch, labels);
            let picked = head::pick(last, &at);
            let normed = final_norm.map(|norm| norm.forward(params, &picked));
            let rows = normed.as_ref().map_or(&picked, |n| &n.0);
            let out = head::causal_loss(lm_head, &cx.call, params, (rows, &at), &targets, scale, learn);
            let dlast = out.drows.filter(|_| wanted).map(|drows| {
                let d = match (final_norm, &normed) {
                    (Some(norm), Some((_, stats))) => norm.backward(params, &picked, stats, &drows),
                    _ => drows,
                };
                head::spread(&d, &at, last.rows())
            });
            (out.sum, dlast)
        }
        (Head::Classes(class_head), Labels::Classes(_) | Labels::Values(_)) => {
            let at = first_tokens(cx.batch);
            let (mut scores, saved) = class_head.forward(cx, params, head::pick(last, &at), &at);
            let sum = match labels {
                Labels::Classes(classes) => loss::cross_entropy(&mut scores, classes, scale, learn),
                Labels::Values(values) => {
                    let predicted = scores.data().to_vec();
                    loss::squared_error(&predicted, values, scale, scores.data_mut())
                }
                _ => 0.0,
            };
            if !learn {
                return (sum, None);
            }
            let mut grads = Grads { params, dh0: None };
            let dfirst = class_head.backward(cx, &mut grads, &saved, &at, &scores, wanted);
            (sum, dfirst.map(|d| head::spread(&d, &at, last.rows())))
        }
        _ => panic!("labels were checked against the head before the pass"),
    }
}

/// Walks down from the last layer to the lowest that trains, and into the embedding if that is it.
fn backward_layers(
    embedding: &Embedding,
    pass: &Pass,
    params: &mut Params,
    cx: &Context,
    mut tape: Tape,
    dlast: Rows,
    lowest: usize,
) {
    let into_embedding = embedding.trains();
    let mut dh0 = into_embedding.then(|| Rows::zeros(dlast.rows(), dlast.width()));
    let mut d = dlast;
    for l in (lowest..pass.len()).rev() {
        let layer = pass.layer(l);
        let x = tape.inputs[layer.number].take().expect("kept from the lowest trained layer on");
        let saved = match std::mem::replace(&mut tape.kept[layer.number], Kept::Nothing) {
            Kept::All(saved) => saved,
            _ => Box::new(layer.forward(cx, params, &x, None).1.expect("kept without a cache")),
        };
        let wanted = layer.number > lowest || into_embedding;
        let mut grads = Grads { params, dh0: dh0.as_mut() };
        match layer.backward(cx, &mut grads, &x, &saved, d, wanted) {
            Some(dx) => d = dx,
            None => return,
        }
    }
    if let Some(dh0) = dh0 {
        // h0 fed the first layer and every injected branch.
        elementwise::add(&dh0, &mut d);
        let embedding_cx = EmbeddingContext::new(cx.batch, cx.dropout.embedding, cx.call.drop);
        embedding.backward(&embedding_cx, &mut Grads { params, dh0: None }, &tape.embedding, d);
    }
}

impl Model {
    /// Whether the model ends in a head that predicts classes or a number.
    pub fn classes(&self) -> Option<usize> {
        match self.arch.head {
            HeadKind::Classes(n) => Some(n),
            _ => None,
        }
    }

    /// Whether rows may be continued token by token.
    pub fn is_causal(&self) -> bool {
        self.arch.head == HeadKind::CausalLm
    }

    /// The longest row that the model was made for, where its configuration says so.
    pub fn max_len(&self) -> Option<usize> {
        match (&self.arch.positions, self.arch.max_len, self.arch.window) {
            (_, Some(max), _) => Some(max),
            (Positions::Rope(_), None, Some(window)) => Some(window),
            _ => None,
        }
    }
}
