//! The layers of a description as nodes.

use cxr_ops::{ConvLayer, Layer, NetworkDescription, Nonlinearity, Operation, Window};

use super::NON_IMAGE;
use super::graph::{Attribute, Graph};
use crate::ExchangeError;
use crate::network::DescribedModel;

/// Writes a described network that reads `input`; returns the name of what it gives.
pub(super) fn write(
    graph: &mut Graph,
    model: &DescribedModel<'_>,
    prefix: &'static str,
    description: &NetworkDescription,
    input: &str,
) -> Result<String, ExchangeError> {
    let channels: Vec<usize> = description.layers().map(|layer| layer.channels).collect();
    let mut outputs: Vec<String> = Vec::with_capacity(channels.len());
    for layer in description.layers() {
        let inputs: Vec<&str> = (layer.inputs.iter())
            .map(|&place| outputs[place].as_str())
            .collect();
        let in_channels = layer.inputs.first().map_or(0, |&place| channels[place]);
        let writer = Writer {
            model,
            name: format!("{prefix}{}", layer.name),
            in_channels,
        };
        let output = match layer.operation {
            Operation::Images => input.to_owned(),
            _ => writer.layer(graph, &layer, &inputs)?,
        };
        outputs.push(output);
    }
    Ok(outputs.swap_remove(description.output()))
}

/// Writes one layer.
struct Writer<'a> {
    model: &'a DescribedModel<'a>,
    /// What the names of its parameters begin with.
    name: String,
    in_channels: usize,
}

impl Writer<'_> {
    fn layer(
        &self,
        graph: &mut Graph,
        layer: &Layer<'_>,
        inputs: &[&str],
    ) -> Result<String, ExchangeError> {
        let channels = layer.channels;
        let per_map = [channels, 1, 1];
        let first = inputs.first().copied().unwrap_or_default();
        Ok(match layer.operation {
            // The other layers of a network have been written; it takes what the images are.
            Operation::Images => first.to_owned(),
            Operation::NonImage { .. } => {
                // Each number is a map of one pixel.
                let pixels = graph.integers(&[2, 3]);
                graph.add("Unsqueeze", &[NON_IMAGE, &pixels], &[])
            }
            Operation::Conv { layer, .. } => self.convolution(graph, layer, first)?,
            Operation::BatchNorm(config) => {
                let mut all = vec![first.to_owned()];
                for part in ["weight", "bias", "running_mean", "running_var"] {
                    all.push(self.parameter(graph, part, &[channels])?);
                }
                let all: Vec<&str> = all.iter().map(String::as_str).collect();
                let eps = Attribute::Float("epsilon", config.eps as f32);
                graph.named(&self.name, "BatchNormalization", &all, &[eps])
            }
            Operation::LayerNorm { eps } => {
                let weight = self.parameter(graph, "weight", &[channels])?;
                let bias = self.parameter(graph, "bias", &[channels])?;
                let last = graph.add(
                    "Transpose",
                    &[first],
                    &[Attribute::Ints("perm", &[0, 2, 3, 1])],
                );
                let normal = graph.named(
                    &self.name,
                    "LayerNormalization",
                    &[&last, &weight, &bias],
                    &[
                        Attribute::Int("axis", -1),
                        Attribute::Float("epsilon", *eps as f32),
                    ],
                );
                graph.add(
                    "Transpose",
                    &[&normal],
                    &[Attribute::Ints("perm", &[0, 3, 1, 2])],
                )
            }
            Operation::LayerScale { .. } => {
                let values = self.model.values(&self.name, channels)?;
                let scale = graph.constant(&self.name, &per_map, &values);
                // The constant has the layer's own name.
                graph.add("Mul", &[first, &scale], &[])
            }
            Operation::Rescale { scale, shift } => {
                let scale = graph.unnamed_constant(&per_map, scale);
                let shift = graph.unnamed_constant(&per_map, shift);
                let scaled = graph.add("Mul", &[first, &scale], &[]);
                graph.add("Add", &[&scaled, &shift], &[])
            }
            Operation::Activation(nonlinearity) => activation(graph, *nonlinearity, first),
            Operation::Add => graph.add("Add", inputs, &[]),
            Operation::Gate => graph.add("Mul", inputs, &[]),
            Operation::StochasticDepth(_) | Operation::Dropout(_) => first.to_owned(),
            Operation::Concat => graph.add("Concat", inputs, &[Attribute::Int("axis", 1)]),
            Operation::MaxPool(window) => pool(graph, "MaxPool", *window, first),
            Operation::AveragePool(window) => pool(graph, "AveragePool", *window, first),
            Operation::GlobalPool => graph.add("GlobalAveragePool", &[first], &[]),
            Operation::LogSumExpPool(sharpness) => {
                // Less the largest value, which is added again: the exponentials stay finite.
                let pixels = [Attribute::Ints("axes", &[2, 3])];
                let sharpness = graph.unnamed_constant(&[1], &[*sharpness]);
                let largest = graph.add("ReduceMax", &[first], &pixels);
                let below = graph.add("Sub", &[first, &largest], &[]);
                let exponents = graph.add("Mul", &[&below, &sharpness], &[]);
                let terms = graph.add("Exp", &[&exponents], &[]);
                let mean = graph.add("ReduceMean", &[&terms], &pixels);
                let log = graph.add("Log", &[&mean], &[]);
                let log = graph.add("Div", &[&log, &sharpness], &[]);
                graph.add("Add", &[&log, &largest], &[])
            }
            Operation::ResponseNorm { eps } => {
                let weight = self.parameter(graph, "weight", &per_map)?;
                let bias = self.parameter(graph, "bias", &per_map)?;
                let eps = graph.unnamed_constant(&[1], &[*eps as f32]);
                let norm = graph.add("ReduceL2", &[first], &[Attribute::Ints("axes", &[2, 3])]);
                let mean = graph.add("ReduceMean", &[&norm], &[Attribute::Ints("axes", &[1])]);
                let mean = graph.add("Add", &[&mean, &eps], &[]);
                let share = graph.add("Div", &[&norm, &mean], &[]);
                let scale = graph.add("Mul", &[&share, &weight], &[]);
                let response = graph.add("Mul", &[first, &scale], &[]);
                let response = graph.add("Add", &[&response, &bias], &[]);
                graph.add("Add", &[first, &response], &[])
            }
            _ => {
                return Err(ExchangeError::NotDescribed {
                    part: "layer",
                    name: self.name.clone(),
                });
            }
        })
    }

    /// A parameter as a constant of its own name.
    fn parameter(
        &self,
        graph: &mut Graph,
        part: &str,
        sides: &[usize],
    ) -> Result<String, ExchangeError> {
        let name = format!("{}.{part}", self.name);
        let values = self.model.values(&name, sides.iter().product())?;
        Ok(graph.constant(&name, sides, &values))
    }

    fn convolution(
        &self,
        graph: &mut Graph,
        layer: &ConvLayer,
        input: &str,
    ) -> Result<String, ExchangeError> {
        let [height, width] = layer.kernel;
        let read = self.in_channels / layer.groups;
        let mut inputs = vec![input.to_owned()];
        inputs.push(self.parameter(graph, "weight", &[layer.out_channels, read, height, width])?);
        if layer.bias {
            inputs.push(self.parameter(graph, "bias", &[layer.out_channels])?);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let [rows, columns] = layer.padding;
        let attributes = [
            Attribute::Ints("kernel_shape", &layer.kernel),
            Attribute::Ints("strides", &[layer.stride; 2]),
            Attribute::Ints("pads", &[rows, columns, rows, columns]),
            Attribute::Int("group", layer.groups as i64),
        ];
        Ok(graph.named(&self.name, "Conv", &inputs, &attributes))
    }
}

