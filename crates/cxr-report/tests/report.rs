//! A report from run folders: tables beside the published ones, and what it says of its data.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use cxr_report::paper::{LABELS, PublishedTable, TABLE_2, TABLE_3, TABLE_4, TABLE_5_DELTAS};
use cxr_report::ranks::Rank;
use cxr_report::report::{Report, Reproduction};
use cxr_report::tables::{AucTable, IntervalMethod, Subject, methods_table, tables};
use cxr_run::{BootstrapSummary, Parts, Resampling, RunMetrics, Summary, ViewSet};

mod made;

/// A column of a published table as a run's metrics.
fn as_summary(table: &PublishedTable, column: &str) -> Summary {
    let at = table.column(column).unwrap();
    let aucs = table
        .rows
        .iter()
        .map(|&(label, aucs)| (label, Some(aucs[at])));
    made::summary(&aucs.collect::<Vec<_>>())
}

/// The paper's eight runs with the paper's figures.
fn paper_runs() -> Vec<RunMetrics> {
    let mut runs = Vec::new();
    for (variant, loss) in [("bce", "bce"), ("focal", "focal"), ("zlpr", "zlpr")] {
        let mut run = made::run(variant, loss, None);
        run.test
            .insert(ViewSet::Single, as_summary(&TABLE_2, variant));
        runs.push(run);
    }
    for tau in [0.1, 0.2, 0.4, 0.6, 0.8] {
        let mut run = made::run(&format!("fzlpr-{tau}"), "fzlpr", Some(tau));
        let single = as_summary(&TABLE_4, &tau.to_string());
        run.test.insert(ViewSet::Single, single);
        if tau == 0.2 {
            for views in [ViewSet::HorizontalFlip, ViewSet::HorizontalFlipZoom] {
                run.test.insert(views, as_summary(&TABLE_3, views.name()));
            }
        }
        runs.push(run);
    }
    runs
}

fn read(folder: &Path, runs: &[RunMetrics]) -> Report {
    for run in runs {
        made::write_run(folder, run);
    }
    Report::read(folder).unwrap()
}

fn counts(table: &AucTable, column: usize, published: bool) -> (usize, usize) {
    let labels = table
        .rows
        .iter()
        .filter(|row| matches!(row.subject, Subject::Label(_)));
    let ranks: Vec<Rank> = labels
        .filter_map(|row| match published {
            true => row.cells[column].published_rank,
            false => row.cells[column].rank,
        })
        .collect();
    let best = ranks.iter().filter(|&&rank| rank == Rank::Best).count();
    (best, ranks.len())
}

