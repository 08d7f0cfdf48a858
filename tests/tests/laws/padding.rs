//! PyTorch's `padding_idx`: the padding token's row of a table, and its column of a LoRA on that table, never learn.

use sibo_model::Positions;
use sibo_tests::measure::{Input, gradients, names};
use sibo_tests::table::Case;

pub(super) fn does_not_learn(case: &Case) -> Option<Vec<String>> {
    let trains_tables = matches!(case.method.name, "lora-embedding" | "full");
    if !trains_tables || case.backbone.family.is_decoder() {
        return None;
    }
    let mut model = case.trained();
    let arch = model.arch();
    let padding = arch.padding.expect("BERT and RoBERTa have a padding token");
    let positions_too = matches!(arch.positions, Positions::Learned { skip_padding: Some(_), .. });
    let mut input = Input::usual(&model);
    let seen = input.rows[0].ids[0] as usize;
    for row in &mut input.rows {
        let last = row.ids.len() - 1;
        row.ids[last] = padding;
        row.ids[last / 2] = padding;
    }
    let (_, grads) = gradients(&mut model, &input, None, false);
    let mut found = 0;
    let mut wrong = Vec::new();
    for (name, (grad, param)) in names(&model).iter().zip(grads.iter().zip(model.params().iter())) {
        let [rows, width] = param.shape[..] else { continue };
        // Of a LoRA's A (R, V) a column, of a table (V, D) a row.
        let part = |id: usize| -> Vec<f32> {
            match name.ends_with("lora_embedding_A") {
                true => (0..rows).map(|r| grad[r * width + id]).collect(),
                false => grad[id * width..(id + 1) * width].to_vec(),
            }
        };
        let words = name.contains("word_embeddings") && !name.ends_with("lora_embedding_B");
        let positions = positions_too && name.ends_with("position_embeddings.weight");
        if !words && !positions {
            continue;
        }
        found += 1;
        let (kept, learns) =
            if words { (padding as usize, seen) } else { (padding as usize, padding as usize + 1) };
        if part(kept).iter().any(|g| *g != 0.0) {
            wrong.push(format!("{name}: the padding row has a gradient"));
        }
        if part(learns).iter().all(|g| *g == 0.0) {
            wrong.push(format!("{name}: row {learns} has no gradient"));
        }
    }
    if found == 0 {
        wrong.push("no table was looked at".into());
    }
    Some(wrong)
}
