//! TAR: a chain of headers and files, read in one pass.

use std::io::Read;
use std::path::Path;

use tar::EntryType;

use super::{ArchiveSummary, ArchivedImage, archive_error, visit_file};
use crate::DatasetError;

/// The most bytes of an entry that only describes the next one: a long path, or attributes.
const MAX_DESCRIPTION: u64 = 1 << 16;

pub(super) fn visit(
    path: &Path,
    reader: impl Read,
    visit: &mut dyn FnMut(ArchivedImage<'_>) -> Result<(), DatasetError>,
) -> Result<ArchiveSummary, DatasetError> {
    let damaged = |error: std::io::Error| archive_error(path, error.to_string());
    let mut reader = Tail {
        inner: reader,
        n_zeros: 0,
    };
    let mut summary = ArchiveSummary::default();
    let mut archive = tar::Archive::new(&mut reader);
    // Raw entries: the library would take long paths of any length into memory.
    let entries = archive.entries().map_err(damaged)?.raw(true);
    let mut long_path: Option<String> = None;
    for entry in entries {
        let mut entry = entry.map_err(damaged)?;
        let length = entry.header().entry_size().map_err(damaged)?;
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName => {
                let text = describe(&mut entry, length).map_err(damaged)?;
                long_path = Some(text.trim_end_matches('\0').to_owned());
                continue;
            }
            EntryType::XHeader => {
                let text = describe(&mut entry, length).map_err(damaged)?;
                long_path = extended_path(&text).or(long_path);
                continue;
            }
            EntryType::GNULongLink | EntryType::XGlobalHeader => continue,
            _ => {}
        }
        let entry_path = long_path
            .take()
            .unwrap_or_else(|| String::from_utf8_lossy(&entry.header().path_bytes()).into_owned());
        match kind {
            EntryType::Directory => continue,
            EntryType::Regular | EntryType::Continuous => {}
            EntryType::Link | EntryType::Symlink => {
                summary.refuse(&entry_path, "it is a link");
                continue;
            }
            _ => {
                summary.refuse(&entry_path, "it is no plain file");
                continue;
            }
        }
        visit_file(&entry_path, length, &mut entry, &mut summary, visit)?;
    }
    // To the very end, where a compressed archive has its checksum.
    let _padding = std::io::copy(&mut reader, &mut std::io::sink()).map_err(damaged)?;
    if reader.n_zeros < END_MARK {
        return Err(archive_error(
            path,
            "it is truncated: its end mark is missing",
        ));
    }
    Ok(summary)
}

/// An archive ends with blocks of zeros; one that is cut between two files has none.
const END_MARK: u64 = 512;

/// Counts the zeros at the end of what was read.
struct Tail<R> {
    inner: R,
    n_zeros: u64,
}

impl<R: Read> Read for Tail<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n_read = self.inner.read(buffer)?;
        let bytes = buffer.get(..n_read).unwrap_or(&[]);
        match bytes.iter().rposition(|&byte| byte != 0) {
            Some(last) => self.n_zeros = (bytes.len() - 1 - last) as u64,
            None => self.n_zeros += bytes.len() as u64,
        }
        Ok(n_read)
    }
}

fn describe(entry: &mut impl Read, length: u64) -> std::io::Result<String> {
    if length > MAX_DESCRIPTION {
        return Err(std::io::Error::other(format!(
            "an entry is described by {length} bytes, more than {MAX_DESCRIPTION}"
        )));
    }
    let mut bytes = Vec::new();
    entry.take(MAX_DESCRIPTION).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The record `path` of extended attributes: lines of a length, a space, a key, `=` and a value.
fn extended_path(text: &str) -> Option<String> {
    let records = text.lines().filter_map(|line| line.split_once(' '));
    let mut paths = records.filter_map(|(_, record)| record.strip_prefix("path="));
    paths.next_back().map(str::to_owned)
}
