//! Which heat map goes where: no name leaves the output folder, and no two maps have one.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use anyhow::bail;
use cxr_dataset::ImageFiles;
use cxr_fs::FileName;

/// The table beside the maps.
pub(super) const TABLE: &str = "explanations.csv";

/// An image and the folder of its maps.
pub(super) struct Target {
    pub(super) image: PathBuf,
    /// The folders below the output folder.
    folders: Vec<FileName>,
    /// Its file name as text.
    name: String,
}

impl Target {
    /// Where the map called `label` goes, in a file with this ending, below the output folder: as a path, and as text
    /// with `/`.
    pub(super) fn map(&self, label: &str, ending: &str) -> (PathBuf, String) {
        let file = FileName::from_text(&format!("{}-{label}", self.name)).with_suffix(ending);
        let parts = || self.folders.iter().chain([&file]);
        let text: Vec<&str> = parts().map(FileName::as_str).collect();
        (parts().collect(), text.join("/"))
    }
}

/// The images with the places of their maps. Images of a folder have their maps in the same folders below the output
/// folder, other images have theirs in the output folder itself; where two images would have one place, all have
/// theirs in the folders of their paths.
///
/// # Errors
/// Two maps that would have one name, also where only case tells them apart, as some file systems ignore it.
pub(super) fn targets(
    found: &ImageFiles,
    output: &Path,
    labels: &[&str],
) -> anyhow::Result<Vec<Target>> {
    // Maps of an earlier call are no images, should they lie below the images' folder.
    let output = std::path::absolute(output)?;
    let earlier = earlier_maps(&output);
    let is_map = |image: &Path| {
        let image = std::path::absolute(image).unwrap_or_default();
        let below = image.strip_prefix(&output);
        below.is_ok_and(|below| earlier.contains(&below.to_string_lossy().replace('\\', "/")))
    };
    let mut seen = HashSet::new();
    let files: Vec<_> = (found.files().iter())
        .filter(|file| !is_map(file.path()))
        // A file that is named twice is explained once.
        .filter(|file| seen.insert(std::path::absolute(file.path()).unwrap_or_default()))
        .collect();
    let below_root: Option<Vec<Target>> = (files.iter())
        .map(|file| {
            let parts: Vec<&str> = file.relative()?.parts().collect();
            let (name, folders) = parts.split_last()?;
            Some(Target {
                image: file.path().to_owned(),
                folders: folders
                    .iter()
                    .map(|folder| FileName::from_text(folder))
                    .collect(),
                name: (*name).to_owned(),
            })
        })
        .collect();
    if let Some(targets) = below_root
        && shared(&targets, labels).is_none()
    {
        return Ok(targets);
    }
    let by_path: Vec<Target> = (files.iter())
        .map(|file| Target {
            image: file.path().to_owned(),
            folders: folders_of(file.path()),
            name: file.file_name().to_string(),
        })
        .collect();
    match shared(&by_path, labels) {
        None => Ok(by_path),
        Some((map, first, second)) => bail!(
            "two heat maps would be `{map}`: those of {first} and of {second}\nhint: explain one of them with another `--output`, or one label at a time with `--label`"
        ),
    }
}

/// The maps that the table of an earlier call lists. Their names are compared, and never opened.
pub(super) fn earlier_maps(output: &Path) -> HashSet<String> {
    let Ok(table) = cxr_table::Table::read(output.join(TABLE)) else {
        return HashSet::new();
    };
    let Some(column) = table.header().iter().position(|name| name == "map") else {
        return HashSet::new();
    };
    let maps = table.rows().iter().map(|row| row.cell(column).to_owned());
    maps.collect()
}

/// The folders of a path, whatever they are called, as names.
fn folders_of(path: &Path) -> Vec<FileName> {
    let folders = path.parent().into_iter().flat_map(Path::components);
    let names = folders.filter_map(|component| match component {
        Component::Normal(folder) => Some(FileName::from_text(&folder.to_string_lossy())),
        Component::ParentDir => Some(FileName::from_text("..")),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    });
    names.collect()
}

