//! Table 5: published methods beside ours.

use super::table::{marked, signed};
use super::{auc, dash, escape};
use crate::document::{Block, Document, Table};
use crate::report::Report;
use crate::tables::Subject;

pub(super) fn add(page: &mut Document, report: &Report) {
    let Some(table) = report.methods_table() else {
        return;
    };
    let is_alone = table.methods.is_empty();
    page.heading(match is_alone {
        true => "Table 5. Test AUC, flip and zoom averaged; phantom data",
        false => "Table 5. Test AUC beside published methods, flip and zoom averaged",
    });
    let mut header = vec!["finding".to_owned()];
    header.extend(table.methods.iter().map(|&method| escape(method)));
    let ours: &[&str] = match is_alone {
        true => &["FZLPR (τ = 0.2)"],
        false => &[
            "paper, FZLPR",
            "paper's Δ to the best other",
            "ours, FZLPR",
            "our Δ to the best other",
        ],
    };
    header.extend(ours.iter().map(|&heading| heading.to_owned()));
    let mut rows = vec![header];
    for row in &table.rows {
        let mut line = vec![match &row.subject {
            Subject::Label(label) => escape(label),
            Subject::Mean => format!("mean of {} labels", row.n_labels),
            Subject::MeanWithout(label) => {
                format!("mean without {label} of {} labels", row.n_labels)
            }
        }];
        let (ours, others) = match row.ranks.split_last() {
            Some((ours, others)) => (*ours, others),
            None => (None, &[][..]),
        };
        line.extend(
            row.others
                .iter()
                .zip(others)
                .map(|(&value, &rank)| marked(auc(value), rank)),
        );
        if is_alone {
            line.push(auc(row.ours));
        } else {
            line.push(auc(row.paper));
            line.push(row.paper_delta.map_or_else(dash, signed));
            line.push(marked(auc(row.ours), ours));
            line.push(row.delta().map_or_else(dash, signed));
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
    let mut notes = vec![
        "Bold: best of the six published methods and ours; underlined: runner-up. The other methods' \
         figures are as the paper quotes them; three are not like for like, as their names say: \
         non-image data, another split, an ensemble pretrained on other data."
            .to_owned(),
        "Δ of a mean is against the best mean, which need not be the method that is best per finding."
            .to_owned(),
    ];
    if table.is_sample {
        notes.push(
            "Ours is of a sample: beside figures of the complete test images an orientation only."
                .to_owned(),
        );
    }
    page.list(notes);
}
