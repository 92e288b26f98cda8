//! Parts: answers as they come, beside the file that they will be. A part that was cut off by a kill goes on where it
//! was, and the parts of several processes are joined.
//!
//! A part is a text of JSON, one value a line: what was asked, then one answer or failure per image in order, then its
//! end. A line that a kill has cut is no answer.

use std::fs::{File, TryLockError};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

use super::network::Threshold;

/// How every part begins.
const START: &str = r#"{"cxr_predict":1,"#;

/// What was asked: parts with other settings are not of one work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Settings {
    /// The version of this form.
    cxr_predict: u32,
    /// SHA-256 of each model's file.
    pub(super) models: Vec<String>,
    pub(super) labels: Vec<String>,
    /// The models' thresholds.
    pub(super) thresholds: Vec<Threshold>,
    pub(super) views: String,
    /// How several models become one answer.
    pub(super) average: String,
    pub(super) stretch: bool,
    /// Whether answers say how unlike an image is to those that a model knows.
    #[serde(default)]
    pub(super) has_reference: bool,
    /// What the models ask for beside the images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) inputs: Vec<String>,
    /// A digest of what a table says of that; none without a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) non_image: Option<String>,
    /// How many images there are, over all parts.
    pub(super) n_images: usize,
    /// A digest of their names.
    pub(super) images: String,
    /// Which part this is, from 1, and of how many.
    pub(super) shard: Shard,
}

/// Every so-manieth image, from one of the first on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shard {
    /// From 1.
    pub(super) number: usize,
    pub(super) count: usize,
}

/// What is known of one image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    /// Its place among all images.
    pub(super) at: usize,
    pub(super) image: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) patient: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) study: Option<String>,
    /// Empty where there is no answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) logits: Vec<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) probabilities: Vec<f64>,
    /// How unlike the image is to those that a model knows: above 1, unlike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) distance: Option<f64>,
    /// What the models ask for and is not known of the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) missing: Vec<String>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) failed: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    /// How many images the part has.
    end: usize,
}

impl Shard {
    pub(super) const WHOLE: Self = Self {
        number: 1,
        count: 1,
    };

    pub(super) fn has(self, at: usize) -> bool {
        at % self.count == self.number - 1
    }

    /// How many of so many images are its own.
    pub(super) fn share(self, n_images: usize) -> usize {
        (n_images + self.count - self.number) / self.count
    }

    /// Where the part of a file stands.
    pub(super) fn path(self, output: &Path) -> PathBuf {
        let mut name = output.file_name().unwrap_or_default().to_owned();
        if self.count == 1 {
            name.push(".part");
        } else {
            name.push(format!(".part-{}-of-{}", self.number, self.count));
        }
        output.with_file_name(name)
    }
}

impl Settings {
    pub(super) fn new(labels: Vec<String>, shard: Shard) -> Self {
        Self {
            cxr_predict: 1,
            models: Vec::new(),
            labels,
            thresholds: Vec::new(),
            views: String::new(),
            average: String::new(),
            stretch: false,
            has_reference: false,
            inputs: Vec::new(),
            non_image: None,
            n_images: 0,
            images: String::new(),
            shard,
        }
    }

    /// What two parts of one work have in common.
    fn without_shard(&self) -> Self {
        Self {
            shard: Shard::WHOLE,
            ..self.clone()
        }
    }
}

/// A part that is being written, by this process alone.
pub(super) struct Part {
    path: PathBuf,
    file: File,
    n_done: usize,
    is_finished: bool,
}

impl Drop for Part {
    /// As [`cxr_fs::Lock`] does, and for its reason.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

impl Part {
    /// Opens a part, or goes on with it: what it has stays, but for a line that was cut.
    ///
    /// # Errors
    /// Another process is writing it, or it is of another work.
    pub(super) fn open(path: &Path, settings: &Settings) -> anyhow::Result<Self> {
        let failed = || format!("cannot write `{}`", path.display());
        if path.exists() {
            // Not a device, not a pipe.
            cxr_fs::open_regular(path)?;
        }
        let file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .with_context(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another process is writing `{}`", path.display());
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
        }
        let mut part = Self {
            path: path.to_owned(),
            file,
            n_done: 0,
            is_finished: false,
        };
        let mut whole = 0;
        let mut end = None;
        let read = Reader::of(&part.file, path)?;
        if let Some((mut reader, found)) = read {
            ensure!(
                found == *settings,
                "`{}` is of other images, models or settings\nhint: repeat the call that began it, or delete it",
                path.display()
            );
            whole = reader.n_bytes;
            while let Some(line) = reader.next()? {
                match line {
                    Line::Row(_) => part.n_done += 1,
                    Line::End(n_images) => end = Some(n_images),
                }
                whole = reader.n_bytes;
            }
        }
        part.is_finished = end.is_some();
        part.file.set_len(whole).with_context(failed)?;
        part.file.seek(SeekFrom::End(0)).with_context(failed)?;
        if whole == 0 {
            let mut header = serde_json::to_string(settings)?;
            header.push('\n');
            part.write(&header)?;
        }
        Ok(part)
    }

