//! Trainable tensors. Being a [`Param`] is the only way to have a gradient: nothing is recognised as
//! trainable by its name.

use crate::settled::Settled;
use sibo_kernels::frozen::Compute;
use sibo_kernels::{Rows, gemm};

/// One trainable tensor.
#[derive(Debug, Clone)]
pub struct Param {
    /// Its key in `adapter_model.safetensors`.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub value: Vec<f32>,
    /// d loss / d value, accumulated by the backward pass.
    pub grad: Vec<f32>,
    /// Whether weight decay applies: transformers' Trainer spares biases and norm weights.
    pub decay: bool,
    /// Whether a gradient of exactly zero is right before the first update, as for LoRA's A while B is zero.
    pub zero_grad_at_start: bool,
    /// Whether this is the theta of a learned lambda, which has a learning rate of its own.
    pub theta: bool,
}

impl Param {
    /// A parameter of `shape` that decays and whose first gradient must not vanish.
    pub fn new(name: String, shape: Vec<usize>, value: Vec<f32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), value.len(), "shape of {name}");
        let grad = vec![0.0; value.len()];
        let decay = !name.ends_with(".bias");
        Param { name, shape, value, grad, decay, zero_grad_at_start: false, theta: false }
    }
}

/// Index of a [`Param`] in its [`Params`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(usize);

impl ParamId {
    /// Position in the order of creation.
    pub fn index(self) -> usize {
        self.0
    }
}

/// All trainable tensors of a run, in a fixed order.
#[derive(Debug, Clone, Default)]
pub struct Params {
    list: Vec<Param>,
    compute: Compute,
    settled: Settled,
}

impl Params {
    /// None yet; branches will multiply by them in this arithmetic.
    pub fn new(compute: Compute) -> Self {
        Params { compute, ..Params::default() }
    }

    /// In which arithmetic branches multiply by them.
    pub fn compute(&self) -> Compute {
        self.compute
    }

    /// The same parameters for another arithmetic.
    #[must_use]
    pub fn with_compute(self, compute: Compute) -> Self {
        Params { compute, ..self }
    }

    /// Until a value changes, branches may multiply by copies of the matrices in the form of frozen weights, which are
    /// made once. Nothing is copied under f32.
    pub fn settle(&self) {
        if self.compute == Compute::Bf16 {
            self.settled.begin(self.list.len());
        }
    }

    /// y = beta y + alpha x W^T for the matrix W (N, K); x (T, K), y (T, N).
    pub(crate) fn nt(&self, alpha: f32, x: &Rows, w: ParamId, beta: f32, y: &mut Rows) {
        let values = self.value(w);
        match self.compute {
            Compute::F32 => gemm::nt(alpha, x, values, beta, y),
            Compute::Bf16 if self.settled.nt(w, values, alpha, x, beta, y) => {}
            Compute::Bf16 => gemm::rounded::nt(alpha, x, values, beta, y),
        }
    }

    /// dx = beta dx + alpha dy W for the matrix W (N, K); dy (T, N), dx (T, K).
    pub(crate) fn nn(&self, alpha: f32, dy: &Rows, w: ParamId, beta: f32, dx: &mut Rows) {
        match self.compute {
            Compute::F32 => gemm::nn(alpha, dy, self.value(w), beta, dx),
            Compute::Bf16 => gemm::rounded::nn(alpha, dy, self.value(w), beta, dx),
        }
    }

    /// dW += alpha dy^T x for the matrix W (N, K); dy (T, N), x (T, K).
    pub(crate) fn tn(&mut self, alpha: f32, dy: &Rows, x: &Rows, w: ParamId) {
        match self.compute {
            Compute::F32 => gemm::tn(alpha, dy, x, 1.0, self.grad_mut(w)),
            Compute::Bf16 => gemm::rounded::tn(alpha, dy, x, 1.0, self.grad_mut(w)),
        }
    }

    /// Takes a parameter in; its name must be new.
    pub fn add(&mut self, param: Param) -> ParamId {
        assert!(self.list.iter().all(|p| p.name != param.name), "{} twice", param.name);
        self.settled.end();
        self.list.push(param);
        ParamId(self.list.len() - 1)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Param> {
        self.list.iter()
    }

    /// All of them, in order, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Param> {
        self.settled.end();
        self.list.iter_mut()
    }

    /// How many tensors.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether nothing is trained.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many numbers.
    pub fn numbers(&self) -> usize {
        self.list.iter().map(|p| p.value.len()).sum()
    }

    /// Sets all gradients to zero.
    pub fn zero_grads(&mut self) {
        for param in &mut self.list {
            param.grad.fill(0.0);
        }
    }

    /// Values of one parameter.
    pub fn value(&self, id: ParamId) -> &[f32] {
        &self.list[id.0].value
    }

    /// One parameter.
    pub fn get(&self, id: ParamId) -> &Param {
        &self.list[id.0]
    }

    /// One parameter, to change.
    pub fn get_mut(&mut self, id: ParamId) -> &mut Param {
        self.settled.end();
        &mut self.list[id.0]
    }

    /// Gradient of one parameter.
    pub fn grad_mut(&mut self, id: ParamId) -> &mut [f32] {
        &mut self.list[id.0].grad
    }

    /// Gradients of two different parameters at once.
    pub fn two_grads_mut(&mut self, a: ParamId, b: ParamId) -> (&mut [f32], &mut [f32]) {
        let [a, b] = self.list.get_disjoint_mut([a.0, b.0]).expect("two different parameters");
        (&mut a.grad, &mut b.grad)
    }

    /// The parameter called `name`.
    pub fn find(&self, name: &str) -> Option<ParamId> {
        self.list.iter().position(|p| p.name == name).map(ParamId)
    }
}
