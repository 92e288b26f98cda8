//! How unlike an image is to those that a model knows.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::ModelError;

/// What the names of a reference's tensors in a model file begin with.
pub const REFERENCE_PREFIX: &str = "reference.";
const FEATURES: &str = "reference.features";
const MEAN: &str = "reference.mean";
const DEVIATION: &str = "reference.deviation";

/// The fewest images that say where usual images lie.
pub const FEWEST_REFERENCE_IMAGES: usize = 20;

/// What a model file says of the images in its [`Reference`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceCard {
    /// The distance that [`Reference::distance`] counts as 1.
    pub threshold: f64,
    /// The share of the reference images that are nearer than that to the others.
    pub share: f64,
    /// Where the images are from, in words.
    pub origin: String,
}

/// The features of images such as a model was trained on. An image whose features are far from all of theirs is something
/// else: a photograph, another part of the body, a film upside down, or one of a machine that the model has never seen. What a
/// model says of such an image means nothing, however sure it looks.
///
/// Features are the means of the backbone's last maps ([`Predictor::features`](crate::Predictor::features)), each
/// standardised by its mean and standard deviation over the reference images; the distance is Euclidean, to the nearest of them
/// (k-nearest neighbours after Sun et al. 2022, with k = 1).
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    card: ReferenceCard,
    /// `M×C`, standardised, row by row.
    features: Vec<f32>,
    mean: Vec<f32>,
    deviation: Vec<f32>,
}

impl Reference {
    /// Of the features of usual images, each with the same number of values. The threshold is the distance that the given
    /// share of them have to their nearest neighbour at most. `None` with fewer than [`FEWEST_REFERENCE_IMAGES`], a share that
    /// is not in (0, 1], or images that are all alike.
    pub fn fit(images: &[Vec<f32>], share: f64, origin: String) -> Option<Self> {
        let width = images.first()?.len();
        let is_share = share > 0. && share <= 1.;
        if images.len() < FEWEST_REFERENCE_IMAGES
            || !is_share
            || width == 0
            || images.iter().any(|image| image.len() != width)
        {
            return None;
        }
        let count = images.len() as f64;
        let of_column = |value: &dyn Fn(f64) -> f64, at: usize| {
            let values = images.iter().filter_map(|image| image.get(at));
            values
                .map(|&feature| value(f64::from(feature)))
                .sum::<f64>()
                / count
        };
        let mut mean = Vec::with_capacity(width);
        let mut deviation = Vec::with_capacity(width);
        for at in 0..width {
            let centre = of_column(&|feature| feature, at);
            let variance = of_column(&|feature| (feature - centre).powi(2), at);
            mean.push(centre as f32);
            // A feature that is the same for all images would count without bound for any other.
            deviation
                .push((variance.sqrt() as f32).max(f32::EPSILON * (centre.abs() as f32).max(1.)));
        }
        let mut reference = Self {
            card: ReferenceCard {
                threshold: 1.,
                share,
                origin,
            },
            features: Vec::with_capacity(images.len() * width),
            mean,
            deviation,
        };
        for image in images {
            let standardised = reference.standardised(image);
            reference.features.extend(standardised);
        }
        let mut distances: Vec<f64> = (0..images.len())
            .map(|at| reference.nearest(reference.row(at), Some(at)))
            .collect();
        distances.sort_by(f64::total_cmp);
        let last = (share * count).ceil() as usize;
        let threshold = *distances.get(last.clamp(1, images.len()) - 1)?;
        reference.card.threshold = threshold;
        (threshold.is_finite() && threshold > 0.).then_some(reference)
    }

    /// What a model file says of it.
    pub fn card(&self) -> &ReferenceCard {
        &self.card
    }

    /// How many images there are.
    pub fn n_images(&self) -> usize {
        self.features.len() / self.mean.len().max(1)
    }

    /// The distance of an image's features to the nearest reference image, in units of the threshold: above 1 the image is
    /// further away than usual images are from one another. Infinite for another number of features.
    pub fn distance(&self, features: &[f32]) -> f64 {
        if features.len() != self.mean.len() {
            return f64::INFINITY;
        }
        self.nearest(&self.standardised(features), None) / self.card.threshold
    }

    fn standardised(&self, features: &[f32]) -> Vec<f32> {
        let moments = self.mean.iter().zip(&self.deviation);
        let values = features.iter().zip(moments);
        values
            .map(|(value, (mean, deviation))| (value - mean) / deviation)
            .collect()
    }

    fn row(&self, at: usize) -> &[f32] {
        let width = self.mean.len();
        self.features
            .get(at * width..(at + 1) * width)
            .unwrap_or(&[])
    }

    /// The distance to the nearest row but the one at `but`.
    fn nearest(&self, standardised: &[f32], but: Option<usize>) -> f64 {
        let rows = self.features.chunks_exact(self.mean.len()).enumerate();
        let square = |row: &[f32]| -> f64 {
            let differences = row.iter().zip(standardised).map(|(a, b)| f64::from(a - b));
            differences.map(|difference| difference * difference).sum()
        };
        rows.filter(|(at, _)| Some(*at) != but)
            .map(|(_, row)| square(row))
            .fold(f64::INFINITY, f64::min)
            .sqrt()
    }

