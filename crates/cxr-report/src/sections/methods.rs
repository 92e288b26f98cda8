//! Table 5: the methods that the paper quotes, the paper's own figures, and ours.

use super::systems::{cell_here, columns_here};
use super::words::{auc, dash, signed};
use super::{Material, Section};
use crate::document::{Block, Document, Table, TableCell};
use crate::paper::{LABELS, LEFT_OUT_OF_SECOND_MEAN, TABLE_5, TABLE_5_DELTAS, is_proposal};
use crate::ranks::{Rank, ranks};
use crate::tables::{AucTable, Subject, or_empty};
use cxr_run::{RunMetrics, ViewSet};
use cxr_table::csv_line;

/// Table 5.
pub(super) struct Methods;

impl Section for Methods {
    fn add(&self, page: &mut Document, from: &Material<'_>) {
        add(page, from);
    }

    fn files(&self, from: &Material<'_>) -> Vec<(&'static str, String)> {
        let table = from.report.methods_table();
        let file = table.map(|table| ("table5.csv", table.to_csv()));
        file.into_iter().collect()
    }

    fn file_names(&self) -> &'static [&'static str] {
        &["table5.csv"]
    }
}

/// Table 5, made from the run of FZLPR(0.2) with flip and zoom.
#[derive(Clone, Debug, PartialEq)]
pub struct MethodsTable {
    /// The other methods, in the paper's order; none beside phantoms.
    pub methods: Vec<&'static str>,
    /// The labels, then the means.
    pub rows: Vec<MethodsRow>,
    /// Whether listed images were missing.
    pub is_sample: bool,
}

/// One row of Table 5.
#[derive(Clone, Debug, PartialEq)]
pub struct MethodsRow {
    /// What it is about.
    pub subject: Subject,
    /// Over how many labels: those of which our AUC is defined; 1 or 0 for a label's row.
    pub n_labels: usize,
    /// The other methods' AUCs.
    pub others: Vec<Option<f64>>,
    /// The paper's AUC.
    pub paper: Option<f64>,
    /// The paper's minus the best other's.
    pub paper_delta: Option<f64>,
    /// Our AUC; `None` when undefined.
    pub ours: Option<f64>,
    /// The places of the other methods and, last, of ours.
    pub ranks: Vec<Option<Rank>>,
}

impl MethodsRow {
    /// Ours minus the best other's.
    pub fn delta(&self) -> Option<f64> {
        Some(self.ours? - best(&self.others)?)
    }
}

/// Table 5; `None` without a run of FZLPR(0.2) on ChestX-ray14, or on phantoms with its labels, that
/// predicted flip and zoom. Of several seeds the mean is taken. Beside phantoms no published figure stands.
pub fn methods_table(runs: &[RunMetrics]) -> Option<MethodsTable> {
    let ours: Vec<&RunMetrics> = runs
        .iter()
        .filter(|run| run.data.is_comparable() || run.data.phantom)
        .filter(|run| is_proposal(run))
        .filter(|run| run.test.contains_key(&ViewSet::HorizontalFlipZoom))
        .collect();
    let data = &ours.first()?.data;
    let (is_sample, is_phantom) = (data.is_sample(), !data.is_comparable());
    let our_auc = |label: &str| {
        let of_run = |run: &&RunMetrics| {
            let labels = &run.test.get(&ViewSet::HorizontalFlipZoom)?.labels;
            labels.iter().find(|known| known.label == label)?.auc
        };
        let aucs: Vec<f64> = ours.iter().map(of_run).collect::<Option<_>>()?;
        Some(aucs.iter().sum::<f64>() / aucs.len() as f64)
    };
    if is_phantom && !LABELS.into_iter().any(|label| our_auc(label).is_some()) {
        return None;
    }
    let (methods, _) = match is_phantom {
        true => (&[][..], &[][..]),
        false => TABLE_5.columns.split_at(TABLE_5.columns.len() - 1),
    };
    let (deltas, _) = TABLE_5_DELTAS;
    let mut rows = Vec::new();
    for ((label, aucs), &delta) in TABLE_5.rows.iter().zip(deltas) {
        let ours = our_auc(label);
        let others = aucs.iter().copied().take(methods.len()).map(Some).collect();
        let subject = Subject::Label((*label).to_owned());
        rows.push(row(
            subject,
            usize::from(ours.is_some()),
            others,
            aucs.last().copied().filter(|_| !is_phantom),
            Some(delta).filter(|_| !is_phantom),
            ours,
        ));
    }
    let without = Subject::MeanWithout(LEFT_OUT_OF_SECOND_MEAN);
    for subject in [Subject::Mean, without] {
        let n_published = (!is_phantom).then_some(methods.len());
        rows.push(mean(subject, n_published, &our_auc));
    }
    Some(MethodsTable {
        methods: methods.to_vec(),
        rows,
        is_sample,
    })
}

