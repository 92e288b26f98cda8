//! RSNA Pneumonia Detection 2018, stage 2: `stage_2_train_labels.csv` and `stage_2_detailed_class_info.csv`.
//!
//! A row is a box; an image is a `patientId`, which is no patient: images are NIH's, and which patient one shows is not in
//! these tables, so patients and studies are unknown. `Target` 1 is positive for both `Lung Opacity` and `Pneumonia`, as
//! torchxrayvision has it: the readers marked opacities that are suspicious of pneumonia. The three classes of the other
//! table are labels too: `Lung Opacity`, which has to agree with `Target`, `No Lung Opacity / Not Normal` and `Normal`.

use std::collections::HashMap;

use cxr_table::excerpt;

use super::sheet::label_set;
use super::{DatasetFormat, Header, Line, Request, Sheet, Source};
use crate::index::builder::Builder;
use crate::record::Record;
use crate::{DatasetError, FindingBox, Index, LabelState, Release};

const OPACITY: &str = "Lung Opacity";
const PNEUMONIA: &str = "Pneumonia";
const ABNORMAL: &str = "No Lung Opacity / Not Normal";
const NORMAL: &str = "Normal";
/// The classes of `stage_2_detailed_class_info.csv`.
const CLASSES: [&str; 3] = [OPACITY, ABNORMAL, NORMAL];
/// Images have so many pixels a side.
const SIDE: f64 = 1024.;

/// RSNA's pneumonia challenge.
#[derive(Debug)]
pub(super) struct RsnaPneumonia;

impl DatasetFormat for RsnaPneumonia {
    fn name(&self) -> &'static str {
        "rsna-pneumonia"
    }

    fn title(&self) -> &'static str {
        "RSNA Pneumonia Detection"
    }

    fn access(&self) -> &'static str {
        "an account and the rules of the competition on Kaggle: https://www.kaggle.com/c/rsna-pneumonia-detection-challenge"
    }

    fn recognises(&self, header: &Header<'_>) -> bool {
        header.has("patientId") && (has_boxes(header) || header.has("class"))
    }

    fn joins(&self) -> bool {
        true
    }

    fn read(&self, request: Request) -> Result<Index, DatasetError> {
        let is_boxes = |source: &Source| has_boxes(&source.header());
        let (boxes, classes): (Vec<Source>, Vec<Source>) =
            request.all().into_iter().partition(is_boxes);
        let mut names = vec![OPACITY];
        if !boxes.is_empty() {
            names.insert(0, PNEUMONIA);
        }
        if !classes.is_empty() {
            names.extend([ABNORMAL, NORMAL]);
        }
        let path = (boxes.iter().chain(&classes).next())
            .map(|source| source.path().to_owned())
            .unwrap_or_default();
        let set = label_set(&path, names.into_iter().map(str::to_owned).collect())?;
        let release = Release::new("rsna-pneumonia", "RSNA Pneumonia Detection");
        let mut builder = Builder::new(release, set);
        let mut targets = Targets::default();
        for source in boxes {
            targets.read(&source.load()?, &mut builder)?;
        }
        for source in classes {
            add_classes(&source.load()?, &targets, &mut builder)?;
        }
        if !targets.of.is_empty() {
            let n_without = (builder.records().iter())
                .filter(|record| record.labels.contains(&LabelState::Unknown))
                .count();
            builder.warn_times("images that only one of the tables has", n_without, None);
        }
        builder.warn(
            "`patientId` identifies images, not patients, so patients are unknown; all images come from ChestX-ray14",
            None,
        );
        Ok(builder.finish())
    }

    #[cfg(test)]
    fn examples(&self) -> &'static [super::Example] {
        use super::Example;
        &[
            Example {
                header: "patientId,x,y,width,height,Target",
                row: "@,,,,,0",
                names: ["a1f", "b2f"],
            },
            Example {
                header: "patientId,class",
                row: "@,Normal",
                names: ["a1f", "b2f"],
            },
        ]
    }
}

fn has_boxes(header: &Header<'_>) -> bool {
    header.has("Target")
}

/// Sets labels by their names.
fn set(builder: &mut Builder, position: usize, labels: &[(&str, bool)]) {
    for (label, is_positive) in labels {
        let place = builder.label_set().index_of(label);
        let record = builder.record_mut(position);
        let state = record
            .zip(place)
            .and_then(|(record, place)| record.labels.get_mut(place));
        if let Some(state) = state {
            *state = match is_positive {
                true => LabelState::Positive,
                false => LabelState::Negative,
            };
        }
    }
}

