//! A small version of every published system, reproduced twice: each is above its untrained network by more than the interval
//! of its mean, every system of the real experiment has a row, and both times end in the same tables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use cxr_terminal::{Ending, Interrupt, say, tell};

use crate::workspace::Workspace;

const NAME: &str = "related-demo";
/// What differs between two equal runs: the clock's.
const TIME_TABLE: &str = "time.csv";

pub(super) fn check(workspace: &Workspace, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let place = workspace.root().join("target/verify/related");
    let mut found = Vec::new();
    for times in ["first", "second"] {
        // What is finished is not done again: a check that was stopped goes on.
        let runs = place.join(times);
        let mut command =
            Command::new(std::env::current_exe().context("cannot find this program")?);
        command.args(["reproduce", NAME, "--runs"]).arg(&runs);
        let ended = interrupt.run(&mut command)?;
        if ended.ending != Ending::Done {
            return Ok(ended.ending);
        }
        found.push(tables(&runs.join(NAME).join("tables"))?);
    }
    let [first, second] = found.as_slice() else {
        bail!("expected two reports");
    };
    let mut is_good = true;
    for name in first.keys().chain(second.keys()).collect::<BTreeSet<_>>() {
        if first.get(name) != second.get(name) {
            say!("error: `{name}` differs between the two times");
            is_good = false;
        }
    }
    let systems = first
        .get("systems.csv")
        .context("there is no `systems.csv`")?;
    is_good &= check_systems(systems, &systems_of(workspace, "related")?)?;
    if !is_good {
        say!("hint: see `{}`", place.display());
        return Ok(Ending::Failed);
    }
    std::fs::remove_dir_all(&place)
        .with_context(|| format!("cannot remove `{}`", place.display()))?;
    tell!("   twice: the same {} tables", first.len());
    Ok(Ending::Done)
}

/// The tables of a report by name, but for that of times.
fn tables(folder: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut tables = BTreeMap::new();
    let unreadable = || format!("cannot read `{}`", folder.display());
    for entry in std::fs::read_dir(folder).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        let name = path.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        if name != TIME_TABLE {
            tables.insert(
                name,
                std::fs::read_to_string(&path).with_context(unreadable)?,
            );
        }
    }
    Ok(tables)
}

/// The systems that an experiment's variants name.
fn systems_of(workspace: &Workspace, experiment: &str) -> anyhow::Result<BTreeSet<String>> {
    let path = workspace
        .root()
        .join("crates/cxr/experiments")
        .join(format!("{experiment}.toml"));
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    let table: toml::Table = toml::from_str(&text)?;
    let variants = table.get("variants").and_then(toml::Value::as_array);
    let systems = variants.into_iter().flatten().filter_map(|variant| {
        let system = variant.get("system")?.as_str()?;
        Some(system.to_owned())
    });
    Ok(systems.collect())
}

/// Whether every one of `expected` has a row, and every row is above its untrained network.
fn check_systems(text: &str, expected: &BTreeSet<String>) -> anyhow::Result<bool> {
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = lines.next().context("`systems.csv` is empty")?;
    let column = |name: &str| {
        let place = header.iter().position(|head| *head == name);
        place.with_context(|| format!("`systems.csv` has no column `{name}`"))
    };
    let names = [
        "system",
        "variant",
        "untrained_single",
        "test_single",
        "test_single_lower",
        "is_above_untrained",
    ];
    let columns = names.map(column);
    let mut is_good = true;
    let mut seen = BTreeSet::new();
    for line in lines {
        let mut cells = Vec::with_capacity(columns.len());
        for place in &columns {
            let place = place.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
            cells.push(line.get(*place).copied().unwrap_or_default());
        }
        let [system, variant, untrained, auc, lower, is_above] = cells.as_slice() else {
            bail!("a line of `systems.csv` is too short");
        };
        tell!("   {variant}: {untrained} untrained, {auc} trained, from {lower}");
        seen.insert((*system).to_owned());
        if *is_above != "true" {
            say!("error: `{variant}` is not above its untrained network by more than the interval");
            is_good = false;
        }
    }
    for missing in expected.difference(&seen) {
        say!("error: the system `{missing}` has no row");
        is_good = false;
    }
    Ok(is_good)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str =
        "system,variant,untrained_single,test_single,test_single_lower,is_above_untrained\n";

    #[test]
    fn a_system_without_a_row_and_one_that_did_not_learn_are_found() {
        let both = ["a", "b"].map(str::to_owned).into_iter().collect();
        let good = format!("{HEADER}a,a-1,0.5,0.7,0.6,true\nb,b-1,0.5,0.7,0.6,true\n");
        assert!(check_systems(&good, &both).unwrap());
        assert!(!check_systems(&good.replace("b,b-1", "a,a-2"), &both).unwrap());
        assert!(!check_systems(&good.replace("0.6,true\nb", "0.4,false\nb"), &both).unwrap());
        assert!(check_systems(&good.replace("variant,", "varian,"), &both).is_err());
    }
}
