//! Heat maps of image files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use cxr_dataset::{decode_radiograph, resize_bicubic};
use cxr_explain::grad_cam;
use cxr_train::{Classifier, ModelCard, load_model};

use super::picture::Picture;
use super::{Args, model_file};
use crate::SOME_FAILED;
use crate::progress::{Bar, say};

pub(super) fn explain(args: &Args, images: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let (card, classifier) = load_model(&model_file(&args.model), &args.device.open()?)?;
    let wanted = wanted_labels(&args.label, &card)?;
    let files = image_files(images)?;
    std::fs::create_dir_all(&args.output)
        .with_context(|| format!("cannot make the folder `{}`", args.output.display()))?;
    let mut table = vec!["image,label,logit,predicted,map".to_owned()];
    let mut failures = Vec::new();
    let bar = Bar::new("explaining", "images", files.len());
    for (done, file) in files.iter().enumerate() {
        match explain_file(args, &card, &classifier, &wanted, file) {
            Ok(rows) => table.extend(rows),
            Err(error) => failures.push(format!("{}: {error:#}", file.display())),
        }
        bar.set(done + 1);
    }
    bar.finish();
    let path = args.output.join("explanations.csv");
    let text = table.join("\n") + "\n";
    cxr_fs::write(&path, text.as_bytes())?;
    say(&format!(
        "{} heat maps and `{}`",
        table.len() - 1,
        path.display()
    ));
    if failures.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!(
        "{} of {} images cannot be explained:\n  {}",
        failures.len(),
        files.len(),
        failures.join("\n  ")
    ));
    Ok(ExitCode::from(SOME_FAILED))
}

/// One row per heat map.
fn explain_file(
    args: &Args,
    card: &ModelCard,
    classifier: &Classifier,
    wanted: &[usize],
    file: &Path,
) -> anyhow::Result<Vec<String>> {
    let image = decode_radiograph(file)?;
    let prepared = resize_bicubic(&image, card.image_size, card.image_size)?;
    let picture = Picture::new(prepared.pixels(), card, classifier.parameters().device())?;
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
    // The whole name: `a.png` and `a.jpg` have different maps.
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let mut rows = Vec::with_capacity(labels.len());
    for label in labels {
        let map = grad_cam(classifier, &picture.tensor, label)?;
        let label_name = &card.labels[label];
        let target = format!("{name}-{label_name}.png");
        picture.write_overlay(&args.output.join(&target), &map, args.style.into())?;
        rows.push(format!(
            "{},{label_name},{},{},{}",
            quoted(&file.display().to_string()),
            logits[label],
            is_predicted(label),
            quoted(&target)
        ));
    }
    Ok(rows)
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// The positions of the labels that were asked for.
fn wanted_labels(names: &[String], card: &ModelCard) -> anyhow::Result<Vec<usize>> {
    let position = |name: &String| {
        let found = card.labels.iter().position(|label| label == name);
        found.with_context(|| {
            format!(
                "the model has no label `{name}`\nhint: it has {}",
                card.labels.join(", ")
            )
        })
    };
    names.iter().map(position).collect()
}

/// The files, and those of the folders, by name.
fn image_files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path)
            .with_context(|| format!("cannot read the folder `{}`", path.display()))?;
        for entry in entries {
            let file = entry?.path();
            let extension = file
                .extension()
                .and_then(|e| e.to_str())
                .unwrap_or_default();
            let is_image = ["png", "jpg", "jpeg", "dcm"]
                .iter()
                .any(|known| extension.eq_ignore_ascii_case(known));
            if is_image {
                files.push(file);
            }
        }
    }
    files.sort();
    files.dedup();
    if files.is_empty() {
        bail!("the folders hold no PNG, JPEG or DICOM file");
    }
    Ok(files)
}
