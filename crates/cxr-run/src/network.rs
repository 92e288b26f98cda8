//! What a run says of its network's layers, for a drawing and a table.

use serde::{Deserialize, Serialize};

/// A part of a network, such as a block of a backbone, from images to logits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPart {
    /// What its layers are called, such as `denseblock1`; empty for what follows the last name.
    pub name: String,
    /// Whether it is of the head, behind the backbone's features.
    pub is_head: bool,
    /// Kinds of layers, such as `3×3 convolution`, each with how many there are.
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
