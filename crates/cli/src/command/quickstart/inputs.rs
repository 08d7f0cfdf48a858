//! The model and the rows, embedded in the program and written out for the run.
//!
//! Always from the program, never from a folder of the sources: an installed binary then does exactly what one
//! in a clone does, there is one way and not two, and the run's folder holds all that went in (25 MB).

use std::path::{Path, PathBuf};

/// The base model's name.
pub(super) const MODEL: &str = "all-MiniLM-L6-v2";

macro_rules! asset {
    ($path:literal) => {
        ($path, include_bytes!(concat!("../../../../../assets/", $path)).as_slice())
    };
}

/// The model's files, below `assets/`.
const MODEL_FILES: [(&str, &[u8]); 5] = [
    asset!("minilm-l6-int8/SOURCE.md"),
    asset!("minilm-l6-int8/config.json"),
    asset!("minilm-l6-int8/model.safetensors"),
    asset!("minilm-l6-int8/tokenizer.json"),
    asset!("minilm-l6-int8/tokenizer_config.json"),
];

/// The rows.
const DATA_FILES: [(&str, &[u8]); 3] =
    [asset!("qnli/SOURCE.md"), asset!("qnli/train.tsv"), asset!("qnli/dev.tsv")];

/// Where the inputs lie.
pub(super) struct Folders {
    /// A model folder like any other.
    pub(super) model: PathBuf,
    /// A data root, with GLUE's own layout below it.
    pub(super) data: PathBuf,
}

/// Writes model and rows below `folder`; files that are there already are kept.
pub(super) fn write(folder: &Path) -> Result<Folders, sibo_files::Error> {
    let folders = Folders { model: folder.join("model"), data: folder.join("data") };
    put(&folders.model, &MODEL_FILES)?;
    put(&folders.data.join("glue").join("QNLI"), &DATA_FILES)?;
    Ok(folders)
}

fn put(folder: &Path, files: &[(&str, &[u8])]) -> Result<(), sibo_files::Error> {
    for (path, bytes) in files {
        let name = path.rsplit('/').next().unwrap_or(path);
        let file = folder.join(name);
        let there = std::fs::read(&file).is_ok_and(|old| old == *bytes);
        if !there {
            sibo_files::write(&file, bytes)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_copy_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let folders = write(dir.path()).unwrap();
        let config = folders.model.join("config.json");
        let whole = std::fs::read(&config).unwrap();
        std::fs::write(&config, "{}").unwrap();
        write(dir.path()).unwrap();
        assert_eq!(std::fs::read(&config).unwrap(), whole);
        assert!(folders.data.join("glue/QNLI/dev.tsv").is_file());
    }
}
