//! An experiment on a folder, trained, evaluated and reported by library calls alone.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

mod phantoms;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use candle_core::{D, Device, Tensor};
use cxr_augment::ViewSet;
use cxr_dataset::{DataFolder, Part};
use cxr_ops::{Init, Linear};
use cxr_report::report::Report;
use cxr_run::{Finish, RunFolder};
use cxr_train::{
    Experiment, Granularity, Head, MultiLabelLoss, OwnParts, Phase, TrainError, Trainer,
    TrainingData, known, load_model, predict,
};
use phantoms::StopAfter;

const EXPERIMENT: &str = r#"
name = "library"
[data]
validation = { patient-fold = { fold = 0, of = 3 } }
[model]
backbone = { densenet = { stem_channels = 8, growth_rate = 4, block_layers = [1, 2] } }
head = { linear = {} }
[augmentation]
image_size = 64
crop_size = 56
[training]
batch_size = 6
ema_decay = 0.5
[[training.stages]]
name = "head"
epochs = 1
frozen = ["features."]
schedule = { constant = { learning_rate = 1e-3 } }
[[training.stages]]
name = "all"
epochs = 1
schedule = { constant = { learning_rate = 1e-3 } }
[[variants]]
name = "bce"
loss = "bce"
[[variants]]
name = "fzlpr-0.2"
loss = "fzlpr"
tau = 0.2
"#;

fn data(folder: &Path, experiment: &Experiment) -> TrainingData {
    let images = folder.join("phantoms");
    phantoms::write(&images, 60);
    let store = folder.join("runs/images-64.store");
    TrainingData::from_folder(&DataFolder::new(images), experiment, store).unwrap()
}

#[test]
fn a_run_that_was_trained_by_library_calls_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let experiment = Experiment::parse(EXPERIMENT).unwrap();
    let data = data(folder.path(), &experiment);
    assert!(data.is_phantom() && data.seconds_to_prepare() > 0.);
    let runs = folder.path().join("runs");
    let never = AtomicBool::new(false);
    for name in ["bce", "fzlpr-0.2"] {
        let variant = experiment.variant(name).unwrap();
        let run = RunFolder::open(runs.join(name)).unwrap();
        let mut trainer = Trainer::new(&variant, &data, &run, &Device::Cpu).unwrap();
        let early = trainer.evaluate(&mut (), &never);
        assert!(matches!(early, Err(TrainError::NotTrained { .. })));
        trainer
            .train(&mut trainer.event_log().unwrap(), &never)
            .unwrap();
        assert_eq!(run.finish().unwrap(), Finish::Unfinished);
        // Stopped, it leaves no file behind.
        let stopped = trainer.evaluate(&mut (), &AtomicBool::new(true)).unwrap();
        assert_eq!(stopped, None);
        assert_eq!(run.finish().unwrap(), Finish::Unfinished);
        assert!(!run.model_file().exists() && !run.labels_file(Part::Test).exists());

        let metrics = trainer.evaluate(&mut (), &never).unwrap().unwrap();
        assert_eq!(run.finish().unwrap(), Finish::Finished);
        assert_eq!(run.metrics().unwrap(), metrics);
        assert_eq!((metrics.history.len(), metrics.stages.len()), (2, 2));
        // The predictions are those of the network in the file.
        let (card, classifier) = load_model(&run.model_file(), &Device::Cpu).unwrap();
        let again = predict(
            &classifier,
            &card,
            &data,
            Part::Test,
            ViewSet::HorizontalFlipZoom,
            5,
            &mut (),
            &never,
        );
        let again = again.unwrap().unwrap();
        for views in ViewSet::ALL {
            let written = run.predictions(Part::Test, views).unwrap().unwrap();
            let expected = again.logits(views).unwrap();
            let columns = written.columns().len();
            for (at, column) in written.columns().iter().enumerate() {
                let found: Vec<f32> = column.scores.iter().map(|&score| score as f32).collect();
                let expected: Vec<f32> =
                    expected.iter().skip(at).step_by(columns).copied().collect();
                assert_eq!(found, expected, "{views} {}", column.label);
            }
            let mean = again.macro_auc(views, data.index()).unwrap().unwrap();
            let summary = metrics.summary(Part::Test, views).unwrap();
            assert!((summary.means.auc.unwrap() - mean.value).abs() < 1e-12);
        }
    }
    let report = Report::read(&runs).unwrap();
    let variants: Vec<&str> = report.runs.iter().map(|run| &*run.variant).collect();
    assert_eq!(variants, ["bce", "fzlpr-0.2"]);
    assert!(report.markdown().contains("**Phantom data.**"));
    let written = report.write(&runs).unwrap();
    assert!(written.contains(&runs.join("report.html")));
    assert!(written.contains(&runs.join("tables/table2.csv")));
}

