//! What a device multiplies and copies, and how fast DenseNet121 with the top network is on it.

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use cxr_ops::{
    DeviceOptions, GradientSink, Phase, Precision, Role, cuda_device, cuda_memory_peak,
    cuda_profile, set_exact_f32,
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

/// DenseNet121 with the top network, and what it does again and again.
struct Workload {
    device: Device,
    precision: Precision,
    classifier: Classifier,
    loss: Box<dyn cxr_train::MultiLabelLoss>,
    images: Tensor,
    targets: Tensor,
    keys: Vec<u64>,
    trained: Vec<Trained>,
    optimiser: Optimiser,
    is_frozen: bool,
    is_inference: bool,
}

impl Workload {
    fn new(work: &str, batch: usize, precision: Precision) -> Result<Self> {
        let options = DeviceOptions {
            graphs: work == "graphs",
            // What was chosen before.
            exact_f32: DeviceOptions::current().exact_f32,
            ..DeviceOptions::default()
        };
        let device = cuda_device(0, options)?;
        let (is_frozen, is_inference) = match work {
            "train" | "graphs" => (false, false),
            "frozen" => (true, false),
            "infer" => (false, true),
            _ => return Err(USAGE.into()),
        };
        let variant = Experiment::parse(EXPERIMENT)?.variant("bce")?;
        let labels: Vec<String> = (0..14).map(|label| label.to_string()).collect();
        let classifier = Classifier::new(&ModelCard::new(&variant, &labels)?, 0, &device)?;
        let prefix = if is_frozen { "top." } else { "" };
        let targets = Tensor::rand(0f32, 1., (batch, 14), &device)?
            .ge(0.9)?
            .to_dtype(DType::F32)?
            .to_device(&Device::Cpu)?;
        Ok(Self {
            trained: Trained::all(classifier.parameters().select(Role::Trainable, prefix)),
            optimiser: Optimiser::new(OptimiserConfig::default()),
            loss: cxr_train::loss(variant.chosen())?,
            images: Tensor::randn(0f32, 1., (batch, 3, SIDE, SIDE), &device)?,
            targets,
            keys: (0..batch as u64).collect(),
            device,
            precision,
            classifier,
            is_frozen,
            is_inference,
        })
    }

    fn step(&mut self) -> Result<()> {
        let phase = Phase::Train {
            image_keys: &self.keys,
        };
        let features_phase = match self.is_frozen || self.is_inference {
            true => Phase::Evaluate,
            false => phase,
        };
        let sink = GradientSink::new();
        let features = || self.classifier.features(&self.images, features_phase);
        let features = sink.scope(|| self.precision.scope(features))?;
        if self.is_inference {
            self.classifier.logits(&features, Phase::Evaluate)?;
            return Ok(());
        }
        let features = match self.is_frozen {
            true => features.detach(),
            false => features,
        };
        let logits = self.classifier.logits(&features, phase)?;
        let loss = self.loss.loss(&logits, &self.targets, None)?;
        let gradients = Gradients::backward(&self.trained, &loss, &sink)?;
        self.optimiser.step(1e-5, &self.trained, &gradients)?;
        Ok(())
    }
}

/// The median of `steps` steps, in groups that the host waits for.
pub(super) fn time(work: &str, batch: usize, steps: usize, precision: Precision) -> Result<Timed> {
    /// Steps between two looks at the clock.
    const GROUP: usize = 5;
    let mut workload = Workload::new(work, batch, precision)?;
    for _ in 0..GROUP {
        workload.step()?;
    }
    workload.device.synchronize()?;
    let mut seconds = Vec::new();
    for _ in 0..steps.div_ceil(GROUP).max(1) {
        let begin = Instant::now();
        for _ in 0..GROUP {
            workload.step()?;
        }
        workload.device.synchronize()?;
        seconds.push(begin.elapsed().as_secs_f64() / GROUP as f64);
    }
    seconds.sort_by(f64::total_cmp);
    let bytes_a_value = match precision {
        Precision::Single => 4.,
        Precision::Bf16 => 2.,
    };
    // Each output of a convolution is written and read; in training it is read again, and its gradient written and
    // read.
    let (forwards, passes) = match workload.is_frozen || workload.is_inference {
        false => (3., 5.),
        true => (1., 2.),
    };
    Ok(Timed {
        img_s: batch as f64 / seconds[seconds.len() / 2],
        peak_mib: cuda_memory_peak(&workload.device)?
            .map(|bytes| bytes as f64 / f64::from(1 << 20)),
        operations: forwards * OPERATIONS,
        bytes: passes * OUTPUTS * bytes_a_value,
    })
}

/// Where the time of a training step goes, by kernels, products and convolutions, beside the least that each could take
/// at the rates that the device reaches.
pub(super) fn profile(batch: usize, precision: Precision) -> Result<()> {
    /// Steps before the one that is looked at.
    const WARM: usize = 5;
    let mut workload = Workload::new("train", batch, precision)?;
    let rates = rates(&workload.device)?;
    let flops = match precision {
        Precision::Single => rates.tf32_flops,
        Precision::Bf16 => rates.bf16_flops,
    };
    // As it was opened: `rates` has tried all arithmetics.
    set_exact_f32(false);
    for _ in 0..WARM {
        workload.step()?;
    }
    workload.device.synchronize()?;
    let begin = Instant::now();
    workload.step()?;
    workload.device.synchronize()?;
    let step = 1e3 * begin.elapsed().as_secs_f64();
    let (done, kinds) = cuda_profile(|| Ok(workload.step()))?;
    done?;
    println!(
        "{:<70} {:>8} {:>9} {:>9} {:>6}",
        format!("one step, {} × {batch}", precision.name()),
        "launches",
        "ms",
        "least ms",
        "share"
    );
    let mut all = (0, 0., 0.);
    for kind in &kinds {
        let least = 1e3 * (kind.bytes / rates.bytes_a_second).max(kind.operations / flops);
        all = (
            all.0 + kind.launches,
            all.1 + kind.milliseconds,
            all.2 + least,
        );
        println!(
            "{:<70} {:>8} {:>9.3} {least:>9.3} {:>5.0}%",
            kind.name,
            kind.launches,
            kind.milliseconds,
            100. * least / kind.milliseconds
        );
    }
    let (launches, milliseconds, least) = all;
    println!(
        "{:<70} {launches:>8} {milliseconds:>9.3} {least:>9.3}",
        "all of these"
    );
    println!("a step without events between its launches: {step:.3} ms");
    Ok(())
}