#[test]
fn the_paper_s_own_figures_come_out_as_the_paper_s_tables() {
    let tables = tables(&paper_runs());
    let numbers: Vec<u8> = tables.iter().map(|table| table.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    let headings = |table: &AucTable| {
        let headings = table.columns.iter().map(|column| column.heading.clone());
        headings.collect::<Vec<_>>()
    };
    assert_eq!(
        headings(&tables[1]),
        ["BCE", "Focal", "ZLPR", "FZLPR (τ = 0.2)"]
    );
    assert_eq!(
        headings(&tables[2]),
        ["single view", "+ flip", "+ flip + zoom"]
    );
    assert_eq!(
        headings(&tables[3]),
        [
            "τ = 0.1", "τ = 0.2", "τ = 0.4", "τ = 0.6", "τ = 0.8", "τ = 1.0"
        ]
    );
    for published in [false, true] {
        assert_eq!(counts(&tables[1], 3, published).1, 8, "FZLPR in Table 2");
        assert_eq!(counts(&tables[1], 1, published).1, 12, "focal in Table 2");
        assert_eq!(counts(&tables[3], 1, published), (6, 9), "0.2 in Table 4");
        assert_eq!(counts(&tables[3], 4, published), (3, 5), "0.8 in Table 4");
        assert_eq!(counts(&tables[3], 2, published).1, 5, "0.4 in Table 4");
    }
    for table in &tables[1..] {
        for row in &table.rows {
            let of_mean = !matches!(row.subject, Subject::Label(_));
            for cell in &row.cells {
                // Means of rounded figures differ from the printed mean by rounding.
                let bound = if of_mean { 1e-4 } else { 1e-12 };
                let difference = cell.difference().unwrap();
                assert!(difference.abs() <= bound, "{:?}: {difference}", row.subject);
            }
        }
    }
}

#[test]
fn the_paper_s_own_figures_give_table_5_with_its_deltas() {
    let runs = paper_runs();
    let table = methods_table(&runs).unwrap();
    let (deltas, of_mean) = TABLE_5_DELTAS;
    assert_eq!(table.rows.len(), 16);
    for (row, &expected) in table.rows.iter().zip(deltas) {
        assert!(
            (row.delta().unwrap() - expected).abs() < 1e-9,
            "{:?}",
            row.subject
        );
        assert_eq!(row.paper_delta, Some(expected));
        assert_eq!(row.ours, row.paper);
    }
    let mean = &table.rows[14];
    assert_eq!((&mean.subject, mean.n_labels), (&Subject::Mean, 14));
    // Ours is the mean of rounded figures.
    assert!((mean.delta().unwrap() - of_mean).abs() <= 1e-4);
    assert!((mean.paper_delta.unwrap() - of_mean).abs() < 1e-9);
    assert_eq!(mean.ranks[4], Some(Rank::Best), "Kufel's mean");
    let csv = table.to_csv();
    assert_eq!(csv.lines().count(), 17);

    // A label that a sample cannot have is left out of every mean of the row.
    let mut sample = paper_runs();
    for run in &mut sample {
        if let Some(summary) = run.test.get_mut(&ViewSet::HorizontalFlipZoom) {
            summary.labels[13].auc = None;
        }
    }
    let table = methods_table(&sample).unwrap();
    assert_eq!((table.rows[13].ours, table.rows[13].delta()), (None, None));
    assert_eq!((table.rows[14].n_labels, table.rows[15].n_labels), (13, 13));
    assert_eq!(table.rows[14].others, table.rows[15].others);

    let mut phantoms = paper_runs();
    for run in &mut phantoms {
        run.data.phantom = true;
    }
    let table = methods_table(&phantoms).unwrap();
    assert!(table.methods.is_empty());
    for (row, of_images) in table.rows.iter().zip(&methods_table(&runs).unwrap().rows) {
        assert_eq!(row.ours, of_images.ours);
        assert_eq!(
            (row.paper, row.paper_delta, row.delta()),
            (None, None, None)
        );
        assert!(row.others.is_empty());
    }
    let mut own = paper_runs();
    for run in &mut own {
        run.data.release = "own table".to_owned();
    }
    assert_eq!(methods_table(&own), None);
}

#[test]
fn the_summary_sets_the_means_beside_the_published_ones() {
    let folder = tempfile::tempdir().unwrap();
    let mut runs = paper_runs();
    let page = read(folder.path(), &runs).markdown();
    let line = |start: &str| {
        let found = page.lines().find(|line| line.starts_with(start));
        found
            .unwrap_or_else(|| panic!("{start}: {page}"))
            .to_owned()
    };
    assert_eq!(
        line("| Focal |"),
        "| Focal | <u>0.8004</u> | 0.8004 | 0.0000 | **0.8024** | 0.8024 |"
    );
    assert!(line("| FZLPR (τ = 0.2), + flip + zoom |").contains("| 0.8096 | 0.8096 | 0.0000 |"));
    for run in &mut runs {
        run.data.absent.train = 1;
    }
    let page = read(folder.path(), &runs).markdown();
    let summary = &page[..page.find("## Runs").unwrap()];
    assert!(summary.contains("| Focal | <u>0.8004</u> |"), "{summary}");
    assert!(!summary.contains("| published"), "a sample's: {summary}");
}

#[test]
fn means_say_over_how_many_labels_and_are_set_against_the_same_published_labels() {
    let mut run = made::run("bce", "bce", None);
    let aucs = LABELS.map(|label| {
        (
            label,
            (!["Edema", "Hernia"].contains(&label)).then_some(0.8),
        )
    });
    run.test.insert(ViewSet::Single, made::summary(&aucs));
    let tables = tables(std::slice::from_ref(&run));
    let table = tables.iter().find(|table| table.number == 2).unwrap();

    let hernia = &table.rows[13];
    assert_eq!((hernia.positives, hernia.negatives), (Some(0), Some(1_000)));
    assert_eq!((hernia.cells[0].auc, hernia.cells[0].n_labels), (None, 0));
    assert_eq!(hernia.cells[0].published, Some(0.7276));
    assert_eq!(hernia.cells[0].difference(), None);

    let mean = &table.rows[14].cells[0];
    assert_eq!(mean.n_labels, 12);
    let defined = TABLE_2
        .rows
        .iter()
        .filter(|(label, _)| !["Edema", "Hernia"].contains(label));
    let expected = defined.map(|(_, aucs)| aucs[0]).sum::<f64>() / 12.0;
    assert!((mean.published.unwrap() - expected).abs() < 1e-12);
    assert_eq!(table.rows[15].subject, Subject::MeanWithout("Hernia"));
    assert_eq!(table.rows[15].cells[0].n_labels, 12);

    let folder = tempfile::tempdir().unwrap();
    let page = read(folder.path(), &[run]).markdown();
    assert!(
        page.contains(
            "one class only among these images: Edema (0 with it, 1,000 without), Hernia"
        ),
        "{page}"
    );
    assert!(page.contains("| mean of 12 labels |"), "{page}");
    assert!(
        page.contains("Published means are taken over the same labels"),
        "{page}"
    );
}

#[test]
fn intervals_are_by_patient_where_the_summary_has_them_and_the_page_says_which() {
    let mut run = made::run("bce", "bce", None);
    let folder = tempfile::tempdir().unwrap();
    let page = read(folder.path(), &[run.clone()]).markdown();
    assert!(page.contains("images taken as independent"), "{page}");
    assert!(page.contains("0.7500 (0.7300–0.7700)"), "{page}");

    let summary = run.test.get_mut(&ViewSet::Single).unwrap();
    for label in &mut summary.labels {
        label.auc_interval_clustered = Some([0.70, 0.79]);
        label.auc_df_clustered = Some(9.5);
    }
    summary.means.auc_interval = Some([0.74, 0.76]);
    summary.means.bootstrap = Some(BootstrapSummary {
        resampling: Resampling {
            replicates: 1_000,
            seed: 0,
        },
        skipped: 0,
        by_patient: true,
    });
    let tables = tables(std::slice::from_ref(&run));
    let table = tables.iter().find(|table| table.number == 2).unwrap();
    let method = |row: usize| {
        table.rows[row].cells[0]
            .interval
            .map(|interval| interval.method)
    };
    assert_eq!(method(0), Some(IntervalMethod::DelongByPatient));
    assert_eq!(method(14), Some(IntervalMethod::BootstrapByPatient));
    assert_eq!(method(15), None, "no interval of another set of labels");
    let page = read(folder.path(), &[run.clone()]).markdown();
    assert!(page.contains("0.7500 (≈ 0.7000–0.7900)"), "{page}");
    assert!(page.contains("≈: approximate"), "{page}");
    let csv = table.to_csv();
    let mut lines = csv.lines();
    assert!(
        lines.next().unwrap().contains(",interval,df,approximate,"),
        "{csv}"
    );
    assert!(
        lines
            .next()
            .unwrap()
            .contains(",delong-by-patient,9.5,true,"),
        "{csv}"
    );
    assert!(
        page.contains("1,000 bootstrap samples of patients"),
        "{page}"
    );

    // Without a bootstrap the interval is the closed form's.
    let means = &mut run.test.get_mut(&ViewSet::Single).unwrap().means;
    (means.bootstrap, means.by_patient, means.auc_df) = (None, true, Some(120.0));
    let row = &made_tables(&run, 2).rows[14];
    let interval = row.cells[0].interval.unwrap();
    assert_eq!(interval.method, IntervalMethod::DelongByPatient);
    assert_eq!(interval.degrees_of_freedom, Some(120.0));
    assert!(!interval.is_approximate());
}

fn made_tables(run: &RunMetrics, number: u8) -> AucTable {
    let tables = tables(std::slice::from_ref(run));
    let found = tables.into_iter().find(|table| table.number == number);
    found.unwrap()
}

#[test]
fn phantoms_are_never_set_against_published_figures() {
    let mut runs = paper_runs();
    for run in &mut runs {
        run.data.phantom = true;
    }
    for table in tables(&runs) {
        assert!(!table.has_published());
        assert!(table.is_phantom && table.title.ends_with("phantom data"));
        let csv = table.to_csv();
        assert!(csv.lines().skip(1).all(|line| line.ends_with(",true")));
        let cells = table.rows.iter().flat_map(|row| &row.cells);
        assert!(cells.into_iter().all(|cell| cell.published.is_none()));
    }
    let folder = tempfile::tempdir().unwrap();
    let page = read(folder.path(), &runs).markdown();
    let warning = page.find("Phantom data").unwrap();
    assert!(
        warning < page.find("## Summary").unwrap(),
        "the warning comes first"
    );
    assert!(!page.contains("ours minus published"), "{page}");
    assert!(!page.contains("GTX 1080"), "{page}");
    let of_aucs =
        |line: &&str| line.starts_with("## Table") || line.starts_with("## What each stage");
    let titles: Vec<&str> = page.lines().filter(of_aucs).collect();
    assert_eq!(titles.len(), 6, "{titles:?}");
    for title in titles {
        assert!(title.ends_with("phantom data"), "{title}");
    }
}

#[test]
fn what_each_stage_adds_stands_in_the_order_of_training() {
    let folder = tempfile::tempdir().unwrap();
    let mut old = made::run("zlpr", "zlpr", None);
    old.stages.clear();
    let runs = [made::run("bce", "bce", None), old];
    let report = read(folder.path(), &runs);
    let table = report.stage_table().unwrap();
    assert_eq!(table.headings, ["untrained", "after `head`", "after `all`"]);
    // The run that did not keep its stages has no row.
    assert_eq!(table.rows.len(), 1);
    assert!(
        report
            .markdown()
            .contains("| BCE | 0.5000 | 0.6250 | 0.7500 |"),
        "{}",
        report.markdown()
    );
    report.write(folder.path()).unwrap();
    let csv = std::fs::read_to_string(folder.path().join("tables/stages.csv")).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(
        lines[0],
        "variant,trained,part,mean_auc,n_labels,is_phantom"
    );
    assert_eq!(lines[1], "bce,untrained,validation,0.49,14,false");
    assert_eq!(lines[6], "bce,after `all`,test,0.75,14,false");
    assert_eq!(lines.len(), 7);
}

#[test]
fn own_labels_are_never_set_against_published_figures() {
    let mut run = made::run("bce", "bce", None);
    run.data.release = "a user's table".to_owned();
    assert!(tables(&[run]).iter().all(|table| !table.has_published()));
}

#[test]
fn a_sample_says_so_at_the_head() {
    let mut run = made::run("bce", "bce", None);
    run.data.images = Parts {
        train: 558,
        validation: 62,
        test: 96,
    };
    run.data.absent = Parts {
        train: 77_314,
        validation: 8_590,
        test: 25_500,
    };
    let folder = tempfile::tempdir().unwrap();
    let page = read(folder.path(), &[run]).markdown();
    let warning = page
        .find("**A sample of 716 images.** The lists name 112,120")
        .unwrap();
    assert!(warning < page.find("## Summary").unwrap(), "{page}");
    assert!(page.contains("orientation only"), "{page}");
    assert!(
        !page.contains("GTX 1080"),
        "a sample's time beside the paper's: {page}"
    );
}

/// Labels of the first release differ from the paper's: its figures do not stand beside them unmarked.
#[test]
fn labels_of_the_first_release_are_said_at_the_head() {
    let mut run = made::run("bce", "bce", None);
    let folder = tempfile::tempdir().unwrap();
    let page = read(folder.path(), std::slice::from_ref(&run)).markdown();
    assert!(!page.contains("Not the paper's labels"), "{page}");
    run.data.release = "ChestX-ray14, first release".to_owned();
    let folder = tempfile::tempdir().unwrap();
    let page = read(folder.path(), &[run]).markdown();
    let warning = page.find("**Not the paper's labels.**").unwrap();
    assert!(warning < page.find("## Summary").unwrap(), "{page}");
}

#[test]
fn what_did_not_run_is_said_and_other_losses_stand_beside_without_published_figures() {
    let folder = tempfile::tempdir().unwrap();
    let mut other = made::run("asymmetric", "asymmetric", None);
    other.seed = 3;
    made::write_run(folder.path(), &other);
    let begun = folder.path().join("focal");
    std::fs::create_dir(&begun).unwrap();
    std::fs::write(begun.join("experiment.toml"), "").unwrap();
    let environment =
        r#"{"device": "cpu", "cpu": {"threads": 2}, "command": ["cxr", "train", "a b"]}"#;
    let bce = made::run("bce", "bce", None);
    made::write_run(folder.path(), &bce);
    std::fs::write(folder.path().join("bce/environment.json"), environment).unwrap();
    let reproduction = Reproduction {
        command: ["cargo", "xtask", "reproduce", "made", "--data", "it's"]
            .map(str::to_owned)
            .to_vec(),
        variants: ["bce", "focal", "zlpr", "asymmetric"]
            .map(str::to_owned)
            .to_vec(),
    };
    reproduction.write(folder.path()).unwrap();

    let report = Report::read(folder.path()).unwrap();
    assert_eq!(report.unfinished, ["focal"]);
    assert_eq!(report.not_run(), ["zlpr"]);
    let page = report.markdown();
    assert!(
        page.contains("2 finished runs: `bce`, `asymmetric`."),
        "{page}"
    );
    assert!(page.contains("**Begun, not finished**: `focal`."), "{page}");
    assert!(page.contains("**Not run**: `zlpr`."), "{page}");
    assert!(
        page.contains(r"cargo xtask reproduce made --data 'it'\''s'"),
        "{page}"
    );
    assert!(page.contains("cxr train 'a b'"), "{page}");
    assert!(page.contains("| cpu.threads | 2 |"), "{page}");

    let tables = report.tables();
    let table = tables.iter().find(|table| table.number == 2).unwrap();
    let published: Vec<bool> = table
        .columns
        .iter()
        .map(|column| column.is_published)
        .collect();
    assert_eq!(published, [true, false]);
}

#[test]
fn seeds_of_one_loss_share_a_column_with_their_mean_and_spread() {
    let with_auc = |variant: &str, seed: u64, mass: f64| {
        let mut run = made::run(variant, "bce", None);
        run.seed = seed;
        let summary = made::summary(&[("Mass", Some(mass)), ("Hernia", Some(0.5))]);
        run.test.insert(ViewSet::Single, summary);
        run
    };
    let mut runs = vec![
        with_auc("bce", 0, 0.70),
        with_auc("bce-seed1", 1, 0.72),
        with_auc("bce-seed2", 2, 0.77),
    ];
    let tables = tables(&runs);
    let table = tables.iter().find(|table| table.number == 2).unwrap();
    assert_eq!(table.columns.len(), 1);
    assert_eq!(table.columns[0].heading, "BCE, 3 seeds");
    assert_eq!(table.columns[0].seeds, [0, 1, 2]);
    let cell = &table.rows[0].cells[0];
    assert!((cell.auc.unwrap() - 0.73).abs() < 1e-12);
    // Deviations −0.03, −0.01 and 0.04: the sum of squares is 0.0026, over 2.
    let spread = cell.spread.unwrap();
    assert!(
        (spread.sd - 0.0013f64.sqrt()).abs() < 1e-12,
        "{}",
        spread.sd
    );
    assert_eq!(spread.n, 3);
    assert_eq!(cell.interval, None, "an interval is of one training");
    let mean = &table.rows[2].cells[0];
    assert!((mean.auc.unwrap() - 0.615).abs() < 1e-12);
    assert!((mean.spread.unwrap().sd - 0.0013f64.sqrt() / 2.0).abs() < 1e-12);

    let folder = tempfile::tempdir().unwrap();
    let report = read(folder.path(), &runs);
    let page = report.markdown();
    assert!(page.contains("0.7300 ± 0.0361"), "{page}");
    report.write(folder.path()).unwrap();
    let seeds = std::fs::read_to_string(folder.path().join("tables/seeds.csv")).unwrap();
    assert!(seeds.contains("bce-seed2,2,single,Mass,0.77"), "{seeds}");

    // Another split is another data set, and the same seed twice is no repetition.
    runs[1].data.validation_split = "patient".to_owned();
    runs[2].seed = 0;
    let tables = cxr_report::tables::tables(&runs);
    let table = tables.iter().find(|table| table.number == 2).unwrap();
    assert_eq!(table.columns.len(), 3);
}

#[test]
fn files_are_written_whole_repeat_to_the_byte_and_leave_no_stale_table() {
    let folder = tempfile::tempdir().unwrap();
    let runs = paper_runs();
    let report = read(folder.path(), &runs);
    // Of calls that were killed while they wrote.
    std::fs::create_dir(folder.path().join("tables")).unwrap();
    let leftovers =
        [".tmpAb12Cd.tmp", "tables/.tmpEf34Gh.tmp"].map(|name| folder.path().join(name));
    for leftover in &leftovers {
        std::fs::write(leftover, "half a table").unwrap();
    }
    let written = report.write(folder.path()).unwrap();
    assert!(!leftovers.iter().any(|leftover| leftover.exists()));
    let names: Vec<String> = written
        .iter()
        .map(|path| {
            path.strip_prefix(folder.path())
                .unwrap()
                .display()
                .to_string()
        })
        .collect();
    assert_eq!(
        names,
        [
            "report.html",
            "report.md",
            "figures/figure-tau.png",
            "figures/figure-tau.svg",
            "figures/figure6.png",
            "figures/figure6.svg",
            "figures/figure1.png",
            "figures/figure1.svg",
            "tables/time.csv",
            "tables/stages.csv",
            "tables/table5.csv",
            "tables/table4.csv",
            "tables/table3.csv",
            "tables/table2.csv",
            "tables/table1.csv",
            "tables/history.csv",
        ]
    );
    let bytes = || -> Vec<Vec<u8>> {
        written
            .iter()
            .map(|path| std::fs::read(path).unwrap())
            .collect()
    };
    let first = bytes();
    Report::read(folder.path())
        .unwrap()
        .write(folder.path())
        .unwrap();
    assert_eq!(bytes(), first);
    assert_eq!(
        std::fs::read_dir(folder.path().join("tables"))
            .unwrap()
            .count(),
        8
    );

    let table = std::fs::read_to_string(folder.path().join("tables/table2.csv")).unwrap();
    let mut lines = table.lines();
    let n_columns = lines.next().unwrap().split(',').count();
    assert_eq!(
        lines.clone().count(),
        16 * 4,
        "14 labels and 2 means of 4 losses"
    );
    assert!(
        lines.all(|line| line.split(',').count() == n_columns),
        "{table}"
    );

    for run in &runs {
        if run.loss == "fzlpr" {
            std::fs::remove_dir_all(folder.path().join(&run.variant)).unwrap();
        }
    }
    Report::read(folder.path())
        .unwrap()
        .write(folder.path())
        .unwrap();
    assert!(!folder.path().join("tables/table4.csv").exists());
    for gone in [
        "tables/table3.csv",
        "tables/table5.csv",
        "figures/figure6.png",
    ] {
        assert!(!folder.path().join(gone).exists(), "{gone}");
    }
    assert!(folder.path().join("tables/table2.csv").exists());
}
