//! The prepared store: what it holds, what a kill leaves, and damage of every byte.

#![expect(clippy::unwrap_used, reason = "a test stops at what it cannot read")]

#[cfg(feature = "dicom")]
mod common;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use cxr_dataset::{
    DatasetError, ImageName, PrepareOptions, Progress, Store, StoreBuilder, StoreSettings, Tone,
    WarningKind, decode_gray, prepare, resize_bicubic,
};

const SIDE: u32 = 16;

fn settings() -> StoreSettings {
    StoreSettings::new(SIDE).unwrap()
}

fn name(number: usize) -> ImageName {
    ImageName::new(&format!("image {number}.png")).unwrap()
}

/// PNG files of noise, named out of order.
fn sources(folder: &Path, n_images: usize) -> Vec<(ImageName, PathBuf)> {
    let write = |number: usize| {
        let path = folder.join(name(number));
        let mut encoder = png::Encoder::new(std::fs::File::create(&path).unwrap(), 40, 30);
        encoder.set_color(png::ColorType::Grayscale);
        let pixels: Vec<u8> = (0..1200)
            .map(|at| (at * at * (number + 3) / 7 % 251) as u8)
            .collect();
        encoder
            .write_header()
            .unwrap()
            .write_image_data(&pixels)
            .unwrap();
        (name(number), path)
    };
    (0..n_images).rev().map(write).collect()
}

fn build(sources: &[(ImageName, PathBuf)], target: &Path) -> Store {
    let prepared = prepare(sources, target, settings(), PrepareOptions::default()).unwrap();
    assert!(prepared.failures().is_empty(), "{:?}", prepared.failures());
    prepared.commit().unwrap()
}

fn partial(target: &Path) -> PathBuf {
    let mut name = target.to_owned().into_os_string();
    name.push(".partial");
    name.into()
}

#[test]
fn a_store_gives_back_every_image_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path(), 20);
    let target = folder.path().join("images.cxr");
    let store = build(&sources, &target);
    assert_eq!(
        (store.len(), store.side(), store.is_empty()),
        (20, 16, false)
    );
    for (name, path) in &sources {
        let expected = resize_bicubic(&decode_gray(path).unwrap(), 16, 16).unwrap();
        assert_eq!(store.image(name).unwrap(), expected.pixels());
        assert_eq!(
            store.image(name).unwrap(),
            expected.pixels(),
            "the second reading"
        );
    }
    let names: Vec<ImageName> = store.names().collect();
    assert!(names.is_sorted() && names.len() == 20);
    assert!(store.contains(&name(3)) && !store.contains(&name(20)));
    assert!(matches!(
        store.image(&name(20)),
        Err(DatasetError::NotInStore { .. })
    ));
    assert!(!partial(&target).exists());
}

#[test]
fn the_bytes_do_not_depend_on_threads_or_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut sources = sources(folder.path(), 20);
    let mut files = Vec::new();
    for (number, n_threads) in [1, 2, 7].into_iter().enumerate() {
        let target = folder.path().join(format!("{number}.cxr"));
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(n_threads)
            .build()
            .unwrap();
        pool.install(|| build(&sources, &target));
        files.push(std::fs::read(&target).unwrap());
        sources.rotate_left(7);
    }
    assert!(files.iter().all(|file| *file == files[0]));
}

#[test]
fn bad_images_are_collected_and_the_caller_decides() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path(), 10);
    let truncated = folder.path().join(name(4));
    let bytes = std::fs::read(&truncated).unwrap();
    std::fs::write(&truncated, &bytes[..bytes.len() / 2]).unwrap();
    std::fs::remove_file(folder.path().join(name(7))).unwrap();
    let target = folder.path().join("images.cxr");
    let run = || prepare(&sources, &target, settings(), PrepareOptions::default()).unwrap();

    let prepared = run();
    let failed: Vec<&ImageName> = prepared.failures().iter().map(|(name, _)| name).collect();
    assert_eq!(failed, [&name(4), &name(7)]);
    assert!(
        prepared
            .failures()
            .iter()
            .all(|(name, error)| error.to_string().contains(name.as_str()))
    );
    prepared.discard().unwrap();
    assert!(!target.exists() && !partial(&target).exists());

    let store = run().commit().unwrap();
    assert_eq!(
        (
            store.len(),
            store.contains(&name(4)),
            store.contains(&name(5))
        ),
        (8, false, true)
    );
    drop(store);

    // The repaired image is added; the eight others are taken over.
    std::fs::write(&truncated, &bytes).unwrap();
    let prepared = run();
    assert_eq!(
        (
            prepared.n_reused(),
            prepared.n_prepared(),
            prepared.failures().len()
        ),
        (8, 1, 1)
    );
    assert_eq!(prepared.commit().unwrap().len(), 9);
}

