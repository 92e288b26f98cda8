//! `cxr card`: the page of a model on a hub.

use std::path::PathBuf;
use std::process::ExitCode;

use cxr_model::{ModelCard, ThresholdRule};
use cxr_report::card::{ModelFacts, model_page};
use cxr_run::RunFolder;

use crate::explain::model_file;
use crate::output::ForceArg;
use crate::progress::say;
use crate::scoring;

/// Write the page of a model, README.md as Hugging Face reads it
///
/// The description is read from the model file; the results of the test images, with 95 % intervals, from the metrics.json of
/// its run, if that is in the same folder. Both become text for people and `model-index` for the hub.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  cxr card models/runs/paper/fzlpr-0.2 --out README.md")]
pub(crate) struct Args {
    /// A model: a run's folder, or a model.safetensors
    #[arg(value_name = "MODEL")]
    model: PathBuf,

    /// Where the page goes [default: standard output]
    #[arg(long, value_name = "FILE.md")]
    out: Option<PathBuf>,

    /// The licence of the weights, by its SPDX name in lower case, such as `mit`, if the model does not say
    #[arg(long, value_name = "NAME")]
    licence: Option<String>,

    #[command(flatten)]
    force: ForceArg,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let model = model_file(&args.model);
    let card = ModelCard::read(&model)?;
    let run = RunFolder::at(model.parent().unwrap_or(&model));
    let metrics = match run.is_finished() {
        true => Some(run.metrics()?),
        false => None,
    };
    // Beside a model of another training the metrics are not its own.
    let metrics = metrics
        .filter(|metrics| metrics.experiment == card.experiment && metrics.variant == card.variant);
    if metrics.is_none() {
        say("the run of the model is not beside it: the page has no results");
    }
    let facts = ModelFacts {
        architecture: vec![card.backbone.name().to_owned(), card.head.name().to_owned()],
        labels: card.labels.clone(),
        image_size: card.image_size,
        crop_size: card.crop_size,
        licence: args.licence.clone().or_else(|| card.licence.clone()),
        intended_use: card.intended_use.clone(),
        thresholds: thresholds(&card),
    };
    let name = format!("{}-{}", card.experiment, card.variant);
    let page = model_page(&name, &facts, metrics.as_ref());
    match &args.out {
        Some(out) => {
            let output = args.force.output(out).inputs([&model]);
            output.ours(|start| start.starts_with(b"---\n")).check()?;
            cxr_fs::write(out, page.as_bytes())?;
            say(&format!("written to `{}`", out.display()));
        }
        None => scoring::print(&page)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// How the thresholds were chosen, in words; empty where they are the loss's.
fn thresholds(card: &ModelCard) -> String {
    let rule = match card.threshold_origin.rule {
        ThresholdRule::Youden => "largest sensitivity + specificity".to_owned(),
        ThresholdRule::BestF1 => "largest F1".to_owned(),
        ThresholdRule::Sensitivity(rate) => format!("sensitivity of at least {rate}"),
        ThresholdRule::Specificity(rate) => format!("specificity of at least {rate}"),
        ThresholdRule::PositivePredictiveValue(rate) => {
            format!("positive predictive value of at least {rate}")
        }
        ThresholdRule::Given => "chosen by hand".to_owned(),
        _ => return String::new(),
    };
    match &card.threshold_origin.fitted_on {
        Some(origin) => format!("{rule}, on {} images ({})", origin.images, origin.part),
        None => rule,
    }
}
