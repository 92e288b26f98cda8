//! What a report computes of predictions and labels: curves, paired tests, figures, the page.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::LazyLock;

use cxr_metrics::{Level, Scored, holm, paired_delong, roc_auc};
use cxr_report::figures::{Figure, figures, focal_loss, fzlpr_loss};
use cxr_report::paper::LABELS;
use cxr_report::report::Report;
use cxr_run::{LabelRow, LabelTable, NetworkPart, Predictions, RunError, RunMetrics, Unscorable};

#[path = "made/experiment.rs"]
mod experiment;

use experiment::{EIGHT, Origin, Variant};

/// The eight runs, made and read once.
static EIGHT_RUNS: LazyLock<(tempfile::TempDir, Report)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    experiment::write(folder.path(), &EIGHT, Origin::Phantom).unwrap();
    let report = Report::read(folder.path()).unwrap();
    (folder, report)
});

fn figure(report: &Report, name: &str) -> Option<Figure> {
    figures(report)
        .into_iter()
        .find(|figure| figure.name == name)
}

/// One label's logits and states of a run's test images.
fn column(folder: &Path, variant: &str, label: &str) -> (Vec<f32>, Vec<bool>) {
    let run = folder.join(variant);
    let predictions = Predictions::read(&run.join("predictions-test.csv"), Unscorable::Refuse);
    let predictions = predictions.unwrap();
    let scores = predictions
        .columns()
        .iter()
        .find(|c| c.label == label)
        .unwrap();
    let scores = scores.scores.iter().map(|&score| score as f32).collect();
    let labels = LabelTable::read(&run.join("labels-test.csv"))
        .unwrap()
        .unwrap();
    let at = labels
        .labels()
        .iter()
        .position(|known| known == label)
        .unwrap();
    let states = labels.rows().iter().map(|row| row.states[at] == Some(true));
    (scores, states.collect())
}

#[test]
fn every_pair_of_losses_is_tested_by_patient_with_holm_over_the_findings() {
    let (folder, report) = &*EIGHT_RUNS;
    let pairs: Vec<(&str, &str)> = (report.evidence.tests.iter())
        .map(|test| (test.a.as_str(), test.b.as_str()))
        .collect();
    assert_eq!(
        pairs,
        [
            ("fzlpr-0.2", "zlpr"),
            ("fzlpr-0.2", "focal"),
            ("fzlpr-0.2", "bce"),
            ("zlpr", "focal"),
            ("zlpr", "bce"),
            ("focal", "bce"),
        ]
    );
    assert!(report.evidence.by_patient);
    let test = &report.evidence.tests[2];
    let mut p_values = Vec::new();
    for found in &test.comparison.labels {
        let (a, truth) = column(folder.path(), "fzlpr-0.2", &found.label);
        let (b, _) = column(folder.path(), "bce", &found.label);
        // Two images of a patient stand together.
        let patients: Vec<u64> = (0..truth.len() as u64).map(|image| image / 2).collect();
        let expected = paired_delong(&truth, &a, &b, Some(&patients))
            .unwrap()
            .unwrap();
        assert!((found.difference.unwrap() - expected.difference).abs() < 1e-12);
        let p_value = expected.p_value.unwrap();
        assert!(
            (found.p_value.unwrap() - p_value).abs() < 1e-12,
            "{}",
            found.label
        );
        p_values.push(p_value);
    }
    for (found, expected) in test.comparison.labels.iter().zip(holm(&p_values).unwrap()) {
        assert!((found.p_value_holm.unwrap() - expected).abs() < 1e-12);
    }
    let differences: Vec<f64> = (test.comparison.labels.iter())
        .map(|label| label.difference.unwrap())
        .collect();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let means = &test.comparison.means;
    assert!((means.difference.unwrap() - mean(&differences)).abs() < 1e-12);
    let without = test.without.unwrap();
    assert!(
        (without.difference - mean(&differences[..13])).abs() < 1e-12,
        "Hernia is the last"
    );
    assert!(
        without
            .interval(Level::P95)
            .unwrap()
            .contains(without.difference)
    );
    let interval = means.interval.unwrap();
    assert_eq!(
        interval[0] > 0.0 || interval[1] < 0.0,
        means.p_value.unwrap() < 0.05
    );
}

#[test]
fn each_tau_is_tested_against_zlpr_in_order() {
    let (_, report) = &*EIGHT_RUNS;
    let pairs: Vec<(&str, &str)> = (report.evidence.tau_tests.iter())
        .map(|test| (test.a.as_str(), test.b.as_str()))
        .collect();
    let others = [
        "fzlpr-0.1",
        "fzlpr-0.2",
        "fzlpr-0.4",
        "fzlpr-0.6",
        "fzlpr-0.8",
    ];
    assert_eq!(pairs, others.map(|variant| (variant, "zlpr")));
}

