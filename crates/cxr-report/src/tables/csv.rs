//! A table as a file: one line per row and column, AUCs with all their digits.

use super::{AucTable, Interval, Subject};
use crate::ranks::Rank;
use cxr_table::csv_line as line;

const HEADER: [&str; 22] = [
    "row",
    "positives",
    "negatives",
    "variant",
    "part",
    "views",
    "auc",
    "n_labels",
    "lower",
    "upper",
    "interval",
    "df",
    "approximate",
    "rank",
    "published",
    "published_rank",
    "difference",
    "heading",
    "is_mean",
    "seeds",
    "sd",
    "is_phantom",
];

impl AucTable {
    /// The table as CSV. Undefined values are empty; the same runs give the same bytes.
    pub fn to_csv(&self) -> String {
        let mut text = line(HEADER.map(str::to_owned));
        for row in &self.rows {
            let is_mean = !matches!(row.subject, Subject::Label(_));
            for (column, cell) in self.columns.iter().zip(&row.cells) {
                let interval = cell.interval.as_ref();
                text.push_str(&line([
                    row.subject.name(),
                    or_empty(row.positives),
                    or_empty(row.negatives),
                    column.variant.clone(),
                    column.part.to_string(),
                    column.views.name().to_owned(),
                    or_empty(cell.auc),
                    cell.n_labels.to_string(),
                    or_empty(interval.map(|interval| interval.lower)),
                    or_empty(interval.map(|interval| interval.upper)),
                    or_empty(interval.map(|interval| interval.method.name())),
                    or_empty(interval.and_then(|interval| interval.degrees_of_freedom)),
                    or_empty(interval.map(Interval::is_approximate)),
                    or_empty(cell.rank.map(rank_name)),
                    or_empty(cell.published),
                    or_empty(cell.published_rank.map(rank_name)),
                    or_empty(cell.difference()),
                    column.heading.clone(),
                    is_mean.to_string(),
                    column.seeds.len().to_string(),
                    or_empty(cell.spread.map(|spread| spread.sd)),
                    self.is_phantom.to_string(),
                ]));
            }
        }
        text
    }
}

fn rank_name(rank: Rank) -> &'static str {
    match rank {
        Rank::Best => "best",
        Rank::RunnerUp => "runner-up",
    }
}

pub(crate) fn or_empty<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}
