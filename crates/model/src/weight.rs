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
    /// Never changes, and is still in its file: read before the first pass, or in each turn of its layer.
    Away(Arc<Away>),
    /// Trains.
    Trained(ParamId),
}

/// What is known of a matrix that is in its file.
pub(crate) struct Away {
    /// Its key in the source.
    pub(crate) key: String,
    /// Bytes that it takes when it is read.
    pub(crate) bytes: usize,
    /// Bytes that it has in the file.
    pub(crate) stored: usize,
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
            Weight::Away(away) => away.is_not_read(),
            Weight::Trained(id) => gemm::nt(1.0, x, params.value(*id), 0.0, y),
        }
    }

    /// dx (T, K) = beta dx + dy W
    pub(crate) fn backward(&self, params: &Params, dy: &Rows, beta: f32, dx: &mut Rows) {
        match self {
            Weight::Frozen(w) => w.backward(dy, beta, dx),
            Weight::Away(away) => away.is_not_read(),
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

    /// The matrix, where it is frozen and in memory.
    pub(crate) fn frozen(&self) -> Option<&FrozenWeight> {
        if let Weight::Frozen(weight) = self { Some(weight) } else { None }
    }

    /// What is known of it where it is not in memory.
    pub(crate) fn away(&self) -> Option<&Away> {
        if let Weight::Away(away) = self { Some(away) } else { None }
    }
}

impl Away {
    pub(crate) fn is_not_read(&self) -> ! {
        panic!("a product with `{}` before Model::read_base, or outside its layer's turn", self.key)
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
