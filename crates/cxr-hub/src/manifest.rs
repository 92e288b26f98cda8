//! What can be fetched, as a TOML file says it.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Digest, HubError, HubFile, Repository, RepositoryKind};

/// A list of sets of files.
///
/// ```
/// use cxr_hub::Manifest;
///
/// let manifest = Manifest::parse(
///     r#"
///     [[set]]
///     name = "weights"
///     about = "a small network"
///     licence = "MIT"
///     home = "https://hub.example/somebody/network"
///
///     [[set.file]]
///     name = "network.safetensors"
///     bytes = 1024
///     digest = "md5:5d41402abc4b2a76b9719d911017c592"
///     sources = [
///         { model = "somebody/network", path = "model.safetensors" },
///         { url = "https://mirror.example/network.safetensors" },
///     ]
///     "#,
///     "manifest.toml",
/// )?;
/// assert_eq!(manifest.set("weights", None)?.files[0].sources.len(), 2);
/// # Ok::<(), cxr_hub::HubError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The sets, in the file's order.
    pub sets: Vec<FileSet>,
}

/// Files that are wanted together.
#[derive(Debug, Clone, PartialEq)]
pub struct FileSet {
    /// What the set is asked for by.
    pub name: String,
    /// Whose copy this is, where several sets have the same name.
    pub mirror: Option<String>,
    /// What it is, in one line.
    pub about: String,
    /// Under which terms it may be used.
    pub licence: String,
    /// The page that describes it.
    pub home: String,
    /// The folder for its files, relative to the manifest; empty for the manifest's own.
    pub folder: PathBuf,
    /// About how many bytes it has in all, where the sizes of the files are not known.
    pub about_bytes: Option<u64>,
    /// Its files.
    pub files: Vec<RemoteFile>,
}

/// A file that can be fetched.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteFile {
    /// Its name on this machine.
    pub name: FileName,
    /// Its length, if known.
    pub bytes: Option<u64>,
    /// Its digest; `None` for files of the hub, which are verified against the listing of a commit.
    pub digest: Option<Digest>,
    /// Where it can be had, best first. All give the same bytes.
    pub sources: Vec<Source>,
}

/// One place a file can be had from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// An address that begins with `http://` or `https://`.
    Url(String),
    /// A file in a repository of the hub.
    Hub(HubFile),
}

impl Source {
    /// A source from an address.
    ///
    /// # Errors
    /// [`HubError::Address`] unless it begins with `http://` or `https://` and has no spaces.
    pub fn url(text: &str) -> Result<Self, HubError> {
        check_web_address(text)?;
        Ok(Self::Url(text.to_owned()))
    }
}

pub(crate) fn check_web_address(text: &str) -> Result<(), HubError> {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() && !text.contains(|c: char| !c.is_ascii_graphic()) => Ok(()),
        _ => Err(HubError::Address {
            text: text.escape_debug().to_string(),
            expected: "an address that begins with `http://` or `https://`",
        }),
    }
}

/// The longest manifest that is read.
const MAX_BYTES: u64 = 1 << 24;

impl Manifest {
    /// Reads a manifest file.
    ///
    /// # Errors
    /// A file that cannot be read, or one that [`Manifest::parse`] refuses.
    pub fn read(path: &Path) -> Result<Self, HubError> {
        let text = cxr_fs::read_text(path, MAX_BYTES)?;
        Self::parse(&text, path)
    }

    /// Reads the text of a manifest; `path` is only named in errors.
    ///
    /// # Errors
    /// [`HubError::ManifestSyntax`] for what is not TOML of this form, unknown keys included;
    /// [`HubError::Manifest`] for two sets of the same name and mirror, two files of one name in a
    /// set, a file without sources, or a source that is not exactly one of `url`, `model` and
    /// `dataset`.
    pub fn parse(text: &str, path: impl AsRef<Path>) -> Result<Self, HubError> {
        let path = path.as_ref();
        let raw: RawManifest = toml::from_str(text).map_err(|error| HubError::ManifestSyntax {
            path: path.to_owned(),
            source: Box::new(error),
        })?;
        let wrong = |place: &str, problem: String| HubError::Manifest {
            path: path.to_owned(),
            place: place.to_owned(),
            problem,
        };
        let mut keys = HashSet::new();
        let mut sets = Vec::with_capacity(raw.sets.len());
        for set in raw.sets {
            let place = format!("set `{}`", set.name);
            if !keys.insert((set.name.clone(), set.mirror.clone())) {
                return Err(wrong(
                    &place,
                    "another set has the same name and mirror".into(),
                ));
            }
            if !is_plain_folder(&set.folder) {
                return Err(wrong(
                    &place,
                    format!(
                        "expected a folder inside this one, got `{}`",
                        set.folder.display()
                    ),
                ));
            }
            let mut names = HashSet::new();
            let mut files = Vec::with_capacity(set.files.len());
            for file in set.files {
                let place = format!("file `{}` of {place}", file.name);
                if !names.insert(file.name.clone()) {
                    return Err(wrong(&place, "another file has the same name".into()));
                }
                if file.sources.is_empty() {
                    return Err(wrong(&place, "expected a source, got none".into()));
                }
                if file.bytes.is_none() && file.digest.is_some_and(|digest| digest.needs_length()) {
                    return Err(wrong(
                        &place,
                        "a `git-blob` digest needs `bytes` beside it".into(),
                    ));
                }
                let sources = file
                    .sources
                    .into_iter()
                    .map(RawSource::check)
                    .collect::<Result<_, _>>()
                    .map_err(|problem| wrong(&place, problem))?;
                files.push(RemoteFile {
                    name: file.name,
                    bytes: file.bytes,
                    digest: file.digest,
                    sources,
                });
            }
            sets.push(FileSet {
                name: set.name,
                mirror: set.mirror,
                about: set.about,
                licence: set.licence,
                home: set.home,
                folder: set.folder,
                about_bytes: set.about_bytes,
                files,
            });
        }
        Ok(Self { sets })
    }

