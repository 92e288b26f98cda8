use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use candle_core::Device;

use crate::error::in_range;
use crate::{
    Asymmetric, AsymmetricPolynomial, BalancedAsymmetric, Bce, BiasedBoundMargin, Coefficients,
    DiseaseHealth, DistributionallyRobust, Focal, Focus, Fzlpr, LabelCorrelation, LabelCounts,
    LossError, Lsep, MultiLabelLoss, MultiLabelSoftmax, PairwiseHinge, RobustAsymmetric, SigmoidF1,
    WeightedBce, Zlpr,
};

/// A loss that [`by_name`] can make.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct LossEntry {
    /// The name, as in experiment files.
    pub name: &'static str,
    /// What the loss is, in a few words.
    pub summary: &'static str,
    /// Its parameters, in no particular order.
    pub parameters: &'static [Parameter],
    make: fn(&GivenParameters<'_>) -> Result<Box<dyn MultiLabelLoss>, LossError>,
}

impl LossEntry {
    /// An entry for [`register`]; `make` is called with what is given for the parameters.
    pub const fn new(
        name: &'static str,
        summary: &'static str,
        parameters: &'static [Parameter],
        make: fn(&GivenParameters<'_>) -> Result<Box<dyn MultiLabelLoss>, LossError>,
    ) -> Self {
        Self {
            name,
            summary,
            parameters,
            make,
        }
    }
}

/// A parameter of a [`LossEntry`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Parameter {
    /// The name, as in experiment files.
    pub name: &'static str,
    /// The value when it is not given; `None` where leaving it out means something of its own.
    pub default: Option<f64>,
    /// What it does, and its range.
    pub summary: &'static str,
}

impl Parameter {
    /// A parameter, with the value that it has when it is not given, if it has one.
    pub const fn new(name: &'static str, default: Option<f64>, summary: &'static str) -> Self {
        Self {
            name,
            default,
            summary,
        }
    }
}

const fn parameter(name: &'static str, default: f64, summary: &'static str) -> Parameter {
    Parameter::new(name, Some(default), summary)
}

const fn optional(name: &'static str, summary: &'static str) -> Parameter {
    Parameter::new(name, None, summary)
}

const GAMMA_POSITIVE: Parameter = parameter(
    "gamma_positive",
    0.0,
    "focusing of present labels, at least 0",
);
const GAMMA_NEGATIVE: Parameter = parameter(
    "gamma_negative",
    4.0,
    "focusing of absent labels, at least 0",
);
const MARGIN: Parameter = parameter(
    "margin",
    0.05,
    "probability up to which absent labels cost nothing, at least 0 and below 1",
);
const ALPHA_1: Parameter = parameter("alpha_1", 0.0, "coefficient of 1 − p for present labels");
const ALPHA_2: Parameter = parameter(
    "alpha_2",
    1.75,
    "coefficient of (1 − p)² for present labels",
);
const BETA_1: Parameter = parameter("beta_1", 1.0, "coefficient of p for absent labels");

