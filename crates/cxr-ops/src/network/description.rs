//! A network as data, and the builder that makes it.

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

/// What a node does.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operation {
    Images,
    Conv {
        layer: ConvLayer,
        /// The weight is `O×I`: a dense layer applied to every pixel.
        is_linear: bool,
    },
    BatchNorm(BatchNormConfig),
    LayerNorm {
        eps: f64,
    },
    LayerScale {
        initial: f32,
    },
    /// `scale·x + shift` with constants, per map.
    Rescale {
        scale: Vec<f32>,
        shift: Vec<f32>,
    },
    Activation(Nonlinearity),
    Add,
    /// The first, each map times the one pixel of it that the second has.
    Gate,
    StochasticDepth(f64),
    Dropout(f64),
    Concat,
    MaxPool(Window),
    AveragePool(Window),
    GlobalPool,
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

/// Makes a [`NetworkDescription`] that reads like the network's diagram. A mistake, such as a sum of different numbers of
/// maps, is kept and returned by [`Self::finish`].
///
/// ```
/// use cxr_ops::{ConvLayer, NetworkBuilder};
///
/// # fn main() -> Result<(), cxr_ops::OpsError> {
/// let mut net = NetworkBuilder::new(3);
/// let images = net.images();
/// let x = net.conv("conv", images, ConvLayer::new(8, 3).stride(2).same());
/// let x = net.norm("norm", x);
/// let x = net.relu(x);
/// let gated = net.squeeze_excite("gate", x, 2);
/// let x = net.add(x, gated);
/// let description = net.finish(x)?;
/// assert_eq!(description.feature_shape(33, 48)?, (8, 17, 24));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct NetworkBuilder {
    nodes: Vec<NodeData>,
    names: BTreeMap<String, usize>,
    norm: BatchNormConfig,
    error: Option<OpsError>,
}

impl NetworkBuilder {
    /// A network that takes images of `channels` channels.
    pub fn new(channels: usize) -> Self {
        Self {
            nodes: vec![NodeData {
                name: "images".to_owned(),
                layer: Operation::Images,
                inputs: Vec::new(),
                maps: channels,
                is_pooled: false,
            }],
            names: BTreeMap::new(),
            norm: BatchNormConfig::default(),
            error: None,
        }
    }

    /// ε and momentum of the batch normalisations that follow.
    #[must_use]
    pub fn with_norm(self, norm: BatchNormConfig) -> Self {
        Self { norm, ..self }
    }

    /// The images.
    pub fn images(&self) -> Node {
        Node(0)
    }

    /// Channels of a node.
    pub fn channels(&self, node: Node) -> usize {
        self.nodes[node.0].maps
    }

    /// Gives a node a name of its own, by which [`NetworkDescription::node`] finds it.
    pub fn name(&mut self, name: &str, node: Node) -> Node {
        if self.names.insert(name.to_owned(), node.0).is_some() {
            self.fail(name, "names two nodes");
        }
        node
    }

    /// A convolution: parameters `weight` and, if biased, `bias`.
    pub fn conv(&mut self, name: &str, input: Node, layer: ConvLayer) -> Node {
        let maps = self.channels(input);
        let least = [
            layer.out_channels,
            layer.stride,
            layer.groups,
            layer.kernel[0],
            layer.kernel[1],
        ];
        if least.contains(&0) {
            self.fail(
                name,
                "needs maps, a stride, groups and a window of at least 1",
            );
            return input;
        }
        if !maps.is_multiple_of(layer.groups) || !layer.out_channels.is_multiple_of(layer.groups) {
            let (out, groups) = (layer.out_channels, layer.groups);
            self.fail(
                name,
                format!("cannot cut {maps} and {out} maps into {groups} groups"),
            );
            return input;
        }
        let is_linear = false;
        self.push(
            name,
            Operation::Conv { layer, is_linear },
            &[input],
            layer.out_channels,
        )
    }

    /// A convolution of every map with a window of its own.
    pub fn depthwise(&mut self, name: &str, input: Node, side: usize, stride: usize) -> Node {
        let maps = self.channels(input);
        let layer = ConvLayer::new(maps, side)
            .stride(stride)
            .same()
            .groups(maps);
        self.conv(name, input, layer)
    }

    /// A dense layer from the maps of each pixel to `outputs` maps: `weight` (`O×I`) and `bias`.
    pub fn linear(&mut self, name: &str, input: Node, outputs: usize, init: Init) -> Node {
        if outputs == 0 {
            self.fail(name, "needs at least one output");
            return input;
        }
        let layer = ConvLayer::new(outputs, 1).biased().init(init);
        let is_linear = true;
        self.push(
            name,
            Operation::Conv { layer, is_linear },
            &[input],
            outputs,
        )
    }

