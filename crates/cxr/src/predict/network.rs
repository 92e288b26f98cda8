//! The models of a call, from prepared images to logits and probabilities.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use candle_core::Device;
use cxr_augment::ViewSet;
use cxr_dataset::{GrayImage, ImageAttributes, Tone};
use cxr_metrics::sigmoid;
use cxr_model::{InputEncoding, ModelCard, Predictor, PreparedImage};
use serde::{Deserialize, Serialize};

/// How the answers of several models become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Average {
    /// The mean of the logits; for models that are not calibrated
    Logits,
    /// The mean of the probabilities; the logit is that of the mean
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

/// Above what a label is positive.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) struct Threshold {
    /// The logit; `None` where only a probability was asked for.
    pub(super) logit: Option<f64>,
    /// The probability.
    pub(super) probability: f64,
}

/// One model or several.
pub(super) struct Network {
    members: Vec<Predictor>,
    views: ViewSet,
    average: Average,
}

/// What the models say of one image, a value for each label.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) logits: Vec<f64>,
    pub(super) probabilities: Vec<f64>,
    /// How unlike the image is to those that a model knows: above 1, unlike. Of several models the largest; `None` where none
    /// knows any.
    pub(super) distance: Option<f64>,
}

/// An image in each size that the models want.
pub(super) struct Sized(Vec<PreparedImage>);

