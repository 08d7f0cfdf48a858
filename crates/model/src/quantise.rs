//! A model's folder with its frozen products in 8 or 4 bits.

use crate::Error;
use crate::arch::{Arch, HeadKind};
use crate::layout::{self, Coding, Layout, METHOD};
use crate::load::{LoadOptions, Opened};
use sibo_files::{Planned, Type, Values};
use sibo_kernels::frozen::{Bits, Compute, Store, encode};
use std::collections::BTreeMap;
use std::path::Path;

/// What became of the tensors.
#[derive(Debug, Clone)]
pub struct Quantised {
    /// One for each kind of matrix that is coded, in the model's order, and one for all that is kept.
    pub kinds: Vec<QuantisedKind>,
    /// Tensors of the folder that the model does not use, and that were left out.
    pub left_out: usize,
}

/// Tensors that differ in their layer only.
#[derive(Debug, Clone)]
pub struct QuantisedKind {
    /// The path below the layer: `self_attn.q_proj`.
    pub name: String,
    /// How they are coded; `None` if they were kept as they were.
    pub bits: Option<Bits>,
    /// How many tensors.
    pub tensors: usize,
    /// How many numbers they hold.
    pub numbers: usize,
    /// Bytes in the old file.
    pub before: usize,
    /// Bytes in the new one, scales included.
    pub after: usize,
    /// Sums of squares: of what the coding moved, and of the values.
    squares: (f64, f64),
    /// The largest [`QuantisedKind::error`] of one tensor.
    pub worst: f64,
}

impl QuantisedKind {
    fn new(name: &str, bits: Option<Bits>) -> Self {
        QuantisedKind {
            name: name.into(),
            bits,
            tensors: 0,
            numbers: 0,
            before: 0,
            after: 0,
            squares: (0.0, 0.0),
            worst: 0.0,
        }
    }

    /// The root mean square of what the coding moved, as a share of that of the values.
    pub fn error(&self) -> f64 {
        relative(self.squares)
    }
}

fn relative((moved, all): (f64, f64)) -> f64 {
    if all > 0.0 { (moved / all).sqrt() } else { 0.0 }
}

/// One tensor and what is to become of it.
struct Piece {
    /// Its key in the source.
    key: String,
    /// Its name in the new file.
    name: String,
    shape: Vec<usize>,
    stored: Type,
    coding: Option<Coding>,
    /// Its place among [`Quantised::kinds`], where it is coded.
    kind: Option<usize>,
}

impl Piece {
    /// The tensors of the new file that come of it.
    fn planned(&self) -> Vec<Planned> {
        layout::planned(&self.name, &self.shape, self.stored, self.coding)
    }
}

/// Writes `model.safetensors` and `config.json` of the model in `folder` into `output`, with the matrices of its layers
/// and its language head coded in `bits`. A head that is also the embedding gets 8 bits at least: its errors reach every
/// logit and every token's h0. Norms, biases, embeddings that are no product, poolers and classifiers are kept.
///
/// # Errors
/// What loading the model refuses; a model that is quantised already; a block that does not divide the columns; an odd
/// number of columns with four bits; values that are not finite.
pub fn quantise(folder: &Path, output: &Path, bits: Bits, block: Option<usize>) -> Result<Quantised, Error> {
    let mut opened = Opened::new(folder, &LoadOptions::default())?;
    refuse_coded(&opened)?;
    let usual = Coding { bits, block };
    let (pieces, mut kinds) = sorted(&opened, usual);
    refuse_blocks(&opened.source.place, &pieces)?;
    let layout = layout_of(usual, &pieces);
    let planned: Vec<Planned> = pieces.iter().flat_map(Piece::planned).collect();
    let strings = BTreeMap::from([(layout::STRING.to_string(), layout.to_json().to_string())]);
    let mut piece = pieces.iter();
    // The codes of the tensor whose scales were just written.
    let mut codes = None;
    sibo_files::write_planned(&output.join("model.safetensors"), &planned, strings, |_| {
        if let Some(codes) = codes.take() {
            return Ok(codes);
        }
        let piece = piece.next().expect("two values are planned for a coded tensor, one for any other");
        let (values, after) = made(&mut opened, piece, &mut kinds)?;
        codes = after;
        Ok::<_, Error>(values)
    })?;
    write_config(folder, output, usual)?;
    let used = pieces.len();
    Ok(Quantised { kinds, left_out: opened.source.found.len() - used })
}

