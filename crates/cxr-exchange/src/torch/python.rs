//! A description as a class of PyTorch.

use std::fmt::Write as _;

use cxr_ops::{NetworkDescription, Nonlinearity, Operation};

use crate::ExchangeError;

/// What the classes need.
pub(super) const HELPERS: &str = r#"

def _put(network, name, part):
    """Makes `part` the network's, under a dotted name."""
    *path, last = name.split(".")
    for folder in path:
        if not hasattr(network, folder):
            network.add_module(folder, nn.Module())
        network = getattr(network, folder)
    setattr(network, last, part)


def _dense(layer, x, window):
    """A dense layer on the maps of each pixel, or on all values of maps of one window's size."""
    if window == (1, 1):
        return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return layer(x.flatten(1))[:, :, None, None]


def _constants(values, x):
    return torch.tensor(values, dtype=x.dtype, device=x.device).reshape(-1, 1, 1)


def _log_mean_exp(x, sharpness):
    """The logarithm of the mean exponential of each map's values times `sharpness`, over it."""
    pixels = torch.tensor(x.shape[2] * x.shape[3], dtype=x.dtype, device=x.device)
    return (torch.logsumexp(sharpness * x, (2, 3), keepdim=True) - torch.log(pixels)) / sharpness


class _ResponseNorm(nn.Module):
    """Global response normalisation (Woo et al. 2023)."""

    def __init__(self, channels, eps):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        norm = x.norm(p=2, dim=(2, 3), keepdim=True)
        share = norm / (norm.mean(1, keepdim=True) + self.eps)
        weight, bias = self.weight.reshape(-1, 1, 1), self.bias.reshape(-1, 1, 1)
        return x + (x * share * weight + bias)
"#;

/// A class `name` that computes what the description says; `docs` is its documentation, `arguments` what its forward pass
/// takes, and `finish` what it returns of `{}`, the value of the last layer.
///
/// # Errors
/// A layer that is not known here.
pub(super) fn class(
    name: &str,
    docs: &str,
    description: &NetworkDescription,
    arguments: &str,
    finish: &str,
) -> Result<String, ExchangeError> {
    let channels: Vec<usize> = description.layers().map(|layer| layer.channels).collect();
    let (mut parts, mut steps) = (String::new(), String::new());
    // What each layer's value is called.
    let mut values: Vec<String> = Vec::with_capacity(channels.len());
    for (place, layer) in description.layers().enumerate() {
        let inputs: Vec<&str> = (layer.inputs.iter())
            .map(|&input| values[input].as_str())
            .collect();
        let x = inputs.first().copied().unwrap_or("images");
        let read = layer.inputs.first().map_or(0, |&input| channels[input]);
        let call = format!("self.get_submodule(\"{}\")", layer.name);
        let step = match layer.operation {
            Operation::Images => None,
            Operation::NonImage { .. } => Some("non_image[:, :, None, None]".to_owned()),
            Operation::Conv {
                layer: conv,
                is_linear: false,
            } => {
                let ([height, width], [rows, columns]) = (conv.kernel, conv.padding);
                let bias = if conv.bias { "True" } else { "False" };
                part(
                    &mut parts,
                    layer.name,
                    &format!(
                        "nn.Conv2d({read}, {}, ({height}, {width}), {}, ({rows}, {columns}), groups={}, bias={bias})",
                        conv.out_channels, conv.stride, conv.groups
                    ),
                );
                Some(format!("{call}({x})"))
            }
            Operation::Conv { layer: conv, .. } => {
                let [height, width] = conv.kernel;
                let made = format!(
                    "nn.Linear({}, {})",
                    read * height * width,
                    conv.out_channels
                );
                part(&mut parts, layer.name, &made);
                Some(format!("_dense({call}, {x}, ({height}, {width}))"))
            }
            Operation::BatchNorm(config) => {
                let made = format!("nn.BatchNorm2d({read}, eps={})", config.eps);
                part(&mut parts, layer.name, &made);
                Some(format!("{call}({x})"))
            }
            Operation::LayerNorm { eps } => {
                part(
                    &mut parts,
                    layer.name,
                    &format!("nn.LayerNorm({read}, eps={eps})"),
                );
                Some(format!(
                    "{call}({x}.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)"
                ))
            }
            Operation::LayerScale { initial } => {
                let made = format!("nn.Parameter(torch.full(({read}, 1, 1), {initial}))");
                part(&mut parts, layer.name, &made);
                Some(format!("{x} * self.get_parameter(\"{}\")", layer.name))
            }
            Operation::Rescale { scale, shift } => Some(format!(
                "{x} * _constants({scale:?}, {x}) + _constants({shift:?}, {x})"
            )),
            Operation::Activation(nonlinearity) => activation(*nonlinearity, x),
            Operation::Add => Some(inputs.join(" + ")),
            Operation::Gate => Some(inputs.join(" * ")),
            Operation::StochasticDepth(_) | Operation::Dropout(_) => None,
            Operation::Concat => Some(format!("torch.cat([{}], 1)", inputs.join(", "))),
            Operation::MaxPool(window) | Operation::AveragePool(window) => {
                let kind = match layer.operation {
                    Operation::MaxPool(_) => "max",
                    _ => "avg",
                };
                let ([height, width], [rows, columns]) = (window.kernel, window.padding);
                Some(format!(
                    "F.{kind}_pool2d({x}, ({height}, {width}), {}, ({rows}, {columns}))",
                    window.stride
                ))
            }
            Operation::GlobalPool => Some(format!("{x}.mean((2, 3), keepdim=True)")),
            Operation::LogSumExpPool(sharpness) => Some(format!("_log_mean_exp({x}, {sharpness})")),
            Operation::ResponseNorm { eps } => {
                part(
                    &mut parts,
                    layer.name,
                    &format!("_ResponseNorm({read}, {eps})"),
                );
                Some(format!("{call}({x})"))
            }
            _ => {
                return Err(ExchangeError::NotDescribed {
                    part: "layer",
                    name: layer.name.to_owned(),
                });
            }
        };
        let value = match step {
            None => x.to_owned(),
            Some(step) => {
                let _ = writeln!(steps, "        x{place} = {step}");
                format!("x{place}")
            }
        };
        values.push(value);
    }
    let output = finish.replace("{}", &values[description.output()]);
    Ok(format!(
        "\n\nclass {name}(nn.Module):\n    \"\"\"{docs}\"\"\"\n\n    def __init__(self):\n        super().__init__()\n{parts}\n    \
         def forward(self, {arguments}):\n{steps}        return {output}\n"
    ))
}

fn part(parts: &mut String, name: &str, made: &str) {
    let _ = writeln!(parts, "        _put(self, \"{name}\", {made})");
}

fn activation(nonlinearity: Nonlinearity, x: &str) -> Option<String> {
    let function = match nonlinearity {
        Nonlinearity::Identity => return None,
        Nonlinearity::Relu => "relu",
        Nonlinearity::Relu6 => "relu6",
        Nonlinearity::Silu => "silu",
        Nonlinearity::Gelu => "gelu",
        Nonlinearity::HardSwish => "hardswish",
        Nonlinearity::Sigmoid => "sigmoid",
        Nonlinearity::HardSigmoid => "hardsigmoid",
    };
    Some(format!("F.{function}({x})"))
}
