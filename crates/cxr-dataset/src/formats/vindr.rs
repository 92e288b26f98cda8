//! VinDr-CXR (PhysioNet) and VinBigData (Kaggle), which is a part of it: images read by several radiologists.
//!
//! An image is an `image_id`; neither patients nor studies are known. `image_labels_*.csv` has a row for each image and
//! reader, or for each image where the readers have agreed (test). `annotations_*.csv` and Kaggle's `train.csv` have a
//! row for each box: a reader's labels are the classes of his rows, and the labels of the table are negative where he
//! draws none. Readers are joined by the rule that is named. Views are PA by the publishers' choice of images, and are
//! left unknown, for no table says so.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use cxr_table::excerpt;

use super::readers::Votes;
use super::sheet::union;
use super::source::key;
use super::{DatasetFormat, Header, Line, ReaderRule, Request, Sheet, Source};
use crate::index::builder::Builder;
use crate::record::Record;
use crate::{DatasetError, FindingBox, ImageName, Index, LabelSet, LabelState, Part, Release};

/// The labels of VinDr-CXR in the order of its files; the last six are never boxed.
const LABELS: [&str; 28] = [
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Clavicle fracture",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Enlarged PA",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Lung cavity",
    "Lung cyst",
    "Mediastinal shift",
    "Nodule/Mass",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
    "Rib fracture",
    "Other lesion",
    "COPD",
    "Lung tumor",
    "Pneumonia",
    "Tuberculosis",
    "Other diseases",
    "No finding",
];
/// The fourteen classes of Kaggle's table and `No finding`, in the order of their numbers.
const KAGGLE: [&str; 15] = [
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Consolidation",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Nodule/Mass",
    "Other lesion",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
    "No finding",
];
/// So many of its labels show that a table is VinDr-CXR's.
const ENOUGH: usize = 5;

/// VinDr-CXR as PhysioNet has it.
#[derive(Debug)]
pub(super) struct VinDrCxr;

/// VinBigData's competition on Kaggle.
#[derive(Debug)]
pub(super) struct VinBigData;

impl DatasetFormat for VinDrCxr {
    fn name(&self) -> &'static str {
        "vindr-cxr"
    }

    fn title(&self) -> &'static str {
        "VinDr-CXR"
    }

    fn access(&self) -> &'static str {
        "credentialed access with training and a data use agreement, on PhysioNet: https://physionet.org/content/vindr-cxr/"
    }

    fn recognises(&self, header: &Header<'_>) -> bool {
        header.has("image_id") && (has_boxes(header) || header.count(&LABELS) >= ENOUGH)
    }

    fn joins(&self) -> bool {
        true
    }

    fn read(&self, request: Request) -> Result<Index, DatasetError> {
        let readers = request.readers;
        let is_labels = |source: &Source| !has_boxes(&source.header());
        let (mut tables, boxes): (Vec<Source>, Vec<Source>) =
            request.named.into_iter().partition(is_labels);
        let mut beside: Vec<Source> = request.beside;
        // A table of boxes is the truth only where no table of labels is.
        let mut boxes_of_labels = Vec::new();
        for source in boxes {
            match tables.iter().any(|labels| part(labels) == part(&source)) {
                true => boxes_of_labels.push(source),
                false => tables.push(source),
            }
        }
        let wanted = |source: &Source| {
            !is_labels(source)
                && (tables.iter()).any(|labels| is_labels(labels) && part(labels) == part(source))
        };
        boxes_of_labels.extend(beside.extract_if(.., |source| wanted(source)));
        read(
            Release::new("vindr-cxr", "VinDr-CXR"),
            &LABELS,
            tables,
            boxes_of_labels,
            readers,
        )
    }

    #[cfg(test)]
    fn examples(&self) -> &'static [super::Example] {
        use super::Example;
        &[
            Example {
                header: "image_id,rad_id,Aortic enlargement,Atelectasis,Calcification,Cardiomegaly,Edema",
                row: "@,R1,0,1,0,0,0",
                names: ["a1f", "b2f"],
            },
            Example {
                header: "image_id,rad_id,class_name,x_min,y_min,x_max,y_max",
                row: "@,R1,Cardiomegaly,1,2,3,4",
                names: ["a1f", "b2f"],
            },
        ]
    }
}

