//! Runs made by hand for the tests.
#![expect(unreachable_pub, reason = "a module of test binaries")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use cxr_report::paper::LABELS;
use cxr_run::{
    BestEpoch, DataFacts, EpochRecord, LabelSummary, LeftOut, METRICS_FILE, MacroSummary, MeanAuc,
    NoInterval, Parts, RunMetrics, Seconds, StageFacts, Summary, ViewSet,
};

/// A run on the complete data with the same AUC for every label.
pub fn run(variant: &str, loss: &str, tau: Option<f64>) -> RunMetrics {
    let mut loss_parameters = BTreeMap::new();
    loss_parameters.extend(tau.map(|tau| ("tau".to_owned(), tau)));
    if loss == "focal" {
        loss_parameters.insert("gamma".to_owned(), 2.0);
    }
    let even = summary(&LABELS.map(|label| (label, Some(0.75))));
    RunMetrics {
        experiment: "made".to_owned(),
        variant: variant.to_owned(),
        loss: loss.to_owned(),
        loss_parameters,
        label_weights: None,
        system: None,
        custom_components: Vec::new(),
        loss_curve: Vec::new(),
        network: Vec::new(),
        seed: 0,
        data: DataFacts {
            release: "ChestX-ray14, v2020 release".to_owned(),
            validation_split: "paper".to_owned(),
            hold_out: None,
            images: Parts {
                train: 77_872,
                validation: 8_652,
                test: 25_596,
            },
            absent: Parts::default(),
            patients: Parts {
                train: Some(27_000),
                validation: Some(7_000),
                test: Some(2_797),
            },
            shared_patients_train_validation: Some(6_000),
            phantom: false,
        },
        validation: BTreeMap::from([(ViewSet::Single, even.clone())]),
        test: BTreeMap::from([(ViewSet::Single, even)]),
        test_by_set: BTreeMap::new(),
        stages: vec![
            before_stage("head", [0.49, 0.5]),
            before_stage("all", [0.61, 0.625]),
        ],
        best_epoch: Some(BestEpoch {
            stage: "all".to_owned(),
            epoch: 1,
            validation_auc: 0.75,
        }),
        history: vec![
            EpochRecord {
                stage: "head".to_owned(),
                epoch: 0,
                steps: 10,
                mean_loss: 1.5,
                validation_auc: None,
                validation_labels: 0,
                seconds: 30.0,
            },
            EpochRecord {
                stage: "all".to_owned(),
                epoch: 1,
                steps: 10,
                mean_loss: 1.25,
                validation_auc: Some(0.75),
                validation_labels: 14,
                seconds: 90.0,
            },
        ],
        seconds: Seconds {
            prepare: 12.0,
            train: BTreeMap::from([("head".to_owned(), 30.0), ("all".to_owned(), 90.0)]),
            predict: 20.0,
        },
        files: BTreeMap::new(),
    }
}

fn before_stage(name: &str, aucs: [f64; 2]) -> StageFacts {
    let [validation, test] = aucs.map(|auc| MeanAuc {
        auc: Some(auc),
        n_labels: 14,
    });
    StageFacts {
        before: name.to_owned(),
        validation,
        test,
    }
}

/// A summary with these AUCs: 50 images with each finding, 950 without; a label without an AUC has none with it.
pub fn summary(aucs: &[(&str, Option<f64>)]) -> Summary {
    let labels = aucs.iter().map(|&(label, auc)| LabelSummary {
        label: label.to_owned(),
        positives: if auc.is_some() { 50 } else { 0 },
        negatives: if auc.is_some() { 950 } else { 1_000 },
        auc,
        auc_se: auc.map(|_| 0.01),
        auc_df: auc.map(|_| 45.0),
        auc_interval: auc.map(|auc| [auc - 0.02, auc + 0.02]),
        auc_se_clustered: None,
        auc_df_clustered: None,
        auc_interval_clustered: None,
        approximate: false,
        no_interval: auc.is_none().then_some(NoInterval::OneClass),
        average_precision: auc,
        brier: None,
        ece: None,
        decision: None,
    });
    let defined: Vec<f64> = aucs.iter().filter_map(|&(_, auc)| auc).collect();
    Summary {
        labels: labels.collect(),
        means: MacroSummary {
            auc: (!defined.is_empty()).then(|| defined.iter().sum::<f64>() / defined.len() as f64),
            auc_se: None,
            auc_df: None,
            auc_interval: None,
            by_patient: false,
            approximate: false,
            no_interval: None,
            average_precision: None,
            n_labels: defined.len(),
            without: Vec::new(),
            bootstrap: None,
        },
        n_images: 1_000,
        n_patients: Some(900),
        note: None,
        left_out: LeftOut::default(),
    }
}

/// Writes a run's folder as `cxr train` does, as far as the report reads it.
pub fn write_run(experiment_folder: &Path, run: &RunMetrics) {
    let folder = experiment_folder.join(&run.variant);
    std::fs::create_dir_all(&folder).unwrap();
    run.write(&folder.join(METRICS_FILE)).unwrap();
}
