//! How much the images of one class say when they come in clusters (patients).
//!
//! An estimate such as an AUC or a sensitivity is a mean over the images of a class. Its error
//! depends on the sums of their deviations from that mean within clusters: few clusters of unequal
//! size leave few degrees of freedom, however many images there are.

use crate::satterthwaite::Component;

/// The images of one class: per cluster their number and the sum of their deviations from the mean
/// of the class.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClassSums {
    deviations: Vec<f64>,
    sizes: Vec<u32>,
    /// Σ of the single images' squared deviations.
    squares: f64,
}

impl ClassSums {
    pub(crate) fn new(n_clusters: usize) -> Self {
        Self {
            deviations: vec![0.0; n_clusters],
            sizes: vec![0; n_clusters],
            squares: 0.0,
        }
    }

    #[inline]
    pub(crate) fn add(&mut self, cluster: usize, deviation: f64) {
        self.deviations[cluster] += deviation;
        self.sizes[cluster] += 1;
        self.squares += deviation * deviation;
    }

    /// The sum of deviations in each cluster, 0 in one without an image of the class.
    pub(crate) fn deviations(&self) -> &[f64] {
        &self.deviations
    }

    /// The number of images in each cluster.
    pub(crate) fn sizes(&self) -> &[u32] {
        &self.sizes
    }

    /// Clusters that have an image of the class.
    pub(crate) fn n_clusters(&self) -> f64 {
        self.occupied().count() as f64
    }

    /// Images of the class.
    pub(crate) fn n_images(&self) -> f64 {
        self.sizes.iter().map(|&size| u64::from(size)).sum::<u64>() as f64
    }

