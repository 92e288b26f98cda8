//! Tables, figures and the page of a report, and the numbers they show.
//!
//! - [`predictions`]: anybody's predictions, one row per image and one column per label;
//! - [`evaluation`]: predictions joined with the truth, image by image;
//! - [`summary`]: every metric of one model, as JSON;
//! - [`comparison`]: paired tests between two models, as JSON;
//! - [`run`]: the facts of a run, as its folder keeps them; [`labels`]: the labels of its images;
//!   [`explanations`]: its heat maps;
//! - [`evidence`]: what a report computes of predictions: curves, paired tests, intervals;
//! - [`published`]: the figures of the paper; [`ranks`]: which cell of a row is best;
//! - [`tables`]: the paper's tables from runs, beside the published ones;
//! - [`figures`]: the paper's figures as SVG and PNG;
//! - [`report`]: an experiment's folder read and its report written, as Markdown and as a page.
//!
//! It never loads a network or an image, and never decides what is true: labels come from the caller.
//!
//! ```
//! use cxr_report::evaluation::{Evaluation, Truth};
//! use cxr_report::predictions::{Predictions, Unscorable};
//! use cxr_report::summary::{Summary, SummaryOptions};
//!
//! let csv = "image,prob_Mass\n1.png,0.9\n2.png,0.2\n3.png,0.4\n";
//! let predictions = Predictions::from_reader(csv.as_bytes(), "model.csv", Unscorable::Refuse)?;
//! let mut truth = Truth::new(["Mass"]);
//! for (image, mass) in [("1.png", true), ("2.png", false), ("3.png", true)] {
//!     truth.add(image, [Some(mass)], None)?;
//! }
//! let evaluation = Evaluation::join(&predictions, &truth, &[], Unscorable::Refuse)?;
//! let summary = Summary::new(&evaluation, &SummaryOptions::default())?;
//! assert_eq!(summary.means.auc, Some(1.0));
//! # Ok::<(), cxr_report::ReportError>(())
//! ```

pub mod comparison;
mod document;
mod error;
pub mod evaluation;
pub mod evidence;
pub mod explanations;
pub mod figures;
mod html;
pub mod labels;
mod markdown;
pub mod predictions;
pub mod published;
pub mod ranks;
pub mod report;
pub mod run;
mod story;
pub mod summary;
pub mod tables;

pub use error::ReportError;
