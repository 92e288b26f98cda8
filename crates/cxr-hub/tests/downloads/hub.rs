//! Files of the hub: listings, commits, tokens, and what is uploaded later under the same name.

use std::sync::Mutex;

use cxr_hub::{HubError, ModelReference, Receipt, Token, fetch_model};

use crate::fake_hub::{FakeHub, ID, TOKEN, blob, of_the_hub};
use crate::place::{Place, file, sha256};
use crate::server::{Reply, Server, content};

const LENGTH: usize = 700_000;
const BREAK: usize = 300_000;

#[test]
fn the_listing_gives_unknown_digests_and_they_are_recorded() {
    for (path, bytes, algorithm) in [
        ("data/list.txt", b"hello\n".as_slice(), "git-blob"),
        ("data/x y é#.zip", b"large", "sha256"),
    ] {
        let encoded = path
            .replace(' ', "%20")
            .replace('é', "%C3%A9")
            .replace('#', "%23");
        let overloaded = |_: &_, before, reply| match before {
            0 => Reply::status(503),
            1 => Reply::status(429).with("retry-after", "0"),
            _ => reply,
        };
        let hub = FakeHub::start(overloaded);
        // The server hands the path on as it came.
        let commit = hub
            .state
            .lock()
            .unwrap()
            .commit(&[(path, bytes), (&encoded, bytes)]);
        let mut place = hub.place();
        let wanted = of_the_hub("main", path);
        let fetched = place.fetch(&wanted).unwrap();
        assert_eq!(fetched.transferred, bytes.len() as u64);
        assert_eq!(place.read("file.bin"), bytes);
        let receipt = Receipt::read(place.path(), &wanted.name).unwrap();
        assert_eq!(receipt.digest.algorithm(), algorithm);
        let listing = format!("api/datasets/{ID}/revision/{commit}");
        assert_eq!(receipt.digest_from, hub.server.url(&listing));
        assert!(receipt.url.unwrap().contains(&commit));
        assert_eq!(
            place.names(),
            ["file.bin", "file.bin.fetched.toml", "hub.lock.toml"]
        );
        let pins = String::from_utf8(place.read("hub.lock.toml")).unwrap();
        assert!(pins.contains(&commit) && pins.contains(ID), "{pins}");

        // Offline from now on; even the receipt's digest serves when the file was touched.
        place.options.endpoint = "http://127.0.0.1:9".parse().unwrap();
        place.options.offline = true;
        assert_eq!(place.fetch(&wanted).unwrap().transferred, 0);
        let opened = std::fs::File::options()
            .write(true)
            .open(place.path().join("file.bin"))
            .unwrap();
        opened.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(place.fetch(&wanted).unwrap().transferred, 0);
        assert_eq!(
            Receipt::read(place.path(), &wanted.name).unwrap().digest,
            receipt.digest
        );
    }
}

#[test]
fn a_large_file_goes_on_where_its_storage_broke_off() {
    let body = content(LENGTH);
    for ranges in [true, false] {
        let cuts = Mutex::new(0);
        let hub = FakeHub::start(move |request, _, mut reply| {
            if request.path.starts_with("/api") || reply.status == 302 {
                return reply;
            }
            if !ranges {
                reply = Reply::ok(&content(LENGTH));
            }
            let mut cuts = cuts.lock().unwrap();
            *cuts += 1;
            match *cuts {
                1 => reply.cut(BREAK),
                _ => reply,
            }
        });
        hub.state.lock().unwrap().commit(&[("big.zip", &body)]);
        let mut place = hub.place();
        let fetched = place.fetch(&of_the_hub("main", "big.zip")).unwrap();
        assert_eq!(place.read("file.bin"), body);
        let (again, range) = match ranges {
            true => (0, Some(BREAK)),
            false => (BREAK, Some(BREAK)),
        };
        assert_eq!(fetched.transferred, (LENGTH + again) as u64);
        assert_eq!(hub.storage.requests()[1].range(), range);
    }
}

