//! MIMIC-CXR-JPG 2.0.0 and 2.1.0: metadata and split by image, labels by study, joined.
//!
//! An image is a row of `…-metadata.csv` (of `…-split.csv`, where there is no metadata), a patient a `subject_id`, a
//! study a `study_id`. Its name is its path, `files/p10/p10000032/s50414267/DICOM_ID.jpg`. Labels of a study are those of
//! all its images: 1, 0, −1 (uncertain), blank (unknown); a study without a row is unknown in every label. Where several
//! label tables are there, CheXpert's is taken; NegBio's and the radiologist's of the test set are taken when they are
//! named.

use std::collections::HashMap;
use std::path::PathBuf;

use cxr_table::excerpt;

use super::chexpert::LABELS;
use super::sheet::{label_set, places};
use super::{DatasetFormat, Header, Line, Request, Sheet, Source};
use crate::index::builder::Builder;
use crate::record::Record;
use crate::{DatasetError, Index, LabelSet, LabelState, Part, Release, ViewPosition};

/// What describes an image in `…-metadata.csv` and `…-split.csv`.
pub(super) const FACTS: [&str; 13] = [
    "dicom_id",
    "subject_id",
    "study_id",
    "PerformedProcedureStepDescription",
    "ViewPosition",
    "Rows",
    "Columns",
    "StudyDate",
    "StudyTime",
    "ProcedureCodeSequence_CodeMeaning",
    "ViewCodeSequence_CodeMeaning",
    "PatientOrientationCodeSequence_CodeMeaning",
    "split",
];
/// The label that the radiologist's table has in place of `Lung Opacity`.
const AIRSPACE_OPACITY: &str = "Airspace Opacity";
/// So many of its labels show that a table is of labels.
const ENOUGH: usize = 5;

/// MIMIC-CXR-JPG.
#[derive(Debug)]
pub(super) struct MimicCxrJpg;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Labels,
    Metadata,
    Split,
}

fn kind(header: &Header<'_>) -> Option<Kind> {
    if !header.has("study_id") {
        return None;
    }
    if !header.has("dicom_id") {
        return (header.count(&LABELS) >= ENOUGH).then_some(Kind::Labels);
    }
    if header.has("ViewPosition") || header.has("PerformedProcedureStepDescription") {
        return Some(Kind::Metadata);
    }
    header.has("split").then_some(Kind::Split)
}

impl DatasetFormat for MimicCxrJpg {
    fn name(&self) -> &'static str {
        "mimic-cxr-jpg"
    }

    fn title(&self) -> &'static str {
        "MIMIC-CXR-JPG"
    }

    fn access(&self) -> &'static str {
        "credentialed access with training and a data use agreement, on PhysioNet: https://physionet.org/content/mimic-cxr-jpg/"
    }

    fn recognises(&self, header: &Header<'_>) -> bool {
        kind(header).is_some()
    }

    fn joins(&self) -> bool {
        true
    }

    fn read(&self, request: Request) -> Result<Index, DatasetError> {
        let place = (request.named.first())
            .map(|source| source.path().to_owned())
            .unwrap_or_default();
        let Tables {
            labels,
            metadata,
            split,
            unused,
        } = Tables::of(request)?;
        let mut of_studies = match labels {
            Some(labels) => Studies::read(&labels.load()?)?,
            None => Studies::none()?,
        };
        let release = Release::new("mimic-cxr-jpg", "MIMIC-CXR-JPG");
        let mut builder = Builder::new(release, of_studies.set.clone());
        if let Some(path) = &of_studies.path {
            builder.read_table(path);
        } else {
            builder.warn(
                "no table of labels is beside the others: every label is unknown",
                None,
            );
        }
        for path in unused {
            let message = format!(
                "`{}` has labels too, and is not read; name it to take them",
                path.file_name().unwrap_or_default().to_string_lossy()
            );
            builder.warn(&message, None);
        }
        let images = match metadata {
            Some(metadata) => metadata.load()?,
            None => {
                builder.warn(
                    "no metadata is beside the others: every view is unknown",
                    None,
                );
                let Some(split) = split else {
                    return Err(DatasetError::table(
                        &place,
                        "MIMIC-CXR-JPG's labels are of studies, and the table of their images is missing",
                        "put `mimic-cxr-2.0.0-metadata.csv` (or .csv.gz) beside it",
                    ));
                };
                let sheet = split.load()?;
                add_images(&sheet, &mut of_studies, &mut builder)?;
                of_studies.check(&mut builder);
                return Ok(builder.finish());
            }
        };
        add_images(&images, &mut of_studies, &mut builder)?;
        drop(images);
        of_studies.check(&mut builder);
        match split {
            Some(split) => add_parts(&split.load()?, &mut builder)?,
            None => builder.warn(
                "no split is beside the metadata: the official parts are unknown",
                None,
            ),
        }
        Ok(builder.finish())
    }

    #[cfg(test)]
    fn examples(&self) -> &'static [super::Example] {
        use super::Example;
        &[
            Example {
                header: "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning",
                row: "@,10000001,50000001,x,PA,10,10,20000101,1.0,x,y,z",
                names: ["ab-1", "ab-2"],
            },
            Example {
                header: "dicom_id,study_id,subject_id,split",
                row: "@,50000001,10000001,train",
                names: ["ab-1", "ab-2"],
            },
        ]
    }
}

