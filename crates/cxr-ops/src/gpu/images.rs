//! Images in a device's memory, where they stay as far as there is room, and the batches made of them.

use std::collections::HashMap;
use std::ops::DerefMut;

use candle_core::{Result, bail};

use super::calls::{self, Warp};
use super::machine::{Machine, View};
use crate::device::StoredImage;

/// The images that have been sent to a device, and stay there.
///
/// They lie in slabs, in the order in which they came; one that finds no room goes over again with every batch it is in.
#[derive(Debug)]
pub(super) struct Residents<O> {
    side: usize,
    /// How many may stay.
    most: usize,
    /// How many a slab holds.
    of_slab: usize,
    slabs: Vec<O>,
    /// Where an image is: slabs count on from one another.
    places: HashMap<usize, usize>,
}

impl<O> Residents<O> {
    /// Room for `most` images.
    pub(super) fn new(side: usize, most: usize, of_slab: usize) -> Self {
        Self {
            side,
            most,
            of_slab: of_slab.max(1),
            slabs: Vec::new(),
            places: HashMap::new(),
        }
    }

    /// Images that stay.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// `N×3×size×size`: each image resampled once, bilinear, mirrored at its edges, and normalised.
    pub(super) fn warp<N: Machine<Owned = O>>(
        &mut self,
        machine: &N,
        images: &[StoredImage<'_>],
        lines: [[f32; 2]; 3],
        size: usize,
    ) -> Result<O>
    where
        O: DerefMut<Target = N::Memory>,
    {
        self.check(images, size)?;
        let mut seen = HashMap::new();
        let mut new: Vec<StoredImage<'_>> = Vec::new();
        for image in images {
            if !self.places.contains_key(&image.number) && !seen.contains_key(&image.number) {
                seen.insert(image.number, new.len());
                new.push(*image);
            }
        }
        let (staying, passing) = new.split_at(new.len().min(self.most - self.len()));
        self.keep(machine, staying)?;
        // Dropped when the batch is made: the device does what it is told in order.
        let others = match passing {
            [] => None,
            _ => {
                let mut memory = machine.alloc((passing.len() * self.bytes()).div_ceil(4))?;
                machine.write_bytes(&mut memory, 0, &side_by_side(passing))?;
                Some(memory)
            }
        };
        let start = |memory: &O| machine.address(View::from(&**memory));
        let address = |number: usize| match self.places.get(&number) {
            Some(place) => {
                let slab = self.slabs.get(place / self.of_slab)?;
                Some(start(slab) + (place % self.of_slab * self.bytes()) as u64)
            }
            None => {
                let place = seen.get(&number)? - staying.len();
                Some(start(others.as_ref()?) + (place * self.bytes()) as u64)
            }
        };
        let rows = images.iter().map(|image| match address(image.number) {
            Some(address) => Ok((address, image.map)),
            None => bail!("warp: image {} is nowhere", image.number),
        });
        let rows = rows.collect::<Result<Vec<_>>>()?;
        let side = self.side;
        calls::warp(machine, &rows, &Warp { side, size, lines })
    }

    /// Sends images to slabs.
    fn keep<N: Machine<Owned = O>>(&mut self, machine: &N, images: &[StoredImage<'_>]) -> Result<()>
    where
        O: DerefMut<Target = N::Memory>,
    {
        let mut images = images;
        while !images.is_empty() {
            let (slab, place) = (self.len() / self.of_slab, self.len() % self.of_slab);
            if slab == self.slabs.len() {
                let bytes = self.of_slab * self.bytes();
                self.slabs.push(machine.alloc(bytes.div_ceil(4))?);
            }
            let (here, rest) = images.split_at(images.len().min(self.of_slab - place));
            let offset = place * self.bytes();
            machine.write_bytes(&mut self.slabs[slab], offset, &side_by_side(here))?;
            for image in here {
                self.places.insert(image.number, self.places.len());
            }
            images = rest;
        }
        Ok(())
    }

    /// Of an image.
    fn bytes(&self) -> usize {
        self.side * self.side
    }

    fn check(&self, images: &[StoredImage<'_>], size: usize) -> Result<()> {
        /// What 16 bits before the point hold, less one neighbour.
        const FARTHEST: f64 = 32_766.;
        if images.is_empty() || size == 0 {
            bail!("warp: expected images, and a size above 0");
        }
        for image in images {
            if image.pixels.len() != self.bytes() {
                let (expected, found) = (self.bytes(), image.pixels.len());
                bail!("warp: expected {expected} pixels of an image, got {found}");
            }
            let [xx, xy, x0, yx, yy, y0] = image.map.map(f64::abs);
            let last = size as f64;
            let reach = (xx * last + xy * last + x0).max(yx * last + yy * last + y0);
            let is_finite = image.map.iter().all(|value| value.is_finite());
            if !is_finite || reach > FARTHEST {
                bail!("warp: {:?} leads too far from an image", image.map);
            }
        }
        Ok(())
    }
}

fn side_by_side(images: &[StoredImage<'_>]) -> Vec<u8> {
    let pixels = images.iter().map(|image| image.pixels);
    pixels.collect::<Vec<_>>().concat()
}

#[cfg(feature = "cuda")]
pub use on_device::CudaImages;

#[cfg(feature = "cuda")]
mod on_device {
    use std::sync::{Mutex, PoisonError};

    use candle_core::{Device, Error, Result, Tensor};

    use super::{Residents, StoredImage};
    use crate::gpu::cuda::{self, Gpu};
    use crate::gpu::memory::Lot;

    /// Images of one store in the memory of a CUDA device.
    ///
    /// An image goes over with the first batch it is in, as bytes, which are an eleventh of the tensor that is made of
    /// them, and stays while there is room; without room it goes over with each of its batches. Which images stayed
    /// makes no difference to what comes out.
    #[derive(Debug)]
    pub struct CudaImages {
        gpu: Gpu,
        side: usize,
        residents: Mutex<Residents<Lot>>,
    }

    impl CudaImages {
        /// For square images of one side. They take up to half of the memory that is free now.
        ///
        /// # Errors
        /// A device that is no CUDA device, or does not say how much memory is free.
        pub fn new(side: usize, device: &Device) -> Result<Self> {
            /// Bytes that are taken at once.
            const SLAB: usize = 1 << 26;
            let gpu = Gpu::single(device.as_cuda_device()?)?;
            let context = gpu.device.cuda_stream().context().clone();
            let (free, _) = context.mem_get_info().map_err(Error::wrap)?;
            let bytes = (side * side).max(1);
            let residents = Residents::new(side, free / 2 / bytes, SLAB / bytes);
            Ok(Self {
                gpu,
                side,
                residents: Mutex::new(residents),
            })
        }

        /// Bytes of the images that have stayed on the device.
        pub fn bytes(&self) -> usize {
            let residents = self.residents.lock();
            let images = residents.unwrap_or_else(PoisonError::into_inner).len();
            images * self.side * self.side
        }

        /// `N×3×size×size`: each image resampled once, bilinear, mirrored at its edges, and normalised. `lines` have for
        /// each channel the factor and summand that take grey from 0 to 255 to it. Threads may share it.
        ///
        /// # Errors
        /// No images, one of another side, a map that leads further from an image than the fixed-point positions
        /// reach, or too little memory.
        pub fn warp(
            &self,
            images: &[StoredImage<'_>],
            lines: [[f32; 2]; 3],
            size: usize,
        ) -> Result<Tensor> {
            let mut residents = self
                .residents
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let batch = residents.warp(&self.gpu, images, lines, size)?;
            drop(residents);
            cuda::tensor(batch, &self.gpu, (images.len(), 3, size, size))
        }
    }
}
