//! Times the two workloads that evaluation repeats most, on data of ChestX-ray14's test set shape:
//! 25,596 images, 14 labels, 2,797 patients, 8 % positives. Prints one JSON object per measurement,
//! `{"name": …, "median_ms": …}`, to set beside scikit-learn's time on the same work.

use std::hint::black_box;
use std::time::Instant;

use cxr_metrics::{BootstrapConfig, MetricError, MultiLabel, bootstrap};

const N_IMAGES: usize = 25_596;
const N_LABELS: usize = 14;
const N_PATIENTS: u64 = 2_797;
const REPLICATES: usize = 100;

fn main() -> Result<(), MetricError> {
    let mut uniform = uniform_numbers();
    let labels: Vec<bool> = (0..N_IMAGES * N_LABELS).map(|_| uniform() < 0.08).collect();
    let scores: Vec<f32> = labels
        .iter()
        .map(|&label| (uniform() + if label { 0.3 } else { 0.0 }) as f32)
        .collect();
    let patients: Vec<u64> = (0..N_IMAGES)
        .map(|_| (uniform() * N_PATIENTS as f64) as u64)
        .collect();
    let names = || (0..N_LABELS).map(|label| format!("label {label}"));

    let from_rows = || MultiLabel::new(names(), &scores, &labels, None);
    let auc_ms = median_ms(9, || from_rows().map(|data| data.per_label_auc()))?;
    report("auc_25596x14_ms", auc_ms);

    // Scores that need f64 are sorted by comparing.
    let precise: Vec<f64> = scores
        .iter()
        .map(|&score| f64::from(score) + 1e-13)
        .collect();
    let from_precise = || MultiLabel::new(names(), &precise, &labels, None);
    let precise_ms = median_ms(9, || from_precise().map(|data| data.per_label_auc()))?;
    report("auc_f64_25596x14_ms", precise_ms);

    let data = from_rows()?;
    let estimate_ms = median_ms(9, || data.per_label_clustered(&patients))?;
    report(
        "auc_clustered_delong_average_precision_25596x14_ms",
        estimate_ms,
    );

    let config = BootstrapConfig {
        replicates: REPLICATES,
        ..Default::default()
    };
    let bootstrap_ms = median_ms(5, || {
        bootstrap(&data, Some(&patients), &config, |resample| {
            resample.macro_auc()
        })
    })?;
    report(
        "patient_bootstrap_replicate_ms",
        bootstrap_ms / REPLICATES as f64,
    );
    Ok(())
}

fn report(name: &str, median_ms: f64) {
    println!(
        "{}",
        serde_json::json!({ "name": name, "median_ms": median_ms })
    );
}

/// The median over `repeats` runs; the result is kept from the optimiser.
fn median_ms<T>(
    repeats: usize,
    work: impl Fn() -> Result<T, MetricError>,
) -> Result<f64, MetricError> {
    let mut times = Vec::with_capacity(repeats);
    for _ in 0..repeats {
        let start = Instant::now();
        black_box(work()?);
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[repeats / 2])
}

/// A 64-bit linear congruential generator (Knuth's MMIX constants), 53 bits of each state.
fn uniform_numbers() -> impl FnMut() -> f64 {
    let mut state = 1_u64;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    }
}
