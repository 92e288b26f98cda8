//! What a training step takes of a GPU's memory, and how often it asks for some: counted, on a machine that only lends
//! and takes back.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use candle_core::Result;

use crate::Precision;
use crate::gpu::arena::Arena;
use crate::gpu::densenet::{self, DenseNetPlan, Statistics};
use crate::gpu::machine::{Argument, Blocks, Convolution, Machine, Pass, Product, View};
use crate::gpu::rows::Grid;

/// Values that are lent, the most that ever were, and how often which were asked for.
#[derive(Debug, Default)]
struct Ledger {
    lent: Cell<usize>,
    most: Cell<usize>,
    pieces: Cell<usize>,
    launches: Cell<usize>,
    arena: RefCell<Arena>,
    /// Where the arena's memory ends.
    capacity: Cell<usize>,
    /// Pieces beyond it, which a driver would have to lend.
    outside: Cell<usize>,
}

impl Ledger {
    /// As [`Pool::fit`](crate::gpu::memory::Pool::fit).
    fn fit(&self) {
        assert!(self.arena.borrow().is_empty());
        self.capacity.set(self.arena.borrow().most());
        for count in [&self.outside, &self.pieces, &self.launches] {
            count.set(0);
        }
    }
}

/// So many values.
#[derive(Debug)]
struct Lot {
    begin: usize,
    values: usize,
    ledger: Rc<Ledger>,
}

impl Drop for Lot {
    fn drop(&mut self) {
        let lent = &self.ledger.lent;
        lent.set(lent.get() - self.values);
        let mut arena = self.ledger.arena.borrow_mut();
        arena.give_back(self.begin, self.values);
    }
}

struct Lender {
    precision: Precision,
    ledger: Rc<Ledger>,
}

impl Lender {
    fn count(&self) -> Result<()> {
        let launches = &self.ledger.launches;
        launches.set(launches.get() + 1);
        Ok(())
    }
}

impl Machine for Lender {
    type Memory = Lot;
    type Owned = Box<Lot>;
    type Table = ();

    fn alloc(&self, values: usize) -> Result<Box<Lot>> {
        let ledger = &self.ledger;
        ledger.lent.set(ledger.lent.get() + values);
        ledger.most.set(ledger.most.get().max(ledger.lent.get()));
        ledger.pieces.set(ledger.pieces.get() + 1);
        let begin = ledger.arena.borrow_mut().take(values);
        if begin + values > ledger.capacity.get() {
            ledger.outside.set(ledger.outside.get() + 1);
        }
        Ok(Box::new(Lot {
            begin,
            values,
            ledger: ledger.clone(),
        }))
    }

    fn upload(&self, _: &[u64]) -> Result<()> {
        Ok(())
    }

    fn write_bytes(&self, _: &mut Lot, _: usize, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn read(&self, _: &Lot) -> Result<Vec<f32>> {
        candle_core::bail!("a step does not wait for the device")
    }

    fn address(&self, _: View<'_, Lot>) -> u64 {
        0
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn multiply(&self, _: Product<'_, Lot>) -> Result<()> {
        self.count()
    }

    fn convolve(&self, _: &Convolution, _: Pass<'_, Lot>, _: &mut Lot) -> Result<()> {
        self.count()
    }

    fn launch(&self, _: &'static str, _: Blocks, _: &mut [Argument<'_, Lot, ()>]) -> Result<()> {
        self.count()
    }
}

const MIB: usize = 1 << 20;

fn densenet121() -> (DenseNetPlan, Grid) {
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
    (plan, grid)
}

fn lender(precision: Precision) -> Lender {
    Lender {
        precision,
        ledger: Rc::default(),
    }
}

/// Both passes, whose pieces `pool` lends; what outlives them is of `own`.
fn step(pool: &Lender, own: &Lender, plan: &DenseNetPlan, grid: Grid) -> Result<()> {
    let parameters = plan.parameter_shapes();
    let parameters = parameters.iter().map(|shape| shape.iter().product());
    let parameters: Vec<_> = parameters.map(|n| own.alloc(n)).collect::<Result<_>>()?;
    let n_values: usize = parameters.iter().map(|lot| lot.values).sum();
    assert_eq!(n_values, plan.n_parameters());
    let moments = own.alloc(2 * n_values)?;
    let images = own.alloc(3 * grid.rows())?;
    let views: Vec<_> = parameters.iter().map(|lot| View::from(&**lot)).collect();
    let n_features = plan.feature_grid(grid).rows() * plan.feature_maps();
    let mut features = own.alloc(n_features)?;
    let of_images = (View::from(&*images), grid);
    let statistics = Statistics::OfBatch;
    let tape = densenet::forward(pool, plan, of_images, &views, statistics, &mut features)?;
    let gradient = own.alloc(n_features)?;
    let mut gradients = own.alloc(n_values)?;
    densenet::backward(pool, plan, &tape, View::from(&*gradient), &mut gradients)?;
    drop((moments, images));
    Ok(())
}

/// Of DenseNet121, in batches of 64 images of 224×224: the parameters and what AdamW keeps of them, images, features,
/// everything that the passes hold, and the gradients. Not in it are the workspaces of cuDNN and cuBLAS and what follows
/// the backbone.
#[test]
fn densenet121_in_batches_of_64() -> Result<()> {
    let (plan, grid) = densenet121();
    for (precision, most) in [(Precision::Single, 2_600), (Precision::Bf16, 1_400)] {
        let machine = lender(precision);
        step(&machine, &machine, &plan, grid)?;
        let peak = 4 * machine.ledger.most.get();
        println!("{precision:?}: {} MiB at most", peak / MIB);
        assert!(peak < most * MIB, "{precision:?}: {} MiB", peak / MIB);
        assert_eq!(machine.ledger.lent.get(), 0);
    }
    Ok(())
}

/// A step asked the driver for some 2,150 pieces of memory, and gave them back.
#[test]
fn the_second_step_finds_all_its_memory_in_one_piece() -> Result<()> {
    let (plan, grid) = densenet121();
    for precision in Precision::ALL {
        let (pool, own) = (lender(precision), lender(precision));
        step(&pool, &own, &plan, grid)?;
        let ledger = &pool.ledger;
        assert_eq!(ledger.outside.get(), ledger.pieces.get());
        ledger.fit();
        own.ledger.fit();
        step(&pool, &own, &plan, grid)?;
        println!(
            "{precision:?}: {} launches, {} pieces, none of them the driver's, in {} MiB for {} MiB at once",
            ledger.launches.get(),
            ledger.pieces.get(),
            4 * ledger.capacity.get() / MIB,
            4 * ledger.most.get() / MIB
        );
        assert!(ledger.pieces.get() > 1_000);
        assert_eq!(ledger.outside.get(), 0);
        // Gaps between pieces cost little.
        assert!(20 * ledger.capacity.get() <= 21 * ledger.most.get());
        // A last batch that is smaller fits in too.
        ledger.fit();
        let smaller = Grid { images: 41, ..grid };
        step(&pool, &own, &plan, smaller)?;
        assert_eq!(ledger.outside.get(), 0);
    }
    Ok(())
}
