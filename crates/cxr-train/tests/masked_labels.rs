//! What is not known of an image changes no bit of a network: through loss, head, backward pass and training.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use candle_core::{Device, Result, Tensor};
use cxr_augment::{Augmentation, Pipeline};
use cxr_dataset::{
    ImageName, Index, LabelSet, LabelState, OfficialLists, PrepareOptions, Record, Split,
    StoreSettings, ValidationSplit, prepare,
};
use cxr_losses::LOSSES;
use cxr_ops::Role;
use cxr_train::{
    Batch, Classifier, Experiment, GradientSink, Granularity, LastBatch, Loader, ModelCard,
    MultiLabelLoss, OwnParts, RunFolder, Trainer, TrainingData, VariantExperiment, loss,
};

use LabelState::{Blank, Negative, Positive, Uncertain, Unknown};

/// Nothing is known of the third one on any image.
const LABELS: [&str; 4] = ["A", "B", "never known", "D"];
const NEVER_KNOWN: usize = 2;

/// Nothing is decayed: a weight without a gradient stays what it is.
const EXPERIMENT: &str = r#"
name = "masked"
seed = 11
[model]
backbone = { densenet = { stem_channels = 8, growth_rate = 4, block_layers = [1, 2] } }
head = { HEAD }
[augmentation]
image_size = 64
crop_size = 56
[training]
batch_size = 6
optimiser = { kind = "sgd", momentum = 0.9 }
[[training.stages]]
name = "all"
epochs = 1
schedule = { constant = { learning_rate = 1e-2 } }
"#;

/// Each head, and where the weights of its outputs are: their first side is the labels.
const HEADS: [(&str, &[&str]); 2] = [
    ("linear = {}", &["top.dense.weight", "top.dense.bias"]),
    (
        "top-network = { conv_channels = [8, 8], hidden = 8 }",
        &["top.dense2.weight", "top.dense2.bias"],
    ),
];

/// An experiment with every loss.
fn experiment(head: &str) -> Experiment {
    let mut text = EXPERIMENT.replace("HEAD", head);
    for entry in LOSSES {
        let name = entry.name;
        text += &format!("[[variants]]\nname = \"{name}\"\nloss = \"{name}\"\n");
        if name == "balanced-asymmetric" {
            // With smoothing it is undefined for many logits.
            text += "smoothing = 0\n";
        }
    }
    Experiment::parse(&text).unwrap()
}

fn name(number: usize) -> ImageName {
    ImageName::new(&format!("{number:02}.png")).unwrap()
}

/// 24 images for training, 4 for validation, 2 for testing, whose labels are known here and there.
fn data(folder: &Path, never: [LabelState; 3]) -> TrainingData {
    let sources: Vec<_> = (0..30)
        .map(|number| {
            let path = folder.join(name(number));
            let mut encoder = png::Encoder::new(std::fs::File::create(&path).unwrap(), 64, 64);
            encoder.set_color(png::ColorType::Grayscale);
            let pixels: Vec<u8> = (0..64 * 64)
                .map(|at| (at * at * (number + 3) / 7 % 251) as u8)
                .collect();
            let mut writer = encoder.write_header().unwrap();
            writer.write_image_data(&pixels).unwrap();
            writer.finish().unwrap();
            (name(number), path)
        })
        .collect();
    let settings = StoreSettings::new(64).unwrap();
    let target = folder.join("images.store");
    let prepared = prepare(&sources, &target, settings, PrepareOptions::default()).unwrap();
    let store = prepared.commit().unwrap();
    let records = (0..30).map(|number| {
        let known = [Negative, Positive][number % 2];
        let second = [Unknown, Positive, Negative, Uncertain, Blank][number % 5];
        let never = never[number % 3];
        let fourth = [Positive, Blank, Negative][number % 3];
        Record::new(name(number), [known, second, never, fourth])
    });
    let labels = LabelSet::new(LABELS.map(str::to_owned).to_vec()).unwrap();
    let index = Index::new(labels, records.collect()).unwrap();
    let names = |numbers: std::ops::Range<usize>| numbers.map(name).collect();
    let lists = OfficialLists::new(names(0..28), names(28..30)).unwrap();
    let split = Split::new(&index, &lists, ValidationSplit::Paper, 1).unwrap();
    TrainingData::new(index, split, store).unwrap()
}

/// The first batch of the first epoch, which has labels that are not known.
fn first_batch(data: &TrainingData) -> Batch {
    let pipeline = Pipeline::new(Augmentation::new(0.5, 0.4, 64, 56).unwrap());
    let loader = Loader::new(data, &pipeline, 6, LastBatch::Keep, 11, &Device::Cpu).unwrap();
    let first = std::thread::scope(|scope| loader.epoch(scope, 0, 0).next());
    first.unwrap().unwrap()
}

