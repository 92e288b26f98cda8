//! Whose weights can be imported, and what their files do not say of themselves.

use cxr_backbone::{BACKBONES, BackboneConfig};
use serde_json::Value;

/// A kind of weights: a network of ours, and how its authors take images and name findings.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Architecture {
    /// The name that `cxr import --architecture` takes.
    pub name: &'static str,
    /// The backbone's name among [`BACKBONES`].
    pub backbone: &'static str,
    /// Images are resized to this side.
    pub image_size: usize,
    /// The network sees the central square of this side.
    pub crop_size: usize,
    /// Subtracted from grey values in [0, 1], on every channel.
    pub mean: [f32; 3],
    /// Then divided by this.
    pub std: [f32; 3],
    /// What the outputs are, where the authors have one list; empty where whoever imports has to say.
    pub labels: &'static [&'static str],
    /// Trainings of the authors that differ in their outputs.
    pub trainings: &'static [Training],
}

/// One of an author's published trainings.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Training {
    /// Its name.
    pub name: &'static str,
    /// What each output is; outputs without a name were not trained.
    pub labels: &'static [&'static str],
    /// From which `σ(logit)` on the authors call each label; NaN of outputs that were not trained.
    pub operating_points: &'static [f64],
}

const IMAGENET: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// ChestX-ray14's findings in the order of CheXNet's and medical_mae's lists.
const NIH: &[&str] = &[
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
];

/// torchxrayvision's outputs, in its order.
const ALL: &[&str] = &[
    "Atelectasis",
    "Consolidation",
    "Infiltration",
    "Pneumothorax",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Effusion",
    "Pneumonia",
    "Pleural_Thickening",
    "Cardiomegaly",
    "Nodule",
    "Mass",
    "Hernia",
    "Lung Lesion",
    "Fracture",
    "Lung Opacity",
    "Enlarged Cardiomediastinum",
];

/// Those of them that MIMIC-CXR and CheXpert have.
const CHEXPERT: &[&str] = &[
    "Atelectasis",
    "Consolidation",
    "",
    "Pneumothorax",
    "Edema",
    "",
    "",
    "Effusion",
    "Pneumonia",
    "",
    "Cardiomegaly",
    "",
    "",
    "",
    "Lung Lesion",
    "Fracture",
    "Lung Opacity",
    "Enlarged Cardiomediastinum",
];

const NAN: f64 = f64::NAN;

/// Labels and operating points of torchxrayvision's DenseNets, from `model_urls` in `torchxrayvision/models.py` of version
/// 1.5.7.
const XRV_DENSENETS: &[Training] = &[
    Training {
        name: "all",
        labels: ALL,
        operating_points: &[
            0.07422872,
            0.038290843,
            0.09814756,
            0.0098118475,
            0.023601074,
            0.0022490358,
            0.010060724,
            0.103246614,
            0.056810737,
            0.026791653,
            0.050318155,
            0.023985857,
            0.01939503,
            0.042889766,
            0.053369623,
            0.035975814,
            0.20204692,
            0.05015312,
        ],
    },
    Training {
        name: "nih",
        labels: &[
            "Atelectasis",
            "Consolidation",
            "Infiltration",
            "Pneumothorax",
            "Edema",
            "Emphysema",
            "Fibrosis",
            "Effusion",
            "Pneumonia",
            "Pleural_Thickening",
            "Cardiomegaly",
            "Nodule",
            "Mass",
            "Hernia",
            "",
            "",
            "",
            "",
        ],
        operating_points: &[
            0.039117552,
            0.0034529066,
            0.11396341,
            0.0057298196,
            0.00045666535,
            0.0018880932,
            0.012037827,
            0.038744126,
            0.0037213727,
            0.014730946,
            0.016149804,
            0.054241467,
            0.037198864,
            0.0004403434,
            NAN,
            NAN,
            NAN,
            NAN,
        ],
    },
    Training {
        name: "pc",
        labels: &[
            "Atelectasis",
            "Consolidation",
            "Infiltration",
            "Pneumothorax",
            "Edema",
            "Emphysema",
            "Fibrosis",
            "Effusion",
            "Pneumonia",
            "Pleural_Thickening",
            "Cardiomegaly",
            "Nodule",
            "Mass",
            "Hernia",
            "",
            "Fracture",
            "",
            "",
        ],
        operating_points: &[
            0.031012505,
            0.013347598,
            0.081435576,
            0.001262615,
            0.002587246,
            0.0035944257,
            0.0023071,
            0.055412333,
            0.044385884,
            0.042766232,
            0.043258056,
            0.037629247,
            0.005658899,
            0.0091741895,
            NAN,
            0.026507627,
            NAN,
            NAN,
        ],
    },
    Training {
        name: "chex",
        labels: CHEXPERT,
        operating_points: &[
            0.1988969, 0.05710573, NAN, 0.0531293, 0.1435217, NAN, NAN, 0.27212676, 0.07749717,
            NAN, 0.19712369, NAN, NAN, NAN, 0.09932402, 0.09273402, 0.3270967, 0.10888247,
        ],
    },
    Training {
        name: "mimic_nb",
        labels: CHEXPERT,
        operating_points: &[
            0.08558747,
            0.011884617,
            NAN,
            0.0040595434,
            0.010733786,
            NAN,
            NAN,
            0.118761964,
            0.022924708,
            NAN,
            0.06358637,
            NAN,
            NAN,
            NAN,
            0.022143636,
            0.017476924,
            0.1258702,
            0.014020768,
        ],
    },
    Training {
        name: "mimic_ch",
        labels: CHEXPERT,
        operating_points: &[
            0.09121389,
            0.010573786,
            NAN,
            0.005023008,
            0.003698257,
            NAN,
            NAN,
            0.08001232,
            0.037242252,
            NAN,
            0.05006329,
            NAN,
            NAN,
            NAN,
            0.019866971,
            0.03823637,
            0.11303808,
            0.0069147074,
        ],
    },
    Training {
        name: "rsna",
        labels: &[
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "Pneumonia",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "Lung Opacity",
            "",
        ],
        operating_points: &[
            NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, 0.13486601, NAN, NAN, NAN, NAN, NAN, NAN, NAN,
            0.13511065, NAN,
        ],
    },
];

