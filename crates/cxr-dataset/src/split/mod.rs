//! Training, validation and test: which image is used for what.

mod file;
mod given;
mod report;
mod stratify;

pub use report::{PartReport, SharedPatients, SplitReport};

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

use cxr_table::excerpt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use stratify::Group;

use crate::{DatasetError, ImageName, Index, LabelState, OfficialLists, PatientId, Subset};

/// What an image is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// To fit the weights.
    Train,
    /// To watch the training.
    Validation,
    /// To report.
    Test,
}

impl Part {
    /// The three parts in the order in which they are reported.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// `train`, `validation` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// How the validation tenth is taken from the official training and validation list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValidationSplit {
    /// The official lists as they are: nothing validates.
    Official,
    /// A tenth of the images, as the paper does. Patients stand on both sides; the report counts
    /// them.
    Paper,
    /// A tenth of the images in whole patients, with a tenth of each label's positive images: no
    /// patient on both sides.
    Patient,
    /// One of several such folds of the patients, for cross-validation. Fold 0 of 10 is
    /// [`Self::Patient`].
    #[serde(rename = "patient-fold")]
    PatientFold {
        /// Which fold is validation, from 0.
        fold: usize,
        /// How many folds there are, at least 2.
        of: usize,
    },
    /// Three lists that somebody made, [`Split::from_lists`]; no rule by which this crate could choose.
    Lists,
}

impl fmt::Display for ValidationSplit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Official => formatter.write_str("official"),
            Self::Paper => formatter.write_str("paper"),
            Self::Patient => formatter.write_str("patient"),
            Self::PatientFold { fold, of } => write!(formatter, "patient-fold {fold} of {of}"),
            Self::Lists => formatter.write_str("lists"),
        }
    }
}

impl FromStr for ValidationSplit {
    type Err = DatasetError;

    /// Reads what `Display` writes, with spaces or hyphens: `official`, `paper`, `patient`,
    /// `patient-fold-0-of-5`.
    fn from_str(text: &str) -> Result<Self, DatasetError> {
        let fold = |text: &str| {
            let (fold, of) = text.strip_prefix("patient-fold-")?.split_once("-of-")?;
            Some(Self::PatientFold {
                fold: fold.parse().ok()?,
                of: of.parse().ok()?,
            })
        };
        let rule = match text {
            "official" => Some(Self::Official),
            "paper" => Some(Self::Paper),
            "patient" => Some(Self::Patient),
            "lists" => Some(Self::Lists),
            _ => fold(&text.replace(' ', "-")),
        };
        rule.ok_or_else(|| DatasetError::Split {
            problem: format!("`{}` is no rule for the validation images", excerpt(text)),
            repair: "take `official`, `paper`, `patient` or one such as `patient-fold-0-of-5`"
                .to_owned(),
        })
    }
}

/// Three disjoint lists of images. The order within each part is the official list's.
///
/// The validation part is made by ranking: each image (or patient) of the training and validation
/// list is ranked by the SHA-256 digest of the seed (eight bytes, little-endian) followed by its
/// name. Of images the first tenth, rounded down, is validation. Patients are dealt into folds in
/// the order of their rank, such that every fold has its share of the images and of each label's
/// positive images (iterative stratification); one fold is validation. So an image's part depends
/// on the list, its labels and the seed, and not on which files there are. Absent files are taken
/// out afterwards by [`Self::keep_present`], images that are not wanted by [`Self::keep`] and
/// [`Self::select`]. Both kinds are counted, each by itself: the former makes a run one of a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    rule: ValidationSplit,
    seed: u64,
    parts: [Vec<ImageName>; 3],
    absent: [usize; 3],
    excluded: [usize; 3],
}