/// The targets with `value` in the place of every one that is not known.
fn with_masked(targets: &Tensor, mask: Option<&Tensor>, value: f32) -> Result<Tensor> {
    let Some(mask) = mask else {
        return Ok(targets.clone());
    };
    let other = Tensor::full(value, targets.shape(), targets.device())?;
    mask.gt(0f32)?.where_cond(targets, &other)
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// The gradient of every parameter, by name.
fn gradients(
    classifier: &Classifier,
    loss: &dyn MultiLabelLoss,
    batch: &Batch,
    targets: &Tensor,
) -> BTreeMap<String, Tensor> {
    let sink = GradientSink::new();
    let compute = || {
        let logits = classifier.forward_t(&batch.images, batch.phase())?;
        loss.loss(&logits, targets, batch.mask.as_ref())
    };
    let value = sink.scope(compute).unwrap();
    let mut gradients = value.backward().unwrap();
    sink.add_to(&mut gradients).unwrap();
    let value: f32 = value.to_scalar().unwrap();
    assert!(value.is_finite(), "{}: {value}", loss.name());
    let of_network = classifier.parameters().select(Role::Trainable, "");
    let gradient = |(name, var): (String, candle_core::Var)| {
        let gradient = gradients.get(&var).unwrap();
        (name, gradient.clone())
    };
    of_network.into_iter().map(gradient).collect()
}

/// The row of a label in a tensor whose first side is the labels.
fn row(tensor: &Tensor, label: usize) -> Vec<f32> {
    let row = tensor.get(label).unwrap().flatten_all().unwrap();
    row.to_vec1().unwrap()
}

/// A masked NaN leaves a NaN gradient where the mask is multiplied after the arithmetic, and a masked 1 another gradient
/// where a count, a maximum or a pair is taken before it.
#[test]
fn what_is_not_known_has_a_gradient_of_exactly_zero_under_every_loss_and_head() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path(), [Unknown, Blank, Uncertain]);
    let batch = first_batch(&data);
    let mask = batch.mask.as_ref().unwrap();
    let known: Vec<f32> = mask.sum(0).unwrap().to_vec1().unwrap();
    assert_eq!((known[0], known[NEVER_KNOWN]), (6., 0.));
    assert!(0. < known[1] && known[1] < 6., "{known:?}");
    for (head, of_labels) in HEADS {
        let experiment = experiment(head);
        for variant in &experiment.variants {
            let what = format!("{} on {head}", variant.name);
            let loss = loss(variant).unwrap();
            let variant = experiment.variant(&variant.name).unwrap();
            let card = ModelCard::new(&variant, &LABELS).unwrap();
            let classifier = Classifier::new(&card, 5, &Device::Cpu).unwrap();
            let expected = gradients(&classifier, &*loss, &batch, &batch.targets);
            for name in of_labels {
                let gradient = &expected[*name];
                assert_eq!(gradient.dims()[0], LABELS.len(), "{what}");
                assert!(
                    row(gradient, NEVER_KNOWN).iter().all(|value| *value == 0.),
                    "{what}: {name}"
                );
                // The test sees the rows that it means.
                let is_moved = |label| row(gradient, label).iter().any(|value| *value != 0.);
                assert!(is_moved(0) || head.starts_with("top"), "{what}: {name}");
            }
            for masked in [0., 1., 0.5, -7., f32::NAN, f32::INFINITY] {
                let targets = with_masked(&batch.targets, Some(mask), masked).unwrap();
                let found = gradients(&classifier, &*loss, &batch, &targets);
                for (name, gradient) in &expected {
                    assert_eq!(
                        bits(gradient),
                        bits(&found[name]),
                        "{what}: {name} for a masked {masked}"
                    );
                }
            }
            // What the network says of such a label does not matter either.
            let shift = |name: &&str| {
                let all = classifier.parameters().select(Role::Trainable, name);
                let (_, var) = all.first().unwrap();
                let mut values: Vec<f32> = var.flatten_all().unwrap().to_vec1().unwrap();
                let width = values.len() / LABELS.len();
                for value in &mut values[NEVER_KNOWN * width..(NEVER_KNOWN + 1) * width] {
                    *value = 3. - *value;
                }
                let moved = Tensor::from_vec(values, var.shape(), &Device::Cpu).unwrap();
                var.set(&moved).unwrap();
            };
            of_labels.iter().for_each(shift);
            let found = gradients(&classifier, &*loss, &batch, &batch.targets);
            for (name, gradient) in &expected {
                assert_eq!(bits(gradient), bits(&found[name]), "{what}: {name}");
            }
        }
    }
}

/// A loss that puts another value in the place of each target that is not known, and leaves the rest to one of ours.
#[derive(Debug)]
struct Disturbed {
    loss: Box<dyn MultiLabelLoss>,
    value: f32,
}

impl MultiLabelLoss for Disturbed {
    fn forward(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let targets = with_masked(targets, mask, self.value)?;
        self.loss.forward(logits, &targets, mask)
    }

    fn loss(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let targets = with_masked(targets, mask, self.value)?;
        self.loss.loss(logits, &targets, mask)
    }

