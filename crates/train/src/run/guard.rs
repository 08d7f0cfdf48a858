//! The first-step check: a trainable tensor that gets no usable gradient would train to nothing, and is named
//! before anything is updated.

use crate::Error;
use sibo_peft::{Param, Params};

/// Tensors that a report names.
const SHOWN: usize = 5;

/// What of the check is still to come.
#[derive(Debug, Default)]
pub(super) struct Guard {
    first_done: bool,
    /// An update has moved the tensors, so that those whose first gradient is rightly zero (LoRA's A, while B
    /// is zero) must have one now.
    moved: bool,
    all_done: bool,
}

impl Guard {
    /// Looks at fresh gradients of step `step`, from 1.
    pub(super) fn check(&mut self, step: usize, params: &Params) -> Result<(), Error> {
        if self.all_done || (self.first_done && !self.moved) {
            return Ok(());
        }
        let at_start = !self.moved;
        let mut report: Vec<String> = params.iter().filter_map(|p| fault(p, at_start)).collect();
        if !report.is_empty() {
            let rest = report.len().saturating_sub(SHOWN);
            report.truncate(SHOWN);
            report.extend((rest > 0).then(|| format!("and {rest} more tensors")));
            return Err(Error::Gradient { step, report: report.join("\n  ") });
        }
        self.first_done = true;
        self.all_done = self.moved;
        Ok(())
    }

    /// The first tensor that had a gradient before the first update and has none after it: the update went so far that
    /// the tensor decides nothing any more. That is a rate too high, where [`Guard::check`] finds what nothing reaches.
    pub(super) fn vanished<'p>(&self, params: &'p Params) -> Option<&'p str> {
        let asked = self.first_done && self.moved && !self.all_done;
        let lost = |p: &&Param| !p.zero_grad_at_start && p.grad.iter().all(|g| *g == 0.0);
        params.iter().find(|p| asked && lost(p)).map(|p| p.name.as_str())
    }

    /// An update was made at this rate; the first of a warm-up moves nothing.
    pub(super) fn updated(&mut self, lr: f64) {
        self.moved |= lr > 0.0;
    }

    /// A run that goes on after `steps` steps passed the check then.
    pub(super) fn resumed(&mut self, steps: usize) {
        self.all_done = steps > 0;
    }
}

fn fault(param: &Param, at_start: bool) -> Option<String> {
    // Later ones are a run that diverges, which is told of the whole gradient.
    if at_start && let Some(at) = param.grad.iter().position(|g| !g.is_finite()) {
        return Some(format!("`{}` is {} at place {at}", param.name, param.grad[at]));
    }
    let zero = param.grad.iter().all(|g| *g == 0.0);
    let expected = at_start && param.zero_grad_at_start;
    let what = "is zero everywhere: no row reaches it, or nothing below it depends on it";
    (zero && !expected).then(|| format!("`{}` {what}", param.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(grads: &[&[f32]]) -> Params {
        let mut params = Params::default();
        for (i, grad) in grads.iter().enumerate() {
            let mut param = Param::new(format!("t{i}"), vec![grad.len()], vec![0.5; grad.len()]);
            param.grad = grad.to_vec();
            param.zero_grad_at_start = i == 0;
            params.add(param);
        }
        params
    }

    #[test]
    fn zero_and_not_finite_gradients_are_named() {
        let mut guard = Guard::default();
        let said = |e: Error| e.to_string();
        let zero = guard.check(1, &params(&[&[0.0, 0.0], &[0.0, 0.0, 0.0]])).unwrap_err();
        assert!(said(zero).contains("step 1: the gradient of `t1` is zero everywhere"));
        let nan = guard.check(1, &params(&[&[0.0, f32::NAN], &[0.3]])).unwrap_err();
        assert!(said(nan).contains("`t0` is NaN at place 1"));
    }

    #[test]
    fn a_zero_that_was_promised_is_asked_for_again_once_something_moved() {
        let mut guard = Guard::default();
        let at_start = params(&[&[0.0], &[0.7]]);
        guard.check(1, &at_start).unwrap();
        guard.updated(0.0);
        guard.check(2, &at_start).unwrap();
        guard.updated(3e-4);
        assert_eq!(guard.vanished(&at_start), None);
        assert_eq!(guard.vanished(&params(&[&[0.2], &[0.0]])), Some("t1"));
        let said = guard.check(3, &at_start).unwrap_err().to_string();
        assert!(said.contains("step 3") && said.contains("`t0`"), "{said}");
        guard.check(3, &params(&[&[0.1], &[0.7]])).unwrap();
        guard.check(4, &params(&[&[0.0], &[0.0]])).unwrap();
        assert_eq!(guard.vanished(&params(&[&[0.0], &[0.0]])), None, "a loss may come to nothing later");
    }
}