impl DatasetFormat for VinBigData {
    fn name(&self) -> &'static str {
        "vinbigdata"
    }

    fn title(&self) -> &'static str {
        "VinBigData"
    }

    fn access(&self) -> &'static str {
        "an account and the rules of the competition on Kaggle: https://www.kaggle.com/c/vinbigdata-chest-xray-abnormalities-detection"
    }

    fn recognises(&self, header: &Header<'_>) -> bool {
        header.has("image_id") && has_boxes(header) && header.has("class_id")
    }

    fn read(&self, request: Request) -> Result<Index, DatasetError> {
        let readers = request.readers;
        read(
            Release::new("vinbigdata", "VinBigData"),
            &KAGGLE,
            request.all(),
            Vec::new(),
            readers,
        )
    }

    #[cfg(test)]
    fn examples(&self) -> &'static [super::Example] {
        use super::Example;
        &[Example {
            header: "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max",
            row: "@,Cardiomegaly,3,R1,1,2,3,4",
            names: ["a1f", "b2f"],
        }]
    }
}

fn has_boxes(header: &Header<'_>) -> bool {
    header.has("class_name") && header.has("x_min")
}

/// The part that a table's name says.
fn part(source: &Source) -> Option<Part> {
    let stem = source.stem();
    match (stem.contains("train"), stem.contains("test")) {
        (true, false) => Some(Part::Train),
        (false, true) => Some(Part::Test),
        _ => None,
    }
}

/// A label's usual name: one converter writes the test's `Other disease`.
fn usual(name: &str) -> &str {
    match name {
        "Other disease" => "Other diseases",
        name => name,
    }
}

fn read(
    release: Release,
    closed: &[&str],
    tables: Vec<Source>,
    boxes: Vec<Source>,
    rule: ReaderRule,
) -> Result<Index, DatasetError> {
    let first = tables.first().map(|source| source.path().to_owned());
    let names = tables.iter().flat_map(|source| {
        let header = source.header();
        match has_boxes(&header) {
            true => closed.to_vec(),
            false => (header.names().iter())
                .map(|name| usual(name))
                .filter(|name| !FACTS.iter().any(|fact| key(fact) == key(name)))
                .collect(),
        }
    });
    let labels = union(&first.unwrap_or_default(), names)?;
    let mut builder = Builder::new(release, labels);
    for source in tables {
        let part = part(&source);
        let by_box = has_boxes(&source.header());
        let sheet = source.load()?;
        match by_box {
            true => read_boxes(&sheet, part, rule, closed, &mut builder)?,
            false => read_labels(&sheet, part, rule, &mut builder)?,
        }
    }
    for source in boxes {
        add_boxes(&source.load()?, &mut builder)?;
    }
    Ok(builder.finish())
}

/// What is no label in `image_labels_*.csv`.
const FACTS: [&str; 3] = ["image_id", "rad_id", ""];

/// The readers' answers by image, in the order in which images occur first.
struct Images<'a> {
    order: Vec<Image<'a>>,
    by_id: HashMap<&'a str, usize>,
}

struct Image<'a> {
    id: &'a str,
    line: u64,
    readers: Vec<(&'a str, Box<[LabelState]>)>,
}

impl<'a> Images<'a> {
    fn new() -> Self {
        Self {
            order: Vec::new(),
            by_id: HashMap::new(),
        }
    }

