//! `cxr calibrate`: probabilities and thresholds that fit, into a model's file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context as _, bail, ensure};
use cxr_augment::ViewSet;
use cxr_dataset::{Blanks, Index, Part};
use cxr_metrics::{ClusteredProportion, PrevalenceShift};
use cxr_model::{
    Calibration, CalibrationMethod, FEWEST_REFERENCE_IMAGES, FittedLabel, ModelCard, Observed,
    Origin, REFERENCE_PREFIX, Reference, TestedLabel, ThresholdOrigin, ThresholdRule,
    read_weight_file, write_weight_file,
};
use cxr_run::{Predictions, RunFolder, ScoreKind, Truth, Unscorable};
use serde::Serialize;

use crate::blank::BlankArgs;
use crate::device::DeviceArgs;
use crate::explain::model_file;
use crate::output::{ForceArg, is_model};
use crate::predict;
use crate::progress::say;
use crate::scoring::{align, approximate, interval, number, print};
use crate::train::{interrupted, stop_flag};

/// Fit a model's probabilities and thresholds on validation images, and write them into its file
///
/// Logits rank images; what they mean as probabilities, and from where on a finding is called, is fitted here, label by
/// label, on predictions that the training did not see: those of the run's validation images, or a table that `cxr predict`
/// wrote and the truth beside it. The new model file says what was fitted on what; `cxr predict` and `cxr explain` go by it.
///
/// Rates at the thresholds are shown on the test images, with 95 % intervals by patient: on the images that chose a
/// threshold they would be too good.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A model: a run's folder, or a model.safetensors
    #[arg(value_name = "MODEL")]
    model: PathBuf,

    /// Fit on these predictions [default: the run's of its validation images]
    #[arg(long, value_name = "FILE.csv", requires = "labels")]
    predictions: Option<PathBuf>,

    /// The truth of these images: a label table as `cxr score` takes it
    #[arg(long, value_name = "LABELS.csv", requires = "predictions")]
    labels: Option<PathBuf>,

    /// Show rates on these predictions [default: the run's of its test images]
    #[arg(long, value_name = "FILE.csv", requires = "test_labels")]
    test_predictions: Option<PathBuf>,

    /// The truth of the test images
    #[arg(long, value_name = "LABELS.csv", requires = "test_predictions")]
    test_labels: Option<PathBuf>,

    #[command(flatten)]
    blank: BlankArgs,

    /// The test-time views of the predictions, as `cxr predict --tta` is to be called later
    #[arg(
        long,
        value_name = "VIEWS",
        default_value = "single",
        hide_default_value = true
    )]
    tta: ViewSet,

    /// How logits become probabilities: `platt`, a line and a sigmoid; `temperature`, one factor; `isotonic`, any rising
    /// curve, for hundreds of positives; `none`
    #[arg(long, value_enum, default_value_t = Method::Platt)]
    method: Method,

    /// From where on a label is called: `youden`, `f1`, `sensitivity:RATE`, `specificity:RATE`, `ppv:RATE`, or `keep` what the
    /// model has
    #[arg(long, value_name = "RULE", default_value = "youden")]
    threshold: Rule,

    /// Probabilities for images of which another share has a label, as LABEL=SHARE, separated by commas
    #[arg(long, value_name = "LABEL=SHARE", value_delimiter = ',')]
    prevalence: Vec<String>,

    /// Radiographs such as the model was trained on, files, folders, archives or stores: `cxr predict` will mark images that are
    /// unlike all of them. At most 1,024 are taken, evenly
    #[arg(long, value_name = "PATH", num_args = 1..)]
    reference: Vec<PathBuf>,

    /// The share of the reference images that are no further from their nearest neighbour than an image may be
    #[arg(
        long,
        value_name = "SHARE",
        default_value_t = 0.95,
        requires = "reference"
    )]
    reference_share: f64,

    #[command(flatten)]
    device: DeviceArgs,

    /// The new model file [default: model-calibrated.safetensors beside the model]
    #[arg(long, value_name = "FILE.safetensors")]
    out: Option<PathBuf>,

    /// Write all numbers to this file as JSON; what is undefined is null
    #[arg(long, value_name = "OUT.json")]
    json: Option<PathBuf>,

    #[command(flatten)]
    force: ForceArg,
}

