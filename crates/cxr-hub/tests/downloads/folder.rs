//! What lies in the folder already, and sets of files.

use std::sync::atomic::AtomicBool;

use crate::place::{Place, file, sha256};
use crate::server::{Reply, Server};
use cxr_hub::{HubError, Manifest, fetch_all};

#[test]
fn a_right_file_without_receipt_is_verified_without_network() {
    let mut place = Place::new();
    std::fs::write(place.path().join("file.bin"), b"hello").unwrap();
    let nowhere = file(b"hello", &["http://127.0.0.1:9/file".to_owned()]);
    assert_eq!(place.fetch(&nowhere).unwrap().transferred, 0);
    place.check_complete(b"hello");
}

#[test]
fn a_wrong_file_makes_way_and_is_not_lost() {
    let server = Server::start(|request, _| Reply::file(request, b"hello", ""));
    let wanted = file(b"hello", &[server.url("file")]);
    for wrong in [b"jello".as_slice(), b"hell", b""] {
        let mut place = Place::new();
        std::fs::write(place.path().join("file.bin"), wrong).unwrap();
        place.fetch(&wanted).unwrap();
        assert_eq!(place.seen.0, ["rejected", "started at 0", "finished"]);
        assert_eq!(place.read("file.bin"), b"hello");
        assert_eq!(place.read("file.bin.rejected"), wrong);
    }
}

#[test]
fn a_file_changed_after_it_was_fetched_is_noticed() {
    let server = Server::start(|request, _| Reply::file(request, b"hello", ""));
    let wanted = file(b"hello", &[server.url("file")]);
    let mut place = Place::new();
    place.fetch(&wanted).unwrap();
    let path = place.path().join("file.bin");
    let later =
        std::fs::metadata(&path).unwrap().modified().unwrap() + std::time::Duration::from_secs(1);
    std::fs::write(&path, b"jello").unwrap();
    let opened = std::fs::File::options().write(true).open(&path).unwrap();
    opened.set_modified(later).unwrap();
    place.fetch(&wanted).unwrap();
    assert_eq!(place.seen.0[0], "rejected");
    assert_eq!(place.read("file.bin"), b"hello");
}

#[test]
fn two_processes_do_not_write_one_file() {
    let server = Server::start(|request, _| Reply::file(request, b"hello", ""));
    let wanted = file(b"hello", &[server.url("file")]);
    let mut place = Place::new();
    let other = std::fs::File::create(place.path().join("file.bin.part.lock")).unwrap();
    other.lock().unwrap();
    let error = place.fetch(&wanted).unwrap_err();
    assert!(matches!(error, HubError::Busy { .. }), "{error}");
    assert_eq!(server.requests().len(), 0);
    drop(other);
    place.fetch(&wanted).unwrap();
    place.check_complete(b"hello");
}

#[test]
fn what_cannot_be_verified_is_not_asked_for() {
    let server = Server::start(|request, _| Reply::file(request, b"hello", ""));
    let mut wanted = file(b"hello", &[server.url("file")]);
    wanted.digest = None;
    let mut place = Place::new();
    let error = place.fetch(&wanted).unwrap_err();
    assert!(matches!(error, HubError::NoDigest { .. }), "{error}");
    assert_eq!(server.requests().len(), 0);
    place.check_absent();
}

fn set(server: &Server, more: &str) -> Manifest {
    let digest = |bytes: &[u8]| sha256(bytes);
    let text = format!(
        r#"
        [[set]]
        name = "words"
        about = "two words and a gap"
        licence = "none"
        home = "http://a.example"
        {more}
        [[set.file]]
        name = "hello.txt"
        bytes = 5
        digest = "{}"
        sources = [{{ url = "{}" }}]
        [[set.file]]
        name = "missing.txt"
        digest = "{}"
        sources = [{{ url = "{}" }}]
        [[set.file]]
        name = "world.txt"
        digest = "{}"
        sources = [{{ url = "{}" }}]
        "#,
        digest(b"hello"),
        server.url("hello"),
        digest(b"gap"),
        server.url("missing"),
        digest(b"world"),
        server.url("world"),
    );
    Manifest::parse(&text, "manifest.toml").unwrap()
}

fn words() -> Server {
    Server::start(|request, _| match request.path.as_str() {
        "/hello" => Reply::file(request, b"hello", ""),
        "/world" => Reply::file(request, b"world", ""),
        _ => Reply::status(404),
    })
}

#[test]
fn one_missing_file_does_not_stop_the_others() {
    let manifest = set(&words(), "");
    let mut place = Place::new();
    let folder = place.path().join("new/folder");
    let stop = AtomicBool::new(false);
    let words = manifest.set("words", None).unwrap();
    let report = fetch_all(words, &folder, &place.options, &mut place.seen, &stop).unwrap();
    let names: Vec<_> = report
        .fetched
        .iter()
        .map(|file| file.path.clone())
        .collect();
    assert_eq!(names, [folder.join("hello.txt"), folder.join("world.txt")]);
    let [(name, HubError::Status { status: 404, .. })] = report.failed.as_slice() else {
        panic!("{:?}", report.failed);
    };
    assert_eq!(name.as_str(), "missing.txt");
    assert_eq!(
        place.seen.0[0],
        "Planned { files: 3, present: 0, here: 0, missing: 5, complete: false }"
    );

    place.seen.0.clear();
    fetch_all(words, &folder, &place.options, &mut place.seen, &stop).unwrap();
    assert_eq!(
        place.seen.0[0],
        "Planned { files: 3, present: 2, here: 10, missing: 0, complete: false }"
    );
}

#[test]
fn a_set_that_does_not_fit_is_not_begun() {
    let server = words();
    let manifest = set(&server, &format!("about_bytes = {}", i64::MAX));
    let place = Place::new();
    let stop = AtomicBool::new(false);
    let words = manifest.set("words", None).unwrap();
    let error = fetch_all(words, place.path(), &place.options, &mut (), &stop).unwrap_err();
    assert!(matches!(error, HubError::DiskSpace { .. }), "{error}");
    assert_eq!(server.requests().len(), 0);
}
