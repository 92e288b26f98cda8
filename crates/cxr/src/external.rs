//! `cxr evaluate` on another data set than the run's own.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use cxr_dataset::{
    BlankPolicy, Blanks, DataFolder, DatasetError, ImageName, Index, LabelMap, Part, Store,
    store_file,
};
use cxr_model::Predictor;
use cxr_run::{ExternalFacts, ExternalTest, LabelRow, RunFolder, ScoredImages, StudyRule, ViewSet};

use crate::blank::{self, BlankRule};
use crate::progress::{Bar, say};
use crate::score;
use crate::scoring::{self, grouped};
use crate::train::interrupted;

/// Images that are predicted between two looks at the stop flag.
const CHUNK: usize = 256;

/// What is asked of a test on another data set.
#[derive(Debug, clap::Args)]
pub(crate) struct ExternalArgs {
    /// On another data set: join labels of other names by this map, common-18 or a file
    /// [default: common-18]
    #[arg(long, value_name = "MAP")]
    label_map: Option<String>,

    /// On another data set: which images are predicted: test, validation, train or all. Without this the
    /// publisher's test images, or all where there are none
    #[arg(long, value_name = "PART", value_parser = wanted)]
    part: Option<Wanted>,

    /// On another data set: score studies too, whose images are joined by the mean or the max of their logits
    #[arg(long, value_name = "RULE")]
    by_study: Option<StudyRule>,

    /// On another data set: what an empty cell of a label means, unknown or negative, for one label alone LABEL=negative
    /// (repeat for several) [default: what the run's experiment says]
    #[arg(long, value_name = "[LABEL=]RULE", value_parser = blank::rule)]
    blank: Vec<BlankRule>,

