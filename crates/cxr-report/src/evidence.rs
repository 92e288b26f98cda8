//! What a report computes from the predictions and labels in run folders: ROC curves, paired
//! tests, means that `metrics.json` has not, and how often each label occurs.

use std::collections::BTreeMap;

use cxr_metrics::{
    MeanEstimate, MetricError, MultiLabel, PairedTest, RocCurve, holm_defined, roc_curve,
};
use cxr_run::{
    Comparison, ComparisonOptions, Evaluation, LabelTable, Part, Predictions, RunFolder,
    RunMetrics, Unscorable, ViewSet,
};

use crate::ReportError;
use crate::explanations::{EXPLANATIONS_FILE, EXPLANATIONS_FOLDER, Explanations};
use crate::paper::{
    LEFT_OUT_OF_SECOND_MEAN, PROPOSAL, is_of_a_system, is_of_tau_only, is_proposal, tau,
};
use crate::tables::system_runs;

/// What predictions and labels show beyond a run's own metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// How often each label occurs; `None` without the labels of all parts.
    pub frequencies: Option<Frequencies>,
    /// The ROC curves of FZLPR(0.2), or of the first run, on the test images in single view.
    pub curves: Option<Curves>,
    /// Paired tests between losses on the test images in single view.
    pub tests: Vec<LossTest>,
    /// Each τ against τ = 1, which is ZLPR, the same way.
    pub tau_tests: Vec<LossTest>,
    /// The chosen variant of each published system against FZLPR(0.2), with flip and zoom.
    pub system_tests: Vec<LossTest>,
    /// The p-values of their means after Holm's correction for the number of systems, in the same order.
    pub system_p_holm: Vec<Option<f64>>,
    /// The mean without one label and its error, by variant, part and views.
    pub means_without: BTreeMap<(String, Part, ViewSet), MeanEstimate>,
    /// Whether all of these take the patient as the unit.
    pub by_patient: bool,
    /// Grad-CAM of FZLPR(0.2), or of the first run that has it.
    pub pictures: Option<Pictures>,
    /// Finished runs whose folder lacks predictions or labels.
    pub without_predictions: Vec<String>,
}

/// How often each label occurs in each part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frequencies {
    /// Each label with its images in training, validation and test.
    pub labels: Vec<(String, [usize; 3])>,
    /// Images without any finding, likewise.
    pub without_finding: [usize; 3],
    /// All images, likewise.
    pub images: [usize; 3],
}

/// ROC curves of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Curves {
    /// The run.
    pub variant: String,
    /// Each label with its curve; labels of one class only have none.
    pub labels: Vec<(String, RocCurve)>,
}

/// A paired test between two runs.
#[derive(Clone, Debug, PartialEq)]
pub struct LossTest {
    /// The first run's variant.
    pub a: String,
    /// The second's.
    pub b: String,
    /// The tests per label, and the difference of the means with its interval.
    pub comparison: Comparison,
    /// The difference of the means without one label, with its test; `None` when the label is
    /// not among them or nothing else is.
    pub without: Option<PairedTest>,
}

