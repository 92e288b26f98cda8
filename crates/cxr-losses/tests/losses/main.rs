//! Every loss against PyTorch, finite differences, its limits and its identities.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod balanced_asymmetric;
mod counts;
mod finite_differences;
mod golden;
mod inputs;
mod limits;
mod properties;
mod support;
mod uncertain_class;
