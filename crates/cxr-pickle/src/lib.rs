#![doc = include_str!("../README.md")]

mod archive;
mod container;
mod error;
mod machine;
mod weights;

pub use container::read_weights;
pub use error::PickleError;
pub use weights::{ElementType, StoredTensor, StoredWeights};
