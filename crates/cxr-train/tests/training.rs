//! The course of a run: same bits however it is cut, and what it refuses.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

mod phantoms;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use candle_core::Device;
use cxr_augment::ViewSet;
use cxr_dataset::Part;
use cxr_train::{
    Experiment, RunError, RunFolder, TrainError, TrainOutcome, Trainer, TrainingData,
    check_experiment, load_model, predict,
};

use phantoms::{StopAfter, data};

const EXPERIMENT: &str = r#"
name = "tiny"
seed = 3

[model]
backbone = { densenet = { stem_channels = 8, growth_rate = 4, block_layers = [1, 2] } }
head = { top-network = { conv_channels = [8, 8], hidden = 8 } }

[augmentation]
image_size = 64
crop_size = 56

[training]
batch_size = 6
checkpoint_steps = 2

[[training.stages]]
name = "top network"
epochs = 1
frozen = ["features."]
schedule = { constant = { learning_rate = 1e-3 } }

[[training.stages]]
name = "all layers"
epochs = 2
schedule = { cosine = { learning_rate = 1e-3, min_learning_rate = 1e-5 } }

[[variants]]
name = "fzlpr-0.2"
loss = "fzlpr"
tau = 0.2

[[variants]]
name = "hbm"
loss = "hbm"
"#;

/// Trains in `folder`, stopping and starting again after every `steps` steps; returns the model's bytes.
fn train(data: &TrainingData, variant: &str, folder: &Path, steps: usize) -> Vec<u8> {
    let experiment = Experiment::parse(EXPERIMENT).unwrap();
    let variant = experiment.variant(variant).unwrap();
    let mut processes = 0;
    loop {
        processes += 1;
        let folder = RunFolder::open(folder).unwrap();
        let mut trainer = Trainer::new(&variant, data, &folder, &Device::Cpu).unwrap();
        let stop = AtomicBool::new(false);
        let mut observer = StopAfter {
            left: AtomicUsize::new(steps),
            stop: &stop,
        };
        match trainer.run(&mut observer, &stop).unwrap() {
            TrainOutcome::Finished { history, .. } => {
                assert_eq!(history.len(), 3);
                assert!(steps > 100 || processes > 2, "the run was not cut");
                return std::fs::read(folder.model_file()).unwrap();
            }
            TrainOutcome::Stopped(_) => assert!(processes < 50, "the run does not get on"),
        }
    }
}

#[test]
fn a_run_is_the_same_bits_however_often_it_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    // 22 images in batches of 6: four steps an epoch, twelve in all.
    let whole = train(&data, "fzlpr-0.2", &folder.path().join("whole"), usize::MAX);
    for steps in [1, 3, 5] {
        let cut = train(
            &data,
            "fzlpr-0.2",
            &folder.path().join(format!("cut-{steps}")),
            steps,
        );
        assert!(cut == whole, "stopped after every {steps} steps");
    }
}

#[test]
fn a_run_is_the_same_bits_for_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let with_threads = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let run = folder.path().join(format!("threads-{threads}"));
            train(&data, "fzlpr-0.2", &run, usize::MAX)
        })
    };
    let one = with_threads(1);
    assert!(one == with_threads(2));
    assert!(one == with_threads(4));
}

#[test]
fn a_losss_own_parameters_are_trained_and_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let whole = train(&data, "hbm", &folder.path().join("whole"), usize::MAX);
    assert!(whole == train(&data, "hbm", &folder.path().join("cut"), 3));
}

#[test]
fn the_saved_model_predicts_what_the_trainer_does() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let run = folder.path().join("run");
    train(&data, "fzlpr-0.2", &run, usize::MAX);
    let experiment = Experiment::parse(EXPERIMENT).unwrap();
    let variant = experiment.variant("fzlpr-0.2").unwrap();
    let folder = RunFolder::open(&run).unwrap();
    let trainer = Trainer::new(&variant, &data, &folder, &Device::Cpu).unwrap();
    let (card, classifier) = load_model(&folder.model_file(), &Device::Cpu).unwrap();
    let predict = |classifier, batch_size| {
        let (views, stop) = (ViewSet::HorizontalFlipZoom, AtomicBool::new(false));
        predict(
            classifier,
            &card,
            &data,
            Part::Test,
            views,
            batch_size,
            &mut (),
            &stop,
        )
        .unwrap()
        .unwrap()
    };
    let prediction = predict(&classifier, 5);
    assert_eq!(prediction, predict(trainer.classifier(), 12));
    assert_eq!(prediction.names(), data.split().test());
    // The four views differ, and so do their means.
    let logits = |set| prediction.logits(set).unwrap();
    assert_ne!(logits(ViewSet::Single), logits(ViewSet::HorizontalFlip));
    assert_ne!(
        logits(ViewSet::HorizontalFlip),
        logits(ViewSet::HorizontalFlipZoom)
    );
    prediction
        .write(
            ViewSet::Single,
            &folder.predictions_file(Part::Test, ViewSet::Single),
        )
        .unwrap();
    let table = std::fs::read_to_string(run.join("predictions-test.csv")).unwrap();
    assert!(table.starts_with("Image Index,logit_Atelectasis,logit_Cardiomegaly,"));
    assert_eq!(table.lines().count(), 1 + 12);
}

