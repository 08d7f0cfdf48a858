//! `safetensors` files: the header is checked against the file before a tensor is read, and tensors
//! are read one at a time into memory of our own, so a file that changes or shrinks under a run
//! cannot take the process down.

use crate::Error;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A header larger than this is a lie: the largest models' headers are a few MB.
const MAX_HEADER: u64 = 100 << 20;

/// Numbers that are turned into bytes at a time.
const PIECE: usize = 4096;

/// Bytes that are read at a time: what the cache holds, so that a tensor is in memory once, as values.
const READ: usize = 1 << 20;

/// The elements of a tensor in the type that the file holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 16-bit brain floats.
    Bf16(Vec<bf16>),
    /// 16-bit IEEE floats.
    F16(Vec<f16>),
    /// 8-bit integers; their scale is another tensor of the file.
    I8(Vec<i8>),
}

/// The types of [`Values`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// 32-bit floats.
    F32,
    /// 16-bit brain floats.
    Bf16,
    /// 16-bit IEEE floats.
    F16,
    /// 8-bit integers.
    I8,
}

impl Type {
    fn of(dtype: Dtype) -> Option<Type> {
        match dtype {
            Dtype::F32 => Some(Type::F32),
            Dtype::BF16 => Some(Type::Bf16),
            Dtype::F16 => Some(Type::F16),
            Dtype::I8 => Some(Type::I8),
            _ => None,
        }
    }

    /// The name that files use.
    fn name(self) -> &'static str {
        match self {
            Type::F32 => "F32",
            Type::Bf16 => "BF16",
            Type::F16 => "F16",
            Type::I8 => "I8",
        }
    }

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Type::F32 => 4,
            Type::Bf16 | Type::F16 => 2,
            Type::I8 => 1,
        }
    }
}

impl Values {
    /// Writes the elements, little-endian.
    fn write_to(&self, out: &mut dyn Write) -> std::io::Result<()> {
        match self {
            Values::F32(v) => pieces(v, |v| v.to_le_bytes(), out),
            Values::Bf16(v) => pieces(v, |v| v.to_le_bytes(), out),
            Values::F16(v) => pieces(v, |v| v.to_le_bytes(), out),
            Values::I8(v) => pieces(v, |v| v.to_le_bytes(), out),
        }
    }

    fn kind(&self) -> (Type, usize) {
        match self {
            Values::F32(v) => (Type::F32, v.len()),
            Values::Bf16(v) => (Type::Bf16, v.len()),
            Values::F16(v) => (Type::F16, v.len()),
            Values::I8(v) => (Type::I8, v.len()),
        }
    }
}

fn pieces<const N: usize, T: Copy>(
    values: &[T],
    bytes_of: impl Fn(T) -> [u8; N],
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(N * PIECE);
    for piece in values.chunks(PIECE) {
        bytes.clear();
        bytes.extend(piece.iter().flat_map(|v| bytes_of(*v)));
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// One tensor: row-major values and their shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// The elements.
    pub values: Values,
}

impl Tensor {
    /// The elements widened to f32; I8 comes without its scale.
    pub fn into_f32(self) -> Vec<f32> {
        match self.values {
            Values::F32(v) => v,
            Values::Bf16(v) => v.into_iter().map(f32::from).collect(),
            Values::F16(v) => v.into_iter().map(f32::from).collect(),
            Values::I8(v) => v.into_iter().map(f32::from).collect(),
        }
    }
}

/// An open file and its believed header.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    data_start: u64,
}

