//! Writes a cohort as ChestX-ray14 is written.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use rayon::prelude::*;

use crate::layout::{self, Encoding};
use crate::{
    Cohort, Finding, Labels, Layout, List, ListSize, NUISANCE_QUESTIONS, PhantomConfig,
    PhantomError, Radiograph, Study,
};

/// Raised whenever the same configuration begins to give other bytes, so that no folder mixes two recipes.
const RECIPE: u32 = 2;

/// Says what the folder is and of which configuration; written first, compared on every later call.
const MARKER: &str = "PHANTOMS.txt";

/// How a marker begins, of every recipe.
const NOTICE: &str =
    "These chest X-rays are synthetic: drawn by cxr-phantom, of nobody, for testing software only.";
/// No marker is longer.
const MAX_MARKER: u64 = 1 << 16;

const IMAGE_FOLDER: &str = "images";
const LABEL_FILE: &str = "Data_Entry_2017_v2020.csv";
/// The label table where the labels are not findings: a user's own table.
const NUISANCE_FILE: &str = "labels.csv";
const BOX_FILE: &str = "BBox_List_2017.csv";

/// All lists and tables that a set may have.
const TABLES: [&str; 5] = [
    LABEL_FILE,
    NUISANCE_FILE,
    BOX_FILE,
    List::TrainVal.file_name(),
    List::Test.file_name(),
];

/// The original's header: the brackets are not quoted, so that its nine names look like eleven.
const LABEL_HEADER: &str = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,\
                            View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]";
const BOX_HEADER: &str = "Image Index,Finding Label,Bbox [x,y,w,h],,,";

/// Side that the list of boxes counts in, whatever the side of the images.
const BOX_SIDE: usize = 1024;

/// How far the writing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Images that are complete in the folder.
    pub written: usize,
    /// Images of the data set.
    pub images: usize,
}

/// What a finished folder holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Images of the data set.
    pub images: usize,
    /// Those of them that an earlier call had written.
    pub already_there: usize,
    /// Patients of both lists.
    pub patients: usize,
    /// Images with each finding in `train_val_list.txt`, in the order of [`Finding::ALL`].
    pub train_val_positives: [usize; Finding::COUNT],
    /// The same in `test_list.txt`.
    pub test_positives: [usize; Finding::COUNT],
    /// Rows of `BBox_List_2017.csv`.
    pub boxes: usize,
}

