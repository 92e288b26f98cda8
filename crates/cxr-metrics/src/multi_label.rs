use std::borrow::Cow;

use crate::clusters::Clusters;
use crate::delong::{AucEstimate, PairedTest, estimate_of_sorted, paired};
use crate::error::{MetricError, check_length};
use crate::ranking::{auc_of_sorted, average_precision, average_precision_of_sorted, roc_auc};
use crate::scored::{OwnedScores, Scored, Scores, check_finite};
use crate::sorted::{MAX_EXAMPLES, Sorter, count_labels};

/// Scores and truth of N images for L labels.
///
/// Where a mask says that a label of an image is unknown, that image does not exist for that label.
/// A label that lacks one class has no AUC: it is `None` per label, left out of means, and every
/// mean says over how many labels it was taken.
///
/// ```
/// use cxr_metrics::MultiLabel;
/// let scores = [0.9, 0.2, 0.1, //
///               0.1, 0.7, 0.2,
///               0.6, 0.8, 0.3];
/// let labels = [true, true, false, //
///               false, false, false,
///               true, true, false];
/// let data = MultiLabel::new(["Effusion", "Mass", "Hernia"], &scores, &labels, None)?;
/// let mean = data.macro_auc().unwrap();
/// assert_eq!((mean.value, mean.n_labels), (0.75, 2)); // nobody has a hernia
/// assert_eq!(data.without(&["Mass"])?.macro_auc().unwrap().value, 1.0);
/// # Ok::<(), cxr_metrics::MetricError>(())
/// ```
#[derive(Clone, Debug)]
pub struct MultiLabel {
    columns: Vec<Column>,
    n_images: usize,
}

/// One label: the images where it is known.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) scores: OwnedScores,
    pub(crate) labels: Vec<bool>,
    /// The image of each entry; `None` when all are known.
    pub(crate) rows: Option<Vec<u32>>,
}

impl Column {
    pub(crate) fn scored(&self) -> Option<Scored<'_>> {
        (!self.labels.is_empty()).then(|| Scored::trusted(self.scores.borrow(), &self.labels))
    }

    /// Some of the known entries, and which images they are then of.
    fn at(&self, places: &[usize], rows: Option<Vec<u32>>) -> Self {
        Self {
            name: self.name.clone(),
            scores: self.scores.borrow().gather(places.iter().copied()),
            labels: places.iter().map(|&place| self.labels[place]).collect(),
            rows,
        }
    }

    /// Image, score and label of each known entry.
    pub(crate) fn known(&self) -> impl Iterator<Item = (usize, f64, bool)> + '_ {
        self.scores
            .borrow()
            .iter()
            .zip(&self.labels)
            .enumerate()
            .map(|(at, (score, &label))| {
                let row = self.rows.as_ref().map_or(at, |rows| rows[at] as usize);
                (row, score, label)
            })
    }
}

/// A mean over the labels for which it is defined.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LabelMean {
    /// The mean.
    pub value: f64,
    /// Over how many labels, at least 1.
    pub n_labels: usize,
}

/// What one label's ranking shows.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LabelScores {
    /// The label's name.
    pub label: String,
    /// Images known to have the finding.
    pub positives: usize,
    /// Images known not to have it.
    pub negatives: usize,
    /// AUC with DeLong's standard error; `None` when either class is absent.
    pub auc: Option<AucEstimate>,
    /// Average precision; `None` when there is no positive.
    pub average_precision: Option<f64>,
}

