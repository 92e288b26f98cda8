//! Heat maps of image files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use cxr_dataset::{ImageFile, ImageFiles, decode_radiograph_in, read_image_file};
use cxr_fs::Output;
use cxr_model::Predictor;
use cxr_table::csv_line;

use super::picture::Picture;
use super::targets::{TABLE, Target, targets};
use super::{Args, model_file};
use crate::SOME_FAILED;
use crate::data_folder::{passed_over, say_passed_over, say_refused};
use crate::output::{EXPLANATIONS_HEADER, is_explanation_table, is_heat_map};
use crate::prepare::tone;
use crate::progress::{Bar, say};

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
    let targets = targets(&found, &args.output, &labels)?;
    if targets.is_empty() {
        say_refused(found.refused());
        say_passed_over(found.passed_over().count(), &passed_over(&found));
        bail!("the folders hold no PNG, JPEG or DICOM file");
    }
    check_maps(args, &targets, &labels)?;
    std::fs::create_dir_all(&args.output)
        .with_context(|| format!("cannot make the folder `{}`", args.output.display()))?;
    let mut table = vec![csv_line(EXPLANATIONS_HEADER)];
    let mut failures = Vec::new();
    let bar = Bar::new("explaining", "images", targets.len());
    for (done, target) in targets.iter().enumerate() {
        match explain_file(args, &predictor, &wanted, target) {
            Ok(rows) => table.extend(rows),
            Err(error) => failures.push(format!("{}: {error:#}", target.image.display())),
        }
        bar.set(done + 1);
    }
    bar.finish();
    cxr_fs::write(&path, table.concat().as_bytes())?;
    say(&format!(
        "{} heat maps and `{}`",
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

/// Makes sure that every heat map may be written that there may be: the last image comes hours after the first.
fn check_maps(args: &Args, targets: &[Target], labels: &[&str]) -> anyhow::Result<()> {
    let real = |path: &Path| path.canonicalize().ok();
    let inputs: HashMap<PathBuf, &PathBuf> = targets
        .iter()
        .filter_map(|target| Some((real(&target.image)?, &target.image)))
        .collect();
    for target in targets {
        for label in labels {
            let (place, _) = target.map(label);
            let path = args.output.join(place);
            if let Some(place) = real(&path) {
                let output = Output::new(&path).force(args.force.is_given());
                output
                    .inputs(inputs.get(&place))
                    .ours(is_heat_map)
                    .check()?;
            }
        }
    }
    Ok(())
}

/// One row per heat map.
fn explain_file(
    args: &Args,
    predictor: &Predictor,
    wanted: &[usize],
    target: &Target,
) -> anyhow::Result<Vec<String>> {
    let file = &target.image;
    let radiograph = decode_radiograph_in(&read_image_file(file)?, file, tone(args.stretch))?;
    for warning in &radiograph.warnings {
        say(&format!("warning: `{}`: {warning}", file.display()));
    }
    let (card, classifier) = (predictor.card(), predictor.classifier());
    let prepared = predictor.prepare(&radiograph.image)?;
    let picture = Picture::new(predictor, &prepared)?;
    let logits = classifier.logits_of_image(&picture.tensor, &card.labels, "this image")?;
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
    let mut rows = Vec::with_capacity(labels.len());
    for label in labels {
        let map = cxr_explain::explain(predictor, &prepared, label, args.layer.as_deref())?;
        let label_name = &card.labels[label];
        let (place, shown) = target.map(label_name);
        let path = args.output.join(place);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
        }
        picture.write_overlay(&path, &map, args.style.into())?;
        rows.push(csv_line([
            &target.image.display().to_string(),
            label_name,
            &logits[label].to_string(),
            &is_predicted(label).to_string(),
            &shown,
        ]));
    }
    Ok(rows)
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
