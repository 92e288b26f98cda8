//! A folder, the options of an impatient user and what was observed.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cxr_hub::{
    Digest, Event, Fetched, Hasher, HubError, Observer, Options, RemoteFile, Source, fetch,
};
use tempfile::TempDir;

pub(crate) fn options() -> Options {
    let mut options = Options::default();
    options.attempts = 3;
    options.first_pause = Duration::from_millis(1);
    options.patience = Duration::from_secs(5);
    options.reserve = 0;
    options
}

/// The SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::for_digest(&Digest::Sha256([0; 32]), 0);
    hasher.update(bytes);
    hasher.finish()
}

/// A file called `file.bin` whose length and digest are known.
pub(crate) fn file(bytes: &[u8], urls: &[String]) -> RemoteFile {
    RemoteFile {
        name: "file.bin".parse().unwrap(),
        bytes: Some(bytes.len() as u64),
        digest: Some(sha256(bytes)),
        sources: urls.iter().map(|url| Source::url(url).unwrap()).collect(),
    }
}

/// The names of events that tell something, in order.
#[derive(Default)]
pub(crate) struct Seen(pub(crate) Vec<String>);

impl Observer for Seen {
    fn on(&mut self, event: &Event<'_>) {
        let told = match event {
            Event::Planned { .. } => format!("{event:?}"),
            Event::Present { .. } => "present".to_owned(),
            Event::Started { from, .. } => format!("started at {from}"),
            Event::StartedOver { reason, .. } => format!("started over: {reason}"),
            Event::Retrying { pause, .. } => format!("retrying after {} s", pause.as_secs()),
            Event::SourceFailed { .. } => "source failed".to_owned(),
            Event::Rejected { .. } => "rejected".to_owned(),
            Event::Cached { .. } => "cached".to_owned(),
            Event::CacheIgnored { .. } => "cache ignored".to_owned(),
            Event::Sending { file, .. } => format!("sending {file}"),
            Event::Sent { file, .. } => format!("sent {file}"),
            Event::Finished { .. } => "finished".to_owned(),
            _ => return,
        };
        self.0.push(told);
    }
}

pub(crate) struct Place {
    pub(crate) folder: TempDir,
    pub(crate) options: Options,
    pub(crate) seen: Seen,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            options: options(),
            seen: Seen::default(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn fetch(&mut self, file: &RemoteFile) -> Result<Fetched, HubError> {
        self.seen.0.clear();
        let stop = AtomicBool::new(false);
        let (folder, options) = (self.folder.path(), &self.options);
        fetch(file, folder, options, &mut self.seen, &stop)
    }

    /// The names in the folder, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path().join(name)).unwrap()
    }

    /// The file is complete, with its receipt, and nothing else is left.
    pub(crate) fn check_complete(&self, bytes: &[u8]) {
        assert!(self.read("file.bin") == bytes, "other bytes");
        assert_eq!(self.names(), ["file.bin", "file.bin.fetched.toml"]);
    }

    /// Nothing has the final name.
    pub(crate) fn check_absent(&self) {
        let names = self.names();
        assert!(!names.contains(&"file.bin".to_owned()), "{names:?}");
    }

    pub(crate) fn part_length(&self) -> Option<u64> {
        let part = std::fs::metadata(self.path().join("file.bin.part"));
        part.ok().map(|metadata| metadata.len())
    }
}