const EXAMPLES: &str = "Examples:
  cxr calibrate models/runs/paper/fzlpr-0.2
  cxr calibrate models/runs/paper/fzlpr-0.2 --threshold sensitivity:0.95 --out screening.safetensors
  cxr calibrate models/runs/paper/fzlpr-0.2 --reference models/runs/paper/images-256.store
  cxr calibrate model.safetensors --predictions ours.csv --labels truth.csv --method temperature";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Method {
    None,
    Temperature,
    Platt,
    Isotonic,
}

impl From<Method> for CalibrationMethod {
    fn from(method: Method) -> Self {
        match method {
            Method::None => Self::None,
            Method::Temperature => Self::Temperature,
            Method::Platt => Self::Platt,
            Method::Isotonic => Self::Isotonic,
        }
    }
}

/// A rule of the command line; `None`: the thresholds are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rule(Option<ThresholdRule>);

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rate = |text: &str| match text.parse::<f64>() {
            Ok(rate) if (0. ..=1.).contains(&rate) => Ok(rate),
            _ => Err("expected a rate from 0 to 1".to_owned()),
        };
        let rule = match text.split_once(':') {
            None if text == "keep" => return Ok(Self(None)),
            None if text == "youden" => ThresholdRule::Youden,
            None if text == "f1" => ThresholdRule::BestF1,
            Some(("sensitivity", text)) => ThresholdRule::Sensitivity(rate(text)?),
            Some(("specificity", text)) => ThresholdRule::Specificity(rate(text)?),
            Some(("ppv", text)) => ThresholdRule::PositivePredictiveValue(rate(text)?),
            _ => {
                return Err(
                    "expected `youden`, `f1`, `sensitivity:RATE`, `specificity:RATE`, `ppv:RATE` or `keep`"
                        .to_owned(),
                );
            }
        };
        Ok(Self(Some(rule)))
    }
}

/// Features of these take 4 MiB for DenseNet121, and their distances no time beside the network.
const MOST_REFERENCE_IMAGES: usize = 1024;

/// What was fitted for a label, and how good it is.
#[derive(Debug, Serialize)]
struct Outcome {
    label: String,
    #[serde(flatten)]
    fitted: FittedLabel,
    threshold_probability: f64,
    /// On the images that it was fitted on, where rates are too good.
    sensitivity: Option<f64>,
    specificity: Option<f64>,
    test: Option<TestedLabel>,
}

