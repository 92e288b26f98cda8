//! A model, its card and what belongs to it, sent to a repository of the hub in one commit.
//!
//! The hub is asked four things: what the repository has (so that nothing is sent twice, and nobody
//! else's commit is overwritten), how each file is to be stored, where large ones go, and to commit.
//! Afterwards its listing of that commit must give the digests of what was to be published.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::download::Session;
use crate::http::{Failure, Host, Response};
use crate::listing::{LONGEST, Listed, Listing};
use crate::model::MODEL_FILE;
use crate::part::hash;
use crate::repository::{is_commit, parts_are_plain};
use crate::{Digest, Event, Hasher, HubError, Observer, Options, Repository, RepositoryKind, lfs};

/// What a report is called, in a run's folder or in that of its experiment. It has all in one file,
/// which its Markdown form has not.
const REPORT: &str = "report.html";
/// Files that the hub wants inside a commit are small.
const LONGEST_INLINE: u64 = 64 << 20;
/// The hub looks at the beginning of a file to see whether it is text.
const SAMPLE: usize = 512;

/// Where the bytes of a file to be published are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// In a file.
    File(PathBuf),
    /// Here.
    Bytes(Vec<u8>),
}

/// A file to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    path: String,
    content: Content,
    bytes: u64,
    sha256: Digest,
    git_blob: Digest,
    sample: Vec<u8>,
}

impl Upload {
    /// Reads and hashes a file.
    fn new(path: &str, content: Content) -> Result<Self, HubError> {
        let shown = match &content {
            Content::File(file) => file.clone(),
            Content::Bytes(_) => PathBuf::from(path),
        };
        if !parts_are_plain(path) {
            return Err(HubError::Address {
                text: path.escape_debug().to_string(),
                expected: "a path in a repository",
            });
        }
        let mut sample = Vec::new();
        let mut take = |piece: &[u8]| {
            let missing = SAMPLE - sample.len();
            sample.extend_from_slice(piece.get(..missing).unwrap_or(piece));
        };
        let (zeros, zero_blob) = (Digest::Sha256([0; 32]), Digest::GitBlob([0; 20]));
        let bytes = content.len()?;
        let mut sha256 = Hasher::for_digest(&zeros, bytes);
        let mut blob = Hasher::for_digest(&zero_blob, bytes);
        let mut update = |piece: &[u8]| {
            take(piece);
            sha256.update(piece);
            blob.update(piece);
        };
        let read = match &content {
            Content::File(file) => {
                let mut opened = cxr_fs::open_regular(file)?;
                hash(&mut opened, file, |piece, _| {
                    update(piece);
                    Ok(())
                })?
            }
            Content::Bytes(content) => {
                update(content);
                content.len() as u64
            }
        };
        if read != bytes {
            return Err(HubError::Unpublishable {
                path: shown,
                problem: "somebody is writing to it".into(),
            });
        }
        Ok(Self {
            path: path.to_owned(),
            content,
            bytes,
            sha256: sha256.finish(),
            git_blob: blob.finish(),
            sample,
        })
    }

    /// Its path in the repository.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where its bytes are.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its SHA-256.
    pub fn sha256(&self) -> Digest {
        self.sha256
    }

    fn is(&self, listed: &Listed) -> bool {
        [self.sha256, self.git_blob].contains(&listed.digest)
    }
}

impl Content {
    fn len(&self) -> Result<u64, HubError> {
        match self {
            Self::File(path) => {
                let opened = cxr_fs::open_regular(path)?;
                let metadata = opened.metadata().map_err(HubError::io("read", path))?;
                Ok(metadata.len())
            }
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
        }
    }
}

/// Files that are published together. Printed, it lists what would be sent where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    repository: Repository,
    message: String,
    files: Vec<Upload>,
}

impl Publication {
    /// Nothing yet, for a branch of a repository, under a commit message of one line.
    pub fn new(repository: Repository, message: &str) -> Self {
        Self {
            repository,
            message: message.to_owned(),
            files: Vec::new(),
        }
    }

