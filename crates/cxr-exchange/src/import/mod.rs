//! A model file of weights that other programs trained.

mod architectures;
mod file;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candle_core::{Device, Tensor};
use cxr_model::{
    BACKBONE_PREFIX, Calibration, Classifier, LabelCalibration, ModelCard, Origin, RESEARCH_USE,
    ThresholdRule, ViewSet,
};
use serde_json::json;

pub use architectures::{Architecture, Training, architectures};

use crate::ExchangeError;
use crate::network::HEAD_PREFIX;
use names::Place;

/// Prefixes that wrappers put before all names of a network.
const PREFIXES: [&str; 8] = [
    "module.",
    "model.",
    "net.",
    "network.",
    "backbone.",
    "encoder.",
    "_orig_mod.",
    "student.",
];

/// What is to be imported, and what its file does not say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Import {
    /// The name of one of [`architectures`].
    pub architecture: String,
    /// The name of one of the architecture's trainings.
    pub training: Option<String>,
    /// What each output is, where the architecture does not know; an empty name leaves an output out.
    pub labels: Vec<String>,
    /// Another name of the model than its architecture.
    pub name: Option<String>,
    /// The side that images are resized to, if not the architecture's.
    pub image_size: Option<usize>,
    /// The side of the central window that the network sees, if not the architecture's.
    pub crop_size: Option<usize>,
    /// The mean that is subtracted from grey values in [0, 1], if not the architecture's.
    pub mean: Option<[f32; 3]>,
    /// The deviation that they are divided by, if not the architecture's.
    pub std: Option<[f32; 3]>,
    /// The licence of the weights.
    pub licence: Option<String>,
    /// What the model may be used for, if not for research alone.
    pub intended_use: Option<String>,
}

/// A model made of somebody's weights.
#[derive(Debug)]
pub struct Imported {
    /// What its file will say of it.
    pub card: ModelCard,
    /// The network.
    pub classifier: Classifier,
    /// Tensors of the file that predictions have no use for: counters of batch normalisations, auxiliary classifiers.
    pub unused: Vec<String>,
    /// What the file had beside its tensors, such as `epoch` and `optimizer`.
    pub others: Vec<String>,
    /// Outputs that were left out, as they have no name.
    pub unnamed: usize,
}

/// Makes a model of the weights in a file that PyTorch or safetensors wrote.
///
/// Nothing of the file is executed. Every tensor of the network must be there, and every tensor of the file must be of
/// the network, or be [unused](Imported::unused).
///
/// # Errors
/// An unknown architecture or training; labels that do not fit the outputs; a file that cannot be read, tensors that are missing,
/// left over, of another shape or not finite, each by name.
pub fn import_model(path: &Path, import: &Import) -> Result<Imported, ExchangeError> {
    let all = architectures();
    let known = |name: &str| all.iter().find(|architecture| architecture.name == name);
    let architecture = known(&import.architecture).ok_or_else(|| {
        let names = all.iter().map(|architecture| architecture.name);
        unknown("architecture", &import.architecture, names)
    })?;
    let training = (import.training.as_deref())
        .map(|name| {
            let names = || architecture.trainings.iter().map(|training| training.name);
            // The package calls them `densenet121-res224-all`, too.
            let short = name.rsplit('-').next().unwrap_or(name);
            let found = architecture
                .trainings
                .iter()
                .find(|training| training.name == short);
            found.ok_or_else(|| unknown("training", name, names()))
        })
        .transpose()?;
    let file = file::read(path)?;
    let tensors = without_prefixes(file.tensors);
    let mut sorted = Sorted::new(path, architecture.backbone, tensors)?;
    let outputs = sorted.outputs(path)?;
    let labels = labels(import, architecture, training, outputs)?;
    let kept: Vec<usize> = (0..outputs).filter(|&at| !labels[at].is_empty()).collect();
    let points = match (training, sorted.operating_points.take()) {
        (_, Some(points)) => points,
        (Some(training), None) => training.operating_points.to_vec(),
        (None, None) => Vec::new(),
    };
    if !points.is_empty() && points.len() != outputs {
        return Err(mismatch(
            path,
            format!(
                "it has {} operating points for {outputs} outputs",
                points.len()
            ),
        ));
    }
    let mut card = card(import, architecture, &labels)?;
    if !points.is_empty() {
        set_operating_points(&mut card, training, &kept, &points);
    }
    let classifier = Classifier::new(&card, 0, &Device::Cpu)?;
    sorted.keep_outputs(&kept)?;
    sorted.fit_channels(&classifier)?;
    let tensors = sorted.tensors;
    let wrong = |error: cxr_ops::OpsError| mismatch(path, chain(&error));
    cxr_ops::check_weights(&tensors).map_err(wrong)?;
    classifier.parameters().load("", &tensors).map_err(wrong)?;
    Ok(Imported {
        card,
        classifier,
        unused: sorted.unused,
        others: file.others,
        unnamed: outputs - kept.len(),
    })
}