impl TensorFile {
    /// Opens `path` and checks that its header is sound and that its length is what the header says.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let bad = |reason: String| Error::Header { path: path.display().to_string(), reason };
        let io = |e| Error::io(path, "read", e);
        let mut file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
        let length = file.metadata().map_err(io)?.len();
        let mut size = [0u8; 8];
        file.read_exact(&mut size)
            .map_err(|_| bad(format!("{length} bytes long, shorter than its length field")))?;
        let size = u64::from_le_bytes(size);
        if size > MAX_HEADER || size + 8 > length {
            return Err(bad(format!("its header claims {size} bytes, the file has {length}")));
        }
        let mut header = vec![0u8; 8 + size as usize];
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        file.read_exact(&mut header).map_err(io)?;
        let metadata: Metadata = serde_json::from_slice(&header[8..]).map_err(|e| bad(e.to_string()))?;
        let expected = 8 + size + believed_data(&metadata).map_err(bad)?;
        if expected != length {
            return Err(bad(format!("its header describes {expected} bytes, the file has {length}")));
        }
        Ok(TensorFile { path: path.to_path_buf(), file, metadata, data_start: 8 + size })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names and shapes of all tensors, sorted by name.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        self.metadata.tensors().into_iter().map(|(name, info)| (name, info.shape.clone())).collect()
    }

    /// The free-form strings of the header.
    pub fn strings(&self) -> BTreeMap<String, String> {
        self.metadata.metadata().clone().unwrap_or_default().into_iter().collect()
    }

    /// As what the file stores `name`; `None` where it does not, or as something that is not read here.
    pub fn stored(&self, name: &str) -> Option<Type> {
        Type::of(self.metadata.info(name)?.dtype)
    }

    /// Reads one tensor.
    pub fn read(&mut self, name: &str) -> Result<Tensor, Error> {
        self.read_into(name, None)
    }

    /// Reads one tensor into the memory of values that are done with, where they are of its type.
    pub fn read_into(&mut self, name: &str, spare: Option<Values>) -> Result<Tensor, Error> {
        let path = self.path.display().to_string();
        let info = self
            .metadata
            .info(name)
            .ok_or_else(|| Error::Missing { path: path.clone(), name: name.into() })?;
        let (start, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        let (shape, dtype) = (info.shape.clone(), info.dtype);
        let io = |e| Error::io(&self.path, "read", e);
        self.file.seek(SeekFrom::Start(self.data_start + start)).map_err(io)?;
        let (file, bytes) = (&mut self.file, (end - start) as usize);
        let values = match (dtype, spare) {
            (Dtype::F32, Some(Values::F32(v))) => {
                read_words(file, bytes, v, f32::from_le_bytes).map(Values::F32)
            }
            (Dtype::F32, _) => read_words(file, bytes, vec![], f32::from_le_bytes).map(Values::F32),
            (Dtype::BF16, Some(Values::Bf16(v))) => {
                read_words(file, bytes, v, bf16::from_le_bytes).map(Values::Bf16)
            }
            (Dtype::BF16, _) => read_words(file, bytes, vec![], bf16::from_le_bytes).map(Values::Bf16),
            (Dtype::F16, Some(Values::F16(v))) => {
                read_words(file, bytes, v, f16::from_le_bytes).map(Values::F16)
            }
            (Dtype::F16, _) => read_words(file, bytes, vec![], f16::from_le_bytes).map(Values::F16),
            (Dtype::I8, Some(Values::I8(v))) => read_words(file, bytes, v, i8::from_le_bytes).map(Values::I8),
            (Dtype::I8, _) => read_words(file, bytes, vec![], i8::from_le_bytes).map(Values::I8),
            (other, _) => return Err(Error::Dtype { path, name: name.into(), dtype: format!("{other:?}") }),
        };
        Ok(Tensor { shape, values: values.map_err(io)? })
    }

    /// How long the file is now and when it was last written, by which one that is read for long is known to be the same.
    pub fn stamp(&self) -> Result<(u64, Option<std::time::SystemTime>), Error> {
        let told = self.file.metadata().map_err(|e| Error::io(&self.path, "read", e))?;
        Ok((told.len(), told.modified().ok()))
    }
}

/// Bytes of data that the header describes, once every tensor is known to be as large as its shape
/// and type say and to start where the one before it ends.
fn believed_data(metadata: &Metadata) -> Result<u64, String> {
    let mut tensors: Vec<_> = metadata.tensors().into_iter().collect();
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let mut at = 0usize;
    for (name, info) in tensors {
        let (start, end) = info.data_offsets;
        let count = info.shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s));
        let bytes = count.and_then(|n| n.checked_mul(info.dtype.bitsize())).map(|bits| bits / 8);
        if start != at || bytes.and_then(|b| start.checked_add(b)) != Some(end) {
            return Err(format!("the place of tensor `{name}` does not fit its shape {:?}", info.shape));
        }
        at = end;
    }
    Ok(at as u64)
}