    fn of(&mut self, line: Line<'a>, column: usize) -> Result<&mut Image<'a>, DatasetError> {
        let id = line.need(column)?;
        let at = *self.by_id.entry(id).or_insert_with(|| {
            self.order.push(Image {
                id,
                line: line.number(),
                readers: Vec::new(),
            });
            self.order.len() - 1
        });
        self.order
            .get_mut(at)
            .ok_or_else(|| line.error("the image is lost", "report this"))
    }

    /// One record for each image, its readers joined.
    fn finish(
        self,
        path: &Path,
        part: Option<Part>,
        rule: ReaderRule,
        builder: &mut Builder,
    ) -> Result<(), DatasetError> {
        let n_labels = builder.label_set().len();
        for image in self.order {
            let mut votes = vec![Votes::default(); n_labels];
            for (_, states) in &image.readers {
                for (votes, state) in votes.iter_mut().zip(states) {
                    votes.add(*state);
                }
            }
            let labels: Vec<LabelState> = votes.iter().map(|votes| votes.joined(rule)).collect();
            let name = ImageName::new(image.id).map_err(|refused| {
                DatasetError::line(
                    path,
                    image.line,
                    refused.to_string(),
                    "restore the row from the published table",
                )
            })?;
            let record = Record {
                part,
                ..Record::new(name, labels)
            };
            builder.push(path, image.line, record)?;
        }
        Ok(())
    }
}

/// `image_labels_*.csv`: a row for each image and reader, or for each image.
fn read_labels(
    sheet: &Sheet,
    part: Option<Part>,
    rule: ReaderRule,
    builder: &mut Builder,
) -> Result<(), DatasetError> {
    sheet.check()?;
    let image = sheet.need(&["image_id"])?;
    let reader = sheet.column(&["rad_id"]);
    let set = builder.label_set().clone();
    let columns: Vec<(usize, usize)> = (sheet.header().iter().enumerate())
        .filter_map(|(column, name)| {
            let name = key(usual(name));
            let place = set.names().iter().position(|label| key(label) == name)?;
            Some((column, place))
        })
        .collect();
    let mut images = Images::new();
    for line in sheet.lines() {
        let mut states = vec![LabelState::Unknown; set.len()].into_boxed_slice();
        for &(column, place) in &columns {
            if let Some(state) = states.get_mut(place) {
                *state = line.label(column)?;
            }
        }
        let who = match reader {
            Some(reader) => line.need(reader)?,
            None => "",
        };
        let image = images.of(line, image)?;
        if image.readers.iter().any(|(known, _)| *known == who) {
            return Err(line.error(
                match who {
                    "" => format!("the image `{}` is listed twice", excerpt(image.id)),
                    who => format!(
                        "the reader `{}` is listed twice for the image `{}`",
                        excerpt(who),
                        excerpt(image.id)
                    ),
                },
                "list every reading once",
            ));
        }
        image.readers.push((who, states));
    }
    images.finish(sheet.path(), part, rule, builder)
}

/// A table of boxes as the truth: a reader's labels are the classes of his rows.
fn read_boxes(
    sheet: &Sheet,
    part: Option<Part>,
    rule: ReaderRule,
    closed: &[&str],
    builder: &mut Builder,
) -> Result<(), DatasetError> {
    sheet.check()?;
    let columns = BoxColumns::of(sheet)?;
    let set = builder.label_set().clone();
    let no_finding = set.no_finding();
    let mut images = Images::new();
    for line in sheet.lines() {
        let (label, found) = columns.row(line, &set)?;
        columns.check_number(line, closed)?;
        let who = match columns.reader {
            Some(reader) => line.need(reader)?,
            None => "",
        };
        let image = images.of(line, columns.image)?;
        let at = image.readers.iter().position(|(known, _)| *known == who);
        let at = at.unwrap_or_else(|| {
            // A class that this table is not about stays unknown.
            let states = set.names().iter().map(|name| {
                let is_here = closed.iter().any(|known| key(known) == key(name));
                match is_here {
                    true => LabelState::Negative,
                    false => LabelState::Unknown,
                }
            });
            image.readers.push((who, states.collect()));
            image.readers.len() - 1
        });
        if let Some((_, states)) = image.readers.get_mut(at) {
            let has_any = states.contains(&LabelState::Positive);
            let is_clear = no_finding.and_then(|label| states.get(label));
            let was_clear = is_clear == Some(&LabelState::Positive);
            if was_clear != (Some(label) == no_finding) && has_any {
                return Err(line.error(
                    "one reader says both `No finding` and a finding",
                    "restore the rows of the image from the published table",
                ));
            }
            if let Some(state) = states.get_mut(label) {
                *state = LabelState::Positive;
            }
        }
        if let Some(found) = found {
            builder.add_box(found);
        }
    }
    images.finish(sheet.path(), part, rule, builder)
}

/// Boxes of images whose labels another table has.
fn add_boxes(sheet: &Sheet, builder: &mut Builder) -> Result<(), DatasetError> {
    sheet.check()?;
    builder.read_table(sheet.path());
    let columns = BoxColumns::of(sheet)?;
    let set = builder.label_set().clone();
    for line in sheet.lines() {
        let (_, found) = columns.row(line, &set)?;
        let Some(found) = found else { continue };
        match builder.position(&found.name) {
            Some(_) => builder.add_box(found),
            None => builder.warn(
                "boxes of images that the table of labels does not have",
                line.place(),
            ),
        }
    }
    Ok(())
}

struct BoxColumns {
    image: usize,
    class: usize,
    number: Option<usize>,
    reader: Option<usize>,
    edges: [usize; 4],
}

impl BoxColumns {
    fn of(sheet: &Sheet) -> Result<Self, DatasetError> {
        Ok(Self {
            image: sheet.need(&["image_id"])?,
            class: sheet.need(&["class_name"])?,
            number: sheet.column(&["class_id"]),
            reader: sheet.column(&["rad_id"]),
            edges: [
                sheet.need(&["x_min"])?,
                sheet.need(&["y_min"])?,
                sheet.need(&["x_max"])?,
                sheet.need(&["y_max"])?,
            ],
        })
    }

