//! The prepared store: every image of a data set, decoded, grey and resized, in one file from which
//! images are read by name.

mod builder;
mod format;
mod insert;
mod prepare;
mod read;

pub use builder::StoreBuilder;
pub use insert::Inserted;
pub use prepare::{PrepareOptions, Prepared, Progress, prepare};

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprinter;
use crate::{DatasetError, Fingerprint, ImageAttributes, ImageName, Tone, WarningKind};
use format::{ENTRY_LEN, Entry, HEADER_LEN, Header};
use read::read_exact_at;

const PREPARE_AGAIN: &str = "delete it and prepare it again";

/// How the images of a store are made: grey in a [`Tone`], resized to a square by antialiased
/// bicubic resizing, 8 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawSettings", into = "RawSettings")]
pub struct StoreSettings {
    side: u32,
    tone: Tone,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSettings {
    side: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    stretched: bool,
}

impl TryFrom<RawSettings> for StoreSettings {
    type Error = DatasetError;

    fn try_from(raw: RawSettings) -> Result<Self, DatasetError> {
        let tone = match raw.stretched {
            true => Tone::Stretched,
            false => Tone::AsStored,
        };
        Ok(Self::new(raw.side)?.in_tone(tone))
    }
}

impl From<StoreSettings> for RawSettings {
    fn from(settings: StoreSettings) -> Self {
        Self {
            side: settings.side,
            stretched: settings.tone == Tone::Stretched,
        }
    }
}

impl StoreSettings {
    /// Images of `side × side` pixels.
    ///
    /// # Errors
    /// [`DatasetError::ImageShape`] unless `side` is from 1 to 8192.
    pub fn new(side: u32) -> Result<Self, DatasetError> {
        if (1..=8192).contains(&side) {
            Ok(Self {
                side,
                tone: Tone::AsStored,
            })
        } else {
            Err(DatasetError::ImageShape {
                problem: format!("expected a side from 1 to 8192 pixels, got {side}"),
            })
        }
    }

    /// The same, of images whose grey levels are made in this tone.
    #[must_use]
    pub fn in_tone(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }

    /// Width and height of every image, in pixels.
    pub fn side(&self) -> u32 {
        self.side
    }

    /// How values become grey levels.
    pub fn tone(&self) -> Tone {
        self.tone
    }
}

impl Default for StoreSettings {
    /// The paper's 256×256.
    fn default() -> Self {
        Self {
            side: 256,
            tone: Tone::AsStored,
        }
    }
}

/// A prepared store, opened for reading.
///
/// Opening reads and verifies header, index and length. Every read of an image reads its pixels from the file and
/// verifies their checksum, so a file that is changed, cut or overwritten while it is open gives an error and never
/// other pixels. One that is replaced by another file, as [`StoreBuilder::commit`] does, goes on being read as it was.
pub struct Store {
    path: PathBuf,
    file: File,
    /// The file's bytes before the pixels, header included.
    index: Vec<u8>,
    header: Header,
    n_present: usize,
    names_at: usize,
    entries_at: usize,
    pixels_at: usize,
}

impl Store {
    /// Opens a store.
    ///
    /// # Errors
    /// [`DatasetError::Store`] when the file is unfinished, truncated or damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DatasetError> {
        let path = path.as_ref();
        let file = cxr_fs::open_regular(path)?;
        let metadata = file.metadata().map_err(DatasetError::io("open", path))?;
        let mut start = Vec::with_capacity(HEADER_LEN);
        (&file)
            .take(HEADER_LEN as u64)
            .read_to_end(&mut start)
            .map_err(DatasetError::io("read", path))?;
        let header = Header::parse(&start).map_err(|problem| store_error(path, problem))?;
        if !header.complete {
            return Err(DatasetError::Store {
                path: path.to_owned(),
                problem: "it is unfinished".to_owned(),
                repair: "prepare it to its end",
            });
        }
        let layout = header.layout;
        if layout.file_len() != Some(metadata.len()) {
            let expected = layout.file_len().unwrap_or(u64::MAX);
            let problem = format!("expected {expected} bytes, got {}", metadata.len());
            return Err(store_error(path, problem));
        }
        let at = |offset: Option<u64>| offset.and_then(|offset| usize::try_from(offset).ok());
        let too_large = || store_error(path, "it does not fit this machine's memory");
        let (Some(names_at), Some(entries_at), Some(pixels_at), Ok(n_images)) = (
            at(layout.names_at()),
            at(layout.entries_at()),
            at(layout.pixels_at()),
            usize::try_from(layout.n_images),
        ) else {
            return Err(too_large());
        };
        let mut index = Vec::new();
        index
            .try_reserve_exact(pixels_at)
            .map_err(|_| too_large())?;
        index.resize(pixels_at, 0);
        read_exact_at(&file, &mut index, 0).map_err(DatasetError::io("read", path))?;
        let mut store = Self {
            path: path.to_owned(),
            file,
            index,
            header,
            n_present: 0,
            names_at,
            entries_at,
            pixels_at,
        };
        store.verify_index(n_images)?;
        Ok(store)
    }

