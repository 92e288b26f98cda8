//! Images in archives, read one after the other and never unpacked.
//!
//! TAR, gzip-compressed TAR and ZIP are recognised by their first bytes, and so are images without a known file name
//! extension. No path of an archive is ever used as one: it, or its end, is the image's name, and what
//! climbs (`..`), starts at a root, or is a link is refused. Bytes come through two limits, one for
//! a file and one for how much an archive may grow when it is decompressed, so that a crafted
//! archive costs neither the memory nor the hours that it asks for.

mod tar;
mod zip;

use std::cell::Cell;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use cxr_table::excerpt;

use crate::{DatasetError, ImageFormat, ImageName};

/// The most bytes of one file in an archive: more than any radiograph has.
pub const MAX_ARCHIVED_FILE: u64 = 1 << 28;

/// An archive may grow to this many times its length (and [`FREE_GROWTH`]) when it is read. Images
/// are compressed already and do not grow; uncompressed DICOM files grow a few times.
const MAX_GROWTH: u64 = 100;
/// Growth that every archive may have: small ones with much padding are no bombs.
const FREE_GROWTH: u64 = 1 << 26;
/// Refused entries are named up to this number, and counted beyond it.
const NAMED_REFUSALS: usize = 100;

/// What an archive holds besides the images that were visited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArchiveSummary {
    /// Images that were visited.
    pub n_images: usize,
    /// Files that are no images, such as a README.
    pub n_other: usize,
    /// Their paths, escaped. The first hundred.
    pub other: Vec<String>,
    /// Entries that were refused: their paths, escaped, and why. The first hundred.
    pub refused: Vec<(String, String)>,
    /// How many entries were refused.
    pub n_refused: usize,
}

impl ArchiveSummary {
    fn pass_over(&mut self, path: &str) {
        self.n_other += 1;
        if self.other.len() < NAMED_REFUSALS {
            self.other.push(excerpt(path));
        }
    }

    fn refuse(&mut self, path: &str, reason: impl Into<String>) {
        self.n_refused += 1;
        if self.refused.len() < NAMED_REFUSALS {
            self.refused.push((excerpt(path), reason.into()));
        }
    }
}

/// An image of an archive, not read yet.
pub struct ArchivedImage<'a> {
    path: ImageName,
    length: u64,
    /// What has been read already, to see what it is.
    start: Vec<u8>,
    bytes: &'a mut dyn Read,
}

impl ArchivedImage<'_> {
    /// The last part of its path: its file name.
    pub fn name(&self) -> ImageName {
        ImageName::trusted(self.path.file_name())
    }

    /// Its path in the archive, its folders separated by `/`.
    pub fn path(&self) -> &ImageName {
        &self.path
    }

    /// The length of the file, as the archive says.
    pub fn source_len(&self) -> u64 {
        self.length
    }

    /// Reads the file.
    ///
    /// # Errors
    /// The system's, or the decompressor's.
    pub fn read(self) -> std::io::Result<Vec<u8>> {
        let mut bytes = self.start;
        // One byte more than there should be: a decompressor verifies its checksum at the end.
        let rest = (self.length + 1).saturating_sub(bytes.len() as u64);
        self.bytes.take(rest).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != self.length {
            let problem = format!("expected {} bytes, got {}", self.length, bytes.len());
            return Err(std::io::Error::other(problem));
        }
        Ok(bytes)
    }
}

/// Whether the file begins as an archive does.
pub fn is_archive(path: impl AsRef<Path>) -> bool {
    let mut start = Vec::new();
    let Ok(file) = cxr_fs::open_regular(path.as_ref()) else {
        return false;
    };
    file.take(512).read_to_end(&mut start).is_ok() && Kind::of(&start).is_some()
}

/// The paths of an archive's images, in the archive's order.
///
/// # Errors
/// As [`visit_archive`].
pub fn archived_paths(path: impl AsRef<Path>) -> Result<Vec<ImageName>, DatasetError> {
    let mut paths = Vec::new();
    visit_archive(path, |image| {
        paths.push(image.path().clone());
        Ok(())
    })?;
    Ok(paths)
}

/// Calls `visit` for each image of an archive, in the archive's order. Images that it does not
/// read are skipped.
///
/// # Errors
/// [`DatasetError::Archive`] for a file that is no archive, a truncated or damaged one, or one that
/// grows like a decompression bomb; and what `visit` returns.
pub fn visit_archive(
    path: impl AsRef<Path>,
    mut visit: impl FnMut(ArchivedImage<'_>) -> Result<(), DatasetError>,
) -> Result<ArchiveSummary, DatasetError> {
    let path = path.as_ref();
    let file = cxr_fs::open_regular(path)?;
    let mut start = Vec::new();
    (&file)
        .take(512)
        .read_to_end(&mut start)
        .map_err(DatasetError::io("read", path))?;
    let rewound = std::io::Seek::rewind(&mut &file);
    rewound.map_err(DatasetError::io("read", path))?;
    match Kind::of(&start) {
        Some(Kind::Zip) => zip::visit(path, file, &mut visit),
        Some(Kind::Gzip) => {
            let consumed = Cell::new(0);
            let counted = BufReader::with_capacity(1 << 18, Counted(file, &consumed));
            let plain = flate2::read::MultiGzDecoder::new(counted);
            tar::visit(path, Bounded::new(plain, &consumed), &mut visit)
        }
        Some(Kind::Tar) => {
            let plain = BufReader::with_capacity(1 << 18, file);
            tar::visit(path, plain, &mut visit)
        }
        None => Err(archive_error(
            path,
            "expected a TAR, gzip-compressed TAR or ZIP archive",
        )),
    }
}

enum Kind {
    Tar,
    Gzip,
    Zip,
}

impl Kind {
    fn of(start: &[u8]) -> Option<Self> {
        if start.starts_with(&[0x1f, 0x8b]) {
            Some(Self::Gzip)
        } else if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
            Some(Self::Zip)
        } else if start.get(257..262) == Some(b"ustar") {
            Some(Self::Tar)
        } else {
            None
        }
    }
}

