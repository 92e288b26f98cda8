//! Two-dimensional convolution and its two gradients.
//!
//! Each image is a matrix product: the weight, `O×(C·K·K)`, times the image's patches,
//! `(C·K·K)×(pixels)`. Patches are laid out for a few output rows at a time so that they stay in
//! the second-level cache; a 1×1 convolution reads the image itself, which already is that matrix.
//! The gradients are the same product with one operand transposed: towards the image the patches
//! are scattered back, towards the weight they are multiplied by the output's gradient.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::cpu::{Matrix, matmul, values, with_values};

/// Stride and zero padding, the same in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dConfig {
    /// Distance between neighbouring windows, at least 1.
    pub stride: usize,
    /// Zeros put around the image on every side.
    pub padding: usize,
}

impl Default for Conv2dConfig {
    fn default() -> Self {
        Self {
            stride: 1,
            padding: 0,
        }
    }
}

/// Convolves `images` (`N×C×H×W`) with `weight` (`O×C×K×L`) and adds `bias` (`O`), giving
/// `N×O×H'×W'` with `H' = (H + 2·padding − K) / stride + 1` rounded down, likewise `W'`.
///
/// As in every deep-learning library this is a cross-correlation: the kernel is not flipped.
/// Gradients are computed for those of the three inputs that take part in autograd.
///
/// # Errors
/// Shapes that do not fit, a kernel larger than the padded image, stride 0, another type than
/// `f32`, or a device that is neither the CPU nor, with the feature `cuda`, a CUDA device.
pub fn conv2d(
    images: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    config: Conv2dConfig,
) -> Result<Tensor> {
    let geometry = Geometry::new(images.dims4()?, weight.dims4()?, config)?;
    let output = images
        .contiguous()?
        .apply_op2(&weight.contiguous()?, Conv2d(geometry))?;
    match bias {
        None => Ok(output),
        Some(bias) => output.broadcast_add(&bias.reshape((1, geometry.maps_out, 1, 1))?),
    }
}

/// All sizes of one convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    pub(crate) images: usize,
    pub(crate) maps_in: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) maps_out: usize,
    pub(crate) kernel_height: usize,
    pub(crate) kernel_width: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    pub(crate) height_out: usize,
    pub(crate) width_out: usize,
}

/// Patches of about one megabyte stay in a core's second-level cache.
const PATCH_VALUES: usize = 1 << 18;
/// Input maps are cut into at most this many parts for the weight's gradient.
const GRADIENT_PARTS: usize = 16;

impl Geometry {
    fn new(
        (images, maps_in, height, width): (usize, usize, usize, usize),
        (maps_out, weight_maps, kernel_height, kernel_width): (usize, usize, usize, usize),
        Conv2dConfig { stride, padding }: Conv2dConfig,
    ) -> Result<Self> {
        if weight_maps != maps_in {
            bail!("conv2d: the weight reads {weight_maps} maps, the images have {maps_in}");
        }
        if stride == 0 {
            bail!("conv2d: expected a stride of at least 1, got 0");
        }
        if images * maps_in * maps_out * kernel_height * kernel_width == 0 {
            bail!("conv2d: images and weight need at least one value in every dimension");
        }
        let (padded_height, padded_width) = (height + 2 * padding, width + 2 * padding);
        if kernel_height > padded_height || kernel_width > padded_width {
            bail!(
                "conv2d: kernel {kernel_height}×{kernel_width} does not fit the padded image {padded_height}×{padded_width}"
            );
        }
        Ok(Self {
            images,
            maps_in,
            height,
            width,
            maps_out,
            kernel_height,
            kernel_width,
            stride,
            padding,
            height_out: (padded_height - kernel_height) / stride + 1,
            width_out: (padded_width - kernel_width) / stride + 1,
        })
    }

    pub(crate) fn image_values(&self) -> usize {
        self.maps_in * self.height * self.width
    }

    pub(crate) fn pixels_out(&self) -> usize {
        self.height_out * self.width_out
    }

    pub(crate) fn patch_rows(&self) -> usize {
        self.maps_in * self.kernel_height * self.kernel_width
    }

    /// The image itself is its patch matrix.
    fn is_pointwise(&self) -> bool {
        self.kernel_height == 1 && self.kernel_width == 1 && self.stride == 1 && self.padding == 0
    }

    /// The weight of `maps` output maps from `first`, as a matrix over patches.
    fn weight_rows(&self, first: usize, maps: usize) -> Matrix {
        Matrix::dense(first * self.patch_rows(), maps, self.patch_rows())
    }

