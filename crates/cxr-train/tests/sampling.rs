//! Which images an epoch has, where it is not every one once.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

mod phantoms;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize};

use candle_core::{Device, Tensor};
use cxr_augment::{Augmentation, Pipeline};
use cxr_dataset::ImageName;
use cxr_train::{
    Batch, Experiment, LastBatch, Loader, OwnParts, RunFolder, Sampler, Shuffled, TrainError,
    TrainOutcome, Trainer, TrainingData, WeightedSampler, epoch_order,
};
use phantoms::{StopAfter, data};

fn names(n: usize) -> Vec<ImageName> {
    (0..n)
        .map(|at| format!("{at}.png").parse().unwrap())
        .collect()
}

fn weighted(weights: &[f64]) -> WeightedSampler {
    let names = names(weights.len()).into_iter();
    WeightedSampler::new("weighted", names.zip(weights.iter().copied())).unwrap()
}

/// Draws with replacement are multinomial: over many epochs each image's share has the binomial's standard error, and so
/// has that of each pair of neighbours, which are independent.
#[test]
fn shares_are_those_of_the_weights_and_draws_are_independent() {
    let weights = [1., 2., 0., 4., 0.5];
    let (sampler, names) = (weighted(&weights), names(5));
    let total: f64 = weights.iter().sum();
    let (n_epochs, mut n_draws) = (4000, 0usize);
    let (mut counts, mut pairs) = ([0usize; 5], BTreeMap::<(usize, usize), usize>::new());
    for epoch in 0..n_epochs {
        let order = sampler.order(&names, 7, epoch).unwrap();
        let places: Vec<usize> = (order.iter())
            .map(|name| names.iter().position(|other| other == name).unwrap())
            .collect();
        n_draws += places.len();
        places.iter().for_each(|&place| counts[place] += 1);
        for pair in places.windows(2) {
            *pairs.entry((pair[0], pair[1])).or_default() += 1;
        }
    }
    let within_five_errors = |count: usize, n: usize, share: f64| {
        let error = (share * (1. - share) / n as f64).sqrt();
        (count as f64 / n as f64 - share).abs() <= 5. * error
    };
    for (at, &count) in counts.iter().enumerate() {
        assert!(
            within_five_errors(count, n_draws, weights[at] / total),
            "{at}: {count}"
        );
    }
    let n_pairs = n_epochs * 4;
    for first in 0..5 {
        for second in 0..5 {
            let count = pairs.get(&(first, second)).copied().unwrap_or(0);
            let share = weights[first] * weights[second] / (total * total);
            assert!(
                within_five_errors(count, n_pairs, share),
                "{first}, {second}: {count}"
            );
        }
    }
}

#[test]
fn an_order_depends_on_seed_epoch_names_and_weights_alone() {
    let weights: Vec<f64> = (0..40).map(|at| f64::from(at % 7)).collect();
    let (sampler, names) = (weighted(&weights), names(40));
    let order = sampler.order(&names, 1, 2).unwrap();
    let mut turned = names.clone();
    turned.reverse();
    assert_eq!(sampler.order(&turned, 1, 2).unwrap(), order);
    let tripled: Vec<f64> = weights.iter().map(|weight| 4. * weight).collect();
    assert_eq!(weighted(&tripled).order(&names, 1, 2).unwrap(), order);
    assert_ne!(sampler.order(&names, 2, 2).unwrap(), order);
    assert_ne!(sampler.order(&names, 1, 3).unwrap(), order);
    // Without one image the others keep their draws.
    let fewer = sampler.clone().with_images_per_epoch(30);
    assert_eq!(fewer.order(&names, 1, 2).unwrap(), order[..30]);
    let gone = order[0].clone();
    let rest: Vec<ImageName> = names
        .iter()
        .filter(|name| **name != gone)
        .cloned()
        .collect();
    let without = sampler
        .clone()
        .with_images_per_epoch(30)
        .order(&rest, 1, 2)
        .unwrap();
    let expected: Vec<ImageName> = order
        .iter()
        .filter(|name| **name != gone)
        .cloned()
        .collect();
    let n_common = without.len().min(expected.len());
    assert_eq!(without[..n_common], expected[..n_common]);
    assert_eq!(
        Shuffled.order(&names, 1, 2).unwrap(),
        epoch_order(&names, 1, 2)
    );
}

#[test]
fn weights_that_make_no_sense_are_refused() {
    let pair = |weight: f64| [(names(1)[0].clone(), weight)];
    for weight in [-1., f64::NAN, f64::INFINITY] {
        assert!(
            WeightedSampler::new("bad", pair(weight)).is_err(),
            "{weight}"
        );
    }
    let twice = [pair(1.), pair(2.)].concat();
    assert!(WeightedSampler::new("bad", twice).is_err());
    let error = weighted(&[0., 0.])
        .order(&names(2), 0, 0)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "sampler `weighted`: all weights are 0");
    let error = weighted(&[1.])
        .order(&names(2), 0, 0)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "sampler `weighted`: `1.png` has no weight");
}

fn batches(data: &TrainingData, sampler: &dyn Sampler, workers: usize) -> Vec<Batch> {
    let pipeline = Pipeline::new(Augmentation::new(0.5, 0.1, 64, 56).unwrap());
    let loader = Loader::new(data, &pipeline, 5, LastBatch::Keep, 3, &Device::Cpu).unwrap();
    let loader = loader.with_sampler(sampler).unwrap().with_workers(workers);
    std::thread::scope(|scope| loader.epoch(scope, 0, 0).map(Result::unwrap).collect())
}

