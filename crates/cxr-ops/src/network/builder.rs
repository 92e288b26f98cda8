//! The builder of described networks.

use std::collections::BTreeMap;

use super::description::{ConvLayer, NetworkDescription, Node, NodeData, Operation};
use crate::blocked::Nonlinearity;
use crate::blocked::packing::Window;
use crate::norm::BatchNormConfig;
use crate::{Init, OpsError};

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

    /// So many numbers that are known of an image besides its pixels, each a map of one pixel; once at most in a network. They
    /// are joined to what was [pooled](Self::global_pool).
    pub fn non_image(&mut self, columns: usize) -> Node {
        let mut layers = self.nodes.iter();
        if columns == 0 || layers.any(|node| matches!(node.layer, Operation::NonImage { .. })) {
            self.fail("non_image", "needs at least one number, and is there once");
        }
        self.push("non_image", Operation::NonImage { columns }, &[], columns)
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
        self.dense(name, input, [1, 1], outputs, init)
    }

    /// A dense layer from the values of each window of `height × width` pixels to `outputs` maps: `weight`
    /// (`O×(C·height·width)`, in the order of flattened maps) and `bias`. Over maps of that very size it is what follows a
    /// flattening.
    pub fn dense(
        &mut self,
        name: &str,
        input: Node,
        window: [usize; 2],
        outputs: usize,
        init: Init,
    ) -> Node {
        if outputs == 0 || window.contains(&0) {
            self.fail(name, "needs at least one output and one pixel");
            return input;
        }
        let layer = ConvLayer::rectangular(outputs, window).biased().init(init);
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

    /// A global response normalisation (Woo et al. 2023): `x·(1 + γ·n) + β`, where `n` is a map's norm over the pixels of an
    /// image, over the mean of all maps' norms and ε. Parameters `weight` (γ) and `bias` (β), which begin with 0.
    pub fn response_norm(&mut self, name: &str, input: Node, eps: f64) -> Node {
        let maps = self.channels(input);
        self.push(name, Operation::ResponseNorm { eps }, &[input], maps)
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

    /// `ln(mean of e^(r·x))/r` over all pixels, with `r` = `sharpness` above 0: near the mean where it is small, near the
    /// maximum where it is large (Wang et al.: ChestX-ray8, CVPR 2017, who take 10).
    pub fn log_sum_exp_pool(&mut self, input: Node, sharpness: f32) -> Node {
        let maps = self.channels(input);
        if !(sharpness.is_finite() && sharpness > 0.) {
            self.fail(
                "log_sum_exp_pool",
                format!("needs a factor above 0, got {sharpness}"),
            );
        }
        let operation = Operation::LogSumExpPool(sharpness);
        self.push("log_sum_exp_pool", operation, &[input], maps)
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
            Operation::GlobalPool | Operation::LogSumExpPool(_) => true,
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
