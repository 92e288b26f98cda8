//! One label's logits beside the truth: what calibrations and thresholds are fitted on, and what they give on other images.

use cxr_metrics::{
    Binning, ClusteredProportion, ClusteredRates, CoxCalibration, Forecast, Level, MetricError,
    Scored, brier, expected_calibration_error, logit, sigmoid,
};
use cxr_run::{Evaluation, Predictions, RunError, ScoreKind, Truth, Unscorable};
use serde::Serialize;

use crate::{CalibrationMethod, LabelCalibration, ModelError, ThresholdRule};

/// How calibration errors are binned, as `cxr score` does it.
const BINS: Binning = Binning::EqualWidth(15);

/// The logits of one label over the images of which it is known whether they have it.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    logits: Vec<f32>,
    labels: Vec<bool>,
    /// Which patient each image is of; `None` where one is not known.
    patients: Option<Vec<u64>>,
}

/// What was fitted for a label.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FittedLabel {
    /// Images that it was fitted on.
    pub images: usize,
    /// Those of them that have the label.
    pub positives: usize,
    /// How logits become probabilities.
    pub calibration: LabelCalibration,
    /// The logit above which the label is called.
    pub threshold_logit: f32,
    /// Why something is as it was before; `None` where all that was asked for is fitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_fitted: Option<NotFitted>,
}

/// Why a label keeps what it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NotFitted {
    /// A class is absent.
    #[error("no images with it and without it to fit on; it is as before")]
    OneClass,
    /// No temperature makes its logits more likely.
    #[error("no temperature fits; its probabilities are as before")]
    NoTemperature,
    /// No threshold reaches the rate that was asked for.
    #[error("no threshold reaches what was asked for; it is as before")]
    NoThreshold,
}

/// What a calibration and a threshold give on images that took no part in the fitting.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TestedLabel {
    /// Images that it was tested on.
    pub images: usize,
    /// Those of them that have the label.
    pub positives: usize,
    /// Whether intervals take the patient as the unit.
    pub by_patient: bool,
    /// Share of the positives that is called.
    pub sensitivity: Option<TestedRate>,
    /// Share of the negatives that is not called.
    pub specificity: Option<TestedRate>,
    /// Share of the called that is positive.
    pub ppv: Option<TestedRate>,
    /// Share of the not called that is negative.
    pub npv: Option<TestedRate>,
    /// Brier score of the logits' sigmoids.
    pub brier_before: f64,
    /// Brier score of the calibrated probabilities.
    pub brier: f64,
    /// Expected calibration error before, in 15 bins of equal width.
    pub ece_before: f64,
    /// The same of the calibrated probabilities.
    pub ece: f64,
    /// Slope, intercept and calibration in the large of the calibrated probabilities: 1, 0 and 0 where they are right. `None`
    /// where there is no such line ([`CoxCalibration::fit`]), or a probability is 0 or 1.
    pub cox: Option<CoxCalibration>,
}

/// A rate with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TestedRate {
    /// The rate.
    pub value: f64,
    /// Wilson's interval for the effective number of images.
    pub interval: Option<[f64; 2]>,
    /// Its degrees of freedom.
    pub df: Option<f64>,
    /// Whether these are fewer than ten.
    pub approximate: bool,
}

impl Observed {
    /// What predictions say of each of a model's labels, where the truth is known. Probabilities become logits again.
    ///
    /// # Errors
    /// An image or a label that predictions or truth lack, or a probability that is not in (0, 1) and has no logit.
    pub fn of_labels(
        labels: &[String],
        predictions: &Predictions,
        truth: &Truth,
    ) -> Result<Vec<Self>, ModelError> {
        let optional: Vec<String> = (truth.labels().iter())
            .filter(|label| !labels.contains(label))
            .cloned()
            .collect();
        let evaluation = Evaluation::join(predictions, truth, &optional, Unscorable::Refuse)?;
        let of_label = |label: &String| -> Result<Self, ModelError> {
            let data = evaluation.data();
            let scored = match data.scored(label) {
                Err(MetricError::Empty) => return Ok(Self::empty()),
                other => other.map_err(RunError::from)?,
            };
            let patients = evaluation.patients().ok();
            let patients = patients.map(|patients| data.clusters_of(label, patients));
            let column = predictions
                .columns()
                .iter()
                .find(|column| column.label == *label);
            let is_logit = column.is_some_and(|column| column.kind == ScoreKind::Logit);
            let mut logits = Vec::with_capacity(scored.len());
            for score in scored.scores().iter() {
                let is_probability = score > 0. && score < 1.;
                logits.push(match (is_logit, is_probability) {
                    (true, _) => score as f32,
                    (false, true) => logit(score) as f32,
                    (false, false) => {
                        return Err(RunError::setting(
                            &format!("prob_{label}"),
                            "a probability between 0 and 1, both excluded",
                            score,
                        )
                        .into());
                    }
                });
            }
            Ok(Self {
                logits,
                labels: scored.labels().to_vec(),
                patients: patients.transpose().map_err(RunError::from)?,
            })
        };
        labels.iter().map(of_label).collect()
    }

