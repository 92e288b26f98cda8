//! The models of a call, from prepared images to logits and probabilities.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use candle_core::{Device, Tensor};
use cxr_augment::{GrayImageRef, Normalization, ViewSet};
use cxr_dataset::GrayImage;
use cxr_train::{Classifier, ModelCard, Phase, load_model};
use rayon::prelude::*;

/// How the answers of several models become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Average {
    /// The mean of the logits.
    Logits,
    /// The mean of the probabilities; the logit is that of the mean.
    Probabilities,
}

impl Average {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Logits => "logits",
            Self::Probabilities => "probabilities",
        }
    }
}

/// One model or several.
pub(super) struct Network {
    members: Vec<Member>,
    views: ViewSet,
    average: Average,
}

struct Member {
    card: ModelCard,
    classifier: Classifier,
    normalization: Normalization,
}

/// What the models say of one image, a value for each label.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) logits: Vec<f64>,
    pub(super) probabilities: Vec<f64>,
}

/// An image in each size that the models want.
pub(super) struct Sized(Vec<(usize, Vec<u8>)>);

impl Network {
    /// Opens the models.
    ///
    /// # Errors
    /// A file that is no model, or models of different labels.
    pub(super) fn open<'a>(
        models: impl IntoIterator<Item = &'a Path>,
        views: ViewSet,
        average: Average,
        device: &Device,
    ) -> anyhow::Result<Self> {
        let mut members: Vec<Member> = Vec::new();
        for path in models {
            let (card, classifier) = load_model(path, device)?;
            let normalization =
                Normalization::new(card.normalization_mean, card.normalization_std)?;
            if let Some(first) = members.first()
                && first.card.labels != card.labels
            {
                bail!(
                    "`{}` predicts {}, and the first model {}\nhint: the models of one call have the same labels in the same order",
                    path.display(),
                    card.labels.join(", "),
                    first.card.labels.join(", ")
                );
            }
            members.push(Member {
                card,
                classifier,
                normalization,
            });
        }
        ensure!(!members.is_empty(), "expected a model");
        Ok(Self {
            members,
            views,
            average,
        })
    }

    /// The labels, in the order of the values.
    pub(super) fn labels(&self) -> &[String] {
        self.members
            .first()
            .map_or(&[], |member| &member.card.labels)
    }

    /// From which probability on a label is predicted, for each label; of several models the mean.
    pub(super) fn thresholds(&self) -> Vec<f64> {
        let n_labels = self.labels().len();
        let mut sums = vec![0.; n_labels];
        for member in &self.members {
            for (sum, &threshold) in sums.iter_mut().zip(&member.card.logit_thresholds) {
                *sum += sigmoid(f64::from(threshold));
            }
        }
        let count = self.members.len() as f64;
        sums.into_iter().map(|sum| sum / count).collect()
    }

    /// The sizes that images are wanted in.
    pub(super) fn image_sizes(&self) -> Vec<usize> {
        let mut sizes: Vec<usize> = self.members.iter().map(|m| m.card.image_size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// What the models say of each of some images.
    ///
    /// # Errors
    /// An image that a network cannot take.
    pub(super) fn answers(&self, images: &[&Sized]) -> anyhow::Result<Vec<Answer>> {
        let mut sums: Vec<Vec<f64>> = vec![vec![0.; self.labels().len()]; images.len()];
        for member in &self.members {
            for (sums, logits) in sums.iter_mut().zip(member.logits(images, self.views)?) {
                for (sum, logit) in sums.iter_mut().zip(logits) {
                    *sum += match self.average {
                        Average::Logits => f64::from(logit),
                        Average::Probabilities => sigmoid(f64::from(logit)),
                    };
                }
            }
        }
        let count = self.members.len() as f64;
        let answer = |sums: Vec<f64>| {
            let means: Vec<f64> = sums.into_iter().map(|sum| sum / count).collect();
            match self.average {
                Average::Logits => Answer {
                    probabilities: means.iter().map(|&logit| sigmoid(logit)).collect(),
                    logits: means,
                },
                Average::Probabilities => Answer {
                    logits: means.iter().copied().map(logit).collect(),
                    probabilities: means,
                },
            }
        };
        Ok(sums.into_iter().map(answer).collect())
    }
}

impl Member {
    /// Mean logits over the views, image by image: what prediction after training computes.
    fn logits(&self, images: &[&Sized], views: ViewSet) -> anyhow::Result<Vec<Vec<f32>>> {
        let (size, n_labels) = (self.card.crop_size, self.card.labels.len());
        let device = self.classifier.parameters().device();
        let mut sums = vec![vec![0f32; n_labels]; images.len()];
        for view in views.views() {
            let mut values = vec![0f32; images.len() * 3 * size * size];
            values
                .par_chunks_mut(3 * size * size)
                .zip(images)
                .try_for_each(|(output, image)| -> anyhow::Result<()> {
                    let pixels = image
                        .of(self.card.image_size)
                        .context("an image is missing")?;
                    let image = GrayImageRef::square(pixels, self.card.image_size)?;
                    Ok(view.apply(image, size, &self.normalization, output)?)
                })?;
            let batch = Tensor::from_vec(values, (images.len(), 3, size, size), device)?;
            let logits = self.classifier.forward_t(&batch, Phase::Evaluate)?;
            let logits = logits.to_vec2::<f32>()?;
            for (sums, logits) in sums.iter_mut().zip(logits) {
                for (sum, logit) in sums.iter_mut().zip(logits) {
                    *sum += logit;
                }
            }
        }
        let count = views.views().len() as f32;
        for value in sums.iter_mut().flatten() {
            *value /= count;
            ensure!(value.is_finite(), "the network gives the logit {value}");
        }
        Ok(sums)
    }
}

impl Sized {
    /// An image of any size, resized as images are for training.
    pub(super) fn new(image: &GrayImage, sizes: &[usize]) -> anyhow::Result<Self> {
        let sized = |&side: &usize| -> anyhow::Result<_> {
            let image = cxr_dataset::resize_bicubic(image, side, side)?;
            Ok((side, image.pixels().to_vec()))
        };
        Ok(Self(sizes.iter().map(sized).collect::<Result<_, _>>()?))
    }

    /// An image of a store.
    pub(super) fn prepared(pixels: Vec<u8>, side: usize) -> Self {
        Self(vec![(side, pixels)])
    }

    fn of(&self, side: usize) -> Option<&[u8]> {
        let found = self.0.iter().find(|(found, _)| *found == side);
        found.map(|(_, pixels)| pixels.as_slice())
    }
}

pub(super) fn sigmoid(logit: f64) -> f64 {
    1. / (1. + (-logit).exp())
}

/// The inverse of [`sigmoid`]; of 0 and 1, which have none, that of the nearest probability.
fn logit(probability: f64) -> f64 {
    let p = probability.clamp(f64::MIN_POSITIVE, 1. - f64::EPSILON / 2.);
    (p / (1. - p)).ln()
}
