//! An experiment whose labels, logits and pictures come from formulas: run folders that hold all that
//! `cxr train` and `cxr explain` write and a report reads.

#![expect(unreachable_pub, reason = "a module of test binaries")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use cxr_report::explanations::{
    BoxScores, EXPLANATIONS_FOLDER, Example, ExampleKind, Explanations, FindingScores, Sample,
};
use cxr_report::paper::LABELS;
use cxr_report::report::Reproduction;
use cxr_run::{
    BestEpoch, DataFacts, EpochRecord, Evaluation, LabelRow, LabelTable, METRICS_FILE, MeanAuc,
    Parts, Predictions, RunMetrics, Seconds, StageFacts, Summary, SummaryOptions, Unscorable,
    ViewSet,
};
use resvg::tiny_skia::{Pixmap, PremultipliedColorU8};

type Made<T> = Result<T, Box<dyn Error>>;

/// A run to make: variant, loss, τ, seed.
pub type Variant = (&'static str, &'static str, Option<f64>, u64);

/// The paper's eight.
pub const EIGHT: [Variant; 8] = [
    ("bce", "bce", None, 0),
    ("focal", "focal", None, 0),
    ("zlpr", "zlpr", None, 0),
    ("fzlpr-0.1", "fzlpr", Some(0.1), 0),
    ("fzlpr-0.2", "fzlpr", Some(0.2), 0),
    ("fzlpr-0.4", "fzlpr", Some(0.4), 0),
    ("fzlpr-0.6", "fzlpr", Some(0.6), 0),
    ("fzlpr-0.8", "fzlpr", Some(0.8), 0),
];

/// What the runs say of their data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Drawn images.
    Phantom,
    /// All of ChestX-ray14, as far as the facts go.
    Complete,
}

/// Images of each part, two of a patient.
const IMAGES: [(&str, usize); 3] = [("train", 1_200), ("validation", 200), ("test", 600)];

/// Writes `RUNS/made/…` as `cxr train` would have.
pub fn write(experiment_folder: &Path, variants: &[Variant], origin: Origin) -> Made<()> {
    let tables: Vec<(&str, LabelTable)> = IMAGES
        .iter()
        .map(|&(part, n)| (part, labels(part, n)))
        .collect();
    for (place, variant) in variants.iter().enumerate() {
        let folder = experiment_folder.join(variant.0);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("experiment.toml"), "name = \"made\"\n")?;
        let environment = serde_json::json!({
            "device": "cpu",
            "threads": 2,
            "instruction_set": ["avx2", "fma"],
            "command": ["cxr", "train", "--variant", variant.0],
        });
        std::fs::write(folder.join("environment.json"), environment.to_string())?;
        for (part, table) in &tables {
            table.write(&folder.join(format!("labels-{part}.csv")))?;
        }
        write_run(&folder, &tables, place, variant, origin)?;
    }
    let explained = variants.iter().find(|variant| variant.0 == "fzlpr-0.2");
    if let (Some(variant), Some((_, test))) = (explained, tables.last()) {
        write_explanations(&experiment_folder.join(variant.0), test)?;
    }
    let reproduction = Reproduction {
        command: ["cargo", "xtask", "reproduce", "made"]
            .map(str::to_owned)
            .to_vec(),
        variants: variants
            .iter()
            .map(|variant| variant.0.to_owned())
            .collect(),
    };
    reproduction.write(experiment_folder)?;
    Ok(())
}

/// Labels that are rarer the later they stand, at least a dozen in the test images.
fn labels(part: &str, n: usize) -> LabelTable {
    let row = |at: usize| {
        let patient = format!("{part}-{:05}", at / 2);
        let states = (0..LABELS.len()).map(|label| {
            let rate = 0.22 * 0.86f64.powi(label as i32);
            // Two images of a patient often have the same label.
            let of_patient = uniform(&format!("{patient} {label}")) < 0.6 * rate;
            let of_image = uniform(&format!("{part} {at} {label}")) < 0.4 * rate;
            Some(of_patient || of_image)
        });
        LabelRow {
            image: format!("{patient}_{:03}.png", at % 2),
            states: states.collect(),
            patient: Some(patient),
        }
    };
    LabelTable::new(
        LABELS.map(str::to_owned).to_vec(),
        (0..n).map(row).collect(),
    )
}

