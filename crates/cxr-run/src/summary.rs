//! The metrics of one model, as `cxr score` and `cxr evaluate` write them and the report reads them.

use cxr_metrics::{
    AucEstimate, Binning, BootstrapConfig, ClusteredProportion, ClusteredRates, Confusion,
    Forecast, Interval, LabelScores, Level, MetricError, MultiLabel, Proportion, Undefined,
    bootstrap, brier, expected_calibration_error,
};
use serde::{Deserialize, Serialize};

use crate::{Evaluation, LeftOut, RunError};

/// The field's habit for the expected calibration error.
const CALIBRATION_BINS: Binning = Binning::EqualWidth(15);

/// What to compute beyond the plain metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SummaryOptions {
    /// Adds errors and intervals that take the patient, not the image, as the unit, and lets the
    /// bootstrap draw patients.
    pub by_patient: bool,
    /// Labels to leave out of the means.
    pub without: Vec<String>,
    /// Takes the interval of the mean AUC from a bootstrap instead of its closed form.
    pub resampling: Option<Resampling>,
    /// Adds the decisions that this threshold makes: a label is called for probabilities (without
    /// those, scores) at or above it.
    pub threshold: Option<f64>,
}

/// How many bootstrap replicates, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resampling {
    /// The number of replicates.
    pub replicates: usize,
    /// Names the draws.
    pub seed: u64,
}

/// All metrics of one model. Serialises to the JSON of `cxr score`; undefined values are `null`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// One entry per label, in the order of the label table.
    pub labels: Vec<LabelSummary>,
    /// Means over labels.
    #[serde(rename = "macro")]
    pub means: MacroSummary,
    /// The images that were scored.
    pub n_images: usize,
    /// Their patients; `None` when not every image's is known.
    pub n_patients: Option<usize>,
    /// What an interval that takes images as independent is worth here; `None` when there is none, or
    /// every patient has one image.
    #[serde(default)]
    pub note: Option<String>,
    /// What was left out, where that was allowed.
    pub left_out: LeftOut,
}

/// Why there is no interval, no error or no p-value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NoInterval {
    /// One of the classes is absent.
    OneClass,
    /// All images of a class are of one patient (by image: there is one).
    OneCluster,
    /// The estimated error is 0, as where classes are separated perfectly.
    NoSpread,
}

impl std::fmt::Display for NoInterval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::OneClass => "one class is absent",
            Self::OneCluster => "all images of a class are of one patient, or it has one image",
            Self::NoSpread => "the images show no spread, as with perfect separation",
        })
    }
}

impl From<Undefined> for NoInterval {
    fn from(reason: Undefined) -> Self {
        match reason {
            Undefined::OneCluster => Self::OneCluster,
            _ => Self::NoSpread,
        }
    }
}

/// What an interval by image is worth, as text for people; `None` where it is as good as any.
pub(crate) fn note(by_patient: bool, n_images: usize, n_patients: Option<usize>) -> Option<String> {
    let worth = "intervals and tests take images as independent. Where patients have several they are too \
                 sure of themselves: on simulated test sets like ChestX-ray14's, intervals of 95 % by \
                 image held for 47 to 90 % of AUCs and for 37 to 84 % of sensitivities and \
                 specificities, and tests gave up to 53 % false alarms instead of 5 %";
    match n_patients {
        _ if by_patient => None,
        Some(n_patients) if n_patients == n_images => None,
        Some(_) => Some(format!("{worth}; use --by-patient")),
        None => Some(format!(
            "patients are not known, so {worth}; a column `patient` in the label table would help"
        )),
    }
}

/// The metrics of one label. Intervals are `[lower, upper]` at 95 %.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelSummary {
    /// The label's name.
    pub label: String,
    /// Images known to have the finding.
    pub positives: usize,
    /// Images known not to have it.
    pub negatives: usize,
    /// Area under the ROC curve; `None` when either class is absent.
    pub auc: Option<f64>,
    /// DeLong's standard error, images taken as independent.
    pub auc_se: Option<f64>,
    /// The degrees of freedom of that error; `None` without one, or where it is 0.
    pub auc_df: Option<f64>,
    /// The interval from both, made on the logit scale.
    pub auc_interval: Option<[f64; 2]>,
    /// The standard error by patient (Obuchowski 1997), if asked for.
    pub auc_se_clustered: Option<f64>,
    /// The degrees of freedom of that error.
    pub auc_df_clustered: Option<f64>,
    /// The interval from both.
    pub auc_interval_clustered: Option<[f64; 2]>,
    /// Whether the interval, by patient if asked for, is approximate: fewer than 10 degrees of freedom.
    #[serde(default)]
    pub approximate: bool,
    /// Why there is no such interval; `None` when there is one.
    pub no_interval: Option<NoInterval>,
    /// Average precision; `None` without a positive.
    pub average_precision: Option<f64>,
    /// Brier score; `None` when the scores are no probabilities.
    pub brier: Option<f64>,
    /// Expected calibration error of the positive class in 15 bins of equal width; `None` when the
    /// scores are no probabilities.
    pub ece: Option<f64>,
    /// What a threshold decides, if one was given.
    pub decision: Option<DecisionSummary>,
}