    /// The pixels of one image: `side × side` bytes, row by row, as they are in the file now.
    ///
    /// # Errors
    /// [`DatasetError::NotInStore`], or [`DatasetError::Store`] when the pixels do not match their
    /// checksum or are no longer in the file.
    pub fn image(&self, name: &ImageName) -> Result<Vec<u8>, DatasetError> {
        let (slot, entry) = self.find(name).ok_or_else(|| DatasetError::NotInStore {
            path: self.path.clone(),
            name: name.to_string(),
        })?;
        let length = self.image_len();
        let mut pixels = vec![0; length];
        let begin = self.pixels_at as u64 + slot as u64 * length as u64;
        match read_exact_at(&self.file, &mut pixels, begin) {
            Ok(()) if crc32fast::hash(&pixels) == entry.pixels_crc => Ok(pixels),
            Ok(()) => Err(store_error(
                &self.path,
                format!("the pixels of `{name}` are damaged"),
            )),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(store_error(
                &self.path,
                format!("the pixels of `{name}` are gone: the file was cut after it was opened"),
            )),
            Err(error) => Err(DatasetError::io("read", &self.path)(error)),
        }
    }

    /// A number that tells an image from the others of this store, for who keeps something of each; `None` for an image
    /// that it does not hold.
    pub fn number(&self, name: &ImageName) -> Option<usize> {
        self.find(name).map(|(slot, _)| slot)
    }

    /// Whether the store holds the image.
    pub fn contains(&self, name: &ImageName) -> bool {
        self.find(name).is_some()
    }