    /// A batch normalisation: `weight`, `bias`, `running_mean`, `running_var`.
    pub fn norm(&mut self, name: &str, input: Node) -> Node {
        let maps = self.channels(input);
        self.push(name, Operation::BatchNorm(self.norm), &[input], maps)
    }

    /// A normalisation of each pixel over its maps: `weight`, `bias`.
    pub fn layer_norm(&mut self, name: &str, input: Node, eps: f64) -> Node {
        let maps = self.channels(input);
        self.push(name, Operation::LayerNorm { eps }, &[input], maps)
    }

    /// Each map times a trained factor (Touvron et al. 2021). The parameter is called `name` itself and is `C×1×1`.
    pub fn layer_scale(&mut self, name: &str, input: Node, initial: f32) -> Node {
        let maps = self.channels(input);
        self.push(name, Operation::LayerScale { initial }, &[input], maps)
    }

    /// `scale·x + shift` with constants for each map.
    pub fn rescale(&mut self, input: Node, scale: &[f32], shift: &[f32]) -> Node {
        let maps = self.channels(input);
        if scale.len() != maps || shift.len() != maps {
            self.fail(
                "rescale",
                format!("needs two constants for each of {maps} maps"),
            );
            return input;
        }
        let (scale, shift) = (scale.to_vec(), shift.to_vec());
        self.push(
            "rescale",
            Operation::Rescale { scale, shift },
            &[input],
            maps,
        )
    }

    /// A nonlinearity of every value.
    pub fn activation(&mut self, input: Node, nonlinearity: Nonlinearity) -> Node {
        let maps = self.channels(input);
        self.push(
            "activation",
            Operation::Activation(nonlinearity),
            &[input],
            maps,
        )
    }

    /// `max(x, 0)`.
    pub fn relu(&mut self, input: Node) -> Node {
        self.activation(input, Nonlinearity::Relu)
    }

    /// The sum of two nodes of one number of maps and one size.
    pub fn add(&mut self, first: Node, second: Node) -> Node {
        let [maps, other] = [first, second].map(|node| self.channels(node));
        if maps != other {
            self.fail("add", format!("cannot add {other} maps to {maps}"));
        }
        self.push("add", Operation::Add, &[first, second], maps)
    }

    /// Each map times the pixel that `gate`, which was [pooled](Self::global_pool), has of it.
    pub fn gate(&mut self, input: Node, gate: Node) -> Node {
        let [maps, other] = [input, gate].map(|node| self.channels(node));
        if maps != other || !self.nodes[gate.0].is_pooled {
            self.fail(
                "gate",
                format!("needs one pooled factor for each of {maps} maps"),
            );
        }
        self.push("gate", Operation::Gate, &[input, gate], maps)
    }

    /// The maps of all nodes, which are of one size, one after the other.
    pub fn concat(&mut self, inputs: &[Node]) -> Node {
        if inputs.is_empty() {
            self.fail("concat", "needs at least one node");
            return Node(0);
        }
        let maps = inputs.iter().map(|&node| self.channels(node)).sum();
        self.push("concat", Operation::Concat, inputs, maps)
    }

    /// The largest value of windows `side × side`.
    pub fn max_pool(&mut self, input: Node, side: usize, stride: usize, padding: usize) -> Node {
        self.pool(
            "max_pool",
            input,
            [side, stride, padding],
            Operation::MaxPool,
        )
    }

    /// The mean of windows `side × side`, in which padding counts as zeros.
    pub fn average_pool(
        &mut self,
        input: Node,
        side: usize,
        stride: usize,
        padding: usize,
    ) -> Node {
        self.pool(
            "average_pool",
            input,
            [side, stride, padding],
            Operation::AveragePool,
        )
    }

    fn pool(
        &mut self,
        name: &str,
        input: Node,
        [side, stride, padding]: [usize; 3],
        layer: fn(Window) -> Operation,
    ) -> Node {
        if side == 0 || stride == 0 || 2 * padding > side {
            self.fail(
                name,
                "needs a window and a stride of at least 1, and padding of at most half the window",
            );
            return input;
        }
        let window = Window {
            kernel: [side, side],
            stride,
            padding: [padding, padding],
        };
        let maps = self.channels(input);
        self.push(name, layer(window), &[input], maps)
    }

    /// The mean over all pixels.
    pub fn global_pool(&mut self, input: Node) -> Node {
        let maps = self.channels(input);
        self.push("global_pool", Operation::GlobalPool, &[input], maps)
    }