fn unknown<'a>(
    what: &'static str,
    name: &str,
    names: impl Iterator<Item = &'a str>,
) -> ExchangeError {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    ExchangeError::Unknown {
        what,
        name: name.to_owned(),
        available: match names.is_empty() {
            true => "there is none of this architecture".to_owned(),
            false => format!("there are {}", names.join(", ")),
        },
    }
}

fn mismatch(path: &Path, problem: String) -> ExchangeError {
    ExchangeError::File {
        path: path.to_owned(),
        problem,
    }
}

/// An error with its sources.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// Names without what all of them begin with.
fn without_prefixes(mut tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    loop {
        // The operating points lie beside the network.
        let mut names = tensors.keys().filter(|name| *name != "op_threshs");
        let Some(first) = names.next() else {
            return tensors;
        };
        let prefix = PREFIXES.iter().find(|prefix| first.starts_with(**prefix));
        let Some(prefix) = prefix.filter(|prefix| names.all(|name| name.starts_with(**prefix)))
        else {
            return tensors;
        };
        tensors = tensors
            .into_iter()
            .map(|(name, tensor)| match name.strip_prefix(prefix) {
                Some(short) => (short.to_owned(), tensor),
                None => (name, tensor),
            })
            .collect();
    }
}

/// A file's tensors by their places in the model.
struct Sorted {
    /// Under the names of the model file.
    tensors: BTreeMap<String, Tensor>,
    unused: Vec<String>,
    operating_points: Option<Vec<f64>>,
}

const WEIGHT: &str = "dense.weight";
const BIAS: &str = "dense.bias";

impl Sorted {
    fn new(
        path: &Path,
        backbone: &str,
        tensors: BTreeMap<String, Tensor>,
    ) -> Result<Self, ExchangeError> {
        let mut sorted = Self {
            tensors: BTreeMap::new(),
            unused: Vec::new(),
            operating_points: None,
        };
        let mut taken = BTreeSet::new();
        for (name, tensor) in tensors {
            let ours = match names::place(backbone, &name) {
                Place::Backbone(ours) => format!("{BACKBONE_PREFIX}{ours}"),
                Place::Classifier(part) => format!("{HEAD_PREFIX}dense.{part}"),
                Place::Unused => {
                    sorted.unused.push(name);
                    continue;
                }
                Place::OperatingPoints => {
                    let points: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
                    sorted.operating_points = Some(points.into_iter().map(f64::from).collect());
                    continue;
                }
            };
            if !taken.insert(ours.clone()) {
                return Err(mismatch(
                    path,
                    format!("it has the tensor `{name}` under two names"),
                ));
            }
            sorted.tensors.insert(ours, tensor);
        }
        Ok(sorted)
    }

    /// The number of the classifier's outputs.
    fn outputs(&self, path: &Path) -> Result<usize, ExchangeError> {
        let weight = self.tensors.get(&format!("{HEAD_PREFIX}{WEIGHT}"));
        let outputs = weight.and_then(|weight| weight.dims().first().copied());
        outputs.filter(|&outputs| outputs > 0).ok_or_else(|| {
            mismatch(
                path,
                "it has no classifier: a dense layer on the means of the last maps, `classifier` or `fc`\nhint: weights \
                 of a feature extractor alone begin an experiment, as its `model.weights`"
                    .to_owned(),
            )
        })
    }

    /// Keeps these outputs of the classifier alone.
    fn keep_outputs(&mut self, kept: &[usize]) -> Result<(), ExchangeError> {
        let rows: Vec<u32> = kept.iter().map(|&row| row as u32).collect();
        let rows = Tensor::from_vec(rows, kept.len(), &Device::Cpu)?;
        for name in [WEIGHT, BIAS] {
            if let Some(tensor) = self.tensors.get_mut(&format!("{HEAD_PREFIX}{name}")) {
                // A 1×1 convolution is a dense layer.
                let is_conv = tensor.dims().len() == 4 && tensor.dims()[2..] == [1, 1];
                if is_conv {
                    *tensor = tensor.flatten_from(1)?;
                }
                *tensor = tensor.index_select(&rows, 0)?;
            }
        }
        Ok(())
    }