    /// On another data set: what the folder RUN/external/NAME is called [default: the name of the data folder]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

impl ExternalArgs {
    /// Nothing of it means anything on the run's own data set.
    ///
    /// # Errors
    /// The first option that is given.
    pub(crate) fn check_none(&self, run: &std::path::Path) -> anyhow::Result<()> {
        let given = [
            ("--by-study", self.by_study.is_some()),
            ("--blank", !self.blank.is_empty()),
            ("--part", self.part.is_some()),
            ("--name", self.name.is_some()),
            ("--label-map", self.label_map.is_some()),
        ];
        let Some((option, _)) = given.into_iter().find(|(_, is_given)| *is_given) else {
            return Ok(());
        };
        let predictions = run.join("predictions-test.csv");
        bail!(
            "`{option}` is about another data set, and this is the run's own\nhint: `cxr score {} --labels TABLE` scores its test images with `--by-study` and `--blank`",
            predictions.display()
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Part(Part),
    All,
}

fn wanted(text: &str) -> Result<Wanted, String> {
    let of_part = Part::ALL.into_iter().find(|part| part.name() == text);
    match (of_part, text) {
        (Some(part), _) => Ok(Wanted::Part(part)),
        (None, "all") => Ok(Wanted::All),
        _ => Err("take test, validation, train or all".to_owned()),
    }
}

/// The index of the data folder, where its images are not those that the run was tested on.
pub(crate) fn other_index(run: &RunFolder, data: &DataFolder) -> anyhow::Result<Option<Index>> {
    let Some(own) = run.labels(Part::Test)? else {
        return Ok(None);
    };
    let index = match data.index() {
        // What it lacks is said where it is surveyed; a run on several data sets has their folders here.
        Err(DatasetError::NoMetadata { .. }) => return Ok(None),
        index => index?,
    };
    let is_here = |image: &str| ImageName::new(image).is_ok_and(|name| index.get(&name).is_some());
    let is_own = own.rows().iter().any(|row| is_here(&row.image));
    Ok((!is_own).then_some(index))
}

/// Predicts and scores the images of another data set.
pub(crate) fn run(
    args: &ExternalArgs,
    run: &RunFolder,
    data: &DataFolder,
    index: &Index,
    allow_missing: bool,
    device: &candle_core::Device,
    stop: &AtomicBool,
) -> anyhow::Result<ExitCode> {
    let path = run.model_file();
    let predictor = Predictor::open(&path, device)?;
    let map = LabelMap::open(args.label_map.as_deref().unwrap_or("common-18"))?;
    let labels = &predictor.card().labels;
    let known = map.for_labels(index, labels)?;
    let blanks = match args.blank.as_slice() {
        [] => run.experiment()?.data.blank.among(known.label_set()),
        rules => blank::blanks(rules),
    };
    let blank_labels_negative = negative_blanks(&known, &blanks);
    let known = known.with_blanks(&blanks)?;
    let metrics = run.metrics()?;
    say(&format!(
        "trained on {}, tested on {}: {} of the model's {} labels are known there",
        metrics.data.release,
        index.release(),
        known.label_set().len(),
        labels.len()
    ));
    let names = images(args, data, index)?;
    let Some(logits) = predict(&predictor, data, index, names, allow_missing, stop)? else {
        return Ok(interrupted());
    };
    let places: Vec<usize> = (known.label_set().names().iter())
        .filter_map(|name| labels.iter().position(|label| label == name))
        .collect();
    let mut scored = ScoredImages {
        labels: known.label_set().names().to_vec(),
        truth: Vec::new(),
        studies: Vec::new(),
        logits: Vec::new(),
    };
    for (name, logits) in logits {
        let Some(record) = known.get(&name) else {
            continue;
        };
        scored.truth.push(LabelRow::of(record));
        let study = record.study.as_ref().map(|study| study.as_str().to_owned());
        scored.studies.push(study);
        let of_label = |&place: &usize| logits.get(place).copied().unwrap_or(f32::NAN);
        scored.logits.push(places.iter().map(of_label).collect());
    }
    if args.by_study.is_some() && scored.studies.iter().all(Option::is_none) {
        bail!(
            "{} does not say which images are of one study",
            index.release()
        );
    }
    let trained_on: HashSet<String> = (run.labels(Part::Train)?.into_iter())
        .flat_map(|table| table.rows().to_vec())
        .map(|row| row.image)
        .collect();
    let seen = scored
        .truth
        .iter()
        .filter(|row| trained_on.contains(&row.image));
    let images_trained_on = seen.count();
    let is_unknown = |label: &&String| known.label_set().index_of(label).is_none();
    let folder_name = || {
        let folder = data
            .path()
            .canonicalize()
            .unwrap_or_else(|_| data.path().to_owned());
        let name = folder.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    };
    let facts = ExternalFacts {
        name: args.name.clone().unwrap_or_else(folder_name),
        trained_on: metrics.data.release.clone(),
        tested_on: index.release().to_string(),
        label_map: map.name().to_owned(),
        labels_of_the_model_alone: labels.iter().filter(is_unknown).cloned().collect(),
        blank_labels_negative,
        images_trained_on,
        phantom: data.is_phantom(),
    };
    let test = ExternalTest::make(run.path(), facts, &scored, args.by_study)?;
    print(&test)?;
    say(&format!(
        "everything is in `{}`; `cxr report` shows it",
        ExternalTest::folder(run.path(), &test.name).display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// The labels with empty cells that are taken for negative.
fn negative_blanks(index: &Index, blanks: &Blanks) -> Vec<String> {
    let labels = index.label_set().names().iter().zip(index.label_counts());
    let is_negative = |label: &str| blanks.of(label) == BlankPolicy::Negative;
    labels
        .filter(|(label, count)| count.blank > 0 && is_negative(label))
        .map(|(label, _)| label.clone())
        .collect()
}

/// The names of the images that are wanted.
fn images(args: &ExternalArgs, data: &DataFolder, index: &Index) -> anyhow::Result<Vec<ImageName>> {
    let all = || index.records().iter().map(|record| record.name.clone());
    let of_part = |part: Part| -> anyhow::Result<Vec<ImageName>> {
        let lists = data.lists()?;
        Ok(match (lists, part) {
            (None, part) => index.official(part),
            (Some(lists), Part::Test) => lists.test().to_vec(),
            (Some(lists), Part::Train) => lists.train_val().to_vec(),
            (Some(_), Part::Validation) => Vec::new(),
        })
    };
    let names = match args.part {
        Some(Wanted::All) => all().collect(),
        Some(Wanted::Part(part)) => of_part(part)?,
        None => {
            let test = of_part(Part::Test)?;
            if test.is_empty() {
                say("its publisher names no test images: all are predicted");
                all().collect()
            } else {
                test
            }
        }
    };
    anyhow::ensure!(
        !names.is_empty(),
        "{} names no images of this part\nhint: `--part all` takes every image",
        index.release()
    );
    Ok(names)
}

/// An image with its logits.
type Logits = (ImageName, Vec<f32>);

/// The logits of each image; `None` when stopped.
fn predict(
    predictor: &Predictor,
    data: &DataFolder,
    index: &Index,
    names: Vec<ImageName>,
    allow_missing: bool,
    stop: &AtomicBool,
) -> anyhow::Result<Option<Vec<Logits>>> {
    let n_listed = names.len();
    let side = u32::try_from(predictor.card().image_size).context("the model's image size")?;
    let store = data.path().join(store_file(side));
    let source = match store.is_file() {
        true => Source::Store(Store::open(&store)?),
        false => Source::Files(data.image_files()?.of_index(index)?),
    };
    let (here, missing): (Vec<ImageName>, Vec<ImageName>) =
        names.into_iter().partition(|name| source.has(name));
    if let Some(first) = missing.first() {
        anyhow::ensure!(
            allow_missing && !here.is_empty(),
            "{} of {n_listed} images are missing from `{}`, the first is `{first}`\nhint: get them, or go on without them with `--allow-missing`",
            missing.len(),
            data.path().display()
        );
        say(&format!(
            "{} of {n_listed} images are missing",
            missing.len()
        ));
    }
    let bar = Bar::new("predicting", "images", here.len());
    let n_labels = predictor.card().labels.len();
    let mut logits = Vec::with_capacity(here.len());
    for chunk in here.chunks(CHUNK) {
        if stop.load(Ordering::Relaxed) {
            bar.finish();
            return Ok(None);
        }
        let prediction = match &source {
            Source::Files(files) => {
                let files = chunk
                    .iter()
                    .filter_map(|name| Some((name.clone(), files.get(name)?.clone())));
                predictor.predict_files(&files.collect::<Vec<_>>(), ViewSet::Single)?
            }
            Source::Store(store) => predictor.predict_stored(store, chunk, ViewSet::Single)?,
        };
        let values = prediction.logits(ViewSet::Single)?;
        let rows = values.chunks(n_labels.max(1)).map(<[f32]>::to_vec);
        logits.extend(prediction.names().iter().cloned().zip(rows));
        bar.set(logits.len());
    }
    bar.finish();
    Ok(Some(logits))
}

/// Where pixels come from.
enum Source {
    Files(HashMap<ImageName, PathBuf>),
    Store(Store),
}

impl Source {
    fn has(&self, name: &ImageName) -> bool {
        match self {
            Self::Files(files) => files.contains_key(name),
            Self::Store(store) => store.contains(name),
        }
    }
}

/// Prints the AUCs of the labels that model and data set both have.
fn print(test: &ExternalTest) -> anyhow::Result<()> {
    let mut text = format!(
        "trained on {}, tested on {}: {} images{}, labels joined by `{}`\n",
        test.trained_on,
        test.tested_on,
        grouped(test.by_image.n_images),
        match test.by_image.n_patients {
            Some(n_patients) => format!(" of {} patients", grouped(n_patients)),
            None => ", patients not known".to_owned(),
        },
        test.label_map
    );
    if test.images_trained_on > 0 {
        text += &format!(
            "{} of these images have names that the training had too\n",
            grouped(test.images_trained_on)
        );
    }
    if !test.labels_of_the_model_alone.is_empty() {
        let alone = test.labels_of_the_model_alone.join(", ");
        text += &scoring::wrapped(&format!("not known there: {alone}"));
        text.push('\n');
    }
    if !test.blank_labels_negative.is_empty() {
        let labels = test.blank_labels_negative.join(", ");
        text += &scoring::wrapped(&format!("empty cells taken for negative: {labels}"));
        text.push('\n');
    }
    text += &format!(
        "\n{}",
        score::ranking_table(&test.by_image, test.by_image.n_patients.is_some())
    );
    if let Some(studies) = &test.by_study {
        text += &format!(
            "\nby study, the {} of its images' logits: {} studies\n{}",
            studies.rule,
            grouped(studies.summary.n_images),
            score::ranking_table(&studies.summary, studies.summary.n_patients.is_some())
        );
    }
    scoring::print(&text)
}