    /// The label of a row, and its box; `No finding` and findings of the whole image have none.
    fn row(
        &self,
        line: Line<'_>,
        set: &LabelSet,
    ) -> Result<(usize, Option<FindingBox>), DatasetError> {
        let class = key(usual(line.need(self.class)?));
        let label = set.names().iter().position(|name| key(name) == class);
        let Some(label) = label else {
            return Err(line.unexpected(self.class, "one of the classes"));
        };
        let finding = set.names().get(label).cloned().unwrap_or_default();
        let n_said = (self.edges.iter())
            .filter(|&&edge| line.said(Some(edge)).is_some())
            .count();
        if n_said == 0 {
            return Ok((label, None));
        }
        let [left, upper, right, lower] = self.edges;
        let (x, y) = (line.decimal(left)?, line.decimal(upper)?);
        let (width, height) = (line.decimal(right)? - x, line.decimal(lower)? - y);
        if x < 0. || y < 0. || width <= 0. || height <= 0. {
            return Err(line.error(
                "expected a box with its left and upper edges before the others, and none below 0",
                "restore the row from the published table",
            ));
        }
        Ok((
            label,
            Some(FindingBox {
                name: line.image_name(line.need(self.image)?)?,
                finding,
                x,
                y,
                width,
                height,
                reader: line.said(self.reader).map(Arc::from),
            }),
        ))
    }

    /// Whether a class has Kaggle's number.
    fn check_number(&self, line: Line<'_>, closed: &[&str]) -> Result<(), DatasetError> {
        let Some(column) = self.number else {
            return Ok(());
        };
        let number = line.whole(column)?;
        let named = usize::try_from(number)
            .ok()
            .and_then(|number| closed.get(number));
        let class = key(line.cell(self.class));
        match named.is_some_and(|name| key(name) == class) {
            true => Ok(()),
            false => Err(line.unexpected(
                column,
                &format!("the number of `{}`", excerpt(line.cell(self.class))),
            )),
        }
    }
}
