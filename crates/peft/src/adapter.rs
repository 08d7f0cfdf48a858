//! An adapter: a configuration placed on a model. The three lists (methods, backbones, SIBO's
//! placements) meet here and nowhere else.

use crate::bottleneck::{Bottleneck, BottleneckSpec};
use crate::branch::Function;
use crate::config::{BottleneckConfig, Form, LoraConfig};
use crate::lambda::{Learned, Per};
use crate::lora::{EmbeddingLora, Lora};
use crate::targets::{self, LayerChoice, Targets};
use crate::{
    AdapterConfig, Bias, Branch, Dial, Error, Lambda, Method, ModelShape, Module, ModuleKind, Param, ParamId,
    Params, Placement, Sibo, Site, Skip, TaskType,
};
use sibo_kernels::mix;

/// Every key of a PEFT file starts so.
pub const KEY_PREFIX: &str = "base_model.model.";

/// Every theta of a learned lambda has a key that starts so, and then says what shares it.
pub const THETA_PREFIX: &str = "base_model.model.sibo_theta.";

/// Where a branch is joined to the frozen model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// y = W x + b + f(x~), at the linear of this path.
    Beside(String),
    /// y = W (x + f(x~)) + b.
    Before(String),
    /// z = y + f(y~), with y = W x + b.
    After(String),
    /// z = skip(y) + f(y~), with y the attention sub-layer's output in this layer.
    AfterAttention(usize),
    /// The same with the FFN's output.
    AfterFfn(usize),
    /// s' = s + f(r~), with s the residual sum behind attention in this layer, and r the norm of s where one follows it,
    /// else s.
    OnAttentionSum(usize),
    /// The same behind the FFN.
    OnFfnSum(usize),
    /// z = FFN(x) + f(x~).
    BesideFfn(usize),
}

/// A branch and its place.
#[derive(Debug, Clone)]
pub struct Placed {
    /// Where.
    pub at: At,
    /// What.
    pub branch: Branch,
}

impl Placed {
    /// Whether nothing that a fresh branch reads has a gradient: it gives zero, and no skip carries x~.
    fn rests(&self, params: &Params) -> bool {
        let series = matches!(self.at, At::After(_) | At::AfterAttention(_) | At::AfterFfn(_));
        self.branch.function.starts_at_zero(params) && !(series && self.branch.mixed_skip)
    }
}

/// Whether what a branch reads in the first layer is h0 itself, so that x~ = x at any lambda: in post-norm models the
/// attention's input.
fn reads_h0(reads: Site, shape: &ModelShape) -> bool {
    !shape.norm_before_ffn && matches!(reads, Site::Query | Site::Key | Site::Value)
}

/// All that is trained on a model.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// The configuration, with the defaults of the family filled in.
    pub config: AdapterConfig,
    /// The trainable tensors.
    pub params: Params,
    /// Branches in the model's order.
    pub placed: Vec<Placed>,
    /// LoRA on embeddings: path and matrices.
    pub embeddings: Vec<(String, EmbeddingLora)>,
    /// Base tensors that train: name in the model, and parameter.
    pub trained: Vec<(String, ParamId)>,
    /// Paths of the branches that SIBO enters.
    pub injected: Vec<String>,
    /// Those of them at which a lambda that is a number changes nothing, because what they read is h0 itself.
    pub idle: Vec<String>,
    /// Paths of the branches that run plain.
    pub plain: Vec<String>,
}

/// A learned lambda as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct LearnedLambda {
    /// What shares it: a kind of site, `layer 3`, or a module's path.
    pub of: String,
    /// Its value.
    pub lambda: f32,
}

impl Adapter {
    /// Learned lambdas as `params` has them, in their order; none where lambda is a number.
    pub fn learned_lambdas(params: &Params) -> Vec<LearnedLambda> {
        let thetas = params.iter().filter_map(|p| Some((p.name.strip_prefix(THETA_PREFIX)?, p)));
        let one = |(group, param): (&str, &Param)| {
            // A module's path has dots, and its underscores are its own.
            let of = if group.contains('.') { group.to_string() } else { group.replace('_', " ") };
            LearnedLambda { of, lambda: mix::of_theta(param.value[0]) }
        };
        thetas.map(one).collect()
    }

