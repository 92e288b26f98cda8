//! `--blank`: what empty cells of labels mean.

use cxr_dataset::{BlankPolicy, Blanks, DatasetError};

/// The argument of every command that counts or scores labels of a table.
#[derive(Debug, clap::Args)]
pub(crate) struct BlankArgs {
    /// What an empty cell of a label means: unknown, or negative, as most programs for CheXpert and MIMIC-CXR-JPG take it;
    /// for one label alone LABEL=negative (repeat for several) [default: unknown]
    #[arg(long, value_name = "[LABEL=]RULE", value_parser = rule)]
    blank: Vec<BlankRule>,
}

impl BlankArgs {
    /// What they say together.
    pub(crate) fn blanks(&self) -> Blanks {
        blanks(&self.blank)
    }
}

/// What the empty cells of one label mean, or those of all that are not named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlankRule {
    label: Option<String>,
    policy: BlankPolicy,
}

/// Reads `negative`, or `Lung Lesion=negative`.
pub(crate) fn rule(text: &str) -> Result<BlankRule, DatasetError> {
    let (label, policy) = match text.rsplit_once('=') {
        Some((label, policy)) => (Some(label.trim().to_owned()), policy.trim()),
        None => (None, text.trim()),
    };
    let policy = policy.parse()?;
    Ok(BlankRule { label, policy })
}

/// What some rules say together; of two about one label, the last.
pub(crate) fn blanks(rules: &[BlankRule]) -> Blanks {
    let mut blanks = Blanks::default();
    for BlankRule { label, policy } in rules {
        match label {
            Some(label) => {
                blanks.labels.insert(label.clone(), *policy);
            }
            None => blanks.default = *policy,
        }
    }
    blanks
}
