//! A table of AUCs: ours, then the published one with the difference.

use super::Material;
use super::words::{auc, cells, count, dash, signed};
use crate::document::{Block, Document, Table, TableCell, plain as escape};
use crate::paper::LABELS;
use crate::tables::{AucTable, Cell, Interval, IntervalMethod, Row, Subject};
use cxr_run::RunMetrics;

/// Adds the table that a report has by this number, if it has.
pub(super) fn add(page: &mut Document, from: &Material<'_>, number: u8) {
    if let Some(table) = from.table(number) {
        add_table(page, table, &from.report.runs);
    }
}

/// The table that a report has by this number as a file, if it has.
pub(super) fn file(
    from: &Material<'_>,
    number: u8,
    name: &'static str,
) -> Option<(&'static str, String)> {
    Some((name, from.table(number)?.to_csv()))
}

/// Adds a table's own figures alone, which are in `file`.
pub(super) fn add_ours(page: &mut Document, table: &AucTable, file: &str) {
    let is_mean = |row: &&Row| !matches!(row.subject, Subject::Label(_));
    page.add(Block::Table(Table {
        rows: ours(table),
        feet: table.rows.iter().filter(is_mean).count(),
        file: Some(file.to_owned()),
    }));
    page.list(notes(table, &[]));
}

fn add_table(page: &mut Document, table: &AucTable, runs: &[RunMetrics]) {
    page.heading(format!("Table {}. {}", table.number, table.title));
    let is_label = |row: &&Row| matches!(row.subject, Subject::Label(_));
    let n_labels = table.rows.iter().filter(is_label).count();
    let mut add = |rows: Vec<Vec<TableCell>>, feet: usize| {
        page.add(Block::Table(Table {
            rows,
            feet,
            file: Some(format!("table{}.csv", table.number)),
        }));
    };
    if n_labels > 0 {
        let feet = table.rows.len() - n_labels;
        add(ours(table), feet);
        if table.has_published() {
            page.text("Published, and in brackets ours minus published:");
            page.add(Block::Table(Table {
                rows: published(table),
                feet,
                file: None,
            }));
        }
    } else {
        add(means_only(table), 0);
    }
    page.list(notes(table, runs));
}

fn ours(table: &AucTable) -> Vec<Vec<TableCell>> {
    let mut header: Vec<TableCell> = vec!["finding".into(), "images with it".into()];
    header.extend((table.columns.iter()).map(|column| column.heading.as_str().into()));
    let mut rows = vec![header];
    for row in &table.rows {
        let n_labels = common_n_labels(row);
        let mut cells = vec![
            subject(row, n_labels).into(),
            match (&row.subject, row.positives) {
                (Subject::Label(_), Some(positives)) => count(positives).into(),
                (Subject::Label(_), None) => dash(),
                _ => TableCell::default(),
            },
        ];
        for cell in &row.cells {
            let mut shown = with_uncertainty(cell);
            if n_labels.is_none() && cell.auc.is_some() {
                shown = shown.after(&format!("of {}", cell.n_labels));
            }
            cells.push(shown);
        }
        rows.push(cells);
    }
    rows
}

/// An AUC with its interval, or with its spread over seeds.
fn with_uncertainty(cell: &Cell) -> TableCell {
    let mut shown = auc(cell.auc).ranked(cell.rank);
    if let Some(interval) = cell.interval {
        let Interval { lower, upper, .. } = interval;
        let about = if interval.is_approximate() {
            "≈ "
        } else {
            ""
        };
        shown = shown.aside(format!("{about}{lower:.4}–{upper:.4}"));
    }
    if let Some(spread) = &cell.spread {
        shown = shown.after(&format!("± {:.4}", spread.sd));
    }
    shown
}

fn published(table: &AucTable) -> Vec<Vec<TableCell>> {
    let kept: Vec<usize> = (0..table.columns.len())
        .filter(|&column| table.columns[column].is_published)
        .collect();
    let mut header: Vec<TableCell> = vec!["finding".into()];
    header.extend(
        kept.iter()
            .map(|&column| table.columns[column].heading.as_str().into()),
    );
    let mut rows = vec![header];
    for row in &table.rows {
        let mut cells = vec![subject(row, common_n_labels(row)).into()];
        cells.extend(kept.iter().map(|&column| {
            let cell = &row.cells[column];
            let published = auc(cell.published).ranked(cell.published_rank);
            published.aside(difference(cell))
        }));
        rows.push(cells);
    }
    rows
}

/// A table without labels: one line per column, so that ours and the published stand side by side.
fn means_only(table: &AucTable) -> Vec<Vec<TableCell>> {
    let has_published = table.has_published();
    let mut header: Vec<TableCell> = vec!["loss".into()];
    for row in &table.rows {
        header.push(subject(row, common_n_labels(row)).into());
    }
    if has_published {
        header.extend(cells(&["published mean", "ours − published"]));
    }
    let mut lines = vec![header];
    for (column, about) in table.columns.iter().enumerate() {
        let mut line: Vec<TableCell> = vec![about.heading.as_str().into()];
        for row in &table.rows {
            let cell = &row.cells[column];
            let mut shown = with_uncertainty(cell);
            if common_n_labels(row).is_none() {
                shown = shown.after(&format!("of {}", cell.n_labels));
            }
            line.push(shown);
        }
        let mean = table.rows.iter().find(|row| row.subject == Subject::Mean);
        if let (true, Some(row)) = (has_published, mean) {
            let cell = &row.cells[column];
            line.push(auc(cell.published).ranked(cell.published_rank));
            line.push(difference(cell).into());
        }
        lines.push(line);
    }
    lines
}

