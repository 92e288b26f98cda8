//! How long it takes to open the label tables of the largest data sets, and in how much memory.
//!
//! `cargo run --release -p cxr-dataset --example index_open` writes made-up tables with the rows of MIMIC-CXR-JPG (377,110
//! images, four tables, gzip) and PadChest (160,868 images, a kilobyte a row) into a folder for the time being, and
//! opens each in a process of its own.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use cxr_dataset::Index;

fn main() -> Result<(), Box<dyn Error>> {
    let mut stdout = std::io::stdout();
    if let Some(folder) = std::env::args().nth(1) {
        let begin = Instant::now();
        let index = Index::read(Path::new(&folder))?;
        let seconds = begin.elapsed().as_secs_f64();
        writeln!(
            stdout,
            "{}: {} images, {} patients, {} studies, {} labels: {seconds:.2} s, {} MiB at the highest",
            index.release(),
            index.records().len(),
            index.n_patients(),
            index.n_studies(),
            index.label_set().len(),
            highest_memory()? >> 20
        )?;
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    for (name, write) in [
        ("mimic", mimic as fn(&Path) -> std::io::Result<()>),
        ("padchest", padchest),
    ] {
        let tables = folder.path().join(name);
        std::fs::create_dir(&tables)?;
        write(&tables)?;
        for _ in 0..3 {
            let opened = Command::new(std::env::current_exe()?)
                .arg(&tables)
                .output()?;
            stdout.write_all(&opened.stdout)?;
            stdout.write_all(&opened.stderr)?;
        }
    }
    Ok(())
}

/// The most memory that this process has had, in bytes.
fn highest_memory() -> std::io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Ok(kib.unwrap_or(0) << 10)
}

fn gzip(path: &Path, text: &str) -> std::io::Result<()> {
    let file = std::fs::File::create(path)?;
    let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()?.sync_all()
}

/// 65,379 patients and 227,835 studies, of which 8 have no labels.
fn mimic(folder: &Path) -> std::io::Result<()> {
    const IMAGES: u64 = 377_110;
    const STUDIES: u64 = 227_835;
    const PATIENTS: u64 = 65_379;
    let mut metadata = "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning\n".to_owned();
    let mut split = "dicom_id,study_id,subject_id,split\n".to_owned();
    let header = "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices\n";
    let mut labels = header.to_owned();
    let ids = |study: u64| (10_000_000 + study % PATIENTS, 50_000_000 + study);
    for image in 0..IMAGES {
        let (subject, study) = ids(image % STUDIES);
        let key = image.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let dicom = format!(
            "{:08x}-{:08x}-{:08x}-{:08x}-{:08x}",
            key >> 32,
            key & 0xffff_ffff,
            key >> 16 & 0xffff_ffff,
            image,
            study
        );
        let view = ["AP", "PA", "LATERAL", "LL", ""][(image % 5) as usize];
        let part = match image % 100 {
            0 => "validate",
            1 => "test",
            _ => "train",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            metadata,
            "{dicom},{subject},{study},CHEST (PORTABLE AP),{view},3056,2544,21800506,213014.531,CHEST (PORTABLE AP),antero-posterior,Erect"
        );
        let _ = writeln!(split, "{dicom},{study},{subject},{part}");
    }
    for study in 8..STUDIES {
        let (subject, id) = ids(study);
        let cells: Vec<&str> = (0..14)
            .map(|label| ["1.0", "", "", "0.0", "", "", "-1.0"][((study + label) % 7) as usize])
            .collect();
        let _ = writeln!(labels, "{subject},{id},{}", cells.join(","));
    }
    gzip(&folder.join("mimic-cxr-2.0.0-metadata.csv.gz"), &metadata)?;
    gzip(&folder.join("mimic-cxr-2.0.0-split.csv.gz"), &split)?;
    gzip(&folder.join("mimic-cxr-2.0.0-chexpert.csv.gz"), &labels)?;
    gzip(&folder.join("mimic-cxr-2.0.0-negbio.csv.gz"), &labels)
}

/// 67,000 patients, 109,931 studies, 193 labels.
fn padchest(folder: &Path) -> std::io::Result<()> {
    let mut table = ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,MethodProjection,Pediatric,Modality_DICOM,Manufacturer_DICOM,PhotometricInterpretation_DICOM,PixelRepresentation_DICOM,PixelAspectRatio_DICOM,SpatialResolution_DICOM,BitsStored_DICOM,WindowCenter_DICOM,WindowWidth_DICOM,Rows_DICOM,Columns_DICOM,XRayTubeCurrent_DICOM,Exposure_DICOM,ExposureInuAs_DICOM,ExposureTime,RelativeXRayExposure_DICOM,ReportID,Report,MethodLabel,Labels,Localizations,LabelsLocalizationsBySentence,labelCUIS,LocalizationsCUIS\n".to_owned();
    let report = "sin cambios respecto a rx previa ".repeat(10);
    for image in 0..160_868_u64 {
        let study = image % 109_931;
        let _ = writeln!(
            table,
            "{image},{}_{image:08x}.png,{},20140915,{},{},1930.0,F,POSTEROANTERIOR,PA,Manual review of DICOM fields,No,CR,PhilipsMedicalSystems,MONOCHROME2,0,,0.2,12,2047.0,4096.0,2000,1800,300,4,4000,10,200,4765777,{report},Physician,\"['label {}', ' label {}', 'normal']\",\"['loc right', 'loc left']\",\"[['a', 'loc right'], ['b', 'loc left']]\",\"['C0'\n 'C1' 'C2']\",\"['C3' 'C4']\"",
            20_536_686_640_136_348_236_u128 * 1_000_000 + u128::from(image),
            image % 54,
            20_536_686_640_136_348_236_u128 * 1_000_000_000 + u128::from(study),
            83_986_048_869_429_233_163_u128 * 1_000_000_000 + u128::from(study % 67_000),
            image % 192,
            image * 7 % 192
        );
    }
    std::fs::write(
        folder.join("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"),
        table,
    )
}