#[test]
fn the_bytes_must_be_those_of_the_listing() {
    let hub = FakeHub::start(
        |request, _, reply| match request.path.contains("/resolve/") {
            true => Reply::file(request, b"jello\n", ""),
            false => reply,
        },
    );
    hub.state
        .lock()
        .unwrap()
        .commit(&[("data/list.txt", b"hello\n")]);
    let mut place = hub.place();
    let error = place
        .fetch(&of_the_hub("main", "data/list.txt"))
        .unwrap_err();
    assert!(matches!(error, HubError::WrongDigest { .. }), "{error}");
    place.check_absent();
    let error = place
        .fetch(&of_the_hub("main", "data/other.txt"))
        .unwrap_err();
    assert!(matches!(error, HubError::NotListed { .. }), "{error}");
    let mut wanted = of_the_hub("main", "data/list.txt");
    wanted.bytes = Some(7);
    let error = place.fetch(&wanted).unwrap_err();
    let wrong = matches!(
        error,
        HubError::WrongSize {
            expected: 7,
            found: 6,
            ..
        }
    );
    assert!(wrong, "{error}");

    let no_hub = Server::start(|_, _| Reply::ok(b"<html>sign in</html>"));
    place.options.endpoint = no_hub.url("").parse().unwrap();
    let error = place
        .fetch(&of_the_hub("main", "data/list.txt"))
        .unwrap_err();
    assert!(matches!(error, HubError::Listing { .. }), "{error}");
}

/// A branch that moved between two files of one set gave files of two states of a repository.
#[test]
fn a_folder_stays_at_the_commit_that_a_branch_was_first() {
    let hub = FakeHub::with(&[("a.txt", b"old a\n"), ("b.txt", b"old b\n")]);
    let mut place = hub.place();
    let first = of_the_hub("main", "a.txt");
    place.fetch(&first).unwrap();
    hub.state
        .lock()
        .unwrap()
        .commit(&[("a.txt", b"new a\n"), ("b.txt", b"new b\n")]);
    let mut second = of_the_hub("main", "b.txt");
    second.name = "second.txt".parse().unwrap();
    place.fetch(&second).unwrap();
    assert_eq!(place.read("second.txt"), b"old b\n");
    // A damaged file is fetched again as it was, not as it is now.
    std::fs::write(place.path().join("file.bin"), b"nonsense").unwrap();
    place.fetch(&first).unwrap();
    assert_eq!(place.read("file.bin"), b"old a\n");

    // A history that was rewritten has lost the commit.
    let state = &hub.state;
    let old = {
        let mut state = state.lock().unwrap();
        let main = state.main.clone();
        let old = state
            .commits
            .keys()
            .find(|name| **name != main)
            .unwrap()
            .clone();
        state.commits.remove(&old).unwrap()
    };
    assert_eq!(old["a.txt"], b"old a\n");
    let mut third = of_the_hub("main", "b.txt");
    third.name = "third.txt".parse().unwrap();
    let error = place.fetch(&third).unwrap_err();
    assert!(matches!(error, HubError::CommitGone { .. }), "{error}");
    assert!(error.to_string().contains("hub.lock.toml"), "{error}");
    std::fs::remove_file(place.path().join("hub.lock.toml")).unwrap();
    place.fetch(&third).unwrap();
    assert_eq!(place.read("third.txt"), b"new b\n");
}

/// The listing of a branch was believed each time: a new upload replaced a file without a word.
#[test]
fn a_new_upload_under_the_same_name_is_an_error() {
    let hub = FakeHub::with(&[("a.txt", b"old\n")]);
    let mut place = hub.place();
    let wanted = of_the_hub("main", "a.txt");
    place.fetch(&wanted).unwrap();
    let old = hub.state.lock().unwrap().main.clone();
    let new = hub.state.lock().unwrap().commit(&[("a.txt", b"new\n")]);
    // Somebody wants the branch as it is now, and lost the file, but not its receipt.
    std::fs::remove_file(place.path().join("hub.lock.toml")).unwrap();
    std::fs::remove_file(place.path().join("file.bin")).unwrap();
    let error = place.fetch(&wanted).unwrap_err();
    let HubError::Replaced {
        recorded, found, ..
    } = &error
    else {
        panic!("{error}");
    };
    let digests = [recorded, found].map(ToString::to_string);
    assert_eq!(
        digests,
        [b"old\n", b"new\n"].map(|text| format!("git-blob:{}", blob(text)))
    );
    let text = error.to_string();
    for advice in [
        "file.bin.fetched.toml",
        "`revision`",
        old.as_str(),
        new.as_str(),
    ] {
        assert!(text.contains(advice), "{advice}: {text}");
    }
    place.check_absent();
    // What it says to do, both ways.
    place.fetch(&of_the_hub(&old, "a.txt")).unwrap();
    assert_eq!(place.read("file.bin"), b"old\n");
    std::fs::remove_file(place.path().join("file.bin")).unwrap();
    std::fs::remove_file(place.path().join("file.bin.fetched.toml")).unwrap();
    place.fetch(&wanted).unwrap();
    assert_eq!(place.read("file.bin"), b"new\n");
}

