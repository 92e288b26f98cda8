//! What a pass has computed of each node, and how it is read.

use super::plan::{Plan, Step};
use crate::blocked::maps::Maps;
use crate::blocked::{Affine, Block, Extent, View};

/// The stored maps of a pass, and of what the maps that are not stored are made whenever they are read.
pub(super) struct Values {
    pub(super) maps: Vec<Option<Maps>>,
    /// Affine maps of normalisations and scales.
    pub(super) affines: Vec<Option<Vec<Affine>>>,
    /// Factors of gates, one per image and map.
    pub(super) gates: Vec<Option<Vec<Block>>>,
}

impl Values {
    /// Nothing, of so many nodes.
    pub(super) fn of(n_nodes: usize) -> Self {
        Self {
            maps: (0..n_nodes).map(|_| None).collect(),
            affines: vec![None; n_nodes],
            gates: vec![None; n_nodes],
        }
    }

    /// The maps of a node, as its readers see them.
    pub(super) fn view<'a>(&'a self, plan: &Plan, extents: &[Extent], node: usize) -> View<'a> {
        match &self.maps[node] {
            Some(maps) => maps.view(),
            None => self.made(plan, extents, node),
        }
    }

    /// The maps of a node as they are made of stored ones.
    pub(super) fn made<'a>(&'a self, plan: &Plan, extents: &[Extent], node: usize) -> View<'a> {
        match plan.steps[node] {
            Step::Point {
                input,
                affine,
                nonlinearity,
            } => View {
                affine: affine.and_then(|affine| self.affines[affine].as_deref()),
                nonlinearity,
                ..self.view(plan, extents, input)
            },
            Step::Gate { input, .. } => View {
                gate: self.gates[node].as_deref(),
                ..self.view(plan, extents, input)
            },
            _ => View::plain(&[], extents[node]),
        }
    }
}