#[test]
fn a_stopped_preparation_resumes_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path(), 30);
    let whole = folder.path().join("whole.cxr");
    build(&sources, &whole);

    let target = folder.path().join("images.cxr");
    let stop = AtomicBool::new(false);
    let seen = Mutex::new(Vec::new());
    let observer = |progress: Progress| {
        seen.lock().unwrap().push(progress);
        if progress.done >= 8 {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let options = PrepareOptions {
        observer: Some(&observer),
        stop: Some(&stop),
    };
    let error = prepare(&sources, &target, settings(), options).unwrap_err();
    assert!(
        matches!(error, DatasetError::Interrupted { done, total: 30, .. } if done >= 8),
        "{error}"
    );
    assert!(!target.exists() && partial(&target).exists());
    assert!(
        seen.lock()
            .unwrap()
            .iter()
            .all(|progress| progress.total == 30)
    );

    // What a power loss can leave: an entry whose pixels never reached the disk.
    let mut bytes = std::fs::read(partial(&target)).unwrap();
    let pixels_at = bytes.len() - 30 * 256;
    let done = (0..30)
        .find(|slot| bytes[pixels_at + slot * 256..][..256] != [0; 256])
        .unwrap();
    bytes[pixels_at + done * 256 + 9] ^= 1;
    std::fs::write(partial(&target), bytes).unwrap();

    let prepared = prepare(&sources, &target, settings(), PrepareOptions::default()).unwrap();
    assert!(
        (7..30).contains(&prepared.n_reused()),
        "{} reused",
        prepared.n_reused()
    );
    assert_eq!(prepared.n_reused() + prepared.n_prepared(), 30);
    prepared.commit().unwrap();
    assert_eq!(
        std::fs::read(&target).unwrap(),
        std::fs::read(&whole).unwrap()
    );
}

#[test]
fn a_changed_file_is_prepared_again_and_an_unchanged_store_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path(), 5);
    let target = folder.path().join("images.cxr");
    let first = build(&sources, &target).fingerprint();
    let again = prepare(&sources, &target, settings(), PrepareOptions::default()).unwrap();
    assert_eq!((again.n_reused(), again.n_prepared()), (5, 0));
    assert_eq!(again.commit().unwrap().fingerprint(), first);

    // An image that became unreadable does not live on in its old form.
    std::fs::write(folder.path().join(name(2)), b"no image").unwrap();
    let prepared = prepare(&sources, &target, settings(), PrepareOptions::default()).unwrap();
    assert_eq!((prepared.n_reused(), prepared.failures().len()), (4, 1));
    let store = prepared.commit().unwrap();
    assert!(!store.contains(&name(2)));
    assert_ne!(store.fingerprint(), first);
}

#[test]
fn a_partial_store_of_other_images_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path(), 5);
    let target = folder.path().join("images.cxr");
    drop(prepare(&sources, &target, settings(), PrepareOptions::default()).unwrap());
    let before = std::fs::read(partial(&target)).unwrap();
    let other_settings = StoreSettings::new(17).unwrap();
    for (images, settings) in [(&sources[1..], settings()), (&sources[..], other_settings)] {
        let error = prepare(images, &target, settings, PrepareOptions::default()).unwrap_err();
        assert!(
            error.to_string().contains("other images or settings"),
            "{error}"
        );
    }
    assert_eq!(std::fs::read(partial(&target)).unwrap(), before);
}