#[test]
fn another_commit_in_the_manifest_is_another_file() {
    let hub = FakeHub::with(&[("a.txt", b"old\n")]);
    let old = hub.state.lock().unwrap().main.clone();
    let new = hub.state.lock().unwrap().commit(&[("a.txt", b"new\n")]);
    let mut place = hub.place();
    place.fetch(&of_the_hub(&old, "a.txt")).unwrap();
    assert_eq!(place.names(), ["file.bin", "file.bin.fetched.toml"]);
    assert_eq!(
        place.fetch(&of_the_hub(&old, "a.txt")).unwrap().transferred,
        0
    );
    // A receipt of a version that did not keep the source says as much.
    let receipt = String::from_utf8(place.read("file.bin.fetched.toml")).unwrap();
    let lines = receipt.lines().filter(|line| !line.starts_with("source ="));
    let without: String = lines.map(|line| format!("{line}\n")).collect();
    assert_ne!(without, receipt);
    std::fs::write(place.path().join("file.bin.fetched.toml"), without).unwrap();
    place.options.offline = true;
    place.fetch(&of_the_hub(&old, "a.txt")).unwrap();
    assert_eq!(place.seen.0, ["present"]);
    place.options.offline = false;
    place.fetch(&of_the_hub(&new, "a.txt")).unwrap();
    assert_eq!(place.seen.0[0], "rejected");
    assert_eq!(place.read("file.bin"), b"new\n");
    assert_eq!(place.read("file.bin.rejected"), b"old\n");
}

