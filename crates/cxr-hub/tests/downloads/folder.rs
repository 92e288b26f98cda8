//! What lies in the folder already, what the hub says, and sets of files.

use std::sync::atomic::AtomicBool;

use crate::place::{Place, file, sha256};
use crate::server::{Reply, Server};
use cxr_hub::{
    HubError, HubFile, Manifest, Receipt, RemoteFile, RepositoryKind, Source, fetch_all,
};

/// `printf 'hello\n' | git hash-object --stdin`
const HELLO_BLOB: &str = "ce013625030ba8dba906f756967f9e9ca394464a";

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

/// A hub with a data set of one small and one large file, listed on two pages; overloaded at first.
fn hub() -> Server {
    let folder = "/api/datasets/somebody/data/tree/main/data";
    Server::start(move |request, before| match request.path.as_str() {
        _ if before == 0 => Reply::status(503),
        path if path == folder => {
            let host = request.header("host").unwrap();
            let next = format!("<http://{host}{folder}?cursor=2>; rel=\"next\"");
            let listing = format!(
                r#"[{{"type":"file","oid":"{HELLO_BLOB}","size":6,"path":"data/list.txt"}}]"#
            );
            Reply::ok(listing.as_bytes()).with("link", next)
        }
        path if path.strip_prefix(folder) == Some("?cursor=2") => {
            let digest = sha256(b"large").to_string();
            let digits = digest.strip_prefix("sha256:").unwrap();
            let listing = format!(
                r#"[{{"type":"file","oid":"{HELLO_BLOB}","size":5,"path":"data/large.zip",
                     "lfs":{{"oid":"{digits}","size":5,"pointerSize":130}}}}]"#
            );
            Reply::ok(listing.as_bytes())
        }
        "/datasets/somebody/data/resolve/main/data/list.txt" => {
            Reply::file(request, b"hello\n", "")
        }
        "/datasets/somebody/data/resolve/main/data/large.zip" => Reply::file(request, b"large", ""),
        _ => Reply::status(404),
    })
}

fn of_the_hub(path: &str) -> RemoteFile {
    let source = HubFile::new(RepositoryKind::Dataset, "somebody/data", "main", path).unwrap();
    RemoteFile {
        name: "file.bin".parse().unwrap(),
        bytes: None,
        digest: None,
        sources: vec![Source::Hub(source)],
    }
}

#[test]
fn the_hubs_listing_tells_unknown_digests_and_they_are_recorded() {
    for (path, bytes, algorithm) in [
        ("data/list.txt", b"hello\n".as_slice(), "git-blob"),
        ("data/large.zip", b"large", "sha256"),
    ] {
        let hub = hub();
        let mut place = Place::new();
        place.options.endpoint = hub.url("").parse().unwrap();
        let wanted = of_the_hub(path);
        place.fetch(&wanted).unwrap();
        place.check_complete(bytes);
        let receipt = Receipt::read(place.path(), &wanted.name).unwrap();
        assert_eq!(receipt.digest.algorithm(), algorithm);
        let listing = "api/datasets/somebody/data/tree/main/data";
        assert_eq!(receipt.digest_from, hub.url(listing));

        // Offline from now on; even the receipt's digest serves when the file was touched.
        place.options.endpoint = "http://127.0.0.1:9".parse().unwrap();
        assert_eq!(place.fetch(&wanted).unwrap().transferred, 0);
        let opened = std::fs::File::options()
            .write(true)
            .open(place.path().join("file.bin"))
            .unwrap();
        opened.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(place.fetch(&wanted).unwrap().transferred, 0);
    }
}

/// A hub whose branch is at a commit; files have ranges or not, and the first answer is cut.
fn hub_at_a_commit(ranges: bool) -> Server {
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    let cuts = std::sync::atomic::AtomicUsize::new(0);
    Server::start(move |request, _| {
        let folder = format!("/api/datasets/somebody/data/tree/{COMMIT}/data");
        let file = format!("/datasets/somebody/data/resolve/{COMMIT}/data/list.txt");
        match request.path.as_str() {
            "/api/datasets/somebody/data/revision/main" => {
                Reply::ok(format!(r#"{{"sha":"{COMMIT}","siblings":[]}}"#).as_bytes())
            }
            path if path == folder => {
                let listing = format!(
                    r#"[{{"type":"file","oid":"{HELLO_BLOB}","size":6,"path":"data/list.txt"}}]"#
                );
                Reply::ok(listing.as_bytes())
            }
            path if path == file => {
                let reply = match ranges {
                    true => Reply::file(request, b"hello\n", "\"a\""),
                    false => Reply::ok(b"hello\n"),
                };
                match cuts.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                    0 => reply.cut(4),
                    _ => reply,
                }
            }
            _ => Reply::status(404),
        }
    })
}

#[test]
fn a_branch_is_fetched_at_the_commit_that_it_is_with_ranges_and_without() {
    for (ranges, transferred) in [(true, 6), (false, 10)] {
        let hub = hub_at_a_commit(ranges);
        let mut place = Place::new();
        place.options.endpoint = hub.url("").parse().unwrap();
        let wanted = of_the_hub("data/list.txt");
        let fetched = place.fetch(&wanted).unwrap();
        place.check_complete(b"hello\n");
        assert_eq!(fetched.transferred, transferred);
        let receipt = Receipt::read(place.path(), &wanted.name).unwrap();
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert!(receipt.digest_from.contains(commit), "{receipt:?}");
        assert!(receipt.url.unwrap().contains(commit));
    }
}

#[test]
fn the_hubs_bytes_must_be_those_of_its_listing() {
    let lies = Server::start(|request, _| match request.path.as_str() {
        "/api/datasets/somebody/data/tree/main/data" => {
            let listing = format!(
                r#"[{{"type":"file","oid":"{HELLO_BLOB}","size":6,"path":"data/list.txt"}}]"#
            );
            Reply::ok(listing.as_bytes())
        }
        _ => Reply::file(request, b"jello\n", ""),
    });
    let mut place = Place::new();
    place.options.endpoint = lies.url("").parse().unwrap();
    let error = place.fetch(&of_the_hub("data/list.txt")).unwrap_err();
    assert!(matches!(error, HubError::WrongDigest { .. }), "{error}");
    place.check_absent();
    let error = place.fetch(&of_the_hub("data/other.txt")).unwrap_err();
    assert!(matches!(error, HubError::NotListed { .. }), "{error}");

    let no_hub = Server::start(|_, _| Reply::ok(b"<html>sign in</html>"));
    place.options.endpoint = no_hub.url("").parse().unwrap();
    let error = place.fetch(&of_the_hub("data/list.txt")).unwrap_err();
    assert!(matches!(error, HubError::Listing { .. }), "{error}");
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
