//! Memory of a CUDA device: what the driver gives, and pieces of one large piece that the passes of a network share.

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::backend::BackendDevice as _;
use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr as _};
use candle_core::{CudaDevice, Result, bail};

use super::arena::Arena;
use super::settings::give_back_freed_memory;

/// Values on a device, given back when dropped: to the driver, or to the pool that they are a piece of.
#[derive(Debug)]
pub(super) struct Lot {
    slice: ManuallyDrop<CudaSlice<f32>>,
    home: Option<Home>,
}

/// Where in a pool a lot is.
#[derive(Debug)]
struct Home {
    pool: Arc<Pool>,
    begin: usize,
    /// Its memory is the pool's. Beyond the pool's memory the driver lends it.
    is_within: bool,
}

/// The memory that the passes on one device share. Work on a device is done in one order, so that a piece may be taken
/// as soon as it was given back.
#[derive(Debug)]
pub(super) struct Pool {
    device: CudaDevice,
    space: Mutex<Space>,
}

#[derive(Debug, Default)]
struct Space {
    arena: Arena,
    memory: Option<CudaSlice<f32>>,
    /// Pieces that the driver had to lend since [`Pool::fit`].
    outside: usize,
}

/// By device its pool.
static POOLS: Mutex<Vec<(DeviceId, Arc<Pool>)>> = Mutex::new(Vec::new());

fn pools() -> MutexGuard<'static, Vec<(DeviceId, Arc<Pool>)>> {
    POOLS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// That of a device, whose streams must be one, as those of [`cuda_device`](crate::cuda_device) are. `None` where
    /// cudarc orders work of several streams by events, which pieces of one memory do not have.
    pub(super) fn of(device: &CudaDevice) -> Option<Arc<Self>> {
        if device.is_event_tracking() {
            return None;
        }
        let mut pools = pools();
        if let Some((_, pool)) = pools.iter().find(|(id, _)| *id == device.id()) {
            return Some(pool.clone());
        }
        let pool = Arc::new(Self {
            device: device.clone(),
            space: Mutex::default(),
        });
        pools.push((device.id(), pool.clone()));
        Some(pool)
    }

    fn space(&self) -> MutexGuard<'_, Space> {
        self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grows to what passes have needed so far, where no piece is out. A pass of a new kind is lent its memory by the
    /// driver, piece after piece; the second of the kind finds it here.
    pub(super) fn fit(&self) -> Result<()> {
        let mut space = self.space();
        space.outside = 0;
        let (most, has) = (
            space.arena.most(),
            space.memory.as_ref().map_or(0, CudaSlice::len),
        );
        if !space.arena.is_empty() || most <= has {
            return Ok(());
        }
        space.memory = None;
        // What the driver lent before is free, but cut to pieces.
        self.device.synchronize()?;
        give_back_freed_memory(&self.device)?;
        // SAFETY: as in `Gpu::alloc`.
        space.memory = Some(unsafe { self.device.alloc(most) }?);
        Ok(())
    }

    /// Pieces that the driver had to lend since the last [`fit`](Self::fit).
    pub(super) fn outside(&self) -> usize {
        self.space().outside
    }

    fn give_back(&self, begin: usize, len: usize) {
        self.space().arena.give_back(begin, len);
    }

    /// A piece of `len` values.
    pub(super) fn alloc(self: &Arc<Self>, len: usize) -> Result<Lot> {
        let mut space = self.space();
        let begin = space.arena.take(len);
        let stream = self.device.cuda_stream();
        let within = space.memory.as_ref().and_then(|memory| {
            let view = memory.try_slice(begin..begin + len)?;
            let (address, _sync) = view.device_ptr(&stream);
            Some(address)
        });
        let slice = match within {
            // SAFETY: the pool lives as long as the lot, which never frees the piece, and lends it to no other.
            Some(address) => unsafe { stream.upgrade_device_ptr(address, len) },
            None => {
                space.outside += 1;
                // SAFETY: as in `Gpu::alloc`.
                match unsafe { self.device.alloc(len) } {
                    Ok(slice) => slice,
                    Err(error) => {
                        space.arena.give_back(begin, len);
                        return Err(error);
                    }
                }
            }
        };
        drop(space);
        let home = Home {
            pool: self.clone(),
            begin,
            is_within: within.is_some(),
        };
        Ok(Lot {
            slice: ManuallyDrop::new(slice),
            home: Some(home),
        })
    }
}

/// Gives the driver back what pools of this process hold and no pass uses.
pub(super) fn release_pools() {
    pools().retain(|(_, pool)| {
        let mut space = pool.space();
        if space.arena.is_empty() {
            space.memory = None;
        }
        !space.arena.is_empty()
    });
}

impl From<CudaSlice<f32>> for Lot {
    fn from(slice: CudaSlice<f32>) -> Self {
        Self {
            slice: ManuallyDrop::new(slice),
            home: None,
        }
    }
}

impl Lot {
    /// What the driver gave.
    ///
    /// # Errors
    /// A piece of a pool, which is no memory of its own.
    pub(super) fn into_slice(self) -> Result<CudaSlice<f32>> {
        if self.home.is_some() {
            bail!("a piece of a pool cannot become a tensor");
        }
        let mut this = ManuallyDrop::new(self);
        // SAFETY: it is taken once, as the lot is not dropped.
        Ok(unsafe { ManuallyDrop::take(&mut this.slice) })
    }
}

impl Drop for Lot {
    fn drop(&mut self) {
        // SAFETY: nothing uses it after.
        let slice = unsafe { ManuallyDrop::take(&mut self.slice) };
        let Some(home) = self.home.take() else {
            return;
        };
        let len = slice.len();
        if home.is_within {
            slice.leak();
        } else {
            drop(slice);
        }
        home.pool.give_back(home.begin, len);
    }
}

impl Deref for Lot {
    type Target = CudaSlice<f32>;

    fn deref(&self) -> &Self::Target {
        &self.slice
    }
}

impl DerefMut for Lot {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.slice
    }
}
