//! Tables, lists, splits, images, stores and archives with random damage: an error or a right answer, never
//! a panic, a hang, or memory without bound. More than ten thousand cases; `CXR_HOSTILE=100` makes a
//! hundred times as many, all different.

#![expect(clippy::unwrap_used, reason = "a test stops at what it cannot read")]

use std::path::{Path, PathBuf};

use cxr_dataset::{
    ImageName, Index, MAX_PIXELS, OfficialLists, PrepareOptions, Split, Store, StoreBuilder,
    StoreSettings, ValidationSplit, decode_gray_bytes, prepare, read_boxes,
};

mod common;

use common::archives::{Item, gzip, tar, zip};

/// Marsaglia's xorshift: the cases are the same on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// One to four changes: bytes flipped, replaced, removed, repeated, inserted, or the end cut.
    fn damage(&mut self, sound: &[u8], inserts: &[&str]) -> Vec<u8> {
        let mut bytes = sound.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => {
                    bytes[at] = [0, 0xff, b',', b'\n', b'"', b'|'][self.below(6)];
                }
                2 => drop(bytes.drain(at..(at + self.below(9)).min(bytes.len()))),
                3 => {
                    let end = (at + self.below(40)).min(bytes.len());
                    let repeated = bytes[at..end].to_vec();
                    bytes.splice(at..at, repeated);
                }
                4 => drop(bytes.splice(at..at, inserts[self.below(inserts.len())].bytes())),
                _ => bytes.truncate(self.below(bytes.len() + 1)),
            }
        }
        bytes
    }
}

const INSERTS: [&str; 9] = [
    "No Finding",
    "\u{feff}",
    "|",
    "..",
    "/",
    "-1",
    "99999999999999999999",
    "\r",
    "NaN",
];

/// So many cases, or as many times more as `CXR_HOSTILE` says.
fn cases(n_cases: usize) -> usize {
    let times = std::env::var("CXR_HOSTILE").ok();
    n_cases * times.map_or(1, |times| times.parse().unwrap())
}

/// Runs `check` on damaged copies of `sound`, each written to a file.
fn with_damaged(sound: &[u8], n_cases: usize, seed: u64, mut check: impl FnMut(&Path, &[u8])) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.csv");
    let mut random = Random(seed);
    for _ in 0..cases(n_cases) {
        let bytes = random.damage(sound, &INSERTS);
        std::fs::write(&path, &bytes).unwrap();
        check(&path, &bytes);
    }
}

#[test]
fn damaged_tables_give_an_error_or_an_index() {
    let nih = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n\
        00000001_000.png,Cardiomegaly|Mass,0,1,058Y,M,PA,2682,2749,0.143,0.143,\n\
        00000002_000.png,No Finding,1,2,58,F,AP,2894,2729,0.143,0.15,\n";
    let own = "image,patient,age,sex,view,Edema,Hernia\na.png,1,61,F,PA,1,0\nb.png,2,,,,,-1\n\"c d.png\",3,7,M,AP,1.0,0\n";
    let mut n_read = 0;
    for (seed, table) in [(1, nih), (2, own)] {
        with_damaged(table.as_bytes(), 2_000, seed, |path, bytes| {
            if let Ok(index) = Index::read(path) {
                n_read += 1;
                // A row is at least a line of the file, so nothing was made up.
                let n_lines = String::from_utf8_lossy(bytes).split(['\n', '\r']).count();
                assert!(index.records().len() < n_lines);
                assert!(
                    index
                        .records()
                        .iter()
                        .all(|record| record.labels.len() == index.label_set().len())
                );
                assert!(
                    index
                        .records()
                        .iter()
                        .all(|record| index.get(&record.name) == Some(record))
                );
            }
        });
    }
    assert!(
        n_read > 100,
        "only {n_read} damaged tables were still tables: too much damage to test much"
    );
}

