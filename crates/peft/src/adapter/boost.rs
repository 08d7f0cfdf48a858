//! SIBO around a branch: whether h0 enters it, and by how much.

use super::{Adapter, THETA_PREFIX, reads_h0};
use crate::branch::Function;
use crate::lambda::{Learned, Per};
use crate::{Branch, Dial, Error, Lambda, ModelShape, Param, ParamId, Placement, Sibo, Site, Skip};
use sibo_kernels::mix;

impl Adapter {
    /// Where the lambda of the branch at `path` comes from, which `reads` the state of a site of this kind. Takes down
    /// whether SIBO enters.
    pub(super) fn dial(
        &mut self,
        enters: bool,
        layer: Option<usize>,
        reads: Site,
        path: &str,
        shape: &ModelShape,
    ) -> Dial {
        let sibo = &self.config.sibo;
        let dial = match (layer.filter(|_| enters), &sibo.lambda) {
            (Some(0), Lambda::Learned(_)) if reads_h0(reads, shape) => Dial::Plain,
            (Some(layer), Lambda::Learned(learned)) => {
                Dial::Learned(self.theta(*learned, layer, reads, path))
            }
            (Some(layer), numbers) if sibo.acts_at(layer) => Dial::Fixed(numbers.at(layer)),
            _ => Dial::Plain,
        };
        if dial == Dial::Plain {
            self.plain.push(path.into())
        } else {
            self.injected.push(path.into());
            if layer == Some(0) && reads_h0(reads, shape) {
                self.idle.push(path.into());
            }
        }
        dial
    }

    /// The theta of a branch, made when the first one asks for it.
    fn theta(&mut self, learned: Learned, layer: usize, reads: Site, path: &str) -> ParamId {
        let group = match learned.per {
            Per::Kind => reads.kind().replace(' ', "_"),
            Per::Layer => format!("layer_{layer}"),
            Per::Module => path.into(),
        };
        let name = format!("{THETA_PREFIX}{group}");
        self.params.find(&name).unwrap_or_else(|| {
            let mut param = Param::new(name, vec![1], vec![mix::to_theta(learned.init)]);
            (param.decay, param.theta) = (false, true);
            self.params.add(param)
        })
    }

    /// A theta has no gradient before the first update where all its branches give zero whatever they read.
    pub(super) fn mark_resting_thetas(&mut self) {
        let thetas = (0..self.placed.len()).filter_map(|i| match self.placed[i].branch.lambda {
            Dial::Learned(theta) => Some((theta, i)),
            _ => None,
        });
        let thetas: Vec<(ParamId, usize)> = thetas.collect();
        for (theta, _) in &thetas {
            let own = thetas.iter().filter(|(other, _)| other == theta);
            let rests = own.map(|(_, i)| &self.placed[*i]).all(|p| p.rests(&self.params));
            self.params.get_mut(*theta).zero_grad_at_start = rests;
        }
    }

    pub(super) fn check_reference(&self, shape: &ModelShape, form: Option<&str>) -> Result<(), Error> {
        if self.config.sibo.placement != Placement::Reference || self.config.sibo.is_plain() || form.is_some()
        {
            return Ok(());
        }
        let why = match shape.reference {
            None => format!("the released SIBO code has no {} model", shape.family),
            Some(_) => format!(
                "on {} the released code mixes h0 into the whole FFN input, which the frozen matmul then sees too, so it is not a branch",
                shape.family
            ),
        };
        Err(Error::Refused(format!(
            "placement `reference` is refused here: {why}. Use `paper` or a list of sites."
        )))
    }

    pub(super) fn branch(
        &self,
        function: Function,
        lambda: Dial,
        dropout: f32,
        layer: usize,
        site: Site,
    ) -> Branch {
        let &Sibo { h0, skip, .. } = &self.config.sibo;
        Branch {
            function,
            lambda,
            h0,
            mixed_skip: skip == Skip::Mixed,
            dropout,
            drop_output: false,
            layer,
            site,
        }
    }
}