#[test]
fn two_builders_do_not_write_the_same_store() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("images.cxr");
    let first = StoreBuilder::create_or_resume(&target, &[name(0)], settings()).unwrap();
    let error = StoreBuilder::create_or_resume(&target, &[name(0)], settings()).unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    drop(first);
    let twice = [name(0), name(1), name(0)];
    assert!(StoreBuilder::create_or_resume(folder.path().join("b"), &twice, settings()).is_err());
}

#[test]
fn a_builder_takes_images_from_memory_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path(), 4);
    let target = folder.path().join("images.cxr");
    let names: Vec<ImageName> = sources.iter().map(|(name, _)| name.clone()).collect();
    let builder = StoreBuilder::create_or_resume(&target, &names, settings()).unwrap();
    assert_eq!(builder.missing().len(), 4);
    for (name, path) in &sources {
        builder
            .insert_encoded(name, &std::fs::read(path).unwrap())
            .unwrap();
    }
    assert!(builder.missing().is_empty());
    assert!(builder.insert_encoded(&name(9), b"").is_err());
    builder.commit().unwrap();
    let whole = folder.path().join("whole.cxr");
    build(&sources, &whole);
    assert_eq!(
        std::fs::read(&target).unwrap(),
        std::fs::read(&whole).unwrap()
    );
    let nothing =
        StoreBuilder::create_or_resume(folder.path().join("n"), &names, settings()).unwrap();
    assert!(
        nothing.commit().is_err(),
        "a store without images was committed"
    );
}

#[test]
fn any_damaged_byte_and_any_cut_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path(), 3);
    let target = folder.path().join("images.cxr");
    let settings = StoreSettings::new(4).unwrap();
    prepare(&sources, &target, settings, PrepareOptions::default())
        .unwrap()
        .commit()
        .unwrap();
    let sound = std::fs::read(&target).unwrap();
    let damaged = folder.path().join("damaged.cxr");
    let pixels_at = sound.len() - 3 * 16;
    let is_found = |bytes: &[u8]| {
        std::fs::write(&damaged, bytes).unwrap();
        match Store::open(&damaged) {
            Err(error) => error.to_string().contains("damaged.cxr"),
            Ok(store) => sources.iter().any(|(name, _)| store.image(name).is_err()),
        }
    };
    assert!(!is_found(&sound));
    // Every byte of header, names and entries, a few of the padding, every one of the pixels.
    for at in (0..400)
        .chain((400..pixels_at).step_by(397))
        .chain(pixels_at..sound.len())
    {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x40;
        assert!(is_found(&bytes), "byte {at} was changed unnoticed");
    }
    for length in (0..300).chain((300..sound.len()).step_by(211)) {
        assert!(
            is_found(&sound[..length]),
            "cut to {length} bytes unnoticed"
        );
    }
    let mut longer = sound.clone();
    longer.push(0);
    assert!(is_found(&longer));
    assert!(matches!(
        Store::open(folder.path().join("absent")),
        Err(DatasetError::Io { .. })
    ));
}

/// A store that was mapped and verified once gave other pixels, or ended the process with SIGBUS.
#[test]
fn what_happens_to_an_open_store_is_found_at_the_next_read() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path(), 3);
    let target = folder.path().join("images.cxr");
    let store = build(&sources, &target);
    let sound = std::fs::read(&target).unwrap();
    let first = name(0);
    let expected = store.image(&first).unwrap();
    let side = SIDE as usize;
    let pixels_at = sound.len() - 3 * side * side;
    let refused = |what: &str| {
        let error = store.image(&first).unwrap_err().to_string();
        for part in ["images.cxr", "image 0.png", what, "prepare it again"] {
            assert!(error.contains(part), "{error}");
        }
    };

    // In place, as a failing disk or a careless program does it: one bit, other images, nothing.
    let in_place = |bytes: &[u8]| {
        let mut file = std::fs::File::options().write(true).open(&target).unwrap();
        file.write_all(bytes).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
    };
    let mut bytes = sound.clone();
    bytes[pixels_at + 5] ^= 1;
    in_place(&bytes);
    refused("damaged");
    bytes[pixels_at..].fill(0);
    in_place(&bytes);
    refused("damaged");
    for length in [pixels_at + side * side - 1, 4096, 100, 0] {
        in_place(&sound[..length]);
        refused("cut after it was opened");
    }
    in_place(&sound);
    assert_eq!(store.image(&first).unwrap(), expected);

    // Another store in its place is another file.
    std::fs::remove_file(&target).unwrap();
    std::fs::write(&target, b"something else").unwrap();
    assert_eq!(store.image(&first).unwrap(), expected);
}

