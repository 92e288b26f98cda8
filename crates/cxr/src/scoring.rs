//! What `score` and `compare` have in common: the label table, what may be missing, and output.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use cxr_dataset::{Index, Release};
use cxr_run::{
    BootstrapSummary, Evaluation, LeftOut, NoInterval, Predictions, Resampling, Studies, StudyRule,
    Truth, Unscorable,
};
use serde::Serialize;

use crate::blank::BlankArgs;
use crate::output::{ForceArg, is_metrics};

/// The arguments of both commands.
#[derive(Debug, clap::Args)]
pub(crate) struct ScoringArgs {
    /// The truth: ChestX-ray14's CSV, or a table whose first column is the image name and whose
    /// others are labels with 1, 0, or nothing for unknown (plain or gzip)
    #[arg(long, value_name = "LABELS.csv")]
    pub(crate) labels: PathBuf,

    /// Write all numbers to this file as JSON; what is undefined is null
    #[arg(long, value_name = "OUT.json")]
    pub(crate) json: Option<PathBuf>,

    #[command(flatten)]
    blank: BlankArgs,

    #[command(flatten)]
    force: ForceArg,

    /// Take the patient, not the image, as the unit of evidence: several images of one patient are
    /// alike, and errors that ignore it come out too small. The patient is the label table's
    /// column `patient` (or `Patient ID`), without one the eight digits that begin an image name
    /// of ChestX-ray14
    #[arg(long)]
    pub(crate) by_patient: bool,

    /// Score studies instead of images: a study's score is the mean or the max of those of its images (CheXpert's authors
    /// take the max), a label of it is positive where it is on one of them. The label table has to say which images are
    /// of one study
    #[arg(long, value_name = "RULE")]
    by_study: Option<StudyRule>,

    /// Leave a label out of the mean (repeat for several); it needs no scores then
    #[arg(long, value_name = "LABEL")]
    pub(crate) without: Vec<String>,

    /// Take the interval of the mean AUC from this many bootstrap replicates, such as 2000, instead of
    /// the closed form; it holds a little less often
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    bootstrap: Option<u32>,

    /// Name the bootstrap's draws: the same seed gives the same interval
    #[arg(long, value_name = "S", default_value_t = 0, requires = "bootstrap")]
    seed: u64,

    /// Leave out and count what cannot be scored, instead of stopping at the first: images without
    /// labels, repeated rows, scores that are no finite number, labels without a column, columns
    /// without a label
    #[arg(long)]
    allow_missing: bool,
}

impl ScoringArgs {
    pub(crate) fn unscorable(&self) -> Unscorable {
        if self.allow_missing {
            Unscorable::Count
        } else {
            Unscorable::Refuse
        }
    }

    pub(crate) fn resampling(&self) -> Option<Resampling> {
        let seed = self.seed;
        self.bootstrap.map(|replicates| Resampling {
            replicates: replicates as usize,
            seed,
        })
    }

    /// Reads the label table.
    pub(crate) fn read_labels(&self) -> anyhow::Result<Index> {
        Ok(Index::read(&self.labels)?.with_blanks(&self.blank.blanks())?)
    }

    /// Joins the predictions of some models with what a label table says, image by image or study by study.
    pub(crate) fn join(
        &self,
        index: &Index,
        predictions: &[&Predictions],
    ) -> anyhow::Result<Vec<Evaluation>> {
        let (without, unscorable) = (&self.without, self.unscorable());
        Ok(match self.by_study {
            Some(rule) => {
                Studies::of(index, rule)?.join(predictions, index, without, unscorable)?
            }
            None => {
                let truth = Truth::of(index)?;
                Evaluation::join_all(predictions, &truth, without, unscorable)?
            }
        })
    }

    /// What the numbers are about, as [`describe`] says it.
    pub(crate) fn describe(
        &self,
        n_scored: usize,
        n_patients: Option<usize>,
        release: Release,
    ) -> String {
        match self.by_study {
            None => describe(n_scored, n_patients, release),
            Some(rule) => format!(
                "{}; a study's score is the {rule} of its images' scores",
                describe_units(n_scored, "studies", n_patients, release)
            ),
        }
    }

    /// Makes sure that the JSON may be written where it is wanted; `predictions` are read too.
    pub(crate) fn check_json(&self, predictions: &[&Path]) -> anyhow::Result<()> {
        let Some(path) = &self.json else {
            return Ok(());
        };
        let output = self.force.output(path).inputs([&self.labels]);
        output.inputs(predictions).ours(is_metrics).check()?;
        Ok(())
    }

