//! What a data set of phantoms is to be, checked once.

use crate::finding::{Finding, REAL_TEST, REAL_TRAIN_VAL};
use crate::study::List;
use crate::{Layout, PhantomError};

/// Findings an image has on average at most; ChestX-ray14's official test list has 1.06.
pub(crate) const MOST_FINDINGS_PER_IMAGE: f64 = 1.25;

/// Sides that are drawn: below the first no sign can be seen, above the second nothing is gained.
const SIDES: (usize, usize) = (64, 4096);

/// Patient numbers have eight digits, and every image may have a patient of its own.
const MOST_IMAGES: usize = 10_000_000;

/// Length of one of the official lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListSize {
    /// Images in the list.
    pub images: usize,
    /// Images that are recorded with a finding, for each finding at least.
    pub least_positives: usize,
}

/// What the label table of a data set of phantoms says of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// The fourteen findings, in ChestX-ray14's table.
    Findings,
    /// How the image was taken and of what kind of body: the answers to [`NUISANCE_QUESTIONS`](crate::NUISANCE_QUESTIONS), in
    /// `labels.csv`. No image shows a finding.
    Nuisance,
}

/// Size, seed and side of a data set of phantoms, and what its labels are. Every value of this type can
/// be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhantomConfig {
    seed: u64,
    train_val: ListSize,
    test: ListSize,
    side: usize,
    labels: Labels,
    layout: Layout,
}

impl PhantomConfig {
    /// Side of an image, in pixels, unless [`PhantomConfig::with_side`] says otherwise: ChestX-ray14's.
    pub const DEFAULT_SIDE: usize = 1024;

    /// Positives of every finding in the train-and-validation list of [`PhantomConfig::of_images`].
    pub const LEAST_TRAIN_VAL: usize = 20;

    /// Positives of every finding in the test list of [`PhantomConfig::of_images`].
    pub const LEAST_TEST: usize = 10;

    /// A data set with the two official lists.
    ///
    /// Findings are as frequent as in ChestX-ray14's list of that name, the rarest raised to
    /// `least_positives` and the others with it, so that their order stays. In a list too short for that
    /// the differences between them shrink.
    ///
    /// # Errors
    /// [`PhantomError::TooFewImages`] where a list cannot hold its positives: an image has at most
    /// 1.25 findings on average, which takes 11.2 images for each positive per finding.
    /// [`PhantomError::TooManyImages`] above ten million images.
    pub fn new(seed: u64, train_val: ListSize, test: ListSize) -> Result<Self, PhantomError> {
        let images = train_val.images.saturating_add(test.images);
        if images > MOST_IMAGES {
            return Err(PhantomError::TooManyImages {
                most: MOST_IMAGES,
                got: images,
            });
        }
        for (list, size) in [(List::TrainVal, train_val), (List::Test, test)] {
            let least = least_images(size.least_positives);
            if size.images < least {
                return Err(PhantomError::TooFewImages {
                    list: list.file_name(),
                    least,
                    findings: Finding::COUNT,
                    positives: size.least_positives,
                    got: size.images,
                });
            }
        }
        Ok(Self {
            seed,
            train_val,
            test,
            side: Self::DEFAULT_SIDE,
            labels: Labels::Findings,
            layout: Layout::ChestXRay14,
        })
    }

    /// A data set without a finding, labelled with how each image was taken: what a network is
    /// pretrained on that is to see findings later. `train_val` and `test` are the lists' lengths.
    ///
    /// # Errors
    /// [`PhantomError::TooFewImages`] for an empty list, [`PhantomError::TooManyImages`] above ten
    /// million images.
    pub fn of_nuisance(seed: u64, train_val: usize, test: usize) -> Result<Self, PhantomError> {
        let size = |images| ListSize {
            images,
            least_positives: 0,
        };
        let labels = Labels::Nuisance;
        Self::new(seed, size(train_val), size(test)).map(|config| Self { labels, ..config })
    }