/// That of its ResNet, from the same place. Outputs without an operating point were not trained.
const XRV_RESNETS: &[Training] = &[Training {
    name: "all",
    labels: &[
        "Atelectasis",
        "Consolidation",
        "Infiltration",
        "Pneumothorax",
        "Edema",
        "Emphysema",
        "Fibrosis",
        "Effusion",
        "Pneumonia",
        "Pleural_Thickening",
        "Cardiomegaly",
        "Nodule",
        "Mass",
        "Hernia",
        "",
        "Fracture",
        "Lung Opacity",
        "",
    ],
    operating_points: &[
        0.51570356, 0.50444704, 0.53787947, 0.50723547, 0.5025118, 0.5035252, 0.5038076,
        0.51862943, 0.5078151, 0.50724894, 0.5056339, 0.510706, 0.5053923, 0.5020846, NAN,
        0.5080557, 0.5138526, NAN,
    ],
}];

/// Grey values as torchxrayvision takes them: −1024 to 1024, `(v − ½) · 2048`.
const XRV: ([f32; 3], [f32; 3]) = ([0.5; 3], [1. / 2048.; 3]);

/// Kinds of weights that say more than a network's name. Every described backbone is a kind under its own name, too.
const NAMED: &[Architecture] = &[
    Architecture {
        name: "torchxrayvision-densenet121",
        backbone: "densenet121",
        image_size: 224,
        crop_size: 224,
        mean: XRV.0,
        std: XRV.1,
        labels: &[],
        trainings: XRV_DENSENETS,
    },
    Architecture {
        name: "torchxrayvision-resnet50",
        backbone: "resnet50",
        image_size: 512,
        crop_size: 512,
        mean: XRV.0,
        std: XRV.1,
        labels: &[],
        trainings: XRV_RESNETS,
    },
    Architecture {
        name: "medical-mae-densenet121",
        backbone: "densenet121",
        image_size: 256,
        crop_size: 224,
        mean: [0.5056; 3],
        std: [0.252; 3],
        labels: NIH,
        trainings: &[],
    },
];

/// All kinds of weights that can be imported: those of torchxrayvision and medical_mae, and networks of torchvision and timm.
pub fn architectures() -> Vec<Architecture> {
    // Networks that do not end in a dense layer on the means of their last maps have no head here.
    let has_classifier = |net: &dyn BackboneConfig| match net.torchvision() {
        Some(torchvision) => torchvision.classifier.is_some(),
        None => net.description().is_some(),
    };
    let plain = BACKBONES.iter().filter(|entry| {
        let net = entry.parse(&Value::Null);
        net.is_ok_and(|net| has_classifier(net.as_ref()))
    });
    let plain = plain.map(|entry| Architecture {
        name: entry.name,
        backbone: entry.name,
        image_size: 256,
        crop_size: 224,
        mean: IMAGENET.0,
        std: IMAGENET.1,
        labels: &[],
        trainings: &[],
    });
    NAMED.iter().cloned().chain(plain).collect()
}
