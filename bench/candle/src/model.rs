//! LLaMA with PEFT's LoRA, in candle's tensors. For training the operations that candle can differentiate, for
//! generation its fused ones.

use anyhow::{Context, Result};
use candle_core::safetensors::MmapedSafetensors;
use candle_core::{CpuStorage, CustomOp1, D, DType, Device, Layout, Shape, Tensor, Var};
use candle_nn::{ops, rotary_emb};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// What the model is for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Purpose {
    /// LoRA's matrices are variables beside the frozen ones.
    Train,
    /// They are merged.
    Generate,
}

/// Keys and values of the tokens so far, (b, heads, t, d) for each layer.
#[derive(Debug, Default)]
pub struct Cache {
    layers: Vec<(Tensor, Tensor)>,
    length: usize,
}

/// The model.
pub struct Llama {
    embedding: Tensor,
    head: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    heads: usize,
    groups: usize,
    epsilon: f64,
    dropout: f32,
    cos: Tensor,
    sin: Tensor,
    purpose: Purpose,
    /// LoRA's matrices, where they train.
    pub trained: Vec<Var>,
}

struct Layer {
    input_norm: Tensor,
    after_norm: Tensor,
    projections: HashMap<&'static str, Linear>,
}

struct Linear {
    /// (in, out), in memory by columns.
    weight: Tensor,
    /// (in, r), (r, out), and what the branch is scaled by.
    lora: Option<(Tensor, Tensor, f64)>,
}

const PROJECTIONS: [(&str, &str); 7] = [
    ("q_proj", "self_attn"),
    ("k_proj", "self_attn"),
    ("v_proj", "self_attn"),
    ("o_proj", "self_attn"),
    ("gate_proj", "mlp"),
    ("up_proj", "mlp"),
    ("down_proj", "mlp"),
];

fn json(path: &Path) -> Result<Value> {
    Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
}

impl Llama {
    /// Reads `model/` and `adapter/` of a workload's folder.
    pub fn load(folder: &Path, numbers: DType, purpose: Purpose) -> Result<Self> {
        let config = json(&folder.join("model/config.json"))?;
        let adapter = json(&folder.join("adapter/adapter_config.json"))?;
        // SAFETY: nobody writes the files while they are mapped.
        let open = |name: &str| unsafe { MmapedSafetensors::new(folder.join(name)) };
        let (base, lora) = (open("model/model.safetensors")?, open("adapter/adapter_model.safetensors")?);
        let number = |config: &Value, key: &str| config[key].as_f64().with_context(|| key.to_string());
        let size = |key: &str| number(&config, key).map(|n| n as usize);
        let scale = number(&adapter, "lora_alpha")? / number(&adapter, "r")?;
        let take = |name: &str| -> Result<Tensor> { Ok(base.load(name, &Device::Cpu)?.to_dtype(numbers)?) };
        let mut trained = Vec::new();
        let mut layers = Vec::new();
        for at in 0..size("num_hidden_layers")? {
            let mut projections = HashMap::new();
            for (name, part) in PROJECTIONS {
                let path = format!("model.layers.{at}.{part}.{name}");
                let of = |side: &str| {
                    lora.load(&format!("base_model.model.{path}.lora_{side}.weight"), &Device::Cpu).ok()
                };
                let pair = of("A").zip(of("B"));
                let pair = pair.as_ref().map(|(a, b)| (a, b, scale));
                let weight = base.load(&format!("{path}.weight"), &Device::Cpu)?;
                projections.insert(name, Linear::new(&weight, pair, numbers, purpose, &mut trained)?);
            }
            let norm = |name: &str| take(&format!("model.layers.{at}.{name}.weight"));
            let (input_norm, after_norm) = (norm("input_layernorm")?, norm("post_attention_layernorm")?);
            layers.push(Layer { input_norm, after_norm, projections });
        }
        let heads = size("num_attention_heads")?;
        let width = size("hidden_size")? / heads;
        let theta =
            number(&config["rope_parameters"], "rope_theta").or_else(|_| number(&config, "rope_theta"))?;
        let (cos, sin) = angles(width, theta, 1024, numbers)?;
        let embedding = take("model.embed_tokens.weight")?;
        let head = embedding.t()?;
        Ok(Llama {
            embedding,
            head,
            layers,
            norm: take("model.norm.weight")?,
            heads,
            groups: size("num_key_value_heads")?,
            epsilon: number(&config, "rms_norm_eps")?,
            dropout: number(&adapter, "lora_dropout")? as f32,
            cos,
            sin,
            purpose,
            trained,
        })
    }

