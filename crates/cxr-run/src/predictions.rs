//! Tables of scores, anybody's or a run's: one row per image, one column of scores per label.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use cxr_dataset::Index;
use cxr_metrics::MultiLabel;
use cxr_table::{LARGEST_TEXT, Row, Table, csv_line, decode_text, excerpt};

use crate::error::MAX_BYTES;
use crate::{Evaluation, RunError, StudyRule, Truth};

/// What to do about rows, columns and cells that cannot be scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unscorable {
    /// The first one is an error that names its place.
    #[default]
    Refuse,
    /// They are left out and counted.
    Count,
}

/// The scores of some images for some labels, as a file has them.
///
/// The file may be gzip, and separated and encoded in every way that [`cxr_table::Table`] reads. The first column names the image. Every other column is about one label: `Mass`, or
/// `prob_Mass`, or `logit_Mass`, of which only the last means that a sigmoid makes it a
/// probability. Of a table that `cxr predict` wrote, the columns `prob_` are read.
///
/// ```
/// use cxr_run::{Predictions, ScoreKind, Unscorable};
/// let csv = "image,logit_Mass,Hernia\n1.png,0.5,0.01\n2.png,-2,0.02\n";
/// let predictions = Predictions::from_reader(csv.as_bytes(), "made.csv", Unscorable::Refuse)?;
/// assert_eq!(predictions.images(), ["1.png", "2.png"]);
/// assert_eq!(predictions.columns()[0].label, "Mass");
/// assert_eq!(predictions.columns()[0].kind, ScoreKind::Logit);
/// assert_eq!(predictions.columns()[1].scores, [0.01, 0.02]);
/// # Ok::<(), cxr_run::RunError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Predictions {
    path: PathBuf,
    images: Vec<String>,
    lines: Vec<u64>,
    columns: Vec<ScoreColumn>,
    repeated_rows: usize,
    unreadable_scores: usize,
}

/// The scores for one label.
#[derive(Clone, Debug)]
pub struct ScoreColumn {
    /// The label's name: the header without its prefix.
    pub label: String,
    /// The header as the file has it.
    pub header: String,
    /// What the scores are.
    pub kind: ScoreKind,
    /// One score per image; NaN where it was unreadable and only counted.
    pub scores: Vec<f64>,
    /// Which column of the file it is.
    place: usize,
}

/// What a column's prefix says about its scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreKind {
    /// `logit_`: the sigmoid of a score is a probability.
    Logit,
    /// `prob_` or no prefix: probabilities if they all lie in [0, 1], else scores to rank by.
    Probability,
}

impl Predictions {
    /// Reads a predictions file.
    ///
    /// # Errors
    /// [`RunError::Io`], and as for [`Self::from_reader`].
    pub fn read(path: &Path, unscorable: Unscorable) -> Result<Self, RunError> {
        let bytes = cxr_fs::read_stream(path, MAX_BYTES)?;
        Self::from_reader(bytes.as_slice(), path, unscorable)
    }

    /// Reads predictions from anywhere; `path` names them in errors. No buffering is needed.
    ///
    /// # Errors
    /// [`RunError::Table`], [`RunError::NoLabelColumn`] and [`RunError::LabelTwice`]; with
    /// [`Unscorable::Refuse`] also [`RunError::NotANumber`] and [`RunError::ImageTwice`].
    pub fn from_reader(
        reader: impl Read,
        path: impl Into<PathBuf>,
        unscorable: Unscorable,
    ) -> Result<Self, RunError> {
        let path = path.into();
        let mut bytes = Vec::new();
        let read = reader.take(LARGEST_TEXT + 1).read_to_end(&mut bytes);
        read.map_err(RunError::io("read", &path))?;
        let text = decode_text(bytes, &path)?;
        let table = Table::parse_or_empty(&text, &path)?;
        drop(text);
        let columns = columns_of(table.header(), &path)?;
        table.check_lengths()?;
        let mut predictions = Self {
            path,
            images: Vec::new(),
            lines: Vec::new(),
            columns,
            repeated_rows: 0,
            unreadable_scores: 0,
        };
        let mut first_lines = HashMap::new();
        for row in table.rows() {
            let (line, image) = (row.line(), row.cell(0));
            if let Some(&first_line) = first_lines.get(image) {
                if unscorable == Unscorable::Refuse {
                    return Err(RunError::ImageTwice {
                        path: predictions.path,
                        line,
                        first_line,
                        image: excerpt(image),
                    });
                }
                predictions.repeated_rows += 1;
                continue;
            }
            first_lines.insert(image, line);
            predictions.push(&table, row, unscorable)?;
        }
        Ok(predictions)
    }

