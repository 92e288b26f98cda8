//! A training loop of one's own: the loss while the learning rate grows from step to step (Smith 2017). Where it falls
//! fastest, a training begins well.

use cxr_downstream::{EXPERIMENT, Outcome, write_phantoms};
use cxr_train::prelude::*;

// begin
/// The learning rate and the loss of each of sixty steps.
fn find(
    network: &Classifier,
    loss: &dyn MultiLabelLoss,
    loader: &Loader,
) -> Outcome<Vec<(f64, f32)>> {
    let trained = Trained::all(network.parameters().select(Role::Trainable, ""));
    let mut optimiser = Optimiser::new(OptimiserConfig::default());
    let mut curve = Vec::new();
    std::thread::scope(|scope| {
        let batches = (0..).flat_map(|epoch| loader.epoch(scope, epoch, 0));
        for batch in batches.take(60) {
            let batch = batch?;
            let (value, gradients) = Gradients::of(&trained, || {
                let logits = network.forward_t(&batch.images, batch.phase())?;
                loss.loss(&logits, &batch.targets, batch.mask.as_ref())
            })?;
            let rate = 1e-5 * 1.25f64.powi(curve.len() as i32);
            optimiser.step(rate, &trained, &gradients)?;
            curve.push((rate, value.to_scalar()?));
        }
        Ok(curve)
    })
}
// end

fn main() -> Outcome {
    let folder = tempfile::tempdir()?;
    write_phantoms(folder.path(), 1, 60)?;
    let experiment = Experiment::parse(EXPERIMENT)?;
    let store = folder.path().join("images.store");
    let data = TrainingData::from_folder(&DataFolder::new(folder.path()), &experiment, store)?;
    let card = ModelCard::new(&experiment.variant("bce")?, data.labels())?;
    let network = Classifier::new(&card, experiment.seed, &Device::Cpu)?;
    let (pipeline, loss) = (experiment.pipeline()?, Bce);
    dry_pass(&network, &card, &data, &pipeline, &loss)?;
    let loader = Loader::new(&data, &pipeline, 8, LastBatch::Drop, 0, &Device::Cpu)?;
    let curve = find(&network, &loss, &loader)?;

    // Five steps against the five before: single batches are noisy.
    let mean = |steps: &[(f64, f32)]| steps.iter().map(|(_, loss)| loss).sum::<f32>() / 5.;
    let falls = curve
        .windows(10)
        .map(|steps| (steps[5].0, mean(&steps[..5]) - mean(&steps[5..])));
    let fastest = falls.max_by(|a, b| a.1.total_cmp(&b.1));
    let (rate, fall) = fastest.ok_or("too few steps")?;
    println!("the loss falls fastest, by {fall:.3}, at a learning rate of {rate:.1e}");
    assert!(fall > 0. && curve.len() == 60);
    Ok(())
}
