//! Class-specific residual attention.

use candle_core::{D, Result, Tensor};
use cxr_ops::{
    Conv2d, Conv2dConfig, Init, OpsError, OptionEntry, OptionError, ParameterPath, Phase,
    check_option, parse_options,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Head, HeadConfig, HeadEntry, HeadError};

/// The constants of a [`ClassAttention`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClassAttentionConfig {
    /// Number of heads whose logits are added: 1, 2, 4, 6 or 8, each with a temperature of its own.
    pub heads: usize,
    /// Weight λ of the attention beside the mean, at least 0.
    pub lambda: f64,
}

impl Default for ClassAttentionConfig {
    fn default() -> Self {
        Self {
            heads: 1,
            lambda: 0.1,
        }
    }
}

/// Class-specific residual attention.
pub(crate) const CSRA: HeadEntry = HeadEntry::new(
    "csra",
    "class-specific residual attention: the mean of each label's scores, and where they are highest",
    &[
        OptionEntry::new(
            "heads",
            "heads whose logits are added, 1, 2, 4, 6 or 8, 1 unless given",
        ),
        OptionEntry::new(
            "lambda",
            "weight of the attention beside the mean, at least 0, 0.1 unless given",
        ),
    ],
    |options| {
        let config: ClassAttentionConfig = parse_options(options, CSRA.options)?;
        config.check()?;
        Ok(Box::new(config))
    },
);

/// What a head makes of the scores over an image.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Attention {
    /// Their mean by a softmax of the scores times this.
    Softmax(f64),
    /// The highest of them: the limit of an infinite temperature, the authors' code's 99.
    Highest,
}

impl ClassAttentionConfig {
    /// Checks that the constants are in their ranges.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> std::result::Result<(), OptionError> {
        let known = |heads: &usize| [1, 2, 4, 6, 8].contains(heads);
        check_option("heads", self.heads, "1, 2, 4, 6 or 8", known)?;
        let is_weight = |lambda: &f64| lambda.is_finite() && *lambda >= 0.;
        check_option("lambda", self.lambda, "at least 0", is_weight)
    }

    /// One for each head: temperatures 1, 2, …, of which the last of several is infinite.
    fn attentions(&self) -> Vec<Attention> {
        let numbers = 1..=self.heads;
        numbers
            .map(|number| match number == self.heads && number > 1 {
                true => Attention::Highest,
                // The authors' four heads have 1, 2 and 4.
                false if self.heads == 4 && number == 3 => Attention::Softmax(4.),
                false => Attention::Softmax(number as f64),
            })
            .collect()
    }
}

impl HeadConfig for ClassAttentionConfig {
    fn options(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    fn build(
        &self,
        (channels, _, _): (usize, usize, usize),
        labels: usize,
        path: &ParameterPath,
    ) -> std::result::Result<Box<dyn Head>, HeadError> {
        Ok(Box::new(ClassAttention::new(channels, labels, self, path)?))
    }
}

/// Class-specific residual attention (CSRA; Zhu & Wu, Residual Attention: A Simple but Effective Method for Multi-Label
/// Recognition, ICCV 2021): label c has a vector `m_c`, and at each place j of the maps the score `s_c(j) = m_c·x_j / ‖m_c‖`.
/// Its logit is `mean_j s_c(j) + λ Σ_j softmax_j(T s_c)(j) s_c(j)`; those of several heads, each with vectors and a
/// temperature T of its own, are added.
#[derive(Debug)]
pub struct ClassAttention {
    heads: Vec<(Conv2d, Attention)>,
    lambda: f64,
}

impl ClassAttention {
    /// A head with new parameters `heads.0.weight` and so on (`L×C×1×1`) under `path`.
    ///
    /// # Errors
    /// `path` already holds parameters of these names.
    pub fn new(
        channels: usize,
        labels: usize,
        config: &ClassAttentionConfig,
        path: &ParameterPath,
    ) -> std::result::Result<Self, OpsError> {
        let attentions = config.attentions().into_iter().enumerate();
        let heads = attentions.map(|(number, attention)| {
            let (here, init) = (path.pp("heads").pp(number), Init::GlorotUniform);
            let config = Conv2dConfig::default();
            let conv = Conv2d::new(channels, labels, 1, config, init, &here)?;
            Ok((conv, attention))
        });
        Ok(Self {
            heads: heads.collect::<std::result::Result<_, OpsError>>()?,
            lambda: config.lambda,
        })
    }
}

impl Head for ClassAttention {
    fn forward_t(&self, features: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        let mut logits: Option<Tensor> = None;
        for (conv, attention) in &self.heads {
            let weight = match phase {
                Phase::Evaluate => conv.weight().detach(),
                Phase::Train { .. } => conv.weight().clone(),
            };
            let length = weight.flatten_from(1)?.sqr()?.sum(1)?.sqrt()?;
            let scores = conv.forward_t(features, phase)?.flatten_from(2)?;
            let scores = scores.broadcast_div(&length.reshape((1, (), 1))?)?;
            let attended = match attention {
                Attention::Highest => scores.max(D::Minus1)?,
                Attention::Softmax(temperature) => {
                    let shares = softmax(&(&scores * *temperature)?)?;
                    shares.mul(&scores)?.sum(D::Minus1)?
                }
            };
            let of_head = (scores.mean(D::Minus1)? + (attended * self.lambda)?)?;
            logits = Some(match logits {
                None => of_head,
                Some(before) => (before + of_head)?,
            });
        }
        logits.ok_or_else(|| candle_core::Error::msg("an attention without heads"))
    }
}

/// Over the last dimension. The largest value is taken off first, which changes nothing and keeps the exponentials
/// finite; no gradient passes through it.
pub(crate) fn softmax(values: &Tensor) -> Result<Tensor> {
    let largest = values.detach().max_keepdim(D::Minus1)?;
    let terms = values.broadcast_sub(&largest)?.exp()?;
    terms.broadcast_div(&terms.sum_keepdim(D::Minus1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The authors' table of temperatures, in which 99 stands for the maximum.
    #[test]
    fn temperatures_are_the_authors() {
        for (heads, expected) in [
            (1, vec![1]),
            (2, vec![1, 99]),
            (4, vec![1, 2, 4, 99]),
            (6, vec![1, 2, 3, 4, 5, 99]),
            (8, vec![1, 2, 3, 4, 5, 6, 7, 99]),
        ] {
            let config = ClassAttentionConfig { heads, lambda: 0.1 };
            let attentions: Vec<Attention> = (expected.into_iter())
                .map(|temperature| match temperature {
                    99 => Attention::Highest,
                    other => Attention::Softmax(f64::from(other)),
                })
                .collect();
            assert_eq!(config.attentions(), attentions);
        }
    }
}
