//! `cxr score`: every metric for anybody's predictions.

use std::path::PathBuf;
use std::process::ExitCode;

use cxr_report::evaluation::Evaluation;
use cxr_report::predictions::Predictions;
use cxr_report::summary::{DecisionSummary, Summary, SummaryOptions};

use crate::scoring::{
    ScoringArgs, align, describe, describe_left_out, grouped, interval, number, print,
};

/// Score predictions: AUC with its error, average precision, calibration
///
/// The predictions are a table: first column the image name, then one column per label, headed
/// `Cardiomegaly`, `prob_Cardiomegaly` or `logit_Cardiomegaly`. A sigmoid makes probabilities of
/// `logit_` columns. Other scores outside [0, 1] rank well, but have no Brier score and no
/// calibration error. Images of the label table without a prediction are not scored.
///
/// AUC intervals are DeLong's at 95 %, which take images as independent; --by-patient adds those that
/// do not. A label that lacks one class has no AUC and is left out of the mean.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The predictions
    #[arg(value_name = "PREDICTIONS.csv")]
    predictions: PathBuf,

    #[command(flatten)]
    scoring: ScoringArgs,

    /// Call a label at or above this probability (for scores that are none: this score) and give
    /// sensitivity, specificity, predictive values and F1 with Wilson intervals
    #[arg(long, value_name = "T", value_parser = finite, allow_negative_numbers = true)]
    threshold: Option<f64>,
}

const EXAMPLES: &str = "Examples:
  cxr score predictions.csv --labels Data_Entry_2017_v2020.csv
  cxr score predictions.csv --labels Data_Entry_2017_v2020.csv --by-patient --bootstrap 2000 --json metrics.json
  cxr score predictions.csv --labels mine.csv --without Hernia --threshold 0.5";

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let scoring = &args.scoring;
    scoring.check_json(&[&args.predictions])?;
    let (truth, release) = scoring.read_truth()?;
    let predictions = Predictions::read(&args.predictions, scoring.unscorable())?;
    let evaluation =
        Evaluation::join(&predictions, &truth, &scoring.without, scoring.unscorable())?;
    let options = SummaryOptions {
        by_patient: scoring.by_patient,
        without: scoring.without.clone(),
        resampling: scoring.resampling(),
        threshold: args.threshold,
    };
    let summary = Summary::new(&evaluation, &options)?;
    scoring.write_json(&summary)?;
    let about = describe(summary.n_images, summary.n_patients, release);
    print(&format!(
        "{about}\n{}{}",
        describe_left_out(&summary.left_out),
        tables(&summary, &options)
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn finite(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if f64::is_finite(value) => Ok(value),
        _ => Err("expected a finite number".to_owned()),
    }
}

fn tables(summary: &Summary, options: &SummaryOptions) -> String {
    let mut text = format!("\n{}", ranking_table(summary, options.by_patient));
    if !summary.means.without.is_empty() {
        text += &format!("mean without {}\n", summary.means.without.join(", "));
    }
    if let Some(bootstrap) = &summary.means.bootstrap {
        let unit = if bootstrap.by_patient {
            "patients"
        } else {
            "images"
        };
        let replicates = grouped(bootstrap.resampling.replicates);
        text += &format!(
            "interval of the mean: {replicates} bootstrap replicates of {unit}, seed {}, {} skipped\n",
            bootstrap.resampling.seed, bootstrap.skipped
        );
    }
    if let Some(threshold) = options.threshold {
        text += &format!(
            "\ncalled at or above {threshold}\n{}",
            decision_table(summary)
        );
    }
    text
}

fn ranking_table(summary: &Summary, by_patient: bool) -> String {
    let row = |cells: [String; 8]| -> Vec<String> {
        let shown = cells
            .into_iter()
            .enumerate()
            .filter(|&(at, _)| by_patient || at != 4);
        shown.map(|(_, cell)| cell).collect()
    };
    let header = [
        "label",
        "positives",
        "AUC",
        "95 % interval",
        "by patient",
        "AP",
        "Brier",
        "ECE",
    ];
    let mut rows = vec![row(header.map(str::to_owned))];
    for label in &summary.labels {
        rows.push(row([
            label.label.clone(),
            grouped(label.positives),
            number(label.auc, 4),
            interval(label.auc_interval, 4),
            interval(label.auc_interval_clustered, 4),
            number(label.average_precision, 4),
            number(label.brier, 4),
            number(label.ece, 4),
        ]));
    }
    let means = &summary.means;
    let of_means = means
        .auc_interval
        .map(|ends| interval(Some(ends), 4))
        .unwrap_or_default();
    let (by_image, by_patient) = if by_patient {
        (String::new(), of_means)
    } else {
        (of_means, String::new())
    };
    rows.push(row([
        format!("mean of {}", means.n_labels),
        String::new(),
        number(means.auc, 4),
        by_image,
        by_patient,
        number(means.average_precision, 4),
        String::new(),
        String::new(),
    ]));
    align(&rows)
}

fn decision_table(summary: &Summary) -> String {
    let header = [
        "label",
        "sensitivity",
        "",
        "specificity",
        "",
        "PPV",
        "",
        "NPV",
        "",
        "F1",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for label in &summary.labels {
        let Some(decision) = &label.decision else {
            continue;
        };
        let DecisionSummary {
            sensitivity,
            specificity,
            ppv,
            npv,
            f1,
            ..
        } = *decision;
        rows.push(vec![
            label.label.clone(),
            number(sensitivity, 3),
            interval(decision.sensitivity_interval, 3),
            number(specificity, 3),
            interval(decision.specificity_interval, 3),
            number(ppv, 3),
            interval(decision.ppv_interval, 3),
            number(npv, 3),
            interval(decision.npv_interval, 3),
            number(f1, 3),
        ]);
    }
    align(&rows)
}
