//! Where the balanced asymmetric loss is undefined, and its class weights.

use cxr_losses::{BalancedAsymmetric, Focus, MultiLabelLoss, label_weights};

use crate::finite_differences::check;
use crate::support::{assert_close, evaluate, flat, make, matrix};

fn focus(gamma_positive: f64, gamma_negative: f64) -> Focus {
    Focus {
        gamma_positive,
        gamma_negative,
        margin: 0.05,
    }
}

fn message(loss: &dyn MultiLabelLoss, logits: &[f64], targets: &[f64]) -> String {
    let (logits, targets) = (matrix(logits, 2), matrix(targets, 2));
    let error = loss
        .forward(&logits, &targets, None)
        .unwrap_err()
        .to_string();
    error.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn gradients_are_difference_quotients() {
    check(&BalancedAsymmetric::new(focus(0.0, 1.0), 0.0).unwrap());
    check(&BalancedAsymmetric::new(focus(1.5, 0.5), 0.0).unwrap());
    check(&BalancedAsymmetric::new(focus(0.0, 2.5), 0.1).unwrap());
    let weighted = BalancedAsymmetric::new(focus(2.0, 1.5), 0.2).unwrap();
    check(&weighted.with_class_weights(&[1.0, 0.25, 0.0, 0.5]).unwrap());
}

#[test]
fn a_batch_without_a_positive_logit_is_refused() {
    let loss = make("balanced-asymmetric", &[]);
    assert_eq!(
        message(&*loss, &[-1.0, -2.0, 0.0, -0.5], &[1.0, 0.0, 0.0, 1.0]),
        "loss `balanced-asymmetric` divides by the largest logit of the batch, which must be greater than 0, got `0`"
    );
    // Only known logits count.
    let (logits, targets) = (matrix(&[5.0, -1.0], 2), matrix(&[1.0, 0.0], 2));
    let mask = matrix(&[0.0, 1.0], 2);
    let error = loss.forward(&logits, &targets, Some(&mask)).unwrap_err();
    assert!(error.to_string().contains("got `-1`"), "{error}");
    // Nothing known costs nothing, whatever the logits are.
    let unknown = matrix(&[0.0, 0.0], 2);
    let nothing = evaluate(&*loss, &logits, &targets, Some(&unknown));
    assert_eq!(nothing, (vec![0.0, 0.0], vec![0.0, 0.0]));
}

/// With smoothing the focus of an absent label far below the margin is negative, and (−x)^9.8 is not a number.
#[test]
fn a_negative_focus_is_refused_where_it_has_no_power() {
    let (logits, targets) = ([1.0, 0.5, 1.0, -30.0], [1.0, 0.0, 1.0, 0.0]);
    let loss = BalancedAsymmetric::new(focus(0.0, 9.8), 0.1).unwrap();
    let message = message(&loss, &logits, &targets);
    assert!(
        message.starts_with("loss `balanced-asymmetric` is undefined in row 1, label 1"),
        "{message}"
    );
    for (gamma_negative, smoothing) in [(12.0, 0.1), (9.8, 0.0)] {
        let loss = BalancedAsymmetric::new(focus(0.0, gamma_negative), smoothing).unwrap();
        let (values, gradient) = evaluate(&loss, &matrix(&logits, 2), &matrix(&targets, 2), None);
        assert!(
            values
                .iter()
                .chain(&gradient)
                .all(|value| value.is_finite())
        );
    }
}

/// The loss changes with the batch only through its largest logit.
#[test]
fn a_common_factor_of_the_logits_changes_nothing() {
    let logits = matrix(&[2.0, -1.0, 0.5, 1.5], 2);
    let targets = matrix(&[1.0, 0.0, 0.0, 1.0], 2);
    let loss = make("balanced-asymmetric", &[]);
    let values = flat(&loss.forward(&logits, &targets, None).unwrap());
    let thrice = (&logits * 3.0).unwrap();
    let got = flat(&loss.forward(&thrice, &targets, None).unwrap());
    assert_close(&got, &values, 1e-12, 0.0, "BAL");
}

#[test]
fn a_class_weight_multiplies_presence() {
    let logits = matrix(&[2.0, 1.0], 2);
    let targets = matrix(&[1.0, 1.0], 2);
    let plain = BalancedAsymmetric::new(focus(0.0, 4.0), 0.0).unwrap();
    let values = flat(&plain.forward(&logits, &targets, None).unwrap());
    let weights = label_weights::inverse_frequency(&[40, 10], 1.0).unwrap();
    assert_eq!(weights, [0.25, 1.0]);
    let weighted = plain.with_class_weights(&weights).unwrap();
    let got = flat(&weighted.forward(&logits, &targets, None).unwrap());
    let expected = [1.25 * values[0], 2.0 * values[1]];
    assert_close(&got, &expected, 1e-15, 0.0, "class weights");
}

#[test]
fn a_label_without_images_has_no_weight() {
    for result in [
        label_weights::effective_number(&[5, 0], 0.9),
        label_weights::inverse_frequency(&[5, 0], 1.0),
    ] {
        let message = result.unwrap_err().to_string();
        assert_eq!(
            message,
            "label 1 has no image: its weight would be infinite"
        );
    }
    // β = 0: one image of a label is as good as many.
    let even = label_weights::effective_number(&[5, 500], 0.0).unwrap();
    assert_eq!(even, [1.0, 1.0]);
}