fn refuse_coded(opened: &Opened) -> Result<(), Error> {
    for (at, name, _) in opened.source.found.values() {
        if opened.source.files[*at].stored(name) == Some(Type::I8) {
            return Err(Error::Refused(format!(
                "{}: `{name}` is quantised already, and coding it again would add a second error to the first; use the original model",
                opened.source.place
            )));
        }
    }
    Ok(())
}

/// What becomes of each tensor that the model uses, in the order of its names, and the kinds that there are.
fn sorted(opened: &Opened, usual: Coding) -> (Vec<Piece>, Vec<QuantisedKind>) {
    let mut kinds: Vec<QuantisedKind> = Vec::new();
    let mut pieces = Vec::new();
    let mut kept = QuantisedKind::new("kept as they are", None);
    for (name, shape) in crate::load::expected(&opened.arch, opened.arch.pooler) {
        let Some(key) = opened.keys.get(&name) else { continue };
        let (at, file_name, _) = &opened.source.found[key];
        // Accounting has let no tensor of another type pass that reading would not name.
        let stored = opened.source.files[*at].stored(file_name).unwrap_or(Type::F32);
        let product = product(&opened.arch, &name, &shape);
        let coding = product.as_ref().map(|product| product.coding(usual));
        let kind = product.map(|product| {
            kinds.iter().position(|k| k.name == product.kind).unwrap_or_else(|| {
                kinds.push(QuantisedKind::new(&product.kind, coding.map(|c| c.bits)));
                kinds.len() - 1
            })
        });
        let to = kind.map_or(&mut kept, |kind| &mut kinds[kind]);
        let numbers: usize = shape.iter().product();
        to.tensors += 1;
        to.numbers += numbers;
        to.before += numbers * stored.bytes();
        let piece = Piece { key: key.clone(), name: file_name.clone(), shape, stored, coding, kind };
        to.after += piece.planned().iter().map(Planned::bytes).sum::<usize>();
        pieces.push(piece);
    }
    kinds.push(kept);
    (pieces, kinds)
}

/// A matrix that rows are multiplied with.
pub(crate) struct Product {
    kind: String,
    /// It is the head and the embedding.
    tied: bool,
}

impl Product {
    /// How it is coded where the others are coded so.
    pub(crate) fn coding(&self, usual: Coding) -> Coding {
        Coding { bits: if self.tied { Bits::Eight } else { usual.bits }, ..usual }
    }
}

/// What `name` is, if rows are multiplied with it in the layers or the language head.
pub(crate) fn product(arch: &Arch, name: &str, shape: &[usize]) -> Option<Product> {
    let path = name.strip_suffix(".weight").filter(|_| shape.len() == 2)?;
    let below = |l: usize| path.strip_prefix(&arch.layer_path(l))?.strip_prefix('.');
    if let Some(kind) = (0..arch.layers).find_map(below) {
        return Some(Product { kind: kind.into(), tied: false });
    }
    let causal = arch.head == HeadKind::CausalLm;
    let tied = causal && arch.tied && path == format!("{}{}", arch.prefix(), arch.names.words);
    let head = causal && path == "lm_head";
    let kind = if tied { format!("{} (tied to the head)", arch.names.words) } else { path.into() };
    (tied || head).then_some(Product { kind, tied })
}

