//! The sizes of a convolution, and the convolution as a product of matrices: the last resort, for what no deterministic
//! algorithm of cuDNN's takes.

use candle_core::{Result, bail};

use super::calls::{int, long};
use super::machine::{Argument, Blocks, Convolution, Machine, Matrix, Pass, Product, View};
use super::rows::{WeightShape, pack_weight_to};
use crate::Precision;
use crate::conv::Geometry;

/// How images lie, and weights with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Layout {
    /// N×C×H×W and O×C×K×L.
    Nchw,
    /// N×H×W×C and O×K×L×C.
    Nhwc,
}

/// The sizes of a convolution, and how its values are laid out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Sizes {
    pub(super) layout: Layout,
    pub(super) images: usize,
    pub(super) inputs: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) outputs: usize,
    pub(super) kernel: [usize; 2],
    pub(super) height_out: usize,
    pub(super) width_out: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
}

impl From<&Geometry> for Sizes {
    fn from(g: &Geometry) -> Self {
        Self {
            layout: Layout::Nchw,
            images: g.images,
            inputs: g.maps_in,
            height: g.height,
            width: g.width,
            outputs: g.maps_out,
            kernel: [g.kernel_height, g.kernel_width],
            height_out: g.height_out,
            width_out: g.width_out,
            stride: g.stride,
            padding: g.padding,
        }
    }
}

impl From<&Convolution> for Sizes {
    fn from(c: &Convolution) -> Self {
        Self {
            layout: Layout::Nhwc,
            images: c.images,
            inputs: c.inputs,
            height: c.height,
            width: c.width,
            outputs: c.outputs,
            kernel: [c.kernel; 2],
            height_out: c.height_out(),
            width_out: c.width_out(),
            stride: c.stride,
            padding: c.padding,
        }
    }
}

impl Sizes {
    /// In words, as choices by timing are kept.
    pub(super) fn words(&self, dtype: &str) -> String {
        let layout = match self.layout {
            Layout::Nhwc => "NHWC",
            Layout::Nchw => "NCHW",
        };
        let Self {
            images,
            height,
            width,
            inputs,
            outputs,
            kernel: [rows, columns],
            stride,
            padding,
            ..
        } = self;
        format!(
            "{layout} {dtype} {images}×{height}×{width}×{inputs} by {outputs}×{rows}×{columns}/{stride}+{padding}"
        )
    }

    /// Values of one image.
    fn image_values(&self) -> usize {
        self.inputs * self.height * self.width
    }

    fn pixels_out(&self) -> usize {
        self.height_out * self.width_out
    }

    /// Values of a patch, which one output of one pixel reads.
    fn patch(&self) -> usize {
        self.inputs * self.kernel[0] * self.kernel[1]
    }

    pub(super) fn n_input(&self) -> usize {
        self.images * self.image_values()
    }

    pub(super) fn n_weight(&self) -> usize {
        self.outputs * self.patch()
    }

    pub(super) fn n_output(&self) -> usize {
        self.images * self.outputs * self.pixels_out()
    }

    /// Products that a pass adds up, those with the border's zeros included.
    #[cfg(feature = "cuda")]
    pub(super) fn products(&self) -> usize {
        self.n_output() * self.patch()
    }

    /// Activations that a pass writes, and those that it reads, its first operand and its second.
    pub(super) fn n_of<M: ?Sized>(&self, pass: &Pass<'_, M>) -> (usize, [usize; 2]) {
        let (input, weight, output) = (self.n_input(), self.n_weight(), self.n_output());
        match pass {
            Pass::Forward { .. } => (output, [input, weight]),
            Pass::OfInput { .. } => (input, [output, weight]),
            Pass::OfWeight { .. } => (weight, [output, input]),
        }
    }
}

/// Where so many activations into a memory are, in single-precision values.
fn offset<M: Machine>(machine: &M, activations: usize) -> Result<usize> {
    match machine.precision() {
        Precision::Single => Ok(activations),
        Precision::Bf16 if activations.is_multiple_of(2) => Ok(activations / 2),
        Precision::Bf16 => bail!("conv2d: an image of bf16 begins within a word"),
    }
}

/// One of the two kernels of patches, on `n` values of images from the first of `images` on.
fn patches<M: Machine>(
    machine: &M,
    kernel: &'static str,
    s: &Sizes,
    n: usize,
    from: View<'_, M::Memory>,
    to: (&mut M::Memory, usize),
) -> Result<()> {
    let [kernel_height, kernel_width] = s.kernel;
    machine.launch(
        kernel,
        Blocks::for_values(n),
        &mut [
            from.into(),
            Argument::Write(to.0, to.1),
            long(n),
            int(s.inputs)?,
            int(s.height)?,
            int(s.width)?,
            int(s.height_out)?,
            int(s.width_out)?,
            int(kernel_height)?,
            int(kernel_width)?,
            int(s.stride)?,
            int(s.padding)?,
            Argument::Int(i32::from(s.layout == Layout::Nhwc)),
        ],
    )
}

