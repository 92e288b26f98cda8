//! A run's model on another data set than it was trained on: `external/<name>/` in the run's folder.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::json_text;
use crate::{
    Evaluation, LabelRow, LabelTable, Predictions, RunError, Summary, SummaryOptions, Unscorable,
    read_run_file,
};

/// The folder of external tests in a run's folder.
const FOLDER: &str = "external";
/// The file of one of them that holds its [`ExternalTest`].
const METRICS: &str = "metrics.json";

/// How the images of one study become one score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StudyRule {
    /// The mean of their logits.
    Mean,
    /// The largest of their logits, as CheXpert's authors score.
    Max,
}

impl FromStr for StudyRule {
    type Err = RunError;

    fn from_str(text: &str) -> Result<Self, RunError> {
        match text {
            "mean" => Ok(Self::Mean),
            "max" => Ok(Self::Max),
            _ => Err(RunError::setting("by-study", "`mean` or `max`", text)),
        }
    }
}

impl fmt::Display for StudyRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Mean => "mean",
            Self::Max => "max",
        })
    }
}

/// Whether one of two images has a finding: known to where one has, known not to where neither has.
pub(crate) fn either_state(first: Option<bool>, second: Option<bool>) -> Option<bool> {
    match (first, second) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}

/// The metrics of a model on a data set that it was not trained on, label by label over the labels that both have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExternalTest {
    /// What its folder is called.
    pub name: String,
    /// The data set that the model was trained on, by its release.
    pub trained_on: String,
    /// The data set that it is tested on.
    pub tested_on: String,
    /// The map by which labels of other names were joined.
    pub label_map: String,
    /// The model's labels that the data set does not have: nothing is known of them.
    pub labels_of_the_model_alone: Vec<String>,
    /// The labels whose empty cells are taken for negative, where there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blank_labels_negative: Vec<String>,
    /// Images whose names the training had too. Above 0, this is no test on other images.
    pub images_trained_on: usize,
    /// Whether the images are drawn, not taken.
    pub phantom: bool,
    /// The metrics by image; intervals are by patient where patients are known.
    pub by_image: Summary,
    /// The same by study, if asked for.
    pub by_study: Option<StudySummary>,
}

/// Metrics of studies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudySummary {
    /// How their images were joined.
    pub rule: StudyRule,
    /// The metrics; its images are studies.
    pub summary: Summary,
}

/// Logits of some images beside what is true of them, in one order.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredImages {
    /// The labels of the columns.
    pub labels: Vec<String>,
    /// What is true of each image.
    pub truth: Vec<LabelRow>,
    /// The study of each; `None` where it is not known.
    pub studies: Vec<Option<String>>,
    /// Its logits, one for each label.
    pub logits: Vec<Vec<f32>>,
}

impl ScoredImages {
    /// One row for each study, under its name; an image of an unknown study is one of its own. A label is positive where it
    /// is on one of the images, negative where it is on none and known on all, and unknown else.
    pub fn by_study(&self, rule: StudyRule) -> Self {
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut joined = Self {
            labels: self.labels.clone(),
            truth: Vec::new(),
            studies: Vec::new(),
            logits: Vec::new(),
        };
        let mut counts: Vec<usize> = Vec::new();
        for ((truth, study), logits) in self.truth.iter().zip(&self.studies).zip(&self.logits) {
            let name = study.as_deref().unwrap_or(&truth.image);
            let place = *places.entry(name).or_insert(joined.truth.len());
            let (Some(known), Some(sums), Some(count)) = (
                joined.truth.get_mut(place),
                joined.logits.get_mut(place),
                counts.get_mut(place),
            ) else {
                joined.truth.push(LabelRow {
                    image: name.to_owned(),
                    ..truth.clone()
                });
                joined.studies.push(study.clone());
                joined.logits.push(logits.clone());
                counts.push(1);
                continue;
            };
            for (known, state) in known.states.iter_mut().zip(&truth.states) {
                *known = either_state(*known, *state);
            }
            for (sum, logit) in sums.iter_mut().zip(logits) {
                *sum = match rule {
                    StudyRule::Mean => *sum + logit,
                    StudyRule::Max => sum.max(*logit),
                };
            }
            *count += 1;
        }
        if rule == StudyRule::Mean {
            for (logits, count) in joined.logits.iter_mut().zip(counts) {
                for logit in logits {
                    *logit /= count as f32;
                }
            }
        }
        joined
    }

