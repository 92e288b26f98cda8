//! What a file holds, in 64 characters.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::FsError;

/// The SHA-256 of a file's bytes, in hexadecimal.
///
/// # Errors
/// The file cannot be read.
pub fn sha256(path: &Path) -> Result<String, FsError> {
    let mut file = File::open(path).map_err(FsError::at("open", path))?;
    let mut hash = Sha256::new();
    let mut part = vec![0; 1 << 16];
    loop {
        let length = match file.read(&mut part) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(FsError::at("read", path)(error)),
        };
        hash.update(part.get(..length).unwrap_or_default());
    }
    let digest = hash.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4's example, and a file of several parts against `sha256sum`.
    #[test]
    fn a_file_is_hashed_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(
            sha256(&path).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        // head -c 200000 /dev/zero | sha256sum
        std::fs::write(&path, vec![0; 200_000]).unwrap();
        assert_eq!(sha256(&path).unwrap(), ZEROS);
        assert!(sha256(folder.path()).is_err());
    }

    const ZEROS: &str = "4cbbd9be0cba685835755f827758705db5a413c5494c34262cd25946a73e7582";
}