#[test]
fn a_run_against_its_own_copy_differs_in_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let one: [Variant; 1] = [("bce", "bce", None, 0)];
    experiment::write(folder.path(), &one, Origin::Phantom).unwrap();
    let copy = folder.path().join("focal");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(folder.path().join("bce")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
    }
    let mut metrics = RunMetrics::read(&copy.join("metrics.json")).unwrap();
    (metrics.variant, metrics.loss) = ("focal".to_owned(), "focal".to_owned());
    metrics.write(&copy.join("metrics.json")).unwrap();
    let report = Report::read(folder.path()).unwrap();
    let [test] = report.evidence.tests.as_slice() else {
        panic!("{} tests", report.evidence.tests.len());
    };
    for label in &test.comparison.labels {
        assert_eq!(
            (label.difference, label.p_value_holm),
            (Some(0.0), Some(1.0))
        );
    }
    assert_eq!(test.comparison.means.interval, Some([0.0, 0.0]));
    let without = test.without.unwrap();
    let interval = without.interval(Level::P95).unwrap();
    assert_eq!(
        (without.p_value, interval.lower, interval.upper),
        (Some(1.0), 0.0, 0.0)
    );
}

#[test]
fn curves_are_those_of_the_predictions_and_end_in_the_corners() {
    let (folder, report) = &*EIGHT_RUNS;
    let curves = report.evidence.curves.as_ref().unwrap();
    assert_eq!(curves.variant, "fzlpr-0.2");
    assert_eq!(curves.labels.len(), 14);
    for (label, curve) in &curves.labels {
        let (scores, truth) = column(folder.path(), "fzlpr-0.2", label);
        let auc = roc_auc(Scored::new(&scores, &truth).unwrap()).unwrap();
        assert!((curve.area() - auc).abs() < 1e-9, "{label}");
        let ends = [curve.points.first().unwrap(), curve.points.last().unwrap()];
        let ends = ends.map(|point| (point.false_positive_rate, point.true_positive_rate));
        assert_eq!(ends, [(0.0, 0.0), (1.0, 1.0)]);
    }
    let body = figure(report, "figure5").unwrap().to_svg();
    assert_eq!(body.matches("class=\"roc\"").count(), 14);
    // From the lower left corner of the frame to the upper right one.
    assert_eq!(
        body.matches("d=\"M62 416").count(),
        28,
        "curves and what takes the pointer"
    );
    assert_eq!(body.matches("L462 16\"").count(), 28);
}

#[test]
fn label_frequencies_are_counted_from_all_parts() {
    let (folder, report) = &*EIGHT_RUNS;
    let frequencies = report.evidence.frequencies.as_ref().unwrap();
    assert_eq!(frequencies.images, [1_200, 200, 600]);
    let (_, states) = column(folder.path(), "bce", "Hernia");
    let hernia = &frequencies.labels[13];
    assert_eq!(hernia.0, "Hernia");
    assert_eq!(hernia.1[2], states.iter().filter(|&&state| state).count());
    let svg = figure(report, "figure3").unwrap().to_svg();
    let total: usize = hernia.1.iter().sum();
    assert!(svg.contains(&format!("{total} (")), "{total}");
    let place = |text: &str| svg.find(&format!(">{text}<")).unwrap();
    assert!(place("Atelectasis") < place("Hernia"), "sorted");
}

#[test]
fn all_figures_are_drawn_with_the_bundled_font_and_repeat_to_the_byte() {
    let (_, report) = &*EIGHT_RUNS;
    let all = figures(report);
    let names: Vec<&str> = all.iter().map(|figure| figure.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "figure1",
            "figure3",
            "figure4",
            "figure5",
            "figure6",
            "figure-tau",
            "figure7"
        ]
    );
    for figure in &all {
        let svg = figure.to_svg();
        assert!(
            !svg.contains("var(--"),
            "{}: a colour is missing",
            figure.name
        );
        assert!(
            !svg.contains("NaN") && !svg.contains("inf"),
            "{}",
            figure.name
        );
        let with_text = figure.to_png().unwrap();
        assert_eq!(with_text, figure.to_png().unwrap());
        // A reader without any font would draw as if there were no text.
        let parsed = resvg::usvg::Tree::from_str(&svg, &resvg::usvg::Options::default()).unwrap();
        let (width, height) = (parsed.size().width(), parsed.size().height());
        let mut blank = resvg::tiny_skia::Pixmap::new(2 * width as u32, 2 * height as u32).unwrap();
        let twice = resvg::tiny_skia::Transform::from_scale(2.0, 2.0);
        resvg::render(&parsed, twice, &mut blank.as_mut());
        let drawn = resvg::tiny_skia::Pixmap::decode_png(&with_text).unwrap();
        assert_eq!(
            (drawn.width(), drawn.height()),
            (blank.width(), blank.height())
        );
        assert_ne!(drawn.data(), blank.data(), "{}: no text", figure.name);
    }
}

