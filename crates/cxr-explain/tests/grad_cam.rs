//! Grad-CAM where the answer is known in closed form.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use candle_core::{Device, Result, Tensor};
use cxr_backbone::Backbone;
use cxr_dataset::{FindingBox, ImageName};
use cxr_explain::{CamMethod, ExplainError, FeatureMaps, HeatMap, OverlayStyle, Region, overlay};
use cxr_model::Classifier;
use cxr_ops::{Init, Linear, Parameters, Phase};
use cxr_top::{Head, LinearHead, LinearHeadConfig};

/// The image itself as feature maps.
struct Identity;

impl Backbone for Identity {
    fn forward_t(&self, images: &Tensor, _phase: Phase<'_>) -> Result<Tensor> {
        Ok(images.clone())
    }

    fn feature_shape(&self, height: usize, width: usize) -> (usize, usize, usize) {
        (3, height, width)
    }
}

/// Mean over positions, then a dense layer: the network for which Grad-CAM is CAM (Selvaraju et
/// al. 2017, section 3.1).
struct MeanAndDense(Linear);

impl Head for MeanAndDense {
    fn forward_t(&self, features: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        self.0.forward_t(&features.mean((2, 3))?, phase)
    }
}

fn grad_cam(
    classifier: &Classifier,
    image: &Tensor,
    label: usize,
    layer: Option<&str>,
) -> std::result::Result<HeatMap, ExplainError> {
    let maps = match layer {
        None => FeatureMaps::new(classifier, image)?,
        Some(layer) => FeatureMaps::of_layer(classifier, image, layer)?,
    };
    maps.heat_map(label, CamMethod::GradCam)
}

/// Labels 0 and 1 read the maps with weights (2, −1, 0) and (−1, −1, −1).
fn classifier() -> Classifier {
    let parameters = Parameters::new(0, &Device::Cpu);
    let head = Linear::new(3, 2, Init::Zeros, &parameters.root().pp("top")).unwrap();
    let weight = Tensor::new(&[[2f32, -1., 0.], [-1., -1., -1.]], &Device::Cpu).unwrap();
    let bias = Tensor::new(&[0f32, 0.], &Device::Cpu).unwrap();
    let values = [
        ("top.weight".to_owned(), weight),
        ("top.bias".to_owned(), bias),
    ];
    parameters.load("", &values.into_iter().collect()).unwrap();
    Classifier::from_parts(parameters, Box::new(Identity), Box::new(MeanAndDense(head)))
}

#[test]
fn with_a_mean_and_a_dense_layer_grad_cam_is_cam() {
    // Three maps of two rows and three columns.
    let maps: [[f32; 6]; 3] = [
        [0., 1., 2., 3., 4., 5.],
        [5., 0., 1., 9., 0., 2.],
        [7., 7., 7., 7., 7., 7.],
    ];
    let image = Tensor::from_vec(maps.concat(), (1, 3, 2, 3), &Device::Cpu).unwrap();
    let map = grad_cam(&classifier(), &image, 0, None).unwrap();
    assert_eq!((map.height(), map.width()), (2, 3));
    for (place, found) in map.values().iter().enumerate() {
        let expected = ((2. * maps[0][place] - maps[1][place]) / 6.).max(0.);
        assert!(
            (found - expected).abs() < 1e-6,
            "{place}: {found} for {expected}"
        );
    }
    let against = grad_cam(&classifier(), &image, 1, None).unwrap();
    assert_eq!(against.peak(), 0.);
    let everywhere = Region::new(0., 0., 1., 1.).unwrap();
    assert_eq!(
        (
            against.peak_is_in(&everywhere),
            against.overlap(&everywhere, 0.5)
        ),
        (None, None)
    );
}