    /// Its tensors, as a model file has them beside those of the network.
    ///
    /// # Errors
    /// Those of candle.
    pub fn tensors(&self) -> Result<BTreeMap<String, Tensor>, ModelError> {
        let width = self.mean.len();
        let tensor =
            |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu);
        Ok(BTreeMap::from([
            (
                FEATURES.to_owned(),
                tensor(&self.features, &[self.n_images(), width])?,
            ),
            (MEAN.to_owned(), tensor(&self.mean, &[width])?),
            (DEVIATION.to_owned(), tensor(&self.deviation, &[width])?),
        ]))
    }

    /// Takes the tensors of a reference out of those of a model file, whose card says `card`. `None` where there is
    /// neither.
    ///
    /// # Errors
    /// What does not go together.
    pub(crate) fn take(
        card: Option<&ReferenceCard>,
        tensors: &mut BTreeMap<String, Tensor>,
    ) -> Result<Option<Self>, String> {
        let names: Vec<String> = (tensors.keys())
            .filter(|name| name.starts_with(REFERENCE_PREFIX))
            .cloned()
            .collect();
        let mut found: BTreeMap<String, Tensor> = BTreeMap::new();
        for name in names {
            if let Some(tensor) = tensors.remove(&name) {
                found.insert(name, tensor);
            }
        }
        let Some(card) = card else {
            return match found.keys().next() {
                None => Ok(None),
                Some(name) => Err(format!("it has `{name}`, and does not say of which images")),
            };
        };
        let mut values = |name: &str| -> Result<(Vec<usize>, Vec<f32>), String> {
            let tensor = found.remove(name).ok_or(format!("it lacks `{name}`"))?;
            let values = tensor
                .flatten_all()
                .and_then(|tensor| tensor.to_vec1::<f32>());
            let values = values.map_err(|error| format!("`{name}`: {error}"))?;
            Ok((tensor.dims().to_vec(), values))
        };
        let (shape, features) = values(FEATURES)?;
        let (of_mean, mean) = values(MEAN)?;
        let (of_deviation, deviation) = values(DEVIATION)?;
        if let Some(name) = found.keys().next() {
            return Err(format!("`{name}` is no tensor of a reference"));
        }
        let [n_images, width] = shape[..] else {
            return Err(format!("`{FEATURES}` has the shape {shape:?}"));
        };
        if n_images == 0 || width == 0 || of_mean != [width] || of_deviation != [width] {
            return Err(format!(
                "`{FEATURES}` has the shape {shape:?}, and `{MEAN}` {of_mean:?}, `{DEVIATION}` {of_deviation:?}"
            ));
        }
        let is_wrong = deviation.iter().any(|&value| value <= 0.);
        if is_wrong || !(card.threshold.is_finite() && card.threshold > 0.) {
            return Err(
                "its reference has a threshold or a deviation that is not above 0".to_owned(),
            );
        }
        Ok(Some(Self {
            card: card.clone(),
            features,
            mean,
            deviation,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Images on a line, one unit apart, in two features of different scales.
    fn line(n: usize) -> Vec<Vec<f32>> {
        (0..n)
            .map(|at| vec![at as f32, 1000. - 50. * at as f32])
            .collect()
    }

    #[test]
    fn distances_are_in_units_of_the_neighbours() {
        let images = line(30);
        let reference = Reference::fit(&images, 0.95, "a line".to_owned()).unwrap();
        assert_eq!(reference.n_images(), 30);
        // Each has a neighbour at one step, and a step is the threshold.
        assert!(reference.distance(&images[7]).abs() < 1e-6);
        assert!((reference.distance(&[29.5, -475.]) - 0.5).abs() < 1e-4);
        assert!((reference.distance(&[39., -950.]) - 10.).abs() < 1e-3);
        assert_eq!(reference.distance(&[1.]), f64::INFINITY);
    }

    #[test]
    fn what_says_nothing_of_usual_images_is_no_reference() {
        let fit = |images: &[Vec<f32>], share| Reference::fit(images, share, String::new());
        assert_eq!(fit(&line(19), 0.95), None);
        assert_eq!(fit(&line(30), 0.), None);
        assert_eq!(fit(&line(30), 1.5), None);
        assert_eq!(fit(&vec![vec![1., 2.]; 30], 0.95), None);
        let mut ragged = line(30);
        ragged[3].push(1.);
        assert_eq!(fit(&ragged, 0.95), None);
    }

    #[test]
    fn tensors_come_back_and_those_that_do_not_fit_are_refused() {
        let reference = Reference::fit(&line(25), 0.9, "a line".to_owned()).unwrap();
        let mut tensors = reference.tensors().unwrap();
        let other = Tensor::zeros(3, candle_core::DType::F32, &Device::Cpu).unwrap();
        tensors.insert("features.conv".to_owned(), other.clone());
        let whole = tensors.clone();
        let back = Reference::take(Some(reference.card()), &mut tensors).unwrap();
        assert_eq!(back, Some(reference.clone()));
        assert_eq!(tensors.keys().collect::<Vec<_>>(), ["features.conv"]);
        assert_eq!(Reference::take(None, &mut tensors), Ok(None));
        assert!(Reference::take(Some(reference.card()), &mut tensors).is_err());
        assert!(Reference::take(None, &mut whole.clone()).is_err());
        for name in [FEATURES, MEAN, DEVIATION, "reference.more"] {
            let mut changed = whole.clone();
            changed.insert(name.to_owned(), other.clone());
            assert!(
                Reference::take(Some(reference.card()), &mut changed).is_err(),
                "{name}"
            );
        }
    }
}
