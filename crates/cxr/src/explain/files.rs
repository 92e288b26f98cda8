//! Heat maps of image files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use cxr_dataset::{
    GrayImage, ImageAttributes, ImageFile, ImageFiles, decode_radiograph_in, read_image_file,
};
use cxr_explain::{CamMethod, FeatureMaps, HeatMap, Region};
use cxr_fs::Output;
use cxr_model::Predictor;
use cxr_report::figures::heat_map_grid;
use cxr_table::csv_line;

use super::dicom::{About, MANUFACTURER, secondary_capture};
use super::picture::{NPY, Original, Picture, png_bytes, signed};
use super::targets::{TABLE, Target, earlier_maps, targets};
use super::{Args, Format, methods, model_file};
use crate::SOME_FAILED;
use crate::data_folder::{passed_over, say_passed_over, say_refused};
use crate::non_image::{self, Missing};
use crate::output::{EXPLANATIONS_HEADER, is_explanation_table, is_heat_map};
use crate::prepare::tone;
use crate::progress::{Bar, say};

/// What the grid of an image is called, where maps have the names of labels.
const GRID: &str = "grid";

pub(super) fn explain(args: &Args, images: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let found = ImageFiles::find(images)?;
    let files = || found.files().iter().map(ImageFile::path);
    let model = model_file(&args.model);
    let path = args.output.join(TABLE);
    let output = args.force.output(&path).inputs([&model]).inputs(files());
    output.ours(is_explanation_table).check()?;
    let predictor = Predictor::open(&model, &args.device.open()?)?;
    let card = predictor.card();
    check_layer(args, &predictor)?;
    let wanted = wanted_labels(&args.label, &card.labels)?;
    let labels: Vec<&str> = match wanted.as_slice() {
        [] => card.labels.iter().map(String::as_str).collect(),
        wanted => wanted
            .iter()
            .map(|&label| card.labels[label].as_str())
            .collect(),
    };
    let endings = endings(args, &labels);
    let endings: Vec<&str> = endings.iter().map(String::as_str).collect();
    let targets = targets(&found, &args.output, &endings)?;
    if targets.is_empty() {
        say_refused(found.refused());
        say_passed_over(found.passed_over().count(), &passed_over(&found));
        bail!("the folders hold no PNG, JPEG or DICOM file");
    }
    check_maps(args, &targets, &endings)?;
    std::fs::create_dir_all(&args.output)
        .with_context(|| format!("cannot make the folder `{}`", args.output.display()))?;
    let paths: Vec<String> = (targets.iter())
        .map(|target| target.image.display().to_string())
        .collect();
    let paths = paths.iter().map(String::as_str);
    let attributes = args.non_image.of_images(&card.inputs, paths)?;
    let mut missing = Missing::default();
    let mut table = vec![csv_line(EXPLANATIONS_HEADER)];
    let mut failures = Vec::new();
    let bar = Bar::new("explaining", "images", targets.len());
    for (done, target) in targets.iter().enumerate() {
        let attributes = attributes.get(done).copied().unwrap_or_default();
        match explain_file(args, &predictor, &wanted, target, attributes, &mut missing) {
            Ok(rows) => table.extend(rows),
            Err(error) => failures.push(format!("{}: {error:#}", target.image.display())),
        }
        bar.set(done + 1);
    }
    bar.finish();
    missing.say();
    cxr_fs::write(&path, table.concat().as_bytes())?;
    say(&format!(
        "{} files and `{}`",
        table.len() - 1,
        path.display()
    ));
    say_passed_over(found.passed_over().count(), &passed_over(&found));
    say_refused(found.refused());
    if !failures.is_empty() {
        say(&format!(
            "{} of {} images cannot be explained:\n  {}",
            failures.len(),
            targets.len(),
            failures.join("\n  ")
        ));
    }
    match failures.len() + found.refused().len() {
        0 => Ok(ExitCode::SUCCESS),
        _ => Ok(ExitCode::from(SOME_FAILED)),
    }
}

