//! Parts from outside this workspace in place of those that an experiment names.

use std::sync::Arc;

use candle_core::Tensor;
use cxr_augment::{Pipeline, Transform};
use cxr_backbone::Backbone;
use cxr_losses::MultiLabelLoss;
use cxr_model::{ModelError, OwnNetwork};
use cxr_ops::ParameterPath;
use cxr_run::Experiment;
use cxr_top::Head;

use crate::{Sampler, Shuffled, TrainError};

/// Parts that take the place of those of an experiment, for
/// [`Trainer::with_parts`](crate::Trainer::with_parts). Without any, everything is the experiment's.
///
/// A run knows its own parts by name: the names are in `experiment.toml` (as a comment) and in
/// the model file, and a run is resumed only with parts of the same names. That a part of one name
/// stays what it was is up to its author.
///
/// Several runs may be trained with the same parts, such as the folds of a cross-validation. A loss with variables of its
/// own begins each run with the values that it had when it was added here, and serves one trainer at a time.
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
    loss: Option<OwnLoss>,
    transforms: Vec<Arc<dyn Transform>>,
    sampler: Option<Arc<dyn Sampler>>,
}

/// A loss with the values that its variables begin with.
struct OwnLoss {
    loss: Arc<dyn MultiLabelLoss>,
    begin: candle_core::Result<Vec<Tensor>>,
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
    /// outputs ([`ModelCard::n_outputs`](crate::ModelCard::n_outputs): that of labels, as a rule), and adds its parameters
    /// under the path it is given, `top`.
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
        let variables = loss.vars();
        self.loss = Some(OwnLoss {
            loss: Arc::new(loss),
            begin: variables.iter().map(|var| var.copy()).collect(),
        });
        self
    }

    /// A further variation of training images, behind those of the experiment.
    #[must_use]
    pub fn transform(mut self, transform: impl Transform + 'static) -> Self {
        self.transforms.push(Arc::new(transform));
        self
    }

    /// Another choice of the images of an epoch than every one once.
    #[must_use]
    pub fn sampler(mut self, sampler: impl Sampler + 'static) -> Self {
        self.sampler = Some(Arc::new(sampler));
        self
    }

    /// What takes the place of the experiment's parts, such as ``loss `brier` ``.
    pub fn names(&self) -> Vec<String> {
        let loss = self.loss.iter().map(|own| ("loss", own.loss.name()));
        let transforms = self
            .transforms
            .iter()
            .map(|held| ("transform", held.name()));
        let sampler = (self.sampler.iter()).map(|sampler| ("sampler", sampler.name()));
        let others = loss.chain(transforms).chain(sampler);
        let others = others.map(|(kind, name)| format!("{kind} `{name}`"));
        self.network.names().into_iter().chain(others).collect()
    }

    /// How training images are varied: as an experiment says, and behind that by these transforms.
    ///
    /// # Errors
    /// Two transforms of one name.
    pub fn pipeline(&self, experiment: &Experiment) -> Result<Pipeline, TrainError> {
        let mut transforms = self.transforms.iter().cloned();
        Ok(transforms.try_fold(experiment.pipeline()?, Pipeline::with)?)
    }

    pub(crate) fn has_sampler(&self) -> bool {
        self.sampler.is_some()
    }

    pub(crate) fn sampler_of_a_run(&self) -> Arc<dyn Sampler> {
        let own = self.sampler.clone();
        own.unwrap_or_else(|| Arc::new(Shuffled))
    }

    /// The loss for a run, its variables as they begin; `None` where it is the experiment's.
    ///
    /// # Errors
    /// A loss with variables that another trainer is still using.
    pub(crate) fn loss_of_a_run(&self) -> Result<Option<Arc<dyn MultiLabelLoss>>, TrainError> {
        let Some(OwnLoss { loss, begin }) = &self.loss else {
            return Ok(None);
        };
        let variables = loss.vars();
        if !variables.is_empty() && Arc::strong_count(loss) > 1 {
            return Err(TrainError::Part {
                part: format!("loss `{}`", loss.name()),
                problem: "it has variables of its own, and another trainer is still using it; drop that trainer \
                          first, or give each its own `OwnParts`"
                    .to_owned(),
            });
        }
        let begin = begin.as_ref().map_err(|error| TrainError::Part {
            part: format!("loss `{}`", loss.name()),
            problem: error.to_string(),
        })?;
        for (variable, begin) in variables.iter().zip(begin) {
            variable.set(begin)?;
        }
        Ok(Some(Arc::clone(loss)))
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
