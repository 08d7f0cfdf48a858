//! What enters the first layer, h0: token embeddings, and for BERT and RoBERTa positions, types, norm
//! and dropout.

use crate::layer::DropSite;
use crate::linear::Grads;
use crate::norm::Norm;
use crate::weight::Weight;
use sibo_kernels::drop::Mask;
use sibo_kernels::{Rows, embed};
use sibo_peft::Params;
use sibo_peft::lora::EmbeddingLora;

/// One table of rows.
#[derive(Clone)]
pub(crate) struct Table {
    pub(crate) path: String,
    pub(crate) rows: usize,
    pub(crate) weight: Weight,
    pub(crate) lora: Option<EmbeddingLora>,
    /// A row that training leaves alone (`padding_idx`).
    pub(crate) padding: Option<u32>,
}

impl Table {
    fn add(&self, params: &Params, ids: &[u32], out: &mut Rows, accumulate: bool) {
        match &self.weight {
            Weight::Frozen(w) => embed::gather(w, ids, out, accumulate),
            Weight::Away(away) => away.is_not_read(),
            Weight::Trained(id) => embed::gather_param(params.value(*id), out.width(), ids, out, accumulate),
        }
        if let Some(lora) = &self.lora {
            lora.forward(params, ids, out);
        }
    }

    fn backward(&self, params: &mut Params, ids: &[u32], dy: &Rows) {
        let kept = self.without_padding(ids, dy);
        if let Weight::Trained(id) = &self.weight {
            match &kept {
                Some((ids, dy)) => embed::scatter_add(dy, ids, params.grad_mut(*id)),
                None => embed::scatter_add(dy, ids, params.grad_mut(*id)),
            }
        }
        if let Some(lora) = &self.lora {
            lora.backward(params, ids, dy, self.padding);
        }
    }

    fn without_padding(&self, ids: &[u32], dy: &Rows) -> Option<(Vec<u32>, Rows)> {
        let padding = self.padding.filter(|p| ids.contains(p))?;
        let keep: Vec<usize> = (0..ids.len()).filter(|t| ids[*t] != padding).collect();
        let rows = sibo_kernels::elementwise::select_rows(dy, &keep);
        Some((keep.iter().map(|t| ids[*t]).collect(), rows))
    }

    pub(crate) fn trains(&self) -> bool {
        self.weight.trains() || self.lora.is_some()
    }
}

/// The tables and the norm over their sum.
#[derive(Clone)]
pub(crate) struct Embedding {
    pub(crate) words: Table,
    pub(crate) positions: Option<Table>,
    pub(crate) types: Option<Table>,
    pub(crate) norm: Option<Norm>,
}

/// The norm's input and statistics.
pub(crate) struct EmbeddingSaved(Option<(Rows, Vec<f32>)>);

impl Embedding {
    /// h0 (T, D).
    pub(crate) fn forward(
        &self,
        cx: &EmbeddingContext,
        params: &Params,
        width: usize,
    ) -> (Rows, EmbeddingSaved) {
        let batch = cx.batch;
        let mut sum = Rows::scratch(batch.tokens(), width);
        self.words.add(params, &batch.ids, &mut sum, false);
        if let Some(types) = &self.types {
            types.add(params, &batch.types, &mut sum, true);
        }
        if let Some(positions) = &self.positions {
            positions.add(params, &batch.positions, &mut sum, true);
        }
        let (mut h0, saved) = match &self.norm {
            None => (sum, None),
            Some(norm) => {
                let (y, stats) = norm.forward(params, &sum);
                (y, Some((sum, stats)))
            }
        };
        if let Some(mask) = &cx.mask {
            mask.apply(&mut h0);
        }
        (h0, EmbeddingSaved(saved))
    }

    /// Gradients of all that trains here, from dh (T, D).
    pub(crate) fn backward(
        &self,
        cx: &EmbeddingContext,
        grads: &mut Grads,
        saved: &EmbeddingSaved,
        mut dh: Rows,
    ) {
        let batch = cx.batch;
        if let Some(mask) = &cx.mask {
            mask.apply(&mut dh);
        }
        let dsum = match (&self.norm, &saved.0) {
            (Some(norm), Some((sum, stats))) => norm.backward(grads.params, sum, stats, &dh),
            _ => dh,
        };
        for (table, ids) in [
            (Some(&self.words), &batch.ids),
            (self.types.as_ref(), &batch.types),
            (self.positions.as_ref(), &batch.positions),
        ] {
            if let Some(table) = table {
                table.backward(grads.params, ids, &dsum);
            }
        }
    }

    pub(crate) fn tables_mut(&mut self) -> impl Iterator<Item = &mut Table> {
        [Some(&mut self.words), self.positions.as_mut(), self.types.as_mut()].into_iter().flatten()
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = &Table> {
        [Some(&self.words), self.positions.as_ref(), self.types.as_ref()].into_iter().flatten()
    }

    pub(crate) fn trains(&self) -> bool {
        self.tables().any(Table::trains) || self.norm.as_ref().is_some_and(Norm::trains)
    }
}

/// The batch and the embedding's own dropout.
pub(crate) struct EmbeddingContext<'a> {
    pub(crate) batch: &'a crate::Batch,
    pub(crate) mask: Option<Mask>,
}

impl<'a> EmbeddingContext<'a> {
    /// Takes the masks from where the layers' come from.
    pub(crate) fn new(batch: &'a crate::Batch, p: f32, source: Option<sibo_peft::DropSource>) -> Self {
        let mask = source.and_then(|s| s.mask(p, 0, DropSite::Embedding as u64));
        EmbeddingContext { batch, mask }
    }
}