fn write_run(
    folder: &Path,
    tables: &[(&str, LabelTable)],
    place: usize,
    &(variant, loss, tau, seed): &Variant,
    origin: Origin,
) -> Made<()> {
    let mut summaries: BTreeMap<&str, BTreeMap<ViewSet, Summary>> = BTreeMap::new();
    for (part, table) in tables.iter().filter(|(part, _)| *part != "train") {
        for (at, views) in ViewSet::ALL.into_iter().enumerate() {
            let suffix = ["", "-hflip", "-hflip-zoom"][at];
            let path = folder.join(format!("predictions-{part}{suffix}.csv"));
            std::fs::write(&path, logits(table, variant, place, at))?;
            let predictions = Predictions::read(&path, Unscorable::Refuse)?;
            let truth = table.truth()?;
            let evaluation = Evaluation::join(&predictions, &truth, &[], Unscorable::Refuse)?;
            let options = SummaryOptions {
                by_patient: true,
                ..SummaryOptions::default()
            };
            let summary = Summary::new(&evaluation, &options)?;
            summaries.entry(part).or_default().insert(views, summary);
        }
    }
    let mut loss_parameters = BTreeMap::new();
    loss_parameters.extend(tau.map(|tau| ("tau".to_owned(), tau)));
    if loss == "focal" {
        loss_parameters.insert("gamma".to_owned(), 2.0);
    }
    let n = |part: usize| IMAGES[part].1;
    let validation_auc = |epoch: usize| Some(0.6 + 0.02 * epoch as f64);
    let epochs: Vec<EpochRecord> = (0..8)
        .map(|epoch| EpochRecord {
            stage: if epoch < 3 { "top" } else { "all" }.to_owned(),
            epoch,
            steps: 19,
            mean_loss: 2.0 / (epoch as f64 + 1.0),
            validation_auc: validation_auc(epoch),
            validation_labels: 14,
            seconds: 6.5,
        })
        .collect();
    let run = RunMetrics {
        experiment: "made".to_owned(),
        variant: variant.to_owned(),
        loss: loss.to_owned(),
        loss_parameters,
        label_weights: None,
        system: None,
        custom_components: Vec::new(),
        loss_curve: Vec::new(),
        network: Vec::new(),
        seed,
        data: DataFacts {
            release: "ChestX-ray14, v2020 release".to_owned(),
            validation_split: "paper".to_owned(),
            hold_out: None,
            images: Parts {
                train: n(0),
                validation: n(1),
                test: n(2),
            },
            absent: Parts::default(),
            patients: Parts {
                train: Some(n(0) / 2),
                validation: Some(n(1) / 2),
                test: Some(n(2) / 2),
            },
            shared_patients_train_validation: Some(0),
            phantom: origin == Origin::Phantom,
        },
        validation: summaries.remove("validation").unwrap_or_default(),
        test: summaries.remove("test").unwrap_or_default(),
        test_by_set: BTreeMap::new(),
        stages: [("top", 0.52), ("all", 0.71)]
            .map(|(before, auc)| {
                let mean = MeanAuc {
                    auc: Some(auc + 0.01 * place as f64),
                    n_labels: 14,
                };
                StageFacts {
                    before: before.to_owned(),
                    validation: mean,
                    test: mean,
                }
            })
            .to_vec(),
        best_epoch: Some(BestEpoch {
            stage: "all".to_owned(),
            epoch: 7,
            validation_auc: validation_auc(7).unwrap_or_default(),
        }),
        history: epochs,
        seconds: Seconds {
            prepare: 12.0,
            train: BTreeMap::from([("top".to_owned(), 19.5), ("all".to_owned(), 32.5)]),
            predict: 8.0,
        },
        files: BTreeMap::new(),
    };
    run.write(&folder.join(METRICS_FILE))?;
    Ok(())
}

/// A predictions table: logits that the truth lifts, the more the later the variant and the more views.
fn logits(table: &LabelTable, variant: &str, place: usize, views: usize) -> String {
    let head: Vec<String> = LABELS
        .iter()
        .map(|label| format!("logit_{label}"))
        .collect();
    let mut text = format!("Image Index,{}\n", head.join(","));
    for row in table.rows() {
        text.push_str(&row.image);
        for (label, state) in row.states.iter().enumerate() {
            let lift = 1.0 + 0.12 * ((label * 5) % 14) as f64 + 0.03 * place as f64;
            let common = normal(&format!("{} {label}", row.image));
            let own = normal(&format!("{} {label} {variant}", row.image));
            let noise = common + 0.5 * own / (1.0 + 0.3 * views as f64);
            let truth = if *state == Some(true) { lift } else { 0.0 };
            let logit = truth + noise - 1.6;
            text.push_str(&format!(",{}", logit as f32));
        }
        text.push('\n');
    }
    text
}

