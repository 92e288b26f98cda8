//! Geometric augmentation of training images and views for test-time averaging: 8-bit grey in,
//! three normalised `f32` channels out.
//!
//! Flip, rotation and crop are composed into one affine map, so that an image is interpolated
//! once, straight into the caller's batch. What happens to an image is a function of the seed, the
//! epoch and the image's name (see [`KeyedRng`]): it does not depend on order, threads, or where a
//! run was resumed.
//!
//! This crate never reads a file, never makes a tensor, and has no generator that is shared or
//! global.
//!
//! ```
//! use cxr_augment::{Augmentation, GrayImageRef, Normalization, ViewSet};
//!
//! # fn main() -> Result<(), cxr_augment::AugmentError> {
//! let pixels = vec![128; 256 * 256];
//! let image = GrayImageRef::square(&pixels, 256)?;
//! let mut input = vec![0.0; 3 * 224 * 224];
//!
//! let augmentation = Augmentation::default();
//! let draw = augmentation.draw(1, 0, "00000013_005.png");
//! augmentation.apply(&draw, image, &Normalization::IMAGENET, &mut input)?;
//!
//! for view in ViewSet::HorizontalFlipZoom.views() {
//!     view.apply(image, 224, &Normalization::IMAGENET, &mut input)?;
//! }
//! assert!((input[0] - (128.0 / 255.0 - 0.485) / 0.229).abs() < 1e-5);
//! # Ok(())
//! # }
//! ```

mod affine;
mod augmentation;
mod error;
mod image;
mod keyed;
mod pipeline;
mod rand_augment;
mod resized_crop;
mod transform;
mod view;
mod warp;

pub use affine::Affine;
pub use augmentation::{Augmentation, Draw};
pub use error::AugmentError;
pub use image::{GrayImageRef, MAX_SIDE, Normalization};
pub use keyed::KeyedRng;
pub use pipeline::Pipeline;
pub use rand_augment::RandAugment;
pub use resized_crop::RandomResizedCrop;
pub use transform::{
    BrightnessContrast, GaussianNoise, RandomErasing, Scaling, StandardTransform, Transform,
    Translation,
};
pub use view::{View, ViewSet};
pub use warp::warp;

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
