//! Whether two models differ: paired tests per label and of the mean, on the same images.

use cxr_metrics::{Level, PairedTest, holm_defined, paired_bootstrap};
use serde::{Deserialize, Serialize};

use crate::summary::{ends, note};
use crate::{BootstrapSummary, Evaluation, LeftOut, NoInterval, Resampling, RunError};

/// What to compute beyond the paired tests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ComparisonOptions {
    /// Takes the patient, not the image, as the unit of tests and bootstrap.
    pub by_patient: bool,
    /// Labels to leave out of the mean.
    pub without: Vec<String>,
    /// Takes the interval of the difference in mean AUC from a bootstrap instead of its closed form.
    pub resampling: Option<Resampling>,
}

/// Two models side by side. Serialises to the JSON of `cxr compare`; undefined values are `null`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// One entry per label, in the order of the label table.
    pub labels: Vec<LabelComparison>,
    /// The means over labels.
    #[serde(rename = "macro")]
    pub means: MacroComparison,
    /// Whether the unit of tests and bootstrap is the patient.
    pub by_patient: bool,
    /// The images that both models score.
    pub n_images: usize,
    /// Their patients; `None` when not every image's is known.
    pub n_patients: Option<usize>,
    /// What tests that take images as independent are worth here; `None` when the unit is the patient,
    /// or every patient has one image.
    #[serde(default)]
    pub note: Option<String>,
    /// What was left out, where that was allowed.
    pub left_out: LeftOut,
}

/// One label's AUCs and the paired test between them (DeLong 1988, by patient Obuchowski 1997).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelComparison {
    /// The label's name.
    pub label: String,
    /// The first model's AUC; `None` when a class is absent.
    pub auc_a: Option<f64>,
    /// The second model's.
    pub auc_b: Option<f64>,
    /// First minus second.
    pub difference: Option<f64>,
    /// Standard error of the difference.
    pub se: Option<f64>,
    /// Its degrees of freedom; `None` without an error, or where it is 0.
    pub df: Option<f64>,
    /// `[lower, upper]` of the difference at 95 %; `None` where the p-value is.
    pub interval: Option<[f64; 2]>,
    /// Two-sided p-value of the score test ([`cxr_metrics::HypothesisVariance`]).
    pub p_value: Option<f64>,
    /// Whether both are approximate: fewer than 10 degrees of freedom.
    #[serde(default)]
    pub approximate: bool,
    /// Why there is no p-value; `None` when there is one.
    pub no_interval: Option<NoInterval>,
    /// The same after Holm's correction for all labels that have one.
    pub p_value_holm: Option<f64>,
}

/// Mean AUCs over the labels that have both classes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MacroComparison {
    /// The first model's mean AUC.
    pub auc_a: Option<f64>,
    /// The second model's.
    pub auc_b: Option<f64>,
    /// First minus second.
    pub difference: Option<f64>,
    /// Standard error of the difference in closed form, with the unit of the tests.
    pub se: Option<f64>,
    /// Its degrees of freedom.
    pub df: Option<f64>,
    /// Its 95 % interval: from the error, or, where [`Self::bootstrap`] says so, from percentiles.
    pub interval: Option<[f64; 2]>,
    /// Two-sided p-value of Student's t, from the error.
    pub p_value: Option<f64>,
    /// Whether interval and p-value are approximate: fewer than 10 degrees of freedom.
    #[serde(default)]
    pub approximate: bool,
    /// Why there is no p-value; `None` when there is one.
    pub no_interval: Option<NoInterval>,
    /// Over how many labels.
    pub n_labels: usize,
    /// The labels that were left out of the mean by wish.
    pub without: Vec<String>,
    /// The bootstrap that the interval is from, if one was asked for.
    pub bootstrap: Option<BootstrapSummary>,
}

impl Comparison {
    /// Compares two models that were [joined](Evaluation::join_all) on the same images.
    ///
    /// # Errors
    /// [`RunError::PatientUnknown`] for tests by patient when one is not known, and
    /// [`cxr_metrics::MetricError`] for different images or an unknown label to leave out.
    pub fn new(
        a: &Evaluation,
        b: &Evaluation,
        options: &ComparisonOptions,
    ) -> Result<Self, RunError> {
        let patients = if options.by_patient {
            Some(a.patients()?)
        } else {
            None
        };
        let tests = a.data().paired_per_label(b.data(), patients)?;
        let p_values: Vec<Option<f64>> = tests.iter().map(|test| (*test)?.p_value).collect();
        let adjusted = holm_defined(&p_values)?;
        let compare =
            |((label, test), &p_value_holm): ((&str, &Option<PairedTest>), _)| LabelComparison {
                label: label.to_owned(),
                auc_a: test.map(|test| test.auc_a),
                auc_b: test.map(|test| test.auc_b),
                difference: test.map(|test| test.difference),
                se: test.and_then(|test| test.standard_error),
                df: test.and_then(|test| test.degrees_of_freedom),
                interval: test.and_then(|test| test.interval(Level::P95)).map(ends),
                p_value: test.and_then(|test| test.p_value),
                approximate: test.is_some_and(|test| test.is_approximate()),
                no_interval: match test {
                    None => Some(NoInterval::OneClass),
                    Some(test) => test.undefined().map(Into::into),
                },
                p_value_holm,
            };
        let tested = a.data().label_names().zip(&tests).zip(&adjusted);
        let labels = tested.map(compare).collect();
        Ok(Self {
            labels,
            means: compare_means(a, b, patients, options)?,
            by_patient: options.by_patient,
            n_images: a.data().n_images(),
            n_patients: a.n_patients(),
            note: note(options.by_patient, a.data().n_images(), a.n_patients()),
            left_out: a.left_out().clone(),
        })
    }
}

fn compare_means(
    a: &Evaluation,
    b: &Evaluation,
    patients: Option<&[u64]>,
    options: &ComparisonOptions,
) -> Result<MacroComparison, RunError> {
    let mut means = MacroComparison {
        auc_a: None,
        auc_b: None,
        difference: None,
        se: None,
        df: None,
        interval: None,
        p_value: None,
        approximate: false,
        no_interval: Some(NoInterval::OneClass),
        n_labels: 0,
        without: options.without.clone(),
        bootstrap: None,
    };
    let of_a = a.labels_of_the_mean(&options.without)?;
    let of_b = b.labels_of_the_mean(&options.without)?;
    let (Some(of_a), Some(of_b)) = (of_a, of_b) else {
        return Ok(means);
    };
    let Some(mean) = of_a.paired_macro_auc(&of_b, patients)? else {
        return Ok(means);
    };
    let test = mean.test;
    means.n_labels = mean.n_labels;
    means.auc_a = Some(test.auc_a);
    means.auc_b = Some(test.auc_b);
    means.difference = Some(test.difference);
    means.se = test.standard_error;
    means.df = test.degrees_of_freedom;
    means.interval = test.interval(Level::P95).map(ends);
    means.p_value = test.p_value;
    means.approximate = test.is_approximate();
    means.no_interval = test.undefined().map(Into::into);
    if let Some(resampling) = options.resampling {
        let config = resampling.config();
        let macro_auc = |resample: &cxr_metrics::Resample<'_>| resample.macro_auc();
        let estimate = paired_bootstrap(&of_a, &of_b, patients, &config, macro_auc)?;
        means.interval = estimate.and_then(|estimate| estimate.interval).map(ends);
        means.bootstrap = estimate.map(|estimate| BootstrapSummary {
            resampling,
            skipped: estimate.skipped,
            by_patient: patients.is_some(),
        });
    }
    Ok(means)
}
