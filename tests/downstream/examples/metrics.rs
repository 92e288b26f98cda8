//! Two models on the same radiographs, by the metrics alone: AUCs with errors by patient, a paired test with Holm's
//! correction, an operating point, calibration.

use cxr_downstream::Outcome;
use cxr_metrics::*;

const LABELS: [&str; 3] = ["Effusion", "Mass", "Hernia"];
const IMAGES: usize = 600;

/// Numbers in [0, 1) that are spread evenly.
fn number(at: usize, stream: f64) -> f64 {
    ((at as f64 + 1.) * 0.754_877_666 + stream).fract()
}

/// The probabilities of a model; with a larger weight it sees more.
fn model(truth: &[bool], weight: f64, stream: f64) -> Vec<f64> {
    let score = |(at, &is_there): (usize, &bool)| {
        let side = if is_there { weight } else { -weight };
        sigmoid(side + 6. * (number(at * at, stream) - 0.5))
    };
    truth.iter().enumerate().map(score).collect()
}

fn main() -> Outcome {
    let cells = 0..IMAGES * LABELS.len();
    let patients: Vec<String> = (0..IMAGES)
        .map(|at| format!("patient {}", at / 3))
        .collect();
    let patients = clusters_of(&patients);
    let rates = [0.3, 0.2, 0.1];
    let is_there = |at: usize| number(at, 0.1) < rates[at % 3];
    let truth: Vec<bool> = cells.clone().map(is_there).collect();
    let known: Vec<bool> = cells.map(|at| number(at, 0.7) > 0.05).collect();
    let table = |scores: &[f64]| MultiLabel::new(LABELS, scores, &truth, Some(&known));
    let first = table(&model(&truth, 1.5, 0.3))?;
    let second = table(&model(&truth, 0.7, 0.9))?;

    for label in first.per_label_clustered(&patients)? {
        let auc = label.auc.ok_or("one class")?;
        let interval = auc.interval(Level::P95).ok_or("no interval")?;
        let (from, to) = (interval.lower, interval.upper);
        println!("{} {:.3} [{from:.3}, {to:.3}]", label.label, auc.auc);
        assert!(interval.contains(auc.auc) && auc.auc > 0.6);
    }
    let mean = first.macro_auc_estimate(Some(&patients))?;
    println!("mean {:.3}", mean.ok_or("no label")?.mean.value);

    let mut p_values = Vec::new();
    for label in LABELS {
        // Rows of which the label is known, and their patients.
        let (a, b) = (first.scored(label)?, second.scored(label)?);
        let of_label = first.clusters_of(label, &patients)?;
        let test = paired_delong(a.labels(), a.scores(), b.scores(), Some(&of_label))?;
        p_values.push(test.and_then(|test| test.p_value));
    }
    println!("p after Holm {:.4?}", holm_defined(&p_values)?);

    let rule = OperatingRule::SensitivityAtSpecificity(0.9);
    let config = BootstrapConfig::default();
    let sensitivity = bootstrap(&first, Some(&patients), &config, |resample| {
        let point = resample.operating_point(0, rule).ok()??;
        let counts = resample.confusion(0, point.threshold)?;
        Some(counts.sensitivity()?.value())
    })?;
    let sensitivity = sensitivity.ok_or("one class")?;
    println!("sensitivity at 90 % {:.3}", sensitivity.estimate);
    assert!(sensitivity.interval.is_some());

    let effusion = first.scored("Effusion")?;
    let logits: Vec<f64> = effusion.scores().iter().map(logit).collect();
    let platt = PlattScaling::fit(Scored::new(&logits, effusion.labels())?);
    let platt = platt.ok_or("one class")?;
    let calibrated: Vec<f64> = logits.iter().map(|&logit| platt.apply(logit)).collect();
    let before = brier(Forecast::new(effusion.scores(), effusion.labels())?);
    let after = brier(Forecast::new(&calibrated, effusion.labels())?);
    println!("Brier score {before:.4}, {after:.4} after Platt scaling");
    assert!(after < before);
    Ok(())
}