    /// (b, t) ids to the last layer's normed states (b, t, n); with a cache, `ids` follow what it holds.
    pub fn states(&self, ids: &Tensor, mut cache: Option<&mut Cache>, dropout: bool) -> Result<Tensor> {
        let (b, t) = ids.dims2()?;
        let start = cache.as_ref().map_or(0, |c| c.length);
        let n = self.embedding.dim(1)?;
        let mut x = self.embedding.index_select(&ids.flatten_all()?, 0)?.reshape((b, t, n))?;
        let mask = (t > 1).then(|| causal(t, x.dtype())).transpose()?;
        for (at, layer) in self.layers.iter().enumerate() {
            let read = self.norm(&x, &layer.input_norm)?;
            let out =
                self.attention(layer, &read, (start, at), cache.as_deref_mut(), mask.as_ref(), dropout)?;
            x = (x + out)?;
            let read = self.norm(&x, &layer.after_norm)?;
            let project = |name: &str, x: &Tensor| self.project(layer, name, x, dropout);
            let inner = (project("gate_proj", &read)?.silu()? * project("up_proj", &read)?)?;
            x = (x + project("down_proj", &inner)?)?;
        }
        if let Some(cache) = cache {
            cache.length += t;
        }
        self.norm(&x, &self.norm)
    }

    /// Scores of every token of the vocabulary for states (rows, n).
    pub fn scores(&self, states: &Tensor) -> Result<Tensor> {
        frozen(states, &self.head)
    }

    fn norm(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        Ok(match self.purpose {
            Purpose::Train => ops::rms_norm_slow(x, weight, self.epsilon as f32)?,
            Purpose::Generate => ops::rms_norm(&x.contiguous()?, weight, self.epsilon as f32)?,
        })
    }

    fn project(&self, layer: &Layer, name: &str, x: &Tensor, dropout: bool) -> Result<Tensor> {
        layer.projections[name].forward(x, if dropout { self.dropout } else { 0.0 })
    }

    fn attention(
        &self,
        layer: &Layer,
        x: &Tensor,
        (start, at): (usize, usize),
        cache: Option<&mut Cache>,
        mask: Option<&Tensor>,
        dropout: bool,
    ) -> Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        let heads = |name: &str, count: usize| -> Result<Tensor> {
            let y = self.project(layer, name, x, dropout)?;
            let width = y.dim(2)? / count;
            Ok(y.reshape((b, t, count, width))?.transpose(1, 2)?.contiguous()?)
        };
        let (cos, sin) = (self.cos.narrow(0, start, t)?, self.sin.narrow(0, start, t)?);
        let turn = |x: Tensor| match self.purpose {
            Purpose::Train => rotary_emb::rope_slow(&x, &cos, &sin),
            Purpose::Generate => rotary_emb::rope(&x, &cos, &sin),
        };
        let q = turn(heads("q_proj", self.heads)?)?;
        let (mut k, mut v) = (turn(heads("k_proj", self.groups)?)?, heads("v_proj", self.groups)?);
        if let Some(cache) = cache {
            if let Some((before_k, before_v)) = cache.layers.get(at) {
                k = Tensor::cat(&[before_k, &k], 2)?;
                v = Tensor::cat(&[before_v, &v], 2)?;
                cache.layers[at] = (k.clone(), v.clone());
            } else {
                cache.layers.push((k.clone(), v.clone()));
            }
        }
        let (_, _, seen, d) = k.dims4()?;
        let shared = self.heads / self.groups;
        let spread = |x: &Tensor| -> Result<Tensor> {
            let all = (b, self.groups, shared, seen, d);
            Ok(x.unsqueeze(2)?.expand(all)?.contiguous()?.reshape((b, self.heads, seen, d))?)
        };
        let (k, v) = (spread(&k)?, spread(&v)?);
        let mut weights = (q.matmul(&k.transpose(2, 3)?)? / (d as f64).sqrt())?;
        if let Some(mask) = mask {
            weights = weights.broadcast_add(mask)?;
        }
        let weights = match self.purpose {
            Purpose::Train => ops::softmax(&weights, D::Minus1)?,
            Purpose::Generate => ops::softmax_last_dim(&weights)?,
        };
        let out = weights.matmul(&v)?.transpose(1, 2)?.contiguous()?.reshape((b, t, self.heads * d))?;
        self.project(layer, "o_proj", &out, dropout)
    }
}

