//! `cxr inspect`: what a data set holds, before anything is trained on it.

mod images;
mod labels;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use cxr_dataset::{
    DatasetError, Index, OfficialLists, Part, ReadOptions, ReaderRule, Sex, Split, Subset,
    TEST_LIST, TRAIN_LIST, TableFormat, ValidationSplit, ViewPosition, has_lists, has_tables,
    label_table, only_folder_beside,
};
use serde_json::{Value, json};

use crate::blank::BlankArgs;
use crate::output::{ForceArg, is_split};
use crate::progress::say;
use crate::train::{interrupted, set_threads, stop_flag};
use crate::{SOME_FAILED, scoring};

/// Look at a data set: counts, label frequencies, co-occurrence, splits and their leaks, images
///
/// PATH is a data folder (label tables, lists, images), a label table alone, a folder of images, an
/// archive, or a prepared store. The tables of published data sets are known by their headers; tables that belong
/// together, such as MIMIC-CXR-JPG's metadata, split and labels, are joined when they lie in one folder. Every image is decoded, as training would, or its checksum is
/// verified; with broken ones the exit code is 3. A split is reported with its sizes, label counts
/// and the patients on both sides, and can be written to a file that `diff` compares.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What to look at
    #[arg(value_name = "PATH")]
    path: PathBuf,

    /// Where label table and lists are, if not in PATH or the one folder beside it that has them
    #[arg(long, value_name = "DIR")]
    metadata: Option<PathBuf>,

    /// The label table, if it has another name than ChestX-ray14's or labels.csv
    #[arg(long, value_name = "LABELS.csv")]
    labels: Option<PathBuf>,

    /// What the tables are, if their headers leave that open
    #[arg(long, value_name = "NAME", long_help = formats_help())]
    format: Option<TableFormat>,

    /// How several readers of one image (VinDr-CXR, VinBigData, Google's readers) are joined: any (one says yes),
    /// majority (more than half say yes; a tie is uncertain) or all (every one says yes)
    #[arg(long, value_name = "RULE", default_value = "majority")]
    readers: ReaderRule,

    #[command(flatten)]
    blank: BlankArgs,

    /// Which images validate: official (none), paper (a tenth of the images), patient (a tenth in
    /// whole patients), or one of several folds such as patient-fold-0-of-5
    #[arg(long, value_name = "RULE", default_value = "paper")]
    split: ValidationSplit,

    /// The seed of the split, as an experiment names it
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,

    /// Report the split of this file instead
    #[arg(long, value_name = "SPLIT.csv", conflicts_with_all = ["split", "seed", "hold_out"])]
    split_file: Option<PathBuf>,

    /// Write the split to this file, one image a line
    #[arg(long, value_name = "SPLIT.csv")]
    write_split: Option<PathBuf>,

    /// Make lists for a data set that has none: one in N images is for the test, in whole patients
    /// if the table knows them
    #[arg(long, value_name = "N")]
    hold_out: Option<usize>,

    /// Write train_val_list.txt and test_list.txt into this folder
    #[arg(long, value_name = "DIR")]
    write_lists: Option<PathBuf>,

    #[command(flatten)]
    force: ForceArg,

    /// Only radiographs of this view; with the options below, all conditions must hold
    #[arg(long, value_enum, ignore_case = true)]
    view: Option<View>,

    /// Only patients of at least this age
    #[arg(long, value_name = "YEARS")]
    min_age: Option<u16>,

    /// Only patients of at most this age
    #[arg(long, value_name = "YEARS")]
    max_age: Option<u16>,

    /// Only patients of this sex
    #[arg(long, value_enum)]
    sex: Option<SexArg>,

    /// Only images with this finding
    #[arg(long, value_name = "LABEL")]
    finding: Option<String>,

    /// Do not look at the images
    #[arg(long)]
    no_images: bool,

    /// Print everything as JSON
    #[arg(long)]
    json: bool,

    /// Threads to decode with [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

const EXAMPLES: &str = "Examples:
  cxr inspect data/nih --split patient
  cxr inspect data/nih --no-images --view PA --min-age 18 --split patient --write-split split.csv
  cxr inspect mine --labels mine/findings.csv --hold-out 5 --write-lists mine
  cxr inspect data/nih/images-256.store
  cxr inspect chexpert/train.csv
  cxr inspect mimic-cxr-jpg --no-images --json
  cxr inspect vindr-cxr/annotations --readers all
  cxr inspect chexpert/train.csv --blank negative