    /// Images that have an answer or a failure.
    pub(super) fn n_done(&self) -> usize {
        self.n_done
    }

    /// Whether all of its images have.
    pub(super) fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Adds what is known of some images.
    ///
    /// # Errors
    /// The disk is full, or the file is gone.
    pub(super) fn push(&mut self, rows: &[Row]) -> anyhow::Result<()> {
        let mut text = String::new();
        for row in rows {
            text += &serde_json::to_string(row)?;
            text.push('\n');
        }
        self.write(&text)?;
        self.n_done += rows.len();
        Ok(())
    }

    /// Says that nothing is missing.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub(super) fn finish(&mut self) -> anyhow::Result<()> {
        if !self.is_finished {
            let end = End { end: self.n_done };
            let line = serde_json::to_string(&end)? + "\n";
            self.write(&line)?;
            self.file
                .sync_all()
                .with_context(|| format!("cannot write `{}`", self.path.display()))?;
            self.is_finished = true;
        }
        Ok(())
    }

    fn write(&mut self, text: &str) -> anyhow::Result<()> {
        ensure!(
            cxr_fs::is_at(&self.file, &self.path),
            "`{}` was deleted or moved while it was written",
            self.path.display()
        );
        self.file
            .write_all(text.as_bytes())
            .with_context(|| format!("cannot write `{}`", self.path.display()))
    }
}

/// A finished line of a part.
pub(super) enum Line {
    Row(Row),
    /// With the number of images before it.
    End(usize),
}

/// Reads a part line by line.
pub(super) struct Reader {
    path: PathBuf,
    lines: BufReader<File>,
    number: usize,
    /// The length of all whole lines so far.
    n_bytes: u64,
    shard: Shard,
    next_row: usize,
    has_ended: bool,
}

impl Reader {
    /// Opens a part; `None` when not even its first line is whole.
    ///
    /// # Errors
    /// It is no part, or cannot be read.
    pub(super) fn open(path: &Path) -> anyhow::Result<Option<(Self, Settings)>> {
        Self::of(&cxr_fs::open_regular(path)?, path)
    }

    fn of(file: &File, path: &Path) -> anyhow::Result<Option<(Self, Settings)>> {
        let mut file = file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        let mut reader = Self {
            path: path.to_owned(),
            lines: BufReader::new(file),
            number: 0,
            n_bytes: 0,
            shard: Shard::WHOLE,
            next_row: 0,
            has_ended: false,
        };
        let start = reader.lines.fill_buf()?;
        let n_known = start.len().min(START.len());
        ensure!(
            start.get(..n_known) == START.as_bytes().get(..n_known),
            "`{}` is no part of predictions\nhint: choose another `--out`",
            path.display()
        );
        let Some(line) = reader.line()? else {
            return Ok(None);
        };
        let settings: Settings = reader.parse(&line)?;
        let Shard { number, count } = settings.shard;
        ensure!(
            (1..=count).contains(&number),
            "`{}`: part {number} of {count}",
            path.display()
        );
        ensure!(
            settings.thresholds.len() == settings.labels.len(),
            "`{}`: expected a threshold for each of its {} labels, got {}",
            path.display(),
            settings.labels.len(),
            settings.thresholds.len()
        );
        reader.shard = settings.shard;
        Ok(Some((reader, settings)))
    }

