use std::path::PathBuf;

/// What can go wrong when phantoms are planned or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PhantomError {
    /// Phantoms that are labelled with how they were taken, in the files of a data set of findings.
    #[error(
        "{layout} has tables of findings, and these phantoms are labelled with how they were taken"
    )]
    Layout {
        /// The data set.
        layout: &'static str,
    },
    /// The side is too small for a chest to be seen, or too large to be meant.
    #[error("expected a side of {least} to {most} pixels, got {got}")]
    Side {
        /// Smallest side that is drawn.
        least: usize,
        /// Largest side that is drawn.
        most: usize,
        /// The side that was asked for.
        got: usize,
    },

    /// A list is too short to hold enough positives of every finding.
    #[error(
        "expected at least {least} images in `{list}` so that each of the {findings} findings has \
         {positives} positives, got {got}"
    )]
    TooFewImages {
        /// The list: `train_val_list.txt` or `test_list.txt`.
        list: &'static str,
        /// Least number of images that can hold them.
        least: usize,
        /// How many findings there are.
        findings: usize,
        /// Positives that every finding is to have.
        positives: usize,
        /// Images that were asked for.
        got: usize,
    },

    /// More images than the eight digits of a patient number can name.
    #[error("expected at most {most} images, got {got}")]
    TooManyImages {
        /// Most images of one data set.
        most: usize,
        /// Images that were asked for.
        got: usize,
    },

    /// The folder holds something else, which is left as it is.
    #[error(
        "expected `{}` to be empty or to hold the phantoms of this configuration, found {found}; \
         hint: choose another folder or remove this one",
        folder.display()
    )]
    FolderInUse {
        /// The folder that was to be written.
        folder: PathBuf,
        /// What is in it.
        found: String,
    },

    /// A folder of phantoms holds something else too. Nothing was removed.
    #[error(
        "`{}` is no part of the phantoms in `{}`, and nothing was removed; hint: move it elsewhere, or \
         choose another folder",
        found.display(),
        folder.display()
    )]
    NotOnlyPhantoms {
        /// The folder that was to be removed.
        folder: PathBuf,
        /// What is in it, or a table that was changed.
        found: PathBuf,
    },

    /// The stop flag was set; the images written so far stay and the same call goes on from there.
    #[error("interrupted after {written} of {images} images; the same call finishes the rest")]
    Interrupted {
        /// Images that are complete in the folder.
        written: usize,
        /// Images of the data set.
        images: usize,
    },

    /// A file or folder cannot be read or written.
    #[error("cannot {action} `{}`", path.display())]
    File {
        /// What was tried, such as `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },

    /// An image cannot be encoded.
    #[error("cannot encode `{}`", path.display())]
    Encode {
        /// The file that was to be written.
        path: PathBuf,
        /// Why it failed.
        source: image::ImageError,
    },
}

impl From<cxr_fs::FsError> for PhantomError {
    fn from(error: cxr_fs::FsError) -> Self {
        Self::File {
            action: error.action,
            path: error.path,
            source: error.source,
        }
    }
}
