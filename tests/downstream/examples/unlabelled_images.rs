//! Predictions of images of which nothing is known, with a model file alone.

use std::sync::atomic::AtomicBool;

use cxr_downstream::{EXPERIMENT, Outcome, write_phantoms};
use cxr_train::prelude::*;

fn main() -> Outcome {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    write_phantoms(folder, 1, 60)?;
    let experiment = Experiment::parse(EXPERIMENT)?;
    let store = folder.join("images.store");
    let data = TrainingData::from_folder(&DataFolder::new(folder), &experiment, store)?;
    let run = RunFolder::open(folder.join("run"))?;
    let mut trainer = Trainer::new(&experiment.variant("bce")?, &data, &run, &Device::Cpu)?;
    trainer.run(&mut (), &AtomicBool::new(false))?;
    let (model, new_images) = (run.model_file(), folder.join("images"));

    // begin
    let predictor = Predictor::open(&model, &Device::Cpu)?;
    let images = ImageFiles::find([new_images])?.name_all(&[])?;
    let prediction = predictor.predict_files(&images.files, ViewSet::HorizontalFlip)?;
    prediction.write(ViewSet::HorizontalFlip, &folder.join("predictions.csv"))?;
    // end

    println!(
        "{} images, {} labels",
        prediction.names().len(),
        prediction.labels().len()
    );
    assert_eq!(prediction.names().len(), data.store().len());
    assert!(folder.join("predictions.csv").is_file());
    Ok(())
}
