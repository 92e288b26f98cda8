//! CXR-LT 2023 and 2024: labels by image for images of MIMIC-CXR-JPG.
//!
//! A row is an image; its name is its `fpath` (2023's challenge: `path`), or the path that its three ids make, so that
//! it is MIMIC-CXR-JPG's name too. Every column that does not describe the image is a label. The official part is that of
//! the column `split`, else of the file's name (`train…`, `development…`, `test…`). Tables of several tasks list the same
//! images, so that tables of one task are read at a time.

use std::collections::BTreeSet;

use super::mimic::{self, part_of, take_view};
use super::sheet::{places, union};
use super::source::key;
use super::{DatasetFormat, Header, Request, Sheet, Source};
use crate::index::builder::Builder;
use crate::record::Record;
use crate::{DatasetError, Index, LabelState, Part, Release};

/// CXR-LT.
#[derive(Debug)]
pub(super) struct CxrLt;

impl DatasetFormat for CxrLt {
    fn name(&self) -> &'static str {
        "cxr-lt"
    }

    fn title(&self) -> &'static str {
        "CXR-LT"
    }

    fn access(&self) -> &'static str {
        "credentialed access with training and a data use agreement, on PhysioNet: https://physionet.org/content/cxr-lt-iccv-workshop-cvamd/"
    }

    fn recognises(&self, header: &Header<'_>) -> bool {
        // MIMIC-CXR's `cxr-record-list.csv` has ids and paths alone.
        let has_labels = header.names().iter().any(|name| !is_fact(name));
        header.has("dicom_id") && header.has("study_id") && has_labels
    }

    fn read(&self, request: Request) -> Result<Index, DatasetError> {
        let sources = request.all();
        check_tasks(&sources)?;
        let first = sources.first().map(|source| source.path().to_owned());
        let names = sources.iter().flat_map(|source| source.header().names());
        let labels = names.map(String::as_str).filter(|name| !is_fact(name));
        let labels = union(&first.unwrap_or_default(), labels)?;
        let release = Release::new("cxr-lt", "CXR-LT");
        let mut builder = Builder::new(release, labels);
        for source in sources {
            let part = part_of_file(&source.stem());
            read(&source.load()?, part, &mut builder)?;
        }
        Ok(builder.finish())
    }

    #[cfg(test)]
    fn examples(&self) -> &'static [super::Example] {
        use super::Example;
        &[Example {
            header: "dicom_id,subject_id,study_id,ViewPosition,fpath,Edema,Mass",
            row: "ab-1,10000001,50000001,PA,@,0,1",
            names: [
                "files/p10/p10000001/s50000001/ab-1.jpg",
                "files/p10/p10000001/s50000001/ab-2.jpg",
            ],
        }]
    }
}

/// Whether the tables are of one task: those of several list the same images with other labels.
fn check_tasks(sources: &[Source]) -> Result<(), DatasetError> {
    let task = |source: &Source| {
        let stem = source.stem();
        let (_, task) = stem.rsplit_once("task")?;
        Some(task.trim_matches(|c| c == '_' || c == '-').to_owned())
    };
    let tasks: BTreeSet<String> = sources.iter().filter_map(task).collect();
    match (tasks.len(), sources.first()) {
        (0 | 1, _) | (_, None) => Ok(()),
        (_, Some(first)) => {
            let tasks: Vec<String> = tasks.into_iter().collect();
            Err(DatasetError::table(
                first.path().parent().unwrap_or(first.path()),
                format!(
                    "there are tables of the tasks {}, which list the same images",
                    tasks.join(", ")
                ),
                "name one table, or put those of one task into a folder of their own",
            ))
        }
    }
}

/// Columns with the image's path.
const PATHS: [&str; 2] = ["fpath", "path"];

/// Whether a column describes the image. One without a name is a numbering that somebody added.
fn is_fact(name: &str) -> bool {
    let mut facts = mimic::FACTS.iter().chain(&PATHS);
    name.is_empty() || facts.any(|fact| key(fact) == key(name))
}

/// The part that a file's name says.
fn part_of_file(stem: &str) -> Option<Part> {
    [
        ("train", Part::Train),
        ("dev", Part::Validation),
        ("val", Part::Validation),
        ("test", Part::Test),
    ]
    .into_iter()
    .find_map(|(word, part)| stem.contains(word).then_some(part))
}

fn read(sheet: &Sheet, part: Option<Part>, builder: &mut Builder) -> Result<(), DatasetError> {
    sheet.check()?;
    let set = builder.label_set().clone();
    let columns: Vec<usize> = (sheet.header().iter().enumerate())
        .filter(|(_, name)| !is_fact(name))
        .map(|(column, _)| column)
        .collect();
    let places = places(sheet, &columns, &set);
    let dicom = sheet.need(&["dicom_id"])?;
    let (subject, study) = (sheet.need(&["subject_id"])?, sheet.need(&["study_id"])?);
    let (path, view) = (sheet.column(&PATHS), sheet.column(&["ViewPosition"]));
    let split = sheet.column(&["split"]);
    for line in sheet.lines() {
        let (subject, study) = (line.whole(subject)?, line.whole(study)?);
        let own = mimic::image_path(line, dicom, study, subject)?;
        let name = line.image_name(match line.said(path) {
            Some(path) => path,
            None => &own,
        })?;
        if !own.ends_with(name.as_str()) && !name.as_str().ends_with(&own) {
            builder.warn(
                "images whose path is not that of their `subject_id`, `study_id` and `dicom_id`",
                line.place(),
            );
        }
        let mut states = vec![LabelState::Unknown; set.len()].into_boxed_slice();
        for &(column, place) in &places {
            if let Some(state) = states.get_mut(place) {
                *state = line.label(column)?;
            }
        }
        let mut record = Record {
            patient: Some(line.patient(&subject.to_string())?),
            study: Some(line.study(&study.to_string())?),
            part: match split {
                Some(split) => Some(part_of(line, split)?),
                None => part,
            },
            ..Record::new(name, states)
        };
        take_view(line, view, &mut record);
        builder.push(sheet.path(), line.number(), record)?;
    }
    Ok(())
}