    fn empty() -> Self {
        Self {
            logits: Vec::new(),
            labels: Vec::new(),
            patients: None,
        }
    }

    /// How many images there are.
    pub fn n_images(&self) -> usize {
        self.labels.len()
    }

    /// How many of them have the label.
    pub fn n_positives(&self) -> usize {
        self.labels.iter().filter(|&&is_there| is_there).count()
    }

    /// Fits a calibration, and a threshold where there is a rule; without one, and where none can be chosen, it is `kept`.
    ///
    /// # Errors
    /// A rule whose rate is not in [0, 1].
    pub fn fit(
        &self,
        method: CalibrationMethod,
        rule: Option<ThresholdRule>,
        kept: f32,
    ) -> Result<FittedLabel, ModelError> {
        let mut fitted = FittedLabel {
            images: self.n_images(),
            positives: self.n_positives(),
            calibration: LabelCalibration::None {},
            threshold_logit: kept,
            not_fitted: None,
        };
        if fitted.positives == 0 || fitted.positives == fitted.images {
            fitted.not_fitted = Some(NotFitted::OneClass);
            return Ok(fitted);
        }
        let scored = Scored::new(&self.logits, &self.labels).map_err(RunError::from)?;
        match LabelCalibration::fit(method, scored) {
            Some(calibration) => fitted.calibration = calibration,
            None => fitted.not_fitted = Some(NotFitted::NoTemperature),
        }
        if let Some(rule) = rule {
            match rule.choose(scored).map_err(RunError::from)? {
                Some(threshold) => fitted.threshold_logit = threshold,
                None => fitted.not_fitted = Some(NotFitted::NoThreshold),
            }
        }
        Ok(fitted)
    }

    /// The rates of calling what is above a threshold, by patient where all are known; `None` without images.
    ///
    /// # Errors
    /// Those of [`ClusteredRates::of_calls`], which do not occur.
    pub fn rates(&self, threshold: f32) -> Result<Option<ClusteredRates>, ModelError> {
        if self.logits.is_empty() {
            return Ok(None);
        }
        let called: Vec<bool> = self.logits.iter().map(|&logit| logit > threshold).collect();
        let images: Vec<u64>;
        let clusters = match &self.patients {
            Some(patients) => patients,
            None => {
                images = (0..called.len() as u64).collect();
                &images
            }
        };
        let rates = ClusteredRates::of_calls(&called, &self.labels, clusters);
        Ok(Some(rates.map_err(RunError::from)?))
    }

    /// What a calibration and a threshold give on these images; `None` without images.
    ///
    /// # Errors
    /// A calibration that [does not check](LabelCalibration::check).
    pub fn test(
        &self,
        calibration: &LabelCalibration,
        threshold: f32,
    ) -> Result<Option<TestedLabel>, ModelError> {
        let Some(rates) = self.rates(threshold)? else {
            return Ok(None);
        };
        let probabilities = |of: &dyn Fn(f64) -> f64| -> Vec<f64> {
            let logits = self.logits.iter().map(|&logit| f64::from(logit));
            logits.map(of).collect()
        };
        let before = probabilities(&sigmoid);
        let after = probabilities(&|logit| calibration.probability(logit));
        let forecast = |of: &[f64]| -> Result<(f64, f64), MetricError> {
            let forecast = Forecast::new(of, &self.labels)?;
            Ok((brier(forecast), expected_calibration_error(forecast, BINS)?))
        };
        let (brier_before, ece_before) = forecast(&before).map_err(RunError::from)?;
        let (brier, ece) = forecast(&after).map_err(RunError::from)?;
        let logits: Vec<f64> = after.iter().map(|&p| logit(p)).collect();
        let cox = match logits.iter().all(|logit| logit.is_finite()) {
            true => {
                let scored = Scored::new(&logits, &self.labels).map_err(RunError::from)?;
                CoxCalibration::fit(scored, self.patients.as_deref()).map_err(RunError::from)?
            }
            false => None,
        };
        Ok(Some(TestedLabel {
            images: self.n_images(),
            positives: self.n_positives(),
            by_patient: self.patients.is_some(),
            sensitivity: rates.sensitivity.map(TestedRate::of),
            specificity: rates.specificity.map(TestedRate::of),
            ppv: rates.ppv.map(TestedRate::of),
            npv: rates.npv.map(TestedRate::of),
            brier_before,
            brier,
            ece_before,
            ece,
            cox,
        }))
    }
}

impl TestedRate {
    fn of(rate: ClusteredProportion) -> Self {
        let ends = rate.wilson(Level::P95);
        Self {
            value: rate.proportion.value(),
            interval: ends.map(|ends| [ends.lower, ends.upper]),
            df: rate.degrees_of_freedom,
            approximate: rate.is_approximate(),
        }
    }
}
