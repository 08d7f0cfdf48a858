//! Inverse frequencies of rotary positions: plain, `linear`, `dynamic` and `llama3`, as transformers
//! computes them (`modeling_rope_utils.py`, 5.24), in f32.

use sibo_kernels::rope::RopeStyle;

/// How positions beyond the training length are squeezed in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Frequencies divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// NTK: for rows longer than `original`, the base grows with the row's length.
    Dynamic {
        /// The factor.
        factor: f64,
        /// Length up to which nothing changes.
        original: usize,
    },
    /// LLaMA 3: long wavelengths divided by the factor, short ones kept, a smooth band between.
    Llama3 {
        /// The factor.
        factor: f64,
        /// Start of the smooth band.
        low: f64,
        /// End of the smooth band.
        high: f64,
        /// Length of the original training.
        original: usize,
    },
}

/// Rotary positions of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeSpec {
    /// Which values form a pair.
    pub style: RopeStyle,
    /// How many values of each head turn.
    pub rotary_dim: usize,
    /// The base.
    pub theta: f64,
    /// The scaling.
    pub scaling: RopeScaling,
}

impl RopeSpec {
    /// Inverse frequencies (rotary_dim / 2) for a row of `len` tokens.
    pub fn inverse_frequencies(&self, len: usize) -> Vec<f32> {
        let plain = |theta: f64| -> Vec<f32> {
            let dim = self.rotary_dim as f32;
            (0..self.rotary_dim).step_by(2).map(|i| 1.0 / (theta as f32).powf(i as f32 / dim)).collect()
        };
        match self.scaling {
            RopeScaling::None => plain(self.theta),
            RopeScaling::Linear { factor } => {
                plain(self.theta).into_iter().map(|f| f / factor as f32).collect()
            }
            RopeScaling::Dynamic { factor, original } => {
                let len = len.max(original) as f64;
                let dim = self.rotary_dim as f64;
                let growth = (factor * len / original as f64 - (factor - 1.0)).powf(dim / (dim - 2.0));
                plain(self.theta * growth)
            }
            RopeScaling::Llama3 { factor, low, high, original } => {
                plain(self.theta).into_iter().map(|f| llama3(f, factor, low, high, original as f64)).collect()
            }
        }
    }

    /// Whether a row of `len` tokens needs frequencies of its own.
    pub fn depends_on(&self, len: usize) -> bool {
        matches!(self.scaling, RopeScaling::Dynamic { original, .. } if len > original)
    }
}

fn llama3(frequency: f32, factor: f64, low: f64, high: f64, original: f64) -> f32 {
    let wavelength = (2.0 * std::f64::consts::PI) as f32 / frequency;
    if wavelength > (original / low) as f32 {
        return frequency / factor as f32;
    }
    if wavelength < (original / high) as f32 {
        return frequency;
    }
    let smooth = (original as f32 / wavelength - low as f32) / (high - low) as f32;
    (1.0 - smooth) * frequency / factor as f32 + smooth * frequency
}
