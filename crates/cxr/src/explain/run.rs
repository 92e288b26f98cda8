//! What a run's report shows: samples, the panel, scores against boxes.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use cxr_augment::KeyedRng;
use cxr_dataset::{BOX_LIST, FindingBox, ImageName, LabelState, Part, read_boxes};
use cxr_explain::{
    Agreement, BoxTally, CamMethod, Candidate, FeatureMaps, HeatMap, OverlayStyle, Region,
    choose_panel,
};
use cxr_model::{ModelCard, Predictor};
use cxr_report::explanations::{
    BoxScores, EXPLANATIONS_FOLDER, Example, ExampleKind, Explanations, FindingScores, Sample,
};
use cxr_run::{Predictions, RunFolder, Unscorable};
use cxr_train::TrainingData;
use sha2::{Digest as _, Sha256};

use super::picture::Picture;
use super::{Args, methods, model_file};
use crate::data_folder::{DataArgs, prepare};
use crate::evaluate::store_path;
use crate::progress::{Bar, say};
use crate::train::{interrupted, stop_flag};

/// Raised whenever the same model and data begin to give other pictures or scores.
const RECIPE: u32 = 3;
const PREDICTIONS: &str = "predictions-test.csv";
/// No model, table of predictions or list of boxes is so large.
const LARGEST_FILE: u64 = 1 << 34;
const SAMPLES: usize = 8;
const PER_KIND: usize = 3;
/// Boxes are in pixels of the original.
const ORIGINAL_SIDE: f64 = 1024.;
/// The order in which images are looked at, as the report states it.
const ORDER: &str = "Test images are taken in an order drawn from their names alone";

pub(super) fn explain(args: &Args, data_args: &DataArgs) -> anyhow::Result<ExitCode> {
    let run = &args.model;
    let experiment = RunFolder::at(run)
        .experiment()
        .with_context(|| format!("`{}` is no run folder", run.display()))?;
    let survey = data_args.survey(&experiment)?;
    let stop = stop_flag()?;
    let store = store_path(run.parent().unwrap_or(Path::new(".")), &experiment);
    let Some(data) = prepare(survey, &store, &stop)? else {
        return Ok(interrupted());
    };
    // What a call has left that was killed while it wrote.
    cxr_fs::remove_unfinished(&run.join(EXPLANATIONS_FOLDER))?;
    let boxes = box_list(args, data_args)?;
    let made_from = fingerprint(args, &data, boxes.as_deref())?;
    if is_there(run, &made_from) {
        let folder = run.join(EXPLANATIONS_FOLDER);
        say(&format!("`{}` is up to date", folder.display()));
        return Ok(ExitCode::SUCCESS);
    }
    let explainer = Explainer {
        data: &data,
        predictor: Predictor::open(&model_file(run), &args.device.open()?)?,
        folder: run.join(EXPLANATIONS_FOLDER),
        style: args.style.into(),
    };
    std::fs::create_dir_all(&explainer.folder)
        .with_context(|| format!("cannot make `{}`", explainer.folder.display()))?;
    // What a process that was killed has left.
    cxr_fs::remove_unfinished(&explainer.folder)?;
    let images = explainer.images(run)?;
    let boxes = match boxes {
        Some(path) => {
            say(&format!("boxes: {}", path.display()));
            Some(read_boxes(&path)?)
        }
        None => {
            say(&format!("no `{BOX_LIST}`: heat maps are not scored"));
            None
        }
    };
    let others = methods(args).into_iter();
    let others = others.filter(|&method| method != CamMethod::GradCam && boxes.is_some());
    let explanations = Explanations {
        made_from,
        sample_rule: format!(
            "{ORDER}: the first that show a label, or no finding, that none before them shows."
        ),
        rule: format!(
            "{ORDER}: of each kind the first three with different labels to explain, then the first \
             others. Explained is the predicted label with the highest logit; where none is \
             predicted, the label with the highest logit."
        ),
        samples: explainer.samples(&images)?,
        panel: explainer.panel(&images)?,
        boxes: (boxes.as_ref())
            .map(|boxes| explainer.score(boxes, args.hot_share, CamMethod::GradCam))
            .transpose()?,
        other_methods: others
            .map(|method| {
                explainer.score(boxes.as_deref().unwrap_or_default(), args.hot_share, method)
            })
            .collect::<anyhow::Result<_>>()?,
    };
    explanations.write(run)?;
    say(&format!(
        "{} samples, {} heat maps in `{}`",
        explanations.samples.len(),
        explanations.panel.len(),
        explainer.folder.display()
    ));
    for boxes in explanations.boxes.iter().chain(&explanations.other_methods) {
        if !explanations.other_methods.is_empty() {
            crate::scoring::summarise(&format!("{}:\n", boxes.method));
        }
        print(boxes);
    }
    Ok(ExitCode::SUCCESS)
}

