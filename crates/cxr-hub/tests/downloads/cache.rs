//! Files that Python's `huggingface_hub` has in its cache.
//!
//! The layout is what `hf_hub_download` of version 2.4.0 wrote for two such files of a server on the
//! same machine: `refs/main` with the commit, `blobs/` by SHA-256 or git object, relative links.

use std::path::{Path, PathBuf};

use cxr_hub::{Digest, Hasher, HubError, Receipt};

use crate::fake_hub::{FakeHub, blob, is_large, of_the_hub, oid};
use crate::place::{Place, sha256};

const FOLDER: &str = "datasets--somebody--thing";

/// Plants a file, as a link into `blobs/` or, as on a file system without links, as itself.
fn plant(cache: &Path, commit: &str, path: &str, bytes: &[u8], linked: bool) -> PathBuf {
    let folder = cache.join(FOLDER);
    let snapshot = folder.join("snapshots").join(commit).join(path);
    for folder in [
        &folder.join("blobs"),
        &folder.join("refs"),
        snapshot.parent().unwrap(),
    ] {
        std::fs::create_dir_all(folder).unwrap();
    }
    std::fs::write(folder.join("refs/main"), commit).unwrap();
    let name = match is_large(path) {
        true => oid(bytes),
        false => blob(bytes),
    };
    let blob = folder.join("blobs").join(&name);
    if linked {
        let up = "../".repeat(path.split('/').count() + 1);
        std::fs::write(&blob, bytes).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(format!("{up}blobs/{name}"), snapshot).unwrap();
    } else {
        std::fs::write(snapshot, bytes).unwrap();
    }
    blob
}

fn place_with_cache(hub: &FakeHub) -> (Place, tempfile::TempDir) {
    let mut place = hub.place();
    let cache = tempfile::tempdir().unwrap();
    place.options.cache = Some(cache.path().to_owned());
    (place, cache)
}

fn main_of(hub: &FakeHub) -> String {
    hub.state.lock().unwrap().main.clone()
}

#[cfg(unix)]
#[test]
fn what_is_cached_is_not_fetched() {
    for (path, bytes) in [
        ("data/a.zip", b"large".as_slice()),
        ("list.txt", b"small\n"),
    ] {
        let hub = FakeHub::with(&[(path, bytes)]);
        let commit = main_of(&hub);

        // With a digest in the manifest nobody is asked, whatever the branch is by now.
        let (mut place, cache) = place_with_cache(&hub);
        plant(cache.path(), &commit, path, bytes, true);
        let mut known = of_the_hub("main", path);
        known.digest = Some(sha256(bytes));
        assert_eq!(place.fetch(&known).unwrap().transferred, 0);
        assert_eq!(place.seen.0, ["cached"]);
        place.check_complete(bytes);
        assert!(hub.asked().is_empty());
        assert_eq!(place.fetch(&known).unwrap().transferred, 0);
        assert_eq!(place.seen.0, ["present"]);

        // Without one the hub is asked for its listing, and for nothing else.
        let (mut place, cache) = place_with_cache(&hub);
        plant(cache.path(), &commit, path, bytes, true);
        let fetched = place.fetch(&of_the_hub("main", path)).unwrap();
        assert_eq!(
            (fetched.transferred, place.read("file.bin").as_slice()),
            (0, bytes)
        );
        let requests = hub.asked();
        assert!(
            requests.len() == 1 && requests[0].contains("/revision/main"),
            "{requests:?}"
        );

        // Without a network the cache itself says commit and digest.
        let (mut place, cache) = place_with_cache(&hub);
        plant(cache.path(), &commit, path, bytes, true);
        place.options.offline = true;
        for wanted in [of_the_hub("main", path), of_the_hub(&commit, path)] {
            place.fetch(&wanted).unwrap();
            assert_eq!(place.read("file.bin"), bytes);
            let receipt = Receipt::read(place.path(), &wanted.name).unwrap();
            assert!(receipt.digest_from.contains(&commit), "{receipt:?}");
        }
        assert_eq!(hub.asked().len(), 1);
    }
}

