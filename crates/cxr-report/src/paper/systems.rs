//! The published systems that experiments build: what they are called, which column of Table 5 is theirs, and why a figure
//! from here may differ from the published one.

use cxr_run::RunMetrics;

/// A published system, by the name that variants of experiments have under `system`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedSystem {
    /// The name in experiment files, such as `wang-2017`.
    pub name: &'static str,
    /// What a reader is shown.
    pub title: &'static str,
    /// Its column of [`TABLE_5`](super::TABLE_5), if it has one.
    pub table_5: Option<&'static str>,
    /// Why a figure from here may differ from the published one: split, size, data.
    pub may_differ: &'static str,
}

/// Those that this crate knows something of. A run may name any other, which then has no published figure beside it.
pub const SYSTEMS: &[PublishedSystem] = &[
    PublishedSystem {
        name: "wang-2017",
        title: "Wang et al. 2017",
        table_5: Some("Wang 2017"),
        may_differ: "the published one is of the first release's labels, with Caffe's ImageNet weights; its learning \
                     rate, momentum and augmentation are not published",
    },
    PublishedSystem {
        name: "gundel-2019",
        title: "Gündel et al. 2019",
        table_5: Some("Gündel 2019"),
        may_differ: "the published network was trained with location labels of a second data set, PLCO, in its best \
                     form; here with ChestX-ray14 alone, and its first two convolutions are a reading of one sentence",
    },
    PublishedSystem {
        name: "cral-2020",
        title: "Guan & Huang 2020 (CRAL)",
        table_5: Some("Guan 2020 (CRAL)"),
        may_differ: "the layers that make the attention maps, and the optimiser, are not published in what was read",
    },
    PublishedSystem {
        name: "baltruschat-2019",
        title: "Baltruschat et al. 2019",
        table_5: Some("Baltruschat 2019 (with non-image data)"),
        may_differ: "the published network reads the patient's age and sex and the view beside the image, at 448 pixels",
    },
    PublishedSystem {
        name: "kufel-2023",
        title: "Kufel et al. 2023 (not the official split)",
        table_5: Some("Kufel 2023 (not the official split)"),
        may_differ: "published and here are each of a split of their own, the published one unknown: its test images \
                     are neither the official ones nor those here",
    },
    PublishedSystem {
        name: "katona-ensemble",
        title: "Katona et al., Nguyen-Mau et al. (ensemble)",
        table_5: Some("Katona (ensemble, pretrained on MIMIC)"),
        may_differ: "the published ensemble was first trained on MIMIC-CXR; here it begins with ImageNet's weights",
    },
    PublishedSystem {
        name: "katona-2024",
        title: "Katona et al. 2024",
        table_5: None,
        may_differ: "",
    },
    PublishedSystem {
        name: "irvin-2019",
        title: "Irvin et al. 2019 (CheXpert)",
        table_5: None,
        may_differ: "",
    },
    PublishedSystem {
        name: "ge-2020",
        title: "Ge et al. 2020",
        table_5: None,
        may_differ: "",
    },
    PublishedSystem {
        name: "csra-2021",
        title: "Zhu & Wu 2021 (CSRA)",
        table_5: None,
        may_differ: "",
    },
    PublishedSystem {
        name: "strong-224",
        title: "best single model at 224 pixels",
        table_5: None,
        may_differ: "",
    },
    PublishedSystem {
        name: "strong-384",
        title: "best single model above 224 pixels",
        table_5: None,
        may_differ: "",
    },
];

/// What is known of the system of this name.
pub fn published_system(name: &str) -> Option<&'static PublishedSystem> {
    SYSTEMS.iter().find(|system| system.name == name)
}

/// What a reader is shown for a system: its title, or its name where nothing is known of it.
pub(crate) fn title_of_system(name: &str) -> &str {
    published_system(name).map_or(name, |system| system.title)
}

/// Whether a run is of a published system, not of one of the losses on the experiment's own network: the tables of losses
/// leave it out.
pub(crate) fn is_of_a_system(run: &RunMetrics) -> bool {
    run.system.is_some()
}

/// The variant of a run without its seed.
pub(crate) fn variant_without_seed(run: &RunMetrics) -> &str {
    let ending = format!("-seed{}", run.seed);
    run.variant.strip_suffix(&ending).unwrap_or(&run.variant)
}
