//! Whole files or none.

#[cfg(unix)]
use std::fs::TryLockError;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::FsError;

/// What the names of files begin and end with that are not yet in their place; between are six letters or digits.
const UNFINISHED: (&str, &str) = (".tmp", ".tmp");
const RANDOM_CHARACTERS: usize = 6;

/// Links that lead on to links; the systems' own limit is of this size.
const MAX_LINKS: usize = 40;

/// Writes `bytes` to a file: see [`write_with`].
///
/// # Errors
/// The file cannot be written; what was there before still is.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    write_with(path, |file| file.write_all(bytes))
}

/// Writes a file beside its place, syncs it, renames it there and syncs the folder, so that neither a reader nor a full
/// disk, a kill or a power cut ever leaves half of it. The folder has to exist.
///
/// A link is followed and stays; the permissions of a file that is replaced are kept; a device, a pipe or an open file
/// such as `/dev/stdout` is written to as it is, and a pipe whose reader has gone away is no error.
///
/// # Errors
/// The file cannot be written, or is read-only; what was there before still is.
pub fn write_with(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), FsError> {
    replace(path, Durability::Synced, write)
}

/// As [`write`](fn@write), but leaves it to the system when the bytes reach the disk: whole after a kill, not after a power
/// cut. For thousands of files that can be made again, such as drawn images.
///
/// # Errors
/// The file cannot be written; what was there before still is.
pub fn write_unsynced(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    replace(path, Durability::Unsynced, |file| file.write_all(bytes))
}

/// Whether bytes are on the disk before a write is called done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    Synced,
    Unsynced,
}

fn replace(
    path: &Path,
    durability: Durability,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), FsError> {
    match destination(path)? {
        Destination::Stream(place) => {
            let mut file = open_stream(&place).map_err(FsError::at("open", path))?;
            match write(&mut file).and_then(|()| file.flush()) {
                // A reader that has gone away, such as `head`, has read what it wanted.
                Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                    Err(FsError::at("write", path)(error))
                }
                _ => Ok(()),
            }
        }
        Destination::File { place, before } => {
            let file = write_beside(&place, before.as_ref(), durability, write)?;
            file.persist(&place)
                .map_err(|error| FsError::at("write", path)(error.error))?;
            match durability {
                Durability::Synced => sync_folder(folder_of(&place)),
                Durability::Unsynced => Ok(()),
            }
        }
    }
}

/// Where bytes for a path go.
pub(crate) enum Destination {
    /// A regular file, which may exist already.
    File {
        place: PathBuf,
        before: Option<Metadata>,
    },
    /// A device, a pipe or a socket.
    Stream(PathBuf),
}

/// Follows links, and looks at what is there.
pub(crate) fn destination(path: &Path) -> Result<Destination, FsError> {
    let mut place = path.to_owned();
    for _ in 0..MAX_LINKS {
        let metadata = match std::fs::symlink_metadata(&place) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Destination::File {
                    place,
                    before: None,
                });
            }
            Err(error) => return Err(FsError::at("write", path)(error)),
        };
        let kind = metadata.file_type();
        if kind.is_symlink() {
            let target =
                std::fs::read_link(&place).map_err(FsError::at("read the link", &place))?;
            // Of an open file of a process, such as `/dev/stdout`, the link is a name, not a path.
            if is_descriptor(&place)
                || std::fs::metadata(&place).is_ok_and(|metadata| !metadata.is_file())
            {
                return Ok(Destination::Stream(place));
            }
            place = folder_of(&place).join(target);
        } else if kind.is_dir() {
            let error = io::Error::from(ErrorKind::IsADirectory);
            return Err(FsError::at("write", path)(error));
        } else if kind.is_file() {
            let before = Some(metadata);
            return Ok(Destination::File { place, before });
        } else {
            return Ok(Destination::Stream(place));
        }
    }
    let error = io::Error::other("its links lead round in a circle");
    Err(FsError::at("write", path)(error))
}

