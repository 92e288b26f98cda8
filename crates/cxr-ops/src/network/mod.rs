//! Networks that are described once: parameters, training, evaluation and costs all come from the description.
//!
//! Training keeps the outputs of convolutions, sums, pools and concatenations. What normalisations, activations and
//! gates make of them is computed whenever it is read, by the next convolution in the forward pass and by its weight's
//! gradient in the backward pass, and is never stored. In evaluation normalisations go into the weights, and activations
//! and sums are applied to a convolution's output while it is in the cache.

mod builder;
mod convolution;
mod description;
mod evaluation;
mod plan;
mod training;
mod values;

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor, bail};

use crate::grouped::Pool;
use crate::layers::Phase;
use crate::norm::BatchNorm;
use crate::{OpsError, ParameterPath};

pub use builder::NetworkBuilder;
pub use description::{
    ConvLayer, Layer, NetworkCost, NetworkDescription, NetworkPart, Node, Operation,
};

use plan::{Plan, Step};

/// A described network with its parameters. A clone has the same parameters.
#[derive(Debug, Clone)]
pub struct Network {
    shared: Arc<Shared>,
    /// What is trained, in the order of the nodes.
    parameters: Vec<Tensor>,
    /// Normalisations by node.
    norms: Vec<Option<BatchNorm>>,
}

/// What depends on the description alone.
#[derive(Debug)]
struct Shared {
    description: NetworkDescription,
    plan: Plan,
    /// For each node, where its parameters are among the inputs of the operation, of which the images are the first.
    slots: Vec<Range<usize>>,
    /// Which nodes' outputs are normalised over the batch.
    is_normalised: Vec<bool>,
    /// Which nodes evaluation computes within a convolution before them.
    is_folded: Vec<bool>,
    /// For each node, the first that reads it, which is the last to add to its gradient.
    first_readers: Vec<usize>,
    /// For each node, whose maps nobody reads in evaluation once it is computed.
    last_reads: Vec<Vec<usize>>,
    pool: Pool,
}

impl NetworkDescription {
    /// The network with new parameters under `path`.
    ///
    /// # Errors
    /// `path` already holds a parameter of one of the names, or two layers have one name; a network that takes
    /// [more than images](Operation::NonImage).
    pub fn build(&self, path: &ParameterPath) -> std::result::Result<Network, OpsError> {
        self.check_is_computed()?;
        let mut parameters = Vec::new();
        let mut norms = Vec::with_capacity(self.nodes.len());
        let mut slots = Vec::with_capacity(self.nodes.len());
        for (index, node) in self.nodes.iter().enumerate() {
            let first = parameters.len() + 1;
            let mut norm = None;
            if let Operation::BatchNorm(config) = node.layer {
                let layer = BatchNorm::new(node.maps, config, &path.pp(&node.name))?;
                parameters.extend([layer.weight().clone(), layer.bias().clone()]);
                norm = Some(layer);
            } else {
                for parameter in self.parameters(index) {
                    parameters.push(path.trainable(
                        &parameter.name,
                        parameter.shape,
                        parameter.init,
                    )?);
                }
            }
            norms.push(norm);
            slots.push(first..parameters.len() + 1);
        }
        Ok(Network {
            shared: Arc::new(Shared::new(self.clone(), slots)),
            parameters,
            norms,
        })
    }
}