    /// Lambda now, where a run moves it: the mean over layers or thetas.
    pub fn moving_lambda(&self, params: &Params) -> Option<f64> {
        let sibo = &self.config.sibo;
        let values: Vec<f32> = match (&sibo.lambda, &sibo.course) {
            (Lambda::Learned(_), _) => Adapter::learned_lambdas(params).iter().map(|l| l.lambda).collect(),
            (_, None) => return None,
            (Lambda::Same(lambda), _) => vec![*lambda],
            (Lambda::PerLayer(list), _) => list.clone(),
        };
        Some(values.iter().map(|l| f64::from(*l)).sum::<f64>() / values.len().max(1) as f64)
    }

    /// Places `config` on a model. `base` gives the present values of a base tensor, for those that
    /// train; `seed` draws the rest. Refuses what no one can train.
    pub fn new(
        config: &AdapterConfig,
        shape: &ModelShape,
        seed: u64,
        base: &dyn Fn(&str) -> Option<Vec<f32>>,
    ) -> Result<Self, Error> {
        config.sibo.check(shape)?;
        let mut adapter = Adapter {
            config: config.clone(),
            params: Params::default(),
            placed: vec![],
            embeddings: vec![],
            trained: vec![],
            injected: vec![],
            idle: vec![],
            plain: vec![],
        };
        adapter.fill_in_modules_to_save(shape)?;
        match &config.method {
            Method::Lora(lora) => adapter.place_lora(lora, shape, seed)?,
            Method::Bottleneck(bottleneck) => adapter.place_bottleneck(bottleneck, shape, seed)?,
            Method::Head | Method::BitFit | Method::Full => {}
        }
        adapter.mark_resting_thetas();
        adapter.train_base(shape, base)?;
        if !config.sibo.is_plain() && adapter.injected.is_empty() {
            return Err(Error::Refused(format!(
                "lambda is above zero, but SIBO enters none of the branches ({}): none reads a state of width {} inside a layer under this placement. \
                 Target query, key, value or the FFN's first linears, or set lambda to 0.",
                adapter.plain.join(", "),
                shape.width
            )));
        }
        if adapter.params.is_empty() {
            return Err(Error::Refused(format!(
                "`{}` finds nothing to train in this {} model",
                config.method.name(),
                shape.family
            )));
        }
        Ok(adapter)
    }

    /// PEFT trains and saves the classification head with every method.
    fn fill_in_modules_to_save(&mut self, shape: &ModelShape) -> Result<(), Error> {
        match &shape.class_head {
            Some(head)
                if self.config.task_type == Some(TaskType::SeqCls)
                    && !self.config.modules_to_save.contains(head) =>
            {
                self.config.modules_to_save.push(head.clone());
            }
            Some(_) => {}
            None if matches!(self.config.method, Method::Head) => {
                return Err(Error::Refused(
                    "`head` trains a classification head, and this model has none: set task_type to SEQ_CLS"
                        .into(),
                ));
            }
            None => {}
        }
        Ok(())
    }

    fn place_lora(&mut self, lora: &LoraConfig, shape: &ModelShape, seed: u64) -> Result<(), Error> {
        const PLACE: &str = "adapter configuration";
        let saved = self.config.modules_to_save.clone();
        let modules =
            targets::select(shape, &lora.targets, lora.exclude.as_ref(), &saved, &lora.layers, PLACE)?;
        if lora.targets == Targets::Default
            && let Method::Lora(config) = &mut self.config.method
        {
            config.targets = Targets::List(shape.default_targets.iter().map(|s| s.to_string()).collect());
        }
        self.check_reference(shape, shape.reference.map(|r| r.lora))?;
        for module in modules {
            let rank = targets::pattern_value(&lora.rank_pattern, &module.path, "rank_pattern", PLACE)?;
            let alpha = targets::pattern_value(&lora.alpha_pattern, &module.path, "alpha_pattern", PLACE)?;
            let rank = rank.map_or(lora.r, |r| r as usize);
            let scale = lora.scale(rank, alpha.unwrap_or(lora.alpha));
            let enters = self.config.sibo.enters(module, shape)?;
            let path = format!("{KEY_PREFIX}{}", module.path);
            let lambda = self.dial(enters, module.layer, module.site, &module.path, shape);
            if module.kind == ModuleKind::Embedding {
                let pair =
                    EmbeddingLora::new(&mut self.params, &path, module.inp, module.out, rank, scale, seed);
                self.embeddings.push((module.path.clone(), pair));
                continue;
            }
            let pair =
                Lora::new(&mut self.params, &path, module.inp, module.out, rank, scale, lora.init, seed);
            let branch = self.branch(
                Function::Lora(pair),
                lambda,
                lora.dropout,
                module.layer.unwrap_or(usize::MAX),
                module.site,
            );
            self.placed.push(Placed { at: At::Beside(module.path.clone()), branch });
        }
        Ok(())
    }