/// `bytes` bytes from where the file stands, as elements in the memory of `values`.
fn read_words<const N: usize, T>(
    file: &mut File,
    bytes: usize,
    mut values: Vec<T>,
    from: impl Fn([u8; N]) -> T,
) -> std::io::Result<Vec<T>> {
    values.clear();
    values.reserve_exact(bytes / N);
    let mut piece = vec![0u8; READ.min(bytes)];
    let mut left = bytes;
    while left > 0 {
        let piece = &mut piece[..READ.min(left)];
        file.read_exact(piece)?;
        left -= piece.len();
        values.extend(piece.as_chunks::<N>().0.iter().map(|c| from(*c)));
    }
    Ok(values)
}

/// Writes a safetensors file of f32 `tensors` (name, shape, row-major values) with header `strings`, whole or not at
/// all, and without a copy of the tensors in memory.
pub fn write_tensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a [usize], &'a [f32])>,
    strings: BTreeMap<String, String>,
) -> Result<(), Error> {
    crate::atomic::write_by(path, |file| write_tensors_to(file, tensors, strings))
}

/// As [`write_tensors`], to wherever the bytes go.
pub fn write_tensors_to<'a>(
    out: &mut dyn Write,
    tensors: impl IntoIterator<Item = (&'a str, &'a [usize], &'a [f32])>,
    strings: BTreeMap<String, String>,
) -> std::io::Result<()> {
    let mut sorted: Vec<_> = tensors.into_iter().collect();
    sorted.sort_by_key(|t| t.0);
    for (name, shape, values) in &sorted {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "shape of {name}");
    }
    write_header(out, sorted.iter().map(|(name, shape, _)| (*name, Type::F32, *shape)), strings)?;
    sorted.iter().try_for_each(|(_, _, values)| pieces(values, f32::to_le_bytes, out))
}

/// A tensor of a file that is written one tensor at a time.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: Type,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
}

impl Planned {
    /// Bytes of its values.
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.kind.bytes()
    }
}

