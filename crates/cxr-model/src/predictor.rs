//! Images to logits with a model file alone.

use std::borrow::Borrow;
use std::path::Path;

use candle_core::{Device, Tensor};
use cxr_augment::{GrayImageRef, Normalization, View, ViewSet};
use cxr_dataset::{GrayImage, ImageAttributes, resize_bicubic};
use cxr_ops::Phase;
use rayon::prelude::*;

use crate::model_file::load_model_and_reference;
use crate::{
    Classifier, ModelCard, ModelError, OwnNetwork, Reference, check_finite, encode_inputs,
};

/// A trained model, for images of any size.
///
/// On a CPU its logits are those of the run that trained the model, bit for bit: an image is resized as the prepared
/// store has it, viewed and normalised as the run's own predictions were. Neither the other images of a call nor the
/// number of threads change a bit. On a GPU the images are made on the CPU too, and logits are near the run's.
///
/// [`prepare`](Self::prepare) works on the CPU alone, on as many threads as call it; [`logits`](Self::logits) is for one
/// thread at a time, and uses rayon's.
#[derive(Debug)]
pub struct Predictor {
    card: ModelCard,
    classifier: Classifier,
    normalization: Normalization,
    reference: Option<Reference>,
}

/// An image at the size that a model takes, with what is known of it beside its pixels.
#[derive(Clone, PartialEq, Eq)]
pub struct PreparedImage {
    pixels: Vec<u8>,
    side: usize,
    attributes: ImageAttributes,
}

impl PreparedImage {
    /// Grey values, row by row.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Width and height in pixels.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Age, sex and view, for a model that asks for them: nothing is known unless it [was said](Self::with_attributes).
    pub fn attributes(&self) -> ImageAttributes {
        self.attributes
    }

    /// The same image, of which this is known.
    #[must_use]
    pub fn with_attributes(self, attributes: ImageAttributes) -> Self {
        Self { attributes, ..self }
    }
}

impl std::fmt::Debug for PreparedImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PreparedImage({0}×{0})", self.side)
    }
}

impl Predictor {
    /// Reads a model file.
    ///
    /// # Errors
    /// As [`load_model`](crate::load_model).
    pub fn open(path: &Path, device: &Device) -> Result<Self, ModelError> {
        Self::open_with(path, &OwnNetwork::new(), device)
    }

    /// Reads a model file whose network has parts of one's own.
    ///
    /// # Errors
    /// As [`load_model_with`](crate::load_model_with).
    pub fn open_with(
        path: &Path,
        own: &OwnNetwork<'_>,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let (card, classifier, reference) = load_model_and_reference(path, own, device)?;
        Ok(Self {
            reference,
            ..Self::new(card, classifier)?
        })
    }

    /// A network that is already there, such as one with parts of one's own.
    ///
    /// # Errors
    /// A card that does not [check](ModelCard::check), or is not of this network.
    pub fn new(card: ModelCard, classifier: Classifier) -> Result<Self, ModelError> {
        card.check()?;
        card.check_inputs(&classifier)?;
        let normalization = card.normalization()?;
        Ok(Self {
            card,
            classifier,
            normalization,
            reference: None,
        })
    }

    /// What the model says of itself.
    pub fn card(&self) -> &ModelCard {
        &self.card
    }

    /// The images that the model knows, to find others that are unlike them; `None` where its file has none.
    pub fn reference(&self) -> Option<&Reference> {
        self.reference.as_ref()
    }

    /// The network.
    pub fn classifier(&self) -> &Classifier {
        &self.classifier
    }

    /// An image as the model takes it: resized to the card's `image_size`, with antialiased bicubic interpolation.
    ///
    /// # Errors
    /// An image that is too large to resize.
    pub fn prepare(&self, image: &GrayImage) -> Result<PreparedImage, ModelError> {
        let side = self.card.image_size;
        let resized = resize_bicubic(image, side, side)?;
        Ok(PreparedImage {
            pixels: resized.into_pixels(),
            side,
            attributes: ImageAttributes::default(),
        })
    }

