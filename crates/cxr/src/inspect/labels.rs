//! What a label table holds.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use cxr_dataset::{Index, LabelCount, PatientId, Record};
use serde_json::{Value, json};

use super::counts;
use crate::scoring::describe;

/// Columns of the widest bar.
const BAR: usize = 40;
/// Beyond this many labels a matrix is not read any more.
const WIDEST_MATRIX: usize = 20;
/// Beyond this many labels not even a program reads it: it grows with their square.
const WIDEST_JSON_MATRIX: usize = 500;
/// The most frequent labels are shown up to this number.
const SHOWN_LABELS: usize = 100;

/// Appends to the text, and sets keys of the JSON.
pub(super) fn tell(index: &Index, table: &Path, text: &mut String, json: &mut Value) {
    let records = index.records();
    let n_patients = Some(index.n_patients()).filter(|&n_patients| n_patients > 0);
    let label_counts = index.label_counts();
    let mut lines = vec![
        format!("{}", table.display()),
        describe(records.len(), n_patients, index.release()),
    ];
    json["labels"] = json!({
        "table": table,
        "release": index.release(),
        "images": records.len(),
        "patients": n_patients,
        "without_finding": index.n_without_finding(),
        "counts": index.label_set().names().iter().zip(&label_counts)
            .map(|(name, count)| (name.clone(), json!(count)))
            .collect::<serde_json::Map<_, _>>(),
        "co_occurrence": (index.label_set().len() <= WIDEST_JSON_MATRIX)
            .then(|| index.co_occurrence()),
    });

    if let Some(per_patient) = summary(images_of_patients(records)) {
        lines.push(format!("images of a patient: {}", per_patient.text()));
        json["labels"]["images_of_a_patient"] = per_patient.json();
    }
    let ages = records.iter().filter_map(|record| record.age_years);
    if let Some(ages) = summary(ages.map(usize::from).collect()) {
        lines.push(format!("age in years: {}", ages.text()));
        json["labels"]["age_years"] = ages.json();
    }
    let texts = |fact: &dyn Fn(&Record) -> Option<String>| {
        let mut of: HashMap<String, usize> = HashMap::new();
        for record in records {
            *of.entry(fact(record).unwrap_or_else(|| "unknown".to_owned()))
                .or_default() += 1;
        }
        let mut of: Vec<(String, usize)> = of.into_iter().collect();
        of.sort();
        of
    };
    let facts = [
        ("sex", texts(&|record| Some(record.sex?.to_string()))),
        ("view", texts(&|record| Some(record.view?.to_string()))),
    ];
    for (fact, of) in facts {
        if of.iter().any(|(value, _)| value != "unknown") {
            let shown: Vec<String> = (of.iter())
                .map(|(value, count)| format!("{value} {count}"))
                .collect();
            lines.push(format!("{fact}: {}", shown.join(", ")));
        }
        json["labels"][fact] = counts(of);
    }
    *text += &lines.join("\n");
    *text += "\n\n";
    chart(index, &label_counts, text);
    matrix(index, text);
}

/// A bar for each label, as long as the label is frequent among the images of which it is known.
fn chart(index: &Index, label_counts: &[LabelCount], text: &mut String) {
    let names = index.label_set().names();
    let share = |count: &LabelCount| {
        let n_known = count.positive + count.negative;
        count.positive as f64 / n_known.max(1) as f64
    };
    let without = LabelCount {
        positive: index.n_without_finding(),
        negative: index.records().len() - index.n_without_finding(),
        unknown: 0,
    };
    let mut rows: Vec<(&str, &LabelCount)> =
        names.iter().map(String::as_str).zip(label_counts).collect();
    rows.sort_by(|(_, first), (_, second)| share(second).total_cmp(&share(first)));
    let n_hidden = rows.len().saturating_sub(SHOWN_LABELS);
    rows.truncate(SHOWN_LABELS);
    rows.push(("(no finding)", &without));
    let widest = rows
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or(0);
    let longest = rows
        .iter()
        .map(|(_, count)| share(count))
        .fold(0.0, f64::max);
    for (name, count) in rows {
        let _ = write!(
            text,
            "{name:<widest$} {:>7} {:>6.2} % {}",
            count.positive,
            100.0 * share(count),
            bar(share(count) / longest.max(f64::MIN_POSITIVE))
        );
        if count.unknown > 0 {
            let _ = write!(text, "  ({} unknown)", count.unknown);
        }
        text.push('\n');
    }
    if n_hidden > 0 {
        let _ = writeln!(text, "… and {n_hidden} rarer labels: see `--json`");
    }
}

/// A bar in eighths of a column.
fn bar(share: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share * (8 * BAR) as f64).round() as usize;
    let part = EIGHTHS.get(eighths % 8).copied().unwrap_or_default();
    format!("{}{part}", "█".repeat(eighths / 8))
}

fn matrix(index: &Index, text: &mut String) {
    let names = index.label_set().names();
    if names.len() < 2 {
        return;
    }
    if names.len() > WIDEST_MATRIX {
        if names.len() <= WIDEST_JSON_MATRIX {
            *text += "\nco-occurrence of this many labels: see `--json`\n";
        }
        return;
    }
    let counts = index.co_occurrence();
    let widest = names
        .iter()
        .map(|name| name.chars().count())
        .max()
        .unwrap_or(0);
    *text += "\nimages with both of two labels\n";
    let _ = write!(text, "{:widest$}", "");
    for name in names {
        let _ = write!(text, " {:>6}", short(name, names));
    }
    text.push('\n');
    for (name, row) in names.iter().zip(&counts) {
        let _ = write!(text, "{name:<widest$}");
        for count in row {
            let _ = write!(text, " {count:>6}");
        }
        text.push('\n');
    }
}

/// Six characters that tell a label from the others: its beginning, and where that is another's too
/// its last one.
fn short(name: &str, names: &[String]) -> String {
    let beginning = |name: &str| name.chars().take(5).collect::<String>();
    let own = beginning(name);
    if names.iter().filter(|other| beginning(other) == own).count() == 1 {
        return own;
    }
    let last = name.chars().next_back();
    (own.chars().take(4)).chain(['…']).chain(last).collect()
}

fn images_of_patients(records: &[Record]) -> Vec<usize> {
    let mut of: HashMap<&PatientId, usize> = HashMap::new();
    for patient in records.iter().filter_map(|record| record.patient.as_ref()) {
        *of.entry(patient).or_default() += 1;
    }
    of.into_values().collect()
}

struct Summary {
    least: usize,
    median: usize,
    most: usize,
}

impl Summary {
    fn text(&self) -> String {
        format!("{} to {}, median {}", self.least, self.most, self.median)
    }

    fn json(&self) -> Value {
        json!({"min": self.least, "median": self.median, "max": self.most})
    }
}

/// `None` of no values.
fn summary(mut values: Vec<usize>) -> Option<Summary> {
    values.sort_unstable();
    Some(Summary {
        least: *values.first()?,
        median: *values.get(values.len() / 2)?,
        most: *values.last()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_with_one_beginning_are_told_apart() {
        let names = ["Pneumonia", "Pneumothorax", "Mass"].map(str::to_owned);
        let shown = names.each_ref().map(|name| short(name, &names));
        assert_eq!(shown, ["Pneu…a", "Pneu…x", "Mass"]);
    }

    #[test]
    fn bars_are_as_long_as_their_share() {
        assert_eq!(bar(1.0), "█".repeat(BAR));
        assert_eq!(bar(0.0), "");
        assert_eq!(bar(0.5 / BAR as f64), "▌");
        assert_eq!(bar(2.25 / BAR as f64), "██▎");
    }
}