    /// Its predictions and labels as the tables that a run's folder has.
    ///
    /// # Errors
    /// [`RunError::Io`].
    fn stage(
        &self,
        folder: &Path,
        what: &str,
        staged: &mut cxr_fs::Staged,
    ) -> Result<(), RunError> {
        let rows = (self.truth.iter()).zip(&self.logits);
        let rows = rows.map(|(truth, logits)| (truth.image.as_str(), logits.as_slice()));
        staged.write(&folder.join(format!("predictions{what}.csv")), |file| {
            Predictions::write_logits(file, &self.labels, rows)
        })?;
        LabelTable::new(self.labels.clone(), self.truth.clone())
            .stage(&folder.join(format!("labels{what}.csv")), staged)
    }

    /// The metrics, by patient where every image's is known.
    fn summary(
        &self,
        staged: &cxr_fs::Staged,
        folder: &Path,
        what: &str,
    ) -> Result<Summary, RunError> {
        let path = folder.join(format!("predictions{what}.csv"));
        let path = staged.path_of(&path).unwrap_or(&path).to_owned();
        let predictions = Predictions::read(&path, Unscorable::Refuse)?;
        let truth = LabelTable::new(self.labels.clone(), self.truth.clone()).truth()?;
        let evaluation = Evaluation::join(&predictions, &truth, &[], Unscorable::Refuse)?;
        let options = SummaryOptions {
            by_patient: evaluation.patients().is_ok(),
            ..SummaryOptions::default()
        };
        Summary::new(&evaluation, &options)
    }
}

/// What is said of an external test beside its metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalFacts {
    /// What its folder is to be called.
    pub name: String,
    /// See [`ExternalTest::trained_on`].
    pub trained_on: String,
    /// See [`ExternalTest::tested_on`].
    pub tested_on: String,
    /// See [`ExternalTest::label_map`].
    pub label_map: String,
    /// See [`ExternalTest::labels_of_the_model_alone`].
    pub labels_of_the_model_alone: Vec<String>,
    /// See [`ExternalTest::blank_labels_negative`].
    pub blank_labels_negative: Vec<String>,
    /// See [`ExternalTest::images_trained_on`].
    pub images_trained_on: usize,
    /// See [`ExternalTest::phantom`].
    pub phantom: bool,
}

impl ExternalTest {
    /// Scores images and puts all that belongs to the test into a run's folder, whole or not at all: predictions, labels
    /// and metrics by image, and by study if a rule is named. An earlier test of the name is replaced.
    ///
    /// # Errors
    /// [`RunError::Io`]; images that cannot be scored.
    pub fn make(
        run_folder: &Path,
        facts: ExternalFacts,
        images: &ScoredImages,
        by_study: Option<StudyRule>,
    ) -> Result<Self, RunError> {
        let folder = Self::folder(run_folder, &facts.name);
        std::fs::create_dir_all(&folder).map_err(RunError::io("create", &folder))?;
        let mut staged = cxr_fs::Staged::new();
        images.stage(&folder, "", &mut staged)?;
        let by_image = images.summary(&staged, &folder, "")?;
        let by_study = match by_study {
            None => None,
            Some(rule) => {
                let studies = images.by_study(rule);
                studies.stage(&folder, "-by-study", &mut staged)?;
                let summary = studies.summary(&staged, &folder, "-by-study")?;
                Some(StudySummary { rule, summary })
            }
        };
        let test = Self {
            name: facts.name,
            trained_on: facts.trained_on,
            tested_on: facts.tested_on,
            label_map: facts.label_map,
            labels_of_the_model_alone: facts.labels_of_the_model_alone,
            blank_labels_negative: facts.blank_labels_negative,
            images_trained_on: facts.images_trained_on,
            phantom: facts.phantom,
            by_image,
            by_study,
        };
        let path = folder.join(METRICS);
        let text = json_text(&path, &test)?;
        staged.write(&path, |file| {
            std::io::Write::write_all(file, text.as_bytes())
        })?;
        staged.commit()?;
        Ok(test)
    }

