use super::*;
use crate::testing;
use sibo_model::Row;

fn rows() -> Vec<ProbeRow> {
    let data = testing::class_rows(9, 60, 3);
    let places = |n: usize| (1..n - 1).collect();
    data.rows
        .into_iter()
        .filter(|r| r.row.ids.len() >= 5)
        .map(|r| ProbeRow { places: places(r.row.ids.len()), row: Row { types: vec![], ..r.row } })
        .collect()
}

/// Every measure of the last layer by plain loops over an n x n table, in one pass over unpacked rows.
#[test]
fn the_profile_is_the_direct_computation() {
    let model = testing::model("llama-gqa", testing::sibo_lora(&["q_proj"]));
    let rows = rows();
    assert!(rows.len() >= 4);
    let found = profile(&model, &rows, 3, &mut |_| {}).unwrap();
    let layers = model.arch().layers;
    assert_eq!((found.layers.len(), found.sequences), (layers + 1, rows.len()));
    let mut states: Vec<Vec<Vec<f64>>> = vec![];
    let mut starts: Vec<Vec<Vec<f64>>> = vec![];
    for row in &rows {
        let batch = sibo_model::Batch::new(model.arch(), std::slice::from_ref(&row.row)).unwrap();
        let wide =
            |r: &Rows| row.places.iter().map(|p| r.row(*p).iter().map(|v| f64::from(*v)).collect()).collect();
        model.hidden_states(&batch, |l, r| match l {
            0 => starts.push(wide(r)),
            l if l == layers => states.push(wide(r)),
            _ => {}
        });
    }
    let all: Vec<&Vec<f64>> = states.iter().flatten().collect();
    let centre: Vec<f64> =
        (0..all[0].len()).map(|c| all.iter().map(|s| s[c]).sum::<f64>() / all.len() as f64).collect();
    let inner = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let cosine = |a: &[f64], b: &[f64]| inner(a, b) / (inner(a, a) * inner(b, b)).sqrt();
    let top = &found.layers[layers];
    for (i, (tokens, starts)) in states.iter().zip(&starts).enumerate() {
        let moved: Vec<Vec<f64>> =
            tokens.iter().map(|t| t.iter().zip(&centre).map(|(v, c)| v - c).collect()).collect();
        let n = tokens.len();
        let pairs = |rows: &[Vec<f64>]| {
            let mut table = vec![vec![0.0; n]; n];
            (0..n).for_each(|a| (0..n).for_each(|b| table[a][b] = cosine(&rows[a], &rows[b])));
            let off: f64 = (0..n).map(|a| (0..n).filter(|b| *b != a).map(|b| table[a][b]).sum::<f64>()).sum();
            off / (n * (n - 1)) as f64
        };
        let mean = |value: &dyn Fn(usize) -> f64| (0..n).map(value).sum::<f64>() / n as f64;
        let close = |name: &str, measure: &Measure, direct: f64| {
            let found = measure.by_sequence[i];
            assert!((found - direct).abs() < 1e-5 * (1.0 + direct.abs()), "{name} of {i}: {found} {direct}");
        };
        close("similarity", &top.similarity, pairs(tokens));
        close("centred", &top.centred, pairs(&moved));
        close("norm", &top.x_norm, mean(&|t| inner(&tokens[t], &tokens[t]).sqrt()));
        close("cosine", &top.h0_cosine, mean(&|t| cosine(&tokens[t], &starts[t])));
        close(
            "share",
            &top.h0_share,
            mean(&|t| inner(&tokens[t], &starts[t]) / inner(&starts[t], &starts[t])),
        );
        assert!(top.effective_rank.by_sequence[i] > 1.0 && top.effective_rank.by_sequence[i] <= n as f64);
    }
    assert!((top.centred.mean.estimate - top.similarity.mean.estimate).abs() > 1e-3);
    let start = &found.layers[0];
    assert!((start.h0_share.mean.estimate - 1.0).abs() < 1e-6);
}

