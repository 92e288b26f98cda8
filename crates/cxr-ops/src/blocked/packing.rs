//! Strips of maps, laid out so that every tap of a window is one offset.
//!
//! A strip is padded with zeros, and its columns are sorted by their remainder modulo the stride: what a tap reads for
//! neighbouring outputs is then neighbouring too, whatever the stride.

use super::{Block, View, ZERO};
use crate::simd::Vectors;

/// Size, stride and zero padding of a window, rows before columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Distance between neighbouring windows.
    pub stride: usize,
    /// Rows and columns of padding on each side.
    pub padding: [usize; 2],
}

impl Window {
    /// Height and width of the output, if the window fits the padded maps.
    pub(crate) fn output(self, size: [usize; 2]) -> Option<[usize; 2]> {
        let side = |axis: usize| {
            let padded = size[axis] + 2 * self.padding[axis];
            let room = padded.checked_sub(self.kernel[axis])?;
            Some(room / self.stride + 1)
        };
        Some([side(0)?, side(1)?])
    }

    pub(crate) fn taps(self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Every output is made of the one pixel at its place.
    pub(super) fn is_pointwise(self) -> bool {
        self.taps() == 1 && self.stride == 1 && self.padding == [0, 0]
    }
}

/// Neighbouring pixels of the output: whole rows, or a part of one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strip {
    pub(super) row: usize,
    pub(super) rows: usize,
    pub(super) column: usize,
    pub(super) width: usize,
}

impl Strip {
    pub(super) fn pixels(self) -> usize {
        self.rows * self.width
    }

    /// All of maps of `height × width` pixels: rows at a time, of about `budget` pixels.
    pub(super) fn rows_of([height, width]: [usize; 2], rows: usize) -> impl Iterator<Item = Self> {
        (0..height).step_by(rows).map(move |row| Self {
            row,
            rows: rows.min(height - row),
            column: 0,
            width,
        })
    }

    /// One row of `width` pixels, `part` at a time.
    pub(super) fn parts_of(width: usize, part: usize) -> impl Iterator<Item = Self> {
        (0..width).step_by(part).map(move |column| Self {
            row: 0,
            rows: 1,
            column,
            width: part.min(width - column),
        })
    }
}

/// How a strip is laid out: for each line of the source, `phases` lines of `line` pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packing {
    /// Height and width of what is read.
    source: [usize; 2],
    /// Lines of the source from one row of the output to the next.
    pitch: usize,
    /// Lines that a row of the output reads.
    span: usize,
    /// Pixels of the source from one output to the next.
    stride: usize,
    /// Row and column of the source that the first output's first tap reads.
    offset: [isize; 2],
    pub(super) phases: usize,
    pub(super) line: usize,
}

impl Packing {
    /// For windows over maps of size `source`; `width` is that of the widest strip.
    pub(super) fn of_window(window: Window, source: [usize; 2], width: usize) -> Self {
        let [kernel_height, kernel_width] = window.kernel;
        Self {
            source,
            pitch: window.stride.min(kernel_height),
            span: kernel_height,
            stride: window.stride,
            offset: window.padding.map(|padding| -(padding as isize)),
            phases: window.stride.min(kernel_width),
            line: width + (kernel_width - 1) / window.stride,
        }
    }

    /// For taps that read `least..=most` rows and columns away from the output's own place.
    pub(super) fn of_neighbours(
        source: [usize; 2],
        width: usize,
        least: [isize; 2],
        most: [isize; 2],
    ) -> Self {
        Self {
            source,
            pitch: 1,
            span: (most[0] - least[0]) as usize + 1,
            stride: 1,
            offset: least,
            phases: 1,
            line: width + (most[1] - least[1]) as usize,
        }
    }

    /// Pixels of a packed strip of one block.
    pub(super) fn plane(self, rows: usize) -> usize {
        self.lines(rows) * self.phases * self.line
    }

    fn lines(self, rows: usize) -> usize {
        (rows - 1) * self.pitch + self.span
    }

