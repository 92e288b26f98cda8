//! `cxr export`: a trained model for other programs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use candle_core::Device;
use cxr_exchange::{ONNX_START, OnnxInput, OnnxOptions, onnx_bytes, torch_files};
use cxr_model::load_model;

use crate::explain::model_file;
use crate::output::ForceArg;
use crate::progress::say;

/// Write a model for other programs: as an ONNX graph, or for PyTorch
///
/// The ONNX graph takes `images` (N×3×S×S, normalised as the model's card says) and gives `logits` (N×L), for any N. With
/// --include it does more of the work itself. A model whose head asks for age, sex or view has a second input, `non_image`
/// (N×2K, for each its value and whether it is missing). Labels, thresholds, calibration and the whole card are in its
/// metadata.
///
/// For PyTorch a folder is written: model.safetensors under torchvision's names, model.json (the card) and model.py, whose
/// `load()` gives the network.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group(clap::ArgGroup::new("format").required(true).multiple(true).args(["onnx", "torch"])))]
pub(crate) struct Args {
    /// A model: a run's folder, or a model.safetensors
    #[arg(value_name = "MODEL")]
    model: PathBuf,

    /// Write an ONNX graph
    #[arg(long, value_name = "FILE.onnx")]
    onnx: Option<PathBuf>,

    /// What the graph does besides computing logits of normalised images; several are separated by commas
    #[arg(
        long,
        value_enum,
        value_name = "WORK",
        value_delimiter = ',',
        requires = "onnx"
    )]
    include: Vec<Include>,

    /// Write weights and a Python module for PyTorch into this folder
    #[arg(long, value_name = "DIR")]
    torch: Option<PathBuf>,

    #[command(flatten)]
    force: ForceArg,
}

const EXAMPLES: &str = "Examples:
  cxr export models/runs/paper/fzlpr-0.2 --onnx model.onnx
  cxr export model.safetensors --onnx model.onnx --include resize,probabilities
  cxr export model.safetensors --torch exported";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Include {
    /// Take grey values in [0, 1], N×1×S×S, and normalise them
    Normalization,
    /// Take bytes, N×1×H×W of any size, and resize and normalise them (ONNX's operator set 18)
    Resize,
    /// Give `probabilities` (N×L, calibrated where the model is) besides the logits
    Probabilities,
}

/// How `model.json` begins.
const CARD_START: &[u8] = b"{\n  \"experiment\":";
/// What `model.py` has in its first lines.
const MODULE_SIGNATURE: &str = "Written by cxr.";

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let model = model_file(&args.model);
    let output = |path: &Path, is_ours: fn(&[u8]) -> bool| {
        let output = args.force.output(path).inputs([&model]);
        output.ours(is_ours).check()
    };
    let places = args.torch.as_deref().map(TorchPlaces::of);
    if let Some(onnx) = &args.onnx {
        output(onnx, |start| start.starts_with(ONNX_START))?;
    }
    if let Some(places) = &places {
        output(&places.weights, is_torch_weights)?;
        output(&places.card, |start| start.starts_with(CARD_START))?;
        output(&places.module, |start| {
            String::from_utf8_lossy(start).contains(MODULE_SIGNATURE)
        })?;
    }
    let (card, classifier) = load_model(&model, &Device::Cpu)?;
    let options = OnnxOptions {
        input: match &args.include {
            all if all.contains(&Include::Resize) => OnnxInput::Bytes,
            all if all.contains(&Include::Normalization) => OnnxInput::Grey,
            _ => OnnxInput::Normalised,
        },
        probabilities: args.include.contains(&Include::Probabilities),
    };
    // Both are made before the first is written.
    let graph = (args.onnx.as_ref())
        .map(|path| Ok::<_, anyhow::Error>((path, onnx_bytes(&card, &classifier, options)?)))
        .transpose()?;
    let files = (places.as_ref())
        .map(|places| Ok::<_, anyhow::Error>((places, torch_files(&card, &classifier)?)))
        .transpose()?;
    if let Some((path, bytes)) = graph {
        cxr_fs::write(path, &bytes)?;
        say(&format!("written to `{}`", path.display()));
    }
    if let Some((places, files)) = files {
        std::fs::create_dir_all(&places.folder)
            .with_context(|| format!("cannot make the folder `{}`", places.folder.display()))?;
        cxr_fs::write(&places.weights, &files.weights)?;
        cxr_fs::write(&places.card, files.card.as_bytes())?;
        cxr_fs::write(&places.module, files.module.as_bytes())?;
        say(&format!("written to `{}`", places.folder.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the files for PyTorch go.
struct TorchPlaces {
    folder: PathBuf,
    weights: PathBuf,
    card: PathBuf,
    module: PathBuf,
}

impl TorchPlaces {
    fn of(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            weights: folder.join("model.safetensors"),
            card: folder.join("model.json"),
            module: folder.join("model.py"),
        }
    }
}

/// Whether it is a file of weights for PyTorch that names nothing else about itself: a trained model of ours is not.
fn is_torch_weights(start: &[u8]) -> bool {
    const FORMAT: &[u8] = br#"{"__metadata__":{"format":"pt"}"#;
    start
        .get(8..)
        .is_some_and(|header| header.starts_with(FORMAT))
}