    /// Size and sum of deviations of each cluster that has an image of the class.
    fn occupied(&self) -> impl Iterator<Item = (f64, f64)> + Clone + '_ {
        self.sizes
            .iter()
            .zip(&self.deviations)
            .filter(|&(&size, _)| size > 0)
            .map(|(&size, &deviation)| (f64::from(size), deviation))
    }

    /// The variance of the class's mean, I/(I−1)·ΣS²/M² over I clusters with sums S of M images;
    /// `None` when all images are of one cluster.
    pub(crate) fn variance(&self) -> Option<f64> {
        let clusters = self.n_clusters();
        if clusters < 2.0 {
            return None;
        }
        let squares: f64 = self.occupied().map(|(_, sum)| sum * sum).sum();
        let images = self.n_images();
        Some(clusters / (clusters - 1.0) * squares / (images * images))
    }

    /// The degrees of freedom of [`Self::variance`], at least 1: those of the scaled χ² with the
    /// mean and the variance that ΣS² has if the clusters are independent and images within one
    /// are correlated by `correlation` (Bell & McCaffrey 2002; Imbens & Kolesár 2016).
    ///
    /// With sizes mᵢ, M = Σmᵢ, wᵢ = mᵢ/M, q = Σwᵢ², λᵢ = mᵢ(1 + (mᵢ−1)ρ) and Lₖ = Σwᵢᵏλᵢ: T²/Q with
    /// T = Σλᵢ(1 − 2wᵢ + q) and Q = Σλᵢ²(1 − 4wᵢ + 2q) + q²L₀² + 2L₀L₂ − 4qL₀L₁ + 2L₁², the traces of
    /// BΛ and (BΛ)² for B = (I − w1ᵀ)ᵀ(I − w1ᵀ). I − 1 for clusters of one size.
    pub(crate) fn degrees_of_freedom(&self, correlation: f64) -> f64 {
        let traces = self.traces(correlation);
        (traces.first * traces.first / traces.second).max(1.0)
    }

    /// What corrects [`Self::variance`] so that its expectation is right if images of a cluster are
    /// correlated by `correlation`: L₀/T instead of I/(I−1). One where clusters have one size; above
    /// where a few have most of the images, as these pull the mean towards themselves.
    pub(crate) fn correction(&self, correlation: f64) -> f64 {
        let traces = self.traces(correlation);
        let clusters = self.n_clusters();
        traces.total / traces.first * (clusters - 1.0) / clusters
    }

    fn traces(&self, correlation: f64) -> Traces {
        let images = self.n_images();
        let clusters = self.occupied().map(|(size, _)| {
            let lambda = size * (1.0 + (size - 1.0) * correlation);
            (size / images, lambda)
        });
        let (mut q, mut l0, mut l1, mut l2) = (0.0, 0.0, 0.0, 0.0);
        for (w, lambda) in clusters.clone() {
            q += w * w;
            l0 += lambda;
            l1 += w * lambda;
            l2 += w * w * lambda;
        }
        let mut first = 0.0;
        let mut second = q * q * l0 * l0 + 2.0 * l0 * l2 - 4.0 * q * l0 * l1 + 2.0 * l1 * l1;
        for (w, lambda) in clusters {
            first += lambda * (1.0 - 2.0 * w + q);
            second += lambda * lambda * (1.0 - 4.0 * w + 2.0 * q);
        }
        Traces {
            total: l0,
            first,
            second,
        }
    }

    /// The degrees of freedom that the sums of deviations themselves show, 2·(ΣS²)²/ΣS⁴, at least 1:
    /// few where most of ΣS² is a few clusters'. `None` where every sum is 0.
    pub(crate) fn observed_degrees_of_freedom(&self) -> Option<f64> {
        let (mut squares, mut fourths) = (0.0, 0.0);
        for (_, sum) in self.occupied() {
            squares += sum * sum;
            fourths += (sum * sum) * (sum * sum);
        }
        (fourths > 0.0).then(|| (2.0 * squares * squares / fourths).max(1.0))
    }

    /// The variance with its degrees of freedom under `correlation`.
    pub(crate) fn component(&self, correlation: f64) -> Option<Component> {
        Some(Component {
            variance: self.variance()?,
            degrees_of_freedom: self.degrees_of_freedom(correlation),
        })
    }

    /// How alike the deviations within a cluster are, 0 … 1: the intraclass correlation from a
    /// one-way analysis of variance with unequal groups (Donner 1986). 1 where every cluster has
    /// one image, or nothing varies.
    pub(crate) fn correlation(&self) -> f64 {
        let (clusters, images) = (self.n_clusters(), self.n_images());
        if images <= clusters || clusters < 2.0 {
            return 1.0;
        }
        let (mut between, mut squared_sizes) = (0.0, 0.0);
        for (size, sum) in self.occupied() {
            between += sum * sum / size;
            squared_sizes += size * size;
        }
        let mean_between = between / (clusters - 1.0);
        let mean_within = (self.squares - between).max(0.0) / (images - clusters);
        let typical_size = (images - squared_sizes / images) / (clusters - 1.0);
        let total = mean_between + (typical_size - 1.0) * mean_within;
        if total > 0.0 {
            ((mean_between - mean_within) / total).clamp(0.0, 1.0)
        } else {
            1.0
        }
    }

    /// Kish's effective number of clusters, M²/Σmᵢ²: as many of one size would say as much, were
    /// the images of a cluster copies of each other.
    pub(crate) fn kish(&self) -> f64 {
        let images = self.n_images();
        let squares: f64 = self.occupied().map(|(size, _)| size * size).sum();
        images * images / squares
    }

    /// The number of independent images that says as much as these when images of a cluster are
    /// correlated by [`Self::correlation`].
    pub(crate) fn effective_images(&self) -> f64 {
        let images = self.n_images();
        images / (1.0 + (images / self.kish() - 1.0) * self.correlation())
    }
}

/// Of Λ, the clusters' variances, and of BΛ and (BΛ)².
struct Traces {
    total: f64,
    first: f64,
    second: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(sizes: &[u32]) -> ClassSums {
        ClassSums {
            deviations: vec![0.0; sizes.len()],
            sizes: sizes.to_vec(),
            squares: 0.0,
        }
    }

