//! Further transforms: alone, together, and what they must not disturb.

#![expect(clippy::unwrap_used, reason = "a test stops at what it cannot read")]

use cxr_augment::{
    Affine, AugmentError, Augmentation, BrightnessContrast, GaussianNoise, GrayImageRef, KeyedRng,
    Normalization, Pipeline, RandAugment, RandomErasing, RandomResizedCrop, Scaling,
    StandardTransform, Transform, Translation,
};

const N_PIXELS: usize = 48 * 48;

/// No flip, no rotation, no room for the crop: what changes is the transform's doing.
fn still() -> Augmentation {
    Augmentation::new(0.0, 0.0, 48, 48).unwrap()
}

/// Grey levels as they are: mean 0 and deviation 1/255.
fn plain() -> Normalization {
    Normalization::new([0.0; 3], [1.0 / 255.0; 3]).unwrap()
}

fn pixels() -> Vec<u8> {
    (0..N_PIXELS)
        .map(|at| (60 + at % 48 * 2 + at / 48) as u8)
        .collect()
}

fn run(pipeline: &Pipeline, image_name: &str) -> Vec<f32> {
    let pixels = pixels();
    let image = GrayImageRef::square(&pixels, 48).unwrap();
    let mut output = vec![f32::NAN; 3 * N_PIXELS];
    pipeline
        .apply(1, 2, image_name, image, &plain(), &mut output)
        .unwrap();
    for channel in output.chunks(N_PIXELS).skip(1) {
        assert_eq!(channel, &output[..N_PIXELS], "the channels are equal");
    }
    output.truncate(N_PIXELS);
    output
}

fn with(transform: impl Transform + 'static) -> Pipeline {
    Pipeline::new(still()).with(transform).unwrap()
}

/// A transform that does nothing but force the two-pass path.
struct Nothing;

impl Transform for Nothing {
    fn name(&self) -> &str {
        "nothing"
    }
}

#[test]
fn an_idle_transform_changes_no_bit() {
    let pixels: Vec<u8> = (0..256 * 256_usize)
        .map(|at| (at * at / 7 % 256) as u8)
        .collect();
    let image = GrayImageRef::square(&pixels, 256).unwrap();
    let augmentation = Augmentation::default();
    let idle = Pipeline::new(augmentation).with(Nothing).unwrap();
    for epoch in 0..4 {
        let (mut fused, mut staged) = (vec![0.0; 3 * 224 * 224], vec![1.0; 3 * 224 * 224]);
        let draw = augmentation.draw(9, epoch, "a.png");
        augmentation
            .apply(&draw, image, &Normalization::IMAGENET, &mut fused)
            .unwrap();
        idle.apply(
            9,
            epoch,
            "a.png",
            image,
            &Normalization::IMAGENET,
            &mut staged,
        )
        .unwrap();
        assert_eq!(fused, staged);
    }
}

#[test]
fn a_translation_shows_the_moved_image() {
    let pipeline = with(Translation::new(0.25).unwrap());
    let mut rng = KeyedRng::new("augment/translation", 1, 2, "a");
    let (dx, dy) = (
        48.0 * rng.uniform(-0.25, 0.25),
        48.0 * rng.uniform(-0.25, 0.25),
    );
    let output = run(&pipeline, "a");
    // The image is a plane, so bilinear interpolation inside it is exact.
    let (row, column) = (24.0, 24.0);
    let expected = 60.0 + 2.0 * (column - dx) + (row - dy);
    assert!(
        (f64::from(output[24 * 48 + 24]) - expected).abs() < 1e-2,
        "{dx} {dy}"
    );
}

#[test]
fn scaling_keeps_the_centre_and_stretches_the_rest() {
    let output = run(&with(Scaling::new(1.25, 1.25).unwrap()), "a");
    for (row, column) in [(24, 24), (10, 30), (47, 0)] {
        let source = |at: usize| 23.5 + (at as f64 - 23.5) / 1.25;
        let expected = 60.0 + 2.0 * source(column) + source(row);
        assert!((f64::from(output[row * 48 + column]) - expected).abs() < 1e-2);
    }
}

