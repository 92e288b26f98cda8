//! Experiment files, as far as running them needs: a name, a seed, variants, and whether the experiment is made
//! on phantoms. The rest is the `cxr` binary's business.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::items;

/// An experiment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Experiment {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    /// The seed of its first run.
    pub(crate) seed: u64,
    pub(crate) variants: Vec<String>,
    /// It says which synthetic images it is made on, and needs no others.
    pub(crate) has_phantoms: bool,
}

#[derive(Deserialize)]
struct File {
    name: String,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    data: Data,
    #[serde(default)]
    variants: Vec<Variant>,
}

#[derive(Default, Deserialize)]
struct Data {
    phantoms: Option<toml::Table>,
}

#[derive(Deserialize)]
struct Variant {
    name: String,
}

impl Experiment {
    /// Finds an experiment by name in `folder`, or at a path that ends in `.toml`.
    pub(crate) fn find(folder: &Path, name_or_path: &str) -> anyhow::Result<Self> {
        let path = if name_or_path.ends_with(".toml") {
            PathBuf::from(name_or_path)
        } else {
            folder.join(format!("{name_or_path}.toml"))
        };
        if !path.is_file() {
            let known = known(folder);
            bail!(
                "expected an experiment file at `{}`, found none\nhint: there are {}; any other file is named by a path that ends in `.toml`",
                path.display(),
                quoted(&known)
            );
        }
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read `{}`", path.display()))?;
        Self::parse(path, &text)
    }

    fn parse(path: PathBuf, text: &str) -> anyhow::Result<Self> {
        let file: File = toml::from_str(text)
            .with_context(|| format!("`{}` is no experiment", path.display()))?;
        let variants: Vec<String> = file
            .variants
            .into_iter()
            .map(|variant| variant.name)
            .collect();
        if variants.is_empty() {
            bail!(
                "`{}`: expected at least one `[[variants]]`, got none",
                path.display()
            );
        }
        // They become folders.
        for name in std::iter::once(&file.name).chain(&variants) {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            if !name.chars().all(is_plain) || cxr_fs::FileName::exactly(name).is_none() {
                bail!(
                    "`{}`: expected a name of letters, digits, `-`, `.` and `_`, got `{}`",
                    path.display(),
                    name.escape_debug()
                );
            }
        }
        for (at, variant) in variants.iter().enumerate() {
            if variants.iter().take(at).any(|earlier| earlier == variant) {
                bail!("`{}`: variant `{variant}` is named twice", path.display());
            }
        }
        Ok(Self {
            path,
            name: file.name,
            seed: file.seed,
            variants,
            has_phantoms: file.data.phantoms.is_some(),
        })
    }

    /// The variants to run, in the file's order: all, or those that `only` names, each as a variant or
    /// as a table or figure of the paper, such as `table2` or `figure7`.
    pub(crate) fn select(&self, only: &[String]) -> anyhow::Result<Vec<&str>> {
        let mut wanted: Vec<&str> = Vec::new();
        for name in only {
            match (
                items::variants_of(name, &self.variants),
                self.variants.contains(name),
            ) {
                (_, true) => wanted.push(name),
                (Some(needed), _) => wanted.extend(needed),
                (None, _) => bail!(
                    "experiment `{}` has no variant `{name}`\nhint: it has {}; a table or figure of the paper is named such as `table2` or `figure7`",
                    self.name,
                    quoted(&self.variants)
                ),
            }
        }
        if wanted.is_empty() && !only.is_empty() {
            bail!(
                "no variant of experiment `{}` belongs to {}",
                self.name,
                quoted(only)
            );
        }
        let is_wanted = |variant: &&str| only.is_empty() || wanted.contains(variant);
        Ok(self
            .variants
            .iter()
            .map(String::as_str)
            .filter(is_wanted)
            .collect())
    }
}

/// The experiments in a folder, by name.
fn known(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_suffix(".toml").map(str::to_owned)
        })
        .collect();
    names.sort();
    names
}

fn quoted(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        _ => format!("`{}`", names.join("`, `")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "name = \"two\"\nbatch = 16\n[[variants]]\nname = \"bce\"\nloss = \"bce\"\n\
                       [[variants]]\nname = \"fzlpr-0.2\"\nloss = { name = \"fzlpr\", tau = 0.2 }\n";

    fn parsed(text: &str) -> anyhow::Result<Experiment> {
        Experiment::parse("made.toml".into(), text)
    }

    #[test]
    fn experiments_are_found_by_name_and_by_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("two.toml");
        std::fs::write(&path, TWO).unwrap();
        let by_name = Experiment::find(folder.path(), "two").unwrap();
        assert_eq!(by_name.variants, ["bce", "fzlpr-0.2"]);
        let by_path = Experiment::find(Path::new("/nowhere"), path.to_str().unwrap()).unwrap();
        assert_eq!(by_path, by_name);
    }

    #[test]
    fn an_experiment_on_phantoms_is_told_from_one_on_images() {
        assert!(!parsed(TWO).unwrap().has_phantoms);
        let with = |data: &str| parsed(&TWO.replace("[[variants]]\nname = \"bce\"", data));
        let phantoms = "[data.phantoms]\nseed = 1\n[[variants]]\nname = \"bce\"";
        assert!(with(phantoms).unwrap().has_phantoms);
        let images = "[data]\nvalidation = \"patient\"\n[[variants]]\nname = \"bce\"";
        assert!(!with(images).unwrap().has_phantoms);
    }

    #[test]
    fn an_unknown_experiment_names_those_there_are() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["paper", "demo"] {
            std::fs::write(folder.path().join(format!("{name}.toml")), TWO).unwrap();
        }
        let error = Experiment::find(folder.path(), "papre")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("papre.toml") && error.contains("`demo`, `paper`"),
            "{error}"
        );
    }

    #[test]
    fn only_takes_variants_in_the_file_s_order_and_refuses_others() {
        let experiment = parsed(TWO).unwrap();
        let only =
            |names: &[&str]| -> Vec<String> { names.iter().map(|&n| n.to_owned()).collect() };
        assert_eq!(experiment.select(&[]).unwrap(), ["bce", "fzlpr-0.2"]);
        let both = experiment.select(&only(&["fzlpr-0.2", "bce"])).unwrap();
        assert_eq!(both, ["bce", "fzlpr-0.2"]);
        assert_eq!(
            experiment.select(&only(&["fzlpr-0.2"])).unwrap(),
            ["fzlpr-0.2"]
        );
        assert_eq!(
            experiment.select(&only(&["table3"])).unwrap(),
            ["fzlpr-0.2"]
        );
        let both = experiment.select(&only(&["figure7", "bce"])).unwrap();
        assert_eq!(both, ["bce", "fzlpr-0.2"]);
        assert!(experiment.select(&only(&["figure1"])).is_err());
        let error = experiment
            .select(&only(&["fzlpr"]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`fzlpr`") && error.contains("`bce`, `fzlpr-0.2`"),
            "{error}"
        );
    }

    #[test]
    fn names_that_cannot_be_folders_and_missing_or_repeated_variants_are_refused() {
        for (text, expected) in [
            ("name = \"a\"", "variants"),
            ("name = \"../a\"\n[[variants]]\nname = \"b\"", "`../a`"),
            ("name = \"a\"\n[[variants]]\nname = \"\"", "``"),
            (
                "name = \"a\"\n[[variants]]\nname = \"b\"\n[[variants]]\nname = \"b\"",
                "twice",
            ),
            ("[[variants]]\nname = \"b\"", "made.toml"),
        ] {
            let error = parsed(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