#[test]
fn what_has_no_commit_is_not_believed() {
    let hub = FakeHub::with(&[("a.txt", b"a\n")]);
    hub.state.lock().unwrap().says_no_commit = true;
    let mut place = hub.place();
    let error = place.fetch(&of_the_hub("main", "a.txt")).unwrap_err();
    assert!(matches!(error, HubError::NotPinned { .. }), "{error}");
    place.check_absent();

    // Nor is a commit that answers as another one.
    let hub = FakeHub::with(&[("a.txt", b"a\n")]);
    let commit = "f".repeat(40);
    {
        let mut state = hub.state.lock().unwrap();
        let files = state.commits.values().next().unwrap().clone();
        state.commits.insert(commit.clone(), files);
    }
    let lies = FakeHub::start(move |request, _, reply| {
        let text = String::from_utf8(reply.body.clone()).unwrap();
        match request.path.contains("/revision/") {
            true => Reply::ok(text.replace(&"f".repeat(40), &"e".repeat(40)).as_bytes()),
            false => reply,
        }
    });
    *lies.state.lock().unwrap() = std::mem::take(&mut *hub.state.lock().unwrap());
    let error = lies
        .place()
        .fetch(&of_the_hub(&commit, "a.txt"))
        .unwrap_err();
    assert!(matches!(error, HubError::Listing { .. }), "{error}");

    // Nor a file of commits that says something else.
    for text in [
        "nonsense",
        "[[pin]]\nrepository = \"a\"\nrevision = \"b\"\ncommit = \"../x\"\n",
    ] {
        let hub = FakeHub::with(&[("a.txt", b"a\n")]);
        let mut place = hub.place();
        std::fs::write(place.path().join("hub.lock.toml"), text).unwrap();
        let error = place.fetch(&of_the_hub("main", "a.txt")).unwrap_err();
        assert!(matches!(error, HubError::Pins { .. }), "{error}");
        assert!(hub.asked().is_empty());
    }
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let hub = FakeHub::with(&[("a.zip", b"bytes")]);
    hub.state.lock().unwrap().private = true;
    let mut place = hub.place();
    let wanted = of_the_hub("main", "a.zip");
    let error = place.fetch(&wanted).unwrap_err();
    assert!(
        matches!(error, HubError::Status { status: 401, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("HF_TOKEN"), "{error}");
    FakeHub::with_token(&mut place);
    // The storage asserts that it sees none.
    place.fetch(&wanted).unwrap();
    assert_eq!(place.read("file.bin"), b"bytes");
    assert_eq!(hub.storage.requests().len(), 1);

    let other = Server::start(|request, _| Reply::file(request, b"bytes", ""));
    let mut place = Place::new();
    place.options.token = Token::new(TOKEN);
    place.fetch(&file(b"bytes", &[other.url("file")])).unwrap();
    assert_eq!(other.requests()[0].header("authorization"), None);
}

#[test]
fn offline_nothing_is_asked() {
    let hub = FakeHub::with(&[("a.txt", b"a\n")]);
    let mut place = hub.place();
    place.options.offline = true;
    let error = place.fetch(&of_the_hub("main", "a.txt")).unwrap_err();
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
    let mut known = of_the_hub("main", "a.txt");
    known.digest = Some(sha256(b"a\n"));
    let error = place.fetch(&known).unwrap_err();
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
    assert!(hub.asked().is_empty());
}

#[test]
fn another_source_follows_a_hub_that_has_nothing() {
    let hub = FakeHub::with(&[("a.txt", b"a\n")]);
    let url = Server::start(|request, _| Reply::file(request, b"right", ""));
    let mut wanted = of_the_hub("main", "missing.txt");
    wanted.digest = Some(sha256(b"right"));
    wanted
        .sources
        .extend(file(b"right", &[url.url("file")]).sources);
    let mut place = hub.place();
    place.fetch(&wanted).unwrap();
    assert_eq!(place.seen.0, ["source failed", "started at 0", "finished"]);
    place.check_complete(b"right");
}

#[test]
fn a_model_is_fetched_by_its_name_and_stays_the_same() {
    let hub = FakeHub::with(&[
        ("model.safetensors", b"old weights"),
        ("README.md", b"card"),
    ]);
    let place = hub.place();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let fetch = |text: &str| {
        let reference: ModelReference = text.parse().unwrap();
        fetch_model(&reference, place.path(), &place.options, &mut (), &stop)
    };
    let fetched = fetch("hub:somebody/thing").unwrap();
    assert_eq!(std::fs::read(&fetched.path).unwrap(), b"old weights");
    let old = hub.state.lock().unwrap().main.clone();
    let new = hub
        .state
        .lock()
        .unwrap()
        .commit(&[("model.safetensors", b"new weights")]);
    assert_eq!(
        fetch("hub:somebody/thing").unwrap(),
        cxr_hub_fetched(&fetched)
    );
    // Another revision is another model, in another folder.
    let other = fetch(&format!("hub:somebody/thing@{new}")).unwrap();
    assert_eq!(std::fs::read(&other.path).unwrap(), b"new weights");
    assert_ne!(other.path.parent(), fetched.path.parent());
    let same = fetch(&format!("hub:somebody/thing@{old}")).unwrap();
    assert_eq!(std::fs::read(&same.path).unwrap(), b"old weights");
    let error = fetch("hub:somebody/nothing").unwrap_err();
    assert!(
        matches!(error, HubError::Status { status: 404, .. }),
        "{error}"
    );
    for text in [
        "somebody/thing",
        "hub:thing",
        "hub:a/../b",
        "hub:a/b@",
        "hub:a/b@../c",
    ] {
        assert!(text.parse::<ModelReference>().is_err(), "{text}");
    }
}

/// The same, but that nothing was transferred.
fn cxr_hub_fetched(fetched: &cxr_hub::Fetched) -> cxr_hub::Fetched {
    let mut same = fetched.clone();
    same.transferred = 0;
    same
}