/// Whether it is an open file of a process, as Linux shows them. Replacing the file by its name would leave whatever else
/// the process writes there in a file without one.
fn is_descriptor(place: &Path) -> bool {
    cfg!(target_os = "linux")
        && folder_of(place).canonicalize().is_ok_and(|folder| {
            folder.starts_with("/proc") && folder.file_name().is_some_and(|name| name == "fd")
        })
}

/// Opens a device, a pipe, or an open file of this process. Linux would open the file behind standard output a second
/// time, to be written from its beginning, over what has been printed.
fn open_stream(place: &Path) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsFd as _;
        let own = Path::new("/proc/self/fd").canonicalize();
        if own.is_ok_and(|own| {
            folder_of(place)
                .canonicalize()
                .is_ok_and(|folder| folder == own)
        }) {
            let name = place.file_name().and_then(|name| name.to_str());
            let descriptor = match name {
                Some("1") => Some(io::stdout().as_fd().try_clone_to_owned()?),
                Some("2") => Some(io::stderr().as_fd().try_clone_to_owned()?),
                _ => None,
            };
            if let Some(descriptor) = descriptor {
                return Ok(descriptor.into());
            }
        }
    }
    File::options().write(true).open(place)
}

/// Writes a temporary file in the folder of `place`.
pub(crate) fn write_beside(
    place: &Path,
    before: Option<&Metadata>,
    durability: Durability,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<NamedTempFile, FsError> {
    if before.is_some_and(|before| before.permissions().readonly()) {
        let error = io::Error::new(ErrorKind::PermissionDenied, "the file is read-only");
        return Err(FsError::at("replace", place)(error));
    }
    let folder = folder_of(place);
    let failed = || FsError::at("write", place);
    let mut file = begin_beside(folder).map_err(failed())?;
    if let Some(before) = before {
        file.as_file()
            .set_permissions(before.permissions())
            .map_err(failed())?;
    }
    write(file.as_file_mut()).map_err(failed())?;
    file.as_file_mut().flush().map_err(failed())?;
    if durability == Durability::Synced {
        file.as_file().sync_all().map_err(failed())?;
    }
    Ok(file)
}

/// Makes a temporary file in a folder, locked for as long as its writer lives: [`remove_unfinished`] leaves it alone.
fn begin_beside(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder
        .prefix(UNFINISHED.0)
        .suffix(UNFINISHED.1)
        .rand_bytes(RANDOM_CHARACTERS);
    // The default is a private file; ours is as any other, and the umask decides who may read it.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    loop {
        let file = builder.tempfile_in(folder)?;
        // Elsewhere a lock keeps this very process from reading the file back.
        #[cfg(unix)]
        {
            let is_taken = matches!(file.as_file().try_lock(), Err(TryLockError::WouldBlock));
            // Somebody may have taken it for left behind before it was locked.
            let n_links = std::os::unix::fs::MetadataExt::nlink(&file.as_file().metadata()?);
            if is_taken || n_links == 0 {
                continue;
            }
        }
        return Ok(file);
    }
}

pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Moves a file that is complete and synced to its place, and syncs the folder, so that it is there after a power cut.
///
/// # Errors
/// The file cannot be moved, or the folder not synced.
pub fn rename(from: &Path, to: &Path) -> Result<(), FsError> {
    std::fs::rename(from, to).map_err(FsError::at("rename", from))?;
    sync_folder(folder_of(to))
}

/// Makes sure that what was renamed in a folder is still so after a power cut.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), FsError> {
    // Elsewhere a folder cannot be opened, or does not have to be.
    #[cfg(unix)]
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some network file systems refuse it.
        Err(error)
            if !matches!(
                error.kind(),
                ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::PermissionDenied
            ) =>
        {
            return Err(FsError::at("sync the folder", folder)(error));
        }
        _ => {}
    }
    let _ = folder;
    Ok(())
}