    /// The next line; `None` behind the last whole one.
    ///
    /// # Errors
    /// A line that is not what stands there in a part.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Line>> {
        let Some(line) = self.line()? else {
            return Ok(None);
        };
        ensure!(
            !self.has_ended,
            "`{}`, line {}: nothing stands behind the end",
            self.path.display(),
            self.number
        );
        if line.starts_with(r#"{"end":"#) {
            let End { end } = self.parse(&line)?;
            ensure!(
                end == self.next_row,
                "`{}` ends after {} images and should have {end}",
                self.path.display(),
                self.next_row
            );
            self.has_ended = true;
            return Ok(Some(Line::End(end)));
        }
        let row: Row = self.parse(&line)?;
        let expected = self.shard.number - 1 + self.next_row * self.shard.count;
        ensure!(
            row.at == expected,
            "`{}`, line {}: expected image {expected}, got {}",
            self.path.display(),
            self.number,
            row.at
        );
        self.next_row += 1;
        Ok(Some(Line::Row(row)))
    }

    fn line(&mut self) -> anyhow::Result<Option<String>> {
        /// No line of a part is longer: a name, and two numbers for each of a thousand labels.
        const MAX_LINE: u64 = 1 << 20;
        let mut line = Vec::new();
        (&mut self.lines)
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .with_context(|| format!("cannot read `{}`", self.path.display()))?;
        if line.last() != Some(&b'\n') {
            ensure!(
                (line.len() as u64) < MAX_LINE,
                "`{}`, line {}: it is too long",
                self.path.display(),
                self.number + 1
            );
            return Ok(None);
        }
        self.n_bytes += line.len() as u64;
        self.number += 1;
        line.pop();
        String::from_utf8(line)
            .map(Some)
            .with_context(|| format!("`{}`, line {}", self.path.display(), self.number))
    }

    fn parse<T: for<'de> Deserialize<'de>>(&self, line: &str) -> anyhow::Result<T> {
        serde_json::from_str(line).with_context(|| {
            format!(
                "`{}`, line {}: it is damaged\nhint: delete the file, and its images are predicted again",
                self.path.display(),
                self.number
            )
        })
    }
}

/// The rows of finished parts, in the order of the images.
pub(super) struct Joined {
    readers: Vec<Reader>,
    next: usize,
    n_images: usize,
}

impl Joined {
    /// Opens the parts of one work.
    ///
    /// # Errors
    /// Parts that are missing, not finished, or of different works; all of them are named.
    pub(super) fn open(paths: &[PathBuf]) -> anyhow::Result<(Self, Settings)> {
        let mut readers: Vec<(Reader, Settings)> = Vec::new();
        for path in paths {
            let opened = Reader::open(path)?
                .with_context(|| format!("`{}` has not begun", path.display()))?;
            if let Some((_, first)) = readers.first() {
                ensure!(
                    opened.1.without_shard() == first.without_shard(),
                    "`{}` is of other images, models or settings than `{}`",
                    path.display(),
                    paths
                        .first()
                        .map_or(Path::new(""), PathBuf::as_path)
                        .display()
                );
                ensure!(
                    opened.1.shard.count == first.shard.count,
                    "`{}` is one of {} parts, and others of {}",
                    path.display(),
                    opened.1.shard.count,
                    first.shard.count
                );
            }
            readers.push(opened);
        }
        readers.sort_by_key(|(_, settings)| settings.shard.number);
        let Some((_, settings)) = readers.first() else {
            bail!("there are no parts");
        };
        let settings = settings.clone();
        let count = settings.shard.count;
        let mut problems = Vec::new();
        for number in 1..=count {
            let mut found = readers.iter_mut().filter(|(_, s)| s.shard.number == number);
            match (found.next(), found.next()) {
                (None, _) => problems.push(format!("part {number} of {count} is missing")),
                (Some(_), Some(_)) => {
                    problems.push(format!("part {number} of {count} is there twice"));
                }
                (Some((reader, settings)), None) => {
                    let (n_done, n_wanted) =
                        (count_rows(reader)?, settings.shard.share(settings.n_images));
                    if n_done != (n_wanted, true) {
                        let n_left = n_wanted.saturating_sub(n_done.0);
                        problems.push(format!(
                            "part {number} of {count} is not finished: {n_left} of its {n_wanted} images are missing"
                        ));
                    }
                }
            }
        }
        ensure!(
            problems.is_empty(),
            "{}\nhint: the same call of `cxr predict` with `--shard` makes a part, or goes on with it",
            problems.join("; ")
        );
        let joined = Self {
            readers: readers.into_iter().map(|(reader, _)| reader).collect(),
            next: 0,
            n_images: settings.n_images,
        };
        Ok((joined, settings.without_shard()))
    }

