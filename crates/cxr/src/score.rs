//! `cxr score`: every metric for anybody's predictions.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use cxr_run::{
    APPROXIMATE_BELOW, DecisionSummary, LabelSummary, Predictions, Summary, SummaryOptions,
};

use crate::scoring::{
    APPROXIMATE, ScoringArgs, align, approximate, describe_bootstrap, describe_left_out,
    describe_undefined, grouped, interval, number, print, wrapped,
};

/// Score predictions: AUC with its error, average precision, calibration
///
/// The predictions are a table: first column the image name, then one column per label, headed
/// `Cardiomegaly`, `prob_Cardiomegaly` or `logit_Cardiomegaly`. A sigmoid makes probabilities of
/// `logit_` columns. Other scores outside [0, 1] rank well, but have no Brier score and no
/// calibration error. Images of the label table without a prediction are not scored.
///
/// AUC intervals are DeLong's at 95 % with Student's t, which take images as independent; --by-patient
/// adds those that do not, and makes all other intervals so. `df` says from how much an interval is
/// known: it is near the number of patients with the finding if they have as many images each, and
/// less if they do not. Below 10 the interval is approximate, marked ≈. A label that lacks one class
/// has no AUC and is left out of the mean.
///
/// With --by-study the views of one examination are one score, as CheXpert and CXR-LT are scored.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The predictions
    #[arg(value_name = "PREDICTIONS.csv")]
    predictions: PathBuf,

    #[command(flatten)]
    scoring: ScoringArgs,

    /// Call a label at or above this probability (for scores that are none: this score) and give
    /// sensitivity, specificity, predictive values and F1 with Wilson intervals, by patient
    /// with --by-patient
    #[arg(long, value_name = "T", value_parser = finite, allow_negative_numbers = true)]
    threshold: Option<f64>,
}

const EXAMPLES: &str = "Examples:
  cxr score predictions.csv --labels Data_Entry_2017_v2020.csv
  cxr score predictions.csv --labels Data_Entry_2017_v2020.csv --by-patient --json metrics.json
  cxr score predictions.csv --labels mine.csv --without Hernia --threshold 0.5
  cxr score predictions.csv --labels mimic-cxr-jpg/mimic-cxr-2.0.0-chexpert.csv.gz --blank negative
  cxr score models/runs/mine/bce/predictions-test.csv --labels chexpert --by-study max";

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let scoring = &args.scoring;
    scoring.check_json(&[&args.predictions])?;
    let index = scoring.read_labels()?;
    let predictions = Predictions::read(&args.predictions, scoring.unscorable())?;
    let evaluation = scoring.join(&index, &[&predictions])?.pop();
    let evaluation = evaluation.context("expected predictions")?;
    let options = SummaryOptions {
        by_patient: scoring.by_patient,
        without: scoring.without.clone(),
        resampling: scoring.resampling(),
        threshold: args.threshold,
    };
    let summary = Summary::new(&evaluation, &options)?;
    scoring.write_json(&summary)?;
    let about = scoring.describe(summary.n_images, summary.n_patients, index.release());
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
    let is_approximate = |label: &LabelSummary| label.approximate;
    if summary.means.approximate || summary.labels.iter().any(is_approximate) {
        text += APPROXIMATE;
    }
    let labels = summary.labels.iter();
    text += &describe_undefined(
        "interval",
        labels.filter_map(|label| Some((label.label.as_str(), label.no_interval?))),
    );
    if summary.means.bootstrap.is_none()
        && let Some(reason) = summary.means.no_interval
    {
        text += &describe_undefined("interval", [("the mean", reason)].into_iter());
    }
    if let Some(bootstrap) = &summary.means.bootstrap {
        text += &describe_bootstrap(bootstrap);
    }
    if let Some(threshold) = options.threshold {
        text += &format!(
            "\ncalled at or above {threshold}\n{}",
            decision_table(summary)
        );
        if options.by_patient {
            text += "intervals of decisions are by patient\n";
        }
    }
    if let Some(note) = &summary.note {
        text += &format!("\n{}\n", wrapped(note));
    }
    text
}

pub(crate) fn ranking_table(summary: &Summary, by_patient: bool) -> String {
    let row = |cells: [String; 9]| -> Vec<String> {
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
        if by_patient {
            "by image"
        } else {
            "95 % interval"
        },
        "95 % interval by patient",
        "df",
        "AP",
        "Brier",
        "ECE",
    ];
    let mut rows = vec![row(header.map(str::to_owned))];
    for label in &summary.labels {
        let about = |marked: bool| marked && label.approximate;
        rows.push(row([
            label.label.clone(),
            grouped(label.positives),
            number(label.auc, 4),
            approximate(about(!by_patient), interval(label.auc_interval, 4)),
            approximate(about(by_patient), interval(label.auc_interval_clustered, 4)),
            number(
                if by_patient {
                    label.auc_df_clustered
                } else {
                    label.auc_df
                },
                1,
            ),
            number(label.average_precision, 4),
            number(label.brier, 4),
            number(label.ece, 4),
        ]));
    }
    let means = &summary.means;
    let of_means = approximate(
        means.approximate && means.bootstrap.is_none(),
        interval(means.auc_interval, 4),
    );
    let (by_image, by_patient) = if by_patient {
        (String::new(), of_means)
    } else {
        (of_means, String::new())
    };
    let df = match means.bootstrap {
        None => number(means.auc_df, 1),
        Some(_) => String::new(),
    };
    rows.push(row([
        format!("mean of {}", means.n_labels),
        String::new(),
        number(means.auc, 4),
        by_image,
        by_patient,
        df,
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
        let about = |df: Option<f64>, ends| {
            approximate(
                df.is_some_and(|df| df < APPROXIMATE_BELOW),
                interval(ends, 3),
            )
        };
        rows.push(vec![
            label.label.clone(),
            number(sensitivity, 3),
            about(decision.sensitivity_df, decision.sensitivity_interval),
            number(specificity, 3),
            about(decision.specificity_df, decision.specificity_interval),
            number(ppv, 3),
            about(decision.ppv_df, decision.ppv_interval),
            number(npv, 3),
            about(decision.npv_df, decision.npv_interval),
            number(f1, 3),
        ]);
    }
    align(&rows)
}
