//! The facts of a run: written, read back, found and put in order.

use std::path::Path;

use cxr_report::ReportError;
use cxr_report::report::Report;
use cxr_run::{Finish, METRICS_FILE, MODEL_FILE, RunError, RunFolder, RunMetrics, output_files};

mod made;

#[test]
fn metrics_read_back_as_they_were_written_and_the_bytes_repeat() {
    let folder = tempfile::tempdir().unwrap();
    let run = made::run("fzlpr-0.2", "fzlpr", Some(0.2));
    let (first, second) = (folder.path().join("a.json"), folder.path().join("b.json"));
    run.write(&first).unwrap();
    let read = RunMetrics::read(&first).unwrap();
    assert_eq!(read, run);
    read.write(&second).unwrap();
    assert_eq!(
        std::fs::read(&first).unwrap(),
        std::fs::read(&second).unwrap()
    );
}

#[test]
fn a_key_of_a_later_version_is_skipped_and_a_missing_one_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(METRICS_FILE);
    let written = serde_json::to_value(made::run("bce", "bce", None)).unwrap();

    let mut more = written.clone();
    more["later"] = serde_json::json!({"anything": 1});
    more["data"]["later"] = serde_json::json!(2);
    std::fs::write(&path, more.to_string()).unwrap();
    RunMetrics::read(&path).unwrap();

    // Values that may be `null` must be there too.
    for pointer in [
        "/seed",
        "/best_epoch",
        "/data/phantom",
        "/data/shared_patients_train_validation",
        "/data/patients/test",
        "/history/0/validation_auc",
        "/seconds/predict",
    ] {
        let mut less = written.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = less.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        assert!(parent.remove(key).is_some(), "{pointer} is not written");
        std::fs::write(&path, less.to_string()).unwrap();
        let error = RunMetrics::read(&path).unwrap_err();
        assert!(error.to_string().contains("metrics.json"), "{error}");
        let RunError::RunFile { source, .. } = error else {
            panic!("{pointer}: another error: {error}");
        };
        assert!(source.to_string().contains(key), "{pointer}: {source}");
    }
}

#[test]
fn runs_stand_in_the_papers_order_of_losses() {
    let folder = tempfile::tempdir().unwrap();
    for variant in [
        "fzlpr-1.0",
        "zlpr-seed10",
        "zlpr-seed2",
        "hbm",
        "fzlpr-0.2",
        "bce",
        "zlpr",
        "asymmetric",
        "focal",
        "fzlpr-0.1",
    ] {
        made::write_run(folder.path(), &made::run(variant, "bce", None));
    }
    std::fs::create_dir(folder.path().join("tables")).unwrap();
    std::fs::write(folder.path().join("report.md"), "").unwrap();
    let unfinished = folder.path().join("fzlpr-0.4");
    std::fs::create_dir(&unfinished).unwrap();
    std::fs::write(unfinished.join("experiment.toml"), "").unwrap();

    let runs = RunFolder::find(folder.path()).unwrap();
    let variants: Vec<&str> = runs.iter().map(RunFolder::variant).collect();
    assert_eq!(
        variants,
        [
            "bce",
            "focal",
            "zlpr",
            "zlpr-seed2",
            "zlpr-seed10",
            "fzlpr-0.1",
            "fzlpr-0.2",
            "fzlpr-0.4",
            "fzlpr-1.0",
            "asymmetric",
            "hbm",
        ]
    );
    let unfinished = &runs[7];
    assert!(!unfinished.is_finished());
    let error = unfinished.metrics().unwrap_err().to_string();
    assert!(
        error.contains("metrics.json") && error.contains("cxr train"),
        "{error}"
    );
}

/// A `metrics.json` beside files of other bytes was a finished run.
#[test]
fn finished_is_believed_where_the_files_are_those_of_the_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bce");
    let run = RunFolder::at(&path);
    let finish = || run.finish().unwrap();
    let changed = |what: &str| assert_eq!(finish(), Finish::Changed(vec![what.to_owned()]));
    assert_eq!(finish(), Finish::Unfinished);

    std::fs::create_dir(&path).unwrap();
    let mut metrics = made::run("bce", "bce", None);
    let mut staged = cxr_fs::Staged::new();
    let mut files = output_files();
    let last = files.pop().unwrap();
    for name in &files {
        let text = |file: &mut std::fs::File| std::io::Write::write_all(file, name.as_bytes());
        staged.write(&path.join(name), text).unwrap();
    }
    let error = metrics.stage(&path, &mut staged).unwrap_err().to_string();
    assert!(error.contains(&last), "{error}");
    staged.write(&path.join(&last), |_| Ok(())).unwrap();
    metrics.stage(&path, &mut staged).unwrap();
    assert_eq!(finish(), Finish::Unfinished, "before the commit");
    staged.commit().unwrap();
    assert_eq!(finish(), Finish::Finished);
    assert_eq!(RunMetrics::read(&path.join(METRICS_FILE)).unwrap(), metrics);

    for name in output_files() {
        let file = path.join(&name);
        let text = std::fs::read(&file).unwrap();
        std::fs::write(&file, [&text[..], b" "].concat()).unwrap();
        changed(&format!("`{name}` was changed"));
        std::fs::remove_file(&file).unwrap();
        changed(&format!("`{name}` is missing"));
        let report = Report::read(folder.path());
        let is_of_tables = name != MODEL_FILE;
        let is_refused = matches!(report, Err(ReportError::Run(RunError::RunChanged { .. })));
        assert_eq!(is_refused, is_of_tables, "{name}");
        std::fs::write(&file, text).unwrap();
    }
    assert_eq!(finish(), Finish::Finished);

    // The keys are no paths: a name of somebody else's file is neither read nor compared.
    let mut others = metrics.clone();
    others
        .files
        .insert("../../secret".to_owned(), String::new());
    others.write(&path.join(METRICS_FILE)).unwrap();
    assert_eq!(finish(), Finish::Finished);
    others.files.remove(MODEL_FILE);
    others.write(&path.join(METRICS_FILE)).unwrap();
    changed("`metrics.json` lacks the digest of `model.safetensors`");
    others.files.clear();
    others.write(&path.join(METRICS_FILE)).unwrap();
    assert_eq!(finish(), Finish::Unverified);
    std::fs::write(path.join(METRICS_FILE), "{").unwrap();
    changed("`metrics.json` is damaged");
}

#[test]
fn a_folder_without_runs_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let error = RunFolder::find(folder.path()).unwrap_err();
    assert!(matches!(error, RunError::NoRuns { .. }), "{error}");
    let missing = Path::new("/no/such/folder");
    let error = RunFolder::find(missing).unwrap_err();
    assert!(error.to_string().contains("/no/such/folder"), "{error}");
}
