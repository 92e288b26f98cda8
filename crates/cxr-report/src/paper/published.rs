//! The figures that the paper prints, to set ours beside: Hanif, Bilal, Alsaggaf and Al-Saggaf,
//! *Enhancing Multi-Label Chest X-Ray Classification Using an Improved Ranking Loss*, Bioengineering
//! 2025, 12(6), 593, doi 10.3390/bioengineering12060593, Tables 1 to 5 and the training times of its text.
//!
//! AUCs are kept with the four decimals of print, labels in the paper's order.

/// The labels in the order of the paper's tables.
pub use cxr_run::CHEST_X_RAY14_LABELS as LABELS;

/// A table of the paper: one AUC per label and column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PublishedTable {
    /// What it shows.
    pub title: &'static str,
    /// The columns' names.
    pub columns: &'static [&'static str],
    /// Each label with one AUC per column; empty where the paper prints averages only.
    pub rows: &'static [(&'static str, &'static [f64])],
    /// The averages over the labels, as printed.
    pub averages: &'static [f64],
}

impl PublishedTable {
    /// The position of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|&column| column == name)
    }

    /// One label's AUCs, column by column.
    pub fn row(&self, label: &str) -> Option<&'static [f64]> {
        let (_, aucs) = self.rows.iter().find(|&&(name, _)| name == label)?;
        Some(aucs)
    }

    /// A column's mean over `labels`: the printed average when those are the paper's fourteen, as the
    /// mean of rounded figures may end in another last digit. `None` when the table lacks a label, and
    /// for no labels.
    pub fn mean(&self, column: usize, labels: &[&str]) -> Option<f64> {
        let are_all = labels.len() == LABELS.len() && LABELS.iter().all(|l| labels.contains(l));
        if are_all {
            return self.averages.get(column).copied();
        }
        let aucs: Vec<f64> = labels
            .iter()
            .map(|label| self.row(label)?.get(column).copied())
            .collect::<Option<_>>()?;
        (!aucs.is_empty()).then(|| aucs.iter().sum::<f64>() / aucs.len() as f64)
    }
}

/// Table 1: columns are named as variants are; only the mean over the labels is printed.
pub const TABLE_1: PublishedTable = PublishedTable {
    title: "Validation mean AUC by loss",
    columns: &["bce", "focal", "zlpr", "fzlpr-0.2"],
    rows: &[],
    averages: &[0.8082, 0.8312, 0.8238, 0.8344],
};

/// Table 2: columns are named as variants are.
pub const TABLE_2: PublishedTable = PublishedTable {
    title: "Test AUC by loss, single view",
    columns: &["bce", "focal", "zlpr", "fzlpr-0.2"],
    rows: &[
        ("Atelectasis", &[0.7716, 0.7770, 0.7733, 0.7729]),
        ("Cardiomegaly", &[0.8742, 0.8834, 0.8761, 0.8787]),
        ("Effusion", &[0.8270, 0.8273, 0.8250, 0.8266]),
        ("Infiltration", &[0.6831, 0.6765, 0.6686, 0.6655]),
        ("Mass", &[0.8241, 0.8246, 0.8177, 0.8247]),
        ("Nodule", &[0.7697, 0.7723, 0.7619, 0.7582]),
        ("Pneumonia", &[0.7042, 0.7290, 0.7118, 0.7158]),
        ("Pneumothorax", &[0.8628, 0.8599, 0.8593, 0.8639]),
        ("Consolidation", &[0.7458, 0.7437, 0.7442, 0.7447]),
        ("Edema", &[0.8414, 0.8456, 0.8374, 0.8403]),
        ("Emphysema", &[0.9072, 0.9112, 0.9057, 0.9077]),
        ("Fibrosis", &[0.8004, 0.8083, 0.8018, 0.8058]),
        ("Pleural_Thickening", &[0.7707, 0.7723, 0.7666, 0.7670]),
        ("Hernia", &[0.7276, 0.7740, 0.7406, 0.8911]),
    ],
    averages: &[0.7936, 0.8004, 0.7921, 0.8045],
};

/// Table 3: columns are named as [`ViewSet`](cxr_run::ViewSet)s are.
pub const TABLE_3: PublishedTable = PublishedTable {
    title: "Test AUC with test-time augmentation, FZLPR with τ = 0.2",
    columns: &["single", "hflip", "hflip-zoom"],
    rows: &[
        ("Atelectasis", &[0.7729, 0.7754, 0.7785]),
        ("Cardiomegaly", &[0.8787, 0.8818, 0.8857]),
        ("Effusion", &[0.8266, 0.8287, 0.8289]),
        ("Infiltration", &[0.6655, 0.6688, 0.6848]),
        ("Mass", &[0.8247, 0.8301, 0.8313]),
        ("Nodule", &[0.7582, 0.7622, 0.7687]),
        ("Pneumonia", &[0.7158, 0.7160, 0.7174]),
        ("Pneumothorax", &[0.8639, 0.8677, 0.8670]),
        ("Consolidation", &[0.7447, 0.7462, 0.7472]),
        ("Edema", &[0.8403, 0.8428, 0.8436]),
        ("Emphysema", &[0.9077, 0.9096, 0.9066]),
        ("Fibrosis", &[0.8058, 0.8101, 0.8125]),
        ("Pleural_Thickening", &[0.7670, 0.7671, 0.7670]),
        ("Hernia", &[0.8911, 0.8909, 0.8952]),
    ],
    averages: &[0.8045, 0.8070, 0.8096],
};