impl Network {
    /// Opens the models; `average` is what was asked for.
    ///
    /// # Errors
    /// A file that is no model, models of different labels, or logits of calibrated models to be averaged.
    pub(super) fn open<'a>(
        models: impl IntoIterator<Item = &'a Path>,
        views: ViewSet,
        average: Option<Average>,
        device: &Device,
    ) -> anyhow::Result<Self> {
        let mut members: Vec<Predictor> = Vec::new();
        for path in models {
            let member = Predictor::open(path, device)?;
            if let Some(first) = members.first()
                && first.card().labels != member.card().labels
            {
                bail!(
                    "`{}` predicts {}, and the first model {}\nhint: the models of one call have the same labels in the same order",
                    path.display(),
                    member.card().labels.join(", "),
                    first.card().labels.join(", ")
                );
            }
            members.push(member);
        }
        ensure!(!members.is_empty(), "expected a model");
        let is_calibrated = |member: &Predictor| member.card().calibration.is_some();
        let has_calibrated = members.len() > 1 && members.iter().any(is_calibrated);
        let average = match (average, has_calibrated) {
            (Some(Average::Logits), true) => bail!(
                "the mean of the logits of calibrated models means nothing\nhint: `--average probabilities`"
            ),
            (Some(average), _) => average,
            (None, true) => Average::Probabilities,
            (None, false) => Average::Logits,
        };
        Ok(Self {
            members,
            views,
            average,
        })
    }

    fn cards(&self) -> impl Iterator<Item = &ModelCard> {
        self.members.iter().map(Predictor::card)
    }

    /// The labels, in the order of the values.
    pub(super) fn labels(&self) -> &[String] {
        self.members
            .first()
            .map_or(&[], |member| &member.card().labels)
    }

    /// What the models ask for beside the images, each input once.
    pub(super) fn inputs(&self) -> Vec<InputEncoding> {
        let mut inputs: Vec<InputEncoding> = Vec::new();
        for encoding in self.cards().flat_map(|card| &card.inputs) {
            let mut others = inputs.iter();
            if !others.any(|other| other.input() == encoding.input()) {
                inputs.push(*encoding);
            }
        }
        inputs
    }

    /// Whether a model knows images that others can be unlike to.
    pub(super) fn has_reference(&self) -> bool {
        let mut members = self.members.iter();
        members.any(|member| member.reference().is_some())
    }

    /// The features of each of some images, by the first model.
    ///
    /// # Errors
    /// An image that the network cannot take.
    pub(super) fn features(&self, images: &[&Sized]) -> anyhow::Result<Vec<Vec<f32>>> {
        let first = self.members.first().context("there is no model")?;
        let of_size: Option<Vec<&PreparedImage>> = (images.iter())
            .map(|image| image.of(first.card().image_size))
            .collect();
        Ok(first.features(&of_size.context("an image is missing")?)?)
    }

    /// What is averaged.
    pub(super) fn average(&self) -> Average {
        self.average
    }

    /// The tone in which the images were that the models were trained on; `None` where they differ.
    pub(super) fn tone(&self) -> Option<Tone> {
        let mut tones = self.cards().map(ModelCard::tone);
        let first = tones.next()?;
        tones.all(|tone| tone == first).then_some(first)
    }

    /// Above what each label is positive; of several models the mean of what is averaged.
    pub(super) fn thresholds(&self) -> Vec<Threshold> {
        let count = self.members.len() as f64;
        let mean = |of: &dyn Fn(&ModelCard) -> f64| self.cards().map(of).sum::<f64>() / count;
        let of_label = |label: usize| {
            let logit = |card: &ModelCard| {
                let threshold = card.logit_thresholds.get(label).copied();
                threshold.unwrap_or_default()
            };
            match self.average {
                Average::Logits => {
                    let threshold = mean(&|card| f64::from(logit(card)));
                    let probability = match self.members.as_slice() {
                        [one] => one.card().probability(label, logit(one.card())),
                        _ => sigmoid(threshold),
                    };
                    Threshold {
                        logit: Some(threshold),
                        probability,
                    }
                }
                Average::Probabilities => Threshold {
                    logit: None,
                    probability: mean(&|card| card.probability(label, logit(card))),
                },
            }
        };
        (0..self.labels().len()).map(of_label).collect()
    }

    /// The sizes that images are wanted in.
    pub(super) fn image_sizes(&self) -> Vec<usize> {
        let mut sizes: Vec<usize> = self.cards().map(|card| card.image_size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// An image of any size, resized as images are for training.
    ///
    /// # Errors
    /// An image that is too large to resize.
    pub(super) fn prepare(
        &self,
        image: &GrayImage,
        attributes: ImageAttributes,
    ) -> anyhow::Result<Sized> {
        let mut prepared: Vec<PreparedImage> = Vec::new();
        for member in &self.members {
            let size = member.card().image_size;
            if prepared.iter().all(|image| image.side() != size) {
                prepared.push(member.prepare(image)?.with_attributes(attributes));
            }
        }
        Ok(Sized(prepared))
    }

    /// An image of a store.
    ///
    /// # Errors
    /// Another size than the models want.
    pub(super) fn prepared(
        &self,
        pixels: Vec<u8>,
        attributes: ImageAttributes,
    ) -> anyhow::Result<Sized> {
        let first = self.members.first().context("there is no model")?;
        let prepared = first.prepared(pixels)?;
        Ok(Sized(vec![prepared.with_attributes(attributes)]))
    }

    /// What the models say of each of some images.
    ///
    /// # Errors
    /// An image that a network cannot take.
    pub(super) fn answers(&self, images: &[&Sized]) -> anyhow::Result<Vec<Answer>> {
        let n_labels = self.labels().len();
        let mut answers = vec![
            Answer {
                logits: vec![0.; n_labels],
                probabilities: vec![0.; n_labels],
                distance: None,
            };
            images.len()
        ];
        for member in &self.members {
            let card = member.card();
            let of_size: Option<Vec<&PreparedImage>> = (images.iter())
                .map(|image| image.of(card.image_size))
                .collect();
            let of_size = of_size.context("an image is missing")?;
            let (logits, distances) = member.logits_and_distances(&of_size, self.views)?;
            for (answer, distance) in answers.iter_mut().zip(distances.into_iter().flatten()) {
                answer.distance = Some(answer.distance.map_or(distance, |d| d.max(distance)));
            }
            for (answer, logits) in answers.iter_mut().zip(logits) {
                for (label, logit) in logits.into_iter().enumerate() {
                    answer.logits[label] += f64::from(logit);
                    answer.probabilities[label] += card.probability(label, logit);
                }
            }
        }
        let count = self.members.len() as f64;
        if self.members.len() > 1 {
            for answer in &mut answers {
                let values = answer.logits.iter_mut().zip(&mut answer.probabilities);
                for (logit_sum, probability_sum) in values {
                    match self.average {
                        Average::Logits => {
                            *logit_sum /= count;
                            *probability_sum = sigmoid(*logit_sum);
                        }
                        Average::Probabilities => {
                            *probability_sum /= count;
                            *logit_sum = logit(*probability_sum);
                        }
                    }
                }
            }
        }
        Ok(answers)
    }
}

impl Sized {
    /// What is known of the image beside its pixels.
    pub(super) fn attributes(&self) -> ImageAttributes {
        let first = self.0.first();
        first.map_or_else(ImageAttributes::default, PreparedImage::attributes)
    }

    fn of(&self, side: usize) -> Option<&PreparedImage> {
        self.0.iter().find(|image| image.side() == side)
    }
}

/// The inverse of [`sigmoid`]; of 0 and 1, which have none, that of the nearest probability.
fn logit(probability: f64) -> f64 {
    let p = probability.clamp(f64::MIN_POSITIVE, 1. - f64::EPSILON / 2.);
    (p / (1. - p)).ln()
}
