//! How torchvision and timm name the tensors of one network, and how they are called here.

/// What a tensor of a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A parameter of the feature extractor, by its name in the network's description.
    Backbone(String),
    /// The classifier's weight or bias.
    Classifier(&'static str),
    /// Of no use for predictions: counters of batch normalisations, auxiliary classifiers.
    Unused,
    /// The operating points of torchxrayvision.
    OperatingPoints,
}

/// The classifiers' names, torchvision's and timm's.
const CLASSIFIERS: [&str; 5] = ["classifier.1.", "classifier.", "head.fc.", "head.", "fc."];

/// The place of a tensor in the network called `backbone`. What fits nowhere keeps its name, so that it is missed under it.
pub(super) fn place(backbone: &str, name: &str) -> Place {
    if name.ends_with("num_batches_tracked") || name.starts_with("AuxLogits.") {
        return Place::Unused;
    }
    if name == "op_threshs" {
        return Place::OperatingPoints;
    }
    for start in CLASSIFIERS {
        match name.strip_prefix(start) {
            Some("weight") => return Place::Classifier("weight"),
            Some("bias") => return Place::Classifier("bias"),
            _ => {}
        }
    }
    let name = name.strip_prefix("features.").unwrap_or(name);
    let renamed = match backbone {
        _ if backbone.starts_with("densenet") => dense_layer(name),
        _ if backbone.starts_with("efficientnet_b") => efficientnet(name),
        _ if backbone.starts_with("mobilenet") => mobilenet(name),
        _ if backbone.starts_with("regnet") => regnet(name),
        _ => None,
    };
    Place::Backbone(renamed.unwrap_or_else(|| name.to_owned()))
}

/// Older files of DenseNets have `norm.1` for `norm1` and `conv.2` for `conv2`.
fn dense_layer(name: &str) -> Option<String> {
    let at = name.find(".denselayer")?;
    let (start, layer) = name.split_at(at);
    let mut layer = layer.to_owned();
    for part in ["norm", "conv"] {
        for number in ["1", "2"] {
            layer = layer.replace(&format!(".{part}.{number}."), &format!(".{part}{number}."));
        }
    }
    Some(format!("{start}{layer}"))
}

/// A name cut at its last point: a layer, and its tensor.
fn tensor_of(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('.')
}

/// `blocks.STAGE.BLOCK.LAYER`, as timm has it.
fn block_of(layer: &str) -> Option<(usize, usize, &str)> {
    let mut parts = layer.strip_prefix("blocks.")?.splitn(3, '.');
    let (stage, block) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some((stage, block, parts.next()?))
}

/// timm's EfficientNet-B.
fn efficientnet(name: &str) -> Option<String> {
    let (layer, tensor) = tensor_of(name)?;
    let renamed = match layer {
        "conv_stem" => "0.0".to_owned(),
        "bn1" => "0.1".to_owned(),
        "conv_head" => "8.0".to_owned(),
        "bn2" => "8.1".to_owned(),
        _ => {
            let (stage, block, part) = block_of(layer)?;
            // The first stage does not expand.
            let part = match (stage, part) {
                (0, "conv_dw") => "0.0",
                (0, "bn1") => "0.1",
                (0, "se.conv_reduce") => "1.fc1",
                (0, "se.conv_expand") => "1.fc2",
                (0, "conv_pw") => "2.0",
                (0, "bn2") => "2.1",
                (_, "conv_pw") => "0.0",
                (_, "bn1") => "0.1",
                (_, "conv_dw") => "1.0",
                (_, "bn2") => "1.1",
                (_, "se.conv_reduce") => "2.fc1",
                (_, "se.conv_expand") => "2.fc2",
                (_, "conv_pwl") => "3.0",
                (_, "bn3") => "3.1",
                _ => return None,
            };
            format!("{}.{block}.block.{part}", stage + 1)
        }
    };
    Some(format!("{renamed}.{tensor}"))
}

/// Blocks of MobileNet-V2's stages.
const MOBILENET_BLOCKS: [usize; 7] = [1, 2, 3, 4, 3, 3, 1];

