//! A branch: f(x~) beside a frozen operation. SIBO lives here, once, for every method.
//!
//! `read` makes what the method sees, x~ = (1 - lambda) x + lambda h0 and then dropout; `unmix` is
//! its backward, into x, h0 and a learned lambda. A method's own file knows neither lambda nor h0.

use crate::bottleneck::Bottleneck;
use crate::lora::Lora;
use crate::{Dial, H0, Params, Site};
use sibo_kernels::drop::{self, DropKey, Mask};
use sibo_kernels::mix::{self, H0Scale};
use sibo_kernels::{Rows, elementwise};
use std::cell::RefCell;
use std::ops::Range;

/// Where dropout masks come from: the address of each row (architecture.md, seam 4).
#[derive(Debug, Clone, Copy)]
pub struct DropSource<'a> {
    /// Seed of the run and number of the pass over the data.
    pub key: DropKey,
    /// (T) sample of each row.
    pub samples: &'a [u64],
    /// (T) place of each row in its sample.
    pub positions: &'a [u32],
}

/// What travels with every call of a branch.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// (T, D) what entered the first layer.
    pub h0: &'a Rows,
    /// Dropout is on if and only if this is there: a mode of the call, not a state of the module.
    pub drop: Option<DropSource<'a>>,
    /// Sees what each branch adds, and to what; only probes ask for it.
    pub seen: Option<&'a Seen<'a>>,
}

impl Call<'_> {
    /// The mask of one site of a layer, where dropout is on and p is not 0.
    pub fn mask(&self, p: f32, layer: usize, salt: u64) -> Option<Mask> {
        self.drop.and_then(|source| source.mask(p, layer, salt))
    }
}

/// The addresses of some of a pass's rows, for a module that reads only those.
#[derive(Debug, Clone)]
pub struct DropRows {
    key: DropKey,
    samples: Vec<u64>,
    positions: Vec<u32>,
}

impl DropRows {
    /// The addresses of those within `range`.
    pub fn source(&self, range: Range<usize>) -> DropSource<'_> {
        DropSource { key: self.key, samples: &self.samples[range.clone()], positions: &self.positions[range] }
    }
}

impl DropSource<'_> {
    /// The addresses of the rows `at`: each keeps its own, so a mask does not know what else was read.
    pub fn pick(&self, at: &[usize]) -> DropRows {
        DropRows {
            key: self.key,
            samples: at.iter().map(|t| self.samples[*t]).collect(),
            positions: at.iter().map(|t| self.positions[*t]).collect(),
        }
    }

    /// The mask of one site of a layer, where p is not 0.
    pub fn mask(&self, p: f32, layer: usize, salt: u64) -> Option<Mask> {
        let keys = || drop::row_keys(self.key, self.samples, self.positions, layer as u64, salt);
        (p > 0.0).then(|| Mask { p, keys: keys() })
    }
}

/// Is told, branch by branch, the rows that it adds (T, N) and those that it adds them to (T, N).
pub type See<'a> = &'a mut dyn FnMut(&Branch, &Rows, &Rows);

/// A visitor that a shared call can carry.
pub struct Seen<'a>(RefCell<See<'a>>);

impl<'a> Seen<'a> {
    /// Around `see`.
    pub fn new(see: See<'a>) -> Self {
        Seen(RefCell::new(see))
    }
}

impl std::fmt::Debug for Seen<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seen")
    }
}

/// The two input-driven methods.
#[derive(Debug, Clone)]
pub enum Function {
    /// s B A x
    Lora(Lora),
    /// s (U f(D x + b) + c)
    Bottleneck(Bottleneck),
}

impl Function {
    /// Whether a fresh one gives zero whatever it reads, so that what it reads has no gradient yet.
    pub(crate) fn starts_at_zero(&self, params: &Params) -> bool {
        match self {
            Function::Lora(lora) => lora.starts_at_zero(params),
            Function::Bottleneck(adapter) => adapter.starts_at_zero(params),
        }
    }
}

/// f with its place and its SIBO settings.
#[derive(Debug, Clone)]
pub struct Branch {
    /// The method.
    pub function: Function,
    /// How much of h0.
    pub lambda: Dial,
    /// The form of h0.
    pub h0: H0,
    /// Whether a series adapter's own skip carries x~.
    pub mixed_skip: bool,
    /// Dropout on what the method reads,
    pub dropout: f32,
    /// or, as adapter-hub has it, on what it gives.
    pub drop_output: bool,
    /// Layer, for the mask's address.
    pub layer: usize,
    /// Site, for the mask's address.
    pub site: Site,
}

