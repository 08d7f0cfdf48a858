//! Copies of stored folders with something changed in them.

use serde_json::Value;
use sibo_files::TensorFile;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name to shape and row-major values.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A folder that goes away with this value.
pub struct Scratch {
    place: tempfile::TempDir,
}

impl Scratch {
    /// A copy of `folder` (its files, not the folders in it).
    pub fn copy_of(folder: &Path) -> Scratch {
        let place = tempfile::tempdir().expect("a temporary folder");
        for entry in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let entry = entry.expect("an entry");
            if entry.path().is_file() {
                std::fs::copy(entry.path(), place.path().join(entry.file_name())).expect("a copy");
            }
        }
        Scratch { place }
    }

    /// A copy of a stored model.
    pub fn model(name: &str) -> Scratch {
        Scratch::copy_of(&crate::data().join("models").join(name))
    }

    /// A copy of a stored case's adapter.
    pub fn adapter(case: &str) -> Scratch {
        Scratch::copy_of(&crate::data().join("cases").join(case).join("adapter"))
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Changes a JSON file.
    pub fn json(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let path = self.file(name);
        let mut value = sibo_files::json::read(&path).expect("JSON");
        change(&mut value);
        self.bytes(name, |_| value.to_string().into_bytes());
    }

    /// Changes the bytes of a file.
    pub fn bytes(&self, name: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let path = self.file(name);
        let old = std::fs::read(&path).unwrap_or_default();
        // A file that is cut to nothing and written again is flushed to disk by some file systems; a new one is not.
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, change(old)).expect("a file");
    }

    /// Changes the tensors of a safetensors file, with its header's strings kept.
    pub fn tensors(&self, name: &str, change: impl FnOnce(&mut Tensors)) {
        let path = self.file(name);
        let mut file = TensorFile::open(&path).expect("a sound file");
        let strings = file.strings();
        let mut all: Tensors = file
            .shapes()
            .into_iter()
            .map(|(n, shape)| (n.clone(), (shape, file.read(&n).expect("a tensor").into_f32())))
            .collect();
        change(&mut all);
        let list = all.iter().map(|(n, (shape, values))| (n.as_str(), shape.as_slice(), values.as_slice()));
        let mut bytes = Vec::new();
        sibo_files::write_tensors_to(&mut bytes, list, strings).expect("memory takes it");
        self.bytes(name, |_| bytes);
    }
}
