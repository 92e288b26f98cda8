//! Which DICOM files are taken for frontal radiographs, and by which attribute.

#![cfg(feature = "dicom")]

use cxr_dataset::{DatasetError, ImageWarning, decode_gray_bytes, inspect_image_bytes};

mod common;

use common::dicom::*;

const VIEW_POSITION: (u16, u16) = (0x18, 0x5101);
const VIEW_CODES: (u16, u16) = (0x54, 0x220);

/// vindr-cxr keeps 25 attributes, and Modality is not among them (pydicom#1440).
#[test]
fn a_file_without_modality_is_taken_by_its_class_and_says_so() {
    let taken = |class: Option<&str>| {
        let data_set = windowed().without(MODALITY).without(SOP_CLASS);
        let data_set = match class {
            Some(class) => data_set.text(SOP_CLASS, "UI", class),
            None => data_set,
        };
        warnings(&data_set)
    };
    let by = |taken_by: &str| {
        vec![ImageWarning::NoModality {
            taken_by: taken_by.to_owned(),
        }]
    };
    assert_eq!(
        taken(Some("1.2.840.10008.5.1.4.1.1.1")),
        by("its class, computed radiography")
    );
    assert_eq!(
        taken(Some("1.2.840.10008.5.1.4.1.1.1.1")),
        by("its class, digital X-ray")
    );
    assert_eq!(
        taken(Some("1.2.840.10008.5.1.4.1.1.7")),
        by("being one grey secondary capture")
    );
    // The class of the meta group, where the data set has none.
    assert_eq!(taken(None), by("its class, digital X-ray"));
    let bare = windowed()
        .without(MODALITY)
        .without(SOP_CLASS)
        .text((8, 5), "CS", "ISO_IR 100")
        .text((8, 8), "CS", "ORIGINAL")
        .bytes(Form::Implicit);
    let facts = inspect_image_bytes(&bare, "x").unwrap();
    assert_eq!(facts.warnings, by("being one grey image"));
}

#[test]
fn other_modalities_and_classes_are_refused() {
    for (class, name) in [
        ("1.2.840.10008.5.1.4.1.1.2", "CT"),
        ("1.2.840.10008.5.1.4.1.1.1.2", "mammography"),
    ] {
        let data_set = windowed().without(MODALITY).text(SOP_CLASS, "UI", class);
        let message = refusal(&file(&data_set, Form::Explicit));
        assert!(
            message.contains("no modality, and the SOP class"),
            "{name}: {message}"
        );
    }
    for modality in ["CT", "MR", "MG", "OT", "RF", "cr"] {
        let message = refusal(&file(
            &windowed().text(MODALITY, "CS", modality),
            Form::Explicit,
        ));
        assert!(
            message.contains(&format!("modality `{modality}`")),
            "{message}"
        );
    }
    for photometric in ["RGB", "YBR_FULL", "YBR_FULL_422", "PALETTE COLOR"] {
        let message = refusal(&file(
            &windowed().text(PHOTOMETRIC, "CS", photometric),
            Form::Explicit,
        ));
        assert!(
            message.contains(&format!("colour (`{photometric}`)")),
            "{message}"
        );
    }
    let float = windowed()
        .without(PIXEL_DATA)
        .with((0x7fe0, 8), "OF", Value::Bytes(vec![0; 140]));
    assert!(refusal(&file(&float, Form::Explicit)).contains("floating-point pixels"));
    assert!(
        refusal(&file(&windowed().without(PIXEL_DATA), Form::Explicit))
            .contains("PixelData (7FE0,0010) is missing")
    );
}

fn view_code(code: &str, meaning: &str) -> DataSet {
    let item = DataSet::default()
        .text((8, 0x100), "SH", code)
        .text((8, 0x102), "SH", "SRT")
        .text((8, 0x104), "LO", meaning);
    windowed().with(VIEW_CODES, "SQ", sequence(item))
}

/// mimic-cxr#15 and mimic-code#1284: the view is in one attribute or in another.
#[test]
fn lateral_and_oblique_views_are_refused_whatever_attribute_names_them() {
    let position = |text: &str| windowed().text(VIEW_POSITION, "CS", text);
    let refused = [
        position("LL"),
        position("RL"),
        position("LATERAL"),
        position("LAT"),
        position("XTABLE LATERAL"),
        position("lateral"),
        position("LLO"),
        position("LAO"),
        position("RAO"),
        position("LPO"),
        position("OBLIQUE"),
        position("SWIMMERS"),
        position("DORSAL DECUBITUS"),
        view_code("R-10236", "left lateral"),
        view_code("R-10236", ""),
        view_code("R-102CD", "lateral"),
        view_code("399067008", "lateral"),
        view_code("399198007", "right lateral"),
        view_code("XYZ", "Lateral projection"),
        view_code("399135007", "left anterior oblique"),
        windowed().text((0x20, 0x20), "CS", "A\\F"),
        windowed().text((0x20, 0x20), "CS", "P\\F"),
        windowed().text((0x8, 0x103e), "LO", "Chest lat"),
        windowed().text((0x8, 0x103e), "LO", "THORAX SEITL."),
        windowed().text((0x8, 0x103e), "LO", "W034 Chest Lat."),
        windowed().text((0x18, 0x1030), "LO", "CHEST LATERAL"),
        windowed().text((0x18, 0x1400), "LO", "CHEST,LAT"),
        // One attribute says frontal, another lateral.
        position("PA").with(
            VIEW_CODES,
            "SQ",
            sequence(DataSet::default().text((8, 0x104), "LO", "lateral")),
        ),
        view_code("R-10214", "lateral"),
    ];
    for (number, data_set) in refused.into_iter().enumerate() {
        for form in FORMS {
            match decode_gray_bytes(file(&data_set, form).as_slice(), "view.dcm") {
                Err(DatasetError::NotARadiograph { found, .. }) => {
                    assert!(
                        found.contains("a lateral view") || found.contains("an oblique view"),
                        "{number}: {found}"
                    );
                }
                other => panic!("view {number}: {other:?}"),
            }
        }
    }
}