    /// The output rows, a tile at a time, for which patches are laid out together.
    fn tiles(&self) -> impl Iterator<Item = Tile> + use<> {
        let rows_a_tile = if self.is_pointwise() {
            self.height_out
        } else {
            (PATCH_VALUES / (self.patch_rows() * self.width_out)).clamp(1, self.height_out)
        };
        let (height_out, width_out) = (self.height_out, self.width_out);
        (0..height_out).step_by(rows_a_tile).map(move |row| {
            let rows = rows_a_tile.min(height_out - row);
            Tile {
                row,
                rows,
                pixel: row * width_out,
                pixels: rows * width_out,
            }
        })
    }

    /// For one tap, the output columns whose window reads inside the image at that tap.
    fn columns_inside(&self, tap: usize) -> std::ops::Range<usize> {
        // column · stride + tap − padding in 0 .. width
        let first = self.padding.saturating_sub(tap).div_ceil(self.stride);
        let end = (self.width + self.padding)
            .saturating_sub(tap)
            .div_ceil(self.stride);
        first.min(self.width_out)..end.min(self.width_out).max(first.min(self.width_out))
    }

    /// The image row that output row `row` reads at tap `tap`, if it lies inside.
    fn source_row(&self, row: usize, tap: usize) -> Option<usize> {
        (row * self.stride + tap)
            .checked_sub(self.padding)
            .filter(|&y| y < self.height)
    }

    /// Lays out the patches of a tile: one row per (map, tap), one column per output pixel.
    fn gather(&self, image: &[f32], tile: Tile, patches: &mut Vec<f32>) {
        patches.clear();
        patches.resize(self.patch_rows() * tile.pixels, 0.);
        self.for_each_run(tile, |run| {
            let source = &image[run.image..];
            let target = &mut patches[run.patch..run.patch + run.len];
            if self.stride == 1 {
                target.copy_from_slice(&source[..run.len]);
            } else {
                for (target, source) in target.iter_mut().zip(source.iter().step_by(self.stride)) {
                    *target = *source;
                }
            }
        });
    }

    /// Adds the patches of a tile back to where [`Self::gather`] took them from.
    fn scatter(&self, patches: &[f32], tile: Tile, image: &mut [f32]) {
        self.for_each_run(tile, |run| {
            let source = &patches[run.patch..run.patch + run.len];
            let target = &mut image[run.image..];
            if self.stride == 1 {
                for (target, source) in target.iter_mut().zip(source) {
                    *target += *source;
                }
            } else {
                for (target, source) in target.iter_mut().step_by(self.stride).zip(source) {
                    *target += *source;
                }
            }
        });
    }

    /// Visits the runs of neighbouring output pixels of a tile that read inside the image.
    fn for_each_run(&self, tile: Tile, mut visit: impl FnMut(Run)) {
        let mut patch_row = 0;
        for map in 0..self.maps_in {
            for tap_y in 0..self.kernel_height {
                for tap_x in 0..self.kernel_width {
                    let columns = self.columns_inside(tap_x);
                    for row in tile.row..tile.row + tile.rows {
                        if let Some(y) = self.source_row(row, tap_y)
                            && !columns.is_empty()
                        {
                            let x = columns.start * self.stride + tap_x - self.padding;
                            visit(Run {
                                image: (map * self.height + y) * self.width + x,
                                patch: patch_row * tile.pixels
                                    + (row - tile.row) * self.width_out
                                    + columns.start,
                                len: columns.len(),
                            });
                        }
                    }
                    patch_row += 1;
                }
            }
        }
    }
}

/// Some rows of the output.
#[derive(Clone, Copy)]
struct Tile {
    row: usize,
    rows: usize,
    pixel: usize,
    pixels: usize,
}

/// Neighbouring pixels of one output row at one tap.
struct Run {
    image: usize,
    patch: usize,
    len: usize,
}

struct Conv2d(Geometry);

impl CustomOp2 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        images: &CpuStorage,
        images_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let g = &self.0;
        let images = values(images, images_layout, self.name())?;
        let weight = values(weight, weight_layout, self.name())?;
        let output = forward(g, images, weight);
        Ok((
            CpuStorage::F32(output),
            (g.images, g.maps_out, g.height_out, g.width_out).into(),
        ))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        images: &candle_core::CudaStorage,
        images_layout: &Layout,
        weight: &candle_core::CudaStorage,
        weight_layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        crate::gpu::conv2d(&self.0, (images, images_layout), (weight, weight_layout))
    }

    fn bwd(
        &self,
        images: &Tensor,
        weight: &Tensor,
        _output: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let g = &self.0;
        let gradient = gradient.contiguous()?;
        #[cfg(feature = "cuda")]
        if gradient.device().is_cuda() {
            return crate::gpu::conv2d_gradients(g, images, weight, &gradient);
        }
        let of_images = if images.track_op() {
            let values = with_values(&gradient, self.name(), |gradient| {
                with_values(weight, self.name(), |weight| {
                    images_gradient(g, gradient, weight)
                })
            })??;
            Some(Tensor::from_vec(values, images.shape(), images.device())?)
        } else {
            None
        };
        let of_weight = if weight.track_op() {
            let values = with_values(&gradient, self.name(), |gradient| {
                with_values(images, self.name(), |images| {
                    weight_gradient(g, gradient, images)
                })
            })??;
            Some(Tensor::from_vec(values, weight.shape(), weight.device())?)
        } else {
            None
        };
        Ok((of_images, of_weight))
    }
}

