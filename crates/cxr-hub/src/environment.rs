//! The hub as the environment describes it: its address, who asks, what is cached, whether there
//! is a network. The variables are those of Python's `huggingface_hub`.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use hf_hub::Cache;

use crate::manifest::check_web_address;
use crate::{HubError, Options};

/// The address of a hub, such as `https://huggingface.co` or that of a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(String);

impl Endpoint {
    /// The address, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Endpoint {
    fn default() -> Self {
        Self("https://huggingface.co".to_owned())
    }
}

impl FromStr for Endpoint {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        check_web_address(text)?;
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What identifies its bearer to the hub. It is sent to the hub's own address only, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token; `None` for a text without any.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(…)")
    }
}

impl Options {
    /// The defaults, with `endpoint` and what the environment says of the hub:
    ///
    /// - `HF_ENDPOINT`: its address, where `endpoint` is none;
    /// - `HF_TOKEN`, or the token file of `hf auth login`, at `HF_TOKEN_PATH` or in `HF_HOME`;
    ///   with `HF_HUB_DISABLE_IMPLICIT_TOKEN`, none;
    /// - `HF_HUB_CACHE`, or the folder `hub` of `HF_HOME` (or of `$XDG_CACHE_HOME/huggingface`, or
    ///   of `~/.cache/huggingface`): what Python's `huggingface_hub` has downloaded;
    /// - `HF_HUB_OFFLINE`: nothing is asked for over a network.
    ///
    /// # Errors
    /// [`HubError::Address`] if `HF_ENDPOINT` is set to something else than an address.
    pub fn from_environment(endpoint: Option<Endpoint>) -> Result<Self, HubError> {
        Self::from_variables(endpoint, |name| std::env::var_os(name))
    }

    fn from_variables(
        endpoint: Option<Endpoint>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, HubError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name).map(|value| value.to_string_lossy().into_owned());
        let is_on = |name: &str| {
            let on = ["1", "ON", "YES", "TRUE"];
            text(name).is_some_and(|value| on.contains(&value.to_ascii_uppercase().as_str()))
        };
        let endpoint = match (endpoint, text("HF_ENDPOINT")) {
            (Some(endpoint), _) => endpoint,
            (None, Some(text)) => text.parse()?,
            (None, None) => Endpoint::default(),
        };
        let home = (set("HF_HOME").map(PathBuf::from))
            .or_else(|| set("XDG_CACHE_HOME").map(|cache| PathBuf::from(cache).join("huggingface")))
            .or_else(|| std::env::home_dir().map(|home| home.join(".cache/huggingface")));
        let of_login = || match set("HF_TOKEN_PATH") {
            Some(path) => std::fs::read_to_string(path).ok(),
            None => Cache::new(home.as_ref()?.join("hub")).token(),
        };
        let token = match is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            true => None,
            false => (text("HF_TOKEN").as_deref().and_then(Token::new))
                .or_else(|| of_login().as_deref().and_then(Token::new)),
        };
        let cache = (set("HF_HUB_CACHE").or_else(|| set("HUGGINGFACE_HUB_CACHE")))
            .map(PathBuf::from)
            .or_else(|| home.as_ref().map(|home| home.join("hub")));
        Ok(Self {
            endpoint,
            token,
            cache,
            offline: is_on("HF_HUB_OFFLINE"),
            ..Self::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)]) -> Result<Options, HubError> {
        Options::from_variables(None, |name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.into())
        })
    }

    // What huggingface_hub 2.4's `constants.py` and `utils/_auth.py` make of the same variables.
    #[test]
    fn variables_mean_what_they_mean_in_python() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().to_str().unwrap();
        std::fs::write(home.path().join("token"), "hf_of_file\n").unwrap();
        let token = |found: &Options| found.token.as_ref().map(|token| token.as_str().to_owned());

        let found = options(&[("HF_HOME", path)]).unwrap();
        assert_eq!(found.endpoint, Endpoint::default());
        assert_eq!(token(&found).as_deref(), Some("hf_of_file"));
        assert_eq!(found.cache, Some(home.path().join("hub")));
        assert!(!found.offline);

        let found = options(&[
            ("HF_HOME", path),
            ("HF_TOKEN", " hf_of_variable "),
            ("HF_HUB_CACHE", "/else/where"),
            ("HF_ENDPOINT", "https://hub.example/"),
            ("HF_HUB_OFFLINE", "True"),
        ])
        .unwrap();
        assert_eq!(found.endpoint.as_str(), "https://hub.example");
        assert_eq!(token(&found).as_deref(), Some("hf_of_variable"));
        assert_eq!(found.cache, Some("/else/where".into()));
        assert!(found.offline);
        assert!(!format!("{found:?}").contains("hf_of"), "it is not shown");

        let found = options(&[
            ("HF_HOME", path),
            ("HF_TOKEN", "hf_of_variable"),
            ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"),
            ("HF_HUB_OFFLINE", "0"),
        ])
        .unwrap();
        assert_eq!((token(&found), found.offline), (None, false));

        let found = options(&[("XDG_CACHE_HOME", "/xdg")]).unwrap();
        assert_eq!(found.cache, Some("/xdg/huggingface/hub".into()));
        assert!(options(&[("HF_ENDPOINT", "hub.example")]).is_err());
    }
}
