//! `cxr explain`, run as a user runs it, on phantoms.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::{cxr, stderr, trained};
use cxr_report::explanations::{ExampleKind, Explanations};
use cxr_report::figures::figures;
use cxr_report::report::Report;

/// Width, height and channels of a PNG.
fn size_of(path: &Path) -> (u32, u32, usize) {
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let reader = png::Decoder::new(file).read_info().unwrap();
    let info = reader.info();
    (info.width, info.height, info.color_type.samples())
}

fn bytes_of(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap();
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        (path, bytes)
    };
    entries.map(read).collect()
}

#[test]
fn a_run_is_explained_for_its_report_and_images_one_by_one() {
    let folder = trained();
    let run = folder.path().join("models/runs/tiny/bce");
    let arguments = ["explain", "models/runs/tiny/bce", "--data", "data"];
    let output = cxr(folder.path(), &arguments);
    assert!(output.status.success(), "{}", stderr(&output));

    let explained = Explanations::read(&run).unwrap().unwrap();
    let pictures = run.join("explanations");
    assert!(!explained.samples.is_empty() && !explained.panel.is_empty());
    for sample in &explained.samples {
        assert_eq!(size_of(&pictures.join(&sample.picture)), (56, 56, 1));
    }
    for example in &explained.panel {
        assert_eq!(size_of(&pictures.join(&example.picture)), (56, 56, 1));
        assert_eq!(size_of(&pictures.join(&example.overlay)), (56, 56, 3));
        // What the kind says is so.
        let is_right = example.labels == example.predicted;
        assert_eq!(is_right, example.kind != ExampleKind::Wrong, "{example:?}");
        if is_right {
            assert_eq!(
                example.labels.len() == 1,
                example.kind == ExampleKind::RightSingle
            );
        }
        let predicted = example.predicted.contains(&example.explained);
        assert_eq!(predicted, !example.predicted.is_empty(), "{example:?}");
    }
    for kind in ExampleKind::ALL {
        let of_kind = explained
            .panel
            .iter()
            .filter(|example| example.kind == kind);
        assert!(of_kind.count() <= 3);
    }
    // Every box is scored, or counted as not scored.
    let boxes = explained.boxes.as_ref().unwrap();
    let listed = std::fs::read_to_string(folder.path().join("data/BBox_List_2017.csv")).unwrap();
    let scored: usize = boxes.findings.iter().map(|finding| finding.boxes).sum();
    assert!(scored > 0);
    let counted = scored + boxes.boxes_of_other_images + boxes.boxes_outside;
    assert_eq!(counted, listed.lines().count() - 1);
    for finding in &boxes.findings {
        assert!(finding.hits + finding.empty_maps <= finding.boxes);
        let area = finding.mean_box_area;
        assert!(area > 0.0 && area <= 1.0, "{finding:?}");
        assert!((0.0..=1.0).contains(&finding.mean_overlap), "{finding:?}");
    }

    // Several methods side by side: the same pictures, and scores of each.
    let methods = ["--method", "grad-cam,layer-cam,hires-cam"];
    let output = cxr(folder.path(), &[&arguments[..], &methods].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let beside = Explanations::read(&run).unwrap().unwrap();
    assert_eq!(beside.boxes, explained.boxes);
    let names: Vec<&str> = (beside.other_methods.iter())
        .map(|scores| scores.method.as_str())
        .collect();
    assert_eq!(names, ["Layer-CAM", "HiRes-CAM"]);
    for scores in &beside.other_methods {
        let of_method: usize = scores.findings.iter().map(|finding| finding.boxes).sum();
        let of_grad_cam: usize = boxes.findings.iter().map(|finding| finding.boxes).sum();
        assert_eq!(of_method, of_grad_cam);
    }
    let output = cxr(folder.path(), &arguments);
    assert!(output.status.success(), "{}", stderr(&output));

    // Again: nothing is done. Without one of the pictures, and on another number of threads: the same bytes.
    let first = bytes_of(&pictures);
    let leftover = pictures.join(".tmpAb12Cd.tmp");
    std::fs::write(&leftover, "half a picture").unwrap();
    let output = cxr(folder.path(), &arguments);
    assert!(
        stderr(&output).contains("is up to date"),
        "{}",
        stderr(&output)
    );
    assert!(!leftover.exists(), "of a call that was killed");
    assert_eq!(bytes_of(&pictures), first);
    std::fs::remove_file(pictures.join(&explained.samples[0].picture)).unwrap();
    let output = cxr(
        folder.path(),
        &[&arguments[..], &["--threads", "1"]].concat(),
    );
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(bytes_of(&pictures), first);

    // Made from something else: made again.
    let hotter = [&arguments[..], &["--hot-share", "0.9"]].concat();
    let output = cxr(folder.path(), &hotter);
    assert!(output.status.success(), "{}", stderr(&output));
    let other = Explanations::read(&run).unwrap().unwrap();
    assert_ne!(other.boxes.unwrap().hot_share, boxes.hot_share);
    assert_eq!(other.samples, explained.samples);

    // The report takes all of it from the run's folder, the data being gone.
    let images = folder.path().join("data/images");
    let mut names: Vec<PathBuf> = std::fs::read_dir(&images)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    let kept = folder.path().join("chest, one.png");
    std::fs::copy(&names[0], &kept).unwrap();
    std::fs::remove_dir_all(folder.path().join("data")).unwrap();
    let report = Report::read(&folder.path().join("models/runs/tiny")).unwrap();
    let drawn: Vec<String> = figures(&report)
        .into_iter()
        .map(|figure| figure.name)
        .collect();
    assert_eq!(
        drawn,
        [
            "figure1", "figure2", "figure3", "figure4", "figure5", "figure7"
        ]
    );
    let score = [
        "score",
        "predictions-test.csv",
        "--labels",
        "labels-test.csv",
    ];
    let output = cxr(
        &run,
        &[&score[..], &["--by-patient", "--allow-missing"]].concat(),
    );
    assert!(output.status.success(), "{}", stderr(&output));

    // Images of one's own: what is broken is named, the rest is there.
    std::fs::write(folder.path().join("broken.png"), "no picture").unwrap();
    let explain = [
        "explain",
        "models/runs/tiny/bce",
        "chest, one.png",
        "broken.png",
    ];
    let more = [
        "--label",
        "Mass,Hernia",
        "--output",
        "maps",
        "--style",
        "jet",
    ];
    let output = cxr(folder.path(), &[&explain[..], &more[..]].concat());
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("broken.png"),
        "{}",
        stderr(&output)
    );
    let table = std::fs::read_to_string(folder.path().join("maps/explanations.csv")).unwrap();
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.contains("\"chest, one.png\",Mass,"), "{table}");
    for label in ["Mass", "Hernia"] {
        let map = folder
            .path()
            .join(format!("maps/chest, one.png-{label}.png"));
        // As large as the radiograph.
        assert_eq!(size_of(&map), (96, 96, 3));
    }

    // Its own maps are replaced; a file of somebody else, an input and a trained model are not.
    let again = [&explain[..3], &more[..]].concat();
    assert!(cxr(folder.path(), &again).status.success());
    let theirs = folder.path().join("maps/chest, one.png-Hernia.png");
    let input = folder.path().join("chest, one.png");
    std::fs::copy(&input, &theirs).unwrap();
    let before = bytes_of(&folder.path().join("maps"));
    let refused = cxr(folder.path(), &again);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("--force"), "{}", stderr(&refused));
    assert_eq!(bytes_of(&folder.path().join("maps")), before);
    let forced = cxr(folder.path(), &[&again[..], &["--force"]].concat());
    assert!(forced.status.success(), "{}", stderr(&forced));
    std::fs::copy(&input, folder.path().join("maps/explanations.csv")).unwrap();
    let refused = cxr(folder.path(), &again);
    assert!(stderr(&refused).contains("--force"), "{}", stderr(&refused));
    let map = "maps/chest, one.png-Hernia.png";
    let itself = [
        "explain",
        "models/runs/tiny/bce",
        "chest, one.png",
        map,
        "--output",
        "maps",
    ];
    let refused = cxr(folder.path(), &[&itself[..], &["--force"]].concat());
    assert!(
        stderr(&refused).contains("also read"),
        "{}",
        stderr(&refused)
    );
    let model = run.join("model.safetensors");
    let weights = std::fs::read(&model).unwrap();
    std::fs::copy(&model, folder.path().join("other.safetensors")).unwrap();
    let model = "models/runs/tiny/bce/model.safetensors";
    for (out, why) in [(model, "also read"), ("other.safetensors", "--force")] {
        let refused = cxr(folder.path(), &["backbone", model, "--out", out]);
        assert!(stderr(&refused).contains(why), "{}", stderr(&refused));
        assert!(std::fs::read(folder.path().join(out)).unwrap() == weights);
    }
    for _ in 0..2 {
        let made = cxr(
            folder.path(),
            &["backbone", model, "--out", "b.safetensors"],
        );
        assert!(made.status.success(), "{}", stderr(&made));
    }

    // Wrong usage says what would be right.
    for (arguments, code, expected) in [
        (&["explain", "models/runs/tiny/bce"][..], 2, "--data"),
        (
            &[
                "explain",
                "models/runs/tiny/bce",
                "broken.png",
                "--label",
                "Gout",
            ],
            1,
            "Cardiomegaly",
        ),
        (
            &[
                "explain",
                "models/runs/tiny/bce",
                "--data",
                "x",
                "--hot-share",
                "0",
            ],
            2,
            "above 0",
        ),
        (
            &["explain", "models/runs/tiny/bce", "--label", "Mass"],
            2,
            "IMAGE",
        ),
    ] {
        let output = cxr(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
}

/// From the model file alone, in every format, by every method.
#[test]
fn maps_are_written_in_every_format_at_the_radiographs_size() {
    let folder = trained();
    let folder = folder.path();
    let place = folder.join("elsewhere");
    std::fs::create_dir(&place).unwrap();
    std::fs::copy(
        folder.join("models/runs/tiny/bce/model.safetensors"),
        place.join("m.safetensors"),
    )
    .unwrap();
    let mut images: Vec<PathBuf> = std::fs::read_dir(folder.join("data/images"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    images.sort();
    std::fs::copy(&images[0], place.join("film.png")).unwrap();
    let methods = "grad-cam,grad-cam++,layer-cam,hires-cam";
    let explain = |more: &[&str]| {
        let fixed = [
            "explain",
            "m.safetensors",
            "film.png",
            "--label",
            "Mass,Hernia",
            "--output",
            "maps",
        ];
        cxr(&place, &[&fixed[..], more].concat())
    };
    let all = [
        "--method",
        methods,
        "--format",
        "png,npy,dicom-sc",
        "--grid",
    ];
    let output = explain(&all);
    assert!(output.status.success(), "{}", stderr(&output));
    let table = std::fs::read_to_string(place.join("maps/explanations.csv")).unwrap();
    // Two labels, four methods, three formats; the grid; the header.
    assert_eq!(table.lines().count(), 2 * 4 * 3 + 2, "{table}");
    assert_eq!(
        table.lines().next().unwrap(),
        "image,label,logit,predicted,map,method"
    );
    let maps = place.join("maps");
    for method in methods.split(',') {
        let file = |ending: &str| maps.join(format!("film.png-Mass-{method}.{ending}"));
        assert_eq!(size_of(&file("png")), (96, 96, 3));

        let npy = std::fs::read(file("npy")).unwrap();
        let header = u16::from_le_bytes([npy[8], npy[9]]) as usize;
        assert_eq!((10 + header) % 64, 0);
        let text = std::str::from_utf8(&npy[10..10 + header]).unwrap();
        assert_eq!(
            text.trim_end(),
            "{'descr': '<f4', 'fortran_order': False, 'shape': (96, 96), }"
        );
        let values: Vec<f32> = (npy[10 + header..].as_chunks::<4>().0.iter())
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect();
        assert_eq!(values.len(), 96 * 96);
        // The network sees the central 56 of 64 pixels: 84 of the radiograph's 96.
        let outside = |at: usize| !(6..90).contains(&(at / 96)) || !(6..90).contains(&(at % 96));
        assert!((0..values.len()).all(|at| values[at] >= 0. && (!outside(at) || values[at] == 0.)));

        let dicom = std::fs::read(file("dcm")).unwrap();
        assert_eq!(&dicom[128..132], b"DICM");
        let has = |text: &str| {
            dicom
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        };
        assert!(
            has("1.2.840.10008.5.1.4.1.1.7") && has("cxr explain") && has("DERIVED\\SECONDARY")
        );
        assert!(dicom.len() > 3 * 96 * 96);
    }
    // The methods say different things.
    let bytes =
        |method: &str| std::fs::read(maps.join(format!("film.png-Mass-{method}.npy"))).unwrap();
    assert_ne!(bytes("grad-cam"), bytes("layer-cam"));
    let (width, height, _) = size_of(&maps.join("film.png-grid.png"));
    assert!(width > 1000 && height > 1500, "{width}×{height}");

    // Again, over its own files; not over those of others.
    let before = bytes_of(&maps);
    let output = explain(&all);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(bytes_of(&maps), before);
    for (file, theirs) in [
        ("film.png-Mass-layer-cam.npy", "no matrix"),
        ("film.png-Hernia-grad-cam.dcm", "no DICOM"),
        ("film.png-grid.png", "no picture"),
    ] {
        let path = maps.join(file);
        let own = std::fs::read(&path).unwrap();
        std::fs::write(&path, theirs).unwrap();
        let output = explain(&all);
        assert_eq!(output.status.code(), Some(1), "{file}");
        assert!(stderr(&output).contains("--force"), "{}", stderr(&output));
        std::fs::write(&path, own).unwrap();
    }
    // One method and one format: files have the names of labels.
    let output = explain(&["--format", "npy"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(maps.join("film.png-Mass.npy").exists());
}