/// Every loss of this crate, with its parameters.
pub const LOSSES: &[LossEntry] = &[
    LossEntry {
        name: "bce",
        summary: "binary cross-entropy with logits",
        parameters: &[],
        make: |_| Ok(Box::new(Bce)),
    },
    LossEntry {
        name: "weighted-bce",
        summary: "binary cross-entropy with weights; balanced by each batch unless its parameters say otherwise",
        parameters: &[
            optional(
                "positive_weight",
                "weight of every present label, at least 0; without it W-CEL's balance of the batch",
            ),
            parameter(
                "of_training_set",
                0.0,
                "1 for each label's own balance among the training images (Gündel et al.)",
            ),
        ],
        make: |given| {
            let weight = given.optional("positive_weight");
            let expected = "0 beside `positive_weight`";
            given.checked("of_training_set", expected, |value| {
                value == 0.0 || weight.is_none()
            })?;
            let of_training_set = given.switch("of_training_set")?;
            Ok(Box::new(match weight {
                Some(weight) => WeightedBce::uniform(weight)?,
                None if of_training_set => WeightedBce::of_counts(given.counts()?),
                None => WeightedBce::batch_balanced(),
            }))
        },
    },
    LossEntry {
        name: "focal",
        summary: "focal loss",
        parameters: &[
            parameter("gamma", 2.0, "focusing strength, at least 0"),
            optional(
                "alpha",
                "weight of present labels against 1 − alpha of absent ones, 0 to 1",
            ),
        ],
        make: |given| {
            let (gamma, alpha) = (given.value("gamma"), given.optional("alpha"));
            Ok(Box::new(Focal::new(gamma, alpha)?))
        },
    },
    LossEntry {
        name: "lsep",
        summary: "log-sum-exp pairwise ranking loss",
        parameters: &[],
        make: |_| Ok(Box::new(Lsep)),
    },
    LossEntry {
        name: "zlpr",
        summary: "zero-bounded log-sum-exp and pairwise rank-based loss",
        parameters: &[],
        make: |_| Ok(Box::new(Zlpr)),
    },
    LossEntry {
        name: "fzlpr",
        summary: "focal ZLPR: ZLPR with a temperature",
        parameters: &[parameter("tau", 0.2, "temperature, greater than 0")],
        make: |given| Ok(Box::new(Fzlpr::new(given.value("tau"))?)),
    },
    LossEntry {
        name: "asymmetric",
        summary: "asymmetric loss (ASL)",
        parameters: &[GAMMA_POSITIVE, GAMMA_NEGATIVE, MARGIN],
        make: |given| Ok(Box::new(Asymmetric::new(given.focus())?)),
    },
    LossEntry {
        name: "asymmetric-polynomial",
        summary: "asymmetric polynomial loss (APL)",
        parameters: &[
            GAMMA_POSITIVE,
            GAMMA_NEGATIVE,
            MARGIN,
            ALPHA_1,
            ALPHA_2,
            BETA_1,
        ],
        make: |given| {
            let loss = AsymmetricPolynomial::new(given.focus(), given.coefficients())?;
            Ok(Box::new(loss))
        },
    },
    LossEntry {
        name: "robust-asymmetric",
        summary: "robust asymmetric loss (RAL)",
        parameters: &[
            parameter("lambda", 1.5, "Hill parameter, at least 1"),
            GAMMA_POSITIVE,
            GAMMA_NEGATIVE,
            MARGIN,
            ALPHA_1,
            ALPHA_2,
            BETA_1,
        ],
        make: |given| {
            let (focus, coefficients) = (given.focus(), given.coefficients());
            Ok(Box::new(RobustAsymmetric::new(
                given.value("lambda"),
                focus,
                coefficients,
            )?))
        },
    },
    LossEntry {
        name: "balanced-asymmetric",
        summary: "balanced asymmetric loss (BAL); undefined for a batch without a positive logit",
        parameters: &[
            GAMMA_POSITIVE,
            parameter(
                "gamma_negative",
                12.0,
                "focusing of absent labels, at least 0",
            ),
            MARGIN,
            parameter("smoothing", 0.01, "label smoothing of presence, 0 to 1"),
        ],
        make: |given| {
            let loss = BalancedAsymmetric::new(given.focus(), given.value("smoothing"))?;
            Ok(Box::new(loss))
        },
    },
    LossEntry {
        name: "pairwise-hinge",
        summary: "pairwise hinge loss: every present label's logit above every absent one's by a margin",
        parameters: &[parameter("margin", 1.0, "margin of logits, greater than 0")],
        make: |given| Ok(Box::new(PairwiseHinge::new(given.value("margin"))?)),
    },
    LossEntry {
        name: "multi-label-softmax",
        summary: "multi-label softmax loss (MSML): each present label against all absent ones",
        parameters: &[],
        make: |_| Ok(Box::new(MultiLabelSoftmax)),
    },
    LossEntry {
        name: "label-correlation",
        summary: "label-correlation loss: pairs of a present and an absent probability",
        parameters: &[],
        make: |_| Ok(Box::new(LabelCorrelation)),
    },
    LossEntry {
        name: "disease-health",
        summary: "binary cross-entropy with multi-label softmax and label correlation beside it",
        parameters: &[
            parameter(
                "alpha",
                0.1,
                "weight of the multi-label softmax, at least 0",
            ),
            parameter("beta", 0.3, "weight of the label correlation, at least 0"),
        ],
        make: |given| {
            let (alpha, beta) = (given.value("alpha"), given.value("beta"));
            Ok(Box::new(DiseaseHealth::new(alpha, beta)?))
        },
    },
    LossEntry {
        name: "sigmoid-f1",
        summary: "sigmoidF1: a smooth F1 of each label over the batch",
        parameters: &[
            parameter("beta", 1.0, "slope of the smooth step, greater than 0"),
            parameter("eta", 0.0, "offset of the smooth step"),
            parameter(
                "of_probabilities",
                0.0,
                "1 to take the step of σ(x), 0 to take it of x",
            ),
        ],
        make: |given| {
            let (beta, eta) = (given.value("beta"), given.value("eta"));
            Ok(Box::new(match given.switch("of_probabilities")? {
                true => SigmoidF1::of_probabilities(beta, eta)?,
                false => SigmoidF1::new(beta, eta)?,
            }))
        },
    },
    LossEntry {
        name: "hbm",
        summary: "biased bound margin loss (HBM, flat); its bound is trained and starts on the CPU",
        parameters: &[
            parameter("alpha", 1.0, "strength of the biases, at least 0"),
            parameter(
                "margin",
                0.1,
                "margin of the bound as a probability, at least 0 and below 1",
            ),
            parameter("bound", 0.0, "the bound to start from"),
        ],
        make: |given| {
            let (alpha, margin) = (given.value("alpha"), given.value("margin"));
            let bound = given.value("bound");
            Ok(Box::new(BiasedBoundMargin::new(
                alpha,
                margin,
                bound,
                &Device::Cpu,
            )?))
        },
    },
    LossEntry {
        name: "distributionally-robust",
        summary: "distributionally robust loss (DR): LSEP of each label over the batch, with a constraint",
        parameters: &[
            parameter("gamma_1", 1.0, "scale of the pairs, greater than 0"),
            parameter("gamma_2", 1.0, "scale of the constraint, greater than 0"),
        ],
        make: |given| {
            let (gamma_1, gamma_2) = (given.value("gamma_1"), given.value("gamma_2"));
            Ok(Box::new(DistributionallyRobust::new(gamma_1, gamma_2)?))
        },
    },
];

