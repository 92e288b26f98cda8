//! AUC, ROC, PR, intervals, paired tests, calibration and operating points, for one label and for
//! many: the statistics of a multi-label classifier, exact and fast, on plain slices.
//!
//! - **Ranking**: [`roc_auc`], [`partial_auc`], [`average_precision`], [`roc_curve`], [`pr_curve`].
//! - **Uncertainty**: [`delong`], [`clustered_delong`] for several images of one patient,
//!   [`paired_delong`], [`MultiLabel::macro_auc_estimate`], all with the degrees of freedom that few
//!   positive patients leave; [`bootstrap`] of any statistic by image or by patient, [`holm`].
//! - **Decisions**: [`Confusion`] with Wilson intervals, [`ClusteredRates`] for several images of one
//!   patient, [`OperatingRule`].
//! - **Calibration**: [`brier`], [`expected_calibration_error`], [`reliability`],
//!   [`TemperatureScaling`], [`PlattScaling`], [`IsotonicRegression`], [`CoxCalibration`] (slope and intercept),
//!   [`PrevalenceShift`].
//! - **Many labels**: [`MultiLabel`], with unknown labels, subsets of labels and means that say over
//!   how many labels they were taken.
//!
//! It never reads files or images, knows no tensors, prints nothing, and never answers a question
//! that has no answer: malformed input is an [`Err`] that names the place, a quantity that is
//! undefined because one class is absent is [`None`], never 0, 0.5 or NaN.
//!
//! ```
//! use cxr_metrics::{Level, Scored, clustered_delong, roc_auc};
//!
//! let scores = [0.92, 0.81, 0.40, 0.75, 0.33, 0.61, 0.20, 0.12];
//! let effusion = [true, true, true, false, true, false, false, false];
//! let patients = [1, 1, 2, 3, 4, 5, 5, 6];
//!
//! let scored = Scored::new(&scores, &effusion)?;
//! assert_eq!(roc_auc(scored), Some(0.75));
//! let estimate = clustered_delong(scored, &patients)?.unwrap();
//! let interval = estimate.interval(Level::P95).unwrap();
//! assert!(interval.lower > 0.0 && interval.contains(0.75) && interval.upper < 1.0);
//! # Ok::<(), cxr_metrics::MetricError>(())
//! ```
//!
//! # Features
//! None is on by default, and then the crate depends on `thiserror` alone.
//! - `serde`: results and configurations serialise; undefined values become `null` in JSON, and so
//!   does the infinite threshold that calls nothing positive.
//! - `rayon`: [`bootstrap`] uses all threads, with the same result to the bit.
//!
//! # Exactness
//! AUCs are counted in integers and divided once. Everything else adds `f64` in the order of the
//! images, so a result is a function of its input alone. Scores are `f32` or `f64` ([`Scores`]), and
//! only equal ones are a tie.

mod bootstrap;
mod calibration;
mod cluster_sums;
mod clustered_rates;
mod clusters;
mod cox;
mod curve;
mod decision;
mod delong;
mod error;
mod extreme;
mod holm;
mod hypothesis;
#[cfg(feature = "serde")]
mod infinite;
mod interval;
mod isotonic;
mod label_ranking;
mod logistic;
mod macro_mean;
mod multi_label;
mod normal;
mod operating_point;
mod prevalence;
mod random;
mod ranking;
mod satterthwaite;
mod scaling;
mod scored;
mod sorted;
mod student;

pub use bootstrap::{
    BootstrapConfig, BootstrapEstimate, IntervalMethod, Resample, bootstrap, paired_bootstrap,
};
pub use calibration::{
    Binning, Forecast, ReliabilityBin, brier, expected_calibration_error, reliability,
};
pub use clustered_rates::{ClusteredProportion, ClusteredRates};
pub use clusters::clusters_of;
pub use cox::{Coefficient, CoxCalibration};
pub use curve::{PrCurve, PrPoint, RocCurve, RocPoint, pr_curve, roc_curve};
pub use decision::Confusion;
pub use delong::{
    APPROXIMATE_BELOW, AucEstimate, PairedTest, Undefined, clustered_delong, delong, paired_delong,
};
pub use error::MetricError;
pub use holm::{holm, holm_defined};
pub use hypothesis::HypothesisVariance;
pub use interval::{Interval, Level, Proportion};
pub use isotonic::IsotonicRegression;
pub use macro_mean::{MeanEstimate, MeanTest};
pub use multi_label::{LabelMean, LabelScores, MultiLabel};
pub use operating_point::{OperatingPoint, OperatingRule};
pub use prevalence::PrevalenceShift;
pub use ranking::{average_precision, partial_auc, roc_auc};
pub use scaling::{PlattScaling, TemperatureScaling, logit, sigmoid};
pub use scored::{Scored, Scores};

/// The README's example runs as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