/// What the backward pass needs beside x: (T, R) or (T, M).
#[derive(Debug)]
pub struct BranchSaved(Rows);

/// x itself where nothing changes it, or a changed copy.
enum Input<'a> {
    Same(&'a Rows),
    Changed(Rows),
}

impl Input<'_> {
    fn rows(&self) -> &Rows {
        match self {
            Input::Same(rows) => rows,
            Input::Changed(rows) => rows,
        }
    }
}

impl Branch {
    /// out += f(drop(x~)), or drop(f(x~)); x is (T, K), out (T, N).
    pub fn forward(&self, call: &Call, params: &Params, x: &Rows, out: &mut Rows) -> BranchSaved {
        let input = self.read(call, params, x);
        if let Some(seen) = call.seen {
            let mut given = Rows::zeros(out.rows(), out.width());
            self.add(params, input.rows(), &mut given);
            (seen.0.borrow_mut())(self, &given, out);
        }
        let Some(mask) = self.mask(call).filter(|_| self.drop_output) else {
            return self.add(params, input.rows(), out);
        };
        let mut given = Rows::zeros(out.rows(), out.width());
        let saved = self.add(params, input.rows(), &mut given);
        mask.apply(&mut given);
        elementwise::add(&given, out);
        saved
    }

    fn add(&self, params: &Params, input: &Rows, out: &mut Rows) -> BranchSaved {
        BranchSaved(match &self.function {
            Function::Lora(lora) => lora.forward(params, input, out),
            Function::Bottleneck(adapter) => adapter.forward(params, input, out),
        })
    }

    /// Parameter gradients += from dy (T, N); dx (T, K) += and dh0 (T, D) += where wanted.
    pub fn backward(
        &self,
        call: &Call,
        params: &mut Params,
        x: &Rows,
        saved: &BranchSaved,
        dy: &Rows,
        dx: Option<&mut Rows>,
        dh0: Option<&mut Rows>,
    ) {
        let input = self.read(call, params, x);
        // A learned lambda asks for the gradient of x~ even where nothing below trains.
        let wanted = dx.is_some() || self.learns();
        let mask = self.mask(call);
        let masked = mask.as_ref().filter(|_| self.drop_output).map(|mask| mask.copy(dy));
        let dy = masked.as_ref().unwrap_or(dy);
        let dinput = match &self.function {
            Function::Lora(lora) => lora.backward(params, input.rows(), &saved.0, dy, wanted),
            Function::Bottleneck(adapter) => adapter.backward(params, input.rows(), &saved.0, dy, wanted),
        };
        if let Some(mut dinput) = dinput {
            let mask = mask.filter(|_| !self.drop_output);
            let lambda = self.lambda.value(params);
            let only_x = !self.learns() && (dh0.is_none() || lambda == 0.0);
            match (mask, dx) {
                (Some(mask), Some(dx)) if only_x => mix::backward_dropped(lambda, &mask, &dinput, dx),
                (Some(mask), dx) => {
                    mask.apply(&mut dinput);
                    self.unmix(call, params, x, &dinput, dx, dh0);
                }
                (None, dx) => self.unmix(call, params, x, &dinput, dx, dh0),
            }
        }
    }

    /// Numbers that the branch keeps for each row until its backward pass.
    pub fn kept_per_row(&self) -> usize {
        match &self.function {
            Function::Lora(lora) => lora.rank(),
            Function::Bottleneck(adapter) => adapter.size(),
        }
    }

    /// Whether this branch's lambda is trained.
    pub fn learns(&self) -> bool {
        matches!(self.lambda, Dial::Learned(_))
    }

    /// x~, for a skip connection that takes it; `None` where it is x.
    pub fn mixed(&self, call: &Call, params: &Params, x: &Rows) -> Option<Rows> {
        let lambda = self.lambda.value(params);
        (lambda != 0.0).then(|| mixture(lambda, self.h0, x, call.h0))
    }

