//! Synthetic chest X-rays with drawn findings, written in ChestX-ray14's own files.
//!
//! A [`Cohort`] plans patients, follow-ups and recorded findings from a [`PhantomConfig`]; each [`Study`] of
//! it can be rendered; [`write_dataset`] writes them all as NIH ChestX-ray14 is written, so that software
//! which reads the original reads the phantoms, with no download and nobody's data.
//!
//! # What is drawn
//! Path lengths through a parametric chest, in millimetres of water along the beam: body, lungs, heart and
//! vessels, ribs and spine, then each finding's radiological sign, then the film with its grey scale and
//! grain. Sizes are a patient's: a nodule is below 30 mm, a mass above.
//!
//! # What it never does
//! It trains nothing, reads no image and no network, and keeps no generator state: every draw comes from
//! ChaCha8 keyed with SHA-256 of its purpose, the seed and the image's or patient's name. The same
//! configuration gives the same bytes for every number of threads. Nothing about
//! how an image was taken ([`Nuisance`]) depends on a finding. The images show nobody, and no medical
//! question can be answered with them.
//!
//! ```
//! use std::sync::atomic::AtomicBool;
//! use cxr_phantom::{ListSize, PhantomConfig, write_dataset};
//!
//! let size = ListSize { images: 12, least_positives: 1 };
//! let config = PhantomConfig::new(1, size, size)?.with_side(64)?;
//! let folder = tempfile::tempdir()?;
//! let summary = write_dataset(&config, folder.path(), &|_| (), &AtomicBool::new(false))?;
//! assert_eq!(summary.images, 24);
//! assert!(folder.path().join("Data_Entry_2017_v2020.csv").exists());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod anatomy;
mod bones;
mod chest;
mod cohort;
mod config;
mod drawing;
mod error;
mod extras;
mod field;
mod film;
mod finding;
mod layout;
mod math;
mod projection;
mod questions;
mod random;
mod signs;
mod study;
mod vessels;
mod write;

pub use cohort::Cohort;
pub use config::{Labels, ListSize, PhantomConfig};
pub use drawing::{FindingBox, Radiograph};
pub use error::PhantomError;
pub use finding::{Finding, FindingSet};
pub use layout::Layout;
pub use questions::NUISANCE_QUESTIONS;
pub use study::{List, Nuisance, Sex, Study, View};
pub use write::{Progress, Summary, remove_dataset, write_dataset};

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
