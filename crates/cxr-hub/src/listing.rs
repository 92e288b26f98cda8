//! What the hub says of a repository: its commit, and its files with their lengths and digests.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::Digest;
use crate::repository::is_commit;

/// A repository at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listing {
    /// The commit; none where the hub does not say.
    pub(crate) commit: Option<String>,
    /// The files by their path.
    pub(crate) files: BTreeMap<String, Listed>,
}

/// What the hub says of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) bytes: u64,
    pub(crate) digest: Digest,
}

/// The longest answer that is read: the hub's longest listings have some 50,000 files.
pub(crate) const LONGEST: usize = 64 << 20;

#[derive(Deserialize)]
struct RawListing {
    sha: Option<String>,
    siblings: Vec<RawFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawFile {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<RawLfs>,
}

#[derive(Deserialize)]
struct RawLfs {
    sha256: String,
    size: u64,
}

impl Listing {
    /// Reads the answer to `GET /api/models/OWNER/NAME/revision/REVISION?blobs=true`.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        let raw: RawListing = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let files = raw.siblings.into_iter().map(|file| {
            // Large files are stored by their SHA-256, small ones as git objects.
            let (digest, bytes) = match (file.lfs, file.blob_id, file.size) {
                (Some(lfs), ..) => (format!("sha256:{}", lfs.sha256), lfs.size),
                (None, Some(blob), Some(bytes)) => (format!("git-blob:{blob}"), bytes),
                _ => return Err(format!("`{}` has no digest or no length", file.rfilename)),
            };
            let digest = digest
                .parse()
                .map_err(|error| format!("`{}`: {error}", file.rfilename))?;
            Ok((file.rfilename, Listed { bytes, digest }))
        });
        Ok(Self {
            files: files.collect::<Result<_, _>>()?,
            commit: raw.sha.filter(|sha| is_commit(sha)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const BLOB: &str = "ce013625030ba8dba906f756967f9e9ca394464a";

    #[test]
    fn large_files_have_a_sha256_and_small_ones_a_git_object() {
        let text = format!(
            r#"{{"id":"a/b","sha":"{BLOB}","tags":["x"],"siblings":[
                {{"rfilename":"list.txt","size":6,"blobId":"{BLOB}"}},
                {{"rfilename":"data/big.zip","size":3,"blobId":"{BLOB}","lfs":
                    {{"sha256":"{SHA256}","size":3,"pointerSize":130}}}}]}}"#
        );
        let listing = Listing::parse(text.as_bytes()).unwrap();
        assert_eq!(listing.commit.as_deref(), Some(BLOB));
        let read: Vec<_> = (listing.files.iter())
            .map(|(path, file)| (path.as_str(), file.bytes, file.digest.to_string()))
            .collect();
        assert_eq!(
            read,
            [
                ("data/big.zip", 3, format!("sha256:{SHA256}")),
                ("list.txt", 6, format!("git-blob:{BLOB}")),
            ]
        );
        assert!(Listing::parse(b"<html>sign in</html>").is_err());
        let short = text.replace(SHA256, "ba78");
        assert!(Listing::parse(short.as_bytes()).is_err(), "a cut digest");
        let without = text.replace(&format!(",\"blobId\":\"{BLOB}\"}}"), "}");
        assert!(Listing::parse(without.as_bytes()).is_err(), "no digest");
        let unnamed = text.replace(&format!("\"sha\":\"{BLOB}\""), "\"sha\":\"main\"");
        assert_eq!(Listing::parse(unnamed.as_bytes()).unwrap().commit, None);
    }
}
