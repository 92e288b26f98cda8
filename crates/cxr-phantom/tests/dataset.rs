//! What a written folder holds, and that it is ChestX-ray14's form to the last comma.

#![expect(clippy::unwrap_used, reason = "a test's helper may panic")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cxr_phantom::{
    Cohort, Finding, List, ListSize, NUISANCE_QUESTIONS, PhantomConfig, PhantomError, Progress,
    Summary, remove_dataset, write_dataset,
};

const LABEL_HEADER: &str = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]";
const BOX_HEADER: &str = "Image Index,Finding Label,Bbox [x,y,w,h],,,";

fn small(seed: u64) -> PhantomConfig {
    let size = |images| ListSize {
        images,
        least_positives: 2,
    };
    PhantomConfig::new(seed, size(30), size(24))
        .and_then(|config| config.with_side(64))
        .unwrap()
}

fn write(config: &PhantomConfig, folder: &Path) -> Result<Summary, PhantomError> {
    write_dataset(config, folder, &|_| (), &AtomicBool::new(false))
}

/// Every file of a folder with its bytes.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            let inner = contents(&path).into_iter();
            files.extend(inner.map(|(file, bytes)| (format!("{name}/{file}"), bytes)));
        } else {
            files.insert(name, fs::read(path).unwrap());
        }
    }
    files
}

#[test]
fn the_files_have_the_originals_form() {
    let folder = tempfile::tempdir().unwrap();
    let config = small(3);
    let summary = write(&config, folder.path()).unwrap();
    let text = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();

    let labels = text("Data_Entry_2017_v2020.csv");
    assert!(labels.ends_with('\n') && !labels.contains(['\r', '"']));
    let mut lines = labels.lines();
    assert_eq!(lines.next(), Some(LABEL_HEADER));
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 54);

    let lists = ["train_val_list.txt", "test_list.txt"].map(|name| {
        let list = text(name);
        assert!(!list.ends_with('\n'), "{name} ends with a newline");
        list.lines().map(str::to_owned).collect::<Vec<_>>()
    });
    assert_eq!([lists[0].len(), lists[1].len()], [30, 24]);

    let mut positives = [[0; Finding::COUNT]; 2];
    let mut last = (0, 0);
    for row in &rows {
        let [
            name,
            findings,
            follow_up,
            patient,
            age,
            sex,
            view,
            width,
            height,
            x,
            y,
        ] = row[..]
        else {
            panic!("expected eleven columns, got {row:?}");
        };
        let number: (u32, u32) = (name[..8].parse().unwrap(), name[9..12].parse().unwrap());
        assert_eq!(name, format!("{:08}_{:03}.png", number.0, number.1));
        assert!(number > last, "{name} out of order");
        last = number;
        assert_eq!(patient, number.0.to_string());
        let follow_up: u32 = follow_up.parse().unwrap();
        assert!(
            number.1 == follow_up || number.1 == follow_up + 1,
            "{name}: follow-up {follow_up}"
        );
        assert!((1..=95).contains(&age.parse::<u32>().unwrap()));
        assert!(["F", "M"].contains(&sex) && ["PA", "AP"].contains(&view));
        assert!(width.parse::<u32>().unwrap() >= 2000 && height.parse::<u32>().unwrap() >= 2000);
        assert_eq!(x, y);
        assert!((0.1..0.2).contains(&x.parse::<f64>().unwrap()));

        let in_test = lists[1].iter().any(|listed| listed == name);
        assert_ne!(
            in_test,
            lists[0].iter().any(|listed| listed == name),
            "{name} in one list"
        );
        if findings != "No Finding" {
            let names: Vec<&str> = findings.split('|').collect();
            assert!(names.is_sorted(), "{findings}");
            for name in names {
                let finding = Finding::ALL.into_iter().find(|known| known.name() == name);
                let finding = finding.unwrap_or_else(|| panic!("unknown finding `{name}`"));
                positives[usize::from(in_test)][finding.index()] += 1;
            }
        }
    }
    assert_eq!(
        positives,
        [summary.train_val_positives, summary.test_positives]
    );

    let boxes = text("BBox_List_2017.csv");
    let mut lines = boxes.lines();
    assert_eq!(lines.next(), Some(BOX_HEADER));
    let allowed: BTreeSet<&str> = Finding::ALL
        .into_iter()
        .filter_map(Finding::box_name)
        .collect();
    assert_eq!(allowed.len(), 8);
    assert_eq!(lines.clone().count(), summary.boxes);
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        assert!(lists[1].iter().any(|listed| listed == fields[0]), "{line}");
        assert!(allowed.contains(fields[1]), "{line}");
        let [x, y, w, h] = [2, 3, 4, 5].map(|field: usize| fields[field].parse::<f64>().unwrap());
        assert!(x >= 0.0 && y >= 0.0 && w > 0.0 && h > 0.0, "{line}");
        assert!(x + w <= 1024.01 && y + h <= 1024.01, "{line}");
    }
}

