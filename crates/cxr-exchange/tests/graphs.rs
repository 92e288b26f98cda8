//! Every kind of network and every head as a graph that is whole: what ONNX asks of one. What graphs compute is compared
//! by `cargo xtask verify export`, with ONNX Runtime, PyTorch and tract.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

#[path = "../src/onnx/proto.rs"]
mod proto;

use std::collections::BTreeSet;

use candle_core::Device;
use cxr_backbone::BACKBONES;
use cxr_exchange::{ONNX_START, OnnxInput, OnnxOptions, onnx_bytes, torch_files};
use cxr_model::{Calibration, Classifier, Component, LabelCalibration, ModelCard, Origin, ViewSet};
use cxr_top::{HEADS, HeadEntry};
use prost::Message as _;
use proto::{FLOAT, ModelProto, UINT8};
use serde_json::{Value, json};

/// One network of each family, the smallest.
const FAMILIES: [&str; 10] = [
    "densenet",
    "resnet18",
    "resnext50_32x4d",
    "vgg16_bn",
    "mobilenet_v2",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "inception_v3",
    "regnet_y_400mf",
    "convnext_tiny",
];

fn card(backbone: &str, head: &str) -> ModelCard {
    let options = match backbone {
        "densenet" => json!({"stem_channels": 8, "growth_rate": 4, "block_layers": [1, 2]}),
        "dinov2" => json!("small"),
        "convnext" => json!({"size": "atto"}),
        _ => json!({}),
    };
    let card = json!({
        "experiment": "e", "variant": "v", "loss": "bce", "loss_parameters": {}, "labels": ["Mass", "Röntgen \"3\""],
        "backbone": {backbone: options}, "head": {head: {}}, "image_size": 256, "crop_size": 224,
        "normalization_mean": [0.485, 0.456, 0.406], "normalization_std": [0.229, 0.224, 0.225],
        "logit_thresholds": [0., -1.5], "licence": "mit",
    });
    ModelCard::parse(&card.to_string()).unwrap()
}

/// Where a label has three outputs the graph still gives one logit for each label.
#[test]
fn labels_with_three_outputs_have_one_logit() {
    for (backbone, head) in [("resnet18", "linear"), ("densenet", "top-network")] {
        let mut card = card(backbone, head);
        card.multi_class = vec![card.labels[1].clone()];
        card.check().unwrap();
        let graph = graph_of(&card, OnnxOptions::default());
        check(&graph);
        let graph = graph.graph.unwrap();
        let constant = graph.initializer.iter().find(|of| of.name == "differences");
        let constant = constant.unwrap();
        // The first label's output, then absent, present and uncertain of the second.
        assert_eq!(constant.dims, [4, 2]);
        let values: Vec<f32> = (constant.raw_data.chunks_exact(4))
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        assert_eq!(values, [1., 0., 0., -1., 0., 1., 0., 0.]);
        let classifier = Classifier::new(&card, 0, &Device::Cpu).unwrap();
        let files = torch_files(&card, &classifier).unwrap();
        assert!(files.module.contains("register_forward_hook(_logits)"));
        assert!(!files.module.contains("num_classes=len(LABELS)"));
    }
    card("resnet18", "linear").check().unwrap();
    for wrong in [&["Effusion"][..], &["Mass", "Mass"]] {
        let mut card = card("resnet18", "linear");
        card.multi_class = wrong.iter().map(|&label| label.to_owned()).collect();
        assert!(card.check().is_err(), "{wrong:?}");
    }
}

fn graph_of(card: &ModelCard, options: OnnxOptions) -> ModelProto {
    let classifier = Classifier::new(card, 0, &Device::Cpu).unwrap();
    let bytes = onnx_bytes(card, &classifier, options).unwrap();
    assert!(bytes.starts_with(ONNX_START));
    ModelProto::decode(bytes.as_slice()).unwrap()
}

/// Every value is there before it is read and made once, and constants are as large as they say.
fn check(model: &ModelProto) {
    let graph = model.graph.as_ref().unwrap();
    let mut known: BTreeSet<&str> = graph
        .input
        .iter()
        .map(|input| input.name.as_str())
        .collect();
    for constant in &graph.initializer {
        assert!(known.insert(&constant.name), "{}", constant.name);
        let count: i64 = constant.dims.iter().product();
        let width = match constant.data_type {
            proto::INT64 => 8,
            FLOAT => 4,
            other => panic!("{other}"),
        };
        assert_eq!(
            constant.raw_data.len() as i64,
            count * width,
            "{}",
            constant.name
        );
    }
    // tract takes constants for nodes.
    let mut names: BTreeSet<&String> = graph
        .initializer
        .iter()
        .map(|tensor| &tensor.name)
        .collect();
    for node in &graph.node {
        assert!(names.insert(&node.name), "{}", node.name);
        for input in node.input.iter().filter(|input| !input.is_empty()) {
            assert!(
                known.contains(input.as_str()),
                "{} reads {input}",
                node.name
            );
        }
        for output in &node.output {
            assert!(known.insert(output), "{output}");
        }
    }
    for output in &graph.output {
        assert!(known.contains(output.name.as_str()));
    }
}

/// Those that say what their layers are; the others are refused.
fn described_heads() -> Vec<&'static HeadEntry> {
    let is_described = |head: &&HeadEntry| {
        let parsed = head.parse(&Value::Null).unwrap();
        parsed.describe((8, 7, 7), 3).is_ok()
    };
    HEADS.iter().filter(is_described).collect()
}

