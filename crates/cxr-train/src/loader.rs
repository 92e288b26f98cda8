//! Images of the store to batches of tensors, ahead of the training step.

use std::borrow::Cow;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use candle_core::{Device, Tensor};
use cxr_augment::{Affine, GrayImageRef, KeyedRng, Normalization, Pipeline, View};
use cxr_dataset::{ImageName, LabelState};
use cxr_model::{InputEncoding, encode_inputs, image_buffer};
use cxr_ops::Phase;
use cxr_run::{LastBatch, Uncertainty, UncertaintyPolicy};
use rayon::prelude::*;

use crate::sampler::checked_order;
use crate::{Sampler, Shuffled, TrainError, TrainingData, compute};

/// Threads that make batches, unless told otherwise. One makes thousands of images a second; the
/// second is for the moment in which the first hands over.
const WORKERS: usize = 2;

/// Some images with their labels.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `N×3×H×W`, normalised.
    pub images: Tensor,
    /// What the head asks for beside the images, `N×2K` as [`cxr_model::encode_inputs`] makes it, where the images are; `None`
    /// where it asks for nothing.
    pub non_image: Option<Tensor>,
    /// `N×L`: 1 for a finding, 0 for none or unknown; for an uncertain label what its policy says, 2 where it is a
    /// class of its own. On the CPU, where
    /// losses check it.
    pub targets: Tensor,
    /// `N×L`, on the CPU: 1 where the label is known; `None` where all are.
    pub mask: Option<Tensor>,
    /// The images' names, in order.
    pub names: Vec<ImageName>,
    /// One key per image, from which a network draws what is random for it (dropout): of the seed, the epoch, the name, and
    /// how often the image has occurred in the epoch before, where a [`Sampler`] repeats images.
    pub image_keys: Vec<u64>,
}

impl Batch {
    /// The phase in which a network is trained with this batch.
    pub fn phase(&self) -> Phase<'_> {
        Phase::Train {
            image_keys: &self.image_keys,
        }
    }
}

/// The key of an image for what a network draws.
fn image_key(name: &ImageName, copy: u32, seed: u64, epoch: usize) -> u64 {
    KeyedRng::new("network", seed, epoch as u64, &draw_name(name, copy)).next_u64()
}

/// What the draws for an image are keyed by: its name, where it is its first occurrence in the epoch.
fn draw_name(name: &ImageName, copy: u32) -> Cow<'_, str> {
    match copy {
        0 => Cow::Borrowed(name.as_str()),
        // No name has a control character.
        _ => Cow::Owned(format!("{name}\n{copy}")),
    }
}

/// The training images in the order of an epoch: a function of the names, the seed and the epoch.
pub fn epoch_order(names: &[ImageName], seed: u64, epoch: usize) -> Vec<ImageName> {
    let mut order = names.to_vec();
    // The order before shuffling must not matter.
    order.sort_unstable();
    KeyedRng::new("shuffle", seed, epoch as u64, "").shuffle(&mut order);
    order
}

/// How the pixels of a batch are taken from the stored images.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pixels<'a> {
    /// Varied at random, as drawn for (seed, epoch, name).
    Augmented {
        pipeline: &'a Pipeline,
        seed: u64,
        epoch: usize,
        /// How often each image has occurred in the epoch before; empty where all are 0.
        copies: &'a [u32],
    },
    /// One test-time view of this size.
    View { view: View, size: usize },
}

impl Pixels<'_> {
    /// Width and height of what is written.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Augmented { pipeline, .. } => pipeline.augmentation().crop_size(),
            Self::View { size, .. } => *size,
        }
    }

    /// For each image the map that shows it, where that is all there is to do.
    pub(crate) fn maps(
        &self,
        side: usize,
        names: &[ImageName],
    ) -> Result<Option<Vec<[f64; 6]>>, TrainError> {
        if matches!(self, Self::Augmented { pipeline, .. } if pipeline.augmentation().image_size() != side)
        {
            // The way over the CPU says what is wrong.
            return Ok(None);
        }
        let map = |(at, name): (usize, &ImageName)| match *self {
            Self::Augmented {
                pipeline,
                seed,
                epoch,
                copies,
            } => {
                let name = draw_name(name, copies.get(at).copied().unwrap_or(0));
                Ok(pipeline.map(seed, epoch as u64, &name, (side, side)))
            }
            Self::View { view, size } => view.map(side, side, size).map(Some),
        };
        let maps = names
            .iter()
            .enumerate()
            .map(map)
            .collect::<Result<Option<Vec<_>>, _>>()?;
        let coefficients = |map: Affine| [map.xx, map.xy, map.x0, map.yx, map.yy, map.y0];
        Ok(maps.map(|maps| maps.into_iter().map(coefficients).collect()))
    }

    /// Reads, warps and normalises one image, the one at `at` of the batch.
    fn write(
        &self,
        data: &TrainingData,
        (at, name): (usize, &ImageName),
        normalization: &Normalization,
        output: &mut [f32],
    ) -> Result<(), TrainError> {
        let pixels = data.store().image(name)?;
        let image = GrayImageRef::square(&pixels, data.store().side())?;
        match *self {
            Self::Augmented {
                pipeline,
                seed,
                epoch,
                copies,
            } => {
                let name = draw_name(name, copies.get(at).copied().unwrap_or(0));
                pipeline.apply(seed, epoch as u64, &name, image, normalization, output)?;
            }
            Self::View { view, size } => view.apply(image, size, normalization, output)?,
        }
        Ok(())
    }
}