    /// A model, which is a file or the folder of a run: `model.safetensors`, `card` as its
    /// `README.md`, and of a folder also its `report.html`, or the one of the experiment above it, and
    /// every `*.onnx`.
    ///
    /// # Errors
    /// [`HubError::Unpublishable`] for a folder without `model.safetensors`; [`HubError::Io`] for what
    /// cannot be read.
    pub fn of_model(repository: Repository, model: &Path, card: &str) -> Result<Self, HubError> {
        let mut files = Vec::new();
        let file = match model.is_dir() {
            true => {
                let file = model.join(MODEL_FILE);
                if !file.is_file() {
                    return Err(HubError::Unpublishable {
                        path: model.to_owned(),
                        problem: format!("it has no `{MODEL_FILE}`: was its training finished?"),
                    });
                }
                let folders = [Some(model), model.parent()];
                let reports = folders.iter().flatten().map(|folder| folder.join(REPORT));
                files.extend(reports.into_iter().find(|report| report.is_file()));
                files.extend(onnx_files(model)?);
                file
            }
            false => model.to_owned(),
        };
        let mut publication = Self::new(repository, "Model published by cxr");
        publication.add("README.md", Content::Bytes(card.as_bytes().to_vec()))?;
        publication.add(MODEL_FILE, Content::File(file))?;
        for file in files {
            let name = file.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| HubError::Unpublishable {
                path: file.clone(),
                problem: "expected a name in UTF-8".into(),
            })?;
            publication.add(name, Content::File(file.clone()))?;
        }
        Ok(publication)
    }

    /// Adds a file, which is read and hashed now, at `path` of the repository.
    ///
    /// # Errors
    /// [`HubError::Address`] for what is no path; [`HubError::Unpublishable`] for a path that is taken;
    /// [`HubError::Io`] for what cannot be read.
    pub fn add(&mut self, path: &str, content: Content) -> Result<(), HubError> {
        if self.files.iter().any(|file| file.path == path) {
            return Err(HubError::Unpublishable {
                path: path.into(),
                problem: "another file has the same name".into(),
            });
        }
        self.files.push(Upload::new(path, content)?);
        Ok(())
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The files.
    pub fn files(&self) -> &[Upload] {
        &self.files
    }
}

impl fmt::Display for Publication {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.repository)?;
        for file in &self.files {
            let (path, bytes, digest) = (&file.path, file.bytes, file.sha256);
            writeln!(formatter, "  {path}  {bytes} bytes  {digest}")?;
        }
        Ok(())
    }
}

/// The ONNX files of a folder, sorted by their names.
fn onnx_files(folder: &Path) -> Result<Vec<PathBuf>, HubError> {
    let entries = std::fs::read_dir(folder).map_err(HubError::io("read", folder))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(HubError::io("read", folder))?.path();
        if path.extension().is_some_and(|ending| ending == "onnx") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What became of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// The page of the repository.
    pub url: String,
    /// The commit that has the files.
    pub commit: String,
    /// The paths of the files that were not there before in this form; none if the hub had all.
    pub changed: Vec<String>,
}

/// Sends what the repository does not have yet, in one commit. A repository that is not there is made,
/// as a private one.
///
/// # Errors
/// [`HubError::NoToken`] without a token, [`HubError::Offline`] without a network,
/// [`HubError::Status`] where the hub refuses, [`HubError::Upload`] for an answer that is not of its
/// interface, [`HubError::WrongDigest`] if the hub has other bytes in the end, and
/// [`HubError::Interrupted`] soon after `stop` is set. Whatever it is, the repository has either all
/// files of the publication or those that it had before.
pub fn publish(
    publication: &Publication,
    options: &Options,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Published, HubError> {
    let repository = &publication.repository;
    if options.token.is_none() {
        return Err(HubError::NoToken {
            repository: repository.id().to_owned(),
        });
    }
    let mut publisher = Publisher {
        publication,
        session: Session::new(options, observer, stop)?,
    };
    let listing = match publisher.listing(repository) {
        Err(HubError::Status { status: 404, .. }) => {
            publisher.create()?;
            publisher.listing(repository)?
        }
        found => found?,
    };
    let is_new = |file: &&Upload| {
        let listed = listing.files.get(&file.path);
        listed.is_none_or(|listed| !file.is(listed))
    };
    let new: Vec<&Upload> = publication.files.iter().filter(is_new).collect();
    let commit = match (&listing.commit, new.is_empty()) {
        (Some(commit), true) => commit.clone(),
        (parent, _) => match publisher.send(&new, parent.as_deref()) {
            // Either somebody else was quicker, or the answer to our own commit was lost.
            Err(
                error @ HubError::Status {
                    status: 409 | 412, ..
                },
            ) => {
                let now = publisher.listing(repository)?;
                let is_there = |file: &Upload| {
                    let listed = now.files.get(&file.path);
                    listed.is_some_and(|listed| file.is(listed))
                };
                let is_ours = publication.files.iter().all(is_there);
                now.commit.filter(|_| is_ours).ok_or(error)?
            }
            sent => sent?,
        },
    };
    publisher.check(&commit)?;
    Ok(Published {
        url: publisher.address(&["", repository.id()]),
        commit,
        changed: new.iter().map(|file| file.path.clone()).collect(),
    })
}

struct Publisher<'a> {
    publication: &'a Publication,
    session: Session<'a>,
}

