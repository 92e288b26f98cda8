//! A network as data.

use std::collections::BTreeMap;

use candle_core::Shape;

use crate::blocked::packing::Window;
use crate::blocked::{Extent, LANES, Nonlinearity};
use crate::norm::BatchNormConfig;
use crate::{Init, OpsError};

/// Maps within a network that is being described: what a layer gives, for other layers to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node(pub(super) usize);

/// A convolution of a description; the default is stride 1, no padding, one group, no bias, He's initial values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConvLayer {
    /// Channels that it makes.
    pub out_channels: usize,
    /// Height and width of the window.
    pub kernel: [usize; 2],
    /// Distance between neighbouring windows.
    pub stride: usize,
    /// Rows and columns of zeros on each side.
    pub padding: [usize; 2],
    /// Number of groups; a map reads the maps of its own.
    pub groups: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// The weight's initial values.
    pub init: Init,
}

impl ConvLayer {
    /// `out_channels` channels by windows of `side × side`.
    pub fn new(out_channels: usize, side: usize) -> Self {
        Self::rectangular(out_channels, [side, side])
    }

    /// `out_channels` channels by windows of `height × width`.
    pub fn rectangular(out_channels: usize, kernel: [usize; 2]) -> Self {
        Self {
            out_channels,
            kernel,
            stride: 1,
            padding: [0, 0],
            groups: 1,
            bias: false,
            init: Init::KaimingFanOut,
        }
    }

    /// Another stride.
    #[must_use]
    pub fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// Half the window on every side, which at stride 1 keeps the size where the window's is odd.
    #[must_use]
    pub fn same(self) -> Self {
        let padding = self.kernel.map(|side| side / 2);
        Self { padding, ..self }
    }

    /// Groups.
    #[must_use]
    pub fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// With a bias.
    #[must_use]
    pub fn biased(self) -> Self {
        Self { bias: true, ..self }
    }

    /// Other initial values.
    #[must_use]
    pub fn init(self, init: Init) -> Self {
        Self { init, ..self }
    }

    fn window(self) -> Window {
        Window {
            kernel: self.kernel,
            stride: self.stride,
            padding: self.padding,
        }
    }
}

/// What a layer does.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Operation {
    /// The images themselves.
    Images,
    /// What is known of an image besides its pixels: numbers that come beside the images, each a map of one pixel. A
    /// description that has them is written for other programs, and is not [built](NetworkDescription::build).
    NonImage {
        /// How many numbers.
        columns: usize,
    },
    /// A convolution: parameters `weight` and, if biased, `bias`.
    Conv {
        /// Its sizes.
        layer: ConvLayer,
        /// The weight is `O×(I·h·w)`: a dense layer applied to the values of every window.
        is_linear: bool,
    },
    /// A batch normalisation: parameters `weight`, `bias`, `running_mean`, `running_var`.
    BatchNorm(BatchNormConfig),
    /// A normalisation of each pixel over its maps: parameters `weight`, `bias`.
    LayerNorm {
        /// Added to the variance.
        eps: f64,
    },
    /// Global response normalisation: parameters `weight`, `bias`.
    ResponseNorm {
        /// Added to the mean of the responses.
        eps: f64,
    },
    /// Each map times a parameter, whose name is the layer's own.
    LayerScale {
        /// What it begins with.
        initial: f32,
    },
    /// `scale·x + shift` with constants, per map.
    Rescale {
        /// A factor for each map.
        scale: Vec<f32>,
        /// A summand for each map.
        shift: Vec<f32>,
    },
    /// A nonlinearity of every value.
    Activation(Nonlinearity),
    /// The sum of two.
    Add,
    /// The first, each map times the one pixel of it that the second has.
    Gate,
    /// In training sets all maps of an image to 0 at this rate; in evaluation its input.
    StochasticDepth(f64),
    /// In training sets values to 0 at this rate; in evaluation its input.
    Dropout(f64),
    /// The maps of all, one after the other.
    Concat,
    /// The largest value of each window; padding is never the largest.
    MaxPool(Window),
    /// The mean of each window, in which padding counts as zeros.
    AveragePool(Window),
    /// The mean of each map.
    GlobalPool,
    /// Of all pixels, with this factor in the exponent.
    LogSumExpPool(f32),
}

/// A layer of a description, as [`NetworkDescription::layers`] gives it.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    /// What its parameters' names begin with; only for reading where it has none.
    pub name: &'a str,
    /// What it does.
    pub operation: &'a Operation,
    /// The layers that it reads, by their places; all are before it.
    pub inputs: &'a [usize],
    /// Channels that it makes.
    pub channels: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct NodeData {
    /// Its parameters' path; a name for errors where it has none.
    pub(super) name: String,
    pub(super) layer: Operation,
    pub(super) inputs: Vec<usize>,
    pub(super) maps: usize,
    /// It has a single pixel.
    pub(super) is_pooled: bool,
}

