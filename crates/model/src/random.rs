//! Models of a given shape with random weights, written tensor by tensor into shards: what one measures with where the
//! real weights are too large to be had, or do not matter.

use crate::layout::{self, Coding, Layout};
use crate::load::expected;
use crate::{Error, config, quantise};
use half::bf16;
use serde_json::{Value, json};
use sibo_files::{Planned, Type, Values};
use sibo_kernels::frozen::Bits;
use std::collections::BTreeMap;
use std::path::Path;

/// Most bytes of a shard, where one tensor is not larger.
const SHARD: usize = 2 << 30;
/// Room that is left on the disk.
const SPARE: u64 = 256 << 20;
/// Columns that share a scale, where the rows are multiples of it.
const BLOCK: usize = 64;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RandomModel {
    /// Weights.
    pub numbers: usize,
    /// Bytes of the shards' tensors.
    pub bytes: usize,
    /// Files.
    pub shards: usize,
}

/// A tensor of the model, and those of the file by which it is kept.
struct Piece {
    name: String,
    shape: Vec<usize>,
    coding: Option<Coding>,
    planned: Vec<Planned>,
}

/// Writes `config.json` (as given, with a note where the weights are coded) and shards of random weights into `output`:
/// BF16, or the layers' matrices and the language head in 8 or 4 bits as [`crate::quantise`] codes them. Values are
/// bell-shaped around zero with the deviation that the configuration starts training with (norms: around one), codes
/// are drawn as codes; both depend on (seed, name, place) alone. One tensor at a time is in memory.
///
/// # Errors
/// What loading a model of this configuration refuses, an odd number of columns with four bits, and a disk without the
/// room.
pub fn write_random(
    config: &Value,
    output: &Path,
    bits: Option<Bits>,
    seed: u64,
) -> Result<RandomModel, Error> {
    let arch = config::read_value("the configuration", config.clone())?.arch;
    let mut pieces = Vec::new();
    for (name, shape) in expected(&arch, arch.pooler) {
        let product = quantise::product(&arch, &name, &shape);
        let coding = product.zip(bits).map(|(product, bits)| {
            let block = shape[1].is_multiple_of(BLOCK).then_some(BLOCK);
            product.coding(Coding { bits, block })
        });
        if let Some(Coding { bits: Bits::Four, .. }) = coding
            && shape[1] % 2 == 1
        {
            return Err(Error::Refused(format!(
                "4-bit codes share bytes in twos, and `{name}` has {} columns, an odd number; use 8 bits",
                shape[1]
            )));
        }
        let planned = layout::planned(&name, &shape, Type::Bf16, coding);
        pieces.push(Piece { name, shape, coding, planned });
    }
    let bytes: usize = pieces.iter().map(Piece::bytes).sum();
    check_room(output, bytes as u64)?;
    let shards = cut(&pieces);
    let mut index = BTreeMap::new();
    for (at, shard) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", at + 1, shards.len());
        write_shard(&output.join(&file), shard, (arch.init_sd, seed))?;
        let names = shard.iter().flat_map(|p| &p.planned).map(|p| p.name.clone());
        index.extend(names.map(|name| (name, file.clone())));
    }
    let index = json!({ "metadata": { "total_size": bytes }, "weight_map": index });
    sibo_files::write(&output.join("model.safetensors.index.json"), format!("{index:#}\n").as_bytes())?;
    let mut config = config.clone();
    if let Some(bits) = bits {
        config["quantization_config"] = Coding { bits, block: Some(BLOCK) }.note();
    }
    sibo_files::write(&output.join("config.json"), format!("{config:#}\n").as_bytes())?;
    let numbers = pieces.iter().map(|p| p.shape.iter().product::<usize>()).sum();
    Ok(RandomModel { numbers, bytes, shards: shards.len() })
}

impl Piece {
    fn bytes(&self) -> usize {
        self.planned.iter().map(Planned::bytes).sum()
    }
}

fn check_room(output: &Path, bytes: u64) -> Result<(), Error> {
    match sibo_files::free_bytes(output) {
        Some(free) if free < bytes + SPARE => Err(Error::Refused(format!(
            "{}: the model takes {} MiB, and the disk has {} MiB free, of which {} are to stay so; free some, choose \
             another folder, or fewer bits",
            output.display(),
            bytes >> 20,
            free >> 20,
            SPARE >> 20
        ))),
        _ => Ok(()),
    }
}

/// Neighbours together, up to [`SHARD`] bytes.
fn cut(pieces: &[Piece]) -> Vec<&[Piece]> {
    let mut shards = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (i, piece) in pieces.iter().enumerate() {
        if i > start && bytes + piece.bytes() > SHARD {
            shards.push(&pieces[start..i]);
            (start, bytes) = (i, 0);
        }
        bytes += piece.bytes();
    }
    shards.push(&pieces[start..]);
    shards
}

fn write_shard(path: &Path, pieces: &[Piece], (sd, seed): (f32, u64)) -> Result<(), Error> {
    let planned: Vec<Planned> = pieces.iter().flat_map(|p| p.planned.iter().cloned()).collect();
    let coded: Vec<(String, Coding)> =
        pieces.iter().filter_map(|p| Some((p.name.clone(), p.coding?))).collect();
    let mut strings = BTreeMap::new();
    if let Some((_, usual)) = coded.first().cloned() {
        let except = coded.into_iter().filter(|(_, coding)| *coding != usual).collect();
        let layout = Layout { usual, except };
        strings.insert(layout::STRING.to_string(), layout.to_json().to_string());
    }
    let mut parts = pieces.iter().flat_map(|piece| piece.planned.iter().map(move |p| (piece, p)));
    sibo_files::write_planned(path, &planned, strings, |_| {
        let (piece, planned) = parts.next().expect("as many as were planned");
        Ok(values(piece, planned, sd, seed))
    })
}

