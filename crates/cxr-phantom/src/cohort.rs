//! Who is X-rayed, how often, and which findings are recorded: everything but the pixels.

use std::collections::BTreeMap;

use crate::config::{Labels, ListSize, MOST_FINDINGS_PER_IMAGE, PhantomConfig};
use crate::finding::{Finding, FindingSet, REAL_TEST, REAL_TRAIN_VAL, RealCounts, co_occurrence};
use crate::random::Draws;
use crate::study::{List, Study};

/// Images with a finding among all, at most: the rest has none, as in every screening archive.
const MOST_SHARE_WITH_FINDING: f64 = 0.75;

/// Findings of an image that has any, where the list leaves room; 1.50 and 1.73 in the official lists.
const FINDINGS_PER_AFFECTED_IMAGE: f64 = 1.5;

/// Share of recorded findings that the image does not show.
const RECORDED_NOT_SHOWN: f32 = 0.05;

/// Findings shown but not recorded, as a share of the recorded ones.
const SHOWN_NOT_RECORDED: f32 = 0.05;

/// Patients of ChestX-ray14 with 1, 2, … 12 images; longer series are left out.
const PATIENTS_BY_SERIES: [f64; 12] = [
    17_503.0, 4_113.0, 2_100.0, 1_330.0, 938.0, 787.0, 608.0, 494.0, 387.0, 320.0, 281.0, 235.0,
];

/// The plan of a data set: every image with its patient, its recorded findings and what is truly drawn.
///
/// A cohort is a function of its configuration; making one draws no pixel.
#[derive(Clone, Debug)]
pub struct Cohort {
    studies: Vec<Study>,
    patients: usize,
}

impl Cohort {
    /// Plans the data set of `config`.
    #[must_use]
    pub fn plan(config: &PhantomConfig) -> Self {
        let mut series = Vec::new();
        for list in [List::TrainVal, List::Test] {
            let mut draws = Draws::keyed("cohort", config.seed(), list.file_name());
            let size = config.list(list);
            let positives = match config.labels() {
                Labels::Findings => positives(size, real_counts(list)),
                Labels::Nuisance => [0; Finding::COUNT],
            };
            let labels = label_sets(size.images, &positives, &mut draws);
            let patients = patient_series(labels, &mut draws);
            series.extend(patients.into_iter().map(|labels| (list, labels)));
        }
        // Patient numbers say nothing about the list, as in the original.
        Draws::keyed("cohort", config.seed(), "patients").shuffle(&mut series);
        let patients = series.len();
        let shown = match config.labels() {
            Labels::Findings => with_wrong_labels,
            Labels::Nuisance => |recorded, _: &mut Draws| recorded,
        };
        let studies = (1..)
            .zip(series)
            .flat_map(|(patient, (list, labels))| {
                Study::series(config.seed(), patient, list, &labels, shown)
            })
            .collect();
        Self { studies, patients }
    }

    /// The images in the order of the label file: by patient, then by date.
    #[must_use]
    pub fn studies(&self) -> &[Study] {
        &self.studies
    }

    /// How many images of a list are recorded with each finding, in the order of [`Finding::ALL`].
    #[must_use]
    pub fn positives(&self, list: List) -> [usize; Finding::COUNT] {
        Finding::ALL.map(|finding| {
            let recorded =
                |study: &&Study| study.list() == list && study.labels().contains(finding);
            self.studies.iter().filter(recorded).count()
        })
    }

    /// How many patients there are.
    #[must_use]
    pub fn patients(&self) -> usize {
        self.patients
    }
}

fn real_counts(list: List) -> &'static RealCounts {
    match list {
        List::TrainVal => &REAL_TRAIN_VAL,
        List::Test => &REAL_TEST,
    }
}

/// How many images of a list have each finding: the official list's share, raised so that the rarest
/// reaches `least` and the order stays, and levelled where the list has no room for so many.
fn positives(size: ListSize, real: &RealCounts) -> [usize; Finding::COUNT] {
    let expected = real
        .positives
        .map(|count| count as f64 * size.images as f64 / real.images as f64);
    let rarest = expected.iter().copied().fold(f64::INFINITY, f64::min);
    let base = rarest.max(size.least_positives as f64);
    let room = MOST_FINDINGS_PER_IMAGE * size.images as f64 - base * Finding::COUNT as f64;
    let above: f64 = expected.iter().map(|count| count - rarest).sum();
    let scale = (room / above).clamp(0.0, 1.0);
    expected.map(|count| (base + scale * (count - rarest)) as usize)
}