/// Removes what processes that were killed while they wrote have left in a folder, and says how many files
/// that were. A folder that does not exist holds none.
///
/// On Unix a file whose writer lives is known by its lock and stays. Elsewhere, and on file systems without locks, no
/// other process may be writing there.
///
/// # Errors
/// The folder cannot be read, or a file not removed.
pub fn remove_unfinished(folder: &Path) -> Result<usize, FsError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(FsError::at("read the folder", folder)(error)),
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry.map_err(FsError::at("read the folder", folder))?;
        let is_unfinished = entry.file_name().to_str().is_some_and(is_unfinished_name)
            && entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_unfinished {
            continue;
        }
        let path = entry.path();
        // Held until it is removed, so that its name is not given to another file meanwhile.
        #[cfg(unix)]
        let file = File::open(&path);
        #[cfg(unix)]
        if let Ok(file) = &file
            && matches!(file.try_lock(), Err(TryLockError::WouldBlock))
        {
            continue;
        }
        match std::fs::remove_file(&path) {
            Ok(()) => removed += 1,
            // Its writer has just moved it into place.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(FsError::at("remove", &path)(error)),
        }
    }
    Ok(removed)
}

/// Whether a file has the name of one that is being written, or was when its writer was killed.
pub fn is_unfinished(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(is_unfinished_name)
}

fn is_unfinished_name(name: &str) -> bool {
    let random = name
        .strip_prefix(UNFINISHED.0)
        .and_then(|name| name.strip_suffix(UNFINISHED.1));
    random.is_some_and(|random| {
        random.len() == RANDOM_CHARACTERS && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_file_may_be_read_by_whom_the_umask_lets() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let [ours, plain] = ["ours", "plain"].map(|name| folder.path().join(name));
        write(&ours, b"model").unwrap();
        std::fs::write(&plain, b"model").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
        std::fs::set_permissions(&ours, std::fs::Permissions::from_mode(0o640)).unwrap();
        write(&ours, b"another").unwrap();
        assert_eq!(mode(&ours) & 0o777, 0o640);
        std::fs::set_permissions(&ours, std::fs::Permissions::from_mode(0o440)).unwrap();
        let message = write(&ours, b"a third").unwrap_err().source.to_string();
        assert_eq!(message, "the file is read-only");
        assert_eq!(std::fs::read(&ours).unwrap(), b"another");
    }

    #[test]
    fn a_write_that_fails_leaves_the_earlier_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint");
        write(&path, b"whole").unwrap();
        let full = write_with(&path, |file| {
            file.write_all(b"ha")?;
            Err(io::Error::from(ErrorKind::StorageFull))
        });
        let message = full.unwrap_err().to_string();
        assert!(message.contains("cannot write"), "{message}");
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = folder.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("elsewhere/file", &link).unwrap();
        for text in ["to nothing", "to something"] {
            write(&link, text.as_bytes()).unwrap();
            assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
            let file = elsewhere.join("file");
            assert_eq!(std::fs::read_to_string(file).unwrap(), text);
        }
        let circle = folder.path().join("circle");
        std::os::unix::fs::symlink("circle", &circle).unwrap();
        assert!(write(&circle, b"").is_err());
        assert!(write(&elsewhere, b"").is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_device_is_written_to_and_stays() {
        use std::os::unix::fs::FileTypeExt as _;
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("null");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        for path in [Path::new("/dev/null"), &link] {
            write(path, b"away").unwrap();
            let kind = std::fs::metadata(path).unwrap().file_type();
            assert!(kind.is_char_device());
        }
    }

    #[test]
    fn leftovers_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            ".tmpAbCd12.tmp",
            ".tmp",
            "a.tmp",
            ".tmpx",
            ".tmpmy notes.tmp",
            ".tmp-draft.tmp",
        ] {
            std::fs::write(folder.path().join(name), b"").unwrap();
        }
        assert_eq!(remove_unfinished(folder.path()).unwrap(), 1);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 5);
        assert_eq!(remove_unfinished(&folder.path().join("none")).unwrap(), 0);
    }

    // Of two commands that write into one folder, the second must not take the first's file for a leftover.
    #[cfg(unix)]
    #[test]
    fn what_is_being_written_is_no_leftover() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        write_with(&path, |file| {
            assert_eq!(remove_unfinished(folder.path()).unwrap(), 0);
            file.write_all(b"whole")
        })
        .unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    }
}