#[derive(Debug, Serialize)]
struct Output<'a> {
    labels: &'a [Outcome],
    model: &'a Path,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let model = model_file(&args.model);
    let run = args.model.is_dir().then(|| RunFolder::at(&args.model));
    let of_run = |part| {
        let run = run.as_ref()?;
        Some((run.predictions_file(part, args.tta), run.labels_file(part)))
    };
    let named = |predictions: &Option<PathBuf>, labels: &Option<PathBuf>| {
        Some((predictions.clone()?, labels.clone()?))
    };
    let fit_on = named(&args.predictions, &args.labels).or_else(|| of_run(Part::Validation));
    let (predictions, labels) = fit_on.context(
        "expected predictions to fit on\nhint: `--predictions FILE --labels FILE`, or a run's folder instead of a model's file",
    )?;
    let blanks = args.blank.blanks();
    if !blanks.are_unknown() && args.labels.is_none() && args.test_labels.is_none() {
        bail!(
            "`--blank` is about empty cells of `--labels` and `--test-labels`\nhint: a run's own labels are what its experiment's `data.blank` says"
        );
    }
    // A run's own tables have empty cells where it knows nothing.
    let of_table = |table: &Option<PathBuf>| match table {
        Some(_) => blanks.clone(),
        None => Blanks::default(),
    };
    let part = match args.predictions {
        Some(_) => predictions.display().to_string(),
        None => Part::Validation.name().to_owned(),
    };
    let tested_on = named(&args.test_predictions, &args.test_labels)
        .or_else(|| of_run(Part::Test).filter(|_| args.predictions.is_none()));
    let default = || model.with_file_name("model-calibrated.safetensors");
    let out = args.out.clone().unwrap_or_else(default);
    let inputs = [&model, &predictions, &labels];
    args.force
        .output(&out)
        .inputs(inputs)
        .ours(is_model)
        .check()?;
    if let Some(json) = &args.json {
        let output = args.force.output(json).inputs(inputs);
        output
            .ours(|start| start.starts_with(b"{\n  \"labels\": ["))
            .check()?;
    }

    let (description, mut tensors) = read_weight_file(&model, "model")?;
    let mut card = ModelCard::parse(&description)
        .map_err(anyhow::Error::msg)
        .with_context(|| format!("`{}`", model.display()))?;
    let observed = observe(&card, &predictions, &labels, &of_table(&args.labels))?;
    let tested = tested_on
        .map(|(predictions, labels)| {
            observe(&card, &predictions, &labels, &of_table(&args.test_labels))
        })
        .transpose()?;
    let prevalences = prevalences(&args.prevalence, &card)?;
    let mut outcomes = Vec::with_capacity(card.labels.len());
    for (at, of_label) in observed.iter().enumerate() {
        let test = tested.as_ref().and_then(|tested| tested.get(at));
        let label = card.labels.get(at).map_or("", String::as_str);
        let kept = card.logit_thresholds.get(at).copied().unwrap_or_default();
        let prevalence = prevalences.get(&at).copied();
        outcomes.push(fit(args, label, kept, of_label, prevalence, test)?);
    }
    let origin = Origin {
        part,
        images: observed.iter().map(Observed::n_images).max().unwrap_or(0),
        views: args.tta,
        fingerprint: Some(cxr_fs::sha256(&predictions)?),
    };
    card.logit_thresholds = (outcomes.iter())
        .map(|outcome| outcome.fitted.threshold_logit)
        .collect();
    if let Some(rule) = args.threshold.0 {
        card.threshold_origin = ThresholdOrigin {
            rule,
            fitted_on: Some(origin.clone()),
        };
    }
    card.calibration =
        (args.method != Method::None || !prevalences.is_empty()).then(|| Calibration {
            labels: (outcomes.iter())
                .map(|outcome| outcome.fitted.calibration.clone())
                .collect(),
            origin,
        });
    if !args.reference.is_empty() {
        let Some(reference) = reference(args, &model)? else {
            return Ok(interrupted());
        };
        tensors.retain(|name, _| !name.starts_with(REFERENCE_PREFIX));
        tensors.extend(reference.tensors()?);
        card.reference = Some(reference.card().clone());
    }
    card.check()?;
    print(&table(&outcomes))?;
    for outcome in &outcomes {
        if let Some(reason) = outcome.fitted.not_fitted {
            say(&format!("{}: {reason}", outcome.label));
        }
    }
    write_weight_file(&out, &card, &tensors)?;
    if let Some(json) = &args.json {
        let output = Output {
            labels: &outcomes,
            model: &out,
        };
        let text = serde_json::to_string_pretty(&output)? + "\n";
        cxr_fs::write(json, text.as_bytes())?;
    }
    say(&format!("written to `{}`", out.display()));
    Ok(ExitCode::SUCCESS)
}

/// The reference images as the model sees them; `None` where it was stopped.
fn reference(args: &Args, model: &Path) -> anyhow::Result<Option<Reference>> {
    let share = args.reference_share;
    ensure!(
        share > 0. && share <= 1.,
        "`--reference-share`: expected a share above 0 and at most 1, got {share}"
    );
    let stop = stop_flag()?;
    let (paths, device) = (&args.reference, args.device.open()?);
    let features = predict::features(model, paths, MOST_REFERENCE_IMAGES, &device, &stop)?;
    let Some(features) = features else {
        return Ok(None);
    };
    let named: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let origin = format!("{} images of {}", features.len(), named.join(", "));
    let reference = Reference::fit(&features, share, origin);
    let reference = reference.with_context(|| {
        format!(
            "expected at least {FEWEST_REFERENCE_IMAGES} reference images that are not all alike, got {}",
            features.len()
        )
    })?;
    Ok(Some(reference))
}

/// The logits of each label of the model, where the truth is known.
///
/// # Errors
/// Probabilities of a calibrated model, and those of [`Observed::of_labels`].
fn observe(
    card: &ModelCard,
    predictions: &Path,
    labels: &Path,
    blanks: &Blanks,
) -> anyhow::Result<Vec<Observed>> {
    let table = Predictions::read(predictions, Unscorable::Refuse)?;
    let is_logit = |label: &String| {
        let mut columns = table.columns().iter();
        columns.any(|column| column.label == *label && column.kind == ScoreKind::Logit)
    };
    if card.calibration.is_some() && !card.labels.iter().all(is_logit) {
        bail!(
            "`{}` has probabilities of a model that is calibrated already\nhint: predict with the model that it was made from",
            predictions.display()
        );
    }
    let truth = Truth::of(&Index::read(labels)?.with_blanks(blanks)?)?;
    Ok(Observed::of_labels(&card.labels, &table, &truth)?)
}

