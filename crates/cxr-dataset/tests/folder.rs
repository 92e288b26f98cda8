//! A data set's folder: what a survey finds in it, what it reports on the way, and what stops it.

#![expect(clippy::unwrap_used, reason = "a test stops at what it cannot read")]

use std::path::Path;
use std::sync::atomic::AtomicBool;

use cxr_dataset::{
    DataFolder, DatasetError, Found, Part, PrepareOptions, SurveyOptions, TEST_LIST, TRAIN_LIST,
    ValidationSplit, store_file,
};

const SIDE: u32 = 16;
const N_IMAGES: usize = 12;

fn name(number: usize) -> String {
    format!("p{number:02}.png")
}

fn write_image(path: &Path, number: usize) {
    let mut encoder = png::Encoder::new(std::fs::File::create(path).unwrap(), 20, 20);
    encoder.set_color(png::ColorType::Grayscale);
    let pixels: Vec<u8> = (0..400)
        .map(|at| ((at * (number + 3)) % 251) as u8)
        .collect();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&pixels).unwrap();
}

/// A table of twelve images of as many patients, and lists: the last four are for the test.
fn write_metadata(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let mut table = "image,patient,Mass\n".to_owned();
    for number in 0..N_IMAGES {
        table += &format!("{},{number},{}\n", name(number), number % 2);
    }
    std::fs::write(folder.join("labels.csv"), table).unwrap();
    let list = |numbers: std::ops::Range<usize>| -> String {
        numbers.map(|number| name(number) + "\n").collect()
    };
    std::fs::write(folder.join(TRAIN_LIST), list(0..8)).unwrap();
    std::fs::write(folder.join(TEST_LIST), list(8..N_IMAGES)).unwrap();
}

fn write_images(folder: &Path) {
    std::fs::create_dir_all(folder.join("images")).unwrap();
    for number in 0..N_IMAGES {
        write_image(&folder.join("images").join(name(number)), number);
    }
}

fn options() -> SurveyOptions {
    SurveyOptions {
        validation: ValidationSplit::PatientFold { fold: 0, of: 4 },
        side: SIDE,
        ..SurveyOptions::default()
    }
}

/// What a survey reports, in words.
fn survey(folder: &DataFolder) -> (Vec<String>, Result<cxr_dataset::Survey, DatasetError>) {
    let mut found = Vec::new();
    let survey = folder.survey(&options(), &mut |what| {
        found.push(match what {
            Found::Metadata(path) => format!("metadata {}", path.file_name().unwrap().display()),
            Found::Labels { path, .. } => format!("labels {}", path.file_name().unwrap().display()),
            Found::Store(store) => format!("store of {}", store.len()),
            Found::Files(files) => format!("{} files", files.files().len()),
            Found::Missing { missing, listed } => format!("{missing} of {listed} missing"),
            _ => "something else".to_owned(),
        });
    });
    (found, survey)
}

#[test]
fn a_folder_is_surveyed_prepared_and_then_read_from_its_store() {
    let folder = tempfile::tempdir().unwrap();
    write_metadata(folder.path());
    write_images(folder.path());
    let data = DataFolder::new(folder.path());
    assert!(!data.is_phantom());
    let (found, first) = survey(&data);
    assert_eq!(found, ["labels labels.csv", "12 files"]);
    let first = first.unwrap();
    assert_eq!(first.sources().len(), N_IMAGES);
    assert_eq!(first.split.part(Part::Test).len(), 4);
    let target = folder.path().join(store_file(SIDE));
    let set = first
        .prepare(&target, PrepareOptions::default(), || ())
        .unwrap();
    assert_eq!((set.n_prepared, set.n_reused), (N_IMAGES, 0));
    assert_eq!((set.store.len(), set.store.side()), (N_IMAGES, 16));

    std::fs::remove_dir_all(folder.path().join("images")).unwrap();
    std::fs::write(folder.path().join("PHANTOMS.txt"), "").unwrap();
    let (found, again) = survey(&data);
    assert_eq!(found, ["labels labels.csv", "store of 12"]);
    let again = again.unwrap();
    assert!(again.is_phantom && again.read.contains(&target));
    let set = again
        .prepare("nowhere", PrepareOptions::default(), || ())
        .unwrap();
    assert_eq!((set.n_prepared, set.store.len()), (0, N_IMAGES));
    assert!(!Path::new("nowhere").exists());

    let other = SurveyOptions {
        side: 20,
        ..options()
    };
    let named = data.with_store(Some(target));
    let error = named.survey(&other, &mut |_| ()).unwrap_err();
    let is_of_side = matches!(
        error,
        DatasetError::StoreSide {
            found: 16,
            wanted: 20,
            ..
        }
    );
    assert!(is_of_side, "{error}");
}