/// The last layer's maps are the features, and an earlier one's are finer.
#[test]
fn a_heat_map_is_of_any_layer_that_has_a_name() {
    let parameters = Parameters::new(7, &Device::Cpu);
    let config = cxr_backbone::by_name("resnet18", &serde_json::Value::Null).unwrap();
    let backbone = config.build(&parameters.root().pp("features")).unwrap();
    let head = Linear::new(512, 2, Init::GlorotUniform, &parameters.root().pp("top")).unwrap();
    let classifier = Classifier::from_parts(parameters, backbone, Box::new(MeanAndDense(head)));
    assert_eq!(
        classifier.backbone().layers(),
        ["layer1", "layer2", "layer3", "layer4"]
    );
    let pixels = (0..3 * 64 * 96).map(|at| ((at * 7919) % 257) as f32 / 128. - 1.);
    let image = Tensor::from_vec(pixels.collect(), (1, 3, 64, 96), &Device::Cpu).unwrap();
    let map = |layer| grad_cam(&classifier, &image, 0, layer).unwrap();
    let (last, layer4, layer2) = (map(None), map(Some("layer4")), map(Some("layer2")));
    assert_eq!((layer4.height(), layer4.width()), (2, 3));
    assert_eq!((layer2.height(), layer2.width()), (8, 12));
    assert!(layer2.peak() > 0.);
    for (last, layer4) in last.values().iter().zip(layer4.values()) {
        assert!((last - layer4).abs() < 1e-5, "{last} and {layer4}");
    }
    let error = grad_cam(&classifier, &image, 0, Some("layer5")).unwrap_err();
    let text = std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string);
    assert!(text.contains("`layer4`"), "{text}");
}

