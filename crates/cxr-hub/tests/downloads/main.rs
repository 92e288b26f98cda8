//! Downloads from a server that this test starts.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod cache;
mod fake_hub;
mod folder;
mod hub;
mod one_file;
mod place;
mod publish;
mod server;
