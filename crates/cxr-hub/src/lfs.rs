//! Large files to the hub's storage: Git LFS's batch API, with `basic` transfers and the hub's
//! `multipart` ones.
//!
//! <https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md>; what `multipart` adds is a
//! `chunk_size` and one address for each part, by its number, among the headers of the upload.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::download::Session;
use crate::http::Host;
use crate::manifest::check_web_address;
use crate::publish::{body, digits, parse, unexpected};
use crate::{Content, Event, HubError, Repository, RepositoryKind, Upload};

const MEDIA_TYPE: &str = "application/vnd.git-lfs+json";
/// A part is read as a whole.
const LONGEST_PART: u64 = 1 << 30;

#[derive(Deserialize)]
struct RawBatch {
    objects: Vec<RawObject>,
}

#[derive(Deserialize)]
struct RawObject {
    oid: String,
    actions: Option<RawActions>,
    error: Option<RawError>,
}

#[derive(Deserialize)]
struct RawError {
    message: String,
}

#[derive(Deserialize)]
struct RawActions {
    upload: Option<RawAction>,
    verify: Option<RawAction>,
}

#[derive(Deserialize)]
struct RawAction {
    href: String,
    #[serde(default)]
    header: BTreeMap<String, Value>,
}

/// Sends files to where the hub says, those that its storage does not have.
pub(crate) fn send(
    session: &mut Session<'_>,
    repository: &Repository,
    files: &[&Upload],
) -> Result<(), HubError> {
    let prefix = match repository.kind() {
        RepositoryKind::Model => "",
        RepositoryKind::Dataset => "datasets/",
    };
    let (endpoint, id) = (&session.options.endpoint, repository.id());
    let url = format!("{endpoint}/{prefix}{id}.git/info/lfs/objects/batch");
    let objects = files.iter().map(|file| {
        let oid = digits(&file.sha256());
        json!({ "oid": oid, "size": file.bytes() })
    });
    let question = json!({
        "operation": "upload",
        "transfers": ["basic", "multipart"],
        "objects": objects.collect::<Vec<_>>(),
        "hash_algo": "sha256",
        "ref": { "name": repository.revision() },
    });
    let text = post(session, Host::Hub, &url, &question)?;
    let batch: RawBatch = parse(&url, &text)?;
    for file in files {
        let oid = digits(&file.sha256());
        let Some(object) = batch.objects.iter().find(|object| object.oid == oid) else {
            return Err(unexpected(&url, &format!("nothing is said of {oid}")));
        };
        if let Some(error) = &object.error {
            let problem = format!("`{}`: {}", file.path(), error.message.escape_debug());
            return Err(unexpected(&url, &problem));
        }
        if let Some(actions) = &object.actions {
            send_one(session, file, actions)?;
        }
        session.observer.on(&Event::Sent {
            file: file.path(),
            bytes: file.bytes(),
        });
    }
    Ok(())
}

fn send_one(
    session: &mut Session<'_>,
    file: &Upload,
    actions: &RawActions,
) -> Result<(), HubError> {
    // Without one the storage has the file.
    if let Some(upload) = &actions.upload {
        check_web_address(&upload.href)?;
        session.observer.on(&Event::Sending {
            file: file.path(),
            bytes: file.bytes(),
        });
        match upload.header.get("chunk_size") {
            None => send_whole(session, file, upload)?,
            Some(size) => send_parts(session, file, upload, size)?,
        }
    }
    if let Some(verify) = &actions.verify {
        check_web_address(&verify.href)?;
        let what = json!({ "oid": digits(&file.sha256()), "size": file.bytes() });
        // Only the hub's own address gets the token.
        let endpoint = format!("{}/", session.options.endpoint);
        let host = match verify.href.starts_with(&endpoint) {
            true => Host::Hub,
            false => Host::Other,
        };
        post(session, host, &verify.href, &what)?;
    }
    Ok(())
}

fn send_whole(
    session: &mut Session<'_>,
    file: &Upload,
    upload: &RawAction,
) -> Result<(), HubError> {
    let headers: Vec<(&str, String)> = (upload.header.iter())
        .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?.to_owned())))
        .collect();
    session.ask(
        file.path(),
        |client| {
            Ok(match file.content() {
                Content::Bytes(bytes) => client.put(&upload.href, &headers, bytes.clone()),
                Content::File(path) => {
                    client.put(&upload.href, &headers, cxr_fs::open_regular(path)?)
                }
            })
        },
        body,
    )?;
    Ok(())
}

fn send_parts(
    session: &mut Session<'_>,
    file: &Upload,
    upload: &RawAction,
    size: &Value,
) -> Result<(), HubError> {
    let wrong = |problem: String| unexpected(&upload.href, &problem);
    let read = |value: &Value| match value {
        Value::String(text) => text.parse().ok(),
        value => value.as_u64(),
    };
    let size = read(size).filter(|size| (1..=LONGEST_PART).contains(size));
    let size = size.ok_or_else(|| wrong(format!("expected 1 to {LONGEST_PART} bytes a part")))?;
    let urls: BTreeMap<u64, &str> = (upload.header.iter())
        .filter_map(|(name, url)| Some((name.parse().ok()?, url.as_str()?)))
        .collect();
    let count = file.bytes().div_ceil(size);
    if !(1..=count).eq(urls.keys().copied()) {
        return Err(wrong(format!("expected the addresses of {count} parts")));
    }
    let mut parts = Vec::new();
    for (number, url) in urls {
        check_web_address(url)?;
        let first = (number - 1) * size;
        let part = part_of(file, first, size.min(file.bytes() - first))?;
        let etag = session.ask(
            file.path(),
            |client| Ok(client.put(url, &[], part.clone())),
            |response, url, stop| {
                body(response, url, stop)?;
                let etag = response.header("etag").map(str::to_owned);
                Ok(etag.ok_or_else(|| unexpected(url, "expected an `ETag`"))?)
            },
        )?;
        parts.push(json!({ "partNumber": number, "etag": etag }));
    }
    let what = json!({ "oid": digits(&file.sha256()), "parts": parts });
    post(session, Host::Other, &upload.href, &what)?;
    Ok(())
}

fn part_of(file: &Upload, first: u64, length: u64) -> Result<Vec<u8>, HubError> {
    let mut part = Vec::new();
    match file.content() {
        Content::Bytes(bytes) => {
            let rest = bytes.get(first as usize..).unwrap_or_default();
            part.extend(rest.iter().take(length as usize));
        }
        Content::File(path) => {
            let mut opened: File = cxr_fs::open_regular(path)?;
            (opened.seek(SeekFrom::Start(first)))
                .and_then(|_| opened.take(length).read_to_end(&mut part))
                .map_err(HubError::io("read", path))?;
        }
    }
    match part.len() as u64 == length {
        true => Ok(part),
        false => Err(HubError::Unpublishable {
            path: file.path().into(),
            problem: "somebody is writing to it".into(),
        }),
    }
}

fn post(
    session: &mut Session<'_>,
    host: Host,
    url: &str,
    what: &Value,
) -> Result<Vec<u8>, HubError> {
    let headers = [
        ("accept", MEDIA_TYPE.to_owned()),
        ("content-type", MEDIA_TYPE.to_owned()),
    ];
    let text = what.to_string();
    session.ask(
        url,
        |client| Ok(client.post(host, url, &headers, text.as_bytes().to_vec())),
        body,
    )
}
