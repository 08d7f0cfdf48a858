//! Bottleneck adapters: after or beside the sub-layers, or at single linears.

use super::{Adapter, At, KEY_PREFIX, Placed};
use crate::bottleneck::{Bottleneck, BottleneckSpec};
use crate::branch::Function;
use crate::config::{BottleneckConfig, Form};
use crate::targets::{self, LayerChoice, Targets};
use crate::{Dial, Error, Method, ModelShape, Module, Placement, Site, Skip};

impl Adapter {
    pub(super) fn place_bottleneck(
        &mut self,
        config: &BottleneckConfig,
        shape: &ModelShape,
        seed: u64,
    ) -> Result<(), Error> {
        if config.form == Form::InLinear {
            return self.place_in_linear(config, shape, seed);
        }
        if self.config.sibo.placement == Placement::Reference {
            return Err(Error::Refused(format!(
                "placement `reference` exists for LoRA and for in_linear adapters on LLaMA, not for {}; use `paper` or a list",
                config.form.name()
            )));
        }
        let sibo = &self.config.sibo;
        if config.original_ln_before && sibo.skip == Skip::Mixed && !sibo.is_plain() {
            return Err(Error::Refused(
                "skip `mixed` has no meaning with original_ln_before: such an adapter reads the residual sum and its skip carries \
                 the sub-layer's output, which is another state; use skip `original`"
                    .into(),
            ));
        }
        let mut sites = vec![(Site::Ffn, "ffn_adapter")];
        if config.form == Form::Houlsby {
            sites.insert(0, (Site::Attention, "attention_adapter"));
        }
        for (layer, layer_path) in shape.layer_paths.iter().enumerate() {
            for &(site, name) in &sites {
                let path = format!("{layer_path}.{name}");
                let listed = !matches!(self.config.sibo.placement, Placement::List(_))
                    || self.config.sibo.lists(&path);
                let reads = if config.form == Form::Parallel { Site::FfnUp } else { site };
                let lambda = self.dial(listed, Some(layer), reads, &path, shape);
                let at = match (config.form, site, config.original_ln_before) {
                    (Form::Parallel, ..) => At::BesideFfn(layer),
                    (_, Site::Attention, false) => At::AfterAttention(layer),
                    (_, Site::Attention, true) => At::OnAttentionSum(layer),
                    (_, _, false) => At::AfterFfn(layer),
                    (_, _, true) => At::OnFfnSum(layer),
                };
                self.add_bottleneck(
                    config,
                    &path,
                    at,
                    (shape.width, shape.width),
                    true,
                    lambda,
                    layer,
                    site,
                    seed,
                    shape,
                );
            }
        }
        Ok(())
    }

    /// LLM-Adapters' placement: before the linears that read the token's state, after the one that
    /// returns to it.
    fn place_in_linear(
        &mut self,
        config: &BottleneckConfig,
        shape: &ModelShape,
        seed: u64,
    ) -> Result<(), Error> {
        const PLACE: &str = "adapter configuration";
        if shape.in_linear.is_empty() {
            return Err(Error::Refused(format!(
                "in_linear adapters are LLM-Adapters' form for causal models; a {} model takes houlsby, pfeiffer or parallel",
                shape.family
            )));
        }
        self.check_reference(shape, shape.reference.and_then(|r| r.in_linear.first().copied()))?;
        let before_ones = || {
            shape.in_linear.iter().filter(|(_, before)| *before).map(|(name, _)| name.to_string()).collect()
        };
        let chosen = match &config.targets {
            Targets::Default => Targets::List(before_ones()),
            other => other.clone(),
        };
        let saved = self.config.modules_to_save.clone();
        for module in targets::select(shape, &chosen, None, &saved, &LayerChoice::default(), PLACE)? {
            let Some((_, before)) = shape.in_linear.iter().find(|(name, _)| *name == module.name()) else {
                let names: Vec<&str> = shape.in_linear.iter().map(|(n, _)| *n).collect();
                return Err(Error::key(
                    PLACE,
                    "target_modules",
                    format!(
                        "in_linear adapters have no form at `{}`; they have one at {}",
                        module.path,
                        names.join(", ")
                    ),
                ));
            };
            // After a linear the adapter reads what that gives: the sub-layer's output.
            let reads = match (before, module.site) {
                (false, Site::FfnDown) => Site::Ffn,
                (false, Site::AttnOut) => Site::Attention,
                (_, site) => site,
            };
            let enters = self.enters_in_linear(module, shape);
            let lambda = self.dial(enters, module.layer, reads, &module.path, shape);
            let (at, width) = if *before {
                (At::Before(module.path.clone()), module.inp)
            } else {
                (At::After(module.path.clone()), module.out)
            };
            let layer = module.layer.unwrap_or(usize::MAX);
            self.add_bottleneck(
                config,
                &module.path,
                at,
                (width, width),
                false,
                lambda,
                layer,
                module.site,
                seed,
                shape,
            );
        }
        if let Method::Bottleneck(own) = &mut self.config.method {
            own.targets = chosen;
        }
        Ok(())
    }

    fn enters_in_linear(&self, module: &Module, shape: &ModelShape) -> bool {
        match &self.config.sibo.placement {
            Placement::Paper => true,
            Placement::Reference => shape.reference.is_some_and(|r| r.in_linear.contains(&module.name())),
            Placement::List(_) => self.config.sibo.lists(&module.path),
        }
    }

    fn add_bottleneck(
        &mut self,
        config: &BottleneckConfig,
        path: &str,
        at: At,
        (inp, out): (usize, usize),
        biases: bool,
        lambda: Dial,
        layer: usize,
        site: Site,
        seed: u64,
        shape: &ModelShape,
    ) {
        let spec = BottleneckSpec {
            inp,
            out,
            size: config.units(shape.width),
            activation: config.activation,
            scale: config.scaling,
            init: config.init,
            biases,
        };
        let adapter = Bottleneck::new(&mut self.params, &format!("{KEY_PREFIX}{path}"), spec, seed);
        let mut branch = self.branch(Function::Bottleneck(adapter), lambda, config.dropout, layer, site);
        branch.drop_output = config.dropout_after_up;
        self.placed.push(Placed { at, branch });
    }
}
