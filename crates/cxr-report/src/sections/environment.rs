//! What the runs were made on, from their `environment.json`: any JSON object, its leaves as lines.

use std::collections::BTreeMap;

use serde_json::Value;

use super::words::{cells, shell_line};
use super::{Material, Section};
use crate::document::Document;
use crate::report::Report;

/// The key under which a run may keep the command that made it, argument by argument.
const COMMAND: &str = "command";

/// What the runs were made on.
pub(super) struct Environment;

impl Section for Environment {
    fn add(&self, page: &mut Document, from: &Material<'_>) {
        add(page, from.report);
    }
}

fn add(page: &mut Document, report: &Report) {
    let runs: Vec<(&str, BTreeMap<String, String>)> = report
        .runs
        .iter()
        .zip(&report.environments)
        .filter_map(|(run, environment)| {
            let mut leaves = BTreeMap::new();
            flatten("", environment.as_ref()?, &mut leaves);
            Some((run.variant.as_str(), leaves))
        })
        .collect();
    if runs.is_empty() {
        return;
    }
    let mut keys: Vec<&String> = runs.iter().flat_map(|(_, leaves)| leaves.keys()).collect();
    keys.sort();
    keys.dedup();
    let mut rows = vec![cells(&["what", "value"])];
    for key in keys {
        let values: Vec<Option<&String>> = runs.iter().map(|(_, leaves)| leaves.get(key)).collect();
        let value = match values.first() {
            Some(&first) if values.iter().all(|&value| value == first) => shown(first).to_owned(),
            _ => {
                let by_run: Vec<String> = runs
                    .iter()
                    .zip(&values)
                    .map(|((variant, _), value)| format!("{variant}: {}", shown(*value)))
                    .collect();
                by_run.join("; ")
            }
        };
        rows.push(vec![key.as_str().into(), value.into()]);
    }
    page.heading("Environment");
    page.table(rows);
}

/// The commands that made the runs, where they say so.
pub(super) fn commands(report: &Report) -> Vec<String> {
    let mut commands = Vec::new();
    for environment in report.environments.iter().flatten() {
        let command = match environment.get(COMMAND) {
            Some(Value::String(command)) => command.clone(),
            Some(Value::Array(arguments)) => {
                let arguments = arguments.iter().filter_map(Value::as_str);
                shell_line(&arguments.map(str::to_owned).collect::<Vec<_>>())
            }
            _ => continue,
        };
        if !command.contains('\n') && !commands.contains(&command) {
            commands.push(command);
        }
    }
    commands
}

fn flatten(prefix: &str, value: &Value, leaves: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if prefix.is_empty() && key == COMMAND {
                    continue;
                }
                let path = match prefix {
                    "" => key.clone(),
                    _ => format!("{prefix}.{key}"),
                };
                flatten(&path, value, leaves);
            }
        }
        Value::Array(values) if values.iter().all(|value| !value.is_object()) => {
            let texts: Vec<String> = values.iter().map(leaf).collect();
            leaves.insert(prefix.to_owned(), texts.join(", "));
        }
        _ => {
            leaves.insert(prefix.to_owned(), leaf(value));
        }
    }
}

fn shown(value: Option<&String>) -> &str {
    value.map_or("–", String::as_str)
}

fn leaf(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
