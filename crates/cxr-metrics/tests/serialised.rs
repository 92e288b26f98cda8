//! Results as JSON: what is undefined is `null`, and everything that has a JSON form reads back.
#![cfg(feature = "serde")]
#![expect(
    clippy::expect_used,
    reason = "a test may stop at what should not happen"
)]

use cxr_metrics::{
    BootstrapConfig, Confusion, CoxCalibration, IntervalMethod, IsotonicRegression, Level,
    MultiLabel, OperatingRule, PlattScaling, PrevalenceShift, Scored, TemperatureScaling, delong,
    paired_delong,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

#[track_caller]
fn round_trip<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) -> Value {
    let json = serde_json::to_value(value).expect("every result serialises");
    let back: T = serde_json::from_value(json.clone()).expect("and reads back");
    assert_eq!(back, *value);
    json
}

#[test]
fn results_read_back_and_undefined_is_null() {
    let scored = Scored::new(&[0.9, 0.2, 0.4, 0.3], &[true, false, false, true]).unwrap();
    let estimate = delong(scored).unwrap();
    round_trip(&estimate);
    let interval = round_trip(&estimate.interval(Level::P95).unwrap());
    assert_eq!(interval["level"], 0.95);
    round_trip(&Confusion::at(scored, 0.4));
    round_trip(&OperatingRule::Youden.choose(scored).unwrap().unwrap());
    assert_eq!(
        round_trip(&OperatingRule::PpvAtLeast(0.5)),
        json!({ "ppv_at_least": 0.5 })
    );

    // Everything that is fitted goes into a model's file.
    let logits = Scored::new(&[2.0, -1.0, 0.5, -0.5], &[true, false, false, true]).unwrap();
    round_trip(&TemperatureScaling::fit(logits).unwrap());
    round_trip(&PlattScaling::fit(logits).unwrap());
    round_trip(&IsotonicRegression::fit(logits).unwrap());
    round_trip(&CoxCalibration::fit(logits, None).unwrap().unwrap());
    round_trip(&PrevalenceShift::new(0.3, 0.1).unwrap());
    // A rule that is met only by calling nothing: an infinite threshold.
    let hopeless = Scored::new(&[0.9, 0.1], &[false, true]).unwrap();
    let rule = OperatingRule::SensitivityAtSpecificity(1.0);
    let nothing = round_trip(&rule.choose(hopeless).unwrap().unwrap());
    assert_eq!(nothing["threshold"], Value::Null);
    let test = paired_delong(
        &[true, false, true, false, true],
        &[0.9, 0.4, 0.3, 0.2, 0.6],
        &[0.1, 0.4, 0.8, 0.3, 0.2],
        None,
    );
    round_trip(&test.unwrap().unwrap());

    let data = MultiLabel::new(["a"], &[0.5, 0.6], &[true, true], None).unwrap();
    let label = round_trip(&data.per_label()[0]);
    assert_eq!(
        (&label["auc"], &label["positives"]),
        (&Value::Null, &2.into())
    );
}

/// What a file says is checked as what a program says is.
#[test]
fn fitted_maps_are_checked_when_they_are_read() {
    let fails = |error: Option<serde_json::Error>, expected: &str| {
        let error = error.expect("refused").to_string();
        assert!(error.contains(expected), "{error}");
    };
    let map = |json| serde_json::from_value::<IsotonicRegression>(json).err();
    fails(
        map(json!({ "scores": [0.2, 0.1], "probabilities": [0.0, 1.0] })),
        "at position 1",
    );
    fails(
        map(json!({ "scores": [], "probabilities": [] })),
        "at least one",
    );
    fails(
        map(json!({ "scores": [0.1], "probabilities": [2.0] })),
        "expected a probability in [0, 1], got `2`",
    );
    let temperature = json!({ "temperature": 0.0 });
    fails(
        serde_json::from_value::<TemperatureScaling>(temperature).err(),
        "expected the temperature in (0, ∞), got `0`",
    );
    let shift = json!({ "from": 0.5, "to": 1.0 });
    fails(
        serde_json::from_value::<PrevalenceShift>(shift).err(),
        "expected a prevalence in (0, 1), got `1`",
    );
}

#[test]
fn configurations_are_checked_when_they_are_read() {
    let config = BootstrapConfig {
        method: IntervalMethod::Bca,
        ..Default::default()
    };
    let mut json = round_trip(&config);
    assert_eq!(json["method"], "bca");
    json["level"] = 1.5.into();
    let error = serde_json::from_value::<BootstrapConfig>(json)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("expected the confidence level in (0, 1), got `1.5`"),
        "{error}"
    );
}
