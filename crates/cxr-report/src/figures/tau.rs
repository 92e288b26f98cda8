//! Figure 6: what each τ changes against τ = 1, finding by finding; and the means by τ.

use super::Figure;
use super::palette::of_tau;
use super::plot::{Frame, shown, ticks};
use super::svg::{Anchor, Svg};
use crate::paper::LEFT_OUT_OF_SECOND_MEAN;
use crate::report::Report;
use crate::tables::{AucTable, Subject};

/// The value of τ that a column of Table 4 is of.
fn tau_of(heading: &str) -> Option<f64> {
    heading
        .strip_prefix("τ = ")?
        .split(',')
        .next()?
        .parse()
        .ok()
}

fn table_4(report: &Report) -> Option<AucTable> {
    let tables = report.tables().into_iter();
    tables.into_iter().find(|table| table.number == 4)
}

pub(super) fn draw_differences(report: &Report) -> Option<Figure> {
    let table = table_4(report)?;
    let taus: Vec<Option<f64>> = table.columns.iter().map(|c| tau_of(&c.heading)).collect();
    let base = taus.iter().position(|&tau| tau == Some(1.0))?;
    let others: Vec<(usize, f64)> = taus
        .iter()
        .enumerate()
        .filter_map(|(column, tau)| Some((column, (*tau)?)))
        .filter(|&(column, _)| column != base)
        .collect();
    if others.is_empty() {
        return None;
    }
    // Rows of labels, then the mean, each with its differences.
    let mut rows: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for row in &table.rows {
        let name = match &row.subject {
            Subject::Label(label) => label.replace('_', " "),
            Subject::Mean => "mean".to_owned(),
            Subject::MeanWithout(label) => format!("mean without {label}"),
        };
        let difference = |&(column, tau): &(usize, f64)| {
            let value = row.cells[column].auc? - row.cells[base].auc?;
            Some((tau, value))
        };
        rows.push((name, others.iter().filter_map(difference).collect()));
    }
    let all = || {
        rows.iter()
            .flat_map(|(_, points)| points)
            .map(|point| point.1)
    };
    let (low, high) = (all().fold(0.0, f64::min), all().fold(0.0, f64::max));
    let margin = ((high - low) * 0.06).max(0.002);
    let step = 26.0;
    let frame = Frame {
        left: 190.0,
        top: 44.0,
        width: 520.0,
        height: step * rows.len() as f64,
        x: (low - margin, high + margin),
        y: (0.0, 1.0),
    };
    let mut svg = Svg::default();
    let mut x = frame.left;
    for &(_, tau) in &others {
        let series = of_tau(tau);
        svg.circle(&format!("fill{series}"), (x + 6.0, 20.0), 5.0, "");
        svg.text(
            "label",
            (x + 17.0, 24.0),
            Anchor::Start,
            &format!("τ = {tau:?}"),
        );
        x += 88.0;
    }
    let (values, decimals) = ticks(frame.x.0, frame.x.1, 7);
    frame.draw_x(&mut svg, &values, decimals);
    frame.name_x(&mut svg, "AUC minus that of τ = 1.0 (ZLPR)");
    let zero = frame.at_x(0.0);
    svg.line("axis", (zero, frame.top), (zero, frame.bottom()));
    for (at, (name, points)) in rows.iter().enumerate() {
        let y = frame.top + step * (at as f64 + 0.5);
        if at > 0 {
            let top = y - step / 2.0;
            svg.line("grid", (frame.left, top), (frame.right(), top));
        }
        let class = if name.starts_with("mean") {
            "head"
        } else {
            "label"
        };
        svg.text(class, (frame.left - 10.0, y + 4.0), Anchor::End, name);
        for (place, &(tau, value)) in points.iter().enumerate() {
            // A little apart, so that equal differences stay visible.
            let spread = (place as f64 - (points.len() as f64 - 1.0) / 2.0) * 3.4;
            let series = of_tau(tau);
            let title = format!("{name}, τ = {tau:?}: {}", signed(value));
            let centre = (frame.at_x(value), y + spread);
            svg.line(
                &format!("error line{series}"),
                (zero, centre.1),
                (centre.0, centre.1),
            );
            svg.circle(&format!("fill{series}"), centre, 4.0, &title);
        }
    }
    Some(Figure {
        name: "figure6".to_owned(),
        title: "Figure 6. AUC of each τ minus that of τ = 1.0".to_owned(),
        caption: "Per finding, on the test images in single view; right of the line the τ does \
                  better than ZLPR. The paired tests say how certain single differences are."
            .to_owned(),
        width: 740.0,
        height: frame.bottom() + 52.0,
        body: svg.into_body(),
    })
}

/// A difference with its sign.
fn signed(value: f64) -> String {
    let text = shown(value, 4);
    if value > 0.0 {
        format!("+{text}")
    } else {
        text
    }
}

/// One line through a table's row.
struct Line<'a> {
    name: &'a str,
    series: usize,
    is_published: bool,
    points: Vec<(f64, f64, Option<[f64; 2]>)>,
}

