//! What a command may put where a user names a file.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::FsError;
use crate::write::{Destination, destination};

/// The most that is read of a file to see who wrote it.
const BEGINNING: u64 = 1 << 16;

/// Whether a file that begins so is one of the program's own.
type Recognise<'a> = dyn Fn(&[u8]) -> bool + 'a;

/// A file whose name a user chose, looked at before the work for it begins.
///
/// It may be new, empty, a device, a pipe, or a file that the recogniser takes for one of the program's own. Anything
/// else is replaced only by `force`, and what the command reads never is, whatever its name: a hard link is the same file.
///
/// ```
/// let folder = tempfile::tempdir()?;
/// let [labels, notes, own, new] = ["labels", "notes", "own", "new"].map(|name| folder.path().join(name));
/// std::fs::write(&labels, "image,Mass\n")?;
/// std::fs::write(&notes, "do not lose these")?;
/// std::fs::write(&own, "{\"auc\": 0.5}")?;
/// let is_ours = |bytes: &[u8]| bytes.starts_with(b"{\"auc\"");
/// let output = |path| cxr_fs::Output::new(path).inputs([&labels]).ours(is_ours);
///
/// assert!(output(&new).check().is_ok());
/// assert!(output(&own).check().is_ok());
/// assert!(output(&notes).check().is_err());
/// assert!(output(&notes).force(true).check().is_ok());
/// assert!(output(&labels).force(true).check().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing is looked at before `check`"]
pub struct Output<'a> {
    path: &'a Path,
    inputs: Vec<PathBuf>,
    is_ours: Box<Recognise<'a>>,
    force: bool,
}

impl<'a> Output<'a> {
    /// An output at `path`, which so far may replace nothing.
    pub fn new(path: &'a Path) -> Self {
        Self {
            path,
            inputs: Vec::new(),
            is_ours: Box::new(|_| false),
            force: false,
        }
    }

    /// Adds files that the command reads.
    pub fn inputs<P: AsRef<Path>>(mut self, inputs: impl IntoIterator<Item = P>) -> Self {
        let inputs = inputs.into_iter().map(|path| path.as_ref().to_owned());
        self.inputs.extend(inputs);
        self
    }

    /// Sets how a file of the program's own is recognised by its first 64 KiB.
    pub fn ours(mut self, is_ours: impl Fn(&[u8]) -> bool + 'a) -> Self {
        self.is_ours = Box::new(is_ours);
        self
    }

    /// Lets the output replace a file that the program did not write.
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// Looks at what is there.
    ///
    /// Returns the path with its links followed, for what replaces files by their name.
    ///
    /// # Errors
    /// The output is an input, a folder, or a file that must not be replaced; or it cannot be looked at.
    pub fn check(self) -> Result<PathBuf, FsError> {
        let refused =
            |problem: String| Err(FsError::at("write", self.path)(io::Error::other(problem)));
        let (place, length) = match destination(self.path)? {
            Destination::Stream(place) => (place, None),
            Destination::File {
                place,
                before: None,
            } => return Ok(place),
            Destination::File {
                place,
                before: Some(before),
            } => (place, Some(before.len())),
        };
        if let Some(input) = self.inputs.iter().find(|input| is_same(input, &place)) {
            return refused(format!(
                "it is also read, as `{}`\nhint: name another file",
                input.display()
            ));
        }
        if length.is_none_or(|length| length == 0) || self.force {
            return Ok(place);
        }
        let mut beginning = Vec::new();
        File::open(&place)
            .and_then(|file| file.take(BEGINNING).read_to_end(&mut beginning))
            .map_err(FsError::at("read", self.path))?;
        if !(self.is_ours)(&beginning) {
            return refused(
                "it exists, and is no file of the kind that this command writes\nhint: name another file, or replace it with `--force`"
                    .to_owned(),
            );
        }
        Ok(place)
    }
}

/// Whether two paths lead to the same file, or pipe. A terminal may well be both read and written.
#[cfg(unix)]
fn is_same(first: &Path, second: &Path) -> bool {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    let (Ok(first), Ok(second)) = (std::fs::metadata(first), std::fs::metadata(second)) else {
        return false;
    };
    let is_device = first.file_type().is_char_device();
    !is_device && (first.dev(), first.ino()) == (second.dev(), second.ino())
}

/// Whether two paths lead to the same file.
#[cfg(not(unix))]
fn is_same(first: &Path, second: &Path) -> bool {
    match (first.canonicalize(), second.canonicalize()) {
        (Ok(first), Ok(second)) => first == second,
        _ => false,
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_no_output_under_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let [input, hard, soft] = ["in", "hard", "soft"].map(|name| folder.path().join(name));
        std::fs::write(&input, b"labels").unwrap();
        std::fs::hard_link(&input, &hard).unwrap();
        std::os::unix::fs::symlink("in", &soft).unwrap();
        let detour = folder.path().join("../").join(folder.path()).join("./in");
        for output in [&input, &hard, &soft, &detour] {
            let output = Output::new(output).inputs([&input]).ours(|_| true);
            let error = output.force(true).check().unwrap_err();
            assert!(error.source.to_string().contains("also read"), "{error:?}");
        }
        let other = folder.path().join("other");
        Output::new(&other).inputs([&input]).check().unwrap();
    }

    #[test]
    fn links_are_followed_to_what_would_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let [notes, link] = ["notes", "link"].map(|name| folder.path().join(name));
        std::fs::write(&notes, b"mine").unwrap();
        std::os::unix::fs::symlink("notes", &link).unwrap();
        assert!(Output::new(&link).check().is_err());
        assert!(Output::new(folder.path()).force(true).check().is_err());
        std::fs::write(&notes, b"").unwrap();
        Output::new(&link).check().unwrap();
    }

    #[test]
    fn a_device_may_be_written_to_and_even_read() {
        let null = Path::new("/dev/null");
        Output::new(null).inputs([null]).check().unwrap();
    }
}