/// The place of an image, which is added where it is new.
fn image(
    line: Line<'_>,
    column: usize,
    builder: &mut Builder,
) -> Result<(usize, bool), DatasetError> {
    let name = line.image_name(line.cell(column))?;
    if let Some(position) = builder.position(&name) {
        return Ok((position, false));
    }
    let unknown = vec![LabelState::Unknown; builder.label_set().len()];
    let position = builder.push(line.path(), line.number(), Record::new(name, unknown))?;
    Ok((position, true))
}

/// What the table of boxes says of each image.
#[derive(Default)]
struct Targets {
    of: HashMap<usize, bool>,
}

impl Targets {
    fn read(&mut self, sheet: &Sheet, builder: &mut Builder) -> Result<(), DatasetError> {
        sheet.check()?;
        let id = sheet.need(&["patientId"])?;
        let target = sheet.need(&["Target"])?;
        let edges = [
            sheet.need(&["x"])?,
            sheet.need(&["y"])?,
            sheet.need(&["width"])?,
            sheet.need(&["height"])?,
        ];
        for line in sheet.lines() {
            let (position, _) = image(line, id, builder)?;
            let is_positive = match line.label(target)? {
                LabelState::Positive => true,
                LabelState::Negative => false,
                _ => return Err(line.unexpected(target, "1 or 0")),
            };
            if let Some(other) = self.of.insert(position, is_positive)
                && (other != is_positive || !is_positive)
            {
                return Err(line.error(
                    match is_positive == other {
                        true => format!("the image `{}` is listed twice", excerpt(line.cell(id))),
                        false => format!(
                            "the image `{}` has the targets 0 and 1",
                            excerpt(line.cell(id))
                        ),
                    },
                    "restore its rows from the published table",
                ));
            }
            set(
                builder,
                position,
                &[(PNEUMONIA, is_positive), (OPACITY, is_positive)],
            );
            let n_said = (edges.iter())
                .filter(|&&edge| line.said(Some(edge)).is_some())
                .count();
            match (is_positive, n_said) {
                (false, 0) => {}
                (true, 4) => {
                    let [x, y, width, height] = edges;
                    let found = FindingBox {
                        name: line.image_name(line.cell(id))?,
                        finding: OPACITY.to_owned(),
                        x: line.decimal(x)?,
                        y: line.decimal(y)?,
                        width: line.decimal(width)?,
                        height: line.decimal(height)?,
                        reader: None,
                    };
                    let (right, lower) = (found.x + found.width, found.y + found.height);
                    let is_inside =
                        found.x >= 0. && found.y >= 0. && right <= SIDE && lower <= SIDE;
                    if !is_inside || found.width <= 0. || found.height <= 0. {
                        return Err(line.error(
                            format!("expected a box inside {SIDE}×{SIDE} pixels"),
                            "restore the row from the published table",
                        ));
                    }
                    builder.add_box(found);
                }
                _ => {
                    return Err(line.error(
                        "expected a box where `Target` is 1, and none where it is 0",
                        "restore the row from the published table",
                    ));
                }
            }
        }
        Ok(())
    }
}

fn add_classes(
    sheet: &Sheet,
    targets: &Targets,
    builder: &mut Builder,
) -> Result<(), DatasetError> {
    sheet.check()?;
    builder.read_table(sheet.path());
    let id = sheet.need(&["patientId"])?;
    let class = sheet.need(&["class"])?;
    let mut of: HashMap<usize, &str> = HashMap::new();
    for line in sheet.lines() {
        let known =
            (CLASSES.into_iter()).find(|known| known.eq_ignore_ascii_case(line.cell(class)));
        let Some(known) = known else {
            let expected = format!("`{}`", CLASSES.join("`, `"));
            return Err(line.unexpected(class, &expected));
        };
        let (position, _) = image(line, id, builder)?;
        // A row for each box says the same again.
        if let Some(other) = of.insert(position, known)
            && other != known
        {
            return Err(line.error(
                format!(
                    "the image `{}` has the classes `{other}` and `{known}`",
                    excerpt(line.cell(id))
                ),
                "restore its rows from the published table",
            ));
        }
        if let Some(&target) = targets.of.get(&position)
            && target != (known == OPACITY)
        {
            return Err(line.error(
                format!(
                    "the image `{}` is `{known}` here, and its target is {}",
                    excerpt(line.cell(id)),
                    u8::from(target)
                ),
                "take both tables of one stage",
            ));
        }
        let states = CLASSES.map(|name| (name, name == known));
        set(builder, position, &states);
    }
    Ok(())
}