    /// Writes the JSON if it is wanted: whole or not at all.
    pub(crate) fn write_json(&self, value: &impl Serialize) -> anyhow::Result<()> {
        let Some(path) = &self.json else {
            return Ok(());
        };
        let mut text = serde_json::to_string_pretty(value)?;
        text.push('\n');
        Ok(cxr_fs::write(path, text.as_bytes())?)
    }
}

/// Prints a summary of what is in files; if it cannot be written, only the summary is lost.
pub(crate) fn summarise(text: &str) {
    let _ = cxr_terminal::print(&cxr_table::printable(text));
}

/// Prints the result, with what a terminal would obey escaped; a reader that has gone away, such as `head`, is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    write(&cxr_table::printable(text))
}

/// Prints JSON, likewise.
pub(crate) fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    write(&cxr_table::printable_json(&format!("{value:#}\n")))
}

fn write(text: &str) -> anyhow::Result<()> {
    cxr_terminal::print(text).context("cannot write to standard output")
}

/// What the numbers are about: "22,433 images of 4,300 patients, ChestX-ray14, v2020 release".
pub(crate) fn describe(n_images: usize, n_patients: Option<usize>, release: Release) -> String {
    describe_units(n_images, "images", n_patients, release)
}

fn describe_units(
    n_scored: usize,
    what: &str,
    n_patients: Option<usize>,
    release: Release,
) -> String {
    let patients = n_patients.map_or_else(String::new, |n_patients| {
        format!(" of {} patients", grouped(n_patients))
    });
    format!(
        "{} {what}{patients}, labels of {release}",
        grouped(n_scored)
    )
}

/// One line per kind of thing that was left out.
pub(crate) fn describe_left_out(left_out: &LeftOut) -> String {
    let mut text = String::new();
    for (count, what) in [
        (
            left_out.images_without_labels,
            "rows of images without labels",
        ),
        (
            left_out.images_without_scores,
            "rows of images that the other model does not score",
        ),
        (left_out.repeated_rows, "repeated rows"),
        (
            left_out.unreadable_scores,
            "scores that are no finite number",
        ),
    ] {
        if count > 0 {
            let _ = writeln!(text, "left out: {} {what}", grouped(count));
        }
    }
    for (names, what) in [
        (&left_out.labels_without_scores, "labels without scores"),
        (&left_out.scores_without_label, "columns without a label"),
    ] {
        if !names.is_empty() {
            let _ = writeln!(text, "left out: {what}: {}", names.join(", "));
        }
    }
    text
}

/// What ≈ means.
pub(crate) const APPROXIMATE: &str =
    "≈ approximate: fewer than 10 degrees of freedom (df), as too few patients have the finding\n";

/// Marks what is approximate.
pub(crate) fn approximate(is_approximate: bool, text: String) -> String {
    if is_approximate {
        format!("≈ {text}")
    } else {
        text
    }
}

/// Why some labels have no interval or p-value: one line per reason.
pub(crate) fn describe_undefined<'a>(
    what: &str,
    labels: impl Iterator<Item = (&'a str, NoInterval)>,
) -> String {
    let mut reasons: Vec<(NoInterval, Vec<&str>)> = Vec::new();
    for (label, reason) in labels {
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, labels)) => labels.push(label),
            None => reasons.push((reason, vec![label])),
        }
    }
    let mut text = String::new();
    for (reason, labels) in reasons {
        let _ = writeln!(text, "– no {what} for {}: {reason}", labels.join(", "));
    }
    text
}

/// How the interval of a mean was made.
pub(crate) fn describe_bootstrap(bootstrap: &BootstrapSummary) -> String {
    let unit = if bootstrap.by_patient {
        "patients"
    } else {
        "images"
    };
    format!(
        "interval of the mean: {} bootstrap replicates of {unit}, seed {}, {} skipped\n",
        grouped(bootstrap.resampling.replicates),
        bootstrap.resampling.seed,
        bootstrap.skipped
    )
}

/// In lines of at most 100 characters.
pub(crate) fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().filter(|line| {
            line.is_empty() || line.chars().count() + 1 + word.chars().count() <= 100
        });
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

/// Columns aligned: the first to the left, the others to the right.
pub(crate) fn align(rows: &[Vec<String>]) -> String {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..n_columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let _ = if column == 0 {
                write!(line, "{cell:<width$}")
            } else {
                write!(line, "  {cell:>width$}")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `value` with some decimals, or a dash for what is undefined.
pub(crate) fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}"))
}

/// `lower to upper`, or a dash for what is undefined.
pub(crate) fn interval(ends: Option<[f64; 2]>, decimals: usize) -> String {
    ends.map_or_else(
        || "–".to_owned(),
        |[lower, upper]| format!("{lower:.decimals$} to {upper:.decimals$}"),
    )
}

/// 112120 as `112,120`.
pub(crate) fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
