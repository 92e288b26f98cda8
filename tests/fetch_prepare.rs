//! `cxr fetch nih --prepare` against a server on this machine: killed, resumed, offline,
//! and with archives that lie.

#![expect(clippy::unwrap_used, reason = "a test stops at what should not happen")]

#[path = "../crates/cxr-hub/tests/downloads/server.rs"]
#[expect(dead_code, reason = "these tests need a part of the server only")]
mod server;

#[path = "../crates/cxr-dataset/tests/common/archives.rs"]
#[expect(dead_code, reason = "these tests need a part of it only")]
mod archives;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use archives::{Item, gzip, tar, zip};
use cxr_dataset::{ImageName, PrepareOptions, Store, StoreSettings, prepare};
use server::{Reply, Server};
use sha2::{Digest as _, Sha256};

const N_IMAGES: usize = 30;
const SIDE: u32 = 16;

fn name(number: usize) -> String {
    format!("{:08}_{:03}.png", number / 2 + 1, number % 2)
}

/// A PNG of noise, which no archive compresses.
fn png(number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 60, 60);
    encoder.set_color(png::ColorType::Grayscale);
    let mut state = number as u32 + 1;
    let pixels: Vec<u8> = (0..3600)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&pixels).unwrap();
    drop(writer);
    bytes
}

fn images(numbers: std::ops::Range<usize>) -> Vec<Item> {
    let image = |number: usize| Item::file(&format!("images/{}", name(number)), png(number));
    numbers.map(image).collect()
}

/// What the server has: a label table, lists, and three archives of ten images each.
fn files() -> BTreeMap<&'static str, Vec<u8>> {
    let mut table = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n".to_owned();
    for number in 0..N_IMAGES {
        let patient = number / 2 + 1;
        let _ = writeln!(
            table,
            "{},Mass,0,{patient},58,M,PA,60,60,0.1,0.1",
            name(number)
        );
    }
    BTreeMap::from([
        ("Data_Entry_2017_v2020.csv", table.into_bytes()),
        ("images_001.zip", zip(&images(0..10))),
        ("images_002.tar.gz", gzip(&tar(&images(10..20)))),
        ("images_003.zip", zip(&images(20..30))),
    ])
}

/// The files' own digests, or those of `other` files.
fn manifest(server: &Server, files: &BTreeMap<&str, Vec<u8>>) -> String {
    let mut text = String::new();
    let mut set = |set: &str, folder: &str, names: &[&&str]| {
        let _ = writeln!(
            text,
            "[[set]]\nname = \"{set}\"\nabout = \"\"\nlicence = \"\"\nhome = \"\"\nfolder = \"{folder}\""
        );
        for &&name in names {
            let digest = Sha256::digest(&files[name]);
            let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            let (bytes, url) = (files[name].len(), server.url(name));
            let _ = writeln!(
                text,
                "[[set.file]]\nname = \"{name}\"\nbytes = {bytes}\ndigest = \"sha256:{digest}\"\nsources = [{{ url = \"{url}\" }}]"
            );
        }
    };
    let (tables, archives): (Vec<_>, Vec<_>) = files.keys().partition(|name| name.ends_with("csv"));
    set("nih-metadata", "nih", &tables);
    set("nih", "nih/archives", &archives);
    text
}

struct Place(tempfile::TempDir);

impl Place {
    fn new(server: &Server, files: &BTreeMap<&str, Vec<u8>>) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        std::fs::write(place.path("manifest.toml"), manifest(server, files)).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn fetch(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cxr"));
        command.args(["fetch", "nih", "--prepare", "--side", "16", "--manifest"]);
        command.arg(self.path("manifest.toml")).args(arguments);
        command
    }

    fn store(&self) -> PathBuf {
        self.path("nih/images-16.store")
    }