#[test]
fn brightness_moves_the_mean_and_contrast_keeps_it() {
    let mean = |values: &[f32]| {
        values.iter().map(|&value| f64::from(value)).sum::<f64>() / values.len() as f64
    };
    let spread = |values: &[f32]| values[N_PIXELS - 1] - values[0];
    let original: Vec<f32> = pixels().into_iter().map(f32::from).collect();
    let brighter = run(&with(BrightnessContrast::new(0.1, 0.0).unwrap()), "a");
    let shift = mean(&brighter) - mean(&original);
    assert!(shift.abs() > 0.1 && shift.abs() <= 25.5, "{shift}");
    assert!((spread(&brighter) - spread(&original)).abs() < 1e-3);
    let contrast = run(&with(BrightnessContrast::new(0.0, 0.3).unwrap()), "a");
    assert!((mean(&contrast) - mean(&original)).abs() < 1e-3);
    let factor = spread(&contrast) / spread(&original);
    assert!(
        (0.7..=1.3).contains(&factor) && (factor - 1.0).abs() > 1e-3,
        "{factor}"
    );
}

#[test]
fn noise_is_normal_and_differs_by_image_and_epoch() {
    let original: Vec<f32> = pixels().into_iter().map(f32::from).collect();
    let pipeline = with(GaussianNoise::new(0.05).unwrap());
    let noise: Vec<f32> = run(&pipeline, "a")
        .iter()
        .zip(&original)
        .map(|(a, b)| a - b)
        .collect();
    let std = 255.0 * KeyedRng::new("augment/gaussian-noise", 1, 2, "a").uniform(0.0, 0.05);
    let n_pixels = N_PIXELS as f64;
    let mean = noise.iter().map(|&value| f64::from(value)).sum::<f64>() / n_pixels;
    let variance = noise
        .iter()
        .map(|&value| f64::from(value).powi(2))
        .sum::<f64>()
        / n_pixels;
    assert!(mean.abs() < 5.0 * std / n_pixels.sqrt());
    assert!(
        (variance / (std * std) - 1.0).abs() < 5.0 * (2.0 / n_pixels).sqrt(),
        "{variance} {std}"
    );
    assert_ne!(run(&pipeline, "a"), run(&pipeline, "b"));
    assert_eq!(run(&pipeline, "a"), run(&pipeline, "a"));
}

#[test]
fn erasing_paints_one_rectangle_inside_the_image_when_it_is_its_turn() {
    let original: Vec<f32> = pixels().into_iter().map(f32::from).collect();
    let pipeline = with(RandomErasing::new(0.5, 0.02, 0.2, 3.0).unwrap());
    let mut n_erased = 0;
    for number in 0..200 {
        let output = run(&pipeline, &number.to_string());
        let changed: Vec<usize> = (0..N_PIXELS)
            .filter(|&at| (output[at] - original[at]).abs() > 0.01)
            .collect();
        let Some(&first) = changed.first() else {
            continue;
        };
        n_erased += 1;
        let columns = changed.iter().map(|at| at % 48);
        let width = columns.clone().max().unwrap() - columns.min().unwrap() + 1;
        let height = changed[changed.len() - 1] / 48 - first / 48 + 1;
        // A pixel that had the mean grey already does not count as changed.
        assert!(changed.len() <= width * height && changed.len() * 10 >= width * height * 9);
        assert!(
            (0.01..0.22).contains(&((width * height) as f64 / N_PIXELS as f64)),
            "{width}×{height}"
        );
        assert!(changed.iter().all(|&at| output[at] == output[first]));
    }
    assert!((60..140).contains(&n_erased), "{n_erased} of 200");
}

#[test]
fn transforms_draw_apart_and_results_stay_grey_levels() {
    let noise = GaussianNoise::new(1.0).unwrap();
    let alone = run(&with(noise), "a");
    let behind = Pipeline::new(still())
        .with(Nothing)
        .unwrap()
        .with(noise)
        .unwrap();
    assert_eq!(
        run(&behind, "a"),
        alone,
        "a transform before it changed its draws"
    );
    assert!(alone.iter().all(|gray| (0.0..255.001).contains(gray)));
    assert!(
        alone.contains(&0.0) && alone.iter().any(|&gray| gray > 254.999),
        "strong noise reaches both ends"
    );
    let twice = Pipeline::new(still()).with(noise).unwrap().with(noise);
    assert!(matches!(twice, Err(AugmentError::TransformTwice(name)) if name == "gaussian-noise"));
}

#[test]
fn a_transform_that_loses_the_image_is_an_error() {
    struct Away;
    impl Transform for Away {
        fn name(&self) -> &str {
            "away"
        }
        fn map(&self, _: &mut KeyedRng, _: usize, _: usize) -> Affine {
            Affine::translation(1e6, 0.0)
        }
    }
    let pixels = pixels();
    let image = GrayImageRef::square(&pixels, 48).unwrap();
    let mut output = vec![0.0; 3 * N_PIXELS];
    let refused = with(Away).apply(0, 0, "a", image, &plain(), &mut output);
    assert!(matches!(refused, Err(AugmentError::MapTooFar { .. })));
}