#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    // For a pipe, which would be waited for: making one takes a fork, which would hold the other tests' locks.
    let socket = folder.path().join("socket.store");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (path, expected) in [
        (socket.as_path(), "expected a regular file"),
        (folder.path(), "directory"),
    ] {
        let error = Store::open(path).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(expected), "{error}: {source}");
    }
}

#[test]
fn an_unfinished_store_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path(), 3);
    let target = folder.path().join("images.cxr");
    drop(prepare(&sources, &target, settings(), PrepareOptions::default()).unwrap());
    let error = Store::open(partial(&target)).unwrap_err();
    assert!(error.to_string().contains("unfinished"), "{error}");
}

/// Images whose values use a part of their range, 12 bits in 16 (imageio#1049): named, remembered, and stretched.
#[test]
fn a_store_remembers_warnings_and_whether_levels_were_stretched() {
    let folder = tempfile::tempdir().unwrap();
    let write = |number: usize, largest: u16| {
        let path = folder.path().join(name(number));
        let mut encoder = png::Encoder::new(std::fs::File::create(&path).unwrap(), 16, 16);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::Sixteen);
        let values = (0..256_u32).map(|at| (at * u32::from(largest) / 255) as u16);
        let bytes: Vec<u8> = values.flat_map(u16::to_be_bytes).collect();
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&bytes).unwrap();
        (name(number), path)
    };
    let sources = [write(0, 4095), write(1, 65_535)];
    let target = folder.path().join("images.store");
    let prepared = prepare(&sources, &target, settings(), PrepareOptions::default()).unwrap();
    let told: Vec<_> = prepared.warnings().iter().map(|(name, _)| name).collect();
    assert_eq!(told, [&name(0)]);
    let store = prepared.commit().unwrap();
    assert_eq!(store.warnings(), [(name(0), WarningKind::NarrowRange)]);
    assert_eq!(store.image(&name(0)).unwrap().iter().max(), Some(&16));
    let as_stored = store.fingerprint();
    drop(store);
    // What was prepared before is still warned of.
    let again = prepare(&sources, &target, settings(), PrepareOptions::default()).unwrap();
    assert_eq!((again.n_reused(), again.warnings().len()), (2, 0));
    assert_eq!(again.commit().unwrap().warnings().len(), 1);

    // Of another tone nothing is taken over, and the digest is another.
    let stretched = settings().in_tone(Tone::Stretched);
    let prepared = prepare(&sources, &target, stretched, PrepareOptions::default()).unwrap();
    assert_eq!((prepared.n_reused(), prepared.warnings().len()), (0, 0));
    let store = prepared.commit().unwrap();
    assert_eq!((store.settings(), store.warnings().len()), (stretched, 0));
    assert_ne!(store.fingerprint(), as_stored);
    // Both images are the same slope now.
    assert_eq!(
        store.image(&name(0)).unwrap(),
        store.image(&name(1)).unwrap()
    );
    assert_eq!(store.image(&name(0)).unwrap().iter().max(), Some(&255));

    // A preparation that was begun in one tone does not go on in another.
    let other = folder.path().join("other.store");
    let names = [name(0), name(1)];
    drop(StoreBuilder::create_or_resume(&other, &names, settings()).unwrap());
    let error = StoreBuilder::create_or_resume(&other, &names, stretched).unwrap_err();
    assert!(
        error.to_string().contains("other images or settings"),
        "{error}"
    );
}