/// Grad-CAM of one run, with the bytes of its pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Pictures {
    /// The run.
    pub variant: String,
    /// What they show.
    pub explanations: Explanations,
    /// PNG files by name.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Evidence {
    /// Reads and computes; `folders` are those of the finished `runs`, in the same order.
    pub(crate) fn of(folders: &[RunFolder], runs: &[RunMetrics]) -> Result<Self, ReportError> {
        let mut evidence = Self::default();
        let mut tests = Vec::with_capacity(folders.len());
        let mut averaged = BTreeMap::new();
        for folder in folders {
            let [single, with_zoom] = evidence.read_run(folder, runs)?;
            if single.is_none() {
                evidence.without_predictions.push(folder.variant().into());
            }
            tests.push(single);
            averaged.extend(with_zoom.map(|part| (folder.variant(), part)));
        }
        let known: Vec<(&RunMetrics, &TestPart)> = runs
            .iter()
            .zip(&tests)
            .filter_map(|(run, test)| Some((run, test.as_ref()?)))
            .collect();
        evidence.by_patient = !known.is_empty()
            && known
                .iter()
                .all(|(_, test)| test.evaluation.patients().is_ok());
        let proposal = |run: &&(&RunMetrics, &TestPart)| is_proposal(run.0);
        if let Some((run, test)) = known.iter().find(proposal).or(known.first()) {
            evidence.curves = Some(curves(&run.variant, &test.evaluation)?);
        }
        evidence.compare(&known)?;
        evidence.compare_systems(runs, &averaged)?;
        if let Some(folder) = folders.first() {
            evidence.frequencies = frequencies(folder)?;
        }
        let order = |variant: &str| usize::from(variant != PROPOSAL);
        let mut by_preference: Vec<&RunFolder> = folders.iter().collect();
        by_preference.sort_by_key(|folder| order(folder.variant()));
        for folder in by_preference {
            if evidence.pictures.is_none() {
                evidence.pictures = pictures(folder)?;
            }
        }
        Ok(evidence)
    }

    /// Reads the test predictions of a run, and computes the intervals of its means without one label. Gives back its test
    /// images in single view, and, of a published system and of what it is compared with, with flip and zoom.
    fn read_run(
        &mut self,
        folder: &RunFolder,
        runs: &[RunMetrics],
    ) -> Result<[Option<TestPart>; 2], ReportError> {
        let run = runs.iter().find(|run| run.variant == folder.variant());
        let has_systems = runs.iter().any(is_of_a_system);
        let is_compared = |run: &RunMetrics| is_of_a_system(run) || is_proposal(run);
        let with_zoom = has_systems && run.is_some_and(is_compared);
        let mut kept = [None, None];
        for part in [Part::Validation, Part::Test] {
            let Some(labels) = folder.labels(part)? else {
                continue;
            };
            let truth = labels.truth()?;
            let predicted = run.map(|run| match part {
                Part::Test => run.test.keys().copied().collect(),
                _ => vec![ViewSet::Single],
            });
            for views in predicted.unwrap_or_default() {
                let Some(predictions) = folder.predictions(part, views)? else {
                    continue;
                };
                let evaluation = Evaluation::join(&predictions, &truth, &[], Unscorable::Refuse)?;
                if let Some(mean) = mean_without(&evaluation)? {
                    let key = (folder.variant().to_owned(), part, views);
                    self.means_without.insert(key, mean);
                }
                let place = match (part, views) {
                    (Part::Test, ViewSet::Single) => 0,
                    (Part::Test, ViewSet::HorizontalFlipZoom) if with_zoom => 1,
                    _ => continue,
                };
                kept[place] = Some(TestPart {
                    labels: labels.clone(),
                    predictions,
                    evaluation,
                });
            }
        }
        Ok(kept)
    }

    /// The first seed of each system's chosen variant against the first one of FZLPR(0.2).
    fn compare_systems(
        &mut self,
        runs: &[RunMetrics],
        averaged: &BTreeMap<&str, TestPart>,
    ) -> Result<(), ReportError> {
        fn part_of<'a>(
            run: &'a RunMetrics,
            averaged: &'a BTreeMap<&str, TestPart>,
        ) -> Option<(&'a RunMetrics, &'a TestPart)> {
            Some((run, averaged.get(run.variant.as_str())?))
        }
        let Some(proposal) = runs
            .iter()
            .find(|run| is_proposal(run))
            .and_then(|run| part_of(run, averaged))
        else {
            return Ok(());
        };
        for system in system_runs(runs) {
            let first = system.chosen().first().copied();
            if let Some(system) = first.and_then(|run| part_of(run, averaged)) {
                self.system_tests.extend(loss_test(&system, &proposal)?);
            }
        }
        let tests = self.system_tests.iter();
        let p_values: Vec<Option<f64>> = tests.map(|test| test.comparison.means.p_value).collect();
        self.system_p_holm = holm_defined(&p_values)?;
        Ok(())
    }

    fn compare(&mut self, known: &[(&RunMetrics, &TestPart)]) -> Result<(), ReportError> {
        // Of several seeds the first stands for its loss.
        let mut firsts: Vec<&(&RunMetrics, &TestPart)> = Vec::new();
        for run in known.iter().filter(|run| !is_of_a_system(run.0)) {
            let is_same = |other: &&(&RunMetrics, &TestPart)| {
                other.0.loss == run.0.loss && other.0.loss_parameters == run.0.loss_parameters
            };
            if !firsts.iter().any(is_same) {
                firsts.push(run);
            }
        }
        let of_losses: Vec<_> = firsts.iter().filter(|run| !is_of_tau_only(run.0)).collect();
        for (at, a) in of_losses.iter().enumerate().rev() {
            for b in of_losses.iter().take(at).rev() {
                self.tests.extend(loss_test(a, b)?);
            }
        }
        let base = firsts.iter().find(|run| tau(run.0) == Some(1.0));
        for run in firsts.iter().filter(|run| run.0.loss == "fzlpr") {
            if let Some(base) = base.filter(|base| base.0.variant != run.0.variant) {
                self.tau_tests.extend(loss_test(run, base)?);
            }
        }
        self.tau_tests.sort_by(|a, b| {
            let tau_of = |test: &LossTest| {
                let run = firsts.iter().find(|run| run.0.variant == test.a);
                run.and_then(|run| tau(run.0)).unwrap_or(f64::NAN)
            };
            tau_of(a).total_cmp(&tau_of(b))
        });
        Ok(())
    }
}

