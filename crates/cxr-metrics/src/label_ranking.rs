//! How well the labels of one image are ranked and decided, averaged over images.

use crate::error::{MetricError, check_length};
use crate::multi_label::MultiLabel;

/// The known labels of one image.
#[derive(Clone, Default)]
struct Image {
    scores: Vec<f64>,
    labels: Vec<bool>,
}

impl Image {
    fn pairs(&self) -> impl Iterator<Item = (f64, bool)> + '_ {
        self.scores.iter().copied().zip(self.labels.iter().copied())
    }

    fn relevant(&self) -> usize {
        self.labels.iter().filter(|&&label| label).count()
    }

    /// How many known labels score at least this much; only the relevant ones if asked.
    fn at_least(&self, score: f64, only_relevant: bool) -> usize {
        self.pairs()
            .filter(|&(other, label)| other >= score && (label || !only_relevant))
            .count()
    }
}

/// Means over the images that have at least one known label; images without are left out, and the
/// mean is `None` when there is no other.
impl MultiLabel {
    /// Label ranking average precision, as in scikit-learn: for each label an image has, the share
    /// of its labels among those ranked as high, averaged. An image with no label or all scores 1.
    pub fn label_ranking_average_precision(&self) -> Option<f64> {
        self.mean_over_images(|image| {
            let relevant = image.relevant();
            if relevant == 0 || relevant == image.labels.len() {
                return 1.0;
            }
            let precision = |(score, label): (f64, bool)| {
                label.then(|| {
                    image.at_least(score, true) as f64 / image.at_least(score, false) as f64
                })
            };
            image.pairs().filter_map(precision).sum::<f64>() / relevant as f64
        })
    }

    /// How far down its ranking one must go to meet all labels an image has, averaged; an image
    /// without labels counts 0.
    pub fn coverage_error(&self) -> Option<f64> {
        self.mean_over_images(|image| {
            let lowest = image
                .pairs()
                .filter_map(|(score, label)| label.then_some(score))
                .min_by(f64::total_cmp);
            lowest.map_or(0.0, |lowest| image.at_least(lowest, false) as f64)
        })
    }

    /// The share of (label it has, label it has not) pairs that an image ranks wrongly, ties being
    /// wrong, averaged; an image with no label or all counts 0.
    pub fn ranking_loss(&self) -> Option<f64> {
        self.mean_over_images(|image| {
            let relevant = image.relevant();
            let pairs = relevant * (image.labels.len() - relevant);
            if pairs == 0 {
                return 0.0;
            }
            let above = |score| image.at_least(score, false) - image.at_least(score, true);
            let relevant_pairs = image.pairs().filter(|&(_, label)| label);
            let wrong: usize = relevant_pairs.map(|(score, _)| above(score)).sum();
            wrong as f64 / pairs as f64
        })
    }

    /// The share of all known (image, label) pairs decided wrongly when label l is called for
    /// scores at or above `thresholds[l]`; `None` when nothing is known.
    ///
    /// # Errors
    /// [`MetricError::Length`] unless there is one threshold per label.
    pub fn hamming_loss(
        &self,
        thresholds: &[impl Into<f64> + Copy],
    ) -> Result<Option<f64>, MetricError> {
        check_length(
            "thresholds, one per label",
            self.n_labels(),
            thresholds.len(),
        )?;
        let (mut wrong, mut known) = (0_usize, 0_usize);
        for (column, &threshold) in self.columns().iter().zip(thresholds) {
            let threshold: f64 = threshold.into();
            known += column.labels.len();
            wrong += column
                .known()
                .filter(|&(_, s, label)| (s >= threshold) != label)
                .count();
        }
        Ok((known > 0).then(|| wrong as f64 / known as f64))
    }

    /// The share of images all of whose known labels are decided rightly, thresholds as for
    /// [`Self::hamming_loss`].
    ///
    /// # Errors
    /// [`MetricError::Length`] unless there is one threshold per label.
    pub fn subset_accuracy(
        &self,
        thresholds: &[impl Into<f64> + Copy],
    ) -> Result<Option<f64>, MetricError> {
        check_length(
            "thresholds, one per label",
            self.n_labels(),
            thresholds.len(),
        )?;
        let mut right = vec![None; self.n_images()];
        for (column, &threshold) in self.columns().iter().zip(thresholds) {
            let threshold: f64 = threshold.into();
            for (row, score, label) in column.known() {
                let so_far = right[row].unwrap_or(true);
                right[row] = Some(so_far && (score >= threshold) == label);
            }
        }
        let known = right.iter().flatten().count();
        let all_right = right.iter().flatten().filter(|&&right| right).count();
        Ok((known > 0).then(|| all_right as f64 / known as f64))
    }

    fn mean_over_images(&self, value: impl Fn(&Image) -> f64) -> Option<f64> {
        let mut images = vec![Image::default(); self.n_images()];
        for column in self.columns() {
            for (row, score, label) in column.known() {
                images[row].scores.push(score);
                images[row].labels.push(label);
            }
        }
        let known = images.iter().filter(|image| !image.labels.is_empty());
        let (sum, count) = known.fold((0.0, 0_usize), |(sum, count), image| {
            (sum + value(image), count + 1)
        });
        (count > 0).then(|| sum / count as f64)
    }
}
