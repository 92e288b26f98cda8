//! Parts that a program registers, named in an experiment file like ours.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

mod phantoms;

use std::fmt;
use std::sync::Once;
use std::sync::atomic::AtomicBool;

use candle_core::{D, Device, Result, Tensor};
use cxr_backbone::{Backbone, BackboneConfig, BackboneEntry, BackboneError};
use cxr_dataset::{Index, Split, ValidationSplit};
use cxr_losses::{Granularity, LossEntry, MultiLabelLoss, Parameter, known};
use cxr_ops::{
    ConvLayer, Init, Linear, NetworkBuilder, OptionEntry, ParameterPath, Phase, parse_options,
};
use cxr_top::{Head, HeadConfig, HeadEntry, HeadError};
use cxr_train::{
    Component, Experiment, ModelCard, RunFolder, Trainer, TrainingData, check_experiment,
    load_model,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One convolution with so many maps.
#[derive(Debug, Serialize, Deserialize)]
struct OneLayer {
    #[serde(default = "eight")]
    maps: usize,
}

fn eight() -> usize {
    8
}

impl fmt::Display for OneLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one layer")
    }
}

impl BackboneConfig for OneLayer {
    fn options(&self) -> Value {
        serde_json::to_value(self).unwrap()
    }

    fn build(&self, path: &ParameterPath) -> std::result::Result<Box<dyn Backbone>, BackboneError> {
        let mut net = NetworkBuilder::new(3);
        let layer = ConvLayer::new(self.maps, 3).stride(4).same();
        let maps = net.conv("conv", net.images(), layer);
        let maps = net.norm("norm", maps);
        let maps = net.relu(maps);
        Ok(Box::new(net.finish(maps)?.build(path)?))
    }

    fn feature_shape(&self, height: usize, width: usize) -> (usize, usize, usize) {
        (self.maps, height.div_ceil(4), width.div_ceil(4))
    }
}

/// A dense layer on the maximum of each map, with `more` logits than there are labels.
#[derive(Debug)]
struct Largest {
    more: usize,
}

struct LargestHead(Linear);

impl Head for LargestHead {
    fn forward_t(&self, maps: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        self.0
            .forward_t(&maps.max(D::Minus1)?.max(D::Minus1)?, phase)
    }
}

impl HeadConfig for Largest {
    fn options(&self) -> Value {
        Value::Null
    }

    fn build(
        &self,
        (channels, ..): (usize, usize, usize),
        labels: usize,
        path: &ParameterPath,
    ) -> std::result::Result<Box<dyn Head>, HeadError> {
        let dense = Linear::new(channels, labels + self.more, Init::GlorotUniform, path)?;
        Ok(Box::new(LargestHead(dense)))
    }
}

/// Squared error of the probabilities, times a factor.
#[derive(Debug)]
struct Brier(f64);

impl MultiLabelLoss for Brier {
    fn forward(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let (targets, _) = known(targets, mask)?;
        let probabilities = ((logits.neg()?.exp()? + 1.)?).recip()?;
        (probabilities - targets)?.sqr()? * self.0
    }

    fn name(&self) -> &str {
        "brier"
    }

    fn granularity(&self) -> Granularity {
        Granularity::Element
    }
}

const OPTIONS: &[OptionEntry] = &[OptionEntry::new("maps", "feature maps")];
const FACTOR: &[Parameter] = &[Parameter::new("factor", Some(1.), "above 0")];

fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let backbone = BackboneEntry::new("one-layer", "one convolution", OPTIONS, |options| {
            Ok(Box::new(parse_options::<OneLayer>(options, OPTIONS)?))
        });
        cxr_backbone::register(backbone).unwrap();
        let head = |name, parse| HeadEntry::new(name, "a dense layer on maxima", &[], parse);
        cxr_top::register(head("largest", |_| Ok(Box::new(Largest { more: 0 })))).unwrap();
        cxr_top::register(head("too-wide", |_| Ok(Box::new(Largest { more: 1 })))).unwrap();
        let loss = LossEntry::new("brier", "squared error", FACTOR, |given| {
            let factor = given.checked("factor", "above 0", |factor| factor > 0.)?;
            Ok(Box::new(Brier(factor)))
        });
        cxr_losses::register(loss).unwrap();
    });
}

