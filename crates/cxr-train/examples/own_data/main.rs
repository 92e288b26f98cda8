//! Own table, loss, augmentation, head: `cargo run --release -p cxr-train --example own_data`
mod images;

use candle_core::{D, Device, Tensor};
use cxr_augment::{KeyedRng, Transform};
use cxr_ops::{Init, Linear};
use cxr_train::*;

/// Squared error of the probabilities.
#[derive(Debug)]
struct Brier;
impl MultiLabelLoss for Brier {
    fn forward(&self, z: &Tensor, y: &Tensor, m: Option<&Tensor>) -> candle_core::Result<Tensor> {
        // What is unknown is left out when the values are reduced.
        let (y, _) = known(y, m)?;
        ((z.neg()?.exp()? + 1.)?.recip()? - y)?.sqr()
    }
    fn name(&self) -> &str {
        "brier"
    }
    fn granularity(&self) -> Granularity {
        Granularity::Element
    }
}
/// Brightens or darkens the whole image.
struct Exposure;
impl Transform for Exposure {
    fn name(&self) -> &str {
        "exposure"
    }
    fn change_gray(&self, rng: &mut KeyedRng, gray: &mut [f32], _width: usize) {
        let factor = rng.uniform(0.8, 1.2) as f32;
        gray.iter_mut().for_each(|gray| *gray *= factor);
    }
}
/// A dense layer on the maximum of each map.
struct MaxHead(Linear);
impl Head for MaxHead {
    fn forward_t(&self, maps: &Tensor, phase: Phase<'_>) -> candle_core::Result<Tensor> {
        self.0
            .forward_t(&maps.max(D::Minus1)?.max(D::Minus1)?, phase)
    }
}
pub(crate) fn train(folder: &std::path::Path) -> Result<TrainOutcome, Box<dyn std::error::Error>> {
    let variant = Experiment::parse(include_str!("own.toml"))?.variant("own")?;
    let (table, experiment) = (folder.join("labels.csv"), variant.experiment());
    let data = TrainingData::from_table(&table, folder, 4, experiment)?;
    let run = RunFolder::open(folder.join("run"))?;
    let parts = OwnParts::new().loss(Brier).transform(Exposure);
    let parts = parts.head("max", |(maps, ..), labels, path| {
        Linear::new(maps, labels, Init::GlorotUniform, path).map(MaxHead)
    });
    let mut trainer = Trainer::with_parts(&variant, &data, &run, &Device::Cpu, &parts)?;
    Ok(trainer.run(&mut (), &Default::default())?)
}
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    images::write(folder.path())?;
    println!("{:#?}", train(folder.path())?);
    Ok(())
}
