//! Predictions joined with the truth, image by image and label by label.

use std::collections::HashMap;

use cxr_dataset::Index;
use cxr_metrics::{MultiLabel, clusters_of};
use serde::{Deserialize, Serialize};

use crate::{LabelRow, Predictions, RunError, ScoreColumn, ScoreKind, Unscorable};

/// What is true of some images: the caller's label table, whatever its format.
///
/// ```
/// use cxr_run::Truth;
/// let mut truth = Truth::new(["Mass", "Hernia"]);
/// truth.add("00000001_000.png", [Some(true), Some(false)], Some("00000001"))?;
/// truth.add("00000001_001.png", [Some(true), None], Some("00000001"))?; // Hernia: not known
/// # Ok::<(), cxr_run::RunError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Truth {
    labels: Vec<String>,
    positions: HashMap<String, usize>,
    /// Image by image.
    states: Vec<Option<bool>>,
    patients: Vec<Option<String>>,
}

impl Truth {
    /// No image yet, and these labels.
    pub fn new<N: Into<String>>(labels: impl IntoIterator<Item = N>) -> Self {
        Self {
            labels: labels.into_iter().map(Into::into).collect(),
            positions: HashMap::new(),
            states: Vec::new(),
            patients: Vec::new(),
        }
    }

    /// What a label table says of all its images.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn of(index: &Index) -> Result<Self, RunError> {
        let mut truth = Self::new(index.label_set().names());
        for record in index.records() {
            let row = LabelRow::of(record);
            truth.add(&row.image, row.states, row.patient.as_deref())?;
        }
        Ok(truth)
    }

    /// Adds an image: for each label whether the finding is present (`None`: not known), and whose
    /// radiograph it is.
    ///
    /// # Errors
    /// [`RunError::LabelCount`] and [`RunError::TruthTwice`]; the truth is then as it was.
    pub fn add(
        &mut self,
        image: &str,
        states: impl IntoIterator<Item = Option<bool>>,
        patient: Option<&str>,
    ) -> Result<(), RunError> {
        if self.positions.contains_key(image) {
            let image = image.to_owned();
            return Err(RunError::TruthTwice { image });
        }
        let before = self.states.len();
        self.states.extend(states);
        let (expected, found) = (self.labels.len(), self.states.len() - before);
        if expected != found {
            self.states.truncate(before);
            let image = image.to_owned();
            return Err(RunError::LabelCount {
                image,
                expected,
                found,
            });
        }
        self.positions.insert(image.to_owned(), self.patients.len());
        self.patients.push(patient.map(str::to_owned));
        Ok(())
    }

    /// The labels in the order of the states.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    fn state(&self, row: usize, label: usize) -> Option<bool> {
        self.states
            .get(row * self.labels.len() + label)
            .copied()
            .flatten()
    }
}

/// What was left out of an evaluation, where that was allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Rows of predictions whose image the label table does not hold.
    pub images_without_labels: usize,
    /// Rows of predictions whose image another predictions table does not hold.
    pub images_without_scores: usize,
    /// Rows of predictions whose image has an earlier row.
    pub repeated_rows: usize,
    /// Cells of predictions that are no finite number.
    pub unreadable_scores: usize,
    /// Labels of the label table without a column of scores.
    pub labels_without_scores: Vec<String>,
    /// Columns of scores about no label of the label table.
    pub scores_without_label: Vec<String>,
}

impl LeftOut {
    /// Whether nothing was left out.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One model's scores beside the truth, the images in the order of their names, so that nothing
/// depends on the order of a file.
#[derive(Clone, Debug)]
pub struct Evaluation {
    data: MultiLabel,
    /// Label by label, the known values.
    values: Vec<Vec<f64>>,
    patients: Result<Vec<u64>, String>,
    left_out: LeftOut,
}

impl Evaluation {
    /// Joins predictions with the truth. Labels keep the order of the truth; those named in
    /// `optional` need no scores.
    ///
    /// # Errors
    /// [`RunError::NothingToScore`] and [`RunError::NoCommonLabel`]; with [`Unscorable::Refuse`] an image without labels, a
    /// label without scores or scores without a label.
    pub fn join(
        predictions: &Predictions,
        truth: &Truth,
        optional: &[String],
        unscorable: Unscorable,
    ) -> Result<Self, RunError> {
        let joined = Self::join_all(&[predictions], truth, optional, unscorable)?.pop();
        joined.ok_or_else(|| RunError::NothingToScore {
            path: predictions.path().to_owned(),
        })
    }