/// Reads, warps and normalises the images `names` into one tensor, on all threads.
pub(crate) fn images(
    data: &TrainingData,
    names: &[ImageName],
    pixels: Pixels<'_>,
    normalization: &Normalization,
    device: &Device,
) -> Result<Tensor, TrainError> {
    let size = pixels.size();
    if let Some(images) = compute::of(device).images(data, names, pixels, normalization)? {
        return Ok(images);
    }
    let mut values = image_buffer(names.len(), size)?;
    values
        .par_chunks_mut(3 * size * size)
        .zip(names.par_iter().enumerate())
        .try_for_each(|(output, image)| pixels.write(data, image, normalization, output))?;
    Ok(Tensor::from_vec(
        values,
        (names.len(), 3, size, size),
        device,
    )?)
}

/// What a head asks for beside the images `names`, where it asks for something.
pub(crate) fn non_image(
    data: &TrainingData,
    names: &[ImageName],
    encodings: &[InputEncoding],
    device: &Device,
) -> Result<Option<Tensor>, TrainError> {
    let attributes = names.iter().map(|name| data.attributes(name));
    Ok(encode_inputs(encodings, attributes, device)?)
}

/// What a loss makes of uncertain labels, and by what soft targets are drawn.
pub(crate) struct Uncertain<'a> {
    /// By label; none ignores them all.
    pub(crate) policies: &'a [UncertaintyPolicy],
    pub(crate) seed: u64,
    pub(crate) epoch: usize,
}

/// Targets and mask of the images `names`, on the CPU.
pub(crate) fn targets(
    data: &TrainingData,
    names: &[ImageName],
    uncertain: &Uncertain<'_>,
) -> Result<(Tensor, Option<Tensor>), TrainError> {
    let shape = (names.len(), data.labels().len());
    let (mut targets, mut known) = (Vec::new(), Vec::new());
    for name in names {
        for (at, state) in data.label_states(name).iter().enumerate() {
            let target = match state {
                LabelState::Uncertain => {
                    let policy = uncertain.policies.get(at).copied().unwrap_or_default();
                    let label = data.labels().get(at).map_or("", String::as_str);
                    policy.target(uncertain.seed, uncertain.epoch as u64, name.as_str(), label)
                }
                state => state.is_known().then(|| state.target()),
            };
            targets.push(target.unwrap_or(0.));
            known.push(f32::from(u8::from(target.is_some())));
        }
    }
    let all_known = known.iter().all(|&known| known == 1.);
    let mask = (!all_known)
        .then(|| Tensor::from_vec(known, shape, &Device::Cpu))
        .transpose()?;
    Ok((Tensor::from_vec(targets, shape, &Device::Cpu)?, mask))
}

/// Makes the batches of training epochs, ahead of whoever uses them.
///
/// A batch is a function of the data, the pipeline, the seed, the epoch and the step, and not of
/// the number of workers or how fast either side is.
///
/// ```no_run
/// use candle_core::Device;
/// use cxr_augment::{Augmentation, Pipeline};
/// use cxr_train::{LastBatch, Loader, TrainingData};
///
/// # fn train(data: &TrainingData) -> Result<(), Box<dyn std::error::Error>> {
/// let pipeline = Pipeline::new(Augmentation::default());
/// let loader = Loader::new(data, &pipeline, 64, LastBatch::Keep, 0, &Device::Cpu)?;
/// for epoch in 0..10 {
///     std::thread::scope(|scope| {
///         for batch in loader.epoch(scope, epoch, 0) {
///             let batch = batch?;
///             assert_eq!(batch.images.dims()[1..], [3, 224, 224]);
///         }
///         Ok::<_, cxr_train::TrainError>(())
///     })?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Loader<'a> {
    data: &'a TrainingData,
    pipeline: &'a Pipeline,
    batch_size: usize,
    last_batch: LastBatch,
    seed: u64,
    device: &'a Device,
    workers: usize,
    sampler: &'a dyn Sampler,
    /// By label; none ignores uncertain ones.
    policies: Vec<UncertaintyPolicy>,
    /// What the head asks for beside the images.
    inputs: Vec<InputEncoding>,
    share: Share,
}