/// Which table is which.
struct Tables {
    labels: Option<Source>,
    metadata: Option<Source>,
    split: Option<Source>,
    /// Labels that are not taken.
    unused: Vec<PathBuf>,
}

impl Tables {
    fn of(request: Request) -> Result<Self, DatasetError> {
        let Request { named, beside, .. } = request;
        let is_folder = named.len() > 1;
        let (mut labels, mut images) = (Vec::new(), [None, None]);
        let all = named.into_iter().map(|source| (!is_folder, source));
        for (is_named, source) in all.chain(beside.into_iter().map(|source| (false, source))) {
            let Some(kind) = kind(&source.header()) else {
                return Err(DatasetError::table(
                    source.path(),
                    "the columns `subject_id`, `study_id` and labels, or `dicom_id`, are missing",
                    "take the table as it is published",
                ));
            };
            match kind {
                Kind::Labels => labels.push((!is_named, rank(&source), source)),
                Kind::Metadata | Kind::Split => {
                    let slot = &mut images[usize::from(kind == Kind::Split)];
                    if let Some(first) = slot.replace(source) {
                        return Err(DatasetError::table(
                            first.path(),
                            "there is another table of its kind",
                            "keep one of them in the folder",
                        ));
                    }
                }
            }
        }
        // The named one first, then CheXpert's.
        labels.sort_by_key(|(is_beside, rank, _)| (*is_beside, *rank));
        let mut labels = labels.into_iter().map(|(_, _, source)| source);
        let [metadata, split] = images;
        Ok(Self {
            labels: labels.next(),
            metadata,
            split,
            unused: labels.map(|source| source.path().to_owned()).collect(),
        })
    }
}

/// CheXpert's labels before NegBio's, and those before a table of the test set alone.
fn rank(source: &Source) -> u8 {
    match (
        source.stem().contains("negbio"),
        source.header().has("subject_id"),
    ) {
        (false, true) => 0,
        (true, _) => 1,
        (false, false) => 2,
    }
}

/// What is known of a study.
struct Study {
    labels: Box<[LabelState]>,
    subject: Option<u64>,
    line: u64,
    has_images: bool,
}

/// The labels by study.
struct Studies {
    path: Option<PathBuf>,
    set: LabelSet,
    of: HashMap<u64, Study>,
    n_images_without: usize,
}

impl Studies {
    fn none() -> Result<Self, DatasetError> {
        Ok(Self {
            path: None,
            set: LabelSet::new(LABELS.map(str::to_owned).to_vec())?,
            of: HashMap::new(),
            n_images_without: 0,
        })
    }

    fn read(sheet: &Sheet) -> Result<Self, DatasetError> {
        sheet.check()?;
        let known: Vec<&str> = LABELS.into_iter().chain([AIRSPACE_OPACITY]).collect();
        let (labels, strangers) = sheet.labels(&known, &["subject_id", "study_id"]);
        if let Some(stranger) = strangers.first() {
            return Err(sheet.error(
                format!(
                    "the column `{}` is unknown",
                    excerpt(sheet.name_of(*stranger))
                ),
                "remove it, or take the table as it is published",
            ));
        }
        let study_column = sheet.need(&["study_id"])?;
        let subject_column = sheet.column(&["subject_id"]);
        let names = labels.iter().map(|&label| sheet.name_of(label).to_owned());
        let set = label_set(sheet.path(), names.collect())?;
        let places = places(sheet, &labels, &set);
        let mut of: HashMap<u64, Study> = HashMap::with_capacity(sheet.table().rows().len());
        for line in sheet.lines() {
            let id = line.whole(study_column)?;
            let mut labels = vec![LabelState::Unknown; set.len()].into_boxed_slice();
            for &(column, place) in &places {
                if let Some(state) = labels.get_mut(place) {
                    *state = line.label(column)?;
                }
            }
            let study = Study {
                labels,
                subject: subject_column
                    .map(|column| line.whole(column))
                    .transpose()?,
                line: line.number(),
                has_images: false,
            };
            if let Some(first) = of.insert(id, study) {
                return Err(line.error(
                    format!("the study {id} has labels on line {} already", first.line),
                    "list every study once",
                ));
            }
        }
        Ok(Self {
            path: Some(sheet.path().to_owned()),
            set,
            of,
            n_images_without: 0,
        })
    }

    /// The labels of an image, by its study.
    fn labels(
        &mut self,
        line: Line<'_>,
        study: u64,
        subject: u64,
    ) -> Result<Box<[LabelState]>, DatasetError> {
        let Some(known) = self.of.get_mut(&study) else {
            self.n_images_without += 1;
            return Ok(vec![LabelState::Unknown; self.set.len()].into_boxed_slice());
        };
        if let Some(expected) = known.subject
            && expected != subject
        {
            let table = self.path.clone().unwrap_or_default();
            return Err(line.error(
                format!(
                    "the study {study} is of the subject {expected} in `{}` (line {}), and of {subject} here",
                    table.display(),
                    known.line
                ),
                "take all tables of one release",
            ));
        }
        known.has_images = true;
        Ok(known.labels.clone())
    }

