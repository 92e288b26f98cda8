//! Google's adjudicated labels on images of ChestX-ray14: the release with four findings and the one with all.
//!
//! A row is an image, or what one reader says of it. `YES` and `NO` are positive and negative, `HEDGE` of a reader is
//! uncertain; readers' `Abnormal` is 1 or 0. Patients are NIH's, studies those of `Follow-up #` where the table has it. The
//! official part is `Set Id` (`val` validates); the release with all findings is for the test. The labels of
//! ChestX-ray14 in the tables are left alone. The two releases disagree on the same images and are never joined.

use std::collections::HashMap;

use super::chest_x_ray14::{Columns, Row};
use super::readers::Votes;
use super::sheet::{places, union};
use super::source::key;
use super::{DatasetFormat, Header, Line, ReaderRule, Request, Sheet};
use crate::index::builder::Builder;
use crate::record::Record;
use crate::{DatasetError, Index, LabelState, Part, PatientId, Release};

/// Google's labels for ChestX-ray14.
#[derive(Debug)]
pub(super) struct GoogleNih;

/// What is no label.
const FACTS: [&str; 6] = [
    "Image ID",
    "Image Index",
    "Patient ID",
    "Reader ID",
    "Set ID",
    "Finding Labels",
];

impl DatasetFormat for GoogleNih {
    fn name(&self) -> &'static str {
        "google-nih"
    }

    fn title(&self) -> &'static str {
        "Google's adjudicated labels of ChestX-ray14"
    }

    fn access(&self) -> &'static str {
        "open, by Google Cloud: https://cloud.google.com/healthcare-api/docs/resources/public-datasets/nih-chest"
    }

    fn recognises(&self, header: &Header<'_>) -> bool {
        findings(header).is_some()
    }

    fn read(&self, request: Request) -> Result<Index, DatasetError> {
        let rule = request.readers;
        let mut sources = request.all();
        let first = (sources.first()).map(|source| source.path().to_owned());
        let first = first.unwrap_or_default();
        let has_labels = sources
            .iter()
            .any(|source| !source.header().has("Reader ID"));
        let mut unread = Vec::new();
        if has_labels {
            // The readers are those whose labels were adjudicated.
            for source in sources.extract_if(.., |source| source.header().has("Reader ID")) {
                unread.push(source);
            }
        }
        let mut kinds = sources.iter().map(|source| findings(&source.header()));
        let kind = kinds.next().flatten();
        if kinds.any(|other| other != kind) {
            return Err(DatasetError::table(
                &first,
                "labels of four findings and of all are in one folder, and they disagree",
                "name the tables of one release",
            ));
        }
        let (name, title) = match kind {
            Some(Findings::All) => (
                "google-nih-all-findings",
                "Google's labels of ChestX-ray14, all findings",
            ),
            _ => (
                "google-nih-four-findings",
                "Google's labels of ChestX-ray14, four findings",
            ),
        };
        let nih: Vec<&str> = Columns::names().collect();
        let is_label = |name: &&str| {
            let is = |fact: &&str| key(fact) == key(name);
            !FACTS.iter().any(is) && !nih.iter().any(is) && !name.is_empty()
        };
        let names = sources.iter().flat_map(|source| source.header().names());
        let labels = names.map(String::as_str).filter(is_label);
        let mut builder = Builder::new(Release::new(name, title), union(&first, labels)?);
        for source in unread {
            let message = format!(
                "`{}` has the answers of readers, and is not read; name it to join them",
                source
                    .path()
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
            );
            builder.warn(&message, None);
        }
        for source in sources {
            read(&source.load()?, kind, rule, &mut builder)?;
        }
        Ok(builder.finish())
    }

    #[cfg(test)]
    fn examples(&self) -> &'static [super::Example] {
        use super::Example;
        &[
            Example {
                header: "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],Fracture,Pneumothorax,Airspace opacity,Nodule or mass,Set Id",
                row: "@,No Finding,0,1,58,M,PA,2682,2749,0.143,0.143,NO,NO,NO,YES,test",
                names: ["00000001_000.png", "00000001_001.png"],
            },
            Example {
                header: "Patient ID,Image ID,Reader ID,Fracture,Pneumothorax,Airspace opacity,Nodule/mass,Set ID",
                row: "1,@,7,NO,NO,NO,HEDGE,test",
                names: ["00000001_000.png", "00000001_001.png"],
            },
        ]
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Findings {
    Four,
    All,
}