impl NetworkDescription {
    /// The network with parameters that there are already: what is trained and the normalisations, both in the order of
    /// the layers.
    ///
    /// # Errors
    /// [`OpsError::Network`] for another number of them or other shapes than the layers have; as [`Self::build`].
    pub fn with_parameters(
        &self,
        parameters: Vec<Tensor>,
        norms: Vec<BatchNorm>,
    ) -> std::result::Result<Network, OpsError> {
        self.check_is_computed()?;
        let mut given = parameters.iter();
        let mut given_norms = norms.into_iter();
        let mut norms = Vec::with_capacity(self.nodes.len());
        let mut slots = Vec::with_capacity(self.nodes.len());
        let mut next = 1;
        for (index, node) in self.nodes.iter().enumerate() {
            let first = next;
            let is_norm = matches!(node.layer, Operation::BatchNorm(_));
            let running = if is_norm { 2 } else { 0 };
            let mut shapes = self.parameters(index);
            shapes.truncate(shapes.len() - running);
            for expected in shapes {
                let shape = given.next().map(|tensor| tensor.shape().clone());
                if shape.as_ref() != Some(&expected.shape) {
                    return Err(OpsError::Network {
                        layer: expected.name,
                        problem: format!(
                            "expected a parameter {:?}, got {shape:?}",
                            expected.shape
                        ),
                    });
                }
                next += 1;
            }
            norms.push(match is_norm {
                true => given_norms.next(),
                false => None,
            });
            slots.push(first..next);
        }
        if given.next().is_some() || given_norms.next().is_some() {
            return Err(OpsError::Network {
                layer: "network".to_owned(),
                problem: "more parameters than the layers have".to_owned(),
            });
        }
        Ok(Network {
            shared: Arc::new(Shared::new(self.clone(), slots)),
            parameters,
            norms,
        })
    }
}

impl Shared {
    fn new(description: NetworkDescription, slots: Vec<Range<usize>>) -> Self {
        let plan = Plan::new(&description);
        let nodes = &description.nodes;
        let mut is_normalised = vec![false; nodes.len()];
        for node in nodes {
            if let Operation::BatchNorm(_) = node.layer {
                is_normalised[node.inputs[0]] = true;
            }
        }
        let mut is_folded = vec![false; nodes.len()];
        for (conv, fold) in plan.folds.iter().enumerate() {
            if let Some(fold) = fold {
                // From the convolution to what is written, everything on the way.
                let mut node = fold.output;
                while node != conv {
                    is_folded[node] = true;
                    let of_sum = |input: &&usize| fold.sum.map(|(other, _)| other) != Some(**input);
                    node = nodes[node]
                        .inputs
                        .iter()
                        .find(of_sum)
                        .copied()
                        .unwrap_or(conv);
                }
            }
        }
        let mut first_readers = vec![usize::MAX; nodes.len()];
        for (index, node) in nodes.iter().enumerate().rev() {
            for &input in &node.inputs {
                first_readers[input] = index;
            }
        }
        let last_reads = last_reads(&description, &plan);
        Self {
            description,
            plan,
            slots,
            is_normalised,
            is_folded,
            first_readers,
            last_reads,
            pool: Pool::default(),
        }
    }
}

/// For each node, the nodes whose maps it is the last to read in evaluation, directly or through what is made of them.
fn last_reads(description: &NetworkDescription, plan: &Plan) -> Vec<Vec<usize>> {
    let nodes = &description.nodes;
    let mut last: Vec<usize> = (0..nodes.len()).collect();
    // Whoever reads a view reads what it is made of.
    for (index, node) in nodes.iter().enumerate() {
        let mut read = node.inputs.clone();
        while let Some(input) = read.pop() {
            last[input] = last[input].max(index);
            let is_made = matches!(
                plan.steps[input],
                Step::Point { .. } | Step::Gate { .. } | Step::Absorbed
            );
            if is_made {
                read.extend(&nodes[input].inputs);
            }
        }
    }
    let mut kept = vec![description.output];
    let mut is_kept = vec![false; nodes.len()];
    while let Some(node) = kept.pop() {
        if !is_kept[node] {
            is_kept[node] = true;
            if !plan.is_stored(node) {
                kept.extend(&nodes[node].inputs);
            }
        }
    }
    let mut reads = vec![Vec::new(); nodes.len()];
    for (node, &reader) in last.iter().enumerate() {
        if !is_kept[node] {
            reads[reader].push(node);
        }
    }
    reads
}