With --json: images, patients, studies (null where the tables do not say), views (images by view), and for each of
the labels its positives, negatives, uncertain and unknown images; blank, the unknown ones of each label whose cell is
empty; official_parts, age_years, sex, boxes, warnings, split, image_files.";

/// The formats by name.
fn formats_help() -> String {
    let formats =
        TableFormat::all().map(|format| format!("\n  {}: {}", format.name(), format.title()));
    format!(
        "What the tables are, if their headers leave that open:{}",
        formats.collect::<String>()
    )
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum View {
    Pa,
    Ap,
    Lateral,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum SexArg {
    F,
    M,
}

impl Args {
    fn subset(&self) -> Subset {
        Subset {
            view: self.view.map(|view| match view {
                View::Pa => ViewPosition::PosteroAnterior,
                View::Ap => ViewPosition::AnteroPosterior,
                View::Lateral => ViewPosition::Lateral,
            }),
            min_age: self.min_age,
            max_age: self.max_age,
            sex: self.sex.map(|sex| match sex {
                SexArg::F => Sex::Female,
                SexArg::M => Sex::Male,
            }),
            finding: self.finding.clone(),
        }
    }

    /// Whether something was asked for that needs a label table.
    fn needs_labels(&self) -> bool {
        self.labels.is_some()
            || self.metadata.is_some()
            || self.split_file.is_some()
            || self.write_split.is_some()
            || self.hold_out.is_some()
            || self.write_lists.is_some()
            || !self.subset().is_everything()
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    set_threads(args.threads)?;
    let mut json = json!({ "path": args.path });
    let mut text = String::new();
    let place = Place::find(args)?;
    let (mut listed, mut labelled) = (None, None);
    if let Some(table) = &place.table {
        let options = ReadOptions {
            format: args.format,
            readers: args.readers,
        };
        let index = Index::read_with(table, &options).map_err(with_hint)?;
        let index = index.with_blanks(&args.blank.blanks())?;
        json["readers"] = json!(args.readers.to_string());
        if let Some(path) = &args.write_split {
            let output = args.force.output(path).inputs(place.read(args, &index));
            output.ours(is_split).check()?;
        }
        labels::tell(&index, &mut text, &mut json);
        if let Some(split) = split(args, &index, &place, &mut text)? {
            let report = split.report(&index)?;
            text += &format!("\n{report}");
            json["split"] = serde_json::to_value(&report)?;
            if let Some(path) = &args.write_split {
                split.write(path)?;
                say(&format!("the split is in `{}`", path.display()));
            }
            listed = Some(split);
        }
        if let Some(split) = &listed {
            let names: Vec<_> = Part::ALL
                .into_iter()
                .flat_map(|part| split.part(part))
                .collect();
            json["subset"] = json!(args.subset().to_string());
            json["selected_images"] = json!(names.len());
        }
        json["index_fingerprint"] = json!(index.fingerprint().to_string());
        labelled = Some(index);
    }
    let mut broken = 0;
    if let (Some(images), false) = (&place.images, args.no_images) {
        let stop = stop_flag()?;
        let Some(found) = images::look(images, labelled.as_ref(), &stop)? else {
            return Ok(interrupted());
        };
        found.tell(listed.as_ref(), &mut text, &mut json);
        if labelled.is_none() {
            json["images"] = json["image_files"]["count"].clone();
        }
        broken = found.n_broken();
    }
    if args.json {
        scoring::print_json(&json)?;
    } else {
        scoring::print(text.trim_start_matches('\n'))?;
    }
    Ok(match broken {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(SOME_FAILED),
    })
}

/// What an option can do about an error.
fn with_hint(error: DatasetError) -> anyhow::Error {
    let is_open = |error: &DatasetError| matches!(error, DatasetError::Table { repair, .. } if repair.contains("name the table"));
    match is_open(&error) {
        true => anyhow::anyhow!(
            "{error}\nhint: `--labels FILE` names a table, `--format NAME` a format"
        ),
        false => error.into(),
    }
}

/// Where label table, lists and images are.
struct Place {
    table: Option<PathBuf>,
    /// The folder of the lists.
    lists: Option<PathBuf>,
    images: Option<PathBuf>,
}

impl Place {
    fn find(args: &Args) -> anyhow::Result<Self> {
        let path = &args.path;
        let kind =
            std::fs::metadata(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let name = path.to_string_lossy();
        let is_table = kind.is_file() && (name.ends_with(".csv") || name.ends_with(".csv.gz"));
        let own_folder = match kind.is_dir() {
            true => path.clone(),
            false => match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
                _ => PathBuf::from("."),
            },
        };
        let has_table =
            |folder: &Path| has_tables(folder) || (kind.is_dir() && args.format.is_some());
        // A folder of images may have its metadata beside it; a store or an archive in its own.
        let folder = match &args.metadata {
            Some(folder) => Some(folder.clone()),
            None if has_table(&own_folder) || is_table || args.labels.is_some() => {
                Some(own_folder.clone())
            }
            None if kind.is_dir() => only_folder_beside(&own_folder, &|folder| {
                label_table(folder).is_some() && has_lists(folder)
            }),
            None => None,
        };
        let table = match (&args.labels, is_table) {
            (Some(table), _) => Some(table.clone()),
            (None, true) => Some(path.clone()),
            (None, false) => folder.clone().filter(|folder| has_table(folder)),
        };
        if table.is_none() && args.needs_labels() {
            bail!(
                "no label table is found for `{}`\nhint: name it with `--labels FILE`",
                path.display()
            );
        }
        Ok(Self {
            table,
            lists: folder.filter(|folder| has_lists(folder)),
            images: (!is_table).then(|| path.clone()),
        })
    }
}

impl Place {
    /// The label table, the lists or the split, and what is looked at, that a command with these arguments reads.
    fn read(&self, args: &Args, index: &Index) -> Vec<PathBuf> {
        let lists = (self.lists.iter())
            .filter(|_| args.hold_out.is_none() && args.split_file.is_none())
            .flat_map(|folder| [TRAIN_LIST, TEST_LIST].map(|name| folder.join(name)));
        let files = [&args.split_file, &self.images];
        let files = files.into_iter().flatten().chain(index.tables());
        lists.chain(files.cloned()).collect()
    }
}

/// The split that was asked for, of the official lists or of new ones. `None` without lists.
fn split(
    args: &Args,
    index: &Index,
    place: &Place,
    text: &mut String,
) -> anyhow::Result<Option<Split>> {
    let subset = args.subset();
    let split = if let Some(path) = &args.split_file {
        *text += &format!("\nsplit of {}\n", path.display());
        Split::read(path)?
    } else {
        let lists = match (args.hold_out, place.lists.as_deref()) {
            (Some(of), _) => OfficialLists::hold_out(index, args.seed, of)?,
            (None, Some(folder)) => {
                OfficialLists::read(folder.join(TRAIN_LIST), folder.join(TEST_LIST))?
            }
            (None, None) if args.needs_labels() && args.labels.is_none() => bail!(
                "there are no `{TRAIN_LIST}` and `{TEST_LIST}`\nhint: make them with `--hold-out 5`"
            ),
            (None, None) => return Ok(None),
        };
        if let Some(folder) = &args.write_lists {
            write_lists(args, place, index, &lists, folder)?;
        }
        Split::new(index, &lists, args.split, args.seed)?
    };
    if subset.is_everything() {
        return Ok(Some(split));
    }
    *text += &format!("\nsubset: {subset}\n");
    Ok(Some(split.select(index, &subset)?))
}

/// Writes both lists, unless they are there. A list has no mark of whose it is: one that differs is taken for another's.
fn write_lists(
    args: &Args,
    place: &Place,
    index: &Index,
    lists: &OfficialLists,
    folder: &Path,
) -> anyhow::Result<()> {
    let files = [TRAIN_LIST, TEST_LIST].map(|name| folder.join(name));
    let [train_val, test] = &files;
    let is_there = OfficialLists::read(train_val, test).is_ok_and(|found| found == *lists);
    if !is_there {
        for (file, names) in [(train_val, lists.train_val()), (test, lists.test())] {
            let text = names.iter().map(|name| format!("{name}\n"));
            let text = text.collect::<String>();
            let found = cxr_fs::read_regular(file, text.len() as u64);
            let is_same = found.is_ok_and(|found| found == text.as_bytes());
            let output = args.force.output(file).inputs(place.read(args, index));
            output.ours(|_| is_same).check()?;
        }
        lists.write(train_val, test)?;
    }
    say(&format!(
        "`{TRAIN_LIST}` and `{TEST_LIST}` are in `{}`",
        folder.display()
    ));
    Ok(())
}

/// A list of numbers as JSON.
fn counts(pairs: impl IntoIterator<Item = (String, usize)>) -> Value {
    Value::Object(
        pairs
            .into_iter()
            .map(|(key, count)| (key, json!(count)))
            .collect(),
    )
}