#[test]
fn frontal_views_are_taken_and_decubitus_is_one_of_them() {
    let position = |text: &str| windowed().text(VIEW_POSITION, "CS", text);
    for data_set in [
        position("PA"),
        position("AP"),
        position("AP AXIAL"),
        position("LORDOTIC"),
        // Lying on a side, the beam from front or back (PS3.3 section C.8.7.1.1.2).
        position("LLD"),
        position("RLD"),
        position("AP LLD"),
        position("LEFT LATERAL DECUBITUS"),
        view_code("R-10214", "postero-anterior"),
        view_code("R-10206", "antero-posterior"),
        view_code("272479007", ""),
        windowed().text((0x20, 0x20), "CS", "L\\F"),
        windowed().text((0x8, 0x103e), "LO", "CHEST PA AND LAT"),
        windowed().text((0x8, 0x103e), "LO", "Chest bilateral flat panel"),
        windowed().text((0x8, 0x103e), "LO", "lateral decubitus"),
        windowed().text((0x18, 0x15), "CS", "CHEST"),
        windowed().text((0x18, 0x15), "CS", "RIBCAGE"),
    ] {
        assert_eq!(warnings(&data_set), []);
    }
    let unknown = ImageWarning::UnknownView {
        view: "SITTING".to_owned(),
    };
    assert_eq!(warnings(&position("SITTING")), [unknown]);
    let knee = ImageWarning::OtherBodyPart {
        part: "KNEE".to_owned(),
    };
    assert_eq!(
        warnings(&windowed().text((0x18, 0x15), "CS", "KNEE")),
        [knee]
    );
}

/// Age, sex and view are read where they are understood, and said where they are not.
#[test]
fn age_sex_and_view_are_read() {
    use cxr_dataset::{Sex, Tone, ViewPosition, decode_radiograph_in};

    const AGE: (u16, u16) = (0x10, 0x1010);
    const SEX: (u16, u16) = (0x10, 0x40);
    let of = |data_set: &DataSet, form: Form| {
        let radiograph = decode_radiograph_in(&file(data_set, form), "film.dcm", Tone::AsStored);
        radiograph.unwrap()
    };
    let view = |code: &str, meaning: &str| {
        sequence(
            DataSet::default()
                .text((8, 0x100), "SH", code)
                .text((8, 0x102), "SH", "SCT")
                .text((8, 0x104), "LO", meaning),
        )
    };
    for form in FORMS {
        let known = windowed()
            .text(AGE, "AS", "061Y")
            .text(SEX, "CS", "M ")
            .text(VIEW_POSITION, "CS", "PA");
        let found = of(&known, form).attributes;
        assert_eq!(
            (found.age_years, found.sex, found.view),
            (
                Some(61),
                Some(Sex::Male),
                Some(ViewPosition::PosteroAnterior)
            )
        );
        // A digital X-ray has its view as a code.
        let coded = windowed().with(VIEW_CODES, "SQ", view("399348003", "antero-posterior"));
        assert_eq!(
            of(&coded, form).attributes.view,
            Some(ViewPosition::AnteroPosterior)
        );
    }
    let nothing = of(&windowed(), Form::Explicit);
    assert_eq!(nothing.attributes, cxr_dataset::ImageAttributes::default());
    // De-identified, or another: said, and not known.
    let other = windowed().text(SEX, "CS", "O").text(AGE, "AS", "");
    assert_eq!(of(&other, Form::Explicit).attributes.sex, None);
    assert_eq!(warnings(&other), []);
    let strange = windowed()
        .text(SEX, "CS", "MALE?")
        .text(AGE, "AS", "61 years");
    assert_eq!(
        warnings(&strange),
        [
            ImageWarning::UnknownAge {
                age: "61 years".to_owned()
            },
            ImageWarning::UnknownSex {
                sex: "MALE?".to_owned()
            },
        ]
    );
    let months = windowed().text(AGE, "AS", "030M");
    assert_eq!(of(&months, Form::Explicit).attributes.age_years, Some(2));
    let decubitus = windowed().text(VIEW_POSITION, "CS", "LLD");
    assert_eq!(
        of(&decubitus, Form::Explicit).attributes.view,
        Some(ViewPosition::Other)
    );
}
