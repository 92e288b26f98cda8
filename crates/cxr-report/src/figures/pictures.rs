//! Figures 4 and 7: sample images with their labels, and Grad-CAM.

use super::Figure;
use super::svg::{Anchor, Svg};
use crate::evidence::Pictures;
use crate::explanations::{Example, ExampleKind};
use crate::report::Report;
use crate::sections::labels_or_none;

/// Letters of an average width that fit into so many pixels at the size of a label.
fn fit(text: &str, width: f64) -> Vec<String> {
    const LETTER: f64 = 7.0;
    let most = (width / LETTER) as usize;
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

pub(super) fn draw_samples(report: &Report) -> Option<Figure> {
    const COLUMNS: usize = 4;
    const SIDE: f64 = 172.0;
    const GAP: f64 = 14.0;
    const LINE: f64 = 14.0;
    let pictures = report.evidence.pictures.as_ref()?;
    let samples = &pictures.explanations.samples;
    if samples.is_empty() {
        return None;
    }
    let mut svg = Svg::default();
    let mut top = GAP;
    for row in samples.chunks(COLUMNS) {
        let mut most_lines = 1;
        for (column, sample) in row.iter().enumerate() {
            let left = GAP + (SIDE + GAP) * column as f64;
            let png = pictures.files.get(&sample.picture)?;
            svg.image((left, top), (SIDE, SIDE), png);
            let lines = fit(&labels_or_none(&sample.labels), SIDE);
            for (line, text) in lines.iter().enumerate() {
                let place = (left, top + SIDE + 15.0 + LINE * line as f64);
                svg.text("label", place, Anchor::Start, text);
            }
            most_lines = most_lines.max(lines.len());
        }
        top += SIDE + 20.0 + LINE * most_lines as f64;
    }
    let columns = samples.len().min(COLUMNS) as f64;
    Some(Figure {
        name: "figure4".to_owned(),
        title: "Figure 4. Sample images with their labels".to_owned(),
        caption: format!(
            "Test images as the network sees them. {}",
            pictures.explanations.sample_rule
        ),
        width: GAP + (SIDE + GAP) * columns,
        height: top,
        body: svg.into_body(),
    })
}

pub(super) fn draw_grad_cam(report: &Report) -> Option<Figure> {
    const SIDE: f64 = 124.0;
    const CELL: f64 = 2.0 * SIDE + 18.0;
    const HEAD: f64 = 26.0;
    const LEFT: f64 = 14.0;
    let pictures = report.evidence.pictures.as_ref()?;
    let panel = &pictures.explanations.panel;
    if panel.is_empty() {
        return None;
    }
    let mut svg = Svg::default();
    let (mut top, mut widest) = (8.0, 1);
    for kind in ExampleKind::ALL {
        let of_kind: Vec<&Example> = panel
            .iter()
            .filter(|example| example.kind == kind)
            .collect();
        if of_kind.is_empty() {
            continue;
        }
        widest = widest.max(of_kind.len());
        svg.text("head", (LEFT, top + 14.0), Anchor::Start, kind.words());
        let mut bottom = top;
        for (column, example) in of_kind.iter().enumerate() {
            let place = (LEFT + CELL * column as f64, top + HEAD);
            bottom = draw_example(&mut svg, pictures, example, place, SIDE)?.max(bottom);
        }
        top = bottom + 18.0;
    }
    Some(Figure {
        name: "figure7".to_owned(),
        title: "Figure 7. Grad-CAM".to_owned(),
        caption: format!(
            "Each test image as the network sees it, and with the heat map of the named label over \
             it (run `{}`, last feature map; brighter is more). {}",
            pictures.variant, pictures.explanations.rule
        ),
        width: LEFT + CELL * widest as f64,
        height: top,
        body: svg.into_body(),
    })
}

/// Gives back where it ends.
fn draw_example(
    svg: &mut Svg,
    pictures: &Pictures,
    example: &Example,
    (left, top): (f64, f64),
    side: f64,
) -> Option<f64> {
    let png = pictures.files.get(&example.picture)?;
    svg.image((left, top), (side, side), png);
    let png = pictures.files.get(&example.overlay)?;
    svg.image((left + side + 4.0, top), (side, side), png);
    let truth = format!("true: {}", labels_or_none(&example.labels));
    let predicted = format!("predicted: {}", labels_or_none(&example.predicted));
    let explained = example.about_map();
    let class = match example.kind {
        ExampleKind::Wrong => "wrong",
        ExampleKind::RightSingle | ExampleKind::RightSeveralOrNone => "right",
    };
    let mut y = top + side + 15.0;
    for (class, text) in [("label", truth), (class, predicted), ("small", explained)] {
        for line in fit(&text, 2.0 * side) {
            svg.text(class, (left, y), Anchor::Start, &line);
            y += 14.0;
        }
    }
    Some(y)
}

/// Heat maps of one image in a grid: on the left the image itself, then a column for each label and a row for each method.
/// All are PNG files of square pictures; `maps` has, for each method, one for each label.
pub fn heat_map_grid(
    image: &[u8],
    labels: &[&str],
    methods: &[&str],
    maps: &[Vec<Vec<u8>>],
) -> Figure {
    const SIDE: f64 = 224.0;
    const GAP: f64 = 10.0;
    const HEAD: f64 = 26.0;
    let mut svg = Svg::default();
    let left = |column: usize| GAP + (SIDE + GAP) * column as f64;
    let top = |row: usize| HEAD + (SIDE + HEAD) * row as f64;
    svg.image((left(0), top(0)), (SIDE, SIDE), image);
    for (column, label) in labels.iter().enumerate() {
        let name = label.replace('_', " ");
        let shown = fit(&name, SIDE).into_iter().next().unwrap_or_default();
        svg.text("head", (left(column + 1), 18.0), Anchor::Start, &shown);
    }
    for (row, (method, maps)) in methods.iter().zip(maps).enumerate() {
        for (column, map) in maps.iter().enumerate() {
            svg.image((left(column + 1), top(row)), (SIDE, SIDE), map);
        }
        svg.text(
            "label",
            (left(1), top(row) + SIDE + 15.0),
            Anchor::Start,
            method,
        );
    }
    Figure {
        name: "heat-maps".to_owned(),
        title: "Heat maps".to_owned(),
        caption: String::new(),
        width: left(labels.len() + 1),
        height: top(methods.len().max(1)),
        body: svg.into_body(),
    }
}