#[test]
fn what_cannot_be_explained_is_an_error() {
    let two = Tensor::zeros((2, 3, 4, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
    let error = grad_cam(&classifier(), &two, 0, None).unwrap_err();
    assert!(matches!(error, ExplainError::OneImage { .. }), "{error}");
    let one = two.narrow(0, 0, 1).unwrap();
    let error = grad_cam(&classifier(), &one, 2, None).unwrap_err();
    assert!(
        matches!(
            error,
            ExplainError::Label {
                label: 2,
                labels: 2
            }
        ),
        "{error}"
    );
    assert!(HeatMap::new(1, 2, vec![1., f32::NAN]).is_err());
    assert!(HeatMap::new(2, 2, vec![1.; 3]).is_err());
    assert!(Region::new(0.5, 0., 0.6, 1.).is_err());
    assert!(Region::new(f64::NAN, 0., 0.5, 1.).is_err());
}

#[test]
fn a_heat_map_is_scored_against_a_region() {
    // The peak is the upper right cell of 2×2.
    let map = HeatMap::new(2, 2, vec![1., 4., 0., 2.]).unwrap();
    let right = Region::new(0.5, 0., 0.5, 1.).unwrap();
    let left = Region::new(0., 0., 0.5, 1.).unwrap();
    assert_eq!(map.peak_is_in(&right), Some(true));
    assert_eq!(map.peak_is_in(&left), Some(false));
    // At half the peak both right cells are hot: the region itself.
    assert_eq!(map.overlap(&right, 0.5), Some(1.));
    assert_eq!(map.overlap(&left, 0.5), Some(0.));
    // A quarter of the image shares half its area with the hot upper right cell.
    let middle = Region::new(0.25, 0., 0.5, 0.5).unwrap();
    let overlap = map.overlap(&middle, 0.9).unwrap();
    assert!((overlap - 1. / 3.).abs() < 1e-12, "{overlap}");
}

#[test]
fn resizing_keeps_constants_and_interpolates_between_centres() {
    let constant = HeatMap::new(3, 2, vec![2.5; 6]).unwrap().resized(7, 5);
    assert!(constant.values().iter().all(|&value| value == 2.5));
    let ramp = HeatMap::new(1, 2, vec![0., 1.]).unwrap().resized(1, 4);
    assert_eq!(ramp.values(), [0., 0.25, 0.75, 1.]);
}

#[test]
fn a_box_of_the_original_is_found_in_the_crop() {
    let finding = |x, y, width, height| FindingBox {
        name: ImageName::new("00000001_000.png").unwrap(),
        finding: "Mass".to_owned(),
        x,
        y,
        width,
        height,
        reader: None,
    };
    // 1024 pixels become 256, of which 16 … 240 are seen: 64 original pixels are cut off.
    let whole = Region::of_box(&finding(0., 0., 1024., 1024.), 1024., 256., 224.).unwrap();
    assert_eq!(whole, Region::new(0., 0., 1., 1.).unwrap());
    let centre = Region::of_box(&finding(512., 64., 448., 448.), 1024., 256., 224.).unwrap();
    assert_eq!(centre, Region::new(0.5, 0., 0.5, 0.5).unwrap());
    assert_eq!(
        Region::of_box(&finding(0., 0., 60., 1024.), 1024., 256., 224.),
        None
    );
}

/// What is explained is what is predicted: the same pixels, by the same way.
#[test]
fn an_image_is_explained_as_the_predictor_sees_it() {
    use cxr_model::{GrayImage, ModelCard, Predictor, View, ViewSet};
    let card = ModelCard::parse(
        r#"{"experiment": "tiny", "variant": "bce", "loss": "bce", "loss_parameters": {},
            "labels": ["A", "B", "C"], "image_size": 72, "crop_size": 64,
            "backbone": {"densenet": {"stem_channels": 8, "growth_rate": 4, "block_layers": [1, 1]}},
            "head": {"linear": {}}, "normalization_mean": [0.4, 0.5, 0.6],
            "normalization_std": [0.2, 0.3, 0.4], "logit_thresholds": [0.0, 0.0, 0.0]}"#,
    );
    let card = card.unwrap();
    let classifier = cxr_model::Classifier::new(&card, 3, &candle_core::Device::Cpu).unwrap();
    let predictor = Predictor::new(card, classifier).unwrap();
    let pixels = (0..90 * 100).map(|at| (at * 7 % 251) as u8).collect();
    let image = GrayImage::new(90, 100, pixels).unwrap();
    let prepared = predictor.prepare(&image).unwrap();
    let batch = predictor.batch(&[&prepared], View::Center).unwrap();
    let logits = predictor
        .classifier()
        .forward_t(&batch, cxr_model::Phase::Evaluate)
        .unwrap();
    let predicted = predictor.logits(&[&prepared], ViewSet::Single).unwrap();
    assert_eq!(logits.to_vec2::<f32>().unwrap(), predicted);
    for label in 0..3 {
        for method in CamMethod::ALL {
            let expected = FeatureMaps::new(predictor.classifier(), &batch).unwrap();
            let expected = expected.heat_map(label, method).unwrap();
            let found = cxr_explain::explain(&predictor, &prepared, label, method).unwrap();
            assert_eq!(found, expected);
        }
    }
    let other = Predictor::new(
        cxr_model::ModelCard {
            image_size: 80,
            ..predictor.card().clone()
        },
        cxr_model::Classifier::new(predictor.card(), 3, &candle_core::Device::Cpu).unwrap(),
    );
    let error = cxr_explain::explain(&other.unwrap(), &prepared, 0, CamMethod::GradCam)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("expected an image of 80×80 pixels"),
        "{error}"
    );
}

