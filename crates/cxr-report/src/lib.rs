//! Tables, figures and the page of a report, made from the folders of runs.
//!
//! - [`explanations`]: a run's heat maps;
//! - [`evidence`]: what a report computes of predictions: curves, paired tests, intervals;
//! - [`paper`]: what is the paper's alone, its figures in print; [`ranks`]: which cell of a row is best;
//! - [`tables`]: the paper's tables from runs, beside the published ones;
//! - [`figures`]: the paper's figures as SVG and PNG;
//! - [`card`]: a model's page for a hub;
//! - [`report`]: an experiment's folder read and its report written, as Markdown and as a page.
//!
//! What a run's folder says is read by [`cxr_run`]. A report needs no network, no image and no data set: labels are in
//! the run's folder.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use cxr_report::report::Report;
//!
//! let runs = Path::new("models/runs/demo");
//! let report = Report::read(runs)?;
//! for path in report.write(runs)? {
//!     println!("{}", path.display());
//! }
//! # Ok::<(), cxr_report::ReportError>(())
//! ```

pub mod card;
mod document;
mod error;
pub mod evidence;
pub mod explanations;
pub mod figures;
mod html;
mod markdown;
pub mod paper;
pub mod ranks;
pub mod report;
mod sections;
pub mod tables;

pub use error::ReportError;

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