    /// The row of the next image.
    ///
    /// # Errors
    /// A part that was changed since it was opened.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Row>> {
        if self.next == self.n_images {
            return Ok(None);
        }
        let number = self.next % self.readers.len();
        let line = match self.readers.get_mut(number) {
            Some(reader) => reader.next()?,
            None => None,
        };
        match line {
            Some(Line::Row(row)) => {
                self.next += 1;
                Ok(Some(row))
            }
            _ => bail!("a part was changed while it was read"),
        }
    }
}

/// Reads a part to its end and goes back to its first row: how many there are, and whether its end is.
fn count_rows(reader: &mut Reader) -> anyhow::Result<(usize, bool)> {
    let mut n_rows = 0;
    while let Some(line) = reader.next()? {
        n_rows += usize::from(matches!(line, Line::Row(_)));
    }
    let has_ended = reader.has_ended;
    if let Some((again, _)) = Reader::open(&reader.path)? {
        *reader = again;
    }
    Ok((n_rows, has_ended))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(n_images: usize) -> Settings {
        Settings {
            n_images,
            thresholds: vec![Threshold {
                logit: Some(0.),
                probability: 0.5,
            }],
            ..Settings::new(vec!["Mass".to_owned()], Shard::WHOLE)
        }
    }

    fn row(at: usize) -> Row {
        let failed = (at % 3 == 1).then(|| "it is empty".to_owned());
        let values = if failed.is_some() {
            vec![]
        } else {
            vec![at as f64 / 3.]
        };
        Row {
            at,
            image: format!("{at}, \"quoted\"\n.png"),
            patient: None,
            study: None,
            logits: values.clone(),
            probabilities: values,
            distance: (at == 2).then_some(0.1),
            missing: vec!["age".to_owned(); usize::from(at == 2)],
            failed,
        }
    }

    /// A finished part of five images.
    fn part(folder: &Path) -> PathBuf {
        let path = folder.join("out.csv.part");
        let mut part = Part::open(&path, &settings(5)).unwrap();
        part.push(&[row(0), row(1)]).unwrap();
        part.push(&[row(2), row(3), row(4)]).unwrap();
        part.finish().unwrap();
        path
    }

    #[test]
    fn a_part_that_is_cut_anywhere_goes_on_to_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = part(folder.path());
        let whole = std::fs::read(&path).unwrap();
        for length in 0..=whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let mut part = Part::open(&path, &settings(5)).unwrap();
            let rows: Vec<Row> = (part.n_done()..5).map(row).collect();
            if !part.is_finished() {
                part.push(&rows).unwrap();
                part.finish().unwrap();
            }
            drop(part);
            assert_eq!(std::fs::read(&path).unwrap(), whole, "cut at {length}");
        }
        let (mut joined, _) = Joined::open(&[path]).unwrap();
        for at in 0..5 {
            assert_eq!(joined.next().unwrap(), Some(row(at)));
        }
        assert_eq!(joined.next().unwrap(), None);
    }

    #[test]
    fn shards_share_all_images() {
        for (n_images, count) in [(0, 1), (1, 4), (5, 4), (12, 4), (3, 7)] {
            let shares = (1..=count).map(|number| Shard { number, count });
            let of: Vec<usize> = shares
                .clone()
                .map(|shard| (0..n_images).filter(|&at| shard.has(at)).count())
                .collect();
            assert_eq!(of.iter().sum::<usize>(), n_images);
            let reported: Vec<usize> = shares.map(|shard| shard.share(n_images)).collect();
            assert_eq!(of, reported, "{n_images} in {count}");
        }
    }

    proptest! {
        /// Whatever a part contains, reading it is an error or gives rows in their order.
        #[test]
        fn a_damaged_part_is_an_error_or_has_rows_in_order(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = part(folder.path());
            let mut bytes = std::fs::read(&path).unwrap();
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
            std::fs::write(&path, &bytes).unwrap();
            if let Ok(Some((mut reader, _))) = Reader::open(&path) {
                let mut next = 0;
                while let Ok(Some(line)) = reader.next() {
                    if let Line::Row(row) = line {
                        prop_assert_eq!(row.at, next);
                        next += 1;
                    }
                }
            }
            let _ = Part::open(&path, &settings(5));
            let _ = Joined::open(&[path]);
        }
    }
}