/// Which batches of a step one of several ranks computes.
#[derive(Debug, Clone, Copy)]
struct Share {
    rank: usize,
    ranks: usize,
    /// Batches of a step.
    of_step: usize,
}

impl Share {
    const WHOLE: Self = Self {
        rank: 0,
        ranks: 1,
        of_step: 1,
    };

    /// Whether the rank computes this batch of an epoch.
    fn has(self, batch: usize) -> bool {
        batch % self.of_step % self.ranks == self.rank
    }
}

impl std::fmt::Debug for Loader<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Loader")
            .field("pipeline", self.pipeline)
            .field("batch_size", &self.batch_size)
            .field("seed", &self.seed)
            .field("workers", &self.workers)
            .field("sampler", &self.sampler.name())
            .finish_non_exhaustive()
    }
}

impl<'a> Loader<'a> {
    /// A loader of the training images.
    ///
    /// # Errors
    /// [`RunError::Setting`](cxr_run::RunError::Setting) for a batch of no image, or when no batch can be filled.
    pub fn new(
        data: &'a TrainingData,
        pipeline: &'a Pipeline,
        batch_size: usize,
        last_batch: LastBatch,
        seed: u64,
        device: &'a Device,
    ) -> Result<Self, TrainError> {
        Self {
            data,
            pipeline,
            batch_size,
            last_batch,
            seed,
            device,
            workers: WORKERS,
            sampler: &Shuffled,
            policies: Vec::new(),
            inputs: Vec::new(),
            share: Share::WHOLE,
        }
        .checked()
    }

    /// With another choice of images than every one once.
    ///
    /// # Errors
    /// As [`Self::new`], for the number of images that the sampler has in an epoch.
    pub fn with_sampler(self, sampler: &'a dyn Sampler) -> Result<Self, TrainError> {
        Self { sampler, ..self }.checked()
    }

    /// With targets for labels that the source calls uncertain; without this they have no part in the loss. Soft ones
    /// follow from seed, epoch, image and label alone.
    ///
    /// # Errors
    /// [`RunError::Setting`](cxr_run::RunError::Setting) for a label that the data set does not have.
    pub fn with_uncertainty(self, uncertainty: &Uncertainty) -> Result<Self, TrainError> {
        let policies = uncertainty.of_labels(self.data.labels())?;
        Ok(Self { policies, ..self })
    }

    /// With what the head asks for beside the images, encoded as its [`ModelCard`](cxr_model::ModelCard) says in `inputs`.
    #[must_use]
    pub fn with_inputs(self, encodings: &[InputEncoding]) -> Self {
        let inputs = encodings.to_vec();
        Self { inputs, ..self }
    }

    /// With those batches only that rank `rank` of `ranks` computes, where a step is made of `of_step` batches: the
    /// batches of a step are dealt to the ranks in turn.
    #[must_use]
    pub(crate) fn of_rank(self, rank: usize, ranks: usize, of_step: usize) -> Self {
        let share = Share {
            rank,
            ranks: ranks.max(1),
            of_step: of_step.max(1),
        };
        Self { share, ..self }
    }

    fn checked(self) -> Result<Self, TrainError> {
        if self.batch_size == 0 || self.steps() == 0 {
            let expected = format!("from 1 to the {} images of an epoch", self.n_images());
            return Err(TrainError::setting(
                "training.batch_size",
                expected,
                self.batch_size,
            ));
        }
        Ok(self)
    }

    /// Images of an epoch.
    fn n_images(&self) -> usize {
        let n_training = self.data.split().train().len();
        self.sampler.images_per_epoch(n_training)
    }

    /// With so many threads that make batches, at least one. Each holds one finished batch: so many
    /// are ready when the next one is wanted.
    #[must_use]
    pub fn with_workers(self, workers: usize) -> Self {
        Self {
            workers: workers.max(1),
            ..self
        }
    }

    /// Batches of an epoch.
    pub fn steps(&self) -> usize {
        if self.batch_size == 0 {
            return 0;
        }
        self.last_batch.batches(self.n_images(), self.batch_size)
    }