#[test]
fn ranges_are_checked_in_code_and_in_files() {
    assert!(Translation::new(0.6).is_err() && Translation::new(f64::NAN).is_err());
    assert!(Scaling::new(1.1, 0.9).is_err() && Scaling::new(0.1, 1.0).is_err());
    assert!(
        BrightnessContrast::new(-0.1, 0.0).is_err() && BrightnessContrast::new(0.0, 1.1).is_err()
    );
    assert!(GaussianNoise::new(2.0).is_err());
    assert!(
        RandomErasing::new(0.5, 0.0, 0.1, 2.0).is_err()
            && RandomErasing::new(0.5, 0.2, 0.1, 2.0).is_err()
    );
    let read = |text: &str| serde_json::from_str::<StandardTransform>(text);
    let scaling = read("{\"scaling\": {\"smallest\": 0.9, \"largest\": 1.1}}").unwrap();
    assert_eq!(
        scaling,
        StandardTransform::Scaling(Scaling::new(0.9, 1.1).unwrap())
    );
    assert_eq!(
        read(&serde_json::to_string(&scaling).unwrap()).unwrap(),
        scaling
    );
    for bad in [
        "{\"scaling\": {\"smallest\": 1.2, \"largest\": 1.1}}",
        "{\"scaling\": {\"smallest\": 0.9, \"largest\": 1.1, \"step\": 1}}",
        "{\"scaling\": {\"smallest\": 0.9}}",
        "{\"blur\": {}}",
    ] {
        assert!(read(bad).is_err(), "{bad} was accepted");
    }
}

/// What the output shows of an image whose grey is its column: the resize of the drawn part.
#[test]
fn a_crop_of_random_size_takes_the_place_of_the_pipeline_s() {
    let augmentation = Augmentation::new(0.0, 0.0, 48, 24).unwrap();
    let crop = RandomResizedCrop::new(0.2, 0.8, 4.0 / 3.0).unwrap();
    let pipeline = Pipeline::new(augmentation).with(crop).unwrap();
    let pixels: Vec<u8> = (0..N_PIXELS).map(|at| (at % 48) as u8).collect();
    let image = GrayImageRef::square(&pixels, 48).unwrap();
    let mut parts = std::collections::BTreeSet::new();
    for name in 0..20 {
        let name = format!("{name}.png");
        let mut output = vec![f32::NAN; 3 * 24 * 24];
        (pipeline.apply(1, 2, &name, image, &plain(), &mut output)).unwrap();
        let mut rng = KeyedRng::new("augment/random-resized-crop", 1, 2, &name);
        let [left, top, width, height] = crop.part(&mut rng, 48, 48);
        assert!(left + width <= 48 && top + height <= 48);
        let share = (width * height) as f64 / N_PIXELS as f64;
        assert!((0.17..0.84).contains(&share), "{share}");
        for column in 0..24 {
            let x = (column as f64 + 0.5) * width as f64 / 24.0 - 0.5 + left as f64;
            let expected = x.clamp(0.0, 47.0);
            for row in [0, 11, 23] {
                let got = f64::from(output[row * 24 + column]);
                assert!((got - expected).abs() < 1e-3, "{got}, expected {expected}");
            }
        }
        parts.insert([left, top, width, height]);
    }
    assert!(parts.len() > 15, "{parts:?}");
}

#[test]
fn rand_augment_and_crops_are_read_from_experiment_files() {
    let text = r#"[
        {"rand-augment": {"operations": 3, "magnitude": 12}},
        {"random-resized-crop": {"min_area": 0.08, "max_area": 1.0}}
    ]"#;
    let transforms: Vec<StandardTransform> = serde_json::from_str(text).unwrap();
    let expected = [
        StandardTransform::RandAugment(RandAugment::new(3, 12).unwrap()),
        StandardTransform::RandomResizedCrop(RandomResizedCrop::new(0.08, 1.0, 4.0 / 3.0).unwrap()),
    ];
    assert_eq!(transforms, expected);
    let wrong = r#"[{"rand-augment": {"magnitude": 31}}]"#;
    let error = serde_json::from_str::<Vec<StandardTransform>>(wrong).unwrap_err();
    assert!(error.to_string().contains("magnitude"), "{error}");
}
