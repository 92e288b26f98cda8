//! Every operation on fresh random inputs, on a device and on the CPU.

use std::collections::BTreeMap;
use std::process::ExitCode;

use candle_core::{DType, Device, Tensor, Var};
use cxr_augment::{Affine, Augmentation, GrayImageRef, Normalization, Pipeline};
use cxr_backbone::{Backbone, DenseNet, DenseNetConfig};
use cxr_losses::{LOSSES, by_name};
use cxr_ops::{
    Activation, Algorithms, Conv2dConfig, CudaImages, CudaSize, Parameters, Phase, Precision, Role,
    StoredImage, autotuned, avg_pool2d, batch_norm, batch_norm_train, concat_maps, conv2d,
    cuda_graph_launches, dropout, end_autotune, linear, max_pool2d, set_autotune, set_exact_f32,
    set_graphs,
};
use cxr_top::{Head, TopNetwork, TopNetworkConfig};
use cxr_train::{Gradients, Optimiser, OptimiserConfig, SgdConfig, Trained};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::Result;

/// Standard normal numbers, the same for a seed on every device.
struct Noise(ChaCha8Rng);

impl Noise {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    fn tensor(&mut self, shape: &[usize], device: &Device) -> Result<Tensor> {
        let mut unit = || (f64::from(self.0.next_u32()) + 0.5) / 2f64.powi(32);
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| ((-2. * unit().ln()).sqrt() * (std::f64::consts::TAU * unit()).cos()) as f32)
            .collect();
        Ok(Tensor::from_vec(values, shape, device)?)
    }

    fn var(&mut self, shape: &[usize], device: &Device) -> Result<Var> {
        Ok(Var::from_tensor(&self.tensor(shape, device)?)?)
    }
}

/// Named results of one operation.
type Results = Vec<(String, Tensor)>;

/// The output, and the gradients that a random gradient of it gives.
fn with_gradients(noise: &mut Noise, output: &Tensor, inputs: &[(&str, &Var)]) -> Result<Results> {
    let gradient = noise.tensor(output.dims(), output.device())?;
    let gradients = (output * gradient)?.sum_all()?.backward()?;
    // Without what leads to it, which a graph would have to keep.
    let mut results = vec![("output".to_owned(), output.detach())];
    for (name, input) in inputs {
        let gradient = gradients.get(input).ok_or("an input without a gradient")?;
        results.push((format!("gradient of {name}"), gradient.clone()));
    }
    Ok(results)
}

type Run<'a> = &'a dyn Fn(&mut Noise, &Device) -> Result<Results>;

/// What is compared, and what came of it so far.
struct Checks<'a> {
    seed: u64,
    device: &'a Device,
    results: usize,
    far: usize,
    refused: usize,
}

impl Checks<'_> {
    /// Runs an operation on both devices and counts which of its results are further apart than `bound`. What ends with
    /// an error is counted and shown: it hides nothing of what comes after.
    fn compare(&mut self, name: &str, bound: f64, run: Run<'_>) {
        let expected = run(&mut Noise::new(self.seed), &Device::Cpu);
        self.compare_with(name, bound, expected, run);
    }

    fn compare_with(&mut self, name: &str, bound: f64, expected: Result<Results>, run: Run<'_>) {
        if let Err(error) = self.results_of(name, bound, expected, run) {
            self.refused += 1;
            let error = error.to_string().replace('\n', " ");
            println!("{name:<44} REFUSED: {error}");
        }
    }

    fn results_of(
        &mut self,
        name: &str,
        bound: f64,
        expected: Result<Results>,
        run: Run<'_>,
    ) -> Result<()> {
        let expected = expected?;
        let found = run(&mut Noise::new(self.seed), self.device)?;
        let mut squares = 0.;
        for (_, tensor) in &expected {
            squares += norm(tensor)?.powi(2);
        }
        for ((what, expected), (_, found)) in expected.iter().zip(&found) {
            let [found, on_host] = [found, expected].map(|tensor| tensor.to_device(&Device::Cpu));
            let difference = norm(&(found? - on_host?)?)?;
            // What is 0 but for rounding, such as the gradient of a bias before a normalisation, has no size of its own.
            let size = norm(expected)?.max(1e-3 * squares.sqrt());
            let error = difference / size.max(f64::MIN_POSITIVE);
            self.tell(name, what, error, bound);
        }
        Ok(())
    }

    fn tell(&mut self, name: &str, what: &str, error: f64, bound: f64) {
        // A NaN is not below anything.
        let is_good = error <= bound;
        self.results += 1;
        self.far += usize::from(!is_good);
        let verdict = if is_good { "ok" } else { "TOO FAR" };
        println!("{name:<44} {what:<24} {error:>9.1e} of {bound:.0e}  {verdict}");
    }

    /// The same twice on the device: the same bits.
    fn repeat(&mut self, name: &str, run: Run<'_>) {
        let first = run(&mut Noise::new(self.seed), self.device);
        self.compare_with(name, 0., first, run);
    }

    /// Those of one mode.
    fn within(&mut self, mode: &str, bound: f64) -> impl FnMut(&str, Run<'_>) {
        move |name: &str, run: Run<'_>| self.compare(&format!("{mode} {name}"), bound, run)
    }
}

