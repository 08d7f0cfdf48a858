//! What the cross-crate tests share: the stored cases of `tests/data`, and how two tensors are compared.

pub mod folders;
pub mod measure;
pub mod table;

use serde_json::Value;
use sibo_files::TensorFile;
use sibo_model::{LoadOptions, Loaded, Model};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// `tests/data`.
pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

/// A stored case: a model, perhaps an adapter, rows, and what PyTorch gave.
pub struct Case {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// `case.json`.
    pub spec: Value,
}

impl Case {
    /// Every stored case, by name.
    pub fn all() -> Vec<Case> {
        let mut names: Vec<_> = std::fs::read_dir(data().join("cases"))
            .expect("tests/data/cases is in the repository")
            .filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned()))
            .collect();
        names.sort();
        names.into_iter().map(|n| Case::named(&n)).collect()
    }

    /// One case.
    pub fn named(name: &str) -> Case {
        let folder = data().join("cases").join(name);
        let spec = sibo_files::json::read(&folder.join("case.json")).expect("every case has a case.json");
        Case { name: name.into(), folder, spec }
    }

    /// The model's folder.
    pub fn model(&self) -> PathBuf {
        data().join("models").join(self.spec["model"].as_str().expect("a model's name"))
    }

    /// The adapter's folder, where the case has one.
    pub fn adapter(&self) -> Option<PathBuf> {
        (self.spec["adapter"] == Value::Bool(true)).then(|| self.folder.join("adapter"))
    }

    /// The model with its adapter.
    pub fn load(&self, options: &LoadOptions) -> Loaded {
        let loaded = match self.adapter() {
            Some(adapter) => Model::load_with_adapter(&self.model(), &adapter, options.clone()),
            None => Model::load(&self.model(), options),
        };
        loaded.unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }
}

/// All tensors of a file, widened to f32.
pub fn tensors(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let mut file = TensorFile::open(path).unwrap_or_else(|e| panic!("{e}"));
    let names: Vec<String> = file.shapes().into_keys().collect();
    names
        .into_iter()
        .map(|n| (n.clone(), file.read(&n).unwrap_or_else(|e| panic!("{e}")).into_f32()))
        .collect()
}

/// The largest difference relative to the largest entry of `want`; `floor` keeps tensors of rounding
/// noise from dividing by nothing.
pub fn relative_error(got: &[f32], want: &[f32], floor: f32) -> f32 {
    assert_eq!(got.len(), want.len(), "lengths");
    let scale = want.iter().fold(floor, |m, v| m.max(v.abs()));
    let worst = got.iter().zip(want).map(|(g, w)| if g.is_nan() { f32::INFINITY } else { (g - w).abs() });
    worst.fold(0.0, f32::max) / scale
}
