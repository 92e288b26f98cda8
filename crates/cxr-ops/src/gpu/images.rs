//! Batches of images on a CUDA device.

use candle_core::{Device, Result, Tensor, bail};

use super::calls::{self, Warp};
use super::cuda::{self, Gpu};
use super::machine::Machine as _;

/// The images of a batch, one byte for each pixel, as they go to a device.
///
/// Sent as bytes they are an eleventh of the tensor that is made of them.
#[derive(Debug, Clone, Copy)]
pub struct CudaImages<'a> {
    /// Square images side by side.
    pub pixels: &'a [u8],
    /// Width and height of each.
    pub side: usize,
    /// For each image the map from an output pixel to a position in it: `x = xx·column + xy·row + x0`,
    /// `y = yx·column + yy·row + y0`, as `[xx, xy, x0, yx, yy, y0]`.
    pub maps: &'a [[f64; 6]],
    /// For each channel the factor and summand that take grey from 0 to 255 to it.
    pub lines: [[f32; 2]; 3],
}

impl CudaImages<'_> {
    /// `N×3×size×size`: each image resampled once, bilinear, mirrored at its edges, and normalised.
    ///
    /// # Errors
    /// Another number of pixels than the images have, a map that leads further from an image than the fixed-point
    /// positions reach, or a device that is no CUDA device.
    pub fn warp(&self, size: usize, device: &Device) -> Result<Tensor> {
        /// What 16 bits before the point hold, less one neighbour.
        const FARTHEST: f64 = 32_766.;
        let Self {
            pixels,
            side,
            maps,
            lines,
        } = *self;
        let expected = maps.len() * side * side;
        if pixels.len() != expected || maps.is_empty() || size == 0 {
            let found = pixels.len();
            bail!(
                "warp: expected {expected} pixels of {} images, got {found}",
                maps.len()
            );
        }
        let is_far = |map: &&[f64; 6]| {
            let [xx, xy, x0, yx, yy, y0] = map.map(f64::abs);
            let last = size as f64;
            let reach = (xx * last + xy * last + x0).max(yx * last + yy * last + y0);
            map.iter().any(|value| !value.is_finite()) || reach > FARTHEST
        };
        if let Some(map) = maps.iter().find(is_far) {
            bail!("warp: {map:?} leads too far from an image");
        }
        let gpu = Gpu::single(device.as_cuda_device()?);
        let mut images = gpu.alloc(pixels.len().div_ceil(4))?;
        {
            // SAFETY: any bytes are values of `f32`, and only the kernel reads them, as bytes.
            let bytes = unsafe { images.transmute_mut::<u8>(pixels.len()) };
            let Some(mut bytes) = bytes else {
                bail!("warp: a memory is smaller than its pixels");
            };
            gpu.device.memcpy_htod(pixels, &mut bytes)?;
        }
        let warp = Warp {
            side,
            size,
            maps,
            lines,
        };
        let batch = calls::warp(&gpu, (&images).into(), &warp)?;
        Ok(cuda::tensor(batch, &gpu, (maps.len(), 3, size, size)))
    }
}
