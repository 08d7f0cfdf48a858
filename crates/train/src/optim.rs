//! The optimiser over all parameters, and clipping by their joint norm.

use sibo_kernels::optim;
use sibo_peft::Params;

/// The rule of an update.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    AdamW { beta1: f64, beta2: f64, eps: f64 },
    Sgd { momentum: f64 },
}

/// An optimiser and its memory.
#[derive(Debug, Clone)]
pub struct Optimiser {
    rule: Rule,
    weight_decay: f64,
    /// The learning rate of a learned lambda's theta, as a multiple of the others'.
    theta_rate: f64,
    state: OptimiserState,
}

/// What an optimiser remembers: updates made, and for each parameter its moments (AdamW: first and
/// second; SGD: the momentum buffer and nothing), in the order of [`Params`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OptimiserState {
    /// Updates made.
    pub steps: u64,
    /// First moments or momentum buffers; empty before the first update.
    pub first: Vec<Vec<f32>>,
    /// Second moments; empty for SGD.
    pub second: Vec<Vec<f32>>,
}

impl Optimiser {
    /// Decoupled weight decay (arXiv 1711.05101), as `torch.optim.AdamW`.
    pub fn adamw(beta1: f64, beta2: f64, eps: f64, weight_decay: f64) -> Self {
        Optimiser {
            rule: Rule::AdamW { beta1, beta2, eps },
            weight_decay,
            theta_rate: 1.0,
            state: OptimiserState::default(),
        }
    }

    /// As `torch.optim.SGD`.
    pub fn sgd(momentum: f64, weight_decay: f64) -> Self {
        Optimiser {
            rule: Rule::Sgd { momentum },
            weight_decay,
            theta_rate: 1.0,
            state: OptimiserState::default(),
        }
    }

    /// Thetas of a learned lambda take `rate` times the learning rate of the rest.
    pub fn with_theta_rate(self, rate: f64) -> Self {
        Optimiser { theta_rate: rate, ..self }
    }

    /// One update of every parameter from its gradient, at this learning rate.
    pub fn step(&mut self, params: &mut Params, lr: f64) {
        let two = matches!(self.rule, Rule::AdamW { .. });
        if self.state.first.is_empty() {
            self.state.first = params.iter().map(|p| vec![0.0; p.value.len()]).collect();
            self.state.second =
                params.iter().map(|p| if two { vec![0.0; p.value.len()] } else { vec![] }).collect();
        }
        self.state.steps += 1;
        let moments = self.state.first.iter_mut().zip(&mut self.state.second);
        for (param, (first, second)) in params.iter_mut().zip(moments) {
            let decay = if param.decay { self.weight_decay } else { 0.0 };
            let lr = if param.theta { lr * self.theta_rate } else { lr };
            let (p, g) = (&mut param.value, &param.grad);
            match self.rule {
                Rule::AdamW { beta1, beta2, eps } => {
                    optim::adamw(p, g, first, second, lr, beta1, beta2, eps, decay, self.state.steps);
                }
                Rule::Sgd { momentum } => {
                    let buffer = (momentum != 0.0).then_some(first.as_mut_slice());
                    optim::sgd(p, g, buffer, lr, momentum, decay);
                }
            }
        }
    }

    /// The memory, for a checkpoint.
    pub fn state(&self) -> &OptimiserState {
        &self.state
    }

    /// Takes a checkpoint's memory; says what does not fit.
    pub fn restore(&mut self, params: &Params, state: OptimiserState) -> Result<(), String> {
        let fits = |moments: &[Vec<f32>], empty_ok: bool| {
            moments.len() == params.len()
                && params
                    .iter()
                    .zip(moments)
                    .all(|(p, m)| m.len() == p.value.len() || (empty_ok && m.is_empty()))
        };
        if state.steps > 0
            && !(fits(&state.first, false) && fits(&state.second, matches!(self.rule, Rule::Sgd { .. })))
        {
            return Err(format!(
                "the optimiser's moments are for {} tensors of other sizes than the {} that train here",
                state.first.len(),
                params.len()
            ));
        }
        self.state = state;
        Ok(())
    }
}

/// Scales all gradients so that their joint norm is at most `max_norm`; returns the norm before.
pub fn clip(params: &mut Params, max_norm: f64) -> f64 {
    let norm = grad_norm(params);
    let factor = max_norm / (norm + 1e-6);
    if factor < 1.0 {
        for param in params.iter_mut() {
            sibo_kernels::elementwise::scale_slice(factor as f32, &mut param.grad);
        }
    }
    norm
}

/// The norm of all gradients together.
pub fn grad_norm(params: &Params) -> f64 {
    params.iter().map(|p| optim::sum_squares(&p.grad)).sum::<f64>().sqrt()
}
