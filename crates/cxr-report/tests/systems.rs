//! Published systems that were run: which variant stands for one, its column "here" in Table 5, its test against FZLPR, and
//! the tables that it must stay out of.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use cxr_metrics::{holm, paired_delong};
use cxr_report::report::Report;
use cxr_report::tables::{SystemRow, SystemsTable};
use cxr_run::{
    Comparison, ComparisonOptions, Evaluation, LabelTable, Predictions, RunMetrics, Unscorable,
    ViewSet,
};

#[path = "made/experiment.rs"]
#[expect(dead_code, reason = "this test makes variants of its own")]
mod experiment;

use experiment::{Origin, Variant};

/// A variant's place in the list lifts its logits: of Wang's two the second validates better.
const VARIANTS: [Variant; 5] = [
    ("wang-vgg", "bce", None, 0),
    ("wang-resnet", "bce", None, 0),
    ("bce", "bce", None, 0),
    ("fzlpr-0.2", "fzlpr", Some(0.2), 0),
    ("own", "focal", None, 0),
];
const SYSTEMS: [(&str, &str); 3] = [
    ("wang-vgg", "wang-2017"),
    ("wang-resnet", "wang-2017"),
    ("own", "mine"),
];

fn made(origin: Origin) -> (tempfile::TempDir, Report) {
    let folder = tempfile::tempdir().unwrap();
    experiment::write(folder.path(), &VARIANTS, origin).unwrap();
    for (variant, system) in SYSTEMS {
        change(folder.path(), variant, |run| {
            run.system = Some(system.to_owned());
        });
    }
    let report = Report::read(folder.path()).unwrap();
    (folder, report)
}

fn change(folder: &Path, variant: &str, change: impl Fn(&mut RunMetrics)) {
    let path = folder.join(variant).join("metrics.json");
    let mut run = RunMetrics::read(&path).unwrap();
    change(&mut run);
    run.write(&path).unwrap();
}

fn row<'a>(table: &'a SystemsTable, variant: &str) -> &'a SystemRow {
    let mut rows = table.rows.iter();
    rows.find(|row| row.variant == variant).unwrap()
}

fn evaluation(folder: &Path, variant: &str) -> Evaluation {
    let run = folder.join(variant);
    let path = run.join("predictions-test-hflip-zoom.csv");
    let predictions = Predictions::read(&path, Unscorable::Refuse).unwrap();
    let labels = LabelTable::read(&run.join("labels-test.csv")).unwrap();
    let truth = labels.unwrap().truth().unwrap();
    Evaluation::join(&predictions, &truth, &[], Unscorable::Refuse).unwrap()
}

/// One label's logits with flip and zoom, and states, of a run's test images.
fn column(folder: &Path, variant: &str, label: &str) -> (Vec<f32>, Vec<bool>) {
    let run = folder.join(variant);
    let path = run.join("predictions-test-hflip-zoom.csv");
    let predictions = Predictions::read(&path, Unscorable::Refuse).unwrap();
    let mut columns = predictions.columns().iter();
    let scores = columns.find(|column| column.label == label).unwrap();
    let scores = scores.scores.iter().map(|&score| score as f32).collect();
    let table = LabelTable::read(&run.join("labels-test.csv"))
        .unwrap()
        .unwrap();
    let at = table
        .labels()
        .iter()
        .position(|known| known == label)
        .unwrap();
    let states = table.rows().iter().map(|row| row.states[at] == Some(true));
    (scores, states.collect())
}

#[test]
fn the_variant_that_validates_best_stands_for_its_system() {
    let (_folder, report) = made(Origin::Complete);
    let table = report.systems_table().unwrap();
    let variants: Vec<(&str, bool)> = (table.rows.iter())
        .map(|row| (row.variant.as_str(), row.is_chosen))
        .collect();
    let expected = [("wang-resnet", true), ("wang-vgg", false), ("own", true)];
    assert_eq!(variants, expected);
    let validation = |variant| row(&table, variant).validation.unwrap();
    assert!(validation("wang-resnet") > validation("wang-vgg"));
}

#[test]
fn a_system_has_a_column_here_beside_its_published_one_with_its_interval() {
    let (_folder, report) = made(Origin::Complete);
    let run = |variant: &str| {
        report
            .runs
            .iter()
            .find(|run| run.variant == variant)
            .unwrap()
    };
    let text = report.markdown();
    let header = text
        .lines()
        .find(|line| line.starts_with("| finding | Wang 2017"))
        .unwrap();
    let cells: Vec<&str> = header.split('|').map(str::trim).collect();
    assert_eq!(
        &cells[2..5],
        ["Wang 2017", "Wang et al. 2017, here", "Gündel 2019"]
    );
    assert!(cells.contains(&"mine, here"), "{header}");

    let summary = &run("wang-resnet").test[&ViewSet::HorizontalFlipZoom];
    let hernia = summary.labels.iter().find(|l| l.label == "Hernia").unwrap();
    let [lower, upper] = hernia.auc_interval_clustered.unwrap();
    let shown = format!("{:.4} ({lower:.4}–{upper:.4})", hernia.auc.unwrap());
    let of_hernia = text
        .lines()
        .find(|line| line.starts_with("| Hernia | 0.8717 |"));
    assert!(
        of_hernia.unwrap().contains(&shown),
        "{shown}: {of_hernia:?}"
    );
    // The other variant is in the table of variants only.
    let other = &run("wang-vgg").test[&ViewSet::HorizontalFlipZoom];
    let hernia = other.labels.iter().find(|l| l.label == "Hernia").unwrap();
    assert!(
        !of_hernia
            .unwrap()
            .contains(&format!("{:.4} (", hernia.auc.unwrap()))
    );
    assert!(
        text.contains("Wang et al. 2017: here and published may differ, as"),
        "{text}"
    );
    assert_eq!(
        row(&report.systems_table().unwrap(), "wang-resnet").published,
        Some(0.7451)
    );
}

