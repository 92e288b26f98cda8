//! Which training images an epoch has, and in which order.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, HashSet};

use cxr_augment::KeyedRng;
use cxr_dataset::ImageName;

use crate::{TrainError, epoch_order};

/// Chooses the images of an epoch: their order, and how often each occurs.
///
/// An order is a function of the arguments and nothing else, so that a run is the same after a resume. What is random is
/// best drawn from a [`KeyedRng`] of seed, epoch and image name, which makes it independent of the order of the list.
///
/// An image that occurs several times in an epoch is varied by other draws each time.
pub trait Sampler: Send + Sync {
    /// What a run knows it by: a run goes on only with a sampler of the same name.
    fn name(&self) -> &str;

    /// How many images an epoch has, when there are so many to train on: the same in every epoch.
    fn images_per_epoch(&self, n_training: usize) -> usize {
        n_training
    }

    /// The images of an epoch, in their order; `names` are those to train on. So many as
    /// [`Self::images_per_epoch`] says.
    ///
    /// # Errors
    /// Images that it cannot order.
    fn order(
        &self,
        names: &[ImageName],
        seed: u64,
        epoch: usize,
    ) -> Result<Vec<ImageName>, TrainError>;
}

/// Every image once, in an order that is shuffled: what an experiment trains with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shuffled;

impl Sampler for Shuffled {
    fn name(&self) -> &str {
        "shuffled"
    }

    fn order(
        &self,
        names: &[ImageName],
        seed: u64,
        epoch: usize,
    ) -> Result<Vec<ImageName>, TrainError> {
        Ok(epoch_order(names, seed, epoch))
    }
}

/// Draws images with replacement, each in proportion to its weight: such as images with a rare finding more often.
///
/// Each image arrives at random times, at the rate of its weight, by draws that are keyed by seed, epoch and its name; an
/// epoch is the first so many arrivals of all. That is the same as to draw one image after the other with these
/// probabilities, and depends on nothing else than the weights.
///
/// ```
/// use cxr_dataset::ImageName;
/// use cxr_train::{Sampler, WeightedSampler};
///
/// let names: Vec<ImageName> = (0..100).map(|n| format!("{n}.png").parse()).collect::<Result<_, _>>()?;
/// // The first ten make half of each epoch.
/// let weights = names.iter().enumerate().map(|(at, name)| (name.clone(), if at < 10 { 9. } else { 1. }));
/// let sampler = WeightedSampler::new("rare", weights)?;
/// let order = sampler.order(&names, 0, 0)?;
/// assert_eq!(order.len(), 100);
/// let n_rare = order.iter().filter(|name| names[..10].contains(name)).count();
/// assert!((30..70).contains(&n_rare));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct WeightedSampler {
    name: String,
    weights: HashMap<ImageName, f64>,
    images_per_epoch: Option<usize>,
}

impl WeightedSampler {
    /// A sampler with a weight for each training image. Only their proportions matter; an image of weight 0 is never drawn.
    ///
    /// # Errors
    /// A weight that is negative or not finite, or an image that is weighted twice.
    pub fn new(
        name: &str,
        weights: impl IntoIterator<Item = (ImageName, f64)>,
    ) -> Result<Self, TrainError> {
        let part = || format!("sampler `{name}`");
        let mut of_images = HashMap::new();
        for (image, weight) in weights {
            if !(weight.is_finite() && weight >= 0.) {
                let problem =
                    format!("the weight of `{image}` must be finite and at least 0, got {weight}");
                return Err(TrainError::Part {
                    part: part(),
                    problem,
                });
            }
            if of_images.insert(image.clone(), weight).is_some() {
                let problem = format!("`{image}` is weighted twice");
                return Err(TrainError::Part {
                    part: part(),
                    problem,
                });
            }
        }
        Ok(Self {
            name: name.to_owned(),
            weights: of_images,
            images_per_epoch: None,
        })
    }