/// Writes the phantoms of `config` into `folder`: `images/PPPPPPPP_FFF.png`, `Data_Entry_2017_v2020.csv`,
/// `train_val_list.txt`, `test_list.txt` and `BBox_List_2017.csv`, each as ChestX-ray14 writes it, and
/// `PHANTOMS.txt`, which says that they are synthetic and of which configuration. Phantoms whose labels are
/// [`Labels::Nuisance`] have `labels.csv` in place of the two tables. With another [`Layout`] they are written in the
/// files of that data set.
///
/// The images are drawn on rayon's current threads; their bytes do not depend on how many there are. Every
/// file appears under its name only when it is complete. No other process may write the same folder meanwhile. `observer` hears of every image, on the thread
/// that drew it. When `stop` becomes true no further image is begun; a later call with the same
/// configuration and folder draws only what is missing, and the label file comes last.
///
/// The boxes are those of test images whose finding is both recorded and drawn, in 1024-pixel coordinates
/// whatever the side, for the eight findings that the original marks.
///
/// # Errors
/// [`PhantomError::FolderInUse`] if the folder holds anything but phantoms of this configuration,
/// [`PhantomError::Interrupted`] after `stop`, [`PhantomError::File`] or [`PhantomError::Encode`] if a
/// file cannot be written.
pub fn write_dataset(
    config: &PhantomConfig,
    folder: &Path,
    observer: &(dyn Fn(Progress) + Sync),
    stop: &AtomicBool,
) -> Result<Summary, PhantomError> {
    let cohort = Cohort::plan(config);
    let images = cohort.studies().len();
    let paths = layout::image_paths(config, &cohort);
    let below = folders(paths.iter().map(String::as_str));
    claim(config, folder, &below)?;
    for below in &below {
        create_folder(&folder.join(below))?;
    }
    let encoding = config.layout().encoding();

    let written = AtomicUsize::new(0);
    let already_there = AtomicUsize::new(0);
    let drawn = cohort.studies().par_iter().zip(&paths);
    drawn.try_for_each(|(study, path)| {
        let interrupted = || PhantomError::Interrupted {
            written: written.load(Ordering::Relaxed),
            images,
        };
        let path = folder.join(path);
        if path.exists() {
            already_there.fetch_add(1, Ordering::Relaxed);
        } else if stop.load(Ordering::Relaxed) {
            return Err(interrupted());
        } else {
            let radiograph = study.render(config.side());
            cxr_fs::write_unsynced(
                &path,
                &encode(&radiograph, encoding, study.is_rgba(), &path)?,
            )?;
        }
        let written = written.fetch_add(1, Ordering::Relaxed) + 1;
        observer(Progress { written, images });
        Ok(())
    })?;

    for (name, text) in tables(config, &cohort) {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            create_folder(parent)?;
        }
        cxr_fs::write(&path, text.as_bytes())?;
    }
    let (_, boxes) = box_text(&cohort);
    Ok(Summary {
        images,
        already_there: already_there.into_inner(),
        patients: cohort.patients(),
        train_val_positives: cohort.positives(List::TrainVal),
        test_positives: cohort.positives(List::Test),
        boxes,
    })
}

/// The lists and tables of a set with their text, in the order in which they are written: the label table last.
fn tables(config: &PhantomConfig, cohort: &Cohort) -> Vec<(&'static str, String)> {
    if config.layout() != Layout::ChestXRay14 {
        return layout::tables(config, cohort);
    }
    let lists = [List::TrainVal, List::Test];
    let mut tables = Vec::from(lists.map(|list| (list.file_name(), list_text(cohort, list))));
    match config.labels() {
        Labels::Findings => {
            tables.push((BOX_FILE, box_text(cohort).0));
            tables.push((LABEL_FILE, label_text(cohort)));
        }
        Labels::Nuisance => tables.push((NUISANCE_FILE, nuisance_text(cohort))),
    }
    tables
}

/// Removes a set of phantoms, whatever its configuration, with its folder. A folder that does not exist, is empty or has no
/// `PHANTOMS.txt` of ours is left as it is. Returns whether there were phantoms.
///
/// The set is what [`write_dataset`] writes for the configuration that the folder's `PHANTOMS.txt` names: tables with
/// just these bytes, and images with just these names. Of another version's set only the names of its files are
/// known. Nothing is removed through a link.
///
/// # Errors
/// [`PhantomError::NotOnlyPhantoms`], before anything is removed, if the folder holds anything else;
/// [`PhantomError::File`] if a file cannot be read or removed; the next call goes on from there.
pub fn remove_dataset(folder: &Path) -> Result<bool, PhantomError> {
    let marker = folder.join(MARKER);
    if !is_plain_file(&marker) {
        return Ok(false);
    }
    let described = cxr_fs::read_text(&marker, MAX_MARKER)?;
    if !described.starts_with(NOTICE) {
        return Ok(false);
    }
    let set = PhantomSet::described(&described);
    let folders = set.check(folder)?;

    for name in TABLES.iter().chain(&layout::TABLES) {
        remove(&folder.join(name))?;
    }
    // The deepest first.
    for below in folders.iter().rev() {
        let path = folder.join(below);
        cxr_fs::remove_unfinished(&path)?;
        for name in names(&path)? {
            remove(&path.join(name))?;
        }
        fs::remove_dir(&path).map_err(|source| file_error("remove", &path, source))?;
    }
    cxr_fs::remove_unfinished(folder)?;
    // Last, so that what a call leaves that was ended before is known for what it is.
    remove(&marker)?;
    fs::remove_dir(folder).map_err(|source| file_error("remove", folder, source))?;
    Ok(true)
}