/// All means of a row are over the labels of which ours is defined; without `n_methods` there is ours
/// alone.
fn mean(
    subject: Subject,
    n_methods: Option<usize>,
    our_auc: &dyn Fn(&str) -> Option<f64>,
) -> MethodsRow {
    let is_in = |label: &&str| match &subject {
        Subject::MeanWithout(without) => label != without,
        Subject::Label(_) | Subject::Mean => true,
    };
    let defined: Vec<(&str, f64)> = LABELS
        .into_iter()
        .filter(is_in)
        .filter_map(|label| Some((label, our_auc(label)?)))
        .collect();
    let labels: Vec<&str> = defined.iter().map(|&(label, _)| label).collect();
    let sum: f64 = defined.iter().map(|&(_, auc)| auc).sum();
    let columns = n_methods.map_or(0, |others| others + 1);
    let published: Vec<Option<f64>> = (0..columns)
        .map(|column| TABLE_5.mean(column, &labels))
        .collect();
    let (others, paper) = published.split_at(n_methods.unwrap_or(0));
    let paper = paper.first().copied().flatten();
    let delta = paper.zip(best(others)).map(|(paper, best)| paper - best);
    row(
        subject,
        labels.len(),
        others.to_vec(),
        paper,
        delta,
        (!defined.is_empty()).then(|| sum / defined.len() as f64),
    )
}

fn row(
    subject: Subject,
    n_labels: usize,
    others: Vec<Option<f64>>,
    paper: Option<f64>,
    paper_delta: Option<f64>,
    ours: Option<f64>,
) -> MethodsRow {
    let mut values = others.clone();
    values.push(ours);
    MethodsRow {
        subject,
        n_labels,
        others,
        paper,
        paper_delta,
        ours,
        ranks: ranks(&values),
    }
}

fn best(values: &[Option<f64>]) -> Option<f64> {
    values.iter().copied().flatten().reduce(f64::max)
}

impl MethodsTable {
    /// The table as CSV; undefined values are empty.
    pub fn to_csv(&self) -> String {
        let head = ["row", "n_labels"]
            .into_iter()
            .chain(self.methods.iter().copied());
        let tail = ["paper", "paper_delta", "ours", "delta"];
        let mut text = csv_line(head.chain(tail));
        for row in &self.rows {
            let mut cells = vec![row.subject.name(), row.n_labels.to_string()];
            cells.extend(row.others.iter().map(|&auc| or_empty(auc)));
            cells.extend([row.paper, row.paper_delta, row.ours, row.delta()].map(or_empty));
            text.push_str(&csv_line(cells));
        }
        text
    }
}

/// The systems that were run here, each beside its published column.
struct Here<'a> {
    table: Option<&'a AucTable>,
    /// Columns of the table for each published method, in their order.
    of_methods: Vec<Vec<usize>>,
    /// Those of systems without a published column.
    others: Vec<usize>,
}

impl<'a> Here<'a> {
    fn of(from: &'a Material<'_>, published: &MethodsTable) -> Self {
        let table = from.table(5);
        let columns = |method: Option<&str>| {
            let of_table = |table| columns_here(table, &from.report.runs, method);
            table.map(of_table).unwrap_or_default()
        };
        let methods = published.methods.iter();
        let of_methods: Vec<Vec<usize>> = methods.map(|&method| columns(Some(method))).collect();
        let all = 0..table.map_or(0, |table| table.columns.len());
        let is_placed = |at: &usize| of_methods.iter().any(|placed| placed.contains(at));
        Self {
            table,
            others: all.filter(|at| !is_placed(at)).collect(),
            of_methods,
        }
    }

