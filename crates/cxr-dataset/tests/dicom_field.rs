//! The files of the field folder themselves, where they are available.

#![cfg(feature = "dicom")]

use cxr_dataset::{ImageWarning, Tone, decode_radiograph_in};

mod common;

use common::dicom::*;

/// The files themselves, where they are available.
#[test]
fn the_field_folder_gives_what_its_readme_says() {
    let Some(data) = common::shared_data() else {
        return;
    };
    let field = data.join("field");
    if !field.is_dir() {
        println!("skipped: no `field` in the real data");
        return;
    }
    let mean = |file: &str| -> Result<f64, String> {
        let image =
            cxr_dataset::decode_radiograph(field.join(file)).map_err(|error| text_of(&error))?;
        let sum: u64 = image.pixels().iter().map(|&pixel| u64::from(pixel)).sum();
        Ok(sum as f64 / image.pixels().len() as f64)
    };
    for (file, gray) in [
        ("voi-lut/a_plain_12bit.dcm", 87.1),
        ("voi-lut/b_agfa_narrow_16declared.dcm", 5.5),
        ("voi-lut/c_65536_entries.dcm", 87.1),
        ("voi-lut/d_first_40000_unsigned.dcm", 87.1),
        ("voi-lut/e_lut_and_window.dcm", 87.1),
        ("voi-lut/f_signed_first.dcm", 87.1),
        ("voi-lut/g_8bit_packed.dcm", 87.0),
        ("voi-lut/h_mono1.dcm", 87.1),
        ("voi-lut/i_implicit.dcm", 87.1),
        ("voi-lut/j_data_as_US.dcm", 87.1),
        ("voi-lut/k_rescale_signed.dcm", 87.1),
        ("voi-lut/l_part.dcm", 81.8),
        ("voi-lut/m_8bit_image_16bit_lut.dcm", 87.0),
        ("voi-lut/o_10bit_lut.dcm", 87.1),
        ("voi-lut/p_two_items.dcm", 87.1),
        ("numbers/exp.dcm", 89.9),
        ("numbers/long_ds.dcm", 89.9),
        ("numbers/nulpad.dcm", 89.9),
        ("numbers/plus.dcm", 89.9),
        ("numbers/trailing_backslash.dcm", 89.9),
        ("un-undefined-length/un_undefined.dcm", 89.9),
        ("un-undefined-length/un_defined.dcm", 89.9),
        ("un-undefined-length/sq_undefined_control.dcm", 89.9),
        ("trailing-padding/trailing_zeros_1.dcm", 89.9),
        ("trailing-padding/trailing_zeros_64.dcm", 89.9),
        ("trailing-padding/dataset_trailing_padding.dcm", 89.9),
        ("meta-group-length/control.dcm", 89.9),
        ("meta-group-length/missing_length.dcm", 89.9),
        ("meta-group-length/wrong_length.dcm", 89.9),
        ("no-preamble/dataset_only_implicit.dcm", 89.9),
        ("no-extension/DICOM/ST000001/SE000001/IM000001", 89.9),
        ("no-extension/one_named/IM000004.ima", 89.9),
        (
            "vindr-no-modality/000434271f63a053c4128a0ba6352c7f.dicom",
            89.9,
        ),
        (
            "vindr-no-modality/00053190460d56c53cc3e57321387478.dicom",
            83.8,
        ),
        ("vindr-no-modality/j2k_with_modality.dicom", 89.9),
        ("views/LLD.dcm", 89.9),
        ("views/viewcode_pa.dcm", 89.9),
        ("twelve-bits-in-sixteen/bitsstored16_values12.dcm", 6.0),
        ("twelve-bits-in-sixteen/values_0_4095.png", 6.0),
        ("twelve-bits-in-sixteen/values_0_65535.png", 96.6),
    ] {
        match mean(file) {
            Ok(found) => assert!(
                (found - gray).abs() <= 1.0,
                "{file}: {found:.1}, expected {gray}"
            ),
            Err(error) => panic!("{file}: {error}"),
        }
    }
    for (file, why) in [
        (
            "numbers/comma_decimal_center.dcm",
            "WindowCenter (0028,1050) is `2000,0`",
        ),
        (
            "numbers/neg_width.dcm",
            "WindowWidth (0028,1051) is `-3000`",
        ),
        ("views/viewcode_lateral_only.dcm", "a lateral view"),
        ("views/LATERO_LATERAL.dcm", "a lateral view"),
        ("views/XTABLE_LATERAL.dcm", "a lateral view"),
        ("views/PatientOrientation_AF.dcm", "a lateral view"),
        ("views/series_lateral.dcm", "a lateral view"),
        ("views/LAO.dcm", "an oblique view"),
    ] {
        let error = mean(file).unwrap_err();
        assert!(error.contains(why), "{file}: {error}");
    }
    for file in [
        "twelve-bits-in-sixteen/values_0_4095.png",
        "twelve-bits-in-sixteen/bitsstored16_values12.dcm",
    ] {
        let facts = cxr_dataset::inspect_image(field.join(file)).unwrap();
        assert!(
            matches!(
                facts.warnings.as_slice(),
                [ImageWarning::NarrowRange { .. }]
            ),
            "{file}"
        );
        let bytes = std::fs::read(field.join(file)).unwrap();
        let image = decode_radiograph_in(&bytes, file, Tone::Stretched)
            .unwrap()
            .image;
        let whole =
            cxr_dataset::decode_gray(field.join("twelve-bits-in-sixteen/values_0_65535.png"))
                .unwrap();
        for (ours, theirs) in image.pixels().iter().zip(whole.pixels()) {
            assert!(ours.abs_diff(*theirs) <= 1, "{file}");
        }
    }
}