/// With a mean and a dense layer every place's gradient is its map's weight over the number of places: HiRes-CAM is CAM, and
/// Layer-CAM what positive weights add to it.
#[test]
fn the_other_methods_are_as_their_formulas_say() {
    let maps: [[f32; 6]; 3] = [
        [0., 1., 2., 3., 4., 5.],
        [5., 0., 1., 9., 0., 2.],
        [7., 7., 7., 7., 7., 7.],
    ];
    let image = Tensor::from_vec(maps.concat(), (1, 3, 2, 3), &Device::Cpu).unwrap();
    let classifier = classifier();
    let features = FeatureMaps::new(&classifier, &image).unwrap();
    let check = |method: CamMethod, expected: &dyn Fn(usize) -> f64| {
        let map = features.heat_map(0, method).unwrap();
        for (place, &found) in map.values().iter().enumerate() {
            let expected = expected(place).max(0.);
            assert!(
                (f64::from(found) - expected).abs() < 1e-6,
                "{method:?}: {found} for {expected}"
            );
        }
    };
    let of = |map: usize, place: usize| f64::from(maps[map][place]);
    check(CamMethod::HiResCam, &|place| {
        (2. * of(0, place) - of(1, place)) / 6.
    });
    check(CamMethod::LayerCam, &|place| 2. * of(0, place) / 6.);
    // Of the first map alone the gradient, g = 1/3, is above 0; its values add up to 15.
    let g: f64 = 1. / 3.;
    let weight = 6. * g * (g * g / (2. * g * g + 15. * g * g * g + 1e-6));
    check(CamMethod::GradCamPlusPlus, &|place| weight * of(0, place));
}

/// A head's own weights on the maps, without the mean of the places that gradients have; a head that has no such maps says
/// so.
#[test]
fn class_activation_is_the_head_s_own_weights_on_the_maps() {
    let parameters = Parameters::new(0, &Device::Cpu);
    let head = LinearHead::new(3, 2, &LinearHeadConfig::default(), &parameters.root());
    let weight = Tensor::new(&[[2f32, -1., 0.], [-1., -1., -1.]], &Device::Cpu).unwrap();
    let bias = Tensor::new(&[5f32, 5.], &Device::Cpu).unwrap();
    let values = [
        ("dense.weight".to_owned(), weight),
        ("dense.bias".to_owned(), bias),
    ];
    parameters.load("", &values.into_iter().collect()).unwrap();
    let own = Classifier::from_parts(parameters, Box::new(Identity), Box::new(head.unwrap()));
    let maps: [[f32; 6]; 3] = [
        [0., 1., 2., 3., 4., 5.],
        [5., 0., 1., 9., 0., 2.],
        [7., 7., 7., 7., 7., 7.],
    ];
    let image = Tensor::from_vec(maps.concat(), (1, 3, 2, 3), &Device::Cpu).unwrap();
    let features = FeatureMaps::new(&own, &image).unwrap();
    let map = features.heat_map(0, CamMethod::ClassActivation).unwrap();
    for (place, &found) in map.values().iter().enumerate() {
        let expected = (2. * maps[0][place] - maps[1][place]).max(0.);
        assert!((found - expected).abs() < 1e-5, "{found} for {expected}");
    }
    let error = features
        .heat_map(2, CamMethod::ClassActivation)
        .unwrap_err();
    assert!(matches!(
        error,
        ExplainError::Label {
            label: 2,
            labels: 2
        }
    ));

    let without = classifier();
    let features = FeatureMaps::new(&without, &image).unwrap();
    let error = features
        .heat_map(0, CamMethod::ClassActivation)
        .unwrap_err();
    assert!(matches!(error, ExplainError::NoClassMaps), "{error}");
}

#[test]
fn a_map_of_the_central_window_leaves_the_border_of_the_picture_grey() {
    let map = HeatMap::new(1, 1, vec![2.]).unwrap();
    let window = Region::of_window(8, 4);
    let placed = map.within(4, 8, &window);
    for (place, &value) in placed.values().iter().enumerate() {
        let is_inside = (1..3).contains(&(place / 8)) && (2..6).contains(&(place % 8));
        assert_eq!(value, if is_inside { 2. } else { 0. }, "{place}");
    }
    for style in [OverlayStyle::Inferno, OverlayStyle::Jet] {
        let coloured = overlay(&[90; 32], (4, 8), &map, &window, style).unwrap();
        assert_eq!(coloured[..3], [90; 3], "{style:?}");
        assert_ne!(coloured[3 * (8 + 2)..][..3], [90; 3], "{style:?}");
    }
    assert_eq!(Region::of_window(224, 224), Region::WHOLE);
}
