//! Words and numbers as cells and sentences have them.

use crate::document::TableCell;
use crate::paper::loss_heading;
use crate::report::Report;

/// A variant as a reader is shown it.
pub(super) fn heading_of(report: &Report, variant: &str) -> String {
    let run = report.runs.iter().find(|run| run.variant == variant);
    run.map_or_else(|| variant.to_owned(), loss_heading)
}

/// Four decimals with a sign; what is shown as zero has none.
pub(super) fn signed(difference: f64) -> String {
    let difference = (difference * 1e4).round() / 1e4;
    if difference < 0.0 {
        format!("−{:.4}", -difference)
    } else if difference > 0.0 {
        format!("+{difference:.4}")
    } else {
        "0.0000".to_owned()
    }
}

/// Arguments as one line for a POSIX shell.
pub(super) fn shell_line(arguments: &[String]) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@".contains(c);
    let quoted: Vec<String> = arguments
        .iter()
        .map(|argument| {
            if !argument.is_empty() && argument.chars().all(is_plain) {
                argument.clone()
            } else {
                format!("'{}'", argument.replace('\'', r"'\''"))
            }
        })
        .collect();
    quoted.join(" ")
}

pub(super) fn cells(texts: &[&str]) -> Vec<TableCell> {
    texts.iter().map(|&text| text.into()).collect()
}

/// Four decimals, or a dash where it is undefined.
pub(super) fn auc(value: Option<f64>) -> TableCell {
    value.map_or_else(dash, |value| format!("{value:.4}").into())
}

pub(super) fn dash() -> TableCell {
    "–".into()
}

/// A count with commas between thousands.
pub(crate) fn count(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(super) fn duration(seconds: f64) -> String {
    if seconds < 120.0 {
        format!("{seconds:.1} s")
    } else if seconds < 7_200.0 {
        format!("{:.1} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3_600.0)
    }
}

/// Labels as a reader is shown them.
pub(crate) fn labels_or_none(labels: &[String]) -> String {
    if labels.is_empty() {
        return "no finding".to_owned();
    }
    labels.join(", ").replace('_', " ")
}
