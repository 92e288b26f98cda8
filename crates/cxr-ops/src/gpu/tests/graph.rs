//! What a CUDA graph takes for granted of the passes it repeats: the same launches with the same numbers whatever the
//! values are, and nothing that comes from the host.

use std::cell::RefCell;

use candle_core::{Result, bail};

use super::noise;
use crate::Precision;
use crate::gpu::densenet::{self, DenseNetPlan, Statistics};
use crate::gpu::emulator::Emulator;
use crate::gpu::machine::{Argument, Blocks, Convolution, Machine, Pass, Product, View};
use crate::gpu::rows::Grid;

/// An emulator that writes down what it is asked for.
struct Scribe {
    emulator: Emulator,
    calls: RefCell<Vec<String>>,
}

impl Scribe {
    fn note(&self, call: String) {
        self.calls.borrow_mut().push(call);
    }
}

impl Machine for Scribe {
    type Memory = [f32];
    type Owned = Vec<f32>;
    type Table = Vec<u64>;

    fn alloc(&self, len: usize) -> Result<Vec<f32>> {
        self.note(format!("alloc {len}"));
        self.emulator.alloc(len)
    }

    fn upload(&self, table: &[u64]) -> Result<Vec<u64>> {
        bail!("a table of {} numbers came from the host", table.len())
    }

    fn write_bytes(&self, _: &mut [f32], _: usize, bytes: &[u8]) -> Result<()> {
        bail!("{} bytes came from the host", bytes.len())
    }

    fn read(&self, memory: &[f32]) -> Result<Vec<f32>> {
        bail!("the host waited for {} values", memory.len())
    }

    fn address(&self, values: View<'_, [f32]>) -> u64 {
        self.emulator.address(values)
    }

    fn precision(&self) -> Precision {
        self.emulator.precision()
    }

    fn multiply(&self, product: Product<'_, [f32]>) -> Result<()> {
        let sizes = (product.rows, product.columns, product.inner);
        self.note(format!("multiply {sizes:?}"));
        self.emulator.multiply(product)
    }

    fn convolve(
        &self,
        convolution: &Convolution,
        pass: Pass<'_, [f32]>,
        out: &mut [f32],
    ) -> Result<()> {
        self.note(format!("{} {convolution:?}", pass.name()));
        self.emulator.convolve(convolution, pass, out)
    }

    fn launch(
        &self,
        kernel: &'static str,
        blocks: Blocks,
        arguments: &mut [Argument<'_, [f32], Vec<u64>>],
    ) -> Result<()> {
        let numbers = arguments.iter().map(|argument| match argument {
            Argument::Read(view) => format!("from {}", view.offset),
            Argument::Write(_, offset) => format!("to {offset}"),
            Argument::Table(table) => format!("table of {}", table.len()),
            Argument::Int(value) => value.to_string(),
            Argument::Long(value) => value.to_string(),
            Argument::Float(value) => value.to_string(),
        });
        let numbers: Vec<String> = numbers.collect();
        self.note(format!("{kernel} {blocks:?} {}", numbers.join(", ")));
        self.emulator.launch(kernel, blocks, arguments)
    }
}

#[test]
fn passes_are_the_same_launches_whatever_the_values() -> Result<()> {
    let plan = DenseNetPlan {
        stem_maps: 8,
        growth: 8,
        narrow: 8,
        block_layers: vec![3, 1],
        eps: 1e-3,
    };
    let grid = Grid {
        images: 2,
        height: 33,
        width: 40,
    };
    for precision in Precision::ALL {
        let Some(emulator) = Emulator::with(precision) else {
            return Ok(());
        };
        let scribe = Scribe {
            emulator,
            calls: RefCell::default(),
        };
        let passes = |images: &[f32], factor: f32, upstream: f32| -> Result<Vec<String>> {
            let parameters: Vec<Vec<f32>> = (1..)
                .zip(plan.parameter_shapes())
                .map(|(seed, shape)| noise(shape.iter().product(), seed))
                .map(|values| values.iter().map(|v| factor * v).collect())
                .collect();
            let views: Vec<_> = parameters.iter().map(View::from).collect();
            let images = images.to_vec();
            let images = (View::from(&images), grid);
            let statistics = Statistics::OfBatch;
            let mut features = vec![0.; plan.feature_grid(grid).rows() * plan.feature_maps()];
            let out = &mut features;
            let tape = densenet::forward(&scribe, &plan, images, &views, statistics, out)?;
            let gradient = vec![upstream; features.len()];
            let mut gradients = vec![0.; plan.n_parameters()];
            let of_features = View::from(&gradient);
            densenet::backward(&scribe, &plan, &tape, of_features, &mut gradients)?;
            Ok(scribe.calls.take())
        };
        let n = 3 * grid.rows();
        let calls = passes(&noise(n, 1), 1., 1.)?;
        assert!(calls.len() > 100, "{} calls", calls.len());
        // Other values, none at all, and some that are not finite.
        for (images, factor, upstream) in [
            (noise(n, 2), -3., 0.5),
            (vec![0.; n], 0., 0.),
            (vec![f32::NAN; n], 1., f32::INFINITY),
        ] {
            assert_eq!(passes(&images, factor, upstream)?, calls, "{precision:?}");
        }
    }
    Ok(())
}
