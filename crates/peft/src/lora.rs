//! LoRA (Hu et al., arXiv 2106.09685): y = W x + b + (alpha / r) B A x, with A (R, K) and B (N, R);
//! rank-stabilised (arXiv 2312.03732): alpha / sqrt(r). Initialised as PEFT does: A by
//! `kaiming_uniform_(a = sqrt(5))`, B zero, so that training starts from the frozen model.

use crate::{Param, ParamId, Params, init};
use sibo_kernels::{Rows, gemm};

/// How a fresh LoRA starts (`init_lora_weights`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoraInit {
    /// PEFT's `true`.
    Kaiming,
    /// PEFT's `"gaussian"`: A ~ N(0, 1 / r).
    Gaussian,
    /// PEFT's `false`: B is random too, so the model is changed from the start.
    Random,
    /// PEFT's `"orthogonal"` and `"eva"`, which leave the base as it was: a folder that was started so is read, and no
    /// fresh one is.
    Theirs(&'static str),
}

impl LoraInit {
    /// Those of PEFT alone.
    pub const THEIRS: [&'static str; 2] = ["orthogonal", "eva"];
}

/// One pair of low-rank matrices.
#[derive(Debug, Clone)]
pub struct Lora {
    a: ParamId,
    b: ParamId,
    rank: usize,
    scale: f32,
}

impl Lora {
    /// Fresh matrices for the linear `path` with `inp` in and `out` out features.
    pub fn new(
        params: &mut Params,
        path: &str,
        inp: usize,
        out: usize,
        rank: usize,
        scale: f32,
        start: LoraInit,
        seed: u64,
    ) -> Self {
        let (a_name, b_name) = (format!("{path}.lora_A.weight"), format!("{path}.lora_B.weight"));
        let a_value = match start {
            LoraInit::Gaussian => init::normal(seed, &a_name, rank * inp, 1.0 / rank as f32),
            _ => init::kaiming(seed, &a_name, rank * inp, inp),
        };
        let b_value = match start {
            LoraInit::Random => init::kaiming(seed, &b_name, out * rank, rank),
            _ => vec![0.0; out * rank],
        };
        let mut a = Param::new(a_name, vec![rank, inp], a_value);
        a.zero_grad_at_start = matches!(start, LoraInit::Kaiming | LoraInit::Gaussian);
        let b = Param::new(b_name, vec![out, rank], b_value);
        Lora { a: params.add(a), b: params.add(b), rank, scale }
    }

    /// R.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Whether B is zero before the first update.
    pub(crate) fn starts_at_zero(&self, params: &Params) -> bool {
        params.get(self.a).zero_grad_at_start
    }

    /// out (T, N) += s B A x; returns u = A x (T, R).
    pub(crate) fn forward(&self, params: &Params, x: &Rows, out: &mut Rows) -> Rows {
        let mut u = Rows::scratch(x.rows(), self.rank);
        params.nt(1.0, x, self.a, 0.0, &mut u);
        params.nt(self.scale, &u, self.b, 1.0, out);
        u
    }

    /// dB += s dy^T u, dA += (s dy B)^T x; returns dx = s dy B A where it is wanted.
    pub(crate) fn backward(
        &self,
        params: &mut Params,
        x: &Rows,
        u: &Rows,
        dy: &Rows,
        wanted: bool,
    ) -> Option<Rows> {
        params.tn(self.scale, dy, u, self.b);
        let mut du = Rows::scratch(x.rows(), self.rank);
        params.nn(self.scale, dy, self.b, 0.0, &mut du);
        params.tn(1.0, &du, x, self.a);
        wanted.then(|| {
            let mut dx = Rows::scratch(x.rows(), x.width());
            params.nn(1.0, &du, self.a, 0.0, &mut dx);
            dx
        })
    }

    /// s B A (N, K), what a merge adds to W.
    pub fn delta(&self, params: &Params) -> Vec<f32> {
        let (a, b) = (params.get(self.a), params.get(self.b));
        let (out, inp) = (b.shape[0], a.shape[1]);
        let mut delta = Rows::zeros(out, inp);
        gemm::nn(self.scale, &Rows::from_slice(&b.value, self.rank), &a.value, 0.0, &mut delta);
        delta.data().to_vec()
    }
}

/// LoRA on an embedding: y = row id of W + s B (column id of A), with A (R, V), B (D, R). PEFT starts it the other
/// way round (A zero, B normal) and applies no dropout.
#[derive(Debug, Clone)]
pub struct EmbeddingLora {
    a: ParamId,
    b: ParamId,
    rank: usize,
    scale: f32,
}

impl EmbeddingLora {
    /// Fresh matrices for the embedding `path` with `rows` rows of `width`.
    pub fn new(
        params: &mut Params,
        path: &str,
        rows: usize,
        width: usize,
        rank: usize,
        scale: f32,
        seed: u64,
    ) -> Self {
        let (a_name, b_name) = (format!("{path}.lora_embedding_A"), format!("{path}.lora_embedding_B"));
        let b_value = init::normal(seed, &b_name, width * rank, 1.0);
        let a = Param::new(a_name, vec![rank, rows], vec![0.0; rank * rows]);
        let mut b = Param::new(b_name, vec![width, rank], b_value);
        b.zero_grad_at_start = true;
        EmbeddingLora { a: params.add(a), b: params.add(b), rank, scale }
    }

    /// out (T, D) += s B A[:, ids].
    pub fn forward(&self, params: &Params, ids: &[u32], out: &mut Rows) {
        gemm::nt(self.scale, &self.columns(params, ids), params.value(self.b), 1.0, out);
    }

    /// Gradients from dy (T, D). As in PyTorch, the column of A at `padding` gets none.
    pub fn backward(&self, params: &mut Params, ids: &[u32], dy: &Rows, padding: Option<u32>) {
        let u = self.columns(params, ids);
        gemm::tn(self.scale, dy, &u, 1.0, params.grad_mut(self.b));
        let mut du = Rows::scratch(ids.len(), self.rank);
        gemm::nn(self.scale, dy, params.value(self.b), 0.0, &mut du);
        let vocabulary = params.get(self.a).shape[1];
        let da = params.grad_mut(self.a);
        for (t, &id) in ids.iter().enumerate().filter(|(_, id)| Some(**id) != padding) {
            for (r, d) in du.row(t).iter().enumerate() {
                da[r * vocabulary + id as usize] += d;
            }
        }
    }

    fn columns(&self, params: &Params, ids: &[u32]) -> Rows {
        let a = params.get(self.a);
        let vocabulary = a.shape[1];
        let mut u = Rows::scratch(ids.len(), self.rank);
        for (t, &id) in ids.iter().enumerate() {
            for (r, value) in u.row_mut(t).iter_mut().enumerate() {
                *value = a.value[r * vocabulary + id as usize];
            }
        }
        u
    }
}
