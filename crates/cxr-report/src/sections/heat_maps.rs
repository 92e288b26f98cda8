//! Where the model looks: heat maps, and how well they agree with boxes.

use super::words::{cells, count, dash};
use super::{Material, Section};
use crate::document::{Block, Document, Table};
use crate::explanations::BoxScores;
use crate::tables::or_empty;
use cxr_table::csv_line as line;

/// Figure 7, the gallery, and the scores against boxes.
pub(super) struct HeatMaps;

impl Section for HeatMaps {
    fn add(&self, page: &mut Document, from: &Material<'_>) {
        let Some(pictures) = &from.report.evidence.pictures else {
            return;
        };
        page.heading("Where the model looks");
        page.figure(&from.figures, "figure7");
        page.add(Block::Gallery(pictures.explanations.clone()));
        if let Some(boxes) = &pictures.explanations.boxes {
            add_boxes(page, boxes);
            add_methods(page, boxes, &pictures.explanations.other_methods);
        }
    }

    fn files(&self, from: &Material<'_>) -> Vec<(&'static str, String)> {
        let pictures = from.report.evidence.pictures.as_ref();
        let explanations = pictures.map(|pictures| &pictures.explanations);
        let file = explanations.and_then(|explanations| {
            let boxes = explanations.boxes.as_ref()?;
            let all = std::iter::once(boxes).chain(&explanations.other_methods);
            Some(("boxes.csv", boxes_csv(all)))
        });
        file.into_iter().collect()
    }

    fn file_names(&self) -> &'static [&'static str] {
        &["boxes.csv"]
    }
}

fn add_boxes(page: &mut Document, boxes: &BoxScores) {
    let mut rows = vec![cells(&[
        "finding",
        "boxes",
        "peak in the box",
        "share",
        "by chance",
        "mean overlap",
    ])];
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let (mut n, mut hits, mut area, mut overlap) = (0, 0, 0.0, 0.0);
    for finding in &boxes.findings {
        rows.push(vec![
            finding.finding.as_str().into(),
            count(finding.boxes).into(),
            count(finding.hits).into(),
            (finding.accuracy()).map_or_else(dash, |share| percent(share).into()),
            percent(finding.mean_box_area).into(),
            format!("{:.3}", finding.mean_overlap).into(),
        ]);
        n += finding.boxes;
        hits += finding.hits;
        area += finding.mean_box_area * finding.boxes as f64;
        overlap += finding.mean_overlap * finding.boxes as f64;
    }
    if n > 0 {
        let n_boxes = n as f64;
        rows.push(vec![
            "all boxes".into(),
            count(n).into(),
            count(hits).into(),
            percent(hits as f64 / n_boxes).into(),
            percent(area / n_boxes).into(),
            format!("{:.3}", overlap / n_boxes).into(),
        ]);
    }
    page.text("**Heat maps against boxes.** The heat map of a boxed finding, whatever the model predicts:");
    page.add(Block::Table(Table {
        rows,
        feet: 1,
        file: Some("boxes.csv".to_owned()),
    }));
    let empty: usize = boxes
        .findings
        .iter()
        .map(|finding| finding.empty_maps)
        .sum();
    let mut notes = vec![format!(
        "Peak in the box is the pointing game (Zhang et al. 2018); by chance is the share of the \
         image that the boxes cover. Overlap is intersection over union of the box and the cells of \
         at least {:.0} % of the map's largest value. A map is 7×7 cells, so small boxes overlap little \
         whatever the model does.",
        100.0 * boxes.hot_share
    )];
    for (n, what) in [
        (
            empty,
            "boxes have a map that is zero everywhere: a miss, overlap 0",
        ),
        (
            boxes.boxes_of_other_images,
            "boxes are of images that are not among the available test images: not scored",
        ),
        (
            boxes.boxes_outside,
            "boxes lie outside what the network sees: not scored",
        ),
    ] {
        if n > 0 {
            notes.push(format!("{} {what}.", count(n)));
        }
    }
    page.list(notes);
}

/// The methods side by side, over all boxes.
fn add_methods(page: &mut Document, boxes: &BoxScores, others: &[BoxScores]) {
    if others.is_empty() {
        return;
    }
    let mut rows = vec![cells(&[
        "method",
        "peak in the box",
        "share",
        "mean overlap",
    ])];
    for scores in std::iter::once(boxes).chain(others) {
        let n: usize = scores.findings.iter().map(|finding| finding.boxes).sum();
        let hits: usize = scores.findings.iter().map(|finding| finding.hits).sum();
        let overlap: f64 = (scores.findings.iter())
            .map(|finding| finding.mean_overlap * finding.boxes as f64)
            .sum();
        let of_all = |sum: f64| (n > 0).then(|| sum / n as f64);
        rows.push(vec![
            scores.method.as_str().into(),
            count(hits).into(),
            of_all(hits as f64).map_or_else(dash, |share| format!("{:.1} %", 100. * share).into()),
            of_all(overlap).map_or_else(dash, |overlap| format!("{overlap:.3}").into()),
        ]);
    }
    page.text("**Methods side by side.** The same boxes, and heat maps made in other ways:");
    page.add(Block::Table(Table {
        rows,
        feet: 0,
        file: None,
    }));
}

fn boxes_csv<'a>(methods: impl Iterator<Item = &'a BoxScores>) -> String {
    let mut text = line([
        "finding",
        "boxes",
        "hits",
        "accuracy",
        "mean_box_area",
        "mean_overlap",
        "empty_maps",
        "method",
    ]);
    let findings =
        methods.flat_map(|boxes| boxes.findings.iter().map(move |finding| (boxes, finding)));
    for (boxes, finding) in findings {
        text.push_str(&line([
            finding.finding.clone(),
            finding.boxes.to_string(),
            finding.hits.to_string(),
            or_empty(finding.accuracy()),
            finding.mean_box_area.to_string(),
            finding.mean_overlap.to_string(),
            finding.empty_maps.to_string(),
            boxes.method.clone(),
        ]));
    }
    text
}
