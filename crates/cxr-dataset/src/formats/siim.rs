//! SIIM-ACR Pneumothorax 2019: `train-rle.csv` and `stage_2_train.csv`.
//!
//! A row is an annotation, an image an `ImageId`: it has the one label, `Pneumothorax`, positive where one of its rows has a
//! mask, negative where its row says −1. Masks are checked: pairs of gap and length that stay within 1024×1024 pixels,
//! which run down the columns; their boxes are the boxes of the index. Patients are unknown.

use cxr_table::excerpt;

use super::sheet::label_set;
use super::source::SUBMISSION;
use super::{DatasetFormat, Header, Line, Request, Sheet};
use crate::index::builder::Builder;
use crate::record::Record;
use crate::{DatasetError, FindingBox, Index, LabelState, Release};

const LABEL: &str = "Pneumothorax";
/// Images have so many pixels a side.
const SIDE: u64 = 1024;

/// SIIM-ACR's pneumothorax challenge.
#[derive(Debug)]
pub(super) struct SiimPneumothorax;

impl DatasetFormat for SiimPneumothorax {
    fn name(&self) -> &'static str {
        "siim-pneumothorax"
    }

    fn title(&self) -> &'static str {
        "SIIM-ACR Pneumothorax"
    }

    fn access(&self) -> &'static str {
        "an account and the rules of the competition on Kaggle: https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation"
    }

    fn recognises(&self, header: &Header<'_>) -> bool {
        header.has("ImageId") && header.has("EncodedPixels")
    }

    fn read(&self, request: Request) -> Result<Index, DatasetError> {
        let sources = request.all();
        if let Some(example) = (sources.iter()).find(|source| source.stem().contains(SUBMISSION)) {
            return Err(DatasetError::table(
                example.path(),
                "this is Kaggle's example of a submission, whose masks are no labels",
                "take `train-rle.csv` or `stage_2_train.csv`",
            ));
        }
        let path = (sources.first()).map(|source| source.path().to_owned());
        let set = label_set(&path.unwrap_or_default(), vec![LABEL.to_owned()])?;
        let release = Release::new("siim-pneumothorax", "SIIM-ACR Pneumothorax");
        let mut builder = Builder::new(release, set);
        for source in sources {
            read(&source.load()?, &mut builder)?;
        }
        Ok(builder.finish())
    }

    #[cfg(test)]
    fn examples(&self) -> &'static [super::Example] {
        use super::Example;
        &[Example {
            header: "ImageId, EncodedPixels",
            row: "@, -1",
            names: ["a1f", "b2f"],
        }]
    }
}

fn read(sheet: &Sheet, builder: &mut Builder) -> Result<(), DatasetError> {
    sheet.check()?;
    let (id, mask) = (sheet.need(&["ImageId"])?, sheet.need(&["EncodedPixels"])?);
    for line in sheet.lines() {
        let name = line.image_name(line.cell(id))?;
        let (state, found) = annotation(line, mask)?;
        if let Some([x, y, width, height]) = found {
            builder.add_box(FindingBox {
                name: name.clone(),
                finding: LABEL.to_owned(),
                x,
                y,
                width,
                height,
                reader: None,
            });
        }
        let Some(position) = builder.position(&name) else {
            builder.push(sheet.path(), line.number(), Record::new(name, [state]))?;
            continue;
        };
        let known = (builder.record_mut(position)).and_then(|record| record.labels.first_mut());
        let Some(known) = known else { continue };
        if state == LabelState::Negative && *known == state {
            return Err(line.error(
                format!(
                    "the image `{}` is listed twice without a mask",
                    excerpt(line.cell(id))
                ),
                "restore its rows from the published table",
            ));
        }
        let is_contradiction = *known != state;
        // A mask that one annotator drew is a finding.
        if state == LabelState::Positive || *known == LabelState::Unknown {
            *known = state;
        }
        if is_contradiction {
            builder.warn(
                "images that have a mask on one row and none on another; they are positive",
                line.place(),
            );
        }
    }
    Ok(())
}

/// What a row says, and left, upper edge, width and height of its mask in pixels.
fn annotation(
    line: Line<'_>,
    column: usize,
) -> Result<(LabelState, Option<[f64; 4]>), DatasetError> {
    let Some(text) = line.said(Some(column)) else {
        return Ok((LabelState::Unknown, None));
    };
    if text.trim() == "-1" {
        return Ok((LabelState::Negative, None));
    }
    match mask_box(text) {
        Ok(found) => Ok((LabelState::Positive, Some(found))),
        Err(problem) => Err(line.error(
            format!("the mask in `EncodedPixels` {problem}"),
            "restore the row from the published table",
        )),
    }
}

/// The box of a mask of pairs `gap length`, gaps counted from the end of the run before.
fn mask_box(text: &str) -> Result<[f64; 4], String> {
    let mut numbers = text.split_ascii_whitespace().map(|number| {
        let parsed: Result<u64, _> = number.parse();
        parsed.map_err(|_| format!("has `{}` where a number is expected", excerpt(number)))
    });
    let mut at = 0_u64;
    let (mut left, mut right) = (SIDE, 0);
    let (mut upper, mut lower) = (SIDE, 0);
    while let Some(gap) = numbers.next() {
        let gap = gap?;
        let length = match numbers.next() {
            Some(length) => length?,
            None => return Err("has a gap without a length".to_owned()),
        };
        if length == 0 {
            return Err("has a run of length 0".to_owned());
        }
        let begin = at.saturating_add(gap);
        at = begin.saturating_add(length);
        if at > SIDE * SIDE {
            return Err(format!("leaves the image of {SIDE}×{SIDE} pixels"));
        }
        // Pixels are numbered down the columns.
        let last = at - 1;
        left = left.min(begin / SIDE);
        right = right.max(last / SIDE);
        if begin / SIDE == last / SIDE {
            upper = upper.min(begin % SIDE);
            lower = lower.max(last % SIDE);
        } else {
            (upper, lower) = (0, SIDE - 1);
        }
    }
    match at {
        0 => Err("has no run".to_owned()),
        _ => Ok([
            left as f64,
            upper as f64,
            (right + 1 - left) as f64,
            (lower + 1 - upper) as f64,
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_within_the_image_or_named() {
        // Columns 0 and 1, rows 10 to 12 and 5 to 6.
        assert_eq!(mask_box("10 3 1016 2"), Ok([0., 5., 2., 8.]));
        assert_eq!(mask_box("0 1048576"), Ok([0., 0., 1024., 1024.]));
        for (text, problem) in [
            ("", "has no run"),
            ("5", "without a length"),
            ("5 0", "length 0"),
            ("5 x", "has `x`"),
            ("-5 1", "has `-5`"),
            ("0 1048577", "leaves the image"),
            ("18446744073709551615 18446744073709551615", "leaves"),
        ] {
            let error = mask_box(text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
