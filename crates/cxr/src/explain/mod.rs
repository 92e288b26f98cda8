//! `cxr explain`: where a model looks, as Grad-CAM over the radiograph.

mod dicom;
mod files;
mod picture;
mod run;
mod targets;

pub(crate) use files::wanted_labels;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use cxr_explain::{CamMethod, OverlayStyle};

use crate::data_folder::DataArgs;
use crate::device::DeviceArgs;
use crate::output::ForceArg;
use crate::train::set_threads;

/// Show where a model looks: heat maps over radiographs
///
/// With images it writes, for each, the heat map of every predicted label over the radiograph at its own resolution (where
/// none is predicted, of the likeliest; or of the labels that --label names), and a table of what was written. Nothing but
/// the model file is needed.
///
/// With --data and a run folder it makes what the run's report shows: sample images, a panel of nine
/// Grad-CAM heat maps chosen by a rule, and scores of the heat maps against the boxes of BBox_List_2017.csv, those of
/// several --method side by side.
/// They go to RUN/explanations; `cxr report` takes them from there. What is there already, made
/// from the same model, predictions, images and boxes, is left as it is.
///
/// A heat map is of the last feature map, after its final normalisation and ReLU: what the top
/// network reads; or with --layer of another layer's.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A model: a run's folder, or a model.safetensors
    #[arg(value_name = "MODEL")]
    model: PathBuf,

    /// Radiographs to explain: PNG, JPEG or DICOM files, or folders of them, which are searched to the bottom
    #[arg(value_name = "IMAGE", conflicts_with = "data")]
    images: Vec<PathBuf>,

    /// Explain these labels, not the predicted ones
    #[arg(long, value_name = "LABEL", value_delimiter = ',', requires = "images")]
    label: Vec<String>,

    /// Make the heat map of this layer's maps, not of the last ones: earlier layers have finer maps that say less of
    /// labels. An unknown name lists those that the network has
    #[arg(long, value_name = "NAME", requires = "images")]
    layer: Option<String>,

    /// Where heat maps of images go: those of a folder's images into the same folders below DIR, those of single files
    /// into DIR, or into the folders of their paths where two have one name. What no file name can have is written as
    /// `%2F`; explanations.csv says which map is whose
    #[arg(long, value_name = "DIR", default_value = "explanations")]
    output: PathBuf,

    /// How heat maps are made of the last feature maps; several are separated by commas
    #[arg(
        long,
        value_enum,
        value_name = "METHOD",
        value_delimiter = ',',
        default_value = "grad-cam"
    )]
    method: Vec<Method>,

    /// What is written of a heat map; several are separated by commas
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        value_delimiter = ',',
        default_value = "png",
        requires = "images"
    )]
    format: Vec<Format>,

    /// Write one picture more for each image: what the network sees, and all heat maps over it, labels from left to right,
    /// methods from top to bottom
    #[arg(long, requires = "images")]
    grid: bool,

    /// Stretch the grey levels of the images, for a model that was trained on a store made with
    /// `cxr prepare --stretch`
    #[arg(long, requires = "images")]
    stretch: bool,

    #[command(flatten)]
    force: ForceArg,

    #[command(flatten)]
    data: Option<DataArgs>,

    /// The list of boxes [default: BBox_List_2017.csv of the data or metadata folder, if there]
    #[arg(long, value_name = "FILE.csv", requires = "data")]
    boxes: Option<PathBuf>,

    /// A cell of a heat map counts as hot from this share of the largest value on
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, value_parser = share)]
    hot_share: f32,

    /// How heat maps are coloured: inferno reads alike for colour-blind readers and in print, jet is
    /// the blue to red of most Grad-CAM papers
    #[arg(long, value_enum, default_value_t = Style::Inferno)]
    style: Style,

    #[command(flatten)]
    device: DeviceArgs,

    /// Threads to compute with; results do not depend on it [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

const EXAMPLES: &str = "Examples:
  cxr explain models/runs/paper/fzlpr-0.2 --data DIR
  cxr explain model.safetensors chest.png --label Cardiomegaly,Effusion --output maps
  cxr explain model.safetensors study/ --method grad-cam,hires-cam --grid --format png,dicom-sc";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Method {
    /// Each feature map counts by the mean of its gradient
    GradCam,
    /// By its positive gradients, weighted so that several places may speak for a label
    #[value(name = "grad-cam++")]
    GradCamPlusPlus,
    /// Each place of a feature map counts by its own positive gradient
    LayerCam,
    /// By its own gradient: with the head `linear`, exactly what the logit is made of
    #[value(name = "hires-cam")]
    HiResCam,
    /// By the weights of the head's last layer, without gradients: with the heads `linear` and `transition` (Wang et al. 2017)
    ClassActivation,
}

impl From<Method> for CamMethod {
    fn from(method: Method) -> Self {
        match method {
            Method::GradCam => Self::GradCam,
            Method::GradCamPlusPlus => Self::GradCamPlusPlus,
            Method::LayerCam => Self::LayerCam,
            Method::HiResCam => Self::HiResCam,
            Method::ClassActivation => Self::ClassActivation,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// The heat map over the radiograph, in colour
    Png,
    /// The heat map's values, `f32`, as large as the radiograph; 0 where the network did not look
    Npy,
    /// The coloured picture as a DICOM Secondary Capture, of the radiograph's patient and study
    DicomSc,
}

impl Format {
    /// The ending of its files.
    fn ending(self) -> &'static str {
        match self {
            Self::Png => ".png",
            Self::Npy => ".npy",
            Self::DicomSc => ".dcm",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Style {
    Inferno,
    Jet,
}

impl From<Style> for OverlayStyle {
    fn from(style: Style) -> Self {
        match style {
            Style::Inferno => Self::Inferno,
            Style::Jet => Self::Jet,
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    set_threads(args.threads)?;
    match (&args.data, args.images.as_slice()) {
        (Some(data), _) => run::explain(args, data),
        (None, []) => bail!(
            "expected images to explain, or `--data` with the run's data set\nhint: `cxr explain {} IMAGE.png`, or see `cxr explain --help`",
            args.model.display()
        ),
        (None, images) => files::explain(args, images),
    }
}

/// The model's file.
pub(crate) fn model_file(model: &Path) -> PathBuf {
    if model.is_dir() {
        model.join("model.safetensors")
    } else {
        model.to_owned()
    }
}

/// The methods that were asked for, each once.
fn methods(args: &Args) -> Vec<CamMethod> {
    let mut methods: Vec<CamMethod> = Vec::new();
    for &method in &args.method {
        let method = method.into();
        if !methods.contains(&method) {
            methods.push(method);
        }
    }
    methods
}

fn share(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("expected a share above 0 and at most 1".to_owned()),
    }
}
