//! PadChest's table of 160,000 images.
//!
//! A row is an image, named `ImageDir/ImageID`; patients and studies are text, since their numbers have up to 40 digits.
//! `Labels` is a Python list: a label that is listed is positive, one that is not is negative, and a blank cell leaves
//! all labels unknown. The labels of the index are those that occur, in alphabetical order, with the four that are no
//! findings (`normal`, `exclude`, `suboptimal study`, `unchanged`). There is no official split.

use std::collections::BTreeMap;

use cxr_table::{excerpt, is_missing, whole_number};

use super::sheet::label_set;
use super::{DatasetFormat, Header, Line, Request, Sheet};
use crate::index::builder::Builder;
use crate::record::{Record, Sex};
use crate::{DatasetError, Index, LabelState, Release, ViewPosition};

/// PadChest.
#[derive(Debug)]
pub(super) struct PadChest;

impl DatasetFormat for PadChest {
    fn name(&self) -> &'static str {
        "padchest"
    }

    fn title(&self) -> &'static str {
        "PadChest"
    }

    fn access(&self) -> &'static str {
        "a request form of BIMCV: https://bimcv.cipf.es/bimcv-projects/padchest/"
    }

    fn recognises(&self, header: &Header<'_>) -> bool {
        header.has("ImageID")
            && header.has("Labels")
            && header.count(&["ImageDir", "Projection", "StudyID", "PatientID"]) >= 2
    }

    fn read(&self, request: Request) -> Result<Index, DatasetError> {
        // Labels are known when all rows are: the lists are kept as numbers until then.
        let mut rows = Vec::new();
        let mut numbers: BTreeMap<String, u16> = BTreeMap::new();
        let mut names: Vec<String> = Vec::new();
        let mut sheets = Vec::new();
        for source in request.all() {
            let sheet = source.load()?;
            sheet.check()?;
            let column = sheet.need(&["Labels"])?;
            for line in sheet.lines() {
                let Some(list) = line.said(Some(column)) else {
                    rows.push(None);
                    continue;
                };
                let items = python_list(list).ok_or_else(|| {
                    line.unexpected(column, "a list such as `['pneumonia', 'pleural effusion']`")
                })?;
                let mut of_row = Vec::with_capacity(items.len());
                for item in items {
                    let number = match numbers.get(&item) {
                        Some(&number) => number,
                        None => {
                            let number = u16::try_from(names.len()).map_err(|_| {
                                line.error(
                                    "there are more than 65,536 different labels",
                                    "take the table as it is published",
                                )
                            })?;
                            numbers.insert(item.clone(), number);
                            names.push(item);
                            number
                        }
                    };
                    of_row.push(number);
                }
                rows.push(Some(of_row.into_boxed_slice()));
            }
            sheets.push(sheet);
        }
        let Some(first) = sheets.first() else {
            return Err(DatasetError::Format {
                problem: "there is no table".to_owned(),
                repair: "name one".to_owned(),
            });
        };
        let mut place_of = vec![0_usize; names.len()];
        for (place, (_, number)) in numbers.iter().enumerate() {
            if let Some(of_number) = place_of.get_mut(usize::from(*number)) {
                *of_number = place;
            }
        }
        let set = label_set(first.path(), numbers.into_keys().collect())?;
        let n_labels = set.len();
        let mut builder = Builder::new(Release::new("padchest", "PadChest"), set);
        let mut rows = rows.into_iter();
        for sheet in sheets {
            let columns = Columns::of(&sheet)?;
            for line in sheet.lines() {
                let mut record = columns.record(line, &mut builder)?;
                record.labels = match rows.next().flatten() {
                    None => {
                        builder.warn(
                            "images without `Labels`; every label is unknown",
                            line.place(),
                        );
                        vec![LabelState::Unknown; n_labels].into()
                    }
                    Some(listed) => {
                        let mut states = vec![LabelState::Negative; n_labels];
                        for number in listed {
                            let place = place_of.get(usize::from(number));
                            if let Some(state) = place.and_then(|&place| states.get_mut(place)) {
                                *state = LabelState::Positive;
                            }
                        }
                        states.into()
                    }
                };
                builder.push(sheet.path(), line.number(), record)?;
            }
        }
        for (label, message) in [
            ("exclude", "images labelled `exclude`, which is no finding"),
            (
                "suboptimal study",
                "images labelled `suboptimal study`, which is no finding",
            ),
            (
                "unchanged",
                "images labelled `unchanged`: their reports compare with an earlier image, and negative labels may not hold",
            ),
        ] {
            let place = builder.label_set().index_of(label);
            let is_it = |record: &&Record| {
                place.and_then(|place| record.labels.get(place)) == Some(&LabelState::Positive)
            };
            let count = builder.records().iter().filter(is_it).count();
            builder.warn_times(message, count, None);
        }
        Ok(builder.finish())
    }

    #[cfg(test)]
    fn examples(&self) -> &'static [super::Example] {
        use super::Example;
        &[Example {
            header: ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,Projection,Report,MethodLabel,Labels,labelCUIS",
            row: "0,@,7,20140915,1,2,1930.0,F,PA,x,Physician,\"['normal']\",x",
            names: ["1_a.png", "1_b.png"],
        }]
    }
}

struct Columns {
    image: usize,
    folder: Option<usize>,
    patient: usize,
    study: Option<usize>,
    sex: Option<usize>,
    birth: Option<usize>,
    date: Option<usize>,
    projection: Option<usize>,
    size: [Option<usize>; 2],
}

