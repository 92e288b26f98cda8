//! Age, sex and view, as a DICOM file gives them.

use dicom_dictionary_std::tags;

use super::acceptance::words;
use super::attributes::{items, text};
use super::data_set::DataSet;
use super::fault::Fault;
use crate::name::excerpt;
use crate::record::{Age, Sex, ViewPosition};
use crate::{ImageAttributes, ImageWarning};

/// PatientAge, PatientSex, and ViewPosition or, without it, ViewCodeSequence; what is there and not understood is a warning.
/// A view that is not understood is warned of where the file is accepted, and is [`ViewPosition::Other`] here.
pub(super) fn read(data_set: &DataSet<'_>) -> Result<(ImageAttributes, Vec<ImageWarning>), Fault> {
    let mut warnings = Vec::new();
    let mut attributes = ImageAttributes {
        view: view(data_set)?,
        ..ImageAttributes::default()
    };
    if let Some(age) = text(data_set, tags::PATIENT_AGE)? {
        match Age::parse(&age) {
            Some(age) => attributes.age_years = Some(age.years),
            None => warnings.push(ImageWarning::UnknownAge { age: excerpt(&age) }),
        }
    }
    if let Some(sex) = text(data_set, tags::PATIENT_SEX)? {
        match Sex::parse(&sex) {
            Ok(sex) => attributes.sex = sex,
            Err(()) => warnings.push(ImageWarning::UnknownSex { sex: excerpt(&sex) }),
        }
    }
    Ok((attributes, warnings))
}

fn view(data_set: &DataSet<'_>) -> Result<Option<ViewPosition>, Fault> {
    if let Some(position) = text(data_set, tags::VIEW_POSITION)? {
        return Ok(Some(view_of_text(&position)));
    }
    let mut view = None;
    for item in items(data_set, tags::VIEW_CODE_SEQUENCE)? {
        let meaning = text(item, tags::CODE_MEANING)?.unwrap_or_default();
        let mut code = None;
        for tag in [
            tags::CODE_VALUE,
            tags::LONG_CODE_VALUE,
            tags::URN_CODE_VALUE,
        ] {
            code = code.or(text(item, tag)?);
        }
        // PS3.16's context group 4010, in SNOMED CT's numbers or those of SNOMED RT before them.
        let found = match code.as_deref() {
            Some("399348003" | "R-10206") => ViewPosition::AnteroPosterior,
            Some("272479007" | "R-10214") => ViewPosition::PosteroAnterior,
            Some("399033003" | "R-10202") => ViewPosition::Frontal,
            _ => view_of_text(&meaning),
        };
        // Several that contradict each other are no view.
        view = match view {
            None => Some(found),
            Some(before) if before == found => Some(found),
            Some(_) => Some(ViewPosition::Other),
        };
    }
    Ok(view)
}

/// A view of a frontal radiograph in words such as `PA`, `AP SUPINE` or `postero-anterior`.
fn view_of_text(text: &str) -> ViewPosition {
    let words = words(text);
    let has = |known: &[&str]| words.iter().any(|word| known.contains(&word.as_str()));
    let begins_with = |first: &str, second: &str| {
        let mut pairs = words.iter().zip(words.iter().skip(1));
        pairs.any(|(one, other)| one == first && other == second)
    };
    let ap = has(&["AP", "ANTEROPOSTERIOR"]) || begins_with("ANTERO", "POSTERIOR");
    let pa = has(&["PA", "POSTEROANTERIOR"]) || begins_with("POSTERO", "ANTERIOR");
    match (ap, pa) {
        (true, false) => ViewPosition::AnteroPosterior,
        (false, true) => ViewPosition::PosteroAnterior,
        (true, true) => ViewPosition::Frontal,
        (false, false) if has(&["FRONTAL", "FRONT"]) => ViewPosition::Frontal,
        (false, false) => ViewPosition::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_read_in_the_words_of_machines() {
        for (text, expected) in [
            ("PA", ViewPosition::PosteroAnterior),
            ("AP SUPINE", ViewPosition::AnteroPosterior),
            ("CHEST, POSTERO-ANTERIOR", ViewPosition::PosteroAnterior),
            ("antero-posterior", ViewPosition::AnteroPosterior),
            ("AP/PA", ViewPosition::Frontal),
            ("FRONTAL", ViewPosition::Frontal),
            ("LLD", ViewPosition::Other),
            ("CLAPPED", ViewPosition::Other),
        ] {
            assert_eq!(view_of_text(text), expected, "{text}");
        }
    }
}
