//! Cross-validation by patient: every image is predicted by a network that has seen no image of its patient.

use std::sync::atomic::AtomicBool;

use cxr_downstream::{EXPERIMENT, Outcome, write_phantoms};
use cxr_train::prelude::*;

fn main() -> Outcome {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    write_phantoms(folder, 1, 60)?;
    let mut experiment = Experiment::parse(EXPERIMENT)?;
    let (device, parts, never) = (Device::Cpu, OwnParts::new(), AtomicBool::new(false));

    // begin
    let mut aucs = Vec::new();
    for fold in 0..3 {
        experiment.data.validation = ValidationSplit::PatientFold { fold, of: 3 };
        let images = folder.join("images.store");
        let data = TrainingData::from_folder(&DataFolder::new(folder), &experiment, images)?;
        let variant = experiment.variant("bce")?;
        let run = RunFolder::open(folder.join(format!("fold-{fold}")))?;
        let mut trainer = Trainer::with_parts(&variant, &data, &run, &device, &parts)?;
        trainer.run(&mut (), &never)?;
        let predictor = Predictor::open(&run.model_file(), &device)?;
        let all = predictor.predict_store(data.store(), ViewSet::Single)?;
        let held_out = all.of_images(data.split().validation())?;
        aucs.push(
            held_out
                .macro_auc(ViewSet::Single, data.index())?
                .ok_or("one class")?
                .value,
        );
    }
    let mean = aucs.iter().sum::<f64>() / aucs.len() as f64;
    // end

    println!("mean AUC of three folds {mean:.3}: {aucs:.3?}");
    assert!(aucs.len() == 3 && (0. ..=1.).contains(&mean));
    Ok(())
}