    fn name(&self) -> &str {
        "disturbed"
    }

    fn granularity(&self) -> Granularity {
        self.loss.granularity()
    }

    fn vars(&self) -> Vec<candle_core::Var> {
        self.loss.vars()
    }
}

/// The network before and after a training, by the names of its tensors.
type Networks = [BTreeMap<String, Tensor>; 2];

fn train(variant: &VariantExperiment, data: &TrainingData, parts: &OwnParts<'_>) -> Networks {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::open(folder.path().join("run")).unwrap();
    let mut trainer = Trainer::with_parts(variant, data, &run, &Device::Cpu, parts).unwrap();
    let tensors = |trainer: &Trainer<'_>| -> BTreeMap<String, Tensor> {
        let tensors = trainer.classifier().parameters().tensors("").into_iter();
        // Training writes into the same memory.
        let copy = |(name, tensor): (String, Tensor)| (name, tensor.copy().unwrap());
        tensors.map(copy).collect()
    };
    let before = tensors(&trainer);
    trainer.run(&mut (), &AtomicBool::new(false)).unwrap();
    [before, tensors(&trainer)]
}

#[test]
fn a_training_is_the_same_to_the_last_bit_whatever_stands_where_nothing_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path(), [Unknown, Blank, Uncertain]);
    let (head, of_labels) = HEADS[0];
    let experiment = experiment(head);
    for chosen in &experiment.variants {
        let variant = experiment.variant(&chosen.name).unwrap();
        let [before, after] = train(&variant, &data, &OwnParts::new());
        let what = &chosen.name;
        for name in of_labels {
            let of = |network: &BTreeMap<String, Tensor>, label| row(&network[*name], label);
            assert_eq!(of(&before, NEVER_KNOWN), of(&after, NEVER_KNOWN), "{what}");
            assert_ne!(of(&before, 0), of(&after, 0), "{what}");
        }
        let moved: BTreeSet<&String> = (before.iter())
            .filter(|(name, tensor)| bits(tensor) != bits(&after[*name]))
            .map(|(name, _)| name)
            .collect();
        assert!(
            moved.iter().any(|name| name.starts_with("features.")),
            "{what}"
        );
        for value in [0., 1., f32::NAN] {
            let loss = loss(chosen).unwrap();
            let parts = OwnParts::new().loss(Disturbed { loss, value });
            let [_, found] = train(&variant, &data, &parts);
            for (name, tensor) in &after {
                assert_eq!(
                    bits(tensor),
                    bits(&found[name]),
                    "{what}: {name} for {value}"
                );
            }
        }
    }
}

/// Where uncertain is a class of its own, a label that is not known has three outputs without a gradient, and one that is
/// uncertain on some images has three with one.
#[test]
fn three_outputs_of_a_label_that_is_never_known_stay_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path(), [Unknown, Blank, Blank]);
    let (head, of_labels) = HEADS[0];
    let classes =
        "\n[data.uncertain]\ndefault = \"multi-class\"\nlabels = { D = \"ignore\" }\n[model]\n";
    let text = EXPERIMENT
        .replace("HEAD", head)
        .replace("[model]\n", classes);
    let variants = "[[variants]]\nname = \"bce\"\nloss = \"bce\"\n";
    let experiment = Experiment::parse(&(text.clone() + variants)).unwrap();
    let variant = experiment.variant("bce").unwrap();
    let card = ModelCard::new(&variant, &LABELS).unwrap();
    assert_eq!(card.multi_class, ["A", "B", "never known"]);
    assert_eq!(card.n_outputs(), 10);
    let [before, after] = train(&variant, &data, &OwnParts::new());
    for name in of_labels {
        for output in 0..10 {
            let stays = before[*name].dims()[0] == 10
                && row(&before[*name], output) == row(&after[*name], output);
            assert_eq!(stays, (6..9).contains(&output), "{name}, output {output}");
        }
    }
    for value in [0., 2., f32::NAN] {
        // The loss of the experiment is the one that knows three classes: another has no such labels.
        let loss = Disturbed {
            loss: cxr_losses::by_name("bce", &BTreeMap::new()).unwrap(),
            value,
        };
        let run = RunFolder::open(folder.path().join(format!("run {value}"))).unwrap();
        let parts = OwnParts::new().loss(loss);
        let error = Trainer::with_parts(&variant, &data, &run, &Device::Cpu, &parts).err();
        let error = error.unwrap().to_string();
        assert!(error.contains("multi-class"), "{error}");
    }
    // Beside a loss that is no cross-entropy of single labels they are refused before anything is trained.
    let variants = "[[variants]]\nname = \"zlpr\"\nloss = \"zlpr\"\n";
    let experiment = Experiment::parse(&(text + variants)).unwrap();
    let error = cxr_train::check_experiment(&experiment).unwrap_err();
    assert!(
        error.to_string().contains("goes with `bce` alone"),
        "{error}"
    );
}