/// What a threshold decides. Intervals are Wilson's at 95 %: of images as they are or, by patient, of an
/// effective number of images, with the degrees of freedom behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionSummary {
    /// Called at or above it.
    pub threshold: f64,
    /// Whether the intervals take the patient as the unit.
    #[serde(default)]
    pub by_patient: bool,
    /// The counts.
    #[serde(flatten)]
    pub counts: Confusion,
    /// Share of positives that is called.
    pub sensitivity: Option<f64>,
    /// Its interval.
    pub sensitivity_interval: Option<[f64; 2]>,
    /// The degrees of freedom, by patient.
    pub sensitivity_df: Option<f64>,
    /// Share of negatives that is not called.
    pub specificity: Option<f64>,
    /// Its interval.
    pub specificity_interval: Option<[f64; 2]>,
    /// The degrees of freedom, by patient.
    pub specificity_df: Option<f64>,
    /// Share of the called that is positive.
    pub ppv: Option<f64>,
    /// Its interval.
    pub ppv_interval: Option<[f64; 2]>,
    /// The degrees of freedom, by patient.
    pub ppv_df: Option<f64>,
    /// Share of the not called that is negative.
    pub npv: Option<f64>,
    /// Its interval.
    pub npv_interval: Option<[f64; 2]>,
    /// The degrees of freedom, by patient.
    pub npv_df: Option<f64>,
    /// F1.
    pub f1: Option<f64>,
    /// Matthews' correlation coefficient.
    pub mcc: Option<f64>,
    /// Mean of sensitivity and specificity.
    pub balanced_accuracy: Option<f64>,
}

/// Plain means over the labels that have both classes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MacroSummary {
    /// Mean AUC; `None` when no label has one.
    pub auc: Option<f64>,
    /// Its standard error in closed form, with the patient as the unit if asked for.
    pub auc_se: Option<f64>,
    /// The degrees of freedom of that error.
    pub auc_df: Option<f64>,
    /// Its 95 % interval: from the error, or, where [`Self::bootstrap`] says so, from percentiles.
    pub auc_interval: Option<[f64; 2]>,
    /// Whether error and interval take the patient as the unit.
    #[serde(default)]
    pub by_patient: bool,
    /// Whether the interval is approximate: fewer than 10 degrees of freedom.
    #[serde(default)]
    pub approximate: bool,
    /// Why there is no error; `None` when there is one.
    pub no_interval: Option<NoInterval>,
    /// Mean average precision over the same labels.
    pub average_precision: Option<f64>,
    /// Over how many labels.
    pub n_labels: usize,
    /// The labels that were left out of the means by wish.
    pub without: Vec<String>,
    /// The bootstrap that the interval is from, if one was asked for.
    pub bootstrap: Option<BootstrapSummary>,
}

/// How a bootstrap interval was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BootstrapSummary {
    /// The replicates asked for and their seed.
    #[serde(flatten)]
    pub resampling: Resampling,
    /// Replicates in which a label lacked a class: not part of the interval.
    pub skipped: usize,
    /// Whether patients were drawn rather than images.
    pub by_patient: bool,
}