    /// A first convolution that reads one channel reads the first of three, which are equal in a radiograph: the other two
    /// count nothing, and sums are the same.
    fn fit_channels(&mut self, classifier: &Classifier) -> Result<(), ExchangeError> {
        for (name, parameter) in classifier.parameters().tensors(BACKBONE_PREFIX) {
            let Some(tensor) = self.tensors.get_mut(&name) else {
                continue;
            };
            if let (&[out, 1, h, w], &[_, 3, ..]) = (tensor.dims(), parameter.dims()) {
                let zeros = Tensor::zeros((out, 2, h, w), tensor.dtype(), &Device::Cpu)?;
                *tensor = Tensor::cat(&[&*tensor, &zeros], 1)?;
            }
        }
        Ok(())
    }
}

/// The name of every output; empty for one that is left out.
fn labels(
    import: &Import,
    architecture: &Architecture,
    training: Option<&Training>,
    outputs: usize,
) -> Result<Vec<String>, ExchangeError> {
    let own = |labels: &[&str]| labels.iter().map(|&label| label.to_owned()).collect();
    let labels: Vec<String> = match (import.labels.as_slice(), training) {
        ([_, ..], _) => import.labels.clone(),
        ([], Some(training)) => own(training.labels),
        ([], None) => own(architecture.labels),
    };
    let wrong = |expected: String, found: String| {
        let what = "labels";
        ExchangeError::Model(cxr_model::ModelError::Card {
            what,
            expected,
            found,
        })
    };
    if labels.is_empty() {
        let expected = match architecture.trainings.is_empty() {
            true => format!("{outputs} names, one for each output\nhint: `--labels Mass,Nodule,…`"),
            false => {
                let names: Vec<&str> = architecture.trainings.iter().map(|one| one.name).collect();
                format!(
                    "{outputs} names, one for each output, or those of a training\nhint: `--training {}`, or `--labels`",
                    names.join("|")
                )
            }
        };
        return Err(wrong(expected, "none".to_owned()));
    }
    if labels.len() != outputs {
        let expected = format!("{outputs}, one for each output of the file");
        return Err(wrong(
            expected,
            format!("{}: {}", labels.len(), labels.join(", ")),
        ));
    }
    let mut seen = BTreeSet::new();
    let twice = labels
        .iter()
        .find(|label| !label.is_empty() && !seen.insert(*label));
    if let Some(label) = twice {
        return Err(wrong(
            "different names".to_owned(),
            format!("`{label}` twice"),
        ));
    }
    Ok(labels)
}

fn card(
    import: &Import,
    architecture: &Architecture,
    labels: &[String],
) -> Result<ModelCard, ExchangeError> {
    let labels: Vec<&String> = labels.iter().filter(|label| !label.is_empty()).collect();
    let name = import.name.as_deref().unwrap_or(architecture.name);
    let image_size = import
        .image_size
        .or(import.crop_size)
        .unwrap_or(architecture.image_size);
    let card = json!({
        "experiment": name,
        "variant": import.training.as_deref().unwrap_or("imported"),
        "loss": "unknown",
        "loss_parameters": {},
        "labels": labels,
        "backbone": {architecture.backbone: {}},
        "head": {"linear": {}},
        "image_size": image_size,
        "crop_size": import.crop_size.unwrap_or(architecture.crop_size.min(image_size)),
        "normalization_mean": import.mean.unwrap_or(architecture.mean),
        "normalization_std": import.std.unwrap_or(architecture.std),
        "logit_thresholds": vec![0.; labels.len()],
    });
    let parsed = ModelCard::parse(&card.to_string());
    let mut card = parsed.map_err(|problem| ExchangeError::Settings { problem })?;
    card.licence.clone_from(&import.licence);
    let intended_use = import.intended_use.clone();
    card.intended_use = Some(intended_use.unwrap_or_else(|| RESEARCH_USE.to_owned()));
    Ok(card)
}

/// Thresholds and probabilities by the authors' operating points.
fn set_operating_points(
    card: &mut ModelCard,
    training: Option<&Training>,
    kept: &[usize],
    points: &[f64],
) {
    let of_label = |&output: &usize| {
        let point = points[output];
        (point > 0. && point < 1.).then_some(point)
    };
    let points: Vec<Option<f64>> = kept.iter().map(of_label).collect();
    let threshold = |point: &Option<f64>| point.map_or(0., |p| (p / (1. - p)).ln() as f32);
    card.logit_thresholds = points.iter().map(threshold).collect();
    card.threshold_origin.rule = ThresholdRule::Given;
    let labels = points.iter().map(|point| match *point {
        Some(probability) => LabelCalibration::OperatingPoint { probability },
        None => LabelCalibration::None {},
    });
    let name = training.map_or("its file", |training| training.name);
    card.calibration = Some(Calibration {
        labels: labels.collect(),
        origin: Origin {
            part: format!("the authors' operating points ({name})"),
            images: 0,
            views: ViewSet::Single,
            fingerprint: None,
        },
    });
}
