//! LayerNorm and RMSNorm with weights that may train.

use crate::arch::NormKind;
use crate::weight::Vector;
use sibo_kernels::{Rows, layer_norm, rms_norm};
use sibo_peft::Params;

/// One norm of the model.
#[derive(Clone)]
pub(crate) struct Norm {
    pub(crate) path: String,
    pub(crate) kind: NormKind,
    pub(crate) weight: Vector,
    /// LayerNorm only.
    pub(crate) bias: Option<Vector>,
    pub(crate) eps: f32,
}

impl Norm {
    /// y (T, D) and the statistics that the backward pass needs: (T, 2) or (T).
    pub(crate) fn forward(&self, params: &Params, x: &Rows) -> (Rows, Vec<f32>) {
        let mut y = Rows::scratch(x.rows(), x.width());
        let mut stats = vec![0.0; x.rows() * self.stats_width()];
        let w = self.weight.values(params);
        match self.kind {
            NormKind::Layer => layer_norm::forward(x, w, self.shift(params), self.eps, &mut y, &mut stats),
            NormKind::Rms => rms_norm::forward(x, w, self.eps, &mut y, &mut stats),
        }
        (y, stats)
    }

    /// dx (T, D); gradients of weight and bias where they train.
    pub(crate) fn backward(&self, params: &mut Params, x: &Rows, stats: &[f32], dy: &Rows) -> Rows {
        let mut dx = Rows::scratch(x.rows(), x.width());
        let w = self.weight.values(params).to_vec();
        let (w_id, b_id) = (self.weight.trained(), self.bias.as_ref().and_then(Vector::trained));
        // Gradients go to spare vectors first: weight and bias need not both train.
        let mut dw = vec![0.0; w.len()];
        let mut db = vec![0.0; w.len()];
        let wanted = w_id.is_some() || b_id.is_some();
        match self.kind {
            NormKind::Layer => {
                layer_norm::backward(x, &w, stats, dy, &mut dx, wanted.then_some((&mut dw[..], &mut db[..])));
            }
            NormKind::Rms => rms_norm::backward(x, &w, stats, dy, &mut dx, wanted.then_some(&mut dw[..])),
        }
        for (id, gradient) in [(w_id, dw), (b_id, db)] {
            if let Some(id) = id {
                params.grad_mut(id).iter_mut().zip(&gradient).for_each(|(g, d)| *g += d);
            }
        }
        dx
    }

    pub(crate) fn trains(&self) -> bool {
        self.weight.trained().is_some() || self.bias.as_ref().is_some_and(|b| b.trained().is_some())
    }

    fn stats_width(&self) -> usize {
        if self.kind == NormKind::Layer { 2 } else { 1 }
    }

    fn shift<'a>(&'a self, params: &'a Params) -> &'a [f32] {
        self.bias.as_ref().map_or(&[], |b| b.values(params))
    }
}
