//! One process at a time.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;

use crate::progress::say;

/// Between two looks at a lock that another process holds.
const PAUSE: Duration = Duration::from_millis(200);

/// Held until it is dropped, or the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Waits until no other process makes `what` at `target`, and keeps others from it: what the first one
/// has made, the next ones find. `None` when `stop` was set meanwhile. The lock is a file beside the
/// target, which stays.
pub(crate) fn hold(target: &Path, what: &str, stop: &AtomicBool) -> anyhow::Result<Option<Lock>> {
    let mut path = target.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
    }
    let file = File::create(&path).with_context(|| format!("cannot write `{}`", path.display()))?;
    let mut has_waited = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) if stop.load(Ordering::Relaxed) => return Ok(None),
            Err(TryLockError::WouldBlock) => {
                if !has_waited {
                    say(&format!("waiting for another process that makes {what}"));
                }
                has_waited = true;
                std::thread::sleep(PAUSE);
            }
            Err(TryLockError::Error(source)) => {
                return Err(source).with_context(|| format!("cannot lock `{}`", path.display()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_waited_for_until_it_is_free_or_a_stop() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("store");
        let stop = AtomicBool::new(false);
        let first = hold(&target, "it", &stop).unwrap().unwrap();
        stop.store(true, Ordering::Relaxed);
        assert!(hold(&target, "it", &stop).unwrap().is_none());
        stop.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| hold(&target, "it", &stop).unwrap());
            std::thread::sleep(PAUSE);
            assert!(!waiting.is_finished());
            drop(first);
            assert!(waiting.join().unwrap().is_some());
        });
    }
}
