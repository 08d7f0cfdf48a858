use super::*;
use crate::testing;
use sibo_model::Row;

fn curve(before: f64, initial: f64, fall: impl Fn(f64) -> f64) -> Curve {
    let raw: Vec<f64> = (0..POINTS).map(|i| initial + (before - initial) * fall(lambda_of(i))).collect();
    Curve { site: "attention input", layers: 3, initial, ratio: 1.0, rms: raw.clone(), raw }
}

#[test]
fn half_of_the_excess_is_where_the_rule_stops() {
    // A straight fall to zero at 0.6 is half way at 0.3.
    let said = choose(&[&curve(0.9, 0.3, |l| 1.0 - l / 0.6)], H0::Raw).unwrap();
    assert_eq!((said.lambda, said.why), (0.3, Why::Halved));
    assert!(
        said.to_string().starts_with("lambda 0.30: there the similarity has fallen from 0.900"),
        "{said}"
    );
    let slow = choose(&[&curve(0.9, 0.3, |l| 1.0 - 0.5 * l)], H0::Rms).unwrap();
    assert_eq!((slow.lambda, slow.why), (0.0, Why::OutOfReach));
    let none = choose(&[&curve(0.34, 0.3, |l| 1.0 - l)], H0::Raw).unwrap();
    assert_eq!((none.lambda, none.why), (0.0, Why::NothingToUndo));
    assert_eq!(choose(&[], H0::Raw), None);
    // Two kinds: layers weigh, so the mean of a fast one of three layers and a level one of one falls by 3 / 4.
    let level = Curve { layers: 1, ..curve(0.9, 0.3, |_| 1.0) };
    let both = choose(&[&curve(0.9, 0.3, |l| 1.0 - l / 0.6), &level], H0::Raw).unwrap();
    assert_eq!(both.lambda, 0.4);
}

/// S against every pair's cosine, computed one by one in f64.
#[test]
fn curves_are_the_mean_cosines_of_the_mixture() {
    let model = testing::model("llama-gqa", testing::sibo_lora(&["q_proj", "up_proj"]));
    let rows: Vec<ProbeRow> = testing::token_rows(5, 71)
        .rows
        .into_iter()
        .map(|r| ProbeRow { places: (1..r.row.ids.len()).collect(), row: r.row })
        .filter(|r| r.places.len() >= 2)
        .collect();
    let found = curves(&model, &rows, 2).unwrap();
    let kinds: Vec<&str> = found.iter().map(|c| c.site).collect();
    assert!(kinds.contains(&"attention input") && kinds.contains(&"FFN input"), "{kinds:?}");
    let at = 8;
    let lambda = lambda_of(at);
    let (mut sums, mut seen) = ([0.0; 2], 0.0);
    for row in &rows {
        let one: &[Row] = std::slice::from_ref(&row.row);
        let batch = sibo_model::Batch::new(model.arch(), one).unwrap();
        model.site_inputs(&batch, |_, site, x, h0| {
            if site.kind() != "FFN input" {
                return;
            }
            seen += 1.0;
            for (sum, rms) in sums.iter_mut().zip([false, true]) {
                let tokens: Vec<Vec<f64>> =
                    row.places.iter().map(|t| mixed(x.row(*t), h0.row(*t), lambda, rms)).collect();
                let n = tokens.len();
                let pairs = (0..n).flat_map(|a| (0..n).filter(move |b| *b != a).map(move |b| (a, b)));
                *sum +=
                    pairs.map(|(a, b)| cosine(&tokens[a], &tokens[b])).sum::<f64>() / (n * (n - 1)) as f64;
            }
        });
    }
    let own = found.iter().find(|c| c.site == "FFN input").unwrap();
    assert_eq!(own.layers, model.arch().layers);
    for (curve, sum) in [&own.raw, &own.rms].into_iter().zip(sums) {
        assert!((curve[at] - sum / seen).abs() < 1e-5, "{} {}", curve[at], sum / seen);
    }
    assert!((own.raw[0] - own.rms[0]).abs() < 1e-9 && (own.raw[at] - own.rms[at]).abs() > 1e-3);
    let adapters = for_adapter(&model, &rows, 2).unwrap().unwrap();
    let both: Vec<&Curve> =
        found.iter().filter(|c| matches!(c.site, "attention input" | "FFN input")).collect();
    assert_eq!(Some(adapters), choose(&both, H0::Raw));
}

fn mixed(x: &[f32], h0: &[f32], lambda: f64, rms: bool) -> Vec<f64> {
    let wide = |v: &[f32]| v.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    let (x, h0) = (wide(x), wide(h0));
    let size = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    let s = if rms { size(&x) / size(&h0) } else { 1.0 };
    let (part, one) = (lambda * s, 1.0);
    x.iter().zip(&h0).map(|(x, h)| (one - lambda) * x + part * h).collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let inner = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    inner(a, b) / (inner(a, a) * inner(b, b)).sqrt()
}