    /// With so many images in an epoch; as many as there are to train on unless this is called.
    #[must_use]
    pub fn with_images_per_epoch(self, n_images: usize) -> Self {
        Self {
            images_per_epoch: Some(n_images),
            ..self
        }
    }

    fn fails(&self, problem: String) -> TrainError {
        TrainError::Part {
            part: format!("sampler `{}`", self.name),
            problem,
        }
    }
}

/// The next arrival of an image. The earliest is the greatest, for a heap.
struct Arrival<'a> {
    time: f64,
    name: &'a ImageName,
    weight: f64,
    rng: KeyedRng,
}

impl Arrival<'_> {
    /// Moves on by a waiting time that is exponentially distributed.
    fn wait(&mut self) {
        // 1 − u is in (0, 1], so the logarithm is finite.
        self.time -= (1. - self.rng.unit_f64()).ln() / self.weight;
    }
}

impl Ord for Arrival<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let earliest = other.time.total_cmp(&self.time);
        earliest.then_with(|| other.name.cmp(self.name))
    }
}

impl PartialOrd for Arrival<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Arrival<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Arrival<'_> {}

impl Sampler for WeightedSampler {
    fn name(&self) -> &str {
        &self.name
    }

    fn images_per_epoch(&self, n_training: usize) -> usize {
        self.images_per_epoch.unwrap_or(n_training)
    }

    fn order(
        &self,
        names: &[ImageName],
        seed: u64,
        epoch: usize,
    ) -> Result<Vec<ImageName>, TrainError> {
        // Times are of the order of 1, whatever the weights are.
        let largest = self.weights.values().copied().fold(0., f64::max);
        let mut next = BinaryHeap::with_capacity(names.len());
        for name in names {
            let weight = self.weights.get(name).map(|weight| weight / largest);
            let weight = weight.ok_or_else(|| self.fails(format!("`{name}` has no weight")))?;
            // 0 / 0 where all are 0.
            if weight > 0. {
                let rng = KeyedRng::new("sample", seed, epoch as u64, name.as_str());
                let time = 0.;
                let mut arrival = Arrival {
                    time,
                    name,
                    weight,
                    rng,
                };
                arrival.wait();
                next.push(arrival);
            }
        }
        let mut order = Vec::with_capacity(self.images_per_epoch(names.len()));
        while order.len() < self.images_per_epoch(names.len()) {
            let Some(mut first) = next.pop() else {
                return Err(self.fails("all weights are 0".to_owned()));
            };
            order.push(first.name.clone());
            first.wait();
            next.push(first);
        }
        Ok(order)
    }
}

/// The images of an epoch, each with the number of its occurrences in the epoch before.
pub(crate) type Order = Vec<(ImageName, u32)>;

/// The order of a sampler, checked: as many images as it says, all of them to train on.
pub(crate) fn checked_order(
    sampler: &dyn Sampler,
    names: &[ImageName],
    seed: u64,
    epoch: usize,
) -> Result<Order, TrainError> {
    let fails = |problem: String| TrainError::Part {
        part: format!("sampler `{}`", sampler.name()),
        problem,
    };
    let order = sampler.order(names, seed, epoch)?;
    let expected = sampler.images_per_epoch(names.len());
    if order.len() != expected {
        let found = order.len();
        let problem = format!("an epoch must have {expected} images, epoch {epoch} has {found}");
        return Err(fails(problem));
    }
    let known: HashSet<&ImageName> = names.iter().collect();
    if let Some(other) = order.iter().find(|name| !known.contains(name)) {
        return Err(fails(format!("`{other}` is no training image")));
    }
    let mut seen: HashMap<ImageName, u32> = HashMap::new();
    let with_count = |name: ImageName| {
        let count = seen.entry(name.clone()).or_default();
        let before = *count;
        *count += 1;
        (name, before)
    };
    Ok(order.into_iter().map(with_count).collect())
}