impl Split {
    /// Splits the lists by `rule` and `seed`.
    ///
    /// # Errors
    /// [`DatasetError::Split`] when a listed image is not in the index, when patients are
    /// needed and the index does not know them or there are fewer than folds, or for the rule
    /// [`ValidationSplit::Lists`].
    pub fn new(
        index: &Index,
        lists: &OfficialLists,
        rule: ValidationSplit,
        seed: u64,
    ) -> Result<Self, DatasetError> {
        for name in lists.train_val().iter().chain(lists.test()) {
            if index.get(name).is_none() {
                return Err(not_in_index(name));
            }
        }
        let (validation, train) = match rule {
            ValidationSplit::Official => (Vec::new(), lists.train_val().to_vec()),
            ValidationSplit::Paper => {
                let chosen = first_of(lists.train_val().iter().collect(), seed, 10);
                lists
                    .train_val()
                    .iter()
                    .cloned()
                    .partition(|name| chosen.contains(name))
            }
            ValidationSplit::Patient => by_patient(index, lists.train_val(), seed, 0, 10)?,
            ValidationSplit::PatientFold { fold, of } => {
                if of < 2 || fold >= of {
                    return Err(DatasetError::Split {
                        problem: format!("there is no fold {fold} of {of}"),
                        repair: "take at least two folds, numbered from 0".to_owned(),
                    });
                }
                by_patient(index, lists.train_val(), seed, fold, of)?
            }
            ValidationSplit::Lists => {
                return Err(DatasetError::Split {
                    problem:
                        "the rule `lists` says that validation images were listed by hand, and \
                              not which"
                            .to_owned(),
                    repair: "give the three lists to `Split::from_lists`, or take another rule"
                        .to_owned(),
                });
            }
        };
        Ok(Self {
            rule,
            seed,
            parts: [train, validation, lists.test().to_vec()],
            absent: [0; 3],
            excluded: [0; 3],
        })
    }

    /// The images of one part.
    pub fn part(&self, part: Part) -> &[ImageName] {
        of_part(&self.parts, part).as_slice()
    }

    /// The images to fit the weights.
    pub fn train(&self) -> &[ImageName] {
        self.part(Part::Train)
    }

    /// The images to watch the training.
    pub fn validation(&self) -> &[ImageName] {
        self.part(Part::Validation)
    }

    /// The images to report.
    pub fn test(&self) -> &[ImageName] {
        self.part(Part::Test)
    }

    /// How the validation part was taken.
    pub fn rule(&self) -> ValidationSplit {
        self.rule
    }

    /// The seed it was taken with.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Keeps the images that are wanted, such as the first hundred of each part, and counts the
    /// others as excluded. For images that are not there, see [`Self::keep_present`].
    #[must_use]
    pub fn keep(&self, is_wanted: impl Fn(&ImageName) -> bool) -> Self {
        let mut kept = self.clone();
        for (images, excluded) in kept.parts.iter_mut().zip(&mut kept.excluded) {
            *excluded += retain(images, &is_wanted);
        }
        kept
    }

    /// Keeps the images that are there, and counts the others as absent: for a folder or store that
    /// holds only part of the data set. Reports of a run say that it is of a sample then.
    #[must_use]
    pub fn keep_present(&self, is_present: impl Fn(&ImageName) -> bool) -> Self {
        let mut kept = self.clone();
        for (images, absent) in kept.parts.iter_mut().zip(&mut kept.absent) {
            *absent += retain(images, &is_present);
        }
        kept
    }

    /// How many listed images of one part [`Self::keep_present`] took out.
    pub fn n_absent(&self, part: Part) -> usize {
        *of_part(&self.absent, part)
    }

    /// Keeps the images of a subset, such as the PA radiographs of adults, and counts the others
    /// as excluded.
    ///
    /// # Errors
    /// [`DatasetError::Split`] when the subset asks for what the index does not know: a finding
    /// that is no label, or a fact that a record does not state.
    pub fn select(&self, index: &Index, subset: &Subset) -> Result<Self, DatasetError> {
        let mut wanted = HashSet::new();
        for name in self.parts.iter().flatten() {
            let record = index.get(name).ok_or_else(|| not_in_index(name))?;
            if subset.contains(record, index.label_set())? {
                wanted.insert(name.clone());
            }
        }
        Ok(self.keep(|name| wanted.contains(name)))
    }

    /// How many listed images of one part [`Self::keep`] and [`Self::select`] took out.
    pub fn n_excluded(&self, part: Part) -> usize {
        *of_part(&self.excluded, part)
    }

    /// Sizes, label counts, and patients on both sides.
    ///
    /// # Errors
    /// [`DatasetError::Split`] when an image of the split is not in the index.
    pub fn report(&self, index: &Index) -> Result<SplitReport, DatasetError> {
        report::report(self, index)
    }
}

