//! Figure 5: the ROC curve of each finding.

use cxr_metrics::RocCurve;

use super::palette::N_SERIES;
use super::plot::{Frame, ticks};
use super::svg::{Anchor, Svg};
use super::{Figure, escape};
use crate::paper::loss_heading;
use crate::report::Report;
use crate::sections::count;
use cxr_run::ViewSet;

/// Seven colours, first with solid lines, then with dashed ones: fourteen findings stay apart.
const COLOURS: usize = N_SERIES - 1;

struct Entry<'a> {
    label: &'a str,
    auc: f64,
    interval: Option<[f64; 2]>,
    positives: usize,
    curve: &'a RocCurve,
}

pub(super) fn draw(report: &Report) -> Option<Figure> {
    let curves = report.evidence.curves.as_ref()?;
    let run = report
        .runs
        .iter()
        .find(|run| run.variant == curves.variant)?;
    let summary = run.test.get(&ViewSet::Single)?;
    let mut entries: Vec<Entry<'_>> = Vec::new();
    for (label, curve) in &curves.labels {
        let facts = summary.labels.iter().find(|facts| facts.label == *label)?;
        entries.push(Entry {
            label,
            auc: facts.auc?,
            interval: facts.auc_interval_clustered.or(facts.auc_interval),
            positives: facts.positives,
            curve,
        });
    }
    // The legend reads from the best to the worst.
    entries.sort_by(|a, b| b.auc.total_cmp(&a.auc).then_with(|| a.label.cmp(b.label)));

    let frame = Frame {
        left: 62.0,
        top: 16.0,
        width: 400.0,
        height: 400.0,
        x: (0.0, 1.0),
        y: (0.0, 1.0),
    };
    let mut svg = Svg::default();
    let (values, decimals) = ticks(0.0, 1.0, 5);
    frame.draw_x(&mut svg, &values, decimals);
    frame.draw_y(&mut svg, &values, decimals);
    frame.name_x(&mut svg, "false positive rate (1 − specificity)");
    frame.name_y(&mut svg, 42.0, "true positive rate (sensitivity)");
    svg.line("chance", frame.at(0.0, 0.0), frame.at(1.0, 1.0));
    let class = |at: usize| {
        let dashed = if at >= COLOURS { " dashed" } else { "" };
        format!("line{}{dashed}", at % COLOURS)
    };
    svg.open_group(&format!(
        r#"class="roc-frame" data-frame="{} {} {} {}""#,
        frame.left, frame.top, frame.width, frame.height
    ));
    for (at, entry) in entries.iter().enumerate() {
        let about = about(entry);
        svg.open_group(&format!(
            r#"class="roc" data-at="{at}" data-about="{}""#,
            escape(&about)
        ));
        let points = thinned(&frame, entry.curve);
        svg.path(&format!("curve {}", class(at)), &points, "");
        svg.path("hit", &points, "");
        svg.close_group();
    }
    svg.close_group();
    let left = frame.right() + 24.0;
    svg.text(
        "head",
        (left + 34.0, frame.top + 12.0),
        Anchor::Start,
        "finding",
    );
    svg.text("head", (left + 248.0, frame.top + 12.0), Anchor::End, "AUC");
    for (at, entry) in entries.iter().enumerate() {
        let y = frame.top + 34.0 + 24.0 * at as f64;
        svg.open_group(&format!(r#"class="roc-key" data-at="{at}""#));
        // The whole row answers to a pointer, not its letters alone.
        svg.rect("key-ground", (left - 4.0, y - 12.0), (262.0, 22.0));
        svg.line(&format!("curve {}", class(at)), (left, y), (left + 26.0, y));
        let label = entry.label.replace('_', " ");
        svg.text("label", (left + 34.0, y + 4.0), Anchor::Start, &label);
        let auc = format!("{:.4}", entry.auc);
        svg.text("label", (left + 248.0, y + 4.0), Anchor::End, &auc);
        svg.close_group();
    }
    Some(Figure {
        name: "figure5".to_owned(),
        title: format!("Figure 5. ROC curve per finding, {}", loss_heading(run)),
        caption: format!(
            "{} test images, single view, sorted by AUC; the dotted diagonal is chance. The steps of \
             a curve show on how few images a rare finding's AUC rests.",
            count(summary.n_images)
        ),
        width: 760.0,
        height: 472.0,
        body: with_key_ground(svg.into_body()),
    })
}

/// What is shown of a curve when it is pointed at.
fn about(entry: &Entry<'_>) -> String {
    let interval = entry.interval.map_or_else(String::new, |[lower, upper]| {
        format!(" (95 % {lower:.4}–{upper:.4})")
    });
    format!(
        "{}: AUC {:.4}{interval}, {} images with it",
        entry.label.replace('_', " "),
        entry.auc,
        count(entry.positives)
    )
}

/// The curve without the points that nobody could see: nearer than a third of a pixel to the last.
fn thinned(frame: &Frame, curve: &RocCurve) -> Vec<(f64, f64)> {
    const NEAR: f64 = 1.0 / 3.0;
    let mut kept: Vec<(f64, f64)> = Vec::new();
    let last = curve.points.len().saturating_sub(1);
    for (at, point) in curve.points.iter().enumerate() {
        let place = frame.at(point.false_positive_rate, point.true_positive_rate);
        let is_near = kept
            .last()
            .is_some_and(|before| (before.0 - place.0).hypot(before.1 - place.1) < NEAR);
        if !is_near || at == last {
            kept.push(place);
        }
    }
    kept
}

/// An area without colour still takes the pointer.
fn with_key_ground(body: String) -> String {
    body.replace(
        r#"<rect class="key-ground""#,
        r#"<rect class="key-ground" fill-opacity="0""#,
    )
}
