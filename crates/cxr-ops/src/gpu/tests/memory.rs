//! What a training step takes of a GPU's memory: counted, on a machine that only lends and takes back.

use std::cell::Cell;
use std::rc::Rc;

use candle_core::Result;

use crate::Precision;
use crate::gpu::densenet::{self, DenseNetPlan, Statistics};
use crate::gpu::machine::{Argument, Blocks, Convolution, Machine, Pass, Product, View};
use crate::gpu::rows::Grid;

/// Bytes that are lent, and the most that ever were.
#[derive(Debug, Default)]
struct Ledger {
    lent: Cell<usize>,
    most: Cell<usize>,
}

/// So many values.
#[derive(Debug)]
struct Lot {
    values: usize,
    ledger: Rc<Ledger>,
}

impl Drop for Lot {
    fn drop(&mut self) {
        let lent = &self.ledger.lent;
        lent.set(lent.get() - 4 * self.values);
    }
}

struct Lender {
    precision: Precision,
    ledger: Rc<Ledger>,
}

impl Machine for Lender {
    type Memory = Lot;
    type Table = ();

    fn alloc(&self, values: usize) -> Result<Lot> {
        let Ledger { lent, most } = &*self.ledger;
        lent.set(lent.get() + 4 * values);
        most.set(most.get().max(lent.get()));
        Ok(Lot {
            values,
            ledger: self.ledger.clone(),
        })
    }

    fn upload(&self, _: &[u64]) -> Result<()> {
        Ok(())
    }

    fn write_bytes(&self, _: &mut Lot, _: usize, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn address(&self, _: View<'_, Lot>) -> u64 {
        0
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn multiply(&self, _: Product<'_, Lot>) -> Result<()> {
        Ok(())
    }

    fn convolve(&self, _: &Convolution, _: Pass<'_, Lot>, _: &mut Lot) -> Result<()> {
        Ok(())
    }

    fn launch(&self, _: &'static str, _: Blocks, _: &mut [Argument<'_, Lot, ()>]) -> Result<()> {
        Ok(())
    }
}

/// Of DenseNet121, in batches of 64 images of 224×224: the parameters and what AdamW keeps of them, images, features,
/// everything that the passes hold, and the gradients. Not in it are the workspaces of cuDNN and cuBLAS and what follows
/// the backbone.
#[test]
fn densenet121_in_batches_of_64() -> Result<()> {
    const MIB: usize = 1 << 20;
    let plan = DenseNetPlan {
        stem_maps: 64,
        growth: 32,
        narrow: 128,
        block_layers: vec![6, 12, 24, 16],
        eps: 1e-5,
    };
    let grid = Grid {
        images: 64,
        height: 224,
        width: 224,
    };
    for (precision, most) in [(Precision::Single, 2_600), (Precision::Bf16, 1_400)] {
        let machine = Lender {
            precision,
            ledger: Rc::default(),
        };
        let parameters = plan.parameter_shapes();
        let parameters = parameters.iter().map(|shape| shape.iter().product());
        let parameters = parameters
            .map(|n| machine.alloc(n))
            .collect::<Result<Vec<_>>>()?;
        let n_values: usize = parameters.iter().map(|lot| lot.values).sum();
        let moments = machine.alloc(2 * n_values)?;
        let images = machine.alloc(3 * grid.rows())?;
        let views: Vec<_> = parameters.iter().map(View::from).collect();
        let (features, tape) = densenet::forward(
            &machine,
            &plan,
            ((&images).into(), grid),
            &views,
            Statistics::OfBatch,
        )?;
        let kept = machine.ledger.lent.get();
        let gradient = machine.alloc(features.values)?;
        let gradients = densenet::backward(&machine, &plan, &tape, (&gradient).into())?;
        assert_eq!(gradients.len(), parameters.len());
        let peak = machine.ledger.most.get();
        println!(
            "{precision:?}: {} MiB kept for the backward pass, {} MiB at most",
            kept / MIB,
            peak / MIB
        );
        assert!(peak < most * MIB, "{precision:?}: {} MiB", peak / MIB);
        drop((features, tape, gradients, gradient, images, moments));
        drop(parameters);
        assert_eq!(machine.ledger.lent.get(), 0);
    }
    Ok(())
}
