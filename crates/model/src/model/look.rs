//! Forward passes for those who look: what layers, sites and branches read and give.

use super::Model;
use crate::Batch;
use crate::embedding::EmbeddingContext;
use crate::layer::{Context, Tap};
use crate::stream::Pass;
use sibo_kernels::Rows;
use sibo_peft::{See, Seen, Site};

impl Model {
    /// Hidden states of every layer, as transformers' `output_hidden_states` has them: `visit(l, rows)` for
    /// l = 0 (what enters the first layer) to L (after the final norm, where there is one).
    pub fn hidden_states(&self, batch: &Batch, mut visit: impl FnMut(usize, &Rows)) {
        let layers = self.layers.len();
        let (_, last) = self.run(batch, |l, rows| {
            if l < layers {
                visit(l, rows);
            }
        });
        visit(layers, &self.normed(&last));
    }

    /// What the sites of every layer read, or would read with a branch there: `visit(l, site, rows)` with h0 (T, D)
    /// beside it. `Query` stands for query, key and value, `FfnUp` for the gate and for what is beside the FFN too;
    /// `Attention` and `Ffn` are the sub-layers' outputs before an adapter that follows them.
    pub fn site_inputs(&self, batch: &Batch, mut visit: impl FnMut(usize, Site, &Rows, &Rows)) {
        let tables = self.tables(batch);
        let embedding_cx = EmbeddingContext::new(batch, 0.0, None);
        let (h0, _) = self.embedding.forward(&embedding_cx, &self.params, self.arch.width);
        let mut x = h0.copy();
        let pass = Pass::up(&self.layers, self.stream.as_deref());
        for l in 0..pass.len() {
            let layer = pass.layer(l);
            let mut see = |site: Site, rows: &Rows| visit(l, site, rows, &h0);
            let tap = Tap::new(&mut see);
            let cx = Context { tap: Some(&tap), ..self.context(batch, tables.as_ref(), &h0, None) };
            x = layer.forward(&cx, &self.params, &x, None).0;
        }
    }

    /// What the branches of every layer add: `see(branch, rows, to)`, the rows that they are added to beside them.
    pub fn branch_outputs(&self, batch: &Batch, see: See<'_>) {
        let tables = self.tables(batch);
        let embedding_cx = EmbeddingContext::new(batch, 0.0, None);
        let (h0, _) = self.embedding.forward(&embedding_cx, &self.params, self.arch.width);
        let seen = Seen::new(see);
        let mut x = h0.copy();
        let pass = Pass::up(&self.layers, self.stream.as_deref());
        for l in 0..pass.len() {
            let layer = pass.layer(l);
            let mut cx = self.context(batch, tables.as_ref(), &h0, None);
            cx.call.seen = Some(&seen);
            x = layer.forward(&cx, &self.params, &x, None).0;
        }
    }
}