#[test]
fn a_file_in_a_snapshot_without_links_is_found_by_its_commit() {
    let hub = FakeHub::with(&[("a.zip", b"large")]);
    let (mut place, cache) = place_with_cache(&hub);
    plant(cache.path(), &main_of(&hub), "a.zip", b"large", false);
    // The manifest's digest may be of a kind that names no blob.
    let mut md5 = Hasher::for_digest(&Digest::Md5([0; 16]), 0);
    md5.update(b"large");
    let mut known = of_the_hub("main", "a.zip");
    known.digest = Some(md5.finish());
    assert_eq!(place.fetch(&known).unwrap().transferred, 0);
    assert_eq!(place.seen.0, ["cached"]);
    assert!(hub.asked().is_empty());
    // Without links the cache does not say a digest.
    let (mut place, cache) = place_with_cache(&hub);
    plant(cache.path(), &main_of(&hub), "a.zip", b"large", false);
    place.options.offline = true;
    let error = place.fetch(&of_the_hub("main", "a.zip")).unwrap_err();
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
}

#[cfg(unix)]
#[test]
fn a_damaged_or_old_cache_is_left_alone() {
    let hub = FakeHub::with(&[("a.zip", b"large")]);
    let (mut place, cache) = place_with_cache(&hub);
    let planted = plant(cache.path(), &main_of(&hub), "a.zip", b"large", true);
    for damaged in [b"lArge".as_slice(), b"larg", b""] {
        std::fs::write(&planted, damaged).unwrap();
        let fetched = place.fetch(&of_the_hub("main", "a.zip")).unwrap();
        assert_eq!(fetched.transferred, 5);
        assert!(
            place.seen.0.contains(&"cache ignored".to_owned()),
            "{:?}",
            place.seen.0
        );
        assert_eq!(place.read("file.bin"), b"large");
        assert_eq!(
            std::fs::read(&planted).unwrap(),
            damaged,
            "the cache is not ours"
        );
        for name in ["file.bin", "file.bin.fetched.toml", "hub.lock.toml"] {
            std::fs::remove_file(place.path().join(name)).unwrap();
        }
    }
    // A branch that moved on since Python fetched it.
    let (mut place, cache) = place_with_cache(&hub);
    plant(cache.path(), &main_of(&hub), "a.zip", b"large", true);
    hub.state.lock().unwrap().commit(&[("a.zip", b"newer")]);
    place.fetch(&of_the_hub("main", "a.zip")).unwrap();
    assert_eq!(place.read("file.bin"), b"newer");
}

/// The commit in `refs/main` becomes a path; it must not lead out of the cache.
#[test]
fn a_reference_is_a_commit_or_nothing() {
    let hub = FakeHub::with(&[("a.zip", b"large")]);
    for text in ["../../..", "", "main", "\0", &"g".repeat(40)] {
        let (mut place, cache) = place_with_cache(&hub);
        plant(cache.path(), &main_of(&hub), "a.zip", b"large", false);
        std::fs::write(cache.path().join(FOLDER).join("refs/main"), text).unwrap();
        std::fs::write(cache.path().join("a.zip"), b"large").unwrap();
        place.options.offline = true;
        let mut known = of_the_hub("main", "a.zip");
        known.digest = Some(sha256(b"large"));
        let error = place.fetch(&known).unwrap_err();
        assert!(matches!(error, HubError::Offline { .. }), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_noticed_before_a_file_of_the_hub_or_its_cache() {
    let hub = FakeHub::with(&[("a.zip", b"large")]);
    let (mut place, cache) = place_with_cache(&hub);
    place.options.reserve = u64::MAX;
    for cached in [false, true] {
        if cached {
            plant(cache.path(), &main_of(&hub), "a.zip", b"large", true);
        }
        let error = place.fetch(&of_the_hub("main", "a.zip")).unwrap_err();
        assert!(matches!(error, HubError::DiskSpace { .. }), "{error}");
        place.check_absent();
    }
    assert!(hub.asked().iter().all(|line| line.contains("/revision/")));
}
