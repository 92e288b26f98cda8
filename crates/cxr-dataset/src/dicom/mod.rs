//! DICOM files to grey pixels, and which of them are refused.
//!
//! A file goes through four steps: its [`container`] (preamble, meta group, deflation) gives a [`data_set`], whose
//! attributes say whether it is a frontal radiograph ([`acceptance`]); its [`pixels`] are decoded to stored values,
//! and [`shading`] says what grey they are shown in.
//!
//! An attribute that is absent or empty has its default. One that is there and is not understood is an error that
//! names it and its value, and never taken for absent: a window that is left out shows another image.

mod acceptance;
mod attributes;
mod container;
mod data_set;
mod fault;
mod jpeg_2000;
mod jpeg_ls;
mod jpeg_xl;
mod patient;
mod pixels;
mod rle;
mod shading;

use std::path::Path;

use dicom_dictionary_std::tags;

use crate::tone::{Shades, Tone};
use crate::{DatasetError, GrayImage, ImageAttributes, ImageWarning};
use container::Container;
use data_set::DataSet;
use fault::Fault;
use pixels::Stored;
use shading::Shading;

/// A DICOM file that was read.
pub(crate) struct Dicom {
    pub(crate) image: GrayImage,
    /// How its pixels are stored, such as `MONOCHROME2 12 of 16 bits`.
    pub(crate) mode: String,
    pub(crate) warnings: Vec<ImageWarning>,
    /// PatientID.
    pub(crate) patient: Option<String>,
    /// StudyInstanceUID.
    pub(crate) study: Option<String>,
    pub(crate) attributes: ImageAttributes,
}

/// What is read of a file before its pixels are made grey.
struct Parts {
    stored: Stored,
    shading: Shading,
    mode: String,
    warnings: Vec<ImageWarning>,
    patient: Option<String>,
    study: Option<String>,
    attributes: ImageAttributes,
}

pub(crate) fn decode(bytes: &[u8], origin: &Path, tone: Tone) -> Result<Dicom, DatasetError> {
    let read = || -> Result<Parts, Fault> {
        let container = Container::open(bytes)?;
        let (data_set, n_trailing) = DataSet::read(&container.data_set, container.encoding)?;
        let mut warnings = acceptance::check(&data_set, container.sop_class.as_deref())?;
        if n_trailing > 0 {
            warnings.push(ImageWarning::TrailingBytes {
                n_bytes: n_trailing,
            });
        }
        let (attributes, not_understood) = patient::read(&data_set)?;
        warnings.extend(not_understood);
        let stored = Stored::read(&data_set, container.pixels)?;
        let shading = Shading::read(&data_set, &stored)?;
        let photometric = attributes::text(&data_set, tags::PHOTOMETRIC_INTERPRETATION)?;
        let (allocated, declared) = stored.declared_bits;
        let mode = format!(
            "{} {declared} of {allocated} bits",
            photometric.unwrap_or_default()
        );
        Ok(Parts {
            stored,
            shading,
            mode,
            warnings,
            patient: attributes::text(&data_set, tags::PATIENT_ID)?,
            study: attributes::text(&data_set, tags::STUDY_INSTANCE_UID)?,
            attributes,
        })
    };
    let Parts {
        stored,
        shading,
        mode,
        mut warnings,
        patient,
        study,
        attributes,
    } = read().map_err(|fault| fault.into_error(origin))?;
    let padding = shading.padding;
    let shades = Shades {
        gray: &shading.gray,
        inverted: shading.inverted,
        is_padding: &|word| {
            padding.is_some_and(|(first, last)| (first..=last).contains(&stored.value(word)))
        },
    };
    let (pixels, narrow) = shades.apply(&stored.words, tone);
    warnings.extend(narrow);
    let (width, height) = (usize::from(stored.width), usize::from(stored.height));
    Ok(Dicom {
        image: GrayImage::new(width, height, pixels)?,
        mode,
        warnings,
        patient,
        study,
        attributes,
    })
}
