//! The error of a mean of AUCs over labels, in closed form.
//!
//! A patient adds to every label's AUC; what it adds to their mean is the mean of what it adds to
//! each, ψᵢ = L⁻¹·Σₗ(S⁺ᵢₗ/Mₗ + S⁻ᵢₗ/Nₗ), with S the sums of deviations of its placements. The variance of
//! the mean is the sum of ψᵢ², each label's own squares scaled to the right expectation, so labels that share patients, and a finding of one patient that is
//! easy in all films, are accounted for without resampling.

use crate::clusters::Clusters;
use crate::delong::{
    Classes, Differences, PairedTest, Undefined, is_approximate, logit_interval, undefined,
};
use crate::error::MetricError;
use crate::interval::{Interval, Level};
use crate::multi_label::{Column, LabelMean, MultiLabel};
use crate::satterthwaite::{Component, satterthwaite};
use crate::sorted::Sorter;

/// A mean of AUCs over labels with its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MeanEstimate {
    /// The mean over the labels that have an AUC.
    pub mean: LabelMean,
    /// Its standard error; `None` when one of the labels has a class in a single cluster: nobody
    /// knows what that label adds.
    pub standard_error: Option<f64>,
    /// The degrees of freedom of the standard error (Satterthwaite's, over both classes of all
    /// labels); `None` when the standard error is `None` or 0.
    pub degrees_of_freedom: Option<f64>,
}

impl MeanEstimate {
    /// logit(mean) ± t·se/(mean·(1−mean)), mapped back; `None` when the standard error is `None` or 0.
    pub fn interval(&self, level: Level) -> Option<Interval> {
        let (error, mean) = (self.standard_error?, self.mean.value);
        if mean <= 0.0 || mean >= 1.0 {
            return None;
        }
        let half = level.t(self.degrees_of_freedom?) * error / (mean * (1.0 - mean));
        Some(logit_interval(mean, half, level))
    }

    /// Why there is no interval; `None` when there is one.
    pub fn undefined(&self) -> Option<Undefined> {
        undefined(self.standard_error, self.interval(Level::P95).is_some())
    }

    /// Whether there are fewer than [`APPROXIMATE_BELOW`](crate::APPROXIMATE_BELOW) degrees of freedom.
    pub fn is_approximate(&self) -> bool {
        is_approximate(self.degrees_of_freedom)
    }
}

/// The difference of two models' mean AUCs over the same labels and images.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MeanTest {
    /// The means, their difference and its test.
    pub test: PairedTest,
    /// Over how many labels, at least 1.
    pub n_labels: usize,
}

/// The mean's error, with no resampling.
impl MultiLabel {
    /// The plain mean of the labels' AUCs with its standard error, by cluster (patient) where
    /// clusters are given, else with every image taken as independent. `None` when no label has an
    /// AUC. Of one label it is [`clustered_delong`](crate::clustered_delong).
    ///
    /// ```
    /// use cxr_metrics::{Level, MultiLabel};
    /// let scores = [0.9, 0.3, 0.8, 0.2, 0.4, 0.9, 0.3, 0.6, 0.2, 0.4, 0.1, 0.5];
    /// let labels = [true, false, true, false, false, true, false, true, true, false, false, false];
    /// let data = MultiLabel::new(["Effusion", "Mass"], &scores, &labels, None)?;
    /// let mean = data.macro_auc_estimate(Some(&[1, 1, 2, 3, 4, 5]))?.unwrap();
    /// assert_eq!(mean.mean, data.macro_auc().unwrap());
    /// let interval = mean.interval(Level::P95).unwrap();
    /// assert!(interval.contains(mean.mean.value) && mean.is_approximate());
    /// # Ok::<(), cxr_metrics::MetricError>(())
    /// ```
    ///
    /// # Errors
    /// [`MetricError::Length`] unless there is one cluster per image.
    pub fn macro_auc_estimate(
        &self,
        clusters: Option<&[u64]>,
    ) -> Result<Option<MeanEstimate>, MetricError> {
        let clusters = Clusters::or_singletons(clusters, self.n_images())?;
        let mut sorter = Sorter::default();
        let mut sum = MeanSum::new(clusters.len());
        let mut total = 0.0;
        for column in self.columns() {
            let of_row = clusters.of_rows(column.rows.as_deref());
            let entries = sorter.sort(column.scores.borrow(), &column.labels);
            if let Some((auc, classes)) = Classes::of_sorted(entries, (&of_row, clusters.len())) {
                total += auc;
                sum.add(&classes, [1.0, 1.0]);
            }
        }
        if sum.n_labels == 0 {
            return Ok(None);
        }
        let (standard_error, degrees_of_freedom) = sum.finish();
        let mean = LabelMean {
            value: total / sum.n_labels as f64,
            n_labels: sum.n_labels,
        };
        Ok(Some(MeanEstimate {
            mean,
            standard_error,
            degrees_of_freedom,
        }))
    }

