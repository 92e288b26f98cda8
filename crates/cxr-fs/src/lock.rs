//! One process at a time.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::FsError;

/// Between two attempts at a lock that another process holds.
const PAUSE: Duration = Duration::from_millis(200);

/// An advisory lock on a file, held until it is dropped or the process ends.
///
/// The file stays where it is. On a file system without locks, as some networks have, the lock is granted
/// without one.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Drop for Lock {
    /// A process that is being started has a copy of every open file until it runs its program, and with it the lock:
    /// closing ours would not end it.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

impl Lock {
    /// Takes the lock of the file `path`, which is made where it is missing. `None` when another process
    /// holds it.
    ///
    /// # Errors
    /// The file cannot be made or locked.
    pub fn try_acquire(path: &Path) -> Result<Option<Self>, FsError> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path).map_err(FsError::at("open", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(FsError::at("lock", path)(error)),
        }
        let path = path.to_owned();
        Ok(Some(Self { file, path }))
    }

    /// Whether the locked file is still at its path. Where it is not, somebody deleted, moved or replaced it or a
    /// folder above it, and what is written there now would be in another folder than the one that is locked.
    pub fn is_in_place(&self) -> bool {
        is_at(&self.file, &self.path)
    }

    /// Whether another process holds the lock of the file `path`; no process does where there is no file. The lock is
    /// asked for as one of many readers, and given back at once.
    pub fn is_held(path: &Path) -> bool {
        let lock = File::open(path).map(|file| file.try_lock_shared());
        matches!(lock, Ok(Err(TryLockError::WouldBlock)))
    }

    /// Tries for a moment, for locks that others hold only while they look at something. `None` when `patience` is
    /// over.
    ///
    /// # Errors
    /// The file cannot be made or locked.
    pub fn try_acquire_for(path: &Path, patience: Duration) -> Result<Option<Self>, FsError> {
        let begin = Instant::now();
        loop {
            match Self::try_acquire(path)? {
                None if begin.elapsed() < patience => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                done => return Ok(done),
            }
        }
    }

    /// Waits until no other process makes what several would make at `target`, and keeps others from it: what the first
    /// one has made, the next ones find. The lock is a file beside the target, which stays; its folder is made where it
    /// is missing. `None` when `stop` was set first; `on_wait` is called once before the wait begins.
    ///
    /// # Errors
    /// The folder or the file cannot be made, or the file cannot be locked.
    pub fn acquire_beside(
        target: &Path,
        stop: &AtomicBool,
        on_wait: impl FnOnce(),
    ) -> Result<Option<Self>, FsError> {
        let mut path = target.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(FsError::at("make the folder", folder))?;
        }
        Self::acquire(&path, stop, on_wait)
    }

    /// Waits for the lock. `None` when `stop` was set first; `on_wait` is called once before the wait begins.
    ///
    /// # Errors
    /// The file cannot be made or locked.
    pub fn acquire(
        path: &Path,
        stop: &AtomicBool,
        on_wait: impl FnOnce(),
    ) -> Result<Option<Self>, FsError> {
        let mut on_wait = Some(on_wait);
        loop {
            if let Some(lock) = Self::try_acquire(path)? {
                return Ok(Some(lock));
            }
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            if let Some(on_wait) = on_wait.take() {
                on_wait();
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Whether an open file is the one that a path leads to: false once somebody has deleted, moved or replaced it.
pub fn is_at(file: &File, path: &Path) -> bool {
    let Ok(there) = std::fs::metadata(path) else {
        return false;
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let here = file.metadata();
        here.is_ok_and(|here| (here.dev(), here.ino()) == (there.dev(), there.ino()))
    }
    // Elsewhere an open file can be neither deleted nor replaced.
    #[cfg(not(unix))]
    {
        let _ = (file, there);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_lock_knows_when_its_file_was_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/lock");
        std::fs::create_dir(folder.path().join("run")).unwrap();
        let lock = Lock::try_acquire(&path).unwrap().unwrap();
        assert!(lock.is_in_place());
        std::fs::rename(folder.path().join("run"), folder.path().join("moved")).unwrap();
        assert!(!lock.is_in_place());
        std::fs::create_dir(folder.path().join("run")).unwrap();
        std::fs::write(&path, b"").unwrap();
        assert!(!lock.is_in_place(), "another file");
        std::fs::remove_dir_all(folder.path().join("run")).unwrap();
        std::fs::rename(folder.path().join("moved"), folder.path().join("run")).unwrap();
        assert!(lock.is_in_place());
    }

    #[test]
    fn patience_ends_or_is_rewarded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = Lock::try_acquire(&path).unwrap().unwrap();
        let attempt = |patience| Lock::try_acquire_for(&path, patience).unwrap();
        assert!(attempt(Duration::from_millis(30)).is_none());
        assert!(Lock::is_held(&path) && !Lock::is_held(&folder.path().join("none")));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| attempt(Duration::from_secs(60)));
            drop(first);
            assert!(waiting.join().unwrap().is_some());
        });
    }

    #[test]
    fn a_lock_is_waited_for_until_it_is_free_or_a_stop() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let stop = AtomicBool::new(false);
        let first = Lock::acquire(&path, &stop, || panic!("nobody holds it"))
            .unwrap()
            .unwrap();
        assert!(Lock::try_acquire(&path).unwrap().is_none());
        stop.store(true, Ordering::Relaxed);
        assert!(Lock::acquire(&path, &stop, || ()).unwrap().is_none());
        stop.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| Lock::acquire(&path, &stop, || ()).unwrap());
            std::thread::sleep(PAUSE);
            assert!(!waiting.is_finished());
            drop(first);
            assert!(waiting.join().unwrap().is_some());
        });
    }
}