/// A run's test images in single view.
struct TestPart {
    labels: LabelTable,
    predictions: Predictions,
    evaluation: Evaluation,
}

/// `None` when the two were not tested on the same images.
fn loss_test(
    a: &(&RunMetrics, &TestPart),
    b: &(&RunMetrics, &TestPart),
) -> Result<Option<LossTest>, ReportError> {
    if a.1.labels != b.1.labels {
        return Ok(None);
    }
    let truth = a.1.labels.truth()?;
    let both = [&a.1.predictions, &b.1.predictions];
    let both = Evaluation::join_all(&both, &truth, &[], Unscorable::Refuse)?;
    let [of_a, of_b] = both.as_slice() else {
        return Ok(None);
    };
    let options = ComparisonOptions {
        by_patient: of_a.patients().is_ok(),
        ..ComparisonOptions::default()
    };
    let comparison = Comparison::new(of_a, of_b, &options)?;
    let mut without = None;
    if let (Some(data_a), Some(data_b)) = (others(of_a)?, others(of_b)?) {
        let mean = data_a.paired_macro_auc(&data_b, of_a.patients().ok())?;
        without = mean.map(|mean| mean.test);
    }
    Ok(Some(LossTest {
        a: a.0.variant.clone(),
        b: b.0.variant.clone(),
        comparison,
        without,
    }))
}

/// The labels with an AUC but for the one that the second mean leaves out.
fn others(evaluation: &Evaluation) -> Result<Option<MultiLabel>, ReportError> {
    let has_it = evaluation
        .data()
        .label_names()
        .any(|label| label == LEFT_OUT_OF_SECOND_MEAN);
    if !has_it {
        return Ok(None);
    }
    let without = [LEFT_OUT_OF_SECOND_MEAN.to_owned()];
    Ok(evaluation.labels_of_the_mean(&without)?)
}

fn mean_without(evaluation: &Evaluation) -> Result<Option<MeanEstimate>, ReportError> {
    let Some(data) = others(evaluation)? else {
        return Ok(None);
    };
    Ok(data.macro_auc_estimate(evaluation.patients().ok())?)
}

fn curves(variant: &str, evaluation: &Evaluation) -> Result<Curves, ReportError> {
    let mut labels = Vec::new();
    for label in evaluation.data().label_names() {
        let scored = match evaluation.data().scored(label) {
            // Not known on any image: the label has no curve.
            Err(MetricError::Empty) => continue,
            scored => scored?,
        };
        if let Some(curve) = roc_curve(scored) {
            labels.push((label.to_owned(), curve.corners()));
        }
    }
    Ok(Curves {
        variant: variant.to_owned(),
        labels,
    })
}

fn frequencies(run: &RunFolder) -> Result<Option<Frequencies>, ReportError> {
    let mut tables = Vec::with_capacity(Part::ALL.len());
    for part in Part::ALL {
        tables.extend(run.labels(part)?);
    }
    let [train, validation, test] = tables.as_slice() else {
        return Ok(None);
    };
    let parts = [train, validation, test];
    if parts.iter().any(|table| table.labels() != train.labels()) {
        return Ok(None);
    }
    let of_label = |(at, label): (usize, &String)| {
        let counts = parts.map(|table| table.positives(at));
        (label.clone(), counts)
    };
    Ok(Some(Frequencies {
        labels: train.labels().iter().enumerate().map(of_label).collect(),
        without_finding: parts.map(LabelTable::n_without_finding),
        images: parts.map(|table| table.rows().len()),
    }))
}

/// The largest picture that is read.
const MAX_PICTURE: u64 = 1 << 26;

fn pictures(folder: &RunFolder) -> Result<Option<Pictures>, ReportError> {
    let Some(explanations) = Explanations::read(folder.path())? else {
        return Ok(None);
    };
    let mut files = BTreeMap::new();
    for name in explanations.picture_files() {
        // Reading the explanations checked that it is a name.
        let path = folder.path().join(EXPLANATIONS_FOLDER).join(name);
        let bytes = cxr_fs::read_regular(&path, MAX_PICTURE)?;
        if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            return Err(ReportError::Picture {
                path: path.with_file_name(EXPLANATIONS_FILE),
                picture: cxr_table::excerpt(name),
                problem: "it is no PNG file",
            });
        }
        files.insert(name.to_owned(), bytes);
    }
    Ok(Some(Pictures {
        variant: folder.variant().to_owned(),
        explanations,
        files,
    }))
}
