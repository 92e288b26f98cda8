//! A hub on this machine: repositories with commits and branches, storage for large files on another
//! host, and uploads, through the addresses and JSON of Hugging Face's API.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cxr_hub::{
    Digest, Endpoint, Hasher, HubFile, RemoteFile, Repository, RepositoryKind, Source, Token,
};
use serde_json::{Value, json};

use crate::place::{Place, sha256};
use crate::server::{Reply, Request, Server};

pub(crate) type Files = BTreeMap<String, Vec<u8>>;

pub(crate) const ID: &str = "somebody/thing";
pub(crate) const TOKEN: &str = "hf_secret";
/// What the storage hands out as the address of a part.
const N_BYTES_A_PART: usize = 1000;

#[derive(Default)]
pub(crate) struct State {
    /// Whether there is a repository.
    pub(crate) exists: bool,
    pub(crate) commits: BTreeMap<String, Files>,
    pub(crate) main: String,
    /// Whether only the bearer of [`TOKEN`] may see it.
    pub(crate) private: bool,
    /// Whether the listing says its commit.
    pub(crate) says_no_commit: bool,
    /// Whether large files are sent in parts.
    pub(crate) in_parts: bool,
    /// Whether the storage stores something else than what it gets.
    pub(crate) storage_lies: bool,
    storage: BTreeMap<String, Vec<u8>>,
    parts: BTreeMap<usize, Vec<u8>>,
    verified: Vec<String>,
    pub(crate) created: Option<Value>,
    pub(crate) commit_header: Option<Value>,
}

impl State {
    /// Another commit on the branch; its name.
    pub(crate) fn commit(&mut self, files: &[(&str, &[u8])]) -> String {
        self.exists = true;
        let mut all = self.commits.get(&self.main).cloned().unwrap_or_default();
        for (path, bytes) in files {
            all.insert((*path).to_owned(), bytes.to_vec());
        }
        let name = format!("{:040x}", self.commits.len() + 0xabc);
        self.commits.insert(name.clone(), all);
        self.main.clone_from(&name);
        name
    }

    fn files(&self, revision: &str) -> Option<(String, &Files)> {
        let commit = if revision == "main" {
            &self.main
        } else {
            revision
        };
        Some((commit.to_owned(), self.commits.get(commit)?))
    }
}

pub(crate) fn is_large(path: &str) -> bool {
    [".zip", ".safetensors", ".onnx", ".bin"]
        .iter()
        .any(|ending| path.ends_with(ending))
}

fn digits(digest: Digest) -> String {
    digest.to_string().split_once(':').unwrap().1.to_owned()
}

pub(crate) fn oid(bytes: &[u8]) -> String {
    digits(sha256(bytes))
}

pub(crate) fn blob(bytes: &[u8]) -> String {
    let mut hasher = Hasher::for_digest(&Digest::GitBlob([0; 20]), bytes.len() as u64);
    hasher.update(bytes);
    digits(hasher.finish())
}

type Shared = Arc<Mutex<State>>;

#[derive(Clone)]
pub(crate) struct FakeHub {
    pub(crate) state: Shared,
    pub(crate) server: Server,
    pub(crate) storage: Server,
}

impl FakeHub {
    /// A hub whose repository has these files.
    pub(crate) fn with(files: &[(&str, &[u8])]) -> Self {
        let hub = Self::start(|_, _, reply| reply);
        hub.state.lock().unwrap().commit(files);
        hub
    }

    /// An empty hub whose every answer goes through `change`, with how many requests its host had
    /// before.
    pub(crate) fn start(
        change: impl Fn(&Request, usize, Reply) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let (state, change) = (Shared::default(), Arc::new(change));
        let (shared, changed) = (state.clone(), change.clone());
        let storage = Server::start(move |request, before| {
            let reply = stored(&mut shared.lock().unwrap(), request);
            changed(request, before, reply)
        });
        let shared = state.clone();
        // Another host by its name, where no token may go.
        let storage_url = storage.url("").replace("127.0.0.1", "localhost");
        let server = Server::start(move |request, before| {
            let reply = answer(&mut shared.lock().unwrap(), request, &storage_url);
            change(request, before, reply)
        });
        Self {
            state,
            server,
            storage,
        }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.server.url("").parse().unwrap()
    }

    /// A place that fetches from here.
    pub(crate) fn place(&self) -> Place {
        let mut place = Place::new();
        place.options.endpoint = self.endpoint();
        place
    }

    pub(crate) fn with_token(place: &mut Place) {
        place.options.token = Token::new(TOKEN);
    }

