#![doc = include_str!("../README.md")]

mod component;

pub use component::Component;