/// Offsets of [`cxr_dataset::Store`]'s format: the checksums of header and index, and the second number of each entry.
fn as_an_earlier_version_wrote_it(store: &mut [u8], n_images: usize) {
    let number =
        |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let names_len = number(store, 32) as usize;
    let entries_at = (192 + 4 * (n_images + 1) + names_len).next_multiple_of(8);
    for image in 0..n_images {
        let state = entries_at + 24 * image + 4;
        assert_eq!(number(store, state) & 1, 1);
        store[state..state + 4].copy_from_slice(&1_u32.to_le_bytes());
    }
    let pixels_at = (entries_at + 24 * n_images).next_multiple_of(4096);
    let crc = crc32fast::hash(&store[192..pixels_at]);
    store[40..44].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32fast::hash(&store[..188]);
    store[188..192].copy_from_slice(&crc.to_le_bytes());
}

/// A store without them was what `cxr predict` and a training had of a DICOM file's age, sex and view: nothing.
#[cfg(feature = "dicom")]
#[test]
fn a_store_keeps_age_sex_and_view_of_dicom_files() {
    use common::dicom::{Form, file, windowed};
    use cxr_dataset::{ImageAttributes, Sex, ViewPosition};

    let folder = tempfile::tempdir().unwrap();
    let mut sources = sources(folder.path(), 1);
    let film = windowed()
        .text((0x10, 0x40), "CS", "F")
        .text((0x10, 0x1010), "AS", "061Y")
        .text((0x18, 0x5101), "CS", "AP");
    let newborn = windowed().text((0x10, 0x1010), "AS", "003D");
    for (number, data_set) in [film, newborn].iter().enumerate() {
        let path = folder.path().join(format!("{number}.dcm"));
        std::fs::write(&path, file(data_set, Form::Explicit)).unwrap();
        sources.push((ImageName::new(&format!("{number}.dcm")).unwrap(), path));
    }
    let target = folder.path().join("images.cxr");
    let store = build(&sources, &target);
    let of = |store: &Store, name: &str| store.attributes(&ImageName::new(name).unwrap());
    let film = ImageAttributes {
        age_years: Some(61),
        sex: Some(Sex::Female),
        view: Some(ViewPosition::AnteroPosterior),
    };
    let newborn = ImageAttributes {
        age_years: Some(0),
        ..ImageAttributes::default()
    };
    assert_eq!(of(&store, "0.dcm"), Some(film));
    assert_eq!(of(&store, "1.dcm"), Some(newborn));
    assert_eq!(of(&store, "image 0.png"), Some(ImageAttributes::default()));
    assert_eq!(of(&store, "2.dcm"), None);

    // One of an earlier version has the same images, and nothing of the kind.
    let mut bytes = std::fs::read(&target).unwrap();
    as_an_earlier_version_wrote_it(&mut bytes, 3);
    let earlier = folder.path().join("earlier.cxr");
    std::fs::write(&earlier, &bytes).unwrap();
    let earlier = Store::open(&earlier).unwrap();
    assert_eq!(earlier.fingerprint(), store.fingerprint());
    for (name, _) in &sources {
        assert_eq!(earlier.image(name).unwrap(), store.image(name).unwrap());
        assert_eq!(earlier.attributes(name), None);
    }
    // Bits that no version writes are no attributes.
    for bits in [3_u32 << 4, 7 << 8, 1 << 12, 1 << 2, 1 << 16] {
        let mut crafted = std::fs::read(&target).unwrap();
        let at = crafted
            .windows(4)
            .skip(192)
            .position(|word| word == [3, 0, 0, 0])
            .unwrap()
            + 192;
        // Without the mark that they were looked at, an age is none either.
        let state = if bits == 1 << 16 { 1 } else { 3 } | bits;
        crafted[at..at + 4].copy_from_slice(&state.to_le_bytes());
        let pixels_at = crafted.len() - 3 * (SIDE * SIDE) as usize;
        let crc = crc32fast::hash(&crafted[192..pixels_at]);
        crafted[40..44].copy_from_slice(&crc.to_le_bytes());
        let crc = crc32fast::hash(&crafted[..188]);
        crafted[188..192].copy_from_slice(&crc.to_le_bytes());
        let path = folder.path().join("crafted.cxr");
        std::fs::write(&path, crafted).unwrap();
        let error = Store::open(&path).unwrap_err().to_string();
        assert!(error.contains("contradicts itself"), "{bits:x}: {error}");
    }
}