    /// Joins the predictions of several models with the truth, on the images and labels that all
    /// of them score: one evaluation per model, in their order.
    ///
    /// # Errors
    /// As for [`Self::join`], and with [`Unscorable::Refuse`] an image that some lack.
    pub fn join_all(
        predictions: &[&Predictions],
        truth: &Truth,
        optional: &[String],
        unscorable: Unscorable,
    ) -> Result<Vec<Self>, RunError> {
        let mut left_out = LeftOut::default();
        for table in predictions {
            left_out.repeated_rows += table.repeated_rows();
            left_out.unreadable_scores += table.unreadable_scores();
        }
        let images = common_images(predictions, truth, unscorable, &mut left_out)?;
        let labels = common_labels(predictions, truth, optional, unscorable, &mut left_out)?;
        if let (true, Some(table)) = (labels.is_empty(), predictions.first()) {
            let (path, labels) = (table.path().to_owned(), truth.labels.clone());
            return Err(RunError::NoCommonLabel { path, labels });
        }
        let patients = number_patients(&images, truth);

        // A pair of image and label counts when the truth and every model know it.
        let state = |image: &CommonImage<'_>, label: &CommonLabel<'_>| {
            let mut scored = label.columns.iter().zip(&image.rows);
            let all_scored = scored.all(|(column, &row)| !column.scores[row].is_nan());
            truth
                .state(image.truth_row, label.position)
                .filter(|_| all_scored)
        };
        let states: Vec<Option<bool>> = images
            .iter()
            .flat_map(|image| labels.iter().map(move |label| state(image, label)))
            .collect();
        let evaluate = |model: usize| {
            let (data, values) = scores_of(model, &images, &labels, &states)?;
            let (patients, left_out) = (patients.clone(), left_out.clone());
            Ok(Self {
                data,
                values,
                patients,
                left_out,
            })
        };
        (0..predictions.len()).map(evaluate).collect()
    }

    /// The same, which says what another one left out: that of the images of which these are the studies.
    pub(crate) fn with_left_out_of(self, images: Self) -> Self {
        Self {
            left_out: images.left_out,
            ..self
        }
    }

    /// Scores to rank by, to the full precision of the file, and the truth.
    pub fn data(&self) -> &MultiLabel {
        &self.data
    }

    /// The values of the label with this index over the images where it is known, to full
    /// precision: the sigmoid of logits, other scores as they are. Empty if there is no such label.
    pub fn values(&self, label: usize) -> &[f64] {
        self.values.get(label).map_or(&[], Vec::as_slice)
    }

    /// The same if they all are probabilities, that is, lie in [0, 1].
    pub fn probabilities(&self, label: usize) -> Option<&[f64]> {
        let values = self.values(label);
        values
            .iter()
            .all(|value| (0.0..=1.0).contains(value))
            .then_some(values)
    }

    /// Which patient each image is of, numbered in the order of their names.
    ///
    /// # Errors
    /// [`RunError::PatientUnknown`] when an image's patient is not known.
    pub fn patients(&self) -> Result<&[u64], RunError> {
        match &self.patients {
            Ok(patients) => Ok(patients),
            Err(image) => Err(RunError::PatientUnknown {
                image: image.clone(),
            }),
        }
    }

    /// How many patients there are; `None` when an image's patient is not known.
    pub fn n_patients(&self) -> Option<usize> {
        self.patients
            .as_ref()
            .ok()?
            .iter()
            .max()
            .map(|&last| last as usize + 1)
    }

    /// The labels that a mean is over: those with an AUC, but for the ones to leave out. `None` when that is none.
    ///
    /// # Errors
    /// [`cxr_metrics::MetricError::UnknownLabel`] for a label to leave out that does not exist.
    pub fn labels_of_the_mean(&self, without: &[String]) -> Result<Option<MultiLabel>, RunError> {
        let labels = self.data.per_label();
        Ok(crate::summary::labels_of_the_mean(self, &labels, without)?)
    }

    /// The labels of the label table for which there are no scores.
    pub(crate) fn labels_without_scores(&self) -> impl Iterator<Item = &str> {
        self.left_out
            .labels_without_scores
            .iter()
            .map(String::as_str)
    }

    /// What the join left out.
    pub fn left_out(&self) -> &LeftOut {
        &self.left_out
    }
}

/// An image that the truth and all models hold.
struct CommonImage<'a> {
    name: &'a str,
    truth_row: usize,
    /// Its row in each model's predictions.
    rows: Vec<usize>,
}

/// A label that the truth and all models hold.
struct CommonLabel<'a> {
    name: &'a str,
    position: usize,
    /// Its column in each model's predictions.
    columns: Vec<&'a ScoreColumn>,
}