    /// The folder of a test in a run's folder.
    pub fn folder(run_folder: &Path, name: &str) -> PathBuf {
        let name = cxr_fs::FileName::from_text(name);
        run_folder.join(FOLDER).join(name.as_str())
    }

    /// The tests of a run, by name; none where there are none.
    ///
    /// # Errors
    /// [`RunError::Io`] and [`RunError::RunFile`].
    pub fn read_all(run_folder: &Path) -> Result<Vec<Self>, RunError> {
        let folder = run_folder.join(FOLDER);
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(RunError::io("read", &folder))?,
        };
        let mut tests = Vec::new();
        for entry in entries {
            let path = entry
                .map_err(RunError::io("read", &folder))?
                .path()
                .join(METRICS);
            if let Some(text) = read_run_file(&path)? {
                let test: Self =
                    serde_json::from_str(&text).map_err(|source| RunError::RunFile {
                        path: path.clone(),
                        source,
                    })?;
                tests.push(test);
            }
        }
        tests.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(tests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> ScoredImages {
        let row = |image: &str, patient: &str, states: [Option<bool>; 2]| LabelRow {
            image: image.to_owned(),
            patient: Some(patient.to_owned()),
            states: states.to_vec(),
        };
        ScoredImages {
            labels: vec!["A".to_owned(), "B".to_owned()],
            truth: vec![
                row("1.png", "p", [Some(true), Some(false)]),
                row("2.png", "p", [Some(true), None]),
                row("3.png", "q", [Some(false), Some(true)]),
                row("4.png", "r", [Some(false), Some(false)]),
            ],
            studies: vec![
                Some("s".to_owned()),
                Some("s".to_owned()),
                Some("t".to_owned()),
                None,
            ],
            logits: vec![vec![2., -1.], vec![-1., -3.], vec![0., 1.], vec![-2., -2.]],
        }
    }

    #[test]
    fn views_of_a_study_are_joined_by_mean_or_maximum() {
        let images = images();
        let mean = images.by_study(StudyRule::Mean);
        let names: Vec<&str> = mean.truth.iter().map(|row| row.image.as_str()).collect();
        assert_eq!(names, ["s", "t", "4.png"]);
        assert_eq!(mean.logits, [[0.5, -2.], [0., 1.], [-2., -2.]]);
        assert_eq!(mean.truth[0].states, [Some(true), None]);
        assert_eq!(images.by_study(StudyRule::Max).logits[0], [2., -1.]);
    }

    #[test]
    fn a_test_is_read_back_from_the_run_it_is_of() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(ExternalTest::read_all(run.path()).unwrap(), []);
        let facts = ExternalFacts {
            name: "../other".to_owned(),
            trained_on: "X".to_owned(),
            tested_on: "Y".to_owned(),
            label_map: "common-18".to_owned(),
            labels_of_the_model_alone: vec!["C".to_owned()],
            blank_labels_negative: Vec::new(),
            images_trained_on: 0,
            phantom: true,
        };
        let made = ExternalTest::make(run.path(), facts, &images(), Some(StudyRule::Max)).unwrap();
        // By hand: A has the positives 2 and −1 above the negatives 0 and −2 in 3 of 4 pairs.
        assert_eq!(made.by_image.labels[0].auc, Some(0.75));
        assert_eq!(made.by_image.n_patients, Some(3));
        assert_eq!(made.by_study.as_ref().unwrap().summary.n_images, 3);
        assert_eq!(ExternalTest::read_all(run.path()).unwrap(), [made]);
        // No name leaves the folder.
        let inside = std::fs::read_dir(run.path().join("external"))
            .unwrap()
            .count();
        assert_eq!(inside, 1);
    }
}
