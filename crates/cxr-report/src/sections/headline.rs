//! The summary's table: each loss's test means, how far they are from the published ones, and how far
//! FZLPR(0.2) is from each.

use cxr_metrics::Level;

use super::paired_tests::{SIGNIFICANT, with_interval};
use super::words::{auc, dash, heading_of, signed};
use crate::document::{Block, Document, Table, TableCell};
use crate::paper::LEFT_OUT_OF_SECOND_MEAN;
use crate::report::Report;
use crate::tables::{AucTable, Cell, Column, Row, Subject};
use cxr_run::{ViewSet, ends};

pub(super) fn add(page: &mut Document, report: &Report, tables: &[AucTable]) {
    let Some(losses) = tables.iter().find(|table| table.number == 2) else {
        return;
    };
    let views = tables.iter().find(|table| table.number == 3);
    // A sample's means are set beside the published ones in the tables, with a warning, not here.
    let is_sample = report.runs.iter().any(|run| run.data.is_sample());
    let with_published = losses.has_published() && !is_sample;
    let subjects = [Subject::Mean, Subject::MeanWithout(LEFT_OUT_OF_SECOND_MEAN)];
    let subjects: Vec<Subject> = subjects
        .into_iter()
        .filter(|subject| row_of(losses, subject).is_some())
        .collect();

    let mut header: Vec<TableCell> = vec!["test images".into()];
    for subject in &subjects {
        let of_what = match subject {
            Subject::MeanWithout(label) => format!("mean AUC without {label}"),
            Subject::Label(_) | Subject::Mean => "mean AUC".to_owned(),
        };
        let n = row_of(losses, subject).map_or(0, most_labels);
        header.push(format!("{of_what}, {n} findings").into());
        if with_published {
            header.push("published".into());
            if *subject == Subject::Mean {
                header.push("ours − published".into());
            }
        }
    }
    let tests = &report.evidence.tests;
    let proposal = tests.first().map(|test| test.a.as_str());
    if let Some(proposal) = proposal {
        let name = heading_of(report, proposal);
        header.push(format!("{name} − this").into());
        if subjects.len() > 1 {
            header.push(format!("the same without {LEFT_OUT_OF_SECOND_MEAN}").into());
        }
        header.push("findings that differ".into());
    }
    let mut rows = vec![header];
    for (at, column) in losses.columns.iter().enumerate() {
        let mut row = vec![column.heading.clone().into()];
        for subject in &subjects {
            let cell = row_of(losses, subject).map(|row| (&row.cells[at], most_labels(row)));
            add_cells(&mut row, cell, subject, with_published);
        }
        if let Some(proposal) = proposal {
            let test = tests
                .iter()
                .find(|test| test.a == proposal && test.b == column.variant);
            let means = test.map(|test| &test.comparison.means);
            let difference = means.and_then(|means| Some((means.difference?, means.interval)));
            let shown = difference.map(|(value, interval)| with_interval(value, interval));
            row.push(shown.unwrap_or_else(dash));
            if subjects.len() > 1 {
                let without = test.and_then(|test| test.without);
                let shown = without.map(|test| {
                    with_interval(test.difference, test.interval(Level::P95).map(ends))
                });
                row.push(shown.unwrap_or_else(dash));
            }
            row.push(test.map_or_else(dash, |test| {
                let labels = &test.comparison.labels;
                let is_clear = |p: Option<f64>| p.is_some_and(|p| p < SIGNIFICANT);
                let clear = labels.iter().filter(|label| is_clear(label.p_value_holm));
                format!("{} of {}", clear.count(), labels.len()).into()
            }));
        }
        rows.push(row);
    }
    let mut feet = 0;
    for (at, column) in views
        .iter()
        .flat_map(|table| table.columns.iter().enumerate())
    {
        if column.views == ViewSet::Single {
            continue;
        }
        let mut row = vec![name_of_views(report, column).into()];
        for subject in &subjects {
            let found = views.and_then(|table| row_of(table, subject));
            // Its own rank is among the view sets: not shown among the losses.
            let cell = found.map(|row| {
                let cell = Cell {
                    rank: None,
                    ..row.cells[at].clone()
                };
                (cell, most_labels(row))
            });
            let cell = cell.as_ref().map(|(cell, n)| (cell, *n));
            add_cells(&mut row, cell, subject, with_published);
        }
        row.resize_with(rows[0].len(), dash);
        rows.push(row);
        feet += 1;
    }
    page.add(Block::Table(Table {
        rows,
        feet,
        file: None,
    }));
    if proposal.is_some() {
        page.text(format!(
            "In brackets 95 % intervals. Bold in the columns of differences: an interval without zero. \
             The last column counts findings whose paired test has p below {SIGNIFICANT} after Holm's \
             correction; all tests stand below Table 2."
        ));
    }
}

fn add_cells(
    row: &mut Vec<TableCell>,
    cell: Option<(&Cell, usize)>,
    subject: &Subject,
    with_published: bool,
) {
    let mut shown = cell.map_or_else(dash, |(cell, _)| auc(cell.auc).ranked(cell.rank));
    if let Some((cell, most)) = cell {
        if let Some(interval) = cell.interval {
            shown = shown.aside(format!("{:.4}–{:.4}", interval.lower, interval.upper));
        }
        if let Some(spread) = cell.spread {
            shown = shown.after(&format!("± {:.4}", spread.sd));
        }
        if cell.auc.is_some() && cell.n_labels < most {
            shown = shown.after(&format!("of {}", cell.n_labels));
        }
    }
    row.push(shown);
    if with_published {
        row.push(auc(cell.and_then(|(cell, _)| cell.published)));
        if *subject == Subject::Mean {
            let difference = cell.and_then(|(cell, _)| cell.difference());
            row.push(difference.map_or_else(dash, |difference| signed(difference).into()));
        }
    }
}

fn row_of<'a>(table: &'a AucTable, subject: &Subject) -> Option<&'a Row> {
    table.rows.iter().find(|row| row.subject == *subject)
}

fn most_labels(row: &Row) -> usize {
    row.cells
        .iter()
        .map(|cell| cell.n_labels)
        .max()
        .unwrap_or(0)
}

fn name_of_views(report: &Report, column: &Column) -> String {
    format!(
        "{}, {}",
        heading_of(report, &column.variant),
        column.heading
    )
}