fn common_images<'a>(
    predictions: &[&'a Predictions],
    truth: &Truth,
    unscorable: Unscorable,
    left_out: &mut LeftOut,
) -> Result<Vec<CommonImage<'a>>, RunError> {
    let rows_of_image = |table: &&'a Predictions| -> HashMap<&str, usize> {
        let images = table.images().iter().enumerate();
        images.map(|(row, image)| (image.as_str(), row)).collect()
    };
    let look_up: Vec<HashMap<&str, usize>> = predictions.iter().map(rows_of_image).collect();
    let mut images = Vec::new();
    for (model, table) in predictions.iter().enumerate() {
        for (image, &line) in table.images().iter().zip(table.lines()) {
            let Some(&truth_row) = truth.positions.get(image) else {
                if unscorable == Unscorable::Refuse {
                    let (path, image) = (table.path().to_owned(), image.clone());
                    return Err(RunError::ImageWithoutLabels { path, line, image });
                }
                left_out.images_without_labels += 1;
                continue;
            };
            let rows: Vec<Option<usize>> = look_up
                .iter()
                .map(|rows| rows.get(image.as_str()).copied())
                .collect();
            let lacks_it = predictions.iter().zip(&rows).find(|(_, row)| row.is_none());
            match lacks_it {
                Some((other, _)) if unscorable == Unscorable::Refuse => {
                    return Err(RunError::ImageWithoutScores {
                        path: table.path().to_owned(),
                        line,
                        image: image.clone(),
                        other: other.path().to_owned(),
                    });
                }
                Some(_) => left_out.images_without_scores += 1,
                // The first table lists what all have in common.
                None if model == 0 => {
                    let rows = rows.into_iter().flatten().collect();
                    images.push(CommonImage {
                        name: image,
                        truth_row,
                        rows,
                    });
                }
                None => {}
            }
        }
    }
    if let (true, Some(table)) = (images.is_empty(), predictions.first()) {
        return Err(RunError::NothingToScore {
            path: table.path().to_owned(),
        });
    }
    images.sort_unstable_by(|a, b| a.name.cmp(b.name));
    Ok(images)
}

fn common_labels<'a>(
    predictions: &[&'a Predictions],
    truth: &'a Truth,
    optional: &[String],
    unscorable: Unscorable,
    left_out: &mut LeftOut,
) -> Result<Vec<CommonLabel<'a>>, RunError> {
    for table in predictions {
        for column in table.columns() {
            if truth.labels.contains(&column.label) {
                continue;
            }
            if unscorable == Unscorable::Refuse {
                return Err(RunError::ScoresWithoutLabel {
                    path: table.path().to_owned(),
                    column: column.header.clone(),
                    labels: truth.labels.clone(),
                });
            }
            left_out.scores_without_label.push(column.header.clone());
        }
    }
    let mut labels = Vec::new();
    for (position, name) in truth.labels.iter().enumerate() {
        let mut columns = Vec::with_capacity(predictions.len());
        for table in predictions {
            match table.columns().iter().find(|column| column.label == *name) {
                Some(column) => columns.push(column),
                None if unscorable == Unscorable::Count || optional.contains(name) => {}
                None => {
                    let (path, label) = (table.path().to_owned(), name.clone());
                    return Err(RunError::LabelWithoutScores { path, label });
                }
            }
        }
        if columns.len() == predictions.len() {
            labels.push(CommonLabel {
                name,
                position,
                columns,
            });
        } else {
            left_out.labels_without_scores.push(name.clone());
        }
    }
    Ok(labels)
}

/// One model's scores to rank by, and what they say.
fn scores_of(
    model: usize,
    images: &[CommonImage<'_>],
    labels: &[CommonLabel<'_>],
    states: &[Option<bool>],
) -> Result<(MultiLabel, Vec<Vec<f64>>), RunError> {
    let mask: Vec<bool> = states.iter().map(Option::is_some).collect();
    let targets: Vec<bool> = states.iter().map(|state| *state == Some(true)).collect();
    let mut scores = vec![0.0_f64; states.len()];
    let mut of_labels = Vec::with_capacity(labels.len());
    for (at, label) in labels.iter().enumerate() {
        let column = label.columns[model];
        let values: Vec<f64> = images
            .iter()
            .map(|image| column.scores[image.rows[model]])
            .collect();
        let places = scores.iter_mut().skip(at).step_by(labels.len());
        places
            .zip(&values)
            .for_each(|(place, &score)| *place = score);
        let known = mask.iter().skip(at).step_by(labels.len());
        let known_values = values.into_iter().zip(known).filter(|&(_, &known)| known);
        let meaning = |value| match column.kind {
            ScoreKind::Logit => cxr_metrics::sigmoid(value),
            ScoreKind::Probability => value,
        };
        of_labels.push(known_values.map(|(value, _)| meaning(value)).collect());
    }
    let names = labels.iter().map(|label| label.name);
    Ok((
        MultiLabel::new(names, &scores, &targets, Some(&mask))?,
        of_labels,
    ))
}

/// Numbers in the order of the patients' names, or the first image without a patient.
fn number_patients(images: &[CommonImage<'_>], truth: &Truth) -> Result<Vec<u64>, String> {
    let patient = |image: &CommonImage<'_>| {
        let patient = truth
            .patients
            .get(image.truth_row)
            .and_then(Option::as_deref);
        patient.ok_or_else(|| image.name.to_owned())
    };
    let of_image = images
        .iter()
        .map(patient)
        .collect::<Result<Vec<&str>, String>>()?;
    Ok(clusters_of(&of_image))
}
