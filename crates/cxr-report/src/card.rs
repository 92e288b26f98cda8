//! A model's page on a hub: `README.md` with the results in its front matter, as Hugging Face reads them.

use std::fmt::Write as _;

use cxr_run::{MacroSummary, RunMetrics, Summary, ViewSet};
use serde_json::{Value, json};

use crate::document::plain;

/// What a page says of a model beside the metrics of its run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelFacts {
    /// The feature extractor and the head, such as `densenet121`, `top-network`.
    pub architecture: Vec<String>,
    /// The labels, in the order of the logits.
    pub labels: Vec<String>,
    /// Images are resized to this side, of which the network sees the central square of the other.
    pub image_size: usize,
    /// See there.
    pub crop_size: usize,
    /// The licence of the weights, by its SPDX name in lower case; `None` where its author did not say.
    pub licence: Option<String>,
    /// What it may be used for; `None` where its author did not say.
    pub intended_use: Option<String>,
    /// How the thresholds were chosen, in words; empty where they are the loss's.
    pub thresholds: String,
}

/// The page of a model, in Markdown: with the test results of its run, or without any.
///
/// The front matter holds `model-index`, one result for the mean AUC and one for each label, each with the 95 % interval
/// by patient where there is one.
pub fn model_page(name: &str, facts: &ModelFacts, run: Option<&RunMetrics>) -> String {
    let mut page = String::from("---\n");
    let mut front = |key: &str, value: &Value| {
        // JSON is YAML.
        let _ = writeln!(page, "{key}: {value}");
    };
    if let Some(licence) = &facts.licence {
        front("license", &json!(licence));
    }
    front("library_name", &json!("cxr"));
    front("pipeline_tag", &json!("image-classification"));
    let tags = ["chest-x-ray", "multi-label", "radiology", "medical"];
    front("tags", &json!(tags));
    let summary = run.and_then(|run| run.test.get(&ViewSet::Single));
    if let (Some(run), Some(summary)) = (run, summary) {
        let result = json!({
            "task": { "type": "image-classification", "name": "multi-label classification" },
            "dataset": {
                "type": "chest-x-ray",
                "name": dataset(run),
                "split": "test",
            },
            "metrics": metrics(summary),
        });
        front(
            "model-index",
            &json!([{ "name": name, "results": [result] }]),
        );
    }
    page += "---\n\n";
    let _ = writeln!(page, "# {}\n", plain(name));
    page += "**Not a medical device, not for clinical use.** What the model says of an image is no diagnosis.\n\n";
    describe(&mut page, facts, run);
    if let (Some(run), Some(summary)) = (run, summary) {
        results(&mut page, run, summary);
    } else {
        page += "\nThe results of its run are not known.\n";
    }
    page += "\n## Use\n\n```sh\ncxr predict model.safetensors scans/ --out predictions.csv\n```\n";
    page
}

/// What the run was trained and tested on.
fn dataset(run: &RunMetrics) -> String {
    match run.data.phantom {
        true => "phantoms (synthetic images)".to_owned(),
        false => run.data.release.clone(),
    }
}

fn metrics(summary: &Summary) -> Vec<Value> {
    let metric = |name: String, value: Option<f64>, ends: Option<[f64; 2]>| {
        let value = value?;
        let mut metric = json!({ "type": "roc_auc", "name": name, "value": value });
        if let (Some(ends), Some(metric)) = (ends, metric.as_object_mut()) {
            metric.insert(
                "args".to_owned(),
                json!({ "interval_95": ends, "interval": unit(&summary.means) }),
            );
        }
        Some(metric)
    };
    let means = &summary.means;
    let mean = metric("mean AUC".to_owned(), means.auc, means.auc_interval);
    let labels = summary.labels.iter().map(|label| {
        let ends = match means.by_patient {
            true => label.auc_interval_clustered,
            false => label.auc_interval,
        };
        metric(format!("AUC of {}", label.label), label.auc, ends)
    });
    std::iter::once(mean).chain(labels).flatten().collect()
}

fn unit(means: &MacroSummary) -> &'static str {
    match means.by_patient {
        true => "by patient",
        false => "by image",
    }
}

fn describe(page: &mut String, facts: &ModelFacts, run: Option<&RunMetrics>) {
    let _ = writeln!(page, "| | |\n|---|---|");
    let mut row = |what: &str, text: &str| {
        let _ = writeln!(page, "| {what} | {} |", plain(text));
    };
    row("network", &facts.architecture.join(" and "));
    let size = format!(
        "grey, resized to {0}×{0} pixels, the central {1}×{1} of them",
        facts.image_size, facts.crop_size
    );
    row("input", &size);
    row("labels", &facts.labels.join(", "));
    if let Some(run) = run {
        let parameters = run.loss_parameters.iter();
        let parameters: String = parameters
            .map(|(name, value)| format!(", {name} {value}"))
            .collect();
        let weights = run.label_weights.as_ref();
        let weights = weights.map_or_else(String::new, |weights| {
            format!("; labels weighted by {}", weights.words())
        });
        row("loss", &format!("{}{parameters}{weights}", run.loss));
        row("trained on", &dataset(run));
        let images = &run.data.images;
        let held_out = run.data.hold_out.map_or_else(String::new, |one_in| {
            format!("; test images not the official ones, one in {one_in} held out")
        });
        let split = format!(
            "{} images to train, {} to validate, {} to test; validation images by `{}`{held_out}",
            images.train, images.validation, images.test, run.data.validation_split
        );
        row("images", &split);
    }
    if !facts.thresholds.is_empty() {
        row("thresholds", &facts.thresholds);
    }
    let licence = facts.licence.as_deref();
    row("licence of the weights", licence.unwrap_or("not said"));
    let use_for = facts.intended_use.as_deref();
    row("intended use", use_for.unwrap_or("not said"));
}

fn results(page: &mut String, run: &RunMetrics, summary: &Summary) {
    let means = &summary.means;
    let shown = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.4}"));
    let ends = |ends: Option<[f64; 2]>| {
        ends.map_or("–".to_owned(), |[low, high]| {
            format!("{low:.3} to {high:.3}")
        })
    };
    let _ = writeln!(
        page,
        "\n## Results\n\nOn {} test images of {}, one view each. Intervals are 95 %, {}.\n",
        summary.n_images,
        plain(&dataset(run)),
        unit(means)
    );
    page.push_str("| label | positives | AUC | interval |\n|---|---|---|---|\n");
    for label in &summary.labels {
        let interval = match means.by_patient {
            true => label.auc_interval_clustered,
            false => label.auc_interval,
        };
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} |",
            plain(&label.label),
            label.positives,
            shown(label.auc),
            ends(interval)
        );
    }
    let _ = writeln!(
        page,
        "| mean of {} labels | | {} | {} |",
        means.n_labels,
        shown(means.auc),
        ends(means.auc_interval)
    );
    if run.data.phantom {
        page.push_str(
            "\nThe images are drawn, not taken: the figures say nothing about chest X-rays.\n",
        );
    }
}
