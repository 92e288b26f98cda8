//! Models sent to the hub, and fetched back.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};

use cxr_hub::{
    Content, HubError, ModelReference, Publication, Published, Repository, RepositoryKind,
    fetch_model, publish,
};
use serde_json::json;

use crate::fake_hub::{FakeHub, ID, TOKEN};
use crate::place::Place;
use crate::server::{Reply, content};

fn repository() -> Repository {
    Repository::new(RepositoryKind::Model, ID, "main").unwrap()
}

/// A run's folder with a model, an ONNX file, and its experiment's report above it.
fn run_folder(place: &Place) -> std::path::PathBuf {
    let run = place.path().join("experiment/variant");
    std::fs::create_dir_all(&run).unwrap();
    for (name, bytes) in [
        ("model.safetensors", content(5432)),
        ("model.onnx", content(77)),
        ("train.jsonl", b"not for others".to_vec()),
        ("../report.html", b"<html>figures</html>".to_vec()),
    ] {
        std::fs::write(run.join(name), bytes).unwrap();
    }
    run
}

fn send(place: &mut Place, run: &Path) -> Result<Published, HubError> {
    place.seen.0.clear();
    let publication = Publication::of_model(repository(), run, "---\nmodel-index: []\n---\n")?;
    let stop = AtomicBool::new(false);
    publish(&publication, &place.options, &mut place.seen, &stop)
}

#[test]
fn a_run_is_published_once_and_comes_back_as_it_was() {
    let hub = FakeHub::start(|_, _, reply| reply);
    let mut place = hub.place();
    FakeHub::with_token(&mut place);
    let run = run_folder(&place);
    let published = send(&mut place, &run).unwrap();
    assert_eq!(published.url, hub.server.url(ID));
    let paths = [
        "README.md",
        "model.safetensors",
        "report.html",
        "model.onnx",
    ];
    assert_eq!(published.changed, paths);
    {
        let state = hub.state.lock().unwrap();
        let expected = json!({ "type": "model", "organization": "somebody", "name": "thing", "private": true });
        assert_eq!(state.created.as_ref().unwrap(), &expected);
        assert_eq!(published.commit, state.main);
        let files = &state.commits[&state.main];
        assert_eq!(files["README.md"], b"---\nmodel-index: []\n---\n");
        assert_eq!(files["model.safetensors"], content(5432));
        assert_eq!(files["model.onnx"], content(77));
        assert_eq!(files["report.html"], b"<html>figures</html>");
        assert_eq!(files.len(), 5, "{:?}", files.keys());
        // On top of what was there, and of nothing that came later.
        let header = state.commit_header.as_ref().unwrap();
        let parent = header["parentCommit"].as_str().unwrap();
        assert!(state.commits.contains_key(parent) && parent != state.main);
    }
    for request in hub.server.requests() {
        let bearer = format!("Bearer {TOKEN}");
        assert_eq!(request.header("authorization"), Some(bearer.as_str()));
    }

    // Once more: the hub has it all, and is sent nothing.
    let n_asked = hub.asked().len();
    let again = send(&mut place, &run).unwrap();
    assert_eq!((again.commit, again.changed), (published.commit, vec![]));
    assert!(
        hub.asked()[n_asked..]
            .iter()
            .all(|line| line.starts_with("GET"))
    );

    // One file is another one now.
    std::fs::write(run.join("model.onnx"), content(78)).unwrap();
    let n_put = hub.storage.requests().len();
    assert_eq!(send(&mut place, &run).unwrap().changed, ["model.onnx"]);
    assert_eq!(hub.storage.requests().len(), n_put + 1);

    // And back.
    let home = hub.place();
    let reference: ModelReference = format!("hub:{ID}").parse().unwrap();
    let stop = AtomicBool::new(false);
    let fetched = fetch_model(&reference, home.path(), &home.options, &mut (), &stop).unwrap();
    assert_eq!(std::fs::read(fetched.path).unwrap(), content(5432));
}

#[test]
fn a_large_file_is_sent_in_parts_where_the_hub_wants_them() {
    let hub = FakeHub::with(&[("README.md", b"old")]);
    hub.state.lock().unwrap().in_parts = true;
    let mut place = hub.place();
    FakeHub::with_token(&mut place);
    // More than nine parts: their numbers are no text to be sorted.
    std::fs::write(place.path().join("m.safetensors"), content(12_345)).unwrap();
    let model = place.path().join("m.safetensors");
    send(&mut place, &model).unwrap();
    let state = hub.state.lock().unwrap();
    assert_eq!(
        state.commits[&state.main]["model.safetensors"],
        content(12_345)
    );
    assert!(state.created.is_none());
    let puts = hub.storage.requests();
    let puts = puts.iter().filter(|request| request.method == "PUT");
    assert_eq!(puts.map(|put| put.body.len()).max(), Some(1000));
}

