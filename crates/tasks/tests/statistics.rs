//! Statistics against stored answers of SciPy; `tests/data/make_stats.py` made them.

use serde_json::Value;
use sibo_tasks::metrics::{Bootstrap, rank_correlation};
use sibo_tasks::stats::{Design, LEVEL, mcnemar, paired_bootstrap, paired_t, smallest_detectable};

fn answers() -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/stats.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn list(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[track_caller]
fn close(found: f64, stored: &Value, within: f64) {
    let stored = stored.as_f64().unwrap();
    assert!((found - stored).abs() <= within * stored.abs().max(1e-3), "{found}, SciPy has {stored}");
}

#[test]
fn the_paired_t_test() {
    for case in answers()["paired"].as_array().unwrap() {
        let t = paired_t(&list(&case["a"]), &list(&case["b"]), LEVEL).unwrap();
        close(t.t, &case["t"], 1e-9);
        close(t.p, &case["p"], 1e-9);
        close(t.difference.low, &case["low"], 1e-8);
        close(t.difference.high, &case["high"], 1e-8);
        close(t.effect, &case["effect"], 1e-9);
    }
}

#[test]
fn mcnemar_and_the_paired_bootstrap() {
    for case in answers()["rows"].as_array().unwrap() {
        let right = |key: &str| list(&case[key]).into_iter().map(|v| v == 1.0).collect::<Vec<bool>>();
        let (a, b) = (right("a"), right("b"));
        let m = mcnemar(&a, &b).unwrap();
        assert_eq!(
            (m.only_a as u64, m.only_b as u64),
            (case["only_a"].as_u64().unwrap(), case["only_b"].as_u64().unwrap())
        );
        close(m.p, &case["p"], 1e-9);
        let difference = |rows: &[usize]| {
            rows.iter().map(|i| f64::from(u8::from(b[*i])) - f64::from(u8::from(a[*i]))).sum::<f64>()
                / rows.len() as f64
        };
        let found =
            paired_bootstrap(a.len(), &Bootstrap { resamples: 20_000, seed: 3 }, LEVEL, difference).unwrap();
        close(found.estimate, &case["difference"], 1e-12);
        // Two draws of 20,000: their ends differ by the grain of one row, and little more.
        let grain = 1.5 / a.len() as f64;
        for (end, stored) in [(found.low, &case["low"]), (found.high, &case["high"])] {
            assert!((end - stored.as_f64().unwrap()).abs() < grain, "{end}, SciPy has {stored}");
        }
    }
}

#[test]
fn the_smallest_detectable_difference_and_ranks() {
    for case in answers()["detectable"].as_array().unwrap() {
        let rows = case["rows"].as_u64().unwrap() as usize;
        let seeds = case["seeds"].as_u64().unwrap() as usize;
        let design = Design::expecting(case["accuracy"].as_f64().unwrap(), rows, seeds);
        close(smallest_detectable(&design, LEVEL, 0.8).unwrap(), &case["least"], 1e-9);
    }
    let all = answers();
    let case = &all["spearman"];
    let r = rank_correlation(&list(&case["x"]), &list(&case["y"])).expect("both vary");
    close(r, &case["r"], 1e-12);
    assert_eq!(rank_correlation(&[0.0; 5], &[1.0, 2.0, 4.0, 3.0, 5.0]), None);
}