    /// The set called `name`: `mirror`'s, or the first one where no mirror is asked for.
    ///
    /// # Errors
    /// [`HubError::UnknownSet`], which names what there is.
    pub fn set(&self, name: &str, mirror: Option<&str>) -> Result<&FileSet, HubError> {
        let fits = |set: &&FileSet| {
            set.name == name && mirror.is_none_or(|mirror| set.mirror.as_deref() == Some(mirror))
        };
        self.sets.iter().find(fits).ok_or_else(|| {
            let known: Vec<_> = self.sets.iter().map(FileSet::title).collect();
            HubError::UnknownSet {
                wanted: title(name, mirror),
                known: known.join(", "),
            }
        })
    }
}

impl FileSet {
    /// Name and mirror, as messages write them.
    fn title(&self) -> String {
        title(&self.name, self.mirror.as_deref())
    }
}

fn title(name: &str, mirror: Option<&str>) -> String {
    match mirror {
        Some(mirror) => format!("`{name}` (mirror `{mirror}`)"),
        None => format!("`{name}`"),
    }
}

fn is_plain_folder(folder: &Path) -> bool {
    folder
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_)))
}

/// A plain file name: no separators, nothing that a shell or another system reads differently, and
/// none of the endings this crate uses itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(String);

impl FileName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name with an ending of ours.
    pub(crate) fn with_ending(&self, ending: &str) -> String {
        format!("{}{ending}", self.0)
    }
}

/// What we put beside a file: its unfinished bytes, what is known of them, the lock, the receipt,
/// and a former file that was not what it should have been.
pub(crate) const PART: &str = ".part";
pub(crate) const PART_STATE: &str = ".part.toml";
pub(crate) const LOCK: &str = ".part.lock";
pub(crate) const RECEIPT: &str = ".fetched.toml";
pub(crate) const REJECTED: &str = ".rejected";
/// What we put into a folder: see [`crate::pins`].
pub(crate) const PINS: &str = "hub.lock.toml";

impl FromStr for FileName {
    type Err = HubError;