/// A test image that may be shown.
struct Image {
    name: ImageName,
    candidate: Candidate,
}

struct Explainer<'a> {
    data: &'a TrainingData,
    predictor: Predictor,
    folder: PathBuf,
    style: OverlayStyle,
}

impl Explainer<'_> {
    fn card(&self) -> &ModelCard {
        self.predictor.card()
    }

    /// The test images of which all labels are known, with the run's logits, in an order that depends
    /// on their names alone.
    fn images(&self, run: &Path) -> anyhow::Result<Vec<Image>> {
        let path = run.join(PREDICTIONS);
        let predictions = Predictions::read(&path, Unscorable::Refuse)?;
        let columns: Vec<&[f64]> = (self.card().labels.iter())
            .map(|label| {
                let column = predictions.columns().iter().find(|c| c.label == *label);
                column.map(|column| column.scores.as_slice())
            })
            .collect::<Option<_>>()
            .with_context(|| format!("`{}` lacks a label of the model", path.display()))?;
        let mut images = Vec::new();
        for (row, name) in predictions.images().iter().enumerate() {
            let name = ImageName::new(name)?;
            let Some(record) = self.data.index().get(&name) else {
                bail!("`{}`: `{name}` is not in the label table", path.display());
            };
            if !self.data.store().contains(&name) || !record.labels.iter().all(|l| l.is_known()) {
                continue;
            }
            images.push(Image {
                candidate: Candidate {
                    labels: (record.labels.iter())
                        .map(|&state| state == LabelState::Positive)
                        .collect(),
                    logits: columns.iter().map(|column| column[row] as f32).collect(),
                },
                name,
            });
        }
        images.sort_by_cached_key(|image| {
            let key = KeyedRng::new("explained images", 0, 0, image.name.as_str()).next_u64();
            (key, image.name.clone())
        });
        Ok(images)
    }

    fn samples(&self, images: &[Image]) -> anyhow::Result<Vec<Sample>> {
        let mut is_shown = vec![false; self.card().labels.len()];
        let mut has_clear = false;
        let mut samples = Vec::new();
        for image in images {
            let labels = &image.candidate.labels;
            let is_clear = !labels.contains(&true);
            let mut fresh = labels
                .iter()
                .zip(&is_shown)
                .map(|(&has, &shown)| has && !shown);
            if samples.len() == SAMPLES || !(fresh.any(|fresh| fresh) || is_clear && !has_clear) {
                continue;
            }
            has_clear |= is_clear;
            for (shown, has) in is_shown.iter_mut().zip(labels) {
                *shown |= has;
            }
            let picture = format!("sample{}.png", samples.len() + 1);
            self.picture(&image.name)?
                .write(&self.folder.join(&picture))?;
            samples.push(Sample {
                image: image.name.to_string(),
                labels: self.names(labels),
                picture,
            });
        }
        Ok(samples)
    }

    fn panel(&self, images: &[Image]) -> anyhow::Result<Vec<Example>> {
        let thresholds = &self.card().logit_thresholds;
        let candidates: Vec<Candidate> = images.iter().map(|i| i.candidate.clone()).collect();
        let mut panel = Vec::new();
        for choice in choose_panel(&candidates, thresholds, PER_KIND) {
            let Image { name, candidate } = &images[choice.candidate];
            let shown = self.picture(name)?;
            let map = self.map(&shown, choice.label, CamMethod::GradCam)?;
            let number = panel.len() + 1;
            let picture = format!("panel{number}.png");
            let overlay = format!("panel{number}-map.png");
            shown.write(&self.folder.join(&picture))?;
            shown.write_overlay(&self.folder.join(&overlay), &map, self.style)?;
            panel.push(Example {
                kind: match choice.agreement {
                    Agreement::RightSingle => ExampleKind::RightSingle,
                    Agreement::RightSeveralOrNone => ExampleKind::RightSeveralOrNone,
                    Agreement::Wrong => ExampleKind::Wrong,
                },
                image: name.to_string(),
                labels: self.names(&candidate.labels),
                predicted: self.names(&candidate.predicted(thresholds)),
                explained: self.card().labels[choice.label].clone(),
                logit: candidate.logits[choice.label].into(),
                is_empty: map.peak() <= 0.,
                picture,
                overlay,
            });
        }
        Ok(panel)
    }

    /// Scores the heat map of each box's finding; test images only, as the others were trained on or
    /// chose the model.
    fn score(
        &self,
        boxes: &[FindingBox],
        hot_share: f32,
        method: CamMethod,
    ) -> anyhow::Result<BoxScores> {
        let test: HashSet<&ImageName> = self.data.split().part(Part::Test).iter().collect();
        let mut tallies = vec![BoxTally::default(); self.card().labels.len()];
        let mut maps: BTreeMap<(ImageName, usize), HeatMap> = BTreeMap::new();
        let (mut of_others, mut outside) = (0, 0);
        let (resized, crop) = (self.card().image_size as f64, self.card().crop_size as f64);
        let bar = Bar::new("scoring", "boxes", boxes.len());
        for (done, finding) in boxes.iter().enumerate() {
            bar.set(done);
            let label = self
                .card()
                .labels
                .iter()
                .position(|l| *l == finding.finding);
            let (Some(label), true) = (label, test.contains(&finding.name)) else {
                of_others += 1;
                continue;
            };
            let Some(region) = Region::of_box(finding, ORIGINAL_SIDE, resized, crop) else {
                outside += 1;
                continue;
            };
            let key = (finding.name.clone(), label);
            if !maps.contains_key(&key) {
                let picture = self.picture(&finding.name)?;
                let map = self.map(&picture, label, method)?;
                maps.insert(key.clone(), map);
            }
            if let Some(map) = maps.get(&key) {
                tallies[label].add(map, &region, hot_share);
            }
        }
        bar.finish();
        let scored = self.card().labels.iter().zip(&tallies);
        let findings = scored.filter_map(|(label, tally)| {
            Some(FindingScores {
                finding: label.clone(),
                boxes: tally.boxes,
                hits: tally.hits,
                empty_maps: tally.empty_maps,
                mean_box_area: tally.mean_area()?,
                mean_overlap: tally.mean_overlap()?,
            })
        });
        Ok(BoxScores {
            method: method.title().to_owned(),
            hot_share: hot_share.into(),
            findings: findings.collect(),
            boxes_of_other_images: of_others,
            boxes_outside: outside,
        })
    }

    fn map(&self, picture: &Picture, label: usize, method: CamMethod) -> anyhow::Result<HeatMap> {
        let features = FeatureMaps::new(self.predictor.classifier(), &picture.tensor)?;
        let features = features.with_inputs(picture.non_image.clone());
        Ok(features.heat_map(label, method)?)
    }

    fn picture(&self, name: &ImageName) -> anyhow::Result<Picture> {
        let prepared = self.predictor.prepared(self.data.store().image(name)?)?;
        let prepared = prepared.with_attributes(self.data.attributes(name));
        Picture::new(&self.predictor, &prepared)
    }

    fn names(&self, states: &[bool]) -> Vec<String> {
        let present = self
            .card()
            .labels
            .iter()
            .zip(states)
            .filter(|(_, has)| **has);
        present.map(|(label, _)| label.clone()).collect()
    }
}