    fn place_bottleneck(
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
        for (layer, layer_path) in shape.layer_paths.iter().enumerate() {
            let mut sites = vec![(Site::Ffn, "ffn_adapter")];
            if config.form == Form::Houlsby {
                sites.insert(0, (Site::Attention, "attention_adapter"));
            }
            for (site, name) in sites {
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

    /// Where the lambda of the branch at `path` comes from, which `reads` the state of a site of this kind. Takes down
    /// whether SIBO enters.
    fn dial(
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
    fn mark_resting_thetas(&mut self) {
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

    fn check_reference(&self, shape: &ModelShape, form: Option<&str>) -> Result<(), Error> {
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

    fn branch(&self, function: Function, lambda: Dial, dropout: f32, layer: usize, site: Site) -> Branch {
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

    /// Base tensors that train: those of `modules_to_save`, of a whole-model method, or biases.
    fn train_base(
        &mut self,
        shape: &ModelShape,
        base: &dyn Fn(&str) -> Option<Vec<f32>>,
    ) -> Result<(), Error> {
        let saved: Vec<String> =
            targets::saved_tensors(shape, &self.config.modules_to_save).iter().map(|t| t.0.clone()).collect();
        let in_head =
            |name: &str| shape.class_head.as_deref().is_some_and(|h| name.starts_with(&format!("{h}.")));
        let lora_bias: Vec<String> = self
            .placed
            .iter()
            .filter_map(|p| if let At::Beside(path) = &p.at { Some(format!("{path}.bias")) } else { None })
            .collect();
        let method = self.config.method.clone();
        let tied = shape.tied.iter().filter(|(name, _)| saved.contains(name));
        for (name, sizes) in shape.tensors.iter().chain(tied) {
            let is_bias = name.ends_with(".bias");
            let wanted = saved.contains(name)
                || match &method {
                    Method::Full => true,
                    Method::BitFit => is_bias || in_head(name),
                    Method::Head => in_head(name),
                    Method::Lora(lora) => match lora.bias {
                        Bias::None => false,
                        Bias::All => is_bias,
                        Bias::LoraOnly => lora_bias.contains(name),
                    },
                    Method::Bottleneck(_) => false,
                };
            if !wanted {
                continue;
            }
            let value =
                base(name).ok_or_else(|| Error::Refused(format!("the model has no values for `{name}`")))?;
            // PEFT keeps a bias of a wrapped linear under the wrapped layer's name.
            let key = match name.strip_suffix(".bias") {
                Some(path) if lora_bias.contains(name) && !saved.contains(name) => {
                    format!("{path}.base_layer.bias")
                }
                _ => name.clone(),
            };
            let mut param = Param::new(format!("{KEY_PREFIX}{key}"), sizes.clone(), value);
            param.decay = param.decay && !is_norm(name);
            self.trained.push((name.clone(), self.params.add(param)));
        }
        Ok(())
    }
}

/// transformers' Trainer decays neither biases nor norm weights.
fn is_norm(name: &str) -> bool {
    let module = name.rsplit('.').nth(1).unwrap_or("").to_ascii_lowercase();
    module.contains("norm") || module.starts_with("ln_")
}
