//! What a label table holds.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::hash::Hash;

use cxr_dataset::{Index, LabelCount, Part, PatientId, Record};
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
pub(super) fn tell(index: &Index, text: &mut String, json: &mut Value) {
    let records = index.records();
    let some = |count: usize| Some(count).filter(|&count| count > 0);
    let (n_patients, n_studies) = (some(index.n_patients()), some(index.n_studies()));
    let label_counts = index.label_counts();
    let mut lines: Vec<String> = (index.tables().iter())
        .map(|table| table.display().to_string())
        .collect();
    lines.push(describe(records.len(), n_patients, index.release()));
    let names = index.label_set().names();
    json["format"] = json!(index.release());
    json["title"] = json!(index.release().to_string());
    json["tables"] = json!(index.tables());
    json["images"] = json!(records.len());
    json["patients"] = json!(n_patients);
    json["studies"] = json!(n_studies);
    json["labels"] = (names.iter().zip(&label_counts))
        .map(|(name, count)| {
            let count = json!({
                "positives": count.positive,
                "negatives": count.negative,
                "uncertain": count.uncertain,
                "unknown": count.unknown,
            });
            (name.clone(), count)
        })
        .collect::<serde_json::Map<_, _>>()
        .into();
    json["blank"] = super::counts(
        (names.iter().zip(&label_counts)).map(|(name, count)| (name.clone(), count.blank)),
    );
    json["without_finding"] = json!(index.n_without_finding());
    json["co_occurrence"] =
        json!((names.len() <= WIDEST_JSON_MATRIX).then(|| index.co_occurrence()));
    json["boxes"] = json!(index.boxes().len());
    json["warnings"] = json!(index.warnings());

    if let Some(n_studies) = n_studies {
        lines.push(format!("studies: {n_studies}"));
    }
    for (what, of) in [
        (
            "patient",
            images_of(records, |record| record.patient.as_ref()),
        ),
        ("study", images_of(records, |record| record.study.as_ref())),
    ] {
        if let Some(of) = summary(of) {
            lines.push(format!("images of a {what}: {}", of.text()));
            json[format!("images_of_a_{what}")] = of.json();
        }
    }
    let ages = records.iter().filter_map(|record| record.age_years);
    let ages: Vec<usize> = ages.map(usize::from).collect();
    let n_ageless = records.len() - ages.len();
    if let Some(ages) = summary(ages) {
        let unknown = match n_ageless {
            0 => String::new(),
            n_ageless => format!(", unknown {n_ageless}"),
        };
        lines.push(format!("age in years: {}{unknown}", ages.text()));
        json["age_years"] = ages.json();
        json["age_years"]["unknown"] = json!(n_ageless);
    }
    for (fact, key, of) in [
        (
            "sex",
            "sex",
            texts(records, |record| Some(record.sex?.to_string())),
        ),
        ("view", "views", texts(records, view)),
    ] {
        if of.iter().any(|(value, _)| value != "unknown") {
            let shown: Vec<String> = (of.iter())
                .map(|(value, count)| format!("{value} {count}"))
                .collect();
            lines.push(format!("{fact}: {}", shown.join(", ")));
        }
        json[key] = counts(of);
    }
    if !index.boxes().is_empty() {
        lines.push(format!("boxes: {}", index.boxes().len()));
    }
    if let Some(line) = parts(index, json) {
        lines.push(line);
    }
    for warning in index.warnings() {
        lines.push(format!("note: {warning}"));
    }
    *text += &lines.join("\n");
    *text += "\n\n";
    chart(index, &label_counts, text);
    matrix(index, text);
}

/// A view, under the table's own word where it is a rarer one.
fn view(record: &Record) -> Option<String> {
    let code = || record.view_code.as_deref().map(str::to_owned);
    let view = record.view?;
    Some(code().unwrap_or_else(|| view.to_string()))
}

/// How many images have each value of a fact, by value.
fn texts(records: &[Record], fact: impl Fn(&Record) -> Option<String>) -> Vec<(String, usize)> {
    let mut of: HashMap<String, usize> = HashMap::new();
    for record in records {
        *of.entry(fact(record).unwrap_or_else(|| "unknown".to_owned()))
            .or_default() += 1;
    }
    let mut of: Vec<(String, usize)> = of.into_iter().collect();
    of.sort();
    of
}

/// The parts that the publisher made, with their images and patients, and the patients of several; `None` where
/// there are none.
fn parts(index: &Index, json: &mut Value) -> Option<String> {
    let mut shown = Vec::new();
    let mut of_patients: HashMap<&PatientId, [bool; 3]> = HashMap::new();
    for (number, part) in Part::ALL.into_iter().enumerate() {
        let records = index
            .records()
            .iter()
            .filter(|record| record.part == Some(part));
        let (mut n_images, mut patients) = (0, HashSet::new());
        for record in records {
            n_images += 1;
            if let Some(patient) = &record.patient {
                patients.insert(patient);
                if let Some(is_in) = of_patients.entry(patient).or_default().get_mut(number) {
                    *is_in = true;
                }
            }
        }
        if n_images > 0 {
            shown.push(format!("{} {n_images}", part.name()));
        }
        json["official_parts"][part.name()] =
            json!({"images": n_images, "patients": patients.len()});
    }
    if shown.is_empty() {
        json["official_parts"] = Value::Null;
        return None;
    }
    let is_shared = |parts: &&[bool; 3]| parts.iter().filter(|is_in| **is_in).count() > 1;
    let n_shared = of_patients.values().filter(is_shared).count();
    let n_outside = (index.records().iter())
        .filter(|record| record.part.is_none())
        .count();
    json["official_parts"]["shared_patients"] = json!(n_shared);
    json["official_parts"]["in_no_part"] = json!(n_outside);
    Some(format!(
        "official parts, in images: {}; in no part {n_outside}; patients in several: {n_shared}",
        shown.join(", ")
    ))
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
        ..LabelCount::default()
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
        let of_unsaid = [(count.uncertain, "uncertain"), (count.unknown, "unknown")];
        let unsaid: Vec<String> = (of_unsaid.into_iter())
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        if !unsaid.is_empty() {
            let _ = write!(text, "  ({})", unsaid.join(", "));
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

/// How many images each patient, or each study, has.
fn images_of<'a, K: Eq + Hash + 'a>(
    records: &'a [Record],
    key: impl Fn(&'a Record) -> Option<&'a K>,
) -> Vec<usize> {
    let mut of: HashMap<&K, usize> = HashMap::new();
    for key in records.iter().filter_map(key) {
        *of.entry(key).or_default() += 1;
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
