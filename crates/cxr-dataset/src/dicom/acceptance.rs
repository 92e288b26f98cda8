//! Which files are taken for frontal radiographs of the chest, and by what.
//!
//! A lateral or oblique view is refused whatever attribute names it. What no attribute names is taken: most files of
//! published sets name no view at all.

use dicom_dictionary_std::{tags, uids};

use super::attributes::{absent, integer, items, text};
use super::data_set::DataSet;
use super::fault::Fault;
use crate::ImageWarning;
use crate::name::excerpt;

/// What attributes say of the direction of the beam.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    /// Through the chest from front or back, the patient upright or lying, on a side (decubitus) too.
    Frontal,
    Lateral,
    Oblique,
    Unknown,
}

/// Refuses what is no frontal radiograph; returns what was not clear.
pub(super) fn check(
    data_set: &DataSet<'_>,
    meta_sop_class: Option<&str>,
) -> Result<Vec<ImageWarning>, Fault> {
    let mut warnings = Vec::new();
    let sop_class = text(data_set, tags::SOP_CLASS_UID)?;
    let sop_class = sop_class.as_deref().or(meta_sop_class);
    warnings.extend(check_modality(data_set, sop_class)?);
    let frames = integer(data_set, tags::NUMBER_OF_FRAMES, 0, u16::MAX)?;
    if let Some(frames) = frames.filter(|&frames| frames != 1) {
        return Err(Fault::NotARadiograph(format!("`{frames}` frames")));
    }
    warnings.extend(check_views(data_set)?);
    let photometric = text(data_set, tags::PHOTOMETRIC_INTERPRETATION)?
        .ok_or_else(|| absent(tags::PHOTOMETRIC_INTERPRETATION))?;
    if !matches!(photometric.as_str(), "MONOCHROME1" | "MONOCHROME2") {
        return Err(Fault::NotARadiograph(format!(
            "colour (`{}`)",
            excerpt(&photometric)
        )));
    }
    let part = text(data_set, tags::BODY_PART_EXAMINED)?;
    if let Some(part) = part.filter(|part| !is_chest(part)) {
        warnings.push(ImageWarning::OtherBodyPart {
            part: excerpt(&part),
        });
    }
    Ok(warnings)
}

/// Modality CR, DX or RG. Files that were stripped of it are taken by their class, or, where that is missing or is
/// Secondary Capture, by being one grey image, which the checks after this one find out.
fn check_modality(
    data_set: &DataSet<'_>,
    sop_class: Option<&str>,
) -> Result<Option<ImageWarning>, Fault> {
    match text(data_set, tags::MODALITY)?.as_deref() {
        Some("CR" | "DX" | "RG") => return Ok(None),
        Some(other) => {
            return Err(Fault::NotARadiograph(format!(
                "modality `{}`",
                excerpt(other)
            )));
        }
        None => {}
    }
    let taken_by = match sop_class {
        Some(uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE) => "its class, computed radiography",
        Some(
            uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION
            | uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PROCESSING,
        ) => "its class, digital X-ray",
        Some(uids::SECONDARY_CAPTURE_IMAGE_STORAGE) => "being one grey secondary capture",
        None => "being one grey image",
        Some(other) => {
            return Err(Fault::NotARadiograph(format!(
                "no modality, and the SOP class `{}`",
                excerpt(other)
            )));
        }
    };
    Ok(Some(ImageWarning::NoModality {
        taken_by: taken_by.to_owned(),
    }))
}

fn check_views(data_set: &DataSet<'_>) -> Result<Option<ImageWarning>, Fault> {
    let mut unknown = None;
    let mut judge = |view: View, named: &str, by: &str| -> Result<(), Fault> {
        let refused = match view {
            View::Frontal => return Ok(()),
            View::Unknown => {
                unknown.get_or_insert_with(|| excerpt(named));
                return Ok(());
            }
            View::Lateral => "a lateral view",
            View::Oblique => "an oblique view",
        };
        Err(Fault::NotARadiograph(format!(
            "{refused} (`{}`, {by})",
            excerpt(named)
        )))
    };
    let position = text(data_set, tags::VIEW_POSITION)?;
    if let Some(position) = &position {
        judge(view_of_text(position), position, "ViewPosition")?;
    }
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
        let code = code.unwrap_or_default();
        let named = format!("{code} {meaning}");
        // Code and meaning may contradict each other; a view that either calls lateral is refused.
        let views = [view_of_code(&code), view_of_text(&meaning)];
        let worst = [View::Lateral, View::Oblique, View::Frontal];
        let view = worst.into_iter().find(|view| views.contains(view));
        judge(
            view.unwrap_or(View::Unknown),
            named.trim(),
            "ViewCodeSequence",
        )?;
    }
    if let Some(orientation) = text(data_set, tags::PATIENT_ORIENTATION)? {
        // Where rows and columns point to. Seen from the front, neither points to front or back.
        let mut directions = orientation.split('\\').map(str::trim);
        if directions.any(|direction| direction.starts_with(['A', 'P'])) {
            judge(View::Lateral, &orientation, "PatientOrientation")?;
        }
    }
    // Free text decides only where it says lateral and nothing else: `CHEST PA AND LAT` names a whole study.
    for (tag, by) in [
        (tags::SERIES_DESCRIPTION, "SeriesDescription"),
        (tags::PROTOCOL_NAME, "ProtocolName"),
        (
            tags::ACQUISITION_DEVICE_PROCESSING_DESCRIPTION,
            "AcquisitionDeviceProcessingDescription",
        ),
    ] {
        if let Some(description) = text(data_set, tag)? {
            let view = match view_of_text(&description) {
                View::Lateral if !names_frontal(&description) => View::Lateral,
                View::Oblique if !names_frontal(&description) => View::Oblique,
                _ => View::Frontal,
            };
            judge(view, &description, by)?;
        }
    }
    Ok(unknown.map(|view| ImageWarning::UnknownView { view }))
}

