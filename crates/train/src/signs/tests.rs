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
}

#[test]
fn the_other_signs_have_a_side_that_is_silent() {
    assert!(too_low(0.550, 0.612, 0.614).unwrap().to_string().contains("+0.0020"));
    assert_eq!(too_low(0.550, 0.612, 0.590), None);
    // Training that moved nothing says nothing of lambda.
    assert_eq!(too_low(0.613, 0.612, 0.614), None);
    assert!(negligible(0.04).unwrap().to_string().contains("|h0| is 0.040 of |x|"));
    assert_eq!(negligible(0.6), None);
    assert_eq!(no_site(true, 0), Some(Sign::NoSite));
    assert_eq!((no_site(true, 3), no_site(false, 0)), (None, None));
    assert!(within_noise(0.01, (-0.002, 0.03)).unwrap().to_string().contains("+0.0100"));
    assert_eq!(within_noise(0.02, (0.005, 0.03)), None);
}