    /// Gradient of x~ into x, h0 and a learned lambda: dx += (1 - lambda) d, dh0 += lambda s d.
    pub fn unmix(
        &self,
        call: &Call,
        params: &mut Params,
        x: &Rows,
        d: &Rows,
        dx: Option<&mut Rows>,
        dh0: Option<&mut Rows>,
    ) {
        let lambda = self.lambda.value(params);
        if let Dial::Learned(theta) = self.lambda {
            let gradient = mix::theta_gradient(lambda, self.scale(), x, call.h0, d);
            params.grad_mut(theta)[0] += gradient as f32;
        }
        match (lambda == 0.0, dx) {
            (true, Some(dx)) => elementwise::add(d, dx),
            (true, None) => {}
            (false, dx) => mix::backward(lambda, self.scale(), x, call.h0, d, dx, dh0),
        }
    }

    fn read<'a>(&self, call: &Call, params: &Params, x: &'a Rows) -> Input<'a> {
        let lambda = self.lambda.value(params);
        match (lambda != 0.0, self.mask(call).filter(|_| !self.drop_output)) {
            (false, None) => Input::Same(x),
            (false, Some(mask)) => Input::Changed(mask.copy(x)),
            (true, None) => Input::Changed(mixture(lambda, self.h0, x, call.h0)),
            (true, Some(mask)) => {
                let mut out = Rows::scratch(x.rows(), x.width());
                mix::forward_dropped(lambda, self.scale(), x, call.h0, &mask, &mut out);
                Input::Changed(out)
            }
        }
    }

    fn mask(&self, call: &Call) -> Option<Mask> {
        call.mask(self.dropout, self.layer, self.site.salt())
    }

    fn scale(&self) -> H0Scale {
        scale_of(self.h0)
    }
}

/// x~ (T, D), as a branch with this lambda reads it.
pub fn mixture(lambda: f32, form: H0, x: &Rows, h0: &Rows) -> Rows {
    let mut out = Rows::scratch(x.rows(), x.width());
    mix::forward(lambda, scale_of(form), x, h0, &mut out);
    out
}

fn scale_of(form: H0) -> H0Scale {
    match form {
        H0::Raw => H0Scale::Raw,
        H0::Rms => H0Scale::Rms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lora::LoraInit;
    use sibo_kernels::frozen::Compute;

    fn rows(seed: usize, t: usize, d: usize) -> Rows {
        let values: Vec<f32> = (0..t * d).map(|i| ((i * 31 + seed * 17) % 23) as f32 / 7.0 - 1.5).collect();
        Rows::from_slice(&values, d)
    }

    /// With x~ = 0.7 x + 0.3 h0 and dropout behind it, the gradients of x and h0 are one gradient in shares of 0.7 and 0.3.
    #[test]
    fn a_branch_that_drops_gives_h0_its_share_of_the_gradient() {
        let (t, d, out) = (4, 9, 5);
        let mut params = Params::new(Compute::F32);
        let lora = Lora::new(&mut params, "q", d, out, 3, 0.8, LoraInit::Random, 7);
        let branch = Branch {
            function: Function::Lora(lora),
            lambda: Dial::Fixed(0.3),
            h0: H0::Raw,
            mixed_skip: false,
            dropout: 0.4,
            drop_output: false,
            layer: 1,
            site: Site::Query,
        };
        let (x, h0, dy) = (rows(1, t, d), rows(2, t, d), rows(3, t, out));
        let source = DropSource {
            key: DropKey { seed: 5, epoch: 2 },
            samples: &[0, 0, 1, 1],
            positions: &[0, 1, 0, 1],
        };
        let call = Call { h0: &h0, drop: Some(source), seen: None };
        let mut y = Rows::zeros(t, out);
        let saved = branch.forward(&call, &params, &x, &mut y);
        let (mut dx, mut dh0) = (Rows::zeros(t, d), Rows::zeros(t, d));
        branch.backward(&call, &mut params, &x, &saved, &dy, Some(&mut dx), Some(&mut dh0));
        assert!(dx.data().contains(&0.0) && dx.data().iter().any(|v| v.abs() > 1e-3));
        for (dx, dh0) in dx.data().iter().zip(dh0.data()) {
            assert!((dx * 0.3 - dh0 * 0.7).abs() < 1e-6, "{dx} {dh0}");
        }
        let mut alone = Rows::zeros(t, d);
        branch.backward(&call, &mut params, &x, &saved, &dy, Some(&mut alone), None);
        assert_eq!(alone.data(), dx.data());
    }
}