#[test]
fn figure_2_is_the_network_of_a_run_that_says_what_it_has() {
    let (_, report) = &*EIGHT_RUNS;
    assert!(figure(report, "figure2").is_none());
    let part = |name: &str, is_head, channels, parameters| NetworkPart {
        name: name.to_owned(),
        is_head,
        layers: vec![
            ("3×3 convolution".to_owned(), 12),
            ("1×1 convolution".to_owned(), 1),
        ],
        channels,
        height: 7,
        width: 9,
        parameters,
        multiply_adds: 1_234_000_000,
    };
    let mut report = report.clone();
    report.runs[1].network = vec![part("block <1>", false, 64, 1_000), part("", true, 14, 234)];
    let drawn = figure(&report, "figure2").unwrap();
    let svg = drawn.to_svg();
    for text in [
        "block &lt;1&gt;",
        "12 × 3×3 convolution, 1×1 convolution",
        ">64×7×9<",
        ">head<",
        ">1,234<",
        ">2,468<",
    ] {
        assert!(svg.contains(text), "{text}: {svg}");
    }
    assert!(!drawn.caption.contains("other runs"));
    report.runs[2].network = vec![part("another", false, 32, 7)];
    let drawn = figure(&report, "figure2").unwrap();
    assert!(drawn.caption.contains("other runs"), "{}", drawn.caption);
    drawn.to_png().unwrap();
}

#[test]
fn the_losses_of_figure_1_are_right_where_they_are_known_and_finite_everywhere() {
    let ln_2 = 2f64.ln();
    for tau in [0.1, 0.2, 1.0] {
        assert!((fzlpr_loss(0.0, tau) - ln_2).abs() < 1e-15);
        // Far on the wrong side the loss is −x/τ.
        assert!((fzlpr_loss(-1e4, tau) - 1e4 / tau).abs() < 1e-6);
        assert_eq!(fzlpr_loss(1e4, tau), 0.0);
    }
    assert!((fzlpr_loss(-1.0, 0.5) - (1.0 + 2f64.exp()).ln()).abs() < 1e-12);
    assert!((focal_loss(0.0, 2.0) - 0.25 * ln_2).abs() < 1e-15);
    assert!(
        (focal_loss(0.0, 0.0) - ln_2).abs() < 1e-15,
        "without focus it is BCE"
    );
    let p = 1.0 / (1.0 + 1.5f64.exp());
    assert!((focal_loss(-1.5, 2.0) + (1.0 - p).powi(2) * p.ln()).abs() < 1e-12);
    assert!(focal_loss(-1e4, 2.0).is_finite() && focal_loss(1e4, 2.0) == 0.0);
}

#[test]
fn the_page_is_whole_without_any_other_file_or_address() {
    let (_, report) = &*EIGHT_RUNS;
    let page = report.html();
    for attribute in ["src=\"", "href=\"", "url("] {
        for (at, _) in page.match_indices(attribute) {
            let value = &page[at + attribute.len()..];
            let is_inside = ["data:", "#", "https://"]
                .iter()
                .any(|s| value.starts_with(s));
            assert!(is_inside, "{}", &value[..value.len().min(60)]);
            // An address may be named, not loaded.
            if value.starts_with("https://") {
                assert_eq!(attribute, "href=\"");
                assert!(page[..at].ends_with("<a "), "{}", &page[at - 20..at + 40]);
            }
        }
    }
    assert!(!page.contains("@import") && !page.contains("<script src"));
    let place = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text}"));
    assert!(place("Phantom data.") < place("<h2>Summary"));
    for id in [
        "figure1",
        "figure3",
        "figure4",
        "figure5",
        "figure6",
        "figure-tau",
        "figure7",
    ] {
        assert!(page.contains(&format!("<figure id=\"{id}\">")), "{id}");
    }
    assert_eq!(page.matches("class=\"card\"").count(), 9);
    assert!(page.contains("cargo xtask reproduce made"));
    assert!(!page.contains("ours − published"), "phantoms");
}