    /// The names of the images it holds, sorted.
    pub fn names(&self) -> impl Iterator<Item = ImageName> + '_ {
        let slots = 0..self.n_slots();
        slots
            .filter(|&slot| self.entry(slot).is_some_and(|entry| entry.present))
            .filter_map(|slot| self.name(slot).map(ImageName::trusted))
    }

    /// How many images it holds.
    pub fn len(&self) -> usize {
        self.n_present
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.n_present == 0
    }

    /// Width and height of every image, in pixels.
    pub fn side(&self) -> usize {
        self.header.settings.side() as usize
    }

    /// How its images were made.
    pub fn settings(&self) -> StoreSettings {
        self.header.settings
    }

    /// A digest of settings, names and pixel checksums: equal for two stores of the same pixels.
    pub fn fingerprint(&self) -> Fingerprint {
        self.header.fingerprint
    }

    /// A digest of the names, lengths and checksums of the files it was made from.
    pub fn source_fingerprint(&self) -> Fingerprint {
        self.header.source_fingerprint
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the file an image was made from; `None` for an image that it does not hold.
    pub fn source_len(&self, name: &ImageName) -> Option<u64> {
        self.find(name).map(|(_, entry)| entry.source_len)
    }

    /// Age, sex and view, where the file that an image was made from was a DICOM file that gave them; `None` for an image
    /// that the store does not hold, or that an earlier version prepared, which did not look for them.
    pub fn attributes(&self, name: &ImageName) -> Option<ImageAttributes> {
        self.find(name)?.1.attributes
    }

    /// What was said of its images when they were prepared, by kind, sorted by name.
    pub fn warnings(&self) -> Vec<(ImageName, WarningKind)> {
        let mut warnings = Vec::new();
        for slot in 0..self.n_slots() {
            if let (Some(entry), Some(name)) = (self.entry(slot), self.name(slot))
                && entry.present
            {
                warnings.extend(entry.kinds().map(|kind| (ImageName::trusted(name), kind)));
            }
        }
        warnings
    }

    fn verify_index(&mut self, n_images: usize) -> Result<(), DatasetError> {
        let index = self.index.get(HEADER_LEN..self.pixels_at).unwrap_or(&[]);
        if crc32fast::hash(index) != self.header.index_crc {
            return Err(store_error(&self.path, "its index is damaged"));
        }
        // The checksum finds accidents; what follows keeps a crafted file from misleading a reader.
        let crafted = || store_error(&self.path, "its index contradicts itself");
        let mut previous: Option<&str> = None;
        let mut n_present = 0;
        for slot in 0..n_images {
            let name = self.name(slot).ok_or_else(crafted)?;
            let sorted = previous.is_none_or(|previous| previous < name);
            if !sorted || ImageName::broken_rule(name).is_some() {
                return Err(crafted());
            }
            previous = Some(name);
            n_present += usize::from(self.entry(slot).ok_or_else(crafted)?.present);
        }
        self.n_present = n_present;
        Ok(())
    }

    fn find(&self, name: &ImageName) -> Option<(usize, Entry)> {
        let (mut low, mut high) = (0, self.n_slots());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.name(middle)?.cmp(name.as_str()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => {
                    return self
                        .entry(middle)
                        .filter(|entry| entry.present)
                        .map(|entry| (middle, entry));
                }
            }
        }
        None
    }

    fn n_slots(&self) -> usize {
        self.header.layout.n_images as usize
    }

    fn image_len(&self) -> usize {
        self.header.layout.image_len() as usize
    }

    fn name(&self, slot: usize) -> Option<&str> {
        let offset = |slot: usize| format::u32_at(&self.index, HEADER_LEN + 4 * slot);
        let (begin, end) = (offset(slot)? as usize, offset(slot + 1)? as usize);
        if end as u64 > self.header.layout.names_len {
            return None;
        }
        let name = self.index.get(self.names_at + begin..self.names_at + end)?;
        std::str::from_utf8(name).ok()
    }

    fn entry(&self, slot: usize) -> Option<Entry> {
        let begin = self.entries_at + ENTRY_LEN * slot;
        Entry::parse(self.index.get(begin..begin + ENTRY_LEN)?)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Store")
            .field("path", &self.path)
            .field("side", &self.side())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

fn store_error(path: &Path, problem: impl Into<String>) -> DatasetError {
    DatasetError::Store {
        path: path.to_owned(),
        problem: problem.into(),
        repair: PREPARE_AGAIN,
    }
}

/// The digests of a store's content and of its sources.
fn fingerprints(
    settings: StoreSettings,
    images: &[(&ImageName, Entry)],
) -> (Fingerprint, Fingerprint) {
    let mut content = Fingerprinter::default();
    content.text("cxr prepared images 1");
    content.number(u64::from(settings.side()));
    if settings.tone() == Tone::Stretched {
        content.text("stretched");
    }
    let mut sources = Fingerprinter::default();
    sources.text("cxr source images 1");
    for (name, entry) in images {
        content.text(name.as_str());
        content.number(u64::from(entry.pixels_crc));
        sources.text(name.as_str());
        sources.number(entry.source_len);
        sources.number(u64::from(entry.source_crc));
    }
    (content.finish(), sources.finish())
}
