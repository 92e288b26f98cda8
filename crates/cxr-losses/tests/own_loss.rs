//! Losses from outside the crate: unknown targets never reach a gradient, and values of the wrong shape are refused.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::{Device, Result, Tensor, Var};
use cxr_losses::{Bce, Granularity, MultiLabelLoss, Reduction, known};

/// Squared error of the logits that ignores the mask: the reduction has to leave out what is unknown.
#[derive(Debug)]
struct Squared {
    granularity: Granularity,
}

impl MultiLabelLoss for Squared {
    fn forward(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let (targets, _) = known(targets, mask)?;
        (logits - targets)?.sqr()
    }

    fn name(&self) -> &str {
        "squared"
    }

    fn granularity(&self) -> Granularity {
        self.granularity
    }
}

fn logits() -> Var {
    Var::new(&[[0.5f32, -1.0], [2.0, 4.0]], &Device::Cpu).unwrap()
}

#[test]
fn unknown_targets_add_nothing_to_an_own_loss_that_ignores_the_mask() {
    let loss = Squared {
        granularity: Granularity::Element,
    };
    let mask = Tensor::new(&[[1u8, 0], [1, 0]], &Device::Cpu).unwrap();
    for unknown in [0., 1., f32::NAN] {
        let targets = Tensor::new(&[[1., unknown], [0., unknown]], &Device::Cpu).unwrap();
        let logits = logits();
        let value = loss.loss(&logits, &targets, Some(&mask)).unwrap();
        // (0.25 + 4) / 2, and 2(x − y)/2 at the known elements.
        assert_eq!(value.to_scalar::<f32>().unwrap(), 2.125);
        let gradients = value.backward().unwrap();
        let gradient = gradients.get(&logits).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(gradient, [[-0.5, 0.], [2., 0.]]);
    }
}

#[test]
fn without_a_mask_a_target_that_is_not_a_number_is_unknown() {
    let targets = Tensor::new(&[[1f64, f64::NAN]], &Device::Cpu).unwrap();
    let (targets, mask) = known(&targets, None).unwrap();
    assert_eq!(targets.to_vec2::<f64>().unwrap(), [[1., 0.]]);
    assert_eq!(mask.to_vec2::<f64>().unwrap(), [[1., 0.]]);
}

#[test]
fn values_where_nothing_is_known_may_be_anything() {
    let mask = Tensor::new(&[[1f32, 0.], [0.5, 0.]], &Device::Cpu).unwrap();
    let values = Var::new(&[[2f32, f32::NAN], [3., f32::INFINITY]], &Device::Cpu).unwrap();
    for (reduction, expected) in [
        (Reduction::Mean, 5. / 1.5),
        (Reduction::Sum, 5.),
        (Reduction::MeanOverImages, 2.5),
    ] {
        let value = reduction.apply(&values, Granularity::Element, Some(&mask));
        let value = value.unwrap().to_scalar::<f32>().unwrap();
        assert!((value - expected).abs() < 1e-6, "{reduction:?}: {value}");
    }
}

#[test]
fn values_of_another_shape_than_the_loss_says_are_refused() {
    let targets = Tensor::new(&[[1f32, 0.], [0., 1.]], &Device::Cpu).unwrap();
    for granularity in [Granularity::Image, Granularity::Label] {
        let error = Squared { granularity }.loss(&logits(), &targets, None);
        let message = error.unwrap_err().to_string();
        assert!(
            message.contains("loss `squared`") && message.contains("[2, 2]"),
            "{message}"
        );
    }
}

#[test]
fn a_mask_of_another_shape_is_refused() {
    let targets = Tensor::new(&[[1f32, 0.]], &Device::Cpu).unwrap();
    let mask = Tensor::new(&[1f32, 0.], &Device::Cpu).unwrap();
    let message = known(&targets, Some(&mask)).unwrap_err().to_string();
    assert!(message.contains("mask"), "{message}");
}

#[test]
fn the_crate_s_own_losses_are_what_they_were_under_a_mask() {
    let targets = Tensor::new(&[[1f32, f32::NAN], [0., 1.]], &Device::Cpu).unwrap();
    let mask = Tensor::new(&[[1f32, 0.], [1., 1.]], &Device::Cpu).unwrap();
    let value = Bce.loss(&logits(), &targets, Some(&mask)).unwrap();
    let value = f64::from(value.to_scalar::<f32>().unwrap());
    let softplus = |x: f64| x.exp().ln_1p();
    let expected = (softplus(-0.5) + softplus(2.) + softplus(-4.)) / 3.;
    assert!(
        (value - expected).abs() < 1e-6,
        "{value} against {expected}"
    );
}
