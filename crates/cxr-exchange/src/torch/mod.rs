//! A classifier for PyTorch: its weights under torchvision's names, and a module that loads them.

mod python;

use std::collections::{BTreeMap, HashMap};

use cxr_backbone::Torchvision;
use cxr_model::{Classifier, ModelCard};
use cxr_ops::{NetworkDescription, Operation};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::ExchangeError;
use crate::network::{DescribedModel, HEAD_PREFIX};

/// The files of an exported classifier, to be written into one folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorchFiles {
    /// `model.safetensors`: every tensor of the network's state, the counters of its batch normalisations included.
    pub weights: Vec<u8>,
    /// `model.json`: the model's card.
    pub card: String,
    /// `model.py`: `load()` gives the network.
    pub module: String,
}

/// How `model.py` begins.
const TEMPLATE: &str = include_str!("template.py");

/// A classifier as PyTorch takes it. Where torchvision has the backbone and the head is a dense layer on the means of its
/// maps, the weights are those of torchvision's own classifier of so many classes.
///
/// # Errors
/// A backbone or a head that is not described as data.
pub fn torch_files(card: &ModelCard, classifier: &Classifier) -> Result<TorchFiles, ExchangeError> {
    let model = DescribedModel::new(card, classifier)?;
    let torchvision = model.torchvision();
    let classifier = torchvision.as_ref().and_then(|torch| torch.classifier);
    let classifier = classifier.filter(|_| model.has_linear_head());
    let is_plain = torchvision
        .as_ref()
        .is_some_and(|torch| torch.prefix.is_empty());
    // Of networks that end in `fc`, the head takes its place; others have it beside `features`.
    let head_prefix = match is_plain {
        true => "fc.",
        false => HEAD_PREFIX,
    };
    let mut tensors = State::default();
    for (prefix, description) in model.parts() {
        let rename = |name: &str| match (prefix == HEAD_PREFIX, classifier) {
            (true, Some(classifier)) => {
                let part = name.strip_prefix("dense.").unwrap_or(name);
                format!("{classifier}.{part}")
            }
            (true, None) => format!("{head_prefix}{name}"),
            (false, _) => {
                let prefix = torchvision.as_ref().map_or("", |torch| torch.prefix);
                format!("{prefix}{name}")
            }
        };
        tensors.add(&model, prefix, description, rename)?;
    }
    Ok(TorchFiles {
        weights: tensors.to_bytes()?,
        card: serde_json::to_string_pretty(card)? + "\n",
        module: module(&model, torchvision.as_ref(), classifier)?,
    })
}

/// Tensors by name: type, sides, bytes.
#[derive(Default)]
struct State(BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>);

impl State {
    fn add(
        &mut self,
        model: &DescribedModel<'_>,
        prefix: &str,
        description: &NetworkDescription,
        rename: impl Fn(&str) -> String,
    ) -> Result<(), ExchangeError> {
        for (name, shape) in description.parameter_shapes() {
            let values = model.values(&format!("{prefix}{name}"), shape.elem_count())?;
            let bytes = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            let tensor = (Dtype::F32, shape.dims().to_vec(), bytes);
            self.0.insert(rename(&name), tensor);
        }
        for layer in description.layers() {
            if let Operation::BatchNorm(_) = layer.operation {
                let counter = rename(&format!("{}.num_batches_tracked", layer.name));
                let zero = (Dtype::I64, Vec::new(), vec![0; 8]);
                self.0.insert(counter, zero);
            }
        }
        Ok(())
    }

    fn to_bytes(&self) -> Result<Vec<u8>, ExchangeError> {
        let views = (self.0.iter())
            .map(|(name, (dtype, sides, bytes))| {
                Ok((name, TensorView::new(*dtype, sides.clone(), bytes)?))
            })
            .collect::<Result<Vec<_>, ExchangeError>>()?;
        // One entry: the file's bytes would depend on the order of several.
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        Ok(safetensors::serialize(views, Some(metadata))?)
    }
}

