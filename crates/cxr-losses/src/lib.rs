#![doc = include_str!("../README.md")]

mod asymmetric;
mod balanced_asymmetric;
mod bound_margin;
mod by_name;
mod cross_entropy;
mod curve;
mod disease_health;
mod distributionally_robust;
mod element;
mod error;
pub mod functional;
mod graph;
mod inputs;
mod known;
mod label_weighted;
pub mod label_weights;
mod line;
mod log_sum;
mod loss;
mod number;
mod pairwise;
mod parallel;
mod ranking;
mod reduction;
mod sigmoid_f1;
#[cfg(test)]
mod tensor_path;
mod uncertain_class;

/// The tensor library, in the version that this crate's interface has.
pub use candle_core;

pub use asymmetric::{Asymmetric, AsymmetricPolynomial, Coefficients, Focus, RobustAsymmetric};
pub use balanced_asymmetric::BalancedAsymmetric;
pub use bound_margin::BiasedBoundMargin;
pub use by_name::{
    GivenParameters, LOSSES, LossEntry, Parameter, by_name, by_name_with_counts, check_parameters,
    entries, register,
};
pub use cross_entropy::{Bce, Focal, WeightedBce};
pub use curve::loss_curve;
pub use disease_health::DiseaseHealth;
pub use distributionally_robust::DistributionallyRobust;
pub use error::LossError;
pub use known::known;
pub use label_weighted::LabelWeighted;
pub use label_weights::LabelCounts;
pub use loss::{Granularity, MultiLabelLoss};
pub use pairwise::{LabelCorrelation, MultiLabelSoftmax, PairwiseHinge};
pub use ranking::{Fzlpr, Lsep, Zlpr};
pub use reduction::Reduction;
pub use sigmoid_f1::SigmoidF1;
pub use uncertain_class::{LabelColumns, UncertainClass};
