//! The finished demo against a linear probe, as `cargo xtask verify probe` calls it: the task must be learnable by the network, not trivial, and
//! not given away by a mark.
//!
//! The probe is ridge regression of each finding on the 1024 grey levels of a 32×32 thumbnail, fitted
//! to the demo's training images; its penalty is the one with the best mean AUC of the validation images.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use cxr_dataset::{ImageName, Store};
use cxr_run::{
    Evaluation, LabelTable, Predictions, RunMetrics, Summary, SummaryOptions, Unscorable, ViewSet,
};

const VARIANT: &str = "fzlpr-0.2";
const SIDE: usize = 32;
const PENALTIES: [f64; 6] = [1e2, 1e3, 3e3, 1e4, 3e4, 1e5];
/// What the network must reach, and by how much it must lead the probe.
const LEAST_AUC: f64 = 0.80;
const LEAST_LEAD: f64 = 0.10;
/// Prints as 1.000: a finding that nothing is mistaken for is given away.
const TOO_GOOD: f64 = 0.9995;

fn main() -> anyhow::Result<ExitCode> {
    let demo = std::env::args_os().nth(1).map(PathBuf::from);
    check(&demo.context("usage: probe RUNS, the folder of the finished demo")?)
}

/// `demo` is the finished experiment's folder.
fn check(demo: &Path) -> anyhow::Result<ExitCode> {
    let run = demo.join(VARIANT);
    let metrics = RunMetrics::read(&run.join("metrics.json")).with_context(|| {
        format!(
            "`{}` is not finished\nhint: `cargo xtask reproduce demo` first, or name its folder with `--demo DIR`",
            run.display()
        )
    })?;
    let network = metrics.test.get(&ViewSet::Single).context("no test AUCs")?;
    let store = Store::open(demo.join("images-256.store"))?;
    let read = |part| -> anyhow::Result<Part> { Part::read(&run, part, &store) };
    let (train, validation, test) = (read("train")?, read("validation")?, read("test")?);
    let fit = Ridge::new(&train);
    let mut best: Option<(f64, f64, Vec<f64>)> = None;
    for penalty in PENALTIES {
        let weights = fit.weights(penalty)?;
        let auc = fit.summary(&weights, &validation)?.means.auc;
        let auc = auc.context("no validation AUC")?;
        if best.as_ref().is_none_or(|(so_far, _, _)| auc > *so_far) {
            best = Some((auc, penalty, weights));
        }
    }
    let Some((_, penalty, weights)) = best else {
        bail!("no penalty was tried");
    };
    let probe = fit.summary(&weights, &test)?;

    println!("   {:<20} {:>9} {:>9}", "test AUC", VARIANT, "probe");
    let shown = |auc: Option<f64>| auc.map_or("–".to_owned(), |auc| format!("{auc:.4}"));
    for (ours, probed) in network.labels.iter().zip(&probe.labels) {
        println!(
            "   {:<20} {:>9} {:>9}",
            ours.label,
            shown(ours.auc),
            shown(probed.auc)
        );
    }
    let (ours, probed) = (network.means.auc, probe.means.auc);
    println!("   {:<20} {:>9} {:>9}", "mean", shown(ours), shown(probed));
    println!("   the probe's penalty: {penalty}");
    let (Some(ours), Some(probed)) = (ours, probed) else {
        bail!("a mean AUC is undefined");
    };
    let mut problems = Vec::new();
    if ours < LEAST_AUC {
        problems.push(format!(
            "the network's mean is {ours:.4}, below {LEAST_AUC}"
        ));
    }
    if ours - probed < LEAST_LEAD {
        problems.push(format!("the probe is only {:.4} behind", ours - probed));
    }
    for summary in [network, &probe] {
        for label in &summary.labels {
            if label.auc.is_some_and(|auc| auc >= TOO_GOOD) {
                problems.push(format!(
                    "`{}` is never mistaken: what gives it away?",
                    label.label
                ));
            }
        }
    }
    for problem in &problems {
        eprintln!("error: {problem}");
    }
    Ok(match problems.len() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Thumbnails of a part's images, row by row, and their labels.
struct Part {
    labels: LabelTable,
    thumbnails: Vec<f64>,
}

const N: usize = SIDE * SIDE;

impl Part {
    fn read(run: &Path, part: &str, store: &Store) -> anyhow::Result<Self> {
        let path = run.join(format!("labels-{part}.csv"));
        let labels = LabelTable::read(&path)?;
        let labels = labels.with_context(|| format!("`{}` is missing", path.display()))?;
        let block = store.side() / SIDE;
        let mut thumbnails = Vec::with_capacity(labels.rows().len() * N);
        for row in labels.rows() {
            let image = store.image(&ImageName::new(&row.image)?)?;
            let rows: Vec<&[u8]> = image.chunks_exact(store.side()).collect();
            for y in 0..SIDE {
                for x in 0..SIDE {
                    let lines = rows.iter().skip(y * block).take(block);
                    let sum: u32 = lines
                        .flat_map(|line| line.iter().skip(x * block).take(block))
                        .map(|&grey| u32::from(grey))
                        .sum();
                    thumbnails.push(f64::from(sum) / (block * block) as f64);
                }
            }
        }
        Ok(Self { labels, thumbnails })
    }
}

/// Least squares with a penalty on standardised grey levels.
struct Ridge {
    means: Vec<f64>,
    deviations: Vec<f64>,
    /// `XᵀX`, `N×N`, the lower triangle filled.
    products: Vec<f64>,
    /// `XᵀY`, `N×L`.
    moments: Vec<f64>,
    n_labels: usize,
}

impl Ridge {
    fn new(train: &Part) -> Self {
        let n_labels = train.labels.labels().len();
        let images = || train.thumbnails.chunks_exact(N);
        let count = train.labels.rows().len() as f64;
        let mut means = vec![0.; N];
        for image in images() {
            for (mean, grey) in means.iter_mut().zip(image) {
                *mean += grey / count;
            }
        }
        let mut deviations = vec![0.; N];
        for image in images() {
            for ((deviation, grey), mean) in deviations.iter_mut().zip(image).zip(&means) {
                *deviation += (grey - mean).powi(2) / count;
            }
        }
        for deviation in &mut deviations {
            // A pixel that is the same everywhere says nothing.
            *deviation = deviation.sqrt().max(1e-6);
        }
        let mut ridge = Self {
            means,
            deviations,
            products: vec![0.; N * N],
            moments: vec![0.; N * n_labels],
            n_labels,
        };
        for (image, row) in images().zip(train.labels.rows()) {
            let x = ridge.standardised(image);
            for (at, &value) in x.iter().enumerate() {
                let line = ridge.products.iter_mut().skip(at * N);
                for (sum, other) in line.zip(x.iter().take(at + 1)) {
                    *sum += value * other;
                }
                let line = ridge.moments.iter_mut().skip(at * n_labels);
                for (sum, state) in line.zip(&row.states) {
                    // The mean of x is zero: that of the labels may stay.
                    *sum += value * f64::from(u8::from(*state == Some(true)));
                }
            }
        }
        ridge
    }

    fn standardised(&self, image: &[f64]) -> Vec<f64> {
        let scale = self.means.iter().zip(&self.deviations);
        let values = image.iter().zip(scale);
        values
            .map(|(grey, (mean, sd))| (grey - mean) / sd)
            .collect()
    }

    /// Solves `(XᵀX + penalty·I) W = XᵀY` by Cholesky's decomposition.
    fn weights(&self, penalty: f64) -> anyhow::Result<Vec<f64>> {
        let mut lower = self.products.clone();
        for row in 0..N {
            lower[row * N + row] += penalty;
            let (above, below) = lower.split_at_mut(row * N);
            let line = &mut below[..=row];
            for column in 0..row {
                let other = &above[column * N..=column * N + column];
                let dot: f64 = line[..column].iter().zip(other).map(|(a, b)| a * b).sum();
                line[column] = (line[column] - dot) / other[column];
            }
            let square: f64 = line[..row].iter().map(|value| value * value).sum();
            let rest = line[row] - square;
            if rest.is_nan() || rest <= 0. {
                bail!("the probe's equations cannot be solved");
            }
            line[row] = rest.sqrt();
        }
        let n = self.n_labels;
        let mut weights = self.moments.clone();
        for label in 0..n {
            for row in 0..N {
                let known: f64 = (0..row)
                    .map(|k| lower[row * N + k] * weights[k * n + label])
                    .sum();
                weights[row * n + label] =
                    (weights[row * n + label] - known) / lower[row * N + row];
            }
            for row in (0..N).rev() {
                let known: f64 = (row + 1..N)
                    .map(|k| lower[k * N + row] * weights[k * n + label])
                    .sum();
                weights[row * n + label] =
                    (weights[row * n + label] - known) / lower[row * N + row];
            }
        }
        Ok(weights)
    }

    /// The AUCs of a part.
    fn summary(&self, weights: &[f64], part: &Part) -> anyhow::Result<Summary> {
        let mut table = String::from("image");
        for label in part.labels.labels() {
            table.push_str(&format!(",logit_{label}"));
        }
        table.push('\n');
        for (image, row) in part.thumbnails.chunks_exact(N).zip(part.labels.rows()) {
            table.push_str(&row.image);
            let x = self.standardised(image);
            for label in 0..self.n_labels {
                let of_label = weights.iter().skip(label).step_by(self.n_labels);
                let score: f64 = x.iter().zip(of_label).map(|(x, weight)| x * weight).sum();
                table.push_str(&format!(",{score}"));
            }
            table.push('\n');
        }
        let scores = Predictions::from_reader(table.as_bytes(), "probe", Unscorable::Refuse)?;
        let truth = part.labels.truth()?;
        let evaluation = Evaluation::join(&scores, &truth, &[], Unscorable::Refuse)?;
        Ok(Summary::new(&evaluation, &SummaryOptions::default())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cxr_run::LabelRow;

    /// Images that are dark but for one block whose grey level is the label's.
    fn part(images: usize) -> Part {
        let row = |at: usize| LabelRow {
            image: format!("{at}.png"),
            patient: None,
            states: vec![Some(at.is_multiple_of(3)), Some(at.is_multiple_of(2))],
        };
        let rows: Vec<LabelRow> = (0..images).map(row).collect();
        let mut thumbnails = vec![0.; images * N];
        for (image, row) in thumbnails.chunks_exact_mut(N).zip(&rows) {
            for (place, state) in [(7, row.states[0]), (500, row.states[1])] {
                image[place] = 10. + f64::from(u8::from(state == Some(true)));
            }
        }
        let labels = vec!["Mass".to_owned(), "Hernia".to_owned()];
        Part {
            labels: LabelTable::new(labels, rows),
            thumbnails,
        }
    }

    #[test]
    fn the_probe_finds_what_a_single_pixel_says() {
        let train = part(60);
        let ridge = Ridge::new(&train);
        let weights = ridge.weights(1.).unwrap();
        let summary = ridge.summary(&weights, &part(30)).unwrap();
        assert_eq!(summary.means.auc, Some(1.));
        // Two uncorrelated pixels: w = xᵀy / (n + penalty), x of variance 1.
        let share: f64 = 1. / 3.;
        let expected = 60. * (share * (1. - share)).sqrt() / 61.;
        assert!((weights[7 * 2] - expected).abs() < 1e-9, "{}", weights[14]);
        assert!(weights[500 * 2].abs() < 1e-9);
    }
}
