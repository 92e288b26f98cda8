//! `cxr prepare`, run as a user runs it, and training from the store that it makes.

#![expect(clippy::unwrap_used, reason = "a test stops at what should not happen")]

#[path = "common/ended.rs"]
mod ended;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use cxr_dataset::{ImageName, PrepareOptions, Store, StoreSettings, prepare};
use cxr_phantom::{ListSize, PhantomConfig, write_dataset};
use ended::ends_in;
use serde_json::Value;
use tempfile::TempDir;

/// A folder with phantoms in `data/`.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let size = |images| ListSize {
            images,
            least_positives: 1,
        };
        let config = PhantomConfig::new(5, size(30), size(14)).unwrap();
        let config = config.with_side(96).unwrap();
        let stop = AtomicBool::new(false);
        write_dataset(&config, &place.path("data"), &|_| (), &stop).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cxr"));
        command.current_dir(self.0.path()).args(arguments);
        command
    }

    /// Runs, and must end so.
    fn ends(&self, arguments: &[&str], code: i32) -> (String, String) {
        ends_in(self.0.path(), arguments, code)
    }

    /// The images, sorted by name.
    fn images(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path("data/images")).unwrap();
        let mut images: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        images.sort();
        images
    }

    /// The store of some files as the library makes it.
    fn expected(&self, files: &[PathBuf]) -> Vec<u8> {
        let name = |path: &PathBuf| ImageName::new(path.file_name().unwrap().to_str().unwrap());
        let sources: Vec<_> = files
            .iter()
            .map(|path| (name(path).unwrap(), path.clone()))
            .collect();
        let target = self.path("expected.store");
        let settings = StoreSettings::new(64).unwrap();
        let prepared = prepare(&sources, &target, settings, PrepareOptions::default()).unwrap();
        drop(prepared.commit().unwrap());
        std::fs::read(target).unwrap()
    }
}

fn copy(files: &[PathBuf], folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    for file in files {
        std::fs::copy(file, folder.join(file.file_name().unwrap())).unwrap();
    }
}

#[test]
fn folders_archives_and_files_give_one_store_and_more_can_be_added() {
    let place = Place::new();
    let images = place.images();
    copy(&images[..10], &place.path("some/deep/below"));
    copy(&images[10..20], &place.path("packed"));
    let mut tar = tar::Builder::new(std::fs::File::create(place.path("packed.tar")).unwrap());
    tar.append_dir_all("images", place.path("packed")).unwrap();
    tar.finish().unwrap();
    let single = images[20].to_str().unwrap();
    let base = ["prepare", "--side", "64", "--out", "out/images.store"];
    let with = |more: &[&'static str]| [base.as_slice(), more].concat();

    let mut first = with(&["some", "packed.tar", "--threads", "1"]);
    first.push(single);
    place.ends(&first, 0);
    let store = place.path("out/images.store");
    assert!(std::fs::read(&store).unwrap() == place.expected(&images[..21]));

    // Other images are refused without `--append`, and beside them with it.
    let (_, stderr) = place.ends(&with(&["data/images"]), 0);
    assert!(stderr.is_empty() || !stderr.contains("error"), "{stderr}");
    assert!(std::fs::read(&store).unwrap() == place.expected(&images));
    let (_, stderr) = place.ends(&with(&["some"]), 1);
    assert!(
        stderr.contains("holds 34 images that the sources do not"),
        "{stderr}"
    );
    assert!(stderr.contains("--append"), "{stderr}");
    std::fs::remove_file(&store).unwrap();
    place.ends(&with(&["some"]), 0);
    let (stdout, _) = place.ends(&with(&["packed.tar", "--append", "--json"]), 0);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (&report["images"], &report["prepared"]),
        (&20.into(), &10.into())
    );
    assert_eq!(report["failed"], Value::Array(Vec::new()));
    assert!(std::fs::read(&store).unwrap() == place.expected(&images[..20]));

    // Nothing to do: nothing is written.
    let before = std::fs::metadata(&store).unwrap().modified().unwrap();
    let (_, stderr) = place.ends(&with(&["some", "--append"]), 0);
    assert!(stderr.contains("prepared already"), "{stderr}");
    assert_eq!(
        std::fs::metadata(&store).unwrap().modified().unwrap(),
        before
    );
    let (_, stderr) = place.ends(&["prepare", "some", "--out", "out/images.store"], 1);
    assert!(stderr.contains("--side 64"), "{stderr}");
}