#[test]
fn the_headers_are_the_originals_own() {
    let shared = std::env::var("CXR_SHARED").unwrap_or_else(|_| "../../../shared".to_owned());
    let folder = Path::new(&shared).join("data/nih-meta");
    let Ok(boxes) = fs::read_to_string(folder.join("BBox_List_2017.csv")) else {
        eprintln!("skipped: no `{}`", folder.display());
        return;
    };
    assert_eq!(boxes.lines().next(), Some(BOX_HEADER));
    assert!(boxes.ends_with('\n') && !boxes.contains('\r'));
    let listed: BTreeSet<&str> = boxes
        .lines()
        .skip(1)
        .filter_map(|line| line.split(',').nth(1))
        .collect();
    let ours: BTreeSet<&str> = Finding::ALL
        .into_iter()
        .filter_map(Finding::box_name)
        .collect();
    assert_eq!(listed, ours);
    for name in [List::TrainVal, List::Test].map(List::file_name) {
        let list = fs::read_to_string(folder.join(name)).unwrap();
        assert!(!list.ends_with('\n') && !list.contains('\r'), "{name}");
    }
}

#[test]
fn images_are_grey_and_a_few_have_four_channels() {
    let size = |images| ListSize {
        images,
        least_positives: 1,
    };
    let config = PhantomConfig::new(5, size(90), size(20))
        .unwrap()
        .with_side(64)
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    write(&config, folder.path()).unwrap();

    let mut colours: HashMap<image::ColorType, usize> = HashMap::new();
    for (number, study) in Cohort::plan(&config).studies().iter().enumerate() {
        let decoded = image::open(folder.path().join("images").join(study.file_name())).unwrap();
        *colours.entry(decoded.color()).or_default() += 1;
        if study.is_rgba() {
            let rendered = study.render(64);
            let mut greys = rendered.pixels().iter();
            for pixel in decoded.to_rgba8().pixels() {
                let &grey = greys.next().unwrap();
                assert_eq!(pixel.0, [grey, grey, grey, 255]);
            }
        } else if number % 10 == 0 {
            assert_eq!(decoded.as_bytes(), study.render(64).pixels());
        }
    }
    let four_channels = colours[&image::ColorType::Rgba8];
    assert!(
        (1..10).contains(&four_channels),
        "{four_channels} of 110 files with four channels"
    );
    assert_eq!(four_channels + colours[&image::ColorType::L8], 110);
}

#[test]
fn the_bytes_do_not_depend_on_the_number_of_threads() {
    let written: Vec<_> = [1, 3]
        .into_iter()
        .map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let folder = tempfile::tempdir().unwrap();
            pool.install(|| write(&small(9), folder.path())).unwrap();
            contents(folder.path())
        })
        .collect();
    assert_eq!(written[0].len(), 54 + 5);
    assert!(
        written[0] == written[1],
        "one and three threads write different bytes"
    );

    let folder = tempfile::tempdir().unwrap();
    write(&small(10), folder.path()).unwrap();
    assert!(
        written[0] != contents(folder.path()),
        "another seed writes the same bytes"
    );
}

