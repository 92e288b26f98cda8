//! Whole files or none.

use std::io::Write;
use std::path::Path;

use crate::TrainError;

/// What the files begin and end with that are not yet in their place.
const UNFINISHED: (&str, &str) = (".tmp", ".tmp");

/// Removes what processes that were killed while they wrote have left in a folder. Nobody else may be
/// writing there.
pub(crate) fn remove_unfinished(folder: &Path) -> Result<(), TrainError> {
    let failed = |source| TrainError::Io {
        action: "clear",
        path: folder.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let (begin, end) = UNFINISHED;
        if name.is_some_and(|name| name.starts_with(begin) && name.ends_with(end)) {
            std::fs::remove_file(&path).map_err(failed)?;
        }
    }
    Ok(())
}

/// Writes a file beside its place and renames it there, so that a reader, a full disk or a kill
/// never leaves half of it. Folders on the way are made.
///
/// # Errors
/// The file cannot be written; what stood there before still does.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut std::fs::File) -> std::io::Result<()>,
) -> Result<(), TrainError> {
    let failed = |source| TrainError::Io {
        action: "write",
        path: path.to_owned(),
        source,
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED.0).suffix(UNFINISHED.1);
    // As any other file: who may read it is the umask's business.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).map_err(failed)?;
    write(file.as_file_mut()).map_err(failed)?;
    file.as_file_mut().flush().map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind, Write};

    use super::write_atomically;

    #[cfg(unix)]
    #[test]
    fn a_file_may_be_read_by_whom_the_umask_lets() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let [ours, plain] = ["ours", "plain"].map(|name| folder.path().join(name));
        write_atomically(&ours, |file| file.write_all(b"model")).unwrap();
        std::fs::write(&plain, b"model").unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }

    #[test]
    fn a_write_that_fails_leaves_the_earlier_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint");
        write_atomically(&path, |file| file.write_all(b"whole")).unwrap();
        let full = write_atomically(&path, |file| {
            file.write_all(b"ha")?;
            Err(Error::from(ErrorKind::StorageFull))
        });
        let message = full.unwrap_err().to_string();
        assert!(message.contains("cannot write"), "{message}");
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
