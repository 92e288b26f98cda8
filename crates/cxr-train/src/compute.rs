//! What training does differently on different devices.

use candle_core::{Device, Result, Tensor};
use cxr_augment::Normalization;
use cxr_dataset::ImageName;
use cxr_run::RunFolder;
use rayon::prelude::*;

use crate::gradients::{GradientNorm, sum_of_squares};
use crate::loader::Pixels;
use crate::{TrainError, TrainingData, algorithms, average};

/// A kind of device, as training sees it: where work that is not the network's is done, and when the host waits.
pub(crate) trait Compute: Send + Sync {
    /// So many steps are made before their losses and norms are read.
    fn sync_every(&self) -> usize;

    /// The norm of all values of some tensors; nothing is waited for, where all are on the device.
    fn norm(&self, tensors: &[Tensor]) -> Result<GradientNorm>;

    /// `average ← average + share·(weights − average)`, for each pair of an average and weights.
    fn lerp(&self, pairs: &[(&Tensor, Tensor)], share: f32) -> Result<()>;

    /// The images `names` as one tensor, resampled and normalised on the device; `None` where that is the host's work.
    fn images(
        &self,
        data: &TrainingData,
        names: &[ImageName],
        pixels: Pixels<'_>,
        normalization: &Normalization,
    ) -> std::result::Result<Option<Tensor>, TrainError>;

    /// Whether the state of the optimiser stays on the device, where all parameters are updated at once.
    fn has_optimiser(&self) -> bool;

    /// Takes from a run folder what timing chose on the device when the run was there before.
    fn recall(&self, run: &RunFolder) -> std::result::Result<(), TrainError>;

    /// Keeps in a run folder what timing has chosen on the device.
    fn record(&self, run: &RunFolder) -> std::result::Result<(), TrainError>;

    /// Gives back what the device holds for the steps of a training.
    fn release(&self);
}

/// The kind of a device.
pub(crate) fn of(device: &Device) -> Box<dyn Compute> {
    match device.is_cuda() {
        true => Box::new(Cuda {
            device: device.clone(),
        }),
        false => Box::new(Host),
    }
}

/// The kind of the device that works on these tensors; a loss's own variables may be on the host beside them.
pub(crate) fn of_tensors<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Box<dyn Compute> {
    let mut devices = tensors.into_iter().map(Tensor::device);
    let device = devices.find(|device| device.is_cuda());
    of(device.unwrap_or(&Device::Cpu))
}

/// The processor: all is done at once.
struct Host;

impl Compute for Host {
    fn sync_every(&self) -> usize {
        1
    }

    fn norm(&self, tensors: &[Tensor]) -> Result<GradientNorm> {
        // All at once: hundreds of small tensors one by one would each wait for other threads.
        let squares = tensors.par_iter().map(sum_of_squares);
        let squares = squares.collect::<Result<Vec<f64>>>()?;
        // The second moment is single precision.
        let is_finite = |square: &f64| (*square as f32).is_finite();
        Ok(GradientNorm::Known {
            norm: squares.iter().sum::<f64>().sqrt(),
            first_not_finite: squares.iter().position(|square| !is_finite(square)),
        })
    }

    fn lerp(&self, pairs: &[(&Tensor, Tensor)], share: f32) -> Result<()> {
        let lerp = average::Lerp { share };
        (pairs.par_iter()).try_for_each(|(average, now)| average.inplace_op2(now, &lerp))
    }

    fn images(
        &self,
        _data: &TrainingData,
        _names: &[ImageName],
        _pixels: Pixels<'_>,
        _normalization: &Normalization,
    ) -> std::result::Result<Option<Tensor>, TrainError> {
        Ok(None)
    }

    fn has_optimiser(&self) -> bool {
        false
    }

    fn recall(&self, _run: &RunFolder) -> std::result::Result<(), TrainError> {
        Ok(())
    }

    fn record(&self, _run: &RunFolder) -> std::result::Result<(), TrainError> {
        Ok(())
    }

    fn release(&self) {}
}

/// A CUDA device, which works beside the host.
struct Cuda {
    device: Device,
}

impl Compute for Cuda {
    /// So many that the GPU, which idles while the host reads, seldom does; so few that progress shows.
    fn sync_every(&self) -> usize {
        16
    }

    fn norm(&self, tensors: &[Tensor]) -> Result<GradientNorm> {
        let (there, here): (Vec<usize>, Vec<usize>) =
            (0..tensors.len()).partition(|&at| tensors[at].device().is_cuda());
        let these = |places: &[usize]| places.iter().map(|&at| tensors[at].clone()).collect();
        let these: (Vec<Tensor>, Vec<Tensor>) = (these(&there), these(&here));
        let on_device = cxr_ops::CudaSize::of(&these.0)?;
        if here.is_empty() {
            return Ok(GradientNorm::OnDevice(on_device.into()));
        }
        let (norm, first) = on_device.read()?;
        let (of_rest, first_of_rest) = Host.norm(&these.1)?.read()?;
        let firsts = first.map(|at| there[at]).into_iter();
        Ok(GradientNorm::Known {
            norm: norm.hypot(of_rest),
            first_not_finite: firsts.chain(first_of_rest.map(|at| here[at])).min(),
        })
    }

    fn lerp(&self, pairs: &[(&Tensor, Tensor)], share: f32) -> Result<()> {
        let pairs: Vec<_> = pairs.iter().map(|(average, now)| (*average, now)).collect();
        cxr_ops::cuda_lerp(&pairs, f64::from(share))
    }

    fn images(
        &self,
        data: &TrainingData,
        names: &[ImageName],
        pixels: Pixels<'_>,
        normalization: &Normalization,
    ) -> std::result::Result<Option<Tensor>, TrainError> {
        let (store, side) = (data.store(), data.store().side());
        let Some(maps) = pixels.maps(side, names)? else {
            return Ok(None);
        };
        let size = pixels.size();
        let pixels = names.iter().map(|name| store.image(name));
        let pixels = pixels.collect::<std::result::Result<Vec<_>, _>>()?;
        let images = names.iter().zip(&pixels).zip(maps);
        let images: Vec<_> = images
            .map(|((name, pixels), map)| cxr_ops::StoredImage {
                // It was found, so it has a number.
                number: store.number(name).unwrap_or_default(),
                pixels,
                map,
            })
            .collect();
        let lines = normalization.factors_and_summands();
        let batch = data.on_device(&self.device)?.warp(&images, lines, size)?;
        Ok(Some(batch))
    }

    fn has_optimiser(&self) -> bool {
        true
    }

    fn recall(&self, run: &RunFolder) -> std::result::Result<(), TrainError> {
        if let Some(chosen) = cxr_ops::autotuned() {
            cxr_ops::set_autotune(algorithms::recall(run, chosen)?);
        }
        Ok(())
    }

    fn record(&self, run: &RunFolder) -> std::result::Result<(), TrainError> {
        match cxr_ops::autotuned() {
            Some(chosen) => algorithms::record(run, &chosen),
            None => Ok(()),
        }
    }

    fn release(&self) {
        cxr_ops::release_step_memory();
    }
}
