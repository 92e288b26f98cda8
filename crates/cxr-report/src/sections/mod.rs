//! The sections of a report, in reading order: each is one file that says what it needs, and gives blocks of the page and
//! tables as files. A new one is a file here and a line in [`SECTIONS`].

mod auc_table;
mod by_loss;
mod by_set;
mod environment;
mod external;
mod headline;
mod heat_maps;
mod losses;
mod methods;
mod paired_tests;
mod repeat;
mod runs;
mod stages;
mod summary;
mod systems;
mod temperature;
mod time;
mod validation;
mod views;
mod words;

pub use methods::{MethodsRow, MethodsTable, methods_table};
pub use stages::{StageRow, StageTable, stage_table};
pub use systems::{SystemRow, SystemRuns, SystemsTable, system_runs, systems_table};
pub(crate) use words::{count, labels_or_none};

use crate::document::{Block, Document};
use crate::figures::{Figure, figures};
use crate::report::Report;
use crate::tables::AucTable;
use cxr_run::RunMetrics;

/// A part of a report.
pub(crate) trait Section: Sync {
    /// The table of AUCs that the section makes of the runs; `None` where it makes none, or they lack what it needs.
    fn table(&self, _runs: &[RunMetrics]) -> Option<AucTable> {
        None
    }

    /// Adds what the section says; nothing where the report lacks what it needs.
    fn add(&self, page: &mut Document, from: &Material<'_>);

    /// Its tables with all digits: the names of files below `tables`, and CSV.
    fn files(&self, _from: &Material<'_>) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// All names that [`Self::files`] may give. Those that an earlier report gave and this one does not are removed.
    fn file_names(&self) -> &'static [&'static str] {
        &[]
    }
}

/// All sections in reading order.
pub(crate) const SECTIONS: [&dyn Section; 17] = [
    &summary::Summary,
    &runs::Runs,
    &losses::DataAndLosses,
    &validation::ValidationByLoss,
    &by_loss::TestByLoss,
    &views::Views,
    &temperature::Temperature,
    &methods::Methods,
    &systems::Systems,
    &by_set::BySet,
    &external::External,
    &heat_maps::HeatMaps,
    &stages::Stages,
    &time::Time,
    &environment::Environment,
    &repeat::Repeat,
    &repeat::Disclaimer,
];

/// What sections are made from: the report, and what several of them show.
pub(crate) struct Material<'a> {
    pub(crate) report: &'a Report,
    pub(crate) tables: Vec<AucTable>,
    pub(crate) figures: Vec<Figure>,
}

impl<'a> Material<'a> {
    pub(crate) fn of(report: &'a Report) -> Self {
        Self {
            report,
            tables: report.tables(),
            figures: figures(report),
        }
    }

    /// The table of AUCs that the paper gives this number.
    fn table(&self, number: u8) -> Option<&AucTable> {
        self.tables.iter().find(|table| table.number == number)
    }

    /// The page.
    pub(crate) fn document(&self) -> Document {
        let mut page = Document::default();
        page.add(Block::Title(format!(
            "Report of the experiment `{}`",
            self.report.experiment
        )));
        for section in SECTIONS {
            section.add(&mut page, self);
        }
        page
    }

    /// Every table as a file's name and its text.
    pub(crate) fn files(&self) -> Vec<(&'static str, String)> {
        let files = SECTIONS.iter().map(|section| section.files(self));
        files.flatten().collect()
    }
}