fn patients_of<'a>(
    index: &'a Index,
    names: &[ImageName],
) -> Result<Vec<&'a PatientId>, DatasetError> {
    let patient_of = |name: &ImageName| {
        let record = index.get(name);
        record
            .and_then(|record| record.patient.as_ref())
            .ok_or_else(|| DatasetError::Split {
                problem: format!("the patient of `{name}` is not known"),
                repair: "give the table a `patient` column, or split by image".to_owned(),
            })
    };
    names.iter().map(patient_of).collect()
}

/// The images of one of `n_folds` folds and the others, when all images of a patient stay together.
pub(crate) fn by_patient(
    index: &Index,
    names: &[ImageName],
    seed: u64,
    fold: usize,
    n_folds: usize,
) -> Result<(Vec<ImageName>, Vec<ImageName>), DatasetError> {
    let patients = patients_of(index, names)?;
    let n_labels = index.label_set().len();
    let mut of_patient: HashMap<&PatientId, Group> = HashMap::new();
    for (name, patient) in names.iter().zip(&patients) {
        let group = of_patient.entry(patient).or_insert_with(|| Group {
            n_images: 0,
            positives: vec![0; n_labels],
        });
        group.n_images += 1;
        let states = index.get(name).map_or(&[][..], |record| &record.labels);
        for (n_positive, state) in group.positives.iter_mut().zip(states) {
            *n_positive += usize::from(*state == LabelState::Positive);
        }
    }
    if of_patient.len() < n_folds {
        return Err(DatasetError::Split {
            problem: format!("{} patients do not fill {n_folds} folds", of_patient.len()),
            repair: "take fewer folds, or split by image".to_owned(),
        });
    }
    let (ranked, groups): (Vec<&PatientId>, Vec<Group>) = ranked(of_patient, seed).unzip();
    let folds = stratify::deal(&groups, n_labels, n_folds);
    let chosen: HashSet<&PatientId> = (ranked.into_iter().zip(folds))
        .filter(|(_, of_patient)| *of_patient == fold)
        .map(|(patient, _)| patient)
        .collect();
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for (name, patient) in names.iter().zip(patients) {
        let side = if chosen.contains(patient) {
            &mut inside
        } else {
            &mut outside
        };
        side.push(name.clone());
    }
    Ok((inside, outside))
}

/// The first ⌊n / `of`⌋ of n names in the order of their rank.
pub(crate) fn first_of(names: Vec<&ImageName>, seed: u64, of: usize) -> HashSet<&ImageName> {
    let n_chosen = names.len() / of;
    let ranked = ranked(names.into_iter().map(|name| (name, ())), seed);
    ranked.take(n_chosen).map(|(name, ())| name).collect()
}

/// What is named, in the order of SHA-256(seed, name): an order that is random, the same for
/// everybody, and does not depend on the order before.
fn ranked<'a, N: AsRef<str> + Ord + ?Sized + 'a, T>(
    named: impl IntoIterator<Item = (&'a N, T)>,
    seed: u64,
) -> impl Iterator<Item = (&'a N, T)> {
    let mut ranked: Vec<([u8; 32], &N, T)> = (named.into_iter())
        .map(|(name, value)| (rank(seed, name.as_ref()), name, value))
        .collect();
    ranked.sort_unstable_by(|(first, first_name, _), (second, second_name, _)| {
        (first, first_name).cmp(&(second, second_name))
    });
    ranked.into_iter().map(|(_, name, value)| (name, value))
}

fn rank(seed: u64, name: &str) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(seed.to_le_bytes());
    hasher.update(name.as_bytes());
    hasher.finalize().into()
}

fn of_part<T>([train, validation, test]: &[T; 3], part: Part) -> &T {
    match part {
        Part::Train => train,
        Part::Validation => validation,
        Part::Test => test,
    }
}

/// How many images went.
fn retain(images: &mut Vec<ImageName>, keep: impl Fn(&ImageName) -> bool) -> usize {
    let before = images.len();
    images.retain(keep);
    before - images.len()
}

fn not_in_index(name: &ImageName) -> DatasetError {
    DatasetError::Split {
        problem: format!("`{name}` is not in the index"),
        repair: "take lists, split and index of the same data set".to_owned(),
    }
}