/// Table 4: columns are named by τ; τ = 1.0 is ZLPR.
pub const TABLE_4: PublishedTable = PublishedTable {
    title: "Test AUC of FZLPR by τ, single view",
    columns: &["0.1", "0.2", "0.4", "0.6", "0.8", "1.0"],
    rows: &[
        (
            "Atelectasis",
            &[0.7743, 0.7729, 0.7741, 0.7745, 0.7728, 0.7733],
        ),
        (
            "Cardiomegaly",
            &[0.8748, 0.8787, 0.8747, 0.8708, 0.8761, 0.8761],
        ),
        (
            "Effusion",
            &[0.8250, 0.8266, 0.8236, 0.8265, 0.8261, 0.8250],
        ),
        (
            "Infiltration",
            &[0.6716, 0.6655, 0.6624, 0.6649, 0.6731, 0.6686],
        ),
        ("Mass", &[0.8169, 0.8247, 0.8189, 0.8182, 0.8143, 0.8177]),
        ("Nodule", &[0.7540, 0.7582, 0.7521, 0.7546, 0.7585, 0.7619]),
        (
            "Pneumonia",
            &[0.7159, 0.7158, 0.7172, 0.7143, 0.7146, 0.7118],
        ),
        (
            "Pneumothorax",
            &[0.8599, 0.8639, 0.8606, 0.8660, 0.8601, 0.8593],
        ),
        (
            "Consolidation",
            &[0.7360, 0.7447, 0.7415, 0.7446, 0.7464, 0.7442],
        ),
        ("Edema", &[0.8371, 0.8403, 0.8366, 0.8400, 0.8364, 0.8374]),
        (
            "Emphysema",
            &[0.9065, 0.9077, 0.9080, 0.9074, 0.9049, 0.9057],
        ),
        (
            "Fibrosis",
            &[0.7950, 0.8058, 0.8051, 0.8020, 0.8042, 0.8018],
        ),
        (
            "Pleural_Thickening",
            &[0.7567, 0.7670, 0.7683, 0.7642, 0.7764, 0.7666],
        ),
        ("Hernia", &[0.8848, 0.8911, 0.8543, 0.8246, 0.7533, 0.7406]),
    ],
    averages: &[0.8006, 0.8045, 0.7998, 0.7980, 0.7941, 0.7921],
};

/// Table 5: the other methods' figures are as the paper quotes them. The paper dates Guan & Huang 2021, whose article is of 2020
/// (Pattern Recognition Letters 130), and prints Katona as "Kotana".
pub const TABLE_5: PublishedTable = PublishedTable {
    title: "Test AUC beside published methods; the last column is the paper's, flip and zoom",
    columns: &[
        "Wang 2017",
        "Gündel 2019",
        "Guan 2020 (CRAL)",
        "Baltruschat 2019 (with non-image data)",
        "Kufel 2023 (not the official split)",
        "Katona (ensemble, pretrained on MIMIC)",
        "FZLPR, flip and zoom",
    ],
    rows: &[
        (
            "Atelectasis",
            &[0.7003, 0.7670, 0.7810, 0.7630, 0.8170, 0.8323, 0.7785],
        ),
        (
            "Cardiomegaly",
            &[0.8100, 0.8830, 0.8830, 0.8750, 0.9110, 0.9014, 0.8857],
        ),
        (
            "Effusion",
            &[0.7585, 0.8280, 0.8310, 0.8220, 0.8790, 0.8915, 0.8289],
        ),
        (
            "Infiltration",
            &[0.6614, 0.7090, 0.6970, 0.6940, 0.7160, 0.6489, 0.6848],
        ),
        (
            "Mass",
            &[0.6933, 0.8210, 0.8300, 0.8200, 0.8530, 0.8676, 0.8313],
        ),
        (
            "Nodule",
            &[0.6687, 0.7580, 0.7640, 0.7470, 0.7710, 0.7773, 0.7687],
        ),
        (
            "Pneumonia",
            &[0.6580, 0.7310, 0.7250, 0.7140, 0.7690, 0.7465, 0.7174],
        ),
        (
            "Pneumothorax",
            &[0.7993, 0.8460, 0.8660, 0.8400, 0.8980, 0.8651, 0.8670],
        ),
        (
            "Consolidation",
            &[0.7032, 0.7450, 0.7580, 0.7490, 0.8150, 0.8123, 0.7472],
        ),
        (
            "Edema",
            &[0.8052, 0.8350, 0.8530, 0.8460, 0.9080, 0.9040, 0.8436],
        ),
        (
            "Emphysema",
            &[0.8330, 0.8950, 0.9110, 0.8950, 0.9350, 0.8918, 0.9066],
        ),
        (
            "Fibrosis",
            &[0.7859, 0.8180, 0.8260, 0.8160, 0.8240, 0.8076, 0.8125],
        ),
        (
            "Pleural_Thickening",
            &[0.6835, 0.7610, 0.7800, 0.7630, 0.8120, 0.8208, 0.7670],
        ),
        (
            "Hernia",
            &[0.8717, 0.8960, 0.9180, 0.9370, 0.8900, 0.8628, 0.8952],
        ),
    ],
    averages: &[0.7451, 0.8066, 0.8159, 0.8058, 0.8427, 0.8307, 0.8096],
};

/// The last column of Table 5: the paper's AUC minus the best of the other methods', by label in the
/// order of [`TABLE_5`], then of the averages.
pub const TABLE_5_DELTAS: (&[f64], f64) = (
    &[
        -0.0538, -0.0253, -0.0626, -0.0312, -0.0363, -0.0086, -0.0516, -0.0310, -0.0678, -0.0644,
        -0.0284, -0.0135, -0.0538, -0.0418,
    ],
    -0.0331,
);

/// Minutes of training on one GTX 1080 Ti, by variant.
pub const TRAINING_MINUTES: &[(&str, f64)] = &[
    ("bce", 186.0),
    ("focal", 186.0),
    ("zlpr", 189.0),
    ("fzlpr-0.2", 189.0),
];