fn norm(tensor: &Tensor) -> Result<f64> {
    let sum = tensor
        .to_device(&Device::Cpu)?
        .to_dtype(DType::F64)?
        .sqr()?
        .sum_all()?;
    Ok(sum.to_scalar::<f64>()?.sqrt())
}

/// Every operation, in TF32, where there is a choice in bf16, and at last in single precision, for which cuDNN has the
/// fewest algorithms.
pub(super) fn run(seed: u64, cuda: &Device) -> Result<ExitCode> {
    println!("seed {seed}");
    let mut checks = Checks {
        seed,
        device: cuda,
        results: 0,
        far: 0,
        refused: 0,
    };
    let checks = &mut checks;
    set_exact_f32(false);
    check_operations(&mut checks.within("TF32", 1e-3));
    check_networks(&mut checks.within("TF32", 3e-3));
    checks.compare("bf16 densenet", 3e-2, &|noise, device| {
        let precision = match device {
            Device::Cpu => Precision::Single,
            _ => Precision::Bf16,
        };
        precision.scope(|| outputs(densenet(noise, device)?))
    });
    checks.compare("warp", 0., &warp);
    for precision in Precision::ALL {
        let name = format!("{} densenet, twice", precision.name());
        checks.repeat(&name, &|noise, device| {
            precision.scope(|| densenet(noise, device))
        });
        check_graphs(checks, precision);
    }
    check_steps(checks);
    check_choices(checks, "TF32", 3e-3);
    set_exact_f32(true);
    check_operations(&mut checks.within("f32", 1e-5));
    check_networks(&mut checks.within("f32", 1e-4));
    // A ReLU's mask flips where rounding carries a value across 0, and all gradients behind it with it: of whole
    // networks gradients are compared in single precision alone, and not to its last bits.
    for (name, run) in [
        ("densenet", densenet as Network),
        ("top network", top_network),
    ] {
        checks.compare(&format!("f32 {name}, gradients"), 3e-2, &run);
    }
    check_choices(checks, "f32", 1e-4);
    set_exact_f32(false);
    let Checks {
        results,
        far,
        refused,
        ..
    } = checks;
    println!("{results} results compared, {far} too far off; {refused} operations refused");
    Ok(match (far, refused) {
        (0, 0) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// One training step of a tiny DenseNet in each precision, which compares nothing.
pub(super) fn tiny(device: &Device) -> Result<ExitCode> {
    for precision in Precision::ALL {
        let results = precision.scope(|| densenet(&mut Noise::new(1), device))?;
        let mut squares = 0.;
        for (_, tensor) in &results {
            squares += norm(tensor)?.powi(2);
        }
        let (name, n) = (precision.name(), results.len());
        println!("{name}: {n} results of size {:.6}", squares.sqrt());
    }
    Ok(ExitCode::SUCCESS)
}

/// A training whose passes are repeated as graphs, beside one whose launches are made one by one: the same bits.
fn check_graphs(checks: &mut Checks<'_>, precision: Precision) {
    // The fourth pass is the second that graphs repeat.
    let run =
        |noise: &mut Noise, device: &Device| precision.scope(|| trained_densenet(noise, device, 4));
    let plain = run(&mut Noise::new(checks.seed), checks.device);
    let name = format!("{} densenet, graphs", precision.name());
    set_graphs(true);
    let before = cuda_graph_launches();
    checks.compare_with(&name, 0., plain, &run);
    set_graphs(false);
    if checks.device.is_cuda() {
        let launches = cuda_graph_launches() - before;
        let missing = launches.abs_diff(4) as f64;
        checks.tell(&name, "4 launches of graphs", missing, 0.);
    }
}

/// Convolutions by the algorithms that timing finds fastest. What Winograd's and Fourier's transforms lose is allowed
/// for.
fn check_choices(checks: &mut Checks<'_>, mode: &str, bound: f64) {
    set_autotune(Algorithms::new());
    let mode = format!("{mode} autotuned");
    check_convolutions(&mut checks.within(&mode, bound));
    checks.compare(&format!("{mode} densenet"), bound, &|noise, device| {
        outputs(densenet(noise, device)?)
    });
    for (work, algorithm) in autotuned().into_iter().flatten() {
        println!("{work}: {algorithm}");
    }
    end_autotune();
}

type Compare<'a> = dyn FnMut(&str, Run<'_>) + 'a;

fn check_convolutions(compare: &mut Compare<'_>) {
    for (maps_in, maps_out, kernel, stride, padding, height, width) in [
        (3, 16, 7, 2, 3, 65, 47),
        (24, 32, 3, 1, 1, 13, 17),
        (40, 12, 1, 1, 0, 9, 11),
        (16, 8, 3, 1, 0, 7, 7),
    ] {
        let name = format!("conv2d {maps_in}→{maps_out} {kernel}×{kernel}/{stride}+{padding}");
        compare(&name, &|noise, device| {
            let images = noise.var(&[5, maps_in, height, width], device)?;
            let weight = noise.var(&[maps_out, maps_in, kernel, kernel], device)?;
            let bias = noise.var(&[maps_out], device)?;
            let config = Conv2dConfig { stride, padding };
            let output = conv2d(&images, &weight, Some(&bias), config)?;
            let inputs = [("images", &images), ("weight", &weight), ("bias", &bias)];
            with_gradients(noise, &output, &inputs)
        });
    }
}

fn check_operations(compare: &mut Compare<'_>) {
    check_convolutions(compare);
    for shape in [&[6, 20, 9, 11][..], &[12, 7][..]] {
        compare(&format!("batch_norm_train {shape:?}"), &|noise, device| {
            let x = noise.var(shape, device)?;
            let (weight, bias) = (
                noise.var(&shape[1..2], device)?,
                noise.var(&shape[1..2], device)?,
            );
            let (output, _) = batch_norm_train(&x, &weight, &bias, 1e-5, Activation::Relu)?;
            with_gradients(
                noise,
                &output,
                &[("input", &x), ("weight", &weight), ("bias", &bias)],
            )
        });
        compare(&format!("batch_norm {shape:?}"), &|noise, device| {
            let x = noise.var(shape, device)?;
            let mut of_channels = || noise.tensor(&shape[1..2], device);
            let [weight, bias, mean] = [of_channels()?, of_channels()?, of_channels()?];
            let variance = of_channels()?.sqr()?;
            let output = batch_norm(
                &x,
                &weight,
                &bias,
                &mean,
                &variance,
                1e-3,
                Activation::Identity,
            )?;
            with_gradients(noise, &output, &[("input", &x)])
        });
    }
    compare("max_pool2d 3/2+1", &|noise, device| {
        let x = noise.var(&[2, 5, 15, 12], device)?;
        let output = max_pool2d(&x, 3, 2, 1)?;
        with_gradients(noise, &output, &[("input", &x)])
    });
    compare("avg_pool2d 2", &|noise, device| {
        let x = noise.var(&[2, 5, 15, 12], device)?;
        let output = avg_pool2d(&x, 2)?;
        with_gradients(noise, &output, &[("input", &x)])
    });
    compare("linear", &|noise, device| {
        let (x, weight) = (noise.var(&[9, 33], device)?, noise.var(&[14, 33], device)?);
        let bias = noise.var(&[14], device)?;
        let output = linear(&x, &weight, Some(&bias))?;
        with_gradients(
            noise,
            &output,
            &[("inputs", &x), ("weight", &weight), ("bias", &bias)],
        )
    });
    compare("concat_maps", &|noise, device| {
        let (a, b) = (
            noise.var(&[2, 3, 4, 5], device)?,
            noise.var(&[2, 7, 4, 5], device)?,
        );
        let output = concat_maps(&a, &b)?;
        with_gradients(noise, &output, &[("first", &a), ("second", &b)])
    });
    compare("dropout", &|noise, device| {
        let x = noise.var(&[4, 50], device)?;
        let phase = Phase::Train {
            image_keys: &[1, 2, 3, 4],
        };
        let output = dropout(&x, 0.3, "check", phase)?;
        with_gradients(noise, &output, &[("input", &x)])
    });
    for entry in LOSSES {
        for targets_are_there in [true, false] {
            let place = if targets_are_there { "there" } else { "here" };
            let name = format!("loss {}, targets {place}", entry.name);
            compare(&name, &|noise, device| {
                let logits = noise.var(&[16, 14], device)?;
                let of_targets = if targets_are_there {
                    device
                } else {
                    &Device::Cpu
                };
                let targets = noise.tensor(&[16, 14], of_targets)?;
                let targets = targets.gt(0.8)?.to_dtype(DType::F32)?;
                let loss = by_name(entry.name, &BTreeMap::new())?;
                let output = loss.forward(&logits, &targets, None)?;
                with_gradients(noise, &output, &[("logits", &logits)])
            });
        }
    }
    compare("size", &|noise, device| {
        let tensors = [
            noise.tensor(&[3, 700], device)?,
            noise.tensor(&[5], device)?,
        ];
        let norm = match device {
            Device::Cpu => norm(&tensors[0])?.hypot(norm(&tensors[1])?),
            _ => {
                let (norm, first) = CudaSize::of(&tensors)?.read()?;
                assert_eq!(first, None, "a tensor that is said not to be finite");
                norm
            }
        };
        Ok(vec![(
            "norm".to_owned(),
            Tensor::new(norm as f32, &Device::Cpu)?,
        )])
    });
}

/// Images resampled and normalised: the CPU's to the last bit.
fn warp(noise: &mut Noise, device: &Device) -> Result<Results> {
    const SIDE: usize = 64;
    let pixels: Vec<u8> = (0..3 * SIDE * SIDE)
        .map(|_| noise.0.next_u32() as u8)
        .collect();
    let pipeline = Pipeline::new(Augmentation::new(0.5, 0.4, SIDE, 48)?);
    let names = ["a.png", "b.png", "c.png"];
    let normalization = Normalization::IMAGENET;
    let maps = names.map(|name| pipeline.map(1, 2, name, (SIDE, SIDE)));
    let maps: Vec<Affine> = maps.into_iter().flatten().collect();
    let batch = match device {
        Device::Cpu => {
            let mut values = vec![0f32; 3 * 3 * 48 * 48];
            let outputs = values.chunks_exact_mut(3 * 48 * 48);
            for ((name, pixels), output) in names
                .iter()
                .zip(pixels.chunks_exact(SIDE * SIDE))
                .zip(outputs)
            {
                let image = GrayImageRef::square(pixels, SIDE)?;
                pipeline.apply(1, 2, name, image, &normalization, output)?;
            }
            Tensor::from_vec(values, (3, 3, 48, 48), device)?
        }
        _ => {
            let pixels = pixels.chunks_exact(SIDE * SIDE).zip(&maps).enumerate();
            let images: Vec<StoredImage<'_>> = pixels
                .map(|(number, (pixels, map))| StoredImage {
                    number,
                    pixels,
                    map: [map.xx, map.xy, map.x0, map.yx, map.yy, map.y0],
                })
                .collect();
            let lines = normalization.factors_and_summands();
            let on_device = CudaImages::new(SIDE, device)?;
            // Sent over, then found there.
            on_device.warp(&images[1..], lines, 48)?;
            on_device.warp(&images, lines, 48)?
        }
    };
    Ok(vec![("output".to_owned(), batch)])
}

/// Puts noise into all parameters, variances positive.
fn randomise(noise: &mut Noise, parameters: &Parameters) -> Result<()> {
    for (name, var) in parameters.select(Role::Trainable, "") {
        let fan_in: usize = var.dims().iter().skip(1).product();
        let values = noise.tensor(var.dims(), var.device())?;
        let is_scale = var.rank() == 1 && name.ends_with("weight");
        let values = match is_scale {
            true => values.affine(0.2, 1.)?,
            false => (values * (2. / fan_in.max(1) as f64).sqrt())?,
        };
        var.set(&values)?;
    }
    Ok(())
}

fn densenet(noise: &mut Noise, device: &Device) -> Result<Results> {
    trained_densenet(noise, device, 1)
}

/// What the last of some passes gives, each over images of its own.
fn trained_densenet(noise: &mut Noise, device: &Device, passes: usize) -> Result<Results> {
    let config = DenseNetConfig {
        stem_channels: 16,
        growth_rate: 8,
        block_layers: vec![2, 3],
        ..DenseNetConfig::densenet121()
    };
    let parameters = Parameters::new(0, device);
    let network = DenseNet::new(&config, &parameters.root())?;
    randomise(noise, &parameters)?;
    let trained = parameters.select(Role::Trainable, "");
    let inputs: Vec<(&str, &Var)> = trained
        .iter()
        .map(|(name, var)| (name.as_str(), var))
        .collect();
    let phase = Phase::Train {
        image_keys: &[1, 2, 3, 4],
    };
    let mut results = Vec::new();
    for _ in 0..passes {
        let images = noise.tensor(&[4, 3, 75, 62], device)?;
        let output = network.forward_t(&images, phase)?;
        results = with_gradients(noise, &output, &inputs)?;
        // The running averages have moved, and evaluation reads them.
        let output = network.forward_t(&images, Phase::Evaluate)?;
        results.push(("output in evaluation".to_owned(), output));
    }
    Ok(results)
}

type Network = fn(&mut Noise, &Device) -> Result<Results>;

/// What is no gradient.
fn outputs(results: Results) -> Result<Results> {
    let outputs = results.into_iter();
    Ok(outputs
        .filter(|(name, _)| !name.starts_with("gradient"))
        .collect())
}

fn check_networks(compare: &mut Compare<'_>) {
    for (name, network) in [
        ("densenet", densenet as Network),
        ("top network", top_network),
    ] {
        compare(name, &|noise, device| outputs(network(noise, device)?));
    }
}

fn top_network(noise: &mut Noise, device: &Device) -> Result<Results> {
    let parameters = Parameters::new(0, device);
    let config = TopNetworkConfig {
        conv_channels: [24, 12],
        ..TopNetworkConfig::default()
    };
    let root = parameters.root().pp("top");
    let network = TopNetwork::new((40, 7, 7), 14, &config, &root)?;
    randomise(noise, &parameters)?;
    let features = noise.var(&[8, 40, 7, 7], device)?;
    let keys: Vec<u64> = (0..8).collect();
    let output = network.forward_t(&features, Phase::Train { image_keys: &keys })?;
    with_gradients(noise, &output, &[("features", &features)])
}

/// Three steps of each optimiser.
fn check_steps(checks: &mut Checks<'_>) {
    let nesterov = SgdConfig {
        nesterov: true,
        ..SgdConfig::default()
    };
    for (name, config) in [
        ("adamw", OptimiserConfig::default()),
        ("sgd", OptimiserConfig::Sgd(nesterov)),
    ] {
        checks.compare(name, 1e-5, &|noise, device| {
            let sizes = [&[3, 5][..], &[70, 90], &[1]];
            let vars: Vec<(String, Var)> = (sizes.iter().enumerate())
                .map(|(at, size)| Ok((at.to_string(), noise.var(size, device)?)))
                .collect::<Result<_>>()?;
            let trained = Trained::all(vars.clone());
            let mut optimiser = Optimiser::new(config);
            for _ in 0..3 {
                let terms = vars.iter().map(|(_, var)| {
                    let factor = noise.tensor(var.dims(), device)?;
                    Ok((var.as_tensor() * factor)?.sum_all()?)
                });
                let terms = terms.collect::<Result<Vec<_>>>()?;
                let loss = Tensor::stack(&terms, 0)?.sum_all()?;
                let mut gradients = Gradients::new(&trained, &loss.backward()?)?;
                let norm = gradients.norm()?;
                gradients.clip(norm, 10.);
                optimiser.step(1e-2, &trained, &gradients)?;
            }
            Ok(vars
                .into_iter()
                .map(|(name, var)| (name, var.as_tensor().clone()))
                .collect())
        });
    }
}