#[test]
fn every_family_and_every_head_is_a_whole_graph() {
    for (at, backbone) in FAMILIES.into_iter().enumerate() {
        // Building the networks is what takes time: each once, in turn with each head.
        let heads = match backbone {
            "densenet" => described_heads(),
            _ => vec![described_heads()[at % described_heads().len()]],
        };
        for head in heads {
            let card = card(backbone, head.name);
            let model = graph_of(&card, OnnxOptions::default());
            check(&model);
            let graph = model.graph.as_ref().unwrap();
            let input: Vec<_> = graph
                .input
                .iter()
                .map(|input| input.name.as_str())
                .collect();
            let output: Vec<_> = graph
                .output
                .iter()
                .map(|output| output.name.as_str())
                .collect();
            assert_eq!((input, output), (vec!["images"], vec!["logits"]));
            // All parameters of the model file are in it, under their names.
            let classifier = Classifier::new(&card, 0, &Device::Cpu).unwrap();
            let constants: BTreeSet<&str> = graph
                .initializer
                .iter()
                .map(|tensor| tensor.name.as_str())
                .collect();
            for name in classifier.parameters().tensors("").keys() {
                assert!(constants.contains(name.as_str()), "{backbone}: {name}");
            }
        }
    }
}

#[test]
fn what_cannot_be_exported_is_an_error() {
    let described = |name: &str| {
        let entry = BACKBONES.iter().find(|entry| entry.name == name).unwrap();
        entry
            .parse(&Value::Null)
            .is_ok_and(|net| net.description().is_some())
    };
    // All but those of candle-transformers, and backbones of backbones.
    let not_described: Vec<&str> = (BACKBONES.iter())
        .map(|entry| entry.name)
        .filter(|name| *name != "densenet" && !described(name))
        .collect();
    assert_eq!(
        not_described,
        ["convnext", "dinov2", "ensemble", "downsampled"]
    );
    let csra = card("densenet", "csra");
    let classifier = Classifier::new(&csra, 0, &Device::Cpu).unwrap();
    let error = onnx_bytes(&csra, &classifier, OnnxOptions::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the head `csra` cannot be exported"),
        "{error}"
    );
    let mut own = card("densenet", "linear");
    let classifier = Classifier::new(&own, 0, &Device::Cpu).unwrap();
    own.head = Component::custom("largest");
    own.own_parts = vec!["head `largest`".to_owned()];
    let error = onnx_bytes(&own, &classifier, OnnxOptions::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the head `largest` cannot be exported"),
        "{error}"
    );
    assert!(torch_files(&own, &classifier).is_err());
    let dino = card("dinov2", "linear");
    let error = onnx_bytes(&dino, &classifier, OnnxOptions::default()).unwrap_err();
    assert!(
        error.to_string().contains("`dinov2` cannot be exported"),
        "{error}"
    );
    let mut stretched = card("densenet", "linear");
    stretched.stretched = true;
    let input = OnnxInput::Bytes;
    let options = OnnxOptions {
        input,
        ..OnnxOptions::default()
    };
    let error = onnx_bytes(&stretched, &classifier, options).unwrap_err();
    assert!(error.to_string().contains("stretched"), "{error}");
    onnx_bytes(&stretched, &classifier, OnnxOptions::default()).unwrap();
}

#[test]
fn the_card_goes_with_the_graph_and_the_work_around_it_inside() {
    let mut card = card("densenet", "linear");
    card.calibration = Some(Calibration {
        labels: vec![
            LabelCalibration::Platt {
                slope: 2.,
                intercept: 0.5,
            },
            LabelCalibration::Isotonic {
                // Not to be told apart in single precision.
                logits: vec![1., 1. + 1e-12, 2.],
                probabilities: vec![0.1, 0.5, 0.9],
            },
        ],
        origin: Origin {
            part: "validation".to_owned(),
            images: 9,
            views: ViewSet::Single,
            fingerprint: None,
        },
    });
    for input in [OnnxInput::Normalised, OnnxInput::Grey, OnnxInput::Bytes] {
        let options = OnnxOptions {
            input,
            probabilities: true,
        };
        let model = graph_of(&card, options);
        check(&model);
        let entry = |key: &str| {
            let entry = model.metadata_props.iter().find(|entry| entry.key == key);
            &entry.unwrap().value
        };
        assert_eq!(ModelCard::parse(entry("cxr.card")).unwrap(), card);
        assert_eq!(entry("labels"), "[\"Mass\",\"Röntgen \\\"3\\\"\"]");
        assert_eq!(entry("logit_thresholds"), "[0.0,-1.5]");
        assert_eq!(entry("licence"), "mit");
        let graph = model.graph.as_ref().unwrap();
        assert_eq!(graph.output[1].name, "probabilities");
        let kind = graph.input[0]
            .kind
            .as_ref()
            .unwrap()
            .tensor_type
            .as_ref()
            .unwrap();
        let is_bytes = kind.elem_type == UINT8;
        assert_eq!(is_bytes, input == OnnxInput::Bytes);
        let opset = model.opset_import[0].version;
        assert_eq!(opset, if input == OnnxInput::Bytes { 18 } else { 17 });
        for constant in &graph.initializer {
            if constant.data_type == FLOAT {
                let values = constant.raw_data.as_chunks::<4>().0.iter();
                let is_finite = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes).is_finite();
                assert!(values.into_iter().all(is_finite), "{}", constant.name);
            }
        }
    }
}