/// A network as data: which layers, with which sizes, read which. It has no weights; [`Network`](crate::Network) has.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkDescription {
    pub(super) nodes: Vec<NodeData>,
    pub(super) names: BTreeMap<String, usize>,
    pub(super) output: usize,
}

/// What a network costs for each image, counted from its description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkCost {
    /// Multiplications with an addition, of a forward pass; a backward pass has twice as many.
    pub multiply_adds: u64,
    /// Bytes that training keeps from the forward to the backward pass, on the CPU.
    pub training_bytes: u64,
    /// Values of all parameters, running statistics included.
    pub parameters: u64,
}

/// A part of a network, for a table or a drawing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPart {
    /// The name of the node that it ends in; empty for what follows the last.
    pub name: String,
    /// Kinds of layers, such as `3×3 convolution`, with how many there are, in the order in which they first come. Layers
    /// without products or pooling are left out.
    pub layers: Vec<(String, usize)>,
    /// Channels of its output.
    pub channels: usize,
    /// Rows of its output.
    pub height: usize,
    /// Columns of its output.
    pub width: usize,
    /// Values of its parameters, running statistics included.
    pub parameters: u64,
    /// Multiplications with an addition, for one image.
    pub multiply_adds: u64,
}

impl Operation {
    /// What a reader calls the layer, which reads `maps` maps; `None` for one that a summary leaves out.
    fn kind(&self, maps: usize) -> Option<String> {
        let sides = |[height, width]: [usize; 2]| format!("{height}×{width}");
        Some(match self {
            Self::Conv {
                is_linear: true, ..
            } => "dense layer".to_owned(),
            Self::Conv { layer, .. } => {
                let kernel = sides(layer.kernel);
                match layer.groups {
                    1 => format!("{kernel} convolution"),
                    groups if groups == maps && groups == layer.out_channels => {
                        format!("{kernel} depthwise convolution")
                    }
                    groups => format!("{kernel} convolution in {groups} groups"),
                }
            }
            Self::MaxPool(window) => format!("{} max pooling", sides(window.kernel)),
            Self::AveragePool(window) => format!("{} mean pooling", sides(window.kernel)),
            Self::Gate => "squeeze-excite".to_owned(),
            Self::LogSumExpPool(_) => "log-sum-exp pooling".to_owned(),
            // Of global pools there is one in each squeeze-excite, which is named already.
            _ => return None,
        })
    }
}

/// One parameter of a layer.
pub(super) struct ParameterShape {
    pub(super) name: String,
    pub(super) shape: Shape,
    pub(super) init: Init,
}

impl NetworkDescription {
    /// The node of a [name](super::NetworkBuilder::name).
    pub fn node(&self, name: &str) -> Option<Node> {
        self.names.get(name).copied().map(Node)
    }

