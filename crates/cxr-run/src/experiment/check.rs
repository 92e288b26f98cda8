//! Whether an experiment's form and numbers are right.

use super::{Experiment, Variant};
use cxr_dataset::DataSet;

use crate::RunError;

impl Experiment {
    /// Checks form and numbers, not what names mean.
    pub(super) fn check(&self) -> Result<(), RunError> {
        check_folder_name("name", &self.name)?;
        if self.variants.is_empty() {
            return Err(RunError::setting("variants", "at least 1", 0));
        }
        if self.seeds == 0 {
            return Err(RunError::setting("seeds", "at least 1", 0));
        }
        self.check_course("")?;
        for (index, variant) in self.variants.iter().enumerate() {
            if variant.has_tables() {
                let own = self.with_tables_of(variant);
                own.check_course(&format!("variants[{index}]."))?;
            }
        }
        self.check_names()
    }

    /// Checks pipeline and training; `prefix` stands before the keys of what is wrong.
    fn check_course(&self, prefix: &str) -> Result<(), RunError> {
        let setting = |key: &str, expected: &str, found: &dyn ToString| {
            Err(RunError::setting(
                &format!("{prefix}{key}"),
                expected,
                found.to_string(),
            ))
        };
        self.pipeline()?;
        self.data.uncertain.check()?;
        check_sets(&self.data.sets)?;
        if let Some(one_in @ ..2) = self.data.hold_out {
            return setting("data.hold_out", "at least 2", &one_in);
        }
        let training = &self.training;
        if training.batch_size < 2 {
            return setting("training.batch_size", "at least 2", &training.batch_size);
        }
        for (key, value) in [
            (
                "training.evaluation_batch_size",
                training.evaluation_batch_size,
            ),
            ("training.checkpoint_steps", training.checkpoint_steps),
            (
                "training.gradient_accumulation_steps",
                training.gradient_accumulation_steps,
            ),
            ("training.stages", training.stages.len()),
        ] {
            if value == 0 {
                return setting(key, "at least 1", &value);
            }
        }
        training.optimiser.check()?;
        if let Some(norm) = training.clip_norm
            && !(norm.is_finite() && norm > 0.)
        {
            return setting("training.clip_norm", "above 0", &norm);
        }
        if let Some(decay) = training.ema_decay
            && !(decay > 0. && decay < 1.)
        {
            return setting("training.ema_decay", "in (0, 1)", &decay);
        }
        for (index, stage) in training.stages.iter().enumerate() {
            if !(1..=MOST_EPOCHS).contains(&stage.epochs) {
                let key = format!("training.stages[{index}].epochs");
                return setting(&key, &format!("1 to {MOST_EPOCHS}"), &stage.epochs);
            }
            if stage.patience == Some(0) {
                let key = format!("training.stages[{index}].patience");
                return setting(&key, "at least 1", &0);
            }
            let key = format!("{prefix}training.stages[{index}]");
            stage.schedule.check(&format!("{key}.schedule"))?;
            for (group, settings) in stage.groups.iter().enumerate() {
                settings.check(&format!("{key}.groups[{group}]"))?;
            }
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), RunError> {
        for (index, variant) in self.variants.iter().enumerate() {
            let key = format!("variants[{index}].name");
            check_folder_name(&key, &variant.name)?;
            if let Some(system) = &variant.system {
                check_folder_name(&format!("variants[{index}].system"), system)?;
            }
            if let Some(weights) = &variant.label_weights {
                weights.check(&format!("variants[{index}].label_weights"))?;
            }
            let name = variant.name.to_ascii_lowercase();
            if is_of_the_experiment(&name) {
                let expected = "another name than those of the files in an experiment's folder";
                return Err(RunError::setting(&key, expected, &variant.name));
            }
            // Some file systems ignore case.
            let mut earlier = self.variants[..index].iter();
            if earlier.any(|earlier| earlier.name.to_ascii_lowercase() == name) {
                return Err(RunError::setting(&key, "unlike the others", &variant.name));
            }
            if let Some((other, _)) = name.rsplit_once("-seed").filter(|(other, seed)| {
                let named = |variant: &Variant| variant.name.to_ascii_lowercase() == *other;
                seed.parse::<u64>().is_ok() && self.variants.iter().any(named)
            }) {
                let expected = format!("unlike the runs of `{other}` with other seeds");
                return Err(RunError::setting(&key, expected, &variant.name));
            }
        }
        Ok(())
    }
}

/// A bound that no training comes near.
const MOST_EPOCHS: usize = 1_000_000;

fn check_folder_name(key: &str, name: &str) -> Result<(), RunError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !name.chars().all(plain) || cxr_fs::FileName::exactly(name).is_none() {
        let expected = "a folder name of letters, digits, `-`, `_` and `.`";
        let found = cxr_table::excerpt(name);
        return Err(RunError::setting(key, expected, format!("`{found}`")));
    }
    Ok(())
}

/// Whether a lower-case name is one that an experiment's folder has for something else than a variant's run: prepared
/// images with their locks, the report, what was meant to run.
fn is_of_the_experiment(name: &str) -> bool {
    const NAMES: [&str; 5] = [
        "report.html",
        "report.md",
        "reproduce.json",
        "tables",
        "figures",
    ];
    const ENDINGS: [&str; 5] = [".store", ".partial", ".lock", ".json", ".toml"];
    let is_image_store = name.starts_with("images-") && name.contains(".store");
    NAMES.contains(&name) || is_image_store || ENDINGS.iter().any(|end| name.ends_with(end))
}

/// Every set once, and either every set with a weight or none.
fn check_sets(sets: &[DataSet]) -> Result<(), RunError> {
    for (index, set) in sets.iter().enumerate() {
        let is_it = |other: &DataSet| other.folder == set.folder;
        if sets.iter().take(index).any(is_it) {
            let key = format!("data.sets[{index}].folder");
            return Err(RunError::setting(&key, "unlike the others", &set.folder));
        }
        let key = format!("data.sets[{index}].weight");
        match set.weight {
            Some(weight) if !(weight.is_finite() && weight > 0.) => {
                return Err(RunError::setting(&key, "above 0", weight));
            }
            weight if weight.is_some() != sets.iter().all(|set| set.weight.is_some()) => {
                let found = weight.map_or("none".to_owned(), |weight| weight.to_string());
                return Err(RunError::setting(
                    &key,
                    "given for all sets or for none",
                    found,
                ));
            }
            _ => {}
        }
    }
    Ok(())
}
