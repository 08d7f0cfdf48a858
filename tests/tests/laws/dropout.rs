//! The masks, read off the gradients: in a pass over one token, a dropped input column leaves a column of zeros in
//! the gradient of lora_A or adapter_down.

use serde_json::{Value, json};
use sibo_model::{Dropout, Labels, LoadOptions, Model, Row};
use sibo_peft::AdapterConfig;
use sibo_tests::folders::Scratch;
use sibo_tests::measure::{Input, gradients};
use sibo_tests::table::{Boost, Case, disturb};
use std::collections::BTreeMap;

const USUAL: Dropout = Dropout { seed: 6, epoch: 3, base: false };

/// Kept columns of each branch whose input reaches the loss from one token alone.
fn kept(model: &mut Model, dropout: Dropout, sample: u64, before: usize) -> BTreeMap<String, Vec<bool>> {
    // The second label of a decoder's row is predicted from its first token; an encoder's row is one token.
    let decoder = model.is_causal();
    let row = Row { ids: if decoder { vec![9, 4] } else { vec![9] }, types: vec![], sample };
    let labels = match Input::new(model, &[2], 1).labels {
        Labels::Tokens(_) => Labels::Tokens(vec![vec![-100, 4]]),
        Labels::Classes(_) => Labels::Classes(vec![1]),
        _ => Labels::Values(vec![0.7]),
    };
    let mut input = Input { rows: vec![row], labels };
    // Other rows before it, without a label where that is possible, must not move its masks.
    if decoder {
        for i in 0..before {
            input.rows.insert(0, Row { ids: vec![5, 6, 7], types: vec![], sample: 900 + i as u64 });
            if let Labels::Tokens(l) = &mut input.labels {
                l.insert(0, vec![-100; 3]);
            }
        }
    }
    gradients(model, &input, Some(dropout), false);
    let mut found = BTreeMap::new();
    for p in model.params().iter() {
        let branch = p.name.contains("lora_A") || p.name.contains("adapter_down") && p.shape.len() == 2;
        // One key makes softmax constant: queries and keys have no gradient here.
        if !branch || p.grad.iter().all(|g| *g == 0.0) {
            continue;
        }
        let width = p.shape[1];
        let column = |c: usize| p.grad.iter().skip(c).step_by(width).any(|g| *g != 0.0);
        found.insert(p.name.clone(), (0..width).map(column).collect());
    }
    found
}

pub(super) fn masks(case: &Case) -> Option<Vec<String>> {
    if !matches!(case.method.name, "lora-dropout" | "houlsby-mam") || case.boost == Boost::Plain {
        return None;
    }
    let mut plain = Case { boost: Boost::Plain, ..*case }.trained();
    let mut boosted = case.trained();
    let mine = kept(&mut plain, USUAL, 50, 0);
    let mut wrong = Vec::new();
    if mine.len() < 4 {
        wrong.push(format!("only {} branches have a readable mask", mine.len()));
    }
    let columns: Vec<bool> = mine.values().flatten().copied().collect();
    let dropped = columns.iter().filter(|k| !**k).count() as f64 / columns.len() as f64;
    let p = if case.method.name == "lora-dropout" { 0.4 } else { 0.3 };
    // Five standard deviations of a share of that many columns.
    if (dropped - p).abs() > 5.0 * (p * (1.0 - p) / columns.len() as f64).sqrt() {
        wrong.push(format!("{dropped:.2} of {} columns are dropped, not {p}", columns.len()));
    }
    for (what, other) in [
        ("SIBO drops other entries than the plain method", kept(&mut boosted, USUAL, 50, 0)),
        ("rows packed before it change a row's masks", kept(&mut plain, USUAL, 50, 2)),
    ] {
        if other != mine {
            wrong.push(what.into());
        }
    }
    for (what, other) in [
        ("seed", kept(&mut plain, Dropout { seed: 7, ..USUAL }, 50, 0)),
        ("epoch", kept(&mut plain, Dropout { epoch: 4, ..USUAL }, 50, 0)),
        ("sample", kept(&mut plain, USUAL, 51, 0)),
    ] {
        wrong.extend(
            mine.iter()
                .filter(|(n, m)| other.get(*n) == Some(m))
                .map(|(n, _)| format!("{n}: the same for another {what}")),
        );
    }
    let all: Vec<(&String, &Vec<bool>)> = mine.iter().collect();
    for (i, (name, mask)) in all.iter().enumerate() {
        let same = all[i + 1..].iter().filter(|(_, m)| m == mask);
        wrong.extend(same.map(|(n, _)| format!("{name} and {n} have one mask")));
    }
    Some(wrong)
}

