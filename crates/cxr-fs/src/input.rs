//! Files that are read: what a path may lead to, and how much of it.

use std::fs::{File, FileType, Metadata};
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

use crate::FsError;

/// By so many bytes a file is recognised.
const BEGINNING: u64 = 512;

/// Opens a regular file to be read, links followed.
///
/// # Errors
/// There is none, it cannot be read, or it is a folder, a device, a pipe or a socket: those have no length and no
/// bytes to come back to, some have no end, and opening a pipe waits for its writer.
pub fn open_regular(path: &Path) -> Result<File, FsError> {
    open(path, &[Kind::Regular])
}

/// Opens a regular file or a pipe to be read from its beginning to its end, links followed. A pipe's writer is waited
/// for, and there is no second look at what has been read.
///
/// # Errors
/// As [`open_regular`], except that a pipe is opened.
pub fn open_stream(path: &Path) -> Result<File, FsError> {
    open(path, &[Kind::Regular, Kind::Pipe])
}

/// Reads a whole file that [`open_regular`] opens, of at most `limit` bytes.
///
/// # Errors
/// As [`open_regular`]; and [`ErrorKind::FileTooLarge`], before a byte is read, for a file of more than `limit` bytes.
pub fn read_regular(path: &Path, limit: u64) -> Result<Vec<u8>, FsError> {
    read_all(open_regular(path)?, path, limit)
}

/// As [`read_regular`], but reads no further than the first 512 bytes, and returns them, where these are not what a file
/// `is_wanted` begins with: what is wrong with it shows in them.
///
/// # Errors
/// As [`read_regular`].
pub fn read_recognised(
    path: &Path,
    limit: u64,
    is_wanted: impl FnOnce(&[u8]) -> bool,
) -> Result<Vec<u8>, FsError> {
    let file = open_regular(path)?;
    let mut beginning = Vec::new();
    (&file)
        .take(BEGINNING)
        .read_to_end(&mut beginning)
        .map_err(FsError::at("read", path))?;
    if !is_wanted(&beginning) {
        return Ok(beginning);
    }
    std::io::Seek::rewind(&mut &file).map_err(FsError::at("read", path))?;
    read_all(file, path, limit)
}

/// Reads a whole file or pipe that [`open_stream`] opens, of at most `limit` bytes.
///
/// # Errors
/// As [`open_stream`]; and [`ErrorKind::FileTooLarge`] for more than `limit` bytes.
pub fn read_stream(path: &Path, limit: u64) -> Result<Vec<u8>, FsError> {
    read_all(open_stream(path)?, path, limit)
}

/// As [`read_stream`], of text in UTF-8.
///
/// # Errors
/// As [`read_stream`]; and [`ErrorKind::InvalidData`] for other bytes.
pub fn read_text(path: &Path, limit: u64) -> Result<String, FsError> {
    let bytes = read_stream(path, limit)?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let problem = format!("expected text in UTF-8, got another byte at {at}");
        FsError::at("read", path)(io::Error::new(ErrorKind::InvalidData, problem))
    })
}

/// What a path leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Regular,
    Folder,
    Pipe,
    Device,
}

impl Kind {
    #[cfg(unix)]
    fn of(kind: FileType) -> Self {
        use std::os::unix::fs::FileTypeExt as _;
        if kind.is_file() {
            Self::Regular
        } else if kind.is_dir() {
            Self::Folder
        } else if kind.is_fifo() || kind.is_socket() {
            Self::Pipe
        } else {
            Self::Device
        }
    }

    #[cfg(not(unix))]
    fn of(kind: FileType) -> Self {
        if kind.is_file() {
            Self::Regular
        } else if kind.is_dir() {
            Self::Folder
        } else {
            Self::Device
        }
    }
}