/// Writes a safetensors file of tensors of any type, whole or not at all: the header from `planned`, then the values of
/// each in turn as `values` gives them, so that one tensor at a time is in memory.
///
/// # Errors
/// Those of `values`, and that the file cannot be written.
///
/// # Panics
/// When `values` gives another type or number of elements than was planned.
pub fn write_planned<E: From<Error>>(
    path: &Path,
    planned: &[Planned],
    strings: BTreeMap<String, String>,
    mut values: impl FnMut(usize) -> Result<Values, E>,
) -> Result<(), E> {
    let mut failed = None;
    let written = crate::atomic::write_by(path, |out| {
        write_header(out, planned.iter().map(|p| (p.name.as_str(), p.kind, &p.shape[..])), strings)?;
        for (i, plan) in planned.iter().enumerate() {
            let values = match values(i) {
                Ok(values) => values,
                Err(error) => {
                    failed = Some(error);
                    return Err(std::io::Error::other("the values are not to be had"));
                }
            };
            assert_eq!(values.kind(), (plan.kind, plan.shape.iter().product()), "values of {}", plan.name);
            values.write_to(out)?;
        }
        Ok(())
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(written?),
    }
}

/// The length and the header of a file that holds these tensors in this order.
fn write_header<'a>(
    out: &mut dyn Write,
    tensors: impl Iterator<Item = (&'a str, Type, &'a [usize])>,
    strings: BTreeMap<String, String>,
) -> std::io::Result<()> {
    let mut header = serde_json::Map::new();
    let mut strings: serde_json::Map<String, serde_json::Value> =
        strings.into_iter().map(|(k, v)| (k, v.into())).collect();
    strings.insert("format".into(), "pt".into());
    header.insert("__metadata__".into(), strings.into());
    let mut at = 0;
    for (name, kind, shape) in tensors {
        let end = at + shape.iter().product::<usize>() * kind.bytes();
        header.insert(
            name.to_string(),
            serde_json::json!({"dtype": kind.name(), "shape": shape, "data_offsets": [at, end]}),
        );
        at = end;
    }
    let mut text = serde_json::Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    out.write_all(&(text.len() as u64).to_le_bytes())?;
    out.write_all(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let strings = BTreeMap::from([("sibo".to_string(), "{\"lambda\": 0.35}".to_string())]);
        let mut bytes = Vec::new();
        let tensors =
            [("b.weight", &[2, 3][..], &[1.0, -2.5, 3.0, 4.0, 5.5, -6.0][..]), ("a", &[1], &[7.25])];
        write_tensors_to(&mut bytes, tensors, strings).unwrap();
        bytes
    }

    fn open(bytes: &[u8]) -> Result<TensorFile, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.safetensors");
        std::fs::write(&path, bytes).unwrap();
        TensorFile::open(&path)
    }

    #[test]
    fn what_is_written_is_read() {
        let mut file = open(&sample()).unwrap();
        assert_eq!(file.strings()["sibo"], "{\"lambda\": 0.35}");
        assert_eq!(file.shapes()["b.weight"], [2, 3]);
        assert_eq!(file.read("b.weight").unwrap().into_f32(), [1.0, -2.5, 3.0, 4.0, 5.5, -6.0]);
        assert!(file.read("c").unwrap_err().to_string().contains("tensor `c` is missing"));
    }

    #[test]
    fn tensors_of_all_types_are_written_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.safetensors");
        let values = [
            Values::I8(vec![-128, 3, 127]),
            Values::F32(vec![0.3]),
            Values::Bf16(vec![bf16::from_f32(-1.5), bf16::from_f32(3.0)]),
            Values::F16(vec![f16::from_f32(0.1)]),
        ];
        let plan = |i: usize, shape: &[usize]| Planned {
            name: format!("t{}", 3 - i),
            kind: values[i].kind().0,
            shape: shape.to_vec(),
        };
        let planned = [plan(0, &[3, 1]), plan(1, &[1]), plan(2, &[1, 2]), plan(3, &[])];
        write_planned::<Error>(&path, &planned, BTreeMap::new(), |i| Ok(values[i].clone())).unwrap();
        let mut file = TensorFile::open(&path).unwrap();
        for (i, plan) in planned.iter().enumerate() {
            assert_eq!(file.stored(&plan.name), Some(plan.kind));
            let tensor = file.read(&plan.name).unwrap();
            assert_eq!((tensor.shape, tensor.values), (plan.shape.clone(), values[i].clone()));
            for spare in values.clone() {
                assert_eq!(file.read_into(&plan.name, Some(spare)).unwrap().values, values[i]);
            }
        }
        let missing = |i: usize| match i {
            2 => Err(Error::Missing { path: "there".into(), name: "it".into() }),
            _ => Ok(values[i].clone()),
        };
        let other = dir.path().join("other.safetensors");
        let error = write_planned::<Error>(&other, &planned, BTreeMap::new(), missing).unwrap_err();
        assert!(error.to_string().contains("tensor `it` is missing"), "{error}");
        assert!(!other.exists());
    }

    #[test]
    fn every_truncation_is_refused_with_a_sentence() {
        let whole = sample();
        for cut in 0..whole.len() {
            let error = open(&whole[..cut]).unwrap_err().to_string();
            assert!(error.contains("not a whole safetensors file"), "{cut}: {error}");
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert!(open(&longer).is_err());
    }

    #[test]
    fn a_header_that_lies_is_refused() {
        let mut lying = sample();
        lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(open(&lying).unwrap_err().to_string().contains("header claims"));
        let text = String::from_utf8_lossy(&sample()[8..]).into_owned();
        let overlapping = text.replace("[4,28]", "[0,24]");
        let mut bytes = sample()[..8].to_vec();
        bytes.extend(overlapping.as_bytes());
        assert!(open(&bytes).is_err());
    }
}