fn pool(graph: &mut Graph, operator: &str, window: Window, input: &str) -> String {
    let [rows, columns] = window.padding;
    let (kernel, strides, pads) = (
        window.kernel,
        [window.stride; 2],
        [rows, columns, rows, columns],
    );
    let mut attributes = vec![
        Attribute::Ints("kernel_shape", &kernel),
        Attribute::Ints("strides", &strides),
        Attribute::Ints("pads", &pads),
    ];
    if operator == "AveragePool" {
        attributes.push(Attribute::Int("count_include_pad", 1));
    }
    graph.add(operator, &[input], &attributes)
}

fn activation(graph: &mut Graph, nonlinearity: Nonlinearity, x: &str) -> String {
    // ONNX's HardSigmoid is max(0, min(1, α·x + β)).
    let hard = [
        Attribute::Float("alpha", 1. / 6.),
        Attribute::Float("beta", 0.5),
    ];
    match nonlinearity {
        Nonlinearity::Identity => x.to_owned(),
        Nonlinearity::Relu => graph.add("Relu", &[x], &[]),
        Nonlinearity::Relu6 => {
            let (low, high) = (
                graph.unnamed_constant(&[], &[0.]),
                graph.unnamed_constant(&[], &[6.]),
            );
            graph.add("Clip", &[x, &low, &high], &[])
        }
        Nonlinearity::Sigmoid => graph.add("Sigmoid", &[x], &[]),
        Nonlinearity::Silu => {
            let gate = graph.add("Sigmoid", &[x], &[]);
            graph.add("Mul", &[x, &gate], &[])
        }
        Nonlinearity::HardSigmoid => graph.add("HardSigmoid", &[x], &hard),
        Nonlinearity::HardSwish => {
            let gate = graph.add("HardSigmoid", &[x], &hard);
            graph.add("Mul", &[x, &gate], &[])
        }
        // x · ½ · (1 + erf(x / √2)).
        Nonlinearity::Gelu => {
            let root = graph.unnamed_constant(&[], &[std::f32::consts::FRAC_1_SQRT_2]);
            let (one, half) = (
                graph.unnamed_constant(&[], &[1.]),
                graph.unnamed_constant(&[], &[0.5]),
            );
            let scaled = graph.add("Mul", &[x, &root], &[]);
            let erf = graph.add("Erf", &[&scaled], &[]);
            let sum = graph.add("Add", &[&erf, &one], &[]);
            let product = graph.add("Mul", &[x, &sum], &[]);
            graph.add("Mul", &[&product, &half], &[])
        }
    }
}