/// timm's MobileNet-V2.
fn mobilenet(name: &str) -> Option<String> {
    let (layer, tensor) = tensor_of(name)?;
    let renamed = match layer {
        "conv_stem" => "0.0".to_owned(),
        "bn1" => "0.1".to_owned(),
        "conv_head" => "18.0".to_owned(),
        "bn2" => "18.1".to_owned(),
        _ => {
            let (stage, block, part) = block_of(layer)?;
            let part = match (stage, part) {
                (0, "conv_dw") => "0.0",
                (0, "bn1") => "0.1",
                (0, "conv_pw") => "1",
                (0, "bn2") => "2",
                (_, "conv_pw") => "0.0",
                (_, "bn1") => "0.1",
                (_, "conv_dw") => "1.0",
                (_, "bn2") => "1.1",
                (_, "conv_pwl") => "2",
                (_, "bn3") => "3",
                _ => return None,
            };
            let before: usize = MOBILENET_BLOCKS.iter().take(stage).sum();
            format!("{}.conv.{part}", 1 + before + block)
        }
    };
    Some(format!("{renamed}.{tensor}"))
}

/// timm's RegNet.
fn regnet(name: &str) -> Option<String> {
    let (layer, tensor) = tensor_of(name)?;
    let renamed = match layer {
        "stem.conv" => "stem.0".to_owned(),
        "stem.bn" => "stem.1".to_owned(),
        _ => {
            let mut parts = layer.strip_prefix('s')?.splitn(3, '.');
            let stage: usize = parts.next()?.parse().ok()?;
            let block: usize = parts.next()?.strip_prefix('b')?.parse().ok()?;
            let part = match parts.next()? {
                "conv1.conv" => "f.a.0",
                "conv1.bn" => "f.a.1",
                "conv2.conv" => "f.b.0",
                "conv2.bn" => "f.b.1",
                "se.fc1" => "f.se.fc1",
                "se.fc2" => "f.se.fc2",
                "conv3.conv" => "f.c.0",
                "conv3.bn" => "f.c.1",
                "downsample.conv" => "proj.0",
                "downsample.bn" => "proj.1",
                _ => return None,
            };
            let block = block.checked_sub(1)?;
            format!("trunk_output.block{stage}.block{stage}-{block}.{part}")
        }
    };
    Some(format!("{renamed}.{tensor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_libraries_are_one_name_here() {
        for (backbone, theirs, ours) in [
            (
                "densenet121",
                "features.denseblock1.denselayer2.norm.1.weight",
                "denseblock1.denselayer2.norm1.weight",
            ),
            ("resnet18", "layer1.0.conv1.weight", "layer1.0.conv1.weight"),
            (
                "efficientnet_b0",
                "features.1.0.block.0.0.weight",
                "1.0.block.0.0.weight",
            ),
            (
                "efficientnet_b0",
                "blocks.2.1.se.conv_expand.bias",
                "3.1.block.2.fc2.bias",
            ),
            (
                "mobilenet_v2",
                "blocks.3.2.conv_pwl.weight",
                "9.conv.2.weight",
            ),
            (
                "mobilenet_v2",
                "features.9.conv.2.weight",
                "9.conv.2.weight",
            ),
            (
                "regnet_y_400mf",
                "s3.b2.conv2.bn.running_var",
                "trunk_output.block3.block3-1.f.b.1.running_var",
            ),
        ] {
            assert_eq!(
                place(backbone, theirs),
                Place::Backbone(ours.to_owned()),
                "{theirs}"
            );
        }
        for (name, expected) in [
            ("classifier.1.bias", Place::Classifier("bias")),
            ("head.fc.weight", Place::Classifier("weight")),
            ("bn1.num_batches_tracked", Place::Unused),
            ("op_threshs", Place::OperatingPoints),
            // The first of VGG's three dense layers is no classifier.
            (
                "classifier.0.weight",
                Place::Backbone("classifier.0.weight".to_owned()),
            ),
        ] {
            assert_eq!(place("resnet18", name), expected, "{name}");
        }
    }
}
