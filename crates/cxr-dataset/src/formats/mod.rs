//! Published data sets and own tables, one file each: how their tables are recognised, what a row means, and where
//! the data set is asked for.
//!
//! A new data set is a file here and a line in [`FORMATS`].

mod chest_x_ray14;
mod chexpert;
mod cxr_lt;
#[cfg(test)]
mod every_format;
mod google_nih;
mod mimic;
mod own_table;
mod padchest;
mod readers;
mod rsna;
mod sheet;
mod siim;
mod source;
mod vindr;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

pub use readers::ReaderRule;
pub(crate) use sheet::{Line, Sheet};
pub(crate) use source::{Header, Source, key};

use crate::{DatasetError, Index};

/// A published data set, or the form of own tables: how its tables are told from others, and how they are read.
pub(crate) trait DatasetFormat: Sync + fmt::Debug {
    /// Its name on the command line and in JSON, in lower case with hyphens.
    fn name(&self) -> &'static str;

    /// Its name for people.
    fn title(&self) -> &'static str;

    /// On what terms the data set is given out, and where it is asked for. Empty for own tables.
    fn access(&self) -> &'static str;

    /// Whether a table with this header is one of the data set's.
    fn recognises(&self, header: &Header<'_>) -> bool;

    /// Whether tables of the data set that lie beside a named one may belong to it.
    fn joins(&self) -> bool {
        false
    }

    /// Reads the tables of a request, at least one of which was named.
    ///
    /// # Errors
    /// Whatever in the tables is not understood; what makes no row unusable is a counted warning of the index.
    fn read(&self, request: Request) -> Result<Index, DatasetError>;

    /// A table of each kind, for what every format has to withstand: see the tests in `every_format`.
    #[cfg(test)]
    fn examples(&self) -> &'static [Example];
}

/// A table that a format reads, with one label at least and a row of an image that is called `@`.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Example {
    pub(crate) header: &'static str,
    pub(crate) row: &'static str,
    /// Names of two images.
    pub(crate) names: [&'static str; 2],
}

/// Every format, in the order in which they are tried: those that another's header would pass for come first, and own
/// tables last.
static FORMATS: &[&dyn DatasetFormat] = &[
    &google_nih::GoogleNih,
    &chest_x_ray14::ChestXRay14,
    &chexpert::CheXpert,
    &cxr_lt::CxrLt,
    &mimic::MimicCxrJpg,
    &padchest::PadChest,
    &vindr::VinBigData,
    &vindr::VinDrCxr,
    &rsna::RsnaPneumonia,
    &siim::SiimPneumothorax,
    &own_table::OwnTable,
];

/// A form of label tables that [`Index::read`] knows: a published data set's, or that of own tables.
///
/// ```
/// use cxr_dataset::TableFormat;
/// let format: TableFormat = "chexpert".parse()?;
/// assert_eq!(format.title(), "CheXpert");
/// assert!(TableFormat::all().count() > 8);
/// # Ok::<(), cxr_dataset::DatasetError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TableFormat(&'static dyn DatasetFormat);

impl TableFormat {
    /// Every format, in the order in which they are tried.
    pub fn all() -> impl Iterator<Item = Self> {
        FORMATS.iter().map(|format| Self(*format))
    }

    /// Its name on the command line and in JSON, in lower case with hyphens.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Its name for people.
    pub fn title(self) -> &'static str {
        self.0.title()
    }

    /// On what terms the data set is given out, and where it is asked for; empty for own tables.
    pub fn access(self) -> &'static str {
        self.0.access()
    }
}

impl PartialEq for TableFormat {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for TableFormat {}

impl FromStr for TableFormat {
    type Err = DatasetError;

    fn from_str(name: &str) -> Result<Self, DatasetError> {
        let found = FORMATS.iter().find(|format| format.name() == name);
        found.map(|format| Self(*format)).ok_or_else(|| {
            let names: Vec<&str> = FORMATS.iter().map(|format| format.name()).collect();
            DatasetError::Format {
                problem: format!("there is no format `{}`", cxr_table::excerpt(name)),
                repair: format!("take one of {}", names.join(", ")),
            }
        })
    }
}

/// How the tables of a data set are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Their format; found by their headers without this.
    pub format: Option<TableFormat>,
    /// How several readers of one image are joined.
    pub readers: ReaderRule,
}

/// What a format is asked to read.
pub(crate) struct Request {
    /// The named tables, or those of a folder.
    pub(crate) named: Vec<Source>,
    /// Others of the data set in the folder of the one that was named.
    pub(crate) beside: Vec<Source>,
    pub(crate) readers: ReaderRule,
}

impl Request {
    /// All tables of the request.
    pub(crate) fn all(self) -> Vec<Source> {
        self.named.into_iter().chain(self.beside).collect()
    }
}