    /// Counts what the join leaves over.
    fn check(&self, builder: &mut Builder) {
        if self.path.is_some() {
            builder.warn_times(
                "images of studies that the table of labels does not have; their labels are unknown",
                self.n_images_without,
                None,
            );
        }
        let without = self.of.values().filter(|study| !study.has_images);
        builder.warn_times(
            "studies with labels and without images",
            without.count(),
            None,
        );
    }
}

/// An image's name by its three numbers.
pub(super) fn image_path(
    line: Line<'_>,
    dicom: usize,
    study: u64,
    subject: u64,
) -> Result<String, DatasetError> {
    let dicom_id = line.need(dicom)?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if !dicom_id.bytes().all(is_plain) {
        return Err(line.unexpected(dicom, "letters, digits and `-`"));
    }
    let subject = subject.to_string();
    let folder = subject.get(..2).unwrap_or(&subject);
    Ok(format!(
        "files/p{folder}/p{subject}/s{study}/{dicom_id}.jpg"
    ))
}

/// The columns that name an image.
struct Ids {
    dicom: usize,
    subject: usize,
    study: usize,
}

impl Ids {
    fn of(sheet: &Sheet) -> Result<Self, DatasetError> {
        Ok(Self {
            dicom: sheet.need(&["dicom_id"])?,
            subject: sheet.need(&["subject_id"])?,
            study: sheet.need(&["study_id"])?,
        })
    }
}

fn add_images(
    sheet: &Sheet,
    studies: &mut Studies,
    builder: &mut Builder,
) -> Result<(), DatasetError> {
    sheet.check()?;
    let ids = Ids::of(sheet)?;
    let view = sheet.column(&["ViewPosition"]);
    let (rows, columns) = (sheet.column(&["Rows"]), sheet.column(&["Columns"]));
    let part = sheet.column(&["split"]);
    for line in sheet.lines() {
        let (study, subject) = (line.whole(ids.study)?, line.whole(ids.subject)?);
        let name = line.image_name(&image_path(line, ids.dicom, study, subject)?)?;
        let mut record = Record {
            patient: Some(line.patient(&subject.to_string())?),
            study: Some(line.study(&study.to_string())?),
            part: part.map(|part| part_of(line, part)).transpose()?,
            ..Record::new(name, studies.labels(line, study, subject)?)
        };
        take_view(line, view, &mut record);
        if let (Some(rows), Some(columns)) = (rows, columns)
            && line.said(Some(rows)).is_some()
        {
            let side = |column: usize| {
                let side = line.whole(column)?;
                u32::try_from(side).map_err(|_| line.unexpected(column, "a number of pixels"))
            };
            record.original_size = Some((side(columns)?, side(rows)?));
        }
        builder.push(sheet.path(), line.number(), record)?;
    }
    Ok(())
}

/// MIMIC's words for a view: two of them are lateral ones, and a view of another kind keeps its own.
pub(super) fn take_view(line: Line<'_>, column: Option<usize>, record: &mut Record) {
    let Some(code) = line.said(column) else {
        return;
    };
    record.view = ViewPosition::parse(code).or(Some(ViewPosition::Other));
    if record.view == Some(ViewPosition::Other) {
        record.view_code = Some(code.into());
    }
}

/// The official part that a cell names.
pub(super) fn part_of(line: Line<'_>, column: usize) -> Result<Part, DatasetError> {
    match line.cell(column).to_ascii_lowercase().as_str() {
        "train" => Ok(Part::Train),
        "validate" | "validation" | "valid" | "val" | "development" | "dev" => Ok(Part::Validation),
        "test" => Ok(Part::Test),
        _ => Err(line.unexpected(column, "`train`, `validate` or `test`")),
    }
}

fn add_parts(sheet: &Sheet, builder: &mut Builder) -> Result<(), DatasetError> {
    sheet.check()?;
    builder.read_table(sheet.path());
    let ids = Ids::of(sheet)?;
    let column = sheet.need(&["split"])?;
    let mut n_strangers = 0;
    for line in sheet.lines() {
        let (study, subject) = (line.whole(ids.study)?, line.whole(ids.subject)?);
        let name = line.image_name(&image_path(line, ids.dicom, study, subject)?)?;
        let part = part_of(line, column)?;
        let position = builder.position(&name);
        let Some(record) = position.and_then(|position| builder.record_mut(position)) else {
            n_strangers += 1;
            continue;
        };
        if record.part.replace(part).is_some() {
            return Err(line.error(
                format!("the image `{name}` is listed twice"),
                "list every image once",
            ));
        }
    }
    let n_without = (builder.records().iter())
        .filter(|record| record.part.is_none())
        .count();
    builder.warn_times(
        "images of the split that the metadata does not have",
        n_strangers,
        None,
    );
    builder.warn_times("images that the split does not have", n_without, None);
    Ok(())
}