#[test]
fn broken_images_are_named_and_the_others_prepared() {
    let place = Place::new();
    let images = place.images();
    copy(&images[..5], &place.path("some"));
    std::fs::write(
        place.path("some/broken.png"),
        b"\x89PNG\r\n\x1a\nnot really",
    )
    .unwrap();
    std::fs::write(place.path("some/ct.dcm"), b"no DICOM file at all").unwrap();
    let (stdout, stderr) = place.ends(
        &[
            "prepare", "some", "--side", "64", "--out", "a.store", "--json",
        ],
        3,
    );
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let failed: Vec<&Value> = report["failed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| &f["image"])
        .collect();
    assert_eq!(failed, ["broken.png", "ct.dcm"]);
    assert!(stderr.contains("2 of 7 images cannot be used"), "{stderr}");
    drop(place.expected(&images[..5]));
    let [found, expected] =
        ["a.store", "expected.store"].map(|store| Store::open(place.path(store)).unwrap());
    assert_eq!(found.fingerprint(), expected.fingerprint());
    assert!(found.names().eq(expected.names()));

    let only_broken = place.path("broken");
    std::fs::create_dir(&only_broken).unwrap();
    std::fs::write(only_broken.join("a.png"), b"nothing").unwrap();
    let (_, stderr) = place.ends(&["prepare", "broken", "--out", "b.store"], 1);
    assert!(
        stderr.contains("none of the 1 images") && stderr.contains("a.png"),
        "{stderr}"
    );
    assert!(!place.path("b.store").exists() && !place.path("b.store.partial").exists());

    // A copy is the same image; another image of the name is called by its path, as all are then.
    copy(&images[..1], &place.path("some/below"));
    let (_, stderr) = place.ends(&["prepare", "some", "--out", "c.store"], 3);
    assert!(stderr.contains("1 files are copies"), "{stderr}");
    let copied = place
        .path("some/below")
        .join(images[0].file_name().unwrap());
    std::fs::copy(&images[1], copied).unwrap();
    let (_, stderr) = place.ends(&["prepare", "some", "--out", "d.store"], 3);
    assert!(stderr.contains("called by their paths"), "{stderr}");
    assert_eq!(Store::open(place.path("d.store")).unwrap().len(), 6);
    let (_, stderr) = place.ends(&["prepare", "Cargo.toml", "--out", "c.store"], 1);
    assert!(stderr.contains("cannot read `Cargo.toml`"), "{stderr}");
}

/// Killed as soon as some images are done; where it was faster than that, it is tried again.
#[test]
fn a_killed_preparation_goes_on_where_it_was() {
    const ATTEMPTS: usize = 50;
    let place = Place::new();
    let images = place.images();
    copy(&images, &place.path("some"));
    let arguments = [
        "prepare",
        "some",
        "--side",
        "64",
        "--out",
        "a.store",
        "--threads",
        "1",
    ];
    // The entries of the partial store say what is done.
    let partial = place.path("a.store.partial");
    let n_done = || std::fs::read(&partial).map_or(0, |bytes| n_present(&bytes, images.len()));
    let was_killed = (0..ATTEMPTS).any(|_| {
        let mut child = place
            .command(&arguments)
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        while n_done() < 3 && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        child.kill().unwrap();
        let status = child.wait().unwrap();
        if status.success() {
            std::fs::remove_file(place.path("a.store")).unwrap();
        }
        !status.success()
    });
    assert!(was_killed, "it was never killed in time");
    assert!(!place.path("a.store").exists());
    let done = n_done();
    assert!((3..=images.len()).contains(&done), "{done}");

    let (stdout, _) = place.ends(&[arguments.as_slice(), &["--json"]].concat(), 0);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let prepared = report["prepared"].as_u64().unwrap() as usize;
    // The image that was being written when it was killed is made again.
    let missing = images.len() - done;
    assert!((missing..=missing + 1).contains(&prepared), "{stdout}");
    assert!(std::fs::read(place.path("a.store")).unwrap() == place.expected(&images));
}

/// Blocks of 64×64 pixels at the end of a store that are not empty.
fn n_present(store: &[u8], n_images: usize) -> usize {
    let Some(pixels_at) = store.len().checked_sub(n_images * 64 * 64) else {
        return 0;
    };
    let blocks = store[pixels_at..].chunks_exact(64 * 64);
    blocks
        .filter(|block| block.iter().any(|&pixel| pixel != 0))
        .count()
}

#[test]
fn only_listed_images_are_prepared_when_a_table_says_so() {
    let place = Place::new();
    let images = place.images();
    copy(&images[..1], &place.path("extra"));
    std::fs::rename(
        place.path("extra").join(images[0].file_name().unwrap()),
        place.path("extra/unlisted.png"),
    )
    .unwrap();
    let table = "data/Data_Entry_2017_v2020.csv";
    let arguments = [
        "prepare",
        "data/images",
        "extra",
        "--labels",
        table,
        "--side",
        "64",
        "--out",
        "a.store",
    ];
    let (_, stderr) = place.ends(&arguments, 0);
    assert!(
        stderr.contains("1 images are not in `--labels`"),
        "{stderr}"
    );
    let store = Store::open(place.path("a.store")).unwrap();
    assert_eq!(store.len(), images.len());
}

const EXPERIMENT: &str = r#"
name = "tiny"
[data]
validation = "patient"
subset = { view = "PA" }
[model]
backbone = { densenet = { stem_channels = 8, growth_rate = 4, block_layers = [1, 2] } }
head = { top-network = { conv_channels = [8, 8], hidden = 8 } }

[augmentation]
image_size = 64
crop_size = 56
[training]
batch_size = 6
[[training.stages]]
name = "all layers"
epochs = 1
schedule = { constant = { learning_rate = 1e-3 } }
[[variants]]
name = "zlpr"
loss = "zlpr"
"#;

#[test]
fn training_reads_a_store_in_place_of_images_with_the_same_result() {
    let place = Place::new();
    std::fs::write(place.path("tiny.toml"), EXPERIMENT).unwrap();
    let train = |data: &str, runs: &str| {
        place.ends(
            &[
                "train",
                "--experiment",
                "tiny.toml",
                "--variant",
                "zlpr",
                "--data",
                data,
                "--runs",
                runs,
            ],
            0,
        )
    };
    let (_, stderr) = train("data", "from-images");
    assert!(stderr.contains("subset: view PA"), "{stderr}");
    place.ends(
        &[
            "prepare",
            "data/images",
            "--side",
            "64",
            "--out",
            "data/images-64.store",
        ],
        0,
    );
    std::fs::rename(place.path("data/images"), place.path("hidden")).unwrap();
    let (_, stderr) = train("data", "from-store");
    assert!(
        stderr.contains("images: 44 in `data/images-64.store`"),
        "{stderr}"
    );
    let predictions = |runs: &str| {
        std::fs::read(place.path(runs).join("tiny/zlpr/predictions-test.csv")).unwrap()
    };
    assert_eq!(predictions("from-images"), predictions("from-store"));
}

/// Values of 12 bits in 16 come out nearly black (imageio#1049): they are named, counted, and stretched on demand.
#[test]
fn images_of_few_levels_are_named_and_may_be_stretched() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place(folder);
    std::fs::create_dir(place.path("scans")).unwrap();
    for (name, largest) in [("narrow.png", 4095_u32), ("whole.png", 65_520)] {
        let file = std::fs::File::create(place.path("scans").join(name)).unwrap();
        let mut encoder = png::Encoder::new(file, 64, 64);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::Sixteen);
        let values = (0..64 * 64_u32).map(|at| (at * largest / 4095) as u16);
        let bytes: Vec<u8> = values.flat_map(u16::to_be_bytes).collect();
        encoder
            .write_header()
            .unwrap()
            .write_image_data(&bytes)
            .unwrap();
    }
    let prepare = |more: &[&str], code: i32| {
        let arguments = ["prepare", "scans", "--side", "64", "--out", "a.store"];
        place.ends(&[&arguments, more].concat(), code)
    };
    let (stdout, stderr) = prepare(&["--json"], 0);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["stretched"], false);
    assert_eq!(report["warnings"].as_array().unwrap().len(), 1);
    assert_eq!(report["warnings"][0]["image"], "narrow.png");
    assert_eq!(report["warnings"][0]["kind"], "narrow-range");
    assert!(stderr.contains("warning: 1 of the images"), "{stderr}");
    assert!(stderr.contains("`narrow.png`"), "{stderr}");
    // Said again of a store that was prepared before, and of the images and the store by `inspect`.
    let (_, stderr) = prepare(&[], 0);
    assert!(stderr.contains("`narrow.png`"), "{stderr}");
    for what in ["scans", "a.store"] {
        let (stdout, _) = place.ends(&["inspect", what], 0);
        assert!(stdout.contains("`narrow.png`"), "{what}: {stdout}");
    }
    let (_, stderr) = prepare(&["--stretch"], 1);
    assert!(stderr.contains("were not stretched"), "{stderr}");
    std::fs::remove_file(place.path("a.store")).unwrap();
    let (_, stderr) = prepare(&["--stretch"], 0);
    assert!(!stderr.contains("warning"), "{stderr}");
    let store = Store::open(place.path("a.store")).unwrap();
    let image = |name: &str| store.image(&ImageName::new(name).unwrap()).unwrap();
    assert_eq!(image("narrow.png"), image("whole.png"));
    let (_, stderr) = prepare(&["--append"], 1);
    assert!(stderr.contains("pass `--stretch`"), "{stderr}");
}