pub(crate) fn read(path: &Path, options: &ReadOptions) -> Result<Index, DatasetError> {
    let request = |named, beside| Request {
        named,
        beside,
        readers: options.readers,
    };
    let wanted = options.format.map(|format| format.0);
    if path.is_dir() {
        let (format, sources) = find(path, wanted)?;
        return format.read(request(sources, Vec::new()));
    }
    // A pipe is read once, so the whole table comes before its format is known.
    let named = Source::of_sheet(Sheet::read(path)?);
    let format = match wanted {
        Some(format) => format,
        None => recognise(&named.header())?,
    };
    let mut beside = Vec::new();
    if format.joins() && path.is_file() {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        for table in source::tables_in(folder)? {
            let source = Source::peek(&table)?;
            if !source.is(path) && format.recognises(&source.header()) {
                beside.push(source);
            }
        }
    }
    format.read(request(vec![named], beside))
}

fn recognise(header: &Header<'_>) -> Result<&'static dyn DatasetFormat, DatasetError> {
    let found = FORMATS.iter().find(|format| format.recognises(header));
    found.copied().ok_or_else(|| DatasetError::Format {
        problem: "no format knows this table".to_owned(),
        repair: "name its format".to_owned(),
    })
}

/// Names under which a label table is found in a folder whatever else is there: ChestX-ray14's, or an own one.
pub(crate) const LABEL_TABLES: [&str; 6] = [
    "Data_Entry_2017_v2020.csv",
    "Data_Entry_2017_v2020.csv.gz",
    "Data_Entry_2017.csv",
    "Data_Entry_2017.csv.gz",
    "labels.csv",
    "labels.csv.gz",
];

/// The tables of a folder, and what they are. Tables in the folder itself come before those in its folders.
fn find(
    folder: &Path,
    wanted: Option<&'static dyn DatasetFormat>,
) -> Result<(&'static dyn DatasetFormat, Vec<Source>), DatasetError> {
    let usual = LABEL_TABLES.iter().map(|name| folder.join(name));
    if wanted.is_none()
        && let Some(table) = usual.into_iter().find(|path| path.is_file())
    {
        let source = Source::peek(&table)?;
        let format = recognise(&source.header())?;
        return Ok((format, vec![source]));
    }
    let own: &dyn DatasetFormat = &own_table::OwnTable;
    let mut others = Vec::new();
    for level in [source::tables_in(folder)?, source::tables_below(folder)?] {
        let mut sources = Vec::with_capacity(level.len());
        for table in &level {
            sources.push(Source::peek(table)?);
        }
        let formats: Vec<&'static dyn DatasetFormat> = match wanted {
            Some(format) => vec![format],
            None => FORMATS.to_vec(),
        };
        let mut found: Vec<(&'static dyn DatasetFormat, Vec<Source>)> = Vec::new();
        for source in sources {
            let header = source.header();
            let format = formats.iter().find(|format| format.recognises(&header));
            match format {
                Some(format) if format.name() != own.name() || wanted.is_some() => {
                    match found
                        .iter_mut()
                        .find(|(known, _)| known.name() == format.name())
                    {
                        Some((_, tables)) => tables.push(source),
                        None => found.push((*format, vec![source])),
                    }
                }
                _ => others.push(source),
            }
        }
        match found.len() {
            0 => {}
            1 => {
                if let Some(only) = found.pop() {
                    return Ok(only);
                }
            }
            _ => {
                let names: Vec<String> = (found.iter())
                    .map(|(format, _)| format!("{} ({})", format.title(), format.name()))
                    .collect();
                return Err(DatasetError::table(
                    folder,
                    format!("there are tables of {}", names.join(" and of ")),
                    "name the table, or the format",
                ));
            }
        }
    }
    match (others.len(), others.pop()) {
        (1, Some(only)) if wanted.is_none() => Ok((&own_table::OwnTable, vec![only])),
        (n_tables, _) => Err(DatasetError::table(
            folder,
            match (n_tables, wanted) {
                (_, Some(format)) => format!("expected tables of {}, got none", format.title()),
                (0, None) => "expected a label table, got none".to_owned(),
                _ => format!("there are {n_tables} tables, of no data set that is known"),
            },
            "name the label table",
        )),
    }
}

/// Whether a folder has the tables of a published data set that says its parts itself, if it has some, whatever the tables
/// are called: not ChestX-ray14's, whose parts are lists, and no own table.
pub(crate) fn says_its_parts(folder: &Path) -> bool {
    let by_lists: [&dyn DatasetFormat; 2] = [&chest_x_ray14::ChestXRay14, &own_table::OwnTable];
    let is_it = |name: &str| by_lists.iter().all(|other| other.name() != name);
    folder.is_dir() && find(folder, None).is_ok_and(|(format, _)| is_it(format.name()))
}

/// Whether a folder has the tables of one published data set, or an own table that is called `labels.csv`, so that
/// [`Index::read`] reads the folder.
pub fn has_tables(folder: impl AsRef<Path>) -> bool {
    let folder = folder.as_ref();
    let is_usual = || LABEL_TABLES.iter().any(|name| folder.join(name).is_file());
    let is_published = || match find(folder, None) {
        Ok((format, _)) => format.name() != own_table::OwnTable.name(),
        Err(_) => false,
    };
    folder.is_dir() && (is_usual() || is_published())
}
