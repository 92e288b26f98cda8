//! Parts from outside this workspace in place of those that an experiment names.

use cxr_augment::Transform;
use cxr_backbone::Backbone;
use cxr_losses::MultiLabelLoss;
use cxr_model::{ModelError, OwnNetwork};
use cxr_ops::ParameterPath;
use cxr_top::Head;

/// Parts that take the place of those of an experiment, for
/// [`Trainer::with_parts`](crate::Trainer::with_parts). Without any, everything is the experiment's.
///
/// A run knows its own parts by name: the names stand in `experiment.toml` (as a comment) and in
/// the model file, and a run is resumed only with parts of the same names. That a part of one name
/// stays what it was is up to its author.
///
/// ```
/// use candle_core::{Result, Tensor};
/// use cxr_losses::{Granularity, MultiLabelLoss, known};
/// use cxr_train::OwnParts;
///
/// /// Squared error of the probabilities.
/// #[derive(Debug)]
/// struct Brier;
///
/// impl MultiLabelLoss for Brier {
///     fn forward(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
///         // Unknown targets become 0; their values are left out when the values are reduced.
///         let (targets, _) = known(targets, mask)?;
///         let probabilities = ((logits.neg()?.exp()? + 1.)?).recip()?;
///         (probabilities - targets)?.sqr()
///     }
///     fn name(&self) -> &str {
///         "brier"
///     }
///     fn granularity(&self) -> Granularity {
///         Granularity::Element
///     }
/// }
///
/// let parts = OwnParts::new().loss(Brier);
/// assert_eq!(parts.names(), ["loss `brier`"]);
/// ```
#[derive(Default)]
pub struct OwnParts<'a> {
    network: OwnNetwork<'a>,
    pub(crate) loss: Option<Box<dyn MultiLabelLoss>>,
    pub(crate) transforms: Vec<Box<dyn Transform>>,
}

impl<'a> OwnParts<'a> {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another backbone: `make` adds its parameters under the path it is given, `features`.
    #[must_use]
    pub fn backbone<B: Backbone + 'static, E: Into<ModelError>>(
        mut self,
        name: &str,
        make: impl Fn(&ParameterPath) -> Result<B, E> + Send + Sync + 'a,
    ) -> Self {
        self.network = self.network.backbone(name, make);
        self
    }

    /// Another head: `make` is given the shape `(C, h, w)` of the feature maps and the number of
    /// labels, and adds its parameters under the path it is given, `top`.
    #[must_use]
    pub fn head<H: Head + 'static, E: Into<ModelError>>(
        mut self,
        name: &str,
        make: impl Fn((usize, usize, usize), usize, &ParameterPath) -> Result<H, E> + Send + Sync + 'a,
    ) -> Self {
        self.network = self.network.head(name, make);
        self
    }

    /// Another loss.
    #[must_use]
    pub fn loss(mut self, loss: impl MultiLabelLoss + 'static) -> Self {
        self.loss = Some(Box::new(loss));
        self
    }

    /// A further variation of training images, behind those of the experiment.
    #[must_use]
    pub fn transform(mut self, transform: impl Transform + 'static) -> Self {
        self.transforms.push(Box::new(transform));
        self
    }

    /// What takes the place of the experiment's parts, such as ``loss `brier` ``.
    pub fn names(&self) -> Vec<String> {
        let loss = self.loss.iter().map(|loss| ("loss", loss.name()));
        let transforms = self
            .transforms
            .iter()
            .map(|held| ("transform", held.name()));
        let others = loss.chain(transforms);
        let others = others.map(|(kind, name)| format!("{kind} `{name}`"));
        self.network.names().into_iter().chain(others).collect()
    }

    /// Backbone and head, for [`cxr_model::load_model_with`] and for networks that are not trained.
    pub fn network(&self) -> &OwnNetwork<'a> {
        &self.network
    }
}

impl std::fmt::Debug for OwnParts<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_tuple("OwnParts")
            .field(&self.names())
            .finish()
    }
}
