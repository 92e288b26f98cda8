//! The published figures are copied rightly: what the paper says of its own tables follows from them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use cxr_report::paper::{
    LABELS, PublishedTable, TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_5, TABLE_5_DELTAS,
};
use cxr_report::ranks::{Rank, ranks};

/// How often a column is best, and best or runner-up, over the fourteen labels.
fn counts(table: &PublishedTable, column: &str) -> (usize, usize) {
    let at = table.column(column).unwrap();
    let places = table.rows.iter().map(|(_, aucs)| {
        let row: Vec<Option<f64>> = aucs.iter().copied().map(Some).collect();
        ranks(&row)[at]
    });
    let marked: Vec<Rank> = places.flatten().collect();
    let best = marked.iter().filter(|&&rank| rank == Rank::Best).count();
    (best, marked.len())
}

#[test]
fn the_paper_s_counts_of_best_and_runner_up_follow() {
    assert_eq!(counts(&TABLE_2, "fzlpr-0.2").1, 8);
    assert_eq!(counts(&TABLE_2, "focal").1, 12);
    assert_eq!(counts(&TABLE_4, "0.2"), (6, 9));
    assert_eq!(counts(&TABLE_4, "0.8"), (3, 5));
    assert_eq!(counts(&TABLE_4, "0.4").1, 5);
}

#[test]
fn every_table_has_every_label_in_order_and_every_column() {
    for table in [TABLE_2, TABLE_3, TABLE_4, TABLE_5] {
        let labels: Vec<&str> = table.rows.iter().map(|&(label, _)| label).collect();
        assert_eq!(labels, LABELS, "{}", table.title);
        for (label, aucs) in table.rows {
            assert_eq!(aucs.len(), table.columns.len(), "{}, {label}", table.title);
        }
        assert_eq!(table.averages.len(), table.columns.len(), "{}", table.title);
    }
    assert_eq!(TABLE_1.averages.len(), TABLE_1.columns.len());
}

#[test]
fn the_averages_are_those_of_the_rows_up_to_rounding() {
    for table in [TABLE_2, TABLE_3, TABLE_4, TABLE_5] {
        for (at, column) in table.columns.iter().enumerate() {
            let sum: f64 = table.rows.iter().map(|(_, aucs)| aucs[at]).sum();
            let mean = sum / LABELS.len() as f64;
            let printed = table.averages[at];
            // Half a unit of the last digit of the mean, and as much from the rows.
            assert!(
                (mean - printed).abs() <= 1e-4,
                "{column}: {mean}, {printed}"
            );
            assert_eq!(table.mean(at, &LABELS), Some(printed), "{column}");
        }
    }
}

#[test]
fn without_hernia_focal_leads_and_fzlpr_gains_nothing() {
    let others = &LABELS[..13];
    for (column, expected) in [
        ("focal", 0.8024),
        ("bce", 0.7986),
        ("fzlpr-0.2", 0.7978),
        ("zlpr", 0.7961),
    ] {
        let mean = TABLE_2
            .mean(TABLE_2.column(column).unwrap(), others)
            .unwrap();
        assert!((mean - expected).abs() < 5.1e-5, "{column}: {mean}");
    }
    assert_eq!(
        TABLE_1.mean(0, others),
        None,
        "Table 1 prints one mean only"
    );
}

#[test]
fn the_same_runs_have_the_same_figures_in_several_tables() {
    let column = |table: &PublishedTable, name: &str| {
        let at = table.column(name).unwrap();
        let of_label = table.rows.iter().map(|(_, aucs)| aucs[at]);
        of_label.collect::<Vec<f64>>()
    };
    let fzlpr = column(&TABLE_2, "fzlpr-0.2");
    assert_eq!(column(&TABLE_3, "single"), fzlpr);
    assert_eq!(column(&TABLE_4, "0.2"), fzlpr);
    assert_eq!(column(&TABLE_4, "1.0"), column(&TABLE_2, "zlpr"));
    let last = TABLE_5.columns.last().unwrap();
    assert_eq!(column(&TABLE_5, last), column(&TABLE_3, "hflip-zoom"));
}

#[test]
fn table_5_s_deltas_are_against_the_best_other_method_of_the_row() {
    let delta = |aucs: &[f64]| {
        let (ours, others) = aucs.split_last().unwrap();
        ours - others.iter().copied().fold(f64::MIN, f64::max)
    };
    let (of_labels, of_averages) = TABLE_5_DELTAS;
    assert_eq!(of_labels.len(), LABELS.len());
    for ((label, aucs), printed) in TABLE_5.rows.iter().zip(of_labels) {
        assert!((delta(aucs) - printed).abs() < 1e-9, "{label}");
    }
    assert!((delta(TABLE_5.averages) - of_averages).abs() < 1e-9);
    let smallest = of_labels.iter().copied().fold(f64::MIN, f64::max);
    assert_eq!(smallest, -0.0086, "Nodule's");
}