    fn from_str(name: &str) -> Result<Self, HubError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
        let endings = [PART, PART_STATE, LOCK, RECEIPT, REJECTED];
        let reason = if name.is_empty() || name.len() > 200 {
            "expected 1 to 200 characters"
        } else if !name.chars().all(plain) {
            "expected letters, digits, `-`, `_`, `.` and `+`"
        } else if name.starts_with(['.', '-']) || name.ends_with('.') {
            "expected no `.` or `-` in front and no `.` at the end"
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            "its ending is reserved for unfinished downloads"
        } else if name == PINS {
            "it is reserved for the commits that branches are read at"
        } else {
            return Ok(Self(name.to_owned()));
        };
        Err(HubError::FileName {
            name: name.escape_debug().to_string(),
            reason,
        })
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for FileName {
    type Error = HubError;

    fn try_from(name: String) -> Result<Self, HubError> {
        name.parse()
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> Self {
        name.0
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawManifest {
    #[serde(default, rename = "set")]
    sets: Vec<RawSet>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSet {
    name: String,
    mirror: Option<String>,
    about: String,
    licence: String,
    home: String,
    #[serde(default)]
    folder: PathBuf,
    about_bytes: Option<u64>,
    #[serde(default, rename = "file")]
    files: Vec<RawFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    name: FileName,
    bytes: Option<u64>,
    digest: Option<Digest>,
    sources: Vec<RawSource>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSource {
    url: Option<String>,
    model: Option<String>,
    dataset: Option<String>,
    revision: Option<String>,
    path: Option<String>,
}

impl RawSource {
    fn check(self) -> Result<Source, String> {
        let (kind, repository) = match (self.url, self.model, self.dataset) {
            (Some(url), None, None) => {
                if self.revision.is_some() || self.path.is_some() {
                    return Err("a `url` has no `revision` or `path`".into());
                }
                return Source::url(&url).map_err(|error| error.to_string());
            }
            (None, Some(repository), None) => (RepositoryKind::Model, repository),
            (None, None, Some(repository)) => (RepositoryKind::Dataset, repository),
            _ => return Err("expected one of `url`, `model` and `dataset` in a source".into()),
        };
        let Some(path) = self.path else {
            return Err(format!("expected the `path` of a file in `{repository}`"));
        };
        let revision = self.revision.as_deref().unwrap_or("main");
        Repository::new(kind, &repository, revision)
            .and_then(|repository| HubFile::new(repository, &path))
            .map(Source::Hub)
            .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(file: &str) -> Result<Manifest, HubError> {
        let set = "name = \"s\"\nabout = \"\"\nlicence = \"\"\nhome = \"\"";
        Manifest::parse(&format!("[[set]]\n{set}\n[[set.file]]\n{file}"), "m.toml")
    }

    #[test]
    fn names_stay_in_their_folder() {
        for name in [
            "",
            "..",
            "../x",
            "a/b",
            "a\\b",
            "/etc/passwd",
            "C:x",
            ".hidden",
            "-rf",
            "x.",
            "a\0b",
            "a b",
            "x.part",
            "x.part.toml",
            "x.fetched.toml",
            "x.rejected",
            "hub.lock.toml",
        ] {
            assert!(name.parse::<FileName>().is_err(), "{name:?}");
        }
        assert!(
            "densenet121.tv_in1k.safetensors"
                .parse::<FileName>()
                .is_ok()
        );
    }

    #[test]
    fn a_source_is_one_thing() {
        for (sources, fits) in [
            ("[{ url = \"https://a.example/x\" }]", true),
            ("[{ url = \"ftp://a.example/x\" }]", false),
            ("[{ url = \"https://\" }]", false),
            ("[{ url = \"https://a.example/x y\" }]", false),
            ("[{ url = \"https://a.example/x\", path = \"y\" }]", false),
            ("[{ model = \"a/b\", path = \"c/d.bin\" }]", true),
            (
                "[{ dataset = \"a/b\", path = \"c\", revision = \"v1\" }]",
                true,
            ),
            ("[{ model = \"a/b\" }]", false),
            ("[{ model = \"b\", path = \"c\" }]", false),
            ("[{ model = \"a/../b\", path = \"c\" }]", false),
            ("[{ model = \"a/b\", path = \"../c\" }]", false),
            (
                "[{ model = \"a/b\", dataset = \"a/b\", path = \"c\" }]",
                false,
            ),
            ("[{ modle = \"a/b\", path = \"c\" }]", false),
            ("[]", false),
        ] {
            let read = manifest(&format!("name = \"x\"\nsources = {sources}"));
            assert_eq!(read.is_ok(), fits, "{sources}: {read:?}");
        }
    }

    #[test]
    fn impossible_sets_are_refused() {
        let file = "name = \"x\"\nsources = [{ url = \"https://a.example/x\" }]";
        let twice = format!("{file}\n[[set.file]]\n{file}");
        let error = manifest(&twice).unwrap_err().to_string();
        assert_eq!(
            error,
            "`m.toml`, file `x` of set `s`: another file has the same name"
        );
        let blob =
            format!("{file}\ndigest = \"git-blob:ce013625030ba8dba906f756967f9e9ca394464a\"");
        assert!(manifest(&blob).is_err(), "a blob digest without a length");
        assert!(manifest(&format!("{blob}\nbytes = 6")).is_ok());
        let set = "[[set]]\nname = \"s\"\nabout = \"\"\nlicence = \"\"\nhome = \"\"\n";
        assert!(Manifest::parse(&set.repeat(2), "m.toml").is_err());
        assert!(Manifest::parse(&format!("{set}folder = \"../up\""), "m.toml").is_err());
        assert!(Manifest::parse(&format!("{set}folder = \"/abs\""), "m.toml").is_err());
    }

    #[test]
    fn the_first_mirror_is_the_default() {
        let set = |mirror: &str| {
            format!(
                "[[set]]\nname = \"s\"\nmirror = \"{mirror}\"\nabout = \"\"\nlicence = \"\"\nhome = \"\"\n"
            )
        };
        let manifest = Manifest::parse(&(set("hub") + &set("nih")), "m.toml").unwrap();
        let mirror = |wanted| manifest.set("s", wanted).unwrap().mirror.as_deref();
        assert_eq!(mirror(None), Some("hub"));
        assert_eq!(mirror(Some("nih")), Some("nih"));
        let error = manifest.set("s", Some("moon")).unwrap_err().to_string();
        assert_eq!(
            error,
            "nothing is called `s` (mirror `moon`); there are `s` (mirror `hub`), `s` (mirror `nih`)"
        );
    }
}