#[test]
fn frozen_layers_and_their_statistics_stay_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let text = EXPERIMENT.replace("epochs = 2", "epochs = 1");
    let experiment = Experiment::parse(&text).unwrap();
    let variant = experiment.variant("fzlpr-0.2").unwrap();
    let run = RunFolder::open(folder.path().join("run")).unwrap();
    let mut trainer = Trainer::new(&variant, &data, &run, &Device::Cpu).unwrap();
    let values = |trainer: &Trainer<'_>, prefix: &str| -> Vec<Vec<f32>> {
        let tensors = trainer
            .classifier()
            .parameters()
            .tensors(prefix)
            .into_values();
        tensors
            .map(|t| t.flatten_all().unwrap().to_vec1().unwrap())
            .collect()
    };
    let (features, top) = (values(&trainer, "features."), values(&trainer, "top."));
    // Four steps are the whole first stage: stop before the second.
    let stop = AtomicBool::new(false);
    let mut observer = StopAfter {
        left: AtomicUsize::new(4),
        stop: &stop,
    };
    trainer.run(&mut observer, &stop).unwrap();
    assert_eq!(features, values(&trainer, "features."));
    assert_ne!(top, values(&trainer, "top."));
    trainer.run(&mut (), &AtomicBool::new(false)).unwrap();
    for (before, after) in features.iter().zip(values(&trainer, "features.")) {
        assert_ne!(*before, after, "every tensor of the backbone is trained");
    }
}

#[test]
fn a_folder_of_another_run_or_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let path = folder.path().join("run");
    train(&data, "fzlpr-0.2", &path, usize::MAX);
    let other = Experiment::parse(&EXPERIMENT.replace("tau = 0.2", "tau = 0.4")).unwrap();
    let variant = other.variant("fzlpr-0.2").unwrap();
    let run = RunFolder::open(&path).unwrap();
    let error = Trainer::new(&variant, &data, &run, &Device::Cpu)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("`tau = 0.2`") && error.contains("`tau = 0.4`"),
        "{error}"
    );
    assert!(matches!(
        RunFolder::open(&path),
        Err(RunError::InUse { .. })
    ));
}

#[test]
fn a_damaged_checkpoint_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let path = folder.path().join("run");
    train(&data, "fzlpr-0.2", &path, usize::MAX);
    let checkpoint = path.join("checkpoints/latest.safetensors");
    let bytes = std::fs::read(&checkpoint).unwrap();
    std::fs::write(&checkpoint, &bytes[..bytes.len() / 2]).unwrap();
    let experiment = Experiment::parse(EXPERIMENT).unwrap();
    let variant = experiment.variant("fzlpr-0.2").unwrap();
    let run = RunFolder::open(&path).unwrap();
    let error = Trainer::new(&variant, &data, &run, &Device::Cpu)
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .contains("latest.safetensors` is not a usable checkpoint"),
        "{error}"
    );
}

#[test]
fn a_last_batch_of_one_image_is_refused_before_training() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let images = data.split().train().len();
    let text = EXPERIMENT.replace("batch_size = 6", &format!("batch_size = {}", images - 1));
    let experiment = Experiment::parse(&text).unwrap();
    let variant = experiment.variant("fzlpr-0.2").unwrap();
    let run = RunFolder::open(folder.path().join("run")).unwrap();
    let error = Trainer::new(&variant, &data, &run, &Device::Cpu)
        .err()
        .unwrap();
    assert!(
        matches!(error, TrainError::LastBatchOfOne { .. }),
        "{error}"
    );
}