#[test]
fn what_a_run_folder_says_cannot_become_markup() {
    let folder = tempfile::tempdir().unwrap();
    let one: [Variant; 1] = [("bce", "bce", None, 0)];
    experiment::write(folder.path(), &one, Origin::Complete).unwrap();
    let run = folder.path().join("bce");
    let environment = r#"{"device": "<script>alert(1)</script>", "note": "a|b <b>c</b>"}"#;
    std::fs::write(run.join("environment.json"), environment).unwrap();
    let mut metrics = RunMetrics::read(&run.join("metrics.json")).unwrap();
    metrics.data.release = "ChestX-ray14 <img src=x onerror=alert(1)>".to_owned();
    metrics.write(&run.join("metrics.json")).unwrap();
    let page = Report::read(folder.path()).unwrap().html();
    for bad in ["<script>alert", "<img src=x", "<b>c"] {
        assert!(!page.contains(bad), "{bad}");
    }
}

#[test]
fn a_run_without_predictions_is_told_and_the_rest_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let two: [Variant; 2] = [("bce", "bce", None, 0), ("focal", "focal", None, 0)];
    experiment::write(folder.path(), &two, Origin::Complete).unwrap();
    std::fs::remove_file(folder.path().join("focal/labels-test.csv")).unwrap();
    let report = Report::read(folder.path()).unwrap();
    assert_eq!(report.evidence.without_predictions, ["focal"]);
    assert!(report.evidence.tests.is_empty());
    let page = report.markdown();
    assert!(
        page.contains("**Not in the curves and tests**: `focal`"),
        "{page}"
    );
    for absent in ["Table 4", "Figure 6", "Figure 7", "Figure 4"] {
        let line = page
            .lines()
            .find(|line| line.contains("no run has what it needs"));
        assert!(line.unwrap().contains(absent), "{page}");
    }
    assert!(figure(&report, "figure5").is_some());
    assert!(figure(&report, "figure6").is_none());
}

#[test]
fn runs_on_other_images_are_not_tested_against_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let two: [Variant; 2] = [("bce", "bce", None, 0), ("focal", "focal", None, 0)];
    experiment::write(folder.path(), &two, Origin::Phantom).unwrap();
    let path = folder.path().join("focal/labels-test.csv");
    let text = std::fs::read_to_string(&path).unwrap();
    // The same images, one label otherwise.
    let (head, last) = text.trim_end().rsplit_once(',').unwrap();
    let other = if last == "1" { "0" } else { "1" };
    std::fs::write(&path, format!("{head},{other}\n")).unwrap();
    assert!(
        Report::read(folder.path())
            .unwrap()
            .evidence
            .tests
            .is_empty()
    );
}

#[test]
fn label_tables_read_back_and_refuse_what_is_no_label() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labels-test.csv");
    assert_eq!(LabelTable::read(&path).unwrap(), None);
    let row = |image: &str, patient: Option<&str>, states: [Option<bool>; 2]| LabelRow {
        image: image.to_owned(),
        patient: patient.map(str::to_owned),
        states: states.to_vec(),
    };
    let names = vec!["Mass".to_owned(), "a,b \"c\"".to_owned()];
    let known = vec![
        row("1.png", Some("p1"), [Some(true), None]),
        row("2.png", Some("p2"), [Some(false), Some(false)]),
    ];
    let table = LabelTable::new(names.clone(), known);
    table.write(&path).unwrap();
    assert_eq!(LabelTable::read(&path).unwrap(), Some(table.clone()));
    assert_eq!((table.positives(0), table.n_without_finding()), (1, 1));
    // One unknown patient: the column would have a hole, so it is not there.
    let unknown = LabelTable::new(names, vec![row("1.png", None, [None, None])]);
    unknown.write(&path).unwrap();
    assert_eq!(LabelTable::read(&path).unwrap(), Some(unknown));
    std::fs::write(&path, "Image Index,Mass\n1.png,1\n2.png,yes\n").unwrap();
    let error = LabelTable::read(&path).unwrap_err();
    let RunError::LabelCell { line, text, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((line, text.as_str()), (3, "yes"));
}

#[test]
fn the_fixture_has_the_paper_s_labels() {
    let (_, report) = &*EIGHT_RUNS;
    let labels = &report.evidence.frequencies.as_ref().unwrap().labels;
    let names: Vec<&str> = labels.iter().map(|(label, _)| label.as_str()).collect();
    assert_eq!(names, LABELS);
}