    /// Squeeze and excitation (Hu, Shen & Sun 2018): each map times a factor that two dense layers, `fc1` to `squeezed`
    /// maps and `fc2` back, make of the means of all maps, by SiLU and sigmoid.
    pub fn squeeze_excite(&mut self, name: &str, input: Node, squeezed: usize) -> Node {
        let (inner, outer) = (Nonlinearity::Silu, Nonlinearity::Sigmoid);
        self.squeeze_excite_with(name, input, squeezed, inner, outer)
    }

    /// As [`Self::squeeze_excite`], with other nonlinearities.
    pub fn squeeze_excite_with(
        &mut self,
        name: &str,
        input: Node,
        squeezed: usize,
        inner: Nonlinearity,
        outer: Nonlinearity,
    ) -> Node {
        let maps = self.channels(input);
        let x = self.global_pool(input);
        let x = self.conv(
            &format!("{name}.fc1"),
            x,
            ConvLayer::new(squeezed, 1).biased(),
        );
        let x = self.activation(x, inner);
        let x = self.conv(&format!("{name}.fc2"), x, ConvLayer::new(maps, 1).biased());
        let x = self.activation(x, outer);
        self.gate(input, x)
    }

    /// In training sets all maps of an image to 0 with probability `rate` and divides those of the others by `1 − rate`
    /// (Huang et al. 2016). Drawn from the image's key and `name`, which is to be the layer's own.
    pub fn stochastic_depth(&mut self, name: &str, input: Node, rate: f64) -> Node {
        let maps = self.channels(input);
        if !(0. ..1.).contains(&rate) {
            self.fail(name, format!("needs a rate in [0, 1), got {rate}"));
        }
        self.push(name, Operation::StochasticDepth(rate), &[input], maps)
    }

    /// As [`dropout`](crate::dropout), with the same draws.
    pub fn dropout(&mut self, name: &str, input: Node, rate: f64) -> Node {
        let maps = self.channels(input);
        if !(0. ..1.).contains(&rate) {
            self.fail(name, format!("needs a rate in [0, 1), got {rate}"));
        }
        self.push(name, Operation::Dropout(rate), &[input], maps)
    }

    /// The description, whose features are `output`.
    ///
    /// # Errors
    /// [`OpsError::Network`]: the first mistake that was made.
    pub fn finish(mut self, output: Node) -> Result<NetworkDescription, OpsError> {
        if self.nodes[0].maps == 0 {
            self.fail("images", "need at least one channel");
        }
        match self.error {
            Some(error) => Err(error),
            None => Ok(NetworkDescription {
                nodes: self.nodes,
                names: self.names,
                output: output.0,
            }),
        }
    }

    fn push(&mut self, name: &str, layer: Operation, inputs: &[Node], maps: usize) -> Node {
        let is_pooled = match layer {
            Operation::GlobalPool => true,
            _ => inputs.iter().all(|input| self.nodes[input.0].is_pooled),
        };
        self.nodes.push(NodeData {
            name: name.to_owned(),
            layer,
            inputs: inputs.iter().map(|input| input.0).collect(),
            maps,
            is_pooled,
        });
        Node(self.nodes.len() - 1)
    }

    fn fail(&mut self, layer: &str, problem: impl Into<String>) {
        self.error.get_or_insert(OpsError::Network {
            layer: layer.to_owned(),
            problem: problem.into(),
        });
    }
}

/// A network as data: which layers, with which sizes, read which. It has no weights; [`Network`](crate::Network) has.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkDescription {
    pub(super) nodes: Vec<NodeData>,
    names: BTreeMap<String, usize>,
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

/// One parameter of a layer.
pub(super) struct ParameterShape {
    pub(super) name: String,
    pub(super) shape: Shape,
    pub(super) init: Init,
}

impl NetworkDescription {
    /// The node of a [name](NetworkBuilder::name).
    pub fn node(&self, name: &str) -> Option<Node> {
        self.names.get(name).copied().map(Node)
    }

    /// All such names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
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
        for (index, node) in self.nodes.iter().enumerate() {
            let extent = extents[index];
            if let Operation::Conv { layer, .. } = &node.layer {
                let inputs = self.nodes[node.inputs[0]].maps / layer.groups;
                let of_pixel = inputs * layer.kernel[0] * layer.kernel[1] * layer.out_channels;
                multiply_adds += (extent.pixels() * of_pixel) as u64;
            }
            if plan.is_stored(index) {
                blocks += extent.len() as u64;
            }
        }
        let parameters = (0..self.nodes.len()).flat_map(|index| self.parameters(index));
        Ok(NetworkCost {
            multiply_adds,
            training_bytes: blocks * (LANES * size_of::<f32>()) as u64,
            parameters: parameters.map(|p| p.shape.elem_count() as u64).sum(),
        })
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
                Operation::GlobalPool => Ok(input.pooled()),
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
                    (layer.out_channels, inputs).into()
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
