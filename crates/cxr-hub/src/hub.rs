//! The hub: addresses of its files, and its listings, which tell their lengths and digests.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::AtomicBool;

use serde::Deserialize;

use crate::http::{Client, Failure, Request};
use crate::manifest::check_web_address;
use crate::{Digest, HubError};

/// The address of a hub, such as `https://huggingface.co` or that of a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(String);

impl Endpoint {
    /// The hub named by the environment variable `HF_ENDPOINT`, or `https://huggingface.co` where
    /// it is unset or empty.
    ///
    /// # Errors
    /// [`HubError::Address`] if it is set to something else than an address.
    pub fn from_environment() -> Result<Self, HubError> {
        match std::env::var("HF_ENDPOINT") {
            Ok(text) if !text.is_empty() => text.parse(),
            _ => Ok(Self::default()),
        }
    }

    /// The address, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Endpoint {
    fn default() -> Self {
        Self("https://huggingface.co".to_owned())
    }
}

impl FromStr for Endpoint {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        check_web_address(text)?;
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What a repository of the hub holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RepositoryKind {
    /// A model.
    Model,
    /// A data set.
    Dataset,
}

/// A file in a repository of the hub.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HubFile {
    kind: RepositoryKind,
    repository: String,
    revision: String,
    path: String,
}

impl HubFile {
    /// The file at `path` of `repository` (`owner/name`) in `revision`, a branch, tag or commit.
    ///
    /// # Errors
    /// [`HubError::Address`] for a repository that is not `owner/name`, an empty revision, or a
    /// path with empty parts, `.` or `..`.
    pub fn new(
        kind: RepositoryKind,
        repository: &str,
        revision: &str,
        path: &str,
    ) -> Result<Self, HubError> {
        let parts_are_plain = |text: &str| {
            text.split('/').all(|part| {
                !matches!(part, "" | "." | "..") && !part.contains(|c: char| c.is_control())
            })
        };
        let check = |text: &str, plain: bool, expected: &'static str| match plain {
            true => Ok(text.to_owned()),
            false => Err(HubError::Address {
                text: text.escape_debug().to_string(),
                expected,
            }),
        };
        let owner_and_name = repository.split('/').count() == 2 && parts_are_plain(repository);
        Ok(Self {
            kind,
            repository: check(
                repository,
                owner_and_name,
                "a repository such as `owner/name`",
            )?,
            revision: check(
                revision,
                parts_are_plain(revision),
                "a branch, tag or commit",
            )?,
            path: check(path, parts_are_plain(path), "a path in a repository")?,
        })
    }

    /// The address its bytes are had from.
    pub fn url(&self, endpoint: &Endpoint) -> String {
        let prefix = match self.kind {
            RepositoryKind::Model => "",
            RepositoryKind::Dataset => "datasets/",
        };
        let (repository, path) = (percent_encode(&self.repository), percent_encode(&self.path));
        format!(
            "{endpoint}/{prefix}{repository}/resolve/{}/{path}",
            self.revision_part()
        )
    }

    /// The address of the listing of its folder.
    pub(crate) fn listing_url(&self, endpoint: &Endpoint) -> String {
        let kind = match self.kind {
            RepositoryKind::Model => "models",
            RepositoryKind::Dataset => "datasets",
        };
        let repository = percent_encode(&self.repository);
        let revision = self.revision_part();
        let url = format!("{endpoint}/api/{kind}/{repository}/tree/{revision}");
        match self.path.rsplit_once('/') {
            Some((folder, _)) => format!("{url}/{}", percent_encode(folder)),
            None => url,
        }
    }

    /// The address that tells which commit the revision is.
    pub(crate) fn revision_url(&self, endpoint: &Endpoint) -> String {
        let kind = match self.kind {
            RepositoryKind::Model => "models",
            RepositoryKind::Dataset => "datasets",
        };
        let repository = percent_encode(&self.repository);
        format!(
            "{endpoint}/api/{kind}/{repository}/revision/{}",
            self.revision_part()
        )
    }

    /// Whether the revision is a commit, which never moves, and not a branch or tag.
    pub(crate) fn is_pinned(&self) -> bool {
        is_commit(&self.revision)
    }

    /// The same file in another revision.
    pub(crate) fn at(&self, revision: &str) -> Self {
        Self {
            revision: revision.to_owned(),
            ..self.clone()
        }
    }

    /// A revision is one part of the address, whatever slashes it has.
    fn revision_part(&self) -> String {
        percent_encode(&self.revision).replace('/', "%2F")
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

/// Everything but RFC 3986's unreserved characters and the slash as `%XX`.
fn percent_encode(text: &str) -> String {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(byte.into());
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[derive(Deserialize)]
struct RawRevision {
    sha: String,
}

/// The commit that a revision is now. `None` of a hub that does not tell: some mirrors have files
/// and listings only.
pub(crate) fn commit(
    client: &Client,
    url: &str,
    stop: &AtomicBool,
) -> Result<Option<String>, Failure> {
    let response = client.get(Request::new(url), stop)?;
    match response.status {
        200 => {
            let text = response.bytes(LONGEST_PAGE, stop)?;
            let revision: Option<RawRevision> = serde_json::from_slice(&text).ok();
            Ok(revision
                .map(|revision| revision.sha)
                .filter(|sha| is_commit(sha)))
        }
        400 | 403..=405 | 501 => Ok(None),
        _ => Err(response.failure(url)),
    }
}

/// What the hub says of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) digest: Digest,
}

/// A listing with more pages than this is not one of a folder that we fetch from.
const MOST_PAGES: usize = 64;
const LONGEST_PAGE: usize = 16 << 20;

/// Reads the files of the folder listed at `url`, page by page.
pub(crate) fn listing(
    client: &Client,
    url: &str,
    stop: &AtomicBool,
) -> Result<Vec<Listed>, Failure> {
    let mut files = Vec::new();
    let mut next = Some(url.to_owned());
    for _ in 0..MOST_PAGES {
        let Some(page) = next.take() else {
            return Ok(files);
        };
        let response = client.get(Request::new(&page), stop)?;
        if response.status != 200 {
            return Err(response.failure(&page));
        }
        next = response.header("link").and_then(next_page);
        let text = response.bytes(LONGEST_PAGE, stop)?;
        files.extend(parse_listing(&text).map_err(|problem| {
            Failure::Fatal(HubError::Listing {
                url: page.clone(),
                problem,
            })
        })?);
    }
    Err(Failure::Fatal(HubError::Listing {
        url: url.to_owned(),
        problem: format!("expected at most {MOST_PAGES} pages"),
    }))
}

#[derive(Deserialize)]
struct RawEntry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<RawLfs>,
}

