//! `cxr publish` and `cxr predict hub:OWNER/NAME`, run as a user runs them, against a hub on this machine.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

mod common;
#[path = "../crates/cxr-hub/tests/downloads/fake_hub.rs"]
#[expect(dead_code, reason = "these tests need a part of it only")]
mod fake_hub;
#[path = "../crates/cxr-hub/tests/downloads/place.rs"]
#[expect(dead_code, reason = "these tests need a part of it only")]
mod place;
#[path = "../crates/cxr-hub/tests/downloads/server.rs"]
#[expect(dead_code, reason = "these tests need a part of it only")]
mod server;

use std::path::Path;
use std::process::{Command, Output};

use common::{stderr, trained};
use fake_hub::{FakeHub, ID, TOKEN};

const RUN: &str = "models/runs/tiny/bce";

/// Runs `cxr` with this hub and a token that may write, and nothing of the machine's own.
fn cxr(hub: &FakeHub, folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cxr"));
    command.current_dir(folder).args(arguments);
    command.env("HF_ENDPOINT", hub.server.url(""));
    command.env("HF_TOKEN", TOKEN);
    command.env("HF_HOME", folder.join("hugging-face"));
    for variable in ["HF_HUB_OFFLINE", "HF_HUB_CACHE", "CXR_HOME"] {
        command.env_remove(variable);
    }
    command.output().unwrap()
}

fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What is published and fetched by somebody else predicts what the run's own model predicts.
#[test]
fn a_model_goes_to_the_hub_and_comes_back() {
    let folder = trained();
    let folder = folder.path();
    let hub = FakeHub::start(|_, _, reply| reply);
    let repository = ["--repo", ID];

    // Without `--yes` nothing leaves the machine.
    let listed = cxr(&hub, folder, &[&["publish", RUN][..], &repository].concat());
    let text = succeeds(&listed);
    assert!(
        text.contains("model.safetensors") && text.contains("README.md"),
        "{text}"
    );
    assert!(
        stderr(&listed).contains("nothing was sent"),
        "{}",
        stderr(&listed)
    );
    assert_eq!(hub.asked(), Vec::<String>::new());

    let send = [&["publish", RUN, "--yes"][..], &repository].concat();
    let sent = cxr(&hub, folder, &send);
    assert_eq!(succeeds(&sent).trim(), hub.server.url(ID));
    {
        let state = hub.state.lock().unwrap();
        let files = &state.commits[&state.main];
        let own = std::fs::read(folder.join(RUN).join("model.safetensors")).unwrap();
        assert!(files["model.safetensors"] == own, "another model");
        let page = String::from_utf8(files["README.md"].clone()).unwrap();
        assert!(
            page.contains("model-index") && page.contains("license: \"cc-by-4.0\""),
            "{page}"
        );
        assert!(!files.keys().any(|name| name.contains("predictions")));
    }
    // Again: there is nothing to send.
    let again = cxr(&hub, folder, &send);
    succeeds(&again);
    assert!(
        stderr(&again).contains("has all of it already"),
        "{}",
        stderr(&again)
    );

    let elsewhere = tempfile::tempdir().unwrap();
    let images = folder.join("data/images");
    let predict = |folder: &Path, model: &str| {
        let images = images.to_str().unwrap();
        succeeds(&cxr(&hub, folder, &["predict", model, images]))
    };
    let own = predict(folder, RUN);
    assert!(own.lines().count() > 10, "{own}");
    let named = format!("hub:{ID}");
    assert_eq!(predict(elsewhere.path(), &named), own);

    // What was fetched is not fetched again, and serves without the hub.
    let asked = hub.asked().len();
    assert_eq!(predict(elsewhere.path(), &named), own);
    let files = hub.asked()[asked..]
        .iter()
        .filter(|line| line.contains("/resolve/"))
        .count();
    assert_eq!(files, 0);
}

#[test]
fn what_is_not_on_the_hub_is_an_error_that_names_it() {
    let hub = FakeHub::start(|_, _, reply| reply);
    let folder = tempfile::tempdir().unwrap();
    // The model is asked for before an image is read.
    std::fs::write(folder.path().join("image.png"), b"").unwrap();
    let output = cxr(&hub, folder.path(), &["predict", "hub:somebody/other", "."]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("hub:somebody/other"),
        "{}",
        stderr(&output)
    );
    let output = cxr(&hub, folder.path(), &["predict", "hub:nobody", "."]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
}