/// The shares that were asked for, by the labels' positions.
fn prevalences(texts: &[String], card: &ModelCard) -> anyhow::Result<HashMap<usize, f64>> {
    let mut shares = HashMap::new();
    for text in texts {
        let parts = text.rsplit_once('=').and_then(|(label, share)| {
            let share: f64 = share.trim().parse().ok()?;
            (share > 0. && share < 1.).then(|| (label.trim(), share))
        });
        let (label, share) = parts.with_context(|| {
            format!("`--prevalence {text}`: expected LABEL=SHARE, a share between 0 and 1")
        })?;
        let at = card.labels.iter().position(|known| known == label);
        let at = at.with_context(|| {
            format!(
                "the model has no label `{label}`\nhint: it has {}",
                card.labels.join(", ")
            )
        })?;
        shares.insert(at, share);
    }
    Ok(shares)
}

/// Fits a label, and tests it where there are images for that.
fn fit(
    args: &Args,
    label: &str,
    kept: f32,
    observed: &Observed,
    prevalence: Option<f64>,
    test: Option<&Observed>,
) -> anyhow::Result<Outcome> {
    let mut fitted = observed.fit(args.method.into(), args.threshold.0, kept)?;
    if let Some(to) = prevalence {
        let from = fitted.positives as f64 / fitted.images.max(1) as f64;
        let shift = PrevalenceShift::new(from, to).ok();
        let moved = shift.and_then(|shift| fitted.calibration.for_prevalence(shift));
        fitted.calibration = moved.with_context(|| {
            format!(
                "`{label}` cannot be moved to another prevalence\nhint: an isotonic curve cannot, nor a label that no or every image has; take `--method platt`"
            )
        })?;
    }
    let threshold = fitted.threshold_logit;
    let counted = observed.rates(threshold)?;
    let value = |rate: Option<ClusteredProportion>| rate.map(|rate| rate.proportion.value());
    let tested = test
        .map(|test| test.test(&fitted.calibration, threshold))
        .transpose()?;
    Ok(Outcome {
        label: label.to_owned(),
        threshold_probability: fitted.calibration.probability(f64::from(threshold)),
        sensitivity: counted.as_ref().and_then(|rates| value(rates.sensitivity)),
        specificity: counted.as_ref().and_then(|rates| value(rates.specificity)),
        test: tested.flatten(),
        fitted,
    })
}

fn table(outcomes: &[Outcome]) -> String {
    let has_test = outcomes.iter().any(|label| label.test.is_some());
    let mut header = vec![
        "label",
        "positives",
        "called above",
        "sensitivity",
        "specificity",
    ];
    if has_test {
        header.extend([
            "sens. (test)",
            "95 %",
            "spec. (test)",
            "95 %",
            "PPV",
            "95 %",
            "Brier before",
            "after",
        ]);
    }
    let mut rows: Vec<Vec<String>> = vec![header.into_iter().map(str::to_owned).collect()];
    for label in outcomes {
        let mut row = vec![
            label.label.clone(),
            label.fitted.positives.to_string(),
            number(Some(label.threshold_probability), 3),
            number(label.sensitivity, 3),
            number(label.specificity, 3),
        ];
        if let Some(test) = &label.test {
            for rate in [test.sensitivity, test.specificity, test.ppv] {
                let ends = rate.and_then(|rate| rate.interval);
                row.push(number(rate.map(|rate| rate.value), 3));
                row.push(approximate(
                    rate.is_some_and(|rate| rate.approximate),
                    interval(ends, 3),
                ));
            }
            row.push(number(Some(test.brier_before), 4));
            row.push(number(Some(test.brier), 4));
        }
        rows.push(row);
    }
    let mut tests = outcomes.iter().filter_map(|label| label.test.as_ref());
    let note = match (has_test, tests.all(|test| test.by_patient)) {
        (true, true) => "intervals are by patient\n",
        (true, false) => "intervals are by image, as patients are not known: they are too narrow\n",
        (false, _) => {
            "rates are on the images that the thresholds were chosen on, where they are too good\n"
        }
    };
    format!("{}{note}", align(&rows))
}