    fn headings(&self, columns: &[usize]) -> Vec<TableCell> {
        let of_table = |table: &AucTable| {
            let heading =
                |&at: &usize| Some(format!("{}, here", table.columns.get(at)?.heading).into());
            columns.iter().filter_map(heading).collect()
        };
        self.table.map(of_table).unwrap_or_default()
    }

    fn cells(&self, columns: &[usize], subject: &Subject) -> Vec<TableCell> {
        let of_table = |table| columns.iter().map(move |&at| cell_here(table, at, subject));
        self.table.map(of_table).into_iter().flatten().collect()
    }
}

fn add(page: &mut Document, from: &Material<'_>) {
    let Some(table) = from.report.methods_table() else {
        return;
    };
    let here = Here::of(from, &table);
    let is_alone = table.methods.is_empty();
    page.heading(match is_alone {
        true => "Table 5. Test AUC, flip and zoom averaged; phantom data",
        false => "Table 5. Test AUC beside published methods, flip and zoom averaged",
    });
    let mut header: Vec<TableCell> = vec!["finding".into()];
    for (&method, own) in table.methods.iter().zip(&here.of_methods) {
        header.push(method.into());
        header.extend(here.headings(own));
    }
    header.extend(here.headings(&here.others));
    let ours: &[&str] = match is_alone {
        true => &["FZLPR (τ = 0.2)"],
        false => &[
            "paper, FZLPR",
            "paper's Δ to the best other",
            "ours, FZLPR",
            "our Δ to the best other",
        ],
    };
    header.extend(ours.iter().map(|&heading| heading.into()));
    let mut rows = vec![header];
    for row in &table.rows {
        let mut line = vec![match &row.subject {
            Subject::Label(label) => label.as_str().into(),
            Subject::Mean => format!("mean of {} labels", row.n_labels).into(),
            Subject::MeanWithout(label) => {
                format!("mean without {label} of {} labels", row.n_labels).into()
            }
        }];
        let (ours, others) = match row.ranks.split_last() {
            Some((ours, others)) => (*ours, others),
            None => (None, &[][..]),
        };
        for ((&value, &rank), own) in row.others.iter().zip(others).zip(&here.of_methods) {
            line.push(auc(value).ranked(rank));
            line.extend(here.cells(own, &row.subject));
        }
        line.extend(here.cells(&here.others, &row.subject));
        if is_alone {
            line.push(auc(row.ours));
        } else {
            line.push(auc(row.paper));
            line.push((row.paper_delta).map_or_else(dash, |delta| signed(delta).into()));
            line.push(auc(row.ours).ranked(ours));
            line.push((row.delta()).map_or_else(dash, |delta| signed(delta).into()));
        }
        rows.push(line);
    }
    let is_mean = |subject: &Subject| !matches!(subject, Subject::Label(_));
    page.add(Block::Table(Table {
        feet: table
            .rows
            .iter()
            .filter(|row| is_mean(&row.subject))
            .count(),
        rows,
        file: Some("table5.csv".to_owned()),
    }));
    if is_alone {
        page.list(vec![
            "The paper sets six published methods on ChestX-ray14 beside its own here. Beside phantoms \
             their figures would mean nothing, so they are left out."
                .to_owned(),
        ]);
        return;
    }
    let has_systems = here.table.is_some();
    let mut notes = vec![
        "Bold: best of the six published methods and ours; underlined: runner-up. The other methods' \
         figures are as the paper quotes them; three are not like for like, as their names say: \
         non-image data, another split, an ensemble pretrained on other data."
            .to_owned(),
        "Δ of a mean is against the best mean, which need not be the method that is best per finding."
            .to_owned(),
        "The paper's text names Cardiomegaly, 2.53 %, as its smallest Δ; its own table has Nodule, 0.86 %, \
         which stands here."
            .to_owned(),
    ];
    if has_systems {
        notes.push(
            "Columns that end in \"here\" are of published systems built and trained here, each by the variant that \
             validates best: in brackets the 95 % interval, behind it the difference to the published figure. They have no \
             part in the places of a row; the next section has their means, tests and reasons to differ."
                .to_owned(),
        );
    }
    if table.is_sample {
        notes.push(
            "Ours is of a sample: beside figures of the complete test images an orientation only."
                .to_owned(),
        );
    }
    page.list(notes);
}
