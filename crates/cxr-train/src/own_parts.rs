//! Parts from outside this workspace in place of those that an experiment names.

use candle_core::Device;
use cxr_augment::Transform;
use cxr_backbone::Backbone;
use cxr_losses::MultiLabelLoss;
use cxr_ops::{ParameterPath, Parameters};
use cxr_top::Head;

use crate::{Classifier, ModelCard, TrainError, components};

type MakeBackbone<'a> =
    Box<dyn Fn(&ParameterPath) -> Result<Box<dyn Backbone>, TrainError> + Send + Sync + 'a>;
type MakeHead<'a> = Box<
    dyn Fn((usize, usize, usize), usize, &ParameterPath) -> Result<Box<dyn Head>, TrainError>
        + Send
        + Sync
        + 'a,
>;

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
    backbone: Option<(String, MakeBackbone<'a>)>,
    head: Option<(String, MakeHead<'a>)>,
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
    pub fn backbone<B: Backbone + 'static, E: Into<TrainError>>(
        mut self,
        name: &str,
        make: impl Fn(&ParameterPath) -> Result<B, E> + Send + Sync + 'a,
    ) -> Self {
        let make: MakeBackbone<'a> =
            Box::new(move |path| Ok(Box::new(make(path).map_err(Into::into)?)));
        self.backbone = Some((name.to_owned(), make));
        self
    }

    /// Another head: `make` is told the shape `(C, h, w)` of the feature maps and the number of
    /// labels, and adds its parameters under the path it is given, `top`.
    #[must_use]
    pub fn head<H: Head + 'static, E: Into<TrainError>>(
        mut self,
        name: &str,
        make: impl Fn((usize, usize, usize), usize, &ParameterPath) -> Result<H, E> + Send + Sync + 'a,
    ) -> Self {
        let make: MakeHead<'a> = Box::new(move |maps, labels, path| {
            Ok(Box::new(make(maps, labels, path).map_err(Into::into)?))
        });
        self.head = Some((name.to_owned(), make));
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
        let backbone = self.backbone.iter().map(|(name, _)| ("backbone", &**name));
        let head = self.head.iter().map(|(name, _)| ("head", &**name));
        let loss = self.loss.iter().map(|loss| ("loss", loss.name()));
        let transforms = self
            .transforms
            .iter()
            .map(|held| ("transform", held.name()));
        let all = backbone.chain(head).chain(loss).chain(transforms);
        all.map(|(kind, name)| format!("{kind} `{name}`")).collect()
    }

    /// The network of `card`, with these parts in it.
    ///
    /// # Errors
    /// A part that cannot be made.
    pub fn classifier(
        &self,
        card: &ModelCard,
        seed: u64,
        device: &Device,
    ) -> Result<Classifier, TrainError> {
        let parameters = Parameters::new(seed, device);
        let (features, top) = (
            parameters.root().pp("features"),
            parameters.root().pp("top"),
        );
        let backbone = match &self.backbone {
            Some((_, make)) => make(&features)?,
            None => components::backbone(&card.backbone)?.build(&features)?,
        };
        let maps = backbone.feature_shape(card.crop_size, card.crop_size);
        let head = match &self.head {
            Some((_, make)) => make(maps, card.labels.len(), &top)?,
            None => components::head(&card.head)?.build(maps, card.labels.len(), &top)?,
        };
        Ok(Classifier::from_parts(parameters, backbone, head))
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
