//! Archives: the store that they give, and the crafted ones that are refused.

#![expect(clippy::unwrap_used, reason = "a test stops at what it cannot read")]

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cxr_dataset::{
    DatasetError, ImageName, Inserted, MAX_ARCHIVED_FILE, PrepareOptions, Progress, Store,
    StoreBuilder, StoreSettings, archived_paths, is_archive, prepare,
};

mod common;

use common::archives::{Item, gzip, tar, zip};

fn settings() -> StoreSettings {
    StoreSettings::new(16).unwrap()
}

fn name(number: usize) -> ImageName {
    ImageName::new(&format!("image {number}.png")).unwrap()
}

/// A PNG of noise.
fn png(number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 40, 30);
    encoder.set_color(png::ColorType::Grayscale);
    let pixels: Vec<u8> = (0..1200)
        .map(|at| (at * at * (number + 3) / 7 % 251) as u8)
        .collect();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&pixels).unwrap();
    drop(writer);
    bytes
}

/// Images as they stand in NIH's archives: in a folder, after an entry for the folder.
fn items(n_images: usize) -> Vec<Item> {
    let image = |number| Item::file(&format!("images/{}", name(number)), png(number));
    let mut items = vec![Item::Folder("images/".to_owned())];
    items.extend((0..n_images).map(image));
    items.push(Item::file("README.txt", b"not an image".to_vec()));
    items.push(Item::file(
        "__MACOSX/images/._image 1.png",
        b"attributes".to_vec(),
    ));
    items
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    fn builder(&self, store: &str, n_images: usize) -> StoreBuilder {
        let names: Vec<ImageName> = (0..n_images).map(name).collect();
        StoreBuilder::create_or_resume(self.path(store), &names, settings()).unwrap()
    }

    /// The store of the same images as files.
    fn expected(&self, n_images: usize) -> Vec<u8> {
        let sources: Vec<_> = (0..n_images)
            .map(|number| {
                (
                    name(number),
                    self.write(name(number).as_str(), &png(number)),
                )
            })
            .collect();
        let target = self.path("expected.store");
        let prepared = prepare(&sources, &target, settings(), PrepareOptions::default()).unwrap();
        drop(prepared.commit().unwrap());
        std::fs::read(target).unwrap()
    }
}

fn insert(builder: &StoreBuilder, archive: &Path) -> Result<Inserted, DatasetError> {
    builder.insert_archive(archive, PrepareOptions::default())
}

#[test]
fn an_archive_gives_the_store_of_its_files() {
    let place = Place::new();
    let expected = place.expected(20);
    let plain = tar(&items(20));
    for (file, bytes) in [
        ("images.tar", plain.clone()),
        ("images.tar.gz", gzip(&plain)),
        ("images.zip", zip(&items(20))),
    ] {
        let archive = place.write(file, &bytes);
        assert!(is_archive(&archive));
        let path = |number| ImageName::new(&format!("images/{}", name(number))).unwrap();
        let paths: Vec<ImageName> = (0..20).map(path).collect();
        assert_eq!(archived_paths(&archive).unwrap(), paths, "{file}");
        let store = format!("{file}.store");
        let builder = place.builder(&store, 20);
        let inserted = insert(&builder, &archive).unwrap();
        assert_eq!(
            (
                inserted.n_prepared,
                inserted.n_reused,
                inserted.n_other,
                inserted.n_refused
            ),
            (20, 0, 2, 0),
            "{file}"
        );
        assert!(inserted.failures.is_empty(), "{:?}", inserted.failures);
        drop(builder.commit().unwrap());
        assert!(
            std::fs::read(place.path(&store)).unwrap() == expected,
            "{file}"
        );
    }
    assert!(!is_archive(place.path("image 3.png")) && !is_archive(place.path("absent")));
    let error = archived_paths(place.path("image 3.png")).unwrap_err();
    assert!(error.to_string().contains("expected a TAR"), "{error}");
}