#[test]
fn mistakes_in_an_experiment_file_are_named() {
    let problem = |from: &str, to: &str| {
        assert!(EXPERIMENT.contains(from), "{from}");
        match Experiment::parse(&EXPERIMENT.replacen(from, to, 1)) {
            Err(error) => error.to_string(),
            Ok(experiment) => check_experiment(&experiment).unwrap_err().to_string(),
        }
    };
    for (from, to, expected) in [
        (
            "batch_size = 6",
            "batchsize = 6",
            "unknown field `batchsize`",
        ),
        ("seed = 3", "sede = 3", "unknown field `sede`"),
        (
            "batch_size = 6",
            "batch_size = 1",
            "`training.batch_size` of the experiment must be at least 2, got 1",
        ),
        ("epochs = 1", "epochs = 0", "`training.stages[0].epochs`"),
        ("tau = 0.2", "tua = 0.2", "tua"),
        ("tau = 0.2", "tau = 0.0", "tau"),
        ("loss = \"fzlpr\"", "loss = \"zpr\"", "zpr"),
        (
            "growth_rate = 4",
            "growth_rate = 0",
            "`model.backbone.densenet.growth_rate` of the experiment must be at least 1",
        ),
        (
            "growth_rate = 4",
            "growth_rate = 4, groth = 1",
            "`model.backbone.densenet` of the experiment must be among `stem_channels`, `growth_rate`,",
        ),
        (
            "growth_rate = 4",
            "growth_rate = 4.5",
            "`model.backbone.densenet.growth_rate` of the experiment must be a whole number",
        ),
        (
            "growth_rate = 4",
            "growth_rate = 4, growth = 4",
            "`model.backbone.densenet.growth_rate` of the experiment must be given once",
        ),
        (
            "{ densenet = {",
            "{ resnet = {",
            "`model.backbone` of the experiment must be one of `densenet121`,",
        ),
        (
            "{ top-network = {",
            "{ attention = {",
            "`model.head` of the experiment must be one of `top-network`, `linear`, `dense`, `transition`, `csra`, `cral`, got `attention`",
        ),
        ("crop_size = 56", "crop_size = 65", "crop_size"),
        ("name = \"tiny\"", "name = \"../tiny\"", "a folder name"),
        (
            "name = \"hbm\"",
            "name = \"fzlpr-0.2\"",
            "unlike the others",
        ),
        (
            "rate = 1e-3 } }",
            "rate = -1.0 } }",
            "a learning rate above 0",
        ),
        ("constant", "constnat", "constnat"),
        ("hidden = 8", "hidden = 8, dropout = 1.0", "in [0, 1)"),
        ("epochs = 1", "epochs = 4611686018427387904", "1 to 1000000"),
        ("hidden = 8", "hidden = 1000000000000000", "1 to 65536"),
        (
            "hidden = 8",
            "hidden = 8, norm_momentum = 3.0",
            "`model.head.top-network.norm_momentum`",
        ),
        (
            "hidden = 8",
            "hidden = 8, norm_eps = nan",
            "`model.head.top-network.norm_eps` of the experiment must be a finite number",
        ),
        ("growth_rate = 4", "growth_rate = 70000", "at most 65536"),
        (
            "growth_rate = 4",
            "growth_rate = 4, norm_momentum = -0.1",
            "`model.backbone.densenet.norm_momentum`",
        ),
        (
            "block_layers = [1, 2]",
            "block_layers = [1, 5000]",
            "at most 16 blocks and 4096 layers",
        ),
    ] {
        let found = problem(from, to);
        assert!(found.contains(expected), "{to}: {found}");
    }
    let experiment = Experiment::parse(EXPERIMENT).unwrap();
    let error = experiment.variant("bce").unwrap_err().to_string();
    assert!(error.contains("it has `fzlpr-0.2`, `hbm`"), "{error}");
}

#[test]
fn a_misspelt_frozen_prefix_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let text = EXPERIMENT.replace("[\"features.\"]", "[\"backbone.\"]");
    let experiment = Experiment::parse(&text).unwrap();
    let variant = experiment.variant("hbm").unwrap();
    let run = RunFolder::open(folder.path().join("run")).unwrap();
    let error = Trainer::new(&variant, &data, &run, &Device::Cpu)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("training.stages[0].frozen") && error.contains("backbone."),
        "{error}"
    );
}

#[test]
fn the_written_experiment_reads_back_complete() {
    let experiment = Experiment::parse(EXPERIMENT).unwrap();
    let variant = experiment.variant("fzlpr-0.2").unwrap();
    let text = variant.to_toml().unwrap();
    assert!(
        text.contains("weight_decay = 0.004") && text.contains("validation = \"paper\""),
        "{text}"
    );
    let again = Experiment::parse(&text).unwrap();
    assert_eq!(again.variants.len(), 1);
    assert_eq!(again.variant("fzlpr-0.2").unwrap(), variant);
}