/// SHA-256 of all that decides what is made: the program, what it was asked, the model, its predictions,
/// images and labels, and the boxes.
fn fingerprint(args: &Args, data: &TrainingData, boxes: Option<&Path>) -> anyhow::Result<String> {
    let asked = format!(
        "recipe {RECIPE}, cxr {}, hot share {}, {:?}, {:?}",
        env!("CARGO_PKG_VERSION"),
        args.hot_share,
        args.style,
        methods(args)
    );
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    add(asked.as_bytes());
    add(data.fingerprint().as_bytes());
    let files = [
        Some(model_file(&args.model)),
        Some(args.model.join(PREDICTIONS)),
        boxes.map(Path::to_owned),
    ];
    for path in files.into_iter().flatten() {
        // They are read again later, which a pipe cannot be.
        add(&cxr_fs::read_regular(&path, LARGEST_FILE)?);
    }
    let digest = hash.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Whether the run has explanations that were made from just this, with all their pictures.
fn is_there(run: &Path, made_from: &str) -> bool {
    // Those of another version are made again.
    let Ok(Some(found)) = Explanations::read(run) else {
        return false;
    };
    let folder = run.join(EXPLANATIONS_FOLDER);
    let mut pictures = found.picture_files();
    found.made_from == made_from && pictures.all(|name| folder.join(name).is_file())
}

/// The list that was named, or the one beside images or labels.
fn box_list(args: &Args, data: &DataArgs) -> anyhow::Result<Option<PathBuf>> {
    match &args.boxes {
        Some(path) => Ok(Some(path.clone())),
        None => Ok(data.folder().box_list()?),
    }
}

/// Prints the scores.
fn print(boxes: &BoxScores) {
    let header = ["finding", "boxes", "hits", "share", "by chance", "overlap"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for finding in &boxes.findings {
        let share = finding.accuracy().unwrap_or_default();
        rows.push(vec![
            finding.finding.clone(),
            finding.boxes.to_string(),
            finding.hits.to_string(),
            format!("{share:.3}"),
            format!("{:.3}", finding.mean_box_area),
            format!("{:.3}", finding.mean_overlap),
        ]);
    }
    let mut text = crate::scoring::align(&rows);
    if boxes.boxes_of_other_images > 0 {
        text += &format!(
            "{} boxes are of images that are not among the available test images\n",
            boxes.boxes_of_other_images
        );
    }
    crate::scoring::summarise(&text);
}
