//! A training that ends when a metric of one's own no longer rises: the label ranking of the validation images.

use std::sync::atomic::AtomicBool;

use cxr_downstream::{EXPERIMENT, Outcome, write_phantoms};
use cxr_train::prelude::*;

fn main() -> Outcome {
    let folder = tempfile::tempdir()?;
    write_phantoms(folder.path(), 1, 60)?;
    let mut experiment = Experiment::parse(EXPERIMENT)?;
    experiment.training.stages[0].epochs = 30;
    let store = folder.path().join("images.store");
    let data = TrainingData::from_folder(&DataFolder::new(folder.path()), &experiment, store)?;
    let run = RunFolder::open(folder.path().join("run"))?;
    let mut trainer = Trainer::new(&experiment.variant("bce")?, &data, &run, &Device::Cpu)?;

    // begin
    let mut best = (0, 0.);
    let stop_early = at_epoch_end(|end| {
        let scores = end
            .validation
            .to_multi_label(ViewSet::Single, end.data.index())?;
        let precision = scores.label_ranking_average_precision().unwrap_or(0.);
        if precision > best.1 {
            best = (end.epoch, precision);
        }
        Ok(match end.epoch - best.0 {
            0..3 => Decision::Continue,
            _ => Decision::Finish,
        })
    });
    let mut observers = (trainer.event_log()?, stop_early);
    // end

    let outcome = trainer.run(&mut observers, &AtomicBool::new(false))?;
    drop(observers);
    let TrainOutcome::Finished { history, .. } = outcome else {
        return Err("nothing stops it".into());
    };
    println!("{} epochs; the best was {best:?}", history.len());
    assert!(history.len() == (best.0 + 4).min(30) && run.model_file().is_file());
    Ok(())
}