static REGISTERED: RwLock<Vec<LossEntry>> = RwLock::new(Vec::new());

/// From now on [`by_name`] makes this loss too, and experiment files may name it; names are registered once, and ours stay
/// what they are.
///
/// ```
/// use std::collections::BTreeMap;
/// use cxr_losses::{Focal, LossEntry, Parameter, by_name, register};
///
/// const PARAMETERS: &[Parameter] = &[Parameter::new("gamma", Some(1.), "focusing strength, 1 to 3")];
/// register(LossEntry::new("mild-focal", "focal loss with a bound", PARAMETERS, |given| {
///     let gamma = given.checked("gamma", "from 1 to 3", |gamma| (1. ..=3.).contains(&gamma))?;
///     Ok(Box::new(Focal::new(gamma, None)?))
/// }))?;
/// assert_eq!(by_name("mild-focal", &BTreeMap::new())?.name(), "focal");
/// let error = by_name("mild-focal", &BTreeMap::from([("gamma".to_owned(), 5.)])).unwrap_err();
/// assert!(error.to_string().contains("must be from 1 to 3, got `5`"));
/// # Ok::<(), cxr_losses::LossError>(())
/// ```
///
/// # Errors
/// [`LossError::Taken`]; [`LossError::Name`] for a name that no experiment file could have.
pub fn register(entry: LossEntry) -> Result<(), LossError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if entry.name.is_empty() || !entry.name.chars().all(is_plain) {
        let name = entry.name.escape_debug().to_string();
        return Err(LossError::Name { name });
    }
    let mut registered = REGISTERED.write().unwrap_or_else(PoisonError::into_inner);
    if (LOSSES.iter().chain(&*registered)).any(|other| other.name == entry.name) {
        let name = entry.name.to_owned();
        return Err(LossError::Taken { name });
    }
    registered.push(entry);
    Ok(())
}

/// Every loss that [`by_name`] can make: [`LOSSES`], then those that this program has [registered](register).
pub fn entries() -> Vec<LossEntry> {
    let registered = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
    LOSSES.iter().chain(&*registered).copied().collect()
}

/// Makes the loss called `name`, with `parameters` by name; those left out have the defaults of its entry.
///
/// ```
/// use std::collections::BTreeMap;
///
/// let loss = cxr_losses::by_name("fzlpr", &BTreeMap::from([("tau".to_string(), 0.2)]))?;
/// assert_eq!(loss.name(), "fzlpr");
/// # Ok::<(), cxr_losses::LossError>(())
/// ```
///
/// # Errors
/// An unknown name, an unknown parameter or a value outside its range; the message lists what exists.
pub fn by_name(
    name: &str,
    parameters: &BTreeMap<String, f64>,
) -> Result<Box<dyn MultiLabelLoss>, LossError> {
    make(name, parameters, None)
}

/// As [`by_name`], for training images of which so many have each label: losses that take their weights from them can be
/// made.
///
/// # Errors
/// As [`by_name`].
pub fn by_name_with_counts(
    name: &str,
    parameters: &BTreeMap<String, f64>,
    counts: &LabelCounts,
) -> Result<Box<dyn MultiLabelLoss>, LossError> {
    make(name, parameters, Some(counts))
}

