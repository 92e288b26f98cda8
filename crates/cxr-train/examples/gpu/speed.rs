//! What a device multiplies and copies, and how fast DenseNet121 with the top network is on it.

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use cxr_ops::{
    DeviceOptions, GradientSink, Phase, Precision, Role, cuda_device, cuda_memory_peak,
    set_exact_f32,
};
use cxr_train::{
    Classifier, Experiment, Gradients, ModelCard, Optimiser, OptimiserConfig, Trained,
};
use serde::Serialize;

use super::{Result, USAGE};

const SIDE: usize = 224;
/// Floating-point operations of DenseNet121 forward, per image of 224×224.
const OPERATIONS: f64 = 5.7e9;
/// Values that its convolutions put out, per image: what a training step must at least keep.
const OUTPUTS: f64 = 6.5e6;

#[derive(Serialize)]
pub(super) struct Rates {
    f32_flops: f64,
    tf32_flops: f64,
    bf16_flops: f64,
    bytes_a_second: f64,
}

/// What a large product and a large copy reach.
pub(super) fn rates(device: &Device) -> Result<Rates> {
    let best = |work: &dyn Fn() -> Result<()>| -> Result<f64> {
        work()?;
        let mut best = Duration::MAX;
        for _ in 0..5 {
            device.synchronize()?;
            let begin = Instant::now();
            work()?;
            device.synchronize()?;
            best = best.min(begin.elapsed());
        }
        Ok(best.as_secs_f64())
    };
    const SIZE: usize = 8192;
    let matrix = Tensor::randn(0f32, 1., (SIZE, SIZE), device)?;
    let product = |is_exact: bool, dtype: DType| -> Result<f64> {
        set_exact_f32(is_exact);
        let matrix = matrix.to_dtype(dtype)?;
        let seconds = best(&|| {
            matrix.matmul(&matrix)?;
            Ok(())
        })?;
        Ok(2. * (SIZE as f64).powi(3) / seconds)
    };
    let large = Tensor::zeros(1 << 28, DType::F32, device)?;
    let copy = best(&|| {
        large.copy()?;
        Ok(())
    })?;
    Ok(Rates {
        f32_flops: product(true, DType::F32)?,
        tf32_flops: product(false, DType::F32)?,
        bf16_flops: product(false, DType::BF16)?,
        bytes_a_second: 2. * 4. * (1u64 << 28) as f64 / copy,
    })
}

#[derive(Serialize)]
pub(super) struct Timed {
    img_s: f64,
    peak_mib: Option<f64>,
    /// What the work needs at least, per image.
    operations: f64,
    bytes: f64,
}

const EXPERIMENT: &str = r#"
name = "gpu"
[[training.stages]]
name = "all layers"
epochs = 1
schedule = { constant = { learning_rate = 1e-5 } }
[[variants]]
name = "bce"
loss = "bce"
"#;

/// The median of `steps` steps, in groups that the host waits for.
pub(super) fn time(work: &str, batch: usize, steps: usize, precision: Precision) -> Result<Timed> {
    /// Steps between two looks at the clock.
    const GROUP: usize = 5;
    let options = DeviceOptions {
        graphs: work == "graphs",
        // What was chosen before.
        exact_f32: DeviceOptions::current().exact_f32,
        ..DeviceOptions::default()
    };
    let device = cuda_device(0, options)?;
    let variant = Experiment::parse(EXPERIMENT)?.variant("bce")?;
    let labels: Vec<String> = (0..14).map(|label| label.to_string()).collect();
    let classifier = Classifier::new(&ModelCard::new(&variant, &labels)?, 0, &device)?;
    let loss = cxr_train::loss(variant.chosen())?;
    let images = Tensor::randn(0f32, 1., (batch, 3, SIDE, SIDE), &device)?;
    let targets = Tensor::rand(0f32, 1., (batch, 14), &device)?
        .ge(0.9)?
        .to_dtype(DType::F32)?
        .to_device(&Device::Cpu)?;
    let keys: Vec<u64> = (0..batch as u64).collect();
    let phase = Phase::Train { image_keys: &keys };
    let (prefix, features_phase) = match work {
        "train" | "graphs" => ("", phase),
        "frozen" => ("top.", Phase::Evaluate),
        "infer" => ("", Phase::Evaluate),
        _ => return Err(USAGE.into()),
    };
    let trained = Trained::all(classifier.parameters().select(Role::Trainable, prefix));
    let mut optimiser = Optimiser::new(OptimiserConfig::default());
    let mut call = || -> Result<Tensor> {
        let sink = GradientSink::new();
        let features = || classifier.features(&images, features_phase);
        let features = sink.scope(|| precision.scope(features))?;
        if work == "infer" {
            return Ok(classifier.logits(&features, Phase::Evaluate)?);
        }
        let features = if work == "frozen" {
            features.detach()
        } else {
            features
        };
        let loss = loss.loss(&classifier.logits(&features, phase)?, &targets, None)?;
        let gradients = Gradients::backward(&trained, &loss, &sink)?;
        optimiser.step(1e-5, &trained, &gradients)?;
        Ok(loss)
    };
    for _ in 0..GROUP {
        call()?;
    }
    device.synchronize()?;
    let mut seconds = Vec::new();
    for _ in 0..steps.div_ceil(GROUP).max(1) {
        let begin = Instant::now();
        for _ in 0..GROUP {
            call()?;
        }
        device.synchronize()?;
        seconds.push(begin.elapsed().as_secs_f64() / GROUP as f64);
    }
    seconds.sort_by(f64::total_cmp);
    let bytes_a_value = match precision {
        Precision::Single => 4.,
        Precision::Bf16 => 2.,
    };
    // Each output of a convolution is written and read; in training it is read again, and its gradient written and
    // read.
    let (forwards, passes) = if prefix.is_empty() && work != "infer" {
        (3., 5.)
    } else {
        (1., 2.)
    };
    Ok(Timed {
        img_s: batch as f64 / seconds[seconds.len() / 2],
        peak_mib: cuda_memory_peak(&device)?.map(|bytes| bytes as f64 / f64::from(1 << 20)),
        operations: forwards * OPERATIONS,
        bytes: passes * OUTPUTS * bytes_a_value,
    })
}
