//! The experiments that come with the program, how one is named on the command line, and `cxr experiments`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context as _;
use cxr_train::{Experiment, check_experiment, read_experiment};

use crate::progress::say;

/// List the experiments that come with this program, or print one
///
/// An experiment is a TOML file: images, network, augmentation, course of training, and the variants that
/// are compared. Print one into a file and change it to make your own: `cxr experiments demo > mine.toml`.
/// What each key means is in docs/training.md.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which one to print
    #[arg(value_name = "NAME")]
    name: Option<BuiltIn>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let text = match args.name {
        Some(built_in) => built_in.text.to_owned(),
        None => list()?,
    };
    crate::scoring::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn list() -> anyhow::Result<String> {
    let mut text = String::new();
    for built_in in BUILT_IN {
        let experiment = Experiment::parse(built_in.text)?;
        let variants: Vec<&str> = (experiment.variants.iter())
            .map(|variant| variant.name.as_str())
            .collect();
        text += &format!("{}\n", built_in.name);
        text += &format!("  {}\n", experiment.description.trim());
        text += &format!("  variants: {}\n", variants.join(", "));
        let mut systems: Vec<&str> = Vec::new();
        for system in experiment
            .variants
            .iter()
            .filter_map(|v| v.system.as_deref())
        {
            if !systems.contains(&system) {
                systems.push(system);
            }
        }
        if !systems.is_empty() {
            text += &format!("  of the systems: {}\n", systems.join(", "));
        }
    }
    Ok(text)
}

/// An experiment file that is part of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BuiltIn {
    name: &'static str,
    text: &'static str,
}

macro_rules! built_in {
    ($($name:literal),*) => {
        [$(BuiltIn {
            name: $name,
            text: include_str!(concat!("../experiments/", $name, ".toml")),
        }),*]
    };
}

const BUILT_IN: [BuiltIn; 10] = built_in![
    "paper",
    "patient-split",
    "nih-sample",
    "demo",
    "demo-backbone",
    "related",
    "related-demo",
    "katona-grid",
    "chexpert-policies",
    "strong"
];

impl FromStr for BuiltIn {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = BUILT_IN.into_iter().find(|known| known.name == name);
        found.ok_or_else(|| {
            let known = BUILT_IN.map(|known| format!("`{}`", known.name));
            format!(
                "no experiment is called `{name}`; there are {}, and any other is named by its path",
                known.join(", ")
            )
        })
    }
}

/// An experiment as it is named on the command line: one that comes with the program, by its name, or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExperimentSource {
    BuiltIn(BuiltIn),
    File(PathBuf),
}

impl FromStr for ExperimentSource {
    type Err = String;

    fn from_str(name_or_path: &str) -> Result<Self, String> {
        let path = Path::new(name_or_path);
        let is_path = path
            .extension()
            .is_some_and(|extension| extension == "toml")
            || path.components().count() > 1;
        match name_or_path.parse() {
            Ok(built_in) => Ok(Self::BuiltIn(built_in)),
            Err(_) if is_path || path.exists() => Ok(Self::File(path.to_owned())),
            Err(unknown) => Err(unknown),
        }
    }
}

impl fmt::Display for ExperimentSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn(built_in) => formatter.write_str(built_in.name),
            Self::File(path) => write!(formatter, "{}", path.display()),
        }
    }
}

impl ExperimentSource {
    /// Reads and checks it.
    pub(crate) fn read(&self) -> anyhow::Result<Experiment> {
        match self {
            Self::BuiltIn(built_in) => {
                let experiment = Experiment::parse(built_in.text)?;
                check_experiment(&experiment)
                    .with_context(|| format!("the experiment `{}`", built_in.name))?;
                Ok(experiment)
            }
            Self::File(path) => Ok(read_experiment(path)?),
        }
    }

    /// Its file, if it is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::BuiltIn(_) => None,
            Self::File(path) => Some(path),
        }
    }

    /// The same with a path that holds in every folder.
    pub(crate) fn absolute(&self) -> anyhow::Result<Self> {
        Ok(match self {
            Self::BuiltIn(built_in) => Self::BuiltIn(*built_in),
            Self::File(path) => Self::File(absolute(path)?),
        })
    }
}

/// A path of the user's made absolute, so that it holds in a child that runs elsewhere.
pub(crate) fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot resolve `{}`", path.display()))
}

/// The weights that the demo begins with, and where its experiment looks for them.
const DEMO_BACKBONE: &[u8] = include_bytes!("../../../models/demo-backbone.safetensors");
const DEMO_BACKBONE_PATH: &str = "models/demo-backbone.safetensors";

/// Puts the demo's backbone where the experiment looks for it, if the experiment begins with it and it is not there.
pub(crate) fn provide_weights(experiment: &Experiment) -> anyhow::Result<()> {
    let path = Path::new(DEMO_BACKBONE_PATH);
    let of_variants = experiment
        .variants
        .iter()
        .filter_map(|variant| variant.model.as_ref());
    let mut models = of_variants.chain([&experiment.model]);
    if models.any(|model| model.weights.as_deref() == Some(path)) && !path.exists() {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
        }
        cxr_fs::write(path, DEMO_BACKBONE)?;
        say(&format!(
            "wrote `{DEMO_BACKBONE_PATH}`, the weights that this experiment begins with: they come with the program"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_experiment_parses_and_is_called_by_its_file_s_name() {
        for built_in in BUILT_IN {
            let experiment = Experiment::parse(built_in.text).unwrap();
            assert_eq!(experiment.name, built_in.name);
            assert!(!experiment.description.is_empty(), "{}", built_in.name);
            let source: ExperimentSource = built_in.name.parse().unwrap();
            assert_eq!(source.read().unwrap(), experiment);
        }
    }

    #[test]
    fn files_are_named_by_paths_and_a_wrong_name_lists_those_there_are() {
        let source: ExperimentSource = "some/where.toml".parse().unwrap();
        assert_eq!(source, ExperimentSource::File("some/where.toml".into()));
        let problem = ExperimentSource::from_str("papre").unwrap_err();
        assert!(
            problem.contains("`papre`") && problem.contains("`paper`, `patient-split`"),
            "{problem}"
        );
    }

    #[test]
    fn the_demo_begins_with_the_weights_that_come_with_it() {
        let demo: ExperimentSource = "demo".parse().unwrap();
        let weights = demo.read().unwrap().model.weights;
        assert_eq!(weights, Some(DEMO_BACKBONE_PATH.into()));
    }
}
