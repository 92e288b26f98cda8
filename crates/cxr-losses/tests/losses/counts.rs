//! Losses whose weights are made of how many training images have each label.

use std::collections::BTreeMap;

use candle_core::Tensor;
use cxr_losses::{
    Bce, LabelCounts, LabelWeighted, MultiLabelLoss, WeightedBce, by_name, by_name_with_counts,
    check_parameters,
};

use crate::support::matrix;

/// The last label is on no image, the second on all.
fn counts() -> LabelCounts {
    LabelCounts {
        present: vec![20, 100, 0],
        absent: vec![60, 0, 50],
    }
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn a_label_weighs_the_inverse_of_its_share_on_either_side() {
    let logits = matrix(&[0.3, -1.2, 2.0, -0.7, 0.9, 0.1], 3);
    let targets = matrix(&[1., 1., 0., 0., 1., 0.], 3);
    let loss = WeightedBce::of_counts(&counts());
    let found = values(&loss.forward(&logits, &targets, None).unwrap());
    let plain = values(&Bce.forward(&logits, &targets, None).unwrap());
    // (P + N)/P = 4 and (P + N)/N = 4/3 of the first label, 1 where a label has one side only.
    let weights = [4., 1., 1., 4. / 3., 1., 1.];
    for ((found, plain), weight) in found.iter().zip(&plain).zip(weights) {
        assert!(
            (found - plain * weight).abs() < 1e-12,
            "{found} for {plain} × {weight}"
        );
    }
    // The same as a weight for each label on PyTorch's `pos_weight`, the images without a label over those with it.
    let first = LabelCounts {
        present: vec![20],
        absent: vec![60],
    };
    let column = |tensor: &Tensor| tensor.narrow(1, 0, 1).unwrap().contiguous().unwrap();
    let (logits, targets) = (column(&logits), column(&targets));
    let by_counts = WeightedBce::of_counts(&first).forward(&logits, &targets, None);
    let by_weight = LabelWeighted::new(WeightedBce::per_label(&[3.]).unwrap(), &[4. / 3.]);
    let by_weight = by_weight.unwrap().forward(&logits, &targets, None);
    for (a, b) in values(&by_counts.unwrap())
        .iter()
        .zip(values(&by_weight.unwrap()))
    {
        assert!((a - b).abs() < 1e-12, "{a} for {b}");
    }
}

#[test]
fn a_loss_of_the_training_set_is_made_where_its_counts_are_known() {
    let parameters = BTreeMap::from([("of_training_set".to_owned(), 1.)]);
    let error = by_name("weighted-bce", &parameters)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("how many training images have each label"),
        "{error}"
    );
    by_name_with_counts("weighted-bce", &parameters, &counts()).unwrap();
    check_parameters("weighted-bce", &parameters).unwrap();
    // The number of labels is the counts', which the logits must have.
    let loss = by_name_with_counts("weighted-bce", &parameters, &counts()).unwrap();
    let two = matrix(&[0.5, 0.5], 2);
    assert!(loss.forward(&two, &two, None).is_err());

    let mut both = parameters.clone();
    both.insert("positive_weight".to_owned(), 2.);
    let error = check_parameters("weighted-bce", &both)
        .unwrap_err()
        .to_string();
    assert!(error.contains("0 beside `positive_weight`"), "{error}");
    let half = BTreeMap::from([("of_training_set".to_owned(), 0.5)]);
    assert!(check_parameters("weighted-bce", &half).is_err());
    assert!(check_parameters("wieghted-bce", &BTreeMap::new()).is_err());
}