impl Summary {
    /// Computes all metrics of one model.
    ///
    /// ```
    /// use cxr_run::{Evaluation, Truth};
    /// use cxr_run::{Predictions, Unscorable};
    /// use cxr_run::{Summary, SummaryOptions};
    /// let csv = "image,logit_Mass\n1.png,2.0\n2.png,-1.0\n3.png,0.5\n";
    /// let predictions = Predictions::from_reader(csv.as_bytes(), "made.csv", Unscorable::Refuse)?;
    /// let mut truth = Truth::new(["Mass"]);
    /// truth.add("1.png", [Some(true)], None)?;
    /// truth.add("2.png", [Some(false)], None)?;
    /// truth.add("3.png", [Some(false)], None)?;
    /// let evaluation = Evaluation::join(&predictions, &truth, &[], Unscorable::Refuse)?;
    /// let summary = Summary::new(&evaluation, &SummaryOptions::default())?;
    /// assert_eq!(summary.labels[0].auc, Some(1.0));
    /// assert_eq!(summary.means.n_labels, 1);
    /// # Ok::<(), cxr_run::RunError>(())
    /// ```
    ///
    /// # Errors
    /// [`RunError::PatientUnknown`] for results by patient when one is not known, and
    /// [`MetricError::UnknownLabel`] for a label to leave out that does not exist.
    pub fn new(evaluation: &Evaluation, options: &SummaryOptions) -> Result<Self, RunError> {
        let data = evaluation.data();
        let patients = if options.by_patient {
            Some(evaluation.patients()?)
        } else {
            None
        };
        let plain = data.per_label();
        let clustered = patients
            .map(|patients| data.per_label_clustered(patients))
            .transpose()?;
        let mut labels = Vec::with_capacity(plain.len());
        for (at, scores) in plain.iter().enumerate() {
            let by_patient = clustered.as_ref().and_then(|clustered| clustered[at].auc);
            labels.push(label_summary(
                evaluation,
                (at, scores),
                by_patient,
                patients,
                options.threshold,
            )?);
        }
        Ok(Self {
            means: macro_summary(evaluation, &plain, patients, options)?,
            labels,
            n_images: data.n_images(),
            n_patients: evaluation.n_patients(),
            note: note(options.by_patient, data.n_images(), evaluation.n_patients()),
            left_out: evaluation.left_out().clone(),
        })
    }
}

fn label_summary(
    evaluation: &Evaluation,
    (at, scores): (usize, &LabelScores),
    clustered: Option<AucEstimate>,
    patients: Option<&[u64]>,
    threshold: Option<f64>,
) -> Result<LabelSummary, RunError> {
    let best = clustered.or(scores.auc);
    let interval = |estimate: AucEstimate| estimate.interval(Level::P95).map(ends);
    let mut summary = LabelSummary {
        label: scores.label.clone(),
        positives: scores.positives,
        negatives: scores.negatives,
        auc: scores.auc.map(|estimate| estimate.auc),
        auc_se: scores.auc.and_then(|estimate| estimate.standard_error),
        auc_df: scores.auc.and_then(|estimate| estimate.degrees_of_freedom),
        auc_interval: scores.auc.and_then(interval),
        auc_se_clustered: clustered.and_then(|estimate| estimate.standard_error),
        auc_df_clustered: clustered.and_then(|estimate| estimate.degrees_of_freedom),
        auc_interval_clustered: clustered.and_then(interval),
        approximate: best.is_some_and(|estimate| estimate.is_approximate()),
        no_interval: match best {
            None => Some(NoInterval::OneClass),
            Some(estimate) => estimate.undefined().map(Into::into),
        },
        average_precision: scores.average_precision,
        brier: None,
        ece: None,
        decision: None,
    };
    if scores.positives + scores.negatives == 0 {
        return Ok(summary);
    }
    let truth = evaluation.data().scored(&scores.label)?;
    let probabilities = evaluation.probabilities(at);
    if let Some(probabilities) = probabilities {
        let forecast = Forecast::new(probabilities, truth.labels())?;
        summary.brier = Some(brier(forecast));
        summary.ece = Some(expected_calibration_error(forecast, CALIBRATION_BINS)?);
    }
    if let Some(threshold) = threshold {
        let called: Vec<bool> = evaluation
            .values(at)
            .iter()
            .map(|&value| value >= threshold)
            .collect();
        let counts = Confusion::of_calls(&called, truth.labels())?;
        let mut decision = DecisionSummary::new(threshold, counts);
        if let Some(patients) = patients {
            let patients = evaluation.data().clusters_of(&scores.label, patients)?;
            let rates = ClusteredRates::of_calls(&called, truth.labels(), &patients)?;
            decision.take_patients(&rates);
        }
        summary.decision = Some(decision);
    }
    Ok(summary)
}

