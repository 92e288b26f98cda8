//! The losses, the network, the labels and some images: figures that need no result.

use super::{Material, Section};
use crate::document::Document;

/// Figures 1 to 4.
pub(super) struct DataAndLosses;

impl Section for DataAndLosses {
    fn add(&self, page: &mut Document, from: &Material<'_>) {
        if from.report.runs.is_empty() {
            return;
        }
        page.heading("Losses, network and data");
        for name in ["figure1", "figure2", "figure3", "figure4"] {
            page.figure(&from.figures, name);
        }
    }
}
