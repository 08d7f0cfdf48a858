use super::*;
use crate::testing;
use sibo_model::LoadOptions;

#[test]
fn layers_are_measured_over_the_ordinary_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let folder = testing::folder(dir.path(), "bert");
    let model = Model::load(&folder, &LoadOptions::default()).unwrap().model;
    let tokenizer = Tokenizer::from_folder(&folder).unwrap();
    let texts = ["the box is red", "who is in the old house", "a", "his dog eats"];
    let rows_of = |text: &&str| crate::data::LabelledRow {
        row: Row { ids: tokenizer.encode(text, None).unwrap().ids, ..Row::default() },
        label: crate::data::Label::Class(0),
    };
    let data = Dataset { rows: texts.iter().map(rows_of).collect(), ..Dataset::default() };
    let found = rows(&data, &tokenizer, 3);
    let long: Vec<&str> = texts.into_iter().filter(|t| *t != "a").collect();
    assert_eq!(found.len(), long.len());
    for (row, text) in found.iter().zip(long) {
        let kept: Vec<u32> = row.places.iter().map(|p| row.row.ids[*p]).collect();
        assert_eq!(kept, tokenizer.encode_bare(text).unwrap());
    }
    let layers = probe(&model, &found, 2).unwrap();
    assert_eq!(layers.len(), model.arch().layers + 1);
    // By hand: all pairs of the first row at the last layer.
    let batch = Batch::new(model.arch(), std::slice::from_ref(&found[0].row)).unwrap();
    let mut last = Vec::new();
    model.hidden_states(&batch, |_, states| {
        last = found[0].places.iter().map(|p| states.row(*p).to_vec()).collect()
    });
    let (mut sum, mut pairs) = (0.0, 0.0);
    for (i, a) in last.iter().enumerate() {
        for b in &last[..i] {
            sum += dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
            pairs += 1.0;
        }
    }
    let top = layers.last().unwrap();
    assert!((top.by_sequence[0] - sum / pairs).abs() < 1e-5, "{} {}", top.by_sequence[0], sum / pairs);
    let mean = top.by_sequence.iter().sum::<f64>() / 3.0;
    assert!((top.similarity.estimate - mean).abs() < 1e-12);
    // At layer 0 the state is h0 itself.
    assert!((layers[0].h0_cosine - 1.0).abs() < 1e-6 && (layers[0].h0_share - 1.0).abs() < 1e-6);
    assert_eq!(layers[0].x_norm, layers[0].h0_norm);
    assert!(top.h0_cosine < 0.999 && top.x_norm != top.h0_norm);
}

#[test]
fn too_few_rows_are_refused() {
    let model = testing::model("llama-gqa", testing::sibo_lora(&["q_proj"]));
    let one = ProbeRow { row: Row { ids: vec![4, 5, 6], ..Row::default() }, places: vec![0, 1, 2] };
    let said = probe(&model, &[one], 4).unwrap_err().to_string();
    assert!(said.contains("needs 2 rows or more") && said.contains("1 found"), "{said}");
}