impl DecisionSummary {
    fn new(threshold: f64, counts: Confusion) -> Self {
        let value = |rate: Option<Proportion>| rate.map(|rate| rate.value());
        let wilson = |rate: Option<Proportion>| rate.map(|rate| ends(rate.wilson(Level::P95)));
        Self {
            threshold,
            by_patient: false,
            counts,
            sensitivity: value(counts.sensitivity()),
            sensitivity_interval: wilson(counts.sensitivity()),
            sensitivity_df: None,
            specificity: value(counts.specificity()),
            specificity_interval: wilson(counts.specificity()),
            specificity_df: None,
            ppv: value(counts.ppv()),
            ppv_interval: wilson(counts.ppv()),
            ppv_df: None,
            npv: value(counts.npv()),
            npv_interval: wilson(counts.npv()),
            npv_df: None,
            f1: counts.f1(),
            mcc: counts.mcc(),
            balanced_accuracy: counts.balanced_accuracy(),
        }
    }

    /// Replaces the intervals by those with the patient as the unit.
    fn take_patients(&mut self, rates: &ClusteredRates) {
        let of = |rate: Option<ClusteredProportion>| {
            let interval = rate.and_then(|rate| rate.wilson(Level::P95)).map(ends);
            (interval, rate.and_then(|rate| rate.degrees_of_freedom))
        };
        self.by_patient = true;
        (self.sensitivity_interval, self.sensitivity_df) = of(rates.sensitivity);
        (self.specificity_interval, self.specificity_df) = of(rates.specificity);
        (self.ppv_interval, self.ppv_df) = of(rates.ppv);
        (self.npv_interval, self.npv_df) = of(rates.npv);
    }
}

fn macro_summary(
    evaluation: &Evaluation,
    labels: &[LabelScores],
    patients: Option<&[u64]>,
    options: &SummaryOptions,
) -> Result<MacroSummary, RunError> {
    let mut summary = MacroSummary {
        auc: None,
        auc_se: None,
        auc_df: None,
        auc_interval: None,
        by_patient: patients.is_some(),
        approximate: false,
        no_interval: Some(NoInterval::OneClass),
        average_precision: None,
        n_labels: 0,
        without: options.without.clone(),
        bootstrap: None,
    };
    let Some(data) = labels_of_the_mean(evaluation, labels, &options.without)? else {
        return Ok(summary);
    };
    let Some(mean) = data.macro_auc_estimate(patients)? else {
        return Ok(summary);
    };
    summary.n_labels = mean.mean.n_labels;
    summary.auc = Some(mean.mean.value);
    summary.auc_se = mean.standard_error;
    summary.auc_df = mean.degrees_of_freedom;
    summary.auc_interval = mean.interval(Level::P95).map(ends);
    summary.approximate = mean.is_approximate();
    summary.no_interval = mean.undefined().map(Into::into);
    summary.average_precision = data.macro_average_precision().map(|mean| mean.value);
    if let Some(resampling) = options.resampling {
        let config = resampling.config();
        let estimate = bootstrap(&data, patients, &config, |resample| resample.macro_auc())?;
        summary.auc_interval = estimate.and_then(|estimate| estimate.interval).map(ends);
        summary.bootstrap = estimate.map(|estimate| BootstrapSummary {
            resampling,
            skipped: estimate.skipped,
            by_patient: patients.is_some(),
        });
    }
    Ok(summary)
}

/// The labels that have an AUC and are not to be left out; `None` when that is none.
pub(crate) fn labels_of_the_mean(
    evaluation: &Evaluation,
    labels: &[LabelScores],
    without: &[String],
) -> Result<Option<MultiLabel>, MetricError> {
    let known: Vec<&str> = evaluation
        .data()
        .label_names()
        .chain(evaluation.labels_without_scores())
        .collect();
    if let Some(label) = without
        .iter()
        .find(|label| !known.contains(&label.as_str()))
    {
        let known = known.into_iter().map(str::to_owned).collect();
        return Err(MetricError::UnknownLabel {
            label: label.clone(),
            known,
        });
    }
    let kept: Vec<&str> = labels
        .iter()
        .filter(|label| label.auc.is_some() && !without.contains(&label.label))
        .map(|label| label.label.as_str())
        .collect();
    if kept.is_empty() {
        Ok(None)
    } else {
        evaluation.data().select(&kept).map(Some)
    }
}

impl Resampling {
    pub(crate) fn config(self) -> BootstrapConfig {
        BootstrapConfig {
            replicates: self.replicates,
            seed: self.seed,
            ..Default::default()
        }
    }
}

/// An interval as result files have it: `[lower, upper]`.
pub fn ends(interval: Interval) -> [f64; 2] {
    [interval.lower, interval.upper]
}