/// Whether there is a loss called `name` and it can have these parameters, whatever it is trained on.
///
/// # Errors
/// As [`by_name`].
pub fn check_parameters(name: &str, parameters: &BTreeMap<String, f64>) -> Result<(), LossError> {
    let any = LabelCounts {
        present: vec![1],
        absent: vec![1],
    };
    make(name, parameters, Some(&any)).map(drop)
}

fn make(
    name: &str,
    parameters: &BTreeMap<String, f64>,
    counts: Option<&LabelCounts>,
) -> Result<Box<dyn MultiLabelLoss>, LossError> {
    let entries = entries();
    let Some(entry) = entries.iter().find(|entry| entry.name == name) else {
        return Err(LossError::UnknownLoss {
            name: name.to_string(),
            available: list_losses(&entries),
        });
    };
    let known = |given: &str| entry.parameters.iter().any(|known| known.name == given);
    if let Some(unknown) = parameters.keys().find(|given| !known(given)) {
        return Err(LossError::UnknownParameter {
            loss: entry.name,
            parameter: unknown.clone(),
            available: list_parameters(entry),
        });
    }
    (entry.make)(&GivenParameters {
        loss: entry.name,
        given: parameters,
        known: entry.parameters,
        counts,
    })
}

/// What is given for the parameters of a loss, over their defaults.
#[derive(Debug, Clone, Copy)]
pub struct GivenParameters<'a> {
    loss: &'static str,
    given: &'a BTreeMap<String, f64>,
    known: &'a [Parameter],
    counts: Option<&'a LabelCounts>,
}

impl GivenParameters<'_> {
    /// The value of a parameter; `None` for one without a default that is not given, and for one that the entry does not
    /// have.
    pub fn optional(&self, name: &str) -> Option<f64> {
        let default = || self.known.iter().find(|known| known.name == name)?.default;
        self.given.get(name).copied().or_else(default)
    }

    /// The value of a parameter that has a default; NaN where [`Self::optional`] has none.
    pub fn value(&self, name: &str) -> f64 {
        self.optional(name).unwrap_or(f64::NAN)
    }

    /// The value of a parameter that has a default, if `accepts` says so; `expected` is its range in words.
    ///
    /// # Errors
    /// [`LossError::ParameterRange`].
    pub fn checked(
        &self,
        name: &'static str,
        expected: &'static str,
        accepts: impl Fn(f64) -> bool,
    ) -> Result<f64, LossError> {
        in_range(self.loss, name, expected, self.value(name), accepts)
    }

    /// How many training images have each label.
    ///
    /// # Errors
    /// [`LossError::NeedsCounts`] for a loss that is made apart from any data.
    pub fn counts(&self) -> Result<&LabelCounts, LossError> {
        self.counts
            .ok_or(LossError::NeedsCounts { loss: self.loss })
    }

    /// A parameter that is 0 or 1.
    fn switch(&self, name: &'static str) -> Result<bool, LossError> {
        let value = self.checked(name, "0 or 1", |value| value == 0.0 || value == 1.0)?;
        Ok(value == 1.0)
    }

    fn focus(&self) -> Focus {
        Focus {
            gamma_positive: self.value(GAMMA_POSITIVE.name),
            gamma_negative: self.value(GAMMA_NEGATIVE.name),
            margin: self.value(MARGIN.name),
        }
    }

    fn coefficients(&self) -> Coefficients {
        Coefficients {
            alpha_1: self.value(ALPHA_1.name),
            alpha_2: self.value(ALPHA_2.name),
            beta_1: self.value(BETA_1.name),
        }
    }
}

fn list_losses(entries: &[LossEntry]) -> String {
    let signatures: Vec<String> = entries
        .iter()
        .map(|entry| {
            let names: Vec<&str> = entry.parameters.iter().map(|known| known.name).collect();
            match names.as_slice() {
                [] => format!("`{}`", entry.name),
                names => format!("`{}` ({})", entry.name, names.join(", ")),
            }
        })
        .collect();
    signatures.join(", ")
}

fn list_parameters(entry: &LossEntry) -> String {
    if entry.parameters.is_empty() {
        return "it has none".to_string();
    }
    let described: Vec<String> = entry
        .parameters
        .iter()
        .map(|known| match known.default {
            Some(default) => format!("`{}` (default {default}): {}", known.name, known.summary),
            None => format!("`{}` (optional): {}", known.name, known.summary),
        })
        .collect();
    format!("it has {}", described.join("; "))
}