    /// A data set of `images` images, divided between the lists as ChestX-ray14 is (22.8 % test), with
    /// at least [20](Self::LEAST_TRAIN_VAL) positives of every finding in the one and
    /// [10](Self::LEAST_TEST) in the other, and a test list that is long enough for them.
    ///
    /// # Errors
    /// As [`PhantomConfig::new`]; the least number is 336, of which 112 are for testing.
    pub fn of_images(seed: u64, images: usize) -> Result<Self, PhantomError> {
        let share = REAL_TEST.images as f64 / (REAL_TRAIN_VAL.images + REAL_TEST.images) as f64;
        let test_images =
            ((images as f64 * share).round() as usize).max(least_images(Self::LEAST_TEST));
        let train_val = ListSize {
            images: images.saturating_sub(test_images),
            least_positives: Self::LEAST_TRAIN_VAL,
        };
        let test = ListSize {
            images: test_images,
            least_positives: Self::LEAST_TEST,
        };
        Self::new(seed, train_val, test)
    }

    /// The same data set in images of another side, in pixels.
    ///
    /// # Errors
    /// [`PhantomError::Side`] outside 64 … 4096.
    pub fn with_side(self, side: usize) -> Result<Self, PhantomError> {
        let (least, most) = SIDES;
        if (least..=most).contains(&side) {
            Ok(Self { side, ..self })
        } else {
            let got = side;
            Err(PhantomError::Side { least, most, got })
        }
    }

    /// The same phantoms in the files of another data set. What their labels are in its words is [`Layout`]'s; the images
    /// are the same.
    ///
    /// # Errors
    /// [`PhantomError::Layout`] for phantoms that are labelled with how they were taken.
    pub fn with_layout(self, layout: Layout) -> Result<Self, PhantomError> {
        match (self.labels, layout) {
            (Labels::Nuisance, layout) if layout != Layout::ChestXRay14 => {
                Err(PhantomError::Layout {
                    layout: layout.title(),
                })
            }
            _ => Ok(Self { layout, ..self }),
        }
    }

    /// Whose files they are written in.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Seed of every draw.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Length of a list.
    #[must_use]
    pub fn list(&self, list: List) -> ListSize {
        match list {
            List::TrainVal => self.train_val,
            List::Test => self.test,
        }
    }

    /// What the label table says.
    #[must_use]
    pub fn labels(&self) -> Labels {
        self.labels
    }

    /// Images in both lists.
    #[must_use]
    pub fn images(&self) -> usize {
        self.train_val.images + self.test.images
    }

    /// Width and height of an image, in pixels.
    #[must_use]
    pub fn side(&self) -> usize {
        self.side
    }
}

/// Images that a list needs so that every finding has `positives` of them; one at least.
fn least_images(positives: usize) -> usize {
    let labels = Finding::COUNT as f64 * positives as f64;
    ((labels / MOST_FINDINGS_PER_IMAGE).ceil() as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(images: usize, least_positives: usize) -> ListSize {
        ListSize {
            images,
            least_positives,
        }
    }

    #[test]
    fn the_least_size_is_named_and_is_enough() {
        let error = PhantomConfig::new(1, size(223, 20), size(112, 10)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected at least 224 images in `train_val_list.txt` so that each of the 14 findings \
             has 20 positives, got 223"
        );
        assert!(PhantomConfig::new(1, size(224, 20), size(112, 10)).is_ok());
        assert!(PhantomConfig::new(1, size(224, 20), size(111, 10)).is_err());
    }

    #[test]
    fn an_empty_list_and_absurd_sizes_are_refused() {
        assert!(PhantomConfig::new(1, size(1, 0), size(0, 0)).is_err());
        assert!(PhantomConfig::new(1, size(usize::MAX, 0), size(1, 0)).is_err());
        assert!(PhantomConfig::new(1, size(9, usize::MAX), size(1, 0)).is_err());
        let smallest = PhantomConfig::new(1, size(1, 0), size(1, 0)).unwrap();
        for (side, accepted) in [
            (0, false),
            (63, false),
            (64, true),
            (4096, true),
            (4097, false),
        ] {
            assert_eq!(
                smallest.clone().with_side(side).is_ok(),
                accepted,
                "side {side}"
            );
        }
    }

    #[test]
    fn images_are_divided_as_the_official_lists_are() {
        let lengths = |images| {
            let config = PhantomConfig::of_images(1, images).unwrap();
            [List::TrainVal, List::Test].map(|list| config.list(list).images)
        };
        assert_eq!(lengths(1200), [926, 274]);
        assert_eq!(lengths(336), [224, 112]);
        assert!(PhantomConfig::of_images(1, 335).is_err());
        assert!(PhantomConfig::of_images(1, usize::MAX).is_err());
    }
}
