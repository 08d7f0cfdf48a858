//! Layers that are read in every pass, from files that do not stay as they were. That their numbers are those of layers
//! in memory is a law of its own (`tests/tests/laws/streamed.rs`).

use serde_json::json;
use sibo_model::{Batch, Compute, Labels, LoadOptions, Model, Row, StepOutput, write_random};
use std::path::{Path, PathBuf};

const LAYERS: usize = 5;

fn written(folder: &Path) -> PathBuf {
    let config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 48, "intermediate_size": 72,
        "num_hidden_layers": LAYERS, "num_attention_heads": 4, "vocab_size": 60, "tie_word_embeddings": false,
    });
    write_random(&config, folder, None, 9).unwrap();
    folder.join("model-00001-of-00001.safetensors")
}

fn streamed(folder: &Path, layers: usize) -> Model {
    let options = LoadOptions { compute: Compute::Bf16, ..LoadOptions::default() };
    let mut model = Model::open(folder, &options).unwrap().model;
    model.read_base(layers).unwrap();
    model
}

fn loss(model: &mut Model) -> StepOutput {
    let ids: Vec<u32> = (0..17).map(|i| i * 7 % 60).collect();
    let labels = Labels::Tokens(vec![ids.iter().map(|i| i64::from(*i)).collect()]);
    let batch = Batch::new(model.arch(), &[Row { ids, ..Row::default() }]).unwrap();
    model.loss(&batch, &labels)
}

#[test]
fn a_pass_that_goes_down_where_it_came_up_reads_little_twice() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    let mut whole = streamed(dir.path(), 0);
    assert!(whole.streaming().is_none());
    let mut model = streamed(dir.path(), LAYERS);
    assert_eq!(loss(&mut model), loss(&mut whole));
    model.check_base().unwrap();
    let layer = (4 * 48 * 48 + 3 * 48 * 72) * 2;
    let first = model.streaming().unwrap();
    assert_eq!((first.layers, first.bytes), (LAYERS, LAYERS as u64 * layer));
}

/// A file that shrinks under a run: no number comes of it, and the run hears why.
#[test]
fn a_file_that_changes_or_shrinks_is_an_error_and_no_number() {
    for shrink in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path());
        let mut model = streamed(dir.path(), LAYERS);
        assert!(loss(&mut model).loss_sum.is_finite());
        model.check_base().unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        match shrink {
            true => file.set_len(1000).unwrap(),
            false => file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap(),
        }
        assert!(loss(&mut model).loss_sum.is_nan());
        let said = model.check_base().unwrap_err().to_string();
        assert!(said.contains("model-00001-of-00001.safetensors: was written to"), "{said}");
    }
}

#[test]
fn a_weight_that_is_not_finite_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    // The last tensors are the final norm and the head, [60, 48] in two bytes each; before them lies the last layer's norm.
    let at = bytes.len() - 60 * 48 * 2 - 3 * 48 * 2 - 10;
    bytes[at..at + 2].copy_from_slice(&0x7f80u16.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let mut model = streamed(dir.path(), LAYERS);
    loss(&mut model);
    let said = model.check_base().unwrap_err().to_string();
    assert!(said.contains("not finite: model.layers.4.mlp.down_proj.weight"), "{said}");
    let options = LoadOptions::default();
    let resident = Model::load(dir.path(), &options).err().unwrap().to_string();
    assert!(resident.contains("not finite: model.layers.4.mlp.down_proj.weight"), "{resident}");
}

#[test]
#[should_panic(expected = "before Model::read_base")]
fn a_model_that_is_only_open_does_not_compute() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    let mut model = Model::open(dir.path(), &LoadOptions::default()).unwrap().model;
    loss(&mut model);
}
