//! ZIP: files anywhere, and a directory of them at the end.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::{ArchiveSummary, ArchivedImage, archive_error, bomb, largest_growth, visit_file};
use crate::DatasetError;

pub(super) fn visit(
    path: &Path,
    file: File,
    visit: &mut dyn FnMut(ArchivedImage<'_>) -> Result<(), DatasetError>,
) -> Result<ArchiveSummary, DatasetError> {
    let length = file
        .metadata()
        .map_err(DatasetError::io("read", path))?
        .len();
    let reader = BufReader::with_capacity(1 << 18, file);
    let mut archive =
        zip::ZipArchive::new(reader).map_err(|error| archive_error(path, error.to_string()))?;
    let mut summary = ArchiveSummary::default();
    let mut produced = 0;
    for index in 0..archive.len() {
        let mut entry = match archive.by_index(index) {
            Ok(entry) => entry,
            // One that is encrypted, or compressed in a way that is not read.
            Err(error) => {
                summary.refuse(&format!("entry {}", index + 1), error.to_string());
                continue;
            }
        };
        let entry_path = match entry.name() {
            Ok(name) => name.into_owned(),
            Err(error) => {
                summary.refuse(&format!("entry {}", index + 1), error.to_string());
                continue;
            }
        };
        if entry.is_dir() {
            continue;
        }
        if entry.is_symlink() {
            summary.refuse(&entry_path, "it is a link");
            continue;
        }
        let declared = entry.size();
        let mut metered = Metered {
            inner: &mut entry,
            produced: &mut produced,
            most: largest_growth(length),
        };
        visit_file(&entry_path, declared, &mut metered, &mut summary, visit)?;
        if produced > largest_growth(length) {
            return Err(archive_error(path, bomb().to_string()));
        }
    }
    Ok(summary)
}

/// Entries that overlap make much of little, whatever each of them declares.
struct Metered<'a, R> {
    inner: R,
    produced: &'a mut u64,
    most: u64,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n_read = self.inner.read(buffer)?;
        *self.produced += n_read as u64;
        if *self.produced > self.most {
            return Err(bomb());
        }
        Ok(n_read)
    }
}
