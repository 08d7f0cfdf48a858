use super::*;

/// 40 losses from `first` to `last`, with a ripple.
fn falling(first: f64, last: f64) -> Vec<f64> {
    (0..40).map(|i| first + (last - first) * f64::from(i) / 39.0 + 0.01 * f64::from(i % 3)).collect()
}

#[test]
fn a_stall_beside_the_plain_method_is_seen() {
    let sign = too_high(&falling(0.7, 0.3), &falling(0.7, 0.6)).unwrap();
    assert!(sign.to_string().starts_with("lambda may be too high: the training loss fell by 0.08"), "{sign}");
    // Nearly as good, better, and a plain run that learned nothing itself: silence.
    assert_eq!(too_high(&falling(0.7, 0.3), &falling(0.7, 0.33)), None);
    assert_eq!(too_high(&falling(0.7, 0.3), &falling(0.7, 0.2)), None);
    assert_eq!(too_high(&falling(0.7, 0.69), &falling(0.7, 0.7)), None);
    // From a lower start to the same end there is less to fall, and no stall.
    assert_eq!(too_high(&falling(0.9, 0.3), &falling(0.5, 0.3)), None);
    assert_eq!(too_high(&[], &[0.5]), None);
}

#[test]
fn a_run_alone_stalls_or_learns() {
    assert!(stalled(&falling(0.7, 0.69)).unwrap().to_string().contains("compare with lambda = 0"));
    assert_eq!(stalled(&falling(0.7, 0.4)), None);
    assert_eq!(stalled(&[0.7]), None);
    let said = |first, last| Sign::Stalled { first, last }.to_string();
    assert!(
        said(0.69, 0.68).contains("hardly fell (0.690") && said(0.69, 0.75).contains("rose (0.690 to 0.750)")
    );
}

#[test]
fn the_other_signs_have_a_side_that_is_silent() {
    assert!(too_low(0.550, &[(0.612, 0.614)]).unwrap().to_string().contains("+0.0020"));
    assert_eq!(too_low(0.550, &[(0.612, 0.590)]), None);
    // Seeds that go up and down by much are not the same on the whole.
    assert_eq!(too_low(0.550, &[(0.612, 0.634), (0.612, 0.590), (0.612, 0.614)]), None);
    assert!(too_low(0.550, &[(0.612, 0.615), (0.612, 0.609)]).is_some());
    // Training that moved nothing says nothing of lambda.
    assert_eq!(too_low(0.613, &[(0.612, 0.614)]), None);
    assert!(negligible(0.04).unwrap().to_string().contains("|h0| is 0.040 of |x|"));
    assert_eq!(negligible(0.6), None);
    assert_eq!(no_site(true, 0), Some(Sign::NoSite));
    assert_eq!((no_site(true, 3), no_site(false, 0)), (None, None));
    assert!(within_noise(0.01, (-0.002, 0.03)).unwrap().to_string().contains("+0.0100"));
    // A loss is no gain.
    let text = within_noise(-0.01, (-0.03, 0.002)).unwrap().to_string();
    assert!(text.starts_with("the difference is within noise: -0.0100"), "{text}");
    assert_eq!(within_noise(0.02, (0.005, 0.03)), None);
}

#[test]
fn branches_that_act_for_nothing_are_noise() {
    let sign = only_noise((0.0, 0.3), &falling(0.7, 0.69)).unwrap();
    assert!(sign.to_string().contains("rose from 0.000 to 0.300"), "{sign}");
    assert_eq!(only_noise((0.0, 0.3), &falling(0.7, 0.4)), None);
    // A loss that stands because nothing acts is a stall, not noise.
    assert_eq!(only_noise((0.2, 0.2001), &falling(0.7, 0.69)), None);
}

mod provoked {
    use super::*;
    use crate::data::Dataset;
    use crate::probe::{ProbeRow, probe};
    use crate::recipe::Training;
    use crate::run::{Settings, train};
    use crate::schedule::ScheduleKind;
    use crate::{Silent, testing};
    use serde_json::{Value, json};
    use sibo_model::Model;
    use std::sync::atomic::AtomicBool;

    const SITES: [&str; 3] = ["q_proj", "v_proj", "up_proj"];

    /// What a short run leaves of which signs speak.
    struct Run {
        losses: Vec<f64>,
        shares: (f64, f64),
        ratio: Option<f64>,
        similarity: [f64; 2],
        injected: usize,
    }

    fn rows(data: &Dataset) -> Vec<ProbeRow> {
        let whole = |r: &crate::data::LabelledRow| ProbeRow {
            row: r.row.clone(),
            places: (0..r.row.ids.len()).collect(),
        };
        data.rows.iter().take(8).map(whole).collect()
    }