    /// Pixels from one output row to the next.
    pub(super) fn row_stride(self) -> usize {
        self.pitch * self.phases * self.line
    }

    /// Where tap `(y, x)` of a window begins.
    pub(super) fn tap(self, y: usize, x: usize) -> usize {
        (y * self.phases + x % self.phases) * self.line + x / self.stride
    }

    /// Lays out one block of a strip. `row` is room for one line of the source.
    pub(super) fn fill<S: Vectors>(
        self,
        simd: S,
        view: &View<'_>,
        (image, block): (usize, usize),
        strip: Strip,
        row: &mut Vec<Block>,
        packed: &mut [Block],
    ) {
        let [height, width] = self.source;
        for line in 0..self.lines(strip.rows) {
            let packed = &mut packed[line * self.phases * self.line..][..self.phases * self.line];
            let y = (strip.row + line / self.pitch) * self.stride + line % self.pitch;
            let y = y as isize + self.offset[0];
            let Some(y) = usize::try_from(y).ok().filter(|&y| y < height) else {
                packed.fill(ZERO);
                continue;
            };
            if self.stride > 1 {
                row.resize(width, ZERO);
                view.read(simd, image, block, y * width, row);
            }
            for (phase, packed) in packed.chunks_exact_mut(self.line).enumerate() {
                // Place j reads column stride·j + first.
                let first = (self.stride * strip.column + phase) as isize + self.offset[1];
                let stride = self.stride as isize;
                let begin = ((-first).max(0) as usize)
                    .div_ceil(self.stride)
                    .min(self.line);
                let inside = (width as isize - first).max(0) as usize;
                let end = inside.div_ceil(self.stride).clamp(begin, self.line);
                packed[..begin].fill(ZERO);
                packed[end..].fill(ZERO);
                if begin == end {
                    continue;
                }
                let x = (first + stride * begin as isize) as usize;
                let packed = &mut packed[begin..end];
                if self.stride == 1 {
                    view.read(simd, image, block, y * width + x, packed);
                } else {
                    for (packed, pixel) in
                        packed.iter_mut().zip(row[x..].iter().step_by(self.stride))
                    {
                        *packed = *pixel;
                    }
                }
            }
        }
    }
}

/// One of the `stride²` sets of input pixels that share their taps in the backward pass of a window: those whose row
/// and column have these remainders.
#[derive(Debug, Clone)]
pub(super) struct Phase {
    pub(super) remainder: [usize; 2],
    /// `(tap's row, its column, rows away, columns away)` in the output, from the pixel's own place in it.
    pub(super) taps: Vec<(usize, usize, isize, isize)>,
}

impl Phase {
    /// All of a window, and how far their taps reach at least and at most.
    pub(super) fn all(window: Window) -> (Vec<Self>, [isize; 2], [isize; 2]) {
        let stride = window.stride as isize;
        // For one axis and remainder, the taps with how far they reach.
        let reach = |axis: usize, remainder: usize| -> Vec<(usize, isize)> {
            (0..window.kernel[axis])
                .filter_map(|tap| {
                    let place = (remainder + window.padding[axis]) as isize - tap as isize;
                    (place.rem_euclid(stride) == 0).then(|| (tap, place.div_euclid(stride)))
                })
                .collect()
        };
        let mut phases = Vec::new();
        for y in 0..window.stride {
            for x in 0..window.stride {
                let mut taps = Vec::new();
                for &(tap_y, rows) in &reach(0, y) {
                    for &(tap_x, columns) in &reach(1, x) {
                        taps.push((tap_y, tap_x, rows, columns));
                    }
                }
                phases.push(Self {
                    remainder: [y, x],
                    taps,
                });
            }
        }
        let all = || phases.iter().flat_map(|phase| &phase.taps);
        let least = [
            all().map(|tap| tap.2).min().unwrap_or(0),
            all().map(|tap| tap.3).min().unwrap_or(0),
        ];
        let most = [
            all().map(|tap| tap.2).max().unwrap_or(0),
            all().map(|tap| tap.3).max().unwrap_or(0),
        ];
        (phases, least, most)
    }
}
