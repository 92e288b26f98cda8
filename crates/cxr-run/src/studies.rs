//! Predictions and truth of studies in the place of those of images.

use std::collections::{HashMap, HashSet};

use cxr_dataset::Index;

use crate::external::either_state;
use crate::{Evaluation, LabelRow, Predictions, RunError, StudyRule, Truth, Unscorable};

/// Which images are of one study, and how their scores become one.
///
/// ```
/// use cxr_dataset::{Index, LabelSet, LabelState, Record, StudyId};
/// use cxr_run::{Predictions, Studies, StudyRule, Unscorable};
///
/// let record = |name: &str, study: &str, state| {
///     let mut record = Record::new(name.parse()?, [state]);
///     record.study = Some(StudyId::new(study)?);
///     Ok::<_, cxr_dataset::DatasetError>(record)
/// };
/// let index = Index::new(LabelSet::new(vec!["Edema".to_owned()])?, vec![
///     record("1.png", "s", LabelState::Positive)?,
///     record("2.png", "s", LabelState::Positive)?,
///     record("3.png", "t", LabelState::Negative)?,
/// ])?;
/// let table = "image,Edema\n1.png,0.2\n2.png,0.9\n3.png,0.4\n";
/// let predictions = Predictions::from_reader(table.as_bytes(), "p.csv", Unscorable::Refuse)?;
/// let studies = Studies::of(&index, StudyRule::Max)?;
/// let joined = studies.join(&[&predictions], &index, &[], Unscorable::Refuse)?;
/// assert_eq!(joined[0].data().per_label_auc(), [Some(1.)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Studies {
    rule: StudyRule,
    /// By image.
    of: HashMap<String, String>,
}

impl Studies {
    /// The studies that a label table names.
    ///
    /// # Errors
    /// [`RunError::NoStudies`] where it names none.
    pub fn of(index: &Index, rule: StudyRule) -> Result<Self, RunError> {
        let named = index.records().iter().filter_map(|record| {
            let study = record.study.as_ref()?;
            Some((record.name.to_string(), study.as_str().to_owned()))
        });
        let of: HashMap<String, String> = named.collect();
        match of.is_empty() {
            true => Err(RunError::NoStudies {
                tables: index.release().to_string(),
            }),
            false => Ok(Self { rule, of }),
        }
    }

    /// What an image counts as: its study, or itself where that is not known.
    fn unit<'a>(&'a self, image: &'a str) -> &'a str {
        self.of.get(image).map_or(image, String::as_str)
    }

    /// Joins the predictions of several models with the truth as [`Evaluation::join_all`] does, study by study: of the images
    /// that the truth and all models have. A study's score is the mean or the largest of its images' scores as the tables
    /// have them, logits or probabilities; a label of it is positive where it is on one of these images, negative where it is
    /// on all, and unknown else. An image of an unknown study is a study of its own.
    ///
    /// # Errors
    /// As [`Evaluation::join_all`], of the images.
    pub fn join(
        &self,
        predictions: &[&Predictions],
        index: &Index,
        optional: &[String],
        unscorable: Unscorable,
    ) -> Result<Vec<Evaluation>, RunError> {
        // What cannot be scored is found, refused or counted image by image.
        let images = Truth::of(index)?;
        let by_image = Evaluation::join_all(predictions, &images, optional, unscorable)?;
        let tables = predictions.iter().map(|table| {
            let names = table.images().iter().map(String::as_str);
            names.collect::<HashSet<_>>()
        });
        let tables: Vec<_> = tables.collect();
        let rows = index.records().iter().map(LabelRow::of);
        let rows = rows.filter(|row| {
            tables
                .iter()
                .all(|names| names.contains(row.image.as_str()))
        });
        let rows: Vec<LabelRow> = rows.collect();
        let truth = self.truth(index.label_set().names(), &rows)?;
        let kept = rows.iter().map(|row| row.image.as_str()).collect();
        let joined: Vec<Predictions> = predictions
            .iter()
            .map(|table| table.joined(&kept, |image| self.unit(image), self.rule))
            .collect();
        let joined: Vec<&Predictions> = joined.iter().collect();
        let of_studies = Evaluation::join_all(&joined, &truth, optional, unscorable)?;
        let pairs = of_studies.into_iter().zip(by_image);
        Ok(pairs
            .map(|(studies, images)| studies.with_left_out_of(images))
            .collect())
    }

    /// What is true of the studies of some images, in the order in which they occur first.
    fn truth(&self, labels: &[String], rows: &[LabelRow]) -> Result<Truth, RunError> {
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut studies: Vec<LabelRow> = Vec::new();
        for row in rows {
            let unit = self.unit(&row.image);
            let place = *places.entry(unit).or_insert(studies.len());
            match studies.get_mut(place) {
                None => studies.push(LabelRow {
                    image: unit.to_owned(),
                    ..row.clone()
                }),
                Some(study) => {
                    for (known, state) in study.states.iter_mut().zip(&row.states) {
                        *known = either_state(*known, *state);
                    }
                }
            }
        }
        let mut truth = Truth::new(labels);
        for study in &studies {
            let states = study.states.iter().copied();
            truth.add(&study.image, states, study.patient.as_deref())?;
        }
        Ok(truth)
    }
}