fn findings(header: &Header<'_>) -> Option<Findings> {
    if header.count(&["Image Index", "Image ID"]) == 0 {
        return None;
    }
    if header.has("Airspace opacity") {
        return Some(Findings::Four);
    }
    (header.has("Image ID") && header.has("Abnormal")).then_some(Findings::All)
}

fn read(
    sheet: &Sheet,
    kind: Option<Findings>,
    rule: ReaderRule,
    builder: &mut Builder,
) -> Result<(), DatasetError> {
    sheet.check()?;
    let set = builder.label_set().clone();
    let all: Vec<usize> = (0..sheet.header().len()).collect();
    let columns = places(sheet, &all, &set);
    let nih = match sheet.column(&["Image Index"]) {
        Some(_) => Some(Columns::of(sheet)?),
        None => None,
    };
    let reader = sheet.column(&["Reader ID"]);
    let set_column = sheet.column(&["Set ID"]);
    let mut votes: HashMap<usize, Vec<Votes>> = HashMap::new();
    let mut seen: HashMap<(usize, &str), u64> = HashMap::new();
    for line in sheet.lines() {
        let mut record = match &nih {
            Some(columns) => Row { line, columns }.record()?.0,
            None => image(sheet, line)?,
        };
        if record.age_years.is_some_and(|age| age > 120) {
            builder.warn(
                "images of patients older than 120 years, as NIH's first release has them",
                line.place(),
            );
        }
        record.part = match (set_column, kind) {
            (Some(column), _) => Some(match line.cell(column).to_ascii_lowercase().as_str() {
                "test" => Part::Test,
                "val" | "validation" => Part::Validation,
                _ => return Err(line.unexpected(column, "`test` or `val`")),
            }),
            (None, Some(Findings::All)) => Some(Part::Test),
            (None, _) => None,
        };
        let mut states = vec![LabelState::Unknown; set.len()].into_boxed_slice();
        for &(column, place) in &columns {
            if let Some(state) = states.get_mut(place) {
                *state = answer(line, column, reader.is_some())?;
            }
        }
        let Some(reader) = reader else {
            record.labels = states;
            builder.push(sheet.path(), line.number(), record)?;
            continue;
        };
        let position = match builder.position(&record.name) {
            Some(position) => position,
            None => {
                record.labels = vec![LabelState::Unknown; set.len()].into();
                builder.push(sheet.path(), line.number(), record)?
            }
        };
        let who = line.need(reader)?;
        if let Some(first) = seen.insert((position, who), line.number()) {
            builder.warn(
                "answers of a reader who has read the image before; each counts",
                Some((sheet.path(), first)),
            );
        }
        let votes = votes
            .entry(position)
            .or_insert_with(|| vec![Votes::default(); set.len()]);
        for (votes, state) in votes.iter_mut().zip(states) {
            votes.add(state);
        }
    }
    for (position, votes) in votes {
        if let Some(record) = builder.record_mut(position) {
            record.labels = votes.iter().map(|votes| votes.joined(rule)).collect();
        }
    }
    Ok(())
}

/// The image of a row without NIH's columns.
fn image(sheet: &Sheet, line: Line<'_>) -> Result<Record, DatasetError> {
    let column = sheet.need(&["Image ID", "Image Index"])?;
    let name = line.image_name(line.cell(column))?;
    let patient = PatientId::from_chest_x_ray14(&name)
        .map_err(|error| line.error(error.to_string(), "write the name as NIH does"))?;
    if let Some(column) = sheet.column(&["Patient ID"]) {
        let listed = line.whole(column)?;
        if patient.as_str().parse() != Ok(listed) {
            return Err(line.error(
                format!("expected the patient of `{name}`, got {listed}"),
                "write the first eight digits of the image name",
            ));
        }
    }
    Ok(Record {
        patient: Some(patient),
        ..Record::new(name, Vec::new())
    })
}

fn answer(line: Line<'_>, column: usize, is_reader: bool) -> Result<LabelState, DatasetError> {
    match line.cell(column).to_ascii_uppercase().as_str() {
        "YES" => Ok(LabelState::Positive),
        "NO" => Ok(LabelState::Negative),
        "HEDGE" if is_reader => Ok(LabelState::Uncertain),
        _ => match super::sheet::state(line.cell(column)) {
            Some(state) if state != LabelState::Uncertain => Ok(state),
            _ => Err(line.unexpected(column, "`YES` or `NO`")),
        },
    }
}