    /// An image that already has the model's size, such as one of a prepared store, row by row.
    ///
    /// # Errors
    /// [`ModelError::PreparedSize`].
    pub fn prepared(&self, pixels: Vec<u8>) -> Result<PreparedImage, ModelError> {
        let side = self.card.image_size;
        if side.checked_mul(side) != Some(pixels.len()) {
            return Err(ModelError::PreparedSize {
                expected: side,
                found: pixels.len(),
            });
        }
        Ok(PreparedImage {
            pixels,
            side,
            attributes: ImageAttributes::default(),
        })
    }

    /// What the network sees of the images in a view, `N×3×S×S` with the card's `crop_size`, normalised, on the device of
    /// the network.
    ///
    /// # Errors
    /// An image that was prepared for a model of another size, or too many for the memory.
    pub fn batch(
        &self,
        images: &[impl Borrow<PreparedImage> + Sync],
        view: View,
    ) -> Result<Tensor, ModelError> {
        let size = self.card.crop_size;
        let shape = (images.len(), 3, size, size);
        let mut values = image_buffer(images.len(), size)?;
        values
            .par_chunks_mut(3 * size * size)
            .zip(images)
            .try_for_each(|(output, image)| {
                let image: &PreparedImage = image.borrow();
                if image.side != self.card.image_size {
                    return Err(ModelError::PreparedSize {
                        expected: self.card.image_size,
                        found: image.pixels.len(),
                    });
                }
                let image = GrayImageRef::square(&image.pixels, image.side)?;
                Ok(view.apply(image, size, &self.normalization, output)?)
            })?;
        let device = self.classifier.parameters().device();
        Ok(Tensor::from_vec(values, shape, device)?)
    }

    /// What the network is given of some images beside their pixels, `N×2K`, on its device; `None` where it asks for nothing.
    ///
    /// # Errors
    /// A device that is out of memory.
    pub fn non_image(
        &self,
        images: &[impl Borrow<PreparedImage>],
    ) -> Result<Option<Tensor>, ModelError> {
        let attributes = images.iter().map(|image| image.borrow().attributes);
        let device = self.classifier.parameters().device();
        Ok(encode_inputs(&self.card.inputs, attributes, device)?)
    }

    /// The logits of each image, one for each label, averaged over the views of a set. Without images there are none.
    ///
    /// # Errors
    /// As [`Self::batch`], an image that the network does not take, or [`ModelError::LogitNotFinite`].
    pub fn logits(
        &self,
        images: &[impl Borrow<PreparedImage> + Sync],
        views: ViewSet,
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        Ok(self.answer(images, views, false)?.0)
    }

    /// As [`Self::logits`], and how unlike each image is to those that the model knows: [`Reference::distance`] of its
    /// features, from the same pass. `None` where the model has no reference.
    ///
    /// # Errors
    /// As [`Self::logits`], or [`ModelError::FeatureNotFinite`].
    pub fn logits_and_distances(
        &self,
        images: &[impl Borrow<PreparedImage> + Sync],
        views: ViewSet,
    ) -> Result<(Rows, Option<Vec<f64>>), ModelError> {
        let Some(reference) = &self.reference else {
            return Ok((self.logits(images, views)?, None));
        };
        let (logits, features) = self.answer(images, views, true)?;
        let distances = features
            .par_iter()
            .map(|features| reference.distance(features));
        Ok((logits, Some(distances.collect())))
    }

    /// The means over height and width of each image's feature maps in the central view: what the network knows of an
    /// image, for distances between images.
    ///
    /// # Errors
    /// As [`Self::batch`], or [`ModelError::FeatureNotFinite`].
    pub fn features(
        &self,
        images: &[impl Borrow<PreparedImage> + Sync],
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        if images.is_empty() {
            return Ok(Vec::new());
        }
        let batch = self.batch(images, View::Center)?;
        means_of_maps(&self.classifier.features(&batch, Phase::Evaluate)?)
    }