    /// Method and path of what the hub was asked.
    pub(crate) fn asked(&self) -> Vec<String> {
        let requests = self.server.requests();
        let line = |request: &Request| format!("{} {}", request.method, request.path);
        requests.iter().map(line).collect()
    }
}

/// A file called `file.bin` of the repository, of unknown digest.
pub(crate) fn of_the_hub(revision: &str, path: &str) -> RemoteFile {
    let repository = Repository::new(RepositoryKind::Dataset, ID, revision).unwrap();
    RemoteFile {
        name: "file.bin".parse().unwrap(),
        bytes: None,
        digest: None,
        sources: vec![Source::Hub(HubFile::new(repository, path).unwrap())],
    }
}

fn json_reply(value: &Value) -> Reply {
    Reply::ok(value.to_string().as_bytes())
}

fn answer(state: &mut State, request: &Request, storage_url: &str) -> Reply {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let authorized = request.header("authorization") == Some(&format!("Bearer {TOKEN}"));
    if (state.private || request.method == "POST") && !authorized {
        return Reply::status(401);
    }
    if (request.method.as_str(), path) == ("POST", "/api/repos/create") {
        let what: Value = serde_json::from_slice(&request.body).unwrap();
        state.created = Some(what);
        state.commit(&[(".gitattributes", b"*.zip filter=lfs\n")]);
        return json_reply(&json!({ "url": "somewhere" }));
    }
    if !state.exists {
        return Reply::status(404);
    }
    let api = ["/api/models/", "/api/datasets/"].iter();
    let api = api.map(|prefix| format!("{prefix}{ID}/"));
    if let Some(rest) = api
        .into_iter()
        .find_map(|prefix| path.strip_prefix(&prefix))
    {
        return match (request.method.as_str(), rest.split_once('/')) {
            ("GET", Some(("revision", revision))) => listing(state, revision, query),
            ("POST", Some(("preupload", "main"))) => preupload(request),
            ("POST", Some(("commit", "main"))) => commit(state, request),
            _ => Reply::status(404),
        };
    }
    if path == format!("/{ID}.git/info/lfs/objects/batch") {
        let host = request.header("host").unwrap();
        return batch(
            state,
            request,
            storage_url,
            &format!("http://{host}/verify"),
        );
    }
    if path == "/verify" {
        let what: Value = serde_json::from_slice(&request.body).unwrap();
        state
            .verified
            .push(what["oid"].as_str().unwrap().to_owned());
        return Reply::ok(b"");
    }
    let resolve = ["/", "/datasets/"].map(|prefix| format!("{prefix}{ID}/resolve/"));
    let file = resolve.iter().find_map(|prefix| path.strip_prefix(prefix));
    let Some((revision, path)) = file.and_then(|file| file.split_once('/')) else {
        return Reply::status(404);
    };
    let Some(bytes) = (state.files(revision)).and_then(|(_, files)| files.get(path)) else {
        return Reply::status(404);
    };
    match is_large(path) {
        true => {
            let oid = oid(bytes);
            let url = format!("{storage_url}{oid}");
            state.storage.insert(oid, bytes.clone());
            Reply::status(302).with("location", url)
        }
        false => Reply::file(request, bytes, &format!("\"{}\"", blob(bytes))),
    }
}

fn listing(state: &State, revision: &str, query: &str) -> Reply {
    assert_eq!(query, "blobs=true");
    let Some((commit, files)) = state.files(revision) else {
        return Reply::status(404);
    };
    let siblings: Vec<Value> = (files.iter())
        .map(|(path, bytes)| match is_large(path) {
            true => json!({ "rfilename": path, "size": bytes.len(), "blobId": blob(b"pointer"),
                "lfs": { "sha256": oid(bytes), "size": bytes.len(), "pointerSize": 130 } }),
            false => json!({ "rfilename": path, "size": bytes.len(), "blobId": blob(bytes) }),
        })
        .collect();
    match state.says_no_commit {
        true => json_reply(&json!({ "id": ID, "siblings": siblings })),
        false => json_reply(&json!({ "id": ID, "sha": commit, "siblings": siblings })),
    }
}

fn preupload(request: &Request) -> Reply {
    let what: Value = serde_json::from_slice(&request.body).unwrap();
    let files = what["files"].as_array().unwrap().iter().map(|file| {
        assert!(file["size"].is_u64() && BASE64.decode(file["sample"].as_str().unwrap()).is_ok());
        let mode = match is_large(file["path"].as_str().unwrap()) {
            true => "lfs",
            false => "regular",
        };
        json!({ "path": file["path"], "uploadMode": mode, "shouldIgnore": false, "oid": null })
    });
    json_reply(&json!({ "files": files.collect::<Vec<_>>() }))
}