/// Each image is computed in the same way whatever the batch: a product cut otherwise sums in another order.
fn forward(g: &Geometry, images: &[f32], weight: &[f32]) -> Vec<f32> {
    let mut output = vec![0f32; g.images * g.maps_out * g.pixels_out()];
    let weight_rows = g.weight_rows(0, g.maps_out);
    output
        .par_chunks_mut(g.maps_out * g.pixels_out())
        .zip(images.par_chunks(g.image_values()))
        .for_each_init(Vec::new, |patches, (output, image)| {
            for tile in g.tiles() {
                let target = Matrix {
                    offset: tile.pixel,
                    rows: g.maps_out,
                    columns: tile.pixels,
                    row_stride: g.pixels_out(),
                    column_stride: 1,
                };
                let source = if g.is_pointwise() {
                    image
                } else {
                    g.gather(image, tile, patches);
                    patches.as_slice()
                };
                let patches = Matrix::dense(0, g.patch_rows(), tile.pixels);
                matmul(
                    (output, target),
                    (weight, weight_rows),
                    (source, patches),
                    false,
                );
            }
        });
    output
}

fn images_gradient(g: &Geometry, gradient: &[f32], weight: &[f32]) -> Vec<f32> {
    let mut result = vec![0f32; g.images * g.image_values()];
    result
        .par_chunks_mut(g.image_values())
        .zip(gradient.par_chunks(g.maps_out * g.pixels_out()))
        .for_each_init(Vec::new, |patches, (image, gradient)| {
            let weight_columns = g.weight_rows(0, g.maps_out).transposed();
            for tile in g.tiles() {
                let source = tile_of_gradient(g, tile);
                let shape = Matrix::dense(0, g.patch_rows(), tile.pixels);
                if g.is_pointwise() {
                    matmul(
                        (image, shape),
                        (weight, weight_columns),
                        (gradient, source),
                        false,
                    );
                } else {
                    patches.resize(g.patch_rows() * tile.pixels, 0.);
                    matmul(
                        (patches, shape),
                        (weight, weight_columns),
                        (gradient, source),
                        false,
                    );
                    g.scatter(patches, tile, image);
                }
            }
        });
    result
}

/// Cut by input maps: each part lays out the patches of its own maps and adds up all images in order, so that
/// there are no partial sums.
fn weight_gradient(g: &Geometry, gradient: &[f32], images: &[f32]) -> Vec<f32> {
    let maps_a_part = g.maps_in.div_ceil(GRADIENT_PARTS);
    let parts: Vec<Vec<f32>> = (0..g.maps_in)
        .step_by(maps_a_part)
        .collect::<Vec<_>>()
        .into_par_iter()
        .map(|first| {
            let part = Geometry {
                maps_in: maps_a_part.min(g.maps_in - first),
                ..*g
            };
            let mut sum = vec![0f32; g.maps_out * part.patch_rows()];
            let mut patches = Vec::new();
            let pairs = images
                .chunks(g.image_values())
                .zip(gradient.chunks(g.maps_out * g.pixels_out()));
            for (image, gradient) in pairs {
                let image = &image[first * g.height * g.width..][..part.image_values()];
                for tile in part.tiles() {
                    let source = if part.is_pointwise() {
                        image
                    } else {
                        part.gather(image, tile, &mut patches);
                        patches.as_slice()
                    };
                    matmul(
                        (&mut sum, part.weight_rows(0, g.maps_out)),
                        (gradient, tile_of_gradient(g, tile)),
                        (
                            source,
                            Matrix::dense(0, part.patch_rows(), tile.pixels).transposed(),
                        ),
                        true,
                    );
                }
            }
            sum
        })
        .collect();
    // Each part has some columns of every output map.
    let columns: Vec<usize> = parts.iter().map(|part| part.len() / g.maps_out).collect();
    let mut weight = Vec::with_capacity(g.maps_out * g.patch_rows());
    for map in 0..g.maps_out {
        for (part, &columns) in parts.iter().zip(&columns) {
            weight.extend_from_slice(&part[map * columns..(map + 1) * columns]);
        }
    }
    weight
}

fn tile_of_gradient(g: &Geometry, tile: Tile) -> Matrix {
    Matrix {
        offset: tile.pixel,
        rows: g.maps_out,
        columns: tile.pixels,
        row_stride: g.pixels_out(),
        column_stride: 1,
    }
}