/// Sets of findings for `images` images with exactly the given numbers of positives. Findings that meet
/// often in ChestX-ray14 meet often here.
fn label_sets(
    images: usize,
    positives: &[usize; Finding::COUNT],
    draws: &mut Draws,
) -> Vec<FindingSet> {
    let mut labels: Vec<Finding> = Finding::ALL
        .into_iter()
        .flat_map(|finding| std::iter::repeat_n(finding, positives[finding.index()]))
        .collect();
    draws.shuffle(&mut labels);

    let affected = (labels.len() as f64 / FINDINGS_PER_AFFECTED_IMAGE)
        .min(images as f64 * MOST_SHARE_WITH_FINDING) as usize;
    let most = positives.iter().copied().max().unwrap_or(0);
    let affected = affected.max(most).min(images).min(labels.len());

    let rest = labels.split_off(affected);
    let mut sets: Vec<FindingSet> = labels
        .into_iter()
        .map(|finding| FindingSet::EMPTY.with(finding))
        .collect();
    // Images with the same findings are chosen together, then one of them: their sets are few.
    let mut alike: BTreeMap<FindingSet, Vec<usize>> = BTreeMap::new();
    for (image, &set) in sets.iter().enumerate() {
        alike.entry(set).or_default().push(image);
    }
    for finding in rest {
        let (candidates, weights): (Vec<FindingSet>, Vec<f64>) = alike
            .iter()
            .map(|(&set, images)| (set, companion_weight(set, finding) * images.len() as f64))
            .unzip();
        let chosen = draws.weighted(&weights).and_then(|index| {
            let images = alike.get_mut(&candidates[index])?;
            Some(images.swap_remove(draws.below(images.len())))
        });
        // Where every affected image has the finding already, one more becomes affected.
        let image = chosen.unwrap_or_else(|| {
            sets.push(FindingSet::EMPTY);
            sets.len() - 1
        });
        sets[image] = sets[image].with(finding);
        alike.entry(sets[image]).or_default().push(image);
    }
    sets.resize(images, FindingSet::EMPTY);
    draws.shuffle(&mut sets);
    sets
}

/// How readily `finding` joins the findings of an image.
fn companion_weight(set: FindingSet, finding: Finding) -> f64 {
    if set.contains(finding) {
        return 0.0;
    }
    let crowding = [1.0, 1.0, 0.35, 0.1, 0.02][set.len().min(4)];
    set.iter()
        .map(|present| co_occurrence(present, finding))
        .product::<f64>()
        * crowding
}

/// Divides the images of a list among patients. Follow-ups tend to share a finding with the first image.
fn patient_series(mut sets: Vec<FindingSet>, draws: &mut Draws) -> Vec<Vec<FindingSet>> {
    /// How far ahead a similar image is looked for.
    const WINDOW: usize = 60;
    const FOLLOW_UP_RESEMBLES: f32 = 0.6;

    let mut patients = Vec::new();
    while let Some(first) = sets.pop() {
        let images = 1 + draws.weighted(&PATIENTS_BY_SERIES).unwrap_or(0);
        let mut series = vec![first];
        while series.len() < images && !sets.is_empty() {
            let ahead = sets.len().saturating_sub(WINDOW);
            let similar = draws
                .chance(FOLLOW_UP_RESEMBLES)
                .then(|| {
                    sets[ahead..].iter().rposition(|&set| {
                        !first.intersection(set).is_empty() || (first.is_empty() && set.is_empty())
                    })
                })
                .flatten();
            let next = similar.map_or(sets.len() - 1, |position| ahead + position);
            series.push(sets.swap_remove(next));
        }
        patients.push(series);
    }
    patients
}

/// What an image shows when `recorded` is written down: labels mined from reports are sometimes wrong.
fn with_wrong_labels(recorded: FindingSet, draws: &mut Draws) -> FindingSet {
    Finding::ALL
        .into_iter()
        .filter(|&finding| {
            let real = (REAL_TRAIN_VAL.positives[finding.index()]
                + REAL_TEST.positives[finding.index()]) as f32;
            let rate = real / (REAL_TRAIN_VAL.images + REAL_TEST.images) as f32;
            let wrong = if recorded.contains(finding) {
                RECORDED_NOT_SHOWN
            } else {
                SHOWN_NOT_RECORDED * rate.max(0.02)
            };
            // The draw comes first: it is made for every finding, so that one label moves no other.
            draws.chance(wrong) != recorded.contains(finding)
        })
        .collect()
}
