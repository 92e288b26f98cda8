//! A store being made: images arrive in any order, from any thread, and survive a kill.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::format::{self, ENTRY_LEN, Entry, HEADER_LEN, Header, Layout};
use super::{Store, StoreSettings, fingerprints, store_error};
use crate::{
    DatasetError, Fingerprint, GrayImage, ImageAttributes, ImageName, ImageWarning,
    decode_radiograph_in, resize_bicubic,
};

const OTHER_IMAGES: &str = "it was begun with other images or settings";

/// Makes a [`Store`] image by image.
///
/// It writes beside the store's place, under the same name with `.partial` behind it, and
/// [`Self::commit`] renames. Dropping it, or a kill, leaves that file for the next builder of the
/// same images, which goes on from there. Images that a finished store at the same place holds
/// already are taken over, so that images can be added to a store.
#[derive(Debug)]
pub struct StoreBuilder {
    target: PathBuf,
    partial: PathBuf,
    settings: StoreSettings,
    layout: Layout,
    names: Vec<ImageName>,
    names_table: Vec<u8>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    entries: Vec<Entry>,
    /// How many of the entries are present.
    n_present: usize,
}

impl StoreBuilder {
    /// Begins, or resumes, a store of the images `names` at `target`.
    ///
    /// # Errors
    /// A name given twice, a file that cannot be written, another process at work on the same
    /// store, or a partial store of other images or settings.
    pub fn create_or_resume(
        target: impl AsRef<Path>,
        names: &[ImageName],
        settings: StoreSettings,
    ) -> Result<Self, DatasetError> {
        let target = target.as_ref().to_owned();
        let mut names = names.to_vec();
        names.sort_unstable();
        if let Some([name, _]) = names
            .array_windows::<2>()
            .find(|[first, second]| first == second)
        {
            return Err(DatasetError::Record {
                name: name.to_string(),
                problem: "the image is given twice".to_owned(),
            });
        }
        let too_large = || store_error(&target, "more images than one store can hold");
        let names_table = format::names_table(&names).ok_or_else(too_large)?;
        let layout = Layout {
            n_images: names.len() as u64,
            names_len: names.iter().map(|name| name.as_str().len() as u64).sum(),
            side: settings.side(),
        };
        let file_len = layout.file_len().ok_or_else(too_large)?;

        let mut partial = target.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&partial)
            .map_err(DatasetError::io("create", &partial))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DatasetError::Store {
                    path: target,
                    problem: "another process is preparing it".to_owned(),
                    repair: "wait until it has finished",
                });
            }
            Err(TryLockError::Error(error)) => {
                return Err(DatasetError::io("lock", &partial)(error));
            }
        }
        let builder = Self {
            target,
            partial,
            settings,
            layout,
            state: Mutex::new(State {
                file,
                entries: vec![Entry::default(); names.len()],
                n_present: 0,
            }),
            names,
            names_table,
        };
        let length = builder.lock().file.metadata();
        let length = length
            .map_err(DatasetError::io("read", &builder.partial))?
            .len();
        if length == 0 {
            builder.begin(file_len)?;
            builder.take_over_finished_store()?;
        } else {
            builder.resume(length, file_len)?;
        }
        Ok(builder)
    }

    /// Whether the image is one of those that the store is made of.
    pub fn expects(&self, name: &ImageName) -> bool {
        self.slot(name).is_some()
    }

    /// How many images it was begun for.
    pub fn n_expected(&self) -> usize {
        self.names.len()
    }

    /// How many of them are done.
    pub fn n_present(&self) -> usize {
        self.lock().n_present
    }

    /// The length that the finished file will have.
    pub fn file_len(&self) -> u64 {
        self.layout.file_len().unwrap_or(u64::MAX)
    }

    /// Whether the image is done already, from a file of this length.
    pub fn holds(&self, name: &ImageName, source_len: u64) -> bool {
        let Some(slot) = self.slot(name) else {
            return false;
        };
        let state = self.lock();
        state
            .entries
            .get(slot)
            .is_some_and(|entry| entry.present && entry.source_len == source_len)
    }

    /// Length and CRC-32 of the file that the image was made from, if it is done.
    pub(super) fn source_of(&self, name: &ImageName) -> Option<(u64, u32)> {
        let state = self.lock();
        let entry = state.entries.get(self.slot(name)?)?;
        (entry.present).then_some((entry.source_len, entry.source_crc))
    }

    /// The images that are still missing, sorted.
    pub fn missing(&self) -> Vec<ImageName> {
        let state = self.lock();
        let slots = self.names.iter().zip(&state.entries);
        slots
            .filter(|(_, entry)| !entry.present)
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Decodes an image file's bytes, resizes, and keeps it; returns what its owner should know of
    /// it. May be called from many threads.
    ///
    /// # Errors
    /// A name that was not announced, bytes that are no image, or a file that cannot be written.
    pub fn insert_encoded(
        &self,
        name: &ImageName,
        bytes: &[u8],
    ) -> Result<Vec<ImageWarning>, DatasetError> {
        self.insert_encoded_from(name, bytes, name.as_ref())
    }

    /// Leaves the image out, should an earlier builder have kept it.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn forget(&self, name: &ImageName) -> Result<(), DatasetError> {
        match self.slot(name) {
            Some(slot) if self.is_present(slot) => self.write_entry(slot, Entry::default()),
            _ => Ok(()),
        }
    }

    pub(super) fn insert_encoded_from(
        &self,
        name: &ImageName,
        bytes: &[u8],
        origin: &Path,
    ) -> Result<Vec<ImageWarning>, DatasetError> {
        let radiograph = decode_radiograph_in(bytes, origin, self.settings.tone())?;
        let warnings = radiograph.warnings;
        let bits = (warnings.iter()).fold(0, |bits, warning| bits | warning.kind().bit());
        let attributes = radiograph.attributes;
        self.insert(name, &radiograph.image, bytes, bits, attributes)?;
        Ok(warnings)
    }

    fn insert(
        &self,
        name: &ImageName,
        image: &GrayImage,
        source: &[u8],
        warnings: u32,
        attributes: ImageAttributes,
    ) -> Result<(), DatasetError> {
        let slot = self.slot(name).ok_or_else(|| DatasetError::NotInStore {
            path: self.target.clone(),
            name: name.to_string(),
        })?;
        let side = self.settings.side() as usize;
        let prepared = resize_bicubic(image, side, side)?;
        let entry = Entry {
            present: true,
            pixels_crc: crc32fast::hash(prepared.pixels()),
            source_crc: crc32fast::hash(source),
            source_len: source.len() as u64,
            warnings,
            attributes: Some(attributes),
        };
        self.write_image(slot, prepared.pixels(), entry)
    }

    /// Finishes: images that are still missing are left out, the rest is written, synced and
    /// renamed to its place.
    ///
    /// # Errors
    /// No image at all, or a file that cannot be written; the partial store stays then.
    pub fn commit(self) -> Result<Store, DatasetError> {
        {
            let mut state = self.lock();
            let present: Vec<(&ImageName, Entry)> = self
                .names
                .iter()
                .zip(state.entries.iter().copied())
                .filter(|(_, entry)| entry.present)
                .collect();
            if present.is_empty() {
                return Err(DatasetError::Store {
                    path: self.target.clone(),
                    problem: "none of its images could be prepared".to_owned(),
                    repair: "see the errors of the images",
                });
            }
            let (fingerprint, source_fingerprint) = fingerprints(self.settings, &present);
            let index = self.index_bytes(&state.entries);
            let header = Header {
                complete: true,
                settings: self.settings,
                layout: self.layout,
                index_crc: crc32fast::hash(&index),
                fingerprint,
                source_fingerprint,
            };
            let mut write = || {
                state.file.seek(SeekFrom::Start(HEADER_LEN as u64))?;
                state.file.write_all(&index)?;
                // Pixels and index are on the disk before the header calls them complete.
                state.file.sync_all()?;
                state.file.seek(SeekFrom::Start(0))?;
                state.file.write_all(&header.to_bytes())?;
                state.file.sync_all()
            };
            write().map_err(DatasetError::io("write", &self.partial))?;
        }
        cxr_fs::rename(&self.partial, &self.target)?;
        Store::open(&self.target)
    }

    /// Gives up: removes the partial store. A finished store at the same place stays.
    ///
    /// # Errors
    /// [`DatasetError::Io`].
    pub fn discard(self) -> Result<(), DatasetError> {
        std::fs::remove_file(&self.partial).map_err(DatasetError::io("remove", &self.partial))
    }

    /// The place of the store.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// A new partial store: header, names and empty entries.
    fn begin(&self, file_len: u64) -> Result<(), DatasetError> {
        let mut state = self.lock();
        let index = self.index_bytes(&state.entries);
        let mut write = || {
            state.file.set_len(file_len)?;
            state.file.seek(SeekFrom::Start(HEADER_LEN as u64))?;
            state.file.write_all(&index)?;
            // The header comes last: a file without it was never begun.
            state.file.seek(SeekFrom::Start(0))?;
            state.file.write_all(&self.unfinished_header().to_bytes())
        };
        write().map_err(DatasetError::io("write", &self.partial))
    }

    /// Takes the images of the finished store at the target, if there is a sound one.
    fn take_over_finished_store(&self) -> Result<(), DatasetError> {
        let Ok(store) = Store::open(&self.target) else {
            return Ok(());
        };
        if store.settings() != self.settings {
            return Ok(());
        }
        for (slot, name) in self.names.iter().enumerate() {
            if let (Some((_, entry)), Ok(pixels)) = (store.find(name), store.image(name)) {
                self.write_image(slot, &pixels, entry)?;
            }
        }
        Ok(())
    }

    /// Goes on with a partial store: every image whose checksum is right counts as done.
    fn resume(&self, length: u64, file_len: u64) -> Result<(), DatasetError> {
        let mut state = self.lock();
        let mut header = [0; HEADER_LEN];
        let mut read_header = || {
            state.file.seek(SeekFrom::Start(0))?;
            state.file.read_exact(&mut header)
        };
        let begun = read_header().is_ok() && header != [0; HEADER_LEN];
        drop(state);
        if !begun {
            return self.begin(file_len);
        }
        let other = |problem: &str| DatasetError::Store {
            path: self.partial.clone(),
            problem: problem.to_owned(),
            repair: "delete it, or prepare the same images again to resume it",
        };
        let header = Header::parse(&header).map_err(other)?;
        let same = header.settings == self.settings && header.layout == self.layout;
        if !same || length != file_len {
            return Err(other(OTHER_IMAGES));
        }
        let mut state = self.lock();
        let State {
            file,
            entries,
            n_present,
        } = &mut *state;
        let mut read = || {
            let mut names = vec![0; self.names_table.len()];
            file.seek(SeekFrom::Start(HEADER_LEN as u64))?;
            file.read_exact(&mut names)?;
            let mut table = vec![0; self.names.len() * ENTRY_LEN];
            file.seek(SeekFrom::Start(self.layout.entries_at().unwrap_or(0)))?;
            file.read_exact(&mut table)?;
            let mut pixels = vec![0; self.layout.image_len() as usize];
            file.seek(SeekFrom::Start(self.layout.pixels_at().unwrap_or(0)))?;
            let mut at_next = true;
            for (slot, (entry, bytes)) in entries
                .iter_mut()
                .zip(table.chunks_exact(ENTRY_LEN))
                .enumerate()
            {
                let Some(found) = Entry::parse(bytes).filter(|entry| entry.present) else {
                    at_next = false;
                    continue;
                };
                if !at_next {
                    file.seek(SeekFrom::Start(self.pixels_offset(slot)))?;
                }
                file.read_exact(&mut pixels)?;
                at_next = true;
                if crc32fast::hash(&pixels) == found.pixels_crc {
                    *entry = found;
                    *n_present += 1;
                }
            }
            Ok(names)
        };
        let names = read().map_err(DatasetError::io("read", &self.partial))?;
        drop(state);
        if names != self.names_table {
            return Err(other(OTHER_IMAGES));
        }
        Ok(())
    }

    fn unfinished_header(&self) -> Header {
        Header {
            complete: false,
            settings: self.settings,
            layout: self.layout,
            index_crc: 0,
            fingerprint: Fingerprint([0; 32]),
            source_fingerprint: Fingerprint([0; 32]),
        }
    }

    /// Everything between header and pixels.
    fn index_bytes(&self, entries: &[Entry]) -> Vec<u8> {
        let mut bytes = self.names_table.clone();
        let pad_to = |bytes: &mut Vec<u8>, at: Option<u64>| {
            let length = at.unwrap_or(0).saturating_sub(HEADER_LEN as u64);
            bytes.resize(length as usize, 0);
        };
        pad_to(&mut bytes, self.layout.entries_at());
        bytes.extend(entries.iter().flat_map(|entry| entry.to_bytes()));
        pad_to(&mut bytes, self.layout.pixels_at());
        bytes
    }

    fn write_image(&self, slot: usize, pixels: &[u8], entry: Entry) -> Result<(), DatasetError> {
        let mut state = self.lock();
        let mut write = || {
            state.file.seek(SeekFrom::Start(self.pixels_offset(slot)))?;
            state.file.write_all(pixels)
        };
        write().map_err(DatasetError::io("write", &self.partial))?;
        drop(state);
        self.write_entry(slot, entry)
    }

    fn write_entry(&self, slot: usize, entry: Entry) -> Result<(), DatasetError> {
        let entry_at = self.layout.entries_at().unwrap_or(0) + (slot * ENTRY_LEN) as u64;
        let mut state = self.lock();
        let mut write = || {
            state.file.seek(SeekFrom::Start(entry_at))?;
            state.file.write_all(&entry.to_bytes())
        };
        write().map_err(DatasetError::io("write", &self.partial))?;
        let was_present = state.entries.get(slot).is_some_and(|held| held.present);
        if let Some(held) = state.entries.get_mut(slot) {
            *held = entry;
        }
        state.n_present =
            (state.n_present + usize::from(entry.present)).saturating_sub(usize::from(was_present));
        Ok(())
    }

    fn is_present(&self, slot: usize) -> bool {
        self.lock()
            .entries
            .get(slot)
            .is_some_and(|entry| entry.present)
    }

    fn pixels_offset(&self, slot: usize) -> u64 {
        self.layout.pixels_at().unwrap_or(0) + slot as u64 * self.layout.image_len()
    }

    fn slot(&self, name: &ImageName) -> Option<usize> {
        self.names.binary_search(name).ok()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere cannot leave an entry that claims more than the file holds.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
