//! The files of a model's folder, and tensors out of them.

use crate::Error;
use crate::layout::{self, Layout};
use serde_json::Value;
use sibo_files::{TensorFile, Type, Values};
use sibo_kernels::frozen::{Bits, Compute, FrozenWeight, Store};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The files of a folder and, for each tensor, which of them holds it.
pub(crate) struct Source {
    pub(crate) place: String,
    pub(crate) files: Vec<TensorFile>,
    /// Length and time of writing of each file when it was opened.
    stamps: Vec<(u64, Option<SystemTime>)>,
    /// How each file codes the tensors that it holds as integers.
    layouts: Vec<Layout>,
    /// Hugging Face's full name to (file, name in the file, shape of what is stored once it is decoded).
    pub(crate) found: BTreeMap<String, (usize, String, Vec<usize>)>,
}

impl Source {
    pub(crate) fn open(folder: &Path) -> Result<Self, Error> {
        let mut files = Vec::new();
        for path in tensor_files(folder)? {
            files.push(TensorFile::open(&path)?);
        }
        let mut found = BTreeMap::new();
        let mut layouts = Vec::new();
        let mut stamps = Vec::new();
        for (at, file) in files.iter().enumerate() {
            let layout = Layout::of_file(file)?;
            for (name, mut shape) in file.shapes() {
                if file.stored(&name) == Some(Type::I8)
                    && layout.of(&name).bits == Bits::Four
                    && let Some(columns) = shape.last_mut()
                {
                    *columns *= 2;
                }
                found.insert(modern(&name), (at, name, shape));
            }
            layouts.push(layout);
            stamps.push(file.stamp()?);
        }
        Ok(Source { place: folder.display().to_string(), files, stamps, layouts, found })
    }

    /// Looks a tensor up by its full name, with and without the backbone's prefix.
    pub(crate) fn key_of(&self, name: &str, prefix: &str) -> Option<String> {
        let bare = name.strip_prefix(prefix).unwrap_or(name);
        let candidates = [name.to_string(), bare.to_string(), format!("{prefix}{bare}")];
        candidates.into_iter().find(|c| self.found.contains_key(c))
    }

    /// A tensor as its file stores it.
    pub(crate) fn read(&mut self, key: &str) -> Result<Store, Error> {
        self.read_into(key, None)
    }

    /// A tensor as its file stores it, in the memory of values that are done with.
    pub(crate) fn read_into(&mut self, key: &str, spare: Option<Values>) -> Result<Store, Error> {
        let (at, name, shape) = self.found[key].clone();
        let tensor = self.files[at].read_into(&name, spare)?;
        Ok(match tensor.values {
            Values::F32(v) => Store::F32(v),
            Values::Bf16(v) => Store::Bf16(v),
            Values::F16(v) => Store::F16(v),
            Values::I8(q) => {
                let scale = self.files[at].read(&layout::scale_name(&name))?.into_f32();
                let (bits, block) = self.coding(at, &name, &shape, scale.len())?;
                match bits {
                    Bits::Eight => Store::I8 { q, scale, block },
                    Bits::Four => Store::I4 { q: q.into_iter().map(|b| b as u8).collect(), scale, block },
                }
            }
        })
    }

    /// Whether two tensors hold the same numbers.
    pub(crate) fn same(&mut self, one: &str, other: &str) -> Result<bool, Error> {
        if self.found[one].2 != self.found[other].2 {
            return Ok(false);
        }
        let (count, width) = match self.found[one].2.as_slice() {
            [count, width] => (*count, *width),
            shape => (1, shape.iter().product()),
        };
        let (one, other) = (self.read(one)?, self.read(other)?);
        if std::mem::discriminant(&one) == std::mem::discriminant(&other) {
            return Ok(one == other);
        }
        let wide = |store| FrozenWeight::new(count, width, store, Compute::F32).to_f32();
        Ok(wide(one) == wide(other))
    }