#[test]
fn a_stopped_call_is_finished_by_the_next() {
    let config = small(4);
    let whole = tempfile::tempdir().unwrap();
    write(&config, whole.path()).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let observer = |progress: Progress| {
        if progress.written == 10 {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let error = write_dataset(&config, folder.path(), &observer, &stop).unwrap_err();
    let PhantomError::Interrupted { images: 54, .. } = error else {
        panic!("expected an interruption, got {error}");
    };
    assert!(!folder.path().join("Data_Entry_2017_v2020.csv").exists());
    let images = folder.path().join("images");
    let there = fs::read_dir(&images).unwrap().count();
    assert!((10..54).contains(&there), "{there} images after the stop");
    // What a killed process leaves of the file it was writing.
    fs::write(images.join(".tmpAbCd12.tmp"), b"half").unwrap();

    let calls = AtomicUsize::new(0);
    let count = |_| {
        calls.fetch_add(1, Ordering::Relaxed);
    };
    let summary = write_dataset(&config, folder.path(), &count, &AtomicBool::new(false)).unwrap();
    assert_eq!(summary.already_there, there);
    assert_eq!(calls.into_inner(), 54);
    assert!(
        contents(folder.path()) == contents(whole.path()),
        "the resumed folder differs"
    );
}

#[test]
fn a_folder_with_anything_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let precious = folder.path().join("Data_Entry_2017_v2020.csv");
    fs::write(&precious, "real").unwrap();
    let error = write(&small(1), folder.path()).unwrap_err();
    assert!(matches!(error, PhantomError::FolderInUse { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("found `Data_Entry_2017_v2020.csv`"),
        "{error}"
    );
    assert_eq!(contents(folder.path()).len(), 1);
    assert_eq!(fs::read_to_string(precious).unwrap(), "real");

    let phantoms = tempfile::tempdir().unwrap();
    write(&small(1), phantoms.path()).unwrap();
    let before = contents(phantoms.path());
    let error = write(&small(2), phantoms.path()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("phantoms of another configuration"),
        "{error}"
    );
    assert!(contents(phantoms.path()) == before);
    let again = write(&small(1), phantoms.path()).unwrap();
    assert_eq!(again.already_there, 54);
    assert!(contents(phantoms.path()) == before);
}

#[test]
fn a_data_set_of_nuisance_shows_no_finding_and_tells_how_images_were_taken() {
    let config = PhantomConfig::of_nuisance(3, 40, 10)
        .and_then(|config| config.with_side(64))
        .unwrap();
    let cohort = Cohort::plan(&config);
    for study in cohort.studies() {
        assert!(study.labels().is_empty() && study.shown().is_empty());
        assert!(study.boxes(64).is_empty());
    }
    let folder = tempfile::tempdir().unwrap();
    write(&config, folder.path()).unwrap();
    let table = fs::read_to_string(folder.path().join("labels.csv")).unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split(',').collect())
        .collect();
    assert_eq!(rows.len(), 51);
    let questions = NUISANCE_QUESTIONS;
    assert_eq!(rows[0][..2], ["Image Index", "Patient ID"]);
    assert_eq!(rows[0][2..], questions);
    for (row, study) in rows[1..].iter().zip(cohort.studies()) {
        assert_eq!(row[0], study.file_name());
        assert_eq!(row[1], study.patient_id().to_string());
        let nuisance = study.nuisance();
        let answer = |question: &str| {
            let at = questions.iter().position(|known| *known == question);
            row[2 + at.unwrap()] == "1"
        };
        assert_eq!(answer("AP"), nuisance.view.code() == "AP");
        assert_eq!(answer("exposure above 0.3"), nuisance.exposure > 0.3);
        let tilted = nuisance.tilt_degrees > 1.5;
        assert_eq!(answer("tilt above 1.5 degrees"), tilted);
        assert_eq!(answer("field above 366 mm"), nuisance.field_mm > 366.0);
    }
    // Nothing here looks like ChestX-ray14's own table, whose labels are findings.
    assert!(!folder.path().join("Data_Entry_2017_v2020.csv").exists());
}

#[test]
fn the_questions_divide_the_images() {
    let config = PhantomConfig::of_nuisance(4, 2_000, 1).unwrap();
    let cohort = Cohort::plan(&config);
    for (index, question) in NUISANCE_QUESTIONS.iter().enumerate() {
        let answers = cohort.studies().iter();
        let yes = answers
            .filter(|study| study.nuisance_answers()[index])
            .count();
        // A pacemaker is rare.
        assert!((40..=1_800).contains(&yes), "{question}: {yes} of 2001");
    }
}

#[test]
fn removing_takes_phantoms_and_refuses_before_it_takes_anything_else() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("phantoms");
    assert!(!remove_dataset(&place).unwrap(), "there was nothing");
    write(&small(1), &place).unwrap();
    fs::write(place.join("images/.tmpAbCd12.tmp"), b"half").unwrap();
    assert!(remove_dataset(&place).unwrap());
    assert!(!place.exists());

    // A file of the user's, of any name: the last is called as ChestX-ray14's own images are.
    for foreign in [
        "notes.txt",
        "images-64.store",
        "labels.csv",
        "images/mine.png",
        "images/00030801_001.png",
    ] {
        write(&small(1), &place).unwrap();
        fs::write(place.join(foreign), "mine").unwrap();
        let before = contents(&place);
        let error = remove_dataset(&place).unwrap_err();
        assert!(error.to_string().contains(foreign), "{error}");
        assert!(contents(&place) == before, "{foreign}: something is gone");
        fs::remove_file(place.join(foreign)).unwrap();
    }

    // A table that was changed is not ours any more.
    let table = place.join("Data_Entry_2017_v2020.csv");
    let text = fs::read_to_string(&table).unwrap();
    fs::write(&table, format!("{text}\n")).unwrap();
    let error = remove_dataset(&place).unwrap_err();
    assert!(error.to_string().contains("Data_Entry"), "{error}");
    fs::write(&table, text).unwrap();
    assert!(remove_dataset(&place).unwrap());

    // A marker that somebody else wrote makes no phantoms.
    fs::create_dir(&place).unwrap();
    fs::write(place.join("PHANTOMS.txt"), "my list of phantoms").unwrap();
    fs::write(place.join("labels.csv"), "mine").unwrap();
    assert!(!remove_dataset(&place).unwrap());
    assert_eq!(contents(&place).len(), 2);
}

// A link to the folder of real images would have let them be deleted.
#[cfg(unix)]
#[test]
fn nothing_is_removed_through_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let [place, elsewhere] = ["phantoms", "elsewhere"].map(|name| folder.path().join(name));
    write(&small(1), &place).unwrap();
    fs::rename(place.join("images"), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, place.join("images")).unwrap();
    let error = remove_dataset(&place).unwrap_err();
    assert!(error.to_string().contains("images"), "{error}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 54);
    assert!(place.join("train_val_list.txt").is_file());
}