/// How the hub wants a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Regular,
    Lfs,
}

#[derive(Deserialize)]
struct RawModes {
    files: Vec<RawMode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMode {
    path: String,
    upload_mode: Mode,
    #[serde(default)]
    should_ignore: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawCommit {
    commit_oid: String,
}

impl Publisher<'_> {
    /// An address of the hub, its parts after a slash each but the first.
    fn address(&self, parts: &[&str]) -> String {
        format!("{}{}", self.session.options.endpoint, parts.join("/"))
    }

    /// The address of something that the hub's API does with the branch.
    fn address_in_api(&self, verb: &str) -> String {
        let repository = &self.publication.repository;
        let (name, revision) = (repository.name_in_api(), repository.revision_in_addresses());
        self.address(&["/api", &name, verb, &revision])
    }

    fn listing(&mut self, repository: &Repository) -> Result<Listing, HubError> {
        self.session.ask(
            repository.id(),
            |client| Ok(client.listing(repository)),
            |response, url, stop| {
                let text = body(response, url, stop)?;
                Ok(Listing::parse(&text).map_err(|problem| HubError::Listing {
                    url: url.to_owned(),
                    problem,
                })?)
            },
        )
    }

    fn create(&mut self) -> Result<(), HubError> {
        let repository = &self.publication.repository;
        let (owner, name) = repository.id().split_once('/').unwrap_or_default();
        let kind = match repository.kind() {
            RepositoryKind::Model => "model",
            RepositoryKind::Dataset => "dataset",
        };
        let what = json!({ "type": kind, "organization": owner, "name": name, "private": true });
        let url = self.address(&["/api", "repos", "create"]);
        match self.post(&url, "application/json", &what.to_string()) {
            // Somebody else made it in the meantime.
            Ok(_) | Err(HubError::Status { status: 409, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sends files and commits them on top of `parent`; the new commit.
    fn send(&mut self, files: &[&Upload], parent: Option<&str>) -> Result<String, HubError> {
        let modes = self.modes(files)?;
        let of_mode = |wanted: Mode| {
            let chosen = files
                .iter()
                .zip(&modes)
                .filter(move |(_, mode)| **mode == wanted);
            chosen.map(|(file, _)| *file).collect::<Vec<_>>()
        };
        let (large, small) = (of_mode(Mode::Lfs), of_mode(Mode::Regular));
        if !large.is_empty() {
            lfs::send(&mut self.session, &self.publication.repository, &large)?;
        }
        let mut header = json!({ "summary": self.publication.message, "description": "" });
        if let (Some(parent), Some(header)) = (parent, header.as_object_mut()) {
            header.insert("parentCommit".into(), parent.into());
        }
        let mut lines = vec![json!({ "key": "header", "value": header })];
        for file in &large {
            let oid = digits(&file.sha256);
            let value =
                json!({ "path": file.path, "algo": "sha256", "oid": oid, "size": file.bytes });
            lines.push(json!({ "key": "lfsFile", "value": value }));
        }
        for file in &small {
            self.session.observer.on(&Event::Sending {
                file: &file.path,
                bytes: file.bytes,
            });
            let content = BASE64.encode(small_content(file)?);
            let value = json!({ "path": file.path, "encoding": "base64", "content": content });
            lines.push(json!({ "key": "file", "value": value }));
        }
        let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
        let url = self.address_in_api("commit");
        let text = self.post(&url, "application/x-ndjson", &lines.join("\n"))?;
        let commit: RawCommit = parse(&url, &text)?;
        if !is_commit(&commit.commit_oid) {
            return Err(unexpected(&url, "expected the 40 digits of a commit"));
        }
        for file in small {
            self.session.observer.on(&Event::Sent {
                file: &file.path,
                bytes: file.bytes,
            });
        }
        Ok(commit.commit_oid)
    }

    /// How each file is to be stored.
    fn modes(&mut self, files: &[&Upload]) -> Result<Vec<Mode>, HubError> {
        let described = files.iter().map(|file| {
            let sample = BASE64.encode(&file.sample);
            json!({ "path": file.path, "sample": sample, "size": file.bytes })
        });
        let question = json!({ "files": described.collect::<Vec<_>>() });
        let url = self.address_in_api("preupload");
        let text = self.post(&url, "application/json", &question.to_string())?;
        let modes: RawModes = parse(&url, &text)?;
        let mode_of = |file: &&Upload| {
            let path = &file.path;
            let Some(mode) = modes.files.iter().find(|mode| mode.path == *path) else {
                return Err(unexpected(&url, &format!("nothing is said of `{path}`")));
            };
            if mode.should_ignore {
                let problem = format!("the repository's .gitignore leaves out `{path}`");
                return Err(unexpected(&url, &problem));
            }
            // Storage for large files takes no empty ones.
            Ok(match file.bytes {
                0 => Mode::Regular,
                _ => mode.upload_mode,
            })
        };
        files.iter().map(mode_of).collect()
    }

    /// Compares what the hub lists in a commit with what was to be published.
    fn check(&mut self, commit: &str) -> Result<(), HubError> {
        let at = self.publication.repository.at(commit);
        let listing = self.listing(&at)?;
        let url = self.session.client.listing(&at).url().to_owned();
        for file in &self.publication.files {
            match listing.files.get(&file.path) {
                Some(listed) if file.is(listed) => {}
                Some(listed) => {
                    let expected = match listed.digest {
                        Digest::GitBlob(_) => file.git_blob,
                        _ => file.sha256,
                    };
                    return Err(HubError::WrongDigest {
                        url,
                        expected,
                        found: listed.digest,
                    });
                }
                None => {
                    return Err(HubError::NotListed {
                        url,
                        path: file.path.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    fn post(&mut self, url: &str, kind: &str, text: &str) -> Result<Vec<u8>, HubError> {
        let headers = [("content-type", kind.to_owned())];
        self.session.ask(
            self.publication.repository.id(),
            |client| Ok(client.post(Host::Hub, url, &headers, text.as_bytes().to_vec())),
            body,
        )
    }
}

/// The bytes of a file that goes into the commit itself.
fn small_content(file: &Upload) -> Result<Vec<u8>, HubError> {
    let bytes = match &file.content {
        Content::Bytes(bytes) => bytes.clone(),
        Content::File(path) => cxr_fs::read_regular(path, LONGEST_INLINE)?,
    };
    match bytes.len() as u64 == file.bytes {
        true => Ok(bytes),
        false => Err(HubError::Unpublishable {
            path: PathBuf::from(&file.path),
            problem: "somebody is writing to it".into(),
        }),
    }
}

/// The body of an answer that is a success.
pub(crate) fn body(response: &Response, url: &str, stop: &AtomicBool) -> Result<Vec<u8>, Failure> {
    match response.status {
        200..=299 => response.bytes(LONGEST, stop),
        _ => Err(response.failure(url)),
    }
}

pub(crate) fn parse<'a, T: Deserialize<'a>>(url: &str, text: &'a [u8]) -> Result<T, HubError> {
    serde_json::from_slice(text).map_err(|error| unexpected(url, &error.to_string()))
}

pub(crate) fn unexpected(url: &str, problem: &str) -> HubError {
    HubError::Upload {
        url: url.to_owned(),
        problem: problem.to_owned(),
    }
}

/// The hexadecimal digits of a digest alone.
pub(crate) fn digits(digest: &Digest) -> String {
    let text = digest.to_string();
    text.split_once(':')
        .map_or_else(String::new, |(_, digits)| digits.to_owned())
}