    /// In how many bits a tensor is coded, and how many columns share a scale; none for floats. Only headers are read.
    pub(crate) fn coding_of(&self, key: &str) -> Result<Option<(Bits, usize)>, Error> {
        let (at, name, shape) = &self.found[key];
        let file = &self.files[*at];
        if file.stored(name) != Some(Type::I8) {
            return Ok(None);
        }
        let scales = file.shapes().remove(&layout::scale_name(name)).map_or(0, |s| s.iter().product());
        self.coding(*at, name, shape, scales).map(Some)
    }

    fn coding(&self, at: usize, name: &str, shape: &[usize], scales: usize) -> Result<(Bits, usize), Error> {
        let coding = self.layouts[at].of(name);
        let columns = shape.last().copied().unwrap_or(1);
        let rows = shape.iter().product::<usize>() / columns.max(1);
        let block = coding.block_of(rows, columns, scales).map_err(|reason| Error::Tensors {
            place: self.place.clone(),
            report: format!("  {name} {shape:?}: {reason}"),
        })?;
        Ok((coding.bits, block))
    }

    /// Bytes of a tensor in its file, scales aside.
    pub(crate) fn bytes_of(&self, key: &str) -> usize {
        let (at, name, shape) = &self.found[key];
        let numbers: usize = shape.iter().product();
        match self.files[*at].stored(name) {
            Some(Type::I8) if self.layouts[*at].of(name).bits == Bits::Four => numbers / 2,
            Some(kind) => numbers * kind.bytes(),
            None => 0,
        }
    }

    /// Refuses to go on with a file that is not the one that was opened: what is read during a run must stay the same.
    pub(crate) fn check_unchanged(&self, key: &str) -> Result<(), Error> {
        let at = self.found[key].0;
        if self.files[at].stamp()? == self.stamps[at] {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "{}: was written to while the run was reading its weights from it, so the numbers from here on would be of \
             another model; start again with a model that nobody changes",
            self.files[at].path().display()
        )))
    }
}

/// Old checkpoints call a norm's weight and bias gamma and beta.
fn modern(name: &str) -> String {
    if let Some(stem) = name.strip_suffix(".gamma") {
        return format!("{stem}.weight");
    }
    if let Some(stem) = name.strip_suffix(".beta") {
        return format!("{stem}.bias");
    }
    name.to_string()
}

/// `model.safetensors`, or the shards that the index names.
fn tensor_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let single = folder.join("model.safetensors");
    if single.exists() {
        return Ok(vec![single]);
    }
    let index = folder.join("model.safetensors.index.json");
    if index.exists() {
        let value = sibo_files::json::read(&index)?;
        let map = value.get("weight_map").and_then(Value::as_object);
        let map = map.ok_or_else(|| Error::key(&index.display().to_string(), "weight_map", "is missing"))?;
        let bad = |reason: String| Error::key(&index.display().to_string(), "weight_map", reason);
        let file = |(tensor, v): (&String, &Value)| match v.as_str() {
            Some(name) => Ok(name.to_string()),
            None => Err(bad(format!("the file of `{tensor}` is {v}, not a name"))),
        };
        let mut names = map.iter().map(file).collect::<Result<Vec<_>, _>>()?;
        names.sort_unstable();
        names.dedup();
        if let Some(name) = names.iter().find(|n| n.contains(['/', '\\']) || *n == "." || *n == "..") {
            return Err(bad(format!("`{name}` lies outside the folder")));
        }
        return Ok(names.into_iter().map(|n| folder.join(n)).collect());
    }
    if folder.join("pytorch_model.bin").exists() || folder.join("pytorch_model.bin.index.json").exists() {
        return Err(Error::Refused(format!(
            "{}: only pytorch_model.bin is here, which can run code when it is read. Convert it once in Python: \
             AutoModel.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER), and use the new folder",
            folder.display()
        )));
    }
    Err(Error::Refused(format!(
        "{}: no model.safetensors and no model.safetensors.index.json; a model folder holds config.json and one of them",
        folder.display()
    )))
}