/// A dense layer on the maximum of each map.
struct MaxHead(Linear);

impl Head for MaxHead {
    fn forward_t(&self, maps: &Tensor, phase: Phase<'_>) -> candle_core::Result<Tensor> {
        let maxima = maps.max(D::Minus1)?.max(D::Minus1)?;
        self.0.forward_t(&maxima, phase)
    }
}

/// Squared error of the probabilities.
#[derive(Debug)]
struct Brier;

impl MultiLabelLoss for Brier {
    fn forward(&self, z: &Tensor, y: &Tensor, m: Option<&Tensor>) -> candle_core::Result<Tensor> {
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

#[test]
fn a_run_with_parts_of_ones_own_is_evaluated_after_a_resume_and_reported_with_its_loss() {
    let folder = tempfile::tempdir().unwrap();
    let experiment = Experiment::parse(EXPERIMENT).unwrap();
    let data = data(folder.path(), &experiment);
    let variant = experiment.variant("bce").unwrap();
    let own = || {
        let parts = OwnParts::new().loss(Brier);
        parts.head("max", |(maps, ..), labels, path| {
            Linear::new(maps, labels, Init::GlorotUniform, path).map(MaxHead)
        })
    };
    let never = AtomicBool::new(false);
    let evaluated = |name: &str, steps: Option<usize>| {
        let run = RunFolder::open(folder.path().join("own").join(name)).unwrap();
        let mut trainer = Trainer::with_parts(&variant, &data, &run, &Device::Cpu, &own()).unwrap();
        if let Some(steps) = steps {
            let stop = AtomicBool::new(false);
            let mut observer = StopAfter {
                left: AtomicUsize::new(steps),
                stop: &stop,
            };
            trainer.train(&mut observer, &stop).unwrap();
            trainer = Trainer::with_parts(&variant, &data, &run, &Device::Cpu, &own()).unwrap();
        }
        trainer.train(&mut (), &never).unwrap();
        let metrics = trainer.evaluate(&mut (), &never).unwrap().unwrap();
        // What was evaluated is the average, and training has its own weights again.
        let again = trainer.evaluate(&mut (), &never).unwrap().unwrap();
        assert_eq!(metrics.files, again.files);
        metrics.files
    };
    assert_eq!(evaluated("whole", None), evaluated("resumed", Some(3)));

    let report = Report::read(&folder.path().join("own")).unwrap();
    for run in &report.runs {
        assert_eq!(run.loss, "brier");
        assert_eq!(run.custom_components, ["head `max`", "loss `brier`"]);
        assert_eq!(run.loss_curve.len(), 241);
        for [logit, loss] in &run.loss_curve {
            let expected = (1. / (1. + (-logit).exp()) - 1.).powi(2);
            assert!((loss - expected).abs() < 1e-6, "{logit}: {loss}");
        }
    }
    let page = report.markdown();
    assert!(
        page.contains("`bce` has head `max`, loss `brier`"),
        "{page}"
    );
    assert!(page.contains("by the program that trained them") && !page.contains("xtask reproduce"));
    let figures = cxr_report::figures::figures(&report);
    let figure = figures.iter().find(|figure| figure.name == "figure1");
    let figure = figure.unwrap();
    assert!(!figure.to_svg().contains("FZLPR"));
    assert!(figure.to_svg().contains("aria-label=\"brier\""));
    assert!(
        figure
            .caption
            .contains("as the runs that trained with it computed it")
    );
}