#[test]
fn damaged_lists_boxes_and_splits_give_an_error_or_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let test = folder.path().join("test.txt");
    std::fs::write(&test, "z.png\n").unwrap();
    with_damaged(b"a.png\nb.png\r\n\nc.png", 1_500, 3, |path, _| {
        if let Ok(lists) = OfficialLists::read(path, &test) {
            assert!(
                !lists
                    .train_val()
                    .contains(&ImageName::new("z.png").unwrap())
            );
        }
    });

    let boxes = "Image Index,Finding Label,Bbox [x,y,w,h],,,\na.png,Infiltrate,225.5,547,86.7,79.1,,,\nb.png,Mass,0,0,1024,1024\n";
    with_damaged(boxes.as_bytes(), 1_500, 4, |path, _| {
        for found in read_boxes(path).unwrap_or_default() {
            assert!(found.x + found.width <= 1024.0 && found.y + found.height <= 1024.0);
        }
    });

    let table = folder.path().join("table.csv");
    std::fs::write(&table, "image,Edema\na.png,1\nb.png,0\nc.png,1\nz.png,0\n").unwrap();
    let list = folder.path().join("list.txt");
    std::fs::write(&list, "a.png\nb.png\nc.png\n").unwrap();
    let lists = OfficialLists::read(&list, &test).unwrap();
    let index = Index::read(&table).unwrap();
    let file = folder.path().join("split.csv");
    Split::new(&index, &lists, ValidationSplit::Paper, 3)
        .unwrap()
        .write(&file)
        .unwrap();
    let again = folder.path().join("again.csv");
    with_damaged(&std::fs::read(&file).unwrap(), 1_500, 5, |path, _| {
        if let Ok(split) = Split::read(path) {
            split.write(&again).unwrap();
            assert_eq!(Split::read(&again).unwrap(), split);
        }
    });
}

#[test]
fn damaged_images_give_an_error_or_pixels() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/decode");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut random = Random(6);
    let mut n_decoded = 0;
    for file in &files {
        let sound = std::fs::read(file).unwrap();
        for _ in 0..cases(300) {
            let mut bytes = random.damage(
                &sound,
                &["\u{0}", "IDAT", "IEND", "\u{7f}\u{7f}\u{7f}\u{7f}"],
            );
            if random.below(2) == 0 {
                repair_checksums(&mut bytes);
            }
            if let Ok(image) = decode_gray_bytes(&bytes, "hostile") {
                n_decoded += 1;
                assert!(image.pixels().len() as u64 <= MAX_PIXELS);
                assert_eq!(image.pixels().len(), image.width() * image.height());
            }
        }
    }
    assert!(files.len() >= 10 && n_decoded > 20, "{n_decoded}");
}

/// Found by the fuzzer: the PNG decoder panics on it.
#[test]
fn a_palette_that_is_not_of_triples_is_an_error() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/decode/palette.png");
    let mut bytes = std::fs::read(file).unwrap();
    assert!(decode_gray_bytes(&bytes, "sound").is_ok());
    let palette = bytes.windows(4).position(|name| name == b"PLTE").unwrap();
    let length = &mut bytes[palette - 1];
    assert_eq!(*length % 3, 0);
    *length += 1;
    bytes.insert(palette + 4, 0);
    repair_checksums(&mut bytes);
    let error = decode_gray_bytes(&bytes, "crafted").unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("a palette of triples"), "{error}: {source}");
}

/// Makes the chunks of a damaged PNG valid again, so that the damage reaches the decoder.
fn repair_checksums(bytes: &mut [u8]) {
    let mut at = 8;
    while let Some(length) = bytes.get(at..at + 4) {
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let Some(chunk) = bytes.get(at + 4..at.saturating_add(8).saturating_add(length)) else {
            return;
        };
        let crc = crc32fast::hash(chunk).to_be_bytes();
        at += 8 + length;
        let Some(place) = bytes.get_mut(at..at + 4) else {
            return;
        };
        place.copy_from_slice(&crc);
        at += 4;
    }
}

