//! CheXpert v1.0, full and `-small`: `train.csv`, `valid.csv`, and the test labels as CheXlocalize gives them.
//!
//! A row is an image; its `Path` is its name, as the table writes it. Patient and study are folders of the path
//! (`patient00001/study1`); studies are numbered by patient. Labels are those of the report of a study: 1, 0, −1
//! (uncertain), blank (not mentioned, which is unknown). An age of 0 is an unknown one.

use std::collections::HashMap;

use super::sheet::{places, union};
use super::{DatasetFormat, Header, Line, Request, Sheet, Source};
use crate::index::builder::Builder;
use crate::record::Record;
use crate::{DatasetError, Index, LabelState, Part, Release, ViewPosition};

/// The fourteen observations of CheXpert, in its order.
pub(super) const LABELS: [&str; 14] = [
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
];
/// What describes an image.
const FACTS: [&str; 5] = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA"];
/// So many of its labels show that a table is of CheXpert's kind.
const ENOUGH: usize = 5;

/// Stanford's CheXpert.
#[derive(Debug)]
pub(super) struct CheXpert;

impl DatasetFormat for CheXpert {
    fn name(&self) -> &'static str {
        "chexpert"
    }

    fn title(&self) -> &'static str {
        "CheXpert"
    }

    fn access(&self) -> &'static str {
        "registration and a research use agreement with Stanford AIMI: https://aimi.stanford.edu/datasets/chexpert-chest-x-rays"
    }

    fn recognises(&self, header: &Header<'_>) -> bool {
        // CXR-LT 2023 has a column `path` and many of these labels, and ids of MIMIC-CXR-JPG.
        let is_mimic = header.has("dicom_id") || header.has("study_id");
        let has_labels = header.count(&LABELS) >= ENOUGH;
        header.has("Path") && !is_mimic && (header.has("Frontal/Lateral") || has_labels)
    }

    fn read(&self, request: Request) -> Result<Index, DatasetError> {
        let (sources, unused) = of_one_labeler(request.all());
        let path = sources
            .first()
            .map(|source| source.path().to_owned())
            .unwrap_or_default();
        let names = sources.iter().flat_map(|source| source.header().names());
        let names = names.map(String::as_str).filter(|name| is_label(name));
        let labels = union(&path, names)?;
        let mut builder = Builder::new(Release::new("chexpert", "CheXpert"), labels);
        for source in unused {
            let message = format!(
                "`{}` has other labels of the same images, and is not read; name it to take them",
                source
                    .path()
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
            );
            builder.warn(&message, None);
        }
        for source in sources {
            read(&source.load()?, &mut builder)?;
        }
        check_studies(&mut builder);
        Ok(builder.finish())
    }

    #[cfg(test)]
    fn examples(&self) -> &'static [super::Example] {
        use super::Example;
        &[Example {
            header: "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices",
            row: "@,Male,60,Frontal,AP,,,,,,,,,,,,,,1.0",
            names: [
                "C/train/patient00001/study1/view1_frontal.jpg",
                "C/train/patient00001/study1/view2_frontal.jpg",
            ],
        }]
    }
}

/// Of several tables those with the labels of CheXpert's own labeler, and those with CheXbert's and VisualCheXbert's of the
/// same images (`train_cheXbert.csv`, `train_visualCheXbert.csv`), which are not taken beside the others.
fn of_one_labeler(sources: Vec<Source>) -> (Vec<Source>, Vec<Source>) {
    let is_other = |source: &Source| source.stem().contains("chexbert");
    match sources.iter().all(is_other) {
        true => (sources, Vec::new()),
        false => sources.into_iter().partition(|source| !is_other(source)),
    }
}

fn is_label(name: &str) -> bool {
    LABELS.iter().any(|label| label.eq_ignore_ascii_case(name))
}

fn read(sheet: &Sheet, builder: &mut Builder) -> Result<(), DatasetError> {
    sheet.check()?;
    let path = sheet.need(&["Path"])?;
    let (labels, strangers) = sheet.labels(&LABELS, &FACTS);
    for stranger in strangers {
        let message = format!(
            "the column `{}` is not CheXpert's, and is left out",
            cxr_table::excerpt(sheet.name_of(stranger))
        );
        builder.warn(&message, Some((sheet.path(), 1)));
    }
    let set = builder.label_set().clone();
    let places = places(sheet, &labels, &set);
    let columns = Columns {
        path,
        sex: sheet.column(&["Sex"]),
        age: sheet.column(&["Age"]),
        side: sheet.column(&["Frontal/Lateral"]),
        direction: sheet.column(&["AP/PA"]),
    };
    for line in sheet.lines() {
        let mut states = vec![LabelState::Unknown; set.len()].into_boxed_slice();
        for &(column, place) in &places {
            if let Some(state) = states.get_mut(place) {
                *state = line.label(column)?;
            }
        }
        let mut record = columns.record(line, builder)?;
        if !states.iter().any(|state| state.is_said()) {
            builder.warn("images of which no label is mentioned", line.place());
        }
        record.labels = states;
        builder.push(sheet.path(), line.number(), record)?;
    }
    Ok(())
}

