//! Several networks side by side, their features joined.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use candle_core::{D, Result, Tensor};
use cxr_ops::{OptionEntry, OptionError, ParameterPath, Parameters, Phase};
use serde_json::{Value, json};

use crate::members::Member;
use crate::{
    Backbone, BackboneConfig, BackboneEntry, BackboneError, PretrainedError, PretrainedReport,
};

/// Several networks whose features are joined.
pub(crate) const ENSEMBLE: BackboneEntry = BackboneEntry::new(
    "ensemble",
    "several networks, the means of their maps joined, trained as one",
    &[OptionEntry::new(
        "members",
        "two or more backbones, each a name or `{ name = { … } }`",
    )],
    |options| Ok(Box::new(Ensemble::parse(options)?)),
);

const MOST_MEMBERS: usize = 64;

#[derive(Debug)]
struct Ensemble {
    members: Vec<Member>,
}

impl Ensemble {
    fn parse(options: &Value) -> std::result::Result<Self, OptionError> {
        let expected = format!("a list of 2 to {MOST_MEMBERS} backbones");
        let Value::Object(table) = options else {
            return Err(OptionError::new("members", expected, options));
        };
        if let Some(unknown) = table.keys().find(|key| *key != "members") {
            return Err(OptionError::new(unknown, "`members` alone", unknown));
        }
        let given = table.get("members").unwrap_or(&Value::Null);
        let members = match given {
            Value::Array(members) if (2..=MOST_MEMBERS).contains(&members.len()) => members,
            other => return Err(OptionError::new("members", expected, other)),
        };
        let members = members.iter().enumerate();
        let members = members.map(|(at, value)| Member::parse(&format!("members[{at}]"), value));
        Ok(Self {
            members: members.collect::<std::result::Result<_, _>>()?,
        })
    }
}

impl fmt::Display for Ensemble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = (self.members.iter())
            .map(|member| member.config.to_string())
            .collect();
        f.write_str(&names.join(" + "))
    }
}

impl BackboneConfig for Ensemble {
    fn options(&self) -> Value {
        let members: Vec<Value> = self.members.iter().map(Member::value).collect();
        json!({ "members": members })
    }

    fn build(&self, path: &ParameterPath) -> std::result::Result<Box<dyn Backbone>, BackboneError> {
        let members = self.members.iter().enumerate();
        let members = members.map(|(at, member)| member.config.build(&path.pp("members").pp(at)));
        Ok(Box::new(JoinedNetworks {
            members: members.collect::<std::result::Result<_, _>>()?,
        }))
    }

    fn feature_shape(&self, height: usize, width: usize) -> (usize, usize, usize) {
        let members = self.members.iter();
        let shapes = members.map(|member| member.config.feature_shape(height, width));
        joined(shapes)
    }

    fn is_trainable(&self) -> bool {
        (self.members.iter()).all(|member| member.config.is_trainable())
    }

    fn side_multiple(&self) -> usize {
        let sides = self
            .members
            .iter()
            .map(|member| member.config.side_multiple());
        sides.fold(1, least_common_multiple)
    }

    /// `path` is a folder of the members' files, `0.safetensors`, `1.safetensors` and so on.
    fn load_weights(
        &self,
        path: &Path,
        parameters: &Parameters,
        prefix: &str,
    ) -> std::result::Result<PretrainedReport, PretrainedError> {
        let before = copies(parameters, prefix).map_err(|source| PretrainedError::Unusable {
            path: path.to_owned(),
            source: source.into(),
        })?;
        let mut report = PretrainedReport {
            loaded: 0,
            ignored: Vec::new(),
        };
        for (at, member) in self.members.iter().enumerate() {
            let file = path.join(format!("{at}.safetensors"));
            let prefix_here = format!("{prefix}members.{at}.");
            match member.config.load_weights(&file, parameters, &prefix_here) {
                Ok(of_member) => {
                    report.loaded += of_member.loaded;
                    report.ignored.extend(of_member.ignored);
                }
                Err(error) => {
                    // Members that were loaded before are as they were.
                    parameters
                        .load(prefix, &before)
                        .map_err(|source| PretrainedError::Mismatch { path: file, source })?;
                    return Err(error);
                }
            }
        }
        Ok(report)
    }
}

/// The tensors under a prefix as they are now.
fn copies(parameters: &Parameters, prefix: &str) -> Result<BTreeMap<String, Tensor>> {
    let tensors = parameters.tensors(prefix).into_iter();
    tensors
        .map(|(name, tensor)| Ok((name, tensor.copy()?)))
        .collect()
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut divisor, mut rest) = (a, b);
    while rest != 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    a / divisor * b
}

/// All channels at one place; none where a member has no pixels.
fn joined(shapes: impl Iterator<Item = (usize, usize, usize)>) -> (usize, usize, usize) {
    let mut channels = 0;
    let mut side = 1;
    for (of_member, height, width) in shapes {
        channels += of_member;
        side = side.min(height).min(width);
    }
    (channels, side, side)
}

/// Networks whose maps, averaged over their places, stand side by side.
struct JoinedNetworks {
    members: Vec<Box<dyn Backbone>>,
}

impl Backbone for JoinedNetworks {
    fn forward_t(&self, images: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        let members = self.members.iter();
        let means = members.map(|member| {
            let maps = member.forward_t(images, phase)?;
            maps.mean_keepdim((D::Minus2, D::Minus1))
        });
        Tensor::cat(&means.collect::<Result<Vec<_>>>()?, 1)
    }

    fn feature_shape(&self, height: usize, width: usize) -> (usize, usize, usize) {
        let members = self.members.iter();
        joined(members.map(|member| member.feature_shape(height, width)))
    }

    fn is_trainable(&self) -> bool {
        self.members.iter().all(|member| member.is_trainable())
    }
}