fn values(piece: &Piece, planned: &Planned, sd: f32, seed: u64) -> Values {
    let count = planned.shape.iter().product::<usize>() as u64;
    let start = address(seed, &planned.name);
    let bell = |i: u64| bell(start.wrapping_add(i));
    match (piece.coding, planned.kind) {
        (Some(coding), Type::F32) => {
            // Scales differ by up to a tenth, as if each were made for its own block.
            let unit = sd / levels(coding.bits);
            Values::F32((0..count).map(|i| unit * (1.0 + 0.1 * bell(i) / WIDEST)).collect())
        }
        (Some(Coding { bits: Bits::Eight, .. }), _) => {
            let unit = levels(Bits::Eight);
            Values::I8((0..count).map(|i| (unit * bell(i)).round() as i8).collect())
        }
        (Some(Coding { bits: Bits::Four, .. }), _) => {
            let unit = levels(Bits::Four);
            let code = |i: u64| (unit * bell(i)).round().clamp(-8.0, 7.0) as i8;
            Values::I8((0..count).map(|i| (code(2 * i) & 15) | code(2 * i + 1) << 4).collect())
        }
        (None, _) => {
            let middle = f32::from(piece.shape.len() == 1 && piece.name.ends_with(".weight"));
            Values::Bf16((0..count).map(|i| bf16::from_f32(middle + sd * bell(i))).collect())
        }
    }
}

/// The most that [`bell`] gives: the square root of twelve.
const WIDEST: f32 = 3.4642;

/// Codes for one standard deviation.
fn levels(bits: Bits) -> f32 {
    match bits {
        Bits::Eight => 127.0 / WIDEST,
        Bits::Four => 2.6,
    }
}

/// FNV-1a over the name, from the seed.
fn address(seed: u64, name: &str) -> u64 {
    let start = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xcbf2_9ce4_8422_2325;
    name.bytes().fold(start, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// A number of mean zero and deviation one: the sum of four uniform ones, out of one step of splitmix64. Billions are
/// wanted, and nothing depends on their tails.
fn bell(address: u64) -> f32 {
    let mut z = address.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    let sum = (z & 0xffff) + (z >> 16 & 0xffff) + (z >> 32 & 0xffff) + (z >> 48);
    (sum as f32 - 131_070.0) * (1.0 / 37_837.2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, Compute, Labels, LoadOptions, Model, Row};

    fn config(tied: bool) -> Value {
        json!({
            "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 128, "intermediate_size": 192,
            "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 96, "tie_word_embeddings": tied,
        })
    }

    #[test]
    fn what_is_written_is_a_model_with_a_sensible_loss() {
        for (bits, tied) in
            [(None, false), (Some(Bits::Eight), false), (Some(Bits::Four), false), (Some(Bits::Four), true)]
        {
            let dir = tempfile::tempdir().unwrap();
            let written = write_random(&config(tied), dir.path(), bits, 7).unwrap();
            let options = LoadOptions { compute: Compute::Bf16, ..LoadOptions::default() };
            let mut model = Model::load(dir.path(), &options).unwrap().model;
            let ids: Vec<u32> = (0..20).map(|i| i * 37 % 96).collect();
            let labels = Labels::Tokens(vec![ids.iter().map(|i| i64::from(*i)).collect()]);
            let batch = Batch::new(model.arch(), &[Row { ids, ..Row::default() }]).unwrap();
            let out = model.loss(&batch, &labels);
            let mean = out.loss_sum / out.count as f64;
            assert!((mean - (96f64).ln()).abs() < 0.3, "{bits:?}: {mean}");
            let tables = if tied { 1 } else { 2 };
            let layers = 2 * (4 * 128 * 128 + 3 * 128 * 192 + 2 * 128);
            assert_eq!(written.numbers, tables * 96 * 128 + layers + 128);
        }
    }

    #[test]
    fn numbers_have_the_deviation_that_they_should() {
        let drawn: Vec<f64> = (0..100_000).map(|i| f64::from(bell(i))).collect();
        let mean = drawn.iter().sum::<f64>() / 1e5;
        let square = drawn.iter().map(|v| v * v).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.02 && (square - 1.0).abs() < 0.02, "{mean} {square}");
        assert!(drawn.iter().all(|v| v.abs() <= f64::from(WIDEST)));
        assert_ne!(address(1, "a"), address(2, "a"));
    }

    #[test]
    fn shards_hold_neighbours() {
        let piece = |mib: usize| Piece {
            name: mib.to_string(),
            shape: vec![mib << 19],
            coding: None,
            planned: layout::planned("x", &[mib << 19], Type::Bf16, None),
        };
        let sizes = [1000, 900, 300, 3000, 10];
        let pieces: Vec<Piece> = sizes.into_iter().map(piece).collect();
        let found: Vec<usize> = cut(&pieces).iter().map(|s| s.len()).collect();
        assert_eq!(found, [2, 1, 1, 1]);
    }
}