pub(super) fn draw_means(report: &Report) -> Option<Figure> {
    let table = table_4(report)?;
    let mut lines: Vec<Line<'_>> = Vec::new();
    for (subject, series, ours, published) in [
        (Subject::Mean, 3, "mean of all findings", "published"),
        (
            Subject::MeanWithout(LEFT_OUT_OF_SECOND_MEAN),
            6,
            "mean without Hernia",
            "published, without Hernia",
        ),
    ] {
        let Some(row) = table.rows.iter().find(|row| row.subject == subject) else {
            continue;
        };
        let columns = || table.columns.iter().zip(&row.cells);
        let points = columns().filter_map(|(column, cell)| {
            let interval = cell.interval.map(|made| [made.lower, made.upper]);
            Some((tau_of(&column.heading)?, cell.auc?, interval))
        });
        lines.push(Line {
            name: ours,
            series,
            is_published: false,
            points: points.collect(),
        });
        let points: Vec<_> = columns()
            .filter_map(|(column, cell)| Some((tau_of(&column.heading)?, cell.published?, None)))
            .collect();
        if !points.is_empty() {
            lines.push(Line {
                name: published,
                series,
                is_published: true,
                points,
            });
        }
    }
    let values = || {
        lines
            .iter()
            .flat_map(|line| &line.points)
            .flat_map(|point| {
                let ends = point.2.unwrap_or([point.1; 2]);
                [point.1, ends[0], ends[1]]
            })
    };
    let (low, high) = (
        values().fold(f64::INFINITY, f64::min),
        values().fold(f64::NEG_INFINITY, f64::max),
    );
    let n_taus = lines.first()?.points.len();
    if n_taus < 2 || !(low.is_finite() && high.is_finite()) {
        return None;
    }
    let taus = || {
        lines
            .iter()
            .flat_map(|line| &line.points)
            .map(|point| point.0)
    };
    let margin = ((high - low) * 0.08).max(0.002);
    let frame = Frame {
        left: 72.0,
        top: 16.0,
        width: 420.0,
        height: 300.0,
        x: (
            taus().fold(f64::INFINITY, f64::min) - 0.05,
            taus().fold(f64::NEG_INFINITY, f64::max) + 0.05,
        ),
        y: (low - margin, high + margin),
    };
    let mut svg = Svg::default();
    let mut tau_ticks: Vec<f64> = taus().collect();
    tau_ticks.sort_by(f64::total_cmp);
    tau_ticks.dedup();
    frame.draw_x(&mut svg, &tau_ticks, 1);
    let (y_ticks, decimals) = ticks(frame.y.0, frame.y.1, 6);
    frame.draw_y(&mut svg, &y_ticks, decimals.max(2));
    frame.name_x(&mut svg, "τ");
    frame.name_y(&mut svg, 54.0, "test mean AUC");
    for (at, line) in lines.iter().enumerate() {
        let Line { series, name, .. } = line;
        let dashed = if line.is_published { " published" } else { "" };
        let points: Vec<(f64, f64)> =
            (line.points.iter().map(|&(tau, auc, _)| frame.at(tau, auc))).collect();
        svg.path(&format!("curve line{series}{dashed}"), &points, "");
        for &(tau, auc, interval) in &line.points {
            let (x, y) = frame.at(tau, auc);
            // Apart, so that the bars of both means can be read.
            let shift = if *series == 3 { -2.5 } else { 2.5 };
            if let Some([lower, upper]) = interval {
                let (bottom, top) = (frame.at_y(lower), frame.at_y(upper));
                let class = format!("error line{series}");
                svg.line(&class, (x + shift, bottom), (x + shift, top));
                for end in [bottom, top] {
                    svg.line(&class, (x + shift - 3.0, end), (x + shift + 3.0, end));
                }
            }
            let radius = if line.is_published { 2.5 } else { 4.0 };
            let title = format!("{name}, τ = {tau:?}: {auc:.4}");
            svg.circle(&format!("fill{series}"), (x, y), radius, &title);
        }
        let (left, y) = (frame.right() + 22.0, frame.top + 14.0 + 22.0 * at as f64);
        let class = format!("curve line{series}{dashed}");
        svg.line(&class, (left, y), (left + 26.0, y));
        svg.text("label", (left + 34.0, y + 4.0), Anchor::Start, name);
    }
    let with_bars = lines
        .iter()
        .any(|line| line.points.iter().any(|p| p.2.is_some()));
    let bars = if with_bars {
        " Bars are 95 % intervals of one training's test images; they say nothing about \
         another seed's training."
    } else {
        ""
    };
    Some(Figure {
        name: "figure-tau".to_owned(),
        title: "Test mean AUC by τ".to_owned(),
        caption: format!("Single view; τ = 1.0 is ZLPR.{bars}"),
        width: 740.0,
        height: 376.0,
        body: svg.into_body(),
    })
}
