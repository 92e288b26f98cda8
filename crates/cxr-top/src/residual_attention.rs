//! Category-wise residual attention.

use candle_core::{D, Result, Tensor};
use cxr_ops::{
    Conv2d, Conv2dConfig, Init, OpsError, OptionEntry, OptionError, ParameterPath, Phase,
    check_option, parse_options,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::class_attention::softmax;
use crate::{Head, HeadConfig, HeadEntry, HeadError};

/// The sizes of a [`ResidualAttention`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResidualAttentionConfig {
    /// Channels between the convolutions of the attention.
    pub hidden: usize,
    /// How the attention's maps are made positive.
    pub attention: AttentionForm,
}

impl Default for ResidualAttentionConfig {
    fn default() -> Self {
        Self {
            hidden: 512,
            attention: AttentionForm::Sigmoid,
        }
    }
}

/// How a map of attention is made of the convolutions' output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttentionForm {
    /// Between 0 and 1 at each place.
    Sigmoid,
    /// Shares that add up to 1 over the image, times the number of places, so that their mean is 1.
    Softmax,
}

const MOST_CHANNELS: usize = 1 << 16;

/// Category-wise residual attention.
pub(crate) const CRAL: HeadEntry = HeadEntry::new(
    "cral",
    "category-wise residual attention: a map of attention for each label",
    &[
        OptionEntry::new(
            "hidden",
            "channels between the convolutions of the attention, 512 unless given",
        ),
        OptionEntry::new(
            "attention",
            "`sigmoid` or `softmax` (over the image), sigmoid unless given",
        ),
    ],
    |options| {
        let config: ResidualAttentionConfig = parse_options(options, CRAL.options)?;
        config.check()?;
        Ok(Box::new(config))
    },
);

impl ResidualAttentionConfig {
    /// Checks that there are channels to work on.
    ///
    /// # Errors
    /// A number of channels out of its range.
    pub fn check(&self) -> std::result::Result<(), OptionError> {
        let range = 1..=MOST_CHANNELS;
        let expected = format!("1 to {MOST_CHANNELS}");
        check_option("hidden", self.hidden, &expected, |n| range.contains(n))
    }
}

impl HeadConfig for ResidualAttentionConfig {
    fn options(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    fn build(
        &self,
        (channels, _, _): (usize, usize, usize),
        labels: usize,
        path: &ParameterPath,
    ) -> std::result::Result<Box<dyn Head>, HeadError> {
        Ok(Box::new(ResidualAttention::new(
            channels, labels, self, path,
        )?))
    }
}

/// Category-wise residual attention (CRAL; Guan & Huang, Multi-Label Chest X-Ray Image Classification via Category-Wise Residual
/// Attention Learning, Pattern Recognition Letters 130, 2020):
///
/// ```text
/// maps F ─ conv 1×1 ─ relu ─ conv 3×3 ─ relu ─ conv 1×1 ─ sigmoid ─ A, one map for each label
/// logit of label k = w_k · mean of (1 + A_k) F + b_k
/// ```
///
/// The paper leaves kernels, widths and the form of the attention open; these are decisions of this crate. The mean is taken of
/// the label's scores `w_k · F`, which is the same and needs no maps for each label.
#[derive(Debug)]
pub struct ResidualAttention {
    attention: [Conv2d; 3],
    form: AttentionForm,
    classifier: Conv2d,
    bias: Tensor,
}

impl ResidualAttention {
    /// A head with new parameters under `path`.
    ///
    /// # Errors
    /// `path` already holds parameters of these names.
    pub fn new(
        channels: usize,
        labels: usize,
        config: &ResidualAttentionConfig,
        path: &ParameterPath,
    ) -> std::result::Result<Self, OpsError> {
        let conv = |from, to, kernel, init, name: &str| {
            let config = Conv2dConfig {
                padding: kernel / 2,
                ..Conv2dConfig::default()
            };
            let path = path.pp(name);
            Conv2d::new(from, to, kernel, config, init, &path)?.with_bias(&path)
        };
        let hidden = config.hidden;
        let classifier = path.pp("classifier");
        let (plain, init) = (Conv2dConfig::default(), Init::GlorotUniform);
        Ok(Self {
            attention: [
                conv(channels, hidden, 1, Init::KaimingNormal, "attention1")?,
                conv(hidden, hidden, 3, Init::KaimingNormal, "attention2")?,
                conv(hidden, labels, 1, init, "attention3")?,
            ],
            form: config.attention,
            classifier: Conv2d::new(channels, labels, 1, plain, init, &classifier)?,
            bias: classifier.trainable("bias", labels, Init::Zeros)?,
        })
    }
}

impl Head for ResidualAttention {
    fn forward_t(&self, features: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        let [first, second, third] = &self.attention;
        let maps = first.forward_t(features, phase)?.relu()?;
        let maps = second.forward_t(&maps, phase)?.relu()?;
        let maps = third.forward_t(&maps, phase)?.flatten_from(2)?;
        let attention = match self.form {
            AttentionForm::Sigmoid => (maps.neg()?.exp()? + 1.)?.recip()?,
            AttentionForm::Softmax => (softmax(&maps)? * maps.dim(D::Minus1)? as f64)?,
        };
        let scores = self
            .classifier
            .forward_t(features, phase)?
            .flatten_from(2)?;
        let bias = match phase {
            Phase::Evaluate => self.bias.detach(),
            Phase::Train { .. } => self.bias.clone(),
        };
        let means = (scores.mul(&(attention + 1.)?)?).mean(D::Minus1)?;
        means.broadcast_add(&bias)
    }
}