struct Columns {
    path: usize,
    sex: Option<usize>,
    age: Option<usize>,
    /// `Frontal/Lateral`
    side: Option<usize>,
    /// `AP/PA`
    direction: Option<usize>,
}

impl Columns {
    /// What a row says of its image, without the labels.
    fn record(&self, line: Line<'_>, builder: &mut Builder) -> Result<Record, DatasetError> {
        let name = line.image_name(line.cell(self.path))?;
        let parts: Vec<&str> = name.parts().collect();
        let numbered = |part: &str, word: &str| {
            (part.strip_prefix(word)).is_some_and(|digits| {
                !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit())
            })
        };
        let at = parts.iter().position(|part| numbered(part, "patient"));
        let folders = at.map(|at| (at, parts.get(at + 1).copied().unwrap_or_default()));
        let Some((at, study)) = folders.filter(|(_, study)| numbered(study, "study")) else {
            return Err(line.error(
                format!("expected a path with `patient00001/study1/` in it, got `{name}`"),
                "restore the row from the published table",
            ));
        };
        let patient = parts.get(at).copied().unwrap_or_default();
        let part =
            at.checked_sub(1)
                .and_then(|at| parts.get(at))
                .and_then(|folder| match *folder {
                    "train" => Some(Part::Train),
                    "valid" | "val" => Some(Part::Validation),
                    "test" => Some(Part::Test),
                    _ => None,
                });
        let mut record = Record {
            patient: Some(line.patient(patient)?),
            study: Some(line.study(&format!("{patient}/{study}"))?),
            part,
            sex: line.sex(self.sex)?,
            ..Record::new(name.clone(), Vec::new())
        };
        match line.age(self.age)? {
            Some(0) => builder.warn(
                "images of age 0, which is CheXpert's for an unknown one",
                line.place(),
            ),
            age => record.age_years = age,
        }
        self.view(line, builder, &mut record)?;
        Ok(record)
    }

    fn view(
        &self,
        line: Line<'_>,
        builder: &mut Builder,
        record: &mut Record,
    ) -> Result<(), DatasetError> {
        let file = record.name.file_name().to_ascii_lowercase();
        let by_name = match (file.contains("_frontal"), file.contains("_lateral")) {
            (true, false) => Some(true),
            (false, true) => Some(false),
            _ => None,
        };
        let said = match (self.side, line.said(self.side)) {
            (Some(column), Some(side)) => match side.to_ascii_lowercase().as_str() {
                "frontal" => Some(true),
                "lateral" => Some(false),
                _ => return Err(line.unexpected(column, "`Frontal` or `Lateral`")),
            },
            _ => None,
        };
        if let (Some(said), Some(by_name)) = (said, by_name)
            && said != by_name
        {
            builder.warn(
                "images whose file name and `Frontal/Lateral` differ; the column is taken",
                line.place(),
            );
        }
        let is_frontal = said.or(by_name);
        let direction = match (self.direction, line.said(self.direction)) {
            (Some(column), Some(direction)) => {
                let view = ViewPosition::parse(direction)
                    .ok_or_else(|| line.unexpected(column, "`AP`, `PA`, `LL` or `RL`"))?;
                Some((direction, view))
            }
            _ => None,
        };
        record.view = match (is_frontal, direction) {
            (Some(true), Some((code, ViewPosition::Lateral))) => {
                builder.warn(
                    "frontal images with a lateral direction in `AP/PA`; their view is `other`",
                    line.place(),
                );
                record.view_code = Some(code.into());
                Some(ViewPosition::Other)
            }
            (Some(false), Some((_, view))) if view != ViewPosition::Lateral => {
                builder.warn(
                    "lateral images with a frontal direction in `AP/PA`; they are taken for lateral",
                    line.place(),
                );
                Some(ViewPosition::Lateral)
            }
            (Some(false), _) => Some(ViewPosition::Lateral),
            (_, Some((_, view))) => Some(view),
            (Some(true), None) => Some(ViewPosition::Frontal),
            (None, None) => None,
        };
        Ok(())
    }
}

/// Labels are those of a study: counts studies whose images differ in one, and images with a finding and `No Finding`.
fn check_studies(builder: &mut Builder) {
    let mut firsts = HashMap::new();
    let (mut n_differing, mut n_contradicting) = (0, 0);
    let no_finding = builder.label_set().no_finding();
    let devices = builder.label_set().index_of("Support Devices");
    for record in builder.records() {
        if let Some(study) = &record.study {
            let first = *firsts.entry(study).or_insert(&record.labels);
            n_differing += usize::from(*first != record.labels);
        }
        let is_positive = |label: Option<usize>| {
            label.and_then(|label| record.labels.get(label)) == Some(&LabelState::Positive)
        };
        let findings = record.labels.iter().enumerate().filter(|(label, state)| {
            **state == LabelState::Positive && Some(*label) != no_finding && Some(*label) != devices
        });
        n_contradicting += usize::from(is_positive(no_finding) && findings.count() > 0);
    }
    builder.warn_times(
        "images whose labels differ from those of another image of the study",
        n_differing,
        None,
    );
    builder.warn_times(
        "images with both `No Finding` and a finding",
        n_contradicting,
        None,
    );
}