    /// The traces of BΛ and (BΛ)² from the matrices written out.
    fn by_matrices(sizes: &[f64], correlation: f64) -> f64 {
        let total: f64 = sizes.iter().sum();
        let n = sizes.len();
        let lambda: Vec<f64> = sizes
            .iter()
            .map(|m| m * (1.0 + (m - 1.0) * correlation))
            .collect();
        let centring =
            |row: usize, column: usize| f64::from(u8::from(row == column)) - sizes[row] / total;
        let b = |i: usize, j: usize| -> f64 {
            (0..n).map(|row| centring(row, i) * centring(row, j)).sum()
        };
        let trace: f64 = (0..n).map(|i| b(i, i) * lambda[i]).sum();
        let mut square = 0.0;
        for i in 0..n {
            for j in 0..n {
                square += b(i, j).powi(2) * lambda[i] * lambda[j];
            }
        }
        trace * trace / square
    }

    #[test]
    fn degrees_of_freedom_equal_the_matrices_traces() {
        let skewed = [8, 7, 5, 4, 4, 3, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 184];
        for sizes in [
            &[1; 12][..],
            &[3; 5],
            &[1, 2, 3, 8, 1, 1],
            &[1, 1],
            &[1, 50],
            &skewed,
        ] {
            let as_f64: Vec<f64> = sizes.iter().map(|&size| f64::from(size)).collect();
            for correlation in [0.0, 0.3, 1.0] {
                let ours = class(sizes).degrees_of_freedom(correlation);
                let expected = by_matrices(&as_f64, correlation);
                assert!(
                    (ours / expected - 1.0).abs() < 1e-10,
                    "{sizes:?}, {correlation}: {ours} against {expected}"
                );
            }
        }
        assert!((class(&[1; 12]).degrees_of_freedom(1.0) - 11.0).abs() < 1e-12);
        assert!((class(&[7; 9]).degrees_of_freedom(0.4) - 8.0).abs() < 1e-12);
    }

    /// E(ΣS²) is T where Σ of the clusters' variances is L₀.
    #[test]
    fn the_correction_makes_the_expectation_right() {
        for sizes in [&[3; 5][..], &[1, 2, 3, 8, 1, 1], &[1, 50]] {
            let total: f64 = sizes.iter().map(|&size| f64::from(size)).sum();
            let n = sizes.len();
            let squares = |correlation: f64| -> [f64; 2] {
                let lambda = sizes.iter().map(|&size| {
                    let m = f64::from(size);
                    m * (1.0 + (m - 1.0) * correlation)
                });
                // Of S = X − (m/M)·ΣX, cluster by cluster.
                let expected: f64 = (0..n)
                    .map(|i| {
                        let share = f64::from(sizes[i]) / total;
                        let own = |(j, lambda): (usize, f64)| {
                            (f64::from(u8::from(i == j)) - share).powi(2) * lambda
                        };
                        lambda.clone().enumerate().map(own).sum::<f64>()
                    })
                    .sum();
                [lambda.sum(), expected]
            };
            for correlation in [0.0, 0.3, 1.0] {
                let [right, expected] = squares(correlation);
                let scaled = n as f64 / (n as f64 - 1.0) * class(sizes).correction(correlation);
                assert!((scaled * expected / right - 1.0).abs() < 1e-12);
            }
        }
        assert!((class(&[7; 9]).correction(1.0) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn an_empty_cluster_changes_nothing() {
        let with = class(&[0, 2, 0, 5, 1]).degrees_of_freedom(1.0);
        assert_eq!(with, class(&[2, 5, 1]).degrees_of_freedom(1.0));
    }

    #[test]
    fn copies_are_fully_correlated_and_opposites_not_at_all() {
        let mut copies = ClassSums::new(3);
        let mut opposites = ClassSums::new(3);
        for (cluster, value) in [(0, 0.5), (1, -0.25), (2, -0.25)] {
            for sign in [1.0, -1.0] {
                copies.add(cluster, value);
                opposites.add(cluster, sign * value);
            }
        }
        assert!((copies.correlation() - 1.0).abs() < 1e-12);
        assert!((copies.effective_images() - 3.0).abs() < 1e-12);
        assert_eq!(opposites.correlation(), 0.0);
        assert!((opposites.effective_images() - 6.0).abs() < 1e-12);
    }
}
