//! How quantised weights lie in a safetensors file.
//!
//! A coded matrix `<name>` of so many rows and columns is a tensor of type I8, and beside it lies `<name>.scale`, F32
//! [rows, columns / block]: a value is code * scale of its row and block of columns. The header's string `sibo.quant`
//! is `{"bits": 4, "block": 64}`, for every coded tensor of the file that is not among its `"except": {"<name>":
//! {"bits": 8, "block": 64}}`; `"block": "row"` is one scale for a row. With 8 bits `<name>` is [rows, columns], codes
//! -127 to 127. With 4 bits it is [rows, columns / 2], codes -8 to 7 in two's complement, the even column in the low
//! half of a byte; rows with an odd number of columns are not coded in 4 bits. A file without the string holds 8 bits.

use crate::Error;
use serde_json::{Value, json};
use sibo_files::{Planned, TensorFile, Type};
use sibo_kernels::frozen::Bits;
use std::collections::BTreeMap;

/// `quant_method` in the `quantization_config` of `config.json`, by which other programs can tell that the weights are
/// codes.
pub(crate) const METHOD: &str = "sibo";
/// The string of the header.
pub(crate) const STRING: &str = "sibo.quant";

/// The name of a coded tensor's scales.
pub(crate) fn scale_name(name: &str) -> String {
    format!("{name}.scale")
}

/// The tensors of a file by which one of this shape is kept, in their order: itself in type `stored`, or, where it is
/// coded, its scales and its codes.
pub(crate) fn planned(name: &str, shape: &[usize], stored: Type, coding: Option<Coding>) -> Vec<Planned> {
    let plan = |name: &str, kind, shape: &[usize]| Planned { name: name.into(), kind, shape: shape.to_vec() };
    let Some(coding) = coding else { return vec![plan(name, stored, shape)] };
    let (rows, columns) = (shape[0], shape[1]);
    let width = match coding.bits {
        Bits::Eight => columns,
        Bits::Four => columns / 2,
    };
    let scales = columns / coding.block.unwrap_or(columns).max(1);
    vec![plan(&scale_name(name), Type::F32, &[rows, scales]), plan(name, Type::I8, &[rows, width])]
}

/// How one tensor is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Coding {
    pub(crate) bits: Bits,
    /// Columns with one scale; `None` is the row.
    pub(crate) block: Option<usize>,
}

/// How the coded tensors of a file are coded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) usual: Coding,
    pub(crate) except: BTreeMap<String, Coding>,
}

impl Coding {
    fn from_json(value: &Value) -> Result<Coding, String> {
        let bits = match value.get("bits").and_then(Value::as_u64) {
            Some(8) => Bits::Eight,
            Some(4) => Bits::Four,
            _ => return Err(format!("`bits` must be 4 or 8 in {value}")),
        };
        let block = match value.get("block") {
            Some(Value::String(word)) if word == "row" => None,
            Some(number) if number.as_u64().is_some_and(|n| n > 0) => number.as_u64().map(|n| n as usize),
            _ => return Err(format!("`block` must be a number of columns or \"row\" in {value}")),
        };
        Ok(Coding { bits, block })
    }

    pub(crate) fn to_json(self) -> Value {
        let bits = match self.bits {
            Bits::Eight => 8,
            Bits::Four => 4,
        };
        json!({"bits": bits, "block": self.block.map_or("row".into(), Value::from)})
    }

    /// The note in `config.json`.
    pub(crate) fn note(self) -> Value {
        let mut note = self.to_json();
        note["quant_method"] = json!(METHOD);
        note
    }

    /// The columns that share a scale in a matrix with so many scales.
    pub(crate) fn block_of(self, rows: usize, columns: usize, scales: usize) -> Result<usize, String> {
        let block = self.block.unwrap_or(columns);
        let fits = block > 0 && columns.is_multiple_of(block);
        let expected = rows * columns.checked_div(block).unwrap_or(0);
        if !fits || scales != expected {
            return Err(format!(
                "{scales} scales, where {STRING} says {}: {}",
                self.to_json(),
                if fits {
                    format!("{expected} are needed")
                } else {
                    "the block must divide the columns".into()
                }
            ));
        }
        Ok(block)
    }
}

impl Layout {
    /// What the header of a file says.
    pub(crate) fn of_file(file: &TensorFile) -> Result<Layout, Error> {
        let Some(text) = file.strings().remove(STRING) else {
            return Ok(Layout { usual: Coding { bits: Bits::Eight, block: None }, except: BTreeMap::new() });
        };
        let read = || -> Result<Layout, String> {
            let value: Value = serde_json::from_str(&text).map_err(|e| format!("not JSON: {e}"))?;
            let usual = Coding::from_json(&value)?;
            let except = match value.get("except") {
                None => BTreeMap::new(),
                Some(Value::Object(map)) => map
                    .iter()
                    .map(|(name, value)| Ok((name.clone(), Coding::from_json(value)?)))
                    .collect::<Result<_, String>>()?,
                Some(other) => return Err(format!("`except` must be an object of names, not {other}")),
            };
            Ok(Layout { usual, except })
        };
        read().map_err(|reason| Error::key(&file.path().display().to_string(), STRING, reason))
    }

    /// How this tensor is coded, if it is.
    pub(crate) fn of(&self, name: &str) -> Coding {
        self.except.get(name).copied().unwrap_or(self.usual)
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut value = self.usual.to_json();
        if !self.except.is_empty() {
            let except = self.except.iter().map(|(name, coding)| (name.clone(), coding.to_json()));
            value["except"] = Value::Object(except.collect());
        }
        value
    }
}
