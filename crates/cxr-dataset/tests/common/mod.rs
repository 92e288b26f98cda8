//! Where the tests on real data find it.

#![expect(
    dead_code,
    clippy::unwrap_used,
    reason = "each test needs a part of it"
)]

use std::path::PathBuf;

pub(crate) mod archives;
pub(crate) mod dicom;

/// The folder of real data, or `None` and a line that says so.
pub(crate) fn shared_data() -> Option<PathBuf> {
    let shared = std::env::var_os("CXR_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let data = shared.join("data");
    if data.is_dir() {
        return Some(data);
    }
    println!(
        "skipped: no real data in `{}` (set CXR_SHARED)",
        data.display()
    );
    None
}

/// Replaces every occurrence of `from` by `to`, which is as long.
pub(crate) fn replaced_all(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    for at in 0..bytes.len() - from.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
    }
    bytes
}