/// The folders above some paths, the deeper ones behind those that hold them.
fn folders<'a>(paths: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut folders = BTreeSet::new();
    for path in paths {
        for (at, _) in path.match_indices('/') {
            folders.insert(path.get(..at).unwrap_or_default().to_owned());
        }
    }
    folders.into_iter().collect()
}

/// The files of a set of phantoms beside its marker.
struct PhantomSet {
    /// By name; `None` where the bytes are not known.
    tables: BTreeMap<&'static str, Option<String>>,
    /// By path below the folder; `None` where only their form is known.
    images: Option<HashSet<String>>,
    /// The folders of both.
    folders: HashSet<String>,
}

impl PhantomSet {
    /// Of a marker's text.
    fn described(text: &str) -> Self {
        let config = parse_marker(text).filter(|config| marker_text(config) == text);
        let Some(config) = config else {
            return Self {
                tables: TABLES.map(|name| (name, None)).into(),
                images: None,
                folders: HashSet::from([IMAGE_FOLDER.to_owned()]),
            };
        };
        let cohort = Cohort::plan(&config);
        let tables = tables(&config, &cohort);
        let images = layout::image_paths(&config, &cohort);
        let paths = images.iter().map(String::as_str);
        Self {
            folders: folders(paths.chain(tables.iter().map(|(name, _)| *name)))
                .into_iter()
                .collect(),
            tables: tables
                .into_iter()
                .map(|(name, text)| (name, Some(text)))
                .collect(),
            images: Some(images.into_iter().collect()),
        }
    }