#[test]
fn missing_images_are_an_error_that_names_one_unless_they_are_allowed() {
    let folder = tempfile::tempdir().unwrap();
    write_metadata(folder.path());
    write_images(folder.path());
    let images = folder.path().join("images");
    std::fs::rename(images.join(name(9)), images.join("P09.PNG")).unwrap();
    std::fs::remove_file(images.join(name(10))).unwrap();
    let data = DataFolder::new(folder.path());
    let (found, refused) = survey(&data);
    assert_eq!(found, ["labels labels.csv", "11 files"]);
    let Err(DatasetError::Missing {
        missing,
        listed,
        first,
        similar,
        ..
    }) = refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!((missing, listed, first.as_str()), (2, 12, "p09.png"));
    assert_eq!(similar.as_deref(), Some("P09.PNG"));

    let (found, allowed) = survey(&data.clone().allow_missing(true));
    assert_eq!(found[2], "2 of 12 missing");
    let allowed = allowed.unwrap();
    assert_eq!(allowed.split.n_absent(Part::Test), 2);
    assert_eq!(allowed.sources().len(), 10);

    // All of them missing is a mistake in any case.
    std::fs::remove_dir_all(&images).unwrap();
    std::fs::create_dir(&images).unwrap();
    write_image(&images.join("other.png"), 1);
    let (_, none) = survey(&data.clone().allow_missing(true));
    assert!(matches!(
        none,
        Err(DatasetError::Missing {
            missing: 12,
            listed: 12,
            ..
        })
    ));
    std::fs::remove_file(images.join("other.png")).unwrap();
    let (found, empty) = survey(&data);
    assert_eq!(found[1], "0 files");
    assert!(matches!(empty, Err(DatasetError::NoImages { .. })));
}

#[test]
fn labels_and_lists_are_in_the_only_folder_beside_it_that_has_them_or_where_that_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("radiographs");
    write_images(&images);
    let (_, without) = survey(&DataFolder::new(&images));
    assert!(matches!(without, Err(DatasetError::NoMetadata { .. })));
    write_metadata(&folder.path().join("labels"));
    let (found, beside) = survey(&DataFolder::new(&images));
    assert_eq!(found[0], "metadata labels");
    beside.unwrap();
    // Of two nobody says which.
    write_metadata(&folder.path().join("others"));
    let (_, two) = survey(&DataFolder::new(&images));
    assert!(matches!(two, Err(DatasetError::NoMetadata { .. })));
    let named = DataFolder::new(&images).with_metadata(Some(folder.path().join("others")));
    let (found, named) = survey(&named);
    assert_eq!(found, ["labels labels.csv", "12 files"]);
    named.unwrap();
}

#[test]
fn images_that_cannot_be_used_are_all_named_and_a_stop_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    write_metadata(folder.path());
    write_images(folder.path());
    for number in [3, 8] {
        let path = folder.path().join("images").join(name(number));
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    }
    let data = DataFolder::new(folder.path());
    let target = folder.path().join("runs").join(store_file(SIDE));
    let stop = AtomicBool::new(true);
    let options = PrepareOptions {
        observer: None,
        stop: Some(&stop),
    };
    let stopped = survey(&data).1.unwrap().prepare(&target, options, || ());
    assert!(matches!(stopped, Err(DatasetError::Interrupted { .. })));
    let damaged = survey(&data)
        .1
        .unwrap()
        .prepare(&target, PrepareOptions::default(), || ());
    let Err(DatasetError::Unusable { images, of }) = damaged else {
        panic!("{damaged:?}");
    };
    let names: Vec<String> = images.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!((of, names), (12, vec![name(3), name(8)]));
    assert!(!target.exists());
}
