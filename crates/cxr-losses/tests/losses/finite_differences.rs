//! Gradients against central differences of the loss itself.

use candle_core::{Device, Tensor};
use cxr_losses::{
    Asymmetric, BiasedBoundMargin, DistributionallyRobust, Focus, LabelWeighted, MultiLabelLoss,
    SigmoidF1, WeightedBce,
};

use crate::support::{all_losses, evaluate, flat, make, matrix, upstream};

pub(crate) const N_LABELS: usize = 4;
const LOGITS: [f64; 12] = [
    0.3, -1.2, 2.1, -0.4, 1.7, 0.9, -2.3, 0.05, -0.6, 3.2, -3.1, 1.1,
];
const TARGETS: [f64; 12] = [1., 0., 0., 1., 0., 1., 1., 0., 1., 1., 0., 0.];
const MASK: [f64; 12] = [1., 1., 0., 1., 1., 1., 1., 1., 1., 0., 1., 1.];

/// The sum of the loss's values, weighted as `evaluate` does.
fn weighted_sum(
    loss: &dyn MultiLabelLoss,
    logits: &Tensor,
    targets: &Tensor,
    mask: &Tensor,
) -> f64 {
    let values = flat(&loss.forward(logits, targets, Some(mask)).unwrap());
    let weights = upstream(values.len());
    values
        .iter()
        .zip(weights)
        .map(|(value, weight)| value * weight)
        .sum()
}

pub(crate) fn check(loss: &dyn MultiLabelLoss) {
    let targets = matrix(&TARGETS, N_LABELS);
    let mask = matrix(&MASK, N_LABELS);
    let (_, gradient) = evaluate(loss, &matrix(&LOGITS, N_LABELS), &targets, Some(&mask));
    let step = 1e-5;
    for index in 0..LOGITS.len() {
        let shifted = |by: f64| {
            let mut logits = LOGITS;
            logits[index] += by;
            let logits = Tensor::from_slice(&logits, (3, N_LABELS), &Device::Cpu).unwrap();
            weighted_sum(loss, &logits, &targets, &mask)
        };
        let difference = (shifted(step) - shifted(-step)) / (2.0 * step);
        let gradient = gradient[index];
        assert!(
            (gradient - difference).abs() <= 1e-7 * gradient.abs().max(1.0),
            "{}: the gradient by logit {index} is {gradient}, the difference quotient {difference}",
            loss.name()
        );
    }
}

/// Every loss with its default parameters, but for HBM's bias: no gradient passes through it, which a difference would see.
fn smooth_losses() -> Vec<Box<dyn MultiLabelLoss>> {
    let mut losses = all_losses();
    for loss in &mut losses {
        if loss.name() == "hbm" {
            *loss = make("hbm", &[("alpha", 0.0)]);
        }
    }
    losses
}

#[test]
fn gradients_are_difference_quotients() {
    for loss in smooth_losses() {
        check(&*loss);
    }
    check(&*make("focal", &[("gamma", 0.5), ("alpha", 0.25)]));
    check(&*make(
        "asymmetric",
        &[("gamma_positive", 1.5), ("gamma_negative", 0.5)],
    ));
    check(&*make(
        "asymmetric-polynomial",
        &[("margin", 0.0), ("beta_1", -0.5)],
    ));
    check(&*make(
        "robust-asymmetric",
        &[("lambda", 1.0), ("gamma_positive", 0.5)],
    ));
    check(&SigmoidF1::of_probabilities(12.0, -0.5).unwrap());
    check(&DistributionallyRobust::new(2.0, 0.5).unwrap());
}

#[test]
fn gradients_with_weights_are_difference_quotients() {
    let positive_weights = [0.5, 2.0, 1.0, 3.0];
    check(&WeightedBce::per_label(&positive_weights).unwrap());
    let asymmetric = Asymmetric::new(Focus::default()).unwrap();
    check(&asymmetric.with_positive_weights(&positive_weights).unwrap());
    for loss in smooth_losses() {
        check(&LabelWeighted::new(loss, &[0.5, 2.0, 0.0, 3.0]).unwrap());
    }
}

#[test]
fn the_gradient_of_hbms_bound_is_a_difference_quotient() {
    let targets = matrix(&TARGETS, N_LABELS);
    let mask = matrix(&MASK, N_LABELS);
    let logits = matrix(&LOGITS, N_LABELS);
    let step = 2f64.powi(-12);
    let at = |bound: f64| BiasedBoundMargin::new(1.0, 0.1, bound, &Device::Cpu).unwrap();
    let loss = at(0.25);
    let total = loss.loss(&logits, &targets, Some(&mask)).unwrap();
    let gradient = flat(total.backward().unwrap().get(loss.bound()).unwrap())[0];
    let value = |bound| flat(&at(bound).loss(&logits, &targets, Some(&mask)).unwrap())[0];
    let difference = (value(0.25 + step) - value(0.25 - step)) / (2.0 * step);
    assert!(
        (gradient - difference).abs() <= 1e-6,
        "the gradient is {gradient}, the difference quotient {difference}"
    );
}
