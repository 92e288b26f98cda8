//! Everything of one's own: table, backbone, head, loss, variation and choice of images; trained, evaluated, explained and
//! reported.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use cxr_augment::{KeyedRng, Transform};
use cxr_downstream::{Outcome, write_phantoms};
use cxr_explain::{CamMethod, explain};
use cxr_ops::{ConvLayer, Init, Linear, Network, NetworkBuilder, OpsError, ParameterPath};
use cxr_report::report::Report;
use cxr_train::candle_core::{D, Result, Tensor};
use cxr_train::prelude::*;

/// Squared error of the probabilities.
#[derive(Debug)]
struct Brier;

impl MultiLabelLoss for Brier {
    fn forward(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let (targets, _) = known(targets, mask)?;
        ((logits.neg()?.exp()? + 1.)?.recip()? - targets)?.sqr()
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

/// Two convolutions, each with half as many pixels as what it reads.
fn two_layers(path: &ParameterPath) -> std::result::Result<Network, OpsError> {
    let mut net = NetworkBuilder::new(3);
    let mut maps = net.images();
    for name in ["first", "second"] {
        maps = net.conv(name, maps, ConvLayer::new(16, 3).stride(2).same());
        maps = net.norm(&format!("{name}.norm"), maps);
        maps = net.relu(maps);
    }
    net.finish(maps)?.build(path)
}

/// A dense layer on the maximum of each map.
struct MaxHead(Linear);

impl Head for MaxHead {
    fn forward_t(&self, maps: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        self.0
            .forward_t(&maps.max(D::Minus1)?.max(D::Minus1)?, phase)
    }
}

const EXPERIMENT: &str = r#"
name = "own-everything"
[augmentation]
image_size = 64
crop_size = 56
[training]
batch_size = 8
last_batch = "drop"
[[training.stages]]
name = "all layers"
epochs = 4
schedule = { cosine = { learning_rate = 1e-2, min_learning_rate = 1e-4 } }
[[variants]]
name = "brier"
loss = "bce"
"#;

/// A table of one's own: what the table of the phantoms says of one finding.
fn write_table(folder: &Path) -> Outcome<Index> {
    let all = Index::read(folder.join("Data_Entry_2017_v2020.csv"))?;
    let place = all
        .label_set()
        .index_of("Effusion")
        .ok_or("no such label")?;
    let mut table = "image,patient,Fluid,Dry\n".to_owned();
    for record in all.records() {
        let (name, target) = (&record.name, record.labels[place].target());
        let patient = record.patient.as_ref().ok_or("no patient")?;
        table += &format!("{name},{patient},{target},{}\n", 1. - target);
    }
    std::fs::write(folder.join("mine.csv"), table)?;
    Ok(Index::read(folder.join("mine.csv"))?)
}

fn main() -> Outcome {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    write_phantoms(folder, 1, 60)?;
    let index = write_table(folder)?;
    let variant = Experiment::parse(EXPERIMENT)?.variant("brier")?;
    let (table, images) = (folder.join("mine.csv"), folder.join("images"));
    let data = TrainingData::from_table(&table, &images, 4, variant.experiment())?;
    // Fluid is seen twice as often as it occurs.
    let weight = |record: &Record| f64::from(1. + record.labels[0].target());
    let records = index.records().iter();
    let weights = records.map(|record| (record.name.clone(), weight(record)));
    let parts = OwnParts::new()
        .backbone("two-layers", two_layers)
        .head("max", |(maps, ..), labels, path| {
            Linear::new(maps, labels, Init::GlorotUniform, path).map(MaxHead)
        })
        .loss(Brier)
        .transform(Exposure)
        .sampler(WeightedSampler::new("fluid-twice", weights)?);

    let (runs, never) = (folder.join("runs"), AtomicBool::new(false));
    let run = RunFolder::open(runs.join("brier"))?;
    let mut trainer = Trainer::with_parts(&variant, &data, &run, &Device::Cpu, &parts)?;
    trainer.train(&mut trainer.event_log()?, &never)?;
    trainer.evaluate(&mut (), &never)?;
    let report = Report::read(&runs)?;
    report.write(&runs)?;

    let model = run.model_file();
    let predictor = Predictor::open_with(&model, parts.network(), &Device::Cpu)?;
    let pixels = data.store().image(&data.split().test()[0])?;
    let map = explain(
        &predictor,
        &predictor.prepared(pixels)?,
        0,
        CamMethod::GradCam,
    )?;
    println!("{}; heat {:.4}", parts.names().join(", "), map.peak());
    assert!(report.markdown().contains("brier") && runs.join("report.html").is_file());
    Ok(())
}