#[test]
fn sites_read_what_the_wiring_says() {
    // Pre-norm: attention reads a normalised state, whose RMS the norm's weight sets; h0 is the bare embedding.
    let decoder = testing::model("llama-gqa", testing::sibo_lora(&["q_proj"]));
    let found = profile(&decoder, &rows(), 4, &mut |_| {}).unwrap();
    let names: Vec<&str> = found.sites.iter().filter(|s| s.layer == 0).map(|s| s.site).collect();
    assert!(
        ["attention input", "after attention", "FFN input", "after FFN"].iter().all(|n| names.contains(n)),
        "{names:?}"
    );
    let layers = decoder.arch().layers;
    assert!(found.sites.iter().all(|s| s.layer < layers));
    // Post-norm: the first layer's attention reads h0 itself.
    let dir = tempfile::tempdir().unwrap();
    let folder = testing::folder(dir.path(), "bert");
    let encoder = Model::load(&folder, &sibo_model::LoadOptions::default()).unwrap().model;
    let found = profile(&encoder, &rows(), 4, &mut |_| {}).unwrap();
    let first = found.sites.iter().find(|s| s.layer == 0 && s.site == "attention input").unwrap();
    assert!((first.ratio.mean.estimate - 1.0).abs() < 1e-9);
    let second = found.sites.iter().find(|s| s.layer == 1 && s.site == "attention input").unwrap();
    let state = &found.layers[1].x_norm;
    assert_eq!(second.x_norm.by_sequence, state.by_sequence);
}

/// The branch beside one linear, from its matrices and from what the site reads.
#[test]
fn what_branches_add_is_measured_against_what_they_join() {
    let mut model = testing::model("llama-gqa", testing::sibo_lora(&["layers.0.self_attn.q_proj"]));
    let rows = rows();
    assert_eq!(branch_share(&model, &rows, 4).unwrap(), Some(0.0));
    for (i, param) in model.params_mut().iter_mut().enumerate() {
        param
            .value
            .iter_mut()
            .enumerate()
            .for_each(|(j, v)| *v = ((3 + 7 * i + 5 * j) % 11) as f32 / 9.0 - 0.4);
    }
    let param = |part: &str| model.params().iter().find(|p| p.name.contains(part)).unwrap().clone();
    let (a, b) = (param("lora_A"), param("lora_B"));
    let w = model.tensor("model.layers.0.self_attn.q_proj.weight").unwrap();
    let times = |m: &[f32], x: &[f64]| -> Vec<f64> {
        m.chunks(x.len()).map(|r| r.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum()).collect()
    };
    let (mut added, mut joined): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (vec![], vec![]);
    for row in &rows {
        let batch = sibo_model::Batch::new(model.arch(), std::slice::from_ref(&row.row)).unwrap();
        model.site_inputs(&batch, |layer, site, x, h0| {
            if (layer, site) != (0, Site::Query) {
                return;
            }
            for t in &row.places {
                let wide = |r: &Rows| r.row(*t).iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
                let (x, h0) = (wide(x), wide(h0));
                let mixed: Vec<f64> = x.iter().zip(&h0).map(|(x, h)| 0.65 * x + 0.35 * h).collect();
                let scale = 7.0 / 5.0;
                added.push(times(&b.value, &times(&a.value, &mixed)).iter().map(|v| scale * v).collect());
                joined.push(times(&w, &x));
            }
        });
    }
    let variance = |rows: &[Vec<f64>]| -> f64 {
        let n = rows.len() as f64;
        (0..rows[0].len())
            .map(|c| {
                let mean = rows.iter().map(|r| r[c]).sum::<f64>() / n;
                rows.iter().map(|r| (r[c] - mean).powi(2)).sum::<f64>() / n
            })
            .sum()
    };
    let direct = variance(&added) / variance(&joined);
    let found = branch_share(&model, &rows, 3).unwrap().unwrap();
    assert!(direct > 0.01 && (found - direct).abs() < 1e-4 * direct, "{found} {direct}");
}