impl Network {
    /// Images `N×C×H×W` to features. In [`Phase::Train`] with batch statistics, which move the running ones once per
    /// call (with running ones that stay as they are in the scope of
    /// [`NormStatistics::Running`](crate::NormStatistics)), and gradients for every parameter and, where asked for, the
    /// images; in [`Phase::Evaluate`] with running
    /// statistics and a gradient for the images alone.
    ///
    /// # Errors
    /// Images of another number of channels, too small for a window, of another type than `f32` or on another device
    /// than the CPU; in training another number of keys than images, or one value per map to normalise.
    pub fn forward_t(&self, images: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        let (_, channels, _, _) = images.dims4()?;
        let expected = self.shared.description.nodes[0].maps;
        if channels != expected {
            bail!("network: expected images of {expected} channels, got {channels}");
        }
        if images.elem_count() == 0 {
            bail!(
                "network: expected at least one pixel, got images {:?}",
                images.dims()
            );
        }
        if images.dtype() != DType::F32 || !images.device().is_cpu() {
            bail!(
                "network: expected `f32` images on the CPU, got {:?} on {:?}",
                images.dtype(),
                images.device().location()
            );
        }
        match phase {
            Phase::Train { image_keys } => {
                training::forward(self, images, self.parameters.clone(), Some(image_keys))
            }
            Phase::Evaluate if images.track_op() => {
                let constants = self.parameters.iter().map(Tensor::detach).collect();
                training::forward(self, images, constants, None)
            }
            Phase::Evaluate => evaluation::forward(self, images),
        }
    }

    /// The network in two that share its parameters: from images to the maps of a
    /// [named](NetworkBuilder::name) node, and from these, which it takes as its images, to the features.
    ///
    /// # Errors
    /// [`OpsError::Network`] for a name that there is not, or a node that later layers go around.
    pub fn split(&self, name: &str) -> std::result::Result<(Self, Self), OpsError> {
        let description = self.description();
        let Some(node) = description.node(name) else {
            let names: Vec<String> = description
                .names()
                .map(|name| format!("`{name}`"))
                .collect();
            return Err(OpsError::Network {
                layer: name.to_owned(),
                problem: match names.is_empty() {
                    true => "is no named node: the network has none".to_owned(),
                    false => format!("is no named node; there are {}", names.join(", ")),
                },
            });
        };
        let at = node.0;
        let slots = &self.shared.slots;
        // Of the images, which are the first input, and of the parameters before.
        let before = slots[at].end;
        // The maps that it begins with have none.
        let mut later = Vec::from([Range { start: 1, end: 1 }]);
        later.extend(
            (slots[at + 1..].iter()).map(|slot| slot.start - before + 1..slot.end - before + 1),
        );
        let part =
            |description, slots, parameters: &[Tensor], norms: Vec<Option<BatchNorm>>| Self {
                shared: Arc::new(Shared::new(description, slots)),
                parameters: parameters.to_vec(),
                norms,
            };
        let (first, second) = self.parameters.split_at(before - 1);
        let mut norms = vec![None];
        norms.extend_from_slice(&self.norms[at + 1..]);
        Ok((
            part(
                description.up_to(node),
                slots[..=at].to_vec(),
                first,
                self.norms[..=at].to_vec(),
            ),
            part(description.after(node)?, later, second, norms),
        ))
    }

    /// What the network is.
    pub fn description(&self) -> &NetworkDescription {
        &self.shared.description
    }

    /// Running mean and variance of each normalisation, by node.
    fn running_statistics(&self) -> Result<Vec<Option<[Vec<f32>; 2]>>> {
        let of = |norm: &BatchNorm| -> Result<[Vec<f32>; 2]> {
            Ok([
                norm.running_mean().to_vec1()?,
                norm.running_var().to_vec1()?,
            ])
        };
        self.norms
            .iter()
            .map(|norm| norm.as_ref().map(of).transpose())
            .collect()
    }
}