/// A path that two maps would have, or a map and a folder or the table, and what they are of.
fn shared(targets: &[Target], labels: &[&str]) -> Option<(String, String, String)> {
    let about = |target: &Target, label: &str| format!("`{label}` on `{}`", target.image.display());
    let mut folders = HashMap::new();
    for target in targets {
        let mut path = String::new();
        for folder in &target.folders {
            path += &folder.as_str().to_lowercase();
            folders.entry(path.clone()).or_insert(target);
            path.push('/');
        }
    }
    if let Some(target) = folders.get(TABLE) {
        let image = format!("`{}`", target.image.display());
        return Some((TABLE.to_owned(), image, "the table of all maps".to_owned()));
    }
    let mut maps: HashMap<String, (&Target, &str)> = HashMap::new();
    for target in targets {
        for label in labels {
            // Of all formats those of one name share it.
            let (_, map) = target.map(label, ".png");
            let key = map.to_lowercase();
            if let Some(other) = folders.get(&key) {
                let folder = format!("a folder of `{}`", other.image.display());
                return Some((map, about(target, label), folder));
            }
            if let Some((other, other_label)) = maps.insert(key, (target, label)) {
                return Some((map, about(other, other_label), about(target, label)));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Files below a folder, and where the maps of the labels go.
    fn maps(files: &[&str], sources: &[&str], labels: &[&str]) -> Result<Vec<String>, String> {
        let place = tempfile::tempdir().unwrap();
        for file in files {
            let path = place.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"\x89PNG\r\n\x1a\n").unwrap();
        }
        let found =
            ImageFiles::find(sources.iter().map(|source| place.path().join(source))).unwrap();
        let targets = targets(&found, &place.path().join("maps"), labels);
        let targets = targets.map_err(|error| error.to_string())?;
        let maps = targets
            .iter()
            .flat_map(|target| labels.iter().map(|label| target.map(label, ".png").1));
        Ok(maps.collect())
    }

    /// STAMP#176, nipoppy#694: labels and equal names became paths.
    #[test]
    fn maps_are_named_after_image_and_label() {
        let labels = ["Mass", "Nodule/Mass", "x/../../../escaped"];
        let names = [
            "a.png-Mass.png",
            "a.png-Nodule%2FMass.png",
            "a.png-x%2F..%2F..%2F..%2Fescaped.png",
        ];
        assert_eq!(maps(&["in/a.png"], &["in"], &labels).unwrap(), names);
        assert_eq!(
            maps(&["in/a.png"], &["in/a.png", "in/a.png", "in"], &labels).unwrap(),
            names
        );
        let deep = maps(
            &["in/p1/a.png", "in/p2/a.png", "in/b.png"],
            &["in"],
            &["Mass"],
        );
        assert_eq!(
            deep.unwrap(),
            ["b.png-Mass.png", "p1/a.png-Mass.png", "p2/a.png-Mass.png"]
        );
    }

    #[test]
    fn equal_names_have_folders_of_their_own() {
        let files = ["p1/s/a.png", "p2/s/a.png"];
        let found = maps(&files, &files, &["Mass"]).unwrap();
        let ends = found
            .iter()
            .zip(["p1/s/a.png-Mass.png", "p2/s/a.png-Mass.png"]);
        assert!(
            ends.clone()
                .all(|(map, end)| map.ends_with(end) && map.len() > end.len()),
            "{found:?}"
        );
        // The table beside the maps is no folder of theirs.
        let found = maps(&["in/explanations.csv/a.png"], &["in"], &["Mass"]).unwrap();
        assert!(
            found[0].ends_with("in/explanations.csv/a.png-Mass.png"),
            "{found:?}"
        );
        let found = maps(&files, &["p1", "p2"], &["Mass"]).unwrap();
        assert_eq!(found.iter().collect::<HashSet<_>>().len(), 2);
    }

    #[test]
    fn what_would_have_one_name_is_an_error() {
        for (files, labels) in [
            (&["in/a.png"][..], &["Mass", "mass"][..]),
            // Case alone does not tell files apart everywhere.
            (&["in/a.png", "in/A.png"], &["Mass"]),
            // Where the name of the image ends shows nowhere.
            (&["in/a", "in/a-b"], &["b-c", "c"]),
            (&["in/a.png", "in/a.png-Mass.png/b.png"], &["Mass"]),
        ] {
            let error = maps(files, &["in"], labels).unwrap_err();
            assert!(error.contains("would be"), "{files:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_label_and_no_name_leaves_the_output_folder(
            label in "[a./\\\\:~ \\u{202e}\0]{0,12}|.{0,300}|(CON|nul|COM1|aux)(\\.x)?",
            name in "[a./\\\\:~ \\u{202e}\0]{1,12}|.{1,300}",
            folders in prop::collection::vec("\\.\\.|/|C:|[a-c]{1,3}|.{0,9}", 0..3),
        ) {
            let target = Target {
                image: PathBuf::new(),
                folders: folders.iter().map(|folder| FileName::from_text(folder)).collect(),
                name,
            };
            let (path, text) = target.map(&label, ".png");
            let is_normal = |part: Component<'_>| matches!(part, Component::Normal(_));
            prop_assert!(path.components().all(is_normal));
            prop_assert_eq!(path.components().count(), folders.len() + 1);
            prop_assert!(path.components().all(|part| part.as_os_str().len() <= 255));
            let has_hostile = text.contains(['\\', '\0', ':', '\u{202e}']);
            prop_assert!(!has_hostile, "{}", text);
        }
    }
}