    fn push(&mut self, table: &Table, row: &Row, unscorable: Unscorable) -> Result<(), RunError> {
        self.images.push(row.cell(0).to_owned());
        self.lines.push(row.line());
        for column in &mut self.columns {
            let cell = row.cell(column.place);
            let score = table.decimal(cell);
            if score.is_none() {
                if unscorable == Unscorable::Refuse {
                    return Err(RunError::NotANumber {
                        path: self.path.clone(),
                        line: row.line(),
                        column: excerpt(&column.header),
                        text: excerpt(cell),
                    });
                }
                self.unreadable_scores += 1;
            }
            column.scores.push(score.unwrap_or(f64::NAN));
        }
        Ok(())
    }

    /// Writes a table of logits, as runs have them: `Image Index`, then `logit_<label>` for each label.
    ///
    /// ```
    /// use cxr_run::Predictions;
    /// let mut text = Vec::new();
    /// let rows = [("1.png", [0.5, -2.].as_slice())];
    /// Predictions::write_logits(&mut text, &["Mass", "Hernia"], rows)?;
    /// assert_eq!(text, b"Image Index,logit_Mass,logit_Hernia\n1.png,0.5,-2\n");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_logits<'a, I: Display>(
        out: impl Write,
        labels: &[impl Display],
        rows: impl IntoIterator<Item = (I, &'a [f32])>,
    ) -> io::Result<()> {
        let mut out = io::BufWriter::new(out);
        let labels = labels.iter().map(|label| format!("logit_{label}"));
        let header = std::iter::once("Image Index".to_owned()).chain(labels);
        out.write_all(csv_line(header).as_bytes())?;
        for (image, logits) in rows {
            let row = std::iter::once(image.to_string());
            let row = row.chain(logits.iter().map(ToString::to_string));
            out.write_all(csv_line(row).as_bytes())?;
        }
        out.flush()
    }

    /// The scores beside what `index` says of the images, for every metric of `cxr-metrics`: the images in the order of
    /// their names, the labels in that of the index. Images of the index that are not in the table are left out.
    ///
    /// # Errors
    /// An image without labels, a label without scores or scores without a label; [`Evaluation::join`] can count them
    /// instead.
    pub fn to_multi_label(&self, index: &Index) -> Result<MultiLabel, RunError> {
        let truth = Truth::of(index)?;
        let evaluation = Evaluation::join(self, &truth, &[], Unscorable::Refuse)?;
        Ok(evaluation.data().clone())
    }