impl Columns {
    fn of(sheet: &Sheet) -> Result<Self, DatasetError> {
        Ok(Self {
            image: sheet.need(&["ImageID"])?,
            folder: sheet.column(&["ImageDir"]),
            patient: sheet.need(&["PatientID"])?,
            study: sheet.column(&["StudyID"]),
            sex: sheet.column(&["PatientSex_DICOM"]),
            birth: sheet.column(&["PatientBirth"]),
            date: sheet.column(&["StudyDate_DICOM"]),
            projection: sheet.column(&["Projection"]),
            size: [
                sheet.column(&["Columns_DICOM"]),
                sheet.column(&["Rows_DICOM"]),
            ],
        })
    }

    /// What a row says of its image, without the labels.
    fn record(&self, line: Line<'_>, builder: &mut Builder) -> Result<Record, DatasetError> {
        let image = line.need(self.image)?;
        let name = match (self.folder, line.said(self.folder)) {
            (Some(column), Some(_)) => format!("{}/{image}", line.whole(column)?),
            _ => image.to_owned(),
        };
        let mut record = Record {
            patient: Some(line.patient(line.need(self.patient)?)?),
            study: (line.said(self.study))
                .map(|study| line.study(study))
                .transpose()?,
            ..Record::new(line.image_name(&name)?, Vec::new())
        };
        if let Some(sex) = line.said(self.sex) {
            match Sex::parse(sex) {
                Ok(sex) => record.sex = sex,
                Err(()) => {
                    let message = format!(
                        "images of the sex `{}`, which is taken for unknown",
                        excerpt(sex)
                    );
                    builder.warn(&message, line.place());
                }
            }
        }
        self.age(line, builder, &mut record)?;
        match line.said(self.projection) {
            None => builder.warn("images without a projection", line.place()),
            Some(code) => {
                record.view = ViewPosition::parse(code).or(Some(ViewPosition::Other));
                if record.view == Some(ViewPosition::Other) {
                    record.view_code = Some(code.into());
                }
            }
        }
        let side = |column: Option<usize>| {
            let side = whole_number(line.said(column)?)?;
            u32::try_from(side).ok()
        };
        let [width, height] = self.size;
        record.original_size = side(width).zip(side(height));
        Ok(record)
    }

    /// The year of the study without the year of birth.
    fn age(
        &self,
        line: Line<'_>,
        builder: &mut Builder,
        record: &mut Record,
    ) -> Result<(), DatasetError> {
        let (Some(birth), Some(date)) = (self.birth, self.date) else {
            return Ok(());
        };
        if line.said(Some(birth)).is_none() || line.said(Some(date)).is_none() {
            builder.warn("images without the year of birth or the date", line.place());
            return Ok(());
        }
        let (born, taken) = (line.whole(birth)?, line.whole(date)? / 10_000);
        match taken.checked_sub(born).map(u16::try_from) {
            Some(Ok(age)) => record.age_years = Some(age),
            _ => builder.warn(
                "images that are older than their patient; the age is unknown",
                line.place(),
            ),
        }
        Ok(())
    }
}

/// The items of a list of texts as Python prints it, without spaces at their ends, and without empty ones and
/// `nan`. `None` for what is no such list.
fn python_list(text: &str) -> Option<Vec<String>> {
    let inner = text.trim().strip_prefix('[')?.strip_suffix(']')?;
    let mut items: Vec<String> = Vec::new();
    let mut rest = inner.trim_start();
    while !rest.is_empty() {
        let quote = rest.chars().next()?;
        let item = if quote == '\'' || quote == '"' {
            let mut item = String::new();
            let mut characters = rest.char_indices().skip(1);
            let end = loop {
                match characters.next()? {
                    (_, '\\') => item.push(characters.next()?.1),
                    (at, character) if character == quote => break at,
                    (_, character) => item.push(character),
                }
            };
            rest = rest.get(end + 1..)?;
            item
        } else {
            // `nan`, which pandas leaves in a list.
            let end = rest.find(',').unwrap_or(rest.len());
            let (word, behind) = rest.split_at(end);
            if !is_missing(word.trim()) {
                return None;
            }
            rest = behind;
            String::new()
        };
        let item = item.trim();
        if !item.is_empty() && !is_missing(item) && !items.iter().any(|known| known == item) {
            items.push(item.to_owned());
        }
        rest = rest.trim_start();
        if !rest.is_empty() {
            rest = rest.strip_prefix(',')?.trim_start();
        }
    }
    Some(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_python_prints_them() {
        for (text, expected) in [
            ("[]", Some(vec![])),
            ("['']", Some(vec![])),
            ("[nan]", Some(vec![])),
            (
                "['cardiomegaly', ' pneumonia']",
                Some(vec!["cardiomegaly", "pneumonia"]),
            ),
            ("['a', 'a ', \"b's\"]", Some(vec!["a", "b's"])),
            (r"['b\'s', 'c, d']", Some(vec!["b's", "c, d"])),
            ("['a',]", Some(vec!["a"])),
            ("['a' 'b']", None),
            ("['a", None),
            ("a", None),
            ("[a]", None),
            ("", None),
        ] {
            let found = python_list(text);
            let found = found.as_ref().map(|items| {
                let items = items.iter().map(String::as_str);
                items.collect::<Vec<_>>()
            });
            assert_eq!(found, expected, "{text}");
        }
    }
}