#[derive(Deserialize)]
struct RawLfs {
    oid: String,
    size: u64,
}

fn parse_listing(text: &[u8]) -> Result<Vec<Listed>, String> {
    let entries: Vec<RawEntry> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    entries
        .into_iter()
        .filter(|entry| entry.kind == "file")
        .map(|entry| {
            // Large files are stored by their SHA-256, small ones as git objects.
            let (digest, bytes) = match entry.lfs {
                Some(lfs) => {
                    let digits = lfs.oid.strip_prefix("sha256:").unwrap_or(&lfs.oid);
                    (format!("sha256:{digits}"), lfs.size)
                }
                None => (format!("git-blob:{}", entry.oid), entry.size),
            };
            Ok(Listed {
                digest: digest
                    .parse()
                    .map_err(|error: HubError| format!("`{}`: {error}", entry.path))?,
                path: entry.path,
                bytes,
            })
        })
        .collect()
}

/// The address of the next page in a `Link` header (RFC 8288).
fn next_page(link: &str) -> Option<String> {
    link.split(',').find_map(|entry| {
        let (url, parameters) = entry.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters
            .split(';')
            .any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next"));
        is_next.then(|| url.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_the_hubs() {
        let endpoint: Endpoint = "https://hub.example/".parse().unwrap();
        let model =
            HubFile::new(RepositoryKind::Model, "a/b.c", "main", "model.safetensors").unwrap();
        assert_eq!(
            model.url(&endpoint),
            "https://hub.example/a/b.c/resolve/main/model.safetensors"
        );
        assert_eq!(
            model.listing_url(&endpoint),
            "https://hub.example/api/models/a/b.c/tree/main"
        );
        let data = HubFile::new(RepositoryKind::Dataset, "a/b", "refs/pr/1", "x y/é.zip").unwrap();
        assert_eq!(
            data.url(&endpoint),
            "https://hub.example/datasets/a/b/resolve/refs%2Fpr%2F1/x%20y/%C3%A9.zip"
        );
        assert_eq!(
            data.listing_url(&endpoint),
            "https://hub.example/api/datasets/a/b/tree/refs%2Fpr%2F1/x%20y"
        );
    }

    #[test]
    fn large_files_have_a_sha256_and_small_ones_a_git_object() {
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let blob = "ce013625030ba8dba906f756967f9e9ca394464a";
        let text = format!(
            r#"[{{"type":"directory","oid":"{blob}","size":0,"path":"data/images"}},
                {{"type":"file","oid":"{blob}","size":6,"path":"data/list.txt"}},
                {{"type":"file","oid":"{blob}","size":3,"path":"data/big.zip","xetHash":"00",
                  "lfs":{{"oid":"{sha256}","size":3,"pointerSize":130}}}}]"#
        );
        let files = parse_listing(text.as_bytes()).unwrap();
        let told: Vec<_> = files
            .iter()
            .map(|file| (file.path.as_str(), file.bytes, file.digest.to_string()))
            .collect();
        assert_eq!(
            told,
            [
                ("data/list.txt", 6, format!("git-blob:{blob}")),
                ("data/big.zip", 3, format!("sha256:{sha256}"))
            ]
        );
        assert!(parse_listing(b"<html>sign in</html>").is_err());
        let short = text.replace(sha256, "ba78");
        assert!(parse_listing(short.as_bytes()).is_err(), "a cut digest");
    }

    #[test]
    fn pages_follow_their_link() {
        let link =
            "<https://hub.example/api?cursor=b>; rel=\"next\", <https://x.example>; rel=\"first\"";
        assert_eq!(
            next_page(link).as_deref(),
            Some("https://hub.example/api?cursor=b")
        );
        assert_eq!(next_page("<https://x.example>; rel=\"first\""), None);
        assert_eq!(next_page("nonsense"), None);
    }
}