/// A pass of a convolution by its patches: some images at a time, each patch a row of a matrix, which is multiplied.
/// Sums of a product are single precision, those over images too, and their order depends on the sizes alone.
pub(super) fn by_product<M: Machine>(
    machine: &M,
    s: &Sizes,
    pass: Pass<'_, M::Memory>,
    out: &mut M::Memory,
) -> Result<()> {
    /// Values of all patches at once.
    const MOST: usize = 1 << 26;
    let (patch, pixels) = (s.patch(), s.pixels_out());
    // By rows, images are rows behind one another; by maps, each is a matrix of its own.
    let at_once = match s.layout {
        Layout::Nhwc => (MOST / (pixels * patch)).clamp(1, s.images),
        Layout::Nchw => 1,
    };
    let mut laid_out = machine.alloc_activations(at_once * pixels * patch)?;
    // Of a weight's gradient in bf16, which is rounded once; and of further images.
    let n_weight = s.n_weight();
    let is_of_weight = matches!(pass, Pass::OfWeight { .. });
    let is_bf16 = machine.precision() == Precision::Bf16;
    let mut sums = match is_of_weight && is_bf16 {
        true => Some(machine.alloc(n_weight)?),
        false => None,
    };
    let mut part = match is_of_weight && at_once < s.images {
        true => Some(machine.alloc(n_weight)?),
        false => None,
    };
    for first in (0..s.images).step_by(at_once) {
        let images = at_once.min(s.images - first);
        let rows = images * pixels;
        let input_at = |input: View<'_, M::Memory>| -> Result<usize> {
            Ok(input.offset + offset(machine, first * s.image_values())?)
        };
        let of_output = first * pixels * s.outputs;
        // The gradient of the output as rows of pixels by outputs.
        let gradient_rows = |gradient: View<'_, M::Memory>| {
            let (pitch, is_transposed) = match s.layout {
                Layout::Nhwc => (s.outputs, false),
                Layout::Nchw => (pixels, true),
            };
            // It lies in single precision, or at the beginning of its memory.
            (pitch, is_transposed, gradient.offset + of_output)
        };
        match pass {
            Pass::Forward { input, weight } => {
                let from = View {
                    memory: input.memory,
                    offset: input_at(input)?,
                };
                let n = rows * patch;
                patches(machine, "patches", s, n, from, (&mut laid_out, 0))?;
                let weight = |is_transposed| Matrix {
                    memory: weight.memory,
                    offset: weight.offset,
                    pitch: patch,
                    is_transposed,
                };
                let laid_out = |is_transposed| Matrix {
                    is_transposed,
                    ..Matrix::plain(&*laid_out, patch)
                };
                let product = match s.layout {
                    Layout::Nhwc => Product {
                        rows,
                        columns: s.outputs,
                        inner: patch,
                        left: laid_out(false),
                        right: weight(true),
                        out: &mut *out,
                        out_offset: of_output,
                        out_pitch: s.outputs,
                        is_out_single: false,
                    },
                    Layout::Nchw => Product {
                        rows: s.outputs,
                        columns: pixels,
                        inner: patch,
                        left: weight(false),
                        right: laid_out(true),
                        out: &mut *out,
                        out_offset: of_output,
                        out_pitch: pixels,
                        is_out_single: false,
                    },
                };
                machine.multiply(product)?;
            }
            Pass::OfInput { gradient, weight } => {
                let (pitch, is_transposed, offset_of) = gradient_rows(gradient);
                machine.multiply(Product {
                    rows,
                    columns: patch,
                    inner: s.outputs,
                    left: Matrix {
                        memory: gradient.memory,
                        offset: offset_of,
                        pitch,
                        is_transposed,
                    },
                    right: Matrix {
                        memory: weight.memory,
                        offset: weight.offset,
                        pitch: patch,
                        is_transposed: false,
                    },
                    out: &mut *laid_out,
                    out_offset: 0,
                    out_pitch: patch,
                    is_out_single: false,
                })?;
                let n = images * s.image_values();
                let to = offset(machine, first * s.image_values())?;
                let from = View::from(&*laid_out);
                patches(machine, "patches_gradient", s, n, from, (&mut *out, to))?;
            }
            Pass::OfWeight { gradient, input } => {
                let from = View {
                    memory: input.memory,
                    offset: input_at(input)?,
                };
                let n = rows * patch;
                patches(machine, "patches", s, n, from, (&mut laid_out, 0))?;
                let (pitch, is_transposed, offset_of) = gradient_rows(gradient);
                let all = match &mut sums {
                    Some(sums) => &mut **sums,
                    None => &mut *out,
                };
                let multiply = |to: &mut M::Memory| {
                    machine.multiply(Product {
                        rows: s.outputs,
                        columns: patch,
                        inner: rows,
                        left: Matrix {
                            memory: gradient.memory,
                            offset: offset_of,
                            pitch,
                            is_transposed: !is_transposed,
                        },
                        right: Matrix::plain(&*laid_out, patch),
                        out: to,
                        out_offset: 0,
                        out_pitch: patch,
                        is_out_single: true,
                    })
                };
                match &mut part {
                    Some(part) if first > 0 => {
                        multiply(part)?;
                        let arguments = &mut [all.into(), (&**part).into(), long(n_weight)];
                        machine.launch("add_to", Blocks::for_values(n_weight), arguments)?;
                    }
                    _ => multiply(all)?,
                }
            }
        }
    }
    if let Some(sums) = sums {
        // As a weight of one tap, which is rounded as it is.
        let shape = WeightShape {
            outputs: 1,
            inputs: n_weight,
            taps: 1,
            packed_inputs: n_weight,
        };
        pack_weight_to(machine, View::from(&*sums), shape, out)?;
    }
    Ok(())
}

/// The worst of some activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worst {
    Finite,
    Infinite,
    Nan,
}

/// The worst of the first `n` activations of a memory. Waits for the device.
pub(super) fn worst<M: Machine>(machine: &M, x: View<'_, M::Memory>, n: usize) -> Result<Worst> {
    let blocks = Blocks::for_values(n);
    let mut parts = machine.alloc(blocks.x as usize)?;
    let arguments = &mut [x.into(), (&mut *parts).into(), long(n)];
    machine.launch("worst_parts", blocks, arguments)?;
    let parts = machine.read(&parts)?;
    let worst = parts.into_iter().fold(0f32, f32::max);
    Ok(match worst {
        0. => Worst::Finite,
        1. => Worst::Infinite,
        _ => Worst::Nan,
    })
}
