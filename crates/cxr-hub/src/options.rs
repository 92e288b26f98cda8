//! How to fetch.

use std::path::PathBuf;
use std::time::Duration;

use crate::{Endpoint, Token};

/// How often, how long and from which hub. The defaults know nothing of the environment:
/// [`Options::from_environment`] does.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Options {
    /// The hub that [`HubFile`](crate::HubFile)s are had from.
    pub endpoint: Endpoint,
    /// Who asks: sent with every request to the hub's own address, and to no other: none.
    pub token: Option<Token>,
    /// The cache of Python's `huggingface_hub`, from which files are taken that are there already:
    /// none.
    pub cache: Option<PathBuf>,
    /// Whether nothing may be asked for over a network: no.
    pub offline: bool,
    /// How many attempts in a row may bring nothing new before a source is given up: 6. At least 1.
    pub attempts: u32,
    /// The pause before the second attempt: 1 s. It doubles with every further one.
    pub first_pause: Duration,
    /// The longest pause: 1 min.
    pub longest_pause: Duration,
    /// The longest `Retry-After` that is waited for: 10 min. A server that asks for more is given up.
    pub longest_retry_after: Duration,
    /// How long a connection may take, and may stay silent: 30 s.
    pub patience: Duration,
    /// Bytes to be left free on the volume: 64 MiB.
    pub reserve: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            endpoint: Endpoint::default(),
            token: None,
            cache: None,
            offline: false,
            attempts: 6,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(60),
            longest_retry_after: Duration::from_secs(600),
            patience: Duration::from_secs(30),
            reserve: 64 << 20,
        }
    }
}

impl Options {
    /// The pause after `failures` attempts in a row without progress.
    pub(crate) fn pause(&self, failures: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
        self.first_pause
            .saturating_mul(doubled)
            .min(self.longest_pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_limit() {
        let options = Options::default();
        let seconds: Vec<u64> = [1, 2, 3, 6, 7, 8, 100]
            .map(|failures| options.pause(failures).as_secs())
            .to_vec();
        assert_eq!(seconds, [1, 2, 4, 32, 60, 60, 60]);
    }
}
