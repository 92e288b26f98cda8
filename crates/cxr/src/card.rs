//! `cxr card`: the page of a model on a hub.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cxr_model::{ModelCard, ThresholdRule, read_weight_file, write_weight_file};
use cxr_report::card::{ModelFacts, model_page};
use cxr_run::RunFolder;

use crate::explain::model_file;
use crate::output::{ForceArg, is_model};
use crate::progress::say;
use crate::scoring;

/// Write the page of a model, README.md as Hugging Face reads it
///
/// The description is read from the model file; the results of the test images, with 95 % intervals, from the metrics.json of
/// its run, if that is in the same folder. Both become text for people and `model-index` for the hub.
///
/// What a model's author did not say, --licence and --intended-use say on the page, and with --save in a copy of the model
/// file.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  cxr card models/runs/paper/fzlpr-0.2 --out README.md
  cxr card model.safetensors --licence cc-by-4.0 --save published.safetensors --out README.md")]
pub(crate) struct Args {
    /// A model: a run's folder, or a model.safetensors
    #[arg(value_name = "MODEL")]
    model: PathBuf,

    /// Where the page goes [default: standard output, without --save]
    #[arg(long, value_name = "FILE.md")]
    out: Option<PathBuf>,

    /// The licence of the weights, by its SPDX name in lower case, such as `mit`, in place of what the model says
    #[arg(long, value_name = "NAME")]
    licence: Option<String>,

    /// What the model may be used for, in place of what the model says
    #[arg(long, value_name = "TEXT")]
    intended_use: Option<String>,

    /// Write a copy of the model file that says this licence and intended use
    #[arg(long, value_name = "FILE.safetensors")]
    save: Option<PathBuf>,

    #[command(flatten)]
    force: ForceArg,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let model = model_file(&args.model);
    let mut card = ModelCard::read(&model)?;
    for (given, said) in [
        (&args.licence, &mut card.licence),
        (&args.intended_use, &mut card.intended_use),
    ] {
        if given.is_some() {
            said.clone_from(given);
        }
    }
    if let Some(save) = &args.save {
        let output = args.force.output(save).inputs([&model]);
        output.ours(is_model).check()?;
    }
    let page = page(&model, &card)?;
    if let Some(save) = &args.save {
        let (_, tensors) = read_weight_file(&model, "model")?;
        write_weight_file(save, &card, &tensors)?;
        say(&format!("written to `{}`", save.display()));
    }
    match &args.out {
        Some(out) => {
            let output = args.force.output(out).inputs([&model]);
            output.ours(|start| start.starts_with(b"---\n")).check()?;
            cxr_fs::write(out, page.as_bytes())?;
            say(&format!("written to `{}`", out.display()));
        }
        // A copy was asked for, not the page.
        None if args.save.is_some() => {}
        None => scoring::print(&page)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The page of a model file that says this of itself, with the results of its run where that is beside it.
pub(crate) fn page(model: &Path, card: &ModelCard) -> anyhow::Result<String> {
    let run = RunFolder::at(model.parent().unwrap_or(model));
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
        licence: card.licence.clone(),
        intended_use: card.intended_use.clone(),
        thresholds: thresholds(card),
    };
    let name = format!("{}-{}", card.experiment, card.variant);
    Ok(model_page(&name, &facts, metrics.as_ref()))
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