    /// Starts the workers on the batches of an epoch from step `first` on. They end with the epoch,
    /// or when the batches are dropped.
    pub fn epoch<'scope>(
        &self,
        scope: &'scope Scope<'scope, 'a>,
        epoch: usize,
        first: usize,
    ) -> Batches
    where
        'a: 'scope,
    {
        let steps = self.steps();
        let training = self.data.split().train();
        let order = match checked_order(self.sampler, training, self.seed, epoch) {
            Ok(order) => std::sync::Arc::new(order),
            Err(failure) => return Batches::of_none(failure),
        };
        let mut failure = None;
        let mut workers = Vec::with_capacity(self.workers);
        let wanted: std::sync::Arc<Vec<usize>> = std::sync::Arc::new(
            (first..steps)
                .filter(|&batch| self.share.has(batch))
                .collect(),
        );
        for worker in 0..self.workers {
            // Handed over from thread to thread: what waits is in the worker's hands.
            let (sender, receiver) = sync_channel(0);
            let (loader, order) = (self.clone(), std::sync::Arc::clone(&order));
            let of_all = std::sync::Arc::clone(&wanted);
            let work = move || {
                for &step in of_all.iter().skip(worker).step_by(loader.workers) {
                    let batch = loader.batch(&order, epoch, step);
                    let failed = batch.is_err();
                    // A receiver that hung up wants no more batches.
                    if sender.send(batch).is_err() || failed {
                        return;
                    }
                }
            };
            let builder = std::thread::Builder::new().name(format!("loader {worker}"));
            match builder.spawn_scoped(scope, work) {
                Ok(_) => workers.push(receiver),
                Err(source) => {
                    failure = Some(TrainError::Thread { source });
                    // Those that were started see that nobody receives.
                    workers.clear();
                    break;
                }
            }
        }
        Batches {
            failure,
            workers,
            next: 0,
            left: wanted.len(),
        }
    }

    fn batch(
        &self,
        order: &[(ImageName, u32)],
        epoch: usize,
        step: usize,
    ) -> Result<Batch, TrainError> {
        let begin = (step * self.batch_size).min(order.len());
        let end = (begin + self.batch_size).min(order.len());
        let drawn = order.get(begin..end).unwrap_or(&[]);
        let (names, copies): (Vec<ImageName>, Vec<u32>) = drawn.iter().cloned().unzip();
        let key = |(name, copy): &(ImageName, u32)| image_key(name, *copy, self.seed, epoch);
        let pixels = Pixels::Augmented {
            pipeline: self.pipeline,
            seed: self.seed,
            epoch,
            copies: &copies,
        };
        let uncertain = Uncertain {
            policies: &self.policies,
            seed: self.seed,
            epoch,
        };
        let (targets, mask) = targets(self.data, &names, &uncertain)?;
        Ok(Batch {
            images: self.images(&names, pixels)?,
            non_image: non_image(self.data, &names, &self.inputs, self.device)?,
            targets,
            mask,
            names,
            image_keys: drawn.iter().map(key).collect(),
        })
    }

    /// On this thread: others make other batches.
    fn images(&self, names: &[ImageName], pixels: Pixels<'_>) -> Result<Tensor, TrainError> {
        let normalization = Normalization::IMAGENET;
        let compute = compute::of(self.device);
        if let Some(images) = compute.images(self.data, names, pixels, &normalization)? {
            return Ok(images);
        }
        let size = pixels.size();
        let mut values = image_buffer(names.len(), size)?;
        let outputs = values.chunks_exact_mut(3 * size * size);
        for (image, output) in names.iter().enumerate().zip(outputs) {
            pixels.write(self.data, image, &normalization, output)?;
        }
        let shape = (names.len(), 3, size, size);
        Ok(Tensor::from_vec(values, shape, self.device)?)
    }
}

/// The batches of an epoch in their order; after an error there are no more.
#[derive(Debug)]
pub struct Batches {
    /// Each gives every so-manieth batch.
    workers: Vec<Receiver<Result<Batch, TrainError>>>,
    next: usize,
    left: usize,
    /// Why there are no workers.
    failure: Option<TrainError>,
}

impl Batches {
    /// Only why there are none.
    fn of_none(failure: TrainError) -> Self {
        Self {
            workers: Vec::new(),
            next: 0,
            left: 1,
            failure: Some(failure),
        }
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, TrainError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        if let Some(failure) = self.failure.take() {
            return Some(Err(failure));
        }
        let worker = self.workers.get(self.next)?;
        // A worker hangs up before its last batch only where a transform panicked.
        let batch = (worker.recv()).unwrap_or(Err(TrainError::LoaderPanicked));
        self.next = (self.next + 1) % self.workers.len();
        if batch.is_err() {
            self.workers.clear();
        }
        Some(batch)
    }
}
