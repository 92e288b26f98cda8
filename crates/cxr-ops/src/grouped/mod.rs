//! A DenseNet's parts on a layout made for them, each as a forward and a hand-written backward pass.
//!
//! # The layout
//! Maps stand in *groups of 32*: `N × groups × H × W × 32`, so that 32 maps of a pixel are neighbours
//! (two AVX-512 vectors) and a group's pixels are one contiguous run. A dense layer appends its new
//! maps as further groups: concatenation copies nothing. Where a number of maps is no multiple
//! of 32, the last group that was appended has unused lanes, which hold zeros and have zero weights
//! ([`Grouping`] keeps count); everything below works on whole groups.
//!
//! # What is not stored
//! Only the outputs of convolutions are kept for the backward pass. Normalisation and ReLU are applied
//! to the tile that a convolution reads, and again in the backward pass (Pleiss et al. 2017,
//! Memory-Efficient Implementation of DenseNets, which recompute them too).
//!
//! # Statistics once, corrections late
//! A group's mean and variance are taken when it is made and serve every later normalisation.
//! Backwards, a normalisation of map x with batch statistics gives `a·g + b·x + c` with `a`, `b`, `c`
//! constant per map: a layer adds `a·g` at once and adds `b` and `c` to the map's running [`Correction`],
//! which is applied when the map's gradient is finally read. That saves a pass over the block per layer
//! and is exact.
//!
//! # Same bits
//! Work is cut by image, and for weight gradients into at most eight runs of images whose sums are added in
//! order; never by the number of threads. A sum over pixels is single precision within a tile of
//! about a hundred and double precision across tiles.

mod conv3x3;
mod dense;
mod halves;
mod kernels;
mod norm;
mod pointwise;
mod pool;
mod rows;
mod stem;
mod tail;
mod transition;
mod weights;
mod winograd;

pub use dense::{
    DenseLayer, DenseLayerGradients, DenseLayerKernels, DenseLayerTape, DenseLayerWeights, Pass,
};
pub use norm::{ChannelStatistics, Correction, NormGradients, NormWeights, RunningStatistics};
pub use pool::{Buffer, Pool};
pub use stem::{Stem, StemGradients, StemTape, StemWeights};
pub use tail::Tail;
pub use transition::{Transition, TransitionGradients, TransitionWeights};

/// 32 maps of one pixel.
pub type Group = [f32; 32];

/// Lanes of a group.
pub(crate) const LANES: usize = 32;

const ZERO: Group = [0.; LANES];

/// How many maps each group holds: 32, but for the last of those that were appended together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grouping {
    used: Vec<usize>,
}

impl Grouping {
    /// The grouping of `maps` maps made together.
    pub fn of(maps: usize) -> Self {
        let mut grouping = Self::default();
        grouping.append(maps);
        grouping
    }

    /// Appends `maps` maps, beginning with a new group.
    pub fn append(&mut self, maps: usize) {
        let whole = maps / LANES;
        self.used.extend(std::iter::repeat_n(LANES, whole));
        let rest = maps % LANES;
        self.used.extend((rest > 0).then_some(rest));
    }

    /// Number of groups.
    pub fn groups(&self) -> usize {
        self.used.len()
    }

    /// Number of maps.
    pub fn maps(&self) -> usize {
        self.used.iter().sum()
    }

    /// The first `groups` groups.
    #[must_use]
    pub fn first(&self, groups: usize) -> Self {
        Self {
            used: self.used[..groups].to_vec(),
        }
    }

    /// For each group, its first map and how many it has.
    pub(crate) fn spans(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.used.iter().scan(0, |next, &used| {
            let first = *next;
            *next += used;
            Some((first, used))
        })
    }

    /// Values of single maps, in groups; unused lanes are 0.
    pub(crate) fn group<T: Copy + Into<f64>>(&self, values: &[T]) -> Vec<[f64; LANES]> {
        self.spans()
            .map(|(first, used)| {
                let mut group = [0.; LANES];
                for (lane, &value) in group.iter_mut().zip(&values[first..first + used]) {
                    *lane = value.into();
                }
                group
            })
            .collect()
    }

    /// The used lanes, map after map.
    pub(crate) fn ungroup<T: Copy>(&self, groups: &[[T; LANES]]) -> Vec<T> {
        self.spans()
            .zip(groups)
            .flat_map(|((_, used), group)| group[..used].iter().copied())
            .collect()
    }
}

/// Images and their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Images of the batch.
    pub images: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Extent {
    /// Pixels of one image.
    pub fn pixels(self) -> usize {
        self.height * self.width
    }

    /// Half the size, odd rows and columns dropped.
    #[must_use]
    pub fn halved(self) -> Self {
        Self {
            height: self.height / 2,
            width: self.width / 2,
            ..self
        }
    }

    /// Images per partial sum of a weight's gradient. More partial sums keep more threads busy and
    /// cost more additions at the end.
    pub(crate) fn images_a_part(self) -> usize {
        let parts = (self.images / 2).clamp(self.images.min(4), 8);
        self.images.div_ceil(parts.max(1)).max(1)
    }

    /// Number of partial sums of a weight's gradient.
    pub(crate) fn parts(self) -> usize {
        self.images.div_ceil(self.images_a_part())
    }
}

/// Pixels that are worked on together: few enough for the caches, a multiple of the kernel's tiles.
pub(crate) const TILE: usize = 112;

/// The pixels of an image in tiles, as `(first, count)`.
pub(crate) fn tiles(pixels: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..pixels)
        .step_by(TILE)
        .map(move |first| (first, TILE.min(pixels - first)))
}
