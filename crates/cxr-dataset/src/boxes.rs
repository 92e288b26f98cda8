//! Radiologists' boxes around findings: `BBox_List_2017.csv`.

use std::path::Path;

use cxr_table::{Table, excerpt};

use crate::{DatasetError, ImageName, LabelSet};

/// One box around one finding, in pixels of the publisher's image (ChestX-ray14's and RSNA's have 1024×1024); `x`, `y`
/// is its upper left corner.
#[derive(Clone, Debug, PartialEq)]
pub struct FindingBox {
    /// The image.
    pub name: ImageName,
    /// The finding, under its name in the [`LabelSet`] of the index.
    pub finding: String,
    /// Left edge.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// Width, above 0.
    pub width: f64,
    /// Height, above 0.
    pub height: f64,
    /// Who drew it, where the table says so.
    pub reader: Option<std::sync::Arc<str>>,
}

/// Reads NIH's box list: image, finding, x, y, width, height, in 1024-pixel coordinates.
///
/// The list's `Infiltrate` is returned as `Infiltration`, its name everywhere else.
///
/// # Errors
/// An unreadable file, another header, a finding outside the fourteen, or a box that is not a
/// finite rectangle inside the image.
pub fn read_boxes(path: impl AsRef<Path>) -> Result<Vec<FindingBox>, DatasetError> {
    const SIDE: f64 = 1024.0;
    let path = path.as_ref();
    let table = Table::read(path)?;
    let header: Vec<&str> = table.header().iter().map(String::as_str).collect();
    if !matches!(
        header.as_slice(),
        [
            "Image Index",
            "Finding Label",
            "Bbox [x",
            "y",
            "w",
            "h]",
            ..
        ]
    ) {
        return Err(DatasetError::table(
            path,
            "expected the header `Image Index,Finding Label,Bbox [x,y,w,h]`",
            "take NIH's `BBox_List_2017.csv`",
        ));
    }
    table.check_lengths()?;
    let label_set = LabelSet::chest_x_ray14();
    let mut boxes = Vec::with_capacity(table.rows().len());
    for row in table.rows() {
        let error = |problem: String| {
            DatasetError::line(path, row.line(), problem, "restore the row from NIH's list")
        };
        let cell = |column: usize| row.cell(column);
        let name = ImageName::new(cell(0)).map_err(|refused| error(refused.to_string()))?;
        let finding = if cell(1) == "Infiltrate" {
            "Infiltration"
        } else {
            cell(1)
        };
        if label_set.index_of(finding).is_none() {
            return Err(error(format!(
                "`{}` is none of the fourteen findings",
                excerpt(finding)
            )));
        }
        let number = |column: usize| match table.decimal(cell(column)) {
            Some(number) if (0.0..=SIDE).contains(&number) => Ok(number),
            _ => Err(error(format!(
                "expected a number from 0 to {SIDE}, got `{}`",
                excerpt(cell(column))
            ))),
        };
        let found = FindingBox {
            name,
            finding: finding.to_owned(),
            x: number(2)?,
            y: number(3)?,
            width: number(4)?,
            height: number(5)?,
            reader: None,
        };
        let (right, lower) = (found.x + found.width, found.y + found.height);
        if found.width <= 0.0 || found.height <= 0.0 || right > SIDE || lower > SIDE {
            return Err(error(format!("expected a box inside {SIDE}×{SIDE} pixels")));
        }
        boxes.push(found);
    }
    Ok(boxes)
}