    /// Makes sure that a folder holds nothing but the set, or a part of it. Returns the folders in it, the deeper ones
    /// behind those that hold them.
    fn check(&self, folder: &Path) -> Result<Vec<String>, PhantomError> {
        let mut found = Vec::new();
        let mut to_read = vec![String::new()];
        while let Some(below) = to_read.pop() {
            for name in names(&folder.join(&below))? {
                let path = folder.join(&below).join(&name);
                let relative = name.to_str().map(|name| match below.as_str() {
                    "" => name.to_owned(),
                    below => format!("{below}/{name}"),
                });
                let is_ours =
                    relative
                        .as_ref()
                        .is_some_and(|relative| match is_plain_folder(&path) {
                            true => self.folders.contains(relative),
                            false => is_plain_file(&path) && self.has(relative, &path),
                        });
                match relative {
                    Some(relative) if is_ours => {
                        if is_plain_folder(&path) {
                            found.push(relative.clone());
                            to_read.push(relative);
                        }
                    }
                    _ => {
                        return Err(PhantomError::NotOnlyPhantoms {
                            folder: folder.to_path_buf(),
                            found: path,
                        });
                    }
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Whether a plain file is one of the set, or the beginning of one.
    fn has(&self, relative: &str, path: &Path) -> bool {
        if relative == MARKER || cxr_fs::is_unfinished(path) {
            return true;
        }
        match self.tables.get(relative) {
            Some(None) => return true,
            Some(Some(text)) => {
                let found = cxr_fs::read_regular(path, text.len() as u64);
                return found.is_ok_and(|found| found == text.as_bytes());
            }
            None => {}
        }
        match &self.images {
            Some(images) => images.contains(relative),
            None => relative
                .strip_prefix(IMAGE_FOLDER)
                .and_then(|name| name.strip_prefix('/'))
                .is_some_and(is_image_name),
        }
    }
}

/// Whether it is a file, and no link to one.
fn is_plain_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file())
}

/// Whether it is a folder, and no link to one.
fn is_plain_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// Is it `PPPPPPPP_FFF.png`?
fn is_image_name(name: &str) -> bool {
    let digits =
        |text: &str, count| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    let parts = name
        .strip_suffix(".png")
        .and_then(|stem| stem.split_once('_'));
    parts.is_some_and(|(patient, number)| digits(patient, 8) && digits(number, 3))
}

/// The names in a folder, sorted; none where there is no folder.
fn names(folder: &Path) -> Result<Vec<OsString>, PhantomError> {
    let unreadable = |source| file_error("list", folder, source);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(unreadable)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(unreadable)?;
        names.push(entry.file_name());
    }
    names.sort_unstable();
    Ok(names)
}

/// Marks an empty folder as this configuration's, or finds that it is already.
fn claim(config: &PhantomConfig, folder: &Path, below: &[String]) -> Result<(), PhantomError> {
    create_folder(folder)?;
    // What a process that was killed has left.
    cxr_fs::remove_unfinished(folder)?;
    for below in below {
        if is_plain_folder(&folder.join(below)) {
            cxr_fs::remove_unfinished(&folder.join(below))?;
        }
    }
    let marker = folder.join(MARKER);
    let ours = marker_text(config);
    match fs::read_to_string(&marker) {
        Ok(found) if found == ours => Ok(()),
        Ok(_) => Err(PhantomError::FolderInUse {
            folder: folder.to_path_buf(),
            found: "phantoms of another configuration".to_owned(),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            match names(folder)?.first() {
                None => Ok(cxr_fs::write(&marker, ours.as_bytes())?),
                Some(name) => Err(PhantomError::FolderInUse {
                    folder: folder.to_path_buf(),
                    found: format!("`{}`", name.to_string_lossy()),
                }),
            }
        }
        Err(source) => Err(file_error("read", &marker, source)),
    }
}

fn marker_text(config: &PhantomConfig) -> String {
    let [train_val, test] = [List::TrainVal, List::Test].map(|list| config.list(list));
    let labels = match config.labels() {
        Labels::Findings => "",
        Labels::Nuisance => "labels: how the images were taken; no image shows a finding\n",
    };
    format!(
        "{NOTICE}\n\
         Their files have the form of {}.\n\
         recipe {RECIPE}\n\
         seed {}\n\
         side {}\n\
         train_val: {} images, at least {} positives per finding\n\
         test: {} images, at least {} positives per finding\n\
         {labels}",
        config.layout().title(),
        config.seed(),
        config.side(),
        train_val.images,
        train_val.least_positives,
        test.images,
        test.least_positives,
    )
}

/// The configuration that a marker of this recipe describes.
fn parse_marker(text: &str) -> Option<PhantomConfig> {
    let after = |prefix: &str| text.lines().find_map(|line| line.strip_prefix(prefix));
    if after("recipe ")?.parse() != Ok(RECIPE) {
        return None;
    }
    let size = |list: &str| {
        let (images, rest) = after(list)?.split_once(" images, at least ")?;
        let least_positives = rest.strip_suffix(" positives per finding")?;
        Some(ListSize {
            images: images.parse().ok()?,
            least_positives: least_positives.parse().ok()?,
        })
    };
    let seed = after("seed ")?.parse().ok()?;
    let side = after("side ")?.parse().ok()?;
    let (train_val, test) = (size("train_val: ")?, size("test: ")?);
    let config = match after("labels: ") {
        None => PhantomConfig::new(seed, train_val, test),
        Some(_) => PhantomConfig::of_nuisance(seed, train_val.images, test.images),
    };
    let form = after("Their files have the form of ")?.strip_suffix('.')?;
    let layout = (Layout::ALL.into_iter()).find(|layout| layout.title() == form)?;
    config.ok()?.with_side(side).ok()?.with_layout(layout).ok()
}

/// The image's bytes; a PNG is fast to write and about as large as the originals.
fn encode(
    radiograph: &Radiograph,
    encoding: Encoding,
    rgba: bool,
    path: &Path,
) -> Result<Vec<u8>, PhantomError> {
    let side = radiograph.side() as u32;
    let grey = radiograph.pixels();
    let mut bytes = Vec::new();
    let encoded = match encoding {
        Encoding::Jpeg => JpegEncoder::new_with_quality(&mut bytes, 90).write_image(
            grey,
            side,
            side,
            ExtendedColorType::L8,
        ),
        Encoding::AsDrawn | Encoding::Grey | Encoding::Deep => {
            let (pixels, color) = match encoding {
                Encoding::AsDrawn if rgba => {
                    let pixels = grey.iter().flat_map(|&grey| [grey, grey, grey, 255]);
                    (pixels.collect(), ExtendedColorType::Rgba8)
                }
                Encoding::Deep => {
                    let pixels = grey.iter().map(|&grey| u16::from(grey) * 257);
                    let pixels = pixels.flat_map(u16::to_ne_bytes);
                    (pixels.collect(), ExtendedColorType::L16)
                }
                _ => (grey.to_vec(), ExtendedColorType::L8),
            };
            let (compression, filter) = (CompressionType::Fast, FilterType::Sub);
            PngEncoder::new_with_quality(&mut bytes, compression, filter)
                .write_image(&pixels, side, side, color)
        }
    };
    encoded.map_err(|source| PhantomError::Encode {
        path: path.to_path_buf(),
        source,
    })?;
    Ok(bytes)
}

fn label_text(cohort: &Cohort) -> String {
    let mut text = format!("{LABEL_HEADER}\n");
    for study in cohort.studies() {
        let original = study.original();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{},{},{},{},{},{},{},{},{},{},{}",
            study.file_name(),
            study.labels(),
            study.follow_up(),
            study.patient_id(),
            study.age(),
            study.sex().code(),
            study.nuisance().view.code(),
            original.width,
            original.height,
            original.spacing,
            original.spacing,
        );
    }
    text
}

/// A user's own table: image, patient, and for each question 1 (yes) or 0 (no).
fn nuisance_text(cohort: &Cohort) -> String {
    let mut text = format!("Image Index,Patient ID,{}\n", NUISANCE_QUESTIONS.join(","));
    for study in cohort.studies() {
        let _ = write!(text, "{},{}", study.file_name(), study.patient_id());
        for answer in study.nuisance_answers() {
            text.push_str(if answer { ",1" } else { ",0" });
        }
        text.push('\n');
    }
    text
}

/// The names of a list, without a newline after the last.
fn list_text(cohort: &Cohort, list: List) -> String {
    let names: Vec<&str> = cohort
        .studies()
        .iter()
        .filter(|study| study.list() == list)
        .map(Study::file_name)
        .collect();
    names.join("\n")
}

/// The list of boxes, by finding as in the original, and how many there are.
fn box_text(cohort: &Cohort) -> (String, usize) {
    let mut text = format!("{BOX_HEADER}\n");
    let mut boxes = 0;
    for finding in Finding::ALL {
        let Some(name) = finding.box_name() else {
            continue;
        };
        let marked = cohort.studies().iter().filter(|study| {
            study.list() == List::Test
                && study.labels().contains(finding)
                && study.shown().contains(finding)
        });
        for study in marked {
            for marked in study.boxes(BOX_SIDE) {
                if marked.finding == finding {
                    boxes += 1;
                    let (x, y) = (marked.x, marked.y);
                    let (width, height) = (marked.width, marked.height);
                    let _ = writeln!(
                        text,
                        "{},{name},{x},{y},{width},{height}",
                        study.file_name()
                    );
                }
            }
        }
    }
    (text, boxes)
}

fn create_folder(folder: &Path) -> Result<(), PhantomError> {
    fs::create_dir_all(folder).map_err(|source| file_error("create", folder, source))
}

/// Removes a file that may not be there.
fn remove(path: &Path) -> Result<(), PhantomError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(file_error("remove", path, error))
        }
        _ => Ok(()),
    }
}

fn file_error(action: &'static str, path: &Path, source: std::io::Error) -> PhantomError {
    PhantomError::File {
        action,
        path: path.to_path_buf(),
        source,
    }
}
