//! Bottleneck adapters: s (U f(D x + b) + c), with D (M, K) and U (N, M).
//!
//! Houlsby et al. (arXiv 1902.00751) put one after attention and one after the FFN, Pfeiffer et al.
//! (arXiv 2005.00247) one after the FFN; a parallel one (He et al., arXiv 2110.04366) reads the FFN's
//! input. LLM-Adapters (arXiv 2304.01933) put them inside linears, without biases. The forms and
//! their joins are in trace.md; the joins are the layer's.

use crate::{Param, ParamId, Params, init};
use sibo_kernels::{Rows, activation, activation::Activation, elementwise};

/// How a fresh adapter starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterInit {
    /// Weights N(0, 0.02^2), biases zero: near the identity, not at it.
    Bert,
    /// Down Kaiming-uniform, up and biases zero: exactly the identity.
    MamAdapter,
}

/// One adapter's tensors and constants.
#[derive(Debug, Clone)]
pub struct Bottleneck {
    down: ParamId,
    down_bias: Option<ParamId>,
    up: ParamId,
    up_bias: Option<ParamId>,
    size: usize,
    activation: Activation,
    scale: f32,
}

/// What a fresh adapter needs to know.
#[derive(Debug, Clone, Copy)]
pub struct BottleneckSpec {
    /// K, what it reads.
    pub inp: usize,
    /// N, what it adds to.
    pub out: usize,
    /// M.
    pub size: usize,
    /// f.
    pub activation: Activation,
    /// s.
    pub scale: f32,
    /// Initial values.
    pub init: AdapterInit,
    /// Biases b and c, and the key `adapter_down.0` of adapter-hub; LLM-Adapters has neither.
    pub biases: bool,
}

impl Bottleneck {
    /// Fresh tensors under the key `path`.
    pub fn new(params: &mut Params, path: &str, spec: BottleneckSpec, seed: u64) -> Self {
        let down_path =
            if spec.biases { format!("{path}.adapter_down.0") } else { format!("{path}.adapter_down") };
        let up_path = format!("{path}.adapter_up");
        let (down_name, up_name) = (format!("{down_path}.weight"), format!("{up_path}.weight"));
        let count = spec.size * spec.inp;
        let zero_up = spec.init == AdapterInit::MamAdapter;
        let (down, up) = if zero_up {
            (init::kaiming(seed, &down_name, count, spec.inp), vec![0.0; spec.out * spec.size])
        } else {
            (
                init::normal(seed, &down_name, count, 0.02),
                init::normal(seed, &up_name, spec.out * spec.size, 0.02),
            )
        };
        let mut add = |name: String, shape: Vec<usize>, value: Vec<f32>, zero_grad: bool| {
            let mut param = Param::new(name, shape, value);
            param.zero_grad_at_start = zero_grad;
            params.add(param)
        };
        let down = add(down_name, vec![spec.size, spec.inp], down, zero_up);
        let down_bias = spec
            .biases
            .then(|| add(format!("{down_path}.bias"), vec![spec.size], vec![0.0; spec.size], zero_up));
        let up = add(up_name, vec![spec.out, spec.size], up, false);
        let up_bias =
            spec.biases.then(|| add(format!("{up_path}.bias"), vec![spec.out], vec![0.0; spec.out], false));
        Bottleneck {
            down,
            down_bias,
            up,
            up_bias,
            size: spec.size,
            activation: spec.activation,
            scale: spec.scale,
        }
    }

    /// M.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether U is zero before the first update.
    pub(crate) fn starts_at_zero(&self, params: &Params) -> bool {
        params.get(self.down).zero_grad_at_start
    }

    /// out (T, N) += s (U f(D x + b) + c); returns D x + b (T, M).
    pub(crate) fn forward(&self, params: &Params, x: &Rows, out: &mut Rows) -> Rows {
        let mut pre = Rows::scratch(x.rows(), self.size);
        params.nt(1.0, x, self.down, 0.0, &mut pre);
        if let Some(bias) = self.down_bias {
            elementwise::add_bias(params.value(bias), &mut pre);
        }
        params.nt(self.scale, &self.activated(&pre), self.up, 1.0, out);
        if let Some(bias) = self.up_bias {
            let scaled: Vec<f32> = params.value(bias).iter().map(|c| self.scale * c).collect();
            elementwise::add_bias(&scaled, out);
        }
        pre
    }

    /// Gradients of U, c, D, b from dy (T, N); returns dx (T, K) where it is wanted.
    pub(crate) fn backward(
        &self,
        params: &mut Params,
        x: &Rows,
        pre: &Rows,
        dy: &Rows,
        wanted: bool,
    ) -> Option<Rows> {
        if let Some(bias) = self.up_bias {
            let mut sums = vec![0.0; dy.width()];
            elementwise::bias_grad(dy, &mut sums);
            params.grad_mut(bias).iter_mut().zip(&sums).for_each(|(g, d)| *g += self.scale * d);
        }
        params.tn(self.scale, dy, &self.activated(pre), self.up);
        let mut dpre = Rows::scratch(pre.rows(), self.size);
        params.nn(self.scale, dy, self.up, 0.0, &mut dpre);
        activation::backward(self.activation, pre, &mut dpre);
        if let Some(bias) = self.down_bias {
            elementwise::bias_grad(&dpre, params.grad_mut(bias));
        }
        params.tn(1.0, &dpre, x, self.down);
        wanted.then(|| {
            let mut dx = Rows::scratch(x.rows(), x.width());
            params.nn(1.0, &dpre, self.down, 0.0, &mut dx);
            dx
        })
    }

    fn activated(&self, pre: &Rows) -> Rows {
        let mut h = Rows::scratch(pre.rows(), self.size);
        activation::forward(self.activation, pre, &mut h);
        h
    }
}