/// `model.py`.
fn module(
    model: &DescribedModel<'_>,
    torchvision: Option<&Torchvision>,
    classifier: Option<&str>,
) -> Result<String, ExchangeError> {
    let (channels, height, width) = model.features;
    let labels = model.card.labels.len();
    let outputs = model.card.n_outputs();
    let is_multi_class = !model.card.multi_class.is_empty();
    let mut classes = String::new();
    let mut build = String::new();
    let mut line = |text: &str| {
        build.push_str("    ");
        build.push_str(text);
        build.push('\n');
    };
    if classifier.is_none() {
        classes += python::HELPERS;
        let docs = format!("From features N×{channels}×{height}×{width} to logits N×{outputs}.");
        classes += &python::class("Head", &docs, &model.head, "{}.flatten(1)")?;
    }
    match (torchvision, classifier) {
        (Some(torch), Some(_)) => {
            line(&format!(
                "network = torchvision.models.{}({}, num_classes={})",
                torch.constructor,
                torch.arguments,
                match is_multi_class {
                    true => outputs.to_string(),
                    false => "len(LABELS)".to_owned(),
                }
            ));
            norm_eps(model, "network")
                .iter()
                .for_each(|text| line(text));
        }
        (Some(torch), None) => {
            line(&format!(
                "network = torchvision.models.{}({})",
                torch.constructor, torch.arguments
            ));
            norm_eps(model, "network")
                .iter()
                .for_each(|text| line(text));
            if torch.prefix.is_empty() {
                line("# The head reads maps, not their means.");
                line("network.avgpool = nn.Identity()");
                line(&format!(
                    "network.fc = HeadOfFlattened({channels}, {height}, {width})"
                ));
                classes += HEAD_OF_FLATTENED;
            } else {
                // DenseNet's features lack their last ReLU.
                let is_densenet = torch.classifier == Some("classifier");
                let relu = if is_densenet { "F.relu({})" } else { "{}" };
                classes += &NETWORK.replace("@RELU@", &relu.replace("{}", "self.features(images)"));
                line("network = Network(network.features)");
            }
        }
        (None, _) => {
            if let Some(backbone) = model.backbone() {
                let docs = format!("{} without its classifier.", model.title());
                classes += &python::class("Backbone", &docs, backbone, "self.top({})")?;
            }
            line("network = Backbone()");
            line("network.top = Head()");
        }
    }
    if is_multi_class {
        line("network.register_forward_hook(_logits)");
        classes += DIFFERENCES;
    }
    let mut imports = String::new();
    if classifier.is_none() {
        imports += "from torch.nn import functional as F\n";
    }
    let needs = match torchvision {
        Some(_) => {
            imports = format!("import torchvision\n{imports}");
            "torch, torchvision and safetensors"
        }
        None => "torch and safetensors",
    };
    let filled = [
        ("@TITLE@", model.title()),
        ("@SIZE@", model.card.crop_size.to_string()),
        ("@IMAGE@", model.card.image_size.to_string()),
        ("@LABELS@", labels.to_string()),
        ("@NEEDS@", needs.to_owned()),
        ("@IMPORTS@", imports),
        ("@CLASSES@", classes),
        ("@BUILD@", build.trim_end().to_owned()),
    ];
    Ok(filled
        .iter()
        .fold(TEMPLATE.to_owned(), |text, (key, value)| {
            text.replace(key, value)
        }))
}

/// What makes logits of outputs where some labels have three.
const DIFFERENCES: &str = r#"

def _logits(network, images, outputs):
    """Logits of outputs: of a label with three, absent, present and uncertain, presence less absence."""
    columns, at = [], 0
    for label in LABELS:
        if label in CARD["multi_class"]:
            columns.append(outputs[:, at + 1] - outputs[:, at])
            at += 3
        else:
            columns.append(outputs[:, at])
            at += 1
    return torch.stack(columns, 1)
"#;

/// A network whose features are those of `features`.
const NETWORK: &str = r#"

class Network(nn.Module):
    """Features and head."""

    def __init__(self, features):
        super().__init__()
        self.features = features
        self.top = Head()

    def forward(self, images):
        return self.top(@RELU@)
"#;

/// A head in the place of torchvision's dense layer, which is given flattened maps.
const HEAD_OF_FLATTENED: &str = r#"

class HeadOfFlattened(Head):
    """The head, for flattened maps."""

    def __init__(self, *shape):
        super().__init__()
        self.shape = shape

    def forward(self, features):
        return super().forward(features.unflatten(1, self.shape))
"#;

/// Sets ε of all batch normalisations to that of the backbone's, which may be another than torchvision's.
fn norm_eps(model: &DescribedModel<'_>, network: &str) -> Vec<String> {
    let norms = model
        .backbone()
        .into_iter()
        .flat_map(NetworkDescription::layers);
    let eps = norms.into_iter().find_map(|layer| match layer.operation {
        Operation::BatchNorm(config) => Some(config.eps),
        _ => None,
    });
    let Some(eps) = eps else {
        return Vec::new();
    };
    vec![
        format!("for part in {network}.modules():"),
        "    if isinstance(part, nn.BatchNorm2d):".to_owned(),
        format!("        part.eps = {eps:e}"),
    ]
}
