//! A matrix or a vector of the model: frozen, or a parameter of the adapter.

use sibo_kernels::frozen::FrozenWeight;
use sibo_kernels::{Rows, gemm};
use sibo_peft::{ParamId, Params};
use std::sync::Arc;

/// A matrix (out, in). Frozen ones have no gradient slot; a tied head shares the embedding's.
#[derive(Clone)]
pub(crate) enum Weight {
    /// Never changes.
    Frozen(Arc<FrozenWeight>),
    /// Trains.
    Trained(ParamId),
}

/// A vector: a bias or a norm's weight.
#[derive(Clone)]
pub(crate) enum Vector {
    /// Never changes.
    Frozen(Vec<f32>),
    /// Trains.
    Trained(ParamId),
}

impl Weight {
    /// y (T, N) = x W^T
    pub(crate) fn forward(&self, params: &Params, x: &Rows, y: &mut Rows) {
        match self {
            Weight::Frozen(w) => w.forward(x, y),
            Weight::Trained(id) => gemm::nt(1.0, x, params.value(*id), 0.0, y),
        }
    }

    /// dx (T, K) = beta dx + dy W
    pub(crate) fn backward(&self, params: &Params, dy: &Rows, beta: f32, dx: &mut Rows) {
        match self {
            Weight::Frozen(w) => w.backward(dy, beta, dx),
            Weight::Trained(id) => gemm::nn(1.0, dy, params.value(*id), beta, dx),
        }
    }

    /// dW += dy^T x, where W trains.
    pub(crate) fn gradient(&self, params: &mut Params, dy: &Rows, x: &Rows) {
        if let Weight::Trained(id) = self {
            gemm::tn(1.0, dy, x, 1.0, params.grad_mut(*id));
        }
    }

    pub(crate) fn trains(&self) -> bool {
        matches!(self, Weight::Trained(_))
    }

    pub(crate) fn values(&self, params: &Params) -> Vec<f32> {
        match self {
            Weight::Frozen(w) => w.to_f32(),
            Weight::Trained(id) => params.value(*id).to_vec(),
        }
    }
}

impl Vector {
    pub(crate) fn values<'a>(&'a self, params: &'a Params) -> &'a [f32] {
        match self {
            Vector::Frozen(v) => v,
            Vector::Trained(id) => params.value(*id),
        }
    }

    pub(crate) fn trained(&self) -> Option<ParamId> {
        match self {
            Vector::Frozen(_) => None,
            Vector::Trained(id) => Some(*id),
        }
    }
}