impl MultiLabel {
    /// Takes `scores` (`f32` or `f64`) and `labels` of N images for L labels, row after row (N×L), and
    /// optionally a `mask` of the same shape, `true` where the label is known.
    ///
    /// # Errors
    /// [`MetricError::Empty`] without labels or images, [`MetricError::Length`] when the shapes
    /// disagree, [`MetricError::DuplicateLabel`], and [`MetricError::NotFinite`] (with the position
    /// in `scores`) for a NaN or infinite score of a known label.
    pub fn new<'a, N: Into<String>>(
        label_names: impl IntoIterator<Item = N>,
        scores: impl Into<Scores<'a>>,
        labels: &[bool],
        mask: Option<&[bool]>,
    ) -> Result<Self, MetricError> {
        let scores = scores.into();
        let names = distinct_names(label_names)?;
        let n_labels = names.len();
        if scores.is_empty() {
            return Err(MetricError::Empty);
        }
        let n_images = scores.len() / n_labels;
        check_length(
            "scores, one per image and label",
            n_images.max(1) * n_labels,
            scores.len(),
        )?;
        check_length("labels, one per score", scores.len(), labels.len())?;
        if let Some(mask) = mask {
            check_length("mask entries, one per score", scores.len(), mask.len())?;
        }
        if n_images > MAX_EXAMPLES {
            return Err(MetricError::TooManyExamples { found: n_images });
        }
        check_finite(scores, |at| mask.is_none_or(|mask| mask[at]))?;
        let columns = names.into_iter().enumerate().map(|(label, name)| {
            let places = (label..scores.len()).step_by(n_labels);
            match mask {
                None => Column {
                    name,
                    scores: scores.gather(places.clone()),
                    labels: places.map(|at| labels[at]).collect(),
                    rows: None,
                },
                Some(mask) => {
                    let places: Vec<usize> = places.filter(|&at| mask[at]).collect();
                    let complete = places.len() == n_images;
                    Column {
                        name,
                        scores: scores.gather(places.iter().copied()),
                        labels: places.iter().map(|&at| labels[at]).collect(),
                        rows: (!complete)
                            .then(|| places.iter().map(|&at| (at / n_labels) as u32).collect()),
                    }
                }
            }
        });
        Ok(Self {
            columns: columns.collect(),
            n_images,
        })
    }

    /// The number of images, known labels or not.
    pub fn n_images(&self) -> usize {
        self.n_images
    }

    /// The number of labels, at least 1.
    pub fn n_labels(&self) -> usize {
        self.columns.len()
    }

    /// The names of the labels in their order.
    pub fn label_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    /// Only these labels, in this order.
    ///
    /// # Errors
    /// [`MetricError::UnknownLabel`], [`MetricError::DuplicateLabel`], [`MetricError::Empty`].
    pub fn select(&self, labels: &[&str]) -> Result<Self, MetricError> {
        let names = distinct_names(labels.iter().copied())?;
        let columns = names.iter().map(|name| self.column(name).cloned());
        Ok(Self {
            columns: columns.collect::<Result<_, _>>()?,
            n_images: self.n_images,
        })
    }

    /// All labels but these, as for a "mean without Hernia".
    ///
    /// # Errors
    /// [`MetricError::UnknownLabel`], and [`MetricError::Empty`] when nothing is left.
    pub fn without(&self, labels: &[&str]) -> Result<Self, MetricError> {
        for label in labels {
            self.column(label)?;
        }
        let kept: Vec<&str> = self
            .label_names()
            .filter(|name| !labels.contains(name))
            .collect();
        self.select(&kept)
    }

    /// One label's scores and truth, over the images where it is known.
    ///
    /// # Errors
    /// [`MetricError::UnknownLabel`], and [`MetricError::Empty`] when it is known for no image.
    pub fn scored(&self, label: &str) -> Result<Scored<'_>, MetricError> {
        self.column(label)?.scored().ok_or(MetricError::Empty)
    }

    /// The clusters of the images where a label is known, in the order of [`Self::scored`].
    ///
    /// # Errors
    /// [`MetricError::UnknownLabel`], and [`MetricError::Length`] unless there is one cluster per image.
    pub fn clusters_of(&self, label: &str, clusters: &[u64]) -> Result<Vec<u64>, MetricError> {
        check_length("clusters, one per example", self.n_images, clusters.len())?;
        let known = self.column(label)?.known();
        Ok(known.map(|(row, ..)| clusters[row]).collect())
    }

    /// The images where a label is known, ascending: which rows of the data [`Self::scored`] is of.
    ///
    /// # Errors
    /// [`MetricError::UnknownLabel`].
    pub fn known_rows(&self, label: &str) -> Result<Vec<usize>, MetricError> {
        let known = self.column(label)?.known();
        Ok(known.map(|(row, ..)| row).collect())
    }

    /// Only these images, in this order; an image may come more than once. For subgroups, folds, and
    /// the images that two tables have in common.
    ///
    /// ```
    /// use cxr_metrics::MultiLabel;
    /// let data = MultiLabel::new(["Mass"], &[0.9, 0.2, 0.4, 0.1], &[true, false, false, true], None)?;
    /// let women = [0, 3, 2];
    /// assert_eq!(data.rows(&women)?.per_label_auc(), [Some(0.5)]);
    /// # Ok::<(), cxr_metrics::MetricError>(())
    /// ```
    ///
    /// # Errors
    /// [`MetricError::Empty`] for no image, [`MetricError::NoSuchRow`], and [`MetricError::TooManyExamples`].
    pub fn rows(&self, rows: &[usize]) -> Result<Self, MetricError> {
        if rows.is_empty() {
            return Err(MetricError::Empty);
        }
        if rows.len() > MAX_EXAMPLES {
            return Err(MetricError::TooManyExamples { found: rows.len() });
        }
        if let Some(&row) = rows.iter().find(|&&row| row >= self.n_images) {
            let n_images = self.n_images;
            return Err(MetricError::NoSuchRow { row, n_images });
        }
        let mut place_of = vec![None; self.n_images];
        let columns = self.columns.iter().map(|column| {
            place_of.fill(None);
            for (place, (row, ..)) in column.known().enumerate() {
                place_of[row] = Some(place);
            }
            let known = rows
                .iter()
                .zip(0..)
                .filter_map(|(&row, to)| Some((place_of[row]?, to)));
            let (places, kept): (Vec<usize>, Vec<u32>) = known.unzip();
            column.at(&places, (kept.len() < rows.len()).then_some(kept))
        });
        Ok(Self {
            columns: columns.collect(),
            n_images: rows.len(),
        })
    }

    /// Counts, AUC, standard error and average precision of every label, from one sort each. The
    /// errors take images as independent, as [`delong`](crate::delong) does.
    pub fn per_label(&self) -> Vec<LabelScores> {
        self.per_label_with(&Clusters::singletons(self.n_images))
    }

    /// As [`Self::per_label`], with the standard error of [`clustered_delong`](crate::clustered_delong).
    ///
    /// # Errors
    /// [`MetricError::Length`] unless there is one cluster per image.
    pub fn per_label_clustered(&self, clusters: &[u64]) -> Result<Vec<LabelScores>, MetricError> {
        Ok(self.per_label_with(&Clusters::new(clusters, self.n_images)?))
    }

    fn per_label_with(&self, clusters: &Clusters) -> Vec<LabelScores> {
        let mut sorter = Sorter::default();
        let of_column = |column: &Column| {
            let entries = sorter.sort(column.scores.borrow(), &column.labels);
            let (positives, negatives) = count_labels(entries);
            let of_row = clusters.of_rows(column.rows.as_deref());
            LabelScores {
                label: column.name.clone(),
                positives: positives as usize,
                negatives: negatives as usize,
                auc: estimate_of_sorted(entries, (&of_row, clusters.len())),
                average_precision: average_precision_of_sorted(entries),
            }
        };
        self.columns.iter().map(of_column).collect()
    }

    /// The AUC of every label: the quickest way when nothing else is wanted.
    pub fn per_label_auc(&self) -> Vec<Option<f64>> {
        let mut sorter = Sorter::default();
        let auc =
            |column: &Column| auc_of_sorted(sorter.sort(column.scores.borrow(), &column.labels));
        self.columns.iter().map(auc).collect()
    }

    /// The average precision of every label.
    pub fn per_label_average_precision(&self) -> Vec<Option<f64>> {
        self.columns
            .iter()
            .map(|column| average_precision(column.scored()?))
            .collect()
    }

    /// The plain mean of the labels' AUCs; `None` when no label has one.
    pub fn macro_auc(&self) -> Option<LabelMean> {
        mean(self.per_label_auc().into_iter().map(|auc| (auc, 1.0)))
    }

    /// The plain mean of the labels' average precisions; `None` when no label has one.
    pub fn macro_average_precision(&self) -> Option<LabelMean> {
        mean(
            self.per_label_average_precision()
                .into_iter()
                .map(|value| (value, 1.0)),
        )
    }

    /// The mean of the labels' AUCs weighted by their numbers of positives.
    pub fn weighted_auc(&self) -> Option<LabelMean> {
        mean(self.per_label_auc().into_iter().zip(self.positives()))
    }

    /// The mean of the labels' average precisions weighted by their numbers of positives.
    pub fn weighted_average_precision(&self) -> Option<LabelMean> {
        mean(
            self.per_label_average_precision()
                .into_iter()
                .zip(self.positives()),
        )
    }

    /// The AUC of all known (image, label) pairs in one ranking.
    pub fn micro_auc(&self) -> Option<f64> {
        let (scores, labels) = self.pooled();
        roc_auc(Scored::new(scores.borrow(), &labels).ok()?)
    }

    /// The average precision of all known (image, label) pairs in one ranking.
    pub fn micro_average_precision(&self) -> Option<f64> {
        let (scores, labels) = self.pooled();
        average_precision(Scored::new(scores.borrow(), &labels).ok()?)
    }

    /// The paired test of every label between this model and another on the same images, by
    /// cluster where clusters are given; `None` for a label that lacks a class. Fourteen tests
    /// call for [`holm`](crate::holm).
    ///
    /// # Errors
    /// [`MetricError::Length`] when the images, labels or clusters differ in number, and
    /// [`MetricError::Mismatch`] when a label's name or truth does.
    pub fn paired_per_label(
        &self,
        other: &Self,
        clusters: Option<&[u64]>,
    ) -> Result<Vec<Option<PairedTest>>, MetricError> {
        self.check_paired(other)?;
        let clusters = Clusters::or_singletons(clusters, self.n_images)?;
        let test = |(a, b): (&Column, &Column)| {
            let of_row = clusters.of_rows(a.rows.as_deref());
            paired(a.scored()?, b.scored()?, (&of_row, clusters.len()))
        };
        Ok(self.columns.iter().zip(&other.columns).map(test).collect())
    }

    pub(crate) fn check_paired(&self, other: &Self) -> Result<(), MetricError> {
        check_length("images of the second model", self.n_images, other.n_images)?;
        check_length(
            "labels of the second model",
            self.n_labels(),
            other.n_labels(),
        )?;
        for (a, b) in self.columns.iter().zip(&other.columns) {
            if a.name != b.name || a.labels != b.labels || a.rows != b.rows {
                return Err(MetricError::Mismatch {
                    label: b.name.clone(),
                });
            }
        }
        Ok(())
    }

    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The images of `rows`, which may repeat and leave out images.
    pub(crate) fn with_rows_repeated(&self, times: &[u16]) -> Self {
        let mut first_copy = Vec::with_capacity(times.len());
        let mut n_images = 0;
        for &times in times {
            first_copy.push(n_images as u32);
            n_images += usize::from(times);
        }
        let columns = self.columns.iter().map(|column| {
            let (mut places, mut rows) = (Vec::new(), Vec::new());
            for (place, (row, ..)) in column.known().enumerate() {
                for repeat in 0..u32::from(times[row]) {
                    places.push(place);
                    rows.push(first_copy[row] + repeat);
                }
            }
            column.at(&places, column.rows.is_some().then_some(rows))
        });
        Self {
            columns: columns.collect(),
            n_images,
        }
    }

    fn column(&self, label: &str) -> Result<&Column, MetricError> {
        let found = self.columns.iter().find(|column| column.name == label);
        found.ok_or_else(|| MetricError::UnknownLabel {
            label: label.to_owned(),
            known: self.label_names().map(str::to_owned).collect(),
        })
    }

    fn positives(&self) -> impl Iterator<Item = f64> + '_ {
        self.columns
            .iter()
            .map(|column| column.labels.iter().filter(|&&label| label).count() as f64)
    }

    fn pooled(&self) -> (OwnedScores, Cow<'_, [bool]>) {
        let scores = self.columns.iter().map(|column| column.scores.borrow());
        let labels = match self.columns.as_slice() {
            [column] => column.labels.as_slice().into(),
            columns => columns
                .iter()
                .flat_map(|column| column.labels.iter().copied())
                .collect(),
        };
        (OwnedScores::concatenated(scores), labels)
    }
}

fn distinct_names<N: Into<String>>(
    names: impl IntoIterator<Item = N>,
) -> Result<Vec<String>, MetricError> {
    let mut distinct: Vec<String> = Vec::new();
    for name in names {
        let label = name.into();
        if distinct.contains(&label) {
            return Err(MetricError::DuplicateLabel { label });
        }
        distinct.push(label);
    }
    if distinct.is_empty() {
        Err(MetricError::Empty)
    } else {
        Ok(distinct)
    }
}

/// The weighted mean of the values that there are.
pub(crate) fn mean(values: impl Iterator<Item = (Option<f64>, f64)>) -> Option<LabelMean> {
    let (mut sum, mut weights, mut n_labels) = (0.0, 0.0, 0);
    for (value, weight) in values {
        if let Some(value) = value {
            sum += value * weight;
            weights += weight;
            n_labels += 1;
        }
    }
    (weights > 0.0).then(|| LabelMean {
        value: sum / weights,
        n_labels,
    })
}