    /// The names in the folder of the archives, sorted.
    fn archives(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("nih/archives")).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// The store of the same images as files in a folder.
fn expected(folder: &Path) -> Vec<u8> {
    let sources: Vec<_> = (0..N_IMAGES)
        .map(|number| {
            let path = folder.join(name(number));
            std::fs::write(&path, png(number)).unwrap();
            (ImageName::new(&name(number)).unwrap(), path)
        })
        .collect();
    let target = folder.join("expected.store");
    let settings = StoreSettings::new(SIDE).unwrap();
    let prepared = prepare(&sources, &target, settings, PrepareOptions::default()).unwrap();
    drop(prepared.commit().unwrap());
    std::fs::read(target).unwrap()
}

fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn requests(server: &Server, name: &str) -> usize {
    let wanted = format!("/{name}");
    server
        .requests()
        .iter()
        .filter(|request| request.path == wanted)
        .count()
}

#[test]
fn killed_and_resumed_it_ends_in_the_store_of_the_files_with_every_archive_dropped() {
    // In the middle of the second archive, the first time, nothing comes any more.
    let served = files();
    let half = served["images_002.tar.gz"].len() / 2;
    let server = Server::start(move |request, before| {
        let Some(body) = served.get(&request.path[1..]) else {
            return Reply::status(404);
        };
        let mut reply = Reply::file(request, body, "\"a\"");
        if request.path.ends_with("002.tar.gz") && request.range().is_none() && before < 3 {
            reply.cut = half;
            reply.silence = Duration::from_secs(60);
        }
        reply
    });
    let files = files();
    let place = Place::new(&server, &files);
    let mut child = place
        .fetch(&["--drop-archives"])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let part = place.path("nih/archives/images_002.tar.gz.part");
    while !std::fs::metadata(&part).is_ok_and(|part| part.len() == half as u64) {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        !place.store().exists(),
        "an unfinished store has its final name"
    );
    assert!(
        !place.path("nih/archives/images_001.zip").exists(),
        "it was not dropped"
    );

    let output = place.fetch(&["--drop-archives"]).output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
    assert!(
        message(&output).contains("30 of 30 images are prepared"),
        "{}",
        message(&output)
    );
    let total: usize = files.values().map(Vec::len).sum();
    assert_eq!(server.sent(), total, "the rest, and nothing twice");
    assert_eq!(
        requests(&server, "images_001.zip"),
        1,
        "it was fetched again"
    );
    let folder = tempfile::tempdir().unwrap();
    assert!(std::fs::read(place.store()).unwrap() == expected(folder.path()));
    assert_eq!(place.archives(), Vec::<String>::new());
    let ledger = std::fs::read_to_string(place.path("nih/images-16.store.archives.toml")).unwrap();
    assert_eq!(ledger.matches("images = 10").count(), 3, "{ledger}");
    assert_eq!(ledger.matches("sha256:").count(), 3, "{ledger}");

    // Once more: nothing is asked of anybody.
    let n_requests = server.requests().len();
    let output = place.fetch(&["--drop-archives"]).output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains("images-16.store"), "{stdout}");
    assert_eq!(server.requests().len(), n_requests);
}

/// A server of `served`, with a manifest of what `promised` are.
fn fetch(
    served: BTreeMap<&'static str, Vec<u8>>,
    promised: &BTreeMap<&'static str, Vec<u8>>,
    arguments: &[&str],
) -> (Place, Output) {
    let server = Server::start(move |request, _| match served.get(&request.path[1..]) {
        Some(body) => Reply::file(request, body, "\"a\""),
        None => Reply::status(404),
    });
    let place = Place::new(&server, promised);
    let output = place.fetch(arguments).output().unwrap();
    (place, output)
}

#[test]
fn a_hostile_archive_is_told_kept_and_keeps_the_store_from_being_finished() {
    let mut hostile = images(10..19);
    hostile.push(Item::file("../../escaped.png", png(0)));
    hostile.push(Item::Link(
        format!("images/{}", name(19)),
        "/etc/passwd".to_owned(),
    ));
    let mut served = files();
    served.insert("images_002.tar.gz", gzip(&tar(&hostile)));
    let (place, output) = fetch(served.clone(), &served, &["--drop-archives"]);
    let told = message(&output);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(
        told.contains("its path leaves the archive") && told.contains("it is a link"),
        "{told}"
    );
    assert!(
        told.contains("1 of 30 images of the label table are missing"),
        "{told}"
    );
    assert!(!place.store().exists());
    assert!(!place.path("escaped.png").exists() && !place.path("nih/escaped.png").exists());
    // The sound archives gave all they had and went; this one stays to be looked at.
    assert_eq!(
        place.archives(),
        ["images_002.tar.gz", "images_002.tar.gz.fetched.toml"]
    );

    // Who can do without the image says so; what is done already is not fetched again.
    let output = place.fetch(&["--allow-missing"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", message(&output));
    let store = Store::open(place.store()).unwrap();
    assert_eq!(store.len(), 29);
}

#[test]
fn a_bomb_a_flipped_byte_and_a_missing_archive_fail_and_the_others_are_prepared() {
    let promised = files();
    let mut served = files();
    let flipped = served.get_mut("images_001.zip").unwrap();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    served.remove("images_003.zip");
    let (place, output) = fetch(served, &promised, &[]);
    let told = message(&output);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(
        told.contains("images_001.zip") && told.contains("images_003.zip"),
        "{told}"
    );
    assert!(
        told.contains("20 of 30 images of the label table are missing"),
        "{told}"
    );
    assert!(!place.store().exists());
    // Nothing unverified has its final name.
    assert_eq!(
        place
            .archives()
            .iter()
            .filter(|name| !name.contains(".part"))
            .collect::<Vec<_>>(),
        ["images_002.tar.gz", "images_002.tar.gz.fetched.toml"]
    );

    let mut served = files();
    let bomb = Item::file(&format!("images/{}", name(9)), vec![0; 100 << 20]);
    served.insert("images_001.zip", zip(&[images(0..9), vec![bomb]].concat()));
    let (place, output) = fetch(served.clone(), &served, &["--drop-archives"]);
    let told = message(&output);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(
        told.contains("images_001.zip") && told.contains("decompression bomb"),
        "{told}"
    );
    assert!(!place.store().exists());
    assert_eq!(
        place.archives(),
        ["images_001.zip", "images_001.zip.fetched.toml"]
    );
}

#[test]
fn only_archives_can_be_prepared() {
    let server = Server::start(|_, _| Reply::status(404));
    let place = Place::new(&server, &files());
    let mut command = Command::new(env!("CARGO_BIN_EXE_cxr"));
    command.args(["fetch", "nih-metadata", "--prepare", "--manifest"]);
    let output = command.arg(place.path("manifest.toml")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        message(&output).contains("sets of archives"),
        "{}",
        message(&output)
    );
}
