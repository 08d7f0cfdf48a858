//! An adapter: a configuration placed on a model. The three lists (methods, backbones, SIBO's
//! placements) meet here and nowhere else.

mod boost;
mod bottleneck;
mod lora;

use crate::lora::EmbeddingLora;
use crate::targets;
use crate::{
    AdapterConfig, Bias, Branch, Error, Lambda, Method, ModelShape, Param, ParamId, Params, Site, TaskType,
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
                "lambda is above zero, but SIBO enters none of the branches ({}): none reads a state of width {} inside a layer under this placement, or lambda is 0 in the layers of those that do. \
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