/// The words of a text in capitals.
pub(super) fn words(text: &str) -> Vec<String> {
    let upper = text.to_uppercase();
    let parts = upper.split(|character: char| !character.is_alphanumeric());
    parts
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

const FRONTAL: [&str; 11] = [
    "AP",
    "PA",
    "FRONTAL",
    "FRONT",
    "ANTEROPOSTERIOR",
    "POSTEROANTERIOR",
    "ANTERO",
    "POSTERO",
    "LORDOTIC",
    "LLD",
    "RLD",
];

fn names_frontal(text: &str) -> bool {
    words(text)
        .iter()
        .any(|word| FRONTAL.contains(&word.as_str()))
}

/// The view that a text names, such as `PA`, `LL`, `XTABLE LATERAL` or `left lateral decubitus`.
fn view_of_text(text: &str) -> View {
    let words = words(text);
    let has = |known: &[&str]| words.iter().any(|word| known.contains(&word.as_str()));
    let begins = |known: &[&str]| {
        let mut pairs = words
            .iter()
            .flat_map(|word| known.iter().map(move |start| (word, start)));
        pairs.any(|(word, start)| word.starts_with(start))
    };
    if has(&["LLD", "RLD"]) || begins(&["DECUB"]) {
        // Lying on a side, with the beam from front to back; lying on back or front, with the beam from the side.
        let from_the_side = begins(&[
            "DORSAL",
            "VENTRAL",
            "SUPINE",
            "PRONE",
            "XTABLE",
            "CROSSTABLE",
        ]);
        return match from_the_side && !has(&FRONTAL) {
            true => View::Lateral,
            false => View::Frontal,
        };
    }
    if begins(&["OBL"]) || has(&["LAO", "RAO", "LPO", "RPO", "LLO", "RLO"]) {
        return View::Oblique;
    }
    if words.iter().any(|word| is_lateral_word(word)) {
        return View::Lateral;
    }
    match has(&FRONTAL) {
        true => View::Frontal,
        false => View::Unknown,
    }
}

/// Whether a word means a view from the side; `BILATERAL` and `FLAT` do not.
fn is_lateral_word(word: &str) -> bool {
    const WORDS: [&str; 9] = [
        "LL", "RL", "LAT", "LLAT", "RLAT", "XLAT", "SAGITTAL", "CROSSLAT", "LATLAT",
    ];
    const BEGINNINGS: [&str; 5] = ["LATER", "LATÉR", "SWIMMER", "SEITL", "PROFIL"];
    WORDS.contains(&word)
        || BEGINNINGS.iter().any(|begin| word.starts_with(begin))
        || ["XTABLELATERAL", "LEFTLATERAL", "RIGHTLATERAL"].contains(&word)
}

/// The view of a code of PS3.16's context group 4010, in SNOMED CT's numbers or those of SNOMED RT before them.
fn view_of_code(code: &str) -> View {
    match code {
        // Frontal, antero-posterior, postero-anterior.
        "399033003" | "399348003" | "272479007" | "R-10202" | "R-10206" | "R-10214" | "R-40888" => {
            View::Frontal
        }
        // Lateral, left and right, through the body from one side to the other, sagittal.
        "399067008" | "399173006" | "399198007" | "399352003" | "399260004" | "30730003"
        | "R-102CD" | "R-10236" | "R-10232" | "R-10228" | "R-10224" | "G-A145" => View::Lateral,
        "399038007" | "399006002" | "399135007" | "399356000" | "399236003" | "399184004"
        | "399182000" | "260426006" | "260427002" | "399059000" | "399312000" | "399160007"
        | "399132005" | "399325008" | "399004004" | "399099002" | "399368009" | "R-10210"
        | "R-10212" | "R-10220" | "R-40985" | "R-10234" | "R-10238" | "R-102C1" | "R-40782"
        | "R-40783" | "R-10216" | "R-10208" | "R-10204" | "R-10252" | "R-10254" | "R-10246"
        | "R-10230" | "R-10226" => View::Oblique,
        _ => View::Unknown,
    }
}

/// Whether a name of a part of the body means the chest, or so much of the body that it is in it.
fn is_chest(part: &str) -> bool {
    const CHEST: [&str; 12] = [
        "CHEST", "THORA", "TORAX", "TÓRAX", "LUNG", "PULMO", "RIB", "STERN", "HEART", "CARDI",
        "TRUNK", "BODY",
    ];
    let part = part.to_uppercase();
    CHEST.iter().any(|known| part.contains(known))
}
