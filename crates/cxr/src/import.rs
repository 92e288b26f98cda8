//! `cxr import`: a model of somebody else's weights.

use std::path::PathBuf;
use std::process::ExitCode;

use cxr_exchange::{Import, architectures, import_model};
use cxr_model::save_model;

use crate::output::{ForceArg, is_model};
use crate::progress::say;

/// Make a model of weights that another program trained
///
/// Reads what torchvision, timm, torchxrayvision and medical_mae write: safetensors, and PyTorch's `.pth` and `.pt` files,
/// without running anything that is in them. State dictionaries are found under keys such as `state_dict` and `model`, modules
/// that were pickled whole are taken apart, and prefixes such as `module.` are left out.
///
/// What such a file does not say is said here: its architecture, what its outputs are, and how images are prepared. The model
/// is then one like any other, for `cxr predict`, `calibrate`, `explain` and `export`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A file of weights: .safetensors, .pth or .pt
    #[arg(value_name = "WEIGHTS", required_unless_present = "list")]
    weights: Option<PathBuf>,

    /// Whose network it is; `--list` prints all
    #[arg(long, value_name = "NAME", required_unless_present = "list")]
    architecture: Option<String>,

    /// Where the model goes
    #[arg(
        long,
        short,
        value_name = "FILE.safetensors",
        default_value = "model.safetensors"
    )]
    out: PathBuf,

    /// What each output is, in their order, separated by commas; an empty name leaves an output out
    #[arg(long, value_name = "LABEL", value_delimiter = ',')]
    labels: Vec<String>,

    /// Which of the authors' trainings it is, for torchxrayvision: it says the labels and from where on they are called
    #[arg(long, value_name = "NAME")]
    training: Option<String>,

    /// Images are resized to this side [default: the architecture's]
    #[arg(long, value_name = "PIXELS")]
    image_size: Option<usize>,

    /// The network sees the central square of this side [default: the architecture's]
    #[arg(long, value_name = "PIXELS")]
    crop_size: Option<usize>,

    /// Subtracted from grey values in [0, 1]: one number, or three for three channels [default: the architecture's]
    #[arg(long, value_name = "MEAN", value_parser = channels, allow_hyphen_values = true)]
    mean: Option<[f32; 3]>,

    /// Then divided by this: one number, or three [default: the architecture's]
    #[arg(long, value_name = "STD", value_parser = channels)]
    std: Option<[f32; 3]>,

    /// What the model is called [default: the architecture]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// The licence of the weights, by its SPDX name in lower case, such as `apache-2.0`
    #[arg(long, value_name = "NAME")]
    licence: Option<String>,

    /// What the model may be used for [default: research; not a medical device]
    #[arg(long, value_name = "TEXT")]
    intended_use: Option<String>,

    /// Print the architectures and what is known of them
    #[arg(long)]
    list: bool,

    #[command(flatten)]
    force: ForceArg,
}

const EXAMPLES: &str = "Examples:
  cxr import densenet121-all.pt --architecture torchxrayvision-densenet121 --training all -o xrv.safetensors
  cxr import checkpoint.pth --architecture medical-mae-densenet121 -o mae.safetensors
  cxr import resnet50.safetensors --architecture resnet50 --labels Mass,Nodule --image-size 256 --crop-size 224";

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (Some(weights), Some(architecture)) = (&args.weights, &args.architecture) else {
        return list();
    };
    let output = args.force.output(&args.out).inputs([weights]);
    output.ours(is_model).check()?;
    let import = Import {
        architecture: architecture.clone(),
        training: args.training.clone(),
        labels: args
            .labels
            .iter()
            .map(|label| label.trim().to_owned())
            .collect(),
        name: args.name.clone(),
        image_size: args.image_size,
        crop_size: args.crop_size,
        mean: args.mean,
        std: args.std,
        licence: args.licence.clone(),
        intended_use: args.intended_use.clone(),
    };
    let imported = import_model(weights, &import)?;
    save_model(&args.out, &imported.card, &imported.classifier)?;
    let card = &imported.card;
    say(&format!(
        "written to `{}`: {} labels, images of {} pixels, of which the central {} are seen",
        args.out.display(),
        card.labels.len(),
        card.image_size,
        card.crop_size
    ));
    if imported.unnamed > 0 {
        say(&format!(
            "{} outputs have no name and are left out",
            imported.unnamed
        ));
    }
    if !imported.unused.is_empty() {
        say(&format!(
            "{} tensors are of no use for predictions, such as `{}`",
            imported.unused.len(),
            imported.unused[0].escape_debug()
        ));
    }
    if !imported.others.is_empty() {
        let names = imported.others.iter().take(8);
        let names: Vec<String> = names
            .map(|name| format!("`{}`", name.escape_debug()))
            .collect();
        say(&format!(
            "{} values beside the tensors are left out: {}",
            imported.others.len(),
            names.join(", ")
        ));
    }
    if card.licence.is_none() {
        say("the licence of the weights is not known: `--licence` says it");
    }
    Ok(ExitCode::SUCCESS)
}

fn list() -> anyhow::Result<ExitCode> {
    let mut text = String::new();
    for one in architectures() {
        text += &format!("{} ({}→{} pixels", one.name, one.image_size, one.crop_size);
        let trainings: Vec<&str> = one.trainings.iter().map(|training| training.name).collect();
        if !trainings.is_empty() {
            text += &format!("; --training {}", trainings.join("|"));
        }
        text += ")\n";
    }
    crate::scoring::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn channels(text: &str) -> Result<[f32; 3], String> {
    let numbers: Result<Vec<f32>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    match numbers.as_deref() {
        Ok(&[one]) => Ok([one; 3]),
        Ok(&[first, second, third]) => Ok([first, second, third]),
        _ => Err("expected one number, or three separated by commas".to_owned()),
    }
}