fn refuse_blocks(place: &str, pieces: &[Piece]) -> Result<(), Error> {
    let coded = || pieces.iter().filter_map(|p| Some((p, p.coding?)));
    let common = coded().fold(0, |a, (p, _)| common_divisor(a, p.shape[1]));
    for (piece, coding) in coded() {
        let (name, columns) = (&piece.name, piece.shape[1]);
        if coding.block.is_some_and(|b| b == 0 || columns % b != 0) {
            return Err(Error::Refused(format!(
                "{place}: blocks of {} do not divide the {columns} columns of `{name}`; the largest block that divides \
                 those of every matrix is {common} (its divisors do too), and `row` gives a row one scale",
                coding.block.unwrap_or(0),
            )));
        }
        if coding.bits == Bits::Four && columns % 2 == 1 {
            return Err(Error::Refused(format!(
                "{place}: 4-bit codes share bytes in twos, and `{name}` has {columns} columns, an odd number; use 8 bits"
            )));
        }
    }
    Ok(())
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

fn layout_of(usual: Coding, pieces: &[Piece]) -> Layout {
    let other = |p: &Piece| Some((p.name.clone(), p.coding.filter(|c| *c != usual)?));
    Layout { usual, except: pieces.iter().filter_map(other).collect() }
}

fn not_finite(opened: &Opened, piece: &Piece) -> Error {
    Error::Tensors { place: opened.source.place.clone(), report: crate::base::not_finite(&piece.name) }
}

/// The values of a kept tensor; or the scales of a coded one, and its codes.
fn made(
    opened: &mut Opened,
    piece: &Piece,
    kinds: &mut [QuantisedKind],
) -> Result<(Values, Option<Values>), Error> {
    let store = opened.source.read(&piece.key)?;
    let (Some(coding), Some(kind)) = (piece.coding, piece.kind) else {
        let (finite, values) = match store {
            Store::F32(v) => (v.iter().all(|v| v.is_finite()), Values::F32(v)),
            Store::Bf16(v) => (v.iter().all(|v| v.is_finite()), Values::Bf16(v)),
            Store::F16(v) => (v.iter().all(|v| v.is_finite()), Values::F16(v)),
            Store::I8 { .. } | Store::I4 { .. } => unreachable!("coded models were refused"),
        };
        return if finite { Ok((values, None)) } else { Err(not_finite(opened, piece)) };
    };
    let columns = piece.shape[1];
    let values = store.into_f32(columns);
    if values.iter().any(|v| !v.is_finite()) {
        return Err(not_finite(opened, piece));
    }
    let coded = encode(&values, columns, coding.bits, coding.block.unwrap_or(columns));
    let kind = &mut kinds[kind];
    kind.squares.0 += coded.error;
    kind.squares.1 += coded.norm;
    kind.worst = kind.worst.max(relative((coded.error, coded.norm)));
    Ok(match coded.store {
        Store::I8 { q, scale, .. } => (Values::F32(scale), Some(Values::I8(q))),
        Store::I4 { q, scale, .. } => {
            (Values::F32(scale), Some(Values::I8(q.into_iter().map(|b| b as i8).collect())))
        }
        _ => unreachable!("encoding gives codes"),
    })
}

/// The model's `config.json` with a note by which other programs can tell that the weights are codes. transformers says
/// that it does not know the method, and loads them all the same.
fn write_config(folder: &Path, output: &Path, usual: Coding) -> Result<(), Error> {
    let mut config = sibo_files::json::read(&folder.join("config.json"))?;
    config["quantization_config"] = usual.note();
    let text = format!("{config:#}\n");
    Ok(sibo_files::write(&output.join("config.json"), text.as_bytes())?)
}

/// The numbers for whoever names none: f32, or bf16 where the weights of a folder are codes, which f32 would widen to four
/// or eight times their size. A folder that cannot be read counts as one without codes; opening it says what is wrong.
pub fn usual_compute(folder: &Path) -> Compute {
    let config = sibo_files::json::read(&folder.join("config.json"));
    let coded = config.is_ok_and(|config| config["quantization_config"]["quant_method"] == METHOD);
    if coded { Compute::Bf16 } else { Compute::F32 }
}

#[cfg(test)]
mod tests;
