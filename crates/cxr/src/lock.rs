//! One process at a time makes what several would use.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use cxr_fs::Lock;

use crate::progress::say;

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
    let on_wait = || say(&format!("waiting for another process that makes {what}"));
    Ok(Lock::acquire(&path, stop, on_wait)?)
}