#[test]
fn several_archives_fill_one_store_and_a_stopped_one_resumes() {
    let place = Place::new();
    let expected = place.expected(40);
    let all = items(40);
    let (first, second) = all.split_at(20);
    let first = place.write("1.tar.gz", &gzip(&tar(first)));
    let second = place.write("2.zip", &zip(second));

    let builder = place.builder("images.store", 40);
    let stop = AtomicBool::new(false);
    let observer = |progress: Progress| {
        assert_eq!(progress.total, 40);
        if progress.done >= 5 {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let options = PrepareOptions {
        observer: Some(&observer),
        stop: Some(&stop),
    };
    let error = builder.insert_archive(&first, options).unwrap_err();
    assert!(matches!(error, DatasetError::Interrupted { .. }), "{error}");
    drop(builder);

    let builder = place.builder("images.store", 40);
    let n_before = builder.n_present();
    assert!((5..20).contains(&n_before), "{n_before} were done");
    let inserted = insert(&builder, &first).unwrap();
    assert_eq!(
        (inserted.n_reused, inserted.n_prepared),
        (n_before, 19 - n_before)
    );
    let n_seen = AtomicUsize::new(0);
    let observer = |progress: Progress| {
        n_seen.fetch_max(progress.done, Ordering::Relaxed);
    };
    let options = PrepareOptions {
        observer: Some(&observer),
        stop: None,
    };
    let inserted = builder.insert_archive(&second, options).unwrap();
    assert_eq!((inserted.n_prepared, n_seen.into_inner()), (21, 40));
    assert!(builder.missing().is_empty());
    drop(builder.commit().unwrap());
    assert!(std::fs::read(place.path("images.store")).unwrap() == expected);
}

#[test]
fn images_that_are_damaged_twice_or_unexpected_are_told() {
    let place = Place::new();
    let mut items = items(5);
    items.push(Item::file("images/image 1.png", png(1)));
    items.push(Item::file("images/image 9.png", png(9)));
    items.push(Item::file("other/image 4.png", png(5)));
    // A name that is taken already, by the same image: Kaggle's archive has all of them twice.
    items.push(Item::file("sample/images/image 3.png", png(3)));
    items[3] = Item::file("images/image 2.png", b"no image".to_vec());
    for (file, bytes) in [("a.tar", tar(&items)), ("a.zip", zip_with_doubles(&items))] {
        let archive = place.write(file, &bytes);
        let builder = place.builder(&format!("{file}.store"), 5);
        let inserted = insert(&builder, &archive).unwrap();
        assert_eq!(
            (inserted.n_prepared, inserted.n_unexpected),
            (4, 1),
            "{file}"
        );
        let failed: Vec<&ImageName> = inserted.failures.iter().map(|(name, _)| name).collect();
        assert_eq!(failed, [&name(2)]);
        let error = inserted.failures[0].1.to_string();
        assert!(
            error.contains(file) && error.contains("image 2.png"),
            "{error}"
        );
        // Once with the same content, once with another.
        // The library for ZIP archives knows one entry of each path.
        let n_copies = if file == "a.zip" { 1 } else { 2 };
        assert_eq!(
            (inserted.n_copies, inserted.n_refused),
            (n_copies, 1),
            "{file}"
        );
        let [(path, why)] = inserted.refused.as_slice() else {
            panic!("{:?}", inserted.refused);
        };
        assert!(
            path.contains("image 4.png") && why.contains("another image"),
            "{path}: {why}"
        );
        let store = builder.commit().unwrap();
        assert_eq!((store.len(), store.contains(&name(2))), (4, false));
        // Each image has a number of its own, and one that is not there has none.
        let numbers: BTreeSet<_> = store.names().map(|name| store.number(&name)).collect();
        assert_eq!((numbers.len(), numbers.contains(&None)), (4, false));
        assert_eq!(store.number(&name(2)), None);
    }
}

/// ZIP writers refuse two entries of one name; a name of the same length is put in its place.
fn zip_with_doubles(items: &[Item]) -> Vec<u8> {
    let mut seen = std::collections::HashSet::new();
    let renamed: Vec<Item> = (items.iter())
        .map(|item| match item {
            Item::File { path, bytes, .. } if !seen.insert(path.clone()) => {
                Item::file(&path.replace("images/image", "images/IMAGE"), bytes.clone())
            }
            other => other.clone(),
        })
        .collect();
    common::replaced_all(zip(&renamed), b"images/IMAGE", b"images/image")
}

#[test]
fn paths_that_climb_links_and_devices_are_refused_and_the_rest_is_read() {
    let place = Place::new();
    let file = |path: &str| Item::file(path, png(0));
    let hostile = vec![
        file("../image 0.png"),
        file("images/../../image 0.png"),
        file("/etc/image 0.png"),
        file("..\\image 0.png"),
        file("C:\\image 0.png"),
        file("images/image\u{7}.png"),
        Item::Link("images/image 1.png".to_owned(), "/etc/passwd".to_owned()),
    ];
    let mut in_tar = hostile.clone();
    in_tar.push(Item::Special("images/image 2.png".to_owned(), b'1'));
    in_tar.push(Item::Special("images/image 3.png".to_owned(), b'6'));
    let good = Item::file("images/image 4.png", png(4));
    let with_good = |items: &[Item]| [items, std::slice::from_ref(&good)].concat();
    for (name_of, bytes, n_hostile) in [
        ("a.tar", tar(&with_good(&in_tar)), 9),
        ("a.tar.gz", gzip(&tar(&with_good(&in_tar))), 9),
        ("a.zip", zip(&with_good(&hostile)), 7),
    ] {
        let inside = place.path("inside");
        std::fs::create_dir_all(&inside).unwrap();
        let archive = inside.join(name_of);
        std::fs::write(&archive, bytes).unwrap();
        let builder = place.builder(&format!("{name_of}.store"), 5);
        let inserted = insert(&builder, &archive).unwrap();
        assert_eq!(inserted.n_refused, n_hostile, "{:?}", inserted.refused);
        let store = builder.commit().unwrap();
        assert_eq!(store.names().collect::<Vec<_>>(), [name(4)]);
        // Nothing was unpacked anywhere.
        assert_eq!(std::fs::read_dir(&inside).unwrap().count(), 1);
        assert!(!place.path("image 0.png").exists());
        std::fs::remove_file(archive).unwrap();
    }
}

#[test]
fn bombs_are_stopped_before_they_grow() {
    const MIB: usize = 1 << 20;
    let place = Place::new();
    // A hundred kilobytes that are a hundred megabytes: more than a hundred times as much, and more
    // than what any archive may grow by.
    let grown = Item::file("image 0.png", vec![0; 100 * MIB]);
    let tar_bomb = gzip(&tar(std::slice::from_ref(&grown)));
    // The same in files that are not even asked for.
    let unasked = gzip(&tar(&[Item::file("README", vec![0; 100 * MIB])]));
    // A gigabyte declared for a path.
    let mut path_bomb = tar(&[Item::Special("x".to_owned(), b'L')]);
    common::archives::set_tar_size(&mut path_bomb, 1 << 30);
    for (file, bytes, expected) in [
        ("a.tar.gz", &tar_bomb, "decompression bomb"),
        ("b.tar.gz", &unasked, "decompression bomb"),
        (
            "c.zip",
            &zip(std::slice::from_ref(&grown)),
            "decompression bomb",
        ),
        ("d.tar", &path_bomb, "described by 1073741824 bytes"),
    ] {
        assert!(bytes.len() < MIB, "{file} has {} bytes", bytes.len());
        let archive = place.write(file, bytes);
        let builder = place.builder(&format!("{file}.store"), 3);
        let error = insert(&builder, &archive).unwrap_err();
        assert!(matches!(error, DatasetError::Archive { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{file}: {error}");
        assert_eq!(builder.n_present(), 0);
    }
    // One file that is longer than any image: it is refused by what is declared.
    let mut long = tar(&[Item::file("image 0.png", vec![1; 1024])]);
    common::archives::set_tar_size(&mut long, MAX_ARCHIVED_FILE + 1);
    let archive = place.write("e.tar", &long);
    let error = insert(&place.builder("e.store", 3), &archive).unwrap_err();
    assert!(error.to_string().contains("e.tar"), "{error}");
}

#[test]
fn an_archive_cut_anywhere_is_an_error() {
    let place = Place::new();
    let plain = tar(&items(3));
    for (file, bytes) in [
        ("a.tar", plain.clone()),
        ("a.tar.gz", gzip(&plain)),
        ("a.zip", zip(&items(3))),
    ] {
        // GNU and BSD tar end with two blocks of zeros, and one of them is enough.
        let whole = if file == "a.tar" {
            bytes.len() - 512
        } else {
            bytes.len()
        };
        for length in (0..whole).step_by(97).chain([whole - 1]) {
            let archive = place.write(file, &bytes[..length]);
            match archived_paths(&archive) {
                Err(error) => assert!(error.to_string().contains(file), "{error}"),
                Ok(names) => panic!("{file} cut to {length} bytes gave {names:?}"),
            }
        }
    }
}

#[test]
fn long_paths_of_both_kinds_are_read() {
    let place = Place::new();
    let folder = "folder/".repeat(30);
    let long = format!("{folder}image 0.png");
    let mut bytes = Vec::new();
    // GNU's way, as the library writes it.
    let mut builder = ::tar::Builder::new(&mut bytes);
    let mut header = ::tar::Header::new_gnu();
    header.set_size(png(0).len() as u64);
    header.set_cksum();
    builder
        .append_data(&mut header, &long, png(0).as_slice())
        .unwrap();
    // The POSIX way.
    let record = format!("path={folder}image 1.png\n");
    let length = record.len() + 4;
    let record = format!("{length} {record}");
    assert_eq!(record.len(), length);
    let mut described = ::tar::Header::new_ustar();
    described.set_entry_type(::tar::EntryType::XHeader);
    described.set_size(record.len() as u64);
    described.set_cksum();
    builder.append(&described, record.as_bytes()).unwrap();
    let mut header = ::tar::Header::new_ustar();
    header.set_path("shortened").unwrap();
    header.set_size(png(1).len() as u64);
    header.set_cksum();
    builder.append(&header, png(1).as_slice()).unwrap();
    builder.into_inner().unwrap().flush().unwrap();
    let archive = place.write("long.tar", &bytes);
    let path = |number| ImageName::new(&format!("{folder}{}", name(number))).unwrap();
    assert_eq!(archived_paths(&archive).unwrap(), [path(0), path(1)]);
    let builder = place.builder("long.store", 2);
    assert_eq!(insert(&builder, &archive).unwrap().n_prepared, 2);
    let store: Store = builder.commit().unwrap();
    assert_eq!(store.len(), 2);
}
