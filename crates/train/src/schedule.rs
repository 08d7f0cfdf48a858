//! Learning rates over steps: warm-up from zero, then constant, linear to zero, or a half cosine, as
//! transformers' `get_scheduler` has them.

/// The shape after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScheduleKind {
    /// Straight down to zero.
    Linear,
    /// Half a cosine down to zero.
    Cosine,
    /// Level.
    Constant,
}

/// A schedule over optimiser steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The shape.
    pub kind: ScheduleKind,
    /// Steps of warm-up.
    pub warmup_steps: usize,
    /// All steps of the run, warm-up counted.
    pub total_steps: usize,
}

impl Schedule {
    /// What the peak rate is multiplied with at the k-th update, counted from 0. With warm-up the first is 0.
    pub fn factor(&self, k: usize) -> f64 {
        if k < self.warmup_steps {
            return k as f64 / self.warmup_steps as f64;
        }
        let left = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let progress = ((k - self.warmup_steps) as f64 / left).min(1.0);
        match self.kind {
            ScheduleKind::Linear => 1.0 - progress,
            ScheduleKind::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            ScheduleKind::Constant => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(kind: ScheduleKind) -> Vec<f64> {
        let schedule = Schedule { kind, warmup_steps: 2, total_steps: 7 };
        (0..8).map(|k| (schedule.factor(k) * 1e6).round() / 1e6).collect()
    }

    #[test]
    fn shapes() {
        assert_eq!(factors(ScheduleKind::Linear), [0.0, 0.5, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0]);
        assert_eq!(factors(ScheduleKind::Constant), [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(factors(ScheduleKind::Cosine)[2..], [1.0, 0.904508, 0.654508, 0.345492, 0.095492, 0.0]);
    }
}