    /// 40 steps of a decoder whose embedding is `size` times as large as it was.
    fn run(adapter: Value, size: f32, data: &Dataset, learning_rate: f64) -> Run {
        let dir = tempfile::tempdir().unwrap();
        let folder = testing::folder_with(dir.path(), "llama", size);
        let options = sibo_model::LoadOptions::default();
        let mut model: Model = Model::load(&folder, &options).unwrap().model;
        let config = sibo_peft::AdapterConfig::from_recipe("test", &adapter).unwrap();
        crate::prepare::attach(&mut model, &config, "tiny", 5).unwrap();
        let training = Training {
            max_steps: Some(40),
            learning_rate,
            lr_scheduler_type: ScheduleKind::Constant,
            ..testing::training()
        };
        let settings = Settings { training, seed: 3, run_dir: None, probe_rows: vec![], plan: None };
        let look = rows(data);
        let last = |model: &Model| probe(model, &look, 4).unwrap().last().unwrap().similarity.estimate;
        let share = |model: &Model| profile::branch_share(model, &look, 4).unwrap().unwrap();
        let before = (share(&model), last(&model));
        let never = AtomicBool::new(false);
        let out = train(&mut model, data, None, &settings, None, &mut Silent, &never).unwrap();
        Run {
            losses: out.records.iter().map(|r| r.loss).collect(),
            shares: (before.0, share(&model)),
            ratio: profile::injected_ratio(&model, &look, 4).unwrap(),
            similarity: [before.1, last(&model)],
            injected: model.adapter().unwrap().injected.len(),
        }
    }

    fn lora(lambda: f64, sites: &[&str]) -> Value {
        json!({"method": "lora", "r": 5, "lora_alpha": 7, "target_modules": sites, "sibo": {"lambda": lambda}})
    }

    /// Rows of five tokens out of 331: what is soon learned.
    fn easy() -> Dataset {
        testing::token_rows(60, 8)
    }

    #[test]
    fn a_healthy_run_is_silent() {
        // Scaled to x, h0 is a good part of what the branches read.
        let mut boosted = lora(0.5, &SITES);
        boosted["sibo"]["h0"] = json!("rms");
        let plain = run(lora(0.0, &SITES), 1.0, &easy(), 2e-2);
        let sibo = run(boosted, 1.0, &easy(), 2e-2);
        assert_eq!(too_high(&plain.losses, &sibo.losses), None);
        assert_eq!(stalled(&sibo.losses), None);
        assert_eq!(only_noise(sibo.shares, &sibo.losses), None);
        assert_eq!(negligible(sibo.ratio.unwrap()), None);
        assert_eq!(no_site(true, sibo.injected), None);
        let [before, without] = plain.similarity;
        assert_eq!(too_low(before, &[(without, sibo.similarity[1])]), None);
    }

    #[test]
    fn lambda_near_one_over_a_small_h0_stalls_and_is_negligible() {
        let plain = run(lora(0.0, &SITES), 0.01, &easy(), 5e-3);
        let sibo = run(lora(0.998, &SITES), 0.01, &easy(), 5e-3);
        let sign = too_high(&plain.losses, &sibo.losses);
        assert!(matches!(sign, Some(Sign::LambdaTooHigh { .. })), "{sign:?}");
        let ratio = sibo.ratio.unwrap();
        assert!(matches!(negligible(ratio), Some(Sign::H0Negligible { .. })), "{ratio}");
    }

    #[test]
    fn a_tiny_lambda_leaves_the_tokens_as_alike() {
        let plain = run(lora(0.0, &SITES), 1.0, &easy(), 2e-2);
        let sibo = run(lora(0.0001, &SITES), 1.0, &easy(), 2e-2);
        let [before, without] = plain.similarity;
        let sign = too_low(before, &[(without, sibo.similarity[1])]);
        assert!(matches!(sign, Some(Sign::LambdaTooLow { .. })), "{before} {without} {:?}", sibo.similarity);
    }

    #[test]
    fn random_rows_at_a_high_rate_teach_noise() {
        // Every row once, and no token tells the next: there is nothing to learn.
        let sibo = run(lora(0.3, &SITES), 1.0, &testing::token_rows(250, 331), 3e-2);
        let sign = only_noise(sibo.shares, &sibo.losses);
        assert!(matches!(sign, Some(Sign::OnlyNoise { .. })), "{:?} {:?}", sibo.shares, sibo.losses);
    }

    #[test]
    fn sites_that_take_no_h0_are_refused_before_any_run() {
        let mut model = testing::model("llama-gqa", lora(0.0, &["q_proj"]));
        let config = sibo_peft::AdapterConfig::from_recipe("test", &lora(0.4, &["down_proj"])).unwrap();
        let said = crate::prepare::attach(&mut model, &config, "tiny", 5).unwrap_err().to_string();
        assert!(said.contains("SIBO enters none of the branches"), "{said}");
    }
}
