//! Two images through all parts of a training, before it begins.

use candle_core::{DType, Tensor};
use cxr_augment::Pipeline;
use cxr_losses::MultiLabelLoss;
use cxr_ops::Phase;
use cxr_run::Component;

use crate::loader::{Pixels, Uncertain, images, targets};
use crate::{Classifier, ModelCard, TrainError, TrainingData};

/// Takes two or three training images through pipeline, backbone, head and loss, and checks the shape of what each makes:
/// images `N×3×S×S`, feature maps `N×C×h×w` as the backbone says, logits `N×K`, the
/// outputs of `card` (one for each label, as a rule), values of the loss as its granularity says, reduced to one number. It is computed as in evaluation, so that nothing changes.
///
/// [`Trainer::with_parts`](crate::Trainer::with_parts) does it before it trains parts from outside; a training loop of
/// one's own may do the same.
///
/// # Errors
/// [`TrainError::Part`] names the first part that fails, or makes something of another shape; a transform that moves
/// images out of sight or makes grey levels that are not numbers; an image that cannot be read.
pub fn dry_pass(
    classifier: &Classifier,
    card: &ModelCard,
    data: &TrainingData,
    pipeline: &Pipeline,
    loss: &dyn MultiLabelLoss,
) -> Result<(), TrainError> {
    let n_outputs = card.n_outputs();
    // As many images as outputs would hide a matrix that is turned round.
    let n_images = if n_outputs == 2 { 3 } else { 2 };
    let names = data.split().train();
    let names = names.get(..n_images).unwrap_or(names);
    let n_images = names.len();
    let device = classifier.parameters().device();
    let pixels = Pixels::Augmented {
        pipeline,
        seed: 0,
        epoch: 0,
        copies: &[],
    };
    let images = images(data, names, pixels, &card.normalization()?, device)?;
    let shape = [n_images, 3, card.crop_size, card.crop_size];
    check("the pipeline", "images", &images, &shape)?;

    let backbone = part("backbone", &card.backbone);
    let features = classifier.features(&images, Phase::Evaluate);
    let features = features.map_err(fails(&backbone))?;
    let (channels, height, width) = classifier.feature_shape(card.crop_size, card.crop_size);
    let shape = [n_images, channels, height, width];
    check(&backbone, "feature maps", &features, &shape)?;

    let head = part("head", &card.head);
    let logits = classifier.outputs(&features, Phase::Evaluate);
    let logits = logits.map_err(fails(&head))?;
    check(&head, "logits", &logits, &[n_images, n_outputs])?;
    if logits.dtype() != DType::F32 {
        let problem = format!(
            "its logits must be `f32`, got `{}`",
            logits.dtype().as_str()
        );
        return Err(TrainError::Part {
            part: head,
            problem,
        });
    }

    let loss_name = format!("loss `{}`", loss.name());
    let uncertain = Uncertain {
        policies: &[],
        seed: 0,
        epoch: 0,
    };
    let (targets, mask) = targets(data, names, &uncertain)?;
    let to_logits = |tensor: Tensor| tensor.to_device(logits.device());
    let (targets, mask) = (to_logits(targets)?, mask.map(to_logits).transpose()?);
    let value = loss.loss(&logits, &targets, mask.as_ref());
    let value = value.map_err(fails(&loss_name))?;
    check(&loss_name, "the reduced value", &value, &[])
}

fn part(kind: &str, component: &Component) -> String {
    let name = component.custom_name().unwrap_or(component.name());
    format!("{kind} `{name}`")
}

/// For `map_err`: a part that cannot compute what it is given.
fn fails(part: &str) -> impl Fn(candle_core::Error) -> TrainError + '_ {
    move |error| TrainError::Part {
        part: part.to_owned(),
        problem: error.to_string(),
    }
}

fn check(part: &str, what: &str, made: &Tensor, expected: &[usize]) -> Result<(), TrainError> {
    if made.dims() == expected {
        return Ok(());
    }
    Err(TrainError::Part {
        part: part.to_owned(),
        problem: format!("{what} must have shape {expected:?}, got {:?}", made.dims()),
    })
}
