//! The walk over folders, and how its files are matched with names.

#![expect(clippy::unwrap_used, reason = "a test stops at what should not happen")]

use std::path::{Path, PathBuf};

use cxr_dataset::{ImageFiles, ImageName, Index, archived_paths};

mod common;

/// A PNG file's first bytes.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and so on";

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn find(&self, path: &str) -> ImageFiles {
        ImageFiles::find([self.path(path)]).unwrap()
    }
}

fn name(text: &str) -> ImageName {
    ImageName::new(text).unwrap()
}

fn relative(files: &ImageFiles) -> Vec<&str> {
    let names = files
        .files()
        .iter()
        .map(|file| file.relative().unwrap().as_str());
    names.collect()
}

fn reasons(files: &ImageFiles) -> Vec<(String, &'static str)> {
    let file_name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let named = files.passed_over().named().iter();
    named
        .map(|(path, reason)| (file_name(path), *reason))
        .collect()
}

/// dicompyler#5, chester-xray#26, Pillow#4807: by content where the name says nothing, and nothing uncounted.
#[test]
fn images_are_found_by_content_and_what_is_passed_over_is_named() {
    let place = Place::new();
    let mut dicom = vec![0; 128];
    dicom.extend(b"DICM and so on");
    place.write("scans/b.PNG", PNG);
    place.write("scans/IM000001", &dicom);
    place.write("scans/deep/er/IM2.ima", &dicom);
    place.write("scans/no extension", b"\xff\xd8\xff\xe0");
    place.write("scans/broken.png", b"no picture");
    place.write("scans/._b.PNG", PNG);
    place.write("scans/.DS_Store", b"x");
    place.write("scans/__MACOSX/a.png", PNG);
    place.write("scans/.git/a.png", PNG);
    place.write("scans/DICOMDIR", &dicom);
    place.write("scans/more.zip", b"PK\x03\x04");
    place.write("scans/readme.txt", b"text");
    let found = place.find("scans");
    assert_eq!(
        relative(&found),
        [
            "IM000001",
            "b.PNG",
            "broken.png",
            "deep/er/IM2.ima",
            "no extension"
        ]
    );
    assert_eq!((found.passed_over().count(), found.refused().len()), (7, 0));
    let reasons = reasons(&found);
    for (name, part) in [
        ("._b.PNG", "system"),
        (".DS_Store", "system"),
        ("__MACOSX", "system"),
        (".git", "hidden"),
        ("DICOMDIR", "system"),
        ("more.zip", "archive"),
        ("readme.txt", "no image"),
    ] {
        let found = reasons.iter().find(|(found, _)| found == name);
        assert!(found.unwrap().1.contains(part), "{reasons:?}");
    }
}

/// timm#334, fastai#2270: data sets are links to other disks as often as not.
#[cfg(unix)]
#[test]
fn links_are_followed_once_and_circles_end() {
    use std::os::unix::fs::symlink;

    let place = Place::new();
    place.write("disk/images/a.png", PNG);
    place.write("disk/images/sub/b.png", PNG);
    place.write("data/c.png", PNG);
    symlink(place.path("disk/images"), place.path("data/images")).unwrap();
    symlink(place.path("disk/images/a.png"), place.path("data/d.png")).unwrap();
    // Circles: to a folder above, to itself through another folder, and to nothing.
    symlink(place.path("data"), place.path("data/again")).unwrap();
    symlink("..", place.path("disk/images/sub/up")).unwrap();
    symlink(place.path("data/c.png.lost"), place.path("data/lost.png")).unwrap();
    symlink(place.path("data/lost"), place.path("data/lost.txt")).unwrap();
    symlink(place.path("disk/images/sub"), place.path("data/twice")).unwrap();
    let found = place.find("data");
    assert_eq!(
        relative(&found),
        ["c.png", "d.png", "images/a.png", "images/sub/b.png"]
    );
    let named: Vec<String> = reasons(&found).into_iter().map(|(name, _)| name).collect();
    assert_eq!(named, ["again", "lost.txt", "up", "twice"]);
    let [lost] = found.refused() else {
        panic!("{:?}", found.refused());
    };
    assert!(lost.path.ends_with("lost.png") && lost.reason.contains("nowhere"));
    // The root itself may be a link.
    symlink(place.path("data"), place.path("link")).unwrap();
    assert_eq!(place.find("link").files().len(), 4);
}

/// One bad name must not end the work on a folder.
#[cfg(unix)]
#[test]
fn bad_names_are_refused_one_by_one() {
    use std::os::unix::ffi::OsStrExt as _;

    let place = Place::new();
    place.write("scans/good.png", PNG);
    for bad in [
        " .png",
        "bell\u{7}.png",
        "a\u{202e}gnp.png",
        "C:x.png",
        "a\\b.png",
    ] {
        place.write(&format!("scans/{bad}"), PNG);
    }
    let not_utf8 = std::ffi::OsStr::from_bytes(b"caf\xe9.png");
    std::fs::write(place.path("scans").join(not_utf8), PNG).unwrap();
    let found = place.find("scans");
    assert_eq!(relative(&found), ["good.png"]);
    assert_eq!(found.refused().len(), 6);
    // A pipe is not opened, which would wait for ever.
    let made = std::process::Command::new("mkfifo")
        .arg(place.path("scans/pipe.png"))
        .status();
    if made.is_ok_and(|status| status.success()) {
        let found = place.find("scans");
        assert_eq!(reasons(&found), [("pipe.png".to_owned(), "no plain file")]);
    }
}

