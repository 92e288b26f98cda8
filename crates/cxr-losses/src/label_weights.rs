//! Weights of labels from how often they occur among the training images, against long tails.

use crate::LossError;
use crate::error::in_range;

const NAME: &str = "label weights";

/// How many training images are known to have each label, and how many are known not to have it, in label order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelCounts {
    /// Images with the label.
    pub present: Vec<usize>,
    /// Images without it; those of which it is not known are in neither.
    pub absent: Vec<usize>,
}

/// Class-balanced weights: `(1 − β) / (1 − β^n)` for a label that n images have, the inverse of the effective number of those
/// images, scaled so that the weights add up to the number of labels.
///
/// Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019, equation 3. β = 0 weights all labels alike, β
/// near 1 by their inverse frequency; the paper tries 0.9 to 0.9999. For [`LabelWeighted`](crate::LabelWeighted) or
/// [`WeightedBce::per_label`](crate::WeightedBce::per_label).
///
/// ```
/// let weights = cxr_losses::label_weights::effective_number(&[1_000, 10], 0.99)?;
/// assert!(weights[1] > 10.0 * weights[0]);
/// assert!((weights[0] + weights[1] - 2.0).abs() < 1e-12);
/// # Ok::<(), cxr_losses::LossError>(())
/// ```
///
/// # Errors
/// When β is not in 0 ≤ β < 1, or a label has no image: it would have an infinite weight.
pub fn effective_number(positives: &[usize], beta: f64) -> Result<Vec<f64>, LossError> {
    let below_one = |value| (0.0..1.0).contains(&value);
    let beta = in_range(NAME, "beta", "at least 0 and below 1", beta, below_one)?;
    let inverses = positives.iter().enumerate().map(|(label, &n)| {
        if n == 0 {
            return Err(LossError::NoImages { label });
        }
        Ok((1.0 - beta) / (1.0 - beta.powf(n as f64)))
    });
    let inverses = inverses.collect::<Result<Vec<f64>, _>>()?;
    let total: f64 = inverses.iter().sum();
    let scale = inverses.len() as f64 / total;
    Ok(inverses.iter().map(|inverse| inverse * scale).collect())
}

/// `(N / n)^s` for a label that n of N images have, divided by the largest: the rarest label has weight 1.
///
/// The weights of [`BalancedAsymmetric`](crate::BalancedAsymmetric); its authors take s from 0.7 to 1.6. The number of images cancels.
///
/// # Errors
/// When s is negative or not finite, or a label has no image.
pub fn inverse_frequency(positives: &[usize], power: f64) -> Result<Vec<f64>, LossError> {
    let fits = |value: f64| value.is_finite() && value >= 0.0;
    let power = in_range(NAME, "power", "finite and at least 0", power, fits)?;
    if let Some(label) = positives.iter().position(|&n| n == 0) {
        return Err(LossError::NoImages { label });
    }
    let fewest = positives.iter().copied().min().unwrap_or(1) as f64;
    let weights = positives.iter().map(|&n| (fewest / n as f64).powf(power));
    Ok(weights.collect())
}
