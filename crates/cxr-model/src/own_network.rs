//! Backbones and heads from outside this workspace in place of those that a model card names.

use candle_core::Device;
use cxr_backbone::Backbone;
use cxr_ops::{ParameterPath, Parameters};
use cxr_run::Component;
use cxr_top::Head;

use crate::{Classifier, ModelCard, ModelError, components};

type MakeBackbone<'a> =
    Box<dyn Fn(&ParameterPath) -> Result<Box<dyn Backbone>, ModelError> + Send + Sync + 'a>;
type MakeHead<'a> = Box<
    dyn Fn((usize, usize, usize), usize, &ParameterPath) -> Result<Box<dyn Head>, ModelError>
        + Send
        + Sync
        + 'a,
>;

/// A backbone or a head of one's own, in place of what a [`ModelCard`] names.
///
/// ```
/// use candle_core::{Result, Tensor};
/// use cxr_model::OwnNetwork;
/// use cxr_ops::{Init, Linear, OpsError, Phase};
/// use cxr_top::Head;
///
/// /// The largest value of each map, and one dense layer.
/// struct Largest(Linear);
///
/// impl Head for Largest {
///     fn forward_t(&self, features: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
///         self.0.forward_t(&features.flatten_from(2)?.max(2)?, phase)
///     }
/// }
///
/// let own = OwnNetwork::new().head("largest", |(channels, ..), labels, path| {
///     let dense = Linear::new(channels, labels, Init::GlorotUniform, &path.pp("dense"))?;
///     Ok::<_, OpsError>(Largest(dense))
/// });
/// assert_eq!(own.names(), ["head `largest`"]);
/// ```
#[derive(Default)]
pub struct OwnNetwork<'a> {
    backbone: Option<(String, MakeBackbone<'a>)>,
    head: Option<(String, MakeHead<'a>)>,
}

impl<'a> OwnNetwork<'a> {
    /// None: all is as the card says.
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
        let make: MakeBackbone<'a> =
            Box::new(move |path| Ok(Box::new(make(path).map_err(Into::into)?)));
        self.backbone = Some((name.to_owned(), make));
        self
    }

    /// Another head: `make` is given the shape `(C, h, w)` of the feature maps and the number of
    /// outputs ([`ModelCard::n_outputs`]: that of labels, as a rule), and adds its parameters under the path it is given,
    /// `top`.
    #[must_use]
    pub fn head<H: Head + 'static, E: Into<ModelError>>(
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

    /// What is not the card's, such as ``head `largest` ``.
    pub fn names(&self) -> Vec<String> {
        let backbone = self.backbone.iter().map(|(name, _)| ("backbone", name));
        let head = self.head.iter().map(|(name, _)| ("head", name));
        let all = backbone.chain(head);
        all.map(|(kind, name)| format!("{kind} `{name}`")).collect()
    }

    /// The network of `card`, with these parts in it and initial weights from `seed`.
    ///
    /// # Errors
    /// A part that cannot be made.
    pub fn classifier(
        &self,
        card: &ModelCard,
        seed: u64,
        device: &Device,
    ) -> Result<Classifier, ModelError> {
        let parameters = Parameters::new(seed, device);
        let (features, top) = (
            parameters.root().pp("features"),
            parameters.root().pp("top"),
        );
        let backbone = match &self.backbone {
            Some((_, make)) => make(&features)?,
            None => {
                check_is_given("backbone", &card.backbone)?;
                components::backbone(&card.backbone)?.build(&features)?
            }
        };
        let maps = backbone.feature_shape(card.crop_size, card.crop_size);
        let n_outputs = card.n_outputs();
        let head = match &self.head {
            Some((_, make)) => make(maps, n_outputs, &top)?,
            None => {
                check_is_given("head", &card.head)?;
                components::head(&card.head)?.build(maps, n_outputs, &top)?
            }
        };
        let classifier = Classifier::from_parts(parameters, backbone, head);
        classifier.with_outputs(&card.outputs())
    }
}

/// A part of the author's own has to be given.
fn check_is_given(what: &'static str, component: &Component) -> Result<(), ModelError> {
    match component.custom_name() {
        None => Ok(()),
        Some(name) => Err(ModelError::Card {
            what,
            expected: "a part of this program, or one's own that is given".to_owned(),
            found: format!("{what} `{name}`, which is its author's own"),
        }),
    }
}

impl std::fmt::Debug for OwnNetwork<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_tuple("OwnNetwork")
            .field(&self.names())
            .finish()
    }
}
