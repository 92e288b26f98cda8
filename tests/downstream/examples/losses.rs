//! Losses alone: one of one's own, known by its name like those of the crate, and a linear classifier that is trained with
//! each by plain gradient descent, where a third of the labels is unknown.

use std::collections::BTreeMap;

use cxr_downstream::Outcome;
use cxr_losses::candle_core::{DType, Device, Result, Tensor, Var};
use cxr_losses::{Granularity, LossEntry, MultiLabelLoss, Parameter, by_name, known, register};

const IMAGES: usize = 256;
const FEATURES: usize = 8;
const LABELS: usize = 3;

/// Squared error of the probabilities, of which absent labels weigh less.
#[derive(Debug)]
struct Brier {
    absent: f64,
}

impl MultiLabelLoss for Brier {
    fn forward(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        // Unknown targets may be NaN: they become 0 before any arithmetic, and the reduction leaves their values out.
        let (targets, _) = known(targets, mask)?;
        let probabilities = (logits.neg()?.exp()? + 1.)?.recip()?;
        let weights = ((&targets * (1. - self.absent))? + self.absent)?;
        (probabilities - targets)?.sqr()? * weights
    }

    fn name(&self) -> &str {
        "brier"
    }

    fn granularity(&self) -> Granularity {
        Granularity::Element
    }
}

/// From now on `loss = "brier"` is a loss of experiment files too.
fn register_brier() -> Outcome {
    const SUMMARY: &str = "weight of absent labels, above 0";
    const PARAMETERS: &[Parameter] = &[Parameter::new("absent", Some(1.), SUMMARY)];
    let about = "squared error of the probabilities";
    Ok(register(LossEntry::new(
        "brier",
        about,
        PARAMETERS,
        |given| {
            let absent = given.checked("absent", "above 0", |weight| weight > 0.)?;
            Ok(Box::new(Brier { absent }))
        },
    ))?)
}

/// Features, and targets that follow from them; a third is unknown, and said to be NaN.
fn data() -> Result<(Tensor, Tensor, Tensor)> {
    let number = |at: usize| ((at as f32 + 1.) * 0.618_034).fract() - 0.5;
    let features: Vec<f32> = (0..IMAGES * FEATURES).map(|at| number(at * at)).collect();
    let (mut targets, mut mask) = (Vec::new(), Vec::new());
    for image in features.chunks(FEATURES) {
        for label in 0..LABELS {
            let is_known = (targets.len() * 7) % 3 != 0;
            let target = f32::from(u8::from(image[label] + 0.5 * image[label + 1] > 0.));
            targets.push(if is_known { target } else { f32::NAN });
            mask.push(u8::from(is_known));
        }
    }
    let tensor = |values: Vec<f32>, width| Tensor::from_vec(values, (IMAGES, width), &Device::Cpu);
    let mask = Tensor::from_vec(mask, (IMAGES, LABELS), &Device::Cpu)?;
    Ok((tensor(features, FEATURES)?, tensor(targets, LABELS)?, mask))
}

fn main() -> Outcome {
    register_brier()?;
    let (features, targets, mask) = data()?;
    for (name, rate) in [("bce", 3.), ("focal", 10.), ("zlpr", 1.), ("brier", 10.)] {
        let loss = by_name(name, &BTreeMap::new())?;
        let weights = Var::zeros((FEATURES, LABELS), DType::F32, &Device::Cpu)?;
        let mut values: Vec<f32> = Vec::new();
        for _ in 0..200 {
            let value = loss.loss(&features.matmul(&weights)?, &targets, Some(&mask))?;
            let gradients = value.backward()?;
            let gradient = gradients.get(&weights).ok_or("no gradient")?;
            weights.set(&(weights.as_tensor() - (gradient * rate)?)?)?;
            values.push(value.to_scalar()?);
        }
        println!(
            "{name} {:.3}, {:.3} after 200 steps",
            values[0], values[199]
        );
        assert!(values[199] < 0.7 * values[0], "{name} does not learn");
    }
    let refused = by_name("brier", &BTreeMap::from([("weight".to_owned(), 1.)]));
    println!("{}", refused.err().ok_or("it was accepted")?);
    Ok(())
}
