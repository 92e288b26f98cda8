//! `cxr compare`: whether two models differ on the same images.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use cxr_run::{Comparison, ComparisonOptions, Predictions};

use crate::scoring::{
    APPROXIMATE, ScoringArgs, align, approximate, describe_bootstrap, describe_left_out,
    describe_undefined, interval, number, print, wrapped,
};

/// Compare two models on the same images with paired tests
///
/// Gives each label's AUC under both models, their difference with its 95 % interval, the p-value of
/// the paired DeLong test in its score form, and that value after Holm's correction for the number of
/// labels; likewise for the mean. `df` says from how much that is known: below 10 it is approximate,
/// marked ≈. Both
/// tables are written as for `cxr score`, with their rows in any order; they may hold logits and
/// probabilities.
///
/// The tests take images as independent unless --by-patient is given. Use it where patients have
/// several images: without it a difference looks more certain than it is.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The first model's predictions
    #[arg(value_name = "A.csv")]
    a: PathBuf,

    /// The second model's predictions; differences are first minus second
    #[arg(value_name = "B.csv")]
    b: PathBuf,

    #[command(flatten)]
    scoring: ScoringArgs,
}

const EXAMPLES: &str = "Examples:
  cxr compare fzlpr.csv bce.csv --labels Data_Entry_2017_v2020.csv --by-patient
  cxr compare fzlpr.csv bce.csv --labels mine.csv --by-patient --without Hernia";

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let scoring = &args.scoring;
    scoring.check_json(&[&args.a, &args.b])?;
    let index = scoring.read_labels()?;
    let a = Predictions::read(&args.a, scoring.unscorable())?;
    let b = Predictions::read(&args.b, scoring.unscorable())?;
    let both = scoring.join(&index, &[&a, &b])?;
    let [of_a, of_b] = both.as_slice() else {
        bail!("expected two evaluations of two tables, got {}", both.len());
    };
    let options = ComparisonOptions {
        by_patient: scoring.by_patient,
        without: scoring.without.clone(),
        resampling: scoring.resampling(),
    };
    let comparison = Comparison::new(of_a, of_b, &options)?;
    scoring.write_json(&comparison)?;
    let (n_scored, n_patients) = (comparison.n_images, comparison.n_patients);
    let about = scoring.describe(n_scored, n_patients, index.release());
    let left_out = describe_left_out(&comparison.left_out);
    print(&format!("{about}\n{left_out}\n{}", table(&comparison)))?;
    Ok(ExitCode::SUCCESS)
}

fn table(comparison: &Comparison) -> String {
    let header = [
        "label",
        "AUC A",
        "AUC B",
        "A − B",
        "95 % interval",
        "df",
        "p",
        "p (Holm)",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for label in &comparison.labels {
        rows.push(vec![
            label.label.clone(),
            number(label.auc_a, 4),
            number(label.auc_b, 4),
            number(label.difference, 4),
            approximate(label.approximate, interval(label.interval, 4)),
            number(label.df, 1),
            p_value(label.p_value),
            p_value(label.p_value_holm),
        ]);
    }
    let means = &comparison.means;
    rows.push(vec![
        format!("mean of {}", means.n_labels),
        number(means.auc_a, 4),
        number(means.auc_b, 4),
        number(means.difference, 4),
        approximate(
            means.approximate && means.bootstrap.is_none(),
            interval(means.interval, 4),
        ),
        number(means.df, 1),
        p_value(means.p_value),
    ]);
    let mut text = align(&rows);
    if !means.without.is_empty() {
        text += &format!("mean without {}\n", means.without.join(", "));
    }
    let mut labels = comparison.labels.iter();
    if means.approximate || labels.any(|label| label.approximate) {
        text += APPROXIMATE;
    }
    let labels = comparison.labels.iter();
    text += &describe_undefined(
        "interval and no p-value",
        labels.filter_map(|label| Some((label.label.as_str(), label.no_interval?))),
    );
    if let Some(reason) = means.no_interval {
        text += &describe_undefined("p-value", [("the mean", reason)].into_iter());
    }
    let unit = if comparison.by_patient {
        "patients"
    } else {
        "images"
    };
    text += &format!("tests take {unit} as independent\n");
    if let Some(bootstrap) = &means.bootstrap {
        text += &describe_bootstrap(bootstrap);
    }
    if let Some(note) = &comparison.note {
        text += &format!("\n{}\n", wrapped(note));
    }
    text
}

fn p_value(value: Option<f64>) -> String {
    match value {
        Some(value) if value < 0.0001 => format!("{value:.1e}"),
        value => number(value, 4),
    }
}
