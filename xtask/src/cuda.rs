//! Whether this machine can build and run what uses CUDA.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;

/// The driver's library, as the loader looks for it.
const DRIVER: &str = if cfg!(windows) {
    "nvcuda.dll"
} else {
    "libcuda.so.1"
};

/// Folders in which installers and containers put it.
const USUAL: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib/wsl/lib",
    "/usr/local/nvidia/lib64",
    "C:\\Windows\\System32",
];

/// Refuses where the NVIDIA driver is missing: a binary with CUDA in it would not even start, and say nothing
/// that helps.
pub(crate) fn find_driver() -> anyhow::Result<()> {
    let path = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    if is_in_folders(&folders(&path)) || is_known_to_loader() {
        return Ok(());
    }
    bail!(
        "cannot compute on `cuda`: this machine has no NVIDIA driver (`{DRIVER}` is nowhere to be found)\nhint: install it (docs/cuda.md), or compute on the CPU: leave `--device` out"
    )
}

/// Whether there is a compiler for CUDA: where `NVCC` or `CUDA_HOME` says, or on the path.
pub(crate) fn has_toolkit() -> bool {
    let named = std::env::var_os("NVCC").map(PathBuf::from);
    let at_home = |home| Some(PathBuf::from(std::env::var_os(home)?).join("bin/nvcc"));
    let at_home = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(at_home);
    let candidates = named
        .into_iter()
        .chain(at_home)
        .chain([PathBuf::from("nvcc")]);
    candidates.into_iter().any(|nvcc| {
        let output = Command::new(nvcc).arg("--version").output();
        output.is_ok_and(|output| output.status.success())
    })
}

fn folders(library_path: &OsStr) -> Vec<PathBuf> {
    let named = std::env::split_paths(library_path);
    named.chain(USUAL.map(PathBuf::from)).collect()
}

fn is_in_folders(folders: &[PathBuf]) -> bool {
    folders
        .iter()
        .any(|folder: &PathBuf| Path::is_file(&folder.join(DRIVER)))
}

/// Whether the loader's cache, which most Linux systems have, lists it.
fn is_known_to_loader() -> bool {
    let output = Command::new("ldconfig").arg("-p").output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(DRIVER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_is_found_in_a_folder_of_the_library_path() {
        let folder = tempfile::tempdir().unwrap();
        let mine = folders(folder.path().as_os_str());
        assert_eq!(mine[0], folder.path());
        assert!(!is_in_folders(&mine[..1]));
        std::fs::write(folder.path().join(DRIVER), "").unwrap();
        assert!(is_in_folders(&mine[..1]));
    }
}