#[test]
fn names_are_file_names_unless_two_images_share_one() {
    let place = Place::new();
    place.write("a/p1/x.png", b"\x89PNG one");
    place.write("a/p2/y.png", b"\x89PNG two");
    // Kaggle's sample holds a second copy of itself.
    place.write("a/a/p1/x.png", b"\x89PNG one");
    let naming = place.find("a").name_all(&[]).unwrap();
    let names: Vec<&str> = naming.files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((names, naming.n_copies), (vec!["x.png", "y.png"], 1));
    assert_eq!(naming.shared_file_name, None);
    // CheXpert calls every image alike.
    place.write("a/p2/x.png", b"\x89PNG six");
    let naming = place.find("a").name_all(&[]).unwrap();
    let names: Vec<&str> = naming.files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a/p1/x.png", "p1/x.png", "p2/x.png", "p2/y.png"]);
    assert_eq!(naming.shared_file_name, Some(name("x.png")));
    // Two folders that were named may have one path.
    let both = ImageFiles::find([place.path("a/p1"), place.path("a/p2")]).unwrap();
    let error = both.name_all(&[]).unwrap_err().to_string();
    assert!(
        error.contains("p1/x.png") && error.contains("p2/x.png"),
        "{error}"
    );
    // An archive counts like a folder.
    let one = ImageFiles::find([place.path("a/p2/y.png")]).unwrap();
    let naming = one.name_all(&[name("images/z.png")]).unwrap();
    assert_eq!(naming.archived, [name("z.png")]);
    let naming = one.name_all(&[name("images/y.png")]).unwrap();
    assert_eq!(naming.archived, [name("images/y.png")]);
}

#[test]
fn a_name_finds_the_file_whose_path_ends_so() {
    let place = Place::new();
    place.write("set/train/p1/v.jpg", b"one");
    place.write("set/train/p2/v.jpg", b"two");
    place.write("set/train/p2/w.jpg", b"two");
    place.write("set/copy/w.jpg", b"two");
    place.write("set/p1/v.jpg", b"six");
    let files = place.find("set");
    let get = |text: &str| {
        let found = files.get(&name(text)).map_err(|error| error.to_string())?;
        Ok::<_, String>(
            found.map(|file| file.path().strip_prefix(place.0.path()).unwrap().to_owned()),
        )
    };
    let path = |text: &str| Ok(Some(PathBuf::from(text)));
    assert_eq!(get("train/p2/v.jpg"), path("set/train/p2/v.jpg"));
    // The folder that was named may be part of the name, and the path below it comes first.
    assert_eq!(get("set/train/p1/v.jpg"), path("set/train/p1/v.jpg"));
    assert_eq!(get("p1/v.jpg"), path("set/p1/v.jpg"));
    // Copies are one image, and different ones are not taken for one.
    assert_eq!(get("w.jpg"), path("set/copy/w.jpg"));
    assert!(get("v.jpg").unwrap_err().contains("differ"));
    // Whole folders, not ends of their names.
    assert_eq!(get("1/v.jpg"), Ok(None));
    assert_eq!(get("x.jpg"), Ok(None));
    // covid-chestxray-dataset#96: the table has no extension.
    for (asked, found) in [("w", "w.jpg"), ("W.JPG", "w.jpg"), ("w.png", "w.jpg")] {
        assert_eq!(
            files.similar(&name(asked)).unwrap().file_name().as_str(),
            found
        );
    }
    assert!(files.similar(&name("z.png")).is_none());
}

/// The folders of the public reports themselves.
#[test]
fn the_field_s_own_folders_are_read_whole() {
    let Some(data) = common::shared_data() else {
        return;
    };
    let field = data.join("field");
    let find = |folder: &str| ImageFiles::find([field.join(folder)]).unwrap();
    // A folder and an archive of a Mac give the same images.
    let images = find("appledouble/images");
    let archived = archived_paths(field.join("appledouble/mac.zip")).unwrap();
    let names = |names: &mut dyn Iterator<Item = &ImageName>| {
        let mut names: Vec<String> = names.map(|name| name.file_name().to_owned()).collect();
        names.sort();
        names
    };
    let in_folder = names(&mut images.files().iter().map(|file| file.file_name()));
    assert_eq!(in_folder, names(&mut archived.iter()));
    assert_eq!((in_folder.len(), images.passed_over().count()), (3, 4));
    // DICOM without an extension, or with another.
    assert_eq!(find("no-extension/one_named").files().len(), 3);
    assert!(!find("no-extension/DICOM").files().is_empty());
    // Every row has its file, from the folder of the table and from the one below.
    for (table, folders) in [
        (
            "chexpert/train.csv",
            &["chexpert", "chexpert/CheXpert-v1.0-small"][..],
        ),
        (
            "kaggle-sample/sample_labels.csv",
            &["kaggle-sample", "kaggle-sample/sample/images"],
        ),
    ] {
        let index = Index::read(field.join(table)).unwrap();
        for folder in folders {
            let files = find(folder);
            for record in index.records() {
                assert!(
                    files.get(&record.name).unwrap().is_some(),
                    "{folder}: {}",
                    record.name
                );
            }
        }
    }
    // Two images of one name are two.
    let naming = find("labels-as-file-names").name_all(&[]).unwrap();
    assert_eq!(naming.files.len(), 2);
    assert!(naming.shared_file_name.is_some());
}