/// Makes sure that the layer is one that the network names.
fn check_layer(args: &Args, predictor: &Predictor) -> anyhow::Result<()> {
    let layers = predictor.classifier().backbone().layers();
    let Some(layer) = args.layer.as_ref().filter(|layer| !layers.contains(layer)) else {
        return Ok(());
    };
    let names: Vec<String> = layers.iter().map(|name| format!("`{name}`")).collect();
    match names.is_empty() {
        true => bail!(
            "`--layer {}`: the layers of this network have no names\nhint: without `--layer` the heat map is of its last maps",
            cxr_table::excerpt(layer)
        ),
        false => bail!(
            "`--layer {}` is no layer of this network; it has {}",
            cxr_table::excerpt(layer),
            names.join(", ")
        ),
    }
}

/// What a map of a label by a method is called: by its label, and where there are several methods by its method too.
fn ending(label: &str, method: CamMethod, methods: &[CamMethod]) -> String {
    match methods {
        [_] => label.to_owned(),
        _ => format!("{label}-{}", method.name()),
    }
}

/// Everything that a file of an image may be called.
fn endings(args: &Args, labels: &[&str]) -> Vec<String> {
    let methods = methods(args);
    let of_label = |label: &&str| {
        methods
            .iter()
            .map(|&method| ending(label, method, &methods))
            .collect::<Vec<_>>()
    };
    let maps = labels.iter().flat_map(of_label);
    maps.chain(args.grid.then(|| GRID.to_owned())).collect()
}

/// Makes sure that every heat map may be written that there may be: the last image comes hours after the first.
fn check_maps(args: &Args, targets: &[Target], endings: &[&str]) -> anyhow::Result<()> {
    let real = |path: &Path| path.canonicalize().ok();
    let inputs: HashMap<PathBuf, &PathBuf> = targets
        .iter()
        .filter_map(|target| Some((real(&target.image)?, &target.image)))
        .collect();
    // NumPy's files have no room for a signature.
    let earlier = earlier_maps(&args.output);
    for target in targets {
        for (name, &format) in endings
            .iter()
            .flat_map(|name| args.format.iter().map(move |format| (name, format)))
        {
            let format = if args.grid && *name == GRID {
                Format::Png
            } else {
                format
            };
            let (place, shown) = target.map(name, format.ending());
            let path = args.output.join(place);
            if let Some(place) = real(&path) {
                let output = Output::new(&path).force(args.force.is_given());
                let is_ours = |start: &[u8]| match format {
                    Format::Png => is_heat_map(start),
                    Format::Npy => start.starts_with(NPY) && earlier.contains(&shown),
                    Format::DicomSc => {
                        let maker = MANUFACTURER.as_bytes();
                        start.get(128..132) == Some(b"DICM")
                            && start.windows(maker.len()).any(|w| w == maker)
                    }
                };
                output.inputs(inputs.get(&place)).ours(is_ours).check()?;
            }
        }
    }
    Ok(())
}

