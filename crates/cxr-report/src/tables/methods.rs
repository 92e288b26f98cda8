//! Table 5: the methods that the paper quotes, the paper's own figures, and ours.

use super::{LEFT_OUT_OF_SECOND_MEAN, Subject, or_empty, paper_variant};
use crate::published::{LABELS, TABLE_5, TABLE_5_DELTAS};
use crate::ranks::{Rank, ranks};
use cxr_run::{RunMetrics, ViewSet};
use cxr_table::csv_line;

/// Table 5, made from the run of FZLPR(0.2) with flip and zoom.
#[derive(Clone, Debug, PartialEq)]
pub struct MethodsTable {
    /// The other methods, in the paper's order; none beside phantoms.
    pub methods: Vec<&'static str>,
    /// The labels, then the means.
    pub rows: Vec<MethodsRow>,
    /// Whether listed images were not at hand.
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
        .filter(|run| paper_variant(run) == Some("fzlpr-0.2"))
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