/// The stored decoders have no dropout of their own. With it, gradients are still derivatives, and each rate does
/// something of its own.
#[test]
fn a_decoder_s_own_dropout() {
    let on = Some(Dropout { seed: 4, epoch: 1, base: true });
    let off = Some(Dropout { seed: 4, epoch: 1, base: false });
    for (name, rates) in [
        ("gptj", &[("resid_pdrop", 0.2), ("embd_pdrop", 0.15), ("attn_pdrop", 0.3)][..]),
        ("llama-gqa", &[("attention_dropout", 0.3)]),
    ] {
        let mut losses = Vec::new();
        for chosen in 0..=rates.len() {
            let folder = Scratch::model(name);
            folder.json("config.json", |c| {
                // One rate alone, then all of them.
                for (i, (key, p)) in rates.iter().enumerate() {
                    c[*key] = if chosen == i || chosen == rates.len() { json!(p) } else { json!(0.0) };
                }
            });
            let mut model = with_every_kind_of_branch(&folder);
            let input = Input::usual(&model);
            assert_eq!(
                gradients(&mut model, &input, off, false).0,
                gradients(&mut model, &input, None, false).0,
                "the base's dropout has a switch"
            );
            losses.push(gradients(&mut model, &input, on, false).0);
            let wrong = super::gradient::differences(model, on);
            assert!(wrong.is_empty(), "{name}: {}", wrong.join("\n"));
        }
        losses.sort_by(f64::total_cmp);
        losses.dedup();
        let different = if rates.len() == 1 { 1 } else { rates.len() + 1 };
        assert_eq!(losses.len(), different, "{name}: {losses:?}");
    }
}

fn with_every_kind_of_branch(folder: &Scratch) -> Model {
    let mut model = Model::load(folder.path(), &LoadOptions::default()).expect("a stored model").model;
    let words = if model.arch().names.family == "GPT-J" { "wte" } else { "embed_tokens" };
    let recipe: Value = json!({"method": "lora", "r": 2, "lora_alpha": 3, "target_modules": [words, "q_proj", "v_proj", "fc_in", "up_proj"],
        "sibo": {"lambda": 0.35}});
    let config = AdapterConfig::from_recipe("recipe", &recipe).expect("a configuration");
    model.attach(&config, 9).expect("fits");
    disturb(&mut model);
    model
}

/// A branch in the head sees some rows of a pass only (those with a label, the first of each text), in chunks: it drops
/// by the address of each, so that no row's loss knows what it was packed with.
#[test]
fn a_head_s_branch_drops_by_address() {
    let on = Some(Dropout { seed: 4, epoch: 1, base: false });
    for (name, target) in [("llama-gqa", "lm_head"), ("bert-classifier", ".*pooler.dense")] {
        let folder = Scratch::model(name);
        let mut model = Model::load(folder.path(), &LoadOptions::default()).expect("a stored model").model;
        let recipe: Value =
            json!({"method": "lora", "r": 2, "lora_alpha": 3, "lora_dropout": 0.4, "target_modules": target});
        let config = AdapterConfig::from_recipe("recipe", &recipe).expect("a configuration");
        model.attach(&config, 9).expect("fits");
        disturb(&mut model);
        let input = Input::usual(&model);
        let whole = gradients(&mut model, &input, on, false).0;
        assert_ne!(whole, gradients(&mut model, &input, None, false).0, "{name}: nothing is dropped");
        let alone: f64 =
            (0..input.rows.len()).map(|i| gradients(&mut model, &input.select(&[i]), on, false).0).sum();
        assert!((whole - alone).abs() < 1e-5 * whole.abs(), "{name}: {whole} packed, {alone} row by row");
        let wrong = super::gradient::differences(model, on);
        assert!(wrong.is_empty(), "{name}: {}", wrong.join("\n"));
    }
}
