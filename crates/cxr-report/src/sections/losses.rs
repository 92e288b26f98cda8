//! The losses, the labels and some images: figures that need no result.

use super::{Material, Section};
use crate::document::Document;

/// Figures 1, 3 and 4.
pub(super) struct DataAndLosses;

impl Section for DataAndLosses {
    fn add(&self, page: &mut Document, from: &Material<'_>) {
        if from.report.runs.is_empty() {
            return;
        }
        page.heading("Data and losses");
        for name in ["figure1", "figure3", "figure4"] {
            page.figure(&from.figures, name);
        }
    }
}
