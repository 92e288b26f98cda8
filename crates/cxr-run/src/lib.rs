#![doc = include_str!("../README.md")]

mod component;
mod model;

pub use component::Component;
pub use model::{ModelConfig, head_of_keys};