#[test]
fn overload_is_waited_out_and_a_refusal_is_not() {
    let failed = Mutex::new(std::collections::HashSet::new());
    let hub = FakeHub::start(move |request, _, reply| {
        // The first request of each kind finds the hub overloaded.
        let kind = (request.method.clone(), request.path.clone());
        match failed.lock().unwrap().insert(kind) && request.method != "POST" {
            true => Reply::status(503).with("retry-after", "0"),
            false => reply,
        }
    });
    hub.state.lock().unwrap().commit(&[("README.md", b"old")]);
    let mut place = hub.place();
    FakeHub::with_token(&mut place);
    let run = run_folder(&place);
    send(&mut place, &run).unwrap();
    assert!(place.seen.0.contains(&"retrying after 0 s".to_owned()));
    assert!(place.seen.0.contains(&"sent model.safetensors".to_owned()));

    // Whose token it is may not write.
    let hub = FakeHub::start(|request, _, reply| match request.method.as_str() {
        "POST" => Reply::status(403),
        _ => reply,
    });
    hub.state.lock().unwrap().commit(&[("README.md", b"old")]);
    place.options.endpoint = hub.endpoint();
    let error = send(&mut place, &run).unwrap_err();
    assert!(
        matches!(error, HubError::Status { status: 403, .. }),
        "{error}"
    );
    assert_eq!(hub.state.lock().unwrap().commits.len(), 1);
}

#[test]
fn somebody_elses_commit_is_not_overwritten() {
    // While its large files are on their way, somebody else commits.
    let shared: Arc<OnceLock<FakeHub>> = Arc::default();
    let other = shared.clone();
    let hub = FakeHub::start(move |request, _, reply| {
        if request.method == "PUT" {
            let hub = other.get().unwrap();
            hub.state
                .lock()
                .unwrap()
                .commit(&[("README.md", b"somebody else's")]);
        }
        reply
    });
    hub.state.lock().unwrap().commit(&[("README.md", b"old")]);
    assert!(shared.set(hub.clone()).is_ok());
    let mut place = hub.place();
    FakeHub::with_token(&mut place);
    let run = run_folder(&place);
    let error = send(&mut place, &run).unwrap_err();
    assert!(
        matches!(error, HubError::Status { status: 412, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("try again"), "{error}");
    let state = hub.state.lock().unwrap();
    assert_eq!(state.commits[&state.main]["README.md"], b"somebody else's");
}

/// Asked once more, the hub says that its branch has moved: by our own commit.
#[test]
fn a_commit_whose_answer_was_lost_is_a_success() {
    let lost = Mutex::new(false);
    let hub = FakeHub::start(move |request, _, reply| {
        let is_first = request.path.contains("/commit/") && !*lost.lock().unwrap();
        match is_first {
            true => {
                *lost.lock().unwrap() = true;
                reply.cut(0)
            }
            false => reply,
        }
    });
    hub.state.lock().unwrap().commit(&[("README.md", b"old")]);
    let mut place = hub.place();
    FakeHub::with_token(&mut place);
    let run = run_folder(&place);
    let published = send(&mut place, &run).unwrap();
    let state = hub.state.lock().unwrap();
    assert_eq!(published.commit, state.main);
    assert_eq!(state.commits.len(), 2);
    assert_eq!(state.commits[&state.main]["model.onnx"], content(77));
}

#[test]
fn a_hub_that_stores_other_bytes_is_noticed() {
    let hub = FakeHub::with(&[("README.md", b"old")]);
    hub.state.lock().unwrap().storage_lies = true;
    let mut place = hub.place();
    FakeHub::with_token(&mut place);
    let run = run_folder(&place);
    let error = send(&mut place, &run).unwrap_err();
    assert!(matches!(error, HubError::WrongDigest { .. }), "{error}");
}

#[test]
fn nothing_is_asked_without_a_token_or_a_model_or_by_looking() {
    let hub = FakeHub::with(&[("README.md", b"old")]);
    let mut place = hub.place();
    let run = run_folder(&place);
    let error = send(&mut place, &run).unwrap_err();
    assert!(matches!(error, HubError::NoToken { .. }), "{error}");
    FakeHub::with_token(&mut place);
    place.options.offline = true;
    let error = send(&mut place, &run).unwrap_err();
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
    std::fs::remove_file(run.join("model.safetensors")).unwrap();
    let error = send(&mut place, &run).unwrap_err();
    assert!(matches!(error, HubError::Unpublishable { .. }), "{error}");

    let mut publication = Publication::new(repository(), "a file");
    publication
        .add("a.txt", Content::Bytes(b"abc".to_vec()))
        .unwrap();
    assert!(
        publication
            .add("a.txt", Content::Bytes(Vec::new()))
            .is_err()
    );
    assert!(
        publication
            .add("../a.txt", Content::Bytes(Vec::new()))
            .is_err()
    );
    // The digest is FIPS 180-4's example.
    assert_eq!(
        publication.to_string(),
        "models/somebody/thing@main\n  a.txt  3 bytes  sha256:\
         ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n"
    );
    assert!(hub.asked().is_empty());
}