    /// The rows of the images in `kept` that are one unit as one row of its name, in the order in which units occur first.
    /// A score is NaN where one of the unit's images has none.
    pub(crate) fn joined<'a>(
        &'a self,
        kept: &HashSet<&str>,
        unit: impl Fn(&'a str) -> &'a str,
        rule: StudyRule,
    ) -> Self {
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut joined = Self {
            path: self.path.clone(),
            images: Vec::new(),
            lines: Vec::new(),
            columns: (self.columns.iter())
                .map(|column| ScoreColumn {
                    scores: Vec::new(),
                    ..column.clone()
                })
                .collect(),
            repeated_rows: 0,
            unreadable_scores: 0,
        };
        let mut counts: Vec<f64> = Vec::new();
        for (row, image) in self.images.iter().enumerate() {
            if !kept.contains(image.as_str()) {
                continue;
            }
            let name = unit(image);
            let place = *places.entry(name).or_insert(counts.len());
            if place == counts.len() {
                joined.images.push(name.to_owned());
                joined.lines.push(self.lines.get(row).copied().unwrap_or(0));
                counts.push(0.);
            }
            if let Some(count) = counts.get_mut(place) {
                *count += 1.;
            }
            for (to, from) in joined.columns.iter_mut().zip(&self.columns) {
                let score = from.scores.get(row).copied().unwrap_or(f64::NAN);
                match to.scores.get_mut(place) {
                    None => to.scores.push(score),
                    Some(known) => {
                        *known = match rule {
                            StudyRule::Mean => *known + score,
                            StudyRule::Max if known.is_nan() || score.is_nan() => f64::NAN,
                            StudyRule::Max => known.max(score),
                        }
                    }
                }
            }
        }
        if rule == StudyRule::Mean {
            for column in &mut joined.columns {
                let scores = column.scores.iter_mut().zip(&counts);
                scores.for_each(|(score, count)| *score /= count);
            }
        }
        joined
    }

    /// The file the predictions came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The images in the order of the rows, each once.
    pub fn images(&self) -> &[String] {
        &self.images
    }

    /// The line of each image in the file, the header being line 1.
    pub fn lines(&self) -> &[u64] {
        &self.lines
    }

    /// The columns in the order of the file.
    pub fn columns(&self) -> &[ScoreColumn] {
        &self.columns
    }

    /// How many rows were left out because their image has an earlier row.
    pub fn repeated_rows(&self) -> usize {
        self.repeated_rows
    }

    /// How many scores are no finite number.
    pub fn unreadable_scores(&self) -> usize {
        self.unreadable_scores
    }
}

fn columns_of(headers: &[String], path: &Path) -> Result<Vec<ScoreColumn>, RunError> {
    if headers.len() < 2 {
        return Err(RunError::NoLabelColumn {
            path: path.to_owned(),
            found: headers.len(),
        });
    }
    let of_predict = is_of_predict(headers);
    let mut columns: Vec<ScoreColumn> = Vec::new();
    for (place, header) in headers.iter().enumerate().skip(1) {
        if of_predict && !header.starts_with("prob_") {
            continue;
        }
        let (kind, label) = match (header.strip_prefix("logit_"), header.strip_prefix("prob_")) {
            (Some(label), _) => (ScoreKind::Logit, label),
            (None, Some(label)) => (ScoreKind::Probability, label),
            (None, None) => (ScoreKind::Probability, header.as_str()),
        };
        if let Some(first) = columns.iter().find(|column| column.label == label) {
            return Err(RunError::LabelTwice {
                path: path.to_owned(),
                label: excerpt(label),
                first: excerpt(&first.header),
                second: excerpt(header),
            });
        }
        columns.push(ScoreColumn {
            label: label.to_owned(),
            header: header.to_owned(),
            kind,
            scores: Vec::new(),
            place,
        });
    }
    Ok(columns)
}

/// Whether it is the header of a table that `cxr predict` wrote, which has each label three times: its logit, its
/// probability, by which it is scored, and whether it is positive.
fn is_of_predict(headers: &[String]) -> bool {
    let Some((["image", "patient", "study"], mut labels)) = headers
        .split_first_chunk::<3>()
        .map(|(first, rest)| (first.each_ref().map(String::as_str), rest))
    else {
        return false;
    };
    if let [distance, unusual, rest @ ..] = labels
        && (distance.as_str(), unusual.as_str()) == ("distance", "unusual")
    {
        labels = rest;
    }
    let n_labels = labels.len() / 3;
    let of = |kind: &str, first: usize| -> Option<Vec<&str>> {
        let headers = labels.get(first..first + n_labels)?;
        headers
            .iter()
            .map(|header| header.strip_prefix(kind))
            .collect()
    };
    let logits = of("logit_", 0);
    n_labels > 0
        && labels.len() == 3 * n_labels
        && logits.is_some()
        && logits == of("prob_", n_labels)
        && logits == of("positive_", 2 * n_labels)
}
