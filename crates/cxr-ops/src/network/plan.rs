//! How a described network is computed: which maps are stored, and which are made whenever they are read.

use super::description::{NetworkDescription, Operation};
use crate::blocked::Nonlinearity;

/// How a node's maps come about.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// They are part of what a later node does.
    Absorbed,
    Images,
    Conv,
    /// A normalisation or another affine map, a nonlinearity, or both, of stored maps.
    Point {
        input: usize,
        /// The node of the affine map.
        affine: Option<usize>,
        nonlinearity: Nonlinearity,
    },
    /// Each map times a factor.
    Gate {
        input: usize,
        /// The node of the factors; `None` for stochastic depth.
        factors: Option<usize>,
    },
    Sum {
        inputs: [usize; 2],
        relu: bool,
    },
    LayerNorm,
    ResponseNorm,
    Dropout,
    Concat,
    MaxPool,
    AveragePool,
    GlobalPool,
    LogSumExpPool,
}

/// What evaluation does behind a convolution while its output is in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fold {
    /// The normalisation that goes into the weights.
    pub(super) norm: Option<usize>,
    pub(super) nonlinearity: Nonlinearity,
    /// What is added, with a ReLU or without.
    pub(super) sum: Option<(usize, bool)>,
    /// The node whose maps are written.
    pub(super) output: usize,
}

/// The steps of a description, node by node.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// Nodes that are stored although they could be made when read, as somebody needs them stored.
    copied: Vec<bool>,
    /// For each convolution, what evaluation folds into it.
    pub(super) folds: Vec<Option<Fold>>,
}

impl Plan {
    pub(super) fn new(description: &NetworkDescription) -> Self {
        let nodes = &description.nodes;
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
        for (index, node) in nodes.iter().enumerate() {
            for &input in &node.inputs {
                readers[input].push(index);
            }
        }
        // Who reads a node, if it is one node alone.
        let only_reader = |node: usize| match readers[node][..] {
            [reader] if node != description.output => Some(reader),
            _ => None,
        };
        let is_activation = |node: usize| match nodes[node].layer {
            Operation::Activation(nonlinearity) => Some(nonlinearity),
            _ => None,
        };
        let is_affine = |node: usize| {
            matches!(
                nodes[node].layer,
                Operation::BatchNorm(_) | Operation::LayerScale { .. } | Operation::Rescale { .. }
            )
        };
        let mut steps: Vec<Step> = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            let next_activation = only_reader(index).and_then(is_activation);
            let input = node.inputs.first().copied().unwrap_or(0);
            steps.push(match &node.layer {
                Operation::Images | Operation::NonImage { .. } => Step::Images,
                Operation::Conv { .. } => Step::Conv,
                Operation::BatchNorm(_)
                | Operation::LayerScale { .. }
                | Operation::Rescale { .. } => match next_activation {
                    Some(_) => Step::Absorbed,
                    None => Step::Point {
                        input,
                        affine: Some(index),
                        nonlinearity: Nonlinearity::Identity,
                    },
                },
                Operation::Add => match next_activation {
                    Some(Nonlinearity::Relu) => Step::Absorbed,
                    _ => Step::Sum {
                        inputs: [node.inputs[0], node.inputs[1]],
                        relu: false,
                    },
                },
                &Operation::Activation(nonlinearity) => match steps[input] {
                    Step::Absorbed if is_affine(input) => Step::Point {
                        input: nodes[input].inputs[0],
                        affine: Some(input),
                        nonlinearity,
                    },
                    Step::Absorbed => Step::Sum {
                        inputs: [nodes[input].inputs[0], nodes[input].inputs[1]],
                        relu: true,
                    },
                    _ => Step::Point {
                        input,
                        affine: None,
                        nonlinearity,
                    },
                },
                Operation::Gate => Step::Gate {
                    input,
                    factors: Some(node.inputs[1]),
                },
                Operation::StochasticDepth(_) => Step::Gate {
                    input,
                    factors: None,
                },
                Operation::LayerNorm { .. } => Step::LayerNorm,
                Operation::ResponseNorm { .. } => Step::ResponseNorm,
                Operation::Dropout(_) => Step::Dropout,
                Operation::Concat => Step::Concat,
                Operation::MaxPool(_) => Step::MaxPool,
                Operation::AveragePool(_) => Step::AveragePool,
                Operation::GlobalPool => Step::GlobalPool,
                Operation::LogSumExpPool(_) => Step::LogSumExpPool,
            });
        }
        let mut copied = vec![false; nodes.len()];
        for step in &steps {
            match *step {
                Step::Point { input, .. } => {
                    copied[input] |= matches!(steps[input], Step::Point { .. } | Step::Gate { .. });
                }
                Step::Gate { input, factors } => {
                    copied[input] |= matches!(steps[input], Step::Gate { .. });
                    if let Some(factors) = factors {
                        let is_made =
                            matches!(steps[factors], Step::Point { .. } | Step::Gate { .. });
                        copied[factors] |= is_made;
                    }
                }
                _ => {}
            }
        }
        let folds = (0..nodes.len())
            .map(|conv| {
                if steps[conv] != Step::Conv {
                    return None;
                }
                // The nodes that read the convolution in turn, as far as each is the only reader.
                let mut norm = None;
                let mut last = conv;
                if let Some(reader) = only_reader(last)
                    && matches!(nodes[reader].layer, Operation::BatchNorm(_))
                {
                    (norm, last) = (Some(reader), reader);
                }
                let mut fold = Fold {
                    norm,
                    nonlinearity: Nonlinearity::Identity,
                    sum: None,
                    output: last,
                };
                if let Some(reader) = only_reader(last) {
                    let other = nodes[reader].inputs.iter().find(|&&input| input != last);
                    let before = other.copied().filter(|&other| other < conv);
                    if let Some(nonlinearity) = is_activation(reader) {
                        (fold.nonlinearity, fold.output) = (nonlinearity, reader);
                    } else if let (Operation::Add, Some(other)) = (&nodes[reader].layer, before) {
                        let relu = only_reader(reader).filter(|_| steps[reader] == Step::Absorbed);
                        fold.sum = Some((other, relu.is_some()));
                        fold.output = relu.unwrap_or(reader);
                    }
                }
                (fold.output != conv).then_some(fold)
            })
            .collect();
        Self {
            steps,
            copied,
            folds,
        }
    }

    /// Whether a node's maps are stored in training.
    pub(super) fn is_stored(&self, node: usize) -> bool {
        match self.steps[node] {
            Step::Absorbed => false,
            Step::Point { .. } | Step::Gate { .. } => self.copied[node],
            _ => true,
        }
    }
}
