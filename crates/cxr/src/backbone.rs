//! `cxr backbone`: the feature extractor of a trained model, for another experiment to begin with.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use candle_core::{DType, Device, Tensor};
use cxr_model::{ImageAttributes, encode_inputs};
use cxr_train::{load_model, save_backbone};

use crate::output::{ForceArg, is_backbone};
use crate::progress::say;

/// Write the backbone of a trained model as pretrained weights
///
/// The file takes the place of downloaded weights: name it as model.weights of an experiment whose
/// backbone has the same sizes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A trained model, the model.safetensors of a run folder
    #[arg(value_name = "MODEL.safetensors")]
    model: PathBuf,

    /// The file to write
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,

    #[command(flatten)]
    force: ForceArg,

    /// The licence of the weights, such as "MIT OR Apache-2.0", kept in the file
    #[arg(long, value_name = "SPDX")]
    licence: Option<String>,
}

const EXAMPLES: &str = "Example:
  cxr backbone models/runs/demo-backbone/bce/model.safetensors --out models/demo-backbone.safetensors";

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let output = args.force.output(&args.out).inputs([&args.model]);
    output.ours(is_backbone).check()?;
    let (card, classifier) = load_model(&args.model, &Device::Cpu)?;
    // Weights may be finite and yet too large to compute with.
    let pixels = Tensor::zeros(
        (1, 3, card.crop_size, card.crop_size),
        DType::F32,
        &Device::Cpu,
    )?;
    let of_nobody = [ImageAttributes::default()];
    let non_image = encode_inputs(&card.inputs, of_nobody, &Device::Cpu)?;
    classifier
        .logits_of_image(&pixels, non_image.as_ref(), &card.labels, "a plain image")
        .with_context(|| format!("the backbone of `{}` is not written", args.model.display()))?;
    save_backbone(&args.out, &card, &classifier, args.licence.as_deref())?;
    say(&format!(
        "{} values of `{}` are in `{}`",
        classifier.parameters().count("features."),
        card.experiment,
        args.out.display()
    ));
    Ok(ExitCode::SUCCESS)
}