fn write_explanations(folder: &Path, test: &LabelTable) -> Made<()> {
    let pictures = folder.join(EXPLANATIONS_FOLDER);
    std::fs::create_dir_all(&pictures)?;
    let names = |states: &[Option<bool>]| -> Vec<String> {
        let present = LABELS.iter().zip(states).filter(|(_, s)| **s == Some(true));
        present.map(|(label, _)| (*label).to_owned()).collect()
    };
    let mut explanations = Explanations {
        sample_rule: "The first images of the table.".to_owned(),
        rule: "Made from formulas: the first images of the table.".to_owned(),
        ..Explanations::default()
    };
    for (at, row) in test.rows().iter().take(8).enumerate() {
        let picture = format!("sample{}.png", at + 1);
        std::fs::write(pictures.join(&picture), shadow(at, None)?)?;
        explanations.samples.push(Sample {
            image: row.image.clone(),
            labels: names(&row.states),
            picture,
        });
    }
    let mut rows = test.rows().iter();
    for (at, kind) in ExampleKind::ALL
        .iter()
        .flat_map(|kind| [kind; 3])
        .enumerate()
    {
        let fits = |row: &&LabelRow| match kind {
            ExampleKind::RightSingle => names(&row.states).len() == 1,
            ExampleKind::RightSeveralOrNone => names(&row.states).len() != 1,
            ExampleKind::Wrong => names(&row.states).len() > 1,
        };
        let row = rows.find(fits).ok_or("no such image")?;
        let (picture, overlay) = (format!("panel{at}.png"), format!("panel{at}-map.png"));
        std::fs::write(pictures.join(&picture), shadow(at + 20, None)?)?;
        let spot = (0.25 + 0.06 * at as f64, 0.7 - 0.05 * at as f64);
        std::fs::write(pictures.join(&overlay), shadow(at + 20, Some(spot))?)?;
        let labels = names(&row.states);
        let predicted = match kind {
            ExampleKind::Wrong => vec!["Hernia".to_owned()],
            _ => labels.clone(),
        };
        let explained = predicted.first().cloned().unwrap_or("Mass".to_owned());
        explanations.panel.push(Example {
            kind: *kind,
            image: row.image.clone(),
            labels,
            predicted,
            explained,
            logit: 0.4 + 0.1 * at as f64,
            is_empty: false,
            picture,
            overlay,
        });
    }
    let finding = |(at, finding): (usize, &str)| FindingScores {
        finding: finding.to_owned(),
        boxes: 20 + at,
        hits: 8 + at,
        empty_maps: at % 2,
        mean_box_area: 0.05 + 0.02 * at as f64,
        mean_overlap: 0.1 + 0.03 * at as f64,
    };
    let boxed = ["Atelectasis", "Cardiomegaly", "Effusion", "Mass"];
    explanations.boxes = Some(BoxScores {
        method: "Grad-CAM".to_owned(),
        hot_share: 0.5,
        findings: boxed.into_iter().enumerate().map(finding).collect(),
        boxes_of_other_images: 3,
        boxes_outside: 0,
    });
    explanations.write(folder)?;
    Ok(())
}

/// A grey picture with two dark fields, with a warm spot or without one.
fn shadow(which: usize, spot: Option<(f64, f64)>) -> Made<Vec<u8>> {
    const SIDE: u32 = 112;
    let mut picture = Pixmap::new(SIDE, SIDE).ok_or("no picture")?;
    let shift = 0.04 * uniform(&format!("picture {which}"));
    for y in 0..SIDE {
        for x in 0..SIDE {
            let (u, v) = (
                f64::from(x) / f64::from(SIDE),
                f64::from(y) / f64::from(SIDE),
            );
            let field = |centre: f64| ((u - centre) / 0.17).powi(2) + ((v - 0.45) / 0.32).powi(2);
            let lung = (-field(0.3 + shift)).exp().max((-field(0.7 + shift)).exp());
            let grey = 190.0 - 140.0 * lung;
            let heat = spot.map_or(0.0, |(a, b)| {
                (-((u - a).powi(2) + (v - b).powi(2)) / 0.02).exp()
            });
            let mix = |warm: f64| (grey + (warm - grey) * 0.75 * heat) as u8;
            let (red, green, blue) = (mix(250.0), mix(150.0), mix(20.0));
            let pixel = PremultipliedColorU8::from_rgba(red, green, blue, 255);
            picture.pixels_mut()[(y * SIDE + x) as usize] = pixel.ok_or("no colour")?;
        }
    }
    Ok(picture.encode_png()?)
}

/// In [0, 1), from the FNV-1a hash of the text mixed by SplitMix64.
fn uniform(text: &str) -> f64 {
    let mut z = text.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
    });
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z >> 11) as f64 / (1u64 << 53) as f64
}

/// Nearly normal: the sum of twelve uniform values minus six.
fn normal(text: &str) -> f64 {
    (0..12)
        .map(|n| uniform(&format!("{n} {text}")))
        .sum::<f64>()
        - 6.0
}