/// x times a weight that does not train. candle's own product would compute the weight's gradient too, and keep it.
struct Frozen {
    /// (in, out).
    weight: Tensor,
}

fn frozen(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    Ok(match x.track_op() {
        true => x.apply_op1(Frozen { weight: weight.clone() })?,
        false => x.matmul(weight)?,
    })
}

impl CustomOp1 for Frozen {
    fn name(&self) -> &'static str {
        "frozen"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (from, to) = layout.contiguous_offsets().expect("rows lie one after the other");
        let y = match x {
            CpuStorage::F32(x) => Tensor::from_slice(&x[from..to], layout.shape(), &Device::Cpu)?,
            CpuStorage::BF16(x) => Tensor::from_slice(&x[from..to], layout.shape(), &Device::Cpu)?,
            _ => candle_core::bail!("f32 and bf16 only"),
        }
        .matmul(&self.weight)?;
        let storage = match y.dtype() {
            DType::F32 => CpuStorage::F32(y.flatten_all()?.to_vec1()?),
            _ => CpuStorage::BF16(y.flatten_all()?.to_vec1()?),
        };
        Ok((storage, y.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(gradient.matmul(&self.weight.t()?)?))
    }
}

impl Linear {
    fn new(
        weight: &Tensor,
        lora: Option<(&Tensor, &Tensor, f64)>,
        numbers: DType,
        purpose: Purpose,
        trained: &mut Vec<Var>,
    ) -> Result<Self> {
        let plain = |weight: &Tensor| -> Result<Tensor> { Ok(weight.to_dtype(numbers)?.t()?) };
        let Some((a, b, scale)) = lora else { return Ok(Linear { weight: plain(weight)?, lora: None }) };
        if purpose == Purpose::Generate {
            let merged = (weight.to_dtype(DType::F32)? + (b.matmul(a)? * scale)?)?;
            return Ok(Linear { weight: plain(&merged)?, lora: None });
        }
        let mut variable = |value: &Tensor| -> Result<Tensor> {
            let variable = Var::from_tensor(&value.t()?.contiguous()?.to_dtype(numbers)?)?;
            trained.push(variable.clone());
            Ok(variable.as_tensor().clone())
        };
        let (a, b) = (variable(a)?, variable(b)?);
        Ok(Linear { weight: plain(weight)?, lora: Some((a, b, scale)) })
    }

    /// (b, t, in) to (b, t, out).
    fn forward(&self, x: &Tensor, dropout: f32) -> Result<Tensor> {
        let (b, t, n) = x.dims3()?;
        let rows = x.reshape((b * t, n))?;
        let mut y = frozen(&rows, &self.weight)?;
        if let Some((down, up, scale)) = &self.lora {
            let read = if dropout > 0.0 { ops::dropout(&rows, dropout)? } else { rows };
            y = (y + (read.matmul(down)?.matmul(up)? * *scale)?)?;
        }
        let out = y.dim(1)?;
        Ok(y.reshape((b, t, out))?)
    }
}

/// cos and sin of every position, (positions, d / 2).
fn angles(d: usize, theta: f64, positions: usize, numbers: DType) -> Result<(Tensor, Tensor)> {
    let rates: Vec<f32> = (0..d / 2).map(|i| (1.0 / theta.powf(2.0 * i as f64 / d as f64)) as f32).collect();
    let rates = Tensor::from_vec(rates, (1, d / 2), &Device::Cpu)?;
    let at = Tensor::arange(0u32, positions as u32, &Device::Cpu)?
        .to_dtype(DType::F32)?
        .reshape((positions, 1))?;
    let angles = at.matmul(&rates)?;
    Ok((angles.cos()?.to_dtype(numbers)?, angles.sin()?.to_dtype(numbers)?))
}

/// 0 where a token may look, far below where it may not: (t, t).
fn causal(t: usize, numbers: DType) -> Result<Tensor> {
    let value = |i: usize| if i % t > i / t { f32::NEG_INFINITY } else { 0.0 };
    Ok(Tensor::from_vec((0..t * t).map(value).collect::<Vec<_>>(), (t, t), &Device::Cpu)?
        .to_dtype(numbers)?)
}