/// One image again and again.
struct Only(ImageName);

impl Sampler for Only {
    fn name(&self) -> &str {
        "only"
    }

    fn images_per_epoch(&self, _: usize) -> usize {
        7
    }

    fn order(&self, _: &[ImageName], _: u64, _: usize) -> Result<Vec<ImageName>, TrainError> {
        Ok(vec![self.0.clone(); 7])
    }
}

/// Copies of an image that are all varied in the same way would be worth no more than one.
#[test]
fn an_image_that_is_repeated_is_varied_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let name = data.split().train()[0].clone();
    let repeated = batches(&data, &Only(name.clone()), 2);
    let keys = || repeated.iter().flat_map(|batch| batch.image_keys.iter());
    let distinct: BTreeSet<u64> = keys().copied().collect();
    assert_eq!((keys().count(), distinct.len()), (7, 7));
    let pixels = |batch: &Batch, at: usize| -> Vec<f32> {
        let image = batch.images.get(at).and_then(|image| image.flatten_all());
        image.unwrap().to_vec1().unwrap()
    };
    assert_ne!(pixels(&repeated[0], 0), pixels(&repeated[0], 1));
    // The first is as it is in a training without copies.
    let once = batches(&data, &Shuffled, 2);
    let place = |batch: &&Batch| batch.names.contains(&name);
    let batch = once.iter().find(place).unwrap();
    let at = batch.names.iter().position(|other| *other == name).unwrap();
    assert_eq!(pixels(batch, at), pixels(&repeated[0], 0));
    assert_eq!(batch.image_keys[at], repeated[0].image_keys[0]);
    // However many threads make them.
    let alone = batches(&data, &Only(name), 1);
    let all = |batches: &[Batch]| -> Vec<Tensor> {
        batches.iter().map(|batch| batch.images.clone()).collect()
    };
    for (first, second) in all(&repeated).iter().zip(&all(&alone)) {
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(first), values(second));
    }
}

/// Gives another image than those to train on, or fewer than it says.
struct Wrong(Vec<ImageName>);

impl Sampler for Wrong {
    fn name(&self) -> &str {
        "wrong"
    }

    fn order(&self, _: &[ImageName], _: u64, _: usize) -> Result<Vec<ImageName>, TrainError> {
        Ok(self.0.clone())
    }
}

/// A sampler that hands out validation images would train on them without a word.
#[test]
fn an_order_of_other_images_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let pipeline = Pipeline::new(Augmentation::new(0.5, 0.1, 64, 56).unwrap());
    let error = |order: Vec<ImageName>| {
        let sampler = Wrong(order);
        let loader = Loader::new(&data, &pipeline, 5, LastBatch::Keep, 3, &Device::Cpu).unwrap();
        let loader = loader.with_sampler(&sampler).unwrap();
        let batches = std::thread::scope(|scope| loader.epoch(scope, 0, 0).collect::<Vec<_>>());
        assert_eq!(batches.len(), 1);
        batches.into_iter().next().unwrap().unwrap_err().to_string()
    };
    let mut leak = data.split().train().to_vec();
    leak[3] = data.split().validation()[0].clone();
    let message = error(leak);
    assert!(
        message.starts_with("sampler `wrong`: ") && message.ends_with("is no training image"),
        "{message}"
    );
    let message = error(data.split().train()[1..].to_vec());
    assert_eq!(
        message,
        "sampler `wrong`: an epoch must have 22 images, epoch 0 has 21"
    );
}

#[test]
fn a_run_with_a_sampler_is_the_same_after_a_resume_and_known_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let experiment = Experiment::parse(
        r#"
name = "sampled"
[model]
backbone = { densenet = { stem_channels = 8, growth_rate = 4, block_layers = [1, 2] } }
head = { linear = { dropout = 0.3 } }
[augmentation]
image_size = 64
crop_size = 56
[training]
batch_size = 4
[[training.stages]]
name = "all"
epochs = 2
schedule = { constant = { learning_rate = 1e-3 } }
[[variants]]
name = "bce"
loss = "bce"
"#,
    );
    let variant = experiment.unwrap().variant("bce").unwrap();
    let weights = (data.split().train().iter().enumerate())
        .map(|(at, name)| (name.clone(), if at < 4 { 10. } else { 1. }));
    let sampler = WeightedSampler::new("rare", weights)
        .unwrap()
        .with_images_per_epoch(12);
    let parts = OwnParts::new().sampler(sampler);
    assert_eq!(parts.names(), ["sampler `rare`"]);
    let train = |name: &str, steps: usize| loop {
        let run = RunFolder::open(folder.path().join(name)).unwrap();
        let mut trainer = Trainer::with_parts(&variant, &data, &run, &Device::Cpu, &parts).unwrap();
        let stop = AtomicBool::new(false);
        let mut stopper = StopAfter {
            left: AtomicUsize::new(steps),
            stop: &stop,
        };
        match trainer.run(&mut stopper, &stop).unwrap() {
            TrainOutcome::Stopped(_) => {}
            TrainOutcome::Finished { history, .. } => {
                // Twelve images in batches of four.
                assert_eq!(history[0].steps, 3);
                return std::fs::read(run.model_file()).unwrap();
            }
        }
    };
    assert!(
        train("whole", usize::MAX) == train("resumed", 2),
        "the models differ"
    );
    let run = RunFolder::open(folder.path().join("whole")).unwrap();
    let other = Trainer::new(&variant, &data, &run, &Device::Cpu).err();
    assert!(matches!(other.unwrap(), TrainError::AnotherRun { .. }));
}
