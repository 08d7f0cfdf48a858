use super::*;
use crate::events::{Best, EvalRecord, LookRecord};
use crate::probe::LayerLook;
use crate::testing;
use serde_json::json;

fn state(step: usize) -> State {
    State {
        identity: json!({"seed": 3, "base": [0.25, -1.5]}),
        step,
        best: Some(Best { step: 2, metric: "acc".into(), value: 0.1 + 0.2 }),
        since_best: 1,
        evaluations: vec![EvalRecord {
            step: 2,
            epoch: 0.7,
            scores: vec![("loss".into(), 1.0 / 3.0), ("acc".into(), 0.1 + 0.2)],
            best: true,
            seconds: 0.5,
        }],
        looks: vec![LookRecord {
            step: 2,
            epoch: 0.7,
            h0_norm: 1.0 / 7.0,
            layers: vec![LayerLook {
                similarity: 1.0 / 3.0,
                x_norm: 2.0 / 3.0,
                h0_cosine: -0.1,
                h0_share: 0.1 + 0.2,
            }],
            seconds: 0.25,
        }],
        losses: (0..step).map(|i| 1.0 / (3 + i) as f64).collect(),
        seconds: 0.1 + 0.2,
        isa: "scalar".into(),
    }
}

#[test]
fn a_checkpoint_gives_back_every_bit() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = testing::model("llama-gqa", testing::sibo_lora(&["q_proj", "down_proj"]));
    for (i, param) in model.params_mut().iter_mut().enumerate() {
        param.value.iter_mut().enumerate().for_each(|(j, v)| *v = 1.0 / (1 + i + 7 * j) as f32);
    }
    let moments =
        |sign: f32| model.params().iter().map(|p| p.value.iter().map(|v| sign * v / 3.0).collect()).collect();
    let optimiser = OptimiserState { steps: 4, first: moments(-1.0), second: moments(1.0) };
    let saved = save(dir.path(), &model, &optimiser, &state(4), 3).unwrap();
    let found = latest(dir.path()).unwrap().unwrap();
    assert_eq!((found.step, &found), (4, &saved));
    assert_eq!(found.state().unwrap(), state(4));
    let mut other = testing::model("llama-gqa", testing::sibo_lora(&["q_proj", "down_proj"]));
    assert_eq!(found.restore(&mut other).unwrap(), optimiser);
    assert_eq!(testing::bits(&other), testing::bits(&model));
    // SGD without a second moment.
    let single = OptimiserState { second: vec![vec![]; optimiser.first.len()], ..optimiser };
    save(dir.path(), &model, &single, &state(5), 3).unwrap();
    assert_eq!(latest(dir.path()).unwrap().unwrap().restore(&mut other).unwrap(), single);
}

#[test]
fn only_the_last_checkpoints_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let model = testing::model("llama-gqa", testing::sibo_lora(&["q_proj"]));
    for step in [3, 12, 100, 7] {
        save(dir.path(), &model, &OptimiserState::default(), &state(step), 2).unwrap();
    }
    let steps: Vec<usize> = list(dir.path()).unwrap().iter().map(|c| c.step).collect();
    assert_eq!(steps, [7, 100]);
}

#[test]
fn a_broken_checkpoint_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = testing::model("llama-gqa", testing::sibo_lora(&["q_proj"]));
    let found = save(dir.path(), &model, &OptimiserState::default(), &state(3), 2).unwrap();
    let path = found.folder.join(STATE_FILE);
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    write("{\"version\": 9}");
    assert!(
        found
            .state()
            .unwrap_err()
            .to_string()
            .contains("`version`: 9 is not supported; this build reads version 1")
    );
    write("{\"version\": 1, \"step\": 3");
    assert!(found.state().unwrap_err().to_string().contains("state.json: not valid JSON at line 1"));
    write("{\"version\": 1, \"best\": null, \"evaluations\": []}");
    assert!(found.state().unwrap_err().to_string().contains("`step`: is missing"));
    let tensors = found.folder.join(OPTIMISER_FILE);
    let whole = std::fs::read(&tensors).unwrap();
    std::fs::write(&tensors, &whole[..whole.len() - 5]).unwrap();
    let said = found.restore(&mut model).unwrap_err().to_string();
    assert!(said.contains("optimiser.safetensors: not a whole safetensors file"), "{said}");
}

#[test]
fn a_damaged_checkpoint_is_passed_over_for_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let model = testing::model("llama-gqa", testing::sibo_lora(&["q_proj"]));
    let save = |step| save(dir.path(), &model, &OptimiserState::default(), &state(step), 3).unwrap();
    let (first, second, third) = (save(3), save(5), save(8));
    assert_eq!(latest(dir.path()).unwrap(), Some(third.clone()));
    let cut = |path: &Path| {
        let whole = std::fs::read(path).unwrap();
        std::fs::write(path, &whole[..whole.len() - 3]).unwrap();
    };
    cut(&third.folder.join(OPTIMISER_FILE));
    cut(&second.folder.join(ADAPTER).join("adapter_model.safetensors"));
    let found = latest(dir.path()).unwrap().unwrap();
    assert_eq!(found.step, 3);
    let named =
        |at: usize, file: &str| assert!(found.passed_over[at].contains(file), "{:?}", found.passed_over);
    named(0, "step-0000008/optimiser.safetensors");
    named(1, "step-0000005/adapter/adapter_model.safetensors");
    std::fs::rename(&first.folder, dir.path().join(FOLDER).join("step-0000004")).unwrap();
    let said = latest(dir.path()).unwrap_err().to_string();
    assert!(
        said.contains("step-0000008") && said.contains("No checkpoint of this run can be used; remove"),
        "{said}"
    );
}