/// The number of labels that all cells of a row of means are over.
fn common_n_labels(row: &Row) -> Option<usize> {
    let mut numbers = row.cells.iter().map(|cell| cell.n_labels);
    let first = numbers.next()?;
    numbers.all(|other| other == first).then_some(first)
}

fn subject(row: &Row, n_labels: Option<usize>) -> String {
    let over = n_labels.map_or_else(String::new, |n_labels| format!(" of {n_labels} labels"));
    match &row.subject {
        Subject::Label(label) => label.clone(),
        Subject::Mean => format!("mean{over}"),
        Subject::MeanWithout(label) => format!("mean without {label}{over}"),
    }
}

fn difference(cell: &Cell) -> String {
    (cell.difference()).map_or_else(|| "–".to_owned(), signed)
}

fn notes(table: &AucTable, runs: &[RunMetrics]) -> Vec<String> {
    let mut notes =
        vec!["Bold: best of the row; underlined: runner-up; ties share a place.".to_owned()];
    if table.columns.len() == 1 {
        notes.clear();
    }
    notes.extend(interval_note(table));
    notes.extend(undefined_note(table));
    let spreads = table.rows.iter().flat_map(|row| &row.cells);
    if let Some(n) = spreads
        .filter_map(|cell| cell.spread.as_ref())
        .map(|spread| spread.n)
        .max()
    {
        notes.push(format!(
            "±: standard deviation over {n} seeds, each a training of its own; the AUC before it is their mean."
        ));
    }
    if table.has_published() {
        let other_split = runs.iter().any(|run| run.data.validation_split != "paper");
        if table.number == 1 && other_split {
            notes.push(
                "The published validation images were drawn image by image; these were not: patients \
                 on both sides make the published figures higher."
                    .to_owned(),
            );
        }
        if fewer_labels_than_published(table) {
            notes.push(if table.number == 1 {
                "The paper prints the mean over fourteen labels only: beside a mean over fewer there \
                 is nothing to compare."
                    .to_owned()
            } else {
                "Published means are taken over the same labels as ours.".to_owned()
            });
        }
    }
    notes
}

fn interval_note(table: &AucTable) -> Option<String> {
    let mut methods: Vec<IntervalMethod> = Vec::new();
    let intervals = table.rows.iter().flat_map(|row| &row.cells);
    for interval in intervals.filter_map(|cell| cell.interval) {
        if !methods.contains(&interval.method) {
            methods.push(interval.method);
        }
    }
    let words: Vec<String> = methods
        .iter()
        .map(|method| match method {
            IntervalMethod::Delong => {
                "from DeLong's error and Student's t, images taken as independent, which is too narrow \
                 where a patient has several"
                    .to_owned()
            }
            IntervalMethod::DelongByPatient => {
                "from DeLong's error with the patient as the unit (Obuchowski 1997) and Student's t".to_owned()
            }
            IntervalMethod::Bootstrap => format!("of means from {}images", replicates(table)),
            IntervalMethod::BootstrapByPatient => {
                format!("of means from {}patients", replicates(table))
            }
        })
        .collect();
    let is_approximate = table.rows.iter().flat_map(|row| &row.cells).any(|cell| {
        cell.interval
            .is_some_and(|interval| interval.is_approximate())
    });
    let about = if is_approximate {
        " ≈: approximate, as too few patients have the finding: fewer than ten degrees of freedom."
    } else {
        ""
    };
    (!words.is_empty()).then(|| format!("95 % intervals in brackets: {}.{about}", words.join("; ")))
}

fn replicates(table: &AucTable) -> String {
    let bootstraps = table.columns.iter().map(|column| column.bootstrap.as_ref());
    let mut counts = bootstraps.map(|made| made.map(|made| made.resampling.replicates));
    match counts.next() {
        Some(Some(first)) if counts.all(|other| other == Some(first)) => {
            format!("{} bootstrap samples of ", count(first))
        }
        _ => "bootstrap samples of ".to_owned(),
    }
}

/// Names the labels behind each "–".
fn undefined_note(table: &AucTable) -> Option<String> {
    let mut undefined = Vec::new();
    for row in &table.rows {
        let Subject::Label(label) = &row.subject else {
            continue;
        };
        if row.cells.iter().all(|cell| cell.auc.is_some()) {
            continue;
        }
        undefined.push(match (row.positives, row.negatives) {
            (Some(positives), Some(negatives)) => format!(
                "{} ({} with it, {} without)",
                escape(label),
                count(positives),
                count(negatives)
            ),
            _ => escape(label),
        });
    }
    (!undefined.is_empty()).then(|| {
        format!(
            "–: undefined, as the label has one class only among these images: {}.",
            undefined.join(", ")
        )
    })
}

fn fewer_labels_than_published(table: &AucTable) -> bool {
    let mean = table.rows.iter().find(|row| row.subject == Subject::Mean);
    mean.is_some_and(|row| {
        let cells = table.columns.iter().zip(&row.cells);
        cells
            .filter(|(column, _)| column.is_published)
            .any(|(_, cell)| cell.n_labels < LABELS.len())
    })
}