    /// Mean logits, and features of the central view where they are wanted.
    fn answer(
        &self,
        images: &[impl Borrow<PreparedImage> + Sync],
        views: ViewSet,
        wants_features: bool,
    ) -> Result<(Rows, Rows), ModelError> {
        if images.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let image = |row: usize| format!("image {row} of the call");
        let (of_views, features) = self.view_logits(images, views, wants_features, &image)?;
        let of_views: Vec<&[f32]> = of_views.iter().map(Vec::as_slice).collect();
        let means = mean_over_views(&of_views);
        let rows = means.chunks(self.card.labels.len());
        Ok((rows.map(<[f32]>::to_vec).collect(), features))
    }

    /// The logits of at least one image in each view, and features of the central view where they are wanted; `image`
    /// says in an error which one is in a row.
    pub(crate) fn view_logits(
        &self,
        images: &[impl Borrow<PreparedImage> + Sync],
        views: ViewSet,
        wants_features: bool,
        image: &dyn Fn(usize) -> String,
    ) -> Result<(Vec<Vec<f32>>, Rows), ModelError> {
        let mut of_views = Vec::with_capacity(views.views().len());
        let mut features = Vec::new();
        let non_image = self.non_image(images)?;
        for &view in views.views() {
            let maps = (self.classifier).features(&self.batch(images, view)?, Phase::Evaluate)?;
            if wants_features && view == View::Center {
                features = means_of_maps(&maps)?;
            }
            let logits =
                (self.classifier).logits_with(&maps, non_image.as_ref(), Phase::Evaluate)?;
            let (_, n_labels) = logits.dims2()?;
            if n_labels != self.card.labels.len() {
                return Err(ModelError::Card {
                    what: "labels",
                    expected: format!("as many as the network's logits, {n_labels}"),
                    found: self.card.labels.len().to_string(),
                });
            }
            let logits = logits.flatten_all()?.to_vec1::<f32>()?;
            check_finite(&logits, &self.card.labels, image)?;
            of_views.push(logits);
        }
        Ok((of_views, features))
    }
}

/// Values for each image.
type Rows = Vec<Vec<f32>>;

/// The mean of each map of each image.
fn means_of_maps(maps: &Tensor) -> Result<Vec<Vec<f32>>, ModelError> {
    let means: Vec<Vec<f32>> = maps.mean((2, 3))?.to_vec2()?;
    for (row, means) in means.iter().enumerate() {
        if let Some(&value) = means.iter().find(|value| !value.is_finite()) {
            let image = format!("image {row} of the call");
            return Err(ModelError::FeatureNotFinite { image, value });
        }
    }
    Ok(means)
}

/// Room for `n_images` images of three channels and `size × size` pixels, all 0.
///
/// # Errors
/// [`ModelError::Memory`].
pub fn image_buffer(n_images: usize, size: usize) -> Result<Vec<f32>, ModelError> {
    let lengths = [3, size, size];
    let n_values = (lengths.iter()).try_fold(n_images, |product, &n| product.checked_mul(n));
    let mut values = Vec::new();
    match n_values.map(|n_values| (n_values, values.try_reserve_exact(n_values))) {
        Some((n_values, Ok(()))) => {
            values.resize(n_values, 0.);
            Ok(values)
        }
        _ => Err(ModelError::Memory {
            what: format!("a batch of {n_images} images of {size}×{size} pixels"),
            bytes: n_values.unwrap_or(usize::MAX).saturating_mul(4),
        }),
    }
}

/// The mean over views, each of which has as many logits as the others: their sum in the order of the views, divided by
/// their number. Empty without views.
pub fn mean_over_views(views: &[&[f32]]) -> Vec<f32> {
    let mut sum = vec![0f32; views.first().map_or(0, |first| first.len())];
    for view in views {
        for (sum, logit) in sum.iter_mut().zip(*view) {
            *sum += logit;
        }
    }
    let count = views.len() as f32;
    sum.into_iter().map(|sum| sum / count).collect()
}