/// What an entry's path says of it.
enum Entry {
    /// A file, and whether it is an image by its name.
    File(ImageName, bool),
    Other,
    Refused(String),
}

impl Entry {
    fn of(path: &str) -> Self {
        let parts = || {
            path.split(['/', '\\'])
                .filter(|part| !matches!(*part, "" | "."))
        };
        if path.starts_with(['/', '\\']) || path.get(1..2) == Some(":") {
            return Self::Refused("its path is absolute".to_owned());
        }
        if parts().any(|part| part == "..") {
            return Self::Refused("its path leaves the archive".to_owned());
        }
        let name = parts().next_back().unwrap_or_default();
        if parts().any(is_added_by_a_system) {
            return Self::Other;
        }
        let is_image = has_image_extension(name);
        // Folders that no image can lie in leave the file's own name.
        let whole = parts().collect::<Vec<_>>().join("/");
        match ImageName::new(&whole).or_else(|_| ImageName::new(name)) {
            Ok(path) => Self::File(path, is_image),
            Err(error) if is_image => Self::Refused(error.to_string()),
            Err(_) => Self::Other,
        }
    }
}

/// Calls `visit` for a plain file of an archive if it is an image, by its name or by its first bytes.
fn visit_file(
    entry_path: &str,
    length: u64,
    bytes: &mut dyn Read,
    summary: &mut ArchiveSummary,
    visit: &mut dyn FnMut(ArchivedImage<'_>) -> Result<(), DatasetError>,
) -> Result<(), DatasetError> {
    let (path, is_image) = match Entry::of(entry_path) {
        Entry::Other => {
            summary.pass_over(entry_path);
            return Ok(());
        }
        Entry::Refused(reason) => {
            summary.refuse(entry_path, reason);
            return Ok(());
        }
        Entry::File(path, is_image) => (path, is_image),
    };
    let mut start = Vec::new();
    if !is_image {
        let sniffed = length.min(ImageFormat::SNIFFED_BYTES as u64);
        if let Err(error) = bytes.take(sniffed).read_to_end(&mut start) {
            summary.refuse(entry_path, error.to_string());
            return Ok(());
        }
        if ImageFormat::sniff(&start).is_none() {
            summary.pass_over(entry_path);
            return Ok(());
        }
    }
    if let Err(reason) = check_length(length) {
        summary.refuse(entry_path, reason);
        return Ok(());
    }
    summary.n_images += 1;
    visit(ArchivedImage {
        path,
        length,
        start,
        bytes,
    })
}

/// Whether it is the name of a file or folder that a system adds to those of its user: macOS's attributes (`._x.png`
/// beside every `x.png`), indices of folders, previews, and the table of contents of a DICOM medium.
pub(crate) fn is_added_by_a_system(name: &str) -> bool {
    const NAMES: [&str; 6] = [
        ".DS_Store",
        "__MACOSX",
        "@eaDir",
        "Thumbs.db",
        "desktop.ini",
        "DICOMDIR",
    ];
    name.starts_with("._") || NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Whether a file name ends as those of the images that this build reads do: `.png`, `.jpg`,
/// `.jpeg`, and with the feature `dicom` `.dcm` and `.dicom`.
pub fn has_image_extension(name: &str) -> bool {
    const ALWAYS: [&str; 3] = ["png", "jpg", "jpeg"];
    const DICOM: [&str; 2] = ["dcm", "dicom"];
    let extension = Path::new(name).extension().and_then(|end| end.to_str());
    let is = |known: &&str| extension.is_some_and(|found| found.eq_ignore_ascii_case(known));
    ALWAYS.iter().any(is) || (cfg!(feature = "dicom") && DICOM.iter().any(is))
}

/// Refuses a file that is longer than any image.
fn check_length(length: u64) -> Result<(), String> {
    if length > MAX_ARCHIVED_FILE {
        return Err(format!(
            "expected at most {MAX_ARCHIVED_FILE} bytes, got {length}"
        ));
    }
    Ok(())
}

fn archive_error(path: &Path, problem: impl Into<String>) -> DatasetError {
    DatasetError::Archive {
        path: path.to_owned(),
        problem: problem.into(),
    }
}

/// The most bytes that so many bytes of an archive may become.
fn largest_growth(compressed: u64) -> u64 {
    compressed
        .saturating_mul(MAX_GROWTH)
        .saturating_add(FREE_GROWTH)
}

fn bomb() -> std::io::Error {
    std::io::Error::other(format!(
        "it grows to more than {MAX_GROWTH} times its length, like a decompression bomb"
    ))
}

/// Counts the bytes that are taken from a file.
struct Counted<'a>(File, &'a Cell<u64>);

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n_read = self.0.read(buffer)?;
        self.1.set(self.1.get() + n_read as u64);
        Ok(n_read)
    }
}

/// Stops a decompressor that makes too much of too little.
struct Bounded<'a, R> {
    inner: R,
    consumed: &'a Cell<u64>,
    produced: u64,
}

impl<'a, R: Read> Bounded<'a, R> {
    fn new(inner: R, consumed: &'a Cell<u64>) -> Self {
        Self {
            inner,
            consumed,
            produced: 0,
        }
    }
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n_read = self.inner.read(buffer)?;
        self.produced += n_read as u64;
        if self.produced > largest_growth(self.consumed.get()) {
            return Err(bomb());
        }
        Ok(n_read)
    }
}
