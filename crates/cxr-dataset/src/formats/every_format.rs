//! What every format withstands: names that leave the folder of the images, or are another's in another spelling.
//!
//! A new format gives its [`Example`]s, and is tested here with them.

use std::io::Write as _;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use super::{Example, FORMATS};
use crate::{DatasetError, Index};

/// Every example of every format, with its name.
fn examples() -> impl Iterator<Item = (&'static str, &'static Example)> {
    FORMATS.iter().flat_map(|format| {
        let examples = format.examples();
        assert!(!examples.is_empty(), "{}", format.name());
        examples.iter().map(|example| (format.name(), example))
    })
}

impl Example {
    /// The table with images of these names.
    fn table(&self, names: &[&str]) -> String {
        let rows = names.iter().map(|name| self.row.replace('@', name) + "\n");
        format!("{}\n{}", self.header, rows.collect::<String>())
    }
}

/// A folder with one table.
struct Folder(TempDir);

impl Folder {
    fn of(table: impl AsRef<[u8]>) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        std::fs::write(folder.table(), table).unwrap();
        folder
    }

    fn table(&self) -> PathBuf {
        self.0.path().join("table.csv")
    }

    fn read(&self) -> Result<Index, DatasetError> {
        Index::read(self.table())
    }
}

/// Reads a table whose third line is wrong, and which says so.
#[track_caller]
fn refused(what: &str, table: &str) -> String {
    let Err(error) = Folder::of(table).read() else {
        panic!("{what} is taken");
    };
    assert!(
        matches!(error, DatasetError::Line { line: 3, .. }),
        "{what}: {error}"
    );
    error.to_string()
}

#[test]
fn examples_are_read_as_their_format_however_they_are_written() {
    for (format, example) in examples() {
        let text = example.table(&example.names);
        let index = Folder::of(&text).read().unwrap();
        assert_eq!(index.records().len(), 2, "{format}: {}", example.header);
        let release = index.release().name();
        let is_it = match format {
            "own" => release == "user-table",
            format => release.starts_with(format),
        };
        assert!(is_it, "{format}: {release}");
        // With lines that end as on Windows but for the last, which has no end, and in gzip.
        let text = text.replace('\n', "\r\n");
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.trim_end().as_bytes()).unwrap();
        let again = Folder::of(encoder.finish().unwrap()).read().unwrap();
        assert_eq!(again.fingerprint(), index.fingerprint(), "{format}");
    }
}

#[test]
fn no_name_of_any_table_leaves_the_folder_of_the_images() {
    for (format, example) in examples() {
        let [first, good] = example.names;
        for (bad, is_drive) in [
            (format!("../{good}"), false),
            (format!("../../../../../../etc/{good}"), false),
            (format!("a/../../{good}"), false),
            (format!("/{good}"), false),
            (format!("//{good}"), false),
            (format!("./{good}"), false),
            (format!("{good}/.."), false),
            (format!("{good}/"), false),
            (format!("..\\{good}"), false),
            (format!("C:\\{good}"), false),
            (format!("C:/{good}"), true),
            (format!("~/\u{202e}{good}"), false),
            (format!("{good}\u{0}"), false),
            (String::new(), false),
        ] {
            // PadChest's images are in numbered folders: what follows is no drive.
            if is_drive && format == "padchest" {
                continue;
            }
            let table = example.table(&[first, &bad]);
            let error = refused(&format!("{format} {bad:?}"), &table);
            assert!(error.contains("line 3"), "{format} {bad:?}: {error}");
        }
    }
}

#[test]
fn two_spellings_of_one_image_are_an_error_in_every_table() {
    for (format, example) in examples() {
        let [first, _] = example.names;
        let second = match first.rfind('/') {
            Some(at) => first[..=at].to_owned() + &first[at + 1..].to_uppercase(),
            None => first.to_uppercase(),
        };
        assert_ne!(first, second);
        let error = refused(format, &example.table(&[first, &second]));
        assert!(error.contains("two spellings"), "{format}: {error}");
    }
}

/// A link among tables is read as the file that it is to; one to nowhere, or to a folder above, is nothing to read.
#[cfg(unix)]
#[test]
fn links_among_tables_are_read_as_what_they_lead_to() {
    use std::os::unix::fs::symlink;
    for (format, example) in examples() {
        let real = Folder::of(example.table(&example.names));
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("data");
        std::fs::create_dir(&folder).unwrap();
        let linked = folder.join("a.csv");
        symlink(real.table(), &linked).unwrap();
        symlink("nowhere.csv", folder.join("b.csv")).unwrap();
        symlink("..", folder.join("up")).unwrap();
        let index = Index::read(&folder).unwrap();
        assert_eq!(index.records().len(), 2, "{format}");
        assert_eq!(index.tables(), [linked], "{format}");
    }
}