const EXPERIMENT: &str = r#"
name = "registered"
[model]
backbone = { one-layer = {} }
head = "largest"
[augmentation]
image_size = 64
crop_size = 56
[training]
batch_size = 6
[[training.stages]]
name = "all"
epochs = 1
schedule = { constant = { learning_rate = 1e-3 } }
[[variants]]
name = "brier"
loss = "brier"
factor = 2.0
"#;

#[test]
fn registered_parts_are_named_checked_trained_and_read_like_ours() {
    let experiment = Experiment::parse(EXPERIMENT).unwrap();
    let before = check_experiment(&experiment).unwrap_err().to_string();
    assert!(
        before.contains("model.backbone") && before.contains("`one-layer`"),
        "{before}"
    );
    register();
    check_experiment(&experiment).unwrap();
    let error = |from: &str, to: &str| {
        let text = EXPERIMENT.replace(from, to);
        let wrong = Experiment::parse(&text).unwrap();
        check_experiment(&wrong).unwrap_err().to_string()
    };
    let width = error("one-layer = {}", "one-layer = { width = 3 }");
    assert!(
        width.contains("`model.backbone.one-layer` of the experiment must be among `maps`"),
        "{width}"
    );
    let factor = error("factor = 2.0", "factor = -2.0");
    assert!(
        factor.contains("parameter `factor` of loss `brier` must be above 0"),
        "{factor}"
    );
    let unknown = error("loss = \"brier\"", "loss = \"briar\"");
    assert!(unknown.contains("`brier` (factor)"), "{unknown}");

    let folder = tempfile::tempdir().unwrap();
    let data = phantoms::data(folder.path());
    let run = RunFolder::open(folder.path().join("run")).unwrap();
    let variant = experiment.variant("brier").unwrap();
    let mut trainer = Trainer::new(&variant, &data, &run, &Device::Cpu).unwrap();
    trainer.run(&mut (), &AtomicBool::new(false)).unwrap();
    // With all their options, in the run's own file and in the model's.
    let text = std::fs::read_to_string(run.path().join("experiment.toml")).unwrap();
    assert!(
        text.contains("[model.backbone.one-layer]\nmaps = 8"),
        "{text}"
    );
    let (card, _) = load_model(&run.model_file(), &Device::Cpu).unwrap();
    assert_eq!(card, ModelCard::read(&run.model_file()).unwrap());
    assert_eq!(card.head, Component::named("largest"));
    assert_eq!(
        (card.loss.as_str(), card.loss_parameters["factor"]),
        ("brier", 2.)
    );
    // One that does not fit is named before it is trained, as parts that are handed over are.
    let wide = EXPERIMENT.replace("\"largest\"", "\"too-wide\"");
    let wide = Experiment::parse(&wide).unwrap().variant("brier").unwrap();
    let other = RunFolder::open(folder.path().join("wide")).unwrap();
    let error = Trainer::new(&wide, &data, &other, &Device::Cpu)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.starts_with("head `too-wide`: logits must have shape"),
        "{error}"
    );
}

/// A split by hand was once written down as the rule of the experiment, which it is not.
#[test]
fn a_run_on_lists_of_ones_own_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let whole = phantoms::data(folder.path());
    let index = Index::read(folder.path().join("Data_Entry_2017_v2020.csv")).unwrap();
    let [train, validation, test] = [
        whole.split().train(),
        whole.split().test(),
        whole.split().validation(),
    ];
    let split = Split::from_lists(&index, train.to_vec(), validation.to_vec(), test.to_vec());
    let store = cxr_dataset::Store::open(whole.store().path()).unwrap();
    let data = TrainingData::new(index, split.unwrap(), store).unwrap();
    let text = EXPERIMENT.replace(
        "{ one-layer = {} }",
        "{ densenet = { stem_channels = 8, growth_rate = 4, block_layers = [1, 2] } }",
    );
    let text = text
        .replace("\"largest\"", "{ linear = {} }")
        .replace("loss = \"brier\"\nfactor = 2.0", "loss = \"bce\"");
    let variant = Experiment::parse(&text).unwrap().variant("brier").unwrap();
    let run = RunFolder::open(folder.path().join("run")).unwrap();
    let trainer = Trainer::new(&variant, &data, &run, &Device::Cpu).unwrap();
    assert_eq!(trainer.card().data.as_ref().unwrap().split, "lists");
    let written = Experiment::read(&run.path().join("experiment.toml")).unwrap();
    assert_eq!(written.data.validation, ValidationSplit::Lists);
    drop(trainer);
    // The same run goes on.
    Trainer::new(&variant, &data, &run, &Device::Cpu).unwrap();
}
