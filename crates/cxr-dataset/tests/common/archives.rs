//! Archives made for tests, among them those that no honest program would write.

use std::io::{Cursor, Write};

/// An entry of an archive.
#[derive(Clone)]
pub(crate) enum Item {
    Folder(String),
    File {
        path: String,
        bytes: Vec<u8>,
    },
    /// A symbolic link and where it points.
    Link(String, String),
    /// In TAR alone: an entry of this type, without contents.
    Special(String, u8),
}

impl Item {
    pub(crate) fn file(path: &str, bytes: Vec<u8>) -> Self {
        Self::File {
            path: path.to_owned(),
            bytes,
        }
    }
}

pub(crate) fn tar(items: &[Item]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        let (path, kind, bytes, target) = match item {
            Item::Folder(path) => (path, tar::EntryType::Directory, &[][..], ""),
            Item::File { path, bytes } => (path, tar::EntryType::Regular, bytes.as_slice(), ""),
            Item::Link(path, target) => (path, tar::EntryType::Symlink, &[][..], target.as_str()),
            Item::Special(path, kind) => (path, tar::EntryType::new(*kind), &[][..], "x"),
        };
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        // The library's own functions refuse paths that climb.
        let fields = header.as_ustar_mut().unwrap();
        fields.name[..path.len()].copy_from_slice(path.as_bytes());
        fields.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Makes the first entry declare another length.
pub(crate) fn set_tar_size(archive: &mut [u8], size: u64) {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes().copy_from_slice(&archive[..512]);
    header.set_size(size);
    header.set_cksum();
    archive[..512].copy_from_slice(header.as_bytes());
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::new(6);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zip(items: &[Item]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated);
    for item in items {
        match item {
            Item::Folder(path) => writer.add_directory(path, options).unwrap(),
            Item::File { path, bytes } => {
                writer.start_file(path, options).unwrap();
                writer.write_all(bytes).unwrap();
            }
            Item::Link(path, target) => writer.add_symlink(path, target, options).unwrap(),
            Item::Special(..) => panic!("ZIP has no such entries"),
        }
    }
    writer.finish().unwrap().into_inner()
}