fn batch(state: &State, request: &Request, storage: &str, verify: &str) -> Reply {
    let media_type = Some("application/vnd.git-lfs+json");
    assert_eq!(request.header("accept"), media_type);
    assert_eq!(request.header("content-type"), media_type);
    let what: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(what["operation"], "upload");
    let objects = what["objects"].as_array().unwrap().iter().map(|object| {
        let oid = object["oid"].as_str().unwrap();
        let size = object["size"].as_u64().unwrap() as usize;
        if state.storage.contains_key(oid) {
            return json!({ "oid": oid, "size": size });
        }
        let mut header = json!({ "x-signed": "yes" });
        if state.in_parts {
            header = json!({ "chunk_size": N_BYTES_A_PART.to_string() });
            for number in 1..=size.div_ceil(N_BYTES_A_PART) {
                header[format!("{number}")] = json!(format!("{storage}part/{number}"));
            }
        }
        json!({ "oid": oid, "size": size, "authenticated": true, "actions": {
            "upload": { "href": format!("{storage}{oid}"), "header": header },
            "verify": { "href": verify } } })
    });
    json_reply(&json!({ "transfer": "basic", "objects": objects.collect::<Vec<_>>() }))
}

fn commit(state: &mut State, request: &Request) -> Reply {
    assert_eq!(request.header("content-type"), Some("application/x-ndjson"));
    let text = std::str::from_utf8(&request.body).unwrap();
    let mut files = Vec::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let value = &line["value"];
        let path = || value["path"].as_str().unwrap().to_owned();
        match line["key"].as_str().unwrap() {
            "header" => state.commit_header = Some(value.clone()),
            "file" => {
                let content = value["content"].as_str().unwrap();
                files.push((path(), BASE64.decode(content).unwrap()));
            }
            "lfsFile" => {
                let oid = value["oid"].as_str().unwrap();
                let Some(bytes) = state.storage.get(oid) else {
                    return Reply::status(400);
                };
                assert_eq!(value["algo"], "sha256");
                assert_eq!(value["size"], bytes.len());
                files.push((path(), bytes.clone()));
            }
            other => panic!("{other}"),
        }
    }
    let parent = state
        .commit_header
        .as_ref()
        .and_then(|header| header["parentCommit"].as_str());
    if parent.is_some_and(|parent| parent != state.main) {
        return Reply::status(412);
    }
    let files: Vec<_> = (files.iter())
        .map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
        .collect();
    let name = state.commit(&files);
    json_reply(&json!({ "success": true, "commitOid": name, "commitUrl": "somewhere" }))
}

/// The storage of large files, which knows nobody's token.
fn stored(state: &mut State, request: &Request) -> Reply {
    assert_eq!(
        request.header("authorization"),
        None,
        "the token is the hub's"
    );
    let name = request.path.trim_start_matches('/');
    match (request.method.as_str(), name.strip_prefix("part/")) {
        ("GET", _) => match state.storage.get(name) {
            Some(bytes) => Reply::file(request, bytes, &format!("\"{name}\"")),
            None => Reply::status(404),
        },
        ("PUT", Some(number)) => {
            state
                .parts
                .insert(number.parse().unwrap(), request.body.clone());
            Reply::ok(b"").with("etag", format!("\"of part {number}\""))
        }
        ("PUT", None) => {
            assert_eq!(request.header("x-signed"), Some("yes"));
            store(state, name, request.body.clone());
            Reply::ok(b"")
        }
        ("POST", _) => {
            let what: Value = serde_json::from_slice(&request.body).unwrap();
            let parts = what["parts"].as_array().unwrap();
            for (at, part) in parts.iter().enumerate() {
                assert_eq!(part["partNumber"], at + 1);
                assert_eq!(part["etag"], format!("\"of part {}\"", at + 1));
            }
            let bytes = std::mem::take(&mut state.parts)
                .into_values()
                .flatten()
                .collect();
            store(state, name, bytes);
            Reply::ok(b"")
        }
        _ => Reply::status(405),
    }
}

fn store(state: &mut State, name: &str, mut bytes: Vec<u8>) {
    if state.storage_lies {
        bytes[0] ^= 1;
    } else {
        assert_eq!(oid(&bytes), name);
    }
    state.storage.insert(name.to_owned(), bytes);
}