#[test]
fn damaged_stores_give_an_error_or_the_right_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/decode/gray.png");
    let names: Vec<ImageName> = (0..3)
        .map(|number| ImageName::new(&format!("{number}.png")).unwrap())
        .collect();
    let sources: Vec<_> = names
        .iter()
        .map(|name| (name.clone(), source.clone()))
        .collect();
    let target = folder.path().join("images.cxr");
    let settings = StoreSettings::new(4).unwrap();
    let prepared = prepare(&sources, &target, settings, PrepareOptions::default()).unwrap();
    let store = prepared.commit().unwrap();
    let pixels = store.image(&names[0]).unwrap();
    let sound = std::fs::read(&target).unwrap();
    drop(store);

    let damaged_path = folder.path().join("damaged.cxr");
    let mut random = Random(7);
    for case in 0..cases(1_500) {
        // Most of the file is padding: damage the head, and in half of the cases make its
        // checksums right, so that a crafted index is read too.
        let mut bytes = random.damage(&sound[..400], &["\u{0}", "\u{7f}\u{7f}\u{7f}\u{7f}"]);
        bytes.resize(400, 0);
        bytes.extend_from_slice(&sound[400..]);
        if case % 2 == 0 {
            let index_crc = crc32fast::hash(&bytes[192..4096]).to_le_bytes();
            bytes[40..44].copy_from_slice(&index_crc);
            let header_crc = crc32fast::hash(&bytes[..188]).to_le_bytes();
            bytes[188..192].copy_from_slice(&header_crc);
        }
        std::fs::write(&damaged_path, &bytes).unwrap();
        if let Ok(store) = Store::open(&damaged_path) {
            let names: Vec<ImageName> = store.names().collect();
            assert_eq!(names.len(), store.len());
            for name in &names {
                if let Ok(found) = store.image(name) {
                    assert!(
                        found == pixels || store.side() != 4,
                        "wrong pixels for `{name}`"
                    );
                }
            }
        }
    }
}

#[test]
fn damaged_archives_give_an_error_or_the_right_images() {
    let folder = tempfile::tempdir().unwrap();
    let png = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/decode/gray.png");
    let png = std::fs::read(png).unwrap();
    let items: Vec<Item> = (0..3)
        .map(|number| Item::file(&format!("images/{number}.png"), png.clone()))
        .collect();
    let names: Vec<ImageName> = (0..3)
        .map(|number| ImageName::new(&format!("{number}.png")).unwrap())
        .collect();
    let settings = StoreSettings::new(4).unwrap();
    let expected = {
        let target = folder.path().join("sound.store");
        let builder = StoreBuilder::create_or_resume(&target, &names, settings).unwrap();
        for name in &names {
            builder.insert_encoded(name, &png).unwrap();
        }
        let store = builder.commit().unwrap();
        store.image(&names[0]).unwrap()
    };
    let plain = tar(&items);
    let path = folder.path().join("hostile");
    let target = folder.path().join("hostile.store");
    let mut random = Random(8);
    let (mut n_read, mut n_refused) = (0, 0);
    for (kind, sound) in [plain.clone(), gzip(&plain), zip(&items)]
        .iter()
        .enumerate()
    {
        for _ in 0..cases(700) {
            let mut bytes = random.damage(sound, &["\u{0}", "../", "PK\u{1}\u{2}", "ustar"]);
            if kind == 0 && random.below(2) == 0 && bytes.len() >= 512 {
                repair_header(&mut bytes[..512]);
            }
            std::fs::write(&path, &bytes).unwrap();
            let builder = StoreBuilder::create_or_resume(&target, &names, settings).unwrap();
            match builder.insert_archive(&path, PrepareOptions::default()) {
                Ok(inserted) => {
                    n_read += 1;
                    n_refused += inserted.n_refused + inserted.failures.len();
                    assert!(inserted.n_prepared + inserted.failures.len() <= 3);
                }
                Err(error) => assert!(error.to_string().contains("hostile"), "{error}"),
            }
            // TAR has no checksum of its contents, and a damaged PNG is found by its own. Finishing
            // waits for the disk: one store in ten is looked at.
            if builder.n_present() == 0 || random.below(10) > 0 {
                builder.discard().unwrap();
                continue;
            }
            let store = builder.commit().unwrap();
            for name in store.names() {
                assert!(store.image(&name).unwrap() == expected);
            }
            drop(store);
            std::fs::remove_file(&target).unwrap();
        }
    }
    assert!(
        n_read > 50 && n_refused > 50,
        "{n_read} read, {n_refused} refused"
    );
}

/// Makes a damaged header valid again, so that the damage reaches what reads it.
fn repair_header(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
