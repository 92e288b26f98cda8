//! A graph while it is written: nodes, constants, names.

use super::proto::{
    AttributeProto, DimensionProto, FLOAT, GraphProto, INT64, NodeProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};

/// A node's attribute.
pub(super) enum Attribute<'a> {
    Float(&'a str, f32),
    Int(&'a str, i64),
    Ints(&'a str, &'a [usize]),
    Text(&'a str, &'a str),
}

/// One side of a tensor.
#[derive(Clone, Copy)]
pub(super) enum Side<'a> {
    Fixed(usize),
    /// Any size; equal names are equal sizes.
    Free(&'a str),
}

/// Nodes in the order in which they are computed.
#[derive(Default)]
pub(super) struct Graph {
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    unnamed: usize,
}

impl Graph {
    /// Adds a node with a name of its own; returns the name of what it gives.
    pub(super) fn named(
        &mut self,
        name: &str,
        operator: &str,
        inputs: &[&str],
        attributes: &[Attribute<'_>],
    ) -> String {
        let output = format!("{name}.out");
        self.giving(&output, name, operator, inputs, attributes);
        output
    }

    /// Adds a node that has no parameters.
    pub(super) fn add(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: &[Attribute<'_>],
    ) -> String {
        let name = self.fresh(operator);
        self.named(&name, operator, inputs, attributes)
    }

    /// Adds a node that gives `output`.
    pub(super) fn giving(
        &mut self,
        output: &str,
        name: &str,
        operator: &str,
        inputs: &[&str],
        attributes: &[Attribute<'_>],
    ) {
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output: vec![output.to_owned()],
            name: name.to_owned(),
            op_type: operator.to_owned(),
            attribute: attributes.iter().map(attribute).collect(),
        });
    }

    /// Adds a constant of single precision under `name`.
    pub(super) fn constant(&mut self, name: &str, sides: &[usize], values: &[f32]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        self.tensor(name, sides, FLOAT, bytes.collect())
    }

    /// Adds a constant that needs no name of its own.
    pub(super) fn unnamed_constant(&mut self, sides: &[usize], values: &[f32]) -> String {
        let name = self.fresh("constant");
        self.constant(&name, sides, values)
    }

    /// Adds a list of integers.
    pub(super) fn integers(&mut self, values: &[usize]) -> String {
        let name = self.fresh("integers");
        let bytes = values
            .iter()
            .flat_map(|&value| (value as i64).to_le_bytes());
        self.tensor(&name, &[values.len()], INT64, bytes.collect())
    }

    fn tensor(&mut self, name: &str, sides: &[usize], kind: i32, bytes: Vec<u8>) -> String {
        self.constants.push(TensorProto {
            dims: sides.iter().map(|&side| side as i64).collect(),
            data_type: kind,
            name: name.to_owned(),
            raw_data: bytes,
        });
        name.to_owned()
    }

    fn fresh(&mut self, kind: &str) -> String {
        self.unnamed += 1;
        format!("{}_{}", kind.to_lowercase(), self.unnamed)
    }

    pub(super) fn finish(
        self,
        name: String,
        input: Vec<ValueInfoProto>,
        output: Vec<ValueInfoProto>,
    ) -> GraphProto {
        GraphProto {
            node: self.nodes,
            name,
            initializer: self.constants,
            input,
            output,
        }
    }
}

/// What goes into the graph or comes out of it.
pub(super) fn value(name: &str, kind: i32, sides: &[Side<'_>], doc: String) -> ValueInfoProto {
    let dim = sides.iter().map(|&side| match side {
        Side::Fixed(size) => DimensionProto {
            dim_value: Some(size as i64),
            dim_param: None,
        },
        Side::Free(name) => DimensionProto {
            dim_value: None,
            dim_param: Some(name.to_owned()),
        },
    });
    let tensor_type = TensorTypeProto {
        elem_type: kind,
        shape: Some(TensorShapeProto { dim: dim.collect() }),
    };
    ValueInfoProto {
        name: name.to_owned(),
        kind: Some(TypeProto {
            tensor_type: Some(tensor_type),
        }),
        doc_string: doc,
    }
}

fn attribute(attribute: &Attribute<'_>) -> AttributeProto {
    match *attribute {
        Attribute::Float(name, value) => AttributeProto {
            name: name.to_owned(),
            f: Some(value),
            kind: 1,
            ..AttributeProto::default()
        },
        Attribute::Int(name, value) => AttributeProto {
            name: name.to_owned(),
            i: Some(value),
            kind: 2,
            ..AttributeProto::default()
        },
        Attribute::Text(name, value) => AttributeProto {
            name: name.to_owned(),
            s: Some(value.as_bytes().to_vec()),
            kind: 3,
            ..AttributeProto::default()
        },
        Attribute::Ints(name, values) => AttributeProto {
            name: name.to_owned(),
            ints: values.iter().map(|&value| value as i64).collect(),
            kind: 7,
            ..AttributeProto::default()
        },
    }
}
