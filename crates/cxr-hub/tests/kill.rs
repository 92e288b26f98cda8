//! A process killed in the middle of a transfer, from an address or the hub, and another one that goes
//! on.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

#[path = "downloads/fake_hub.rs"]
#[expect(dead_code, reason = "this test needs a part of the hub only")]
mod fake_hub;
#[path = "downloads/place.rs"]
#[expect(dead_code, reason = "the hub needs a part of it only")]
mod place;
#[path = "downloads/server.rs"]
#[expect(dead_code, reason = "this test needs a part of the server only")]
mod server;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cxr_hub::{Options, RemoteFile, fetch};
use fake_hub::{FakeHub, of_the_hub};
use server::{Reply, Server, content};

const LENGTH: usize = 700_000;
const BREAK: usize = 300_000;
const URL: &str = "CXR_HUB_TEST_URL";
const FOLDER: &str = "CXR_HUB_TEST_FOLDER";

/// Where the file is had from: an address that ends in this, or a hub.
const FILE: &str = "/file";

fn main() {
    match (std::env::var(URL), std::env::var(FOLDER)) {
        (Ok(url), Ok(folder)) => run_child(&url, Path::new(&folder)),
        _ => {
            let server = Server::start(|request, before| {
                let reply = Reply::file(request, &content(LENGTH), "\"a\"");
                interrupted(reply, before)
            });
            a_killed_process_loses_nothing(&server.url("file"), &server);
            let hub =
                FakeHub::start(
                    |request, before, reply| match request.path.starts_with("/api") {
                        false if reply.status == 200 => interrupted(reply, before),
                        _ => reply,
                    },
                );
            hub.state
                .lock()
                .unwrap()
                .commit(&[("big.zip", &content(LENGTH))]);
            a_killed_process_loses_nothing(hub.endpoint().as_str(), &hub.storage);
            println!("a_killed_process_loses_nothing: 2 passed, 0 failed");
        }
    }
}

/// The first answer stops in the middle and says nothing more for a minute.
fn interrupted(mut reply: Reply, before: usize) -> Reply {
    if before == 0 {
        reply.cut = BREAK;
        reply.silence = Duration::from_secs(60);
    }
    reply
}

fn wanted(url: &str) -> (RemoteFile, Options) {
    let mut options = Options::default();
    if url.ends_with(FILE) {
        return (place::file(&content(LENGTH), &[url.to_owned()]), options);
    }
    options.endpoint = url.parse().unwrap();
    (of_the_hub("main", "big.zip"), options)
}

fn run_child(url: &str, folder: &Path) {
    let stop = AtomicBool::new(false);
    let (wanted, options) = wanted(url);
    fetch(&wanted, folder, &options, &mut (), &stop).unwrap();
}

/// `server` is the one that sends the bytes.
fn a_killed_process_loses_nothing(url: &str, server: &Server) {
    let folder = tempfile::tempdir().unwrap();
    let part = folder.path().join("file.bin.part");
    let place = folder.path().join("file.bin");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env(URL, url)
        .env(FOLDER, folder.path())
        .spawn()
        .unwrap();
    let arrived = || std::fs::metadata(&part).is_ok_and(|part| part.len() == BREAK as u64);
    while !arrived() {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!place.exists());

    let stop = AtomicBool::new(false);
    let (wanted, options) = wanted(url);
    let fetched = fetch(&wanted, folder.path(), &options, &mut (), &stop).unwrap();
    assert_eq!(fetched.transferred, (LENGTH - BREAK) as u64);
    assert_eq!(server.sent(), LENGTH, "the rest, and nothing twice");
    assert_eq!(server.requests()[1].range(), Some(BREAK));
    assert!(std::fs::read(place).unwrap() == content(LENGTH));
}
