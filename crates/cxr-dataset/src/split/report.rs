//! What a split is made of, for a reader who must trust it.

use std::collections::HashSet;
use std::fmt;

use serde::Serialize;

use super::{Part, Split, not_in_index};
use crate::index::count_labels;
use crate::{DatasetError, Index, LabelCount, PatientId, Record};

/// Sizes, label counts and shared patients of a [`Split`]; printed as a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitReport {
    /// How the validation part was taken: `paper`, `patient` or `patient-fold 0 of 5`.
    pub rule: String,
    /// The seed it was taken with.
    pub seed: u64,
    /// Names of the labels.
    pub labels: Vec<String>,
    /// Train, validation, test.
    pub parts: Vec<PartReport>,
    /// Patients that stand in two parts, for each pair of parts; empty when patients are unknown.
    pub shared_patients: Vec<SharedPatients>,
    /// Images of the index that are in no part: unlisted, absent, or excluded.
    pub n_images_in_no_part: usize,
}

/// One part of a [`SplitReport`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartReport {
    /// Which part.
    pub part: Part,
    /// Images in it.
    pub n_images: usize,
    /// Listed images that were taken out because their files are missing.
    pub n_absent: usize,
    /// Listed images that were taken out because they are not in the subset.
    pub n_excluded: usize,
    /// Patients in it; `None` when the patient of an image is not known.
    pub n_patients: Option<usize>,
    /// Images without any finding.
    pub n_without_finding: usize,
    /// For each label, in order, its positive, negative and unknown images.
    pub label_counts: Vec<LabelCount>,
}

/// Patients with images in two parts: what a validation or test score can remember.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SharedPatients {
    /// The two parts.
    pub between: (Part, Part),
    /// Patients with images in both.
    pub n_patients: usize,
    /// Images of the second part whose patient is also in the first.
    pub n_images_of_second: usize,
}

pub(super) fn report(split: &Split, index: &Index) -> Result<SplitReport, DatasetError> {
    let mut parts = Vec::new();
    let mut patients: Vec<Option<Vec<&PatientId>>> = Vec::new();
    for part in Part::ALL {
        let records = split
            .part(part)
            .iter()
            .map(|name| index.get(name).ok_or_else(|| not_in_index(name)));
        let records: Vec<&Record> = records.collect::<Result<_, _>>()?;
        let of_part: Option<Vec<&PatientId>> = records
            .iter()
            .map(|record| record.patient.as_ref())
            .collect();
        parts.push(PartReport {
            part,
            n_images: records.len(),
            n_absent: split.n_absent(part),
            n_excluded: split.n_excluded(part),
            n_patients: of_part.as_ref().map(|patients| distinct(patients).len()),
            n_without_finding: records
                .iter()
                .filter(|record| record.has_no_finding())
                .count(),
            label_counts: count_labels(index.label_set(), records.into_iter()),
        });
        patients.push(of_part);
    }
    let mut shared_patients = Vec::new();
    if let Some(patients) = patients.into_iter().collect::<Option<Vec<_>>>() {
        let with_patients: Vec<_> = Part::ALL.into_iter().zip(&patients).collect();
        for (position, (first, in_first)) in with_patients.iter().enumerate() {
            let in_first = distinct(in_first);
            for (second, in_second) in with_patients.iter().skip(position + 1) {
                let n_images_of_second = in_second
                    .iter()
                    .filter(|patient| in_first.contains(*patient))
                    .count();
                shared_patients.push(SharedPatients {
                    between: (*first, *second),
                    n_patients: in_first.intersection(&distinct(in_second)).count(),
                    n_images_of_second,
                });
            }
        }
    }
    let n_in_parts: usize = parts.iter().map(|part| part.n_images).sum();
    Ok(SplitReport {
        rule: split.rule().to_string(),
        seed: split.seed(),
        labels: index.label_set().names().to_vec(),
        parts,
        shared_patients,
        n_images_in_no_part: index.records().len().saturating_sub(n_in_parts),
    })
}

fn distinct<'a>(patients: &[&'a PatientId]) -> HashSet<&'a PatientId> {
    patients.iter().copied().collect()
}

impl fmt::Display for SplitReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, cell: &dyn Fn(&PartReport) -> String| {
            write!(formatter, "{name:<20}")?;
            for part in &self.parts {
                write!(formatter, "{:>16}", cell(part))?;
            }
            writeln!(formatter)
        };
        row("", &|part| part.part.to_string())?;
        row("images", &|part| part.n_images.to_string())?;
        row("absent", &|part| part.n_absent.to_string())?;
        row("excluded", &|part| part.n_excluded.to_string())?;
        row("patients", &|part| match part.n_patients {
            Some(n_patients) => n_patients.to_string(),
            None => "unknown".to_owned(),
        })?;
        row("without finding", &|part| {
            part.n_without_finding.to_string()
        })?;
        for (position, label) in self.labels.iter().enumerate() {
            row(label, &|part| {
                let count = part.label_counts.get(position).copied().unwrap_or_default();
                let n_known = count.positive + count.negative;
                if n_known == 0 {
                    return "unknown".to_owned();
                }
                let percent = 100.0 * count.positive as f64 / n_known as f64;
                format!("{} {percent:6.2} %", count.positive)
            })?;
        }
        writeln!(
            formatter,
            "validation split `{}`, seed {}",
            self.rule, self.seed
        )?;
        if self.shared_patients.is_empty() {
            writeln!(formatter, "patients are not known")?;
        }
        for shared in &self.shared_patients {
            let (first, second) = shared.between;
            writeln!(
                formatter,
                "{} patients in both {first} and {second}: {} images of {second}",
                shared.n_patients, shared.n_images_of_second
            )?;
        }
        writeln!(
            formatter,
            "{} images of the index in no part",
            self.n_images_in_no_part
        )
    }
}