/// One row for each file.
fn explain_file(
    args: &Args,
    predictor: &Predictor,
    wanted: &[usize],
    target: &Target,
    attributes: ImageAttributes,
    missing: &mut Missing,
) -> anyhow::Result<Vec<String>> {
    let file = &target.image;
    let bytes = read_image_file(file)?;
    let card = predictor.card();
    let tone = if args.stretch {
        tone(true)
    } else {
        card.tone()
    };
    let radiograph = decode_radiograph_in(&bytes, file, tone)?;
    for warning in &radiograph.warnings {
        say(&format!("warning: `{}`: {warning}", file.display()));
    }
    let classifier = predictor.classifier();
    let attributes = attributes.or(radiograph.attributes);
    missing.add(&non_image::missing(&card.inputs, &attributes));
    let prepared = predictor.prepare(&radiograph.image)?;
    let picture = Picture::new(predictor, &prepared.with_attributes(attributes))?;
    let of_picture = picture.non_image.as_ref();
    let logits =
        classifier.logits_of_image(&picture.tensor, of_picture, &card.labels, "this image")?;
    let is_predicted = |label: usize| logits[label] > card.logit_thresholds[label];
    let mut labels: Vec<usize> = wanted.to_vec();
    if labels.is_empty() {
        labels.extend((0..logits.len()).filter(|&label| is_predicted(label)));
    }
    if labels.is_empty() {
        // Nothing is predicted: what comes nearest.
        let highest = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        labels.extend(highest);
    }
    let features = match &args.layer {
        None => FeatureMaps::new(classifier, &picture.tensor)?,
        Some(layer) => FeatureMaps::of_layer(classifier, &picture.tensor, layer)?,
    };
    let features = features.with_inputs(picture.non_image.clone());
    let methods = methods(args);
    let model = format!("{}-{}", card.experiment, card.variant);
    let of_file = OfFile {
        args,
        target,
        image: &radiograph.image,
        window: Region::of_window(card.image_size, card.crop_size),
        about: About {
            patient: radiograph.patient.as_deref(),
            study: radiograph.study.as_deref(),
            source: &bytes,
            title: "",
            model: &model,
            number: 0,
        },
    };
    let (mut rows, mut number) = (Vec::new(), 0);
    // For each method the pictures of all labels.
    let mut grid: Vec<Vec<Vec<u8>>> = vec![Vec::new(); methods.len()];
    for &label in &labels {
        let label_name = &card.labels[label];
        for (&method, grid) in methods.iter().zip(&mut grid) {
            number += 1;
            let map = features.heat_map(label, method)?;
            let name = ending(label_name, method, &methods);
            let title = format!("{label_name}, {}", method.title());
            for shown in of_file.write(&name, &title, number, &map)? {
                rows.push(csv_line([
                    &file.display().to_string(),
                    label_name,
                    &logits[label].to_string(),
                    &is_predicted(label).to_string(),
                    &shown,
                    method.name(),
                ]));
            }
            if args.grid {
                grid.push(picture.overlay_png(&map, args.style.into())?);
            }
        }
    }
    if args.grid {
        let names: Vec<&str> = labels
            .iter()
            .map(|&label| card.labels[label].as_str())
            .collect();
        let titles: Vec<&str> = methods.iter().map(|method| method.title()).collect();
        let figure = heat_map_grid(&picture.to_png()?, &names, &titles, &grid);
        let png = signed(&figure.to_png()?)?;
        let (place, shown) = target.map(GRID, Format::Png.ending());
        write(&args.output.join(place), &png)?;
        let row = [&file.display().to_string(), "", "", "", &shown, ""];
        rows.push(csv_line(row));
    }
    Ok(rows)
}

/// What the files of one image have in common.
struct OfFile<'a> {
    args: &'a Args,
    target: &'a Target,
    image: &'a GrayImage,
    window: Region,
    about: About<'a>,
}

impl OfFile<'_> {
    /// Writes a map in every format that was asked for; returns the files' names.
    fn write(
        &self,
        name: &str,
        title: &str,
        number: usize,
        map: &HeatMap,
    ) -> anyhow::Result<Vec<String>> {
        let original = Original {
            image: self.image,
            window: self.window,
        };
        let mut written: Vec<String> = Vec::new();
        for &format in &self.args.format {
            let (place, shown) = self.target.map(name, format.ending());
            if written.contains(&shown) {
                continue;
            }
            let style = self.args.style.into();
            let bytes = match format {
                Format::Png => png_bytes(
                    &original.overlay(map, style)?,
                    original.size(),
                    png::ColorType::Rgb,
                )?,
                Format::Npy => original.npy(map),
                Format::DicomSc => {
                    let about = About {
                        title,
                        number,
                        ..self.about
                    };
                    let pixels = original.overlay(map, style)?;
                    secondary_capture(&pixels, original.size(), &about)
                        .context("a DICOM file has at most 65,535 rows and columns")?
                }
            };
            write(&self.args.output.join(place), &bytes)?;
            written.push(shown);
        }
        Ok(written)
    }
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
    }
    Ok(cxr_fs::write(path, bytes)?)
}

/// The positions of the labels that were asked for. The command line is cut at commas: what no label is by itself
/// may be the beginning of one that has a comma.
pub(crate) fn wanted_labels(names: &[String], labels: &[String]) -> anyhow::Result<Vec<usize>> {
    let position = |name: &str| labels.iter().position(|label| label == name.trim());
    let mut wanted = Vec::new();
    let mut rest = names;
    while let Some(first) = rest.first() {
        let longest = (1..=rest.len()).rev().find_map(|length| {
            let (pieces, behind) = rest.split_at_checked(length)?;
            Some((position(&pieces.join(","))?, behind))
        });
        let (label, behind) = longest.with_context(|| {
            format!(
                "the model has no label `{first}`\nhint: it has {}",
                labels.join(", ")
            )
        })?;
        if !wanted.contains(&label) {
            wanted.push(label);
        }
        rest = behind;
    }
    Ok(wanted)
}