fn open(path: &Path, allowed: &[Kind]) -> Result<File, FsError> {
    let failed = || FsError::at("read", path);
    let check = |metadata: &Metadata| {
        let kind = Kind::of(metadata.file_type());
        let problem = match kind {
            kind if allowed.contains(&kind) => return Ok(()),
            Kind::Folder => {
                let error = io::Error::from(ErrorKind::IsADirectory);
                return Err(failed()(error));
            }
            Kind::Pipe => {
                "expected a regular file, got a pipe\nhint: write what comes out of it to a file"
            }
            _ if allowed.contains(&Kind::Pipe) => "expected a file or a pipe, got a device",
            _ => "expected a regular file, got a device",
        };
        Err(failed()(io::Error::new(ErrorKind::InvalidInput, problem)))
    };
    // Before it is opened, as opening a pipe waits; and after, as it may have changed.
    check(&std::fs::metadata(path).map_err(failed())?)?;
    let file = File::open(path).map_err(failed())?;
    check(&file.metadata().map_err(failed())?)?;
    Ok(file)
}

fn read_all(file: File, path: &Path, limit: u64) -> Result<Vec<u8>, FsError> {
    let failed = || FsError::at("read", path);
    let too_large = |length: &str| {
        let problem = format!("expected at most {limit} bytes, got {length}");
        io::Error::new(ErrorKind::FileTooLarge, problem)
    };
    let length = file.metadata().map_err(failed())?.len();
    if length > limit {
        return Err(failed()(too_large(&length.to_string())));
    }
    let mut bytes = Vec::new();
    // A file may grow while it is read, and a pipe has no length.
    let mut bounded = file.take(limit.saturating_add(1));
    bounded.read_to_end(&mut bytes).map_err(failed())?;
    if bytes.len() as u64 > limit {
        return Err(failed()(too_large("more")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read_regular(&path, 5).unwrap(), b"12345");
        assert_eq!(read_text(&path, 5).unwrap(), "12345");
        let error = read_regular(&path, 4).unwrap_err();
        assert_eq!(error.source.kind(), ErrorKind::FileTooLarge);
        std::fs::write(&path, b"a\xffb").unwrap();
        let error = read_text(&path, 5).unwrap_err();
        assert_eq!(error.source.kind(), ErrorKind::InvalidData);
        let error = read_stream(folder.path(), 5).unwrap_err();
        assert_eq!(error.source.kind(), ErrorKind::IsADirectory);
    }

    // A sparse file of gigabytes was read before its first byte was looked at.
    #[test]
    fn a_file_that_begins_wrong_is_read_no_further() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.png");
        let file = File::create(&path).unwrap();
        file.set_len(3 << 30).unwrap();
        let bytes = read_recognised(&path, u64::MAX, |start| start.starts_with(b"PNG")).unwrap();
        assert_eq!(bytes, [0; 512]);
        std::fs::write(&path, [b"PNG".to_vec(), vec![7; 600]].concat()).unwrap();
        let bytes = read_recognised(&path, 603, |start| start.starts_with(b"PNG")).unwrap();
        assert_eq!((bytes.len(), bytes.first()), (603, Some(&b'P')));
        assert!(read_recognised(&path, 602, |_| true).is_err());
    }

    // A link to `/dev/zero` once took all of the memory.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_has_no_end_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("image.png");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        for path in [Path::new("/dev/zero"), &link] {
            for error in [
                read_regular(path, 9).unwrap_err(),
                read_stream(path, 9).unwrap_err(),
            ] {
                assert!(error.source.to_string().contains("a device"), "{error:?}");
            }
        }
    }

    // Opening a pipe without a writer waits for one for ever.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_pipe_is_read_where_that_is_meant_and_refused_elsewhere() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        let path = Path::new(&name);
        let error = open_regular(path).unwrap_err();
        assert!(error.source.to_string().contains("a pipe"), "{error:?}");
        std::io::Write::write_all(&mut writer, b"text").unwrap();
        drop(writer);
        assert_eq!(read_stream(path, 9).unwrap(), b"text");
    }
}