    /// All such names, in the order of their nodes, from the images to the features.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let mut names: Vec<(usize, &str)> = (self.names.iter())
            .map(|(name, &node)| (node, name.as_str()))
            .collect();
        names.sort_unstable();
        names.into_iter().map(|(_, name)| name)
    }

    /// All layers, each after those that it reads. The first is the images.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = Layer<'_>> {
        self.nodes.iter().map(|node| Layer {
            name: &node.name,
            operation: &node.layer,
            inputs: &node.inputs,
            channels: node.maps,
        })
    }

    /// The place of the layer that gives the features.
    pub fn output(&self) -> usize {
        self.output
    }

    /// How many numbers it takes beside the images, as [`NetworkBuilder::non_image`](super::NetworkBuilder::non_image) says;
    /// 0 where it takes images alone.
    pub fn non_image_columns(&self) -> usize {
        let columns = self.nodes.iter().map(|node| match node.layer {
            Operation::NonImage { columns } => columns,
            _ => 0,
        });
        columns.sum()
    }

    /// Refuses what no engine of this crate computes.
    pub(super) fn check_is_computed(&self) -> Result<(), OpsError> {
        match self.non_image_columns() {
            0 => Ok(()),
            columns => Err(OpsError::Network {
                layer: "non_image".to_owned(),
                problem: format!(
                    "takes {columns} numbers beside the images: it is described for other programs"
                ),
            }),
        }
    }

    /// The names and shapes of all parameters, running statistics included, as the layers have them in turn.
    pub fn parameter_shapes(&self) -> Vec<(String, Shape)> {
        let all = (0..self.nodes.len()).flat_map(|index| self.parameters(index));
        all.map(|parameter| (parameter.name, parameter.shape))
            .collect()
    }

    /// The same network up to `node`, whose maps are the features.
    #[must_use]
    pub fn up_to(&self, node: Node) -> Self {
        let nodes = self.nodes[..=node.0].to_vec();
        let names = self.names.iter().filter(|(_, at)| **at <= node.0);
        Self {
            nodes,
            names: names.map(|(name, at)| (name.clone(), *at)).collect(),
            output: node.0,
        }
    }

    /// The rest of the network behind `node`, whose maps it takes as its images.
    ///
    /// # Errors
    /// [`OpsError::Network`] where a later layer reads maps from before the node.
    pub fn after(&self, node: Node) -> Result<Self, OpsError> {
        let mut nodes = vec![NodeData {
            name: "images".to_owned(),
            layer: Operation::Images,
            inputs: Vec::new(),
            maps: self.nodes[node.0].maps,
            is_pooled: self.nodes[node.0].is_pooled,
        }];
        for later in &self.nodes[node.0 + 1..] {
            let inputs = later.inputs.iter().map(|input| input.checked_sub(node.0));
            let Some(inputs) = inputs.collect() else {
                return Err(OpsError::Network {
                    layer: later.name.clone(),
                    problem: "reads maps from before the node at which the network is cut"
                        .to_owned(),
                });
            };
            nodes.push(NodeData {
                inputs,
                ..later.clone()
            });
        }
        let names = self.names.iter().filter(|(_, at)| **at >= node.0);
        Ok(Self {
            nodes,
            names: names
                .map(|(name, at)| (name.clone(), at - node.0))
                .collect(),
            output: self.output - node.0,
        })
    }

    /// The same network with other nonlinearities: `replace` gives that which takes the place of one.
    #[must_use]
    pub fn with_nonlinearities(&self, replace: impl Fn(Nonlinearity) -> Nonlinearity) -> Self {
        let mut other = self.clone();
        for node in &mut other.nodes {
            if let Operation::Activation(nonlinearity) = &mut node.layer {
                *nonlinearity = replace(*nonlinearity);
            }
        }
        other
    }

    /// Channels of the features.
    pub fn feature_channels(&self) -> usize {
        self.nodes[self.output].maps
    }

    /// `(C, h, w)` of the features of images of `height × width` pixels.
    ///
    /// # Errors
    /// [`OpsError::Network`] where a window does not fit its maps.
    pub fn feature_shape(
        &self,
        height: usize,
        width: usize,
    ) -> Result<(usize, usize, usize), OpsError> {
        let extent = self.extents(1, height, width)?[self.output];
        Ok((extent.maps, extent.height, extent.width))
    }

    /// What an image of `height × width` pixels costs.
    ///
    /// # Errors
    /// As [`Self::feature_shape`].
    pub fn cost(&self, height: usize, width: usize) -> Result<NetworkCost, OpsError> {
        let extents = self.extents(1, height, width)?;
        let plan = super::plan::Plan::new(self);
        let (mut multiply_adds, mut blocks) = (0, 0);
        for index in 0..self.nodes.len() {
            multiply_adds += self.multiply_adds(index, &extents);
            if plan.is_stored(index) {
                blocks += extents[index].len() as u64;
            }
        }
        let parameters = (0..self.nodes.len()).flat_map(|index| self.parameters(index));
        Ok(NetworkCost {
            multiply_adds,
            training_bytes: blocks * (LANES * size_of::<f32>()) as u64,
            parameters: parameters.map(|p| p.shape.elem_count() as u64).sum(),
        })
    }

    /// The network cut at its [named](super::NetworkBuilder::name) nodes: what each part between two of them has and costs
    /// for an image of `height × width` pixels. What follows the last named node is a part without a name.
    ///
    /// # Errors
    /// As [`Self::feature_shape`].
    pub fn parts(&self, height: usize, width: usize) -> Result<Vec<NetworkPart>, OpsError> {
        let extents = self.extents(1, height, width)?;
        let mut ends: Vec<(usize, &str)> = (self.names.iter())
            .map(|(name, &node)| (node, name.as_str()))
            .collect();
        ends.sort_unstable();
        if ends.last().is_none_or(|&(node, _)| node < self.output) {
            ends.push((self.output, ""));
        }
        let mut parts = Vec::with_capacity(ends.len());
        let mut first = 1;
        for (end, name) in ends {
            let mut part = NetworkPart {
                name: name.to_owned(),
                layers: Vec::new(),
                channels: extents[end].maps,
                height: extents[end].height,
                width: extents[end].width,
                parameters: 0,
                multiply_adds: 0,
            };
            for (index, node) in self.nodes.iter().enumerate().take(end + 1).skip(first) {
                part.multiply_adds += self.multiply_adds(index, &extents);
                let parameters = self.parameters(index).into_iter();
                part.parameters += parameters.map(|p| p.shape.elem_count() as u64).sum::<u64>();
                let read = node
                    .inputs
                    .first()
                    .map_or(0, |&input| self.nodes[input].maps);
                let Some(kind) = node.layer.kind(read) else {
                    continue;
                };
                match part.layers.iter_mut().find(|(before, _)| *before == kind) {
                    Some((_, count)) => *count += 1,
                    None => part.layers.push((kind, 1)),
                }
            }
            first = end + 1;
            parts.push(part);
        }
        Ok(parts)
    }

    /// Multiplications of a node for one image.
    fn multiply_adds(&self, index: usize, extents: &[Extent]) -> u64 {
        let node = &self.nodes[index];
        let Operation::Conv { layer, .. } = &node.layer else {
            return 0;
        };
        let inputs = self.nodes[node.inputs[0]].maps / layer.groups;
        let of_pixel = inputs * layer.kernel[0] * layer.kernel[1] * layer.out_channels;
        (extents[index].pixels() * of_pixel) as u64
    }

    /// The sizes of all nodes' maps.
    pub(super) fn extents(
        &self,
        images: usize,
        height: usize,
        width: usize,
    ) -> Result<Vec<Extent>, OpsError> {
        let mut extents: Vec<Extent> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let failed = |problem: String| OpsError::Network {
                layer: node.name.clone(),
                problem,
            };
            let first = node.inputs.first().map(|&input| extents[input]);
            let input = first.unwrap_or(Extent {
                images,
                maps: node.maps,
                height,
                width,
            });
            let sized = match &node.layer {
                Operation::Conv { layer, .. } => windowed(input, layer.window()),
                Operation::MaxPool(window) | Operation::AveragePool(window) => {
                    windowed(input, *window)
                }
                Operation::GlobalPool
                | Operation::LogSumExpPool(_)
                | Operation::NonImage { .. } => Ok(input.pooled()),
                Operation::Add | Operation::Concat => {
                    let size = |at: &usize| (extents[*at].height, extents[*at].width);
                    match node
                        .inputs
                        .iter()
                        .find(|at| size(at) != (input.height, input.width))
                    {
                        None => Ok(input),
                        Some(other) => Err(format!(
                            "joins maps of {}×{} and {}×{} pixels",
                            input.height,
                            input.width,
                            size(other).0,
                            size(other).1
                        )),
                    }
                }
                _ => Ok(input),
            };
            let sized = sized.map_err(failed)?;
            extents.push(Extent {
                maps: node.maps,
                ..sized
            });
        }
        Ok(extents)
    }

    /// The parameters of a node, with full names.
    pub(super) fn parameters(&self, index: usize) -> Vec<ParameterShape> {
        let node = &self.nodes[index];
        let of = |name: &str, shape: Shape, init: Init| ParameterShape {
            name: match name {
                "" => node.name.clone(),
                name => format!("{}.{name}", node.name),
            },
            shape,
            init,
        };
        match &node.layer {
            Operation::Conv { layer, is_linear } => {
                let inputs = self.nodes[node.inputs[0]].maps / layer.groups;
                let shape: Shape = if *is_linear {
                    let window = layer.kernel[0] * layer.kernel[1];
                    (layer.out_channels, inputs * window).into()
                } else {
                    (layer.out_channels, inputs, layer.kernel[0], layer.kernel[1]).into()
                };
                let mut all = vec![of("weight", shape, layer.init)];
                if layer.bias {
                    all.push(of("bias", layer.out_channels.into(), Init::Zeros));
                }
                all
            }
            Operation::BatchNorm(_) => vec![
                of("weight", node.maps.into(), Init::Ones),
                of("bias", node.maps.into(), Init::Zeros),
                of("running_mean", node.maps.into(), Init::Zeros),
                of("running_var", node.maps.into(), Init::Ones),
            ],
            Operation::LayerNorm { .. } => vec![
                of("weight", node.maps.into(), Init::Ones),
                of("bias", node.maps.into(), Init::Zeros),
            ],
            Operation::ResponseNorm { .. } => vec![
                of("weight", node.maps.into(), Init::Zeros),
                of("bias", node.maps.into(), Init::Zeros),
            ],
            Operation::LayerScale { initial } => {
                vec![of("", (node.maps, 1, 1).into(), Init::Constant(*initial))]
            }
            _ => Vec::new(),
        }
    }

    /// The window of a convolution or a pooling.
    pub(super) fn window(&self, index: usize) -> Option<Window> {
        match &self.nodes[index].layer {
            Operation::Conv { layer, .. } => Some(layer.window()),
            Operation::MaxPool(window) | Operation::AveragePool(window) => Some(*window),
            _ => None,
        }
    }
}

fn windowed(input: Extent, window: Window) -> Result<Extent, String> {
    let Some([height, width]) = window.output([input.height, input.width]) else {
        return Err(format!(
            "has a window of {}×{}, which does not fit its maps of {}×{} pixels: the images are too small",
            window.kernel[0], window.kernel[1], input.height, input.width
        ));
    };
    Ok(Extent {
        height,
        width,
        ..input
    })
}