#[test]
fn each_system_is_tested_against_fzlpr_with_flip_and_zoom_by_patient() {
    let (folder, report) = made(Origin::Complete);
    let tests = &report.evidence.system_tests;
    let pairs: Vec<(&str, &str)> = (tests.iter())
        .map(|test| (test.a.as_str(), test.b.as_str()))
        .collect();
    assert_eq!(pairs, [("wang-resnet", "fzlpr-0.2"), ("own", "fzlpr-0.2")]);
    let table = report.systems_table().unwrap();
    let mut p_values = Vec::new();
    for test in tests {
        let [a, b] = [&test.a, &test.b].map(|variant| evaluation(folder.path(), variant));
        let label = "Effusion";
        let (scores_a, truth) = column(folder.path(), &test.a, label);
        let (scores_b, _) = column(folder.path(), &test.b, label);
        // Two images of a patient stand together.
        let patients: Vec<u64> = (0..truth.len() as u64).map(|image| image / 2).collect();
        let expected = paired_delong(&truth, &scores_a, &scores_b, Some(&patients));
        let expected = expected.unwrap().unwrap();
        let mut labels = test.comparison.labels.iter();
        let found = labels.find(|found| found.label == label).unwrap();
        assert!((found.difference.unwrap() - expected.difference).abs() < 1e-12);
        assert!((found.p_value.unwrap() - expected.p_value.unwrap()).abs() < 1e-12);
        let options = ComparisonOptions {
            by_patient: true,
            ..ComparisonOptions::default()
        };
        let means = Comparison::new(&a, &b, &options).unwrap().means;
        let of_row = row(&table, &test.a);
        assert_eq!(of_row.difference, means.difference);
        assert_eq!(of_row.p_value, means.p_value);
        p_values.push(means.p_value.unwrap());
    }
    let corrected = holm(&p_values).unwrap();
    let found = tests
        .iter()
        .map(|test| row(&table, &test.a).p_value_holm.unwrap());
    assert_eq!(found.collect::<Vec<_>>(), corrected);
    assert_eq!(row(&table, "wang-vgg").difference, None);
}

#[test]
fn systems_are_in_no_table_and_no_test_of_losses() {
    let (_folder, report) = made(Origin::Complete);
    for table in report.tables().iter().filter(|table| table.number < 5) {
        let mut columns = table.columns.iter();
        let is_system = |variant: &str| SYSTEMS.iter().any(|(name, _)| *name == variant);
        assert!(
            columns.all(|column| !is_system(&column.variant)),
            "{table:?}"
        );
    }
    let pairs: Vec<&str> = report
        .evidence
        .tests
        .iter()
        .map(|test| test.a.as_str())
        .collect();
    assert_eq!(pairs, ["fzlpr-0.2"], "FZLPR against BCE alone");
    assert_eq!(report.stage_table().unwrap().rows.len(), 2);
}

#[test]
fn being_above_the_untrained_network_takes_more_than_the_interval() {
    let (folder, _) = made(Origin::Phantom);
    let path = folder.path().join("own/metrics.json");
    let run = RunMetrics::read(&path).unwrap();
    let [lower, upper] = run.test[&ViewSet::Single].means.auc_interval.unwrap();
    for (untrained, expected) in [(lower - 1e-6, true), ((lower + upper) / 2.0, false)] {
        change(folder.path(), "own", |run| {
            run.stages[0].test.auc = Some(untrained);
        });
        let table = Report::read(folder.path())
            .unwrap()
            .systems_table()
            .unwrap();
        assert_eq!(row(&table, "own").is_above_untrained(), Some(expected));
    }
}

#[test]
fn on_phantoms_no_published_figure_stands_beside_a_system() {
    let (folder, report) = made(Origin::Phantom);
    let table = report.systems_table().unwrap();
    assert!(table.is_phantom && table.rows.iter().all(|row| row.published.is_none()));
    let text = report.markdown();
    assert!(
        !text.contains("0.7451") && !text.contains("published may differ"),
        "{text}"
    );
    assert!(text.contains("Wang et al. 2017, here"), "{text}");
    report.write(folder.path()).unwrap();
    for file in ["systems.csv", "table5-here.csv", "tests-systems.csv"] {
        assert!(folder.path().join("tables").join(file).is_file(), "{file}");
    }
    // Taken away when there are no systems any more.
    for (variant, _) in SYSTEMS {
        change(folder.path(), variant, |run| run.system = None);
    }
    Report::read(folder.path())
        .unwrap()
        .write(folder.path())
        .unwrap();
    assert!(!folder.path().join("tables/systems.csv").exists());
}

#[test]
fn a_system_on_test_images_of_its_own_is_marked() {
    let (folder, _) = made(Origin::Complete);
    change(folder.path(), "own", |run| run.data.hold_out = Some(5));
    let report = Report::read(folder.path()).unwrap();
    let text = report.markdown();
    assert!(
        text.contains("**Not the official test images**: `own`"),
        "{text}"
    );
    assert!(text.contains("one in 5 images held out"), "{text}");
    assert!(!text.contains("**Not the same data.**"), "{text}");
    let text = report.systems_table().unwrap().to_csv();
    assert!(text.contains("mine,own,true,0,focal,5,"), "{text}");
}