    /// Tests whether two models have the same mean AUC on the same images, over the labels that have
    /// one; by cluster (patient) where clusters are given. `None` when no label has an AUC. Of one label
    /// it is [`paired_delong`](crate::paired_delong).
    ///
    /// # Errors
    /// As for [`Self::paired_per_label`].
    pub fn paired_macro_auc(
        &self,
        other: &Self,
        clusters: Option<&[u64]>,
    ) -> Result<Option<MeanTest>, MetricError> {
        self.check_paired(other)?;
        let clusters = Clusters::or_singletons(clusters, self.n_images())?;
        let mut sum = MeanSum::new(clusters.len());
        let (mut total_a, mut total_b) = (0.0, 0.0);
        let differences = |(a, b): (&Column, &Column)| {
            let of_row = clusters.of_rows(a.rows.as_deref());
            Differences::new(a.scored()?, b.scored()?, (&of_row, clusters.len()))
        };
        let pairs = self.columns().iter().zip(other.columns());
        let mut of_one = None;
        for of_label in pairs.filter_map(differences) {
            of_one = (sum.n_labels == 0).then(|| of_label.test());
            total_a += of_label.auc_a;
            total_b += of_label.auc_b;
            sum.add(&of_label.classes, of_label.classes.correlations());
        }
        if sum.n_labels == 0 {
            return Ok(None);
        }
        if let Some(test) = of_one {
            return Ok(Some(MeanTest { test, n_labels: 1 }));
        }
        let (standard_error, degrees_of_freedom) = sum.finish();
        let labels = sum.n_labels as f64;
        Ok(Some(MeanTest {
            test: PairedTest::of_means(
                (total_a / labels, total_b / labels),
                standard_error,
                degrees_of_freedom,
            ),
            n_labels: sum.n_labels,
        }))
    }
}

/// Σₗ of what clusters add to the labels' AUCs.
struct MeanSum {
    n_labels: usize,
    /// L·ψᵢ.
    influences: Vec<f64>,
    has_image: Vec<bool>,
    /// Of both classes of every label, and what makes each unbiased; `None` after a label without a
    /// variance.
    components: Option<Vec<(Component, f64)>>,
    /// Σ of every label's and class's own squares, which `components` scale each by what its own
    /// clusters need.
    own_squares: f64,
}

impl MeanSum {
    fn new(n_clusters: usize) -> Self {
        Self {
            n_labels: 0,
            influences: vec![0.0; n_clusters],
            has_image: vec![false; n_clusters],
            components: Some(Vec::new()),
            own_squares: 0.0,
        }
    }

    fn add(&mut self, classes: &Classes, correlations: [f64; 2]) {
        self.n_labels += 1;
        for class in [&classes.positives, &classes.negatives] {
            let images = class.n_images();
            let clusters = class.deviations().iter().zip(class.sizes()).enumerate();
            for (cluster, (&deviation, &size)) in clusters {
                let influence = deviation / images;
                self.influences[cluster] += influence;
                self.own_squares += influence * influence;
                self.has_image[cluster] |= size > 0;
            }
        }
        let of_label = classes.components(correlations);
        if let (Some(components), Some(of_label)) = (&mut self.components, of_label) {
            components.extend(of_label.into_iter().zip(classes.corrections(correlations)));
        } else {
            self.components = None;
        }
    }

    /// The standard error of the mean and its degrees of freedom. Products between classes and
    /// labels are scaled by K/(K−1) over all K clusters, a class's own squares by what makes their
    /// expectation right for its own clusters, so that a label with few patients is not taken for one
    /// with many. A single label keeps the scale of its own estimate, I/(I−1).
    fn finish(&self) -> (Option<f64>, Option<f64>) {
        let Some(components) = &self.components else {
            return (None, None);
        };
        let several = self.n_labels > 1;
        let scaled = |&(component, correction): &(Component, f64)| Component {
            variance: component.variance * if several { correction } else { 1.0 },
            ..component
        };
        let components: Vec<Component> = components.iter().map(scaled).collect();
        let occupied = self.has_image.iter().filter(|&&has| has).count() as f64;
        let squares: f64 = self.influences.iter().map(|value| value * value).sum();
        let own: f64 = components.iter().map(|component| component.variance).sum();
        let products = occupied / (occupied - 1.0) * (squares - self.own_squares);
        let labels = self.n_labels as f64;
        let variance = (own + products).max(0.0) / (labels * labels);
        let degrees_of_freedom = satterthwaite(&components).filter(|_| variance > 0.0);
        (Some(variance.sqrt()), degrees_of_freedom)
    }
}
